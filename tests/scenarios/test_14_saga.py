"""Scenario 14: bookings, and their compensations in reverse."""

import asyncio

import pytest
from engines import until

import zart_core as zart
from examples.saga import NoCar, Trip, book, cancel, saga
from tests.scenarios.killing import issued, killed, ledger
from zart_core.testing import Cancel, explore_crashes, run

BOOKED = ["flight-ada", "hotel-ada", "car-ada"]
UNDONE = ["no car-bob", "no hotel-bob", "no flight-bob"]
NAMES = ["book-flight", "book-hotel", "book-car", "cancel-car", "cancel-hotel", "cancel-flight"]


class Agency:
    """Books at once, and takes its time to say so: the hotel's answer comes after so long."""

    def __init__(self, hotel_s: float = 0) -> None:
        self.hotel_s = hotel_s
        self.books: set[str] = set()
        self.steps = {book: self.book, cancel: self.cancel}

    async def book(self, what: str, reference: str, trip: Trip) -> str:
        self.books.add(reference)
        if what == "hotel":
            await asyncio.sleep(self.hotel_s)
        if what == "car" and not trip.cars_left:
            self.books.remove(reference)
            raise NoCar
        return reference

    def cancel(self, what: str, reference: str) -> str:
        self.books.discard(reference)
        return f"no {reference}"


def test_all_booked():
    """Nothing is undone when all goes well."""
    result = run(saga, Trip("ada", cars_left=1))
    assert (result.value, issued(result.history)) == (BOOKED, NAMES[:3])


def test_undone_in_reverse():
    """The car fails; all is cancelled in reverse, once each."""
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
    result = run(saga, Trip("bob"), steps={cancel: [OSError("busy"), *UNDONE]})
    assert result.value == UNDONE
    assert result.calls["cancel-car"] == 2


def test_a_booking_that_timed_out():
    """It was made, and nobody was told: it is cancelled with the others, and the trip has failed for that reason."""
    agency = Agency(hotel_s=90)

    result = run(saga, Trip("ada", cars_left=1), steps=agency.steps)

    assert (result.status, agency.books) == (zart.Status.FAILED, set())
    assert isinstance(result.error, zart.ExecutionFailed)
    assert "step 'book-hotel' timed out" in str(result.error)
    assert [name for name in result.calls if "cancel" in name] == NAMES[4:]


def test_cancelled_while_a_booking_is_under_way(open_engine, monkeypatch):
    """R18: it may be made, so it is unmade with the others; and the trip is cancelled, whatever was undone."""
    agency = Agency(hotel_s=3600)
    monkeypatch.setattr(book, "fn", agency.book)
    monkeypatch.setattr(cancel, "fn", agency.cancel)
    with open_engine(saga) as engine:
        handle = engine.start(saga, Trip("ada", cars_left=1))
        until(lambda: "hotel-ada" in agency.books)
        assert handle.cancel("changed her mind")
        with pytest.raises(zart.ExecutionCancelled, match="changed her mind"):
            handle.result(20)
        assert agency.books == set()
        assert issued(handle.history()) == [*NAMES[:2], *NAMES[4:]]


def test_cancelled_while_it_compensates():
    """All is compensated nevertheless."""
    agency = Agency()
    fails = [OSError("busy"), OSError("busy"), "no car", "no hotel", "no flight"]

    result = run(saga, Trip("bob"), steps={**agency.steps, cancel: fails}, events=[Cancel(1.5)])

    assert (result.value, result.calls["cancel-flight"]) == (["no car", "no hotel", "no flight"], 1)


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
