"""What is rare in a simulated world, by name: to see that simulations reach it.

Rule 1: a situation is counted from what was seen or from the log; nothing of it is asked of the engine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from zart_core.events import (
    Began,
    Cancellation,
    Closed,
    Done,
    Event,
    Failed,
    Interrupted,
    Issued,
    Noted,
    Resolved,
    Retried,
    Started,
    Status,
    Taken,
)
from zart_core.interpreter import HANDED_OVER
from zart_core.testing.simulation.world import Simulation
from zart_core.testing.witness import Played

LATE_S = 1.0
"""A timer that fires later than this is late."""


def situations(world: Simulation, played: Played) -> Mapping[str, int]:
    """Count what is rare in a world."""
    found = Counter(world.counts)
    for _, kind in world.fate.struck:
        found[kind.replace("_", " ")] += 1
    for history in played.histories.values():
        found.update(of_history(history))
    found.update(of_calls(world, played))
    if any(process.lapses() for process in [*world.ended, *world.processes]):
        found["attempt stopped for want of a lease"] += 1
    if max(world.witness.fences.values(), default=0) > 2:
        found["taken over more than once"] += 1
    return found


def of_calls(world: Simulation, played: Played) -> Iterator[str]:
    """Yield a name for each rare thing about attempts."""
    watch = world.witness
    lives: dict[tuple[str, int, int], set[int]] = {}
    seen: set[tuple[str, int, int, int]] = set()
    for call in played.calls:
        step = (call.id, call.run, call.seq)
        if call.attempt > 0 and call.life not in lives.get(step, {call.life}):
            yield "retry by another worker"
        if (*step, call.attempt) in seen:
            yield "attempt made again"
        seen.add((*step, call.attempt))
        lives.setdefault(step, set()).add(call.life)
    for post in watch.posted:
        if post.kind == "event":
            waits = [
                event.at
                for event in played.histories.get((post.id, 0), ())
                if isinstance(event, Issued) and event.of == post.name
            ]
            if waits:
                yield "event before its wait" if post.at < waits[0] else "event after its wait"


def of_history(history: Sequence[Event]) -> Iterator[str]:
    """Yield a name for each rare thing in a run."""
    issued: dict[int, Issued] = {}
    running: dict[int, int] = {}
    waiting: set[int] = set()
    kept: set[int] = set()
    losers: set[str] = set()
    interrupted = handed_over = False
    for event in history:
        match event:
            case Started() if event.run > 0:
                yield "another run"
            case Issued():
                issued[event.seq] = event
                if event.kind in ("sleep", "event", "child"):
                    waiting.add(event.seq)
                if event.kind == "step" and whose(event) in losers:
                    yield "loser goes on to unwind"
                if interrupted and event.kind == "step":
                    yield "step after an interruption"
                if event.kind in ("child", "spawn", "version", "capture"):
                    yield event.kind
            case Began():
                if event.seq in running:
                    yield "step begun again"
                    if handed_over:
                        yield "step begun again after a hand-over"
                    if event.takeover:
                        yield "crash held against a step"
                    elif event.takeover == 0:
                        yield "suspect with others"
                running[event.seq] = event.attempt
                if len(running) > 1:
                    yield "steps side by side"
            case Retried():
                yield "retry"
                running.pop(event.seq, None)
            case Interrupted():
                interrupted = True
                kept = set(waiting)
                yield f"interrupted by {event.by}"
                if running:
                    yield "interrupted while a step runs"
            case Noted():
                handed_over = handed_over or event.what == HANDED_OVER
                yield f"noted: {event.what}"
            case Resolved():
                running.pop(event.seq, None)
                waiting.discard(event.seq)
                if not isinstance(event.outcome, Cancellation):
                    if event.seq in kept:
                        yield "shielded from an interruption"
                elif not interrupted and event.seq in issued:
                    losers.add(whose(issued[event.seq]))
                yield from of_outcome(event, issued.get(event.seq))
            case Closed():
                yield f"ended as {event.status}"
                if interrupted and event.status is Status.COMPLETED:
                    yield "interruption survived"
            case _:
                pass


def whose(issued: Issued) -> str:
    """The function that a command stands in."""
    return f"{issued.site.module}.{issued.site.qualname}" if issued.site is not None else ""


def of_outcome(event: Resolved, issued: Issued | None) -> Iterator[str]:
    """Yield a name for a rare outcome."""
    match event.outcome:
        case Done():
            if (
                issued is not None
                and issued.kind == "sleep"
                and event.at - (issued.until or event.at) > LATE_S
            ):
                yield "timer late"
        case Taken():
            yield "event taken"
        case Cancellation():
            yield "command cancelled"
        case Failed(failure):
            if failure.kind == "lost":
                yield "lost: at most once" if "at most once" in failure.message else "lost: crashes"
            else:
                yield f"outcome: {failure.kind}"
