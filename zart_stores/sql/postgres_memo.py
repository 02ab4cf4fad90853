"""Rows that a log has left in a PostgreSQL database, and appends that rest on them: one round trip instead of four.

Rule 1: nothing is answered from memory. What is computed from remembered rows is written only if each row is still as
        it is remembered, which the writing statements check themselves; else nothing is written, and the append asks.
Rule 2: whatever creates an execution, may be refused, was done before, or cannot be told without asking is asked for.
Rule 3: a row is not remembered while an append changes it.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from types import MappingProxyType
from typing import Any, TypeAlias

import attrs

from zart_core.events import CLOSED, Ok
from zart_core.log import Appended, Write
from zart_stores.rows import Row, due
from zart_stores.sql import checksums
from zart_stores.sql.batch import ROWS_MAX, Batch, Changes, Rows, ids_of

NO_SUMS: Mapping[int, int] = MappingProxyType({})
Version: TypeAlias = tuple[int, int, int, int]
"""Fence, position, the greatest message number, and the checksum over all: no change of a row leaves them the same."""


@attrs.frozen
class Guess:
    """A batch that is carried out, if the rows it changes are as they were when they were last seen."""

    outcomes: Sequence[Appended]
    changes: Changes
    versions: Mapping[int, Version]
    """By key, what the rows that were there are taken for."""
    sums: Mapping[int, int]
    """By key, their checksums afterwards."""
    left: Rows
    """The rows afterwards."""


class Unremembered(Exception):
    """Something has to be asked for."""


class Memo:
    """Rows as they were last seen, by id; the one that was not used for the longest time is forgotten first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: dict[str, tuple[Row, int | None]] = {}
        """With their checksums, where these were given."""

    def keep(self, rows: Iterable[Row], sums: Mapping[int, int] = NO_SUMS) -> None:
        """Remember rows as a committed transaction left them; from now on they are changed here only."""
        with self._lock:
            for row in rows:
                self._rows.pop(row.id, None)
                if row.status not in CLOSED:
                    self._rows[row.id] = row, sums.get(row.key)
            while len(self._rows) > ROWS_MAX:
                del self._rows[next(iter(self._rows))]

    def guess(self, batch: Sequence[Write], where: str) -> Guess | None:
        """What a batch comes to if nobody else has written meanwhile; None when that has to be asked for."""
        rows = self._take(ids_of(batch))
        if rows is None:
            return None
        versions = {row.key: version_of(row, crc) for row, crc in rows.values()}
        known = {
            id: (row, (row.status, row.owner, due(row), row.claimed_as)) for id, (row, _) in rows.items()
        }
        unit = Batch(_Remembered(), where, known)
        try:
            outcomes = [unit.write(item) for item in batch]
        except Unremembered:
            return None
        if not all(isinstance(outcome, Ok) and outcome.value.created for outcome in outcomes):
            return None
        changes, left = unit.changes(), unit.left()
        assert left is not None  # nothing was read that might be damaged
        sums = changes.sums
        return Guess(
            outcomes,
            changes,
            {key: version for key, version in versions.items() if key in sums},
            sums,
            left,
        )

    def _take(self, ids: Set[str]) -> dict[str, tuple[Row, int | None]] | None:
        """The rows of a batch, which are remembered no more; None when one is not known."""
        with self._lock:
            if not self._rows.keys() >= ids:
                return None
            return {id: self._rows.pop(id) for id in ids}


class _Remembered:
    """The `Source` of a batch of which every row is remembered."""

    def rows(self, ids: Sequence[str]) -> Sequence[Sequence[Any]]:
        """See Source."""
        raise Unremembered

    def next_key(self) -> int:
        """See Source."""
        raise Unremembered

    def number_of(self, key: int, message_key: str) -> int | None:
        """See Source. One that came before meets its index when it is written."""
        return None

    def kept(self, key: int, numbers: Collection[int]) -> Collection[int]:
        """See Source. Those that are not are missed when they are to go."""
        return numbers

    def greatest(self, key: int, but: Collection[int]) -> int:
        """See Source."""
        raise Unremembered


def is_as_guessed(guess: Guess, unit: Batch) -> bool:
    """Whether the rows of a guess, which the batch has read and locked, are still what they were taken for."""
    rows = [unit.find(row.id) for row, _ in guess.left.values() if row.key in guess.versions]
    return all(row is not None and guess.versions.get(row.key) == version_of(row) for row in rows)


def version_of(row: Row, crc: int | None = None) -> Version:
    """What tells a row from itself after any change."""
    return row.fence, row.position, row.posted, checksums.of_row(row) if crc is None else crc
