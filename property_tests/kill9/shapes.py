"""The workflows that are killed: many shapes, each with a result that is known beforehand.

Rule 1: every step enters its begin and its end into a journal, a file of its own that is appended to by single writes.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import zart_core as zart

NEVER = 1_000_000
"""How many crashes condemn a step here: chance may kill the same one often."""


def enter(phase: str, value: Any = None) -> None:
    """One line in the journal."""
    context = zart.context()
    line = {
        "life": int(os.environ["KILL9_LIFE"]),
        "id": context.execution_id,
        "run": context.run,
        "step": context.step,
        "attempt": context.attempt,
        "key": context.idempotency_key,
        "at": time.time(),
        "phase": phase,
        "value": value,
    }
    fd = os.open(os.environ["KILL9_JOURNAL"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(fd, (json.dumps(line) + "\n").encode())
    finally:
        os.close(fd)


@zart.step("add-{n}", max_crashes=NEVER)
def add(n: int) -> int:
    """A sync step that takes a few milliseconds."""
    enter("begin")
    time.sleep(0.002 * (n % 5))
    enter("end", n + 1)
    return n + 1


@zart.step("twice-{n}", max_crashes=NEVER)
async def twice(n: int) -> int:
    """An async step that takes a few milliseconds."""
    enter("begin")
    await asyncio.sleep(0.002 * (n % 5))
    enter("end", 2 * n)
    return 2 * n


@zart.step("flaky-{n}", retry=zart.Retry.fixed(3, 0.01), max_crashes=NEVER)
def flaky(n: int) -> int:
    """A step that fails twice."""
    enter("begin")
    if zart.context().attempt < 2:
        raise RuntimeError("not yet")
    enter("end", n)
    return n


@zart.step("undo-{n}", max_crashes=NEVER)
def undo(n: int) -> None:
    """A compensation."""
    enter("begin")
    enter("end")


@zart.workflow("sequence")
def sequence(n: int) -> zart.Flow[int]:
    total = 0
    for k in range(5):
        total += yield from (add if k % 2 else twice)(n + k)
    return total


@zart.workflow("fan")
def fan(n: int) -> zart.Flow[list[int]]:
    return (yield from zart.wait([add(n + k) for k in range(10)]))


@zart.workflow("retries")
def retries(n: int) -> zart.Flow[int]:
    return sum((yield from zart.gather(flaky(n), flaky(n + 1), add(n))))


@zart.workflow("timers")
def timers(n: int) -> zart.Flow[bool]:
    on_time = True
    for k in range(3):
        began = yield from zart.now(f"began-{k}")
        yield from zart.sleep(f"nap-{k}", 0.05)
        woke = yield from zart.now(f"woke-{k}")
        on_time = on_time and woke - began >= timedelta(seconds=0.05)
        yield from add(k)
    return on_time


@zart.workflow("listens")
def listens(count: int) -> zart.Flow[list[int]]:
    numbers: list[int] = []
    for _ in range(count):
        numbers.append((yield from zart.wait_for_event("number", int)))
        yield from add(1000 + len(numbers))
    return numbers


@zart.workflow("parents")
def parents(n: int) -> zart.Flow[list[int]]:
    return (yield from zart.wait([zart.child(sequence, n), zart.child(sequence, n + 10)]))


@zart.workflow("rolls")
def rolls(state: tuple[int, list[int]]) -> zart.Flow[list[int]]:
    left, numbers = state
    numbers = [*numbers, (yield from zart.wait_for_event("number", int))]
    yield from add(len(numbers))
    if left == 1:
        return numbers
    yield from rolls.continue_as_new((left - 1, numbers))


@zart.workflow("cancelled")
def cancelled(n: int) -> zart.Flow[None]:
    try:
        yield from add(n)
        yield from zart.wait_for_event("never")
    finally:
        yield from undo(2)
        yield from undo(1)


@zart.workflow("races")
def races(n: int) -> zart.Flow[tuple[int, int | None]]:
    winner = yield from zart.race(add(n), zart.sleep("limit", 3600))
    fixed = yield from zart.capture("fixed", os.getpid, int)
    again = yield from twice(fixed)
    return winner if again == 2 * fixed else (9, None)


ALL = [sequence, fan, retries, timers, listens, parents, rolls, cancelled, races]
EVENTS = 3
"""Events for each execution that takes some."""


def sequence_result(n: int) -> int:
    """What `sequence` gives."""
    return sum(n + k + 1 if k % 2 else 2 * (n + k) for k in range(5))


EXPECTED: dict[str, Callable[[int], Any]] = {
    "sequence": sequence_result,
    "fan": lambda n: [n + k + 1 for k in range(10)],
    "retries": lambda n: 3 * n + 2,
    "timers": lambda n: True,
    "listens": lambda n: [n + k for k in range(EVENTS)],
    "parents": lambda n: [sequence_result(n), sequence_result(n + 10)],
    "rolls": lambda n: [n + k for k in range(EVENTS)],
    "cancelled": lambda n: "cancelled: enough",
    "races": lambda n: [0, n + 1],
}
"""The result of each shape, as JSON, by the number it was started with."""


def input_of(shape: str, n: int) -> Any:
    """The input that an execution of this shape is started with."""
    return EVENTS if shape == "listens" else (EVENTS, []) if shape == "rolls" else n
