"""Crash a workflow at every point of its life, take it up again, and check that nothing shows.

Rule 1: the crash-free run comes first; every point that it passes is a place to die, and so is every point
        that the recovery passes, down to the depth that is asked for.
Rule 2: the dead host's successor is another worker on the same log, at the same virtual instant.
Rule 3: a schedule says everything about a run; a violation names its schedule.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar, cast, overload

from zart_core.codec import Codec
from zart_core.errors import Defect, InvalidUse
from zart_core.events import Closed, Failure, Status
from zart_core.hosts.inline import Inline, Stuck
from zart_core.interpreter import CODEC
from zart_core.log import EventLog
from zart_core.testing.chance import steady
from zart_core.testing.clock import START, VirtualClock
from zart_core.testing.invariants import Judge
from zart_core.testing.repeating import text_of_test
from zart_core.testing.report import CrashReport, Violation, shortened
from zart_core.testing.runner import Loops, Steps
from zart_core.testing.witness import (
    Attempt,
    CrashingLog,
    CrashingRunner,
    CrashingSender,
    Fate,
    LateRunner,
    Moment,
    Played,
    Point,
    Schedule,
    Witness,
)
from zart_core.testing.world import (
    Ending,
    HostFactory,
    Kept,
    Place,
    Reopened,
    Scenario,
    Sending,
    SimulatedCrash,
    TearingPlace,
    World,
    place_of,
    refuse_used,
)
from zart_core.workflows import Registry, Workflow

I = TypeVar("I")  # noqa: E741  # the input

ALL_POINTS: frozenset[Moment] = frozenset({"before", "torn", "after", "effect", "unsent", "sent"})
"""Every kind of point. `torn` is passed only where the store's place can tear an append."""
NEVER_LATE: Mapping[Attempt, float] = {}


@overload
def explore_crashes(
    workflow: Workflow[None, Any],
    input: None = None,
    *,
    steps: Steps | Callable[[], Steps] | None = None,
    events: Iterable[Sending] = (),
    resources: Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None = None,
    depth: int = 1,
    store: Callable[[], Place | EventLog] | None = None,
    points: Collection[Moment | Point | Collection[Point]] = ALL_POINTS,
    start: datetime | float = START,
    host: HostFactory = Inline,
    codec: Codec | None = None,
    id: str | None = None,
    ensure: Callable[[Played], object] | None = None,
) -> CrashReport: ...
@overload
def explore_crashes(
    workflow: Workflow[I, Any],
    input: I,
    *,
    steps: Steps | Callable[[], Steps] | None = None,
    events: Iterable[Sending] = (),
    resources: Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None = None,
    depth: int = 1,
    store: Callable[[], Place | EventLog] | None = None,
    points: Collection[Moment | Point | Collection[Point]] = ALL_POINTS,
    start: datetime | float = START,
    host: HostFactory = Inline,
    codec: Codec | None = None,
    id: str | None = None,
    ensure: Callable[[Played], object] | None = None,
) -> CrashReport: ...
def explore_crashes(
    workflow: Any,
    input: Any = None,
    *,
    steps: Any = None,
    events: Iterable[Sending] = (),
    resources: Any = None,
    depth: int = 1,
    store: Callable[[], Place | EventLog] | None = None,
    points: Any = ALL_POINTS,
    start: datetime | float = START,
    host: HostFactory = Inline,
    codec: Codec | None = None,
    id: str | None = None,
    ensure: Callable[[Played], object] | None = None,
) -> CrashReport:
    """Run a workflow without a crash, then once for every point where its host may die; check the invariants.

    Args:
        workflow: what to run.
        input: its input.
        steps: as in `run`; when fakes keep state, a function that makes fresh ones for each run.
        events: as in `run`; one without a key gets one, and is sent again with it if nobody answered.
        resources: as in `run`; a function makes fresh ones for each run.
        depth: how many crashes a run may have; each recovery is crashed at every point of its own. The number
            of runs is about the number of points to the power of the depth.
        store: gives a fresh log, or the `Place` of one, for each run; a memory log by default.
        points: the kinds of points to die at; or the very points, or schedules of them, to repeat runs; a schedule
            whose first point is never reached is a violation "points".
        start: when virtual time begins.
        host: makes the host, `Inline` by default; give your own to explore it.
        codec: in place of a plain one.
        id: the execution's id; the workflow's name by default.
        ensure: what you promise yourself: called with every run once it is over; an AssertionError, or False, is
            a violation "ensure". What a run did to the world is in its `resources`, made fresh by a function.

    Raises what is wrong without any crash: the defect of a parked run, and Stuck for one that waits for what
    never comes, or never ends; InvalidUse for a depth, points or a promise that are none, and for a store that was
    used. `zart.random`, `zart.uuid` and jitter are the same in every run, and others with another `id`.
    Violations are in the report; `check()` raises them.
    """
    if depth < 0:
        raise InvalidUse(f"depth= is the number of crashes that a run may have, 0 or more, not {depth}")
    check_promise(ensure)
    scenario = Scenario(workflow, input, steps, tuple(events), resources, start, id)
    player = Player(scenario, store, host, codec or CODEC, ensure)
    try:
        return player.explore(*chosen(points), depth)
    finally:
        player.loops.close()


class Player:
    """Plays one scenario, again and again, each time in a world of its own."""

    def __init__(
        self,
        scenario: Scenario,
        store: Callable[[], Place | EventLog] | None,
        make_host: HostFactory,
        codec: Codec,
        ensure: Callable[[Played], object] | None = None,
    ) -> None:
        self.scenario = scenario
        self.store = store
        self.make_host = make_host
        self.codec = codec
        self.ensure = ensure
        self.registry = Registry(scenario.workflow)
        self.loops = Loops()

    def explore(self, moments: Collection[Moment], schedules: Iterable[Schedule], depth: int) -> CrashReport:
        """Play without a crash, then at all points of these kinds, or by these schedules; judge all of it."""
        baseline = self.play(())
        if baseline.error is not None and not baseline.status.closed:
            raise baseline.error
        comparable = self.play(()).outcome == baseline.outcome
        judge = Judge(
            baseline,
            self.registry,
            self.codec,
            comparable=comparable,
            slower=lambda late_s: self.play((), late_s).outcome,
        )
        again = self.crash(baseline, moments, depth) if moments else map(self.play, schedules)
        runs = [baseline, *again]
        violations = [
            Violation(rule, what, played.schedule, self.code(played.schedule))
            for played in runs
            for rule, what in itertools.chain(
                judge.violations(played), promised(self.ensure, played), missed(played, moments)
            )
        ]
        return CrashReport(
            workflow=self.scenario.workflow.name,
            depth=max(len(played.schedule) for played in runs),
            runs=tuple(runs),
            violations=tuple(violations),
            notes=tuple(notes_on(runs, judge)),
        )

    def code(self, schedule: Schedule) -> str:
        """The test that repeats a run."""
        own = {"store": self.store, "host": self.make_host, "codec": self.codec, "ensure": self.ensure}
        usual = (None, Inline, CODEC)
        return text_of_test(
            self.scenario, schedule, [name for name, value in own.items() if value not in usual]
        )

    def crash(self, played: Played, moments: Collection[Moment], depth: int) -> Iterator[Played]:
        """Play once for each point that this playing passed in its last life, and so on."""
        if depth > 0:
            for point in played.passed:
                if point.moment in moments:
                    again = self.play((*played.schedule, point))
                    yield again
                    yield from self.crash(again, moments, depth - 1)

    def play(self, schedule: Schedule, late_s: Mapping[Attempt, float] = NEVER_LATE) -> Played:
        """Play it with these crashes, and with attempts that take so many seconds longer."""
        fate, witness, place = Fate(schedule), Witness(), place_of(self.store)
        tearing, clock = place if isinstance(place, TearingPlace) else None, VirtualClock(self.scenario.start)
        world = World(
            self.scenario,
            place,
            clock=clock,
            make_host=steady(self.make_host),
            codec=self.codec,
            registry=self.registry,
            loops=self.loops,
            keyed=True,
            wrap_log=lambda log: CrashingLog(log, tearing, clock, fate, witness),
            wrap_sender=lambda log: CrashingSender(log, fate),
            wrap_runner=lambda runner: CrashingRunner(
                LateRunner(runner, clock, late_s), lambda: world.log, clock, fate, witness
            ),
        )
        try:
            refuse_used(world.log, world.id)
            ending = self.live(world, fate, witness, may_break=bool(late_s))
            return played_in(world, ending, fate, witness, schedule)
        finally:
            world.close()

    def live(self, world: World, fate: Fate, witness: Witness, *, may_break: bool) -> Ending:
        """Let one host after the other work until the execution has ended, or nothing goes on."""
        while True:
            try:
                return world.live()
            except SimulatedCrash:
                world.bury()
                witness.note_death(fate, world.log, world.executions())
                fate.reborn()
            except Exception as error:
                if not witness.deaths and not may_break:
                    raise
                return Ending(Status.RUNNING, None, error, None)


def played_in(world: World, ending: Ending, fate: Fate, witness: Witness, schedule: Schedule) -> Played:
    """All there is to see of a playing that is over."""
    return Played(
        schedule=schedule,
        outcome=outcome_text(ending),
        status=ending.status,
        value=ending.value,
        error=ending.error,
        histories=world.histories(),
        summaries=world.executions(),
        calls=witness.calls,
        deaths=witness.deaths,
        lost=witness.lost,
        early=witness.early,
        offered=world.offered,
        sent=world.sent,
        resources=world.resources,
        unread=[message.key for message in world.log.inbox(world.id)],
        passed=fate.passed,
        unreached=tuple(fate.left),
        elapsed_s=world.clock.now() - world.began,
    )


# ---------------------------------------------------------------- points and texts


def chosen(points: Any) -> tuple[Collection[Moment], Sequence[Schedule]]:
    """Tell kinds of points from schedules. Raises InvalidUse for what is neither."""
    items: list[Any] = [points] if isinstance(points, str | Point) else list(points)
    if all(isinstance(item, str) and item in ALL_POINTS for item in items):
        return cast("Collection[Moment]", set(items)), ()
    schedules: list[tuple[Any, ...]] = [(item,) if isinstance(item, Point) else tuple(item) for item in items]
    if all(isinstance(point, Point) for schedule in schedules for point in schedule):
        return (), schedules
    kinds = ", ".join(sorted(ALL_POINTS))
    raise InvalidUse(f"points= holds some of {kinds}, or Points, or schedules of Points, not {points!r}")


def outcome_text(ending: Ending) -> str:
    """How it ended, as text that is the same for what is the same; without tracebacks."""
    closed = ending.closed
    if closed is None:
        how = "broken" if ending.status is Status.RUNNING else str(ending.status)
        return f"{how}: {type(ending.error).__name__}: {ending.error}"
    if closed.status is Status.COMPLETED:
        return f"completed: {closed.payload.decode()}"
    return f"{closed.status}: {failure_text(closed)}"


def failure_text(closed: Closed) -> str:
    """A failure and what caused it, in one line."""
    parts: list[str] = []
    failure: Failure | None = closed.failure
    while failure is not None:
        parts.append(f"{failure.type}: {failure.message}")
        failure = failure.cause
    return " <- ".join(parts)


def check_promise(ensure: object) -> None:
    """Raise InvalidUse for what is no promise of the tester's: a coroutine function would say nothing, ever."""
    if ensure is not None and (not callable(ensure) or inspect.iscoroutinefunction(ensure)):
        raise InvalidUse(f"ensure= is a plain function of a run that asserts, or gives False, not {ensure!r}")


def promised(ensure: Callable[[Played], object] | None, played: Played) -> Iterator[tuple[str, str]]:
    """What does not hold of the things that the tester promises."""
    if ensure is not None:
        try:
            if ensure(played) is False:
                yield "ensure", f"{getattr(ensure, '__name__', 'ensure')} does not hold: {played.outcome}"
        except AssertionError as error:
            yield "ensure", str(error) or f"an assertion failed: {played.outcome}"
        except Exception as error:
            points = ", ".join(map(str, played.schedule)) or "none"
            error.add_note(
                f"ensure= raised this for the run with these crashes: {points}; {shortened(played.outcome)}"
            )
            raise


def missed(played: Played, moments: Collection[Moment]) -> Iterator[tuple[str, str]]:
    """A schedule of the tester's under which nothing died: a test that tests nothing must not pass."""
    if played.schedule and not played.deaths and not moments:
        point = played.schedule[0]
        last = max((passed.n for passed in played.passed if passed.moment == point.moment), default=None)
        until = "none of its kind" if last is None else f"{point.moment!r} 0 to {last}"
        yield (
            "points",
            f"{point} was never reached, so nothing died: the run passes {until}; give points that it has",
        )


def notes_on(runs: Iterable[Played], judge: Judge) -> Iterator[str]:
    """Say what to know about the exploration itself."""
    if not judge.comparable:
        yield "it ends differently each time, without any crash; outcomes are not compared (I10)"
    for excuse, count in judge.excused.items():
        yield f"{count} runs ended otherwise than without a crash: {excuse}"
    unreached = [played.schedule for played in runs if played.unreached]
    if unreached:
        yield f"{len(unreached)} of the points were never reached, the first being {unreached[0]}"


__all__ = [
    "ALL_POINTS",
    "Defect",
    "Kept",
    "Place",
    "Point",
    "Reopened",
    "Stuck",
    "TearingPlace",
    "explore_crashes",
]
