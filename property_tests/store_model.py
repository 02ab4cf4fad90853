"""What a log promises, read directly off `zart_core.log`, with lists and scans; it shares no code with the stores."""

from __future__ import annotations

import math
from typing import Any

import attrs

from zart_core.events import CLOSED, Status
from zart_core.log import Message, New, Post, Receipt, Record, Summary, Turn, Write

LEASE_S = 10.0
NEW_LEASE_S = 30.0
"""The lease of a worker that owns a new execution and has none."""


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
    claimed_as: str | None = None

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
            self.claimed_as,
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
            claimed_as=item.claimed_as,
        )
        self.executions[item.id] = made
        if item.owner is not None:
            made.owner, made.fence = item.owner, 1
            made.given = item.wake is not None and item.wake <= item.at
            self.leases.setdefault(item.owner, self.now + NEW_LEASE_S)
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
            found.claimed_as = item.opens_as
            status = Status.SCHEDULED if status in CLOSED else status
        self.answer(found, status, item.wake, item.seen, item.releases)
        found.updated_at = item.at
        return Receipt(conflicts=self.follow(item.creates, item.posts))

    def answer(self, found: Execution, status: Status, wake: float | None, seen: int, releases: bool) -> None:
        if status is not found.status:
            found.reason = found.build = ""
        found.status, found.wake, found.seen, found.given = status, wake, seen, False
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
            and (workflows is None or (each.claimed_as or each.workflow) in workflows)
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

    def close(self, workers: list[str]) -> None:
        """A log object is closed: what its workers held is free."""
        for worker in workers:
            self.release(worker, None)
            self.leases.pop(worker, None)
            self.robbed.discard(worker)

    def bury(self, workers: list[str]) -> None:
        """Workers have died with their process, and a claim will find that out."""
        for worker in workers:
            if worker in self.leases:
                self.leases[worker] = -math.inf
