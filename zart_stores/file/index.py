"""Where each run's records are: what the file log has in memory in their place.

Rule 1: of records only the place of their frame is kept, four numbers for each frame of each run.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from zart_core.log import Record
from zart_stores.file.bodies import records_of
from zart_stores.file.journal import Journal, Place
from zart_stores.rows import Row


class FrameIndex:
    """The places of all records, as `zart_stores.memory.Runs`. `place` is that of the frame in hand."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._runs: list[list[array[int]]] = []
        self.place = Place(0, 0, 0)
        self.records = 0

    def begin(self, row: Row) -> None:
        """Make room for the row's first run, or its next one."""
        if row.key == len(self._runs):
            self._runs.append([])
        self._runs[row.key].append(array("q"))

    def add(self, row: Row, records: Sequence[Record]) -> None:
        """Note that the frame at `place` has records of the row's run, from its position on."""
        self._runs[row.key][row.run].extend((row.position, *self.place))
        self.records += len(records)

    def read(self, row: Row, run: int, start: int) -> list[Record]:
        """Read records of a run from the segments, verified. Linear in what is read."""
        runs = self._runs[row.key]
        if not 0 <= run < len(runs):
            return []
        entries = runs[run]
        first = _frame_of(entries, max(start, 0)) * 4
        columns = (entries[first + column :: 4] for column in (1, 2, 3))
        places = list(zip(*columns, strict=True))
        records = records_of(self._journal.read(places), row.id, run)
        return records[max(start, 0) - entries[first] :] if places else []

    def cut(self, row: Row) -> None:
        """See Runs."""
        runs = self._runs[row.key]
        del runs[row.run + 1 :]
        entries = runs[row.run]
        while entries and entries[-4] >= row.position:
            del entries[-4:]

    def forget(self, rows: int) -> None:
        """See Runs."""
        del self._runs[rows:]


def _frame_of(entries: array[int], position: int) -> int:
    """Find the last frame that begins at `position` or before; O(log n)."""
    low, high = 0, len(entries) // 4
    while high - low > 1:
        middle = (low + high) // 2
        if entries[middle * 4] <= position:
            low = middle
        else:
            high = middle
    return low
