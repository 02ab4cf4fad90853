"""Where the log of a campaign is: in a directory, or in a schema of a server.

Rule 1: who looks changes nothing of it, so that it is always the next worker who recovers.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import psycopg

from tests.postgres import Server
from zart_core.hosts.claims import LEASE_S
from zart_core.testing.power import memory
from zart_stores.sql.postgres_server import address_of, version

PATIENCE_S = 60.0
"""How long the server may be at what a dead worker has asked of it."""


class Home(Protocol):
    """A place for one log."""

    name: str
    url: str
    calls: tuple[str, ...]
    """System calls at which a worker may be killed; strace counts them per thread."""
    recovers: bool
    """Whether to open the log is to recover it: else that is the server's work, and it has not been harmed."""

    def life(self, chance: random.Random) -> Mapping[str, str]:
        """What the next worker finds in its environment."""
        ...

    def looked_at(self) -> contextlib.AbstractContextManager[str]:
        """The URL of what may be read and not changed; empty while there is no log yet."""
        ...

    def close(self) -> None:
        """Take it away."""
        ...


class InDirectory:
    """A log in files. The dead hold no locks, so that the next worker has all of it at once."""

    calls = ("pwrite64", "pwrite64", "fdatasync", "write")
    recovers = True

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.directory = directory / "store"
        self.directory.mkdir()
        self.url = self.url_in(self.directory)

    def url_in(self, directory: Path) -> str:
        """The URL of the log in a directory."""
        return f"file:{directory}/log" if self.name == "file" else f"sqlite:{directory}/log.db"

    def life(self, chance: random.Random) -> Mapping[str, str]:
        """See Home."""
        return {}

    @contextlib.contextmanager
    def looked_at(self) -> Iterator[str]:
        """See Home. A copy."""
        with tempfile.TemporaryDirectory(dir=memory()) as place:
            copy = Path(place) / "store"
            shutil.copytree(self.directory, copy)
            yield self.url_in(copy)

    def close(self) -> None:
        """See Home. Whoever gave the directory takes it away."""


class OnServer:
    """A log in a schema of its own. What a worker held when it died is others' after its lease (L8).

    A lease is of the usual length, and the clock by which leases end is put forward between two lives: by so much that
    the next worker takes over at its birth, in the middle of its life, or leaves it to one of those after it.
    """

    name = "postgresql"
    calls = ("sendto", "sendto", "recvfrom", "write")
    recovers = False

    def __init__(self, server: Server, seed: int) -> None:
        self.server = server
        self.schema = f"kill9_{seed}"
        self.url = f"{server.url(self.schema)}&application_name={self.schema}"
        self.ahead_s = 0.0
        """How far the clock of leases is ahead of time."""

    def life(self, chance: random.Random) -> Mapping[str, str]:
        """See Home."""
        self.ahead_s += LEASE_S - max(0.0, chance.uniform(-1.0, 1.0))
        return {"KILL9_LEASES_AHEAD_S": str(self.ahead_s)}

    @contextlib.contextmanager
    def looked_at(self) -> Iterator[str]:
        """See Home. The log itself, by connections that cannot write, once the server is done with the dead."""
        with psycopg.connect(self.server.dsn, autocommit=True) as db:
            self.wait_for_the_dead(db)
            exists = version(db, address_of(self.url)) > 0
        yield f"{self.server.url(self.schema)}&options=-cdefault_transaction_read_only%3Don" if exists else ""

    def wait_for_the_dead(self, db: psycopg.Connection) -> None:
        """Wait until the server has ended what the dead worker asked for: a commit may still be on its way."""
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
        end = time.monotonic() + PATIENCE_S
        while db.execute(query, (self.schema,)).fetchone() != (0,):
            if time.monotonic() > end:
                raise TimeoutError(f"the server does not let go of a dead worker in {PATIENCE_S:g} s")
            time.sleep(0.002)

    def close(self) -> None:
        """See Home."""
        with psycopg.connect(self.server.dsn, autocommit=True) as db:
            db.execute(f"DROP SCHEMA IF EXISTS {self.schema} CASCADE")
