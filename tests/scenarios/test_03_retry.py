"""Scenario 3: a step that fails once and is tried again."""

from datetime import timedelta

import zart_core as zart
from examples.retry_simulation import Seen, flaky_call, retry_simulation
from tests.scenarios.killing import killed, ledger
from zart_core.testing import explore_crashes, run

SEEN = Seen(attempt=1, is_retry=True, max_retries=3)


def attempts(history):
    """Each attempt on record: when it ended, and its error, if any."""
    return [
        (event.at, event.failure.type, event.failure.message)
        if isinstance(event, zart.Retried)
        else (event.at, "", "")
        for event in history
        if isinstance(event, zart.Retried | zart.Resolved)
    ]


def test_two_attempts_a_second_apart():
    """R4: attempt 1 sees that it is a retry; both are on record, the first with its real error, 1 s apart."""
    result = run(retry_simulation)
    began = result.history[0].at
    assert (result.value, result.elapsed, result.calls) == (SEEN, timedelta(seconds=1), {"flaky-call": 2})
    assert attempts(result.history) == [
        (began, "ConnectionError", "simulated outage on attempt 0"),
        (began + 1.0, "", ""),
    ]


def test_killed_while_it_waits():
    """The instant of the next attempt is on record: after a kill it neither waits again nor comes early."""
    two = killed(retry_simulation, at=0.5)
    assert two.first == {"flaky-call": 1}
    assert (two.result.value, two.result.elapsed) == (SEEN, timedelta(seconds=1))
    assert two.result.calls == {"flaky-call": 2}


def test_killed_anywhere():
    """R5: a crash uses up no retry."""
    report = explore_crashes(retry_simulation)
    assert ledger(report) == {"flaky-call": (2, 3)}
    assert len(report.outcomes) == 1


def test_retried_to_the_end():
    """R6: fixed(3, 1 s) makes four attempts within 3 s, and then the error comes as RetryExhausted."""
    result = run(retry_simulation, steps={flaky_call: ConnectionError("down")})
    assert (result.status, result.elapsed) == (zart.Status.FAILED, timedelta(seconds=3))
    assert result.calls == {"flaky-call": 4}
    assert "step 'flaky-call' failed at all 4 attempts" in str(result.error)


def test_on_the_engine(open_engine):
    """A real second, on each store."""
    with open_engine(retry_simulation) as engine:
        handle = engine.start(retry_simulation)
        assert handle.result(10) == SEEN
        (first, _), (second, _) = [(at, error) for at, error, _ in attempts(handle.history())]
        assert 1.0 <= second - first < 2.0
