"""What the checkers infer at every `yield from`,."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Literal, assert_never, assert_type

import attrs

import zart_core as zart


@attrs.frozen
class Order:
    id: str
    cents: int


@attrs.frozen
class Shipment:
    tracking: str


@attrs.frozen
class Refusal:
    why: str


class Color(Enum):
    RED = "red"
    GREEN = "green"


class CardDeclined(Exception): ...


@zart.step("count-{sku}")
def count(sku: str) -> int:
    raise NotImplementedError


@zart.step("charge", retry=zart.Retry.exponential(3, timedelta(seconds=2)), raises=(CardDeclined,))
async def charge(order: Order, *, currency: str = "EUR") -> str:
    raise NotImplementedError


@zart.step("weigh")
def weigh() -> float | None:
    raise NotImplementedError


@zart.step("look-up")
def look_up(id: str) -> Order:
    raise NotImplementedError


@zart.step("anything")
def anything() -> Any:
    raise NotImplementedError


@zart.step("forget")
def forget(id: str) -> None:
    raise NotImplementedError


@zart.step("answer")
def answer() -> Shipment | Refusal:
    raise NotImplementedError


def helper(sku: str) -> zart.Flow[bytes]:
    assert_type((yield from count(sku)), int)
    return b""


@zart.workflow("child")
def child(order: Order) -> zart.Flow[Shipment]:
    yield from forget(order.id)
    return Shipment("1")


@zart.workflow("no-input")
def no_input() -> zart.Flow[Color]:
    yield from weigh()
    return Color.RED


def steps() -> zart.Flow[None]:
    assert_type((yield from count("a")), int)
    assert_type((yield from charge(Order("1", 1), currency="USD")), str)
    assert_type((yield from weigh()), float | None)
    assert_type((yield from look_up("1")), Order)
    assert_type((yield from forget("1")), None)
    assert_type((yield from answer()), Shipment | Refusal)
    assert_type((yield from anything()), Any)
    assert_type((yield from count("a").named("other")), int)
    assert_type((yield from helper("a")), bytes)
    assert_type((yield count("a")), object)


def unions() -> zart.Flow[str]:
    found = yield from answer()
    match found:
        case Shipment():
            return found.tracking
        case Refusal():
            return found.why
        case _:
            assert_never(found)


def outcomes() -> zart.Flow[int]:
    result = yield from zart.outcome(count("a"))
    assert_type(result, zart.Ok[int] | zart.Err[Exception])
    assert_type((yield from zart.outcome(helper("a"))), zart.Ok[bytes] | zart.Err[Exception])
    assert_type((yield from zart.step_or(count("b"), None)), int | None)
    assert_type((yield from zart.step_or(count("c"), "none")), int | str)
    assert_type((yield from zart.step_or(helper("d"), 0)), bytes | int)
    assert_type(
        (yield from zart.step_or_else(charge(Order("1", 1)), lambda error: len(error.args))), str | int
    )
    match result:
        case zart.Ok(value):
            assert_type(value, int)
            return value
        case zart.Err(error):
            assert_type(error, Exception)
            return -1


def tasks() -> zart.Flow[None]:
    task = yield from zart.schedule(count("a"))
    assert_type(task, zart.Task[int])
    flow = yield from zart.schedule(helper("b"))
    assert_type(flow, zart.Task[bytes])
    assert_type((yield from zart.wait([task])), list[int])
    assert_type((yield from zart.wait([count("c"), count("d")], fail_fast=True)), list[int])
    assert_type((yield from zart.wait(count(sku) for sku in "ef")), list[int])
    assert_type((yield from zart.wait([helper("g"), helper("h")])), list[bytes])
    assert_type((yield from zart.wait([zart.schedule(count("i"))])), list[int])
    mixed: list[zart.Waitable[int]] = [task, count("j")]
    assert_type((yield from zart.wait(mixed)), list[int])
    assert_type((yield from zart.settle([task])), list[zart.Ok[int] | zart.Err[BaseException]])
    assert_type((yield from zart.wait_any([task])), tuple[int, zart.Ok[int] | zart.Err[BaseException]])
    assert_type((yield from task.cancel()), bool)


def gathered() -> zart.Flow[None]:
    assert_type((yield from zart.gather(count("a"))), tuple[int])
    assert_type((yield from zart.gather(count("b"), charge(Order("1", 1)))), tuple[int, str])
    three = yield from zart.gather(count("c"), helper("d"), zart.schedule(weigh()))
    assert_type(three, tuple[int, bytes, float | None])
    number, data, weight = three
    assert_type((number, data, weight), tuple[int, bytes, float | None])
    assert_type(
        (yield from zart.gather(count("e"), helper("f"), look_up("g"), zart.sleep("s", 1))),
        tuple[int, bytes, Order, None],
    )
    assert_type(
        (
            yield from zart.gather(
                count("e"), helper("f"), look_up("g"), answer(), zart.wait_for_event("x", int)
            )
        ),
        tuple[int, bytes, Order, Shipment | Refusal, int],
    )
    assert_type(
        (yield from zart.gather(count("e"), helper("f"), look_up("g"), count("h"), count("i"), weigh())),
        tuple[int, bytes, Order, int, int, float | None],
    )
    many = (count(str(n)) for n in range(9))
    assert_type((yield from zart.gather(*many)), tuple[int, ...])


def races() -> zart.Flow[str]:
    won = yield from zart.race(look_up("a"), zart.sleep("patience", "1m"))
    assert_type(won, tuple[Literal[0], Order] | tuple[Literal[1], None])
    if won[0] == 0:
        assert_type(won[1], Order)
    else:
        assert_type(won[1], None)
    match won:
        case (0, order):
            assert_type(order, Order)
            return order.id
        case (1, _):
            return "late"
        case _:
            assert_never(won)


def race_of_any_number(branches: list[zart.Waitable[int]]) -> zart.Flow[int]:
    won = yield from zart.race(*branches)
    assert_type(won, tuple[int, int])
    assert_type(
        (yield from zart.race(count("a"), count("b"), count("c"), count("d"), count("e"))), tuple[int, int]
    )
    return won[1]


def race_of_four() -> zart.Flow[int]:
    three = yield from zart.race(count("a"), helper("b"), zart.wait_for_event("stop", Shipment))
    assert_type(three, tuple[Literal[0], int] | tuple[Literal[1], bytes] | tuple[Literal[2], Shipment])
    won = yield from zart.race(count("c"), helper("d"), look_up("e"), zart.sleep("patience", 1))
    match won:
        case (0, number):
            assert_type(number, int)
            return number
        case (1, data):
            assert_type(data, bytes)
            return len(data)
        case (2, order):
            assert_type(order, Order)
            return order.cents
        case (3, nothing):
            assert_type(nothing, None)
            return 0
        case _:
            assert_never(won)


def events() -> zart.Flow[None]:
    assert_type((yield from zart.wait_for_event("a", Shipment, timeout=timedelta(hours=1))), Shipment)
    assert_type((yield from zart.wait_for_event("b", Shipment | Refusal)), Shipment | Refusal)
    assert_type((yield from zart.wait_for_event("c", Literal["yes", "no"])), Literal["yes", "no"])
    assert_type((yield from zart.wait_for_event("d", int | None, name="maybe")), int | None)
    assert_type((yield from zart.wait_for_event("e", list[Order])), list[Order])
    assert_type((yield from zart.wait_for_event("f", dict[str, int], "5m")), dict[str, int])
    assert_type((yield from zart.wait_for_event("g", Color)), Color)
    assert_type((yield from zart.wait_for_event("h")), Any)


def times_and_values() -> zart.Flow[None]:
    assert_type((yield from zart.sleep("a", timedelta(minutes=1))), None)
    assert_type((yield from zart.sleep("b", "1h30m")), None)
    assert_type((yield from zart.sleep_until("c", datetime(2030, 1, 1, tzinfo=UTC))), None)
    assert_type((yield from zart.now("d")), datetime)
    assert_type((yield from zart.uuid("e")), uuid.UUID)
    assert_type((yield from zart.random("f")), float)
    assert_type((yield from zart.capture("g", lambda: 1)), int)
    assert_type((yield from zart.capture("h", datetime.now)), datetime)


def others() -> zart.Flow[None]:
    assert_type((yield from zart.child(child, Order("1", 1))), Shipment)
    assert_type((yield from zart.child(child, Order("1", 1), id="x").named("y")), Shipment)
    assert_type((yield from zart.child(no_input)), Color)
    assert_type((yield from zart.spawn(child, Order("1", 1))), str)
    assert_type((yield from zart.spawn(no_input, id="z")), str)
    both = yield from zart.gather(zart.child(child, Order("2", 1)), zart.child(no_input))
    assert_type(both, tuple[Shipment, Color])


def versions(count: int) -> zart.Flow[str]:
    assert_type((yield from zart.version("a", 1)), Literal[1])
    two = yield from zart.version("b", 2)
    assert_type(two, Literal[1, 2])
    assert_type((yield from zart.version("c", 3)), Literal[1, 2, 3])
    assert_type((yield from zart.version("d", 4)), Literal[1, 2, 3, 4])
    assert_type((yield from zart.version("e", 5)), int)
    assert_type((yield from zart.version("f", count)), int)
    match two:
        case 1:
            return "old"
        case 2:
            return "new"
        case _:
            assert_never(two)


def wrapped() -> zart.Flow[None]:
    assert_type((yield from zart.scope("first", helper("a"))), bytes)
    assert_type((yield from zart.shield(helper("b"))), bytes)
    assert_type((yield from zart.scope("second", count("f"))), int)
    assert_type((yield from zart.shield(count("g"))), int)
    assert_type((yield from zart.scope("third", zart.gather(count("h"), helper("i")))), tuple[int, bytes])
    assert_type((yield from zart.wait([zart.scope("c", helper("c"))])), list[bytes])
    assert_type((yield from zart.race(zart.shield(helper("d")), count("e")))[0], Literal[0, 1])


@zart.workflow("counter")
def counter(n: int) -> zart.Flow[int]:
    total = yield from count(str(n))
    if n < 10:
        yield from counter.continue_as_new(n + 1)
        return "no int"  # type: ignore[unreachable]  # nothing follows, and the checkers know
    return total


@zart.workflow("round")
def round_and_round() -> zart.Flow[None]:
    yield from zart.sleep("a while", 1)
    yield from round_and_round.continue_as_new()


@zart.step("where")
def where() -> str:
    here = zart.context()
    assert_type(here.execution_id, str)
    assert_type(here.step, str | None)
    assert_type(here.attempt, int)
    assert_type(here.deadline, float | None)
    assert_type(zart.resource("db"), Any)
    zart.heartbeat()
    zart.heartbeat({"done": 3, "of": [4, None]})
    return here.idempotency_key
