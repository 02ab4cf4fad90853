"""The shape of what the engine costs: counts and bytes, never times."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from pathlib import Path

import pytest
from engines import PATIENCE_S, Sky, sky, until, url_of

import zart_core as zart
from zart_core.hosts.ports import open_log
from zart_core.testing.clock import VirtualClock


@zart.step("one-{n}")
def one(n: int) -> int:
    return n


@zart.workflow("suspended")
def suspended(n: int) -> zart.Flow[int]:
    got = yield from one(n)
    return got + (yield from zart.wait_for_event("number", int))


@zart.workflow("wide")
def wide(n: int) -> zart.Flow[int]:
    return len((yield from zart.wait([one(k) for k in range(n)])))


@zart.workflow("long")
def long(n: int) -> zart.Flow[int]:
    for k in range(n):
        yield from one(k)
    return n


def counted(workflow: zart.Workflow[int, int], n: int) -> tuple[int, int]:
    """How many records a run writes, and how often it is read back."""
    reads: list[str] = []

    class Watched(Sky):
        def reach(self, method: str) -> None:
            reads.append(method)

    log = Watched(open_log("memory:"))
    with zart.open(log, [workflow]) as engine:
        assert engine.run(workflow, n) == n
    written = [record for batch in log.batches for write in batch for record in getattr(write, "records", ())]
    log.close()
    return len(written), reads.count("records")


@pytest.mark.parametrize("workflow", [wide, long])
def test_records_grow_as_the_run_does_and_nothing_is_replayed(workflow: zart.Workflow[int, int]) -> None:
    """Three records a step, two more for the run; a live execution never reads its history."""
    for n in (10, 100, 1000):
        records, reads = counted(workflow, n)
        assert records == 3 * n + 2
        assert reads <= 1  # the result of one that is over


@zart.workflow("patient", timeout="30d")
def patient(n: int) -> zart.Flow[int]:
    return n + (yield from zart.wait_for_event("number", int, timeout="7d"))


def test_instants_that_nobody_waits_for_any_more_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadlines of what has ended are not kept for days; those of what waits still are."""
    monkeypatch.setattr("zart_core.hosts.alarms.THINNED_MIN", 10)
    clock = VirtualClock()
    with zart.open("memory:", [patient], clock=clock) as engine:
        waiting = [engine.start(patient, n, id=f"w{n}") for n in range(3)]
        for n in range(50):
            handle = engine.start(patient, n, id=f"e{n}")
            handle.send("number", 1)
            assert handle.result(PATIENCE_S) == n + 1
        assert len(engine.engine.alarms.timers) <= 10
        clock.advance(7 * 86400)
        for each in waiting:
            with pytest.raises(zart.ExecutionFailed, match="no event 'number' came"):
                each.result(PATIENCE_S)


def test_what_the_hosts_keep_of_a_suspended_execution() -> None:
    """Less than 2 kB each, the generator and the core's share apart."""

    async def main() -> float:
        async with zart.serve("memory:", [suspended]) as engine:
            await asyncio.gather(*(engine.start(suspended, n) for n in range(100)))
            tracemalloc.start()
            await asyncio.gather(*(engine.start(suspended, n) for n in range(500)))
            while (await engine.stats())[zart.Status.WAITING] < 600:
                await asyncio.sleep(0.01)
            gc.collect()
            own = tracemalloc.Filter(True, "*/zart_core/hosts/*")
            snapshot = tracemalloc.take_snapshot().filter_traces([own])
            tracemalloc.stop()
            return sum(trace.size for trace in snapshot.traces) / 500

    assert asyncio.run(main()) < 2000


def test_a_restart_reads_no_history_of_what_is_suspended(tmp_path: Path) -> None:
    """However many wait for something: they are read when it comes."""
    with zart.open(url_of("sqlite", tmp_path), [suspended]) as engine:

        async def start_all() -> None:
            await asyncio.gather(*(engine.engine.start(suspended, n, id=f"s{n}") for n in range(300)))

        engine.await_(start_all())
        until(lambda: engine.stats()[zart.Status.WAITING] == 300)
    reads: list[str] = []
    log = sky("sqlite", tmp_path)
    log.reach = reads.append  # type: ignore[method-assign]
    with zart.open(log, [suspended]) as engine:
        assert reads.count("records") == 0
        engine.send("s7", "number", 1)
        assert engine.get("s7").result(5) == 8
        assert 1 <= reads.count("records") <= 2
    log.close()
