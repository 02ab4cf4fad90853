"""Events as records, and back: what stands in a log, byte for byte (F21, F26).

Rule 1: a record is one line of JSON, then, when there is a payload, a newline and the payload as it is.
Rule 2: payloads are never looked into.
Rule 3: whatever the bytes, decoding gives an event, `LogCorrupt` or `FormatTooNew`, in linear time.

A line is decoded into a msgspec Struct and that into the event: 0.34 + 0.1 us for an Issued, 0.7 us an event with all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from sys import intern
from typing import Any, Literal, Protocol

import msgspec

from zart_core.errors import EncodeError, FormatTooNew, LogCorrupt, StoreUnavailable
from zart_core.events import (
    SEMANTICS,
    Began,
    Cancellation,
    Closed,
    CommandKind,
    Delivered,
    Done,
    Event,
    Failed,
    Failure,
    FailureKind,
    Interrupted,
    Issued,
    Noted,
    Outcome,
    Parent,
    Resolved,
    Retried,
    Site,
    Started,
    Status,
    Taken,
)
from zart_core.log import Record


class Seal(Protocol):
    """Encryption of records, with a key that the log does not have; docs/rules.md, Security, says what is no record.

    `associated` names the record's place, so that no record can be moved to another one.
    """

    def seal(self, data: bytes, associated: bytes) -> bytes:
        """Encrypt and authenticate."""
        ...

    def open(self, data: bytes, associated: bytes) -> bytes:
        """The inverse. Raises anything when the data or its place is not what was sealed.

        An OSError, from here as from `seal`, says no more than that the key cannot be had just now: it is tried again.
        """
        ...


# ---------------------------------------------------------------- the line of JSON, per event


class Head(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """An event's fields without its time and payload. Defaults are left out, so they must never change."""


class FailureHead(Head):
    """A failure, with its causes."""

    kind: FailureKind
    type: str
    message: str
    traceback: str = ""
    fields: str | None = None
    attempts: int = 0
    cause: FailureHead | None = None


class StartedHead(Head):
    """Of `Started`; the parent is [id, run, seq]."""

    id: str
    run: int
    workflow: str
    deadline: float | None = None
    parent: tuple[str, int, int] | None = None
    semantics: int = 1
    version: int = 1


class IssuedHead(Head):
    """Of `Issued`; the site is [module, qualname, line]."""

    seq: int
    kind: CommandKind
    name: str
    of: str = ""
    until: float | None = None
    child: str | None = None
    site: tuple[str, str, int] | None = None


class BeganHead(Head):
    """Of `Began`."""

    seq: int
    attempt: int
    takeover: int | None = None
    deadline: float | None = None


class RetriedHead(Head):
    """Of `Retried`."""

    seq: int
    attempt: int
    failure: FailureHead
    retry_at: float


class ResolvedHead(Head):
    """Of `Resolved`: one of failed, taken and cancelled is there; or none, and the payload is the value."""

    seq: int
    failed: FailureHead | None = None
    taken: int | None = None
    cancelled: str | None = None
    held: bool = False


class DeliveredHead(Head):
    """Of `Delivered`."""

    n: int
    event: str
    key: str | None = None
    held: bool = False


class InterruptedHead(Head):
    """Of `Interrupted`."""

    by: Literal["cancel", "deadline"]
    reason: str = ""
    held: bool = False


class ClosedHead(Head):
    """Of `Closed`."""

    status: Status
    failure: FailureHead | None = None


class NotedHead(Head):
    """Of `Noted`."""

    what: str
    who: str = ""
    why: str = ""


# ---------------------------------------------------------------- to records


_dump = msgspec.json.Encoder().encode


def _failure_head(f: Failure) -> FailureHead:
    cause = _failure_head(f.cause) if f.cause else None
    return FailureHead(f.kind, f.type, f.message, f.traceback, f.fields, f.attempts, cause)


def _started_data(e: Started) -> bytes:
    parent = (e.parent.id, e.parent.run, e.parent.seq) if e.parent else None
    head = StartedHead(e.id, e.run, e.workflow, e.deadline, parent, e.semantics, e.version)
    return _dump(head) + b"\n" + e.payload


def _issued_data(e: Issued) -> bytes:
    site = (e.site.module, e.site.qualname, e.site.line) if e.site else None
    line = _dump(IssuedHead(e.seq, e.kind, e.name, e.of, e.until, e.child, site))
    return line + b"\n" + e.payload if e.payload else line


def _began_data(e: Began) -> bytes:
    if e.takeover is None and e.deadline is None:  # nearly all: half a microsecond instead of one and a half
        return b'{"seq":%d,"attempt":%d}' % (e.seq, e.attempt)
    return _dump(BeganHead(e.seq, e.attempt, e.takeover, e.deadline))


def _retried_data(e: Retried) -> bytes:
    return _dump(RetriedHead(e.seq, e.attempt, _failure_head(e.failure), e.retry_at))


def _resolved_data(e: Resolved) -> bytes:
    outcome = e.outcome
    if isinstance(outcome, Done) and not e.held:  # nearly all, as above
        return b'{"seq":%d}\n%b' % (e.seq, outcome.payload)
    match outcome:
        case Done(payload):
            return _dump(ResolvedHead(e.seq, held=e.held)) + b"\n" + payload
        case Failed(failure):
            return _dump(ResolvedHead(e.seq, _failure_head(failure), held=e.held))
        case Taken(n):
            return _dump(ResolvedHead(e.seq, taken=n, held=e.held))
        case _:
            return _dump(ResolvedHead(e.seq, cancelled=outcome.reason, held=e.held))


def _delivered_data(e: Delivered) -> bytes:
    return _dump(DeliveredHead(e.n, e.event, e.key, e.held)) + b"\n" + e.payload


def _interrupted_data(e: Interrupted) -> bytes:
    return _dump(InterruptedHead(e.by, e.reason, e.held))


def _closed_data(e: Closed) -> bytes:
    line = _dump(ClosedHead(e.status, _failure_head(e.failure) if e.failure else None))
    return line + b"\n" + e.payload if e.payload else line


def _noted_data(e: Noted) -> bytes:
    return _dump(NotedHead(e.what, e.who, e.why))


_WRITERS: dict[type, tuple[str, Callable[[Any], bytes]]] = {
    Started: ("Started", _started_data),
    Issued: ("Issued", _issued_data),
    Began: ("Began", _began_data),
    Retried: ("Retried", _retried_data),
    Resolved: ("Resolved", _resolved_data),
    Delivered: ("Delivered", _delivered_data),
    Interrupted: ("Interrupted", _interrupted_data),
    Closed: ("Closed", _closed_data),
    Noted: ("Noted", _noted_data),
}


def encode_events(events: Sequence[Event]) -> list[Record]:
    """The records of events. Raises EncodeError for text that is none; the edge refuses it (F22)."""
    records: list[Record] = []
    kind = ""
    try:
        for event in events:
            kind, data_of = _WRITERS[type(event)]
            records.append(Record(kind, event.at, data_of(event)))
    except ValueError:
        raise EncodeError(f"{kind} holds text with a lone surrogate", path=kind) from None
    return records


# ---------------------------------------------------------------- from records


def _failure(h: FailureHead) -> Failure:
    cause = _failure(h.cause) if h.cause else None
    return Failure(h.kind, h.type, h.message, h.traceback, h.fields, h.attempts, cause)


def _started(h: StartedHead, at: float, payload: bytes) -> Started:
    if h.semantics > SEMANTICS:
        raise FormatTooNew(f"written with semantics {h.semantics}; this version knows {SEMANTICS}")
    parent = h.parent and Parent(*h.parent)
    workflow = intern(h.workflow)  # thousands of runs say the same
    return Started(h.id, h.run, workflow, payload, at, h.deadline, parent, h.semantics, h.version)


def _issued(h: IssuedHead, at: float, payload: bytes) -> Issued:
    site = _site(h.site) if h.site else None
    return Issued(h.seq, h.kind, h.name, at, intern(h.of), payload, h.until, h.child, site)


@lru_cache(4096)
def _site(place: tuple[str, str, int]) -> Site:
    """A run has many commands from one place: they share it, which halves the memory of a history."""
    return Site(*place)


def _began(h: BeganHead, at: float) -> Began:
    return Began(h.seq, h.attempt, h.takeover, h.deadline, at=at)


def _retried(h: RetriedHead, at: float) -> Retried:
    return Retried(h.seq, h.attempt, _failure(h.failure), h.retry_at, at)


def _resolved(h: ResolvedHead, at: float, payload: bytes | None) -> Resolved:
    outcomes: list[Outcome] = []
    if payload is not None:
        outcomes.append(Done(payload))
    if h.failed is not None:
        outcomes.append(Failed(_failure(h.failed)))
    if h.taken is not None:
        outcomes.append(Taken(h.taken))
    if h.cancelled is not None:
        outcomes.append(Cancellation(h.cancelled))
    if len(outcomes) != 1:
        raise LogCorrupt(f"{len(outcomes)} outcomes")
    return Resolved(h.seq, outcomes[0], at, h.held)


def _delivered(h: DeliveredHead, at: float, payload: bytes) -> Delivered:
    return Delivered(h.n, h.event, payload, at, h.key, h.held)


def _interrupted(h: InterruptedHead, at: float) -> Interrupted:
    return Interrupted(h.by, at, h.reason, h.held)


def _closed(h: ClosedHead, at: float, payload: bytes) -> Closed:
    return Closed(h.status, at, payload, _failure(h.failure) if h.failure else None)


def _noted(h: NotedHead, at: float) -> Noted:
    return Noted(h.what, h.who, h.why, at=at)


def _reader(
    head: type[Head], make: Callable[..., Event], payload: Literal["none", "may", "must", "own"]
) -> Any:
    load = msgspec.json.Decoder(head).decode

    def read_without(at: float, data: bytes) -> Event:
        if b"\n" in data:
            raise LogCorrupt("a payload where there is none")
        return make(load(data), at)

    def read_own(at: float, data: bytes) -> Event:
        line, newline, rest = data.partition(b"\n")
        return make(load(line), at, rest if newline else None)

    def read(at: float, data: bytes) -> Event:
        line, newline, rest = data.partition(b"\n")
        if not newline and payload == "must":
            raise LogCorrupt("the payload is missing")
        return make(load(line), at, rest)

    return {"none": read_without, "own": read_own}.get(payload, read)


READERS: dict[str, Callable[[float, bytes], Event]] = {
    "Started": _reader(StartedHead, _started, "must"),
    "Issued": _reader(IssuedHead, _issued, "may"),
    "Began": _reader(BeganHead, _began, "none"),
    "Retried": _reader(RetriedHead, _retried, "none"),
    "Resolved": _reader(ResolvedHead, _resolved, "own"),
    "Delivered": _reader(DeliveredHead, _delivered, "must"),
    "Interrupted": _reader(InterruptedHead, _interrupted, "none"),
    "Closed": _reader(ClosedHead, _closed, "may"),
    "Noted": _reader(NotedHead, _noted, "none"),
}
"""How each kind of event is read, whatever it holds."""


_TROUBLE = (msgspec.MsgspecError, LogCorrupt, KeyError, ValueError, TypeError, AttributeError, RecursionError)


# ---------------------------------------------------------------- from records, in the ordinary case

_load_issued = msgspec.json.Decoder(IssuedHead).decode
_load_began = msgspec.json.Decoder(BeganHead).decode
_load_resolved = msgspec.json.Decoder(ResolvedHead).decode
_SITE = b',"site":'
"""What stands before the last field of an Issued's line; no text in JSON holds it, as a quote there is escaped."""


class SiteHead(Head):
    """That field alone."""

    site: tuple[str, str, int]


class Sites(dict[bytes, Site]):
    """What was read behind `_SITE`, and the site that it is: few, where commands are many."""

    def __missing__(self, end: bytes) -> Site:
        """Read one that is new."""
        self[end] = site = _site(msgspec.json.decode(b"{" + _SITE[1:] + end, type=SiteHead).site)
        return site


def decode_events(records: Sequence[Record], id: str = "", run: int = 0, start: int = 0) -> list[Event]:
    """The events of records, the first of which stands at `start`. Raises LogCorrupt or FormatTooNew.

    A step leaves an Issued, a Began and a Resolved, and most logs hold little else. What is ordinary of them is read
    right here, in three quarters of the time that READERS take, who read everything else, to the same events.
    """
    events: list[Event] = []
    add, sites = events.append, Sites()
    try:
        for record in records:
            kind, at, data = record.kind, record.at, record.data
            if type(at) is not float:
                raise LogCorrupt("its time is not a float")
            if kind == "Resolved":
                line, newline, payload = data.partition(b"\n")
                end = _load_resolved(line)
                if newline and end.failed is None and end.taken is None and end.cancelled is None:
                    add(Resolved(end.seq, Done(payload), at, end.held))
                    continue
            elif kind == "Issued":
                line, _, payload = data.partition(b"\n")
                front, there, rest = line.rpartition(_SITE)
                if there:
                    try:  # where both parts are an object each, the line is one, with the fields of both
                        h, site = _load_issued(front + b"}"), sites[rest]
                    except _TROUBLE:
                        pass  # of the whole line, if it is any
                    else:
                        add(Issued(h.seq, h.kind, h.name, at, intern(h.of), payload, h.until, h.child, site))
                        continue
            elif kind == "Began" and b"\n" not in data:
                began = _load_began(data)
                add(Began(began.seq, began.attempt, began.takeover, began.deadline, at=at))
                continue
            add(READERS[kind](at, data))
    except _TROUBLE as error:
        raise _corrupt(records[len(events)], place(id, run, start + len(events)), error) from None
    return events


def place(id: str, run: int, position: int) -> str:
    """Where a record stands, for people."""
    return f"event {position} of run {run} of '{id}'"


def _corrupt(record: Record, where: str, error: Exception) -> LogCorrupt:
    kind, data = str(record.kind)[:40], record.data
    family, text = LogCorrupt, str(error) or type(error).__name__
    if isinstance(error, KeyError):
        family, text = FormatTooNew, f"this version knows no {kind!r}"
    elif isinstance(error, FormatTooNew) or "unknown field" in text or "Invalid enum value" in text:
        family = FormatTooNew
    found = f"{len(data)} bytes" if isinstance(data, bytes) else type(data).__name__
    return family(f"{where} cannot be read: {text}", where=where, expected=kind, found=found)


# ---------------------------------------------------------------- sealed


def _associated(id: str, run: int, position: int, kind: str) -> bytes:
    return f"{run}:{position}:{kind}:{id}".encode("utf-8", "surrogatepass")


def sealed(record: Record, seal: Seal, id: str, run: int, position: int) -> Record:
    """The record with its data encrypted for its place; kind and time stay readable."""
    return Record(record.kind, record.at, seal.seal(record.data, _associated(id, run, position, record.kind)))


def opened(record: Record, seal: Seal, id: str, run: int, position: int) -> Record:
    """The inverse. Raises LogCorrupt when the seal is broken, StoreUnavailable when its key cannot be had just now."""
    try:
        data = seal.open(record.data, _associated(id, run, position, str(record.kind)))
    except Exception as error:
        where, kind = place(id, run, position), type(error).__name__
        if isinstance(error, OSError):
            raise StoreUnavailable(f"the seal of {where} cannot be opened: {kind}: {error}") from error
        raise LogCorrupt(f"the seal of {where} is broken: {kind}", where=where) from error
    return Record(record.kind, record.at, data)
