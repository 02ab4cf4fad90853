"""The workflows that are measured."""

from __future__ import annotations

import zart_core as zart


@zart.step("work-{n}")
async def work(n: int) -> int:
    """The cheapest step with a name of its own."""
    return n + 1


@zart.workflow("sequence")
def sequence(n: int) -> zart.Flow[int]:
    """n steps, one after the other."""
    total = 0
    for index in range(n):
        total += yield from work(index)
    return total


@zart.workflow("fan")
def fan(n: int) -> zart.Flow[int]:
    """n steps at once."""
    return sum((yield from zart.wait([work(index) for index in range(n)])))


@zart.workflow("sleeper")
def sleeper(n: int) -> zart.Flow[str]:
    """One step, then a wait for an event."""
    yield from work(n)
    return (yield from zart.wait_for_event("go", str))


WORKFLOWS = [sequence, fan, sleeper]
