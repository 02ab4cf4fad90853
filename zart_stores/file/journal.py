"""Numbered bodies in a directory of segments: written once, in order, and found again after a power loss.

Rule 1: no byte of a segment is written twice with another value. What is wrong at the end of a segment is
        left there: the next segment's head says how far this one counts.
Rule 2: a segment gets its name when its head, and what it carries over, is synced, and is written to when its
        name is synced (F4). So under a segment's own name there is always a valid head.
Rule 3: after a failed sync, or an error in the middle of a write, the journal is failed for good (F5). The
        next one to open it carries what it reads back, which may never have reached the disk, over to a new
        segment.
Rule 4: a bad frame before the largest durable mark is damage and refused; one behind it is the torn end of a
        write that was never acknowledged, and is cut, and said so (F3, F9, L12).
Rule 5: a read error is never the end of the log (F8).
Rule 6: a forked child gives its copies of the descriptors up at once, else it would keep the log of its dead parent
        locked (F12).
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

import attrs

from zart_core.errors import InvalidUse, StoreFailed, StoreLocked, StoreUnavailable
from zart_stores.file.frames import (
    BEGINNING,
    Damage,
    Frame,
    Head,
    Previous,
    Sealer,
    corrupt,
    head_line,
    read_head,
    sum_of,
)
from zart_stores.file.fs import FileSystem

SEGMENT_NAME = re.compile(r"segment-(\d{8})\.zart")
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
UNOPENED = frozenset({errno.EMFILE, errno.ENFILE})
"""There is no descriptor: no sync ends so, so that what was to be synced was not even opened."""
SCARCE = FULL | UNOPENED | {errno.ENOMEM}
"""There is no room, no descriptor, or no memory: nothing was opened, and it may be tried again."""
PASSING = SCARCE | {errno.EIO}
"""What is no fault of who named the directory."""
REOPEN = "Close it and open it again: what was not acknowledged is then read back"
OPEN_FILES_MAX = 32
READ_GAP_BYTES = 1 << 14
"""Frames that lie closer together than this are read in one call."""
SEGMENT_BYTES = 64 << 20
"""From this size on a new segment is begun, by default."""
READ_BYTES_MAX = 1 << 20
HEAD_BYTES_MAX = 4096
PROVISIONAL = ".new"
PROVISIONAL_NAME = re.compile(SEGMENT_NAME.pattern + re.escape(PROVISIONAL))


class Full(Exception):
    """There is no room; nothing of what was to be written is there, now or later (F6)."""


class Place(NamedTuple):
    """Where a frame is."""

    segment: int
    offset: int
    length: int


Where: TypeAlias = tuple[int, int, int]
"""A place, or its fields."""


@attrs.define
class Segment:
    """One file of the journal."""

    number: int
    path: str
    head: Head
    sealer: Sealer
    head_bytes: int
    last_sum: str
    """The checksum of the last frame, or of the head."""
    end: int
    """Where the next frame goes."""


@attrs.define
class Draft:
    """A segment that is not on disk yet."""

    segment: Segment
    data: bytes
    places: list[Place]
    """Of the frames that are carried over."""


Replay: TypeAlias = Callable[[bytes, bool, Place], None]
"""Takes a body, whether it closes a session, and its place."""


class Journal:
    """The frames of a directory. Not safe for several threads at once; the log holds a lock around it.

    `syncs` says whether `sync` does anything. `segment_bytes` is the size from which on a new
    segment is begun.
    """

    def __init__(self, fs: FileSystem, path: str, *, syncs: bool, segment_bytes: int) -> None:
        self._fs = fs
        self._path = path
        self._syncs = syncs
        self._segment_bytes = segment_bytes
        self._segments: dict[int, Segment] = {}
        self._files: dict[int, int] = {}
        self._lock_file = -1
        self._sequence = 0
        self._synced = 0
        self._footers: list[Frame] = []
        """Footers at the end of the last segment. Nobody knows whether they reached the disk, so they are
        written again, the same, with the next frame."""
        self._spoiled = False
        self._unnamed = False
        """Whether the last segment's name is yet to be synced (Rule 2)."""
        self.failed: str | None = None
        """Why the journal can no longer be used, or None."""
        self.recovered: str | None = None
        """What was cut off when it was opened, or None."""

    @property
    def segments(self) -> int:
        """How many files there are."""
        return len(self._segments)

    @property
    def sync_call(self) -> str:
        """What `sync` calls for each append."""
        return self._fs.sync_call if self._syncs else "none"

    # ------------------------------------------------ opening

    def open(self, replay: Replay) -> None:
        """Take the lock, read everything, hand each body to `replay` in order, and make ready to append.

        Linear in the size of the log; one segment at a time is in memory. Raises StoreLocked, LogCorrupt,
        FormatTooNew, InvalidUse for a directory that cannot be used, StoreUnavailable when the disk says no.
        """
        self._make_directory()
        self._take_lock()
        try:
            self._find(replay)
            self._file(len(self._segments))
        except OSError as error:
            raise StoreUnavailable(f"the log {self._path} cannot be opened: {error}") from error
        except Full as error:
            raise StoreUnavailable(
                f"the log {self._path} cannot be opened, there is no room: {error}"
            ) from error

    def _find(self, replay: Replay) -> None:
        names = self._fs.list_directory(self._path)
        for name in names:
            if PROVISIONAL_NAME.fullmatch(name):
                self._fs.unlink(self._join(name))
        numbers = sorted(int(found[1]) for name in names if (found := SEGMENT_NAME.fullmatch(name)))
        self._fs.sync_directory(self._path)
        if numbers:
            self._load(numbers, replay)
        else:
            self._fs.sync_directory(os.path.dirname(self._path))  # noqa: PTH120  # paths are text here
            self._begin(self._draft(1, [], None))

    def _make_directory(self) -> None:
        try:
            self._fs.make_directory(self._path)
        except FileExistsError:
            pass
        except OSError as error:
            self._raise_if_passing(error)
            raise InvalidUse(
                f"the log's directory {self._path} cannot be made: {error.strerror}. The directory above it "
                "must be there and writable"
            ) from error

    def _take_lock(self) -> None:
        path = self._join("lock")
        try:
            self._lock_file = self._fs.open(path, write=True, create=True)
        except OSError as error:
            self._raise_if_passing(error)
            raise InvalidUse(
                f"{self._path} cannot be used as a log: {path}: {error.strerror}. Give a directory that this "
                "user may write to, on a disk of this machine"
            ) from error
        _locking.add(self)
        if not self._locked(path):
            raise StoreLocked(
                f"the log {self._path} is open already, in {self._holder() or 'another process'}. One process at a "
                "time may have a file log open: close it there, or use sqlite: or postgresql: for several"
            )
        with contextlib.suppress(OSError):
            self._fs.truncate(self._lock_file, 0)
            self._fs.pwrite(self._lock_file, b"process %d\n" % os.getpid(), 0)

    def _holder(self) -> str:
        """Say who has the lock; empty where that cannot be read."""
        with contextlib.suppress(OSError):
            return self._fs.pread(self._lock_file, 100, 0).decode("ascii", "replace").strip()
        return ""

    def _raise_if_passing(self, error: OSError) -> None:
        if error.errno in PASSING:
            raise StoreUnavailable(f"the log {self._path} cannot be opened: {error}") from error

    def _locked(self, path: str) -> bool:
        try:
            return self._fs.lock(self._lock_file)
        except OSError as error:
            raise InvalidUse(
                f"{path} cannot be locked: {error.strerror}. A file log needs a disk of this machine"
            ) from error

    def _load(self, numbers: Sequence[int], replay: Replay) -> None:
        """Read all heads, then one segment after the other."""
        for expected, number in enumerate(numbers, 1):
            if number != expected:
                missing = Damage(0, "this segment", f"none, and {segment_name(number)} after it")
                raise corrupt(self._join(segment_name(expected)), missing)
            self._segments[number] = self._read_head(number)
        for number in numbers[:-1]:
            self._load_sealed(number, replay)
        self._load_last(self._segments[numbers[-1]], replay)

    def _read_head(self, number: int) -> Segment:
        path = self._join(segment_name(number))
        head, length, total = read_head(self._read_file(path, HEAD_BYTES_MAX), path)
        if head.segment != number or (head.previous is None) != (number == 1):
            raise corrupt(path, Damage(0, f"the head of segment {number}", f"that of segment {head.segment}"))
        return Segment(number, path, head, Sealer(head.salt), length, total, length)

    def _read_file(self, path: str, length: int | None = None) -> bytes:
        fd = self._open(path)
        try:
            return self._pread(fd, path, self._fs.size(fd) if length is None else length, 0, whole=False)
        finally:
            self._fs.close(fd)

    def _load_sealed(self, number: int, replay: Replay) -> None:
        """Replay a segment that another follows: whole, up to the end that the next one's head names."""
        segment, previous = self._segments[number], self._segments[number + 1].head.previous
        assert previous is not None
        for frame in self._sealed_frames(segment, self._read_file(segment.path), previous):
            replay(frame.body, frame.closing, Place(number, frame.offset, frame.length))

    def _sealed_frames(self, segment: Segment, data: bytes, previous: Previous) -> Iterator[Frame]:
        """Yield the frames up to a known end."""
        self._check_base(segment)
        while segment.end < previous.end:
            found = segment.sealer.read(data, segment.end, segment.end)
            if isinstance(found, Damage):
                raise corrupt(segment.path, found)
            self._accept(segment, found)
            yield found
        check_seal(segment, previous)

    def _check_base(self, segment: Segment) -> None:
        if segment.head.base != self._sequence:
            found = f"frame {segment.head.base}"
            raise corrupt(segment.path, Damage(0, f"frame {self._sequence} to come first", found))

    def _accept(self, segment: Segment, frame: Frame) -> None:
        """Count a frame that follows."""
        check_order(segment, frame, self._sequence)
        self._sequence += 1
        segment.end = frame.end
        segment.last_sum = frame.sum

    def _load_last(self, segment: Segment, replay: Replay) -> None:
        """Recover the last segment (Rule 4), replay it, and continue it or begin another.

        It is continued if it was closed. Else it may have been cut, and the cut may never have reached the disk: what
        is written in its place could be found again beside what was cut off (Rule 3).
        """
        data = self._read_file(segment.path)
        self._check_base(segment)
        frames, cut = recover(segment, data)
        for sequence, frame in enumerate(frames, self._sequence):
            check_order(segment, frame, sequence)
        durable = max([segment.head_bytes + segment.head.kept, *(frame.mark for frame in frames)])
        for frame in frames:
            if frame.offset < durable:
                self._accept(segment, frame)
                replay(frame.body, frame.closing, Place(segment.number, frame.offset, frame.length))
        tail = [frame for frame in frames if frame.offset >= durable]
        self._synced = segment.end
        if cut:
            self.recovered = (
                f"{segment.path}: the {cut} bytes from offset {len(data) - cut} on were the torn end of a "
                "write that was never acknowledged; they are cut off"
            )
        if tail and not cut and all(frame.closing for frame in tail):
            self._footers = tail
            for frame in tail:
                replay(frame.body, True, Place(segment.number, frame.offset, frame.length))
        else:
            draft = self._draft(segment.number + 1, tail, segment)
            for frame, place in zip(tail, draft.places, strict=True):
                replay(frame.body, frame.closing, place)
            self._begin(draft)

    def _draft(self, number: int, kept: Sequence[Frame], before: Segment | None) -> Draft:
        """Think out a segment that seals the one before and carries frames of it over (Rule 2)."""
        salt = os.urandom(16).hex()
        size = sum(frame.length for frame in kept)
        previous = None if before is None else Previous(before.end, before.last_sum)
        head = Head(number, self._sequence, size, salt, previous)
        first = head_line(head)
        path = self._join(segment_name(number))
        segment = Segment(number, path, head, Sealer(salt), len(first), read_head(first, path)[2], len(first))
        lines, places = [first], list[Place]()
        for sequence, frame in enumerate(kept, self._sequence):
            lines.append(segment.sealer.line(frame.body, segment.end, sequence, len(first), frame.closing))
            places.append(Place(number, segment.end, frame.length))
            segment.end += frame.length
            segment.last_sum = sum_of(lines[-1])
        return Draft(segment, b"".join(lines), places)

    def _begin(self, draft: Draft) -> Segment:
        """Put a new segment on disk and go on in it."""
        segment = draft.segment
        self._publish(segment, draft.data)
        self._segments[segment.number] = segment
        self._sequence += len(draft.places)
        self._synced = segment.end
        self._footers = []
        self._spoiled = False
        self._sync_names()
        return segment

    def _publish(self, segment: Segment, data: bytes) -> None:
        """Write a file under a provisional name, sync it, give it its name."""
        provisional = f"{segment.path}{PROVISIONAL}"
        try:
            fd = self._fs.open(provisional, write=True, create=True)
        except OSError as error:
            raise self._refusal(error, provisional, SCARCE) from error
        try:
            self._fs.truncate(fd, 0)
            self._write(fd, data, 0)
            self._sync(fd, provisional)
            self._fs.rename(provisional, segment.path)
        except BaseException as error:
            self._fs.close(fd)
            with contextlib.suppress(OSError):
                self._fs.unlink(provisional)
            if isinstance(error, OSError):
                raise self._refusal(error, provisional) from error
            raise
        self._keep_open(segment.number, fd)

    def _sync_names(self) -> None:
        """Sync the directory. An error is final, unless nothing was opened to be synced: then before the next write."""
        self._unnamed = True
        try:
            self._fs.sync_directory(self._path)
            self._unnamed = False
        except BaseException as error:
            if isinstance(error, OSError) and error.errno in UNOPENED:
                raise Full(f"{self._path}: {error.strerror}") from error
            failed = self._fail(f"{self._path}: the directory cannot be synced: {error}")
            if isinstance(error, OSError):
                raise failed from error
            raise

    # ------------------------------------------------ appending

    def write(self, bodies: Sequence[bytes]) -> list[Place]:
        """Write bodies as frames, in one write. They are acknowledged by `sync`.

        Raises Full when there is no room: nothing is there, now or later. Raises StoreFailed when nobody can
        say whether they are there.
        """
        if self._unnamed:
            self._sync_names()
        segment = self._segments[len(self._segments)]
        if self._spoiled or segment.end >= self._segment_bytes:
            segment = self._roll(segment)
        lines, places = self._lines(segment, bodies)
        data = b"".join(lines)
        self._write_or_undo(self._file(segment.number), segment, data)
        segment.end += len(data)
        segment.last_sum = sum_of(lines[-1])
        self._sequence += len(lines)
        self._footers = []
        return places

    def sync(self) -> None:
        """Make what was written durable, at level power. Raises StoreFailed."""
        segment = self._segments[len(self._segments)]
        if self._syncs and self._synced < segment.end:
            self._sync(self._file(segment.number), segment.path)
            self._synced = segment.end

    def _lines(self, segment: Segment, bodies: Sequence[bytes]) -> tuple[list[bytes], list[Place]]:
        """Give the lines to write at the segment's end, footers again first, and the places of the bodies."""
        lines: list[bytes] = []
        places: list[Place] = []
        offset, sequence = segment.end, self._sequence
        for footer in self._footers:
            lines.append(segment.sealer.line(footer.body, offset, sequence, footer.mark, closing=True))
            offset += footer.length
            sequence += 1
        for number, body in enumerate(bodies, sequence):
            lines.append(segment.sealer.line(body, offset, number, self._synced))
            length = len(lines[-1])
            places.append(Place(segment.number, offset, length))
            offset += length
        return lines, places

    def _roll(self, segment: Segment) -> Segment:
        """Begin the next segment; all of this one is synced first.

        One that holds nothing yet is replaced: else each write that finds no room would leave an empty one (F6).
        """
        if self._spoiled and segment.end == segment.head_bytes:
            before = self._segments.get(segment.number - 1)
            return self._begin(self._draft(segment.number, self._footers, before))
        if self._synced < segment.end:
            self._sync(self._file(segment.number), segment.path)
            self._synced = segment.end
        return self._begin(self._draft(segment.number + 1, self._footers, segment))

    def _write_or_undo(self, fd: int, segment: Segment, data: bytes) -> None:
        """Write all of it, or take back what was written (F6), or fail for good."""
        try:
            self._write(fd, data, segment.end)
        except OSError as error:
            if error.errno not in FULL:
                raise self._fail(f"{segment.path}: cannot be written: {error.strerror}") from error
            self._undo(fd, segment)
            raise Full(f"{segment.path}: {error.strerror}") from error
        except BaseException:
            self._fail(f"{segment.path}: a write was interrupted")
            raise

    def _undo(self, fd: int, segment: Segment) -> None:
        """Cut a write that did not fit off again, for good. The space behind is not used again (Rule 1)."""
        self._spoiled = True
        try:
            self._fs.truncate(fd, segment.end)
        except OSError as error:
            raise self._fail(f"{segment.path}: cannot be cut at {segment.end}: {error.strerror}") from error
        if self._syncs:
            self._sync(fd, segment.path)
            self._synced = segment.end

    def _write(self, fd: int, data: bytes, offset: int) -> None:
        """Write everything; loops over short writes and interruptions (F7)."""
        rest = memoryview(data)
        while rest:
            try:
                taken = self._fs.pwrite(fd, rest, offset)
            except InterruptedError:
                continue
            if taken == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            offset += taken
            rest = rest[taken:]

    def _sync(self, fd: int, path: str) -> None:
        """Sync; an error is final (Rule 3)."""
        while True:
            try:
                self._fs.sync(fd)
            except InterruptedError:
                continue
            except OSError as error:
                raise self._fail(f"{path}: cannot be synced: {error.strerror}") from error
            except BaseException:
                self._fail(f"{path}: a sync was interrupted")
                raise
            return

    def _refusal(self, error: OSError, path: str, full: frozenset[int] = FULL) -> Exception:
        """Say what an error while a segment is begun means: no room, or the end."""
        if error.errno in full:
            return Full(f"{path}: {error.strerror}")
        return self._fail(f"{path}: {error.strerror}")

    def _fail(self, reason: str) -> StoreFailed:
        self.failed = reason
        return StoreFailed(f"the log can no longer be used: {reason}. {REOPEN}")

    def fail(self, reason: str) -> None:
        """Refuse everything from now on: what is in memory may no longer be what is on disk."""
        self._fail(reason)

    # ------------------------------------------------ reading

    def read(self, places: Sequence[Where]) -> list[bytes]:
        """Read the bodies at these places, verified; neighbours are read together.

        Raises LogCorrupt, StoreUnavailable.
        """
        bodies: list[bytes] = []
        first = 0
        while first < len(places):
            last = _together(places, first)
            segment, start, _ = places[first]
            end = places[last][1] + places[last][2]
            path = self._segments[segment].path
            data = self._pread(self._file(segment), path, end - start, start)
            body_of = self._segments[segment].sealer.body
            for _, offset, length in places[first : last + 1]:
                found = body_of(data, offset - start, offset, length)
                if isinstance(found, Damage):
                    raise corrupt(path, found)
                bodies.append(found)
            first = last + 1
        return bodies

    def verify(self, replay: Replay) -> None:
        """Read everything again as a second reader would, handing each body to `replay`. Changes nothing.

        Raises LogCorrupt at the first damage.
        """
        again = Journal(self._fs, self._path, syncs=False, segment_bytes=self._segment_bytes)
        for number, segment in self._segments.items():
            copy = again._read_head(number)
            data = again._read_file(copy.path)
            for frame in again._sealed_frames(copy, data, Previous(segment.end, segment.last_sum)):
                replay(frame.body, frame.closing, Place(number, frame.offset, frame.length))

    def _pread(self, fd: int, path: str, length: int, offset: int, *, whole: bool = True) -> bytes:
        """Read so many bytes; fewer only at the end of the file."""
        parts: list[bytes] = []
        while length > 0:
            try:
                part = self._fs.pread(fd, length, offset)
            except InterruptedError:
                continue
            except OSError as error:
                raise StoreUnavailable(
                    f"{path} cannot be read at offset {offset}: {error.strerror}"
                ) from error
            if not part:
                if whole:
                    raise corrupt(path, Damage(offset, f"{length} more bytes", "the end of the file"))
                break
            parts.append(part)
            offset += len(part)
            length -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _file(self, number: int) -> int:
        """Give a descriptor of a segment, for writing too where it is the last; few are kept open."""
        fd = self._files.get(number)
        if fd is None:
            fd = self._open(self._segments[number].path, write=number == len(self._segments))
            self._keep_open(number, fd)
        return fd

    def _open(self, path: str, *, write: bool = False) -> int:
        try:
            return self._fs.open(path, write=write)
        except OSError as error:
            raise StoreUnavailable(f"{path} cannot be opened: {error.strerror}") from error

    def _keep_open(self, number: int, fd: int) -> None:
        replaced = self._files.pop(number, None)
        self._files[number] = fd
        if replaced is not None:
            self._fs.close(replaced)
        if len(self._files) > OPEN_FILES_MAX:
            oldest = next(n for n in self._files if n < len(self._segments))
            self._fs.close(self._files.pop(oldest))

    # ------------------------------------------------ closing

    def close(self, footer: bytes, *, news: bool) -> None:
        """Sync, write a footer that says that everything before it is durable, and let go.

        The footer that the last session left will do when there is no news. Errors are not raised: the log is
        then as one that was not closed.
        """
        wanted = news or not self._footers
        writable = self.failed is None and self._segments and not self._spoiled and not self._unnamed
        if writable and wanted:
            with contextlib.suppress(OSError, StoreFailed):
                self._write_footer(footer)
        self.abandon(unlock=True)

    def _write_footer(self, footer: bytes) -> None:
        segment = self._segments[len(self._segments)]
        fd = self._file(segment.number)
        if self._synced < segment.end:
            self._sync(fd, segment.path)
        lines, _ = self._lines(segment, [])
        end = segment.end + sum(map(len, lines))
        lines.append(segment.sealer.line(footer, end, self._sequence + len(lines), segment.end, closing=True))
        self._write(fd, b"".join(lines), segment.end)
        self._sync(fd, segment.path)

    def abandon(self, *, unlock: bool) -> None:
        """Close descriptors, write nothing. A forked child leaves the lock to its parent (F12)."""
        if unlock and self._lock_file >= 0:
            with contextlib.suppress(OSError):
                self._fs.unlock(self._lock_file)
        for fd in [*self._files.values(), *([self._lock_file] if self._lock_file >= 0 else [])]:
            with contextlib.suppress(OSError):
                self._fs.close(fd)
        self._files.clear()
        self._lock_file = -1
        _locking.discard(self)

    def _join(self, name: str) -> str:
        return f"{self._path}/{name}"


_locking: weakref.WeakSet[Journal] = weakref.WeakSet()
"""Those that have a descriptor of their lock."""


def _abandon_all() -> None:
    for journal in list(_locking):
        journal.abandon(unlock=False)


with contextlib.suppress(AttributeError):  # Windows has neither forks nor this
    os.register_at_fork(after_in_child=_abandon_all)


def segment_name(number: int) -> str:
    """Name the file of a segment."""
    return f"segment-{number:08d}.zart"


def recover(segment: Segment, data: bytes) -> tuple[list[Frame], int]:
    """Give the valid frames of a last segment, and how many bytes lie behind them.

    Raises LogCorrupt when a bad frame lies before a durable mark.
    """
    frames: list[Frame] = []
    offset = segment.head_bytes
    while offset < len(data) or offset < segment.head_bytes + segment.head.kept:
        found = segment.sealer.read(data, offset, offset)
        if isinstance(found, Damage):
            marks = [frame.mark for frame in later(segment, data, offset)]
            if offset < max([segment.head_bytes + segment.head.kept, *marks]):
                raise corrupt(segment.path, found)
            break
        frames.append(found)
        offset = found.end
    return frames, len(data) - offset


def check_order(segment: Segment, frame: Frame, sequence: int) -> None:
    """Raise LogCorrupt unless the frame has this number, and a mark that can be."""
    if frame.sequence != sequence or frame.mark > frame.offset:
        expected = f"frame {sequence} with a mark up to {frame.offset}"
        found = f"frame {frame.sequence}, mark {frame.mark}"
        raise corrupt(segment.path, Damage(frame.offset, expected, found))


def check_seal(segment: Segment, previous: Previous) -> None:
    """Raise LogCorrupt unless the segment, read to its end, is the one that the head of the next one follows."""
    if segment.end != previous.end or segment.last_sum != previous.sum:
        expected = f"the end at {previous.end}, after checksum {previous.sum}"
        raise corrupt(segment.path, Damage(segment.end, expected, f"checksum {segment.last_sum}"))


def later(segment: Segment, data: bytes, offset: int) -> Iterator[Frame]:
    """Yield valid frames behind a bad one. No body holds what a frame begins with: this is linear."""
    position = offset + 1
    while (match := BEGINNING.search(data, position)) is not None:
        found = segment.sealer.read(data, match.start(), match.start())
        if isinstance(found, Frame):
            yield found
            position = found.end
        else:
            position = match.start() + 1


def _together(places: Sequence[Where], first: int) -> int:
    """Find the last of the places from `first` on that are read in one call."""
    segment, start, length = places[first]
    end = start + length
    for number in range(first + 1, len(places)):
        other, offset, length = places[number]
        gap = offset - end
        end = offset + length
        if other != segment or not 0 <= gap <= READ_GAP_BYTES or end - start > READ_BYTES_MAX:
            return number - 1
    return len(places) - 1
