"""What a store refuses at its edge, before it touches anything (F19, F22).

Rule 1: `check` raises InvalidUse for what can never be stored; nothing of the batch has been written then.
Rule 2: a payload that is too large is not a programming error: it is an outcome, `Rejected("too-large ...")`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import get_args

from zart_core.errors import InvalidUse
from zart_core.events import Status
from zart_core.log import (
    ID_CHARS_MAX,
    PAYLOAD_BYTES_MAX,
    RECORD_BYTES_MAX,
    Mark,
    MessageKind,
    New,
    Post,
    Record,
    Turn,
    Write,
)

NAME_CHARS_MAX = 1024
"""The longest workflow, digest, message name, key, worker or record kind, in characters."""
MESSAGE_KINDS = frozenset(get_args(MessageKind))


def is_id(id: str) -> bool:
    """Tell whether an id can be stored: 1 to 255 printable characters (no NUL, control, surrogate)."""
    return id.isprintable() and 0 < len(id) <= ID_CHARS_MAX


def check(batch: Sequence[Write]) -> None:
    """Raise InvalidUse for the first write that cannot be stored, naming what is wrong with it."""
    for write in batch:
        if type(write) is Turn:
            check_turn(write)
        elif type(write) is New:
            check_new(write)
        elif type(write) is Post:
            check_post(write)
        elif type(write) is Mark:
            check_mark(write)
        else:
            raise InvalidUse(f"a batch holds New, Post, Turn and Mark, not {type(write).__name__}")


def check_turn(turn: Turn) -> None:
    """Check a turn and everything in it."""
    check_id(turn.id)
    check_status(turn.id, turn.status)
    check_times(turn.id, turn.at, turn.wake)
    check_records(turn.id, turn.records)
    if turn.opens is not None:
        check_records(turn.id, turn.opens)
    if turn.opens_as is not None:
        check_name("name to be claimed by", turn.opens_as)
        if turn.opens is None:
            raise InvalidUse(
                f"execution {turn.id!r}: opens_as={turn.opens_as!a:.300} names a run that is not opened"
            )
    for new in turn.creates:
        check_new(new)
    for post in turn.posts:
        check_post(post)


def check_new(new: New) -> None:
    """Check an execution to be created and everything in it; recursive over `creates`."""
    check_id(new.id)
    check_name("workflow", new.workflow)
    check_name("digest", new.digest)
    check_status(new.id, new.status)
    check_times(new.id, new.at, new.wake)
    check_records(new.id, new.records)
    if new.owner is not None:
        check_name("worker", new.owner)
    if new.claimed_as is not None:
        check_name("name to be claimed by", new.claimed_as)
    for child in new.creates:
        check_new(child)
    for post in new.posts:
        check_post(post)


def check_post(post: Post) -> None:
    """Check a message."""
    check_id(post.id)
    check_name("message name", post.name)
    if post.kind not in MESSAGE_KINDS:
        raise InvalidUse(f"a message's kind is one of {sorted(MESSAGE_KINDS)}, not {post.kind!a:.100}")
    check_times(post.id, post.at, None)
    if post.key is not None:
        check_name("key", post.key)


def check_mark(mark: Mark) -> None:
    """Check a mark; one that ends an execution is refused, for only a turn does that (I7)."""
    check_id(mark.id)
    check_status(mark.id, mark.status)
    check_times(mark.id, 0.0, mark.wake)
    if mark.status.closed:
        raise InvalidUse(f"a Mark cannot end an execution ({mark.status}); append a Turn that closes it")


def check_id(id: str) -> None:
    """Raise InvalidUse unless `is_id`."""
    if not is_id(id):
        raise InvalidUse(
            f"the execution id {id[:300]!a} cannot be stored: give 1 to {ID_CHARS_MAX} printable characters "
            f"(it has {len(id)})"
        )


def check_name(what: str, name: str) -> None:
    """Raise InvalidUse unless the name is printable, not empty and at most NAME_CHARS_MAX long."""
    if not name.isprintable() or not 0 < len(name) <= NAME_CHARS_MAX:
        raise InvalidUse(
            f"the {what} {name[:300]!a} cannot be stored: give 1 to {NAME_CHARS_MAX} printable characters "
            f"(it has {len(name)})"
        )


def check_status(id: str, status: Status) -> None:
    """Raise InvalidUse for what only looks like a status: a log that holds another word cannot be read back (F21)."""
    if type(status) is not Status:
        raise InvalidUse(f"execution {id!r}: a status is a zart_core.events.Status, not {status!a:.100}")


def check_times(id: str, at: float, wake: float | None) -> None:
    """Raise InvalidUse for a time that is not a finite number."""
    if not math.isfinite(at) or (wake is not None and not math.isfinite(wake)):
        raise InvalidUse(
            f"execution {id!r}: times are finite numbers of seconds, not at={at!r}, wake={wake!r}"
        )


def check_records(id: str, records: Sequence[Record]) -> None:
    """Raise InvalidUse for a record whose kind or time cannot be stored."""
    isfinite = math.isfinite
    for record in records:
        if not isfinite(record.at):
            raise InvalidUse(f"execution {id!r}: a record's time is a finite number, not {record.at!r}")
        kind = record.kind
        if not kind.isprintable() or not 0 < len(kind) <= NAME_CHARS_MAX:
            raise InvalidUse(f"execution {id!r}: a record's kind is a printable word, not {kind!a:.300}")


def plain(text: str) -> str:
    """Give a free text (a reason, a build) as every store can keep it: NULs and surrogates become U+FFFD."""
    return text.replace("\0", "\ufffd").encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def too_large(write: Write) -> str | None:
    """Say what in the write exceeds its limit, or None (F19)."""
    if type(write) is Mark:
        return None
    if type(write) is Post:
        size = len(write.payload)
        size_max = RECORD_BYTES_MAX if write.kind == "child" else PAYLOAD_BYTES_MAX  # a child's is an event
        return None if size <= size_max else _excess(write.id, "a message", size, size_max)
    assert isinstance(write, (New, Turn))
    for record in write.records:
        if len(record.data) > RECORD_BYTES_MAX:
            return _excess(write.id, f"a {record.kind} record", len(record.data), RECORD_BYTES_MAX)
    if type(write) is Turn and write.opens is not None:
        for record in write.opens:
            if len(record.data) > RECORD_BYTES_MAX:
                return _excess(write.id, f"a {record.kind} record", len(record.data), RECORD_BYTES_MAX)
    if not write.creates and not write.posts:
        return None
    inner: Sequence[Write] = (*write.creates, *write.posts)
    return next((reason for each in inner if (reason := too_large(each))), None)


def _excess(id: str, what: str, size: int, size_max: int) -> str:
    return f"too-large: {what} of {id!r} has {size:,} bytes; at most {size_max:,} are kept"
