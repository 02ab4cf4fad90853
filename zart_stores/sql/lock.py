"""A file that is locked as long as a worker's process lives, so that others know at once when it does not.

Rule 1: whoever finds the lock free knows that its holder is dead: the kernel gave it back (flock, not lockf:
        closing another descriptor of the same file must not lose it).
Rule 2: the name is random and used once, and its holder has the lock before it tells anybody the name; so
        nobody can mistake a new lock for an old one.
Rule 3: a forked child gives its copy up at once, else it would keep its dead parent alive.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import weakref
from pathlib import Path

TOKEN = re.compile(r"[0-9a-f]{16}")
FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW


class Lock:
    """A lock that this process holds, until `drop` or death."""

    def __init__(self, prefix: str) -> None:
        """Take a new one beside `prefix`, a path to which its name is appended. Raises OSError."""
        self.path = ""
        self._fd = -1
        while not self.path:
            self.token = secrets.token_hex(8)
            self._fd = os.open(place(prefix, self.token), FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
            if _locked(self._fd, fcntl.LOCK_EX) and _is_there(place(prefix, self.token), self._fd):
                self.path = place(prefix, self.token)
            else:  # somebody who tidied up was faster than the lock
                self.leave()
        _held.add(self)

    def drop(self) -> None:
        """Remove the file and give the lock back. Twice is once. A file that cannot be removed is a dead one's."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                Path(self.path).unlink()
        self.leave()

    def leave(self) -> None:
        """Close the descriptor and leave the file: what death does."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.leave()


def place(prefix: str, token: str) -> str:
    """Give the path of a lock. The token may come from a database: it is checked before it is used."""
    if not TOKEN.fullmatch(token):
        raise ValueError(f"{token!a} is no name of a lock")
    return prefix + token


def is_dead(prefix: str, token: str) -> bool:
    """Tell whether nobody holds the lock any more. Raises OSError when it cannot be known."""
    try:
        fd = os.open(place(prefix, token), FLAGS)
    except FileNotFoundError:
        return True
    try:
        return _locked(fd, fcntl.LOCK_SH)
    finally:
        os.close(fd)


def leftovers(prefix: str) -> list[str]:
    """Name the locks beside `prefix` that nobody holds; O(files in the directory)."""
    base = Path(prefix)
    names = (entry.name for entry in os.scandir(base.parent) if entry.name.startswith(base.name))
    tokens = [name[len(base.name) :] for name in names if TOKEN.fullmatch(name[len(base.name) :])]
    return [token for token in tokens if is_dead(prefix, token)]


def remove(prefix: str, token: str) -> None:
    """Remove the file of a dead lock, if it is still there."""
    with contextlib.suppress(FileNotFoundError):
        Path(place(prefix, token)).unlink()


def _locked(fd: int, how: int) -> bool:
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_there(path: str, fd: int) -> bool:
    try:
        return os.path.samestat(Path(path).lstat(), os.fstat(fd))
    except FileNotFoundError:
        return False


_held: weakref.WeakSet[Lock] = weakref.WeakSet()


def _leave_all() -> None:
    for lock in list(_held):
        lock.leave()


os.register_at_fork(after_in_child=_leave_all)
