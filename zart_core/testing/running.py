"""Run a workflow in memory and in virtual time, and look at all it did.

Rule 1: the history is replayed strictly at the end, so that code that is not deterministic fails at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar, overload

from zart_core.codec import Codec
from zart_core.errors import Defect
from zart_core.events import Event, Status
from zart_core.hosts.inline import Stuck
from zart_core.log import EventLog
from zart_core.records import record
from zart_core.testing.beside import Beside
from zart_core.testing.clock import START, VirtualClock
from zart_core.testing.replaying import replay_strictly
from zart_core.testing.runner import Steps
from zart_core.testing.world import Ending, Place, Scenario, Sending, World, place_of, started_workflow
from zart_core.workflows import Workflow

I = TypeVar("I")  # noqa: E741  # the input
R = TypeVar("R")
T_co = TypeVar("T_co", covariant=True)


@record
class RunResult(Generic[T_co]):
    """How a run went."""

    id: str
    """The execution's id: the workflow's name, unless another was asked for."""
    status: Status
    """How it ended; `waiting` when nothing could go on any more."""
    error: BaseException | None
    """What `value` raises: ExecutionFailed and its kin, or Stuck, which names what it waits for."""
    history: list[Event]
    """The events of its last run."""
    histories: Mapping[tuple[str, int], list[Event]]
    """The events of all there is, children too, by execution id and run."""
    calls: Mapping[str, int]
    """How often each step was called, by the name it has in the log; those of children too."""
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


@overload
def run(
    workflow: Workflow[None, R],
    input: None = None,
    *,
    steps: Steps | Callable[[], Steps] | None = None,
    events: Iterable[Sending] = (),
    resources: Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None = None,
    start: datetime | float = START,
    clock: VirtualClock | None = None,
    store: Callable[[], Place | EventLog] | None = None,
    codec: Codec | None = None,
    id: str | None = None,
    strict: bool = True,
) -> RunResult[R]: ...
@overload
def run(
    workflow: Workflow[I, R],
    input: I,
    *,
    steps: Steps | Callable[[], Steps] | None = None,
    events: Iterable[Sending] = (),
    resources: Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None = None,
    start: datetime | float = START,
    clock: VirtualClock | None = None,
    store: Callable[[], Place | EventLog] | None = None,
    codec: Codec | None = None,
    id: str | None = None,
    strict: bool = True,
) -> RunResult[R]: ...
def run(
    workflow: Any,
    input: Any = None,
    *,
    steps: Any = None,
    events: Iterable[Sending] = (),
    resources: Any = None,
    start: datetime | float = START,
    clock: VirtualClock | None = None,
    store: Callable[[], Place | EventLog] | None = None,
    codec: Codec | None = None,
    id: str | None = None,
    strict: bool = True,
) -> Any:
    """Run a workflow to its end: one thread, virtual time, in memory; a day of sleep takes a millisecond.

    Async steps wait beside each other (`await asyncio.sleep(60)`), as in an engine; plain ones run one at a time.

    Args:
        workflow: what to run.
        input: its input.
        steps: what stands in for which step: {charge_card: fake}. A function is called with the step's
            arguments, an exception is raised, a list gives one outcome for each attempt, anything else is the
            step's value. Or a function that makes such a mapping.
        events: what comes from outside: (delay after the start, name, payload), a key as fourth if wanted,
            and `Cancel(after, reason)` or `Terminate(after, reason)`. A payload of bytes is sent as it is.
        resources: objects for `zart.resource(name)`.
        start: when virtual time begins; 2026-01-01T00:00Z by default.
        clock: a clock of your own, in place of `start`, for fakes that let time pass.
        store: gives the log in place of one in memory.
        codec: in place of a plain one.
        id: the execution's id; the workflow's name by default.
        strict: replay the history at the end, and compare every decision, arguments and result too (R21).

    A run that fails, or waits for what never comes, is a result all the same: `value` raises then. Raises the
    defect of a run that is parked, Diverged for code that is not deterministic, EncodeError for the input.
    """
    scenario = Scenario(workflow, input, steps, tuple(events), resources, start, id)
    world = World(scenario, place_of(store), clock=clock, codec=codec, make_host=Beside)
    try:
        ending = world.live()
        if isinstance(ending.error, Defect):
            raise ending.error
        result = result_so_far(world, ending)
        if strict:
            for events_of_run in result.histories.values():
                replay_strictly(started_workflow(world.registry, events_of_run), events_of_run, world.codec)
        return result
    finally:
        world.close()


def result_so_far(world: World, ending: Ending) -> RunResult[Any]:
    """All there is to see of a world."""
    histories = world.histories()
    last = max((run for id, run in histories if id == world.id), default=0)
    return RunResult(
        id=world.id,
        status=ending.status,
        error=ending.error,
        history=histories.get((world.id, last), []),
        histories=histories,
        calls=dict(world.runner.calls),
        elapsed=timedelta(seconds=world.clock.now() - world.began),
        returned=ending.value,
    )


__all__ = ["RunResult", "Stuck", "run"]
