"""Transactions of steps on SQLite's log, from below: what the disk, others and SQLite itself do to them."""

import concurrent.futures
import contextlib
import resource
import sqlite3
import threading
from pathlib import Path

import pytest

from tests.engines import until
from zart_core.errors import InvalidUse, LogCorrupt, StoreFailed, StoreUnavailable
from zart_core.events import Ok
from zart_core.log import Record, Rejected, Unknown
from zart_core.testing.contract import claimed, expect, new, standing, turn, write
from zart_stores.sql import line, sqlite, sqlite_wal
from zart_stores.sql.sqlite_transaction import begin

LARGE = [Record("X", 2.0, b"x" * 100_000)]


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "log.db")


@pytest.fixture
def log(path):
    """A log with an execution, and a table of the user's beside it."""
    store = sqlite.open(f"sqlite:{path}", busy_s=0.1)
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE mine (n INTEGER PRIMARY KEY, payload BLOB)")
        db.commit()
    with contextlib.closing(store):
        yield store


def rows(path):
    with contextlib.closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT n FROM mine ORDER BY n").fetchall()


def insert(transaction, n=1, payload=b""):
    transaction.connection.execute("INSERT INTO mine VALUES (?, ?)", (n, payload))


# ---------------------------------------------------------------- beginning


def test_no_thread_for_its_limit(log, monkeypatch):
    """What cannot be given a limit is not begun: it holds no lock, though its error is kept."""
    write(log, new())

    def start(self):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Timer, "start", start)
        with pytest.raises(RuntimeError, match="new thread") as kept:
            log.begin(limit_s=0.1)
    write(log, turn("a", 1, "X"))
    assert kept.value is not None


def test_what_waits_gives_way_to_a_transaction_that_waits_for_it(path):
    """A step has returned, and an append waits for its lock: that may be the turn which its commit waits for."""
    with contextlib.closing(sqlite.open(f"sqlite:{path}", busy_s=60.0)) as store:
        write(store, new())
        transaction = store.begin(limit_s=5)
        with concurrent.futures.ThreadPoolExecutor() as others:
            appending = others.submit(store.append, [turn("a", 1, "Earlier", at=2.0)])
            transaction.seal()
            (refused,) = appending.result()
        assert isinstance(refused, Rejected) and "waits for its turn" in refused.reason
        assert [type(each) for each in transaction.commit([turn("a", 1, "X", at=2.0)])] == [Ok]
        write(store, turn("a", 2, "Later", at=2.0))


def test_the_first_thing_that_is_done(path, log):
    """A log that has written nothing yet, or was disconnected, begins a transaction as any other."""
    with contextlib.closing(sqlite.open(f"sqlite:{path}")) as fresh:
        transaction = fresh.begin(limit_s=5)
        insert(transaction)
        expect(transaction.connection.execute("PRAGMA synchronous").fetchall(), [(2,)])
        expect(transaction.connection.execute("PRAGMA fullfsync").fetchall(), [(1,)])
        transaction.seal()
        assert [type(each) for each in transaction.commit([new()])] == [Ok]
        expect((rows(path), standing(fresh).position), ([(1,)], 1))


def test_the_guard_is_up_again_after_the_log_has_written(path, log):
    """A step that starts an execution in its transaction can end it afterwards no more than before."""
    with contextlib.closing(sqlite.open(f"sqlite:{path}", busy_s=60.0)) as store:
        transaction = store.begin(limit_s=60)
        insert(transaction)
        assert type(store.create_within(transaction.connection, new("b"))) is Ok
        for forbidden in ("COMMIT", "UPDATE executions SET position = 9", "ATTACH ':memory:' AS other"):
            with pytest.raises(InvalidUse):
                transaction.connection.execute(forbidden)
        transaction.roll_back("enough")
        expect((rows(path), store.summary("b")), ([], None))


def test_another_log_holds_the_lock(path, log):
    """Who cannot begin is told so, and stands in nobody's way afterwards."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="was locked by others"):
            log.begin(limit_s=0.1)
    log.begin(limit_s=0.1).roll_back("enough")


def test_another_transaction_goes_on(path, log):
    """One at a time: the next waits for it, for as long as the log waits for anybody."""
    first = log.begin(limit_s=0.1)
    first.seal()  # so that its limit does not end it
    with pytest.raises(StoreUnavailable, match=r"other transactions went on for 0\.1 s"):
        log.begin(limit_s=0.1)
    expect([type(each) for each in first.commit([new()])], [Ok])
    log.begin(limit_s=0.1).roll_back("enough")


def test_the_database_is_gone(path, log):
    """It is not made anew beside the one that was moved away; put back, everything works again."""
    write(log, new())
    Path(path).rename(f"{path}.moved")
    with pytest.raises(StoreUnavailable, match="is gone"):
        log.begin(limit_s=0.1)
    assert not Path(path).exists()
    Path(path).mkdir()
    with pytest.raises(StoreUnavailable, match="unable to open"):
        log.begin(limit_s=0.1)
    Path(path).rmdir()
    Path(f"{path}.moved").rename(path)
    log.begin(limit_s=0.1).roll_back("enough")


def test_the_database_is_none_any_more(path, log):
    """What somebody has written over the file is damage, and no weather."""
    log.begin(limit_s=0.1).roll_back("enough")
    for each in (path, f"{path}-wal"):
        Path(each).write_bytes(b"nonsense" * 1000)
    with pytest.raises(LogCorrupt, match="is not an SQLite database"):
        log.begin(limit_s=0.1)


def test_a_level_that_cannot_be_had(path, log):
    """L4: no transaction begins that would be committed less durably than asked, and the lock is free after it."""
    with pytest.raises(StoreUnavailable, match="synchronous should be 9 and reads 1"):
        begin(path, 9, 0.1)
    write(log, new())


# ---------------------------------------------------------------- SQLite rolls back by itself


def test_rolled_back_by_a_statement(path, log):
    """After OR ROLLBACK nothing more is written, by itself and outside of any transaction: the step has failed."""
    write(log, new())
    transaction = log.begin(limit_s=0.1)
    insert(transaction)
    with pytest.raises(sqlite3.IntegrityError):
        transaction.connection.execute("INSERT OR ROLLBACK INTO mine VALUES (1, x'00')")
    for late in (
        lambda: insert(transaction, 2),
        lambda: log.create_within(transaction.connection, new("b")),
        transaction.seal,
    ):
        with pytest.raises(InvalidUse, match=r"rolled the step's transaction back|has no open transaction"):
            late()
    (outcome,) = transaction.commit([turn("a", 1, "X")])
    assert isinstance(outcome, Rejected)
    expect((rows(path), standing(log).position, log.summary("b")), ([], 1, None))


# ---------------------------------------------------------------- commits that fail


def test_no_room_for_the_outcome(path, log):
    """F6: Rejected("full"), and nothing of the step is there."""
    write(log, new())
    transaction = log.begin(limit_s=0.1)
    insert(transaction)
    transaction.connection.execute("PRAGMA max_page_count = 1")  # it reads how many there are
    transaction.seal()
    (outcome,) = transaction.commit([turn("a", 1, records=LARGE)])
    assert isinstance(outcome, Rejected) and outcome.reason.startswith("full: ")
    expect((rows(path), standing(log).position), ([], 1))
    write(log, turn("a", 1, records=LARGE))


@pytest.mark.parametrize("grows", [True, False])
def test_a_commit_that_the_disk_fails(path, log, monkeypatch, grows):
    """F5, I9: an error in the commit is Unknown, its connections are not used again, and reading back decides.

    F6: where the reason is that no file may grow, it is Rejected("full").
    """
    if grows:
        monkeypatch.setattr(sqlite_wal, "_is_full", lambda db, path: False)
    write(log, new())
    transaction = log.begin(limit_s=0.1)
    insert(transaction, payload=b"x" * 5000)
    transaction.seal()
    with files_up_to(Path(f"{path}-wal").stat().st_size):
        (outcome,) = transaction.commit([turn("a", 1, "X")])
    kind, words = (Unknown, "the commit failed: ") if grows else (Rejected, "full: ")
    assert isinstance(outcome, kind) and outcome.reason.startswith(words)
    assert "writer" not in log._connections
    expect((rows(path), standing(log).position), ([], 1))
    write(log, turn("a", 1, "X"))


@contextlib.contextmanager
def files_up_to(size):
    """No file of this process can grow beyond it."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_damaged_log(path, log):
    """L12: damage that the commit meets is told as damage, and nothing of the step is there."""
    write(log, new())
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("DROP TABLE records")
    transaction = log.begin(limit_s=0.1)
    insert(transaction)
    transaction.seal()
    (outcome,) = transaction.commit([turn("a", 1, "X")])
    assert isinstance(outcome, Rejected) and outcome.reason.startswith("damaged: ")
    assert rows(path) == []


# ---------------------------------------------------------------- ends


def test_what_it_makes_due_is_told(log):
    """L10: who waits for work hears of what was committed with a step."""
    write(log, new())
    transaction = log.begin(limit_s=0.1)
    transaction.seal()
    stirs = log._stirs
    expect([type(each) for each in transaction.commit([turn("a", 1, "X", wake=5.0)])], [Ok])
    assert log._stirs > stirs
    expect(claimed(log), ["a"])


def test_closed_while_one_is_open(path, log):
    """A log that is closed takes what a step wrote with it, and the step is told why."""
    transaction = log.begin(limit_s=0.1)
    insert(transaction)
    log.close()
    with pytest.raises(InvalidUse, match="its log was closed"):
        insert(transaction, 2)
    assert rows(path) == []


def test_closed_while_one_waits_for_its_turn(path):
    """It does not begin on a log that is closed, where nobody would end it, and nobody else could write."""
    log = sqlite.open(f"sqlite:{path}", busy_s=5.0)
    log.begin(limit_s=5.0)
    told = []

    def come():
        with pytest.raises(StoreFailed, match="is closed; open it again") as caught:
            log.begin(limit_s=5.0)
        told.append(caught.value)

    waiting = threading.Thread(target=come)
    waiting.start()
    until(lambda: log._line._waiting)
    log.close()
    waiting.join()
    assert told
    with contextlib.closing(sqlite3.connect(path, timeout=0)) as db:
        db.execute("BEGIN IMMEDIATE")


# ---------------------------------------------------------------- the line


def test_a_turn_that_comes_too_late_is_taken_all_the_same(monkeypatch):
    """Whoever gets the turn at the moment at which its patience ends has it: else nobody would let the next one in."""
    queue = line.Line()
    assert queue.enter(0)

    class Late(threading.Event):
        def wait(self, timeout=None):
            assert not super().wait(timeout)
            queue.leave()
            return False

    with monkeypatch.context() as patched:
        patched.setattr(threading, "Event", Late)
        assert queue.enter(0.01)
    assert not queue.enter(0)
    queue.leave()
    assert queue.enter(0)


@pytest.mark.parametrize("late", [False, True])
def test_an_interruption_in_the_line_keeps_nobody_out(monkeypatch, late):
    """F27: who is interrupted while it waits is in nobody's way, even if its turn has come at that moment."""
    queue = line.Line()
    assert queue.enter(0)

    class Interrupted(threading.Event):
        def wait(self, timeout=None):
            if late:
                queue.leave()
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(threading, "Event", Interrupted)
        queue.enter(1)
    if not late:
        assert not queue.enter(0)
        queue.leave()
    assert queue.enter(0)


def test_impatient_ones_get_in_each_others_way_nowhere():
    """One at a time, whoever gives up; and in the end the line is empty."""
    queue, inside, most = line.Line(), [], []

    def come_and_go(n):
        for k in range(200):
            if queue.enter(0 if (n + k) % 3 else 0.001):
                inside.append(n)
                most.append(len(inside))
                inside.pop()
                queue.leave()

    threads = [threading.Thread(target=come_and_go, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert queue.enter(0)
