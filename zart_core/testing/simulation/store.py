"""The store as a simulated worker sees it: the real one, under weather.

Rule 1: every call is one instant of virtual time; what the weather says of it is true (L3).
Rule 2: what is seen here is what really happened: claims, leases, commits and fences are witnessed at this place.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from zart_core.errors import StoreFailed, StoreUnavailable
from zart_core.events import Ok, Status
from zart_core.log import (
    Appended,
    EventLog,
    Mark,
    Message,
    New,
    Post,
    Record,
    Rejected,
    Summary,
    Turn,
    Unknown,
    Write,
)
from zart_core.testing.relay import Relay
from zart_core.testing.simulation.faults import OF_CALL, Fault
from zart_core.testing.simulation.threads import Blocked, Blocking, Gone

if TYPE_CHECKING:
    from zart_core.testing.simulation.process import Process

T = TypeVar("T")
SLOW_S = 60.0
"""The longest that a slow call takes, or a process stands still, in seconds: twice a lease."""
FULL_S = 5.0
"""The longest that the disk is full, in seconds."""
JUMP_S = 20.0
"""The farthest that a clock jumps, in seconds."""
MISFIT_S = 20.0
"""The longest that code is registered that fits no history, in seconds."""
CALLBACKS_MAX = 40
"""The greatest number of callbacks that a process still runs that is to be killed."""


class SimulatedStore(Relay):
    """A log that a worker's process has open."""

    def __init__(self, log: EventLog, process: Process) -> None:
        super().__init__(log)
        self.process = process
        self.world = process.world
        self.delayed: dict[Blocking, None] = {}
        """Calls that have had their fault, and are made a second time."""
        self.failed = False
        """Whether it can no longer be used by this process."""

    @property
    def blocking(self) -> bool:
        """So that the engine makes its calls in threads."""
        return True

    # ------------------------------------------------------------ weather

    def under_weather(self, method: str, call: Callable[[], T], unknown: Callable[[], T] | None = None) -> T:
        """Make a call, or let it go wrong. `unknown` is what a lost append gives; a read raises StoreUnavailable."""
        thread = self.process.threads.current
        assert thread is not None
        if self.failed:
            raise StoreFailed("a fault was asked for: the store has failed")
        if thread in self.delayed:
            del self.delayed[thread]
            return call()
        fault = self.world.fate.strike(OF_CALL, self.world.timeline.now)
        if fault is None:
            return call()
        self.world.trace(self.process.name, f"{method}: {fault}")
        if method in ("append", "claim"):
            self.world.counts[f"{fault.replace('_', ' ')} at {method}"] += 1
        return self.wronged(fault, thread, call, unknown)

    def wronged(
        self, fault: Fault, thread: Blocking, call: Callable[[], T], unknown: Callable[[], T] | None
    ) -> T:
        """Make a call that goes wrong, or one beside which something goes wrong."""
        world, process, chance = self.world, self.process, self.world.fate.lots.random
        match fault:
            case "death":
                if chance() < 0.5:
                    call()
                process.die()
                raise Gone
            case "kill":
                process.loop.last = int(CALLBACKS_MAX * chance())
                return call()
            case "lost_answer":
                call()
                return self.lost(unknown)
            case "lost_request":
                return self.lost(unknown)
            case "unavailable":
                raise StoreUnavailable("a fault was asked for: the store cannot be reached")
            case "failed":
                self.failed = True
                raise StoreFailed("a fault was asked for: the store has failed")
            case "full":
                world.full_until = world.timeline.now + FULL_S * chance()
                return call()
            case "slow":
                raise self.later(thread, SLOW_S * chance())
            case "pause":
                process.pause(SLOW_S * (1 - chance() ** 2))
                if unknown is not None or chance() < 0.5:  # an append is made when the process goes on
                    raise self.later(thread, 0.0)
                return call()
            case "jump":
                by = JUMP_S * (2 * chance() - 1)
                process.clock.skew += by
                world.counts["clock forward" if by > 0 else "clock back"] += 1
                return call()
            case "hand_over":
                process.hand_over()
                return call()
            case "bad_deploy":
                process.deploy_badly(MISFIT_S * chance())
                return call()
            case _:
                process.redeploy()
                return call()

    def later(self, thread: Blocking, delay_s: float) -> Blocked:
        """What has the call made again after a while."""
        self.delayed[thread] = None
        return Blocked(self.world.timeline.now + delay_s, wakes=False)

    def lost(self, unknown: Callable[[], T] | None) -> T:
        """The connection broke."""
        if unknown is None:
            raise StoreUnavailable("a fault was asked for: the connection was lost")
        return unknown()

    # ------------------------------------------------------------ what changes the log

    def append(self, batch: Sequence[Write]) -> list[Appended]:
        """See EventLog."""
        if not batch:
            return []
        return self.under_weather(
            "append",
            lambda: self.commit(batch),
            lambda: [Unknown("a fault was asked for: the connection was lost") for _ in batch],
        )

    def commit(self, batch: Sequence[Write]) -> list[Appended]:
        """Make the append, now."""
        world = self.world
        if world.timeline.now < world.full_until:
            world.trace(self.process.name, "append: full")
            return [Rejected("full: a fault was asked for") for _ in batch]
        return world.witness.append(self.process, self.log, batch)

    def claim(
        self, worker: str, *, now: float, lease_s: float, limit: int, workflows: Collection[str] | None = None
    ) -> list[Summary]:
        """See EventLog."""

        def call() -> list[Summary]:
            given = self.log.claim(worker, now=now, lease_s=lease_s, limit=limit, workflows=workflows)
            self.leased(lease_s)
            self.world.witness.claimed(self.process, given)
            return given

        return self.under_weather("claim", call)

    def acquire(self, worker: str, id: str, *, lease_s: float) -> Summary | None:
        """See EventLog."""

        def call() -> Summary | None:
            held = self.log.acquire(worker, id, lease_s=lease_s)
            if held is not None:
                self.leased(lease_s)
                self.world.witness.claimed(self.process, [held])
            return held

        return self.under_weather("acquire", call)

    def renew(self, worker: str, *, lease_s: float) -> bool:
        """See EventLog."""

        def call() -> bool:
            kept = self.log.renew(worker, lease_s=lease_s)
            self.leased(lease_s)
            return kept

        return self.under_weather("renew", call)

    def leased(self, lease_s: float) -> None:
        """The worker has a lease from now on."""
        self.process.leased_until = self.world.timeline.now + lease_s

    def release(self, worker: str, ids: Collection[str] | None = None) -> None:
        """See EventLog."""
        self.under_weather("release", lambda: self.log.release(worker, ids))
        self.world.wake()

    # ------------------------------------------------------------ what reads it

    def summary(self, id: str) -> Summary | None:
        """See EventLog."""
        return self.under_weather("summary", lambda: self.log.summary(id))

    def records(self, id: str, run: int | None = None, start: int = 0) -> list[Record]:
        """See EventLog."""
        return self.under_weather("records", lambda: self.log.records(id, run, start))

    def inbox(self, id: str, after: int = 0) -> list[Message]:
        """See EventLog."""
        return self.under_weather("inbox", lambda: self.log.inbox(id, after))

    def others(self, worker: str) -> int:
        """See Shared."""
        return self.under_weather("others", lambda: Relay.others(self, worker))

    def next_wake(self) -> float | None:
        """See EventLog."""
        return self.under_weather("next_wake", self.log.next_wake)

    def stats(self) -> Mapping[Status, int]:
        """See EventLog."""
        return self.under_weather("stats", self.log.stats)

    def wait(self, timeout_s: float) -> bool:
        """See EventLog: blocks its simulated thread until a write, or the end of the timeout."""
        thread, now = self.process.threads.current, self.world.timeline.now
        assert thread is not None
        until = now + timeout_s if thread.until is None else thread.until
        if self.log.wait(0.0):
            return True
        if now >= until:
            return False
        raise Blocked(until, wakes=True)

    def close(self) -> None:
        """See EventLog: the world's end closes the store."""


def described(write: Write) -> str:
    """What a write is, in a few words, without payloads."""
    match write:
        case Turn():
            kinds = " ".join(record.kind for record in write.records)
            opens = " opens" if write.opens is not None else ""
            gives = " releases" if write.releases else ""
            return f"turn {write.id}/{write.run}@{write.position}f{write.fence} [{kinds}] {write.status}{opens}{gives}"
        case New():
            return f"new {write.id} [{' '.join(record.kind for record in write.records)}]"
        case Post():
            return f"post {write.id} {write.kind} {write.name} {write.key}"
        case Mark():
            return f"mark {write.id} {write.status}"


def told(outcome: Appended) -> str:
    """An outcome, in a word or two."""
    match outcome:
        case Ok(receipt):
            return f"ok {receipt.number or ''}".rstrip()
        case Rejected(reason) | Unknown(reason):
            return f"{type(outcome).__name__.lower()} {reason.split(':')[0]}"
