"""The known-bad control: the `zart` command over a store that checks no fence and honours no lease."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import attrs
import psycopg

from zart_core.cli.app import main
from zart_core.log import Rejected, Turn
from zart_stores import rows
from zart_stores.rows import void
from zart_stores.sql.postgres import PostgresLog

judge: Callable[..., Rejected | None] = rows._judge_turn


def judge_without_fence(tables: Any, row: rows.Row, turn: Turn) -> Rejected | None:
    """As the store does, but for the fence."""
    return judge(tables, row, attrs.evolve(turn, fence=row.fence))


def sweep_everybody(log: PostgresLog, db: psycopg.Connection, but: str) -> None:
    """Takes from every other worker what it holds, whether its lease has run out or not."""
    found = log._select(db, "SELECT worker FROM {t}workers WHERE worker <> ?", (but,))
    for (worker,) in found:
        log._let_go(db, worker, void)


if __name__ == "__main__":
    rows._judge_turn = judge_without_fence
    PostgresLog._sweep = sweep_everybody  # type: ignore[method-assign]  # that is what it is for
    sys.exit(main(sys.argv[1:]))
