"""What is seen of one playing of a scenario, across all lives of its host.

Rule 1: a witness only watches; what it saw is judged by `invariants`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import attrs
from msgspec import structs

from zart_core.context import Context, Scene
from zart_core.events import Event, Ok, Status
from zart_core.hosts.ports import Clock, StepCall, StepRunner
from zart_core.log import Appended, EventLog, Mark, New, Post, Record, Summary, Turn, Write
from zart_core.records import record
from zart_core.testing.clock import VirtualClock
from zart_core.testing.relay import Relay
from zart_core.testing.world import SimulatedCrash, TearingPlace

Moment: TypeAlias = Literal["before", "torn", "after", "effect", "unsent", "sent"]
Key: TypeAlias = tuple[str, int]
"""An execution's id, and a run of it."""
Attempt: TypeAlias = tuple[str, int, int, int]
"""An execution's id, a run of it, the number of a step's command, and which attempt of it."""


@record
class Point:
    """Where the host dies; counted anew in each of its lives.

    before, after: the n-th append of the host, not made, or made and not answered. torn: in the middle of it,
    where the store's place can do that. effect: the n-th step call is over, and nothing of it on record.
    unsent, sent: the n-th delivery from outside, not made, or made and not acknowledged.
    """

    moment: Moment
    n: int


Schedule: TypeAlias = tuple[Point, ...]
"""One point for each life of the host that ends in a crash."""


@record
class Call:
    """A step function was called."""

    life: int
    id: str
    run: int
    seq: int
    name: str
    attempt: int
    at: float
    stood: int
    """How many records the run had in the log just then."""
    function: Any
    """The step as it was decorated."""
    at_most_once: bool
    took_s: float
    """Virtual seconds until it returned, or the host died."""


@record
class Death:
    """The host died."""

    point: Point
    what: str
    """What it was doing, in words."""
    stood: Mapping[str, tuple[int, int]]
    """What its successor finds: the run, and the number of its records, by execution id."""


@record
class Played:
    """One playing of a scenario, from its start to the end of the execution."""

    schedule: Schedule
    outcome: str
    """How it ended, as text that can be compared: "completed: 42", "failed: ValueError: no such order"."""
    status: Status
    value: Any
    error: BaseException | None
    histories: Mapping[Key, list[Event]]
    summaries: Sequence[Summary]
    calls: Sequence[Call]
    deaths: Sequence[Death]
    lost: Sequence[str]
    """What was acknowledged and is gone, in words (I1)."""
    early: Sequence[str]
    """What was written down before its time, in words (I14)."""
    offered: Sequence[Post]
    """What was sent from outside, in order, whether anybody answered or not."""
    sent: Sequence[Post]
    """What was delivered from outside and acknowledged, in order."""
    resources: Mapping[str, Any]
    """The objects that its steps had."""
    unread: Sequence[str | None]
    """Keys of what is left in the inbox."""
    passed: Sequence[Point]
    """The points of its last life, in order."""
    unreached: Schedule
    """Points of the schedule that never came."""
    elapsed_s: float
    """Virtual seconds from start to end."""

    @property
    def counts(self) -> Counter[str]:
        """How often each step was called, by name."""
        return Counter(call.name for call in self.calls)


class Fate:
    """Knows when the host dies, and remembers the points that it passes in its present life."""

    def __init__(self, schedule: Schedule) -> None:
        self.left = deque(schedule)
        self.passed: list[Point] = []
        self.now: Point | None = None
        self.doing = ""
        self._counts: Counter[str] = Counter()

    def number(self, kind: str) -> int:
        """Count one more append, call or delivery of this life, from 0."""
        self._counts[kind] += 1
        return self._counts[kind] - 1

    def reach(self, moment: Moment, n: int, doing: str, tear: Callable[[], None] | None = None) -> None:
        """Pass a point, or die there."""
        point = Point(moment, n)
        self.passed.append(point)
        if self.left and self.left[0] == point:
            self.left.popleft()
            self.now, self.doing = point, doing
            if tear is not None:
                tear()
            raise SimulatedCrash(f"{moment} {doing}")

    def reborn(self) -> None:
        """Begin the next life."""
        self.passed = []
        self._counts.clear()


class Witness:
    """What happened, and what was acknowledged."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.deaths: list[Death] = []
        self.lost: list[str] = []
        self.early: list[str] = []
        self.acknowledged: dict[Key, dict[int, Record]] = {}
        """Records that must be found from now on, by run and position."""

    def note_times(self, batch: Sequence[Write], now: float) -> None:
        """Look for records of what has not happened yet."""
        for write in batch:
            if isinstance(write, Turn) and write.records and write.records[-1].at > now:
                late = write.records[-1]
                self.early.append(f"'{write.id}': {late.kind} is on record {late.at - now} s before its time")

    def note_appended(self, batch: Sequence[Write], outcomes: Sequence[Appended]) -> None:
        """Remember the records that are durable from now on."""
        for write, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, Ok):
                match write:
                    case Turn():
                        self._note(write.id, write.run, write.position, write.records)
                        self._note(write.id, write.run + 1, 0, write.opens or ())
                        self._note_created(
                            [new for new in write.creates if new.id not in outcome.value.conflicts]
                        )
                    case New() if outcome.value.created:
                        self._note_created([write])
                    case _:
                        pass

    def _note(self, id: str, run: int, start: int, records: Sequence[Record]) -> None:
        if records:
            self.acknowledged.setdefault((id, run), {}).update(enumerate(records, start))

    def _note_created(self, creates: Sequence[New]) -> None:
        for new in creates:
            self._note(new.id, 0, 0, new.records)
            self._note_created(new.creates)

    def note_death(self, fate: Fate, log: EventLog, summaries: Sequence[Summary]) -> None:
        """Look at what the next life finds: all that was acknowledged, or something is lost (I1)."""
        assert fate.now is not None
        stood = {summary.id: (summary.run, summary.position) for summary in summaries}
        self.deaths.append(Death(fate.now, fate.doing, stood))
        for (id, run), known in self.acknowledged.items():
            found = dict(enumerate(log.records(id, run)))
            gone = [n for n, record in known.items() if found.get(n) != record]
            if gone:
                kinds = ", ".join(known[n].kind for n in gone)
                self.lost.append(
                    f"acknowledged records of '{id}' (run {run}) are gone, from {gone[0]} on: {kinds}"
                )


# ---------------------------------------------------------------- the wrappers


class CrashingLog(Relay):
    """The log as the host sees it: it may die before an append, in the middle of it, or after it."""

    def __init__(
        self, log: EventLog, place: TearingPlace | None, clock: Clock, fate: Fate, witness: Witness
    ) -> None:
        super().__init__(log)
        self.place = place
        self.clock = clock
        self.fate = fate
        self.witness = witness

    def append(self, batch: Sequence[Write]) -> list[Appended]:
        """See EventLog; may raise SimulatedCrash."""
        if not batch:
            return self.log.append(batch)
        self.witness.note_times(batch, self.clock.now())
        n, doing = self.fate.number("append"), described(batch)
        self.fate.reach("before", n, doing)
        if self.place is not None:
            place = self.place
            self.fate.reach("torn", n, doing, lambda: place.tear(self.log, batch))
        outcomes = self.log.append(batch)
        self.fate.reach("after", n, doing)
        self.witness.note_appended(batch, outcomes)
        return outcomes


class CrashingSender(Relay):
    """The log as a sender in the host's process sees it: it may die around each delivery."""

    def __init__(self, log: EventLog, fate: Fate) -> None:
        super().__init__(log)
        self.fate = fate

    def append(self, batch: Sequence[Write]) -> list[Appended]:
        """See EventLog; may raise SimulatedCrash."""
        n, doing = self.fate.number("delivery"), described(batch)
        self.fate.reach("unsent", n, doing)
        outcomes = self.log.append(batch)
        self.fate.reach("sent", n, doing)
        return outcomes


class CrashingRunner:
    """The runner as the host sees it: it may die between a step's effect and its record."""

    def __init__(
        self, runner: StepRunner, log: Callable[[], EventLog], clock: Clock, fate: Fate, witness: Witness
    ) -> None:
        self.runner = runner
        self.log = log
        self.clock = clock
        self.fate = fate
        self.witness = witness

    def run(self, call: StepCall, scene: Scene) -> Any:
        """See StepRunner; may raise SimulatedCrash."""
        n, doing = self.fate.number("call"), f"the outcome of step '{call.context.step}'"
        stood, began = self.stands_at(call.context), self.clock.now()
        try:
            value = self.runner.run(call, scene)
        except Exception:
            self.fate.reach("effect", n, doing)
            raise
        finally:
            self.witness.calls.append(self.seen(call, stood, began))
        self.fate.reach("effect", n, doing)
        return value

    def stands_at(self, context: Context) -> int:
        """How many records of the run are durable."""
        summary = self.log().summary(context.execution_id)
        return summary.position if summary is not None and summary.run == context.run else 0

    def seen(self, call: StepCall, stood: int, began: float) -> Call:
        """Describe a call that is over, one way or the other."""
        context, function = call.context, call.function
        return Call(
            life=len(self.witness.deaths),
            id=context.execution_id,
            run=context.run,
            seq=call.seq,
            name=context.step or "",
            attempt=context.attempt,
            at=context.now,
            stood=stood,
            function=function.origin,
            at_most_once=function.policy.at_most_once,
            took_s=self.clock.now() - began,
        )


class LateRunner:
    """Begins some attempts late, by so many virtual seconds, as if they took that much longer."""

    def __init__(self, runner: StepRunner, clock: VirtualClock, late_s: Mapping[Attempt, float]) -> None:
        self.runner = runner
        self.clock = clock
        self.late_s = late_s

    def run(self, call: StepCall, scene: Scene) -> Any:
        """See StepRunner."""
        context = call.context
        late_s = self.late_s.get((context.execution_id, context.run, call.seq, context.attempt))
        if late_s is not None:
            begins = self.clock.now() + late_s
            while not self.clock.pass_until(begins):
                pass
            context = attrs.evolve(context, now=begins)
            call = attrs.evolve(call, context=context)
            scene = structs.replace(scene, context=lambda: context)
        return self.runner.run(call, scene)


def described(batch: Sequence[Write]) -> str:
    """What a batch holds, in a few words."""
    return "; ".join(map(described_write, batch))


def described_write(write: Write) -> str:
    """What a write holds, in a few words."""
    match write:
        case New():
            return f"the creation of '{write.id}'"
        case Post():
            return f"the delivery of {write.kind} '{write.name}'"
        case Turn():
            return f"the turn {' '.join(record.kind for record in write.records) or 'without records'}"
        case Mark():
            return f"the mark '{write.status}'"
