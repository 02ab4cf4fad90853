"""Writes docs/reliability.md: `python -m property_tests.reliability`. What is promised and how it is proved stands in
`claims.py`; the figures are those that the harnesses put on record when they ran last (`tally.py`).
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import attrs

from property_tests import claims
from property_tests.seeded_bugs.bugs import BUGS
from property_tests.tally import FOLDER, ROOT

PAGE = ROOT / "docs" / "reliability.md"
FIGURES = "## The last figures\n"
SEEDS_SHOWN = 3


@attrs.frozen
class Row:
    """What one harness counted in its last run."""

    harness: str
    counts: dict[str, int]
    seeds: list[int]
    commit: str
    day: str


def static_part() -> str:
    """The page up to the figures."""
    parts = [claims.INTRODUCTION, "## What may go wrong, and what happens then\n"]
    parts.append(table(("", "fault", "what happens", "shown by"), map(claimed, claims.FAULTS)))
    parts.append("## What always holds\n")
    parts.append(table(("", "invariant", "shown by", "broken on purpose"), map(held, claims.INVARIANTS)))
    parts.append(claims.HARNESSES_TITLE)
    parts.append(
        table(
            ("harness", "what it does", "where"),
            ((h.name, h.what, places(h.proofs)) for h in claims.HARNESSES),
        )
    )
    parts.append(claims.NOT_PROVED)
    return "\n".join(parts)


def claimed(fault: claims.Claim) -> tuple[str, ...]:
    """A row of the table of faults."""
    return fault.name, fault.what, fault.then, places(fault.proofs)


def held(invariant: claims.Claim) -> tuple[str, ...]:
    """A row of the table of invariants, with the seeded bugs that break it."""
    bugs = [str(bug.number) for bug in BUGS if invariant.name in bug.breaks.split(", ")]
    return invariant.name, invariant.what, places(invariant.proofs), "bug " + ", ".join(bugs)


def places(proofs: Sequence[str]) -> str:
    """Where proofs stand; those of one file together."""
    by_file: dict[str, list[str]] = {}
    for proof in proofs:
        file, _, name = proof.partition("::")
        by_file.setdefault(file, []).append(name.partition("::")[2] or name)
    return "; ".join(
        f"`{file}`: {', '.join(filter(None, names))}".removesuffix(": ") for file, names in by_file.items()
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)


def figures(folder: Path) -> list[Row]:
    """The newest run of each harness, its calls added up; the deep runs apart."""
    calls: dict[tuple[str, bool], dict[str, list[dict[str, Any]]]] = {}
    for file in folder.glob("*.jsonl"):
        for line in file.read_text().splitlines():
            call = json.loads(line)
            calls.setdefault((call["harness"], call["deep"]), {}).setdefault(file.stem, []).append(call)
    rows = []
    for (harness, deep), runs in sorted(calls.items()):
        newest = max(runs.values(), key=lambda run: max(call["at"] for call in run))
        rows.append(summed(f"{harness} (deep)" if deep else harness, newest))
    return rows


def summed(harness: str, calls: Sequence[dict[str, Any]]) -> Row:
    """The calls of one run as one row."""
    counts: dict[str, int] = {}
    for call in calls:
        for name, count in call["counts"].items():
            before = counts.get(name, 0)
            counts[name] = max(before, count) if name.endswith("_max") else before + count
    last = max(calls, key=lambda call: call["at"])
    day = datetime.datetime.fromtimestamp(last["at"], datetime.UTC).date().isoformat()
    seeds = [seed for call in calls for seed in call["seeds"]]
    return Row(harness, counts, seeds, last["commit"], day)


def written(row: Row) -> tuple[str, ...]:
    """A row of the table of figures."""
    counts = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in row.counts.items())
    shown = ", ".join(map(str, row.seeds[:SEEDS_SHOWN]))
    more = len(row.seeds) - SEEDS_SHOWN
    return row.harness, counts, f"{shown} and {more:,} more" if more > 0 else shown, row.commit, row.day


def page(folder: Path) -> str:
    """The whole page."""
    rows = figures(folder)
    shown = table(("harness", "counted", "seeds", "commit", "day"), map(written, rows))
    return f"{static_part()}\n{FIGURES}\n{claims.ABOUT_FIGURES}\n\n{shown}"


if __name__ == "__main__":
    PAGE.write_text(page(Path(os.environ.get("ZART_TALLY", FOLDER))), encoding="utf-8")
