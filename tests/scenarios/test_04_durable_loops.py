"""Scenario 4: a loop over a fetched list."""

from examples.durable_loops import SOURCE, Report, Summary, durable_loops, fetch_reports
from tests.scenarios.killing import issued, killed, ledger
from zart_core.testing import explore_crashes, run

SUMMARY = Summary(total=4, flagged=1, scores=[845, 912, 720, 1108])
NAMES = [
    "fetch-reports",
    "process-report-0",
    "process-report-1",
    "process-report-2",
    "notify-2",
    "process-report-3",
]


def test_exactly_these_steps():
    """R2: names from templates and from `.named()`; each step once."""
    result = run(durable_loops)
    assert (result.value, result.calls) == (SUMMARY, dict.fromkeys(NAMES, 1))
    assert issued(result.history) == NAMES


def test_killed_after_the_third_report():
    """Only what is left runs, over the stored list although the source has changed."""
    source = list(SOURCE)
    steps = {fetch_reports: lambda: list(source)}
    two = killed(durable_loops, before="notify-2", steps=steps, between=source.clear)
    assert two.first == dict.fromkeys(NAMES[:4], 1)
    assert (two.result.value, two.result.calls) == (SUMMARY, dict.fromkeys(NAMES, 1))


def test_killed_before_the_last_report():
    """Only process-report-3 runs afterwards."""
    source = list(SOURCE)
    steps = {fetch_reports: lambda: list(source)}
    two = killed(
        durable_loops, before="process-report-3", steps=steps, between=lambda: source.append(Report("Q5", 1))
    )
    assert two.first == dict.fromkeys(NAMES[:5], 1)
    assert (two.result.value, two.result.calls) == (SUMMARY, dict.fromkeys(NAMES, 1))


def test_a_fake_is_gone_after_its_run():
    """What stands in for a step in one run does not in the next."""
    assert run(durable_loops, steps={fetch_reports: list}).value == Summary(0, 0, [])
    assert run(durable_loops).value == SUMMARY


def test_killed_anywhere():
    """P3: one outcome; each step once, or twice."""
    report = explore_crashes(durable_loops)
    assert ledger(report) == dict.fromkeys(NAMES, (1, 2))
    assert len(report.outcomes) == 1


def test_on_the_engine(open_engine):
    """The same on each store."""
    with open_engine(durable_loops) as engine:
        handle = engine.start(durable_loops)
        assert handle.result(10) == SUMMARY
        assert issued(handle.history()) == NAMES
