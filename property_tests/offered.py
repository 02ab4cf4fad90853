"""Workflows whose steps any worker may take, for simulated worlds: queues, overflow, cancellation, loss."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import Any

import zart_core as zart
from zart_core.hosts.engine import AsyncEngine
from zart_core.testing import Cancel, Faults, SimulationReport, Terminate, simulate


class Broken(Exception):
    """An answer of a step."""


def say(progress: Any) -> None:
    """Say how far it is, in worlds whose steps do."""
    if zart.resource("talkative"):
        zart.heartbeat(progress)


@zart.step("near-{n}")
def near(n: int) -> int:
    say(n)
    return n


@zart.step("slow-{n}")
async def slow(n: int) -> int:
    say({"of": n, "done": 0})
    await asyncio.sleep(2.0)
    say({"of": n, "done": 1})
    return n


@zart.step("far-{n}", queue="far")
def far(n: int) -> int:
    for _ in range(3):
        say(n)
    return 2 * n


@zart.step("far-async-{n}", queue="far")
async def far_async(n: int) -> int:
    say(n)
    return 3 * n


@zart.step("break-{n}", queue="far", raises=(Broken,))
def break_(n: int) -> int:
    raise Broken(n)


@zart.step("retried", queue="far", retry=zart.Retry.fixed(2, "1s"))
def retried() -> int:
    say("again")
    if zart.context().attempt < 2:
        raise ValueError("not yet")
    return zart.context().attempt


@zart.step("exhausted", queue="far", retry=zart.Retry.fixed(1, "1s"))
def exhausted() -> int:
    raise ValueError("never")


@zart.step("once-{n}", queue="far", at_most_once=True)
def once(n: int) -> int:
    say(n)
    return n


@zart.step("undo-{n}", queue="far")
def undo(n: int) -> None:
    say(n)


@zart.workflow("queued")
def queued() -> zart.Flow[list[int]]:
    first = yield from near(1)
    both = yield from zart.wait([far(2), far_async(3), near(4)])
    last = yield from far(5)
    return [first, *both, last]


@zart.workflow("queued-errors")
def queued_errors() -> zart.Flow[list[str]]:
    found = yield from zart.settle([break_(1), far(2), exhausted(), retried()])
    return [str(one.value) if isinstance(one, zart.Ok) else type(one.error).__name__ for one in found]


@zart.workflow("queued-once")
def queued_once() -> zart.Flow[int]:
    total = 0
    for n in range(3):
        got = yield from zart.outcome(once(n))
        total += got.value if isinstance(got, zart.Ok) else 0
    return total


@zart.workflow("queued-race")
def queued_race() -> zart.Flow[int]:
    winner, _ = yield from zart.race(zart.sleep("nap", 1000.0), far(2))
    return winner


@zart.workflow("queued-saga")
def queued_saga() -> zart.Flow[int]:
    done: list[int] = []
    try:
        for n in range(3):
            done.append((yield from far(n)))
        yield from zart.wait_for_event("never")
    finally:
        for n in reversed(done):
            yield from undo(n)
    return 0


@zart.workflow("fan")
def fan() -> zart.Flow[int]:
    return sum((yield from zart.wait([slow(n) for n in range(12)])))


@zart.workflow("queued-turns")
def queued_turns(n: int) -> zart.Flow[int]:
    got = yield from far(n)
    if n < 3:
        yield from queued_turns.continue_as_new(n + 1)
    return got


@zart.workflow("queued-parent")
def queued_parent() -> zart.Flow[list[int]]:
    first = yield from zart.child(queued, id="the-child")
    return [*first, (yield from far(9))]


SHAPES: Mapping[str, tuple[Any, Any, Mapping[str, Any]]] = {
    "queued": (queued, None, {"outcomes": {"completed: [1,4,9,4,10]"}}),
    "queued-errors": (
        queued_errors,
        None,
        {"outcomes": {'completed: ["Broken","4","RetryExhausted","2"]'}},
    ),
    "queued-once": (queued_once, None, {"outcomes": {"completed: 3"}}),
    "queued-race": (queued_race, None, {"outcomes": {"completed: 1", "completed: 0"}}),
    "queued-saga": (
        queued_saga,
        None,
        {"events": (Cancel(0.5, "enough"),), "outcomes": None},
    ),
    "fan": (fan, None, {"outcomes": {"completed: 66"}}),
    "queued-turns": (queued_turns, 0, {"outcomes": {"completed: 6"}}),
    "queued-parent": (
        queued_parent,
        None,
        {"outcomes": {"completed: [1,4,9,4,10,18]"}, "children": (queued,)},
    ),
    "queued-end": (queued, None, {"events": (Terminate(0.004, "enough"),), "outcomes": None}),
}

ROUGH = Faults(step_death=0.3, kill=0.03, death=0.05, most=8)
SLOW = Faults(slow_step=0.5, hand_over=0.08, redeploy=0.03, jump=0.05, most=8)
ZOMBIES = Faults(pause=0.2, lost_answer=0.05, lost_request=0.05, most=7)
CANARIES = Faults(bad_deploy=0.3, kill=0.05, hand_over=0.05, lost_answer=0.03, most=6)


def play(seed: int, engine: Any = AsyncEngine, **options: Any) -> SimulationReport:
    """The world of a seed: a shape, one to five workers, one or two executions, and weather."""
    lots = random.Random(f"offered {seed}")
    name = lots.choice(list(SHAPES))
    workflow, input, given = SHAPES[name]
    weather = lots.choice((None, None, ROUGH, SLOW, ZOMBIES, CANARIES))
    copies = 1 if name == "queued-parent" else lots.choice((1, 1, 2))
    plan = {"workers": lots.choice((1, 2, 3, 5)), "copies": copies, "faults": weather, **given, **options}
    talkative = seed % 2 == 1
    return simulate(workflow, input, seed=seed, engine=engine, resources={"talkative": talkative}, **plan)
