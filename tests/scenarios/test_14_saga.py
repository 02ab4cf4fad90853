"""Scenario 14: bookings, and their compensations in reverse."""

import pytest

import zart_core as zart
from examples.saga import Trip, cancel, saga
from tests.scenarios.killing import issued, killed, ledger
from zart_core.testing import Cancel, explore_crashes, run

BOOKED = ["flight-ada", "hotel-ada", "car-ada"]
UNDONE = ["hotel-bob cancelled", "flight-bob cancelled"]
NAMES = ["book-flight", "book-hotel", "book-car", "cancel-hotel", "cancel-flight"]


def test_all_booked():
    """Nothing is undone when all goes well."""
    result = run(saga, Trip("ada", cars_left=1))
    assert (result.value, issued(result.history)) == (BOOKED, NAMES[:3])


def test_undone_in_reverse():
    """The car fails; hotel and flight are cancelled in this order, once each."""
    result = run(saga, Trip("bob"))
    assert (result.value, issued(result.history)) == (UNDONE, NAMES)
    assert result.calls == dict.fromkeys(NAMES, 1)


@pytest.mark.parametrize("before", NAMES[3:])
def test_killed_between_compensations(before):
    """It still ends compensated, exactly once each."""
    two = killed(saga, Trip("bob"), before=before)
    assert (two.result.value, two.result.calls) == (UNDONE, dict.fromkeys(NAMES, 1))
    assert two.first == dict.fromkeys(NAMES[: NAMES.index(before)], 1)


def test_compensation_is_retried():
    """A compensation that fails at first is tried again until it is through."""
    result = run(
        saga, Trip("bob"), steps={cancel: [OSError("busy"), "hotel-bob cancelled", "flight-bob cancelled"]}
    )
    assert result.value == UNDONE
    assert result.calls["cancel-hotel"] == 2


def test_cancelled_on_the_way():
    """R18: cancellation compensates too."""

    @zart.step("think")
    async def think() -> None: ...

    @zart.workflow("slow-saga")
    def slow_saga() -> zart.Flow[list[str]]:
        undone: list[str] = []
        try:
            yield from zart.sleep("think-about-it", "1h")
        finally:
            undone.append((yield from cancel("flight", "flight-eve")))
        return undone

    result = run(slow_saga, events=[Cancel(60, "changed her mind")])
    assert (result.status, result.calls) == (zart.Status.CANCELLED, {"cancel-flight": 1})
    report = explore_crashes(slow_saga, events=[Cancel(60)])
    assert ledger(report) == {"cancel-flight": (1, 2)}
    assert think.id == "think"


@pytest.mark.parametrize("trip", [Trip("bob"), Trip("ada", cars_left=1)], ids=["undone", "booked"])
def test_killed_anywhere(trip):
    """P3: one outcome; every booking and compensation is recorded exactly once, wherever it dies."""
    report = explore_crashes(saga, trip)
    assert ledger(report) == dict.fromkeys(NAMES if trip.cars_left == 0 else NAMES[:3], (1, 2))
    assert len(report.outcomes) == 1
    for played in report.runs:
        (history,) = played.histories.values()
        assert issued(history) == (NAMES if trip.cars_left == 0 else NAMES[:3])


def test_on_the_engine(open_engine):
    """The same on each store."""
    with open_engine(saga) as engine:
        assert engine.run(saga, Trip("bob")) == UNDONE
        assert engine.run(saga, Trip("ada", 1)) == BOOKED
