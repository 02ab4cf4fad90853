"""An execution, from outside."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from zart_core.events import Closed, Event, Status
from zart_core.hosts.inline import result_of
from zart_core.policies import Duration, seconds
from zart_core.workflows import Workflow

if TYPE_CHECKING:
    from zart_core.hosts.engine import AsyncEngine

T_co = TypeVar("T_co", covariant=True)


class AsyncHandle(Generic[T_co]):
    """An execution, from outside. `created` is False when it was there before."""

    def __init__(
        self, engine: AsyncEngine, id: str, workflow: Workflow[Any, T_co] | None, created: bool
    ) -> None:
        self.engine = engine
        self.id = id
        self.workflow = workflow
        self.created = created

    async def status(self) -> Status:
        """Where it stands."""
        return (await self.engine.summary(self.id)).status

    async def result(self, timeout: Duration | None = None) -> T_co:
        """Its result, once it has ended. See `Handle.result`."""
        limit = None if timeout is None else seconds(timeout, "timeout")
        try:
            if limit == 0:  # asyncio would look at nothing
                closed = await self.engine.results.look(self.id)
            else:
                closed = await asyncio.wait_for(self.engine.results.closed(self.id), limit)
        except TimeoutError:
            closed = None
        if closed is None:
            raise TimeoutError(f"execution '{self.id}' has not ended within {timeout}; it goes on")
        return await self.value_of(closed)

    async def value_of(self, closed: Closed) -> T_co:
        """The result that an end stands for; raises what it failed with."""
        workflow = await self.engine.workflow_of(self.id, self.workflow)
        value: T_co = result_of(self.engine.codec, workflow, self.id, closed)
        return value

    async def send(self, name: str, payload: Any, key: str | None = None) -> None:
        """Deliver an event to it; durable when this returns."""
        await self.engine.send(self.id, name, payload, key=key)

    async def cancel(self, reason: str = "") -> bool:
        """Ask it to cancel; False when it has ended."""
        return await self.engine.cancel(self.id, reason)

    async def terminate(self, reason: str = "") -> bool:
        """End it at once, without its code; False when it has ended."""
        return await self.engine.terminate(self.id, reason)

    async def history(self, run: int | None = None) -> list[Event]:
        """The events of a run, the current one by default."""
        return await self.engine.history(self.id, run)

    async def explain(self) -> str:
        """In words: what it waits for, at which line, since when, and who can end the wait."""
        return await self.engine.explain(self.id)

    def __repr__(self) -> str:
        return f"<execution '{self.id}'>"
