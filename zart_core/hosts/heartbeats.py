"""Heartbeats: what an engine does with what running steps say, and how they hear that they are to end.

Rule 1: they cost next to nothing: a step's thread keeps what was said last; the loop writes it every INTERVAL_S at the
        most, what the steps of all executions say in one commit with whatever else is to be written.
Rule 2: they are no turns: nothing waits for them, nothing is read back when they cannot be written, and they say that
        the execution is `RUNNING`, so that it is due at once should its worker die, whatever else they say (L10).
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs

from zart_core import log as stored
from zart_core.errors import Cancelled
from zart_core.events import Ok, Status
from zart_core.hosts.inline import Inline
from zart_core.hosts.live import UNWANTED, Attempt, Live
from zart_core.hosts.progress import INTERVAL_S, encoded, text_of

if TYPE_CHECKING:
    import asyncio

    from zart_core.hosts.engine import AsyncEngine

LOGGER = logging.getLogger("zart.engine")


class Heartbeats:
    """Those of an engine's steps."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.heard: list[tuple[Live, Attempt]] = []
        """What is to be written down next."""
        self.timer: asyncio.TimerHandle | None = None
        self.wrote_at = -math.inf
        """When that was done last, in seconds of the loop."""
        self.marking: Counter[str] = Counter()
        """How many marks of an execution are on their way to the log."""
        self.overtaken: set[str] = set()
        """Executions whose marks a turn has overtaken, in the transaction of a step."""

    def beat(self, live: Live, attempt: Attempt, progress: Any) -> None:
        """An attempt says something. In any thread. Raises Cancelled, EncodeError."""
        if attempt.told:
            raise Cancelled(UNWANTED)
        attempt.said = (self.engine.clock.now(), encoded(self.engine.codec, attempt.call, progress))
        if not attempt.announced:
            attempt.announced = True
            with contextlib.suppress(RuntimeError):  # the loop is gone, and who wanted to know with it
                self.engine.loop.call_soon_threadsafe(self.hear, live, attempt)

    def hear(self, live: Live, attempt: Attempt) -> None:
        """It is written down soon, or with what comes until the next time."""
        self.heard.append((live, attempt))
        if self.timer is None and not self.engine.closing:
            left_s = self.wrote_at + INTERVAL_S - self.engine.loop.time()
            self.timer = self.engine.loop.call_later(max(0.0, left_s), self.write)

    def write(self) -> None:
        """Write down what was said by what runs still."""
        self.timer = None
        if self.engine.closing or self.engine.writer.failed is not None:
            return
        self.wrote_at = self.engine.loop.time()
        heard, self.heard = self.heard, []
        lives: dict[str, Live] = {}
        for live, attempt in heard:
            if live.calls.get(attempt.call.seq) is attempt:
                if live.run.status is Status.RUNNING:
                    attempt.announced = False  # first: what is said after the reading is announced anew
                    lives[live.run.id] = live
                else:  # it is parked, or being read back
                    self.hear(live, attempt)
        for live in lives.values():
            self.put(live, self.mark(live))
        self.engine.writer.hurry()

    def mark(self, live: Live) -> stored.Mark:
        """What stands beside the log of an execution, with what its running steps say."""
        said = [(one.call, *one.said) for one in live.calls.values() if one.said is not None]
        mark = live.run.mark(self.engine.build)
        if not said or mark.status is not Status.RUNNING:
            return mark
        return attrs.evolve(mark, reason=text_of(self.engine.codec, live.run.id, live.run.run, said))

    def put(self, live: Live, mark: stored.Mark) -> None:
        """Hand a mark to the writer."""
        self.marking[mark.id] += 1
        self.engine.writer.put([mark], partial(self.written, live))

    def written(self, live: Live, outcomes: list[stored.Appended]) -> None:
        """A mark's outcome. One that could not be written is written with the next ones."""
        outcome, id = outcomes[0], live.run.id
        self.marking -= Counter([id])  # which keeps none that is zero
        if self.engine.transactions.is_committing(id):  # or is on its way back from there
            self.overtaken.add(id)
        else:
            self.amend(live)
        if self.engine.live.get(id) is not live or self.engine.closing:
            return
        if Inline.is_lost(outcomes):
            self.engine.recovery.start(live, outcome)  # somebody else may have it: then its steps are to know
        elif not isinstance(outcome, Ok):
            LOGGER.warning("what the steps of '%s' say cannot be written: %s", id, outcome.reason)
            for attempt in live.calls.values():
                if attempt.said is not None and not attempt.announced:
                    attempt.announced = True
                    self.hear(live, attempt)

    def overtake(self, live: Live) -> None:
        """A turn was committed that did not stand in line behind the marks of its execution: they undo what it says."""
        if live.run.id in self.marking:
            self.overtaken.add(live.run.id)
        self.amend(live)

    def amend(self, live: Live) -> None:
        """Mark how an execution stands that was overtaken, after its last mark, unless a turn is about to say it."""
        id = live.run.id
        if id not in self.overtaken or id in self.marking:
            return
        self.overtaken.discard(id)
        held = self.engine.live.get(id) is live and not self.engine.closing
        if held and not live.writing and (live.run.execution or live.run.defect) is not None:
            self.put(live, self.mark(live))
            self.engine.writer.hurry()

    def close(self) -> None:
        """Nothing is written down any more."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
