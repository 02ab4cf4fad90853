"""One execution in a world of its own: a log, a clock, a runner, a host, and somebody who sends events.

Rule 1: everything is in one thread and in virtual time; the same scenario goes the same way each time.
Rule 2: the host may die anywhere with a `SimulatedCrash`; log, clock, runner and sender outlive it.
Rule 3: a sender who got no acknowledgement sends again. What comes at one instant comes one by one, and the host
        does after each what it can, whether somebody has died meanwhile or not; what comes at the very start comes
        before the host does anything.
"""

from __future__ import annotations

import functools
import importlib.metadata
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol, TypeAlias, cast, runtime_checkable

import attrs

from zart_core.codec import Codec
from zart_core.commands import checked_name
from zart_core.errors import Defect, ExecutionError, InvalidUse
from zart_core.events import Closed, Event, Issued, Ok, Started, Status
from zart_core.hosts.inline import Inline, Stuck, result_of
from zart_core.hosts.ports import Clock, StepRunner
from zart_core.hosts.turns import Run
from zart_core.interpreter import CODEC
from zart_core.log import EventLog, Post, Rejected, Summary, Write
from zart_core.policies import Duration, seconds
from zart_core.records import record
from zart_core.testing.clock import START, VirtualClock, seconds_of
from zart_core.testing.runner import Loops, ScriptedRunner, Steps
from zart_core.workflows import Registry, Workflow, is_workflow

RESEND_S = 1.0
"""After how many seconds a sender tries again whose event could not be written."""
RESTS_MAX = 100_000
"""How often a host may rest before its workflow counts as one that never ends."""


class SimulatedCrash(BaseException):
    """The host's process dies here. No `except Exception` sees it."""


@record
class Cancel:
    """Ask the execution to cancel, so long after its start; stands among the events of a test."""

    after: Duration
    reason: str = ""


@record
class Terminate:
    """End the execution without its code, so long after its start; stands among the events of a test."""

    after: Duration
    reason: str = ""


Sending: TypeAlias = tuple[Duration, str, Any] | tuple[Duration, str, Any, str | None] | Cancel | Terminate
"""What comes from outside: (delay, name, payload), or (delay, name, payload, key), or a request."""


def refuse_no_workflow(_: object, __: object, given: object) -> None:
    """Raise InvalidUse for what is no workflow, such as its plain function."""
    if not is_workflow(given):
        raise InvalidUse(f"{given!r} is no workflow; give a function decorated with @zart.workflow, uncalled")


@record
class Scenario:
    """What is to happen: the same each time it is played."""

    workflow: Workflow[Any, Any] = attrs.field(validator=refuse_no_workflow)
    input: Any
    steps: Steps | Callable[[], Steps] | None = None
    """A mapping, or a function that makes a fresh one each time."""
    events: Sequence[Sending] = ()
    resources: Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None = None
    """A mapping, or a function that makes a fresh one each time."""
    start: datetime | float = START
    id: str | None = None
    """The execution's id; the workflow's name by default."""


def resources_of(scenario: Scenario) -> dict[str, Any]:
    """The objects that steps have in one playing, fresh ones where a function makes them. Raises InvalidUse."""
    given: Any = scenario.resources() if callable(scenario.resources) else scenario.resources
    if given is not None and not isinstance(cast("object", given), Mapping):
        raise InvalidUse(
            f"resources= maps names to objects, or is a function that makes such a mapping, not {given!r}"
        )
    return dict(given or {})


# ---------------------------------------------------------------- where the log is kept


@runtime_checkable
class Place(Protocol):
    """Where a log is kept: it outlives the process that has it open."""

    def open(self) -> EventLog:
        """Open the log, the first time or after a crash."""
        ...

    def crash(self, log: EventLog) -> None:
        """The process that has `log` open dies: what is not durable is gone, locks and leases are void."""
        ...

    def close(self, log: EventLog) -> None:
        """The world ends in order."""
        ...


@runtime_checkable
class TearingPlace(Place, Protocol):
    """A place where a process may die in the middle of an append."""

    def tear(self, log: EventLog, batch: Sequence[Write]) -> None:
        """Leave behind what an append leaves that was begun and not acknowledged; `crash` follows at once."""
        ...


class Kept:
    """A place whose log object itself outlives the host, as one in memory must."""

    def __init__(self, log: EventLog) -> None:
        self.log = log

    def open(self) -> EventLog:
        """The one log."""
        return self.log

    def crash(self, log: EventLog) -> None:
        """Nothing: the host's claims are given up by who takes over."""

    def close(self, log: EventLog) -> None:
        """Close it."""
        log.close()


class Reopened:
    """A place whose log a crash closes, to be opened again: `Reopened(lambda: open_log(f"file:{path}"))`."""

    def __init__(self, opener: Callable[[], EventLog]) -> None:
        self.opener = opener

    def open(self) -> EventLog:
        """Open it."""
        return self.opener()

    def crash(self, log: EventLog) -> None:
        """Close it: in one process that is as near to dying as a store comes."""
        log.close()

    def close(self, log: EventLog) -> None:
        """Close it."""
        log.close()


@functools.cache
def memory_opener() -> Callable[[str], EventLog]:
    """The entry point for `memory:`, looked up once: that takes milliseconds."""
    (point,) = importlib.metadata.entry_points(group="zart.stores", name="memory")
    opener: Callable[[str], EventLog] = point.load()
    return opener


def place_of(store: Callable[[], Place | EventLog] | None) -> Place:
    """A fresh place: what `store()` gives, a memory log by default. Raises InvalidUse for anything else."""
    if store is None:
        return Kept(memory_opener()("memory:"))
    if not callable(store):
        raise InvalidUse(
            f"store= is a function that gives a fresh EventLog, or its Place, each time it is called, not {store!r}"
        )
    made = store()
    if isinstance(made, Place):
        return made
    if isinstance(made, EventLog):
        return Kept(made)
    raise InvalidUse(f"store= gives an EventLog or a Place each time it is called, not {made!r}")


def refuse_used(log: EventLog, id: str) -> None:
    """Raise InvalidUse for a log in which the execution is there already: nothing of it would run."""
    if log.summary(id) is not None:
        raise InvalidUse(
            f"store= gave a log in which execution '{id}' is there already, so that its steps would not run; "
            "give a fresh log each time it is called, such as one with another path"
        )


# ---------------------------------------------------------------- hosts


class Host(Protocol):
    """A synchronous host, as `Inline` is one."""

    worker: str
    runs: dict[str, Run]
    rest: Callable[[float | None], None]

    def start(self, workflow: Workflow[Any, Any], input: Any, id: str) -> bool:
        """Create an execution."""
        ...

    def drive(self, id: str) -> Closed:
        """Work until it has ended; calls `rest` while nothing is due. Raises its defect when it is parked."""
        ...


class HostFactory(Protocol):
    """Makes a host for one incarnation; `Inline` is one."""

    def __call__(
        self,
        log: EventLog,
        registry: Registry,
        *,
        clock: Clock,
        runner: StepRunner,
        resources: Mapping[str, Any],
        codec: Codec,
    ) -> Host:
        """Make one."""
        ...


# ---------------------------------------------------------------- the world


@record
class Ending:
    """How an execution stands when nothing more happens: `error` is what its result raises."""

    status: Status
    value: Any
    error: BaseException | None
    closed: Closed | None


class World:
    """A scenario that is being played. `keyed` gives a key to every event that has none."""

    def __init__(
        self,
        scenario: Scenario,
        place: Place,
        *,
        clock: VirtualClock | None = None,
        make_host: HostFactory = Inline,
        codec: Codec | None = None,
        registry: Registry | None = None,
        loops: Loops | None = None,
        keyed: bool = False,
        wrap_log: Callable[[EventLog], EventLog] = lambda log: log,
        wrap_sender: Callable[[EventLog], EventLog] = lambda log: log,
        wrap_runner: Callable[[StepRunner], StepRunner] = lambda runner: runner,
    ) -> None:
        self.scenario = scenario
        self.id = scenario.id or scenario.workflow.name
        self.place = place
        self.codec = codec or CODEC
        self.clock = clock or VirtualClock(scenario.start)
        self.began = self.clock.now()
        self.registry = registry or Registry(scenario.workflow)
        """All workflows that were seen: what is deployed."""
        steps = scenario.steps
        self.runner = ScriptedRunner(steps() if callable(steps) else steps, clock=self.clock, loops=loops)
        self.resources = resources_of(scenario)
        self.make_host = make_host
        self.wrap_log = wrap_log
        self.wrap_sender = wrap_sender
        self.wrap_runner = wrap_runner
        self.log = place.open()
        self.host: Host | None = None
        self.offered: list[Post] = []
        """What was sent, in order, whether anybody answered or not."""
        self.sent: list[Post] = []
        """What was accepted, in order."""
        self._sending = False
        """Whether a sender is at it; still true when it has died there."""
        self._rests = 0
        self._coming = posts_of(self.codec, self.id, scenario.events, self.began, keyed=keyed)
        for post in self._coming:
            self.clock.at(post.at, self._send)

    def live(self) -> Ending:
        """Let a host work from here to the end of the execution. Raises what kills it (SimulatedCrash)."""
        self.host = host = self.make_host(
            self.wrap_log(self.log),
            self.registry,
            clock=self.clock,
            runner=self.wrap_runner(self.runner),
            resources=self.resources,
            codec=self.codec,
        )
        host.rest = self.rest
        try:
            if self.log.summary(self.id) is None:
                host.start(self.scenario.workflow, self.scenario.input, self.id)
            if self.clock.now() == self.began:
                self.clock.advance()
            elif self._sending:
                self._send()
            closed = host.drive(self.id)
        except Stuck as stuck:
            return Ending(self.status(), None, stuck, None)
        except Defect as defect:
            return Ending(Status.PARKED, None, defect, None)
        try:
            value = result_of(self.codec, self.scenario.workflow, self.id, closed)
        except ExecutionError as error:
            return Ending(closed.status, None, error, closed)
        return Ending(closed.status, value, None, closed)

    def bury(self) -> None:
        """The host is dead: another process opens the log; what was sent without an answer is sent again."""
        self.runner.close()
        self._drop_runs()
        self.place.crash(self.log)
        self.log = self.place.open()
        if self.host is not None:
            self.log.release(self.host.worker)
        now = self.clock.now()
        for _ in self._due():
            self.clock.at(now, self._send)

    def close(self) -> None:
        """The end of the world."""
        self.runner.close()
        self._drop_runs()
        self.place.close(self.log)

    def _drop_runs(self) -> None:
        if self.host is not None:
            for run in self.host.runs.values():
                run.drop()

    # ------------------------------------------------------------ what goes on outside

    def rest(self, until: float | None) -> None:
        """Let time pass until something is due; raises Stuck when nothing ever will be, or there is no end to it."""
        now, coming = self.clock.now(), self.clock.next_at
        self._rests += 1
        if until is None or until <= now or math.isinf(until):
            until = coming
        if until is None:
            raise self.stuck()
        if self._rests > RESTS_MAX:
            raise Stuck(
                f"execution '{self.id}' has waited {RESTS_MAX:,} times in {now - self.began:,.0f} s and has not ended. "
                "If it is to go on for ever, end it: events=[Terminate(after)], or Cancel(after)"
            )
        self.clock.pass_until(until)

    def _due(self) -> list[Post]:
        """What should have been delivered by now."""
        return [post for post in self._coming if post.at <= self.clock.now()]

    def _send(self) -> None:
        """Post what comes first, again until it is acknowledged; what comes too late is dropped."""
        due = self._due()
        if not due:
            return
        post = due[0]
        if post not in self.offered:
            self.offered.append(post)
        self._sending = True
        (outcome,) = self.wrap_sender(self.log).append([post])
        self._sending = False
        if isinstance(outcome, Ok):
            self.sent.append(post)
        elif not (isinstance(outcome, Rejected) and outcome.reason.startswith("closed")):
            self.clock.at(self.clock.now() + RESEND_S, self._send)
            return
        self._coming.remove(post)

    # ------------------------------------------------------------ what there is to see

    def status(self) -> Status:
        """As a list shows it; scheduled before it is there."""
        summary = self.log.summary(self.id)
        return Status.SCHEDULED if summary is None else summary.status

    def stuck(self) -> BaseException:
        """Why nothing goes on: the defect of a child that is parked, or what all of them wait for."""
        runs = list(self.host.runs.values()) if self.host is not None else []
        for run in runs:
            if run.defect is not None:
                return run.defect
        waits = [
            f"'{run.id}' waits for {', '.join(map(awaited, run.execution.pending.values())) or 'nothing'}"
            for run in runs
            if run.execution is not None
        ]
        return Stuck(
            f"nothing goes on: execution {'; '.join(waits) or 'is nowhere at work'}. "
            "If it waits for an event, let it come: events=[(delay, name, payload)]"
        )

    def executions(self) -> list[Summary]:
        """All there are, in the order of their ids."""
        found: list[Summary] = []
        after: str | None = None
        while True:
            page = self.log.list(limit=1000, after=after)
            found.extend(page.items)
            if page.next is None:
                return found
            after = page.next

    def histories(self) -> dict[tuple[str, int], list[Event]]:
        """The events of every run of every execution. O(n) in all of them."""
        return {
            (summary.id, run): self.codec.decode_events(self.log.records(summary.id, run), summary.id, run)
            for summary in self.executions()
            for run in range(summary.run + 1)
        }


def awaited(issued: Issued) -> str:
    """What a pending command waits for, in words."""
    match issued.kind:
        case "event":
            named = "" if issued.name.startswith(f"{issued.of}[") else f" (the wait '{issued.name}')"
            return f"event '{issued.of}'{named}"
        case "child":
            return f"its child '{issued.child}'"
        case _:
            return f"{issued.kind} '{issued.name}'"


# ---------------------------------------------------------------- what is sent


def posts_of(codec: Codec, id: str, events: Iterable[Sending], began: float, *, keyed: bool) -> list[Post]:
    """The messages of a scenario in the order in which they come. Raises InvalidUse and EncodeError."""
    posts = [
        post_of(codec, id, event, began, f"event-{n}" if keyed else None) for n, event in enumerate(events)
    ]
    return sorted(posts, key=lambda post: post.at)


def post_of(codec: Codec, id: str, event: Sending, began: float, key: str | None) -> Post:
    """One message. Raises InvalidUse for what is none."""
    match event:
        case Cancel():
            return Post(
                id, "cancel", "cancel", event.reason.encode(), began + seconds(event.after), "cancel!"
            )
        case Terminate():
            return Post(
                id,
                "terminate",
                "terminate",
                event.reason.encode(),
                began + seconds(event.after),
                "terminate!",
            )
        case (delay, name, payload):
            own = None
        case (delay, name, payload, own):
            pass
        case _:
            raise InvalidUse(
                "events= holds (delay, name, payload), (delay, name, payload, key), Cancel or Terminate, "
                f"not {event!r}"
            )
    what = f"the payload of event '{name}'"
    data = payload if isinstance(payload, bytes) else codec.encode_message(payload, what)
    return Post(id, "event", checked_name(name, "event"), data, began + seconds(delay, "delay"), own or key)


def started_workflow(registry: Registry, events: Sequence[Event]) -> Workflow[Any, Any]:
    """The workflow of a history."""
    assert isinstance(events[0], Started)
    return registry.of(events[0])


__all__ = [
    "Cancel",
    "Ending",
    "Host",
    "HostFactory",
    "Kept",
    "Place",
    "Reopened",
    "Scenario",
    "SimulatedCrash",
    "TearingPlace",
    "Terminate",
    "World",
    "place_of",
    "seconds_of",
    "started_workflow",
]
