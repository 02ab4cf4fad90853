"""What still runs on which version of a workflow: which versions must stay registered.

Rule 1: the version stands in the first record of a run, so every unfinished execution is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from zart_core.codec import Codec
from zart_core.deploys.checking import unfinished
from zart_core.errors import LogCorrupt
from zart_core.events import Started, Status
from zart_core.interpreter import CODEC
from zart_core.log import EventLog
from zart_core.records import record


@record
class VersionUse:
    """The unfinished executions of one version of a workflow."""

    workflow: str
    version: int
    """0 for executions whose first record cannot be read."""
    counts: Mapping[Status, int]
    """How many stand where."""
    oldest: float
    """When the oldest of their current runs began, in seconds since the epoch."""


def versions_in(log: EventLog, codec: Codec | None = None) -> list[VersionUse]:
    """What runs on what, by workflow and version. O(n) in the events of the unfinished executions."""
    counts: dict[tuple[str, int], Counter[Status]] = {}
    oldest: dict[tuple[str, int], float] = {}
    for summary in unfinished(log):
        version, at = 0, summary.created_at
        try:
            records = log.records(summary.id, summary.run)
            first = (codec or CODEC).decode_event(records[0], summary.id, summary.run) if records else None
        except LogCorrupt:
            first = None
        if isinstance(first, Started):
            version, at = first.version, first.at
        key = (summary.workflow, version)
        counts.setdefault(key, Counter())[summary.status] += 1
        oldest[key] = min(at, oldest.get(key, at))
    return [VersionUse(*key, counts[key], oldest[key]) for key in sorted(counts)]
