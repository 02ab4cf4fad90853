"""Who waits for results, and what they are told.

Rule 1: an error that is kept is raised without its traceback, or it would gather the frames of all who were told.
"""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from typing import TYPE_CHECKING

from zart_core.errors import StoreUnavailable
from zart_core.events import Closed, Status
from zart_core.failures import clean
from zart_core.hosts.inline import closed_event
from zart_core.hosts.requests import CREATE_GAP_S, TRIES_MAX

if TYPE_CHECKING:
    from zart_core.hosts.engine import AsyncEngine

LOOK_AGAIN_S = 0.25
"""How soon the log is asked again how an execution that is not here ended."""
LOOKS_PER_S_MAX = 400


class Results:
    """Those who wait for an execution to end."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.waiters: dict[str, list[asyncio.Future[Closed]]] = {}
        self.asking = 0
        """How many wait for executions that are not here, and ask the log from time to time."""

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

    def expect(self, id: str) -> asyncio.Future[Closed]:
        """Begin to wait for an execution: before it is created, no end of it is missed. `unwait` has to follow."""
        future: asyncio.Future[Closed] = self.engine.loop.create_future()
        self.waiters.setdefault(id, []).append(future)
        return future

    async def closed(self, id: str, expected: asyncio.Future[Closed] | None = None) -> Closed:
        """How the execution ended, once it has. Raises the defect when it is parked."""
        failed = 0
        while True:
            live = self.engine.live.get(id)
            if expected is None or not expected.done():  # else it is known, whatever has become of the engine
                self.engine.check_here()
                if live is not None and live.run.defect is not None and id in self.engine.tried:
                    raise self.engine.tried[id].with_traceback(None)
            future, expected = expected or self.expect(id), None
            try:
                if live is None and not future.done():
                    closed = await self.look(id)
                    if closed is not None:
                        return closed
                    failed = 0
                if live is None:
                    return await self.told_or_late(future)
                async with asyncio.timeout(30.0):
                    return await future
            except TimeoutError:
                continue
            except StoreUnavailable:
                failed += 1
                if failed == TRIES_MAX:
                    raise
                await self.engine.pause(CREATE_GAP_S * 2**failed)
            finally:
                self.unwait(id, future)

    async def told_or_late(self, future: asyncio.Future[Closed]) -> Closed:
        """Wait until the log should be asked again: TimeoutError. All together ask LOOKS_PER_S_MAX times a second."""
        self.asking += 1
        try:
            async with asyncio.timeout(max(LOOK_AGAIN_S, self.asking / LOOKS_PER_S_MAX)):
                return await future
        finally:
            self.asking -= 1

    async def look(self, id: str) -> Closed | None:
        """How the execution ended by the log; None while it goes on. Raises the defect when it is parked."""
        self.engine.check_here()
        closed = await self.engine.off_loop(lambda: closed_event(self.engine.log, self.engine.codec, id))
        if closed is None:
            await self.check_parked(id)
        return closed

    def unwait(self, id: str, future: asyncio.Future[Closed]) -> None:
        """Nobody waits on this future any more."""
        futures = self.waiters.get(id)
        if futures is not None and future in futures:
            futures.remove(future)
            if not futures:
                del self.waiters[id]
        if not future.cancel() and not future.cancelled():
            future.exception()  # what it was told while the log was being asked: asyncio reports what nobody takes

    async def check_parked(self, id: str) -> None:
        """Raise why an execution that this engine has tried is parked."""
        summary = await self.engine.summary(id)
        if summary.status is Status.PARKED and id in self.engine.tried and id not in self.engine.live:
            raise self.engine.tried[id].with_traceback(None)


def let_go(error: BaseException) -> None:
    """Make the tracebacks of an error that is kept text, in notes: they would keep all that their frames hold.

    The error's own is dropped, as whoever is told has the place where it is raised again.
    """
    left, seen = [error], {id(error)}
    while left:
        each = left.pop()
        if each.__traceback__ is not None and each is not error:
            with contextlib.suppress(Exception):  # the loader of a stranger
                text = "".join(traceback.format_tb(each.__traceback__))
                each.add_note(clean(text.rstrip(), keep_end=True))
        each.__traceback__ = None
        for inner in (each.__cause__, each.__context__):
            if inner is not None and id(inner) not in seen:
                seen.add(id(inner))
                left.append(inner)
