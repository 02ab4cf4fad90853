"""What a log holds: events, in the past tense, as plain data.

Rule 1: a fact comes from outside (`Started`, `Began`, `Retried`, `Delivered`, `Interrupted`, `Resolved` by the
        host); a decision is the interpreter's answer to it (`Issued`, `Resolved` with a `Cancellation` or a
        `Taken`, `Closed`). `Noted` is inert.
Rule 2: times are seconds since the epoch, as floats; payloads are the codec's bytes and are never looked into here.
Rule 3: function, policy and types come from the code; everything else about a command comes from its `Issued`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Generic, Literal, TypeAlias

import attrs
from typing_extensions import TypeVar

from zart_core.records import record, stored_record

T_co = TypeVar("T_co", covariant=True)
E_co = TypeVar("E_co", covariant=True, default=Exception)

SEMANTICS = 1
"""The number of the engine's semantics: the order of branches, the meaning of each event."""


class Status(StrEnum):
    """Where an execution, or one run of it, stands (R22)."""

    SCHEDULED = "scheduled"
    RUNNING = "running"
    WAITING = "waiting"
    PAUSED = "paused"
    PARKED = "parked"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    TERMINATED = "terminated"
    CONTINUED = "continued"

    @property
    def closed(self) -> bool:
        """True when the run has ended; nothing follows (I7)."""
        return self in CLOSED


CLOSED = frozenset(
    {
        Status.COMPLETED,
        Status.FAILED,
        Status.CANCELLED,
        Status.TIMED_OUT,
        Status.TERMINATED,
        Status.CONTINUED,
    }
)


@record
class Ok(Generic[T_co]):
    """It went well, with a value; beside `Err` in a `match`."""

    value: T_co


@record
class Err(Generic[E_co]):
    """It went wrong, with the exception that would have been raised."""

    error: E_co


@record
class Site:
    """Where a command stands in the source: stored and shown, never compared (R21)."""

    module: str
    qualname: str
    line: int
    """Lines below the function's first line, so that edits above it do not move it."""

    def __str__(self) -> str:
        return f"{self.module}.{self.qualname}, line +{self.line}"


FailureKind: TypeAlias = Literal[
    "answer",  # declared in raises= or registered: comes back as its own type
    "error",  # any other exception: comes back as StepFailed
    "exhausted",  # retried to the end; `cause` is the last error
    "timed_out",
    "lost",
    "unencodable",  # the result could not be encoded, or did not come back the same
    "event_timed_out",
    "child",  # a child execution ended badly; `type` is its status, `cause` its failure
    "conflict",  # a child's id is taken by something else
    "cancelled",
    "deadline",
]


@record
class Failure:
    """An exception as data: what R8 lets a log say about one."""

    kind: FailureKind
    type: str
    """The exception's class, as module.QualName; the codec looks it up, nothing is imported because of it."""
    message: str
    traceback: str = ""
    fields: str | None = None
    """The exception's own fields as JSON text, where the kind is `answer`."""
    attempts: int = 0
    cause: Failure | None = None


@stored_record
class Done:
    """A command ended with a value."""

    payload: bytes


@stored_record
class Failed:
    """A command ended with an error."""

    failure: Failure


@stored_record
class Taken:
    """An event wait took delivery n of its run, by reference."""

    n: int


@stored_record
class Cancellation:
    """A command was withdrawn: a loser of a race, a leftover, or part of what was cancelled."""

    reason: str = ""


Outcome: TypeAlias = Done | Failed | Taken | Cancellation

CommandKind: TypeAlias = Literal["step", "sleep", "event", "capture", "now", "child", "spawn", "version"]


@record
class Parent:
    """The command that started a child execution."""

    id: str
    run: int
    seq: int


@stored_record
class Started:
    """Fact: a run of an execution began, with this input."""

    id: str
    run: int
    workflow: str
    payload: bytes
    at: float
    deadline: float | None = None
    """The run's start plus its timeout (R16)."""
    parent: Parent | None = None
    semantics: int = SEMANTICS
    version: int = 1
    """Which version of the workflow the run began with, and goes on with."""


@stored_record
class Issued:
    """Decision: the workflow asked for something. `seq` numbers the commands of a run from 0."""

    seq: int
    kind: CommandKind
    name: str
    at: float
    of: str = ""
    """The step's own id (its template), the event's name, or the child's workflow."""
    payload: bytes = b""
    """Arguments of a step, input of a child, the number of a version marker."""
    until: float | None = None
    """The wake time of a sleep, the deadline of an event wait (R13)."""
    child: str | None = None
    """The execution id of a child."""
    site: Site | None = None


@stored_record
class Began:
    """Fact: an attempt of a step is about to run; on record before the function is called."""

    seq: int
    attempt: int
    takeover: int | None = None
    """None for an ordinary start; after a takeover the number of crashes held against the step so far (R5)."""
    deadline: float | None = None
    """The step's GLOBAL deadline (R7)."""
    at: float = attrs.field(kw_only=True)


@stored_record
class Retried:
    """Fact: attempt `attempt` (0-based) failed and the next one is due at `retry_at` (R4)."""

    seq: int
    attempt: int
    failure: Failure
    retry_at: float
    at: float

    @property
    def error(self) -> Failure:
        """What the attempt failed with."""
        return self.failure


@stored_record
class Resolved:
    """A command ended. By the host it is a fact; with a Taken, or a Cancellation that was asked for, a decision."""

    seq: int
    outcome: Outcome
    at: float
    held: bool = False


@stored_record
class Delivered:
    """Fact: a message for `event` came in; `n` numbers the deliveries of a run from 0."""

    n: int
    event: str
    payload: bytes
    at: float
    key: str | None = None
    held: bool = False
    """A fact that was appended without its answer, while the execution was parked (R20)."""


@stored_record
class Interrupted:
    """Fact: somebody asked for cancellation, or the run's deadline passed."""

    by: Literal["cancel", "deadline"]
    at: float
    reason: str = ""
    held: bool = False


@stored_record
class Closed:
    """Decision (or, when terminated, fact): the run ended. For `continued`, `payload` is the next run's input."""

    status: Status
    at: float
    payload: bytes = b""
    failure: Failure | None = None


@stored_record
class Noted:
    """Inert: pause, resume, hand-over, provenance."""

    what: str
    who: str = ""
    why: str = ""
    at: float = attrs.field(kw_only=True)


Event: TypeAlias = Started | Issued | Began | Retried | Resolved | Delivered | Interrupted | Closed | Noted
Fact: TypeAlias = Started | Began | Retried | Resolved | Delivered | Interrupted | Closed | Noted

EVENT_TYPES: dict[str, type[Any]] = {
    cls.__name__: cls
    for cls in (Started, Issued, Began, Retried, Resolved, Delivered, Interrupted, Closed, Noted)
}
