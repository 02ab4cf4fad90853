"""A host whose outside is drawn: what each step gives, in which order, and what comes between.

Rule 1: the run is a real one: real turns on a real log, children too; only answers are drawn, when they are due.
Rule 2: what is simplest comes first in every choice: steps end in the order in which they began, with a value, and
        nothing comes between. So what Hypothesis shrinks to is the shortest story that does it.
"""

from __future__ import annotations

import random
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeAlias, TypeVar

import attrs
import hypothesis.strategies as st
from hypothesis import reject

from zart_core.commands import WaitForEvent
from zart_core.empties import put
from zart_core.errors import Parked
from zart_core.events import Closed, Done, Err, Ok, Outcome
from zart_core.hosts.inline import Inline, closed_event
from zart_core.hosts.ports import Lots, StepCall
from zart_core.hosts.turns import Effects, Run
from zart_core.interpreter import Execution
from zart_core.log import Post, Summary
from zart_core.records import record
from zart_core.steps import StepFunction
from zart_core.testing.drawing import errors_of, is_strategy, values_of

T = TypeVar("T")
Draw: TypeAlias = Callable[[st.SearchStrategy[Any]], Any]

ANSWERS_MAX = 200
"""How many things may happen in one run; what goes on longer is not drawn."""
UNASKED_MAX = 3
"""How many events of a name may come that nobody waits for."""


PLAIN = st.none() | st.booleans() | st.integers() | st.text(max_size=8)
"""What an event carries whose wait declares no type."""


NO_LOTS = random.Random(0)  # noqa: S311  # drawn from and not used, where there is no jitter


class Unforeseen(Exception):
    """The error of a step that fails in a way nobody declared."""


@record
class Rules:
    """What may happen in a run; see `strategies.runs`."""

    steps: Mapping[StepFunction[..., Any], st.SearchStrategy[Any]]
    events: Mapping[str, Any]
    awaited: bool
    cancel: bool
    failures: bool
    timeouts: bool
    lost: bool
    slow: bool = True
    """Whether time may pass while steps are under way."""


def moods(rules: Rules) -> list[Rules]:
    """The rules with all, one or none of their disturbances, the calmest first.

    A run of few kinds of trouble gets further than one of all kinds, and more of what is found differs.
    """
    calm = attrs.evolve(rules, cancel=False, failures=False, lost=False, slow=False)
    cancelled = attrs.evolve(calm, cancel=rules.cancel)
    failing = attrs.evolve(calm, failures=rules.failures, lost=rules.lost)
    slow = attrs.evolve(calm, slow=rules.slow)
    return [calm, *[cancelled] * 2, *[failing] * 2, slow, *[rules] * 2]


@attrs.define(eq=False)
class Attempt:
    """An attempt that has begun and was not answered yet."""

    run: Run
    call: StepCall
    told_to_end: bool = False

    @property
    def name(self) -> str:
        """The step's name in the log."""
        return self.call.context.step or ""


@record
class Choice:
    """Something that may happen next; the weight says how often, beside the others."""

    weight: int
    happen: Callable[[], None]


class DrawingRun(Run):
    """A run whose random numbers and identifiers are drawn, so that it can be repeated."""

    draw: Draw

    def _captured(self, execution: Execution, seq: int) -> Outcome:
        fn = execution.command(seq).fn
        if fn is random.random:
            return Done(self.codec.encode(DrawnLots(self.draw).random(), float))
        if fn is uuid.uuid4:
            return Done(self.codec.encode(self.draw(st.uuids(version=4)), uuid.UUID))
        return super()._captured(execution, seq)


@record
class DrawnLots:
    """Chance that is drawn, so that it can be repeated: the twin of `LOTS`."""

    draw: Draw

    def random(self) -> float:
        """A number from 0 up to, but not, 1."""
        lot: float = self.draw(st.floats(0, 1, exclude_max=True))
        return lot

    def getrandbits(self, k: int, /) -> int:
        """A number of `k` bits."""
        bits: int = self.draw(st.integers(0, (1 << k) - 1))
        return bits


class DrawnHost(Inline):
    """The inline host, but nothing is carried out: what is under way is answered when it is drawn."""

    def __init__(self, *arguments: Any, draw: Draw, rules: Rules, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.draw = draw
        self.rules = rules
        self.root = ""
        self.attempts: list[Attempt] = []
        self.story: list[str] = []
        self.calls: Counter[str] = Counter()
        self.answers: dict[str, Ok[Any] | Err[BaseException]] = {}
        self.failing: dict[tuple[str, int, int], Exception] = {}
        """Steps that fail at each attempt, by execution, run and seq."""
        self.unasked: Counter[str] = Counter()
        self.cancelled = False
        self.passed = timedelta()
        """How much time has passed since something else happened."""

    def make_run(self, summary: Summary) -> Run:
        """A run that draws what it captures at random."""
        run = DrawingRun(summary, self.codec)
        run.draw = self.draw
        return run

    def drive(self, id: str) -> Closed:
        """Let things happen until the execution has ended. Raises its defect, and Stuck."""
        self.root = id
        self.take_tree(id)
        for _ in range(ANSWERS_MAX):
            while self.work():
                pass
            closed = closed_event(self.log, self.codec, id)
            if closed is not None:
                return closed
            for run in self.runs.values():
                if run.defect is not None and (run.id == id or not isinstance(run.defect, Parked)):
                    raise run.defect
            self.happen()
        return reject()

    def happen(self) -> None:
        """Draw what happens next, and let it happen."""
        self.drawn([choice for choice in self.possible() for _ in range(choice.weight)]).happen()

    def drawn(self, items: Sequence[T]) -> T:
        """One of them; the first is the simplest, and the only one is not drawn."""
        if all(item is items[0] for item in items):
            return items[0]
        index: int = self.draw(st.integers(0, len(items) - 1))
        return items[index]

    # ------------------------------------------------------------ what may happen

    def possible(self) -> list[Choice]:
        """Everything that may happen now, the simplest first."""
        choices = [Choice(8, self.answering(attempt)) for attempt in self.attempts]
        choices += self.awaited_events()
        coming = self.coming()
        waits = not self.attempts or (self.rules.slow and (self.rules.timeouts or not self.has_deadlines()))
        if coming is not None and waits:
            choices.append(Choice(4, lambda: self.wait_until(coming)))
        elif not self.attempts:
            choices.append(Choice(2, self.never))
        choices += [Choice(1, self.unasked_event(name)) for name in self.rules.events if self.may_come(name)]
        if self.rules.cancel and not self.cancelled:
            choices.append(Choice(8, self.cancel))
        return choices

    def has_deadlines(self) -> bool:
        """Whether something that is under way may come too late."""
        return any(each.call.context.deadline is not None for each in self.attempts) or any(
            run.started is not None and run.started.deadline is not None for run in self.runs.values()
        )

    def coming(self) -> float | None:
        """When time brings something about next."""
        times = [each.call.attempt_until for each in self.attempts if each.call.attempt_until is not None]
        wake = self.next_wake()
        return min([*times, *([] if wake is None else [wake])], default=None)

    def awaited_events(self) -> list[Choice]:
        """Deliveries of events that somebody waits for."""
        if not self.rules.awaited:
            return []
        found: dict[tuple[str, str], Choice] = {}
        for run in self.runs.values():
            pending = run.execution.pending.values() if run.execution is not None else ()
            for issued in pending:
                if issued.kind == "event" and run.execution is not None:
                    wait = run.execution.command(issued.seq)
                    found.setdefault((run.id, issued.of), Choice(8, self.awaited_event(run.id, wait)))
        return list(found.values())

    def may_come(self, name: str) -> bool:
        """Whether an event may come that was declared, awaited or not."""
        return self.unasked[name] < UNASKED_MAX

    def never(self) -> None:
        """What is waited for never comes."""
        self.story.append("nothing more happens")
        self.rest(None)

    # ------------------------------------------------------------ steps

    def call(self, run: Run, call: StepCall) -> None:
        """An attempt begins: it is answered when its turn comes, or at once when it is one of those that fail."""
        attempt = Attempt(run, call)
        self.calls[attempt.name] += 1
        error = self.failing.get((run.id, run.run, call.seq))
        if error is None:
            self.attempts.append(attempt)
        else:
            run.raised(call, error, self.clock.now(), self.lots_of(call))

    def lots_of(self, call: StepCall) -> Lots:
        """What its jitter is drawn from, if it has any."""
        return DrawnLots(self.draw) if call.function.policy.retry.jitter else NO_LOTS

    def carry_out(self, run: Run, effects: Effects) -> bool:
        """Keep in mind what was told to end, and forget what nobody wants any more."""
        for attempt in [each for each in self.attempts if each.run is run]:
            if attempt.call.seq in effects.dropped:
                self.attempts.remove(attempt)
                self.story.append(f"{attempt.name} is given up")
            elif attempt.call.seq in effects.stops:
                attempt.told_to_end = True
        return super().carry_out(run, effects)

    def answering(self, attempt: Attempt) -> Callable[[], None]:
        """End an attempt, one way or another."""

        def answer() -> None:
            self.attempts.remove(attempt)
            self.drawn(self.outcomes(attempt))(attempt)
            self.advance(attempt.run)

        return answer

    def outcomes(self, attempt: Attempt) -> list[Callable[[Attempt], None]]:
        """The ways in which an attempt may end, those that are likely several times."""
        function, rules = attempt.call.function, self.rules
        ways: list[Callable[[Attempt], None]]
        if function.origin in rules.steps:
            ways = [self.play]
        else:
            ways = [self.give] * 4
            declared = function.policy.raises
            ways += [self.raising(error) for error in declared for _ in range(2 if len(declared) < 3 else 1)]
            if rules.failures:
                ways += [self.fail] * 2
        if rules.lost and function.policy.at_most_once:
            ways += [self.lose] * 2
        return [*ways, *([self.end] * len(ways) if attempt.told_to_end else [])]

    def give(self, attempt: Attempt) -> None:
        """A value of the declared type."""
        function = attempt.call.function
        what = f"step '{function.id}' returns"
        self.returns(attempt, self.draw(values_of(function.result_type, what, self.codec)))

    def returns(self, attempt: Attempt, value: Any) -> None:
        """End with a value."""
        self.tell(attempt, Ok(value), f"-> {value!r}")
        attempt.run.returned(attempt.call, value, self.clock.now())

    def raising(self, declared: type[Exception]) -> Callable[[Attempt], None]:
        """An error of a declared class."""

        def raise_it(attempt: Attempt) -> None:
            error = self.draw(errors_of(declared, f"step '{attempt.call.function.id}' raises"))
            self.raises(attempt, error)

        return raise_it

    def fail(self, attempt: Attempt) -> None:
        """An error that nobody declared, at this attempt and all that follow."""
        policy = attempt.call.function.policy
        retried = [each for each in policy.retry.on if not issubclass(each, policy.raises)]
        classes: list[type[Exception]] = [Unforeseen, *retried]
        what = f"step '{attempt.call.function.id}' retries"
        self.raises(attempt, self.draw(errors_of(self.drawn(classes), what)))

    def raises(self, attempt: Attempt, error: Exception) -> None:
        """End with an error; a step that is tried again raises it again."""
        times = attempt.call.function.policy.retry.retries_max + 1
        retried = attempt.call.function.policy.retry.retries(error, attempt.call.function.policy.raises)
        often = f" ({times} times)" if retried and times > 1 and not attempt.told_to_end else ""
        self.tell(attempt, Err(error), f"raises {error!r}{often}")
        self.failing[attempt.run.id, attempt.run.run, attempt.call.seq] = error
        attempt.run.raised(attempt.call, error, self.clock.now(), self.lots_of(attempt.call))

    def play(self, attempt: Attempt) -> None:
        """What the test's own strategy gives: an error is raised, anything else returned."""
        value = self.draw(self.rules.steps[attempt.call.function.origin])
        if isinstance(value, type) and issubclass(value, Exception):
            value = value()
        if isinstance(value, Exception):
            self.raises(attempt, value)
        else:
            self.returns(attempt, value)

    def lose(self, attempt: Attempt) -> None:
        """Its worker died while it may have been running, and it may not run again (R10)."""
        self.story.append(f"{attempt.name} is lost")
        run = attempt.run
        run.running.pop(attempt.call.seq, None)
        run.suspects = put(run.suspects, attempt.call.seq, 0)
        run.try_suspect(attempt.call.seq, alone=True, now=self.clock.now())

    def end(self, attempt: Attempt) -> None:
        """It was told to end, and does."""
        self.story.append(f"{attempt.name} is cancelled")
        attempt.run.cancelled(attempt.call, self.clock.now())

    def tell(self, attempt: Attempt, answer: Ok[Any] | Err[BaseException], how: str) -> None:
        """Remember how a step ended."""
        self.answers[attempt.name] = answer
        self.story.append(f"{attempt.name} {how}")

    # ------------------------------------------------------------ time, events, cancellation

    def wait_until(self, when: float) -> None:
        """Let time pass; attempts whose own time is over have timed out."""
        span = when - self.clock.now()
        if self.passed:
            self.story.pop()
        self.passed += timedelta(seconds=span)
        self.story.append(f"{self.passed} passes")
        self.clock.sleep(span)
        for attempt in list(self.attempts):
            until = attempt.call.attempt_until
            if until is not None and until <= self.clock.now() and not attempt.told_to_end:
                self.attempts.remove(attempt)
                self.story.append(f"{attempt.name} times out")
                attempt.run.timed_out(attempt.call, self.clock.now(), self.lots_of(attempt.call))
                self.advance(attempt.run)

    def awaited_event(self, id: str, wait: WaitForEvent[Any]) -> Callable[[], None]:
        """The event comes that somebody waits for, with a payload of the type that the wait declares."""

        def come() -> None:
            declared = self.rules.events.get(wait.event, wait.type)
            self.deliver(id, wait.event, declared, wait.type)

        return come

    def unasked_event(self, name: str) -> Callable[[], None]:
        """An event comes that perhaps nobody waits for."""

        def come() -> None:
            self.unasked[name] += 1
            self.deliver(self.root, name, self.rules.events[name], None)

        return come

    def deliver(self, id: str, name: str, declared: Any, wanted: Any) -> None:
        """Post an event with a payload of a declared type, or of a strategy, written as what is `wanted`."""
        if is_strategy(declared):
            value = self.draw(declared)
        elif declared is Any:
            value = self.draw(PLAIN)
        else:
            value, wanted = self.draw(values_of(declared, f"event '{name}' carries", self.codec)), declared
        self.story.append(f"event {name} <- {value!r}")
        what = f"the payload of event '{name}'"
        payload = (
            self.codec.encode_message(value, what)
            if wanted is None
            else self.codec.encode(value, wanted, what)
        )
        self.log.append([Post(id, "event", name, payload, self.clock.now())])

    def cancel(self) -> None:
        """Somebody asks for cancellation."""
        self.cancelled = True
        self.story.append("cancel!")
        self.log.append([Post(self.root, "cancel", "cancel", b"the test", self.clock.now(), "cancel!")])
