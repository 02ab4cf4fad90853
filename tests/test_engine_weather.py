"""The engine under bad weather: what is Ok is in, what is Rejected is out, Unknown is read back (I9)."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
from pathlib import Path
from typing import Any

import pytest
from engines import PATIENCE_S, STORES, Keyless, Ledger, Sky, sky, until

import zart_core as zart
from zart_core.events import Done
from zart_core.hosts import recovery
from zart_core.hosts.ports import open_log
from zart_core.hosts.relatives import new_execution
from zart_core.interpreter import CODEC
from zart_core.log import Mark, New, Post, Turn, Write
from zart_core.testing.clock import VirtualClock
from zart_core.testing.relay import Relay

WEATHER = ("lost", "written", "full", "unavailable")


@pytest.fixture(params=STORES)
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    made = sky(request.param, tmp_path)
    yield made
    made.close()


def saga(ledger: Ledger, **options: Any) -> Any:
    """Three steps in a row, one of which fails at first, two side by side, and a child."""

    @zart.step("work-{n}", retry=zart.Retry.fixed(2, 0.001), **options)
    def work(n: int) -> int:
        if ledger(n) == 1 and n == 2:
            raise RuntimeError("once")
        return n

    @zart.workflow("child")
    def child(n: int) -> zart.Flow[int]:
        return (yield from work(n))

    @zart.workflow("saga")
    def flow(_: None) -> zart.Flow[int]:
        total = 0
        for n in (1, 2, 3):
            total += yield from work(n)
        total += sum((yield from zart.wait([work(4), work(5)])))
        total += yield from zart.child(child, 6)
        total += yield from zart.wait_for_event("number", int)
        return total

    return flow, child


def test_each_weather_at_each_append_loses_and_repeats_nothing(tmp_path: Path) -> None:
    """Whichever append meets whatever weather: the result is the same, and no step runs again for it (I9, I10, I12)."""
    seen = set()
    for weather, at in itertools.product(WEATHER, range(1, 16)):
        ledger = Ledger()
        flow, child = saga(ledger)
        log = Sky(open_log("memory:"))
        count = itertools.count(1)
        log.match = lambda write, count=count, at=at: isinstance(write, Turn) and next(count) == at
        log.forecast = [weather]
        with zart.open(log, [flow, child]) as engine:
            handle = engine.start(flow, None, id="a")
            handle.send("number", 100, key="k")
            assert handle.result(10) == 121, (weather, at)
            history = handle.history()
        if not log.forecast:
            seen.add((weather, at))
        assert sorted(ledger.entries) == [1, 2, 2, 3, 4, 5, 6], (weather, at)
        outcomes = [event.seq for event in history if isinstance(event, zart.Resolved)]
        assert len(outcomes) == len(set(outcomes)), (weather, at)
        log.verify()
        log.close()
    assert len(seen) >= 30


def test_a_storm_on_each_store(log: Sky, monkeypatch: pytest.MonkeyPatch) -> None:
    """A third of all appends fail in some way; everything ends, once, as it should (I9)."""
    monkeypatch.setattr(recovery, "RETRY_MAX_S", 0.05)  # a failed batch holds several up, again and again
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    chance = random.Random(seed)
    ledger = Ledger()
    flow, child = saga(ledger)
    log.match = lambda write: isinstance(write, Turn | Mark) and chance.random() < 0.3
    log.forecast = [chance.choice(WEATHER) for _ in range(60)]
    log.reads = []
    with zart.open(log, [flow, child]) as engine:
        handles = [engine.start(flow, None, id=f"a{n}") for n in range(5)]
        for handle in handles:
            handle.send("number", 100, key="k")
        log.reads = [""] * 5
        assert [handle.result(60) for handle in handles] == [121] * 5
    assert {n: ledger.entries.count(n) for n in range(1, 7)} == {1: 5, 2: 6, 3: 5, 4: 5, 5: 5, 6: 5}
    log.verify()


@pytest.mark.parametrize("weather", WEATHER)
def test_an_outcome_in_hand_is_kept_while_the_weather_is_bad(weather: str) -> None:
    """A step that has run is not run again, however long its outcome cannot be written."""
    ledger = Ledger()

    @zart.step()
    def once() -> int:
        return ledger("once")

    @zart.workflow("w")
    def flow(_: None) -> zart.Flow[int]:
        return (yield from once())

    log = Sky(open_log("memory:"))
    log.forecast = [weather] * 4
    with zart.open(log, [flow]) as engine:
        assert engine.run(flow, None) == 1
    assert ledger.entries == ["once"]
    log.close()


@pytest.mark.parametrize("weather", WEATHER)
def test_a_start_in_bad_weather(weather: str) -> None:
    """A creation of unknown outcome is read back: one execution, created by this call, its step run once."""
    ledger = Ledger()

    @zart.step(at_most_once=True)
    def once() -> int:
        return ledger("once")

    @zart.workflow("w")
    def flow(_: None) -> zart.Flow[int]:
        return (yield from once())

    log = Sky(open_log("memory:"))
    log.match = lambda write: isinstance(write, New)
    log.forecast = [weather] * 3
    with zart.open(log, [flow]) as engine:
        handle = engine.start(flow, None, id="a")
        assert handle.created
        assert handle.result(5) == 1
        assert not engine.start(flow, None, id="a").created
    assert ledger.entries == ["once"]
    log.close()


@pytest.mark.parametrize("weather", ["lost", "written", "unavailable"])
def test_a_message_in_bad_weather(weather: str) -> None:
    """With a key it is sent again and counts once; without one the caller is told that it is not known."""

    @zart.workflow("w2")
    def listens(_: None) -> zart.Flow[list[int]]:
        first = yield from zart.wait_for_event("number", int)
        second = yield from zart.wait_for_event("number", int)
        return [first, second]

    log = Sky(open_log("memory:"))
    log.match = lambda write: isinstance(write, Post)
    with zart.open(log, [listens]) as engine:
        handle = engine.start(listens, None)
        log.forecast = [weather] * 2
        handle.send("number", 1, key="one")
        log.forecast = [weather]
        with pytest.raises(zart.StoreUnavailable, match="key="):
            handle.send("other", 2)
        handle.send("number", 2)
        assert handle.result(5) == [1, 2]
    log.close()


def test_a_full_store_works_again_when_there_is_room() -> None:
    """Rejected("full") is waited out; starts and messages raise StoreUnavailable meanwhile (F6)."""

    @zart.workflow("w")
    def listens(_: None) -> zart.Flow[int]:
        return (yield from zart.wait_for_event("number", int))

    log = Sky(open_log("memory:"))
    with zart.open(log, [listens]) as engine:
        handle = engine.start(listens, None)
        log.match = lambda write: True
        log.forecast = ["full"] * 1000
        with pytest.raises(zart.StoreUnavailable, match="full"):
            engine.start(listens, None)
        with pytest.raises(zart.StoreUnavailable, match="full"):
            handle.send("number", 1)
        log.forecast = []
        handle.send("number", 2)
        assert handle.result(5) == 2
        assert engine.engine.attempts.slots == 64
    log.close()


def test_a_store_that_has_failed_stops_the_engine_and_loses_nothing() -> None:
    """Whoever waits is told; the next engine on the log goes on (F5)."""
    ledger = Ledger()

    @zart.step()
    def work() -> int:
        return ledger("work")

    @zart.workflow("w")
    def flow(_: None) -> zart.Flow[int]:
        return (yield from work())

    inner = open_log("memory:")
    log = Sky(inner)
    log.forecast = ["failed"]
    with zart.open(log, [flow]) as engine:
        handle = engine.start(flow, None, id="a")
        with pytest.raises(zart.StoreFailed):
            handle.result(5)
        with pytest.raises(zart.StoreFailed):
            engine.start(flow, None)
        inner.release(engine.engine.worker)  # as its death would
    with zart.open(inner, [flow]) as engine:
        assert engine.get("a").result(5) == 2
    inner.close()


def test_children_are_created_in_bad_weather() -> None:
    """A child that could not be made sure of is no conflict: it is tried again."""
    ledger = Ledger()
    _flow, _child = saga(ledger)
    inner = open_log("memory:")

    @zart.workflow("parent")
    def parent(_: None) -> zart.Flow[int]:
        return (yield from zart.child(waiting, None, id="c"))

    @zart.workflow("waiting")
    def waiting(_: None) -> zart.Flow[int]:
        return (yield from zart.wait_for_event("number", int))

    with zart.open(inner, [parent, waiting]) as engine:
        engine.start(parent, None, id="p")
        until(lambda: engine.list(id_prefix="c").items)
    log = Sky(inner)
    log.match = lambda write: isinstance(write, New)
    log.forecast = ["full", "unavailable", "lost"]
    with zart.open(log, [parent, waiting]) as engine:
        engine.send("p", "poke", 1)
        until(lambda: not log.forecast)
        engine.send("c", "number", 3)
        assert engine.get("p").result(5) == 3
    inner.close()


def test_what_a_store_refuses_at_its_edge_hinders_nobody() -> None:
    """An id that no store takes parks the one who asked for it; who was in the same commit goes on (I8)."""

    @zart.workflow("child")
    def child(_: None) -> zart.Flow[None]:
        yield from zart.wait_for_event("never")

    @zart.workflow("bad")
    def bad(_: None) -> zart.Flow[None]:
        yield from zart.sleep("a-moment", 0.01)
        yield from zart.child(child, None, id="x" * 300)

    @zart.workflow("good")
    def good(n: int) -> zart.Flow[int]:
        yield from zart.sleep("a-moment", 0.01)
        return n

    clock = VirtualClock()
    with zart.open("memory:", [bad, good, child], clock=clock) as engine:
        handles = [engine.start(good, n) for n in range(10)]
        broken = engine.start(bad, None)
        handles += [engine.start(good, n) for n in range(10, 20)]
        until(lambda: engine.stats()[zart.Status.WAITING] == 21)
        clock.advance(1)  # all of them in one commit
        assert [handle.result(5) for handle in handles] == list(range(20))
        with pytest.raises(zart.Defect, match="cannot be stored"):
            broken.result(5)
        again = engine.start(good, 99)
        clock.advance(1)
        assert again.result(5) == 99


def test_group_commit_groups_across_executions() -> None:
    """While one commit runs, what gathers is written in the next one (L6)."""
    from engines import Sky as Base

    class Slow(Base):
        blocking = True  # type: ignore[assignment]

        def append(self, batch: Any) -> Any:
            threading.Event().wait(0.005)
            return super().append(batch)

    @zart.step()
    async def work() -> None: ...

    @zart.workflow("w")
    def flow(_: None) -> zart.Flow[None]:
        yield from work()
        yield from work().named("more")

    log = Slow(open_log("memory:"))
    with zart.open(log, [flow]) as engine:
        import asyncio

        async def all_at_once() -> None:
            handles = await asyncio.gather(*(engine.engine.start(flow, None) for _ in range(100)))
            await asyncio.gather(*(handle.result() for handle in handles))

        engine.await_(all_at_once())
    writes = [write for batch in log.batches for write in batch]
    commits = [batch for batch in log.batches if batch]
    assert len(writes) >= 300
    assert len(commits) <= 40
    log.close()


def test_a_sequential_step_costs_one_commit() -> None:
    """Create and first step in one, then one for each step."""

    @zart.step("work-{n}", timeout="1h")
    def work(n: int) -> int:
        return n

    @zart.workflow("w")
    def flow(_: None) -> zart.Flow[None]:
        for n in range(10):
            yield from work(n)

    log = Sky(open_log("memory:"))
    with zart.open(log, [flow]) as engine:
        engine.run(flow, None)
        commits: list[list[Write]] = [batch for batch in log.batches if batch]
    assert len(commits) == 11
    log.close()


def test_a_lease_that_ran_out_and_was_taken_by_nobody_is_taken_again(tmp_path: Path) -> None:
    """The engine goes on with what it holds; the running step is not started a second time."""
    ledger, gate = Ledger(), threading.Event()

    @zart.step()
    def slow() -> str:
        ledger("slow")
        gate.wait(20)
        return "done"

    @zart.workflow("w")
    def flow(_: None) -> zart.Flow[str]:
        return (yield from slow())

    log = open_log("memory:")
    with zart.open(log, [flow]) as engine:
        handle = engine.start(flow, None, id="a")
        until(lambda: ledger.entries)
        log.release(engine.engine.worker)  # as a sweep by somebody else would
        until(lambda: (item := log.summary("a")) and item.fence == 2)
        gate.set()
        assert handle.result(5) == "done"
    assert ledger.entries == ["slow"]
    log.close()


def test_an_execution_that_somebody_else_has_is_let_go() -> None:
    """A stale turn is refused, the attempt's result dropped, and the other one's result is what counts (F15)."""
    ledger, gate = Ledger(), threading.Event()

    @zart.step()
    def slow() -> str:
        if ledger("slow") == 1:
            gate.wait(20)
            return "late"
        return "done"

    @zart.workflow("w")
    def flow(_: None) -> zart.Flow[str]:
        return (yield from slow())

    log = open_log("memory:")
    with zart.open(log, [flow]) as first:
        handle = first.start(flow, None, id="a")
        until(lambda: ledger.entries)
        with zart.open(log, [flow]) as second:
            log.release(first.engine.worker)
            second.engine.loop.call_soon_threadsafe(second.engine.claims.claiming.set)
            if second.get("a").status() is not zart.Status.COMPLETED:
                until(lambda: len(ledger.entries) == 2 or log.summary("a").owner == first.engine.worker)  # type: ignore[union-attr]
            gate.set()
            assert handle.result(10) in ("done", "late")
        until(lambda: first.engine.attempts.slots == 64)
        outcomes = [event for event in handle.history() if isinstance(event, zart.Resolved)]
        assert len(outcomes) == 1
    log.close()


def test_a_message_from_elsewhere_that_comes_while_a_turn_is_written_is_taken() -> None:
    """Nothing that happens during a write is forgotten, though nothing else happens afterwards (I15)."""
    entered, gate, step_gate = threading.Event(), threading.Event(), threading.Event()

    class Slow(Sky):
        blocking = True  # type: ignore[assignment]

        def append(self, batch: Any) -> Any:
            if any(isinstance(write, Turn) for write in batch):
                entered.set()
                gate.wait(20)
            return super().append(batch)

    @zart.step()
    def work() -> None:
        step_gate.wait(20)

    @zart.workflow("w")
    def flow(_: None) -> zart.Flow[int]:
        yield from work()
        return (yield from zart.wait_for_event("number", int))

    inner = open_log("memory:")
    log = Slow(inner)
    with zart.open(log, [flow]) as engine:
        engine.engine.owns_loop = False  # as on a loop that others use too: every write is made in a thread
        handle = engine.start(flow, None, id="a")
        step_gate.set()
        entered.wait(10)
        inner.append([Post("a", "event", "number", b"7", 0.0)])
        until(lambda: engine.engine.live["a"].run.seen == 1)
        gate.set()
        assert handle.result(5) == 7
    inner.close()


def test_an_execution_that_is_being_read_is_not_let_go() -> None:
    """However few may live: what is taken up is replayed first (L8)."""
    gate = threading.Event()

    class Slow(Sky):
        blocking = True  # type: ignore[assignment]

        def reach(self, method: str) -> None:
            if method == "records":
                gate.wait(20)

    @zart.workflow("w")
    def flow(_: None) -> zart.Flow[int]:
        return (yield from zart.wait_for_event("number", int))

    inner = open_log("memory:")
    with zart.open(inner, [flow]) as engine:
        engine.start(flow, None, id="a")
    log = Slow(inner)
    with zart.open(log, [flow], max_live=1) as engine:
        engine.send("a", "number", 7)
        until(lambda: "a" in engine.engine.live)
        others = [engine.start(flow, None) for _ in range(3)]
        gate.set()
        assert engine.get("a").result(5) == 7
        for other in others:
            other.send("number", 1)
            assert other.result(5) == 1
    inner.close()


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("weather", WEATHER)
def test_an_outcome_for_a_parked_execution_in_bad_weather_is_written_once(weather: str, fails: bool) -> None:
    """Whether the turn is in the log is found by reading: the outcome is there once, and fixed code goes on with it."""
    gate, ledger = threading.Event(), Ledger()

    @zart.step("slow", retry=zart.Retry.fixed(1, 0.001))
    def slow() -> int:
        if ledger("slow") == 1:
            gate.wait(20)
            if fails:
                raise RuntimeError("once")
        return 10

    def version(broken: bool) -> Any:
        @zart.workflow("w")
        def flow(_: None) -> zart.Flow[int]:
            task = yield from zart.schedule(slow())
            number = yield from zart.wait_for_event("number", int)
            if broken:
                yield "text"  # type: ignore[misc]
            (value,) = yield from zart.wait([task])
            return value + number

        return flow

    log = Sky(open_log("memory:"))
    broken = version(True)
    with zart.open(log, [broken]) as engine:
        handle = engine.start(broken, None, id="p")
        handle.send("number", 1)
        with pytest.raises(zart.NotACommand):
            handle.result(5)
        log.forecast = [weather] * 3
        gate.set()
        until(lambda: "p" not in engine.engine.live)
        log.forecast = []
        engine.register(version(False))
        assert handle.result(5) == 11
        history = handle.history()
    assert sum(isinstance(event, zart.Retried) for event in history) == fails
    outcomes = [event.seq for event in history if isinstance(event, zart.Resolved)]
    assert len(outcomes) == len(set(outcomes)) == 2
    assert len(ledger.entries) == 1 + fails
    log.verify()
    log.close()


def test_a_message_that_ended_its_execution_before_its_outcome_was_known() -> None:
    """Sent again, it finds the execution ended; its key in the history says that it was accepted."""

    @zart.workflow("w")
    def listens(_: None) -> zart.Flow[int]:
        return (yield from zart.wait_for_event("number", int))

    log = Sky(open_log("memory:"))
    log.match = lambda write: isinstance(write, Post)
    with zart.open(log, [listens]) as engine:
        handle = engine.start(listens, None)
        log.forecast = ["written"]
        handle.send("number", 1, key="one")
        assert handle.result(5) == 1
        with pytest.raises(zart.ExecutionClosed):
            handle.send("number", 1, key="two")
    log.close()


def test_suspects_of_a_crash_start_one_at_a_time() -> None:
    """What was running when its worker died is started again singly; what had not begun is not held up (R5)."""
    gates = [threading.Event() for _ in range(4)]
    ledger = Ledger()

    class Deaf(Sky):
        dead = False

        def claim(self, *args: Any, **options: Any) -> Any:
            return [] if self.dead else super().claim(*args, **options)

    @zart.step("work-{n}")
    def work(n: int) -> int:
        ledger(n)
        gates[n].wait(20)
        return n

    @zart.workflow("w")
    def flow(n: int) -> zart.Flow[int]:
        return (yield from work(n))

    inner = open_log("memory:")
    log = Deaf(inner)
    with zart.open(log, [flow]) as first:
        for n in range(3):
            first.start(flow, n, id=f"a{n}")
        until(lambda: len(ledger.entries) == 3)
        log.dead = True
        inner.release(first.engine.worker)  # as its death would
        with zart.open(inner, [flow]) as second:
            until(lambda: len(ledger.entries) == 4)
            fresh = second.start(flow, 3)
            until(lambda: len(ledger.entries) == 5)
            assert ledger.entries[4] == 3
            assert [len(live.run.suspects) for live in second.engine.live.values()].count(1) == 2
            for gate in gates:
                gate.set()
            assert [second.get(f"a{n}").result(5) for n in range(3)] == [0, 1, 2]
            assert fresh.result(5) == 3
    inner.close()


def test_a_retry_whose_turn_was_lost_still_waits_for_its_time(tmp_path: Path) -> None:
    """I14: the failed attempt is kept and offered again, and the next one does not begin before that is on record."""
    clock, attempts = VirtualClock(), []

    @zart.step("work", retry=zart.Retry.fixed(1, 3600.0))
    def work() -> int:
        attempts.append(clock.now())
        if zart.context().attempt == 0:
            raise RuntimeError("once")
        return 1

    @zart.workflow("w")
    def flow(_: None) -> zart.Flow[int]:
        return (yield from work())

    log = sky("memory", tmp_path)
    log.forecast = ["lost"]
    with zart.open(log, [flow], clock=clock) as engine:
        handle = engine.start(flow, None, id="a")
        until(lambda: any(isinstance(event, zart.Retried) for event in handle.history()))
        assert len(attempts) == 1
        clock.advance(hours=1)
        assert handle.result(10) == 1
    assert attempts[1] - attempts[0] >= 3600.0


@pytest.mark.parametrize("message", [False, True])
def test_what_a_claim_gave_whose_answer_was_lost_is_found(tmp_path: Path, message: bool) -> None:
    """L8: the log gives nothing twice; an engine that did not hear the answer looks for what it holds."""

    @zart.workflow("w")
    def flow(_: None) -> zart.Flow[int]:
        return (yield from zart.wait_for_event("number", int)) if message else 7

    class Deaf(Sky):
        lost = 0

        def claim(self, worker: str, **options: Any) -> Any:
            given = super().claim(worker, **options)
            if given and not self.lost:
                self.lost += 1
                raise zart.StoreUnavailable("the connection was lost")
            return given

    log = Deaf(open_log("memory:"))
    with zart.open(log, [flow]) as engine:
        if message:
            handle = engine.start(flow, None, id="a")
            log.append([Post("a", "event", "number", b"7", 0.0)])  # as another process would
        else:
            payload = new_execution(CODEC, flow, "a", b"null", 0.0)
            log.append([payload])
            handle = engine.get("a")
        engine.engine.loop.call_soon_threadsafe(engine.engine.claims.claiming.set)
        assert handle.result(10) == 7
        assert log.lost == 1


def test_what_was_running_is_tried_again_although_the_log_cannot_be_asked_for_more(tmp_path: Path) -> None:
    """R5: a claim that is followed by weather has been made all the same: its suspects do not wait for ever."""
    log, calls, blocked = open_log("memory:"), Ledger(), threading.Event()

    @zart.step("work")
    def work() -> int:
        if calls("work") == 1:
            blocked.wait(20)
        return 1

    @zart.workflow("w")
    def flow(_: None) -> zart.Flow[int]:
        return (yield from work())

    class Moody(Relay):
        given = failed = 0

        def claim(self, worker: str, **options: Any) -> Any:
            found = super().claim(worker, **options)
            self.given += len(found)
            return found

        def next_wake(self) -> float | None:
            if self.given and not self.failed:
                self.failed += 1
                raise zart.StoreUnavailable("the store cannot be reached")
            return super().next_wake()

    moody = Moody(log)
    with zart.open(log, [flow]) as first, zart.open(moody, [flow]) as second:
        first.start(flow, None, id="a")
        until(lambda: calls.entries)
        log.release(first.engine.worker)  # as its death would
        second.engine.loop.call_soon_threadsafe(second.engine.claims.claiming.set)
        try:
            assert second.get("a").result(10) == 1
        finally:
            blocked.set()
    assert (moody.given, moody.failed) == (1, 1)


def test_what_runs_is_stopped_before_the_lease_ends_of_a_store_that_has_failed() -> None:
    """F24: nobody renews the lease any more, so others will begin what runs here."""
    ledger, log = Ledger(), Surprising("any", zart.StoreFailed("the disk said no"))

    @zart.step()
    async def works() -> None:
        ledger("begins")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ledger("stops")
            raise

    @zart.workflow("w")
    def flow(_: None) -> zart.Flow[None]:
        yield from works()

    with zart.open(log, [flow], lease=1) as engine:
        engine.start(flow)
        until(lambda: ledger.entries == ["begins"])
        log.times = 1_000_000
        until(lambda: ledger.entries == ["begins", "stops"])
        log.times = 0
    log.close()


# ---------------------------------------------------------------- what no store may raise


class Surprising(Sky):
    """A log whose calls of a name raise what no store may raise, as often as told."""

    def __init__(self, method: str, error: Exception | None = None) -> None:
        super().__init__(open_log("memory:"))
        self.method, self.times = method, 0
        self.error = error or OSError("nobody foresaw this")
        self.calls = 0

    def reach(self, method: str) -> None:
        """See Relay."""
        if self.method in (method, "any"):
            self.calls += 1
            if self.times > 0:
                self.times -= 1
                raise self.error


@zart.workflow("listens")
def listens(n: int) -> zart.Flow[int]:
    return n + (yield from zart.wait_for_event("number", int))


@pytest.mark.parametrize("method", ["summary", "records", "inbox"])
def test_an_error_that_nobody_foresaw_while_one_is_read_back_is_got_over(method: str) -> None:
    """It is tried again, as in bad weather; the execution stood still, and kept the engine from handing over."""
    log = Surprising(method)
    with zart.open(log, [listens]) as engine:
        handle = engine.start(listens, 1, id="a")
        until(lambda: handle.status() is zart.Status.WAITING)
        log.times, log.forecast = 2, ["lost"]
        handle.send("number", 1)
        until(lambda: log.times == 0)
        assert handle.result(PATIENCE_S) == 2
    log.close()


@pytest.mark.parametrize("method", ["records", "inbox", "claim"])
def test_an_error_that_nobody_foresaw_while_they_are_taken_up_is_got_over(method: str) -> None:
    """It hinders no other of those that the log has given at once (I8), nor is any of them forgotten."""
    log = Surprising(method)
    for n in range(3):
        log.append([new_execution(CODEC, listens, f"l{n}", b"1", 1.0)])
        log.append([Post(f"l{n}", "event", "number", b"1", 1.0)])
    with zart.open(log, [listens]) as engine:
        log.times = 1
        for n in range(3, 6):
            log.append([new_execution(CODEC, listens, f"l{n}", b"1", 1.0)])
            log.append([Post(f"l{n}", "event", "number", b"1", 1.0)])
        engine.engine.loop.call_soon_threadsafe(engine.engine.claims.claiming.set)
        assert [engine.get(f"l{n}").result(PATIENCE_S) for n in range(6)] == [2] * 6
        assert log.times == 0
    log.close()


def test_an_error_that_nobody_foresaw_does_not_end_the_care_for_the_lease() -> None:
    """It is renewed the next time (F24)."""
    log = Surprising("renew")
    log.times = 1
    with zart.open(log, [listens], lease=1):
        until(lambda: log.calls >= 3)
    log.close()


def paid(ledger: Ledger) -> Any:
    """A step, a timer and an event: three kinds of facts that a turn begins with."""

    @zart.step("pay")
    def pay() -> int:
        return ledger("pay")

    @zart.workflow("pays")
    def pays(_: None) -> zart.Flow[int]:
        times = yield from pay()
        yield from zart.sleep("settle", 0.001)
        return times + (yield from zart.wait_for_event("number", int))

    return pays


def parked_marks(log: Sky) -> list[str]:
    """Why executions were shown as parked."""
    return [w.reason for b in log.batches for w in b if isinstance(w, Mark) and w.status == "parked"]


@pytest.mark.parametrize("kind", [b":3:Resolved", b":5:Resolved", b":7:Delivered", b":Closed"])
def test_a_turn_that_cannot_be_sealed_for_a_while_is_built_again(
    kind: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """What passes parks nothing, and is not tried all the time; what steps came to is kept (R1, R20)."""
    ledger, seal, log = Ledger(), Keyless(kind, times=3), Sky(open_log("memory:"))
    pays = paid(ledger)
    with zart.open(log, [pays], codec=zart.Codec(seal=seal)) as engine:
        handle = engine.start(pays, id="a")
        handle.send("number", 10)
        assert handle.result(PATIENCE_S) == 11
    told = [record.args[:2] for record in caplog.records if "is read back" in record.msg]
    assert told == [("a", 1), ("a", 2), ("a", 3)]
    assert (seal.times, ledger.entries, parked_marks(log)) == (0, ["pay"], [])
    log.close()


class OutOfReach(Keyless):
    """A seal whose key cannot be had for reading either."""

    def open(self, data: bytes, associated: bytes) -> bytes:
        """See Seal."""
        return self.seal(data, associated)


@zart.workflow("adds")
def adds(n: int) -> zart.Flow[int]:
    return n + (yield from zart.wait_for_event("number", int))


@zart.workflow("hands on")
def hands_on(_: None) -> zart.Flow[int]:
    n = yield from zart.wait_for_event("number", int)
    return (yield from zart.child(adds, n, id="c"))


@pytest.mark.parametrize("times", [1, 2, 4])
def test_a_key_that_is_out_of_reach_for_a_while_parks_nothing(times: int) -> None:
    """R20, I8: nor do parents and children, whose posts are sealed while their turns are built; see `Seal`."""
    seal, log = OutOfReach(b"nothing"), Sky(open_log("memory:"))
    with zart.open(log, [hands_on, adds], codec=zart.Codec(seal=seal)) as engine:
        handle = engine.start(hands_on, id="p")
        for id in ("p", "c"):
            until(lambda id=id: engine.list(id_prefix=id, status="waiting").items)
            seal.without, seal.times = b"", times
            engine.send(id, "number", 10)
            until(lambda: seal.times == 0)
        assert handle.result(PATIENCE_S) == 20
    assert parked_marks(log) == []
    log.close()


class Unread(Keyless):
    """A seal whose key can be had for writing alone."""

    def seal(self, data: bytes, associated: bytes) -> bytes:
        """See Seal."""
        return data

    def open(self, data: bytes, associated: bytes) -> bytes:
        """See Seal."""
        return super().seal(data, associated)


def test_a_next_run_that_cannot_be_read_for_a_moment_is_not_parked() -> None:
    """R20: `continue_as_new` is durable though the key for what it has just written cannot be had."""

    @zart.workflow("counts")
    def counts(n: int) -> zart.Flow[int]:
        if n == 0:
            yield from zart.wait_for_event("go", int)
            yield from counts.continue_as_new(1)
        return n

    seal, log = Unread(b"1:0:Started:a", times=1), Sky(open_log("memory:"))
    with zart.open(log, [counts], codec=zart.Codec(seal=seal)) as engine:
        handle = engine.start(counts, 0, id="a")
        handle.send("go", 1)
        assert handle.result(PATIENCE_S) == 1
    assert (seal.times, parked_marks(log)) == (0, [])
    log.close()


def test_what_cannot_begin_with_its_start_begins_soon_after() -> None:
    """R15: the start is durable though what its first turn asks for cannot be sealed just then."""

    @zart.workflow("asks")
    def asks(_: None) -> zart.Flow[int]:
        return (yield from zart.child(adds, 1, id="c"))

    seal = Keyless(b":Started:c", times=1)
    with zart.open("memory:", [asks, adds], codec=zart.Codec(seal=seal)) as engine:
        handle = engine.start(asks)
        assert seal.times == 0
        until(lambda: engine.list(id_prefix="c").items)
        engine.send("c", "number", 1)
        assert handle.result(PATIENCE_S) == 2


def test_a_turn_that_cannot_be_sealed_for_long_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is listed as parked, with the reason (R20), and goes on by itself all the same."""
    monkeypatch.setattr(recovery, "RETRY_MAX_S", 0.001)
    ledger, seal, log = Ledger(), Keyless(b":Resolved:"), Sky(open_log("memory:"))
    pays = paid(ledger)
    with zart.open(log, [pays], codec=zart.Codec(seal=seal)) as engine:
        handle = engine.start(pays, id="a")
        until(lambda: handle.status() is zart.Status.PARKED)
        assert "ConnectionError: the key cannot be had" in handle.explain()
        seal.times = 20
        until(lambda: handle.status() is zart.Status.WAITING)
        handle.send("number", 10)
        assert handle.result(PATIENCE_S) == 11
    assert set(parked_marks(log)) == {
        "Defect: its turn cannot be built: ConnectionError: the key cannot be had"
    }
    assert ledger.entries == ["pay"]
    log.close()


class Wordy(Keyless):
    """A seal whose records take twice the room."""

    def seal(self, data: bytes, associated: bytes) -> bytes:
        """See Seal."""
        return data.hex().encode()

    def open(self, data: bytes, associated: bytes) -> bytes:
        """See Seal."""
        return bytes.fromhex(data.decode())


def test_a_result_that_the_log_refuses_as_too_large_fails_its_step(tmp_path: Path) -> None:
    """F19: sealed it is larger than a record may be. It was read back and refused for ever."""
    ledger = Ledger()

    @zart.step("fetch-{size}")
    def fetch(size: int) -> str:
        ledger(size)
        return "x" * size

    @zart.workflow("fetches")
    def fetches(_: None) -> zart.Flow[list[str]]:
        told = yield from zart.settle([fetch(1_000), fetch(700_000)])
        return [str(each.error) if isinstance(each, zart.Err) else f"{len(each.value)}" for each in told]

    with zart.open(f"sqlite:{tmp_path}/log.db", [fetches], codec=zart.Codec(seal=Wordy())) as engine:
        small, large = engine.start(fetches).result(PATIENCE_S)
    assert small == "1000"
    assert "the result of step 'fetch-700000' cannot be written down: too-large: a Resolved record" in large
    assert "has 1,400," in large
    assert "1,114,112 are kept; return a reference to it" in large
    assert sorted(ledger.entries) == [1_000, 700_000]


def test_what_else_the_log_refuses_as_too_large_parks(tmp_path: Path) -> None:
    """F19: the step before it is not to blame, and keeps its result; the reason names the size."""
    ledger = Ledger()

    @zart.step("count")
    def count() -> int:
        return ledger("count")

    @zart.workflow("gives")
    def gives(size: int) -> zart.Flow[str]:
        return "x" * size * (yield from count())

    url = f"sqlite:{tmp_path}/log.db"
    with zart.open(url, [gives], codec=zart.Codec(seal=Wordy())) as engine:
        handle = engine.start(gives, 700_000)
        with pytest.raises(zart.Defect, match=r"too-large: a Closed record of .* has 1,400,\d+ bytes"):
            handle.result(PATIENCE_S)
        assert handle.status() is zart.Status.PARKED
        assert [each.outcome for each in handle.history() if isinstance(each, zart.Resolved)] == [Done(b"1")]
