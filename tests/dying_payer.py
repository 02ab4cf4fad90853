"""A payment in a process that dies at a line, and one that goes on: `python -m tests.dying_payer PLACE SEED COUNT`.

Rule 1: processes are forked from one without threads, and die by `os._exit` at the very line: nothing of them is
        tidied up.
Rule 2: prints the lines that were executed, the deaths, and whatever was wrong, as JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import sqlite3
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import zart_core as zart
import zart_stores
from examples.transactions import Payment, make_tables, order, pay

FILES = frozenset(
    str(Path(package.__file__ or "").parent / name)
    for package, names in (
        (zart, ("hosts/transactions.py",)),
        (
            zart_stores,
            (
                "sql/sqlite_transaction.py",
                "sql/sqlite_joining.py",
                "sql/sqlite_batch.py",
                "sql/line.py",
                "sql/step_transaction.py",
            ),
        ),
    )
    for name in names
)
PAYMENT = Payment("order-1", "ada", 70)
DEAD, WRONG = 9, 7


def forked(life: Callable[[], None]) -> int:
    """Let a child live; gives how it ended: 0, or a code."""
    pid = os.fork()
    if pid == 0:
        code = WRONG
        try:
            life()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def pays(path: str) -> None:
    """Order and pay, or go on with it. Both are there or neither, whoever died before."""
    with (
        zart.open(f"sqlite:{path}", [pay]) as engine,
        contextlib.closing(sqlite3.connect(path, timeout=20)) as db,
    ):
        ordered = db.execute("SELECT 1 FROM orders").fetchone() is not None
        known = [found.id for found in engine.list().items]
        assert known == ([PAYMENT.order] if ordered else []), (ordered, known)
        handle = engine.get(PAYMENT.order) if ordered else order(engine, db, PAYMENT)
        result = handle.result("60s")
    assert result == "paid, 30 left", result


def traced(path: str, seen: Callable[[tuple[str, int]], None]) -> None:
    """The same, with every line of FILES reported before it is executed, in all threads."""

    def calls(frame: FrameType, event: str, arg: Any) -> Any:
        return lines if frame.f_code.co_filename in FILES else None

    def lines(frame: FrameType, event: str, arg: Any) -> Any:
        if event == "line":
            seen((frame.f_code.co_filename, frame.f_lineno))
        return lines

    threading.settrace(calls)
    sys.settrace(calls)
    pays(path)


def dies_at(path: str, target: tuple[str, int], nth: int) -> None:
    """Pay, and die when the line is about to be executed for the n-th time."""
    left = [nth]

    def seen(line: tuple[str, int]) -> None:
        if line == target:
            left[0] -= 1
            if left[0] == 0:
                os._exit(DEAD)

    traced(path, seen)


def lines_of(path: str) -> list[tuple[str, int, int]]:
    """Each line that is executed, and how often."""
    file = Path(f"{path}.lines")

    def life() -> None:
        counts: dict[tuple[str, int], int] = {}
        traced(path, lambda line: counts.__setitem__(line, counts.get(line, 0) + 1))
        file.write_text(json.dumps(sorted((*line, count) for line, count in counts.items())))

    assert forked(life) == 0
    return [(name, number, count) for name, number, count in json.loads(file.read_text())]


def wrong(path: str) -> str:
    """What must not be, after everything: money that moved not at all, or twice."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        found = db.execute("SELECT cents, state FROM accounts, orders").fetchall()
        outcomes = db.execute("SELECT count(*) FROM records WHERE kind = 'Resolved'").fetchone()
    return "" if found == [(30, "paid")] and outcomes == (2,) else f"{found}, {outcomes}"


def main(place: str, seed: str, count: str) -> None:
    """Die at `count` lines drawn by a seed."""
    lots, deaths, bad = random.Random(int(seed)), 0, list[str]()
    make_tables(path := f"{place}/shop.db")
    known = lines_of(path)
    for number, (name, line, times) in enumerate(lots.sample(known, min(int(count), len(known)))):
        make_tables(path := f"{place}/{number}.db")
        nth = lots.randint(1, times)
        at = f"{Path(name).name}:{line}, time {nth}"
        deaths += (
            first := forked(lambda at=(name, line), nth=nth, path=path: dies_at(path, at, nth))
        ) == DEAD  # type: ignore[misc]
        second = forked(lambda path=path: pays(path))  # type: ignore[misc]
        if first not in (0, DEAD) or second != 0 or (found := wrong(path)):
            bad.append(f"dead at {at}: ended as {first} and {second}: {found if second == 0 else ''}")
    print(json.dumps({"lines": len(known), "deaths": deaths, "wrong": bad}))


if __name__ == "__main__":
    main(*sys.argv[1:])
