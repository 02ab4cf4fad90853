"""600 simulated worlds in each run in which any worker may take the steps of another: judged by the same invariants.

Engines with a bug in what is new here must be found out, each time, and what is rare must be reached.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import attrs
import pytest

from property_tests.offered import play
from property_tests.seeds import fresh, keeping, kept
from property_tests.tally import tally
from zart_core.hosts.turns import Run

SEEDS = 20_000 if os.environ.get("ZART_DEEP") else 600
CHUNKS = 4
TWICE = 50
CONTROLS_MAX = 60
"""Worlds in which a bug has to show at the latest."""
SITUATIONS = (
    "noted: offered",
    "taken over",
    "command cancelled",
    "marked running",
    "noted: handed-over",
    "outcome: answer",
    "outcome: exhausted",
)
"""Each in one of ten worlds at least, so that a chunk without one has another reason than chance."""


def checked(seed: int, *, twice: bool = False) -> Counter[str]:
    """One world in which nothing may be wrong; gives the situations that it reached."""
    with keeping("offered", seed):
        report = play(seed)
        report.check()
        if twice:
            again = play(seed)
            assert (again.digest, again.trace) == (report.digest, report.trace)
        return Counter(dict.fromkeys(report.situations, 1))


def test_worlds_in_which_something_was_wrong_once() -> None:
    """Seeds that were found before come first; what they found is mended."""
    for seed in kept("offered"):
        checked(seed, twice=True)


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_worlds(chunk: int) -> None:
    """The invariants hold of executions and of the steps that others run for them, whatever fails."""
    reached: Counter[str] = Counter()
    seeds = fresh("offered", SEEDS // CHUNKS)
    for n, seed in enumerate(seeds):
        reached += checked(seed, twice=n % TWICE == 0)
    assert {name for name in SITUATIONS if not reached[name]} == set()
    tally("offered steps", seeds=[seeds[0]], worlds=len(seeds))


def forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that is told again what there is to do takes an offered step for one that a dead worker ran."""

    def suspected(run: Run, seq: int) -> None:
        run.suspects = {**run.suspects, seq: 0}

    monkeypatch.setattr(Run, "_is_elsewhere", suspected)


def loses_offers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The turn says that a step is offered, and does not hold the offer."""
    compose = Run.compose

    def without(run: Run, *args: Any, **options: Any) -> Any:
        writes = compose(run, *args, **options)
        return [attrs.evolve(write, creates=()) if hasattr(write, "creates") else write for write in writes]

    monkeypatch.setattr(Run, "compose", without)
    monkeypatch.setattr(Run, "children", lambda run: {})


def tells_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """An offered step ends without a word to whom it belongs."""
    report = Run._report

    def elsewhere(run: Run, *args: Any) -> Any:
        post = report(run, *args)
        return attrs.evolve(post, name="77")

    monkeypatch.setattr(Run, "_report", elsewhere)


@pytest.mark.parametrize(
    ("bug", "rules"),
    [(forgets, {"R1", "I12", "I13", "R10"}), (loses_offers, {"I18"}), (tells_nobody, {"I18"})],
)
def test_a_bug_is_found(bug: Any, rules: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The known-bad controls: a world in which the rule is broken turns up within a few dozen."""
    bug(monkeypatch)
    for seed in fresh("offered", CONTROLS_MAX):
        if rules & {wrong.rule for wrong in play(seed, shrink=False).violations}:
            return
    pytest.fail(f"an engine that {bug.__name__} went through {CONTROLS_MAX} worlds")
