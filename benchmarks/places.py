"""The stores that are measured, and for each the bare loop that writes the same to the same place.

Rule 1: a bare loop knows what it will write before it begins, reads nothing, checks nothing, and waits for the disk
        as often as its groups demand; so it is a limit, and no engine could be built of it.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import attrs
import psycopg

import zart_core as zart
from benchmarks.measuring import cpu_timed, timed
from tests.postgres import Server
from zart_stores.sql.reading import COLUMNS

BEGINS = frozenset({"Started", "Resolved", "Delivered"})
"""The facts with which turns begin."""
STATE = COLUMNS.split(", ")[7:19]
"""The columns of an execution that each of its turns writes, apart from the checksum, which is last of all."""


class Place(Protocol):
    """A store: fresh ones of it, what a run wrote there, and a bare loop that writes it again."""

    def fresh(self) -> str:
        """The URL of an empty one."""
        ...

    def written(self, url: str) -> list[Any]:
        """What stands in one, turn by turn, in an order in which an engine may have written it."""
        ...

    def commits(self, url: str, turns: Sequence[Any], group: int = 1) -> float:
        """Seconds for writing these to an empty one, so many turns in each commit: the bare loop."""
        ...


class File:
    """The file log; its bare loop appends the same bytes to a file and syncs it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fresh(self) -> str:
        """See Place."""
        return f"file:{tempfile.mkdtemp(dir=self.folder)}/log"

    def written(self, url: str) -> list[bytes]:
        """See Place."""
        segments = sorted(Path(url.removeprefix("file:")).glob("segment-*"))
        lines = itertools.chain.from_iterable(path.read_bytes().split(b"\n") for path in segments)
        return [line + b"\n" for line in lines if line.startswith(b"=frame")]

    def commits(self, url: str, turns: Sequence[bytes], group: int = 1) -> float:
        """See Place."""
        folder = Path(url.removeprefix("file:"))
        folder.mkdir()
        handle = os.open(folder / "segment-bare", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        try:
            return timed(lambda: self.append(handle, turns, group))
        finally:
            os.close(handle)

    def append(self, handle: int, frames: Sequence[bytes], group: int) -> None:
        """The bare loop."""
        for first in range(0, len(frames), group):
            os.write(handle, b"".join(frames[first : first + group]))
            os.fdatasync(handle)


@attrs.frozen
class Turn:
    """What a turn wrote to an SQL log."""

    records: Sequence[tuple[Any, ...]]
    created: tuple[Any, ...] | None
    """The execution's row, if it is its first turn."""
    state: tuple[Any, ...]
    """STATE and checksum, then the execution's key."""
    ended: tuple[Any, ...] | None
    """Status, owner, due and key, if it is the last."""


def turns_of(executions: Iterable[Sequence[Any]], records: Iterable[tuple[Any, ...]]) -> list[Turn]:
    """The turns behind the rows of both tables: the first of every execution, then the second of every one."""
    rows = {row[0]: row for row in executions}
    turns: list[tuple[int, Turn]] = []
    for key, own in itertools.groupby(records, lambda record: record[0]):
        parts: list[list[tuple[Any, ...]]] = []
        for record in own:
            if record[3] in BEGINS or not parts:
                parts.append([])
            parts[-1].append(record)
        (
            *_,
            status,
            _,
            wake,
            run,
            _,
            fence,
            updated,
            given,
            seen,
            posted,
            top,
            unread,
            reason,
            build,
            claimed_as,
            due,
            crc,
        ) = rows[key]
        for index, part in enumerate(parts):
            rest = (fence, updated, given, seen, posted, top, unread, reason, build)
            state = (wake, run, part[-1][2] + 1, *rest)
            first, last = index == 0, index == len(parts) - 1
            created = (*rows[key][:5], "running", "bare", *state, claimed_as, None, crc) if first else None
            turns.append(
                (index, Turn(part, created, (*state, crc, key), (status, None, due, key) if last else None))
            )
    turns.sort(key=lambda numbered: numbered[0])
    return [turn for _, turn in turns]


Statements = Sequence[tuple[str, Sequence[tuple[Any, ...]]]]


def statements_of(turns: Sequence[Turn]) -> Statements:
    """What one commit of these turns has to write, by table."""
    return [
        ("create", [turn.created for turn in turns if turn.created is not None]),
        ("update", [turn.state for turn in turns if turn.created is None]),
        ("end", [turn.ended for turn in turns if turn.ended is not None]),
        ("records", [record for turn in turns for record in turn.records]),
    ]


def groups_of(turns: Sequence[Turn], group: int) -> list[Statements]:
    """The commits of a bare loop, made ready beforehand."""
    return [statements_of(turns[first : first + group]) for first in range(0, len(turns), group)]


class Sqlite:
    """SQLite; its bare loop inserts the same rows into the same tables."""

    STATEMENTS: ClassVar = {
        "create": f"INSERT INTO executions ({COLUMNS}) VALUES ({', '.join('?' * len(COLUMNS.split(', ')))})",
        "update": f"UPDATE executions SET {', '.join(f'{name} = ?' for name in (*STATE, 'crc'))} WHERE key = ?",
        "end": "UPDATE executions SET status = ?, owner = ?, due = ? WHERE key = ?",
        "records": "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?)",
    }

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fresh(self) -> str:
        """See Place."""
        return f"sqlite:{tempfile.mkdtemp(dir=self.folder)}/log.db"

    def written(self, url: str) -> list[Turn]:
        """See Place."""
        db = sqlite3.connect(url.removeprefix("sqlite:"))
        try:
            return turns_of(
                db.execute(f"SELECT {COLUMNS} FROM executions").fetchall(),
                db.execute("SELECT * FROM records ORDER BY execution, run, position").fetchall(),
            )
        finally:
            db.close()

    def commits(self, url: str, turns: Sequence[Turn], group: int = 1) -> float:
        """See Place."""
        with zart.open(url, []):
            pass  # makes the tables
        db = sqlite3.connect(url.removeprefix("sqlite:"), isolation_level=None)
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            groups = groups_of(turns, group)
            return timed(lambda: self.insert(db, groups))
        finally:
            db.close()

    def insert(self, db: sqlite3.Connection, groups: Sequence[Statements]) -> None:
        """The bare loop."""
        for statements in groups:
            db.execute("BEGIN IMMEDIATE")
            for name, rows in statements:
                if rows:
                    db.executemany(self.STATEMENTS[name], rows)
            db.execute("COMMIT")


_TYPES = {
    **dict.fromkeys(
        ("id", "workflow", "digest", "status", "owner", "reason", "build", "claimed_as", "kind"), "text"
    ),
    **dict.fromkeys(("created_at", "wake", "updated_at", "due", "at"), "float8"),
    "given": "bool",
    "data": "bytea",
}


def _rows(names: Sequence[str]) -> str:
    """Rows that come as one array for each column: the fastest way into the server short of COPY."""
    kinds = [_TYPES.get(name, "int8") for name in names]
    arrays = ", ".join(f"{'%b' if kind == 'bytea' else '%s'}::{kind}[]" for kind in kinds)
    return f"unnest({arrays}) AS new ({', '.join(names)})"


def _sets(names: Sequence[str]) -> str:
    changes = ", ".join(f"{name} = new.{name}" for name in names)
    return (
        f"UPDATE {{t}}.executions AS old SET {changes} FROM {_rows([*names, 'key'])} WHERE old.key = new.key"
    )


class Postgres:
    """PostgreSQL; its bare loop writes the same rows to the same tables, one round trip for each commit."""

    RECORDS = ("execution", "run", "position", "kind", "at", "data", "crc")
    STATEMENTS: ClassVar = {
        "create": f"INSERT INTO {{t}}.executions ({COLUMNS}) SELECT * FROM {_rows(COLUMNS.split(', '))}",
        "update": _sets([*STATE, "crc"]),
        "end": _sets(["status", "owner", "due"]),
        "records": f"INSERT INTO {{t}}.records SELECT * FROM {_rows(RECORDS)}",
    }

    def __init__(self, server: Server) -> None:
        self.server = server
        self.numbers = itertools.count()

    def fresh(self) -> str:
        """See Place."""
        return self.server.url(f"bench{next(self.numbers)}")

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        """A connection as the bare loop wants it."""
        return psycopg.connect(self.server.dsn, autocommit=True, prepare_threshold=0)

    def written(self, url: str) -> list[Turn]:
        """See Place."""
        schema = url.rpartition("=")[2]
        with self.connect() as db:
            query = f"SELECT * FROM {schema}.records ORDER BY execution, run, position"
            return turns_of(
                db.execute(f"SELECT {COLUMNS} FROM {schema}.executions".encode(), binary=True).fetchall(),
                db.execute(query.encode(), binary=True).fetchall(),
            )

    def commits(self, url: str, turns: Sequence[Turn], group: int = 1) -> float:
        """See Place."""
        with zart.open(url, []):
            pass  # makes the tables
        schema = url.rpartition("=")[2]
        texts = {name: text.replace("{t}", schema).encode() for name, text in self.STATEMENTS.items()}
        with self.connect() as db:
            groups = groups_of(turns, group)
            return timed(lambda: self.insert(db, texts, groups))

    def insert(
        self, db: psycopg.Connection[Any], texts: dict[str, bytes], groups: Sequence[Statements]
    ) -> None:
        """The bare loop."""
        for statements in groups:
            with db.pipeline():
                db.execute(b"BEGIN")
                for name, rows in statements:
                    if rows:
                        db.execute(texts[name], [list(column) for column in zip(*rows, strict=True)])
                db.execute(b"COMMIT")


def generator(workflow: zart.Workflow[int, Any], n: int) -> float:
    """CPU seconds for driving a workflow of n steps by next and send: commands built, names formatted, `yield from`."""

    def drive() -> None:
        flow = workflow.fn(n)
        next(flow)
        try:
            while True:
                flow.send(1)
        except StopIteration:
            return

    return cpu_timed(drive)


def best(times: int, call: Callable[[], float]) -> float:
    """The least of several measurements."""
    return min(call() for _ in range(times))
