"""What a million finished executions do to a store: finding work, listing and starting, beside a thousand of them.

Rule 1: the rows are those that the store would have written, checksums too; they are copied in, which takes a minute
        where running them would take a day. Their records are left out: nothing here reads them.
Rule 2: each figure is the least of many, taken in turns with what it is compared to: a processor that changes its speed
        meanwhile changes both. What is compared is how an operation grows, not how disturbed it was.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import attrs
import psycopg

import zart_core as zart
from benchmarks.measuring import timed
from benchmarks.stage import Stage
from benchmarks.workloads import WORKFLOWS, sequence, sleeper
from zart_core.events import Status
from zart_core.hosts.engine import AsyncEngine
from zart_core.hosts.ports import open_log
from zart_core.log import EventLog, Mark, Post
from zart_stores.rows import Row
from zart_stores.sql import checksums
from zart_stores.sql.reading import COLUMNS

RARE = 1000
"""Every so many executions are of another workflow."""
FEW = 1000
"""How many there are to compare with."""
TRIES = 40
RUNS = 5
AT = 1_700_000_000.0


def rows(first: int, count: int) -> Iterator[tuple[Any, ...]]:
    """Rows of finished executions, in the order of COLUMNS; their ids have the order of their keys."""
    for key in range(first, first + count):
        workflow = "fan" if key % RARE == 0 else "sequence"
        row = Row(
            key,
            f"done-{key:012}",
            workflow,
            "0" * 64,
            AT,
            Status.COMPLETED,
            None,
            None,
            0,
            3,
            1,
            AT,
            False,
            0,
            0,
            0,
            0,
        )
        yield (*attrs.astuple(row)[:5], "completed", *attrs.astuple(row)[6:], None, checksums.of_row(row))


def fill(stage: Stage, url: str, count: int) -> None:
    """Copy so many finished executions into the store of a URL, beside whatever is there."""
    if url.startswith("sqlite:"):
        fill_sqlite(url.removeprefix("sqlite:"), count)
    else:
        fill_postgres(stage, url.rpartition("=")[2], count)


def fill_sqlite(path: str, count: int) -> None:
    """By one transaction."""
    db = sqlite3.connect(path, isolation_level=None)
    try:
        (first,) = db.execute("SELECT coalesce(max(key), 0) + 1 FROM executions").fetchone()
        db.execute("BEGIN IMMEDIATE")
        marks = ", ".join("?" * len(COLUMNS.split(", ")))
        db.executemany(f"INSERT INTO executions ({COLUMNS}) VALUES ({marks})", rows(first, count))
        db.execute("COMMIT")
    finally:
        db.close()


def fill_postgres(stage: Stage, schema: str, count: int) -> None:
    """By COPY, then the statistics that autovacuum would have gathered."""
    with psycopg.connect(stage.server.dsn, autocommit=True) as db:
        query = f"SELECT nextval('{schema}.execution_keys') FROM generate_series(1, %s)"
        first = min(number for (number,) in db.execute(query.encode(), (count,)).fetchall())
        with (
            db.cursor() as cursor,
            cursor.copy(f"COPY {schema}.executions ({COLUMNS}) FROM STDIN".encode()) as copy,
        ):
            for row in rows(first, count):
                copy.write_row(row)
        db.execute(f"VACUUM ANALYZE {schema}.executions".encode())


def growth(stage: Stage, name: str) -> Iterable[tuple[float, str]]:
    """How many times as long the slowest operation takes among a thousand times as many finished executions."""
    few, many = stage.sizes.of(FEW, 20), stage.sizes.of(FEW * 1000, 200)
    place = stage.place(name)
    small, large = place.fresh(), place.fresh()
    logs = {}
    for url, count in ((small, few), (large, many)):
        suspend(url)
        fill(stage, url, count)
        logs[url] = open_log(url)
    for _ in range(stage.sizes.rounds):
        before, after = operations(logs[small], small, few), operations(logs[large], large, many)
        found = {what: least_of_both(before[what], after[what]) for what in before}
        slower = {what: later / first for what, (first, later) in found.items()}
        told = [f"{what} {first * 1e3:.2f} → {later * 1e3:.2f} ms" for what, (first, later) in found.items()]
        yield max(slower.values()), f"{few:,} → {many:,} finished: {', '.join(told)}"
    for log in logs.values():
        log.close()


def suspend(url: str) -> None:
    """One execution that waits for an event."""
    with zart.open(url, WORKFLOWS) as engine:
        engine.start(sleeper, 1, id="suspended")
        while not engine.stats()[Status.WAITING]:
            time.sleep(0.01)


def least_of_both(before: Callable[[], float], after: Callable[[], float]) -> tuple[float, float]:
    """The least of many tries of each, in turns; in seconds."""
    tries = [(before(), after()) for _ in range(TRIES)]
    return min(first for first, _ in tries), min(later for _, later in tries)


def operations(log: EventLog, url: str, count: int) -> dict[str, Callable[[], float]]:
    """What is done to a store that has so many finished executions; each gives the seconds of one try."""
    middle = f"done-{count // 2:012}"

    def listed(n: int, **how: Any) -> Callable[[], float]:
        def call() -> float:
            pages = []
            seconds = timed(lambda: pages.append(log.list(limit=10, **how)))
            if len(pages[0].items) != n:
                raise AssertionError(f"a page of {how} has {len(pages[0].items)} items, not {n}")
            return seconds

        return call

    def claim() -> float:
        log.append([Post("suspended", "event", "other", b"1", AT)])
        given: list[Any] = []
        seconds = timed(lambda: given.extend(log.claim("claimer", now=AT, lease_s=30.0, limit=10)))
        if [one.id for one in given] != ["suspended"]:
            raise AssertionError(f"claimed {given}")
        held = given[0]
        log.append([Mark(held.id, Status.WAITING, seen=held.unread, fence=held.fence, releases=True)])
        return seconds

    return {
        "claim": claim,
        "next wake": lambda: timed(log.next_wake),
        "first page": listed(10),
        "a page in the middle": listed(10, after=middle),
        "by status": listed(10, status=Status.COMPLETED, after=middle),
        "by a status that few have": listed(1, status=Status.WAITING),
        "by workflow": listed(10, workflow="sequence", after=middle),
        "start to result": lambda: start_to_result(url),
    }


def start_to_result(url: str) -> float:
    """The least of some runs of a one-step workflow by an engine of their own, in seconds."""

    async def run() -> float:
        async with zart.serve(url, WORKFLOWS) as engine:
            return min([await timed_run(engine) for _ in range(RUNS)])

    return asyncio.run(run())


async def timed_run(engine: AsyncEngine) -> float:
    """Seconds of one run in an open engine."""
    start = time.perf_counter()
    await engine.run(sequence, 1)
    return time.perf_counter() - start
