"""Sync steps in an executor of other processes: what cannot be sent there, what comes back, and what dies there."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
from engines import PATIENCE_S, kinds, until, url_of

import zart_core as zart
from zart_core.commands import Step

Pool = Any


def pool_of_two() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(2, multiprocessing.get_context("spawn"))


@pytest.fixture
def pool() -> Iterator[Executor]:
    """Two processes."""
    with pool_of_two() as executor:
        yield executor


@attrs.frozen
class Socket:
    """Can be written down, and not be pickled."""

    port: int

    def __getstate__(self) -> Any:
        raise TypeError("a socket stays where it is")


@zart.step()
def listen(queue: int, socket: Socket) -> int:
    return queue + socket.port


@zart.workflow("listens")
def listens(_: None) -> zart.Flow[int]:
    return (yield from listen(1, Socket(80)))


@zart.step()
def mistaken(what: str) -> int:
    """Raises what pickle raises, too."""
    if what == "pickle":
        pickle.dumps(lambda: 1)
    raise TypeError("no such thing")


@zart.step()
def opens() -> Any:
    """Gives what cannot be sent back."""
    return Socket(80)


def named(command: Step[Any]) -> zart.Workflow[None, str]:
    """A workflow of one step that gives what it comes to."""

    @zart.workflow("one")
    def one(_: None) -> zart.Flow[str]:
        try:
            return str((yield from command))
        except zart.StepFailed as error:
            return f"{error.error_type}: {error.message}"

    return one


# ---------------------------------------------------------------- what cannot be sent (R20)


@pytest.mark.parametrize("at_most_once", [False, True])
def test_a_function_that_cannot_be_sent_parks_its_execution(
    pool: Pool, tmp_path: Path, *, at_most_once: bool
) -> None:
    """It is no answer of the step but a mistake of code: it says what to do, and goes on with code that is right."""

    @zart.step(at_most_once=at_most_once)
    def hidden() -> int:
        return 1

    @zart.workflow("hides")
    def hides(_: None) -> zart.Flow[int]:
        return (yield from hidden())

    url = url_of("sqlite", tmp_path)
    with zart.open(url, [hides], executor=pool) as engine:
        handle = engine.start(hides, id="a")
        with pytest.raises(zart.Defect, match="step 'hidden' cannot be sent to its executor: its function"):
            handle.result(PATIENCE_S)
        until(lambda: handle.status() is zart.Status.PARKED)
        assert kinds(handle.history()) == ["Started", "Issued", "Began", "Noted"]
    with zart.open(url, [hides]) as engine:
        handle = engine.get("a")
        assert handle.result(PATIENCE_S) == 1
        began = [event for event in handle.history() if isinstance(event, zart.Began)]
        assert [event.takeover for event in began] == [None, None]


def test_an_argument_that_cannot_be_sent_parks_its_execution(pool: Pool) -> None:
    """The reason names it."""
    with zart.open("memory:", [listens], executor=pool) as engine:
        handle = engine.start(listens)
        with pytest.raises(zart.Defect, match=r"argument 'socket' .*TypeError: a socket stays where it is"):
            handle.result(PATIENCE_S)


def test_what_cannot_be_sent_hinders_no_other_step_of_its_execution(pool: Pool) -> None:
    """What ran beside it is on record when the execution goes on, in the same engine with other code."""

    @zart.step()
    async def beside() -> int:
        return 1

    def both_of(step: zart.StepFunction[..., int]) -> zart.Workflow[None, Any]:
        @zart.workflow("both")
        def both(_: None) -> zart.Flow[Any]:
            return (yield from zart.gather(step(), beside()))

        return both

    @zart.step("work")
    def hidden() -> int:
        return 2

    @zart.step("work")
    async def mended() -> int:
        return 3

    both = both_of(hidden)
    with zart.open("memory:", [both], executor=pool) as engine:
        handle = engine.start(both)
        until(lambda: handle.status() is zart.Status.PARKED)
        engine.register(both_of(mended))
        assert handle.result(PATIENCE_S) == (3, 1)


@pytest.mark.parametrize(
    ("command", "what"),
    [
        (mistaken("type"), "TypeError: no such thing"),
        (mistaken("pickle"), "lambda"),
        (opens(), "TypeError: a socket stays where it is"),
    ],
)
def test_what_a_step_raises_or_gives_in_another_process_is_its_outcome(
    pool: Pool, command: Step[Any], what: str
) -> None:
    """Its own errors of pickling are answers, and so is a result that cannot be sent back (R9)."""
    one = named(command)
    with zart.open("memory:", [one], executor=pool) as engine:
        assert what in engine.run(one)


# ---------------------------------------------------------------- what dies there (R5, R10)


@zart.step("die-{times}-times", max_crashes=2)
def die(where: str, times: int) -> str:
    """Takes its process along, so many times."""
    before = len(list(Path(where).glob("death-*")))
    if before < times:
        (Path(where) / f"death-{before}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return f"died {before} times"


@zart.step(at_most_once=True)
def die_once(where: str) -> str:
    return str(die.fn(where, 1))


@zart.step("die-beside", max_crashes=2)
def die_beside(where: str) -> str:
    """Takes its process along, each time, once the other one runs."""
    until(lambda: (Path(where) / "alive").exists())
    return str(die.fn(where, 99))


@zart.step("live", max_crashes=1)
def live(where: str) -> str:
    """Runs until somebody has died, and a while longer."""
    (Path(where) / "alive").touch()
    until(lambda: list(Path(where).glob("death-*")))
    time.sleep(0.5)
    return "lived"


@zart.workflow("lonely")
def lonely(given: tuple[str, int]) -> zart.Flow[str]:
    return (yield from die(*given))


@zart.workflow("careful")
def careful(where: str) -> zart.Flow[str]:
    try:
        return (yield from die_once(where))
    except zart.StepLost as lost:
        return str(lost)


@zart.workflow("crowded")
def crowded(where: str) -> zart.Flow[list[str]]:
    results = yield from zart.settle([die_beside(where), live(where)])
    return [one.value if isinstance(one, zart.Ok) else type(one.error).__name__ for one in results]


def takeovers(handle: zart.Handle[Any], seq: int = 0) -> list[int | None]:
    """The crashes held against a step, by each of its starts on record."""
    return [
        event.takeover for event in handle.history() if isinstance(event, zart.Began) and event.seq == seq
    ]


@pytest.mark.parametrize("times", [1, 99])
def test_a_step_whose_process_dies_has_crashed_and_not_failed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, times: int
) -> None:
    """R5: nothing is recorded, and the next engine takes it for what it is; after max_crashes the step is lost."""
    url, where = url_of("sqlite", tmp_path), str(tmp_path)
    with pool_of_two() as executor, zart.open(url, [lonely], executor=executor) as engine:
        handle = engine.start(lonely, (where, times), id="a")
        until(lambda: "steps wait for an executor that broke" in caplog.text)
        assert kinds(handle.history()) == ["Started", "Issued", "Began"]
    caplog.clear()
    with pool_of_two() as executor, zart.open(url, [lonely], executor=executor) as engine:
        handle = engine.get("a")
        if times == 1:
            assert handle.result(PATIENCE_S) == "died 1 times"
        else:
            until(lambda: "steps wait for an executor that broke" in caplog.text)
        assert takeovers(handle) == [None, 1]
    if times > 1:
        with pool_of_two() as executor, zart.open(url, [lonely], executor=executor) as engine:
            with pytest.raises(zart.ExecutionFailed, match="brought down its worker 2 times") as caught:
                engine.get("a").result(PATIENCE_S)
            assert isinstance(caught.value.__cause__, zart.StepLost)


def test_a_step_that_may_run_once_only_is_lost_with_its_process(pool: Pool, tmp_path: Path) -> None:
    """R10: it may have been running, and the workflow decides."""
    with zart.open("memory:", [careful], executor=pool) as engine:
        assert "may run at most once, and its process died" in engine.run(careful, str(tmp_path))


class Healing(Executor):
    """A pool that is replaced when it has broken."""

    def __init__(self) -> None:
        self.inner = pool_of_two()

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        """See Executor."""
        try:
            return self.inner.submit(fn, *args, **kwargs)
        except BrokenExecutor:
            self.inner = pool_of_two()
            raise

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """See Executor."""
        self.inner.shutdown(wait, cancel_futures=cancel_futures)


def test_a_killer_in_a_pool_that_heals_is_found_and_its_neighbour_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R5: all that ran in the pool is suspect and starts one at a time, so that one killer condemns nobody else."""
    monkeypatch.setattr("zart_core.hosts.attempts.NO_THREAD_S", 0.05)
    with Healing() as executor, zart.open("memory:", [crowded], executor=executor) as engine:
        handle = engine.start(crowded, str(tmp_path), id="a")
        assert handle.result(30) == ["StepLost", "lived"]
        assert takeovers(handle, 1)[-1] == 0


class Fragile(Executor):
    """Runs nothing but what is harmless, until it is broken or mended by hand."""

    def __init__(self) -> None:
        self.broken = False
        self.futures: list[Future[Any]] = []
        self.calls: list[Any] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        """See Executor."""
        if self.broken:
            raise BrokenExecutor("it is broken")
        future: Future[Any] = Late(self) if fn is not int else Future()
        future.set_running_or_notify_cancel()
        if fn is int:
            future.set_result(0)
        else:
            self.futures.append(future)
            self.calls.append(partial(fn, *args, **kwargs))
        return future

    def smash(self) -> None:
        """Break: what runs in it is gone."""
        self.broken = True
        futures, self.futures, self.calls = self.futures, [], []
        for future in futures:
            future.set_exception(BrokenExecutor("it broke"))

    def finish(self) -> None:
        """Run the oldest call."""
        future, call = self.futures.pop(0), self.calls.pop(0)
        try:
            future.set_result(call())
        except Exception as error:
            future.set_exception(error)


class Late(Future[Any]):
    """Breaks with its pool when it is cancelled, where that is asked for."""

    def __init__(self, executor: Fragile) -> None:
        super().__init__()
        self.executor = executor

    def cancel(self) -> bool:
        """See Future."""
        if getattr(self.executor, "ends_with_engine", False) and not self.done():
            self.executor.smash()
        return super().cancel()


@zart.step("work", retry=zart.Retry.fixed(5, 0))
def work() -> int:
    return 1


@zart.step("work", timeout=0.2, timeout_scope=zart.TimeoutScope.PER_ATTEMPT)
def hasty() -> int:
    return 1


@zart.step("work", timeout=0.2)
def brief() -> int:
    return 1


def one_of(step: zart.StepFunction[[], int]) -> zart.Workflow[None, int]:
    @zart.workflow("w")
    def flow(_: None) -> zart.Flow[int]:
        return (yield from step())

    return flow


@pytest.fixture
def fragile(monkeypatch: pytest.MonkeyPatch) -> Fragile:
    monkeypatch.setattr("zart_core.hosts.attempts.NO_THREAD_S", 0.01)
    return Fragile()


def broken_with(engine: zart.Engine, executor: Fragile, flow: zart.Workflow[None, Any]) -> zart.Handle[Any]:
    """An execution whose step's executor has just broken."""
    handle = engine.start(flow, id="a")
    until(lambda: executor.futures)
    executor.smash()
    until(lambda: any(one.broke for live in engine.engine.live.values() for one in live.calls.values()))
    return handle


def test_a_step_begins_again_when_its_executor_works_again(fragile: Fragile) -> None:
    """By itself, with the crash on record before it; no retry is used up."""
    with zart.open("memory:", [flow := one_of(work)], executor=fragile) as engine:
        handle = broken_with(engine, fragile, flow)
        time.sleep(0.05)
        assert kinds(handle.history()) == ["Started", "Issued", "Began"]
        fragile.broken = False
        until(lambda: fragile.futures)
        assert takeovers(handle) == [None, 1]
        fragile.finish()
        assert handle.result(PATIENCE_S) == 1
        assert engine.engine.attempts.slots == engine.engine.attempts.slots_max


def test_all_that_an_executor_broke_with_are_suspects_together(fragile: Fragile) -> None:
    """R5: it is not known whose doing it was, so they begin one at a time, and nothing is held against them."""
    with zart.open("memory:", [flow := one_of(work)], executor=fragile) as engine:
        handles = [engine.start(flow, id=id) for id in ("a", "b")]
        until(lambda: len(fragile.futures) == 2)
        fragile.smash()
        until(lambda: len(engine.engine.attempts.broken()) == 2)
        fragile.broken = False
        for count in (1, 2):
            until(lambda: fragile.futures)
            time.sleep(0.05)
            assert len(fragile.futures) == 1
            assert sorted(len(takeovers(handle)) for handle in handles) == [count, 2]
            fragile.finish()
        assert [handle.result(PATIENCE_S) for handle in handles] == [1, 1]
        assert [takeovers(handle) for handle in handles] == [[None, 0], [None, 0]]


@pytest.mark.parametrize("closes", [False, True])
def test_what_broke_beside_others_that_need_no_trial_is_not_condemned(
    fragile: Fragile, tmp_path: Path, *, closes: bool
) -> None:
    """R5: the crash may be the doing of what may run once only, which is lost; here, or in the next engine."""

    @zart.step("once", at_most_once=True)
    def once() -> int:
        return 1

    @zart.step("innocent", max_crashes=1)
    def innocent() -> int:
        return 1

    @zart.workflow("w")
    def flow(_: None) -> zart.Flow[list[bool]]:
        return [isinstance(one, zart.Ok) for one in (yield from zart.settle([once(), innocent()]))]

    url = url_of("sqlite", tmp_path)
    with zart.open(url, [flow], executor=fragile) as engine:
        handle = engine.start(flow, id="a")
        until(lambda: len(fragile.futures) == 2)
        fragile.smash()
        until(lambda: engine.engine.attempts.sure)
        if not closes:
            fragile.broken = False
            until(lambda: fragile.futures)
            fragile.finish()
            assert handle.result(PATIENCE_S) == [False, True]
    with zart.open(url, [flow]) as engine:
        assert engine.get("a").result(PATIENCE_S) == [False, True]


def test_a_lease_that_lapses_while_an_executor_is_broken_changes_nothing(fragile: Fragile) -> None:
    """What broke does not run; it is a suspect as before."""
    with zart.open("memory:", [flow := one_of(work)], executor=fragile) as engine:
        handle = broken_with(engine, fragile, flow)
        engine.engine.loop.call_soon_threadsafe(engine.engine.attempts.lapse)
        time.sleep(0.1)
        assert takeovers(handle) == [None]
        fragile.broken = False
        until(lambda: fragile.futures)
        assert takeovers(handle) == [None, 1]
        fragile.finish()
        assert handle.result(PATIENCE_S) == 1


def test_an_execution_that_is_parked_while_its_executor_is_broken_is_let_go_afterwards(
    fragile: Fragile,
) -> None:
    """It holds no slot of an executor that works, and whoever takes it up with other code finds the suspect."""

    def flow_of(what: Any) -> zart.Workflow[None, Any]:
        def waits() -> zart.Flow[None]:
            yield from zart.wait_for_event("go")
            yield what()

        @zart.workflow("w")
        def flow(_: None) -> zart.Flow[Any]:
            return (yield from zart.gather(work(), waits()))

        return flow

    log = zart.open_log("memory:")
    wrong = flow_of(lambda: "nonsense")
    with zart.open(log, [wrong], executor=fragile) as engine:
        handle = broken_with(engine, fragile, wrong)
        handle.send("go", None)
        until(lambda: handle.status() is zart.Status.PARKED)
        fragile.broken = False
        until(lambda: not engine.engine.live)
        assert engine.engine.attempts.slots == engine.engine.attempts.slots_max
    with zart.open(log, [flow_of(lambda: zart.sleep("nap", 0))]) as engine:
        handle = engine.get("a")
        assert handle.result(PATIENCE_S) == (1, None)
        assert takeovers(handle) == [None, 1]
    log.close()


def test_a_step_that_is_cancelled_while_its_executor_is_broken_ends_at_once(fragile: Fragile) -> None:
    """R18: nothing of it runs that could be waited for."""
    with zart.open("memory:", [flow := one_of(work)], executor=fragile) as engine:
        handle = broken_with(engine, fragile, flow)
        handle.cancel("enough")
        with pytest.raises(zart.ExecutionCancelled):
            handle.result(PATIENCE_S / 2)


def test_a_step_whose_executor_breaks_while_it_is_told_to_end_has_ended(fragile: Fragile) -> None:
    """R18: its grace is over with it."""
    with zart.open("memory:", [flow := one_of(work)], executor=fragile) as engine:
        handle = engine.start(flow, id="a")
        until(lambda: fragile.futures)
        handle.cancel("enough")
        until(lambda: any(one.told for live in engine.engine.live.values() for one in live.calls.values()))
        fragile.smash()
        with pytest.raises(zart.ExecutionCancelled):
            handle.result(PATIENCE_S / 2)


@pytest.mark.parametrize("step", [hasty, brief])
def test_a_step_whose_executor_stays_broken_times_out_like_others(
    fragile: Fragile, step: zart.StepFunction[[], int]
) -> None:
    """R7: its time goes on."""
    with zart.open("memory:", [flow := one_of(step)], executor=fragile) as engine:
        handle = broken_with(engine, fragile, flow)
        with pytest.raises(zart.ExecutionFailed, match="timed out"):
            handle.result(PATIENCE_S)


def test_an_executor_that_breaks_while_the_engine_closes_is_no_crash(
    fragile: Fragile, tmp_path: Path
) -> None:
    """As when whoever stops the program stops its other processes as well: what ran is handed over (R5)."""
    url, flow = url_of("sqlite", tmp_path), one_of(work)
    with zart.open(url, [flow], executor=fragile) as engine:
        engine.start(flow, id="a")
        until(lambda: fragile.futures)
        fragile.ends_with_engine = True  # type: ignore[attr-defined]
    assert fragile.broken
    with zart.open(url, [flow]) as engine:
        handle = engine.get("a")
        assert handle.result(PATIENCE_S) == 1
        assert kinds(handle.history())[:5] == ["Started", "Issued", "Began", "Noted", "Began"]
        assert takeovers(handle) == [None, None]


@zart.step()
def broken_itself() -> int:
    """Has a pool of its own."""
    raise BrokenProcessPool("of its own")


@pytest.mark.parametrize("where", ["threads", "processes"])
def test_a_step_whose_own_pool_broke_has_failed(pool: Pool, where: str) -> None:
    """What its function raises is an answer, whatever it is."""
    one = named(broken_itself())
    with zart.open("memory:", [one], executor=pool if where == "processes" else None) as engine:
        assert engine.run(one) == "concurrent.futures.process.BrokenProcessPool: of its own"


def test_a_pool_of_threads_that_breaks_has_begun_nothing(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Its initializer raised: what stood in its line runs in the next engine, once only or not (R10)."""

    @zart.step(at_most_once=True)
    def once() -> int:
        return 1

    def initialize() -> None:
        raise ValueError("not today")

    url, flow = url_of("sqlite", tmp_path), one_of(once)
    executor = ThreadPoolExecutor(1, initializer=initialize)
    with zart.open(url, [flow], executor=executor) as engine:
        engine.start(flow, id="a")
        until(lambda: "step 'once' finds no thread, and waits for one" in caplog.text)
    with zart.open(url, [flow]) as engine:
        assert engine.get("a").result(PATIENCE_S) == 1


class Declined(Exception):
    """Its constructor takes other things than `args`, which pickle calls it with."""

    def __init__(self, *, code: int, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code, self.reason = code, reason


@zart.step(raises=(Declined,))
def decline() -> int:
    raise Declined(code=51, reason="no funds")


@zart.workflow("declines")
def declines(_: None) -> zart.Flow[tuple[int, str, str]]:
    try:
        yield from decline()
    except Declined as error:
        return error.code, error.reason, str(error)
    raise AssertionError


def test_an_error_that_pickle_cannot_make_again_comes_back_all_the_same(pool: Pool) -> None:
    """R8: with its fields, where a pool of processes would break over it."""
    with zart.open("memory:", [declines], executor=pool) as engine:
        handle = engine.start(declines)
        assert handle.result(PATIENCE_S) == (51, "no funds", "51: no funds")
        (failed,) = [event for event in handle.history() if isinstance(event, zart.Resolved)]
        assert "raise Declined(code=51" in str(failed.outcome)
        assert pool.submit(int).result(PATIENCE_S) == 0


def test_such_an_error_comes_back_from_an_executor_that_has_no_other_processes(fragile: Fragile) -> None:
    """It did not travel, and is the same."""
    with zart.open("memory:", [declines], executor=fragile) as engine:
        handle = engine.start(declines)
        until(lambda: fragile.futures)
        fragile.finish()
        assert handle.result(PATIENCE_S) == (51, "no funds", "51: no funds")
