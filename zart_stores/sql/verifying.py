"""Read a whole SQL log and check everything that can be checked (L12, I2).

Rule 1: one snapshot, and one pass over each table in the order of its key.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from zart_core.log import Record
from zart_stores.rows import Row, due
from zart_stores.sql.queries import Select
from zart_stores.sql.reading import (
    COLUMNS,
    DUE,
    MESSAGE_COLUMNS,
    RECORD_COLUMNS,
    damage,
    messages_of,
    records_of,
    row_of,
    whole_number,
)


def verify(select: Select, where: str) -> Mapping[str, int]:
    """Count what was read and found whole. Raises LogCorrupt at the first damage."""
    counts = {"executions": 0, "records": 0, "messages": 0}
    for values in select(f"SELECT {COLUMNS} FROM {{t}}executions ORDER BY key", ()):  # noqa: S608  # no data in it
        row = row_of(values, where)
        _check_due(row, values[DUE], where)
        counts["executions"] += 1
        counts["records"] += _check_runs(select, row, where)
        counts["messages"] += _check_inbox(select, row, where)
    _check_orphans(select, counts, where)
    return counts


def _check_due(row: Row, stored: float | None, path: str) -> None:
    if stored != due(row):
        where = f"{path}, execution {row.id!a}"
        raise damage(f"{where}: it is due at another time", where, repr(due(row)), repr(stored))


def _check_runs(select: Select, row: Row, path: str) -> int:
    query = "SELECT run, records FROM {t}ended_runs WHERE execution = ? ORDER BY run"
    ended: dict[int, int] = dict(select(query, (row.key,)))
    if list(ended) != list(range(row.run)):
        where = f"{path}, execution {row.id!a}"
        raise damage(f"{where}: its runs are not whole", where, f"{row.run} ended runs", f"{len(ended)}")
    count = 0
    for run, length in (*ended.items(), (row.run, row.position)):
        query = f"SELECT {RECORD_COLUMNS} FROM {{t}}records WHERE execution = ? AND run = ? ORDER BY position"  # noqa: S608
        found = list(select(query, (row.key, run)))
        records = records_of(found, row.id, run, 0, length, path)
        _check_times(records, f"{path}, execution {row.id!a}, run {run}")
        count += len(records)
    return count


def _check_times(records: Sequence[Record], where: str) -> None:
    last = -math.inf
    for position, record in enumerate(records):
        if record.at < last:
            raise damage(
                f"{where}: time goes back",
                f"{where}, record {position}",
                f"at least {last!r}",
                repr(record.at),
            )
        last = record.at


def _check_inbox(select: Select, row: Row, path: str) -> int:
    query = f"SELECT {MESSAGE_COLUMNS} FROM {{t}}messages WHERE execution = ? ORDER BY number"  # noqa: S608
    messages = messages_of(list(select(query, (row.key,))), row, path, whole=True)
    top = messages[-1].number if messages else 0
    where = f"{path}, inbox of execution {row.id!a}"
    if top != row.top:
        raise damage(f"{where}: it ends elsewhere", where, f"message {row.top}", f"message {top}")
    query = "SELECT key, number FROM {t}message_keys WHERE execution = ?"
    keys: dict[str, int] = dict(select(query, (row.key,)))
    # Those of consumed messages too: they refuse the same message again (R14).
    for key, number in keys.items():
        if not 0 < whole_number(number, f"{where}, key {key!a}") <= row.posted:
            raise damage(f"{where}: key {key!a}", where, f"a message up to {row.posted}", f"{number}")
    for message in messages:
        if message.key is not None and keys.get(message.key) != message.number:
            raise damage(f"{where}: a key is missing", where, f"{message.key!a}", "nothing")
    return len(messages)


def _check_orphans(select: Select, counts: Mapping[str, int], path: str) -> None:
    for table in ("records", "messages"):
        ((n,),) = select(f"SELECT count(*) FROM {{t}}{table}", ())  # noqa: S608
        if n != counts[table]:
            raise damage(f"{path}: {table} of no execution", path, f"{counts[table]} {table}", f"{n}")
    for table in ("message_keys", "ended_runs"):
        ((n,),) = select(
            f"SELECT count(*) FROM {{t}}{table} AS r "  # noqa: S608
            "WHERE NOT EXISTS (SELECT 1 FROM {t}executions AS e WHERE e.key = r.execution)",
            (),
        )
        if n:
            raise damage(f"{path}: {table} of no execution", path, f"no such {table}", f"{n}")
