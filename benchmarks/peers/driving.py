"""The work that every engine is given, and the watch over it: `python -m benchmarks.peers.on_... URL TASK N`.

Prints one line of JSON: seconds for n units, and what else there is to say. Only the standard library is used: engines
live in environments of their own.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

WAITING: set[str] = set()
"""Executions that have come to where they wait for their event, in this process."""
ONE = "prepared"


class Engine(Protocol):
    """What an engine is asked to do.

    Its workflows: `sequence` and `fan` of n steps; `sleeper`, n steps one after the other, then it adds its id to
    WAITING and waits for an event.
    """

    async def start(self, workflow: str, n: int, id: str) -> Any:
        """Start one, durably; gives what `result` takes."""
        ...

    async def result(self, handle: Any) -> Any:
        """Wait for its end."""
        ...

    async def send(self, id: str) -> None:
        """Send the event, durably."""
        ...

    def handle(self, id: str) -> Awaitable[Any]:
        """What `start` gave, in another process."""
        ...


Opening = Callable[[str], AbstractAsyncContextManager[Engine]]


async def waiting(count: int) -> None:
    """Let the engine write down that so many wait."""
    while len(WAITING) < count:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.5)


async def run(engine: Engine, workflow: str, n: int, id: str) -> None:
    """From start to result."""
    await engine.result(await engine.start(workflow, n, id))


def resident() -> int:
    """Bytes of memory that this process has."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def sequential(engine: Engine, n: int) -> dict[str, float]:
    """n steps one after the other."""
    start = time.perf_counter()
    await run(engine, "sequence", n, "measured")
    return {"seconds": time.perf_counter() - start}


async def many(engine: Engine, n: int) -> dict[str, float]:
    """n workflows of 5 steps at once."""
    start = time.perf_counter()
    await asyncio.gather(*(run(engine, "sequence", 5, f"many-{index}") for index in range(n)))
    return {"seconds": time.perf_counter() - start}


async def fan(engine: Engine, n: int) -> dict[str, float]:
    """n steps at once."""
    start = time.perf_counter()
    await run(engine, "fan", n, "measured")
    return {"seconds": time.perf_counter() - start}


async def started(engine: Engine, n: int) -> dict[str, float]:
    """n times from start to the result of one step."""
    start = time.perf_counter()
    for index in range(n):
        await run(engine, "sequence", 1, f"one-{index}")
    return {"seconds": time.perf_counter() - start}


async def suspend(engine: Engine, n: int) -> list[Any]:
    """n executions that wait for an event."""
    handles: list[Any] = []
    for first in range(0, n, 500):
        numbers = range(first, min(first + 500, n))
        handles += await asyncio.gather(*(engine.start("sleeper", 1, f"s-{index}") for index in numbers))
    return handles


async def event(engine: Engine, n: int) -> dict[str, float]:
    """n times from an event to the end of who waited for it."""
    handles = await suspend(engine, n)
    await waiting(n)
    start = time.perf_counter()
    for index, handle in enumerate(handles):
        await engine.send(f"s-{index}")
        await engine.result(handle)
    return {"seconds": time.perf_counter() - start}


async def suspended(engine: Engine, n: int) -> dict[str, float]:
    """n executions do a step and wait: seconds, and bytes of memory that each takes."""
    before, start = resident(), time.perf_counter()
    kept = await suspend(engine, n)
    while len(WAITING) < n:
        await asyncio.sleep(0.01)
    seconds = time.perf_counter() - start
    await waiting(n)
    return {"seconds": seconds, "bytes": (resident() - before) / len(kept)}


async def prepare(engine: Engine, n: int) -> dict[str, float]:
    """A run of n steps that waits, for `replay` to go on with."""
    await engine.start("sleeper", n, ONE)
    await waiting(1)
    return {"seconds": 0.0}


async def replay(engine: Engine, begin: float | None = None) -> dict[str, float]:
    """What was prepared gets its event and ends; the watch began when the process began to open its engine."""
    start = time.perf_counter() if begin is None else begin
    await engine.send(ONE)
    await engine.result(await engine.handle(ONE))
    return {"seconds": time.perf_counter() - start}


TASKS: dict[str, Callable[[Engine, int], Awaitable[dict[str, float]]]] = {
    "sequential": sequential,
    "many": many,
    "fan": fan,
    "start": started,
    "event": event,
    "suspended": suspended,
    "prepare": prepare,
}


async def measured(opening: Opening, url: str, task: str, n: int) -> None:
    """Do one task. `replay` is a new process that goes on with what `prepare` left: opened, sent its event, ended."""
    begin = time.perf_counter()
    async with opening(url) as engine:
        if task == "replay":
            found = await replay(engine, begin)
        else:
            await run(engine, "sequence", 1, "warm")
            found = await TASKS[task](engine, n)
        print(json.dumps(found), flush=True)
        if task != "prepare":
            os._exit(0)  # how an engine closes is not measured; what is prepared is left in good order


def main(opening: Opening) -> None:
    """What an engine's file calls."""
    url, task, n = sys.argv[1:]
    asyncio.run(measured(opening, url, task, int(n)))
    os._exit(0)  # whatever threads an engine has left
