"""A history without the data in it: the shape of every payload stays, its leaves do not.

Rule 1: types stay: text stays text of the same length and look, numbers stay numbers, true, false and null stay as they
        are, so that most of what is declared still decodes and most branches go the same way.
Rule 2: ids, names, event names and keys stay; give them no secrets.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, Literal, cast

import attrs
import msgspec

from zart_core.deploys.histories import History
from zart_core.events import (
    Closed,
    Delivered,
    Done,
    Event,
    Failed,
    Failure,
    Interrupted,
    Issued,
    Noted,
    Resolved,
    Retried,
    Started,
)
from zart_core.failures import Fields

SHAPED = re.compile(
    r"[-+]?\d+(\.\d+)?|\d{4}-\d\d-\d\d([T ][\d:.]+([Zz]|[-+]\d\d:?\d\d)?)?|\d\d:\d\d(:\d\d(\.\d+)?)?"
)
UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def scrubbed(history: History, keep: Collection[str] = ()) -> History:
    """The same history with the leaves of its payloads replaced, but for fields named in `keep`.

    Messages and tracebacks of errors go altogether. What a log calls a step, and ids, stay. Where a workflow's course
    hangs on what was replaced, it no longer replays: keep those fields.
    """
    scrub = Scrub(keep)
    runs = [[scrub.event(event) for event in run] for run in history.runs]
    inbox = [attrs.evolve(message, payload=scrub.payload(message.payload)) for message in history.inbox]
    return attrs.evolve(history, runs=runs, inbox=inbox, reason="", scrubbed=True)


class Scrub:
    """What to keep, and what to do to everything else."""

    def __init__(self, keep: Collection[str]) -> None:
        self.keep = frozenset(keep)

    def event(self, event: Event) -> Event:
        """An event with its payload scrubbed."""
        match event:
            case Issued(kind="version"):
                return event
            case Started() | Issued() | Delivered():
                return attrs.evolve(event, payload=self.payload(event.payload))
            case Closed():
                return attrs.evolve(
                    event, payload=self.payload(event.payload), failure=self.failure(event.failure)
                )
            case Resolved(outcome=Done(payload)):
                return attrs.evolve(event, outcome=Done(self.payload(payload)))
            case Resolved(outcome=Failed(failure)):
                return attrs.evolve(event, outcome=Failed(self.known(failure)))
            case Retried():
                return attrs.evolve(event, failure=self.known(event.failure))
            case Noted():
                return attrs.evolve(event, why="")
            case Interrupted():
                return attrs.evolve(event, reason="")
            case _:
                return event

    def payload(self, data: bytes) -> bytes:
        """A payload with its leaves replaced; one that is no JSON goes altogether."""
        if not data:
            return data
        try:
            return msgspec.json.encode(self.value(msgspec.json.decode(data)))
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return b"null"

    def failure(self, failure: Failure | None) -> Failure | None:
        """A failure, if there is one."""
        return None if failure is None else self.known(failure)

    def known(self, failure: Failure) -> Failure:
        """A failure of which its kind, its type and the shape of its fields are left."""
        fields = failure.fields  # of a kind that is Zart's own it names the step, the event or the execution
        if failure.kind == "answer" and fields is not None:
            fields = self.answer(fields)
        return attrs.evolve(
            failure, message="", traceback="", fields=fields, cause=self.failure(failure.cause)
        )

    def answer(self, text: str) -> str | None:
        """The fields of a declared error: what says which is which stays, its values do not."""
        try:
            fields = msgspec.json.decode(text, type=Fields)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None
        args: list[tuple[Literal["field", "value"], Any]] = [
            (what, value if what == "field" else self.value(value)) for what, value in fields.args
        ]
        return msgspec.json.encode(Fields(args, self.value(fields.fields))).decode()

    def value(self, value: Any) -> Any:
        """A value of JSON, its leaves replaced. A tag of a type stays: it is no data."""
        match value:
            case dict():
                fields = cast("dict[str, Any]", value)
                return {
                    name: child if name in self.keep or name == "$" else self.value(child)
                    for name, child in fields.items()
                }
            case list():
                return [self.value(child) for child in value]  # pyright: ignore[reportUnknownVariableType]  # of JSON
            case bool() | None:
                return value
            case int():
                return 1 if value else 0
            case float():
                return 1.0 if value else 0.0
            case _:
                return text(str(value))


def text(value: str) -> str:
    """Text of the same length and look: numbers, dates, times and UUIDs stay such, all their digits 1.

    Of any other only the spaces and punctuation of ASCII are left: vowels that stand below a letter are no letters.
    """
    if UUID.fullmatch(value):
        return "11111111-1111-4111-8111-111111111111"
    if SHAPED.fullmatch(value):
        return re.sub(r"\d", "1", value)
    return re.sub(r"\w|[^\x00-\x7f]", "x", value)
