"""Files that may hold payloads are their owner's alone: openers for the built-in `open`."""

from __future__ import annotations

import os


def private(path: str, flags: int) -> int:
    """Open a file that somebody named; one that is made has mode 0600, one that is there keeps its own."""
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def private_and_ours(path: str, flags: int) -> int:
    """Open a file that we named; its mode is 0600 afterwards, and it is no symbolic link."""
    fd = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(fd, 0o600)
    except BaseException:
        os.close(fd)
        raise
    return fd
