"""The synchronous face of the engine: the same thing from a thread that has no event loop.

Rule 1: everything delegates to `AsyncEngine`, which runs on a loop in a daemon thread; nothing is decided here.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import os
import threading
from collections.abc import Collection, Coroutine, Generator, Iterable, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Generic, TypeVar, overload

from zart_core.codec import Codec
from zart_core.errors import InvalidUse
from zart_core.events import Event, Status
from zart_core.hosts.claims import LEASE_S
from zart_core.hosts.engine import AsyncEngine, serve
from zart_core.hosts.handles import AsyncHandle
from zart_core.hosts.ports import Clock
from zart_core.log import EventLog, Page, Summary
from zart_core.policies import Duration
from zart_core.queues import Queue
from zart_core.steps import DEFAULT_QUEUE
from zart_core.workflows import Workflow, WorkflowSource

I = TypeVar("I")  # noqa: E741  # the input
R = TypeVar("R")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


LEFT_S = 0.2
"""How long steps that do not end when they are cancelled are waited for at the very end."""


CLOSED = "the engine was closed; use it inside its `with` block"
LOGGER = logging.getLogger("zart.engine")


class LoopThread:
    """A daemon thread with an event loop. Whatever is handed to it comes to an end, at the loop's own at the latest.

    Nothing here takes a lock: the handler of a signal may close the engine in the middle of any call.
    """

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self.stopping = False
        self.over = False
        """Whether nothing that is handed over may be looked at any more."""
        self.thread = threading.Thread(target=self.serve, name=name, daemon=True)
        self.thread.start()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Run a coroutine on the loop; the future is cancelled if the loop ends before that."""
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        try:
            future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        except RuntimeError:  # the loop is closed
            coroutine.close()
            future.cancel()
        else:
            if self.over:
                future.cancel()
        return future

    def end(self) -> None:
        """Stop the loop, and wait for its thread. Twice is once."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self.loop.call_soon_threadsafe(self.stop)
        self.thread.join()

    def stop(self) -> None:
        """Stop the loop; on it."""
        if not self.stopping:
            self.stopping = True
            self.loop.stop()

    def serve(self) -> None:
        """The thread: the loop until it is stopped, and then everything on it is put away."""
        asyncio.set_event_loop(self.loop)
        try:
            while not self.stopping:
                with staying():
                    self.loop.run_forever()
            self.over = True
            clearing = self.loop.create_task(self.clear())
            while not clearing.done():
                with staying():
                    self.loop.run_until_complete(clearing)
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        finally:
            self.loop.close()

    async def clear(self) -> None:
        """Cancel what is left; twice, as an engine that is closing lets go of everything then."""
        await asyncio.sleep(0)  # what was handed over last becomes a task
        for patience_s in (LEFT_S, LEFT_S / 4):
            left = asyncio.all_tasks() - {asyncio.current_task()}
            for task in left:
                task.cancel()
            if left:
                await asyncio.wait(left, timeout=patience_s)


@contextlib.contextmanager
def staying() -> Generator[None]:
    """Keep the loop's thread, whatever code on the loop tries: as a rule it is a task that a step has begun."""
    try:
        yield
    except (SystemExit, KeyboardInterrupt):
        LOGGER.exception("code on the engine's loop tried to end the process; the engine goes on")


class Engine:
    """Runs workflows in the background of this process. Get one from `zart.open`; use it as a context manager."""

    def __init__(self, home: LoopThread, stack: contextlib.AsyncExitStack, engine: AsyncEngine) -> None:
        self.home = home
        self.loop = home.loop
        self.stack = stack
        self.engine = engine
        self.pid = os.getpid()

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop within a second, losing nothing: what is unfinished is taken up by the next engine on this log.

        Twice is once, from several threads too. Raises InvalidUse when an async step of this very engine calls it.
        """
        if not self.home.thread.is_alive():
            return
        if threading.current_thread() is self.home.thread:
            raise InvalidUse("an async step cannot close the engine that runs it: close it from outside")
        try:
            with contextlib.suppress(concurrent.futures.CancelledError):  # somebody else has closed it
                self.home.submit(self.shut()).result()
        finally:
            self.home.end()

    async def shut(self) -> None:
        """Leave what was entered, and wait for whoever is at it already."""
        await self.stack.aclose()
        await self.engine.close()

    def await_(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the engine's loop and wait for it here. Raises InvalidUse when that is not possible."""
        try:
            self.refuse_if_forked()
            if threading.current_thread() is self.home.thread:
                raise InvalidUse(
                    "the engine's own event loop cannot wait for the engine: call it from a sync step or thread"
                )
        except InvalidUse:
            coroutine.close()
            raise
        future = self.home.submit(coroutine)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise InvalidUse(CLOSED) from None
        except BaseException:
            future.cancel()
            raise

    def refuse_if_forked(self) -> None:
        """Raise InvalidUse in a child of the process that opened it (F12)."""
        if self.pid != os.getpid():
            raise InvalidUse(
                "the engine was opened in another process; after a fork open one of its own (F12)"
            )

    @overload
    def run(
        self,
        workflow: Workflow[None, R],
        input: None = None,
        *,
        id: str | None = None,
        timeout: Duration | None = None,
    ) -> R: ...
    @overload
    def run(
        self, workflow: Workflow[I, R], input: I, *, id: str | None = None, timeout: Duration | None = None
    ) -> R: ...
    def run(
        self, workflow: Any, input: Any = None, *, id: str | None = None, timeout: Duration | None = None
    ) -> Any:
        """Start an execution, or attach to the same one, wait for it, and give its result.

        Args:
            workflow: a registered workflow.
            input: its input, of its declared type.
            id: the execution's id; a unique one that sorts by time by default.
            timeout: the run's timeout instead of the workflow's own (R16).

        Raises ExecutionFailed, ExecutionCancelled, ExecutionTerminated or ExecutionTimedOut; ExecutionConflict when
        the id
        is taken by something else (R15); EncodeError for an input of a wrong type; and the Defect that parks it (R20).
        """
        return self.await_(self.engine.run_with(workflow, input, id=id, timeout=timeout))

    @overload
    def start(
        self,
        workflow: Workflow[None, R],
        input: None = None,
        *,
        id: str | None = None,
        at: datetime | None = None,
        connection: Any = None,
    ) -> Handle[R]: ...
    @overload
    def start(
        self,
        workflow: Workflow[I, R],
        input: I,
        *,
        id: str | None = None,
        at: datetime | None = None,
        connection: Any = None,
    ) -> Handle[R]: ...
    def start(
        self,
        workflow: Any,
        input: Any = None,
        *,
        id: str | None = None,
        at: datetime | None = None,
        connection: Any = None,
    ) -> Any:
        """Start an execution, or attach to the same one; durable when this returns (R15).

        `at` postpones the start; it needs a time zone. `connection` is one of the caller's own to the log's database
        (`psycopg.Connection` or `sqlite3.Connection`), with an open transaction: the execution is there once that
        commits, and never if it rolls back, and the handle is good from then on. Raises as `run` does for id and input;
        InvalidUse for a connection that cannot be used.
        """
        if connection is not None:
            self.refuse_if_forked()
            handle = self.engine.start_within(connection, workflow, input, id=id, at=at)
            return Handle(self, handle)
        return Handle(self, self.await_(self.engine.start_with(workflow, input, id=id, at=at)))

    def get(self, id: str) -> Handle[Any]:
        """A handle on an existing execution. Raises UnknownExecution."""
        return Handle(self, self.await_(self.engine.get(id)))

    def send(self, id: str, name: str, payload: Any, *, key: str | None = None) -> None:
        """Deliver an event to an execution; durable when this returns. The same `key` again has no effect (R14).

        Raises UnknownExecution, ExecutionClosed, EncodeError; StoreUnavailable when the log cannot be written.
        """
        self.await_(self.engine.send(id, name, payload, key=key))

    def cancel(self, id: str, reason: str = "") -> bool:
        """Ask an execution to cancel: Cancelled is thrown where it waits (R18). False when it has ended.

        Raises UnknownExecution.
        """
        return self.await_(self.engine.cancel(id, reason))

    def terminate(self, id: str, reason: str = "") -> bool:
        """End an execution at once, without its code, parked ones too. False when it has ended.

        Raises UnknownExecution.
        """
        return self.await_(self.engine.terminate(id, reason))

    def list(
        self,
        *,
        status: Status | str | None = None,
        workflow: str | None = None,
        id_prefix: str | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> Page[Summary]:
        """A page of executions in the order of their ids; `page.next` continues it as `after=`."""
        return self.await_(
            self.engine.list(status=status, workflow=workflow, id_prefix=id_prefix, limit=limit, after=after)
        )

    def stats(self) -> Mapping[Status, int]:
        """How many executions stand where."""
        return self.await_(self.engine.stats())

    def register(self, *sources: WorkflowSource | Iterable[WorkflowSource]) -> None:
        """Register workflows, in place of those of the same name, and try parked executions again (R20)."""
        self.await_(self.engine.register(*sources))


class Handle(Generic[T_co]):
    """An execution, from outside. `created` is False when it was there before."""

    def __init__(self, engine: Engine, handle: AsyncHandle[T_co]) -> None:
        self.engine = engine
        self.handle = handle
        self.id = handle.id
        self.created = handle.created

    def status(self) -> Status:
        """Where it stands."""
        return self.engine.await_(self.handle.status())

    def result(self, timeout: Duration | None = None) -> T_co:
        """Its result, once it has ended; raises as `Engine.run` does, and TimeoutError, after which it goes on.

        With a timeout of 0 it is looked whether it has.
        """
        return self.engine.await_(self.handle.result(timeout))

    def send(self, name: str, payload: Any, key: str | None = None) -> None:
        """Deliver an event to it; durable when this returns."""
        self.engine.send(self.id, name, payload, key=key)

    def cancel(self, reason: str = "") -> bool:
        """Ask it to cancel; False when it has ended."""
        return self.engine.cancel(self.id, reason)

    def terminate(self, reason: str = "") -> bool:
        """End it at once, without its code; False when it has ended."""
        return self.engine.terminate(self.id, reason)

    def history(self, run: int | None = None) -> list[Event]:
        """The events of a run, the current one by default."""
        return self.engine.await_(self.handle.history(run))

    def explain(self) -> str:
        """In words: what it waits for, at which line, since when, and who can end the wait."""
        return self.engine.await_(self.handle.explain())

    def __repr__(self) -> str:
        return f"<execution '{self.id}'>"


def open(
    url: str | EventLog,
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
) -> Engine:
    """Open a log and run workflows on it: `with zart.open("sqlite:orders.db", [order_fulfilment]) as engine`.

    Whatever was unfinished is taken up at once, without being asked.

    Args:
        url: `memory:`, `file:DIR`, `sqlite:PATH`, or that of another installed store; or an open EventLog.
        workflows: functions decorated with @workflow, modules of them, or a Registry.
        durability: what an acknowledged write survives: "power" (as much as the store can), or "process".
        resources: objects that steps reach with `zart.resource(name)`; they never enter the log.
        executor: runs sync steps; threads that never keep the process from ending by default.
        clock: the time; the machine's by default.
        codec: how values become bytes.
        build: what code this is, such as a commit; kept beside executions that it could not go on with.
        max_live: executions kept in memory at once; the rest is taken up again when it is due.
        max_concurrent_steps: attempts that run at once.
        lease: how long what this engine holds stays its own after it was last heard of, 1 s at the least. Others take
            over what a worker that was killed held after so long; one that is silent for longer stops by itself.
        queues: whose steps may run here. Without "default" among them this worker holds no executions: it takes
            nothing but steps that name one of its queues, and what is started here others go on with. A `Queue` in
            place of a name says how many of its steps run at once, or begin in a time, over all workers that say so.

    Raises UnknownStore, StoreLocked, LogCorrupt, FormatTooNew, StoreUnavailable and InvalidUse.
    """
    stack = contextlib.AsyncExitStack()
    opening = serve(
        url,
        workflows,
        durability=durability,
        resources=resources,
        executor=executor,
        clock=clock,
        codec=codec,
        build=build,
        max_live=max_live,
        max_concurrent_steps=max_concurrent_steps,
        lease=lease,
        queues=queues,
        owns_loop=True,
    )
    home = LoopThread("zart-engine")
    try:
        engine = home.submit(stack.enter_async_context(opening)).result()
    except BaseException:
        home.end()
        raise
    return Engine(home, stack, engine)
