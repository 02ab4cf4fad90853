"""Measures the rows that are named, or all of them, and prints the table; `--to` writes it, with a drawing."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks import report
from benchmarks.measuring import Sizes
from benchmarks.rows import ROWS, Figure, Result, Row
from benchmarks.stage import staged

QUICK = Sizes(rounds=2, share=0.1)


def chosen(names: list[str]) -> list[Row | Figure]:
    """The rows of these names, or of names that begin so; all of them without any. Raises ValueError."""
    found = []
    for name in names:
        those = [row for row in ROWS if row.name == name] or [
            row for row in ROWS if row.name.startswith(name)
        ]
        if not those:
            raise ValueError(f"no row begins with {name!r}; there are: {', '.join(row.name for row in ROWS)}")
        found += those
    return found if names else list(ROWS)


def arguments(argv: list[str]) -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "rows", nargs="*", metavar="ROW", help="a row, or what several begin with; all by default"
    )
    parser.add_argument("--list", action="store_true", help="name the rows and measure nothing")
    parser.add_argument("--quick", action="store_true", help="a tenth of each size, two rounds: only a look")
    parser.add_argument("--rounds", type=int, default=Sizes().rounds, help="rounds of each row (%(default)s)")
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="write budgets.md and budgets.svg there")
    asked = parser.parse_args(argv)
    if asked.rounds < 1:
        parser.error(f"--rounds {asked.rounds}: one round at least")
    try:
        asked.chosen = chosen(asked.rows)
    except ValueError as error:
        parser.error(str(error))
    return asked


def main(argv: list[str]) -> None:
    """Measure, print, write."""
    asked = arguments(argv)
    if asked.list:
        for row in asked.chosen:
            print(f"{row.name:22}{row.title}")
        return
    sizes = QUICK if asked.quick else Sizes(asked.rounds)
    heading = report.heading(sizes)
    print(heading)
    results: list[Result] = []
    with staged(sizes) as stage:
        for row in asked.chosen:
            results.append(row.result(stage))
            print(report.line(results[-1]), flush=True)
            if asked.to is not None:  # as far as it is: rows take minutes, and who stops keeps what there is
                report.write(asked.to, heading, results)
    print(report.verdict(results))


if __name__ == "__main__":
    main(sys.argv[1:])
