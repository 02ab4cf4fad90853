"""Kill -9 at any moment, file, SQLite and PostgreSQL: I1 to I12 after every round, and everything ends as it should."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from property_tests.kill9.harness import WORKER, Violation, campaign
from property_tests.kill9.homes import Home, InDirectory, OnServer
from property_tests.seeds import fresh, keeping, kept
from property_tests.tally import tally
from property_tests.warm import Nursery
from tests.postgres import Server, running

CAMPAIGNS = 100 if os.environ.get("ZART_DEEP") else 3
ROUNDS = 50


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One for all campaigns, each in a schema of its own; it lives on when workers die."""
    with running() as started:
        yield started


@pytest.fixture
def home_of(request: pytest.FixtureRequest) -> Callable[[str, Path, int], Home]:
    """What gives a store's campaign its place; the server is started when one is asked for."""

    def home(store: str, place: Path, seed: int) -> Home:
        if store == "postgresql":
            return OnServer(request.getfixturevalue("server"), seed)
        return InDirectory(store, place)

    return home


@pytest.mark.parametrize("store", ["file", "sqlite", "postgresql"])
def test_a_worker_killed_again_and_again_loses_nothing(
    store: str, tmp_path: Path, home_of: Callable[[str, Path, int], Home]
) -> None:
    """Same log for 50 rounds; what was acknowledged is there, and results are those of a run without kills."""
    for seed in [*kept(f"kill9-{store}"), *fresh(f"kill9-{store}", CAMPAIGNS)]:
        place = tmp_path / str(seed)
        place.mkdir()
        with keeping(f"kill9-{store}", seed):
            figures = campaign(home_of(store, place, seed), place, ROUNDS, seed)
        print(figures)
        assert figures.kills == ROUNDS
        assert figures.executions >= 3 * ROUNDS
        assert figures.begun > figures.repeated
        if store == "postgresql":  # leases ran out, and leases lasted
            assert figures.taken_over >= ROUNDS // 2
            assert figures.left >= ROUNDS // 10
        tally("kill -9", seeds=[seed], kills=figures.kills, acknowledged=figures.acknowledged)


def test_a_worker_can_be_killed_from_its_birth_on() -> None:
    """Its group is there when it is handed out; else the kill would hit nobody, and its end be waited for in vain."""
    with Nursery(WORKER) as nursery:
        for _ in range(20):
            child = nursery.fork([])
            assert os.getpgid(child.pid) == child.pid
            assert child.kill() == -signal.SIGKILL


@pytest.mark.parametrize("store", ["file", "postgresql"])
def test_a_store_that_acknowledges_before_it_writes_is_caught(
    store: str, tmp_path: Path, home_of: Callable[[str, Path, int], Home]
) -> None:
    """The known-bad control: the harness notices within a few rounds."""
    (seed,) = fresh("kill9-control", 1)
    with pytest.raises(Violation):
        campaign(home_of(store, tmp_path, seed), tmp_path, 20, seed, lazy=True)
