"""When a yield over several things comes back, and with what: the table of section 3."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

import zart_core as zart
from zart_core.waiting import Wait


@zart.step("do-{what}")
def do(what: str) -> Any:
    return what


def plain(fn: Any) -> zart.Workflow[Any, Any]:
    return zart.workflow("w")(fn)


def yielded(command: Any) -> Any:
    """A command that nobody will report as forgotten."""
    command.yielded = True
    return command


@attrs.define(eq=False)
class Thing:
    """Something that can be waited for."""

    settled: bool = False
    value: Any = None
    error: BaseException | None = None

    def end(self, wait: Wait, value: Any = None, error: BaseException | None = None) -> bool:
        """It ends; whether the waiter may go on."""
        self.settled, self.value, self.error = True, value, error
        return wait.note(self)


def test_waiting_for_all_counts_down():
    """Each end costs one step; the last lets the branch go on."""
    things = [Thing(), Thing(), Thing()]
    wait = Wait("all", things)
    assert not wait.begin()
    assert [things[1].end(wait, 1), things[0].end(wait, 0), things[2].end(wait, 2)] == [False, False, True]
    assert wait.answer() == ([0, 1, 2], None)
    assert not wait.cancels()


def test_a_thing_counts_once_however_often_it_is_noted_or_given():
    """A thing that is no longer missing changes nothing."""
    thing, other = Thing(), Thing()
    wait = Wait("all", [thing, other, thing])
    assert [thing.end(wait, 1), wait.note(thing), other.end(wait, 2)] == [False, False, True]
    assert wait.answer() == ([1, 2, 1], None)


def test_nothing_to_wait_for():
    """`wait([])` gives [], and so does settle; gather gives ()."""
    assert [Wait(mode, []).begin() for mode in ("all", "settle", "gather", "fail_fast")] == [True] * 4
    assert Wait("all", []).answer() == ([], None)
    assert Wait("fail_fast", []).answer() == ([], None)
    assert Wait("gather", []).answer() == ((), None)


def test_the_first_by_order_given_among_those_that_have_ended():
    """any and race look at what has ended already before they wait."""
    ended = [Thing(), Thing(True, "b"), Thing(True, "c")]
    for mode in "any", "race":
        wait = Wait(mode, ended)
        assert wait.begin()
        assert wait.first is ended[1]
    assert Wait("any", ended).begin()


def test_fail_fast_goes_on_at_the_first_failure_only():
    """A value is no reason to go on; a failure that has come already is."""
    things, error = [Thing(), Thing()], ValueError("no")
    wait = Wait("fail_fast", things)
    assert [wait.begin(), things[0].end(wait, 1), things[1].end(wait, None, error)] == [False, False, True]
    assert (wait.answer(), wait.cancels()) == ((None, error), False)
    early = Wait("fail_fast", [Thing(), Thing(True, None, error)])
    assert (early.begin(), early.answer(), early.cancels()) == (True, (None, error), True)


def test_wait_raises_steps_failed_with_every_outcome(play):
    """It waits for all and cancels nothing; the group also carries every outcome, in the order given."""
    caught = []

    def w():
        try:
            yield from zart.wait([do("a"), do("b"), do("c")])
        except zart.StepsFailed as failed:
            caught.append(failed)

    run = play(plain(w)).start().fails("do-a", kind="lost").done("do-c", "C").fails("do-b", kind="timed_out")
    (failed,) = caught
    assert [type(error) for error in failed.exceptions] == [zart.StepLost, zart.StepTimedOut]
    assert failed.outcomes == (zart.Err(failed.exceptions[0]), zart.Err(failed.exceptions[1]), zart.Ok("C"))
    assert str(failed) == "2 of 3 failed (2 sub-exceptions)"
    assert run.history[-1] == "completed null"
    part, rest = failed.split(zart.StepLost)
    assert (part.outcomes, rest.outcomes) == (failed.outcomes, failed.outcomes)


def test_fail_fast_cancels_the_rest_and_raises_the_first_failure_itself(play):
    """What it waited for and what had not begun alike."""

    def w():
        try:
            yield from zart.wait([do("a"), do("b"), do("c")], fail_fast=True)
        except zart.StepLost as error:
            return error.step

    run = play(plain(w)).start().done("do-a").fails("do-b", kind="lost")
    assert run.history[-3:] == ["do-b ! lost", "do-c cancelled", 'completed "do-b"']


def test_settle_never_raises_for_a_failed_item(play):
    """An Ok or an Err for each, in the order given; a cancelled one is an Err too."""

    def w():
        task = yield from zart.schedule(do("c"))
        yield from task.cancel()
        outcomes = yield from zart.settle([do("a"), do("b"), task])
        match outcomes:
            case [zart.Ok(value), zart.Err(zart.StepLost()), zart.Err(zart.Cancelled())]:
                return value

    assert play(plain(w)).start().fails("do-b", kind="lost").done("do-a", "A").result == "A"


def test_gather_gives_a_tuple(play):
    """Of things of different kinds."""

    def w():
        return (yield from zart.gather(do("a"), zart.sleep("nap", 1), flow()))

    def flow():
        return (yield from do("b"))

    assert play(plain(w)).start().done("do-b", 2).done("nap").done("do-a", 1).result == (1, None, 2)


def test_wait_any_gives_index_and_outcome_and_an_error_is_one(play):
    """The first to end, with a value or an error; the others go on."""

    def w():
        tasks = []
        for name in "ab":
            tasks.append((yield from zart.schedule(do(name))))
        index, outcome = yield from zart.wait_any(tasks)
        assert isinstance(outcome.error, zart.StepLost)
        return [index, (yield from zart.wait([tasks[0]]))]

    assert play(plain(w)).start().fails("do-b", kind="lost").done("do-a", "A").result == [1, ["A"]]


def test_the_first_of_a_race_wins_with_a_value_or_an_error(play):
    """Steps, flows, sleeps and event waits may race."""

    def w():
        first = yield from zart.race(do("a"), zart.sleep("nap", 5), zart.wait_for_event("e", int))
        try:
            yield from zart.race(do("b"), zart.sleep("nap-2", 5))
        except zart.StepLost as error:
            return [first, error.step]

    run = play(plain(w)).start().deliver("e", b"7").fails("do-b", kind="lost")
    assert run.result == [(2, 7), "do-b"]
    assert run.history.count("nap cancelled") == run.history.count("nap-2 cancelled") == 1


def test_a_task_may_be_waited_for_often_and_by_several(play):
    """Its outcome stays; the same error object is raised each time."""

    def w():
        task = yield from zart.schedule(do("a"))
        seen = []
        for _ in range(2):
            try:
                yield from zart.wait([task, task])
            except zart.StepsFailed as failed:
                seen.append(len(failed.exceptions))
        outcomes = yield from zart.settle([one(task), one(task)])
        return seen + [type(outcome.error).__name__ for outcome in outcomes]

    def one(task):
        yield from zart.wait([task])

    assert play(plain(w)).start().fails("do-a", kind="lost").result == [1, 1, "StepsFailed", "StepsFailed"]


def test_waiting_for_a_cancelled_task_raises_cancelled(play):
    """As asyncio does; beside failures it stays among the outcomes."""

    def w():
        task = yield from zart.schedule(do("a"))
        yield from zart.sleep("nap", 1)
        yield from task.cancel()
        yield from zart.wait([task])

    assert play(plain(w)).start().done("nap").history[-1].startswith("failed: Cancelled")


@pytest.mark.parametrize(
    ("wrong", "fix"),
    [
        (lambda: zart.wait(yielded(do("x"))), "put it in brackets: zart.wait([...])"),
        (lambda: zart.settle(yielded(do("x"))), "put it in brackets"),
        (
            lambda: zart.wait_any({object()}),
            "zart.wait_any got a set, whose order a replay does not have again",
        ),
        (lambda: zart.wait(frozenset()), "zart.wait got a set"),
        (lambda: zart.wait_any([]), "would wait for ever"),
        (lambda: zart.race(yielded(do("x"))), "takes two things or more"),
    ],
)
def test_mistakes_in_asking_are_refused_at_once(wrong, fix):
    """InvalidUse names the fix."""
    with pytest.raises(zart.InvalidUse) as caught:
        wrong()
    assert fix in str(caught.value)


def test_waiting_for_the_first_again_and_again_keeps_no_traces(play):
    """A loop over `wait_any` leaves one entry a branch in each task's line, not one a round."""

    def w():
        tasks = []
        for n in range(30):
            tasks.append((yield from zart.schedule(do(str(n)))))
        left = list(tasks)
        while left:
            index, _ = yield from zart.wait_any(left)
            del left[index]
        return "all"

    run = play(plain(w)).start()
    for n in range(29):
        run.done(f"do-{n}")
    assert len(run.execution._nodes[29].waiters) == 1
    assert run.done("do-29").result == "all"
