"""The workflows of the rounds, for `zart worker`: those that kill -9 meets, slow ones, and one never repeated."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import zart_core as zart
from property_tests.kill9 import shapes
from property_tests.kill9.shapes import (  # what `zart worker` finds in this module
    cancelled,
    enter,
    fan,
    listens,
    parents,
    races,
    retries,
    rolls,
    sequence,
    timers,
)

LOST = "lost"


@zart.step("linger-{n}", max_crashes=shapes.NEVER)
def linger(n: int) -> int:
    """A step that takes long enough to be met by any fault."""
    enter("begin")
    time.sleep(0.1 + 0.05 * (n % 4))
    enter("end", n + 1)
    return n + 1


@zart.step("only-once-{n}", at_most_once=True)
def only_once(n: int) -> int:
    """Never begun twice, whoever dies (R10)."""
    enter("begin")
    time.sleep(0.05)
    enter("end", n)
    return n


@zart.workflow("slow-fan")
def slow_fan(n: int) -> zart.Flow[list[int]]:
    values = yield from zart.wait([linger(n + k) for k in range(6)])
    last = yield from linger(n + 10)
    return [*values, last]


@zart.workflow("careful")
def careful(n: int) -> zart.Flow[int | str]:
    try:
        return (yield from only_once(n))
    except zart.StepLost:
        return LOST


ALL = [sequence, fan, retries, timers, listens, parents, rolls, cancelled, races, slow_fan, careful]
EXPECTED: dict[str, Callable[[int], Any]] = {
    **shapes.EXPECTED,
    "slow-fan": lambda n: [*(n + k + 1 for k in range(6)), n + 11],
    "careful": lambda n: n,
}
"""The result of each shape, as JSON, by the number it was started with; that of `careful` may also be LOST."""
