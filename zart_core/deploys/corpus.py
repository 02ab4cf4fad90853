"""A small set of recorded executions that covers everything that many of them did.

Rule 1: what is covered are yield points (a workflow's version, a command's kind and its place in the source) with
        each kind of outcome seen there, and the ways in which runs ended.
Rule 2: the choice is the greedy cover: at each step the execution that adds most; among equals the shortest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import attrs

from zart_core.codec import Codec
from zart_core.deploys.checking import everything
from zart_core.errors import LogCorrupt
from zart_core.events import (
    Cancellation,
    Closed,
    Done,
    Event,
    Failed,
    Issued,
    Resolved,
    Retried,
    Site,
    Started,
    Taken,
)
from zart_core.hosts.offers import is_own
from zart_core.insight.patterns import Patterns
from zart_core.interpreter import CODEC
from zart_core.log import EventLog, Summary
from zart_core.records import record


@record
class Point:
    """A place where a workflow yields, or where it ends (`kind` is `end`)."""

    workflow: str
    version: int
    kind: str
    name: str
    """The step's own id, the event, the child's workflow; else the command's name, or what names of its line share."""
    site: Site | None


Feature: TypeAlias = tuple[Point, str]
"""A point and an outcome: done, taken, cancelled, retried, pending, `failed: kind`, or how a run ended."""


@record
class Choice:
    """An execution that was chosen, and what it covers that those before it do not."""

    id: str
    events: int
    adds: frozenset[Feature]


@record
class Corpus:
    """The executions that were chosen, and what there was to cover."""

    choices: Sequence[Choice]
    executions: int
    """How many were looked at."""
    unreadable: Sequence[str]
    """Ids of those that cannot be read; they are in no choice."""

    @property
    def features(self) -> frozenset[Feature]:
        """All that was seen, and is covered."""
        return frozenset[Feature]().union(*(choice.adds for choice in self.choices))


def corpus_of(log: EventLog, codec: Codec | None = None) -> Corpus:
    """Choose executions that cover everything seen in a log. O(n) in its events, and reads only."""
    looks: dict[frozenset[Feature], tuple[int, str]] = {}
    unreadable: list[str] = []
    executions, patterns = 0, Patterns()
    for summary in everything(log):
        if is_own(summary.workflow):
            continue
        executions += 1
        try:
            features, events = look_at(log, summary, codec or CODEC, patterns)
        except LogCorrupt:
            unreadable.append(summary.id)
            continue
        look = (events, summary.id)
        looks[features] = min(look, looks.get(features, look))
    return Corpus(cover(in_patterns(looks, patterns)), executions, unreadable)


def in_patterns(
    looks: dict[frozenset[Feature], tuple[int, str]], patterns: Patterns
) -> dict[frozenset[Feature], tuple[int, str]]:
    """The same with names that vary at one line taken as one, or there would be as many points as data."""
    merged: dict[frozenset[Feature], tuple[int, str]] = {}
    for features, look in looks.items():
        same = frozenset((in_pattern(point, patterns), outcome) for point, outcome in features)
        merged[same] = min(look, merged.get(same, look))
    return merged


def in_pattern(point: Point, patterns: Patterns) -> Point:
    """A point under the pattern of its name."""
    name = patterns.of(point.kind, point.name, point.site)
    return point if name == point.name else attrs.evolve(point, name=name)


def cover(looks: dict[frozenset[Feature], tuple[int, str]]) -> list[Choice]:
    """The greedy cover of all features by sets of them, each with its size and id."""
    left = frozenset[Feature]().union(*looks)
    choices: list[Choice] = []
    while left:
        features, (events, id) = min(looks.items(), key=lambda look: (-len(look[0] & left), look[1]))
        choices.append(Choice(id, events, features & left))
        left -= features
    return choices


def look_at(
    log: EventLog, summary: Summary, codec: Codec, patterns: Patterns
) -> tuple[frozenset[Feature], int]:
    """What an execution did in all its runs, and in how many events. Raises LogCorrupt."""
    features: set[Feature] = set()
    count = 0
    for run in range(summary.run + 1):
        events = codec.decode_events(log.records(summary.id, run), summary.id, run)
        count += len(events)
        features |= features_of(events)
        patterns.see(events)
    return frozenset(features), count


def features_of(events: Sequence[Event]) -> set[Feature]:
    """What one run did."""
    features: set[Feature] = set()
    pending: dict[int, Point] = {}
    workflow, version = "", 0
    for event in events:
        match event:
            case Started():
                workflow, version = event.workflow, event.version
            case Issued(kind="now" | "version"):
                features.add((point_of(workflow, version, event), event.payload.decode() or "done"))
            case Issued():
                pending[event.seq] = point_of(workflow, version, event)
            case Retried() if event.seq in pending:
                features.add((pending[event.seq], "retried"))
            case Resolved() if event.seq in pending:
                features.add((pending.pop(event.seq), outcome_of(event)))
            case Closed():
                features.add((Point(workflow, version, "end", workflow, None), ending_of(event)))
            case _:
                pass
    features |= {(point, "pending") for point in pending.values()}
    return features


def point_of(workflow: str, version: int, issued: Issued) -> Point:
    """Where a command was yielded. Names of steps are told by their template, or they would be as many as the data."""
    return Point(workflow, version, issued.kind, issued.of or issued.name, issued.site)


def outcome_of(event: Resolved) -> str:
    """The kind of an outcome; declared errors are told apart."""
    match event.outcome:
        case Done():
            return "done"
        case Taken():
            return "taken"
        case Cancellation():
            return "cancelled"
        case Failed(failure):
            return f"failed: {failure.kind}" + (f" {failure.type}" if failure.kind == "answer" else "")


def ending_of(closed: Closed) -> str:
    """How a run ended."""
    return str(closed.status) if closed.failure is None else f"{closed.status}: {closed.failure.type}"
