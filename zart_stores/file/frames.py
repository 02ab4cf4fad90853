"""The format of the file log: what the bytes of a segment mean. Pure; knows no file.

    =zart TAB 0001 TAB length TAB checksum TAB {"segment":2,"base":17,...} LF       the head of a segment
    =frame TAB length TAB checksum TAB sequence TAB mark TAB {"write":"turn",...} LF
    =close TAB length TAB checksum TAB sequence TAB mark TAB {"write":"closed",...} LF

Rule 1: fixed width, text, one line each: `less` shows the log. Lengths are those of the JSON, in bytes. JSON
        holds no raw tab and no raw line feed: nothing that a payload says looks like the beginning of a
        frame.
Rule 2: a frame's checksum covers the segment's salt, the frame's offset in its file, and all its other
        bytes: a duplicated, misdirected, stale or imitated frame does not verify. It is BLAKE2b, 8 bytes:
        1.6 us for a turn of three records, where a CRC takes 0.6 us and can be forged.
Rule 3: `sequence` numbers the frames of a log from 0, without gap over all segments.
Rule 4: `mark` is an offset of this file: everything before it was known to be synced when the frame was
        written.
Rule 5: the head's first eleven bytes keep their meaning in every format to come (F26).
"""

from __future__ import annotations

import re
from hashlib import blake2b

import msgspec

from zart_core.errors import FormatTooNew, LogCorrupt

FORMAT = 1
SUM_BYTES = 8
ZERO = b"\0"
FRAME_BYTES_MAX = 256 << 20
"""The longest JSON of one frame; a longer write is refused as too large."""

FRAME = b"=frame\t"
CLOSE = b"=close\t"
FRAME_HEAD = re.compile(rb"(=frame|=close)\t(\d{10})\t([0-9a-f]{16})\t(\d{16})\t(\d{16})\t")
BEGINNING = re.compile(rb"=(?:frame|close)\t")
FRAME_HEAD_BYTES = 69
SEGMENT_HEAD = re.compile(rb"=zart\t(\d{4})\t(\d{10})\t([0-9a-f]{16})\t")
SEGMENT_HEAD_BYTES = 39


class Previous(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far the segment before counts: what lies behind `end` was never acknowledged."""

    end: int
    sum: str
    """The checksum of the last frame before `end`, or of the head if there is none."""


class Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first line of a segment."""

    segment: int
    """Counted from 1; the file's name says it too."""
    base: int
    """The sequence number of the first frame."""
    kept: int
    """Bytes of frames that were carried over from the segment before; they were synced with the head."""
    salt: str
    previous: Previous | None


class Frame(msgspec.Struct, frozen=True):
    """One frame in its file."""

    offset: int
    length: int
    """Of the whole line, in bytes."""
    sequence: int
    mark: int
    sum: str
    closing: bool
    body: bytes

    @property
    def end(self) -> int:
        """Where the next frame begins."""
        return self.offset + self.length


class Damage(msgspec.Struct, frozen=True):
    """Why there is no valid frame at an offset."""

    offset: int
    expected: str
    found: str


_head_decoder = msgspec.json.Decoder(Head)


def sum_of(line: bytes) -> str:
    """Give the checksum that stands in a frame's line."""
    return line[18:34].decode()


class Sealer:
    """Makes and checks the checksums of one segment; its salt goes into each."""

    def __init__(self, salt: str) -> None:
        self._salted = blake2b(salt.encode(), digest_size=SUM_BYTES)

    def line(self, body: bytes, offset: int, sequence: int, mark: int, closing: bool = False) -> bytes:
        """Give the bytes of a frame at `offset`."""
        magic = CLOSE if closing else FRAME
        front = b"%b%010d\t" % (magic, len(body))
        rest = b"%016d\t%016d\t%b" % (sequence, mark, body)
        return b"%b%b\t%b\n" % (front, self._sum(offset, front, rest), rest)

    def read(self, data: bytes, start: int, offset: int) -> Frame | Damage:
        """Give the frame that begins at data[start], which is `offset` in its file, or what is wrong."""
        found = FRAME_HEAD.match(data, start)
        if found is None:
            return Damage(offset, "the beginning of a frame", _shown(data[start : start + FRAME_HEAD_BYTES]))
        length = int(found[2])
        body_start = start + FRAME_HEAD_BYTES
        end = body_start + length
        if length > FRAME_BYTES_MAX or end >= len(data):
            return Damage(offset, f"a frame of {length} bytes", f"{max(0, len(data) - body_start)} bytes")
        body = data[body_start:end]
        total = self._sum(offset, data[start : start + 18], data[start + 35 : end])
        if total != found[3]:
            return Damage(offset, f"checksum {total.decode()}", f"checksum {found[3].decode()}")
        if data[end] != 0x0A:
            return Damage(offset, "a line feed at the frame's end", "another byte")
        return Frame(
            offset,
            end + 1 - start,
            int(found[4]),
            int(found[5]),
            total.decode(),
            found[1] == b"=close",
            body,
        )

    def body(self, data: bytes, start: int, offset: int, length: int) -> bytes | Damage:
        """As `read` of a frame whose length is known, but only what it says, for half the time."""
        end = start + length - 1
        total = self._sum(offset, data[start : start + 18], data[start + 35 : end])
        if data[start + 18 : start + 35] == total + b"\t" and data[end : end + 1] == b"\n":
            return data[start + FRAME_HEAD_BYTES : end]
        found = self.read(data, start, offset)
        return found.body if isinstance(found, Frame) else found

    def _sum(self, offset: int, front: bytes, rest: bytes) -> bytes:
        """The checksum of what stands before it and behind it."""
        total = self._salted.copy()
        total.update(b"%d\t%b" % (offset, front))
        total.update(rest)
        return total.hexdigest().encode()


def head_line(head: Head) -> bytes:
    """Give the bytes of a segment's first line."""
    body = msgspec.json.encode(head)
    length = b"%010d\t" % len(body)
    version = b"=zart\t%04d\t" % FORMAT
    return b"%b%b%b\t%b\n" % (version, length, _head_sum(version, length, body), body)


def read_head(data: bytes, path: str) -> tuple[Head, int, str]:
    """Give a segment's head, its length in bytes, and its checksum. Raises LogCorrupt, FormatTooNew."""
    found = SEGMENT_HEAD.match(data)
    version = re.match(rb"=zart\t(\d{4})\t", data)
    if version is not None and int(version[1]) > FORMAT:
        raise FormatTooNew(
            f"{path} has format {int(version[1])}; this version of Zart reads formats up to {FORMAT}: "
            "open it with a newer version",
            where=f"{path}@0",
            expected=str(FORMAT),
            found=str(int(version[1])),
            path=path,
            offset=0,
        )
    if found is None or version is None:
        raise corrupt(path, Damage(0, "the head of a segment", _shown(data[:SEGMENT_HEAD_BYTES])))
    end = SEGMENT_HEAD_BYTES + int(found[2])
    body = data[SEGMENT_HEAD_BYTES:end]
    total = _head_sum(data[:11], data[11:22], body)
    if total != found[3] or data[end : end + 1] != b"\n" or int(version[1]) != FORMAT:
        raise corrupt(path, Damage(0, f"a head with checksum {total.decode()}", f"{found[3].decode()}"))
    try:
        return _head_decoder.decode(body), end + 1, total.decode()
    except msgspec.MsgspecError as error:
        raise corrupt(path, Damage(0, "the fields of a head", str(error))) from error


def corrupt(path: str, damage: Damage) -> LogCorrupt:
    """Make the error that says where the damage is and what to do."""
    where = f"{path}@{damage.offset}"
    return LogCorrupt(
        f"the log is damaged at {where}: expected {damage.expected}, found {damage.found}. Nothing was "
        "changed. Restore the directory from a copy, or bring out what lies before it with zart salvage",
        where=where,
        expected=damage.expected,
        found=damage.found,
        path=path,
        offset=damage.offset,
    )


def _head_sum(version: bytes, length: bytes, body: bytes) -> bytes:
    return blake2b(version + length + body, digest_size=SUM_BYTES).hexdigest().encode()


def _shown(data: bytes) -> str:
    """Say what is there and not what it says: it may be a part of somebody's payload."""
    if not data:
        return "the end of the file"
    return f"{len(data)} {'other' if data.strip(ZERO) else 'zero'} bytes"
