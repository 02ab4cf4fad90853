"""Runs the tests again and again, and says which failed how often: `python -m property_tests.stable 20 [WORD ...]`.

Words are for pytest. Used by hand: a test that fails once in twenty runs is as bad as one that fails always.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from property_tests.tally import ROOT

WORDS = ("-n", "3", "--dist", "worksteal", "tests", "property_tests")


def failed(report: Path) -> list[str]:
    """The tests that failed or raised, by a JUnit report."""
    names = []
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            names.append(f"{case.get('classname')}::{case.get('name')}")
    return names


def run(words: Sequence[str], report: Path) -> list[str]:
    """One run; what failed in it. A run that ends without a report is itself a failure."""
    command = [sys.executable, "-m", "pytest", "-q", f"--junit-xml={report}", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if not report.exists():
        return [f"pytest ended with {done.returncode}: {done.stdout[-300:]}{done.stderr[-300:]}"]
    names = failed(report)
    return names or ([f"pytest ended with {done.returncode}"] if done.returncode else [])


def main(words: Sequence[str]) -> int:
    """See the module; 1 when anything failed in any run."""
    runs = int(words[0]) if words else 20
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(1, runs + 1):
            names = run(words[1:] or WORDS, Path(folder) / f"{number}.xml")
            counts.update(names)
            print(f"run {number} of {runs}: {len(names)} failed", flush=True)
    for name, count in counts.most_common():
        print(f"{count:4} of {runs}  {name}")
    print("stable" if not counts else f"{len(counts)} tests are not stable")
    return int(bool(counts))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
