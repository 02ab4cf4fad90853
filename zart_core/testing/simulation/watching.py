"""What really happened in a simulated world: commits, claims and attempts, whoever made them.

Rule 1: a witness only watches; what it saw is judged at the end. What can be seen to be wrong at once is noted at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from zart_core.context import Context
from zart_core.events import Ok, Status
from zart_core.hosts.claims import LEASE_S
from zart_core.hosts.ports import StepCall
from zart_core.log import Appended, EventLog, Mark, New, Post, Record, Rejected, Summary, Turn, Write
from zart_core.records import record
from zart_core.testing.simulation.store import described, told
from zart_core.testing.witness import Call, Death, Key, Point

if TYPE_CHECKING:
    from zart_core.testing.simulation.process import Process
    from zart_core.testing.simulation.world import Simulation


@record
class Seen:
    """An attempt that was started."""

    process: Process
    context: Context
    held: str
    """The execution that is held while it runs."""
    fence: int
    call: Call
    """What it is on record as once its function is called."""


class Watch:
    """Watches a world."""

    def __init__(self, world: Simulation) -> None:
        self.world = world
        self.called: list[Call] = []
        """Attempts whose functions were called, in order."""
        self.takeovers: list[Death] = []
        """Whenever an execution went to another hand: where it stood."""
        self.wrong: list[tuple[str, str]] = []
        """What was seen to be wrong: number of the rule, and what."""
        self.posted: list[Post] = []
        """Messages from outside that are in the log, in order."""
        self.acknowledged: dict[Key, dict[int, Record]] = {}
        """Records that somebody was told are durable."""
        self.fences: dict[str, int] = {}
        self.parked: set[str] = set()
        self.lives: dict[tuple[str, str, int, int], int] = {}

    # ------------------------------------------------------------ the log

    def append(self, process: Process, log: EventLog, batch: Sequence[Write]) -> list[Appended]:
        """Make an append, and look at it."""
        world = self.world
        outcomes = log.append(batch)
        if len(batch) > 1:
            world.counts["several writes in one commit"] += 1
        for write, outcome in zip(batch, outcomes, strict=True):
            world.trace(process.name, f"{described(write)}: {told(outcome)}")
            if isinstance(outcome, Ok):
                self.committed(process, write, outcome.value.created)
            elif isinstance(outcome, Rejected):
                world.counts[
                    f"{type(write).__name__.lower()} rejected: {outcome.reason.partition(':')[0]}"
                ] += 1
        world.wake()
        return outcomes

    def committed(self, process: Process, write: Write, created: bool) -> None:
        """A write is in the log."""
        if isinstance(write, Mark | Turn):
            self.stands(write.id, write.status)
        match write:
            case Turn():
                if write.fence < self.fences.get(write.id, 0):
                    self.wrong.append(
                        (
                            "I6",
                            f"'{write.id}': a turn with fence {write.fence} was taken after {self.fences[write.id]}",
                        )
                    )
                if process.lapses():
                    self.changed_hands(f"{process.name} had let go", write.id, write.run, write.position)
                self.keep(write.id, write.run, write.position, write.records)
                self.keep(write.id, write.run + 1, 0, write.opens or ())
                if write.opens is not None and (len(write.opens) > 1 or process.log.inbox(write.id)):
                    self.world.counts["continued with messages that nobody took yet"] += 1
                for new in write.creates:
                    self.world.created(new)
            case New() if created:
                self.keep(write.id, 0, 0, write.records)
                self.world.created(write)
                if write.owner is not None:
                    self.fences[write.id] = 1
                    process.leased_until = max(process.leased_until, self.world.timeline.now + LEASE_S)
                for new in write.creates:
                    self.world.created(new)
            case Post() if not created:
                self.world.counts["message a second time"] += 1
            case Mark():
                self.world.counts[f"marked {write.status}"] += 1
            case Post() if not (write.key or "").startswith("!child"):
                self.posted.append(write)
            case _:
                pass

    def stands(self, id: str, status: Status) -> None:
        """Where an execution stands now."""
        if status is Status.PARKED:
            self.parked.add(id)
        elif id in self.parked:
            self.parked.discard(id)
            self.world.counts[
                "ended while parked" if status is Status.TERMINATED else "parked and resumed"
            ] += 1

    def keep(self, id: str, run: int, start: int, records: Sequence[Record]) -> None:
        """Remember records that must be found from now on (I1)."""
        if records:
            self.acknowledged.setdefault((id, run), {}).update(enumerate(records, start))

    def claimed(self, process: Process, given: Sequence[Summary]) -> None:
        """Executions went to a worker."""
        for summary in given:
            before = self.fences.get(summary.id, 0)
            if summary.fence < before:
                self.wrong.append(("I6", f"'{summary.id}' has fence {summary.fence} after {before}"))
            if summary.fence > before:
                self.fences[summary.id] = summary.fence
                self.world.trace(process.name, f"claims {summary.id} f{summary.fence} {summary.status}")
                self.world.counts["taken up" if before == 0 else "taken over"] += 1
                self.changed_hands(f"{process.name} takes over", summary.id, summary.run, summary.position)

    def changed_hands(self, what: str, id: str, run: int, position: int) -> None:
        """An execution is in other hands from here on, or in its own again: what runs may run another time."""
        self.takeovers.append(Death(Point("before", 0), what, {id: (run, position)}))

    # ------------------------------------------------------------ attempts

    def starts(self, process: Process, call: StepCall) -> Seen:
        """A worker starts an attempt: what it holds must be its own (F24)."""
        world, context, function = self.world, call.context, call.function
        engine = process.opened
        live = engine.live.get(call.held) if engine is not None else None
        fence = live.run.fence if live is not None else 0
        summary = process.log.summary(call.held)
        run = context.run if call.held == context.execution_id else 0
        life = (process.name, call.held, fence, process.lapses())
        asked = Call(
            life=self.lives.setdefault(life, len(self.lives)),
            id=call.held,
            run=run,
            seq=call.seq,
            name=context.step or "",
            attempt=context.attempt,
            at=context.now,
            stood=summary.position if summary is not None and summary.run == run else 0,
            function=function.origin,
            at_most_once=function.policy.at_most_once,
            took_s=0.0,
        )
        seen = Seen(process, context, call.held, fence, asked)
        if world.timeline.now > process.leased_until or self.is_stale(seen):
            what = f"'{context.step}' of '{context.execution_id}' was started after the lease had run out"
            self.wrong.append(("F24", what))
        world.trace(process.name, f"starts {context.execution_id} {context.step} #{context.attempt}")
        return seen

    def calls(self, seen: Seen) -> None:
        """The function of an attempt is called; one that is given back before a thread has it never is."""
        self.called.append(seen.call)

    def effect(self, seen: Seen, act: Callable[[], Any]) -> Any:
        """An attempt takes effect."""
        context = seen.context
        self.world.trace(
            seen.process.name, f"effect {context.execution_id} {context.step} #{context.attempt}"
        )
        if self.is_stale(seen):
            self.world.counts["effect of a worker that had lost its lease"] += 1
        return act()

    def is_stale(self, seen: Seen) -> bool:
        """Whether the execution is in other hands."""
        summary = seen.process.log.summary(seen.held)
        return summary is None or summary.fence != seen.fence
