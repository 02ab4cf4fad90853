"""Replay every unfinished execution of a log against the code at hand, and say which would be parked (R20, R21).

Rule 1: read-only: `list`, `records` and `summary` are all that is asked of the log.
Rule 2: an execution is judged as it stood when it was read; what is started or changed later is not seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import attrs

from zart_core import log as stored
from zart_core.codec import Codec
from zart_core.divergence import replay_explained
from zart_core.errors import Defect, Diverged, InvalidUse, LogCorrupt, UnknownWorkflow
from zart_core.events import Closed, Event, Site, Started, Status
from zart_core.hosts.offers import is_own
from zart_core.hosts.ports import missing, open_log
from zart_core.hosts.turns import EVENTS_MAX, MISBEHAVIOUR
from zart_core.insight.forking import as_issued
from zart_core.insight.sources import place_of
from zart_core.interpreter import CODEC, Execution
from zart_core.records import record
from zart_core.workflows import Registry, Workflow, WorkflowSource

VerdictKind: TypeAlias = Literal[
    "fits",
    "diverges",  # the code asks for something else than is recorded
    "unreadable",  # a recorded payload no longer decodes to the declared type
    "unregistered",  # no such workflow among those given
    "defect",  # the code raises an error that parks it: a name used twice, park_on, a wrong declaration
    "damaged",  # the log itself cannot be read, or was written by a newer version
]
PAGE = 500
SHOWN_MAX = 50


@record
class Verdict:
    """What became of one execution when the code at hand replayed it."""

    id: str
    run: int
    workflow: str
    version: int
    """The version that its current run began with; 0 where that cannot be read."""
    status: Status
    """Where it stood when it was read."""
    events: int
    """Number of events that its current run had."""
    kind: VerdictKind
    event: int | None = None
    """The event, counted from 0, at which code and log part; their number when the log ends too early."""
    message: str = ""
    """What a host would say when it parks it; several lines. No payload."""
    recorded: str = ""
    yielded: str = ""
    recorded_site: Site | None = None
    yielded_site: Site | None = None
    field: str = ""
    """The path of the field that no longer decodes."""
    nearest: str = ""
    """The smallest change after which it fits again, where one was found."""

    @property
    def fits(self) -> bool:
        """Whether it would go on."""
        return self.kind == "fits"


@record
class DeployReport:
    """The verdict on each unfinished execution, in the order of their ids."""

    verdicts: Sequence[Verdict]

    @property
    def fits(self) -> bool:
        """Whether all of them would go on."""
        return all(verdict.fits for verdict in self.verdicts)

    @property
    def counts(self) -> Mapping[VerdictKind, int]:
        """How many got which verdict."""
        return Counter(verdict.kind for verdict in self.verdicts)

    @property
    def misfits(self) -> Sequence[Verdict]:
        """Those that would be parked."""
        return [verdict for verdict in self.verdicts if not verdict.fits]

    def check(self) -> None:
        """Raise AssertionError, with all that would be parked and why, unless everything fits."""
        if not self.fits:
            raise AssertionError(str(self))

    def __str__(self) -> str:
        lines = [words_of(self.counts), *lines_of(self.misfits[:SHOWN_MAX])]
        more = len(self.misfits) - SHOWN_MAX
        return "\n".join(lines + ([f"and {more:,} more"] if more > 0 else []))


def lines_of(misfits: Iterable[Verdict]) -> Iterator[str]:
    """What does not fit, for people: each disagreement in full once, and a line for every other that has it too."""
    first_with: dict[str, str] = {}
    for verdict in misfits:
        at = "" if verdict.event is None else f" at event {verdict.event}"
        own = verdict.message.replace(f"'{verdict.id}' (run {verdict.run})", "it", 1).replace(at, "", 1)
        first = first_with.setdefault(f"{verdict.kind} {verdict.workflow} {own}", verdict.id)
        if first != verdict.id:
            yield f"{verdict.id}: {verdict.kind}{at}, as {first}"
            continue
        head, *rest = verdict.message.splitlines() or [""]
        yield f"{verdict.id}: {verdict.kind}: {head}"
        for line in rest:
            yield line
            if line.startswith("  yielded: ") and (place := place_of(verdict.yielded_site)) is not None:
                yield f"    {place}: {place.source}"


def words_of(counts: Mapping[VerdictKind, int]) -> str:
    """The counts in one line."""
    total = sum(counts.values())
    noun = "execution" if total == 1 else "executions"
    parts = [f"{counts[kind]:,} {kind}" for kind in sorted(counts, key=lambda kind: kind != "fits")]
    return f"{total:,} unfinished {noun}" + (f": {', '.join(parts)}" if parts else "")


def check_deploy(
    log: stored.EventLog | str,
    workflows: WorkflowSource | Iterable[WorkflowSource],
    *,
    strict: bool = True,
    codec: Codec | None = None,
) -> DeployReport:
    """Replay every unfinished execution of a log against these workflows; nothing is claimed or written.

    Args:
        log: a log that is open, or the URL of a store, which is opened for it and closed again.
        workflows: workflows, modules or a Registry, as for `zart.open`.
        strict: compare arguments and durations too; a host compares kinds and names only (R21).
        codec: in place of a plain one.

    O(n) in the executions of the store and the events of the unfinished ones. Raises what opening the log raises,
    InvalidUse where there is no file or directory of that name, and StoreUnavailable when it cannot be read.
    """
    registry = Registry(workflows)
    if isinstance(log, str) and (path := missing(log)):
        raise InvalidUse(f"there is no store at '{path}', so nothing was checked")
    opened = open_log(log) if isinstance(log, str) else log
    try:
        return DeployReport(list(verdicts_on(opened, registry, strict=strict, codec=codec)))
    finally:
        if isinstance(log, str):
            opened.close()


def verdicts_on(
    log: stored.EventLog,
    registry: Registry,
    *,
    strict: bool = True,
    codec: Codec | None = None,
    passed: Callable[[], None] = lambda: None,
) -> Iterator[Verdict]:
    """A verdict for each unfinished execution in the order of their ids; `passed` is called for every one looked at."""
    for summary in unfinished(log):
        verdict = judged(log, summary, registry, strict, codec or CODEC)
        passed()
        if verdict is not None:
            yield verdict


def unfinished(log: stored.EventLog) -> Iterator[stored.Summary]:
    """Every execution that has not ended, in one walk over all ids, so that none that changes its status is missed."""
    return (
        summary for summary in everything(log) if not summary.status.closed and not is_own(summary.workflow)
    )


def everything(log: stored.EventLog) -> Iterator[stored.Summary]:
    """Every execution in the order of the ids, a page at a time."""
    after = None
    while True:
        page = log.list(limit=PAGE, after=after)
        yield from page.items
        after = page.next
        if after is None:
            return


def judged(
    log: stored.EventLog, summary: stored.Summary, registry: Registry, strict: bool, codec: Codec
) -> Verdict | None:
    """The verdict on an execution; None when it has ended since it was listed."""
    while True:
        try:
            records = log.records(summary.id, summary.run)
            events = codec.decode_events(records, summary.id, summary.run)
        except LogCorrupt as damage:
            return verdict_of(summary, [], damage)
        if not events or not isinstance(events[-1], Closed):
            return judge(summary, events, registry.of, strict, codec)
        later = log.summary(summary.id)
        if later is None or later.status.closed:
            return None
        if later.run == summary.run:
            closed = LogCorrupt(f"execution '{summary.id}' is {later.status}, and its log is closed")
            return verdict_of(summary, events, closed)
        summary = later


def judge(
    summary: stored.Summary,
    events: Sequence[Event],
    workflow_of: Callable[[Started], Workflow[Any, Any]],
    strict: bool,
    codec: Codec,
) -> Verdict:
    """The verdict on a complete log, as a host would take it up. `workflow_of` may raise UnknownWorkflow."""
    try:
        first = events[0] if events else None
        if not isinstance(first, Started):
            raise LogCorrupt(f"run {summary.run} of execution '{summary.id}' does not begin with Started")
        execution = replay_explained(
            workflow_of(first), as_issued(events) if strict else events, codec, strict=strict
        )
        try:
            look_ahead(execution)
        finally:
            execution.close()
    except MISBEHAVIOUR as error:
        return verdict_of(summary, events, error)
    return verdict_of(summary, events, None)


def look_ahead(execution: Execution) -> None:
    """Ask for what a host asks for first: decisions, as far as they lead, and arguments of steps that are to run.

    What is to be captured ends it: that is the host's to evaluate. Raises the defect.
    """
    while execution.position < EVENTS_MAX and (decisions := execution.decide()):
        execution.apply_all(decisions)
    for seq, issued in execution.pending.items():
        if issued.kind == "step":
            execution.arguments(seq)


def verdict_of(summary: stored.Summary, events: Sequence[Event], error: BaseException | None) -> Verdict:
    """The verdict that an error of a replay amounts to."""
    kind: VerdictKind
    match error:
        case None:
            kind = "fits"
        case Diverged():
            kind = "unreadable" if error.field else "diverges"
        case UnknownWorkflow():
            kind = "unregistered"
        case LogCorrupt():
            kind = "damaged"
        case _:
            kind = "defect"
    verdict = Verdict(
        summary.id,
        summary.run,
        summary.workflow,
        version_of(events),
        summary.status,
        len(events),
        kind,
        message=said(error),
    )
    if not isinstance(error, Diverged):
        return verdict
    return attrs.evolve(
        verdict,
        event=error.position,
        recorded=error.recorded,
        yielded=error.yielded,
        recorded_site=error.recorded_site,
        yielded_site=error.yielded_site,
        field=error.field,
        nearest=error.nearest,
    )


def version_of(events: Sequence[Event]) -> int:
    """The version of the workflow that a run began with; 0 where its log does not say."""
    return events[0].version if events and isinstance(events[0], Started) else 0


def said(error: BaseException | None) -> str:
    """What a host would say of it."""
    match error:
        case None:
            return ""
        case Diverged() | UnknownWorkflow() | LogCorrupt():
            return str(error)
        case Defect():
            return f"{type(error).__name__}: {error}"
        case _:
            return f"its code cannot go on: {type(error).__name__}: {error}"
