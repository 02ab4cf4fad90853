"""The write-ahead log of an SQLite database: its checkpoints, and what is saved of it when a sync fails (F5).

Rule 1: SQLite makes no checkpoint by itself while a connection is open (wal_autocheckpoint=0): it would not tell of a
        sync that fails in it, and what is committed behind pages that are on no disk goes with the power.
Rule 2: a checkpoint changes the database on the strength of the log. Before one the log has a durable name (F4), and
        after a sync that failed its bytes are written again: closing the last connection is a checkpoint too.
Rule 3: SQLite calls a full disk by its name, and a quota or a limit of file sizes an I/O error: whether the log can
        grow is tried out (F6).
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from collections.abc import Generator

from zart_core.errors import StoreUnavailable
from zart_stores.sql.sqlite_weather import TROUBLE, Trouble, code, patiently

PAGES_MAX = 1000
"""How long the log should be when a checkpoint is made, as SQLite would make it."""
CHANGES_MIN, CHANGES_FIRST, CHANGES_MAX = 500, 2000, 8000
"""How much is committed between two checkpoints: at the least, at first, at the most."""
PAGE_BYTES = 4096
READ_BYTES = 1 << 20
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Pace:
    """Says when a checkpoint is due. SQLite does not tell how long the log is before it has made one."""

    def __init__(self) -> None:
        self.changes = 0
        """Rows, and pages of payload, that were committed since the last checkpoint."""
        self.limit = CHANGES_FIRST

    @property
    def due(self) -> bool:
        """True when the log may be long enough."""
        return self.changes >= self.limit

    def learn(self, pages: int) -> None:
        """Take in how long the log was at a checkpoint: what shares pages, in large commits, needs one less often."""
        self.changes = 0
        self.limit = min(CHANGES_MAX, max(CHANGES_MIN, self.limit * PAGES_MAX // max(pages, 1)))


def checkpoint(db: sqlite3.Connection) -> int:
    """Copy the log into the database as far as no reader is in the way, and sync both; gives the log's pages.

    Raises what sqlite3 raises.
    """
    ((_, pages, _),) = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    return int(pages)


def settle(db: sqlite3.Connection, path: str, busy_s: float, error: Trouble | None = None) -> bool:
    """Prepare a connection for its closing: what it is closed for, or a checkpoint now, shows whether a sync failed.

    Where the log cannot be written again either nothing more can be done; the error that led here tells of it. Gives
    whether the error was that the log cannot grow: then nothing of what was to be committed is there, now or later,
    for its last page comes last.
    """
    full = False
    with contextlib.suppress(*TROUBLE, OSError, StoreUnavailable):
        if db.in_transaction:
            db.execute("ROLLBACK")
        if error is None:
            try:
                checkpoint(db)
            except TROUBLE as failed:
                error = failed
        if error is not None and code(error) == sqlite3.SQLITE_IOERR:
            patiently(lambda: _rewrite(db, path), busy_s, path)
        if error is not None and getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_IOERR_WRITE:
            full = patiently(lambda: _is_full(db, path), busy_s, path)
    return full


def _rewrite(db: sqlite3.Connection, path: str) -> None:
    """Write the bytes of the write-ahead log again, the same, and sync them (F5). Raises sqlite3.Error, OSError.

    When a sync fails the system takes what it could not write for written, and a later sync succeeds without it. A
    checkpoint, such as the closing of the last connection is, would then change the database on the strength of a
    log that is on no disk.
    """
    with _held(db, path) as fd:
        offset = 0
        while data := os.pread(fd, READ_BYTES, offset):
            offset += os.pwrite(fd, data, offset)
        os.fsync(fd)


def _is_full(db: sqlite3.Connection, path: str) -> bool:
    """Tell whether the log cannot grow. Zeros behind it are no page of it, and are taken away again."""
    with _held(db, path) as fd:
        end = os.fstat(fd).st_size
        try:
            return os.pwrite(fd, bytes(PAGE_BYTES), end) < PAGE_BYTES
        except OSError as error:
            return error.errno in NO_ROOM
        finally:
            os.ftruncate(fd, end)


@contextlib.contextmanager
def _held(db: sqlite3.Connection, path: str) -> Generator[int]:
    """Open the log's file while `db` holds the write lock: nobody appends to it meanwhile, or begins it anew."""
    db.execute("BEGIN IMMEDIATE")
    try:
        fd = os.open(f"{path}-wal", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)
    finally:
        db.execute("ROLLBACK")
