"""A worker: the real engine in a simulated process, which may die at any moment and is then started anew."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Generator, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any

from zart_core.errors import LogCorrupt, Weather
from zart_core.hosts.engine import AsyncEngine
from zart_core.hosts.live import Live
from zart_core.hosts.ports import StepCall
from zart_core.steps import DEFAULT_QUEUE
from zart_core.testing.simulation.cast import Acted
from zart_core.testing.simulation.store import SimulatedStore
from zart_core.testing.simulation.threads import SimulatedThreads
from zart_core.workflows import Registry, Workflow

if TYPE_CHECKING:
    from zart_core.testing.simulation.world import Simulation

LOOK_S = 2.0
"""How often it is looked whether the store of a worker has failed, in seconds."""
RESTART_S = 2.0
"""The longest time from the death of a process to the start of the next, in seconds."""


class SimulatedClock:
    """What a worker takes for the time of day: the world's, and how far its own is off."""

    def __init__(self, world: Simulation, skew: float) -> None:
        self.world = world
        self.skew = skew
        self.watchers: list[Callable[[], None]] = []

    def now(self) -> float:
        """See Clock."""
        return self.world.wall() + self.skew

    def sleep(self, duration_s: float) -> None:
        """See Clock: time passes by itself here."""

    def watch(self, callback: Callable[[], None]) -> None:
        """See Clock."""
        self.watchers.append(callback)


class Process:
    """One life of a worker. `number` is the worker's, `life` counts its lives over the whole world."""

    def __init__(self, world: Simulation, number: int, life: int, skew: float) -> None:
        self.world = world
        self.number = number
        self.name = f"w{number}.{life}"
        self.loop = world.timeline.loop()
        self.loop.killed = self.died
        self.clock = SimulatedClock(world, skew)
        self.threads = SimulatedThreads(self.loop)
        self.log = world.place.open()
        self.store = SimulatedStore(self.log, self)
        self.opened: AsyncEngine | None = None
        """The engine, open or not."""
        self.engine: AsyncEngine | None = None
        """The engine, once it is open."""
        self.leased_until = 0.0
        """Until when what it holds is its own, by the store's account."""
        self.ending = False
        self.answers: list[Callable[[], None]] = []
        """Called when the process dies: who waits for an answer learns that there is none."""
        self.lots = random.Random(f"worker {number}.{life} of {world.seed}")  # noqa: S311  # the same each time
        self.loop.create_task(self.live())

    async def live(self) -> None:
        """Open an engine, and keep it open until it is told to end or its store has failed."""
        lots, crowd = self.lots, self.lots.random()
        engine = self.world.make(
            self.store,
            Registry(*self.world.workflows),
            owns_log=False,
            clock=self.clock,
            codec=self.world.codec,
            resources=self.world.resources,
            threads=self.threads,
            lots=lots,
            cast=self.cast,
            max_live=1 if crowd < 0.1 else 1000,
            max_concurrent_steps=1 if crowd > 0.8 else 64,
            queues=self.queues(),
        )
        self.opened = engine
        try:
            await engine.begin()
            self.engine = engine
            while not self.ending and engine.writer.failed is None:
                await asyncio.sleep(LOOK_S)
        except (Weather, LogCorrupt) as error:
            self.world.trace(self.name, f"cannot begin: {type(error).__name__}")
        if not self.ending:
            await self.end()

    def queues(self) -> list[str]:
        """Every second worker serves the queues that steps name too; the second of three or more serves only them."""
        named = self.world.queues
        count = self.world.workers
        if not named or (count > 1 and self.number % 2 == 0):
            return [DEFAULT_QUEUE]
        return [*([] if count > 2 and self.number == 1 else [DEFAULT_QUEUE]), *sorted(named)]

    def cast(self, call: StepCall) -> Acted:
        """Who plays an attempt."""
        return Acted(self.world, self, call)

    async def end(self) -> None:
        """Close the engine in order, and end the process."""
        self.ending = True
        engine, self.engine = self.engine, None
        if engine is not None:
            await engine.close()
        self.world.trace(self.name, "ended")
        self.world.counts["closed in order"] += 1
        self.die()

    def hand_over(self) -> None:
        """Be told to end, as by SIGTERM."""
        if not self.ending and self.engine is not None:
            self.loop.create_task(self.end())

    def redeploy(self) -> None:
        """Register the workflows anew."""
        self.deploy(self.world.workflows)

    def deploy_badly(self, duration_s: float) -> None:
        """Register workflows that fit no history, and the right ones after a while."""
        self.world.misfits = True
        self.deploy([misfit(workflow) for workflow in self.world.workflows])
        self.loop.call_later(duration_s, self.redeploy)

    def deploy(self, workflows: Sequence[Workflow[Any, Any]]) -> None:
        """Register workflows, unless the engine is not open yet or not any more."""
        if self.engine is not None and not self.ending:
            self.loop.create_task(self.register(self.engine, workflows))

    async def register(self, engine: AsyncEngine, workflows: Sequence[Workflow[Any, Any]]) -> None:
        """Register workflows, whatever the weather is."""
        try:
            await engine.register(*workflows)
        except Weather as weather:
            self.world.trace(self.name, f"cannot register: {type(weather).__name__}")

    def pause(self, duration_s: float) -> None:
        """Stand still."""
        self.loop.pause(self.world.timeline.now + duration_s)

    def die(self) -> None:
        """Die, here and now."""
        if not self.loop.dead:
            self.loop.kill()
            self.died()

    def died(self) -> None:
        """Its operating system tells who waits for an answer; somebody starts it anew."""
        world = self.world
        self.engine = None
        world.trace(self.name, "died")
        world.died(self)
        for answer in self.answers:
            world.outside.call_later(world.latency(), answer)
        self.answers.clear()

    def lapses(self) -> int:
        """How often its engine stopped attempts, or did not start them, because its lease was about to run out."""
        return self.opened.attempts.lapses if self.opened is not None else 0

    def lives(self) -> list[Live]:
        """What its engine holds; executions that are not through yet, too."""
        found = list(self.opened.live.values()) if self.opened is not None else []
        for task in self.loop.tasks:
            frame: object = task.get_coro()
            while frame is not None:
                names = getattr(getattr(frame, "cr_frame", None), "f_locals", {})
                found += [value for value in names.values() if isinstance(value, Live)]
                frame = getattr(frame, "cr_await", None)
        return found

    def wind_up(self) -> None:
        """Put everything away, after the end of the world."""
        for live in self.lives():
            live.run.drop()
        self.loop.wind_up()


def misfit(workflow: Workflow[Any, Any]) -> Workflow[Any, Any]:
    """A workflow of the same name, version and input whose code fits no history: it yields what is no command."""

    def broken(*input: Any) -> Generator[Any, Any, Any]:
        yield "no command"

    other = copy(workflow)
    other.fn = broken
    other.input_type = workflow.input_type
    return other
