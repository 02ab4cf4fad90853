"""A saga: what was booked is unbooked in reverse when a later booking fails, each step of it durable."""

from __future__ import annotations

import tempfile

import attrs

import zart_core as zart


class NoCar(Exception):
    """Every car is gone."""


@attrs.frozen
class Trip:
    traveller: str
    cars_left: int = 0


@zart.step("book-{what}", raises=(NoCar,))
def book(what: str, trip: Trip) -> str:
    if what == "car" and trip.cars_left == 0:
        raise NoCar(f"no car for {trip.traveller}")
    return f"{what}-{trip.traveller}"


@zart.step("cancel-{what}", retry=zart.Retry.exponential(5, "1s"))
def cancel(what: str, booking: str) -> str:
    return f"{booking} cancelled"


@zart.workflow("saga")
def saga(trip: Trip) -> zart.Flow[list[str]]:
    bookings: list[tuple[str, str]] = []
    try:
        for what in ("flight", "hotel", "car"):
            bookings.append((what, (yield from book(what, trip))))
    except (NoCar, zart.StepError, zart.Cancelled):
        undone: list[str] = []
        for what, booking in reversed(bookings):
            undone.append((yield from cancel(what, booking)))
        return undone
    return [booking for _, booking in bookings]


def main() -> None:
    with tempfile.TemporaryDirectory() as place, zart.open(f"sqlite:{place}/trips.db", [saga]) as engine:
        print("with a car:   ", engine.run(saga, Trip("ada", cars_left=1)))
        print("without a car:", engine.run(saga, Trip("bob")))


if __name__ == "__main__":
    main()
