"""Where the logs of explorations are kept, on every store: each place dies as a process or a machine would.

Rule 1: nothing is closed in order by a death; the next life finds what the dead one left on the disk, and nothing else.
"""

from __future__ import annotations

import bisect
import contextlib
import functools
import random
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from zart_core.errors import ZartError
from zart_core.events import Ok
from zart_core.log import Appended, EventLog, Post, Receipt, Rejected, Turn, Write
from zart_core.testing import Relay, SimulatedCrash, SimulatedFileSystem
from zart_core.testing.world import Kept
from zart_stores import memory
from zart_stores.file.store import open as open_file_log
from zart_stores.sql import sqlite

STATES = 16
"""Of how many states that may be left after power is lost one is found."""


class InMemory(Kept):
    """A log that outlives its host. Nothing tears: an append is one call."""

    wrong: Sequence[str] = ()

    def __init__(self) -> None:
        super().__init__(memory.open("memory:"))

    def freeze(self) -> None:
        """There is no disk."""


class FileLosingPower:
    """A file log on a disk that loses power at each death: one of the states is found that may be left (F1 to F4)."""

    wrong: Sequence[str] = ()

    def __init__(self, lots: random.Random, durability: str = "power") -> None:
        self.fs = SimulatedFileSystem()
        self.lots = lots
        self.durability = durability
        self.left: SimulatedFileSystem | None = None

    def open(self) -> EventLog:
        return open_file_log("file:/log", fs=self.fs, durability=self.durability)

    def freeze(self) -> None:
        """Power is lost at this very moment."""
        self.left = self.fs.crash_state(self.lots, STATES, ignore=("/log/lock",))

    def crash(self, log: EventLog | None) -> None:
        if self.left is None:
            self.freeze()
            assert self.left is not None
        self.fs, self.left = self.left, None

    def close(self, log: EventLog) -> None:
        log.close()

    def tear(self, log: EventLog, batch: Sequence[Write]) -> None:
        def lose(call: Any) -> None:
            if call.kind == "sync":
                raise SimulatedCrash("power is lost before the sync")

        self.fs.on_call = lose
        with contextlib.suppress(SimulatedCrash):
            log.append(batch)


class SqliteAbandoned:
    """A database whose process dies: the files are found as they stand; a torn write-ahead log is cut anywhere (F1)."""

    def __init__(
        self, home: Path, lots: random.Random, files: Mapping[str, bytes] = MappingProxyType({})
    ) -> None:
        self.home = home
        self.lots = lots
        self.files = dict(files)
        """What is found by the next life; in the first one nothing, unless `empty_database` is given."""
        self.frozen = False
        self.path = self.fresh()

    def fresh(self) -> str:
        """A directory with the files as they were left."""
        self.path = tempfile.mkdtemp(dir=self.home)
        for name, content in self.files.items():
            with open(f"{self.path}/{name}", "wb") as file:
                file.write(content)
        return self.path

    def found(self) -> dict[str, bytes]:
        """What a reader sees, which is what stays when only the process dies; shared memory is its own affair."""
        found = {}
        for name in SQLITE_FILES:
            with contextlib.suppress(FileNotFoundError), open(f"{self.path}/{name}", "rb") as file:
                found[name] = file.read()
        return found

    def open(self) -> EventLog:
        return sqlite.open(f"sqlite:{self.path}/log.db")

    def freeze(self) -> None:
        """The process dies at this very moment."""
        self.files = self.found()
        self.frozen = True

    def crash(self, log: EventLog | None) -> None:
        if not self.frozen:
            self.freeze()
        self.frozen = False
        self.abandon(log)
        self.fresh()

    def abandon(self, log: Any) -> None:
        """Let go of what a dead process has open; neither a farewell nor a checkpoint, which nobody would find."""
        if log is not None:
            for held in log._locks.values():
                held.drop()
            for connection in log._connections.values():
                connection.close()
        shutil.rmtree(self.path)

    def close(self, log: EventLog | None) -> None:
        if log is not None:
            log.close()
        shutil.rmtree(self.path)

    def tear(self, log: EventLog, batch: Sequence[Write]) -> None:
        before = self.found()
        log.append(batch)
        after = self.found()
        old, new = before.get(WAL, b""), after.get(WAL, b"")
        same = bisect.bisect_left(
            range(min(len(old), len(new))), True, key=lambda n: old[: n + 1] != new[: n + 1]
        )
        self.files = {**before, WAL: new[: self.lots.randrange(same, len(new) + 1)] + old[len(new) :]}
        self.frozen = True


class SqliteInterrupted(SqliteAbandoned):
    """Besides, the process that was interrupted goes on: its log must not be locked, nor in a transaction (F27)."""

    def __init__(self, home: Path, lots: random.Random) -> None:
        super().__init__(home, lots)
        self.wrong: list[str] = []

    def crash(self, log: EventLog | None) -> None:
        if not self.frozen:
            self.freeze()
        found = self.open() if log is None else log
        self.wrong += unserved(found)
        super().crash(found)

    def abandon(self, log: Any) -> None:
        """Closed in order: that must be possible, too."""
        self.close(log)


def unserved(log: Any) -> Iterator[str]:
    """What an SQLite log cannot do any more, on each of its connections."""
    if log._reading.locked() or log._writing._is_owned():
        yield "F27: the interrupted log is locked for ever"
        return
    (answer,) = log.append([Post("nobody", "event", "probe", b"0", 0.0)])
    if not (isinstance(answer, Rejected) and answer.reason.startswith("unknown")):
        yield f"F27: the interrupted log cannot be written: {answer}"
    for what in (log.stats, lambda: log.renew("probe", lease_s=1.0)):
        try:
            what()
        except ZartError as error:
            yield f"F27: the interrupted log cannot be used: {error}"


WAL = "log.db-wal"
SQLITE_FILES = ("log.db", WAL)


@functools.cache
def empty_database() -> Mapping[str, bytes]:
    """The files of a log in which nothing is yet: to make the tables takes longer than to run a short workflow."""
    with tempfile.TemporaryDirectory() as folder:
        sqlite.open(f"sqlite:{folder}/log.db").close()
        return MappingProxyType({"log.db": Path(f"{folder}/log.db").read_bytes()})


# ---------------------------------------------------------------- known-bad


class Early(Relay):
    """Acknowledges a turn before it is written, and writes it with the next call."""

    def __init__(self, log: EventLog) -> None:
        super().__init__(log)
        self.held: Sequence[Write] = ()

    def reach(self, method: str) -> None:
        held, self.held = self.held, ()
        if held:
            self.log.append(held)

    def append(self, batch: Sequence[Write]) -> list[Appended]:
        self.reach("append")
        if not all(isinstance(write, Turn) for write in batch):
            return self.log.append(batch)
        self.held = batch
        return [Ok(Receipt()) for _ in batch]
