"""One run under a host's care: the live execution, its place in the log, and the turn that is being built.

Rule 1: a turn is one atomic append, built ahead of its commit: fact, decisions, next fact, decisions, and so on.
Rule 2: nothing leaves the process before the append is Ok; what is to happen then is in `Run.effects`.
Rule 3: when an append is not Ok the execution is dropped; outcomes are kept and offered again, decisions never.
Rule 4: a turn whose answer is a defect is its facts alone, and the run is parked (R20).

Every host is built on this file: it has no thread, no loop, no clock and no store. A host does, for each run:
build, begin, compose, append, and then either committed and effects, or revive.
"""

from __future__ import annotations

import heapq
import logging
import math
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

import attrs

from zart_core import log as stored
from zart_core.branches import Progress
from zart_core.codec import Codec
from zart_core.context import SCENE, logger
from zart_core.divergence import replay_explained
from zart_core.empties import NO_ENTRIES, NO_ITEMS, added, put
from zart_core.errors import Defect, Weather
from zart_core.events import (
    Began,
    Closed,
    Done,
    Event,
    Failed,
    Failure,
    Interrupted,
    Issued,
    Noted,
    Outcome,
    Parent,
    Resolved,
    Retried,
    Started,
    Status,
)
from zart_core.failures import message_of
from zart_core.hosts import offers, outcomes
from zart_core.hosts.calls import global_deadline, policy_of, step_call
from zart_core.hosts.facts import Timer, TimerKind, comes_first, fired, received, terminated
from zart_core.hosts.offers import is_offered, offered_id
from zart_core.hosts.past import ALONE, Past, look_back
from zart_core.hosts.ports import LOTS, Lots, StepCall
from zart_core.hosts.relatives import (
    cancel_child,
    end_children,
    is_strangers,
    new_execution,
    next_run,
    report,
)
from zart_core.interpreter import HANDED_OVER, OFFERED, QUEUED, UNBEGUN, Execution, capture_type
from zart_core.records import brief_record
from zart_core.steps import DEFAULT_QUEUE, StepFunction
from zart_core.workflows import Registry, Workflow, claim_name

EVENTS_MAX = 50_000
"""Events of one run before it is parked with the advice to continue as new (F19)."""
MESSAGES_PER_TURN_MAX = 256
"""Messages taken into one turn, so that a turn stays small: it ends before the next one, and what came after that."""

MISBEHAVIOUR = (Exception, SystemExit, GeneratorExit)
"""What parks an execution whatever it is, so that the others go on."""
LOGGER = logging.getLogger("zart.engine")


@brief_record
class Effects:
    """What may happen now that the turn is durable."""

    calls: Sequence[StepCall]
    """Attempts to run."""
    stops: Sequence[int]
    """Running attempts, by seq, that were told to end and whose outcome still counts."""
    dropped: Sequence[int]
    """Running attempts, by seq, whose outcome nobody wants any more."""
    lines: Sequence[logging.LogRecord]
    """What the workflow logged."""
    created: Sequence[str]
    """Ids of executions that are there now."""
    recalled: Sequence[str]
    """Offered steps, by their executions, that have a message that ends them: nobody needs to run what nobody took."""


UNOBSERVED = "unobserved"
"""The Noted of an error that nobody waited for, or of a command that was never yielded."""
UNREGISTERED = Registry()
"""What a run knows before it is replayed; it stays empty."""


class Market(Protocol):
    """Says where steps run: here, or where any worker may take them."""

    def here(self, function: StepFunction[..., Any]) -> bool:
        """Whether a step that names a queue may begin on this worker as any other. Raises Defect."""
        ...

    def may_offer(self, function: StepFunction[..., Any]) -> bool:
        """Whether other workers find this step by its name."""
        ...


class Limiter(Protocol):
    """Says how many steps of a queue may run."""

    def room(self, queue: str) -> int | None:
        """How many attempts of a queue may begin now; None for any number."""
        ...

    def admit(self, run: Run, seq: int, queue: str, step: str, now: float) -> bool:
        """Whether an attempt may begin in the turn that is being built; `step` is its name."""
        ...


class Run:
    """One run of an execution, as a host holds it. `execution` is None while it is parked."""

    __slots__ = (
        "_adopted",
        "_bound",
        "_busy",
        "_calls",
        "_captures",
        "_created_at",
        "_creates",
        "_ended",
        "_floor",
        "_guilty",
        "_interruption_held",
        "_listed_parked",
        "_offered",
        "_opens_as",
        "_orphans",
        "_overtaken",
        "_posts",
        "_recalled",
        "_returning",
        "_stops",
        "_takeovers",
        "_timers",
        "_told",
        "_unsent",
        "_used",
        "_watched",
        "_went_to",
        "barred",
        "closed",
        "codec",
        "defect",
        "dropped",
        "early",
        "events",
        "execution",
        "fence",
        "id",
        "inbox",
        "offered",
        "opened",
        "outcomes",
        "position",
        "ready",
        "registry",
        "run",
        "running",
        "seen",
        "started",
        "suspects",
        "unrecorded",
        "workflow_name",
    )

    def __init__(self, summary: stored.Summary, codec: Codec) -> None:
        # Thousands of these are alive at once: what is empty is a shared one until something is added.
        self.id = summary.id
        self.run = summary.run
        self.fence = summary.fence
        self.workflow_name = summary.workflow
        self.position = summary.position
        self.codec = codec
        self.registry = UNREGISTERED
        self.execution: Execution | None = None
        self.defect: Defect | None = None
        self.started: Started | None = None
        self.closed: Closed | None = None
        self.opened: list[stored.Record] | None = None
        """The first records of the next run, when this one continued as new."""
        self._opens_as: str | None = None
        self.inbox: dict[int, stored.Message] = NO_ENTRIES
        """Messages that are not consumed, by number."""
        self.seen = 0
        """The greatest message number read."""
        self.outcomes: list[Resolved | Retried] = NO_ITEMS
        """Outcomes that the host has earned and that are not in a turn yet."""
        self.running: dict[int, None] = NO_ENTRIES
        """Attempts that this host runs, by seq; they outlive the execution."""
        self.ready: list[int] = NO_ITEMS
        """Steps whose next attempt may begin."""
        self.barred: dict[str, deque[int]] = NO_ENTRIES
        """Of those, the ones that wait for room in their queue, by queue."""
        self.offered: dict[int, str] = NO_ENTRIES
        """Steps that any worker may take, and the executions that they are there."""
        self._bound: list[int] = NO_ITEMS
        """Steps that name a queue, and are not placed yet."""
        self._went_to: Outcome | None = None
        """What the one step of an offered step came to."""
        self.suspects: dict[int, int] = NO_ENTRIES
        """Steps that were running when their worker died: seq, and crashes held against them so far (R5)."""
        self.unrecorded = math.inf
        """When the first retry was due, at the takeover, that may have been running too: its start is not on record."""
        self.dropped = 0
        """Outcomes that came too late to matter."""
        self.early = False
        """Whether it is looked at before it is to start."""
        self._created_at = summary.created_at
        self._adopted = False
        """Whether this host has found out before what was left to do: what began since then, it began itself."""
        self._floor = 0.0
        """The time of the last event on record: no later one has an earlier time (I2)."""
        self._takeovers: dict[int, int] = NO_ENTRIES
        """Suspects that are to be started, and crashes held against them; kept until that is on record."""
        self._watched: dict[int, None] = NO_ENTRIES
        """Suspects beside which nothing runs when they are started; their log says so."""
        self._guilty: dict[int, None] = NO_ENTRIES
        """Suspects beside which nothing ran when their worker died, by their log."""
        self._returning: dict[int, None] = NO_ENTRIES
        """Steps that were waiting for a retry when they were taken up: that attempt may have been running already."""
        self._orphans: dict[int, str] = NO_ENTRIES
        """Children that the run waits for while it is parked, by seq."""
        self._overtaken: list[int] = NO_ITEMS
        """Attempts that run here though what their steps came to is on record: they are given up with the next turn."""
        self._unsent: dict[int, Defect] = NO_ENTRIES
        """Attempts on record as begun that could not be handed to their executor, by seq, until the log says so."""
        self._timers: list[Timer] = NO_ITEMS
        self._busy: dict[int, None] = NO_ENTRIES
        self._captures: list[int] = NO_ITEMS
        self._told: dict[int, None] = NO_ENTRIES
        self._interruption_held = False
        self._listed_parked = summary.status is Status.PARKED
        """Whether lists show it as parked: once it goes on they are told, though there be nothing to append."""
        self._clear()

    def _clear(self) -> None:
        """No turn is being built: what is empty is a shared one."""
        self.events: list[Event] = NO_ITEMS
        self._offered: list[Resolved | Retried] = NO_ITEMS
        self._used: list[int] = NO_ITEMS
        self._posts: list[stored.Post] = NO_ITEMS
        self._creates: dict[int, stored.New] = NO_ENTRIES
        self._calls: list[StepCall] = NO_ITEMS
        self._stops: list[int] = NO_ITEMS
        self._recalled: list[str] = NO_ITEMS
        self._ended: list[int] = NO_ITEMS
        self.inbox = self.inbox or NO_ENTRIES
        self.running = self.running or NO_ENTRIES
        self.ready = self.ready or NO_ITEMS
        self._timers = self._timers or NO_ITEMS
        self._busy = self._busy or NO_ENTRIES

    def _open(self) -> None:
        """Begin a turn, unless one was begun: what is written in most turns is its own now."""
        if self.events is not NO_ITEMS:
            return
        self.events = []
        self._used = []
        self._posts = []
        self._creates = {}
        self._calls = []
        self._stops = []
        self._recalled = []
        self._ended = []
        self.running = self.running or {}
        self.ready = self.ready or []
        self._timers = self._timers or []
        self._busy = self._busy or {}

    # ------------------------------------------------------------ taking up a run

    def revive(self, records: Sequence[stored.Record], registry: Registry) -> None:
        """Replay what the log holds; parks the run when code and log disagree. Costs O(n) in its events."""
        self.drop()
        self.position = len(records)
        self.defect = None
        self.registry = registry
        try:
            events = self.codec.decode_events(records, self.id, self.run)
            past = look_back(events, self.id, self.run)
            self._look_back(past)
            if is_offered(self.workflow_name):
                self._went_to = next(
                    (event.outcome for event in events if isinstance(event, Resolved) and event.seq == 0),
                    None,
                )
            if isinstance(events[-1], Closed):
                self.closed = events[-1]
                return
            execution = replay_explained(registry.of(past.started), events, self.codec)
            if execution.next_seq > 0:  # else its first turn is still to come, and the lines with it
                execution.take_lines()
            self._adopt(execution)
        except MISBEHAVIOUR as error:
            self.park(error if isinstance(error, Defect) else misbehaviour(error))

    def _look_back(self, past: Past) -> None:
        """What the log itself says, whether the code fits or not; outcomes that are on record are not kept."""
        self.started = past.started
        if past.started.id == self.id:
            self.id = past.started.id  # one string for both
        self._floor = past.floor
        self._interruption_held = past.interrupted
        self._orphans = dict(past.children) or NO_ENTRIES
        self._guilty = dict(past.guilty) or NO_ENTRIES
        self._overtaken = [seq for seq in self.running if seq in past.settled] or NO_ITEMS
        self.outcomes = [
            outcome
            for outcome in self.outcomes
            if outcome.seq not in past.settled
            and not (isinstance(outcome, Retried) and past.attempts.get(outcome.seq, 0) > outcome.attempt)
        ]

    def _adopt(self, execution: Execution) -> None:
        """Find out what is left to do: issued minus resolved."""
        self._open()
        self.execution = execution
        assert self.started is not None
        if self.started.deadline is not None:
            heapq.heappush(self._timers, (self.started.deadline, 0, -1, "run"))
        for seq, issued in execution.pending.items():
            self._track_issued(issued)
            if issued.kind == "step":
                self._adopt_step(execution, seq)
        self._track_cancelling(execution)
        if self.suspects:
            self.suspects = {
                seq: crashes for seq, crashes in self.suspects.items() if execution.is_pending(seq)
            }
        self._adopted = True

    def _adopt_step(self, execution: Execution, seq: int) -> None:
        progress = execution.progress(seq)
        if progress.deadline is not None:
            heapq.heappush(self._timers, (progress.deadline, 1, seq, "step"))
        if progress.elsewhere:
            self._is_elsewhere(seq)
            return
        if seq in self.running or self._has_ended(seq):
            return  # it runs, or what it came to is not on record yet
        if progress.began and not self._adopted and not self._is_handed_over(execution, seq):
            self.suspects = put(self.suspects, seq, progress.crashes)
        elif progress.began or progress.retry_at is None:
            if seq not in self.suspects:
                self._make_ready(execution, seq, new=not progress.began)
        else:
            if not self._adopted:
                self._returning = put(self._returning, seq, None)
                if not progress.handed_over:
                    self.unrecorded = min(self.unrecorded, progress.retry_at)
            self._busy.pop(seq, None)
            heapq.heappush(self._timers, (progress.retry_at, 1, seq, "retry"))

    def _make_ready(self, execution: Execution, seq: int, *, new: bool) -> None:
        """Its next attempt may begin; a step that names a queue and never began is to be placed first."""
        bound = new and policy_of(execution, seq).queue is not None and not is_offered(self.workflow_name)
        if bound:
            self._bound = added(self._bound, seq)
        else:
            self.ready.append(seq)

    def _is_elsewhere(self, seq: int) -> None:
        """Whoever takes it runs it: this host waits for word."""
        self.offered = put(self.offered, seq, offered_id(self.id, self.run, seq))
        self._busy.pop(seq, None)

    def _is_handed_over(self, execution: Execution, seq: int) -> bool:
        """Whether the worker that began it gave it back on purpose, and it may run again (R5, R10)."""
        return execution.progress(seq).handed_over and not policy_of(execution, seq).at_most_once

    def drop(self) -> None:
        """Forget the execution and the turn that was being built; outcomes and what runs are kept."""
        if self.execution is not None:
            execution, self.execution = self.execution, None
            try:
                execution.close()
            except MISBEHAVIOUR as error:
                LOGGER.warning(
                    "execution '%s': %s while its code was put away", self.id, type(error).__name__
                )
        self.outcomes = [*self._offered, *self.outcomes]
        for call in self._calls:
            self.running.pop(call.seq, None)
        self.closed = None
        self.opened = self._opens_as = None
        self.ready = NO_ITEMS
        self.barred = NO_ENTRIES
        self._bound = NO_ITEMS
        self.offered = NO_ENTRIES
        self._timers = NO_ITEMS
        self._busy = NO_ENTRIES
        self._captures = NO_ITEMS
        self._told = NO_ENTRIES
        self._clear()

    def park(self, defect: Defect) -> None:
        """Code and log disagree, or the code is wrong: no execution until that is mended (R20)."""
        self.drop()
        self.defect = defect
        if self.started is not None and self.started.deadline is not None and not self._interruption_held:
            self._timers = [(self.started.deadline, 0, -1, "run")]

    # ------------------------------------------------------------ what is going on

    @property
    def status(self) -> Status:
        """How a list shows the run once the turn is durable."""
        if self.closed is not None:
            return self.closed.status
        if self.defect is not None:
            return Status.PARKED
        if self.early:
            return Status.SCHEDULED
        return Status.RUNNING if self._busy or self.has_more else Status.WAITING

    @property
    def wake(self) -> float | None:
        """When it is next due by time, in seconds since the epoch."""
        if self.early and self.started is not None:
            return self.started.at
        return self._timers[0][0] if self._timers and self.closed is None else None

    @property
    def reason(self) -> str:
        """Why it is parked."""
        return "" if self.defect is None else f"{type(self.defect).__name__}: {self.defect}"

    @property
    def idle(self) -> bool:
        """Whether it may be evicted: nothing runs, nothing is ready, nothing waits to be written."""
        busy = (
            self.running
            or self.ready
            or self.barred
            or self._bound
            or self.suspects
            or self.outcomes
            or self._unsent
            or self.events
        )
        return not busy and (self.execution is not None or self.defect is not None)

    @property
    def begun(self) -> int:
        """How many attempts the turn begins; it may have nothing to write all the same (retries)."""
        return len(self._calls)

    @property
    def held_back(self) -> list[int]:
        """Steps that this host has on record as begun and does not run: their attempts were stopped, or held back.

        Of those that may run once only it is the latter: what was stopped is lost. Costs O(n) in what is pending.
        """
        execution = self.execution
        if execution is None:
            return []
        steps = [seq for seq, issued in execution.pending.items() if issued.kind == "step"]
        others = {*self.running, *self.suspects, *self._takeovers, *self.offered}
        return [seq for seq in steps if seq not in others and execution.progress(seq).began]

    @property
    def ends(self) -> Sequence[int]:
        """Running attempts, by seq, whose outcome nobody wants any more once the turn is durable."""
        return self._ended

    @property
    def has_more(self) -> bool:
        """Whether a message waits that did not fit into the last turn."""
        execution = self.execution
        return bool(self.inbox) and execution is not None and self._next_message(execution) is not None

    @property
    def creates(self) -> bool:
        """Whether the turn creates executions."""
        return bool(self._creates)

    @property
    def posted(self) -> bool:
        """Whether the turn posts messages to other executions."""
        return bool(self._posts)

    def receive(self, messages: Sequence[stored.Message]) -> None:
        """Take in messages that were read from the inbox."""
        for message in messages:
            if message.number > self.seen:
                self.inbox = put(self.inbox, message.number, message)
                self.seen = message.number

    # ------------------------------------------------------------ building a turn

    def build(self, now: float) -> None:
        """Take in what has happened up to `now`: timers, messages, outcomes. Parks the run on a defect.

        Raises only what may pass: the run is to be read back then.
        """
        self._open()
        self.early = self.position == 1 and self._is_early(now)
        if self.early:
            return
        self._created_at = math.inf  # of no more use
        self._offered, self.outcomes = self.outcomes, NO_ITEMS
        try:
            if self._unsent and self.execution is not None:
                self._park_mid_turn(next(iter(self._unsent.values())))
            elif self.execution is not None:
                self._take_in(self.execution, max(now, self._floor, self.execution.now))
        except MISBEHAVIOUR as error:
            self._park_mid_turn(error if isinstance(error, Defect) else misbehaviour(error))
        if self.defect is not None:
            self._build_parked(max(now, self._floor))
        if self._overtaken:
            self._ended = list(dict.fromkeys([*self._ended, *self._overtaken]))

    def _is_early(self, now: float) -> bool:
        """Whether its start was put off and is still to come; who wants it to end does not wait for that."""
        started = self.started
        if self.execution is None or started is None or self.run > 0 or not self._created_at < started.at:
            return False
        return now < started.at and all(message.kind == "event" for message in self.inbox.values())

    def _park_mid_turn(self, defect: Defect) -> None:
        """Keep the outcomes of the turn, and forget all it led to. Raises what may pass."""
        there = {} if self.execution is None else self._awaited(self.execution)
        self._orphans = {**self._orphans, **{s: id for s, id in there.items() if s not in self._creates}}
        self.park(defect)
        if isinstance(defect, Passing):
            raise defect
        self._open()
        self._offered, self.outcomes = self.outcomes, NO_ITEMS

    def _take_in(self, execution: Execution, now: float) -> None:
        """Apply facts in the order of time, each followed at once by everything it leads to."""
        for outcome in self._offered:  # clocks may go back since (F13), times may not (I2)
            now = max(now, outcome.at)
        self._answer(execution, now)
        for outcome in self._offered:
            if self._timers or self.inbox:
                self._take_early(execution, now, outcome.at)
            if self.closed is not None or not execution.is_pending(outcome.seq):
                self.dropped += 1
                continue
            late = outcome.at < execution.now  # times never decrease (I2)
            self._apply(execution, attrs.evolve(outcome, at=execution.now) if late else outcome)
            self._answer(execution, now)
        if self._timers or self.inbox:
            self._take_early(execution, now, now)
        self._check_size()

    def _take_early(self, execution: Execution, now: float, until: float) -> None:
        """Apply timers and messages that came before an instant: an outcome that was in time stays in time."""
        while self.closed is None and (fact := self._next_early(execution, now, until)) is not None:
            self._apply(execution, fact)
            self._answer(execution, now)

    def _apply(self, execution: Execution, event: Event) -> None:
        execution.apply(event)
        self.events.append(event)
        if isinstance(event, Issued):
            if event.kind == "step":  # the most frequent by far
                self._busy[event.seq] = None
                self._make_ready(execution, event.seq, new=True)
            else:
                self._track_issued(event)
                if event.child is not None:
                    self._creates[event.seq] = self._new_child(event)
        elif isinstance(event, Resolved):
            self._busy.pop(event.seq, None)
            self.suspects.pop(event.seq, None)
            if self.offered:
                self.offered.pop(event.seq, None)
            if event.seq == 0 and is_offered(self.workflow_name):
                self._went_to = event.outcome
            if event.seq in self.running:
                self._ended.append(event.seq)
        elif isinstance(event, Retried):
            self._busy.pop(event.seq, None)
            heapq.heappush(self._timers, (event.retry_at, 1, event.seq, "retry"))
        elif isinstance(event, Closed):
            self._close(execution, event)
        if execution.cancelling:
            self._track_cancelling(execution)

    def _answer(self, execution: Execution, now: float) -> None:
        """Apply decisions until there are none, and evaluate what is captured on the way."""
        while self.closed is None:
            decisions = execution.decide() if execution.wants else ()
            for decision in decisions:
                if isinstance(decision, Closed):
                    self._note_unobserved(execution)
                self._apply(execution, decision)
            if decisions:
                self._check_size()
                continue
            if not self._captures:
                return
            seq = self._captures.pop(0)
            if execution.is_pending(seq):  # its branch may have been cancelled in this very turn
                self._apply(execution, Resolved(seq, self._captured(execution, seq), now))

    def _captured(self, execution: Execution, seq: int) -> Outcome:
        command = execution.command(seq)
        try:
            payload, _ = self.codec.through(evaluated(execution, command.fn), capture_type(command))
            return Done(payload)
        except Exception as error:  # noqa: BLE001  # the outcome of the capture, whatever it is
            return Failed(self.codec.failure_of(error, ()))
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001  # as of a step: else its execution would wait for ever
            told = RuntimeError(f"what is captured raised {type(error).__name__}")
            return Failed(self.codec.failure_of(told, ()))

    def _note_unobserved(self, execution: Execution) -> None:
        """Leave a note of errors that nobody waited for, and of commands that were never yielded (R12, R24)."""
        for text in execution.unobserved():
            self._apply(execution, Noted(UNOBSERVED, why=text, at=execution.now))

    def _check_size(self) -> None:
        if self.position + len(self.events) > EVENTS_MAX and self.closed is None:
            raise TooManyEvents(
                f"run {self.run} of execution '{self.id}' would have more than {EVENTS_MAX} events; "
                "end it with `yield from my_workflow.continue_as_new(...)` before it grows so long"
            )

    # ------------------------------------------------------------ timers and messages

    def _next_early(self, execution: Execution, now: float, until: float) -> Event | None:
        """The earliest timer or message up to an instant that leads to an event; the one that came first wins."""
        while True:
            timer = self._timers[0] if self._timers and self._timers[0][0] <= until else None
            message = self._next_message(execution)
            if message is not None and message.at > until and until < now:
                message = None
            if timer is not None and (message is None or comes_first(execution, timer, message)):
                heapq.heappop(self._timers)
                fact = self._due(execution, timer, now)
            elif message is not None and len(self._used) < MESSAGES_PER_TURN_MAX:
                self._used.append(message.number)
                del self.inbox[message.number]
                fact = received(self.codec, execution, message, now)
            else:
                return None
            if fact is not None:
                return fact

    def _next_message(self, execution: Execution) -> stored.Message | None:
        """The oldest message that is wanted now. Events nobody waits for stay in the inbox (R14)."""
        for message in self.inbox.values():
            if message.kind != "event" or execution.listens(message.name):
                return message
        return None

    def _due(self, execution: Execution, timer: Timer, now: float) -> Event | None:
        """What a timer leads to, if it still matters; a retry is ready then."""
        when, _, seq, kind = timer
        if kind != "retry":
            return fired(execution, timer, now)
        if (
            execution.is_pending(seq)
            and execution.progress(seq).retry_at == when
            and seq not in self.running
            and seq not in execution.cancelling
        ):
            self._busy[seq] = None
            self.ready.append(seq)
        return None

    def _track_issued(self, issued: Issued) -> None:
        if issued.until is not None:
            kind: TimerKind = "sleep" if issued.kind == "sleep" else "event"
            heapq.heappush(self._timers, (issued.until, 1, issued.seq, kind))
        elif issued.kind in ("step", "spawn"):
            self._busy[issued.seq] = None
        elif issued.kind == "capture":
            self._captures = added(self._captures, issued.seq)

    def _track_cancelling(self, execution: Execution) -> None:
        """Tell what has to end, once each: a child by a message, a running attempt by its host (R18)."""
        for seq, until in execution.cancelling.items():
            if seq in self._told:
                continue
            self._told = put(self._told, seq, None)
            child = execution.pending[seq].child or self.offered.get(seq)
            if child is not None:
                self._posts.append(cancel_child(child, Parent(self.id, self.run, seq), execution.now))
                if seq in self.offered:
                    self._recalled.append(child)
                    heapq.heappush(self._timers, (until, 1, seq, "grace"))
            elif seq in self.running:
                self._stops.append(seq)
                heapq.heappush(self._timers, (until, 1, seq, "grace"))
            elif not self._has_ended(seq):
                heapq.heappush(self._timers, (execution.now, 1, seq, "grace"))

    # ------------------------------------------------------------ ending

    def _close(self, execution: Execution, closed: Closed) -> None:
        """The run has ended: tell the parent, or open the next run; take its children along."""
        self.closed = closed
        self._ended.extend(seq for seq in self.running if execution.is_pending(seq))
        if closed.status is Status.CONTINUED:
            newest = self.registry.by_name.get(self.workflow_name, execution.workflow)
            self.opened = next_run(self.codec, execution, closed, newest)
            self._opens_as = claim_name(self.workflow_name, newest.version)
        elif execution.started is not None and execution.started.parent is not None:
            self._posts.append(self._report(execution.started.parent, closed))
        self._posts += end_children(self._awaited(execution), self.id, self.run, closed)
        self._recalled += self.offered.values()

    def _awaited(self, execution: Execution) -> dict[int, str]:
        """The executions that it waits for, by seq: children, and steps that any worker may take."""
        pending = execution.pending.values()
        children = {issued.seq: issued.child for issued in pending if issued.kind == "child" and issued.child}
        return {**children, **self.offered}

    def _report(self, parent: Parent, closed: Closed) -> stored.Post:
        """The message that tells a parent how this run ended, or an execution what its offered step came to."""
        if is_offered(self.workflow_name):
            return offers.report(self.codec, parent, closed, self._went_to)
        return report(self.codec, parent, closed)

    def _new_child(self, issued: Issued) -> stored.New:
        """The execution that a child or spawn command asks for; the same command always asks for the same one."""
        assert issued.child is not None and self.execution is not None
        workflow: Workflow[Any, Any] = self.execution.command(issued.seq).workflow
        self.registry.learn(workflow)
        if workflow.name != issued.of:  # it is called otherwise by now, and is there under its old name
            workflow = Workflow(workflow.fn, issued.of)
        parent = Parent(self.id, self.run, issued.seq) if issued.kind == "child" else None
        return new_execution(self.codec, workflow, issued.child, issued.payload, issued.at, parent=parent)

    def children(self) -> dict[int, stored.New]:
        """The executions behind pending commands, by seq, to be created again after a takeover: once each (L9)."""
        if self.execution is None:
            return {}
        pending = self.execution.pending
        children = {
            issued.seq: self._new_child(issued) for issued in pending.values() if issued.child is not None
        }
        return children | {seq: self._new_offer(self.execution, seq) for seq in self.offered}

    def made_sure_of(self, seq: int, found: bool, now: float) -> None:
        """As `created`, for what is on record. An offer keeps the queue and the id with which its step was offered."""
        self.created(seq, found or seq in self.offered, now)

    def created(self, seq: int, created: bool, now: float) -> None:
        """Whether the execution that a child or spawn command asked for is there; its id may be taken."""
        assert self.execution is not None
        issued = self.execution.pending[seq]
        if not created:
            taken = issued.child or offered_id(self.id, self.run, seq)
            message = f"the id '{taken}' is taken by another execution"
            self._keep(Resolved(seq, Failed(Failure("conflict", "ExecutionConflict", message)), now))
        elif issued.kind == "spawn":
            self._keep(Resolved(seq, Done(self.codec.encode(issued.child, str)), now))

    # ------------------------------------------------------------ beginning attempts

    def begin(
        self,
        slots: int,
        now: float,
        only: int | None = None,
        market: Market | None = None,
        overflow: int = 0,
        limiter: Limiter | None = None,
    ) -> int:
        """Begin up to `slots` attempts that are ready, on record where a rule asks for it; gives how many.

        `only` is the seq of the one that may begin, when no other may (R5). Steps that name a queue go where the
        `market` says, and up to `overflow` others that find no slot to whoever takes them. Without a market all steps
        run here, and without a limiter as many as there are slots.
        """
        execution = self.execution
        if execution is None or self.closed is not None:
            return 0
        before = self._call_in(limiter, everyone=only is not None) if self.barred else 0
        if only is not None:
            self.ready.sort(key=lambda seq: seq != only)
        count = 0
        try:
            if self._bound:
                self._place(execution, market, max(now, self._floor, execution.now))
            taken = 0
            for seq in self.ready:
                if count == slots or only not in (None, seq):
                    break
                taken += 1
                if execution.is_pending(seq) and seq not in execution.cancelling and seq not in self.running:
                    progress = execution.progress(seq)
                    due = progress.retry_at or 0.0  # clocks may go back since (F13)
                    at = max(now, due, self._floor, execution.now)
                    if limiter is not None and not self._admits(limiter, execution, seq, at, taken <= before):
                        continue
                    self._begin(execution, seq, progress, at)
                    count += 1
            del self.ready[:taken]
            if overflow and self.ready and market is not None and only is None:
                self._overflow(execution, market, overflow, max(now, self._floor, execution.now))
        except MISBEHAVIOUR as error:
            self._park_mid_turn(error if isinstance(error, Defect) else misbehaviour(error))
            self._build_parked(max(now, self._floor))
            return 0
        return count

    def _place(self, execution: Execution, market: Market | None, now: float) -> None:
        """Put each step that names a queue where it may run."""
        bound, self._bound = self._bound, []
        for seq in bound:
            if not execution.is_pending(seq) or seq in execution.cancelling:
                continue
            if market is None or market.here(execution.command(seq).function):
                self.ready.append(seq)
            else:
                self._offer(execution, seq, now)

    def _call_in(self, limiter: Limiter | None, *, everyone: bool) -> int:
        """Put those first in line that wait for room in their queue, as far as there is some; gives how many."""
        called: list[int] = []
        for queue, line in list(self.barred.items()):
            room = None if everyone or limiter is None else limiter.room(queue)
            called += [line.popleft() for _ in range(len(line) if room is None else min(room, len(line)))]
            if not line:
                del self.barred[queue]
        self.ready[:0] = called
        return len(called)

    def _admits(self, limiter: Limiter, execution: Execution, seq: int, now: float, called: bool) -> bool:
        """Whether there is room in its queue; a step for which there is none waits, and its log says so once."""
        queue = policy_of(execution, seq).queue or DEFAULT_QUEUE
        name = execution.pending[seq].name
        if (called or queue not in self.barred) and limiter.admit(self, seq, queue, name, now):
            return True
        line = self.barred.get(queue)
        if line is None:
            self.barred = put(self.barred, queue, deque((seq,)))
        else:
            line.append(seq)
        if self.events and not called:
            self._apply(execution, Noted(QUEUED, str(seq), queue, at=now))
        return False

    def is_to_begin(self, seq: int) -> bool:
        """Whether its next attempt may begin, or waits for room in its queue."""
        return seq in self.ready or any(seq in line for line in self.barred.values())

    def _overflow(self, execution: Execution, market: Market, limit: int, now: float) -> None:
        """Offer the first of those that found no slot here; only what never began, and what others know by its name."""
        left: list[int] = []
        for seq in self.ready:
            try:
                if not limit or not self._may_overflow(execution, market, seq):
                    left.append(seq)
                    continue
                self._offer(execution, seq, now)
            except Defect:  # it is too large to be handed over, and waits for a slot here
                left.append(seq)
            else:
                limit -= 1
        self.ready[:] = left

    def _may_overflow(self, execution: Execution, market: Market, seq: int) -> bool:
        if not execution.is_pending(seq) or seq in execution.cancelling or seq in self._takeovers:
            return False
        progress = execution.progress(seq)
        new = not progress.began and progress.retry_at is None and seq not in self._returning
        return new and market.may_offer(execution.command(seq).function)

    def _offer(self, execution: Execution, seq: int, now: float) -> None:
        """Put a step where any worker may take it, in this turn (L1). What began there is on record there."""
        self._creates[seq] = self._new_offer(execution, seq)
        began = Began(seq, 0, at=now)
        execution.apply(began)
        self.events.append(began)
        self._apply(execution, Noted(OFFERED, str(seq), offered_id(self.id, self.run, seq), at=now))
        self._is_elsewhere(seq)

    def _new_offer(self, execution: Execution, seq: int) -> stored.New:
        return offers.offer(self.codec, execution, execution.pending[seq], execution.command(seq).function)

    def _begin(self, execution: Execution, seq: int, progress: Progress, now: float) -> None:
        """Begin one attempt: the first is always on record, one after a takeover too, a retry where R10 asks for it."""
        call = step_call(execution, seq, now)
        policy = call.function.policy
        takeover = self._takeovers.get(seq, progress.crashes or None)
        first = not progress.began and progress.retry_at is None
        if first or takeover is not None or policy.at_most_once or progress.began or seq in self._returning:
            deadline = progress.deadline if not first else global_deadline(execution, policy, now)
            if takeover:
                call = attrs.evolve(call, crashes=takeover)
            execution.apply(began := Began(seq, progress.attempt, takeover, deadline, at=now))
            self.events.append(began)
            if seq in self._watched:
                self._apply(
                    execution,
                    Noted(ALONE, str(seq), f"nothing runs beside '{call.context.step}'", at=now),
                )
            if first and deadline is not None:
                heapq.heappush(self._timers, (deadline, 1, seq, "step"))
                call = attrs.evolve(call, context=attrs.evolve(call.context, deadline=deadline))
        self._busy[seq] = None
        self.running[seq] = None
        self._calls.append(call)

    def was_on_trial(self, seq: int) -> bool:
        """Whether a suspect had been started again after a crash already."""
        return self.execution is not None and self.execution.progress(seq).taken_over

    def try_suspect(self, seq: int, *, alone: bool, watched: bool = False, now: float) -> bool:
        """Decide about a step that was running when its worker died: lost, or ready to be started again (R5, R10).

        Gives whether it is ready. `alone` says whether it was the only suspect; only then, or when its log says that it
        ran alone, is the crash held against it. `watched` says that nothing else will run while it does.
        """
        crashes = self.suspects.pop(seq, 0) + (1 if alone or seq in self._guilty else 0)
        assert self.execution is not None
        policy = policy_of(self.execution, seq)
        name = self.execution.pending[seq].name
        if policy.at_most_once:
            why = f"step '{name}' may run at most once, and its worker died while it may have been running"
        elif crashes >= policy.max_crashes:
            why = f"step '{name}' brought down its worker {crashes} times"
        else:
            self._takeovers = put(self._takeovers, seq, crashes)
            if watched:
                self._watched = put(self._watched, seq, None)
            self.ready = [seq, *self.ready]
            return True
        self._keep(Resolved(seq, Failed(Failure("lost", name, why, attempts=crashes)), now))
        return False

    def suspect(self, call: StepCall, *, guilty: bool) -> None:
        """The executor of an attempt broke while it may have been running there: as if its worker had died (R5).

        `guilty` says that nothing else ran beside it.
        """
        self.running.pop(call.seq, None)
        if self.execution is None or self.execution.is_pending(call.seq):
            self.suspects = put(self.suspects, call.seq, call.crashes)
            self._guilty.pop(call.seq, None)
            if guilty:
                self._guilty = put(self._guilty, call.seq, None)

    def put_back(self, seq: int) -> bool:
        """Make a suspect again of one that was to be started and waits for room in its queue; False if it does not."""
        queue = next((queue for queue, line in self.barred.items() if seq in line), None)
        if queue is None or seq not in self._takeovers:
            return False
        self.barred[queue].remove(seq)
        if not self.barred[queue]:
            del self.barred[queue]
        self.suspects = put(self.suspects, seq, self._takeovers.pop(seq))
        return True

    # ------------------------------------------------------------ outcomes of attempts

    def returned(self, call: StepCall, value: Any, now: float) -> None:
        """An attempt gave a value."""
        self._earn(outcomes.returned(self.codec, call, value, now))

    def raised(self, call: StepCall, error: BaseException, now: float, lots: Lots = LOTS) -> None:
        """An attempt raised an error: it is retried, or becomes the step's outcome (R4, R6)."""
        again = None if self._is_cancelling(call.seq) else lots
        self._earn(outcomes.raised(self.codec, call, error, now, again))

    def timed_out(self, call: StepCall, now: float, lots: Lots = LOTS) -> None:
        """An attempt took longer than PER_ATTEMPT allows (R5, R7)."""
        self._earn(outcomes.timed_out(call, now, None if self._is_cancelling(call.seq) else lots))

    def cancelled(self, call: StepCall, now: float, *, ran: bool = True) -> None:
        """A running attempt was told to end and did, or had not begun yet."""
        self._earn(outcomes.cancelled(call, now, ran=ran))

    def lose(
        self, call: StepCall, now: float, why: str = "was stopped when the lease of its worker ran out"
    ) -> None:
        """An attempt was stopped, and is made again, here or elsewhere: one that may run once only is lost (R10)."""
        self.running.pop(call.seq, None)
        if call.function.policy.at_most_once:
            step = call.context.step or ""
            message = f"step '{step}' may run at most once, and {why}"
            self._earn(Resolved(call.seq, Failed(Failure("lost", step, message)), now))

    def unsent(self, seq: int, defect: Defect) -> None:
        """An attempt could not be handed to its executor: it has not begun after all, and the run is parked (R20)."""
        self.running.pop(seq, None)
        self._unsent = put(self._unsent, seq, defect)

    def unearn(self, seq: int) -> None:
        """What an attempt came to is not kept, as what it wrote in its transaction is not: it runs again."""
        self.outcomes = [outcome for outcome in self.outcomes if outcome.seq != seq]

    def replace_largest(self, why: str) -> bool:
        """Make a failure of the largest result that waits to be written, as it cannot be (F19); False without any."""
        sizes = {
            index: len(each.outcome.payload)
            for index, each in enumerate(self.outcomes)
            if isinstance(each, Resolved) and isinstance(each.outcome, Done)
        }
        if not sizes:
            return False
        index = max(sizes, key=sizes.__getitem__)
        outcomes = list(self.outcomes)
        seq, at = outcomes[index].seq, outcomes[index].at
        issued = None if self.execution is None else self.execution.pending.get(seq)
        step = "" if issued is None else issued.name
        message = f"the result of step '{step}' cannot be written down: {why}; return a reference to it"
        outcomes[index] = Resolved(seq, Failed(Failure("unencodable", step, message)), at)
        self.outcomes = outcomes
        return True

    def _has_ended(self, seq: int) -> bool:
        """Whether what an attempt came to is known, and not on record yet."""
        return any(outcome.seq == seq for outcome in (*self._offered, *self.outcomes))

    def _is_cancelling(self, seq: int) -> bool:
        return self.execution is not None and seq in self.execution.cancelling

    def _earn(self, outcome: Resolved | Retried) -> None:
        self.running.pop(outcome.seq, None)
        self._keep(outcome)

    def _keep(self, outcome: Resolved | Retried) -> None:
        self.outcomes = added(self.outcomes, outcome)

    # ------------------------------------------------------------ parked

    def _build_parked(self, now: float) -> None:
        """Facts alone: outcomes of what still ran, the deadline, or the end by termination (R16, R18, R20)."""
        for outcome in self._offered:
            at = max(outcome.at, self.events[-1].at if self.events else self._floor)
            if isinstance(outcome, Resolved):
                self.events.append(attrs.evolve(outcome, at=at, held=True))
            else:
                self.events.append(attrs.evolve(outcome, at=at))
        now = max(now, self.events[-1].at if self.events else now)
        self.events += [Noted(UNBEGUN, str(seq), at=now) for seq in self._unsent]
        for message in [message for message in self.inbox.values() if message.kind == "terminate"]:
            self._used.append(message.number)
            del self.inbox[message.number]
            parent = None if self.started is None else self.started.parent
            if self.closed is None and not is_strangers(message, parent):
                self._close_parked(terminated(message, now))
        if self.closed is None and self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)
            self._interruption_held = True
            self.events.append(Interrupted("deadline", now, "its deadline has passed", held=True))

    def _close_parked(self, closed: Closed) -> None:
        self.events.append(closed)
        self.closed = closed
        if self.started is not None and self.started.parent is not None:
            self._posts.append(self._report(self.started.parent, closed))
        self._posts += end_children(self._orphans, self.id, self.run, closed)
        self._recalled += [child for child in self._orphans.values() if is_offered(child)]

    def hand_over(self, now: float, unbegun: Sequence[int] = ()) -> None:
        """Put a note into the turn that what runs is given back on purpose: no crash counts (R5).

        The functions of `unbegun` were never called: of those that may run once only the log says so (R10).
        """
        if self.closed is not None:
            return
        execution = self.execution
        if execution is not None:
            at = max(now, self._floor, execution.now)
            for seq in unbegun:
                if seq in execution.pending and policy_of(execution, seq).at_most_once:
                    self._apply(execution, Noted(UNBEGUN, str(seq), at=at))
            self._apply(execution, Noted(HANDED_OVER, at=at))
        else:
            self.events.append(
                Noted(HANDED_OVER, at=max(now, self._floor, self.events[-1].at if self.events else now))
            )

    # ------------------------------------------------------------ writing and afterwards

    def compose(self, now: float, *, build: str = "", releases: bool = False) -> list[stored.Write]:
        """The writes that make the turn durable, all in one commit; empty when there is nothing to write."""
        writes: list[stored.Write] = []
        opens = self.opened
        if self.events or self._used or self._posts:
            writes.append(
                stored.Turn(
                    id=self.id,
                    run=self.run,
                    position=self.position,
                    fence=self.fence,
                    records=self.codec.encode_events(self.events, self.id, self.run, self.position),
                    at=max(now, self.events[-1].at if self.events else now),
                    status=Status.RUNNING if opens is not None else self.status,
                    wake=0.0 if opens is not None else self.wake,
                    seen=self.seen,
                    consumes=tuple(self._used) if self._used else (),
                    opens=opens,
                    creates=tuple(self._news().values()) if self._creates else (),
                    posts=tuple(self._posts) if self._posts else (),
                    releases=releases,
                    opens_as=self._opens_as,
                )
            )
        aside = self.defect is not None or self.early or (self._listed_parked and not writes)
        if self.closed is None and aside:
            writes.append(self.mark(build, releases=releases))
        return writes

    def compose_new(self, new: stored.New, owner: str) -> stored.New:
        """The creation of an execution together with the first turn, held by `owner` from the start."""
        records = self.codec.encode_events(self.events, self.id, self.run, self.position)
        return stored.New(
            new.id,
            new.workflow,
            new.digest,
            [*new.records, *records],
            new.at,
            self.status if self.defect is None else Status.SCHEDULED,
            self.wake,
            owner,
            tuple(self._news().values()),
            tuple(self._posts),
            new.claimed_as,
        )

    def _news(self) -> dict[str, stored.New]:
        """What the turn creates, by id: of several commands that ask for one id the first has it (L9)."""
        news: dict[str, stored.New] = {}
        for new in self._creates.values():
            news.setdefault(new.id, new)
        return news

    def summary_of_next(self, position: int) -> stored.Summary:
        """The execution as it stands once its next run is open."""
        return stored.Summary(
            self.id,
            self.workflow_name,
            "",
            Status.RUNNING,
            self.run + 1,
            position,
            self.fence,
            0.0,
            0.0,
            None,
            None,
        )

    def mark(self, build: str = "", *, releases: bool = False) -> stored.Mark:
        """What stands beside the log when there is nothing to append: it was looked at (L13)."""
        return stored.Mark(
            self.id, self.status, self.reason, build, self.wake, self.seen, self.fence, releases=releases
        )

    def _lines(self) -> Sequence[logging.LogRecord]:
        """What the workflow logged, and at its end what nobody would hear of: a history is seldom read (R12, R24)."""
        lines = self.execution.take_lines() if self.execution is not None else ()
        if self.closed is None or not logger.isEnabledFor(logging.WARNING):
            return lines
        notes = (event for event in self.events if isinstance(event, Noted) and event.what == UNOBSERVED)
        return [*lines, *(warning(self.id, note.why) for note in notes)]

    def committed(self, now: float, conflicts: Collection[str] = ()) -> Effects:
        """The turn is durable: its effects, and room for the next turn. `conflicts` are ids that were taken."""
        self.position += len(self.events)
        if self.events:
            self._floor = self.events[-1].at
        self._listed_parked = self.defect is not None
        self._overtaken = NO_ITEMS
        if self._takeovers or self._watched or self._returning:
            for call in self._calls:
                self._takeovers.pop(call.seq, None)
                self._watched.pop(call.seq, None)
                self._returning.pop(call.seq, None)
        if self._unsent:
            said = {each.who for each in self.events if isinstance(each, Noted) and each.what == UNBEGUN}
            left = {seq: defect for seq, defect in self._unsent.items() if str(seq) not in said}
            self._unsent = left or NO_ENTRIES
        news = self._news() if self._creates else NO_ENTRIES
        for seq, new in self._creates.items():
            if self.execution is not None and self.execution.is_pending(seq):
                same = new.digest == news[new.id].digest
                self.created(seq, same and new.id not in conflicts, now)
        effects = Effects(
            self._calls,
            [seq for seq in self._stops if seq in self.running] if self._stops else (),
            [seq for seq in self._ended if seq in self.running] if self._ended else (),
            self._lines(),
            list(news) if news else (),
            self._recalled,
        )
        for seq in effects.dropped:
            self.running.pop(seq, None)
        self._clear()
        return effects


def evaluated(execution: Execution, fn: Callable[[], Any]) -> Any:
    """What a captured function gives, with what surrounds its workflow: its lines wait for the turn, too."""
    token = SCENE.set(execution.scene)
    try:
        return fn()
    finally:
        SCENE.reset(token)


def warning(id: str, text: str) -> logging.LogRecord:
    """A line about an execution that has ended."""
    return logging.LogRecord(
        logger.logger.name, logging.WARNING, __file__, 0, "execution '%s': %s", (id, text), None
    )


def misbehaviour(error: BaseException) -> Defect:
    """The defect for code that raised what no workflow may raise, or for what this code did not foresee (I8)."""
    if isinstance(error, OSError | Weather):  # of a codec that seals: what flows raise is their own outcome
        return Passing(f"{type(error).__name__}: {message_of(error)}")
    LOGGER.error("an execution is parked", exc_info=error)
    return Defect(f"its code cannot go on: {type(error).__name__}: {message_of(error)}")


class Passing(Defect):
    """What keeps a run from going on may pass: the key of its seal cannot be had. It is to be read back (L3)."""


class TooManyEvents(Defect):
    """A run has more events than the limit (F19): `continue_as_new` keeps histories short."""
