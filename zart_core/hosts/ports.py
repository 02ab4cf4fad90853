"""What a host is written against, beside `Execution` and `EventLog`: a clock, and something that runs steps.

Rule 1: every outside thing has a simulated twin of the same shape in `zart_core.testing`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import importlib
import importlib.metadata
import os
import random
import time
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from zart_core.context import SCENE, Context, Scene
from zart_core.errors import InvalidUse, UnknownStore
from zart_core.hosts.threads import away_from_loops
from zart_core.log import EventLog, Salvaged
from zart_core.records import brief_record
from zart_core.steps import StepFunction

T = TypeVar("T")


ON_DISK = ("file", "sqlite")
"""Schemes whose URLs go on with a path."""


class Clock(Protocol):
    """The time of day, and a way to let some pass."""

    def now(self) -> float:
        """Seconds since the epoch."""
        ...

    def sleep(self, duration_s: float) -> None:
        """Let so many seconds pass."""
        ...

    def watch(self, callback: Callable[[], None]) -> None:
        """Have `callback` called whenever time is moved by hand; a real clock never calls it."""
        ...


class SystemClock:
    """The clock of the machine."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def sleep(self, duration_s: float) -> None:
        """Sleep."""
        time.sleep(duration_s)

    def watch(self, callback: Callable[[], None]) -> None:
        """Nobody moves this clock by hand."""


class Lots(Protocol):
    """Chance: what `random.Random` has of it."""

    def random(self) -> float:
        """A number from 0 up to, but not, 1."""
        ...

    def getrandbits(self, k: int, /) -> int:
        """A number of `k` bits."""
        ...


LOTS: Lots = random.SystemRandom()
"""The machine's own chance."""


@brief_record
class StepCall:
    """One attempt of a step: everything that is needed to run it."""

    seq: int
    function: StepFunction[..., Any]
    values: list[Any]
    """One for each parameter of the function, decoded from the log."""
    context: Context
    attempt_until: float | None = None
    """When this attempt's own countdown ends (PER_ATTEMPT), in seconds since the epoch."""
    held: str = ""
    """The execution that its worker holds: the step's own, or the one that an offered step is."""
    crashes: int = 0
    """Crashes held against the step so far (R5)."""


class Part(Protocol):
    """What is called for an attempt: the step itself, or what stands in for it."""

    @property
    def is_async(self) -> bool:
        """Whether `call` gives an awaitable."""
        ...

    def call(self, values: list[Any]) -> Any:
        """Call it with one value for each parameter of the step."""
        ...


def the_step_itself(call: StepCall) -> Part:
    """Who plays a step unless somebody stands in: its own function."""
    return call.function


class StepRunner(Protocol):
    """Carries out attempts of steps, one after the other, for a synchronous host."""

    def run(self, call: StepCall, scene: Scene) -> Any:
        """Give the function's result or raise its error, with `scene` around it."""
        ...


class DirectRunner:
    """Calls the function here and now; an async one on an event loop of its own, also where a loop runs already."""

    def run(self, call: StepCall, scene: Scene) -> Any:
        """Give the function's result or raise its error. A timeout of an async step raises TimeoutError."""
        token = SCENE.set(scene)
        try:
            if not call.function.is_async:
                return call.function.call(call.values)
            return away_from_loops(lambda: asyncio.run(self.awaited(call)))
        finally:
            SCENE.reset(token)

    async def awaited(self, call: StepCall) -> Any:
        """The result of an async step, within its deadline."""
        deadline = call.context.deadline
        async with asyncio.timeout(None if deadline is None else max(0.0, deadline - call.context.now)):
            return await call.function.call(call.values)


class Lane(Protocol):
    """Makes one call at a time where it may block."""

    def run(self, work: Callable[[], T], done: Callable[[T], None]) -> None:
        """Call `work` away from the loop, and `done` on the loop with what it gave; nothing runs in it yet."""
        ...

    def stop(self) -> None:
        """Let what runs end; nothing comes after it."""
        ...


class Threads(Protocol):
    """Where calls go that may block."""

    def executor(self, name: str) -> concurrent.futures.Executor:
        """One for many calls at once."""
        ...

    def lane(self, name: str, loop: asyncio.AbstractEventLoop) -> Lane:
        """One for a call at a time, whose outcomes come back on the loop."""
        ...


def open_log(url: str, durability: str = "power") -> EventLog:
    """The store of a URL, found by its scheme through the entry point group `zart.stores`.

    `durability` other than the default is handed to the store. Raises UnknownStore, and what the store raises.
    """
    return opener_of(url)(url, durability)


def missing(url: str) -> str:
    """The path of a store on disk that is not there, so that to open it would make one; empty for all others."""
    scheme, _, path = url.partition(":")
    return path if scheme in ON_DISK and path and is_bare(scheme, path) else ""


def is_bare(scheme: str, path: str) -> bool:
    """Whether no store is at a path: nothing, an empty file for SQLite, a directory without a segment of a file log."""
    try:
        if scheme == "sqlite" and Path(path).is_file():
            return Path(path).stat().st_size == 0
        if scheme == "file" and Path(path).is_dir():
            return not any(entry.suffix == ".zart" for entry in Path(path).iterdir())
    except OSError:
        return False  # who opens it says what is wrong
    return not os.path.lexists(path)


def salvager_of(url: str) -> Callable[[str, str], Salvaged]:
    """What brings the whole part of a damaged store out, from one URL to another: `salvage` beside the scheme's `open`.

    Raises UnknownStore, and InvalidUse for a store that offers none.
    """
    scheme = url.partition(":")[0]
    opener_of(url)
    (point,) = importlib.metadata.entry_points(group="zart.stores", name=scheme)
    module = importlib.import_module(point.module)
    salvage: Callable[[str, str], Salvaged] | None = getattr(module, "salvage", None)
    if salvage is None:
        raise InvalidUse(
            f"a store of '{scheme}:' offers no salvage; restore a copy, or use the tools of its own"
        )
    return salvage


def opener_of(url: str) -> Callable[[str, str], EventLog]:
    """What opens URLs of this one's scheme; some ten milliseconds are spent on looking for it. Raises UnknownStore."""
    scheme, _, _ = url.partition(":")
    opener = offered("zart.stores", url)
    if opener is None:
        known = sorted(point.name for point in importlib.metadata.entry_points(group="zart.stores"))
        near = get_close_matches(scheme, known, 1)
        hint = f"; did you mean '{near[0]}:'? Known" if near else "; known"
        raise UnknownStore(
            f"no installed package offers a store for '{scheme}:'{hint} schemes: {', '.join(known)}. "
            "A package adds one through the entry point group 'zart.stores'"
        )

    def open_(url: str, durability: str) -> EventLog:
        log = opener(url) if durability == "power" else opener(url, durability=durability)
        if not isinstance(log, EventLog):
            raise InvalidUse(f"the store of '{scheme}:' gave a {type(log).__name__}, which is no EventLog")
        return log

    return open_


def offered(group: str, url: str) -> Callable[..., Any] | None:
    """What an installed package offers for the scheme of a URL in a group of entry points; None when none does.

    Raises UnknownStore for what is no URL, and when a package that the store needs is not installed.
    """
    scheme, colon, _ = url.partition(":")
    if not colon:
        raise UnknownStore(f"{url!r} is no store URL; write memory:, file:DIR, sqlite:PATH or the like")
    points = {point.name: point for point in importlib.metadata.entry_points(group=group)}
    if scheme not in points:
        return None
    try:
        return cast("Callable[..., Any]", points[scheme].load())
    except ModuleNotFoundError as missing:
        raise UnknownStore(
            f"the store for '{scheme}:' needs the package {missing.name!r}: pip install 'zart[{scheme}]' for those "
            "that come with zart"
        ) from missing


def new_id(now: float, lots: Lots = LOTS) -> str:
    """A unique id that sorts by time: 48 bits of milliseconds, then 80 random bits, in hexadecimal."""
    return f"{milliseconds(now)}{lots.getrandbits(80):020x}"


def numbered_id(now: float, number: int, lots: Lots = LOTS) -> str:
    """As `new_id`; those of one millisecond sort by their number, which takes 20 of the random bits."""
    return f"{milliseconds(now)}{number & 0xFFFFF:05x}{lots.getrandbits(60):015x}"


def milliseconds(now: float) -> str:
    """What an id begins with."""
    return f"{int(now * 1000) & 0xFFFFFFFFFFFF:012x}"
