"""Replay of a finished history, as strictly as can be: what code that is not deterministic fails.

Rule 1: every decision of the code is compared with the recorded one: order, names, arguments, times, result.
Rule 2: that the code asks to be parked (`park_on=`) is an answer like another, where nothing was decided after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from zart_core.codec import Codec
from zart_core.divergence import replay_explained
from zart_core.errors import Diverged, Parked
from zart_core.events import Closed, Event, Failure, Issued, Noted, Status
from zart_core.interpreter import Execution
from zart_core.wording import REMEDY as MEND_THE_CODE
from zart_core.wording import STRICT_REMEDY as MEND_WHAT_IS_STRICT
from zart_core.wording import described
from zart_core.workflows import Workflow

REMEDY = (
    "The same code gave something else the second time. A workflow must not look at the clock, at random "
    "numbers, at files or at globals that change: use zart.now, zart.random, zart.capture, or a step."
)


def replay_strictly(workflow: Workflow[Any, Any], events: Sequence[Event], codec: Codec) -> None:
    """Raise Diverged, or another defect, unless the code decides again what the history holds. O(n)."""
    execution = Execution(workflow, codec=codec, strict=True)
    try:
        if compare_decisions(execution, events):
            execution.check_answered()
    except Diverged:
        try:
            replay_explained(workflow, events, codec, strict=True).close()  # says more, where it diverges too
        except Diverged as explained:
            raise not_deterministic(workflow, explained) from None
        raise
    finally:
        execution.close()


def not_deterministic(workflow: Workflow[Any, Any], diverged: Diverged) -> Diverged:
    """The same in the words of a test: this code wrote this history, so that no change of code has to be mended."""
    if diverged.remedy not in (MEND_THE_CODE, MEND_WHAT_IS_STRICT):
        return diverged
    nearest = f"\n  It fits again if {diverged.nearest}."
    told = str(diverged).replace(nearest, "").replace(diverged.remedy, REMEDY)
    return diverged.reworded(
        f"workflow '{workflow.name}' is not deterministic, as a replay of its own history shows: {told}",
        remedy=REMEDY,
    )


def compare_decisions(execution: Execution, events: Sequence[Event]) -> bool:
    """Apply the events, and ask before each what the code would have decided; False when it asks to be parked."""
    wanted: list[Event] = []
    for n, event in enumerate(events):
        if follows_from_code(event):
            wanted = wanted or execution.decide()
            if wanted and not same(wanted.pop(0), event):
                raise diverged(execution, event)
        try:
            execution.apply(event)
        except Parked:
            if any(map(follows_from_code, events[n + 1 :])):
                raise
            return False
    return True


def same(decided: Event, event: Event) -> bool:
    """Whether a decision is the recorded one; where a command stood and how an error got out are never compared."""
    return decided == event or without_places(decided) == without_places(event)


def without_places(event: Event) -> Event:
    """An event without what only says where things stand in the source."""
    match event:
        case Issued():
            return attrs.evolve(event, site=None)
        case Closed():
            return attrs.evolve(event, failure=without_traceback(event.failure))
        case _:
            return event


def without_traceback(failure: Failure | None) -> Failure | None:
    """An error and its causes without the lines that they came through."""
    if failure is None:
        return None
    return attrs.evolve(failure, traceback="", cause=without_traceback(failure.cause))


def follows_from_code(event: Event) -> bool:
    """Whether the code had to be heard before it could be written down: not so for what a parked run takes in."""
    return not isinstance(event, Noted) and not getattr(event, "held", False) and not is_termination(event)


def is_termination(event: Event) -> bool:
    """Whether it is the one end that no code decides."""
    return isinstance(event, Closed) and event.status is Status.TERMINATED


def diverged(execution: Execution, event: Event) -> Diverged:
    """What was recorded beside what the code says now."""
    now = execution.decide()[0]
    recorded, yielded = described(event), described(now)
    if recorded == yielded:
        recorded, yielded = f"{recorded}, {differing(event, now)}", f"{yielded}, {differing(now, event)}"
    site = event.site if isinstance(event, Issued) else None
    return Diverged(
        f"workflow '{execution.workflow.name}' is not deterministic: it diverged at event "
        f"{execution.position} when its own history was replayed\n"
        f"  recorded: {recorded}\n  decided:  {yielded}\n  {REMEDY}",
        position=execution.position,
        recorded=recorded,
        yielded=yielded,
        recorded_site=site,
        yielded_site=now.site if isinstance(now, Issued) else None,
        remedy=REMEDY,
    )


def differing(event: Event, other: Event) -> str:
    """Name the fields of an event that another has otherwise, for messages in tests."""
    there = attrs.asdict(without_places(other), recurse=False)
    fields = attrs.asdict(without_places(event), recurse=False).items()
    return ", ".join(f"{name} {value!r}" for name, value in fields if there.get(name) != value)
