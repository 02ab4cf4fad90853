"""Several worker processes on one PostgreSQL: throughput, and what the limit was. `python -m benchmarks.workers`

Rule 1: executions come in small groups while the workers run, so that no worker can claim everything at once.
Rule 2: what the limit was is read from the system: whose CPU time it was, and how much of the machine was idle.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs
import psycopg

import zart_core as zart
from benchmarks.measuring import Sizes
from benchmarks.report import machine
from benchmarks.stage import Stage, staged
from benchmarks.workloads import sequence
from zart_core.codec import Codec
from zart_core.events import Ok, Status
from zart_core.hosts.ports import open_log
from zart_core.hosts.relatives import new_execution

STEPS = 5
GROUP = 10
"""Executions that come at once."""
TICK = os.sysconf("SC_CLK_TCK")


@zart.step("call-{n}")
async def call(n: int) -> int:
    """A step that waits for somebody else, as most steps do."""
    await asyncio.sleep(0.05)
    return n


@zart.workflow("calls")
def calls(n: int) -> zart.Flow[int]:
    """n such steps, one after the other."""
    total = 0
    for index in range(n):
        total += yield from call(index)
    return total


@attrs.frozen
class Load:
    """What the workers have to do."""

    title: str
    workflow: zart.Workflow[int, int]
    executions: int
    slots: int
    """Steps at once for each worker."""
    step_s: float

    def bound(self, workers: int) -> float:
        """Steps a second that the slots allow."""
        return workers * self.slots / self.step_s if self.step_s else float("inf")


LOADS = (
    Load("steps that wait 50 ms, 8 at once for each worker", calls, 300, 8, 0.05),
    Load("steps that do nothing", sequence, 600, 64, 0.0),
)


@attrs.frozen
class Spent:
    """Seconds of CPU since a beginning."""

    workers: float
    server: float
    busy: float
    idle: float


@attrs.frozen
class Logged:
    """What a server did with its write-ahead log since a beginning."""

    syncs: int
    syncing_s: float
    """Seconds in which it waited for a sync."""
    wal_bytes: int


@attrs.frozen
class Outcome:
    """What some workers came to."""

    workers: int
    steps_s: float
    own: float
    """Cores that the workers kept busy; so are the others."""
    server: float
    machine: float
    syncs_s: float
    wal: float
    """Bytes of write-ahead log for each step."""
    stored: float
    """Bytes of tables and indexes for each step."""
    limit: str


def cpu_of(pid: int, *, children: bool = False) -> float:
    """CPU seconds of a process, with those of the children that it has buried if asked for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11 : 15 if children else 13])) / TICK


def children_of(pid: int) -> list[int]:
    """The processes that a process has begun."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def spent(stage: Stage, workers: Sequence[int]) -> Spent:
    """Where the CPU time went so far."""
    postmaster = int((stage.server.data / "postmaster.pid").read_text().split()[0])
    server = cpu_of(postmaster, children=True)
    for child in children_of(postmaster):
        try:
            server += cpu_of(child)
        except FileNotFoundError:
            continue  # it has ended meanwhile, and its time is with the postmaster the next time
    user, nice, system, idle, wait, *rest = map(
        int, Path("/proc/stat").read_text().split("\n")[0].split()[1:]
    )
    busy = (user + nice + system + sum(rest[:3])) / TICK
    return Spent(sum(map(cpu_of, workers)), server, busy, (idle + wait) / TICK)


def logged(stage: Stage) -> Logged:
    """What the server did with its log so far: what its processes tell when they end, so once all clients are gone."""
    others = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    query = "SELECT wal_sync, wal_sync_time / 1000, pg_current_wal_insert_lsn() - '0/0' FROM pg_stat_wal"
    with psycopg.connect(stage.server.dsn, autocommit=True) as db:
        while db.execute(others).fetchone() != (0,):
            time.sleep(0.02)
        ((syncs, syncing_s, wal_bytes),) = db.execute(query).fetchall()
    return Logged(int(syncs), float(syncing_s), int(wal_bytes))


@contextmanager
def working(url: str, count: int, load: Load) -> Iterator[list[int]]:
    """So many worker processes that wait for work; gives their pids."""
    with ExitStack() as stack:
        pids = []
        for _ in range(count):
            command = [sys.executable, "-m", "benchmarks.workers", "--serve", url, str(load.slots)]
            process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            stack.callback(process.kill)
            pids.append(process.pid)
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise RuntimeError(f"a worker did not begin: {command}")
        yield pids


def measure(stage: Stage, load: Load, count: int) -> Outcome:
    """Give so many workers their load, and wait until everything has ended."""
    executions = stage.sizes.of(load.executions, GROUP)
    url = stage.fresh("postgresql")
    earlier = logged(stage)
    log = open_log(url)
    codec = Codec()
    with working(url, count, load) as pids:
        before, start = spent(stage, pids), time.perf_counter()
        for first in range(0, executions, GROUP):
            now = time.time()
            payload = str(STEPS).encode()
            batch = [
                new_execution(codec, load.workflow, f"x{index}", payload, now)
                for index in range(first, first + GROUP)
            ]
            assert all(isinstance(outcome, Ok) for outcome in log.append(batch))
        while log.stats().get(Status.COMPLETED, 0) < executions:
            time.sleep(0.02)
        seconds, after = time.perf_counter() - start, spent(stage, pids)
    log.close()
    later = logged(stage)
    steps = executions * STEPS
    wal, stored = (later.wal_bytes - earlier.wal_bytes) / steps, stored_bytes(stage, url) / steps
    cores = os.cpu_count() or 1
    steps_s = steps / seconds
    own, server = ((getattr(after, who) - getattr(before, who)) / seconds for who in ("workers", "server"))
    idle = (after.idle - before.idle) / (after.idle - before.idle + after.busy - before.busy)
    syncing = (later.syncing_s - earlier.syncing_s) / seconds
    limit = limit_of(steps_s / load.bound(count), syncing, idle, own + server, cores)
    syncs_s = (later.syncs - earlier.syncs) / seconds
    return Outcome(count, steps_s, own, server, (1 - idle) * cores, syncs_s, wal, stored, limit)


def stored_bytes(stage: Stage, url: str) -> int:
    """What the tables of a log take, indexes and all."""
    query = (
        "SELECT sum(pg_total_relation_size(oid)) FROM pg_class "
        "WHERE relkind = 'r' AND relnamespace = %s::regnamespace"
    )
    with psycopg.connect(stage.server.dsn, autocommit=True) as db:
        ((found,),) = db.execute(query, (url.rpartition("=")[2],)).fetchall()
    return int(found)


def limit_of(slots: float, syncing: float, idle: float, ours: float, cores: int) -> str:
    """What kept throughput from being greater: shares of the slots, of time, of the machine's time, and cores."""
    if slots > 0.8:
        return "the workers' slots"
    if syncing > 0.7:
        return f"the disk: {syncing:.0%} of the time in syncs"
    if idle < 0.1:
        return (
            "CPU" if ours > cores * 0.7 else f"CPU, {cores - ours:.1f} of {cores} cores of it used by others"
        )
    return "waiting: the disk, or each other"


def line(outcome: Outcome) -> str:
    """One row."""
    cpu = f"{outcome.own / outcome.steps_s * 1e6:.0f} µs | {outcome.server / outcome.steps_s * 1e6:.0f} µs"
    return (
        f"| {outcome.workers} | {outcome.steps_s:,.0f} | {cpu} | {outcome.own + outcome.server:.2f} of "
        f"{outcome.machine:.2f} | {outcome.steps_s / outcome.syncs_s:.1f} | {outcome.wal:,.0f} | {outcome.stored:,.0f} "
        f"| {outcome.limit} |"
    )


HEAD = (
    "| workers | steps/s | worker's CPU a step | server's CPU a step | cores, of those busy | steps for each sync "
    "| WAL bytes a step | stored bytes a step | limit |\n|---|---|---|---|---|---|---|---|---|"
)


async def serve(url: str, slots: int) -> None:
    """A worker, until it is killed."""
    async with zart.serve(url, [calls, sequence], max_concurrent_steps=slots):
        print("ready", flush=True)
        await asyncio.sleep(3600)


def main(argv: list[str]) -> None:
    """Print a table for each load."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.workers", description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 3, 4], help="how many (%(default)s)")
    parser.add_argument("--share", type=float, default=1.0, help="share of each load (%(default)s)")
    parser.add_argument("--serve", nargs=2, metavar=("URL", "SLOTS"), help=argparse.SUPPRESS)
    asked = parser.parse_args(argv)
    if asked.serve:
        return asyncio.run(serve(asked.serve[0], int(asked.serve[1])))
    print(machine())
    with staged(Sizes(1, asked.share)) as stage:
        for load in LOADS:
            print(f"\n{load.title}\n\n{HEAD}")
            for count in asked.workers:
                print(line(measure(stage, load, count)), flush=True)
    return None


if __name__ == "__main__":
    main(sys.argv[1:])
