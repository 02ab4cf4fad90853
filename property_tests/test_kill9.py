"""Kill -9 at any moment, file and SQLite: I1 to I12 after every round, and everything ends as it should."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from property_tests.kill9.harness import Violation, campaign

ROUNDS = 150 if os.environ.get("ZART_DEEP") else 10


@pytest.mark.parametrize("store", ["file", "sqlite"])
def test_a_worker_killed_again_and_again_loses_nothing(store: str, tmp_path: Path) -> None:
    """Same directory for all rounds; what was acknowledged is there, and results are those of a run without kills."""
    seed = int(os.environ.get("ZART_SEED", random.randrange(1 << 32)))
    print(f"seed {seed}")
    figures = campaign(store, tmp_path, ROUNDS, seed)
    print(figures)
    assert figures.kills == ROUNDS
    assert figures.executions >= 3 * ROUNDS
    assert figures.begun > figures.repeated


def test_a_store_that_acknowledges_before_it_writes_is_caught(tmp_path: Path) -> None:
    """The known-bad control: the harness notices within a few rounds."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    with pytest.raises(Violation):
        campaign("file", tmp_path, 12, seed, lazy=True)
