"""The seam between the file log and the operating system, so that tests can put a simulated disk under it.

Rule 1: one method, one system call (`sync_directory` apart); loops over short reads and writes live in the
        log.
Rule 2: nothing here follows a symbolic link, leaves a descriptor to a child program, or makes a file that
        others can read.
`zart_core.testing.SimulatedFileSystem` is its twin.
"""

from __future__ import annotations

import errno
import importlib
import os
from typing import Any, Protocol, runtime_checkable

from zart_core.errors import InvalidUse


@runtime_checkable
class FileSystem(Protocol):
    """What the file log asks of a file system. Paths are text; every method may raise OSError."""

    sync_call: str
    """What `sync` is to the operating system."""

    def make_directory(self, path: str) -> None:
        """Make one directory, for the owner alone."""
        ...

    def list_directory(self, path: str) -> list[str]:
        """List the names in a directory, in no order."""
        ...

    def sync_directory(self, path: str) -> None:
        """Return when the directory's entries are durable."""
        ...

    def open(self, path: str, *, write: bool = False, create: bool = False) -> int:
        """Give a descriptor; `create` makes the file, for the owner alone, if it is not there."""
        ...

    def close(self, fd: int) -> None:
        """Give the descriptor back."""
        ...

    def size(self, fd: int) -> int:
        """Give the file's length in bytes."""
        ...

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        """Read at most `length` bytes from `offset`; fewer is no error, none is the end."""
        ...

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        """Write at `offset`; the number of bytes taken, which may be fewer than given."""
        ...

    def sync(self, fd: int) -> None:
        """Return when the file's data, and the length needed to read it, are durable."""
        ...

    def truncate(self, fd: int, size: int) -> None:
        """Cut the file to `size` bytes."""
        ...

    def rename(self, source: str, target: str) -> None:
        """Give a file another name, in one step."""
        ...

    def unlink(self, path: str) -> None:
        """Remove a name."""
        ...

    def lock(self, fd: int) -> bool:
        """Take the lock of the file behind the descriptor; False at once when somebody else has it."""
        ...

    def unlock(self, fd: int) -> None:
        """Give the lock back, also where a forked child still holds a copy of the descriptor."""
        ...


class RealFileSystem:
    """The operating system's own files (POSIX)."""

    def __init__(self) -> None:
        if not hasattr(os, "pread"):
            raise OSError(errno.ENOSYS, "this platform has no pread and flock")
        self._fcntl: Any = importlib.import_module("fcntl")
        self._full = getattr(self._fcntl, "F_FULLFSYNC", None)
        self.sync_call = "fdatasync" if self._full is None else "F_FULLFSYNC"

    def make_directory(self, path: str) -> None:  # noqa: D102  # as in FileSystem, and so below
        os.mkdir(path, 0o700)  # noqa: PTH102

    def list_directory(self, path: str) -> list[str]:  # noqa: D102
        return os.listdir(path)  # noqa: PTH208

    def sync_directory(self, path: str) -> None:  # noqa: D102
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def open(self, path: str, *, write: bool = False, create: bool = False) -> int:  # noqa: D102
        access = os.O_RDWR if write else os.O_RDONLY
        return os.open(path, access | (os.O_CREAT if create else 0) | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)

    def close(self, fd: int) -> None:  # noqa: D102
        os.close(fd)

    def size(self, fd: int) -> int:  # noqa: D102
        return os.fstat(fd).st_size

    def pread(self, fd: int, length: int, offset: int) -> bytes:  # noqa: D102
        return os.pread(fd, length, offset)

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:  # noqa: D102
        return os.pwrite(fd, data, offset)

    def sync(self, fd: int) -> None:
        """Call what reaches the disk itself: F_FULLFSYNC on macOS, else fdatasync."""
        if self._full is not None:
            self._fcntl.fcntl(fd, self._full)
        else:
            os.fdatasync(fd)

    def truncate(self, fd: int, size: int) -> None:  # noqa: D102
        os.ftruncate(fd, size)

    def rename(self, source: str, target: str) -> None:  # noqa: D102
        os.rename(source, target)  # noqa: PTH104

    def unlink(self, path: str) -> None:  # noqa: D102
        os.unlink(path)  # noqa: PTH108

    def lock(self, fd: int) -> bool:  # noqa: D102
        try:
            self._fcntl.flock(fd, self._fcntl.LOCK_EX | self._fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(self, fd: int) -> None:  # noqa: D102
        self._fcntl.flock(fd, self._fcntl.LOCK_UN)


def path_of(url: str) -> str:
    """Give the directory of a URL, behind symbolic links: they may be changed while it is in use. Raises InvalidUse."""
    scheme, colon, path = url.partition(":")
    path = path.removeprefix("//") if path.startswith("///") else path
    if scheme != "file" or not colon or not path or path.startswith("//") or "\0" in path:
        raise InvalidUse(
            f"{url!a} is no URL of a file log; write file:DIR, as in file:orders or file:/var/lib/orders"
        )
    return os.path.realpath(path)
