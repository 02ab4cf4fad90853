"""Simulated threads: calls that may block take virtual time, and their outcomes come back on the loop.

Rule 1: a call is on its way, is made at one instant, and its outcome is on its way back; a process may die or stand
        still in between.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from zart_core.testing.simulation.timeline import SimulatedLoop

P = ParamSpec("P")
T = TypeVar("T")

LATENCY_S = 0.002
"""The longest way to or from a thread, a store or a client, in seconds."""


class Blocked(BaseException):
    """The call cannot be made yet: it is made again at an instant, or when somebody wrote to the log before that."""

    def __init__(self, until: float, wakes: bool) -> None:
        super().__init__()
        self.until = until
        self.wakes = wakes
        """Whether a write wakes it."""


class Gone(BaseException):
    """The process died in the middle of the call."""


class Blocking:
    """One call that may block, made in a simulated thread."""

    def __init__(
        self, threads: SimulatedThreads, work: Callable[[], Any], done: Callable[[Any, Any], None]
    ) -> None:
        self.threads = threads
        self.work = work
        self.done = done
        """Called with the outcome, or with None and the error."""
        self.until: float | None = None
        """Until when it blocks, once it does."""
        self.timer: asyncio.Handle = threads.loop.call_later(threads.latency(), self.make)

    def make(self) -> None:
        """Make the call, here and now."""
        threads = self.threads
        threads.blocked.pop(self, None)
        threads.current = self
        try:
            outcome: tuple[Any, BaseException | None] = (self.work(), None)
        except Blocked as blocked:
            self.until = blocked.until
            self.timer = threads.loop.call_at(blocked.until, self.make)
            if blocked.wakes:
                threads.blocked[self] = None
            return
        except Gone:
            return
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001  # the caller's, whatever it is, as in real threads
            outcome = (None, error)
        finally:
            threads.current = None
        threads.loop.call_later(threads.latency(), self.done, *outcome)

    def wake(self) -> None:
        """Somebody wrote to the log."""
        self.timer.cancel()
        self.timer = self.threads.loop.call_later(self.threads.latency(), self.make)


class SimulatedThreads:
    """The threads of a simulated process: the twin of `DaemonThreads`."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self.loop = loop
        self.lots = loop.timeline.lots
        self.current: Blocking | None = None
        """The call that is being made."""
        self.blocked: dict[Blocking, None] = {}
        """Calls that a write wakes."""

    def latency(self) -> float:
        """How long the way takes this time, in seconds: as a rule very little."""
        return LATENCY_S * self.lots.random() ** 3

    def executor(self, name: str) -> SimulatedExecutor:
        """See Threads."""
        return SimulatedExecutor(self)

    def lane(self, name: str, loop: asyncio.AbstractEventLoop) -> SimulatedLane:
        """See Threads."""
        return SimulatedLane(self)

    def wake(self) -> None:
        """Somebody wrote to the log."""
        for call in list(self.blocked):
            call.wake()


class SimulatedExecutor(concurrent.futures.Executor):
    """The twin of `DaemonExecutor`."""

    def __init__(self, threads: SimulatedThreads) -> None:
        self.threads = threads

    def submit(
        self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> concurrent.futures.Future[T]:
        """Make the call a little later."""
        future: concurrent.futures.Future[T] = concurrent.futures.Future()

        def work() -> T:
            if future.running() or future.set_running_or_notify_cancel():
                return fn(*args, **kwargs)
            raise Gone

        def done(value: T, error: BaseException | None) -> None:
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)

        Blocking(self.threads, work, done)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """What runs goes on, as in daemon threads."""


class SimulatedLane:
    """The twin of `DaemonLane`."""

    def __init__(self, threads: SimulatedThreads) -> None:
        self.threads = threads

    def run(self, work: Callable[[], T], done: Callable[[T], None]) -> None:
        """See Lane."""

        def told(outcome: T, error: BaseException | None) -> None:
            if error is not None:
                raise error
            done(outcome)

        Blocking(self.threads, work, told)

    def stop(self) -> None:
        """See Lane."""
