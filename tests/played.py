"""A run that is played by hand: a fact, then decide and apply until there is nothing; histories as lists of lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import zart_core as zart
from zart_core.interpreter import CODEC, capture_type


class Run:
    """A live execution beside its log. Every verb is one turn, a second after the last."""

    def __init__(self, workflow: zart.Workflow[Any, Any], **options: Any) -> None:
        self.workflow = workflow
        self.options = options
        self.execution = zart.Execution(workflow, **options)
        self.log: list[zart.Event] = []
        self.captures = True

    def start(self, payload: bytes = b"null", **fields: Any) -> Run:
        """Begin at time 0."""
        return self.turn(zart.Started("an-id", 0, self.workflow.name, payload, 0.0, **fields))

    def turn(self, *facts: zart.Event) -> Run:
        """Facts, each followed by what it leads to."""
        for fact in facts:
            self.add(fact)
            self.answer()
        return self

    def add(self, *events: zart.Event) -> Run:
        """Apply and write down, without asking for decisions."""
        for event in events:
            self.execution.apply(event)
            self.log.append(event)
        return self

    def answer(self) -> Run:
        """Apply decisions until there are none, and evaluate what is captured."""
        while True:
            decisions = self.execution.decide()
            self.add(*decisions)
            waiting = [seq for seq, issued in self.execution.pending.items() if issued.kind == "capture"]
            if not decisions and (not waiting or not self.captures):
                return self
            if not decisions:
                command = self.execution.command(waiting[0])
                payload = CODEC.encode(command.fn(), capture_type(command))
                self.add(zart.Resolved(waiting[0], zart.Done(payload), self.execution.now))

    @property
    def later(self) -> float:
        """A second after the last event."""
        return self.execution.now + 1

    def seq(self, name: str) -> int:
        """The number of a pending command."""
        return next(seq for seq, issued in self.execution.pending.items() if issued.name == name)

    def done(self, name: str, value: Any = None, **fields: Any) -> Run:
        """A command ends with a value."""
        return self.turn(self.outcome(name, zart.Done(CODEC.encode(value, Any)), **fields))

    def fails(self, name: str, error: Exception | None = None, kind: Any = None, **fields: Any) -> Run:
        """A command ends with an error, or with a failure of this kind."""
        if error is not None:
            function = getattr(self.execution.command(self.seq(name)), "function", None)
            failure = CODEC.failure_of(error, () if function is None else function.policy.raises)
        else:
            failure = zart.Failure(kind, name, f"it is {kind}")
        return self.turn(self.outcome(name, zart.Failed(failure), **fields))

    def gone(self, name: str) -> Run:
        """A command that was told to end does."""
        return self.turn(self.outcome(name, zart.Cancellation("told to")))

    def outcome(self, name: str, outcome: Any, at: float | None = None, held: bool = False) -> zart.Resolved:
        """The fact alone."""
        return zart.Resolved(self.seq(name), outcome, self.later if at is None else at, held)

    def began(self, name: str, attempt: int = 0) -> Run:
        """An attempt begins."""
        return self.turn(zart.Began(self.seq(name), attempt, at=self.later))

    def retried(self, name: str, retry_at: float, attempt: int = 0) -> Run:
        """An attempt has failed."""
        failure = zart.Failure("error", "E", "once more")
        return self.turn(zart.Retried(self.seq(name), attempt, failure, retry_at, self.later))

    def deliver(self, event: str, payload: bytes = b"null", **fields: Any) -> Run:
        """A message comes in."""
        return self.turn(zart.Delivered(self.execution.next_delivery, event, payload, self.later, **fields))

    def cancel(self, reason: str = "stop", **fields: Any) -> Run:
        """Somebody asks for cancellation."""
        return self.turn(zart.Interrupted("cancel", self.later, reason, **fields))

    def late(self) -> Run:
        """The deadline passes."""
        return self.turn(zart.Interrupted("deadline", self.later, "late"))

    def terminate(self) -> Run:
        """It is ended at once."""
        return self.turn(zart.Closed(zart.Status.TERMINATED, self.later))

    @property
    def history(self) -> list[str]:
        """The log in lines."""
        return history(self.log)

    @property
    def result(self) -> Any:
        """The result of a completed run."""
        return self.execution.result()

    def replayed(self, workflow: zart.Workflow[Any, Any] | None = None, **options: Any) -> Run:
        """A new run of the same log, perhaps with other code, as a host would take it up."""
        run = Run(workflow or self.workflow, **options)
        try:
            run.add(*self.log)
            run.execution.check_answered()
        except BaseException:
            run.execution.close()
            raise
        return run

    def close(self) -> None:
        """Close its branches."""
        self.execution.close()


def history(log: Sequence[zart.Event]) -> list[str]:
    """A log in lines, with names in place of numbers."""
    names: dict[int, str] = {}
    lines = []
    for event in log:
        if isinstance(event, zart.Issued):
            names[event.seq] = event.name
        lines.append(line(event, names))
    return lines


def line(event: zart.Event, names: dict[int, str]) -> str:
    """One event in words."""
    match event:
        case zart.Issued(kind="version"):
            return f"version {event.name} = {event.payload.decode()}"
        case zart.Issued():
            return f"{event.kind} {event.name}"
        case zart.Resolved(seq, zart.Done(payload)):
            return f"{names[seq]} = {payload.decode()}"
        case zart.Resolved(seq, zart.Failed(failure)):
            return f"{names[seq]} ! {failure.kind}"
        case zart.Resolved(seq, zart.Taken(n)):
            return f"{names[seq]} takes {n}"
        case zart.Resolved(seq):
            return f"{names[seq]} cancelled"
        case zart.Began(seq, attempt):
            return f"{names[seq]} begins {attempt}"
        case zart.Retried(seq, attempt):
            return f"{names[seq]} failed {attempt}"
        case zart.Delivered(n, name):
            return f"delivered {n} {name}"
        case zart.Interrupted(by):
            return by
        case zart.Closed(status, failure=None):
            return f"{status} {event.payload.decode()}".strip()
        case zart.Closed(status):
            assert event.failure is not None
            return f"{status}: {event.failure.type.rsplit('.', 1)[-1]}: {event.failure.message}"
        case _:
            return type(event).__name__.lower()
