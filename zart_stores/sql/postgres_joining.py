"""The log's own writes on a PostgreSQL connection that a user made: in their transaction, in a savepoint.

Rule 1: rows come as the log wrote them, whatever the connection makes of rows for its user.
Rule 2: what is refused leaves their transaction as it was.
Rule 3: while a transaction lasts that creates something, a lock that hinders nobody shows it: how long it lasts is up
        to the user, and what waits for it is told so by then.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow, tuple_row

from zart_core.errors import InvalidUse, LogCorrupt
from zart_core.log import Appended, New, Rejected
from zart_stores.sql.batch import Batch
from zart_stores.sql.postgres_arrays import register
from zart_stores.sql.postgres_batch import Database, PostgresSource, write_changes
from zart_stores.sql.postgres_server import FULL, TOO_LARGE, Address, is_lost, weather

TRIES_MAX = 3
"""How often a creation is tried whose id another transaction takes at the same time."""
UNIQUE = "23505"
MISUSE = ("25006", "42501", "42P01")
"""A read-only transaction, a role without rights on the log's tables, or a database without them."""

IDENTITY = (
    "SELECT pg_postmaster_start_time(), oid, to_regclass(%s)::oid "
    "FROM pg_database WHERE datname = current_database()"
)
"""What no two logs have in common at a time: the start of the server, the database, the table."""
WAITS = (
    "SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'"
)
"""Have this transaction's commit wait for the disk (L4)."""

CREATES = "SELECT pg_advisory_xact_lock_shared(?, 0)"
"""Show, as long as this transaction lasts, that it creates something in this log; hinders nobody."""
SOMEBODY_CREATES = (
    "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = ?::oid AND objid = 0 "
    "AND objsubid = 2 AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))"
)


def is_somebody_creating(db: Database, address: Address) -> bool:
    """Whether any user's open transaction creates something in this log."""
    ((found,),) = db.execute(address.sql(SOMEBODY_CREATES), (_sign_of(address),)).fetchall()
    return bool(found)


def _sign_of(address: Address) -> int:
    return zlib.crc32(address.channel.encode()) >> 1


class Plain:
    """Executes statements on a connection beside its user: plain rows, and no cursor of theirs."""

    def __init__(self, db: psycopg.Connection[Any]) -> None:
        self.db = db

    def execute(self, query: Any, values: Any = None, *, binary: bool = False) -> psycopg.Cursor[TupleRow]:
        """As psycopg.Connection.execute."""
        cursor = psycopg.Cursor(self.db, row_factory=tuple_row)
        register(cursor.adapters)  # the connection is the user's
        return cursor.execute(query, values, binary=binary)


def identity(plain: Plain, address: Address) -> tuple[Any, ...]:
    """What tells this log from any other that can be reached at the time."""
    (found,) = plain.execute(IDENTITY, (f'"{address.schema}".{address.prefix}executions',)).fetchall()
    return found


def checked(connection: Any, address: Address) -> psycopg.Connection[Any]:
    """Raise InvalidUse unless it is a connection with a transaction to write in."""
    if not isinstance(connection, psycopg.Connection):
        kind = f"{type(connection).__module__}.{type(connection).__name__}"
        raise InvalidUse(
            f"connection= is a {kind}; the log is in {address.where}, so give a psycopg.Connection to that database "
            "(not an async one)"
        )
    status = connection.info.transaction_status
    if connection.closed or status is TransactionStatus.UNKNOWN:
        raise InvalidUse("connection= is closed, or has been lost")
    if status is TransactionStatus.INERROR:
        raise InvalidUse("connection= is in a transaction that has failed: roll it back, and begin again")
    if status is TransactionStatus.ACTIVE:
        raise InvalidUse("connection= is in the middle of a statement (a COPY, a stream): let it end first")
    if status is TransactionStatus.IDLE and connection.autocommit:
        raise InvalidUse(
            "connection= has no open transaction, and begins none by itself (autocommit): "
            "call start inside `with connection.transaction():`"
        )
    if (
        connection.info.encoding != "utf-8"
    ):  # columns are packed as that, and the server would take them for another
        raise InvalidUse(
            f"connection= talks to the server in {connection.info.encoding}; the log's names are any text: "
            "give one with client_encoding=UTF8"
        )
    return connection  # pyright: ignore[reportUnknownVariableType]  # of any row type


def create_within(
    db: psycopg.Connection[Any],
    address: Address,
    new: New,
    *,
    power: bool,
    is_ours: Callable[[tuple[Any, ...]], bool],
) -> Appended:
    """Create an execution in the user's transaction; see Transactional. `is_ours` knows the log's identity."""
    began = db.info.transaction_status is TransactionStatus.IDLE
    plain = Plain(db)
    try:
        plain.execute("SAVEPOINT zart")
        if not is_ours(identity(plain, address)):
            raise InvalidUse(
                f"connection= is to another database than the log ({address.where}): "
                "the user's tables have to be in the log's own database, as one commit holds both"
            )
        if power:
            plain.execute(WAITS)
        outcome = _create(plain, address, new)
        plain.execute("RELEASE SAVEPOINT zart")
    except BaseException as error:
        _undo(plain, began=began)
        if isinstance(error, psycopg.Error):
            return _refused(error, address, new.id)
        raise
    return outcome


def _create(plain: Plain, address: Address, new: New) -> Appended:
    """Write it, again when somebody else was about to take the id and has, or has not.

    What is there already is not locked, unless it gets a message: it goes on while the user's transaction lasts.
    """
    locks = bool(new.creates or new.posts)
    for left in reversed(range(TRIES_MAX)):
        unit = Batch(PostgresSource(plain, address, (new,), locks=locks), address.where)
        outcome = unit.write(new)
        changes = unit.changes()
        try:
            if not changes.empty:
                plain.execute(address.sql(CREATES), (_sign_of(address),))
                write_changes(plain, address, changes)
        except psycopg.Error as error:
            if error.sqlstate != UNIQUE or not left:
                raise
            plain.execute("ROLLBACK TO SAVEPOINT zart")
        else:
            return outcome
    raise AssertionError("the last try returns or raises")


def _undo(plain: Plain, *, began: bool) -> None:
    with contextlib.suppress(psycopg.Error):  # the connection may be lost, and everything undone with it
        if began:
            plain.execute("ROLLBACK")
        else:
            plain.execute("ROLLBACK TO SAVEPOINT zart")
            plain.execute("RELEASE SAVEPOINT zart")


def _refused(error: psycopg.Error, address: Address, id: str) -> Rejected:
    what = weather(error, address.where)
    if error.sqlstate in MISUSE:
        raise InvalidUse(f"connection= cannot write to the log: {what}") from None
    if isinstance(what, LogCorrupt):
        return Rejected(f"damaged: {what}")
    if error.sqlstate in FULL:
        return Rejected(f"full: {what}")
    if error.sqlstate == TOO_LARGE:
        return Rejected(f"too-large: {what}")
    if error.sqlstate == UNIQUE:
        return Rejected(
            f"unavailable: the id '{id}' was taken after your transaction began, which does not see by whom: "
            "begin it again"
        )
    lost = "; the connection is lost, and your transaction with it" if is_lost(error) else ""
    return Rejected(f"unavailable: {what}{lost}")
