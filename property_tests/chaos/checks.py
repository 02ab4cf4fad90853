"""What must be so when the faults have stopped and everything has ended, as far as logs, journal and audit can tell.

Rule 1: each check is of an invariant's number (RELIABILITY) and yields what is wrong, in words.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

import zart_core as zart
from property_tests.chaos import flows
from property_tests.chaos.audit import Change, takes, zombies
from zart_core.errors import Defect
from zart_core.hosts.offers import is_offered, with_offers
from zart_core.interpreter import CODEC
from zart_core.log import EventLog, Message, Post, Summary
from zart_core.testing import invariants
from zart_core.testing.invariants import offered_in
from zart_core.testing.replaying import replay_strictly
from zart_core.testing.witness import Key, Played

FROM_THE_LOG = {
    "I2": invariants.positions_and_times,
    "I7": invariants.nothing_after_the_end,
    "I11": invariants.one_outcome,
    "I14": invariants.timers_hold,
    "I15": invariants.events_are_taken_once,
    "I17": invariants.interrupted_once,
}
"""Those of the engine's invariants that need nothing but a log and what was sent."""


@attrs.define
class Seen:
    """All that is known of a round after its end."""

    summaries: dict[str, Summary]
    histories: dict[Key, list[zart.Event]]
    inboxes: dict[str, list[Message]]
    changes: Sequence[Change]
    journal: Sequence[Mapping[str, Any]]
    started: Mapping[str, tuple[str, int]]
    """Shape and number of what was started, by id; acknowledged, all of it."""
    sent: Sequence[Post]
    """What was sent and acknowledged, in order."""
    read_back: Counter[tuple[str, str]]
    """How often a process said that it reads an execution back: (id, app)."""


def read(log: EventLog) -> tuple[dict[str, Summary], dict[Key, list[zart.Event]], dict[str, list[Message]]]:
    """Everything that a log holds, verified. Raises LogCorrupt."""
    log.verify()
    summaries: dict[str, Summary] = {}
    after = None
    while True:
        page = log.list(limit=500, after=after)
        summaries.update({item.id: item for item in page.items})
        after = page.next
        if after is None:
            break
    histories: dict[Key, list[zart.Event]] = {
        (id, run): list(CODEC.decode_events(log.records(id, run), id, run))
        for id, summary in summaries.items()
        for run in range(summary.run + 1)
    }
    return summaries, histories, {id: log.inbox(id) for id in summaries}


def violations(seen: Seen) -> Iterator[str]:
    """All that is wrong."""
    yield from zombies(seen.changes)
    for id in seen.started:
        if id not in seen.summaries:
            yield f"I1: the start of '{id}' was acknowledged, and it is not there"
    registry = with_offers(zart.Registry(flows.ALL), CODEC)
    for id, summary in seen.summaries.items():
        yield from of_one(seen, id, summary, registry)
    yield from of_results(seen)
    yield from of_effects(seen)


def of_one(seen: Seen, id: str, summary: Summary, registry: zart.Registry) -> Iterator[str]:
    """What the log of one execution says by itself; and its histories replay strictly (I16, P1)."""
    if not summary.status.closed:
        yield f"I18: '{id}' does not end: it is {summary.status} {summary.reason}"
    alone = played(seen, id, summary)
    for number, check in FROM_THE_LOG.items():
        for wrong in check(alone):
            yield f"{number}: {wrong}"
    for (of, run), history in seen.histories.items():
        if of == id:
            try:
                replay_strictly(registry.of(history[0]), history, CODEC)  # type: ignore[arg-type]  # Started: I2
            except Defect as defect:
                yield f"I16: '{id}' (run {run}) does not replay: {defect}"


def played(seen: Seen, id: str, summary: Summary) -> Played:
    """One execution as the checks of the test kit see it."""
    posts = [post for post in seen.sent if post.id == id]
    return Played(
        schedule=(),
        outcome="",
        status=summary.status,
        value=None,
        error=None,
        histories={key: history for key, history in seen.histories.items() if key[0] == id},
        summaries=[summary],
        calls=[],
        deaths=[],
        lost=[],
        early=[],
        offered=posts,
        sent=posts,
        resources={},
        unread=[message.key for message in seen.inboxes[id]],
        passed=[],
        unreached=(),
        elapsed_s=0.0,
    )


def of_results(seen: Seen) -> Iterator[str]:
    """I10: every result is the one that is known beforehand; I17: compensation in reverse order; R10: lost or done."""
    for id, (shape, n) in seen.started.items():
        if id not in seen.summaries:
            continue
        history = seen.histories[id, seen.summaries[id].run]
        found, wanted = ending(history[-1]), flows.EXPECTED[shape](n)
        if found != wanted and not (shape == "careful" and found == flows.LOST):
            yield f"I10: '{id}' gave {found!r}, not {wanted!r}"
        undone = [event.name for event in history if isinstance(event, zart.Issued) and "undo" in event.name]
        if undone not in ([], ["undo-2", "undo-1"]):
            yield f"I17: '{id}' was compensated in the order {undone}"


def ending(event: zart.Event) -> Any:
    """How a run ended, as JSON."""
    match event:
        case zart.Closed(status=zart.Status.COMPLETED):
            return json.loads(event.payload) if event.payload else None
        case zart.Closed(status=zart.Status.CANCELLED):
            return "cancelled: enough"
        case other:
            return repr(other)


def of_effects(seen: Seen) -> Iterator[str]:
    """I12, I13, R10: begun because the log asks for it, again only by who took the execution up again, one key each."""
    issued = {
        (id, run, event.name)
        for (id, run), history in seen.histories.items()
        for event in history
        if isinstance(event, zart.Issued)
    }
    taken = takes(seen.changes)
    elsewhere = {
        (id, run, event.name): offered[event.seq]
        for (id, run), history in seen.histories.items()
        if (offered := offered_in(history))
        for event in history
        if isinstance(event, zart.Issued) and event.seq in offered
    }
    begins = Counter(
        (line["id"], line["run"], line["step"], line["attempt"], f"life-{line['life']}")
        for line in seen.journal
        if line["phase"] == "begin"
    )
    for (id, run, step, attempt, app), count in begins.items():
        if (id, run, step) not in issued:
            yield f"I13: '{step}' of '{id}' ran, and the log does not know that it was asked for"
        held = elsewhere.get((id, run, step), id)
        allowed = taken[held, app] + seen.read_back[held, app]
        if count > allowed:
            yield (
                f"I12: attempt {attempt} of '{step}' of '{id}' was begun {count} times by {app}, "
                f"which took it {taken[held, app]} times and read it back {seen.read_back[held, app]} times"
            )
    keys: dict[tuple[Any, ...], set[str]] = defaultdict(set)
    ended: set[tuple[Any, ...]] = set()
    for line in seen.journal:
        place = (line["id"], line["run"], line["step"])
        keys[place].add(line["key"])
        if line["phase"] == "end":
            ended.add((*place, json.dumps(line["value"])))
    for place, found in keys.items():
        if len(found) > 1:
            yield f"a step was given two idempotency keys: {place}"
    yield from of_outcomes(seen, ended)
    careful = Counter(place[:3] for place in begins.elements() if place[2].startswith("only-once"))
    for place, count in careful.items():
        if count > 1:
            yield f"R10: {place} may run at most once and was begun {count} times"


def of_outcomes(seen: Seen, ended: set[tuple[Any, ...]]) -> Iterator[str]:
    """I12: each value on record is one that the step gave; R5: only what may run once is ever lost."""
    for (id, run), history in seen.histories.items():
        if is_offered(seen.summaries[id].workflow):  # what it came to is on record where it belongs
            continue
        names = {
            event.seq: event.name
            for event in history
            if isinstance(event, zart.Issued) and event.kind == "step"
        }
        for event in history:
            if not isinstance(event, zart.Resolved) or event.seq not in names:
                continue
            name = names[event.seq]
            match event.outcome:
                case zart.Done(payload):
                    if (id, run, name, json.dumps(json.loads(payload))) not in ended:
                        yield f"I12: '{name}' of '{id}' has an outcome that it never gave"
                case zart.Failed(failure) if failure.kind == "lost" and not name.startswith("only-once"):
                    yield f"R5: '{name}' of '{id}' was lost, and any number of crashes is allowed"
                case _:
                    pass
