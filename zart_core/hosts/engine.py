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
import itertools
import logging
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping
from datetime import datetime
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar, overload

from zart_core import log as stored
from zart_core.codec import Codec
from zart_core.commands import checked_name, instant
from zart_core.context import SCENE, Context, Scene
from zart_core.errors import (
    Defect,
    ExecutionClosed,
    InvalidUse,
    LogCorrupt,
    StoreFailed,
    StoreUnavailable,
    UnknownExecution,
    UnknownWorkflow,
    Weather,
    ZartError,
)
from zart_core.events import Closed, Delivered, Event, Ok, Status
from zart_core.hosts.explain import explain
from zart_core.hosts.inline import closed_event, conflict, conflicts_of, emit, encoded_input, result_of
from zart_core.hosts.ports import Clock, StepCall, SystemClock, new_id, open_log
from zart_core.hosts.threads import DaemonExecutor
from zart_core.hosts.turns import OWN_KEY, Run, new_execution
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
DEATH_GAP_S = 0.4
"""The shortest time between two such questions when nothing is due: a worker may have died."""
CLAIMS_MAX = 500
FAIR_S = 0.5
"""How long an execution may wait in line for a slot while others go on from step to step."""
TIMER_MAX_S = 5.0
"""The longest sleep of the engine's timer, so that a clock that jumps is noticed."""
RETRY_MAX_S = 5.0
CREATE_GAP_S = 0.05
EVICTION_LOOKS = 16
"""How many executions that are busy may stand in front of one that is let go."""
TRIES_MAX = 8
CLOSE_GRACE_S = 0.4
"""How long running attempts get to end when the engine closes."""
CLOSE_WRITE_S = 5.0
"""How long the log gets to take what is left to write."""
LOGGER = logging.getLogger("zart.engine")

History: TypeAlias = list[Event]
"""Events in their order; in the engine `list` is a method."""


class Live:
    """An execution that the engine holds in memory."""

    __slots__ = (
        "again",
        "calls",
        "code",
        "dirty",
        "hungry",
        "hungry_since",
        "released",
        "run",
        "tries",
        "wake",
        "writing",
    )

    def __init__(self, run: Run) -> None:
        self.run = run
        self.calls: dict[int, Attempt] = {}
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
        owns_loop: bool = False,
        resources: Mapping[str, Any] | None = None,
        executor: concurrent.futures.Executor | None = None,
        clock: Clock | None = None,
        codec: Codec | None = None,
        build: str = "",
        max_live: int = 10_000,
        max_concurrent_steps: int = 64,
    ) -> None:
        self.log = log
        self.owns_log = owns_log
        self.owns_loop = owns_loop
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
        self.writer = Writer(log, self.loop, self.is_alone)
        self.live: OrderedDict[str, Live] = OrderedDict()
        self.dirty: deque[Live] = deque()
        self.hungry: deque[Live] = deque()
        self.attempts = 0
        """How many attempts run."""
        self.timers: list[tuple[float, str]] = []
        self.timer: asyncio.TimerHandle | None = None
        self.waiters: dict[str, list[asyncio.Future[Closed]]] = {}
        self.quarantine: deque[tuple[Live, int]] = deque()
        """Suspects of a crash, to be started one at a time (R5)."""
        self.on_trial: tuple[str, int] | None = None
        self.alone = False
        """Whether the suspect on trial has been on trial before: then nothing else begins (R5)."""
        self.tried: dict[str, Defect] = {}
        """Parked executions that the code at hand does not fit, and why."""
        self.code = 0
        """Generation of the registered code."""
        self.opening = True
        """Whether it is not known yet what was running when an earlier worker died: nothing begins."""
        self.background: set[asyncio.Task[Any]] = set()
        self.claimed_at = 0.0
        self.claiming: asyncio.Event = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []
        self.closing = False
        self.closed_down = asyncio.Event()
        self.pumping = False

    # ------------------------------------------------------------ opening and closing

    async def begin(self) -> None:
        """Take up whatever was unfinished, and look for work from now on."""
        self.clock.watch(self.watched)
        await self.off_loop(self.park_unknown)
        taken = await self.claim_due()
        taken += await self.retry_parked()
        self.opening = False
        self.try_suspects(taken)
        self.feed()
        self.tasks = [self.loop.create_task(self.look_for_work()), self.loop.create_task(self.listen())]

    def watched(self) -> None:
        """Time was moved by hand, in any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody needs to know
            self.loop.call_soon_threadsafe(self.time_moved)

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Do something beside everything else; what it raises is logged."""
        task = self.loop.create_task(work)
        self.background.add(task)
        task.add_done_callback(self.spawned)
        return task

    def spawned(self, task: asyncio.Task[Any]) -> None:
        """Something that went on beside everything else has ended."""
        self.background.discard(task)
        if (
            not task.cancelled()
            and (error := task.exception()) is not None
            and not isinstance(error, ZartError)
        ):
            LOGGER.error("something went wrong in the engine", exc_info=error)

    async def pause(self, duration_s: float) -> None:
        """Let time pass, less of it when the engine closes."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.closed_down.wait(), duration_s)

    async def close(self) -> None:
        """Stop, losing nothing: what runs is told to end and given back; what is durable stays so. Twice is once."""
        if self.closing:
            return
        self.closing = True
        self.closed_down.set()
        self.claiming.set()
        await self.end_attempts()
        if self.tasks:
            await asyncio.wait([*self.tasks, *self.background], timeout=CLOSE_GRACE_S)
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        if self.writer.failed is None:
            try:
                await asyncio.wait_for(self.hand_over(), CLOSE_WRITE_S)
            except (Weather, LogCorrupt, TimeoutError) as error:
                LOGGER.warning("what was left could not be written: %s", error or "the log takes too long")
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
        ends: list[asyncio.Future[Any]] = [attempt.task for attempt in attempts if attempt.task is not None]
        futures = [attempt.future for attempt in attempts if attempt.future is not None]
        ends += [asyncio.wrap_future(future, loop=self.loop) for future in futures]
        if ends:
            await asyncio.wait(ends, timeout=CLOSE_GRACE_S)
            await asyncio.sleep(0)

    async def hand_over(self) -> None:
        """Write what is left to write, and give every claim back, so that no crash is held against a step."""
        while self.background or any(live.writing for live in self.live.values()):
            await asyncio.sleep(0.001)
        parts: list[tuple[Live, list[stored.Write]]] = []
        for live in self.live.values():
            run, now = live.run, self.clock.now()
            if run.execution is None and run.defect is None:
                continue
            run.build(now)
            if run.running:
                run.hand_over(now)
            parts.append((live, run.compose(now, build=self.build)))
        writes = [write for _, part in parts for write in part]
        outcomes = await self.writer.write(writes) if writes else []
        for live, part in parts:
            own, outcomes = outcomes[: len(part)], outcomes[len(part) :]
            if part and all(isinstance(outcome, Ok) for outcome in own):
                self.handed_over(live)
        await self.off_loop(lambda: self.log.release(self.worker))

    def handed_over(self, live: Live) -> None:
        """The last turn is durable: let out what it has to say, and nothing else."""
        closed, opened = live.run.closed, live.run.opened
        for line in live.run.committed(self.clock.now()).lines:
            emit(line)
        if closed is not None and opened is None:
            self.tell(live.run.id, closed)

    def tell(self, id: str, closed: Closed) -> None:
        """Tell everybody who waits for it how an execution ended."""
        for future in self.waiters.pop(id, ()):
            if not future.done():
                future.set_result(closed)

    def look_again(self, id: str) -> None:
        """It is not here any more: who waits for it has to ask the log."""
        for future in self.waiters.pop(id, ()):
            if not future.done():
                future.set_exception(TimeoutError())

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

    def is_closing(self) -> bool:
        """Whether it was closed in the meantime, to be asked after an await."""
        return self.closing

    async def look_for_work(self) -> None:
        """Claim when somebody says that there is work, and from time to time; renew the lease."""
        renewed = self.loop.time()
        while not self.closing:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.claiming.wait(), SAFETY_S)
            self.claiming.clear()
            if self.is_closing():
                return
            try:
                await self.claim()
                if self.loop.time() - renewed > LEASE_S / 3:
                    renewed = self.loop.time()
                    self.try_suspects(await self.retry_parked())
                    if not await self.off_loop(lambda: self.log.renew(self.worker, lease_s=LEASE_S)):
                        LOGGER.warning("the lease had run out; what others took is dropped at its next turn")
            except StoreFailed as failed:
                self.fail(failed)
                return
            except Weather as weather:
                LOGGER.warning("the log cannot be asked for work: %s", weather)
                await self.pause(CLAIM_GAP_S)
            except Exception:
                LOGGER.exception("the log cannot be asked for work")
                await self.pause(SAFETY_S)

    async def listen(self) -> None:
        """Look for work when another process writes to the log, or dies."""
        while self.log.blocking and not self.closing:
            try:
                heard = await asyncio.wrap_future(
                    self.readers.submit(self.log.wait, SAFETY_S), loop=self.loop
                )
                gone = self.loop.time() - self.claimed_at > DEATH_GAP_S
                if heard and (gone or await self.off_loop(self.is_due)):
                    self.claiming.set()
            except StoreFailed:
                return
            except Exception as error:  # noqa: BLE001  # weather; the log is asked from time to time all the same
                LOGGER.warning("the log cannot be listened to: %s", error)
                await self.pause(SAFETY_S)
            await self.pause(CLAIM_GAP_S)

    def is_due(self) -> bool:
        """Whether something is due by the log's own account; a read."""
        wake = self.log.next_wake()
        return wake is not None and wake <= self.clock.now()

    async def claim(self) -> None:
        """Take what is due, until nothing more is."""
        self.try_suspects(await self.claim_due())

    async def claim_due(self) -> list[Live]:
        """Take what is due, all of it before any suspect is tried; set the alarm for what will be."""
        taken: list[Live] = []
        while not self.closing:
            names = [workflow.name for workflow in self.registry]
            now = self.clock.now()
            self.claimed_at = self.loop.time()
            given = await self.off_loop(
                lambda names=names, now=now: self.log.claim(  # type: ignore[misc]  # bound at once
                    self.worker, now=now, lease_s=LEASE_S, limit=CLAIMS_MAX, workflows=names
                )
            )
            for summary in given:
                live = await self.take_up(summary)
                if live is not None:
                    taken.append(live)
            if len(given) < CLAIMS_MAX:
                break
        wake = await self.off_loop(self.log.next_wake)
        if wake is not None and wake > self.clock.now() and not (self.timers and self.timers[0][0] <= wake):
            self.set_timer(wake, "")
        return taken

    async def take_up(self, summary: stored.Summary) -> Live | None:
        """Hold an execution that was claimed: the live one with its new messages, or one that is replayed.

        None when it could not be read: it is tried again.
        """
        live = self.live.get(summary.id)
        if live is not None and live.run.fence == summary.fence - 1:
            live.run.fence = summary.fence  # the lease had run out, and nobody else has had it
        if live is not None and live.run.fence == summary.fence:
            return live if await self.read_inbox(live) else None
        if live is not None:
            self.lose(live)
        live = Live(Run(summary, self.codec))
        live.writing = True
        self.hold(live)
        return live if await self.read(live) else None

    async def read_inbox(self, live: Live) -> bool:
        """Give a live execution its new messages; False when they could not be read."""
        run = live.run
        if live.writing:
            live.again = True
        try:
            run.receive(await self.off_loop(lambda: self.log.inbox(run.id, run.seen)))
        except StoreFailed:
            raise
        except (Weather, LogCorrupt):
            if not live.writing:
                live.writing = True
                self.spawn(self.recover(live, "its messages cannot be read"))
            return False
        self.kick(live)
        return True

    async def read(self, live: Live) -> bool:
        """Replay an execution that is marked as being read back; False when that has to be tried again."""
        try:
            await self.load(live)
        except StoreFailed:
            live.writing = False
            raise
        except Weather as weather:
            self.spawn(self.recover(live, weather))
            return False
        except BaseException:
            live.writing = False
            raise
        live.writing = live.again = False
        self.kick(live)
        return True

    def hold(self, live: Live) -> None:
        """Keep it in memory, and let the least recently used idle one go if there are too many."""
        self.live[live.run.id] = live
        self.live.move_to_end(live.run.id)
        self.shrink(live)

    def shrink(self, but: Live | None = None) -> None:
        """Let idle executions go, the least recently used first, while there are too many."""
        excess = len(self.live) - self.max_live
        if excess > 0:
            oldest = itertools.islice(self.live.values(), excess + EVICTION_LOOKS)
            idle = [live for live in oldest if live is not but and self.is_idle(live)]
            for live in idle[:excess]:
                self.evict(live)

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
        self.look_again(live.run.id)

    async def load(self, live: Live) -> None:
        """Read an execution back and replay it; children that its commands ask for are made sure of. Raises Weather."""
        run = live.run
        live.code = self.code
        try:
            records, messages = await self.off_loop(
                lambda: (self.log.records(run.id, run.run), self.log.inbox(run.id))
            )
        except Defect as defect:
            run.park(defect)
            return
        seen = run.seen
        run.inbox.clear()
        run.seen = 0
        run.receive(messages)
        if run.seen < seen:  # some came in meanwhile
            self.claiming.set()
        run.revive(records, self.registry)
        try:
            children = run.children()
        except Defect as defect:
            run.park(defect)
            return
        if children:
            outcomes = await self.writer.write(list(children.values()))
            for seq, outcome in zip(children, outcomes, strict=True):
                refused = isinstance(outcome, stored.Rejected) and outcome.reason.startswith("conflict")
                if not refused and not isinstance(outcome, Ok):
                    raise StoreUnavailable(f"a child of '{run.id}' could not be created: {outcome.reason}")
                run.created(seq, not refused, self.clock.now())

    async def recover(self, live: Live, why: object) -> None:
        """Its turn may be in the log or not, or it cannot be read: drop, wait a little, read back, go on (L3)."""
        give_up = False
        while self.live.get(live.run.id) is live and not self.closing:
            live.tries += 1
            LOGGER.warning("execution '%s' is read back (try %d): %s", live.run.id, live.tries, why)
            await self.pause(min(RETRY_MAX_S, 0.02 * 2 ** min(live.tries, 10)))
            try:
                give_up = not await self.read_back(live, why)
                break
            except StoreFailed as failed:
                self.fail(failed)
                break
            except Weather as weather:
                why = weather
        live.writing = live.again = False
        if give_up:
            self.lose(live)
        elif self.live.get(live.run.id) is live and not self.closing:
            self.try_suspects([live])
            self.kick(live)

    async def read_back(self, live: Live, why: object) -> bool:
        """One try of it; False when the execution is in other hands. Raises Weather."""
        run = live.run
        try:
            summary = await self.off_loop(lambda: self.log.summary(run.id))
        except Defect as defect:
            run.park(defect)
            return True
        if summary is None or summary.fence != run.fence:
            return False
        if summary.run != run.run:
            for seq in list(live.calls):
                self.abandon(live, seq)
            live.run = Run(summary, self.codec)
        await self.load(live)
        if isinstance(why, stored.Rejected) and why.reason.startswith(("invalid", "too-large", "damaged")):
            live.run.park(Defect(f"its turn was refused: {why.reason}"))
        return True

    def park_unknown(self) -> None:
        """Mark what is unfinished and whose workflow nobody here has registered (R20). Costs O(unfinished)."""
        for status in (Status.SCHEDULED, Status.RUNNING, Status.WAITING):
            for summary in pages(self.log, status):
                if summary.workflow in self.registry:
                    continue
                held = self.log.acquire(self.worker, summary.id, lease_s=LEASE_S)
                if held is not None:
                    reason = f"UnknownWorkflow: workflow '{summary.workflow}' is not registered"
                    # what ran is due to whoever has registered the workflow
                    wake = 0.0 if summary.status is Status.RUNNING else held.wake
                    mark = stored.Mark(
                        held.id, Status.PARKED, reason, self.build, wake, 0, held.fence, releases=True
                    )
                    self.log.append([mark])

    async def retry_parked(self) -> list[Live]:
        """Take up parked executions that the code at hand has not been tried on."""
        taken: list[Live] = []
        for summary in await self.off_loop(lambda: list(pages(self.log, Status.PARKED))):
            if summary.workflow not in self.registry or summary.id in self.tried or summary.id in self.live:
                continue
            held = await self.off_loop(partial(self.log.acquire, self.worker, summary.id, lease_s=LEASE_S))
            live = None if held is None else await self.take_up(held)
            if live is not None:
                taken.append(live)
        return taken

    async def register(self, *sources: WorkflowSource | Iterable[WorkflowSource]) -> None:
        """Register workflows, in place of those of the same name, and try parked executions again."""
        self.check_usable()
        for workflow in Registry(*sources):
            self.registry.by_name[workflow.name] = workflow
        self.code += 1
        self.tried.clear()
        for live in list(self.live.values()):
            if live.run.defect is not None and not live.writing:
                live.writing = True
                if await self.read(live):
                    self.try_suspects([live])
        taken = await self.claim_due()
        self.try_suspects(taken + await self.retry_parked())

    # ------------------------------------------------------------ suspects of a crash (R5)

    def try_suspects(self, taken: list[Live]) -> None:
        """Put what was running when its worker died on trial, one at a time.

        A single one starts at once, and the crash is held against it. Of several, those come first that had been on
        trial before; while such a one runs, nothing else begins, so that its guilt shows the next time.
        """
        suspects = [(live, seq) for live in taken for seq in live.run.suspects]
        suspects = [item for item in suspects if item not in self.quarantine]
        if len(suspects) == 1 and not self.quarantine and self.on_trial is None:
            live, seq = suspects[0]
            live.run.try_suspect(seq, alone=True, now=self.clock.now())
            self.kick(live)
            return
        again = {item for item in suspects if item[0].run.was_on_trial(item[1])}
        self.quarantine.extend(sorted(suspects, key=lambda item: item not in again))
        self.next_suspect()

    def next_suspect(self) -> None:
        """Start the next suspect, when no other is on trial."""
        while self.on_trial is None and self.quarantine:
            live, seq = self.quarantine.popleft()
            if self.live.get(live.run.id) is live and seq in live.run.suspects:
                again = live.run.was_on_trial(seq)
                watched = again and not any(other.run.running for other in self.live.values())
                if live.run.try_suspect(seq, alone=False, watched=watched, now=self.clock.now()):
                    self.on_trial = (live.run.id, seq)
                    self.alone = again
                self.kick(live)

    def acquit(self, id: str, seq: int) -> None:
        """A suspect has come to its end without harm: the next one, and all others that had to wait."""
        if self.on_trial == (id, seq):
            self.on_trial = None
            self.next_suspect()
            if self.alone and self.on_trial is None:
                self.alone = False
                self.feed()

    def end_trial(self, live: Live) -> None:
        """Acquit what was on trial in this execution, if it neither runs nor is about to."""
        on_trial = self.on_trial
        if on_trial is not None and on_trial[0] == live.run.id:
            here = self.live.get(live.run.id) is live
            seq = on_trial[1]
            if not here or not (seq in live.calls or seq in live.run.ready):
                self.acquit(live.run.id, seq)

    def feed(self) -> None:
        """There are slots again: everything in line may ask for one."""
        hungry, self.hungry = self.hungry, deque()
        for live in hungry:
            live.hungry = False
            self.kick(live)

    def slots_for(self, id: str) -> int:
        """How many attempts an execution may begin now."""
        on_trial = self.on_trial
        if self.opening or (self.alone and on_trial is not None and on_trial[0] != id):
            return 0
        return self.slots

    # ------------------------------------------------------------ turns

    def kick(self, live: Live) -> None:
        """Something has happened to it: it gets its next turn."""
        if self.closing or self.writer.failed is not None:
            return
        if live.writing:
            live.again = True
        elif not live.dirty:
            live.dirty = True
            self.dirty.append(live)
            self.pump_soon()

    def is_alone(self) -> bool:
        """Whether the loop is the engine's own, and nothing runs that a commit on it would hold up."""
        return self.owns_loop and not self.attempts and not self.dirty

    def pump_soon(self) -> None:
        """Build turns in the next round of the loop."""
        if not self.pumping:
            self.pumping = True
            self.loop.call_soon(self.pump)

    def pump(self) -> None:
        """Build the next turn of everything in line."""
        self.pumping = False
        for _ in range(len(self.dirty)):
            live = self.dirty.popleft()
            live.dirty = False
            if live.writing:
                live.again = True
            elif self.live.get(live.run.id) is live and not self.closing:
                self.turn(live)
        if self.hungry and not (self.opening or self.alone):
            for _ in range(min(self.slots, len(self.hungry))):
                self.call_in()
        self.writer.hurry()

    def turn(self, live: Live) -> None:
        """Build a turn and hand it to the writer; carry on at once where there is nothing to write."""
        try:
            writes = self.build_turn(live)
        except Exception as error:
            LOGGER.exception("execution '%s' cannot go on", live.run.id)
            self.give_slots(live.run.begun)
            live.run.park(Defect(f"its turn cannot be built: {type(error).__name__}: {error}"))
            live.released = not live.calls
            writes = [live.run.mark(self.build, releases=live.released)]
        if writes:
            live.writing = True
            self.writer.submit(writes, lambda outcomes: self.written(live, outcomes))
        else:
            self.carry_out(live)

    def build_turn(self, live: Live) -> list[stored.Write]:
        """The writes of its next turn; empty when there is nothing to write."""
        run, now = live.run, self.clock.now()
        run.build(now)
        self.slots -= run.begin(self.slots_for(run.id), now)
        if run.ready:
            self.line_up(live)
        live.released = run.defect is not None and not live.calls
        return run.compose(now, build=self.build, releases=live.released)

    def written(self, live: Live, outcomes: list[stored.Appended]) -> None:
        """The turn's outcome: carry out what it asks for, or read back and build another."""
        first = outcomes[0]
        if all(isinstance(outcome, Ok) for outcome in outcomes):
            live.writing = False
            live.tries = 0
            self.carry_out(live, conflicts_of(outcomes))
            if live.again:
                live.again = False
                self.kick(live)
            return
        self.give_slots(live.run.begun)
        live.run.drop()
        if self.writer.failed is not None:
            live.writing = False
            self.fail(self.writer.failed)
        elif isinstance(first, stored.Rejected) and first.reason.startswith(("closed", "unknown")):
            live.writing = False
            self.lose(live)
        else:
            self.spawn(self.recover(live, first))

    def lose(self, live: Live) -> None:
        """Somebody else has it now: forget it, and what runs for it."""
        LOGGER.info("execution '%s' is in other hands now", live.run.id)
        for seq in list(live.calls):
            self.abandon(live, seq)
        self.give_slots(live.run.begun)
        if self.live.get(live.run.id) is live:
            del self.live[live.run.id]
        live.run.drop()
        self.end_trial(live)
        self.look_again(live.run.id)
        self.claiming.set()

    def give_slots(self, count: int) -> None:
        """Attempts that were to begin do not."""
        if count:
            self.slots += count
            self.feed()

    def carry_out(self, live: Live, conflicts: Iterable[str] = ()) -> None:
        """The turn is durable: do what it asks for; nothing leaves the process before (R1)."""
        run = live.run
        posted = run.posted
        effects = run.committed(self.clock.now(), tuple(conflicts))
        for line in effects.lines:
            emit(line)
        for seq in effects.dropped:
            self.abandon(live, seq)
        for seq in effects.stops:
            self.tell_to_end(live, seq)
        if not self.closing:  # else they are handed over with the rest
            for call in effects.calls:
                self.call(live, call)
        if not live.calls:
            live.calls = {}  # as in Run.committed
        if effects.created or posted:
            self.claiming.set()
        if run.closed is not None:
            return self.ended(live)
        if run.defect is not None:
            return self.parked(live)
        if self.tried:
            self.tried.pop(run.id, None)
        self.end_trial(live)
        if run.outcomes or run.has_more or (run.ready and self.slots > 0 and not live.hungry):
            self.kick(live)
        self.set_alarm(live)
        if len(self.live) > self.max_live:
            self.shrink()
        return None

    def ended(self, live: Live) -> None:
        """The run is over: tell who waits, or take up the next run."""
        run = live.run
        assert run.closed is not None
        for seq in list(live.calls):
            self.abandon(live, seq)
        closed, opened = run.closed, run.opened
        run.drop()
        self.end_trial(live)
        if opened is not None:
            self.next_run(live, opened)
            return
        self.live.pop(run.id, None)
        self.tell(run.id, closed)

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
        self.end_trial(live)
        if live.code != self.code:  # other code was registered meanwhile
            live.writing = True
            self.spawn(self.recover(live, "other code was registered"))
            return
        if run.id not in self.tried:
            LOGGER.error("execution '%s' is parked: %s", run.id, run.defect)
        self.tried[run.id] = run.defect
        for future in self.waiters.pop(run.id, ()):
            if not future.done():
                future.set_exception(run.defect)
        if run.outcomes or not (live.calls or live.released):
            self.kick(live)
        elif live.released:
            self.live.pop(run.id, None)
            run.drop()
            if run.wake is not None:
                self.set_timer(run.wake, "")
        else:
            self.set_alarm(live)

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
        self.attempts += 1
        if call.function.is_async:
            attempt.task = self.loop.create_task(self.run_async(live, attempt))
        else:
            self.run_sync(live, attempt)

    async def run_async(self, live: Live, attempt: Attempt) -> None:
        """An attempt of an async step, on the loop."""
        call = attempt.call
        SCENE.set(Scene(lambda: call.context, self.resources))
        limit = asyncio.timeout(self.left(call))
        try:
            async with limit:
                value = await call.function.call(call.values)
        except asyncio.CancelledError as error:
            if not attempt.told:
                self.raised(live, attempt, error)
            elif not self.closing:
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
        try:
            attempt.future = self.executor.submit(
                call_with_context, call.function, call.values, call.context, self.resources if here else {}
            )
        except Exception as error:  # noqa: BLE001  # the user's executor does not take it
            self.loop.call_soon(self.raised, live, attempt, error)
            return
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
        """Seconds until the attempt's own countdown is over; other deadlines are the turn's business."""
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
        self.attempts -= 1
        self.free_slot()
        report(self.clock.now())
        self.acquit(live.run.id, seq)
        self.kick(live)

    def free_slot(self) -> None:
        """A slot is free: for whose turn it is, as a rule for who freed it, so that a step costs one turn.

        Who has been in line for longer than FAIR_S goes first.
        """
        self.slots += 1
        if self.hungry:
            if self.loop.time() - self.hungry[0].hungry_since > FAIR_S:
                self.call_in()
            self.pump_soon()

    def line_up(self, live: Live) -> None:
        """It has attempts to begin and there was no slot: it gets in line, once."""
        if not live.hungry:
            live.hungry = True
            live.hungry_since = self.loop.time()
            self.hungry.append(live)

    def call_in(self) -> None:
        """The next in line that still wants a slot may build a turn."""
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
        live.run.running.pop(seq, None)
        if attempt is not None:
            self.attempts -= 1
            if attempt.task is not None:
                attempt.task.cancel()
            if attempt.future is not None:
                attempt.future.cancel()
            if attempt.timer is not None:
                attempt.timer.cancel()
            self.free_slot()
            self.acquit(live.run.id, seq)

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
        created = await asyncio.shield(self.spawn(self.create(new, workflow)))
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
        doubt = False
        reason = ""
        for _ in range(TRIES_MAX):
            try:
                (outcome,) = await self.writer.write([asked])
                found = (
                    await self.summary_or_none(new.id)
                    if doubt or isinstance(outcome, stored.Unknown)
                    else None
                )
            except StoreFailed:
                self.forget(live)
                raise
            except Weather as weather:
                doubt, reason = True, str(weather)
                await self.pause(CREATE_GAP_S)
                continue
            match outcome:
                case _ if found is not None and found.created_at == new.at and found.digest == new.digest:
                    self.created_in_doubt(live, found)  # it was this one, with an outcome that was not known
                    return True
                case Ok(receipt):
                    self.created(live, receipt, new)
                    return receipt.created
                case stored.Rejected(reason) if reason.startswith("conflict"):
                    self.forget(live)
                    raise conflict(new.id)
                case stored.Rejected(reason) if reason.startswith(("too-large", "invalid")):
                    self.forget(live)
                    raise InvalidUse(f"execution '{new.id}' cannot be created: {reason}")
                case stored.Rejected(reason) | stored.Unknown(reason):
                    doubt = doubt or isinstance(outcome, stored.Unknown)
                    await self.pause(CREATE_GAP_S)
        self.forget(live)
        raise StoreUnavailable(f"execution '{new.id}' could not be created: {reason}")

    async def summary_or_none(self, id: str) -> stored.Summary | None:
        """An execution as a list shows it, or None."""
        return await self.off_loop(lambda: self.log.summary(id))

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
        self.slots -= run.begin(self.slots_for(new.id), now)
        live = Live(run)
        live.code = self.code
        return live

    def created(self, live: Live | None, receipt: stored.Receipt, new: stored.New) -> None:
        """The execution is there: hold it if it is ours, or look for it."""
        if live is None or not receipt.created:
            self.forget(live)
            if new.wake and new.wake > self.clock.now():
                self.set_timer(new.wake, "")
            else:
                self.claiming.set()
            return
        live.run.fence = receipt.fence
        self.hold(live)
        if live.run.ready:
            self.line_up(live)
        self.carry_out(live, receipt.conflicts)

    def created_in_doubt(self, live: Live | None, found: stored.Summary) -> None:
        """The execution is there, and was made by us: read it back if it is ours, or look for it."""
        self.forget(live)
        if live is not None and found.owner == self.worker and found.fence == live.run.fence:
            live.writing = True
            self.hold(live)
            self.spawn(self.recover(live, "it was not known whether it had been created"))
        else:
            self.claiming.set()

    def forget(self, live: Live | None) -> None:
        """The execution that was built ahead is not ours."""
        if live is not None:
            self.give_slots(live.run.begun)
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
        workflow = self.registry.by_name.get(summary.workflow)
        return AsyncHandle(self, id, workflow, created=False)

    async def send(self, id: str, name: str, payload: Any, *, key: str | None = None) -> None:
        """Deliver an event; durable when this returns. See `Engine.send`."""
        data = self.codec.encode_message(payload, f"the payload of event '{name}'")
        await self.post(
            stored.Post(id, "event", checked_name(name, "event"), data, self.clock.now(), own_key(key))
        )

    async def cancel(self, id: str, reason: str = "") -> bool:
        """Ask an execution to cancel; False when it has ended. See `Engine.cancel`."""
        return await self.request(id, "cancel", reason)

    async def terminate(self, id: str, reason: str = "") -> bool:
        """End an execution at once, without its code; False when it has ended. See `Engine.terminate`."""
        return await self.request(id, "terminate", reason)

    async def request(self, id: str, kind: stored.MessageKind, reason: str) -> bool:
        """Post a request that counts once."""
        post = stored.Post(
            id, kind, kind, reason.encode(errors="replace"), self.clock.now(), f"{OWN_KEY}{kind}"
        )
        try:
            await self.post(post)
        except ExecutionClosed:
            return False
        return True

    async def post(self, post: stored.Post) -> None:
        """Post a message and wake who gets it. Raises UnknownExecution, ExecutionClosed, StoreUnavailable."""
        self.check_usable()
        doubt, why = False, ""
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
                    if doubt and await self.was_accepted(post):
                        return
                    raise ExecutionClosed(
                        post.id, f"execution '{post.id}' has ended and takes no messages any more"
                    )
                case stored.Rejected(reason) if reason.startswith(("too-large", "invalid")):
                    raise InvalidUse(f"the message to '{post.id}' was not accepted: {reason}")
                case stored.Unknown(reason) if post.key is None:
                    self.claiming.set()  # it may be there
                    raise StoreUnavailable(
                        f"it is not known whether the message to '{post.id}' was accepted ({reason}); "
                        "give it a key= and send it again: the same key counts once"
                    )
                case _:
                    doubt, why = doubt or isinstance(outcome, stored.Unknown), outcome.reason
                    self.claiming.set()  # it may be there
                    await self.pause(CREATE_GAP_S)
        raise StoreUnavailable(f"the message to '{post.id}' was not accepted: {why}")

    async def was_accepted(self, post: stored.Post) -> bool:
        """Whether an execution that has ended meanwhile had got the message, whose outcome was not known. O(n)."""
        if any(message.key == post.key for message in await self.off_loop(lambda: self.log.inbox(post.id))):
            return True
        summary = await self.summary(post.id)
        for run in range(summary.run, -1, -1):
            history = await self.history(post.id, run)
            if any(isinstance(event, Delivered) and event.key == post.key for event in history):
                return True
        return post.kind != "event" and summary.status in (Status.CANCELLED, Status.TERMINATED)

    def posted(self, post: stored.Post, number: int) -> None:
        """A message is durable: give it to the execution if it is here, or look for it."""
        if post.kind == "terminate":
            self.tried.pop(post.id, None)  # it needs no code to end
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
        self.check_usable()
        wanted = None if status is None else status_of(status)
        return await self.off_loop(
            lambda: self.log.list(
                status=wanted, workflow=workflow, id_prefix=id_prefix, limit=limit, after=after
            )
        )

    async def stats(self) -> Mapping[Status, int]:
        """How many executions stand where; every status is there."""
        self.check_usable()
        counted = await self.off_loop(self.log.stats)
        return {status: counted.get(status, 0) for status in Status}

    async def summary(self, id: str) -> stored.Summary:
        """An execution as a list shows it. Raises UnknownExecution."""
        self.check_usable()
        summary = await self.summary_or_none(id)
        if summary is None:
            raise UnknownExecution(id, f"no execution has the id '{id}'")
        return summary

    async def history(self, id: str, run: int | None = None) -> History:
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
        failed = 0
        while True:
            self.check_usable()
            live = self.live.get(id)
            if live is not None and live.run.defect is not None and id in self.tried:
                raise self.tried[id]
            future: asyncio.Future[Closed] = self.loop.create_future()
            self.waiters.setdefault(id, []).append(future)
            try:
                if live is None:
                    closed = await self.off_loop(lambda: closed_event(self.log, self.codec, id))
                    if closed is not None:
                        return closed
                    await self.check_parked(id)
                    failed = 0
                return await asyncio.wait_for(asyncio.shield(future), 30.0 if live is not None else 0.25)
            except TimeoutError:
                continue
            except StoreUnavailable:
                failed += 1
                if failed == TRIES_MAX:
                    raise
                await self.pause(CREATE_GAP_S * 2**failed)
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
            raise self.tried[id]

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
        except TimeoutError:
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


def own_key(key: str | None) -> str | None:
    """The user's key, kept apart from those of requests and children."""
    return f"{OWN_KEY}{key}" if key is not None and key.startswith(OWN_KEY) else key


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
    owns_loop: bool = False,
) -> AsyncGenerator[AsyncEngine]:
    """An engine on the running event loop: `async with zart.serve("sqlite:orders.db", [order]) as engine`.

    Arguments and errors as `zart.open`. `owns_loop` says that nothing but the engine and its steps runs on this loop:
    it may then commit on the loop itself while it has nothing else to do.
    """
    registry = Registry(workflows)
    if max_live < 1 or max_concurrent_steps < 1:
        raise InvalidUse("max_live and max_concurrent_steps must be 1 or more")
    log = open_log(url, durability) if isinstance(url, str) else url
    engine = AsyncEngine(
        log,
        registry,
        owns_log=isinstance(url, str),
        owns_loop=owns_loop,
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
