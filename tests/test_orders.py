"""`explore_orders` goes through every order of arrival once, and says which order leads where."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest

import zart_core as zart
from zart_core.testing import Cancel, explore_orders
from zart_core.testing.orders import Explorer


@zart.step("do-{n}")
def do(n: int) -> int:
    return n


@zart.step("slow", timeout="5s")
async def slow() -> int:
    import asyncio

    await asyncio.sleep(60)
    return 1


@zart.step("flaky", retry=zart.Retry.fixed(2, "1s"))
def flaky() -> int:
    if zart.context().attempt < 2:
        raise RuntimeError("not yet")
    return 1


def chain(k: int, length: int) -> zart.Flow[None]:
    for n in range(length):
        yield from do(100 * k + n)


@zart.workflow("fan")
def fan(count: int) -> zart.Flow[list[int]]:
    return (yield from zart.wait([do(n) for n in range(count)]))


@zart.workflow("chains")
def chains(lengths: list[int]) -> zart.Flow[None]:
    yield from zart.wait([chain(k, length) for k, length in enumerate(lengths)])


@zart.workflow("listening")
def listening() -> zart.Flow[list[int]]:
    step = yield from zart.schedule(do(0))
    first = yield from zart.wait_for_event("go", int)
    second = yield from zart.wait_for_event("go", int)
    yield from zart.wait([step])
    return [first, second]


@zart.workflow("two-naps")
def two_naps() -> zart.Flow[list[str]]:
    over: list[str] = []

    def plain() -> zart.Flow[None]:
        yield from zart.sleep("ten", 10)
        over.append("ten")

    def after_a_step() -> zart.Flow[None]:
        yield from do(1)
        yield from zart.sleep("five", 5)
        over.append("five")

    yield from zart.wait([plain(), after_a_step()])
    return over


@zart.workflow("last-word")
def last_word() -> zart.Flow[int]:
    """Its result is what ended last: fine in one order, wrong in the other."""
    last = 0

    def noting(n: int) -> zart.Flow[None]:
        nonlocal last
        last = yield from do(n)

    yield from zart.wait([noting(1), noting(2)])
    return last


# ---------------------------------------------------------------- counts


@pytest.mark.parametrize("count", range(6))
def test_n_steps_side_by_side_have_n_factorial_orders(count):
    """Each order is played once, and each has a history of its own."""
    report = explore_orders(fan, count)

    report.check()
    assert (report.orders, report.histories) == (math.factorial(count),) * 2
    assert len({run.order for run in report.runs}) == report.orders
    assert all(sorted(run.order) == [f"do-{n}" for n in range(count)] for run in report.runs)


@pytest.mark.parametrize("lengths", [[2, 2], [3, 2], [2, 2, 2], [3, 1, 1], [4]])
def test_chains_have_as_many_orders_as_the_multinomial_says(lengths):
    """What comes one after the other stays in order; chains are shuffled in every way."""
    report = explore_orders(chains, lengths)

    assert report.orders == math.factorial(sum(lengths)) // math.prod(map(math.factorial, lengths))
    for run in report.runs:
        numbers = [int(name.removeprefix("do-")) for name in run.order]
        for k in range(len(lengths)):
            own = [n for n in numbers if n // 100 == k]
            assert own == sorted(own)


def test_events_keep_their_order_and_come_at_any_time():
    """Two events and a step: three places for the step; the events are taken as they were sent."""
    report = explore_orders(listening, events=[(1, "go", 1), (2, "go", 2)])

    assert Counter(run.order for run in report.runs) == Counter(
        [("do-0", "event go", "event go"), ("event go", "do-0", "event go"), ("event go", "event go", "do-0")]
    )
    assert report.outcomes == {"completed: [1,2]": 3}


def test_what_nobody_waits_for_is_an_order_and_no_history():
    """Orders are told apart by what arrives: an early event waits in the inbox, and the history stays the same."""

    @zart.workflow("later")
    def later() -> zart.Flow[int]:
        yield from do(1)
        return (yield from zart.wait_for_event("go", int))

    report = explore_orders(later, events=[(1, "go", 1)])

    assert (report.orders, report.histories) == (2, 1)


def test_timers_keep_the_order_that_time_gives_them():
    """Sleeps that begin together end by their length; a step may end before, between or after."""

    @zart.workflow("naps")
    def naps() -> zart.Flow[None]:
        yield from zart.wait([zart.sleep("two", 2), zart.sleep("one", 1), do(0)])

    report = explore_orders(naps)

    assert {run.order for run in report.runs} == {
        ("do-0", "one", "two"),
        ("one", "do-0", "two"),
        ("one", "two", "do-0"),
    }


def test_timers_of_one_instant_strike_together():
    """They are one arrival."""

    @zart.workflow("twins")
    def twins() -> zart.Flow[None]:
        yield from zart.wait([zart.sleep("b", 1), zart.sleep("a", 1)])

    assert [run.order for run in explore_orders(twins).runs] == [("a and b",)]


def test_a_step_that_starts_a_timer_may_end_late():
    """A nap of five seconds after a step is over before one of ten, or after it: it hangs on the step."""
    report = explore_orders(two_naps)

    assert {run.order for run in report.runs} == {
        ("do-1", "five", "ten"),
        ("ten", "do-1", "five"),
        ("do-1 (late)", "ten", "five"),
    }
    assert report.outcomes == {'completed: ["five","ten"]': 1, 'completed: ["ten","five"]': 2}


# ---------------------------------------------------------------- what may arrive


def test_a_loser_ends_or_is_given_up():
    """A step that loses a race is told to end: it does, or its grace runs out."""

    @zart.workflow("racing")
    def racing() -> zart.Flow[int]:
        winner, _ = yield from zart.race(do(1), zart.sleep("nap", 3))
        return winner

    report = explore_orders(racing)

    report.check()
    assert {run.order: run.played.outcome for run in report.runs} == {
        ("do-1",): "completed: 0",
        ("nap", "do-1"): "completed: 1",
        ("nap", "grace of do-1"): "completed: 1",
    }


def test_retries_and_timeouts_are_timers():
    """An attempt that fails is tried again when its time has come; a timeout may strike before the step is done."""

    @zart.workflow("both")
    def both() -> zart.Flow[str]:
        yield from flaky()
        try:
            yield from slow()
        except zart.StepTimedOut:
            return "too slow"
        return "done"

    report = explore_orders(both)
    quick = explore_orders(both, steps={slow: 1})

    assert {run.order[:5] for run in report.runs} == {
        ("flaky", "retry of flaky", "flaky", "retry of flaky", "flaky")
    }
    assert report.outcomes == {'completed: "too slow"': 2}
    assert quick.outcomes == {'completed: "done"': 1, 'completed: "too slow"': 1}
    assert quick.shortest['completed: "too slow"'][-1] == "timeout of slow"


def test_a_cancel_comes_at_any_time_too():
    """Before, between and after the steps of a chain."""
    report = explore_orders(chains, [2], events=[Cancel(1)])

    report.check()
    assert {status.split(":")[0] for status in report.outcomes} == {"completed", "cancelled"}
    assert any(run.order[0] == "cancel" for run in report.runs)


def test_children_go_on_beside_each_other():
    """Steps of children arrive in every order, by the names of their executions."""
    report = explore_orders(parents)

    report.check()
    assert report.orders == 2
    assert report.runs[0].order == ("do-1 of 'parents.0.0'", "do-2 of 'parents.0.1'")


@zart.workflow("kid")
def kid(n: int) -> zart.Flow[int]:
    return (yield from do(n))


@zart.workflow("parents")
def parents() -> zart.Flow[list[int]]:
    return (yield from zart.wait([zart.child(kid, 1), zart.child(kid, 2)]))


# ---------------------------------------------------------------- what it is for


def test_an_outcome_that_hangs_on_the_order_is_shown_with_its_shortest_order():
    """The report counts the orders of each outcome, and shows the shortest."""
    report = explore_orders(last_word)

    assert report.outcomes == {"completed: 1": 1, "completed: 2": 1}
    assert report.shortest == {"completed: 1": ("do-2", "do-1"), "completed: 2": ("do-1", "do-2")}
    assert str(report).splitlines() == [
        "workflow 'last-word': 2 orders, 2 histories, 2 outcomes, 0 violations",
        "",
        "orders  outcome, and the shortest order that leads to it",
        "     1  completed: 2",
        "        do-1, do-2",
        "     1  completed: 1",
        "        do-2, do-1",
    ]


def always_two(played: Any) -> bool:
    return played.value == 2


def test_a_promise_that_one_order_breaks_is_a_violation_with_its_test():
    """`ensure` is asked after each order; the printed test repeats that very one."""
    report = explore_orders(last_word, ensure=always_two)
    (violation,) = report.violations
    names: dict[str, Any] = {"ensure": always_two}
    exec(violation.code, names)

    assert (violation.rule, violation.what) == ("ensure", "always_two does not hold: completed: 1")
    assert violation.code.splitlines()[-1] == (
        "    explore_orders(last_word, ensure=ensure, orders=[['do-2', 'do-1']]).check()"
    )
    with pytest.raises(AssertionError, match="always_two does not hold"):
        names["test_last_word_in_this_order"]()


def test_an_order_is_repeated_as_it_is_shown():
    """All names of a report can be given back, late ones too."""
    report = explore_orders(two_naps)

    again = explore_orders(two_naps, orders=[run.order for run in report.runs])

    assert [(run.order, run.played.outcome) for run in again.runs] == [
        (run.order, run.played.outcome) for run in report.runs
    ]


def test_who_decides_by_chance_decides_the_same_in_every_order():
    """Else what may arrive would be another thing each time, and no order could be gone back to."""

    @zart.workflow("by-chance")
    def by_chance() -> zart.Flow[int]:
        count = 0
        for n in range(4):
            count += (yield from zart.random(f"lot-{n}")) < 0.5
        return sum((yield from zart.wait([do(n) for n in range(count)])))

    for n in range(6):
        report = explore_orders(by_chance, id=f"by-chance-{n}")
        assert (len(report.outcomes), report.histories) == (1, report.orders)


def test_a_run_that_never_ends_is_a_violation():
    """An order in which everybody waits for ever."""

    @zart.workflow("deaf")
    def deaf() -> zart.Flow[int]:
        winner, _ = yield from zart.race(zart.wait_for_event("go"), do(1))
        if winner == 1:
            yield from zart.wait_for_event("go")
            yield from zart.wait_for_event("go")
        return winner

    report = explore_orders(deaf, events=[(1, "go", 1)])

    assert {violation.rule for violation in report.violations} == {"I18"}
    assert "waits for event 'go'" in report.violations[0].what


# ---------------------------------------------------------------- limits


def test_too_many_orders_are_refused():
    """The bound is said, and how to raise it."""
    with pytest.raises(zart.InvalidUse, match=r"more than 100 orders of arrival; .*orders_max="):
        explore_orders(fan, 5, orders_max=100)
    assert explore_orders(fan, 5, orders_max=120).orders == 120


@pytest.mark.parametrize("count", [8, 12, 200, 2_000])
def test_many_orders_are_refused_before_they_are_played(monkeypatch, count):
    """A few runs show for certain that there are more than ten thousand orders; they are not played all."""
    played: list[None] = []
    play = Explorer.play
    monkeypatch.setattr(Explorer, "play", lambda *given: (played.append(None), play(*given))[1])

    with pytest.raises(zart.InvalidUse, match="more than 10,000 orders of arrival; n steps"):
        explore_orders(fan, count)
    assert len(played) < 2_000


@pytest.mark.parametrize("first", [0, 1])
def test_orders_that_only_look_many_are_played(first):
    """Where much follows from one order and little from the others, those that there are count, not what one shows."""

    @zart.workflow("w")
    def w():
        winner, _ = yield from zart.wait_any([do(0), do(1)])
        return (yield from zart.wait([do(n) for n in range(10, 13 if winner == first else 11)]))

    orders = explore_orders(w).orders
    assert explore_orders(w, orders_max=orders).orders == orders
    with pytest.raises(zart.InvalidUse, match=f"more than {orders - 1} orders"):
        explore_orders(w, orders_max=orders - 1)


def test_an_order_that_cannot_be_is_refused():
    """It says what may come instead."""
    with pytest.raises(zart.InvalidUse, match="'do-7' comes where only do-0, do-1 may come"):
        explore_orders(fan, 2, orders=[["do-7"]])
    with pytest.raises(zart.InvalidUse, match="'its end' comes where only do-1 may come"):
        explore_orders(fan, 2, orders=[["do-0"]])
    with pytest.raises(zart.InvalidUse, match="the run is over before 'do-2' comes"):
        explore_orders(fan, 2, orders=[["do-0", "do-1", "do-2"]])


def test_a_run_without_an_end_is_refused():
    """A workflow that polls for ever is found out."""

    @zart.workflow("polling")
    def polling() -> zart.Flow[None]:
        for n in range(10_000):
            yield from zart.sleep(f"nap-{n}", 1)

    with pytest.raises(zart.InvalidUse, match="after 1,000 arrivals the run has not ended"):
        explore_orders(polling)
