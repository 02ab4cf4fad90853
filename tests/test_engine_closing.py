"""Closing the engine: whoever asks for it, however often, and whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from engines import PATIENCE_S, Keyless, Ledger, kinds, until, url_of

import zart_core as zart
from zart_core.codec import Codec
from zart_core.hosts import turns
from zart_core.hosts.face import LoopThread
from zart_core.hosts.ports import open_log
from zart_core.log import Appended, New, Post, Transaction, Turn, Write
from zart_core.testing.relay import Relay


@zart.step(max_crashes=1)
async def lingers() -> None:
    """Takes a moment to end when it is told to."""
    try:
        await asyncio.sleep(30)
    except asyncio.CancelledError:
        await asyncio.sleep(0.1)
        raise


@zart.workflow("stays")
def stays(_: None) -> zart.Flow[None]:
    yield from lingers()


def test_a_close_that_is_cancelled_lets_go_of_the_log(tmp_path: Path) -> None:
    """It can be opened again in the same process, and who waits for a result is told."""
    url = url_of("file", tmp_path)

    async def run() -> None:
        engine = await (opening := zart.serve(url, [stays])).__aenter__()
        handle = await engine.start(stays, id="a")
        waiting = asyncio.create_task(handle.result())
        until_begun = asyncio.get_running_loop().time() + PATIENCE_S
        while engine.attempts.running == 0 and asyncio.get_running_loop().time() < until_begun:
            await asyncio.sleep(0)
        closing = asyncio.create_task(opening.__aexit__(None, None, None))
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        with pytest.raises(zart.InvalidUse, match="closed"):
            await asyncio.wait_for(waiting, PATIENCE_S)
        open_log(url).close()

    asyncio.run(run())


def test_who_asks_again_waits_for_the_same_end(tmp_path: Path) -> None:
    """After any close of it has returned the engine is closed."""
    url = url_of("file", tmp_path)

    async def run() -> None:
        async with zart.serve(url, [stays]) as engine:
            await engine.start(stays, id="a")
            first = asyncio.create_task(engine.close())
            await asyncio.sleep(0)
            assert not first.done()
            await engine.close()
            open_log(url).close()
            await first

    asyncio.run(run())


def test_what_cannot_be_written_at_the_end_hinders_no_other(tmp_path: Path) -> None:
    """I8: one execution cannot be sealed; the other is handed over, and the log can be opened again."""
    seal, url = Keyless(), url_of("file", tmp_path)
    with zart.open(url, [stays], codec=Codec(seal=seal)) as engine:
        for id in ("poor", "rich"):
            engine.start(stays, id=id)
        until(lambda: engine.engine.attempts.running == 2)
        seal.without = b"poor"
    with zart.open(url, [], codec=Codec(seal=seal)) as engine:
        assert "Noted" not in kinds(engine.get("poor").history())
        assert kinds(engine.get("rich").history())[-1] == "Noted"


def test_several_threads_may_close_it(tmp_path: Path) -> None:
    """Each returns once it is closed, and what ran is handed over: no crash is counted (R5)."""
    url = url_of("file", tmp_path)
    engine = zart.open(url, [stays])
    engine.start(stays, id="a")
    until(lambda: engine.engine.attempts.running == 1)
    with ThreadPoolExecutor(3) as pool:
        closes = [pool.submit(engine.close) for _ in range(3)]
        assert [close.result(PATIENCE_S) for close in closes] == [None] * 3
    with zart.open(url, []) as engine:
        assert kinds(engine.get("a").history())[-1] == "Noted"


class Stuck(Relay):
    """A log that does not answer an append once it is told so, until its gate is open."""

    blocking = True  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__(open_log("memory:"))
        self.stuck = False
        self.entered, self.gate = threading.Event(), threading.Event()

    def append(self, batch: Sequence[Write]) -> list[Appended]:
        """See EventLog."""
        if self.stuck:
            self.entered.set()
            assert self.gate.wait(PATIENCE_S)
        return self.log.append(batch)


def test_who_waits_for_a_log_that_does_not_answer_is_told_when_the_engine_closes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What is being written may be there, what stands in line is not; nobody waits for ever (L3)."""
    monkeypatch.setattr("zart_core.hosts.engine.CLOSE_WRITE_S", 0.05)
    monkeypatch.setattr("zart_core.hosts.threads.STOP_S", 0.05)
    log = Stuck()

    @zart.workflow("listens")
    def listens(_: None) -> zart.Flow[int]:
        return (yield from zart.wait_for_event("number", int))

    async def run() -> None:
        async with zart.serve(log, [listens]) as engine:
            await engine.start(listens, id="a")
            log.stuck = True
            first = asyncio.create_task(engine.send("a", "number", 1))
            await asyncio.to_thread(log.entered.wait, PATIENCE_S)
            rest = [
                asyncio.create_task(engine.send("a", "number", 2, key="k")),
                asyncio.create_task(engine.start(listens, id="b")),
            ]
            await asyncio.sleep(0)
        with pytest.raises(zart.StoreUnavailable, match="it is not known whether the message"):
            await asyncio.wait_for(first, PATIENCE_S)
        for task in rest:
            with pytest.raises(zart.StoreUnavailable, match="the engine was closed"):
                await asyncio.wait_for(task, PATIENCE_S)
        log.gate.set()

    asyncio.run(run())
    assert "what was left could not be written: the log takes too long" in caplog.text
    assert log.log.summary("b") is None
    log.close()


class Unanswered(Stuck):
    """A log on which no step's transaction begins until its gate is open."""

    def begin(self, *, limit_s: float) -> Transaction:
        """See Transactional."""
        self.entered.set()
        self.gate.wait(6 * PATIENCE_S)
        raise zart.StoreUnavailable("the server does not answer")

    def create_within(self, connection: Any, new: New) -> Appended:
        """See Transactional."""
        raise NotImplementedError


@zart.step()
def books() -> None:
    """Writes in a transaction."""
    zart.transaction()


@zart.workflow("keeps-books")
def keeps_books(_: None) -> zart.Flow[None]:
    yield from books()


def test_a_transaction_that_cannot_begin_does_not_keep_the_engine_open(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The server does not answer: the engine closes nevertheless, and hands over what it can."""
    monkeypatch.setattr("zart_core.hosts.engine.CLOSE_WRITE_S", 0.05)
    log = Unanswered()
    engine = zart.open(log, [keeps_books])
    engine.start(keeps_books, id="a")
    assert log.entered.wait(PATIENCE_S)
    closing = threading.Thread(target=engine.close, daemon=True)
    closing.start()
    closing.join(PATIENCE_S)
    assert not closing.is_alive()
    log.gate.set()
    assert "what steps wrote could not be rolled back: the log takes too long" in caplog.text
    summary = log.log.summary("a")
    assert summary is not None
    assert summary.owner is None
    log.close()


def test_an_engine_that_cannot_be_made_lets_go_of_the_log(tmp_path: Path) -> None:
    """A mistake in the arguments can be mended in the same process."""
    url = url_of("file", tmp_path)
    with pytest.raises(AttributeError):
        zart.open(url, [stays], clock=time.time)  # type: ignore[arg-type]  # that is the point
    zart.open(url, [stays]).close()


# ---------------------------------------------------------------- the loop of the synchronous face


@zart.step()
async def exits_in_a_task() -> None:
    """Has a task of its own that tries to end the process, as servers and command lines do."""

    async def serve() -> None:
        sys.exit(3)

    await asyncio.gather(serve())


@zart.workflow("serves")
def serves(_: None) -> zart.Flow[str]:
    try:
        yield from exits_in_a_task()
    except zart.StepFailed as error:
        return error.message
    return ""


def test_a_task_of_a_step_that_exits_fails_the_step_alone() -> None:
    """It ended the engine's thread, and whoever had called the engine waited for ever."""
    with zart.open("memory:", [serves]) as engine:
        assert engine.start(serves).result(PATIENCE_S) == "the step raised SystemExit"
        assert engine.start(serves).result(PATIENCE_S) == "the step raised SystemExit"


async def one() -> int:
    """Gives 1."""
    return 1


def test_what_is_handed_to_a_loop_comes_to_an_end() -> None:
    """Before its stop, right behind it, and after its end."""
    home, gate = LoopThread("home"), threading.Event()
    before = home.submit(one())
    home.loop.call_soon_threadsafe(gate.wait)
    ending = threading.Thread(target=home.end)
    ending.start()
    until(lambda: len(home.loop._ready) > 0)  # type: ignore[attr-defined]  # its stop is in line
    behind = home.submit(one())
    gate.set()
    ending.join(PATIENCE_S)
    after = home.submit(one())
    home.end()
    assert before.result() == 1
    assert behind.done()
    assert after.cancelled()


def test_what_does_not_end_when_it_is_cancelled_is_cancelled_once_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As an engine that is closing: whoever interrupts it a second time has it let go of its log."""
    monkeypatch.setattr("zart_core.hosts.face.LEFT_S", 0.01)
    ledger, began = Ledger(), threading.Event()

    async def closes() -> None:
        for name in ("writes its last", "lets go"):
            with contextlib.suppress(asyncio.CancelledError):
                began.set()
                await asyncio.Event().wait()
            ledger(name)

    home = LoopThread("home")
    future = home.submit(closes())
    assert began.wait(PATIENCE_S)
    home.end()
    assert future.done()
    assert ledger.entries == ["writes its last", "lets go"]


def test_what_exits_when_it_is_cancelled_leaves_nobody_waiting() -> None:
    """The end of the loop is that of all that is on it."""
    began = [threading.Event() for _ in range(6)]

    async def waits(n: int) -> None:
        began[n].set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if n % 2:
                sys.exit(3)
            raise

    home = LoopThread("home")
    futures = [home.submit(waits(n)) for n in range(6)]
    assert all(event.wait(PATIENCE_S) for event in began)
    home.end()
    assert all(future.done() for future in futures)


def test_who_calls_an_engine_whose_loop_has_ended_is_told() -> None:
    """The thread may be there a moment longer."""
    engine = zart.open("memory:", [serves])
    engine.home.end()
    with pytest.raises(zart.InvalidUse, match="the engine was closed"):
        engine.stats()
    engine.close()


class Lasting(Relay):
    """Writes turns once the engine closes."""

    engine: zart.Engine | None = None

    def append(self, batch: Sequence[Write]) -> list[Appended]:
        """See EventLog."""
        if any(isinstance(write, Turn) for write in batch):
            until(lambda: self.engine is not None and self.engine.engine.closing)
        return self.log.append(batch)


@pytest.mark.parametrize("store", ["file", "sqlite"])
def test_messages_that_did_not_fit_into_its_last_turns_are_taken_by_the_next_engine(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L10, I18: what has messages that it waits for is due, though they have been looked at."""
    monkeypatch.setattr(turns, "MESSAGES_PER_TURN_MAX", 2)

    @zart.workflow("counts")
    def counts(total: int) -> zart.Flow[int]:
        for number in range(total):
            assert number == (yield from zart.wait_for_event("number", int))
        return total

    log = open_log(url_of(store, tmp_path))
    with zart.open(log, [counts]) as engine:
        engine.start(counts, 10, id="a")
    log.append([Post("a", "event", "number", b"%d" % n, 0.0, f"key {n}") for n in range(10)])
    late = Lasting(log)
    with zart.open(late, [counts]) as late.engine:
        pass
    assert len(log.inbox("a")) == 6
    with zart.open(log, [counts]) as engine:
        assert engine.get("a").result(PATIENCE_S) == 10
    log.close()
