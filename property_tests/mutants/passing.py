"""Which tests pass through which lines, and how much CPU time each takes: one run under coverage, kept beside the tree.

The run is the control as well: it has to be green.
"""

from __future__ import annotations

import fnmatch
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
from coverage import CoverageData

from property_tests.tally import ROOT

FOLDER = ROOT / ".pytest_cache" / "zart-mutants"


@attrs.frozen
class Passing:
    """What a run of the tests has shown."""

    seconds: Mapping[str, float]
    """CPU time of each test, by its name."""
    lines: Mapping[str, Mapping[int, Sequence[str]]]
    """By file and line, the tests that pass there."""

    def tests(self, file: str, line: int) -> list[str]:
        """Those that pass through a line, the quickest first.

        A line that is passed at import is of all of them. Of a module that a plugin imports coverage does not see it.
        """
        lines = self.lines.get(file, {})
        names = set(lines.get(line, ("",)))
        if "" in names:
            names = {name for passed in lines.values() for name in passed}
        return sorted(names & self.seconds.keys(), key=self.seconds.__getitem__)


def modules() -> list[str]:
    """The files of which every branch has to be passed: pyproject.toml names them to coverage."""
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    run = tool["coverage"]["run"]
    files = [
        str(path.relative_to(ROOT))
        for house in ("zart_core", "zart_stores")
        for path in (ROOT / house).rglob("*.py")
    ]
    return sorted(
        file for file in files if is_one_of(file, run["include"]) and not is_one_of(file, run["omit"])
    )


def is_one_of(file: str, patterns: Sequence[str]) -> bool:
    """As coverage reads patterns that begin with */."""
    return any(fnmatch.fnmatch(f"/{file}", pattern) for pattern in patterns)


def run(tests: Sequence[str], jobs: int) -> Passing:
    """Run tests under coverage. Raises CalledProcessError when they are not green as the tree is."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for old in FOLDER.glob("coverage*"):
        old.unlink()
    words = ["-q", "-n", str(jobs), "--dist", "worksteal", "-p", "property_tests.mutants.clock"]
    words += ["--cov", "--cov-context=test", "--cov-report=", "--cov-fail-under=0"]
    subprocess.run(
        [sys.executable, "-m", "pytest", *words, *tests],
        cwd=ROOT,
        check=True,
        env={
            **os.environ,
            "COVERAGE_FILE": str(FOLDER / "coverage"),
            "ZART_CLOCK": str(FOLDER / "clock.json"),
        },
    )
    return kept()


def kept() -> Passing:
    """What the last run has shown."""
    data = CoverageData(str(FOLDER / "coverage"))
    data.read()
    lines = {
        str(Path(file).relative_to(ROOT)): {
            line: [name.rpartition("|")[0] for name in names]
            for line, names in data.contexts_by_lineno(file).items()
        }
        for file in data.measured_files()
    }
    return Passing(json.loads((FOLDER / "clock.json").read_text()), lines)
