"""A store and the plain model side by side: steps drawn from a seed, everything compared after each.

Rule 1: each step draws from lots of its own, so that steps can be left out and the others stay what they were.
Rule 2: worker w1 works through one log object, worker w2 through another where a log may be opened twice.
"""

from __future__ import annotations

import atexit
import functools
import itertools
import os
import random
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import attrs
import psycopg
import pytest
from store_model import LEASE_S, Model

from tests.postgres import Server, running
from zart_core.errors import StoreLocked
from zart_core.events import CLOSED, Ok, Status
from zart_core.log import EventLog, Mark, New, Post, Receipt, Record, Rejected, Turn, Write
from zart_stores import memory
from zart_stores.file import store as file
from zart_stores.sql import postgres, sqlite

IDS = ["a", "b", "c", "d'; --"]
WORKFLOWS = ["w", "v"]
IN_MEMORY = "/dev/shm"
"""Where files cost no waiting for a disk, which is not what is tested here."""
OPEN = [status for status in Status if status not in CLOSED]
ENDED = sorted(CLOSED)
KINDS: Any = ["event", "child", "cancel", "terminate"]
PAYLOADS = [b"", b"{}", b"\x00\xff\n", b"\xff" * 99, b'{"a": [1, "\xc3\xa9"]}']
numbers = itertools.count()


@functools.cache
def server() -> Server:
    """A server for as long as the process lives, started when it is first wanted."""
    place = running()
    atexit.register(place.__exit__, None, None, None)
    return place.__enter__()


def schema_of(place: str) -> str:
    """The schema of a player's log: named like its directory."""
    return re.sub("[^a-z0-9]", "_", Path(place).name.lower())


@attrs.frozen
class Kind:
    """A store, and what it is able to do."""

    open: Callable[..., EventLog]
    url: Callable[[str], str]
    durability: str
    shared: bool
    crashes: bool
    """Whether a process may die in the middle: memory dies with it."""
    share: float = 1.0
    """Of the steps, as a weight: what each costs differs."""


KINDS_OF_STORE = {
    "memory": Kind(memory.open, lambda place: f"memory:{place}", "none", shared=True, crashes=False),
    "file": Kind(file.open, lambda place: f"file:{place}/log", "process", shared=False, crashes=True),
    "sqlite": Kind(sqlite.open, lambda place: f"sqlite:{place}/log.db", "process", shared=True, crashes=True),
    "postgresql": Kind(
        postgres.open,
        lambda place: server().url(schema_of(place)),
        "process",
        shared=True,
        crashes=True,
        share=0.05,
    ),
}
"""Without syncs: what is compared is what they do, not what a loss of power leaves."""


class Player:
    """One store and one model, from empty."""

    def __init__(self, store: str, seed: int, wrap: Callable[[EventLog], EventLog] = lambda log: log) -> None:
        self.kind = KINDS_OF_STORE[store]
        self.seed = seed
        self.wrap = wrap
        self.place = tempfile.mkdtemp(
            prefix="zart-player-", dir=IN_MEMORY if os.path.isdir(IN_MEMORY) else None
        )
        self.clock_s = 1000.0
        self.times = itertools.count(3)
        self.life = 0
        self.model = Model()
        self.model.now = self.clock_s
        self.done: Counter[str] = Counter()
        self.recorded: dict[str, tuple[int, float | None]] = {}
        """The fence and the wake time that are on record, by id; those of claims are not, where there is one opener."""
        self.lots = random.Random(0)
        self.names_to_claim_by = random.Random(0)
        """Lots of their own, so that the steps of seeds that were found earlier stay as they were."""
        self.logs = [self.open()]
        if self.kind.shared:
            self.logs.append(self.open())

    def open(self) -> EventLog:
        log = self.kind.open(
            self.kind.url(self.place), durability=self.kind.durability, clock=lambda: self.clock_s
        )
        return self.wrap(log)

    def close(self) -> None:
        for log in self.logs:
            log.close()
        shutil.rmtree(self.place)
        if self.kind is KINDS_OF_STORE["postgresql"]:
            with psycopg.connect(server().dsn, autocommit=True) as db:
                db.execute(f"DROP SCHEMA {schema_of(self.place)} CASCADE")

    # ------------------------------------------------ steps

    def play(self, steps: Collection[int] | int) -> None:
        """Do these steps, and compare after each. Raises what differs."""
        for number in range(steps) if isinstance(steps, int) else steps:
            self.lots = random.Random(f"{self.seed}:{number}")
            self.names_to_claim_by = random.Random(f"{self.seed}:{number}:claimed as")
            (rule,) = self.lots.choices(list(RULES), list(RULES.values()))
            try:
                getattr(self, rule)()
                self.compare()
            except Exception as error:
                error.add_note(f"step {number}: {rule}")
                raise
            self.done[rule] += 1
        for log in self.logs:
            log.verify()

    def worker(self) -> tuple[EventLog, str]:
        """A worker, and the log object it works through."""
        number = self.lots.randrange(2)
        return self.logs[number % len(self.logs)], self.name(number)

    def name(self, number: int) -> str:
        """The worker's name; after a crash nobody has the names of the dead."""
        return f"w{number + 1}.{self.life}"

    def names(self, log: EventLog) -> list[str]:
        return [self.name(n) for n in range(2) if self.logs[n % len(self.logs)] is log]

    def write_one(self) -> None:
        self.append([self.any_write()])

    def write_batch(self) -> None:
        self.append([self.any_write() for _ in range(self.lots.randint(2, 5))])

    def turns_in_a_row(self) -> None:
        """Turns of a batch at one position: one of them goes through."""
        turn = self.turn(self.logs[0])
        self.append([turn, attrs.evolve(turn, records=[Record("Twin", turn.at, b"")])], self.logs[0])

    def claim(self) -> None:
        log, worker = self.worker()
        now = self.lots.choice([0.0, 5.0, 10.0, 20.0, 1e9])
        limit = self.lots.choice([0, 1, 2, 3, 9])
        workflows = self.lots.choice([None, None, ["w"], ["v", "w"], []])
        if workflows:
            workflows += self.names_to_claim_by.choice([[], ["w 2"], ["w 2", "v 2"]])
        wanted = self.model.claim(worker, now, limit, workflows)
        same(log.claim(worker, now=now, lease_s=LEASE_S, limit=limit, workflows=workflows), wanted)

    def acquire(self) -> None:
        log, worker = self.worker()
        id = self.lots.choice([*IDS, "nobody"])
        wanted = self.model.acquire(worker, id)
        same(log.acquire(worker, id, lease_s=LEASE_S), wanted)

    def renew(self) -> None:
        log, worker = self.worker()
        same(log.renew(worker, lease_s=LEASE_S), self.model.renew(worker))

    def release(self) -> None:
        log, worker = self.worker()
        some = self.lots.choice([None, None, self.lots.sample(IDS, 2), []])
        log.release(worker, some)
        self.model.release(worker, some)

    def time_passes(self) -> None:
        self.clock_s += self.lots.choice([1.0, 6.0, LEASE_S, 31.0])
        self.model.now = self.clock_s

    def reopen(self) -> None:
        """One of the log objects is closed and opened again; what its workers held is free."""
        number = self.lots.randrange(len(self.logs))
        workers = self.names(self.logs[number])
        self.logs[number].close()
        self.model.close(workers)
        self.logs[number] = self.open()
        if not self.kind.shared:
            self.forget_claims()

    def forget_claims(self) -> None:
        """What a claim that nobody answered has set may be forgotten with its process; what a turn has set may not."""
        for id, found in self.model.executions.items():
            fence, wake = self.recorded[id]
            now = self.logs[0].summary(id)
            assert fence <= now.fence <= found.fence, "I6: a fence on record went back"
            assert now.wake in (wake, found.wake), f"{id}: wake is {now.wake}, on record is {wake}"
            found.fence, found.wake = now.fence, now.wake

    def crash(self) -> None:
        """The process dies: what it has written so far is opened by another one."""
        if not self.kind.crashes:
            return
        if self.kind is KINDS_OF_STORE["postgresql"]:
            self.fall_silent()
            return
        before, self.place = self.place, f"{self.place}-{self.life}"
        shutil.copytree(before, self.place)
        for log in self.logs:
            log.close()
        shutil.rmtree(before)
        dead = [self.name(n) for n in range(2)]
        self.life += 1
        self.logs = [self.open() for _ in self.logs]
        if self.kind.shared:
            self.model.bury(dead)
        else:
            self.model.close(dead)
            self.forget_claims()

    def fall_silent(self) -> None:
        """The process dies without a word to the server: what its workers held stays theirs until their leases end."""
        for log in self.logs:
            log._workers.clear()  # so that closing takes leave of nobody
            log.close()
        self.life += 1
        self.logs = [self.open() for _ in self.logs]

    def second_opener(self) -> None:
        """Another log object: it sees the same, or is refused at once (F11)."""
        if not self.kind.shared:
            with pytest.raises(StoreLocked):
                self.open()
            return
        third = self.open()
        same([third.summary(id) for id in IDS], [self.logs[0].summary(id) for id in IDS])
        third.close()

    # ------------------------------------------------ what is written

    def append(self, batch: Sequence[Write], log: EventLog | None = None) -> None:
        log = log or self.lots.choice(self.logs)
        batch = [self.owned(item, log) for item in batch]
        outcomes = [shown(outcome) for outcome in log.append(batch)]
        same(outcomes, [self.model.write(item) for item in batch])
        for id, found in self.model.executions.items():
            before = self.recorded.get(id, (found.fence, found.wake))
            turns = [
                item
                for item, outcome in zip(batch, outcomes, strict=True)
                if item.id == id and isinstance(outcome, Receipt) and outcome.created
            ]
            fence = max([before[0], *(item.fence for item in turns if isinstance(item, Turn))])
            sets_wake = any(not isinstance(item, Post) for item in turns)
            self.recorded[id] = fence, found.wake if sets_wake else before[1]

    def owned(self, item: Write, log: EventLog) -> Write:
        """A new execution may belong to a worker of this log object."""
        if isinstance(item, New) and self.lots.random() < 0.3:
            return attrs.evolve(item, owner=self.lots.choice(self.names(log)))
        return item

    def any_write(self) -> Write:
        return self.lots.choice([self.new, self.post, self.turn, self.turn, self.turn, self.mark])()

    def wake(self) -> float | None:
        return self.lots.choice([None, 0.0, 5.0, 15.0, 25.0])

    def records(self, kind: str, at: float) -> list[Record]:
        return [
            Record(kind, at, self.lots.choice(PAYLOADS)) for _ in range(self.lots.choice([0, 1, 1, 2, 3]))
        ]

    def new(self, depth: int = 1) -> New:
        return New(
            self.lots.choice(IDS),
            self.lots.choice(WORKFLOWS),
            self.lots.choice("ddde"),
            self.records("Started", 1.0),
            1.0,
            wake=self.wake(),
            creates=[self.new(0) for _ in range(self.lots.choice([0, 0, 1, 2]))] if depth else (),
            posts=[self.post()] if self.lots.random() < 0.2 else (),
            claimed_as=self.claimed_as(),
        )

    def claimed_as(self) -> str | None:
        return self.names_to_claim_by.choice([None, None, "w 2", "v 2", "v"])

    def post(self) -> Post:
        key = self.lots.choice([None, None, "k1", "k2"])
        name, kind = self.lots.choice(["n", "m'"]), self.lots.choice(KINDS)
        return Post(self.lots.choice(IDS), kind, name, self.lots.choice(PAYLOADS), 2.0, key)

    def turn(self, log: EventLog | None = None) -> Turn:
        """A turn that fits, as a rule; what it consumes is there, as a rule; sometimes its writer is stale."""
        lots, id = self.lots, self.lots.choice(IDS)
        found = self.model.executions.get(id)
        run, position, fence = (len(found.runs) - 1, len(found.runs[-1]), found.fence) if found else (0, 0, 0)
        unread = [message.number for message in found.inbox] if found else []
        wrong = lots.choice(
            [(0, 0, 0)] * 12 + [(1, 0, 0), (-1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1)]
        )
        at = float(next(self.times))
        turn = Turn(
            id,
            run + wrong[0],
            position + wrong[1],
            fence + wrong[2],
            self.records("X", at),
            at,
            lots.choice(OPEN * 4 + ENDED),
            wake=self.wake(),
            seen=lots.randint(0, found.posted if found else 0),
            consumes=lots.choices([*unread * 5, 99], k=lots.choice([0, 0, 1, 2])),
            opens=self.records("Started", at) if lots.random() < 0.15 else None,
            creates=[self.new(0)] if lots.random() < 0.2 else (),
            posts=[self.post() for _ in range(lots.choice([0, 0, 1, 2]))],
            releases=lots.random() < 0.25,
        )
        return turn if turn.opens is None else attrs.evolve(turn, opens_as=self.claimed_as())

    def mark(self) -> Mark:
        lots, id = self.lots, self.lots.choice(IDS)
        found = self.model.executions.get(id)
        return Mark(
            id,
            lots.choice(OPEN),
            reason=lots.choice(["", "why\n", "'--"]),
            build=lots.choice(["", "b1"]),
            wake=self.wake(),
            seen=lots.randint(0, found.posted if found else 0),
            fence=lots.choice([None, 0, *([found.fence] * 2 if found else [])]),
            releases=lots.random() < 0.5,
        )

    # ------------------------------------------------ what must hold

    def compare(self) -> None:
        """Everything that can be read is what the model says, through whichever log object."""
        log = self.lots.choice(self.logs)
        for id in IDS:
            found = self.model.executions.get(id)
            if found is None:
                same((log.summary(id), log.records(id), log.inbox(id)), (None, [], []))
                continue
            same(log.summary(id), found.summary())
            same(log.records(id), found.runs[-1])
            earlier = self.lots.randrange(len(found.runs))
            same(log.records(id, earlier, 1), found.runs[earlier][1:])
            same(log.inbox(id), found.inbox)
        due = [when for each in self.model.executions.values() if (when := each.due()) is not None]
        same(log.next_wake(), min(due, default=None))
        self.compare_lists(log)

    def compare_lists(self, log: EventLog) -> None:
        everything = [self.model.executions[id].summary() for id in sorted(self.model.executions)]
        status, workflow = self.lots.choice(list(Status)), self.lots.choice(WORKFLOWS)
        wanted = [each for each in everything if each.status is status]
        same(
            {status: n for status, n in log.stats().items() if n}, dict(Counter(e.status for e in everything))
        )
        same(list(log.list(status=status).items), wanted)
        same(
            list(log.list(workflow=workflow).items),
            [each for each in everything if each.workflow == workflow],
        )
        page = log.list(limit=2)
        rest = log.list(after=page.next).items if page.next else []
        same([*page.items, *rest], everything)


RULES = {
    "write_one": 30, "write_batch": 20, "turns_in_a_row": 4, "claim": 14, "acquire": 8, "renew": 4, "release": 5,
    "time_passes": 6, "reopen": 4, "crash": 2, "second_opener": 2,
}  # fmt: skip
"""What a step may be, and how often."""


def same(found: Any, wanted: Any) -> None:
    """Fail unless both are equal."""
    assert found == wanted, f"\nfound:  {found}\nwanted: {wanted}"


def shown(outcome: object) -> Receipt | str:
    """A receipt, or the word of the refusal."""
    if isinstance(outcome, Rejected):
        return outcome.reason.split()[0].rstrip(":")
    assert isinstance(outcome, Ok), outcome
    return attrs.evolve(outcome.value, conflicts=tuple(outcome.value.conflicts))


def steps_played(store: str, seed: int, steps: Collection[int] | int, **options: Any) -> Counter[str]:
    """Play a seed; gives how often it did what. Raises what differs."""
    player = Player(store, seed, **options)
    try:
        player.play(steps)
    finally:
        player.close()
    return player.done


def fewest(store: str, seed: int, steps: int, **options: Any) -> list[int]:
    """The steps of a seed that fails which are needed to make it fail: leaving out any one lets it pass."""
    needed = list(range(steps))
    size = len(needed)
    while size >= 1:
        for start in range(len(needed) - 1, -1, -size):
            fewer = needed[: max(0, start - size + 1)] + needed[start + 1 :]
            try:
                steps_played(store, seed, fewer, **options)
            except Exception:
                needed = fewer
        size //= 2
    return needed
