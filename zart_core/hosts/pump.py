"""The pump: builds turns, hands them to the writer, and carries out what they ask for.

Rule 1: one turn of an execution is in flight at a time; while it is, what happens gathers for the next one.
Rule 2: nothing leaves the process before the turn is durable (R1).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Collection
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING

from zart_core import log as stored
from zart_core.empties import NO_ENTRIES
from zart_core.errors import Defect, text_of
from zart_core.events import Ok, Status
from zart_core.hosts.inline import conflicts_of, emit
from zart_core.hosts.live import Live
from zart_core.hosts.results import let_go
from zart_core.hosts.turns import Passing, Run

if TYPE_CHECKING:
    from zart_core.hosts.engine import AsyncEngine

TRIES_UNSEEN = 8
"""How often a turn that cannot be built is tried again, after longer and longer pauses, before lists show it."""
LOGGER = logging.getLogger("zart.engine")


class Pump:
    """Gives each execution its turns."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.dirty: deque[Live] = deque()
        self.announced = False
        """Whether it will run in the next round of the loop."""
        self.context = copy_context()
        """What turns are built in: nothing gets into it that a step has set for itself."""

    def kick(self, live: Live) -> None:
        """Something has happened to it: it gets its next turn."""
        if self.engine.closing or self.engine.writer.failed is not None:
            return
        if live.writing:
            live.again = True
        elif not live.dirty:
            live.dirty = True
            self.dirty.append(live)
            self.soon()

    def go_on(self, live: Live) -> None:
        """As `kick`, for whose attempt gave a value; where no other turn could join its commit, it is built right now.

        That saves a round of the loop: 8 of the 110 us that a step takes in memory.
        """
        if self.is_alone() and not (live.writing or self.engine.closing or self.engine.writer.failed):
            live.dirty = True
            self.dirty.append(live)
            self.context.run(self.run)
        else:
            self.kick(live)

    def is_alone(self) -> bool:
        """Whether the loop is the engine's own, and nothing runs that a commit on it would hold up."""
        busy = self.engine.attempts.running or self.engine.transactions.pending or self.dirty
        return self.engine.owns_loop and not busy

    def soon(self) -> None:
        """Build turns in the next round of the loop."""
        if not self.announced:
            self.announced = True
            self.engine.loop.call_soon(self.run, context=self.context)

    def run(self) -> None:
        """Build the next turn of everything in line."""
        self.announced = False
        try:
            for _ in range(len(self.dirty)):
                live = self.dirty.popleft()
                live.dirty = False
                if live.writing:
                    live.again = True
                elif self.engine.live.get(live.run.id) is live and not self.engine.closing:
                    self.turn(live)
            self.engine.attempts.call_in_all()
        finally:
            if self.dirty:
                self.soon()
            self.engine.writer.hurry()

    def turn(self, live: Live) -> None:
        """Build a turn and hand it to the writer; carry on at once where there is nothing to write."""
        try:
            writes = self.build_turn(live)
        except Exception as error:
            LOGGER.exception("execution '%s' cannot go on", live.run.id)
            why = (
                text_of(error) if isinstance(error, Passing) else f"{type(error).__name__}: {text_of(error)}"
            )
            self.put_off(live, f"its turn cannot be built: {why}")
            return
        transactions = self.engine.transactions
        for seq in live.run.ends:  # a transaction may hold the lock that the turn needs
            if seq in live.calls:
                transactions.end(live.calls[seq])
        if live.run.id in transactions.pending and transactions.commit(live, writes):
            live.writing = True
        elif writes:
            live.writing = True
            self.engine.writer.put(writes, partial(self.written, live))  # `run` hurries it
        else:
            self.carry_out(live)

    def put_off(self, live: Live, why: str) -> None:
        """Its turn cannot be built, which may pass: a key is out of reach, say. It is read back and tried again.

        What the attempts came to is kept meanwhile. Lists show it as parked once that has lasted for some ten seconds.
        """
        run = live.run
        self.engine.attempts.give_slots(run.begun)
        run.park(Defect(why))
        self.engine.limits.settle(live)
        self.engine.transactions.take_back(live)  # it may hold a lock that others need
        if live.tries >= TRIES_UNSEEN:
            self.engine.writer.submit([run.mark(self.engine.build)], lambda _: None)
        self.engine.recovery.start(live, why)

    def build_turn(self, live: Live) -> list[stored.Write]:
        """The writes of its next turn; empty when there is nothing to write."""
        run, now = live.run, self.engine.clock.now()
        run.build(now)
        self.engine.attempts.begin(run, now, live.overflow)
        if live.overflow:
            self.engine.sharing.offered(live)
        if run.ready:
            self.engine.attempts.line_up(live)
        if run.barred:
            self.engine.limits.line_up(live)
        if self.engine.limits.uses:
            self.engine.limits.settle(live)
        live.released = run.defect is not None and not live.calls
        writes = run.compose(now, build=self.engine.build, releases=live.released)
        return (
            [*writes, *self.engine.limits.writes(live)] if run.begun and self.engine.limits.uses else writes
        )

    def written(self, live: Live, outcomes: list[stored.Appended]) -> None:
        """The turn's outcome: carry out what it asks for, or read back and build another."""
        self.engine.attempts.offer()
        for outcome in outcomes:
            if not isinstance(outcome, Ok):
                self.refused(live, outcomes[0])
                return
        live.writing = False
        live.tries = 0
        if self.engine.limits.uses:
            self.engine.limits.durable(live)
        self.carry_out(live, conflicts_of(outcomes) if live.run.creates else ())
        if live.again:
            live.again = False
            self.kick(live)

    def refused(self, live: Live, first: stored.Appended) -> None:
        """The turn is not in the log, or may not be. `first` is its own outcome; after it come those of its slots."""
        self.engine.attempts.give_slots(live.run.begun)
        live.run.drop()
        self.engine.limits.settle(live)
        if self.engine.writer.failed is not None:
            live.writing = False
            self.engine.fail(self.engine.writer.failed)
        elif isinstance(first, stored.Rejected) and first.reason.startswith(("closed", "unknown")):
            live.writing = False
            self.lose(live)
        else:
            why = (
                first if not isinstance(first, Ok) else "a slot that it was to begin with is another's by now"
            )
            self.engine.spawn(self.engine.recovery.recover(live, why))

    def lose(self, live: Live) -> None:
        """Somebody else has it now: forget it, and what runs for it."""
        LOGGER.info("execution '%s' is in other hands now", live.run.id)
        for seq in list(live.calls):
            self.engine.attempts.abandon(live, seq)
        self.engine.transactions.give_up(live.run.id)
        self.engine.transactions.tries.pop(live.run.id, None)
        self.engine.attempts.give_slots(live.run.begun)
        if self.engine.live.get(live.run.id) is live:
            del self.engine.live[live.run.id]
        live.run.drop()
        self.engine.limits.settle(live)
        self.engine.suspects.end_trial(live)
        self.engine.results.look_again(live.run.id)
        self.engine.claims.claiming.set()
        self.engine.attempts.offer()

    def carry_out(self, live: Live, conflicts: Collection[str] = ()) -> None:
        """The turn is durable: do what it asks for; nothing leaves the process before (R1)."""
        run = live.run
        posted = run.posted
        effects = run.committed(self.engine.clock.now(), conflicts)
        for line in effects.lines:
            emit(line)
        for seq in effects.dropped:
            self.engine.attempts.abandon(live, seq)
        for seq in effects.stops:
            self.engine.attempts.tell_to_end(live, seq)
        for id in effects.recalled:
            self.engine.spawn(self.engine.sharing.recall(id))
        if effects.calls and not self.engine.closing:  # else they are handed over with the rest
            if self.engine.claims.is_leased() and not live.lapsed:
                for call in effects.calls:
                    self.engine.attempts.start(live, call)
            else:
                self.engine.attempts.hold_back(live, effects.calls)
        live.calls = live.calls or NO_ENTRIES
        if effects.created or posted:
            self.engine.claims.claiming.set()
        if run.closed is not None:
            return self.ended(live)
        if run.defect is not None:
            return self.parked(live)
        if live.lapsed:
            return self.engine.recovery.start(live, "the lease may have run out")
        if self.engine.tried:
            self.engine.tried.pop(run.id, None)
        if self.engine.suspects.on_trial is not None:
            self.engine.suspects.end_trial(live)
        if run.outcomes or run.has_more or (run.ready and self.engine.attempts.slots > 0 and not live.hungry):
            self.kick(live)
        self.engine.alarms.set_for(live)
        if len(self.engine.live) > self.engine.max_live:
            self.engine.claims.shrink()
        return None

    def ended(self, live: Live) -> None:
        """The run is over: tell who waits, or take up the next run."""
        run = live.run
        assert run.closed is not None
        for seq in list(live.calls):
            self.engine.attempts.abandon(live, seq)
        self.engine.transactions.give_up(run.id)  # of a step that returned while this turn was being written
        closed, opened = run.closed, run.opened
        run.drop()
        self.engine.suspects.end_trial(live)
        if opened is not None:
            self.next_run(live, opened)
            return
        if closed.status is Status.CONTINUED:  # by somebody else: this run was read when it was over already
            self.lose(live)
            return
        self.engine.live.pop(run.id, None)
        self.engine.transactions.tries.pop(run.id, None)
        self.engine.results.tell(run.id, closed)

    def next_run(self, live: Live, opened: list[stored.Record]) -> None:
        """Go on with the run that continue_as_new opened."""
        old = live.run
        run = live.run = Run(old.summary_of_next(len(opened)), self.engine.codec)
        run.inbox, run.seen = old.inbox, old.seen
        run.revive(opened, self.engine.registry)
        if isinstance(run.defect, Passing):
            self.engine.recovery.start(live, run.defect)
        else:
            self.kick(live)

    def parked(self, live: Live) -> None:
        """Code and log disagree: say so to who waits, and let go once nothing runs for it (R20)."""
        run = live.run
        assert run.defect is not None
        self.engine.suspects.end_trial(live)
        if live.code != self.engine.code:  # other code was registered meanwhile
            live.writing = True
            self.engine.spawn(self.engine.recovery.recover(live, "other code was registered"))
            return
        if run.id not in self.engine.tried:
            LOGGER.error("execution '%s' is parked: %s", run.id, run.defect)
        let_go(run.defect)
        self.engine.tried[run.id] = run.defect
        for future in self.engine.results.waiters.pop(run.id, ()):
            if not future.done():
                future.set_exception(run.defect)
        if run.outcomes or not (live.calls or live.released):
            self.kick(live)
        elif live.released:
            self.engine.live.pop(run.id, None)
            run.drop()
            if run.wake is not None:
                self.engine.alarms.set(run.wake, "")
        else:
            self.engine.alarms.set_for(live)
