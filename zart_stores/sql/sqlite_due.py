"""What an SQLite database is asked about time and workers: what is due, when the next is, who works, what has changed.

Rule 1: these rows have no checksum. What cannot be there is damage, and is said to be (L12).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from typing import Any, TypeVar

from zart_stores.sql.lock import TOKEN
from zart_stores.sql.reading import CLAIM_NAME, damage, is_text

T = TypeVar("T", int, str, float)

_FREE, _HELD = "owner IS NULL AND due IS NOT NULL", "owner = ?"
"""The conditions under which the partial indexes of free and of held executions are used."""


def changes_count(db: sqlite3.Connection, path: str) -> int:
    """Tell how often something may have become due."""
    found = db.execute("SELECT value FROM counters WHERE name = 'changes'").fetchone()
    return _fit(None if found is None else found[0], int, f"{path}, counter of changes")


def due_keys(
    db: sqlite3.Connection, path: str, worker: str, now: float, limit: int, workflows: Collection[str] | None
) -> list[int]:
    """Find what is due and free or the worker's own, the longest due first."""
    if limit < 1:
        return []
    found: list[tuple[float, int]] = []
    for owner in (None, worker):
        condition, values = _of_owner(owner)
        query = (
            f"SELECT due, key FROM executions WHERE {condition} AND {CLAIM_NAME} = ? AND due <= ? "  # noqa: S608
            "ORDER BY due, key LIMIT ?"
        )
        for name in _names(db, path, owner) if workflows is None else set(workflows):
            if name.isprintable():
                found += db.execute(query, (*values, name, now, min(limit, 1 << 30))).fetchall()
    return [key for _, key in sorted((_time(due, path), key) for due, key in found)[:limit]]


def next_wake(db: sqlite3.Connection, path: str) -> float | None:
    """Tell when the next execution is due; None when none will be. O(workers x names), each O(log n)."""
    first: list[float] = []
    for owner in (None, *_holders(db, path)):
        condition, values = _of_owner(owner)
        query = (
            f"SELECT due FROM executions WHERE {condition} AND {CLAIM_NAME} = ? AND due >= ? "  # noqa: S608
            "ORDER BY due LIMIT 1"
        )
        for name in _names(db, path, owner):
            first += [_time(due, path) for (due,) in db.execute(query, (*values, name, float("-inf")))]
    return min(first, default=None)


def workers(db: sqlite3.Connection, path: str) -> list[tuple[str, str, float]]:
    """List the workers: name, name of the lock, end of the lease."""
    where = f"{path}, workers"
    return [
        (_name(worker, where), _token(token, where), _fit(lease, float, where))
        for worker, token, lease in db.execute("SELECT worker, lock, lease FROM workers")
    ]


def was_robbed(db: sqlite3.Connection, path: str, worker: str) -> bool:
    """Tell whether a worker's lease ran out and what it held was taken from it, once."""
    found = db.execute("SELECT robbed FROM workers WHERE worker = ?", (worker,)).fetchone()
    robbed = _fit(None if found is None else found[0], int, f"{path}, worker {worker!a}")
    db.execute("UPDATE workers SET robbed = 0 WHERE worker = ? AND robbed", (worker,))
    return bool(robbed)


def _of_owner(owner: str | None) -> tuple[str, tuple[str, ...]]:
    return (_FREE, ()) if owner is None else (_HELD, (owner,))


def _names(db: sqlite3.Connection, path: str, owner: str | None) -> Iterator[str]:
    """Give the names that what is due and free, or held by the owner, is claimed by; a step along an index for each."""
    condition, values = _of_owner(owner)
    query = (
        f"SELECT {CLAIM_NAME} FROM executions WHERE {condition} AND {CLAIM_NAME} > ? "  # noqa: S608
        f"ORDER BY {CLAIM_NAME} LIMIT 1"
    )
    return _steps(db, query, values, f"{path}, index of what is due")


def _holders(db: sqlite3.Connection, path: str) -> Iterator[str]:
    """Name the workers who hold something; a step along an index for each."""
    query = "SELECT owner FROM executions WHERE owner IS NOT NULL AND owner > ? ORDER BY owner LIMIT 1"
    return _steps(db, query, (), f"{path}, index of what is held")


def _steps(db: sqlite3.Connection, query: str, values: tuple[str, ...], where: str) -> Iterator[str]:
    """Step from name to name along an index; one that is not in order would lead round and round."""
    name = ""
    while found := db.execute(query, (*values, name)).fetchone():
        after = _name(found[0], where)
        if after <= name:
            raise damage(f"{where}: not in order", where, f"a name after {name!a}", f"{after!a}")
        name = after
        yield name


def _time(due: Any, path: str) -> float:
    return _fit(due, float, f"{path}, index of what is due")


def _name(value: Any, where: str) -> str:
    if not is_text(value):
        raise damage(f"{where}: damaged", where, "a name", f"{value!a:.100}")
    return value


def _token(token: Any, where: str) -> str:
    name = _fit(token, str, where)
    if TOKEN.fullmatch(name) is None:
        raise damage(f"{where}: damaged", where, "the name of a lock", f"{name!a:.100}")
    return name


def _fit(value: Any, kind: type[T], where: str) -> T:
    """Give a value of a type; of another it is damage."""
    if not isinstance(value, kind):
        raise damage(f"{where}: damaged", where, f"of type {kind.__name__}", f"{value!a:.100}")
    return value
