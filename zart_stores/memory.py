"""A log in memory: for tests, for tries, and for work that need not survive its process.

Rule 1: everything is on one `Shelf` under one lock; `memory:` has a shelf of its own, `memory:NAME` shares
        one with every other `memory:NAME` of the process, so that a test can close a log and open it again.
Rule 2: records are kept as the objects they are; nobody changes them.
Rule 3: a change that is interrupted is undone by whoever comes next (F27).
Rule 4: a forked child has copies, of which nobody else knows, and whose lock a thread may hold that it has not: its
        logs are refused, and it finds no named shelf (F12).
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import math
import os
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Protocol, TypeAlias, TypeVar, cast

from sortedcontainers import SortedList  # type: ignore[import-untyped]  # it ships no types

from zart_core.errors import InvalidUse, LogCorrupt, StoreFailed
from zart_core.events import Status
from zart_core.log import Appended, EventLog, Level, Message, New, Page, Record, Summary, Write
from zart_stores.checks import check, check_name
from zart_stores.mending import Image, image_of, restored
from zart_stores.rows import Row, Tables, claim_name, due, free, give, new_row, summary, take, void, write

LEASE_S = 30.0
"""The lease of a worker that owns a new execution and has none, in seconds."""

T = TypeVar("T")
Place: TypeAlias = "tuple[str | None, str, float | None, Status]"
"""Where a row stands in the indexes: owner, name it is claimed by, due, status."""


class Sorted(Protocol[T]):
    """The part of sortedcontainers.SortedList that is used here; each costs O(log n)."""

    def add(self, value: T, /) -> None: ...  # noqa: D102
    def remove(self, value: T, /) -> None: ...  # noqa: D102
    def irange(  # noqa: D102
        self, minimum: T | None = None, maximum: T | None = None, inclusive: tuple[bool, bool] = (True, True)
    ) -> Iterator[T]: ...
    def __getitem__(self, index: int, /) -> T: ...
    def __len__(self) -> int: ...


def open(url: str, *, durability: str = "none", clock: Callable[[], float] = time.monotonic) -> EventLog:
    """Open `memory:` (a log of its own) or `memory:NAME` (one that is shared inside the process).

    `clock` gives seconds for leases and never goes back. Raises InvalidUse for another URL or durability.
    """
    scheme, colon, name = url.partition(":")
    if scheme != "memory" or not colon:
        raise InvalidUse(f"{url!r} is no URL of a memory log; write memory: or memory:NAME")
    if durability != "none":
        raise InvalidUse(
            f"a memory log survives nothing, and durability={durability!r} was asked for; "
            f"say durability='none', or use file:DIR or sqlite:PATH"
        )
    if not name:
        return MemoryLog(Shelf(), clock)
    with _named_lock:
        return MemoryLog(_named.setdefault(name, Shelf()), clock)


class Runs(Protocol):
    """Where a shelf keeps records. A file log keeps them in its segments, and the rest on a shelf."""

    def begin(self, row: Row) -> None:
        """Make room for the row's first run, or its next one."""
        ...

    def add(self, row: Row, records: Sequence[Record]) -> None:
        """Keep records of the row's run, from its position on."""
        ...

    def read(self, row: Row, run: int, start: int) -> list[Record]:
        """Give the records of a run from position `start` on; none of a run that is not there."""
        ...

    def cut(self, row: Row) -> None:
        """Forget what lies after the row's run and position."""
        ...

    def forget(self, rows: int) -> None:
        """Forget all rows from this number on."""
        ...


class Lists:
    """Records as the objects they are, a list for each run."""

    def __init__(self) -> None:
        self._runs: list[list[list[Record]]] = []

    def begin(self, row: Row) -> None:
        """See Runs."""
        if row.key == len(self._runs):
            self._runs.append([])
        self._runs[row.key].append([])

    def add(self, row: Row, records: Sequence[Record]) -> None:
        """See Runs."""
        self._runs[row.key][row.run].extend(records)

    def read(self, row: Row, run: int, start: int) -> list[Record]:
        """See Runs."""
        runs = self._runs[row.key]
        return runs[run][max(start, 0) :] if 0 <= run < len(runs) else []

    def cut(self, row: Row) -> None:
        """See Runs."""
        runs = self._runs[row.key]
        del runs[row.run + 1 :]
        del runs[row.run][row.position :]

    def forget(self, rows: int) -> None:
        """See Runs."""
        del self._runs[rows:]


class Shelf:
    """What a memory log holds, and the `Tables` that `rows.write` works on. Used under its lock only."""

    def __init__(self, runs: Runs | None = None) -> None:
        self.lock = threading.Lock()
        self.stirred = threading.Condition(self.lock)
        self.changes = 0
        self.rows: list[Row] = []
        self.by_id: dict[str, Row] = {}
        self.ids = cast("Sorted[str]", SortedList())
        self.runs: Runs = Lists() if runs is None else runs
        self.inboxes: list[dict[int, Message]] = []
        self.keys: dict[tuple[int, str], int] = {}
        self.places: list[Place | None] = []
        self.queues: dict[str | None, dict[str, Sorted[tuple[float, int]]]] = {}
        self.held: dict[str, set[int]] = {}
        self.counts: dict[Status, int] = {}
        self.leases: dict[str, float] = {}
        self.unleased: set[str] = set()
        self.robbed: set[str] = set()
        self.image: Image | None = None
        """What the change in hand may touch, as it was; left behind by one that was interrupted (F27)."""

    # ------------------------------------------------ Tables

    def find(self, id: str) -> Row | None:
        """See Tables."""
        return self.by_id.get(id)

    def insert(self, new: New) -> Row:
        """See Tables."""
        row = new_row(len(self.rows), new)
        self.rows.append(row)
        self.runs.begin(row)
        self.inboxes.append({})
        self.places.append(None)
        self.by_id[row.id] = row
        self.ids.add(row.id)
        if row.owner is not None and row.owner not in self.leases:
            self.unleased.add(row.owner)
        return row

    def add_records(self, row: Row, records: Sequence[Record]) -> None:
        """See Tables."""
        self.runs.add(row, records)

    def end_run(self, row: Row) -> None:
        """See Tables."""
        self.runs.begin(row)

    def number_of(self, row: Row, key: str) -> int | None:
        """See Tables."""
        return self.keys.get((row.key, key))

    def add_message(self, row: Row, message: Message) -> None:
        """See Tables."""
        self.inboxes[row.key][message.number] = message
        if message.key is not None:
            self.keys[row.key, message.key] = message.number

    def missing(self, row: Row, numbers: Collection[int]) -> int | None:
        """See Tables."""
        inbox = self.inboxes[row.key]
        return next((number for number in numbers if number not in inbox), None)

    def consume(self, row: Row, numbers: Collection[int]) -> int:
        """See Tables."""
        inbox = self.inboxes[row.key]
        for number in numbers:
            del inbox[number]
        return next(reversed(inbox), 0)

    def changed(self, row: Row) -> None:
        """Move the row to its place in the indexes; O(log n) when due or owner changed, else O(1)."""
        place: Place = (row.owner, claim_name(row), due(row), row.status)
        before = self.places[row.key]
        if place == before:
            return
        self.places[row.key] = place
        if before is not None:
            self._leave(row.key, before)
        self._enter(row.key, place)

    def _enter(self, key: int, place: Place) -> None:
        owner, name, when, status = place
        self.counts[status] = self.counts.get(status, 0) + 1
        if owner is not None:
            self.held.setdefault(owner, set()).add(key)
        if when is not None:
            queues = self.queues.setdefault(owner, {})
            if name not in queues:
                queues[name] = cast("Sorted[tuple[float, int]]", SortedList())
            queues[name].add((when, key))
            self.changes += 1

    def _leave(self, key: int, place: Place) -> None:
        owner, name, when, status = place
        self.counts[status] -= 1
        if owner is not None:
            self.held[owner].discard(key)
        if when is not None:
            queues = self.queues[owner]
            queues[name].remove((when, key))
            if not queues[name]:
                del queues[name]
                if not queues:
                    del self.queues[owner]

    def mend(self) -> None:
        """Undo what an interrupted change has left half done (F27). O(n)."""
        image = self.image
        if image is None:
            return
        for touched in image.touched:
            row = touched.row
            self.inboxes[row.key] = restored(touched, self.inboxes[row.key])
            self.runs.cut(row)
        self.keys = {
            key: number
            for key, number in self.keys.items()
            if key[0] < image.rows and number <= self.rows[key[0]].posted
        }
        for row in self.rows[image.rows :]:
            self.by_id.pop(row.id, None)
        self.runs.forget(image.rows)
        del self.inboxes[image.rows :], self.rows[image.rows :]
        self.ids = cast("Sorted[str]", SortedList(self.by_id))
        self.places = [None] * len(self.rows)
        self.queues, self.held, self.counts = {}, {}, {}
        for row in self.rows:
            self.changed(row)
        self.unleased = {row.owner for row in self.rows if row.owner is not None} - self.leases.keys()
        self.changes += 1
        self.image = None

    # ------------------------------------------------ claims

    def sweep(self, now: float, but: str) -> None:
        """Void what is held under leases that have run out; `but` is the worker who asks."""
        for worker, end in list(self.leases.items()):
            if end <= now and worker != but:
                self.rob(worker)

    def rob(self, worker: str) -> None:
        """Void all that the worker holds."""
        held = self.held.get(worker, ())
        if held:
            self.robbed.add(worker)
        for key in list(held):
            row = self.rows[key]
            void(row)
            self.changed(row)

    def due_rows(self, worker: str, now: float, limit: int, workflows: Collection[str] | None) -> list[Row]:
        """Those that are due and free or the worker's own, the longest due first."""
        queues = [
            queue.irange(None, (now, len(self.rows)))
            for owner in (None, worker)
            for name, queue in self.queues.get(owner, {}).items()
            if workflows is None or name in workflows
        ]
        return [
            self.rows[key] for _, key in itertools.islice(heapq.merge(*queues), min(limit, len(self.rows)))
        ]


_named: dict[str, Shelf] = {}
_named_lock = threading.Lock()
_logs: weakref.WeakSet[MemoryLog] = weakref.WeakSet()
CLOSED = "the log is closed; open it again"
FORKED = "the log was opened before a fork, and this is the child: open a log of its own in each process"


class MemoryLog:
    """An EventLog on a shelf. Every method takes the shelf's lock for its whole length."""

    level: Level = "none"
    blocking = False

    def __init__(self, shelf: Shelf, clock: Callable[[], float]) -> None:
        self._shelf = shelf
        self._clock = clock
        self._workers: set[str] = set()
        self._heard = shelf.changes
        self._closed = False
        self._why = CLOSED
        _logs.add(self)

    def disown(self) -> None:
        """Leave the shelf to the process that this one was forked from, without asking for its lock (F12)."""
        self._shelf = Shelf()
        self._closed, self._why = True, FORKED

    def sibling(self) -> MemoryLog:
        """Another log on the same shelf, as another process would have it open: closed and woken by itself."""
        return MemoryLog(self._shelf, self._clock)

    def append(self, batch: Sequence[Write]) -> list[Appended]:
        """See EventLog. A turn of three records takes a few microseconds."""
        check(batch)
        return self.each(batch, write)

    def each(self, batch: Iterable[Write], do: Callable[[Tables, Write], Appended]) -> list[Appended]:
        """Do something with each write of a batch on the shelf, and wake those who wait."""
        shelf = self._shelf
        with shelf.lock:
            self._refuse_if_closed()
            before = shelf.changes
            outcomes: list[Appended] = []
            for item in batch:
                shelf.image = image_of(shelf, item)
                outcomes.append(do(shelf, item))
            shelf.image = None
            for worker in list(shelf.unleased):
                if worker not in shelf.leases:  # else it has taken one of its own since
                    self._lease(worker, LEASE_S)
                shelf.unleased.discard(worker)
            if shelf.changes != before:
                shelf.stirred.notify_all()
        return outcomes

    def summary(self, id: str) -> Summary | None:
        """See EventLog."""
        with self._shelf.lock:
            self._refuse_if_closed()
            row = self._shelf.by_id.get(id)
            return None if row is None else summary(row)

    def records(self, id: str, run: int | None = None, start: int = 0) -> list[Record]:
        """See EventLog."""
        with self._shelf.lock:
            self._refuse_if_closed()
            row = self._shelf.by_id.get(id)
            if row is None:
                return []
            return self._shelf.runs.read(row, row.run if run is None else run, start)

    def inbox(self, id: str, after: int = 0) -> list[Message]:
        """See EventLog."""
        with self._shelf.lock:
            self._refuse_if_closed()
            row = self._shelf.by_id.get(id)
            if row is None:
                return []
            return [message for number, message in self._shelf.inboxes[row.key].items() if number > after]

    def claim(
        self, worker: str, *, now: float, lease_s: float, limit: int, workflows: Collection[str] | None = None
    ) -> list[Summary]:
        """See EventLog."""
        check_name("worker", worker)
        shelf = self._shelf
        with shelf.lock:
            self._refuse_if_closed()
            before = shelf.changes
            shelf.image = Image(len(shelf.rows), ())
            shelf.sweep(self._clock(), but=worker)
            self._lease(worker, lease_s)
            rows = shelf.due_rows(worker, now, limit, workflows) if limit > 0 else []
            for row in rows:
                give(row, worker)
                shelf.changed(row)
            shelf.image = None
            if shelf.changes != before:
                shelf.stirred.notify_all()
            self._heard = shelf.changes
            return [summary(row) for row in rows]

    def acquire(self, worker: str, id: str, *, lease_s: float) -> Summary | None:
        """See EventLog."""
        check_name("worker", worker)
        shelf = self._shelf
        with shelf.lock:
            self._refuse_if_closed()
            row = shelf.by_id.get(id)
            if row is None or row.status.closed:
                return None
            shelf.image = Image(len(shelf.rows), ())
            if row.owner not in (None, worker):
                shelf.sweep(self._clock(), but=worker)
            if row.owner in (None, worker):
                self._lease(worker, lease_s)
                take(row, worker)
                shelf.changed(row)
            shelf.image = None
            return summary(row) if row.owner == worker else None

    def renew(self, worker: str, *, lease_s: float) -> bool:
        """See EventLog."""
        check_name("worker", worker)
        with self._shelf.lock:
            self._refuse_if_closed()
            self._lease(worker, lease_s)
            robbed = worker in self._shelf.robbed
            self._shelf.robbed.discard(worker)
            return not robbed

    def others(self, worker: str) -> int:
        """See Shared. O(workers)."""
        with self._shelf.lock:
            self._refuse_if_closed()
            now = self._clock()
            return sum(end > now for other, end in self._shelf.leases.items() if other != worker)

    def release(self, worker: str, ids: Collection[str] | None = None) -> None:
        """See EventLog. Works for any worker's claims, so that a test can declare one dead."""
        shelf = self._shelf
        with shelf.lock:
            self._refuse_if_closed()
            self._release(worker, ids)

    def next_wake(self) -> float | None:
        """See EventLog. O(workers x workflows), each O(1)."""
        with self._shelf.lock:
            self._refuse_if_closed()
            queues = self._shelf.queues.values()
            return min((queue[0][0] for named in queues for queue in named.values()), default=None)

    def wait(self, timeout_s: float) -> bool:
        """See EventLog. What was written since the last claim or wait by this object counts too."""
        shelf = self._shelf
        with shelf.lock:
            since = self._heard
            woken = shelf.stirred.wait_for(
                lambda: self._closed or shelf.changes != since, max(timeout_s, 0.0)
            )
            self._refuse_if_closed()
            self._heard = shelf.changes
            return woken

    def list(
        self,
        *,
        status: Status | None = None,
        workflow: str | None = None,
        id_prefix: str | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> Page[Summary]:
        """See EventLog. O(log n) and what it passes by: status and workflow are no indexes here."""
        if limit < 1:
            raise InvalidUse(f"a page has at least one item, not limit={limit}")
        with self._shelf.lock:
            self._refuse_if_closed()
            items = list(
                itertools.islice(
                    (
                        summary(row)
                        for row in self._from(id_prefix or "", after)
                        if (status is None or row.status is status)
                        and (workflow is None or row.workflow == workflow)
                    ),
                    limit + 1,
                )
            )
        if len(items) <= limit:
            return Page(items, None)
        return Page(items[:limit], items[limit - 1].id)

    def _from(self, prefix: str, after: str | None) -> Iterator[Row]:
        passed = after is not None and after >= prefix
        first = after if passed else prefix
        for id in self._shelf.ids.irange(first, None, (not passed, True)):
            if not id.startswith(prefix):
                return
            yield self._shelf.by_id[id]

    def stats(self) -> Mapping[Status, int]:
        """See EventLog. O(1)."""
        with self._shelf.lock:
            self._refuse_if_closed()
            return {status: n for status, n in self._shelf.counts.items() if n}

    def verify(self) -> Mapping[str, int]:
        """See EventLog. O(n)."""
        shelf = self._shelf
        with shelf.lock:
            self._refuse_if_closed()
            records = 0
            for row in shelf.rows:
                runs = [shelf.runs.read(row, run, 0) for run in range(row.run + 1)]
                _verify(row, runs, shelf.inboxes[row.key])
                records += sum(len(run) for run in runs)
            return {
                "executions": len(shelf.rows),
                "records": records,
                "messages": sum(len(inbox) for inbox in shelf.inboxes),
            }

    def close(self) -> None:
        """See EventLog. What a named log holds stays for the next who opens it."""
        with self._shelf.lock:
            if not self._closed:
                self._shelf.mend()
                for worker in self._workers:
                    self._release(worker, None)
                    self._shelf.leases.pop(worker, None)
                    self._shelf.robbed.discard(worker)
                self._closed = True
                self._shelf.stirred.notify_all()

    def _lease(self, worker: str, lease_s: float) -> None:
        self._shelf.leases[worker] = self._clock() + lease_s
        self._workers.add(worker)

    def _release(self, worker: str, ids: Collection[str] | None) -> None:
        shelf = self._shelf
        keys = list(shelf.held.get(worker, ()))
        wanted = None if ids is None else set(ids)
        before = shelf.changes
        shelf.image = Image(len(shelf.rows), ())
        for key in keys:
            row = shelf.rows[key]
            if wanted is None or row.id in wanted:
                free(row)
                shelf.changed(row)
        shelf.image = None
        if shelf.changes != before:
            shelf.stirred.notify_all()

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise StoreFailed(self._why)
        self._shelf.mend()


def _verify(row: Row, runs: Sequence[Sequence[Record]], inbox: Mapping[int, Message]) -> None:
    """Raise LogCorrupt when a row and what belongs to it disagree: somebody changed a record, or a bug."""
    where = f"execution {row.id!r} in memory"
    if (row.position, row.unread) != (len(runs[-1]), len(inbox)):
        raise LogCorrupt(
            f"{where}: the row and its records disagree",
            where=where,
            expected=f"run {row.run}, {row.position} records, {row.unread} messages",
            found=f"{len(runs[-1])} records, {len(inbox)} messages",
        )
    for run in runs:
        last = -math.inf
        for position, record in enumerate(run):
            if record.at < last:
                raise LogCorrupt(
                    f"{where}: time goes back at record {position}",
                    where=where,
                    expected=f"at least {last!r}",
                    found=repr(record.at),
                )
            last = record.at


def _disown_all() -> None:
    global _named_lock
    _named_lock = threading.Lock()
    _named.clear()
    for log in list(_logs):
        log.disown()


with contextlib.suppress(AttributeError):  # Windows has neither forks nor this
    os.register_at_fork(after_in_child=_disown_all)
