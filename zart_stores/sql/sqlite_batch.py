"""What a batch reads from an SQLite database, and how its changes are written there.

Rule 1: used inside one transaction that began with BEGIN IMMEDIATE.
Rule 2: tables are named with their database: on a connection that a user works with, a temporary table of the same name
        would come first, and take what is acknowledged away with it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Protocol

from zart_stores.sql.batch import Changes
from zart_stores.sql.reading import COLUMNS, whole_number

AT_ONCE = 64
"""How many rows one statement reads."""

BLOB = bytearray
"""A record's data on its way to sqlite3: for bytes it looks for an adapter each time, 0.6 us; for these it does not."""

_FIND = f"SELECT {COLUMNS} FROM main.executions WHERE id = ?"  # noqa: S608  # no data in it
_FIND_MANY = f"SELECT {COLUMNS} FROM main.executions WHERE id IN ({', '.join('?' * AT_ONCE)})"  # noqa: S608
_INSERT = f"INSERT INTO main.executions ({COLUMNS}) VALUES ({', '.join('?' * 22)})"  # noqa: S608
_STATE = """
    wake = ?, run = ?, position = ?, fence = ?, updated_at = ?, given = ?, seen = ?,
    posted = ?, top = ?, unread = ?, reason = ?, build = ?, crc = ? WHERE key = ?
"""
_UPDATE = f"UPDATE main.executions SET {_STATE}"  # noqa: S608
_MOVE = f"UPDATE main.executions SET status = ?, owner = ?, due = ?, claimed_as = ?, {_STATE}"  # noqa: S608


class Database(Protocol):
    """What executes statements: a connection, or what stands in front of one."""

    def execute(self, sql: str, values: Sequence[Any] = ..., /) -> sqlite3.Cursor:
        """As sqlite3.Connection.execute."""
        ...

    def executemany(self, sql: str, values: Iterable[Sequence[Any]], /) -> sqlite3.Cursor:
        """As sqlite3.Connection.executemany."""
        ...


class SqliteSource:
    """The `Source` of a batch over a connection."""

    def __init__(self, db: Database, where: str) -> None:
        self.db = db
        self._where = where
        self._next_key = 0

    def rows(self, ids: Sequence[str]) -> Iterator[Sequence[Any]]:
        """See Source. A number at a time, which takes a third of the time."""
        if len(ids) == 1:
            yield from self.db.execute(_FIND, ids)
            return
        for first in range(0, len(ids), AT_ONCE):
            some = ids[first : first + AT_ONCE]
            yield from self.db.execute(_FIND_MANY, [*some, *[""] * (AT_ONCE - len(some))]).fetchall()

    def next_key(self) -> int:
        """See Source."""
        if not self._next_key:
            (greatest,) = self.db.execute("SELECT max(key) FROM main.executions").fetchone()
            self._next_key = greatest or 0
        self._next_key += 1
        return self._next_key

    def number_of(self, key: int, message_key: str) -> int | None:
        """See Source. O(log n)."""
        query = "SELECT number FROM main.message_keys WHERE execution = ? AND key = ?"
        found = self.db.execute(query, (key, message_key)).fetchone()
        return None if found is None else whole_number(found[0], f"{self._where}, key {message_key!a}")

    def kept(self, key: int, numbers: Collection[int]) -> Collection[int]:
        """See Source. O(log n) for each."""
        query = "SELECT 1 FROM main.messages WHERE execution = ? AND number = ?"
        return {n for n in numbers if self.db.execute(query, (key, n)).fetchone() is not None}

    def greatest(self, key: int, but: Collection[int]) -> int:
        """See Source. O(log n) for each that is left out."""
        query = "SELECT number FROM main.messages WHERE execution = ? ORDER BY number DESC"
        gone = set(but)
        numbers = (number for (number,) in self.db.execute(query, (key,)) if number not in gone)
        return next((number for number in numbers if type(number) is int), 0)  # who reads another sees damage


def write_changes(db: Database, changes: Changes) -> None:
    """Write everything, table by table."""
    for statement, values in (
        (_INSERT, changes.inserts),
        (_UPDATE, changes.updates),
        (_MOVE, changes.moves),
        ("INSERT INTO main.records VALUES (?, ?, ?, ?, ?, ?, ?)", changes.records),
        ("INSERT INTO main.ended_runs VALUES (?, ?, ?)", changes.ended_runs),
        ("DELETE FROM main.messages WHERE execution = ? AND number = ?", changes.consumed),
        ("INSERT INTO main.messages VALUES (?, ?, ?, ?, ?, ?, ?, ?)", changes.messages),
        ("INSERT INTO main.message_keys VALUES (?, ?, ?)", changes.message_keys),
    ):
        if values:
            db.executemany(statement, values)
    if changes.stirred:
        db.execute("UPDATE main.counters SET value = value + 1 WHERE name = 'changes'")
