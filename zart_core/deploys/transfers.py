"""Executions out of a log and into another one.

Rule 1: taking one out reads only; putting one in refuses an id that is taken.
Rule 2: what comes in is paused until all of it is there, and stays so unless it is told to go on: a copy of a running
        execution would repeat its steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import attrs

from zart_core.codec import Codec
from zart_core.deploys.histories import History
from zart_core.errors import ExecutionConflict, InvalidUse, StoreUnavailable, UnknownExecution
from zart_core.events import Closed, Delivered, Event, Ok, Started, Status
from zart_core.hosts.progress import reason_of
from zart_core.hosts.relatives import digest_of
from zart_core.interpreter import CODEC
from zart_core.log import EventLog, Mark, New, Post, Turn, Write
from zart_core.workflows import claim_name

RECORDS_PER_TURN = 1000
WORKER = "import"
IMPORTED = "imported"


def export_history(log: EventLog, id: str, codec: Codec | None = None) -> History:
    """All there is of an execution, as of now. Raises UnknownExecution and LogCorrupt. O(n) in its events."""
    while True:
        summary = log.summary(id)
        if summary is None:
            raise UnknownExecution(id, f"no execution has the id '{id}'; zart list shows those there are")
        runs = [
            (codec or CODEC).decode_events(log.records(id, run), id, run) for run in range(summary.run + 1)
        ]
        inbox = log.inbox(id)
        later = log.summary(id)
        if later is not None and (later.run, later.position, later.status) == (
            summary.run,
            len(runs[-1]),
            summary.status,
        ):
            return History(id, summary.workflow, summary.status, reason_of(summary), runs, inbox)


def import_history(
    log: EventLog, history: History, *, go_on: bool = False, codec: Codec | None = None
) -> Status:
    """Put an execution into a log, event for event, and give the status that it has there.

    Args:
        log: where to.
        history: what to put there.
        go_on: let an unfinished one go on here: its steps without an outcome run in this store too, and one whose
            start was put off begins at its time. Otherwise it stays paused.
        codec: in place of a plain one.

    Raises ExecutionConflict when the id is taken, InvalidUse for a scrubbed one that is to go on, StoreUnavailable.
    """
    if go_on and history.scrubbed:
        raise InvalidUse(f"'{history.id}' was scrubbed; it cannot go on with data that was replaced")
    if log.summary(history.id) is not None:
        raise taken(history.id)
    own = codec or CODEC
    (created,) = log.append([creation_of(history, own)])
    if not isinstance(created, Ok) or not created.value.created:
        raise taken(history.id)
    for posts, turn in turns_of(history, own):
        numbers = [written(log, post) for post in posts]
        written(log, attrs.evolve(turn, consumes=numbers, seen=max(numbers, default=0)))
    first, last = history.runs[0][0], history.runs[-1][-1]
    if isinstance(last, Closed):
        return last.status
    for message in history.inbox:
        written(log, Post(history.id, message.kind, message.name, message.payload, message.at, message.key))
    if not go_on:
        status, reason, wake = Status.PAUSED, IMPORTED, None
    elif last is first:
        status, reason, wake = Status.SCHEDULED, "", first.at
    else:
        status, reason, wake = Status.WAITING, "", 0.0
    written(log, Mark(history.id, status, reason, wake=wake, fence=1, releases=True))
    return status


def written(log: EventLog, write: Write) -> int:
    """Write one thing, and give the number of a message. Raises StoreUnavailable."""
    (outcome,) = log.append([write])
    if isinstance(outcome, Ok):
        return outcome.value.number
    raise StoreUnavailable(
        f"'{write.id}' could not be put into the store: {outcome.reason}; what is there of it is paused"
    )


def taken(id: str) -> ExecutionConflict:
    """The id belongs to another execution, or to this one."""
    return ExecutionConflict(id, f"the store has an execution '{id}' already; it was left as it is")


def creation_of(history: History, codec: Codec) -> New:
    """The execution with the first event of its first run, paused and held."""
    first = history.runs[0][0]
    assert isinstance(first, Started)
    return New(
        history.id,
        history.workflow,
        digest_of(codec, first),
        codec.encode_events([first], history.id),
        math.nextafter(first.at, -math.inf),  # asked for before its start: what was put off stays so
        Status.PAUSED,
        wake=None,
        owner=WORKER,
        claimed_as=claim_name(first.workflow, first.version),
    )


def turns_of(history: History, codec: Codec) -> Iterator[tuple[list[Post], Turn]]:
    """The turns of all runs behind the first event, with the keyed messages they consume, so that keys stay known."""
    id = history.id
    for run, events in enumerate(history.runs):
        for start, part in parts(events):
            last = part[-1]
            following = (
                history.runs[run + 1][0] if isinstance(last, Closed) and run + 1 < len(history.runs) else None
            )
            posts = [
                Post(id, "event", event.event, event.payload, event.at, event.key)
                for event in part
                if isinstance(event, Delivered) and event.key is not None
            ]
            turn = Turn(
                id,
                run,
                start,
                1,
                codec.encode_events(part, id, run, start),
                last.at,
                last.status if isinstance(last, Closed) else Status.PAUSED,
                opens=None if following is None else codec.encode_events([following], id, run + 1),
                opens_as=claim_name(following.workflow, following.version)
                if isinstance(following, Started)
                else None,
            )
            yield posts, turn


def parts(events: Sequence[Event]) -> list[tuple[int, Sequence[Event]]]:
    """What follows the first event of a run, in pieces with their positions."""
    return [(a, events[a : a + RECORDS_PER_TURN]) for a in range(1, len(events), RECORDS_PER_TURN)]
