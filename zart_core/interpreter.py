"""The pure core: one workflow, one log, no I/O.

Rule 1: `Execution.apply` is the only thing that changes an execution; `decide` and `pending` only tell.
Rule 2: a live event and a replayed one enter by the same door; there is no replaying flag.
Rule 3: the only `now` is the `at` of the last event.
Rule 4: what is not in TRANSITIONS cannot happen.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import copy_context
from datetime import UTC, datetime
from types import FunctionType, GeneratorType, MappingProxyType
from typing import Any, Never, NoReturn, TypeGuard

import attrs

from zart_core import commands as c
from zart_core import wording
from zart_core.branches import (
    FIRST_ATTEMPT,
    NOT_BEGUN,
    PASSES_THROUGH,
    Branches,
    Closing,
    Ending,
    Node,
    Progress,
    Taking,
    Want,
    Withdrawal,
    site_of,
)
from zart_core.codec import ArgsDecode, ArgsEncode, Codec
from zart_core.context import SCENE, Context, Scene
from zart_core.empties import NO_ENTRIES, NO_ITEMS, added, put
from zart_core.errors import (
    Cancelled,
    DeadlineExceeded,
    DecodeError,
    Defect,
    Diverged,
    EncodeError,
    EventRejected,
    InvalidUse,
    LogCorrupt,
    Parked,
    Unencodable,
)
from zart_core.events import (
    CLOSED,
    Began,
    Cancellation,
    Closed,
    Delivered,
    Done,
    Event,
    Failed,
    Interrupted,
    Issued,
    Noted,
    Outcome,
    Resolved,
    Retried,
    Site,
    Started,
    Status,
    Taken,
)
from zart_core.failures import message_of
from zart_core.log import ID_CHARS_MAX
from zart_core.steps import StepFunction, annotations_of
from zart_core.workflows import Workflow, is_workflow

NO_RESOURCES: Mapping[str, Any] = MappingProxyType({})
CODEC = Codec()
"""The codec of executions that are given none; it never changes."""

GOES_ON: Mapping[type[Any], Status | None] = {
    Issued: Status.RUNNING,
    Began: Status.RUNNING,
    Retried: Status.RUNNING,
    Resolved: Status.RUNNING,
    Delivered: Status.RUNNING,
    Interrupted: Status.RUNNING,
    Noted: Status.RUNNING,
    Closed: None,
}
TRANSITIONS: Mapping[Status, Mapping[type[Any], Status | None]] = {
    Status.SCHEDULED: {Started: Status.RUNNING},
    Status.RUNNING: GOES_ON,
    **{status: {} for status in CLOSED},
}
"""Status and event to status. None: the event says which. WAITING, PAUSED and PARKED are hosts' words for RUNNING."""


class Pending(Mapping[int, Issued]):
    """What an execution has issued and not resolved, by seq: a view of its nodes."""

    __slots__ = ("_nodes",)

    def __init__(self, nodes: Mapping[int, Node]) -> None:
        self._nodes = nodes

    def __getitem__(self, seq: int) -> Issued:
        return self._nodes[seq].issued

    def __contains__(self, seq: object) -> bool:
        return seq in self._nodes

    def __iter__(self) -> Iterator[int]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)

    def __repr__(self) -> str:
        return repr(dict(self))


class Execution:
    """One run of a workflow: a cache of a pure function of its log. Dropping it and replaying is always legal; `close`
    it first, for Python complains of a `finally` that yields when it finds one later.

    Args:
        workflow: the code, decorated with @workflow.
        codec: how values become bytes; a plain one by default.
        strict: judge arguments and durations too when a recorded command is compared with a yielded one (R21).
    """

    __slots__ = (
        "_backlog",
        "_branches",
        "_buffers",
        "_captures",
        "_handlers",
        "_handling",
        "_input",
        "_listeners",
        "_nodes",
        "_payloads",
        "_root",
        "_scene",
        "_unanswered",
        "_wanted",
        "broken",
        "cancelling",
        "closed",
        "codec",
        "ignored",
        "interrupted",
        "next_delivery",
        "next_seq",
        "now",
        "position",
        "started",
        "status",
        "strict",
        "workflow",
    )

    def __init__(
        self, workflow: Workflow[Any, Any], *, codec: Codec | None = None, strict: bool = False
    ) -> None:
        if not is_workflow(workflow):
            raise InvalidUse(f"{workflow!r} is no workflow; give a function decorated with @zart.workflow")
        self.workflow = workflow
        self.codec = codec or CODEC
        self.strict = strict
        self.status = Status.SCHEDULED
        self.position = 0
        """How many events have been applied."""
        self.now = 0.0
        """The time of the last event, in seconds since the epoch."""
        self.started: Started | None = None
        self.closed: Closed | None = None
        self.interrupted: Interrupted | None = None
        self.cancelling: dict[int, float] = NO_ENTRIES
        """Pending commands that were told to end, and until when each may take to do so (R18)."""
        self.ignored = 0
        """Facts that came too late to matter."""
        self.broken: BaseException | None = None
        """Why nothing can be applied any more; the log is untouched."""
        self.next_seq = 0
        self.next_delivery = 0
        self._handlers = HANDLERS_OF[self.status]
        self._nodes: dict[int, Node] = {}
        self._branches = Branches(self)
        self._wanted: list[Want] = self._branches.wanted
        self._root: Node | None = None
        self._input: Any = None
        self._handling: BaseException | None = None
        self._listeners: dict[str, list[Node]] = NO_ENTRIES
        self._buffers: dict[str, list[int]] = NO_ENTRIES
        self._payloads: dict[int, bytes] = NO_ENTRIES
        self._backlog: list[Delivered | Resolved | Interrupted] = NO_ITEMS
        self._captures: dict[int, None] = NO_ENTRIES
        """Values that the host has to evaluate before facts that were held go on."""
        self._unanswered = True
        """Whether the answer to the last fact may be missing from a complete log: it is the start, or was held."""
        self._scene = Scene(self._context, NO_RESOURCES, NO_ITEMS, NO_ITEMS)

    # ------------------------------------------------------------ the two verbs, and the question

    def apply(self, event: Event) -> None:
        """Take in what happened: the only thing that changes an execution. Costs O(1), and what the workflow runs.

        Raises a Defect when code and log disagree or the code is wrong; the execution is then of no more use.
        """
        self.apply_all((event,))

    def apply_all(self, events: Iterable[Event]) -> None:
        """As `apply` of one after the other, up to the first that raises."""
        if self.broken is not None:
            raise self.broken
        wanted, branches = self._wanted, self._branches
        try:
            for event in events:
                handler = self._handlers.get(type(event))
                if handler is None:
                    raise self._out_of_place(event)
                self.now = event.at
                handler(self, event)
                self.position += 1
                if wanted and branches.versions:
                    self._answer_known()
        except InvalidUse as error:  # an annotation that cannot be resolved, a type that nothing decodes to
            self.broken = self._invalid(error)
            raise self.broken from error
        except BaseException as error:
            self.broken = error
            raise

    def decide(self) -> list[Event]:
        """What should be appended next, up to and including the first event that resumes the workflow.

        Asking changes nothing. Apply the answer and ask again, until it is empty, before the next fact (P6).
        Raises Unencodable when an argument or the result cannot be written down.
        """
        decisions: list[Event] = []
        seq = self.next_seq
        try:
            for want in self._wanted:
                if want.settled:
                    continue
                if not isinstance(want, Node):
                    decisions.append(self._decision(want))
                    break
                if want.kind == "version" and want.name in self._branches.versions:
                    break  # it is answered when it is the first
                decisions.append(self._issue(want, seq))
                seq += 1
                if want.kind in ("now", "version"):
                    break
        except InvalidUse as error:
            raise self._invalid(error) from error
        return decisions

    @property
    def wants(self) -> bool:
        """Whether `decide` may have an answer: cheaper than to ask, and False whenever it has none to give."""
        return bool(self._wanted)

    @property
    def pending(self) -> Mapping[int, Issued]:
        """What a host has to carry out: issued and not yet resolved, by seq. What is in `cancelling` has to end."""
        return Pending(self._nodes)

    # ------------------------------------------------------------ what hosts look at

    def command(self, seq: int) -> Any:
        """The command behind a pending Issued: function, policy and types come from the code."""
        return self._nodes[seq].command

    def arguments(self, seq: int) -> list[Any]:
        """The recorded arguments of a pending step that is about to run.

        Raises Diverged when they no longer decode to what it takes, and a Defect when it is to give what cannot be
        written down, whatever the value: once it has run, it is too late to find out.
        """
        node = self._nodes[seq]
        issued, function = node.issued, node.command.function
        try:
            values = arguments_codec(self.codec, function)[1](issued.payload)
            known = function.decoding  # its result can be read: that was found out before
            if (known is None or known[0] is not self.codec) and function.result_type not in GIVES_NOTHING:
                self._decoder(node)
            return values
        except DecodeError as error:
            what = f"the arguments of {node.title}"
            raise self._unreadable(issued, what, f"{function.id}'s parameters", error) from error
        except InvalidUse as error:
            raise Defect(f"{self._title()}: {node.title} cannot run: {error}") from error

    def progress(self, seq: int) -> Progress:
        """How far a pending step has come."""
        return self._nodes[seq].progress

    def step(self, seq: int) -> tuple[Issued, StepFunction[..., Any], Progress]:
        """A pending step as an attempt needs it: what is on record, its function, and how far it has come."""
        node = self._nodes[seq]
        return node.issued, node.command.function, node.progress

    def is_pending(self, seq: int) -> bool:
        """Whether a command is issued and not yet resolved: `seq in pending`, without the view."""
        return seq in self._nodes

    def is_shielded(self, seq: int) -> bool:
        """Whether a pending command is within a shield: the run's deadline lets it end (R16, R18)."""
        owner = self._nodes[seq].owner
        return owner is not None and any(branch.shielded for branch in owner.chain())

    @property
    def deadline(self) -> float | None:
        """When the run has to be interrupted; None without one, and during compensation and on_failure (R16)."""
        if self.started is None or self.interrupted is not None or self._handling is not None:
            return None
        return self.started.deadline

    @property
    def versions(self) -> Mapping[str, int]:
        """The answers that version markers have got so far, by name (R23)."""
        return self._branches.versions

    def listens(self, event: str) -> bool:
        """Whether a wait for this event is pending that no delivery was taken for."""
        return bool(self._listeners.get(event))

    def untaken(self) -> list[tuple[str, bytes]]:
        """Deliveries that no wait has taken: event and payload, in the order in which they came."""
        waiting = sorted((n, event) for event, buffer in self._buffers.items() for n in buffer)
        backlog = [(fact.event, fact.payload) for fact in self._backlog if isinstance(fact, Delivered)]
        return [(event, self._payloads[n]) for n, event in waiting] + backlog

    def unobserved(self) -> list[str]:
        """Errors of branches that nobody waited for, and commands that were built and never yielded."""
        errors = [
            f"{node.title}: {type(node.error).__name__}: {message_of(node.error)}"
            for node in self._branches.unobserved
            if node.error is not None
        ]
        return errors + list(self._scene.unused or ())

    @property
    def scene(self) -> Scene:
        """What surrounds the workflow's code: a host sets it around a function that is captured."""
        return self._scene

    def take_lines(self) -> list[logging.LogRecord]:
        """What the workflow logged since the last call: emit it when the turn is durable, drop it after a replay."""
        lines = self._scene.lines
        if not lines:
            return []
        self._scene.lines = NO_ITEMS
        return lines

    def result(self) -> Any:
        """The result of a completed run, decoded. Raises DecodeError, and LogCorrupt while there is none."""
        if self.closed is None or self.closed.status is not Status.COMPLETED:
            raise LogCorrupt(f"{self._title()} has no result: it is {self.status}")
        return self.codec.decode(self.closed.payload, self.workflow.result_type)

    def site(self, seq: int) -> Site:
        """Where a pending command stands in the code at hand."""
        return site_of(self._nodes[seq].where)

    def check_answered(self) -> None:
        """At the end of a complete log: raises Diverged if the code wants more than the log holds (P6, R21)."""
        if self._unanswered:
            return
        for want in self._wanted:
            if not want.settled and not is_marker(want):
                raise self._diverged(None, want)

    def close(self) -> None:
        """Close every branch; nothing is recorded. Plain `finally` code of the workflow runs.

        In a context of its own: the garbage collector may ask for it while another execution is in `SCENE.set`, which
        would lose what it was about to set.
        """
        copy_context().run(self._close_branches)
        self.broken = self.broken or Defect(f"{self._title()} was closed")

    def _close_branches(self) -> None:
        SCENE.set(self._scene)
        self._branches.close()

    # ------------------------------------------------------------ facts

    def _on_started(self, event: Started) -> None:
        self.started = event
        self._become(Status.RUNNING)
        try:
            self._input = self.codec.decode(event.payload, self.workflow.input_type)
        except DecodeError as error:
            raise self._unreadable(event, "the input", self.workflow.input_type, error) from error
        gen = self.workflow.fn(self._input) if self.workflow.takes_input else self.workflow.fn()
        self._root = self._branches.open_root(generator_of(gen))
        self._run()

    def _on_began(self, event: Began) -> None:
        if self._wanted and not self._unanswered:
            self._pass(event)
        node = self._nodes.get(event.seq)
        if node is None or node.kind != "step":
            raise self._not_pending(event.seq, "Began")
        if event.takeover is None and event.deadline is None and event.attempt == 0:
            node.progress = FIRST_ATTEMPT
        else:
            node.progress = Progress(
                attempt=event.attempt,
                began=True,
                retry_at=node.progress.retry_at,
                deadline=event.deadline,
                taken_over=event.takeover is not None,
                crashes=event.takeover or 0,
            )

    def _on_retried(self, event: Retried) -> None:
        if self._wanted and not self._unanswered:
            self._pass(event)
        if event.seq < self.next_seq and event.seq not in self._nodes:
            self.ignored += 1  # its command was settled while the attempt ran, and the run was parked
            return
        node = self._nodes.get(event.seq)
        if node is None or node.kind != "step":
            raise self._not_pending(event.seq, "Retried")
        if self.cancelling.pop(event.seq, None) is not None:  # nothing runs any more: it needs no grace
            self._unanswered = True
            self._branches.withdraw(node)
        node.progress = attrs.evolve(
            node.progress, attempt=event.attempt + 1, began=False, handed_over=False, retry_at=event.retry_at
        )

    def _on_resolved(self, event: Resolved) -> None:
        if type(event.outcome) is not Done and self._is_decision(event):
            self._check_decided(event)
        elif self._wanted and not self._admit(event):
            return
        elif event.held and event.seq not in self._nodes:
            self.ignored += 1  # its command was settled while it ran, and the run was parked
            return
        else:
            self._unanswered = event.held
        self._resolve(event.seq, event.outcome)
        if self._backlog:
            self._drain()

    def _is_decision(self, event: Resolved) -> bool:
        """Whether only the interpreter itself may have decided this."""
        match event.outcome:
            case Taken():
                return True
            case Cancellation():
                return event.seq not in self.cancelling and not event.held
            case _:
                return False

    def _check_decided(self, event: Resolved) -> None:
        """Take the decision from the head of what is wanted; raises Diverged when it is another one."""
        head = self._head()
        while head is not None and is_marker(head):
            self._answer_marker()
            head = self._head()
        if head is None or not self._is_decided(head, event.seq, event.outcome):
            raise self._diverged(event, head)
        del self._wanted[0]
        head.settled = True
        self._unanswered = False

    def _on_delivered(self, event: Delivered) -> None:
        if event.n != self.next_delivery:
            raise LogCorrupt(f"{self._title()}: delivery {event.n} follows {self.next_delivery - 1}")
        self.next_delivery += 1
        if not self._wanted or self._admit(event):
            self._unanswered = event.held
            self._deliver(event)

    def _on_interrupted(self, event: Interrupted) -> None:
        if not self._wanted or self._admit(event):
            self._unanswered = event.held
            self._interrupt(event)

    def _on_closed(self, event: Closed) -> None:
        head = self._head()
        while head is not None and event.status is not Status.TERMINATED and is_marker(head):
            self._answer_marker()
            head = self._head()
        fits = isinstance(head, Closing) and head.status is event.status
        if not fits and event.status is not Status.TERMINATED:
            raise self._diverged(event, head)
        self._wanted.clear()
        self._backlog = NO_ITEMS
        self.closed = event
        self._become(event.status)

    def _on_noted(self, event: Noted) -> None:
        if event.what == HANDED_OVER:
            for node in self._nodes.values():
                if not node.progress.elsewhere:
                    node.progress = attrs.evolve(node.progress, handed_over=True)
        elif event.what == OFFERED and event.who.isdecimal():
            offered = self._nodes.get(int(event.who))
            if offered is not None:
                offered.progress = attrs.evolve(offered.progress, elsewhere=True)
        elif event.what == UNBEGUN and event.who.isdecimal():
            unbegun = self._nodes.get(int(event.who))
            if unbegun is not None:
                first = unbegun.progress.retry_at is None
                unbegun.progress = NOT_BEGUN if first else attrs.evolve(unbegun.progress, began=False)

    def _admit(self, fact: Delivered | Resolved | Interrupted) -> bool:
        """Whether a fact may take effect that something wanted bars: held facts wait, others diverge (P6, R20)."""
        if fact.held and self._head() is not None:
            self._backlog = added(self._backlog, fact)
            self._unanswered = True
            return False
        self._pass(fact)
        return True

    def _pass(self, fact: Event) -> None:
        """The log goes on with a fact: a marker at the head is younger than it, anything else wanted diverges."""
        head = self._head()
        while head is not None:
            if not is_marker(head):
                raise self._diverged(fact, head, early=True)
            self._answer_marker()
            head = self._head()

    def _drain(self) -> None:
        """Let facts that were held back take effect, one at a time, once nothing is wanted."""
        while self._backlog and self._head() is None and self.status is Status.RUNNING:
            self._captures = {seq: None for seq in self._captures if seq in self._nodes}
            if self._captures:  # the turn goes on when the host has evaluated them
                return
            fact = self._backlog.pop(0)
            match fact:
                case Delivered():
                    self._deliver(fact)
                case Interrupted():
                    self._interrupt(fact)
                case Resolved() if fact.seq in self._nodes:
                    self._resolve(fact.seq, fact.outcome)
                case _:
                    self.ignored += 1

    def _deliver(self, event: Delivered) -> None:
        self._payloads = put(self._payloads, event.n, event.payload)
        listeners = self._listeners.get(event.event)
        if listeners:
            self._wanted.append(Taking(listeners.pop(0), event.n))
        else:
            self._buffers = put(
                self._buffers, event.event, added(self._buffers.get(event.event, []), event.n)
            )

    def _interrupt(self, event: Interrupted) -> None:
        root = self._root
        late = event.by == "deadline" and self._handling is not None  # on_failure runs without it (R16)
        if self.interrupted is not None or late or root is None or root.branch is None:
            self.ignored += 1
            return
        self.interrupted = event
        strike = (DeadlineExceeded if event.by == "deadline" else Cancelled)(event.reason)
        if self._branches.continued is not None:  # the next run would know nothing of it
            self._branches.continued = None
            root.branch.then = Ending(None, strike)
        self._branches.interrupt(root.branch, strike)
        self._run()

    # ------------------------------------------------------------ decisions coming true

    def _on_issued(self, event: Issued) -> None:
        if event.seq != self.next_seq:
            raise LogCorrupt(f"{self._title()}: command {event.seq} follows {self.next_seq - 1}")
        wanted = self._wanted
        head = wanted[0] if wanted and not wanted[0].settled else self._head()
        while type(head) is not Node or head.name != event.name or head.kind != event.kind:
            if event.kind == "version":  # the code does not ask for it here, or no longer (R23)
                self._answered(event.name, version_of(event))
                self.next_seq += 1
                return
            if head is None or not is_marker(head):
                raise self._diverged(event, head)
            self._answer_marker()
            head = self._head()
        if self.strict:
            self._compare_arguments(event, head)
        del wanted[0]
        self.next_seq += 1
        self._unanswered = False
        head.seq = event.seq
        match event.kind:
            case "step":  # the most frequent by far
                head.issued = event
                self._nodes[event.seq] = head
            case "now":
                self._settle(head, datetime.fromtimestamp(event.at, UTC), None)
            case "version":
                number = version_of(event)
                if number > head.command.current:  # such code could only guess what that means
                    raise wording.too_old(self._title(), self.position, event, number, head)
                self._branches.versions = put(self._branches.versions, event.name, number)
                self._settle(head, number, None)
            case "event":
                self._keep(head, event)
                self._listen(head, event.of)
            case "capture":
                self._keep(head, event)
                if self._backlog:
                    self._captures = put(self._captures, event.seq, None)
            case _:
                self._keep(head, event)
        if self._backlog:
            self._drain()

    def _keep(self, node: Node, event: Issued) -> None:
        node.issued = event
        self._nodes[event.seq] = node

    def _listen(self, node: Node, event: str) -> None:
        """Take the oldest delivery at hand, or wait in line for the next one (R14)."""
        buffer = self._buffers.get(event)
        if buffer:
            self._wanted.append(Taking(node, buffer.pop(0)))
        else:
            self._listeners = put(self._listeners, event, added(self._listeners.get(event, []), node))

    def _resolve(self, seq: int, outcome: Outcome) -> None:
        """A command has its outcome, by whomever: give it to who waits for it."""
        node = self._nodes.pop(seq, None)
        if node is None:
            raise self._not_pending(seq, "Resolved")
        issued = node.issued
        if self.cancelling:
            self.cancelling.pop(seq, None)
        value: Any = None
        error: BaseException | None = None
        match outcome:
            case Done():
                value = self._value(node, issued, outcome.payload)
            case Failed():
                error = self._error(node, issued, outcome)
                if node.kind == "event":
                    self._forget_listener(node, issued.of)
            case Taken():
                value, error = self._take(node, issued, outcome.n)
            case _:
                error = Cancelled(outcome.reason)
        self._branches.settle(node, value, error)
        self._run()

    def _settle(self, node: Node, value: Any, error: BaseException | None) -> None:
        self._branches.settle(node, value, error)
        self._run()

    def _value(self, node: Node, issued: Issued, payload: bytes) -> Any:
        if node.kind == "sleep":
            return None
        decode = self._decoder(node)
        try:
            return decode(payload)
        except DecodeError as error:
            raise self._unreadable(
                issued, f"the result of {node.title}", declared_result(node), error
            ) from error

    def _decoder(self, node: Node) -> Callable[[bytes], Any]:
        """How a command's value is decoded; a step remembers it for the codec that asked last."""
        if node.kind != "step":
            return self.codec.decoder(declared_result(node))
        function: StepFunction[..., Any] = node.command.function
        decoding = function.decoding
        if decoding is None or decoding[0] is not self.codec:
            function.decoding = decoding = (self.codec, self.codec.decoder(function.result_type))
        return decoding[1]

    def _error(self, node: Node, issued: Issued, outcome: Failed) -> BaseException:
        command = node.command
        raises = command.function.policy.raises if node.kind == "step" else ()
        subject = (
            issued.of if node.kind == "event" else issued.child if issued.child is not None else node.name
        )
        return self.codec.error_of(outcome.failure, raises, step=subject)

    def _take(self, node: Node, issued: Issued, n: int) -> tuple[Any, BaseException | None]:
        payload = self._payloads.pop(n)
        try:
            return self.codec.decoder(node.command.type)(payload), None
        except DecodeError as error:
            return None, EventRejected(issued.of, str(error))

    def _forget_listener(self, node: Node, event: str) -> bool:
        """Whether it was in line for the next delivery."""
        listeners = self._listeners.get(event)
        if listeners is None or node not in listeners:
            return False
        listeners.remove(node)
        return True

    def release(self, node: Node) -> None:
        """A pending command has to end: at once, or when what runs has had its time (R18)."""
        match node.kind:
            case "child":
                self.cancelling = put(self.cancelling, node.seq, float("inf"))
            case "step" if self._is_running(node):
                until = self.now + node.command.function.policy.cancel_grace_s
                self.cancelling = put(self.cancelling, node.seq, until)
            case "event":
                self._give_back(node)
                self._branches.withdraw(node)
            case _:
                self._branches.withdraw(node)

    def _is_running(self, node: Node) -> bool:
        progress = node.progress
        if progress.handed_over:
            return False
        return progress.began or (progress.retry_at is not None and progress.retry_at <= self.now)

    def _give_back(self, node: Node) -> None:
        """A wait is cancelled: those behind it move up, and a delivery that nobody is left for goes back (R14)."""
        event = node.issued.of
        if self._forget_listener(node, event):
            return
        takings = [
            want
            for want in self._wanted
            if isinstance(want, Taking) and not want.settled and want.node.issued.of == event
        ]
        line = [taking.node for taking in takings]
        line.remove(node)
        listeners = self._listeners.get(event)
        if listeners:
            line.append(listeners.pop(0))
        else:
            last = takings.pop()
            last.settled = True
            self._buffers = put(self._buffers, event, [last.n, *self._buffers.get(event, ())])
        for taking, taker in zip(takings, line, strict=True):
            taking.node = taker

    def _is_decided(self, head: Want, seq: int, outcome: Outcome) -> bool:
        match head:
            case Withdrawal():
                return head.node.seq == seq and isinstance(outcome, Cancellation)
            case Taking():
                return head.node.seq == seq and isinstance(outcome, Taken) and outcome.n == head.n
            case _:
                return False

    def _answer_marker(self) -> None:
        """The log is older than the marker at the head: it is 1, and what follows takes its place (R23)."""
        wanted = self._wanted
        marker = wanted.pop(0)
        assert isinstance(marker, Node)
        later = len(wanted)
        self._settle(marker, self._answered(marker.name, 1), None)
        wanted[:] = wanted[later:] + wanted[:later]
        if self._backlog:
            self._drain()

    def _answered(self, name: str, number: int) -> int:
        """The answer that a version marker has, which is this number if it has none yet."""
        known = self._branches.versions.get(name)
        if known is None:
            self._branches.versions = put(self._branches.versions, name, number)
            return number
        return known

    def _answer_known(self) -> None:
        """A marker that got its answer elsewhere, from a twin or out of order, takes it once it is the first."""
        head = self._head()
        while head is not None and is_marker(head) and head.name in self._branches.versions:
            self._answer_marker()
            head = self._head()

    def _head(self) -> Want | None:
        wanted = self._wanted
        while wanted:
            if not wanted[0].settled:
                return wanted[0]
            del wanted[0]
        return None

    # ------------------------------------------------------------ running and ending

    def _run(self) -> None:
        """Run the branches, and end the run when its root has."""
        if not self._branches.queue and not (self._root is not None and self._root.settled):
            return
        token = SCENE.set(self._scene)
        try:
            self._branches.run()
            while self._root is not None and self._root.settled and self.status is Status.RUNNING:
                root, self._root = self._root, None
                self._branches.unobserved.pop(root, None)
                self._finish(root)
                self._branches.run()
        finally:
            SCENE.reset(token)

    def _finish(self, root: Node) -> None:
        """The root branch has ended, and all it started: handle the failure, or want the run closed."""
        error = root.error
        continued = self._branches.continued
        if continued is not None:
            self._wanted.append(Closing(Status.CONTINUED, continued))
        elif error is None:
            self._wanted.append(Closing(Status.COMPLETED, root.value))
        else:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """Park, handle, or want the run closed, in this order (R17, R19)."""
        status = self._status_of(error)
        if isinstance(error, self.workflow.park_on):
            text = f"{type(error).__name__}: {message_of(error)}"
            raise Parked(f"{self._title()} is parked by park_on: {text}") from error
        if status is Status.CANCELLED or self.workflow.on_failure is None or self._handling is not None:
            self._wanted.append(Closing(status, None, error))
        else:
            self._handle(error)

    def _status_of(self, error: BaseException) -> Status:
        """How a run ends by an error: on_failure that raises over a deadline leaves it timed_out (R16, R17)."""
        struck = isinstance(error, Cancelled) or isinstance(self._handling, Cancelled)
        if struck and self.interrupted is not None:
            return Status.TIMED_OUT if self.interrupted.by == "deadline" else Status.CANCELLED
        return Status.FAILED

    def _handle(self, error: BaseException) -> None:
        """Call on_failure with the input and the error; a flow becomes the run's new root (R17)."""
        self._handling = error
        handler = self.workflow.on_failure
        assert handler is not None
        try:
            answer = flow = handler(self._input, error)
        except PASSES_THROUGH:
            raise
        except BaseException as raised:  # noqa: BLE001  # what it raises fails the run
            return self._fail(raised)
        if isinstance(answer, GeneratorType | c.Command):  # as a lambda gives it that calls a step
            where = (handler.__code__, 0, handler.__globals__) if isinstance(handler, FunctionType) else None
            self._root = self._branches.open_root(generator_of(c.as_flow(flow)), where)
        else:
            self._wanted.append(Closing(Status.COMPLETED, answer))
        return None

    def _become(self, status: Status) -> None:
        self.status = status
        self._handlers = HANDLERS_OF[status]

    def _context(self) -> Context:
        assert self.started is not None
        return Context(self.started.id, self.started.run, self.workflow.name, self.now)

    # ------------------------------------------------------------ building decisions

    def _issue(self, node: Node, seq: int) -> Issued:
        command, at, site = node.command, self.now, site_of(node.where)
        try:
            match node.kind:
                case "step":
                    payload = arguments_of(self.codec, command)
                    return Issued(seq, "step", node.name, at, command.function.id, payload, site=site)
                case "sleep":
                    until = command.until if command.duration_s is None else at + command.duration_s
                    return Issued(seq, "sleep", node.name, at, until=until, site=site)
                case "event":
                    until = None if command.timeout_s is None else at + command.timeout_s
                    return Issued(seq, "event", node.name, at, command.event, until=until, site=site)
                case "child" | "spawn":
                    assert self.started is not None
                    id = command.id or child_id(self.started.id, self.started.run, seq)
                    payload, _ = self.codec.through(command.input, command.workflow.input_type, "input")
                    return Issued(
                        seq, command.kind, node.name, at, command.workflow.name, payload, child=id, site=site
                    )
                case "version":
                    return Issued(
                        seq, "version", node.name, at, payload=str(command.current).encode(), site=site
                    )
                case _:
                    return Issued(seq, command.kind, node.name, at, site=site)
        except EncodeError as error:
            raise Unencodable(
                f"{self._title()}: {node.title} at {site} cannot be written down: {error}"
            ) from error

    def _decision(self, want: Withdrawal | Taking | Closing) -> Event:
        match want:
            case Withdrawal():
                return Resolved(want.node.seq, Cancellation(), self.now)
            case Taking():
                return Resolved(want.node.seq, Taken(want.n), self.now)
            case _:
                return self._closed(want)

    def _closed(self, want: Closing) -> Closed:
        try:
            match want.status:
                case Status.COMPLETED:
                    payload, _ = self.codec.through(want.value, self.workflow.result_type)
                    return Closed(want.status, self.now, payload)
                case Status.CONTINUED:
                    payload, _ = self.codec.through(want.value.input, want.value.workflow.input_type, "input")
                    return Closed(want.status, self.now, payload)
                case _:
                    assert want.error is not None
                    return Closed(want.status, self.now, failure=self.codec.failure_of(want.error, ()))
        except EncodeError as error:
            what = "the input of its next run" if want.status is Status.CONTINUED else "its result"
            raise Unencodable(f"{self._title()}: {what} cannot be written down: {error}") from error

    # ------------------------------------------------------------ disagreeing

    def _invalid(self, error: InvalidUse) -> Defect:
        """The code's declarations do not work: a developer has to act."""
        return Defect(f"{self._title()}: {error}")

    def _title(self) -> str:
        if self.started is None:
            return f"workflow '{self.workflow.name}'"
        return f"execution '{self.started.id}' (run {self.started.run}) of workflow '{self.workflow.name}'"

    def _compare_arguments(self, event: Issued, head: Node) -> None:
        """Judge what the relaxed rule leaves out. A version marker may hold any number: the log answers it (R23)."""
        if event.kind == "version":
            return
        asked = self._issue(head, event.seq)
        if (
            c.starts_another(head.command) and head.command.id is None
        ):  # it was made from the execution's own id
            asked = attrs.evolve(asked, child=event.child)
        differing = [name for name in STRICT if getattr(asked, name) != getattr(event, name)]
        if differing:
            raise self._diverged(event, head, wording.differences(differing, event, asked, head.command))

    def wanted_names(self) -> list[str]:
        """The names of the commands that the code asks for and the log does not hold, in order."""
        return [want.name for want in self._wanted if isinstance(want, Node) and not want.settled]

    def suppose_first_wanted(self) -> list[str]:
        """What the code would ask for next, were the first wanted command answered with None; spoils the execution.

        For explanations only: the answer is made up, so an empty list may mean that the workflow could not use it.
        Raises a Defect when no command is wanted first, or the answer leads to one.
        """
        head = self._head()
        if not isinstance(head, Node):
            raise Defect(f"{self._title()} does not want a command first")
        del self._wanted[0]
        self.broken = Defect(f"{self._title()} was used to explain a divergence")
        self._settle(head, None, None)
        return self.wanted_names()

    def suppose_version(self, name: str, number: int) -> None:
        """Give a version marker its answer before anything is applied, whatever the log says; for explanations only."""
        self._branches.versions = put(self._branches.versions, name, number)

    def _diverged(
        self, event: Event | None, head: Want | None, why: str = "", *, early: bool = False
    ) -> Diverged:
        pending = list(self._nodes.values())
        return wording.diverged(self._title(), self.position, event, head, pending, why, early=early)

    def _unreadable(self, event: Started | Issued, what: str, declared: Any, error: DecodeError) -> Diverged:
        return wording.unreadable(self._title(), self.position, event, what, declared, error)

    def _out_of_place(self, event: Event) -> LogCorrupt:
        return wording.out_of_place(
            self._title(), self.position, event, self.status, TRANSITIONS[self.status]
        )

    def _not_pending(self, seq: int, kind: str) -> LogCorrupt:
        return wording.not_pending(self._title(), self.position, seq, kind)


GIVES_NOTHING = (Never, NoReturn)
"""Result types of steps that only ever raise."""

STRICT = ("of", "payload", "until", "child")
"""What `strict` compares of an Issued, beside its kind and name (R21)."""

OFFERED = "offered"
"""The Noted that says that a step was put where any worker may take it."""
QUEUED = "queued"
"""The Noted that says that a step waits for room in its queue."""
UNBEGUN = "unbegun"
"""The Noted that takes back that an attempt began: its worker gave it back, and never called its function (R10)."""
HANDED_OVER = "handed-over"
"""The Noted that a worker leaves when it gives an execution back with steps in flight (R5)."""

HANDLERS: Mapping[type[Any], Callable[[Execution, Any], None]] = {
    Started: Execution._on_started,
    Issued: Execution._on_issued,
    Began: Execution._on_began,
    Retried: Execution._on_retried,
    Resolved: Execution._on_resolved,
    Delivered: Execution._on_delivered,
    Interrupted: Execution._on_interrupted,
    Closed: Execution._on_closed,
    Noted: Execution._on_noted,
}
HANDLERS_OF: Mapping[Status, Mapping[type[Any], Callable[[Execution, Any], None]]] = {
    status: {kind: HANDLERS[kind] for kind in kinds} for status, kinds in TRANSITIONS.items()
}
"""TRANSITIONS with what to do, so that one look-up is both the check and the way."""


def generator_of(flow: Any) -> GeneratorType[Any, Any, Any]:
    """A flow, which is a generator."""
    generator: GeneratorType[Any, Any, Any] = flow
    return generator


def is_marker(want: Want) -> TypeGuard[Node]:
    """Whether it is a version marker that waits for its answer."""
    return type(want) is Node and want.kind == "version"


def version_of(event: Issued) -> int:
    """The number that a version marker recorded; raises LogCorrupt."""
    try:
        return int(event.payload)
    except ValueError:
        raise LogCorrupt(f"version marker '{event.name}' holds {event.payload!r}, not a number") from None


def child_id(id: str, run: int, seq: int) -> str:
    """The id of a child that is given none: made of its parent's, or a digest of that where no id is so long."""
    made = f"{id}.{run}.{seq}"
    return made if len(made) <= ID_CHARS_MAX else hashlib.sha256(made.encode()).hexdigest()


def declared_result(node: Node) -> Any:
    """The type that a command's value is decoded to."""
    command = node.command
    match node.kind:
        case "step":
            return command.function.result_type
        case "child":
            return command.workflow.result_type
        case "capture":
            return capture_type(command)
        case _:
            return str


def capture_type(command: c.Capture[Any]) -> Any:
    """The declared type of a captured value. Raises InvalidUse when the function's annotation cannot be resolved."""
    if command.type is not None:
        return command.type
    if "return" not in getattr(command.fn, "__annotations__", ()):
        return Any
    return annotations_of(command.fn)["return"]


def arguments_of(codec: Codec, command: c.Step[Any]) -> bytes:
    """The arguments of a step as they are written down."""
    function = command.function
    return arguments_codec(codec, function)[0](function.bound(command))


def arguments_codec(codec: Codec, function: StepFunction[..., Any]) -> tuple[ArgsEncode, ArgsDecode]:
    """How the arguments of a step are written and read; it remembers that for the codec that asked last."""
    known = function.arguing
    if known is None or known[0] is not codec:
        known = (codec, codec.args_codec(function.parameter_types, function.parameter_names))
        function.arguing = known
    return known[1]


def replay(
    workflow: Workflow[Any, Any], events: Iterable[Event], *, codec: Codec | None = None, strict: bool = False
) -> Execution:
    """The execution that these events lead to. Raises a Defect where code and log disagree (R20)."""
    execution = Execution(workflow, codec=codec, strict=strict)
    try:
        execution.apply_all(events)
    except BaseException:
        execution.close()
        raise
    return execution
