"""Simulate the whole world from one seed, and check that nothing of it shows.

Rule 1: safety first: the invariants hold at any time; then the faults stop, and everything ends (I18).
Rule 2: the same arguments give the same world, byte for byte, in any process.
Rule 3: a world in which something is wrong is made smaller as long as the same rule is broken.
"""

from __future__ import annotations

import logging
import random
import uuid
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, TypeVar, overload
from unittest import mock

import attrs

from zart_core.codec import Codec
from zart_core.errors import InvalidUse
from zart_core.events import Closed, Event, Status
from zart_core.hosts.engine import AsyncEngine
from zart_core.interpreter import CODEC
from zart_core.log import EventLog
from zart_core.testing.clock import START
from zart_core.testing.crashes import outcome_text
from zart_core.testing.invariants import CHECKS, Judge, is_lost
from zart_core.testing.repeating import given_by, own_arguments
from zart_core.testing.report import Violation
from zart_core.testing.runner import Steps
from zart_core.testing.simulation.faults import Faults
from zart_core.testing.simulation.report import SimulationReport
from zart_core.testing.simulation.situations import situations
from zart_core.testing.simulation.world import ROUNDS_MAX, Simulation, is_misfitted
from zart_core.testing.witness import Played
from zart_core.testing.world import Ending, Place, Scenario, Sending, memory_opener, place_of, refuse_used
from zart_core.workflows import Workflow

I = TypeVar("I")  # noqa: E741  # the input

WORKERS_MAX = 5
COPIES_MAX = 100
BOUND_S = 300.0
"""So long after the last fault everything must have ended, in virtual seconds; long waits do not count."""
TRIES_MAX = 200
"""Worlds that are tried to make a bad one smaller; none any more once they have taken as many callbacks as one may."""


@overload
def simulate(
    workflow: Workflow[None, Any],
    input: None = None,
    *,
    seed: int,
    workers: int = 1,
    faults: Faults | None = None,
    copies: int = 1,
    steps: Steps | Callable[[], Steps] | None = None,
    events: Iterable[Sending] = (),
    resources: Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None = None,
    children: Iterable[Workflow[Any, Any]] = (),
    outcomes: Collection[str] | None = None,
    only: Collection[int] | None = None,
    shrink: bool = True,
    store: Callable[[], Place | EventLog] | None = None,
    start: datetime | float = START,
    codec: Codec | None = None,
    id: str | None = None,
    engine: Callable[..., AsyncEngine] = AsyncEngine,
) -> SimulationReport: ...
@overload
def simulate(
    workflow: Workflow[I, Any],
    input: I,
    *,
    seed: int,
    workers: int = 1,
    faults: Faults | None = None,
    copies: int = 1,
    steps: Steps | Callable[[], Steps] | None = None,
    events: Iterable[Sending] = (),
    resources: Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None = None,
    children: Iterable[Workflow[Any, Any]] = (),
    outcomes: Collection[str] | None = None,
    only: Collection[int] | None = None,
    shrink: bool = True,
    store: Callable[[], Place | EventLog] | None = None,
    start: datetime | float = START,
    codec: Codec | None = None,
    id: str | None = None,
    engine: Callable[..., AsyncEngine] = AsyncEngine,
) -> SimulationReport: ...
def simulate(
    workflow: Any,
    input: Any = None,
    *,
    seed: int,
    workers: int = 1,
    faults: Faults | None = None,
    copies: int = 1,
    steps: Any = None,
    events: Iterable[Sending] = (),
    resources: Any = None,
    children: Iterable[Workflow[Any, Any]] = (),
    outcomes: Collection[str] | None = None,
    only: Collection[int] | None = None,
    shrink: bool = True,
    store: Callable[[], Place | EventLog] | None = None,
    start: datetime | float = START,
    codec: Codec | None = None,
    id: str | None = None,
    engine: Callable[..., AsyncEngine] = AsyncEngine,
) -> SimulationReport:
    """Let real engines run a workflow in a world of its own, in one thread and in virtual time, and break it.

    Workers die and are started anew, stand still, are handed over; their clocks jump; the store refuses, hangs, and
    loses requests and answers; messages come late and twice. All of it is drawn from the seed.

    Args:
        workflow: what to run.
        input: its input.
        seed: what everything is drawn from.
        workers: engines on the one store, 1 to 5, each in a simulated process of its own. Every second one serves
            the queues that steps name, a single one too; the second of three or more serves nothing else.
        faults: what goes wrong, and how often: `Faults(death=0.1)`, `Faults.none()`; `Faults.drawn(seed)` by default.
        copies: so many executions at once, each with the same input and events; ids end in -1, -2 and so on.
        steps: as in `run`; when fakes keep state, a function that makes fresh ones for each world.
        events: as in `run`; times count from when the client knows that the execution was started.
        resources: as in `run`; a function makes fresh ones for each world.
        children: workflows that it starts and that its code does not name, so that every worker knows them.
        outcomes: all ways in which it may end, as the report says them; anything by default. Another way is a
            violation of I10, unless a step was lost with its worker.
        only: places of the faults that strike, from `SimulationReport.struck`; all by default.
        shrink: whether a world in which something is wrong is made smaller; costs up to 200 worlds more.
        store: gives a fresh log, or its `Place`, for each world. In memory by default, with leases in virtual time.
        start: when virtual time begins.
        codec: in place of a plain one.
        id: the execution's id; the workflow's name by default.
        engine: makes the engine; give your own to break it.

    Raises InvalidUse for numbers that cannot be. Violations are in the report; `check()` raises them.
    """
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise InvalidUse(f"seed= is a whole number, not {seed!r}")
    if not 1 <= workers <= WORKERS_MAX or not 1 <= copies <= COPIES_MAX:
        raise InvalidUse(
            f"workers= is 1 to {WORKERS_MAX} and copies= 1 to {COPIES_MAX}, not {workers} and {copies}"
        )
    scenario = Scenario(workflow, input, steps, tuple(events), resources, start, id)
    if isinstance(outcomes, str):
        raise InvalidUse(f"outcomes= holds all ways in which it may end: [{outcomes!r}], not a text")
    plan = Plan(scenario, seed, workers, faults or Faults.drawn(seed), copies, outcomes, only, faults is None)
    player = Player(store, codec or CODEC, (workflow, *children), engine)
    with silence():
        report = player.play(plan)
        return player.shrunk(plan, report) if shrink and report.violations else report


@attrs.frozen
class Plan:
    """One world, before it is."""

    scenario: Scenario
    seed: int
    workers: int
    faults: Faults
    copies: int
    outcomes: Collection[str] | None
    only: Collection[int] | None
    drawn: bool
    """Whether the rates of faults are the seed's own."""


class Player:
    """Lets worlds be."""

    def __init__(
        self,
        store: Callable[[], Place | EventLog] | None,
        codec: Codec,
        workflows: Sequence[Workflow[Any, Any]],
        engine: Callable[..., AsyncEngine],
    ) -> None:
        self.store = store
        self.codec = codec
        self.workflows = workflows
        self.engine = engine
        usual = (None, CODEC, AsyncEngine, ())
        own = {"children": tuple(workflows[1:]), "store": store, "codec": codec, "engine": engine}
        self.own = [name for name, value in own.items() if value not in usual]
        self.rounds = 0
        """How many callbacks worlds have taken since they are made smaller."""

    def play(self, plan: Plan) -> SimulationReport:
        """Let one world be, and judge it."""
        place = Shelf() if self.store is None else place_of(self.store)
        world = Simulation(
            plan.scenario,
            place,
            seed=plan.seed,
            workers=plan.workers,
            copies=plan.copies,
            faults=plan.faults,
            only=plan.only,
            codec=self.codec,
            workflows=self.workflows,
            bound_s=BOUND_S,
            leases=isinstance(place, Shelf),
            make=self.engine,
        )
        if isinstance(place, Shelf):
            place.now = lambda: world.timeline.now
        try:
            for id in world.ids:
                refuse_used(world.log, id)
            with chance(plan.seed):
                wrong = world.run()
            return self.report(plan, world, wrong)
        finally:
            self.rounds += world.timeline.rounds
            world.wind_up()

    def report(self, plan: Plan, world: Simulation, wrong: str) -> SimulationReport:
        """What came of a world."""
        played = played_in(world)
        endings = {id: outcome_of(played, id) for id in world.ids}
        code = code_of(plan, self.own)
        found = list(violations(plan, world, played, endings, wrong))
        return SimulationReport(
            workflow=plan.scenario.workflow.name,
            seed=plan.seed,
            workers=plan.workers,
            outcomes=endings,
            violations=[Violation(rule, what, (), code) for rule, what in found],
            struck=tuple(world.fate.struck),
            calls=played.counts,
            situations=situations(world, played),
            histories=played.histories,
            elapsed=timedelta(seconds=world.timeline.now + world.shift),
            digest=world.digest(),
            trace=world.lines,
            code=code,
        )

    def shrunk(self, plan: Plan, report: SimulationReport) -> SimulationReport:
        """A smaller world in which the same rule is broken; the one that was found when none breaks it again.

        A workflow that keeps something in its process may do wrong in the first world only.
        """
        rules = {wrong.rule for wrong in report.violations}
        tries, self.rounds, plans = 0, 0, smaller_than(plan, report)
        while tries < TRIES_MAX and self.rounds < ROUNDS_MAX and (smaller := next(plans, None)) is not None:
            tries += 1
            again = self.play(smaller)
            broken = {wrong.rule for wrong in again.violations}
            if broken and broken <= rules:
                plan, report = smaller, again
                plans = smaller_than(plan, report)
        told = self.play(attrs.evolve(plan, only=tuple(place for place, _ in report.struck)))
        return told if rules & {wrong.rule for wrong in told.violations} else report


def smaller_than(plan: Plan, report: SimulationReport) -> Iterator[Plan]:
    """Plans with less in them: half of the faults, one fault less, one message less, fewer executions and workers."""
    places = [place for place, _ in report.struck]
    if plan.only is None and places:
        yield attrs.evolve(plan, only=tuple(places))
    if len(places) > 3:
        half = len(places) // 2
        yield attrs.evolve(plan, only=tuple(places[:half]))
        yield attrs.evolve(plan, only=tuple(places[half:]))
    for place in places:
        yield attrs.evolve(plan, only=tuple(other for other in places if other != place))
    if plan.copies > 1:
        yield attrs.evolve(plan, copies=1)
        yield attrs.evolve(plan, copies=plan.copies - 1)
    for workers in range(1, plan.workers):
        yield attrs.evolve(plan, workers=workers)
    events = plan.scenario.events
    if not any(wrong.rule in ("I10", "I18") for wrong in report.violations):
        for n in range(len(events)):
            fewer = attrs.evolve(plan.scenario, events=(*events[:n], *events[n + 1 :]))
            yield attrs.evolve(plan, scenario=fewer)


# ---------------------------------------------------------------- judging


def played_in(world: Simulation) -> Played:
    """What was seen, in the form in which it is judged."""
    watch, summaries, histories = world.witness, world.executions(), world.histories()
    lost: list[str] = []
    for (id, run), known in watch.acknowledged.items():
        found = dict(enumerate(world.log.records(id, run)))
        gone = [n for n, record in known.items() if found.get(n) != record]
        if gone:
            lost.append(f"committed records of '{id}' (run {run}) are gone, from {gone[0]} on")
    return Played(
        schedule=(),
        outcome="",
        status=Status.COMPLETED,
        value=None,
        error=None,
        histories=histories,
        summaries=summaries,
        calls=watch.called,
        deaths=watch.takeovers,
        lost=lost,
        early=(),
        sent=watch.posted,
        offered=watch.posted,
        resources=world.resources,
        unread=(),
        passed=(),
        unreached=(),
        elapsed_s=world.timeline.now,
    )


def violations(
    plan: Plan, world: Simulation, played: Played, endings: Mapping[str, str], wrong: str
) -> Iterator[tuple[str, str]]:
    """What is wrong with a world: number of the rule, and in words."""
    if wrong:
        yield "I18", wrong
    yield from world.witness.wrong
    for what in world.timeline.wrong:
        yield "F1", f"something was raised in a worker that nobody caught: {what}"
    for rule, check in CHECKS.items():
        if rule != "I15":
            for what in check(played):
                yield rule, what
    for summary in played.summaries:
        own = {key: history for key, history in played.histories.items() if key[0] == summary.id}
        sent = [post for post in played.sent if post.id == summary.id]
        unread = [message.key for message in world.log.inbox(summary.id)]
        for what in CHECKS["I15"](
            attrs.evolve(played, histories=own, sent=sent, offered=sent, unread=unread)
        ):
            yield "I15", f"'{summary.id}': {what}"
        if is_misfitted(summary):
            yield "R20", f"'{summary.id}' is parked: {summary.reason}"
    judge = Judge(played, world.registry, world.codec)
    for key, history in played.histories.items():
        if why := judge.replay(history):
            yield "I16", f"{key} does not replay: {why}"
    lost = any(is_lost(event) for history in played.histories.values() for event in history)
    for id, outcome in endings.items():
        if plan.outcomes is not None and outcome not in plan.outcomes and not lost:
            yield "I10", f"'{id}' ended with {outcome!r}, and may end with {' or '.join(plan.outcomes)}"
        closed = world.told.get(id)
        if closed is not None and end_of(played, id) != closed:
            yield "R1", f"a client was told that '{id}' ended with {closed.status}, and it ended otherwise"


def end_of(played: Played, id: str) -> Closed | None:
    """How the last run of an execution ended."""
    runs = [run for each, run in played.histories if each == id]
    last: Event | None = played.histories[id, max(runs)][-1] if runs else None
    return last if isinstance(last, Closed) else None


def outcome_of(played: Played, id: str) -> str:
    """How an execution ended, as text that can be compared."""
    closed = end_of(played, id)
    if closed is not None:
        return outcome_text(Ending(closed.status, None, None, closed))
    shown = [summary.status for summary in played.summaries if summary.id == id]
    return f"not ended: {shown[0] if shown else 'never created'}"


def code_of(plan: Plan, own: Sequence[str] = ()) -> str:
    """The line that repeats a world; `own` are parameters that the tester gave by name."""
    given, _ = given_by(plan.scenario)
    first = 1 if plan.scenario.input is None else 2
    arguments = [*given[:first], f"seed={plan.seed}"]
    if plan.workers > 1:
        arguments.append(f"workers={plan.workers}")
    if not plan.drawn:
        arguments.append(f"faults={shown(plan.faults)}")
    if plan.copies > 1:
        arguments.append(f"copies={plan.copies}")
    arguments += [*given[first:], *own_arguments(own)]
    if plan.outcomes is not None:
        arguments.append(f"outcomes={sorted(plan.outcomes)!r}")
    if plan.only is not None:
        arguments.append(f"only={list(plan.only)!r}")
    return f"simulate({', '.join(arguments)}).check()"


def shown(faults: Faults) -> str:
    """Faults as they are written, without what is not said."""
    fields = [field for field in attrs.fields(Faults) if getattr(faults, field.name) != field.default]
    return f"Faults({', '.join(f'{field.name}={getattr(faults, field.name)!r}' for field in fields)})"


# ---------------------------------------------------------------- the place, and silence


class Shelf:
    """A memory log that several processes have open at once, with leases in virtual time."""

    def __init__(self) -> None:
        self.now: Callable[[], float] = lambda: 0.0
        opener: Any = memory_opener()
        self.log = opener("memory:", clock=lambda: self.now())

    def open(self) -> EventLog:
        """Open it once more."""
        log: EventLog = self.log.sibling()
        return log

    def crash(self, log: EventLog) -> None:
        """The process is gone, and the store can tell: its claims are free."""
        log.close()

    def close(self, log: EventLog) -> None:
        """The end."""
        log.close()
        self.log.close()


@contextmanager
def chance(seed: int) -> Generator[None]:
    """Draw from the seed what workflows and steps draw: `zart.random`, `zart.uuid`, and the module `random`."""
    lots, before = random.Random(f"chance of {seed}"), random.getstate()  # noqa: S311  # for tests, the same each time
    random.seed(f"random of {seed}")
    try:
        with mock.patch.object(uuid, "uuid4", lambda: uuid.UUID(int=lots.getrandbits(128), version=4)):
            yield
    finally:
        random.setstate(before)


@contextmanager
def silence() -> Generator[None]:
    """What engines say of simulated weather is nobody's concern; the trace has it."""
    logger = logging.getLogger("zart.engine")
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before
