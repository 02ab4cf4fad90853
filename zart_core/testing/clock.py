"""A clock that moves by hand: the twin of `SystemClock`.

Rule 1: time moves only in `sleep`, `pass_until`, `advance` and `jump`; nobody looks at the machine's clock.
Rule 2: what was asked for `at` an instant runs at that instant, in order; what was asked first runs first.
Rule 3: callbacks run in the thread that moves the time, and may move it themselves.
"""

from __future__ import annotations

import heapq
import itertools
import math
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from zart_core.commands import instant
from zart_core.errors import InvalidUse
from zart_core.policies import Duration, seconds

START = datetime(2026, 1, 1, tzinfo=UTC)
"""When virtual time begins, unless a test says otherwise."""


class VirtualClock:
    """The time of day as a test wants it. Safe to use from several threads.

    `start` is a datetime with a zone, or seconds since the epoch. Raises InvalidUse for a naive datetime.
    """

    def __init__(self, start: datetime | float = START) -> None:
        self._now = seconds_of(start)
        self._lock = threading.RLock()
        self._numbers = itertools.count()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._watchers: list[Callable[[], None]] = []

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._now

    def sleep(self, duration_s: float) -> None:
        """Let so many seconds pass; returns early after a callback, so that a host can look again."""
        self.pass_until(self._now + max(0.0, duration_s))

    def pass_until(self, when: datetime | float) -> bool:
        """Let time pass until an instant, or up to the first callback on the way (False)."""
        target = seconds_of(when)
        if self._run_next(target):
            return False
        self._move(target)
        return True

    def advance(self, duration: Duration = 0.0, **parts: float) -> None:
        """Let a whole span pass, with every callback on the way: `advance(days=1, hours=2)`.

        Takes what timedelta takes, a timedelta, a number of seconds, or text such as "3d". Without anything it runs
        callbacks that are due now. Raises InvalidUse for a span below zero, or without end.
        """
        if isinstance(duration, str):
            duration = seconds(duration, "advance()")
        span = duration.total_seconds() if isinstance(duration, timedelta) else duration
        span += timedelta(**parts).total_seconds()
        if not 0 <= span < math.inf:
            raise InvalidUse(f"advance() lets 0 seconds or more pass, not {span:g}; jump() puts a clock back")
        target = self._now + span
        while self._run_next(target):
            pass
        self._move(target)

    def jump(self, **parts: float) -> None:
        """Put the clock forward, or back with negative numbers; no callback runs (F13)."""
        with self._lock:
            self._now += timedelta(**parts).total_seconds()
        self._tell()

    def at(self, when: datetime | float, callback: Callable[[], None]) -> None:
        """Have `callback` called when time reaches an instant; a past one is reached at the next move."""
        with self._lock:
            heapq.heappush(self._due, (seconds_of(when), next(self._numbers), callback))

    @property
    def next_at(self) -> float | None:
        """When the next callback is due, in seconds since the epoch; None when there is none."""
        with self._lock:
            return self._due[0][0] if self._due else None

    def watch(self, callback: Callable[[], None]) -> None:
        """Have `callback` called whenever time has moved."""
        with self._lock:
            self._watchers.append(callback)

    def _run_next(self, until: float) -> bool:
        with self._lock:
            if not self._due or self._due[0][0] > until:
                return False
            when, _, callback = heapq.heappop(self._due)
            moved, self._now = when > self._now, max(when, self._now)
        if moved:
            self._tell()
        callback()
        return True

    def _move(self, target: float) -> None:
        with self._lock:
            moved, self._now = target > self._now, max(target, self._now)
        if moved:
            self._tell()

    def _tell(self) -> None:
        with self._lock:
            watchers = list(self._watchers)
        for watcher in watchers:
            watcher()

    def __repr__(self) -> str:
        return f"<VirtualClock at {datetime.fromtimestamp(self._now, UTC).isoformat()}>"


def seconds_of(when: datetime | float) -> float:
    """Seconds since the epoch; raises InvalidUse for a naive datetime."""
    return instant(when, "a virtual clock") if isinstance(when, datetime) else float(when)
