"""A log that passes everything on to another: what logs with faults and crashes are made of.

Rule 1: `reach` is called before every call that is passed on; what it raises, the call raises.
"""

from __future__ import annotations

import builtins
from collections.abc import Collection, Mapping, Sequence

from zart_core.events import Status
from zart_core.log import Appended, EventLog, Level, Message, Page, Record, Shared, Summary, Write


class Relay:
    """An EventLog in front of another, `log`. Override what is to differ."""

    def __init__(self, log: EventLog) -> None:
        self.log = log

    def reach(self, method: str) -> None:
        """Called with the name of the method that is about to be passed on."""

    @property
    def level(self) -> Level:
        """See EventLog."""
        return self.log.level

    @property
    def blocking(self) -> bool:
        """See EventLog."""
        return self.log.blocking

    def append(self, batch: Sequence[Write]) -> builtins.list[Appended]:
        """See EventLog."""
        self.reach("append")
        return self.log.append(batch)

    def summary(self, id: str) -> Summary | None:
        """See EventLog."""
        self.reach("summary")
        return self.log.summary(id)

    def records(self, id: str, run: int | None = None, start: int = 0) -> builtins.list[Record]:
        """See EventLog."""
        self.reach("records")
        return self.log.records(id, run, start)

    def inbox(self, id: str, after: int = 0) -> builtins.list[Message]:
        """See EventLog."""
        self.reach("inbox")
        return self.log.inbox(id, after)

    def others(self, worker: str) -> int:
        """See Shared; 0 where the other log cannot say."""
        self.reach("others")
        return self.log.others(worker) if isinstance(self.log, Shared) else 0

    def claim(
        self, worker: str, *, now: float, lease_s: float, limit: int, workflows: Collection[str] | None = None
    ) -> builtins.list[Summary]:
        """See EventLog."""
        self.reach("claim")
        return self.log.claim(worker, now=now, lease_s=lease_s, limit=limit, workflows=workflows)

    def acquire(self, worker: str, id: str, *, lease_s: float) -> Summary | None:
        """See EventLog."""
        self.reach("acquire")
        return self.log.acquire(worker, id, lease_s=lease_s)

    def renew(self, worker: str, *, lease_s: float) -> bool:
        """See EventLog."""
        self.reach("renew")
        return self.log.renew(worker, lease_s=lease_s)

    def release(self, worker: str, ids: Collection[str] | None = None) -> None:
        """See EventLog."""
        self.reach("release")
        self.log.release(worker, ids)

    def next_wake(self) -> float | None:
        """See EventLog."""
        self.reach("next_wake")
        return self.log.next_wake()

    def wait(self, timeout_s: float) -> bool:
        """See EventLog."""
        self.reach("wait")
        return self.log.wait(timeout_s)

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
        self.reach("list")
        return self.log.list(status=status, workflow=workflow, id_prefix=id_prefix, limit=limit, after=after)

    def stats(self) -> Mapping[Status, int]:
        """See EventLog."""
        self.reach("stats")
        return self.log.stats()

    def verify(self) -> Mapping[str, int]:
        """See EventLog."""
        self.reach("verify")
        return self.log.verify()

    def close(self) -> None:
        """See EventLog."""
        self.log.close()
