"""Which steps run here and which where any worker may take them: queues, and overflow to workers that have room.

Rule 1: local first. A step that names no queue is offered only when it found no slot here for a while, and when the log
        says that there are other workers; in a single process nothing is ever offered but what its queue keeps away.
Rule 2: what nobody takes comes back: this worker takes it up as anybody's offer, and puts it into its own line.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from zart_core import log as stored
from zart_core.errors import Defect, LogCorrupt, StoreFailed, Weather
from zart_core.hosts.live import Live
from zart_core.hosts.offers import is_offered, kind_of, known_steps, play, queue_of, workflows_of
from zart_core.steps import DEFAULT_QUEUE, StepFunction
from zart_core.workflows import Registry

if TYPE_CHECKING:
    from zart_core.hosts.engine import AsyncEngine

OVERFLOW_S = 0.25
"""How long attempts wait for a slot here before they are offered to others."""
TAKE_BACK_S = 10.0
"""How long an offer waits for another worker before it comes back into this one's line."""
LOOKS_MAX = 16
"""Offers that are looked after at a time."""
LOGGER = logging.getLogger("zart.engine")


class Sharing:
    """Places steps for an engine."""

    def __init__(self, engine: AsyncEngine, queues: Collection[str]) -> None:
        self.engine = engine
        self.queues = frozenset(queues)
        self.steps: dict[str, StepFunction[..., Any]] = {}
        """Steps that are found by their names, by the workflow that each is when it is offered."""
        self.plays = Registry()
        self.served: list[str] = []
        """Names of workflows behind steps that may run here."""
        self.outstanding: dict[str, tuple[Live, int, float]] = {}
        """Steps that found no slot here and were offered: for what, and since when, in seconds of the loop."""
        self.timer: asyncio.TimerHandle | None = None
        self.has_foreign = False
        """Whether some steps name queues that are not served here."""
        self.learn()

    def learn(self) -> None:
        """Find the steps and the children that the registered workflows name."""
        for workflow in workflows_of(self.engine.registry.everything()):
            self.engine.registry.learn(workflow)
        self.steps = known_steps(self.engine.registry)
        self.plays = Registry([play(self.engine.codec, function) for function in self.steps.values()])
        self.served = [
            name
            for name, function in self.steps.items()
            if (function.policy.queue or DEFAULT_QUEUE) in self.queues
        ]
        self.has_foreign = len(self.served) < len(self.steps)

    @property
    def holds_executions(self) -> bool:
        """Whether this worker takes up workflows, and not only steps of queues."""
        return DEFAULT_QUEUE in self.queues

    def serves(self, summary: stored.Summary) -> bool:
        """Whether this worker takes up such an execution, or such an offered step."""
        if is_offered(summary.workflow):
            return summary.workflow in self.served
        return self.holds_executions and summary.claim_name in self.engine.registry.claim_names

    def registry_of(self, workflow: str) -> Registry:
        """Where the code of a workflow is found: among the user's, or behind an offered step."""
        return self.plays if is_offered(workflow) else self.engine.registry

    # ------------------------------------------------------------ Market

    def here(self, function: StepFunction[..., Any]) -> bool:
        """See Market."""
        if function.policy.queue in self.queues:
            return True
        if not self.may_offer(function):
            raise Defect(
                f"step '{function.id}' is for queue '{function.policy.queue}', which this worker does not serve, and "
                "others could not find it by its name: let a workflow, or a flow it calls, name it as a module's "
                "function, with an id of its own"
            )
        return False

    def may_offer(self, function: StepFunction[..., Any]) -> bool:
        """See Market."""
        return self.steps.get(kind_of(function)) is function

    # ------------------------------------------------------------ overflow

    def room(self) -> int:
        """How many offered steps this worker may take now."""
        return max(0, self.engine.attempts.slots) if self.served else 0

    def wanted(self) -> Iterable[str]:
        """Names of workflows behind the steps that this worker may take now: of no queue that is full here."""
        limits = self.engine.limits
        if not limits.lines:
            return self.served
        return [name for name in self.served if not limits.is_waiting(queue_of(name))]

    def starving(self) -> None:
        """Attempts wait for a slot: unless they get one soon, others may have them."""
        if self.timer is None and not self.engine.closing and isinstance(self.engine.log, stored.Shared):
            self.timer = self.engine.loop.call_later(OVERFLOW_S, self.look)

    def look(self) -> None:
        """Time has passed: see whether others have room."""
        self.timer = None
        if not self.engine.closing:
            self.engine.spawn(self.share())

    async def share(self) -> None:
        """Let those that wait for a slot offer as much as others may have room for."""
        log = self.engine.log
        if not isinstance(log, stored.Shared) or not (self.engine.attempts.hungry or self.outstanding):
            return
        try:
            others = await self.engine.off_loop(partial(log.others, self.engine.worker))
            await self.look_after()
        except StoreFailed as failed:
            self.engine.fail(failed)
            return
        except Weather:  # it is asked again
            others = 0
        if self.engine.is_closing():
            return
        room = others * self.engine.attempts.slots_max - len(self.outstanding)
        late = self.engine.loop.time() - OVERFLOW_S
        for live in self.engine.attempts.hungry:
            if room > 0 and live.hungry_since <= late and not is_offered(live.run.workflow_name):
                live.overflow = min(room, len(live.run.ready))
                room -= live.overflow
                self.engine.pump.kick(live)
        if self.engine.attempts.hungry or self.outstanding:
            self.starving()

    async def recall(self, id: str) -> None:
        """An offered step is to end: what nobody has taken is ended here. Raises Weather, and time will tell then."""
        summary = await self.engine.off_loop(partial(self.engine.log.summary, id))
        if summary is None or summary.owner is not None or summary.status.closed:
            return
        if summary.workflow in self.plays and not self.engine.is_closing():
            await self.engine.claims.take(id)

    def offered(self, live: Live) -> None:
        """A turn was built that may offer what found no slot: remember it, to look after it."""
        live.overflow = 0
        now = self.engine.loop.time()
        for seq, id in live.run.offered.items():
            execution = live.run.execution
            if execution is None:
                continue
            queue = execution.command(seq).function.policy.queue or DEFAULT_QUEUE
            if queue in self.queues:  # else it was no overflow: this worker has no line for it
                self.outstanding.setdefault(id, (live, seq, now))

    async def look_after(self) -> None:
        """Forget offers that were taken; take back those that nobody takes (Rule 2). Raises Weather."""
        now = self.engine.loop.time()
        for id, (live, seq, _) in list(self.outstanding.items()):
            if live.run.offered.get(seq) != id or self.engine.live.get(live.run.id) is not live:
                del self.outstanding[id]
        late = [id for id, (_, _, since) in self.outstanding.items() if now - since > TAKE_BACK_S]
        for id in late[:LOOKS_MAX]:
            try:
                summary = await self.engine.off_loop(partial(self.engine.log.summary, id))
                if summary is not None and summary.owner is None and not summary.status.closed:
                    await self.engine.claims.take(id)
            except LogCorrupt as damage:  # it keeps no other from coming back (I8)
                LOGGER.error("an offered step cannot be taken back: %s", damage)
            self.outstanding.pop(id, None)
