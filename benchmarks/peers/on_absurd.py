"""The work of `driving` on absurd: an asynchronous worker of 64 tasks at once on PostgreSQL, otherwise its defaults."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from absurd_sdk import AsyncAbsurd
from absurdctl import BUNDLED_SCHEMA_SQL

from benchmarks.peers.driving import WAITING, main

CONCURRENCY = 64


async def work(n: int) -> int:
    """The cheapest step."""
    return n + 1


async def sequence(n: int, context: Any) -> int:
    """n steps, one after the other."""
    total = 0
    for index in range(n):
        total += await context.step(f"work-{index}", lambda: work(index))  # noqa: B023  # called before the next turn
    return total


async def fan(n: int, context: Any) -> int:
    """n steps at once."""
    steps = (context.step(f"work-{index}", lambda index=index: work(index)) for index in range(n))
    return sum(await asyncio.gather(*steps))


class OnAbsurd:
    """An Engine. An execution's id is the name of its event; the engine gives tasks ids of its own."""

    def __init__(self, client: AsyncAbsurd) -> None:
        self.client = client

    async def start(self, workflow: str, n: int, id: str) -> Any:
        """See Engine."""
        spawned = await self.client.spawn(workflow, {"n": n, "id": id}, idempotency_key=id, queue="default")
        return spawned["task_id"]

    async def result(self, handle: Any) -> Any:
        """See Engine."""
        found = await self.client.await_task_result(handle)
        if found.state != "completed":
            raise RuntimeError(f"{handle}: {found}")
        return found

    async def send(self, id: str) -> None:
        """See Engine."""
        await self.client.emit_event(id, 1)

    async def handle(self, id: str) -> Any:
        """See Engine; spawning with the same key gives the same task."""
        return await self.start("sleeper", 0, id)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[OnAbsurd]:
    """A worker and a client, each with a connection of its own; its schema is made when there is none."""
    with psycopg.connect(url) as db:
        if db.execute("SELECT to_regclass('absurd.queues')").fetchone() == (None,):
            db.execute(BUNDLED_SCHEMA_SQL)
    worker = AsyncAbsurd(url)

    @worker.register_task(name="sequence")
    async def _(params: Any, context: Any) -> int:
        return await sequence(params["n"], context)

    @worker.register_task(name="fan")
    async def _(params: Any, context: Any) -> int:
        return await fan(params["n"], context)

    @worker.register_task(name="sleeper")
    async def _(params: Any, context: Any) -> Any:
        await sequence(params["n"], context)
        WAITING.add(params["id"])
        return await context.await_event(params["id"])

    client = AsyncAbsurd(url)
    await client.create_queue()
    task = asyncio.create_task(worker.start_worker(concurrency=CONCURRENCY))
    yield OnAbsurd(client)
    task.cancel()


if __name__ == "__main__":
    main(opened)
