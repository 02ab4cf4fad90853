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
    points = ", ".join(f"Point({point.moment!r}, {point.n})" for point in schedule)
    return text_calling(
        scenario,
        [*own_arguments(own), f"points=[({points})]" if len(schedule) > 1 else f"points=[{points}]"],
        ["explore_crashes", *(["Point"] if schedule else [])],
        "_then_".join(f"{point.moment}_{point.n}" for point in schedule) or "without_a_crash",
    )


def text_of_order(scenario: Scenario, order: Sequence[str], own: Sequence[str] = ()) -> str:
    """A test that lets things arrive in this order."""
    arguments = [*own_arguments(own), f"orders=[{list(order)!r}]"]
    return text_calling(scenario, arguments, ["explore_orders"], "in_this_order")


def own_arguments(names: Sequence[str]) -> list[str]:
    """What only the tester can give."""
    return [f"{name}={name}" for name in names]


def text_calling(scenario: Scenario, arguments: Sequence[str], kit: Sequence[str], what: str) -> str:
    """The whole test; the first name of the kit is the function that is called."""
    workflow = scenario.workflow.fn.__name__
    given = [workflow] if scenario.input is None else [workflow, repr(scenario.input)]
    if scenario.steps is not None:
        given.append("steps=steps")
    if scenario.events:
        given.append(f"events={list(scenario.events)!r}")
    if scenario.resources is not None:
        given.append("resources=resources")
    if scenario.start != START:
        given.append(f"start={scenario.start!r}")
    if scenario.id is not None:
        given.append(f"id={scenario.id!r}")
    return "\n".join(
        [
            *imports(scenario, kit),
            "",
            f"def test_{re.sub(r'[^0-9a-zA-Z]+', '_', workflow)}_{what}():",
            f"    {kit[0]}({', '.join([*given, *arguments])}).check()",
        ]
    )


def imports(scenario: Scenario, named: Sequence[str]) -> list[str]:
    """The lines that bring in what the test names, as far as it can be imported."""
    kit = set(named)
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
        if thing.__module__ not in (None, "builtins", "__main__") and "<" not in thing.__qualname__
    }
