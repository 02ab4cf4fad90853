"""Group commit: whatever has queued up is written in one commit, and each caller learns its own outcome (L6).

Rule 1: one commit at a time; while it runs, the next group gathers.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

from zart_core.errors import InvalidUse, StoreFailed
from zart_core.hosts.ports import Threads
from zart_core.log import Appended, EventLog, Rejected, Unknown, Write

GROUP_MAX = 1000
"""Writes in one commit at the most."""
LOGGER = logging.getLogger("zart.engine")

ON_LOOP_MAX_S = 0.005
"""A log whose last commit took longer than this is not written to on the loop."""
CLOSED = "the engine was closed"

Written: TypeAlias = Callable[[list[Appended]], None]
Group: TypeAlias = list[tuple[Sequence[Write], Written]]


class Writer:
    """Appends for an event loop. `submit` never blocks; outcomes come back on the loop, in order."""

    def __init__(
        self,
        log: EventLog,
        loop: asyncio.AbstractEventLoop,
        threads: Threads,
        alone: Callable[[], bool] = lambda: False,
    ) -> None:
        self.log = log
        self.loop = loop
        self.alone = alone
        """Whether nothing else could happen on the loop meanwhile: then a single caller's commit is made right there,
        which saves two changes of thread, about 200 us where a commit takes 300."""
        self.lately_s = ON_LOOP_MAX_S
        """How long the last commit took."""
        self.queue: deque[tuple[Sequence[Write], Written]] = deque()
        self.flying: Group | None = None
        """What is being committed."""
        self.stopped = False
        self.soon: asyncio.Handle | None = None
        """When the next group is handed over, while that is only announced."""
        self.failed: StoreFailed | None = None
        self.lane = threads.lane("zart-writer", loop) if log.blocking else None

    def submit(self, writes: Sequence[Write], written: Written) -> None:
        """Write these in one commit, with others perhaps, and call `written` with their outcomes."""
        self.put(writes, written)
        if self.queue and self.flying is None and self.soon is None:
            self.soon = self.loop.call_soon(self.hurry)

    def put(self, writes: Sequence[Write], written: Written) -> None:
        """As `submit`, for a caller that will `hurry` in this round of the loop."""
        if self.stopped:
            refused: list[Appended] = [Rejected(f"unavailable: {CLOSED}") for _ in writes]
            self.loop.call_soon(written, refused)
        else:
            self.queue.append((writes, written))

    def hurry(self) -> None:
        """Do not wait for more to gather: hand the next group over, if there is one and no commit is under way."""
        if self.soon is not None:
            self.soon.cancel()
            self.soon = None
        if self.queue and self.flying is None:
            self.flush()

    def flush(self) -> None:
        """Hand the next group over."""
        group: Group = []
        count = 0
        while self.queue and (not group or count + len(self.queue[0][0]) <= GROUP_MAX):
            item = self.queue.popleft()
            group.append(item)
            count += len(item[0])
        self.flying = group
        if self.lane is None or (len(group) == 1 and self.lately_s < ON_LOOP_MAX_S and self.alone()):
            self.append_here(group)
        else:
            self.lane.run(partial(self.append, group), partial(self.finish, group))

    def append_here(self, group: Group) -> None:
        """One commit on the loop; should it be interrupted, who waits for it learns that it may be in the log (F27)."""
        try:
            outcomes = self.append(group)
        except BaseException as error:
            why = Unknown(f"interrupted: {type(error).__name__}")
            unknown: list[Appended] = [why for writes, _ in group for _ in writes]
            self.loop.call_soon(self.finish, group, unknown)
            raise
        self.finish(group, outcomes)

    def append(self, group: Group) -> list[Appended] | StoreFailed:
        """One commit. Weather makes every outcome of the group Unknown; a store that failed fails for good.

        What the store refuses at its edge is found by writing each caller's part by itself: it hinders no other (I8).
        """
        batch = group[0][0] if len(group) == 1 else [write for writes, _ in group for write in writes]
        began = time.perf_counter()
        try:
            return self.log.append(batch)
        except StoreFailed as failed:
            return failed
        except InvalidUse as invalid:
            if len(group) == 1:
                return [Rejected(f"invalid: {invalid}") for _ in batch]
            outcomes: list[Appended] = []
            for item in group:
                found = self.append([item])
                if isinstance(found, StoreFailed):
                    return found
                outcomes += found
            return outcomes
        except Exception as error:  # noqa: BLE001  # weather, or a bug of the store: either way it may be in the log or not
            return [Unknown(f"{type(error).__name__}: {error}") for _ in batch]
        finally:
            self.lately_s = time.perf_counter() - began

    def finish(self, group: Group, outcomes: list[Appended] | StoreFailed) -> None:
        """Back on the loop: tell each caller, and start the next group."""
        if self.flying is not group:  # they were told when it was stopped
            return
        self.flying = None
        if isinstance(outcomes, StoreFailed):
            self.failed = outcomes
            outcomes = [Unknown(str(outcomes)) for writes, _ in group for _ in writes]
        if self.queue and self.soon is None:
            self.soon = self.loop.call_soon(self.hurry)
        self.tell(group, outcomes)

    def tell(self, group: Group, outcomes: list[Appended]) -> None:
        """Tell each caller its own outcomes."""
        start = 0
        for writes, written in group:
            try:
                written(outcomes[start : start + len(writes)])
            except Exception:
                LOGGER.exception("what a turn led to could not be carried out")
            start += len(writes)

    async def write(self, writes: Sequence[Write]) -> list[Appended]:
        """Write these in one commit, and give their outcomes. Raises StoreFailed."""
        future: asyncio.Future[list[Appended]] = self.loop.create_future()
        self.submit(writes, lambda outcomes: None if future.done() else future.set_result(outcomes))
        outcomes = await future
        if self.failed is not None:
            raise self.failed.with_traceback(None)  # see results.py, Rule 1
        return outcomes

    def stop(self) -> None:
        """End the thread. Who waits for a log that does not answer is told so, and who comes after this is refused."""
        self.stopped = True
        if self.lane is not None:
            self.lane.stop()
        flying, self.flying = self.flying or [], None
        queued = list(self.queue)
        self.queue.clear()
        self.tell(
            flying, [Unknown(f"{CLOSED} before the log answered") for writes, _ in flying for _ in writes]
        )
        self.tell(queued, [Rejected(f"unavailable: {CLOSED}") for writes, _ in queued for _ in writes])
