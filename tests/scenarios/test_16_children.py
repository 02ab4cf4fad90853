"""Scenario 16: a parent with a hundred children, and a counter that continues as new."""

import asyncio
import os

import zart_core as zart
from examples.children import Batch, child, parent
from examples.counter import Count, counter
from tests.scenarios.killing import killed, ledger
from zart_core.testing import explore_crashes, run

TOTAL = int(os.environ.get("ZART_COUNTER_EVENTS", "10000"))
"""Events for the long counter; 100,000 is the scenario's own number."""


def test_a_hundred_children():
    """Each is an execution of its own, and each step runs once."""
    result = run(parent, Batch(100), id="parent")
    assert result.value == sum(n * n for n in range(100))
    assert result.calls == {f"square-{n}": 1 for n in range(100)}
    assert len(result.histories) == 101


def test_killed_half_way():
    """The children that have ended are not run again."""
    two = killed(parent, Batch(100), before="square-50")
    assert two.result.value == sum(n * n for n in range(100))
    assert two.result.calls == {f"square-{n}": 1 for n in range(100)}


def test_a_few_children_killed_anywhere():
    """P3 with three children: one outcome; each child's step once, or twice."""
    report = explore_crashes(parent, Batch(3))
    assert ledger(report) == {f"square-{n}": (1, 2) for n in range(3)}
    assert len(report.outcomes) == 1


def test_children_on_the_engine(open_engine):
    """A hundred children at once, on each store."""
    with open_engine(parent, child) as engine:
        assert engine.run(parent, Batch(100), id="parent") == sum(n * n for n in range(100))
        assert engine.stats()[zart.Status.COMPLETED] == 101


def test_a_new_run_has_an_empty_history():
    """Each run begins with Started alone; nothing that came in is lost or counted twice."""
    result = run(counter, Count(until=25, per_run=10), events=[(n, "add", 1) for n in range(25)])
    assert result.value == 25
    assert sorted(run for _, run in result.histories) == [0, 1, 2]
    assert [events[-1].status for events in result.histories.values()] == [
        "continued",
        "continued",
        "completed",
    ]
    assert max(len(events) for events in result.histories.values()) <= 2 + 3 * 10


def test_events_during_the_hand_over():
    """What came in a burst moves along, in the same commit as the next run, in order."""
    result = run(counter, Count(until=25, per_run=10), events=[(0, "add", 1)] * 25)
    assert result.value == 25
    assert sorted(run for _, run in result.histories) == [0, 1, 2]


def test_the_counter_killed_anywhere():
    """P3, R14: nothing is lost or counted twice wherever it dies, hand-over included."""
    events = [(n, "add", 1) for n in range(9)]
    report = explore_crashes(counter, Count(until=9, per_run=3), events=events)
    report.check()
    assert report.outcomes == {"completed: 9"}


def test_killed_between_two_runs():
    """The next run goes on with what the last one counted."""
    two = killed(counter, Count(until=9, per_run=3), at=4.5, events=[(n, "add", 1) for n in range(9)])
    assert two.result.value == 9


def test_a_long_counter():
    """Events are sent while it counts; what is kept alive and each history stay bounded, and none is lost."""
    asyncio.run(count_for_long(TOTAL))


async def count_for_long(total: int) -> None:
    """Send events a hundred at a time, and look now and then at what the engine keeps."""
    async with zart.serve("memory:", counter) as engine:
        handle = await engine.start(counter, Count(total), id="counter")
        kept: list[int] = []
        for _ in range(0, total, 100):
            await asyncio.gather(*(handle.send("add", 1) for _ in range(100)))
            live = engine.live["counter"].run if "counter" in engine.live else None
            if live is not None and live.execution is not None:
                kept.append(live.position + len(live.inbox) + len(live.execution.pending))
        assert await handle.result(60) == total
        summary = await engine.summary("counter")
        assert summary.run == total // 1000 - 1
        sizes = [len(await handle.history(run)) for run in range(summary.run + 1)]
        assert max(sizes) <= 3 * 1000 + 2 + 2 * 100
        assert max(kept) <= 3 * 1000 + 2 + 4 * 100


def test_a_counter_on_the_engine(open_engine):
    """The same with few events, on each store, killed in the middle by closing the engine."""
    with open_engine(counter) as engine:
        handle = engine.start(counter, Count(60, per_run=20), id="counter")
        for _ in range(60):
            handle.send("add", 1)
        assert handle.result(20) == 60
        assert engine.list().items[0].run == 2
