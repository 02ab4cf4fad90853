"""What a frame says: one write of a batch as JSON, and back.

Rule 1: a frame holds the write as it was asked for, but for executions that it does not create since their ids are
        taken; what it did follows from the frames before it, by `zart_stores.rows`, whose answers are so part of the
        format.
Rule 2: bytes that are UTF-8 stand there as text, others as base64; both come back byte for byte (L5).
Rule 3: a field or a kind that is not known is an error, never passed over (F21).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from zart_core.events import Status
from zart_core.log import Mark, MessageKind, New, Post, Record, Turn, Write
from zart_stores.checks import plain


class Line(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """A record."""

    kind: str
    at: float
    text: str = ""
    base64: bytes = b""


class Mail(
    msgspec.Struct, tag_field="write", tag="post", omit_defaults=True, forbid_unknown_fields=True, gc=False
):
    """A message."""

    id: str
    kind: MessageKind
    name: str
    at: float
    text: str = ""
    base64: bytes = b""
    key: str | None = None


class Birth(msgspec.Struct, tag_field="write", tag="new", omit_defaults=True, forbid_unknown_fields=True):
    """A new execution."""

    id: str
    workflow: str
    digest: str
    at: float
    status: Status
    records: list[Line]
    wake: float | None = None
    owner: str | None = None
    creates: list[Birth] = []
    posts: list[Mail] = []
    claimed_as: str | None = None


class Step(msgspec.Struct, tag_field="write", tag="turn", omit_defaults=True, forbid_unknown_fields=True):
    """A turn."""

    id: str
    run: int
    position: int
    fence: int
    at: float
    status: Status
    records: list[Line]
    wake: float | None = None
    seen: int = 0
    consumes: list[int] = []
    opens: list[Line] | None = None
    creates: list[Birth] = []
    posts: list[Mail] = []
    releases: bool = False
    opens_as: str | None = None


class Note(msgspec.Struct, tag_field="write", tag="mark", omit_defaults=True, forbid_unknown_fields=True):
    """What stands beside the log."""

    id: str
    status: Status
    reason: str = ""
    build: str = ""
    wake: float | None = None
    seen: int = 0
    fence: int | None = None
    releases: bool = False


class Closed(msgspec.Struct, tag_field="write", tag="closed", omit_defaults=True, forbid_unknown_fields=True):
    """A clean end, with fences that have grown since they were last on record (I6)."""

    fences: dict[str, int] = {}


Body = Mail | Birth | Step | Note | Closed


class BirthRecords(msgspec.Struct, tag_field="write", tag="new"):
    """The records of a new execution, and of its children."""

    id: str
    records: list[Line]
    creates: list[BirthRecords] = []


class StepRecords(msgspec.Struct, tag_field="write", tag="turn"):
    """The records of a turn, and of what it creates."""

    id: str
    run: int
    records: list[Line]
    opens: list[Line] | None = None
    creates: list[BirthRecords] = []


class MailRecords(msgspec.Struct, tag_field="write", tag="post"):
    """A message has none."""


class NoteRecords(msgspec.Struct, tag_field="write", tag="mark"):
    """Nor has a mark."""


class ClosedRecords(msgspec.Struct, tag_field="write", tag="closed"):
    """Nor has a clean end."""


def _bare(value: object) -> str | float:
    """Give what the codec takes in place of a text or a number of a class of its own, such as numpy's."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, int):
        return int.__int__(value)
    raise TypeError(f"{value!a:.100} of type {type(value).__name__} cannot be written")


_encoder = msgspec.json.Encoder(enc_hook=_bare)
_decoder: msgspec.json.Decoder[Body] = msgspec.json.Decoder(Body)
_records_decoder = msgspec.json.Decoder(
    BirthRecords | StepRecords | MailRecords | NoteRecords | ClosedRecords
)
"""Reads what `decode` has accepted before, when the log was opened, or `encode` has written: records alone (Rule 3)."""
TOO_DEEP = "it is nested too deep"


def encode(write: Write) -> bytes:
    """Give a write as the body of a frame."""
    return _encoder.encode(_body(write))


def encode_closed(fences: Mapping[str, int]) -> bytes:
    """Give the body of a footer."""
    return _encoder.encode(Closed({str.__str__(id): fence for id, fence in fences.items()}))


def decode(body: bytes) -> Write | Closed:
    """Give the write that a frame holds. Raises ValueError for what is malformed or not known."""
    try:
        found = _decoder.decode(body)
    except RecursionError as error:
        raise ValueError(TOO_DEEP) from error
    match found:
        case Closed():
            return found
        case Birth():
            return _new(found)
        case Mail():
            return _post(found)
        case Step():
            return _turn(found)
        case _:
            return Mark(
                found.id,
                found.status,
                found.reason,
                found.build,
                found.wake,
                found.seen,
                found.fence,
                found.releases,
            )


def records_of(bodies: Iterable[bytes], id: str, run: int) -> list[Record]:
    """Give the records that frames added to a run: the writes' own, those they opened, those they created.

    Raises ValueError for what is malformed or not known. One loop for all frames: that takes two thirds of the time.
    """
    records: list[Record] = []
    load, add = _records_decoder.decode, records.append
    try:
        for body in bodies:
            found = load(body)
            lines: list[Line] | None
            if type(found) is StepRecords and found.run == run and found.id == id:  # nearly all
                lines = found.records
            else:
                lines = _lines_of(found, id, run) if isinstance(found, (BirthRecords, StepRecords)) else None
            for line in lines or ():
                add(Record(line.kind, line.at, line.base64 or line.text.encode()))
    except RecursionError as error:
        raise ValueError(TOO_DEEP) from error
    return records


def _lines_of(body: BirthRecords | StepRecords, id: str, run: int) -> list[Line] | None:
    if isinstance(body, BirthRecords):
        if body.id == id and run == 0:
            return body.records
    elif body.id == id and body.run + 1 == run:
        return body.opens
    for child in body.creates:
        if (lines := _lines_of(child, id, run)) is not None:
            return lines
    return None


# ---------------------------------------------------------------- to JSON


def _body(write: Write) -> Body:
    if type(write) is Turn:
        return Step(
            write.id,
            write.run,
            write.position,
            write.fence,
            write.at,
            write.status,
            _to_lines(write.records),
            write.wake,
            write.seen,
            list(write.consumes),
            None if write.opens is None else _to_lines(write.opens),
            [_birth(new) for new in write.creates] if write.creates else [],
            [_mail(post) for post in write.posts] if write.posts else [],
            write.releases,
            write.opens_as,
        )
    if type(write) is New:
        return _birth(write)
    if type(write) is Post:
        return _mail(write)
    assert type(write) is Mark
    return Note(
        write.id,
        write.status,
        plain(write.reason),
        plain(write.build),
        write.wake,
        write.seen,
        write.fence,
        write.releases,
    )


def _birth(new: New) -> Birth:
    return Birth(
        new.id,
        new.workflow,
        new.digest,
        new.at,
        new.status,
        _to_lines(new.records),
        new.wake,
        new.owner,
        [_birth(child) for child in new.creates],
        [_mail(post) for post in new.posts],
        new.claimed_as,
    )


def _mail(post: Post) -> Mail:
    text, base64 = _to_text(post.payload)
    return Mail(post.id, post.kind, post.name, post.at, text, base64, post.key)


def _to_lines(records: Sequence[Record]) -> list[Line]:
    try:
        return [Line(record.kind, record.at, record.data.decode()) for record in records]
    except UnicodeDecodeError:
        return [Line(record.kind, record.at, *_to_text(record.data)) for record in records]


def _to_text(data: bytes) -> tuple[str, bytes]:
    try:
        return data.decode(), b""
    except UnicodeDecodeError:
        return "", data


# ---------------------------------------------------------------- from JSON


def _records(lines: Sequence[Line]) -> list[Record]:
    return [Record(line.kind, line.at, line.base64 or line.text.encode()) for line in lines]


def _post(mail: Mail) -> Post:
    return Post(mail.id, mail.kind, mail.name, mail.base64 or mail.text.encode(), mail.at, mail.key)


def _new(birth: Birth) -> New:
    return New(
        birth.id,
        birth.workflow,
        birth.digest,
        _records(birth.records),
        birth.at,
        birth.status,
        birth.wake,
        birth.owner,
        [_new(child) for child in birth.creates],
        [_post(mail) for mail in birth.posts],
        birth.claimed_as,
    )


def _turn(step: Step) -> Turn:
    return Turn(
        step.id,
        step.run,
        step.position,
        step.fence,
        _records(step.records),
        step.at,
        step.status,
        step.wake,
        step.seen,
        step.consumes,
        None if step.opens is None else _records(step.opens),
        [_new(birth) for birth in step.creates],
        [_post(mail) for mail in step.posts],
        step.releases,
        step.opens_as,
    )
