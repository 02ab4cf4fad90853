"""Executions that wait: what they take of memory, and how soon they are there after a restart.

`python -m benchmarks.suspended URL N` suspends N of them and waits to be killed.
"""

from __future__ import annotations

import asyncio
import gc
import resource
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterable

import zart_core as zart
from benchmarks.speed import until_waiting
from benchmarks.stage import Stage
from benchmarks.workloads import WORKFLOWS, sleeper
from zart_core.hosts.engine import AsyncEngine

AT_ONCE = 500
"""How many are started together."""


async def suspend(engine: AsyncEngine, first: int, last: int) -> None:
    """Start those with these numbers, and wait until they wait."""
    for start in range(first, last, AT_ONCE):
        numbers = range(start, min(start + AT_ONCE, last))
        await asyncio.gather(*(engine.start(sleeper, n, id=f"s{n:09}") for n in numbers))
    await until_waiting(engine, last)


def bytes_alive(stage: Stage, count: int = 10_000) -> Iterable[tuple[float, str]]:
    """Bytes that each suspended execution takes while it is alive, on SQLite."""
    count = stage.sizes.of(count, 20)

    async def run(url: str) -> float:
        async with zart.serve(url, WORKFLOWS) as engine:
            await suspend(engine, 0, 100)
            gc.collect()
            tracemalloc.start()
            try:
                await suspend(engine, 100, 100 + count)
                gc.collect()
                return tracemalloc.get_traced_memory()[0] / count
            finally:
                tracemalloc.stop()

    for _ in range(min(stage.sizes.rounds, 3)):
        yield asyncio.run(run(stage.fresh("sqlite"))), f"{count:,} at once"


def bytes_beyond(stage: Stage) -> Iterable[tuple[float, str]]:
    """Bytes of the process for each suspended execution beyond those that the engine keeps alive, on SQLite.

    In a process of its own, so that what others left behind is neither counted nor reused.
    """
    kept, least, most = (stage.sizes.of(n, 20) for n in (10_000, 20_000, 100_000))
    command = [
        sys.executable,
        "-m",
        "benchmarks.suspended",
        stage.fresh("sqlite"),
        *map(str, (kept, least, most)),
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    before, after = map(int, done.stdout.split())
    yield (
        (after - before) / (most - least),
        f"{before / 2**20:.0f} MiB with {least:,}, {after / 2**20:.0f} MiB with {most:,}, {kept:,} kept alive",
    )


async def grow(url: str, kept: int, least: int, most: int) -> None:
    """Suspend more and more, and print the greatest memory of the process twice."""
    async with zart.serve(url, WORKFLOWS, max_live=kept) as engine:
        for first, last in ((0, least), (least, most)):
            await suspend(engine, first, last)
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, flush=True)


def ready(stage: Stage, name: str) -> Iterable[tuple[float, str]]:
    """Seconds from opening a store until the first and the last of 10,000 react, whose process was killed."""
    count = stage.sizes.of(10_000, 20)
    for _ in range(min(stage.sizes.rounds, 3)):
        url = stage.fresh(name)
        kill_with(url, count)
        yield (
            asyncio.run(wake(url, count)),
            f"kill -9 with {count:,} suspended; until the last of 100 has finished",
        )


def kill_with(url: str, count: int) -> None:
    """Suspend so many in a process that is then killed."""
    command = [sys.executable, "-m", "benchmarks.suspended", url, str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        process.kill()
    if said != "suspended\n":
        raise RuntimeError(f"{command} said {said!r}")


async def wake(url: str, count: int) -> float:
    """Seconds from opening until a hundred of them, spread over all, have got their event and finished."""
    start = time.perf_counter()
    async with zart.serve(url, WORKFLOWS) as engine:
        ids = [f"s{n:09}" for n in range(0, count, max(1, count // 100))]
        for id in ids:
            await engine.send(id, "go", "x")
        handles = [await engine.get(id) for id in ids]
        await asyncio.gather(*(handle.result() for handle in handles))
        return time.perf_counter() - start


async def hold(url: str, count: int) -> None:
    """Suspend so many, say so, and wait for the end."""
    async with zart.serve(url, WORKFLOWS) as engine:
        await suspend(engine, 0, count)
        print("suspended", flush=True)
        await asyncio.sleep(600)


if __name__ == "__main__":
    place, *numbers = sys.argv[1:]
    asyncio.run(hold(place, int(numbers[0])) if len(numbers) == 1 else grow(place, *map(int, numbers)))
