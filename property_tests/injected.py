"""A workload that tells whether its store kept its word while the system's calls failed: run by `warm`.

Rule 1: an outcome is Ok, Rejected or Unknown. Ok is there, Rejected is not, Unknown is one of both and stays so; what
        is raised is weather, or the use of a place that cannot be used (F5 to F8, I9).
Rule 2: after each append the store shows what the memory store shows after the writes that are in (I1).
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
import sys
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

from zart_core.errors import InvalidUse, LogCorrupt, StoreFailed, Weather
from zart_core.events import Ok
from zart_core.hosts.ports import opener_of
from zart_core.log import EventLog, Rejected, Unknown
from zart_core.testing import probe
from zart_stores.file.fs import RealFileSystem

T = TypeVar("T")
TRIES_MAX = 4
APPENDS = 5
OPENERS = {scheme: opener_of(f"{scheme}:x") for scheme in ("file", "sqlite", "memory")}
ALLOWED = ("full", "unavailable")
"""How a Rejected begins that the weather is to blame for."""
# SQLite calls it corruption when the system cannot read: EIO becomes SQLITE_CORRUPT, so the store calls it damage.
DAMAGE = "damaged"


class Violation(AssertionError):
    """The store did not keep its word."""


class Workload:
    """Appends, claims and reopenings; a store that fails is opened again."""

    def __init__(self, url: str, seed: int, call: str) -> None:
        self.url = url
        unreadable = url.startswith("sqlite:") and call == "pread64"
        self.weather = (Weather, InvalidUse, LogCorrupt) if unreadable else (Weather, InvalidUse)
        self.allowed = (*ALLOWED, DAMAGE) if unreadable else ALLOWED
        self.chance = random.Random(seed)
        self.twin = OPENERS["memory"]("memory:", "power")
        self.seen: Counter[str] = Counter()
        self.log: EventLog | None = None

    def opened(self) -> EventLog:
        """The log, opened if need be."""
        if self.log is None:
            self.log = self.again(lambda: OPENERS[self.url.partition(":")[0]](self.url, "power"))
        return self.log

    def again(self, action: Callable[[], T]) -> T:
        """Do something that only reads or opens, again after bad weather."""
        for _ in range(TRIES_MAX - 1):
            try:
                return action()
            except StoreFailed:
                self.seen["failed"] += 1
                self.close()
            except self.weather:
                self.seen["weather"] += 1
        return action()

    def close(self) -> None:
        """Let the store go."""
        log, self.log = self.log, None
        if log is not None:
            log.close()

    def picture(self) -> probe.Picture:
        """What the store shows."""
        return self.again(lambda: probe.picture(self.opened()))

    def run(self) -> None:
        """Two sessions."""
        for session in range(2):
            for _ in range(APPENDS):
                if self.chance.random() < 0.2:
                    self.again(lambda: self.opened().claim("w", now=probe.AT, lease_s=3600.0, limit=2))
                self.append(probe.Appending([self.chance.randrange(1 << 32)]))
            if session == 0:
                self.close()
        self.again(lambda: self.opened().verify())
        self.close()

    def append(self, op: probe.Appending) -> None:
        """Append one write, again when it was Rejected, and check after each answer.

        The twin gets a write of its own: there nothing is claimed, so that fences differ.
        """
        (twin,) = probe.batch_of(self.twin, op)
        for _ in range(TRIES_MAX):
            before = probe.picture(self.twin)
            (item,) = self.again(lambda: probe.batch_of(self.opened(), op))
            try:
                (outcome,) = self.opened().append([item])
            except StoreFailed:
                self.close()
                outcome = Rejected("unavailable: raised")
            self.seen[type(outcome).__name__.lower()] += 1
            if isinstance(outcome, Rejected) and not outcome.reason.startswith(self.allowed):
                raise Violation(f"Rejected for a reason that was not there: {outcome.reason}")
            if isinstance(outcome, Unknown):
                self.close()
                there = self.picture() != before
            else:
                there = isinstance(outcome, Ok)
            if there:
                probe.accepted(self.twin, [twin])
            if (found := self.picture()) != probe.picture(self.twin):
                raise Violation(f"after {outcome!r:.200}: {len(found)} executions, not what was written")
            if there:
                return
        raise Violation("one error, and it never takes the write")


def digest(picture: probe.Picture) -> str:
    """A picture, in short."""
    return hashlib.sha256(repr(picture).encode()).hexdigest()


def lie() -> None:
    """Make the file log believe that what could not be written was written: the known-bad control."""
    plain = RealFileSystem.pwrite

    def pwrite(self: RealFileSystem, fd: int, data: bytes | memoryview, offset: int) -> int:
        try:
            return plain(self, fd, data, offset)
        except OSError:
            return len(data)

    RealFileSystem.pwrite = pwrite  # type: ignore[method-assign]


def main(arguments: list[str]) -> int:
    """Carry out the workload of a URL and a seed while calls of a kind fail; print what was seen as JSON."""
    logging.disable(logging.CRITICAL)
    url, seed, call = arguments
    if call == "lying":
        lie()
    workload = Workload(url, int(seed), call)
    try:
        workload.run()
    except (Violation, LogCorrupt) as violation:
        print(json.dumps({"violation": str(violation)}))
        return 1
    print(json.dumps({"seen": workload.seen, "picture": digest(probe.picture(workload.twin))}))
    sys.stdout.flush()
    return 0
