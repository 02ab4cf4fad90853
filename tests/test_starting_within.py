"""`start(connection=)`: an execution in the user's own transaction, both or neither."""

import asyncio
import contextlib
import itertools
import sqlite3
import threading
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg.rows import dict_row

import zart_core as zart
from tests.engines import until
from tests.postgres import running
from zart_core.log import Receipt, Rejected
from zart_core.testing.contract import new, post, turn, write
from zart_stores.sql import postgres, postgres_joining, sqlite_joining
from zart_stores.sql.sqlite_batch import write_changes

NUMBERS = itertools.count()


@zart.step("greet-{name}")
def greet(name: str) -> str:
    return f"hello {name}"


@zart.workflow("greeting")
def greeting(name: str) -> zart.Flow[str]:
    return (yield from greet(name))


@pytest.fixture(scope="module")
def server():
    with running() as started:
        yield started


class Sqlite:
    """A log and connections beside it."""

    mark = "?"
    begun = "BEGIN"
    errors = sqlite3.Error

    def __init__(self, path):
        self.path = str(path / "log.db")
        self.url = f"sqlite:{self.path}"
        zart.open_log(self.url).close()

    def connect(self):
        return sqlite3.connect(self.path)


class Postgres:
    mark = "%s"
    errors = psycopg.Error

    def __init__(self, server):
        self.dsn = server.dsn
        self.schema = f"within{next(NUMBERS)}"
        self.url = server.url(self.schema)
        postgres.open(self.url).close()

    def connect(self):
        return psycopg.connect(self.dsn, options=f"-c search_path={self.schema}")


@pytest.fixture(params=["sqlite", "postgres"])
def place(request, tmp_path):
    if request.param == "sqlite":
        return Sqlite(tmp_path)
    return Postgres(request.getfixturevalue("server"))


@pytest.fixture
def engine(place):
    with contextlib.closing(place.connect()) as db:
        db.execute("CREATE TABLE orders (id text)")
        db.commit()
    with zart.open(place.url, [greeting]) as opened:
        yield opened


@pytest.fixture
def db(place, engine):
    with contextlib.closing(place.connect()) as connection:
        yield connection


def insert(place, db, id):
    db.execute(f"INSERT INTO orders VALUES ({place.mark})", (id,))


def orders(place):
    with contextlib.closing(place.connect()) as db:
        return [id for (id,) in db.execute("SELECT id FROM orders ORDER BY id").fetchall()]


def test_both_are_there_after_the_commit(place, engine, db):
    """The row and the execution come with one commit; not before it, and the engine finds it by itself."""
    insert(place, db, "42")
    handle = engine.start(greeting, "ann", id="order-42", connection=db)

    assert handle.created
    with pytest.raises(zart.UnknownExecution):
        engine.get("order-42")
    assert orders(place) == []

    db.commit()
    assert handle.result("20s") == "hello ann"
    assert orders(place) == ["42"]


def test_neither_is_there_after_a_rollback(place, engine, db):
    """A rollback takes the execution with it; its handle is good for nothing, and its id is free again."""
    insert(place, db, "42")
    handle = engine.start(greeting, "ann", id="order-42", connection=db)
    db.rollback()

    assert orders(place) == []
    with pytest.raises(zart.UnknownExecution):
        handle.status()
    assert engine.start(greeting, "bob", id="order-42").created


def test_a_transaction_that_it_begins_itself(place, engine, db):
    """Where the driver begins transactions by itself, start may come first."""
    handle = engine.start(greeting, "ann", connection=db)
    insert(place, db, "43")
    db.commit()
    assert handle.result("20s") == "hello ann"
    assert orders(place) == ["43"]


def test_the_same_again(place, engine, db):
    """R15 under the user's transaction: the same attaches, anything else is a conflict, and the transaction goes on."""
    engine.run(greeting, "ann", id="old")
    insert(place, db, "44")
    first = engine.start(greeting, "cem", id="new", connection=db)
    again = engine.start(greeting, "cem", id="new", connection=db)
    old = engine.start(greeting, "ann", id="old", connection=db)
    with pytest.raises(zart.ExecutionConflict, match="'old' is taken"):
        engine.start(greeting, "somebody else", id="old", connection=db)
    db.commit()

    assert (first.created, again.created, old.created) == (True, False, False)
    assert again.result("20s") == "hello cem"
    assert orders(place) == ["44"]


def test_started_later(place, engine, db):
    """`at=` goes with it: the execution is there with the commit, and starts in its time."""
    soon = datetime.now(UTC) + timedelta(seconds=0.2)
    handle = engine.start(greeting, "ann", at=soon, connection=db)
    db.commit()
    assert handle.result("20s") == "hello ann"
    (began,) = (event for event in handle.history() if isinstance(event, zart.Began))
    assert began.at >= soon.timestamp()


def test_refused_before_anything_is_written(place, engine, db):
    """An unknown workflow or an input of a wrong type leaves the transaction alone."""

    @zart.workflow("greeting")
    def another(name: str) -> zart.Flow[str]:
        return (yield from greet(name))

    insert(place, db, "45")
    with pytest.raises(zart.UnknownWorkflow):
        engine.start(another, "ann", connection=db)
    with pytest.raises(zart.EncodeError):
        engine.start(greeting, 7, connection=db)
    with pytest.raises(zart.InvalidUse, match="the id is"):
        engine.start(greeting, "ann", id="\n", connection=db)
    db.commit()
    assert orders(place) == ["45"]


@pytest.mark.parametrize("ends", ["commit", "rollback"])
def test_at_one_time_in_two_transactions(place, engine, db, ends):
    """Two that start the same: the second waits for the first, and attaches, or creates it where that rolls back."""
    engine.start(greeting, "ann", id="one", connection=db)
    answers = []

    def second():
        with contextlib.closing(place.connect()) as other:
            answers.append(engine.start(greeting, "ann", id="one", connection=other).created)
            other.commit()

    thread = threading.Thread(target=second)
    thread.start()
    getattr(db, ends)()
    thread.join()
    assert answers == [ends == "rollback"]
    assert engine.get("one").result("20s") == "hello ann"


def test_from_an_async_engine(place):
    """The async face takes the same connections, on its loop."""

    async def main():
        async with zart.serve(place.url, [greeting]) as engine:
            with contextlib.closing(place.connect()) as db:
                handle = await engine.start(greeting, "ann", connection=db)
                db.commit()
                return await handle.result("20s")

    assert asyncio.run(main()) == "hello ann"


@pytest.mark.parametrize("url", ["memory:", "file:{}/log"])
def test_a_store_without_transactions(url, tmp_path):
    """Memory and file have none to share, and say so."""
    with (
        zart.open(url.format(tmp_path), [greeting]) as engine,
        contextlib.closing(sqlite3.connect(":memory:")) as db,
        pytest.raises(
            zart.InvalidUse, match="has no transactions to share; keep the log in SQLite or PostgreSQL"
        ),
    ):
        engine.start(greeting, "ann", connection=db)


def test_an_object_that_is_no_connection(place, engine):
    """Anything else is named, async connections too."""
    with pytest.raises(
        zart.InvalidUse, match=r"connection= is a builtins.str; .* give an? (sqlite3|psycopg)"
    ):
        engine.start(greeting, "ann", connection=place.url)


# ---------------------------------------------------------------- SQLite's own


@pytest.fixture
def sqlite(tmp_path):
    place = Sqlite(tmp_path)
    with contextlib.closing(place.connect()) as db, zart.open(place.url, [greeting]) as engine:
        yield place, engine, db


def test_sqlite_without_a_transaction(sqlite):
    """In autocommit there is nothing to join."""
    _, engine, db = sqlite
    db.isolation_level = None
    with pytest.raises(zart.InvalidUse, match='execute "BEGIN IMMEDIATE" on it first'):
        engine.start(greeting, "ann", connection=db)
    db.execute("BEGIN")
    handle = engine.start(greeting, "ann", connection=db)
    db.execute("COMMIT")
    assert handle.result("20s") == "hello ann"


class Autocommitting(sqlite3.Connection):
    """What `sqlite3.connect(path, autocommit=True)` gives, since Python 3.12: commit() and rollback() do nothing."""

    autocommit = True
    isolation_level = ""

    def commit(self):
        pass


def test_sqlite_in_autocommit(sqlite):
    """A transaction that is begun there is one that the user's commit() does not end: the start would be lost."""
    place, engine, _ = sqlite
    with contextlib.closing(sqlite3.connect(place.path, factory=Autocommitting)) as db:
        with pytest.raises(zart.InvalidUse, match=r'autocommit=True.*execute "BEGIN IMMEDIATE" on it first'):
            engine.start(greeting, "ann", connection=db)
        assert not db.in_transaction
        db.execute("BEGIN IMMEDIATE")
        handle = engine.start(greeting, "ann", connection=db)
        db.execute("COMMIT")
        assert handle.result("20s") == "hello ann"


def test_sqlite_on_another_file(sqlite, tmp_path):
    """A connection to another database is named, and not written to."""
    _, engine, _ = sqlite
    for path in (":memory:", str(tmp_path / "other.db")):
        with contextlib.closing(sqlite3.connect(path)) as other:
            with pytest.raises(zart.InvalidUse, match="is on another database"):
                engine.start(greeting, "ann", connection=other)
            assert not other.in_transaction
            assert other.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)


def test_sqlite_under_another_name(sqlite, tmp_path):
    """The same file by another path is the same database."""
    _, engine, _ = sqlite
    (tmp_path / "elsewhere").symlink_to(tmp_path)
    with contextlib.closing(sqlite3.connect(tmp_path / "elsewhere" / "log.db")) as other:
        handle = engine.start(greeting, "ann", connection=other)
        other.commit()
    assert handle.result("20s") == "hello ann"


def test_sqlite_rows_and_text_of_any_kind(sqlite):
    """Whatever the connection makes of rows and text, the log reads its own; afterwards they are as they were."""
    _, engine, db = sqlite
    db.row_factory = lambda cursor, row: dict(enumerate(row))
    db.text_factory = bytes
    assert engine.start(greeting, "ann", id="one", connection=db).created
    assert not engine.start(greeting, "ann", id="one", connection=db).created
    assert db.text_factory is bytes
    assert db.execute("SELECT 'x'").fetchone() == {0: b"x"}
    db.commit()
    assert engine.get("one").result("20s") == "hello ann"


def test_sqlite_temporary_tables_of_the_logs_names(sqlite):
    """What the user keeps in temporary tables is not in the way, and nothing of the log goes there."""
    _, engine, db = sqlite
    db.execute("CREATE TEMP TABLE records (text)")
    db.execute("CREATE TEMP TABLE executions AS SELECT * FROM main.executions")
    assert engine.start(greeting, "ann", id="one", connection=db).created
    db.commit()
    assert engine.get("one").result("20s") == "hello ann"


def test_sqlite_interrupted(sqlite, monkeypatch):
    """What an interrupt leaves half written is not there when the user commits all the same (L1, F27)."""
    _, engine, db = sqlite

    def interrupted(plain, changes):
        write_changes(plain, changes)
        raise KeyboardInterrupt

    db.execute("CREATE TABLE orders (id text)")
    db.execute("INSERT INTO orders VALUES ('42')")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(sqlite_joining, "write_changes", interrupted)
        engine.start(greeting, "ann", id="one", connection=db)
    db.commit()
    assert db.execute("SELECT count(*) FROM orders").fetchone() == (1,)
    with pytest.raises(zart.UnknownExecution):
        engine.get("one")


def test_sqlite_less_durable_than_the_log(sqlite):
    """A commit that does not wait for the disk is not what the log promises (L4)."""
    place, engine, db = sqlite
    db.execute("PRAGMA synchronous=NORMAL")
    with pytest.raises(zart.InvalidUse, match="PRAGMA synchronous=FULL"):
        engine.start(greeting, "ann", connection=db)
    with zart.open(place.url, [greeting], durability="process") as careless:
        assert careless.start(greeting, "ann", connection=db).created
        db.commit()


def test_sqlite_of_another_thread_or_closed(sqlite):
    """What the driver says of a connection that cannot be used is passed on."""
    _, engine, db = sqlite
    errors = []

    def use():
        with pytest.raises(zart.InvalidUse) as caught:
            engine.start(greeting, "ann", connection=db)
        errors.append(str(caught.value))

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert "thread" in errors[0]
    db.close()
    with pytest.raises(zart.InvalidUse, match="closed"):
        engine.start(greeting, "ann", connection=db)


def test_sqlite_locked_by_another(sqlite):
    """Where another holds the write lock the start is refused; the transaction goes on without it."""
    place, engine, db = sqlite
    with contextlib.closing(sqlite3.connect(place.path, timeout=0)) as mine:
        db.execute("BEGIN IMMEDIATE")
        mine.execute("BEGIN")
        mine.execute("SELECT 1")
        with pytest.raises(zart.StoreUnavailable, match=r"was not created: unavailable: .*locked"):
            engine.start(greeting, "ann", id="one", connection=mine)
        assert mine.in_transaction
        db.rollback()
        mine.rollback()
        assert engine.start(greeting, "ann", id="one", connection=mine).created
        mine.rollback()


def test_sqlite_full(sqlite):
    """A database that may not grow refuses it, says so, and the user's rows before it are not lost unsaid."""
    _, engine, db = sqlite
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    db.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(zart.StoreUnavailable, match="was not created: full"):
        engine.start(greeting, "x" * 100_000, id="big", connection=db)
    db.rollback()
    db.execute("PRAGMA max_page_count=1000000")
    assert engine.start(greeting, "x" * 100_000, id="big", connection=db).created
    db.rollback()


def test_sqlite_locked_where_it_begins_the_transaction(sqlite):
    """A transaction that cannot begin is not begun later: nothing is committed before the user commits (L1)."""
    place, engine, db = sqlite
    with contextlib.closing(sqlite3.connect(place.path, timeout=0)) as mine:
        db.execute("BEGIN IMMEDIATE")
        mine.set_trace_callback(lambda sql: db.rollback() if sql.startswith("SAVEPOINT") else None)
        with pytest.raises(zart.StoreUnavailable, match=r"was not created: unavailable: .*locked$"):
            engine.start(greeting, "ann", id="one", connection=mine)
        assert not mine.in_transaction
        db.rollback()
        with pytest.raises(zart.UnknownExecution):
            engine.get("one")
        assert engine.start(greeting, "ann", id="one", connection=mine).created
        mine.rollback()


def test_sqlite_full_in_a_transaction(sqlite):
    """Where SQLite rolls everything back the message says so: the user's own rows are gone as well."""
    _, engine, db = sqlite
    db.execute("CREATE TABLE orders (id text)")
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    db.execute(f"PRAGMA max_page_count={pages}")
    db.execute("INSERT INTO orders VALUES ('42')")
    with pytest.raises(
        zart.StoreUnavailable, match=r"full: .*; SQLite has rolled your whole transaction back"
    ):
        engine.start(greeting, "x" * 100_000, id="big", connection=db)
    assert not db.in_transaction
    assert db.execute("SELECT count(*) FROM orders").fetchone() == (0,)


def test_sqlite_damaged(tmp_path):
    """Damage is told as damage, and what the user wrote before it can still be committed (L12)."""
    place = Sqlite(tmp_path)
    log = zart.open_log(place.url)
    with contextlib.closing(log), contextlib.closing(place.connect()) as db:
        db.execute("CREATE TABLE orders (id text)")
        db.execute("DROP TABLE records")
        db.execute("INSERT INTO orders VALUES ('42')")
        outcome = log.create_within(db, new("a"))
        assert outcome.reason.startswith("damaged: ") and "no such table" in outcome.reason
        db.commit()
    assert orders(place) == ["42"]


# ---------------------------------------------------------------- PostgreSQL's own


@pytest.fixture
def postgres_place(server):
    place = Postgres(server)
    with contextlib.closing(place.connect()) as db, zart.open(place.url, [greeting]) as engine:
        yield place, engine, db


def test_postgres_states_of_a_connection(postgres_place):
    """No transaction, a failed one, one in the middle of a statement, a closed connection, text of another kind."""
    _, engine, db = postgres_place

    def refused(match):
        with pytest.raises(zart.InvalidUse, match=match):
            engine.start(greeting, "ann", connection=db)

    with pytest.raises(psycopg.errors.DivisionByZero):
        db.execute("SELECT 1/0")
    refused("has failed: roll it back")
    db.rollback()
    db.execute("CREATE TEMPORARY TABLE t (n int)")
    db.commit()
    with db.cursor().copy("COPY t FROM STDIN"):
        refused("in the middle of a statement")
    db.rollback()
    db.execute("SET TRANSACTION READ ONLY")
    refused("cannot write to the log: .*read-only")
    db.rollback()
    db.execute("SET client_encoding = LATIN1")
    refused("in iso8859-1; .* client_encoding=UTF8")
    db.rollback()
    db.autocommit = True
    refused("inside `with connection.transaction")
    with db.transaction():
        handle = engine.start(greeting, "ann", connection=db)
    assert handle.result("20s") == "hello ann"
    db.close()
    refused("is closed")


def test_postgres_another_database(postgres_place, server):
    """A connection to another database of the same server is named, and nothing is left behind."""
    _, engine, _ = postgres_place
    with psycopg.connect(server.dsn, autocommit=True) as admin:
        admin.execute("DROP DATABASE IF EXISTS other")
        admin.execute("CREATE DATABASE other")
    with psycopg.connect(server.dsn, dbname="other") as other:
        with pytest.raises(zart.InvalidUse, match="is to another database than the log"):
            engine.start(greeting, "ann", connection=other)
        assert other.info.transaction_status is psycopg.pq.TransactionStatus.IDLE


def test_postgres_twin_database(postgres_place, server):
    """A log of the same schema in another database is not taken for this one."""
    place, engine, _ = postgres_place
    with psycopg.connect(server.dsn, autocommit=True) as admin:
        admin.execute("DROP DATABASE IF EXISTS twin")
        admin.execute("CREATE DATABASE twin")
    postgres.open(place.url.replace("/postgres?", "/twin?")).close()
    with (
        psycopg.connect(server.dsn, dbname="twin") as other,
        pytest.raises(zart.InvalidUse, match="is to another database than the log"),
    ):
        engine.start(greeting, "ann", connection=other)


def test_postgres_an_async_connection(postgres_place):
    """An async connection cannot be used from here, and the message says so."""
    place, engine, _ = postgres_place

    async def main():
        async with await psycopg.AsyncConnection.connect(place.dsn) as db:
            with pytest.raises(zart.InvalidUse, match=r"AsyncConnection; .*\(not an async one\)"):
                engine.start(greeting, "ann", connection=db)

    asyncio.run(main())


def test_postgres_rows_of_any_kind(postgres_place):
    """Row factories, client-side binding and settings of the user's do not matter to the log."""
    place, engine, _ = postgres_place
    with psycopg.connect(place.dsn, row_factory=dict_row, cursor_factory=psycopg.ClientCursor) as db:
        db.execute("SET extra_float_digits = -15")
        assert engine.start(greeting, "ann", id="one", connection=db).created
        assert not engine.start(greeting, "ann", id="one", connection=db).created
        assert db.execute("SELECT 1 AS n").fetchone() == {"n": 1}
    assert engine.get("one").result("20s") == "hello ann"


def test_postgres_an_id_that_its_snapshot_does_not_show(postgres_place):
    """A transaction that is told what was there when it began is to begin again; it goes on all the same."""
    _, engine, db = postgres_place
    db.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    db.execute("SELECT count(*) FROM pg_class")
    engine.start(greeting, "ann", id="one")
    with pytest.raises(zart.StoreUnavailable, match="'one' was taken after your transaction began, which"):
        engine.start(greeting, "ann", id="one", connection=db)
    assert db.execute("SELECT 1").fetchone() == (1,)
    db.rollback()
    assert not engine.start(greeting, "ann", id="one", connection=db).created


def test_postgres_attaching_holds_nobody_up(server, monkeypatch):
    """What goes on already goes on, and all that is written with it, while the transaction that asked for it lasts."""
    monkeypatch.setattr(postgres, "LOCK_MS", 100)
    place = Postgres(server)
    store = postgres.open(place.url, busy_s=0.2)
    write(store, new("a"), new("b"))
    with contextlib.closing(place.connect()) as db:
        found = store.create_within(db, new("a"))
        write(store, post("a"), post("b"))
    store.close()
    assert found == zart.Ok(Receipt(created=False))


@pytest.mark.parametrize("ends", ["commit", "rollback"])
def test_postgres_what_is_being_created_holds_nobody_else_up(server, ends):
    """Who creates the same is told to try again until the user's transaction has ended; all others are written."""
    place = Postgres(server)
    with contextlib.closing(postgres.open(place.url)) as store:
        write(store, new("a"), new("b"))
        batch = [
            turn("a", 1, "X"),
            new("c"),
            turn("b", 1, "X", creates=[new("x")]),
            new("x"),
            turn("a", 2, "Y", creates=[new("d")]),
            post("a"),
        ]
        with contextlib.closing(place.connect()) as db:
            store.create_within(db, new("x"))
            outcomes = store.append(batch)
            assert [type(each) for each in outcomes] == [
                zart.Ok,
                zart.Ok,
                Rejected,
                Rejected,
                zart.Ok,
                zart.Ok,
            ]
            assert {each.reason.partition(":")[0] for each in outcomes[2:4]} == {"unavailable"}
            assert [len(store.records(id)) for id in ("a", "b", "d")] == [3, 1, 1]
            getattr(db, ends)()
        assert write(store, new("x")).created == (ends == "rollback")
        write(store, batch[2])


def test_postgres_what_a_worker_is_creating_is_waited_for(server, monkeypatch):
    """A commit that takes long is no user's transaction: who creates the same hears what came of it."""
    place = Postgres(server)
    with contextlib.closing(postgres.open(place.url)) as store:
        asked = threading.Event()
        real = postgres.is_somebody_creating
        monkeypatch.setattr(postgres, "is_somebody_creating", lambda *args: asked.set() or real(*args))
        monkeypatch.setattr(postgres, "CREATION_MS", 10)
        monkeypatch.setattr(postgres_joining, "CREATES", "SELECT ?::int")
        outcomes = []
        with contextlib.closing(place.connect()) as db:
            store.create_within(db, new("x"))
            waiting = threading.Thread(target=lambda: outcomes.extend(store.append([new("x"), new("y")])))
            waiting.start()
            assert asked.wait(60)
            db.commit()
            waiting.join()
        assert [each.value.created for each in outcomes] == [False, True]


@pytest.mark.parametrize("ends", ["commit", "rollback"])
def test_postgres_others_go_on_beside_what_is_being_created(server, ends):
    """A worker that starts what a user's open transaction starts, too, runs everything else meanwhile."""
    place = Postgres(server)
    answers = []

    def again():
        while not answers:
            with contextlib.suppress(zart.StoreUnavailable):
                answers.append(engine.start(greeting, "ann", id="x").created)

    with zart.open(place.url, [greeting]) as engine:
        with contextlib.closing(place.connect()) as db:
            assert engine.start(greeting, "ann", id="x", connection=db).created
            starting = threading.Thread(target=again)
            starting.start()
            others = [engine.start(greeting, name, id=name) for name in ("bob", "eve")]
            assert [other.result("60s") for other in others] == ["hello bob", "hello eve"]
            assert not answers
            getattr(db, ends)()
        starting.join()
        assert answers == [ends == "rollback"]
        assert engine.get("x").result("60s") == "hello ann"


def test_postgres_waits_for_the_disk(postgres_place):
    """A transaction that would not wait for the disk does, with an execution in it (L4); the session does not."""
    _, engine, db = postgres_place
    db.execute("SET synchronous_commit = off")
    db.commit()
    engine.start(greeting, "ann", connection=db)
    assert db.execute("SHOW synchronous_commit").fetchone() == ("on",)
    db.commit()
    assert db.execute("SHOW synchronous_commit").fetchone() == ("off",)


def test_postgres_after_a_restart_of_the_server(server, postgres_place):
    """The log knows its database again after a restart."""
    place, engine, db = postgres_place
    engine.start(greeting, "ann", connection=db)
    db.commit()
    server.stop("fast")
    server.start()
    with contextlib.closing(place.connect()) as again:
        handle = until(lambda: started_again(engine, again))
        again.commit()
        assert handle.result("30s") == "hello bob"


def started_again(engine, db):
    try:
        return engine.start(greeting, "bob", connection=db)
    except zart.StoreUnavailable:
        return None


def test_nothing_is_owned(place):
    """At the store: what is created within a transaction belongs to nobody, and is due once that is committed."""
    log = zart.open_log(place.url)
    with contextlib.closing(log), contextlib.closing(place.connect()) as db:
        log.create_within(db, new("a"))
        assert log.summary("a") is None
        db.commit()
        assert [found.id for found in log.claim("w", now=1e9, lease_s=30, limit=9)] == ["a"]
