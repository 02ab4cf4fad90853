"""What a batch reads from a PostgreSQL database, and how its changes are written there.

Rule 1: rows are locked in the order of their ids, all of them at once, so that two batches never wait for each other
        in a circle.
Rule 2: what a batch wants to know is asked once for all of it, and after its rows are locked; not in a pipeline, after
        which the server does not notice any more that a transaction stands still.
        Values come binary: as texts they are what the settings of the connection make of them (extra_float_digits).
Rule 3: a batch is written by one statement, however many rows and tables: columns travel as arrays. So nothing is
        locked while the server waits for more of it, should the process stand still in the middle (F24).
Rule 4: what rests on rows that were not read fails as a whole, by a division by zero, unless all that it is to change
        or to delete is there, and each row as it is taken for, and locked by nobody.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

import attrs
import psycopg

from zart_core.log import New, Turn, Write
from zart_stores.sql.batch import Changes
from zart_stores.sql.postgres_arrays import column
from zart_stores.sql.postgres_memo import Version
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
    "claimed_as": "text",
    "due": "float8",
    "kind": "text",
    "name": "text",
    "at": "float8",
}
"""The types of columns that are no int8; a message's key is a text."""


@attrs.frozen
class Part:
    """What writes the rows of a table, which come as one array for each column."""

    text: str
    kinds: Sequence[str]
    """The types of the columns."""


def _kinds(columns: Sequence[str], types: Mapping[str, str]) -> Sequence[str]:
    return [types.get(column) or _TYPES.get(column, "int8") for column in columns]


def _arrays(columns: Sequence[str], kinds: Sequence[str]) -> str:
    marks = ", ".join(f"?::{kind}[]" for kind in kinds)
    return f"unnest({marks}) AS new ({', '.join(columns)})"


def _insert(table: str, *columns: str, **types: str) -> Part:
    kinds = _kinds(columns, types)
    return Part(
        f"INSERT INTO {{t}}{table} ({', '.join(columns)}) "  # noqa: S608  # no data in it
        f"SELECT {', '.join(columns)} FROM {_arrays(columns, kinds)}",
        kinds,
    )


def _update(*columns: str) -> Part:
    changes = ", ".join(f"{column} = new.{column}" for column in columns)
    columns = (*columns, "key")
    kinds = _kinds(columns, {})
    return Part(
        f"UPDATE {{t}}executions AS old SET {changes} "  # noqa: S608
        f"FROM {_arrays(columns, kinds)} WHERE old.key = new.key",
        kinds,
    )


def _delete_messages() -> Part:
    columns = ("execution", "number")
    kinds = _kinds(columns, {})
    return Part(
        f"DELETE FROM {{t}}messages AS old USING {_arrays(columns, kinds)} "  # noqa: S608
        "WHERE old.execution = new.execution AND old.number = new.number",
        kinds,
    )


def _guard(*columns: str) -> Part:
    """Lock rows that are still so, in the order of their ids, and wait for nobody."""
    kinds = _kinds(columns, {})
    same = " AND ".join(f"old.{column} = new.{column}" for column in columns)
    return Part(
        f"SELECT old.key FROM {{t}}executions AS old JOIN {_arrays(columns, kinds)} ON {same} "  # noqa: S608
        "ORDER BY old.id FOR UPDATE OF old SKIP LOCKED",
        kinds,
    )


_STATE = (
    "wake", "run", "position", "fence", "updated_at", "given", "seen", "posted", "top", "unread", "reason", "build",
    "crc",
)  # fmt: skip
PARTS = {
    "guard": _guard("key", "fence", "position", "posted", "crc"),
    "inserts": _insert("executions", *COLUMNS.split(", ")),
    "updates": _update(*_STATE),
    "moves": _update("status", "owner", "due", "claimed_as", *_STATE),
    "records": _insert("records", "execution", "run", "position", "kind", "at", "data", "crc", data="bytea"),
    "ended_runs": _insert("ended_runs", "execution", "run", "records"),
    "consumed": _delete_messages(),
    "messages": _insert(
        "messages", "execution", "number", "kind", "name", "at", "key", "payload", "crc", key="text", payload="bytea"
    ),
    "message_keys": _insert("message_keys", "execution", "key", "number", key="text"),
}  # fmt: skip
"""What is written, by name."""


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
        *,
        locks: bool = True,
        creation_ms: int | None = None,
    ) -> None:
        self._db = db
        self._address = address
        self._locks = locks
        """Whether what is read may be changed: else it is not kept from those who do."""
        self._batch = batch
        self._creation_ms = creation_ms
        """How long this transaction waits for locks from where something is to be created, unless as long as before."""
        self._keys: list[int] = []
        self._keys_n = creations_of(batch) or 1
        self._kept: dict[tuple[int, int], bool] | None = None
        """Of the messages that the batch consumes, by execution and number: which are kept."""

    def rows(self, ids: Sequence[str]) -> Sequence[Sequence[Any]]:
        """See Source. They stay locked."""
        lock = "FOR UPDATE" if self._locks else ""
        query = f"SELECT {COLUMNS} FROM {{t}}executions WHERE id = ANY(?) ORDER BY id {lock}"  # noqa: S608
        return self._select(query, list(ids))

    def next_key(self) -> int:
        """See Source. Gaps mean nothing."""
        if not self._keys:
            creation_ms = None if self._creation_ms is None else str(self._creation_ms)
            self._keys = [number for number, _ in reversed(self._select(_KEYS, creation_ms, self._keys_n))]
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
        return self._db.execute(self._address.sql(query), values, binary=True).fetchall()


def creations_of(batch: Iterable[Write]) -> int:
    """Tell how many executions a batch creates at the most."""
    created = 0
    for item in batch:
        if type(item) is New:
            created += 1 + creations_of(item.creates)
        elif type(item) is Turn and item.creates:
            created += creations_of(item.creates)
    return created


def write_changes(
    db: Database, address: Address, changes: Changes, versions: Mapping[int, Version] | None = None
) -> None:
    """Write everything by one statement, and tell who waits for it. `db` has to know columns: see `register`.

    With `versions`, by key, of the rows that are updated, all of it fails when one has another (Rule 4).
    """
    rows: dict[str, Sequence[Sequence[Any]]] = {
        "guard": [(key, *version) for key, version in (versions or {}).items()],
        "inserts": changes.inserts,
        "updates": changes.updates,
        "moves": changes.moves,
        "records": changes.records,
        "ended_runs": changes.ended_runs,
        "consumed": changes.consumed,
        "messages": changes.messages,
        "message_keys": changes.message_keys,
    }
    names = tuple(name for name in PARTS if rows[name])
    if not names:
        return
    values: list[Any] = []
    for name in names:
        values += map(column, PARTS[name].kinds, zip(*rows[name], strict=True))
    guarded = versions is not None
    if guarded:
        values += (len(rows[name]) for name in GUARDED if rows[name])
    if changes.stirred:
        values.append(address.channel)
    db.execute(address.sql(statement(names, guarded=guarded, stirred=changes.stirred)), values)


_KEYS = (
    "SELECT nextval('{t}execution_keys'), "
    "(SELECT set_config('lock_timeout', coalesce(?::text, current_setting('lock_timeout')), true)) "
    "FROM generate_series(1, ?)"
)
GUARDED = ("guard", "consumed")
"""What has to be there, all of it, when rows were not read."""


@functools.cache
def statement(names: Sequence[str], *, guarded: bool, stirred: bool) -> str:
    """One statement of these parts."""
    parts = [
        f"{name} AS MATERIALIZED ({PARTS[name].text})"
        if name == "guard"
        else f"{name} AS ({PARTS[name].text} RETURNING 1)"
        for name in names
    ]
    if guarded and "guard" in names:
        parts = [
            part.replace("WHERE old.key = new.key", f"{OF_GUARD} WHERE old.key = new.key") for part in parts
        ]
    all_there = [f"(SELECT count(*) FROM {name}) = ?" for name in GUARDED if guarded and name in names]  # noqa: S608
    columns = [f"1 / ({' AND '.join(all_there) or 'true'})::int"]
    if stirred:
        columns.append("pg_notify(?, '')")
    return f"WITH {', '.join(parts)} SELECT {', '.join(columns)}"


OF_GUARD = "JOIN guard USING (key)"
"""Rows are updated when they are locked, and not before."""
