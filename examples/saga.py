"""A saga: what may have been booked is unbooked in reverse when the trip comes to nothing, each step of it durable."""

from __future__ import annotations

import tempfile

import attrs

import zart_core as zart

FOR_HOURS = zart.Retry.exponential(20, "1s", max_delay="1h")  # a compensation has to succeed


class NoCar(Exception):
    """Every car is gone: an answer, so it is not retried, and the trip ends well without it."""


@attrs.frozen
class Trip:
    traveller: str
    cars_left: int = 0


@zart.step("book-{what}", timeout="1m", raises=(NoCar,))
async def book(what: str, reference: str, trip: Trip) -> str:
    if what == "car" and trip.cars_left == 0:
        raise NoCar(f"no car for {trip.traveller}")
    return reference


@zart.step("cancel-{what}", retry=FOR_HOURS)
def cancel(what: str, reference: str) -> str:
    return f"no {reference}"  # it was never booked, or is cancelled already: that is good, too


@zart.workflow("saga")
def saga(trip: Trip) -> zart.Flow[list[str]]:
    booked: list[str] = []
    begun: list[tuple[str, str]] = []
    try:
        for what in ("flight", "hotel", "car"):
            reference = f"{what}-{trip.traveller}"  # ours: theirs is not known when no answer comes
            # Noted before the step begins: one that timed out, was lost or was cancelled may have booked.
            begun.append((what, reference))
            booked.append((yield from book(what, reference, trip)))
    except (Exception, zart.Cancelled) as error:  # whatever ends it; Cancelled is no Exception
        undone = yield from zart.shield(unbook(begun))  # who cancels now waits until it is through
        if isinstance(error, NoCar):
            return undone
        raise  # a cancelled trip is cancelled, and one that timed out has failed
    return booked


def unbook(begun: list[tuple[str, str]]) -> zart.Flow[list[str]]:
    undone: list[str] = []
    for what, reference in reversed(begun):
        undone.append((yield from cancel(what, reference)))
    return undone


def main() -> None:
    with tempfile.TemporaryDirectory() as place, zart.open(f"sqlite:{place}/trips.db", [saga]) as engine:
        print("with a car:   ", engine.run(saga, Trip("ada", cars_left=1)))
        print("without a car:", engine.run(saga, Trip("bob")))


if __name__ == "__main__":
    main()
