"""Death at every line that a run executes of interpreter, inline host and stores, and at pairs (F1, F27)."""

from __future__ import annotations

import contextlib
import logging
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from types import CodeType

import pytest

from property_tests.lines import CORE, STORES, Line, MortalPlace, Tracer, played
from property_tests.places import Early, FileLosingPower, InMemory, SqliteInterrupted
from property_tests.shapes import BY_NAME, Shape
from property_tests.tally import tally
from zart_core.interpreter import CODEC
from zart_core.log import EventLog
from zart_core.testing.invariants import Judge
from zart_core.testing.runner import Loops
from zart_core.testing.witness import Played
from zart_core.workflows import Registry
from zart_stores import memory

# Nobody closes the generators of a dead process; here the garbage collector does, and they may yield again.
pytestmark = [
    pytest.mark.usefixtures("buried"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SEED = int(os.environ.get("ZART_SEED", random.randrange(1 << 32)))
DEEP = bool(os.environ.get("ZART_DEEP"))
PAIRS = 3000 if DEEP else 60
"""How many pairs of lines are drawn for each store."""
RECOVERIES = 10 if DEEP else 1
"""How many recoveries of each shape are looked at for lines that only they execute."""


def sources(*folders: Path) -> frozenset[str]:
    """The modules of these folders and below, this very harness left aside."""
    found = (path for folder in folders for path in folder.rglob("*.py"))
    return frozenset(str(path) for path in found if path.name != "__init__.py")


CORE_FILES = frozenset(str(CORE / f"{name}.py") for name in ("interpreter", "branches", "waiting"))
ALL = CORE_FILES | sources(CORE / "hosts", STORES)
OWN = sources(STORES)
"""On disk the lines of stores are enough: what is above them is the same."""

RICH = (
    "retries",
    "saga",
    "race-event",
    "continued",
    "child-failing",
    "shielded",
    "terminated",
    "fixed-values",
)
PLAIN = ("continued",)


class Stage:
    """Plays one shape in one kind of place, again and again."""

    def __init__(self, shape: Shape, make: Callable[[], MortalPlace], files: frozenset[str]) -> None:
        self.shape = shape
        self.make = make
        self.files = files
        self.loops = Loops()
        self.registry = Registry([shape.workflow, *shape.others])
        self.place: MortalPlace
        self.play([])  # what is computed once per process is computed now
        self.baseline, watched = self.play([])
        self.counts = watched.counts
        self.judge = Judge(self.baseline, self.registry, CODEC)

    def play(self, targets: Sequence[Line], *, watch: bool = True) -> tuple[Played, Tracer]:
        self.place = self.make()
        return played(
            self.shape,
            self.place,
            self.files,
            list(targets),
            loops=self.loops,
            registry=self.registry,
            watch=watch,
        )

    def wrong(self, played: Played) -> list[str]:
        """What is wrong with it, in words."""
        found = [f"{rule}: {what}" for rule, what in self.judge.violations(played)]
        if played.outcome not in self.shape.outcomes:
            found.append(f"it ends otherwise: {played.outcome}")
        return found + list(self.place.wrong)


class Toll:
    """Counts the deaths of one test, and keeps what was wrong after them."""

    def __init__(self) -> None:
        self.lines: set[tuple[CodeType, int]] = set()
        self.pairs = 0
        self.wrong: list[str] = []

    def die(self, stage: Stage, *targets: Line) -> int:
        """Play it with these deaths, and judge; gives how many of them came."""
        found, tracer = stage.play(targets, watch=False)
        where = ", then ".join(map(str, targets[: tracer.deaths]))
        self.wrong += [f"'{stage.shape.name}', dead at {where}: {what}" for what in stage.wrong(found)]
        return tracer.deaths


def die_everywhere(toll: Toll, stage: Stage, lots: random.Random) -> None:
    """At the first time of each line that nobody has died at yet, in a first life and in a recovery."""
    for key in stage.counts.keys() - toll.lines:
        toll.lines.add(key)
        assert toll.die(stage, Line(*key)) == 1
    for _ in range(RECOVERIES):
        first = some_line(stage, lots)
        for key in stage.play([first])[1].counts.keys() - toll.lines:
            if toll.die(stage, first, Line(*key)) == 2:  # what a disk that lost power has left may differ
                toll.lines.add(key)


def some_line(stage: Stage, lots: random.Random) -> Line:
    """Any of its lines, at any time that it is executed."""
    code, number = lots.choice(
        sorted(stage.counts, key=lambda key: (key[0].co_filename, key[1], key[0].co_name))
    )
    return Line(code, number, lots.randint(1, stage.counts[code, number]))


@pytest.mark.parametrize(
    ("store", "lines_min"),
    [("memory", 1200), ("file", 600), ("sqlite", 600)],
)
def test_no_line_is_deadly(store: str, lines_min: int, home: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Every line, and pairs drawn by the seed: what was acknowledged is there, and the run ends as it should."""
    print(f"seed {SEED}")
    caplog.set_level(logging.ERROR, "zart.store")  # it says of each torn tail that it was cut
    lots, toll = random.Random(SEED), Toll()
    places: dict[str, Callable[[], MortalPlace]] = {
        "memory": InMemory,
        "file": lambda: FileLosingPower(lots),
        "sqlite": lambda: SqliteInterrupted(home, lots),
    }
    names, files = (RICH, ALL) if store == "memory" else (PLAIN, OWN)
    stages = [Stage(BY_NAME[name], places[store], files) for name in names]
    for stage in stages:
        die_everywhere(toll, stage, lots)
    known = sorted(toll.lines, key=lambda key: (key[0].co_filename, key[1], key[0].co_name))
    for _ in range(PAIRS):
        stage = lots.choice(stages)
        toll.pairs += toll.die(stage, some_line(stage, lots), Line(*lots.choice(known))) == 2
    for stage in stages:
        stage.loops.close()

    print(store, f"{len(toll.lines)} lines, {toll.pairs} pairs")
    assert not toll.wrong, f"seed {SEED}:\n" + "\n".join(toll.wrong[:20])
    assert len(toll.lines) >= lines_min
    assert toll.pairs >= PAIRS // 5
    tally("every line", seeds=[SEED], lines=len(toll.lines), pairs=toll.pairs)


# ---------------------------------------------------------------- known-bad


class Hasty:
    """Where such a store is kept: death takes what it holds back."""

    wrong: Sequence[str] = ()

    def __init__(self) -> None:
        self.log = memory.open("memory:")

    def open(self) -> EventLog:
        return Early(self.log)

    def freeze(self) -> None: ...

    def crash(self, log: EventLog | None) -> None: ...

    def close(self, log: EventLog) -> None:
        self.log.close()


def test_a_store_that_acknowledges_before_it_writes_is_caught() -> None:
    """Known-bad: between the acknowledgement and the write lie lines, and dying there loses a turn (I1)."""
    stage, toll = Stage(BY_NAME["saga"], Hasty, sources(CORE / "hosts")), Toll()
    for key in stage.counts:
        toll.die(stage, Line(*key))

    assert any(": I1: acknowledged records" in wrong for wrong in toll.wrong)


def test_a_memory_log_that_does_not_mend_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Known-bad: what an interrupted append has left half done stays so (F27)."""
    monkeypatch.setattr(memory.Shelf, "mend", lambda shelf: None)
    stage, toll = Stage(BY_NAME["saga"], InMemory, frozenset({memory.__file__})), Toll()
    for key in stage.counts:
        with contextlib.suppress(LookupError, ValueError):  # half a row, in some lists only
            toll.die(stage, Line(*key))

    assert any(": F27: " in wrong or ": I" in wrong for wrong in toll.wrong)
