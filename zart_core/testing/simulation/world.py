"""A simulated world: workers on one store, somebody who starts executions and sends messages, and time.

Rule 1: whatever might be otherwise is drawn from the seed; the same seed gives the same world.
Rule 2: faults stop at some time, and then everything has to end (I18).
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any

from zart_core.codec import Codec
from zart_core.errors import ExecutionClosed, InvalidUse, Weather
from zart_core.events import CLOSED, Closed, Event, Status
from zart_core.hosts.engine import AsyncEngine
from zart_core.hosts.inline import closed_event
from zart_core.hosts.offers import known_steps, workflows_of
from zart_core.log import EventLog, New, Post, Summary
from zart_core.queues import is_place
from zart_core.testing.clock import VirtualClock
from zart_core.testing.runner import ScriptedRunner
from zart_core.testing.simulation.faults import OF_SEND, Fate, Faults
from zart_core.testing.simulation.process import RESTART_S, Process
from zart_core.testing.simulation.threads import LATENCY_S
from zart_core.testing.simulation.timeline import Timeline
from zart_core.testing.simulation.watching import Watch
from zart_core.testing.world import Place, Scenario, posts_of, resources_of, seconds_of
from zart_core.workflows import Registry, Workflow

RESEND_S = 0.5
"""After how many seconds a client tries again that got no answer."""
ANSWER_S = 90.0
"""How long a client waits for an answer."""
IDLE_S = 35.0
"""When nothing has happened for so long, longer than a lease, clocks go ahead to where something is due."""
ROUNDS_MAX = 400_000
"""Callbacks after which a world that does not end counts as spinning."""
ASKS = 0.3
"""How likely a client waits for the end of what it started."""
KNOWN = 0.7
"""How likely a store can tell that a process is gone; else its lease has to run out."""
TICK_S = 1e-6
"""What sums of floating-point seconds may be off by."""
OPEN = frozenset(Status) - CLOSED - {Status.PARKED, Status.PAUSED}


class Simulation:
    """One world. `run` lets it go to its end; `wind_up` puts it away."""

    def __init__(
        self,
        scenario: Scenario,
        place: Place,
        *,
        seed: int,
        workers: int,
        copies: int,
        faults: Faults,
        only: Collection[int] | None,
        codec: Codec,
        workflows: Sequence[Workflow[Any, Any]],
        bound_s: float,
        leases: bool = True,
        make: Callable[..., AsyncEngine] = AsyncEngine,
    ) -> None:
        self.seed = seed
        self.workers = workers
        self.scenario = scenario
        self.place = place
        self.codec = codec
        self.make = make
        self.bound_s = bound_s
        self.lots = random.Random(f"world of {seed}")  # noqa: S311  # for tests, the same each time
        self.timeline = Timeline(self.lots)
        self.fate = Fate(faults, seed, only)
        self.start = seconds_of(scenario.start)
        self.shift = 0.0
        """Seconds that all clocks have gone ahead of the timeline, while nothing happened."""
        self.lines: list[str] = []
        self.counts: Counter[str] = Counter()
        """What has happened, and how often."""
        self.witness = Watch(self)
        self.workflows = workflows
        steps = scenario.steps
        self.runner = ScriptedRunner(steps() if callable(steps) else steps, clock=VirtualClock(self.start))
        self.resources: Mapping[str, Any] = resources_of(scenario)
        self.registry = Registry(*workflows)
        for child in workflows_of(workflows):  # as every engine does
            self.registry.learn(child)
        self.full_until = 0.0
        self.misfits = False
        """Whether code was registered that fits no history: what is parked by it goes on with the right code."""
        self.leases = leases
        """Whether leases run out in virtual time."""
        policies = [step.policy for step in known_steps(self.registry).values()]
        self.queues = {policy.queue for policy in policies if policy.queue is not None}
        """The queues that steps name."""
        self.outside = self.timeline.loop()
        """The loop of clients, and of whoever starts workers anew; it does not fail."""
        self.log: EventLog = place.open()
        self.dirty = True
        self.ids = names(scenario.id or scenario.workflow.name, copies)
        self.told: dict[str, Closed] = {}
        """How clients were told that executions ended."""
        self.starting = set(self.ids)
        self.sending: dict[str, list[Post]] = {}
        """What is still to be sent, by execution."""
        self.later: dict[str, float] = {}
        """When the next of it is due, where it is not under way."""
        self.faultless_since: float | None = None
        self.stirred = 0.0
        """When something last happened."""
        self.lives = 0
        self.ended: list[Process] = []
        self.processes = [self.started(number, 0.0) for number in range(workers)]
        for id in self.ids:
            self.outside.call_soon(self.begin, id)

    # ------------------------------------------------------------ time

    def wall(self) -> float:
        """The true time of day, in seconds since the epoch."""
        return self.start + self.timeline.now + self.shift

    def latency(self) -> float:
        """How long a message between processes takes, in seconds."""
        return LATENCY_S * self.lots.random() ** 2

    def passing(self, when: float) -> float:
        """Time is about to reach an instant; when nothing is going to happen for long, all clocks go ahead."""
        if when - self.stirred > IDLE_S:
            self.stirred = when
            self.skip(when)
        return when

    def skip(self, when: float) -> None:
        """Let clocks go ahead to where something is next due, if nothing but that is waited for."""
        counted = self.log.stats()
        if self.starting or counted.get(Status.RUNNING) or counted.get(Status.SCHEDULED):
            return
        if self.sending.keys() - self.later.keys():
            return
        due = [*self.later.values(), self.log.next_wake()]
        next_at = min((at for at in due if at is not None), default=None)
        if next_at is not None and next_at - (self.start + when + self.shift) > 1.0:
            self.shift = next_at - self.start - when - 1.0
            self.counts["long wait"] += 1
            if self.faultless_since is not None:
                self.faultless_since = when
            for id in list(self.later):
                self.outside.call_soon(self.send_later, id)
            for process in self.processes:
                for watcher in process.clock.watchers:
                    process.loop.call_soon(watcher)

    # ------------------------------------------------------------ the whole of it

    def run(self) -> str:
        """Let it go to its end; gives what is wrong with its end (I18), or nothing."""
        going = self.timeline.run(self.is_over, self.passing)
        if not going and not self.is_over():
            return "nothing goes on any more, and not everything has ended"
        if self.timeline.rounds >= ROUNDS_MAX:
            return (
                f"it does not come to rest: {ROUNDS_MAX} callbacks were run; what goes on for ever by intention has "
                "to be ended: events=[Terminate(after)]"
            )
        left = [
            f"'{summary.id}' ({summary.status})" for summary in self.executions() if summary.status in OPEN
        ]
        left += [f"'{id}' (never created)" for id in self.ids if self.log.summary(id) is None]
        if left:
            return f"{self.bound_s} s after the last fault these have not ended: {', '.join(left)}"
        return ""

    def is_over(self) -> bool:
        """Whether all executions have ended and all was sent; or it takes too long."""
        if self.timeline.rounds >= ROUNDS_MAX:
            return True
        if self.dirty:
            self.dirty = False
            if not (self.starting or self.sending) and not self.is_open():
                return True
        if self.faultless_since is None:
            spent = self.fate.stopped or len(self.fate.struck) >= self.fate.faults.most
            if spent or self.timeline.now > self.fate.faults.span_s:
                self.faultless_since = self.timeline.now
        return self.faultless_since is not None and self.timeline.now - self.faultless_since > self.bound_s

    def is_open(self) -> bool:
        """Whether some execution has not ended."""
        counted = self.log.stats()
        if self.misfits and counted.get(Status.PARKED) and any(map(is_misfitted, self.executions())):
            return True
        return any(counted.get(status, 0) for status in OPEN)

    def wake(self) -> None:
        """Something was written: whoever waits for the log hears of it."""
        self.dirty = True
        for process in self.processes:
            process.threads.wake()

    def wind_up(self) -> None:
        """Put everything away."""
        for process in [*self.ended, *self.processes]:
            process.wind_up()
        self.outside.wind_up()
        self.runner.close()
        self.place.close(self.log)

    # ------------------------------------------------------------ workers

    def started(self, number: int, skew: float) -> Process:
        """Start a worker's process."""
        self.lives += 1
        return Process(self, number, self.lives, skew)

    def died(self, process: Process) -> None:
        """A worker's process is gone; another is started."""
        self.counts["deaths"] += 1
        if not self.leases or self.lots.random() < KNOWN:
            self.place.crash(process.log)
            if process.opened is not None:
                self.log.release(process.opened.worker)
            self.wake()
        self.outside.call_later(RESTART_S * self.lots.random(), self.restart, process)

    def restart(self, process: Process) -> None:
        """Start the worker anew."""
        self.ended.append(process)
        self.timeline.loops.remove(process.loop)
        self.processes[process.number] = self.started(process.number, process.clock.skew)

    def created(self, new: New) -> None:
        """An execution is there."""
        self.counts["created"] += 1

    # ------------------------------------------------------------ clients

    def ask(
        self,
        what: Callable[[AsyncEngine], Coroutine[Any, Any, Any]],
        answer: Callable[[Any, BaseException | None], None],
    ) -> None:
        """Ask some worker for something; `answer` gets what it gave or raised, TimeoutError when it died."""
        up = [process for process in self.processes if process.engine is not None and not process.loop.dead]
        if not up:
            self.outside.call_later(RESEND_S, answer, None, TimeoutError())
            return
        process = up[int(self.lots.random() * len(up))]
        engine = process.engine
        assert engine is not None
        task = process.loop.create_task(what(engine))
        unanswered = [True]

        def once(value: Any, error: BaseException | None) -> None:
            if unanswered:
                unanswered.clear()
                answer(value, error)

        def done(task: Any) -> None:
            error = None if task.cancelled() else task.exception()
            closed = isinstance(error, InvalidUse) and engine.closing  # between the question and the answer
            cancelled = TimeoutError() if task.cancelled() or closed else None
            self.outside.call_later(
                self.latency(), once, None if error or cancelled else task.result(), cancelled or error
            )

        task.add_done_callback(done)
        process.answers.append(lambda: once(None, TimeoutError()))
        self.outside.call_later(ANSWER_S, once, None, TimeoutError())

    def begin(self, id: str) -> None:
        """Start an execution, again and again until somebody says that it is there."""

        def answer(handle: Any, error: BaseException | None) -> None:
            if error is None:
                self.trace("client", f"{id} is started")
                self.began(id)
            elif isinstance(error, Weather | TimeoutError):
                self.outside.call_later(RESEND_S * self.lots.random(), self.begin, id)
            else:
                self.witness.wrong.append(
                    ("R15", f"'{id}' could not be started: {type(error).__name__}: {error}")
                )
                self.starting.discard(id)
                self.dirty = True

        async def start(engine: AsyncEngine) -> Any:
            """With the code that the worker has by then, bad or not."""
            workflow = self.scenario.workflow
            registered = engine.registry.version(workflow.name, workflow.version)
            return await engine.start_with(registered, self.scenario.input, id=id)

        self.ask(start, answer)

    def began(self, id: str) -> None:
        """An execution is there: wait for its end, and send it what is to be sent."""
        if id not in self.starting:
            return
        self.starting.discard(id)
        self.dirty = True
        if self.lots.random() < ASKS:
            self.await_end(id)
        posts = posts_of(self.codec, id, self.scenario.events, self.wall(), keyed=True)
        if posts:
            self.sending[id] = posts
            self.send_later(id)

    def await_end(self, id: str) -> None:
        """Have somebody say how it ended: what is told must be so."""

        def answer(closed: Any, error: BaseException | None) -> None:
            if isinstance(closed, Closed):
                self.told[id] = closed
                if closed_event(self.log, self.codec, id) != closed:
                    self.witness.wrong.append(
                        ("R1", f"'{id}' was said to have ended, and the log does not say so")
                    )
            elif isinstance(error, Weather | TimeoutError):
                self.outside.call_later(RESEND_S, self.await_end, id)

        self.ask(lambda engine: engine.results.closed(id), answer)

    def send_later(self, id: str) -> None:
        """Send what comes next when its time has come."""
        at = self.sending[id][0].at
        self.later[id] = at
        self.outside.call_later(max(0.0, at - self.wall()), self.send_if_due, id, at)

    def send_if_due(self, id: str, at: float) -> None:
        """Send it, unless that was done, or time has not come that far."""
        if self.later.get(id) == at <= self.wall() + TICK_S:
            del self.later[id]
            self.send(id)

    def send(self, id: str) -> None:
        """Send what comes next, until it is acknowledged or it is too late for it."""
        posts = self.sending[id]
        post = posts[0]
        fault = self.fate.strike(OF_SEND, self.timeline.now)
        if fault is not None:
            self.trace("client", f"{id} {post.name} {post.key}: {fault}")
        if fault == "late":
            self.outside.call_later(RESEND_S * self.fate.lots.random(), self.send, id)
            return
        if fault == "duplicate":
            self.ask(lambda engine: posting(engine, post), lambda value, error: None)

        def answer(value: Any, error: BaseException | None) -> None:
            if isinstance(error, Weather | TimeoutError):
                self.outside.call_later(RESEND_S * self.lots.random(), self.send, id)
                return
            if error is None:
                self.counts["acknowledged"] += 1
            elif not isinstance(error, ExecutionClosed):
                what = f"{post.kind} '{post.name}' to '{id}' failed: {type(error).__name__}: {error}"
                self.witness.wrong.append(("R14", what))
            posts.remove(post)
            self.dirty = True
            if posts:
                self.send_later(id)
            else:
                del self.sending[id]

        self.ask(lambda engine: posting(engine, post), answer)

    # ------------------------------------------------------------ what there is to see

    def trace(self, who: str, what: str) -> None:
        """Put a line into the trace."""
        self.stirred = self.timeline.now
        self.lines.append(f"{self.timeline.now:.6f} {who} {what}")

    def digest(self) -> str:
        """What tells this world from others: 16 hexadecimal digits over the trace."""
        return hashlib.sha256("\n".join(self.lines).encode()).hexdigest()[:16]

    def executions(self) -> list[Summary]:
        """All there are, in the order of their ids, but the slots of queues."""
        return [one for one in self.log.list(limit=10_000).items if not is_place(one.workflow)]

    def histories(self) -> dict[tuple[str, int], list[Event]]:
        """The events of every run of every execution."""
        return {
            (summary.id, run): self.codec.decode_events(self.log.records(summary.id, run), summary.id, run)
            for summary in self.executions()
            for run in range(summary.run + 1)
        }


async def posting(engine: AsyncEngine, post: Post) -> None:
    """Deliver a message as an engine's users do."""
    if post.kind == "cancel":
        await engine.cancel(post.id, post.payload.decode())
    elif post.kind == "terminate":
        await engine.terminate(post.id, post.payload.decode())
    else:
        await engine.requests.post(post)


def is_misfitted(summary: Summary) -> bool:
    """Whether it is parked, and not because its own code asked for that (R19)."""
    return summary.status is Status.PARKED and not summary.reason.startswith("Parked")


def names(id: str, copies: int) -> list[str]:
    """The ids of so many executions."""
    return [id] if copies == 1 else [f"{id}-{number}" for number in range(1, copies + 1)]
