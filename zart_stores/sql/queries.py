"""What an SQL log is asked, in one snapshot: the same questions for every database.

Rule 1: a query has `?` for its values and `{t}` before the name of a table, where a store puts what it needs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, TypeAlias

from zart_core.errors import InvalidUse, LogCorrupt
from zart_core.events import Status
from zart_core.log import Message, Page, Record, Summary
from zart_stores.checks import is_id
from zart_stores.rows import Row, summary
from zart_stores.sql.reading import (
    COLUMNS,
    ID,
    MESSAGE_COLUMNS,
    RECORD_COLUMNS,
    damage,
    is_text,
    messages_of,
    records_of,
    row_of,
    status_of,
    whole_number,
)

Select: TypeAlias = Callable[[str, tuple[Any, ...]], Iterable[Any]]
"""Runs a query in the snapshot; another may run while its rows are read."""

ROWS_AT_ONCE = 256

_logger = logging.getLogger("zart")


def some_at_a_time(fetch: Callable[[int], Sequence[Any]]) -> Iterator[Any]:
    """The rows that a cursor's fetchmany gives, a few hundred at a time.

    One by one, or all at once, thousands of records take a sixth longer to read; and all at once they have the garbage
    collector look at everything there is.
    """
    return chain.from_iterable(iter(partial(fetch, ROWS_AT_ONCE), []))


def find_row(select: Select, id: str, where: str) -> Row | None:
    """Look an execution up; None when there is none. O(log n)."""
    if not is_id(id):
        return None
    query = f"SELECT {COLUMNS} FROM {{t}}executions WHERE id = ?"  # noqa: S608  # no data in it
    return next((row_of(values, where) for values in select(query, (id,))), None)


def read_records(select: Select, id: str, run: int | None, start: int, where: str) -> list[Record]:
    """Give the records of a run from a position on; see EventLog. O(log n), and one pass over what is given."""
    row = find_row(select, id, where)
    if row is None:
        return []
    if run is None or run == row.run:
        run, end = row.run, row.position
    else:
        end = _length(select, row, run, where)
    if start >= end:
        return []
    query = (
        f"SELECT {RECORD_COLUMNS} FROM {{t}}records "  # noqa: S608
        "WHERE execution = ? AND run = ? AND position >= ? ORDER BY position"
    )
    return records_of(select(query, (row.key, run, start)), id, run, start, end, where)


def _length(select: Select, row: Row, run: int, where: str) -> int:
    """Tell how many records an earlier run has; 0 when there is no such run."""
    if not 0 <= run < row.run:
        return 0
    query = "SELECT records FROM {t}ended_runs WHERE execution = ? AND run = ?"
    length = next((length for (length,) in select(query, (row.key, run))), None)
    return whole_number(length, f"{where}, execution {row.id!a}, length of run {run}")


def read_inbox(select: Select, id: str, after: int, where: str) -> list[Message]:
    """Give the unconsumed messages above a number; see EventLog."""
    row = find_row(select, id, where)
    if row is None or after >= row.posted:
        return []
    query = (
        f"SELECT {MESSAGE_COLUMNS} FROM {{t}}messages "  # noqa: S608
        "WHERE execution = ? AND number > ? ORDER BY number"
    )
    return messages_of(list(select(query, (row.key, after))), row, where, whole=after == 0)


def read_page(
    select: Select,
    where: str,
    status: Status | None,
    workflow: str | None,
    id_prefix: str | None,
    limit: int,
    after: str | None,
) -> Page[Summary]:
    """Give a page of executions in the order of their ids; see EventLog. Raises InvalidUse.

    O(log n) and the page, but with both status and workflow: what has the status. One whose row is damaged is reported
    and left out, so that the others can be found (I8); who asks for it by its id sees the damage.
    """
    if limit < 1:
        raise InvalidUse(f"a page has at least one item, not limit={limit}")
    if not all(asked.isprintable() for asked in (workflow, id_prefix, after) if asked is not None):
        return Page([], None)  # nothing that is stored matches it
    while True:
        page = _page(
            select, where, _conditions(status, workflow, id_prefix, after), min(limit, 1 << 30), after
        )
        if page.items or page.next is None:
            return page
        after = page.next


def _page(
    select: Select, where: str, wanted: Mapping[str, str], limit: int, after: str | None
) -> Page[Summary]:
    """Give a page, of which nothing may be left."""
    those = f"WHERE {' AND '.join(wanted)}" if wanted else ""
    query = f"SELECT {COLUMNS} FROM {{t}}executions {those} ORDER BY id LIMIT ?"  # noqa: S608
    found = list(select(query, (*wanted.values(), limit + 1)))
    items: list[Summary] = []
    for values in found[:limit]:
        try:
            items.append(summary(row_of(values, where)))
        except LogCorrupt as error:
            _logger.error("an execution is left out of a list: %s", error)
    return Page(items, _last(found[limit - 1][ID], after, where) if len(found) > limit else None)


def _last(id: Any, after: str | None, where: str) -> str:
    """Give what a page ends with, its row damaged or not; what is not in order would lead round and round."""
    if not is_text(id) or (after is not None and id <= after):
        raise damage(f"{where}: ids are not in order", where, f"an id after {after!a}", f"{id!a:.300}")
    return id


def read_stats(select: Select, where: str) -> Mapping[Status, int]:
    """Count executions by status. O(n) over an index."""
    query = "SELECT status, count(*) FROM {t}executions GROUP BY status"
    return {status_of(status, f"{where}, index of statuses"): n for status, n in select(query, ())}


def _conditions(
    status: Status | None, workflow: str | None, id_prefix: str | None, after: str | None
) -> Mapping[str, str]:
    """Give the conditions of a list, each with its value. Ids are compared by their code points."""
    wanted: dict[str, str] = {}
    if status is not None:
        wanted["status = ?"] = status.value
    if workflow is not None:
        wanted["workflow = ?"] = workflow
    if id_prefix:
        wanted["id >= ?"] = id_prefix
        wanted["id < ?"] = id_prefix[:-1] + chr(
            ord(id_prefix[-1]) + 1
        )  # it can be printed, so there is a next one
    if after is not None:
        wanted["id > ?"] = after
    return wanted
