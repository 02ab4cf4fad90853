"""`explore_crashes` dies at every point, reports nothing where nothing is wrong, and catches what is."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import enum
import importlib
import itertools
import random
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import attrs
import pytest

import zart_core as zart
from zart_core.context import Scene
from zart_core.events import Ok
from zart_core.hosts.inline import Inline
from zart_core.hosts.ports import StepCall
from zart_core.log import Appended, EventLog, Mark, Message, Post, Receipt, Record, Turn, Write
from zart_core.testing import (
    ALL_POINTS,
    Cancel,
    CrashReport,
    Played,
    Point,
    Relay,
    Reopened,
    SimulatedCrash,
    SimulatedFileSystem,
    Terminate,
    VirtualClock,
    explore_crashes,
    explore_orders,
)
from zart_stores import memory
from zart_stores.file.store import open as file_log
from zart_stores.sql import sqlite


class NoCar(Exception): ...


@zart.step("one")
def one() -> int:
    return 1


@zart.step("two", retry=zart.Retry.fixed(2, "1s"))
async def two() -> int:
    return 2


@zart.step("item-{n}")
def item(n: int) -> int:
    return n


@zart.step("pay", at_most_once=True)
def pay() -> int:
    return 1


@zart.step("book-{what}", raises=(NoCar,))
def book(what: str) -> str:
    if what == "car":
        raise NoCar("none left")
    return what


@zart.step("undo-{what}")
def undo(what: str) -> None: ...


@zart.workflow("plain")
def plain() -> zart.Flow[int]:
    """Eight appends: the creation, five turns, and a mark before each of the two waits."""
    first = yield from one()
    yield from zart.sleep("nap", "10s")
    second = yield from two()
    event = yield from zart.wait_for_event("go", int)
    return first + second + event


@zart.workflow("one-step")
def one_step() -> zart.Flow[int]:
    return (yield from one())


def branch(n: int) -> zart.Flow[int]:
    first = yield from item(n)
    yield from zart.sleep(f"nap-{n}", n)
    return first + (yield from item(n).named(f"again-{n}"))


@zart.workflow("fan-out")
def fan_out() -> zart.Flow[list[int]]:
    return (yield from zart.wait([branch(n) for n in range(3)]))


@zart.workflow("saga")
def saga() -> zart.Flow[str]:
    done: list[str] = []
    try:
        for what in ("flight", "hotel", "car"):
            done.append((yield from book(what)))
    except NoCar as error:
        for what in reversed(done):
            yield from undo(what)
        return str(error)
    return "booked"


@zart.workflow("racing")
def racing() -> zart.Flow[list[Any]]:
    won, value = yield from zart.race(zart.sleep("nap", 5), zart.wait_for_event("go", int), branch(9))
    rest = yield from zart.wait_for_event("go", int)
    return [won, value, rest]


@zart.workflow("cancelled", timeout="1h")
def cancelled() -> zart.Flow[str]:
    try:
        yield from book("flight")
        yield from zart.sleep("long", "2h")
    finally:
        yield from undo("hotel")
        yield from undo("flight")
    return "never"


@zart.workflow("counter")
def counter(n: int) -> zart.Flow[int]:
    if n == 3:
        return n
    more = yield from zart.wait_for_event("more", int)
    yield from counter.continue_as_new(n + more)


@zart.workflow("child")
def child(n: int) -> zart.Flow[int]:
    yield from zart.sleep("nap", n)
    return (yield from item(n))


@zart.workflow("parent")
def parent() -> zart.Flow[list[int]]:
    first, second = yield from zart.gather(zart.child(child, 1), zart.child(child, 2))
    return [first, second]


@zart.workflow("failing", on_failure=lambda input, error: branch(1))
def failing() -> zart.Flow[int]:
    yield from one()
    raise KeyError("broken")


@zart.workflow("fixed")
def fixed() -> zart.Flow[str]:
    at = yield from zart.now("now")
    number = yield from zart.version("change", 2)
    yield from one()
    return f"{at} {number}"


@zart.workflow("paying")
def paying() -> zart.Flow[int]:
    try:
        return (yield from pay())
    except zart.StepLost:
        return -1


@zart.workflow("looping")
def looping() -> zart.Flow[list[Any]]:
    first = yield from zart.wait_for_event("go")
    second = yield from zart.wait_for_event("go")
    yield from one()
    return [first, second]


GO = [("20s", "go", 5)]


def kinds(report: CrashReport) -> Counter[str]:
    """How many points of each kind the crash-free run passed."""
    return Counter(point.moment for point in report.runs[0].passed)


def rules(report: CrashReport) -> set[str]:
    return {violation.rule for violation in report.violations}


# ---------------------------------------------------------------- exploring


def test_every_point_is_died_at_once():
    """One crash-free run, and one for each point: around each append and each delivery, and after each effect."""
    report = explore_crashes(plain, events=GO)

    assert kinds(report) == {"before": 8, "after": 8, "effect": 2, "unsent": 1, "sent": 1}
    assert len(report.runs) == 1 + 20
    assert [played.schedule for played in report.runs[1:]] == [(point,) for point in report.runs[0].passed]
    assert [len(played.deaths) for played in report.runs] == [0] + [1] * 20
    assert report.outcomes == {"completed: 8"}
    assert (report.violations, report.notes) == ((), ())
    report.check()


def test_the_ledger():
    """Steps whose effect may happen twice are listed, with how often each ran in a run."""
    report = explore_crashes(plain, events=GO)

    assert report.repeated == {"one", "two"}
    assert report.executions_of(one) == (1, 2)
    assert report.executions_of("two") == (1, 2)
    assert report.executions_of("three") == report.executions_of(item) == (0, 0)
    repeats = [played for played in report.runs if played.counts["one"] == 2]
    assert [played.deaths[0].what for played in repeats] == [
        "the outcome of step 'one'",
        "the turn Resolved Issued",
    ]


def test_a_template_stands_for_all_its_names():
    """A step function with a template is counted by name."""
    report = explore_crashes(fan_out)

    assert report.repeated == {f"{word}-{n}" for word in ("item", "again") for n in range(3)}
    assert report.executions_of(item) == (1, 2)


def test_depth_two_dies_again_while_recovering():
    """Each recovery is crashed at every point of its own: all pairs."""
    single = explore_crashes(one_step)
    report = explore_crashes(one_step, depth=2)

    assert [len(played.passed) for played in single.runs] == [7, 7, 5, 5, 5, 5, 5, 0]
    assert len(report.runs) == 1 + 7 + (7 + 5 + 5 + 5 + 5 + 5 + 0)
    assert Counter(len(played.deaths) for played in report.runs) == {0: 1, 1: 7, 2: 32}
    assert [played.schedule for played in report.runs[1:3]] == [
        (Point("before", 0),),
        (Point("before", 0), Point("before", 0)),
    ]
    assert report.executions_of(one) == (1, 3)
    assert report.depth == 2
    report.check()


SHAPES = {
    "fan-out": (fan_out, (), ()),
    "saga": (saga, (), ()),
    "race-event": (racing, (), [("3s", "go", 4), ("4s", "go", 5)]),
    "race-sleep": (racing, (), [("6s", "go", 4)]),
    "two-at-once": (racing, (), [("3s", "go", 4), ("3s", "go", 5)]),
    "cancelled": (cancelled, (), [Cancel("10m", "too late")]),
    "terminated": (cancelled, (), [Terminate("10m", "enough")]),
    "deadline": (cancelled, (), ()),
    "continued": (counter, (0,), [(1, "more", 1)] * 3 + [("5s", "more", 1)]),
    "children": (parent, (), ()),
    "on-failure": (failing, (), ()),
    "fixed": (fixed, (), ()),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_hold(shape):
    """Branches, races, compensation, endings of all kinds: no crash shows."""
    workflow, input, events = SHAPES[shape]

    report = explore_crashes(workflow, *input, events=events)

    report.check()
    assert len(report.outcomes) == 1
    assert len(report.runs) > 7


@pytest.mark.parametrize("shape", ["saga", "race-event", "cancelled", "continued", "on-failure", "fixed"])
def test_shapes_hold_for_all_pairs(shape):
    """The same, with a second crash anywhere in the recovery from the first."""
    workflow, input, events = SHAPES[shape]

    report = explore_crashes(workflow, *input, events=events, depth=2)

    report.check()
    assert len(report.outcomes) == 1
    assert len(report.runs) > 35


def test_at_most_once():
    """A step that may run at most once never runs twice; what is lost instead is counted, and is no violation."""
    report = explore_crashes(paying, depth=2)

    report.check()
    assert report.outcomes == {"completed: 1", "completed: -1"}
    assert report.executions_of(pay) == (0, 1)
    assert report.repeated == frozenset()
    (note,) = report.notes
    assert note.endswith("ended otherwise than without a crash: a step was lost with its worker (R5, R10)")


def test_a_killer_is_lost():
    """A step that was running at three crashes is lost, and that is no violation (R5)."""
    report = explore_crashes(one_step, points=[[Point("effect", 0)] * 3])

    report.check()
    assert [played.outcome for played in report.runs] == [
        "completed: 1",
        "failed: zart_core.errors.StepLost: step 'one' brought down its worker 3 times",
    ]


def test_time_goes_on():
    """A repeated step takes its time again; when that changes the outcome it is noted, not reported."""

    @zart.step("slow", timeout="5s")
    async def slow() -> int:
        await asyncio.sleep(3)
        return 1

    @zart.workflow("slowly")
    def slowly() -> zart.Flow[int]:
        return (yield from slow())

    report = explore_crashes(slowly)

    report.check()
    assert {outcome.split(":")[0] for outcome in report.outcomes} == {"completed", "failed"}
    assert report.notes == (
        "2 runs ended otherwise than without a crash: a step that was repeated took its time again",
    )


@zart.step("deal")
async def deal() -> int:
    await asyncio.sleep(3)
    return next(zart.resource("deck"))


@zart.step("stamp")
async def stamp() -> float:
    began = zart.context().now
    await asyncio.sleep(3)
    return began


@zart.workflow("drawn")
def drawn() -> zart.Flow[int]:
    """What it gives has nothing to do with how long it took."""
    card = yield from deal()
    yield from zart.sleep("look", "1h")
    won, _ = yield from zart.race(zart.wait_for_event("fold"), zart.sleep("think", "1m"))
    return card + won


@zart.workflow("drawn-in-time", timeout="2h")
def drawn_in_time() -> zart.Flow[int]:
    """So has this, whatever limits it keeps within."""
    try:
        return (yield from zart.gather(deal(), stamp()))[0]
    finally:
        yield from stamp().named("last")


@zart.workflow("stamped")
def stamped() -> zart.Flow[float]:
    return (yield from stamp())


@zart.workflow("noticed")
def noticed() -> zart.Flow[str]:
    yield from stamp()
    return str((yield from zart.now("noticed")))


@zart.workflow("overtaken")
def overtaken() -> zart.Flow[str]:
    tasks = [stamp(), zart.sleep("nap", "4s"), zart.wait_for_event("go")]
    first, _ = yield from zart.wait_any(tasks)
    return ("stamped", "slept", "went")[first]


@zart.workflow("heard")
def heard() -> zart.Flow[str]:
    order: list[str] = []

    def listening() -> zart.Flow[None]:
        yield from zart.wait_for_event("go")
        order.append("went")

    def stamping() -> zart.Flow[None]:
        yield from stamp()
        order.append("stamped")

    yield from zart.gather(stamping(), listening())
    return ", ".join(order)


@zart.workflow("stamps")
def stamps() -> zart.Flow[None]:
    for n in range(3):
        yield from stamp().named(f"stamp-{n}")


@pytest.mark.parametrize("workflow", [drawn, drawn_in_time], ids=["drawn", "in-time"])
@pytest.mark.parametrize("depth", [1, 2])
def test_time_excuses_nothing_that_does_not_hang_on_it(workflow, depth):
    """A step that gives something else when it is repeated is reported, though it takes its time again (I10)."""
    report = explore_crashes(workflow, resources=lambda: {"deck": itertools.count()}, depth=depth)

    assert "completed: 0" in report.runs[0].outcome or "completed: 1" in report.runs[0].outcome
    assert {violation.rule for violation in report.violations} == {"I10"}
    assert (
        len(report.violations) == sum(played.outcome != report.runs[0].outcome for played in report.runs) > 0
    )
    assert report.notes == ()


@pytest.mark.parametrize(
    ("workflow", "events"),
    [
        (stamped, ()),
        (noticed, ()),
        (overtaken, ()),
        (overtaken, [("3.5s", "go", None)]),
    ],
    ids=["stamped", "noticed", "slept", "went"],
)
def test_what_hangs_on_time_is_excused_by_it(workflow, events):
    """It ends otherwise without a crash, too, when the step takes so much longer."""
    report = explore_crashes(workflow, events=events, depth=2)

    report.check()
    assert len(report.outcomes) > 1
    (note,) = report.notes
    assert note.endswith("ended otherwise than without a crash: a step that was repeated took its time again")


@pytest.mark.parametrize(
    ("workflow", "message", "outcome"),
    [
        (heard, (2, "go", None), 'completed: "went, stamped"'),
        (stamps, Cancel(2), "cancelled: zart_core.errors.Cancelled: "),
    ],
    ids=["event", "cancel"],
)
def test_what_comes_while_a_step_runs_is_heard_when_it_is_over(workflow, message, outcome):
    """Whether the step runs to its end or dies and is tried again; time is no excuse."""
    report = explore_crashes(workflow, events=[message], depth=2)

    report.check()
    assert (report.outcomes, report.notes) == ({outcome}, ())
    assert report.executions_of("stamp-1") == (0, 0)


def test_an_event_is_sent_again_with_its_key():
    """An event whose acknowledgement was lost is sent again, and counts once; the order stays."""
    report = explore_crashes(
        looping, events=[(1, "go", "a"), (1, "go", "b", "mine"), (2, "go", "c")], depth=2
    )

    report.check()
    assert report.outcomes == {'completed: ["a","b"]'}
    assert kinds(report) == {"before": 7, "after": 7, "effect": 1, "unsent": 2, "sent": 2}
    assert {tuple(post.key for post in played.sent[:2]) for played in report.runs} == {("event-0", "mine")}


@pytest.mark.parametrize(
    ("nap_s", "events"),
    [
        (0, [(1, "go", 1), (1, "go", 2), Cancel(1)]),
        (0, [(0, "go", 1), (1, "go", 2), (1, "go", 3), Cancel(1)]),
        (2, [(0, "go", 1), (1, "go", 2), Cancel(2)]),
        (1, [(0, "go", 1), (0, "go", 2), Terminate(1)]),
    ],
)
def test_what_comes_at_one_instant_stays_in_its_place(nap_s, events):
    """Events, requests and a timer of one instant: who comes first does not depend on who died meanwhile."""

    @zart.workflow("napping")
    def napping() -> zart.Flow[list[Any]]:
        yield from zart.sleep("nap", nap_s)
        first = yield from zart.wait_for_event("go")
        yield from one()
        return [first, (yield from zart.wait_for_event("go"))]

    report = explore_crashes(napping, events=events, depth=2)

    report.check()
    assert len(report.outcomes) == 1


# ---------------------------------------------------------------- choosing points


def test_kinds_of_points_may_be_chosen():
    """points= limits the kinds."""
    report = explore_crashes(plain, events=GO, points={"effect", "sent"})

    assert [played.schedule for played in report.runs] == [
        (),
        (Point("effect", 0),),
        (Point("effect", 1),),
        (Point("sent", 0),),
    ]
    assert {"before", "torn", "after", "effect", "unsent", "sent"} == ALL_POINTS


def test_a_schedule_repeats_a_run():
    """points= takes the very points of a violation, one run for each schedule."""
    report = explore_crashes(
        plain, events=GO, points=[Point("after", 2), (Point("effect", 0), Point("before", 0))]
    )

    assert [[death.point for death in played.deaths] for played in report.runs] == [
        [],
        [Point("after", 2)],
        [Point("effect", 0), Point("before", 0)],
    ]


def test_a_point_that_never_comes():
    """A schedule under which nothing dies does not pass; one that goes on otherwise after a crash is noted."""
    report = explore_crashes(one_step, points=[Point("after", 99)])

    assert [(violation.rule, violation.what) for violation in report.violations] == [
        (
            "points",
            "Point(moment='after', n=99) was never reached, so nothing died: the run passes 'after' 0 to 2; "
            "give points that it has",
        )
    ]
    later = explore_crashes(one_step, points=[(Point("after", 0), Point("after", 99))])
    assert later.violations == ()
    assert later.notes == (
        "1 of the points were never reached, the first being (Point(moment='after', n=0), Point(moment='after', n=99))",
    )


@pytest.mark.parametrize("points", [{"affter"}, [Point("after", 0), "before"], [["after"]], [("before", 1)]])
def test_what_is_no_point_is_refused(points):
    """The error names the kinds."""
    with pytest.raises(
        zart.InvalidUse, match="points= holds some of after, before, effect, sent, torn, unsent"
    ):
        explore_crashes(one_step, points=points)


def test_no_exception_handler_sees_a_crash():
    """A crash is no Exception: no `except Exception` of workflow, step or host catches it."""
    assert not issubclass(SimulatedCrash, Exception)


# ---------------------------------------------------------------- what is wrong without a crash


def test_what_is_wrong_without_a_crash_is_raised():
    """A stuck or a parked run is no ground for an exploration."""

    @zart.workflow("twice")
    def twice() -> zart.Flow[None]:
        yield from one()
        yield from one()

    with pytest.raises(zart.Stuck, match="event 'go'"):
        explore_crashes(plain)
    with pytest.raises(zart.DuplicateName):
        explore_crashes(twice)


def test_a_run_may_fail():
    """Failing is an outcome like another; it has to be the same."""
    report = explore_crashes(one_step, steps={one: ValueError("no")})

    report.check()
    assert report.outcomes == {"failed: ValueError: no"}


def test_what_differs_by_itself_is_not_compared():
    """Where two runs without a crash end differently, outcomes cannot be compared; all else is."""

    @zart.workflow("counted")
    def counted() -> zart.Flow[int]:
        number = yield from one()
        yield from one().named("again")
        return number

    report = explore_crashes(counted, steps={one: lambda numbers=itertools.count(): next(numbers)})

    report.check()
    assert report.notes == (
        "it ends differently each time, without any crash; outcomes are not compared (I10)",
    )


@pytest.mark.parametrize("draw", [zart.random, lambda name: zart.capture(name, random.random, float)])
def test_what_is_drawn_is_the_same_in_every_run(draw: Callable[[str], zart.Command[float]]):
    """Also where a crash leaves nothing of it on record: who decides by chance decides the same, and is compared."""

    @zart.workflow("by-chance")
    def by_chance() -> zart.Flow[list[bool]]:
        drawn: list[bool] = []
        for n in range(3):
            drawn.append((yield from draw(f"lot-{n}")) < 0.5)
            yield from one().named(f"one-{n}")
        return drawn

    reports = [explore_crashes(by_chance, id=f"by-chance-{n}") for n in range(8)]

    assert [(report.violations, report.notes, len(report.outcomes)) for report in reports] == [
        ((), (), 1)
    ] * 8
    assert len({tuple(report.outcomes) for report in reports}) > 1


def test_jitter_is_the_same_in_every_run():
    """Else what comes of a race against a retry would hang on the run."""

    @zart.step("flaky", retry=zart.Retry.fixed(1, "1s", jitter=0.5))
    def flaky() -> str:
        if zart.context().attempt == 0:
            raise ConnectionError("not yet")
        return "answered"

    @zart.workflow("hasty")
    def hasty() -> zart.Flow[int]:
        first, _ = yield from zart.race(flaky(), zart.sleep("patience", "0.75s"))
        return first

    reports = [explore_crashes(hasty, id=f"hasty-{n}", points={"after"}) for n in range(6, 14)]

    assert [(report.violations, report.notes, len(report.outcomes)) for report in reports] == [
        ((), (), 1)
    ] * 8
    assert len({tuple(report.outcomes) for report in reports}) > 1


def test_an_identifier_is_the_same_in_every_run():
    """Each name has its own."""

    @zart.workflow("numbered")
    def numbered() -> zart.Flow[list[uuid.UUID]]:
        first = yield from zart.uuid("first")
        yield from one()
        return [first, (yield from zart.uuid("second"))]

    report = explore_crashes(numbered)

    report.check()
    assert (len(report.outcomes), report.notes) == (1, ())
    assert len(set(report.runs[0].value)) == 2


def test_fresh_fakes_for_each_run():
    """Fakes that keep state are made anew for each run by a function, resources too."""
    report = explore_crashes(
        one_step,
        steps=lambda: {one: lambda calls=itertools.count(): zart.resource("seen").append(next(calls)) or 7},
        resources=lambda: {"seen": []},
    )

    report.check()
    assert report.outcomes == {"completed: 7"}


# ---------------------------------------------------------------- other stores


def test_a_database_file(tmp_path):
    """The same exploration on a SQLite file that each crash closes, and the next life opens again."""
    names = itertools.count()

    def store() -> Reopened:
        url = f"sqlite:{tmp_path}/{next(names)}.db"
        return Reopened(lambda: sqlite.open(url, durability="process"))

    report = explore_crashes(one_step, store=store)

    report.check()
    assert len(report.runs) == len(explore_crashes(one_step).runs)


class PowerLoss:
    """A file log on a disk that loses power in each crash: it finds one of the states that may be left."""

    def __init__(self, number: int) -> None:
        self.fs = SimulatedFileSystem()
        self.number = number

    def open(self) -> EventLog:
        return file_log("file:/log", fs=self.fs)

    def crash(self, log: EventLog) -> None:
        states = list(self.fs.crash_states(16, ignore=("/log/lock",)))
        self.fs = states[self.number % len(states)]

    def close(self, log: EventLog) -> None:
        log.close()

    def tear(self, log: EventLog, batch: Sequence[Write]) -> None:
        def lose(call: Any) -> None:
            if call.kind == "sync":
                raise SimulatedCrash("power is lost before the sync")

        self.fs.on_call = lose
        with contextlib.suppress(SimulatedCrash):
            log.append(batch)


def test_power_is_lost_at_every_append():
    """The file log, its appends torn and its disk losing power at every point of a run, in 16 ways."""
    numbers = itertools.count()

    for _ in range(2):
        report = explore_crashes(plain, events=GO, store=lambda: PowerLoss(next(numbers)))

        report.check()
        assert report.outcomes == {"completed: 8"}
        assert len(report.runs) == 1 + 20 + 8


class Torn:
    """A place that may die in the middle of an append: each turn is written up to its first record only."""

    def __init__(self, records: int) -> None:
        self.log = memory.open("memory:")
        self.records = records

    def open(self) -> EventLog:
        return self.log

    def crash(self, log: EventLog) -> None: ...

    def close(self, log: EventLog) -> None:
        log.close()

    def tear(self, log: EventLog, batch: Sequence[Write]) -> None:
        log.append(
            [
                attrs.evolve(write, records=write.records[: self.records])
                if isinstance(write, Turn)
                else write
                for write in batch
                if self.records
            ]
        )


def test_torn_appends_are_explored():
    """Where a place can tear an append, each is torn; a store that leaves nothing of it is right."""
    report = explore_crashes(plain, events=GO, store=lambda: Torn(0))

    report.check()
    assert kinds(report) == {"before": 8, "torn": 8, "after": 8, "effect": 2, "unsent": 1, "sent": 1}


def test_a_torn_turn_is_caught():
    """A store that leaves half a turn behind (L1) parks executions, or shows them as ended without an end."""
    report = explore_crashes(plain, events=GO, store=lambda: Torn(1), points={"torn"})

    assert rules(report) == {"I7", "I10", "I16"}
    assert [violation.schedule for violation in report.violations if violation.rule == "I10"] == [
        (Point("torn", n),) for n in (2, 4, 5, 7)
    ]
    assert {outcome.split(":")[0] for outcome in report.outcomes} == {"completed", "parked", "broken"}


# ---------------------------------------------------------------- known-bad: each rule has something that breaks it


class Lazy(Relay):
    """Acknowledges an append before it is written; it is written with the next call."""

    def __init__(self, log: EventLog) -> None:
        super().__init__(log)
        self.held: list[Write] = []

    def reach(self, method: str) -> None:
        held, self.held = self.held, []
        if held:
            self.log.append(held)

    def append(self, batch: Sequence[Write]) -> list[Appended]:
        self.reach("append")
        if all(isinstance(write, Turn) for write in batch):
            self.held = list(batch)
            return [Ok(Receipt()) for _ in batch]
        return self.log.append(batch)


class Forgetful(Relay):
    """Loses what was acknowledged last when it is told to: it replays all other batches into a new log."""

    def __init__(self) -> None:
        super().__init__(memory.open("memory:"))
        self.batches: list[Sequence[Write]] = []

    def append(self, batch: Sequence[Write]) -> list[Appended]:
        self.batches.append(batch)
        return self.log.append(batch)

    def forget(self) -> None:
        self.batches = self.batches[:-1]
        self.log = memory.open("memory:")
        for batch in self.batches:
            self.log.append([self.fenced(write) for write in batch])
            self.log.release("replay")

    def fenced(self, write: Write) -> Write:
        if not isinstance(write, Turn | Mark):
            return write
        summary = self.log.acquire("replay", write.id, lease_s=60.0)
        assert summary is not None
        return attrs.evolve(write, fence=summary.fence)


class ForgetfulPlace:
    """Where a forgetful log is kept."""

    def __init__(self) -> None:
        self.log = Forgetful()

    def open(self) -> EventLog:
        return self.log

    def crash(self, log: EventLog) -> None:
        self.log.forget()

    def close(self, log: EventLog) -> None:
        self.log.close()


class Altering(Relay):
    """Changes what is written, by a function of the turn."""

    def __init__(self, log: EventLog, alter: Callable[[Turn], Turn]) -> None:
        super().__init__(log)
        self.alter = alter

    def append(self, batch: Sequence[Write]) -> list[Appended]:
        return self.log.append([self.alter(write) if isinstance(write, Turn) else write for write in batch])


def altering(alter: Callable[[Turn], Turn]) -> Callable[[], EventLog]:
    return lambda: Altering(memory.open("memory:"), alter)


def doubled(kind: str) -> Callable[[Turn], Turn]:
    """Writes the records of a kind twice in the turn that ends a run, where the host no longer looks."""

    def alter(turn: Turn) -> Turn:
        if not turn.status.closed:
            return turn
        records = [again for record in turn.records for again in [record] * (2 if record.kind == kind else 1)]
        return attrs.evolve(turn, records=records)

    return alter


def backwards(turn: Turn) -> Turn:
    """Writes the end of a run with a time before all others."""
    if not turn.status.closed:
        return turn
    *others, last = turn.records
    return attrs.evolve(turn, records=[*others, Record(last.kind, 0.0, last.data)])


class Twice(Inline):
    """A host that runs each attempt twice."""

    def call(self, run: Any, call: StepCall) -> None:
        self.runner.run(call, Scene(lambda: call.context, {}))
        super().call(run, call)


class Idle(Inline):
    """A host that makes outcomes up."""

    def call(self, run: Any, call: StepCall) -> None:
        run.returned(call, 1, self.clock.now())


class Losing(Inline):
    """A host that gives steps up for lost without a crash."""

    def call(self, run: Any, call: StepCall) -> None:
        lost = zart.Failure("lost", "one", "just so")
        run.running.pop(call.seq, None)
        run.outcomes = [*run.outcomes, zart.Resolved(call.seq, zart.Failed(lost), self.clock.now())]


class Stubborn(Inline):
    """A host that starts everything again after a crash, also what may run at most once."""

    def work(self) -> bool:
        claims = self.log.claim(self.worker, now=self.clock.now(), lease_s=30.0, limit=10)
        runs = [self.take_up(summary) for summary in claims]
        for run in runs:
            run.ready = [*run.ready, *run.suspects]
            run.suspects.clear()
            self.advance(run)
        return bool(runs)


class Fast(VirtualClock):
    """A clock that is a minute fast."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(0.0)
        self.clock = clock

    def now(self) -> float:
        return self.clock.now() + 60.0

    def sleep(self, duration_s: float) -> None:
        self.clock.sleep(duration_s)


def hasty(log: EventLog, registry: zart.Registry, **outside: Any) -> Inline:
    """A host that goes on before its append is durable."""
    return Inline(Lazy(log), registry, **outside)


def fast(log: EventLog, registry: zart.Registry, *, clock: Any, **outside: Any) -> Inline:
    """A host whose clock is fast."""
    return Inline(log, registry, clock=Fast(clock), **outside)


class Swallowing(Relay):
    """Acknowledges a delivery that it does not keep."""

    def append(self, batch: Sequence[Write]) -> list[Appended]:
        if isinstance(batch[0], Post) and batch[0].key == "swallow":
            return [Ok(Receipt())]
        return self.log.append(batch)


class Shuffling(Relay):
    """Gives messages in the wrong order."""

    def inbox(self, id: str, after: int = 0) -> list[Message]:
        messages = self.log.inbox(id, after)
        numbers = [message.number for message in messages]
        return [attrs.evolve(m, number=n) for m, n in zip(reversed(messages), numbers, strict=True)]


def kept(turn: Turn) -> Turn:
    """Leaves messages in the inbox that were used."""
    return attrs.evolve(turn, consumes=())


def test_known_bad_forgets_an_acknowledged_turn():
    """I1: a store that acknowledges before it has written loses turns in a crash."""
    report = explore_crashes(one_step, store=ForgetfulPlace)

    assert "I1" in rules(report)
    assert {violation.schedule[0].moment for violation in report.violations} == {"before", "effect"}
    with pytest.raises(AssertionError, match="acknowledged records of 'one-step'"):
        report.check()


def test_known_bad_goes_back_in_time():
    """I2: times never decrease."""
    report = explore_crashes(one_step, store=altering(backwards))

    assert "I2" in rules(report)
    assert report.violations[0].what.startswith("'one-step': time goes back at event 4")


def test_known_bad_goes_on_after_the_end():
    """I7, I11: nothing follows a terminal event, and there is one."""
    report = explore_crashes(one_step, store=altering(doubled("Closed")))

    assert {"I7", "I11"} <= rules(report)


def test_known_bad_depends_on_the_number_of_calls():
    """I10: a step that gives something else when it runs again is in the ledger, and the outcome shows it."""
    report = explore_crashes(one_step, steps=lambda: {one: lambda calls=itertools.count(): next(calls)})

    assert rules(report) == {"I10"}
    assert report.outcomes == {"completed: 0", "completed: 1"}
    assert report.repeated == {"one"}
    assert report.executions_of(one) == (1, 2)
    assert [violation.schedule for violation in report.violations] == [
        (Point("effect", 0),),
        (Point("before", 2),),
    ]


def test_known_bad_resolves_twice():
    """I11: a command has one outcome."""
    report = explore_crashes(one_step, store=altering(doubled("Resolved")))

    assert "I11" in rules(report)
    assert any("'one' has 2 outcomes" in violation.what for violation in report.violations)


def test_known_bad_runs_twice():
    """I12: an attempt runs once when nothing crashes."""
    report = explore_crashes(one_step, host=Twice)

    assert "I12" in rules(report)
    assert report.violations[0].schedule == ()
    assert (
        report.violations[0].what
        == "'one-step': attempt 0 of 'one' ran twice, and nothing crashed in between"
    )


def test_known_bad_makes_outcomes_up():
    """I12: an outcome on record was earned by a call."""
    report = explore_crashes(one_step, host=Idle)

    assert rules(report) == {"I12"}
    assert report.violations[0].what == "'one-step': attempt 0 of 'one' has an outcome and never ran"


def test_known_bad_runs_ahead():
    """I13: a host that starts a step before its append is durable is caught without any crash."""
    report = explore_crashes(one_step, host=hasty)

    assert "I13" in rules(report)
    assert report.violations[0].rule == "I13"
    assert report.violations[0].schedule == ()
    assert "before it was on record" in report.violations[0].what


def test_known_bad_is_early():
    """I14: a host whose clock is fast writes down what has not happened yet."""
    report = explore_crashes(plain, events=GO, host=fast)

    assert rules(report) == {"I14"}
    assert "60.0 s before its time" in report.violations[0].what


def test_known_bad_delivers_twice():
    """I15: a message that stays in the inbox is delivered again after a crash."""
    report = explore_crashes(looping, events=[(1, "go", 1), (2, "go", 2)], store=altering(kept))

    assert {"I10", "I15"} <= rules(report)
    assert any("was delivered 2 times" in violation.what for violation in report.violations)


def test_known_bad_loses_an_event():
    """I15: an event that was acknowledged is delivered or still there."""
    report = explore_crashes(
        looping,
        events=[(1, "go", 1), (2, "go", 0, "swallow"), (3, "go", 2)],
        store=lambda: Swallowing(memory.open("memory:")),
    )

    assert rules(report) == {"I15"}
    assert report.violations[0].what == "event 'go' with key 'swallow' was acknowledged and is lost"


def test_known_bad_shuffles():
    """I15: events come in the order in which they were sent."""

    @zart.workflow("later")
    def later() -> zart.Flow[list[Any]]:
        yield from zart.sleep("nap", 10)
        first = yield from zart.wait_for_event("go")
        second = yield from zart.wait_for_event("go")
        return [first, second]

    report = explore_crashes(
        later, events=[(0, "go", 1), (0, "go", 2)], store=lambda: Shuffling(memory.open("memory:"))
    )

    assert "I15" in rules(report)
    assert "were sent in the order ['event-0', 'event-1']" in report.violations[0].what


def test_known_bad_is_not_deterministic():
    """I16: code that asks for something else each time does not replay."""

    @zart.workflow("dice")
    def dice() -> zart.Flow[int]:
        yield from one()
        return (yield from item(random.getrandbits(60)).named("thrown"))

    report = explore_crashes(dice)

    assert "I16" in rules(report)
    assert "Diverged" in next(violation.what for violation in report.violations if violation.rule == "I16")


def test_known_bad_is_interrupted_twice():
    """I17: cancellation is observed once."""
    report = explore_crashes(looping, events=[Cancel(1)], store=altering(doubled("Interrupted")))

    assert "I17" in rules(report)


def test_known_bad_gives_up():
    """R5: a step is lost only when its worker died."""
    report = explore_crashes(one_step, host=Losing)

    assert "R5" in rules(report)
    assert report.violations[0].what == "'one-step': command 0 was lost, and no crash met it running"


def test_known_bad_starts_again_what_may_run_once():
    """R10: what may run at most once is not started again."""
    report = explore_crashes(paying, host=Stubborn)

    assert "R10" in rules(report)
    assert report.executions_of(pay) == (1, 2)
    assert rules(explore_crashes(one_step, host=Stubborn)) == set()


# ---------------------------------------------------------------- the report


def test_a_report_reads_as_a_table():
    """The report says what ran how often, how it ended, and how to repeat what is wrong."""
    good = explore_crashes(paying)
    bad = explore_crashes(one_step, steps=lambda: {one: lambda calls=itertools.count(): next(calls)})

    assert str(good).splitlines() == [
        "workflow 'paying': 8 runs, 7 with crashes (depth 1), 2 outcomes, 0 violations",
        "note: 3 runs ended otherwise than without a crash: a step was lost with its worker (R5, R10)",
        "",
        "step  least  most",
        "pay       0     1",
        "",
        "runs  outcome",
        "   5  completed: 1",
        "   3  completed: -1",
    ]
    assert str(bad).splitlines()[-7:] == [
        "violations",
        "  I10: the outcome is 'completed: 1', and without a crash 'completed: 0'",
        "    def test_one_step_effect_0():",
        "        explore_crashes(one_step, steps=steps, points=[Point('effect', 0)]).check()",
        "  I10: the outcome is 'completed: 1', and without a crash 'completed: 0'",
        "    def test_one_step_before_2():",
        "        explore_crashes(one_step, steps=steps, points=[Point('before', 2)]).check()",
    ]
    assert "repeated: must be idempotent" in str(bad)


PAYING_TWICE = """
import attrs, zart_core as zart

@attrs.frozen
class Order:
    id: str

class Bank:
    def __init__(self):
        self.paid = []

@zart.step("debit")
def debit(order: str) -> int:
    bank = zart.resource("bank")
    bank.paid.append(order)
    return len(bank.paid)

@zart.workflow("payout")
def payout(order: Order) -> zart.Flow[int]:
    yield from zart.wait_for_event("go", Order)
    return (yield from debit(order.id))

def resources():
    return {"bank": Bank()}
"""


class Size(enum.Enum):
    LARGE = "large"


@attrs.frozen
class Item:
    sku: str
    size: Size
    price: Decimal


@attrs.frozen
class Cart:
    items: list[Item]
    at: datetime.datetime


@zart.workflow("pack")
def pack(cart: Cart) -> zart.Flow[Size]:
    item = yield from zart.wait_for_event("go", Item)
    return item.size


@zart.workflow("pack-all")
def pack_all() -> zart.Flow[list[Item]]:
    return (yield from zart.wait_for_event("go", list[Item]))


def test_the_code_of_a_violation_repeats_it(tmp_path, monkeypatch):
    """What a violation prints is a test: it fails as it stands, and passes once the step is mended."""
    (tmp_path / "payouts.py").write_text(PAYING_TWICE)
    monkeypatch.syspath_prepend(tmp_path)
    payouts = importlib.import_module("payouts")
    order = payouts.Order("42")
    events = [("10s", "go", order), Cancel("1h")]

    bad = explore_crashes(
        payouts.payout, order, events=events, resources=payouts.resources, start=7.0, id="p-1", depth=2
    )
    violation = next(violation for violation in bad.violations if len(violation.schedule) == 2)
    names: dict[str, Any] = {"resources": payouts.resources}
    exec(violation.code, names)

    assert (
        violation.code
        == """\
from payouts import Order, payout
from zart_core.testing import Cancel, Point, explore_crashes

def test_payout_before_0_then_effect_0():
    explore_crashes(payout, Order(id='42'), events=[('10s', 'go', Order(id='42')), Cancel(after='1h', reason='')], \
resources=resources, start=7.0, id='p-1', points=[(Point('before', 0), Point('effect', 0))]).check()"""
    )
    with pytest.raises(AssertionError, match=r"1 violation\n(?s:.)*I10: the outcome is 'completed: 2'"):
        names["test_payout_before_0_then_effect_0"]()
    monkeypatch.setattr(
        payouts.Bank, "paid", property(lambda self: [], lambda self, paid: None), raising=False
    )
    names["test_payout_before_0_then_effect_0"]()


def test_the_code_of_a_violation_runs_with_values_of_any_kind():
    """Enums, amounts, instants and records in records: the text makes them again, with all that it imports."""
    cart = Cart(
        [Item("sku", Size.LARGE, Decimal("9.90"))], datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
    )
    report = explore_crashes(
        pack, cart, events=[("1h", "go", cart.items[0])], ensure=lambda run: False, points=[]
    )
    names: dict[str, Any] = {"ensure": lambda run: False}
    exec(report.violations[0].code, names)

    with pytest.raises(AssertionError, match='ensure: <lambda> does not hold: completed: "large"'):
        names["test_pack_without_a_crash"]()


class Model:
    """As those of pydantic: a codec knows them by hooks, and the repr is no source text."""

    def __init__(self, size: Size) -> None:
        self.size = size

    def __repr__(self) -> str:
        return f"Model(size={self.size!r})"


models = zart.Codec()
models.converter.register_unstructure_hook(Model, lambda model: model.size.value)
models.converter.register_structure_hook(Model, lambda data, _: Model(Size(data)))


@zart.workflow("pack-model")
def pack_model(model: Model) -> zart.Flow[Size]:
    again = yield from zart.wait_for_event("go", Model)
    return again.size


@pytest.mark.parametrize(
    ("explore", "schedule"),
    [(explore_crashes, {"points": []}), (explore_orders, {})],
    ids=["crashes", "orders"],
)
def test_what_is_no_source_text_stands_in_the_printed_test_by_name(explore: Any, schedule: dict[str, Any]):
    """The test runs once it has what only the tester can write down."""
    given = {"events": [("1h", "go", Model(Size.LARGE))], "codec": models, "ensure": lambda run: False}
    report = explore(pack_model, Model(Size.LARGE), **given, **schedule)
    code = report.violations[0].code
    names: dict[str, Any] = {**given, "input": Model(Size.LARGE)}
    exec(code, names)

    assert "(pack_model, input=input, events=events, codec=codec, ensure=ensure, " in code
    with pytest.raises(AssertionError, match='ensure: <lambda> does not hold: completed: "large"'):
        next(value for name, value in names.items() if name.startswith("test_"))()


def test_a_list_of_records_comes_as_an_event_as_an_engine_would_send_it():
    """What `send` takes, `events=` takes."""
    items = [Item("sku", Size.LARGE, Decimal("9.90"))]

    report = explore_crashes(pack_all, events=[("1h", "go", items)])
    report.check()
    assert report.outcomes == {'completed: [{"sku":"sku","size":"large","price":"9.90"}]'}


def test_a_depth_below_zero_is_refused():
    """It would check nothing."""
    with pytest.raises(zart.InvalidUse, match="depth= is the number of crashes"):
        explore_crashes(one_step, depth=-1)


async def promise_in_vain(played: Played) -> bool:
    return False


@pytest.mark.parametrize("ensure", [3, promise_in_vain], ids=["number", "coroutine"])
@pytest.mark.parametrize("explore", [explore_crashes, explore_orders])
def test_what_is_no_promise_is_refused(explore: Any, ensure: Any):
    """It would check nothing, whatever the run does."""
    with pytest.raises(zart.InvalidUse, match="ensure= is a plain function"):
        explore(one_step, ensure=ensure)


def test_what_was_given_by_name_stays_in_the_printed_test():
    """Hosts, stores and promises are no part of a text; their names are."""
    report = explore_crashes(
        one_step, host=Twice, store=lambda: memory.open("memory:"), ensure=bool, steps={one: 1}
    )

    assert report.violations[0].code.splitlines()[-2:] == [
        "def test_one_step_without_a_crash():",
        "    explore_crashes(one_step, steps=steps, store=store, host=host, ensure=ensure, points=[]).check()",
    ]


# ---------------------------------------------------------------- promises of one's own


class Mailbox:
    def __init__(self) -> None:
        self.mails: list[str] = []


@zart.step("mail")
def mail() -> None:
    zart.resource("box").mails.append("hello")


@zart.workflow("greeting")
def greeting() -> zart.Flow[None]:
    yield from mail()


def one_mail(played: Any) -> None:
    assert played.resources["box"].mails == ["hello"], "not one mail"


def test_a_promise_of_ones_own_is_checked_after_every_run():
    """`ensure` sees what a run did to the world, which its outcome does not show."""
    report = explore_crashes(greeting, resources=lambda: {"box": Mailbox()}, ensure=one_mail)

    assert explore_crashes(greeting, resources=lambda: {"box": Mailbox()}).violations == ()
    assert [(violation.rule, violation.what.split("\n")[0]) for violation in report.violations] == [
        ("ensure", "not one mail")
    ] * 2
    assert [violation.schedule for violation in report.violations] == [
        (Point("effect", 0),),
        (Point("before", 2),),
    ]


def test_a_promise_may_be_a_question():
    """False is a violation; anything else is none, as with a function that asserts."""

    def once(played: Any) -> bool:
        return len(played.resources["box"].mails) == 1

    report = explore_crashes(greeting, resources=lambda: {"box": Mailbox()}, ensure=once)

    assert {violation.what for violation in report.violations} == {"once does not hold: completed: null"}
    explore_crashes(greeting, resources=lambda: {"box": Mailbox()}, ensure=lambda played: None).check()


def test_what_a_promise_raises_says_for_which_run():
    """An error that is no assertion is one of the promise's own; it tells the crashes of the run it was asked of."""

    def once(played: Any) -> None:
        {1: "one mail"}[len(played.resources["box"].mails)]

    with pytest.raises(KeyError) as raised:
        explore_crashes(greeting, resources=lambda: {"box": Mailbox()}, ensure=once)

    assert raised.value.__notes__ == [
        "ensure= raised this for the run with these crashes: Point(moment='effect', n=0); completed: null"
    ]


def test_a_long_report_is_cut():
    """Twenty violations are shown, and how many more there are."""
    report = explore_crashes(fan_out, host=Twice)

    text = str(report)
    assert len(report.violations) > 20
    assert text.endswith(f"  and {len(report.violations) - 20} more")


def test_what_is_long_is_cut_in_a_report():
    """Inputs and results may be a MiB long; the record has the whole of it."""

    @zart.workflow("echo")
    def echo(text: str) -> zart.Flow[str]:
        yield from one()
        return text

    text = "x" * 100_000
    report = explore_crashes(echo, text, ensure=lambda played: False)

    assert len(str(report)) < 100_000
    assert "characters in all)" in str(report)
    assert repr(text) in report.violations[0].code
    assert text in report.violations[0].what
