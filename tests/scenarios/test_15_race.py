"""Scenario 15: an event against a sleep against a step."""

from datetime import timedelta

import pytest

import zart_core as zart
from examples.race import Question, ask_machine, race
from tests.scenarios.killing import killed, ledger
from zart_core.testing import explore_crashes, run

ANSWER = [(10, "answer", "because")]


def cancelled(history):
    """The names of commands that were withdrawn, in the order of their withdrawal."""
    names = {event.seq: event.name for event in history if isinstance(event, zart.Issued)}
    return [
        names[event.seq]
        for event in history
        if isinstance(event, zart.Resolved) and isinstance(event.outcome, zart.Cancellation)
    ]


def pending(workflow, history):
    """What is left to do before the run is closed."""
    return dict(zart.replay(workflow, history[:-1]).pending)


def test_the_step_wins():
    """In 30 virtual seconds; the event wait and the sleep leave nothing pending."""
    result = run(race, Question("why?"))
    assert (result.value, result.elapsed) == ("the machine says 4", timedelta(seconds=30))
    assert sorted(cancelled(result.history)) == ["answer[1]", "patience"]
    assert pending(race, result.history) == {}


def test_the_sleep_wins():
    """A step that failed for good before would have won with its error; here the sleep is first."""

    @zart.workflow("patience")
    def patience() -> zart.Flow[int]:
        won = yield from zart.race(
            zart.wait_for_event("answer", str), zart.sleep("patience", 20), zart.sleep("more", 30)
        )
        return won[0]

    result = run(patience)
    assert (result.value, result.elapsed) == (1, timedelta(seconds=20))
    assert sorted(cancelled(result.history)) == ["answer[1]", "more"]
    assert pending(patience, result.history) == {}


def test_the_event_wins():
    """Delivered after 10 s; the sleeps leave nothing pending, and a second answer is kept for nobody."""
    result = run(listening, events=[*ANSWER, (11, "answer", "too late")])
    assert (result.value, result.elapsed) == ((0, "because"), timedelta(seconds=10))
    assert cancelled(result.history) == ["patience"]
    assert pending(listening, result.history) == {}


def test_an_error_wins_too():
    """The first to finish wins, with a value or an error."""
    result = run(race, Question("why?"), steps={ask_machine: RuntimeError("out of order")})
    assert result.status is zart.Status.FAILED
    assert "out of order" in str(result.error)


def test_killed_before_the_step():
    """The race goes on where it stood: the sleep's wake time is not restarted."""
    two = killed(race, Question("why?"), before="ask-machine")
    assert two.first == {}
    assert (two.result.value, two.result.calls) == ("the machine says 4", {"ask-machine": 1})


@zart.workflow("listening")
def listening() -> zart.Flow[tuple[int, str | None]]:
    won = yield from zart.race(zart.wait_for_event("answer", str), zart.sleep("patience", 60))
    return won


@pytest.mark.parametrize(
    ("workflow", "input", "events", "expected"),
    [
        (race, Question("why?", machine_s=20), [], {"ask-machine": (1, 2)}),
        (listening, None, ANSWER, {}),
        (listening, None, [], {}),
    ],
    ids=["step", "event", "sleep"],
)
def test_killed_anywhere(workflow, input, events, expected):
    """P3: each of the three wins wherever it dies."""
    report = explore_crashes(workflow, input, events=events)
    assert ledger(report) == expected
    assert len(report.outcomes) == 1
    for played in report.runs:
        (history,) = played.histories.values()
        assert pending(workflow, history) == {}


def test_on_the_engine(open_engine):
    """Each of the three wins once, on each store; the losers leave nothing behind."""
    with open_engine(race) as engine:
        answered = engine.start(race, Question("why?"))
        answered.send("answer", "because")
        impatient = engine.start(race, Question("when?", patience_s=0.1))
        quick = engine.start(race, Question("how?", machine_s=0.1))
        assert answered.result(10) == "somebody says because"
        assert impatient.result(10) == "nobody knows"
        assert quick.result(10) == "the machine says 4"
        for handle, losers in (
            (answered, ["ask-machine", "patience"]),
            (impatient, ["answer[1]", "ask-machine"]),
        ):
            history = handle.history()
            assert sorted(cancelled(history)) == losers
            assert pending(race, history) == {}
