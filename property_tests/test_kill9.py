"""Kill -9 at any moment, file and SQLite: I1 to I12 after every round, and everything ends as it should."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from property_tests.kill9.harness import WORKER, Violation, campaign
from property_tests.seeds import fresh, keeping, kept
from property_tests.tally import tally
from property_tests.warm import Nursery

CAMPAIGNS = 100 if os.environ.get("ZART_DEEP") else 3
ROUNDS = 50


@pytest.mark.parametrize("store", ["file", "sqlite"])
def test_a_worker_killed_again_and_again_loses_nothing(store: str, tmp_path: Path) -> None:
    """Same directory for 50 rounds; what was acknowledged is there, and results are those of a run without kills."""
    for seed in [*kept(f"kill9-{store}"), *fresh(f"kill9-{store}", CAMPAIGNS)]:
        place = tmp_path / str(seed)
        place.mkdir()
        with keeping(f"kill9-{store}", seed):
            figures = campaign(store, place, ROUNDS, seed)
        print(figures)
        assert figures.kills == ROUNDS
        assert figures.executions >= 3 * ROUNDS
        assert figures.begun > figures.repeated
        tally("kill -9", seeds=[seed], kills=figures.kills, acknowledged=figures.acknowledged)


def test_a_worker_can_be_killed_from_its_birth_on() -> None:
    """Its group is there when it is handed out; else the kill would hit nobody, and its end be waited for in vain."""
    with Nursery(WORKER) as nursery:
        for _ in range(20):
            child = nursery.fork([])
            assert os.getpgid(child.pid) == child.pid
            assert child.kill() == -signal.SIGKILL


def test_a_store_that_acknowledges_before_it_writes_is_caught(tmp_path: Path) -> None:
    """The known-bad control: the harness notices within a few rounds."""
    (seed,) = fresh("kill9-control", 1)
    with pytest.raises(Violation):
        campaign("file", tmp_path, 20, seed, lazy=True)
