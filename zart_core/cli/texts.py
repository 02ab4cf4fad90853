"""Text for people and for programs: escaping, columns, and events as JSON.

Rule 1: `plain` stands before every print of something that comes from data: ids, names, messages, payloads.
Rule 2: JSON goes out as ASCII, so it needs no escaping of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Any

import attrs

from zart_core.cli.exits import OutputGone, reason_of
from zart_core.events import Cancellation, Done, Failed, Taken
from zart_core.hosts.explain import moment
from zart_core.insight.values import duration as duration
from zart_core.insight.values import plain as plain
from zart_core.insight.values import shortened as shortened

OUTCOMES: dict[type[Any], str] = {Done: "done", Failed: "failed", Taken: "taken", Cancellation: "cancelled"}


def say(line: str = "") -> None:
    """Print a line of text that is escaped already. Raises OutputGone when nobody reads it."""
    try:
        print(line, flush=True)  # noqa: T201  # this is a command
    except OSError as error:
        raise OutputGone(reason_of(error)) from error


def one_line(text: str) -> str:
    """Give a text of several lines as one, escaped."""
    return plain(" ".join(part.strip() for part in text.splitlines() if part.strip()))


def columns(rows: Iterable[Sequence[str]]) -> list[str]:
    """Align rows of escaped cells; the last column is as long as it is."""
    table = [[plain(cell) for cell in row] for row in rows]
    widths = [max(map(len, cells)) for cells in zip(*table, strict=True)][:-1]
    return ["  ".join([c.ljust(w) for c, w in zip(row, widths, strict=False)] + row[-1:]) for row in table]


def as_json(value: Any) -> str:
    """Give plain data as one line of ASCII JSON."""
    return json.dumps(value, separators=(", ", ": "))


def payload(data: bytes) -> Any:
    """Give a payload as plain data; as hexadecimal text where it is no JSON."""
    try:
        return json.loads(data) if data else None
    except ValueError:
        return {"bytes": data.hex()}


def jsonable(value: Any) -> Any:
    """Give a record as plain data: an event, an outcome, a failure, a summary."""
    match value:
        case Enum():
            return value.value
        case bytes():
            return payload(value)
        case list() | tuple():
            return [jsonable(item) for item in value]  # pyright: ignore[reportUnknownVariableType]  # of anything
        case _:
            return fields_of(value, value.__class__)


def fields_of(value: Any, cls: type[Any]) -> Any:
    """Give the fields of a record as a dict; anything else as it is."""
    if not attrs.has(cls):
        return value
    fields = {field.name: jsonable(getattr(value, field.name)) for field in attrs.fields(cls)}
    return {"is": OUTCOMES[cls], **fields} if cls in OUTCOMES else fields


def at(seconds: float | None) -> str | None:
    """Give a time as text, in UTC."""
    return None if seconds is None else moment(seconds)
