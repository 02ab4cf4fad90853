"""The engine's timer: one of the loop's, set to the earliest instant of a heap."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from typing import TYPE_CHECKING

from zart_core.hosts.live import Live

if TYPE_CHECKING:
    from zart_core.hosts.engine import AsyncEngine

TIMER_MAX_S = 5.0
"""The longest sleep of the engine's timer, so that a clock that jumps is noticed."""
THINNED_MIN = 1000
"""Up to so many instants are kept, whether anybody waits for them or not."""


class Alarms:
    """Kicks executions whose time has come: never early, whatever the clock did."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.timers: list[tuple[float, str]] = []
        self.timer: asyncio.TimerHandle | None = None
        self.timers_max = THINNED_MIN
        """How many instants there may be before those are forgotten that nobody waits for any more."""

    def watched(self) -> None:
        """Time was moved by hand, in any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody needs to know
            self.engine.loop.call_soon_threadsafe(self.clock_moved)

    def clock_moved(self) -> None:
        """Whatever waited for the time may have it now."""
        self.engine.limits.time_moved()
        self.time_moved()

    def set_for(self, live: Live) -> None:
        """Have it kicked when it is next due by time."""
        wake = live.run.wake
        if wake is not None and wake != live.wake:
            live.wake = wake
            self.set(wake, live.run.id)

    def set(self, when: float, id: str) -> None:
        """Put an instant into the engine's heap; an empty id asks the log for work then."""
        heapq.heappush(self.timers, (when, id))
        if len(self.timers) > self.timers_max:
            self.thin_out()
        if self.timers[0] == (when, id):
            self.arm()

    def thin_out(self) -> None:
        """Forget what nobody waits for: of what has ended, or waits for another instant. O(n) once n has doubled."""
        live = self.engine.live
        self.timers = [
            (when, id) for when, id in set(self.timers) if not id or (id in live and live[id].wake == when)
        ]
        heapq.heapify(self.timers)
        self.timers_max = max(THINNED_MIN, 2 * len(self.timers))

    def arm(self) -> None:
        """Set the one timer of the loop to the earliest instant."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.timers and not self.engine.closing:
            delay = min(TIMER_MAX_S, max(0.0, self.timers[0][0] - self.engine.clock.now()))
            self.timer = self.engine.loop.call_later(delay, self.time_moved)

    def time_moved(self) -> None:
        """Kick everything whose time has come: never early, whatever the clock did."""
        now = self.engine.clock.now()
        while self.timers and self.timers[0][0] <= now:
            _, id = heapq.heappop(self.timers)
            live = self.engine.live.get(id)
            if live is not None:
                live.wake = None
                self.engine.pump.kick(live)
            elif not id:
                self.engine.claims.claiming.set()
        self.arm()
