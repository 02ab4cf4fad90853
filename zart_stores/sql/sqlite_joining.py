"""The log's own writes on an SQLite connection that a user made: in their transaction, in a savepoint.

Rule 1: rows come as the log wrote them, whatever the connection makes of rows and text for its user.
Rule 2: what is refused leaves their transaction as it was; only where SQLite itself rolls it back, that is said.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import Any

from zart_core.errors import InvalidUse, LogCorrupt
from zart_core.log import Appended, New, Rejected
from zart_stores.sql.batch import Batch
from zart_stores.sql.sqlite_batch import SqliteSource, write_changes
from zart_stores.sql.sqlite_file import FULL
from zart_stores.sql.sqlite_weather import TROUBLE, Trouble, code, weather


class Plain:
    """Executes statements on a connection beside its user: plain rows, and no factory or guard of theirs."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db

    def execute(self, sql: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        """As sqlite3.Connection.execute."""
        return self._cursor().execute(sql, values)

    def executemany(self, sql: str, values: Iterable[Sequence[Any]]) -> sqlite3.Cursor:
        """As sqlite3.Connection.executemany."""
        return self._cursor().executemany(sql, values)

    def _cursor(self) -> sqlite3.Cursor:
        cursor = sqlite3.Cursor(self.db)
        cursor.row_factory = None
        return cursor


@contextlib.contextmanager
def plainly(db: sqlite3.Connection) -> Generator[Plain]:
    """Work on a connection with text as text."""
    theirs, db.text_factory = db.text_factory, str
    try:
        yield Plain(db)
    finally:
        db.text_factory = theirs


def create_within(db: sqlite3.Connection, path: str, new: New, *, power: bool) -> Appended:
    """Create an execution in the user's transaction; see Transactional."""
    try:
        with plainly(db) as plain:
            _refuse_stranger(plain, path)
            _refuse_hasty(plain, power=power)
            return _create(plain, path, new, begins=_begins(plain))
    except sqlite3.ProgrammingError as error:  # closed, or made in another thread
        raise InvalidUse(f"connection= cannot be used: {error}") from error


def _refuse_stranger(plain: Plain, path: str) -> None:
    found = next(file for _, name, file in plain.execute("PRAGMA database_list") if name == "main")
    with contextlib.suppress(OSError):
        if found and os.path.samestat(Path(found).stat(), Path(path).stat()):
            return
    raise InvalidUse(
        f"connection= is on another database ({found or 'in memory'!r}) than the log ({path!r}): the user's tables "
        "have to be in the log's own file, as one commit holds both"
    )


def _refuse_hasty(plain: Plain, *, power: bool) -> None:
    """A commit on this connection has to be as durable as the log promises (L4)."""
    ((level,),) = plain.execute("PRAGMA synchronous")
    if power and level < FULL:
        raise InvalidUse(
            f"connection= has synchronous={level}, so what it commits may go with the power; "
            "execute PRAGMA synchronous=FULL on it before its transaction begins"
        )


def _begins(plain: Plain) -> bool:
    """Tell whether there is a transaction to begin."""
    if plain.db.in_transaction:
        return False
    # Since Python 3.12; commit() does nothing then.
    autocommit = getattr(plain.db, "autocommit", False) is True
    if autocommit or plain.db.isolation_level is None:
        raise InvalidUse(
            "connection= has no open transaction, and begins none by itself "
            f"({'autocommit=True' if autocommit else 'isolation_level=None'}): "
            'execute "BEGIN IMMEDIATE" on it first, and COMMIT afterwards'
        )
    return True


def _create(plain: Plain, path: str, new: New, *, begins: bool) -> Appended:
    try:
        if begins:
            plain.execute("BEGIN IMMEDIATE")
        plain.execute("SAVEPOINT zart")
        unit = Batch(SqliteSource(plain, path), path)
        outcome = unit.write(new)
        changes = unit.changes()
        if not changes.empty:
            write_changes(plain, changes)
        plain.execute("RELEASE zart")
    except TROUBLE as error:
        return _undone(plain, path, error, began=begins)
    except BaseException:  # F27: the user may commit all the same
        _undo(plain, began=begins)
        raise
    return outcome


def _undo(plain: Plain, *, began: bool) -> bool:
    """Undo what was written here; tells whether SQLite had not undone everything by itself."""
    intact = plain.db.in_transaction
    with contextlib.suppress(*TROUBLE):  # the savepoint may not even have come to be
        if began:
            plain.execute("ROLLBACK")
        elif intact:
            plain.execute("ROLLBACK TO zart")
            plain.execute("RELEASE zart")
    return intact


def _undone(plain: Plain, path: str, error: Trouble, *, began: bool) -> Rejected:
    """Undo what was written here, if SQLite has not undone everything."""
    what = weather(error, path)
    intact = _undo(plain, began=began)
    word = "full" if code(error) == sqlite3.SQLITE_FULL else "unavailable"
    if isinstance(what, LogCorrupt):
        word = "damaged"
    gone = "" if intact or began else "; SQLite has rolled your whole transaction back"
    return Rejected(f"{word}: {what}{gone}")
