"""Turns: one atomic append, built ahead of its commit; what is kept when it fails; retries, deadlines, parking."""

from __future__ import annotations

import asyncio
from typing import Any

import attrs
import pytest
from played import history

import zart_core as zart
from zart_core import log as stored
from zart_core.codec import Codec
from zart_core.events import Closed, Parent, Started, Status
from zart_core.hosts.calls import idempotency_key
from zart_core.hosts.facts import received
from zart_core.hosts.offers import offer
from zart_core.hosts.relatives import new_execution, parents_key, report
from zart_core.hosts.turns import Effects, Run
from zart_core.workflows import Registry

CODEC = Codec()


class Flaky(Exception):
    """Worth another try."""


@zart.step("do-{what}")
def do(what: str) -> Any:
    return what


@zart.step("try-{what}", retry=zart.Retry.exponential(3, "1s"), timeout="1m")
def attempt(what: str) -> Any:
    return what


@zart.workflow("kid")
def kid(n: int) -> zart.Flow[int]:
    yield from do("kid")
    return n


class Host:
    """A host of one run without a store: what it would append is the log."""

    def __init__(
        self,
        workflow: zart.Workflow[Any, Any],
        *,
        at: float = 0.0,
        timeout_s: float | None = None,
        parent: Parent | None = None,
    ) -> None:
        new = new_execution(CODEC, workflow, "an-id", b"null", at, timeout_s=timeout_s, parent=parent)
        self.at = at
        self.records = list(new.records)
        self.writes: list[stored.Turn] = []
        self.messages = 0
        self.take_up(workflow)

    def take_up(self, workflow: zart.Workflow[Any, Any]) -> Host:
        """Another worker, with this code."""
        summary = stored.Summary(
            "an-id", "w", "", zart.Status.RUNNING, 0, len(self.records), 1, self.at, self.at, None, None
        )
        self.run = Run(summary, CODEC)
        self.run.revive(self.records, Registry(workflow))
        return self

    def turn(self, now: float, *, slots: int = 8, ok: bool = True) -> Effects | None:
        """Build a turn and append it, or fail to."""
        self.run.build(now)
        self.run.begin(slots, now)
        writes = self.run.compose(now)
        if not ok:
            self.run.revive(self.records, self.run.registry)
            return None
        for write in writes:
            if isinstance(write, stored.Turn):
                assert write.position == len(self.records)
                self.writes.append(write)
                self.records += write.records
        return self.run.committed(now)

    def post(
        self, kind: Any, name: str = "", payload: bytes = b"", at: float = 0.0, key: str | None = None
    ) -> Host:
        """A message arrives in the inbox."""
        self.messages += 1
        self.run.receive([stored.Message(self.messages, kind, name, payload, at, key)])
        return self

    @property
    def events(self) -> list[zart.Event]:
        return CODEC.decode_events(self.records)

    @property
    def history(self) -> list[str]:
        return history(self.events)


@pytest.fixture
def host():
    hosts = []

    def begin(
        fn: Any,
        *,
        at: float = 0.0,
        timeout_s: float | None = None,
        parent: Parent | None = None,
        **options: Any,
    ) -> Host:
        hosts.append(Host(zart.workflow("w", **options)(fn), at=at, timeout_s=timeout_s, parent=parent))
        return hosts[-1]

    yield begin
    for one in hosts:
        one.run.drop()


def two_steps():
    first = yield from do("a")
    return [first, (yield from do("b"))]


def test_a_sequential_step_costs_one_commit(host):
    """The turn that takes an outcome issues the next step and begins it."""
    one = host(two_steps)
    (call,) = one.turn(1.0).calls
    one.run.returned(call, "A", 2.0)
    (call,) = one.turn(2.0).calls
    one.run.returned(call, "B", 3.0)
    one.turn(3.0)
    assert [len(write.records) for write in one.writes] == [2, 3, 2]
    assert one.history == [
        "started", "step do-a", "do-a begins 0", 'do-a = "A"', "step do-b", "do-b begins 0", 'do-b = "B"',
        'completed ["A","B"]',
    ]  # fmt: skip


def test_without_a_free_slot_a_step_is_issued_and_begins_later(host):
    """Began goes into the turn that issues the step when a slot is free."""
    one = host(two_steps)
    assert one.turn(1.0, slots=0).calls == []
    (call,) = one.turn(2.0).calls
    assert (call.context.step, call.context.attempt, call.values) == ("do-a", 0, ["a"])
    assert one.history == ["started", "step do-a", "do-a begins 0"]


def test_what_a_turn_that_failed_had_earned_is_offered_again(host):
    """R1: an outcome is never thrown away and never earned twice; decisions are made anew."""
    one = host(two_steps)
    (call,) = one.turn(1.0).calls
    one.run.returned(call, "A", 2.0)
    one.turn(2.0, ok=False)
    assert [fact.outcome for fact in one.run.outcomes] == [zart.Done(b'"A"')]
    (call,) = one.turn(3.0).calls
    assert call.context.step == "do-b"
    assert one.history[-3:] == ['do-a = "A"', "step do-b", "do-b begins 0"]


@pytest.mark.parametrize("fits", [True, False])
def test_what_runs_on_though_its_outcome_is_on_record_is_given_up(host, fits):
    """The answer to the append that ended it was lost, and the log is read back; whether the code fits then or not."""

    def w():
        try:
            yield from attempt("a")
        except zart.StepTimedOut:
            yield from do("b")

    one = host(w)
    assert [call.seq for call in one.turn(0.0).calls] == [0]
    one.run.build(60.0)
    (write,) = one.run.compose(60.0)
    one.records += write.records
    one.run.revive(one.records, one.run.registry if fits else Registry())
    effects = one.turn(61.0)
    assert effects.dropped == [0]
    assert [call.seq for call in effects.calls] == ([1] if fits else [])
    assert not one.turn(62.0).dropped


def test_retries_wait_1_2_4_and_then_the_step_is_exhausted(host):
    """R4, R6: the instant of the next attempt is on record; a restart neither shortens nor repeats the wait."""

    def w():
        try:
            yield from attempt("x")
        except zart.RetryExhausted as error:
            return [error.attempts, type(error.__cause__).__name__]

    one, now, due = host(w), 0.0, []
    for number in range(4):
        (call,) = one.turn(now).calls
        assert (call.context.attempt, call.context.is_retry, call.context.max_retries) == (
            number,
            number > 0,
            3,
        )
        one.run.raised(call, Flaky("again"), now)
        one.turn(now)
        if number < 3:
            (retry_at,) = [fact.retry_at for fact in one.events[-1:] if isinstance(fact, zart.Retried)]
            due.append(retry_at - now)
            one.take_up(one.run.registry["w"])
            assert one.turn(retry_at - 0.01).calls == []
            now = retry_at
    assert due == [1.0, 2.0, 4.0]
    assert one.history[-1] == 'completed [4,"StepFailed"]'


def test_a_global_deadline_is_on_record_and_shared_by_all_attempts(host):
    """R7: start of the first attempt plus the duration, whatever happens in between."""

    def w():
        try:
            yield from attempt("x")
        except zart.StepTimedOut as error:
            return error.step

    one = host(w)
    (call,) = one.turn(5.0).calls
    assert (call.context.deadline, one.events[-1]) == (
        65.0,
        zart.Began(0, 0, at=5.0, takeover=None, deadline=65.0),
    )
    one.run.raised(call, Flaky(), 20.0)
    one.turn(20.0)
    (call,) = one.turn(21.0).calls
    assert call.context.deadline == 65.0
    assert one.turn(65.0).dropped == [0]
    assert one.history[-2:] == ["try-x ! timed_out", 'completed "try-x"']


def test_a_deadline_is_capped_by_that_of_the_run_but_not_in_compensation(host):
    """R7, R16: compensation after the deadline runs without the cap."""

    def w():
        try:
            yield from attempt("x")
        finally:
            yield from attempt("undo")

    one = host(w, timeout_s=30.0)
    (call,) = one.turn(5.0).calls
    assert call.context.deadline == 30.0
    assert one.turn(30.0).stops == [call.seq]
    one.run.cancelled(call, 31.0)
    (call,) = one.turn(31.0).calls
    assert (call.context.step, call.context.deadline) == ("try-undo", 91.0)


def test_a_capture_whose_branch_was_cancelled_in_the_same_turn_is_not_evaluated(host):
    """R24: its command is settled by then."""
    asked = []

    def loser():
        yield from zart.capture("c", lambda: asked.append(1))

    def quick():
        yield from zart.now("n")
        return "won"

    def w():
        return (yield from zart.race(loser(), quick()))

    one = host(w)
    one.turn(1.0)
    assert one.history[-2:] == ["c cancelled", one.history[-1]]
    assert asked == []
    assert one.run.closed.status is zart.Status.COMPLETED


def test_a_captured_function_is_part_of_its_workflow(host):
    """It has the workflow's context, and its lines wait for the turn in which its value is recorded."""

    def note() -> str:
        zart.logger.warning("captured")
        return zart.context().execution_id

    def w():
        return (yield from zart.capture("c", note))

    one = host(w)
    assert [line.getMessage() for line in one.turn(1.0).lines] == ["captured"]
    assert one.history[-1] == f'completed "{one.run.id}"'


@pytest.mark.parametrize(
    "error", [asyncio.CancelledError, zart.Cancelled, type("Abort", (BaseException,), {})]
)
def test_whatever_a_captured_function_raises_is_its_outcome(host, error):
    """I8: as of a step. It went through the engine, whose callback it ended, and its execution waited for ever."""

    def raises() -> int:
        raise error

    def w():
        try:
            yield from zart.capture("c", raises)
        except zart.StepFailed as failed:
            return failed.message

    one = host(w)
    one.turn(1.0)
    assert one.history[-1] == f'completed "what is captured raised {error.__name__}"'


def test_the_end_of_the_process_is_no_outcome_of_a_captured_function(host):
    """F27: an interrupt goes through."""

    def interrupted() -> int:
        raise KeyboardInterrupt

    def w():
        yield from zart.capture("c", interrupted)

    one = host(w)
    with pytest.raises(KeyboardInterrupt):
        one.turn(1.0)


def test_a_turn_whose_answer_is_a_defect_is_its_facts_alone(host):
    """R20: they are held, the run is parked with its reason, and fixed code goes on from there."""

    def broken():
        yield from do("a")
        yield None

    one = host(broken)
    (call,) = one.turn(1.0).calls
    one.run.returned(call, "A", 2.0)
    one.turn(2.0)
    assert one.run.status is zart.Status.PARKED
    assert "NotACommand: the workflow yielded None" in one.run.reason
    assert one.history[-1] == 'do-a = "A"'
    assert one.events[-1].held
    one.take_up(zart.workflow("w")(two_steps))
    (call,) = one.turn(9.0).calls
    assert call.context.step == "do-b"


def test_a_parked_run_goes_on_accepting_outcomes_and_termination(host):
    """R18, R20: what still ran is kept; terminate needs no code."""

    def old():
        yield from zart.gather(do("a"), do("b"))

    def other():
        yield from do("else")

    one = host(old)
    calls = one.turn(1.0).calls
    one.run.revive(one.records, Registry(zart.workflow("w")(other)))
    assert isinstance(one.run.defect, zart.Diverged)
    one.run.returned(calls[1], "B", 2.0)
    one.turn(2.0)
    assert one.history[-1] == 'do-b = "B"'
    one.post("terminate", payload=b"enough").turn(3.0)
    assert one.history[-1] == "terminated: terminated: enough"


def test_the_deadline_of_a_parked_run_is_recorded_and_takes_effect_when_the_code_fits(host):
    """R16: once."""

    def broken():
        yield from do("a")
        yield None

    one = host(broken, timeout_s=30.0)
    (call,) = one.turn(1.0).calls
    one.run.returned(call, "A", 2.0)
    one.turn(2.0)
    one.turn(30.0)
    one.turn(31.0)
    assert one.history[-2:] == ['do-a = "A"', "deadline"]
    one.take_up(zart.workflow("w")(two_steps)).turn(40.0)
    assert one.history[-3:] == [
        "step do-b",
        "do-b cancelled",
        "timed_out: DeadlineExceeded: its deadline has passed",
    ]


def test_events_that_nobody_waits_for_stay_in_the_inbox(host):
    """R14: they are consumed in the commit of the turn that uses them, in order."""

    def w():
        first = yield from zart.wait_for_event("e", int)
        yield from zart.sleep("nap", 10)
        return [first, (yield from zart.wait_for_event("e", int))]

    one = host(w)
    one.turn(1.0)
    one.post("event", "other", b"0").post("event", "e", b"1").post("event", "e", b"2").turn(2.0)
    assert one.writes[-1].consumes == (2,)
    one.turn(12.0)
    assert one.writes[-1].consumes == (3,)
    assert (one.history[-1], sorted(one.run.inbox)) == ("completed [1,2]", [1])


def test_timers_fire_at_their_time_and_the_one_that_came_first_wins(host):
    """R13: never early, once; a message that came before a deadline is in time."""

    def w():
        yield from zart.outcome(zart.wait_for_event("e", int, timeout=10))

    early = host(w)
    early.turn(0.0)
    assert early.run.wake == 10.0
    early.turn(9.99)
    assert early.history == ["started", "event e[1]"]
    early.post("event", "e", b"1", at=9.0).turn(11.0)
    assert early.history[-2] == "e[1] takes 0"
    late = host(w)
    late.turn(0.0)
    late.post("event", "e", b"1", at=10.5).turn(11.0)
    assert late.history[-2] == "e[1] ! event_timed_out"


def test_children_are_created_in_the_same_commit_and_report_back(host):
    """L1: the New goes with the turn; the child's end comes as a message that says for which command."""

    def w():
        return (yield from zart.child(kid, 5))

    one = host(w)
    one.turn(1.0)
    (new,) = one.writes[-1].creates
    assert (new.id, new.workflow) == ("an-id.0.0", "kid")
    child = Run(stored.Summary(new.id, "kid", "", zart.Status.RUNNING, 0, 1, 1, 0.0, 0.0, None, None), CODEC)
    child.revive(new.records, Registry(kid))
    child.build(2.0)
    child.begin(1, 2.0)
    (call,) = child.committed(2.0).calls
    child.returned(call, "x", 3.0)
    child.build(3.0)
    (write,) = child.compose(3.0)
    (post,) = write.posts
    assert (post.id, post.kind, post.name) == ("an-id", "child", "0")
    one.post(post.kind, post.name, post.payload, at=3.0).turn(4.0)
    assert one.history[-2:] == ["kid[1] = 5", "completed 5"]
    child.drop()


def test_a_run_that_continues_as_new_takes_what_was_not_taken_along(host):
    """R14: in the same commit; the deadline is counted anew."""

    @zart.workflow("w", timeout=100)
    def w(n: int | None):
        yield from do("a")
        yield from w.continue_as_new(7)

    one = host(w.fn, timeout=100)
    (call,) = one.turn(1.0).calls
    one.run.returned(call, "A", 5.0)
    one.turn(5.0)
    (started,) = CODEC.decode_events(one.writes[-1].opens)
    assert attrs.evolve(started, parent=None) == zart.Started("an-id", 1, "w", b"7", 5.0, 105.0)
    assert (one.writes[-1].status, one.history[-1]) == (zart.Status.RUNNING, "continued 7")


def test_errors_that_nobody_waited_for_are_noted_before_the_end(host):
    """R12, R24: the summary shows them, and commands that were never yielded."""

    def w():
        do("forgotten")
        yield from zart.schedule(do("left"))
        yield from zart.sleep("nap", 10)

    one = host(w)
    (call,) = one.turn(1.0).calls
    one.run.raised(call, Flaky("in vain"), 2.0)
    one.turn(11.0)
    notes = [fact.why for fact in one.events if isinstance(fact, zart.Noted)]
    assert len(notes) == 2
    assert "in vain" in notes[0]
    assert "step 'do-forgotten' was built and never yielded" in notes[1]


def test_a_takeover_costs_one_commit_and_an_attempt_but_no_retry(host):
    """R5: a crash uses up no retry; it is held against the step when it ran alone; F18 after max_crashes."""
    one = host(two_steps)
    one.turn(1.0)
    for crashes in (1, 2):
        one.take_up(one.run.registry["w"])
        assert one.run.suspects == {0: crashes - 1}
        assert one.run.try_suspect(0, alone=True, now=2.0)
        (call,) = one.turn(2.0).calls
        assert (call.context.attempt, one.events[-1].takeover) == (0, crashes)
    one.take_up(one.run.registry["w"])
    assert not one.run.try_suspect(0, alone=True, now=3.0)
    one.turn(3.0)
    assert one.history[-2].startswith("do-a ! lost")


def test_at_most_once_is_not_run_again(host):
    """R10: the workflow gets StepLost and decides."""

    @zart.step("once", at_most_once=True)
    def once() -> int:
        return 1

    def w():
        return (yield from zart.step_or(once(), "lost"))

    one = host(w)
    one.turn(1.0)
    one.take_up(one.run.registry["w"])
    assert not one.run.try_suspect(0, alone=False, now=2.0)
    one.turn(2.0)
    assert one.history[-2:] == ["once ! lost", 'completed "lost"']


def test_a_host_holds_back_only_what_it_began_itself(host):
    """R5, R10: it says of that only that it gave it back, and never ran it. A suspect may be running still."""
    one = host(two_steps)
    (call,) = one.turn(1.0).calls
    assert one.run.held_back == []
    one.run.lose(call, 2.0)
    assert one.run.held_back == [0]
    one.take_up(one.run.registry["w"])
    assert (one.run.suspects, one.run.held_back) == ({0: 0}, [])
    assert one.run.try_suspect(0, alone=False, now=3.0)
    assert one.run.held_back == []
    one.turn(3.0, slots=0)
    one.run.park(zart.Defect("it is broken"))
    assert one.run.held_back == []


def test_times_on_record_never_decrease(host):
    """I2, F13: whatever the host's clock says."""
    one = host(two_steps, at=100.0)
    (call,) = one.turn(50.0).calls
    one.run.returned(call, "A", 40.0)
    one.turn(30.0)
    assert [fact.at for fact in one.events] == [100.0] * len(one.events)


@pytest.mark.parametrize("parked", [False, True], ids=["live", "parked"])
def test_only_its_own_parent_may_end_a_child(host, parked):
    """What was meant for the child of another command ends nobody else: the id that it asked for was taken."""
    own = Parent("p", 0, 3)
    one = host(two_steps, parent=own)
    if parked:
        one.run.park(zart.Defect("it is broken"))
    for kind in ("terminate", "cancel"):
        for parent in (Parent("q", 0, 3), Parent("p", 1, 3), Parent("p", 0, 4)):
            one.post(kind, kind, key=parents_key(kind, parent))
    one.turn(1.0)
    assert one.run.closed is None
    assert not any(isinstance(event, zart.Interrupted) for event in one.events)
    one.post("terminate", "terminate", key=parents_key("terminate", own)).turn(2.0)
    assert one.run.closed.status is zart.Status.TERMINATED


def test_a_child_is_told_to_end_though_its_parent_has_nothing_to_append(host):
    """R18, R20: a deadline that passed while the parent was parked reaches the child once the code fits again."""

    def w():
        yield from zart.child(kid, 1, id="kid")

    one = host(w, timeout_s=100.0)
    fitting = one.run.registry["w"]
    one.turn(1.0)
    one.take_up(zart.workflow("w")(two_steps))
    one.turn(100.0)
    assert one.history == ["started", "child kid[1]", "deadline"]

    one.take_up(fitting).turn(160.0)

    assert [(post.id, post.kind) for post in one.writes[-1].posts] == [("kid", "cancel")]
    assert one.writes[-1].records == []


def test_times_in_the_log_never_decrease_whatever_the_clock_does(host):
    """F13, I2: a clock that went back since an attempt ended takes nothing back with it, and fires no timer early."""

    def w():
        yield from zart.schedule(zart.sleep("nap", 104))
        yield from do("a")
        yield from zart.capture("c", lambda: 1)
        yield from zart.wait_for_event("never")

    one = host(w)
    (call,) = one.turn(100.0).calls
    one.run.returned(call, "A", 105.0)
    one.post("cancel", "cancel", at=106.0)
    one.turn(95.0)
    assert one.history[-1] == "cancelled: Cancelled: "
    times = [event.at for event in one.events]
    assert times == sorted(times)
    naps = [event.at for event in one.events if isinstance(event, zart.Resolved) and event.seq == 0]
    assert naps == [105.0]


def test_what_a_step_came_to_before_it_was_told_to_end_is_kept(host):
    """R1, R18: though the request came first, at the same instant, or the turn that held both was refused."""
    one = host(two_steps)
    (call,) = one.turn(1.0).calls
    one.run.returned(call, "A", 5.0)
    one.post("cancel", "cancel", at=5.0)
    one.turn(5.0)
    assert one.history[3:5] == ["cancel", 'do-a = "A"']

    two = host(two_steps)
    (call,) = two.turn(1.0).calls
    two.post("cancel", "cancel", at=5.0)
    assert two.turn(5.0).stops == [0]
    two.run.returned(call, "A", 6.0)
    two.turn(6.0, ok=False)
    two.turn(7.0)
    assert two.history[3:5] == ["cancel", 'do-a = "A"']


def test_a_message_that_came_in_time_is_in_time_behind_any_number_of_others(host):
    """R13, R14: a turn that has taken as many messages as it may ends before the timers that come after the next."""

    def many():
        for _ in range(300):
            yield from zart.wait_for_event("many")

    def one():
        return (yield from zart.wait_for_event("one", int, timeout=100))

    def w():
        _, number = yield from zart.gather(many(), one())
        return number

    late = host(w)
    late.turn(1.0)
    for _ in range(300):
        late.post("event", "many", b"null", at=5.0)
    late.post("event", "one", b"7", at=50.0)
    late.turn(200.0)
    assert late.run.has_more
    assert late.writes[-1].status is zart.Status.RUNNING  # else it would not be due when its worker is gone
    late.turn(200.0)
    assert late.history[-1] == "completed 7"


def test_a_deadline_that_passes_while_on_failure_is_parked_does_not_strike_it(host):
    """R16: compensation runs without the cap, also when the code that it belongs to was away for a while."""

    def compensate(_, failure):
        yield from do("refund")
        return (yield from do("mail"))

    def w():
        yield from do("pay")
        raise ValueError("no stock")

    one = host(w, on_failure=compensate, timeout_s=100.0)
    fitting = one.run.registry["w"]
    (call,) = one.turn(1.0).calls
    one.run.returned(call, None, 2.0)
    (call,) = one.turn(2.0).calls
    one.take_up(zart.workflow("w")(two_steps))
    one.turn(100.0)
    assert one.history[-1] == "deadline"

    one.take_up(fitting)
    assert one.run.try_suspect(1, alone=False, now=160.0)
    for now in (160.0, 161.0, 162.0):
        for call in one.turn(now).calls:
            one.run.returned(call, call.context.step, now)

    assert one.history[-1] == 'completed "do-mail"'


class Speechless(Exception):
    """Its text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


@zart.step("fails", raises=(Speechless,), retry=zart.Retry.fixed(1, 0, on=(Speechless,)))
def fails() -> None:
    raise Speechless


def test_an_error_whose_text_raises_hinders_no_run(host):
    """R6, R8, R24: neither one that was retried to the end, nor one that nobody waited for."""

    def w():
        yield from zart.schedule(fails())
        try:
            yield from fails().named("waited-for")
        except zart.RetryExhausted as exhausted:
            return str(exhausted)

    one = host(w)
    for now in (1.0, 2.0, 3.0, 4.0, 5.0):
        for call in one.turn(now).calls:
            one.run.raised(call, Speechless(), now)
    assert one.run.defect is None
    assert one.history[-1].startswith("completed")
    assert "<its __str__ raised RuntimeError>" in one.history[-1]
    (note,) = (event.why for event in one.events if isinstance(event, zart.Noted))
    assert "<its __str__ raised RuntimeError>" in note


def test_no_two_steps_have_the_same_idempotency_key():
    """Ids and names may hold slashes: `scope` puts them into names, and many name children after their parents."""
    steps = [
        ("batch", 0, "0/charge"), ("batch/0", 0, "charge"), ("batch%2F0", 0, "charge"), ("batch", 0, "0/0/charge"),
        ("batch/0/0", 0, "charge"), ("batch/0", 0, "0/charge"),
    ]  # fmt: skip
    keys = [idempotency_key(*step) for step in steps]
    assert len(set(keys)) == len(steps)
    assert keys[0] == "batch/0/0/charge"


@pytest.mark.parametrize("kind", ["cancel", "terminate"])
def test_a_reason_of_any_length_ends_a_run(host, kind):
    """F19: a message holds more than a record, in which what it says is JSON: the turn could never be written."""
    one = host(two_steps)
    one.post(kind, kind, b'"' * 1_000_000).turn(1.0)
    assert one.run.closed is not None
    assert max(len(record.data) for record in one.records) < 20_000


def test_a_step_that_is_too_large_to_be_handed_over_waits_for_a_slot_here(host):
    """F19: it need not go elsewhere, so nothing is wrong with its code."""

    class Generous:
        def here(self, function: Any) -> bool:
            return True

        def may_offer(self, function: Any) -> bool:
            return True

    def w():
        return (yield from zart.gather(do('"' * 300_000).named("large"), do("small")))

    one = host(w)
    one.run.build(1.0)
    assert one.run.begin(0, 1.0, market=Generous(), overflow=2) == 0
    assert one.run.defect is None
    assert (one.run.ready, list(one.run.offered)) == ([0], [1])
    with pytest.raises(
        zart.Defect, match="'large' are too large to be handed to another worker: as JSON within"
    ):
        offer(CODEC, one.run.execution, one.run.execution.pending[0], do)


class Placed:
    """A seal that binds data to its place, and hides nothing."""

    def seal(self, data: bytes, associated: bytes) -> bytes:
        return associated + b"|" + data

    def open(self, data: bytes, associated: bytes) -> bytes:
        place, _, hidden = data.partition(b"|")
        if place != associated:
            raise ValueError("another place")
        return hidden


@pytest.mark.parametrize("codec", [CODEC, Codec(seal=Placed())])
def test_the_end_of_a_child_that_an_earlier_run_left_behind(codec):
    """It is told under the seal of that run, and is none of the next one's business."""
    told = report(codec, Parent("p", 0, 0), Closed(Status.COMPLETED, 4.0, b"1"))
    message = stored.Message(1, told.kind, told.name, told.payload, told.at, told.key)
    execution = zart.Execution(kid, codec=codec)
    execution.apply(Started("p", 1, "kid", b"1", 3.0))

    assert received(codec, execution, message, 5.0) is None
    execution.close()
