"""What may happen to a workflow, before any production history exists: one history for each thing that goes wrong.

Rule 1: everything runs in memory and in virtual time, by the test kit.
Rule 2: an outcome is made to differ by the name of its step, so that every occurrence of a step is tried.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from zart_core.codec import Codec
from zart_core.context import Scene
from zart_core.errors import Defect
from zart_core.events import Delivered, Event, Interrupted
from zart_core.hosts.ports import StepCall, StepRunner
from zart_core.log import EventLog
from zart_core.policies import seconds
from zart_core.records import record
from zart_core.steps import StepFunction
from zart_core.testing.clock import START, VirtualClock
from zart_core.testing.orders import Explorer, Ordered, signature
from zart_core.testing.runner import Steps
from zart_core.testing.witness import Key
from zart_core.testing.world import Cancel, Ending, Scenario, Sending, Terminate, World, place_of
from zart_core.workflows import Workflow

ARRIVING = "arriving as "
"""How the name of a history begins in which things came in another order."""


class MadeUp(Exception):
    """The error of a step that fails for the sake of exploring."""


@record
class Setting:
    """All that an exploration is given."""

    steps: Steps | Callable[[], Steps] | None
    events: Sequence[Sending]
    resources: Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None
    codec: Codec


@record
class Course:
    """One way in which a workflow may go: its input, what goes wrong, what comes from outside."""

    input: Any
    what: str
    """In words: `as given`, or what goes wrong."""
    failing: Mapping[str, Exception]
    """Steps that fail at every attempt, by the name that they have in the log."""
    events: Sequence[Sending]


@record
class Explored:
    """A course and where it led: one run of it, where it continues as new."""

    course: Course
    history: list[Event]
    """The events of the run."""
    run: int


class Deviating:
    """A runner whose steps fail by name; it notes which steps it was asked for."""

    def __init__(self, runner: StepRunner, id: str, failing: Mapping[str, Exception]) -> None:
        self.runner = runner
        self.id = id
        self.failing = failing
        self.seen: dict[str, StepFunction[..., Any]] = {}

    def run(self, call: StepCall, scene: Scene) -> Any:
        """See StepRunner."""
        context = call.context
        if context.execution_id != self.id or context.step is None:
            return self.runner.run(call, scene)
        self.seen.setdefault(context.step, call.function)
        if context.step in self.failing:
            raise self.failing[context.step]
        return self.runner.run(call, scene)


def explore(
    workflow: Workflow[Any, Any], inputs: Sequence[Any], setting: Setting, runs_max: int
) -> tuple[list[Explored], bool]:
    """Play every input as given, in every order of arrival, with each step failing in turn and each event missing.

    A step fails with each error it declares that can be made without arguments or from a message, and with one that
    it does not declare. Gives histories that differ in more than times, and whether `runs_max` cut the search short.
    """
    found: dict[object, Explored] = {}
    cut_short = False
    courses = [Course(input, "as given", {}, setting.events) for input in inputs]
    for n, course in enumerate(courses):
        if n == runs_max:
            cut_short = True
            break
        explored, seen = play(workflow, course, setting)
        for one in explored:
            found.setdefault(shape_of(one), one)
        if course.what == "as given":
            courses += deviations(course, seen)
            others, complete = in_other_orders(workflow, course, setting, runs_max)
            cut_short |= not complete
            for other in others:
                found.setdefault(shape_of(other), other)
    return list(found.values()), cut_short


def shape_of(explored: Explored) -> object:
    """What tells a history from another one: its input and its events, times left aside."""
    return repr(explored.course.input), signature({("", explored.run): explored.history})


def in_other_orders(
    workflow: Workflow[Any, Any], course: Course, setting: Setting, orders_max: int
) -> tuple[list[Explored], bool]:
    """The same course with things arriving in other orders, as many as that, and whether these are all."""
    scenario = Scenario(workflow, course.input, setting.steps, tuple(course.events), setting.resources, START)
    explorer = Explorer(scenario, None, setting.codec)
    try:
        runs, complete = explorer.first(orders_max)
    finally:
        explorer.loops.close()
    return [one for ordered in runs for one in in_order(workflow, course, ordered)], complete


def in_order(workflow: Workflow[Any, Any], course: Course, ordered: Ordered) -> list[Explored]:
    """What came of one order."""
    other = Course(course.input, f"{ARRIVING}{', '.join(ordered.order)}", {}, course.events)
    return runs_of(other, workflow.name, ordered.played.histories)


def runs_of(course: Course, id: str, histories: Mapping[Key, Sequence[Event]]) -> list[Explored]:
    """Each run of an execution."""
    return [
        Explored(course, list(history), run)
        for (own, run), history in sorted(histories.items(), key=lambda one: one[0])
        if own == id
    ]


def deviations(course: Course, seen: Mapping[str, StepFunction[..., Any]]) -> list[Course]:
    """Everything that may go wrong once in a course that went as given."""
    courses: list[Course] = []
    for name, function in seen.items():
        for error in errors_of(function):
            what = f"'{name}' fails with {type(error).__name__}"
            courses.append(Course(course.input, what, {name: error}, course.events))
    names = dict.fromkeys(event[1] for event in course.events if isinstance(event, tuple))
    for name in names:
        kept = [event for event in course.events if not (isinstance(event, tuple) and event[1] == name)]
        courses.append(Course(course.input, f"event '{name}' never comes", {}, kept))
    return courses


def errors_of(function: StepFunction[..., Any]) -> list[Exception]:
    """The errors that a step is made to raise: declared ones as far as they can be made, and one that is not."""
    errors: list[Exception] = []
    for declared in function.policy.raises:
        for arguments in ((), ("made up",)):
            try:
                errors.append(declared(*arguments))
            except Exception:  # noqa: BLE001, S112  # whatever a constructor makes of that
                continue
            break
    return [*errors, MadeUp("made up")]


def play(
    workflow: Workflow[Any, Any], course: Course, setting: Setting
) -> tuple[list[Explored], Mapping[str, StepFunction[..., Any]]]:
    """One course from its beginning: its runs, and the steps it asked for. Raises the defect of code that parks."""
    world, runners = world_of(workflow, course, setting)
    try:
        ending = world.live()
        if isinstance(ending.error, Defect):
            raise ending.error
        histories = world.histories()
    finally:
        world.close()
    seen = {name: function for runner in runners for name, function in runner.seen.items()}
    return runs_of(course, world.id, histories), seen


def go_on(
    workflow: Workflow[Any, Any], course: Course, setting: Setting, log: EventLog, prefix: Sequence[Event]
) -> tuple[Ending, list[Event]]:
    """The same course from the middle: what was not delivered yet still comes. Gives its end, and its last history."""
    now = prefix[-1].at
    shifted = Course(course.input, course.what, course.failing, still_to_come(course.events, prefix))
    world, _ = world_of(workflow, shifted, setting, log=log, clock=VirtualClock(now))
    try:
        ending = world.live()
        histories = world.histories()
    finally:
        world.close()
    return ending, histories[world.id, 0]


def still_to_come(events: Sequence[Sending], prefix: Sequence[Event]) -> list[Sending]:
    """What comes from outside after a log's end, counted from there."""
    passed = prefix[-1].at - prefix[0].at
    taken = [event.event for event in prefix if isinstance(event, Delivered)]
    interrupted = any(isinstance(event, Interrupted) for event in prefix)
    left: list[Sending] = []
    for event in events:
        match event:
            case Cancel() | Terminate():
                if not interrupted:
                    left.append(type(event)(max(0.0, seconds(event.after) - passed), event.reason))
            case (delay, name, *rest):
                if name in taken:
                    taken.remove(name)
                else:
                    left.append((max(0.0, seconds(delay) - passed), name, *rest))
    return left


def world_of(
    workflow: Workflow[Any, Any],
    course: Course,
    setting: Setting,
    *,
    log: EventLog | None = None,
    clock: VirtualClock | None = None,
) -> tuple[World, list[Deviating]]:
    """A world in which the course is played, and the runners that it makes."""
    runners: list[Deviating] = []

    def deviating(runner: StepRunner) -> StepRunner:
        runners.append(Deviating(runner, workflow.name, course.failing))
        return runners[-1]

    scenario = Scenario(workflow, course.input, setting.steps, course.events, setting.resources, START)
    place = place_of(None if log is None else lambda: log)
    return World(scenario, place, clock=clock, codec=setting.codec, wrap_runner=deviating), runners
