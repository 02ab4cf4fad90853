"""Rows of an SQL log on their way out: checked, then made into records, messages and summaries.

Rule 1: what does not verify, is missing or is too much raises LogCorrupt with its place (L12).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeGuard
from zlib import crc32

from zart_core.errors import LogCorrupt
from zart_core.events import Status
from zart_core.log import Message, Record
from zart_stores.rows import Row
from zart_stores.sql import checksums

COLUMNS = (
    "key, id, workflow, digest, created_at, status, owner, wake, run, position, fence, updated_at, given, "
    "seen, posted, top, unread, reason, build, claimed_as, due, crc"
)
"""The columns of an execution, in the order of Row's fields, then what is derived."""
ID, DUE = 1, 20
"""Where these are among them."""
CLAIM_NAME = "coalesce(claimed_as, workflow)"
"""What workers claim an execution by, as the indexes of what is due have it."""

RECORD_COLUMNS = "position, kind, at, data, crc"
MESSAGE_COLUMNS = "number, kind, name, payload, at, key, crc"

_STATUSES = {status.value: status for status in Status}


def row_of(values: Sequence[Any], path: str) -> Row:
    """Make a row of COLUMNS."""
    *fields, _, crc = values
    where = f"{path}, execution {fields[1]!a}"
    fields[5] = status_of(fields[5], where)
    fields[12] = bool(fields[12])
    row = Row(*fields)
    if (found := _sum(checksums.of_row, row)) != crc:
        raise damage(f"{where}: its row is damaged", where, f"checksum {crc}", f"checksum {found}")
    return row


def status_of(value: Any, where: str) -> Status:
    """Make a status of what a column holds."""
    status = _STATUSES.get(value)
    if status is None:
        raise damage(f"{where}: its row is damaged", where, "a status", f"{value!a:.100}")
    return status


def whole_number(value: Any, where: str) -> int:
    """Give a number that no checksum covers; what is none is damage."""
    if type(value) is not int:
        raise damage(f"{where}: missing or damaged", where, "a whole number", f"{value!a:.100}")
    return value


def is_text(value: Any) -> TypeGuard[str]:
    """Tell whether a value that no checksum covers is a text, and one that can be asked for again."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def records_of(
    found: Iterable[Sequence[Any]], id: str, run: int, start: int, end: int, path: str
) -> list[Record]:
    """Make records of RECORD_COLUMNS, which are those from position `start` to `end` of a run."""
    records: list[Record] = []
    crc_start, head, kinds = checksums.of_id(id), checksums.RECORD_HEAD.pack, checksums.KindBytes()
    expected, there = start, None
    try:
        for position, kind, at, data, crc in found:
            if position != expected:
                there = position
                break
            kind, kind_bytes = kinds[kind]
            if crc32(data, crc32(head(run, position, at) + kind_bytes, crc_start)) != crc:
                raise _damaged_record(path, id, run, position, crc)
            records.append(Record(kind, at, data))
            expected += 1
    except checksums.UNFIT:
        raise _damaged_record(path, id, run, expected, "that fits") from None
    if expected != end or there is not None:
        where = f"{path}, execution {id!a}, run {run}, record {expected}"
        there = "nothing" if there is None else f"[{there}]"
        raise damage(f"{where}: missing or too many", where, f"{end} records", f"next {there}")
    return records


def _damaged_record(path: str, id: str, run: int, position: int, crc: object) -> LogCorrupt:
    where = f"{path}, execution {id!a}, run {run}, record {position}"
    return damage(f"{where}: damaged", where, f"checksum {crc}", "another")


def messages_of(found: Sequence[Sequence[Any]], row: Row, path: str, *, whole: bool) -> list[Message]:
    """Make messages of MESSAGE_COLUMNS; `whole` when they should be all that are unread."""
    messages: list[Message] = []
    crc_start = checksums.of_id(row.id)
    for *fields, crc in found:
        message = Message(*fields)
        if _sum(checksums.of_message, crc_start, message) != crc:
            where = f"{path}, execution {row.id!a}, message {message.number}"
            raise damage(f"{where}: damaged", where, f"checksum {crc}", "another")
        messages.append(message)
    if whole and len(messages) != row.unread:
        where = f"{path}, inbox of execution {row.id!a}"
        raise damage(
            f"{where}: messages are missing or too many", where, f"{row.unread} messages", f"{len(messages)}"
        )
    return messages


def _sum(of: Callable[..., int], *values: Any) -> int | None:
    """Sum up what was read; None when it is of another type than anything that is written."""
    try:
        return of(*values)
    except checksums.UNFIT:
        return None


def damage(message: str, where: str, expected: str, found: str) -> LogCorrupt:
    """Make the error that reports damage."""
    return LogCorrupt(
        f"{message} (expected {expected}, found {found})", where=where, expected=expected, found=found
    )
