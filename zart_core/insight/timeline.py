"""A run over time, as data: a row for each command, with its attempts, gaps and waits; flows nested.

Rule 1: read from the log alone; with the workflow's code rows also know which flow they belong to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import attrs

from zart_core.branches import Node
from zart_core.codec import Codec
from zart_core.events import (
    Began,
    Closed,
    Delivered,
    Event,
    Failed,
    Interrupted,
    Issued,
    Noted,
    Resolved,
    Retried,
    Started,
)
from zart_core.hosts.explain import StepLine, steps_of, words_of
from zart_core.hosts.turns import MISBEHAVIOUR
from zart_core.interpreter import HANDED_OVER, UNBEGUN, Execution
from zart_core.records import record
from zart_core.workflows import Workflow

SpanKind: TypeAlias = Literal["queued", "attempt", "failed", "lost", "gap", "wait", "running", "pending"]


@record
class Span:
    """Part of a row. Times are seconds since the epoch."""

    kind: SpanKind
    """queued: before its first attempt; attempt, failed, lost: an attempt that ended well, with an error, or with its
    worker; gap: between attempts; wait: for time, an event or a child; running, pending: not ended so far."""
    start: float
    end: float
    says: str


@record
class Row:
    """One command, or the head of one flow."""

    label: str
    depth: int
    line: StepLine | None
    """None for a flow."""
    spans: tuple[Span, ...]


@record
class Mark:
    """Something that happened to the run as a whole."""

    at: float
    says: str


@record
class Timeline:
    """A run over time."""

    id: str
    workflow: str
    run: int
    status: str
    start: float
    end: float
    """The run's end, or the time of looking."""
    rows: tuple[Row, ...]
    marks: tuple[Mark, ...]
    error: str


def timeline(
    events: Sequence[Event],
    *,
    now: float,
    workflow: Workflow[Any, Any] | None = None,
    codec: Codec | None = None,
) -> Timeline:
    """Lay a run out over time. O(n). `now` is the end of a run that goes on; `workflow` nests rows by flow."""
    first, last = events[0], events[-1]
    assert isinstance(first, Started)
    closed = last if isinstance(last, Closed) else None
    end = closed.at if closed is not None else max(now, last.at)
    lines = {line.seq: line for line in steps_of(events)}
    spans = spans_of(events, lines, end, ended=closed is not None)
    lanes = lanes_of(workflow, events, codec) if workflow is not None else {}
    return Timeline(
        id=first.id,
        workflow=first.workflow,
        run=first.run,
        status=str(closed.status) if closed is not None else "going on",
        start=first.at,
        end=end,
        rows=tuple(rows_of(lines, spans, lanes)),
        marks=tuple(mark for event in events if (mark := mark_of(event)) is not None),
        error="" if closed is None or closed.failure is None else words_of(closed.failure),
    )


def spans_of(
    events: Sequence[Event], lines: Mapping[int, StepLine], end: float, *, ended: bool
) -> dict[int, list[Span]]:
    """What each command went through."""
    tracks = {seq: Track(line) for seq, line in lines.items()}
    for event in events:
        match event:
            case Began() | Retried() | Resolved():
                tracks[event.seq].take(event)
            case Noted(what=what) if what == HANDED_OVER:
                for track in tracks.values():
                    track.hand_over(event.at)
            case Noted(what=what, who=who) if what == UNBEGUN and who.isdecimal():
                tracks[int(who)].hand_over(event.at)
            case _:
                pass
    return {seq: track.close(end, ended=ended) for seq, track in tracks.items()}


class Track:
    """The spans of one command while its events go by."""

    def __init__(self, line: StepLine) -> None:
        self.line = line
        self.spans: list[Span] = []
        self.since = line.issued_at
        self.running = False
        self.attempt = 0
        self.through = line.kind in ("now", "version")

    def take(self, event: Began | Retried | Resolved) -> None:
        """Go on to the next span."""
        match event:
            case Began():
                if self.running:
                    self.add("lost", event.at, "its worker died, or was stopped")
                elif self.attempt == 0 and event.at > self.since:
                    self.add("queued", event.at, "waits for a free worker")
                self.attempt, self.running, self.since = event.attempt, True, event.at
            case Retried():
                self.add("failed", event.at, words_of(event.failure))
                self.spans.append(Span("gap", event.at, event.retry_at, "waits for its next attempt"))
                self.attempt, self.running, self.since = event.attempt + 1, False, event.retry_at
            case Resolved():
                self.end(event)

    def hand_over(self, at: float) -> None:
        """Its worker gave it back."""
        if self.running and not self.through:
            self.add("lost", at, "its worker gave it back")
            self.running, self.since = False, at

    def end(self, event: Resolved) -> None:
        """Its outcome."""
        self.through = True
        if self.since > event.at:  # it ended while it waited for a retry
            self.cut_gap(event.at)
            return
        if isinstance(event.outcome, Failed):
            self.add("failed", event.at, words_of(event.outcome.failure))
        else:
            self.add("attempt" if self.line.kind == "step" else "wait", event.at, self.line.state)

    def close(self, end: float, *, ended: bool) -> list[Span]:
        """Its spans, with what goes on still."""
        if not self.through and ended:
            self.cut_gap(end)
        if not self.through and end >= self.since:
            runs = self.running or self.attempt > 0  # a retry begins without a record, when it is due
            kind: SpanKind = "lost" if ended else "running" if runs else "pending"
            self.add(kind, end, "the run ended before it" if ended else self.line.state)
        return self.spans

    def cut_gap(self, at: float) -> None:
        """Let the wait for an attempt that never came end with what ended it."""
        if self.spans and self.spans[-1].kind == "gap" and self.spans[-1].end > at:
            self.spans[-1] = attrs.evolve(self.spans[-1], end=at)

    def add(self, kind: SpanKind, until: float, says: str) -> None:
        """One span more."""
        said = (
            f"attempt {self.attempt + 1}: {says}"
            if kind in ("attempt", "failed", "lost", "running")
            else says
        )
        self.spans.append(Span(kind, self.since, until, said if self.line.kind == "step" else says))


def mark_of(event: Event) -> Mark | None:
    """What happened to all of it: a takeover, a hand-over, an interruption, a note."""
    match event:
        case Began(takeover=int()):
            return Mark(event.at, "another worker took it over")
        case Noted(what="alone" | "unobserved" | "unbegun"):
            return None
        case Noted(what=what) if what == HANDED_OVER:
            return Mark(event.at, "handed over by its worker")
        case Noted(what=what, who=who):
            return Mark(event.at, f"{what} {who}".strip())
        case Interrupted(by=by, reason=reason):
            return Mark(
                event.at, "its deadline passed" if by == "deadline" else f"cancelled: {reason}".rstrip(": ")
            )
        case Delivered():
            return Mark(event.at, f"event '{event.event}' came")
        case _:
            return None


# ---------------------------------------------------------------- which flow a command belongs to


Lane: TypeAlias = tuple[tuple[int, str], ...]
"""The flows around a command, outermost first, without the root: number and name."""


def lanes_of(workflow: Workflow[Any, Any], events: Sequence[Event], codec: Codec | None) -> dict[int, Lane]:
    """The flow of each command, as far as the code goes along with the history."""
    lanes: dict[int, Lane] = {}
    numbers: dict[Node, int] = {}
    execution = Execution(workflow, codec=codec)
    try:
        for event in events:
            execution.apply(event)
            node = execution._nodes.get(event.seq) if isinstance(event, Issued) else None
            if node is not None and node.owner is not None:
                chain = [branch.node for branch in node.owner.chain()][-2::-1]
                lanes[node.seq] = tuple((numbers.setdefault(one, len(numbers)), one.name) for one in chain)
    except MISBEHAVIOUR:
        pass  # what comes after the divergence stands without its flow
    finally:
        execution.close()
    return lanes


def rows_of(
    lines: Mapping[int, StepLine], spans: Mapping[int, list[Span]], lanes: Mapping[int, Lane]
) -> list[Row]:
    """Rows in the order of issue, those of a flow below its head, at the place of its first command."""
    tree: dict[Any, Any] = {}
    for seq in lines:
        place = tree
        for flow in lanes.get(seq, ()):
            place = place.setdefault(flow, {})
        place[seq] = None
    rows: list[Row] = []
    lay(tree, 0, rows, lines, spans)
    return rows


def lay(
    tree: Mapping[Any, Any],
    depth: int,
    rows: list[Row],
    lines: Mapping[int, StepLine],
    spans: Mapping[int, list[Span]],
) -> None:
    """Put a flow's rows after each other."""
    for key, inner in tree.items():
        if inner is None:
            rows.append(Row(lines[key].name, depth, lines[key], tuple(spans[key])))
        else:
            rows.append(Row(f"flow {key[1]}", depth, None, ()))
            lay(inner, depth + 1, rows, lines, spans)
