"""Every decoder, with bytes that it takes and the errors that it may raise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

import zart_core as zart
from zart_core.codec import Codec
from zart_core.errors import DecodeError, FormatTooNew, LogCorrupt
from zart_core.log import Mark, New, Post, Record, Turn
from zart_stores.file import bodies

CODEC = Codec()
RECORDS = [Record("Started", 1.0, b'{"a":"\xc3\xa9"}'), Record("X", 2.5, b"\x00\xff")]


@attrs.frozen
class Tree:
    name: str
    parts: list[Tree] = attrs.field(factory=list)
    more: dict[str, int | None] | None = None


EVENTS: list[zart.Event] = [
    zart.Started("an-id", 0, "w", b'{"n":1}', 1.0, 5.0),
    zart.Issued(0, "step", "pay", 1.0, "pay", b"[1]"),
    zart.Began(0, 1, at=2.0, takeover=1, deadline=9.0),
    zart.Retried(0, 0, zart.Failure("error", "E", "m", "trace"), 4.0, 3.0),
    zart.Resolved(0, zart.Done(b'"ok"'), 4.0),
    zart.Delivered(0, "go", b"{}", 4.0, "k"),
    zart.Interrupted("cancel", 5.0, "why"),
    zart.Closed(zart.Status.COMPLETED, 6.0, b"null"),
]
TREE = CODEC.encode(Tree("a", [Tree("b", more={"x": None}), Tree("c")]), Tree)
WRITES = [
    New("a", "w", "d", RECORDS, 1.0, posts=[Post("b", "event", "n", b"\xff", 1.0)]),
    Turn("a", 0, 1, 2, RECORDS, 2.0, zart.Status.WAITING, consumes=(1,), opens=RECORDS),
    Post("a", "event", "n", b"x", 1.0, "k"),
    Mark("a", zart.Status.PARKED, "why", "b"),
]
BODIES = [*map(bodies.encode, WRITES), bodies.encode_closed({"a": 3})]


def event_of(kind: str) -> Callable[[bytes], Any]:
    return lambda data: CODEC.decode_event(Record(kind, 1.0, data), "an-id", 0, 3)


Decoder = tuple[Callable[[bytes], Any], list[bytes], tuple[type[Exception], ...]]
DECODERS: dict[str, Decoder] = {
    **{
        f"event {type(event).__name__}": (
            event_of(type(event).__name__),
            [CODEC.encode_event(event, "an-id", 0, 3).data],
            (LogCorrupt, FormatTooNew),
        )
        for event in EVENTS
    },
    "value by type": (lambda data: CODEC.decode(data, Tree), [TREE], (DecodeError,)),
    "value of any type": (lambda data: CODEC.decode(data, Any), [TREE, b'{"$":["set",[1]]}'], (DecodeError,)),
    "arguments": (lambda data: CODEC.decode_args(data, (Tree, int)), [b"[" + TREE + b",7]"], (DecodeError,)),
    "body of the file log": (bodies.decode, BODIES, (ValueError,)),
    "records of a body": (lambda data: bodies.records_of([data], "a", 0), BODIES[:2], (ValueError,)),
}
