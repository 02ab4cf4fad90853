"""The text of a test that repeats one run of an exploration.

Rule 1: it runs as it stands, once what only the tester knows (`steps=steps`) has been given by that name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from zart_core.testing.clock import START
from zart_core.testing.source_text import Imports, Unwritable, named, source_of
from zart_core.testing.witness import Schedule
from zart_core.testing.world import Scenario


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
    given, needed = given_by(scenario)
    needed.update(("zart_core.testing", name) for name in kit)
    named(scenario.workflow.fn, needed)
    workflow = re.sub(r"[^0-9a-zA-Z]+", "_", scenario.workflow.fn.__name__)
    return "\n".join(
        [
            *lines_importing(needed),
            "",
            f"def test_{workflow}_{what}():",
            f"    {kit[0]}({', '.join([*given, *arguments])}).check()",
        ]
    )


def given_by(scenario: Scenario) -> tuple[list[str], Imports]:
    """The arguments that make a scenario, the workflow first, and what their values need."""
    needed: Imports = set()
    given = [scenario.workflow.fn.__name__]
    if scenario.input is not None:
        text = value_given("input", scenario.input, needed)
        given.append("input=input" if text == "input" else text)
    if scenario.steps is not None:
        given.append("steps=steps")
    if scenario.events:
        given.append(f"events={value_given('events', list(scenario.events), needed)}")
    if scenario.resources is not None:
        given.append("resources=resources")
    if scenario.start != START:
        given.append(f"start={value_given('start', scenario.start, needed)}")
    if scenario.id is not None:
        given.append(f"id={scenario.id!r}")
    return given, needed


def value_given(name: str, value: Any, needed: Imports) -> str:
    """A value as source text; the parameter's own name for one of which there is none: only the tester has it."""
    try:
        text, its = source_of(value)
    except Unwritable:
        return name
    needed.update(its)
    return text


def lines_importing(needed: Imports) -> list[str]:
    """Import lines, modules first; names of the test kit from where they are public; none for what has no module."""
    public = {
        ("zart_core.testing" if module.startswith("zart_core.testing.") else module, name)
        for module, name in needed
        if module
    }
    return [
        *(f"import {module}" for module, name in sorted(public) if not name),
        *(
            f"from {module} import {', '.join(sorted(name for where, name in public if where == module and name))}"
            for module in sorted({module for module, name in public if name})
        ),
    ]
