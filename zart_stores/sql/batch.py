"""A batch of writes on its way into an SQLite database: rows are read, changed in Python, written at once.

Rule 1: used inside one transaction that began with BEGIN IMMEDIATE, so that what was read still holds.
Rule 2: nothing goes to the database before `flush`: a write that is refused has left nothing to undo.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from typing import Any

from zart_core.errors import LogCorrupt
from zart_core.events import Status
from zart_core.log import Appended, Message, New, Post, Record, Rejected, Turn, Write
from zart_stores.rows import Row, due, new_row, write
from zart_stores.sql import checksums
from zart_stores.sql.reading import COLUMNS, DUE, row_of

_FIND = f"SELECT {COLUMNS} FROM executions WHERE id = ?"  # noqa: S608  # no data in it
_AT_ONCE = 64
_FIND_MANY = f"SELECT {COLUMNS} FROM executions WHERE id IN ({', '.join('?' * _AT_ONCE)})"  # noqa: S608
_INSERT = f"INSERT INTO executions ({COLUMNS}) VALUES ({', '.join('?' * 21)})"  # noqa: S608
_UPDATE = """
    UPDATE executions SET wake = ?, run = ?, position = ?, fence = ?, updated_at = ?, given = ?, seen = ?,
    posted = ?, top = ?, unread = ?, reason = ?, build = ?, crc = ? WHERE key = ?
"""
_MOVE = "UPDATE executions SET status = ?, owner = ?, due = ? WHERE key = ?"
"""Apart, because it touches indexes, and most turns move nothing."""


class Batch:
    """The `Tables` of rows.write over a connection."""

    def __init__(self, db: sqlite3.Connection, path: str) -> None:
        self.db = db
        self._path = path
        self._rows: dict[str, Row | None] = {}
        self._places: dict[int, tuple[Status, str | None, float | None]] = {}
        self._touched: dict[int, Row] = {}
        self._records: list[tuple[Any, ...]] = []
        self._ended: list[tuple[int, int, int]] = []
        self._messages: dict[tuple[int, int], tuple[int, Message]] = {}
        self._keys: dict[tuple[int, str], int] = {}
        self._consumed: set[tuple[int, int]] = set()
        self._next_key = 0

    def prepare(self, batch: Sequence[Write]) -> None:
        """Read the rows of a large batch a number at a time, which takes a third of the time."""
        if len(batch) < 8:
            return
        ids = list({item.id for item in batch})
        for first in range(0, len(ids), _AT_ONCE):
            some = ids[first : first + _AT_ONCE]
            self._rows |= dict.fromkeys(some)
            for values in self.db.execute(_FIND_MANY, some + [""] * (_AT_ONCE - len(some))).fetchall():
                try:
                    self.load(values)
                except LogCorrupt:
                    del self._rows[values[1]]  # the write that needs it meets the damage again

    def write(self, item: Write) -> Appended:
        """Carry out or refuse one write. A damaged row refuses it; who reads the row will see the damage."""
        try:
            if type(item) is New or type(item) is Turn:
                self._find_all(item.creates, item.posts)
            return write(self, item)
        except LogCorrupt as error:
            return Rejected(f"damaged: {error}")

    def _find_all(self, creates: Sequence[New], posts: Sequence[Post]) -> None:
        """Read what a write touches beside its own execution, before anything of it is changed."""
        for post in posts:
            self.find(post.id)
        for new in creates:
            self.find(new.id)
            self._find_all(new.creates, new.posts)

    # ------------------------------------------------ Tables

    def find(self, id: str) -> Row | None:
        """See Tables. O(log n)."""
        if id in self._rows:
            return self._rows[id]
        values = self.db.execute(_FIND, (id,)).fetchone()
        row = self._rows[id] = None if values is None else self.load(values)
        return row

    def load(self, values: Sequence[Any]) -> Row:
        """Make a row of a SELECT of COLUMNS, to be changed in this batch."""
        row = row_of(values, self._path)
        self._places[row.key] = (row.status, row.owner, values[DUE])
        self._rows[row.id] = row
        return row

    def insert(self, new: New) -> Row:
        """See Tables."""
        if not self._next_key:
            (greatest,) = self.db.execute("SELECT max(key) FROM executions").fetchone()
            self._next_key = (greatest or 0) + 1
        row = self._rows[new.id] = new_row(self._next_key, new)
        self._next_key += 1
        return row

    def add_records(self, row: Row, records: Sequence[Record]) -> None:
        """See Tables."""
        start = checksums.of_id(row.id)
        key, run, position = row.key, row.run, row.position
        for record in records:
            at = record.at + 0.0
            crc = checksums.of_record(start, run, position, record.kind, at, record.data)
            self._records.append((key, run, position, record.kind, at, record.data, crc))
            position += 1

    def end_run(self, row: Row) -> None:
        """See Tables."""
        self._ended.append((row.key, row.run, row.position))

    def number_of(self, row: Row, key: str) -> int | None:
        """See Tables. O(log n)."""
        if (row.key, key) in self._keys:
            return self._keys[row.key, key]
        found = self.db.execute(
            "SELECT number FROM message_keys WHERE execution = ? AND key = ?", (row.key, key)
        ).fetchone()
        return None if found is None else int(found[0])

    def add_message(self, row: Row, message: Message) -> None:
        """See Tables."""
        self._messages[row.key, message.number] = (checksums.of_id(row.id), message)
        if message.key is not None:
            self._keys[row.key, message.key] = message.number

    def missing(self, row: Row, numbers: Collection[int]) -> int | None:
        """See Tables. O(log n) for each number."""
        return next((number for number in numbers if not self._is_unread(row, number)), None)

    def _is_unread(self, row: Row, number: int) -> bool:
        if (row.key, number) in self._messages:
            return True
        if not 0 < number <= row.posted or (row.key, number) in self._consumed:
            return False
        query = "SELECT 1 FROM messages WHERE execution = ? AND number = ?"
        return self.db.execute(query, (row.key, number)).fetchone() is not None

    def consume(self, row: Row, numbers: Collection[int]) -> int:
        """See Tables."""
        for number in numbers:
            if self._messages.pop((row.key, number), None) is None:
                self._consumed.add((row.key, number))
        if row.top not in numbers:
            return row.top
        return max(self._greatest_pending(row.key), self._greatest_kept(row.key))

    def _greatest_pending(self, key: int) -> int:
        return max((number for execution, number in self._messages if execution == key), default=0)

    def _greatest_kept(self, key: int) -> int:
        query = "SELECT number FROM messages WHERE execution = ? ORDER BY number DESC"
        for (number,) in self.db.execute(query, (key,)):
            if (key, number) not in self._consumed:
                return int(number)
        return 0

    def changed(self, row: Row) -> None:
        """See Tables."""
        self._touched[row.key] = row

    # ------------------------------------------------ into the database

    @property
    def empty(self) -> bool:
        """True when nothing is to be written."""
        return not self._touched

    def flush(self) -> bool:
        """Write everything; tells whether something may have become due (L10)."""
        stirred = False
        inserts: list[tuple[Any, ...]] = []
        updates: list[tuple[Any, ...]] = []
        moves: list[tuple[Any, ...]] = []
        for row in self._touched.values():
            place = (row.status, row.owner, due(row))
            before = self._places.get(row.key)
            if before is None:
                inserts.append(_all_values(row, place[2]))
            else:
                updates.append(_changing_values(row))
                if place != before:
                    moves.append((row.status.value, row.owner, place[2], row.key))
            stirred = stirred or (place[2] is not None and place != before)
        self._many(_INSERT, inserts)
        self._many(_UPDATE, updates)
        self._many(_MOVE, moves)
        self._many("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?)", self._records)
        self._many("INSERT INTO ended_runs VALUES (?, ?, ?)", self._ended)
        self._many("DELETE FROM messages WHERE execution = ? AND number = ?", self._consumed)
        self._many("INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?, ?, ?)", self._message_values())
        keys = [(execution, key, number) for (execution, key), number in self._keys.items()]
        self._many("INSERT INTO message_keys VALUES (?, ?, ?)", keys)
        if stirred:
            self.db.execute("UPDATE counters SET value = value + 1 WHERE name = 'changes'")
        return stirred

    def _many(self, statement: str, values: Collection[tuple[Any, ...]]) -> None:
        if values:
            self.db.executemany(statement, values)

    def _message_values(self) -> list[tuple[Any, ...]]:
        return [
            (
                execution,
                number,
                message.kind,
                message.name,
                message.at + 0.0,
                message.key,
                message.payload,
                checksums.of_message(start, message),
            )
            for (execution, number), (start, message) in self._messages.items()
        ]


def _all_values(row: Row, when: float | None) -> tuple[Any, ...]:
    fixed = (row.key, row.id, row.workflow, row.digest, row.created_at)
    return (*fixed, row.status.value, row.owner, *_state(row), when, checksums.of_row(row))


def _changing_values(row: Row) -> tuple[Any, ...]:
    return (*_state(row), checksums.of_row(row), row.key)


def _state(row: Row) -> tuple[Any, ...]:
    return (
        row.wake,
        row.run,
        row.position,
        row.fence,
        row.updated_at,
        row.given,
        row.seen,
        row.posted,
        row.top,
        row.unread,
        row.reason,
        row.build,
    )
