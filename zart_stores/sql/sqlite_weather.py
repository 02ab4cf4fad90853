"""What sqlite3 raises, and what that is in our words: damage, or weather that passes.

Rule 1: an error may be about the text of an error: SQLite quotes what is damaged, and Python decodes it.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable
from typing import TypeAlias, TypeVar

from zart_core.errors import LogCorrupt, StoreUnavailable, ZartError

T = TypeVar("T")

Trouble: TypeAlias = sqlite3.Error | UnicodeDecodeError
TROUBLE = (sqlite3.Error, UnicodeDecodeError)
"""What sqlite3 raises: its own errors, and one about the text of its error when SQLite quotes damaged bytes in it."""

REFUSALS = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM)
REFUSED = "; this user must be able to write to it, to the files beside it and to their directory"


def patiently(action: Callable[[], T], busy_s: float, path: str) -> T:
    """Do it again, after a random pause, while another process has the database locked (F17).

    Raises StoreUnavailable when it still has after `busy_s` seconds.
    """
    end = time.monotonic() + busy_s
    pause_s = 0.001
    while True:
        try:
            return action()
        except sqlite3.OperationalError as error:
            if not is_busy(error):
                raise
            if time.monotonic() >= end:
                raise StoreUnavailable(f"{path!r} was locked by others for {busy_s:g} s") from error
        time.sleep(pause_s * random.uniform(0.5, 1.5))  # noqa: S311  # no secret
        pause_s = min(pause_s * 2, 0.05)


def code(error: Trouble) -> int:
    """Give SQLite's primary result code, 0 when there is none."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def is_busy(error: Trouble) -> bool:
    """Tell whether another connection was in the way."""
    return code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def weather(error: Trouble, path: str) -> ZartError:
    """Say in our words what SQLite reports: LogCorrupt for damage, StoreUnavailable for the rest."""
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    what = f"{name}: {error}"
    if code(error) == sqlite3.SQLITE_NOTADB:
        return LogCorrupt(
            f"{path!r} is not an SQLite database: give the path of a log, or of a file to be made",
            where=path,
            expected="an SQLite database",
            found=what,
            path=path,
        )
    if is_damage(error):
        return LogCorrupt(
            f"{path!r} is damaged ({what})", where=path, expected="a whole database", found=what, path=path
        )
    return StoreUnavailable(f"{path!r}: {what}{REFUSED if code(error) in REFUSALS else ''}")


def leniently(data: bytes) -> str:
    """Make text of what a database holds; of bytes that are none, one that no checksum fits: the damage of one row."""
    return data.decode(errors="surrogateescape")


def is_damage(error: Trouble) -> bool:
    """Tell whether the database is not what was written: bad pages, missing tables, rows that cannot be."""
    if isinstance(error, UnicodeDecodeError):
        return True
    return str(error).startswith("Could not decode") or code(error) in (
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_ERROR,
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_MISMATCH,
    )
