"""Results as a table that people read, in Markdown."""

from __future__ import annotations

import os
import platform
import sqlite3
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import drawing
from benchmarks.measuring import Sizes, timed
from benchmarks.rows import Result, figure

HEAD = "| row | what | median | least to greatest | budget | met | beside |\n|---|---|---|---|---|---|---|"
SYNCS = 200


def machine() -> str:
    """Where this was measured."""
    load = os.getloadavg()[0]
    return (
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {platform.system()} "
        f"{platform.machine()}, {os.cpu_count()} cores (load {load:.1f}), {sync_us():.0f} µs for writing "
        f"200 bytes and fdatasync, {time.strftime('%Y-%m-%d')}"
    )


def sync_us() -> float:
    """Microseconds that the disk of the temporary folder takes for a write and its fdatasync."""
    with tempfile.TemporaryFile(buffering=0) as file:

        def sync() -> None:
            for _ in range(SYNCS):
                file.write(b"x" * 200)
                os.fdatasync(file.fileno())

        return timed(sync) / SYNCS * 1e6


def heading(sizes: Sizes) -> str:
    """What stands above the rows."""
    note = "" if sizes.share == 1 else f" **A look, not a measurement: sizes times {sizes.share:g}.**"
    return f"{machine()}; {sizes.rounds} rounds.{note}\n\n{HEAD}"


def line(result: Result) -> str:
    """One row."""
    budget = "" if result.budget is None else f"{'≤' if result.at_most else '≥'} {figure(result.budget)}"
    met = {None: "", True: "yes", False: "**no**"}[result.met]
    spread = f"{figure(min(result.values))} to {figure(max(result.values))}" if len(result.values) > 1 else ""
    return (
        f"| {result.name} | {result.title} | {figure(result.value)} {result.unit} | {spread} "
        f"| {budget} | {met} | {result.detail} |"
    )


def verdict(results: Sequence[Result]) -> str:
    """How many budgets are met, and which are not."""
    promised = [result for result in results if result.met is not None]
    missed = [result.name for result in promised if not result.met]
    return f"\n{len(promised) - len(missed)} of {len(promised)} budgets met" + (
        f"; not met: {', '.join(missed)}" if missed else ""
    )


def write(folder: Path, heading: str, results: Sequence[Result]) -> None:
    """The table and the drawing, into a folder that is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    table = "\n".join([heading, *(line(result) for result in results)])
    (folder / "budgets.md").write_text(f"{table}\n{verdict(results)}\n")
    (folder / "budgets.svg").write_text(drawing.headroom(results))
