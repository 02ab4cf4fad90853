"""Where the logs of explorations are kept, on every store: each place dies as a process or a machine would.

Rule 1: nothing is closed in order by a death; the next life finds what the dead one left on the disk, and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from zart_core.errors import ZartError
from zart_core.log import EventLog, Post, Rejected, Write
from zart_core.testing import SimulatedCrash, SimulatedFileSystem
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

    def __init__(self, home: Path, lots: random.Random) -> None:
        self.home = home
        self.lots = lots
        self.files: dict[str, bytes] = {}
        self.frozen = False
        self.path = self.fresh()

    def fresh(self) -> Path:
        """A directory with the files as they were left."""
        self.path = Path(tempfile.mkdtemp(dir=self.home))
        for name, content in self.files.items():
            (self.path / name).write_bytes(content)
        return self.path

    def found(self) -> dict[str, bytes]:
        """What a reader sees, which is what stays when only the process dies; shared memory is its own affair."""
        return {
            file.name: file.read_bytes() for file in self.path.glob("log.db*") if file.suffix in SQLITE_FILES
        }

    def open(self) -> EventLog:
        return sqlite.open(f"sqlite:{self.path / 'log.db'}")

    def freeze(self) -> None:
        """The process dies at this very moment."""
        self.files = self.found()
        self.frozen = True

    def crash(self, log: EventLog | None) -> None:
        if not self.frozen:
            self.freeze()
        self.frozen = False
        self.close(log)
        self.fresh()

    def close(self, log: EventLog | None) -> None:
        if log is not None:
            log.close()
        shutil.rmtree(self.path)

    def tear(self, log: EventLog, batch: Sequence[Write]) -> None:
        before = self.found()
        log.append(batch)
        after = self.found()
        old, new = before.get(WAL, b""), after.get(WAL, b"")
        same = len(os.path.commonprefix([old, new]))  # noqa: RUF071  # bytes, no path
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
SQLITE_FILES = {".db", ".db-wal"}
