"""Simulated worlds in which a queue has limits over all workers, and what watches that they are kept."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection, Mapping
from typing import Any

import attrs

import zart_core as zart
from property_tests import offered
from zart_core.hosts.engine import AsyncEngine
from zart_core.hosts.ports import Part, StepCall
from zart_core.policies import seconds
from zart_core.testing import Cancel, Faults, SimulationReport, simulate
from zart_core.testing.simulation.process import Process
from zart_core.testing.simulation.threads import Blocked

QUEUE = "far"
MARGIN_S = 1e-6
"""What sums of floating-point seconds may be off by."""


@zart.step("dwell-{n}", queue=QUEUE)
async def dwell(n: int) -> int:
    await asyncio.sleep(0.7)
    return n


@zart.step("stubborn", queue=QUEUE, timeout="1s")
async def stubborn() -> None:
    for _ in range(3):
        try:
            await asyncio.sleep(2.0)
        except asyncio.CancelledError:
            continue


@zart.step("again-{n}", queue=QUEUE, retry=zart.Retry.fixed(3, "500ms"))
async def again(n: int) -> int:
    await asyncio.sleep(0.3)
    if zart.context().attempt < 2:
        raise ValueError("not yet")
    return n


@zart.workflow("crowd")
def crowd() -> zart.Flow[int]:
    return sum((yield from zart.wait([dwell(n) for n in range(8)])))


@zart.workflow("crowd-again")
def crowd_again() -> zart.Flow[int]:
    both = yield from zart.wait([*(again(n) for n in range(4)), *(dwell(n) for n in range(4))])
    return sum(both)


@zart.workflow("one-by-one")
def one_by_one() -> zart.Flow[int]:
    total = 0
    for n in range(6):
        total += yield from dwell(n)
    return total


@zart.workflow("crowd-left")
def crowd_left() -> zart.Flow[int]:
    first, _ = yield from zart.wait_any([dwell(n) for n in range(5)])
    yield from zart.settle([stubborn(), dwell(10)])
    return 0 if first >= 0 else 1


SHAPES: Mapping[str, tuple[Any, Any, Mapping[str, Any]]] = {
    **{name: shape for name, shape in offered.SHAPES.items() if name != "fan"},
    "crowd": (crowd, None, {"outcomes": {"completed: 28"}}),
    "crowd-again": (crowd_again, None, {"outcomes": {"completed: 12"}}),
    "one-by-one": (one_by_one, None, {"outcomes": {"completed: 15"}}),
    "crowd-left": (crowd_left, None, {"outcomes": {"completed: 0"}}),
    "crowd-cancelled": (crowd, None, {"events": (Cancel(1.5, "enough"),), "outcomes": None}),
}
CROWDS = ("crowd", "crowd-again", "one-by-one", "crowd-left", "crowd-cancelled")


@attrs.define(eq=False)
class Running:
    """An attempt of a limited step that has started, and has not ended."""

    process: Process
    what: str
    until: float
    """Until when its worker's lease surely lasts, in virtual seconds."""


class Turnstile:
    """Counts the attempts of a queue in a world, whoever runs them."""

    def __init__(self, queue: zart.Queue) -> None:
        self.queue = queue
        self.running: list[Running] = []
        self.most = 0
        """The most that ran at once."""
        self.begun: list[float] = []
        """When attempts began, by their records."""

    def engine(self, *args: Any, cast: Any, queues: Collection[str], **options: Any) -> AsyncEngine:
        """An engine that declares the limits, and whose attempts are counted."""
        process: Process = cast.__self__
        leased = process.store.leased

        def again(lease_s: float) -> None:
            now = process.world.timeline.now
            for one in self.running:
                if one.process is process and now <= one.until:
                    one.until = now + lease_s
            leased(lease_s)

        process.store.leased = again  # type: ignore[method-assign]  # so that gaps between leases are seen
        served = [self.queue if name == self.queue.name else name for name in queues]
        return AsyncEngine(*args, cast=lambda call: self.cast(process, call), queues=served, **options)

    def cast(self, process: Process, call: StepCall) -> Part:
        """Who plays an attempt, counted if it is limited."""
        part = process.cast(call)
        return Counted(self, process, call, part) if call.function.policy.queue == self.queue.name else part

    def enters(self, process: Process, call: StepCall) -> Running:
        """An attempt starts: while leases hold there are never more than the limit."""
        world = process.world
        one = Running(process, f"{call.context.execution_id} {call.context.step}", process.leased_until)
        now = world.timeline.now
        self.running = [each for each in self.running if not each.process.loop.dead and now <= each.until]
        self.running.append(one)
        self.most = max(self.most, len(self.running))
        self.begun.append(call.context.now)
        if self.queue.limit is not None and len(self.running) > self.queue.limit:
            all_of_them = ", ".join(each.what for each in self.running)
            world.witness.wrong.append(
                ("limit", f"{len(self.running)} run at once, {self.queue.limit} may: {all_of_them}")
            )
        if self.queue.rate is not None:
            begun, per_s = sorted(self.begun), seconds(self.queue.per)
            for first, last in zip(begun, begun[self.queue.rate :], strict=False):
                if last - first < per_s - MARGIN_S:
                    world.witness.wrong.append(
                        (
                            "rate",
                            f"{self.queue.rate + 1} began in {last - first} s, {self.queue.rate} may in {per_s} s",
                        )
                    )
        return one

    def leaves(self, one: Running) -> None:
        """An attempt has ended."""
        if one in self.running:
            self.running.remove(one)


class Counted:
    """A Part that is counted while it runs."""

    def __init__(self, turnstile: Turnstile, process: Process, call: StepCall, part: Part) -> None:
        self.turnstile = turnstile
        self.part = part
        self.is_async = part.is_async
        self.process = process
        self.step = call
        self.entry: Running | None = None

    def call(self, values: list[Any]) -> Any:
        """See Part."""
        return self.acted(values) if self.is_async else self.act(values)

    async def acted(self, values: list[Any]) -> Any:
        """Play it on the loop."""
        entry = self.turnstile.enters(self.process, self.step)
        try:
            return await self.part.call(values)
        finally:
            self.turnstile.leaves(entry)

    def act(self, values: list[Any]) -> Any:
        """Play it in a simulated thread, where it may be called again after a while."""
        entry = self.entry = self.entry or self.turnstile.enters(self.process, self.step)
        try:
            value = self.part.call(values)
        except Blocked:
            raise
        except BaseException:
            self.turnstile.leaves(entry)
            raise
        self.turnstile.leaves(entry)
        return value


def play(seed: int, **options: Any) -> tuple[SimulationReport, Turnstile]:
    """The world of a seed: a shape, one to five workers, one to three executions, limits, and weather."""
    lots = random.Random(f"limited {seed}")
    name = lots.choice([*SHAPES, *CROWDS, *CROWDS])
    workflow, input, given = SHAPES[name]
    weather = lots.choice(
        (None, offered.ROUGH, offered.SLOW, offered.ZOMBIES, offered.CANARIES, Faults.none())
    )
    limit, rate = lots.choice(((1, None), (2, None), (3, None), (2, 3), (None, 2), (1, 1)))
    turnstile = Turnstile(zart.Queue(QUEUE, limit=limit, rate=rate, per="2s"))
    faults = weather or Faults.drawn(seed)
    if rate is not None:
        faults = attrs.evolve(faults, jump=0.0)  # a rate is kept by the clocks of the workers
    copies = 1 if name == "queued-parent" else lots.choice((1, 2, 3))
    plan = {"workers": lots.choice((1, 2, 3, 5)), "copies": copies, "faults": faults, **given, **options}
    own = {"talkative": seed % 2 == 1}
    report = simulate(
        workflow, input, seed=seed, engine=turnstile.engine, shrink=False, resources=own, **plan
    )
    return report, turnstile
