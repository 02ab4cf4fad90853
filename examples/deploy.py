"""A deploy under running orders: what a new version does to runs of the old one, wherever they stand."""

from __future__ import annotations

import logging
import time
from typing import assert_never

import zart_core as zart
from zart_core.testing import check_upgrade


@zart.step("reserve")
def reserve(order: str) -> None: ...


@zart.step("screen")
def screen(order: str) -> None: ...


@zart.step("charge")
def charge(order: str) -> str:
    return f"txn-{order}"


@zart.workflow("deploy-order")
def v1(order: str) -> zart.Flow[str]:
    yield from reserve(order)
    txn = yield from charge(order)
    tracking = yield from zart.wait_for_event("shipped", str)
    return f"{txn} {tracking}"


@zart.workflow("deploy-order")
def careless(order: str) -> zart.Flow[str]:
    yield from reserve(order)
    yield from screen(order)  # new: runs that have charged already have no such step on record
    txn = yield from charge(order)
    return f"{txn} {(yield from zart.wait_for_event('shipped', str))}"


@zart.workflow("deploy-order")
def guarded(order: str) -> zart.Flow[str]:
    yield from reserve(order)
    screening = yield from zart.version("screening", 2)
    match screening:
        case 1:
            pass  # begun before: they were never screened
        case 2:
            yield from screen(order)
        case _:
            assert_never(screening)
    txn = yield from charge(order)
    tracking = yield from zart.wait_for_event("shipped", str)
    return f"{txn} {tracking}"


def main() -> None:
    order, shipped = "42", [("1h", "shipped", "1Z999")]
    for new in (careless, guarded):
        print(new.fn.__name__, check_upgrade(v1, new, inputs=[order], events=shipped), "", sep="\n")
    logging.getLogger("zart").addHandler(logging.NullHandler())  # parked executions are logged as errors
    log = zart.open_log("memory:")
    with zart.open(log, [v1]) as engine:
        handle = engine.start(v1, order, id="order-42")
        while "shipped" not in handle.explain():
            time.sleep(0.01)
    with zart.open(log, [careless]) as engine:  # the deploy
        engine.send("order-42", "shipped", "1Z999")
        try:
            engine.get("order-42").result("10s")
        except zart.Diverged as diverged:
            print(f"parked, not failed: {diverged.nearest}")
        engine.register(guarded)  # the mended one
        print("goes on:", engine.get("order-42").result("10s"))


if __name__ == "__main__":
    main()
