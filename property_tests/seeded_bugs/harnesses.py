"""The generic harnesses of this project, each with a small budget and the same choices every time.

None of them knows any of the bugs. One that ends without an exception has noticed nothing. Imported in forked
children only, so that what it imports may be patched.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, settings

RUNS_MAX = 11
"""Runs of a shape up to which pairs of crashes are tried."""
HERE = Path(__file__).resolve().parent.parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))
BUDGET = settings(
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


def budget(examples: int) -> None:
    """What Hypothesis may spend on each test that is defined from here on."""
    settings.register_profile("seeded", BUDGET, max_examples=examples)
    settings.load_profile("seeded")


def laws(seeds: int) -> None:
    """P1, P2, P3, P5, held facts and the order of logs, over larger random programs."""
    budget(1)
    import test_laws as tests

    for share in (seeds // 10, seeds):  # what fails often fails soon
        for seed in range(share):
            tests.assert_laws_hold(seed)
        for seed in range(share):
            tests.assert_reads_directly(seed)


def crash_points() -> None:
    """Every shape of workflow, its host dead at every point, and twice where that is cheap."""
    from property_tests.shapes import SHAPES
    from zart_core.testing import explore_crashes

    for shape in SHAPES:
        report = explore_crashes(shape.workflow, shape.input, events=shape.events)
        report.check()
        ends = report.outcomes
        if len(report.runs) <= RUNS_MAX:
            report = explore_crashes(shape.workflow, shape.input, events=shape.events, depth=2)
            report.check()
            ends |= report.outcomes
        assert ends == shape.outcomes, f"{shape.name}: {ends}"


def weather(seeds: int) -> None:
    """Every shape on a store that refuses, forgets to answer, or cannot be reached, and no crash."""
    from property_tests.shapes import SHAPES
    from zart_core import open_log
    from zart_core.testing import FaultyStore, explore_crashes, seeded

    calm = [shape for shape in SHAPES if not shape.timed]
    for seed, shape in itertools.product(range(seeds), calm):

        def store(seed: int = seed) -> FaultyStore:
            return FaultyStore(open_log("memory:"), seeded(seed, rejected=0.1, written=0.1, unwritten=0.1))

        report = explore_crashes(
            shape.workflow, shape.input, events=shape.events, store=store, points=frozenset[Any]()
        )
        report.check()
        assert set(report.outcomes) <= {shape.outcome}, f"{shape.name}, seed {seed}: {report.outcomes}"


def simulation(seeds: int) -> None:
    """Every shape on real engines in simulated processes, on a store and clocks that go wrong."""
    from property_tests.shapes import SHAPES
    from property_tests.simulated import outcomes_of
    from zart_core.testing import simulate

    calm = [shape for shape in SHAPES if not shape.timed]
    for seed in range(seeds):
        shape = calm[seed % len(calm)]
        simulate(
            shape.workflow,
            shape.input,
            seed=seed,
            workers=1 + seed % 3,
            copies=1 + seed % 2,
            events=shape.events,
            children=shape.others,
            outcomes=outcomes_of(shape),
            shrink=False,
        ).check()


def machine(store: str, examples: int) -> None:
    """A store beside a plain model."""
    from store_player import steps_played

    for seed in range(examples):
        steps_played(store, seed, 100)


def contract(store: str) -> None:
    """The contract suite that store authors run."""
    module = {"memory": "memory_store", "file": "file_store", "sqlite": "sqlite_store"}[store]
    kind = {"memory": "TestMemoryContract", "file": "TestFileContract", "sqlite": "TestSqliteContract"}[store]
    tests(f"tests/test_{module}.py::{kind}")


def tests(*names: str, order: Sequence[str] | None = None) -> None:
    """Tests by name; with `order` only those of them that it names, as it has them."""
    import pytest

    failures: list[str] = []

    class Listener:
        def pytest_collection_modifyitems(self, items: list[Any]) -> None:
            if order is not None:
                here = {item.nodeid: item for item in items}
                items[:] = [here[name] for name in order if name in here]

        def pytest_runtest_logreport(self, report: Any) -> None:
            if report.failed:
                failures.append(
                    f"{report.nodeid.rpartition('::')[2]}: {report.longreprtext.splitlines()[-1]}"
                )

    with tempfile.TemporaryDirectory() as folder:
        words = ["-x", "-q", "--assert", "plain", "--basetemp", f"{folder}/t"]  # rewriting imports by itself
        words += ["-p", "no:cacheprovider", "-p", "no:xdist", "--rootdir", str(HERE.parent)]
        code = pytest.main([*words, *(f"{HERE.parent}/{name}" for name in names)], plugins=[Listener()])
    assert code == 0, failures[0] if failures else f"pytest ended with {code}"


def power_loss(seeds: int) -> None:
    """The file log on a simulated disk that loses power at every call."""
    budget(1)
    import test_file_power_loss as tests

    for seed in range(1, seeds + 1):
        tests.World(seed).run(10)


HARNESSES: Mapping[str, Callable[[], None]] = {
    "laws": partial(laws, 60),
    "machine memory": partial(machine, "memory", 60),
    "machine file": partial(machine, "file", 30),
    "machine sqlite": partial(machine, "sqlite", 20),
    "power loss": partial(power_loss, 5),
    "crash points": crash_points,
    "weather": partial(weather, 2),
    "simulation": partial(simulation, 400),
    "contract memory": partial(contract, "memory"),
    "contract file": partial(contract, "file"),
    "contract sqlite": partial(contract, "sqlite"),
    "bit flips": partial(tests, "tests/test_file_store.py::test_every_bit"),
}
"""In the order in which they are tried, the cheapest first."""
