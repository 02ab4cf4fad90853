"""Scenario 6: fan-out and fan-in."""

from datetime import timedelta

import pytest

import zart_core as zart
from examples.parallel_checks import Health, check, mend, page_somebody, parallel_checks, summarize
from tests.scenarios.killing import issued, killed, ledger
from zart_core.testing import explore_crashes, run

SERVICES = ["auth-api", "payments", "users-db"]
RESULTS = [
    Health("auth-api", "healthy", 42),
    Health("payments", "degraded", 156, "high latency detected"),
    Health("users-db", "healthy", 28),
]
CHECKS = ["check-auth-api", "check-payments", "check-users-db"]
LATER = ["summarize", "page-payments", "drain-payments", "restart-payments"]
MENDED = ["payments restarted, 8 requests moved"]


def test_in_the_order_of_the_input():
    """Values in input order; a sequential step, a second fan-out and a fan-out of flows follow."""
    result = run(parallel_checks, SERVICES)
    assert result.value == (RESULTS, MENDED)
    assert issued(result.history) == CHECKS + LATER
    assert result.calls == dict.fromkeys(CHECKS + LATER, 1)


def test_whatever_the_order_of_completion():
    """The first one is retried and comes in last; the values stay in input order."""
    steps = {check: [ConnectionError("busy"), RESULTS[1], RESULTS[2], RESULTS[0]]}
    result = run(parallel_checks, SERVICES, steps=steps)
    assert result.value[0] == RESULTS
    ended = [event.seq for event in result.history if isinstance(event, zart.Resolved)][:3]
    assert ended == [1, 2, 0]
    assert result.elapsed == timedelta(seconds=1)


def test_anything_else_is_unknown():
    """An unknown service has no latency; nothing at all gives empty lists."""
    assert run(parallel_checks, ["printer"]).value[0] == [Health("printer", "unknown")]
    assert run(parallel_checks, []).value == ([], [])


def test_killed_after_two_of_three():
    """Only the third check runs afterwards."""
    two = killed(parallel_checks, SERVICES, before="check-users-db")
    assert two.first == {"check-auth-api": 1, "check-payments": 1}
    assert two.result.value == (RESULTS, MENDED)
    assert two.result.calls == dict.fromkeys(CHECKS + LATER, 1)


def test_killed_anywhere():
    """P3: one outcome; each step once, or twice."""
    report = explore_crashes(parallel_checks, SERVICES)
    assert ledger(report) == dict.fromkeys(CHECKS + LATER, (1, 2))
    assert len(report.outcomes) == 1


def test_retries_hold_inside_a_fan_out():
    """Each item has retries of its own, and the list waits for the slowest."""
    steps = {check: [OSError("a"), OSError("b"), OSError("c"), *RESULTS]}
    result = run(parallel_checks, SERVICES, steps=steps)
    assert (result.value[0], result.elapsed) == (RESULTS, timedelta(seconds=1))
    assert [result.calls[name] for name in CHECKS] == [2, 2, 2]


@zart.step("slow-{n}", timeout="5s")
async def slow(n: int) -> int | None:
    return n


def two_in_a_row(n: int) -> zart.Flow[tuple[int | None, int | None]]:
    return (yield from slow(n)), (yield from slow(n + 10))


@zart.workflow("timeouts")
def timeouts() -> zart.Flow[list[str]]:
    outcomes = yield from zart.settle([two_in_a_row(0), two_in_a_row(1), two_in_a_row(2)])
    return [
        str(outcome.value) if isinstance(outcome, zart.Ok) else type(outcome.error).__name__
        for outcome in outcomes
    ]


async def hangs_on_one(n: int) -> int | None:
    """A stand-in whose number 1 never ends, and whose number 2 gives None."""
    import asyncio

    await asyncio.sleep(3600 if n == 1 else 0)
    return None if n == 2 else n


def test_timeouts_and_none_hold_inside_a_fan_out():
    """R7: the one that hangs times out after 5 s; the others go on, and None is a result."""
    result = run(timeouts, steps={slow: hangs_on_one})
    assert result.value == ["(0, 10)", "StepTimedOut", "(None, 12)"]
    assert result.elapsed == timedelta(seconds=5)


def test_failures_come_together():
    """`wait` raises StepsFailed once all have ended, with every outcome in the order given."""

    @zart.workflow("all-of-them")
    def all_of_them() -> zart.Flow[list[str]]:
        try:
            yield from zart.wait([slow(1), slow(2), slow(3)])
        except zart.StepsFailed as failed:
            return [type(outcome).__name__ for outcome in failed.outcomes] + [
                str(e) for e in failed.exceptions
            ]
        return []

    result = run(all_of_them, steps={slow: [OSError("one"), 2, OSError("three")]})
    assert result.value == [
        "Err",
        "Ok",
        "Err",
        "step 'slow-1' failed: OSError: one",
        "step 'slow-3' failed: OSError: three",
    ]


@pytest.mark.parametrize("services", [SERVICES, []])
def test_on_the_engine(open_engine, services):
    """Really beside each other, on each store: in the order of the input all the same."""
    with open_engine(parallel_checks) as engine:
        results, mended = engine.run(parallel_checks, services)
        assert (results, mended) == ((RESULTS, MENDED) if services else ([], []))
    assert (page_somebody.id, summarize.id, mend.__name__) == ("page-{service}", "summarize", "mend")
