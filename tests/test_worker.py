"""`zart worker`: any number of them on one store; what one is told to leave, another goes on with."""

import os
import signal
import subprocess
import sys
import time
from typing import Any

import psycopg
import pytest

from tests.engines import until
from tests.postgres import running
from zart_core.cli import reading
from zart_core.hosts.inline import Inline
from zart_core.hosts.ports import open_log
from zart_core.workflows import Registry

FLOWS = """
import os, time
import zart_core as zart

def ran(what):
    with open("ran", "a") as journal:
        journal.write(what + "\\n")

@zart.step("half-{n}")
def half(n: int, id: str) -> int:
    ran(f"{id} {os.getpid()}")
    time.sleep(0.02)
    return n * 2

@zart.step("draw-{n}", queue="gpu")
def draw(n: int) -> int:
    ran(f"draw {os.getpid()}")
    return n + 1

@zart.workflow("picture")
def picture(n: int) -> zart.Flow[int]:
    return (yield from draw(n))

@zart.workflow("sum")
def total(n: int) -> zart.Flow[int]:
    values = yield from zart.wait([half(k, zart.context().execution_id) for k in range(n)])
    more = yield from zart.wait_for_event("more", int)
    return sum(values) + more
"""


@pytest.fixture(scope="module")
def server():
    with running() as started:
        yield started


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request, tmp_path):
    """A directory with the workflow, and the environment of commands there."""
    (tmp_path / "flows.py").write_text(FLOWS)
    (tmp_path / "ran").touch()
    if request.param == "sqlite":
        url = "sqlite:log.db"
    else:
        url = request.getfixturevalue("server").url(f"t{os.getpid()}_{time.monotonic_ns()}")
    return tmp_path, url


def worker(place, *options, serves="serves picture, sum"):
    """A running worker that has said so."""
    directory, url = place
    process = subprocess.Popen(
        [sys.executable, "-m", "zart_core.cli", "worker", "flows", "--store", url, *options],
        cwd=directory, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert serves in process.stdout.readline()
    return process


def test_two_workers_share_a_store_and_one_goes_on_alone(place):
    """Each execution is carried out once, by whoever took it; SIGTERM hands over; the rest finishes with the other."""
    directory, url = place
    ids = [f"e{n}" for n in range(12)]
    flows: dict[str, Any] = {}
    exec(FLOWS, flows)
    log = open_log(url if "sqlite" not in url else f"sqlite:{directory}/log.db")
    workers = [worker(place), worker(place)]
    try:
        for id in ids:
            Inline(log, Registry()).start(flows["total"], 5, id)
        until(lambda: len((directory / "ran").read_text().splitlines()) == 60, 60)
        leaving, staying = workers
        leaving.send_signal(signal.SIGTERM)
        assert leaving.wait(20) == 0
        for id in ids:
            reading.send(log, id, "more", 1, None)
        until(lambda: all(str(log.summary(id).status) == "completed" for id in ids), 60)
        staying.send_signal(signal.SIGTERM)
        assert staying.wait(20) == 0
        ran = [line.split()[0] for line in (directory / "ran").read_text().splitlines()]
        assert sorted(ran) == sorted(ids * 5)
    finally:
        for process in workers:
            process.kill()
            process.wait()
            process.stdout.close()
        log.close()


def test_tables_are_looked_at_and_migrated_by_command(server, tmp_path):
    """Status says what is there and what is wanted; migrate makes it so; a store without tables says so."""
    place = (tmp_path, server.url("by_command"))

    def db(*arguments, store=place[1]):
        done = subprocess.run(
            [sys.executable, "-m", "zart_core.cli", "db", *arguments, "--store", store],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        return done.returncode, (done.stdout + done.stderr).strip()

    assert db("status") == (4, "there are no tables yet; zart db migrate makes them, in version 2")
    assert db("migrate") == (0, "version 0 is now 2")
    assert db("status", "--json") == (0, '{"version": 2, "wanted": 2}')
    assert db("migrate") == (0, "version 2 already")
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("INSERT INTO by_command.migrations (version) VALUES (3)")
    assert db("status") == (4, "version 3; this zart knows versions up to 2: upgrade zart")
    code, said = db("migrate")
    assert code == 4
    assert "its tables have version 3; this zart reads versions up to 2: upgrade zart" in said
    code, said = db("status", store=f"sqlite:{tmp_path}/log.db")
    assert code == 2
    assert "has no tables to migrate" in said


def test_a_lease_that_no_worker_can_keep_is_refused(tmp_path):
    """Code 2, and what to write instead."""
    (tmp_path / "flows.py").write_text(FLOWS)
    done = subprocess.run(
        [sys.executable, "-m", "zart_core.cli", "worker", "flows", "--store", "sqlite:log.db", "--lease", "20ms"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert "lease is '20ms'; it must be 1 s or longer" in done.stderr


@pytest.mark.parametrize(
    ("others", "line"),
    [
        (["flows", "none"], "module 'none' has no workflow; give modules that define or import functions"),
        (
            ["steps"],
            "steps: no workflow there; give the modules that define or import some. Steps are found by the",
        ),
    ],
)
def test_a_worker_that_would_serve_nothing_says_so(tmp_path, others, line):
    """A module was named by mistake, or is of steps alone: code 2, and nothing is opened."""
    (tmp_path / "flows.py").write_text(FLOWS)
    (tmp_path / "none.py").write_text("x = 1\n")
    (tmp_path / "steps.py").write_text("from flows import draw\n")
    done = subprocess.run(
        [sys.executable, "-m", "zart_core.cli", "worker", *others, "--store", "sqlite:log.db"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert line in done.stderr
    assert not (tmp_path / "log.db").exists()


def test_a_worker_of_a_queue_takes_its_steps_and_nothing_else(place):
    """The worker that holds the execution does not run them, in whichever order they come."""
    directory, url = place
    flows: dict[str, Any] = {}
    exec(FLOWS, flows)
    log = open_log(url if "sqlite" not in url else f"sqlite:{directory}/log.db")
    workers = [worker(place)]
    try:
        workers.append(worker(place, "--queue", "gpu", serves="no executions, and of queues gpu: draw-{n}"))
        Inline(log, Registry()).start(flows["picture"], 4, "p")
        until(lambda: str(log.summary("p").status) == "completed", 60)
        assert (directory / "ran").read_text() == f"draw {workers[1].pid}\n"
        for process in workers:
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
    finally:
        for process in workers:
            process.kill()
            process.wait()
            process.stdout.close()
        log.close()
