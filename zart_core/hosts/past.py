"""What the log of a run says by itself, whether the code fits or not."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from zart_core.errors import LogCorrupt
from zart_core.events import Began, Event, Interrupted, Issued, Noted, Resolved, Retried, Started
from zart_core.interpreter import HANDED_OVER
from zart_core.records import record

ALONE = "alone"
"""The Noted that says that nothing else runs beside a suspect: should the worker die now, it is its doing (R5)."""


@record
class Past:
    """A run as its log tells it."""

    started: Started
    floor: float
    """The time of the last event: no later one has an earlier time (I2)."""
    interrupted: bool
    children: Mapping[int, str]
    """Ids of children and offered steps that it waits for, by seq."""
    attempts: Mapping[int, int]
    """The attempt that comes next, or runs, by seq."""
    settled: Collection[int]
    """Commands that have an outcome."""
    guilty: Mapping[int, None]
    """Suspects beside which nothing ran when their worker died."""


def look_back(events: Sequence[Event], id: str, run: int) -> Past:
    """Read the events of a run, O(n). Raises LogCorrupt when they do not begin with Started."""
    children: dict[int, str] = {}
    attempts: dict[int, int] = {}
    settled: set[int] = set()
    guilty: dict[int, None] = {}
    interrupted = False
    for event in events:  # the most frequent first
        if type(event) is Resolved:
            settled.add(event.seq)
            if children:
                children.pop(event.seq, None)
        elif type(event) is Began:
            attempts[event.seq] = event.attempt
            if guilty:
                guilty.pop(event.seq, None)
        elif type(event) is Issued:
            if event.kind == "child" and event.child is not None:
                children[event.seq] = event.child
        else:
            match event:
                case Retried():
                    attempts[event.seq] = event.attempt + 1
                    guilty.pop(event.seq, None)
                case Interrupted():
                    interrupted = True
                case Noted(what="offered", who=who) if who.isdecimal():
                    children[int(who)] = event.why
                case Noted(what="alone", who=who) if who.isdecimal():
                    guilty[int(who)] = None
                case Noted(what=what) if what == HANDED_OVER:
                    guilty.clear()
                case _:
                    pass
    return Past(
        started=first_of(events, id, run),
        floor=events[-1].at,
        interrupted=interrupted,
        children=children,
        attempts=attempts,
        settled=settled,
        guilty=guilty,
    )


def first_of(events: Sequence[Event], id: str, run: int) -> Started:
    """The first event of a run. Raises LogCorrupt when it is not Started."""
    if not events or not isinstance(events[0], Started):
        raise LogCorrupt(f"run {run} of execution '{id}' does not begin with Started")
    return events[0]
