"""What timers and messages lead to: the fact to append, or nothing when they no longer matter."""

from __future__ import annotations

from typing import Literal, TypeAlias

from zart_core import log as stored
from zart_core.codec import Codec
from zart_core.events import (
    Cancellation,
    Closed,
    Delivered,
    Done,
    Event,
    Failed,
    Failure,
    Interrupted,
    Issued,
    Resolved,
    Status,
)
from zart_core.failures import clean
from zart_core.hosts.offers import accepted
from zart_core.hosts.relatives import is_strangers
from zart_core.interpreter import Execution

TimerKind: TypeAlias = Literal["run", "sleep", "event", "step", "retry", "grace"]
Timer: TypeAlias = tuple[float, int, int, TimerKind]
"""When, tie-breaker (a run's deadline comes first), seq, and what it is about."""


def comes_first(execution: Execution, timer: Timer, message: stored.Message) -> bool:
    """Whether a timer came before a message; a wait without any patience takes what is there when it begins (R14)."""
    when, _, seq, kind = timer
    if when != message.at:
        return when < message.at
    issued = execution.pending.get(seq) if kind == "event" and message.kind == "event" else None
    return issued is None or issued.of != message.name or when > issued.at


def fired(execution: Execution, timer: Timer, now: float) -> Event | None:
    """What a timer leads to; one of a retry leads to no event."""
    _, _, seq, kind = timer
    if kind == "run":
        struck = execution.deadline is not None
        return Interrupted("deadline", now, "its deadline has passed") if struck else None
    issued = execution.pending.get(seq)
    if issued is None or (kind == "step" and seq in execution.cancelling):
        return None  # it has its grace, so that compensation does not overtake it (R18)
    match kind:
        case "sleep":
            return Resolved(seq, Done(b"null"), now)
        case "event":
            return Resolved(seq, Failed(event_timed_out(issued)), now)
        case "step":
            return Resolved(seq, Failed(step_timed_out(issued.name)), now)
        case "grace":
            return Resolved(seq, Cancellation("its time to end was over"), now)
        case "retry":
            return None


def event_timed_out(issued: Issued) -> Failure:
    """Nobody sent the event in time."""
    return Failure("event_timed_out", issued.of, f"no event '{issued.of}' came in time")


def step_timed_out(name: str) -> Failure:
    """The step took too long."""
    return Failure("timed_out", name, f"step '{name}' timed out")


def received(codec: Codec, execution: Execution, message: stored.Message, now: float) -> Event | None:
    """What a message leads to in a run."""
    started = execution.started
    assert started is not None
    match message.kind:
        case "event":
            return Delivered(execution.next_delivery, message.name, message.payload, now, message.key)
        case "cancel" | "terminate" if is_strangers(message, started.parent):
            return None
        case "cancel":
            struck = execution.interrupted is not None
            return None if struck else Interrupted("cancel", now, reason_of(message))
        case "terminate":
            return terminated(message, now)
        case "child":
            if message.name != str(started.run):  # for a run that is over, and under the seal of its place
                return None
            fact = codec.decode_event(
                stored.Record("Resolved", now, message.payload), started.id, started.run
            )
            meant = isinstance(fact, Resolved) and execution.is_pending(fact.seq)
            return accepted(execution, fact) if meant and isinstance(fact, Resolved) else None


def terminated(message: stored.Message, now: float) -> Closed:
    """How a run ends that is terminated: without its code (R18)."""
    failure = Failure("cancelled", "terminated", reason_of(message) or "terminated")
    return Closed(Status.TERMINATED, now, failure=failure)


def reason_of(message: stored.Message) -> str:
    """What was said with a request to end; not too long for a record, which it would keep from being written (F19)."""
    return clean(message.payload.decode(errors="replace"))
