"""Virtual time and the event loops that live in it: one loop for each simulated process.

Rule 1: nothing real is waited for. Time stands while any loop has something to do, and then goes to the next timer.
Rule 2: within a loop callbacks keep their order, as asyncio promises; which loop goes next is a matter of chance.
Rule 3: a dead loop does nothing and takes nothing; one that is paused does nothing until it goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import random
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any, TypeVar

T = TypeVar("T")


class Timeline:
    """Runs the loops of a world, one callback after the other."""

    def __init__(self, lots: random.Random) -> None:
        self.now = 0.0
        """Seconds since the beginning of the world."""
        self.lots = lots
        self.loops: list[SimulatedLoop] = []
        self.rounds = 0
        """Callbacks that were run."""
        self.running: SimulatedLoop | None = None
        """The loop that asyncio takes for the running one; to set that is a system call."""
        self.wrong: list[str] = []
        """What callbacks and tasks raised that nobody caught."""
        self._timers: list[tuple[float, float, int, SimulatedLoop, SimulatedHandle]] = []
        self._count = 0

    def loop(self) -> SimulatedLoop:
        """A loop for another process."""
        loop = SimulatedLoop(self)  # type: ignore[abstract]  # it has no input and output
        self.loops.append(loop)
        return loop

    def at(self, when: float, loop: SimulatedLoop, handle: SimulatedHandle) -> None:
        """Have a handle run at an instant; which of two at the same instant comes first is a matter of chance."""
        self._count += 1
        heapq.heappush(self._timers, (when, self.lots.random(), self._count, loop, handle))

    def run(self, done: Callable[[], bool], passing: Callable[[float], float]) -> bool:
        """Run until `done()`, or until nothing is left to do (False).

        `passing` is called with the instant that time is about to reach, and gives the one that it reaches instead.
        """
        before = asyncio._get_running_loop()
        try:
            while not done():
                if not self.run_some() and not self.pass_time(passing):
                    return False
            return True
        finally:
            asyncio._set_running_loop(before)
            self.running = None

    def run_some(self) -> bool:
        """Let one loop run some of what is ready; False when none has anything to do."""
        now = self.now
        able = [loop for loop in self.loops if loop.ready and loop.paused_until <= now]
        if not able:
            return False
        if len(able) == 1:
            able[0].run(len(able[0].ready))
        else:
            loop = able[int(self.lots.random() * len(able))]
            loop.run(1 + int(self.lots.random() * len(loop.ready)))
        return True

    def pass_time(self, passing: Callable[[float], float]) -> bool:
        """Go to the next timer; False when there is none."""
        while self._timers:
            when, tie, count, loop, handle = heapq.heappop(self._timers)
            if handle.void or loop.dead:
                continue
            if loop.paused_until > when:
                heapq.heappush(self._timers, (loop.paused_until, tie, count, loop, handle))
                continue
            self.now = max(self.now, passing(when))
            loop.ready.append(handle)
            return True
        return False

    def wake(self, loop: SimulatedLoop) -> None:
        """See to it that time does not pass by the instant at which a paused loop goes on."""
        self.at(loop.paused_until, loop, SimulatedHandle(loop.paused_until, nothing, (), loop, None))


class SimulatedHandle(asyncio.TimerHandle):
    """A callback that is to be called: the twin of asyncio's handles, and cheaper to make."""

    __slots__ = ("args", "context", "function", "loop", "void")

    def __init__(
        self,
        when: float,
        function: Callable[..., object],
        args: tuple[Any, ...],
        loop: SimulatedLoop,
        context: Context | None,
    ) -> None:
        self._when = when
        self.function = function
        self.args = args
        self.loop = loop
        self.context = copy_context() if context is None else context
        self.void = False
        """Whether it was cancelled."""

    def cancel(self) -> None:
        """See asyncio.Handle."""
        self.void = True
        self.function, self.args = nothing, ()

    def cancelled(self) -> bool:
        """See asyncio.Handle."""
        return self.void

    def run(self) -> None:
        """Call it; what it raises is told to the loop."""
        try:
            self.context.run(self.function, *self.args)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001  # as asyncio does
            name = getattr(self.function, "__qualname__", repr(self.function))
            self.loop.call_exception_handler({"message": f"Exception in callback {name}", "exception": error})


class SimulatedLoop(asyncio.AbstractEventLoop):
    """An event loop of a simulated process: what asyncio needs to run tasks, futures and timers."""

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        self.ready: deque[SimulatedHandle] = deque()
        self.dead = False
        self.paused_until = 0.0
        self.last: int | None = None
        """How many more callbacks it runs before it dies; None when nothing kills it."""
        self.killed: Callable[[], None] = nothing
        """Called when it dies by itself."""
        self.tasks: list[asyncio.Task[Any]] = []

    def run(self, count: int) -> None:
        """Run so many of the callbacks that are ready."""
        timeline, ready = self.timeline, self.ready
        if timeline.running is not self:
            asyncio._set_running_loop(self)
            timeline.running = self
        for _ in range(count):
            if not ready or self.paused_until > timeline.now:
                break
            if self.last is not None:
                self.last -= 1
                if self.last < 0:
                    self.kill()
                    self.killed()
                    break
            handle = ready.popleft()
            if not handle.void:
                timeline.rounds += 1
                handle.run()

    def kill(self) -> None:
        """Nothing happens on it from now on."""
        self.dead = True
        self.ready.clear()

    def pause(self, until: float) -> None:
        """Nothing happens on it until then."""
        if not self.dead and until > self.paused_until:
            self.paused_until = until
            self.timeline.wake(self)

    def wind_up(self) -> None:
        """Put away what was left running, after the end of the world."""
        self.kill()
        before = asyncio._get_running_loop()
        asyncio._set_running_loop(self)
        for task in self.tasks:
            if not task.done():
                quiet: Any = task
                quiet._log_destroy_pending = False  # it is not lost: its process is dead
                with contextlib.suppress(
                    Exception
                ):  # of code that the death of a process would not have let run
                    quiet.get_coro().close()
        self.tasks.clear()
        asyncio._set_running_loop(before)

    # ------------------------------------------------------------ what asyncio asks for

    def time(self) -> float:
        """Seconds since the beginning of the world."""
        return self.timeline.now

    def get_debug(self) -> bool:
        """It is not debugged."""
        return False

    def is_running(self) -> bool:
        """It runs as long as it lives."""
        return not self.dead

    def is_closed(self) -> bool:
        """It is never closed: it dies."""
        return False

    def call_soon(  # type: ignore[override]  # the parent's parameters, by simpler types
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """Have it called when what is ready has run."""
        handle = SimulatedHandle(0.0, callback, args, self, context)
        if not self.dead:
            self.ready.append(handle)
        return handle

    def call_soon_threadsafe(  # type: ignore[override]  # as above
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """The same: there is one thread."""
        return self.call_soon(callback, *args, context=context)

    def call_later(  # type: ignore[override]  # as above
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Have it called after so many seconds."""
        return self.call_at(self.timeline.now + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]  # as above
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Have it called at an instant of the loop's time."""
        handle = SimulatedHandle(when, callback, args, self, context)
        if not self.dead:
            self.timeline.at(when, self, handle)
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """A timer was cancelled: it is passed over when its time comes."""

    def create_future(self) -> asyncio.Future[Any]:
        """A future of this loop."""
        return asyncio.Future(loop=self)

    def create_task(
        self, coro: Any, *, name: object = None, context: Context | None = None
    ) -> asyncio.Task[Any]:
        """A task on this loop."""
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, context=context)
        self.tasks.append(task)
        return task

    def run_in_executor(  # type: ignore[override]  # as above
        self, executor: Any, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Call it a little later, as a thread would."""
        future: asyncio.Future[T] = self.create_future()
        self.call_later(self.timeline.lots.random() * 0.001, call_into, future, func, args)
        return future

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Something was raised that nobody caught; of a dead process nobody hears."""
        if not self.dead:
            error = context.get("exception")
            self.timeline.wrong.append(f"{context.get('message')}: {type(error).__name__}: {error}")


def nothing() -> None:
    """Do nothing."""


def call_into(future: asyncio.Future[T], func: Callable[..., T], args: tuple[Any, ...]) -> None:
    """Give a future what a function gives."""
    if future.cancelled():
        return
    try:
        future.set_result(func(*args))
    except Exception as error:  # noqa: BLE001  # the future's, whatever it is
        future.set_exception(error)
