"""Every crash point and every pair of them, over all shapes of workflow, on every store (I1 to I17)."""

from __future__ import annotations

import logging
import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from property_tests.places import Early, FileLosingPower, InMemory, SqliteAbandoned, empty_database
from property_tests.shapes import BY_NAME, SHAPES, Shape
from property_tests.tally import tally
from zart_core.hosts.inline import Inline
from zart_core.hosts.turns import Run
from zart_core.interpreter import Execution
from zart_core.log import EventLog
from zart_core.testing import ALL_POINTS, CrashReport, explore_crashes
from zart_core.testing.witness import Moment

DEEP = bool(os.environ.get("ZART_DEEP"))
PAIRS_WRITES_MAX = 10**6 if DEEP else 8
"""Up to how many appends a shape is crashed twice in a run; longer ones once."""
TRIPLES_WRITES_MAX = 5
"""Up to how many appends a shape is crashed three times in a run, in the deep run."""
PARTS = 4
"""Each store's shapes are shared out among so many tests, which run side by side."""
SEED = int(os.environ.get("ZART_SEED", random.randrange(1 << 32)))


def explored(shape: Shape, depth: int, **options: Any) -> CrashReport:
    return explore_crashes(shape.workflow, shape.input, events=shape.events, depth=depth, **options)


def writes_of(shape: Shape) -> int:
    """How many appends its crash-free run makes."""
    points = explored(shape, 0).runs[0].passed
    return sum(point.moment == "before" for point in points)


def depth_of(shape: Shape) -> int:
    writes = writes_of(shape)
    if DEEP and writes <= TRIPLES_WRITES_MAX:
        return 3
    return 2 if writes <= PAIRS_WRITES_MAX else 1


def explorations(shape: Shape, store: str) -> Iterator[tuple[int, frozenset[Moment]]]:
    """How deep, and at which points. A torn append leaves a database as it was or as it became: once is enough."""
    if store == "sqlite" and not DEEP:
        yield 1, frozenset({"torn"})
        yield depth_of(shape), ALL_POINTS - {"torn"}
    else:
        yield depth_of(shape), ALL_POINTS


@pytest.mark.parametrize(
    ("store", "part", "runs_min", "torn_min"),
    [
        ("sqlite", 0, 1600, 60),
        ("sqlite", 1, 850, 60),
        ("sqlite", 2, 1000, 60),
        ("sqlite", 3, 1250, 70),
        ("file", 0, 3000, 1600),
        ("file", 1, 1550, 800),
        ("file", 2, 2000, 1000),
        ("file", 3, 2450, 1100),
        ("memory", 0, 1500, 0),
        ("memory", 1, 800, 0),
        ("memory", 2, 950, 0),
        ("memory", 3, 1250, 0),
    ],
)
def test_no_crash_shows(
    store: str, part: int, runs_min: int, torn_min: int, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """All single points of all shapes, and all pairs of those up to eight writes: no rule is broken."""
    print(f"seed {SEED}")
    caplog.set_level(logging.ERROR, "zart.store")  # it says of each torn tail that it was cut
    lots = random.Random(SEED)
    places = {
        "memory": InMemory,
        "file": lambda: FileLosingPower(lots),
        "sqlite": lambda: SqliteAbandoned(home, lots, empty_database()),
    }
    counts: Counter[str] = Counter()
    for shape in SHAPES[part::PARTS]:
        for depth, points in explorations(shape, store):
            report = explored(shape, depth, store=places[store], points=points)

            assert not report.violations, f"seed {SEED}, shape '{shape.name}' on {store}:\n{report}"
            assert report.runs[0].outcome == shape.outcome
            assert report.outcomes <= shape.outcomes, f"shape '{shape.name}' on {store}:\n{report}"
            assert len(report.runs) == 1 + sum(
                sum(point.moment in points for point in played.passed)
                for played in report.runs
                if len(played.schedule) < depth
            )
            deaths = [death.point for played in report.runs for death in played.deaths]
            counts["runs"] += len(report.runs)
            counts["deaths"] += len(deaths)
            counts["torn"] += sum(point.moment == "torn" for point in deaths)
    print(store, dict(counts))
    assert counts["runs"] >= runs_min
    assert counts["torn"] >= torn_min
    tally("crash points", seeds=[SEED], **counts)


# ---------------------------------------------------------------- known-bad, each run


def ahead(log: EventLog, registry: Any, **outside: Any) -> Inline:
    """A host that runs a step before the turn that begins it is appended."""
    return Inline(Early(log), registry, **outside)


CONTROLS = [shape for shape in SHAPES if shape.name in ("sequence", "saga", "fan-out", "retries")]


@pytest.mark.parametrize("shape", CONTROLS, ids=lambda shape: shape.name)
def test_a_store_that_acknowledges_before_it_is_durable_is_caught(
    shape: Shape, caplog: pytest.LogCaptureFixture
) -> None:
    """Known-bad: a file log without syncs, on a disk that loses power: what was acknowledged is gone (I1)."""
    caplog.set_level(logging.ERROR, "zart.store")
    lots = random.Random(7)
    report = explored(shape, 1, store=lambda: FileLosingPower(lots, durability="process"))

    assert "I1" in {violation.rule for violation in report.violations}


@pytest.mark.parametrize("shape", CONTROLS, ids=lambda shape: shape.name)
def test_a_host_that_runs_a_step_before_its_append_is_caught(shape: Shape) -> None:
    """Known-bad: a step runs that is not on record (I13)."""
    report = explored(shape, 1, host=ahead)

    assert "I13" in {violation.rule for violation in report.violations}


@pytest.mark.parametrize("shape", CONTROLS, ids=lambda shape: shape.name)
def test_an_interpreter_that_repeats_what_is_resolved_is_caught(
    shape: Shape, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Known-bad: a step whose outcome is durable runs again after a crash (I12)."""
    resolve, adopt = Execution._resolve, Run._adopt
    resolved: dict[int, Any] = {}

    def remembering(self: Execution, seq: int, outcome: Any) -> None:
        node = self._nodes[seq]
        if node.kind == "step":
            resolved[seq] = node
        resolve(self, seq, outcome)

    def forgetful(self: Run, execution: Execution) -> None:
        for seq, node in resolved.items():
            if seq < execution.next_seq:
                execution._nodes.setdefault(seq, node)
        adopt(self, execution)

    monkeypatch.setattr(Execution, "_resolve", remembering)
    monkeypatch.setattr(Run, "_adopt", forgetful)
    report = explored(shape, 1)

    assert "I12" in {violation.rule for violation in report.violations}


def test_the_shapes_are_many() -> None:
    """Thirty shapes at least, each with a name of its own, and most of them short enough for pairs."""
    assert len(BY_NAME) == len(SHAPES) >= 30
    assert sum(writes_of(shape) <= 8 for shape in SHAPES) >= 30
