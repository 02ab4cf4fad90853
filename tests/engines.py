"""What the tests of the engine share: stores, patience, journals, and logs whose weather is made to order."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import zart_core as zart
from zart_core.hosts.ports import open_log
from zart_core.log import Appended, EventLog, Turn, Unknown, Write
from zart_core.testing.relay import Relay

STORES = ("memory", "sqlite", "file")
PATIENCE_S = 10.0


def url_of(store: str, path: Path) -> str:
    """The URL of a store in a directory of its own."""
    match store:
        case "memory":
            return "memory:"
        case "sqlite":
            return f"sqlite:{path}/log.db"
        case _:
            return f"file:{path}/log"


def until(fact: Callable[[], Any], patience_s: float = PATIENCE_S) -> Any:
    """Wait until something is so, and give it."""
    end = time.monotonic() + patience_s
    while not (found := fact()):
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.005)
    return found


def kinds(events: Sequence[zart.Event]) -> list[str]:
    """The types of events, in order."""
    return [type(event).__name__ for event in events]


class Ledger:
    """What steps did, by name, across threads."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.entries: list[Any] = []

    def __call__(self, entry: Any) -> int:
        """Enter something; gives how often it has been entered."""
        with self.lock:
            self.entries.append(entry)
            return self.entries.count(entry)


class Sky(Relay):
    """A log whose next appends go as they are told to: each entry of `forecast` is for one batch with a match.

    "lost": Unknown, and not written. "written": Unknown, and written. "full": Rejected. "unavailable":
    StoreUnavailable is raised. "failed": StoreFailed is raised. `match` says which batches count.
    """

    def __init__(self, log: EventLog) -> None:
        super().__init__(log)
        self.forecast: list[str] = []
        self.match: Callable[[Write], bool] = lambda write: isinstance(write, Turn)
        self.batches: list[list[Write]] = []
        self.reads: list[str] = []
        """What reads raise, in order."""

    def append(self, batch: Sequence[Write]) -> list[Appended]:
        """See EventLog."""
        self.batches.append(list(batch))
        if not self.forecast or not any(self.match(write) for write in batch):
            return self.log.append(batch)
        match self.forecast.pop(0):
            case "lost":
                return [Unknown("the connection was lost") for _ in batch]
            case "written":
                self.log.append(batch)
                return [Unknown("the connection was lost") for _ in batch]
            case "full":
                return [zart_rejected("full: no space left") for _ in batch]
            case "unavailable":
                raise zart.StoreUnavailable("the store cannot be reached")
            case "failed":
                raise zart.StoreFailed("the disk said no")
            case other:
                raise AssertionError(other)

    def reach(self, method: str) -> None:
        """Reads fail as told."""
        if method in ("summary", "records", "inbox", "claim") and self.reads:
            self.reads.pop(0)
            raise zart.StoreUnavailable(f"{method}: the store cannot be reached")


def zart_rejected(reason: str) -> Appended:
    """A refusal."""
    from zart_core.log import Rejected

    return Rejected(reason)


def sky(store: str, path: Path) -> Sky:
    """A store under a sky."""
    return Sky(open_log(url_of(store, path)))


class Keyless:
    """A seal that has lost its key for what is told of a place or a kind of events, so many times."""

    def __init__(self, without: bytes = b"nothing", times: float = math.inf) -> None:
        self.without, self.times = without, times

    def seal(self, data: bytes, associated: bytes) -> bytes:
        """See Seal."""
        if self.without in associated and self.times > 0:
            self.times -= 1
            raise ConnectionError("the key cannot be had")
        return data

    def open(self, data: bytes, associated: bytes) -> bytes:
        """See Seal."""
        return data
