"""The commands of a run as a table, and failures and times in words: readable from the log alone, without the code.

Rule 1: issued minus resolved is what is left to do; everything else here is wording.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import attrs

from zart_core.events import (
    Began,
    Cancellation,
    Event,
    Failed,
    Failure,
    Issued,
    Noted,
    Resolved,
    Retried,
    Site,
)
from zart_core.interpreter import OFFERED, QUEUED
from zart_core.records import record


@record
class StepLine:
    """One command of a run, as a table of steps shows it. Times are seconds since the epoch."""

    seq: int
    kind: str
    name: str
    state: str
    """waiting, queued (for room), running, offered (to any worker), retrying, done, failed or cancelled."""
    attempts: int
    issued_at: float
    began_at: float | None
    """When its first attempt began."""
    ended_at: float | None
    until: float | None
    site: Site | None
    error: str
    event: str
    """The event's name, the id of the child or of the offered step, the queue that a step waits for, or empty."""
    again: int = 0
    """How often an attempt was begun again, after its worker had died or stopped: no attempt more, but one start."""


def steps_of(events: Sequence[Event]) -> list[StepLine]:
    """Every command of a run in the order of its issue, with what became of it."""
    lines: dict[int, StepLine] = {}
    for event in events:
        follow(lines, event)
    return list(lines.values())


def follow(lines: dict[int, StepLine], event: Event) -> StepLine | None:
    """Bring a table of commands by seq up to date with one event; gives the line that it changed."""
    match event:
        case Issued():
            line = issued(event)
        case Began(seq=seq):
            line = began(lines[seq], event)
        case Retried(seq=seq, attempt=attempt, failure=failure, retry_at=retry_at):
            error = words_of(failure)
            line = changed(lines[seq], state="retrying", attempts=attempt + 1, error=error, until=retry_at)
        case Noted(what=what, who=who) if what == OFFERED and who.isdecimal():
            line = changed(lines[int(who)], state="offered", attempts=0, began_at=None, event=event.why)
        case Noted(what=what, who=who) if what == QUEUED and who.isdecimal():
            line = changed(lines[int(who)], state="queued", event=event.why)
        case Resolved(seq=seq):
            line = ended(lines[seq], event)
        case _:
            return None
    lines[line.seq] = line
    return line


def issued(event: Issued) -> StepLine:
    """The line of a command that was issued just now."""
    subject = event.child or (event.of if event.kind == "event" else "")
    answered = event.kind in ("now", "version")
    return StepLine(
        seq=event.seq,
        kind=event.kind,
        name=event.name,
        state="done" if answered else "waiting",
        attempts=0,
        issued_at=event.at,
        began_at=None,
        ended_at=event.at if answered else None,
        until=event.until,
        site=event.site,
        error="",
        event=subject,
    )


def began(line: StepLine, event: Began) -> StepLine:
    """The line once an attempt begins, for the first time or again."""
    return changed(
        line,
        state="running",
        attempts=event.attempt + 1,
        began_at=event.at if line.began_at is None else line.began_at,
        until=None,
        again=line.again + (event.takeover is not None or line.attempts == event.attempt + 1),
    )


def changed(line: StepLine, **changes: Any) -> StepLine:
    """The line with some fields replaced."""
    return attrs.evolve(line, **changes)


def ended(line: StepLine, event: Resolved) -> StepLine:
    """The line with its outcome. A retry begins without a record: one that was due by then has begun."""
    retried = int(line.state == "retrying" and line.until is not None and event.at >= line.until)
    line = changed(line, ended_at=event.at, until=None, attempts=line.attempts + retried)
    match event.outcome:
        case Failed(Failure() as failure):
            attempts = max(line.attempts, failure.attempts) if line.kind == "step" else line.attempts
            return changed(line, state="failed", error=words_of(failure), attempts=attempts)
        case Cancellation():
            return changed(line, state="cancelled")
        case _:
            return changed(line, state="done", error="")


def words_of(failure: Failure) -> str:
    """A failure in one line."""
    kind, message, cause = failure.type.removeprefix("zart_core.errors."), failure.message, failure.cause
    told = message if message.startswith(kind) else f"{kind}: {message}"
    own = told if message else kind
    said = cause is None or (cause.message != "" and cause.message in message)
    return own if cause is None or said else f"{own} ({words_of(cause)})"


def moment(at: float) -> str:
    """A time, as a person reads it; calendars end with the year 9999, and some sleep for longer."""
    try:
        return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return f"{at:.0f} s after 1970"
