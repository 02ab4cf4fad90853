"""How time grows with size: the slope of log time over log n, 1 when twice the work takes twice the time."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable

import zart_core as zart
from benchmarks.measuring import Watch, cpu_timed, timing
from benchmarks.speed import run_sequence, serving
from benchmarks.stage import Stage
from benchmarks.workloads import fan, sequence
from zart_core.hosts.engine import AsyncEngine
from zart_core.hosts.inline import Inline
from zart_core.hosts.ports import open_log

SIZES = (100, 300, 1000, 3000, 10_000)
FEWER = (100, 1000, 10_000)
"""For what waits for a disk at each step."""


def slopes(
    stage: Stage, sizes: Iterable[int], seconds: Callable[[int], float]
) -> Iterable[tuple[float, str]]:
    """The slope of each round, and what one unit took at each size."""
    points = sorted({stage.sizes.of(n, 10 + n // 100) for n in sizes})
    for _ in range(min(stage.sizes.rounds, 3)):
        found = {n: seconds(n) for n in points}
        xs, ys = ([math.log(value) for value in side] for side in zip(*found.items(), strict=True))
        told = ", ".join(f"{taken / n * 1e6:.0f} µs at {n:,}" for n, taken in found.items())
        yield statistics.linear_regression(xs, ys).slope, f"for each: {told}"


def live(stage: Stage) -> Iterable[tuple[float, str]]:
    """A live run of sequential steps in memory, in CPU time."""
    return slopes(stage, SIZES, lambda n: run_sequence("memory:", n).cpu_s)


def sequential(stage: Stage, name: str) -> Iterable[tuple[float, str]]:
    """Sequential steps on a store. SQLite's work is in this process; for a server's there is only the wall."""
    return slopes(
        stage,
        FEWER,
        lambda n: getattr(run_sequence(stage.fresh(name), n), "wall_s" if name == "postgresql" else "cpu_s"),
    )


def fan_out(stage: Stage, name: str) -> Iterable[tuple[float, str]]:
    """Fan-out and fan-in on a store."""

    def seconds(n: int) -> float:
        async def work(engine: AsyncEngine) -> Watch:
            with timing() as watch:
                await engine.run(fan, n)
            return watch

        watch = serving(stage.fresh(name), work)
        return watch.wall_s if name == "postgresql" else watch.cpu_s

    return slopes(stage, SIZES, seconds)


def replay(stage: Stage, name: str) -> Iterable[tuple[float, str]]:
    """Reading, decoding and replaying a run, in CPU time."""
    hosts: dict[int, Inline] = {}

    def host_of(n: int) -> Inline:
        if n not in hosts:
            host = hosts[n] = Inline(open_log(stage.fresh(name)), zart.Registry(sequence))
            host.start(sequence, n, "x")
            host.drive("x")
        return hosts[n]

    def seconds(n: int) -> float:
        host = host_of(n)

        def once() -> None:
            zart.replay(sequence, host.codec.decode_events(host.log.records("x"), "x", 0))

        return min(cpu_timed(once) for _ in range(3))

    yield from slopes(stage, SIZES, seconds)
    for host in hosts.values():
        host.log.close()
