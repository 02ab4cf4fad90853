"""Every order in which things can arrive: ends of steps, timers and events. A real host, one run for each order.

Rule 1: what a step does is fixed, when it is done is not: any attempt that runs may end next. Events come in the order
        given, each at any time; timers keep the order that time gives them.
Rule 2: what is not bound to a time comes at once, or, where that starts a timer, also at the last moment before the
        next timer.
Rule 3: orders are told apart by what arrives, not by what comes of it: two of them may lead to the same history, and
        are counted as two orders and one history.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, TypeAlias, TypeVar, overload

import attrs

from zart_core.codec import Codec
from zart_core.context import Scene
from zart_core.errors import InvalidUse
from zart_core.events import Event, Issued, Ok
from zart_core.hosts.inline import Inline
from zart_core.hosts.ports import StepCall, StepRunner
from zart_core.hosts.turns import Effects, Run
from zart_core.interpreter import CODEC
from zart_core.log import Post
from zart_core.records import record
from zart_core.testing.chance import SteadyRun
from zart_core.testing.clock import START, VirtualClock
from zart_core.testing.crashes import check_promise, played_in, promised
from zart_core.testing.invariants import Judge
from zart_core.testing.repeating import text_of_order
from zart_core.testing.report import Violation, listed, plural, shortened
from zart_core.testing.runner import Loops, ScriptedRunner, Steps
from zart_core.testing.witness import CrashingLog, CrashingRunner, Fate, Key, Played, Witness
from zart_core.testing.world import Place, Scenario, Sending, World, place_of, posts_of, refuse_used
from zart_core.workflows import Registry, Workflow

I = TypeVar("I")  # noqa: E741  # the input

ORDERS_MAX = 10_000
"""Orders of arrival that are explored, unless more are asked for."""
AHEAD_PART = 5
"""As many orders at the most are played to see whether there are too many: this part of those that are allowed."""
ARRIVALS_MAX = 1_000
"""Arrivals in one run: one with more does not end."""
LATE = " (late)"
"""After the name of what comes at the last moment before the next timer."""
Order: TypeAlias = tuple[str, ...]
"""What arrived, in order: names of steps, "event go", names of timers."""
Flight: TypeAlias = tuple[str, int, int]
"""A running attempt: execution id, run, seq."""


@record
class Arrival:
    """Something that may arrive next."""

    name: str
    kind: Literal["step", "event", "time"]
    flight: Flight | None = None
    late: bool = False


@record
class Ordered:
    """One order, and what came of it."""

    order: Order
    played: Played


@record
class OrderReport:
    """What came of letting things arrive in every order."""

    workflow: str
    runs: Sequence[Ordered]
    """One for each order, the shortest choice first."""
    violations: Sequence[Violation]

    @property
    def orders(self) -> int:
        """In how many orders things can arrive."""
        return len(self.runs)

    @property
    def histories(self) -> int:
        """How many different histories they lead to, times left aside."""
        return len({signature(run.played.histories) for run in self.runs})

    @property
    def outcomes(self) -> Mapping[str, int]:
        """How the runs ended, and how many orders end so: {"completed: 42": 6}."""
        return Counter(run.played.outcome for run in self.runs)

    @property
    def shortest(self) -> Mapping[str, Order]:
        """For each outcome the order with the fewest arrivals that leads to it."""
        found: dict[str, Order] = {}
        for run in sorted(self.runs, key=lambda run: len(run.order)):
            found.setdefault(run.played.outcome, run.order)
        return found

    def check(self) -> None:
        """Raise AssertionError with the whole report when there are violations."""
        if self.violations:
            raise AssertionError(str(self))

    def __str__(self) -> str:
        shortest = self.shortest
        rows = sorted(self.outcomes.items(), key=lambda item: -item[1])
        return "\n".join(
            [
                f"workflow '{self.workflow}': {plural(self.orders, 'order')}, "
                f"{plural(self.histories, 'history', 'histories')}, {plural(len(rows), 'outcome')}, "
                f"{plural(len(self.violations), 'violation')}",
                "",
                "orders  outcome, and the shortest order that leads to it",
                *(
                    f"{count:6}  {shortened(outcome)}\n        {', '.join(shortest[outcome]) or 'nothing arrives'}"
                    for outcome, count in rows
                ),
                *listed(self.violations),
            ]
        )


@overload
def explore_orders(
    workflow: Workflow[None, Any],
    input: None = None,
    *,
    steps: Steps | Callable[[], Steps] | None = None,
    events: Iterable[Sending] = (),
    resources: Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None = None,
    store: Callable[[], Place] | None = None,
    orders: Iterable[Sequence[str]] | None = None,
    orders_max: int = ORDERS_MAX,
    start: datetime | float = START,
    codec: Codec | None = None,
    id: str | None = None,
    ensure: Callable[[Played], object] | None = None,
) -> OrderReport: ...
@overload
def explore_orders(
    workflow: Workflow[I, Any],
    input: I,
    *,
    steps: Steps | Callable[[], Steps] | None = None,
    events: Iterable[Sending] = (),
    resources: Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None = None,
    store: Callable[[], Place] | None = None,
    orders: Iterable[Sequence[str]] | None = None,
    orders_max: int = ORDERS_MAX,
    start: datetime | float = START,
    codec: Codec | None = None,
    id: str | None = None,
    ensure: Callable[[Played], object] | None = None,
) -> OrderReport: ...
def explore_orders(
    workflow: Any,
    input: Any = None,
    *,
    steps: Any = None,
    events: Iterable[Sending] = (),
    resources: Any = None,
    store: Callable[[], Place] | None = None,
    orders: Iterable[Sequence[str]] | None = None,
    orders_max: int = ORDERS_MAX,
    start: datetime | float = START,
    codec: Codec | None = None,
    id: str | None = None,
    ensure: Callable[[Played], object] | None = None,
) -> OrderReport:
    """Run a workflow once for every order in which steps can end, timers strike and events come; check the invariants.

    n steps side by side have n! orders, k chains of n steps (k n)! / n!^k: it is meant for small fan-outs.

    Args:
        workflow: what to run.
        input: its input.
        steps: as in `explore_crashes`. A fake says what a step gives, not how long it takes.
        resources: as in `explore_crashes`.
        events: as in `run`; they come in the order of their delays, at any time.
        store: gives a fresh place for each run; a memory log by default.
        orders: the very orders to repeat, as a report shows them.
        orders_max: more than that many is an error.
        start: when virtual time begins.
        codec: in place of a plain one.
        id: the execution's id; the workflow's name by default.
        ensure: what you promise yourself, whatever the order: as in `explore_crashes`.

    `zart.random`, `zart.uuid` and jitter are the same in every order, and others with another `id`.
    An order in which the run never ends is a violation. Raises InvalidUse when there are more than `orders_max`
    orders, for one in `orders` that cannot be, and for an `ensure` that is no function.
    """
    check_promise(ensure)
    scenario = Scenario(workflow, input, steps, tuple(events), resources, start, id)
    explorer = Explorer(scenario, store, codec or CODEC)
    try:
        runs = (
            explorer.explore(orders_max) if orders is None else [explorer.repeat(order) for order in orders]
        )
    finally:
        explorer.loops.close()
    usual = (None, CODEC)
    own = [
        name for name, value in (("store", store), ("codec", codec), ("ensure", ensure)) if value not in usual
    ]
    return OrderReport(
        workflow=workflow.name,
        runs=runs,
        violations=[
            Violation(rule, what, (), text_of_order(scenario, run.order, own))
            for run in runs
            for rule, what in itertools.chain(explorer.wrong(run.played), promised(ensure, run.played))
        ],
    )


# ---------------------------------------------------------------- going through all of them


class Choice:
    """A place where one of several things arrives: which there are, and which is taken."""

    def __init__(self, arrivals: Sequence[Arrival], taken: int = 0) -> None:
        self.arrivals = list(arrivals)
        self.taken = taken

    @property
    def arrival(self) -> Arrival:
        """The one that is taken."""
        return self.arrivals[self.taken]


class Explorer:
    """Plays one scenario in one order after the other, each time from the beginning."""

    def __init__(self, scenario: Scenario, store: Callable[[], Place] | None, codec: Codec) -> None:
        self.scenario = scenario
        self.store = store
        self.codec = codec
        self.registry = Registry(scenario.workflow)
        self.loops = Loops()

    def explore(self, orders_max: int) -> list[Ordered]:
        """Play every order. Raises InvalidUse when there are more than `orders_max`."""
        self.look_ahead(orders_max)
        runs, complete = self.first(orders_max)
        if not complete:
            raise self.too_many(orders_max)
        return runs

    def look_ahead(self, orders_max: int) -> None:
        """Raise InvalidUse if a few runs show that there are more than `orders_max` orders, where the first looks so.

        Wherever something else may arrive there is one order more at least, and that is soonest seen early in a run.
        """
        ahead = Ahead(orders_max, self.too_many(orders_max))
        while ahead.beginnings and ahead.played < orders_max // AHEAD_PART:
            self.play([], ahead.begin())
            ahead.played += 1
            if ahead.ways <= orders_max:
                return

    def too_many(self, orders_max: int) -> InvalidUse:
        """The error for more orders than that."""
        return InvalidUse(
            f"workflow '{self.scenario.workflow.name}' has more than {orders_max:,} orders of arrival; n steps side "
            "by side have n!: explore a smaller input, or give orders_max="
        )

    def first(self, orders_max: int) -> tuple[list[Ordered], bool]:
        """So many orders at the most, and whether that is all of them.

        Depth first: play to the end, go back to the last place where something else may arrive, and play again.
        """
        found: dict[Order, Ordered] = {}
        path: list[Choice] = []
        while True:
            run = self.play(path, lambda arrivals: 0)
            found.setdefault(tuple(name.removesuffix(LATE) for name in run.order), run)
            if len(found) > orders_max:
                return list(found.values())[:orders_max], False
            while path and path[-1].taken + 1 == len(path[-1].arrivals):
                path.pop()
            if not path:
                return list(found.values()), True
            path[-1].taken += 1

    def wrong(self, played: Played) -> Iterator[tuple[str, str]]:
        """What is wrong with a run, whatever its outcome is: the rule's number, and words."""
        if not played.status.closed:
            yield "I18", f"it does not end: {played.outcome}"
        yield from Judge(played, self.registry, self.codec).broken(played)

    def repeat(self, order: Sequence[str]) -> Ordered:
        """Play one order. Raises InvalidUse where it cannot be."""
        left = list(order)

        def wanted(arrivals: list[Arrival]) -> int:
            names = [arrival.name for arrival in arrivals]
            given = left.pop(0) if left else ""
            name, late = given.removesuffix(LATE), given.endswith(LATE)
            if name not in names:
                raise InvalidUse(
                    f"the order {list(order)} cannot be: {given or 'its end'!r} comes where only "
                    f"{', '.join(names)} may come"
                )
            number = names.index(name)
            arrivals[number] = attrs.evolve(arrivals[number], late=late)
            return number

        run = self.play([], wanted)
        if left:
            raise InvalidUse(f"the order {list(order)} cannot be: the run is over before {left[0]!r} comes")
        return run

    def play(self, path: list[Choice], pick: Callable[[list[Arrival]], int]) -> Ordered:
        """Play along a path, and by `pick` where it ends; what is picked is added to the path."""
        fate, witness, place = Fate(()), Witness(), place_of(self.store)
        world = OrderedWorld(self, place, path, pick, fate, witness)
        try:
            refuse_used(world.log, world.id)
            ending = world.live()
            return Ordered(tuple(world.order), played_in(world, ending, fate, witness, ()))
        finally:
            world.close()


class Ahead:
    """Looks how many orders there are at least: those that were played, and beginnings of others that were seen."""

    def __init__(self, orders_max: int, too_many: InvalidUse) -> None:
        self.orders_max = orders_max
        self.too_many = too_many
        self.played = 0
        self.ways = 1
        """What the first run seems to say: the product of the ways to go on at each of its places."""
        self.beginnings: list[tuple[int, Order]] = [(0, ())]
        """A heap with their lengths, the shortest first. None begins with another: each is an order of its own."""

    def begin(self) -> Callable[[list[Arrival]], int]:
        """Give what picks for the next run: along its beginning, then always the first."""
        (length, beginning), passed = heapq.heappop(self.beginnings), list[str]()

        def pick(arrivals: list[Arrival]) -> int:
            every = [arrival.name for arrival in arrivals]
            names, before = list(dict.fromkeys(every)), tuple(passed)
            follows = len(before) < length
            passed.append(beginning[len(before)] if follows else names[0])
            if not self.played:
                self.ways *= len(names)
            for name in () if follows else names[1:]:
                heapq.heappush(self.beginnings, (len(before) + 1, (*before, name)))
                if self.played + 1 + len(self.beginnings) > self.orders_max:
                    raise self.too_many
            return every.index(passed[-1])

        return pick


class OrderedWorld(World):
    """A world in which, whenever the host has nothing to do, the explorer says what arrives."""

    def __init__(
        self,
        explorer: Explorer,
        place: Place,
        path: list[Choice],
        pick: Callable[[list[Arrival]], int],
        fate: Fate,
        witness: Witness,
    ) -> None:
        scenario = explorer.scenario
        clock = VirtualClock(scenario.start)
        super().__init__(
            Scenario(
                scenario.workflow, scenario.input, None, (), scenario.resources, scenario.start, scenario.id
            ),
            place,
            clock=clock,
            make_host=OrderedHost,
            codec=explorer.codec,
            registry=explorer.registry,
            wrap_log=lambda log: CrashingLog(log, None, clock, fate, witness),
            wrap_runner=lambda runner: CrashingRunner(
                InTime(runner, clock, self.steps_clock), lambda: self.log, clock, fate, witness
            ),
        )
        steps = scenario.steps
        self.steps_clock = VirtualClock(scenario.start)
        self.runner = ScriptedRunner(
            steps() if callable(steps) else steps, clock=self.steps_clock, loops=explorer.loops
        )
        self.path = path
        self.pick = pick
        self.order: list[str] = []
        self.coming: list[Post] = posts_of(self.codec, self.id, scenario.events, self.began, keyed=True)

    @property
    def steered(self) -> OrderedHost:
        """The host."""
        assert isinstance(self.host, OrderedHost)
        return self.host

    def rest(self, until: float | None) -> None:
        """Let one thing arrive; raises Stuck when nothing can."""
        host, number = self.steered, len(self.order)
        timers = host.timers()
        wake = min((when for when, _ in timers), default=None)
        arrivals = [*host.ends(), *self.next_event(), *next_timers(timers, wake)]
        if not arrivals:
            super().rest(until)  # a timer that no longer matters, or nothing at all
            return
        if number == ARRIVALS_MAX:
            raise InvalidUse(f"after {number:,} arrivals the run has not ended: {', '.join(self.order[-5:])}")
        if number == len(self.path):
            taken = self.pick(arrivals)
            self.path.append(Choice(arrivals, taken))
        choice = self.path[number]
        arrival = choice.arrival
        self.order.append(arrival.name + LATE * arrival.late)
        self.bring(arrival, wake)
        late = attrs.evolve(arrival, late=True)
        if (
            arrival.kind != "time"
            and wake is not None
            and late not in choice.arrivals
            and host.timers() - timers
        ):
            choice.arrivals.append(late)

    def bring(self, arrival: Arrival, wake: float | None) -> None:
        """Let it arrive, and the host do what follows from it."""
        if wake is not None and (arrival.late or arrival.kind == "time"):
            self.clock.pass_until(math.nextafter(wake, 0.0) if arrival.late else wake)
        if arrival.flight is not None:
            self.steered.end(arrival.flight)
        elif arrival.kind == "event":
            post = attrs.evolve(self.coming.pop(0), at=self.clock.now())
            self.offered.append(post)
            (outcome,) = self.log.append([post])
            if isinstance(outcome, Ok):
                self.sent.append(post)
        while self.steered.work():
            pass

    def next_event(self) -> Iterator[Arrival]:
        """What is sent next."""
        for post in self.coming[:1]:
            yield Arrival(f"event {post.name}" if post.kind == "event" else post.kind, "event")


class InTime:
    """Runs steps in a time of their own; one that ends by its timeout lets the world's time pass until then."""

    def __init__(self, runner: StepRunner, clock: VirtualClock, own: VirtualClock) -> None:
        self.runner = runner
        self.clock = clock
        self.own = own

    def run(self, call: StepCall, scene: Scene) -> Any:
        """See StepRunner."""
        self.own.jump(seconds=self.clock.now() - self.own.now())
        try:
            return self.runner.run(call, scene)
        except TimeoutError:
            deadline = call.context.deadline
            if deadline is not None and self.own.now() >= deadline:
                self.clock.pass_until(deadline)
            raise


class OrderedHost(Inline):
    """The inline host, whose steps run until they are told to end; any number of them at once."""

    slots = 1 << 30
    run_type = SteadyRun

    def __init__(self, *given: Any, **outside: Any) -> None:
        super().__init__(*given, **outside)
        self.flying: dict[Flight, tuple[Run, StepCall]] = {}

    def start(self, workflow: Workflow[Any, Any], input: Any, id: str) -> bool:
        """As usual; this one is the root."""
        self.root = id
        return super().start(workflow, input, id)

    def call(self, run: Run, call: StepCall) -> None:
        """An attempt begins."""
        self.flying[run.id, run.run, call.seq] = run, call

    def carry_out(self, run: Run, effects: Effects) -> bool:
        """Forget attempts that nobody wants any more; async ones that are told to end do so at once."""
        over = super().carry_out(run, effects)
        for seq in effects.dropped:
            self.flying.pop((run.id, run.run, seq), None)
        for seq in effects.stops:
            _, call = self.flying[run.id, run.run, seq]
            if call.function.is_async:
                del self.flying[run.id, run.run, seq]
                run.cancelled(call, self.clock.now())
                over = False
        if run.closed is not None:
            self.flying = {flight: held for flight, held in self.flying.items() if held[0] is not run}
        return over

    def end(self, flight: Flight) -> None:
        """Let an attempt end as it does, and go on from there."""
        run, call = self.flying.pop(flight)
        super().call(run, call)
        self.advance(run)

    def ends(self) -> list[Arrival]:
        """The attempts that may end next."""
        return [
            Arrival(self.titled(run, call.context.step or ""), "step", flight)
            for flight, (run, call) in self.flying.items()
        ]

    def timers(self) -> set[tuple[float, str]]:
        """Everything that time will bring: when, and its name."""
        return {
            (when, self.titled(run, name))
            for run in self.runs.values()
            if run.execution is not None
            for when, name in timers_of(run)
        }

    def titled(self, run: Run, name: str) -> str:
        """A name, with its execution's id where there are several."""
        return name if run.id == self.root else f"{name} of '{run.id}'"


def next_timers(timers: set[tuple[float, str]], wake: float | None) -> Iterator[Arrival]:
    """The timers that strike next, all of one instant together."""
    if wake is not None:
        yield Arrival(" and ".join(sorted(name for when, name in timers if when == wake)), "time")


def timers_of(run: Run) -> Iterator[tuple[float, str]]:
    """The timers of a run: its deadline, sleeps, timeouts, retries."""
    execution = run.execution
    assert execution is not None
    if run.started is not None and run.started.deadline is not None and execution.interrupted is None:
        yield run.started.deadline, "deadline"
    for seq, issued in execution.pending.items():
        if issued.until is not None:
            yield issued.until, issued.name if issued.kind == "sleep" else f"timeout of {issued.name}"
        elif math.isfinite(execution.cancelling.get(seq, math.inf)):
            yield execution.cancelling[seq], f"grace of {issued.name}"
        elif issued.kind == "step":
            progress = execution.progress(seq)
            if progress.deadline is not None:
                yield progress.deadline, f"timeout of {issued.name}"
            if progress.retry_at is not None and seq not in run.running:
                yield progress.retry_at, f"retry of {issued.name}"


def signature(histories: Mapping[Key, Sequence[Event]]) -> tuple[object, ...]:
    """What tells histories apart, times left aside."""
    return tuple((key, tuple(map(fact, history))) for key, history in histories.items())


def fact(event: Event) -> tuple[object, ...]:
    """An event without its times."""
    name = event.name if isinstance(event, Issued) else None
    return type(event).__name__, getattr(event, "seq", None), name, getattr(event, "outcome", None)
