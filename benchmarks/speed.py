"""The measurements behind the table of budgets: Zart, and beside it what a bare loop takes for the same.

Rule 1: what waits for nothing (replay, memory) is measured in CPU time, everything else by the clock on the wall.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterable

import zart_core as zart
from benchmarks.measuring import Sample, Watch, beside, cpu_timed, timing
from benchmarks.places import best, generator
from benchmarks.stage import Stage
from benchmarks.workloads import WORKFLOWS, fan, sequence, sleeper
from zart_core.events import Status
from zart_core.hosts.engine import AsyncEngine
from zart_core.hosts.inline import Inline
from zart_core.hosts.ports import open_log

GROUP = 100
"""Turns in one commit of a bare loop that groups."""


def replay_decoded(stage: Stage) -> Iterable[Sample]:
    """Replay of decoded events; runs are small and many, so that the least of them is undisturbed."""
    n = 300
    with zart.open("memory:", WORKFLOWS) as engine:
        engine.run(sequence, n, id="x")
        events = engine.get("x").history()
    for _ in range(stage.sizes.rounds):
        ours, bare = [], []
        for _ in range(stage.sizes.of(60, 3)):
            bare.append(generator(sequence, n))
            ours.append(cpu_timed(lambda: zart.replay(sequence, events)))
        yield Sample(min(ours), min(bare), n)


def replay_stored(stage: Stage, name: str, n: int = 10_000) -> Iterable[Sample]:
    """A run of n steps read from a store, decoded and replayed, beside the bare generator loop."""
    n = stage.sizes.of(n, 20)
    log = open_log(stage.fresh(name))
    host = Inline(log, zart.Registry(sequence))
    host.start(sequence, n, "x")
    host.drive("x")

    def once() -> None:
        zart.replay(sequence, host.codec.decode_events(log.records("x"), "x", 0))

    for _ in range(stage.sizes.rounds):
        gc.collect()
        pairs = [(cpu_timed(once), generator(sequence, n)) for _ in range(3)]
        yield Sample(min(ours for ours, _ in pairs), min(bare for _, bare in pairs), n)
    log.close()


def run_sequence(url: str, n: int) -> Watch:
    """n steps one after the other in an open engine."""
    with zart.open(url, WORKFLOWS) as engine:
        engine.run(sequence, 3)
        with timing() as watch:
            engine.run(sequence, n, id="measured")
    return watch


def sequential(stage: Stage, name: str, n: int = 1000) -> Iterable[Sample]:
    """Sequential steps beside a loop that commits the same rows."""
    n = stage.sizes.of(n, 10)
    place = stage.place(name)
    url = place.fresh()
    run_sequence(url, n)
    turns = place.written(url)[-n:]
    yield from beside(
        stage.sizes,
        n,
        lambda: run_sequence(place.fresh(), n),
        lambda: place.commits(place.fresh(), turns) * n / len(turns),
    )


def sequential_memory(stage: Stage) -> Iterable[Sample]:
    """Sequential steps where nothing is durable beside the generator alone, both in CPU time."""
    n = stage.sizes.of(5000, 10)
    for _ in range(stage.sizes.rounds):
        watch = run_sequence("memory:", n)
        yield Sample(watch.cpu_s, best(3, lambda: generator(sequence, n)), n)


def serving(url: str, work: Callable[[AsyncEngine], Awaitable[Watch]]) -> Watch:
    """What some work takes in an engine on an event loop."""

    async def run() -> Watch:
        async with zart.serve(url, WORKFLOWS) as engine:
            await engine.run(sequence, 1, id="warm")
            return await work(engine)

    return asyncio.run(run())


def grouped(
    stage: Stage, name: str, units: int, work: Callable[[AsyncEngine], Awaitable[Watch]]
) -> Iterable[Sample]:
    """Some work in an engine beside a loop that writes the same rows in groups."""
    place = stage.place(name)
    url = place.fresh()
    serving(url, work)
    turns = place.written(url)
    yield from beside(
        stage.sizes,
        units,
        lambda: serving(place.fresh(), work),
        lambda: place.commits(place.fresh(), turns, GROUP),
    )


def many_at_once(stage: Stage, name: str) -> Iterable[Sample]:
    """500 workflows of 5 steps at once."""
    count = stage.sizes.of(500, 4)

    async def work(engine: AsyncEngine) -> Watch:
        with timing() as watch:
            await asyncio.gather(*(engine.run(sequence, 5, id=f"x{index}") for index in range(count)))
        return watch

    yield from grouped(stage, name, count * 5, work)


def fan_out(stage: Stage, name: str, n: int) -> Iterable[Sample]:
    """Fan-out and fan-in of n steps."""
    n = stage.sizes.of(n, 4)

    async def work(engine: AsyncEngine) -> Watch:
        with timing() as watch:
            await engine.run(fan, n)
        return watch

    yield from grouped(stage, name, n, work)


def commits_of(
    stage: Stage, name: str, each: int, count: int, work: Callable[[AsyncEngine], Awaitable[Watch]]
) -> Iterable[Sample]:
    """`count` times something that waits for `each` commits one after the other, beside bare commits."""
    place = stage.place(name)
    url = place.fresh()
    serving(url, work)
    turns = place.written(url)[-2 * count :]
    yield from beside(
        stage.sizes,
        count,
        lambda: serving(place.fresh(), work),
        lambda: place.commits(place.fresh(), turns) * count * each / len(turns),
    )


def start_to_result(stage: Stage, name: str) -> Iterable[Sample]:
    """From start to the result of a one-step workflow, one after the other."""
    count = stage.sizes.of(200, 4)

    async def work(engine: AsyncEngine) -> Watch:
        with timing() as watch:
            for _ in range(count):
                await engine.run(sequence, 1)
        return watch

    yield from commits_of(stage, name, 3, count, work)


def event_to_finish(stage: Stage, name: str) -> Iterable[Sample]:
    """From sending an event to the result of who waits for it, one after the other."""
    count = stage.sizes.of(200, 4)

    async def work(engine: AsyncEngine) -> Watch:
        handles = [await engine.start(sleeper, index) for index in range(count)]
        await until_waiting(engine, count)
        with timing() as watch:
            for handle in handles:
                await handle.send("go", "x")
                await handle.result()
        return watch

    yield from commits_of(stage, name, 2, count, work)


async def until_waiting(engine: AsyncEngine, count: int) -> None:
    """Wait until so many executions are suspended, and the log knows it."""
    while (await engine.stats())[Status.WAITING] < count:
        await asyncio.sleep(0.01)
