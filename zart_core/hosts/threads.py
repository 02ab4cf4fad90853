"""Threads that never keep a process from ending.

`concurrent.futures.ThreadPoolExecutor` joins its threads when the interpreter exits, so a step that hangs would hang
the process too (R11).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import queue
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
STOP_S = 5.0
"""How long a call that is under way is waited for when its lane is stopped."""


class DaemonExecutor(concurrent.futures.Executor):
    """An executor of daemon threads, started when all are busy; how many run at once is its user's business."""

    def __init__(self, name: str = "zart") -> None:
        self.name = name
        self.work: queue.SimpleQueue[tuple[concurrent.futures.Future[Any], Callable[[], Any]] | None] = (
            queue.SimpleQueue()
        )
        self.idle = threading.Semaphore(0)
        self.lock = threading.Lock()
        self.threads = 0
        self.closed = False

    def submit(
        self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> concurrent.futures.Future[T]:
        """Run the function in a thread. Raises RuntimeError after `shutdown`, or for want of threads."""
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        with self.lock:
            if self.closed:
                raise RuntimeError("the executor has been shut down")
            if not self.idle.acquire(blocking=False):
                name = f"{self.name}-{self.threads + 1}"
                threading.Thread(target=self.serve, name=name, daemon=True).start()
                self.threads += 1
            self.work.put((future, lambda: fn(*args, **kwargs)))  # last: what is refused is never run
        return future

    def serve(self) -> None:
        """Take work until there will be no more."""
        while True:
            item = self.work.get()
            if item is None:
                self.work.put(None)
                return
            future, call = item
            del item
            if future.set_running_or_notify_cancel():
                try:
                    result = call()
                except BaseException as error:  # noqa: BLE001  # the future's, whatever it is
                    future.set_exception(error)
                else:
                    future.set_result(result)
                    del result
            del future, call
            self.idle.release()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let idle threads end. What runs goes on and is not waited for."""
        with self.lock:
            if not self.closed:
                self.closed = True
                self.work.put(None)


class DaemonLane:
    """A daemon thread that makes one call after the other."""

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.wanted = threading.Semaphore(0)
        self.job: tuple[Callable[[], Any], Callable[[Any], None]] | None = None
        self.thread = threading.Thread(target=self.serve, name=name, daemon=True)
        self.thread.start()

    def run(self, work: Callable[[], T], done: Callable[[T], None]) -> None:
        """See Lane."""
        self.job = work, done
        self.wanted.release()

    def serve(self) -> None:
        """Make calls until there will be no more."""
        while True:
            self.wanted.acquire()
            job, self.job = self.job, None
            if job is None:
                return
            work, done = job
            outcome = work()
            with contextlib.suppress(RuntimeError):  # the loop is gone, and who wanted to know with it
                self.loop.call_soon_threadsafe(done, outcome)

    def stop(self) -> None:
        """See Lane."""
        self.wanted.release()
        self.thread.join(STOP_S)


class DaemonThreads:
    """The threads of this process."""

    def executor(self, name: str) -> concurrent.futures.Executor:
        """See Threads."""
        return DaemonExecutor(name)

    def lane(self, name: str, loop: asyncio.AbstractEventLoop) -> DaemonLane:
        """See Threads."""
        return DaemonLane(name, loop)


def away_from_loops(work: Callable[[], T]) -> T:
    """Call `work` where no event loop runs: here, or in a thread of its own that is waited for when one runs here."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return work()
    inside = contextvars.copy_context()
    executor = DaemonExecutor("zart-step")
    try:
        return executor.submit(inside.run, work).result()
    finally:
        executor.shutdown(wait=False)
