"""Branches: their queue, waiting, cancelling and ending (R18, R24), names (R3), and wrong objects (R12)."""

from __future__ import annotations

import io
import warnings
from typing import Any

import pytest

import zart_core as zart


@zart.step("do-{what}", cancel_grace=10)
def do(what: str) -> Any:
    return what


def plain(fn: Any, **options: Any) -> zart.Workflow[Any, Any]:
    """A workflow of a generator function, under one name."""
    return zart.workflow("w", **options)(fn)


# ---------------------------------------------------------------- order


def test_schedule_goes_on_and_branches_run_in_the_order_in_which_they_began(play):
    """`schedule` puts the new branch at the end of the queue and goes on; the queue is first in, first out."""

    def flow(name):
        yield from do(f"{name}-1")
        yield from do(f"{name}-2")

    def w():
        a = yield from zart.schedule(flow("a"))
        b = yield from zart.schedule(flow("b"))
        yield from do("root")
        yield from zart.wait([a, b])

    run = play(plain(w)).start()
    assert run.history == ["started", "step do-root", "step do-a-1", "step do-b-1"]
    run.done("do-b-1").done("do-a-1")
    assert run.history[4:] == ["do-b-1 = null", "step do-b-2", "do-a-1 = null", "step do-a-2"]


def test_one_fact_wakes_waiters_in_the_order_in_which_they_began_to_wait(play):
    """A branch that waits anew for the same thing stands in line behind those who began to wait before."""

    def any_of(first, second):
        yield from zart.wait_any([first, second])
        yield from zart.wait([first])
        yield from do("late")

    def one(task):
        yield from do("delay")
        yield from zart.wait([task])
        yield from do("early")

    def w():
        x = yield from zart.schedule(do("x"))
        y = yield from zart.schedule(do("y"))
        yield from zart.gather(any_of(x, y), one(x))

    run = play(plain(w)).start().done("do-delay").done("do-y").done("do-x")
    assert run.history[-2:] == ["step do-early", "step do-late"]


@pytest.mark.parametrize("depth", [200, 2_000])
@pytest.mark.parametrize("over", ["scope", "task", "shield"])
def test_thousands_of_branches_deep_are_fine(play, depth, over):
    """R18: they cancel from the inside out, however deep: Python's limit of recursion is none of flows."""
    ended = []

    def nested(depth):
        try:
            if depth == 0:
                yield from do("x")
            elif over == "task":
                task = yield from zart.schedule(nested(depth - 1))
                yield from zart.wait([task])
            elif over == "shield" and depth == 100:
                yield from zart.shield(nested(depth - 1))
            else:
                yield from zart.scope("s", nested(depth - 1))
        finally:
            ended.append(depth)

    def w():
        yield from nested(depth)

    run = play(plain(w)).start().cancel()
    if over == "shield":
        assert ended == []
        run.done("s/" * (depth - 1) + "do-x")
    assert ended == list(range(depth + 1))
    assert run.history[-1] == "cancelled: Cancelled: stop"


# ---------------------------------------------------------------- names (R2, R3)


def test_a_name_used_twice_shows_both_places_and_proposes_another(play):
    """R3: DuplicateName names the first place and the second, and a name that is free."""

    def w():
        yield from do("x")
        yield from do("x").named("do-x-2")
        yield from do("x")

    run = play(plain(w)).start().done("do-x", "x")
    with pytest.raises(zart.DuplicateName) as caught:
        run.done("do-x-2", "x")
    text = str(caught.value)
    assert (
        "first at test_branches.test_a_name_used_twice_shows_both_places_and_proposes_another.<locals>.w, line +1"
        in text
    )
    assert (
        "again at test_branches.test_a_name_used_twice_shows_both_places_and_proposes_another.<locals>.w, line +3"
        in text
    )
    assert ".named('do-x-3')" in text


def test_the_same_command_given_twice_is_a_name_used_twice(play):
    """R3: also within one wait, and for a command in place of a flow, shown where it was given."""

    def w():
        yield from zart.scope("a", do("x"))
        yield from zart.scope("a", do("x"))

    run = play(plain(w)).start()
    with pytest.raises(
        zart.DuplicateName, match=r"'a/do-x'.*<locals>\.w, line \+1, again at .*<locals>\.w, line \+2"
    ):
        run.done("a/do-x", "x")

    def twice():
        one = do("x")
        yield from zart.wait([one, one])

    with pytest.raises(zart.DuplicateName):
        play(plain(twice)).start()


def test_event_waits_children_and_spawns_are_numbered(play):
    """R2: per event and per workflow, within a scope; a name of their own replaces the number."""

    @zart.workflow("kid")
    def kid():
        yield from do("never")

    def w():
        waits = [zart.wait_for_event("e"), zart.wait_for_event("e"), zart.wait_for_event("e", name="mine")]
        others = [zart.scope("s", zart.wait_for_event("e")), zart.child(kid), zart.child(kid).named("own")]
        yield from zart.wait([*waits, *others])

    names = ["event e[1]", "event e[2]", "event mine", "child kid[1]", "child own", "event s/e[1]"]
    run = play(plain(w)).start()
    assert run.history == ["started", *names]
    assert [issued.child for issued in run.execution.pending.values() if issued.child] == [
        "an-id.0.3",
        "an-id.0.4",
    ]


# ---------------------------------------------------------------- wrong objects (R12)


async def coroutine_step():
    return 1


def helper():
    yield from do("x")


@pytest.mark.parametrize(
    ("yielded", "fix"),
    [
        (lambda: helper(), "write `yield from helper(...)`"),
        (lambda: None, "write `yield from some_step(...)`"),
        (lambda: "text", "yielded a str, which is no command"),
        (lambda: 5, "yielded a int, which is no command"),
        (lambda: do, "<step 'do-{what}'> was yielded without being called"),
        (lambda: [do("x")], "yielded a list, which is no command"),
        (lambda: plain(helper), "was yielded without being called"),
    ],
)
def test_every_wrong_object_gets_an_error_that_names_the_fix(play, yielded, fix):
    """R12: the first yield is checked like any other, and a NotACommand says where it stands."""

    def w():
        thing = yielded()
        if isinstance(thing, list):
            zart.step_or(thing[0], 0).close()
            thing[0].yielded = True
        yield thing

    with pytest.raises(zart.NotACommand) as caught:
        play(plain(w)).start()
    assert fix in str(caught.value)
    assert "<locals>.w, line +5" in str(caught.value)


@pytest.mark.parametrize(
    ("delegated", "fix"),
    [
        (lambda: 5, "'int' object is not iterable; it takes a step, another command or a flow"),
        (lambda: None, "a plain value needs no `yield from`"),
        (lambda: do, "the step was not called: write `yield from my_step(...)`"),
        (lambda: plain(helper), "call the workflow to run it inline"),
        (lambda: [1, 2], "`yield from` over a list_iterator at"),
        (lambda: "abc", "`yield from` over a str_"),
        (lambda: iter({"a": 1}), "`yield from` over a dict_keyiterator at"),
    ],
)
def test_yield_from_over_a_value_is_a_defect_that_names_the_fix(play, delegated, fix):
    """R12: Python's own TypeError would fail the run; a developer has to act instead."""

    def w():
        yield from delegated()

    with pytest.raises(zart.NotACommand) as caught:
        play(plain(w)).start()
    assert fix in str(caught.value)
    assert "<locals>.w, line +1" in str(caught.value)


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("tried", [zart.outcome, lambda flow: zart.step_or(flow, 7)])
def test_a_mistake_in_a_flow_that_is_tried_is_no_error_of_a_step(play, tried, wrapped):
    """R12, R20: `outcome` and `step_or` give the errors of steps; what is wrong with the code parks."""

    def several():
        yield from do("x")
        return (yield from [do("a"), do("b")])

    def w():
        flow = tried(several())
        yield from zart.gather(flow) if wrapped else flow

    run = play(plain(w)).start()
    with pytest.raises(zart.NotACommand, match=r"`yield from` over a list_iterator at .*several, line \+2:"):
        run.done("do-x")


def test_a_command_says_where_it_stands_in_a_flow_that_is_tried(play):
    """R21: the line that asks for it, also below `outcome` and beside others."""

    def flow():
        yield from do("x")
        return (yield from zart.step_or(do("y"), None))

    def w():
        yield from zart.gather(zart.outcome(flow()), zart.outcome(do("z")))

    run = play(plain(w)).start().done("do-x")
    lines = [event.site.qualname.split(".")[-1] for event in run.log if isinstance(event, zart.Issued)]
    assert lines == ["flow", "w", "flow"]
    assert [event.site.line for event in run.log if isinstance(event, zart.Issued)] == [1, 1, 2]


def test_yield_from_over_a_coroutine_says_that_only_steps_are_async(play):
    """R12: calling an async function without @step."""

    def w():
        coroutine = coroutine_step()
        try:
            yield from coroutine
        finally:
            coroutine.close()

    with pytest.raises(zart.NotACommand, match=r"decorate the function with @zart\.step"):
        play(plain(w)).start()


def test_yield_from_over_a_task_says_to_wait_for_it(play):
    """R12: so does yielding it."""

    def w():
        task = yield from zart.schedule(do("x"))
        yield from task

    with pytest.raises(zart.NotACommand, match=r"zart\.wait\(\[task\]\)"):
        play(plain(w)).start()

    def bare():
        task = yield from zart.schedule(do("x"))
        yield task

    with pytest.raises(zart.NotACommand, match=r"zart\.wait\(\[task\]\)"):
        play(plain(bare)).start()


def test_an_ordinary_type_error_still_fails_the_run(play):
    """R19: only a `yield from` that cannot work is a defect."""

    def w():
        yield from do("x")
        return len(5)

    run = play(plain(w)).start().done("do-x")
    assert run.history[-1] == "failed: TypeError: object of type 'int' has no len()"


def test_an_error_of_the_thing_itself_still_fails_the_run(play):
    """R19: a `yield from` over what could be iterated, and answers with an error of its own, is no defect."""
    closed = io.StringIO()
    closed.close()

    def w():
        yield from closed

    run = play(plain(w)).start()
    assert run.history[-1].startswith("failed: ValueError: I/O operation on closed file")


def test_what_cannot_be_waited_for_is_refused(play):
    """R12: captures and the like have no life of their own beside others."""

    def w():
        yield from zart.wait([zart.now("n")])

    with pytest.raises(zart.NotACommand, match="only tasks, steps, sleeps"):
        play(plain(w)).start()


def test_what_cannot_be_waited_for_beside_others_is_made_a_flow_of(play):
    """R12: the error names the fix, and the fix works."""

    def w(wrap):
        group = zart.gather(do("a"), do("b"))
        part = zart.scope("both", group) if wrap else group
        return (yield from zart.race(part, zart.sleep("limit", "1m")))

    with pytest.raises(zart.NotACommand, match=r"wait cannot stand here; make a flow of it: zart\.scope\("):
        play(plain(w)).start(b"false")
    run = play(plain(w)).start(b"true").done("both/do-a", 1).done("both/do-b", 2)
    assert (run.history[-2], run.result) == ("limit cancelled", (0, (1, 2)))


def test_a_flow_cannot_run_twice(play):
    """R12: a generator object is used up."""

    def w():
        flow = helper()
        yield from zart.wait([flow, flow])

    with pytest.raises(zart.NotACommand, match="a flow was given twice"):
        play(plain(w)).start()


def test_a_command_that_was_never_yielded_is_reported(play):
    """R12: with its kind and name, when the run ends."""

    def w():
        do("forgotten")
        yield from do("x")

    run = play(plain(w)).start().done("do-x")
    assert run.execution.unobserved() == [
        "step 'do-forgotten' was built and never yielded; write `yield from` before it, "
        "or build it only where it is needed"
    ]


def test_what_was_yielded_in_any_way_is_not_reported(play):
    """R12: a bare yield, a command inside another, and one that a cancellation kept from being performed."""

    def w():
        assert (yield do("bare")) == "b"
        try:
            yield from zart.shield(helper())
            flows = [
                zart.outcome(do("d")),
                zart.scope("e", do("e")),
                zart.scope("f", zart.step_or(do("f"), 0)),
            ]
            yield from zart.wait([do("a"), zart.schedule(do("b")), *flows])
        except zart.Cancelled:
            yield from zart.settle([do("c")])

    run = play(plain(w)).start().done("do-bare", "b").cancel().done("do-x").done("do-c")
    assert run.history[-1] == "completed null"
    assert run.execution.unobserved() == []


# ---------------------------------------------------------------- cancellation (R18)


def test_cancellation_strikes_innermost_first_newest_first_each_owner_after_its_own(play):
    """R18, I17: once each, and compensation runs durably."""
    order = []

    def flow(name, *inner):
        try:
            tasks = []
            for one in inner:
                tasks.append((yield from zart.schedule(one)))
            yield from do(name)
        except zart.Cancelled as strike:
            order.append(f"{name} {strike.reason}")
            yield from do(f"undo-{name}")
            raise

    def w():
        yield from zart.wait([flow("a", flow("a1"), flow("a2")), flow("b")])

    run = play(plain(w)).start().cancel("why")
    assert order == ["b why", "a2 why", "a1 why"]
    run.done("do-undo-a2").done("do-undo-a1")
    assert order == ["b why", "a2 why", "a1 why", "a why"]
    run.cancel("again").done("do-undo-b").done("do-undo-a")
    assert order == ["b why", "a2 why", "a1 why", "a why"]
    assert run.execution.ignored == 1
    assert run.history[-1] == "cancelled: Cancelled: why"


def test_compensation_within_a_flow_runs_in_reverse_order(play):
    """R18, I17: nested try and finally are undone from the inside out."""

    def w():
        yield from do("a")
        try:
            yield from do("b")
            try:
                yield from zart.sleep("nap", 100)
            finally:
                yield from do("undo-b")
        finally:
            yield from do("undo-a")

    run = play(plain(w)).start().done("do-a").done("do-b").cancel().done("do-undo-b").done("do-undo-a")
    assert run.history[6:] == [
        "cancel",
        "nap cancelled",
        "step do-undo-b",
        "do-undo-b = null",
        "step do-undo-a",
        "do-undo-a = null",
        "cancelled: Cancelled: stop",
    ]


def test_a_running_step_may_end_first_and_its_outcome_is_on_record(play):
    """R18: compensation must not overtake what it undoes: a step that has begun gets its grace."""

    def w():
        try:
            yield from do("x")
        finally:
            yield from do("undo")

    run = play(plain(w)).start().began("do-x").cancel()
    assert run.history[-1] == "cancel"
    assert run.execution.cancelling == {0: 12.0}
    run.done("do-x", "x")
    assert run.history[-2:] == ['do-x = "x"', "step do-undo"]
    assert run.execution.cancelling == {}
    again = play(plain(w)).start().began("do-x").cancel().gone("do-x")
    assert again.history[-2:] == ["do-x cancelled", "step do-undo"]


def test_a_step_that_waits_for_its_next_attempt_is_withdrawn_at_once(play):
    """R18: nothing runs; the same when its attempt fails within its grace."""

    def w():
        yield from do("x")

    waiting = play(plain(w)).start().began("do-x").retried("do-x", 60.0).cancel()
    assert waiting.history[-2:] == ["do-x cancelled", "cancelled: Cancelled: stop"]
    failing = play(plain(w)).start().began("do-x").cancel().retried("do-x", 60.0)
    assert failing.history[-3:] == ["do-x failed 0", "do-x cancelled", "cancelled: Cancelled: stop"]
    failing.replayed().close()


def test_a_step_whose_next_attempt_is_due_counts_as_running(play):
    """R18: at that very instant the host may have started it."""

    def w():
        yield from do("x")

    due = play(plain(w)).start().began("do-x").retried("do-x", 3.0)
    assert due.execution.progress(0).retry_at == due.later == 3.0
    assert due.cancel().history[-1] == "cancel"
    assert due.execution.cancelling == {0: 13.0}


def test_cancellation_waits_for_a_shield_and_strikes_at_the_next_command(play):
    """R18: the shield's value is delivered first; the command that follows is not performed."""
    seen = []

    def shielded():
        yield from do("s1")
        return (yield from do("s2"))

    def w():
        seen.append((yield from zart.shield(shielded())))
        try:
            yield from do("never")
        except zart.Cancelled:
            seen.append("struck")
            raise

    run = play(plain(w)).start().cancel().done("do-s1").done("do-s2", "value")
    assert seen == ["value", "struck"]
    assert run.history[-2:] == ['do-s2 = "value"', "cancelled: Cancelled: stop"]


def test_a_shield_that_has_ended_is_one_until_its_branch_goes_on(play):
    """R18: its value is delivered first, when one fact ends both the shield and what the branch is cancelled for."""
    seen = []

    def nothing():
        return
        yield

    def pay(task):
        return (yield from zart.wait([task]))

    def paying(task):
        seen.append((yield from zart.shield(pay(task))))
        try:
            yield from do("never")
        except zart.Cancelled:
            seen.append("struck")
            raise

    def other(task):
        for name in ("a", "b", "c"):
            yield from zart.scope(name, nothing())
        yield from zart.wait([task])

    def w():
        task = yield from zart.schedule(do("x"))
        yield from zart.race(paying(task), other(task))

    run = play(plain(w)).start().done("do-x", "paid")
    assert seen == [["paid"], "struck"]
    assert run.history[-2:] == ['do-x = "paid"', "completed null"]


def struck_while_it_cancels(after):
    """A branch forgets a command that was not issued; who waits for that cancels the branch, in the same instant."""
    tasks = {}

    def nothing():
        return 1
        yield

    def inner():
        tasks["x"] = yield from zart.schedule(do("x"))
        return (yield from after(tasks["x"], nothing()))

    def outer():
        try:
            yield from zart.race(tasks["inner"], tasks["x"])
        except zart.Cancelled:
            return "x"

    def w():
        tasks["inner"] = yield from zart.schedule(inner())
        task = yield from zart.schedule(outer())
        return [repr(outcome) for outcome in (yield from zart.settle([task, tasks["inner"]]))]

    return plain(w)


def test_a_branch_that_has_ended_keeps_its_outcome(play):
    """R1, R24: it is not struck any more by who waited for something that it left behind."""

    def after(task, flow):
        yield from zart.scope("s", flow)
        return "done"

    run = play(struck_while_it_cancels(after)).start()
    assert run.result == ["Ok(value='x')", "Ok(value='done')"]


def test_a_branch_is_struck_while_it_cancels_the_losers_of_a_race(play):
    """R18: it does not go on as if nothing had been, and could never be cancelled again."""

    def after(task, flow):
        yield from zart.race(task, flow)
        yield from do("never")

    run = play(struck_while_it_cancels(after)).start()
    assert run.result == ["Ok(value='x')", "Err(error=Cancelled('nobody waited for it any more'))"]


def test_a_shield_beside_others_is_waited_for_as_well(play):
    """R18: as a task, as a loser of a race, and as something left behind."""

    def w():
        yield from zart.race(do("a"), zart.shield(helper()))
        yield from zart.schedule(zart.shield(do("b")))
        yield from zart.sleep("nap", 1)

    run = play(plain(w)).start().done("do-a")
    assert run.history[-1] == "do-a = null"
    run.done("do-x").done("nap")
    assert run.history[-1] == "nap = null"
    assert run.done("do-b").history[-1] == "completed null"


def test_a_workflow_that_swallows_cancelled_goes_on(play):
    """R18: and may complete; a second request changes nothing."""

    def w():
        try:
            yield from do("a")
        except zart.Cancelled as strike:
            return (yield from do("b")) + strike.reason

    run = play(plain(w)).start().cancel().cancel("again").done("do-b", "done")
    assert run.history[-1] == 'completed "donestop"'


def test_terminate_ends_at_once_without_code(play):
    """R18: nothing is wanted any more, whatever was."""
    ran = []

    def w():
        try:
            yield from do("a")
        finally:
            ran.append("finally")
            yield from do("undo")

    run = play(plain(w)).start().terminate()
    assert (run.history[-1], ran, run.execution.decide()) == ("terminated", [], [])
    assert run.execution.status is zart.Status.TERMINATED


def test_a_terminated_run_wants_nothing_even_if_new_code_would(play):
    """P6: a parked run that is terminated, replayed with other code."""

    def old():
        yield from do("a")

    def new():
        yield from do("a")
        yield from do("b")

    run = play(plain(old)).start()
    run.add(run.outcome("do-a", zart.Done(b"null"), held=True), zart.Closed(zart.Status.TERMINATED, 5.0))
    assert play(plain(new)).add(*run.log).execution.decide() == []


def test_cancelling_a_task_waits_until_it_has_unwound(play):
    """`task.cancel()` gives True, and False for one that had ended; the error of its compensation is shown (R24)."""

    def flow():
        try:
            yield from do("x")
        finally:
            yield from do("undo")
            raise ValueError("in vain")

    def w():
        task = yield from zart.schedule(flow())
        done = yield from zart.schedule(zart.sleep("nap", 1))
        yield from zart.wait([done])
        first = yield from task.cancel()
        second = yield from task.cancel()
        return [first, second, (yield from done.cancel())]

    run = play(plain(w)).start().done("nap").done("do-undo")
    assert run.result == [True, False, False]
    assert run.execution.unobserved() == ["flow 'flow': ValueError: in vain"]


class Dumb(Exception):
    def __str__(self):
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("caf\udce9"), "ValueError: caf\\udce9"),
        (ValueError("x" * 9000), f"ValueError: {'x' * 8192}..."),
        (Dumb(), "Dumb: <its __str__ raised RuntimeError>"),
    ],
    ids=["no-text", "long", "dumb"],
)
def test_an_error_that_nobody_waited_for_is_told_in_a_text_that_any_log_can_hold(play, error, text):
    """R24: the note on it is part of the turn that ends the run, which it must not keep from being written."""

    def flow():
        raise error
        yield

    def w():
        yield from zart.schedule(flow())
        yield from do("x")

    run = play(plain(w)).start().done("do-x")
    assert run.history[-1] == "completed null"
    assert run.execution.unobserved() == [f"flow 'flow': {text}"]


@pytest.mark.parametrize("use", [lambda task: zart.wait([task]), lambda task: task.cancel()])
def test_a_task_belongs_to_its_run(play, use):
    """I8: another run would see its outcome, and be driven by it; so does one that is replayed in the same process."""

    def w(tasks=[]):
        tasks.append((yield from zart.schedule(do("x"))))
        yield from use(tasks[0])

    play(plain(lambda: (yield from w()))).start()
    with pytest.raises(zart.NotACommand, match="<task step 'do-x'> was started by another run"):
        play(plain(lambda: (yield from w()))).start()


@pytest.mark.parametrize("wait", [zart.wait, zart.settle, lambda tasks: zart.gather(*tasks)])
def test_a_flow_cannot_wait_for_itself(play, wait):
    """Workers that wait for all workers would stand still for ever, and nothing would say why."""
    tasks = []

    def worker():
        yield from wait(tasks)

    def w():
        tasks.append((yield from zart.schedule(worker())))
        yield from zart.wait(tasks)

    run = play(plain(w)).start()
    assert run.history[-1].startswith("failed: StepsFailed")
    assert "leave its own task out" in run.log[-1].failure.traceback


def test_a_flow_may_be_among_those_of_which_one_is_enough(play):
    """Another one ends the wait."""
    tasks = []

    def worker():
        index, _ = yield from zart.wait_any([*tasks, do("x")])
        return index

    def w():
        tasks.append((yield from zart.schedule(worker())))
        return (yield from zart.wait(tasks))

    assert play(plain(w)).start().done("do-x").result == [1]


def test_a_flow_cannot_cancel_itself(play):
    """It would wait for its own end."""

    def flow(box):
        yield from do("x")
        yield from box[0].cancel()

    def w():
        box = []
        box.append((yield from zart.schedule(flow(box))))
        yield from zart.wait(box)

    run = play(plain(w)).start().done("do-x")
    assert "a flow cannot cancel itself" in run.log[-1].failure.traceback


# ---------------------------------------------------------------- what is left behind (R24)


def test_what_was_left_behind_is_cancelled_newest_first_before_the_outcome_counts(play):
    """R24: issued ones get Resolved(Cancelled), flows unwind, and only then the run is closed."""

    def flow():
        try:
            yield from do("inner")
        finally:
            yield from do("undo")

    def w():
        yield from zart.schedule(do("old"))
        yield from zart.schedule(flow())
        yield from zart.schedule(do("new"))
        yield from zart.sleep("nap", 1)
        return "done"

    run = play(plain(w)).start().done("nap")
    assert run.history[-5:] == [
        "nap = null",
        "do-new cancelled",
        "do-inner cancelled",
        "do-old cancelled",
        "step do-undo",
    ]
    assert run.done("do-undo").history[-1] == 'completed "done"'


def test_what_was_not_issued_yet_is_forgotten(play):
    """R24: it leaves no trace in the log."""

    def w():
        yield from zart.schedule(do("never"))
        return "done"

    assert play(plain(w)).start().history == ["started", 'completed "done"']


def test_the_last_thing_left_behind_lets_the_run_end(play):
    """R24: when it is a single command, whose withdrawal makes nothing runnable."""

    def w():
        yield from zart.schedule(do("left"))
        yield from zart.sleep("nap", 1)

    assert play(plain(w)).start().done("nap").history[-2:] == ["do-left cancelled", "completed null"]


def test_an_error_that_nobody_waited_for_is_shown_not_raised(play):
    """R24: and one that somebody waited for is not shown."""

    def w():
        yield from zart.schedule(do("a"))
        task = yield from zart.schedule(do("b"))
        yield from zart.sleep("nap", 1)
        yield from zart.settle([task])

    run = play(plain(w)).start().fails("do-a", kind="lost").fails("do-b", kind="lost").done("nap")
    assert run.history[-1] == "completed null"
    assert run.execution.unobserved() == ["step 'do-a': StepLost: it is lost"]


def test_only_race_and_fail_fast_cancel_the_others(play):
    """The loser of a race has unwound before the race is over; those beside a `wait_any` go on."""

    def loser():
        try:
            yield from do("slow")
        finally:
            yield from do("undo")

    def w():
        won = yield from zart.race(do("quick"), loser())
        a, b = (yield from zart.schedule(do("a"))), (yield from zart.schedule(do("b")))
        first = yield from zart.wait_any([a, b])
        assert first == (1, zart.Ok("B"))
        return [won, (yield from zart.wait([a, b]))]

    run = play(plain(w)).start().done("do-quick", "Q")
    assert run.history[-2:] == ["do-slow cancelled", "step do-undo"]
    run.done("do-undo").done("do-b", "B").done("do-a", "A")
    assert run.result == [(0, "Q"), ["A", "B"]]


def test_a_cancellation_while_losers_unwind_strikes_instead_of_the_answer(play):
    """R18: the race is not over yet, so it is where the workflow waits."""
    seen = []

    def loser():
        try:
            yield from do("slow")
        finally:
            yield from do("undo")

    def w():
        try:
            yield from zart.race(do("quick"), loser())
        except zart.Cancelled:
            seen.append("struck")
            raise

    run = play(plain(w)).start().done("do-quick", "Q").cancel()
    assert seen == []
    assert (run.done("do-undo").history[-1], seen) == ("cancelled: Cancelled: stop", ["struck"])


# ---------------------------------------------------------------- closing


def test_closing_runs_plain_finally_code_and_ignores_commands(play):
    """Eviction: every generator is closed, innermost first, with nothing recorded and nobody complaining."""
    ran = []

    def inner():
        try:
            yield from do("x")
        finally:
            ran.append("inner")
            yield from do("undo")
            ran.append("never")

    def stubborn():
        while True:
            try:
                yield from do("y")
            except GeneratorExit:
                ran.append("stubborn")
                if len(ran) > 50:
                    raise

    def w():
        try:
            yield from zart.schedule(stubborn())
            yield from inner()
        finally:
            ran.append("root")

    run = play(plain(w)).start()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run.close()
    assert ran[:51] == ["stubborn"] * 51
    assert ran[-2:] == ["inner", "root"]
    with pytest.raises(zart.Defect, match="was closed"):
        run.cancel()


def test_code_that_closes_its_own_execution_comes_to_an_end(play):
    """What runs cannot be closed: it was tried again for ever."""
    runs = []

    def w():
        runs[0].close()
        yield from do("x")

    runs.append(play(plain(w)))
    runs[0].add(zart.Started("an-id", 0, "w", b"null", 0.0))
    with pytest.raises(zart.Defect, match="was closed"):
        runs[0].add(zart.Noted("x", at=1.0))


def test_replay_closes_what_it_opened_when_it_fails(play):
    """A Diverged leaves no generator to the garbage collector."""
    ran = []

    def w():
        try:
            yield from do("x")
        finally:
            ran.append("closed")
            yield from do("undo")

    log = [zart.Started("an-id", 0, "w", b"null", 0.0), zart.Issued(0, "step", "another", 0.0)]
    with pytest.raises(zart.Diverged):
        zart.replay(plain(w), log)
    assert ran == ["closed"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, MemoryError])
def test_closing_lets_the_end_of_the_process_through(play, stop):
    """F27: what `finally` code raises has nobody to tell, but an interruption of the process is not swallowed."""
    ran = []

    def noisy():
        try:
            yield from do("x")
        finally:
            ran.append("noisy")
            raise ValueError("nobody hears this")

    def stopping():
        try:
            yield from do("y")
        finally:
            ran.append("stopping")
            raise stop

    def w():
        yield from zart.gather(stopping(), noisy())

    run = play(plain(w)).start()
    with pytest.raises(stop):
        run.close()
    assert ran == ["noisy", "stopping"]


def test_a_branch_that_is_struck_before_it_could_go_on_resumes_once(play):
    """One fact wakes two branches; the first ends the second, which sees Cancelled and not the value."""
    seen = []

    def listener(task):
        try:
            seen.append((yield from zart.wait([task])))
        except zart.Cancelled:
            seen.append("cancelled")

    def w():
        task = yield from zart.schedule(do("x"))
        ended = yield from zart.schedule(do("end"))
        other = yield from zart.schedule(listener(task))
        yield from zart.wait([ended])
        yield from zart.wait([task])
        yield from other.cancel()
        yield from do("after")

    def first_in_line():
        task = yield from zart.schedule(do("x"))
        other = yield from zart.schedule(waker(task))
        yield from zart.wait([other])

    def waker(task):
        other = yield from zart.schedule(listener(task))
        yield from zart.wait([task])
        yield from other.cancel()

    run = play(plain(first_in_line)).start().done("do-x", "v")
    assert (seen, run.history[-1]) == (["cancelled"], "completed null")
    seen.clear()
    play(plain(w)).start().done("do-end").done("do-x", "v")
    assert seen == [["v"]]


def test_what_is_scheduled_inside_a_wait_counts_as_the_thing_itself(play):
    """`wait([schedule(x)])` is `wait([x])`."""

    def w():
        return (yield from zart.wait([zart.schedule(do("a")), do("b")]))

    run = play(plain(w)).start().done("do-b", 2).done("do-a", 1)
    assert (run.result, run.execution.unobserved()) == ([1, 2], [])


def test_what_runs_beside_a_shield_is_cancelled_at_once(play):
    """R18: only the shield itself is waited for; what was started beside it unwinds meanwhile."""

    def shielded():
        yield from do("x")
        return "kept"

    def w():
        yield from zart.schedule(do("beside"))
        kept = yield from zart.shield(shielded())
        yield from do(kept)

    run = play(plain(w)).start().cancel()
    assert run.history[-1] == "do-beside cancelled"
    run.done("do-x")
    assert run.history[-1] == "cancelled: Cancelled: stop"


def test_an_async_function_that_is_yielded_says_that_only_steps_are_async(play):
    """R12: a coroutine and an asynchronous generator alike."""

    async def coroutine():
        return 1

    async def generator():
        yield 1

    def yielding(thing):
        def w():
            yield thing

        return w

    for make in (coroutine, generator):
        thing = make()
        workflow = plain(yielding(thing))
        with pytest.raises(zart.NotACommand, match=r"only steps may be async: decorate the function with"):
            play(workflow).start()
        if make is coroutine:
            thing.close()


def test_a_bare_yield_of_what_is_tried(play):
    """`outcome`, `step_or` and `step_or_else` stand among the commands, and give the same by a bare yield too."""

    @zart.workflow("w")
    def w():
        tried = yield zart.outcome(do("x"))
        return [tried.value, (yield zart.step_or(do("y"), 7)), (yield zart.step_or_else(do("z"), str))]

    run = play(w).start().done("do-x", 1).fails("do-y", kind="lost").done("do-z", 3)
    assert run.result == [1, 7, 3]
    assert [event.site.line for event in run.log if isinstance(event, zart.Issued)] == [2, 3, 3]
