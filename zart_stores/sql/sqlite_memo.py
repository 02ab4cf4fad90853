"""Rows that a connection wrote, remembered for its next transaction as long as nobody else has written (L2).

Rule 1: `PRAGMA data_version`, read inside the write transaction, differs from what it was in the transaction before if
        any other connection, of this process or another, has committed in between: SQLite trusts its own cached pages
        by the same counter.
Rule 2: what is taken is gone unless `keep` gives rows back: a transaction that fails leaves nothing behind.
"""

from __future__ import annotations

import sqlite3

from zart_stores.sql.batch import ROWS_MAX, Rows


class Memo:
    """What the next transaction need not read."""

    def __init__(self) -> None:
        self._db: sqlite3.Connection | None = None
        self._version = 0
        self._rows: Rows = {}
        self._taken: Rows = {}

    def take(self, db: sqlite3.Connection) -> Rows:
        """Give what is known in a write transaction that has begun on this connection."""
        (version,) = db.execute("PRAGMA data_version").fetchone()
        rows, self._rows = self._rows, {}
        if db is not self._db or version != self._version:
            rows, self._db, self._version = {}, db, version
        self._taken = rows
        return rows

    def keep(self, rows: Rows | None) -> None:
        """Remember these beside what was taken: the transaction is committed, and they are what it left.

        None when it met damage: then nothing is sure.
        """
        known, self._taken = self._taken, {}
        if rows is not None:
            known.update(rows)
            self._rows = known if len(known) <= ROWS_MAX else rows
