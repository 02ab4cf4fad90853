"""Reading executions back: after a claim, and whenever it is not known what the log holds (L3)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from zart_core import log as stored
from zart_core.errors import Defect, StoreFailed, StoreUnavailable, Weather
from zart_core.events import Ok
from zart_core.hosts.live import Live
from zart_core.hosts.turns import Passing, Run

if TYPE_CHECKING:
    from zart_core.hosts.engine import AsyncEngine

RETRY_MAX_S = 5.0
LOGGER = logging.getLogger("zart.engine")


class Recovery:
    """Replays executions from the log."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine

    async def replay(self, live: Live) -> bool:
        """Replay an execution that is marked as being read back; False when that has to be tried again."""
        try:
            await self.load(live)
        except StoreFailed:
            live.writing = False
            raise
        except Exception as error:  # noqa: BLE001  # weather, or what nobody foresaw: it hinders no other (I8)
            self.engine.spawn(self.recover(live, error))
            return False
        except BaseException:
            live.writing = False
            raise
        live.writing = live.again = False
        self.engine.pump.kick(live)
        return True

    async def load(self, live: Live) -> None:
        """Read an execution back and replay it; children that its commands ask for are made sure of. Raises Weather."""
        run = live.run
        live.code = self.engine.code
        try:
            while True:
                seen = run.seen
                records, messages = await self.engine.off_loop(
                    lambda: (self.engine.log.records(run.id, run.run), self.engine.log.inbox(run.id))
                )
                if run.seen == seen:  # else some were taken in meanwhile, and the log gives nothing twice
                    break
        except Defect as defect:
            run.park(defect)
            return
        run.inbox.clear()
        run.seen = 0
        run.receive(messages)
        run.revive(records, self.engine.sharing.registry_of(run.workflow_name))
        if isinstance(run.defect, Passing):
            raise StoreUnavailable(str(run.defect))
        try:
            children = run.children()
        except Defect as defect:
            run.park(defect)
            return
        if children:
            outcomes = await self.engine.writer.write(list(children.values()))
            for seq, outcome in zip(children, outcomes, strict=True):
                refused = isinstance(outcome, stored.Rejected) and outcome.reason.startswith("conflict")
                if not refused and not isinstance(outcome, Ok):
                    raise StoreUnavailable(f"a child of '{run.id}' could not be created: {outcome.reason}")
                run.made_sure_of(seq, not refused, self.engine.clock.now())

    def start(self, live: Live, why: object) -> None:
        """Read it back, unless it is being written or read back: then that comes first."""
        if not live.writing:
            live.writing = True
            self.engine.spawn(self.recover(live, why))

    async def recover(self, live: Live, why: object) -> None:
        """Its turn may be in the log or not, or it cannot be read: drop, wait a little, read back, go on (L3).

        When the engine closes that is tried once more: what steps came to may not be on record yet.
        """
        give_up = False
        while self.engine.live.get(live.run.id) is live:
            live.tries += 1
            LOGGER.warning("execution '%s' is read back (try %d): %s", live.run.id, live.tries, why)
            await self.engine.pause(min(RETRY_MAX_S, 0.02 * 2 ** min(live.tries, 10)))
            try:
                if live.lapsed:
                    await self.engine.claims.until_leased()
                    live.lapsed = False
                give_up = not await self.read_back(live, why)
                break
            except StoreFailed as failed:
                self.engine.fail(failed)
                break
            except Weather as weather:
                why = weather
            except Exception as error:
                LOGGER.exception("execution '%s' cannot be read back", live.run.id)
                why = error
            if self.engine.closing:
                break
        live.writing = live.again = False
        if give_up:
            self.engine.pump.lose(live)
        elif self.engine.live.get(live.run.id) is live and not self.engine.closing:
            self.engine.suspects.take([live])
            self.engine.pump.kick(live)

    async def read_back(self, live: Live, why: object) -> bool:
        """One try of it; False when the execution is in other hands. Raises Weather."""
        run = live.run
        try:
            summary = await self.engine.off_loop(lambda: self.engine.log.summary(run.id))
        except Defect as defect:
            run.park(defect)
            return True
        if summary is not None and summary.fence < run.fence:  # fences only grow (I6)
            raise StoreUnavailable("it was given again while it was read")
        if summary is None or summary.fence != run.fence:
            if summary is not None and summary.owner == self.engine.worker:
                self.engine.claims.miss()  # lost and given again, while this one stood in its place
            return False
        if summary.owner != self.engine.worker and not summary.status.closed:
            held = await self.engine.claims.acquire(run.id)
            if held is None:
                return False
            if held.fence != run.fence + 1:
                self.engine.claims.miss()  # it is ours, after somebody else has had it
                return False
            summary, run.fence = held, held.fence  # the lease had run out, and nobody else has had it
        if summary.run != run.run:
            for seq in list(live.calls):
                self.engine.attempts.abandon(live, seq)
            live.run = Run(summary, self.engine.codec)
        facts_alone = run.defect is not None
        await self.load(live)
        refused = why.reason if isinstance(why, stored.Rejected) else ""
        if refused.startswith("too-large") and facts_alone and live.run.replace_largest(refused):
            return True
        if refused.startswith(("invalid", "too-large", "damaged")):
            live.run.park(Defect(f"its turn was refused: {refused}"))
        return True
