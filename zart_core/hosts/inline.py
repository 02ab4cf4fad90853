"""The inline host: synchronous, one thread, one step at a time. The example of how to embed the core.

Rule 1: it does nothing but claim, build a turn, append it, and carry out its effects.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import weakref
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, overload

import attrs

from zart_core import log as stored
from zart_core.codec import Codec
from zart_core.commands import checked_name
from zart_core.context import Scene, checked_resources
from zart_core.errors import (
    Cancelled,
    Defect,
    ExecutionConflict,
    InvalidUse,
    StoreUnavailable,
    Weather,
    ZartError,
)
from zart_core.events import Closed, Err, Failure, Ok, Status
from zart_core.hosts.ports import Clock, DirectRunner, StepCall, StepRunner, SystemClock, new_id, open_log
from zart_core.hosts.progress import INTERVAL_S, encoded, text_of
from zart_core.hosts.relatives import new_execution
from zart_core.hosts.turns import Effects, Run
from zart_core.interpreter import CODEC
from zart_core.workflows import Registry, Workflow

I = TypeVar("I")  # noqa: E741  # the input
R = TypeVar("R")

LEASE_S = 30.0
CLAIMS_MAX = 1000
TRIES_MAX = 8
POLL_S = 1.0
OTHERS_S = 0.05
"""How long it waits between two looks while something is due that others have to take."""


LOGGER = logging.getLogger("zart.inline")

IDLE: weakref.WeakKeyDictionary[stored.EventLog, list[str]] = weakref.WeakKeyDictionary()
"""Workers that `run_inline` has used on a log and that hold nothing. A store keeps a lease for each name that it has
met, and SQLite an open file: a process that runs one after the other needs one name."""


class Stuck(ZartError):
    """The execution waits for something that nobody can bring in this host: an event, with nobody to send it."""


class Inline:
    """Drives executions of a log, one step at a time, until one of them has ended.

    Args:
        log: where executions are kept.
        registry: the workflows it knows; children add theirs.
        clock, runner: the outside; real ones by default.
        resources: objects for steps, by name.
        worker: its name to the log, which nobody else uses meanwhile; a new one by default.
        rest: what to do while nothing is due: called with the time until which nothing will be (None for never).
    """

    slots = 1
    """How many attempts a turn may begin."""
    run_type: type[Run] = Run
    """What its runs are."""

    def __init__(
        self,
        log: stored.EventLog,
        registry: Registry,
        *,
        clock: Clock | None = None,
        runner: StepRunner | None = None,
        resources: Mapping[str, Any] | None = None,
        codec: Codec | None = None,
        rest: Callable[[float | None], None] | None = None,
        worker: str | None = None,
    ) -> None:
        self.log = log
        self.registry = registry
        self.clock = clock or SystemClock()
        self.runner = runner or DirectRunner()
        self.resources = checked_resources(resources)
        self.codec = codec or CODEC
        self.rest = rest or self.wait_for_log
        self.worker = worker or new_id(self.clock.now())
        self.runs: dict[str, Run] = {}
        self.heard_at = -math.inf
        """When it was written down last what a step says."""

    def start(self, workflow: Workflow[Any, Any], input: Any, id: str) -> bool:
        """Create an execution; False when this very one was there already. Raises ExecutionConflict and EncodeError."""
        self.registry.add(workflow)
        payload, _ = encoded_input(self.codec, workflow, input)
        (outcome,) = self.create([new_execution(self.codec, workflow, id, payload, self.clock.now())])
        if isinstance(outcome, Ok):
            return outcome.value.created
        raise conflict(id)

    def drive(self, id: str) -> Closed:
        """Work until the execution has ended, and say how. Raises its defect when it is parked."""
        self.take_tree(id)
        while True:
            closed = closed_event(self.log, self.codec, id)
            if closed is not None:
                return closed
            if not self.work():
                run = self.runs.get(id)
                if run is not None and run.defect is not None:
                    raise run.defect
                self.rest(self.next_wake())

    def work(self) -> bool:
        """Take up all that is due now and bring it as far as it goes; False when there was nothing."""
        claims = self.log.claim(
            self.worker,
            now=self.clock.now(),
            lease_s=LEASE_S,
            limit=CLAIMS_MAX,
            workflows=self.registry.claim_names,
        )
        runs = [self.take_up(summary) for summary in claims]
        suspects = sum(len(run.suspects) for run in runs)
        alone = suspects == 1 and all(run.unrecorded > self.clock.now() for run in runs)
        watched = not alone and self.slots == 1  # nothing runs beside it here: its log may say so
        for run in runs:
            for seq in list(run.suspects):
                run.try_suspect(seq, alone=alone, watched=watched, now=self.clock.now())
        for run in runs:
            self.advance(run)
        return bool(runs)

    def take_tree(self, id: str) -> None:
        """Take up an execution and the children it waits for, whose workflows are known by nobody else."""
        summary = self.log.acquire(self.worker, id, lease_s=LEASE_S)
        if summary is not None:
            for child in self.take_up(summary).children().values():
                self.take_tree(child.id)

    def next_wake(self) -> float | None:
        """When something is due next."""
        return self.log.next_wake()

    def take_up(self, summary: stored.Summary) -> Run:
        """The run behind a claim: the one at hand with its new messages, or one that is replayed."""
        run = self.runs.get(summary.id)
        if run is None or run.fence != summary.fence or run.run != summary.run:
            self.runs[summary.id] = run = self.make_run(summary)
            self.revive(run)
        else:
            run.receive(self.log.inbox(run.id, run.seen))
        return run

    def make_run(self, summary: stored.Summary) -> Run:
        """A run that was not read back yet."""
        return self.run_type(summary, self.codec)

    def revive(self, run: Run) -> None:
        """Read a run back and replay it."""
        run.inbox.clear()
        run.seen = 0
        run.receive(self.log.inbox(run.id))
        run.revive(self.log.records(run.id, run.run), self.registry)
        try:
            children = run.children()
        except Defect as defect:
            run.park(defect)
            return
        for seq, outcome in zip(children, self.create(list(children.values())), strict=True):
            run.made_sure_of(seq, isinstance(outcome, Ok), self.clock.now())

    def create(self, news: list[stored.New]) -> list[stored.Appended]:
        """Create executions, each once (L9), again until it is known of each that it is there or its id is taken."""
        outcomes: list[stored.Appended] = []
        if not news:
            return outcomes
        for tries in range(TRIES_MAX):
            outcomes = self.log.append(news)
            if all(isinstance(outcome, Ok) or is_conflict(outcome) for outcome in outcomes):
                return outcomes
            self.clock.sleep(0.02 * 2**tries)
        raise StoreUnavailable(f"executions cannot be created: {outcomes[0]}")

    def advance(self, run: Run) -> None:
        """Bring a run as far as it goes without waiting."""
        tries = 0
        while True:
            now = self.clock.now()
            run.build(now)
            run.begin(self.slots, now)
            writes = run.compose(now)
            idle = not writes and not run.begun
            outcomes = self.log.append([run.mark()] if idle else writes)
            if all(isinstance(outcome, Ok) for outcome in outcomes):
                tries = 0
                if idle or self.carry_out(run, run.committed(now, conflicts_of(outcomes))):
                    return
            elif self.is_lost(outcomes):
                self.runs.pop(run.id).drop()
                return
            else:
                tries += 1
                if tries == TRIES_MAX:
                    raise StoreUnavailable(f"execution '{run.id}' cannot be written: {outcomes[0]}")
                self.clock.sleep(0.01 * 2**tries)
                self.revive(run)
                if run.closed is not None:  # the turn was written after all, and it was the last one
                    self.runs.pop(run.id).drop()
                    return

    def carry_out(self, run: Run, effects: Effects) -> bool:
        """Do what a durable turn asks for; True when the run is over or has nothing more to do now."""
        for line in effects.lines:
            emit(line)
        if run.closed is not None:
            self.runs.pop(run.id).drop()
            return True
        for call in effects.calls:
            self.call(run, call)
        return run.early or (run.defect is not None and not run.outcomes)

    def call(self, run: Run, call: StepCall) -> None:
        """Run one attempt, and tell the run how it ended."""
        pulse = Pulse(self, run, call)
        self.came_to(pulse, attempted(lambda: self.runner.run(call, self.scene(pulse))))

    def scene(self, pulse: Pulse) -> Scene:
        """What surrounds an attempt."""
        call = pulse.call
        return Scene(lambda: call.context, self.resources, heartbeat=pulse.beat)

    def came_to(self, pulse: Pulse, outcome: Ok[Any] | Err[BaseException]) -> None:
        """An attempt has ended: tell the run, and take in what came meanwhile."""
        run, call, now = pulse.run, pulse.call, self.clock.now()
        error = outcome.error if isinstance(outcome, Err) else None
        over = False
        if isinstance(error, Cancelled | asyncio.CancelledError):
            over = bool(pulse.over)
            if not over:  # nothing has told it to end: it has failed, as in an engine
                error = RuntimeError(f"the step raised {type(error).__name__}")
        if over or is_overdue(call, error, now):
            run.timed_out(call, now)
        elif isinstance(outcome, Ok):
            run.returned(call, outcome.value, now)
        else:
            assert error is not None
            run.raised(call, error, now)
        self.listen(run)

    def listen(self, run: Run) -> None:
        """Take in what came while an attempt ran; what cannot be read now is read with the next one."""
        try:
            run.receive(self.log.inbox(run.id, run.seen))
        except Weather as weather:  # the outcome at hand is worth more: it is written down first
            LOGGER.warning("what was sent to '%s' cannot be read: %s", run.id, weather)

    def note(self, run: Run, call: StepCall, now: float, data: bytes) -> bool:
        """Renew the lease and write down what a running step says; False when somebody else has its execution."""
        text = text_of(self.codec, run.id, run.run, [(call, now, data)])
        try:
            self.log.renew(self.worker, lease_s=LEASE_S)
            return not self.is_lost(self.log.append([attrs.evolve(run.mark(), reason=text)]))
        except Weather as weather:
            LOGGER.warning("what a step of '%s' says cannot be written: %s", run.id, weather)
            return True

    @staticmethod
    def is_lost(outcomes: list[stored.Appended]) -> bool:
        """Whether somebody else has the execution now."""
        first = outcomes[0]
        return isinstance(first, stored.Rejected) and first.reason.startswith(("stale", "closed", "unknown"))

    def wait_for_log(self, until: float | None) -> None:
        """Wait until something is due, or somebody writes to the log; what is due and left is for others."""
        left = math.inf if until is None else until - self.clock.now()
        self.log.wait(min(POLL_S, left) if left > 0 else OTHERS_S)


class Pulse:
    """The heartbeats of one attempt: from time to time they renew the lease, which nothing else does meanwhile."""

    def __init__(self, host: Inline, run: Run, call: StepCall) -> None:
        self.host = host
        self.run = run
        self.call = call
        self.over = ""
        """Why the attempt is to end."""

    def beat(self, progress: Any) -> None:
        """The attempt says something. Raises Cancelled, EncodeError."""
        host, deadline = self.host, self.call.context.deadline
        data, now = encoded(host.codec, self.call, progress), host.clock.now()
        if deadline is not None and now >= deadline:
            self.over = self.over or "its deadline has passed"
        elif not 0 <= now - host.heard_at < INTERVAL_S:
            host.heard_at = now
            if not host.note(self.run, self.call, now, data):
                self.over = self.over or "another worker has its execution now"
        if self.over:
            raise Cancelled(f"step '{self.call.context.step}' is to end: {self.over}")


def attempted(attempt: Callable[[], Any]) -> Ok[Any] | Err[BaseException]:
    """What an attempt gives, or the error that it raises; what ends the process passes."""
    try:
        return Ok(attempt())
    except (Cancelled, asyncio.CancelledError, Exception) as raised:  # noqa: BLE001  # its outcome, whatever it is
        return Err(raised)


def is_overdue(call: StepCall, error: BaseException | None, now: float) -> bool:
    """Whether an attempt took longer than it may, however it ended (R7); of the other deadlines its turn knows more."""
    own, deadline = call.attempt_until, call.context.deadline
    if own is not None and now >= own:
        return True
    return isinstance(error, TimeoutError) and deadline is not None and now >= deadline


# ---------------------------------------------------------------- shared with the engine


def encoded_input(codec: Codec, workflow: Workflow[Any, Any], input: Any) -> tuple[bytes, Any]:
    """The input as it is written down, and as it comes back. Raises EncodeError that names workflow and field."""
    return codec.through(input, workflow.input_type, f"the input of workflow '{workflow.name}'")


def is_conflict(outcome: stored.Appended) -> bool:
    """Whether an id that was to be created is taken by something else."""
    return isinstance(outcome, stored.Rejected) and outcome.reason.startswith("conflict")


def conflict(id: str) -> ExecutionConflict:
    """The id is taken (R15)."""
    return ExecutionConflict(
        id,
        f"the id '{id}' is taken by another workflow, or by this one with another input; "
        "use another id, or the same input to attach to it",
    )


def conflicts_of(outcomes: list[stored.Appended]) -> tuple[str, ...]:
    """Ids that a turn wanted to create and that were taken."""
    return tuple(id for outcome in outcomes if isinstance(outcome, Ok) for id in outcome.value.conflicts)


def emit(line: logging.LogRecord) -> None:
    """Let a log line out that waited for its turn to be durable. What filters and handlers raise goes to stderr."""
    try:
        logging.getLogger(line.name).handle(line)
    except Exception:  # noqa: BLE001  # the rest of what the turn led to is still to come
        logging.Handler().handleError(line)


def closed_event(log: stored.EventLog, codec: Codec, id: str) -> Closed | None:
    """How an execution ended; None while it goes on."""
    summary = log.summary(id)
    if summary is None or not summary.status.closed:
        return None
    records = log.records(id, summary.run, max(0, summary.position - 1))
    event = codec.decode_event(records[-1], id, summary.run, summary.position - 1)
    assert isinstance(event, Closed)
    return event


def result_of(codec: Codec, workflow: Workflow[Any, Any] | None, id: str, closed: Closed) -> Any:
    """The result of a run that has ended; raises how it ended (R19)."""
    if closed.status is not Status.COMPLETED:
        raise ended_badly(codec, id, closed)
    return codec.decode(closed.payload, Any if workflow is None else workflow.result_type)


def ended_badly(codec: Codec, id: str, closed: Closed) -> BaseException:
    """The error for an execution that ended without a result; its cause is told with the traceback on record."""
    failure = closed.failure
    error = codec.error_of(Failure("child", str(closed.status), "", cause=failure), (), step=id)
    trace = traceback_in(failure)
    if trace and error.__cause__ is not None:
        error.__cause__.add_note(trace.rstrip())
    return error


def traceback_in(failure: Failure | None) -> str:
    """The traceback on record of what failed, or of what caused that; empty where there is none."""
    while failure is not None and not failure.traceback:
        failure = failure.cause
    return "" if failure is None else failure.traceback


@overload
def run_inline(
    workflow: Workflow[None, R],
    input: None = None,
    *,
    log: stored.EventLog | None = None,
    id: str | None = None,
    resources: Mapping[str, Any] | None = None,
) -> R: ...
@overload
def run_inline(
    workflow: Workflow[I, R],
    input: I,
    *,
    log: stored.EventLog | None = None,
    id: str | None = None,
    resources: Mapping[str, Any] | None = None,
) -> R: ...
def run_inline(
    workflow: Any,
    input: Any = None,
    *,
    log: stored.EventLog | None = None,
    id: str | None = None,
    resources: Mapping[str, Any] | None = None,
) -> Any:
    """Run a workflow to its end in this thread, one step at a time, and give its result.

    With a `log` and an `id` it takes up what was begun before. Without a log everything is in memory.

    Raises ExecutionFailed and its kin, the defect that parks it or a child of its, Stuck when it waits for an event
    that nobody can send, and InvalidUse for a log that is not an open one.
    """
    if id is not None:
        id = checked_name(id, "id")
    if log is not None and not hasattr(log, "append"):
        raise InvalidUse(f"log={log!r} is no open log; write log=zart.open_log('sqlite:PATH') or the like")
    private = log is None
    where = open_log("memory:") if log is None else log
    idle = idle_workers(where)
    host = Inline(where, Registry(workflow), resources=resources, worker=taken_from(idle))
    if private:
        host.rest = functools.partial(rest_alone, host)
    name = new_id(host.clock.now()) if id is None else id
    try:
        host.start(workflow, input, name)
        return result_of(host.codec, workflow, name, host.drive(name))
    finally:
        for run in host.runs.values():
            run.drop()
        where.release(host.worker)
        idle.append(host.worker)
        if private:
            where.close()


def idle_workers(log: stored.EventLog) -> list[str]:
    """The names on this log that nobody uses just now; whoever uses one takes it out."""
    try:
        return IDLE.setdefault(log, [])
    except TypeError:  # somebody's log that cannot be a key
        return []


def taken_from(idle: list[str]) -> str | None:
    """A name that is nobody else's from now on, if there is one."""
    try:
        return idle.pop()
    except IndexError:
        return None


def rest_alone(host: Inline, until: float | None) -> None:
    """Let time pass where nobody else writes to the log."""
    if until is None or math.isinf(until):
        for run in host.runs.values():
            if run.defect is not None:  # that of a child
                raise run.defect
        raise Stuck(
            "the execution waits for an event, and nobody can send one: give run_inline a log= that others write to"
        )
    host.clock.sleep(max(0.0, until - host.clock.now()))
