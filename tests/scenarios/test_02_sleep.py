"""Scenario 2: a sleep between two stamps."""

from datetime import timedelta

import zart_core as zart
from examples.durable_sleep import durable_sleep
from tests.scenarios.killing import killed, ledger
from zart_core.testing import explore_crashes, run
from zart_core.testing.clock import START


def test_exactly_five_seconds():
    """R13: the stamps are exactly 5 s apart, and the first one is the start."""
    result = run(durable_sleep, 5.0)
    assert result.value.started_at == START
    assert result.value.resumed_at - result.value.started_at == timedelta(seconds=5)
    assert result.elapsed == timedelta(seconds=5)


def test_the_same_stamps_on_every_replay():
    """P4: a replay of the log, however late, gives the recorded stamps."""
    result = run(durable_sleep, 5.0)
    assert [zart.replay(durable_sleep, result.history).result() for _ in range(3)] == [result.value] * 3


def test_killed_in_mid_sleep():
    """The wake time is not restarted: killed after 2 s, it sleeps 3 s more."""
    two = killed(durable_sleep, 5.0, at=2.0)
    assert two.result.value.resumed_at - two.result.value.started_at == timedelta(seconds=5)
    assert two.result.elapsed == timedelta(seconds=5)
    assert two.result.value == run(durable_sleep, 5.0).value


def test_killed_anywhere():
    """One outcome, to the microsecond, wherever it dies."""
    report = explore_crashes(durable_sleep, 5.0)
    assert ledger(report) == {}
    assert len(report.outcomes) == 1


def test_on_the_engine(open_engine):
    """Never early on a real clock, on each store."""
    with open_engine(durable_sleep) as engine:
        assert 0.2 <= engine.run(durable_sleep, 0.2).duration_s < 2.0


def test_the_engine_is_closed_in_mid_sleep(url):
    """Another engine on the log wakes it when it is due, neither early nor long after."""
    if url == "memory:":
        url = "memory:closed-in-mid-sleep"
    with zart.open(url, durable_sleep) as engine:
        engine.start(durable_sleep, 0.5, id="nap")
    with zart.open(url, durable_sleep) as engine:
        assert 0.5 <= engine.run(durable_sleep, 0.5, id="nap").duration_s < 1.0
