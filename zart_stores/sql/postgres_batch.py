"""What a batch reads from a PostgreSQL database, and how its changes are written there.

Rule 1: rows are locked in the order of their ids, all of them at once, so that two batches never wait for each other
        in a circle.
Rule 2: what a batch wants to know is asked once for all of it, and after its rows are locked; not in a pipeline, after
        which the server does not notice any more that a transaction stands still.
        Values come binary: as texts they are what the settings of the connection make of them (extra_float_digits).
Rule 3: one statement for each table, however many rows: columns travel as arrays.
Rule 4: what rests on rows that were not read fails as a whole, by a division by zero, unless all that a statement is
        to change or to delete is there, and each row as it is taken for.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

import attrs
import psycopg

from zart_core.log import Turn, Write
from zart_stores.sql.batch import Changes
from zart_stores.sql.postgres_arrays import column
from zart_stores.sql.postgres_memo import Guess, Version, created_by
from zart_stores.sql.postgres_server import Address
from zart_stores.sql.reading import COLUMNS

KEYS_AHEAD = 64
"""How many keys for new executions are taken beside those that are wanted."""
NUMBER_MAX = 1 << 63
"""No message has this number or a greater one."""

_TYPES = {
    "key": "int8",
    "id": "text",
    "workflow": "text",
    "digest": "text",
    "created_at": "float8",
    "status": "text",
    "owner": "text",
    "wake": "float8",
    "given": "bool",
    "updated_at": "float8",
    "reason": "text",
    "build": "text",
    "due": "float8",
    "kind": "text",
    "name": "text",
    "at": "float8",
}
"""The types of columns that are no int8; a message's key is a text."""


@attrs.frozen
class Statement:
    """What writes the rows of a table, which come as one array for each column."""

    text: str
    kinds: Sequence[str]
    """The types of the columns."""
    counted: bool = False
    """Whether the number of rows follows: the statement fails unless it changed so many."""


def _kinds(columns: Sequence[str], types: Mapping[str, str]) -> Sequence[str]:
    return [types.get(column) or _TYPES.get(column, "int8") for column in columns]


def _arrays(columns: Sequence[str], kinds: Sequence[str]) -> str:
    marks = ", ".join(f"?::{kind}[]" for kind in kinds)
    return f"unnest({marks}) AS new ({', '.join(columns)})"


def _insert(table: str, *columns: str, **types: str) -> Statement:
    kinds = _kinds(columns, types)
    return Statement(
        f"INSERT INTO {{t}}{table} ({', '.join(columns)}) "  # noqa: S608  # no data in it
        f"SELECT {', '.join(columns)} FROM {_arrays(columns, kinds)}",
        kinds,
    )


def _update(*columns: str, seen: Sequence[str] = ()) -> Statement:
    """Set columns by key; of rows only in which those that are `seen` have the values that follow the key."""
    changes = ", ".join(f"{column} = new.{column}" for column in columns)
    same = "".join(f" AND old.{column} = new.seen_{column}" for column in seen)
    columns = (*columns, "key", *(f"seen_{column}" for column in seen))
    kinds = _kinds(columns, {})
    return Statement(
        f"UPDATE {{t}}executions AS old SET {changes} "  # noqa: S608
        f"FROM {_arrays(columns, kinds)} WHERE old.key = new.key{same}",
        kinds,
    )


def _counted(statement: Statement) -> Statement:
    """The same, which fails unless it changes as many rows as are given."""
    return Statement(
        f"WITH changed AS ({statement.text} RETURNING 1) "  # noqa: S608
        "SELECT 1 / (count(*) = ?)::int FROM changed",
        statement.kinds,
        counted=True,
    )


def _delete_messages() -> Statement:
    columns = ("execution", "number")
    kinds = _kinds(columns, {})
    return Statement(
        f"DELETE FROM {{t}}messages AS old USING {_arrays(columns, kinds)} "  # noqa: S608
        "WHERE old.execution = new.execution AND old.number = new.number",
        kinds,
    )


_STATE = (
    "wake", "run", "position", "fence", "updated_at", "given", "seen", "posted", "top", "unread", "reason", "build",
    "crc",
)  # fmt: skip
STATEMENTS = {
    "inserts": _insert("executions", *COLUMNS.split(", ")),
    "updates": _update(*_STATE),
    "moves": _update("status", "owner", "due"),
    "records": _insert("records", "execution", "run", "position", "kind", "at", "data", "crc", data="bytea"),
    "ended_runs": _insert("ended_runs", "execution", "run", "records"),
    "consumed": _delete_messages(),
    "messages": _insert(
        "messages", "execution", "number", "kind", "name", "at", "key", "payload", "crc", key="text", payload="bytea"
    ),
    "message_keys": _insert("message_keys", "execution", "key", "number", key="text"),
}  # fmt: skip
"""By the field of Changes, in the order in which they are carried out."""
GUARDED = {
    **STATEMENTS,
    "updates": _counted(_update(*_STATE, seen=("fence", "position", "posted", "crc"))),
    "consumed": _counted(STATEMENTS["consumed"]),
}
"""The same for changes that rest on rows of which only the version is known."""
LOCK = "SELECT count(*) FROM (SELECT FROM {t}executions WHERE id = ANY(?) ORDER BY id FOR UPDATE) AS locked"


class Database(Protocol):
    """What executes statements: a connection, or what stands in front of one."""

    def execute(
        self, query: Any, values: Any = ..., /, *, binary: bool = ...
    ) -> psycopg.Cursor[tuple[Any, ...]]:
        """As psycopg.Connection.execute."""
        ...


class PostgresSource:
    """The `Source` of a batch over a connection; knows the batch beforehand, and asks once for all of it."""

    def __init__(
        self,
        db: Database,
        address: Address,
        batch: Sequence[Write] = (),
        ahead: deque[int] | None = None,
        *,
        locks: bool = True,
    ) -> None:
        self._db = db
        self._address = address
        self._locks = locks
        """Whether what is read may be changed: else it is not kept from those who do."""
        self._batch = batch
        self._keys: deque[int] = deque() if ahead is None else ahead
        self._keys_n = (len(created_by(batch)) or 1) + (0 if ahead is None else KEYS_AHEAD)
        self._kept: dict[tuple[int, int], bool] | None = None
        """Of the messages that the batch consumes, by execution and number: which are kept."""

    def rows(self, ids: Sequence[str]) -> Sequence[Sequence[Any]]:
        """See Source. They stay locked."""
        lock = "FOR UPDATE" if self._locks else ""
        query = f"SELECT {COLUMNS} FROM {{t}}executions WHERE id = ANY(?) ORDER BY id {lock}"  # noqa: S608
        return self._select(query, list(ids))

    def next_key(self) -> int:
        """See Source. Gaps mean nothing; what is taken `ahead` is for batches that do not ask."""
        while True:
            with contextlib.suppress(IndexError):
                return self._keys.popleft()
            query = "SELECT nextval('{t}execution_keys') FROM generate_series(1, ?)"
            self._keys.extend(number for (number,) in self._select(query, self._keys_n))

    def number_of(self, key: int, message_key: str) -> int | None:
        """See Source. O(log n)."""
        query = "SELECT number FROM {t}message_keys WHERE execution = ? AND key = ?"
        return next((int(number) for (number,) in self._select(query, key, message_key)), None)

    def kept(self, key: int, numbers: Collection[int]) -> Collection[int]:
        """See Source. O(log n) for each."""
        if self._kept is None:
            self._kept = self._consumable()
        known = self._kept
        if all((key, number) in known for number in numbers):
            return {number for number in numbers if known[key, number]}
        query = "SELECT number FROM {t}messages WHERE execution = ? AND number = ANY(?)"
        return {number for (number,) in self._select(query, key, list(numbers))}

    def _consumable(self) -> dict[tuple[int, int], bool]:
        """Ask for all messages that the batch consumes; their executions are locked by now."""
        wanted = [
            (item.id, number)
            for item in self._batch
            if type(item) is Turn
            for number in item.consumes
            if 0 < number < NUMBER_MAX
        ]
        if not wanted:
            return {}
        query = (
            "SELECT old.key, new.number, EXISTS (SELECT FROM {t}messages AS kept WHERE kept.execution = old.key "
            "AND kept.number = new.number) FROM unnest(?::text[], ?::int8[]) AS new (id, number) "
            "JOIN {t}executions AS old ON old.id = new.id"
        )
        found = self._select(query, *map(list, zip(*wanted, strict=True)))
        return {(key, number): kept for key, number, kept in found}

    def greatest(self, key: int, but: Collection[int]) -> int:
        """See Source."""
        query = (
            "SELECT number FROM {t}messages WHERE execution = ? AND number <> ALL(?::int8[]) "
            "ORDER BY number DESC LIMIT 1"
        )
        return next((int(number) for (number,) in self._select(query, key, list(but))), 0)

    def _select(self, query: str, *values: Any) -> Sequence[Sequence[Any]]:
        return self._db.execute(self._address.sql(query), values, binary=True).fetchall()


def write_changes(
    db: Database, address: Address, changes: Changes, versions: Mapping[int, Version] | None = None
) -> None:
    """Write everything, table by table, and tell who waits for it. `db` has to know columns: see `register`.

    With `versions`, by key, of the rows that are updated, all of it fails when one has another (Rule 4).
    """
    for field, statement in (STATEMENTS if versions is None else GUARDED).items():
        rows: Sequence[Sequence[Any]] = getattr(changes, field)
        if not rows:
            continue
        if versions is not None and field == "updates":
            rows = [(*row, *versions[row[-1]]) for row in rows]
        values: list[Any] = [*map(column, statement.kinds, zip(*rows, strict=True))]
        db.execute(address.sql(statement.text), [*values, len(rows)] if statement.counted else values)
    if changes.stirred:
        db.execute("SELECT pg_notify(%s, '')", (address.channel,))


def write_guess(db: Database, address: Address, guess: Guess) -> None:
    """Write a batch that was guessed, inside a transaction; it fails unless all its rows are as they are taken for."""
    if len(guess.ids) > 1:
        db.execute(address.sql(LOCK), (guess.ids,))
    write_changes(db, address, guess.changes, guess.versions)
