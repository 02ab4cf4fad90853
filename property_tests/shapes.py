"""Workflows of many shapes, each with its input, what comes from outside, and how it ends: for every harness to play.

Rule 1: steps are real functions that depend on their arguments and the attempt only, so that any host can run them.
Rule 2: all spans are short, for hosts in real time; what needs time to pass exactly is marked `timed`.
"""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import zart_core as zart
from zart_core.records import record
from zart_core.testing import Cancel, Terminate
from zart_core.testing.world import Sending

LONG_S = 3600.0
"""Longer than anybody waits."""


class NoCar(Exception): ...


@record
class Shape:
    """A workflow, and all it takes to play it."""

    name: str
    workflow: zart.Workflow[Any, Any]
    outcome: str
    """How it ends without a crash, as `CrashReport.outcomes` says it."""
    input: Any = None
    events: tuple[Sending, ...] = ()
    others: tuple[zart.Workflow[Any, Any], ...] = ()
    """Children and others that it starts: to be registered where workflows are registered beforehand."""
    may_end: frozenset[str] = frozenset()
    """How it may end beside that when a host dies while a step runs (R5, R10)."""
    timed: bool = False
    """Whether its outcome hangs on what comes first: then only virtual time repeats it."""

    @property
    def outcomes(self) -> frozenset[str]:
        """All ways in which it may end."""
        return self.may_end | {self.outcome}


# ---------------------------------------------------------------- steps


@zart.step("add-{n}")
def add(n: int) -> int:
    """Gives n + 1."""
    return n + 1


@zart.step("twice-{n}")
async def twice(n: int) -> int:
    """Gives 2 n, from the event loop."""
    await asyncio.sleep(0)
    return 2 * n


@zart.step("flaky-{n}", retry=zart.Retry.exponential(3, 0.01))
def flaky(n: int) -> int:
    """Fails n times."""
    if zart.context().attempt < n:
        raise RuntimeError("not yet")
    return n


@zart.step("hopeless", retry=zart.Retry.fixed(1, 0.01))
def hopeless() -> int:
    """Fails to the end."""
    raise RuntimeError("never")


@zart.step("refuse-{n}", raises=(NoCar,))
def refuse(n: int) -> int:
    """Answers with a declared error."""
    raise NoCar(f"{n} refused")


@zart.step("hang", timeout=0.02)
async def hang() -> int:
    """Takes longer than all its attempts together may."""
    await asyncio.sleep(LONG_S)
    return 0


@zart.step(
    "late-once",
    timeout=0.2,
    timeout_scope=zart.TimeoutScope.PER_ATTEMPT,
    retry=zart.Retry.fixed(2, 0.01, on_timeout=True),
)
async def late_once() -> int:
    """Takes too long at its first attempt only."""
    await asyncio.sleep(LONG_S if zart.context().attempt == 0 else 0)
    return zart.context().attempt


@zart.step("pay-{n}", at_most_once=True)
def pay(n: int) -> int:
    """May run at most once."""
    return n


@zart.step("killer", max_crashes=1)
def killer() -> int:
    """Is given up at the first crash that meets it."""
    return 1


@zart.step("book-{what}", raises=(NoCar,))
def book(what: str) -> str:
    """Books anything but cars."""
    if what == "car":
        raise NoCar("none left")
    return what


@zart.step("undo-{what}")
def undo(what: str) -> None:
    """A compensation."""


@zart.step("same-{n}")
def same(n: int, value: uuid.UUID) -> uuid.UUID:
    """Gives back what it gets."""
    return value


@zart.step("moment")
def moment(value: datetime) -> datetime:
    """Gives back what it gets."""
    return value


# ---------------------------------------------------------------- one thing after the other


@zart.workflow("sequence")
def sequence(n: int) -> zart.Flow[int]:
    for k in range(4):
        n = yield from (add(n) if k % 2 else twice(n))
    return n


@zart.workflow("retries")
def retries() -> zart.Flow[list[Any]]:
    first = yield from flaky(2)
    try:
        return [first, (yield from hopeless())]
    except zart.RetryExhausted as error:
        return [first, error.attempts]


@zart.workflow("timeout-global")
def timeout_global() -> zart.Flow[str]:
    try:
        yield from hang()
    except zart.StepTimedOut:
        yield from undo("hang")
        return "timed out"
    return "in time"


@zart.workflow("timeout-per-attempt")
def timeout_per_attempt() -> zart.Flow[int]:
    return (yield from late_once())


@zart.workflow("at-most-once")
def at_most_once() -> zart.Flow[int]:
    try:
        paid = yield from pay(1)
    except zart.StepLost:
        yield from undo("pay")
        return -1
    return (yield from add(paid))


@zart.workflow("max-crashes")
def max_crashes() -> zart.Flow[int]:
    return (yield from zart.step_or(killer(), -1))


@zart.workflow("outcomes")
def outcomes() -> zart.Flow[list[Any]]:
    match (yield from zart.outcome(refuse(1))):
        case zart.Ok(value):
            first = str(value)
        case zart.Err(error):
            first = str(error)
    second = yield from zart.step_or(hopeless(), 2)
    third = yield from zart.step_or_else(refuse(3), lambda error: len(str(error)))
    return [first, second, third]


@zart.workflow("fixed-values")
def fixed_values() -> zart.Flow[bool]:
    began = yield from zart.now("began")
    token = yield from zart.uuid("token")
    share = yield from zart.random("share")
    answer = yield from zart.capture("answer", lambda: 42, int)
    again = yield from same(1, token)
    when = yield from moment(began)
    ended = yield from zart.now("ended")
    return again == token and when == began and 0 <= share < 1 and answer == 42 and began <= ended


@zart.workflow("versions")
def versions() -> zart.Flow[int]:
    first = yield from zart.version("change", 2)
    value = yield from add(first)
    again = yield from zart.version("change", 2)
    return value + again


# ---------------------------------------------------------------- time and events


@zart.workflow("sleeps")
def sleeps() -> zart.Flow[bool]:
    began = yield from zart.now("began")
    yield from zart.sleep("nap", 0.05)
    yield from zart.sleep_until("past", datetime(2020, 1, 1, tzinfo=UTC))
    yield from zart.sleep_until("then", began + timedelta(seconds=0.1))
    return (yield from zart.now("ended")) - began >= timedelta(seconds=0.1)


@zart.workflow("event-after")
def event_after() -> zart.Flow[list[int]]:
    first = yield from zart.wait_for_event("number", int)
    second = yield from zart.wait_for_event("number", int)
    return [first, (yield from add(second))]


@zart.workflow("event-before")
def event_before() -> zart.Flow[list[Any]]:
    yield from zart.sleep("nap", 0.1)
    first = yield from zart.wait_for_event("number", int)
    word = yield from zart.wait_for_event("word", str)
    second = yield from zart.wait_for_event("number", int, name="second")
    return [first, word, second]


@zart.workflow("keys")
def keys() -> zart.Flow[list[int]]:
    numbers: list[int] = []
    for _ in range(2):
        numbers.append((yield from zart.wait_for_event("number", int)))
    return numbers


@zart.workflow("event-timeout")
def event_timeout() -> zart.Flow[str]:
    try:
        yield from zart.wait_for_event("never", timeout=0.05)
    except zart.EventTimedOut:
        return (yield from book("a taxi"))
    return "came"


@zart.workflow("event-rejected")
def event_rejected() -> zart.Flow[int]:
    try:
        return (yield from zart.wait_for_event("number", int))
    except zart.EventRejected:
        return (yield from zart.wait_for_event("number", int))


# ---------------------------------------------------------------- side by side


@zart.workflow("fan-out")
def fan_out() -> zart.Flow[list[int]]:
    return (yield from zart.wait([add(1), twice(2), add(3)]))


@zart.workflow("fan-out-failing")
def fan_out_failing() -> zart.Flow[list[str]]:
    try:
        yield from zart.wait([add(1), refuse(2), refuse(3)])
    except zart.StepsFailed as failed:
        return [str(error) for error in failed.exceptions]
    return []


@zart.workflow("fail-fast")
def fail_fast() -> zart.Flow[str]:
    try:
        yield from zart.wait([zart.sleep("long", LONG_S), refuse(1)], fail_fast=True)
    except NoCar as error:
        return str(error)
    return "all"


@zart.workflow("settled")
def settled() -> zart.Flow[list[bool]]:
    found = yield from zart.settle([add(1), refuse(2)])
    return [isinstance(outcome, zart.Ok) for outcome in found]


@zart.workflow("gathered")
def gathered() -> zart.Flow[list[Any]]:
    number, nothing, word = yield from zart.gather(add(1), zart.sleep("nap", 0.05), book("a train"))
    return [number, nothing, word]


@zart.workflow("race-step")
def race_step() -> zart.Flow[list[Any]]:
    which, value = yield from zart.race(zart.sleep("limit", LONG_S), add(1))
    return [which, value]


@zart.workflow("race-sleep")
def race_sleep() -> zart.Flow[list[Any]]:
    which, value = yield from zart.race(zart.wait_for_event("never", int), zart.sleep("limit", 0.05))
    yield from undo("wait")
    return [which, value]


@zart.workflow("race-event")
def race_event() -> zart.Flow[list[Any]]:
    which, value = yield from zart.race(
        zart.sleep("limit", LONG_S), zart.wait_for_event("go", int), zart.wait_for_event("go", int)
    )
    return [which, value, (yield from zart.wait_for_event("go", int))]


def careful(what: str, nap_s: float) -> zart.Flow[str]:
    """Books and sleeps, and undoes it when it is cancelled meanwhile."""
    booked = yield from book(what)
    try:
        yield from zart.sleep(f"sleep on {what}", nap_s)
    except zart.Cancelled:
        yield from undo(what)
        raise
    return booked


@zart.workflow("race-flows")
def race_flows() -> zart.Flow[list[Any]]:
    which, value = yield from zart.race(careful("a room", LONG_S), careful("a bed", 0.05))
    return [which, value]


@zart.workflow("any-of")
def any_of() -> zart.Flow[list[Any]]:
    quick = yield from zart.schedule(add(1))
    slow = yield from zart.schedule(zart.sleep("nap", 0.05))
    which, outcome = yield from zart.wait_any([slow, quick])
    yield from zart.wait([slow])
    return [which, isinstance(outcome, zart.Ok)]


@zart.workflow("task-cancel")
def task_cancel() -> zart.Flow[list[bool]]:
    task = yield from zart.schedule(careful("a room", LONG_S))
    yield from zart.sleep("a while", 0.05)
    first = yield from task.cancel()
    again = yield from task.cancel()
    return [first, again]


def leaf(n: int) -> zart.Flow[int]:
    yield from zart.sleep(f"nap-{n}", 0.01 * n)
    return (yield from add(n))


def twig(n: int) -> zart.Flow[int]:
    return sum((yield from zart.gather(leaf(n), leaf(n + 1))))


@zart.workflow("nested")
def nested() -> zart.Flow[int]:
    branch = yield from zart.schedule(twig(1))
    inline = yield from twig(3)
    return inline + sum((yield from zart.wait([branch])))


@zart.workflow("scopes")
def scopes() -> zart.Flow[int]:
    first = yield from zart.scope("first", leaf(1))
    second = yield from zart.scope("second", leaf(1))
    return first + second


@zart.workflow("leftover")
def leftover() -> zart.Flow[int]:
    yield from zart.schedule(careful("a room", LONG_S))
    yield from zart.sleep("a while", 0.05)
    return 1


# ---------------------------------------------------------------- endings


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


@zart.workflow("shielded")
def shielded() -> zart.Flow[str]:
    try:
        yield from zart.shield(leaf(5))
        yield from add(9)
    except zart.Cancelled:
        yield from undo("leaf")
        raise
    return "through"


@zart.workflow("shield-kept")
def shield_kept() -> zart.Flow[int]:
    kept = -1
    try:
        kept = yield from zart.shield(leaf(5))
        yield from add(9)
    except zart.Cancelled:
        yield from undo("nothing")
    return kept


@zart.workflow("unwinding")
def unwinding() -> zart.Flow[list[int]]:
    order: list[int] = []

    def part(n: int) -> zart.Flow[None]:
        try:
            yield from zart.sleep(f"long-{n}", LONG_S)
        finally:
            order.append(n)

    try:
        yield from zart.gather(part(1), part(2), part(3))
    except zart.Cancelled:
        yield from undo("parts")
    return order


@zart.workflow("two-waits")
def two_waits() -> zart.Flow[list[int]]:
    def one(delay: float) -> zart.Flow[int]:
        yield from zart.sleep(f"delay-{delay}", delay)
        return (yield from zart.wait_for_event("number", int))

    return (yield from zart.wait([one(0.01), one(0.02)]))


@zart.workflow("patient")
def patient() -> zart.Flow[int]:
    return (yield from zart.wait_for_event("never", int))


@zart.step("slow-to-retry", retry=zart.Retry.fixed(1, 900.0))
def slow_to_retry() -> int:
    """Fails once, and is not to be asked again for a quarter of an hour."""
    if zart.context().attempt == 0:
        raise RuntimeError("not yet")
    return 1


@zart.workflow("long-retry")
def long_retry() -> zart.Flow[int]:
    return (yield from slow_to_retry())


@zart.workflow("child-cancelled")
def child_cancelled() -> zart.Flow[int]:
    return (yield from zart.child(patient))


@zart.workflow("cancelled")
def cancelled() -> zart.Flow[str]:
    try:
        yield from book("flight")
        yield from zart.sleep("long", LONG_S)
    finally:
        yield from undo("hotel")
        yield from undo("flight")
    return "never"


@zart.workflow("cancel-swallowed")
def cancel_swallowed() -> zart.Flow[int]:
    try:
        yield from zart.wait_for_event("never")
    except zart.Cancelled:
        return (yield from add(1))


@zart.workflow("terminated")
def terminated() -> zart.Flow[None]:
    try:
        yield from add(1)
        yield from zart.wait_for_event("never")
    finally:
        yield from undo("add")


@zart.workflow("deadline", timeout=0.1)
def deadline() -> zart.Flow[None]:
    try:
        yield from zart.sleep("long", LONG_S)
    finally:
        yield from undo("sleep")


@zart.workflow("failing")
def failing(n: int) -> zart.Flow[None]:
    raise KeyError((yield from add(n)))


@zart.workflow("failure-value", on_failure=lambda n, error: f"{n}: {type(error).__name__}")
def failure_value(n: int) -> zart.Flow[str]:
    yield from refuse(n)
    return "never"


@zart.workflow("failure-flow", on_failure=lambda input, error: leaf(7))
def failure_flow() -> zart.Flow[int]:
    yield from add(1)
    raise KeyError("broken")


# ---------------------------------------------------------------- other executions, other runs


@zart.workflow("kid")
def kid(n: int) -> zart.Flow[int]:
    yield from zart.sleep("nap", 0.01 * n)
    return (yield from add(n))


@zart.workflow("children")
def children() -> zart.Flow[list[int]]:
    first, second = yield from zart.gather(zart.child(kid, 1), zart.child(kid, 2))
    return [first, second]


@zart.workflow("child-failing")
def child_failing() -> zart.Flow[str]:
    try:
        yield from zart.child(failing, 3)
    except zart.ExecutionFailed:
        return (yield from book("a nanny"))
    return "fine"


@zart.workflow("spawns")
def spawns() -> zart.Flow[str]:
    id = yield from zart.spawn(kid, 2, id="kid-on-its-own")
    yield from zart.sleep("wait", 0.2)
    return id


@zart.workflow("parks", park_on=(LookupError,))
def parks() -> zart.Flow[None]:
    yield from add(1)
    raise LookupError("the code is not there yet")


@zart.workflow("park-on")
def park_on() -> zart.Flow[str]:
    yield from zart.spawn(parks, id="parked")
    yield from zart.sleep("wait", 0.05)
    return "not hindered"


@zart.workflow("continued")
def continued(state: tuple[int, list[int]]) -> zart.Flow[list[int]]:
    left, numbers = state
    numbers = [*numbers, (yield from zart.wait_for_event("number", int))]
    if left == 1:
        return numbers
    yield from continued.continue_as_new((left - 1, numbers))


def completed(value: str, may_be: str | None = None) -> dict[str, Any]:
    """How a shape ends that gives a value, as JSON; and what else it may give when a step is lost."""
    others = frozenset() if may_be is None else frozenset({f"completed: {may_be}"})
    return {"outcome": f"completed: {value}", "may_end": others}


SHAPES: tuple[Shape, ...] = (
    Shape("sequence", sequence, input=3, **completed("15")),
    Shape("retries", retries, **completed("[2,2]")),
    Shape("long-retry", long_retry, timed=True, **completed("1")),
    Shape("timeout-global", timeout_global, **completed('"timed out"')),
    Shape("timeout-per-attempt", timeout_per_attempt, **completed("1")),
    Shape("at-most-once", at_most_once, **completed("2", "-1")),
    Shape("max-crashes", max_crashes, **completed("1", "-1")),
    Shape("outcomes", outcomes, **completed('["1 refused",2,9]')),
    Shape("fixed-values", fixed_values, **completed("true")),
    Shape("versions", versions, **completed("5")),
    Shape("sleeps", sleeps, **completed("true")),
    Shape(
        "event-after", event_after, events=((0.01, "number", 1), (0.02, "number", 2)), **completed("[1,3]")
    ),
    Shape(
        "event-before",
        event_before,
        events=((0, "number", 1), (0, "word", "a"), (0, "number", 2)),
        **completed('[1,"a",2]'),
    ),
    Shape(
        "keys",
        keys,
        events=((0.01, "number", 1, "k"), (0.02, "number", 9, "k"), (0.03, "number", 2, "l")),
        **completed("[1,2]"),
    ),
    Shape("event-timeout", event_timeout, **completed('"a taxi"')),
    Shape(
        "event-rejected",
        event_rejected,
        events=((0.01, "number", "none"), (0.02, "number", 2)),
        **completed("2"),
    ),
    Shape("fan-out", fan_out, **completed("[2,4,4]")),
    Shape("fan-out-failing", fan_out_failing, **completed('["2 refused","3 refused"]')),
    Shape("fail-fast", fail_fast, **completed('"1 refused"')),
    Shape("settled", settled, **completed("[true,false]")),
    Shape("gathered", gathered, **completed('[2,null,"a train"]')),
    Shape("race-step", race_step, **completed("[1,2]")),
    Shape("race-sleep", race_sleep, **completed("[1,null]")),
    Shape(
        "race-event",
        race_event,
        events=((0.02, "go", 4), (0.02, "go", 5)),
        **completed("[1,4,5]"),
    ),
    Shape("race-flows", race_flows, timed=True, **completed('[1,"a bed"]')),
    Shape("any-of", any_of, timed=True, **completed("[1,true]")),
    Shape("task-cancel", task_cancel, **completed("[true,false]")),
    Shape("nested", nested, **completed("14")),
    Shape("scopes", scopes, **completed("4")),
    Shape("leftover", leftover, **completed("1")),
    Shape("saga", saga, **completed('"none left"')),
    Shape(
        "shielded",
        shielded,
        outcome="cancelled: zart_core.errors.Cancelled: too late",
        events=(Cancel(0.01, "too late"),),
        timed=True,
    ),
    Shape("shield-kept", shield_kept, events=(Cancel(0.01),), timed=True, **completed("6")),
    Shape("unwinding", unwinding, events=(Cancel(0.05),), **completed("[3,2,1]")),
    Shape("two-waits", two_waits, events=((0.1, "number", 1), (0.2, "number", 2)), **completed("[1,2]")),
    Shape(
        "child-cancelled",
        child_cancelled,
        outcome="cancelled: zart_core.errors.Cancelled: too late",
        events=(Cancel(0.05, "too late"),),
        others=(patient,),
    ),
    Shape(
        "cancelled",
        cancelled,
        outcome="cancelled: zart_core.errors.Cancelled: too late",
        events=(Cancel(0.05, "too late"),),
    ),
    Shape("cancel-swallowed", cancel_swallowed, events=(Cancel(0.05),), **completed("2")),
    Shape(
        "terminated",
        terminated,
        outcome="terminated: terminated: enough",
        events=(Terminate(0.05, "enough"),),
    ),
    Shape(
        "deadline", deadline, outcome="timed_out: zart_core.errors.DeadlineExceeded: its deadline has passed"
    ),
    Shape("failing", failing, input=1, outcome="failed: KeyError: 2"),
    Shape("failure-value", failure_value, input=1, **completed('"1: NoCar"')),
    Shape("failure-flow", failure_flow, **completed("8")),
    Shape("children", children, others=(kid,), **completed("[2,3]")),
    Shape("child-failing", child_failing, others=(failing,), **completed('"a nanny"')),
    Shape("spawns", spawns, others=(kid,), timed=True, **completed('"kid-on-its-own"')),
    Shape("park-on", park_on, others=(parks,), timed=True, **completed('"not hindered"')),
    Shape(
        "continued",
        continued,
        input=(3, []),
        events=((0, "number", 1), (0.01, "number", 2), (0.01, "number", 3)),
        **completed("[1,2,3]"),
    ),
)
"""Forty-eight, each once."""
BY_NAME = {shape.name: shape for shape in SHAPES}
