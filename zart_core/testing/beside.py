"""The host of `run`: the inline one, whose async steps wait beside each other in virtual time, as they do in an engine.

Rule 1: what ends at the instant at which it begins has ended before anything else begins.
Rule 2: steps go as far as they get without time; time passes where the host rests.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any, TypeAlias

from zart_core.errors import Cancelled
from zart_core.events import Err, Ok
from zart_core.hosts.inline import Inline, Pulse, attempted
from zart_core.hosts.ports import StepCall
from zart_core.hosts.turns import Effects, Run
from zart_core.testing.clock import VirtualClock
from zart_core.testing.runner import ScriptedRunner

TOLD = (Cancelled, asyncio.CancelledError)
"""What a step lets pass that was told to end."""

Flight: TypeAlias = tuple[str, int, int]
"""An attempt: execution, run, and seq of its step."""


class Attempt:
    """An attempt of an async step that is under way."""

    __slots__ = ("pulse", "task", "told")

    def __init__(self, pulse: Pulse, task: asyncio.Future[Any]) -> None:
        self.pulse = pulse
        self.task = task
        self.told = False
        """Whether it was told to end."""


class Beside(Inline):
    """Drives executions in virtual time; any number of async steps wait at once, plain ones run one at a time."""

    def __init__(self, *given: Any, **outside: Any) -> None:
        super().__init__(*given, **outside)
        assert isinstance(self.clock, VirtualClock)
        assert isinstance(self.runner, ScriptedRunner)
        self.time = self.clock
        self.steps = self.runner
        self.under_way: dict[Flight, Attempt] = {}
        self.ended: list[Flight] = []
        """Attempts that have ended and were not looked at yet, in the order in which they did."""
        self.moved: dict[Run, None] = {}
        """Runs that know more than when they were last advanced."""
        self.stirred = False
        """Whether the loop has something to do at once."""
        self.step_wake: float | None = None
        """When an async step goes on by itself."""

    def work(self) -> bool:
        """As usual, after what async steps came to."""
        self.go_on()
        moved, self.moved = self.moved, {}
        for run in moved:
            if self.runs.get(run.id) is run:
                self.advance(run)
        if super().work() or moved:
            return True
        if not self.under_way or self.next_wake() is not None or self.time.next_at is not None:
            return False
        self.steps.wait([attempt.task for attempt in self.under_way.values()])  # for something real
        return True

    def next_wake(self) -> float | None:
        """When something is due next, or an async step goes on."""
        now = self.clock.now()
        wakes = (super().next_wake(), self.step_wake if self.under_way else None)
        return min((wake for wake in wakes if wake is not None and wake > now), default=None)

    def call(self, run: Run, call: StepCall) -> None:
        """An attempt begins; a plain one ends with that."""
        pulse = Pulse(self, run, call)
        outcome = attempted(functools.partial(self.steps.begin, call, self.scene(pulse)))
        task = outcome.value if isinstance(outcome, Ok) else None
        if not asyncio.isfuture(task):
            self.came_to(pulse, outcome)
            return
        flight = (run.id, run.run, call.seq)
        self.under_way[flight] = Attempt(pulse, task)
        task.add_done_callback(self.end_of(flight))
        self.go_on()

    def end_of(self, flight: Flight) -> Callable[[asyncio.Future[Any]], None]:
        """What takes note of an attempt's end; of one that nobody wants any more nothing is kept."""

        def ended(task: asyncio.Future[Any]) -> None:
            attempt = self.under_way.get(flight)
            if attempt is not None and attempt.task is task:
                self.ended.append(flight)
            elif not task.cancelled():
                task.exception()  # asyncio reports what nobody takes

        return ended

    def go_on(self) -> None:
        """Let async steps go on at this instant, and tell their runs what they came to."""
        if not self.under_way and not self.stirred:
            return
        self.stirred = False
        self.step_wake = self.steps.go_on()
        ended, self.ended = self.ended, []
        for flight in ended:
            attempt = self.under_way.pop(flight, None)
            if attempt is None:
                continue
            run, call, task = attempt.pulse.run, attempt.pulse.call, attempt.task
            self.moved[run] = None
            outcome = attempted(task.result)
            if attempt.told and isinstance(outcome, Err) and isinstance(outcome.error, TOLD):
                run.cancelled(call, self.clock.now())
            else:
                self.came_to(attempt.pulse, outcome)

    def carry_out(self, run: Run, effects: Effects) -> bool:
        """As usual; what is told to end is cancelled, and what nobody wants any more forgotten."""
        for seq in effects.stops:
            attempt = self.under_way[run.id, run.run, seq]
            attempt.told = True
            attempt.pulse.over = "nobody waits for it any more"
            self.stop(attempt)
        for seq in effects.dropped:
            self.forget((run.id, run.run, seq))
        if run.closed is not None:
            for flight in [flight for flight, other in self.under_way.items() if other.pulse.run is run]:
                self.forget(flight)
        over = super().carry_out(run, effects)
        self.go_on()
        return over

    def forget(self, flight: Flight) -> None:
        """Nobody wants to know how it ends."""
        attempt = self.under_way.pop(flight, None)
        if attempt is not None:
            self.stop(attempt)

    def stop(self, attempt: Attempt) -> None:
        """It hears of it at this very instant."""
        attempt.task.cancel()
        self.stirred = True
