"""The work of `driving` on durabletask, with the in-memory backend that it brings for tests: nothing survives."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from durabletask import task
from durabletask.client import AsyncTaskHubGrpcClient
from durabletask.testing import create_test_backend
from durabletask.worker import TaskHubGrpcWorker

from benchmarks.peers.driving import WAITING, main

TIMEOUT_S = 3600


def work(context: Any, n: int) -> int:
    """The cheapest step."""
    return n + 1


def sequence(context: Any, n: int) -> Any:
    """n steps, one after the other."""
    total = 0
    for index in range(n):
        total += yield context.call_activity(work, input=index)
    return total


def fan(context: Any, n: int) -> Any:
    """n steps at once."""
    values = yield task.when_all([context.call_activity(work, input=index) for index in range(n)])
    return sum(values)


def sleeper(context: Any, n: int) -> Any:
    """n steps, then a wait."""
    for index in range(n):
        yield context.call_activity(work, input=index)
    WAITING.add(context.instance_id)
    return (yield context.wait_for_external_event("go"))


class OnDurabletask:
    """An Engine."""

    def __init__(self, client: AsyncTaskHubGrpcClient) -> None:
        self.client = client

    async def start(self, workflow: str, n: int, id: str) -> Any:
        """See Engine."""
        return await self.client.schedule_new_orchestration(workflow, input=n, instance_id=id)

    async def result(self, handle: Any) -> Any:
        """See Engine."""
        state = await self.client.wait_for_orchestration_completion(handle, timeout=TIMEOUT_S)
        if state is None or state.runtime_status.name != "COMPLETED":
            raise RuntimeError(f"{handle}: {state}")
        return state

    async def send(self, id: str) -> None:
        """See Engine."""
        await self.client.raise_orchestration_event(id, "go", data=1)

    async def handle(self, id: str) -> Any:
        """See Engine."""
        return id


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[OnDurabletask]:
    """Backend, worker and client in one process; `url` is the port."""
    create_test_backend(port=int(url), max_history_size=1_000_000)
    worker = TaskHubGrpcWorker(host_address=f"localhost:{url}")
    worker.add_activity(work)
    for workflow in (sequence, fan, sleeper):
        worker.add_orchestrator(workflow)
    worker.start()
    yield OnDurabletask(AsyncTaskHubGrpcClient(host_address=f"localhost:{url}"))


if __name__ == "__main__":
    main(opened)
