"""Steps under the engine: retries, timeouts, deadlines, and what becomes of attempts that nobody waits for."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from contextvars import ContextVar
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from engines import PATIENCE_S, Keyless, Ledger, Sky, kinds, until, url_of

import zart_core as zart
from zart_core.codec import Codec
from zart_core.hosts.ports import open_log
from zart_core.hosts.threads import DaemonExecutor
from zart_core.log import PAYLOAD_BYTES_MAX, Turn
from zart_core.testing.clock import START, VirtualClock
from zart_core.testing.faulty import Fault, FaultyStore

T0 = START.timestamp()


class Declined(Exception):
    """A business error."""


def flaky(ledger: Ledger, fails: int, error: type[Exception] = RuntimeError, **options: Any) -> Any:
    """A step that fails so many times."""

    @zart.step("flaky", **options)
    def attempt() -> int:
        count = ledger("flaky")
        if count <= fails:
            raise error(f"failure {count}")
        return count

    @zart.workflow("tries")
    def tries(_: None) -> zart.Flow[int]:
        return (yield from attempt())

    return tries


# ---------------------------------------------------------------- retries (R4, R6)


def test_retries_wait_as_recorded() -> None:
    """1 s, 2 s, 4 s by the clock, each instant on record, never early (R4)."""
    clock, ledger = VirtualClock(), Ledger()
    workflow = flaky(ledger, 3, retry=zart.Retry.exponential(3, "1s"))
    with zart.open("memory:", [workflow], clock=clock) as engine:
        handle = engine.start(workflow, None, id="a")
        for wait, count in ((1, 1), (2, 2), (4, 3)):
            until(lambda count=count: kinds(handle.history()).count("Retried") == count)
            clock.advance(wait - 0.001)
            assert len(ledger.entries) == count
            clock.advance(0.001)
        assert handle.result(5) == 4
        retries = [event for event in handle.history() if isinstance(event, zart.Retried)]
    assert [round(event.retry_at - event.at, 3) for event in retries] == [1, 2, 4]
    assert [event.attempt for event in retries] == [0, 1, 2]


def test_a_restart_neither_shortens_nor_repeats_a_wait(tmp_path: Path) -> None:
    """The instant of the next attempt is the recorded one, whoever makes it (R4)."""
    clock, ledger = VirtualClock(), Ledger()
    workflow = flaky(ledger, 1, retry=zart.Retry.fixed(1, "1h"))
    url = url_of("sqlite", tmp_path)
    with zart.open(url, [workflow], clock=clock) as engine:
        engine.start(workflow, None, id="a")
        until(lambda: "Retried" in kinds(engine.get("a").history()))
        clock.advance(minutes=30)
    with zart.open(url, [workflow], clock=clock) as engine:
        clock.advance(minutes=29)
        assert len(ledger.entries) == 1
        clock.advance(minutes=1)
        assert engine.get("a").result(5) == 2


def test_the_end_of_retries_and_errors_that_are_not_retried() -> None:
    """Retried to the end is RetryExhausted; an answer comes as itself; the rest as StepFailed (R6, R8)."""
    with_retry, declared, plain = Ledger(), Ledger(), Ledger()

    def seen(workflow: Any) -> BaseException | None:
        with zart.open("memory:", [workflow]) as engine, pytest.raises(zart.ExecutionFailed) as caught:
            engine.run(workflow, None)
        return caught.value.__cause__

    exhausted = seen(flaky(with_retry, 9, retry=zart.Retry.fixed(2, 0)))
    assert "failed at all 3 attempts" in str(exhausted)
    seen(flaky(declared, 9, Declined, retry=zart.Retry.fixed(2, 0), raises=Declined))
    seen(flaky(plain, 9))
    assert [len(ledger.entries) for ledger in (with_retry, declared, plain)] == [3, 1, 1]


def test_the_workflow_sees_each_error_as_its_type() -> None:
    """try/except in the workflow works by type, attempts and cause."""
    ledger = Ledger()

    @zart.step("declines", raises=Declined)
    def declines() -> None:
        raise Declined("no money")

    @zart.step("breaks", retry=zart.Retry.fixed(1, 0))
    def breaks() -> None:
        raise KeyError("k")

    @zart.step()
    def gives_what_cannot_be_written() -> int:
        return "text"  # type: ignore[return-value]

    @zart.workflow("catches")
    def catches(_: None) -> zart.Flow[int]:
        try:
            yield from declines()
        except Declined as error:
            ledger(("declined", str(error)))
        try:
            yield from breaks()
        except zart.RetryExhausted as error:
            ledger(("exhausted", error.attempts, type(error.__cause__).__name__))
        try:
            yield from gives_what_cannot_be_written()
        except zart.StepFailed as error:
            ledger(("unencodable", error.step))
        return 1

    with zart.open("memory:", [catches]) as engine:
        assert engine.run(catches, None) == 1
    assert ledger.entries == [
        ("declined", "no money"),
        ("exhausted", 2, "StepFailed"),
        ("unencodable", "gives-what-cannot-be-written"),
    ]


def test_steps_that_leave_by_strange_doors_fail_like_others() -> None:
    """SystemExit, and a CancelledError that nobody asked for, are errors of the step; the engine lives on."""

    @zart.step()
    def exits() -> None:
        raise SystemExit(3)

    @zart.step()
    async def cancels_itself() -> None:
        raise asyncio.CancelledError

    @zart.step()
    async def exits_on_the_loop() -> None:
        raise SystemExit(3)

    @zart.workflow("strange")
    def strange(_: None) -> zart.Flow[list[str]]:
        found = []
        for step in (exits, cancels_itself, exits_on_the_loop):
            try:
                yield from step()
            except zart.StepFailed as error:
                found.append(error.step)
        return found

    with zart.open("memory:", [strange]) as engine:
        assert engine.run(strange, None) == ["exits", "cancels-itself", "exits-on-the-loop"]
        assert engine.run(strange, None, id="again")


def test_what_leaves_by_a_strange_door_says_why_and_where() -> None:
    """The text and the place of a SystemExit are on record, in the traceback."""

    @zart.step()
    def configured() -> None:
        raise SystemExit("there is no file orders.toml")

    @zart.workflow("asks-for-a-file")
    def asks() -> zart.Flow[str]:
        try:
            yield from configured()
        except zart.StepFailed as error:
            return error.traceback
        return ""

    with zart.open("memory:", [asks]) as engine:
        said = engine.run(asks)
    assert "in configured" in said
    assert "SystemExit: there is no file orders.toml" in said
    assert said.rstrip().endswith("RuntimeError: the step raised SystemExit")


def test_an_error_of_zarts_own_that_is_made_of_something_else_is_a_failure_like_others() -> None:
    """Its execution goes on, whatever stands in the error; it does not wait for ever."""

    @zart.step()
    def lies() -> None:
        raise zart.StepTimedOut(None)  # type: ignore[arg-type]  # that is the point

    @zart.workflow("asks")
    def asks(_: None) -> zart.Flow[str]:
        try:
            yield from lies()
        except zart.StepError as error:
            return str(error)
        return ""

    with zart.open("memory:", [asks]) as engine:
        assert (
            engine.start(asks)
            .result(PATIENCE_S)
            .startswith("step 'lies' failed: zart_core.errors.StepTimedOut")
        )


# ---------------------------------------------------------------- timeouts (R7, R11)


def test_a_global_timeout_is_on_record_and_covers_all_attempts() -> None:
    """GLOBAL: fixed at the first start, shared by retries, checked while they wait (R7)."""
    clock, ledger = VirtualClock(), Ledger()
    workflow = flaky(ledger, 99, retry=zart.Retry.fixed(99, "20s"), timeout="50s")
    with zart.open("memory:", [workflow], clock=clock) as engine:
        handle = engine.start(workflow, None)
        for count in (1, 2, 3):
            until(lambda count=count: kinds(handle.history()).count("Retried") == count)
            clock.advance(20 if count < 3 else 10)
        with pytest.raises(zart.ExecutionFailed, match="timed out"):
            handle.result(5)
        (began,) = [event for event in handle.history() if isinstance(event, zart.Began)]
    assert began.deadline == began.at + 50
    assert len(ledger.entries) == 3


def test_a_global_timeout_holds_across_a_restart(tmp_path: Path) -> None:
    """The deadline that was recorded is the one that counts (R7)."""
    clock, ledger = VirtualClock(), Ledger()
    workflow = flaky(ledger, 99, retry=zart.Retry.fixed(99, "40s"), timeout="60s")
    log = open_log(url_of("file", tmp_path))
    with zart.open(log, [workflow], clock=clock) as engine:
        engine.start(workflow, None, id="a")
        until(lambda: "Retried" in kinds(engine.get("a").history()))
    clock.advance(50)
    with zart.open(log, [workflow], clock=clock) as engine:
        handle = engine.get("a")
        until(lambda: kinds(handle.history()).count("Retried") == 2)
        clock.advance(10)
        with pytest.raises(zart.ExecutionFailed, match="timed out"):
            handle.result(5)
    log.close()


@pytest.mark.parametrize("scope", list(zart.TimeoutScope))
def test_an_async_step_that_takes_too_long_is_cancelled(scope: zart.TimeoutScope) -> None:
    """It is cancelled, and the workflow gets StepTimedOut (R7, R11)."""
    ledger = Ledger()

    @zart.step("slow", timeout=0.05, timeout_scope=scope)
    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ledger("cancelled")
            raise

    @zart.workflow("waits")
    def waits(_: None) -> zart.Flow[str]:
        try:
            yield from slow()
        except zart.StepTimedOut as error:
            return error.step
        return ""

    with zart.open("memory:", [waits]) as engine:
        assert engine.run(waits, None) == "slow"
        until(lambda: ledger.entries == ["cancelled"])


@zart.step()
def quick() -> str:
    return "quick"


def rather_than(slow: Any) -> zart.Workflow[None, str]:
    """A workflow that goes on with `quick` once `slow` has timed out."""

    @zart.workflow("waits")
    def waits() -> zart.Flow[str]:
        try:
            return (yield from slow())
        except zart.StepTimedOut:
            return (yield from quick())

    return waits


@pytest.mark.parametrize("scope", list(zart.TimeoutScope))
def test_a_sync_step_that_takes_too_long_is_abandoned(scope: zart.TimeoutScope) -> None:
    """Its thread goes on, its result is dropped, and its slot is free at once (R11)."""
    release, ledger = threading.Event(), Ledger()

    @zart.step("slow", timeout=0.05, timeout_scope=scope)
    def slow() -> str:
        release.wait(20)
        ledger("through")
        return "late"

    waits = rather_than(slow)
    with zart.open("memory:", [waits], max_concurrent_steps=1) as engine:
        assert engine.run(waits, id="a") == "quick"
        release.set()
        until(lambda: ledger.entries == ["through"])
        assert engine.get("a").result(1) == "quick"


@pytest.mark.parametrize("scope", list(zart.TimeoutScope))
def test_an_async_step_that_will_not_end_is_abandoned(scope: zart.TimeoutScope) -> None:
    """It swallows its cancellation: after its grace its result is dropped, and its slot is free (R7)."""
    ledger, release = Ledger(), threading.Event()

    @zart.step("slow", timeout=0.05, timeout_scope=scope, cancel_grace=0.05)
    async def slow() -> str:
        while not release.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                ledger("told")
        ledger("through")
        return "late"

    waits = rather_than(slow)
    with zart.open("memory:", [waits], max_concurrent_steps=1) as engine:
        handle = engine.start(waits, id="a")
        assert handle.result(PATIENCE_S) == "quick"
        release.set()
        until(lambda: ledger.entries == ["told", "through"])
        assert kinds(handle.history()).count("Resolved") == 2


def test_a_per_attempt_timeout_is_retried_only_if_asked() -> None:
    """A timeout is terminal, unless the policy says on_timeout (R5)."""
    ledger = Ledger()

    def waits(**options: Any) -> Any:
        @zart.step("slow", timeout=0.05, timeout_scope=zart.TimeoutScope.PER_ATTEMPT, **options)
        async def slow() -> int:
            count = ledger("slow")
            await asyncio.sleep(0 if count == 3 else 60)
            return count

        @zart.workflow("waits")
        def flow(_: None) -> zart.Flow[int]:
            return (yield from slow())

        return flow

    patient = waits(retry=zart.Retry.fixed(5, 0, on_timeout=True))
    with zart.open("memory:", [patient]) as engine:
        assert engine.run(patient, None) == 3
    ledger.entries.clear()
    strict = waits(retry=zart.Retry.fixed(5, 0))
    with zart.open("memory:", [strict]) as engine, pytest.raises(zart.ExecutionFailed, match="timed out"):
        engine.run(strict, None)
    assert len(ledger.entries) == 1


def test_an_attempt_that_timed_out_in_line_for_a_thread_never_begins() -> None:
    """R7, R10: the workflow was told that it timed out; that it begins after that would be a second truth."""
    ledger, release = Ledger(), threading.Event()

    @zart.step("holds-the-thread")
    def holds_the_thread() -> None:
        release.wait(10)

    @zart.step("pays", timeout=0.05, timeout_scope=zart.TimeoutScope.PER_ATTEMPT, at_most_once=True)
    def pays() -> None:
        ledger("paid")

    @zart.workflow("waits")
    def waits(_: None) -> zart.Flow[str]:
        yield from zart.schedule(holds_the_thread())
        try:
            yield from pays()
        except zart.StepTimedOut:
            yield from zart.wait_for_event("go")
        return "timed out"

    with (
        concurrent.futures.ThreadPoolExecutor(1) as one,
        zart.open("memory:", [waits], executor=one) as engine,
    ):
        handle = engine.start(waits, None, id="a")
        until(lambda: kinds(handle.history()).count("Resolved"))
        release.set()
        one.submit(int).result(5)  # behind what stood in line
        assert ledger.entries == []
        handle.send("go", None)
        assert handle.result(5) == "timed out"


def test_an_error_whose_fields_are_too_large_for_a_record_comes_without_them(tmp_path: Path) -> None:
    """F19: its record could never be written, and the execution was read back and refused for ever."""

    @zart.step("declines", raises=(Declined,))
    def declines(size: int) -> None:
        raise Declined('"' * size)  # four bytes each, as JSON within JSON

    @zart.workflow("asks")
    def asks(size: int) -> zart.Flow[str]:
        try:
            yield from declines(size)
        except (Declined, zart.StepFailed) as error:
            return type(error).__name__
        return ""

    with zart.open(url_of("sqlite", tmp_path), [asks]) as engine:
        assert engine.start(asks, 200_000).result(10) == "Declined"
        assert engine.start(asks, 300_000).result(10) == "StepFailed"


def test_the_largest_result_of_a_child_reaches_its_parent(tmp_path: Path) -> None:
    """F19: what wraps it in the message does not count."""

    @zart.workflow("gives")
    def gives(size: int) -> zart.Flow[str]:
        yield from zart.now("begun")
        return "x" * size

    @zart.workflow("takes")
    def takes(size: int) -> zart.Flow[int]:
        return len((yield from zart.child(gives, size)))

    largest = PAYLOAD_BYTES_MAX - 2  # and two quotes
    with zart.open(url_of("sqlite", tmp_path), [takes, gives]) as engine:
        assert engine.start(takes, largest).result(10) == largest


def test_a_step_that_raises_timeout_error_itself_has_failed() -> None:
    """Only the step's own limit makes a StepTimedOut."""

    @zart.step("raises", timeout=60)
    async def raises() -> None:
        raise TimeoutError("of something else")

    @zart.workflow("waits")
    def waits(_: None) -> zart.Flow[str]:
        try:
            yield from raises()
        except zart.StepFailed as error:
            return error.message
        return ""

    with zart.open("memory:", [waits]) as engine:
        assert engine.run(waits, None) == "of something else"


def test_an_outcome_that_was_in_time_counts_though_its_turn_is_late() -> None:
    """Facts count in the order of time: a deadline that passes while a turn is written takes nothing away."""
    clock = VirtualClock()
    entered, gate, first = threading.Event(), threading.Event(), threading.Event()

    @zart.step("in-time", timeout="10s")
    def in_time() -> str:
        first.wait(20)
        return "in time"

    @zart.step("other")
    def other() -> str:
        return "other"

    class Slow(Sky):
        blocking = True  # type: ignore[assignment]

        def append(self, batch: Any) -> Any:
            if any(isinstance(write, Turn) for write in batch):
                entered.set()
                gate.wait(20)
            return super().append(batch)

    @zart.workflow("both")
    def both(_: None) -> zart.Flow[list[str]]:
        return (yield from zart.wait([in_time(), other()]))

    log = Slow(open_log("memory:"))
    with zart.open(log, [both], clock=clock) as engine:
        handle = engine.start(both, None, id="a")
        entered.wait(10)  # the turn with the outcome of `other` is being written
        live = engine.engine.live["a"]
        first.set()
        until(lambda: not live.calls)
        clock.advance(20)
        gate.set()
        assert handle.result(5) == ["in time", "other"]
    log.close()


# ---------------------------------------------------------------- the run's deadline (R16, R17)


def test_the_runs_deadline_interrupts_what_it_waits_for() -> None:
    """DeadlineExceeded is thrown where it waits, compensation runs uncapped, and it ends as timed out (R16)."""
    clock, ledger = VirtualClock(), Ledger()

    @zart.step("undo", timeout="1h")
    def undo() -> None:
        ledger(zart.context().deadline)

    @zart.workflow("limited", timeout="10m")
    def limited(_: None) -> zart.Flow[None]:
        try:
            yield from zart.wait_for_event("never")
        except zart.DeadlineExceeded:
            yield from undo()
            raise

    with zart.open("memory:", [limited], clock=clock) as engine:
        handle = engine.start(limited, None)
        clock.advance(minutes=9)
        assert handle.status() is zart.Status.WAITING
        clock.advance(minutes=1)
        with pytest.raises(zart.ExecutionTimedOut):
            handle.result(5)
        assert handle.status() is zart.Status.TIMED_OUT
    assert ledger.entries == [T0 + 600 + 3600]


def test_a_steps_deadline_is_capped_by_the_runs() -> None:
    """A step never has longer than its run (R7)."""
    clock, ledger = VirtualClock(), Ledger()

    @zart.step("long", timeout="1h")
    def long() -> None:
        ledger(zart.context().deadline)

    @zart.step("longer", timeout="2h", timeout_scope=zart.TimeoutScope.PER_ATTEMPT)
    def longer() -> None:
        ledger(zart.context().deadline)

    @zart.step()
    def free() -> None:
        ledger(zart.context().deadline)

    @zart.workflow("limited", timeout="10m")
    def limited(_: None) -> zart.Flow[None]:
        yield from long()
        yield from longer()
        yield from free()

    with zart.open("memory:", [limited], clock=clock) as engine:
        engine.run(limited, None, id="one")
        engine.run(limited, None, timeout="20m", id="other")
        history = engine.get("one").history()
    assert ledger.entries == [T0 + 600] * 3 + [T0 + 1200] * 3
    assert [event.deadline for event in history if isinstance(event, zart.Began)] == [T0 + 600, None, None]


def test_on_failure_completes_or_fails_the_run() -> None:
    """What on_failure returns completes the run, what it raises fails it; a flow of it is durable (R17)."""

    @zart.step()
    def repair() -> str:
        return "repaired"

    def flow_of(_: None, error: BaseException) -> zart.Flow[str]:
        text = yield from repair()
        return f"{text}: {error}"

    def raising(_: None, error: BaseException) -> str:
        raise LookupError(f"not even that: {error}")

    @zart.workflow("first", on_failure=flow_of)
    def first(_: None) -> zart.Flow[str]:
        yield from repair().named("before")
        raise ValueError("broken")

    @zart.workflow("second", on_failure=raising)
    def second(_: None) -> zart.Flow[str]:
        yield from repair()
        raise ValueError("broken")

    with zart.open("memory:", [first, second]) as engine:
        assert engine.run(first, None) == "repaired: broken"
        with pytest.raises(zart.ExecutionFailed, match="not even that: broken"):
            engine.run(second, None)


# ---------------------------------------------------------------- executors and threads (R11)


def test_another_executor_runs_sync_steps() -> None:
    """Any concurrent.futures.Executor will do, and it is not shut down by the engine."""
    ledger = Ledger()

    @zart.step()
    def where() -> None:
        ledger(threading.current_thread().name)

    @zart.workflow("asks")
    def asks(_: None) -> zart.Flow[None]:
        yield from where()

    with concurrent.futures.ThreadPoolExecutor(1, "mine") as executor:
        with zart.open("memory:", [asks], executor=executor) as engine:
            engine.run(asks, None)
        assert executor.submit(int).result() == 0
    assert ledger.entries[0].startswith("mine")


MARK: ContextVar[str] = ContextVar("mark", default="nothing")


@zart.step("mark-{name}")
async def mark(name: str) -> str:
    """Gives what it finds, and leaves its own name."""
    found = MARK.get()
    MARK.set(name)
    return found


@zart.workflow("marks")
def marks(_: None) -> zart.Flow[list[str]]:
    first = yield from mark("a")
    seen = MARK.get()
    second = yield from mark("b")
    third, fourth = yield from zart.gather(mark("c"), mark("d"))
    return [first, seen, second, third, fourth, (yield from mark("e")), MARK.get()]


@pytest.mark.parametrize("owns_loop", [True, False])
def test_what_a_step_sets_in_its_context_stays_there(owns_loop: bool) -> None:
    """A context variable that an async step sets is seen neither by the workflow nor by the steps after it."""

    async def run() -> list[str]:
        async with zart.serve("memory:", [marks], owns_loop=owns_loop) as engine:
            return await engine.run(marks)

    assert asyncio.run(run()) == ["nothing"] * 7


class Choosy(concurrent.futures.ThreadPoolExecutor):
    """An executor that does not take what it is given, as one that cannot pickle it."""

    def submit(self, *args: Any, **kwargs: Any) -> Any:
        """See Executor."""
        raise TypeError("cannot pickle it")


@zart.step("asked")
def asked() -> int:
    return 1


@zart.workflow("asks")
def asks(_: None) -> zart.Flow[str]:
    return str((yield from asked()))


def test_an_executor_that_does_not_take_a_step_parks_its_execution(tmp_path: Path) -> None:
    """What the executor says is no answer of the step's function, which has not begun (R5, R20)."""
    url = url_of("sqlite", tmp_path)
    with zart.open(url, [asks], executor=Choosy()) as engine:
        handle = engine.start(asks, id="a")
        with pytest.raises(
            zart.Defect, match="step 'asked' cannot be sent to its executor: TypeError: cannot pickle it"
        ):
            handle.result(PATIENCE_S)
        until(lambda: handle.status() is zart.Status.PARKED)
    with zart.open(url, [asks]) as engine:
        assert engine.get("a").result(PATIENCE_S) == "1"


def test_a_step_for_an_executor_that_was_shut_down_has_not_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As when a program ends and puts its pool away before its engine: the next engine runs it."""
    monkeypatch.setattr("zart_core.hosts.attempts.NO_THREAD_S", 0.01)
    executor, url = concurrent.futures.ThreadPoolExecutor(1), url_of("sqlite", tmp_path)
    executor.shutdown()
    with zart.open(url, [asks], executor=executor) as engine:
        handle = engine.start(asks, id="a")
        until(lambda: caplog.text.count("step 'asked' finds no thread, and waits for one") > 1)
        assert kinds(handle.history()) == ["Started", "Issued", "Began"]
    with zart.open(url, [asks]) as engine:
        assert engine.get("a").result(PATIENCE_S) == "1"


class Broken(concurrent.futures.Executor):
    """As a process pool is after the death of one of its processes, or a cluster out of reach."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def submit(self, *_: Any, **__: Any) -> concurrent.futures.Future[Any]:
        raise self.error


@pytest.mark.parametrize("error", [concurrent.futures.BrokenExecutor, ConnectionRefusedError])
def test_a_step_for_a_broken_pool_has_not_failed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: type[Exception],
) -> None:
    """Some other step brought it down: what comes after that has not begun, and the next engine runs it."""
    monkeypatch.setattr("zart_core.hosts.attempts.NO_THREAD_S", 0.01)
    url = url_of("sqlite", tmp_path)
    with zart.open(url, [asks], executor=Broken(error("it is away"))) as engine:
        handle = engine.start(asks, id="a")
        until(lambda: caplog.text.count("waits for one: it is away") > 1)
        assert kinds(handle.history()) == ["Started", "Issued", "Began"]
    with zart.open(url, [asks]) as engine:
        assert engine.get("a").result(PATIENCE_S) == "1"


class OneByOne:
    """Steps for an executor with one thread: the first holds it until its gate is open, the others stand in line."""

    def __init__(self, *, held_once: bool = False, **options: Any) -> None:
        self.ledger, self.gate = Ledger(), threading.Event()
        ledger, gate = self.ledger, self.gate

        @zart.step("hold", at_most_once=held_once)
        def hold() -> str:
            ledger("hold")
            assert gate.wait(PATIENCE_S)
            return "held"

        @zart.step("behind", **options)
        def behind() -> str:
            ledger("behind")
            return "ran"

        @zart.workflow("both")
        def both(_: None) -> zart.Flow[list[str]]:
            results = yield from zart.settle([hold(), behind()])
            return [
                one.value
                if isinstance(one, zart.Ok)
                else f"{type(one.error).__name__}: {getattr(one.error, 'message', '')}"
                for one in results
            ]

        self.both, self.behind = both, behind


def test_what_an_executor_has_not_begun_when_the_engine_closes_never_begins(tmp_path: Path) -> None:
    """It is handed over, so the next engine runs it; in this one it would run beside that."""
    steps, url = OneByOne(), url_of("sqlite", tmp_path)
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        with zart.open(url, [steps.both], executor=executor) as engine:
            engine.start(steps.both, id="a")
            until(lambda: steps.ledger.entries and engine.engine.attempts.running == 2)
        steps.gate.set()
    assert steps.ledger.entries == ["hold"]
    with zart.open(url, [steps.both]) as engine:
        assert engine.get("a").result(PATIENCE_S) == ["held", "ran"]


def test_what_an_executor_has_not_begun_when_it_is_told_to_end_never_begins() -> None:
    """R18: there is nothing to wait for, and nothing of it comes after what undoes it."""
    steps = OneByOne(cancel_grace="1h")

    @zart.workflow("waits")
    def waits(_: None) -> zart.Flow[str]:
        return (yield from steps.behind())

    with (
        concurrent.futures.ThreadPoolExecutor(1) as executor,
        zart.open("memory:", [steps.both, waits], executor=executor) as engine,
    ):
        first, second = engine.start(steps.both, id="a"), engine.start(waits, id="b")
        until(lambda: steps.ledger.entries and engine.engine.attempts.running == 3)
        second.cancel()
        with pytest.raises(zart.ExecutionCancelled):
            second.result(PATIENCE_S)
        ended = next(event for event in second.history() if isinstance(event, zart.Resolved))
        assert ended.outcome == zart.Cancellation("it was cancelled before it ran")
        steps.gate.set()
        assert first.result(PATIENCE_S) == ["held", "ran"]
    assert steps.ledger.entries == ["hold", "behind"]


class Distant(concurrent.futures.Executor):
    """An executor of other machines: what it has cancelled may run there all the same."""

    def __init__(self) -> None:
        self.pool = concurrent.futures.ThreadPoolExecutor(1)

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[Any]:
        """See Executor."""
        return self.pool.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """See Executor."""
        self.pool.shutdown(wait, cancel_futures=cancel_futures)


@pytest.mark.parametrize("distant", [False, True])
def test_what_may_run_once_only_and_was_not_begun_when_the_engine_closed_is_not_lost(
    tmp_path: Path, *, distant: bool
) -> None:
    """R10: the log says that it never ran, where that is sure; what ran is lost."""
    steps, url = OneByOne(held_once=True, at_most_once=True), url_of("sqlite", tmp_path)
    with Distant() if distant else concurrent.futures.ThreadPoolExecutor(1) as executor:
        with zart.open(url, [steps.both], executor=executor) as engine:
            engine.start(steps.both, id="a")
            until(lambda: steps.ledger.entries and engine.engine.attempts.running == 2)
        steps.gate.set()
    with zart.open(url, [steps.both]) as engine:
        assert engine.get("a").result(PATIENCE_S) == ["StepLost: ", "StepLost: " if distant else "ran"]
    assert steps.ledger.entries == (["hold"] if distant else ["hold", "behind"])


def test_what_finds_no_thread_until_the_engine_closes_is_not_lost(tmp_path: Path) -> None:
    """R10: it never ran."""
    steps, url = OneByOne(at_most_once=True), url_of("sqlite", tmp_path)
    executor = concurrent.futures.ThreadPoolExecutor(1)
    executor.shutdown()
    with zart.open(url, [steps.both], executor=executor) as engine:
        engine.start(steps.both, id="a")
        until(lambda: engine.engine.attempts.running == 2)
    steps.gate.set()
    with zart.open(url, [steps.both]) as engine:
        assert engine.get("a").result(PATIENCE_S) == ["held", "ran"]


def test_what_may_run_once_only_and_had_not_begun_when_the_lease_was_in_doubt_is_not_lost() -> None:
    """R10, F24: it begins once it is known that its execution is still here."""
    steps = OneByOne(at_most_once=True)
    with (
        concurrent.futures.ThreadPoolExecutor(1) as executor,
        zart.open("memory:", [steps.both], executor=executor) as engine,
    ):
        handle, attempts = engine.start(steps.both, id="a"), engine.engine.attempts
        until(lambda: steps.ledger.entries and attempts.running == 2)
        engine.engine.loop.call_soon_threadsafe(attempts.lapse)
        until(lambda: attempts.lapses >= 2)
        steps.gate.set()
        assert handle.result(PATIENCE_S) == ["held", "ran"]
    assert steps.ledger.entries == ["hold", "hold", "behind"]


def close_at_once_after_a_lapse(engine: zart.Engine) -> None:
    """The lease is in doubt, and before anything begins again the engine closes."""

    async def lapse_and_close() -> None:
        engine.engine.attempts.lapse()
        await engine.engine.close()

    asyncio.run_coroutine_threadsafe(lapse_and_close(), engine.engine.loop).result(PATIENCE_S)


def test_what_was_to_begin_again_when_its_engine_closed_is_handed_over(tmp_path: Path) -> None:
    """R5: nothing crashed, so no crash counts."""
    ledger, url = Ledger(), url_of("sqlite", tmp_path)

    @zart.step("stays", max_crashes=1)
    async def stays() -> int:
        if ledger("stays") == 1:
            await asyncio.Event().wait()
        return 1

    @zart.workflow("calm")
    def calm(_: None) -> zart.Flow[int]:
        return (yield from stays())

    with zart.open(url, [calm]) as engine:
        engine.start(calm, id="a")
        until(lambda: ledger.entries)
        close_at_once_after_a_lapse(engine)
    with zart.open(url, [calm]) as engine:
        assert engine.get("a").result(PATIENCE_S) == 1


def test_what_may_run_once_only_and_was_to_begin_still_when_its_engine_closed_is_not_lost(
    tmp_path: Path,
) -> None:
    """R10: it was held back, and never ran."""
    steps, url = OneByOne(at_most_once=True), url_of("sqlite", tmp_path)
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        with zart.open(url, [steps.both], executor=executor) as engine:
            engine.start(steps.both, id="a")
            until(lambda: steps.ledger.entries and engine.engine.attempts.running == 2)
            close_at_once_after_a_lapse(engine)
        steps.gate.set()
    with zart.open(url, [steps.both]) as engine:
        assert engine.get("a").result(PATIENCE_S) == ["held", "ran"]


@pytest.mark.parametrize("fault", ["unwritten", "written"])
def test_what_a_step_came_to_is_kept_though_its_engine_closes_before_it_is_read_back(
    tmp_path: Path, fault: Fault
) -> None:
    """Rule 3 of turns: outcomes are kept and offered again, whatever became of the turn that held them (L3)."""
    ledger, url = Ledger(), url_of("sqlite", tmp_path)

    @zart.step("once", at_most_once=True)
    def once() -> int:
        return ledger("once")

    @zart.workflow("careful")
    def careful(_: None) -> zart.Flow[int]:
        return (yield from once())

    log = FaultyStore(open_log(url), {1: fault})
    with zart.open(log, [careful]) as engine:
        recover, closings = engine.engine.recovery.recover, list[asyncio.Task[None]]()

        async def close_and_recover(*given: Any) -> None:
            closings.append(engine.engine.loop.create_task(engine.engine.close()))
            await asyncio.sleep(0)
            await recover(*given)

        engine.engine.recovery.recover = close_and_recover  # type: ignore[method-assign]
        engine.start(careful, id="a")
        until(lambda: closings)
    log.close()
    with zart.open(url, [careful]) as engine:
        assert engine.get("a").result(PATIENCE_S) == 1


def test_an_async_step_whose_engine_closes_just_before_it_begins_is_not_lost(tmp_path: Path) -> None:
    """R10: its task was cancelled before it ran."""
    ledger, url = Ledger(), url_of("sqlite", tmp_path)

    @zart.step("once", at_most_once=True)
    async def once() -> int:
        return ledger("once")

    @zart.workflow("careful")
    def careful(_: None) -> zart.Flow[int]:
        return (yield from once())

    async def main() -> None:
        async with zart.serve(url, [careful]) as engine:
            start, closings = engine.attempts.start, list[asyncio.Task[None]]()

            def start_and_close(*given: Any) -> None:
                closings.append(engine.loop.create_task(engine.close()))
                start(*given)

            engine.attempts.start = start_and_close  # type: ignore[method-assign]
            await engine.start(careful, id="a")
            while not closings:
                await asyncio.sleep(0)
            await closings[0]
        assert ledger.entries == []
        async with zart.serve(url, [careful]) as engine:
            assert await (await engine.get("a")).result(PATIENCE_S) == 1

    asyncio.run(main())


def test_what_times_out_before_its_executor_begins_it_never_begins() -> None:
    """R7: its time is over, and nothing that comes after it meets what it does."""
    steps = OneByOne(timeout=0.05, timeout_scope=zart.TimeoutScope.PER_ATTEMPT)
    with (
        concurrent.futures.ThreadPoolExecutor(1) as executor,
        zart.open("memory:", [steps.both], executor=executor) as engine,
    ):
        handle = engine.start(steps.both)
        until(lambda: steps.ledger.entries and engine.engine.attempts.running == 1)
        until(lambda: kinds(handle.history()).count("Resolved") == 1)
        steps.gate.set()
        assert handle.result(PATIENCE_S) == ["held", "StepTimedOut: "]
    assert steps.ledger.entries == ["hold"]


def test_what_an_executor_cancels_by_itself_has_not_failed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As when it is shut down with cancel_futures=True: it did not run, and the next engine runs it."""
    steps, url = OneByOne(), url_of("sqlite", tmp_path)
    executor = concurrent.futures.ThreadPoolExecutor(1)
    with zart.open(url, [steps.both], executor=executor) as engine:
        handle = engine.start(steps.both, id="a")
        until(lambda: steps.ledger.entries and engine.engine.attempts.running == 2)
        executor.shutdown(wait=False, cancel_futures=True)
        steps.gate.set()
        until(lambda: kinds(handle.history()).count("Resolved") == 1)
        assert "'behind' finds no thread, and waits for one: its executor cancelled it" in caplog.text
    with zart.open(url, [steps.both]) as engine:
        assert engine.get("a").result(PATIENCE_S) == ["held", "ran"]
    assert steps.ledger.entries == ["hold", "behind"]


def test_what_an_executor_cancels_that_may_run_once_only_fails() -> None:
    """R10: an executor of many machines may have begun it."""
    steps = OneByOne(at_most_once=True)
    executor = concurrent.futures.ThreadPoolExecutor(1)
    with zart.open("memory:", [steps.both], executor=executor) as engine:
        handle = engine.start(steps.both)
        until(lambda: steps.ledger.entries and engine.engine.attempts.running == 2)
        executor.shutdown(wait=False, cancel_futures=True)
        steps.gate.set()
        assert handle.result(PATIENCE_S) == [
            "held",
            "StepFailed: its executor cancelled it before it had begun",
        ]


@zart.step()
def work() -> int:
    return 1


@zart.workflow("works")
def works(_: None) -> zart.Flow[int]:
    return (yield from work())


def test_a_start_that_cannot_be_written_down_gives_its_slots_back() -> None:
    """Else a few of them are the end of every step in this engine."""
    seal = Keyless()

    with zart.open("memory:", [works], codec=Codec(seal=seal), max_concurrent_steps=2) as engine:
        seal.without = b"Issued"
        for _ in range(3):
            with pytest.raises(ConnectionError):
                engine.start(works)
        seal.without = b"nothing"
        assert engine.start(works).result(PATIENCE_S) == 1


def threads_refused(monkeypatch: pytest.MonkeyPatch, prefix: str, times: int) -> list[str]:
    """From now on so many threads whose names begin so cannot be started; gives their names as it happens."""
    refused: list[str] = []
    start = threading.Thread.start

    def start_or_not(self: threading.Thread) -> None:
        if self.name.startswith(prefix) and len(refused) < times:
            refused.append(self.name)
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", start_or_not)
    return refused


def test_what_an_executor_refuses_is_never_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its caller was told that it was not taken; no other thread may find it in line."""
    executor, ledger, gate = DaemonExecutor("refusing"), Ledger(), threading.Event()
    first = executor.submit(gate.wait, PATIENCE_S)
    threads_refused(monkeypatch, "refusing", 1)
    with pytest.raises(RuntimeError):
        executor.submit(ledger, "refused")
    gate.set()
    assert first.result(PATIENCE_S)
    assert [executor.submit(ledger, n).result(PATIENCE_S) for n in (1, 2)] == [1, 1]
    executor.shutdown()
    assert ledger.entries == [1, 2]


def test_a_machine_without_threads_is_no_failure_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits until there is one: nothing of it has happened, so nothing is on record."""
    monkeypatch.setattr("zart_core.hosts.attempts.NO_THREAD_S", 0.01)

    with zart.open("memory:", [works]) as engine:
        refused = threads_refused(monkeypatch, "zart-step", 3)
        handle = engine.start(works)
        assert handle.result(PATIENCE_S) == 1
        assert kinds(handle.history()) == ["Started", "Issued", "Began", "Resolved", "Closed"]
    assert refused == ["zart-step-1"] * 3


def test_a_step_that_finds_no_thread_times_out_like_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """R7: its own countdown goes on meanwhile, and it never begins after that."""
    monkeypatch.setattr("zart_core.hosts.attempts.NO_THREAD_S", 0.01)
    ledger = Ledger()

    @zart.step(timeout=0.03, timeout_scope=zart.TimeoutScope.PER_ATTEMPT)
    def work() -> int:
        return ledger("work")

    @zart.workflow("works")
    def works(_: None) -> zart.Flow[int]:
        return (yield from zart.step_or(work(), -1))

    with zart.open("memory:", [works]) as engine:
        threads_refused(monkeypatch, "zart-step", 1_000_000)
        assert engine.start(works).result(PATIENCE_S) == -1
    assert ledger.entries == []


# ---------------------------------------------------------------- clocks (F13)


def test_timers_are_never_early_and_never_twice_whatever_the_clock_does() -> None:
    """The clock jumps forward, back and forward again: one wake-up, at or after the recorded instant (R13, F13)."""
    clock = VirtualClock()

    @zart.workflow("naps")
    def naps(_: None) -> zart.Flow[float]:
        yield from zart.sleep("nap", "1h")
        when = yield from zart.now("woken")
        yield from zart.sleep("again", "1h")
        return when.timestamp()

    with zart.open("memory:", [naps], clock=clock) as engine:
        handle = engine.start(naps, None)
        clock.jump(minutes=-30)
        clock.jump(minutes=89)
        assert kinds(handle.history()).count("Resolved") == 0
        clock.jump(minutes=1)
        until(lambda: kinds(handle.history()).count("Resolved") == 1)
        clock.jump(hours=-5)
        clock.jump(hours=5)
        assert kinds(handle.history()).count("Resolved") == 1
        clock.jump(hours=1)
        assert handle.result(5) == T0 + 3600
        times = [event.at for event in handle.history()]
    assert times == sorted(times)


def test_times_never_decrease_though_the_clock_does() -> None:
    """Recorded times of an execution never go back (I2), across restarts and facts of every kind."""
    clock = VirtualClock()
    ledger = Ledger()

    @zart.step("a-{n}", retry=zart.Retry.fixed(3, 0))
    def a(n: int) -> int:
        clock.jump(minutes=-10)
        if ledger(n) == 1:
            raise RuntimeError("again")
        return n

    @zart.workflow("goes")
    def goes(_: None) -> zart.Flow[list[int]]:
        values = []
        for n in range(3):
            values.append((yield from a(n)))
            clock.jump(minutes=30)
        values.append((yield from zart.wait_for_event("number", int)))
        return values

    log = open_log("memory:")
    with zart.open(log, [goes], clock=clock) as engine:
        handle = engine.start(goes, None, id="a")
        until(lambda: (clock.jump(minutes=15), handle.status() is zart.Status.WAITING)[1])
    clock.jump(hours=-5)
    with zart.open(log, [goes], clock=clock) as engine:
        handle = engine.get("a")
        handle.send("number", 9)
        assert handle.result(5) == [0, 1, 2, 9]
        times = [event.at for event in handle.history()]
    assert times == sorted(times)
    log.verify()
    log.close()


def test_a_real_clock_is_waited_for() -> None:
    """With the machine's own clock a sleep takes as long as it says, at least."""

    @zart.workflow("naps")
    def naps(_: None) -> zart.Flow[timedelta]:
        began = yield from zart.now("began")
        yield from zart.sleep("nap", 0.1)
        return (yield from zart.now("ended")) - began

    with zart.open("memory:", [naps]) as engine:
        assert engine.run(naps, None) >= timedelta(seconds=0.1)
