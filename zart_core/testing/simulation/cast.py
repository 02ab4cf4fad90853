"""Who plays the steps of a simulated world: real functions or fakes, each attempt with time and a death of its own.

Rule 1: an attempt takes effect at one instant; there it is witnessed, and a death comes just before or just after it.
"""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

from zart_core.hosts.ports import StepCall
from zart_core.testing.runner import Sequenced
from zart_core.testing.simulation.faults import OF_STEP, Fault
from zart_core.testing.simulation.threads import Blocked, Gone

if TYPE_CHECKING:
    from zart_core.testing.simulation.process import Process
    from zart_core.testing.simulation.world import Simulation

SLOW_S = 60.0
"""The longest that a slow attempt takes, in seconds."""
STEP_S = 0.004
"""The longest that another attempt takes, in seconds."""


class Acted:
    """A Part: one attempt as it is played."""

    def __init__(self, world: Simulation, process: Process, call: StepCall) -> None:
        self.world = world
        self.process = process
        self.step = call
        fake = world.runner.steps.get(call.function.origin, call.function.fn)
        self.is_async = any(
            inspect.iscoroutinefunction(getattr(one, "fn", one))
            for one in (fake.outcomes if isinstance(fake, Sequenced) else [fake])
        )
        self.slept = False
        self.seen = world.witness.starts(process, call)

    def call(self, values: list[Any]) -> Any:
        """See Part."""
        return self.acted() if self.is_async else self.act()

    async def acted(self) -> Any:
        """Play it on the loop."""
        self.world.witness.calls(self.seen)
        fault, duration = self.drawn()
        if duration > STEP_S / 2:  # others take no time at all
            await asyncio.sleep(duration)
        await self.die_if(fault, before=True)
        value = self.world.witness.effect(self.seen, lambda: self.world.runner.outcome(self.step))
        if inspect.iscoroutine(value):
            value = await value
        await self.die_if(fault, before=False)
        return value

    def act(self) -> Any:
        """Play it in a simulated thread."""
        world = self.world
        if not self.slept:
            self.slept = True
            world.witness.calls(self.seen)
            self.fault, duration = self.drawn()
            raise Blocked(world.timeline.now + duration, wakes=False)
        if self.fault == "step_death" and self.early():
            self.process.die()
            raise Gone
        value = world.witness.effect(self.seen, lambda: world.runner.outcome(self.step))
        if self.fault == "step_death":
            self.process.die()
            raise Gone
        return value

    def drawn(self) -> tuple[Fault | None, float]:
        """What goes wrong, and how long it takes."""
        world = self.world
        fault = world.fate.strike(OF_STEP, world.timeline.now)
        if fault is not None:
            world.trace(self.process.name, f"attempt of {self.step.context.step}: {fault}")
        if fault == "slow_step":
            return fault, SLOW_S * world.fate.lots.random()
        return fault, STEP_S * world.timeline.lots.random() ** 2

    def early(self) -> bool:
        """Whether the death comes before the effect."""
        early = self.world.fate.lots.random() < 0.5
        self.world.counts["death before an effect" if early else "death after an effect"] += 1
        return early

    async def die_if(self, fault: Fault | None, *, before: bool) -> None:
        """Die, if that is to be."""
        if fault == "step_death" and (not before or self.early()):
            self.process.die()
            await asyncio.get_running_loop().create_future()
