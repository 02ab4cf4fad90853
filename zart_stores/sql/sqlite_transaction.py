"""A step's own transaction on the SQLite database of a log, ended by the log.

Rule 1: the connection is made for one transaction and closed with it; its step can neither commit nor roll back.
Rule 2: it holds the database's one write lock from BEGIN IMMEDIATE on; `limit_s` bounds that while the step runs.
Rule 3: one thread at a time uses it (`Gate`), so that it can be rolled back from outside.
Rule 4: when its step has returned, and an earlier turn of the same execution waits for the lock, that one gives way:
        it is refused, built again with this outcome, and committed here.
"""

from __future__ import annotations

import contextlib
import math
import sqlite3
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn, cast

from zart_core.errors import InvalidUse, LogCorrupt, StoreUnavailable
from zart_core.events import Ok
from zart_core.log import Appended, Rejected, Unknown, Write
from zart_stores.sql.batch import Batch
from zart_stores.sql.gate import ENDED, HOST_ENDS, Gate
from zart_stores.sql.sqlite_batch import SqliteSource, write_changes
from zart_stores.sql.sqlite_joining import Plain, plainly
from zart_stores.sql.sqlite_weather import Trouble, code, is_busy, patiently, weather
from zart_stores.sql.step_transaction import StepTransaction, refused

OWN_TABLES = frozenset(
    (
        "executions",
        "records",
        "ended_runs",
        "messages",
        "message_keys",
        "workers",
        "counters",
        "sqlite_master",
    )
)
WRITES = frozenset(
    (sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE, sqlite3.SQLITE_DROP_TABLE)
)
CHANGES_OF_TABLES = frozenset(
    (
        sqlite3.SQLITE_ALTER_TABLE,
        sqlite3.SQLITE_DROP_INDEX,
        sqlite3.SQLITE_CREATE_TRIGGER,
        sqlite3.SQLITE_CREATE_TEMP_TRIGGER,
    )
)
"""What names the table second that it changes."""
OWN_PRAGMAS = frozenset(
    (
        "application_id",
        "user_version",
        "journal_mode",
        "locking_mode",
        "synchronous",
        "writable_schema",
        "query_only",  # the outcome is to be written on the same connection
    )
)

ALONE_S = 0.2
"""How long the commit may take to come, after the step has returned, before others give way to it."""
UNDONE = "SQLite rolled the step's transaction back when a statement failed, and the step went on; let such errors pass"


class GuardedCursor(sqlite3.Cursor):
    """A cursor that works while its step runs."""

    def _using(self) -> contextlib.AbstractContextManager[None]:
        return cast("Guarded", self.connection).using()

    def execute(self, sql: str, parameters: Any = (), /) -> GuardedCursor:
        """As sqlite3.Cursor.execute."""
        with self._using():
            super().execute(sql, parameters)
            return self

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> GuardedCursor:
        """As sqlite3.Cursor.executemany."""
        with self._using():
            super().executemany(sql, parameters)
            return self

    def executescript(self, script: str, /) -> NoReturn:
        """Refused: it commits."""
        raise InvalidUse(f"executescript commits before it begins; {HOST_ENDS}")

    def fetchone(self) -> Any:
        """As sqlite3.Cursor.fetchone."""
        with self._using():
            return super().fetchone()

    def fetchmany(self, size: int | None = None) -> list[Any]:
        """As sqlite3.Cursor.fetchmany."""
        with self._using():
            return super().fetchmany(self.arraysize if size is None else size)

    def fetchall(self) -> list[Any]:
        """As sqlite3.Cursor.fetchall."""
        with self._using():
            return super().fetchall()

    def __next__(self) -> Any:
        with self._using():
            return super().__next__()


class Guarded(sqlite3.Connection):
    """What a step works with: an sqlite3.Connection inside a transaction that somebody else ends."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.gate = Gate()
        self.refusal = ""

    @contextlib.contextmanager
    def using(self) -> Generator[None]:
        """Use it, while it is the step's; what the guard refuses is told in words."""
        self.refusal = ""
        try:
            with self.gate.passing():
                if not self.in_transaction:  # what comes now would be committed by itself
                    raise InvalidUse(UNDONE)
                yield
        except sqlite3.DatabaseError as error:
            if self.refusal:
                raise InvalidUse(self.refusal) from error
            raise

    @contextlib.contextmanager
    def lifted(self) -> Generator[None]:
        """Let the log itself write in it, while its step runs."""
        with self.gate.passing():
            self._set_guard(on=False)
            try:
                yield
            finally:
                self._set_guard(on=True)

    def _set_guard(self, *, on: bool) -> None:
        super().set_authorizer(self._authorize if on else None)

    def _authorize(self, action: int, first: str | None, second: str | None, *_: Any) -> int:
        """Refuse what would end the transaction, or harm the log."""
        if action == sqlite3.SQLITE_TRANSACTION:
            self.refusal = HOST_ENDS
        elif action in (sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH):
            self.refusal = "one commit holds one database: nothing can be attached in zart.transaction()"
        elif action in WRITES and first in OWN_TABLES - {"sqlite_master"}:
            self.refusal = f"the table {first} is the log's own; give yours other names"
        elif action in CHANGES_OF_TABLES and second in OWN_TABLES:
            self.refusal = f"the table {second} is the log's own: it stays as it is"
        elif (
            action == sqlite3.SQLITE_PRAGMA
            and first is not None
            and first.lower() in OWN_PRAGMAS  # as it was typed
            and second is not None
        ):
            self.refusal = f"PRAGMA {first} is the log's own"
        else:
            return sqlite3.SQLITE_OK
        return sqlite3.SQLITE_DENY

    def cursor(self, factory: Any = GuardedCursor) -> Any:
        """As sqlite3.Connection.cursor."""
        if factory is not GuardedCursor:
            raise InvalidUse("zart.transaction() has cursors of its own; use db.cursor() without a factory")
        with self.gate.passing():
            return super().cursor(factory)

    def execute(self, sql: str, parameters: Any = (), /) -> Any:
        """As sqlite3.Connection.execute."""
        return self.cursor().execute(sql, parameters)

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> Any:
        """As sqlite3.Connection.executemany."""
        return self.cursor().executemany(sql, parameters)

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        self.gate.refuse_if_shut()
        raise InvalidUse(HOST_ENDS)

    commit = rollback = close = __enter__ = executescript = blobopen = _refuse
    set_authorizer = deserialize = _refuse
    isolation_level = property(lambda self: None, _refuse)  # pyright: ignore[reportAssignmentType]  # to be refused
    autocommit = property(lambda self: False, _refuse)


def begin(path: str, synchronous: int, busy_s: float) -> Guarded:
    """Open a guarded connection with its transaction begun. Raises StoreUnavailable, LogCorrupt."""
    if not Path(path).exists():  # sqlite3 would make an empty one
        raise StoreUnavailable(f"the database {path!r} is gone")
    db: Guarded | None = None
    try:
        db = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False, factory=Guarded)
        plain = Plain(db)
        plain.execute("PRAGMA cell_size_check=ON")
        plain.execute("PRAGMA fullfsync=ON")
        plain.execute("PRAGMA foreign_keys=ON")
        plain.execute("PRAGMA wal_autocheckpoint=0")  # the log makes checkpoints itself
        plain.execute(f"PRAGMA synchronous={synchronous}")
        ((found,),) = plain.execute("PRAGMA synchronous")
        if found != synchronous:
            raise StoreUnavailable(f"{path!r}: synchronous should be {synchronous} and reads {found}")
        patiently(lambda: plain.execute("BEGIN IMMEDIATE"), busy_s, path)
        db._set_guard(on=True)
    except BaseException as error:
        if db is not None:
            sqlite3.Connection.close(db)
        if isinstance(error, sqlite3.Error):
            raise weather(error, path) from error
        raise
    return db


class SqliteTransaction(StepTransaction):
    """See Transaction. `ended` is called once: what went wrong or None, rows committed, is something due."""

    INTERRUPT_S = 0.02

    def __init__(
        self, db: Guarded, path: str, limit_s: float, ended: Callable[[Trouble | None, int, bool], bool]
    ) -> None:
        self.connection = db
        self._path = path
        self._ended = ended
        self._full = False
        self._sealed_at = math.inf
        super().__init__(db.gate, limit_s, ", and nobody else can write meanwhile")

    def seal(self) -> None:
        """See Transaction."""
        self._timer.cancel()
        db = self.connection
        with db.gate.lock:
            db.gate.refuse_if_shut()
            db.gate.shut(ENDED)
            if not db.in_transaction:
                self._end()
                raise InvalidUse(UNDONE)
        self._sealed_at = time.monotonic()

    def is_left_alone(self) -> bool:
        """Whether its step has returned for a while, and its turn has not come: it may wait for who waits for it."""
        return not self._committing and time.monotonic() - self._sealed_at > ALONE_S

    def _commit(self, batch: Sequence[Write]) -> list[Appended]:
        committing = False
        db = self.connection
        try:
            db._set_guard(on=False)
            with plainly(db) as plain:
                unit = Batch(SqliteSource(plain, self._path), self._path)
                outcomes = [unit.write(item) for item in batch]
                if not all(isinstance(outcome, Ok) for outcome in outcomes):
                    return refused(outcomes)
                changes = unit.changes()
                write_changes(plain, changes)
                committing = True
                plain.execute("COMMIT")
        except (sqlite3.Error, UnicodeDecodeError) as error:
            return [self._failed(error, committing=committing)] * len(batch)
        self._end(None, db.total_changes, stirred=changes.stirred)
        return outcomes

    def _failed(self, error: Trouble, *, committing: bool) -> Rejected | Unknown:
        """Decide what an error means for the whole transaction."""
        what = weather(error, self._path)
        if committing and code(error) == sqlite3.SQLITE_CONSTRAINT:
            return Rejected(f"invalid: what the step wrote cannot be committed: {error}")
        self._end(trouble=error)
        if self._full or code(error) == sqlite3.SQLITE_FULL:
            return Rejected(f"full: {what}")
        if committing and not is_busy(error):
            return Unknown(f"the commit failed: {what}")
        return Rejected(f"damaged: {what}" if isinstance(what, LogCorrupt) else f"unavailable: {what}")

    def _interrupt(self) -> None:
        with contextlib.suppress(sqlite3.Error):  # it is closed by now
            self.connection.interrupt()

    def is_weather(self, error: BaseException) -> bool:
        """See Transaction. The write lock is held: nothing of the kind can come."""
        return False

    def _end(self, trouble: Trouble | None = None, changes: int = 0, *, stirred: bool = False) -> None:
        """Roll back what was not committed, and let the next one write. Twice is once."""
        if self._over:
            return
        self._over = True
        db = self.connection
        with contextlib.suppress(sqlite3.Error):
            db._set_guard(on=False)
            if db.in_transaction:
                Plain(db).execute("ROLLBACK")
        try:
            self._full = self._ended(trouble, changes, stirred)
        finally:
            with contextlib.suppress(sqlite3.Error):
                sqlite3.Connection.close(db)
