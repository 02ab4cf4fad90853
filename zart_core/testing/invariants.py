"""What must hold in every playing of a scenario, whatever crashed: the engine's invariants, by number.

Rule 1: one function for each number; it yields what is wrong, in words, and nothing when all is well.
Rule 2: only the log, the calls and the deaths are looked at; how the host works is its own affair.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

from zart_core.codec import Codec
from zart_core.errors import Defect
from zart_core.events import (
    Began,
    Closed,
    Delivered,
    Done,
    Event,
    Failed,
    Interrupted,
    Issued,
    Noted,
    Resolved,
    Retried,
    Started,
    Taken,
)
from zart_core.hosts.offers import with_offers
from zart_core.interpreter import OFFERED
from zart_core.testing.replaying import replay_strictly
from zart_core.testing.witness import Attempt, Call, Key, Played
from zart_core.testing.world import started_workflow
from zart_core.workflows import Registry

EARNED = frozenset({"answer", "error", "exhausted", "unencodable"})
"""Kinds of failure that only a call of the function can bring."""

Check: TypeAlias = Callable[[Played], Iterator[str]]


def acknowledged_is_kept(played: Played) -> Iterator[str]:
    """I1: what was acknowledged is found after a crash."""
    yield from played.lost


def positions_and_times(played: Played) -> Iterator[str]:
    """I2: positions without gap, commands and deliveries counted from 0, times never decreasing."""
    for summary in played.summaries:
        found = len(played.histories[summary.id, summary.run])
        if summary.position != found:
            yield f"'{summary.id}' stands at position {summary.position}, and its run has {found} events"
    for key, history in played.histories.items():
        if not history or not isinstance(history[0], Started):
            yield f"{title(key)} does not begin with Started"
        for position, (event, following) in enumerate(itertools.pairwise(history), 1):
            if following.at < event.at:
                yield f"{title(key)}: time goes back at event {position}, from {event.at} to {following.at}"
        seqs = [event.seq for event in history if isinstance(event, Issued)]
        numbers = [event.n for event in history if isinstance(event, Delivered)]
        for what, counted in ("command", seqs), ("delivery", numbers):
            if counted != list(range(len(counted))):
                yield f"{title(key)}: each {what} has the next number, and these are {counted}"


def nothing_after_the_end(played: Played) -> Iterator[str]:
    """I7: nothing follows a terminal event, and what is shown as ended has one."""
    for summary in played.summaries:
        history = played.histories[summary.id, summary.run]
        end = history[-1] if history else None
        shown = summary.status if summary.status.closed else None
        if (end.status if isinstance(end, Closed) else None) != shown:
            yield f"'{summary.id}' is shown as {summary.status}, and its last event is {type(end).__name__}"
    for key, history in played.histories.items():
        if any(isinstance(event, Closed) for event in history[:-1]):
            yield f"{title(key)}: events follow its end"


def one_outcome(played: Played) -> Iterator[str]:
    """I11: at most one outcome for each command, and one terminal event for each run."""
    for key, history in played.histories.items():
        issued = {event.seq: event.name for event in history if isinstance(event, Issued)}
        resolved = Counter(event.seq for event in history if isinstance(event, Resolved))
        for seq, count in resolved.items():
            if seq not in issued:
                yield f"{title(key)}: command {seq} has an outcome and was never issued"
            elif count > 1:
                yield f"{title(key)}: '{issued[seq]}' has {count} outcomes"
        ends = sum(isinstance(event, Closed) for event in history)
        if ends > 1:
            yield f"{title(key)} has {ends} terminal events"


def executions_fit(played: Played) -> Iterator[str]:
    """I12: executed at least once for each outcome on record, again only after a crash while it was not."""
    calls = calls_of(played)
    for key, history in played.histories.items():
        away = offered_in(history)
        names = {
            event.seq: event.name
            for event in history
            if isinstance(event, Issued) and event.kind == "step" and event.seq not in away
        }
        called = {(call.seq, call.attempt) for call in calls[key]}
        earned = earned_outcomes(history, names)
        for (seq, attempt), n in earned.items():
            if (seq, attempt) not in called and not is_too_late(history[n]):
                yield f"{title(key)}: attempt {attempt} of '{names[seq]}' has an outcome and never ran"
        lives: set[tuple[int, int, int]] = set()
        for call in calls[key]:
            if (call.seq, call.attempt, call.life) in lives:
                yield f"{title(key)}: {attempt_of(call)} ran twice, and nothing crashed in between"
            lives.add((call.seq, call.attempt, call.life))
            durable = earned.get((call.seq, call.attempt))
            if durable is not None and durable < call.stood:
                yield f"{title(key)}: {attempt_of(call)} ran though its outcome was durable"


def nothing_runs_ahead(played: Played) -> Iterator[str]:
    """I13: no step starts before what led to it, its own command and its start are durable."""
    for key, calls in calls_of(played).items():
        history = played.histories.get(key, [])
        issued = {event.seq: n for n, event in enumerate(history) if isinstance(event, Issued)}
        began: dict[int, int] = {}
        for n, event in enumerate(history):
            if isinstance(event, Began):
                began.setdefault(event.seq, n)
        for call in calls:
            if call.seq not in issued:
                yield f"{title(key)}: '{call.name}' ran, and that it was asked for is not on record"
            elif issued[call.seq] >= call.stood:
                yield f"{title(key)}: '{call.name}' ran before it was on record that it was asked for"
            elif began.get(call.seq, call.stood) >= call.stood:
                yield f"{title(key)}: '{call.name}' ran before it was on record that it began"


def timers_hold(played: Played) -> Iterator[str]:
    """I14: no timer early: sleeps, event and step timeouts, retries, the run's deadline."""
    yield from played.early
    calls = calls_of(played)
    for key, history in played.histories.items():
        until = {
            event.seq: event for event in history if isinstance(event, Issued) and event.until is not None
        }
        limits: dict[int, float] = {}
        due: dict[tuple[int, int], float] = {}
        deadline = None
        for event in history:
            match event:
                case Started():
                    deadline = event.deadline
                case Began() if event.deadline is not None:
                    limits[event.seq] = event.deadline
                case Retried():
                    due[event.seq, event.attempt + 1] = event.retry_at
                case Resolved() if event.seq in until and is_timer(event, until[event.seq]):
                    wanted = until[event.seq].until
                    if wanted is not None and event.at < wanted:
                        yield f"{title(key)}: '{until[event.seq].name}' was over {wanted - event.at} s early"
                case Resolved(outcome=Failed(failure)) if (
                    failure.kind == "timed_out" and event.at < limits.get(event.seq, event.at)
                ):
                    yield f"{title(key)}: '{failure.type}' timed out {limits[event.seq] - event.at} s early"
                case Interrupted() if event.by == "deadline" and event.at < (deadline or event.at):
                    yield f"{title(key)}: its deadline struck early"
                case _:
                    pass
        for call in calls[key]:
            if call.at < due.get((call.seq, call.attempt), call.at):
                yield f"{title(key)}: {attempt_of(call)} began before its time"


def events_are_taken_once(played: Played) -> Iterator[str]:
    """I15: each event consumed at most once, none lost, order kept."""
    for key, history in played.histories.items():
        names = {
            event.seq: event.of for event in history if isinstance(event, Issued) and event.kind == "event"
        }
        taken: dict[str, list[int]] = defaultdict(list)
        for event in history:
            if isinstance(event, Resolved) and isinstance(event.outcome, Taken):
                taken[names.get(event.seq, "?")].append(event.outcome.n)
        for name, numbers in taken.items():
            if len(set(numbers)) < len(numbers):
                yield f"{title(key)}: a delivery of '{name}' was taken twice: {numbers}"
            elif numbers != sorted(numbers):
                yield f"{title(key)}: deliveries of '{name}' were taken out of order: {numbers}"
    yield from deliveries_fit(played)


def deliveries_fit(played: Played) -> Iterator[str]:
    """Compare what was sent with what is on record, and what was acknowledged with that and the inbox."""
    offered = [post for post in played.offered if post.kind == "event"]
    sent = [post for post in played.sent if post.kind == "event"]
    ids = {post.id for post in offered}
    found: dict[str, list[str | None]] = defaultdict(list)
    for (id, _), history in played.histories.items():
        if id in ids:
            for event in history:
                if isinstance(event, Delivered) and event.key is not None:
                    found[event.event].append(event.key)
    seen = Counter(key for keys in found.values() for key in keys)
    for key, count in seen.items():
        if count > 1:
            yield f"the event with key '{key}' was delivered {count} times"
    for post in sent:
        if post.key not in seen and post.key not in played.unread:
            yield f"event '{post.name}' with key '{post.key}' was acknowledged and is lost"
    for name, keys in found.items():
        order = [post.key for post in offered if post.name == name and post.key in keys]
        if list(dict.fromkeys(keys)) != list(dict.fromkeys(order)):
            yield f"events '{name}' were sent in the order {order} and delivered in the order {keys}"


def interrupted_once(played: Played) -> Iterator[str]:
    """I17: cancellation is observed once."""
    for key, history in played.histories.items():
        times = sum(isinstance(event, Interrupted) for event in history)
        if times > 1:
            yield f"{title(key)} was interrupted {times} times"


def lost_rightly(played: Played) -> Iterator[str]:
    """R5: a step is lost only when its worker died while it may have been running."""
    for (id, run), history in played.histories.items():
        began: dict[int, int] = {}
        away = offered_in(history)
        for n, event in enumerate(history):
            if isinstance(event, Began):
                began.setdefault(event.seq, n)
            if is_lost(event):
                assert isinstance(event, Resolved)
                if event.seq in away:  # its own execution is looked at
                    continue
                first = began.get(event.seq, n)
                stood = [death.stood.get(id, (run, 0)) for death in played.deaths]
                if not any(found == run and first < position <= n for found, position in stood):
                    yield f"{title((id, run))}: command {event.seq} was lost, and no crash met it running"


def at_most_once_holds(played: Played) -> Iterator[str]:
    """R10: a step that may run at most once never runs twice."""
    for key, calls in calls_of(played).items():
        for attempt, count in Counter(attempt_of(call) for call in calls if call.at_most_once).items():
            if count > 1:
                yield f"{title(key)}: {attempt} may run at most once and ran {count} times"


def offers_fit(played: Played) -> Iterator[str]:
    """R1: what an execution has on record of an offered step is what the step's own execution came to."""
    calls = calls_of(played)
    for key, history in played.histories.items():
        away = offered_in(history)
        for call in calls[key]:
            if call.seq in away:
                yield f"{title(key)}: '{call.name}' was offered to others, and ran here all the same"
        for event in history:
            if not isinstance(event, Resolved) or event.seq not in away:
                continue
            own = played.histories.get((away[event.seq], 0), [])
            came_to = [each.outcome for each in own if isinstance(each, Resolved)]
            failed = event.outcome.failure.kind if isinstance(event.outcome, Failed) else ""
            if (isinstance(event.outcome, Done) or failed in EARNED) and came_to != [event.outcome]:
                yield f"{title(key)}: command {event.seq} has an outcome that its offered step does not have"


CHECKS: Mapping[str, Check] = {
    "I1": acknowledged_is_kept,
    "I2": positions_and_times,
    "I7": nothing_after_the_end,
    "I11": one_outcome,
    "I12": executions_fit,
    "I13": nothing_runs_ahead,
    "I14": timers_hold,
    "I15": events_are_taken_once,
    "I17": interrupted_once,
    "R1": offers_fit,
    "R5": lost_rightly,
    "R10": at_most_once_holds,
}


class Judge:
    """Judges playings of one scenario against its crash-free one. Nothing is replayed or played twice.

    `comparable` is False when it ends differently each time without any crash: no outcomes are compared then.
    `slower` tells how it ends without a crash when attempts take so many seconds longer: what does not hang on time
    is not excused by it. Without it all that repeated such an attempt is.
    """

    def __init__(
        self,
        baseline: Played,
        registry: Registry,
        codec: Codec,
        *,
        comparable: bool = True,
        slower: Callable[[Mapping[Attempt, float]], str] | None = None,
    ) -> None:
        self.baseline = baseline
        self.registry = with_offers(registry, codec)
        self.codec = codec
        self.comparable = comparable
        self.slower = slower
        self.excused: Counter[str] = Counter()
        """How many outcomes differ, and why they may."""
        self._replayed: dict[tuple[object, ...], str] = {}
        self._slower: dict[frozenset[tuple[Attempt, float]], str] = {}

    def violations(self, played: Played) -> Iterator[tuple[str, str]]:
        """Yield the number of a broken rule and what is wrong, for each."""
        for wrong in self.outcome_differs(played):
            yield "I10", wrong
        yield from self.broken(played)

    def broken(self, played: Played) -> Iterator[tuple[str, str]]:
        """The same, its outcome left aside."""
        for rule, check in CHECKS.items():
            for wrong in check(played):
                yield rule, wrong
        for key, history in played.histories.items():
            if wrong := self.replay(history):
                yield "I16", f"{title(key)} does not replay: {wrong}"

    def outcome_differs(self, played: Played) -> Iterator[str]:
        """I10: the outcome is that of the crash-free run. Two things excuse another, and are counted (P3)."""
        if played.outcome == self.baseline.outcome or (played.status.closed and not self.comparable):
            return
        if not played.status.closed:
            yield f"it does not end: {played.outcome}"
        elif any(is_lost(event) for history in played.histories.values() for event in history):
            self.excused["a step was lost with its worker (R5, R10)"] += 1
        elif self.hangs_on_time(played):
            self.excused["a step that was repeated took its time again"] += 1
        else:
            yield f"the outcome is {played.outcome!r}, and without a crash {self.baseline.outcome!r}"

    def hangs_on_time(self, played: Played) -> bool:
        """Whether it ends otherwise without any crash, too, when what was repeated takes that much longer."""
        again = took_again(played)
        if not again or self.slower is None:
            return bool(again)
        took_s: dict[Attempt, float] = defaultdict(float)
        for call in again:
            took_s[call.id, call.run, call.seq, call.attempt] += call.took_s
        key = frozenset(took_s.items())
        if key not in self._slower:
            self._slower[key] = self.slower(took_s)
        return self._slower[key] != self.baseline.outcome

    def replay(self, history: Sequence[Event]) -> str:
        """I16, P1: a history replays strictly; why not, otherwise."""
        key = tuple(history)
        if key not in self._replayed:
            try:
                replay_strictly(started_workflow(self.registry, history), history, self.codec)
                self._replayed[key] = ""
            except Defect as defect:
                self._replayed[key] = f"{type(defect).__name__}: {defect}"
        return self._replayed[key]


def title(key: Key) -> str:
    """An execution and its run, for messages."""
    return f"'{key[0]}'" if key[1] == 0 else f"'{key[0]}' (run {key[1]})"


def attempt_of(call: Call) -> str:
    """A call, for messages."""
    return f"attempt {call.attempt} of '{call.name}'"


def calls_of(played: Played) -> defaultdict[Key, list[Call]]:
    """Group the calls by run, in order."""
    calls: defaultdict[Key, list[Call]] = defaultdict(list)
    for call in played.calls:
        calls[call.id, call.run].append(call)
    return calls


def earned_outcomes(history: Sequence[Event], names: Mapping[int, str]) -> dict[tuple[int, int], int]:
    """Find where each attempt's outcome first stands that only a call can have brought, by seq and attempt."""
    earned: dict[tuple[int, int], int] = {}
    attempts: Counter[int] = Counter()
    for n, event in enumerate(history):
        match event:
            case Retried():
                earned.setdefault((event.seq, event.attempt), n)
                attempts[event.seq] = event.attempt + 1
            case Resolved(outcome=Done()) if event.seq in names:
                earned.setdefault((event.seq, attempts[event.seq]), n)
            case Resolved(outcome=Failed(failure)) if event.seq in names and failure.kind in EARNED:
                earned.setdefault((event.seq, attempts[event.seq]), n)
            case _:
                pass
    return earned


def offered_in(history: Sequence[Event]) -> dict[int, str]:
    """Which commands of a run are steps that any worker may take, and the executions that they are there."""
    return {
        int(event.who): event.why for event in history if isinstance(event, Noted) and event.what == OFFERED
    }


def is_timer(event: Resolved, issued: Issued) -> bool:
    """Whether time brought this outcome."""
    match event.outcome:
        case Done():
            return issued.kind == "sleep"
        case Failed(failure):
            return failure.kind == "event_timed_out"
        case _:
            return False


def took_again(played: Played) -> list[Call]:
    """The calls that had taken time, and whose attempts were repeated."""
    again: list[Call] = []
    done: set[Attempt] = set()
    for call in reversed(played.calls):
        attempt = (call.id, call.run, call.seq, call.attempt)
        if attempt in done and call.took_s > 0:
            again.append(call)
        done.add(attempt)
    return again


def is_too_late(event: Event) -> bool:
    """Whether time ended an attempt, which may not have found a thread by then."""
    match event:
        case Retried(failure=failure) | Resolved(outcome=Failed(failure)):
            return "timed_out" in (failure.kind, failure.cause.kind if failure.cause is not None else "")
        case _:
            return False


def is_lost(event: Event) -> bool:
    """Whether a step was lost with its worker."""
    return (
        isinstance(event, Resolved)
        and isinstance(event.outcome, Failed)
        and event.outcome.failure.kind == "lost"
    )
