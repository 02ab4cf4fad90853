"""The SQLite database file of a log: its tables, how it is made, opened and refused.

Rule 1: journal_mode=WAL and synchronous are set and read back; what cannot be had is refused (L4).
Rule 2: nothing is done to a file that is not ours: application_id and user_version are read first (F26).
Rule 3: the file of an open database is not opened and closed by hand: that would give up SQLite's own locks.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

from zart_core.errors import FormatTooNew, InvalidUse, StoreUnavailable
from zart_stores.sql.sqlite_wal import checkpoint, settle
from zart_stores.sql.sqlite_weather import TROUBLE, leniently, patiently, weather

APPLICATION_ID = 0x5A617274  # "Zart"
FORMAT = 2
"""The version of the tables below, kept in PRAGMA user_version."""

FULL, NORMAL = 2, 1
"""PRAGMA synchronous: FULL waits for the disk at each commit, NORMAL at checkpoints only."""

INDEXES = (
    "CREATE INDEX executions_due ON executions (coalesce(claimed_as, workflow), due) "
    "WHERE owner IS NULL AND due IS NOT NULL",
    "CREATE INDEX executions_held ON executions (owner, coalesce(claimed_as, workflow), due) "
    "WHERE owner IS NOT NULL",
)
"""By what is claimed; see CLAIM_NAME."""

SCHEMA = (
    """
    CREATE TABLE executions (
        key INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        workflow TEXT NOT NULL,
        digest TEXT NOT NULL,
        created_at REAL NOT NULL,
        status TEXT NOT NULL,
        owner TEXT,
        wake REAL,
        run INTEGER NOT NULL,
        position INTEGER NOT NULL,
        fence INTEGER NOT NULL,
        updated_at REAL NOT NULL,
        given INTEGER NOT NULL,
        seen INTEGER NOT NULL,
        posted INTEGER NOT NULL,
        top INTEGER NOT NULL,
        unread INTEGER NOT NULL,
        reason TEXT NOT NULL,
        build TEXT NOT NULL,
        due REAL,
        crc INTEGER NOT NULL,
        claimed_as TEXT
    )
    """,
    "CREATE INDEX executions_by_status ON executions (status, id)",
    "CREATE INDEX executions_by_workflow ON executions (workflow, id)",
    *INDEXES,
    """
    CREATE TABLE records (
        execution INTEGER NOT NULL,
        run INTEGER NOT NULL,
        position INTEGER NOT NULL,
        kind TEXT NOT NULL,
        at REAL NOT NULL,
        data BLOB NOT NULL,
        crc INTEGER NOT NULL,
        PRIMARY KEY (execution, run, position)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE ended_runs (
        execution INTEGER NOT NULL,
        run INTEGER NOT NULL,
        records INTEGER NOT NULL,
        PRIMARY KEY (execution, run)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE messages (
        execution INTEGER NOT NULL,
        number INTEGER NOT NULL,
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        at REAL NOT NULL,
        key TEXT,
        payload BLOB NOT NULL,
        crc INTEGER NOT NULL,
        PRIMARY KEY (execution, number)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE message_keys (
        execution INTEGER NOT NULL,
        key TEXT NOT NULL,
        number INTEGER NOT NULL,
        PRIMARY KEY (execution, key)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE workers (
        worker TEXT PRIMARY KEY,
        lock TEXT NOT NULL,
        lease REAL NOT NULL,
        robbed INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID
    """,
    "CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
    "INSERT INTO counters VALUES ('changes', 0)",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {FORMAT}",
)

UPGRADE = (
    "ALTER TABLE executions ADD COLUMN claimed_as TEXT",
    "DROP INDEX executions_due",
    "DROP INDEX executions_held",
    *INDEXES,
    f"PRAGMA user_version = {FORMAT}",
)
"""What makes format 2 of format 1."""

WHOSE = (
    "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_master) "
    "FROM pragma_application_id, pragma_user_version"
)
"""In one statement, as of one moment."""


def prepare(path: str, busy_s: float) -> None:
    """Make the database if it is not there, and refuse what is not one of ours."""
    _create_file(path)
    db = connect(path)
    try:
        patiently(lambda: _check_format(db, path), busy_s, path)
        _set_wal(db, path, busy_s)
        patiently(lambda: _create_tables(db, path), busy_s, path)
        patiently(lambda: checkpoint(db), busy_s, path)
    except TROUBLE as error:
        settle(db, path, busy_s, error)
        raise weather(error, path) from error
    finally:
        db.close()


def connect(path: str) -> sqlite3.Connection:
    """Open a connection that waits for nobody by itself and begins no transaction by itself.

    Raises what `weather` gives.
    """
    try:
        db = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA wal_autocheckpoint=0")
    except TROUBLE as error:
        raise weather(error, path) from error
    return db


def open_connection(path: str, synchronous: int, busy_s: float, *, reads: bool = False) -> sqlite3.Connection:
    """Open a connection with its settings read back. Raises StoreUnavailable, LogCorrupt or FormatTooNew."""
    if not Path(path).exists():  # sqlite3 would make an empty one
        raise StoreUnavailable(f"the database {path!r} is gone")
    db = connect(path)
    try:
        patiently(lambda: _check_format(db, path), busy_s, path)
        for pragma in ("trusted_schema=OFF", "cell_size_check=ON", "fullfsync=ON", "checkpoint_fullfsync=ON"):
            db.execute(f"PRAGMA {pragma}")
        db.execute(f"PRAGMA synchronous={synchronous}")
        if reads:
            db.execute("PRAGMA query_only=ON")
        else:
            # Else one row that is damaged hinders the others that are read with it (I8).
            db.text_factory = leniently
        found = (_one(db, "PRAGMA journal_mode"), _one(db, "PRAGMA synchronous"))
        if found != ("wal", synchronous):
            raise StoreUnavailable(
                f"{path!r} cannot be had as durable as asked: journal_mode and synchronous "
                f"should be ('wal', {synchronous}) and read {found}"
            )
        if not reads:
            _sync_name_of_wal(path)
    except TROUBLE as error:
        db.close()
        raise weather(error, path) from error
    except BaseException:
        db.close()
        raise
    return db


def settings_of(db: sqlite3.Connection) -> dict[str, str | int]:
    """Read back what a connection's promises rest on."""
    named = {1: "NORMAL", 2: "FULL", 3: "EXTRA"}
    return {
        "journal_mode": str(_one(db, "PRAGMA journal_mode")),
        "synchronous": named.get(_one(db, "PRAGMA synchronous"), "OFF"),
        "page_size": int(_one(db, "PRAGMA page_size")),
        "format": int(_one(db, "PRAGMA user_version")),
        "sqlite": sqlite3.sqlite_version,
    }


def _create_file(path: str) -> None:
    """Make an empty file of mode 0600 if there is none; the name of an empty one is made durable (F4)."""
    file = Path(path)
    try:
        if file.is_symlink():
            raise InvalidUse(f"{path!r} is a symbolic link; give the path of the database itself")
        if file.exists():
            if not file.is_file():
                raise InvalidUse(f"{path!r} is not a file; give the path of a database")
            if file.stat().st_size:
                return
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        _sync_directory(file.parent)
    except FileNotFoundError:
        raise InvalidUse(f"the directory {str(file.parent)!r} does not exist; make it first") from None
    except OSError as error:
        raise StoreUnavailable(
            f"{path!r} cannot be made or looked at: {os.strerror(error.errno or 0)}"
        ) from error


def _sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _sync_name_of_wal(path: str) -> None:
    """Make the write-ahead log's name durable, once it is there (F4): SQLite passes over an error when it does so."""
    try:
        _sync_directory(Path(path).parent)
    except OSError as error:
        raise StoreUnavailable(f"the directory of {path!r} cannot be synced: {error.strerror}") from error


def _check_format(db: sqlite3.Connection, path: str) -> None:
    """Refuse what is neither a log of this format nor an empty database; another process may make it just now."""
    application, version, tables = db.execute(WHOSE).fetchone()
    if application == APPLICATION_ID:
        if version > FORMAT:
            raise FormatTooNew(
                f"{path!r} has format {version}; this zart reads formats up to {FORMAT}: upgrade zart",
                where=path,
                expected=str(FORMAT),
                found=str(version),
                path=path,
            )
        return
    if application or version or tables:
        raise InvalidUse(
            f"{path!r} is an SQLite database of something else (application_id {application}, "
            f"user_version {version}, {tables} tables and indexes); give the log a file of its own, "
            "and where your tables are to share it bring them into that once zart.open has made it"
        )


def _set_wal(db: sqlite3.Connection, path: str, busy_s: float) -> None:
    mode = patiently(lambda: _one(db, "PRAGMA journal_mode=WAL"), busy_s, path)
    if mode != "wal":
        raise StoreUnavailable(
            f"{path!r} cannot have journal_mode=WAL, it reads {mode!r}; use another file system"
        )


def _create_tables(db: sqlite3.Connection, path: str) -> None:
    """Make the tables, or bring those of an earlier format to this one, in one transaction (F26)."""
    db.execute("PRAGMA synchronous=FULL")
    db.execute("BEGIN IMMEDIATE")
    try:
        _sync_name_of_wal(path)
        if not _one(db, "PRAGMA application_id"):
            for statement in SCHEMA:
                db.execute(statement)
        elif _one(db, "PRAGMA user_version") < FORMAT:
            for statement in UPGRADE:
                db.execute(statement)
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _one(db: sqlite3.Connection, query: str) -> Any:
    return db.execute(query).fetchone()[0]
