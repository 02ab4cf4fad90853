"""The loops beside the figures: the same work, done without Zart."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import zart_core as zart

RECORD = "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?)"


def generator(workflow: zart.Workflow[int, int], n: int) -> float:
    """Seconds for driving a workflow of n steps by next and send: commands built, names formatted, `yield from`."""
    start = time.perf_counter()
    flow = workflow.fn(n)
    next(flow)
    try:
        while True:
            flow.send(1)
    except StopIteration:
        return time.perf_counter() - start


def sqlite_rows(database: Path) -> list[list[tuple[Any, ...]]]:
    """The rows of records that a run left behind, one list for each turn: a turn ends where the next outcome begins."""
    db = sqlite3.connect(database)
    rows = db.execute("SELECT * FROM records ORDER BY execution, run, position").fetchall()
    db.close()
    turns: list[list[tuple[Any, ...]]] = []
    for row in rows:
        if row[3] in ("Started", "Resolved") or not turns:
            turns.append([])
        turns[-1].append(row)
    return turns


def sqlite_commits(database: Path, turns: Sequence[Sequence[tuple[Any, ...]]], group: int = 1) -> float:
    """Seconds for inserting the rows of `group` turns in each commit, and moving each execution's row along."""
    with zart.open(f"sqlite:{database}", []):
        pass  # makes the schema
    db = sqlite3.connect(database, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    start = time.perf_counter()
    for first in range(0, len(turns), group):
        chosen = turns[first : first + group]
        db.execute("BEGIN IMMEDIATE")
        db.executemany(RECORD, [row for turn in chosen for row in turn])
        db.executemany(
            "UPDATE executions SET position = ?, updated_at = ? WHERE key = ?",
            [(turn[-1][2] + 1, turn[-1][4], turn[-1][0]) for turn in chosen],
        )
        db.execute("COMMIT")
    seconds = time.perf_counter() - start
    db.close()
    return seconds


def file_frames(directory: Path) -> list[bytes]:
    """The frames that a run left behind, as they stand in its segments."""
    segments = sorted(
        path for path in directory.iterdir() if path.suffix not in (".lock", "") or path.is_file()
    )
    data = b"".join(path.read_bytes() for path in segments if b"=zart" in path.read_bytes()[:5])
    return [line + b"\n" for line in data.split(b"\n") if line.startswith(b"=frame")]


def file_syncs(path: Path, frames: Sequence[bytes]) -> float:
    """Seconds for appending each frame and syncing it."""
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    start = time.perf_counter()
    for frame in frames:
        os.write(descriptor, frame)
        os.fdatasync(descriptor)
    seconds = time.perf_counter() - start
    os.close(descriptor)
    return seconds


def timed(call: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
