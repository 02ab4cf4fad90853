"""Stores with one defect each: small relays in front of a store that keeps its promises, or that store slightly wrong.

Rule 1: a docstring says what is wrong, and begins with the promises that the contract must find broken.
"""

from __future__ import annotations

import itertools
import pickle
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from zart_core.errors import InvalidUse, LogCorrupt
from zart_core.events import CLOSED, Ok, Status
from zart_core.log import (
    PAYLOAD_BYTES_MAX,
    RECORD_BYTES_MAX,
    Appended,
    EventLog,
    Mark,
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
from zart_core.testing import Relay


class Broken(Relay):
    """A relay that knows which store object is the same log."""

    durable = False


# ---------------------------------------------------------------- appends


class NotAtomic(Broken):
    """L1: what a turn creates is written before the turn is known to go through."""

    def append(self, batch: Sequence[Write]) -> list[Appended]:
        for item in batch:
            if isinstance(item, Turn) and item.creates:
                self.log.append(list(item.creates))
        return self.log.append(batch)


class PostsApart(Broken):
    """L1: the messages of a turn are posted though it was rejected."""

    def append(self, batch: Sequence[Write]) -> list[Appended]:
        outcomes = self.log.append(batch)
        for item, outcome in zip(batch, outcomes, strict=True):
            if isinstance(item, Turn) and not isinstance(outcome, Ok):
                self.log.append(list(item.posts))
        return outcomes


class IgnoresPosition(Broken):
    """L2: a turn is appended wherever the log ends."""

    def append(self, batch: Sequence[Write]) -> list[Appended]:
        return [self.one(item) for item in batch]

    def one(self, item: Write) -> Appended:
        found = self.log.summary(item.id)
        if isinstance(item, Turn) and found is not None and item.run == found.run:
            item = attrs.evolve(item, position=found.position)
        return self.log.append([item])[0]


class IgnoresFence(Broken):
    """L2, L8: a turn goes through whoever holds the execution now."""

    def append(self, batch: Sequence[Write]) -> list[Appended]:
        return [self.one(item) for item in batch]

    def one(self, item: Write) -> Appended:
        found = self.log.summary(item.id)
        if isinstance(item, Turn) and found is not None:
            item = attrs.evolve(item, fence=found.fence)
        return self.log.append([item])[0]


class ChecksBeforeTheLock(Broken):
    """L2: position and fence are checked first, and the write takes the lock only then."""

    barrier = threading.Barrier(2)

    def append(self, batch: Sequence[Write]) -> list[Appended]:
        return [self.one(item) for item in batch]

    def one(self, item: Write) -> Appended:
        found = self.log.summary(item.id)
        if isinstance(item, Turn) and found is not None and item.position == found.position:
            try:
                self.barrier.wait(0.02)  # time for another thread to check, too
            except threading.BrokenBarrierError:
                self.barrier.reset()
            now = self.log.summary(item.id)
            assert now is not None
            item = attrs.evolve(item, position=now.position)
        return self.log.append([item])[0]


class LosesTheSecond(Broken):
    """L6: the second turn of a batch is acknowledged and forgotten."""

    def append(self, batch: Sequence[Write]) -> list[Appended]:
        turns = [n for n, item in enumerate(batch) if isinstance(item, Turn)]
        lost = turns[1] if len(turns) > 1 else -1
        outcomes = self.log.append([item for n, item in enumerate(batch) if n != lost])
        return outcomes if lost < 0 else [*outcomes[:lost], Ok(Receipt()), *outcomes[lost:]]


class AllOrNothing(Broken):
    """L6: one rejected write takes the rest of its batch with it."""

    def append(self, batch: Sequence[Write]) -> list[Appended]:
        done: list[Appended] = []
        for item in batch:
            if any(not isinstance(outcome, Ok) for outcome in done):
                done.append(Rejected("stale: an earlier write of the batch was"))
            else:
                done += self.log.append([item])
        return done


class OutOfOrder(Broken):
    """L6: the messages of a batch are delivered the last first."""

    def append(self, batch: Sequence[Write]) -> list[Appended]:
        posts = [n for n, item in enumerate(batch) if isinstance(item, Post)]
        turned = list(batch)
        for n, other in zip(posts, reversed(posts), strict=True):
            turned[n] = batch[other]
        return self.log.append(turned)


class AcknowledgesTheRejected(Broken):
    """L3: what was rejected is told to be written."""

    def append(self, batch: Sequence[Write]) -> list[Appended]:
        return [
            Ok(Receipt()) if isinstance(outcome, Rejected) and outcome.reason.startswith("stale") else outcome
            for outcome in self.log.append(batch)
        ]


class NeverSure(Broken):
    """L13: the outcome of a mark is never known, though nothing went wrong."""

    def append(self, batch: Sequence[Write]) -> list[Appended]:
        outcomes = self.log.append(batch)
        return [
            Unknown("it may be") if isinstance(one, Ok) and isinstance(item, Mark) else one
            for item, one in zip(batch, outcomes, strict=True)
        ]


class GoesOnAfterTheEnd(Broken):
    """I7: a message to an execution that has ended is accepted."""

    def append(self, batch: Sequence[Write]) -> list[Appended]:
        return [
            Ok(Receipt()) if isinstance(one, Rejected) and one.reason.startswith("closed") else one
            for one in self.log.append(batch)
        ]


class CreatesAgain(Broken):
    """L9: creating what is there says that it was created."""

    def append(self, batch: Sequence[Write]) -> list[Appended]:
        outcomes = self.log.append(batch)
        return [
            Ok(attrs.evolve(one.value, created=True))
            if isinstance(one, Ok) and isinstance(item, New)
            else one
            for item, one in zip(batch, outcomes, strict=True)
        ]


class TakesAnyTwin(Broken):
    """L9: an id that is taken by something else is given as if it were the same."""

    def append(self, batch: Sequence[Write]) -> list[Appended]:
        return [
            Ok(Receipt(created=False))
            if isinstance(one, Rejected) and one.reason.startswith("conflict")
            else one
            for one in self.log.append(batch)
        ]


class TakesAnySize(Broken):
    """F19: what is too large is cut to what fits."""

    def append(self, batch: Sequence[Write]) -> list[Appended]:
        return self.log.append([self.cut(item) for item in batch])

    def cut(self, item: Any) -> Any:
        if isinstance(item, Post):
            return attrs.evolve(item, payload=item.payload[: 1 << 20])
        if isinstance(item, Turn | New):
            return attrs.evolve(
                item, records=[Record(r.kind, r.at, r.data[:RECORD_BYTES_MAX]) for r in item.records]
            )
        return item


class TakesPayloadsForRecords(Broken):
    """L11: a record that is larger than a payload may be is refused."""

    def append(self, batch: Sequence[Write]) -> list[Appended]:
        records = [record for item in batch if isinstance(item, Turn | New) for record in item.records]
        if any(len(record.data) > PAYLOAD_BYTES_MAX for record in records):
            return [Rejected("too-large") for _ in batch]
        return self.log.append(batch)


class MarksNothing(Broken):
    """L13: a mark is acknowledged, and what it says is forgotten."""

    def append(self, batch: Sequence[Write]) -> list[Appended]:
        return [
            Ok(Receipt())
            if isinstance(item, Mark) and self.log.summary(item.id) is not None
            else self.log.append([item])[0]
            for item in batch
        ]


# ---------------------------------------------------------------- messages


class ForgetsKeys(Broken):
    """R14: a message is delivered again when its key comes again."""

    numbers = itertools.count()

    def append(self, batch: Sequence[Write]) -> list[Appended]:
        return self.log.append(
            [
                attrs.evolve(item, key=f"{item.key}-{next(self.numbers)}")
                if isinstance(item, Post) and item.key
                else item
                for item in batch
            ]
        )

    def inbox(self, id: str, after: int = 0) -> list[Any]:
        found = self.log.inbox(id, after)
        return [attrs.evolve(one, key=one.key.rpartition("-")[0] if one.key else None) for one in found]


class NewestFirst(Broken):
    """L7: messages are read the newest first."""

    def inbox(self, id: str, after: int = 0) -> list[Any]:
        return self.log.inbox(id, after)[::-1]


class ConsumesNothing(Broken):
    """L7: what a turn consumed is delivered again."""

    def append(self, batch: Sequence[Write]) -> list[Appended]:
        return self.log.append(
            [attrs.evolve(one, consumes=()) if isinstance(one, Turn) else one for one in batch]
        )


# ---------------------------------------------------------------- who is due, who holds what


class WakesLate(Broken):
    """L10: what is due is given a second after its time."""

    def claim(self, worker: str, *, now: float, **options: Any) -> list[Summary]:
        return self.log.claim(worker, now=now - 1.0 if abs(now) < 1e9 else now, **options)


class WakesEarly(Broken):
    """L10, F13: what is due is given a second before its time."""

    def claim(self, worker: str, *, now: float, **options: Any) -> list[Summary]:
        return self.log.claim(worker, now=now + 1.0, **options)


class SleepsThrough(Broken):
    """L10: a wait does not end when there is news."""

    def wait(self, timeout_s: float) -> bool:
        threading.Event().wait(min(max(timeout_s, 0.0), 0.2))
        return False


class MissesExpiredLeases(Broken):
    """L8: what a late worker holds is never free."""

    def claim(self, worker: str, *, lease_s: float, **options: Any) -> list[Summary]:
        return self.log.claim(worker, lease_s=1e9, **options)

    def acquire(self, worker: str, id: str, *, lease_s: float) -> Summary | None:
        return self.log.acquire(worker, id, lease_s=1e9)

    def renew(self, worker: str, *, lease_s: float) -> bool:
        return self.log.renew(worker, lease_s=1e9)


class LeavesTheRunning(Broken):
    """L10: what is RUNNING and nobody's is due when its turn has said, and never if that has said nothing."""

    def append(self, batch: Sequence[Write]) -> list[Appended]:
        return [self.one(item) for item in batch]

    def one(self, item: Write) -> Appended:
        found = self.log.summary(item.id)
        (outcome,) = self.log.append([item])
        is_nobodys = found is not None and found.owner is None and isinstance(outcome, Ok)
        if isinstance(item, Turn | Mark) and item.status is Status.RUNNING and is_nobodys:
            self.log.append([Mark(item.id, Status.WAITING, wake=item.wake, seen=item.seen)])
        return outcome


class NeverFreesTheNew(Broken):
    """L8: what a worker owns since it was created is never free."""

    def append(self, batch: Sequence[Write]) -> list[Appended]:
        for item in batch:
            if isinstance(item, New) and item.owner is not None:
                self.log.renew(item.owner, lease_s=1e9)
        return self.log.append(batch)


class ClaimsByWorkflow(Broken):
    """L8: the name that an execution is to be claimed by is not kept."""

    def append(self, batch: Sequence[Write]) -> list[Appended]:
        return self.log.append([self.plain(item) for item in batch])

    def plain(self, item: Write) -> Write:
        if isinstance(item, New):
            creates = [attrs.evolve(child, claimed_as=None) for child in item.creates]
            return attrs.evolve(item, claimed_as=None, creates=creates)
        return item


class KeepsTheFirstName(Broken):
    """L8: a run that is opened is claimed as the one before was."""

    def append(self, batch: Sequence[Write]) -> list[Appended]:
        return self.log.append([self.unchanged(item) for item in batch])

    def unchanged(self, item: Write) -> Write:
        found = self.log.summary(item.id)
        if isinstance(item, Turn) and item.opens is not None and found is not None:
            return attrs.evolve(item, opens_as=found.claimed_as)
        return item


class RepeatsFences(Broken):
    """I6, L8: the fence stands still when an execution passes into another hand."""

    def claim(self, worker: str, **options: Any) -> list[Summary]:
        return [attrs.evolve(each, fence=1) for each in self.log.claim(worker, **options)]

    def append(self, batch: Sequence[Write]) -> list[Appended]:
        return self.log.append([self.real(item) for item in batch])

    def real(self, item: Write) -> Write:
        found = self.log.summary(item.id)
        if isinstance(item, Turn | Mark) and item.fence == 1 and found is not None and found.fence > 1:
            return attrs.evolve(item, fence=found.fence)
        return item

    def summary(self, id: str) -> Summary | None:
        found = self.log.summary(id)
        return None if found is None else attrs.evolve(found, fence=min(found.fence, 1))


class GivesToEverybody(Broken):
    """L8: an execution is given to each who asks for it by its id."""

    def acquire(self, worker: str, id: str, *, lease_s: float) -> Summary | None:
        return self.log.acquire(worker, id, lease_s=lease_s) or self.open_summary(id)

    def open_summary(self, id: str) -> Summary | None:
        found = self.log.summary(id)
        return None if found is None or found.status in CLOSED else found


class KeepsWhatIsGivenBack(Broken):
    """L8: what a worker gives back is not free."""

    def release(self, worker: str, ids: Any = None) -> None:
        """Nothing is given back."""


# ---------------------------------------------------------------- reading


class GivesItsOwnList(Broken):
    """L5: who changes a list that was read changes what is read next."""

    def __init__(self, log: EventLog) -> None:
        super().__init__(log)
        self.kept: dict[Any, list[Record]] = {}

    def records(self, id: str, run: int | None = None, start: int = 0) -> list[Record]:
        found = self.log.summary(id)
        key = (id, run, start, found and (found.run, found.position))
        return self.kept.setdefault(key, self.log.records(id, run, start))


class SkipsAPage(Broken):
    """L5: a list that goes on by pages leaves one out between two."""

    def list(self, *, limit: int = 100, after: str | None = None, **options: Any) -> Any:
        page = self.log.list(limit=limit, after=after, **options)
        if page.next is None or limit < 2:
            return page
        return attrs.evolve(page, items=page.items[:-1])


class CountsTheEnded(Broken):
    """L5: stats count everything that has ended as completed, and one more."""

    def stats(self) -> Any:
        found = dict(self.log.stats())
        return {**found, Status.COMPLETED: found.get(Status.COMPLETED, 0) + 1}


class CutsPayloads(Broken):
    """L5, L11: bytes behind a NUL are lost, as in a text of C."""

    def append(self, batch: Sequence[Write]) -> list[Appended]:
        return self.log.append([self.cut(item) for item in batch])

    def cut(self, item: Any) -> Any:
        if isinstance(item, Turn | New):
            records = [Record(r.kind, r.at, r.data.split(b"\0")[0]) for r in item.records]
            return attrs.evolve(item, records=records)
        return item


class TextForStatus(Broken):
    """L5: a status is read as the text that was written for it."""

    def summary(self, id: str) -> Summary | None:
        found = self.log.summary(id)
        return found and attrs.evolve(found, status=found.status.value)


class ViewsForBytes(Broken):
    """L5: payloads are given as a database's driver gives them."""

    def records(self, id: str, run: int | None = None, start: int = 0) -> list[Record]:
        return [Record(r.kind, r.at, bytearray(r.data)) for r in self.log.records(id, run, start)]


class RoundsTimes(Broken):
    """L5: times are kept in whole seconds."""

    def records(self, id: str, run: int | None = None, start: int = 0) -> list[Record]:
        return [Record(r.kind, float(round(r.at)), r.data) for r in self.log.records(id, run, start)]


class FoldsCase(Broken):
    """L11: ids that differ in their accents only are one."""

    def summary(self, id: str) -> Summary | None:
        return self.log.summary(id.encode("ascii", "replace").decode())


class TakesHostileIds(Broken):
    """F22: an id that cannot be stored is changed until it can."""

    def append(self, batch: Sequence[Write]) -> list[Appended]:
        return self.log.append([attrs.evolve(item, id=self.mended(item.id)) for item in batch])

    def mended(self, id: str) -> str:
        return (
            "".join(char for char in id if char.isprintable() and not "\ud800" <= char <= "\udfff")[:255]
            or "empty"
        )


# ---------------------------------------------------------------- on disk


class Remembered(Relay):
    """A store that keeps what was written in a file, and writes it all again when it is opened."""

    only = ""
    """The checks that it can be held to."""
    written = True
    swallows = False

    def __init__(self, log: EventLog, place: Path) -> None:
        super().__init__(log)
        self.file = place / "batches"
        for line in self.file.read_text().splitlines() if self.file.exists() else []:
            checksum, _, text = line.partition(" ")
            if zlib.crc32(text.encode()) == int(checksum):
                self.log.append(pickle.loads(bytes.fromhex(text)))
            elif not self.swallows:
                raise LogCorrupt("a batch does not verify")

    def append(self, batch: Sequence[Write]) -> list[Appended]:
        if self.written:
            self.write(batch)
        return self.log.append(batch)

    def write(self, batch: Sequence[Write]) -> None:
        text = pickle.dumps(list(batch)).hex()
        with self.file.open("a") as file:
            file.write(f"{zlib.crc32(text.encode())} {text}\n")

    @property
    def level(self) -> Any:
        return "process"


class ForgetsAll(Remembered):
    """L4, L5: what was acknowledged goes with the process."""

    only = "reads_back"
    written = False


class WritesWhenClosed(Remembered):
    """L4: what was acknowledged is written when the store is closed."""

    only = "test_killed"

    def __init__(self, log: EventLog, place: Path) -> None:
        super().__init__(log, place)
        self.unwritten: list[Sequence[Write]] = []

    def append(self, batch: Sequence[Write]) -> list[Appended]:
        self.unwritten.append(batch)
        return self.log.append(batch)

    def close(self) -> None:
        for batch in self.unwritten:
            self.write(batch)
        self.log.close()


class SwallowsDamage(Remembered):
    """F9, L12: a batch that does not read is left out when it is opened again."""

    only = "damaged"
    swallows = True


class CountsItself(Broken):
    """L8: a worker is one of the others."""

    def others(self, worker: str) -> int:
        return super().others(worker) + 1


class CountsTheDead(Broken):
    """L8: whoever was there once is counted for ever."""

    def __init__(self, log: EventLog) -> None:
        super().__init__(log)
        self.seen: set[str] = set()

    def claim(self, worker: str, **options: Any) -> Any:
        self.seen.add(worker)
        return super().claim(worker, **options)

    def renew(self, worker: str, *, lease_s: float) -> bool:
        self.seen.add(worker)
        return super().renew(worker, lease_s=lease_s)

    def others(self, worker: str) -> int:
        return len(self.seen - {worker})


class IdAsPath(Broken):
    """L11: an id names a file, so that some ids lead elsewhere or nowhere."""

    def append(self, batch: Sequence[Write]) -> list[Appended]:
        for item in batch:
            if len(item.id.encode()) > 255 or item.id in (".", "..") or "/" in item.id:
                return [Rejected(f"unavailable: no such file: {item.id!a}") for item in batch]
        return self.log.append(batch)


class WaitsForNobody(Broken):
    """L2, L9: two threads that write at once disturb each other."""

    busy = threading.Lock()

    def append(self, batch: Sequence[Write]) -> list[Appended]:
        if not self.busy.acquire(blocking=False):
            raise InvalidUse("somebody else is writing")
        try:
            threading.Event().wait(0.002)
            return self.log.append(batch)
        finally:
            self.busy.release()


ALL = sorted(
    (each for each in (*Broken.__subclasses__(), *Remembered.__subclasses__())),
    key=lambda each: each.__name__,
)
"""Every store with a defect that the contract can see."""
