"""What the checkers infer of the test kit: explorations, worlds, fakes and stores."""

from __future__ import annotations

from datetime import timedelta
from typing import assert_type

import zart_core as zart
from typing_tests.hosts import Order, order_fulfilment, plain, tick
from zart_core.log import EventLog
from zart_core.testing import (
    Cancel,
    ContractReport,
    CrashReport,
    Faults,
    FaultyStore,
    OrderReport,
    Played,
    Point,
    Reopened,
    ScriptedRunner,
    SimulatedFileSystem,
    SimulationReport,
    StoreContract,
    VirtualClock,
    check_store,
    explore_crashes,
    explore_orders,
    run,
    seeded,
    simulate,
)


def no_step_twice(played: Played) -> bool:
    return max(played.counts.values()) == 1


report = explore_crashes(
    order_fulfilment,
    Order("1"),
    depth=2,
    steps={plain: [1, ValueError()]},
    events=[("1h", "go", 1), (timedelta(1), "go", None, "key"), Cancel("2h")],
    resources=lambda: {"bank": [1]},
    store=lambda: Reopened(lambda: zart.open_log("memory:")),
    ensure=no_step_twice,
)
assert_type(report, CrashReport)
assert_type(report.executions_of(plain), tuple[int, int])
assert_type(report.repeated, frozenset[str])
assert_type(report.violations[0].code, str)
explore_crashes(tick, points={"effect", "after"})
explore_crashes(tick, points=["before"])
explore_crashes(tick, points=[Point("effect", 0)])
explore_crashes(tick, points=[(Point("effect", 0), Point("after", 1))])
explore_crashes(tick, points=["never"])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
explore_crashes(tick, 3)  # type: ignore[misc]  # pyright: ignore[reportCallIssue, reportArgumentType]
explore_crashes(order_fulfilment)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

world = simulate(order_fulfilment, Order("1"), seed=1, workers=3, faults=Faults.none(), children=[tick])
assert_type(world, SimulationReport)
simulate(order_fulfilment, seed=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
simulate(tick)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]

assert_type(explore_orders(tick), OrderReport)
assert_type(explore_orders(order_fulfilment, Order("1")).orders, int)
explore_orders(order_fulfilment)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

assert_type(run(tick).value, int)
assert_type(run(tick).elapsed, timedelta)

clock = VirtualClock()
clock.advance(days=30)
assert_type(clock.now(), float)
log: EventLog = FaultyStore(zart.open_log("memory:"), {3: "written"})
drawn: EventLog = FaultyStore(zart.open_log("memory:"), seeded(1))
runner = ScriptedRunner({plain: None}, clock=clock)
assert_type(runner.calls["plain"], int)
assert_type(SimulatedFileSystem().read_file("/a"), bytes)


class TestMine(StoreContract):
    durable = False

    def open(self) -> EventLog:
        return zart.open_log("memory:")


assert_type(check_store(lambda place: zart.open_log(f"sqlite:{place}/log")), ContractReport)
