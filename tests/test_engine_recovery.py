"""What is taken up after a death, a close or a Ctrl-C, in real processes (R5, R10, F1, F18)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import slept
from engines import STORES, Ledger, kinds, until, url_of

import zart_core as zart
from zart_core.hosts.ports import open_log

WORKER = Path(__file__).parent / "engine_worker.py"
SECOND = 2.0
"""The one-second promises, with room for a slow disk; a busy processor is taken off (see `slept`)."""


def spawned(scenario: str, url: str, journal: Path) -> subprocess.Popen[str]:
    """A worker process."""
    return subprocess.Popen(
        [sys.executable, str(WORKER), scenario, url, str(journal)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def lives(scenario: str, url: str, journal: Path, most: int = 20) -> tuple[int, dict[str, str]]:
    """Start the worker again and again until it ends by itself; gives how often it was killed, and what it printed."""
    for killed in range(most):
        with spawned(scenario, url, journal) as process:
            out, err = process.communicate(timeout=60)
        if process.returncode == 0:
            return killed, dict(line.split(" ", 1) for line in out.splitlines())
        assert process.returncode == -signal.SIGKILL, err
    raise AssertionError("it never ends")


SQLITE = pytest.mark.parametrize("url", ["sqlite"], indirect=True)
FILE = pytest.mark.parametrize("url", ["file"], indirect=True)


@pytest.fixture(params=["sqlite", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return url_of(request.param, tmp_path)


@pytest.fixture(autouse=True)
def watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "run", threading.Thread.run)
    slept.watch()


# ---------------------------------------------------------------- steps that kill their worker


@FILE
def test_a_killer_resolves_as_step_lost(url: str, tmp_path: Path) -> None:
    """After max_crashes it is not started again (R5, F18)."""
    journal = tmp_path / "journal"
    killed, printed = lives("killer", url, journal)
    assert (killed, journal.read_text().split("\n").count("kills a")) == (3, 3)
    assert "brought down its worker 3 times" in printed["k"]


@SQLITE
def test_killers_never_condemn_their_neighbours(url: str, tmp_path: Path) -> None:
    """Two killers and six innocent steps in flight: the killers are lost, the neighbours end with their values (R5)."""
    journal = tmp_path / "journal"
    _, printed = lives("killers", url, journal)
    assert (printed["n0"], printed["n10"]) == ("3", "33")
    assert "brought down its worker 3 times" in printed["ka"]
    assert "brought down its worker 3 times" in printed["kb"]
    keys = {line for line in journal.read_text().splitlines() if line.startswith("neighbour")}
    assert len(keys) == 6  # the same idempotency key at every attempt


@SQLITE
def test_a_killer_at_a_retry_is_found_too(url: str, tmp_path: Path) -> None:
    """A retry has no record of its own, but the first one after a crash has."""
    journal = tmp_path / "journal"
    killed, printed = lives("late", url, journal)
    assert killed <= 3
    assert "brought down its worker 2 times" in printed["l"]


def test_at_most_once(url: str, tmp_path: Path) -> None:
    """It is not run again when its worker died while it may have been running (R10)."""
    journal = tmp_path / "journal"
    killed, printed = lives("once", url, journal)
    assert (killed, journal.read_text()) == (1, "once\n")
    assert "at most once" in printed["c"]


# ---------------------------------------------------------------- Ctrl-C, close, exit


@pytest.mark.parametrize("scenario", ["hang", "hang-in-async"])
def test_ctrl_c_ends_the_process_within_a_second(scenario: str, url: str, tmp_path: Path) -> None:
    """With a sync and an async step that hang; nothing is lost, and no crash is counted."""
    journal = tmp_path / "journal"
    process = spawned(scenario, url, journal)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    until(lambda: journal.exists() and len(journal.read_text().splitlines()) == 2)
    assert process.stdin is not None
    process.stdin.write("look at the clock\n")
    process.stdin.flush()
    assert process.stdout.readline() == "now\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in err
    assert float(out) < SECOND
    log = open_log(url)
    (summary,) = log.list().items
    assert summary.owner is None
    log.close()
    with zart.open(url, []) as engine:
        assert kinds(engine.get("h").history())[-1] == "Noted"


def test_hanging_threads_do_not_keep_a_process(tmp_path: Path) -> None:
    """A program that forgets to close its engine ends all the same (R11)."""
    process = spawned("exit", "memory:", tmp_path / "journal")
    out, err = process.communicate(timeout=30)
    assert (out, err, process.returncode) == ("ready\n", "", 0)


@pytest.mark.parametrize("store", STORES)
def test_a_graceful_close_is_quick_and_counts_as_no_crash(store: str, tmp_path: Path) -> None:
    """However often it is closed while it runs: the step is never lost, and runs again (R5)."""
    ledger, gate = Ledger(), threading.Event()

    @zart.step(max_crashes=1)
    def hangs() -> int:
        ledger("hangs")
        gate.wait(30)
        return 1

    @zart.step(max_crashes=1)
    async def hangs_async() -> int:
        ledger("async")
        await asyncio.sleep(0 if gate.is_set() else 30)
        return 2

    @zart.workflow("w")
    def flow(_: None) -> zart.Flow[int]:
        return sum((yield from zart.wait([hangs(), hangs_async()])))

    log = open_log(url_of(store, tmp_path))
    for life in range(1, 4):
        engine = zart.open(log, [flow])
        engine.start(flow, None, id="a")
        until(lambda life=life: len(ledger.entries) == 2 * life)
        began = slept.now()
        engine.close()
        assert slept.now() - began < SECOND
    gate.set()
    with zart.open(log, [flow]) as engine:
        assert engine.get("a").result(5) == 3
    log.verify()
    log.close()


def test_an_outcome_that_comes_while_closing_counts(tmp_path: Path) -> None:
    """What ends within the grace is written, and not run again."""
    ledger = Ledger()

    @zart.step()
    async def work() -> int:
        count = ledger("work")
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            return count
        return -1

    @zart.workflow("w")
    def flow(_: None) -> zart.Flow[int]:
        return (yield from work())

    log = open_log(url_of("sqlite", tmp_path))
    with zart.open(log, [flow]) as engine:
        engine.start(flow, None, id="a")
        until(lambda: ledger.entries)
    with zart.open(log, [flow]) as engine:
        assert engine.get("a").result(5) == 1
    assert ledger.entries == ["work"]
    log.close()


def test_a_step_that_never_ends_however_it_is_cancelled(tmp_path: Path) -> None:
    """An async step that swallows its cancellation cannot hold the engine open."""
    began = threading.Event()

    @zart.step()
    async def stubborn() -> None:
        while True:
            began.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(30)

    @zart.workflow("w")
    def flow(_: None) -> zart.Flow[None]:
        yield from stubborn()

    engine = zart.open(url_of("sqlite", tmp_path), [flow])
    engine.start(flow, None)
    began.wait(5)
    start = slept.now()
    engine.close()
    assert slept.now() - start < SECOND


# ---------------------------------------------------------------- several at one log


def test_two_engines_share_the_work_of_one_database(tmp_path: Path) -> None:
    """Both do some, each step runs once (L8)."""
    url, journal = url_of("sqlite", tmp_path), tmp_path / "journal"
    processes = [spawned("serve", url, journal) for _ in range(2)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    from engine_worker import many

    log = open_log(url)
    from zart_core.hosts.relatives import new_execution
    from zart_core.interpreter import CODEC

    for n in range(40):
        log.append([new_execution(CODEC, many, f"m{n}", str(100 * n).encode(), time.time())])
        time.sleep(0.03)  # who looks first gets what is there: look again and again
    until(lambda: log.stats().get(zart.Status.COMPLETED) == 40, 60)
    for process in processes:
        process.communicate("\n", timeout=30)
    lines = [line.split() for line in journal.read_text().splitlines()]
    assert sorted(int(n) for _, n, _ in lines) == sorted(100 * n + k for n in range(40) for k in range(5))
    assert len({pid for _, _, pid in lines}) == 2
    log.verify()
    log.close()


def test_kill_9_of_one_and_the_other_takes_over_at_once(tmp_path: Path) -> None:
    """A death is noticed without waiting for the lease (30 s)."""
    url, journal = url_of("sqlite", tmp_path), tmp_path / "journal"
    from engine_worker import ALL, hanging

    process = spawned("serve-until-killed", url, journal)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    log = open_log(url)
    from zart_core.hosts.relatives import new_execution
    from zart_core.interpreter import CODEC

    log.append([new_execution(CODEC, hanging, "h", b"null", time.time())])
    until(lambda: journal.exists() and len(journal.read_text().splitlines()) == 2)
    import engine_worker

    engine_worker.JOURNAL = str(journal)
    with zart.open(url, ALL) as engine:
        assert len(journal.read_text().splitlines()) == 2
        process.kill()
        process.communicate(timeout=60)
        began = slept.now()
        until(lambda: len(journal.read_text().splitlines()) >= 3, 60)
        assert slept.now() - began < SECOND
        engine.terminate("h")
        with pytest.raises(zart.ExecutionTerminated):
            engine.get("h").result(5)
    log.close()


def test_two_engines_in_one_process_on_one_log(tmp_path: Path) -> None:
    """A message for an execution that the other one holds reaches it."""

    @zart.workflow("w")
    def flow(_: None) -> zart.Flow[int]:
        return (yield from zart.wait_for_event("number", int))

    url = url_of("sqlite", tmp_path)
    with zart.open(url, [flow]) as first, zart.open(url, [flow]) as second:
        handle = first.start(flow, None, id="a")
        second.send("a", "number", 5)
        assert second.get("a").result(10) == 5
        assert handle.result(10) == 5
        assert second.start(flow, None, id="a").created is False


# ---------------------------------------------------------------- fork (F12)


def test_a_forked_child_is_told_to_open_its_own(tmp_path: Path) -> None:
    """The engine of the parent does nothing in the child."""

    @zart.workflow("w")
    def flow(_: None) -> zart.Flow[int]:
        return (yield from zart.wait_for_event("number", int))

    with zart.open(url_of("sqlite", tmp_path), [flow]) as engine:
        handle = engine.start(flow, None, id="a")
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            answer = "nothing"
            try:
                engine.start(flow, None)
            except zart.InvalidUse as error:
                answer = str(error)
            finally:
                os.write(write, answer.encode())
                os._exit(0)
        os.close(write)
        os.waitpid(pid, 0)
        with os.fdopen(read) as pipe:
            assert "another process" in pipe.read()
        handle.send("number", 5)
        assert handle.result(5) == 5


# ---------------------------------------------------------------- after a death, in one process


def test_outcomes_in_the_log_are_not_earned_again(tmp_path: Path) -> None:
    """Steps whose outcome is durable do not run again; the one in flight does, with the same key (I12)."""
    ledger, gate = Ledger(), threading.Event()

    @zart.step("work-{n}")
    def work(n: int) -> int:
        ledger((n, zart.context().idempotency_key))
        if n == 3:
            gate.wait(20)
        return n

    @zart.workflow("w")
    def flow(_: None) -> zart.Flow[int]:
        total = 0
        for n in range(5):
            total += yield from work(n)
        return total

    url = url_of("sqlite", tmp_path)
    engine = zart.open(url, [flow])
    engine.start(flow, None, id="a")
    until(lambda: len(ledger.entries) == 4)
    engine.close()
    gate.set()
    with zart.open(url, [flow]) as engine:
        assert engine.get("a").result(5) == 10
    assert [n for n, _ in ledger.entries] == [0, 1, 2, 3, 3, 4]
    assert len({key for n, key in ledger.entries if n == 3}) == 1
