"""A log in a PostgreSQL database, for any number of processes on any number of machines.

Rule 1: a batch is one transaction: the rows of its executions are locked, read, changed in Python and written, so
        that the fence is checked under the lock of the write (F15).
Rule 2: before COMMIT was sent, an error has no effect, and the whole transaction is tried again, after a random
        pause, for `busy_s` seconds at most (F17). A connection that is lost in COMMIT makes it Unknown (F16).
Rule 3: every statement names its schema, and none relies on what a connection remembers: poolers may stand between.
Rule 4: leases end by the clock of the database (F13). Claims are committed like appends: the server may be restarted
        under living workers, and a fence that was given must not be given again.
Rule 5: a batch over executions that this object wrote last is sent as one message, which fails as a whole unless their
        rows are as it left them; then it is written by Rule 1.
Rule 6: notifications say that something may be due; who misses one finds it when he looks again (L10).
Rule 7: what a user's open transaction is about to create is not waited for, because all of a batch would wait: its
        halves are written each by itself, and who creates the same is refused for the time being. So it is with a key
        or a name that the server's indexes have no room for: it is refused, and nothing else of its batch (L6).
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import secrets
import threading
import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from zart_core.errors import InvalidUse, LogCorrupt, StoreFailed, StoreLocked, StoreUnavailable, Weather
from zart_core.events import CLOSED, Status
from zart_core.log import (
    Appended,
    EventLog,
    Level,
    Message,
    New,
    Page,
    Record,
    Rejected,
    Summary,
    Transaction,
    Unknown,
    Write,
)
from zart_stores.checks import check, check_name, is_id
from zart_stores.rows import Row, free, give, not_kept, summary, take, ungive, void
from zart_stores.sql.batch import Batch, Changes, Rows, ids_of, owners_of
from zart_stores.sql.gate import LOG_CLOSED
from zart_stores.sql.postgres_arrays import register
from zart_stores.sql.postgres_batch import PostgresSource, write_changes
from zart_stores.sql.postgres_joining import Plain, checked, create_within, identity, is_somebody_creating
from zart_stores.sql.postgres_memo import Guess, Memo, is_as_guessed
from zart_stores.sql.postgres_server import (
    AGAIN,
    FORMAT,
    FULL,
    Address,
    Connection,
    address_of,
    is_lost,
    is_quiet,
    is_read_only,
    migrate,
    prepare,
    server_settings,
    unopened,
    version,
    weather,
)
from zart_stores.sql.postgres_transaction import PostgresTransaction
from zart_stores.sql.queries import (
    Select,
    find_row,
    read_inbox,
    read_page,
    read_records,
    read_stats,
    some_at_a_time,
)
from zart_stores.sql.reading import (
    CLAIM_NAME,
    COLUMNS,
    DUE,
)
from zart_stores.sql.verifying import verify

T = TypeVar("T")

LEVELS: dict[str, Level] = {"power": "power", "process": "process"}
NAMES_MAX = 4
"""From how many names on it pays to ask first which of them have something due."""
LEASE_S = 30.0
"""The lease of a worker that owns a new execution and has none, in seconds."""
FORGOTTEN_S = 86400.0
"""So long after its lease a worker that never came back is forgotten, in seconds."""
CONNECTIONS_MAX = 4
STEP_CONNECTIONS_MAX = 16
"""How many steps may have a transaction open at a time."""
LOCK_MS = 5000
"""How long a transaction waits for the rows of another before it is tried again, in milliseconds."""
CREATION_MS, CREATION_AGAIN_MS = 250, 50
"""How long an append waits for an id that another transaction is about to take, before it asks whether that is a
user's; and a part of one that was found to be held up by a user, in milliseconds."""
STANDSTILL_MS = 5000
"""How long a transaction of a process that stands still may hold its rows: then the server ends it, in milliseconds."""
PATIENCE: dict[str, str | int] = {
    "connect_timeout": 10,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
"""How long a machine is waited for that is not there any more, unless the URL says otherwise: some ten seconds (F24).
The system's own defaults are hours; a worker would keep its lease by another connection, and write nothing."""

_ROW = f"SELECT {COLUMNS} FROM {{t}}executions"  # noqa: S608  # no data in it
_NOW = "coalesce(?::float8, extract(epoch FROM clock_timestamp())::float8)"
"""The time by which leases end; the value is for tests."""

_HOLDS = "EXISTS (SELECT FROM {t}executions WHERE owner = old.worker)"
"""Whether a worker holds anything: one that died long ago does not any more."""

_logger = logging.getLogger("zart")


def open(
    url: str,
    *,
    durability: str = "power",
    clock: Callable[[], float] | None = None,
    busy_s: float = 10.0,
) -> EventLog:
    """Open `postgresql://USER@HOST/DATABASE?schema=zart&prefix=&prepare=yes`, with libpq's own parameters beside these.

    Tables are made in the schema when there are none. `prepare=no` is for poolers that cannot keep prepared
    statements. `durability` is "power" (the server waits for its disk) or "process" (synchronous_commit off: the last
    commits may go with the server). `clock` gives seconds for leases in place of the database's clock. `busy_s` bounds
    how long anything is tried. Raises InvalidUse, FormatTooNew, StoreUnavailable.
    """
    level = LEVELS.get(durability)
    if level is None:
        raise InvalidUse(f"durability={durability!r}: a PostgreSQL log has 'power' (default) and 'process'")
    address = address_of(url)
    try:
        with _connect(address) as db:
            asks = prepare(db, address, power=level == "power")
    except psycopg.Error as error:
        raise unopened(error, address) from None
    return PostgresLog(address, level, asks, clock, busy_s)


def migrations(url: str, *, dry: bool) -> tuple[int, int]:
    """Bring the tables of a log to the version of this code, unless `dry`; gives the version before and the one wanted.

    Raises InvalidUse, FormatTooNew, StoreUnavailable.
    """
    address = address_of(url)
    try:
        with _connect(address) as db:
            return (version(db, address), FORMAT) if dry else migrate(db, address)
    except psycopg.Error as error:
        raise unopened(error, address) from None


def _options(address: Address) -> dict[str, Any]:
    """How the log connects. Text goes and comes as UTF-8, whatever the environment says: columns are packed so."""
    given = conninfo_to_dict(address.conninfo)
    return {
        **{name: value for name, value in PATIENCE.items() if name not in given},
        "autocommit": True,
        "prepare_threshold": 0 if address.prepare else None,
        "client_encoding": "UTF8",
    }


def _connect(address: Address) -> Connection:
    return psycopg.connect(address.conninfo, **_options(address))


class _HeldUp(Exception):
    """Something that is to be created is being created by a user's open transaction."""


class _TooLarge(Exception):
    """Something has a name or a key that does not fit into an index."""


class _Doubtful(Exception):
    """The connection was lost in COMMIT."""


class PostgresLog:
    """An EventLog in a PostgreSQL database."""

    blocking = True

    def __init__(
        self, address: Address, level: Level, asks: bool, clock: Callable[[], float] | None, busy_s: float
    ) -> None:
        self.level: Level = level
        self._address = address
        self._clock = clock
        self._busy_s = busy_s
        self._pid = os.getpid()
        self._closing = self._closed = False
        self._workers: set[str] = set()
        """Those whose leases this object holds."""
        self._known: set[str] = set()
        """Those of them whose lease was surely in the log once."""
        self._robbed: set[str] = set()
        """Those of them that were robbed, and have not been told."""
        self._token = secrets.token_hex(8)
        self._doubtful: set[str] = set()
        """Workers whose last claim may have given them something that nobody was told of."""
        self._idle: set[str] = set()
        """Workers whose last claim gave nothing."""
        self._quick = level == "process" or not asks
        """Whether a statement alone waits for the disk as long as the level asks for."""
        begins = [
            "BEGIN ISOLATION LEVEL READ COMMITTED",
            f"SET LOCAL lock_timeout = {LOCK_MS}",
            f"SET LOCAL idle_in_transaction_session_timeout = {STANDSTILL_MS}",
        ]
        if level == "process":
            begins.append("SET LOCAL synchronous_commit = off")
        elif asks:
            begins.append("SET LOCAL synchronous_commit = on")
        self._begin = "; ".join(begins).encode()
        """In one message, and in no pipeline: after one the server does not notice a transaction that stands still."""
        self._memo = Memo()
        self._identity: tuple[Any, ...] = ()
        """What tells this log from others, once it was asked for."""
        self._pool = self._new_pool()
        self._replacing = threading.Lock()
        self._opening_steps = threading.Lock()
        self._steps: ConnectionPool[Connection] | None = None
        self._transactions: set[PostgresTransaction] = set()
        """Those of steps that are open."""
        self._listening = threading.Lock()
        self._listener: Connection | None = None
        try:
            self._listen()
        except psycopg.Error as error:
            self._deafen()
            self._pool.close()
            raise weather(error, address.where) from None

    # ------------------------------------------------ writing

    def append(self, batch: Sequence[Write]) -> list[Appended]:
        """See EventLog. One transaction, and one wait for the disk when anything is written."""
        check(batch)
        self._refuse_if_unusable()
        return self._append(batch, CREATION_MS) if batch else []

    def _append(self, batch: Sequence[Write], creation_ms: int) -> list[Appended]:
        outcomes: list[Appended] = []
        try:
            for worker in owners_of(batch) - self._known:
                self.renew(worker, lease_s=LEASE_S)
            if not self._write_at_once(batch, outcomes):
                self._ask_and_write(batch, outcomes, creation_ms=creation_ms)
        except StoreLocked:
            raise
        except _HeldUp:
            if len(batch) > 1:
                return self._append_halves(batch, CREATION_AGAIN_MS)
            failed: Rejected | Unknown = Rejected(
                "unavailable: a user's transaction that is open creates the same execution"
            )
        except _TooLarge as error:
            if len(batch) > 1:
                return self._append_halves(batch, creation_ms)
            failed = Rejected(f"too-large: {error}")
        except _Doubtful as doubt:
            self._outlast(batch)
            failed = Unknown(f"the connection was lost in the commit: {doubt}")
        except _Full as full:
            failed = Rejected(f"full: {full}")
        except LogCorrupt as error:
            failed = Rejected(f"damaged: {error}")
        except Weather as error:
            failed = Rejected(f"unavailable: {error}")
        except Exception:
            raise
        except BaseException:  # the commit may be on its way
            self._outlast(batch)
            raise
        else:
            return outcomes
        outcomes += [failed] * (len(batch) - len(outcomes))
        return not_kept(outcomes, failed)

    def _append_halves(self, batch: Sequence[Write], creation_ms: int) -> list[Appended]:
        middle = len(batch) // 2
        return [
            outcome
            for half in (batch[:middle], batch[middle:])
            for outcome in self._append(half, creation_ms)
        ]

    def _ask_and_write(
        self,
        batch: Sequence[Write],
        outcomes: list[Appended],
        guess: Guess | None = None,
        creation_ms: int = CREATION_MS,
    ) -> None:
        """Write a batch in a transaction that reads its rows (Rule 1). Raises _HeldUp, _TooLarge, as `_transaction`.

        With a `guess`, _Doubtful when its rows are not as it took them for: it may have been written.
        """
        left: Rows | None = None

        def write(db: Connection) -> Callable[[], None] | None:
            nonlocal left
            outcomes.clear()
            unit = self._batch(db, batch, creation_ms)
            unit.prepare(ids_of(batch))
            if guess is not None and not is_as_guessed(guess, unit):
                raise _Doubtful("what was to be changed has changed")
            outcomes.extend(unit.write(item) for item in batch)
            changes, left = unit.changes(), unit.left()
            return None if changes.empty else lambda: self._write(db, changes)

        self._transaction(write)
        if left is not None:
            self._memo.keep(row for row, _ in left.values())

    def _write(self, db: Connection, changes: Changes) -> None:
        """Write what was read and changed. Raises _HeldUp, _TooLarge."""
        try:
            write_changes(db, self._address, changes)
        except psycopg.errors.LockNotAvailable:
            db.execute(b"ROLLBACK")
            if changes.inserts and is_somebody_creating(db, self._address):
                raise _HeldUp from None
            raise
        except psycopg.errors.ProgramLimitExceeded as error:
            raise _TooLarge(str(weather(error, self._address.where))) from None

    def _write_at_once(self, batch: Sequence[Write], outcomes: list[Appended]) -> bool:
        """Write a batch in one round trip (Rule 5); False when nothing was written, and it has to be asked.

        Raises StoreUnavailable, _Doubtful.
        """
        guess = self._memo.guess(batch, self._address.where) if self._quick else None
        if guess is None:
            return False
        try:
            with self._connection() as db:
                if not is_quiet(db):
                    return False
                write_changes(db, self._address, guess.changes, guess.versions)
        except psycopg.Error as error:
            if not is_lost(error):
                return False  # a wrong guess, or what who asks will meet, too
            self._make_sure(guess, batch, outcomes)
            return True
        except Exception:
            raise
        except BaseException:
            with contextlib.suppress(_Doubtful):
                self._make_sure(guess, batch, outcomes)
            raise
        self._memo.keep((row for row, _ in guess.left.values()), guess.sums)
        outcomes.extend(guess.outcomes)
        return True

    def _make_sure(self, guess: Guess, batch: Sequence[Write], outcomes: list[Appended]) -> None:
        """Write what was not written when the connection was lost; should it still come, its rows are others by then.

        Raises _Doubtful when that cannot be done.
        """
        try:
            self._ask_and_write(batch, outcomes, guess)
        except (Weather, LogCorrupt, _Full) as error:
            raise _Doubtful(str(error)) from None

    def _outlast(self, batch: Sequence[Write]) -> None:
        """Wait for the end of a transaction whose reply nobody got: from then on reading tells what came of it (L3).

        The server may still be at it when the connection is gone; the rows it locked are free when it is over.
        """
        with contextlib.suppress(Weather, _Full):  # whoever reads meets the same weather
            self._transaction(lambda db: self._lock(db, batch))

    def _lock(self, db: Connection, batch: Sequence[Write]) -> None:
        PostgresSource(db, self._address).rows(sorted(ids_of(batch)))

    def create_within(self, connection: Any, new: New) -> Appended:
        """See Transactional. `connection` is a psycopg.Connection to this database, of any row type."""
        check((new,))
        self._refuse_if_unusable()
        db = checked(connection, self._address)
        return create_within(
            db, self._address, new, power=self.level == "power", is_ours=self._is_its_identity
        )

    def begin(self, *, limit_s: float) -> Transaction:
        """See Transactional. At most STEP_CONNECTIONS_MAX at a time; others wait for one."""
        if limit_s <= 0:
            raise InvalidUse(f"limit={limit_s:g}: a transaction needs some time")
        self._refuse_if_unusable()
        end = time.monotonic() + self._busy_s
        while True:
            try:
                db = self._step_pool().getconn(timeout=self._busy_s)
            except PoolClosed:
                raise self._is_closed() from None
            except PoolTimeout:
                raise StoreUnavailable(
                    f"{self._address.where}: no connection for a step within {self._busy_s:g} s"
                ) from None
            try:
                if is_read_only(db):
                    raise StoreUnavailable(f"{self._address.where}: the server takes no writes at present")
                begun = PostgresTransaction(
                    db,
                    self._address,
                    LOCK_MS,
                    STANDSTILL_MS,
                    limit_s,
                    power=self.level == "power",
                    keep=self._memo.keep,
                    ended=self._step_ended,
                )
            except BaseException as error:
                db.close()
                self._step_pool().putconn(db)
                if not isinstance(error, psycopg.Error):
                    raise
                if time.monotonic() >= end:
                    raise weather(error, self._address.where) from None
            else:
                self._transactions.add(begun)
                if self._closing:  # meanwhile
                    begun.roll_back(LOG_CLOSED)
                    raise self._is_closed()
                return begun

    def _step_ended(self, ended: PostgresTransaction, db: Connection) -> None:
        self._transactions.discard(ended)
        self._step_pool().putconn(db)

    def _step_pool(self) -> ConnectionPool[Connection]:
        """Connections that steps work with, beside those of the log itself."""
        with self._opening_steps:
            if self._steps is None:
                if self._closing:
                    raise self._is_closed()
                self._steps = self._new_pool(0, STEP_CONNECTIONS_MAX)
            return self._steps

    def _is_its_identity(self, found: tuple[Any, ...]) -> bool:
        """Whether a connection that found this is to this very log; the server may have been restarted since."""
        if found != self._identity:
            self._identity = self._read(lambda db: identity(Plain(db), self._address))
        return found == self._identity

    def _batch(self, db: Connection, batch: Sequence[Write] = (), creation_ms: int | None = None) -> Batch:
        return Batch(PostgresSource(db, self._address, batch, creation_ms=creation_ms), self._address.where)

    # ------------------------------------------------ reading

    def summary(self, id: str) -> Summary | None:
        """See EventLog. O(log n)."""
        row = self._read(lambda db: self._row(db, id), single=True)
        return None if row is None else summary(row)

    def records(self, id: str, run: int | None = None, start: int = 0) -> list[Record]:
        """See EventLog. O(log n), and one pass over what is given."""
        return self._read(
            lambda db: read_records(self._asking(db), id, run, max(start, 0), self._address.where)
        )

    def inbox(self, id: str, after: int = 0) -> list[Message]:
        """See EventLog."""
        return self._read(lambda db: read_inbox(self._asking(db), id, max(after, 0), self._address.where))

    def _row(self, db: Connection, id: str) -> Row | None:
        return find_row(self._asking(db), id, self._address.where)

    def next_wake(self) -> float | None:
        """See EventLog. O(log n)."""
        query = "SELECT due FROM {t}executions WHERE due IS NOT NULL ORDER BY due LIMIT 1"
        return next((due for (due,) in self._read(lambda db: self._select(db, query), single=True)), None)

    # ------------------------------------------------ claims

    def others(self, worker: str) -> int:
        """See Shared. O(workers)."""
        query = f"SELECT count(*) FROM {{t}}workers WHERE worker <> ? AND lease > {_NOW}"  # noqa: S608
        return self._read(lambda db: next(int(n) for (n,) in self._select(db, query, (worker, self._now()))))

    def claim(
        self, worker: str, *, now: float, lease_s: float, limit: int, workflows: Collection[str] | None = None
    ) -> list[Summary]:
        """See EventLog. O(log n) for each workflow and each that is given."""
        check_name("worker", worker)
        if worker in self._idle and self._quick and self._has_nothing(worker, now, lease_s, workflows):
            return []

        def give_due(db: Connection) -> list[Row]:
            self._sweep(db, but=worker)
            self._lease(db, worker, lease_s)
            if worker in self._doubtful:
                self._change(db, self._held(db, worker), ungive)
            due = self._due(db, worker, now, limit, workflows)
            return self._change(db, due, lambda row: give(row, worker))

        try:
            given = self._lease_transaction(give_due)
        except BaseException:  # F27
            self._doubtful.add(worker)
            self._idle.discard(worker)
            raise
        self._known.add(worker)
        self._doubtful.discard(worker)
        (self._idle.discard if given else self._idle.add)(worker)
        summaries = [summary(row) for row in given]
        self._memo.keep(given)
        return summaries

    def _has_nothing(
        self, worker: str, now: float, lease_s: float, workflows: Collection[str] | None
    ) -> bool:
        """Renew a lease, and tell whether there is surely nothing to give and nobody to bury: one statement.

        That is all that an idle worker costs. O(log n) for each workflow, and O(workers).
        """
        wanted, names = (
            ("", ()) if workflows is None else (f"AND {CLAIM_NAME} = ANY(?) ", (storable(workflows),))
        )
        query = (
            f"WITH mine AS (UPDATE {{t}}workers SET lease = {_NOW} + ? "  # noqa: S608  # no data in it
            "WHERE worker = ? AND token = ? RETURNING 1) "
            "SELECT EXISTS (SELECT FROM mine) "
            f"AND NOT EXISTS (SELECT FROM {{t}}workers AS old WHERE worker <> ? AND lease <= {_NOW} AND {_HOLDS}) "
            f"AND NOT EXISTS (SELECT FROM {{t}}executions WHERE owner IS NULL AND due <= ? {wanted}) "
            f"AND NOT EXISTS (SELECT FROM {{t}}executions WHERE owner = ? AND due <= ? {wanted})"
        )
        clock = self._now()
        values = (clock, lease_s, worker, self._token, worker, clock, now, *names, worker, now, *names)
        ((nothing,),) = self._read(lambda db: self._select(db, query, values), single=True)
        return bool(nothing)

    def acquire(self, worker: str, id: str, *, lease_s: float) -> Summary | None:
        """See EventLog. O(log n)."""
        check_name("worker", worker)
        if not is_id(id):
            return None

        def take_it(db: Connection) -> Row | None:
            row = self._row(db, id)
            if row is not None and row.status not in CLOSED and row.owner not in (None, worker):
                self._sweep(db, but=worker)
                row = self._row(db, id)
            if row is None or row.status in CLOSED or row.owner not in (None, worker):
                return None  # and the lease stays as it is
            self._lease(db, worker, lease_s)  # workers are locked before executions
            unit = self._batch(db)
            row = unit.find(id)
            if row is None or row.status in CLOSED or row.owner not in (None, worker):
                return None  # somebody was quicker
            take(row, worker)
            unit.changed(row)
            write_changes(db, self._address, unit.changes())
            return row

        row = self._lease_transaction(take_it)
        if row is None:
            return None
        taken = summary(row)
        self._memo.keep([row])
        return taken

    def renew(self, worker: str, *, lease_s: float) -> bool:
        """See EventLog. One row, however many executions it holds."""
        check_name("worker", worker)

        def extend(db: Connection) -> bool:
            if self._lease(db, worker, lease_s):
                self._robbed.add(worker)  # and it is told next time when the answer to this commit is lost
                query = "UPDATE {t}workers SET robbed = false WHERE worker = ?"
                db.execute(self._address.sql(query), (worker,))
            return worker not in self._robbed

        in_time = self._lease_transaction(extend)
        self._known.add(worker)
        self._robbed.discard(worker)
        return in_time

    def release(self, worker: str, ids: Collection[str] | None = None) -> None:
        """See EventLog. O(what the worker holds)."""
        check_name("worker", worker)
        self._lease_transaction(lambda db: self._let_go(db, worker, free, ids))

    def _let_go(
        self, db: Connection, worker: str, how: Callable[[Row], None], ids: Collection[str] | None = None
    ) -> int:
        """Free or void what a worker holds; gives how many there were."""
        wanted = None if ids is None else set(ids)
        held = [found for found in self._held(db, worker) if wanted is None or found[1] in wanted]
        return len(self._change(db, held, how))

    def _held(self, db: Connection, worker: str) -> Sequence[Sequence[Any]]:
        """Read and lock what a worker holds."""
        return self._select(db, f"{_ROW} WHERE owner = ? ORDER BY id FOR UPDATE", (worker,))

    def _change(
        self, db: Connection, found: Sequence[Sequence[Any]], how: Callable[[Row], None]
    ) -> list[Row]:
        """Change locked rows. A damaged one is not due any more, and nobody's: the others go on (I8)."""
        unit = self._batch(db)
        rows: list[Row] = []
        for values in found:
            try:
                row = unit.load(values)
            except LogCorrupt as error:
                _logger.error("an execution is left alone: %s", error)
                query = "UPDATE {t}executions SET due = NULL, owner = NULL WHERE key = ?"
                db.execute(self._address.sql(query), (values[0],))
                continue
            how(row)
            unit.changed(row)
            rows.append(row)
        write_changes(db, self._address, unit.changes())
        return rows

    def _due(
        self, db: Connection, worker: str, now: float, limit: int, workflows: Collection[str] | None
    ) -> Sequence[Sequence[Any]]:
        """Find and lock what is due and free or the worker's own, the longest due first; passes by what others lock."""
        if limit < 1:
            return []
        found: list[Sequence[Any]] = []
        names: Iterable[str] | None
        for condition, owners in (("owner IS NULL", ()), ("owner = ?", (worker,))):
            names = workflows
            if workflows is None or len(workflows) > NAMES_MAX:  # each costs a round trip
                found_names = self._due_names(db, condition, owners)
                names = [name for name in found_names if workflows is None or name in workflows]
            query = (
                f"{_ROW} WHERE {condition} AND {CLAIM_NAME} = ? AND due <= ? "  # no data in it
                "ORDER BY due, key LIMIT ? FOR UPDATE SKIP LOCKED"
            )
            for name in set(storable(names or ())):
                found += self._select(db, query, (*owners, name, now, min(limit, 1 << 30)))
        return sorted(found, key=lambda values: (values[DUE], values[0]))[:limit]

    def _due_names(self, db: Connection, condition: str, owners: tuple[str, ...]) -> Iterator[str]:
        """Give the names that what is due is claimed by; a step along an index for each."""
        query = (
            f"SELECT {CLAIM_NAME} FROM {{t}}executions "  # noqa: S608
            f"WHERE {condition} AND due IS NOT NULL AND {CLAIM_NAME} > ? ORDER BY {CLAIM_NAME} LIMIT 1"
        )
        name = ""
        while found := self._select(db, query, (*owners, name)):
            ((name,),) = found
            yield name

    # ------------------------------------------------ workers

    def _lease(self, db: Connection, worker: str, lease_s: float) -> bool:
        """Set the end of a worker's lease; tell whether it had been robbed. Refuse a name that another has."""
        query = (
            f"INSERT INTO {{t}}workers AS old (worker, token, lease, robbed) VALUES (?, ?, {_NOW} + ?, ?) "  # noqa: S608
            "ON CONFLICT (worker) DO UPDATE SET lease = excluded.lease WHERE old.token = excluded.token "
            "RETURNING robbed"
        )
        # If it is new to the log: so long after its lease that it held nothing more.
        forgotten = worker in self._known
        values = (worker, self._token, self._now(), lease_s, forgotten)
        found = self._select(db, query, values)
        if not found:
            self._bury_namesake(db, worker)
            found = self._select(db, query, values)
        self._workers.add(worker)
        return bool(found[0][0])

    def _bury_namesake(self, db: Connection, worker: str) -> None:
        """Void what another worker of this name held; refuse while its lease lasts."""
        query = f"SELECT lease > {_NOW} FROM {{t}}workers WHERE worker = ? FOR UPDATE"  # noqa: S608
        ((alive,),) = self._select(db, query, (self._now(), worker))
        if alive:
            raise StoreLocked(
                f"the worker name {worker!a} is in use by another until its lease ends; "
                "give each worker a name of its own"
            )
        self._let_go(db, worker, void)
        db.execute(self._address.sql("DELETE FROM {t}workers WHERE worker = ?"), (worker,))

    def _sweep(self, db: Connection, but: str) -> None:
        """Void what is held by workers whose lease has run out; O(workers)."""
        query = f"SELECT worker FROM {{t}}workers AS old WHERE worker <> ? AND lease <= {_NOW} "  # noqa: S608
        query += f"AND {_HOLDS} FOR UPDATE SKIP LOCKED"
        for (worker,) in self._select(db, query, (but, self._now())):
            if self._let_go(db, worker, void):
                query = "UPDATE {t}workers SET robbed = true WHERE worker = ?"
                db.execute(self._address.sql(query), (worker,))

    def _now(self) -> float | None:
        return None if self._clock is None else self._clock()

    # ------------------------------------------------ waiting

    def wait(self, timeout_s: float) -> bool:
        """See EventLog. Costs the server nothing. A lost connection counts as a change: one may have been missed."""
        self._refuse_if_unusable()
        with self._listening:
            try:
                listener = self._listener
                if listener is None:
                    self._listen()
                    return True
                heard = list(listener.notifies(timeout=timeout_s, stop_after=1))
            except psycopg.Error:
                self._deafen()
                time.sleep(min(timeout_s, 0.1 * random.uniform(0.5, 1.5)))  # noqa: S311  # no secret
                return True
        return bool(heard)

    def _listen(self) -> None:
        """Open a connection that hears notifications."""
        self._listener = listener = _connect(self._address)
        if self._closed:  # meanwhile
            self._deafen()
        else:
            listener.execute(f'LISTEN "{self._address.channel}"'.encode())

    def _deafen(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()

    # ------------------------------------------------ the whole

    def list(
        self,
        *,
        status: Status | None = None,
        workflow: str | None = None,
        id_prefix: str | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> Page[Summary]:
        """See EventLog. O(log n) and the page, but with both status and workflow: what has the status."""
        where = self._address.where
        return self._read(
            lambda db: read_page(self._asking(db), where, status, workflow, id_prefix, limit, after),
            single=True,
        )

    def stats(self) -> Mapping[Status, int]:
        """See EventLog. O(n) over an index."""
        return self._read(lambda db: read_stats(self._asking(db), self._address.where), single=True)

    def settings(self) -> Mapping[str, str | int]:
        """See Examinable. What the server keeps of what it acknowledges, as a transaction of this log finds it."""
        found = self._lease_transaction(server_settings)
        if found["pooler"] == "no":
            # one may have lent the connection of its greeting; for the next transaction it lends another
            found = self._lease_transaction(server_settings)
        prepared = "yes" if self._address.prepare else "no"
        return {**found, "prepared statements": prepared, "format": FORMAT}

    def verify(self) -> Mapping[str, int]:
        """See EventLog. O(n), in one snapshot; others go on meanwhile."""

        def select(db: Connection, query: str, values: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
            if values:  # about one execution, of which all is wanted: a cursor asks several times
                yield from self._execute(db, query, values)
                return
            with db.cursor(f"zart_{secrets.token_hex(4)}", binary=True) as cursor:
                yield from cursor.execute(self._address.sql(query), values)

        return self._read(
            lambda db: verify(lambda query, values: select(db, query, values), self._address.where)
        )

    # ------------------------------------------------ connections

    def _new_pool(self, least: int = 1, most: int = CONNECTIONS_MAX) -> ConnectionPool[Connection]:
        return ConnectionPool(
            self._address.conninfo,
            kwargs=_options(self._address),
            min_size=least,
            max_size=most,
            timeout=self._busy_s,
            reconnect_timeout=self._busy_s,
            configure=lambda db: register(db.adapters),
            name="zart",
            open=True,
        )

    @contextlib.contextmanager
    def _connection(self) -> Generator[Connection]:
        """Lend a connection, and roll back what an error leaves open. Raises StoreUnavailable when there is none.

        After an interrupt the pool may have lost count of what it lent: it is given up for a new one (F27).
        """
        pool = self._pool
        try:
            with pool.connection() as db:
                try:
                    yield db
                except psycopg.errors.ReadOnlySqlTransaction:
                    db.close()  # the server is a standby since; behind its name there may be another by now
                    raise
        except PoolTimeout:
            self._replace(pool)
            raise StoreUnavailable(
                f"{self._address.where}: no connection within {self._busy_s:g} s"
            ) from None
        except Exception:
            raise
        except BaseException:
            self._replace(pool)
            raise

    def _replace(self, pool: ConnectionPool[Connection]) -> None:
        """Give up a pool for a new one, once, however many found it wanting at the same time."""
        with self._replacing:
            if self._closed or pool is not self._pool:
                return
            self._pool = self._new_pool()
        pool.close(timeout=0)

    def _execute(
        self, db: Connection, query: str, values: tuple[Any, ...]
    ) -> psycopg.Cursor[tuple[Any, ...]]:
        return db.execute(self._address.sql(query), values, binary=True)

    def _select(self, db: Connection, query: str, values: tuple[Any, ...] = ()) -> Sequence[tuple[Any, ...]]:
        return self._execute(db, query, values).fetchall()

    def _asking(self, db: Connection) -> Select:
        """Run queries on a connection."""
        return lambda query, values: some_at_a_time(self._execute(db, query, values).fetchmany)

    def _transaction(self, action: Callable[[Connection], Callable[[], None] | None]) -> None:
        """Run an action, and what it gives, in one transaction; nothing is committed when it gives nothing (Rule 2).

        Raises _Doubtful, _Full, LogCorrupt, StoreUnavailable.
        """
        end = time.monotonic() + self._busy_s
        pause_s = 0.005
        while True:
            committing = False
            try:
                with self._connection() as db:
                    db.execute(self._begin, prepare=False)
                    rest = action(db)
                    if rest is None:
                        db.execute(b"ROLLBACK")
                    else:
                        rest()
                        committing = True
                        db.execute(b"COMMIT")
                    return
            except psycopg.Error as error:
                what = weather(error, self._address.where)
                if committing and is_lost(error):
                    raise _Doubtful(str(what)) from None
                if error.sqlstate in FULL:
                    raise _Full(str(what)) from None
                if not (is_lost(error) or error.sqlstate in AGAIN) or time.monotonic() >= end:
                    raise what from None
            time.sleep(pause_s * random.uniform(0.5, 1.5))  # noqa: S311  # no secret
            pause_s = min(pause_s * 2, 0.5)

    def _lease_transaction(self, action: Callable[[Connection], T]) -> T:
        """Do something with claims and leases in one transaction."""
        self._refuse_if_unusable()
        results: list[T] = []

        def act(db: Connection) -> Callable[[], None]:
            results[:] = [action(db)]
            return lambda: None

        try:
            self._transaction(act)
        except _Doubtful as doubt:
            raise StoreUnavailable(f"the connection was lost in the commit: {doubt}") from None
        except _Full as full:
            raise StoreUnavailable(str(full)) from None
        return results[0]

    def _read(self, action: Callable[[Connection], T], *, single: bool = False) -> T:
        """Read in one snapshot; tried again like a transaction. A `single` statement is a snapshot by itself."""
        self._refuse_if_unusable()
        end = time.monotonic() + self._busy_s
        while True:
            try:
                with self._connection() as db:
                    if single:
                        return action(db)
                    db.execute(b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                    result = action(db)
                    db.execute(b"COMMIT")
                    return result
            except psycopg.Error as error:
                if not (is_lost(error) or error.sqlstate in AGAIN) or time.monotonic() >= end:
                    raise weather(error, self._address.where) from None
            time.sleep(0.05 * random.uniform(0.5, 1.5))  # noqa: S311  # no secret

    def close(self) -> None:
        """See EventLog."""
        if self._closed:
            return
        if self._pid != os.getpid():
            self._closed = True  # the parent's connections are not ours to touch
            return
        self._closing = True
        for transaction in list(self._transactions):
            transaction.roll_back(LOG_CLOSED)
        try:
            if self._workers:
                with contextlib.suppress(Weather, LogCorrupt):
                    self._lease_transaction(self._sign_off)
        finally:
            self._closed = True
            self._deafen()
            self._pool.close()
            with self._opening_steps:
                steps = self._steps
            if steps is not None:
                steps.close()

    def _sign_off(self, db: Connection) -> None:
        for worker in sorted(self._workers):
            self._let_go(db, worker, free)
            db.execute(self._address.sql("DELETE FROM {t}workers WHERE worker = ?"), (worker,))
        query = f"DELETE FROM {{t}}workers AS old WHERE lease <= {_NOW} - ? AND NOT {_HOLDS}"  # noqa: S608
        db.execute(self._address.sql(query), (self._now(), FORGOTTEN_S))

    def _refuse_if_unusable(self) -> None:
        if self._pid != os.getpid():
            raise StoreFailed(
                f"the log was opened in process {self._pid} and is used in {os.getpid()}: "
                "open a log of its own in each process"
            )
        if self._closed:
            raise self._is_closed()

    def _is_closed(self) -> StoreFailed:
        return StoreFailed(f"the log ({self._address.where}) is closed; open it again")


def storable(names: Iterable[str]) -> list[str]:
    """Those of these names that anything stored may have."""
    return [name for name in names if name.isprintable()]


class _Full(Exception):
    """The server's disk or memory is full."""
