"""Each store beside a plain model: whatever is written, in whatever order, both tell the same.

The model is a direct reading of `zart_core.log`, with lists and scans; it shares no code with the stores.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from zart_core.events import CLOSED, Ok, Status
from zart_core.log import EventLog, Mark, Message, New, Post, Receipt, Record, Rejected, Summary, Turn, Write
from zart_stores import memory
from zart_stores.file import store as file
from zart_stores.sql import sqlite

OPEN: dict[str, Callable[[str, int], dict[str, Any]]] = {
    "memory": lambda place, n: {"open": memory.open, "url": f"memory:machine-{n}"},
    "sqlite": lambda place, n: {"open": sqlite.open, "url": f"sqlite:{place}/log.db"},
    "file": lambda place, n: {"open": file.open, "url": f"file:{place}/log"},
}
"""The stores: a line each. `open` takes (url, clock=)."""

LEASE_S = 10.0
IDS = ["a", "b", "c", "d'; --"]
WORKERS = ["w1", "w2"]
WORKFLOWS = ["w", "v"]
machines = itertools.count()


# ---------------------------------------------------------------- the model


@attrs.define
class Execution:
    """Everything that is known of one execution."""

    id: str
    workflow: str
    digest: str
    created_at: float
    status: Status
    wake: float | None
    updated_at: float
    runs: list[list[Record]]
    inbox: list[Message] = attrs.Factory(list)
    keys: dict[str, int] = attrs.Factory(dict)
    posted: int = 0
    seen: int = 0
    fence: int = 0
    owner: str | None = None
    given: bool = False
    reason: str = ""
    build: str = ""
    asked: float | None = attrs.Factory(lambda self: self.wake, takes_self=True)
    """The wake that the last write asked for, whatever claims have done to it since."""

    def due(self) -> float | None:
        if self.status in CLOSED or self.status is Status.PAUSED or self.given:
            return None
        return 0.0 if any(message.number > self.seen for message in self.inbox) else self.wake

    def settle(self) -> None:
        """What is in flight and in nobody's hand is due at once."""
        if self.owner is None and self.status is Status.RUNNING:
            self.wake = 0.0

    def summary(self) -> Summary:
        return Summary(
            self.id,
            self.workflow,
            self.digest,
            self.status,
            len(self.runs) - 1,
            len(self.runs[-1]),
            self.fence,
            self.created_at,
            self.updated_at,
            self.wake,
            self.owner,
            self.reason,
            self.build,
            len(self.inbox),
        )


class Model:
    """What a log promises, said plainly."""

    def __init__(self) -> None:
        self.executions: dict[str, Execution] = {}
        self.leases: dict[str, float] = {}
        self.robbed: set[str] = set()
        self.now = 0.0

    def write(self, item: Write) -> Receipt | str:
        """Give a receipt, or the word of the refusal."""
        found = self.executions.get(item.id)
        if isinstance(item, New):
            return self.new(item)
        if found is None:
            return "unknown"
        if found.status in CLOSED:
            return "closed"
        if isinstance(item, Turn):
            return self.turn(found, item)
        if isinstance(item, Post):
            return self.post(found, item)
        if item.fence not in (None, found.fence):
            return "stale"
        self.answer(found, item.status, item.wake, item.seen, item.releases)
        found.reason, found.build = item.reason, item.build
        return Receipt()

    def new(self, item: New) -> Receipt | str:
        found = self.executions.get(item.id)
        if found is not None:
            same = (found.workflow, found.digest) == (item.workflow, item.digest)
            return Receipt(created=False, number=len(found.runs) - 1) if same else "conflict"
        made = Execution(
            item.id,
            item.workflow,
            item.digest,
            item.at,
            item.status,
            item.wake,
            item.at,
            [list(item.records)],
        )
        self.executions[item.id] = made
        if item.owner is not None:
            made.owner, made.fence = item.owner, 1
            made.given = item.wake is not None and item.wake <= item.at
            self.leases.setdefault(item.owner, self.now + 30.0)
        made.settle()
        return Receipt(fence=made.fence, conflicts=self.follow(item.creates, item.posts))

    def follow(self, creates: Any, posts: Any) -> tuple[str, ...]:
        conflicts: list[str] = []
        for new in creates:
            done = self.new(new)
            conflicts += [new.id] if isinstance(done, str) else done.conflicts
        for post in posts:
            self.write(post)
        return tuple(conflicts)

    def turn(self, found: Execution, item: Turn) -> Receipt | str:
        if (item.run, item.position, item.fence) != (len(found.runs) - 1, len(found.runs[-1]), found.fence):
            return "stale"
        if not set(item.consumes) <= {message.number for message in found.inbox}:
            return "stale"
        found.inbox = [message for message in found.inbox if message.number not in item.consumes]
        found.runs[-1] += item.records
        status = item.status
        if item.opens is not None:
            found.runs.append(list(item.opens))
            status = Status.SCHEDULED if status in CLOSED else status
        self.answer(found, status, item.wake, item.seen, item.releases)
        found.updated_at = item.at
        return Receipt(conflicts=self.follow(item.creates, item.posts))

    def answer(self, found: Execution, status: Status, wake: float | None, seen: int, releases: bool) -> None:
        if status is not found.status:
            found.reason = found.build = ""
        found.status, found.wake, found.seen, found.given = status, wake, seen, False
        found.asked = wake
        if status in CLOSED:
            found.owner = found.wake = None
        if releases:
            found.owner = None
        found.settle()

    def post(self, found: Execution, item: Post) -> Receipt:
        if item.key is not None and item.key in found.keys:
            return Receipt(created=False, number=found.keys[item.key])
        found.posted += 1
        found.inbox.append(Message(found.posted, item.kind, item.name, item.payload, item.at, item.key))
        if item.key is not None:
            found.keys[item.key] = found.posted
        found.given = False
        return Receipt(number=found.posted)

    def sweep(self, but: str) -> None:
        for worker in [worker for worker, end in self.leases.items() if end <= self.now and worker != but]:
            held = [each for each in self.executions.values() if each.owner == worker]
            for each in held:
                each.owner = None
                each.wake = 0.0 if each.given else each.wake
                each.given = False
                each.settle()
                self.robbed.add(worker)

    def claim(self, worker: str, now: float, limit: int, workflows: list[str] | None) -> list[Summary]:
        self.sweep(but=worker)
        self.leases[worker] = self.now + LEASE_S
        order = list(self.executions)
        due = [
            (when, order.index(each.id), each)
            for each in self.executions.values()
            if (when := each.due()) is not None
            and when <= now
            and each.owner in (None, worker)
            and (workflows is None or each.workflow in workflows)
        ]
        given = [each for *_, each in sorted(due, key=lambda entry: entry[:2])][:limit]
        for each in given:
            self.take(each, worker)
            each.given = True
        return [each.summary() for each in given]

    def take(self, found: Execution, worker: str) -> None:
        if found.owner != worker:
            found.owner = worker
            found.fence += 1

    def acquire(self, worker: str, id: str) -> Summary | None:
        found = self.executions.get(id)
        if found is None or found.status in CLOSED:
            return None
        if found.owner not in (None, worker):
            self.sweep(but=worker)
        if found.owner not in (None, worker):
            return None
        self.leases[worker] = self.now + LEASE_S
        self.take(found, worker)
        return found.summary()

    def renew(self, worker: str) -> bool:
        self.leases[worker] = self.now + LEASE_S
        robbed = worker in self.robbed
        self.robbed.discard(worker)
        return not robbed

    def release(self, worker: str, ids: list[str] | None) -> None:
        for each in self.executions.values():
            if each.owner == worker and (ids is None or each.id in ids):
                each.owner, each.given = None, False
                each.settle()

    def reopen(self, *, forgets: bool) -> None:
        """Nobody holds anything; a store that keeps writes only `forgets` what a lease that ran out made due."""
        for worker in WORKERS:
            self.release(worker, None)
        self.leases.clear()
        self.robbed.clear()
        for each in self.executions.values():
            if forgets and each.status not in CLOSED:
                each.wake = each.asked
                each.settle()


# ---------------------------------------------------------------- what is written

ids = st.sampled_from(IDS)
wakes = st.one_of(st.none(), st.sampled_from([0.0, 5.0, 15.0, 25.0]))
payloads = st.one_of(st.binary(max_size=8), st.just(b"\xff" * 99))
keys = st.sampled_from([None, None, "k1", "k2"])
statuses = st.sampled_from([status for status in Status if status not in CLOSED] * 4 + sorted(CLOSED))
kinds = st.sampled_from(["event", "child", "cancel", "terminate"])


@st.composite
def new_writes(draw: Any, depth: int = 1) -> New:
    return New(
        draw(ids),
        draw(st.sampled_from(WORKFLOWS)),
        draw(st.sampled_from(["d", "d", "d", "e"])),
        draw(st.lists(st.builds(Record, st.just("Started"), st.just(1.0), payloads), max_size=2)),
        1.0,
        wake=draw(wakes),
        owner=draw(st.sampled_from([None, None, *WORKERS])),
        creates=draw(st.lists(new_writes(depth=0), max_size=2)) if depth else (),
        posts=draw(st.lists(post_writes(), max_size=1)),
    )


def post_writes() -> st.SearchStrategy[Post]:
    return st.builds(Post, ids, kinds, st.sampled_from(["n", "m'"]), payloads, st.just(2.0), key=keys)


class Machine(RuleBasedStateMachine):
    """One store and one model."""

    store = "memory"

    @initialize()
    def begin(self) -> None:
        self.place = tempfile.mkdtemp(prefix="zart-machine-")
        self.clock_s = 1000.0
        self.times = itertools.count(3)
        how = OPEN[self.store](self.place, next(machines))
        self.open = lambda: how["open"](how["url"], clock=lambda: self.clock_s)
        self.log: EventLog = self.open()
        self.model = Model()
        self.model.now = self.clock_s

    def teardown(self) -> None:
        if hasattr(self, "log"):
            self.log.verify()
            self.log.close()
            shutil.rmtree(self.place)

    # ------------------------------------------------ rules

    @rule(batch=st.lists(st.one_of(new_writes(), post_writes()), min_size=1, max_size=4))
    def new_and_post(self, batch: list[Write]) -> None:
        self.append(batch)

    @rule(data=st.data(), count=st.integers(1, 3))
    def turns(self, data: st.DataObject, count: int) -> None:
        self.append([self.draw_turn(data) for _ in range(count)])

    @rule(data=st.data(), news=st.lists(new_writes(), max_size=2), posts=st.lists(post_writes(), max_size=2))
    def mixed(self, data: st.DataObject, news: list[Write], posts: list[Write]) -> None:
        batch = [*news, *posts, self.draw_turn(data), self.draw_mark(data)]
        self.append(data.draw(st.permutations(batch)))

    @rule(data=st.data())
    def mark(self, data: st.DataObject) -> None:
        self.append([self.draw_mark(data)])

    @rule(
        worker=st.sampled_from(WORKERS),
        now=st.sampled_from([0.0, 5.0, 10.0, 20.0, 1e9]),
        limit=st.integers(0, 3),
        workflows=st.sampled_from([None, None, ["w"], ["v", "w"], []]),
    )
    def claim(self, worker: str, now: float, limit: int, workflows: list[str] | None) -> None:
        wanted = self.model.claim(worker, now, limit, workflows)
        assert (
            list(self.log.claim(worker, now=now, lease_s=LEASE_S, limit=limit, workflows=workflows)) == wanted
        )

    @rule(worker=st.sampled_from(WORKERS), id=ids)
    def acquire(self, worker: str, id: str) -> None:
        wanted = self.model.acquire(worker, id)
        assert self.log.acquire(worker, id, lease_s=LEASE_S) == wanted

    @rule(worker=st.sampled_from(WORKERS))
    def renew(self, worker: str) -> None:
        assert self.log.renew(worker, lease_s=LEASE_S) == self.model.renew(worker)

    @rule(worker=st.sampled_from(WORKERS), some=st.one_of(st.none(), st.lists(ids, max_size=2)))
    def release(self, worker: str, some: list[str] | None) -> None:
        self.log.release(worker, some)
        self.model.release(worker, some)

    @rule(seconds=st.sampled_from([1.0, 6.0, LEASE_S, 31.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock_s += seconds
        self.model.now = self.clock_s

    @precondition(lambda self: self.model.executions)
    @rule()
    def reopen(self) -> None:
        self.log.close()
        self.log = self.open()
        self.model.reopen(forgets=self.store == "file")

    # ------------------------------------------------ what they write

    def draw_turn(self, data: st.DataObject) -> Turn:
        """Draw a turn that fits, as a rule; what it consumes is there, as a rule."""
        id = data.draw(ids)
        found = self.model.executions.get(id)
        run, position, fence, unread = 0, 0, 0, []
        if found is not None:
            run, position, fence = len(found.runs) - 1, len(found.runs[-1]), found.fence
            unread = [message.number for message in found.inbox]
        off = data.draw(
            st.sampled_from([(0, 0, 0)] * 8 + [(1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1)])
        )
        at = float(next(self.times))
        records = st.lists(st.builds(Record, st.just("X"), st.just(at), payloads), max_size=3)
        numbers = st.sampled_from([*unread * 5, 99]) if unread else st.just(99)
        return Turn(
            id,
            run + off[0],
            position + off[1],
            fence + off[2],
            data.draw(records),
            at,
            data.draw(statuses),
            wake=data.draw(wakes),
            seen=data.draw(st.integers(0, found.posted if found else 0)),
            consumes=data.draw(st.lists(numbers, max_size=2)) if data.draw(st.booleans()) else (),
            opens=data.draw(records) if data.draw(st.integers(0, 5)) == 0 else None,
            creates=data.draw(st.lists(new_writes(), max_size=1)),
            posts=data.draw(st.lists(post_writes(), max_size=2)),
            releases=data.draw(st.integers(0, 3)) == 0,
        )

    def draw_mark(self, data: st.DataObject) -> Mark:
        id = data.draw(ids)
        found = self.model.executions.get(id)
        fences = [None, 0, found.fence] if found else [None]
        return Mark(
            id,
            data.draw(statuses.filter(lambda status: status not in CLOSED)),
            reason=data.draw(st.sampled_from(["", "why\n", "'--"])),
            build=data.draw(st.sampled_from(["", "b1"])),
            wake=data.draw(wakes),
            seen=data.draw(st.integers(0, found.posted if found else 0)),
            fence=data.draw(st.sampled_from(fences)),
            releases=data.draw(st.booleans()),
        )

    def append(self, batch: list[Write]) -> None:
        outcomes = self.log.append(batch)
        wanted = [self.model.write(item) for item in batch]
        assert [self.shown(outcome) for outcome in outcomes] == wanted

    def shown(self, outcome: object) -> object:
        if isinstance(outcome, Rejected):
            return outcome.reason.split()[0].rstrip(":")
        assert isinstance(outcome, Ok), outcome
        return attrs.evolve(outcome.value, conflicts=tuple(outcome.value.conflicts))

    # ------------------------------------------------ what must hold

    @invariant()
    def same(self) -> None:
        """Everything that can be read is what the model says."""
        if not hasattr(self, "model"):
            return
        for id in IDS:
            found = self.model.executions.get(id)
            if found is None:
                assert (self.log.summary(id), self.log.records(id), self.log.inbox(id)) == (None, [], [])
                continue
            assert self.log.summary(id) == found.summary()
            for run, records in enumerate(found.runs):
                assert self.log.records(id, run) == records
            assert self.log.records(id, start=1) == found.runs[-1][1:]
            assert self.log.inbox(id) == found.inbox
        due = [when for each in self.model.executions.values() if (when := each.due()) is not None]
        assert self.log.next_wake() == min(due, default=None)

    @invariant()
    def same_lists(self) -> None:
        """Lists and counts are what the model says."""
        if not hasattr(self, "model"):
            return
        order = sorted(self.model.executions)
        all = [self.model.executions[id].summary() for id in order]
        page = self.log.list(limit=2)
        rest = self.log.list(after=page.next) if page.next else page
        assert (list(page.items) + (list(rest.items) if page.next else [])) == all
        assert list(self.log.list(workflow="w").items) == [each for each in all if each.workflow == "w"]
        stats = {status: n for status, n in self.log.stats().items() if n}
        assert sum(stats.values()) == len(all)
        for status, n in stats.items():
            wanted = [each for each in all if each.status is status]
            assert (n, list(self.log.list(status=status).items)) == (len(wanted), wanted)


@pytest.mark.parametrize("store", sorted(OPEN))
def test_store_beside_model(store: str) -> None:
    """L1-L13: the store and the model tell the same after every step."""
    machine = type(f"{store.title()}Machine", (Machine,), {"store": store})
    case = machine.TestCase
    case.settings = settings(
        max_examples=25 * int(os.environ.get("ZART_DEEP", "1")),
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    case("runTest").runTest()
