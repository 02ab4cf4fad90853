"""The file log: `file:DIR`, one process at a time, durable by write and sync of an append-only journal.

Rule 1: a batch is one write and one sync (L6); where it touches an execution twice, each part is one write.
        What it does in memory is done when it is written, and seen when it is synced.
Rule 2: one process has it open. So every claim of an earlier one is void, and what was in flight is due at
        once.
Rule 3: what cannot be known to be on disk is never acknowledged and never shown: after a failed sync
        everything is refused until the log is opened again (F5).
"""

from __future__ import annotations

import builtins
import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Literal

import attrs

from zart_core.errors import InvalidUse, LogCorrupt, StoreFailed
from zart_core.events import Status
from zart_core.log import (
    Appended,
    EventLog,
    Level,
    Mark,
    Message,
    New,
    Page,
    Record,
    Rejected,
    Summary,
    Turn,
    Unknown,
    Write,
)
from zart_stores.checks import check, too_large
from zart_stores.file.bodies import encode, encode_closed
from zart_stores.file.frames import FORMAT, FRAME_BYTES_MAX
from zart_stores.file.fs import FileSystem, RealFileSystem, path_of
from zart_stores.file.index import FrameIndex
from zart_stores.file.journal import REOPEN, SEGMENT_BYTES, Full, Journal, Place
from zart_stores.file.replaying import replayer
from zart_stores.file.salvage import salvage as salvage  # offered beside `open`
from zart_stores.memory import MemoryLog, Shelf
from zart_stores.rows import Tables, carry_out, judge, not_kept, void

logger = logging.getLogger("zart.store")


def open(
    url: str,
    *,
    durability: str = "power",
    fs: FileSystem | None = None,
    clock: Callable[[], float] = time.monotonic,
    segment_bytes: int = SEGMENT_BYTES,
) -> EventLog:
    """Open `file:DIR`; the directory is made if it is not there, the one above it is not.

    `durability` is "power" or, without syncs, "process". `clock` gives seconds for leases and never goes
    back. `segment_bytes` is the size from which on a new segment is begun. Linear in the size of the log:
    some 20 microseconds a turn. Raises StoreLocked when it is open already, LogCorrupt, FormatTooNew,
    InvalidUse for a URL, a durability or a directory that will not do, StoreUnavailable when the disk says
    no.
    """
    level = _level(durability)
    path = path_of(url)
    return FileLog(path, level, RealFileSystem() if fs is None else fs, clock, segment_bytes)


def _level(durability: str) -> Literal["power", "process"]:
    if durability == "power":
        return "power"
    if durability == "process":
        return "process"
    raise InvalidUse(f"a file log has durability 'power' or 'process', not {durability!r}")


class FileLog:
    """An EventLog in a directory. Every method but `wait` takes one lock for its whole length."""

    blocking = True

    def __init__(
        self,
        path: str,
        level: Literal["power", "process"],
        fs: FileSystem,
        clock: Callable[[], float],
        segment_bytes: int,
    ) -> None:
        self._path = path
        self._level: Level = level
        self._journal = Journal(fs, path, syncs=level == "power", segment_bytes=segment_bytes)
        self._index = FrameIndex(self._journal)
        self._shelf = Shelf(self._index)
        self._fences: dict[str, int] = {}
        """The fence of each open execution as it stands in the journal."""
        self._begun = False
        """Whether the append in hand has come to where it changes something."""
        self._gate = Gate(self._journal, path)
        try:
            self._journal.open(replayer(path, self._shelf, self._index))
            for row in self._shelf.rows:
                if not row.status.closed:
                    self._fences[row.id] = row.fence
                    void(row)
                    self._shelf.changed(row)
            self._shelf.unleased.clear()  # who held them is no worker of this process (Rule 2)
            self._shelf.held.clear()
        except BaseException:
            self._journal.abandon(unlock=True)
            raise
        self._memory = MemoryLog(self._shelf, clock)
        if self.recovered is not None:
            logger.warning("%s", self.recovered)

    @property
    def level(self) -> Level:
        """See EventLog."""
        return self._level

    @property
    def recovered(self) -> str | None:
        """What was cut off at opening: the torn end of a write that was never acknowledged (L12)."""
        return self._journal.recovered

    # ------------------------------------------------ writing

    def append(self, batch: Sequence[Write]) -> list[Appended]:
        """See EventLog. One write and one sync, and some 30 microseconds beside them for a turn."""
        check(batch)
        outcomes: builtins.list[Appended] = []
        with self._gate.lock:
            self._gate.refuse_if_unusable()
            self._begun = False
            try:
                for part in apart(batch) if len(batch) > 1 else (batch,):
                    outcomes += self._write(part)
                self._journal.sync()
            except StoreFailed as failed:
                logger.error("%s", failed)
                unknown = Unknown(str(failed))
                return not_kept(outcomes, unknown) + [unknown] * (len(batch) - len(outcomes))
            except BaseException:
                if self._begun:
                    self._journal.fail("an append was interrupted")
                raise
        return outcomes

    def _write(self, part: Sequence[Write]) -> builtins.list[Appended]:
        """Judge writes that do not touch one another; write and carry out those that change something."""
        answers: builtins.list[Appended | None] = []
        bodies: builtins.list[bytes] = []
        items: builtins.list[Write] = []
        for item in part:
            answer = self._judge(item)
            body = encode(self._without_taken(item)) if answer is None else b""
            if len(body) > FRAME_BYTES_MAX:
                answer = Rejected(f"too-large: a write for {item.id!r} has {len(body):,} bytes as JSON")
            if answer is None:
                bodies.append(body)
                items.append(item)
            answers.append(answer)
        done: builtins.list[Appended] = []
        try:
            if items:
                self._begun = True
                done = self._carry_out(items, self._journal.write(bodies))
        except Full as full:
            done = [Rejected(f"full: {full}")] * len(items)
        if len(done) == len(answers):
            return done
        each = iter(done)
        return [next(each) if answer is None else answer for answer in answers]

    def _judge(self, item: Write) -> Appended | None:
        if large := too_large(item):
            return Rejected(large)
        return judge(self._shelf, self._shelf.find(item.id), item)

    def _without_taken(self, item: Write) -> Write:
        """Leave out what a write would not create, for its id is taken: records are found in a frame by their id."""
        if (type(item) is not Turn and type(item) is not New) or not item.creates:
            return item
        return attrs.evolve(item, creates=self._creates(item.creates, {item.id}))

    def _creates(self, creates: Sequence[New], taken: set[str]) -> builtins.list[New]:
        """Give those that are created, with what is created along with them; `taken` are ids of this write so far."""
        created: builtins.list[New] = []
        for new in creates:
            if new.id not in taken and self._shelf.find(new.id) is None:
                taken.add(new.id)
                created.append(attrs.evolve(new, creates=self._creates(new.creates, taken)))
        return created

    def _carry_out(self, items: Sequence[Write], places: Sequence[Place]) -> builtins.list[Appended]:
        """Do in memory what is written now."""
        where = iter(places)

        def do(shelf: Tables, item: Write) -> Appended:
            self._index.place = next(where)
            done = carry_out(shelf, shelf.find(item.id), item)
            if (type(item) is Turn or type(item) is Mark) and item.fence is not None:
                self._fences[item.id] = item.fence
            return done

        return self._memory.each(items, do)

    # ------------------------------------------------ reading

    def summary(self, id: str) -> Summary | None:
        """See EventLog."""
        with self._gate.lock:
            self._gate.refuse_if_unusable()
            return self._memory.summary(id)

    def records(self, id: str, run: int | None = None, start: int = 0) -> list[Record]:
        """See EventLog. Read from disk and verified, a few microseconds a turn."""
        with self._gate.lock:
            self._gate.refuse_if_unusable()
            return self._memory.records(id, run, start)

    def inbox(self, id: str, after: int = 0) -> list[Message]:
        """See EventLog."""
        with self._gate.lock:
            self._gate.refuse_if_unusable()
            return self._memory.inbox(id, after)

    def list(
        self,
        *,
        status: Status | None = None,
        workflow: str | None = None,
        id_prefix: str | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> Page[Summary]:
        """See EventLog."""
        with self._gate.lock:
            self._gate.refuse_if_unusable()
            return self._memory.list(
                status=status, workflow=workflow, id_prefix=id_prefix, limit=limit, after=after
            )

    def stats(self) -> Mapping[Status, int]:
        """See EventLog. O(1)."""
        with self._gate.lock:
            self._gate.refuse_if_unusable()
            return self._memory.stats()

    def settings(self) -> Mapping[str, str | int]:
        """See Examinable."""
        with self._gate.lock:
            self._gate.refuse_if_unusable()
            return {"sync": self._journal.sync_call, "segments": self._journal.segments, "format": FORMAT}

    def verify(self) -> Mapping[str, int]:
        """See EventLog. Reads all segments as a second reader would; linear in the size of the log."""
        with self._gate.lock:
            self._gate.refuse_if_unusable()
            shelf = Shelf(index := FrameIndex(self._journal))
            self._journal.verify(replayer(self._path, shelf, index))
            if index.records != self._index.records or shelf.by_id.keys() != self._shelf.by_id.keys():
                raise LogCorrupt(
                    f"{self._path}: what is in memory and what is on disk disagree",
                    where=self._path,
                    expected=f"{len(self._shelf.rows)} executions, {self._index.records} records",
                    found=f"{len(shelf.rows)} executions, {index.records} records",
                )
            return {
                "executions": len(shelf.rows),
                "records": index.records,
                "messages": sum(len(inbox) for inbox in shelf.inboxes),
            }

    # ------------------------------------------------ claims

    def claim(
        self, worker: str, *, now: float, lease_s: float, limit: int, workflows: Collection[str] | None = None
    ) -> builtins.list[Summary]:
        """See EventLog. In memory alone: a claim need not survive its process."""
        with self._gate.lock:
            self._gate.refuse_if_unusable()
            return self._memory.claim(worker, now=now, lease_s=lease_s, limit=limit, workflows=workflows)

    def acquire(self, worker: str, id: str, *, lease_s: float) -> Summary | None:
        """See EventLog."""
        with self._gate.lock:
            self._gate.refuse_if_unusable()
            return self._memory.acquire(worker, id, lease_s=lease_s)

    def renew(self, worker: str, *, lease_s: float) -> bool:
        """See EventLog."""
        with self._gate.lock:
            self._gate.refuse_if_unusable()
            return self._memory.renew(worker, lease_s=lease_s)

    def release(self, worker: str, ids: Collection[str] | None = None) -> None:
        """See EventLog."""
        with self._gate.lock:
            self._gate.refuse_if_unusable()
            self._memory.release(worker, ids)

    def next_wake(self) -> float | None:
        """See EventLog."""
        with self._gate.lock:
            self._gate.refuse_if_unusable()
            return self._memory.next_wake()

    def wait(self, timeout_s: float) -> bool:
        """See EventLog. Does not hold up the other methods."""
        with self._gate.lock:
            self._gate.refuse_if_unusable()
        return self._memory.wait(timeout_s)

    # ------------------------------------------------ the end

    def close(self) -> None:
        """See EventLog. Notes in the log that it was closed, and the fences that claims have raised."""
        if self._gate.forked:
            self._journal.abandon(unlock=False)
            return
        with self._gate.lock:
            if self._gate.closed:
                return
            self._gate.closed = True
            try:
                self._memory.close()
                rows = [row for row in self._shelf.rows if not row.status.closed]
                raised = {row.id: row.fence for row in rows if row.fence != self._fences.get(row.id, 0)}
                self._journal.close(encode_closed(raised), news=bool(raised))
            finally:
                # Also when it is interrupted: nobody closes it again (F27).
                self._journal.abandon(unlock=True)


class Gate:
    """The log's lock, held while a method runs, and what is asked first: can it work any more (F5, F12)?

    `with` takes the lock itself: code of ours around it could be interrupted in between, and leave it locked (F27).
    """

    def __init__(self, journal: Journal, path: str) -> None:
        self._lock = threading.RLock()
        self.closed = False
        self._journal = journal
        self._path = path
        self._pid = os.getpid()

    @property
    def forked(self) -> bool:
        """True in a child of the process that opened the log."""
        return os.getpid() != self._pid

    @property
    def lock(self) -> AbstractContextManager[object]:
        """The lock; a child of a fork must not even ask for it, a thread that it has no more may hold it."""
        if self.forked:
            raise StoreFailed(
                f"the log {self._path} was opened before a fork, and this is the child: leave it to process "
                f"{self._pid}, or close it before forking"
            )
        return self._lock

    def refuse_if_unusable(self) -> None:
        """Raise StoreFailed if the log is closed or has failed."""
        if self.closed:
            raise StoreFailed("the log is closed; open it again")
        if self._journal.failed is not None:
            raise StoreFailed(f"the log can no longer be used: {self._journal.failed}. {REOPEN}")


def apart(batch: Sequence[Write]) -> Iterator[Sequence[Write]]:
    """Split a batch where an execution would be touched twice: each part can be judged before it is done."""
    part: builtins.list[Write] = []
    touched: set[str] = set()
    for item in batch:
        ids = _ids(item)
        if not touched.isdisjoint(ids):
            yield part
            part, touched = [], set()
        part.append(item)
        touched |= ids
    yield part


def _ids(item: Write) -> set[str]:
    """Give the executions that a write changes or depends on."""
    ids = {item.id}
    if (type(item) is Turn or type(item) is New) and (item.creates or item.posts):
        inners: tuple[Write, ...] = (*item.creates, *item.posts)
        ids.update(*map(_ids, inners))
    return ids
