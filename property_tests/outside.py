"""The outside of an execution, played by a script: what happens next, and a host that applies and decides.

`Chaos` picks anything that may happen, by numbers; `Timely` lets each thing take the time its program says.
Both look at nothing but the execution, so that they go on alike after everything but the log is forgotten.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import attrs
import msgspec
from programs import (
    CHILD_GRACE,
    RETRY_DELAY,
    Await,
    Body,
    Broken,
    Declared,
    arrival_of,
    event_of,
    value_of,
    walk,
)

import zart_core as zart
from zart_core.interpreter import CODEC, capture_type

TURNS_MAX = 400


class Stuck(AssertionError):
    """Nothing can happen any more, and the run has not ended."""


class Outside(Protocol):
    """Says what happens next."""

    def next(self, execution: zart.Execution, turn: int) -> zart.Event | None:
        """Give a fact; None when nothing can happen any more."""
        ...


# ---------------------------------------------------------------- outcomes


def plan_of(issued: zart.Issued) -> Any:
    """What a step or a child does, as its arguments say."""
    plan = msgspec.json.decode(issued.payload)
    return plan if issued.kind == "step" else [plan[0], 0, plan[1]]


def outcome_of(issued: zart.Issued, attempt: int = 0) -> Any:
    """The outcome of the last attempt, by name and arguments."""
    if issued.kind == "sleep":
        return zart.Done(b"null")
    if issued.kind == "spawn":
        return zart.Done(CODEC.encode(issued.child, str))
    if issued.kind == "event":
        return zart.Failed(zart.Failure("event_timed_out", issued.of, "too late"))
    ends, _, _ = plan_of(issued)
    match ends:
        case "ok":
            return zart.Done(b"%d" % value_of(issued.name))
        case "declared":
            return zart.Failed(CODEC.failure_of(Declared(issued.name), (Declared,)))
        case "lost":
            return zart.Failed(zart.Failure("lost", issued.name, "its worker died"))
        case "failed":
            return zart.Failed(
                zart.Failure("child", "failed", "it failed", cause=zart.Failure("error", "E", "m"))
            )
        case _:
            return zart.Failed(CODEC.failure_of(Broken(issued.name)))


def captured(execution: zart.Execution, issued: zart.Issued) -> Any:
    """What a capture gives, by its name and type."""
    value, kind = value_of(issued.name), capture_type(execution.command(issued.seq))
    typed: dict[Any, Any] = {uuid.UUID: uuid.UUID(int=value), float: value / 1000}
    return zart.Done(CODEC.encode(typed.get(kind, value), kind))


# ---------------------------------------------------------------- what may happen next


@attrs.define
class Chaos:
    """Any order of outcomes, deliveries, timeouts, interruptions: numbers choose among what is possible."""

    choices: Sequence[int]
    interruptions: dict[int, str] = attrs.Factory(dict)
    """By turn: cancel, deadline, terminate or note."""
    deliveries_max: int = 5

    def next(self, execution: zart.Execution, turn: int) -> zart.Event | None:
        """One of the possible facts."""
        at = execution.now + 1
        match self.interruptions.get(turn):
            case "cancel":
                return zart.Interrupted("cancel", at, "stop")
            case "deadline" if execution.deadline is not None:
                return zart.Interrupted("deadline", at, "late")
            case "terminate":
                return zart.Closed(zart.Status.TERMINATED, at)
            case "note":
                return zart.Noted("pause", at=at)
        possible = [
            fact for issued in execution.pending.values() for fact in self.facts(execution, issued, at)
        ]
        if execution.next_delivery < self.deliveries_max or not possible:
            possible += self.deliveries(execution, at)
        return possible[self.choices[turn % len(self.choices)] % len(possible)] if possible else None

    def deliveries(self, execution: zart.Execution, at: float) -> list[zart.Event]:
        n = execution.next_delivery
        awaited = sorted({issued.of for issued in execution.pending.values() if issued.kind == "event"})
        payload = b'"no number"' if n % 3 == 2 else b"%d" % n
        events = ["e0", "e1"] if n < self.deliveries_max else awaited
        return [zart.Delivered(n, event, payload, at) for event in events]

    def facts(self, execution: zart.Execution, issued: zart.Issued, at: float) -> list[zart.Event]:
        seq = issued.seq
        match issued.kind:
            case "step":
                return self.step_facts(execution, issued, at)
            case "event" if issued.until is None:
                return []
            case "event" | "sleep":
                assert issued.until is not None
                return [zart.Resolved(seq, outcome_of(issued), max(at, issued.until))]
            case _ if seq in execution.cancelling:
                return [
                    zart.Resolved(seq, outcome, at) for outcome in (outcome_of(issued), zart.Cancellation())
                ]
            case _:
                return [zart.Resolved(seq, outcome_of(issued), at)]

    def step_facts(self, execution: zart.Execution, issued: zart.Issued, at: float) -> list[zart.Event]:
        seq, progress = issued.seq, execution.progress(issued.seq)
        at = max(at, progress.retry_at or at) if not progress.began else at
        failed = progress.attempt < plan_of(issued)[1]
        began = zart.Began(seq, progress.attempt, at=at)
        retried = zart.Retried(
            seq, progress.attempt, CODEC.failure_of(Broken("once more")), at + RETRY_DELAY, at
        )
        ended = zart.Resolved(seq, outcome_of(issued), at)
        if seq in execution.cancelling:
            return [retried if failed else ended, zart.Resolved(seq, zart.Cancellation("grace"), at)]
        if not progress.began:
            return [began, ended] if not failed else [began]
        return [retried] if failed else [ended]


@attrs.define
class Timely:
    """Everything takes the time that its program says; nothing else comes between."""

    program: Body
    cut: float = math.inf

    def next(self, execution: zart.Execution, turn: int) -> zart.Event | None:
        """The earliest of what is to come."""
        coming = (
            [(self.cut, zart.Interrupted("cancel", self.cut, "stop"))] if not execution.interrupted else []
        )
        coming += [self.fact(execution, issued) for issued in execution.pending.values()]
        begun = {issued.of: issued.at for issued in execution.pending.values() if issued.kind == "event"}
        for place, target in walk(self.program):
            event = event_of(place)
            if (
                isinstance(target, Await)
                and event not in self.sent
                and (event in begun or not target.after_wait)
            ):
                when = arrival_of(target, place, begun.get(event, 0.0))
                fact = zart.Delivered(execution.next_delivery, event, b"%d" % value_of(event), when)
                coming.append((when, fact))
        when, fact = min(coming, key=lambda one: one[0], default=(math.inf, None))
        if isinstance(fact, zart.Delivered):
            self.sent.add(fact.event)
        return fact if when < math.inf else None

    def fact(self, execution: zart.Execution, issued: zart.Issued) -> tuple[float, zart.Event]:
        seq, cut = issued.seq, execution.cancelling.get(issued.seq, math.inf)
        if issued.kind in ("sleep", "event"):
            when = math.inf if issued.until is None else issued.until
            return when, zart.Resolved(seq, outcome_of(issued), when)
        if issued.kind == "spawn":
            return execution.now, zart.Resolved(seq, outcome_of(issued), execution.now)
        _, failures, takes = plan_of(issued)
        if issued.kind == "child":
            when, told = issued.at + takes, self.told_at(execution, seq)
            told += CHILD_GRACE if told > issued.at else 0.0
            ended = zart.Resolved(seq, outcome_of(issued), when)
            return (when, ended) if when <= told else (told, zart.Resolved(seq, zart.Cancellation(), told))
        progress = execution.progress(seq)
        if not progress.began and progress.retry_at is None:
            return execution.now, zart.Began(seq, 0, at=execution.now)
        begins = issued.at if progress.retry_at is None else progress.retry_at
        ends = begins + takes
        if cut < ends:
            return cut, zart.Resolved(seq, zart.Cancellation("grace"), cut)
        failure = CODEC.failure_of(Broken("once more"))
        if progress.attempt < failures and cut < math.inf:
            return ends, zart.Resolved(seq, zart.Failed(failure), ends)
        if progress.attempt < failures:
            return ends, zart.Retried(seq, progress.attempt, failure, ends + RETRY_DELAY, ends)
        return ends, zart.Resolved(seq, outcome_of(issued), ends)

    def told_at(self, execution: zart.Execution, seq: int) -> float:
        """When a child was told to end; a host learns it in the turn that does."""
        return self.told.setdefault(seq, execution.now) if seq in execution.cancelling else math.inf

    told: dict[int, float] = attrs.Factory(dict)
    sent: set[str] = attrs.Factory(set)


# ---------------------------------------------------------------- a host: fact, then decisions


@attrs.define
class Played:
    """A run as it was played: its log, where its turns end, and what was seen after each event."""

    execution: zart.Execution
    log: list[zart.Event] = attrs.Factory(list)
    turns: list[int] = attrs.Factory(list)
    looks: list[Any] = attrs.Factory(list)
    look: Callable[[zart.Execution], Any] | None = None

    def add(self, event: zart.Event) -> None:
        """Apply one event and write it down."""
        self.execution.apply(event)
        self.log.append(event)
        if self.look is not None:
            self.looks.append(self.look(self.execution))

    def turn(self, fact: zart.Event) -> None:
        """A fact, and everything it leads to."""
        self.add(fact)
        self.answer()

    def answer(self) -> None:
        """Apply decisions until there are none; what is captured is resolved in the same turn."""
        while True:
            while decisions := self.execution.decide():
                for decision in decisions:
                    self.add(decision)
            if self.execution.status.closed:
                break
            captures = [issued for issued in self.execution.pending.values() if issued.kind == "capture"]
            if not captures:
                break
            self.add(
                zart.Resolved(captures[0].seq, captured(self.execution, captures[0]), self.execution.now)
            )
        self.turns.append(len(self.log))


STARTED = zart.Started("an-id", 0, "random", b"1", 0.0, deadline=1e6)


def play(
    workflow: zart.Workflow[Any, Any],
    outside: Outside,
    *,
    look: Callable[[zart.Execution], Any] | None = None,
    crashes: Callable[[int], bool] = lambda turn: False,
    again: Callable[[], zart.Workflow[Any, Any]] | None = None,
) -> Played:
    """Play a run to its end; where `crashes` says so all but the log is forgotten before a turn."""
    played = Played(zart.Execution(workflow), look=look)
    played.turn(STARTED)
    for turn in range(TURNS_MAX):
        if played.execution.status.closed:
            return played
        if crashes(turn):
            played.execution.close()
            played.execution = zart.replay(workflow if again is None else again(), played.log)
            played.execution.check_answered()
        fact = outside.next(played.execution, turn)
        if fact is None:
            raise Stuck(f"nothing can happen any more; it waits for {dict(played.execution.pending)}")
        played.turn(fact)
    raise Stuck(f"it has not ended after {TURNS_MAX} turns")
