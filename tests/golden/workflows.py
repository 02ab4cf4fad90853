"""Workflows of which golden histories are kept: what is written here stays as it is, for ever.

Rule 1: add workflows; never change one that has a history in tests/data/golden, not even its lines: they are its sites.
Rule 2: each is played by `make.py`, once, when it is new.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any

import attrs

import zart_core as zart


class Color(Enum):
    RED = "red"
    BLUE = "blue"


@attrs.frozen
class Parcel:
    id: str
    grams: int
    value: Decimal = Decimal("12.50")
    due: datetime = datetime(2026, 3, 1, tzinfo=UTC)
    color: Color = Color.BLUE
    parts: tuple[str, ...] = ("lid", "box")
    seal: bytes = b"\x00\xff"


class Refused(Exception):
    """A declared error, with a field."""

    def __init__(self, grams: int) -> None:
        super().__init__(f"{grams} g are too much")
        self.grams = grams


@zart.step("weigh-{parcel.id}", raises=(Refused,))
def weigh(parcel: Parcel) -> int:
    if parcel.grams > 1000:
        raise Refused(parcel.grams)
    return parcel.grams


@zart.step("stamp")
async def stamp(text: str, times: int = 1) -> str:
    return text * times


@zart.step("shaky", retry=zart.Retry.exponential(2, "1s"))
def shaky(fails: int) -> int:
    if zart.context().attempt < fails:
        raise OSError("no answer")
    return fails


@zart.step("slow", timeout="5s")
async def slow(seconds: float) -> float:
    import asyncio

    await asyncio.sleep(seconds)
    return seconds


@zart.step("once-{n}", at_most_once=True)
def once(n: int) -> int:
    return n


@zart.step("odd")
def odd() -> Any:
    return object()


@zart.workflow("golden-types")
def types(parcel: Parcel) -> zart.Flow[Parcel]:
    yield from weigh(parcel)
    yield from stamp("ab", times=2)
    return attrs.evolve(parcel, grams=parcel.grams + 1)


@zart.workflow("golden-errors", timeout="1d")
def errors(parcel: Parcel) -> zart.Flow[list[str]]:
    seen: list[str] = []
    try:
        yield from weigh(parcel)
    except Refused as refused:
        seen.append(f"refused {refused.grams}")
    for step in (shaky(9), slow(60.0), odd()):
        match (yield from zart.outcome(step)):
            case zart.Ok():
                seen.append("ok")
            case zart.Err(error):
                seen.append(type(error).__name__)
    seen.append(str((yield from zart.step_or(shaky(9).named("shaky-2"), -1))))
    seen.append(
        (yield from zart.step_or_else(weigh(parcel).named("weigh-2"), lambda error: type(error).__name__))
    )
    seen.append(str((yield from shaky(1).named("shaky-3"))))
    return seen


@zart.workflow("golden-time")
def time(_: None) -> zart.Flow[str]:
    began = yield from zart.now("began")
    yield from zart.sleep("nap", timedelta(minutes=5))
    yield from zart.sleep_until("morning", datetime(2026, 1, 2, 8, tzinfo=UTC))
    number = yield from zart.random("number")
    name = yield from zart.uuid("name")
    color = yield from zart.capture("color", lambda: Color.RED, Color)
    try:  # noqa: SIM105  # as an author writes it
        yield from zart.capture("broken", lambda: 1 // 0, int)
    except zart.StepFailed:
        pass
    return f"{began:%Y} {0 <= number < 1} {name.version} {color.name}"


@zart.workflow("golden-events")
def events(_: None) -> zart.Flow[list[str]]:
    first = yield from zart.wait_for_event("note", str)
    second = yield from zart.wait_for_event("note", str, name="the-second")
    try:
        yield from zart.wait_for_event("note", int)
    except zart.EventRejected:
        second += ", rejected"
    try:
        yield from zart.wait_for_event("never", timeout="10m")
    except zart.EventTimedOut:
        second += ", timed out"
    return [first, second]


@zart.workflow("golden-branches")
def branches(_: None) -> zart.Flow[list[Any]]:
    def pair(n: int) -> zart.Flow[int]:
        a = yield from once(n).named(f"a-{n}")
        b = yield from once(a + 1).named(f"b-{n}")
        return a + b

    def failing() -> zart.Flow[int]:
        yield from zart.sleep("short", 1)
        raise ValueError("by and by")

    found: list[Any] = []
    task = yield from zart.schedule(pair(1))
    found.append((yield from zart.gather(task, once(5), zart.scope("scoped", pair(2)))))
    found.append((yield from zart.wait([pair(3), pair(4)])))
    try:
        yield from zart.wait([failing(), zart.scope("long", nap("nap"))], fail_fast=True)
    except ValueError as error:
        found.append(str(error))
    settled = yield from zart.settle([pair(6), zart.scope("again", failing())])
    found.append([type(outcome).__name__ for outcome in settled])
    index, _ = yield from zart.wait_any([nap("any-nap"), once(7)])
    found.append(index)
    winner, _ = yield from zart.race(zart.wait_for_event("word"), zart.sleep("patience", 30), once(8))
    found.append(winner)
    left = yield from zart.schedule(nap("cancelled"))
    found.append((yield from left.cancel()))
    yield from zart.schedule(nap("left-over"))
    return found


def nap(name: str) -> zart.Flow[int]:
    yield from zart.sleep(name, "1h")
    return 1


@zart.workflow("golden-kid")
def kid(n: int) -> zart.Flow[int]:
    value = yield from once(n)
    if n < 0:
        raise ValueError("a negative kid")
    return value


@zart.workflow("golden-family")
def family(_: None) -> zart.Flow[list[Any]]:
    first = yield from zart.child(kid, 1)
    second = yield from zart.outcome(zart.child(kid, -1, id="named-kid"))
    third = yield from zart.spawn(kid, 3, id="spawned-kid")
    taken = yield from zart.outcome(zart.child(kid, 4, id="spawned-kid").named("taken"))
    return [first, type(second).__name__, third, type(taken).__name__]


@zart.workflow("golden-laps")
def laps(n: int) -> zart.Flow[int]:
    yield from zart.wait_for_event("lap", int)
    if n > 0:
        yield from laps.continue_as_new(n - 1)
    return n


@zart.workflow("golden-versions", version=2)
def versions(_: None) -> zart.Flow[int]:
    first = yield from zart.version("first", 3)
    again = yield from zart.version("first", 3)
    yield from once(first)
    return first + again + (yield from zart.version("last", 2))


def give_back(parcel: Parcel, failure: BaseException) -> zart.Flow[str]:
    yield from stamp("back")
    return f"given back after {type(failure).__name__}"


@zart.workflow("golden-flow-on-failure", on_failure=give_back)
def flow_on_failure(parcel: Parcel) -> zart.Flow[str]:
    yield from weigh(parcel)
    return "kept"


@zart.workflow("golden-value-on-failure", on_failure=lambda parcel, failure: str(failure))
def value_on_failure(parcel: Parcel) -> zart.Flow[str]:
    yield from weigh(parcel)
    return "kept"


@zart.workflow("golden-fails")
def fails(_: None) -> zart.Flow[None]:
    yield from once(1)
    raise LookupError("nothing is found")


@zart.workflow("golden-cancelled")
def cancelled(_: None) -> zart.Flow[None]:
    try:
        yield from zart.shield(nap("shielded"))
        yield from nap("open")
    finally:
        yield from stamp("cleaned up")


@zart.workflow("golden-late", timeout="1h")
def late(_: None) -> zart.Flow[str]:
    try:
        yield from zart.wait_for_event("never")
    except zart.DeadlineExceeded:
        yield from once(1)
        raise
    return "in time"


@zart.workflow("golden-waits")
def waits(_: None) -> zart.Flow[int]:
    yield from once(1)
    yield from zart.wait_for_event("never")
    return 1


@zart.workflow("golden-held")
def held(_: None) -> zart.Flow[str]:
    number = yield from once(1)
    note = yield from zart.wait_for_event("note", str)
    return f"{note} {number}"


@zart.workflow("golden-retried")
def retried(_: None) -> zart.Flow[int]:
    return (yield from shaky(1))
