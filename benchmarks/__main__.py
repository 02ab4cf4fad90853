"""Measures every row of the budgets and prints a table: the ratio, its spread, and the raw figures beside it."""

from __future__ import annotations

import asyncio
import gc
import math
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import zart_core as zart
from benchmarks import bare
from benchmarks.workloads import WORKFLOWS, fan, sequence, sleeper
from zart_core.events import Event
from zart_core.hosts.inline import Inline
from zart_core.hosts.ports import open_log

ROUNDS = 5
Pair = tuple[float, float]
"""Seconds of the thing itself, seconds of the bare loop."""


def history(n: int) -> list[Event]:
    """The decoded events of a run of n sequential steps, as the hosts write them."""
    with zart.open("memory:", WORKFLOWS) as engine:
        engine.run(sequence, n, id="x")
        return engine.get("x").history()


def replay_decoded() -> Iterator[Pair]:
    """Replay of decoded events against the bare generator loop; small runs, so that the best of many is meaningful."""
    events = history(300)
    for _ in range(ROUNDS):
        ours, loop = [], []
        for _ in range(60):
            loop.append(bare.generator(sequence, 300))
            ours.append(bare.timed(lambda: zart.replay(sequence, events)))
        yield min(ours), min(loop)


def replay_stored(url: str) -> Iterator[Pair]:
    """10,000 steps read from a store, decoded and replayed, against the bare generator loop."""
    with tempfile.TemporaryDirectory() as folder:
        log = open_log(url.format(folder))
        host = Inline(log, zart.Registry(sequence))
        host.start(sequence, 10_000, "x")
        host.drive("x")
        for _ in range(ROUNDS):
            gc.collect()
            loop = min(bare.generator(sequence, 10_000) for _ in range(3))

            def once() -> None:
                zart.replay(sequence, host.codec.decode_events(log.records("x"), "x", 0))

            yield min(bare.timed(once) for _ in range(3)), loop
        log.close()


def sequential(url: str, n: int) -> tuple[float, Path]:
    """Seconds for n steps on a fresh store, and where it lies."""
    folder = Path(tempfile.mkdtemp())
    with zart.open(url.format(folder), WORKFLOWS) as engine:
        engine.run(sequence, 3)
        return bare.timed(lambda: engine.run(sequence, n)), folder


def sequential_sqlite() -> Iterator[Pair]:
    """Sequential steps on SQLite against a loop that commits the same rows."""
    for _ in range(ROUNDS):
        ours, folder = sequential("sqlite:{}/x.db", 1000)
        turns = bare.sqlite_rows(folder / "x.db")[-1000:]
        yield ours, bare.sqlite_commits(folder / "bare.db", turns)


def sequential_file() -> Iterator[Pair]:
    """Sequential steps on the file log against a loop that appends and syncs the same bytes."""
    for _ in range(ROUNDS):
        ours, folder = sequential("file:{}/log", 1000)
        frames = bare.file_frames(folder / "log")[-1000:]
        yield ours, bare.file_syncs(folder / "bare", frames)


def sequential_memory() -> Iterator[Pair]:
    """Sequential steps in memory against the bare generator loop."""
    for _ in range(ROUNDS):
        ours, _ = sequential("memory:", 5000)
        yield ours, bare.generator(sequence, 5000)


def many_at_once() -> Iterator[Pair]:
    """500 workflows of 5 steps at once on SQLite against a loop that writes the same rows in groups of 100."""

    async def run(folder: Path) -> float:
        async with zart.serve(f"sqlite:{folder}/x.db", WORKFLOWS) as engine:
            start = time.perf_counter()
            await asyncio.gather(*(engine.run(sequence, 5, id=f"x{index}") for index in range(500)))
            return time.perf_counter() - start

    for _ in range(ROUNDS):
        folder = Path(tempfile.mkdtemp())
        ours = asyncio.run(run(folder))
        yield ours, bare.sqlite_commits(folder / "bare.db", bare.sqlite_rows(folder / "x.db"), group=100)


def fan_out(n: int) -> Iterator[Pair]:
    """Fan-out and fan-in of n steps on SQLite against a loop that writes the same rows in groups of 100."""

    async def run(folder: Path) -> float:
        async with zart.serve(f"sqlite:{folder}/x.db", WORKFLOWS) as engine:
            start = time.perf_counter()
            await engine.run(fan, n)
            return time.perf_counter() - start

    for _ in range(3):
        folder = Path(tempfile.mkdtemp())
        ours = asyncio.run(run(folder))
        yield ours, bare.sqlite_commits(folder / "bare.db", bare.sqlite_rows(folder / "x.db"), group=100)


def start_to_result() -> Iterator[Pair]:
    """A one-step workflow from start to result against three bare commits."""

    async def run(folder: Path) -> float:
        async with zart.serve(f"sqlite:{folder}/x.db", WORKFLOWS) as engine:
            await engine.run(sequence, 1)
            start = time.perf_counter()
            for _ in range(100):
                await engine.run(sequence, 1)
            return time.perf_counter() - start

    for _ in range(ROUNDS):
        folder = Path(tempfile.mkdtemp())
        ours = asyncio.run(run(folder))
        turns = bare.sqlite_rows(folder / "x.db")[-200:]
        yield ours, bare.sqlite_commits(folder / "bare.db", turns) * 300 / len(turns)


def event_to_finish() -> Iterator[Pair]:
    """From sending an event to the result against two bare commits."""

    async def run(folder: Path) -> float:
        async with zart.serve(f"sqlite:{folder}/x.db", WORKFLOWS) as engine:
            handles = [await engine.start(sleeper, index) for index in range(100)]
            await asyncio.sleep(0.3)
            start = time.perf_counter()
            for handle in handles:
                await handle.send("go", "x")
                await handle.result()
            return time.perf_counter() - start

    for _ in range(ROUNDS):
        folder = Path(tempfile.mkdtemp())
        ours = asyncio.run(run(folder))
        turns = bare.sqlite_rows(folder / "x.db")[-200:]
        yield ours, bare.sqlite_commits(folder / "bare.db", turns) * 200 / len(turns)


def growth() -> float:
    """The slope of log time over log n of a live run in memory from 100 to 10,000 steps."""
    points = []
    for n in (100, 300, 1000, 3000, 10_000):
        points.append((math.log(n), math.log(min(sequential("memory:", n)[0] for _ in range(3)))))
    return statistics.linear_regression(*zip(*points, strict=True)).slope


def suspended_bytes(count: int = 2000) -> float:
    """Bytes that a suspended execution takes while it is alive, on SQLite."""

    async def run(folder: Path) -> float:
        async with zart.serve(f"sqlite:{folder}/x.db", WORKFLOWS) as engine:
            await asyncio.gather(*(engine.start(sleeper, index) for index in range(100)))
            await asyncio.sleep(0.5)
            gc.collect()
            tracemalloc.start()
            await asyncio.gather(*(engine.start(sleeper, index) for index in range(count)))
            await asyncio.sleep(2)
            gc.collect()
            taken, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            return taken / count

    return asyncio.run(run(Path(tempfile.mkdtemp())))


RATIOS: dict[str, tuple[str, str, Callable[[], Iterator[Pair]]]] = {
    "replay": ("replay of decoded events, times the bare loop", "<= 5", replay_decoded),
    "replay-sqlite": (
        "replay of 10,000 steps from SQLite, times the bare loop",
        "<= 10",
        lambda: replay_stored("sqlite:{}/x.db"),
    ),
    "replay-file": (
        "replay of 10,000 steps from file, times the bare loop",
        "<= 10",
        lambda: replay_stored("file:{}/log"),
    ),
    "sequential-sqlite": ("sequential steps on SQLite, share of the bare rate", ">= 0.6", sequential_sqlite),
    "sequential-file": ("sequential steps on file, share of the bare rate", ">= 0.6", sequential_file),
    "sequential-memory": ("sequential steps in memory, times the bare loop", "", sequential_memory),
    "many": ("500 workflows of 5 steps on SQLite, share of the bare rate", ">= 0.35", many_at_once),
    "fan-1000": ("fan-out of 1,000 on SQLite, share of the bare rate", ">= 0.35", lambda: fan_out(1000)),
    "fan-10000": ("fan-out of 10,000 on SQLite, share of the bare rate", ">= 0.35", lambda: fan_out(10_000)),
    "start": ("start to result on SQLite, times three bare commits", "<= 2", start_to_result),
    "event": ("event to finish on SQLite, times two bare commits", "<= 2", event_to_finish),
}
FIGURES: dict[str, tuple[str, str, Callable[[], float]]] = {
    "growth": ("growth of a live run from 100 to 10,000 steps, slope", "<= 1.1", growth),
    "suspended": ("bytes of a suspended execution while alive", "<= 4096", suspended_bytes),
}


def line(name: str) -> str:
    """One row of the table."""
    if name in FIGURES:
        title, budget, figure = FIGURES[name]
        return f"| {title} | {figure():.2f} | | {budget} | |"
    title, budget, pairs = RATIOS[name]
    measured = list(pairs())
    ratios = [other / ours if "share" in title else ours / other for ours, other in measured]
    ours, other = (statistics.median(side) for side in zip(*measured, strict=True))
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    return (
        f"| {title} | {statistics.median(ratios):.2f} | {spread} | {budget} | {ours:.4f} s, {other:.4f} s |"
    )


def main(names: list[str]) -> None:
    """Print the rows that are named, or all of them."""
    print("| what | median | spread | budget | ours, bare |\n|---|---|---|---|---|")
    for name in names or [*RATIOS, *FIGURES]:
        print(line(name), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
