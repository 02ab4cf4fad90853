"""A batch of writes on its way into an SQL database: rows are read, changed in Python, written at once.

Rule 1: used inside one transaction that keeps what was read from changing (a write lock, or locked rows).
Rule 2: nothing goes to the database before the `changes` are asked for: a write that is refused has left nothing
        to undo.
Rule 3: rows that an earlier batch has left may stand for what is read, while nobody else has written; they are changed
        here, so they are of no more use unless this batch is committed, and then by what it gives as `left`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from types import MappingProxyType
from typing import Any, Protocol, TypeAlias
from zlib import crc32

import msgspec

from zart_core.errors import LogCorrupt
from zart_core.events import Status
from zart_core.log import Appended, Message, New, Post, Record, Rejected, Turn, Write
from zart_stores.rows import Row, due, new_row, write
from zart_stores.sql import checksums
from zart_stores.sql.reading import DUE, row_of

Place: TypeAlias = tuple[Status, str | None, float | None, str | None]
"""Status, owner, due and the name to claim by of an execution: what the indexes find it by."""
Rows: TypeAlias = dict[str, tuple[Row, Place]]
"""Executions as they stand in the database, by id."""
ROWS_MAX = 4096
"""How many of them a log remembers at the most, about 2 MB."""
NOTHING_KNOWN: Mapping[str, tuple[Row, Place]] = MappingProxyType({})


class Source(Protocol):
    """What a batch reads from its database, inside its transaction."""

    def rows(self, ids: Sequence[str]) -> Iterable[Sequence[Any]]:
        """COLUMNS of those of these executions that exist; nobody else changes them until the transaction ends."""
        ...

    def next_key(self) -> int:
        """A number for a new execution that no other has."""
        ...

    def number_of(self, key: int, message_key: str) -> int | None:
        """The number of the message that came to the execution with this key."""
        ...

    def kept(self, key: int, numbers: Collection[int]) -> Collection[int]:
        """Those of these messages that are in the execution's inbox."""
        ...

    def greatest(self, key: int, but: Collection[int]) -> int:
        """The greatest number of a message in the execution's inbox, apart from these; 0 when there is none."""
        ...


class Changes(msgspec.Struct):
    """Rows of each table to be written, in the order of their columns."""

    inserts: list[tuple[Any, ...]]
    """New executions, COLUMNS."""
    updates: list[tuple[Any, ...]]
    """STATE of executions that stay in their place, checksum and key."""
    moves: list[tuple[Any, ...]]
    """PLACE of the others, then the same: apart, because it touches indexes, and most turns move nothing."""
    records: list[tuple[Any, ...]]
    ended_runs: list[tuple[Any, ...]]
    consumed: list[tuple[int, int]]
    """Messages that go: execution and number. They go before the new ones come."""
    messages: list[tuple[Any, ...]]
    message_keys: list[tuple[Any, ...]]
    stirred: bool
    """Whether something may have become due (L10)."""

    payload_bytes: int
    """The payloads of records and messages together."""

    @property
    def empty(self) -> bool:
        """True when nothing is to be written."""
        return not self.inserts and not self.updates and not self.moves

    @property
    def sums(self) -> dict[int, int]:
        """The checksums of executions that were there before, by key."""
        return {values[-1]: values[-2] for values in (*self.updates, *self.moves)}


class Batch:
    """The `Tables` of rows.write over a database."""

    def __init__(
        self,
        source: Source,
        where: str,
        known: Mapping[str, tuple[Row, Place]] = NOTHING_KNOWN,
        blob: Callable[[bytes], Any] = bytes,
    ) -> None:
        self._source = source
        self._where = where
        self._blob = blob
        """Makes of a record's data what the database's driver takes best."""
        self._known = known
        """What need not be read (Rule 3)."""
        self._rows: dict[str, Row | None] = {}
        self._places: dict[int, Place] = {}
        self._damaged = False
        self._touched: dict[int, Row] = {}
        self._records: list[tuple[Any, ...]] = []
        self._ended: list[tuple[Any, ...]] = []
        self._messages: dict[tuple[int, int], tuple[int, Message]] = {}
        self._keys: dict[tuple[int, str], int] = {}
        self._asked: dict[tuple[int, str], int | None] = {}
        """What the database said of keys."""
        self._consumed: set[tuple[int, int]] = set()
        self._payload_bytes = 0

    def prepare(self, ids: Set[str]) -> None:
        """Read these rows together, before the writes ask for them."""
        unknown = sorted(ids - self._known.keys())
        self._rows |= dict.fromkeys(unknown)
        damaged = False
        for values in self._source.rows(unknown):
            try:
                self.load(values)
            except LogCorrupt:
                damaged = True
        if damaged:  # each is looked for alone, so that the write that needs it meets the damage again
            self._rows = {id: row for id, row in self._rows.items() if row is not None}

    def write(self, item: Write) -> Appended:
        """Carry out or refuse one write. A damaged row refuses it; who reads the row will see the damage."""
        try:
            if (type(item) is New or type(item) is Turn) and (item.creates or item.posts):
                self._find_all(item.creates, item.posts)
            return write(self, item)
        except LogCorrupt as error:
            self._damaged = True
            return Rejected(f"damaged: {error}")

    def _find_all(self, creates: Sequence[New], posts: Sequence[Post]) -> None:
        """Read what a write touches beside its own execution, before anything of it is changed."""
        for post in posts:
            row = self.find(post.id)
            if row is not None and post.key is not None:
                self._asked[row.key, post.key] = self.number_of(row, post.key)
        for new in creates:
            self.find(new.id)
            self._find_all(new.creates, new.posts)

    # ------------------------------------------------ Tables

    def find(self, id: str) -> Row | None:
        """See Tables. O(log n)."""
        if id in self._rows:
            return self._rows[id]
        if id in self._known:
            row, self._places[row.key] = self._known[id]
            self._rows[id] = row
            return row
        found = None
        for values in self._source.rows((id,)):
            found = self.load(values)
        self._rows[id] = found
        return found

    def load(self, values: Sequence[Any]) -> Row:
        """Make a row of a SELECT of COLUMNS, to be changed in this batch."""
        row = row_of(values, self._where)
        self._places[row.key] = (row.status, row.owner, values[DUE], row.claimed_as)
        self._rows[row.id] = row
        return row

    def insert(self, new: New) -> Row:
        """See Tables."""
        row = self._rows[new.id] = new_row(self._source.next_key(), new)
        return row

    def add_records(self, row: Row, records: Sequence[Record]) -> None:
        """See Tables."""
        start, head = checksums.of_id(row.id), checksums.RECORD_HEAD.pack
        values, blob = self._records, self._blob
        key, run, position, size = row.key, row.run, row.position, 0
        for record in records:
            kind, at, data = record.kind, record.at + 0.0, record.data
            crc = crc32(data, crc32(head(run, position, at) + kind.encode() + b"\0", start))
            values.append((key, run, position, kind, at, blob(data), crc))
            size += len(data)
            position += 1
        self._payload_bytes += size

    def end_run(self, row: Row) -> None:
        """See Tables."""
        self._ended.append((row.key, row.run, row.position))

    def number_of(self, row: Row, key: str) -> int | None:
        """See Tables. O(log n)."""
        if (row.key, key) in self._keys:
            return self._keys[row.key, key]
        if (row.key, key) in self._asked:
            return self._asked[row.key, key]
        return self._source.number_of(row.key, key)

    def add_message(self, row: Row, message: Message) -> None:
        """See Tables."""
        self._messages[row.key, message.number] = (checksums.of_id(row.id), message)
        self._payload_bytes += len(message.payload)
        if message.key is not None:
            self._keys[row.key, message.key] = message.number

    def missing(self, row: Row, numbers: Collection[int]) -> int | None:
        """See Tables. O(log n) for each number."""
        stored = [
            number
            for number in numbers
            if 0 < number <= row.posted and (row.key, number) not in self._consumed
        ]
        kept = self._source.kept(row.key, stored) if stored else ()
        pending = self._messages
        return next((n for n in numbers if n not in kept and (row.key, n) not in pending), None)

    def consume(self, row: Row, numbers: Collection[int]) -> int:
        """See Tables."""
        for number in numbers:
            if self._messages.pop((row.key, number), None) is None:
                self._consumed.add((row.key, number))
        if row.top not in numbers:
            return row.top
        if len(numbers) == row.unread:
            return 0
        pending = max((number for key, number in self._messages if key == row.key), default=0)
        gone = [number for key, number in self._consumed if key == row.key]
        return max(pending, self._source.greatest(row.key, gone))

    def changed(self, row: Row) -> None:
        """See Tables."""
        self._touched[row.key] = row

    # ------------------------------------------------ into the database

    def changes(self) -> Changes:
        """Give everything that is to be written."""
        stirred = False
        inserts: list[tuple[Any, ...]] = []
        updates: list[tuple[Any, ...]] = []
        moves: list[tuple[Any, ...]] = []
        for row in self._touched.values():
            place = (row.status, row.owner, due(row), row.claimed_as)
            before = self._places.get(row.key)
            if before is None:
                inserts.append(_all_values(row, place[2]))
            elif place == before:
                updates.append((*_state(row), checksums.of_row(row), row.key))
            else:
                where = (row.status.value, row.owner, place[2], row.claimed_as)
                moves.append((*where, *_state(row), checksums.of_row(row), row.key))
            if place != before:
                self._places[row.key] = place
                stirred = stirred or place[2] is not None
        keys = [(key, text, number) for (key, text), number in self._keys.items()] if self._keys else []
        return Changes(
            inserts,
            updates,
            moves,
            self._records,
            self._ended,
            list(self._consumed),
            self._message_values() if self._messages else [],
            keys,
            stirred,
            self._payload_bytes,
        )

    def left(self) -> Rows | None:
        """Give the rows as they stand in the database once the `changes` are committed; None beside damage."""
        if self._damaged:
            return None
        return {id: (row, self._places[row.key]) for id, row in self._rows.items() if row is not None}

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
    return (*fixed, row.status.value, row.owner, *_state(row), row.claimed_as, when, checksums.of_row(row))


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


def ids_of(batch: Iterable[Write]) -> set[str]:
    """Name every execution that a batch reads or writes."""
    ids: set[str] = set()
    for item in batch:
        ids.add(item.id)
        if (type(item) is New or type(item) is Turn) and (item.creates or item.posts):
            ids |= ids_of(item.creates)
            ids.update(post.id for post in item.posts)
    return ids


def owners_of(batch: Iterable[Write]) -> set[str]:
    """Name the workers that the batch's new executions belong to."""
    owners: set[str] = set()
    for item in batch:
        if type(item) is New and item.owner is not None:
            owners.add(item.owner)
        if (type(item) is New or type(item) is Turn) and item.creates:
            owners |= owners_of(item.creates)
    return owners
