"""What the checkers infer of workflows, and of what the hosts give back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, assert_type

import attrs

import zart_core as zart
from zart_core.testing import RunResult, run


@attrs.frozen
class Order:
    id: str


@attrs.frozen
class Receipt:
    order: str


@zart.workflow("order", timeout="30m", on_failure=lambda order, failure: Receipt("none"), park_on=KeyError)
def order_fulfilment(order: Order) -> zart.Flow[Receipt]:
    yield from zart.sleep("settle", 1)
    return Receipt(order.id)


@zart.workflow()
def tick() -> zart.Flow[int]:
    yield from zart.sleep("tick", 1)
    return 1


@zart.workflow("maybe")
def maybe(order: Order | None) -> zart.Flow[str | None]:
    yield from zart.sleep("tick", 1)
    return None


class Shelf:
    """A step may be declared in a class, too."""

    @zart.step("from-shelf-{n}")
    def take(self, n: int) -> str:
        return str(n)

    @staticmethod
    @zart.step("static-{n}")
    def fixed(n: int) -> bytes:
        return bytes(n)


@zart.step("plain")
def plain(a: int, b: str = "", *, c: bool = False) -> list[int]:
    return [a]


@zart.step("awaited")
async def awaited(a: int) -> dict[str, int]:
    return {"a": a}


@zart.step()
def forwarded(get: Callable[[], int]) -> int:
    return get()


@zart.workflow("shelves")
def shelves() -> zart.Flow[None]:
    assert_type((yield from Shelf().take(1)), str)
    assert_type((yield from Shelf.fixed(1)), bytes)


def definitions() -> None:
    assert_type(order_fulfilment, zart.Workflow[Order, Receipt])
    assert_type(tick, zart.Workflow[None, int])
    assert_type(maybe, zart.Workflow[Order | None, str | None])
    assert_type(order_fulfilment(Order("1")), zart.Flow[Receipt])
    assert_type(order_fulfilment.name, str)
    assert_type(awaited.id, str)


def synchronous() -> None:
    with zart.open("memory:", [order_fulfilment, tick, maybe], resources={"db": object()}) as engine:
        assert_type(engine, zart.Engine)
        assert_type(engine.run(order_fulfilment, Order("1"), id="order-1", timeout="5s"), Receipt)
        assert_type(engine.run(tick), int)
        assert_type(engine.run(maybe, None), str | None)
        assert_type(engine.run(maybe, Order("1")), str | None)
        handle = engine.start(order_fulfilment, Order("1"))
        assert_type(handle, zart.Handle[Receipt])
        assert_type(handle.id, str)
        assert_type(handle.created, bool)
        assert_type(handle.status(), zart.Status)
        assert_type(handle.result(timeout="1s"), Receipt)
        assert_type(handle.cancel("why"), bool)
        assert_type(handle.history(), list[zart.Event])
        assert_type(engine.start(tick).result(), int)
        assert_type(engine.get("x"), zart.Handle[Any])
        assert_type(engine.get("x").result(), Any)
        assert_type(engine.list(status="waiting"), zart.Page[zart.Summary])
        assert_type(engine.stats(), Mapping[zart.Status, int])


async def asynchronous() -> None:
    async with zart.serve("memory:", order_fulfilment) as engine:
        assert_type(engine, zart.AsyncEngine)
        assert_type(await engine.run(order_fulfilment, Order("1")), Receipt)
        assert_type(await engine.run(tick), int)
        handle = await engine.start(order_fulfilment, Order("1"))
        assert_type(handle, zart.AsyncHandle[Receipt])
        assert_type(await handle.result(), Receipt)
        assert_type(await handle.status(), zart.Status)
        assert_type(await (await engine.start(tick)).result(), int)
        assert_type(await engine.list(), zart.Page[zart.Summary])


def inline_and_tests() -> None:
    assert_type(zart.run_inline(order_fulfilment, Order("1")), Receipt)
    assert_type(zart.run_inline(tick), int)
    result = run(order_fulfilment, Order("1"), steps={plain: [[1]], awaited: {"a": 1}})
    assert_type(result, RunResult[Receipt])
    assert_type(result.value, Receipt)
    assert_type(run(tick).value, int)


def the_core(event: zart.Event) -> None:
    execution = zart.Execution(order_fulfilment)
    execution.apply(event)
    assert_type(execution.decide(), list[zart.Event])
    assert_type(execution.pending, Mapping[int, zart.Issued])
    assert_type(zart.replay(order_fulfilment, [event]), zart.Execution)
    assert_type(zart.open_log("memory:"), zart.EventLog)
