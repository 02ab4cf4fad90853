"""The PostgreSQL log behind a pooler that hands connections over after each transaction (`prepare=no`)."""

import shutil
import tempfile
from pathlib import Path

import psycopg
import pytest

import zart_core as zart
from tests.engines import Ledger, until
from tests.one_step import flow_of
from tests.postgres import running
from tests.postgres_pooler import Pooler
from zart_core.cli.app import main
from zart_core.errors import StoreUnavailable
from zart_core.testing.contract import StoreContract
from zart_stores.sql import postgres
from zart_stores.sql.postgres_server import address_of

TABLES = ("executions", "records", "ended_runs", "messages", "message_keys", "workers")


@pytest.fixture(scope="module")
def server():
    with running() as started:
        yield started


@pytest.fixture(scope="module")
def pooler(server):
    """A pooler in a short path: a socket's name has a limit."""
    directory = Path(tempfile.mkdtemp(prefix="zart-pb-", dir="/tmp"))
    between = Pooler(directory, server.root)
    between.directory = directory
    yield between
    between.close()
    shutil.rmtree(directory)


@pytest.fixture
def url(server, pooler):
    """A log behind the pooler, emptied."""
    found = server.url("pooled").replace(str(server.root), str(pooler.directory)) + "&prepare=no"
    postgres.open(found).close()
    with psycopg.connect(server.dsn, autocommit=True) as db:
        db.execute(";".join(f"DELETE FROM pooled.{table}" for table in TABLES))
    return found


class TestContractBehindAPooler(StoreContract):
    """All of it, but that who waits is told of news: notifications do not come through."""

    test_wait = test_wait_misses_nothing = test_two_at_once = None

    @pytest.fixture(autouse=True)
    def place(self, url):
        self.url, self.now = url, 1000.0

    def open(self):
        return postgres.open(self.url, clock=lambda: self.now)

    def advance(self, seconds):
        self.now += seconds


@zart.step("greet-{name}")
def greet(name: str) -> str:
    GREETED(name)
    return f"hello {name}"


GREETED = Ledger()


@zart.workflow("greeting")
def greeting(name: str) -> zart.Flow[str]:
    said = yield from greet(name)
    word = yield from zart.wait_for_event("word", str)
    return f"{said}, {word}"


def test_each_transaction_may_have_another_connection(url, pooler):
    """Executions beside each other, more than there are connections, each from its start to its end."""
    before = pooler.transactions
    names = [f"n{k}" for k in range(20)]
    with zart.open(url, [greeting]) as engine:
        handles = [engine.start(greeting, name) for name in names]
        for handle in handles:
            handle.send("word", "and welcome")
        assert [handle.result(60) for handle in handles] == [f"hello {name}, and welcome" for name in names]
    assert sorted(GREETED.entries) == sorted(names)
    assert pooler.transactions - before > 40


def test_what_others_write_is_found_by_asking(url):
    """No notification comes, and the event of another process is taken all the same."""
    with zart.open(url, [greeting]) as worker, zart.open(url, []) as other:
        handle = worker.start(greeting, "ann", id="g")
        until(lambda: handle.status() is zart.Status.WAITING)
        other.send("g", "word", "and welcome")
        assert handle.result(60) == "hello ann, and welcome"


def test_what_a_step_writes_goes_with_its_outcome(server, url):
    """Its transaction is one connection's from begin to commit."""
    with psycopg.connect(server.dsn, autocommit=True) as db:
        db.execute("DROP TABLE IF EXISTS pooled_accounts; CREATE TABLE pooled_accounts (cents int)")
        db.execute("INSERT INTO pooled_accounts VALUES (100)")

        def debit() -> int:
            zart.transaction(psycopg.Connection).execute("UPDATE pooled_accounts SET cents = cents - 30")
            return 30

        with zart.open(url, [flow := flow_of(debit)]) as engine:
            assert engine.run(flow) == "30"
        assert db.execute("SELECT cents FROM pooled_accounts").fetchall() == [(70,)]


def test_started_in_a_transaction_of_the_user(url):
    """It is there when that is committed, and not before; not when it is rolled back."""
    target = address_of(url).conninfo
    with zart.open(url, [greeting]) as engine, psycopg.connect(target, prepare_threshold=None) as db:
        for id in ("lost", "kept"):
            engine.start(greeting, "ann", id=id, connection=db)
            assert engine.list().items == []
            db.rollback() if id == "lost" else db.commit()
        assert [summary.id for summary in engine.list().items] == ["kept"]


def test_prepared_statements_are_told_apart_from_weather(url):
    """What a user sees who has forgotten prepare=no says what to write."""
    with pytest.raises(StoreUnavailable, match="add &prepare=no to the URL"):
        for _ in range(20):
            postgres.open(url.replace("&prepare=no", "")).close()


def test_doctor_sees_it(url, capsys):
    """The settings of a transaction, and that somebody stands in between."""
    assert main(["doctor", "--store", url]) == 0
    assert "pooler yes" in capsys.readouterr().out
