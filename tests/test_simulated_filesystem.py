"""The simulated file system: what a loss of power may leave, and small logs that it must find wanting."""

import errno
import random

import pytest

from zart_core.testing.filesystem import SECTOR, Call, SimulatedFileSystem, combinations
from zart_stores.file.fs import FileSystem, RealFileSystem

A, B = b"a" * SECTOR, b"b" * SECTOR


def written(*parts, sync=True):
    """A file system with a durable, empty file, and parts written to it at their offsets."""
    fs = SimulatedFileSystem()
    fd = fs.open("/f", write=True, create=True)
    fs.sync_directory("/")
    for data, offset in parts:
        fs.pwrite(fd, data, offset)
    if sync:
        fs.sync(fd)
    return fs, fd


def left(fs, path="/f", limit=4096):
    """What a file may hold after a loss of power; None where it is not there."""
    found = set()
    for state in fs.crash_states(limit):
        names = state.list_directory("/")
        found.add(state.read_file(path) if path.strip("/") in names else None)
    return found


# ---------------------------------------------------------------- what is kept


def test_synced():
    """What was synced is there in every state."""
    fs, _ = written((A + B, 0))
    assert left(fs) == {A + B}


def test_lost_kept_torn():
    """Un-synced sectors of a synced file are kept or not, each for itself."""
    fs, fd = written((A + A, 0))
    fs.pwrite(fd, B + B, 0)
    assert left(fs) == {A + A, A + B, B + A, B + B}


def test_part_of_a_sector():
    """A write within a sector is there or not; the bytes beside it are not damaged."""
    fs, fd = written((b"hello, world", 0))
    fs.pwrite(fd, b"HELLO", 0)
    assert left(fs) == {b"hello, world", b"HELLO, world"}


def test_versions():
    """A sector that was written twice may be found as it was in between."""
    fs, fd = written((b"1", 0))
    fs.pwrite(fd, b"2", 0)
    fs.pwrite(fd, b"3", 0)
    assert left(fs) == {b"1", b"2", b"3"}


def test_new_sectors():
    """Where a file grew, the length may be old or new, and new sectors may be zeros, garbage or stale."""
    fs, fd = written((A, 0))
    fs.pwrite(fd, B, SECTOR)
    found = left(fs)
    assert {A, A + B, A + bytes(SECTOR), A + A} <= found
    assert any(len(data) == 2 * SECTOR and data[SECTOR:] not in (A, B, bytes(SECTOR)) for data in found)
    assert all(data.startswith(A) for data in found)


def test_length_in_between():
    """A file that grew by several sectors may have got some of them."""
    fs, fd = written((A, 0))
    fs.pwrite(fd, B * 3, SECTOR)
    assert {len(data) for data in left(fs)} == {SECTOR * n for n in (1, 2, 3, 4)}


def test_cut():
    """A truncation that was not synced may not have happened; a sector that comes back may hold what it held."""
    fs, fd = written((A + B, 0))
    fs.truncate(fd, SECTOR)
    assert left(fs) == {A + B, A}
    fs.sync(fd)
    assert left(fs) == {A}
    fs.pwrite(fd, b"c", SECTOR)
    assert {A, A + b"c", A + b"b"} <= left(fs)


def test_states_are_durable():
    """What a loss of power left does not change with the next one."""
    fs, fd = written((A + A, 0))
    fs.pwrite(fd, B + B, 0)
    for state in fs.crash_states():
        assert left(state) == {state.read_file("/f")}


def test_states_are_apart():
    """Writing to a state changes neither the others nor where it came from."""
    fs, _ = written((A, 0))
    one, *_ = fs.crash_states()
    one.pwrite(one.open("/f", write=True), B, 0)
    assert fs.read_file("/f") == A
    assert left(fs) == {A}


def test_one_state_is_one_of_all():
    """Drawn alone, each of the states turns up, and no other; the same lots give the same one."""
    fs, fd = written((A + A, 0))
    fs.pwrite(fd, B + B, 0)
    drawn = [fs.crash_state(random.Random(n)).read_file("/f") for n in range(100)]
    assert set(drawn) == left(fs) == {A + A, A + B, B + A, B + B}
    assert drawn == [fs.crash_state(random.Random(n)).read_file("/f") for n in range(100)]


# ---------------------------------------------------------------- names


def test_new_name():
    """A new name is there or not until its directory is synced, whether or not the file is."""
    fs = SimulatedFileSystem()
    fd = fs.open("/f", write=True, create=True)
    fs.pwrite(fd, A, 0)
    fs.sync(fd)
    assert left(fs) == {None, A}
    fs.sync_directory("/")
    assert left(fs) == {A}


def test_rename():
    """A rename has happened or not, never by halves."""
    fs, _ = written((A, 0))
    fs.rename("/f", "/g")
    states = [sorted(state.list_directory("/")) for state in fs.crash_states()]
    assert sorted(states) == [["f"], ["g"]]


def test_unlink():
    """A removed name may come back until the directory is synced."""
    fs, _ = written((A, 0))
    fs.unlink("/f")
    assert left(fs) == {A, None}
    fs.sync_directory("/")
    assert left(fs) == {None}


def test_directory():
    """A new directory goes with everything in it until the one above is synced."""
    fs = SimulatedFileSystem()
    fs.make_directory("/d")
    fs.open("/d/f", create=True)
    fs.sync_directory("/d")
    assert {tuple(state.list_directory("/")) for state in fs.crash_states()} == {(), ("d",)}
    fs.sync_directory("/")
    assert {tuple(state.list_directory("/d")) for state in fs.crash_states()} == {("f",)}


# ---------------------------------------------------------------- faults


def test_failed_sync():
    """After a failed sync the data can be read, is clean, and is not written by the next one."""
    fs, fd = written((A, 0))
    fs.pwrite(fd, B, 0)
    fs.inject("sync", error=errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        fs.sync(fd)
    fs.sync(fd)
    assert fs.read_file("/f") == B
    assert left(fs) == {A, B}
    fs.pwrite(fd, B, 0)
    fs.sync(fd)
    assert left(fs) == {B}


def test_interrupted_sync():
    """EINTR loses nothing: the next sync writes it."""
    fs, fd = written((A, 0))
    fs.pwrite(fd, B, 0)
    fs.inject("sync", error=errno.EINTR)
    with pytest.raises(InterruptedError):
        fs.sync(fd)
    fs.sync(fd)
    assert left(fs) == {B}


def test_short_write():
    """A write that is told to be short takes so many bytes."""
    fs, fd = written()
    fs.inject("pwrite", nth=2, short=3)
    assert [fs.pwrite(fd, b"hello", 0), fs.pwrite(fd, b"world", 5), fs.pwrite(fd, b"ld", 8)] == [5, 3, 2]
    assert fs.read_file("/f") == b"helloworld"


def test_partial_write_that_fails():
    """An error may come with bytes that are there all the same."""
    fs, fd = written()
    fs.inject("pwrite", error=errno.ENOSPC, short=2)
    with pytest.raises(OSError, match="No space"):
        fs.pwrite(fd, b"hello", 0)
    assert fs.read_file("/f") == b"he"


def test_capacity():
    """A full disk takes what fits, then raises ENOSPC, and works again when there is room."""
    fs, fd = written()
    fs.capacity = 3
    assert fs.pwrite(fd, b"hello", 0) == 3
    with pytest.raises(OSError, match="No space"):
        fs.pwrite(fd, b"lo", 3)
    fs.capacity = None
    assert fs.pwrite(fd, b"lo", 3) == 2


def test_read_error():
    """A read may fail, and be short."""
    fs, fd = written((b"hello", 0))
    fs.inject("pread", error=errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        fs.pread(fd, 5, 0)
    fs.inject("pread", short=2)
    assert [fs.pread(fd, 5, 0), fs.pread(fd, 5, 2)] == [b"he", b"llo"]


def test_kill():
    """A process that dies loses its descriptors and locks, and nothing that it wrote; power may still take that."""
    fs, fd = written()
    assert fs.lock(fd)
    fs.pwrite(fd, b"x", 0)
    fs.kill()
    with pytest.raises(OSError, match="Bad file"):
        fs.pread(fd, 1, 0)
    assert fs.read_file("/f") == b"x"
    assert fs.lock(fs.open("/f"))
    assert b"" in left(fs)


def test_lock():
    """A lock is held by one descriptor until it is given back or closed."""
    fs, one = written()
    two = fs.open("/f")
    assert [fs.lock(one), fs.lock(two), fs.lock(one)] == [True, False, True]
    fs.unlock(two)  # who does not have it cannot give it back
    assert not fs.lock(two)
    fs.unlock(one)
    assert fs.lock(two)
    fs.close(two)
    assert fs.lock(one)


def test_trace():
    """Every call is on record, and announced before it takes effect."""
    fs = SimulatedFileSystem()
    sizes = []
    fs.on_call = lambda call: sizes.append((call.kind, len(fs.root.seen)))
    fd = fs.open("/f", write=True, create=True)
    fs.pwrite(fd, b"abc", 7)
    assert fs.trace == [Call("open", "/f"), Call("pwrite", "/f", 7, 3)]
    assert sizes == [("open", 0), ("pwrite", 1)]


@pytest.mark.parametrize("make", [SimulatedFileSystem, RealFileSystem])
def test_twins(make, tmp_path):
    """The real and the simulated one give the same answers."""
    fs = make()
    assert isinstance(fs, FileSystem)
    root = str(tmp_path) if make is RealFileSystem else ""
    fs.make_directory(f"{root}/d")
    with pytest.raises(FileExistsError):
        fs.make_directory(f"{root}/d")
    with pytest.raises(FileNotFoundError):
        fs.open(f"{root}/d/f")
    with pytest.raises(FileNotFoundError):
        fs.make_directory(f"{root}/no/d")
    fd = fs.open(f"{root}/d/f", write=True, create=True)
    with pytest.raises(NotADirectoryError):
        fs.open(f"{root}/d/f/x")
    assert (fs.pwrite(fd, b"hello", 2), fs.size(fd), fs.pread(fd, 100, 0)) == (5, 7, b"\0\0hello")
    assert (fs.pread(fd, 2, 5), fs.pread(fd, 2, 7)) == (b"lo", b"")
    fs.sync(fd)
    fs.truncate(fd, 3)
    assert fs.pread(fd, 9, 0) == b"\0\0h"
    other = fs.open(f"{root}/d/f", write=True)
    assert [fs.lock(fd), fs.lock(other)] == [True, False]
    fs.unlock(fd)
    assert fs.lock(other)
    fs.close(other)
    fs.rename(f"{root}/d/f", f"{root}/d/g")
    assert fs.list_directory(f"{root}/d") == ["g"]
    fs.sync_directory(f"{root}/d")
    fs.make_directory(f"{root}/d/e")
    fs.make_directory(f"{root}/d/h")
    fs.close(fs.open(f"{root}/d/h/x", create=True, write=True))
    with pytest.raises(IsADirectoryError):
        fs.rename(f"{root}/d/g", f"{root}/d/e")
    with pytest.raises(NotADirectoryError):
        fs.rename(f"{root}/d/e", f"{root}/d/g")
    with pytest.raises(OSError, match="not empty"):
        fs.rename(f"{root}/d/e", f"{root}/d/h")
    fs.unlink(f"{root}/d/h/x")
    fs.rename(f"{root}/d/e", f"{root}/d/h")
    fs.rename(f"{root}/d/h", f"{root}/d/h")
    assert sorted(fs.list_directory(f"{root}/d")) == ["g", "h"]
    fs.rename(f"{root}/d/h", f"{root}/d/i")
    assert sorted(fs.list_directory(f"{root}/d")) == ["g", "i"]
    fs.unlink(f"{root}/d/g")
    with pytest.raises(FileNotFoundError):
        fs.unlink(f"{root}/d/g")
    assert fs.list_directory(f"{root}/d") == ["i"]
    fs.close(fd)
    with pytest.raises(OSError, match="Bad file"):
        fs.size(fd)


# ---------------------------------------------------------------- sampling


def test_few_are_all():
    """Where combinations are few, each comes once."""
    assert list(combinations([2, 3], 6, 0)) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]


def test_many_are_sampled():
    """Where they are many: nothing kept, all kept, some that differ in one; all different; repeatable by seed."""
    chosen = list(combinations([3] * 20, 50, 7))
    assert chosen[:2] == [(0,) * 20, (1,) * 20]
    assert len(chosen) == len(set(chosen)) == 50
    assert sum(sorted(choice).count(1) in (1, 19) for choice in chosen) >= 20
    assert chosen == list(combinations([3] * 20, 50, 7)) != list(combinations([3] * 20, 50, 8))


def test_count():
    """The number of combinations is known without looking at them."""
    fs, fd = written((A + A, 0))
    fs.pwrite(fd, B + B, 0)
    assert fs.states_count() == 4 == len(list(fs.crash_states()))


# ---------------------------------------------------------------- known-bad logs


class ToyLog:
    """A log of fixed-size entries in one file; what it leaves out is what makes it bad."""

    def __init__(self, fs, *, sync=True, sync_directory=True, sync_late=False):
        self.fs, self.sync, self.late = fs, sync, sync_late
        self.acknowledged = []
        self.fd = fs.open("/f", write=True, create=True)
        if sync_directory:
            fs.sync_directory("/")

    def append(self, entry):
        self.fs.pwrite(self.fd, entry, len(self.acknowledged) * SECTOR)
        if self.late:
            self.acknowledged.append(entry)
        if self.sync:
            self.fs.sync(self.fd)
        if not self.late:
            self.acknowledged.append(entry)


def losses(**how):
    """How often an acknowledged entry is missing, over all losses of power at all calls."""
    fs = SimulatedFileSystem()
    lost = 0
    log = None

    def lose_power(call):
        nonlocal lost
        for state in fs.crash_states() if log else ():
            there = state.read_file("/f") if "f" in state.list_directory("/") else b""
            lost += not there.startswith(b"".join(log.acknowledged))

    fs.on_call = lose_power
    log = ToyLog(fs, **how)
    for entry in (A, B, A):
        log.append(entry)
    lose_power(None)
    return lost


def test_good_log():
    """A log that syncs its file and its directory before it acknowledges loses nothing."""
    assert losses() == 0


@pytest.mark.parametrize("bad", [{"sync": False}, {"sync_directory": False}, {"sync_late": True}], ids=str)
def test_bad_log(bad):
    """One without sync, one without directory sync, one that acknowledges before: each loses entries."""
    assert losses(**bad) > 0
