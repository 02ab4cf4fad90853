"""Three workers on one PostgreSQL, killed, stopped, cut off and their server restarted: I1 to I18 hold in the end."""

from __future__ import annotations

import os

import pytest

from property_tests.chaos.harness import FAULTS, Figures, Round, Violation, add
from property_tests.seeds import fresh, keeping, kept
from property_tests.tally import tally
from tests.postgres import running

DEEP = bool(os.environ.get("ZART_DEEP"))
ROUNDS = 50 if DEEP else 2
EXECUTIONS = 200 if DEEP else 60
CI_FAULTS = FAULTS if DEEP else ("kill", "pause", "restart", "terminate", "kill", "pause")


@pytest.fixture(scope="module")
def server():
    with running() as started:
        yield started


def test_chaos_ends_well(server, tmp_path):
    """Whatever strikes: everything ends as it should, no outcome twice, no turn by who holds nothing, and so on."""
    total = Figures()
    drawn = fresh("chaos", ROUNDS)
    for seed in [*kept("chaos"), *drawn]:
        place = tmp_path / str(seed)
        place.mkdir()
        with keeping("chaos", seed):
            figures = Round(server, place, seed, executions=EXECUTIONS, faults=CI_FAULTS).play()
        print(f"seed {seed}: {figures}")
        total = add(total, figures)

    assert total.kills >= CI_FAULTS.count("kill") * ROUNDS
    assert total.restarts >= CI_FAULTS.count("restart") * ROUNDS
    assert total.pauses >= CI_FAULTS.count("pause") * ROUNDS
    assert total.terminations >= CI_FAULTS.count("terminate") * ROUNDS
    assert total.executions >= EXECUTIONS * ROUNDS
    assert total.takeovers >= 5 * ROUNDS
    assert total.turns > total.executions
    counts = {name: count for name, count in total.counts().items() if name != "stillborn"}
    tally("chaos", seeds=drawn, **counts)


def test_a_store_that_checks_no_fence_is_caught(server, tmp_path):
    """The known-bad control: without any fault from outside, the audit sees a turn by who holds nothing."""
    (seed,) = fresh("chaos-control", 1)
    careless = ("property_tests.chaos.careless",)
    with pytest.raises(Violation, match=r"F15: life-\d wrote a turn"):
        Round(server, tmp_path, seed, executions=60, faults=["calm"] * 3, module=careless).play()
