"""A process that dies at one precise moment, and its successor on the same log.

Rule 1: everything before the moment is durable, nothing after it has happened.
"""

from __future__ import annotations

from zart_core.testing import SimulatedCrash
from zart_core.testing.running import RunResult, result_so_far
from zart_core.testing.world import Scenario, World, place_of


class DiesBefore:
    """A runner whose process dies when a step of this name is about to be called for the first time."""

    def __init__(self, runner, name):
        self.runner = runner
        self.name = name

    def run(self, call, scene):
        if call.context.step == self.name:
            self.name = None
            raise SimulatedCrash(f"before {call.context.step}")
        return self.runner.run(call, scene)


class Killed:
    """Two lives of one execution: `first` has the calls of the first one, `result` all that both did."""

    def __init__(self, first: dict[str, int], result: RunResult) -> None:
        self.first = first
        self.result = result


def killed(
    workflow,
    input=None,
    *,
    before: str | None = None,
    at: float | None = None,
    between=lambda: None,
    steps=None,
    events=(),
    resources=None,
) -> Killed:
    """Run it until the step `before` is about to be called, or until `at` seconds have passed; then to the end.

    `between` is what happens while no process runs.
    """
    scenario = Scenario(workflow, input, steps, tuple(events), resources)
    world = World(scenario, place_of(None), wrap_runner=lambda runner: DiesBefore(runner, before))
    if at is not None:
        world.clock.at(world.began + at, die)
    try:
        try:
            world.live()
        except SimulatedCrash:
            first = dict(world.runner.calls)
        else:
            raise AssertionError("it came to its end before it was killed")
        world.bury()
        between()
        world.wrap_runner = lambda runner: runner
        return Killed(first, result_so_far(world, world.live()))
    finally:
        world.close()


def die() -> None:
    """The end of a process."""
    raise SimulatedCrash


def ledger(report) -> dict[str, tuple[int, int]]:
    """How often each step was called, least and most in all runs; there must be no violations."""
    report.check()
    names = dict.fromkeys(call.name for played in report.runs for call in played.calls)
    return {name: report.executions_of(name) for name in names}


def issued(history) -> list[str]:
    """The names of all commands, in order."""
    return [event.name for event in history if type(event).__name__ == "Issued"]
