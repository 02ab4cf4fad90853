"""Where rows are measured: sizes, a folder, and a PostgreSQL server once somebody asks for one."""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.measuring import Sizes
from benchmarks.places import File, Place, Postgres, Sqlite
from tests.postgres import Server, running

SERVER = ("shared_buffers=256MB", "max_wal_size=4GB", "track_wal_io_timing=on")
"""What the server is given beside its defaults: room, and a watch on its syncs. What it promises stays as it is."""


class Stage:
    """One run of the benchmarks."""

    def __init__(self, sizes: Sizes, folder: Path, stack: ExitStack) -> None:
        self.sizes = sizes
        self.folder = folder
        self._stack = stack
        self._server: Server | None = None
        self._postgres: Postgres | None = None

    @property
    def server(self) -> Server:
        """The PostgreSQL server of this run."""
        if self._server is None:
            self._server = self._stack.enter_context(running(*SERVER))
        return self._server

    def place(self, name: str) -> Place:
        """A store by its scheme."""
        if name == "postgresql":
            self._postgres = self._postgres or Postgres(self.server)
            return self._postgres
        return Sqlite(self.folder) if name == "sqlite" else File(self.folder)

    def fresh(self, name: str) -> str:
        """The URL of an empty store."""
        return "memory:" if name == "memory" else self.place(name).fresh()


@contextmanager
def staged(sizes: Sizes) -> Iterator[Stage]:
    """A stage that leaves nothing behind, also when it is told to end."""
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    folder = Path(tempfile.mkdtemp(prefix="zart-bench-"))
    with ExitStack() as stack:
        stack.callback(signal.signal, signal.SIGTERM, before)
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        yield Stage(sizes, folder, stack)
