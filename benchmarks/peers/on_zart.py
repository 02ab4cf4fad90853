"""The work of `driving` on Zart."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import zart_core as zart
from benchmarks.peers.driving import WAITING, main
from benchmarks.workloads import fan, sequence, work


@zart.workflow("sleeper")
def sleeper(n: int) -> zart.Flow[int]:
    """n steps, then a wait."""
    for index in range(n):
        yield from work(index)
    WAITING.add(zart.context().execution_id)
    return (yield from zart.wait_for_event("go", int))


WORKFLOWS = {"sequence": sequence, "fan": fan, "sleeper": sleeper}


class OnZart:
    """An Engine."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine

    async def start(self, workflow: str, n: int, id: str) -> Any:
        """See Engine."""
        return await self.engine.start(WORKFLOWS[workflow], n, id=id)

    async def result(self, handle: Any) -> Any:
        """See Engine."""
        return await handle.result()

    async def send(self, id: str) -> None:
        """See Engine."""
        await self.engine.send(id, "go", 1)

    async def handle(self, id: str) -> Any:
        """See Engine."""
        return await self.engine.get(id)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[OnZart]:
    """An engine on a store."""
    async with zart.serve(url, list(WORKFLOWS.values())) as engine:
        yield OnZart(engine)


if __name__ == "__main__":
    main(opened)
