"""A step's own transaction on the PostgreSQL database of a log, ended by the log.

Rule 1: the step works with a Connection object of its own over a pooled connection to the server; when the step has
        ended, that object is good for nothing, whoever keeps it.
Rule 2: everything that it sends goes through `wait`, and so through the gate: one thread at a time, and none once it
        is shut; so it can be rolled back from outside.
Rule 3: a setting that is local to the transaction tells whether it is still the one that was begun.
Rule 4: role and settings of the step end with it: the log writes with its own, and so does the next step begin.
Rule 5: the server ends it when its process stands still, in the step or in the commit, so that what it has locked is
        free for the others (F24); for that it is begun, and its commit, by one plain message and in no pipeline.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow, tuple_row

from zart_core.errors import InvalidUse, LogCorrupt, StoreUnavailable
from zart_core.events import Ok
from zart_core.log import Appended, Rejected, Unknown, Write
from zart_stores.rows import Row
from zart_stores.sql.batch import Batch, ids_of
from zart_stores.sql.gate import ENDED, HOST_ENDS, Gate
from zart_stores.sql.postgres_batch import PostgresSource, write_changes
from zart_stores.sql.postgres_joining import WAITS
from zart_stores.sql.postgres_server import FULL, TOO_LARGE, Address, Connection, is_lost, weather
from zart_stores.sql.step_transaction import StepTransaction, refused

AGAIN = ("40001", "40P01", "55P03")
"""States after which a step's transaction is tried again: serialization, deadlock, lock timeout (F17)."""

STANDING = "SELECT current_setting('zart.step', true), current_setting('transaction_read_only')"
OURS_AGAIN = ("RESET ALL", "RESET SESSION AUTHORIZATION", "RESET ROLE")
"""Settings as they are when a connection is made, whatever the step has set, for its transaction or for longer."""
INTERRUPTS_MAX = 10
"""How often a server is asked to interrupt a statement before its connection is cut."""
LEFT_ALONE_MS = 30_000
"""How long beyond its limit a step's transaction may wait for its turn, in milliseconds; its commit alone locks rows of
the log."""
MS_MAX = (1 << 31) - 1
"""The longest time that a setting of the server takes, in milliseconds."""

ENDS = re.compile(
    r"(?:\s|--[^\n]*\n|/\*(?:(?!\*/).)*\*/)*"
    r"(?:commit|end|abort|begin|start\s+transaction|prepare\s+transaction"
    r"|rollback(?!\s+(?:(?:work|transaction)\s+)?to\b))\b",
    re.IGNORECASE | re.DOTALL,
)
"""Statements that end a transaction, or begin one, and are told so before they are sent. A comment ends at its first
end: a pattern that may look for another takes twice as long with each comment that a statement begins with."""


class GuardedCursor(psycopg.Cursor[Any]):
    """A cursor that ends no transaction."""

    def execute(self, query: Any, *args: Any, **options: Any) -> GuardedCursor:
        """As psycopg.Cursor.execute."""
        text = query.decode(errors="replace") if isinstance(query, bytes) else query
        if isinstance(text, str) and ENDS.match(text):
            raise InvalidUse(HOST_ENDS)
        super().execute(query, *args, **options)
        return self


class Guarded(psycopg.Connection[TupleRow]):
    """What a step works with: a psycopg.Connection inside a transaction that somebody else ends."""

    def __init__(self, db: Connection) -> None:
        super().__init__(db.pgconn, tuple_row)
        self.gate = Gate()
        self.cursor_factory = GuardedCursor
        self.prepare_threshold = None  # names of prepared statements belong to the pooled connection
        self._pool = None  # so it is not missed when it is gone

    def wait(self, *args: Any, **options: Any) -> Any:
        """As psycopg.Connection.wait, while its step runs."""
        with self.gate.passing():
            return super().wait(*args, **options)

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        self.gate.refuse_if_shut()
        raise InvalidUse(HOST_ENDS)

    commit = rollback = close = set_autocommit = __enter__ = _refuse
    tpc_begin = tpc_prepare = tpc_commit = tpc_rollback = _refuse


class PostgresTransaction(StepTransaction):
    """See Transaction. `keep` is given the rows that were committed; `ended` is called once, with the connection to be
    given back.
    """

    INTERRUPT_S = 0.2

    def __init__(
        self,
        db: Connection,
        address: Address,
        lock_ms: int,
        standstill_ms: int,
        limit_s: float,
        *,
        power: bool,
        keep: Callable[[Iterable[Row]], None],
        ended: Callable[[PostgresTransaction, Connection], None],
    ) -> None:
        self._db = db
        self._address = address
        self._keep = keep
        settings = [
            *OURS_AGAIN,
            f"SET LOCAL lock_timeout = {lock_ms}",
            f"SET LOCAL idle_in_transaction_session_timeout = {standstill_ms}",
        ]
        if power:
            settings.append(WAITS)
        self._settings = "; ".join(settings).encode()
        self._ended = ended
        self._token = secrets.token_hex(8)
        self._interrupts = 0
        idle_ms = min(int(limit_s * 1000) + LEFT_ALONE_MS, MS_MAX)
        begin = (
            f"BEGIN; SET LOCAL zart.step = '{self._token}'; "  # no query: the step may set its isolation
            f"SET LOCAL idle_in_transaction_session_timeout = {idle_ms}"
        )
        db.execute(begin.encode(), prepare=False)
        self.connection = Guarded(db)
        super().__init__(self.connection.gate, limit_s)

    def seal(self) -> None:
        """See Transaction. Constraints that are deferred are checked now, so that they fail the step."""
        self._timer.cancel()
        gate = self._gate
        with gate.lock:
            gate.refuse_if_shut()
            gate.shut(ENDED)
            if self._db.closed:
                raise StoreUnavailable(
                    f"{self._address.where}: the connection was lost in a step's transaction"
                )
            status = self._db.info.transaction_status
            if status is TransactionStatus.ACTIVE:
                raise InvalidUse(
                    "the step left a statement (a COPY, a stream) in the middle: "
                    "let it end, or close it, before it returns"
                )
            if status is TransactionStatus.INERROR:
                raise InvalidUse(
                    "a statement in the step's transaction failed, and the step went on: let such errors pass, or "
                    "surround what may fail by `with db.transaction():`"
                )
            try:
                ((token, read_only),) = self._db.execute(STANDING).fetchall()
                if token != self._token:
                    raise InvalidUse(
                        f"the step ended its transaction itself, and its outcome is not in it; {HOST_ENDS}"
                    )
                if read_only == "on":
                    raise InvalidUse(
                        "the step made its transaction read-only, and its outcome is to be written in it; "
                        "for what only reads take a connection of yours"
                    )
                self._db.execute("SET CONSTRAINTS ALL IMMEDIATE")
            except psycopg.OperationalError as error:
                raise weather(error, self._address.where) from error

    def _commit(self, batch: Sequence[Write]) -> list[Appended]:
        db, address, committing = self._db, self._address, False
        try:
            db.execute(self._settings, prepare=False)
            unit = Batch(PostgresSource(db, address, batch), address.where)
            unit.prepare(ids_of(batch))
            outcomes = [unit.write(item) for item in batch]
            if not all(isinstance(outcome, Ok) for outcome in outcomes):
                return refused(outcomes)
            changes, left = unit.changes(), unit.left()
            write_changes(db, address, changes)
            committing = True
            db.execute(b"COMMIT")
        except psycopg.Error as error:
            return [self._failed(error, committing=committing)] * len(batch)
        if left is not None:
            self._keep(row for row, _ in left.values())
        return outcomes

    def _failed(self, error: psycopg.Error, *, committing: bool) -> Rejected | Unknown:
        """Decide what an error means for the whole transaction."""
        what = weather(error, self._address.where)
        if committing and is_lost(error):
            return Unknown(f"the connection was lost in the commit: {what}")
        if isinstance(error, psycopg.IntegrityError) and error.sqlstate != "23505":
            return Rejected(f"invalid: what the step wrote cannot be committed: {what}")
        if error.sqlstate in FULL:
            return Rejected(f"full: {what}")
        if error.sqlstate == TOO_LARGE:
            return Rejected(f"too-large: {what}")
        return Rejected(f"damaged: {what}" if isinstance(what, LogCorrupt) else f"unavailable: {what}")

    def _interrupt(self) -> None:
        """Ask the server; when it does not answer, or nobody does, cut the line: its thread waits for it no longer."""
        self._interrupts += 1
        with contextlib.suppress(psycopg.Error, OSError):  # the connection is lost by now
            if self._interrupts > INTERRUPTS_MAX:
                with socket.socket(fileno=os.dup(self._db.fileno())) as line:
                    line.shutdown(socket.SHUT_RDWR)
            self._db.cancel_safe(timeout=self.INTERRUPT_S)

    def is_weather(self, error: BaseException) -> bool:
        """See Transaction."""
        if self.connection.gate.why not in ("", ENDED):
            return False
        return self._db.closed or (isinstance(error, psycopg.Error) and error.sqlstate in AGAIN)

    def _end(self) -> None:
        """Roll back what was not committed, and give the connection back. Twice is once."""
        if self._over:
            return
        self._over = True
        try:
            if self._db.info.transaction_status is not TransactionStatus.IDLE:
                self._db.execute(b"ROLLBACK")
        except psycopg.Error:
            self._db.close()
        finally:
            self._ended(self, self._db)
