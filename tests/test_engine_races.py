"""Races of the engine that simulated worlds have found, each made to happen at the moment where it was lost."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from engines import Ledger, Sky, until

import zart_core as zart
from zart_core.hosts.engine import AsyncEngine
from zart_core.hosts.ports import open_log
from zart_core.hosts.relatives import new_execution
from zart_core.interpreter import CODEC
from zart_core.log import Appended, Mark, Message, New, Post, Rejected, Turn, Write


class Held(Sky):
    """A log that blocks, and whose reads and writes call `meanwhile` with their name before they are made."""

    blocking = True  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__(open_log("memory:"))
        self.meanwhile: Callable[[str], None] = lambda what: None

    def append(self, batch: Sequence[Write]) -> list[Appended]:
        """See EventLog."""
        for write in batch:
            self.meanwhile(f"{type(write).__name__} {write.id}")
        return super().append(batch)

    def reach(self, method: str) -> None:
        """See Relay."""
        self.meanwhile(method)


async def state_of(engine: AsyncEngine) -> tuple[int, int]:
    """How many attempts run and how many are known, between two callbacks of the loop."""
    return engine.attempts.running, sum(len(live.calls) for live in engine.live.values())


def test_a_start_whose_answer_was_lost_has_one_live_copy() -> None:
    """R15: what the log gives of an execution that is just being created is no second one beside it."""
    ledger, gate = Ledger(), threading.Event()

    @zart.step("work")
    def work() -> int:
        ledger("work")
        gate.wait(20)
        return 1

    @zart.workflow("w")
    def flow(_: None) -> zart.Flow[int]:
        done = yield from work()
        return done + (yield from zart.wait_for_event("number", int))

    class Deaf(Sky):
        given = 0

        def append(self, batch: Sequence[Write]) -> list[Appended]:
            outcomes = super().append(batch)
            if not self.forecast and not self.given and isinstance(batch[0], New):
                self.log.append([Post("a", "event", "number", b"7", 0.0)])  # as somebody elsewhere
                engine.engine.loop.call_soon_threadsafe(engine.engine.claims.claiming.set)
            return outcomes

        def claim(self, worker: str, **options: Any) -> Any:
            found = super().claim(worker, **options)
            self.given += len(found)
            return found

        def summary(self, id: str) -> Any:
            if not self.given:
                raise zart.StoreUnavailable("the store cannot be reached")
            return super().summary(id)

    log = Deaf(open_log("memory:"))
    log.match = lambda write: isinstance(write, New)
    log.forecast = ["written"]
    with zart.open(log, [flow]) as engine:
        handle = engine.start(flow, None, id="a")
        until(lambda: engine.engine.live["a"].calls)
        try:
            assert engine.await_(state_of(engine.engine)) == (1, 1)
        finally:
            gate.set()
        assert handle.result(10) == 8
    assert ledger.entries == ["work"]
    assert log.given == 1


def test_a_slot_that_is_free_before_the_creation_is_durable_is_taken() -> None:
    """An execution that was built without a slot gets in line only if there is none when it is there."""
    gate = threading.Event()
    log = Held()

    @zart.step("work-{n}")
    def work(n: int) -> int:
        if n == 1:
            gate.wait(20)
        return n

    @zart.workflow("w")
    def flow(n: int) -> zart.Flow[int]:
        return (yield from work(n))

    with zart.open(log, [flow], max_concurrent_steps=1) as engine:

        def meanwhile(what: str) -> None:
            if what == "New b":
                gate.set()
                until(lambda: engine.engine.attempts.slots == 1 and engine.engine.live["a"].writing)

        first = engine.start(flow, 1, id="a")
        log.meanwhile = meanwhile
        second = engine.start(flow, 2, id="b")
        assert [first.result(10), second.result(10)] == [1, 2]


def test_a_run_that_somebody_else_continued_is_not_told_as_the_end() -> None:
    """R1: a worker that reads a run of which another has meanwhile opened the next tells nobody that it ended."""

    @zart.workflow("w")
    def flow(left: int) -> zart.Flow[str]:
        yield from zart.wait_for_event("go")
        if left:
            yield from flow.continue_as_new(left - 1)
        return "done"

    entered, gate = threading.Event(), threading.Event()
    log = Held()
    with zart.open(log.log, [flow]) as engine:
        engine.start(flow, 1, id="a")

    def meanwhile(what: str) -> None:
        if what == "records" and not entered.is_set():
            entered.set()
            gate.wait(20)

    log.meanwhile = meanwhile
    with zart.open(log, [flow]) as engine, ThreadPoolExecutor(1) as client:
        engine.send("a", "go", None)
        assert entered.wait(10)
        result = client.submit(engine.get("a").result, 20)
        until(lambda: engine.engine.results.waiters)
        log.log.release(engine.engine.worker)  # as if its lease had run out
        with zart.open(log.log, [flow]):
            until(lambda: (item := log.log.summary("a")) and item.run == 1)
        gate.set()
        engine.send("a", "go", None)
        assert result.result(20) == "done"


def test_an_engine_that_closes_puts_nothing_away_before_its_first_turn() -> None:
    """L8: however few may live, what was taken up while the engine closed is still due to the next one."""

    @zart.workflow("w")
    def flow(_: None) -> zart.Flow[int]:
        yield from zart.now("began")
        return 7

    entered = threading.Event()
    log = Held()
    with zart.open(log, [flow], max_live=1) as engine:

        def meanwhile(what: str) -> None:
            if what == "records" and not entered.is_set():
                entered.set()
                until(lambda: engine.engine.closing)

        log.meanwhile = meanwhile
        log.log.append([new_execution(CODEC, flow, id, b"null", 0.0) for id in ("a", "b")])
        engine.engine.loop.call_soon_threadsafe(engine.engine.claims.claiming.set)
        assert entered.wait(10)
    with zart.open(log.log, [flow]) as engine:
        assert [engine.get(id).result(10) for id in ("a", "b")] == [7, 7]


@pytest.mark.parametrize("fails", [False, True])
def test_a_sync_step_that_ends_while_the_engine_closes_is_no_complaint(fails: bool) -> None:
    """What it raised is on record as its outcome, and the event loop has nothing to say about it."""
    complaints: list[str] = []
    engines: list[AsyncEngine] = []
    log = open_log("memory:")

    @zart.step("work")
    def work() -> int:
        until(lambda: engines and engines[0].closing)
        if fails:
            raise RuntimeError("too late")
        return 1

    @zart.workflow("w")
    def flow(_: None) -> zart.Flow[int]:
        return (yield from zart.step_or(work(), -1))

    async def close_meanwhile() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: complaints.append(context["message"]))
        async with zart.serve(log, [flow]) as engine:
            await engine.start(flow, None, id="a")
            engines.append(engine)
        gc.collect()
        await asyncio.sleep(0)

    asyncio.run(close_meanwhile())
    assert complaints == []
    with zart.open(log, [flow]) as engine:
        assert engine.get("a").result(10) == (-1 if fails else 1)


def test_who_waits_is_told_while_it_asks_the_log_and_the_log_does_not_answer() -> None:
    """It asks again; what it was told meanwhile is no complaint of the event loop."""
    complaints: list[str] = []
    log = Sky(open_log("memory:"))

    @zart.workflow("w")
    def flow(_: None) -> zart.Flow[int]:
        return 1
        yield

    async def told_meanwhile() -> None:
        asyncio.get_running_loop().set_exception_handler(
            lambda loop, context: complaints.append(context["message"])
        )
        async with zart.serve(log, [flow]) as engine:
            handle = await engine.start(flow, None, id="a")
            assert await handle.result(10) == 1
            told: list[str] = []

            def once(method: str) -> None:
                if not told:
                    told.append(method)
                    engine.results.look_again("a")  # as when it is let go, or parked
                    raise zart.StoreUnavailable("the store cannot be reached")

            log.reach = once  # type: ignore[method-assign]
            assert await handle.result(10) == 1
            assert told == ["summary"]
        gc.collect()
        await asyncio.sleep(0)

    asyncio.run(told_meanwhile())
    assert complaints == []
    log.close()


def test_a_slot_offered_to_who_loses_its_execution_goes_to_the_next_in_line() -> None:
    """I18: it is called in while its turn is being written, and that turn is refused: it never uses the slot."""
    ledger, gates = Ledger(), [threading.Event() for _ in range(3)]
    held, refused = threading.Event(), threading.Event()

    @zart.step("work-{n}")
    def work(n: int) -> int:
        ledger(n)
        gates[n].wait(20)
        return n

    @zart.workflow("w")
    def flow(n: int) -> zart.Flow[int]:
        number, _ = yield from zart.gather(work(n), zart.wait_for_event("go"))
        return number

    class Refusing(Held):
        def append(self, batch: Sequence[Write]) -> list[Appended]:
            if any(isinstance(write, Turn) and write.id == "a" for write in batch):
                held.set()
                refused.wait(20)
                return [Rejected("closed: it has ended") for _ in batch]
            return super().append(batch)

    log = Refusing()
    with zart.open(log, [flow], max_concurrent_steps=1) as engine:
        running = engine.start(flow, 0, id="c")
        until(lambda: ledger.entries == [0])
        engine.start(flow, 1, id="a")
        waiting = engine.start(flow, 2, id="b")
        until(lambda: [live.run.id for live in engine.engine.attempts.hungry] == ["a", "b"])
        engine.send("a", "go", None)
        assert held.wait(10)
        gates[0].set()
        until(lambda: [live.run.id for live in engine.engine.attempts.hungry] != ["a", "b"])
        refused.set()
        until(lambda: ledger.entries == [0, 2])
        gates[2].set()
        for handle in (running, waiting):
            handle.send("go", None)
        assert (running.result(10), waiting.result(10)) == (0, 2)
    log.close()


def test_a_creation_during_which_the_lease_ran_out_starts_nothing() -> None:
    """F24: it is durable, and somebody else has it by the time that its creator hears of it and has a lease again."""
    ledger = Ledger()
    engines: list[AsyncEngine] = []

    @zart.step("work")
    def work() -> int:
        return ledger("work")

    @zart.workflow("w")
    def flow(_: None) -> zart.Flow[int]:
        return (yield from work())

    class Slow(Held):
        def append(self, batch: Sequence[Write]) -> list[Appended]:
            outcomes = super().append(batch)
            if isinstance(batch[0], New):
                self.log.release(engines[0].worker)
                assert self.log.acquire("other", "a", lease_s=600.0) is not None
                asyncio.run_coroutine_threadsafe(lapsed(engines[0]), engines[0].loop).result(10)
            return outcomes

    async def lapsed(engine: AsyncEngine) -> None:
        engine.claims.leased_until = engine.loop.time() - 1.0
        await engine.claims.renew()
        assert engine.claims.is_leased()

    log = Slow()
    with zart.open(log, [flow]) as engine:
        engines.append(engine.engine)
        engine.start(flow, None, id="a")
        until(lambda: "a" not in engine.engine.live)
        assert ledger.entries == []
        summary = log.summary("a")
        assert summary is not None
        assert summary.owner == "other"
    log.close()


def noting_owners(log: Callable[[], Held]) -> tuple[list[str | None], zart.Workflow[None, int]]:
    """Who had execution "a" by the log each time when its step began, and a workflow that waits before it."""
    owners: list[str | None] = []

    @zart.step("work")
    def work() -> int:
        summary = log().log.summary("a")
        assert summary is not None
        owners.append(summary.owner)
        return 1

    @zart.workflow("w")
    def flow() -> zart.Flow[int]:
        yield from zart.wait_for_event("go")
        return (yield from work())

    return owners, flow


@pytest.mark.parametrize("taken", [False, True])
def test_what_was_idle_when_the_lease_ran_out_starts_nothing_before_it_is_ours_again(taken: bool) -> None:
    """F24: the log has made it nobody's, and takes its next turn all the same: then anybody may take it."""
    owners, flow = noting_owners(lambda: log)

    class Robbed(Held):
        lost = False

        def append(self, batch: Sequence[Write]) -> list[Appended]:
            outcomes = super().append(batch)
            if self.lost and taken and isinstance(batch[0], Turn):
                self.log.acquire("other", "a", lease_s=600.0)
            return outcomes

    async def lapsed(engine: AsyncEngine) -> None:
        log.log.release(engine.worker)
        log.lost = True
        engine.claims.leased_until = engine.loop.time() - 1.0
        await engine.claims.renew()

    log = Robbed()
    with zart.open(log, [flow]) as engine:
        handle = engine.start(flow, None, id="a")
        asyncio.run_coroutine_threadsafe(lapsed(engine.engine), engine.engine.loop).result(10)
        handle.send("go", None)
        if taken:
            until(lambda: "a" not in engine.engine.live)
        else:
            assert handle.result(10) == 1
        assert owners == ([] if taken else [engine.engine.worker])
    log.close()


def test_what_is_given_again_before_its_release_is_written_starts_nothing_before_it_is_ours() -> None:
    """F24: the release makes it nobody's after it was taken up again, and takes its next turn all the same."""
    owners, flow = noting_owners(lambda: log)
    engines: list[AsyncEngine] = []

    class Slow(Held):
        """Its first release is written when what it releases has become due, and was given again, once."""

        released = False
        given, turned = threading.Event(), threading.Event()

        def append(self, batch: Sequence[Write]) -> list[Appended]:
            if not self.released and any(isinstance(write, Mark) and write.id == "a" for write in batch):
                self.released = True
                self.log.append([Post("a", "event", "go", b"null", 0.0)])  # as somebody elsewhere
                engines[0].loop.call_soon_threadsafe(engines[0].claims.claiming.set)
                assert self.given.wait(10)
            outcomes = super().append(batch)
            if self.released and any(isinstance(write, Turn) and write.id == "a" for write in batch):
                self.turned.set()
            return outcomes

        def claim(self, worker: str, **options: Any) -> Any:
            if self.given.is_set() and not self.turned.is_set():
                return []
            found = super().claim(worker, **options)
            if self.released and "a" in {summary.id for summary in found}:
                self.given.set()
            return found

    async def let_go_and_take_up() -> None:
        async with zart.serve(log, [flow], max_live=1) as engine:
            engines.append(engine)
            handle = await engine.start(flow, None, id="a")
            await asyncio.to_thread(until, lambda: engine.claims.is_idle(engine.live["a"]))
            await engine.start(flow, None, id="b")
            assert await handle.result(10) == 1
            assert owners == [engine.worker]

    log = Slow()
    asyncio.run(let_go_and_take_up())
    assert log.turned.is_set()
    log.close()


@pytest.mark.parametrize("fails", [False, True])
def test_a_message_that_is_taken_in_while_its_execution_is_read_back_is_kept(fails: bool) -> None:
    """L10, I15: the log gives nothing twice, so what was read before it came must not take its place.

    Nor must it be forgotten when its first reading `fails`.
    """

    @zart.workflow("w")
    def flow(_: None) -> zart.Flow[int]:
        one = yield from zart.wait_for_event("number", int)
        return one + (yield from zart.wait_for_event("number", int))

    class Slow(Sky):
        blocking = True  # type: ignore[assignment]
        answered = failed = False

        def inbox(self, id: str, after: int = 0) -> list[Message]:
            if self.answered and fails and not self.failed:
                self.failed = True
                raise zart.StoreUnavailable("the store cannot be reached")
            found = super().inbox(id, after)
            if after == 0 and not self.forecast and not self.answered:  # the answer is on its way for long
                self.answered = True
                self.log.append([Post("a", "event", "number", b"7", 0.0)])  # as somebody elsewhere
                engine.engine.loop.call_soon_threadsafe(engine.engine.claims.claiming.set)
                until(lambda: engine.engine.live["a"].run.seen == 2)
            return found

    log = Slow(open_log("memory:"))
    log.match = lambda write: isinstance(write, Turn)
    log.forecast = ["written"]
    with zart.open(log, [flow]) as engine:
        handle = engine.start(flow, None, id="a")
        handle.send("number", 1)
        assert handle.result(20) == 8
    assert (log.answered, log.failed) == (True, fails)
