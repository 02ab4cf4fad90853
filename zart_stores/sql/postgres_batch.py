"""What a batch reads from a PostgreSQL database, and how its changes are written there.

Rule 1: rows are locked in the order of their ids, all of them at once, so that two batches never wait for each other
        in a circle.
Rule 2: what a batch wants to know is asked once for all of it, and after its rows are locked; not in a pipeline, after
        which the server does not notice any more that a transaction stands still.
Rule 3: one statement for each table, however many rows: columns travel as arrays.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

import attrs
import psycopg

from zart_core.log import New, Turn, Write
from zart_stores.sql.batch import Changes
from zart_stores.sql.postgres_arrays import column
from zart_stores.sql.postgres_server import Address
from zart_stores.sql.reading import COLUMNS

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


def _update(*columns: str) -> Statement:
    changes = ", ".join(f"{column} = new.{column}" for column in columns)
    columns = (*columns, "key")
    kinds = _kinds(columns, {})
    return Statement(
        f"UPDATE {{t}}executions AS old SET {changes} "  # noqa: S608
        f"FROM {_arrays(columns, kinds)} WHERE old.key = new.key",
        kinds,
    )


def _delete_messages() -> Statement:
    columns = ("execution", "number")
    kinds = _kinds(columns, {})
    return Statement(
        f"DELETE FROM {{t}}messages AS old USING {_arrays(columns, kinds)} "  # noqa: S608
        "WHERE old.execution = new.execution AND old.number = new.number",
        kinds,
    )


STATEMENTS = {
    "inserts": _insert("executions", *COLUMNS.split(", ")),
    "updates": _update(
        "wake", "run", "position", "fence", "updated_at", "given", "seen", "posted", "top", "unread", "reason",
        "build", "crc",
    ),
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


class Database(Protocol):
    """What executes statements: a connection, or what stands in front of one."""

    def execute(self, query: Any, values: Any = ..., /) -> psycopg.Cursor[tuple[Any, ...]]:
        """As psycopg.Connection.execute."""
        ...


class PostgresSource:
    """The `Source` of a batch over a connection; knows the batch beforehand, and asks once for all of it."""

    def __init__(self, db: Database, address: Address, batch: Sequence[Write] = ()) -> None:
        self._db = db
        self._address = address
        self._batch = batch
        self._keys: list[int] = []
        self._keys_n = creations_of(batch) or 1
        self._kept: dict[tuple[int, int], bool] | None = None
        """Of the messages that the batch consumes, by execution and number: which are kept."""

    def rows(self, ids: Sequence[str]) -> Sequence[Sequence[Any]]:
        """See Source. They stay locked."""
        query = f"SELECT {COLUMNS} FROM {{t}}executions WHERE id = ANY(?) ORDER BY id FOR UPDATE"  # noqa: S608
        return self._select(query, list(ids))

    def next_key(self) -> int:
        """See Source. Gaps mean nothing."""
        if not self._keys:
            query = "SELECT nextval('{t}execution_keys') FROM generate_series(1, ?)"
            self._keys = [number for (number,) in reversed(self._select(query, self._keys_n))]
        return self._keys.pop()

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
        return self._db.execute(self._address.sql(query), values).fetchall()


def creations_of(batch: Iterable[Write]) -> int:
    """Tell how many executions a batch creates at the most."""
    created = 0
    for item in batch:
        if type(item) is New:
            created += 1 + creations_of(item.creates)
        elif type(item) is Turn and item.creates:
            created += creations_of(item.creates)
    return created


def write_changes(db: Database, address: Address, changes: Changes) -> None:
    """Write everything, table by table, and tell who waits for it. `db` has to know columns: see `register`."""
    for field, statement in STATEMENTS.items():
        rows: Sequence[Sequence[Any]] = getattr(changes, field)
        if rows:
            columns = map(column, statement.kinds, zip(*rows, strict=True))
            db.execute(address.sql(statement.text), list(columns))
    if changes.stirred:
        db.execute("SELECT pg_notify(%s, '')", (address.channel,))
