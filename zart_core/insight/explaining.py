"""What an execution waits for: at which line, since when, until when, and who can end the wait with which command.

Rule 1: read from the log alone, beside workers and without the code; nothing is claimed or written, no payload shown
        but what running steps say of their progress.
Rule 2: a wait that nobody can end as things stand is said to be one.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from difflib import get_close_matches

import attrs

from zart_core.codec import Codec
from zart_core.errors import LogCorrupt
from zart_core.events import (
    Began,
    Closed,
    Delivered,
    Event,
    Failed,
    Failure,
    Interrupted,
    Noted,
    Resolved,
    Site,
    Started,
    Status,
)
from zart_core.hosts.explain import StepLine, moment, steps_of, words_of
from zart_core.hosts.offers import is_offered, queue_of
from zart_core.hosts.progress import Progress, heartbeats_of, progress_of, reason_of
from zart_core.hosts.turns import UNOBSERVED
from zart_core.insight.sources import Place, place_of, raised_at
from zart_core.insight.values import duration, shortened
from zart_core.log import EventLog, Message, Shared, Summary
from zart_core.policies import seconds
from zart_core.queues import Places, is_place, places_of, said_of
from zart_core.records import record

OVERDUE_S = 2.0
"""How long something may be due before nobody is said to be taking it up."""
RUNS_READ_MAX = 100
"""Earlier runs that are read for events that were sent to them."""
SHOWN_MAX = 20
"""Waits that are told one by one."""


@record
class Circumstances:
    """All that is read to explain an execution."""

    summary: Summary
    events: Sequence[Event]
    """Of the current run."""
    inbox: Sequence[Message] = ()
    children: Mapping[str, Summary] = {}
    """Those that it waits for, as far as they are there."""
    workers: int | None = None
    """How many workers hold a lease in the log; None where it cannot say."""
    progress: Mapping[int, Progress] = {}
    """What running steps said last, by seq; those too that other workers have taken."""
    places: Mapping[str, Places] = {}
    """Slots of the queues that its steps wait for."""
    sent_before: Collection[str] = frozenset()
    """Of the events that it waits for, those that earlier runs were sent."""


@record
class Awaited:
    """One thing that an execution waits for. Times are seconds since the epoch."""

    kind: str
    name: str
    state: str
    site: Site | None
    place: Place | None
    """The line in the source as it is now, where it was found."""
    since: float
    until: float | None
    """When time ends it, in one way or another."""
    what: str
    ends: str
    """Who can end it, and how."""
    hopeless: str = ""
    """Why nobody will, as things stand; empty where somebody may."""
    progress: Progress | None = None
    """What a running step said last."""


@record
class Explanation:
    """Where an execution stands, and why."""

    id: str
    workflow: str
    run: int
    status: Status
    head: str
    reason: tuple[str, ...]
    """Why it is parked, paused or has failed, in several lines."""
    waits: tuple[Awaited, ...]
    notes: tuple[str, ...]
    hopeless: bool
    """Whether nothing but a person's act will let it go on."""


def circumstances(log: EventLog, codec: Codec, summary: Summary) -> Circumstances:
    """Read what explains an execution. O(n) in its events."""
    events = codec.decode_events(log.records(summary.id, summary.run), summary.id, summary.run)
    lines = [line for line in steps_of(events) if line.ended_at is None]
    waited = [line.event for line in lines if line.kind == "child" or line.state == "offered"]
    found = {child: log.summary(child) for child in waited}
    children = {child: one for child, one in found.items() if one is not None}
    workers = log.others("") if isinstance(log, Shared) else None
    progress = dict(progress_of(summary, events, codec))
    for line in lines:
        taken = children.get(line.event) if line.state == "offered" else None
        if taken is not None and heartbeats_of(taken):
            theirs = codec.decode_events(log.records(taken.id, taken.run), taken.id, taken.run)
            for said in progress_of(taken, theirs, codec).values():  # its one step
                progress[line.seq] = said
    queues = {queue_of(one.workflow) for one in children.values() if is_offered(one.workflow)}
    queues |= {line.event for line in lines if line.state == "queued"}
    places = {queue: places_of(log, queue) for queue in sorted(queues)}
    waited = [line.event for line in lines if line.kind == "event" and line.until is None]
    before = sent_before(log, codec, summary, set(waited) - events_in(events))
    return Circumstances(summary, events, log.inbox(summary.id), children, workers, progress, places, before)


def sent_before(log: EventLog, codec: Codec, summary: Summary, names: Collection[str]) -> Collection[str]:
    """Which of these events were sent to earlier runs, from the last one back until all are found.

    All of them where that cannot be told: a run is damaged, or there are more than RUNS_READ_MAX.
    """
    left = set(names)
    if summary.run > RUNS_READ_MAX:
        return names
    try:
        for run in reversed(range(summary.run if left else 0)):
            left -= events_in(codec.decode_events(log.records(summary.id, run), summary.id, run))
            if not left:
                break
    except LogCorrupt:  # of an earlier run; the one that is explained is whole
        return names
    return set(names) - left


def events_in(history: Sequence[Event]) -> set[str]:
    """The names of events that were sent to a run, and taken in."""
    return {event.event for event in history if isinstance(event, Delivered)}


def explanation(
    given: Circumstances,
    *,
    now: float,
    registered: Collection[str] | None = None,
    store: str = "",
    sources: bool = False,
) -> Explanation:
    """Say where it stands.

    Args:
        given: what was read.
        now: the time, in seconds since the epoch.
        registered: names of the workflows that this process has; None where it runs none.
        store: the URL to put into command lines; left out when empty.
        sources: look for each line in the source as it is now.
    """
    summary, events = given.summary, given.events
    last = events[-1] if events else None
    head = f"execution '{summary.id}' of workflow '{summary.workflow}', run {summary.run}, is "
    if isinstance(last, Closed):
        status = last.status
        reason = tuple(reasons_of_end(last, events, sources))
        return Explanation(
            id=summary.id,
            workflow=summary.workflow,
            run=summary.run,
            status=status,
            head=head + ending(last),
            reason=reason,
            waits=(),
            notes=tuple(notes_of_end(given)),
            hopeless=False,
        )
    lines = [line for line in steps_of(events) if line.ended_at is None]
    gone = registered is None and given.workers == 0 and summary.owner is not None
    if gone:  # its name still stands there
        given = attrs.evolve(given, summary=attrs.evolve(summary, owner=None))
    parked = reason_of(summary)
    teller = Teller(given, now, store, sources)
    waits = tuple(teller.awaited(line) for line in lines)
    stopped = tuple(stops(given, now, registered, gone))
    return Explanation(
        id=summary.id,
        workflow=summary.workflow,
        run=summary.run,
        status=summary.status,
        head=f"{head}{summary.status}{': ' + first_of(parked) if parked else ''}",
        reason=tuple(parked.splitlines()[1:]),
        waits=waits,
        notes=(*stopped, *notes(given, teller, waits)),
        hopeless=bool(stopped) or (bool(waits) and all(one.hopeless for one in waits)),
    )


def ending(closed: Closed) -> str:
    """How it ended, in words."""
    since = f"{closed.status} since {moment(closed.at)}"
    return since if closed.failure is None else f"{since}: {words_of(closed.failure)}"


def reasons_of_end(closed: Closed, events: Sequence[Event], sources: bool) -> Iterator[str]:
    """Which command failed, and where its error was raised."""
    if closed.failure is None:
        return
    failed = [line for line in steps_of(events) if line.state == "failed"]
    place = raised_at(deepest(closed.failure).traceback)
    if failed:
        line = failed[-1]
        tries = f" after {line.attempts} attempts" if line.attempts > 1 else ""
        where = f" at {line.site}" if line.site is not None else ""
        yield f"the last that failed was {line.kind} '{line.name}'{where}{tries}: {line.error}"
        if sources and (found := place_of(line.site)) is not None:
            yield f"  {found}: {found.source}"
        place = raised_at(deepest(failure_of(events, line.seq) or closed.failure).traceback) or place
    if place is not None:
        yield f"raised at {place}, in {place.function}: {place.source}"


def failure_of(events: Sequence[Event], seq: int) -> Failure | None:
    """The recorded failure of a command."""
    for event in reversed(events):
        if isinstance(event, Resolved) and event.seq == seq and isinstance(event.outcome, Failed):
            return event.outcome.failure
    return None


def deepest(failure: Failure) -> Failure:
    """What caused a failure in the first place."""
    while failure.cause is not None:
        failure = failure.cause
    return failure


def first_of(text: str) -> str:
    """The first line of a text."""
    return text.splitlines()[0] if text else ""


def command(name: str, id: str, store: str, *arguments: str) -> str:
    """A command line that a person may copy."""
    return shlex.join(["zart", name, id, *arguments, *(["--store", store] if store else [])])


# ---------------------------------------------------------------- why nothing goes on


def stops(given: Circumstances, now: float, registered: Collection[str] | None, gone: bool) -> Iterator[str]:
    """Why nobody takes it up, whatever it waits for."""
    summary = given.summary
    match summary.status:
        case Status.PARKED:
            build = f" It was parked by build {summary.build}." if summary.build else ""
            yield (
                f"nothing but code that fits lets it go on: mend it, deploy, and it goes on by itself.{build} "
                f"zart check MODULE tells beforehand, zart debug {shlex.quote(summary.id)} MODULE shows where"
            )
            return
        case Status.PAUSED:
            if is_place(summary.workflow):
                yield "it is a slot of a queue with limits, which workers take and give back, and never ends"
                return
            yield (
                "it is paused, and no worker takes it up, nor any message to it; "
                f"zart fork {shlex.quote(summary.id)} MODULE makes a copy that goes on"
            )
            return
        case _:
            pass
    if registered is not None and summary.workflow not in registered and summary.owner is None:
        yield f"this process has not registered workflow '{summary.workflow}'; another one has to take it up"
    if gone:
        yield (
            f"its worker is gone, and none holds a lease in this store: one that has registered '{summary.workflow}' "
            "takes it up, such as zart worker MODULE"
        )
        return
    due = due_since(given)
    if summary.owner is None and due is not None and now - due > OVERDUE_S:
        yield (
            f"it has been due since {moment(due)} and no worker has taken it up: none is running, "
            f"or none has registered workflow '{summary.workflow}'"
        )


def due_since(given: Circumstances) -> float | None:
    """Since when somebody should have taken it up; None when it is not due by time, nor by a message it waits for."""
    summary = given.summary
    wake = summary.updated_at if summary.wake == 0.0 else summary.wake
    wanted = {line.event for line in steps_of(given.events) if line.kind == "event" and line.ended_at is None}
    posted = [message.at for message in given.inbox if message.kind != "event" or message.name in wanted]
    return min([*posted, *([] if wake is None else [wake])], default=None)


# ---------------------------------------------------------------- what it waits for


class Teller:
    """Puts waits into words."""

    def __init__(self, given: Circumstances, now: float, store: str, sources: bool) -> None:
        self.id = given.summary.id
        self.given = given
        self.now = now
        self.store = store
        self.sources = sources
        self.diverged = given.summary.status is Status.PARKED and given.summary.reason.startswith("Diverged")
        self.sent = events_in(given.events) | set(given.sent_before)
        self.posted = Counter(message.name for message in given.inbox if message.kind == "event")
        self.deadlines = {event.seq: event.deadline for event in given.events if isinstance(event, Began)}
        started = given.events[0] if given.events else None
        self.told_to_end = next((event for event in given.events if isinstance(event, Interrupted)), None)
        self.deadline = (
            started.deadline if isinstance(started, Started) and self.told_to_end is None else None
        )

    def awaited(self, line: StepLine) -> Awaited:
        """One wait."""
        until = line.until if line.until is not None else self.deadlines.get(line.seq)
        what, ends, hopeless = self.told(line, until)
        # the source at hand is not that of the record, where it is known not to fit
        place = place_of(line.site) if self.sources and not self.diverged else None
        progress = self.given.progress.get(line.seq)
        if progress is not None:
            what += f"; {words_of_progress(progress, self.now)}"
        return Awaited(
            line.kind,
            line.name,
            line.state,
            line.site,
            place,
            line.issued_at,
            until,
            what,
            ends,
            hopeless,
            progress,
        )

    def told(self, line: StepLine, until: float | None) -> tuple[str, str, str]:
        """What it is, who can end it, and why nobody will."""
        at = f" at {line.site}" if line.site is not None else ""
        since = f", since {moment(line.issued_at)}"
        till = f", until {moment(until)}" if until is not None else ""
        match line.kind:
            case "event":
                ends, hopeless = self.sender(line, until)
                return f"waits for event '{line.event}' ({line.name}){at}{since}{till}", ends, hopeless
            case "sleep":
                return f"sleeps ({line.name}){at}{since}{till}", "time ends it", ""
            case "child":
                ends, hopeless = self.child(line)
                return f"waits for execution '{line.event}' ({line.name}){at}{since}", ends, hopeless
            case "step" if line.state == "retrying":
                times = "once" if line.attempts == 1 else f"{line.attempts} times"
                what = f"step '{line.name}'{at} failed {times}, last with {line.error}"
                return what, self.again(line.until or 0.0), ""
            case "step" if line.state == "offered":
                return f"step '{line.name}'{at} is where any worker may take it{since}", self.taker(line), ""
            case "step" if line.state == "queued":
                what = f"step '{line.name}'{at} waits for room in queue '{line.event}'{since}"
                return what, self.room(line.event) or "a worker begins it", ""
            case "step" if line.state == "running" and self.given.summary.owner is None:
                what = f"step '{line.name}'{at} began, attempt {line.attempts}{since}{till}"
                return what, "the worker that ran it is gone; the next one to take it up begins it again", ""
            case "step" if line.state == "running":
                return (
                    f"step '{line.name}'{at} runs, attempt {line.attempts}{since}{till}",
                    "its outcome ends it",
                    "",
                )
            case _:
                return f"{line.kind} '{line.name}'{at} is next to run{since}", "a worker begins it", ""

    def again(self, due: float) -> str:
        """When a retry begins, or what it waits for: its beginning is not on record."""
        if due > self.now:
            return f"next attempt at {moment(due)}"
        ends = "a worker makes it" if self.given.summary.owner is None else "its outcome ends it"
        return f"its next attempt was due at {moment(due)}, and {ends}"

    def taker(self, line: StepLine) -> str:
        """Who has an offered step, or who may take it."""
        offered = self.given.children.get(line.event)
        if offered is None:
            return "it is not there yet; a worker that takes this execution up puts it there"
        queue = queue_of(offered.workflow)
        if offered.status in (Status.PARKED, Status.PAUSED):
            return f"its own execution '{offered.id}' is {offered.status}: {first_of(offered.reason)}"
        if offered.owner is None and offered.position <= 1:
            takes = f"a worker that serves queue '{queue}' and has the step registered takes it"
            room = self.room(queue)
            return f"{takes}; {room}" if room else takes
        look = command("explain", offered.id, self.store)
        return f"a worker of queue '{queue}' has taken it, and its outcome ends it: {look}"

    def room(self, queue: str) -> str:
        """Who has the slots of a queue, and when the next of its steps may begin; empty where it has no limits."""
        places = self.given.places.get(queue)
        said = None if places is None else said_of(queue, places)
        if places is None or said is None:
            return ""
        parts: list[str] = []
        if said.limit is not None:
            taken = [one for _, one in sorted(places.slots.items()) if one.owner is not None]
            parts.append(f"{said.limit} may run at once over all workers, and {len(taken)} slots are taken")
            parts += [
                f"worker {one.owner} has one, for {one.reason or 'the next'}" for one in taken[:SHOWN_MAX]
            ]
        if said.rate is not None:
            rested = min((one.wake or 0.0 for one in places.rate.values()), default=0.0)
            next_at = f", the next at {moment(rested)}" if rested > self.now else ""
            parts.append(f"{said.rate} may begin in {seconds(said.per):g} s{next_at}")
        return "; ".join(parts)

    def sender(self, line: StepLine, until: float | None) -> tuple[str, str]:
        """Who can send an event, and whether somebody ever has."""
        if self.posted[line.event]:
            taker = {
                Status.PARKED: "it is taken once the code fits",
                Status.PAUSED: "it is taken when it goes on",
            }.get(self.given.summary.status, "a worker takes it")
            return f"one is in its inbox, sent but not taken so far: {taker}{self.otherwise(until)}", ""
        ends = f"anybody can send it: {command('send', self.id, self.store, line.event, 'JSON')}"
        like = get_close_matches(line.event, [name for name in self.posted if name != line.event], 1)
        if like:
            ends += f" ('{like[0]}' was sent: was '{line.event}' meant?)"
        if until is None and self.deadline is None and line.event not in self.sent:
            return ends, "it has no deadline, and no such event was ever sent to it"
        return ends + self.otherwise(until), ""

    def otherwise(self, until: float | None) -> str:
        """What time does, should nobody else."""
        return "" if until is None else "; else the workflow gets EventTimedOut then"

    def child(self, line: StepLine) -> tuple[str, str]:
        """How another execution stands that has to end first."""
        child = self.given.children.get(line.event)
        look = command("explain", line.event, self.store)
        if child is None:
            return "it is not there yet; a worker that takes this one up creates it", ""
        if child.status.closed:
            return f"that one is {child.status}; a worker that takes this one up brings its outcome", ""
        if child.status in (Status.PARKED, Status.PAUSED):
            why = f"that one is {child.status}: {first_of(child.reason)}".removesuffix(": ")
            return f"that one's end ends it: {look}", why
        return f"that one is {child.status}, and its end ends it: {look}", ""


def words_of_progress(progress: Progress, now: float) -> str:
    """What a step said last, and how long ago."""
    return f"{duration(now - progress.at)} ago it said {shortened(progress.json)}"


def notes(given: Circumstances, teller: Teller, waits: Sequence[Awaited]) -> Iterator[str]:
    """What else is worth knowing."""
    summary = given.summary
    begins = put_off(given, teller.now)
    if begins is not None:
        yield f"its start was put off: it begins at {moment(begins)}"
    elif not waits and summary.status not in (Status.PARKED, Status.PAUSED):
        yield f"it waits for a worker that has registered '{summary.workflow}'"
    if teller.deadline is not None:
        yield f"its deadline is {moment(teller.deadline)}"
    if teller.told_to_end is not None:
        yield told_to_end(teller.told_to_end)
    yield from untaken(given, "so far")
    if waits and all(one.hopeless for one in waits):
        yield f"it waits for ever unless somebody acts; {command('cancel', summary.id, teller.store)} would end it"


def notes_of_end(given: Circumstances) -> Iterator[str]:
    """What nobody would hear of: errors that nobody waited for, and messages that were never taken (R12, R14, R24)."""
    for event in given.events:
        if isinstance(event, Noted) and event.what == UNOBSERVED:
            yield f"at its end it was noted: {event.why}"
    yield from untaken(given, "and never will be")


def untaken(given: Circumstances, when: str) -> Iterator[str]:
    """What was accepted and not taken (R14)."""
    summary = given.summary
    if summary.unread:
        posted = Counter(message.name for message in given.inbox if message.kind == "event")
        asked = [f"a request to {one.kind}" for one in given.inbox if one.kind in ("cancel", "terminate")]
        events = [f"{count} '{name}'" for name, count in posted.most_common(SHOWN_MAX)]
        named = f": {', '.join([*asked, *events])}" if asked or events else ""
        messages = "1 message is" if summary.unread == 1 else f"{summary.unread:,} messages are"
        yield f"{messages} in its inbox, not taken {when}{named}"


def told_to_end(event: Interrupted) -> str:
    """Since when it is to end: no deadline ends it after that (R16)."""
    if event.by == "deadline":
        return f"its deadline passed at {moment(event.at)}, and no other ends it"
    why = f": {event.reason}" if event.reason else ""
    return f"its cancellation was asked for at {moment(event.at)}{why}; no deadline ends it any more"


def put_off(given: Circumstances, now: float) -> float | None:
    """When an execution begins whose start was put off, and is still to come; None for any other."""
    first, summary = given.events[0] if given.events else None, given.summary
    if not isinstance(first, Started) or summary.run > 0 or len(given.events) > 1:
        return None
    later = summary.status is Status.SCHEDULED and summary.created_at < first.at and now < first.at
    return first.at if later else None


def lines_of(told: Explanation) -> Iterator[str]:
    """An explanation as lines of text; the first says how it stands."""
    yield told.head
    yield from (f"  {line}" for line in told.reason)
    for one in told.waits[:SHOWN_MAX]:
        hopeless = f"; {one.hopeless}" if one.hopeless else ""
        yield f"  {one.what}; {one.ends}{hopeless}"
        if one.place is not None:
            yield f"    {one.place}: {one.place.source}"
    if len(told.waits) > SHOWN_MAX:
        yield f"  and {len(told.waits) - SHOWN_MAX:,} more"
    yield from (f"  {note}" for note in told.notes)
