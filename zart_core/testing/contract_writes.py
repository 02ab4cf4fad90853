"""What checks of stores are made of: hostile texts, writes with sensible defaults, and looks at what came of them."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import attrs

from zart_core.events import CLOSED, Ok, Status
from zart_core.log import (
    ID_CHARS_MAX,
    PAYLOAD_BYTES_MAX,
    Appended,
    EventLog,
    Message,
    New,
    Post,
    Receipt,
    Record,
    Rejected,
    Summary,
    Turn,
    Write,
)
from zart_core.testing.contract_report import Differs, short

T = TypeVar("T")

OPEN = [status for status in Status if status not in CLOSED]
ENDED = sorted(CLOSED)

IDS = {
    "one": "x",
    "longest": "l" * ID_CHARS_MAX,
    "longest-wide": "\U0001f984" * ID_CHARS_MAX,
    "quotes": 'it\'s "quoted" `twice`',
    "sql": "'; DROP TABLE executions; --",
    "like": "100%_of[a-z]*?",
    "path": "../../etc/passwd",
    "absolute": "/dev/null",
    "backslash": "..\\..\\con",
    "dot": ".",
    "dots": "..",
    "spaces": "  two  spaces  ",
    "umlaut": "äöü-ß",
    "combining": "a\u0301",
    "cjk": "注文-四十二",
    "format": "{0} %s %d ${HOME} $(id)",
    "json": '{"a": [1, null]}',
    "colon": "a:b#c?d&e=f",
    "number": "00042",
    "bool": "NULL",
    "bidi-letters": "שלום",
}
"""Ids that must work anywhere (L11); names, keys and workers too."""

NO_IDS = {
    "empty": "",
    "too-long": "x" * (ID_CHARS_MAX + 1),
    "nul": "a\0b",
    "newline": "a\nb",
    "escape": "a\x1b[31mb",
    "surrogate": "a\ud800b",
    "override": "a\u202eb",
    "tab": "\t",
}
"""Ids that no store takes (F22)."""

PAYLOADS = {
    "empty": b"",
    "bytes": bytes(range(256)),
    "nul": b"\0",
    "newlines": b"\r\n\n\r",
    "not-utf8": b"\xff\xfe\x80",
    "json": b'{"a": "\\u0000"}',
    "frame": b"\n00000042 deadbeef 0000000000000000\n",
    "largest": b"\x5a" * PAYLOAD_BYTES_MAX,
}
"""Bytes that come back as they were (L5, L11)."""

LEASE_S = 60.0
SHORT_S = 0.2
"""A lease that a check lets run out, in seconds."""
SWITCH_S = 1e-6
"""How long a thread goes on, in seconds, while several do something at the same time: what no lock holds together falls
apart now and then, and not once in a thousand runs."""
TOGETHER_S = 60.0
"""How long threads may take that do something at the same time, before they count as stuck; plenty anywhere."""


def expect(found: T, wanted: T, what: str = "") -> None:
    """Fail readably unless both are equal."""
    if found != wanted:
        raise Differs(short(wanted), short(found), what)


def records(*kinds: str, at: float = 1.0, data: bytes = b"{}") -> list[Record]:
    """Make records of these kinds."""
    return [Record(kind, at, data) for kind in kinds]


def new(id: str = "a", **changes: Any) -> New:
    """Make a New with one record."""
    fields: dict[str, Any] = {"workflow": "w", "digest": "d", "records": records("Started"), "at": 1.0}
    return New(id, **{**fields, **changes})


def turn(id: str = "a", position: int = 1, *kinds: str, **changes: Any) -> Turn:
    """Make a Turn of run 0 and fence 0 that waits for nothing."""
    fields: dict[str, Any] = {"run": 0, "fence": 0, "at": 2.0, "status": Status.WAITING}
    fields["records"] = records(*kinds, at=2.0)
    return Turn(id, position=position, **{**fields, **changes})


def post(id: str = "a", payload: bytes = b"", *, key: str | None = None, **changes: Any) -> Post:
    """Make an event for an execution."""
    fields: dict[str, Any] = {"kind": "event", "name": "ready", "at": 1.5}
    return Post(id, payload=payload, key=key, **{**fields, **changes})


def receipts(outcomes: Sequence[Appended]) -> list[Receipt]:
    """Give the receipts of writes that all went well; conflicts are any sequence."""
    for outcome in outcomes:
        if not isinstance(outcome, Ok):
            raise Differs("Ok", short(outcome), "the write should be acknowledged")
    found = [outcome.value for outcome in outcomes if isinstance(outcome, Ok)]
    return [attrs.evolve(receipt, conflicts=tuple(receipt.conflicts)) for receipt in found]


def write(log: EventLog, *batch: Write) -> Receipt:
    """Append a batch that goes well; give the last receipt."""
    return receipts(log.append(batch))[-1]


def refused(log: EventLog, item: Write, word: str) -> None:
    """Append one write that must be Rejected with a reason that begins with this word."""
    (outcome,) = log.append([item])
    if not isinstance(outcome, Rejected) or outcome.reason.split()[0].rstrip(":") != word:
        raise Differs(f"Rejected('{word} ...')", short(outcome), "the write should be refused")


def state(log: EventLog, *ids: str) -> list[tuple[Summary | None, list[Record], list[Message]]]:
    """Read all there is about some executions."""
    return [(log.summary(id), log.records(id), log.inbox(id)) for id in ids]


def standing(log: EventLog, id: str = "a") -> Summary:
    """Give the summary of an execution that must be there."""
    found = log.summary(id)
    if found is None:
        raise Differs(f"a summary of execution {id!a}", "None")
    return found


def claimed(log: EventLog, worker: str = "w1", *, now: float = 10.0, lease_s: float = LEASE_S) -> list[str]:
    """Claim all that is due; give the ids."""
    return [each.id for each in log.claim(worker, now=now, lease_s=lease_s, limit=100)]


def together(actions: Sequence[Callable[[], T]]) -> list[T]:
    """Do them at the same time, each in a thread; give what they gave, or raise what the first raised."""
    results: dict[int, T] = {}
    errors: list[BaseException] = []
    barrier = threading.Barrier(len(actions))

    def do(n: int) -> None:
        try:
            barrier.wait(30)
            results[n] = actions[n]()
        except BaseException as error:  # noqa: BLE001  # it is raised below
            errors.append(error)

    threads = [threading.Thread(target=do, args=(n,), daemon=True) for n in range(len(actions))]
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    try:
        for thread in threads:
            thread.start()
        until = time.monotonic() + TOGETHER_S
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
    finally:
        sys.setswitchinterval(before)
    if errors:
        raise errors[0]
    if len(results) < len(actions):
        raise Differs(
            f"{len(actions)} threads that end", f"{len(results)} that did within {TOGETHER_S:.0f} s"
        )
    return [results[n] for n in range(len(actions))]
