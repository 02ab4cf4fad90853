"""Limits of queues over all workers: an attempt begins only with a slot and a token of its queue, where it has limits.

Rule 1: a slot is one worker's as any execution is, by lease and fence (L8); the commit that begins an attempt also
        writes to its slot, with the fence, so that nothing begins with a slot that is another's by then.
Rule 2: a token is used in the commit that begins the attempt: from then on it rests for the time of the rate.
Rule 3: what is not needed goes back: after SPARE_S, after TERM_S when others wait, and whenever the lease is in doubt.
        So nobody who holds one thing waits for ever for another, and no worker is left out for ever.
Rule 4: one task asks the log, one thing after the other; without limited queues there is none.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import attrs

from zart_core import log as stored
from zart_core.errors import InvalidUse, LogCorrupt, StoreFailed, StoreUnavailable, Weather
from zart_core.events import Ok, Status
from zart_core.hosts.live import Attempt, Live
from zart_core.hosts.turns import Run
from zart_core.policies import seconds
from zart_core.queues import Places, Queue, is_limited, places_for, places_of, said_of

if TYPE_CHECKING:
    from zart_core.hosts.engine import AsyncEngine

SPARE_S = 0.1
"""How long a slot or token that nobody uses is kept for the next attempt here."""
TERM_S = 5.0
"""How long a worker goes on from attempt to attempt with one slot before it looks whether another waits."""
LOOK_MIN_S = 0.02
LOOK_MAX_S = 0.5
"""Times between two looks at what is free while attempts wait, when nobody says that something was written."""
TICK_S = 0.001
"""The shortest rest."""
HEARD_GAP_S = 0.1
"""The shortest time between two of them when somebody does."""
REST_MAX_S = 5.0
"""The longest wait for a token that rests, so that a clock that jumps is noticed."""
LOGGER = logging.getLogger("zart.engine")


@attrs.define(eq=False)
class Held:
    """A slot or a token that this worker holds."""

    id: str
    fence: int
    leases: int
    """How often the lease had been in doubt when it was asked for."""
    since: float
    """When it was got, in seconds of the loop."""
    spare_at: float
    """When it goes back if nobody has used it."""
    wake: float | None = None
    """Until when a token rests, in seconds since the epoch."""


@attrs.define(eq=False)
class Use:
    """What one attempt began with."""

    line: Line
    slot: Held | None
    token: Held | None
    what: str
    """The attempt, in words."""
    durable: bool = False
    """Whether the turn that begins it is in the log."""


@attrs.define(eq=False)
class Line:
    """A limited queue, as one worker sees it."""

    queue: Queue
    declared: bool = True
    """Whether this worker says what the limits are; else it does not serve the queue, and goes by what others said."""
    read: bool = True
    """Whether it is known what the limits are."""
    slots: deque[Held] = attrs.field(factory=lambda: deque[Held]())
    """Slots that are free for the next attempt here."""
    tokens: deque[Held] = attrs.field(factory=lambda: deque[Held]())
    waiting: dict[str, Live] = attrs.field(factory=lambda: dict[str, Live]())
    """Executions with steps that wait, the longest first."""
    look_at: float = 0.0
    """When the log is asked next, in seconds of the loop."""
    looked_at: float = -HEARD_GAP_S
    """When it was asked last."""
    pause_s: float = LOOK_MIN_S
    starved: bool = False
    """Whether it is this worker's own slots that are missing."""
    passed_over: bool = False
    """Whether steps that others offer were left where they are, because some of this queue wait here."""
    term_over: bool = False
    """Whether a slot went back because its term was over: others may be let in first."""
    odd: dict[str, tuple[float, float]] = attrs.field(factory=lambda: dict[str, tuple[float, float]]())
    """Tokens that rest for longer than the time of the rate: until when, and since when that is known here."""


class Limits:
    """Keeps an engine within the limits of its queues."""

    def __init__(self, engine: AsyncEngine, queues: Mapping[str, Queue]) -> None:
        self.engine = engine
        self.lines = {name: Line(queue) for name, queue in queues.items() if is_limited(queue)}
        self.unlimited = {name for name, queue in queues.items() if not is_limited(queue)}
        """Queues of which any number of steps may run here."""
        self.uses: dict[Live, dict[int, Use]] = {}
        """What attempts began with, by execution and seq; one that was lost and came back is another."""
        self.lingering: dict[Attempt, Use] = {}
        """Attempts that were abandoned and whose threads still run (R11)."""
        self.back: list[tuple[Held, float | None]] = []
        """What is to be given back, and until when it rests."""
        self.doubtful: dict[str, tuple[Line, deque[Held]]] = {}
        """Places, and where they belong, that may have been given, though the answer was lost."""
        self.stirred = asyncio.Event()

    # ------------------------------------------------------------ what turns ask

    def room(self, queue: str) -> int | None:
        """How many attempts of a queue may begin now; None for any number."""
        line = self.lines.get(queue)
        return None if line is None else self.free(line)

    def free(self, line: Line) -> int:
        """How many slots and tokens, or pairs of them, are here to begin with."""
        if not line.read:
            return 0
        counts = [
            sum(self.is_sure(held) for held in place)
            for limit, place in ((line.queue.limit, line.slots), (line.queue.rate, line.tokens))
            if limit is not None
        ]
        return min(counts)

    def is_sure(self, held: Held) -> bool:
        """Whether the lease under which it was got has not been in doubt since."""
        return held.leases == self.engine.attempts.leases

    def admit(self, run: Run, seq: int, queue: str, step: str, now: float) -> bool:
        """Whether an attempt may begin in the turn that is being built; it then has what it needs."""
        if queue in self.unlimited:
            return True
        line = self.lines.get(queue)
        if line is None:  # begun on a worker that served it, which is gone
            line = self.lines[queue] = Line(Queue(queue), declared=False, read=False)
        live = self.engine.live.get(run.id)
        if live is None or live.run is not run or self.free(line) == 0:
            return False
        slot = self.taken(line.slots) if line.queue.limit is not None else None
        token = self.taken(line.tokens) if line.queue.rate is not None else None
        if (
            token is not None
        ):  # from now on, though its execution may have seen a later time on another's clock (F13)
            token.wake = self.engine.clock.now() + seconds(line.queue.per)
        what = f"step '{step}' of execution '{run.id}'"
        self.uses.setdefault(live, {})[seq] = Use(line, slot, token, what)
        return True

    def taken(self, place: deque[Held]) -> Held:
        """Take the one that was got first, of those that are sure."""
        held = next(held for held in place if self.is_sure(held))
        place.remove(held)
        return held

    def writes(self, live: Live) -> Iterator[stored.Write]:
        """What goes into the commit of a turn that begins limited attempts (Rules 1 and 2)."""
        for use in self.uses.get(live, {}).values():
            if use.durable:
                continue
            if use.slot is not None:
                yield stored.Mark(use.slot.id, Status.PAUSED, use.what, fence=use.slot.fence)
            if use.token is not None:
                yield stored.Mark(
                    use.token.id, Status.PAUSED, wake=use.token.wake, fence=use.token.fence, releases=True
                )

    def line_up(self, live: Live) -> None:
        """It has attempts that wait for slots or tokens."""
        for queue in live.run.barred:
            line = self.lines.get(queue)
            if (
                line is not None
            ):  # else it turned out to have no limits, and the run ended before it could begin
                line.waiting[live.run.id] = live  # in the place of one that was lost and came back
        self.stirred.set()

    def is_waiting(self, queue: str) -> bool:
        """Whether steps of a queue wait here: more of them are not taken from others then."""
        line = self.lines.get(queue)
        if line is None or not line.waiting:
            return False
        line.passed_over = True
        return True

    # ------------------------------------------------------------ what becomes of attempts

    def durable(self, live: Live) -> None:
        """The turn is in the log, and with it what its attempts began with."""
        for use in self.uses.get(live, {}).values():
            use.durable = True

    def give_up(
        self,
        live: Live,
        attempt: Attempt,
        runs: concurrent.futures.Future[Any] | asyncio.Task[None] | None,
    ) -> None:
        """An attempt is over. If nobody waits for it and its thread or task runs, it keeps its slot until that ends."""
        uses = self.uses.get(live)
        if uses is None:
            return
        if runs is not None and not runs.done() and attempt.call.seq in uses:
            self.lingering[attempt] = uses.pop(attempt.call.seq)
            runs.add_done_callback(lambda _: self.back_on_loop(attempt))
        self.settle(live)

    def back_on_loop(self, attempt: Attempt) -> None:
        """The thread of an abandoned attempt has ended; after the loop's end nobody wants to know."""
        with contextlib.suppress(RuntimeError):
            self.engine.loop.call_soon_threadsafe(self.has_ended, attempt)

    def has_ended(self, attempt: Attempt) -> None:
        """What it had is free."""
        self.end(self.lingering.pop(attempt))

    def settle(self, live: Live) -> None:
        """Attempts of an execution may have ended, or do not begin after all: take back what they had."""
        uses = self.uses.get(live)
        if uses is None:
            return
        for seq in [seq for seq in uses if seq not in live.run.running]:
            self.end(uses.pop(seq))
        if not uses:
            del self.uses[live]

    def end(self, use: Use) -> None:
        """An attempt is over: its slot is free for the next one here, unless it was kept for long enough."""
        now, slot, token = self.engine.loop.time(), use.slot, use.token
        if token is not None and not use.durable:  # it may be in the log all the same: then it rests
            self.back.append((token, token.wake))
        if slot is not None:
            slot.spare_at = now + SPARE_S
            over = now - slot.since > TERM_S
            use.line.term_over = use.line.term_over or over
            if over or not use.durable:  # it may be another's by now
                use.line.look_at = 0.0
                self.back.append((slot, None))
            else:
                use.line.slots.append(slot)
        self.stirred.set()

    def slot_freed(self) -> None:
        """An attempt has ended here, of whatever queue: there is room for another."""
        for line in self.lines.values():
            if line.starved:
                line.starved = False
                line.look_at = 0.0
                self.stirred.set()

    def heard(self) -> None:
        """Somebody wrote to the log: a slot may be free."""
        for line in self.lines.values():
            if line.waiting and line.looked_at + HEARD_GAP_S < line.look_at:
                line.look_at = line.looked_at + HEARD_GAP_S
                self.stirred.set()

    def time_moved(self) -> None:
        """The clock may have been moved by hand: tokens may have rested."""
        for line in self.lines.values():
            if line.waiting and line.queue.rate is not None:
                line.look_at = 0.0
                self.stirred.set()

    # ------------------------------------------------------------ the task

    async def make(self) -> None:
        """Make sure that the places of each limited queue are in the log; it does without those that are damaged (I8).

        Raises InvalidUse, Weather.
        """
        now = self.engine.clock.now()
        for name, line in self.lines.items():
            for outcome in await self.engine.writer.write(places_for(self.engine.codec, line.queue, now)):
                if isinstance(outcome, stored.Rejected) and outcome.reason.startswith("damaged"):
                    LOGGER.error("queue '%s' does without a place: %s", name, outcome.reason)
                    continue
                if isinstance(outcome, stored.Rejected) and outcome.reason.startswith("conflict"):
                    raise InvalidUse(f"the slots of queue '{name}' cannot be made: {outcome.reason}")
                if not isinstance(outcome, Ok):
                    raise StoreUnavailable(f"the slots of queue '{name}' could not be made: {outcome.reason}")

    async def keep(self) -> None:
        """Get what attempts wait for, and give back what none needs, for as long as the engine is open."""
        while not self.engine.closing:
            try:
                await self.tend()
            except StoreFailed as failed:
                self.engine.fail(failed)
                return
            except Weather as weather:
                LOGGER.warning("the slots of queues cannot be asked for: %s", weather)
                await self.engine.pause(LOOK_MAX_S)
            except Exception:
                LOGGER.exception("the slots of queues cannot be asked for")
                await self.engine.pause(REST_MAX_S)
            else:
                await self.rest()

    async def rest(self) -> None:
        """Wait until something changes, or until it is time to look."""
        now = self.engine.loop.time()
        at = [now + LOOK_MAX_S] if self.back or self.doubtful else []
        for line in self.lines.values():
            at += [held.spare_at for held in (*line.slots, *line.tokens)]
            if line.waiting:
                at.append(line.look_at)
        timeout = max(TICK_S, min(at) - now) if at else None
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stirred.wait(), timeout)
        self.stirred.clear()

    async def tend(self) -> None:
        """One round. Raises Weather."""
        for id, (line, place) in list(self.doubtful.items()):
            await self.ask(line, place, [id])
        self.sort_out()
        await self.give_back()
        for line in list(self.lines.values()):
            wanted, now = self.wanted(line), self.engine.loop.time()
            looks = now >= line.look_at
            if looks:
                self.clear(line)
                line.look_at = now + LOOK_MAX_S
                if wanted > self.free(line) and self.may_get_more(line):
                    await self.look(line)
            self.serve(line)
            if looks:
                self.engine.suspects.stand_aside(line.waiting)

    def sort_out(self) -> None:
        """Put with what goes back whatever is in doubt, or was not used for a while."""
        now = self.engine.loop.time()
        for line in self.lines.values():
            for place in (line.slots, line.tokens):
                for held in [held for held in place if held.spare_at <= now or not self.is_sure(held)]:
                    place.remove(held)
                    self.back.append((held, held.wake))

    async def give_back(self) -> None:
        """Give back what is to be given back; what another has by now is no longer ours to give. Raises StoreFailed."""
        if not self.back:
            return
        back, self.back = self.back, []
        writes = [
            stored.Mark(held.id, Status.PAUSED, wake=wake, fence=held.fence, releases=True)
            for held, wake in back
        ]
        try:
            outcomes = await self.engine.writer.write(writes)
        except BaseException:
            self.back = [*back, *self.back]
            raise
        for one, outcome in zip(back, outcomes, strict=True):
            lasting = isinstance(outcome, stored.Rejected) and not outcome.reason.startswith(
                ("unavailable", "full")
            )
            if not isinstance(outcome, Ok) and not lasting:
                self.back.append(one)

    def waits(self, line: Line, live: Live) -> bool:
        """Whether an execution in line is still here, and has steps that wait for room in the queue."""
        return self.engine.live.get(live.run.id) is live and line.queue.name in live.run.barred

    def clear(self, line: Line) -> None:
        """Forget who waits no more, wherever it stands in line. O(n)."""
        for id in [id for id, live in line.waiting.items() if not self.waits(line, live)]:
            del line.waiting[id]

    def wanted(self, line: Line) -> int:
        """How many attempts could begin now if they had what they wait for; forgets who waits no more at the head.

        Looks at no more of the line than may begin: it is asked for each attempt, and the line may be long.
        """
        name, engine = line.queue.name, self.engine
        slots, count = engine.attempts.slots, 0
        gone: list[str] = []
        for id, live in line.waiting.items():
            if not self.waits(line, live):
                gone.append(id)
            elif (count := count + len(live.run.barred[name])) >= slots:
                break
        for id in gone:
            del line.waiting[id]
        if not line.waiting and line.passed_over:
            line.passed_over = False
            engine.claims.claiming.set()
        line.starved = bool(line.waiting) and slots <= 0
        if engine.opening or line.starved:
            return 0
        watched = engine.suspects.watched
        if watched is not None:
            suspect = line.waiting.get(watched[0])
            return int(suspect is not None and watched[1] in suspect.run.barred.get(name, ()))
        return min(slots, count)

    def may_get_more(self, line: Line) -> bool:
        """Whether this worker does not have all slots of a queue already."""
        limit = line.queue.limit
        if limit is None or not line.read:
            return True
        return len(line.slots) + sum(use.line is line for use in self.in_use()) < limit

    def in_use(self) -> Iterator[Use]:
        """What attempts have that run here, those included that nobody waits for."""
        for uses in self.uses.values():
            yield from uses.values()
        yield from self.lingering.values()

    async def look(self, line: Line) -> None:
        """Take what is free of what is missing. Raises Weather."""
        name, loop = line.queue.name, self.engine.loop
        line.looked_at = loop.time()
        line.look_at = line.looked_at + line.pause_s
        places = await self.engine.off_loop(partial(places_of, self.engine.log, name))
        if not line.declared and not self.goes_by(line, places):
            return
        limit, rate = line.queue.limit, line.queue.rate
        door = places.door.build if places.door is not None else ""
        if line.term_over:
            line.term_over = False
            if door not in ("", self.engine.worker):
                await self.knock("", places)
                line.look_at = loop.time() + 2 * LOOK_MAX_S  # who waits looks before that
                return
        now, count = self.engine.clock.now(), self.wanted(line)
        slots = [one.id for n, one in sorted(places.slots.items()) if n < (limit or 0) and self.is_free(one)]
        tokens = [one for n, one in sorted(places.rate.items()) if n < (rate or 0) and self.is_free(one)]
        rested = [one.id for one in tokens if self.rests_until(line, one, now) <= now]
        if limit is not None:
            count = min(count, len(line.slots) + len(slots))
        if rate is not None:
            count = min(count, len(line.tokens) + len(rested))
        if limit is not None:
            await self.ask(line, line.slots, slots[: max(0, count - len(line.slots))])
        if rate is not None:
            await self.ask(line, line.tokens, rested[: max(0, count - len(line.tokens))])
        if self.free(line):
            line.pause_s = LOOK_MIN_S
            return
        line.pause_s = min(LOOK_MAX_S, 2 * line.pause_s)
        if limit is not None and not slots and not door:
            await self.knock(self.engine.worker, places)
        if tokens and not rested:
            rest_s = min(self.rests_until(line, one, now) for one in tokens) - now
            patience_s = REST_MAX_S if len(tokens) == rate else line.pause_s
            line.look_at = loop.time() + min(rest_s, patience_s)

    def goes_by(self, line: Line, places: Places) -> bool:
        """Take what others said last of a queue that is not served here; False when they say nothing."""
        queue = said_of(line.queue.name, places)
        if queue is not None:
            line.queue, line.read = queue, True
            return True
        del self.lines[line.queue.name]
        self.unlimited.add(line.queue.name)
        for live in line.waiting.values():
            self.engine.pump.kick(live)
        return False

    def is_free(self, one: stored.Summary) -> bool:
        """Whether a place is nobody's, or ours without our knowing it."""
        return one.owner is None or (one.owner == self.engine.worker and one.id not in set(self.known()))

    def known(self) -> Iterator[str]:
        """What this engine knows that it holds."""
        for line in self.lines.values():
            yield from (held.id for held in (*line.slots, *line.tokens))
        for use in self.in_use():
            yield from (held.id for held in (use.slot, use.token) if held is not None)
        yield from (held.id for held, _ in self.back)

    def rests_until(self, line: Line, token: stored.Summary, now: float) -> float:
        """When a token has rested, by this worker's clock.

        One that would rest for longer than the time of the rate was used by a clock that is ahead, or that has been put
        back since: it has rested when it has been seen like this for that time (F13).
        """
        wake, per_s = token.wake or 0.0, seconds(line.queue.per)
        if wake <= now + per_s:
            line.odd.pop(token.id, None)
            return wake
        time = self.engine.loop.time()
        before, since = line.odd.get(token.id, (wake, time))
        line.odd[token.id] = (wake, since) = (wake, since if before == wake else time)
        return now + since + per_s - time

    async def ask(self, line: Line, place: deque[Held], ids: Sequence[str]) -> None:
        """Take places by their ids, as far as nobody else has them and they are whole (I8). Raises Weather."""
        for id in ids:
            self.doubtful[id] = (line, place)
            leases = self.engine.attempts.leases
            try:
                given = await self.engine.claims.acquire(id)
            except LogCorrupt as damage:
                LOGGER.error("queue '%s' does without a place: %s", line.queue.name, damage)
                given = None
            del self.doubtful[id]
            if given is None:
                continue
            now = self.engine.loop.time()
            held = Held(id, given.fence, leases, now, now + SPARE_S, given.wake)
            clock_now = self.engine.clock.now()
            if given.wake is not None and self.rests_until(line, given, clock_now) > clock_now:
                self.back.append((held, given.wake))  # somebody has used it since
            else:
                place.append(held)

    async def knock(self, who: str, places: Places) -> None:
        """Say at the queue's door that this worker waits; nobody, when that was heard. Raises StoreFailed."""
        if places.door is not None:
            mark = stored.Mark(places.door.id, Status.PAUSED, places.door.reason, build=who)
            await self.engine.writer.write([mark])

    def serve(self, line: Line) -> None:
        """Have those build turns who have waited longest, as far as there is something to begin with."""
        watched = self.engine.suspects.watched
        room = min(self.wanted(line), self.free(line))
        for id in list(islice(line.waiting, room)) if watched is None else [watched[0]] * room:
            self.engine.pump.kick(line.waiting.pop(id))
        self.wanted(line)
