"""What users ask for: new executions and messages, durable when they are answered.

Rule 1: an outcome that is not known is found out by reading, and nothing is created or delivered twice.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING

from zart_core import log as stored
from zart_core.commands import bare
from zart_core.errors import (
    ExecutionClosed,
    InvalidUse,
    StoreFailed,
    StoreUnavailable,
    UnknownExecution,
    Weather,
)
from zart_core.events import Delivered, Ok, Status
from zart_core.hosts.inline import conflict
from zart_core.hosts.live import Live
from zart_core.hosts.relatives import OWN_KEY
from zart_core.hosts.turns import Passing, Run

if TYPE_CHECKING:
    from zart_core.hosts.engine import AsyncEngine

CREATE_GAP_S = 0.05
TRIES_MAX = 8


class Requests:
    """Creates executions and posts messages."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.creating: Counter[str] = Counter()
        """Ids that are being created, and how often at once."""
        self.asked: set[str] = set()
        """Those of them that the log has given meanwhile: it is not told twice that they are due."""

    async def create(self, new: stored.New) -> bool:
        """Create an execution together with its first turn, when it starts now. Raises ExecutionConflict."""
        self.creating[new.id] += 1
        try:
            return await self.try_to_create(new)
        finally:
            self.creating[new.id] -= 1
            if not self.creating[new.id]:
                del self.creating[new.id]
            if new.id in self.asked and new.id not in self.creating:
                self.asked.discard(new.id)
                self.engine.claims.look_at(new.id)

    async def try_to_create(self, new: stored.New) -> bool:
        """Write it, again while it is not known whether it is there."""
        live, leases = None, self.engine.attempts.leases
        if self.engine.sharing.holds_executions and (new.wake is None or new.wake <= self.engine.clock.now()):
            live = self.first_turn(new)
            if live.run.closed is not None or live.run.defect is not None:
                self.forget(live)
                live = None
        try:
            asked = new if live is None else live.run.compose_new(new, self.engine.worker)
        except BaseException:
            self.forget(live)
            raise
        doubt = False
        reason = ""
        for _ in range(TRIES_MAX):
            try:
                (outcome,) = await self.engine.writer.write([asked])
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
                await self.engine.pause(CREATE_GAP_S)
                continue
            except BaseException:
                self.forget(live)
                self.engine.claims.miss()  # it may be there, and ours
                raise
            match outcome:
                case _ if found is not None and found.created_at == new.at and found.digest == new.digest:
                    self.created_in_doubt(live, found)  # it was this one, with an outcome that was not known
                    return True
                case Ok(receipt):
                    self.created(live, receipt, new, lapsed=leases != self.engine.attempts.leases)
                    return receipt.created
                case stored.Rejected(reason) if reason.startswith("conflict"):
                    self.forget(live)
                    raise conflict(new.id)
                case stored.Rejected(reason) if reason.startswith(("too-large", "invalid")):
                    self.forget(live)
                    raise InvalidUse(f"execution '{new.id}' cannot be created: {reason}")
                case stored.Rejected(reason) | stored.Unknown(reason):
                    doubt = doubt or isinstance(outcome, stored.Unknown)
                    await self.engine.pause(CREATE_GAP_S)
        self.forget(live)
        self.engine.claims.miss()  # it may be there, and ours
        raise StoreUnavailable(f"execution '{new.id}' could not be created: {reason}")

    async def summary_or_none(self, id: str) -> stored.Summary | None:
        """An execution as a list shows it, or None."""
        return await self.engine.off_loop(lambda: self.engine.log.summary(id))

    def first_turn(self, new: stored.New) -> Live:
        """The execution as it will be, with its first turn built ahead of its creation."""
        run = Run(
            stored.Summary(
                new.id,
                new.workflow,
                new.digest,
                new.status,
                0,
                0,
                1,
                new.at,
                new.at,
                new.wake,
                self.engine.worker,
            ),
            self.engine.codec,
        )
        run.revive(new.records, self.engine.registry)
        now = self.engine.clock.now()
        with contextlib.suppress(Passing):  # then it is begun once it is there
            run.build(now)
            self.engine.attempts.begin(run, now)
        live = Live(run)
        live.code = self.engine.code
        return live

    def created(self, live: Live | None, receipt: stored.Receipt, new: stored.New, *, lapsed: bool) -> None:
        """The execution is there: hold it if it is ours, or look for it.

        With `lapsed` the lease ran out meanwhile: somebody else may have it already, so it is read back first (F24).
        """
        if live is None or not receipt.created:
            self.forget(live)
            if new.wake and new.wake > self.engine.clock.now():
                self.engine.alarms.set(new.wake, "")
            else:
                self.engine.claims.claiming.set()
            return
        live.run.fence = receipt.fence
        live.lapsed = lapsed
        self.engine.claims.hold(live)
        if live.run.ready and self.engine.attempts.slots <= 0:  # else it is kicked at once
            self.engine.attempts.line_up(live)
        if live.run.barred:
            self.engine.limits.line_up(live)
        self.engine.pump.carry_out(live, receipt.conflicts)

    def created_in_doubt(self, live: Live | None, found: stored.Summary) -> None:
        """The execution is there, and was made by us: read it back if it is ours, or look for it."""
        self.forget(live)
        if live is not None and found.owner == self.engine.worker and found.fence == live.run.fence:
            live.writing = True
            self.engine.claims.hold(live)
            self.engine.spawn(
                self.engine.recovery.recover(live, "it was not known whether it had been created")
            )
        else:
            self.engine.claims.claiming.set()

    def forget(self, live: Live | None) -> None:
        """The execution that was built ahead is not ours."""
        if live is not None:
            self.engine.attempts.give_slots(live.run.begun)
            live.run.drop()

    async def post(self, post: stored.Post) -> None:
        """Post a message and wake who gets it. Raises UnknownExecution, ExecutionClosed, StoreUnavailable."""
        self.engine.check_here()
        doubt, why = False, ""
        for _ in range(TRIES_MAX):
            (outcome,) = await self.engine.writer.write([post])
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
                    self.engine.claims.claiming.set()  # it may be there
                    raise StoreUnavailable(
                        f"it is not known whether the message to '{post.id}' was accepted ({reason}); "
                        "give it a key= and send it again: the same key counts once"
                    )
                case _:
                    doubt, why = doubt or isinstance(outcome, stored.Unknown), outcome.reason
                    self.engine.claims.claiming.set()  # it may be there
                    await self.engine.pause(CREATE_GAP_S)
        raise StoreUnavailable(f"the message to '{post.id}' was not accepted: {why}")

    async def was_accepted(self, post: stored.Post) -> bool:
        """Whether an execution that has ended meanwhile had got the message, whose outcome was not known. O(n).

        Answered while the engine closes, too: the request is older than that.
        """
        if any(
            message.key == post.key
            for message in await self.engine.off_loop(lambda: self.engine.log.inbox(post.id))
        ):
            return True
        summary = await self.summary_or_none(post.id)
        if summary is None:
            return False
        for run in range(summary.run, -1, -1):
            history = await self.engine.read(post.id, run)
            if any(isinstance(event, Delivered) and event.key == post.key for event in history):
                return True
        return post.kind != "event" and summary.status in (Status.CANCELLED, Status.TERMINATED)

    def posted(self, post: stored.Post, number: int) -> None:
        """A message is durable: give it to the execution if it is here, or look for it."""
        if post.kind == "terminate":
            self.engine.tried.pop(post.id, None)  # it needs no code to end
        live = self.engine.live.get(post.id)
        if live is None or number != live.run.seen + 1:
            self.engine.claims.claiming.set()
            return
        live.run.receive([stored.Message(number, post.kind, post.name, post.payload, post.at, post.key)])
        self.engine.live.move_to_end(post.id)
        self.engine.pump.kick(live)


def checked_text(value: object, what: str) -> str:
    """The value as a bare text; raises InvalidUse. Anything else would hinder what is written beside it."""
    if not isinstance(value, str):
        raise InvalidUse(f"the {what} is {value!r}, of type {type(value).__name__}; give it as text")
    return bare(value)


def own_key(key: str | None) -> str | None:
    """The user's key, kept apart from those of requests and children. Raises InvalidUse."""
    if key is None:
        return None
    text = checked_text(key, "key")
    return f"{OWN_KEY}{text}" if text.startswith(OWN_KEY) else text
