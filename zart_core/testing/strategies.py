"""Workflows under Hypothesis: every step gives anything it may give, events come at any time, cancellation strikes.

    from hypothesis import given
    from zart_core.testing import strategies

    @given(strategies.runs(book_trip, failures=False))
    def test_nothing_stays_booked(run):
        if isinstance(run.answers.get("book-car"), zart.Err):
            assert "cancel-flight" in run.calls

Rule 1: a run is drawn while it goes on, so that Hypothesis shrinks it to the shortest one that does it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Generic, TypeVar, overload

try:
    import hypothesis.strategies as st
except ImportError as error:
    raise ImportError(
        "zart_core.testing.strategies needs Hypothesis, which is not installed: pip install 'zart[testing]'"
    ) from error

from zart_core.codec import Codec
from zart_core.errors import Defect, InvalidUse, Parked, ZartError
from zart_core.events import Err, Event, Ok, Status
from zart_core.interpreter import CODEC
from zart_core.records import record
from zart_core.steps import StepFunction
from zart_core.testing.drawing import is_strategy, values_of
from zart_core.testing.fuzzing import DrawnHost, Rules, moods
from zart_core.testing.replaying import replay_strictly
from zart_core.testing.running import result_so_far
from zart_core.testing.world import Scenario, World, place_of, started_workflow
from zart_core.workflows import Workflow, is_workflow

I = TypeVar("I")  # noqa: E741  # the input
R = TypeVar("R")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

DRAWN: Any = object()
"""In place of an input: it is drawn by its declared type."""


@record
class DrawnRun(Generic[T_co]):
    """A run that was drawn, and how it ended. Its repr is the story of what happened, in order."""

    id: str
    input: Any
    status: Status
    """How it ended; `waiting` when nothing could go on any more."""
    error: BaseException | None
    """What `value` raises: ExecutionFailed and its kin, or Stuck, which names what it waits for."""
    story: tuple[str, ...]
    """What happened: a line for each answer, event, span of time, and cancellation."""
    answers: Mapping[str, Ok[Any] | Err[BaseException]]
    """How each step ended that was answered, by the name it has in the log: Ok(value) or Err(error); those of children
    too."""
    calls: Mapping[str, int]
    """How many attempts of each step began, by the name it has in the log; those of children too."""
    history: list[Event]
    """The events of its last run."""
    histories: Mapping[tuple[str, int], list[Event]]
    """The events of all there is, children too, by execution id and run."""
    elapsed: timedelta
    """Virtual time from its start to its end."""
    returned: Any
    """What the workflow returned; None without anything. `value` is typed, and raises."""

    @property
    def value(self) -> T_co:
        """What the workflow returned; raises `error` when it returned nothing."""
        if self.error is not None:
            raise self.error
        value: T_co = self.returned
        return value

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """What Hypothesis prints for the run that fails a test."""
        printer.text(repr(self))

    def __repr__(self) -> str:
        given = "" if self.input is None else f"({self.input!r})"
        return f"<{self.id}{given}: {'; '.join([*self.story, ended(self)])}>"


def ended(run: DrawnRun[Any]) -> str:
    """How it ended, in words."""
    if run.error is None:
        return f"{run.status} with {run.returned!r}"
    return f"{run.status}: {run.error.__cause__ or run.error}"


@overload
def runs(
    workflow: Workflow[None, R],
    input: None = None,
    *,
    steps: Mapping[StepFunction[..., Any], st.SearchStrategy[Any]] | None = None,
    events: Mapping[str, Any] | bool = True,
    cancel: bool = True,
    failures: bool = True,
    timeouts: bool = True,
    lost: bool = True,
    codec: Codec | None = None,
    strict: bool = True,
) -> st.SearchStrategy[DrawnRun[R]]: ...
@overload
def runs(
    workflow: Workflow[I, R],
    input: I | st.SearchStrategy[I] = DRAWN,
    *,
    steps: Mapping[StepFunction[..., Any], st.SearchStrategy[Any]] | None = None,
    events: Mapping[str, Any] | bool = True,
    cancel: bool = True,
    failures: bool = True,
    timeouts: bool = True,
    lost: bool = True,
    codec: Codec | None = None,
    strict: bool = True,
) -> st.SearchStrategy[DrawnRun[R]]: ...
def runs(
    workflow: Any,
    input: Any = DRAWN,
    *,
    steps: Mapping[StepFunction[..., Any], st.SearchStrategy[Any]] | None = None,
    events: Mapping[str, Any] | bool = True,
    cancel: bool = True,
    failures: bool = True,
    timeouts: bool = True,
    lost: bool = True,
    codec: Codec | None = None,
    strict: bool = True,
) -> Any:
    """Runs of a workflow, in memory and in virtual time; no step function is ever called.

    Each step gives any value of its declared type or raises any of its declared errors (`raises=`), in any order
    where several are under way; each event that is waited for comes or does not; children run as they are.

    Args:
        workflow: what to run.
        input: its input, or a strategy for it; drawn by its declared type when left out.
        steps: for some steps a strategy of what they give: {charge_card: st.just("txn-1")}. A drawn exception, or class
            of exceptions, is raised. Such a step raises nothing else; it may be late or lost, as below.
        events: what else may come from outside than what is waited for, at any time: {"shipment-ready": Shipment} gives
            the type of its payload, or a strategy for it. False: no event ever comes.
        cancel: whether somebody may ask for cancellation, at any time.
        failures: whether a step may also fail as nobody declared: StepFailed, or RetryExhausted after its retries.
        timeouts: whether a step may take longer than its timeout, or than the run's deadline.
        lost: whether a step that runs at most once may be lost with its worker (StepLost).
        codec: in place of a plain one.
        strict: replay each history, and compare every decision, arguments and result too (R21).

    A drawn run has a story, which is its repr. What never ends is a run as well: its `status` is `waiting`. What goes
    on for more than 200 answers is not drawn. Raises InvalidUse for types that cannot be drawn, when one is met; a
    defect of the workflow (it is not deterministic, it uses a name twice) fails the test, and tells the story with it.
    """
    if not is_workflow(workflow):
        raise InvalidUse(f"runs() takes a function decorated with @zart.workflow, not {workflow!r}")
    own = {function.origin: strategy for function, strategy in checked_steps(steps or {}).items()}
    rules = Rules(
        steps=own,
        events={} if isinstance(events, bool) else dict(events),
        awaited=events is not False,
        cancel=cancel,
        failures=failures,
        timeouts=timeouts,
        lost=lost,
    )
    used: Codec = codec or CODEC
    return drawn_runs(workflow, inputs_of(workflow, input, used), rules, used, strict)


def values(source: StepFunction[..., T], codec: Codec | None = None) -> st.SearchStrategy[T]:
    """Values that a step may return, by its declared type, as the workflow sees them (R9).

    Raises InvalidUse for a step without a declared result, and for a type that cannot be drawn.
    """
    if not isinstance(source, StepFunction):
        raise InvalidUse(f"values() takes a function decorated with @zart.step, not {source!r}")
    return values_of(source.result_type, f"step '{source.id}' returns", codec or CODEC)


def histories(
    workflow: Workflow[Any, Any], input: Any = DRAWN, *, cut: bool = False, **options: Any
) -> st.SearchStrategy[list[Event]]:
    """The events of runs of a workflow: each a list that `zart.replay(workflow, events)` takes.

    Takes what `runs` takes. With `cut` a history may end anywhere, as after a crash; it has at least its first event.
    """
    drawn = runs(workflow, input, **options).map(lambda run: run.history)
    return drawn.flatmap(beginnings) if cut else drawn


def beginnings(history: list[Event]) -> st.SearchStrategy[list[Event]]:
    """A history up to anywhere."""
    return st.integers(1, len(history)).map(lambda length: history[:length])


def checked_steps(steps: Mapping[Any, Any]) -> Mapping[StepFunction[..., Any], st.SearchStrategy[Any]]:
    """The mapping; raises InvalidUse for what is no step, or no strategy."""
    for function, strategy in steps.items():
        if not isinstance(function, StepFunction):
            raise InvalidUse(
                f"steps= maps functions decorated with @zart.step to strategies; {function!r} is none"
            )
        if not isinstance(strategy, st.SearchStrategy):
            raise InvalidUse(
                f"steps= gives {strategy!r} for step '{function.id}'; give a strategy: st.just({strategy!r})"
            )
    return steps


def inputs_of(workflow: Workflow[Any, Any], input: Any, codec: Codec) -> st.SearchStrategy[Any]:
    """What inputs are drawn from."""
    if is_strategy(input):
        return input
    if input is not DRAWN:
        return st.just(input)
    if not workflow.takes_input:
        return st.none()
    return values_of(workflow.input_type, f"workflow '{workflow.name}' takes", codec)


@st.composite
def drawn_runs(
    draw: st.DrawFn,
    workflow: Workflow[Any, Any],
    inputs: st.SearchStrategy[Any],
    rules: Rules,
    codec: Codec,
    strict: bool,
) -> DrawnRun[Any]:
    """Play a run in a world of its own, and draw each answer when it is due."""
    input = draw(inputs)
    mood = draw(st.sampled_from(moods(rules)))
    make_host = functools.partial(DrawnHost, draw=draw, rules=mood)
    world = World(Scenario(workflow, input), place_of(None), codec=codec, make_host=make_host)
    story: list[str] = []
    try:
        ending = world.live()
        host = world.host
        assert isinstance(host, DrawnHost)
        story = host.story
        result = result_so_far(world, ending)
        if isinstance(ending.error, Defect) and not isinstance(ending.error, Parked):
            raise ending.error
        if strict:
            for events in result.histories.values():
                replay_strictly(started_workflow(world.registry, events), events, world.codec)
    except ZartError as error:
        error.add_note(f"what had happened: {'; '.join(story) or 'nothing yet'}")
        raise
    finally:
        world.close()
    left = [f"{attempt.name} is under way" for attempt in host.attempts]
    return DrawnRun(
        id=result.id,
        input=input,
        status=result.status,
        error=result.error,
        story=(*story, *left),
        answers=host.answers,
        calls=dict(host.calls),
        history=result.history,
        histories=result.histories,
        elapsed=result.elapsed,
        returned=result.returned,
    )


__all__ = ["DrawnRun", "histories", "runs", "values"]
