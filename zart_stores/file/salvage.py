"""Bring out of a damaged file log what lies whole before the damage, into a new one (F9).

Rule 1: nothing of the damaged log is written, repaired or removed; the new one is made beside it.
Rule 2: what lies behind the damage is not brought over, whole or not: it was written in the knowledge of what is lost.
        It is listed.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections import Counter
from collections.abc import Generator, Iterator

import attrs

from zart_core.errors import InvalidUse, LogCorrupt, StoreLocked, StoreUnavailable
from zart_core.log import Salvaged
from zart_stores.file.bodies import Closed, decode, encode_closed
from zart_stores.file.frames import Damage, Frame, Previous, Sealer, corrupt, read_head
from zart_stores.file.fs import FileSystem, RealFileSystem, path_of
from zart_stores.file.index import FrameIndex
from zart_stores.file.journal import (
    SEGMENT_BYTES,
    SEGMENT_NAME,
    Full,
    Journal,
    Place,
    Segment,
    check_order,
    check_seal,
    later,
    segment_name,
)
from zart_stores.file.replaying import replayer
from zart_stores.memory import Shelf

READ_BYTES = 1 << 16
"""So much is read at once: where the disk cannot read, what is before it is kept."""
WRITES_AT_ONCE = 100


def salvage(url: str, to: str, *, fs: FileSystem | None = None) -> Salvaged:
    """Copy every whole write before the first damage of the log at `url` into a new log at `to`; say what was lost.

    Both are `file:DIR`; `to` must not be there yet. It has that name when it is whole, and is `DIR.part` before.
    Linear in the size of the log; a segment at a time is in memory. Raises InvalidUse, StoreLocked when the damaged log
    is open somewhere, StoreUnavailable when the disk says no.
    """
    files = RealFileSystem() if fs is None else fs
    source, target = path_of(url), path_of(to)
    try:
        names = files.list_directory(source)
    except OSError as error:
        raise InvalidUse(f"{source} cannot be read as a log: {error.strerror}") from error
    numbers = sorted(int(found[1]) for name in names if (found := SEGMENT_NAME.fullmatch(name)))
    if not numbers:
        raise InvalidUse(f"{source} is no file log: it holds no segment")
    with locked(files, source, "lock" in names):
        part = begun(files, target)
        journal = Journal(files, part, syncs=True, segment_bytes=SEGMENT_BYTES)
        try:
            journal.open(lambda body, closing, place: None)
            told = Salvage(files, source, journal).run(numbers)
            journal.close(encode_closed({}), news=False)
        finally:
            journal.abandon(unlock=True)
        try:
            files.rename(part, target)
            files.sync_directory(os.path.dirname(target))  # noqa: PTH120  # paths are text here
        except OSError as error:
            raise StoreUnavailable(
                f"{part} is whole, but to name it {target} failed: {error.strerror}"
            ) from error
        return told


def begun(files: FileSystem, target: str) -> str:
    """Make what is to be `target`, under another name: who finds a part must not take it for the whole."""
    part = f"{target}.part"
    try:
        with contextlib.suppress(FileNotFoundError):
            files.list_directory(target)
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    except OSError as error:
        raise InvalidUse(
            f"{target} cannot be made: {error.strerror}. Name a directory that is not there yet"
        ) from error
    try:
        files.make_directory(part)
    except FileExistsError as error:
        raise InvalidUse(
            f"{part} is there: a salvage that was interrupted left it. Remove it, or name another directory"
        ) from error
    except OSError as error:
        raise InvalidUse(
            f"{part} cannot be made: {error.strerror}. The directory above it must be there and writable"
        ) from error
    return part


@contextlib.contextmanager
def locked(files: FileSystem, source: str, there: bool) -> Generator[None]:
    """Hold the damaged log's lock, without writing to it."""
    if not there:
        yield
        return
    path = f"{source}/lock"
    try:
        fd = files.open(path)
    except OSError as error:
        raise StoreUnavailable(f"{path} cannot be opened: {error.strerror}") from error
    try:
        try:
            free = files.lock(fd)
        except OSError as error:
            raise StoreUnavailable(
                f"{path} cannot be locked: {error.strerror}. A copy of the segments on a disk of this machine will do"
            ) from error
        if not free:
            raise StoreLocked(f"the log {source} is open in another process: close it there first")
        yield
    finally:
        files.close(fd)


@attrs.define
class Salvage:
    """The state of one salvage."""

    files: FileSystem
    source: str
    journal: Journal
    sequence: int = 0
    writes: int = 0
    damage: LogCorrupt | None = None
    unread: dict[str, LogCorrupt] = attrs.Factory(dict[str, LogCorrupt])
    """Where the disk could not read, by path."""
    lost_bytes: int = 0
    lost: Counter[str] = attrs.Factory(Counter[str])
    """Whole writes that were not brought over, by the execution they are for."""
    bodies: list[bytes] = attrs.Factory(list[bytes])

    def run(self, numbers: list[int]) -> Salvaged:
        """Go through the segments."""
        shelf = Shelf(index := FrameIndex(self.journal))
        replay = replayer(self.source, shelf, index)
        for expected, number in enumerate(numbers, 1):
            path = f"{self.source}/{segment_name(number)}"
            if number != expected and self.damage is None:
                missing = Damage(0, "this segment", f"none, and {segment_name(number)} after it")
                self.damage = corrupt(f"{self.source}/{segment_name(expected)}", missing)
            seal = self.seal_of(number + 1, numbers)
            segment, data = self.opened(number, path, seal)
            if segment is None:
                self.lost_bytes += len(data)
                continue
            for frame in self.frames(segment, data, seal):
                try:
                    check_order(segment, frame, self.sequence)
                    replay(frame.body, frame.closing, Place(number, frame.offset, frame.length))
                except LogCorrupt as damage:
                    self.damage = damage
                    self.lose(segment, data, frame.offset)
                    break
                self.sequence += 1
                self.keep(frame)
        self.flush()
        return Salvaged(
            writes=self.writes,
            executions=len(shelf.rows),
            records=index.records,
            damage=None if self.damage is None else str(self.damage),
            lost_bytes=self.lost_bytes,
            lost_writes=dict(self.lost),
        )

    def opened(self, number: int, path: str, seal: Previous | None) -> tuple[Segment | None, bytes]:
        """Read a segment, as far as it counts; None when its head is damaged, or is not the next one."""
        data = self.read(path)[: None if seal is None else seal.end]
        try:
            head, length, total = read_head(data, path)
            if head.segment != number:
                found = f"that of segment {head.segment}"
                raise corrupt(path, Damage(0, f"the head of segment {number}", found))
        except LogCorrupt as damage:
            self.damage = self.damage or self.unread.get(path) or damage
            return None, data
        segment = Segment(number, path, head, Sealer(head.salt), length, total, length)
        if self.damage is None and head.base != self.sequence:
            self.damage = corrupt(
                path, Damage(0, f"frame {self.sequence} to come first", f"frame {head.base}")
            )
        if self.damage is not None:
            self.lose(segment, data, length)
            return None, b""
        return segment, data

    def seal_of(self, following: int, numbers: list[int]) -> Previous | None:
        """Tell how far a segment counts, which the head of the next one says; None for the last."""
        if following not in numbers:
            return None
        path = f"{self.source}/{segment_name(following)}"
        with contextlib.suppress(LogCorrupt):
            return read_head(self.read(path), path)[0].previous
        return None

    def frames(self, segment: Segment, data: bytes, seal: Previous | None) -> Iterator[Frame]:
        """Yield the frames of a segment up to its end or its damage."""
        while segment.end < (len(data) if seal is None else seal.end):
            found = segment.sealer.read(data, segment.end, segment.end)
            if isinstance(found, Damage):
                self.damage = self.unread.get(segment.path) or corrupt(segment.path, found)
                self.lose(segment, data, segment.end)
                return
            yield found
            segment.end, segment.last_sum = found.end, found.sum
        if seal is None:
            self.damage = self.unread.get(segment.path)
            return
        try:
            check_seal(segment, seal)
        except LogCorrupt as damage:
            self.damage = damage

    def lose(self, segment: Segment, data: bytes, offset: int) -> None:
        """Count what lies from here on in a segment."""
        self.lost_bytes += len(data) - offset
        first = segment.sealer.read(data, offset, offset)
        rest = [first] if isinstance(first, Frame) else []
        for frame in (*rest, *later(segment, data, first.end - 1 if isinstance(first, Frame) else offset)):
            with contextlib.suppress(ValueError):
                item = decode(frame.body)
                if not isinstance(item, Closed):
                    self.lost[item.id] += 1

    def keep(self, frame: Frame) -> None:
        """Bring a write over. Footers are not: the new log is closed once, by itself."""
        if not frame.closing:
            self.bodies.append(frame.body)
            self.writes += 1
            if len(self.bodies) >= WRITES_AT_ONCE:
                self.flush()

    def flush(self) -> None:
        """Write what has been kept, durably."""
        if self.bodies:
            try:
                self.journal.write(self.bodies)
            except Full as full:
                raise StoreUnavailable(
                    f"there is no room for what is brought out: {full}. What is there, in a directory that ends in "
                    ".part, is not all of it: remove that, and name one where there is room"
                ) from full
            self.bodies.clear()
            self.journal.sync()

    def read(self, path: str) -> bytes:
        """Read a file up to its end, or to where the disk cannot."""
        try:
            fd = self.files.open(path)
        except OSError as error:
            raise StoreUnavailable(f"{path} cannot be opened: {os.strerror(error.errno or 0)}") from error
        parts: list[bytes] = []
        try:
            offset = 0
            while part := self.files.pread(fd, READ_BYTES, offset):
                parts.append(part)
                offset += len(part)
        except OSError as error:
            self.unread[path] = corrupt(
                path, Damage(sum(map(len, parts)), "readable bytes", f"{error.strerror}")
            )
        finally:
            self.files.close(fd)
        return b"".join(parts)
