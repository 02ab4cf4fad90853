"""What if: a copy of a run up to one of its events, with outcomes replaced, that goes on from there on its own.

Rule 1: the original is only read. A copy is cut where a turn may end, or at a fact, which is then held until the copy
        is taken up (R20); it is replayed before anybody gets it.
Rule 2: what was in flight at the cut begins anew in the copy; timers keep the time that they had left.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from zart_core import log as stored
from zart_core.codec import Codec
from zart_core.errors import DecodeError, Diverged, InvalidUse
from zart_core.events import (
    Began,
    Closed,
    Delivered,
    Done,
    Event,
    Failed,
    Failure,
    Interrupted,
    Issued,
    Noted,
    Outcome,
    Resolved,
    Retried,
    Started,
    Status,
    Taken,
)
from zart_core.hosts.past import ALONE
from zart_core.interpreter import (
    HANDED_OVER,
    OFFERED,
    QUEUED,
    UNBEGUN,
    Execution,
    child_id,
    is_marker,
    replay,
)
from zart_core.records import record
from zart_core.workflows import Workflow, claim_name

FORKED = "forked"
"""The Noted that says where a copy comes from."""
OUTCOMES = ("step", "sleep", "event", "capture", "child")
"""Commands whose outcome may be replaced; the others are answered by their own event."""


@record
class Fork:
    """A history of its own, and where it comes from."""

    id: str
    workflow: str
    events: tuple[Event, ...]
    of: str
    run: int
    position: int
    """How many events of the original are in it, as the cut fell."""
    asked: int
    """How many were asked for."""
    replaced: tuple[str, ...]
    """Names of the commands whose outcome is another one."""
    left: Mapping[str, Outcome]
    """Outcomes for commands that are not issued at the cut: for rehearsals only."""


def fork(
    workflow: Workflow[Any, Any],
    history: Sequence[Event],
    *,
    id: str,
    at: int | None = None,
    outcomes: Mapping[str, Outcome] | None = None,
    codec: Codec | None = None,
) -> Fork:
    """Copy a run up to an event, under another id. O(n).

    Args:
        workflow: the code; the copy must fit it.
        history: the events of the run.
        id: of the copy.
        at: how many events to keep. Where a turn may not end there, fewer are. By default as many as there are
            before the first outcome that is replaced; else all but the run's end.
        outcomes: what commands end with instead, by name: `Done(payload)` or `Failed(failure)`. One that had ended
            before `at` is replaced where it stands, one that is pending there ends so at the end of the copy.
        codec: how the values were written; a plain one by default.

    Raises InvalidUse for a position outside of the run, a name that it does not have, and outcomes with which the code
    goes another way before the cut; and the defect of code that does not fit.
    """
    events = list(history)
    first = events[0] if events else None
    if not isinstance(first, Started):
        raise InvalidUse("this run has no events so far: there is nothing to fork")
    if at is not None and not 1 <= at <= len(events):
        raise InvalidUse(f"a fork keeps 1 to {len(events)} events of this run, not {at}")
    given = dict(outcomes or {})
    numbers = numbers_of(events)
    asked = len(events) if at is None else at
    if at is None:
        asked = min([asked, *(ended_at(events, numbers[name]) for name in given if name in numbers)])
    kept = copied(first, events[:asked], id)
    replaced = replace(
        kept, {numbers[name]: (name, outcome) for name, outcome in given.items() if name in numbers}
    )
    position = hold_end(workflow, kept, replaced, codec)
    issued = {e.name for e in kept[:position] if isinstance(e, Issued) and numbers[e.name] == e.seq}
    tail = facts_of(
        workflow, kept[:position], {n: o for n, o in given.items() if n in issued - replaced}, codec
    )
    done = (*without_flights(kept[:position], tail, first, id), *tail)
    check(workflow, done, codec)
    left = {name: outcome for name, outcome in given.items() if name not in issued}
    others = tuple(sorted(set(given) - set(left)))
    return Fork(id, first.workflow, done, first.id, first.run, position, asked, others, left)


def numbers_of(events: Sequence[Event]) -> dict[str, int]:
    """The command of each name; a version marker, whose names are its own, only where nothing else has it (R2)."""
    issued = [event for event in events if isinstance(event, Issued)]
    return {event.name: event.seq for event in sorted(issued, key=lambda event: event.kind != "version")}


def check(workflow: Workflow[Any, Any], events: Sequence[Event], codec: Codec | None) -> None:
    """Replay a whole history as a host does that takes it up. Raises the defect."""
    execution = replay(workflow, events, codec=codec)
    try:
        execution.check_answered()
    finally:
        execution.close()


def ended_at(events: Sequence[Event], seq: int) -> int:
    """How many events there are before the fact that ended a command; all, while it is pending."""
    for n, event in enumerate(events):
        if isinstance(event, Resolved) and event.seq == seq:
            return delivery(events, event.outcome.n) if isinstance(event.outcome, Taken) else n
    return len(events)


def delivery(events: Sequence[Event], n: int) -> int:
    """Where a delivery stands."""
    return next(k for k, event in enumerate(events) if isinstance(event, Delivered) and event.n == n)


def copied(first: Started, events: Sequence[Event], id: str) -> list[Event]:
    """The events under another id, as those of a run that nobody waits for; without the run's end."""
    return [
        attrs.evolve(first, id=id, run=0, parent=None),
        *(event for event in events[1:] if not isinstance(event, Closed)),
    ]


def replace(events: list[Event], outcomes: Mapping[int, tuple[str, Outcome]]) -> set[str]:
    """Replace outcomes that are on record where they stand; gives the names of those that were."""
    replaced: set[str] = set()
    for n, event in enumerate(events):
        if not isinstance(event, Resolved) or event.seq not in outcomes:
            continue
        name, outcome = outcomes[event.seq]
        match event.outcome, outcome:
            case Taken(n=number), Done(payload=payload):
                k = delivery(events, number)
                taken = events[k]
                assert isinstance(taken, Delivered)
                events[k] = attrs.evolve(taken, payload=payload)
            case Taken(), _:
                raise InvalidUse(
                    f"'{name}' took an event: it can be given another payload, or be forked before it"
                )
            case _:
                events[n] = attrs.evolve(event, outcome=outcome)
        replaced.add(name)
    return replaced


def hold_end(
    workflow: Workflow[Any, Any], events: list[Event], replaced: set[str], codec: Codec | None
) -> int:
    """The last position up to which the events are a whole history; a fact there that has no answer becomes held.

    Where outcomes were replaced, arguments are compared too: a step must not be called with what followed from others.

    Raises the defect of code that does not fit, and InvalidUse when it goes another way because of what was replaced.
    """
    execution, end, whole = Execution(workflow, codec=codec, strict=bool(replaced)), 0, True
    try:
        for n, event in enumerate(as_issued(events), 1):
            execution.apply(event)
            whole_here = is_whole(execution)
            if whole_here or is_fact(event):
                end, whole = n, whole_here
    except Diverged as diverged:
        if not replaced:
            raise
        refuse_unreadable(diverged)
        names = ", ".join(f"'{name}'" for name in sorted(replaced))
        raise InvalidUse(
            f"with another outcome of {names} the code goes another way at event {diverged.position}: "
            f"it wants {diverged.yielded}, and {diverged.recorded} is recorded. Fork there, or earlier: "
            "without a position the copy ends before the first outcome that is replaced"
        ) from None
    finally:
        execution.close()
    last = events[end - 1]
    if not whole and isinstance(last, Resolved | Delivered | Interrupted):
        events[end - 1] = attrs.evolve(last, held=True)
    return end


def is_fact(event: Event) -> bool:
    """Whether it came from outside and may stand without its answer, as a held one (R20)."""
    return isinstance(event, Delivered | Interrupted) or (
        isinstance(event, Resolved) and isinstance(event.outcome, Done | Failed)
    )


def refuse_unreadable(diverged: Diverged) -> None:
    """Raise InvalidUse for an outcome that does not decode to the declared type."""
    if isinstance(diverged.__cause__, DecodeError):
        raise InvalidUse(f"the new outcome does not fit: {diverged.yielded}: {diverged.__cause__}") from None


def is_whole(execution: Execution) -> bool:
    """Whether a log may end here: its last fact awaits its answer, or nothing is wanted."""
    return execution._unanswered or all(want.settled or is_marker(want) for want in execution._wanted)


def facts_of(
    workflow: Workflow[Any, Any],
    events: Sequence[Event],
    outcomes: Mapping[str, Outcome],
    codec: Codec | None,
) -> list[Event]:
    """The facts that end pending commands, held until the copy is taken up. Raises InvalidUse."""
    facts: list[Event] = []
    execution = replay(workflow, events, codec=codec)
    try:
        pending = {issued.name: issued for issued in execution.pending.values()}
        for name, outcome in outcomes.items():
            if name not in pending:
                raise InvalidUse(f"'{name}' has no outcome of its own that could be another one")
            facts.append(fact_of(execution, pending[name], outcome))
            execution.apply(facts[-1])
    except Diverged as diverged:
        refuse_unreadable(diverged)
        raise
    finally:
        execution.close()
    return facts


def fact_of(execution: Execution, issued: Issued, outcome: Outcome) -> Event:
    """The fact that ends a command. Raises InvalidUse for one that can be given no other outcome."""
    if issued.kind not in OUTCOMES:
        raise InvalidUse(f"'{issued.name}' is a {issued.kind}: it has no outcome that could be another one")
    if issued.kind == "event" and isinstance(outcome, Done):
        return Delivered(execution.next_delivery, issued.of, outcome.payload, execution.now, held=True)
    return Resolved(issued.seq, outcome, execution.now, held=True)


def without_flights(
    events: Sequence[Event], tail: Sequence[Event], first: Started, id: str
) -> Iterator[Event]:
    """The events without starts of attempts whose end is not among them; children of the copy are its own."""
    ended = {event.seq for event in [*events, *tail] if isinstance(event, Resolved)}
    told = {str(seq) for seq in ended}
    retried = {event.seq: n for n, event in enumerate(events) if isinstance(event, Retried)}
    for n, event in enumerate(events):
        match event:
            case Began(seq=seq) if seq not in ended and n > retried.get(seq, -1):
                continue
            case Noted(what=what) if what in (ALONE, UNBEGUN, HANDED_OVER):
                continue
            case Noted(what=what, who=who) if what in (OFFERED, QUEUED) and who not in told:
                continue
            case Issued(child=str(child), seq=seq) if seq not in ended:
                own = child_id(first.id, first.run, seq)
                yield attrs.evolve(event, child=child_id(id, 0, seq) if child == own else child)
            case _:
                yield event


# ---------------------------------------------------------------- making it an execution


def failure_like(issued: Issued | None, name: str, message: str) -> Failure:
    """A failure for a command: an event wait times out, anything else raises."""
    if issued is not None and issued.kind == "event":
        return Failure("event_timed_out", issued.of, message or f"no event '{issued.of}' came in time")
    return Failure("error", "RuntimeError", message)


def execution_of(made: Fork, codec: Codec, now: float) -> stored.New:
    """The copy as an execution to create: the same fork under the same id is created once (L9)."""
    events = [*later(made.events, pending_of(made.events), now), note_of(made, now)]
    first = made.events[0]
    assert isinstance(first, Started)
    replaced = [event for event in made.events if isinstance(event, Resolved | Delivered)]
    said = f"{made.of}\n{made.run}\n{made.position}\n{replaced!r}".encode("utf-8", "surrogatepass")
    return stored.New(
        id=made.id,
        workflow=made.workflow,
        digest=codec.digest(made.workflow, first.payload + b"\n" + said),
        records=codec.encode_events(events, made.id, 0, 0),
        at=now,
        status=Status.SCHEDULED,
        wake=0.0,
        claimed_as=claim_name(first.workflow, first.version),
    )


def refuse_what_is_rehearsed_only(made: Fork) -> None:
    """Raise InvalidUse for outcomes of commands that are not issued, and for waits that would never end in a copy."""
    if made.left:
        names = ", ".join(f"'{name}'" for name in sorted(made.left))
        raise InvalidUse(
            f"{names}: not issued at event {made.position}, so it has no outcome to replace; try --dry-run"
        )
    for issued in pending_of(made.events).values():
        if issued.kind == "child" and issued.child != child_id(made.id, 0, issued.seq):
            raise InvalidUse(
                f"at event {made.position} it waits for execution '{issued.child}', which reports to the original; "
                f"fork before that, or give its outcome: --set '{issued.name}=JSON'"
            )


def note_of(made: Fork, now: float) -> Noted:
    """Where the copy comes from."""
    replaced = f", with another outcome of {', '.join(made.replaced)}" if made.replaced else ""
    return Noted(FORKED, made.of, f"run {made.run} up to event {made.position}{replaced}", at=now)


def pending_of(events: Sequence[Event]) -> dict[int, Issued]:
    """What is issued and not resolved."""
    pending = {event.seq: event for event in events if isinstance(event, Issued)}
    for event in events:
        if isinstance(event, Resolved):
            pending.pop(event.seq, None)
    return pending


def later(events: Sequence[Event], pending: Mapping[int, Issued], now: float) -> Iterator[Event]:
    """The events with what is still to come as far away as it was when the last of them happened."""
    delay = max(0.0, now - events[-1].at)
    for event in events:
        match event:
            case Started(deadline=float(deadline)):
                yield attrs.evolve(event, deadline=deadline + delay)
            case Issued(seq=seq, until=float(until)) if seq in pending:
                yield attrs.evolve(event, until=until + delay)
            case Retried(seq=seq) if seq in pending:
                yield attrs.evolve(event, retry_at=event.retry_at + delay)
            case Began(seq=seq, deadline=float(deadline)) if seq in pending:
                yield attrs.evolve(event, deadline=deadline + delay)
            case _:
                yield event


def as_issued(events: Sequence[Event]) -> list[Event]:
    """The events of a copy with its timers where they were before `later`, for who compares them with the code (R21).

    The note of a fork tells how much later it was made. What was copied again was put off once more.
    """
    told = list(events)
    for end in [n for n, event in enumerate(events) if isinstance(event, Noted) and event.what == FORKED][
        ::-1
    ]:
        delay = max(0.0, told[end].at - told[end - 1].at)
        pending = pending_of(told[:end])
        for n, event in enumerate(told[:end]):
            if isinstance(event, Issued) and event.until is not None and event.seq in pending:
                told[n] = attrs.evolve(event, until=event.until - delay)
    return told
