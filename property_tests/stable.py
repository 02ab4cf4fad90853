"""Runs tests again and again, says which failed, how and how often: `python -m property_tests.stable 20 [WORD ...]`.

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

TOLD_MAX = 4000
"""Characters of what is shown of each failure."""
WORDS = ("-n", "3", "--dist", "worksteal", "tests", "property_tests")


def failed(report: Path) -> dict[str, str]:
    """The tests that failed or raised, by a JUnit report, and what pytest said of each."""
    found: dict[str, str] = {}
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        for trouble in (*case.iter("failure"), *case.iter("error")):
            found[f"{case.get('classname')}::{case.get('name')}"] = trouble.text or ""
    return found


def run(words: Sequence[str], report: Path) -> dict[str, str]:
    """One run: what failed in it, and how. A run that ends without a report is itself a failure."""
    command = [sys.executable, "-m", "pytest", "-q", f"--junit-xml={report}", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if not report.exists():
        return {f"pytest ended with {done.returncode}, and no report": f"{done.stdout}\n{done.stderr}"}
    found = failed(report)
    return found or ({f"pytest ended with {done.returncode}": done.stdout} if done.returncode else {})


def main(words: Sequence[str]) -> int:
    """See the module; 1 when anything failed in any run."""
    runs = int(words[0]) if words else 20
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(1, runs + 1):
            found = run(words[1:] or WORDS, Path(folder) / f"{number}.xml")
            counts.update(found.keys())
            print(f"run {number} of {runs}: {len(found)} failed", flush=True)
            for name, told in found.items():
                print(f"{name}\n{told[-TOLD_MAX:]}", flush=True)
    for name, count in counts.most_common():
        print(f"{count:4} of {runs}  {name}")
    print("stable" if not counts else f"{len(counts)} tests are not stable")
    return int(bool(counts))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
