"""Limits of queues over all workers: so many steps at once, so many in a time; who waits, and what is said of it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ParamSpec

import attrs
import pytest

import zart_core as zart
from tests.postgres import running
from zart_core import log as stored
from zart_core.cli import app
from zart_core.events import Began, Noted, Status
from zart_core.hosts import limits as limits_module
from zart_core.hosts.explain import steps_of
from zart_core.hosts.inline import Inline
from zart_core.hosts.live import Live
from zart_core.hosts.offers import page_of
from zart_core.hosts.ports import open_log
from zart_core.hosts.relatives import new_execution
from zart_core.hosts.turns import Run
from zart_core.interpreter import CODEC
from zart_core.queues import Places, Queue, declared, places_of, queues_of
from zart_core.testing import VirtualClock
from zart_core.testing.relay import Relay
from zart_core.workflows import Registry

PATIENCE_S = 90.0
P = ParamSpec("P")


def on_a_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a test on an event loop of its own."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), PATIENCE_S))

    return run


class Crowd:
    """Those that are inside now, and the most that ever were."""

    def __init__(self) -> None:
        self.inside: list[str] = []
        self.most = 0
        self.gate = asyncio.Event()

    async def visit(self, name: str) -> None:
        """Come in, let others come in as well, and stay until the gate is open."""
        self.inside.append(name)
        self.most = max(self.most, len(self.inside))
        try:
            for _ in range(5):
                await asyncio.sleep(0)
            await self.gate.wait()
        finally:
            self.inside.remove(name)


@zart.step("draw-{n}", queue="gpu")
async def draw(n: int) -> int:
    await zart.resource("crowd").visit(f"draw-{n}")
    return n


@zart.step("other-{n}", queue="cpu")
async def other(n: int) -> int:
    return n


@zart.workflow("drawn")
def drawn(n: int) -> zart.Flow[int]:
    return sum((yield from zart.wait([draw(k) for k in range(n)])))


@zart.workflow("mixed")
def mixed(n: int) -> zart.Flow[int]:
    yield from zart.schedule(draw(0))
    total = 0
    for k in range(n):
        total += yield from other(k)
    return total


@zart.workflow("endless")
def endless() -> zart.Flow[int]:
    for n in range(100_000):
        yield from draw(n)
    return 0


@zart.workflow("patient")
def patient() -> zart.Flow[int]:
    yield from zart.wait_for_event("go")
    return (yield from draw(0))


FLOWS = [drawn, mixed, endless, patient]


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    with running() as started:
        yield started


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a log that several engines can use."""
    if request.param == "postgresql":
        server: Any = request.getfixturevalue("server")
        return str(server.url(f"t{os.getpid()}_{time.monotonic_ns()}"))
    return f"memory:{tmp_path}" if request.param == "memory" else f"sqlite:{tmp_path}/log.db"


@asynccontextmanager
async def engines(
    log: str | Relay, *queues: tuple[Any, ...], crowd: Crowd | None = None, **options: Any
) -> AsyncIterator[list[zart.AsyncEngine]]:
    """An engine for each tuple of queues, on one log."""
    async with contextlib.AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(
                zart.serve(log, FLOWS, queues=served, resources={"crowd": crowd}, **options)
            )
            for served in queues
        ]
        yield opened


async def until(true: Callable[[], bool]) -> None:
    """Wait until it is true."""
    while not true():
        await asyncio.sleep(0.005)


async def slots_of(engine: zart.AsyncEngine, queue: str = "gpu") -> dict[int, stored.Summary]:
    """The slots of a queue."""
    return (await engine.off_loop(lambda: places_of(engine.log, queue))).slots


# ---------------------------------------------------------------- at once


@on_a_loop
async def test_no_more_run_at_once_than_the_limit_whoever_runs_them(url: str) -> None:
    """Three workers, two executions, twelve steps: two at a time, and two whenever two are left."""
    crowd, gpu = Crowd(), Queue("gpu", limit=2)
    both = ("default", gpu)
    async with engines(url, both, both, (gpu,), crowd=crowd) as (one, two, _):
        handles = [await one.start(drawn, 6, id="a"), await two.start(drawn, 6, id="b")]
        await until(lambda: len(crowd.inside) == 2)
        found = await slots_of(one)
        crowd.gate.set()
        assert [await handle.result() for handle in handles] == [15, 15]
        shown = [summary.id for summary in (await one.list()).items]
        counted = await one.stats()

    assert crowd.most == 2
    assert all(slot.owner is not None and "of execution" in slot.reason for slot in found.values())
    assert shown == ["a", "b"]
    assert (counted[Status.PAUSED], counted[Status.COMPLETED]) == (0, counted[Status.COMPLETED])


@pytest.mark.parametrize(("place", "left"), [("0", 1), ("rate/3", 2), ("door", 2)])
@on_a_loop
async def test_a_damaged_place_is_done_without(tmp_path: Path, place: str, left: int) -> None:
    """I8, L12: a worker opens beside it and begins no more than the places that are left allow."""
    crowd, gpu = Crowd(), Queue("gpu", limit=2, rate=50)
    url = f"sqlite:{tmp_path}/log.db"
    async with engines(url, ("default", gpu)):
        pass
    with sqlite3.connect(tmp_path / "log.db") as db:
        db.execute("UPDATE executions SET digest = 'another' WHERE id = ?", (f"!slot/gpu/{place}",))
    db.close()
    async with engines(url, ("default", gpu), crowd=crowd) as (one,):
        handle = await one.start(drawn, 4)
        await until(lambda: len(crowd.inside) == left)
        crowd.gate.set()
        assert await handle.result() == 6
    assert crowd.most == left


class Scratched(Relay):
    """A log in which one place of a queue is damaged between the list that shows it and whoever asks for it."""

    def acquire(self, worker: str, id: str, *, lease_s: float) -> stored.Summary | None:
        """See EventLog."""
        if id == "!slot/gpu/0":
            raise zart.LogCorrupt("its row is damaged")
        return super().acquire(worker, id, lease_s=lease_s)


@on_a_loop
async def test_a_place_that_turns_out_to_be_damaged_is_done_without(caplog: Any) -> None:
    """I8: the queue stood still in every worker that had asked for it; and it is said (L12)."""
    crowd, log = Crowd(), Scratched(open_log("memory:"))
    crowd.gate.set()
    async with engines(log, ("default", Queue("gpu", limit=2)), crowd=crowd) as (one,):
        assert await (await one.start(drawn, 4)).result() == 6
        assert not one.claims.in_doubt
    assert crowd.most == 1
    assert "queue 'gpu' does without a place: its row is damaged" in caplog.text
    log.close()


@on_a_loop
async def test_without_a_limit_they_all_run(url: str) -> None:
    """The control: the same crowd, and nobody who counts."""
    crowd = Crowd()
    async with engines(url, ("default", "gpu"), ("default", "gpu"), crowd=crowd) as (one, two):
        handles = [await one.start(drawn, 6, id="a"), await two.start(drawn, 6, id="b")]
        await until(lambda: len(crowd.inside) == 12)
        crowd.gate.set()
        assert [await handle.result() for handle in handles] == [15, 15]
        assert (await one.list(id_prefix="!slot/")).items == []


@on_a_loop
async def test_a_slot_of_a_dead_worker_is_free_when_its_lease_is_over(url: str) -> None:
    """One that is killed gives nothing back; until its lease is over nobody begins, and then somebody does (L8)."""
    crowd, gpu = Crowd(), Queue("gpu", limit=1)
    log = open_log(url)
    dead = "worker-that-died"
    async with engines(url, ("default", gpu), crowd=crowd) as (one,):
        assert log.acquire(dead, "!slot/gpu/0", lease_s=600.0) is not None
        handle = await one.start(drawn, 2, id="a")
        await until(lambda: bool(one.limits.lines["gpu"].waiting))
        explained = await one.explain("a")
        assert crowd.inside == []
        log.renew(dead, lease_s=0.5)
        await until(lambda: len(crowd.inside) == 1)
        crowd.gate.set()
        assert await handle.result() == 1
    log.close()
    assert f"worker {dead} has one" in explained
    assert crowd.most == 1


@on_a_loop
async def test_steps_of_other_queues_do_not_wait_for_those_of_a_full_one(url: str) -> None:
    """A worker that serves both goes on with the other queue, though one of the full queue waits there."""
    crowd, gpu = Crowd(), Queue("gpu", limit=1)
    log = open_log(url)
    assert gpu.limit == 1
    async with engines(url, ("default",), (gpu, "cpu"), crowd=crowd, max_concurrent_steps=2) as (one, two):
        held = log.acquire("somebody", "!slot/gpu/0", lease_s=600.0)
        assert held is not None
        first = [await one.start(mixed, 1, id=f"m{n}") for n in range(4)]
        waits = [await one.start(mixed, 3, id=f"n{n}") for n in range(2)]
        await until(lambda: two.limits.is_waiting("gpu"))
        for n in range(4):
            while "other-0" not in {line.name for line in await ended(one, f"m{n}")}:
                await asyncio.sleep(0.02)
        assert crowd.inside == []
        log.append([attrs.evolve(stored.Mark(held.id, Status.PAUSED), fence=held.fence, releases=True)])
        crowd.gate.set()
        assert [await handle.result() for handle in (*first, *waits)] == [0, 0, 0, 0, 3, 3]
    log.close()


async def ended(engine: zart.AsyncEngine, id: str) -> list[Any]:
    """The commands of an execution that have an outcome."""
    return [line for line in steps_of(await engine.history(id)) if line.ended_at is not None]


class Counted(dict[str, Live]):
    """Those in line, and how many of them were looked at."""

    seen = 0

    def items(self) -> Any:
        """One after the other."""
        for item in super().items():
            self.seen += 1
            yield item


@on_a_loop
async def test_a_long_line_is_not_gone_through_for_each_attempt() -> None:
    """No more of those who wait are looked at than may begin; who is gone is forgotten, wherever it stood."""
    log = open_log("memory:")
    async with engines(log, ("default", Queue("gpu", limit=1)), max_concurrent_steps=2) as (one,):
        assert log.acquire("somebody", "!slot/gpu/0", lease_s=600.0) is not None
        handles = [await one.start(drawn, 1) for _ in range(20)]
        line = one.limits.lines["gpu"]
        await until(lambda: len(line.waiting) == 20)
        line.waiting = counted = Counted(line.waiting)
        assert one.limits.wanted(line) == 2
        assert counted.seen == 2
        for handle in handles[10:]:
            await handle.terminate()
        await until(lambda: list(line.waiting) == [handle.id for handle in handles[:10]])
    log.close()


@on_a_loop
async def test_a_worker_does_not_keep_a_slot_that_another_waits_for(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One with work for hours lets the other in when its term is over (no worker is left out for ever)."""
    monkeypatch.setattr(limits_module, "TERM_S", 0.2)
    crowd, gpu = Crowd(), Queue("gpu", limit=1)
    crowd.gate.set()
    both = ("default", gpu)
    async with engines(url, both, both, crowd=crowd) as (one, two):
        busy = await one.start(endless, id="busy")
        await until(lambda: bool(crowd.most))
        assert await (await two.start(drawn, 3, id="late")).result() == 3
        assert (await one.summary("busy")).status is Status.RUNNING
        await busy.terminate()
    assert crowd.most == 1


@on_a_loop
async def test_nothing_begins_with_a_slot_that_is_anothers_by_now() -> None:
    """The commit that begins a step writes to its slot, with the fence: a stale one lets nothing begin."""
    crowd, gpu = Crowd(), Queue("gpu", limit=1)
    crowd.gate.set()
    async with engines("memory:", ("default", gpu), crowd=crowd) as (one,):
        assert await (await one.start(drawn, 1, id="a")).result() == 0
        line = one.limits.lines["gpu"]
        await until(lambda: not line.slots)
        held = one.log.acquire(one.worker, "!slot/gpu/0", lease_s=30.0)
        assert held is not None
        now = one.loop.time()
        stale = limits_module.Held(held.id, held.fence - 1, one.attempts.leases, now, now + 60.0)
        line.slots.append(stale)
        handle = await one.start(drawn, 1, id="b")
        while not any(isinstance(event, Began) for event in await one.history("b")):
            await asyncio.sleep(0.005)
        crowd.most = 0
        one.limits.stirred.set()
        assert await handle.result() == 0
        begun = [event for event in await one.history("b") if isinstance(event, Began)]
    assert len(begun) == 2


class Hung(Relay):
    """A log whose next turn of execution `a`, once it is `armed`, is not written before `go` is set."""

    blocking = True  # type: ignore[assignment]

    def __init__(self, log: stored.EventLog) -> None:
        super().__init__(log)
        self.armed = False
        self.hangs, self.go = threading.Event(), threading.Event()

    def append(self, batch: Sequence[stored.Write]) -> list[stored.Appended]:
        """See EventLog."""
        if self.armed and any(isinstance(write, stored.Turn) and write.id == "a" for write in batch):
            self.armed = False
            self.hangs.set()
            self.go.wait(PATIENCE_S)
        return super().append(batch)


@on_a_loop
async def test_a_turn_that_is_refused_too_late_leaves_the_slot_of_who_came_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """L8: it was lost and taken again while the old turn hung; what the new one begins with is its own."""
    monkeypatch.setattr(limits_module, "SPARE_S", 60.0)
    crowd, gpu, log = Crowd(), Queue("gpu", limit=1), Hung(open_log("memory:"))
    async with engines(log, ("default", gpu), crowd=crowd) as (one,):
        await one.start(patient, id="a")
        log.armed = True
        await one.send("a", "go", None)
        await until(log.hangs.is_set)
        await until(lambda: bool(one.limits.lines["gpu"].slots))
        old = one.live["a"]
        log.release(one.worker, ["a"])
        assert log.acquire("another", "a", lease_s=600.0) is not None
        log.release("another")
        one.claims.claiming.set()
        await until(lambda: one.live["a"] is not old and bool(one.limits.uses))
        log.go.set()
        await until(lambda: crowd.inside == ["draw-0"])
        late = await one.start(drawn, 1, id="b")
        await asyncio.sleep(2 * limits_module.LOOK_MAX_S)  # a free slot is found by then
        crowd.gate.set()
        assert await late.result() == 0
        assert await (await one.get("a")).result() == 0
    log.close()
    assert crowd.most == 1


@on_a_loop
async def test_terminated_when_it_turns_out_that_its_queue_has_no_limits(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A worker that does not serve the queue takes over a step of it; it need not wait, and is not to run either."""
    crowd, url = Crowd(), f"memory:{tmp_path}"
    async with engines(url, ("default", "gpu"), crowd=crowd) as (one,):
        await one.start(drawn, 1, id="a")
        await until(lambda: bool(crowd.inside))
    log = open_log(url)

    def places_of(asked: stored.EventLog, queue: str) -> Places:
        """It is terminated while the log is asked."""
        log.append([stored.Post("a", "terminate", "terminate", b"enough", 1.0)])
        two.live["a"].run.receive(log.inbox("a"))
        return read(asked, queue)

    read = limits_module.places_of
    monkeypatch.setattr(limits_module, "places_of", places_of)
    async with engines(url, ("default",), crowd=crowd) as (two,):
        with pytest.raises(zart.ExecutionTerminated, match="enough"):
            await asyncio.wait_for((await two.get("a")).result(), 20.0)
    log.close()
    assert crowd.inside == []


@zart.workflow("beside")
def beside(n: int) -> zart.Flow[int]:
    return sum((yield from zart.wait([*(draw(k) for k in range(n)), other(n)])))


@on_a_loop
async def test_a_suspect_that_waits_for_its_queue_holds_up_no_other() -> None:
    """R5: two of three wait for a slot that somebody has for hours; the third is tried meanwhile, and they in turn."""
    crowd, gpu = Crowd(), Queue("gpu", limit=1)
    crowd.gate.set()
    log = open_log("memory:")
    log.append([new_execution(CODEC, beside, "a", b"2", 0.0)])
    summary = log.acquire("dead", "a", lease_s=600.0)
    assert summary is not None
    run = Run(summary, CODEC)
    run.revive(log.records("a", 0), Registry(beside))
    run.build(1.0)
    assert run.begin(3, 1.0) == 3
    log.append(run.compose(1.0))
    run.drop()
    flows, queues = [beside], ("default", "cpu", gpu)
    async with zart.serve(log, flows, queues=queues, resources={"crowd": crowd}) as one:
        held = log.acquire("somebody", "!slot/gpu/0", lease_s=600.0)
        assert held is not None
        log.release("dead")
        one.claims.claiming.set()
        while [line.name for line in await ended(one, "a")] != ["other-2"]:
            await asyncio.sleep(0.02)
        assert one.suspects.on_trial is not None
        log.append([stored.Mark(held.id, Status.PAUSED, fence=held.fence, releases=True)])
        assert await (await one.get("a")).result() == 3
        begun = [event for event in await one.history("a") if isinstance(event, Began)]
    log.close()
    assert crowd.most == 1
    assert [event.takeover for event in begun] == [None, None, None, 0, 0, 0]


# ---------------------------------------------------------------- in a time


@on_a_loop
async def test_no_more_begin_in_a_time_than_the_rate_whoever_runs_them(url: str) -> None:
    """Every fourth start is a whole `per` after the first of them, by what is on record, over two workers."""
    crowd, gpu = Crowd(), Queue("gpu", rate=3, per="300ms")
    crowd.gate.set()
    both = ("default", gpu)
    async with engines(url, both, both, crowd=crowd) as (one, two):
        handles = [await one.start(drawn, 5, id="a"), await two.start(drawn, 5, id="b")]
        assert [await handle.result() for handle in handles] == [10, 10]
        events = [event for id in ("a", "b") for event in await one.history(id)]
    begun = sorted(event.at for event in events if isinstance(event, Began))
    assert len(begun) == 10
    assert min(last - first for first, last in zip(begun, begun[3:], strict=False)) >= 0.3 - 1e-6


@asynccontextmanager
async def alone(queue: Queue) -> AsyncIterator[tuple[zart.AsyncEngine, Crowd, VirtualClock]]:
    """One engine with this queue in virtual time, whose steps end at once."""
    crowd, clock = Crowd(), VirtualClock()
    crowd.gate.set()
    async with engines("memory:", ("default", queue), crowd=crowd, clock=clock) as (one,):
        yield one, crowd, clock


@on_a_loop
async def test_a_rate_goes_by_the_clock() -> None:
    """In virtual time: one an hour, and the second begins when an hour has passed."""
    async with alone(Queue("gpu", rate=1, per="1h")) as (one, crowd, clock):
        handle = await one.start(drawn, 2, id="a")
        await until(lambda: crowd.most == 1 and bool(one.limits.lines["gpu"].waiting) and not crowd.inside)
        while "the next at" not in (explained := await one.explain("a")):
            await asyncio.sleep(0.005)
        clock.advance(3600)
        assert await handle.result() == 1
        begun = [event.at for event in await one.history("a") if isinstance(event, Began)]
    assert begun[1] - begun[0] == 3600.0
    assert "waits for room in queue 'gpu'" in explained
    assert "1 may begin in 3600 s, the next at" in explained


@on_a_loop
async def test_a_rate_goes_on_when_the_clock_is_put_back() -> None:
    """What rests does so for the time of the rate, not until the clock is where it was (F13)."""
    async with alone(Queue("gpu", rate=1, per="50ms")) as (one, _, clock):
        assert await (await one.start(drawn, 1, id="a")).result() == 0
        clock.jump(hours=-1)
        handle = await one.start(drawn, 1, id="b")
        assert await asyncio.wait_for(handle.result(), 30.0) == 0


@on_a_loop
async def test_an_execution_from_the_future_does_not_hold_up_a_rate() -> None:
    """A token rests from when it is used, though the log of who used it says a later time (F13)."""
    async with alone(Queue("gpu", rate=1, per="10m")) as (one, _, clock):
        clock.jump(hours=1)
        future = await one.start(patient, id="a")
        clock.jump(hours=-1)
        await one.send("a", "go", None)
        assert await future.result() == 0
        handle = await one.start(drawn, 1, id="b")
        clock.advance(600)
        assert await asyncio.wait_for(handle.result(), 30.0) == 0


# ---------------------------------------------------------------- several declarations


@on_a_loop
async def test_of_two_limits_each_worker_is_held_to_its_own_and_all_to_the_greatest(url: str) -> None:
    """One says 1 and the other 3: three run at once, of which the first runs one at the most."""
    crowd = Crowd()
    small, great = ("default", Queue("gpu", limit=1)), ("default", Queue("gpu", limit=3))
    async with engines(url, small, great, crowd=crowd) as (one, two):
        handles = [await one.start(drawn, 4, id="a"), await two.start(drawn, 4, id="b")]
        await until(lambda: len(crowd.inside) == 3)
        assert one.attempts.running <= 1
        crowd.gate.set()
        assert [await handle.result() for handle in handles] == [6, 6]
    assert crowd.most <= 3


# ---------------------------------------------------------------- what is said


@on_a_loop
async def test_what_waits_says_so_and_who_has_the_slots(url: str) -> None:
    """From the log alone: the step waits for its queue, and the slot is with a worker, for a step of an execution."""
    crowd, gpu = Crowd(), Queue("gpu", limit=1)
    async with engines(url, ("default", gpu), crowd=crowd) as (one,):
        await one.start(drawn, 2, id="a")
        await until(lambda: len(crowd.inside) == 1)
        explained = await one.explain("a")
        noted = [event.why for event in await one.history("a") if isinstance(event, Noted)]
        slot = await one.explain("!slot/gpu/0")
        crowd.gate.set()
        await (await one.get("a")).result()
    assert noted == ["gpu", "gpu"]
    assert "step 'draw-1'" in explained
    assert "waits for room in queue 'gpu'" in explained
    assert "1 may run at once over all workers, and 1 slots are taken" in explained
    assert f"worker {one.worker} has one, for step 'draw-0' of execution 'a'" in explained
    assert "it is a slot of a queue with limits" in slot


def test_slots_are_not_listed_unless_they_are_asked_for() -> None:
    """`list` shows what people started, page by page."""
    log = open_log("memory:")
    with zart.open(log, FLOWS, queues=[Queue("gpu", limit=3, rate=2)]):
        pass
    log.append([stored.New(id, "w", "d", [], 0.0) for id in ("!", "!slot/~~", "a")])
    assert [one.id for one in page_of(log, limit=2).items] == ["!", "!slot/~~"]
    assert [one.id for one in page_of(log, limit=1, after="!").items] == ["!slot/~~"]
    assert len(page_of(log, id_prefix="!slot/gpu/").items) == 6
    log.close()


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"limit": 0}, "limit=0; it is a whole number from 1 to 1,000"),
        ({"limit": True}, "limit=True"),
        ({"rate": 1001}, "a greater rate is a shorter time"),
        ({"rate": 2.5}, "rate=2.5"),
        ({"rate": 1, "per": 0}, "longer than nothing"),
        ({"rate": 1, "per": "soon"}, "per= of queue 'gpu'"),
    ],
)
def test_a_limit_that_cannot_be_is_refused(arguments: dict[str, Any], message: str) -> None:
    """At once, and the message says what may be."""
    with pytest.raises(zart.InvalidUse, match=f"(?i){message}"):
        Queue("gpu", **arguments)


def test_a_queue_is_declared_once() -> None:
    """The same twice is one; two limits are a mistake."""
    assert list(declared(["gpu", Queue("gpu")])) == ["gpu"]
    with pytest.raises(zart.InvalidUse, match="given twice"):
        declared([Queue("gpu", limit=1), Queue("gpu", limit=2)])


def test_limits_as_text() -> None:
    """As on the command line."""
    found = queues_of(["default", "gpu", "web"], ["gpu=4"], ["gpu=10/s", "web=5/250ms"])
    assert found == [
        Queue("default"),
        Queue("gpu", limit=4, rate=10, per="1s"),
        Queue("web", rate=5, per="250ms"),
    ]
    for limits, rates, message in (
        (["gpu"], [], "is not a limit of a queue; write gpu=4"),
        (["gpu=x"], [], "is not a limit"),
        (["tpu=4"], [], "add --queue tpu"),
        ([], ["gpu=10"], "is not a rate of a queue; write gpu=10/s"),
        ([], ["gpu=0/s"], "rate=0"),
        ([], ["gpu=1/week"], "no duration"),
    ):
        with pytest.raises(zart.InvalidUse, match=message):
            queues_of(["gpu"], limits, rates)


def test_an_id_that_somebody_else_took_is_said(tmp_path: Path) -> None:
    """Before anything begins."""
    log = open_log(f"memory:{tmp_path}")
    log.append([stored.New("!slot/gpu/0", "mine", "d", [], 0.0)])
    with pytest.raises(zart.InvalidUse, match="the slots of queue 'gpu' cannot be made: conflict"):
        zart.open(log, FLOWS, queues=[Queue("gpu", limit=1)])
    log.close()


def test_show_says_it_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`zart show --json` has the state `queued`, and the queue."""
    monkeypatch.chdir(tmp_path)
    with zart.open("sqlite:log.db", FLOWS, queues=["default", Queue("gpu", limit=1)], resources={}) as engine:
        assert engine.engine.log.acquire("somebody", "!slot/gpu/0", lease_s=600.0) is not None
        engine.start(drawn, 1, id="a")
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            assert app.main(["show", "a", "--store", "sqlite:log.db", "--json"]) == 0
        (step,) = json.loads(said.getvalue())["steps"]
    assert (step["name"], step["state"]) == ("draw-0", "queued")


# ---------------------------------------------------------------- processes

SCRIPT = """
import os, time
import zart_core as zart

def journal(what):
    descriptor = os.open("journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{os.getpid()} {what}\\n".encode())
    os.close(descriptor)

@zart.step("draw-{n}", queue="gpu")
def draw(n: int) -> int:
    journal("in")
    time.sleep(0.02)
    journal("out")
    return n

@zart.workflow("picture")
def picture(n: int) -> zart.Flow[int]:
    return sum((yield from zart.wait([draw(k) for k in range(n)])))
"""


def worker(directory: Path, url: str, *options: str) -> subprocess.Popen[str]:
    """A worker of the script; without options one of its queue, with a limit of one."""
    queue = options or ("--queue", "default", "--queue", "gpu", "--queue-limit", "gpu=1")
    return subprocess.Popen(
        [sys.executable, "-m", "zart_core.cli", "worker", "flows.py", "--store", url, "--lease", "3s", *queue],
        cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def overlaps(lines: list[str]) -> int:
    """The most that were inside at once, in processes that came out again."""
    stayed = {
        pid
        for pid in {line.split()[0] for line in lines}
        if lines.count(f"{pid} in") != lines.count(f"{pid} out")
    }
    inside, most = 0, 0
    for line in lines:
        pid, what = line.split()
        if pid not in stayed:
            inside += 1 if what == "in" else -1
            most = max(most, inside)
    return most


@pytest.mark.parametrize("store", ["sqlite", "postgresql"])
def test_workers_of_one_machine_keep_to_a_limit_and_one_is_killed(
    store: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Three processes, one step at a time; kill -9 of one takes its slot away and nothing else."""
    (tmp_path / "flows.py").write_text(SCRIPT)
    url = "sqlite:log.db"
    if store == "postgresql":
        url = request.getfixturevalue("server").url(f"t{os.getpid()}_{time.monotonic_ns()}")
    flows: dict[str, Any] = {}
    exec(SCRIPT, flows)
    log = open_log(url if store == "postgresql" else f"sqlite:{tmp_path}/log.db")
    workers = [worker(tmp_path, url) for _ in range(3)]
    try:
        for process in workers:
            assert process.stdout is not None
            assert "of queues default, gpu: draw-{n}" in process.stdout.readline()
        for n in range(3):
            Inline(log, Registry()).start(flows["picture"], 12, f"p{n}")
        journal = tmp_path / "journal"
        by_hand(lambda: journal.exists() and len(journal.read_text().splitlines()) > 6)
        first = int(journal.read_text().split()[0])
        next(process for process in workers if process.pid == first).kill()
        by_hand(lambda: all(ended_as(log, f"p{n}") == "completed" for n in range(3)))
        lines = journal.read_text().splitlines()
    finally:
        for process in workers:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        log.close()
    assert overlaps(lines) == 1
    assert len([line for line in lines if line.endswith("out")]) >= 36


def by_hand(true: Callable[[], bool]) -> None:
    """Wait until it is true, for a minute and a half at the most."""
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.02)


def ended_as(log: stored.EventLog, id: str) -> str:
    """The status of an execution."""
    summary = log.summary(id)
    return "" if summary is None else str(summary.status)


def test_a_limit_that_cannot_be_is_refused_on_the_command_line(tmp_path: Path) -> None:
    """Code 2, and what to write instead."""
    (tmp_path / "flows.py").write_text(SCRIPT)
    for options, message in (
        (("--queue", "gpu", "--queue-limit", "gpu"), "write gpu=4"),
        (("--queue-limit", "gpu=4"), "add --queue gpu"),
        (("--queue", "gpu", "--queue-rate", "gpu=0/s"), "from 1 to 1,000"),
    ):
        process = worker(tmp_path, "sqlite:log.db", *options)
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 2
        assert message in said
