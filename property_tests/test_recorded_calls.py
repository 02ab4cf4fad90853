"""Power is lost at every system call that the real stores make: file and SQLite keep what they acknowledged (F2 to F5).

The calls are recorded with strace, the disk states that a loss of power may leave are rebuilt, and opened with the real
code (`zart_core.testing.power`). Where strace cannot run these tests fail; ZART_NO_STRACE=1 passes them over, aloud.

ZART_RECORDED_STATES gives the number of states for both stores together: 5,000 by default, 50,000 in the deep run.
"""

import os
import sys
from pathlib import Path

import pytest
from seeds import fresh, keeping, kept
from tally import tally

from zart_core.testing import power, tracing
from zart_core.testing.filesystem import SimulatedFileSystem
from zart_core.testing.power import check_power_loss

DEEP = bool(os.environ.get("ZART_DEEP"))
STATES = int(os.environ.get("ZART_RECORDED_STATES", "50000" if DEEP else "5000"))
ROOT = Path(__file__).parent.parent
WORKER = (sys.executable, "-m", "property_tests.recorded_workers")

pytestmark = pytest.mark.skipif(
    bool(os.environ.get("ZART_NO_STRACE")),
    reason="ZART_NO_STRACE is set: power loss by recorded calls is NOT checked",
)


@pytest.fixture(autouse=True)
def root(monkeypatch):
    """The workers import from the root."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def seed():
    """A new one each time, printed; ZART_SEED repeats it."""
    (found,) = fresh("recorded-calls", 1)
    return int(os.environ.get("ZART_SEED", found))


@pytest.mark.parametrize(
    ("scheme", "worker", "share"),
    [
        ("file", power.WORKER, 0.5),
        ("sqlite", power.WORKER, 0.25),
        ("sqlite", (*WORKER, "small-checkpoints"), 0.25),
    ],
    ids=["file", "sqlite", "sqlite-checkpoints"],
)
def test_power_loss(scheme, worker, share, tmp_path):
    """I1 to I5 in every state that was tried; what is asserted of calls shows that the interesting ones were there."""
    wanted = int(STATES * share)
    for first in [*kept("recorded-calls"), seed()]:
        with keeping("recorded-calls", first):
            report = check_power_loss(scheme, tmp_path, states=wanted, seed=first, worker=worker)
            assert report.lost == 0, str(report)
        print(report, report.calls)
        assert report.states >= wanted and report.opened >= wanted // 5 and report.acknowledged >= 20
        assert report.calls["fdatasync"] >= 10 and report.calls["pwrite64"] >= 20
        assert list(tmp_path.iterdir()) == []
        tally(
            "real system calls",
            states=report.states,
            different=report.opened,
            acknowledged=report.acknowledged,
        )


def failed_sync(scheme, tmp_path, first, at):
    """A recording in which one sync failed, in each process."""
    inject = [f"fdatasync:error=EIO:when={at}"]
    report = check_power_loss(
        scheme, tmp_path, states=STATES // 12, seed=first, sessions=2, worker=power.WORKER, inject=inject
    )
    print(f"fdatasync {at}:", report)
    assert report.calls_failed >= 1 and report.lost == 0, str(report)
    tally("real system calls", states=report.states, different=report.opened)


def test_the_file_log_after_a_failed_sync(tmp_path):
    """F5: the data of a failed sync may be gone for good; what is acknowledged after that survives all the same."""
    for first in [*kept("failed-sync-file"), *fresh("failed-sync-file", 1)]:
        with keeping("failed-sync-file", first):
            failed_sync("file", tmp_path, first, 3 + first % 4)


def test_sqlite_after_a_failed_sync(tmp_path):
    """F5: the same; once found were failed syncs of the log (10) and of the directory (11; 6: as tables are made)."""
    failed_sync("sqlite", tmp_path, 358441828139, 6)
    failed_sync("sqlite", tmp_path, 663785313225, 10)
    failed_sync("sqlite", tmp_path, 13, 11)
    for first in [*kept("failed-sync-sqlite"), *fresh("failed-sync-sqlite", 1)]:
        with keeping("failed-sync-sqlite", first):
            failed_sync("sqlite", tmp_path, first, 4 + first % 9)


def test_a_store_that_syncs_again_is_caught(tmp_path):
    """One that tries a failed sync again, and believes the second answer, loses what it acknowledged."""
    inject = ["fdatasync:error=EIO:when=6"]
    worker = (*WORKER, "syncs-again")
    report = check_power_loss("file", tmp_path, states=200, seed=1, sessions=1, worker=worker, inject=inject)
    assert report.calls_failed >= 1 and report.lost >= 1


@pytest.mark.parametrize(
    ("scheme", "how"),
    [
        ("file", "no-sync"),
        ("file", "no-directory-sync"),
        ("file", "early"),
        ("sqlite", "normal"),
    ],
)
def test_controls(scheme, how, tmp_path):
    """A store that does not wait for the disk is caught: it loses acknowledged writes."""
    report = check_power_loss(scheme, tmp_path, states=250, seed=seed(), sessions=1, worker=(*WORKER, how))
    assert report.lost >= 1
    assert any("acknowledged" in loss.what or "damaged" in loss.what for loss in report.losses), str(report)


@pytest.mark.parametrize("scheme", ["file", "sqlite"])
def test_names_matter(scheme, tmp_path, monkeypatch):
    """A disk on which no name becomes durable is noticed, for SQLite too, which syncs its directory itself."""
    monkeypatch.setattr(SimulatedFileSystem, "sync_directory", lambda self, path: None)
    report = check_power_loss(scheme, tmp_path, states=250, seed=seed(), sessions=1)
    assert report.lost >= 1


@pytest.mark.parametrize("scheme", ["file", "sqlite"])
def test_level_process_is_no_level_power(scheme, tmp_path):
    """What is asked for at level process loses acknowledged writes to a loss of power: the levels are not the same."""
    report = check_power_loss(scheme, tmp_path, states=250, seed=seed(), sessions=1, durability="process")
    assert report.lost >= 1


def test_no_strace(tmp_path, monkeypatch):
    """Without strace it is said what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("ZART_STRACE", raising=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(tracing.TracingFailed, match="apt-get install strace"):
        check_power_loss("file", tmp_path, states=1)
