"""Mutants that change nothing that anybody could notice, each with its reason. One whose line is gone is refused."""

from __future__ import annotations

import attrs

from property_tests.mutants.operators import Mutant


@attrs.frozen
class Equivalent:
    """A change that is none."""

    file: str
    line: str
    """The line on which it begins, without its indentation."""
    kind: str
    new: str
    """What stands there instead."""
    why: str


EQUIVALENT = (
    Equivalent(
        "zart_stores/checks.py",
        "check_times(mark.id, 0.0, mark.wake)",
        "constant",
        "1.0",
        "a mark has no time of its own: it is any number that is finite",
    ),
    Equivalent(
        "zart_stores/file/salvage.py",
        "READ_BYTES = 1 << 16",
        "constant",
        "2",
        "more is read at once",
    ),
    Equivalent(
        "zart_stores/file/index.py",
        "self.place = Place(0, 0, 0)",
        "constant",
        "1",
        "the place of a frame is set before anything of it is added",
    ),
    Equivalent(
        "zart_stores/file/journal.py",
        "self._synced = 0",
        "constant",
        "1",
        "set whichever way the last segment is gone on with, before anybody asks",
    ),
    Equivalent(
        "zart_stores/file/journal.py",
        "self._synced = 0",
        "removed statement",
        "pass",
        "set whichever way the last segment is gone on with, before anybody asks",
    ),
    Equivalent(
        "zart_stores/file/journal.py",
        "self._footers: list[Frame] = []",
        "removed statement",
        "pass",
        "set whichever way the last segment is gone on with, before anybody asks",
    ),
    Equivalent(
        "zart_stores/file/journal.py",
        "self._lock_file = -1",
        "constant",
        "2",
        "any number below 0 is no descriptor",
    ),
    Equivalent(
        "zart_stores/sql/lock.py",
        "self._fd = -1",
        "constant",
        "2",
        "any number below 0 is no descriptor",
    ),
    Equivalent(
        "zart_stores/sql/lock.py",
        "fd, self._fd = self._fd, -1",
        "constant",
        "2",
        "any number below 0 is no descriptor",
    ),
    Equivalent(
        "zart_stores/sql/line.py",
        "LOOK_S = 0.05",
        "constant",
        "1.05",
        "how soon one finds out that waiting is of no use, never whether",
    ),
    Equivalent(
        "zart_stores/sql/sqlite.py",
        "self._stirs += 1",
        "arithmetic",
        "-",
        "whether it has changed is all that is asked",
    ),
    Equivalent(
        "zart_stores/sql/sqlite_transaction.py",
        "def _end(self, trouble: Trouble | None = None, changes: int = 0, *, stirred: bool = False) -> None:",
        "constant",
        "True",
        "who is woken for nothing looks whether anything was written, and waits on",
    ),
    Equivalent(
        "zart_stores/sql/batch.py",
        "if 0 < number <= row.posted and (row.key, number) not in self._consumed",
        "comparison",
        "<=",
        "numbers begin with 1: no message with 0 is found",
    ),
    Equivalent(
        "zart_stores/memory.py",
        "self.changes = 0",
        "constant",
        "1",
        "whether it has changed is all that is asked",
    ),
    Equivalent(
        "zart_core/branches.py",
        "self.seq = -1",
        "constant",
        "2",
        "any number below 0 is none",
    ),
)


def reason(mutant: Mutant, source: str) -> str:
    """Why a mutant is no change; empty when it is not known to be none."""
    line = source.splitlines()[mutant.line - 1].strip()
    place = (mutant.file, line, mutant.kind, mutant.new)
    return next((one.why for one in EQUIVALENT if (one.file, one.line, one.kind, one.new) == place), "")
