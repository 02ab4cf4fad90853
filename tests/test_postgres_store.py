"""The PostgreSQL log: the contract, and what is its own."""

import contextlib
import gc
import itertools
import os
import random
import re
import shutil
import tempfile
import threading
import warnings
from functools import partial
from pathlib import Path

import attrs
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.engines import until
from tests.postgres import running
from tests.postgres_proxy import Proxy
from zart_core.cli.app import main
from zart_core.errors import (
    FormatTooNew,
    InvalidUse,
    LogCorrupt,
    StoreFailed,
    StoreLocked,
    StoreUnavailable,
)
from zart_core.events import Ok, Status
from zart_core.log import Examinable, Mark, Rejected, Unknown
from zart_core.testing.contract import (
    LEASE_S,
    StoreContract,
    claimed,
    new,
    post,
    records,
    refused,
    standing,
    together,
    turn,
    write,
)
from zart_stores.sql import postgres
from zart_stores.sql.postgres_memo import Memo
from zart_stores.sql.postgres_server import FORMAT, MIGRATIONS, address_of, migrate, version

NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def server():
    with running() as started:
        yield started


TABLES = ("executions", "records", "ended_runs", "messages", "message_keys", "workers")


@pytest.fixture(scope="module")
def emptied(server):
    """A schema that is used again and again, and a way to empty it."""
    postgres.open(server.url("again")).close()

    def empty():
        with psycopg.connect(server.dsn, autocommit=True) as db:
            db.execute(";".join(f"DELETE FROM again.{table}" for table in TABLES))

    return empty


@pytest.fixture
def schema(server):
    """A schema that a test has for itself, without tables."""
    name = f"s{next(NUMBERS)}"
    yield name
    with psycopg.connect(server.dsn, autocommit=True) as db:
        db.execute(f'DROP SCHEMA IF EXISTS "{name}" CASCADE')


class TestPostgresContract(StoreContract):
    @pytest.fixture(autouse=True)
    def place(self, server, emptied):
        emptied()
        self.url = server.url("again")
        self.now = 1000.0

    def open(self):
        return postgres.open(self.url, clock=lambda: self.now)

    def advance(self, seconds):
        self.now += seconds

    def test_interrupted(self):
        """As in the contract; the garbage collector closes what an interrupt took from the pool, and warns."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            super().test_interrupted()
            gc.collect()


# ---------------------------------------------------------------- opening


@pytest.fixture
def log(server, emptied):
    emptied()
    store = postgres.open(server.url("again"))
    yield store
    store.close()


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("postgresql:orders", "write postgresql://"),
        ("postgresql://me:secret@h/d?schema=Weird-One", "at most 40 lower-case letters"),
        ("postgresql://me:secret@h/d?prefix=a;drop", "at most 40 lower-case letters"),
        ("postgresql://me:secret@h/d?prepare=maybe", "yes or no"),
        ("postgresql://me:secret@h/d?no_such=1", "parameters of libpq"),
    ],
)
def test_a_url_that_cannot_be_read_is_refused_without_its_password(url, why):
    """The edge says what is wrong and what to write; no message carries a password."""
    with pytest.raises(InvalidUse, match=re.escape(why)) as refused:
        postgres.open(url)
    assert "secret" not in str(refused.value)


def test_a_url_is_read_as_libpq_reads_it():
    """A plus is a plus, in a password too; what is quoted is what it stands for."""
    query = "password=a+b%2Bc%20d&options=-c%20x%3Dy"
    assert conninfo_to_dict(address_of(f"postgresql://h/d?{query}&schema=s").conninfo) == conninfo_to_dict(
        f"postgresql://h/d?{query}"
    )


def test_a_server_that_is_not_there_is_weather_without_the_password(tmp_path):
    """StoreUnavailable; the password of the URL is not in it."""
    with pytest.raises(StoreUnavailable) as refused:
        postgres.open(f"postgresql://me:secret@/d?host={tmp_path}")
    assert "secret" not in str(refused.value)


def test_durability_is_power_or_process(server):
    """What is neither is refused; `process` does not wait for the disk."""
    with pytest.raises(InvalidUse, match="durability"):
        postgres.open(server.url("again"), durability="none")
    store = postgres.open(server.url("again"), durability="process")
    assert store.level == "process"
    store.close()


def test_a_server_that_does_not_sync_is_refused():
    """fsync=off is no level power (L4); it may be asked for by name."""
    with running("fsync=off", "full_page_writes=off") as careless:
        with pytest.raises(StoreUnavailable, match="fsync and full_page_writes off"):
            postgres.open(careless.url("zart"))
        store = postgres.open(careless.url("zart"), durability="process")
        store.close()


def test_a_server_that_does_not_wait_is_asked_to(server, emptied):
    """synchronous_commit=off in the database: each transaction turns it on for itself (L4)."""
    emptied()
    with psycopg.connect(server.dsn, autocommit=True) as db:
        db.execute("ALTER DATABASE postgres SET synchronous_commit = off")
        try:
            store = postgres.open(server.url("again"))
            seen = []

            def look(action):
                def looked(db):
                    seen.append(db.execute("SHOW synchronous_commit").fetchone()[0])
                    return action(db)

                return looked

            transaction = store._transaction
            store._transaction = lambda action: transaction(look(action))
            write(store, new("a"))
            store.close()
        finally:
            db.execute("ALTER DATABASE postgres RESET synchronous_commit")
    assert set(seen) == {"on"}


def test_two_logs_in_one_schema_keep_apart_by_prefix(server, schema):
    """Tables, notifications and executions of one prefix are none of the other's."""
    one, other = (postgres.open(f"{server.url(schema)}&prefix={prefix}") for prefix in ("a_", "b_"))
    write(one, new("x"))
    assert (standing(one, "x").id, other.summary("x")) == ("x", None)
    assert not other.wait(0.05)
    one.close()
    other.close()


def test_the_longest_names_are_heard(server):
    """Schema and prefix of forty letters each: what is written there is notified, and heard."""
    schema, prefix = "s" * 40, "p" * 40
    stores = [postgres.open(f"{server.url(schema)}&prefix={prefix}") for _ in range(2)]
    write(stores[0], new("a"))
    heard = stores[1].wait(30.0)
    for store in stores:
        store.close()
    assert heard


def test_a_role_that_owns_only_its_schema_is_enough(server, schema):
    """It makes its tables there and works; it may make no schema."""
    with psycopg.connect(server.dsn, autocommit=True) as db:
        db.execute(f'CREATE ROLE "{schema}_role" LOGIN')
        db.execute(f'CREATE SCHEMA "{schema}" AUTHORIZATION "{schema}_role"')
    url = server.url(schema).replace("user=postgres", f"user={schema}_role")
    store = postgres.open(url)
    write(store, new("a"))
    assert [each.id for each in store.claim("w", now=5.0, lease_s=9.0, limit=9)] == ["a"]
    store.close()
    with psycopg.connect(server.dsn, autocommit=True) as db:
        db.execute(f'DROP SCHEMA "{schema}" CASCADE')
        db.execute(f'DROP ROLE "{schema}_role"')


# ---------------------------------------------------------------- migrations


def test_migrations_are_made_once_and_in_one_transaction(server, schema):
    """Nothing of a migration that fails is left; the versions before it stay (F26)."""
    address = address_of(server.url(schema))
    broken = (*MIGRATIONS, ("CREATE TABLE {t}more (n int)", "CREATE TABLE {t}more (n int)"))
    with psycopg.connect(server.dsn, autocommit=True) as db:
        assert version(db, address) == 0
        with pytest.raises(psycopg.errors.DuplicateTable):
            migrate(db, address, broken)
        assert version(db, address) == 0
        assert migrate(db, address) == (0, FORMAT)
        assert migrate(db, address) == (FORMAT, FORMAT)
        with pytest.raises(psycopg.errors.DuplicateTable):
            migrate(db, address, broken)
        assert version(db, address) == FORMAT
        assert db.execute(f"SELECT to_regclass('{schema}.more')").fetchone() == (None,)
        assert migrate(db, address, (*MIGRATIONS, ("CREATE TABLE {t}more (n int)",))) == (FORMAT, FORMAT + 1)
        with pytest.raises(
            FormatTooNew, match=f"version {FORMAT + 1}; this zart reads versions up to {FORMAT}"
        ):
            migrate(db, address)
    with pytest.raises(FormatTooNew):
        postgres.open(server.url(schema))


def test_what_was_written_before_names_to_claim_by_is_read_and_claimed_after_the_migration(server, schema):
    """Tables of version 1, with what is in them, become those of version 2; prefixes too (F26)."""
    url = f"{server.url(schema)}&prefix=p_"
    address = address_of(url)
    log = postgres.open(url)
    write(log, new(), post(), new("b", owner="w1", wake=5.0), new("c", workflow="v"))
    write(log, turn("a", 1, "X", at=3.0, opens=records("Started", at=3.0), wake=1.0))
    before = [(log.summary(id), log.records(id), log.inbox(id)) for id in "abc"]
    log.release("w1")
    log.close()
    with psycopg.connect(server.dsn, autocommit=True) as db:
        db.execute(f"ALTER TABLE {schema}.p_executions DROP COLUMN claimed_as")
        for statement in MIGRATIONS[0]:
            if "executions_free" in statement or "executions_held" in statement:
                db.execute(address.sql(statement.replace("{p}", "p_")))
        db.execute(f"DELETE FROM {schema}.p_migrations WHERE version = 2")
    with pytest.raises(
        StoreUnavailable, match="its tables have version 1, and this zart wants 2; run: zart db migrate"
    ):
        postgres.open(url)
    assert postgres.migrations(url, dry=False) == (1, 2)
    with contextlib.closing(postgres.open(url)) as log:
        assert [(log.summary(id), log.records(id), log.inbox(id)) for id in "ac"] == [before[0], before[2]]
        assert log.claim("w2", now=9.0, lease_s=30.0, limit=9, workflows=["v"])[0].id == "c"
        assert {each.id for each in log.claim("w2", now=9.0, lease_s=30.0, limit=9, workflows=["w"])} == {
            "a",
            "b",
        }
        log.verify()


@pytest.mark.parametrize("table", ["migrations (id int)", "messages (id int)", "executions_due (id int)"])
def test_tables_of_somebody_else_are_told_apart(server, schema, table):
    """Where a schema has tables of these names already the log takes another, and leaves nothing there."""
    with psycopg.connect(server.dsn, autocommit=True) as db:
        db.execute(f"CREATE SCHEMA {schema}")
        db.execute(f"CREATE TABLE {schema}.{table}")
        for act in (postgres.open, lambda url: postgres.migrations(url, dry=False)):
            with pytest.raises(InvalidUse, match="somebody else's; give the log a schema of its own"):
                act(server.url(schema))
        found = db.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", (schema,)).fetchall()
    assert found == [(table.split()[0],)]
    postgres.open(f"{server.url(schema)}&prefix=own_").close()


STRICT = "&options=-c%20default_transaction_isolation%3Dserializable"
"""For a role or server whose transactions are serializable unless they say otherwise."""


@pytest.mark.parametrize("settings", ["", STRICT])
def test_many_who_open_a_new_schema_make_its_tables_once(server, schema, settings):
    """The migration is under a lock, and sees what was made while it waited for it."""
    logs = together([lambda: postgres.open(server.url(schema) + settings)] * 4)
    assert standing(logs[0], write(logs[1], new("a")) and "a").id == "a"
    for each in logs:
        each.close()


def test_logs_of_other_prefixes_make_a_new_schema_together(server, schema):
    """Who makes the schema is waited for by those, too, who want other tables in it."""
    logs = together([partial(postgres.open, f"{server.url(schema)}&prefix=p{n}_") for n in range(4)])
    assert [write(each, new("a")).created for each in logs] == [True] * 4
    for each in logs:
        each.close()


# ---------------------------------------------------------------- weather


def test_a_machine_that_is_gone_is_waited_for_some_seconds(server, emptied):
    """Not for the hours of the system's own defaults; a URL may say otherwise (F24)."""
    emptied()
    store = postgres.open(server.url("again") + "&connect_timeout=3&keepalives_idle=60")
    found = store._lease_transaction(lambda db: db.info.get_parameters())
    store.close()
    assert {name: found.get(name) for name in postgres.PATIENCE} == {
        "connect_timeout": "3",
        "keepalives_idle": "60",
        "keepalives_interval": "2",
        "keepalives_count": "3",
        "tcp_user_timeout": "10000",
    }


def terminate(server):
    """End every other connection of the server."""
    with psycopg.connect(server.dsn, autocommit=True) as db:
        db.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )


def test_connections_that_the_server_ends_are_replaced(server, log):
    """Appends, reads, claims and waiting go on (F16, F17)."""
    write(log, new("a"))
    terminate(server)
    write(log, turn("a", 1, "x"))
    terminate(server)
    assert len(log.records("a")) == 2
    terminate(server)
    assert [each.id for each in log.claim("w", now=5.0, lease_s=9.0, limit=9)] == []
    terminate(server)
    assert log.wait(5.0)


def test_a_server_that_takes_no_writes_is_left(server, log):
    """After a failover its name may lead to another: connections to one that is a standby now are given up (F16)."""
    writing = f"{server.dsn}&options=-c%20default_transaction_read_only%3Doff"
    write(log, new("a"))
    transaction = log.begin(limit_s=9.0)
    transaction.roll_back("it was for the pool")
    with psycopg.connect(writing, autocommit=True) as db:
        db.execute("ALTER DATABASE postgres SET default_transaction_read_only = on")
    try:
        terminate(server)
        told = [str(log.append([turn("a", 1, "x")])[0]) for _ in range(9)]
        assert "25006" in told[-1]  # every connection of the pool was made anew by then
        with pytest.raises(StoreUnavailable, match="takes no writes"):
            log.begin(limit_s=9.0)
    finally:
        with psycopg.connect(writing, autocommit=True) as db:
            db.execute("ALTER DATABASE postgres RESET default_transaction_read_only")
    until(lambda: isinstance(log.append([turn("a", 1, "x")])[0], Ok))
    until(lambda: begun(log)).roll_back("it was for the test")


def begun(log):
    """A transaction of a step; None while the log has no connection for it."""
    with contextlib.suppress(StoreUnavailable):
        return log.begin(limit_s=9.0)


@pytest.fixture
def proxy(server, tmp_path_factory):
    """A proxy in a short path: a socket's name has a limit."""
    directory = Path(tempfile.mkdtemp(prefix="zart-px-", dir="/tmp"))
    between = Proxy(directory, server.root)
    yield between
    between.close()
    shutil.rmtree(directory)


def through(server, proxy):
    return server.url("again").replace(str(server.root), str(proxy.directory))


def forget(log):
    """Have a log ask, as if others had written last."""
    log._memo = Memo()


@pytest.mark.parametrize(("remembers", "wanted"), [(False, [5, 4, 5, 4]), (True, [5, 1, 1, 1])])
def test_a_batch_asks_once_for_all_its_executions(server, emptied, proxy, remembers, wanted):
    """Begin; lock and read; ask for numbers or messages, if need be; write; commit: however large the batch.

    All of it is one message over what this log wrote last.
    """
    emptied()
    store = postgres.open(through(server, proxy))

    def rounds(first, last):
        """How often each batch over executions of these numbers waits for the server."""
        names = [f"e{n}" for n in range(first, last)]
        for batch in (
            [new(name, creates=[new(f"{name}-child")]) for name in names],
            [post(name) for name in names for _ in range(2)],
            [turn(name, 1, "x", consumes=[1, 2]) for name in names],
            [turn(name, 2, "y", posts=[post(f"{name}-child")]) for name in names],
        ):
            if not remembers:
                forget(store)
            before = proxy.rounds
            write(store, *batch)
            yield proxy.rounds - before

    list(rounds(0, 2))  # prepares the statements
    assert list(rounds(2, 52)) == wanted
    refused(store, turn("e1", 3, "z", consumes=[1]), "stale")
    store.close()


def test_verify_asks_four_times_for_an_execution(server, emptied, proxy):
    """Its runs, records, messages and keys: each is one question, which no cursor makes into several."""
    emptied()
    store = postgres.open(through(server, proxy))

    def rounds():
        """The least of some: statements are prepared, and connections made, in between."""
        asked = []
        for _ in range(5):
            before = proxy.rounds
            store.verify()
            asked.append(proxy.rounds - before)
        return min(asked)

    write(store, *[new(f"e{n}") for n in range(2)])
    few = rounds()
    write(store, *[new(f"e{n}") for n in range(2, 12)])
    more = rounds() - few
    store.close()
    assert more == 10 * 4


@pytest.mark.parametrize(
    "change",
    [
        lambda other: write(other, turn("a", 1, "theirs")),
        lambda other: write(other, post("a", key="k")),
        claimed,
        lambda other: write(other, Mark("a", Status.PARKED, "theirs", "", None, 0, None)),
    ],
    ids=["turn", "post", "claim", "mark"],
)
def test_what_others_have_changed_is_asked_for(server, emptied, change):
    """A log that wrote last is answered as one that never saw the execution before (L2, F15)."""
    found = []
    for remembers in (False, True):
        emptied()
        store, other = postgres.open(server.url("again")), postgres.open(server.url("again"))
        write(store, new("a"), new("b"))
        change(other)
        if not remembers:
            forget(store)
        outcomes = store.append([turn("b", 1, "x"), turn("a", 1, "x"), post("a", key="k"), post("a")])
        found.append(
            (outcomes, standing(store, "a"), standing(store, "b"), store.records("a"), store.inbox("a"))
        )
        assert store.verify()
        store.close()
        other.close()
    assert found[0] == found[1]


def test_nothing_is_refused_from_memory(server, emptied):
    """What a log remembers may be out of date: only the database refuses, and knows what was done before (L3)."""
    emptied()
    store, other = postgres.open(server.url("again")), postgres.open(server.url("again"))
    write(store, new("a"))
    write(other, turn("a", 1, "theirs"))
    write(store, turn("a", 2, "x"))
    write(other, turn("a", 3, "theirs"), post("a", key="k"))
    (found,) = store.append([post("a", key="k")])
    assert isinstance(found, Ok) and (found.value.created, found.value.number) == (False, 1)
    assert [each.kind for each in other.records("a")] == ["Started", "theirs", "x", "theirs"]
    store.close()
    other.close()


@pytest.mark.parametrize(
    ("remembers", "fate", "outcome", "there"),
    [
        (False, "drop", Unknown, 0),
        (False, "swallow", Unknown, 1),
        (False, "late", Unknown, 1),
        (False, "panic", Unknown, 1),
        (True, "drop", Ok, 1),
        (True, "swallow", Unknown, 1),
        (True, "late", Ok, 1),
        (True, "held", Ok, 1),
        (True, "panic", Unknown, 1),
    ],
)
def test_a_commit_that_nobody_answered_is_unknown(server, emptied, proxy, remembers, fate, outcome, there):
    """Dropped, done or done later, or by a server that goes down then: reading tells at once, and nothing comes after
    that (F16, I9).

    What was sent as one message, and was not done when its rows are looked at, is written then; it is done no more.
    """
    emptied()
    store = postgres.open(through(server, proxy))
    write(store, new("a"))
    if not remembers:
        forget(store)
    proxy.plan[proxy.commits] = fate
    (found,) = store.append([turn("a", 1, "x")])
    assert isinstance(found, outcome)
    assert len(store.records("a")) == 1 + there
    if fate == "held":
        proxy.let_go.set()
        assert proxy.delivered.wait(60)
    write(store, turn("a", 1 + there, "y"))
    assert [each.kind for each in store.records("a")] == ["Started", *(["x"] * there), "y"]
    assert proxy.cut == 1
    store.close()


@pytest.mark.parametrize("fate", ["drop", "swallow"])
def test_what_a_lost_claim_gave_is_given_again(server, emptied, proxy, fate):
    """A claim whose answer was lost may have given something that nobody knows of: the next one gives it (L8)."""
    emptied()
    store = postgres.open(through(server, proxy))
    write(store, new("a"))
    store.claim("w", now=0.0, lease_s=9.0, limit=1, workflows=["other"])
    proxy.plan[proxy.commits] = fate
    with pytest.raises(StoreUnavailable):
        store.claim("w", now=5.0, lease_s=9.0, limit=9)
    assert [(each.id, each.fence) for each in store.claim("w", now=5.0, lease_s=9.0, limit=9)] == [("a", 1)]
    assert store.claim("w", now=5.0, lease_s=9.0, limit=9) == []
    store.close()


@pytest.mark.parametrize("fate", ["drop", "swallow"])
def test_a_lost_renewal_does_not_hide_that_it_was_robbed(server, emptied, proxy, fate):
    """The worker is told when it asks again, whether or not the first answer is in the log (L8)."""
    emptied()
    now = [1000.0]
    late = postgres.open(through(server, proxy), clock=lambda: now[0])
    other = postgres.open(server.url("again"), clock=lambda: now[0])
    write(late, new("a"))
    assert claimed(late, "late") == ["a"]
    now[0] += LEASE_S + 1
    assert claimed(other, "other") == ["a"]
    proxy.plan[proxy.commits] = fate
    with pytest.raises(StoreUnavailable):
        late.renew("late", lease_s=LEASE_S)
    assert [late.renew("late", lease_s=LEASE_S) for _ in range(2)] == [False, True]
    late.close()
    other.close()


def test_a_lost_claim_leaves_no_worker_without_a_lease(server, emptied, proxy):
    """What it creates for itself afterwards is free when it has died: its lease is in the log, or made (L8)."""
    emptied()
    now = [1000.0]
    store = postgres.open(through(server, proxy), clock=lambda: now[0])
    other = postgres.open(server.url("again"), clock=lambda: now[0])
    proxy.plan[proxy.commits] = "drop"
    with pytest.raises(StoreUnavailable):
        store.claim("w", now=5.0, lease_s=LEASE_S, limit=9)
    write(store, new("a", owner="w"))
    assert claimed(other, "other") == []
    now[0] += postgres.LEASE_S + 1
    assert claimed(other, "other") == ["a"]
    store.close()
    other.close()


def test_a_server_that_crashes_keeps_what_it_acknowledged():
    """Shut down at once and started again under a writer: what was acknowledged is there, in order (F2, F16)."""
    with running() as own:
        store = postgres.open(own.url("zart"), busy_s=30.0)
        write(store, new("a"))
        acknowledged = ["Started"]
        for n in range(3):
            stopping = threading.Thread(target=lambda: (own.stop("immediate"), own.start()))
            stopping.start()
            k = 0
            while stopping.is_alive():
                k += 1
                (outcome,) = store.append([turn("a", len(acknowledged), f"t{n}-{k}")])
                if isinstance(outcome, Ok):
                    acknowledged.append(f"t{n}-{k}")
                elif isinstance(outcome, Unknown):
                    found = [each.kind for each in store.records("a")]
                    assert found[: len(acknowledged)] == acknowledged
                    acknowledged = found
            stopping.join()
        write(store, turn("a", len(acknowledged), "last"))
        assert [each.kind for each in store.records("a")] == [*acknowledged, "last"]
        store.close()


def raising(log, *errors):
    """Have the next transactions of a log meet these errors before they write anything."""
    waiting = list(errors)
    forget(log)
    batch = log._batch

    def failing(*args):
        if waiting:
            raise waiting.pop(0)
        return batch(*args)

    log._batch = failing
    return waiting


def error_of(state):
    """What the driver raises for a state of the server."""
    return psycopg.errors.lookup(state)("made to order")


def test_deadlocks_and_serialization_failures_are_tried_again(log):
    """The whole transaction, as often as it takes (F17)."""
    write(log, new("a"))
    waiting = raising(log, *map(error_of, ("40P01", "40001", "55P03", "57P01")))
    write(log, turn("a", 1, "x"))
    assert not waiting
    assert len(log.records("a")) == 2


@pytest.mark.parametrize("after", ["reading", "writing"])
def test_who_stands_still_in_a_transaction_hinders_nobody(server, emptied, monkeypatch, after):
    """The server lets go of what a stopped process has locked; when it goes on, it is refused as stale (F24, F15)."""
    emptied()
    monkeypatch.setattr(postgres, "STANDSTILL_MS", 200)
    one, other = (postgres.open(server.url("again"), busy_s=30.0) for _ in range(2))
    write(one, new("a"))
    stopped, goes_on = threading.Event(), threading.Event()
    forget(one)
    batch, write_changes = one._batch, postgres.write_changes

    def stand_still():
        if threading.current_thread() is writing and not goes_on.is_set():
            stopped.set()
            goes_on.wait(60)

    def reading(*args):
        unit = batch(*args)
        unit.prepare(["a"])
        stand_still()
        return unit

    def written(*args):
        write_changes(*args)
        stand_still()

    if after == "reading":
        one._batch = reading
    else:
        monkeypatch.setattr(postgres, "write_changes", written)
    outcomes = []
    writing = threading.Thread(target=lambda: outcomes.extend(one.append([turn("a", 1, "slow")])))
    writing.start()
    assert stopped.wait(60)
    write(other, turn("a", 1, "quick"))
    goes_on.set()
    writing.join()
    (outcome,) = outcomes
    assert isinstance(outcome, Rejected)
    assert outcome.reason.startswith("stale")
    assert [each.kind for each in other.records("a")] == ["Started", "quick"]
    one.close()
    other.close()


def test_what_does_not_cease_surfaces(server, emptied):
    """Trying again has an end; then it is Rejected, and nothing of it is there (F17)."""
    emptied()
    store = postgres.open(server.url("again"), busy_s=0.2)
    write(store, new("a"))
    raising(store, *[error_of("40001")] * 1000)
    refused(store, turn("a", 1, "x"), "unavailable")
    assert len(store.records("a")) == 1
    store.close()


@pytest.mark.parametrize(
    ("state", "word"), [("53100", "full"), ("XX001", "damaged"), ("42P01", "unavailable")]
)
def test_what_cannot_be_mended_by_trying_again_is_rejected_at_once(log, state, word):
    """A full disk, a damaged page, a table that is gone: nothing was written (F6, L3, L12)."""
    write(log, new("a"))
    waiting = raising(log, error_of(state), error_of("40001"))
    refused(log, turn("a", 1, "x"), word)
    assert len(waiting) == 1
    assert len(log.records("a")) == 1


def test_what_no_index_takes_is_refused_alone(server, log):
    """A key or a name of 3 kB that cannot be compressed is too large, and hinders no other of its batch (L6, L11)."""
    drawn = random.Random(1)
    long = "".join(chr(drawn.randrange(0x4E00, 0x9FA0)) for _ in range(1024))
    write(log, new("a"), new("b"))
    batch = [turn("a", 1, "x"), post("b", key=long), new("c", workflow=long), post("b", key="k"), new("d")]
    outcomes = log.append(batch)
    assert [isinstance(each, Ok) for each in outcomes] == [True, False, False, True, True]
    assert all(outcomes[n].reason.startswith("too-large: ") for n in (1, 2))
    assert (len(log.records("a")), [each.key for each in log.inbox("b")]) == (2, ["k"])

    with psycopg.connect(server.dsn) as db:
        assert log.create_within(db, new("c", workflow=long)).reason.startswith("too-large: ")
    transaction = log.begin(limit_s=60)
    transaction.seal()
    (outcome, _) = transaction.commit([turn("a", 2, "x"), post("b", key=long)])
    assert outcome.reason.startswith("too-large: ")


def test_a_claim_on_a_full_server_is_weather(log):
    """Claims have no outcome: they raise (F6)."""
    write(log, new("a"))
    raising(log, error_of("53100"))
    with pytest.raises(StoreUnavailable, match="53100"):
        log.claim("w", now=5.0, lease_s=9.0, limit=9)


def test_a_server_that_is_gone_is_weather_to_every_call(tmp_path):
    """Bounded, and said; when it is back, the same log goes on, a wait first of all."""
    with running() as own:
        store = postgres.open(own.url("zart"), busy_s=0.3)
        write(store, new("a"))
        own.stop("fast")
        refused(store, turn("a", 1, "x"), "unavailable")
        refused(store, new("b", owner="w"), "unavailable")
        for call in (lambda: store.summary("a"), lambda: store.claim("w", now=5.0, lease_s=9.0, limit=1)):
            with pytest.raises(StoreUnavailable):
                call()
        assert store.wait(0.01)
        assert store.wait(0.01), "what happened meanwhile may have been missed"
        own.start()
        until(lambda: store.wait(0.01) and store._listener is not None)
        until(lambda: isinstance(store.append([turn("a", 1, "x")])[0], Ok))
        own.stop("fast")
        store.close()
        with pytest.raises(StoreFailed, match="is closed"):
            store.summary("a")
        own.start()


def test_a_pool_that_ran_dry_is_replaced_once(server, emptied):
    """However many wait for a connection in vain at a time: they do not open a pool each."""
    emptied()
    store = postgres.open(server.url("again"), busy_s=0.2)
    dry = store._pool
    taken = [dry.getconn() for _ in range(postgres.CONNECTIONS_MAX)]
    pools, new_pool = [], store._new_pool

    def counted():
        pools.append(new_pool())
        return pools[-1]

    def look():
        with contextlib.suppress(StoreUnavailable):
            store.summary("a")

    store._new_pool = counted
    together([look] * 12)
    store.close()
    for db in taken:
        dry.putconn(db)
    assert 1 <= len(pools) < 6  # one, and no more than that on a machine that is busy
    assert pools[-1] is store._pool


def test_a_reader_tries_again(log):
    """A serialization failure of a read is nobody's business (F17)."""
    write(log, new("a"))
    execute, errors = log._execute, [error_of("40001")]

    def failing(*arguments, **options):
        if errors:
            raise errors.pop()
        return execute(*arguments, **options)

    log._execute = failing
    assert log.summary("a").id == "a"
    log._execute = lambda *arguments, **options: (_ for _ in ()).throw(error_of("42P01"))
    with pytest.raises(StoreUnavailable, match="42P01"):
        log.summary("a")


def test_a_forked_child_is_refused(log):
    """Its parent's connections are not its own (F12); closing touches nothing of the parent's."""
    write(log, new("a"))
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            log.summary("a")
        except StoreFailed:
            log.close()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert log.summary("a").id == "a"


def test_another_process_closes_nothing(server, emptied, monkeypatch):
    """A closed copy is closed, and the parent's connections stay open (F12)."""
    emptied()
    store = postgres.open(server.url("again"))
    pool = store._pool
    store._pid += 1
    with pytest.raises(StoreFailed, match="open a log of its own in each process"):
        store.summary("a")
    store.close()
    assert not pool.closed
    pool.close()
    store._deafen()


def test_what_no_name_can_be_is_nobodys(log):
    """A workflow's name that cannot be stored is due to nobody; an id that cannot be is unknown."""
    write(log, new("a"))
    assert log.claim("w", now=5.0, lease_s=9.0, limit=9, workflows=["w\0", "w"])[0].id == "a"
    assert log.acquire("w", "a\0", lease_s=9.0) is None


def test_a_name_in_use_is_refused_until_its_lease_ends(server, emptied):
    """Two workers of one name would share fences; after the lease the newcomer takes over what the other held (L8)."""
    emptied()
    now = [1000.0]
    one, other = (postgres.open(server.url("again"), clock=lambda: now[0]) for _ in range(2))
    write(one, new("a"))
    assert claimed(one, "w") == ["a"]
    with pytest.raises(StoreLocked, match="in use by another"):
        other.claim("w", now=10.0, lease_s=9.0, limit=9)
    with pytest.raises(StoreLocked):
        other.append([new("b", owner="w")])
    now[0] += LEASE_S + 1
    assert claimed(other, "w") == ["a"]
    assert standing(other, "a").fence == 2
    one.close()
    other.close()


def test_a_worker_that_was_forgotten_hears_that_it_was_robbed(server, emptied):
    """It was away for so long that its very name is gone: what it held is another's by now (L8)."""
    emptied()
    now = [1000.0]
    late, other = (postgres.open(server.url("again"), clock=lambda: now[0]) for _ in range(2))
    write(late, new("a"))
    assert late.renew("late", lease_s=LEASE_S)
    assert claimed(late, "late") == ["a"]
    now[0] += LEASE_S + 1
    assert claimed(other, "other") == ["a"]
    now[0] += postgres.FORGOTTEN_S
    other.close()
    assert claimed(late, "late") == ["a"]
    assert [late.renew("late", lease_s=LEASE_S) for _ in range(2)] == [False, True]
    late.close()


# ---------------------------------------------------------------- settings


def test_asking_in_vain_renews_no_lease(server, emptied):
    """What has ended, is unknown or is another's is not given by id, and a lease that has run out stays so."""
    emptied()
    now = 1000.0
    log = postgres.open(server.url("again"), clock=lambda: now)
    write(log, new(), new("ended"), turn("ended", 1, status=Status.COMPLETED))
    claimed(log, "w1")
    write(log, new("theirs", owner="w2"))
    log.renew("w2", lease_s=LEASE_S * 10)
    now += LEASE_S * 2
    assert [log.acquire("w1", id, lease_s=LEASE_S) for id in ("ended", "unknown", "theirs")] == [None] * 3
    assert standing(log).owner == "w1"
    assert [each.id for each in log.claim("w2", now=now, lease_s=LEASE_S, limit=9)] == ["a"]
    log.close()


def test_settings_are_those_of_its_transactions(server, emptied):
    """What `zart doctor` shows: read back from the server; where the database would not wait, the log does (L4)."""
    emptied()
    with psycopg.connect(server.dsn, autocommit=True) as db:
        ((known,),) = db.execute("SHOW server_version").fetchall()
        db.execute("ALTER DATABASE postgres SET synchronous_commit = off")
        try:
            store = postgres.open(server.url("again"))
            lax = postgres.open(server.url("again") + "&prepare=no", durability="process")
        finally:
            db.execute("ALTER DATABASE postgres RESET synchronous_commit")
    expected = {
        "server": known,
        "role": "postgres",
        "pooler": "no",
        "synchronous_commit": "on",
        "fsync": "on",
        "full_page_writes": "on",
        "prepared statements": "yes",
        "format": FORMAT,
    }
    assert isinstance(store, Examinable)
    assert store.settings() == expected
    assert lax.settings() == {**expected, "synchronous_commit": "off", "prepared statements": "no"}
    store.close()
    lax.close()
    with pytest.raises(StoreFailed):
        store.settings()


def test_isolation_is_its_own(server, emptied):
    """Rows are locked before they are read: nothing has to be tried again because somebody else was quicker."""
    emptied()
    store = postgres.open(server.url("again") + STRICT)
    found = store._lease_transaction(lambda db: db.execute("SHOW transaction_isolation").fetchone())
    store.close()
    assert found == ("read committed",)


def test_a_pooler_in_between_is_seen(server, emptied, monkeypatch):
    """The process that answers is another than the one that was told of when the connection was made."""
    emptied()
    store = postgres.open(server.url("again"))
    monkeypatch.setattr(psycopg.ConnectionInfo, "backend_pid", 4711)
    assert store.settings()["pooler"] == "yes"
    store.close()


def test_doctor_shows_them(server, emptied, capsys, monkeypatch):
    """The settings in a line, the level good; no password."""
    emptied()
    monkeypatch.setenv("ZART_STORE", server.url("again") + "&password=secret")
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert "role postgres, pooler no, synchronous_commit on, fsync on, full_page_writes on" in said
    assert "secret" not in said


# ---------------------------------------------------------------- servers that will not do


def test_an_old_server_is_refused(server, monkeypatch):
    """It says which version is the least."""
    monkeypatch.setattr("zart_stores.sql.postgres_server.VERSION_MIN", 10**9)
    with pytest.raises(StoreUnavailable, match="older than PostgreSQL 13"):
        postgres.open(server.url("again"))


def test_a_database_of_another_encoding_is_refused(server):
    """Ids are compared by their code points, which UTF8 keeps in order."""
    with psycopg.connect(server.dsn, autocommit=True) as db:
        db.execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
    with pytest.raises(StoreUnavailable, match="encoding LATIN1; make one with UTF8"):
        postgres.open(server.url("again").replace("/postgres?", "/latin?"))


def test_older_tables_wait_for_their_migration(server, schema, monkeypatch):
    """Opening does not migrate what is there: the command does."""
    url = server.url(schema)
    assert postgres.migrations(url, dry=True) == (0, FORMAT)
    assert postgres.migrations(url, dry=False) == (0, FORMAT)
    monkeypatch.setattr("zart_stores.sql.postgres_server.FORMAT", FORMAT + 1)
    with pytest.raises(StoreUnavailable, match="run: zart db migrate"):
        postgres.open(url)
    with pytest.raises(StoreUnavailable):
        postgres.migrations(url.replace(str(server.root), "/nowhere"), dry=True)


def test_who_closes_a_log_that_is_about_to_listen_leaves_no_connection(server, emptied, monkeypatch):
    """A connection that is made while the log is closed is closed, too."""
    log = postgres.open(server.url("again"))
    log._deafen()
    connect, made = postgres._connect, []

    def late(address):
        made.append(connect(address))
        log.close()
        return made[-1]

    monkeypatch.setattr(postgres, "_connect", late)
    log.wait(0.0)
    assert [db.closed for db in made] == [True]
    with pytest.raises(StoreFailed):
        log.wait(0.0)


def test_a_log_that_cannot_listen_is_not_opened(server, emptied, monkeypatch):
    """Nothing stays open."""
    emptied()

    def deaf(self):
        raise error_of("53300")

    monkeypatch.setattr(postgres.PostgresLog, "_listen", deaf)
    with pytest.raises(StoreUnavailable, match="53300"):
        postgres.open(server.url("again"))


# ---------------------------------------------------------------- damage


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE again.records SET data = 'x' WHERE position = 0",
        "UPDATE again.records SET at = at + 1 WHERE position = 0",
        "DELETE FROM again.records WHERE position = 0",
        "UPDATE again.executions SET position = 3",
        "UPDATE again.executions SET fence = 7",
        "UPDATE again.messages SET payload = 'x'",
        "DELETE FROM again.messages",
        "UPDATE again.executions SET due = 7",
        "UPDATE again.message_keys SET number = 9",
        "UPDATE again.ended_runs SET run = 5",
        "DELETE FROM again.ended_runs",
        "INSERT INTO again.records SELECT 99, run, position, kind, at, data, crc FROM again.records LIMIT 1",
    ],
)
def test_damage_is_reported(server, log, statement):
    """What somebody changed behind the log's back is LogCorrupt to `verify`, never skipped (L12)."""
    write(log, new("a"))
    write(log, turn("a", 1, "x"))
    write(log, turn("a", 2, "y", opens=records("Started", at=3.0), at=3.0))
    write(log, post("a", b"hello", key="k"))
    assert log.verify() == {"executions": 1, "records": 4, "messages": 1}
    with psycopg.connect(server.dsn, autocommit=True) as db:
        db.execute(statement)
    with pytest.raises(LogCorrupt):
        log.verify()


def test_a_damaged_row_hinders_nobody_else(server, log, caplog):
    """It is not given, which is said, and takes no write; others are given and written in the same batch (I8, L12)."""
    for id in ("a", "b", "c"):
        write(log, new(id))
    with psycopg.connect(server.dsn, autocommit=True) as db:
        db.execute("UPDATE again.executions SET fence = 9 WHERE id = 'b'")
    damaged, fine = log.append([turn("b", 1, "x"), turn("a", 1, "x", wake=0.0)])
    assert isinstance(damaged, Rejected)
    assert damaged.reason.startswith("damaged")
    assert isinstance(fine, Ok)
    assert sorted(claimed(log)) == ["a", "c"]
    assert "an execution is left alone" in caplog.text
    with pytest.raises(LogCorrupt):
        log.summary("b")


def test_text_is_text_whatever_the_environment_says(server, emptied, monkeypatch):
    """The encoding that a client asks for in general is none of the log's business."""
    emptied()
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    for more in ("", "&client_encoding=latin1"):
        store = postgres.open(server.url("again") + more)
        write(store, new(f"größe-名{more}"))
        found = standing(store, f"größe-名{more}")
        store.close()
        assert found.position == 1


def test_times_are_whole_whatever_the_session_shows_of_them(server, emptied):
    """A server or role that prints floats with fewer digits is no damage."""
    emptied()
    store = postgres.open(server.url("again") + "&options=-c%20extra_float_digits%3D0")
    write(store, attrs.evolve(new("a"), at=1732320000.1234567))
    given = claimed(store)
    write(store, turn("a", 1, "x", at=1732320001.1234567, fence=1))
    store.close()
    assert given == ["a"]


def test_a_lost_length_of_an_earlier_run_is_damage(server, log):
    """What an earlier run had is known, or reported as missing (L12)."""
    write(log, new("a"))
    write(log, turn("a", 1, "y", opens=records("Started", at=3.0)))
    assert [each.kind for each in log.records("a", 0)] == ["Started", "y"]
    assert log.records("a", 7) == []
    with psycopg.connect(server.dsn, autocommit=True) as db:
        db.execute("DELETE FROM again.ended_runs")
    with pytest.raises(LogCorrupt, match="missing"):
        log.records("a", 0)


def test_time_that_goes_back_is_damage(log):
    """Recorded times never decrease within a run (I2)."""
    write(log, new("a"))
    write(log, turn("a", 1, "x", records=records("x", at=9.0)))
    write(log, turn("a", 2, "y", records=records("y", at=3.0)))
    with pytest.raises(LogCorrupt, match="time goes back"):
        log.verify()


# ---------------------------------------------------------------- waiting


def test_another_process_is_heard(server, log):
    """What another log object makes due ends a wait (L10); what nobody makes due does not."""
    other = postgres.open(server.url("again"))
    assert not log.wait(0.02)
    heard = []
    waiting = threading.Thread(target=lambda: heard.append(log.wait(20.0)))
    waiting.start()
    write(other, new("a"))
    waiting.join()
    assert heard == [True]
    other.close()


# ---------------------------------------------------------------- the fence


def interleavings(*lengths):
    """Every order in which so many steps of each can follow one another."""
    if not any(lengths):
        yield ()
    for who, length in enumerate(lengths):
        if length:
            rest = tuple(n - (i == who) for i, n in enumerate(lengths))
            yield from ((who, *order) for order in interleavings(*rest))


class Gated:
    """A log whose transaction stops before each of its statements until it is let go on."""

    STOPS = 3  # begin, lock and read, write and commit

    def __init__(self, url):
        self.log = postgres.open(url)
        self.gates = [threading.Semaphore(0) for _ in range(self.STOPS)]
        self.arrived = threading.Semaphore(0)
        self.passed = 0
        self.armed = False
        self.wrap()

    def wrap(self):
        transaction = self.log._transaction

        def gated(action):
            if not self.armed:
                return transaction(action)
            self.armed = False

            def act(db):
                self.stop()
                rest = action(db)
                if rest is None:
                    return None
                self.stop()
                return rest

            self.stop()
            return transaction(act)

        self.log._transaction = gated

    def stop(self):
        gate = self.gates[min(self.passed, self.STOPS - 1)]
        self.passed += 1
        gate.acquire(timeout=20)

    def run(self, work):
        self.passed = 0
        self.armed = True
        self.outcome = None
        self.thread = threading.Thread(target=lambda: setattr(self, "outcome", work(self.log)))
        self.thread.start()


class GatedAtOnce(Gated):
    """A log that remembers, and whose one statement comes when it is let go on."""

    STOPS = 1

    def wrap(self):
        connection = self.log._connection

        @contextlib.contextmanager
        def gated():
            if self.armed:
                self.armed = False
                self.stop()
            with connection() as db:
                yield db

        self.log._connection = gated


def play(order, logs, works):
    """Let the transactions go on in this order; one that waits for another's lock goes on when it can."""
    for log, work in zip(logs, works, strict=True):
        log.run(work)
    counts = [0] * len(logs)
    for who in order:
        logs[who].gates[counts[who]].release()
        counts[who] += 1
        logs[who].thread.join(0.01)
    for log in logs:
        log.thread.join(30)
        assert not log.thread.is_alive()


@pytest.mark.parametrize(
    ("kinds", "sample"),
    [
        ([Gated] * 2, None),
        ([Gated] * 3, 60),
        ([GatedAtOnce, Gated], 30),
        ([GatedAtOnce, Gated, Gated], 30),
    ],
    ids=["2", "3", "2, the zombie at once", "3, the zombie at once"],
)
def test_no_zombie_writes_in_any_schedule(server, emptied, kinds, sample):
    """A worker whose lease has ended, who takes over, and a third: only the current fence writes (F15, I6)."""
    url, count = server.url("again"), len(kinds)
    logs = [kind(url) for kind in kinds]
    orders = list(interleavings(*(kind.STOPS for kind in kinds)))
    if sample is not None and len(orders) > sample and not os.environ.get("ZART_DEEP"):
        orders = random.Random(3).sample(orders, sample)
    try:
        for order in orders:
            emptied()
            write(logs[0].log, new("a"))
            (held,) = logs[0].log.claim("w0", now=5.0, lease_s=-1.0, limit=1)
            works = [
                lambda log: log.append([turn("a", 1, "zombie", fence=held.fence)]),
                lambda log: log.acquire("w1", "a", lease_s=60.0),
                lambda log: log.append([turn("a", 1, "second", fence=held.fence + 1)]),
            ][:count]
            play(order, logs, works)
            kinds = [each.kind for each in logs[0].log.records("a")]
            (zombie,) = logs[0].outcome
            assert kinds.count("zombie") == isinstance(zombie, Ok)
            assert logs[1].outcome.fence == held.fence + 1
            assert standing(logs[0].log, "a").fence == held.fence + 1
            assert len(kinds) <= 2, kinds
            if logs[1].outcome.position == 1 and isinstance(zombie, Ok):
                raise AssertionError(f"{order}: a zombie wrote after the take-over")
    finally:
        for each in logs:
            each.log.close()
