"""What running steps say of their progress: one text beside the log, which a `Mark` carries as its reason (L13).

Rule 1: it is no history: no replay sees it, and nothing depends on it.
Rule 2: a text may outlive the attempts that it speaks of; a reader believes only what the log says is running.
Rule 3: it has a limit, whatever steps say and however many of them run.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from zart_core.codec import Codec
from zart_core.errors import EncodeError, LogCorrupt
from zart_core.events import Began, Event, Resolved, Retried
from zart_core.hosts.ports import StepCall
from zart_core.log import Record, Summary
from zart_core.records import record
from zart_core.wire import opened, sealed

PROGRESS_BYTES_MAX = 4096
"""The largest progress of one step, in bytes of JSON."""
TEXT_BYTES_MAX = 64 << 10
"""The largest sum of what the steps of one execution say, in bytes of JSON; what was said last goes first."""
INTERVAL_S = 3.0
"""How often at the most a host writes down what steps say, in seconds."""


@record
class Progress:
    """What a running attempt said last."""

    attempt: int
    """0 for the first attempt."""
    at: float
    """When it said so, in seconds since the epoch."""
    json: str


class Heartbeat(msgspec.Struct, frozen=True, gc=False):
    """The same at rest, with what tells the attempt from every other."""

    run: int
    seq: int
    attempt: int
    began: float
    """When the attempt began: the time of its `Began`, if it has one on record."""
    at: float
    progress: msgspec.Raw
    """JSON; a text in base64 where it is sealed."""


class Heartbeats(msgspec.Struct, frozen=True):
    """The text."""

    heartbeats: tuple[Heartbeat, ...]


BEGINNING = '{"heartbeats":'


# ---------------------------------------------------------------- writing


def encoded(codec: Codec, call: StepCall, progress: object) -> bytes:
    """What a step says, as JSON. Raises EncodeError for what is no JSON value, and for what is too long."""
    what = f"the progress of step '{call.context.step}'"
    data = codec.encode_message(progress, what)
    if len(data) > PROGRESS_BYTES_MAX:
        raise EncodeError(
            f"{what} has {len(data):,} bytes as JSON, at most {PROGRESS_BYTES_MAX:,} are kept: say how far it is, and "
            "put what it has found so far elsewhere",
            path=what,
        )
    return data


def text_of(codec: Codec, id: str, run: int, said: Iterable[tuple[StepCall, float, bytes]]) -> str:
    """The text for what attempts of one run have said last, and when."""
    heartbeats: list[Heartbeat] = []
    left = TEXT_BYTES_MAX
    for call, at, data in sorted(said, key=lambda one: -one[1]):
        left -= len(data)
        if left >= 0:
            heartbeats.append(heartbeat(codec, id, run, call, at, data))
    return msgspec.json.encode(Heartbeats(tuple(heartbeats))).decode()


def heartbeat(codec: Codec, id: str, run: int, call: StepCall, at: float, data: bytes) -> Heartbeat:
    """One of them; sealed for its place, its attempt and its time where the codec seals."""
    context = call.context
    at = max(at, context.now)  # clocks may go back (F13)
    if codec.seal is not None:
        kind = kind_of(context.attempt, context.now, at)
        secret = sealed(Record(kind, at, data), codec.seal, id, run, call.seq).data
        data = msgspec.json.encode(base64.b64encode(secret).decode())
    return Heartbeat(run, call.seq, context.attempt, context.now, at, msgspec.Raw(data))


def kind_of(attempt: int, began: float, at: float) -> str:
    """What a sealed heartbeat is bound to beside its place."""
    return f"heartbeat {attempt} {began!r} {at!r}"


# ---------------------------------------------------------------- reading


def reason_of(summary: Summary) -> str:
    """Why an execution is parked or paused; empty for one that carries what its steps say instead."""
    return "" if summary.reason.startswith(BEGINNING) else summary.reason


def heartbeats_of(summary: Summary) -> tuple[Heartbeat, ...]:
    """What stands beside the log, whether it is true still or not; empty for any other reason."""
    if not summary.reason.startswith(BEGINNING):
        return ()
    try:
        return msgspec.json.decode(summary.reason, type=Heartbeats).heartbeats
    except (msgspec.DecodeError, RecursionError):  # a person's words, or those of another version
        return ()


def progress_of(summary: Summary, events: Sequence[Event], codec: Codec) -> Mapping[int, Progress]:
    """What the attempts said last that run by the log, by seq. O(n) in the events, if anything was said at all."""
    return believed(summary, attempts_of(events), codec) if summary.reason.startswith(BEGINNING) else {}


def believed(
    summary: Summary, running: Mapping[int, tuple[int, float | None]], codec: Codec
) -> Mapping[int, Progress]:
    """What stands beside the log of the attempts that run, as `attempts_of` gives them."""
    return {
        one.seq: Progress(one.attempt, one.at, json)
        for one in heartbeats_of(summary)
        if one.run == summary.run
        and running.get(one.seq) in ((one.attempt, one.began), (one.attempt, None))
        and (json := json_of(one, summary.id, codec)) is not None
    }


def attempts_of(events: Sequence[Event]) -> dict[int, tuple[int, float | None]]:
    """The attempt that runs or comes next of each step that has begun, and when it began; None while not on record."""
    running: dict[int, tuple[int, float | None]] = {}
    for event in events:
        note_attempt(running, event)
    return running


def note_attempt(running: dict[int, tuple[int, float | None]], event: Event) -> None:
    """Bring what `attempts_of` gives up to date with one event more."""
    match event:
        case Began(seq, attempt):
            running[seq] = (attempt, event.at)
        case Retried(seq, attempt):
            running[seq] = (attempt + 1, None)
        case Resolved(seq):
            running.pop(seq, None)
        case _:
            pass


def json_of(one: Heartbeat, id: str, codec: Codec) -> str | None:
    """What it says; None where it is sealed, and not by this codec for this place."""
    data = bytes(one.progress)
    if codec.seal is None:
        return data.decode()
    kind = kind_of(one.attempt, one.began, one.at)
    try:
        secret = base64.b64decode(msgspec.json.decode(data, type=str), validate=True)
        return opened(Record(kind, one.at, secret), codec.seal, id, one.run, one.seq).data.decode()
    except (ValueError, LogCorrupt):
        return None
