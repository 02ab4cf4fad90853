"""What a directory's disk, file system, locks and clock are good for, found out by trying.

Rule 1: everything is tried in a directory of its own, which is removed; nothing of a store is touched.
"""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeAlias

from zart_core.records import record

State: TypeAlias = Literal["good", "doubtful", "unchecked", "bad"]
MOUNTS = Path("/proc/self/mountinfo")
IN_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs", "hugetlbfs"})
ON_DISK = frozenset(
    {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "jfs", "bcachefs", "apfs", "hfs", "ufs"}
)
OF_OTHERS = re.compile(
    r"nfs\d*|cifs|smb\w*|9p|afs|ceph|glusterfs|lustre|gpfs|vboxsf|drvfs|ncpfs|fuse(\..+)?|virtiofs"
)
"""File systems that somebody else carries out: another machine, or a program."""
NO_BARRIERS = frozenset({"nobarrier", "barrier=0", "volatile"})
"""Mount options with which a sync does not reach the disk."""
FREE_BYTES_MIN = 256 << 20
SYNCS = 20
SECTOR_BYTES = 512
MEMORY_FAST_S = 20e-6
"""A sync that takes less was hardly one."""
CLOCK_FROM = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
"""This program is younger than that."""
CLOCK_SLACK_S = 60.0
LOCK = """
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
try:
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    print("free")
except BlockingIOError:
    print("held")
"""


@record
class Finding:
    """What was looked at, what was found, and what to do where it is not good."""

    name: str
    state: State
    found: str
    advice: str = ""


@record
class Mount:
    """A mounted file system, as Linux tells."""

    point: str
    kind: str
    options: frozenset[str]


def examine(directory: Path, scratch: Path) -> Iterator[Finding]:
    """Examine the disk of a directory; `scratch` is an empty directory on the same file system."""
    yield file_system(mount_of(directory))
    yield tried("data sync", lambda: data_sync(scratch))
    yield tried("directory sync", lambda: directory_sync(scratch))
    yield tried("locks between processes", lambda: locks(scratch))
    yield room(directory)


def tried(name: str, trial: Callable[[], Finding]) -> Finding:
    """Carry out a trial; an error of the system is a finding."""
    try:
        return trial()
    except OSError as error:
        return Finding(name, "bad", f"it fails: {error.strerror or error}", "use a disk of this machine")


def mount_of(directory: Path, mounts: Path = MOUNTS) -> Mount | None:
    """Give the mount that a directory is on; None where the system does not tell."""
    try:
        lines = mounts.read_text("utf-8", "surrogateescape").split("\n")
    except OSError:
        return None
    where = os.path.realpath(directory)
    best: Mount | None = None
    for line in filter(None, lines):
        before, _, after = line.partition(" - ")
        fields, (kind, _, superior) = before.split(" "), (*after.split(" "), "", "", "")[:3]
        point = re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), fields[4])
        if f"{where}/".startswith(f"{point.rstrip('/')}/") and (
            best is None or len(point) >= len(best.point)
        ):
            best = Mount(point, kind, frozenset([*fields[5].split(","), *superior.split(",")]))
    return best


def file_system(mount: Mount | None) -> Finding:
    """Judge a file system by its kind and options."""
    name = "file system"
    if mount is None:
        return Finding(
            name, "doubtful", "this system does not tell", "make sure that it is a disk of this machine"
        )
    found = f"{mount.kind} at {mount.point}"
    if mount.kind in IN_MEMORY:
        return Finding(
            name, "bad", f"{found}, which is memory: it is gone with the power", "use a directory on a disk"
        )
    if useless := sorted(mount.options & NO_BARRIERS):
        return Finding(name, "bad", f"{found}, mounted with {', '.join(useless)}: syncs do not reach the disk",
                       "mount it without")  # fmt: skip
    if OF_OTHERS.fullmatch(mount.kind):
        return Finding(
            name, "bad", f"{found}, which another machine or program carries out: locks and syncs are its affair",
            "use a disk of this machine; for several machines a database server",
        )  # fmt: skip
    if mount.kind == "overlay":
        return Finding(name, "doubtful", f"{found}, a container's own layer: it is gone with the container",
                       "mount a volume and keep the store there")  # fmt: skip
    if mount.kind not in ON_DISK:
        return Finding(
            name, "doubtful", f"{found}, which is not known here", "make sure that a sync waits for the disk"
        )
    return Finding(name, "good", found)


def data_sync(scratch: Path) -> Finding:
    """Write a sector and sync it, some times."""
    fd = os.open(scratch / "sectors", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    took: list[float] = []
    try:
        for number in range(SYNCS):
            os.pwrite(fd, bytes([number]) * SECTOR_BYTES, number * SECTOR_BYTES)
            begun = time.perf_counter()
            os.fdatasync(fd) if hasattr(os, "fdatasync") else os.fsync(fd)
            took.append(time.perf_counter() - begun)
        for number in range(SYNCS):
            if os.pread(fd, SECTOR_BYTES, number * SECTOR_BYTES) != bytes([number]) * SECTOR_BYTES:
                return Finding("data sync", "bad", f"sector {number} reads differently", "replace the disk")
    finally:
        os.close(fd)
    median = statistics.median(took)
    found = f"a sector is written and synced in {median * 1e3:.3f} ms (median of {SYNCS})"
    if median < MEMORY_FAST_S:
        return Finding(
            "data sync",
            "doubtful",
            f"{found}: faster than a disk",
            "find out what is between here and the disk",
        )
    return Finding("data sync", "good", found)


def directory_sync(scratch: Path) -> Finding:
    """Make a name durable."""
    (scratch / "name").touch()
    fd = os.open(scratch, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    return Finding("directory sync", "good", "it works")


def locks(scratch: Path) -> Finding:
    """Take a lock and let another process try."""
    import fcntl  # not on every platform

    path = scratch / "lock"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        during = elsewhere(path)
    finally:
        os.close(fd)
    after = elsewhere(path)
    if (during, after) != ("held", "free"):
        return Finding(
            "locks between processes", "bad", f"another process finds a held lock {during}, and a free one {after}",
            "use a disk of this machine",
        )  # fmt: skip
    return Finding(
        "locks between processes", "good", "another process finds a held lock held, and a free one free"
    )


def elsewhere(path: Path) -> str:
    """Tell what another process finds of a lock."""
    done = subprocess.run(  # noqa: S603  # our own line
        [sys.executable, "-c", LOCK, str(path)], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or f"broken ({done.stderr.strip()[-100:]})"


def room(directory: Path) -> Finding:
    """Look how much room there is."""
    usage = shutil.disk_usage(directory)
    names = os.statvfs(directory)
    found = f"{usage.free / 1e9:,.1f} GB free of {usage.total / 1e9:,.1f}"
    if names.f_files and not names.f_favail:
        return Finding("room", "bad", f"{found}, and no file can be added", "remove some files")
    if usage.free < FREE_BYTES_MIN:
        return Finding(
            "room", "doubtful", found, "make room: a full disk refuses writes until there is some again"
        )
    return Finding("room", "good", found)


def clock(store: Path | None) -> Finding:
    """Judge the clock by our own age and by that of the store's files."""
    now = time.time()
    shown = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    if now < CLOCK_FROM:
        return Finding("clock", "bad", f"{shown}, which has passed long ago", "set the clock")
    newest = max((path.lstat().st_mtime for path in files_of(store)), default=now)
    if newest > now + CLOCK_SLACK_S:
        return Finding("clock", "doubtful", f"{shown}; the store was written {newest - now:,.0f} s after that",
                       "the clock has gone back: timers wait for it to come again")  # fmt: skip
    return Finding("clock", "good", shown)


def files_of(store: Path | None) -> list[Path]:
    """Give the files of a store on disk."""
    if store is None or not store.exists():
        return []
    return [store, *store.iterdir()] if store.is_dir() else [store]
