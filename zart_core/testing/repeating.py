"""The text of a test that repeats one run of an exploration.

Rule 1: it runs as it stands, once what only the tester knows (`steps=steps`) has been given by that name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from zart_core.testing.clock import START
from zart_core.testing.witness import Schedule
from zart_core.testing.world import Cancel, Scenario, Terminate


def text_of_test(scenario: Scenario, schedule: Schedule, own: Sequence[str] = ()) -> str:
    """A test that plays the scenario with these crashes; `own` are parameters that the tester gave by name."""
    workflow = scenario.workflow.fn
    arguments = [workflow.__name__] if scenario.input is None else [workflow.__name__, repr(scenario.input)]
    if scenario.steps is not None:
        arguments.append("steps=steps")
    if scenario.events:
        arguments.append(f"events={list(scenario.events)!r}")
    if scenario.resources is not None:
        arguments.append("resources=resources")
    if scenario.start != START:
        arguments.append(f"start={scenario.start!r}")
    if scenario.id is not None:
        arguments.append(f"id={scenario.id!r}")
    arguments += [f"{name}={name}" for name in own]
    points = ", ".join(f"Point({point.moment!r}, {point.n})" for point in schedule)
    arguments.append(f"points=[({points})]" if len(schedule) > 1 else f"points=[{points}]")
    where = "_then_".join(f"{point.moment}_{point.n}" for point in schedule) or "without_a_crash"
    return "\n".join(
        [
            *imports(scenario, with_point=bool(schedule)),
            "",
            f"def test_{re.sub(r'[^0-9a-zA-Z]+', '_', workflow.__name__)}_{where}():",
            f"    explore_crashes({', '.join(arguments)}).check()",
        ]
    )


def imports(scenario: Scenario, *, with_point: bool) -> list[str]:
    """The lines that bring in what the test names, as far as it can be imported."""
    kit = {"explore_crashes", *(["Point"] if with_point else [])}
    kit.update(type(event).__name__ for event in scenario.events if isinstance(event, Cancel | Terminate))
    payloads = [event[2] for event in scenario.events if not isinstance(event, Cancel | Terminate)]
    found = {("zart_core.testing", name) for name in kit}
    found.update(importable([scenario.workflow.fn, *map(type, [scenario.input, *payloads])]))
    lines = [
        f"from {module} import {', '.join(sorted(name for where, name in found if where == module))}"
        for module in sorted({module for module, _ in found})
    ]
    return (
        ["import datetime", *lines]
        if isinstance(scenario.start, datetime) and scenario.start != START
        else lines
    )


def importable(things: Iterable[Any]) -> set[tuple[str, str]]:
    """Module and name of what is at the top of a module of its own."""
    return {
        (thing.__module__, thing.__name__)
        for thing in things
        if thing.__module__ not in ("builtins", "__main__") and "<" not in thing.__qualname__
    }
