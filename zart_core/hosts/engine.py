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
import functools
import itertools
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Iterable, Mapping
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar, overload

from zart_core import log as stored
from zart_core.codec import Codec
from zart_core.commands import checked_name, instant
from zart_core.context import checked_resources
from zart_core.errors import (
    Defect,
    ExecutionClosed,
    InvalidUse,
    LogCorrupt,
    StoreFailed,
    StoreUnavailable,
    UnknownExecution,
    UnknownStore,
    UnknownWorkflow,
    Weather,
    ZartError,
)
from zart_core.events import Event, Ok, Started, Status
from zart_core.hosts.alarms import Alarms
from zart_core.hosts.attempts import Attempts
from zart_core.hosts.claims import LEASE_MIN_S, LEASE_S, Claims
from zart_core.hosts.handles import AsyncHandle
from zart_core.hosts.heartbeats import Heartbeats
from zart_core.hosts.inline import emit, encoded_input
from zart_core.hosts.limits import Limits
from zart_core.hosts.live import Live
from zart_core.hosts.offers import page_of, stats_of
from zart_core.hosts.ports import (
    LOTS,
    Clock,
    Lots,
    Part,
    StepCall,
    SystemClock,
    Threads,
    new_id,
    numbered_id,
    open_log,
    the_step_itself,
)
from zart_core.hosts.pump import Pump
from zart_core.hosts.recovery import Recovery
from zart_core.hosts.relatives import new_execution, request_key
from zart_core.hosts.requests import Requests, checked_text, own_key
from zart_core.hosts.results import Results
from zart_core.hosts.sharing import Sharing
from zart_core.hosts.suspects import Suspects
from zart_core.hosts.threads import DaemonThreads
from zart_core.hosts.transactions import Transactions, create_within
from zart_core.hosts.writer import Writer
from zart_core.insight.explaining import circumstances, explanation, lines_of
from zart_core.interpreter import CODEC
from zart_core.policies import Duration, seconds
from zart_core.queues import Queue, declared
from zart_core.steps import DEFAULT_QUEUE
from zart_core.workflows import Registry, Workflow, WorkflowSource, is_workflow, titled

I = TypeVar("I")  # noqa: E741  # the input
P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

READS_MAX = 32
"""How many calls that read the log are under way at a time, each in a thread of its own; more of them wait in line."""
CLOSE_GRACE_S = 0.4
"""How long running attempts get to end when the engine closes."""
CLOSE_WRITE_S = 5.0
"""How long the log gets to roll back what steps have begun, and to take what is left to write."""
LOGGER = logging.getLogger("zart.engine")

History: TypeAlias = list[Event]
"""Events in their order; in the engine `list` is a method."""


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
        lease_s: float = LEASE_S,
        threads: Threads | None = None,
        lots: Lots = LOTS,
        cast: Callable[[StepCall], Part] = the_step_itself,
        queues: Collection[str | Queue] = (DEFAULT_QUEUE,),
    ) -> None:
        self.log = log
        self.owns_log = owns_log
        self.owns_loop = owns_loop
        self.registry = registry
        self.resources = checked_resources(resources)
        self.threads = threads or DaemonThreads()
        self.lots = lots
        self.cast = cast
        """Who plays a step: as a rule its own function."""
        self.readers = self.threads.executor("zart-reader")
        self.reads = asyncio.Semaphore(READS_MAX)
        self.clock = clock or SystemClock()
        self.codec = codec or CODEC
        self.build = build
        self.max_live = max_live
        self.lease_s = lease_s
        self.worker = new_id(self.clock.now(), lots)
        self.numbers = itertools.count()
        """Of the ids that it makes, in the order of the starts; several threads may ask."""
        self.loop = asyncio.get_running_loop()
        self.live: OrderedDict[str, Live] = OrderedDict()
        """Executions in memory, the least recently used first."""
        self.attempts = Attempts(self, executor, max_concurrent_steps)
        self.transactions = Transactions(self)
        self.heartbeats = Heartbeats(self)
        self.suspects = Suspects(self)
        served = declared(queues)
        self.sharing = Sharing(self, served)
        self.limits = Limits(self, served)
        self.alarms = Alarms(self)
        self.claims = Claims(self)
        self.recovery = Recovery(self)
        self.requests = Requests(self)
        self.results = Results(self)
        self.pump = Pump(self)
        self.writer = Writer(log, self.loop, self.threads, self.pump.is_alone)
        self.tried: dict[str, Defect] = {}
        """Parked executions that the code at hand does not fit, and why."""
        self.code = 0
        """Generation of the registered code."""
        self.opening = True
        """Whether it is not known yet what was running when an earlier worker died: nothing begins."""
        self.background: set[asyncio.Task[Any]] = set()
        self.tasks: list[asyncio.Task[None]] = []
        self.closing = False
        self.closed_down = asyncio.Event()
        """Set once it closes."""
        self.closed = asyncio.Event()
        """Set once it is closed."""

    async def begin(self) -> None:
        """Take up whatever was unfinished, and look for work from now on."""
        self.clock.watch(self.alarms.watched)
        await self.limits.make()
        await self.off_loop(self.claims.park_unknown)
        await self.claims.take_all(parked=True)
        self.opening = False
        self.claims.try_taken()
        self.attempts.feed()
        self.tasks = [
            self.loop.create_task(self.claims.keep_lease()),
            self.loop.create_task(self.claims.look_for_work()),
            self.loop.create_task(self.claims.listen()),
            self.loop.create_task(self.limits.keep()),
        ]

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
        """Stop, losing nothing: what runs is told to end and given back; what is durable stays so.

        Twice is once: who asks again waits for the same end. When it is cancelled, or what is left cannot be written,
        all is put away nevertheless, the log too. Raises InvalidUse on another loop than its own.
        """
        self.check_loop()
        if self.closing:
            await self.closed.wait()
            return
        self.closing = True
        try:
            await self.wind_up()
        finally:
            try:
                self.put_away()
            finally:
                self.closed.set()

    async def wind_up(self) -> None:
        """Let what runs come to an end, and write what is left."""
        self.closed_down.set()
        self.claims.claiming.set()
        self.heartbeats.close()
        self.limits.stirred.set()
        await self.attempts.end_all()
        await self.within(self.transactions.end_running, "what steps wrote could not be rolled back: %s")
        if self.tasks:
            await asyncio.wait([*self.tasks, *self.background], timeout=CLOSE_GRACE_S)
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        if self.writer.failed is None:
            await self.within(self.hand_over, "what was left could not be written: %s")
        await self.within(self.transactions.end_pending, "what steps wrote could not be rolled back: %s")

    async def within(self, work: Callable[[], Coroutine[Any, Any, None]], complaint: str) -> None:
        """Give the log CLOSE_WRITE_S to do something; say so when it does not."""
        try:
            await asyncio.wait_for(work(), CLOSE_WRITE_S)
        except (Weather, LogCorrupt, TimeoutError) as error:
            LOGGER.warning(complaint, str(error) or "the log takes too long")

    def put_away(self) -> None:
        """Let go of all that is held: threads, code, those who wait, the log."""
        self.writer.stop()
        self.readers.shutdown()
        if self.attempts.owns_executor:
            self.attempts.executor.shutdown()
        for task in self.tasks:
            task.cancel()
        for live in self.live.values():
            live.run.drop()
        self.live.clear()
        if self.alarms.timer is not None:
            self.alarms.timer.cancel()
        self.results.fail_waiters(StoreUnavailable("the engine was closed"))
        if self.owns_log:
            self.log.close()

    async def hand_over(self) -> None:
        """Write what is left to write, and give every claim back, so that no crash is held against a step."""
        while self.background or any(live.writing for live in self.live.values()):
            await asyncio.sleep(0.001)
        parts: list[tuple[Live, list[stored.Write]]] = []
        for live in list(self.live.values()):
            if live.run.execution is None and live.run.defect is None:
                continue
            try:
                part = self.last_turn(live)
            except Exception:  # one that cannot be written hinders no other (I8)
                LOGGER.exception("execution '%s' cannot be handed over", live.run.id)
                continue
            if live.run.id in self.transactions.pending and self.transactions.commit(live, part):
                live.writing = True
            else:
                parts.append((live, part))
        while any(live.writing for live in self.live.values()):
            await asyncio.sleep(0.001)
        await self.transactions.end_pending()  # of what is being read back: it may hold the lock
        writes = [write for _, part in parts for write in part]
        outcomes = await self.writer.write(writes) if writes else []
        for live, part in parts:
            own, outcomes = outcomes[: len(part)], outcomes[len(part) :]
            if part and all(isinstance(outcome, Ok) for outcome in own):
                self.handed_over(live)
        await self.off_loop(lambda: self.log.release(self.worker), waits=False)

    def last_turn(self, live: Live) -> list[stored.Write]:
        """What is left to write of an execution, and that what runs is given back."""
        run, now = live.run, self.clock.now()
        for attempt in live.calls.values():
            if self.attempts.is_crash(attempt):
                run.suspect(attempt.call, guilty=False)
        run.build(now)
        held_back = run.held_back
        if run.running or held_back:
            run.hand_over(now, [*self.attempts.unbegun(live), *held_back])
        return run.compose(now, build=self.build)

    def handed_over(self, live: Live) -> None:
        """The last turn is durable: let out what it has to say, and nothing else."""
        closed, opened = live.run.closed, live.run.opened
        for line in live.run.committed(self.clock.now()).lines:
            emit(line)
        if closed is not None and opened is None:
            self.results.tell(live.run.id, closed)

    async def off_loop(self, call: Callable[[], T], *, waits: bool = True) -> T:
        """Call the store where it may block, READS_MAX such calls at a time; without `waits` at once, beside them.

        Raises what it raises; StoreUnavailable when no thread can.
        """
        if not self.log.blocking:
            return call()
        async with self.reads if waits else contextlib.nullcontext():
            try:
                called = self.readers.submit(call)
            # No more threads on this machine, or the engine was closed meanwhile.
            except RuntimeError as error:
                raise StoreUnavailable(f"the log cannot be asked: {error}") from error
            return await asyncio.wrap_future(called, loop=self.loop)

    def is_closing(self) -> bool:
        """Whether it was closed in the meantime, to be asked after an await."""
        return self.closing

    async def register(self, *sources: WorkflowSource | Iterable[WorkflowSource]) -> None:
        """Register workflows, in place of those of the same name and version, and try parked executions again."""
        self.check_here()
        for workflow in Registry(*sources).everything():
            self.registry.replace(workflow)
        self.sharing.learn()
        self.code += 1
        self.tried.clear()
        for live in list(self.live.values()):
            if live.run.defect is not None and not live.writing:
                live.writing = True
                if await self.recovery.replay(live):
                    self.suspects.take([live])
        await self.claims.take_all(parked=True)

    def fail(self, failed: StoreFailed) -> None:
        """The store can no longer be used: nothing goes on in this engine (F5)."""
        LOGGER.error("the store has failed: %s", failed)
        self.writer.failed = failed
        self.results.fail_waiters(failed)

    @overload
    async def start(
        self,
        workflow: Workflow[None, R],
        input: None = None,
        *,
        id: str | None = None,
        at: datetime | None = None,
        connection: Any = None,
    ) -> AsyncHandle[R]: ...

    @overload
    async def start(
        self,
        workflow: Workflow[I, R],
        input: I,
        *,
        id: str | None = None,
        at: datetime | None = None,
        connection: Any = None,
    ) -> AsyncHandle[R]: ...

    async def start(
        self,
        workflow: Any,
        input: Any = None,
        *,
        id: str | None = None,
        at: datetime | None = None,
        connection: Any = None,
    ) -> Any:
        """Start an execution, or attach to the same one; durable when this returns (R15). See `Engine.start`.

        With `connection` it is durable when the caller commits; its statements are executed here, on the loop.
        """
        if connection is not None:
            return self.start_within(connection, workflow, input, id=id, at=at)
        return await self.start_with(workflow, input, id=id, at=at)

    def start_within(
        self,
        connection: Any,
        workflow: Workflow[Any, Any],
        input: Any,
        *,
        id: str | None,
        at: datetime | None,
    ) -> AsyncHandle[Any]:
        """Start it in the transaction of the caller's own connection, in the caller's thread.

        Nothing of it may need the loop: the caller may hold the lock that a commit on the loop waits for.
        """
        new = self.new(workflow, input, id=id, at=at)
        created = create_within(self.log, connection, new)
        if new.wake:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the next engine finds it
                self.loop.call_soon_threadsafe(self.alarms.set, new.wake, "")
        return AsyncHandle(self, new.id, workflow, created)

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
        self.check_here()
        new = self.new(workflow, input, id=id, at=at, timeout=timeout)
        return AsyncHandle(self, new.id, workflow, await self.create(new))

    async def create(self, new: stored.New) -> bool:
        """Create an execution; False when it was there before. Who is cancelled meanwhile leaves it to be created."""
        return await asyncio.shield(self.spawn(self.requests.create(new)))

    def new(
        self,
        workflow: Workflow[Any, Any],
        input: Any,
        *,
        id: str | None = None,
        at: datetime | None = None,
        timeout: Duration | None = None,
    ) -> stored.New:
        """The execution to create. Raises InvalidUse, UnknownWorkflow, EncodeError."""
        self.check_usable()
        if not isinstance(workflow, Workflow):
            raise InvalidUse(f"{workflow!r} is no workflow; decorate the function with @zart.workflow")
        if self.registry.version(workflow.name, workflow.version) is not workflow:
            raise UnknownWorkflow(
                f"another workflow is registered under the name {titled(workflow.name, workflow.version)}; "
                "register this one"
            )
        now = self.clock.now()
        name = numbered_id(now, next(self.numbers), self.lots) if id is None else checked_name(id, "id")
        payload, _ = encoded_input(self.codec, workflow, input)
        return new_execution(
            self.codec,
            workflow,
            name,
            payload,
            now,
            timeout_s=None if timeout is None else seconds(timeout, "timeout"),
            wake=None if at is None else instant(at, "at="),
        )

    @overload
    async def run(
        self,
        workflow: Workflow[None, R],
        input: None = None,
        *,
        id: str | None = None,
        timeout: Duration | None = None,
    ) -> R: ...

    @overload
    async def run(
        self, workflow: Workflow[I, R], input: I, *, id: str | None = None, timeout: Duration | None = None
    ) -> R: ...

    async def run(
        self, workflow: Any, input: Any = None, *, id: str | None = None, timeout: Duration | None = None
    ) -> Any:
        """Start or attach, wait, and give the result. See `Engine.run`."""
        return await self.run_with(workflow, input, id=id, timeout=timeout)

    async def run_with(
        self,
        workflow: Workflow[Any, R],
        input: Any = None,
        *,
        id: str | None = None,
        timeout: Duration | None = None,
    ) -> R:
        """As `run`, for an input that is not looked at before it is encoded."""
        self.check_here()
        new = self.new(workflow, input, id=id, timeout=timeout)
        ending = self.results.expect(new.id)
        try:
            handle = AsyncHandle(self, new.id, workflow, await self.create(new))
            result: R = await handle.value_of(await self.results.closed(new.id, ending))
        finally:
            self.results.unwait(new.id, ending)
        return result

    async def get(self, id: str) -> AsyncHandle[Any]:
        """A handle on an existing execution. Raises UnknownExecution."""
        summary = await self.summary(id)
        workflow = self.registry.by_name.get(summary.workflow)
        return AsyncHandle(self, id, workflow, created=False)

    async def workflow_of(self, id: str, workflow: Workflow[Any, Any] | None) -> Workflow[Any, Any] | None:
        """The version that an execution's last run began with; O(n) in its events where there are several."""
        versions = {} if workflow is None else self.registry.versions.get(workflow.name, {})
        if len(versions) < 2:
            return workflow
        first = (await self.history(id))[0]
        return versions.get(first.version, workflow) if isinstance(first, Started) else workflow

    async def send(self, id: str, name: str, payload: Any, *, key: str | None = None) -> None:
        """Deliver an event; durable when this returns. See `Engine.send`."""
        data = self.codec.encode_message(payload, f"the payload of event '{name}'")
        to, event, key = checked_text(id, "id"), checked_name(name, "event"), own_key(key)
        await self.requests.post(stored.Post(to, "event", event, data, self.clock.now(), key))

    async def cancel(self, id: str, reason: str = "") -> bool:
        """Ask an execution to cancel; False when it has ended. See `Engine.cancel`."""
        return await self.request(id, "cancel", reason)

    async def terminate(self, id: str, reason: str = "") -> bool:
        """End an execution at once, without its code; False when it has ended. See `Engine.terminate`."""
        return await self.request(id, "terminate", reason)

    async def request(self, id: str, kind: stored.MessageKind, reason: str) -> bool:
        """Post a request that counts once."""
        summary = await self.summary(id)
        key = request_key(kind, summary.run)
        data = checked_text(reason, "reason").encode(errors="replace")
        post = stored.Post(id, kind, kind, data, self.clock.now(), key)
        try:
            await self.requests.post(post)
        except ExecutionClosed:
            return False
        if kind == "terminate":
            try:
                await self.claims.end_unserved(summary)
            except Weather as weather:  # it is looked for again from time to time
                LOGGER.warning("what was terminated cannot be taken up: %s", weather)
        return True

    async def list(
        self,
        *,
        status: Status | str | None = None,
        workflow: str | None = None,
        id_prefix: str | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> stored.Page[stored.Summary]:
        """A page of executions in the order of their ids; offered steps only when it is those that are asked for."""
        self.check_here()
        given: object = workflow
        if is_workflow(given):
            raise InvalidUse(f"workflow= is the name of one: {given.name!r}, not {given!r}")
        wanted = None if status is None else status_of(status)
        return await self.off_loop(
            lambda: page_of(
                self.log, status=wanted, workflow=workflow, id_prefix=id_prefix, limit=limit, after=after
            )
        )

    async def stats(self) -> Mapping[Status, int]:
        """How many executions stand where, offered steps among them; every status is there."""
        self.check_here()
        return await self.off_loop(lambda: stats_of(self.log))

    async def summary(self, id: str) -> stored.Summary:
        """An execution as a list shows it. Raises UnknownExecution."""
        self.check_here()
        summary = await self.requests.summary_or_none(checked_text(id, "id"))
        if summary is None:
            raise UnknownExecution(id, f"no execution has the id '{id}'")
        return summary

    async def history(self, id: str, run: int | None = None) -> History:
        """The events of a run, the current one by default. Raises UnknownExecution."""
        summary = await self.summary(id)
        return await self.read(id, summary.run if run is None else run)

    async def read(self, id: str, run: int) -> History:
        """The events of a run that is there."""
        records = await self.off_loop(lambda: self.log.records(id, run))
        return list(self.codec.decode_events(records, id, run))

    async def explain(self, id: str) -> str:
        """In words: what it waits for, at which line, since when, and who can end the wait."""
        summary = await self.summary(id)
        given = await self.off_loop(lambda: circumstances(self.log, self.codec, summary))
        told = explanation(
            given, now=self.clock.now(), registered=frozenset(self.registry.by_name), sources=True
        )
        return "\n".join(lines_of(told))

    def check_usable(self) -> None:
        """Raise when the engine was closed, or its store has failed."""
        if self.closing:
            raise InvalidUse("the engine was closed; use it inside its `with` block")
        if self.writer.failed is not None:
            raise self.writer.failed.with_traceback(None)  # see results.py, Rule 1

    def check_here(self) -> None:
        """As `check_usable`, and raise when this is another loop than its own: nobody would be woken there."""
        self.check_usable()
        self.check_loop()

    def check_loop(self) -> None:
        """Raise when this is another loop than its own."""
        if asyncio.get_running_loop() is not self.loop:
            raise InvalidUse(
                "this engine runs on another event loop: await it on the loop where it was opened; "
                "the engine that zart.open gives may be called from any thread"
            )


def status_of(status: Status | str) -> Status:
    """The status of a name; raises InvalidUse."""
    try:
        return Status(status)
    except ValueError:
        raise InvalidUse(f"{status!r} is no status; there are: {', '.join(Status)}") from None


def opened(url: str | stored.EventLog, durability: str) -> stored.EventLog:
    """The log of a URL, or the one that was given. Raises UnknownStore for what is neither, and what opening raises."""
    if isinstance(url, str):
        return open_log(url, durability)
    if not hasattr(url, "append"):
        raise UnknownStore(
            f"{url!r} is no store URL; write memory:, file:DIR, sqlite:PATH or the like, as text"
        )
    return url


class Opening(contextlib.AbstractAsyncContextManager[AsyncEngine]):
    """An engine that `async with` opens and closes; whatever else is tried with it says so."""

    def __init__(self, opening: contextlib.AbstractAsyncContextManager[AsyncEngine]) -> None:
        self.opening = opening

    async def __aenter__(self) -> AsyncEngine:
        return await self.opening.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self.opening.__aexit__(kind, error, traceback)

    if not TYPE_CHECKING:  # there these are mistakes already

        def __getattr__(self, name: str) -> Any:
            if hasattr(AsyncEngine, name):
                self.refuse()
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

        def refuse(self, *_: object) -> Any:
            """Raise InvalidUse, which says how it is written."""
            raise InvalidUse(
                "the engine is not open yet: write `async with zart.serve(...) as engine:`, and use it in there"
            )

        __await__ = __enter__ = __exit__ = refuse


def opened_by_with(engine: Callable[P, AsyncGenerator[AsyncEngine]]) -> Callable[P, Opening]:
    """As `contextlib.asynccontextmanager`; what it gives says how it is used."""
    opening = contextlib.asynccontextmanager(engine)

    @functools.wraps(engine)
    def of(*args: P.args, **kwargs: P.kwargs) -> Opening:
        return Opening(opening(*args, **kwargs))

    return of


@opened_by_with
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
    lease: Duration = LEASE_S,
    queues: Collection[str | Queue] = (DEFAULT_QUEUE,),
    owns_loop: bool = False,
) -> AsyncGenerator[AsyncEngine]:
    """An engine on the running event loop: `async with zart.serve("sqlite:orders.db", [order]) as engine`.

    Arguments and errors as `zart.open`. `owns_loop` says that nothing but the engine and its steps runs on this loop:
    it may then commit on the loop itself while it has nothing else to do.
    """
    registry = Registry(workflows)
    if max_live < 1 or max_concurrent_steps < 1:
        raise InvalidUse("max_live and max_concurrent_steps must be 1 or more")
    lease_s = seconds(lease, "lease")
    if lease_s < LEASE_MIN_S:
        raise InvalidUse(f"lease is {lease!r}; it must be {LEASE_MIN_S:g} s or longer")
    if executor is not None and (isinstance(executor, type) or not hasattr(executor, "submit")):
        raise InvalidUse(
            f"executor= takes a concurrent.futures.Executor that is ready for use, not {executor!r}"
        )
    served = declared(queues)
    log = opened(url, durability)
    try:
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
            lease_s=lease_s,
            queues=served.values(),
        )
    except BaseException:
        if isinstance(url, str):
            log.close()
        raise
    try:
        await engine.begin()
        yield engine
    finally:
        await engine.close()
