"""`zart_core.testing.run`: workflows in memory and in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import math
import random
import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

import zart_core as zart
from zart_core.hosts.inline import Stuck
from zart_core.testing import (
    Cancel,
    FaultyStore,
    Reopened,
    Terminate,
    VirtualClock,
    explore_crashes,
    explore_orders,
    run,
    simulate,
)
from zart_stores import memory


@attrs.frozen
class Order:
    id: str
    cents: int


@attrs.frozen
class Shipment:
    tracking: str


class CardDeclined(Exception): ...


@zart.step("charge-card", retry=zart.Retry.exponential(3, "2s"), raises=(CardDeclined,))
async def charge_card(order: str, cents: int) -> str:
    return f"txn-{order}"


@zart.step("reserve-{sku}")
def reserve(sku: str) -> int:
    return len(sku)


@zart.step("slow", timeout="5s")
async def slow(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


@zart.workflow("order")
def order_flow(order: Order) -> zart.Flow[str]:
    stock = yield from reserve("abc")
    try:
        txn = yield from charge_card(order.id, order.cents)
    except CardDeclined as declined:
        return f"declined: {declined}"
    yield from zart.sleep("settle", "60s")
    shipment = yield from zart.wait_for_event("shipped", Shipment, timeout="1h")
    return f"{stock} {txn} {shipment.tracking}"


@zart.workflow("waiting")
def waiting() -> zart.Flow[list[Any]]:
    first = yield from zart.wait_for_event("go")
    second = yield from zart.wait_for_event("go")
    return [first, second]


@zart.step("nap-{number}")
async def nap(number: int, seconds: float) -> int:
    await asyncio.sleep(seconds)
    return number


@zart.step("never")
async def never() -> None:
    await asyncio.Event().wait()


@zart.workflow("napping")
def napping(seconds: float) -> zart.Flow[int]:
    try:
        return (yield from nap(7, seconds))
    finally:
        yield from nap(8, 2)


@zart.workflow("one-sleep")
def one_sleep() -> zart.Flow[None]:
    yield from zart.sleep("z", "1h")


@zart.workflow("one-slow")
def one_slow(seconds: float) -> zart.Flow[float]:
    return (yield from slow(seconds))


ORDER = Order("42", 1999)


def test_a_run_tells_all():
    """A result has the value, the status, the calls by name, the virtual time and the history."""
    result = run(order_flow, ORDER, events=[("2m", "shipped", Shipment("T1"))])

    assert result.value == "3 txn-42 T1"
    assert result.status is zart.Status.COMPLETED
    assert result.error is None
    assert result.id == "order"
    assert result.calls == {"reserve-abc": 1, "charge-card": 1}
    assert result.elapsed == timedelta(minutes=2)
    assert [type(event).__name__ for event in result.history] == [
        "Started",
        *("Issued", "Began", "Resolved"),
        *("Issued", "Began", "Resolved"),
        *("Issued", "Resolved"),
        *("Issued", "Delivered", "Resolved"),
        "Closed",
    ]
    assert result.histories == {("order", 0): result.history}


@pytest.mark.parametrize(("at", "got"), [(10, [50.0, "e"]), (29, [50.0, "e"]), (31, [50.0, "EventTimedOut"])])
def test_an_event_that_comes_while_a_step_runs_is_in_time(at, got):
    """R13: what came before a deadline came first, though the host had no time to look; a wait is no step's fault."""

    @zart.step("long")
    async def long() -> float:
        await asyncio.sleep(50)
        return 50.0

    @zart.workflow("beside")
    def beside() -> zart.Flow[list[Any]]:
        ends = yield from zart.settle([long(), zart.wait_for_event("e", timeout=30)])
        return [end.value if isinstance(end, zart.Ok) else type(end.error).__name__ for end in ends]

    assert run(beside, events=[(at, "e", "e")]).value == got


def test_virtual_time_is_exact():
    """Time begins where a test says, and a sleep of a year takes none."""

    @zart.workflow("year")
    def year() -> zart.Flow[list[datetime]]:
        before = yield from zart.now("before")
        yield from zart.sleep("long", "365d")
        after = yield from zart.now("after")
        return [before, after]

    start = datetime(2030, 5, 1, 12, tzinfo=UTC)
    began = time.monotonic()
    result = run(year, start=start)

    assert result.value == [start, start + timedelta(days=365)]
    assert result.elapsed == timedelta(days=365)
    assert time.monotonic() - began < 5


class TestFakes:
    def test_a_function_is_called_with_the_arguments(self):
        """A plain function stands in for an async step, and an async one for a plain step."""

        async def fake_reserve(sku: str) -> int:
            await asyncio.sleep(2)
            return 7

        result = run(
            order_flow,
            ORDER,
            steps={charge_card: lambda order, cents: f"{order}/{cents}", reserve: fake_reserve},
            events=[("2m", "shipped", Shipment("T1"))],
        )

        assert result.value == "7 42/1999 T1"

    def test_a_value_stands_for_itself(self):
        """What is no function, exception or list is what the step gives; None too."""

        @zart.workflow("nothing")
        def nothing() -> zart.Flow[int]:
            return (yield from reserve("x"))

        assert run(nothing, steps={reserve: 0}).value == 0
        assert run(nothing, steps={reserve: reserve}).value == 1

    @pytest.mark.parametrize("declined", [CardDeclined("no"), CardDeclined])
    def test_an_exception_is_raised(self, declined: Any):
        """An exception or its class is raised at every attempt; a declared one is an answer."""
        result = run(order_flow, ORDER, steps={charge_card: declined})

        assert result.value == f"declined: {declined if isinstance(declined, CardDeclined) else ''}"
        assert result.calls == {"reserve-abc": 1, "charge-card": 1}

    def test_a_list_gives_one_outcome_for_each_attempt(self):
        """The outcomes of a list come one after the other, errors raised, and the delays are exact."""
        result = run(
            order_flow,
            ORDER,
            steps={charge_card: [ValueError("once"), OSError("twice"), lambda order, cents: "third"]},
            events=[("2m", "shipped", Shipment("T1"))],
        )

        assert result.value == "3 third T1"
        assert result.calls["charge-card"] == 3
        retried = [event for event in result.history if isinstance(event, zart.Retried)]
        assert [event.retry_at - event.at for event in retried] == [2.0, 4.0]

    def test_a_list_that_is_too_short_says_so(self):
        """The attempt for which a list has nothing fails with an error that names the step."""
        result = run(order_flow, ORDER, steps={reserve: []})

        with pytest.raises(
            zart.ExecutionFailed, match=r"0 outcomes for step 'reserve-\{sku\}', here is attempt 1"
        ):
            result.value

    def test_a_key_that_is_no_step_is_refused(self):
        """steps= is by reference: a name is no step."""
        with pytest.raises(zart.InvalidUse, match="'charge-card' is none"):
            run(order_flow, ORDER, steps={"charge-card": 1})  # type: ignore[dict-item]

    def test_a_method_is_replaced_by_its_function(self):
        """A step that is declared in a class is replaced for all its objects."""

        class Shop:
            @zart.step("price")
            def price(self, sku: str) -> int:
                raise AssertionError("not called")

        shop = Shop()

        @zart.workflow("shopping")
        def shopping() -> zart.Flow[int]:
            return (yield from shop.price("x"))

        assert run(shopping, steps={Shop.price: lambda sku: 5}).value == 5

    def test_steps_may_be_made_fresh(self):
        """A function in place of the mapping makes it."""
        result = run(order_flow, ORDER, steps=lambda: {charge_card: CardDeclined("fresh")})

        assert result.value == "declined: fresh"


class TestTime:
    def test_async_steps_sleep_in_virtual_time(self):
        """asyncio.sleep moves the clock, and takes none of the machine's time."""
        result = run(one_slow, 4.5)

        assert (result.value, result.elapsed) == (4.5, timedelta(seconds=4.5))

    def test_a_timeout_strikes_exactly(self):
        """An async step is stopped at its deadline, to the microsecond."""
        result = run(one_slow, 5.5)

        assert isinstance(result.error, zart.ExecutionFailed)
        assert isinstance(result.error.__cause__, zart.StepTimedOut)
        assert result.elapsed == timedelta(seconds=5)

    def test_an_async_step_that_was_cancelled_has_failed(self):
        """What it awaited was cancelled by somebody: an error of the step's, as in an engine."""

        async def awaits_what_is_cancelled(seconds: float) -> float:
            task = asyncio.create_task(asyncio.sleep(seconds, seconds))
            task.cancel()
            return await task

        result = run(one_slow, 1.0, steps={slow: awaits_what_is_cancelled})

        assert result.status == "failed"
        assert "the step raised CancelledError" in str(result.error)

    def test_real_work_is_not_overtaken_by_virtual_time(self):
        """While a thread works for a step, its timeout does not strike."""

        async def in_thread(seconds: float) -> float:
            await asyncio.to_thread(time.sleep, 0.02)
            return seconds

        result = run(one_slow, 1.0, steps={slow: in_thread})

        assert (result.value, result.elapsed) == (1.0, timedelta(0))

    def test_a_fake_may_move_the_clock(self):
        """A clock of the test's own goes into the run, and a plain fake lets time pass on it."""
        clock = VirtualClock(1000.0)

        result = run(one_slow, 1.0, steps={slow: lambda seconds: clock.advance(2) or seconds}, clock=clock)

        assert (result.value, result.elapsed, clock.now()) == (1.0, timedelta(seconds=2), 1002.0)

    def test_an_async_test_runs_async_steps_too(self):
        """A loop that runs already is in nobody's way: not of `run`, nor of the explorers."""

        @zart.step("nap")
        async def nap() -> float:
            await asyncio.sleep(3)
            return 3.0

        @zart.workflow("slept")
        def slept() -> zart.Flow[float]:
            return (yield from nap())

        async def a_test() -> tuple[float, float, frozenset[str], int]:
            result = run(slept)
            crashed, ordered = explore_crashes(slept), explore_orders(slept)
            crashed.check()
            ordered.check()
            return result.value, result.elapsed.total_seconds(), crashed.outcomes, ordered.orders

        assert asyncio.run(a_test()) == (3.0, 3.0, {"completed: 3.0"}, 1)

    def test_what_is_left_running_is_ended(self):
        """A task that a step leaves behind is cancelled with the run."""
        ended: list[str] = []
        left: list[asyncio.Task[None]] = []

        async def lingering() -> None:
            try:
                await asyncio.sleep(1e6)
            finally:
                ended.append("ended")

        async def leaves(seconds: float) -> float:
            left.append(asyncio.create_task(lingering()))
            await asyncio.sleep(0)
            return seconds

        assert run(one_slow, 1.0, steps={slow: leaves}).value == 1.0
        assert ended == ["ended"]


class TestBeside:
    """Async steps that wait in virtual time do so beside each other, as in an engine."""

    @pytest.mark.parametrize(
        ("targets", "expected", "elapsed"),
        [
            (lambda: zart.race(nap(1, 5), nap(2, 1)), [1, 2], 1),
            (lambda: zart.race(nap(1, 60), zart.wait_for_event("go"), zart.sleep("z", 30)), [1, "went"], 5),
            (lambda: zart.race(nap(1, 4), zart.wait_for_event("go"), zart.sleep("z", 30)), [0, 1], 4),
            (lambda: zart.race(never(), zart.sleep("z", 30)), [1, None], 30),
            (lambda: zart.gather(nap(1, 3), nap(2, 1), nap(3, 2)), [1, 2, 3], 3),
            (lambda: zart.race(zart.child(napping, 100), nap(2, 4)), [1, 2], 6),
            (lambda: zart.gather(zart.child(napping, 3), nap(2, 4)), [7, 2], 5),
        ],
    )
    def test_what_waits_takes_as_long_as_the_longest(self, targets, expected, elapsed):
        """Who is first in a race is who sleeps less; losers are cancelled at once, and have unwound (R18)."""

        @zart.workflow("beside")
        def beside() -> zart.Flow[list[Any]]:
            return list((yield from targets()))

        result = run(beside, events=[(5, "go", "went")])

        assert (result.value, result.elapsed.total_seconds()) == (expected, elapsed)

    @pytest.mark.parametrize(
        ("tidying", "ends", "elapsed"),
        [(0, ["tidy", "undo"], 5), (3, ["tidy", "undo"], 8), (30, ["undo"], 15)],
    )
    def test_what_is_cancelled_has_its_grace(self, tidying: float, ends: list[str], elapsed: float):
        """R18: compensation waits for the step that is running, ten seconds at the most."""
        seen: list[str] = []

        @zart.step("work")
        async def work() -> None:
            try:
                await asyncio.sleep(100)
            finally:
                await asyncio.sleep(tidying)
                seen.append("tidy")

        @zart.step("undo")
        def undo() -> None:
            seen.append("undo")

        @zart.workflow("undone")
        def undone() -> zart.Flow[None]:
            try:
                yield from work()
            finally:
                yield from undo()

        result = run(undone, events=[Cancel(5)])

        assert (result.status, result.elapsed.total_seconds()) == (zart.Status.CANCELLED, elapsed)
        assert seen[: len(ends)] == ends

    def test_a_step_hears_that_it_lost(self):
        """A heartbeat raises Cancelled then, also in one that swallows what asyncio raises."""

        @zart.step("deaf")
        async def deaf() -> None:
            while True:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(2)
                zart.heartbeat("still there")

        @zart.workflow("heard")
        def heard() -> zart.Flow[list[Any]]:
            return list((yield from zart.race(deaf(), zart.sleep("z", 5))))

        result = run(heard)

        assert (result.value, result.elapsed.total_seconds()) == ([1, None], 5)
        cancelled = [event for event in result.history if isinstance(event, zart.Resolved)][-1]
        assert cancelled.outcome == zart.Cancellation("it was cancelled while it ran")

    def test_timeouts_and_retries_are_each_ones_own(self):
        """R7: a GLOBAL one strikes in the midst of another's sleep, a PER_ATTEMPT one at each attempt."""

        @zart.step("global", timeout="5s")
        async def one() -> None:
            await asyncio.sleep(60)

        @zart.step(
            "each",
            timeout="3s",
            timeout_scope=zart.TimeoutScope.PER_ATTEMPT,
            retry=zart.Retry.fixed(1, "1s", on_timeout=True),
        )
        async def other() -> None:
            await asyncio.sleep(60)

        @zart.workflow("late")
        def late() -> zart.Flow[list[str]]:
            ends = yield from zart.settle([one(), other(), nap(1, 20)])
            return [type(end.error).__name__ if isinstance(end, zart.Err) else "done" for end in ends]

        result = run(late)

        assert result.value == ["StepTimedOut", "RetryExhausted", "done"]
        ended = [
            event.at - result.history[0].at for event in result.history if isinstance(event, zart.Resolved)
        ]
        assert ended == [5.0, 7.0, 20.0]

    def test_a_deadline_strikes_in_the_midst_of_a_step(self):
        """R16: the run ends when its compensation has."""

        @zart.workflow("short", timeout="10s")
        def short() -> zart.Flow[None]:
            try:
                yield from zart.gather(nap(1, 100), zart.sleep("z", 50))
            finally:
                yield from nap(2, 4)

        result = run(short)

        assert (result.status, result.elapsed.total_seconds()) == (zart.Status.TIMED_OUT, 14)

    @pytest.mark.parametrize(
        ("timeout", "ends"), [(None, ["done", "struck"]), ("1m", ["StepTimedOut", "struck"])]
    )
    def test_a_deadline_waits_for_a_shield(self, timeout: str | None, ends: list[str]):
        """R16, R18: a step in it runs to its end; R7: a timeout of its own is capped all the same."""
        seen: list[str] = []

        @zart.step("work", timeout=timeout)
        async def work() -> str:
            await asyncio.sleep(20)
            return "done"

        def careful() -> zart.Flow[str]:
            try:
                return (yield from work())
            except zart.StepTimedOut:
                return "StepTimedOut"

        @zart.workflow("shielded", timeout="10s")
        def shielded() -> zart.Flow[None]:
            seen.append((yield from zart.shield(careful())))
            try:
                yield from zart.sleep("more", "1h")
            except zart.DeadlineExceeded:
                seen.append("struck")
                raise

        assert run(shielded, strict=False).status is zart.Status.TIMED_OUT
        assert seen == ends

    def test_a_connection_that_is_kept_open_is_not_waited_for(self):
        """As those of a pool are: nothing comes over it, and the step that opened it has ended."""
        ours, theirs = socket.socketpair()

        @zart.step("opens")
        async def opens() -> None:
            asyncio.get_running_loop().add_reader(ours, ours.close)
            await asyncio.to_thread(time.sleep, 0.01)

        @zart.workflow("kept")
        def kept() -> zart.Flow[None]:
            yield from zart.gather(opens(), zart.sleep("z", "1h"))

        with ours, theirs:
            assert run(kept).elapsed == timedelta(hours=1)

    def test_what_is_real_is_waited_for(self):
        """A thread's work is not overtaken by time; one that nobody told the loop of is waited for at the end."""

        @zart.step("real")
        async def real() -> int:
            await asyncio.to_thread(time.sleep, 0.02)
            await asyncio.sleep(2)
            return 1

        @zart.step("foreign")
        async def foreign() -> int:
            loop = asyncio.get_running_loop()
            answer = loop.create_future()
            threading.Timer(0.02, lambda: loop.call_soon_threadsafe(answer.set_result, 4)).start()
            return int(await answer)

        @zart.workflow("both")
        def both() -> zart.Flow[list[int]]:
            pair = yield from zart.gather(real(), nap(2, 3))
            return [*pair, (yield from foreign())]

        result = run(both)

        assert (result.value, result.elapsed.total_seconds()) == ([1, 2, 4], 3)

    def test_what_nobody_wants_is_ended(self):
        """A run that is terminated, or parked, leaves nothing running, and no complaint of asyncio's."""
        ended: list[str] = []

        @zart.step("long")
        async def long() -> None:
            try:
                await asyncio.sleep(100)
            finally:
                ended.append("ended")
                raise OSError("nobody hears this")

        @zart.workflow("left")
        def left(number: int) -> zart.Flow[None]:
            yield from zart.schedule(long())
            yield from zart.sleep("z", number)
            yield 5  # type: ignore[misc]

        result = run(left, 50, events=[Terminate(5)])
        assert (result.status, result.elapsed.total_seconds()) == (zart.Status.TERMINATED, 5)
        with pytest.raises(zart.NotACommand):
            run(left, 2)
        assert ended == ["ended", "ended"]


class TestEvents:
    def test_events_come_in_time_and_in_order(self):
        """Events of one instant come in the order given, all others in that of their delays."""
        result = run(waiting, events=[("2s", "go", 2), (timedelta(seconds=1), "go", 1), (3, "go", 3)])

        assert (result.value, result.elapsed) == ([1, 2], timedelta(seconds=2))
        assert run(waiting, events=[(1, "go", "a"), (1, "go", "b")]).value == ["a", "b"]

    def test_an_event_before_the_wait_is_kept(self):
        """With no delay an event is there before the workflow begins."""

        @zart.workflow("late")
        def late() -> zart.Flow[int]:
            yield from zart.sleep("nap", 10)
            return (yield from zart.wait_for_event("go", int))

        assert run(late, events=[(0, "go", 5)]).value == 5

    def test_a_wait_without_patience_takes_what_is_there(self):
        """R14: what came before the wait is taken, at the very same instant too; who waited goes by time."""

        @zart.workflow("drains")
        def drains() -> zart.Flow[list[int]]:
            taken: list[int] = []
            yield from reserve("a")
            while True:
                try:
                    taken.append((yield from zart.wait_for_event("go", int, timeout=0)))
                except zart.EventTimedOut:
                    return taken

        assert run(drains, events=[(0, "go", n) for n in range(3)]).value == [0, 1, 2]
        assert run(drains, events=[(0, "come", 7)]).value == []

        @zart.workflow("patient")
        def patient() -> zart.Flow[int]:
            return (yield from zart.wait_for_event("go", int, timeout="1h"))

        assert isinstance(run(patient, events=[("1h", "go", 1)]).error.__cause__, zart.EventTimedOut)

    def test_a_key_counts_once(self):
        """The same key again has no effect."""
        result = run(waiting, events=[(1, "go", 1, "k"), (2, "go", 2, "k"), (3, "go", 3)])

        assert result.value == [1, 3]

    def test_bytes_are_sent_as_they_are(self):
        """A payload of bytes is encoded already; one that does not decode is rejected in the workflow."""
        assert run(waiting, events=[(1, "go", b'{"a":1}'), (1, "go", b"7")]).value == [{"a": 1}, 7]
        result = run(order_flow, ORDER, events=[(1, "shipped", b"no json")])
        assert "event 'shipped' was rejected" in str(result.error)

    @pytest.mark.parametrize("event", [(1,), "go", (1, "go", 1, "k", 2), None])
    def test_what_is_no_event_is_refused(self, event: Any):
        """The error shows what events= holds."""
        with pytest.raises(zart.InvalidUse, match="events= holds"):
            run(waiting, events=[event])

    def test_cancel_and_terminate(self):
        """Cancellation and termination come from outside too; the status tells them apart."""
        cancelled = run(waiting, events=[Cancel("5s", "too late")])
        ended = run(waiting, events=[Terminate("5s", "enough")])

        assert (cancelled.status, ended.status) == (zart.Status.CANCELLED, zart.Status.TERMINATED)
        assert isinstance(cancelled.error, zart.ExecutionCancelled)
        assert isinstance(ended.error, zart.ExecutionTerminated)
        assert cancelled.elapsed == ended.elapsed == timedelta(seconds=5)
        with pytest.raises(zart.ExecutionCancelled, match="too late"):
            cancelled.value


class TestEndings:
    def test_a_failure_is_a_result(self):
        """A run that fails is a result; its value raises what a host would raise."""
        result = run(order_flow, ORDER, steps={charge_card: ValueError("broken")})

        assert result.status is zart.Status.FAILED
        with pytest.raises(zart.ExecutionFailed, match="failed at all 4 attempts") as caught:
            result.value
        assert caught.value is result.error
        assert result.elapsed == timedelta(seconds=2 + 4 + 8)

    def test_stuck_names_what_it_waits_for(self):
        """A run that waits for what never comes is a result that says for what."""
        result = run(waiting, events=[(1, "go", 1)])

        assert result.status is zart.Status.WAITING
        with pytest.raises(
            zart.Stuck, match=r"'waiting' waits for event 'go'.*events=\[\(delay, name, payload\)\]"
        ):
            result.value
        assert [type(event).__name__ for event in result.history][-1] == "Issued"

    def test_what_never_ends_is_stuck(self, monkeypatch: pytest.MonkeyPatch):
        """It waits and goes on for ever: the error says how often it waited, and how a test ends it."""
        monkeypatch.setattr("zart_core.testing.world.RESTS_MAX", 20)

        @zart.workflow("endless")
        def endless() -> zart.Flow[None]:
            yield from zart.sleep("nap", "1h")
            yield from endless.continue_as_new(None)

        with pytest.raises(Stuck, match=r"waited 20 times in 72,000 s and has not ended.*events=\[Terminate"):
            explore_crashes(endless)
        assert run(endless, events=[Terminate("5h")]).status == "terminated"

    def test_a_parked_run_raises_its_defect(self):
        """A defect is not a result."""

        @zart.workflow("twice")
        def twice() -> zart.Flow[int]:
            yield from reserve("x")
            return (yield from reserve("x"))

        with pytest.raises(zart.DuplicateName):
            run(twice)

    def test_a_result_that_is_not_deterministic_is_found(self):
        """The history is replayed at the end, and a result that differs is a divergence."""

        @zart.workflow("dice")
        def dice() -> zart.Flow[float]:
            yield from reserve("x")
            return random.random()

        with pytest.raises(zart.Diverged, match=r"(?s)'dice' is not deterministic.*zart\.random"):
            run(dice)
        assert 0 <= run(dice, strict=False).value < 1

    def test_arguments_that_are_not_deterministic_are_found(self):
        """Arguments are compared too (R21)."""
        numbers = itertools.count()

        @zart.workflow("counting")
        def counting() -> zart.Flow[str]:
            return (yield from charge_card("x", next(numbers)))

        with pytest.raises(zart.Diverged, match=r"(?s)'counting' is not deterministic.*the arguments differ"):
            run(counting)

    @pytest.mark.parametrize("what", ["step", "sleep"])
    def test_code_that_nobody_has_changed_is_not_told_to_be_put_back(self, what: str):
        """A command that differs is said as a result that differs is: nothing is parked, and no version guards it."""
        numbers = itertools.count(1)

        @zart.workflow("numbered")
        def numbered() -> zart.Flow[None]:
            yield from reserve(f"lot-{next(numbers)}") if what == "step" else zart.sleep("nap", next(numbers))

        with pytest.raises(zart.Diverged) as caught:
            run(numbered)
        text = str(caught.value)
        assert text.startswith("workflow 'numbered' is not deterministic")
        assert text.splitlines()[-1] == f"  {caught.value.remedy}"
        assert caught.value.remedy.startswith("The same code gave something else the second time.")
        assert not any(wrong in text for wrong in ("zart.version", "parked", "fits again"))

    def test_parking_on_purpose_is_deterministic(self):
        """What parks by `park_on=` replays as it went; only the run itself raises it."""

        @zart.workflow("careful", park_on=(KeyError,))
        def careful() -> zart.Flow[None]:
            raise KeyError((yield from reserve("x")))

        @zart.workflow("beside")
        def beside() -> zart.Flow[None]:
            yield from zart.spawn(careful, id="parked")
            yield from zart.sleep("nap", 1)

        result = run(beside)

        assert result.value is None
        assert [type(event).__name__ for event in result.histories["parked", 0]][-1] == "Resolved"
        with pytest.raises(zart.Parked, match="KeyError"):
            run(careful)


class TestMore:
    def test_children_work_too(self):
        """Children run in the same time; their calls and histories are there."""

        @zart.workflow("child")
        def child(n: int) -> zart.Flow[int]:
            yield from zart.sleep("nap", n)
            return n + (yield from reserve("x" * n))

        @zart.workflow("parent")
        def parent() -> zart.Flow[list[int]]:
            return (yield from zart.wait([zart.child(child, 1), zart.child(child, 2)]))

        result = run(parent)

        assert result.value == [2, 4]
        assert result.calls == {"reserve-x": 1, "reserve-xx": 1}
        assert result.elapsed == timedelta(seconds=2)
        assert sorted(result.histories) == [("parent", 0), ("parent.0.0", 0), ("parent.0.1", 0)]

    def test_the_defect_of_a_child_is_raised(self):
        """A parent waits for ever for a child that is parked; its defect says why."""

        @zart.workflow("bad-child")
        def bad_child() -> zart.Flow[None]:
            yield from zart.sleep("a", 1)
            yield from zart.sleep("a", 1)

        @zart.workflow("parent")
        def parent() -> zart.Flow[None]:
            yield from zart.child(bad_child)

        with pytest.raises(zart.DuplicateName):
            run(parent)

    def test_each_run_has_its_history(self):
        """After continue_as_new the history is that of the last run; the others are kept."""

        @zart.workflow("counter")
        def counter(n: int) -> zart.Flow[int]:
            yield from reserve("x")
            if n == 2:
                return n
            yield from counter.continue_as_new(n + 1)

        result = run(counter, 0)

        assert result.value == 2
        assert result.calls == {"reserve-x": 3}
        assert sorted(result.histories) == [("counter", 0), ("counter", 1), ("counter", 2)]
        assert result.history == result.histories["counter", 2]

    def test_resources_reach_steps(self):
        """Resources are objects or made by a function, and never enter the log."""

        @zart.step("use")
        def use() -> int:
            return len(zart.resource("list"))

        @zart.workflow("using")
        def using() -> zart.Flow[int]:
            return (yield from use())

        assert run(using, resources={"list": [1, 2]}).value == 2
        assert run(using, resources=lambda: {"list": []}).value == 0

    def test_any_log_will_do(self):
        """The log of a run may be another, and a refused append is tried again."""
        stores: list[FaultyStore] = []

        def store() -> FaultyStore:
            stores.append(FaultyStore(memory.open("memory:"), {1: "rejected", 2: "written", 4: "unwritten"}))
            return stores[-1]

        result = run(order_flow, ORDER, events=[("2m", "shipped", Shipment("T1"))], store=store)

        assert result.value == "3 txn-42 T1"
        assert result.calls == {"reserve-abc": 1, "charge-card": 1}
        assert [fault for _, _, fault in stores[0].injected] == ["rejected", "written", "unwritten"]

    @pytest.mark.parametrize("fault", ["rejected", "unwritten", "written"])
    def test_a_lost_mark_is_written_again(self, fault: Any):
        """A run that had nothing to do with a message says so, or it would never be due again (I18)."""

        def store() -> FaultyStore:
            return FaultyStore(memory.open("memory:"), {4: fault})

        result = run(one_sleep, events=[(5, "nobody-waits-for-it", None)], store=store)

        assert (result.status, result.elapsed) == (zart.Status.COMPLETED, timedelta(hours=1))

    def test_an_id_of_ones_own(self):
        """The execution has the id that is asked for, and steps see it."""

        @zart.step("key")
        def key() -> str:
            return zart.context().idempotency_key

        @zart.workflow("keyed")
        def keyed() -> zart.Flow[str]:
            return (yield from key())

        result = run(keyed, id="order-7")

        assert (result.id, result.value) == ("order-7", "order-7/0/key")


@pytest.mark.parametrize(
    "player", [run, explore_crashes, explore_orders, functools.partial(simulate, seed=1)]
)
class TestMistakes:
    def test_what_is_no_workflow(self, player: Any):
        """The plain function, or a call of the workflow."""
        for given in (order_flow.fn, order_flow(Order("a", 1)), reserve):
            with pytest.raises(zart.InvalidUse, match="is no workflow; give a function decorated with"):
                player(given)

    def test_what_is_no_mapping_of_resources(self, player: Any):
        """The resource itself, without its name."""
        for given in (object(), ["bank"], lambda: object()):
            with pytest.raises(zart.InvalidUse, match="resources= maps names to objects"):
                player(order_flow, Order("a", 1), resources=given)

    @pytest.mark.parametrize("store", ["memory:", memory.open("memory:")], ids=["url", "log"])
    def test_what_makes_no_store(self, player: Any, store: Any):
        """Each run has a store of its own, so it takes a function."""
        with pytest.raises(zart.InvalidUse, match="store= is a function that gives a fresh EventLog"):
            player(order_flow, Order("a", 1), store=store)


@pytest.mark.parametrize("explore", [explore_crashes, explore_orders, functools.partial(simulate, seed=1)])
def test_a_store_that_was_used_is_refused(explore: Any, tmp_path: Path):
    """A path that stays the same: the execution would be there already, and nothing would be tested."""

    def store() -> Reopened:
        return Reopened(lambda: zart.open_log(f"sqlite:{tmp_path}/log.db"))

    result = run(one_slow, 1.0, store=store)

    assert result.value == 1.0
    with pytest.raises(
        zart.InvalidUse, match="execution 'one-slow' is there already, so that its steps would not"
    ):
        explore(one_slow, 1.0, store=store)


def test_outcomes_are_several():
    """A text would be looked through for parts of it."""
    with pytest.raises(
        zart.InvalidUse, match=r"all ways in which it may end: \['completed: 1'\], not a text"
    ):
        simulate(order_flow, Order("a", 1), seed=1, outcomes="completed: 1")


class TestVirtualClock:
    def test_sleep_stops_at_a_callback(self):
        """A sleep ends early after a callback, so that a host looks again; the next one goes on."""
        clock = VirtualClock(100.0)
        seen: list[float] = []
        clock.at(105.0, lambda: seen.append(clock.now()))

        clock.sleep(10)
        assert (clock.now(), seen) == (105.0, [105.0])
        clock.sleep(10)
        assert clock.now() == 115.0

    def test_advance_goes_all_the_way(self):
        """advance runs every callback on the way, in order, also those that are asked for on the way."""
        clock = VirtualClock(0.0)
        seen: list[tuple[str, float]] = []
        clock.at(20.0, lambda: seen.append(("b", clock.now())))
        clock.at(10.0, lambda: clock.at(15.0, lambda: seen.append(("a", clock.now()))))
        clock.at(20.0, lambda: seen.append(("c", clock.now())))
        clock.at(3700.0, lambda: seen.append(("late", clock.now())))

        clock.advance(hours=1)

        assert clock.now() == 3600.0
        assert seen == [("a", 15.0), ("b", 20.0), ("c", 20.0)]
        assert clock.next_at == 3700.0

    def test_advance_takes_spans_of_all_kinds(self):
        """A timedelta, seconds, text, or the parts of a timedelta."""
        clock = VirtualClock(datetime(2026, 1, 1, tzinfo=UTC))

        clock.advance(timedelta(minutes=1))
        clock.advance(2)
        clock.advance("500ms")
        clock.advance(days=1, seconds=0.5)

        assert clock.now() == datetime(2026, 1, 2, 0, 1, 3, tzinfo=UTC).timestamp()
        assert repr(clock) == "<VirtualClock at 2026-01-02T00:01:03+00:00>"

    @pytest.mark.parametrize("span", [-1.0, timedelta(days=-1), math.nan, math.inf])
    def test_advance_takes_no_span_that_cannot_be(self, span: Any):
        """A span below zero would move nothing, and say nothing."""
        clock = VirtualClock(5.0)

        with pytest.raises(zart.InvalidUse, match=r"advance\(\) lets 0 seconds or more pass"):
            clock.advance(span)
        with pytest.raises(zart.InvalidUse, match=r"not -86400; jump\(\) puts a clock back"):
            clock.advance(days=-1)

        assert clock.now() == 5.0

    def test_watchers_hear_of_every_move(self):
        """A watcher is called after each move, once for each."""
        clock = VirtualClock(0.0)
        heard: list[float] = []
        clock.watch(lambda: heard.append(clock.now()))

        clock.sleep(1)
        clock.advance(seconds=2)
        clock.advance()
        clock.jump(hours=-1)

        assert heard == [1.0, 3.0, -3597.0]

    def test_time_never_goes_back_but_by_a_jump(self):
        """A past instant is reached at once and moves nothing."""
        clock = VirtualClock(100.0)

        assert clock.pass_until(50.0)
        clock.sleep(-5)

        assert clock.now() == 100.0

    def test_a_naive_start_is_refused(self):
        """A datetime has a zone."""
        with pytest.raises(zart.InvalidUse, match="naive"):
            VirtualClock(datetime(2026, 1, 1))
