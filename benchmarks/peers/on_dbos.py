"""The work of `driving` on DBOS: asynchronous workflows, on PostgreSQL or SQLite, with its defaults."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from dbos import DBOS, SetWorkflowID

from benchmarks.peers.driving import WAITING, main


@DBOS.step()
async def work(n: int) -> int:
    """The cheapest step."""
    return n + 1


@DBOS.workflow()
async def sequence(n: int) -> int:
    """n steps, one after the other."""
    total = 0
    for index in range(n):
        total += await work(index)
    return total


@DBOS.workflow()
async def fan(n: int) -> int:
    """n steps at once, begun in order."""
    return sum(await asyncio.gather(*(work(index) for index in range(n))))


@DBOS.workflow()
async def sleeper(n: int) -> Any:
    """n steps, then a wait."""
    for index in range(n):
        await work(index)
    WAITING.add(DBOS.workflow_id or "")
    return await DBOS.recv_async("go", timeout_seconds=3600)


WORKFLOWS: dict[str, Any] = {"sequence": sequence, "fan": fan, "sleeper": sleeper}


class OnDbos:
    """An Engine."""

    async def start(self, workflow: str, n: int, id: str) -> Any:
        """See Engine."""
        with SetWorkflowID(id):
            return await DBOS.start_workflow_async(WORKFLOWS[workflow], n)

    async def result(self, handle: Any) -> Any:
        """See Engine."""
        return await handle.get_result()

    async def send(self, id: str) -> None:
        """See Engine."""
        await DBOS.send_async(id, 1, "go")

    async def handle(self, id: str) -> Any:
        """See Engine."""
        return await DBOS.retrieve_workflow_async(id)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[OnDbos]:
    """Launched on a database."""
    DBOS(config={"name": "bench", "system_database_url": url, "log_level": "ERROR"})
    DBOS.launch()
    yield OnDbos()


if __name__ == "__main__":
    main(opened)
