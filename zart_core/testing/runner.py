"""Steps as a test wants them: real ones, or fakes that are put in their place by reference.

Rule 1: what a fake gives depends on the step's name and attempt only, so that an attempt that a crash repeats
        gives the same again.
Rule 2: async functions run on one event loop in virtual time: `await asyncio.sleep(3600)` takes no time at
        all, and a step's timeout strikes exactly when it should.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import selectors
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Mapping
from typing import Any, TypeAlias, TypeVar, cast

from zart_core.context import SCENE, Scene
from zart_core.errors import InvalidUse
from zart_core.hosts.ports import Clock, StepCall, SystemClock
from zart_core.hosts.threads import away_from_loops
from zart_core.steps import StepFunction
from zart_core.testing.clock import VirtualClock

T = TypeVar("T")
Steps: TypeAlias = Mapping[StepFunction[..., Any], Any]
"""What stands in for which step: a function, an exception, a list of outcomes, or the value itself."""


class ScriptedRunner:
    """A StepRunner that replaces step functions by reference, and counts the calls of each step by name.

    Args:
        steps: what stands in for a step:
            a plain or async function is called with the step's arguments;
            an exception, or a class of exceptions, is raised at every attempt;
            a list gives one outcome for each attempt, in the order in which attempts first come up; one that
            is repeated after a crash gets the same one again;
            anything else is the step's value. A step that is not named runs its own function.
        clock: the time of async functions; with a VirtualClock it passes by itself while they all wait.

    Raises InvalidUse for a key that is no step. A list that is too short fails the attempt with InvalidUse.
    """

    def __init__(
        self, steps: Steps | None = None, *, clock: Clock | None = None, loops: Loops | None = None
    ) -> None:
        self.steps: dict[StepFunction[..., Any], Any] = {}
        for function, fake in (steps or {}).items():
            if not isinstance(function, StepFunction):
                raise InvalidUse(
                    f"steps= maps functions decorated with @zart.step to fakes; {function!r} is none"
                )
            self.steps[function.origin] = sequenced(fake)
        self.clock = clock or SystemClock()
        self.calls: Counter[str] = Counter()
        """How often each step was called, by the name it has in the log."""
        self._dealt: dict[tuple[StepFunction[..., Any], str, int, str, int], int] = {}
        self._counts: Counter[StepFunction[..., Any]] = Counter()
        self._loops = loops
        self._own = Loops()
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, call: StepCall, scene: Scene) -> Any:
        """Give what the step or its fake gives, or raise its error."""
        self.calls[call.context.step or ""] += 1
        token = SCENE.set(scene)
        try:
            value = self.outcome(call)
            return self._awaited(value, call.context.deadline) if inspect.iscoroutine(value) else value
        finally:
            SCENE.reset(token)

    def begin(self, call: StepCall, scene: Scene) -> Any:
        """As `run`, but what is async is under way: an asyncio.Task that goes on by `go_on`.

        It ends by its attempt's own countdown only (PER_ATTEMPT); the host tells it of other deadlines.
        """
        self.calls[call.context.step or ""] += 1
        token = SCENE.set(scene)
        try:
            value = self.outcome(call)
            if not inspect.iscoroutine(value):
                return value
            loop = self._event_loop()
            task = loop.create_task(self._in_time(value, call.attempt_until))
            if isinstance(loop, VirtualLoop):
                task.add_done_callback(loop.has_ended)
            return task
        finally:
            SCENE.reset(token)

    def go_on(self) -> float | None:
        """Let what is under way go on until only time moves it; gives when that will be, None for never.

        Threads and connections that work for it are waited for. Raises InvalidUse without a VirtualClock.
        """
        loop = self._event_loop()
        if not isinstance(loop, VirtualLoop):
            raise InvalidUse("attempts are under way beside each other in virtual time only")
        return loop.go_on()

    def wait(self, tasks: Collection[asyncio.Future[Any]]) -> None:
        """Wait until one of these has ended, whatever moves it."""
        complete(self._event_loop(), first_ended(tasks))

    def close(self) -> None:
        """End what async functions left behind. Twice is once."""
        loop, self._loop = self._loop, None
        if loop is not None:
            wind_up(loop)
            self._own.close()

    def outcome(self, call: StepCall) -> Any:
        """What the step or its fake gives for this attempt: a value, or a coroutine; raises its error."""
        origin = call.function.origin
        if origin not in self.steps:
            return call.function.call(call.values)
        fake = self.steps[origin]
        one = self._next_of(fake, call) if isinstance(fake, Sequenced) else fake
        return played(one, call)

    def _next_of(self, script: Sequenced, call: StepCall) -> Any:
        """The outcome that belongs to this attempt."""
        outcomes = script.outcomes
        origin, context = call.function.origin, call.context
        key = (origin, context.execution_id, context.run, context.step or "", context.attempt)
        if key not in self._dealt:
            self._dealt[key] = self._counts[origin]
            self._counts[origin] += 1
        number = self._dealt[key]
        if number >= len(outcomes):
            raise InvalidUse(
                f"steps= has {len(outcomes)} outcomes for step '{origin.id}', here is attempt {number + 1}"
            )
        return outcomes[number]

    def _awaited(self, coroutine: Any, deadline: float | None) -> Any:
        """The result of an async function, within the attempt's deadline; raises TimeoutError after it."""
        try:
            return complete(self._event_loop(), self._in_time(coroutine, deadline))
        except asyncio.CancelledError as error:  # by what it awaited: an error like any other
            raise RuntimeError("the step raised CancelledError") from error

    def _in_time(self, coroutine: Any, deadline: float | None) -> Any:
        """The coroutine, which raises TimeoutError after its attempt's deadline."""
        if deadline is None:
            return coroutine
        left = deadline - self.clock.now()
        return within(self._event_loop().time() + left, deadline, coroutine)

    def _event_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = (self._loops or self._own).loop_in(self.clock)
        return self._loop


def complete(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T]) -> T:
    """What a coroutine gives on this loop; a test that is async itself has another one running."""
    return away_from_loops(lambda: loop.run_until_complete(coroutine))


async def within(loop_deadline: float, deadline: float, coroutine: Any) -> Any:
    """Await something until a deadline of the loop's time."""
    exact = isinstance(asyncio.get_running_loop(), VirtualLoop)
    async with asyncio.timeout_at(deadline if exact else loop_deadline):
        return await coroutine


class Sequenced:
    """One outcome for each attempt."""

    def __init__(self, outcomes: Any) -> None:
        self.outcomes: tuple[Any, ...] = tuple(outcomes)


def sequenced(fake: Any) -> Any:
    """A list as what it means; anything else as it is."""
    return Sequenced(cast("Any", fake)) if isinstance(fake, list) else fake


class Loops:
    """Keeps one event loop for several runners, one after the other: to open one takes a millisecond."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None

    def loop_in(self, clock: Clock) -> asyncio.AbstractEventLoop:
        """The loop, in this clock's time from now on."""
        if self.loop is None:
            self.loop = VirtualLoop(clock) if isinstance(clock, VirtualClock) else asyncio.new_event_loop()
        if isinstance(self.loop, VirtualLoop):
            self.loop.clock = clock
        return self.loop

    def close(self) -> None:
        """Close it. Twice is once."""
        loop, self.loop = self.loop, None
        if loop is not None:
            wind_up(loop)
            complete(loop, loop.shutdown_default_executor())
            loop.close()


def wind_up(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel what was left running, and wait for it in a time of its own."""
    if isinstance(loop, VirtualLoop):
        loop.clock = VirtualClock(loop.clock.now())
    left = asyncio.all_tasks(loop)
    if left:
        for task in left:
            task.cancel()
        complete(loop, all_ended(left))
    complete(loop, loop.shutdown_asyncgens())


async def first_ended(tasks: Collection[asyncio.Future[Any]]) -> None:
    """Wait for one of them, however it ends."""
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)


async def all_ended(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Wait for them, however they end."""
    await asyncio.gather(*tasks, return_exceptions=True)


def played(fake: Any, call: StepCall) -> Any:
    """What a single fake gives: a value, a coroutine, or a raised error."""
    if isinstance(fake, BaseException):
        raise fresh(fake)
    if inspect.isclass(fake) and issubclass(fake, BaseException):
        raise fake
    if isinstance(fake, StepFunction):
        fake = fake.fn
    if not callable(fake):
        return fake
    return call.function.call(call.values, fake)


def fresh(error: BaseException) -> BaseException:
    """The same error without the tracebacks that earlier raises have left in it."""
    return error.with_traceback(None)


# ---------------------------------------------------------------- an event loop in virtual time


class VirtualSelector(selectors.DefaultSelector):
    """Waits for nothing: when only time can wake the loop, the clock moves; real input is waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.loop: VirtualLoop | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What is ready; lets `timeout` virtual seconds pass when nothing real can happen meanwhile."""
        loop = self.loop
        told = loop is not None and loop.stepping and loop.told
        if loop is None or timeout == 0 or ((loop.busy or len(self.get_map()) > 1) and not told):
            return super().select(timeout)
        ready = super().select(0)
        if ready:
            return ready
        if loop.stepping:
            loop.stop()
        elif timeout is None:
            return super().select(None)
        else:
            loop.wait_for_timer(timeout)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is a VirtualClock. Work in threads, and open connections, take real time."""

    def __init__(self, clock: Clock) -> None:
        selector = VirtualSelector()
        super().__init__(selector)
        selector.loop = self
        self.clock = clock
        self.busy = 0
        """How many functions run in threads for it."""
        self.stepping = False
        """Whether it stops where only time would move it."""
        self.told = False
        """Whether something has ended since: it stops before it waits for anything else, such as an idle connection."""
        # A timer must count as reached when time stands on it.
        self._clock_resolution = 2 * math.ulp(clock.now())

    def time(self) -> float:
        """Virtual seconds."""
        return self.clock.now()

    def go_on(self) -> float | None:
        """Run until only time moves it, or something has ended; gives when it next moves by itself, None for never."""
        self.stepping, self.told = True, False
        try:
            away_from_loops(self.run_forever)
        finally:
            self.stepping = False
        scheduled = getattr(self, "_scheduled", None)
        return scheduled[0].when() if scheduled else None

    def has_ended(self, _: object) -> None:
        """Something has ended that is waited for outside."""
        self.told = True

    def wait_for_timer(self, timeout: float) -> None:
        """Let time pass until the next timer, or up to a callback of the clock."""
        scheduled = getattr(self, "_scheduled", None)
        if scheduled and isinstance(self.clock, VirtualClock):
            self.clock.pass_until(scheduled[0].when())
        else:
            self.clock.sleep(timeout)

    def run_in_executor(  # type: ignore[override]  # the parent's parameters, by simpler types
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> Any:
        """As usual; time is real meanwhile."""
        future = super().run_in_executor(executor, func, *args)
        self.busy += 1
        future.add_done_callback(self._less_busy)
        return future

    def _less_busy(self, _: object) -> None:
        self.busy -= 1
