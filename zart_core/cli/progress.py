"""What goes on in one execution, followed from its log.

Rule 1: it only reads the log, so it can follow an execution that another process runs.
Rule 2: each read costs what is new, not what is there.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping

from zart_core import log as stored
from zart_core.cli.reading import events_of
from zart_core.events import Closed, Event, Interrupted, Noted, Started, Status
from zart_core.hosts.explain import StepLine, follow, moment, words_of
from zart_core.hosts.progress import Progress as Said
from zart_core.hosts.progress import believed, note_attempt
from zart_core.interpreter import CODEC
from zart_core.records import record

SAID_S = 1.0
"""Time between two looks at what running steps say, at the least."""


@record
class Note:
    """One thing that happened, in words. `routine`: a step went well; many of them may be told as one."""

    at: float
    text: str
    routine: bool = False


class Progress:
    """Where an execution stands. `read` brings it up to date."""

    def __init__(self, log: stored.EventLog, id: str, run: int = 0) -> None:
        self.log = log
        self.id = id
        self.run = run
        self.position = 0
        self.lines: dict[int, StepLine] = {}
        """What was issued and is not resolved, by seq."""
        self.counts: Counter[str] = Counter()
        """Steps that are done, failed or cancelled, and `retries`; over all runs."""
        self.suspects: set[int] = set()
        """Steps that were running when their worker died, and have not begun again."""
        self.attempts: dict[int, tuple[int, float | None]] = {}
        """The attempts that run, and when they began."""
        self.said: Mapping[int, Said] = {}
        """What they said last, by seq."""
        self.listens_at = 0.0
        self.workflow = ""
        self.started_at: float | None = None
        self.closed: Closed | None = None

    def read(self) -> list[Note]:
        """Take in what is new; goes on to the next run by itself."""
        notes: list[Note] = []
        while self.closed is None:
            events = events_of(self.log, self.id, self.run, self.position)
            self.position += len(events)
            for event in events:
                notes += self.take(event)
            if not events or not is_continued(events[-1]):
                break
            self.run, self.position, self.closed = self.run + 1, 0, None
            self.lines.clear()
            self.attempts.clear()
        self.listen(time.monotonic())
        return notes

    def listen(self, now: float) -> None:
        """Read what running steps say, from time to time."""
        if not self.attempts:
            self.said = {}
        elif now >= self.listens_at:
            self.listens_at = now + SAID_S
            summary = self.log.summary(self.id)
            self.said = {} if summary is None else believed(summary, self.attempts, CODEC)

    def take(self, event: Event) -> list[Note]:
        """Take in one event; gives what is worth a line."""
        note_attempt(self.attempts, event)
        line = follow(self.lines, event)
        if line is not None:
            return self.followed(line, event)
        match event:
            case Started():
                self.workflow = event.workflow
                self.started_at = event.at if self.started_at is None else self.started_at
                return [Note(event.at, f"run {event.run} of workflow '{event.workflow}' began")]
            case Interrupted():
                why = f": {event.reason}" if event.reason else ""
                return [Note(event.at, f"{'cancellation' if event.by == 'cancel' else 'the deadline'}{why}")]
            case Closed():
                self.closed = event
                why = f": {words_of(event.failure)}" if event.failure is not None else ""
                took = event.at - (self.started_at if self.started_at is not None else event.at)
                return [Note(event.at, f"{event.status} after {took:.1f} s{why}")]
            case Noted():
                return [Note(event.at, event.what + (f": {event.why}" if event.why else ""))]
            case _:
                return []

    def followed(self, line: StepLine, event: Event) -> list[Note]:
        """Count what a command came to."""
        self.suspects.discard(line.seq)
        if line.ended_at is not None:
            del self.lines[line.seq]
            if line.kind == "step":
                self.counts[line.state] += 1
        if line.state == "retrying":
            self.counts["retries"] += 1
        text = words_about(line)
        return [Note(event.at, text, line.kind == "step" and line.state == "done")] if text else []

    def running(self, now: float) -> list[StepLine]:
        """List the steps that run; the start of a retry is not on record, so one that is due counts."""
        return [line for line in self.lines.values() if self.is_running(line, now)]

    def waiting(self, now: float) -> list[StepLine]:
        """List what else is not resolved: retries to come, sleeps, events, children, steps without a slot."""
        return [line for line in self.lines.values() if not self.is_running(line, now)]

    def is_running(self, line: StepLine, now: float) -> bool:
        """Tell whether a command runs, as far as the log knows."""
        return line.seq not in self.suspects and (line.state == "running" or is_due(line, now))

    def take_over(self) -> None:
        """Note that another worker has the execution from now on: what was running has to begin again."""
        self.suspects = {line.seq for line in self.lines.values() if line.state == "running"}


def is_continued(event: Event) -> bool:
    """Tell whether another run follows."""
    return isinstance(event, Closed) and event.status is Status.CONTINUED


def is_due(line: StepLine, now: float) -> bool:
    """Whether a retry's time has come."""
    return line.state == "retrying" and line.until is not None and line.until <= now


def words_about(line: StepLine) -> str:
    """Say what a change of a command means; empty when it is not worth a line."""
    tries = f" at attempt {line.attempts}" if line.attempts > 1 else ""
    took = "" if line.ended_at is None else f" in {line.ended_at - (line.began_at or line.issued_at):.3f} s"
    until = "" if line.until is None else f" until {moment(line.until)}"
    match line.kind, line.state:
        case "step", "done":
            return f"step '{line.name}' done{tries}{took}"
        case "step", "retrying":
            again = moment(line.until or 0.0)
            return (
                f"step '{line.name}' failed at attempt {line.attempts}: {line.error}; next attempt at {again}"
            )
        case (("step" | "child" | "event"), "failed"):
            return f"{line.kind} '{line.name}' failed{tries}: {line.error}"
        case "sleep", "waiting":
            return f"'{line.name}' sleeps{until}"
        case "event", "waiting":
            return f"waits for event '{line.event}'{until}"
        case "event", "done":
            return f"event '{line.event}' came"
        case (("child" | "spawn"), "waiting"):
            return f"execution '{line.event}' begins"
        case "child", "done":
            return f"execution '{line.event}' has ended{took}"
        case _, "cancelled":
            return f"{line.kind} '{line.name}' cancelled"
        case _:
            return ""
