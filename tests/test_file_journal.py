"""The file log's parts by themselves: frames, the journal of segments, the index of places."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from zart_core.errors import InvalidUse, LogCorrupt
from zart_core.log import Record
from zart_core.testing.contract import new, turn
from zart_core.testing.filesystem import SimulatedFileSystem
from zart_stores import memory
from zart_stores.file import bodies, frames
from zart_stores.file.index import FrameIndex
from zart_stores.file.journal import Journal
from zart_stores.rows import new_row

FIRST = "/log/segment-00000001.zart"
LINE = frames.Sealer("salt").line(b'{"a":1}', 300, 7, 100)
RUBBISH = bytes(range(65, 91)) * 4


@pytest.fixture
def fs():
    return SimulatedFileSystem()


def opened(fs, *, segment_bytes=1 << 20):
    """A journal as the next process would open it, and what is in it: bodies, and whether they close a session."""
    fs.kill()
    journal, found = Journal(fs, "/log", syncs=True, segment_bytes=segment_bytes), []
    journal.open(lambda body, closing, place: found.append((body, closing)))
    return journal, found


def called(fs, kind, action):
    """How often an action makes a call of this kind."""
    before = len(fs.trace)
    action()
    return sum(call.kind == kind for call in fs.trace[before:])


# ---------------------------------------------------------------- frames


@pytest.mark.parametrize(
    ("data", "expected", "found"),
    [
        (RUBBISH, "the beginning of a frame", "69 other bytes"),
        (b"=zart", "the beginning of a frame", "5 other bytes"),
        (bytes(80), "the beginning of a frame", "69 zero bytes"),
        (b"", "the beginning of a frame", "the end of the file"),
        (LINE[:68], "the beginning of a frame", "68 other bytes"),
        (LINE[:69], "a frame of 7 bytes", "0 bytes"),
        (LINE[:-3], "a frame of 7 bytes", "5 bytes"),
        (LINE[:-1], "a frame of 7 bytes", "7 bytes"),
        (LINE[:-1] + b"xy", "a line feed at the frame's end", "another byte"),
        (LINE[:18] + b"0" * 16 + LINE[34:], f"checksum {frames.sum_of(LINE)}", f"checksum {'0' * 16}"),
    ],
)
@pytest.mark.parametrize("before", [b"", b"what lies before" * 9])
def test_what_is_there_in_place_of_a_frame(data, expected, found, before):
    """Damage says what is there, wherever it lies in what was read (L12)."""
    damage = frames.Sealer("salt").read(before + data, len(before), 300)
    assert damage == frames.Damage(300, expected, found)


@pytest.mark.parametrize("longest", [6, 7])
def test_the_longest_frame(monkeypatch, longest):
    """One as long as is allowed is read, a longer one is not."""
    monkeypatch.setattr(frames, "FRAME_BYTES_MAX", longest)
    found = frames.Sealer("salt").read(LINE, 0, 300)
    too_long = frames.Damage(300, "a frame of 7 bytes", "8 bytes")
    assert found == too_long if longest < 7 else found.body == b'{"a":1}'


# ---------------------------------------------------------------- the journal


@pytest.mark.parametrize("last", [True, False])
def test_a_segment_without_frames_follows_the_one_before(fs, last):
    """A head that names another first frame is damage, also where no frame of its own comes after it (I2)."""
    journal, _ = opened(fs, segment_bytes=1)
    if not last:
        journal.write([b"1"])
    journal.abandon(unlock=True)
    head, _, _ = frames.read_head(fs.read_file(FIRST), FIRST)
    fs.write_file(FIRST, frames.head_line(msgspec.structs.replace(head, base=3)))
    with pytest.raises(LogCorrupt, match="expected frame 0 to come first, found frame 3"):
        opened(fs)


def test_footers_go_over_to_a_new_segment_once(fs):
    """What closed the last session is carried into the segment that is begun, and not written again with the next."""
    journal, _ = opened(fs)
    journal.write([b"1"])
    journal.close(b'"closed"', news=True)
    journal, found = opened(fs, segment_bytes=1)
    assert found == [(b"1", False), (b'"closed"', True)]
    journal.write([b"2"])
    journal.sync()
    journal.abandon(unlock=True)
    assert journal.segments == 2
    assert opened(fs)[1] == [*found, (b"2", False)]


def test_footers_are_written_again_once(fs):
    """Nobody knows whether they reached the disk: they go with the next write, and not with the one after it."""
    journal, _ = opened(fs)
    journal.write([b"1"])
    journal.close(b'"closed"', news=True)
    journal, found = opened(fs)
    journal.write([b"2"])
    journal.write([b"3"])
    journal.sync()
    journal.abandon(unlock=True)
    assert journal.segments == 1
    assert opened(fs)[1] == [*found, (b"2", False), (b"3", False)]


def test_what_is_synced_is_not_synced_again(fs):
    """One wait for the disk for what is new, when a segment is begun or closed as well, and none for nothing (F5)."""
    for synced in (True, False):
        journal, _ = opened(fs, segment_bytes=1)
        journal.write([b"1"])
        if synced:
            assert called(fs, "sync", journal.sync) == 1
            assert called(fs, "sync", journal.sync) == 0
        begun = called(fs, "sync", lambda journal=journal: journal.write([b"2"]))
        assert begun == (1 if synced else 2), "the new segment, and the one before if need be"
        if synced:
            assert called(fs, "sync", journal.sync) == 1
        closed = called(fs, "sync", lambda journal=journal: journal.close(b'"closed"', news=True))
        assert closed == (1 if synced else 2), "the footer, and what is before it if need be"


def test_only_the_last_segment_is_opened_for_writing():
    """Whatever else is read, by opening, reading and verifying, can lie on a disk that nobody may write to."""

    class Watched(SimulatedFileSystem):
        def open(self, path, *, write=False, create=False):
            if write:
                written.add(path)
            return super().open(path, write=write, create=create)

    written, fs = set[str](), Watched()
    journal, _ = opened(fs, segment_bytes=1)
    places = [place for n in range(3) for place in journal.write([b"%d" % n])]
    journal.close(b'"closed"', news=True)
    written.clear()
    journal, found = opened(fs)
    journal.verify(lambda body, closing, place: None)
    assert journal.read(places) == [body for body, closing in found if not closing] == [b"0", b"1", b"2"]
    assert written == {"/log/lock", "/log/segment-00000004.zart"}
    journal.abandon(unlock=True)


def test_what_it_has_not_opened_it_does_not_close():
    """One that could not be opened, or has been let go, touches no descriptor: its number may be another's."""

    class Watched(SimulatedFileSystem):
        def close(self, fd):
            closed.append(fd)
            super().close(fd)

    closed, fs = list[int](), Watched()
    journal = Journal(fs, "/no/log", syncs=True, segment_bytes=1 << 20)
    with pytest.raises(InvalidUse, match="The directory above it"):
        journal.open(lambda body, closing, place: None)
    journal.abandon(unlock=True)
    assert closed == []
    journal, _ = opened(fs)
    closed.clear()
    journal.abandon(unlock=True)
    assert len(closed) == 2
    journal.abandon(unlock=True)
    assert len(closed) == 2


# ---------------------------------------------------------------- the index


def test_an_index_forgets_as_lists_forget(fs):
    """Rows from a number on are gone, and their numbers are given again (F27)."""
    journal, _ = opened(fs)
    index, lists, row = FrameIndex(journal), memory.Lists(), new_row(0, new("a"))
    (index.place,) = journal.write([bodies.encode(turn("a", 0, "X"))])
    for both in (index, lists):
        both.begin(row)
        both.add(row, [Record("X", 1.0, b"X")])
        assert len(both.read(row, 0, 0)) == 1
        both.forget(0)
        both.begin(row)
        assert both.read(row, 0, 0) == both.read(row, 1, 0) == []


def test_reading_from_a_position_on_reads_nothing_before_it(fs):
    """From the frame in which the position lies; what comes before may be long."""
    journal, _ = opened(fs)
    index, row, places = FrameIndex(journal), new_row(0, new("a")), []
    index.begin(row)
    for n in range(9):
        (index.place,) = journal.write([bodies.encode(turn("a", row.position, f"X{n}", "Y"))])
        places.append(index.place)
        index.add(row, [Record(f"X{n}", 1.0, b""), Record("Y", 1.0, b"")])
        row.position += 2
    for start in range(18):
        before = len(fs.trace)
        assert len(index.read(row, 0, start)) == 18 - start
        size = sum(call.size for call in fs.trace[before:] if call.kind == "pread")
        assert size == sum(place.length for place in places[start // 2 :])


@pytest.mark.parametrize("kept", range(5))
@pytest.mark.parametrize("runs", [1, 2])
def test_an_index_cut_back_is_as_lists_cut_back(fs, kept, runs):
    """What lies after a run's position is forgotten, frame by frame, and nothing else (F27)."""
    journal, _ = opened(fs)
    index, lists, numbers = FrameIndex(journal), memory.Lists(), itertools.count()
    row = new_row(0, new("a"))
    for run in range(runs):
        row.run, row.position = run, 0
        for both in (index, lists):
            both.begin(row)
        for _ in range(4):
            records = [Record("X", 1.0, b"%d" % next(numbers)) for _ in range(2)]
            (index.place,) = journal.write([bodies.encode(turn("a", row.position, run=run, records=records))])
            for both in (index, lists):
                both.add(row, records)
            row.position += 2
    row.run, row.position = 0, 2 * kept
    for both in (index, lists):
        both.cut(row)
    assert [len(index.read(row, run, 0)) for run in range(2)] == [2 * kept, 0]
    for run, start in itertools.product(range(2), range(10)):
        assert index.read(row, run, start) == lists.read(row, run, start)
