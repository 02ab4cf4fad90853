"""8,000 simulated worlds in each run: real engines on one store, every seed with shape, workers and weather of its own.

Each world is judged by the invariants; every fiftieth is let be twice, and its trace must be the same. What is rare has
a name, and each name must be reached a hundred times. Engines and stores with a bug must be found out, each time.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest

import zart_core as zart
from property_tests.seeds import fresh, keeping, kept
from property_tests.shapes import book, retries, undo
from property_tests.simulated import CONTROLS, out_of_order, play
from property_tests.tally import ROOT, run_id, tally
from zart_core.testing import Faults, simulate

SEEDS = 250_000 if os.environ.get("ZART_DEEP") else 8_000
CHUNKS = 40
TWICE = 50
"""Every so many seeds one is played twice."""
REACHED_MIN = 100
CONTROLS_MAX = 300
"""Worlds in which a bug has to show at the latest."""
SITUATIONS = (
    "clock forward",
    "clock back",
    "interrupted while a step runs",
    "full",
    "lost answer at append",
    "kill at append",
    "ended as failed",
    "lost request",
    "redeploy",
    "noted: alone",
    "outcome: event_timed_out",
    "unavailable",
    "failed",
    "lost answer at claim",
    "jump",
    "lost: crashes",
    "lost: at most once",
    "turn rejected: stale",
    "event before its wait",
    "death at append",
    "attempt stopped for want of a lease",
    "outcome: timed_out",
    "retry by another worker",
    "interruption survived",
    "suspect with others",
    "ended as terminated",
    "timer late",
    "late",
    "slow at append",
    "hand over at append",
    "outcome: exhausted",
    "lost answer",
    "death at claim",
    "step begun again after a hand-over",
    "ended as cancelled",
    "retry",
    "steps side by side",
    "death after an effect",
    "kill at claim",
    "noted: handed-over",
    "outcome: answer",
    "event after its wait",
    "slow at claim",
    "death before an effect",
    "duplicate",
    "event taken",
    "slow step",
    "pause at append",
    "message a second time",
    "interrupted by cancel",
    "hand over at claim",
    "parked and resumed",
    "bad deploy",
    "several writes in one commit",
    "continued with messages that nobody took yet",
    "shielded from an interruption",
    "loser goes on to unwind",
    "step after an interruption",
    "crash held against a step",
    "pause at claim",
    "death",
    "taken over more than once",
    "step death",
    "slow",
    "kill",
    "pause",
    "command cancelled",
    "hand over",
    "attempt made again",
    "closed in order",
    "step begun again",
    "taken over",
)
"""What is rare, or a fault at a certain place; as `SimulationReport.situations` names it."""
FOLDER = ROOT / ".pytest_cache" / "zart-simulation"


def checked(seed: int, *, twice: bool = False) -> Counter[str]:
    """One world in which nothing may be wrong; gives the situations that it reached."""
    with keeping("simulation", seed):
        report = play(seed)
        report.check()
        assert [wrong for history in report.histories.values() for wrong in out_of_order(history)] == []
        if twice:
            again = play(seed)
            assert (again.digest, again.trace) == (report.digest, report.trace)
        return Counter(dict.fromkeys(report.situations, 1))


def test_worlds_in_which_something_was_wrong_once() -> None:
    """Seeds that were found before come first; what they found is mended."""
    for seed in kept("simulation"):
        checked(seed, twice=True)


def test_a_retry_that_was_due_is_not_early_by_a_clock_that_goes_back() -> None:
    """I14, F13: found as a world; the clock of the worker that took it over jumps back between claim and attempt."""
    faults = Faults(jump=0.06, hand_over=0.1, redeploy=0.03, slow_step=0.4, most=7)
    report = simulate(retries, seed=8000061, workers=3, faults=faults, only=[4, 8, 17, 20, 28], shrink=False)
    report.check()
    assert len(report.struck) == 5


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_worlds(chunk: int) -> None:
    """I1 to I19 where they can be seen, F1 to F24, and R10, in every world."""
    reached: Counter[str] = Counter()
    seeds = fresh("simulation", SEEDS // CHUNKS)
    for n, seed in enumerate(seeds):
        reached += checked(seed, twice=n % TWICE == 0)
    folder = FOLDER / run_id()
    put(folder, chunk, reached)
    tally("simulation", seeds=[seeds[0]], worlds=len(seeds))
    found = list(folder.glob("*.json"))
    if len(found) == CHUNKS:
        whole(found)


def put(folder: Path, chunk: int, reached: Counter[str]) -> None:
    """Lay down what a chunk has reached, for whichever comes last; whole, or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{chunk}.part"
    part.write_text(json.dumps(reached))
    part.rename(folder / f"{chunk}.json")


def whole(files: list[Path]) -> None:
    """All chunks together: every rare situation was reached often enough."""
    reached: Counter[str] = Counter()
    for file in files:
        reached += Counter(json.loads(file.read_text()))
    rare = {name: reached[name] for name in SITUATIONS if reached[name] < REACHED_MIN}
    assert rare == {}
    least = min(reached[name] for name in SITUATIONS)
    tally("sometimes", names=len(SITUATIONS), least=least)


def test_sixty_situations_have_a_name() -> None:
    """Each once."""
    assert len(SITUATIONS) >= 60
    assert len(set(SITUATIONS)) == len(SITUATIONS)


@pytest.mark.parametrize(
    ("undone", "wrong"), [("ba", 0), ("b", 0), ("a", 0), ("ab", 1), ("xba", 0), ("axb", 1)]
)
def test_compensation_out_of_order_is_found(undone: str, wrong: int) -> None:
    """I17: the newest first; what was not booked is nobody's concern."""

    @zart.workflow("trip")
    def trip() -> zart.Flow[None]:
        for what in "ab":
            yield from book(what)
        for what in undone:
            yield from undo(what)

    (history,) = simulate(trip, seed=1, faults=Faults.none()).histories.values()
    assert len(list(out_of_order(history))) == wrong


@pytest.mark.parametrize("bug", CONTROLS)
def test_a_bug_is_found(bug: str) -> None:
    """The known-bad controls: a world in which the rule is broken turns up, of the rarest in one of twenty."""
    options, rules = CONTROLS[bug]
    for seed in fresh("simulation", CONTROLS_MAX):
        report = play(seed, shrink=False, **options)
        if rules & {wrong.rule for wrong in report.violations}:
            return
    pytest.fail(f"an engine or store that {bug} went through {CONTROLS_MAX} worlds")
