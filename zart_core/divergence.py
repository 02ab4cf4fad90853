"""Where code and log part ways: the nearest change after which they fit again (R21).

Rule 1: nothing here decides anything; it adds one line to a `Diverged` that the interpreter raised.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zart_core.codec import Codec
from zart_core.errors import Diverged
from zart_core.events import Event, Issued
from zart_core.interpreter import Execution, replay
from zart_core.wording import REMEDY
from zart_core.workflows import Workflow

SHOWN_MAX = 3


def replay_explained(
    workflow: Workflow[Any, Any], events: Sequence[Event], codec: Codec | None = None, *, strict: bool = False
) -> Execution:
    """As `replay` of a complete log; a `Diverged` also names the nearest change that would mend it."""
    execution = Execution(workflow, codec=codec, strict=strict)
    try:
        execution.apply_all(events)
        execution.check_answered()
    except Diverged as diverged:
        explained = with_nearest(diverged, workflow, events, execution, codec)
        execution.close()
        raise explained from None
    except BaseException:
        execution.close()
        raise
    return execution


def with_nearest(
    diverged: Diverged,
    workflow: Workflow[Any, Any],
    events: Sequence[Event],
    execution: Execution,
    codec: Codec | None,
) -> Diverged:
    """The same error with the nearest change in its text, where there is one."""
    if diverged.remedy != REMEDY:  # it says itself what to do
        return diverged
    recorded = [
        event.name
        for event in events[diverged.position :]
        if isinstance(event, Issued) and event.kind != "version"
    ]
    wanted = execution.wanted_names()
    nearest = nearest_fit(recorded, wanted)
    if not nearest and wanted:
        nearest = nearest_by_supposing(recorded, wanted[0], workflow, events[: diverged.position], codec)
    if not nearest:
        return diverged
    fitting = f"\n  It fits again if {nearest}.\n  {diverged.remedy}"
    return diverged.reworded(
        str(diverged).replace(f"\n  {diverged.remedy}", fitting), remedy=diverged.remedy, nearest=nearest
    )


def nearest_fit(recorded: Sequence[str], wanted: Sequence[str]) -> str:
    """What can be said from the names alone; empty when that is nothing."""
    if not recorded and not wanted:
        return ""
    if not wanted:
        return f"{listed(recorded)} is put back here" if recorded else ""
    first = wanted[0]
    if first in recorded:
        missing = recorded[: recorded.index(first)]
        if missing and missing[0] in wanted[1:]:
            return f"'{missing[0]}' comes before '{first}' again"
        return f"{listed(missing)} is put back before '{first}'" if missing else ""
    if not recorded or recorded[0] in wanted[1:]:
        return f"'{first}' is taken out here, or guarded with zart.version(...)"
    return ""


def nearest_by_supposing(
    recorded: Sequence[str],
    first: str,
    workflow: Workflow[Any, Any],
    prefix: Sequence[Event],
    codec: Codec | None,
) -> str:
    """Suppose that the new command had been answered: does the rest fit, from the same place or from one further?"""
    execution = replay(workflow, prefix, codec=codec)
    try:
        following = execution.suppose_first_wanted()
    except Exception:  # noqa: BLE001  # no command comes first, or the made-up answer did not suit: nothing can be said
        return ""
    finally:
        execution.close()
    if following[:1] == list(recorded[:1]) and recorded:
        return f"'{first}' is taken out here, or guarded with zart.version(...)"
    if recorded and following[:1] == list(recorded[1:2]):
        return f"'{first}' is called '{recorded[0]}' again, for example by .named('{recorded[0]}')"
    return ""


def listed(names: Sequence[str]) -> str:
    """The first few names, in quotes."""
    shown = ", ".join(f"'{name}'" for name in names[:SHOWN_MAX])
    return shown if len(names) <= SHOWN_MAX else f"{shown} and {len(names) - SHOWN_MAX} more"
