"""What would follow: a fork goes on in memory and in virtual time, with outcomes that are given, and runs no step.

Rule 1: no step function is called that was not put there by `steps=`; where no outcome is given, it stops.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zart_core.codec import Codec
from zart_core.context import Scene
from zart_core.errors import Defect, StepFailed
from zart_core.events import Done, Event, Failed, Ok, Outcome, Started, Status
from zart_core.hosts.ports import StepCall, StepRunner
from zart_core.insight.forking import Fork, execution_of
from zart_core.interpreter import CODEC
from zart_core.records import record
from zart_core.testing.runner import Steps
from zart_core.testing.world import Ending, Kept, Scenario, Sending, World, memory_opener
from zart_core.workflows import Registry


@record
class Rehearsal:
    """What would follow a fork."""

    events: tuple[Event, ...]
    """After those of the fork."""
    status: Status
    error: str
    """How it ended, if not well; empty otherwise."""
    value: Any
    """What the workflow returned."""
    asks: tuple[str, ...]
    """Steps, by name, that it would call next and that no outcome is given for."""
    unused: tuple[str, ...]
    """Names of outcomes that nothing asked for."""


class Unscripted(BaseException):
    """A step is asked for that nobody has given an outcome for. No `except Exception` sees it."""


class Scripted:
    """Gives outcomes by name, then those of `steps=`; stops at anything else."""

    def __init__(
        self, inner: StepRunner, outcomes: Mapping[str, Outcome], known: Steps, codec: Codec
    ) -> None:
        self.inner = inner
        self.outcomes = outcomes
        self.known = {function.origin for function in known}
        self.codec = codec
        self.used: set[str] = set()

    def run(self, call: StepCall, scene: Scene) -> Any:
        """Give the outcome of an attempt. Raises Unscripted."""
        name = call.context.step or ""
        self.used.add(name)
        match self.outcomes.get(name):
            case Done(payload=payload):
                return self.codec.decode(payload, call.function.result_type, f"the outcome of '{name}'")
            case Failed(failure=failure):
                raise StepFailed(name, failure.type, failure.message)
            case _ if call.function.origin in self.known:
                return self.inner.run(call, scene)
            case _:
                raise Unscripted(name)


def rehearse(
    made: Fork,
    registry: Registry,
    *,
    steps: Steps | None = None,
    events: Sequence[Sending] = (),
    codec: Codec = CODEC,
) -> Rehearsal:
    """Let a fork go on in virtual time, up to its end or the first step that no outcome is given for.

    Args:
        made: what `fork` gave.
        registry: the workflows: its own and those of its children.
        steps: what stands in for which step, as in `zart_core.testing.run`.
        events: what comes from outside, as there: (delay after the fork, name, payload).
        codec: in place of a plain one.

    An outcome of a wrong type fails its step.
    """
    first = made.events[0]
    assert isinstance(first, Started)
    began = made.events[-1].at
    log = memory_opener()("memory:")
    (outcome,) = log.append([execution_of(made, codec, began)])
    assert isinstance(outcome, Ok), outcome
    scenario = Scenario(registry.of(first), None, steps, events, start=began, id=made.id)
    runners: list[Scripted] = []

    def scripted(inner: StepRunner) -> StepRunner:
        runners.append(Scripted(inner, made.left, steps or {}, codec))
        return runners[-1]

    world = World(
        scenario,
        Kept(log),
        codec=codec,
        registry=registry,
        wrap_runner=scripted,
    )
    asks: list[str] = []
    try:
        ending = world.live()
    except Unscripted as asked:
        asks.append(str(asked))
        ending = Ending(Status.RUNNING, None, None, None)
    finally:
        followed = codec.decode_events(log.records(made.id, 0), made.id, 0)[len(made.events) + 1 :]
        world.close()
    used = {name for runner in runners for name in runner.used}
    error = "" if ending.error is None else words_about(ending.error)
    return Rehearsal(
        tuple(followed), ending.status, error, ending.value, tuple(asks), tuple(sorted(set(made.left) - used))
    )


def words_about(error: BaseException) -> str:
    """How it ended."""
    return str(error) if isinstance(error, Defect) else f"{type(error).__name__}: {error}"
