"""Death of a worker at every line that the engine executes, and at pairs; a new engine goes on with the log (F1).

Rule 1: the worker is dead at that very line: what its code still does while the error unwinds reaches nobody.
Rule 2: worlds are those of `simulate`, with its weather, so that lines of recovery and of closing are executed too.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import Callable, Collection, Sequence
from types import CodeType, FrameType
from typing import Any

import pytest

from property_tests.lines import CORE, Line, is_no_place_to_die
from property_tests.shapes import BY_NAME, Shape
from property_tests.simulated import outcomes_of
from property_tests.tally import tally
from zart_core.events import Ok
from zart_core.hosts.engine import AsyncEngine
from zart_core.log import Appended, Receipt, Turn, Write
from zart_core.testing import Faults, SimulationReport, simulate
from zart_core.testing.simulation.process import Process

# Nobody closes the generators of a dead process; here the garbage collector does, and they may yield again.
pytestmark = [
    pytest.mark.usefixtures("buried"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SEED = int(os.environ.get("ZART_SEED", random.randrange(1 << 32)))
DEEP = bool(os.environ.get("ZART_DEEP"))
PAIRS = 5000 if DEEP else 150
"""How many pairs of lines are drawn."""
LINES_MIN = 1150

ENGINE = frozenset(
    str(CORE / "hosts" / f"{name}.py")
    for name in (
        *("engine", "pump", "attempts", "claims", "recovery", "suspects", "requests", "results", "alarms"),
        *("turns", "writer", "calls", "facts", "outcomes", "past", "relatives", "live"),
    )
)

QUIET = Faults.none()
CLOSING = Faults(hand_over=0.2, most=3)
DYING = Faults(step_death=0.5, most=4)
STORMY = Faults(lost_answer=0.15, unavailable=0.1, lost_request=0.1, most=6)
LAPSING = Faults(slow=0.1, pause=0.1, redeploy=0.1, most=4)

WORLDS: tuple[tuple[str, Faults], ...] = (
    ("retries", QUIET),
    ("saga", QUIET),
    ("race-event", QUIET),
    ("continued", QUIET),
    ("child-failing", QUIET),
    ("shielded", QUIET),
    ("terminated", QUIET),
    ("fixed-values", QUIET),
    ("park-on", QUIET),
    ("fan-out", DYING),
    ("at-most-once", DYING),
    ("max-crashes", DYING),
    ("children", CLOSING),
    ("retries", CLOSING),
    ("nested", STORMY),
    ("cancelled", STORMY),
    ("fan-out", LAPSING),
)
"""Shapes and weathers in which as many lines as possible are executed."""


class Dead(BaseException):
    """The worker is gone. Unlike an interrupt it ends its task only, whose loop is dead already."""


class Killer:
    """Makes engines, and kills the worker that is about to execute the next of `targets`; or counts lines."""

    def __init__(self, targets: Sequence[Line], make: Callable[..., AsyncEngine]) -> None:
        self.targets = list(targets)
        self.make = make
        self.processes: dict[object, Process] = {}
        self.counts: dict[tuple[CodeType, int], int] = {}
        """How often each line was executed by a worker, where nobody is to be killed."""
        self.deaths = 0
        self.passed = 0
        """How often the target in hand was passed."""

    def engine(self, store: Any, *args: Any, **options: Any) -> AsyncEngine:
        """An engine for `simulate`. An error that a tracer raises ends the tracing: the next life begins it anew."""
        if self.targets or not self.deaths:
            sys.settrace(self.trace_calls)
        self.processes[store.process.loop] = store.process
        return self.make(store, *args, **options)

    def worker(self) -> Process | None:
        """Whose code is being executed: a worker's that lives, or nobody's."""
        process = self.processes.get(asyncio._get_running_loop())
        return process if process is not None and not process.loop.dead else None

    def trace_calls(self, frame: FrameType, event: str, arg: Any) -> Any:
        """Trace what may matter, and nothing else."""
        if self.targets:
            return self.hunt if frame.f_code is self.targets[0].code else None
        return self.count if frame.f_code.co_filename in ENGINE else None

    def count(self, frame: FrameType, event: str, arg: Any) -> Any:
        """Count a line."""
        if event == "line" and not is_no_place_to_die(frame) and self.worker() is not None:
            key = (frame.f_code, frame.f_lineno)
            self.counts[key] = self.counts.get(key, 0) + 1
        return self.count

    def hunt(self, frame: FrameType, event: str, arg: Any) -> Any:
        """Kill the worker at the line."""
        target = self.targets[0] if self.targets else None
        if (
            target is None
            or event != "line"
            or (frame.f_code, frame.f_lineno) != (target.code, target.number)
        ):
            return self.hunt
        process = self.worker()
        if process is not None and not is_no_place_to_die(frame):
            self.passed += 1
            if self.passed == target.nth:
                self.kill(process)
                raise Dead(str(target))
        return self.hunt

    def kill(self, process: Process) -> None:
        """From here on the store does nothing for it, and its loop neither."""
        self.targets.pop(0)
        self.deaths += 1
        self.passed = 0
        process.store.failed = True
        process.die()


class Stage:
    """Lets one world be, again and again."""

    def __init__(
        self, shape: Shape, faults: Faults, seed: int, make: Callable[..., AsyncEngine] = AsyncEngine
    ) -> None:
        self.shape = shape
        self.faults = faults
        self.seed = seed
        self.make = make
        self.baseline, killer = self.play(())
        self.counts = killer.counts

    def play(self, targets: Sequence[Line]) -> tuple[SimulationReport, Killer]:
        """The world, with these deaths."""
        killer, before = Killer(targets, self.make), sys.gettrace()
        try:
            report = simulate(
                self.shape.workflow,
                self.shape.input,
                seed=self.seed,
                faults=self.faults,
                events=self.shape.events,
                children=self.shape.others,
                outcomes=outcomes_of(self.shape),
                shrink=False,
                engine=killer.engine,
            )
        finally:
            sys.settrace(before)
        return report, killer

    def any_line(self, lots: random.Random) -> Line:
        """Any line, at any time that it is executed."""
        code, number = lots.choice(in_order(self.counts))
        return Line(code, number, lots.randint(1, self.counts[code, number]))


def in_order(keys: Collection[tuple[CodeType, int]]) -> list[tuple[CodeType, int]]:
    """The same order in each process."""
    return sorted(keys, key=lambda key: (key[0].co_filename, key[1], key[0].co_qualname))


def wrong(stage: Stage, *targets: Line) -> tuple[int, list[str]]:
    """How many of the deaths came, and what was wrong then."""
    report, killer = stage.play(targets)
    where = ", then ".join(map(str, targets[: killer.deaths]))
    return killer.deaths, [
        f"'{stage.shape.name}' under {stage.faults} (seed {stage.seed}), dead at {where}: {each.rule}: {each.what}"
        for each in report.violations
    ]


def test_no_line_of_the_engine_is_deadly() -> None:
    """Every line, and pairs drawn by the seed: no rule is broken, and everything ends as it should."""
    print(f"seed {SEED}")
    lots, found, lines, pairs = random.Random(SEED), list[str](), set[tuple[CodeType, int]](), 0
    stages = [Stage(BY_NAME[name], faults, lots.randrange(1 << 30)) for name, faults in WORLDS]
    for stage in stages:
        found += [f"{stage.shape.name}, alive: {each}" for each in stage.baseline.violations]
        for key in in_order(stage.counts.keys() - lines):
            deaths, more = wrong(stage, Line(*key))
            assert deaths == 1
            lines.add(key)
            found += more
    known = in_order(lines)
    for _ in range(PAIRS):
        stage = lots.choice(stages)
        deaths, more = wrong(stage, stage.any_line(lots), Line(*lots.choice(known)))
        pairs += deaths == 2
        found += more

    print(f"{len(lines)} lines, {pairs} pairs")
    assert not found, f"seed {SEED}:\n" + "\n".join(found[:20])
    assert len(lines) >= LINES_MIN
    assert pairs >= PAIRS // 4
    tally("every line of the engine", seeds=[SEED], lines=len(lines), pairs=pairs)


class Rash(AsyncEngine):
    """Tells clients that something is durable when it is on its way."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        put = self.writer.put

        def rash(writes: Sequence[Write], written: Callable[[list[Appended]], None]) -> None:
            if any(isinstance(write, Turn) for write in writes):
                put(writes, written)
            else:
                put(writes, lambda outcomes: None)
                self.loop.call_soon(written, [Ok(Receipt(created=True)) for _ in writes])

        self.writer.put = rash  # type: ignore[method-assign]


def test_an_engine_that_acknowledges_before_its_turn_is_durable_is_caught() -> None:
    """Known-bad: nothing is wrong as long as it lives; dead at a line in between, it has promised what is nowhere."""
    stage = Stage(BY_NAME["race-event"], QUIET, 1, Rash)

    assert stage.baseline.violations == []
    assert any(
        ": I18: " in each or ": I15: " in each
        for key in in_order(stage.counts)
        if "writer" in key[0].co_filename
        for each in wrong(stage, Line(*key))[1]
    )
