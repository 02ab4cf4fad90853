"""What a store keeps of an execution beside its records, and what each write does to it.

The same for every store, so that the same script gives the same history on each (I21).

Rule 1: no I/O and no lock; a store loads rows, calls `write`, and saves what changed in one commit.
Rule 2: whatever can refuse a write is asked before anything of that write is changed; so a refused one leaves
        nothing behind and hinders no other of its batch (L6).
Rule 3: times are kept as floats without a negative zero (`+ 0.0`), as every database gives them back.
Rule 4: `due` is derived: nothing but the row says when an execution needs attention (L10).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

import attrs

from zart_core.events import CLOSED, Ok, Status
from zart_core.log import (
    Appended,
    Mark,
    Message,
    New,
    Post,
    Receipt,
    Record,
    Rejected,
    Summary,
    Turn,
    Unknown,
    Write,
)
from zart_stores.checks import plain, too_large

NEVER_GIVEN = CLOSED | {Status.PAUSED}


@attrs.define
class Row:
    """One execution; `write` and its parts change it, a store keeps it."""

    key: int
    """The store's own number of it."""
    id: str
    workflow: str
    digest: str
    created_at: float
    status: Status
    owner: str | None
    wake: float | None
    run: int
    position: int
    fence: int
    updated_at: float
    given: bool
    """A worker was told that it is due and has not answered by a turn or a mark: it is not due again."""
    seen: int
    posted: int
    """The greatest message number that was handed out."""
    top: int
    """The greatest number of a message that is not consumed; 0 when there is none."""
    unread: int
    reason: str = ""
    build: str = ""
    claimed_as: str | None = None


class Tables(Protocol):
    """What `write` needs of a store: rows by id, and places for what a write adds."""

    def find(self, id: str) -> Row | None:
        """Look an execution up."""
        ...

    def insert(self, new: New) -> Row:
        """Make the row of a new execution, by `new_row`."""
        ...

    def add_records(self, row: Row, records: Sequence[Record]) -> None:
        """Keep records of the row's run, from its position on; the caller moves the position afterwards."""
        ...

    def end_run(self, row: Row) -> None:
        """End the row's run at its position; another follows."""
        ...

    def number_of(self, row: Row, key: str) -> int | None:
        """Give the number of the message that came with this key, consumed or not; None when it is new."""
        ...

    def add_message(self, row: Row, message: Message) -> None:
        """Keep a message, and its key for the life of the execution (R14)."""
        ...

    def missing(self, row: Row, numbers: Collection[int]) -> int | None:
        """Find one of these numbers that is not an unconsumed message; None when all are."""
        ...

    def consume(self, row: Row, numbers: Collection[int]) -> int:
        """Take messages out of the inbox; gives the greatest number that is left, or 0."""
        ...

    def changed(self, row: Row) -> None:
        """Note that the row is to be saved."""
        ...


def due(row: Row) -> float | None:
    """Tell when the execution needs attention: 0.0 for at once, None for not at all (L10)."""
    if row.given or row.status in NEVER_GIVEN:
        return None
    if row.top > row.seen:
        return 0.0
    return row.wake


def claim_name(row: Row) -> str:
    """Give the name that workers claim it by."""
    return row.workflow if row.claimed_as is None else row.claimed_as


def summary(row: Row) -> Summary:
    """Show the row as a caller sees it."""
    return Summary(
        row.id,
        row.workflow,
        row.digest,
        row.status,
        row.run,
        row.position,
        row.fence,
        row.created_at,
        row.updated_at,
        row.wake,
        row.owner,
        row.reason,
        row.build,
        row.unread,
        row.claimed_as,
    )


# ---------------------------------------------------------------- writes


_DONE: Ok[Receipt] = Ok(Receipt())


def write(tables: Tables, item: Write) -> Appended:
    """Carry out one write of a batch, or refuse it. The parent decides here; the rest computes."""
    if large := too_large(item):
        return Rejected(large)
    row = tables.find(item.id)
    answer = judge(tables, row, item)
    return carry_out(tables, row, item) if answer is None else answer


def judge(tables: Tables, row: Row | None, item: Write) -> Appended | None:
    """Give the answer to a write that changes nothing, refused or done before; None to one that goes on."""
    if type(item) is New:
        return _judge_new(row, item)
    if row is None:
        return Rejected(f"unknown: no execution {item.id!r}")
    if row.status in CLOSED:
        return Rejected(f"closed: execution {item.id!r} has ended as {row.status}")
    if type(item) is Turn:
        return _judge_turn(tables, row, item)
    if type(item) is Post:
        return _judge_post(tables, row, item)
    assert type(item) is Mark
    if item.fence is not None and item.fence != row.fence:
        return Rejected(f"stale: execution {item.id!r} has fence {row.fence}; the mark has {item.fence}")
    return None


def not_kept(outcomes: Sequence[Appended], failed: Rejected | Unknown) -> list[Appended]:
    """Answer for a batch that was not committed, or may not be: what was refused is, and all else has failed.

    A refusal that tells what an execution has come to may rest on a write of that very batch, so it has failed too.
    """
    return [
        each if isinstance(each, Rejected) and not each.reason.startswith(("closed", "conflict")) else failed
        for each in outcomes
    ]


def _judge_turn(tables: Tables, row: Row, turn: Turn) -> Rejected | None:
    if row.position != turn.position or row.fence != turn.fence or row.run != turn.run:
        return Rejected(
            f"stale: execution {turn.id!r} stands at run {row.run}, position {row.position}, fence "
            f"{row.fence}; the turn was built at run {turn.run}, position {turn.position}, fence {turn.fence}"
        )
    if turn.consumes and (gone := tables.missing(row, set(turn.consumes))) is not None:
        return Rejected(f"stale: message {gone} of {turn.id!r} is not in the inbox")
    return None


def _judge_post(tables: Tables, row: Row, post: Post) -> Ok[Receipt] | None:
    number = None if post.key is None else tables.number_of(row, post.key)
    return None if number is None else Ok(Receipt(created=False, number=number))


def _judge_new(row: Row | None, new: New) -> Appended | None:
    if row is None:
        return None
    if row.workflow == new.workflow and row.digest == new.digest:
        return Ok(Receipt(created=False, number=row.run))
    return Rejected(
        f"conflict: execution {new.id!r} exists, as {row.workflow!r} with digest {row.digest!r}; "
        f"{new.workflow!r} with digest {new.digest!r} was to be created"
    )


def carry_out(tables: Tables, row: Row | None, item: Write) -> Ok[Receipt]:
    """Do what `too_large` and `judge` have nothing against."""
    if type(item) is New:
        return _do_new(tables, item)
    assert row is not None
    if type(item) is Turn:
        return _do_turn(tables, row, item)
    if type(item) is Post:
        return _do_post(tables, row, item)
    assert type(item) is Mark
    return _do_mark(tables, row, item)


def _do_turn(tables: Tables, row: Row, turn: Turn) -> Ok[Receipt]:
    if turn.consumes:
        numbers = set(turn.consumes)
        row.top = tables.consume(row, numbers)
        row.unread -= len(numbers)
    if turn.records:
        tables.add_records(row, turn.records)
        row.position += len(turn.records)
    if turn.opens is not None:
        tables.end_run(row)
        row.run += 1
        row.position = 0
        tables.add_records(row, turn.opens)
        row.position = len(turn.opens)
        row.claimed_as = turn.opens_as
    status = turn.status if turn.opens is None else _status_after(turn)
    _answer(row, status, turn.wake, turn.seen, turn.releases)
    row.updated_at = turn.at + 0.0
    tables.changed(row)
    if not turn.creates and not turn.posts:
        return _DONE
    conflicts = _follow(tables, turn.creates, turn.posts)
    return Ok(Receipt(conflicts=conflicts)) if conflicts else _DONE


def _status_after(turn: Turn) -> Status:
    """Tell run and execution apart where a turn opens one: a closed status is the old run's alone."""
    return Status.SCHEDULED if turn.status in CLOSED else turn.status


def _answer(row: Row, status: Status, wake: float | None, seen: int, releases: bool) -> None:
    """Do what a turn and a mark have in common. A reason stays as long as the status does."""
    if status is not row.status:
        row.status = status
        row.reason = row.build = ""
    row.seen = min(max(seen, 0), row.posted) if seen else 0
    row.given = False
    row.wake = None if wake is None else wake + 0.0
    if status in CLOSED:
        row.owner = row.wake = None
    elif releases or row.owner is None:
        free(row)


def _do_mark(tables: Tables, row: Row, mark: Mark) -> Ok[Receipt]:
    _answer(row, mark.status, mark.wake, mark.seen, mark.releases)
    row.reason, row.build = plain(mark.reason), plain(mark.build)
    tables.changed(row)
    return _DONE


def _do_post(tables: Tables, row: Row, post: Post) -> Ok[Receipt]:
    row.posted += 1
    tables.add_message(row, Message(row.posted, post.kind, post.name, post.payload, post.at, post.key))
    row.top = row.posted
    row.unread += 1
    row.given = False
    tables.changed(row)
    return Ok(Receipt(number=row.posted))


def _do_new(tables: Tables, new: New) -> Ok[Receipt]:
    row = tables.insert(new)
    tables.add_records(row, new.records)
    row.position = len(new.records)
    tables.changed(row)
    conflicts = _follow(tables, new.creates, new.posts) if new.creates or new.posts else ()
    return Ok(Receipt(fence=row.fence, conflicts=conflicts))


def _follow(tables: Tables, creates: Sequence[New], posts: Sequence[Post]) -> tuple[str, ...]:
    """Do what goes along in the same commit; give the ids that were taken by something else."""
    conflicts: list[str] = []
    for new in creates:
        answer = _judge_new(tables.find(new.id), new) or _do_new(tables, new)
        if isinstance(answer, Ok):
            conflicts += answer.value.conflicts
        else:
            conflicts.append(new.id)
    for post in posts:
        row = tables.find(post.id)
        if judge(tables, row, post) is None:
            carry_out(tables, row, post)
    return tuple(conflicts)


def new_row(key: int, new: New) -> Row:
    """Make the row of a new execution. With an owner it counts as given if it is due at once."""
    owned = new.owner is not None
    row = Row(
        key=key,
        id=new.id,
        workflow=new.workflow,
        digest=new.digest,
        created_at=new.at + 0.0,
        status=new.status,
        owner=new.owner,
        wake=None if new.wake is None else new.wake + 0.0,
        run=0,
        position=0,
        fence=1 if owned else 0,
        updated_at=new.at + 0.0,
        given=owned and new.wake is not None and new.wake <= new.at,
        seen=0,
        posted=0,
        top=0,
        unread=0,
        claimed_as=new.claimed_as,
    )
    if new.status in CLOSED:
        row.owner = row.wake = None
        row.given = False
    elif not owned:
        free(row)
    return row


# ---------------------------------------------------------------- claims


def give(row: Row, worker: str) -> None:
    """Give it to the worker, who so learns that it is due (L8)."""
    take(row, worker)
    row.given = True


def ungive(row: Row) -> None:
    """Make it due again by what it waits for: who was given it may not have been told."""
    row.given = False


def take(row: Row, worker: str) -> None:
    """Make it the worker's; the fence grows when it passes from another hand, or from none (I6)."""
    if row.owner != worker:
        row.fence += 1  # first: nobody ever holds it with a fence that another one had
        row.owner = worker


def free(row: Row) -> None:
    """Make it nobody's. Steps that were in flight have nobody to end them: then it is due at once."""
    if row.status is Status.RUNNING:
        row.wake = 0.0  # first: nobody's and never due would be lost
    row.given = False
    row.owner = None


def void(row: Row) -> None:
    """Take it from a holder that is dead or late: due at once also if it was given and not answered."""
    if row.given:
        row.wake = 0.0
    free(row)
