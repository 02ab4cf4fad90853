"""`zart doctor`: what a store promises here, whether the machine lets it keep that, and a verdict with an exit code."""

import contextlib
import json
import os
import sqlite3
import sys
import time

import pytest

import zart_core as zart
from zart_core.cli import app, doctor_machine
from zart_core.cli.doctor_machine import Mount, clock, data_sync, file_system, locks, mount_of, room
from zart_core.testing import power

MOUNTINFO = """\
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro
22 21 0:20 / /dev/shm rw,nosuid - tmpfs tmpfs rw,size=65536k
23 21 0:40 / /srv rw,relatime - nfs4 server:/export rw,vers=4.2
24 23 8:2 / /srv/with\\040space rw,relatime - xfs /dev/sdb1 rw,nobarrier
25 21 0:50 / /odd rw - erofs /dev/x ro
"""


@pytest.fixture
def doctor(capsys, monkeypatch):
    """The command; gives its exit code and its JSON."""
    monkeypatch.delenv("ZART_STORE", raising=False)

    def run(*arguments):
        code = app.main(["doctor", *map(str, arguments), "--json"])
        said = capsys.readouterr()
        return code, json.loads(said.out) if said.out else said.err

    return run


def states(found):
    return {finding["name"]: finding["state"] for finding in found["findings"]}


@pytest.mark.parametrize("store", ["file:{}/log", "sqlite:{}/log.db"])
@pytest.mark.parametrize("there", [False, True])
def test_a_store_on_a_disk(doctor, tmp_path, monkeypatch, store, there):
    """Level and settings as read back, the disk tried, and nothing left behind; there need not be a store yet."""
    monkeypatch.setattr(doctor_machine, "mount_of", lambda directory: Mount("/", "ext4", frozenset()))
    monkeypatch.setattr(doctor_machine, "MEMORY_FAST_S", 0.0)
    monkeypatch.setattr(doctor_machine, "FREE_BYTES_MIN", 0)
    url = store.format(tmp_path)
    if there:
        zart.open_log(url).close()
    before = sorted(tmp_path.iterdir())
    code, found = doctor(url)
    assert (code, found["ok"], found["level"]) == (0, True, "power")
    assert set(states(found).values()) == {"good"}
    assert found["verdict"] == "what is acknowledged survives a loss of power"
    if url.startswith("sqlite"):
        expected = {
            "journal_mode": "wal",
            "synchronous": "FULL",
            "format": 2,
            "sqlite": sqlite3.sqlite_version,
        }
        assert found["settings"] == {**expected, "page_size": found["settings"]["page_size"]}
    else:
        assert found["settings"] == {"sync": "fdatasync", "segments": 1, "format": 1}
    assert sorted(tmp_path.iterdir()) == before


def test_a_store_behind_a_link(doctor, tmp_path, monkeypatch):
    """The disk that is looked at is the one that the store is on, and not the one that the link to it is on."""
    asked = []
    monkeypatch.setattr(doctor_machine, "mount_of", asked.append)
    (tmp_path / "disk").mkdir()
    zart.open_log(f"file:{tmp_path}/disk/log").close()
    (tmp_path / "link").symlink_to("disk/log")
    _, found = doctor(f"file:{tmp_path}/link")
    assert asked == [tmp_path / "disk"]
    assert (found["directory"], found["findings"][0]["found"]) == (f"{tmp_path}/disk", "it opens")


def test_settings_are_read_back(doctor, tmp_path):
    """Of the database that is there, not of the code: its page size is what it was made with."""
    with contextlib.closing(sqlite3.connect(tmp_path / "log.db")) as db:
        db.execute("PRAGMA page_size=8192")
        db.execute("VACUUM")
    _, found = doctor(f"sqlite:{tmp_path}/log.db")
    assert found["settings"]["page_size"] == 8192


def test_memory(doctor):
    """It says that nothing survives; no disk is looked at."""
    code, found = doctor("memory:")
    assert (code, found["level"], found["directory"]) == (0, "none", None)
    assert list(states(found)) == ["store", "level", "clock"]
    assert found["verdict"].startswith("nothing survives the process")


def test_a_locked_store(doctor, tmp_path):
    """What another has open is no reason not to look at the disk; the exit code is that of a store out of reach."""
    with contextlib.closing(zart.open_log(f"file:{tmp_path}/log")):
        code, found = doctor(f"file:{tmp_path}/log")
    assert code == 4 and states(found)["store"] == "bad" and states(found)["directory sync"] == "good"
    assert f"process {os.getpid()}" in found["findings"][0]["found"]


def test_a_damaged_store(doctor, tmp_path):
    (tmp_path / "log.db").write_bytes(b"no database, but long enough to be taken for one " * 100)
    code, found = doctor(f"sqlite:{tmp_path}/log.db")
    assert code == 4 and "not an SQLite database" in found["findings"][0]["found"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no store is given"),
        (["nope:x"], "no installed package offers a store"),
        (["sqlite:/no/such/directory/log.db"], "there is no directory '/no/such/directory'"),
        (["memory:", "--directory", "/no/such"], "there is no directory '/no/such'"),
        (["memory:", "--directory", "/proc/self"], "nothing can be written to '/proc/self'"),
    ],
)
def test_bad_usage(doctor, arguments, said):
    code, error = doctor(*arguments)
    assert code == 2 and said in error


def test_mounts(tmp_path):
    """The innermost mount counts; spaces are escaped in the system's list, and other names are bytes as they are."""
    odd = b"26 21 8:3 / /caf\xe9 rw - vfat /dev/sdc1 rw\n27 21 8:4 / /a\xc2\xa0b\xe2\x80\xa8c rw - btrfs /dev/sdd1 rw\n"
    (tmp_path / "mounts").write_bytes(MOUNTINFO.encode() + odd)
    kinds = {
        "/var/lib": "ext4", "/dev/shm/x": "tmpfs", "/dev/shmoo": "ext4", "/srv": "nfs4", "/srv/with space/a": "xfs",
        "/caf\udce9/x": "vfat", "/a\xa0b\u2028c": "btrfs",
    }  # fmt: skip
    for directory, kind in kinds.items():
        mount = mount_of(directory, tmp_path / "mounts")
        assert mount is not None and mount.kind == kind, directory
    assert "nobarrier" in mount_of("/srv/with space", tmp_path / "mounts").options
    assert mount_of("/", tmp_path / "none") is None


@pytest.mark.parametrize(
    ("kind", "options", "state"),
    [
        ("ext4", "rw", "good"),
        ("xfs", "rw", "good"),
        ("ext4", "barrier=0", "bad"),
        ("ext3", "nobarrier", "bad"),
        ("tmpfs", "rw", "bad"),
        ("nfs4", "rw", "bad"),
        ("nfs", "rw", "bad"),
        ("cifs", "rw", "bad"),
        ("fuse.sshfs", "rw", "bad"),
        ("9p", "rw", "bad"),
        ("overlay", "rw", "doubtful"),
        ("overlay", "volatile", "bad"),
        ("erofs", "ro", "doubtful"),
    ],
)
def test_file_systems(kind, options, state):
    """Where a sync does not reach a disk of this machine it is said, with something to do about it."""
    found = file_system(Mount("/x", kind, frozenset([options])))
    assert found.state == state and kind in found.found
    assert bool(found.advice) is (state != "good")


def test_an_unknown_mount():
    assert file_system(None).state == "doubtful"


def test_locks_that_do_not_hold(tmp_path, monkeypatch):
    """Locks that another process does not see, as on some network file systems, are found out."""
    assert locks(tmp_path).state == "good"
    monkeypatch.setattr(doctor_machine, "LOCK", "print('free')")
    assert locks(tmp_path).state == "bad"
    monkeypatch.setattr(doctor_machine, "LOCK", "1 / 0")
    assert "ZeroDivisionError" in locks(tmp_path).found


def test_syncs_that_fail(tmp_path, monkeypatch):
    """An error of the system is a finding."""

    def fail(fd):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fail)
    monkeypatch.setattr(os, "fsync", fail)
    found = {it.name: it for it in doctor_machine.examine(tmp_path, tmp_path)}
    assert found["data sync"].state == found["directory sync"].state == "bad"
    assert "Input/output error" in found["data sync"].found


def test_a_disk_that_gives_something_else(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "pread", lambda fd, length, offset: b"\0" * length)
    assert data_sync(tmp_path).state == "bad"


def test_room(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor_machine, "FREE_BYTES_MIN", 0)
    assert room(tmp_path).state == "good"
    monkeypatch.setattr(doctor_machine, "FREE_BYTES_MIN", 1 << 62)
    assert room(tmp_path).state == "doubtful"


def test_clock(tmp_path, monkeypatch):
    """A clock that stands in the past, or before the last write of the store, is doubted."""
    store = tmp_path / "log"
    store.mkdir()
    (store / "segment").touch()
    assert clock(store).state == clock(None).state == clock(tmp_path / "none").state == "good"
    os.utime(store / "segment", (time.time() + 7200, time.time() + 7200))
    assert clock(store).state == "doubtful"
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert clock(None).state == "bad"


def test_text(capsys, tmp_path):
    """A line for each finding, the settings, and the verdict."""
    app.main(["doctor", f"sqlite:{tmp_path}/log.db"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[1] == "store"
    assert lines[-2].startswith("settings: journal_mode wal, synchronous FULL, page_size ")
    assert lines[-1].startswith("verdict: ")


def test_no_store_is_made(capsys, tmp_path):
    """Where there is something else, or an empty file, there is no store yet, and there is none afterwards."""
    tmp_path.joinpath("mine").mkdir()
    tmp_path.joinpath("mine/notes.txt").touch()
    tmp_path.joinpath("empty.db").touch()
    for url in (
        f"file:{tmp_path}/mine",
        f"file://{tmp_path}/mine",
        f"file://{tmp_path}/none",
        f"sqlite:{tmp_path}/empty.db",
    ):
        app.main(["doctor", url])
        assert "there is none yet; one like it opens here" in capsys.readouterr().out
    assert [path.name for path in tmp_path.joinpath("mine").iterdir()] == ["notes.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.db", "mine"]
    assert tmp_path.joinpath("empty.db").stat().st_size == 0


# ------------------------------------------------ power loss


@pytest.mark.parametrize("scheme", ["file", "sqlite"])
def test_power_loss(doctor, tmp_path, monkeypatch, scheme):
    """The states tried and lost, none for a store that is sound, and what is lost without syncs beside it."""
    code, found = doctor(f"{scheme}:{tmp_path}/log", "--power-loss", "--states", "60")
    assert found["power_loss"]["states"] >= 60 and found["power_loss"]["lost"] == 0
    (finding,) = [it for it in found["findings"] if it["name"] == "power loss"]
    assert finding["state"] == "good", finding
    assert "0 lost; without syncs" in finding["found"]
    assert list(tmp_path.iterdir()) == []
    assert code == (0 if "bad" not in states(found).values() else 4)


def test_power_loss_that_loses(doctor, tmp_path, monkeypatch, caplog):
    """A store that promises more than it does is found out, and the exit code says so."""
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    bad = (sys.executable, "-m", "property_tests.recorded_workers", "no-sync")
    monkeypatch.setitem(power.check_power_loss.__kwdefaults__, "worker", bad)
    code, found = doctor(f"file:{tmp_path}/log", "--power-loss", "--states", "60")
    assert code == 4 and found["power_loss"]["lost"] > 0
    assert "the first: " in found["findings"][-1]["found"] and "power loss" in found["verdict"]
    assert caplog.records == []


def test_no_strace(doctor, tmp_path, monkeypatch):
    """It is said what to install, and the exit code is not that of a promise that was checked."""
    monkeypatch.setenv("ZART_STRACE", "no-such-program")
    code, found = doctor(f"file:{tmp_path}/log", "--power-loss")
    assert code == 4 and found["power_loss"] is None
    assert "no-such-program (ZART_STRACE) is no program" in found["findings"][-1]["found"]
    assert found["findings"][-1]["state"] == "unchecked" and not found["ok"]
    assert found["verdict"] == "it is not known what the store keeps here; not checked: power loss"
    monkeypatch.delenv("ZART_STRACE")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(doctor_machine, "elsewhere", lambda path: "free")
    code, found = doctor(f"file:{tmp_path}/log", "--power-loss")
    assert code == 4 and "apt-get install strace" in found["findings"][-1]["found"]


def test_nothing_to_lose(doctor):
    """A store that promises nothing, or is in no directory, is not said to be checked."""
    code, found = doctor("memory:", "--power-loss")
    assert code == 4 and found["findings"][-1]["state"] == "unchecked"
    assert found["verdict"].endswith("not checked: power loss")
