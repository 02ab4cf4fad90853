"""The engine: many executions at once in one process, on one event loop.

Rule 1: everything here runs on the loop, apart from the store (writer and readers) and sync steps (executor).
Rule 2: one turn of an execution is in flight at a time; while it is, what happens gathers for the next one.
Rule 3: a live execution never replays its history; at most `max_live` are kept, the least recently used idle one goes.
Rule 4: `start` and messages return when they are durable; nothing is told to anybody before that.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import heapq
import logging
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Generic, TypeVar, overload

import attrs

from zart_core import log as stored
from zart_core.codec import Codec
from zart_core.commands import checked_name, instant
from zart_core.context import SCENE, Context, Scene
from zart_core.errors import (
    Defect,
    ExecutionClosed,
    InvalidUse,
    StoreFailed,
    StoreUnavailable,
    UnknownExecution,
    UnknownWorkflow,
    Weather,
)
from zart_core.events import Closed, Event, Ok, Status
from zart_core.hosts.explain import explain
from zart_core.hosts.inline import closed_event, conflict, conflicts_of, emit, encoded_input, result_of
from zart_core.hosts.ports import Clock, StepCall, SystemClock, new_id, open_log
from zart_core.hosts.threads import DaemonExecutor
from zart_core.hosts.turns import Run, new_execution
from zart_core.hosts.writer import Writer
from zart_core.interpreter import CODEC
from zart_core.policies import Duration, seconds
from zart_core.steps import StepFunction
from zart_core.workflows import Registry, Workflow, WorkflowSource

I = TypeVar("I")  # noqa: E741  # the input
R = TypeVar("R")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

LEASE_S = 30.0
SAFETY_S = 2.0
"""How often the log is asked for work although nobody said that there is any."""
CLAIM_GAP_S = 0.05
"""The shortest time between two such questions when other processes write."""
CLAIMS_MAX = 500
TIMER_MAX_S = 5.0
"""The longest sleep of the engine's timer, so that a clock that jumps is noticed."""
RETRY_MAX_S = 5.0
TRIES_MAX = 8
CLOSE_GRACE_S = 0.5
LOGGER = logging.getLogger("zart.engine")


class Live:
    """An execution that the engine holds in memory."""

    __slots__ = ("calls", "dirty", "hungry", "run", "tries", "wake", "writing")

    def __init__(self, run: Run) -> None:
        self.run = run
        self.calls: dict[int, Attempt] = {}
        """What runs for it, by seq."""
        self.writing = False
        """Whether a turn of it is in flight."""
        self.dirty = False
        """Whether it is in line for its next turn."""
        self.hungry = False
        """Whether it is in line for a slot."""
        self.tries = 0
        """Appends that failed in a row."""
        self.wake: float | None = None
        """When its timer is set for."""


class Attempt:
    """A running attempt of a step."""

    __slots__ = ("call", "future", "task", "timer", "told")

    def __init__(self, call: StepCall) -> None:
        self.call = call
        self.task: asyncio.Task[None] | None = None
        """The task of an async step."""
        self.future: concurrent.futures.Future[Any] | None = None
        """The executor's future of a sync step."""
        self.timer: asyncio.TimerHandle | None = None
        self.told = False
        """Whether it was told to end."""


class AsyncEngine:
    """Runs workflows on the event loop it was opened on. Get one from `zart.serve`."""

    def __init__(
        self,
        log: stored.EventLog,
        registry: Registry,
        *,
        owns_log: bool,
        resources: Mapping[str, Any] | None = None,
        executor: concurrent.futures.Executor | None = None,
        clock: Clock | None = None,
        codec: Codec | None = None,
        build: str = "",
        max_live: int = 10_000,
        max_concurrent_steps: int = 64,
    ) -> None:
        if max_live < 1 or max_concurrent_steps < 1:
            raise InvalidUse("max_live and max_concurrent_steps must be 1 or more")
        self.log = log
        self.owns_log = owns_log
        self.registry = registry
        self.resources = dict(resources or {})
        self.executor = executor or DaemonExecutor("zart-step")
        self.owns_executor = executor is None
        self.readers = DaemonExecutor("zart-reader")
        self.clock = clock or SystemClock()
        self.codec = codec or CODEC
        self.build = build
        self.max_live = max_live
        self.slots = max_concurrent_steps
        self.worker = new_id(self.clock.now())
        self.loop = asyncio.get_running_loop()
        self.writer = Writer(log, self.loop)
        self.live: OrderedDict[str, Live] = OrderedDict()
        self.dirty: deque[Live] = deque()
        self.hungry: deque[Live] = deque()
        self.timers: list[tuple[float, str]] = []
        self.timer: asyncio.TimerHandle | None = None
        self.waiters: dict[str, list[asyncio.Future[Closed]]] = {}
        self.quarantine: deque[tuple[Live, int]] = deque()
        """Suspects of a crash, to be started one at a time (R5)."""
        self.on_trial: tuple[str, int] | None = None
        self.alone = False
        """Whether the suspect on trial has been on trial before: then nothing else begins (R5)."""
        self.tried: set[str] = set()
        """Parked executions that the code at hand does not fit."""
        self.claiming: asyncio.Event = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []
        self.closing = False
        self.pumping = False

    # ------------------------------------------------------------ opening and closing

    async def begin(self) -> None:
        """Take up whatever was unfinished, and look for work from now on."""
        self.clock.watch(lambda: self.loop.call_soon_threadsafe(self.time_moved))
        await self.off_loop(self.park_unknown)
        await self.claim()
        await self.retry_parked()
        self.tasks = [self.loop.create_task(self.look_for_work()), self.loop.create_task(self.listen())]

    async def close(self) -> None:
        """Stop, losing nothing: what runs is told to end and given back; what is durable stays so. Twice is once."""
        if self.closing:
            return
        self.closing = True
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.end_attempts()
        if self.writer.failed is None:
            await self.hand_over()
        self.writer.stop()
        self.readers.shutdown()
        if self.owns_executor:
            self.executor.shutdown()
        for live in self.live.values():
            live.run.drop()
        self.live.clear()
        if self.timer is not None:
            self.timer.cancel()
        self.fail_waiters(StoreUnavailable("the engine was closed"))
        if self.owns_log:
            self.log.close()

    async def end_attempts(self) -> None:
        """Give running attempts a moment to end: async ones are cancelled, outcomes that come in still count."""
        attempts = [attempt for live in self.live.values() for attempt in live.calls.values()]
        for attempt in attempts:
            attempt.told = True
            if attempt.task is not None:
                attempt.task.cancel()
        ends = [attempt.task or asyncio.wrap_future(attempt.future, loop=self.loop) for attempt in attempts]  # type: ignore[arg-type]  # one of them is set
        if ends:
            await asyncio.wait(ends, timeout=CLOSE_GRACE_S)
            await asyncio.sleep(0)

    async def hand_over(self) -> None:
        """Write what is left to write, and give every claim back, so that no crash is held against a step."""
        while any(live.writing for live in self.live.values()):
            await asyncio.sleep(0.001)
        writes: list[stored.Write] = []
        for live in self.live.values():
            run = live.run
            run.build(self.clock.now())
            if live.calls:
                run.hand_over(self.clock.now())
            writes += run.compose(self.clock.now(), build=self.build)
        with contextlib.suppress(Weather):
            if writes:
                await self.writer.write(writes)
            await self.off_loop(lambda: self.log.release(self.worker))

    def fail_waiters(self, error: BaseException) -> None:
        """Tell everybody who waits for a result that there will be none here."""
        for futures in self.waiters.values():
            for future in futures:
                if not future.done():
                    future.set_exception(error)
        self.waiters.clear()

    async def off_loop(self, call: Callable[[], T]) -> T:
        """Call the store where it may block."""
        if not self.log.blocking:
            return call()
        return await asyncio.wrap_future(self.readers.submit(call), loop=self.loop)

    # ------------------------------------------------------------ finding work

    async def look_for_work(self) -> None:
        """Claim when somebody says that there is work, and from time to time; renew the lease."""
        renewed = self.loop.time()
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.claiming.wait(), SAFETY_S)
            self.claiming.clear()
            try:
                await self.claim()
                if self.loop.time() - renewed > LEASE_S / 3:
                    renewed = self.loop.time()
                    await self.retry_parked()
                    if not await self.off_loop(lambda: self.log.renew(self.worker, lease_s=LEASE_S)):
                        LOGGER.warning("the lease had run out; what others took is dropped at its next turn")
            except StoreFailed as failed:
                self.fail(failed)
                return
            except Weather as weather:
                LOGGER.warning("the log cannot be asked for work: %s", weather)

    async def listen(self) -> None:
        """Look for work when another process writes to the log."""
        while self.log.blocking:
            heard = await asyncio.wrap_future(self.readers.submit(self.log.wait, SAFETY_S), loop=self.loop)
            if heard and await self.off_loop(self.is_due):
                self.claiming.set()
            await asyncio.sleep(CLAIM_GAP_S)

    def is_due(self) -> bool:
        """Whether something is due by the log's own account; a read."""
        wake = self.log.next_wake()
        return wake is not None and wake <= self.clock.now()

    async def claim(self) -> None:
        """Take what is due, until nothing more is."""
        while not self.closing:
            names = [workflow.name for workflow in self.registry]
            now = self.clock.now()
            given = await self.off_loop(
                lambda: self.log.claim(
                    self.worker, now=now, lease_s=LEASE_S, limit=CLAIMS_MAX, workflows=names
                )
            )
            taken = [live for summary in given if (live := await self.take_up(summary)) is not None]
            self.try_suspects(taken)
            if len(given) < CLAIMS_MAX:
                return

    async def take_up(self, summary: stored.Summary) -> Live | None:
        """Hold an execution that was claimed: the live one with its new messages, or one that is replayed."""
        live = self.live.get(summary.id)
        if live is not None and live.run.fence == summary.fence:
            run = live.run
            run.receive(await self.off_loop(lambda: self.log.inbox(run.id, run.seen)))
        else:
            live = Live(Run(summary, self.codec))
            self.hold(live)
            await self.revive(live)
        self.kick(live)
        return live

    def hold(self, live: Live) -> None:
        """Keep it in memory, and let the least recently used idle one go if there are too many."""
        self.live[live.run.id] = live
        self.live.move_to_end(live.run.id)
        if len(self.live) > self.max_live:
            for other in list(self.live.values())[: len(self.live) - self.max_live + 8]:
                if other is not live and self.is_idle(other):
                    self.evict(other)
                    break

    def is_idle(self, live: Live) -> bool:
        """Whether nothing goes on with it in this process."""
        return live.run.idle and not (live.writing or live.dirty or live.calls)

    def evict(self, live: Live) -> None:
        """Give a suspended execution back; the log finds it when it is due."""
        mark = live.run.mark(self.build, releases=True)
        if live.run.wake is not None:
            self.set_timer(live.run.wake, "")
        self.live.pop(live.run.id, None)
        live.run.drop()
        self.writer.submit([mark], lambda outcomes: None)

    async def revive(self, live: Live) -> None:
        """Read an execution back and replay it; children that its commands ask for are made sure of."""
        run = live.run
        records, messages = await self.off_loop(
            lambda: (self.log.records(run.id, run.run), self.log.inbox(run.id))
        )
        run.inbox.clear()
        run.seen = 0
        run.receive(messages)
        run.revive(records, self.registry)
        children = run.children()
        if children:
            outcomes = await self.writer.write(list(children.values()))
            for seq, outcome in zip(children, outcomes, strict=True):
                run.created(seq, isinstance(outcome, Ok), self.clock.now())

    def park_unknown(self) -> None:
        """Mark what is unfinished and whose workflow nobody here has registered (R20). Costs O(unfinished)."""
        for status in (Status.SCHEDULED, Status.RUNNING, Status.WAITING):
            for summary in pages(self.log, status):
                if summary.workflow in self.registry:
                    continue
                held = self.log.acquire(self.worker, summary.id, lease_s=LEASE_S)
                if held is not None:
                    reason = f"UnknownWorkflow: workflow '{summary.workflow}' is not registered"
                    self.log.append(
                        [
                            stored.Mark(
                                held.id,
                                Status.PARKED,
                                reason,
                                self.build,
                                held.wake,
                                0,
                                held.fence,
                                releases=True,
                            )
                        ]
                    )

    async def retry_parked(self) -> None:
        """Take up parked executions that the code at hand has not been tried on."""
        for summary in await self.off_loop(lambda: list(pages(self.log, Status.PARKED))):
            if summary.workflow not in self.registry or summary.id in self.tried or summary.id in self.live:
                continue
            held = await self.off_loop(
                lambda id=summary.id: self.log.acquire(self.worker, id, lease_s=LEASE_S)
            )  # type: ignore[misc]  # bound at once
            if held is not None:
                self.tried.add(summary.id)
                live = await self.take_up(held)
                self.try_suspects([live] if live is not None else [])

    async def register(self, *sources: WorkflowSource | Iterable[WorkflowSource]) -> None:
        """Register workflows, in place of those of the same name, and try parked executions again."""
        for workflow in Registry(*sources):
            self.registry.by_name[workflow.name] = workflow
        self.tried.clear()
        for live in [live for live in self.live.values() if live.run.defect is not None and not live.writing]:
            await self.revive(live)
            self.kick(live)
        await self.claim()
        await self.retry_parked()

    # ------------------------------------------------------------ suspects of a crash (R5)

    def try_suspects(self, taken: list[Live]) -> None:
        """Put what was running when its worker died on trial, one at a time.

        A single one starts at once, and the crash is held against it. Of several, those come first that had been on
        trial before; while such a one runs, nothing else begins, so that its guilt shows the next time.
        """
        suspects = [(live, seq) for live in taken for seq in live.run.suspects]
        if len(suspects) == 1 and not self.quarantine and self.on_trial is None:
            live, seq = suspects[0]
            live.run.try_suspect(seq, alone=True, now=self.clock.now())
            self.kick(live)
            return
        self.quarantine.extend(sorted(suspects, key=lambda item: not item[0].run.was_on_trial(item[1])))
        self.next_suspect()

    def next_suspect(self) -> None:
        """Start the next suspect, when no other is on trial."""
        while self.on_trial is None and self.quarantine:
            live, seq = self.quarantine.popleft()
            if self.live.get(live.run.id) is live and seq in live.run.suspects:
                again = live.run.was_on_trial(seq)
                if live.run.try_suspect(seq, alone=False, now=self.clock.now()):
                    self.on_trial = (live.run.id, seq)
                    self.alone = again
                self.kick(live)

    def acquit(self, live: Live, seq: int) -> None:
        """A suspect has come to its end without harm: the next one, and all others that had to wait."""
        if self.on_trial == (live.run.id, seq):
            self.on_trial = None
            self.next_suspect()
            if self.alone and self.on_trial is None:
                self.alone = False
                for other in self.hungry:
                    other.hungry = False
                    self.kick(other)
                self.hungry.clear()

    def slots_for(self, live: Live) -> int:
        """How many attempts it may begin now."""
        on_trial = self.on_trial
        return self.slots if not self.alone or on_trial is None or on_trial[0] == live.run.id else 0

    # ------------------------------------------------------------ turns

    def kick(self, live: Live) -> None:
        """Something has happened to it: it gets its next turn."""
        if not live.dirty and not self.closing:
            live.dirty = True
            self.dirty.append(live)
            if not self.pumping:
                self.pumping = True
                self.loop.call_soon(self.pump)

    def pump(self) -> None:
        """Build the next turn of everything in line."""
        self.pumping = False
        for _ in range(len(self.dirty)):
            live = self.dirty.popleft()
            live.dirty = False
            if not live.writing and self.live.get(live.run.id) is live and not self.closing:
                self.turn(live)

    def turn(self, live: Live) -> None:
        """Build a turn and hand it to the writer; carry on at once where there is nothing to write."""
        run, now = live.run, self.clock.now()
        run.build(now)
        self.slots -= run.begin(self.slots_for(live), now)
        if run.ready and not live.hungry:
            live.hungry = True
            self.hungry.append(live)
        parked = run.defect is not None and not live.calls
        writes = run.compose(now, build=self.build, releases=parked)
        if writes:
            live.writing = True
            self.writer.submit(writes, lambda outcomes: self.written(live, outcomes))
        else:
            self.carry_out(live)

    def written(self, live: Live, outcomes: list[stored.Appended]) -> None:
        """The turn's outcome: carry out what it asks for, or read back and build another."""
        live.writing = False
        first = outcomes[0]
        if all(isinstance(outcome, Ok) for outcome in outcomes):
            live.tries = 0
            self.carry_out(live, conflicts_of(outcomes))
        elif self.writer.failed is not None:
            self.fail(self.writer.failed)
        elif isinstance(first, stored.Rejected) and first.reason.startswith(("stale", "closed", "unknown")):
            self.lose(live)
        else:
            self.loop.create_task(self.read_back(live, first))

    def lose(self, live: Live) -> None:
        """Somebody else has it now: forget it, and what runs for it."""
        LOGGER.info("execution '%s' is in other hands now", live.run.id)
        for seq in list(live.calls):
            self.abandon(live, seq)
        self.slots += live.run.begun
        self.live.pop(live.run.id, None)
        live.run.drop()
        self.claiming.set()

    async def read_back(self, live: Live, outcome: stored.Appended) -> None:
        """An append was not Ok and may be in the log or not: drop, wait a little, read back, build again (L3)."""
        live.writing = True
        self.slots += live.run.begun
        live.run.drop()
        live.tries += 1
        LOGGER.warning("execution '%s' could not be written (try %d): %s", live.run.id, live.tries, outcome)
        await asyncio.sleep(min(RETRY_MAX_S, 0.02 * 2**live.tries))
        try:
            summary = await self.off_loop(lambda: self.log.summary(live.run.id))
            if summary is None or summary.fence != live.run.fence:
                return self.lose(live)
            live.run.run = summary.run
            await self.revive(live)
        except StoreFailed as failed:
            return self.fail(failed)
        except Weather as weather:
            LOGGER.warning("execution '%s' could not be read back: %s", live.run.id, weather)
        live.writing = False
        self.kick(live)
        return None

    def carry_out(self, live: Live, conflicts: Iterable[str] = ()) -> None:
        """The turn is durable: do what it asks for (DESIGN 2: nothing leaves the process before)."""
        run = live.run
        posted = run.posted
        effects = run.committed(self.clock.now(), tuple(conflicts))
        for line in effects.lines:
            emit(line)
        for seq in effects.dropped:
            self.abandon(live, seq)
        for seq in effects.stops:
            self.tell_to_end(live, seq)
        for call in effects.calls:
            self.call(live, call)
        if effects.created or posted:
            self.claiming.set()
        if run.closed is not None:
            return self.ended(live)
        if run.defect is not None:
            return self.parked(live)
        if run.outcomes or (run.ready and self.slots > 0 and not live.hungry):
            self.kick(live)
        self.set_alarm(live)
        return None

    def ended(self, live: Live) -> None:
        """The run is over: tell who waits, or take up the next run."""
        run = live.run
        assert run.closed is not None
        for seq in list(live.calls):
            self.abandon(live, seq)
        closed, opened = run.closed, run.opened
        run.drop()
        if opened is not None:
            self.next_run(live, opened)
            return
        self.live.pop(run.id, None)
        for future in self.waiters.pop(run.id, ()):
            if not future.done():
                future.set_result(closed)

    def next_run(self, live: Live, opened: list[stored.Record]) -> None:
        """Go on with the run that continue_as_new opened."""
        old = live.run
        run = live.run = Run(old.summary_of_next(len(opened)), self.codec)
        run.inbox, run.seen = old.inbox, old.seen
        run.revive(opened, self.registry)
        self.kick(live)

    def parked(self, live: Live) -> None:
        """Code and log disagree: say so to who waits, and let go once nothing runs for it (R20)."""
        run = live.run
        assert run.defect is not None
        if run.id not in self.tried:
            LOGGER.error("execution '%s' is parked: %s", run.id, run.defect)
        self.tried.add(run.id)
        for future in self.waiters.pop(run.id, ()):
            if not future.done():
                future.set_exception(run.defect)
        if not live.calls:
            self.live.pop(run.id, None)
            if run.wake is not None:
                self.set_timer(run.wake, "")
        elif run.outcomes:
            self.kick(live)

    def fail(self, failed: StoreFailed) -> None:
        """The store can no longer be used: nothing goes on in this engine (F5)."""
        LOGGER.error("the store has failed: %s", failed)
        self.writer.failed = failed
        self.fail_waiters(failed)

    # ------------------------------------------------------------ timers

    def set_alarm(self, live: Live) -> None:
        """Have it kicked when it is next due by time."""
        wake = live.run.wake
        if wake is not None and wake != live.wake:
            live.wake = wake
            self.set_timer(wake, live.run.id)

    def set_timer(self, when: float, id: str) -> None:
        """Put an instant into the engine's heap; an empty id asks the log for work then."""
        heapq.heappush(self.timers, (when, id))
        if self.timers[0] == (when, id):
            self.arm()

    def arm(self) -> None:
        """Set the one timer of the loop to the earliest instant."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.timers and not self.closing:
            delay = min(TIMER_MAX_S, max(0.0, self.timers[0][0] - self.clock.now()))
            self.timer = self.loop.call_later(delay, self.time_moved)

    def time_moved(self) -> None:
        """Kick everything whose time has come: never early, whatever the clock did."""
        now = self.clock.now()
        while self.timers and self.timers[0][0] <= now:
            _, id = heapq.heappop(self.timers)
            live = self.live.get(id)
            if live is not None:
                live.wake = None
                self.kick(live)
            elif not id:
                self.claiming.set()
        self.arm()

    # ------------------------------------------------------------ attempts

    def call(self, live: Live, call: StepCall) -> None:
        """Run one attempt."""
        attempt = live.calls[call.seq] = Attempt(call)
        if call.function.is_async:
            attempt.task = self.loop.create_task(self.run_async(live, attempt))
        else:
            self.run_sync(live, attempt)

    async def run_async(self, live: Live, attempt: Attempt) -> None:
        """An attempt of an async step, on the loop."""
        call = attempt.call
        SCENE.set(Scene(lambda: call.context, self.resources))
        try:
            async with asyncio.timeout(self.left(call)) as limit:
                value = await call.function.call(call.values)
        except asyncio.CancelledError:
            if not self.closing:
                self.finished(live, attempt, lambda now: live.run.cancelled(call, now))
        except TimeoutError as error:
            if limit.expired():
                self.finished(live, attempt, lambda now: live.run.timed_out(call, now))
            else:
                self.raised(live, attempt, error)
        except BaseException as error:  # noqa: BLE001  # the attempt's outcome, whatever it is
            self.raised(live, attempt, error)
        else:
            self.finished(live, attempt, lambda now: live.run.returned(call, value, now))

    def run_sync(self, live: Live, attempt: Attempt) -> None:
        """An attempt of a sync step, in the executor; one that takes too long is abandoned (R11)."""
        call = attempt.call
        here = isinstance(self.executor, DaemonExecutor | concurrent.futures.ThreadPoolExecutor)
        attempt.future = self.executor.submit(
            call_with_context, call.function, call.values, call.context, self.resources if here else {}
        )
        attempt.future.add_done_callback(lambda future: self.back_on_loop(live, attempt, future))
        left = self.left(call)
        if left is not None:
            attempt.timer = self.loop.call_later(left, self.overdue, live, attempt)

    def back_on_loop(self, live: Live, attempt: Attempt, future: concurrent.futures.Future[Any]) -> None:
        """A sync attempt has ended, in its thread; after the loop's end nobody wants to know."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self.returned, live, attempt, future)

    def returned(self, live: Live, attempt: Attempt, future: concurrent.futures.Future[Any]) -> None:
        """A sync attempt has ended."""
        if attempt.timer is not None:
            attempt.timer.cancel()
        if future.cancelled():
            return
        error = future.exception()
        if error is not None:
            self.raised(live, attempt, error)
        else:
            self.finished(live, attempt, lambda now: live.run.returned(attempt.call, future.result(), now))

    def overdue(self, live: Live, attempt: Attempt) -> None:
        """A sync attempt's own countdown is over."""
        self.finished(live, attempt, lambda now: live.run.timed_out(attempt.call, now))

    def left(self, call: StepCall) -> float | None:
        """Seconds until the attempt's own countdown is over; the step's and the run's deadlines are the turn's business."""
        limit = call.attempt_until
        return None if limit is None else max(0.0, limit - self.clock.now())

    def raised(self, live: Live, attempt: Attempt, error: BaseException) -> None:
        """The attempt raised an error."""
        if not isinstance(error, Exception):
            error = RuntimeError(f"the step raised {type(error).__name__}")
        self.finished(live, attempt, lambda now: live.run.raised(attempt.call, error, now))

    def finished(self, live: Live, attempt: Attempt, report: Callable[[float], None]) -> None:
        """An attempt has ended: report it, unless nobody wants to know any more."""
        seq = attempt.call.seq
        if live.calls.get(seq) is not attempt:
            return
        del live.calls[seq]
        self.free_slot()
        report(self.clock.now())
        self.acquit(live, seq)
        self.kick(live)

    def free_slot(self) -> None:
        """A slot is free: the next in line gets it."""
        self.slots += 1
        while self.hungry:
            live = self.hungry.popleft()
            live.hungry = False
            if self.live.get(live.run.id) is live and live.run.ready:
                self.kick(live)
                return

    def tell_to_end(self, live: Live, seq: int) -> None:
        """A running attempt is to end; its outcome still counts (R18)."""
        attempt = live.calls.get(seq)
        if attempt is not None and not attempt.told:
            attempt.told = True
            if attempt.task is not None:
                attempt.task.cancel()

    def abandon(self, live: Live, seq: int) -> None:
        """Nobody wants its outcome any more: an async attempt is cancelled, a sync one left alone (R11)."""
        attempt = live.calls.pop(seq, None)
        live.run.running.discard(seq)
        if attempt is not None:
            if attempt.task is not None:
                attempt.task.cancel()
            if attempt.future is not None:
                attempt.future.cancel()
            if attempt.timer is not None:
                attempt.timer.cancel()
            self.free_slot()
            self.acquit(live, seq)

    # ------------------------------------------------------------ what users call

    @overload
    async def start(
        self,
        workflow: Workflow[None, R],
        input: None = None,
        *,
        id: str | None = None,
        at: datetime | None = None,
    ) -> AsyncHandle[R]: ...
    @overload
    async def start(
        self, workflow: Workflow[I, R], input: I, *, id: str | None = None, at: datetime | None = None
    ) -> AsyncHandle[R]: ...
    async def start(
        self, workflow: Any, input: Any = None, *, id: str | None = None, at: datetime | None = None
    ) -> Any:
        """Start an execution, or attach to the same one; durable when this returns (R15). See `Engine.start`."""
        return await self.start_with(workflow, input, id=id, at=at)

    async def start_with(
        self,
        workflow: Workflow[Any, Any],
        input: Any,
        *,
        id: str | None = None,
        at: datetime | None = None,
        timeout: Duration | None = None,
    ) -> AsyncHandle[Any]:
        """As `start`, also with a timeout of the run instead of the workflow's own."""
        self.check_usable()
        if not isinstance(workflow, Workflow):
            raise InvalidUse(f"{workflow!r} is no workflow; decorate the function with @zart.workflow")
        if self.registry[workflow.name] is not workflow:
            raise UnknownWorkflow(
                f"another workflow is registered under the name '{workflow.name}'; register this one"
            )
        name = new_id(self.clock.now()) if id is None else checked_name(id, "id")
        payload, _ = encoded_input(self.codec, workflow, input)
        now = self.clock.now()
        new = new_execution(
            self.codec,
            workflow,
            name,
            payload,
            now,
            timeout_s=None if timeout is None else seconds(timeout, "timeout"),
            wake=None if at is None else instant(at, "at="),
        )
        created = await self.create(new, workflow)
        return AsyncHandle(self, name, workflow, created)

    async def create(self, new: stored.New, workflow: Workflow[Any, Any]) -> bool:
        """Create an execution together with its first turn, when it starts now. Raises ExecutionConflict."""
        live = None
        if new.wake is None or new.wake <= self.clock.now():
            live = self.first_turn(new)
            if live.run.closed is not None or live.run.defect is not None:
                self.forget(live)
                live = None
        asked = new if live is None else live.run.compose_new(new, self.worker)
        for _ in range(TRIES_MAX):
            (outcome,) = await self.writer.write([asked])
            match outcome:
                case Ok(receipt):
                    self.created(live, receipt)
                    return receipt.created
                case stored.Rejected(reason) if reason.startswith("conflict"):
                    self.forget(live)
                    raise conflict(new.id)
                case stored.Rejected(reason) if reason.startswith("too-large"):
                    self.forget(live)
                    raise InvalidUse(f"execution '{new.id}' cannot be created: {reason}")
                case _:
                    # the same id and digest again is safe: it is created once (L9); the fence tells whether by us
                    self.forget(live)
                    live, asked = None, new
                    await asyncio.sleep(0.05)
        raise StoreUnavailable(f"execution '{new.id}' could not be created: {outcome.reason}")

    def first_turn(self, new: stored.New) -> Live:
        """The execution as it will be, with its first turn built ahead of its creation."""
        run = Run(
            stored.Summary(
                new.id, new.workflow, new.digest, new.status, 0, 0, 1, new.at, new.at, new.wake, self.worker
            ),
            self.codec,
        )
        run.revive(new.records, self.registry)
        now = self.clock.now()
        run.build(now)
        self.slots -= run.begin(self.slots, now)
        return Live(run)

    def created(self, live: Live | None, receipt: stored.Receipt) -> None:
        """The execution is there: hold it if it is ours, or look for it."""
        if live is None or not receipt.created:
            self.forget(live)
            self.claiming.set()
            return
        live.run.fence = receipt.fence
        self.hold(live)
        if live.run.ready:
            live.hungry = True
            self.hungry.append(live)
        self.carry_out(live, receipt.conflicts)

    def forget(self, live: Live | None) -> None:
        """The execution that was built ahead is not ours."""
        if live is not None:
            self.slots += live.run.begun
            live.run.drop()

    async def run(
        self,
        workflow: Workflow[Any, R],
        input: Any = None,
        *,
        id: str | None = None,
        timeout: Duration | None = None,
    ) -> R:
        """Start or attach, wait, and give the result. See `Engine.run`."""
        handle = await self.start_with(workflow, input, id=id, timeout=timeout)
        result: R = await handle.result()
        return result

    async def get(self, id: str) -> AsyncHandle[Any]:
        """A handle on an existing execution. Raises UnknownExecution."""
        summary = await self.summary(id)
        workflow = self.registry[summary.workflow] if summary.workflow in self.registry else None
        return AsyncHandle(self, id, workflow, created=False)

    async def send(self, id: str, name: str, payload: Any, *, key: str | None = None) -> None:
        """Deliver an event; durable when this returns. See `Engine.send`."""
        data = self.codec.encode_message(payload, f"the payload of event '{name}'")
        await self.post(stored.Post(id, "event", checked_name(name, "event"), data, self.clock.now(), key))

    async def cancel(self, id: str, reason: str = "") -> bool:
        """Ask an execution to cancel; False when it has ended. See `Engine.cancel`."""
        return await self.request(id, "cancel", reason)

    async def terminate(self, id: str, reason: str = "") -> bool:
        """End an execution at once, without its code; False when it has ended. See `Engine.terminate`."""
        return await self.request(id, "terminate", reason)

    async def request(self, id: str, kind: stored.MessageKind, reason: str) -> bool:
        """Post a request that counts once."""
        post = stored.Post(id, kind, "", reason.encode(errors="replace"), self.clock.now(), f"{kind}!")
        try:
            await self.post(post)
        except ExecutionClosed:
            return False
        return True

    async def post(self, post: stored.Post) -> None:
        """Post a message and wake who gets it. Raises UnknownExecution, ExecutionClosed, StoreUnavailable."""
        self.check_usable()
        for _ in range(TRIES_MAX):
            (outcome,) = await self.writer.write([post])
            match outcome:
                case Ok(receipt):
                    if receipt.created:
                        self.posted(post, receipt.number)
                    return
                case stored.Rejected(reason) if reason.startswith("unknown"):
                    raise UnknownExecution(post.id, f"no execution has the id '{post.id}'")
                case stored.Rejected(reason) if reason.startswith("closed"):
                    raise ExecutionClosed(
                        post.id, f"execution '{post.id}' has ended and takes no messages any more"
                    )
                case stored.Rejected(reason) if reason.startswith("too-large"):
                    raise InvalidUse(f"the message to '{post.id}' was not accepted: {reason}")
                case stored.Unknown(reason) if post.key is None:
                    raise StoreUnavailable(
                        f"it is not known whether the message to '{post.id}' was accepted ({reason}); "
                        "give it a key= and send it again: the same key counts once"
                    )
                case _:
                    await asyncio.sleep(0.05)
        raise StoreUnavailable(f"the message to '{post.id}' was not accepted: {outcome.reason}")

    def posted(self, post: stored.Post, number: int) -> None:
        """A message is durable: give it to the execution if it is here, or look for it."""
        live = self.live.get(post.id)
        if live is None or number != live.run.seen + 1:
            self.claiming.set()
            return
        live.run.receive([stored.Message(number, post.kind, post.name, post.payload, post.at, post.key)])
        self.live.move_to_end(post.id)
        self.kick(live)

    async def list(
        self,
        *,
        status: Status | str | None = None,
        workflow: str | None = None,
        id_prefix: str | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> stored.Page[stored.Summary]:
        """A page of executions in the order of their ids."""
        wanted = None if status is None else status_of(status)
        return await self.off_loop(
            lambda: self.log.list(
                status=wanted, workflow=workflow, id_prefix=id_prefix, limit=limit, after=after
            )
        )

    async def stats(self) -> Mapping[Status, int]:
        """How many executions stand where; every status is there."""
        counted = await self.off_loop(self.log.stats)
        return {status: counted.get(status, 0) for status in Status}

    async def summary(self, id: str) -> stored.Summary:
        """An execution as a list shows it. Raises UnknownExecution."""
        summary = await self.off_loop(lambda: self.log.summary(id))
        if summary is None:
            raise UnknownExecution(id, f"no execution has the id '{id}'")
        return summary

    async def history(self, id: str, run: int | None = None) -> list[Event]:
        """The events of a run, the current one by default. Raises UnknownExecution."""
        summary = await self.summary(id)
        number = summary.run if run is None else run
        records = await self.off_loop(lambda: self.log.records(id, number))
        return list(self.codec.decode_events(records, id, number))

    async def explain(self, id: str) -> str:
        """In words: what it waits for, at which line, since when, and who can end the wait."""
        return explain(await self.summary(id), await self.history(id))

    async def closed(self, id: str) -> Closed:
        """How the execution ended, once it has. Raises the defect when it is parked."""
        while True:
            live = self.live.get(id)
            if live is not None and live.run.defect is not None:
                raise live.run.defect
            future: asyncio.Future[Closed] = self.loop.create_future()
            self.waiters.setdefault(id, []).append(future)
            try:
                if live is None:
                    closed = await self.off_loop(lambda: closed_event(self.log, self.codec, id))
                    if closed is not None:
                        return closed
                    await self.check_parked(id)
                return await asyncio.wait_for(asyncio.shield(future), 30.0 if live is not None else 0.25)
            except TimeoutError:
                continue
            finally:
                self.unwait(id, future)

    def unwait(self, id: str, future: asyncio.Future[Closed]) -> None:
        """Nobody waits on this future any more."""
        futures = self.waiters.get(id)
        if futures is not None and future in futures:
            futures.remove(future)
            if not futures:
                del self.waiters[id]
        if not future.done():
            future.cancel()

    async def check_parked(self, id: str) -> None:
        """Raise why an execution that this engine has tried is parked."""
        summary = await self.summary(id)
        if summary.status is Status.PARKED and id in self.tried and id not in self.live:
            raise Defect(f"execution '{id}' is parked: {summary.reason}")

    def check_usable(self) -> None:
        """Raise when the engine was closed, or its store has failed."""
        if self.closing:
            raise InvalidUse("the engine was closed; use it inside its `with` block")
        if self.writer.failed is not None:
            raise self.writer.failed


class AsyncHandle(Generic[T_co]):
    """An execution, from outside. `created` is False when it was there before."""

    def __init__(
        self, engine: AsyncEngine, id: str, workflow: Workflow[Any, T_co] | None, created: bool
    ) -> None:
        self.engine = engine
        self.id = id
        self.workflow = workflow
        self.created = created

    async def status(self) -> Status:
        """Where it stands."""
        return (await self.engine.summary(self.id)).status

    async def result(self, timeout: Duration | None = None) -> T_co:
        """Its result, once it has ended. See `Handle.result`."""
        limit = None if timeout is None else seconds(timeout, "timeout")
        try:
            closed = await asyncio.wait_for(self.engine.closed(self.id), limit)
        except asyncio.TimeoutError:
            raise TimeoutError(f"execution '{self.id}' has not ended within {timeout}; it goes on") from None
        value: T_co = result_of(self.engine.codec, self.workflow, self.id, closed)
        return value

    async def send(self, name: str, payload: Any, key: str | None = None) -> None:
        """Deliver an event to it; durable when this returns."""
        await self.engine.send(self.id, name, payload, key=key)

    async def cancel(self, reason: str = "") -> bool:
        """Ask it to cancel; False when it has ended."""
        return await self.engine.cancel(self.id, reason)

    async def terminate(self, reason: str = "") -> bool:
        """End it at once, without its code; False when it has ended."""
        return await self.engine.terminate(self.id, reason)

    async def history(self, run: int | None = None) -> list[Event]:
        """The events of a run, the current one by default."""
        return await self.engine.history(self.id, run)

    async def explain(self) -> str:
        """In words: what it waits for, at which line, since when, and who can end the wait."""
        return await self.engine.explain(self.id)

    def __repr__(self) -> str:
        return f"<execution '{self.id}'>"


def call_with_context(
    function: StepFunction[..., Any], values: list[Any], context: Context, resources: Mapping[str, Any]
) -> Any:
    """Call a sync step with its context around it; everything here can be pickled for an executor that does so."""
    token = SCENE.set(Scene(lambda: context, resources))
    try:
        return function.call(values)
    finally:
        SCENE.reset(token)


def pages(log: stored.EventLog, status: Status) -> Iterable[stored.Summary]:
    """Every execution of a status, a page at a time."""
    after = None
    while True:
        page = log.list(status=status, limit=500, after=after)
        yield from page.items
        after = page.next
        if after is None:
            return


def status_of(status: Status | str) -> Status:
    """The status of a name; raises InvalidUse."""
    try:
        return Status(status)
    except ValueError:
        raise InvalidUse(f"{status!r} is no status; there are: {', '.join(Status)}") from None


@contextlib.asynccontextmanager
async def serve(
    url: str | stored.EventLog,
    workflows: WorkflowSource | Iterable[WorkflowSource],
    *,
    durability: str = "power",
    resources: Mapping[str, Any] | None = None,
    executor: concurrent.futures.Executor | None = None,
    clock: Clock | None = None,
    codec: Codec | None = None,
    build: str = "",
    max_live: int = 10_000,
    max_concurrent_steps: int = 64,
) -> AsyncIterator[AsyncEngine]:
    """An engine on the running event loop: `async with zart.serve("sqlite:orders.db", [order]) as engine`.

    Arguments and errors as `zart.open`.
    """
    registry = Registry(workflows)
    log = open_log(url, durability) if isinstance(url, str) else url
    engine = AsyncEngine(
        log,
        registry,
        owns_log=isinstance(url, str),
        resources=resources,
        executor=executor,
        clock=clock,
        codec=codec,
        build=build,
        max_live=max_live,
        max_concurrent_steps=max_concurrent_steps,
    )
    try:
        await engine.begin()
        yield engine
    finally:
        await engine.close()
