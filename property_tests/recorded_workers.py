"""Workers whose system calls are recorded.

    python -m property_tests.recorded_workers HOW URL SEED SESSIONS MARKS DURABILITY

HOW is "small-checkpoints", SQLite as it is with a log that begins anew again and again, or a bad store: what the check
has to notice.
"""

from __future__ import annotations

import os
import sys

from zart_core.testing import probe
from zart_stores.file import journal
from zart_stores.file.fs import RealFileSystem
from zart_stores.file.store import FileLog
from zart_stores.sql import sqlite, sqlite_file, sqlite_wal


def small_checkpoints():
    """SQLite's log is copied into the database, and begins anew, after a few writes."""
    sqlite_wal.CHANGES_MIN = sqlite_wal.CHANGES_FIRST = sqlite_wal.CHANGES_MAX = 15


def normal():
    """SQLite commits without waiting for the disk, and says that it is FULL."""
    sqlite.FULL = sqlite_file.NORMAL


def no_sync():
    """The file log's data is never synced."""
    RealFileSystem.sync = lambda self, fd: None


def no_directory_sync():
    """Names are never synced, in either store."""
    RealFileSystem.sync_directory = lambda self, path: None
    fsync = os.fsync
    os.fsync = lambda fd: None if os.path.isdir(f"/proc/self/fd/{fd}") else fsync(fd)


def acknowledges_early():
    """The file log syncs what it acknowledged with the next append only."""
    plain = journal.Journal.sync
    FileLog.append = _append_first(FileLog.append)
    journal.Journal.sync = lambda self: None
    journal.Journal.late_sync = plain


def _append_first(append):
    def appended(self, batch):
        self._journal.late_sync()
        return append(self, batch)

    return appended


def syncs_again():
    """The file log tries a failed sync again, and believes the second answer."""
    plain = RealFileSystem.sync

    def sync(self, fd):
        try:
            plain(self, fd)
        except OSError:
            plain(self, fd)

    RealFileSystem.sync = sync


HOW = {
    "small-checkpoints": small_checkpoints,
    "normal": normal,
    "no-sync": no_sync,
    "no-directory-sync": no_directory_sync,
    "early": acknowledges_early,
    "syncs-again": syncs_again,
}

if __name__ == "__main__":
    HOW[sys.argv.pop(1)]()
    probe.main()
