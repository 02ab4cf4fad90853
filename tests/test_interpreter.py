"""The interpreter: events, sleeps (R13, R14), endings (R16, R17, R19), held facts (R20), markers (R23), the table."""

from __future__ import annotations

import math
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest

import zart_core as zart
from zart_core.branches import Progress
from zart_core.events import CLOSED
from zart_core.interpreter import TRANSITIONS
from zart_core.wording import REMEDY


class Known(Exception):
    """Declared by the step."""


@zart.step("do-{what}", raises=(Known,), retry=zart.Retry.fixed(2, 5))
def do(what: str) -> Any:
    return what


@zart.workflow("kid")
def kid(n: int) -> zart.Flow[int]:
    yield from do("kid")
    return n


def plain(fn: Any, **options: Any) -> zart.Workflow[Any, Any]:
    """A workflow of a generator function, under one name."""
    return zart.workflow("w", **options)(fn)


# ---------------------------------------------------------------- commands and their answers


def test_each_leaf_is_issued_with_all_that_code_does_not_know(play):
    """A log tells arguments, wake times, deadlines and child ids; the code tells functions and types."""

    @zart.workflow("w")
    def w(n: int):
        return (yield from zart.gather(
            do("x"),
            zart.sleep("nap", "10s"),
            zart.sleep_until("alarm", datetime.fromtimestamp(99, UTC)),
            zart.wait_for_event("e", int, timeout="1m"),
            zart.child(kid, 5),
        ))  # fmt: skip

    def issued(seq, kind, name, **fields):
        return zart.Issued(seq, kind, name, 0.0, site=zart.Site("test_interpreter", SITE, 2), **fields)

    SITE = "test_each_leaf_is_issued_with_all_that_code_does_not_know.<locals>.w"
    run = play(w).start(b"1")
    assert run.log[1:] == [
        issued(0, "step", "do-x", of="do-{what}", payload=b'["x"]'),
        issued(1, "sleep", "nap", until=10.0),
        issued(2, "sleep", "alarm", until=99.0),
        issued(3, "event", "e[1]", of="e", until=60.0),
        issued(4, "child", "kid[1]", of="kid", payload=b"5", child="an-id.0.4"),
    ]
    pending = {fact.seq: fact for fact in run.log[1:]}
    assert (run.execution.pending, repr(run.execution.pending)) == (pending, repr(pending))
    assert 4 in run.execution.pending and 5 not in run.execution.pending
    run.done("do-x", "x").done("nap").done("alarm").deliver("e", b"7").done("kid[1]", 5)
    assert run.result == ("x", None, None, 7, 5)


def test_now_capture_uuid_random_spawn_and_version_are_answered(play):
    """now and version by their own Issued, captures in the same turn, spawn with the id."""

    def w():
        now = yield from zart.now("n")
        number = yield from zart.capture("c", lambda: 41, int)
        unique = yield from zart.uuid("u")
        chance = yield from zart.random("r")
        version = yield from zart.version("v", 3)
        again = yield from zart.version("v", 4)
        spawned = yield from zart.spawn(kid, 1, id="detached").named("s")
        return [now, number, unique.version, 0 <= chance < 1, version, again, spawned]

    run = play(plain(w)).start()
    assert [line.split(" =")[0] for line in run.history] == [
        "started", "now n", "capture c", "c", "capture u", "u", "capture r", "r", "version v", "spawn s",
    ]  # fmt: skip
    run.done("s", "detached")
    start = datetime.fromtimestamp(0, UTC)
    assert run.result == [start, 41, 4, True, 3, 3, "detached"]
    assert play(plain(w)).add(*run.log).result == run.result


def test_outcomes_of_a_step_come_back_as_their_own_kind(play):
    """R6, R8: the declared error as itself, any other as StepFailed, and the words for the rest."""

    def w():
        seen = []
        for name in "a", "b", "c", "d", "e":
            try:
                yield from do(name)
            except Exception as error:
                seen.append(f"{type(error).__name__}: {error}")
        return seen

    run = play(plain(w)).start()
    run.fails("do-a", Known("as declared")).fails("do-b", KeyError("k"))
    exhausted = zart.Failure(
        "exhausted", "E", "m", attempts=3, cause=zart.Failure("error", "OSError", "gone")
    )
    run.turn(run.outcome("do-c", zart.Failed(exhausted)))
    run.fails("do-d", kind="timed_out").fails("do-e", kind="lost")
    assert run.result == [
        "Known: as declared",
        "StepFailed: step 'do-b' failed: KeyError: 'k'",
        "RetryExhausted: step 'do-c' failed at all 3 attempts; the last error was "
        "StepFailed: step 'do-c' failed: OSError: gone",
        "StepTimedOut: it is timed_out",
        "StepLost: it is lost",
    ]


def test_asking_changes_nothing_and_decide_stops_at_what_resumes(play):
    """P2: up to and including the first event that resumes the workflow."""

    def w():
        yield from zart.gather(do("a"), inner(), do("b"))

    def inner():
        yield from zart.now("n")
        yield from do("c")

    run = play(plain(w))
    run.execution.apply(zart.Started("an-id", 0, "w", b"null", 0.0))
    first = run.execution.decide()
    assert [(fact.seq, fact.name) for fact in first] == [(0, "do-a"), (1, "do-b"), (2, "n")]
    assert run.execution.decide() == first
    assert run.execution.position == 1


# ---------------------------------------------------------------- R13


def test_wake_times_are_fixed_when_issued_and_recorded(play):
    """R13: a replay reads them from the log, whatever the code says by then."""

    def w():
        yield from zart.sleep("nap", 10)

    def longer():
        yield from zart.sleep("nap", 99)

    run = play(plain(w)).start()
    assert play(plain(longer)).add(*run.log).execution.pending[0].until == 10.0


# ---------------------------------------------------------------- R14


def test_events_are_kept_in_order_and_each_wait_takes_one(play):
    """R14: delivered before the wait, between waits and while several wait; what is left is listed."""

    def w():
        yield from do("x")
        first = yield from zart.wait_for_event("e", int)
        other = yield from zart.wait_for_event("other", int)
        two = yield from zart.wait([zart.wait_for_event("e", int), zart.wait_for_event("e", int)])
        return [first, other, two]

    run = play(plain(w)).start().deliver("e", b"1").deliver("e", b"2").deliver("other", b"3")
    assert run.execution.untaken() == [("e", b"1"), ("e", b"2"), ("other", b"3")]
    run.done("do-x").deliver("e", b"4")
    assert run.result == [1, 3, [2, 4]]
    assert run.history[-7:-2] == [
        "other[1] takes 2",
        "event e[2]",
        "event e[3]",
        "e[2] takes 1",
        "delivered 3 e",
    ]


def test_a_payload_that_does_not_decode_is_rejected_and_consumed(play):
    """R14: EventRejected, and the next wait takes the next one."""

    def w():
        try:
            yield from zart.wait_for_event("e", int)
        except zart.EventRejected as error:
            return [error.event, (yield from zart.wait_for_event("e", int))]

    run = play(plain(w)).start().deliver("e", b'"text"').deliver("e", b"2")
    assert run.result == ["e", 2]


def test_an_event_wait_that_times_out_stands_in_line_no_longer(play):
    """R14: the delivery that comes later goes to the next one."""

    def w():
        first = yield from zart.outcome(zart.wait_for_event("e", int, timeout=5))
        return [type(first.error).__name__, (yield from zart.wait_for_event("e", int))]

    run = play(plain(w)).start().fails("e[1]", kind="event_timed_out").deliver("e", b"2")
    assert run.result == ["EventTimedOut", 2]


def test_a_cancelled_wait_gives_its_delivery_to_the_next_in_line(play):
    """R14: none is lost when the one that was about to take it is cancelled in the same turn."""

    def quick():
        yield from zart.now("n")

    def w():
        yield from do("x")
        other = yield from zart.schedule(zart.wait_for_event("e", int, name="other"))
        won = yield from zart.race(zart.wait_for_event("e", int, name="first"), quick())
        return [won, (yield from zart.wait([other]))]

    def late():
        yield from do("x")
        losing = yield from zart.schedule(zart.wait_for_event("e", int, name="losing"))
        other = yield from zart.schedule(zart.wait_for_event("e", int, name="other"))
        yield from zart.now("n")
        yield from losing.cancel()
        return (yield from zart.wait([other]))

    run = play(plain(late)).start().deliver("e", b"1").done("do-x")
    assert run.history[-6:] == [
        "event losing", "event other", "now n", "other takes 0", "losing cancelled", "completed [1]",
    ]  # fmt: skip
    again = play(plain(w)).start().deliver("e", b"1").done("do-x")
    assert again.result == [(1, None), [1]]


def test_deliveries_that_are_given_back_keep_their_order(play):
    """R14: whichever wait is cancelled first."""

    def losers():
        yield from zart.wait([zart.wait_for_event("e", int, name=name) for name in "ab"])

    def quick():
        yield from zart.now("n")

    def w():
        yield from do("x")
        yield from zart.race(losers(), quick())
        return (yield from zart.wait([zart.wait_for_event("e", int), zart.wait_for_event("e", int)]))

    run = play(plain(w)).start().deliver("e", b"1").deliver("e", b"2").done("do-x")
    assert run.result == [1, 2]


def test_waits_behind_a_cancelled_one_move_up(play):
    """R14: a message is never taken before an older one, and the oldest wait that is left takes the oldest."""

    def loses():
        yield from zart.race(zart.wait_for_event("e", int, name="lost"), quick())

    def quick():
        yield from zart.now("n")

    def wins(name):
        return (yield from zart.wait_for_event("e", int, name=name))

    def w():
        yield from do("x")
        first = yield from zart.wait([loses(), *(wins(name) for name in "abc")])
        return [*first[1:], (yield from zart.wait_for_event("e", int))]

    run = play(plain(w)).start().deliver("e", b"1").deliver("e", b"2").done("do-x")
    assert run.history[-8:] == [
        "event lost", "event a", "event b", "event c", "now n", "a takes 0", "b takes 1", "lost cancelled",
    ]  # fmt: skip
    run.deliver("e", b"3").deliver("e", b"4")
    assert run.result == [1, 2, 3, 4]
    enough = play(plain(w)).start()
    for n in b"123456":
        enough.deliver("e", b"%c" % n)
    enough.done("do-x")
    assert enough.result == [1, 2, 3, 4]
    assert enough.execution.untaken() == [("e", b"5"), ("e", b"6")]


def test_deliveries_have_numbers_without_a_gap(play):
    """A log in which one is missing is damaged."""

    def w():
        yield from do("x")

    with pytest.raises(zart.LogCorrupt, match="delivery 3 follows -1"):
        play(plain(w)).start().turn(zart.Delivered(3, "e", b"1", 1.0))


def test_commands_have_numbers_without_a_gap(play):
    """A log in which one is missing is damaged."""

    def w():
        yield from do("x")

    run = play(plain(w)).add(zart.Started("an-id", 0, "w", b"null", 0.0))
    (issued,) = run.execution.decide()
    with pytest.raises(zart.LogCorrupt, match="command 3 follows -1"):
        run.add(attrs.evolve(issued, seq=3))


# ---------------------------------------------------------------- R16, R17, R19


def test_the_deadline_strikes_like_a_cancellation(play):
    """R16: DeadlineExceeded is a Cancelled; compensation runs without the cap; the run ends as timed_out."""
    seen = []

    def w():
        try:
            yield from do("x")
        except zart.Cancelled as strike:
            seen.append(type(strike))
            yield from do("undo")
            raise

    run = play(plain(w)).start(deadline=50.0)
    assert run.execution.deadline == 50.0
    run.late()
    assert (run.execution.deadline, seen) == (None, [zart.DeadlineExceeded])
    assert run.done("do-undo").history[-1] == "timed_out: DeadlineExceeded: late"


def test_on_failure_completes_or_fails_the_run(play):
    """R17: a function or a flow of (input, failure), or one step; what it returns completes, what it raises fails."""

    def w():
        yield from do("x")

    def flow(input, failure):
        text = yield from do("tell")
        return f"{text} {type(failure).__name__}"

    def bad(input, failure):
        raise KeyError("worse")

    def bad_flow(input, failure):
        yield from do("tell")
        raise KeyError("worse")

    error = Known("no")
    assert (
        play(plain(w, on_failure=lambda i, e: repr(e))).start().fails("do-x", error).result == "Known('no')"
    )
    assert (
        play(plain(w, on_failure=flow)).start().fails("do-x", error).done("do-tell", "told").result
        == "told Known"
    )
    told = (
        play(plain(w, on_failure=lambda i, e: do("tell")))
        .start()
        .fails("do-x", error)
        .done("do-tell", "told")
    )
    assert (told.result, told.execution.unobserved()) == ("told", [])
    asked = [event for event in told.log if isinstance(event, zart.Issued)]
    assert asked[-1].site.qualname.endswith("<locals>.<lambda>")
    for failing in bad, bad_flow:
        run = play(plain(w, on_failure=failing)).start().fails("do-x", error)
        if failing is bad_flow:
            run.done("do-tell")
        assert run.history[-1] == "failed: KeyError: 'worse'"


def test_on_failure_is_called_for_the_deadline_and_not_for_a_cancellation(play):
    """R16, R17: what it returns completes the run; what it raises leaves it timed_out; terminate runs no code."""
    called = []

    def w():
        yield from do("x")

    def handle(input, failure):
        called.append(type(failure).__name__)
        if len(called) > 1:
            raise KeyError("worse")
        return "handled"

    workflow = plain(w, on_failure=handle)
    assert play(workflow).start(deadline=5.0).late().history[-1] == 'completed "handled"'
    assert play(workflow).start(deadline=5.0).late().history[-1] == "timed_out: KeyError: 'worse'"
    assert play(workflow).start().cancel().history[-1] == "cancelled: Cancelled: stop"
    assert play(workflow).start().terminate().history[-1] == "terminated"
    assert called == ["DeadlineExceeded", "DeadlineExceeded"]


def test_a_cancellation_reaches_on_failure_too(play):
    """R18: it strikes the flow that runs by then."""

    def w():
        yield from do("x")

    def handle(input, failure):
        yield from do("tell")

    run = play(plain(w, on_failure=handle)).start().fails("do-x", Known("no")).cancel()
    assert run.history[-2:] == ["do-tell cancelled", "cancelled: Cancelled: stop"]


@pytest.mark.parametrize("when", ["before", "in on_failure"])
def test_what_on_failure_raises_fails_the_run_whatever_was_swallowed(play, when):
    """R17, R18: a cancellation that was swallowed is over, and the run goes on to an end of its own."""

    def swallowed(name):
        try:
            yield from do(name)
        except zart.Cancelled:
            yield from do("go-on")

    def w():
        if when == "before":
            yield from swallowed("x")
        raise Known("no")

    def handle(input, failure):
        if when == "in on_failure":
            yield from swallowed("x")
        yield from do("tell")
        raise KeyError("worse")

    run = play(plain(w, on_failure=handle)).start().cancel().done("do-go-on").done("do-tell")
    assert run.history[-1] == "failed: KeyError: 'worse'"


def test_park_on_parks_instead_of_failing_and_comes_before_on_failure(play):
    """R19: the log holds the fact alone, and nothing was compensated."""

    def w():
        yield from do("x")
        raise KeyError("a bug")

    run = play(plain(w, park_on=(KeyError,), on_failure=lambda i, e: "handled")).start()
    with pytest.raises(zart.Parked, match="KeyError: 'a bug'"):
        run.done("do-x")
    assert run.execution.broken is not None


def test_an_exception_that_leaves_the_workflow_fails_the_run_with_its_traceback(play):
    """R19: type, message and traceback are recorded."""

    def w():
        yield from do("x")
        raise ValueError("because")

    failure = play(plain(w)).start().done("do-x").log[-1].failure
    assert (failure.type, failure.message) == ("ValueError", "because")
    assert 'raise ValueError("because")' in failure.traceback


def test_continue_as_new_ends_the_run_after_what_it_left_behind(play):
    """The next run's input is the payload; plain finally code runs; what no wait took moves along."""
    ran = []

    @zart.workflow("w")
    def w(n: int):
        yield from zart.schedule(do("left"))
        try:
            yield from zart.sleep("nap", 1)
            yield from w.continue_as_new(n + 1)
        finally:
            ran.append("finally")
            yield from do("never")

    run = play(w).start(b"1").deliver("e", b"5").done("nap")
    assert run.history[-2:] == ["do-left cancelled", "continued 2"]
    assert (ran, run.execution.untaken()) == (["finally"], [("e", b"5")])


def test_a_run_continues_as_the_workflow_that_it_is(play):
    """The next run would begin with its own first line, and with the input of the other one."""

    @zart.workflow("other")
    def other(n: int):
        yield from do("x")

    def w():
        try:
            yield from other.continue_as_new(1)
        finally:
            yield from do("never")

    with pytest.raises(zart.NotACommand, match="of workflow 'other' in a run of 'w'"):
        play(plain(w)).start()


def test_continue_as_new_belongs_into_the_root_branch(play):
    """A branch cannot end its run."""

    def w():
        def inner():
            yield from plain(w).continue_as_new(None)

        yield from zart.schedule(inner())
        yield from do("x")

    with pytest.raises(zart.NotACommand, match="belongs into the root branch"):
        play(plain(w)).start()


def test_continue_as_new_goes_on_with_the_same_workflow(play):
    """Another one's would begin this one again, with an input that is not its own."""

    def w():
        yield from do("x")
        yield from kid.continue_as_new(1)

    run = play(plain(w)).start()
    with pytest.raises(zart.NotACommand, match="of workflow 'kid' in a run of 'w'"):
        run.done("do-x")


def test_a_cancellation_while_continue_as_new_unwinds_is_not_lost_with_the_run(play):
    """R18: the next run would know nothing of it, so this one ends as cancelled."""

    def left():
        try:
            yield from do("x")
        finally:
            yield from do("undo")

    def w():
        yield from zart.schedule(left())
        yield from zart.sleep("nap", 1)
        yield from plain(w).continue_as_new(None)

    run = play(plain(w)).start().done("nap").cancel().done("do-undo")
    assert run.history[-1] == "cancelled: Cancelled: stop"


def test_a_spawn_that_is_cancelled_leaves_its_execution_alone(play):
    """It lives on its own: the command is withdrawn, nothing is told to end."""

    def w():
        yield from zart.spawn(kid, 1)

    run = play(plain(w)).start().cancel()
    assert run.history[-2:] == ["kid[1] cancelled", "cancelled: Cancelled: stop"]


def test_a_child_that_is_cancelled_is_waited_for(play):
    """R24: until it has ended, however long."""

    def w():
        yield from zart.child(kid, 1)

    run = play(plain(w)).start().cancel()
    assert (run.history[-1], run.execution.cancelling) == ("cancel", {0: math.inf})
    assert run.fails("kid[1]", kind="child").history[-1] == "cancelled: Cancelled: stop"


def test_an_annotation_that_cannot_be_resolved_parks(play):
    """R20: the declarations are wrong, so a developer has to act; no host falls over it."""

    @zart.step("s")
    def s(x: Nowhere) -> NowhereElse:  # noqa: F821
        return x

    def w():
        yield from s(1)

    run = play(plain(w))
    run.add(zart.Started("an-id", 0, "w", b"null", 0.0))
    with pytest.raises(zart.Defect, match=r"the annotations of .* cannot be resolved"):
        run.execution.decide()

    @zart.workflow("w")
    def typed(x: Nowhere):  # noqa: F821
        yield from do("x")

    with pytest.raises(zart.Defect, match="cannot be resolved"):
        play(typed).start()


def test_what_cannot_be_written_down_parks(play):
    """R9, R20: arguments and results; the error names the command and its place."""

    def w():
        yield from do(object())

    def gives():
        yield from do("x")
        return object()

    with pytest.raises(
        zart.Unencodable, match=r"step 'do-<object object.*w, line \+1 cannot be written down"
    ):
        play(plain(w)).start()
    with pytest.raises(zart.Unencodable, match="its result cannot be written down"):
        play(plain(gives)).start().done("do-x")


def test_a_result_that_no_longer_decodes_is_a_divergence(play):
    """R20: the code has changed its types; the log is right."""

    @zart.step("s")
    def old() -> str:
        return "text"

    @zart.step("s")
    def new() -> int:
        return 1

    def w(step=old):
        yield from step()

    run = play(plain(lambda: (yield from w()))).start().done("s", "text")
    with pytest.raises(zart.Diverged, match="the result of step 's' no longer decodes to int:"):
        run.replayed(plain(lambda: (yield from w(new))))


# ---------------------------------------------------------------- held facts (R20)


def waiting_for_two():
    a = yield from zart.schedule(do("a"))
    b = yield from zart.schedule(do("b"))
    yield from zart.wait([a])
    yield from zart.wait([b])


def fixed_two():
    a = yield from zart.schedule(do("a"))
    b = yield from zart.schedule(do("b"))
    yield from zart.wait([a])
    yield from do("new")
    event = yield from zart.wait_for_event("e", int)
    return [event, (yield from zart.wait([b]))]


def held_log(play):
    """Facts that were appended without answers while the run was parked."""
    run = play(plain(waiting_for_two)).start()
    for fact in (
        run.outcome("do-a", zart.Done(b"1"), held=True),
        run.outcome("do-b", zart.Done(b"2"), held=True),
        zart.Delivered(0, "e", b"7", 5.0, held=True),
    ):
        run.log.append(fact)
    return run


def test_held_facts_take_effect_one_after_the_other_once_code_fits(play):
    """R20: each waits until the answers to those before it are in the log; the same at every cut (P1)."""
    run = held_log(play).replayed(plain(fixed_two))
    assert run.execution.untaken() == [("e", b"7")]
    run.answer().done("do-new")
    assert run.result == [7, [2]]
    assert run.history[3:] == [
        "do-a = 1",
        "do-b = 2",
        "delivered 0 e",
        "step do-new",
        "do-new = null",
        "event e[1]",
        "e[1] takes 0",
        "completed [7,[2]]",
    ]
    for cut in range(1, len(run.log)):
        resumed = play(plain(fixed_two)).add(*run.log[:cut])
        assert resumed.add(*run.log[cut:]).result == [7, [2]]


def test_a_fact_that_is_not_held_never_slips_behind_held_ones(play):
    """P6: where the code wants more than was recorded, the next ordinary fact is Diverged."""
    run = held_log(play).replayed(plain(fixed_two)).answer().done("do-new")

    def wants_more():
        a = yield from zart.schedule(do("a"))
        b = yield from zart.schedule(do("b"))
        yield from zart.wait([a])
        yield from zart.gather(do("new"), do("newer"))
        yield from zart.wait([b])

    with pytest.raises(zart.Diverged, match="diverged at event 7"):
        run.replayed(plain(wants_more))


@pytest.mark.parametrize("live", [True, False])
def test_a_fact_before_everything_is_decided(play, live):
    """P6: nobody can tell a host that does not ask until nothing is left from code that changed: both are named."""

    def two():
        yield from zart.gather(do("a"), do("b"))

    @zart.workflow("w")
    def one():
        yield from do("a")

    began = zart.Began(0, 0, at=1.0)
    if live:
        run = play(plain(two)).add(zart.Started("an-id", 0, "w", b"null", 0.0))
        run.add(*run.execution.decide()[:1])
    else:
        run = play(one).start().add(began)
    with pytest.raises(zart.Diverged) as caught:
        run.add(began) if live else run.replayed(plain(two))
    early, remedy = str(caught.value).splitlines()[-2:]
    assert str(caught.value).splitlines()[:3] == [
        "execution 'an-id' (run 0) of workflow 'w' diverged at event 2",
        "  recorded: Began",
        f"  yielded:  step 'do-b'   at {caught.value.yielded_site}",
    ]
    assert early == (
        "  A fact came before all was decided. A host of your own has to append and apply what decide() gives, "
        "until it is empty, and only then the next fact. In a log that a host of ours wrote, the code has changed:"
    )
    assert remedy == f"  {REMEDY}" and caught.value.remedy == REMEDY


def test_thousands_of_held_facts_are_no_burden(play):
    """R20: they are drained in a loop, whatever stands before them."""

    def many(extra=False):
        tasks = []
        for n in range(2000):
            tasks.append((yield from zart.schedule(do(str(n)))))
        yield from zart.wait(tasks[:1])
        if extra:
            yield from do("new")
        return len((yield from zart.wait(tasks)))

    def many_old():
        return (yield from many())

    def many_new():
        return (yield from many(True))

    run = play(plain(many_old)).start()
    run.log += [run.outcome(f"do-{n}", zart.Done(b"1"), held=True) for n in range(2000)]
    resumed = run.replayed(plain(many_new)).answer().done("do-new")
    assert resumed.result == 2000


def test_a_held_outcome_of_a_command_that_was_settled_is_ignored(play):
    """F14: it came while the run was parked, and nobody could know."""

    def w():
        yield from zart.race(do("a"), do("b"))
        yield from do("c")

    run = play(plain(w)).start().done("do-a")
    seq = next(fact.seq for fact in run.log if isinstance(fact, zart.Issued) and fact.name == "do-b")
    failure = zart.Failure("error", "E", "m")
    late = zart.Resolved(seq, zart.Done(b"1"), 9.0, held=True), zart.Retried(seq, 0, failure, 9.0, 9.0)
    assert run.add(*late).execution.ignored == 2
    with pytest.raises(zart.LogCorrupt, match="command 77, which is not pending"):
        run.add(zart.Resolved(77, zart.Done(b"1"), 9.0))


def test_a_held_interruption_takes_effect_when_the_code_fits_again(play):
    """R16: the deadline that passed while the run was parked."""
    run = play(plain(waiting_for_two)).start(deadline=5.0)
    run.log += [
        run.outcome("do-a", zart.Done(b"1"), held=True),
        zart.Interrupted("deadline", 6.0, "late", held=True),
    ]
    resumed = run.replayed(plain(fixed_two)).answer()
    assert resumed.history[-4:] == [
        "step do-new",
        "do-new cancelled",
        "do-b cancelled",
        "timed_out: DeadlineExceeded: late",
    ]


def test_facts_held_beside_a_captured_value_wait_for_it(play):
    """R20: what is captured after one held fact is evaluated before the next one takes effect."""

    def w():
        a = yield from zart.schedule(do("a"))
        b = yield from zart.schedule(do("b"))
        yield from zart.wait([a])
        number = yield from zart.capture("c", lambda: 5, int)
        return [number, *(yield from zart.wait([b]))]

    run = play(plain(waiting_for_two)).start()
    run.log += [run.outcome(f"do-{name}", zart.Done(b"1"), held=True) for name in "ab"]
    resumed = run.replayed(plain(w))
    resumed.captures = False
    resumed.answer()
    assert (resumed.history[5:], sorted(resumed.execution.pending)) == (["capture c"], [1, 2])
    resumed.captures = True
    assert resumed.answer().result == [5, 1]
    assert resumed.history[5:] == ["capture c", "c = 5", "completed [5,1]"]


def test_a_held_outcome_that_was_overtaken_is_ignored(play):
    """F14: an earlier one of the held facts led to its command's cancellation."""

    def w():
        a = yield from zart.schedule(do("a"))
        b = yield from zart.schedule(do("b"))
        yield from zart.wait([a])
        yield from b.cancel()
        yield from do("c")

    run = play(plain(waiting_for_two)).start()
    run.log += [run.outcome(f"do-{name}", zart.Done(b"1"), held=True) for name in "ab"]
    resumed = run.replayed(plain(w)).answer()
    assert resumed.history[5:] == ["do-b cancelled", "step do-c"]
    assert resumed.execution.ignored == 1


def test_a_marker_before_held_facts_is_passed_without_losing_them(play):
    """R20, R23: a log that went on with another command answers the marker, and the held facts still count."""

    def w(marked):
        def w():
            a = yield from zart.schedule(do("a"))
            b = yield from zart.schedule(do("b"))
            yield from zart.wait([a])
            number = (yield from zart.version("m", 2)) if marked else 1
            yield from do("c")
            return [number, *(yield from zart.wait([b]))]

        return plain(w)

    run = play(plain(waiting_for_two)).start()
    run.log += [run.outcome(f"do-{name}", zart.Done(b"1"), held=True) for name in "ab"]
    old = run.replayed(w(False)).answer()
    assert old.history[5:] == ["step do-c"]
    resumed = play(w(True)).add(*old.log).done("do-c")
    assert (resumed.result, resumed.history) == ([1, 1], old.done("do-c").history)


# ---------------------------------------------------------------- version markers (R23)


def old():
    yield from do("a")
    yield from do("b")
    return "old"


def marked(place, seen=None):
    """The old code with a marker before a, between a and b, or after b."""

    def w():
        for n, name in enumerate("ab"):
            if place == n:
                number = yield from zart.version("m", 2)
                if number == 2:
                    yield from do("new")
            yield from do(name)
        if place == 2:
            number = yield from zart.version("m", 2)
        return f"marked {number}"

    return w


def removed(place):
    """The marked code with the marker taken out, and the new step left in."""

    def w():
        for n, name in enumerate("ab"):
            if place == n:
                yield from do("new")
            yield from do(name)

    return w


@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_old_log_answers_a_new_marker_with_1(play, place):
    """R23: at any place that the log has passed; with the log at its end the marker is recorded as current."""
    run = play(plain(old)).start().done("do-a").done("do-b")
    finished = run.replayed(plain(marked(place)))
    assert finished.execution.status is zart.Status.COMPLETED
    half = play(plain(old)).start().done("do-a").replayed(plain(marked(place))).done("do-b")
    assert half.result == ("marked 2" if place == 2 else "marked 1")
    fresh = play(plain(marked(place))).start()
    for name in ["new", "a", "b"] if place == 0 else ["a", "new", "b"] if place == 1 else ["a", "b"]:
        fresh.done(f"do-{name}")
    assert fresh.result == "marked 2"


def test_a_marker_at_the_end_of_the_log_is_recorded_as_current(play):
    """R23: the run has not come past it; a replay of what follows agrees."""
    run = play(plain(old)).start()
    run.log.append(run.outcome("do-a", zart.Done(b"null"), held=True))
    resumed = run.replayed(plain(marked(1))).answer()
    assert resumed.history[-3:] == ["do-a = null", "version m = 2", "step do-new"]
    assert resumed.done("do-new").done("do-b").replayed(plain(marked(1))).result == "marked 2"


def test_a_recorded_marker_that_the_code_no_longer_yields_is_skipped(play):
    """R23: wherever it stood; also one that the code yields in another place keeps its answer."""
    for place in 0, 1, 2:
        run = play(plain(marked(place))).start()
        while run.execution.status is zart.Status.RUNNING:
            run.done(next(iter(run.execution.pending.values())).name)

        assert run.replayed(plain(removed(place))).execution.status is zart.Status.COMPLETED

    def moved():
        yield from do("a")
        number = yield from zart.version("m", 3)
        if number > 1:
            yield from do("new")
        yield from do("b")
        return number

    def before():
        yield from zart.version("m", 2)
        yield from do("a")
        yield from do("new")
        yield from do("b")

    run = play(plain(before)).start().done("do-a").done("do-new")
    assert run.replayed(plain(moved)).done("do-b").result == 2


def test_a_marker_before_an_answer_of_the_interpreter_is_passed(play):
    """R23: a Taken or a Cancellation may follow it, and an end."""

    def w(new):
        def marker():
            yield from do("go")
            if new:
                number = yield from zart.version("m", 2)
                assert number == 1

        def w():
            yield from zart.schedule(do("left"))
            yield from zart.race(marker(), zart.wait_for_event("e", int, name="losing"))
            first = yield from zart.wait_for_event("e", int)
            return first

        return plain(w)

    run = play(w(False)).start().deliver("e2").done("do-go").deliver("e", b"5")
    assert run.history[-5:] == [
        "event e[1]",
        "delivered 1 e",
        "e[1] takes 1",
        "do-left cancelled",
        "completed 5",
    ]
    assert run.replayed(w(True)).execution.status is zart.Status.COMPLETED


def test_markers_in_branches_take_their_place_in_the_order(play):
    """R23: what follows a marker takes its place among what other branches want; twins get one answer."""

    def w(new):
        def flow(name):
            if new:
                number = yield from zart.version("m", 2)
                assert number == 1
            yield from do(f"{name}1")
            yield from do(f"{name}2")

        def w():
            yield from zart.gather(flow("a"), do("x"), flow("b"))

        return plain(w)

    run = play(w(False)).start().done("do-b1").done("do-a1")
    resumed = run.replayed(w(True)).done("do-a2").done("do-x").done("do-b2")
    assert resumed.execution.status is zart.Status.COMPLETED


def test_twins_of_a_marker_get_one_answer_and_one_record(play):
    """R23: the same answer each time, also when both are asked before either is answered."""

    def w():
        def flow(name):
            number = yield from zart.version("m", 2)
            yield from do(f"{name}{number}")

        def between():
            yield from do("x")

        yield from zart.gather(flow("a"), between(), flow("b"))

    run = play(plain(w)).start()
    assert run.history == ["started", "version m = 2", "step do-x", "step do-b2", "step do-a2"]
    run.replayed().close()


def test_markers_in_scopes_are_different_ones(play):
    """R23: names of their own, with the scope's prefix."""

    def flow(current):
        return (yield from zart.version("m", current))

    def w():
        one = yield from zart.scope("a", flow(2))
        two = yield from zart.scope("b", flow(3))
        return [one, two]

    assert play(plain(w)).start().history == [
        "started",
        "version a/m = 2",
        "version b/m = 3",
        "completed [2,3]",
    ]


def test_a_marker_does_not_hide_what_is_new_beside_it(play):
    """P6: at the end of a complete log a marker may be wanted, and nothing else."""

    def w(new):
        def marker():
            yield from zart.version("m", 2)
            yield from do("later")

        def w():
            yield from do("a")
            if new:
                yield from zart.gather(marker(), do("new"))
            yield from do("b")

        return plain(w)

    run = play(w(False)).start().done("do-a")
    with pytest.raises(zart.Diverged):
        run.replayed(w(True))


def test_a_log_that_ends_with_a_cancellation_ends_too_early_for_code_that_wants_more(play):
    """P6: what the interpreter decided about a loser is an answer like any other."""

    def w(new):
        def racing():
            yield from zart.race(do("a"), zart.sleep("nap", 9))
            if new:
                yield from do("b")

        def w():
            yield from zart.gather(zart.wait_for_event("e"), racing())

        return plain(w)

    run = play(w(False)).start().done("do-a")
    assert run.log[-1].outcome == zart.Cancellation()
    with pytest.raises(zart.Diverged, match="the log ends here"):
        run.replayed(w(True))


def test_a_marker_that_newer_code_recorded_parks_code_that_does_not_know_it(play):
    """R23: a roll-back. An answer that the code has no branch for, and its type does not allow, is none."""

    def w(current):
        def w():
            number = yield from zart.version("m", current)
            yield from do("x")
            return number

        return plain(w)

    run = play(w(3)).start()
    with pytest.raises(zart.Diverged) as caught:
        run.replayed(w(2))
    error = caught.value
    assert (error.position, error.recorded, error.yielded) == (
        1,
        "version 'm' = 3",
        "version 'm', 2 at the most",
    )
    assert "goes on by itself once code that knows version 3 is registered again" in error.remedy
    assert str(error.yielded_site).endswith("<locals>.w, line +1")
    assert run.replayed(w(4)).done("do-x").result == 3


def test_a_marker_that_is_no_number_is_damage(play):
    """F21: whatever the bytes say."""
    run = play(plain(marked(0)))
    with pytest.raises(zart.LogCorrupt, match="not a number"):
        run.add(
            zart.Started("an-id", 0, "w", b"null", 0.0), zart.Issued(0, "version", "m", 0.0, payload=b"x")
        )


# ---------------------------------------------------------------- the table


OUTCOMES = (zart.Done(b"1"), zart.Failed(zart.Failure("error", "E", "m")), zart.Taken(0), zart.Cancellation())
EVENTS = [
    zart.Started("an-id", 0, "w", b"null", 1.0),
    zart.Issued(0, "step", "do-x", 1.0),
    zart.Issued(1, "version", "m", 1.0, payload=b"1"),
    zart.Began(0, 0, at=1.0),
    zart.Retried(0, 0, zart.Failure("error", "E", "m"), 2.0, 1.0),
    *(zart.Resolved(0, outcome, 1.0, held) for outcome in OUTCOMES for held in (False, True)),
    *(zart.Delivered(0, "e", b"1", 1.0, None, held) for held in (False, True)),
    *(zart.Interrupted(by, 1.0, "", held) for by in ("cancel", "deadline") for held in (False, True)),
    *(zart.Closed(status, 1.0) for status in sorted(CLOSED)),
    zart.Noted("handed-over", at=1.0),
]  # fmt: skip


def situations() -> dict[str, list[zart.Event]]:
    """A log for each status, and some within a turn."""
    started = zart.Started("an-id", 0, "w", b"null", 0.0)
    issued = zart.Issued(0, "step", "do-x", 0.0)
    done = zart.Resolved(0, zart.Done(b"1"), 0.0)
    return {
        "scheduled": [],
        "wanting": [started],
        "running": [started, issued],
        "begun": [started, issued, zart.Began(0, 0, at=0.0)],
        "cancelling": [started, issued, zart.Began(0, 0, at=0.0), zart.Interrupted("cancel", 0.0)],
        "ending": [started, issued, done],
        "completed": [started, issued, done, zart.Closed(zart.Status.COMPLETED, 0.0, b"null")],
        "terminated": [started, zart.Closed(zart.Status.TERMINATED, 0.0)],
    }


@pytest.mark.parametrize("situation", situations())
def test_any_event_in_any_status_gives_a_status_or_a_known_error(play, situation):
    """What is not in the table cannot happen: LogCorrupt; what the code does not ask for: Diverged; nothing else."""

    def w():
        yield from do("x")

    for event in EVENTS:
        run = play(plain(w)).add(*situations()[situation])
        allowed = type(event) in TRANSITIONS[run.execution.status]
        before = run.execution.position
        try:
            run.add(event)
        except (zart.Diverged, zart.LogCorrupt) as error:
            assert allowed or isinstance(error, zart.LogCorrupt)
            assert run.execution.position == before
            with pytest.raises(type(error)):
                run.add(event)
        else:
            assert allowed
            assert isinstance(run.execution.status, zart.Status)
            run.execution.decide()


def test_closed_statuses_take_nothing():
    """I7, R22: nothing follows a terminal event; the rest are words of hosts for a run that goes on."""
    assert {status for status, events in TRANSITIONS.items() if not events} == CLOSED


def test_a_handed_over_step_is_no_longer_running(play):
    """R5: a worker that gives it back on purpose says so; cancellation withdraws it at once then."""

    def w():
        yield from do("x")

    run = play(plain(w)).start().began("do-x").turn(zart.Noted("handed-over", at=3.0)).cancel()
    assert run.history[-2:] == ["do-x cancelled", "cancelled: Cancelled: stop"]


def test_strict_judges_arguments_too(play):
    """R21: in tests and checks; otherwise position, kind and name."""

    def w(argument):
        def w():
            yield from do(argument).named("x")

        return plain(w)

    run = play(w("one")).start().done("x")
    assert run.replayed(w("two")).execution.status is zart.Status.COMPLETED
    assert run.replayed(strict=True).execution.status is zart.Status.COMPLETED
    with pytest.raises(zart.Diverged, match="the arguments differ"):
        run.replayed(w("two"), strict=True)


def test_the_record_of_progress_is_what_the_log_says(play):
    """R4, R7: attempt, next instant, deadline and crashes, for whoever takes the run over."""

    def w():
        yield from do("x")

    run = play(plain(w)).start().turn(zart.Began(0, 0, at=1.0, deadline=30.0)).retried("do-x", 7.0)
    progress = run.execution.progress(0)
    assert (progress.attempt, progress.began, progress.retry_at, progress.deadline) == (1, False, 7.0, 30.0)
    run.turn(zart.Began(0, 1, at=8.0, takeover=2, deadline=30.0))
    progress = run.execution.progress(0)
    assert (progress.attempt, progress.began, progress.taken_over, progress.crashes) == (1, True, True, 2)
    assert attrs.asdict(progress)["deadline"] == 30.0
    assert timedelta(seconds=progress.retry_at) == timedelta(seconds=7)


def test_a_fact_passes_a_marker_that_is_younger_than_the_log(play):
    """R23: the old code went on waiting where the new one asks for a version: the next fact answers it with 1."""

    def w(marked):
        def w():
            a = yield from zart.schedule(do("a"))
            number = (yield from zart.version("m", 2)) if marked else 1
            event = yield from zart.wait_for_event("e", int)
            return [number, event, *(yield from zart.wait([a]))]

        return plain(w)

    def waits_only():
        yield from do("a")

    run = play(plain(waits_only)).start().began("do-a").deliver("e", b"7")

    def waits_later():
        a = yield from zart.schedule(do("a"))
        number = yield from zart.version("m", 2)
        yield from zart.wait([a])
        return number

    resumed = run.replayed(plain(waits_later)).done("do-a", 1)
    assert (resumed.result, resumed.execution.untaken()) == (1, [("e", b"7")])
    with pytest.raises(zart.Diverged, match="yielded:  event 'e\\[1\\]'"):
        run.replayed(w(True))


def test_a_result_is_there_when_the_run_completed(play):
    """Asking too early says how the run stands; each pending command tells where it stands in the code."""

    def w():
        yield from do("x")

    run = play(plain(w)).start()
    with pytest.raises(zart.LogCorrupt, match=r"execution 'an-id' .* has no result: it is running"):
        _ = run.result
    assert str(run.execution.site(0)).endswith("<locals>.w, line +1")
    assert run.cancel().execution.status is zart.Status.CANCELLED
    with pytest.raises(zart.LogCorrupt, match="has no result: it is cancelled"):
        _ = run.result


def test_an_input_that_no_longer_decodes_is_a_divergence(play):
    """R20: the type of the input has changed; nothing is written, and the message says what to do."""

    @zart.workflow("w")
    def w(n: int):
        yield from do(str(n))

    with pytest.raises(zart.Diverged, match="event 0: the input no longer decodes to int:"):
        play(w).start(b'"text"')


def test_what_was_settled_within_the_turn_is_not_missing_from_a_log(play):
    """P6: a command that was forgotten before it was issued is no command that the log lacks."""

    def w():
        task = yield from zart.schedule(do("a"))
        yield from task.cancel()
        yield from do("b")

    run = play(plain(w)).start()
    assert run.history == ["started", "step do-b"]
    run.replayed()

    def two():
        a = yield from zart.schedule(do("a"))
        b = yield from zart.schedule(do("b"))
        yield from zart.wait([b])
        c = yield from zart.schedule(do("c"))
        yield from c.cancel()
        yield from zart.wait([a])

    assert play(plain(two)).start().done("do-b").replayed().history[-1] == "do-b = null"


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, MemoryError])
def test_the_end_of_the_process_is_no_outcome(play, stop):
    """F27: an interruption of the process that strikes in a workflow or its on_failure ends no run."""

    def w():
        yield from do("x")
        raise stop

    def handler(_, error):
        raise stop

    def fails():
        yield from do("x")
        raise ValueError("v")

    for workflow in (plain(w), plain(fails, on_failure=handler)):
        run = play(workflow).start()
        log = list(run.log)
        with pytest.raises(stop):
            run.done("do-x")
        assert run.log == log
        with pytest.raises(stop):
            run.execution.apply(zart.Noted("n", at=9.0))


def test_a_captured_value_has_the_type_that_is_asked_for(play):
    """R9: the type given, else the one that the function declares, if need be in a string, else any."""

    def declared() -> tuple[int, ...]:
        return (1,)

    def w():
        given = yield from zart.capture("given", lambda: (1, 2), list[int] | tuple[int, ...])
        known = yield from zart.capture("known", declared)
        free = yield from zart.capture("free", lambda: {1})
        return [repr(given), repr(known), repr(free)]

    assert play(plain(w)).start().result == ["(1, 2)", "(1,)", "{1}"]


def test_arguments_on_record_are_read_by_the_types_of_the_code_at_hand(play):
    """R21: for who calls the step anew; where they no longer fit, it is said which."""

    def w(step):
        def w():
            yield from step("text").named("x")

        return plain(w)

    @zart.step("do-{what}")
    def takes_a_number(what: int) -> Any:
        return what

    run = play(w(do)).start()
    assert run.execution.arguments(0) == ["text"]
    other = run.replayed(w(takes_a_number))
    with pytest.raises(zart.Diverged, match=r"the arguments of step 'x' no longer decodes to do-\{what\}'s"):
        other.execution.arguments(0)

    @zart.step("do-{what}")
    def takes_more(what: str, much: int = 1) -> Any:
        return what

    with pytest.raises(zart.Diverged, match="parameters: arguments: expected 2 arguments, found 1") as caught:
        run.replayed(w(takes_more)).execution.arguments(0)
    assert caught.value.field == "arguments"
    assert caught.value.remedy.startswith("leave the parameters of this step as they are")


def test_answers_of_markers_can_be_seen_and_supposed(play):
    """R23: by name; a supposed answer is given whatever the log says."""

    def w():
        return (yield from zart.version("m", 2))

    run = play(plain(w)).start()
    assert (run.result, dict(run.execution.versions)) == (2, {"m": 2})
    supposed = play(plain(w))
    supposed.execution.suppose_version("m", 1)
    assert supposed.start().result == 1


def test_strict_leaves_out_what_the_code_does_not_say(play):
    """R21: the number in a marker, and the id of a child that was made from its parent's."""

    def w(current):
        def w():
            yield from zart.version("m", current)
            yield from zart.child(kid, 5)

        return plain(w)

    run = play(w(1)).start()
    log = [zart.Started("another-id", 0, "w", b"null", 0.0), *run.log[1:]]
    assert play(w(2), strict=True).add(*log).history[-1] == "child kid[1]"


def test_an_execution_is_of_a_workflow():
    """The generator function itself is refused where it is given, with what to give."""

    @zart.workflow("w")
    def w() -> zart.Flow[None]:
        yield from do("x")

    for way in (zart.Execution, lambda fn: zart.replay(fn, [])):
        with pytest.raises(
            zart.InvalidUse, match=r"<function .*w at .*> is no workflow; give a function decorated"
        ):
            way(w.fn)


def test_closing_leaves_the_context_of_its_caller_alone():
    """Whoever closes an execution, even the garbage collector in the midst of another: its variables stay its own."""
    place = ContextVar("place", default="outside")

    @zart.workflow("w")
    def w() -> zart.Flow[None]:
        try:
            yield from do("x")
        finally:
            place.set("inside")

    execution = zart.Execution(w)
    execution.apply(zart.Started("a", 0, "w", b"null", 1.0))
    execution.close()

    assert place.get() == "outside"


def test_a_hand_over_concerns_only_what_runs_here() -> None:
    """A step that was offered to others goes on when whoever holds its execution ends: it keeps its grace (R5, R18)."""

    @zart.step("far", cancel_grace="7s")
    def far() -> int:
        return 1

    @zart.workflow("waits")
    def waits() -> zart.Flow[int]:
        return (yield from far())

    execution = zart.Execution(waits)
    execution.apply(zart.Started("x", 0, "waits", b"null", at=1.0))
    for event in [
        *execution.decide(),
        zart.Began(0, 0, at=1.0),
        zart.Noted("offered", at=1.0, who="0", why="!step/0/0/x"),
    ]:
        execution.apply(event)
    execution.apply(zart.Noted("handed-over", at=2.0))
    assert (execution.progress(0).elsewhere, execution.progress(0).handed_over) == (True, False)
    execution.apply(zart.Interrupted("cancel", 3.0))
    assert execution.cancelling == {0: 10.0}


@pytest.mark.parametrize("who", ["7", "-1", "", "first"])
def test_a_note_about_no_command_changes_nothing(who: str) -> None:
    """Notes are inert: one about a step that this run has not says nothing about those that it has."""

    @zart.step("near", cancel_grace="7s")
    def near() -> int:
        return 1

    @zart.workflow("waits")
    def waits() -> zart.Flow[int]:
        return (yield from near())

    execution = zart.Execution(waits)
    execution.apply(zart.Started("x", 0, "waits", b"null", at=1.0))
    for event in [
        *execution.decide(),
        zart.Began(0, 0, at=1.0),
        zart.Noted("offered", at=1.0, who=who, why="!step/0/0/x"),
    ]:
        execution.apply(event)
    assert not execution.progress(0).elsewhere
    execution.apply(zart.Noted("handed-over", at=2.0))
    assert execution.progress(0).handed_over


@pytest.mark.parametrize(("who", "began"), [("0", False), ("7", True), ("", True)])
def test_an_attempt_that_was_given_back_unbegun_has_not_begun(play: Any, who: str, began: bool) -> None:
    """R10: its worker gave it back without having called its function. R7: its deadline is not fixed either."""

    def w() -> zart.Flow[None]:
        yield from do("x")

    run = (
        play(plain(w))
        .start()
        .turn(zart.Began(0, 0, at=1.0, takeover=None, deadline=9.0), zart.Noted("unbegun", at=2.0, who=who))
    )
    assert run.execution.progress(0).began is began
    assert run.execution.progress(0).deadline == (9.0 if began else None)


def test_a_retry_that_was_given_back_unbegun_is_still_a_retry(play: Any) -> None:
    """R4, R10: its number, its instant and its deadline stay."""

    def w() -> zart.Flow[None]:
        yield from do("x")

    failed = zart.Retried(0, 0, zart.Failure("error", "E", "m"), 3.0, 2.0)
    run = play(plain(w)).start().turn(zart.Began(0, 0, at=1.0, takeover=None, deadline=9.0)).turn(failed)
    run.turn(zart.Began(0, 1, at=3.0, takeover=None, deadline=9.0), zart.Noted("unbegun", at=4.0, who="0"))
    assert run.execution.progress(0) == Progress(attempt=1, began=False, retry_at=3.0, deadline=9.0)


@pytest.mark.parametrize("fact", [zart.Resolved(0, zart.Done(b"1"), 2.0), zart.Interrupted("cancel", 2.0)])
def test_a_fact_that_is_older_than_a_marker_passes_it(fact: zart.Event) -> None:
    """R23: a marker that was put in where a run stands waiting is answered 1 when the log goes on without it."""

    @zart.step("near")
    def near() -> int:
        return 1

    @zart.workflow("waits")
    def waits() -> zart.Flow[int]:
        task = yield from zart.schedule(near())
        return (yield from zart.wait([task]))[0]

    seen: list[int] = []

    @zart.workflow("waits")
    def marked() -> zart.Flow[int]:
        task = yield from zart.schedule(near())
        seen.append((yield from zart.version("v", 2)))
        return (yield from zart.wait([task]))[0]

    old = zart.Execution(waits)
    log: list[zart.Event] = [zart.Started("x", 0, "waits", b"null", at=1.0)]
    old.apply(log[0])
    for event in old.decide():
        old.apply(event)
        log.append(event)
    new = zart.replay(marked, [*log, fact])
    assert seen == [1]
    assert not any(isinstance(event, zart.Issued) for event in new.decide())
    new.close()
    old.close()


def test_a_failed_attempt_tells_its_error() -> None:
    """`Retried.error` is what the attempt failed with."""
    failure = zart.Failure("error", "ValueError", "no")
    assert zart.Retried(0, 1, failure, 3.0, 2.0).error is failure
