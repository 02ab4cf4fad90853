"""A small workload for any store: the same writes each time for a seed, and what may be read after each of them.

    python -m zart_core.testing.probe URL SEED SESSIONS MARKS DURABILITY

carries it out in a process of its own, in sessions, each in a forked child that closes the store or dies; before and
after each append it writes to MARKS how many writes were asked for, and how many are acknowledged.

Rule 1: what has to be found is what the memory store shows after the same writes.
"""

from __future__ import annotations

import contextlib
import os
import random
import sys
from collections.abc import Callable, Sequence
from typing import TypeAlias

from zart_core.errors import StoreFailed, Weather, ZartError
from zart_core.events import Ok, Status
from zart_core.hosts.ports import open_log
from zart_core.log import Appended, EventLog, Mark, New, Post, Record, Summary, Turn, Unknown, Write
from zart_core.records import record

Picture: TypeAlias = tuple[
    tuple[str, str, tuple[tuple[Record, ...], ...], tuple[tuple[int, str, bytes], ...]], ...
]
"""Of each execution: id, status, the records of its runs, its unread messages."""
EXECUTIONS_MAX = 7
AT = 1_700_000_000.0
TRIES_MAX = 4
SIZES = (0, 20, 150, 150, 600, 1500, 9000)
"""Bytes of a payload."""


class ProbeFailed(ZartError):
    """The store did not do what it was asked to, before anything was broken on purpose."""


@record
class Appending:
    """One append: a seed for each write of the batch."""

    seeds: Sequence[int]


@record
class Claiming:
    """A claim, which need not survive a loss of power, and whose writes lie between those that must."""

    limit: int


Op: TypeAlias = Appending | Claiming


@record
class Session:
    """What one process does with the store, and whether it closes it in the end."""

    ops: Sequence[Op]
    closes: bool


def script(seed: int, sessions: int, appends: int = 8) -> list[Session]:
    """Think out a workload; `appends` for each session."""
    chance = random.Random(seed)  # noqa: S311  # repeatable, not secret
    found: list[Session] = []
    for _ in range(sessions):
        ops: list[Op] = []
        for _ in range(appends):
            if chance.random() < 0.2:
                ops.append(Claiming(chance.randint(1, 3)))
            ops.append(Appending([chance.randrange(1 << 32) for _ in range(chance.choice((1, 1, 1, 2, 3)))]))
        found.append(Session(ops, chance.random() < 0.6))
    return found


def batch_of(log: EventLog, op: Appending) -> list[Write]:
    """Give the writes of an append as the log stands; each is for another execution."""
    batch: list[Write] = []
    summaries = list(log.list(limit=100).items)
    for seed in op.seeds:
        item = write_of(log, summaries, random.Random(seed))  # noqa: S311
        summaries = [summary for summary in summaries if summary.id != item.id]
        batch.append(item)
        if isinstance(item, New):
            break
    return batch


def write_of(log: EventLog, summaries: Sequence[Summary], chance: random.Random) -> Write:
    """Give one write that the log will accept."""
    alive = [summary for summary in summaries if not summary.status.closed]
    count = log_size(log)
    if not alive or (count < EXECUTIONS_MAX and chance.random() < 0.25):
        return New(f"e{count:03}", "probe", "digest", records_of(chance), AT)
    it = chance.choice(alive)
    kind = chance.random()
    if kind < 0.2:
        key = chance.choice([None, f"k{chance.randrange(3)}"])
        return Post(it.id, "event", "ready", chance.randbytes(chance.choice((0, 5, 700))), AT, key)
    if kind < 0.3:
        return Mark(it.id, chance.choice([Status.PARKED, Status.WAITING]), "because")
    read = [message.number for message in log.inbox(it.id)][: chance.randint(0, 2)]
    status = chance.choice([Status.WAITING, Status.WAITING, Status.RUNNING])
    if chance.random() < 0.05 and len(alive) > 1:
        status = Status.COMPLETED
    records, opens = records_of(chance), None
    if not status.closed and chance.random() < 0.1:
        status, opens = Status.CONTINUED, records_of(chance)
    return Turn(it.id, it.run, it.position, it.fence, records, AT, status, consumes=read, opens=opens)


def log_size(log: EventLog) -> int:
    """How many executions there are."""
    return sum(log.stats().values())


def records_of(chance: random.Random) -> list[Record]:
    """Some records."""
    return [
        Record("Probed", AT, chance.choice([b"\x80", b"a"]) * chance.choice(SIZES))
        for _ in range(chance.randint(1, 3))
    ]


def picture(log: EventLog) -> Picture:
    """All that a store shows of its executions. Raises what reading raises."""
    return tuple(
        (
            it.id,
            it.status.value,
            tuple(tuple(log.records(it.id, run)) for run in range(it.run + 1)),
            tuple((message.number, message.name, message.payload) for message in log.inbox(it.id)),
        )
        for it in log.list(limit=1000).items
    )


def pictures(sessions: Sequence[Session]) -> list[Picture]:
    """What may be found after each write, by their number; the first is an empty store."""
    log = open_log("memory:")
    found = [picture(log)]
    for session in sessions:
        for op in session.ops:
            if isinstance(op, Appending):
                for item in batch_of(log, op):
                    accepted(log, [item])
                    found.append(picture(log))
    log.close()
    return found


def accepted(log: EventLog, batch: Sequence[Write]) -> None:
    """Append; every write has to be accepted. Raises ProbeFailed."""
    outcomes = log.append(batch)
    if not all(isinstance(outcome, Ok) for outcome in outcomes):
        raise ProbeFailed(f"the store did not accept a write that fits: {outcomes!r:.300}")


def opened(open_: Callable[[], EventLog]) -> EventLog:
    """Open the store, again after bad weather: calls of the system may fail."""
    for _ in range(TRIES_MAX - 1):
        with contextlib.suppress(Weather, StoreFailed):
            return open_()
    return open_()


def settled(open_: Callable[[], EventLog], log: EventLog, op: Appending) -> EventLog:
    """Append what an op asks for while calls of the system fail; gives the log, opened again where it had to be.

    What is Unknown is decided by reading back (I9). Raises ProbeFailed when it never gets through.
    """
    outcomes: Sequence[Appended] = ()
    for _ in range(TRIES_MAX):
        batch, before = batch_of(log, op), picture(log)
        try:
            outcomes = log.append(batch)
        except StoreFailed as failed:
            outcomes = [Unknown(str(failed))]
        if all(isinstance(outcome, Ok) for outcome in outcomes):
            return log
        if any(isinstance(outcome, Unknown) for outcome in outcomes):
            log.close()
            log = opened(open_)
        if picture(log) != before:
            return log
    raise ProbeFailed(f"the store does not accept a write that fits: {outcomes!r:.300}")


def carry_out(
    open_: Callable[[], EventLog], sessions: Sequence[Session], tell: Callable[[str, int], None]
) -> None:
    """Carry out a script, each session in a forked child; `tell` is given "asked" and "acknowledged" counts."""
    count = 0
    for number, session in enumerate(sessions):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                count = work(open_, session, f"probe-{number}", count, tell)
                os.write(writer, b"%d" % count)
                code = 0
            except Exception as error:  # noqa: BLE001  # told, and the end of this process
                print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)  # noqa: T201
            finally:
                os._exit(code)
        os.close(writer)
        said = os.read(reader, 20)
        os.close(reader)
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) or not said:
            raise ProbeFailed(f"session {number} ended with {os.waitstatus_to_exitcode(status)}")
        count = int(said)


def work(
    open_: Callable[[], EventLog], session: Session, worker: str, count: int, tell: Callable[[str, int], None]
) -> int:
    """One session; gives how many writes there are now."""
    log = opened(open_)
    for op in session.ops:
        if isinstance(op, Claiming):
            with contextlib.suppress(Weather):
                log.claim(worker, now=AT, lease_s=3600.0, limit=op.limit)
            continue
        batch = batch_of(log, op)
        tell("asked", count + len(batch))
        log = settled(open_, log, op)
        count += len(batch)
        tell("acknowledged", count)
    if session.closes:
        log.close()
    return count


def main() -> None:
    """Carry out the script that the command line names."""
    url, seed, sessions, marks, durability = sys.argv[1:6]
    fd = os.open(marks, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)

    def tell(what: str, count: int) -> None:
        os.write(fd, f"{what} {count}\n".encode())

    try:
        carry_out(lambda: open_log(url, durability), script(int(seed), int(sessions)), tell)
    except ProbeFailed as failed:
        sys.exit(str(failed))


if __name__ == "__main__":
    main()
