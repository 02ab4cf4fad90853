"""`zart.transaction()`: what a step writes, and its outcome, in one commit."""

import contextlib
import sqlite3
import threading

import attrs
import pytest

import zart_core as zart
from tests.engines import Keyless, Ledger, until
from tests.one_step import flow_of, run
from zart_core.hosts import transactions
from zart_core.hosts.engine import AsyncEngine
from zart_core.hosts.ports import open_log
from zart_core.log import Rejected, Turn, Unknown
from zart_core.testing.relay import Relay
from zart_stores.sql.sqlite_transaction import OWN_TABLES


class Bank:
    """A log with accounts beside it."""

    def __init__(self, path):
        self.path = str(path / "bank.db")
        self.url = f"sqlite:{self.path}"
        zart.open_log(self.url).close()
        with contextlib.closing(sqlite3.connect(self.path)) as db:
            db.execute("CREATE TABLE accounts (name TEXT PRIMARY KEY, cents INTEGER NOT NULL)")
            db.execute("INSERT INTO accounts VALUES ('alice', 100), ('bob', 0)")
            db.commit()

    def balance(self, name="alice"):
        with contextlib.closing(sqlite3.connect(self.path)) as db:
            ((cents,),) = db.execute("SELECT cents FROM accounts WHERE name = ?", (name,)).fetchall()
            return cents


@pytest.fixture
def bank(tmp_path):
    return Bank(tmp_path)


def debit_by(cents, name="alice"):
    """Take it from an account in the step's transaction."""
    db = zart.transaction(sqlite3.Connection)
    db.execute("UPDATE accounts SET cents = cents - ? WHERE name = ?", (cents, name))
    return db


@zart.step("debit-{cents}")
def debit(cents: int) -> int:
    debit_by(cents)
    return cents


@zart.workflow("pay")
def pay(cents: int) -> zart.Flow[int]:
    paid = yield from debit(cents)
    return paid


def test_committed_with_the_outcome(bank):
    """What the step wrote is there with its outcome, and the next step sees it."""
    with zart.open(bank.url, [pay]) as engine:
        assert engine.run(pay, 30, id="p") == 30
        kinds = [type(event).__name__ for event in engine.get("p").history()]
    assert kinds == ["Started", "Issued", "Began", "Resolved", "Closed"]
    assert bank.balance() == 70


def test_not_there_before_the_outcome(bank):
    """While the step runs nobody else sees what it wrote."""

    def watched() -> int:
        debit_by(30)
        return bank.balance()

    assert run(bank, watched) == "100"
    assert bank.balance() == 70


def test_a_step_that_raises_is_rolled_back(bank):
    """Its failure is recorded apart, and a retry has a transaction of its own."""
    tries = Ledger()

    def failing() -> int:
        debit_by(30)
        if tries("try") < 3:
            raise ValueError("no")
        return bank.balance()

    assert run(bank, failing, retry=zart.Retry.fixed(2, 0)) == "100"
    assert bank.balance() == 70
    assert tries.entries == ["try"] * 3


def test_a_result_that_cannot_be_encoded_rolls_back(bank):
    """A failure of the step is a failure, whatever made it one (F20)."""

    def odd() -> int:
        debit_by(30)
        return "thirty"  # type: ignore[return-value]

    assert "cannot be written down" in run(bank, odd)
    assert bank.balance() == 100


def test_a_step_that_times_out_is_rolled_back(bank):
    """It is rolled back while its thread still runs, which can write nothing any more."""
    released, told = threading.Event(), []

    def slow() -> int:
        db = debit_by(30)
        released.wait()
        try:
            db.execute("UPDATE accounts SET cents = 0")
        except zart.InvalidUse as error:
            told.append(str(error))
        return 1

    try:
        assert "timed out" in run(bank, slow, timeout=0.5, timeout_scope=zart.TimeoutScope.PER_ATTEMPT)
        assert bank.balance() == 100
    finally:
        released.set()
    until(lambda: told)
    assert "timed out" in told[0]
    assert bank.balance() == 100


def test_a_global_timeout_rolls_back(bank):
    """The same for a timeout over all attempts, which the turn enforces."""
    released = threading.Event()

    def slow() -> int:
        debit_by(30)
        released.wait()
        return 1

    try:
        assert "timed out" in run(bank, slow, timeout=0.05)
        assert bank.balance() == 100
    finally:
        released.set()


def test_cancelled_in_the_middle(bank):
    """A step that does not end within its grace is rolled back."""
    released, begun = threading.Event(), threading.Event()

    def slow() -> int:
        debit_by(30)
        begun.set()
        released.wait()
        return 1

    flow = flow_of(slow, cancel_grace=0.05)
    try:
        with zart.open(bank.url, [flow]) as engine:
            handle = engine.start(flow)
            begun.wait()
            handle.cancel("enough")
            with pytest.raises(zart.ExecutionCancelled):
                handle.result("10s")
    finally:
        released.set()
    assert bank.balance() == 100


def test_the_limit(bank):
    """A step that uses its transaction for too long is rolled back, and told how to ask for more."""

    def slow() -> int:
        db = zart.transaction(sqlite3.Connection, limit=0.05)
        db.execute("UPDATE accounts SET cents = 0")
        while True:
            db.execute("SELECT 1")

    assert "longer than 0.05 s" in run(bank, slow)
    assert bank.balance() == 100


def test_the_limit_in_a_long_statement(bank):
    """A statement under way is interrupted."""

    def slow() -> int:
        db = zart.transaction(sqlite3.Connection, limit=0.05)
        db.execute("UPDATE accounts SET cents = 0")
        db.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
        ).fetchall()
        return 1

    assert "longer than 0.05 s" in run(bank, slow)
    assert bank.balance() == 100


def test_the_limit_of_a_step_that_sleeps(bank):
    """A step that holds the lock and does nothing lets others write; when it returns, it has failed."""
    rolled_back = threading.Event()

    def asleep() -> int:
        zart.transaction(limit=0.05).execute("UPDATE accounts SET cents = 0")
        rolled_back.wait()
        return 1

    flow = flow_of(asleep)
    with zart.open(bank.url, [flow, pay]) as engine:
        handle = engine.start(flow)
        assert engine.run(pay, 30) == 30
        rolled_back.set()
        assert "longer than 0.05 s" in handle.result("10s")
    assert bank.balance() == 70


def test_a_limit_that_cannot_be_granted(bank):
    """More than others wait for the lock is refused."""

    def greedy() -> int:
        zart.transaction(limit="1h")
        return 1

    assert "ask for no more than that" in run(bank, greedy)


@pytest.mark.parametrize(
    ("what", "told"),
    [
        (lambda db: db.commit(), "ends with its step"),
        (lambda db: db.rollback(), "ends with its step"),
        (lambda db: db.close(), "ends with its step"),
        (lambda db: db.execute("COMMIT"), "ends with its step"),
        (lambda db: db.execute("ROLLBACK"), "ends with its step"),
        (lambda db: db.cursor().execute("END"), "ends with its step"),
        (lambda db: sqlite3.Cursor(db).execute("COMMIT"), "not authorized"),
        (lambda db: db.executescript("SELECT 1"), "ends with its step"),
        (lambda db: db.cursor().executescript("SELECT 1"), "executescript commits"),
        (lambda db: db.__enter__(), "ends with its step"),
        (lambda db: setattr(db, "isolation_level", None), "ends with its step"),
        (lambda db: db.execute("ATTACH ':memory:' AS other"), "one commit holds one database"),
        (lambda db: db.execute("DELETE FROM records"), "the log's own"),
        (lambda db: db.execute("ALTER TABLE records RENAME TO mine"), "the log's own"),
        (lambda db: db.execute("ALTER TABLE Executions ADD COLUMN mine"), "the log's own"),
        (lambda db: db.execute("DROP INDEX executions_due"), "the log's own"),
        (
            lambda db: db.execute("CREATE TRIGGER t AFTER INSERT ON records BEGIN SELECT 1; END"),
            "the log's own",
        ),
        (
            lambda db: db.execute("CREATE TEMP TRIGGER t AFTER INSERT ON records BEGIN SELECT 1; END"),
            "the log's own",
        ),
        (lambda db: db.execute("PRAGMA user_version = 7"), "the log's own"),
        (lambda db: db.execute("PRAGMA main.User_Version = 7"), "the log's own"),
        (lambda db: db.execute("PRAGMA query_only = 1"), "the log's own"),
        (lambda db: db.set_authorizer(None), "ends with its step"),
        (lambda db: db.cursor(sqlite3.Cursor), "cursors of its own"),
    ],
)
def test_what_a_step_may_not_do(bank, what, told):
    """Nothing that would end the transaction, or harm the log; when it is let pass, everything is rolled back."""

    def wrong() -> int:
        what(debit_by(30))
        return 1

    assert told in run(bank, wrong)
    assert bank.balance() == 100


def test_what_a_step_may_do(bank):
    """Savepoints, scripts of its own, rows of any kind, tables: it is an sqlite3.Connection."""

    def busy() -> int:
        db = debit_by(30)
        assert zart.transaction() is db
        db.row_factory = sqlite3.Row
        db.text_factory = bytes
        db.execute("SAVEPOINT s")
        db.execute("UPDATE accounts SET cents = 0")
        db.execute("ROLLBACK TO s")
        db.execute("RELEASE s")
        db.execute("CREATE TABLE note (text)")
        db.execute("ALTER TABLE note RENAME TO notes")
        db.execute("CREATE INDEX notes_by_text ON notes (text)")
        db.execute("CREATE TRIGGER quiet AFTER UPDATE ON notes BEGIN SELECT 1; END")
        db.execute("DROP INDEX notes_by_text")
        db.executemany("INSERT INTO notes VALUES (?)", [("a",), ("b",), ("c",), ("d",)])
        notes = db.execute("SELECT text FROM notes ORDER BY text")
        assert (notes.fetchone()[0], [len(notes.fetchmany()), len(notes.fetchmany(2))]) == (b"a", [1, 2])
        with pytest.raises(
            sqlite3.OperationalError, match="no such table"
        ):  # the driver's own errors are its own
            db.execute("SELECT 1 FROM nowhere")
        return next(db.execute("SELECT cents FROM accounts WHERE name = 'alice'"))["cents"]

    assert run(bank, busy) == "70"
    assert bank.balance() == 70


def test_temporary_tables_of_the_logs_names(bank):
    """The log writes in its own tables, though SQLite finds temporary ones first (L4)."""

    def busy() -> int:
        db = debit_by(30)
        for own in OWN_TABLES - {"sqlite_master"}:
            db.execute(f"CREATE TEMP TABLE {own} AS SELECT * FROM main.{own}")
        return 1

    flow = flow_of(busy)
    with zart.open(bank.url, [flow]) as engine:
        assert engine.run(flow, id="p") == "1"
        kinds = [type(event).__name__ for event in engine.get("p").history()]
    assert kinds == ["Started", "Issued", "Began", "Resolved", "Closed"]
    assert bank.balance() == 70


def test_used_after_its_step(bank):
    """The connection is good while its step runs, no longer."""
    kept = []

    def keeping() -> int:
        kept.append(debit_by(30))
        kept.append(kept[0].cursor())
        return 1

    assert run(bank, keeping) == "1"
    for use in (lambda: kept[0].execute("SELECT 1"), lambda: kept[1].execute("SELECT 1"), kept[0].commit):
        with pytest.raises(zart.InvalidUse, match="cannot be used any more: its step has ended"):
            use()


def test_a_constraint_that_is_checked_at_the_end(bank):
    """A commit that the user's own constraint forbids parks the execution, with its reason; nothing is written."""
    with contextlib.closing(sqlite3.connect(bank.path)) as db:
        db.execute("CREATE TABLE notes (name REFERENCES accounts (name) DEFERRABLE INITIALLY DEFERRED)")

    def wrong() -> int:
        debit_by(30).execute("INSERT INTO notes VALUES ('nobody')")
        return 1

    flow = flow_of(wrong)
    with zart.open(bank.url, [flow]) as engine, pytest.raises(zart.Defect, match="FOREIGN KEY"):
        engine.run(flow)
    assert bank.balance() == 100


def test_where_there_is_none(bank):
    """Outside of steps, in workflows, in async steps and in other hosts: each is told what to do."""
    with pytest.raises(zart.InvalidUse, match="is for steps"):
        zart.transaction()

    async def in_a_loop() -> int:
        zart.transaction()
        return 1

    def sync() -> int:
        zart.transaction()
        return 1

    assert "this is an async step" in run(bank, in_a_loop)
    assert "another host" in zart.run_inline(flow_of(sync))
    with zart.open("memory:", [flow := flow_of(sync)]) as engine:
        assert "has no transactions to share" in engine.run(flow)

    def wrong_kind() -> int:
        zart.transaction(threading.Event)
        return 1

    assert "is a Guarded, not a Event" in run(bank, wrong_kind)


def test_starting_another_within_a_step(bank):
    """A step may start an execution in its transaction: both or neither."""
    tries = Ledger()
    box = []

    def starting() -> int:
        db = debit_by(30)
        handle = box[0].start(pay, 20, id="other", connection=db)
        if tries("try") == 1:
            raise ValueError("not yet")
        return int(handle.created)

    flow = flow_of(starting, retry=zart.Retry.fixed(1, 0))
    with zart.open(bank.url, [flow, pay]) as engine:
        box.append(engine)
        assert engine.run(flow) == "1"
        assert engine.get("other").result("10s") == 20
    assert bank.balance() == 50


@zart.workflow("many")
def many(count: int) -> zart.Flow[int]:
    paid = yield from zart.wait([debit(cents) for cents in range(1, count + 1)])
    return sum(paid)


def test_many_in_one_execution(bank):
    """Steps beside each other: each turn holds one of their outcomes, and every one is there once."""
    with zart.open(bank.url, [many]) as engine:
        assert engine.run(many, 12) == 78
    assert bank.balance() == 22


def test_another_step_that_ends_while_it_is_open(bank):
    """Its turn waits for the lock, and the outcome of the one with the lock waits for that turn: the turn gives way."""
    began, ended = threading.Event(), threading.Event()
    debits = Ledger()

    @zart.step("debit")
    def held() -> int:
        debits("debit")
        debit_by(30)
        began.set()
        assert ended.wait(20)
        return 30

    @zart.step("beside")
    def beside() -> int:
        assert began.wait(20)
        return 1

    @zart.workflow("both")
    def both() -> zart.Flow[int]:
        return sum((yield from zart.wait([held(), beside()])))

    with zart.open(bank.url, [both]) as engine:
        handle = engine.start(both, id="b")
        live = engine.engine.live
        until(lambda: "b" in live and live["b"].writing and len(live["b"].calls) == 1)
        ended.set()
        assert handle.result(60) == 31
    assert (bank.balance(), debits.entries) == (70, ["debit"])


def test_many_executions_beside_others(bank):
    """Transactions in a row do not starve what else is to be written."""

    @zart.step("plain-{n}")
    def plain(n: int) -> int:
        return n

    @zart.workflow("plain")
    def plains() -> zart.Flow[int]:
        for n in range(10):
            yield from plain(n)
        return 10

    with zart.open(bank.url, [many, plains, pay]) as engine:
        handles = [engine.start(pay, 1, id=f"p{n}") for n in range(20)]
        handles.append(engine.start(plains))
        assert [handle.result("60s") for handle in handles] == [1] * 20 + [10]
    assert bank.balance() == 80


# ---------------------------------------------------------------- weather


class Weather(Relay):
    """A log whose transactions end as they are told to."""

    def __init__(self, log):
        super().__init__(log)
        self.forecast = []
        self.begun = 0

    def create_within(self, connection, new):
        return self.log.create_within(connection, new)

    def begin(self, *, limit_s):
        self.begun += 1
        if self.forecast[:1] == ["cannot begin"]:
            self.forecast.pop(0)
            raise zart.StoreUnavailable("not now")
        return Clouded(self, self.log.begin(limit_s=limit_s))


class Clouded:
    def __init__(self, log, real):
        self.log = log
        self.real = real
        self.connection = real.connection

    def seal(self):
        self.real.seal()

    def roll_back(self, why):
        self.real.roll_back(why)

    def is_weather(self, error):
        return "deadlock" in str(error)

    def commit(self, batch):
        match self.log.forecast.pop(0) if self.log.forecast else "fine":
            case "fine":
                return self.real.commit(batch)
            case "written":
                self.real.commit(batch)
                return [Unknown("the connection was lost")] * len(batch)
            case "lost":
                self.real.roll_back("the connection was lost")
                return [Unknown("the connection was lost")] * len(batch)
            case "refused":
                self.real.roll_back("no")
                return [Rejected("unavailable: no")] * len(batch)
            case "failed":
                self.real.roll_back("no")
                raise zart.StoreFailed("the disk said no")
            case "broken":
                self.real.roll_back("no")
                raise OSError("what is this?")


@pytest.fixture
def cloudy(bank):
    log = Weather(open_log(bank.url))
    with contextlib.closing(log):
        yield log


@pytest.mark.parametrize(
    ("forecast", "begun"),
    [
        (["written"], 1),
        (["lost"], 2),
        (["refused"], 2),
        (["broken"], 2),
        (["cannot begin"], 2),
        (["lost", "cannot begin", "refused", "lost", "written"], 5),
    ],
)
def test_moved_once_in_any_weather(bank, cloudy, forecast, begun):
    """Whatever the commit comes to, the step's writes and its outcome are there together, once."""
    cloudy.forecast = list(forecast)
    with zart.open(cloudy, [pay]) as engine:
        assert engine.run(pay, 30, id="p") == 30
        resolved = [event for event in engine.get("p").history() if isinstance(event, zart.Resolved)]
    assert len(resolved) == 1
    assert bank.balance() == 70
    assert cloudy.begun == begun


def test_a_store_that_fails(bank, cloudy):
    """A store that cannot be used any more ends the engine; the next one goes on, and moves it once."""
    cloudy.forecast = ["failed"]
    with zart.open(cloudy, [pay]) as engine, pytest.raises(zart.StoreFailed):
        engine.run(pay, 30, id="p")
    assert bank.balance() == 100
    cloudy.close()
    with zart.open(bank.url, [pay]) as engine:
        assert engine.run(pay, 30, id="p") == 30
    assert bank.balance() == 70


def test_weather_in_the_middle_of_a_step(bank, cloudy):
    """An error that the store knows as weather is no failure of the step: it runs again, for a while."""
    tries = Ledger()

    def unlucky() -> int:
        debit_by(30)
        if tries("try") <= 3:
            raise OSError("deadlock detected")
        return 1

    flow = flow_of(unlucky)
    with zart.open(cloudy, [flow]) as engine:
        assert engine.run(flow) == "1"
    assert bank.balance() == 70


def test_weather_without_end(bank, cloudy, monkeypatch):
    """After a number of tries it is the step's failure."""
    monkeypatch.setattr(transactions, "TRIES_MAX", 2)

    def unlucky() -> int:
        debit_by(30)
        raise OSError("deadlock detected")

    flow = flow_of(unlucky)
    with zart.open(cloudy, [flow]) as engine:
        assert "deadlock" in engine.run(flow)
    assert cloudy.begun == 3
    assert bank.balance() == 100


def test_weather_counts_in_a_row(bank, cloudy, monkeypatch):
    """A step that met the weather and came through has all its tries again in the next run; nothing is kept of it."""
    monkeypatch.setattr(transactions, "TRIES_MAX", 1)
    tries = Ledger()

    @zart.step("unlucky")
    def unlucky(n: int) -> int:
        debit_by(10)
        if tries(n) == 1:
            raise OSError("deadlock detected")
        return n

    @zart.workflow("again-and-again")
    def again_and_again(n: int) -> zart.Flow[int]:
        yield from unlucky(n)
        if n < 3:
            yield from again_and_again.continue_as_new(n + 1)
        return n

    with zart.open(cloudy, [again_and_again]) as engine:
        assert engine.run(again_and_again, 0) == 3
        assert engine.engine.transactions.tries == {}
    assert bank.balance() == 60


def test_a_commit_that_does_not_pass_is_waited_for(bank, cloudy, monkeypatch):
    """The longer, the more often it was refused in a row, though the turn that begins the step again passes."""
    pauses, pause = [], AsyncEngine.pause

    async def noted(self, duration_s):
        pauses.append(duration_s)
        await pause(self, duration_s)

    monkeypatch.setattr(AsyncEngine, "pause", noted)
    cloudy.forecast = ["refused"] * 3
    with zart.open(cloudy, [pay]) as engine:
        assert engine.run(pay, 30, id="p") == 30
    assert [found for found in pauses if found in (0.04, 0.08, 0.16, 0.32)] == [0.08, 0.16, 0.32]
    assert bank.balance() == 70


def test_at_most_once(bank, cloudy):
    """A step that may run once is lost when its commit was: nothing of it is there."""
    cloudy.forecast = ["lost"]

    def once() -> int:
        debit_by(30)
        return 1

    flow = flow_of(once, at_most_once=True)
    with zart.open(cloudy, [flow]) as engine:
        assert "may run at most once, and its transaction came to nothing" in engine.run(flow)
    assert bank.balance() == 100


@pytest.mark.parametrize("once", [False, True])
def test_a_turn_that_cannot_be_sealed(bank, once, caplog):
    """It is rolled back while the key is out of reach, and made again; or lost, where it may run once only (R10)."""
    ledger, seal = Ledger(), Keyless(b":Resolved:", times=2)

    def debiting() -> int:
        ledger("debit")
        debit_by(30)
        return 30

    flow = flow_of(debiting, at_most_once=once)
    with zart.open(bank.url, [flow], codec=zart.Codec(seal=seal)) as engine:
        said = engine.start(flow).result(10)
    assert seal.times == 0
    assert [record.args[1] for record in caplog.records if "is read back" in record.msg] == [2, 3]
    if once:
        assert "came to nothing" in said
        assert (ledger.entries, bank.balance()) == (["debit"], 100)
    else:
        assert (said, ledger.entries, bank.balance()) == ("30", ["debit"] * 3, 70)


def test_a_worker_that_lost_its_execution(bank):
    """A fence that has moved on refuses the outcome and what the step wrote; the new holder's counts (F15)."""

    def step() -> int:
        debit_by(30)
        return 1

    flow = flow_of(step)
    log = Thief(open_log(bank.url))
    with contextlib.closing(log), zart.open(log, [flow]) as engine:
        assert engine.run(flow) == "1"
    assert log.refused == ["stale"]
    assert bank.balance() == 70


class Thief(Relay):
    """A log in which the execution was in other hands before, to the first turn that a transaction commits."""

    def __init__(self, log):
        super().__init__(log)
        self.refused = []

    def create_within(self, connection, new):
        return self.log.create_within(connection, new)

    def begin(self, *, limit_s):
        return Robbed(self, self.log.begin(limit_s=limit_s))


class Robbed(Clouded):
    def commit(self, batch):
        if not self.log.refused:
            (turn,) = (write for write in batch if isinstance(write, Turn))
            batch = [attrs.evolve(turn, fence=turn.fence - 1)]
        outcomes = self.real.commit(batch)
        self.log.refused += [
            outcome.reason.split(":")[0] for outcome in outcomes if isinstance(outcome, Rejected)
        ]
        return outcomes


class Threadless:
    """An executor that has no thread for the first calls of some methods of a transaction."""

    def __init__(self, executor, *names):
        self.executor = executor
        self.names = list(names)

    def submit(self, fn, *args):
        if getattr(fn, "__name__", "") in self.names:
            self.names.remove(fn.__name__)
            raise RuntimeError("can't start new thread")
        return self.executor.submit(fn, *args)

    def shutdown(self):
        self.executor.shutdown()


def test_no_thread_to_commit_in(bank, monkeypatch):
    """It waits for one, and holds up others meanwhile, but not for ever."""
    monkeypatch.setattr(transactions, "NO_THREAD_S", 0.01)
    with zart.open(bank.url, [pay]) as engine:
        engine.engine.readers = scarce = Threadless(engine.engine.readers, "commit", "commit")
        assert engine.start(pay, 30, id="p").result(20) == 30
    assert (scarce.names, bank.balance()) == ([], 70)


def test_no_thread_to_roll_back_in(bank, monkeypatch):
    """The same for one that nobody wants any more: the turn that says so waits for its lock, and not for its limit."""
    monkeypatch.setattr(transactions, "NO_THREAD_S", 0.01)
    released, told = threading.Event(), []

    def slow() -> int:
        db = zart.transaction(limit=9)
        released.wait()
        with pytest.raises(zart.InvalidUse) as caught:
            db.execute("UPDATE accounts SET cents = 0")
        told.append(str(caught.value))
        return 1

    try:
        with zart.open(bank.url, [flow := flow_of(slow, timeout=0.05)]) as engine:
            engine.engine.readers = scarce = Threadless(engine.engine.readers, "end", "end")
            assert "timed out" in engine.start(flow).result(20)
            assert scarce.names == []
    finally:
        released.set()
    until(lambda: told)
    assert "nobody waits for its step any more" in told[0]


# ---------------------------------------------------------------- closing


def test_returned_to_a_run_that_is_over(bank, monkeypatch):
    """What it wrote is rolled back, and nothing of it is kept."""
    end = transactions.Transactions.end
    released = threading.Event()

    def end_late(self, attempt):
        """The step returns while the turn is built that has no use for it, and is rolled back after that."""
        if not released.is_set():
            released.set()
            until(attempt.future.done)
        end(self, attempt)

    monkeypatch.setattr(transactions.Transactions, "end", end_late)
    monkeypatch.setattr(transactions, "NO_THREAD_S", 0.2)

    def held() -> int:
        debit_by(30)
        assert released.wait(20)
        return 30

    with zart.open(bank.url, [flow := flow_of(held, timeout=0.2)]) as engine:
        engine.engine.readers = scarce = Threadless(engine.engine.readers, "end")
        assert "timed out" in engine.run(flow)
        assert engine.engine.transactions.pending == {}
    assert (scarce.names, bank.balance()) == ([], 100)


def test_closed_while_a_step_writes(bank):
    """An engine that closes rolls back what runs; the next one runs the step again, and no crash is counted."""
    begun, released = threading.Event(), threading.Event()

    def slow() -> int:
        debit_by(30)
        begun.set()
        released.wait(0 if released.is_set() else None)
        return 1

    flow = flow_of(slow)
    try:
        with zart.open(bank.url, [flow]) as engine:
            engine.start(flow, id="p")
            begun.wait()
        assert bank.balance() == 100
    finally:
        released.set()
    with zart.open(bank.url, [flow]) as engine:
        assert engine.run(flow, id="p") == "1"
        assert [event.takeover for event in engine.get("p").history() if isinstance(event, zart.Began)] == [
            None,
            None,
        ]
    assert bank.balance() == 70


def goes_on_writing(db, closing):
    """It is interrupted."""
    while True:
        db.execute("SELECT 1").fetchall()


def returns_late(db, closing):
    """What it wrote was rolled back before it returned."""
    until(lambda: closing() and db.gate.why)


def asks_again(db, closing):
    """It bears that it has lost its transaction, and is given no other."""
    with contextlib.suppress(zart.InvalidUse):
        goes_on_writing(db, closing)
    zart.transaction()


@pytest.mark.parametrize("late", [goes_on_writing, returns_late, asks_again])
def test_ended_while_its_engine_closes(bank, late):
    """It neither fails nor has a result for that, however it ends: it runs again with the next engine, at no crash."""
    begun = threading.Event()

    def slow() -> int:
        db = debit_by(30)
        if not begun.is_set():
            begun.set()
            late(db, lambda: engine.engine.closing)
        return 1

    flow = flow_of(slow)
    with zart.open(bank.url, [flow]) as engine:
        engine.start(flow, id="p")
        begun.wait()
    assert bank.balance() == 100
    with zart.open(bank.url, [flow]) as engine:
        assert engine.run(flow, id="p") == "1"
        assert [event.takeover for event in engine.get("p").history() if isinstance(event, zart.Began)] == [
            None,
            None,
        ]
    assert bank.balance() == 70


def test_returned_just_before_its_engine_rolls_back(bank, monkeypatch):
    """What it returned is not kept, as what it wrote is not: it runs again."""
    seal, begun = transactions.Lent.seal, threading.Event()

    def seal_early(self):
        """The step has returned, and nobody has heard of it yet."""
        seal(self)
        if not begun.is_set():
            begun.set()
            until(lambda: self.transaction is None)

    monkeypatch.setattr(transactions.Lent, "seal", seal_early)
    with zart.open(bank.url, [pay]) as engine:
        engine.start(pay, 30, id="p")
        begun.wait()
    assert bank.balance() == 100
    with zart.open(bank.url, [pay]) as engine:
        assert engine.run(pay, 30, id="p") == 30
    assert bank.balance() == 70


def test_ended_while_the_turn_that_ends_it_is_refused(bank):
    """What it came to is of no account: it is read back, and the next turn ends it."""
    refused = threading.Event()

    class Refusing(Weather):
        """A log that refuses the first turn that ends a step."""

        def append(self, batch):
            if not refused.is_set() and any(
                isinstance(write, Turn) and write.position > 1 for write in batch
            ):
                refused.set()
                return [Rejected("unavailable: no")] * len(batch)
            return self.log.append(batch)

    def slow() -> int:
        with contextlib.suppress(zart.InvalidUse):
            goes_on_writing(debit_by(30), None)
        until(lambda: refused.is_set() and not live["p"].run.ends)
        return 1

    flow, log = flow_of(slow, timeout=0.2), Refusing(open_log(bank.url))
    with contextlib.closing(log), zart.open(log, [flow]) as engine:
        live = engine.engine.live
        assert "timed out" in engine.start(flow, id="p").result(20)
    assert refused.is_set()
    assert bank.balance() == 100


def test_closed_while_a_turn_is_about_to_commit(bank):
    """A step that has returned is committed when the engine closes."""
    begun, go = threading.Event(), threading.Event()

    def step() -> int:
        debit_by(30)
        begun.set()
        go.wait()
        return 1

    flow = flow_of(step)
    with zart.open(bank.url, [flow]) as engine:
        engine.start(flow, id="p")
        begun.wait()
        threading.Timer(0.1, go.set).start()
    with zart.open(bank.url, [flow]) as engine:
        assert engine.run(flow, id="p") == "1"
        count = [type(event).__name__ for event in engine.get("p").history()].count("Began")
    assert bank.balance() == 70
    assert count in (1, 2)


def test_asked_for_after_its_engine_was_closed(bank):
    """A step that still runs then gets none: nobody would commit it, and the log that stays open would be locked."""
    begun, closed, told = threading.Event(), threading.Event(), []

    def late() -> int:
        begun.set()
        closed.wait()
        try:
            debit_by(30)
        except zart.InvalidUse as error:
            told.append(str(error))
        else:
            told.append("it was given one")
        return 1

    log = open_log(bank.url)
    try:
        with zart.open(log, [flow := flow_of(late)]) as engine:
            engine.start(flow, id="p")
            begun.wait()
    finally:
        closed.set()
    until(lambda: told)
    log.close()
    assert "there is no transaction to be had: nobody waits for its step any more" in told[0]
    assert bank.balance() == 100


class Down(Weather):
    """A log that takes no outcome of a step, and that cannot be read back."""

    def __init__(self, log):
        super().__init__(log)
        self.down = threading.Event()

    def append(self, batch):
        if any(isinstance(write, Turn) and write.position for write in batch):
            self.down.set()
            return [Rejected("unavailable: no")] * len(batch)
        return self.log.append(batch)

    def summary(self, id):
        if self.down.is_set():
            raise zart.StoreUnavailable("not now")
        return self.log.summary(id)


def test_closed_while_its_execution_is_read_back(bank):
    """A step that has returned, and that no turn will commit, is rolled back with the engine; its log stays open."""
    log = Down(open_log(bank.url))

    @zart.step("slow")
    def slow() -> int:
        debit_by(30)
        assert log.down.wait(30)
        return 1

    @zart.step("quick")
    def quick() -> int:
        until(lambda: log.begun)
        return 2

    @zart.workflow("both")
    def both() -> zart.Flow[int]:
        return sum((yield from zart.gather(slow(), quick())))

    with contextlib.closing(log):
        with zart.open(log, [both]) as engine:
            engine.start(both, id="p")
            until(lambda: engine.engine.transactions.pending)
        with contextlib.closing(sqlite3.connect(bank.path, timeout=0.1)) as db:
            db.execute("UPDATE accounts SET cents = cents + 1")
            db.commit()
    assert bank.balance() == 101


def test_parked_in_the_middle(bank):
    """Code that no longer fits parks the run; the outcome of the step is kept as a fact, with what it wrote."""
    gate = threading.Event()

    @zart.step("the-step")
    def step() -> int:
        debit_by(30)
        gate.wait()
        return 1

    @zart.workflow("one-step")
    def first() -> zart.Flow[str]:
        yield from step()
        raise_defect()
        return "never"

    def raise_defect():
        raise zart.Defect("this cannot go on")

    @zart.workflow("one-step")
    def mended() -> zart.Flow[str]:
        yield from step()
        return "mended"

    with zart.open(bank.url, [first]) as engine:
        handle = engine.start(first, id="p")
        gate.set()
        with pytest.raises(zart.Defect):
            handle.result("10s")
        assert bank.balance() == 70
        engine.register(mended)
        assert engine.get("p").result("10s") == "mended"
    assert bank.balance() == 70


def test_time_is_not_wasted(bank):
    """A step that asks for no transaction has none: nothing is begun for it."""

    def nothing() -> int:
        return 1

    log = Weather(open_log(bank.url))
    with contextlib.closing(log), zart.open(log, [flow := flow_of(nothing)]) as engine:
        assert engine.run(flow) == "1"
        assert log.begun == 0
