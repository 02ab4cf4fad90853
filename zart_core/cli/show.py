"""`zart list`, `show`, `explain` and `history`: executions for people and programs, without their code."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from zart_core import log as stored
from zart_core.cli.reading import events_of, run_of, summary_of
from zart_core.cli.texts import (
    as_json,
    at,
    columns,
    duration,
    jsonable,
    one_line,
    payload,
    plain,
    say,
    shortened,
)
from zart_core.deploys.versions import VersionUse
from zart_core.errors import LogCorrupt
from zart_core.events import Closed, Event, Started, Status
from zart_core.hosts.explain import StepLine, moment, steps_of, words_of
from zart_core.hosts.ports import ON_DISK
from zart_core.hosts.progress import Progress, reason_of
from zart_core.insight.explaining import (
    Explanation,
    circumstances,
    explanation,
    lines_of,
    words_of_progress,
)
from zart_core.interpreter import CODEC

WITHOUT_RESULT = frozenset({Status.FAILED, Status.CANCELLED, Status.TERMINATED, Status.TIMED_OUT})


def reason_for(log: stored.EventLog, summary: stored.Summary) -> str:
    """Give why an execution is parked or paused, or has ended without a result, for which its last record is read."""
    if summary.status not in WITHOUT_RESULT:
        return reason_of(summary)
    try:
        last = events_of(log, summary.id, summary.run, summary.position - 1)
    except LogCorrupt:
        return "its last record is damaged; zart verify says more"
    return "".join(
        words_of(end.failure) for end in last if isinstance(end, Closed) and end.failure is not None
    )


def show_list(page: stored.Page[stored.Summary], reasons: Mapping[str, str], json: bool) -> None:
    """Print a page of executions, with the reason of each."""
    if json:
        items = [{**summary_json(item), "reason": reasons[item.id]} for item in page.items]
        say(as_json({"items": items, "next": page.next}))
        return
    rows = [("ID", "WORKFLOW", "STATUS", "RUN", "EVENTS", "UPDATED", "REASON")]
    for item in page.items:
        numbers = (str(item.run), str(item.position))
        rows.append(
            (
                item.id,
                item.workflow,
                str(item.status),
                *numbers,
                moment(item.updated_at),
                shortened(one_line(reasons[item.id]), 100),
            )
        )
    for line in columns(rows):
        say(line.rstrip())
    if page.next is not None:
        say(f"there are more: --after '{plain(page.next)}'")


def show_versions(uses: Sequence[VersionUse], json: bool) -> None:
    """Print what still runs on which version."""
    if json:
        items = [{**jsonable(use), "oldest": at(use.oldest), "counts": dict(use.counts)} for use in uses]
        say(as_json({"items": items}))
        return
    rows = [("WORKFLOW", "VERSION", "UNFINISHED", "OLDEST", "")]
    for use in uses:
        version = str(use.version) if use.version else "unreadable"
        statuses = ", ".join(f"{n:,} {status}" for status, n in sorted(use.counts.items()))
        rows.append((use.workflow, version, f"{sum(use.counts.values()):,}", moment(use.oldest), statuses))
    for line in columns(rows):
        say(line.rstrip())


def summary_json(summary: stored.Summary) -> dict[str, Any]:
    """Give an execution as plain data."""
    return {
        "id": summary.id,
        "workflow": summary.workflow,
        "status": str(summary.status),
        "run": summary.run,
        "events": summary.position,
        "created_at": at(summary.created_at),
        "updated_at": at(summary.updated_at),
        "due_at": None if summary.wake == 0.0 else at(summary.wake),
        "held": summary.owner is not None,
        "reason": reason_of(summary),
        "unread": summary.unread,
    }


def show(log: stored.EventLog, id: str, json: bool) -> None:
    """Print where it stands: status, steps with attempts and durations, what it waits for and where."""
    summary = summary_of(log, id)
    given = circumstances(log, CODEC, summary)
    events, steps = given.events, steps_of(given.events)
    if json:
        told = [
            {**step_json(step), "progress": progress_json(given.progress.get(step.seq))} for step in steps
        ]
        say(as_json({**summary_json(summary), **ends_json(events), "steps": told}))
        return
    now = time.time()
    first, *rest = lines_of(explanation(given, now=now))
    say(plain(first))
    rows = [("STEP", "KIND", "STATE", "ATTEMPTS", "DURATION", "AT", "")]
    rows += [step_row(step, now, given.progress.get(step.seq)) for step in steps]
    for line in columns(rows) if steps else ():
        say(f"  {line.rstrip()}")
    for line in rest:
        say(plain(line))
    if events and isinstance(last := events[-1], Closed) and last.payload:
        say(f"result: {shortened(as_json(payload(last.payload)))}")


def explain(log: stored.EventLog, id: str, url: str, json: bool) -> None:
    """Print what it waits for, at which line, since when, until when, and who can end the wait."""
    told = explanation(
        circumstances(log, CODEC, summary_of(log, id)), now=time.time(), store=said_url(url), sources=True
    )
    if json:
        say(as_json(explanation_json(told)))
        return
    for line in lines_of(told):
        say(plain(line))


def said_url(url: str) -> str:
    """Give the URL for command lines: none where the environment has it, or where it may hold a password."""
    return "" if url == os.environ.get("ZART_STORE") or url.partition(":")[0] not in ON_DISK else url


def explanation_json(told: Explanation) -> dict[str, Any]:
    """Give an explanation as plain data."""
    waits = [
        {
            **jsonable(one),
            "since": at(one.since),
            "until": at(one.until),
            "progress": progress_json(one.progress),
        }
        for one in told.waits
    ]
    return {**jsonable(told), "waits": waits}


def progress_json(progress: Progress | None) -> dict[str, Any] | None:
    """Give what a running step said last as plain data."""
    if progress is None:
        return None
    return {
        "attempt": progress.attempt,
        "at": at(progress.at),
        "value": payload(progress.json.encode()),
    }


def step_row(
    step: StepLine, now: float, progress: Progress | None
) -> tuple[str, str, str, str, str, str, str]:
    """Give one command as cells."""
    starts = f" ({step.attempts + step.again} starts)" if step.again else ""
    attempts = f"{step.attempts}{starts}" if step.attempts else ""
    return (
        step.name,
        step.kind,
        step.state,
        attempts,
        duration(taken(step, now)),
        str(step.site or ""),
        step.error if progress is None else words_of_progress(progress, now),
    )


def taken(step: StepLine, now: float) -> float:
    """Tell how long a command took, or has taken so far: from the start of its first attempt, if any."""
    return (now if step.ended_at is None else step.ended_at) - (step.began_at or step.issued_at)


def step_json(step: StepLine) -> dict[str, Any]:
    """Give one command as plain data."""
    return {
        "seq": step.seq,
        "kind": step.kind,
        "name": step.name,
        "state": step.state,
        "attempts": step.attempts,
        "starts": step.attempts + step.again,
        "issued_at": at(step.issued_at),
        "began_at": at(step.began_at),
        "ended_at": at(step.ended_at),
        "duration_s": None if step.ended_at is None else round(taken(step, 0.0), 6),
        "until": at(step.until),
        "site": jsonable(step.site),
        "subject": step.event,
        "error": step.error,
    }


def ends_json(events: Sequence[Event]) -> dict[str, Any]:
    """Give what went into a run and what came out of it."""
    first, last = (events[0], events[-1]) if events else (None, None)
    ended = last if isinstance(last, Closed) else None
    return {
        "input": payload(first.payload) if isinstance(first, Started) else None,
        "deadline": at(first.deadline) if isinstance(first, Started) else None,
        "result": payload(ended.payload) if ended else None,
        "failure": jsonable(ended.failure) if ended else None,
    }


def history(log: stored.EventLog, id: str, run: int | None, json: bool) -> None:
    """Print the events of a run, one a line."""
    summary = summary_of(log, id)
    number = run_of(summary, run)
    events = events_of(log, id, number)
    if json:
        facts = [{"position": n, **event_json(event)} for n, event in enumerate(events)]
        say(as_json({"id": id, "run": number, "events": facts}))
        return
    rows = [
        (f"{n:>5}", moment(event.at), type(event).__name__, event_words(event))
        for n, event in enumerate(events)
    ]
    for line in columns(rows):
        say(line.rstrip())


def event_json(event: Event) -> dict[str, Any]:
    """Give an event as plain data."""
    return {"type": type(event).__name__, **jsonable(event), "at": at(event.at)}


def event_words(event: Event) -> str:
    """Give what an event says, without its time, as name=value."""
    fields = jsonable(event)
    del fields["at"]
    given = {
        key: value
        for key, value in fields.items()
        if value is not None and value is not False and value != ""
    }
    return "  ".join(f"{key}={shortened(cell(value))}" for key, value in given.items())


def cell(value: Any) -> str:
    """Give a field's value as text."""
    return value if isinstance(value, str) else as_json(value)
