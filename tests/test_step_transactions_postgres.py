"""`zart.transaction()` on PostgreSQL: what a step writes, and its outcome, in one commit."""

import contextlib
import itertools
import os
import shutil
import signal
import tempfile
import threading
from pathlib import Path

import psycopg
import pytest
from psycopg.rows import dict_row

import zart_core as zart
from tests.engines import Ledger, until
from tests.one_step import flow_of, run
from tests.postgres import running
from tests.postgres_proxy import Proxy
from zart_core.testing.contract import new, turn, write
from zart_stores.sql import postgres, postgres_transaction

NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def server():
    with running() as started:
        yield started


class Bank:
    """A log with accounts beside it."""

    def __init__(self, server):
        self.server = server
        self.schema = f"bank{next(NUMBERS)}"
        self.url = server.url(self.schema)
        postgres.open(self.url).close()
        with psycopg.connect(server.dsn, autocommit=True) as db:
            db.execute(f"CREATE TABLE {self.schema}.accounts (name text PRIMARY KEY, cents int NOT NULL)")
            db.execute(f"INSERT INTO {self.schema}.accounts VALUES ('alice', 100), ('bob', 0)")

    def balance(self, name="alice"):
        with psycopg.connect(self.server.dsn, autocommit=True) as db:
            query = f"SELECT cents FROM {self.schema}.accounts WHERE name = %s"
            ((cents,),) = db.execute(query, (name,)).fetchall()
            return cents

    def debit(self, cents):
        """Take it from an account in the step's transaction."""
        db = zart.transaction(psycopg.Connection)
        db.execute(f"UPDATE {self.schema}.accounts SET cents = cents - %s WHERE name = 'alice'", (cents,))
        return db


@pytest.fixture
def bank(server):
    return Bank(server)


def test_committed_with_the_outcome(bank):
    """While the step runs nobody else sees what it writes; with its outcome it is there."""

    def watched() -> int:
        bank.debit(30)
        return bank.balance()

    assert run(bank, watched) == "100"
    assert bank.balance() == 70


def test_a_step_that_raises_is_rolled_back(bank):
    """Its failure is recorded apart, and a retry has a transaction of its own."""
    tries = Ledger()

    def failing() -> int:
        bank.debit(30)
        if tries("try") < 3:
            raise ValueError("no")
        return bank.balance()

    assert run(bank, failing, retry=zart.Retry.fixed(2, 0)) == "100"
    assert bank.balance() == 70


def test_a_step_that_times_out_is_rolled_back(bank):
    """It is rolled back while its thread still runs, which can write nothing any more."""
    released, told = threading.Event(), []

    def slow() -> int:
        db = bank.debit(30)
        with pytest.raises(zart.InvalidUse) as caught, db.transaction():
            released.wait()
        told.append(str(caught.value))
        return 1

    try:
        with zart.open(bank.url, [flow := flow_of(slow, timeout=0.05)]) as engine:
            assert "timed out" in engine.run(flow)
            until(lambda: unlocked(bank))
            released.set()
            until(lambda: told)
    finally:
        released.set()
    assert "cannot be used any more" in told[0]
    assert bank.balance() == 100


def unlocked(bank):
    """Whether nobody holds the account any more."""
    with psycopg.connect(bank.server.dsn, autocommit=True) as db:
        query = f"SELECT 1 FROM {bank.schema}.accounts WHERE name = 'alice' FOR UPDATE SKIP LOCKED"
        return db.execute(query).fetchone() is not None


def test_cancelled_in_the_middle(bank):
    """A step that does not end within its grace is rolled back, in the middle of a statement."""
    begun = threading.Event()

    def slow() -> int:
        db = bank.debit(30)
        begun.set()
        db.execute("SELECT pg_sleep(100)")
        return 1

    flow = flow_of(slow, cancel_grace=0.05)
    with zart.open(bank.url, [flow]) as engine:
        handle = engine.start(flow)
        begun.wait()
        handle.cancel("enough")
        with pytest.raises(zart.ExecutionCancelled):
            handle.result("10s")
        until(lambda: unlocked(bank))
    assert bank.balance() == 100


def test_the_limit(bank):
    """A step that uses its transaction for too long is interrupted and rolled back."""

    def slow() -> int:
        db = zart.transaction(psycopg.Connection, limit=0.05)
        db.execute("SELECT pg_sleep(100)")
        return 1

    def asleep() -> int:
        bank.debit(30)
        zart.transaction(limit=9)
        until(lambda: False, 0.0)
        return 1

    assert "longer than 0.05 s" in run(bank, slow)
    assert "it did not come to be" in run(bank, asleep)
    assert bank.balance() == 100


def test_the_limit_of_a_server_that_does_not_answer(bank, monkeypatch):
    """The step hears that its time is over though no server does: its connection is cut (F24)."""
    monkeypatch.setattr(postgres_transaction.PostgresTransaction, "INTERRUPT_S", 0.01)
    stopped = []

    def slow() -> int:
        db = zart.transaction(psycopg.Connection, limit=0.05)
        stopped.append(db.info.backend_pid)
        os.kill(stopped[0], signal.SIGSTOP)
        db.execute("SELECT 1")
        return 1

    with zart.open(bank.url, [flow := flow_of(slow)]) as engine:
        handle = engine.start(flow)
        try:
            assert "longer than 0.05 s" in handle.result("30s")
        finally:
            os.kill(stopped[0], signal.SIGCONT)


LEFT = []


def left_open(db):
    """Rows that come one by one, and that nobody has read to the end."""
    LEFT.append(db.cursor().stream("SELECT generate_series(1, 100000)"))
    return LEFT[-1]


@pytest.mark.parametrize(
    ("what", "told"),
    [
        (lambda db: db.commit(), "ends with its step"),
        (lambda db: db.rollback(), "ends with its step"),
        (lambda db: db.close(), "ends with its step"),
        (lambda db: db.execute("/* so */ COMMIT"), "ends with its step"),
        (lambda db: db.execute(b"rollback work"), "ends with its step"),
        (lambda db: db.cursor().execute("END"), "ends with its step"),
        (lambda db: db.__enter__(), "ends with its step"),
        (lambda db: setattr(db, "autocommit", True), "ends with its step"),
        (lambda db: db.execute("SELECT 1; ROLLBACK"), "the step ended its transaction itself"),
        (lambda db: psycopg.Cursor(db).execute("ROLLBACK"), "the step ended its transaction itself"),
        (lambda db: db.execute("SET TRANSACTION READ ONLY"), "made its transaction read-only"),
        (lambda db: next(left_open(db)), "left a statement (a COPY, a stream) in the middle"),
    ],
)
def test_what_a_step_may_not_do(bank, what, told):
    """Nothing that would end the transaction; when it is let pass, everything is rolled back."""

    def wrong() -> int:
        what(bank.debit(30))
        return 1

    assert told in run(bank, wrong)
    assert bank.balance() == 100


def test_what_a_step_may_do(bank):
    """Savepoints, isolation, rows of any kind, COPY: it is a psycopg.Connection."""

    def busy() -> int:
        db = zart.transaction(psycopg.Connection)
        db.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
        bank.debit(30)
        with contextlib.suppress(psycopg.errors.DivisionByZero), db.transaction():
            bank.debit(30)
            db.execute("SELECT 1/0")
        db.execute("SAVEPOINT s")
        db.execute("ROLLBACK TO SAVEPOINT s")
        db.execute("CREATE TEMPORARY TABLE notes (text text) ON COMMIT DROP")
        with db.cursor().copy("COPY notes FROM STDIN") as copy:
            copy.write_row(("a",))
        rows = db.cursor(row_factory=dict_row).execute("SELECT text FROM notes").fetchall()
        assert rows == [{"text": "a"}]
        with db.cursor("named") as named:
            named.execute("SELECT generate_series(1, 3)")
            return sum(n for (n,) in named)

    assert run(bank, busy) == "6"
    assert bank.balance() == 70


def test_what_begins_with_comments(bank):
    """Any number of them is read through at once, and what comes behind is seen."""
    comments = "/* a */ -- b\n/**/" * 1000

    def commented() -> int:
        db = zart.transaction(psycopg.Connection)
        with pytest.raises(zart.InvalidUse):
            db.execute(f"{comments} COMMIT")
        ((n,),) = db.execute(f"{comments} SELECT 1").fetchall()
        return n

    assert run(bank, commented) == "1"


def test_settings_of_a_step_end_with_it(bank):
    """Its role has no rights on the log, and a tenant's search path is not the next one's."""
    with psycopg.connect(bank.server.dsn, autocommit=True) as db:
        db.execute(f"CREATE ROLE tenant_{bank.schema}")
        db.execute(f"GRANT USAGE ON SCHEMA {bank.schema} TO tenant_{bank.schema}")
        db.execute(f"GRANT ALL ON {bank.schema}.accounts TO tenant_{bank.schema}")

    def settled() -> str:
        db = zart.transaction(psycopg.Connection)
        ((path, role),) = db.execute("SELECT current_setting('search_path'), current_user::text").fetchall()
        db.execute("SET search_path = tenant")
        db.execute(f"SET ROLE tenant_{bank.schema}")
        bank.debit(30)
        return f"{path} {role}"

    with zart.open(bank.url, [flow := flow_of(settled)]) as engine:
        assert [engine.run(flow, timeout="60s") for _ in range(2)] == ['"$user", public postgres'] * 2
    assert bank.balance() == 40


@pytest.mark.parametrize("where", ["step", "commit"])
def test_who_stands_still_in_one_hinders_nobody(bank, monkeypatch, where):
    """The server lets go of what a stopped process has locked, in its step and in its commit (F24)."""
    monkeypatch.setattr(postgres, "STANDSTILL_MS", 200)
    monkeypatch.setattr(postgres_transaction, "LEFT_ALONE_MS", 200)
    stopped, goes_on, outcomes = threading.Event(), threading.Event(), []
    write_changes = postgres_transaction.write_changes

    def standing_still(*args):
        stopped.set()
        goes_on.wait(60)
        write_changes(*args)

    monkeypatch.setattr(postgres_transaction, "write_changes", standing_still)
    one, other = (postgres.open(bank.url, busy_s=30.0) for _ in range(2))
    write(other, new("a"))
    begun = one.begin(limit_s=0.05 if where == "step" else 60.0)
    begun._timer.cancel()  # it is the process that stands still
    query = f"UPDATE {bank.schema}.accounts SET cents = 0 WHERE name = 'alice'"
    begun.connection.execute(query)
    committing = threading.Thread(target=lambda: outcomes.extend(begun.commit([turn("a", 1, "slow")])))
    if where == "commit":
        begun.seal()
        committing.start()
        assert stopped.wait(60)
        write(other, turn("a", 1, "quick"))
    until(lambda: unlocked(bank))
    goes_on.set()
    if where == "step":
        committing.start()
    committing.join()
    one.close()
    other.close()
    assert [type(outcome) for outcome in outcomes] != [zart.Ok]
    assert bank.balance() == 100


def test_a_failed_statement_that_the_step_passes_over(bank):
    """A transaction that has failed cannot record anything: the step is told, and has failed."""

    def careless() -> int:
        db = bank.debit(30)
        with contextlib.suppress(psycopg.errors.DivisionByZero):
            db.execute("SELECT 1/0")
        return 1

    assert "and the step went on" in run(bank, careless)
    assert bank.balance() == 100


def test_a_constraint_that_is_checked_at_the_end(bank):
    """A deferred constraint fails the step, not the commit."""
    with psycopg.connect(bank.server.dsn, autocommit=True) as db:
        db.execute(
            f"CREATE TABLE {bank.schema}.notes (name text REFERENCES {bank.schema}.accounts "
            "DEFERRABLE INITIALLY DEFERRED)"
        )

    def wrong() -> int:
        bank.debit(30).execute(f"INSERT INTO {bank.schema}.notes VALUES ('nobody')")
        return 1

    assert "ForeignKeyViolation" in run(bank, wrong)
    assert bank.balance() == 100


def test_used_after_its_step(bank):
    """The connection is good while its step runs, no longer; the server's is used by the next one."""
    kept, pids = [], []

    @zart.step("step-{n}")
    def keeping(n: int) -> int:
        db = bank.debit(10)
        kept.append(db)
        pids.append(db.info.backend_pid)
        return n

    @zart.workflow("two")
    def two() -> zart.Flow[int]:
        yield from keeping(1)
        with pytest.raises(zart.InvalidUse, match="cannot be used any more: its step has ended"):
            kept[0].execute("SELECT 1")
        return (yield from keeping(2))

    with zart.open(bank.url, [two]) as engine:
        assert engine.run(two) == 2
        with pytest.raises(zart.InvalidUse, match="cannot be used any more"):
            kept[1].commit()
    assert pids[0] == pids[1]
    assert bank.balance() == 80


def test_many_beside_each_other(bank):
    """Steps of one execution on the same row: each turn holds one outcome, and every one is there once."""

    @zart.step("debit-{n}")
    def debit(n: int) -> int:
        bank.debit(n)
        return n

    @zart.workflow("many")
    def many() -> zart.Flow[int]:
        return sum((yield from zart.wait([debit(n) for n in range(1, 13)])))

    with zart.open(bank.url, [many]) as engine:
        assert engine.run(many) == 78
    assert bank.balance() == 22


@pytest.mark.parametrize(
    "when", ["before its pool is made", "before it has a connection", "before it begins"]
)
def test_one_that_begins_while_its_log_is_closed(bank, monkeypatch, when):
    """It does not begin, it is told why, and nothing of it stays open."""
    log = postgres.open(bank.url)
    pool = log._step_pool()

    class Slow:
        putconn = pool.putconn

        def getconn(self, timeout):
            if when == "before it has a connection":
                log.close()
            db = pool.getconn(timeout=timeout)
            log.close()
            return db

    if when == "before its pool is made":
        log._steps = None
        pool.close()
        monkeypatch.setattr(log, "_refuse_if_unusable", log.close)
    else:
        log._steps = pool
        monkeypatch.setattr(log, "_step_pool", Slow)
    with pytest.raises(zart.StoreFailed, match="is closed; open it again"):
        log.begin(limit_s=5.0)
    pool.close()
    assert not log._transactions


def test_one_that_returned_in_vain_hinders_nobody_behind_it(bank):
    """Three have returned; the first one's turn makes the second one unwanted: the third is committed all the same."""
    begun, let_go = threading.Barrier(4), threading.Event()
    attempts = {}

    def written(name, *, after):
        begun.wait(20)
        zart.transaction().execute(f"INSERT INTO {bank.schema}.accounts VALUES (%s, 1)", (name,))
        until(lambda: all(name in attempts and attempts[name].future.done() for name in after))
        return name

    @zart.step()
    def winner() -> str:
        return written("winner", after=[])

    @zart.step(cancel_grace=0)
    def loser() -> str:
        return written("loser", after=["winner"])

    @zart.step()
    def last() -> str:
        return written("last", after=["winner", "loser"])

    @zart.workflow()
    def three() -> zart.Flow[str]:
        task = yield from zart.schedule(last())
        _, won = yield from zart.race(winner(), loser())
        (own,) = yield from zart.wait([task])
        return f"{won}, {own}"

    with zart.open(bank.url, [three]) as engine:
        handle = engine.start(three, id="x")
        live = engine.engine.live
        until(lambda: "x" in live and len(live["x"].calls) == 3)
        engine.loop.call_soon_threadsafe(let_go.wait)  # so that all of them return before a turn is built
        try:
            attempts |= {attempt.call.context.step: attempt for attempt in live["x"].calls.values()}
            begun.wait(20)
            until(lambda: all(attempt.future.done() for attempt in attempts.values()))
        finally:
            let_go.set()
        assert handle.result("60s") == "winner, last"
    with psycopg.connect(bank.server.dsn) as db:
        found = db.execute(
            f"SELECT name FROM {bank.schema}.accounts WHERE cents = 1 ORDER BY name"
        ).fetchall()
    assert found == [("last",), ("winner",)]


def test_serialization_failures_are_tried_again(bank):
    """Steps that hinder each other run again; what they do adds up (F17)."""

    @zart.step("add-{n}")
    def add(n: int) -> int:
        db = zart.transaction(psycopg.Connection)
        db.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
        ((cents,),) = db.execute(f"SELECT cents FROM {bank.schema}.accounts WHERE name = 'bob'").fetchall()
        db.execute(f"UPDATE {bank.schema}.accounts SET cents = %s WHERE name = 'bob'", (cents + n,))
        return n

    @zart.workflow("adding")
    def adding(n: int) -> zart.Flow[int]:
        return (yield from add(n))

    with zart.open(bank.url, [adding]) as engine:
        handles = [engine.start(adding, n) for n in range(1, 5)]
        assert [handle.result("60s") for handle in handles] == [1, 2, 3, 4]
    assert bank.balance("bob") == 10


def test_a_connection_that_is_lost_in_the_step(bank):
    """A server that ends the connection is weather: the step runs again."""
    tries = Ledger()

    def unlucky() -> int:
        db = bank.debit(30)
        if tries("try") == 1:
            with psycopg.connect(bank.server.dsn, autocommit=True) as killer:
                killer.execute("SELECT pg_terminate_backend(%s)", (db.info.backend_pid,))
            db.execute("SELECT 1")
        return 1

    assert run(bank, unlucky) == "1"
    assert tries.entries == ["try", "try"]
    assert bank.balance() == 70


def test_a_connection_that_is_lost_at_the_end(bank):
    """The same when the step does not notice it."""
    tries = Ledger()

    def unlucky() -> int:
        db = bank.debit(30)
        if tries("try") == 1:
            with psycopg.connect(bank.server.dsn, autocommit=True) as killer:
                killer.execute("SELECT pg_terminate_backend(%s)", (db.info.backend_pid,))
        return 1

    assert run(bank, unlucky) == "1"
    assert bank.balance() == 70


@pytest.fixture
def proxy(server):
    place = Path(tempfile.mkdtemp(prefix="zart-proxy-", dir="/tmp"))
    somebody = Proxy(place, server.root)
    yield somebody
    somebody.close()
    shutil.rmtree(place)


def commits_of(bank, proxy, fates):
    """Two debits and a step between through the proxy; gives how many COMMITs there were, and how often steps ran."""
    ran = Ledger()

    @zart.step("debit-{n}")
    def debit(n: int) -> int:
        ran(n)
        bank.debit(n)
        return n

    @zart.step("plain")
    def plain() -> int:
        return ran("plain")

    @zart.workflow("paying")
    def paying() -> zart.Flow[int]:
        first = yield from debit(10)
        yield from plain()
        return first + (yield from debit(20))

    url = bank.url.replace(f"host={bank.server.root}", f"host={proxy.directory}")
    with zart.open(url, [paying]) as engine:
        proxy.plan = {proxy.commits + n: fate for n, fate in fates.items()}
        before = proxy.commits
        assert engine.run(paying, id="p") == 30
        count = proxy.commits - before
        history = engine.get("p").history()
    assert [type(event).__name__ for event in history].count("Resolved") == 3
    return count, ran.entries


@pytest.mark.parametrize("fate", ["drop", "swallow"])
def test_every_commit_lost(server, proxy, fate):
    """Dropped on its way, or its answer swallowed, at every commit: the balance moves once (F16)."""
    count, ran = commits_of(Bank(server), proxy, {})
    assert ran == [10, "plain", 20]
    cut = proxy.cut
    for index in range(min(count, 12)):
        bank = Bank(server)
        commits_of(bank, proxy, {index: fate})
        assert bank.balance() == 70, f"commit {index}"
    assert proxy.cut - cut >= 4
