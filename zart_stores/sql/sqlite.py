"""A log in an SQLite database, for one process or several on one machine.

Rule 1: one writer per log object, under a lock; every write is BEGIN IMMEDIATE, a batch, COMMIT (F17).
Rule 2: appends are committed with synchronous=FULL. Claims and leases are not waited for (NORMAL): they
        survive the death of a process, and the workers themselves do not survive a power failure.
Rule 3: after any error but "busy" all connections are closed; the next call opens new ones (F5, see `sqlite_wal`).
Rule 4: an error before COMMIT is Rejected, an error in COMMIT is Unknown, and a full disk, a quota or a limit of file
        sizes is Rejected (F6): SQLite reports it before the last frame of the commit is written.
Rule 5: a worker lives as long as its lock file is locked and its lease has not run out; see `lock`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

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
from zart_stores.checks import check, check_name
from zart_stores.rows import Row, free, give, not_kept, summary, take, ungive, void
from zart_stores.sql import lock, sqlite_wal
from zart_stores.sql.batch import Batch, ids_of, owners_of
from zart_stores.sql.gate import LOG_CLOSED
from zart_stores.sql.line import Line
from zart_stores.sql.queries import (
    Select,
    find_row,
    read_inbox,
    read_page,
    read_records,
    read_stats,
    some_at_a_time,
)
from zart_stores.sql.reading import COLUMNS, damage
from zart_stores.sql.sqlite_batch import BLOB, SqliteSource, write_changes
from zart_stores.sql.sqlite_due import changes_count, due_keys, next_wake, was_robbed, workers
from zart_stores.sql.sqlite_file import FULL, NORMAL, open_connection, prepare, settings_of
from zart_stores.sql.sqlite_joining import create_within
from zart_stores.sql.sqlite_memo import Memo
from zart_stores.sql.sqlite_transaction import Guarded, SqliteTransaction, begin
from zart_stores.sql.sqlite_weather import TROUBLE, Trouble, code, is_busy, leniently, patiently, weather
from zart_stores.sql.verifying import verify

T = TypeVar("T")

LEVELS: dict[str, Level] = {"power": "power", "process": "process"}
TOGETHER_MIN = 8
"""From how many writes on it pays to read their rows together."""
LEASE_S = 30.0
"""The lease of a worker that owns a new execution and has none, in seconds."""
POLL_S = 0.05
"""How often `wait` looks for what other processes wrote, in seconds."""
PROBE_S = 0.5
"""How often `wait` looks whether another worker has died, in seconds."""

_BY_ID = f"SELECT {COLUMNS} FROM executions WHERE id = ?"  # noqa: S608  # no data in it
_BY_KEY = f"SELECT {COLUMNS} FROM executions WHERE key = ?"  # noqa: S608

_logger = logging.getLogger("zart")


def open(
    url: str,
    *,
    durability: str = "power",
    clock: Callable[[], float] = time.monotonic,
    busy_s: float = 10.0,
) -> EventLog:
    """Open `sqlite:PATH`; the database is made when there is none, with mode 0600.

    `durability` is "power" (synchronous=FULL) or "process" (NORMAL: the last commits may go with the power).
    `clock` gives seconds for leases, the same in all processes, and never goes back. `busy_s` bounds the wait
    for other processes. Raises InvalidUse, LogCorrupt, FormatTooNew; StoreUnavailable when the disk says no.
    """
    level = LEVELS.get(durability)
    if level is None:
        raise InvalidUse(f"durability={durability!r}: an SQLite log has 'power' (default) and 'process'")
    path = _path_of(url)
    prepare(path, busy_s)
    return SqliteLog(path, level, clock, busy_s)


def _path_of(url: str) -> str:
    scheme, _, path = url.partition(":")
    if scheme != "sqlite" or not path:
        raise InvalidUse(f"{url!r} is no URL of an SQLite log; write sqlite:PATH, as in sqlite:orders.db")
    if path.startswith("//"):
        raise InvalidUse(
            f"{url!r}: write sqlite:orders.db or sqlite:/var/lib/orders.db, without more slashes"
        )
    if path == ":memory:":
        raise InvalidUse("'sqlite::memory:' would be gone with its connection; write memory:")
    if "\0" in path or not path.isprintable():
        raise InvalidUse(f"{url!a}: a path has printable characters")
    return os.path.abspath(path)  # noqa: PTH100  # Path.absolute() leaves ".." in


class SqliteLog:
    """An EventLog in an SQLite database."""

    blocking = True

    def __init__(self, path: str, level: Level, clock: Callable[[], float], busy_s: float) -> None:
        self.level: Level = level
        self._path = path
        self._prefix = f"{path}-worker-"
        self._clock = clock
        self._busy_s = busy_s
        self._pid = os.getpid()
        self._closing = self._closed = False
        self._writing = threading.RLock()
        self._reading = threading.Lock()
        self._line = Line()
        """Transactions of steps are in it while they last; appends wait for those who were there before."""
        self._transaction: SqliteTransaction | None = None
        self._stirred = threading.Condition()
        self._connections: dict[str, sqlite3.Connection] = {}
        self._locks: dict[str, lock.Lock] = {}
        self._doubtful: set[str] = set()
        """Workers whose last claim may have given them something that nobody was told of."""
        self._stirs = 0
        self._pace = sqlite_wal.Pace()
        self._memo = Memo()
        self._heard = 0
        try:
            self._tidy()
            self._heard = self._changes()
        except BaseException:
            self._disconnect()
            raise

    # ------------------------------------------------ writing

    def append(self, batch: Sequence[Write]) -> list[Appended]:
        """See EventLog. One transaction, and one wait for the disk when anything is written."""
        check(batch)
        self._refuse_in_child()
        with self._writing, Undisturbed(self._disconnect):
            self._refuse_if_closed()
            if not batch:
                return []
            try:
                for worker in owners_of(batch):
                    if worker not in self._locks:
                        self.renew(worker, lease_s=LEASE_S)
                db = self._connection("writer")
                self._begin(db)
            except StoreLocked:
                raise
            except LogCorrupt as error:
                return [Rejected(f"damaged: {error}")] * len(batch)
            except Weather as error:
                return [Rejected(f"unavailable: {error}")] * len(batch)
            outcomes, stirred = self._append(db, batch)
            if self._pace.due:
                self._checkpoint("writer")
        if stirred:
            self._stir()
        return outcomes

    def _append(self, db: sqlite3.Connection, batch: Sequence[Write]) -> tuple[list[Appended], bool]:
        """Write a batch in the transaction that has begun, and end it."""
        outcomes: list[Appended] = []
        committing = False
        try:
            unit = Batch(SqliteSource(db, self._path), self._path, self._memo.take(db), BLOB)
            if len(batch) >= TOGETHER_MIN:
                unit.prepare(ids_of(batch))
            for item in batch:
                outcomes.append(unit.write(item))
            changes = unit.changes()
            if changes.empty:
                db.execute("ROLLBACK")
                return outcomes, False
            before = db.total_changes
            write_changes(db, changes)
            committing = True
            db.execute("COMMIT")
            self._memo.keep(unit.left())
            pages = len(changes.moves) + changes.payload_bytes // sqlite_wal.PAGE_BYTES
            self._pace.changes += db.total_changes - before + pages
            return outcomes, changes.stirred
        except TROUBLE as error:
            failed = self._give_up(error, committing)
            outcomes += [failed] * (len(batch) - len(outcomes))
            return not_kept(outcomes, failed), False
        except BaseException:
            self._disconnect()
            raise

    def _give_up(self, error: Trouble, committing: bool) -> Rejected | Unknown:
        """Decide what an error means for what was to be written, and close the connections (Rules 3, 4)."""
        what = weather(error, self._path)
        full = self._disconnect(error)
        if full or code(error) == sqlite3.SQLITE_FULL:
            return Rejected(f"full: {what}")
        if committing and not is_busy(error):
            return Unknown(f"the commit failed: {what}")
        return Rejected(f"damaged: {what}" if isinstance(what, LogCorrupt) else f"unavailable: {what}")

    def create_within(self, connection: Any, new: New) -> Appended:
        """See Transactional. `connection` is an sqlite3.Connection on this file, used in its own thread."""
        check((new,))
        self._refuse_if_unusable()
        if not isinstance(connection, sqlite3.Connection):
            raise InvalidUse(
                f"connection= is a {type(connection).__module__}.{type(connection).__name__}; "
                f"the log is in SQLite, so give an sqlite3.Connection on {self._path!r} (not an async one)"
            )
        step = connection.lifted() if isinstance(connection, Guarded) else contextlib.nullcontext()
        with step:
            return create_within(connection, self._path, new, power=self.level == "power")

    def begin(self, *, limit_s: float) -> Transaction:
        """See Transactional. Nobody else writes before it ends, so its limit is at most what others wait."""
        if not 0 < limit_s <= self._busy_s:
            raise InvalidUse(
                f"limit={limit_s:g}: a transaction holds SQLite's only write lock, and others wait for it "
                f"for {self._busy_s:g} s; ask for no more than that"
            )
        self._refuse_if_unusable()
        if "writer" not in self._connections:  # the write-ahead log gets a durable name with it (F4)
            with self._writing:
                self._connection("writer")
        if not self._line.enter(self._busy_s):
            raise StoreUnavailable(f"{self._path!r}: other transactions went on for {self._busy_s:g} s")
        try:
            db = begin(self._path, FULL if self.level == "power" else NORMAL, self._busy_s)
            try:
                begun = SqliteTransaction(db, self._path, limit_s, self._transaction_ended)
            except BaseException:  # no thread for its timer
                sqlite3.Connection.close(db)
                raise
        except BaseException:
            self._line.leave()
            raise
        self._transaction = begun
        if self._closing:  # while this one waited
            begun.roll_back(LOG_CLOSED)
            raise self._is_closed()
        return begun

    def _is_waited_for(self) -> bool:
        """Whether the lock is held by who waits for the turn that commits it: this may be the turn before that."""
        transaction = self._transaction
        return transaction is not None and transaction.is_left_alone()

    def _transaction_ended(self, trouble: Trouble | None, changes: int, stirred: bool) -> bool:
        self._transaction = None
        self._pace.changes += changes
        self._line.leave()
        full = trouble is not None and self._disconnect(trouble)  # Rule 3
        if stirred:
            self._stir()
        return full

    # ------------------------------------------------ reading

    def summary(self, id: str) -> Summary | None:
        """See EventLog. O(log n)."""
        row = self._read(lambda db: self._row(db, id))
        return None if row is None else summary(row)

    def records(self, id: str, run: int | None = None, start: int = 0) -> list[Record]:
        """See EventLog. O(log n), and one pass over what is given."""
        return self._read(lambda db: read_records(_select(db), id, run, max(start, 0), self._path))

    def inbox(self, id: str, after: int = 0) -> list[Message]:
        """See EventLog."""
        return self._read(lambda db: read_inbox(_select(db), id, max(after, 0), self._path))

    def _row(self, db: sqlite3.Connection, id: str) -> Row | None:
        return find_row(_select(db), id, self._path)

    def next_wake(self) -> float | None:
        """See EventLog. O(workers x workflows), each O(log n)."""
        return self._read(lambda db: next_wake(db, self._path))

    # ------------------------------------------------ claims

    def others(self, worker: str) -> int:
        """See Shared. O(workers)."""
        query = "SELECT count(*) FROM workers WHERE worker <> ? AND lease > ?"
        now = self._clock()
        return self._read(lambda db: int(db.execute(query, (worker, now)).fetchone()[0]))

    def claim(
        self, worker: str, *, now: float, lease_s: float, limit: int, workflows: Collection[str] | None = None
    ) -> list[Summary]:
        """See EventLog. O(log n) for each workflow and each that is given."""
        check_name("worker", worker)

        def give_due(db: sqlite3.Connection) -> tuple[list[Summary], int]:
            self._sweep(db, but=worker)
            self._lease(db, worker, lease_s)
            if worker in self._doubtful:
                self._let_go(db, worker, ungive)
            unit = Batch(SqliteSource(db, self._path), self._path)
            rows = self._load(db, unit, due_keys(db, self._path, worker, now, limit, workflows))
            for row in rows:
                give(row, worker)
                unit.changed(row)
            write_changes(db, unit.changes())
            return [summary(row) for row in rows], changes_count(db, self._path)

        try:
            given, self._heard = self._in_lease_transaction(give_due)
        except BaseException:  # F27
            self._doubtful.add(worker)
            raise
        self._doubtful.discard(worker)
        return given

    def acquire(self, worker: str, id: str, *, lease_s: float) -> Summary | None:
        """See EventLog. O(log n)."""
        check_name("worker", worker)

        def take_it(db: sqlite3.Connection) -> Summary | None:
            row = self._row(db, id)
            if row is not None and row.owner not in (None, worker):
                self._sweep(db, but=worker)
                row = self._row(db, id)
            if row is None or row.status in CLOSED or row.owner not in (None, worker):
                return None
            self._lease(db, worker, lease_s)
            unit = Batch(SqliteSource(db, self._path), self._path)
            row = unit.find(id)
            assert row is not None
            take(row, worker)
            unit.changed(row)
            write_changes(db, unit.changes())
            return summary(row)

        return self._in_lease_transaction(take_it)

    def renew(self, worker: str, *, lease_s: float) -> bool:
        """See EventLog. One row, however many executions it holds."""
        check_name("worker", worker)

        def extend(db: sqlite3.Connection) -> bool:
            self._lease(db, worker, lease_s)
            return not was_robbed(db, self._path, worker)

        return self._in_lease_transaction(extend)

    def release(self, worker: str, ids: Collection[str] | None = None) -> None:
        """See EventLog. O(what the worker holds)."""
        check_name("worker", worker)
        self._in_lease_transaction(lambda db: self._let_go(db, worker, free, ids))

    def _let_go(
        self,
        db: sqlite3.Connection,
        worker: str,
        how: Callable[[Row], None],
        ids: Collection[str] | None = None,
    ) -> int:
        """Change what a worker holds in a way of `rows`; gives how many there were."""
        unit = Batch(SqliteSource(db, self._path), self._path)
        held = db.execute("SELECT key, id FROM executions WHERE owner = ?", (worker,)).fetchall()
        wanted = None if ids is None else set(ids)
        rows = self._load(db, unit, [key for key, id in held if wanted is None or id in wanted])
        for row in rows:
            how(row)
            unit.changed(row)
        write_changes(db, unit.changes())
        return len(rows)

    def _load(self, db: sqlite3.Connection, unit: Batch, keys: Sequence[int]) -> list[Row]:
        """Read rows by key. A damaged one is reported, and not due any more: the others go on (I8)."""
        rows: list[Row] = []
        for key in keys:
            values = db.execute(_BY_KEY, (key,)).fetchone()
            if values is None:
                where = f"{self._path}, index of executions"
                raise damage(f"{where}: it names one that is not there", where, f"execution {key}", "nothing")
            try:
                rows.append(unit.load(values))
            except LogCorrupt as error:
                _logger.error("an execution is left alone: %s", error)
                _set_aside(db, key)
        return rows

    # ------------------------------------------------ workers

    def _lease(self, db: sqlite3.Connection, worker: str, lease_s: float) -> None:
        """Set the end of a worker's lease; with its first, make its lock."""
        if worker not in self._locks:
            self._take_over(db, worker)
            self._locks[worker] = lock.Lock(self._prefix)
        db.execute(
            "INSERT INTO workers (worker, lock, lease) VALUES (?, ?, ?) "
            "ON CONFLICT (worker) DO UPDATE SET lock = excluded.lock, lease = excluded.lease",
            (worker, self._locks[worker].token, self._clock() + lease_s),
        )

    def _take_over(self, db: sqlite3.Connection, worker: str) -> None:
        """Bury an earlier worker of the same name; refuse when it lives."""
        for name, token, _ in workers(db, self._path):
            if name != worker:
                continue
            if not lock.is_dead(self._prefix, token):
                raise StoreLocked(
                    f"the worker name {worker!a} is in use by another; give each worker a name of its own"
                )
            self._bury(db, worker, token)

    def _sweep(self, db: sqlite3.Connection, but: str) -> None:
        """Void what is held by workers who are dead or whose lease has run out; O(workers)."""
        now = self._clock()
        for worker, token, lease in workers(db, self._path):
            if worker == but:
                continue
            if worker not in self._locks and lock.is_dead(self._prefix, token):
                self._bury(db, worker, token)
            elif lease <= now and self._let_go(db, worker, void):
                db.execute("UPDATE workers SET robbed = 1 WHERE worker = ?", (worker,))

    def _bury(self, db: sqlite3.Connection, worker: str, token: str) -> None:
        """Void what a dead worker held; if this is not committed, the missing lock still tells its death."""
        self._let_go(db, worker, void)
        db.execute("DELETE FROM workers WHERE worker = ?", (worker,))
        lock.remove(self._prefix, token)

    def _tidy(self) -> None:
        """Remove the locks of dead workers that nobody knows."""
        try:
            if not lock.leftovers(self._prefix):
                return
        except OSError as error:
            raise self._lock_trouble(error) from error

        def remove_unknown(db: sqlite3.Connection) -> None:
            known = {token for _, token, _ in workers(db, self._path)}
            for token in lock.leftovers(self._prefix):
                if token not in known:
                    lock.remove(self._prefix, token)

        self._in_lease_transaction(remove_unknown)

    def _lock_trouble(self, error: OSError) -> StoreUnavailable:
        return StoreUnavailable(f"the workers' locks beside {self._path!r} cannot be used: {error.strerror}")

    # ------------------------------------------------ waiting

    def wait(self, timeout_s: float) -> bool:
        """See EventLog. Looks for what other processes did every POLL_S; a worker's death counts as a change.

        What was written since the last claim or wait by this object counts too.
        """
        since = self._heard
        end = time.monotonic() + timeout_s
        probe = time.monotonic() + PROBE_S
        while True:
            stirs = self._stirs
            changes = self._changes()
            if changes != since:
                self._heard = changes
                return True
            now = time.monotonic()
            if now >= end:
                return False
            if now >= probe:
                probe = now + PROBE_S
                if self._read(self._is_somebody_dead):
                    return True
            with self._stirred:
                self._stirred.wait_for(partial(self._has_stirred, stirs), min(POLL_S, end - now))

    def _has_stirred(self, since: int) -> bool:
        return self._stirs != since

    def _stir(self) -> None:
        with self._stirred:
            self._stirs += 1
            self._stirred.notify_all()

    def _changes(self) -> int:
        return self._read(lambda db: changes_count(db, self._path))

    def _is_somebody_dead(self, db: sqlite3.Connection) -> bool:
        return any(
            worker not in self._locks and lock.is_dead(self._prefix, token)
            for worker, token, _ in workers(db, self._path)
        )

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

        def read(db: sqlite3.Connection) -> Page[Summary]:
            db.text_factory = leniently
            try:
                return read_page(_select(db), self._path, status, workflow, id_prefix, limit, after)
            finally:
                db.text_factory = str

        return self._read(read)

    def stats(self) -> Mapping[Status, int]:
        """See EventLog. O(n) over an index, about 10 million executions a second."""
        return self._read(lambda db: read_stats(_select(db), self._path))

    def verify(self) -> Mapping[str, int]:
        """See EventLog. O(n), in one snapshot, on a connection of its own; others go on meanwhile."""
        self._refuse_if_unusable()
        db = open_connection(self._path, NORMAL, self._busy_s, reads=True)
        try:
            db.execute("BEGIN")
            (found,) = db.execute("PRAGMA integrity_check(1)").fetchone()
            if found != "ok":
                raise damage(f"{self._path}: the database is damaged", self._path, "ok", found)
            return verify(_select(db), self._path)
        except TROUBLE as error:
            raise weather(error, self._path) from error
        finally:
            db.close()

    def settings(self) -> Mapping[str, str | int]:
        """See Examinable. Read back from the connection that appends, and from the file."""
        self._refuse_in_child()
        with self._writing:
            self._refuse_if_closed()
            return settings_of(self._connection("writer"))

    # ------------------------------------------------ connections

    def _connection(self, name: str) -> sqlite3.Connection:
        """Give the connection of this name, opened when there is none."""
        if name not in self._connections:
            synchronous = FULL if name == "writer" and self.level == "power" else NORMAL
            self._connections[name] = open_connection(
                self._path, synchronous, self._busy_s, reads=name == "reader"
            )
        return self._connections[name]

    def _checkpoint(self, name: str) -> None:
        """Make the checkpoint that is due, on the connection that has committed. One that fails loses nothing."""
        db = self._connections.get(name)
        if db is None:
            return
        try:
            self._pace.learn(sqlite_wal.checkpoint(db))
        except TROUBLE as error:
            self._pace.learn(sqlite_wal.PAGES_MAX)
            _logger.warning("a checkpoint failed and is tried again later: %s", weather(error, self._path))
            self._disconnect(error)

    def _begin(self, db: sqlite3.Connection) -> None:
        if self._line.taken:
            self._line.let_pass(self._busy_s, self._is_waited_for)
            if self._is_waited_for():
                raise StoreUnavailable(
                    f"{self._path!r}: a step's transaction holds the lock, and waits for its turn"
                )
        try:
            patiently(partial(db.execute, "BEGIN IMMEDIATE"), self._busy_s, self._path)
        except TROUBLE as error:
            self._disconnect(error)
            raise weather(error, self._path) from error

    @contextlib.contextmanager
    def _new_locks(self) -> Generator[None]:
        """Drop the lock of a worker that the database does not name: its predecessor is not buried, and will be."""
        named = set(self._locks)
        try:
            yield
        except BaseException:
            for worker in self._locks.keys() - named:
                self._locks.pop(worker).drop()
            raise

    def _in_lease_transaction(self, action: Callable[[sqlite3.Connection], T]) -> T:
        """Do something with claims and leases in one transaction (Rule 2)."""
        self._refuse_in_child()
        with self._writing, Undisturbed(self._disconnect), self._new_locks():
            self._refuse_if_closed()
            db = self._connection("leases")
            self._begin(db)
            before = db.total_changes
            try:
                result = action(db)
                db.execute("COMMIT")
                self._pace.changes += db.total_changes - before
            except TROUBLE as error:
                self._disconnect(error)
                raise weather(error, self._path) from error
            except OSError as error:
                self._disconnect()
                raise self._lock_trouble(error) from error
            except BaseException:
                self._disconnect()
                raise
            if self._pace.due:
                self._checkpoint("leases")
        self._stir()
        return result

    def _read(self, action: Callable[[sqlite3.Connection], T]) -> T:
        """Read in one snapshot."""

        def snapshot() -> T:
            db.execute("BEGIN")
            try:
                return action(db)
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")

        self._refuse_in_child()
        with self._reading:
            self._refuse_if_closed()
            db = self._connection("reader")
            try:
                return patiently(snapshot, self._busy_s, self._path)
            except TROUBLE as error:
                _put_away(self._connections.pop("reader"))
                raise weather(error, self._path) from error
            except OSError as error:
                raise self._lock_trouble(error) from error
            except Exception:
                raise
            except BaseException:
                _put_away(self._connections.pop("reader"))  # it may be in its snapshot still (F27)
                raise

    def _disconnect(self, error: Trouble | None = None) -> bool:
        """Close all connections, because of an error if there is one, and roll back what was not committed.

        Gives whether the error was that there is no room (F6).
        """
        with self._writing, self._reading:
            connections, self._connections = self._connections, {}
            try:
                db = connections.get("writer") or connections.get("leases")
                return db is not None and sqlite_wal.settle(db, self._path, self._busy_s, error)
            finally:
                for db in connections.values():
                    _put_away(db)

    def close(self) -> None:
        """See EventLog."""
        if self._pid != os.getpid():
            self._closed = True  # the parent's connections and locks are not ours to touch
            return
        self._closing = True
        if (open_yet := self._transaction) is not None:
            open_yet.roll_back(LOG_CLOSED)
        with self._writing:
            if self._closed:
                return
            try:
                if self._locks:
                    with contextlib.suppress(Weather, LogCorrupt):
                        self._in_lease_transaction(self._sign_off)
            finally:
                self._closed = True
                for held in self._locks.values():
                    held.drop()
                self._disconnect()
        self._stir()

    def _sign_off(self, db: sqlite3.Connection) -> None:
        for worker in self._locks:
            self._let_go(db, worker, free)
            db.execute("DELETE FROM workers WHERE worker = ?", (worker,))

    def _refuse_if_unusable(self) -> None:
        self._refuse_in_child()
        self._refuse_if_closed()

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise self._is_closed()

    def _is_closed(self) -> StoreFailed:
        return StoreFailed(f"the log {self._path!r} is closed; open it again")

    def _refuse_in_child(self) -> None:
        """Asked before any lock: a thread that a forked child has no more may hold it (F12)."""
        if self._pid != os.getpid():
            raise StoreFailed(
                f"the log {self._path!r} was opened in process {self._pid} and is used in {os.getpid()}: "
                "open a log of its own in each process"
            )


class Undisturbed:
    """Leaves no transaction behind when the process is interrupted, wherever that strikes (F27)."""

    def __init__(self, disconnect: Callable[[], object]) -> None:
        self._disconnect = disconnect

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and not issubclass(kind, Exception):
            self._disconnect()


def _select(db: sqlite3.Connection) -> Select:
    """Run queries on a connection; tables have plain names here."""
    return lambda query, values: some_at_a_time(db.execute(query.replace("{t}", ""), values).fetchmany)


def _set_aside(db: sqlite3.Connection, key: int) -> None:
    """Make a damaged execution due no more; one that its indexes do not fit stays as it is, and is met again."""
    try:
        db.execute("UPDATE executions SET due = NULL, owner = NULL WHERE key = ?", (key,))
    except sqlite3.DatabaseError as error:
        if code(error) != sqlite3.SQLITE_CORRUPT:
            raise


def _put_away(db: sqlite3.Connection) -> None:
    """Roll back and close a connection; closing alone would wait for cursors, which tracebacks keep alive (F27)."""
    with contextlib.suppress(*TROUBLE):
        if db.in_transaction:
            db.execute("ROLLBACK")
    with contextlib.suppress(*TROUBLE):
        db.close()
