"""A recorded history against the code at hand, also a finished one, with the result it came to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zart_core.codec import Codec
from zart_core.deploys.checking import Verdict, judge
from zart_core.deploys.histories import History
from zart_core.errors import Defect
from zart_core.events import Closed, Event, Issued, Started, Status
from zart_core.insight.forking import as_issued
from zart_core.interpreter import CODEC, Execution
from zart_core.log import Summary
from zart_core.records import record
from zart_core.wording import STRICT_REMEDY
from zart_core.workflows import Registry, Workflow

ENDS_WITH = {Status.COMPLETED: "result", Status.CONTINUED: "input of the next run"}


@record
class Misfit:
    """A run of a history that the code at hand does not fit."""

    run: int
    message: str


def misfits_of(
    history: History, registry: Registry, *, strict: bool = True, codec: Codec | None = None
) -> list[Misfit]:
    """The runs of a history that do not fit the code at hand. A scrubbed history is never compared strictly.

    Strict compares arguments and durations too, and the result of a run that has ended.
    """
    strict = strict and not history.scrubbed
    found: list[Misfit] = []
    for number, events in enumerate(history.runs):
        verdict = judge(summary_of(history, number, events), events, registry.of, strict, codec or CODEC)
        message = verdict.message or (compared_end(events, registry, codec or CODEC) if strict else "")
        if message:
            found.append(Misfit(number, f"{kind_of(verdict)}: {message}"))
    return found


def kind_of(verdict: Verdict) -> str:
    """The kind of a verdict; a result that differs is a divergence."""
    return "diverges" if verdict.fits else verdict.kind


def summary_of(history: History, run: int, events: Sequence[Event]) -> Summary:
    """What a list would show of a run."""
    at = events[0].at
    return Summary(history.id, history.workflow, "", history.status, run, len(events), 0, at, at, None, None)


def compared_end(events: Sequence[Event], registry: Registry, codec: Codec) -> str:
    """What is to be said when the run comes to another result now; empty when it does not, or has none."""
    first, last = events[0], events[-1]
    if not (isinstance(first, Started) and isinstance(last, Closed) and last.status in ENDS_WITH):
        return ""
    try:
        decided = decided_end(registry.of(first), as_issued(events)[:-1], codec)
    except Defect as defect:
        return str(defect)
    if isinstance(decided, Closed) and decided.payload == last.payload:
        return ""
    what = ENDS_WITH[last.status]
    return (
        f"execution '{first.id}' (run {first.run}) of workflow '{first.workflow}' comes to another {what} "
        f"than the one recorded at event {len(events) - 1}\n  {STRICT_REMEDY}"
    )


def decided_end(workflow: Workflow[Any, Any], events: Sequence[Event], codec: Codec) -> Event:
    """What the code decides at the end of these events, where a marker that is younger than they are is 1 (R23)."""
    younger: list[str] = []
    while True:
        execution = Execution(workflow, codec=codec, strict=True)
        for name in younger:
            execution.suppose_version(name, 1)
        try:
            execution.apply_all(events)
            decided = execution.decide()[0]
        finally:
            execution.close()
        if not (isinstance(decided, Issued) and decided.kind == "version"):
            return decided
        younger.append(decided.name)
