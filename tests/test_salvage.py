"""`zart salvage`: whatever is damaged, what lies whole before it is brought over, nothing else, and it says what."""

import contextlib
import errno
import itertools
import json
import os
import re

import msgspec
import pytest

import zart_core as zart
from zart_core.cli import app
from zart_core.errors import InvalidUse, LogCorrupt, StoreLocked, StoreUnavailable
from zart_core.events import Ok
from zart_core.log import Post
from zart_core.testing import SimulatedFileSystem, probe
from zart_core.testing.contract import new, turn, write
from zart_stores.file import bodies, frames, store
from zart_stores.file import salvage as salvaging
from zart_stores.file.salvage import salvage


class Killed(BaseException):
    """The process has ended."""


SESSIONS = probe.script(seed=7, sessions=3, appends=4)


def worked():
    """A log of several segments and sessions on a simulated disk, and what it showed after each write."""
    fs, pictures, segments = SimulatedFileSystem(), [], set()
    log = store.open("file:/log", fs=fs, segment_bytes=3000)
    pictures.append(probe.picture(log))
    for session in SESSIONS:
        for op in session.ops:
            if isinstance(op, probe.Claiming):
                log.claim("w", now=probe.AT, lease_s=60.0, limit=op.limit)
                continue
            for item in probe.batch_of(log, op):
                assert isinstance(log.append([item])[0], Ok)
                pictures.append(probe.picture(log))
        log.close() if session.closes else fs.kill()
        log = store.open("file:/log", fs=fs, segment_bytes=3000)
    log.close()
    segments = sorted(name for name in fs.list_directory("/log") if name.startswith("segment"))
    assert len(segments) >= 4
    return fs, pictures, [f"/log/{name}" for name in segments]


FS, PICTURES, SEGMENTS = worked()


def copy():
    """A disk of its own, with the same files."""
    return next(iter(FS.crash_states(limit=1)))


def brought(fs, to="/new"):
    """What salvage brings over, as the new log shows it; it is whole, and takes a write."""
    told = salvage("file:/log", f"file:{to}", fs=fs)
    log = store.open(f"file:{to}", fs=fs)
    shown, counts = probe.picture(log), log.verify()
    assert (counts["executions"], counts["records"]) == (told.executions, told.records)
    assert isinstance(log.append(probe.batch_of(log, probe.Appending([1])))[0], Ok)
    log.close()
    return told, shown


def test_a_whole_log():
    """Everything comes over, and nothing is said to be lost."""
    told, shown = brought(copy())
    assert shown == PICTURES[-1]
    assert (told.damage, told.lost_bytes, told.lost_writes) == (None, 0, {})
    assert told.writes == len(PICTURES) - 1


def counts(path):
    """How far a segment counts: what lies behind that is carried over to the next one, or was never acknowledged."""
    if path == SEGMENTS[-1]:
        return len(FS.read_file(path))
    following = SEGMENTS[SEGMENTS.index(path) + 1]
    return frames.read_head(FS.read_file(following), following)[0].previous.end


def behind(path, offset):
    """How many bytes lie from an offset of a segment on; heads of those that follow hold nothing that could be lost."""
    later = [name for name in SEGMENTS if name > path]
    heads = [frames.read_head(FS.read_file(name), name)[1] for name in later]
    return sum(map(counts, [path, *later])) - offset - sum(heads)


@pytest.mark.parametrize("path", SEGMENTS)
def test_a_byte_anywhere(path):
    """A byte is changed at any place: exactly the writes before it come over; the source stays as it is."""
    size, end = len(FS.read_file(path)), 0
    for offset in range(0, size, max(1, size // 60)):
        fs = copy()
        data = bytearray(fs.read_file(path))
        data[offset] ^= 0x20
        fs.write_file(path, bytes(data))
        before = {name: fs.read_file(name) for name in SEGMENTS}
        told, shown = brought(fs)
        assert shown == PICTURES[told.writes], offset
        assert {name: fs.read_file(name) for name in SEGMENTS} == before
        if told.damage is None:
            assert shown == PICTURES[-1], "what no longer counts may be damaged"
        else:
            assert f"{path}@" in told.damage
            assert told.lost_bytes == behind(path, int(re.search(r"@(\d+):", told.damage)[1]))
            whole = told.writes + sum(told.lost_writes.values())
            # Without its salt nothing of the segment can be told from rubbish.
            head = f"{path}@0:" in told.damage
            assert head or whole >= len(PICTURES) - 2, "at most one write is unreadable"
            assert whole < len(PICTURES), "what a later session carried over is counted once"
            assert head or told.writes >= end, "damage that lies later leaves no less"
            end = 0 if head else told.writes


def test_a_missing_segment():
    """What comes before it is brought over; what comes after it is counted as lost."""
    fs = copy()
    fs.unlink(SEGMENTS[1])
    told, shown = brought(fs)
    assert shown == PICTURES[told.writes] and "segment-00000002.zart" in told.damage
    assert told.lost_writes and told.lost_bytes > 0


@pytest.mark.parametrize("number", [0, 1])
def test_a_segment_of_another_log(number):
    """Whole by itself, it is not the one that the next one follows, or does not follow the one before: damage."""
    fs, other = SimulatedFileSystem(), SimulatedFileSystem()
    for disk in (fs, other):
        log = store.open("file:/log", fs=disk, segment_bytes=600)
        write(log, new())
        for position in range(1, 10):
            write(log, turn("a", position, "X"))
        log.close()
    fs.write_file(SEGMENTS[number], other.read_file(SEGMENTS[number]))
    with pytest.raises(LogCorrupt) as caught:
        store.open("file:/log", fs=fs)
    fs.kill()
    told, _ = brought(fs)
    assert told.damage == str(caught.value)
    assert told.lost_writes == {"a": 10 - told.writes}


def test_a_sector_that_cannot_be_read():
    """What the disk cannot read is damage, and what is before it comes over (F8)."""
    fs = copy()
    reads = []
    fs.on_call = lambda call: (
        reads.append(call) if call.kind == "pread" and call.path == SEGMENTS[-1] else None
    )
    salvage("file:/log", "file:/first", fs=fs)
    assert reads
    fs = copy()
    seen = []

    def fail(call):
        if call.kind == "pread" and call.path == SEGMENTS[-1]:
            seen.append(call)
            raise OSError(errno.EIO, "Input/output error")

    fs.on_call = fail
    told = salvage("file:/log", "file:/new", fs=fs)
    fs.on_call = None
    assert seen and "Input/output error" in told.damage
    with contextlib.closing(store.open("file:/new", fs=fs)) as log:
        assert probe.picture(log) == PICTURES[told.writes]


@pytest.mark.parametrize("last", [True, False])
def test_a_disk_that_cannot_read_on_between_two_frames(monkeypatch, last):
    """What may lie there is lost, and said to be; behind the end that the next segment knows of there is nothing."""
    path = SEGMENTS[-1] if last else SEGMENTS[0]
    following = frames.read_head(FS.read_file(SEGMENTS[1]), SEGMENTS[1])[0]
    end = FS.read_file(path).rindex(b"\n=") + 1 if last else following.previous.end
    monkeypatch.setattr(salvaging, "READ_BYTES", end)
    fs = copy()

    def fail(call):
        if call.kind == "pread" and call.path == path and call.offset >= end:
            raise OSError(errno.EIO, "Input/output error")

    fs.on_call = fail
    told = salvage("file:/log", "file:/new", fs=fs)
    fs.on_call = None
    assert (told.damage is None) == (not last)
    assert told.damage is None or f"{path}@{end}: expected readable bytes" in told.damage
    with contextlib.closing(store.open("file:/new", fs=fs)) as log:
        assert probe.picture(log) == PICTURES[told.writes]


def test_bad_usage():
    """Nothing is written over, nothing is begun where there is no log, or where it is open."""
    fs = copy()
    with pytest.raises(InvalidUse, match="not there yet"):
        salvage("file:/log", "file:/log", fs=fs)
    with pytest.raises(InvalidUse, match="/log/lock cannot be made: Not a directory"):
        salvage("file:/log", "file:/log/lock", fs=fs)
    with pytest.raises(InvalidUse, match=r"/none/new.part cannot be made: .* above it"):
        salvage("file:/log", "file:/none/new", fs=fs)
    with pytest.raises(InvalidUse, match="cannot be read as a log"):
        salvage("file:/none", "file:/new", fs=fs)
    fs.make_directory("/empty")
    with pytest.raises(InvalidUse, match="no segment"):
        salvage("file:/empty", "file:/new", fs=fs)
    log = store.open("file:/log", fs=fs)
    with pytest.raises(StoreLocked, match="close it there first"):
        salvage("file:/log", "file:/new", fs=fs)
    log.close()
    assert not fs.exists("/new")


@pytest.mark.parametrize(("kind", "code"), [("open", errno.EACCES), ("lock", errno.ENOLCK)])
def test_a_lock_that_cannot_be_had(kind, code):
    """The system's no is weather, with the path; nothing is begun."""
    fs = copy()
    fs.inject(kind, error=code)
    with pytest.raises(StoreUnavailable, match=f"/log/lock cannot be .*{os.strerror(code)}"):
        salvage("file:/log", "file:/new", fs=fs)
    assert not fs.exists("/new")


def test_a_log_that_was_killed_on_a_full_disk():
    """F6: it cannot be opened there, which is said; nothing of it is changed, and it opens when there is room."""
    fs = SimulatedFileSystem()
    log = store.open("file:/log", fs=fs)
    for op in (op for op in SESSIONS[0].ops if isinstance(op, probe.Appending)):
        log.append(probe.batch_of(log, op))
    shown = probe.picture(log)
    fs.kill()
    before = fs.image()
    fs.capacity = sum(len(data) for _, data in before)
    with pytest.raises(StoreUnavailable, match="no room"):
        store.open("file:/log", fs=fs)
    fs.kill()
    assert [(path, data) for path, data in fs.image() if "segment" in path] == [
        (path, data) for path, data in before if "segment" in path
    ]
    fs.capacity = None
    log = store.open("file:/log", fs=fs)
    assert probe.picture(log) == shown


def test_no_room_for_what_is_brought_out(monkeypatch):
    """F6: a full disk is weather, and it is said that what is there is a part; the damaged log stays as it is."""
    monkeypatch.setattr(salvaging, "WRITES_AT_ONCE", 2)
    fs = copy()
    before = [(path, data) for path, data in fs.image() if "segment" in path]
    fs.capacity = sum(len(data) for _, data in fs.image()) + 1000
    with pytest.raises(StoreUnavailable, match=r"no room .* not all of it"):
        salvage("file:/log", "file:/new", fs=fs)
    assert [(path, data) for path, data in fs.image() if path.startswith("/log/segment")] == before
    assert not fs.exists("/new")


def test_a_part_is_not_taken_for_the_whole(monkeypatch):
    """A salvage that was killed, at whichever call, leaves nothing or all of it under the name that was asked for."""
    monkeypatch.setattr(salvaging, "WRITES_AT_ONCE", 2)
    counted = copy()
    before = len(counted.trace)
    salvage("file:/log", "file:/new", fs=counted)
    calls = counted.trace[before:]
    for number, call in enumerate(calls, 1):
        fs = copy()
        left = itertools.count(1)

        def stop(call, left=left, number=number):
            if next(left) >= number:
                raise Killed

        fs.on_call = stop
        with pytest.raises(Killed):
            salvage("file:/log", "file:/new", fs=fs)
        fs.on_call = None
        fs.kill()
        named = any(call.kind == "rename" and call.path == "/new.part" for call in calls[: number - 1])
        assert fs.exists("/new") == named
        if named:
            with contextlib.closing(store.open("file:/new", fs=fs)) as log:
                assert probe.picture(log) == PICTURES[-1]
        elif fs.exists("/new.part"):
            with pytest.raises(InvalidUse, match="interrupted left it"):
                salvage("file:/log", "file:/new", fs=fs)
        else:
            brought(fs)


def test_a_name_that_cannot_be_given():
    """The whole is there under its first name, which is said."""
    fs = copy()
    fs.inject("rename", 2, error=errno.EACCES)
    with pytest.raises(StoreUnavailable, match=r"/new.part is whole, but to name it /new failed: Permission"):
        salvage("file:/log", "file:/new", fs=fs)
    with contextlib.closing(store.open("file:/new.part", fs=fs)) as log:
        assert probe.picture(log) == PICTURES[-1]


@pytest.fixture
def damaged(tmp_path):
    """A file log with a damaged middle, on a real disk."""
    url = f"file:{tmp_path}/log"
    with contextlib.closing(zart.open_log(url)) as log:
        for op in (op for session in SESSIONS for op in session.ops if isinstance(op, probe.Appending)):
            log.append(probe.batch_of(log, op))
    (segment,) = (tmp_path / "log").glob("segment-*")
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    with pytest.raises(LogCorrupt, match="zart salvage"):
        zart.open_log(url)
    return url


def test_the_command(damaged, tmp_path, capsys):
    """It tells what came over, where the damage is, and what was lost; the new store is whole."""
    assert app.main(["salvage", damaged, "--to", f"{tmp_path}/new"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("brought over: ") and lines[1].startswith("damage: the log is damaged at ")
    assert lines[2].startswith("lost: ") and lines[3].startswith("  e0")
    assert app.main(["salvage", damaged, "--to", f"file:{tmp_path}/newer", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    with contextlib.closing(zart.open_log(f"file:{tmp_path}/new")) as log:
        assert log.verify()["records"] == told["records"]
    assert app.main(["verify", f"file:{tmp_path}/newer"]) == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "name the damaged store"),
        (["file:x"], 2, "name the damaged store"),
        (["memory:", "--to", "x"], 2, "offers no salvage"),
        (["nope:x", "--to", "x"], 2, "no installed package"),
        (["file:/no/such", "--to", "x"], 2, "cannot be read as a log"),
    ],
)
def test_the_command_says_what_is_wrong(arguments, code, said, capsys, monkeypatch):
    monkeypatch.delenv("ZART_STORE", raising=False)
    assert app.main(["salvage", *arguments]) == code
    assert said in capsys.readouterr().err


def test_without_a_lock_file():
    """A copy of the segments alone, from a backup perhaps, is enough."""
    fs = copy()
    fs.unlink("/log/lock")
    assert brought(fs)[1] == PICTURES[-1]


def test_writes_are_brought_over_in_groups(monkeypatch):
    """However many there are, a few are in memory at a time."""
    monkeypatch.setattr(salvaging, "WRITES_AT_ONCE", 2)
    assert brought(copy())[1] == PICTURES[-1]


@pytest.mark.parametrize(
    ("field", "by", "why"), [("segment", -1, "the head of segment 2"), ("base", 1, "to come first")]
)
def test_a_head_that_is_not_the_next_one(field, by, why):
    """A head with a checksum that is right, of another segment or after other frames: nothing of it is brought over."""
    fs = copy()
    head, length, _ = frames.read_head(fs.read_file(SEGMENTS[1]), SEGMENTS[1])
    forged = frames.head_line(msgspec.structs.replace(head, **{field: getattr(head, field) + by}))
    fs.write_file(SEGMENTS[1], forged + fs.read_file(SEGMENTS[1])[length:])
    told, shown = brought(fs)
    assert shown == PICTURES[told.writes]
    assert why in told.damage
    assert told.lost_bytes > 0


def test_a_frame_that_does_not_follow():
    """Its checksum is right and its number is not: it and what comes after it are lost, and said to be."""
    fs = copy()
    data = fs.read_file(SEGMENTS[-1])
    head, _, _ = frames.read_head(data, SEGMENTS[-1])
    body = bodies.encode(Post("a", "event", "n", b"", 1.0))
    fs.write_file(SEGMENTS[-1], data + frames.Sealer(head.salt).line(body, len(data), 7, 0))
    told, shown = brought(fs)
    assert shown == PICTURES[-1]
    assert "frame 7" in told.damage and told.lost_writes == {"a": 1}


def test_a_segment_that_cannot_be_opened(monkeypatch):
    """The disk says no to a whole file: weather, with its path; it may be tried again."""
    fs = copy()
    really = fs.open

    def refuse(path, **how):
        if path == SEGMENTS[0]:
            raise OSError(errno.EIO, "no")
        return really(path, **how)

    monkeypatch.setattr(fs, "open", refuse)
    with pytest.raises(StoreUnavailable, match=r"segment-00000001.zart cannot be opened"):
        salvage("file:/log", "file:/new", fs=fs)
