"""A worker with nothing to do costs its PostgreSQL one statement for each safety interval, and hears of work."""

import os
import shutil
import tempfile
import threading
import time
from pathlib import Path

import psycopg
import pytest

import zart_core as zart
from tests.engines import until
from tests.postgres import running
from tests.postgres_proxy import Proxy
from zart_core.events import Status
from zart_core.hosts import claims
from zart_core.hosts.inline import Inline
from zart_core.workflows import Registry
from zart_stores.sql import postgres

NEVER_S = 3600.0
INTERVALS = 8


@zart.step("one")
def one() -> int:
    return 1


@zart.workflow("short")
def short(_: None) -> zart.Flow[int]:
    return (yield from one())


@zart.workflow("naps")
def naps(_: None) -> zart.Flow[int]:
    yield from zart.sleep("nap", 0.3)
    return (yield from one())


@pytest.fixture(scope="module")
def server():
    with running() as started:
        yield started


@pytest.fixture
def proxy(server):
    directory = Path(tempfile.mkdtemp(prefix="zart-px-", dir="/tmp"))  # a socket's name has a limit
    between = Proxy(directory, server.root)
    yield between
    between.close()
    shutil.rmtree(directory)


@pytest.fixture
def url(server, proxy, request):
    """A log behind the proxy, with tables, and some executions that have ended or sleep for long."""
    schema = f"idle_{os.getpid()}_{time.monotonic_ns()}"
    log = postgres.open(server.url(schema))
    zart.run_inline(short, None, log=log, id="ended")
    log.close()
    return server.url(schema).replace(str(server.root), str(proxy.directory))


def test_an_idle_worker_makes_one_statement_for_each_safety_interval(url, proxy, monkeypatch):
    """Claims, leases, dead workers and parked executions together; and it does look, each time (L10)."""
    monkeypatch.setattr(claims, "SAFETY_S", 0.25)
    monkeypatch.setattr(claims, "PARKED_S", 0.6)
    with zart.open(url, [short], lease="1h") as engine:
        until(lambda: not engine.engine.claims.claiming.is_set() and engine.engine.claims.alarmed)
        quiet(proxy)
        began, first = time.monotonic(), len(proxy.statements)
        until(lambda: len(proxy.statements) >= first + INTERVALS, 60)
        passed = (time.monotonic() - began) / claims.SAFETY_S
        made = proxy.statements[first:]
    assert len(made) <= passed + 2, made
    assert sum(b"NOT EXISTS" in statement for statement in made) >= INTERVALS // 3
    assert any(b"status = " in statement for statement in made), "it never looks for parked executions"


def quiet(proxy):
    """Wait until what the opening has stirred up has settled: a statement that comes alone."""
    while True:
        before = len(proxy.statements)
        until(lambda: len(proxy.statements) > before, 60)
        time.sleep(0.1)
        if len(proxy.statements) == before + 1:
            return


def test_work_is_heard_of_without_asking(server, url, monkeypatch):
    """Nobody asks before an hour is over: another process says that there is work, and a timer is met in time."""
    monkeypatch.setattr(claims, "SAFETY_S", NEVER_S)
    log = postgres.open(url)
    with zart.open(url, [short, naps]) as engine:
        for n, workflow in enumerate([short, naps, short]):
            Inline(log, Registry()).start(workflow, None, f"e{n}")
            assert engine.get(f"e{n}").result(60) == 1
    log.close()


def test_what_an_idle_worker_holds_goes_on_after_its_death(server, url, monkeypatch):
    """A lease that runs out is seen by the one statement: what the dead held is taken, and nothing else need happen."""
    monkeypatch.setattr(claims, "SAFETY_S", 0.1)
    now = [1000.0]
    dead, log = (postgres.open(url, clock=lambda: now[0]) for _ in range(2))
    Inline(dead, Registry()).start(short, None, "held")
    (held,) = dead.claim("dead", now=time.time(), lease_s=30.0, limit=9)
    with zart.open(log, [short]) as engine:
        until(lambda: "idle" if engine.engine.worker in log._idle else None, 60)
        assert log.summary("held").owner == "dead"
        now[0] += 31.0
        assert engine.get("held").result(60) == 1
        assert held.fence + 1 == log.summary("held").fence
    dead._workers.clear()
    dead.close()
    log.close()


def test_workers_that_never_came_back_are_forgotten(server, url):
    """A day after its lease, once somebody takes leave; those that hold something are not."""
    now = [1000.0]
    log = postgres.open(url, clock=lambda: now[0])
    gone, other = (postgres.open(url, clock=lambda: now[0]) for _ in range(2))
    gone.renew("gone", lease_s=1.0)
    Inline(log, Registry()).start(short, None, "held")
    other.claim("holds", now=time.time(), lease_s=1.0, limit=9)
    for each in (gone, other):
        each._workers.clear()
        each.close()
    now[0] += postgres.FORGOTTEN_S + 2
    log.renew("last", lease_s=1.0)
    log.close()
    schema = url.split("schema=")[1]
    with psycopg.connect(server.dsn, autocommit=True) as db:
        assert db.execute(f"SELECT worker FROM {schema}.workers").fetchall() == [("holds",)]


def test_threads_of_a_busy_log_claim_as_before(url):
    """Nothing is given twice when two workers are idle and ask at once."""
    logs = [postgres.open(url) for _ in range(2)]
    for n, log in enumerate(logs):
        assert log.claim(f"w{n}", now=time.time(), lease_s=30.0, limit=9) == []
        assert log.claim(f"w{n}", now=time.time(), lease_s=30.0, limit=9) == []
    Inline(logs[0], Registry()).start(short, None, "new")
    given: list[str] = []
    asking = [
        threading.Thread(
            target=lambda n=n, log=log: given.extend(
                item.id for item in log.claim(f"w{n}", now=time.time(), lease_s=30.0, limit=9)
            )
        )
        for n, log in enumerate(logs)
    ]
    for each in asking:
        each.start()
    for each in asking:
        each.join()
    assert given == ["new"]
    for log in logs:
        log.close()


def test_who_lacks_a_version_leaves_the_execution_to_who_has_it(url, monkeypatch):
    """Each claims the versions that it has; what nobody has yet waits, and is parked by nobody."""
    monkeypatch.setattr(claims, "SAFETY_S", 0.1)
    monkeypatch.setattr(claims, "PARKED_S", 0.2)

    @zart.workflow("grown", version=1)
    def old(_: None) -> zart.Flow[str]:
        yield from one()
        return "old"

    @zart.workflow("grown", version=2)
    def new(_: None) -> zart.Flow[str]:
        yield from one()
        return "new"

    ids = [f"g{n}" for n in range(6)]
    with zart.open(url, [old]) as behind:
        log = postgres.open(url)
        for id in ids:
            Inline(log, Registry()).start(new, None, id)
        Inline(log, Registry()).start(old, None, "g")
        assert behind.get("g").result(60) == "old"  # which was due later than those
        assert {(each.status, each.owner) for each in log.list(workflow="grown").items if each.id != "g"} == {
            (Status.SCHEDULED, None)
        }
        with zart.open(url, [old, new]) as ahead:
            assert [ahead.get(id).result(60) for id in ids] == ["new"] * len(ids)
        assert not behind.engine.live
        log.close()
