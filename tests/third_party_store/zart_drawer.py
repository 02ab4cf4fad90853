"""A store from somebody else: `drawer:NAME` keeps a log in memory and counts what goes in.

Rule 1: it is written against zart_core alone, and found through its entry point.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from zart_core.errors import InvalidUse
from zart_core.hosts.ports import open_log
from zart_core.log import Appended, EventLog, Write
from zart_core.testing import Relay


class Drawer(Relay):
    """An EventLog that passes everything on, and counts."""

    writes = 0

    def append(self, batch: Sequence[Write]) -> list[Appended]:
        """See EventLog."""
        self.writes += len(batch)
        return super().append(batch)


def open(url: str, *, durability: str = "none", clock: Callable[[], float] = time.monotonic) -> EventLog:
    """Open `drawer:NAME`. Raises InvalidUse for another URL or durability."""
    name = url.removeprefix("drawer:")
    if not name or name == url:
        raise InvalidUse(f"{url!r} is no URL of a drawer; write drawer:NAME")
    if durability != "none":
        raise InvalidUse(f"a drawer survives nothing, and durability={durability!r} was asked for")
    log = open_log(f"memory:drawer-{name}")
    log._clock = clock  # type: ignore[attr-defined]  # leases run by the clock of a test
    return Drawer(log)
