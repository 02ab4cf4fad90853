"""Finding work: claiming what is due, holding it in memory, and letting it go."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from zart_core import log as stored
from zart_core.errors import LogCorrupt, StoreFailed, UnknownWorkflow, Weather
from zart_core.events import Ok, Status
from zart_core.hosts.live import Live
from zart_core.hosts.offers import is_offered
from zart_core.hosts.turns import Run
from zart_core.workflows import version_claimed

if TYPE_CHECKING:
    from zart_core.hosts.engine import AsyncEngine

LEASE_S = 30.0
"""How long what a worker holds stays its own after it was last heard of, unless another lease was asked for."""
LEASE_MIN_S = 1.0
"""The shortest lease: a busy machine or server may be silent for almost as long."""
MARGIN = 1 / 15
"""So much of its lease before the end the engine stops by itself (F24)."""
RENEWAL = 1 / 6
"""After so much of it the lease is renewed when nothing else does it, and so long an answer is waited for."""
SAFETY_S = 2.0
"""How often the log is asked for work although nobody said that there is any."""
PARKED_S = 10.0
"""How often parked executions are looked at, which others may have parked for want of code that is here."""
CLAIM_GAP_S = 0.05
"""The shortest time between two such questions when other processes write."""
DEATH_GAP_S = 0.4
"""The shortest time between two such questions when nothing is due: a worker may have died."""
CLAIMS_MAX = 500
EVICTION_LOOKS = 16
"""How many executions are looked at each time there are too many: it takes no longer, however many those are."""
T = TypeVar("T")
LOGGER = logging.getLogger("zart.engine")


class Claims:
    """Asks the log for work, and keeps the lease."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.lease_s = engine.lease_s
        self.margin_s = engine.lease_s * MARGIN
        self.renew_s = engine.lease_s * RENEWAL
        self.claimed_at = 0.0
        self.claiming: asyncio.Event = asyncio.Event()
        self.leased_until = 0.0
        """Until when what the engine holds is surely its own, in seconds of the loop."""
        self.in_doubt = False
        """Whether the answer to a claim was lost: the log may have given what is not here."""
        self.alarmed = False
        """Whether the alarm is set for what will be due next; not while another worker is late."""
        self.left = False
        """Whether steps that others offer were left where they are, for want of room."""
        self.taken: list[Live] = []
        """What was taken up, and whose suspects are not tried yet."""
        self.leaving: dict[str, bool] = {}
        """What was let go, and whether that is written: taken up again meanwhile, it may be nobody's right after."""

    # ------------------------------------------------------------ the lease

    def is_leased(self) -> bool:
        """Whether what the engine holds is surely its own, and for a while yet (F24)."""
        return self.engine.loop.time() < self.leased_until - self.margin_s

    async def until_leased(self) -> None:
        """Wait until it is, or the engine closes."""
        while not self.is_leased() and not self.engine.closing:
            await self.engine.pause(self.renew_s / 10)

    async def leased(self, call: Callable[[], T]) -> T:
        """Make a call of the log that renews the lease. Raises Weather."""
        asked = self.engine.loop.time()
        answer = await self.engine.off_loop(call, waits=False)
        if self.engine.loop.time() > self.leased_until:
            self.engine.attempts.lapse()  # it may have run out before this, and others may have taken what is here
        self.leased_until = max(self.leased_until, asked + self.lease_s)
        return answer

    async def keep_lease(self) -> None:
        """Renew the lease, whatever other calls of the log hang; when that fails, stop what runs in good time (F24)."""
        while not self.engine.closing:
            left = self.leased_until - self.engine.loop.time()
            if left < self.lease_s - self.renew_s:
                try:
                    await asyncio.wait_for(self.renew(), self.renew_s)
                except TimeoutError:
                    LOGGER.warning("the log takes too long to renew the lease")
                except StoreFailed:
                    await self.outlive_lease()
                    return
                except Weather as weather:
                    LOGGER.warning("the lease cannot be renewed: %s", weather)
                except Exception:
                    LOGGER.exception("the lease cannot be renewed")
            if not self.is_leased() and not self.engine.closing:
                self.engine.attempts.lapse()
            left = self.leased_until - self.margin_s - self.engine.loop.time()
            await self.engine.pause(min(self.renew_s, left) if left > 0 else self.renew_s / 10)

    async def outlive_lease(self) -> None:
        """It will not be renewed any more: stop what runs before others may begin it (F24)."""
        left = self.leased_until - self.margin_s - self.engine.loop.time()
        await self.engine.pause(max(0.0, left))
        if not self.engine.is_closing():
            self.engine.attempts.lapse()

    async def renew(self) -> None:
        """Extend the lease on all that the engine holds. Raises Weather."""
        if not await self.leased(lambda: self.engine.log.renew(self.engine.worker, lease_s=self.lease_s)):
            LOGGER.warning("the lease had run out; what others took is dropped at its next turn")
            self.engine.attempts.lapse()  # by the log's account, whatever this engine's own clock says

    # ------------------------------------------------------------ finding work

    async def look_for_work(self) -> None:
        """Claim when somebody says that there is work, and from time to time."""
        looked = self.engine.loop.time()
        while not self.engine.closing:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.claiming.wait(), SAFETY_S)
            told = self.claiming.is_set()
            self.claiming.clear()
            if self.engine.is_closing():
                return
            try:
                parked = self.engine.loop.time() - looked > PARKED_S
                if parked:
                    looked = self.engine.loop.time()
                if told or not parked:
                    await self.take_all(parked=parked, told=told)
                else:  # one look at a time: an idle worker costs next to nothing
                    await self.retry_parked()
                    self.try_taken()
            except StoreFailed as failed:
                self.engine.fail(failed)
                return
            except Weather as weather:
                LOGGER.warning("the log cannot be asked for work: %s", weather)
                await self.engine.pause(CLAIM_GAP_S)
            except Exception:
                LOGGER.exception("the log cannot be asked for work")
                await self.engine.pause(SAFETY_S)

    async def listen(self) -> None:
        """Look for work when another process writes to the log, or dies."""
        while self.engine.log.blocking and not self.engine.closing:
            try:
                heard = await asyncio.wrap_future(
                    self.engine.readers.submit(self.engine.log.wait, SAFETY_S), loop=self.engine.loop
                )
                gone = self.engine.loop.time() - self.claimed_at > DEATH_GAP_S
                if heard:
                    self.engine.limits.heard()
                if heard and (gone or await self.engine.off_loop(self.is_due)):
                    self.claiming.set()
            except StoreFailed:
                return
            except Exception as error:  # noqa: BLE001  # weather; the log is asked from time to time all the same
                LOGGER.warning("the log cannot be listened to: %s", error)
                await self.engine.pause(SAFETY_S)
            await self.engine.pause(CLAIM_GAP_S)

    def is_due(self) -> bool:
        """Whether something is due by the log's own account; a read."""
        wake = self.engine.log.next_wake()
        return wake is not None and wake <= self.engine.clock.now()

    async def take_all(self, *, parked: bool, told: bool = True) -> None:
        """Take what is due, and with `parked` what is parked: all there is before any suspect is tried.

        `told` says that somebody wrote something since the last time, or that this is not known.
        """
        try:
            if self.in_doubt:
                await self.take_given()
            await self.claim_due(told=told)
            if parked:
                await self.retry_parked()
        except Exception:  # what was taken is here all the same
            self.try_taken()
            raise
        self.try_taken()

    def try_taken(self) -> None:
        """Try the suspects of what was taken up, once it is known what was running when this engine was opened."""
        if self.engine.opening:
            return
        taken, self.taken = self.taken, []
        self.engine.suspects.take(taken)

    async def claim_due(self, *, told: bool) -> None:
        """Take what is due; set the alarm for what will be, unless nothing can have changed since it was set."""
        self.alarmed = self.alarmed and not told
        offers_too = full = True
        while not self.engine.closing:
            names, limit = self.wanted(offers_too)
            now = self.engine.clock.now()
            self.claimed_at = self.engine.loop.time()
            gone = [id for id, written in self.leaving.items() if written]
            try:
                given = await self.leased(
                    partial(
                        self.engine.log.claim,
                        self.engine.worker,
                        now=now,
                        lease_s=self.lease_s,
                        limit=limit,
                        workflows=names,
                    )
                )
            except Exception:
                self.in_doubt = True
                raise
            leases = self.engine.attempts.leases
            for summary in given:
                await self.take_up(summary, lapsed=leases != self.engine.attempts.leases)
            for id in gone:
                if self.leaving.get(id):
                    del self.leaving[id]
            told = told or bool(given)
            full = len(given) == limit
            if not full:
                break
            offers_too = not offers_too
        if not told and self.alarmed and self.engine.log.blocking:
            return  # this log can be listened to; what was missed all the same is found once it is due
        wake = await self.engine.off_loop(self.engine.log.next_wake)
        late = wake is not None and wake <= self.engine.clock.now()
        self.alarmed = not late
        self.left = late and (full or self.engine.sharing.room() == 0)
        if (
            wake is not None
            and wake > self.engine.clock.now()
            and not (self.engine.alarms.timers and self.engine.alarms.timers[0][0] <= wake)
        ):
            self.engine.alarms.set(wake, "")

    def wanted(self, offers_too: bool) -> tuple[list[str], int]:
        """What may be claimed now, and how much of it: of steps that others offer no more than there is room for."""
        sharing = self.engine.sharing
        names = list(self.engine.registry.claim_names) if sharing.holds_executions else []
        room = sharing.room()
        if room > 0 and (offers_too or not names):
            return [*names, *sharing.wanted()], min(room, CLAIMS_MAX)
        return names, CLAIMS_MAX

    async def take_given(self) -> None:
        """Take up what the log has given and the answer did not tell: it gives nothing twice. Costs O(unfinished)."""
        self.in_doubt = False
        try:
            held = await self.engine.off_loop(
                lambda: [
                    summary
                    for status in (Status.SCHEDULED, Status.RUNNING, Status.WAITING, Status.PARKED)
                    for summary in pages(self.engine.log, status)
                    if summary.owner == self.engine.worker
                ]
            )
            for summary in held:
                await self.take_given_one(summary)
        except Exception:
            self.in_doubt = True
            raise

    async def take_given_one(self, summary: stored.Summary) -> None:
        """Take up what is not here; read the messages of what is. Raises Weather."""
        live = self.engine.live.get(summary.id)
        if live is None:
            await self.take(summary.id)
        elif summary.unread:
            await self.read_inbox(live)

    def is_elsewhere(self, id: str) -> bool:
        """Whether it is neither here nor about to be."""
        return id not in self.engine.live and id not in self.engine.requests.creating

    async def take(self, id: str) -> None:
        """Take up one execution that is not here, due or not, if nobody else has it. Raises Weather."""
        if self.is_elsewhere(id):
            held = await self.acquire(id)
            if held is not None and self.is_elsewhere(id):
                await self.take_up(held)

    async def acquire(self, id: str) -> stored.Summary | None:
        """Ask for one execution, due or not; None when somebody else has it.

        Raises LogCorrupt, and Weather: it may have been given.
        """
        try:
            return await self.leased(
                partial(self.engine.log.acquire, self.engine.worker, id, lease_s=self.lease_s)
            )
        except LogCorrupt:
            raise
        except Exception:
            self.in_doubt = True
            raise

    def look_at(self, id: str) -> None:
        """The log has given what was about to be here: take in what came for it meanwhile."""
        live = self.engine.live.get(id)
        if live is not None:
            self.engine.spawn(self.read_inbox(live))
        else:
            self.miss()

    def miss(self) -> None:
        """The log may have given what is not here: look through what it says is held."""
        self.in_doubt = True
        self.claiming.set()

    async def take_up(self, summary: stored.Summary, *, lapsed: bool = False) -> None:
        """Hold an execution that was claimed: the live one with its new messages, or one that is replayed.

        What cannot be read is tried again, and what is being created here is looked at when that is done. With
        `lapsed` the lease may have run out since it was claimed; then, and when its release was on the way, it is
        read back and acquired again before anything of it starts (F24).
        """
        if summary.id in self.engine.requests.creating:
            self.engine.requests.asked.add(summary.id)
            return
        live = self.engine.live.get(summary.id)
        if live is not None and live.run.fence == summary.fence - 1:
            live.run.fence = summary.fence  # the lease had run out, and nobody else has had it
        if live is not None and live.run.fence == summary.fence:
            if await self.read_inbox(live):
                self.taken.append(live)
            return
        if live is not None:
            self.engine.pump.lose(live)
        live = Live(Run(summary, self.engine.codec))
        live.writing = True
        live.lapsed = lapsed or summary.id in self.leaving
        self.hold(live)
        if await self.engine.recovery.replay(live):
            self.taken.append(live)

    async def read_inbox(self, live: Live) -> bool:
        """Give a live execution its new messages; False when they could not be read."""
        run = live.run
        if live.writing:
            live.again = True
        try:
            run.receive(await self.engine.off_loop(lambda: self.engine.log.inbox(run.id, run.seen)))
        except StoreFailed:
            raise
        except Exception as error:  # noqa: BLE001  # weather, damage, or what nobody foresaw: it hinders no other (I8)
            if not live.writing:
                live.writing = True
                why = f"its messages cannot be read: {error}"
                self.engine.spawn(self.engine.recovery.recover(live, why))
            else:
                self.engine.spawn(self.read_inbox_later(live))  # it may have been read back without them
            return False
        self.engine.pump.kick(live)
        return True

    async def read_inbox_later(self, live: Live) -> None:
        """Try again to give it its new messages, unless it is gone by then."""
        await self.engine.pause(CLAIM_GAP_S)
        if self.engine.live.get(live.run.id) is live and not self.engine.closing:
            await self.read_inbox(live)

    def hold(self, live: Live) -> None:
        """Keep it in memory, and let the least recently used idle one go if there are too many."""
        self.engine.live[live.run.id] = live
        self.engine.live.move_to_end(live.run.id)
        self.shrink(live)

    def shrink(self, but: Live | None = None) -> None:
        """Let idle executions go, the least recently used first, while there are too many; busy ones get to the end."""
        held = self.engine.live
        for _ in range(EVICTION_LOOKS):
            if len(held) <= self.engine.max_live or self.engine.closing:
                return  # as it closes nothing is idle: turns are no longer built, all is handed over
            oldest = next(iter(held.values()))
            if oldest is but or not self.is_idle(oldest):
                held.move_to_end(oldest.run.id)
            else:
                self.evict(oldest)

    def is_idle(self, live: Live) -> bool:
        """Whether nothing goes on with it in this process."""
        return live.run.idle and not (live.writing or live.dirty or live.calls)

    def evict(self, live: Live) -> None:
        """Give a suspended execution back; the log finds it when it is due."""
        mark = live.run.mark(self.engine.build, releases=True)
        if live.run.wake is not None:
            self.engine.alarms.set(live.run.wake, "")
        self.engine.live.pop(live.run.id, None)
        live.run.drop()
        self.leaving[live.run.id] = False
        self.engine.writer.submit([mark], lambda outcomes: self.leaving.update({live.run.id: True}))
        self.engine.results.look_again(live.run.id)

    def park_unknown(self) -> None:
        """Mark what is unfinished and whose workflow nobody here has registered (R20). Costs O(unfinished)."""
        statuses = (Status.SCHEDULED, Status.RUNNING, Status.WAITING)
        for status in statuses if self.engine.sharing.holds_executions else ():
            for summary in pages(self.engine.log, status):
                if self.engine.sharing.serves(summary) or is_offered(summary.workflow):
                    continue
                held = self.engine.log.acquire(self.engine.worker, summary.id, lease_s=self.lease_s)
                if held is not None:
                    reason = f"UnknownWorkflow: {self.unregistered(summary)}"
                    # what ran is due to whoever has registered the workflow
                    wake = 0.0 if summary.status is Status.RUNNING else held.wake
                    mark = stored.Mark(
                        held.id, Status.PARKED, reason, self.engine.build, wake, 0, held.fence, releases=True
                    )
                    (outcome,) = self.engine.log.append([mark])
                    if not isinstance(outcome, Ok):  # it is held still, and nobody here would let it go
                        self.engine.log.release(self.engine.worker, [held.id])

    def unregistered(self, summary: stored.Summary) -> str:
        """Say what of an execution is not registered here: its workflow, or its version of that."""
        version = version_claimed(summary.workflow, summary.claimed_as)
        if version is not None and summary.workflow in self.engine.registry:
            try:
                self.engine.registry.version(summary.workflow, version)
            except UnknownWorkflow as unknown:
                return str(unknown)
        return f"workflow '{summary.claim_name}' is not registered"

    async def retry_parked(self) -> None:
        """Take up parked executions that the code at hand has not been tried on, and those that need none to end."""
        sharing = self.engine.sharing
        for summary in await self.engine.off_loop(lambda: list(pages(self.engine.log, Status.PARKED))):
            if sharing.serves(summary):
                if summary.id not in self.engine.tried:
                    await self.take(summary.id)
            elif summary.unread:
                await self.end_unserved(summary)

    async def end_unserved(self, summary: stored.Summary) -> None:
        """Take up what was terminated and is never due here, for want of its code (R18). Raises Weather."""
        sharing = self.engine.sharing
        if sharing.serves(summary) or is_offered(summary.workflow) or not sharing.holds_executions:
            return
        inbox = await self.engine.off_loop(lambda: self.engine.log.inbox(summary.id))
        if any(message.kind == "terminate" for message in inbox):
            await self.take(summary.id)


def pages(log: stored.EventLog, status: Status) -> Iterable[stored.Summary]:
    """Every execution of a status, a page at a time."""
    after = None
    while True:
        page = log.list(status=status, limit=500, after=after)
        yield from page.items
        after = page.next
        if after is None:
            return
