"""What an engine holds in memory: executions, and attempts that run for them."""

from __future__ import annotations

import asyncio
import concurrent.futures
from typing import TYPE_CHECKING, Any

from zart_core.empties import NO_ENTRIES
from zart_core.hosts.ports import StepCall
from zart_core.hosts.turns import Run

if TYPE_CHECKING:
    from zart_core.hosts.transactions import Lent

UNWANTED = "nobody waits for its step any more: it timed out, was cancelled, or its worker is about to stop"
"""Why an attempt is to end, as it hears."""

NO_THREAD_S = 0.5
"""How long what needs a thread waits for one before it is looked again."""


class Live:
    """An execution that the engine holds in memory."""

    __slots__ = (
        "again",
        "calls",
        "code",
        "dirty",
        "hungry",
        "hungry_since",
        "lapsed",
        "overflow",
        "released",
        "run",
        "tries",
        "wake",
        "writing",
    )

    def __init__(self, run: Run) -> None:
        self.run = run
        self.calls: dict[int, Attempt] = NO_ENTRIES
        """What runs for it, by seq."""
        self.writing = False
        """Whether a turn of it is in flight, or it is being read back."""
        self.again = False
        """Whether something happened meanwhile."""
        self.released = False
        """Whether the last turn gave the claim back."""
        self.code = 0
        """The generation of the code that it was replayed with."""
        self.dirty = False
        """Whether it is in line for its next turn."""
        self.hungry = False
        """Whether it is in line for a slot."""
        self.hungry_since = 0.0
        """Since when, in seconds of the loop."""
        self.lapsed = False
        """Whether the lease may have run out since it was read: nothing of it starts before it is read back."""
        self.overflow = 0
        """How many steps that find no slot here its next turn may offer to other workers."""
        self.tries = 0
        """Appends that failed in a row."""
        self.wake: float | None = None
        """When its timer is set for."""


class Attempt:
    """A running attempt of a step."""

    __slots__ = ("announced", "broke", "call", "future", "lent", "said", "task", "timer", "told")

    def __init__(self, call: StepCall) -> None:
        self.call = call
        self.lent: Lent | None = None
        """What a sync step in a thread of this process asks its transaction of."""
        self.task: asyncio.Task[None] | None = None
        """The task of an async step."""
        self.future: concurrent.futures.Future[Any] | None = None
        """The executor's future of a sync step."""
        self.timer: asyncio.TimerHandle | None = None
        self.told = False
        """Whether it was told to end, or nobody wants its outcome any more."""
        self.said: tuple[float, bytes] | None = None
        """When it last said something of its progress, and what, as JSON; set in the step's own thread."""
        self.announced = False
        """Whether the loop knows, or is about to, that it has said something."""
        self.broke = False
        """Whether its executor broke while it may have been running there: it waits for one that works (R5)."""
