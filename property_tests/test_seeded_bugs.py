"""Every seeded bug is noticed by the harness that is known to notice it, which is quiet about the tree as it is."""

from __future__ import annotations

import subprocess
import sys

import pytest

from property_tests.seeded_bugs.bugs import BUGS
from property_tests.seeded_bugs.patching import ROOT, Stale, patched

INVARIANTS = [f"I{number}" for number in range(1, 22)]


def test_each_invariant_has_a_twin() -> None:
    """At least forty bugs; each applies, and each invariant is broken by one."""
    broken = {name for bug in BUGS for name in bug.breaks.split(", ")}
    assert len(BUGS) >= 40
    assert [bug.number for bug in BUGS] == list(range(1, len(BUGS) + 1))
    assert broken >= set(INVARIANTS)
    for bug in BUGS:
        assert patched(bug)


def test_a_bug_whose_line_has_changed_is_refused() -> None:
    """None rots in silence."""
    moved = type(BUGS[0])(1, BUGS[0].file, "a line that is not there", "x", "I1", "nothing")
    with pytest.raises(Stale, match="is there 0 times"):
        patched(moved)


@pytest.mark.parametrize("harness", sorted({bug.first for bug in BUGS}))
def test_each_bug_is_noticed(harness: str) -> None:
    """In processes of their own, and with the harness's control: the tree as it is."""
    command = [sys.executable, "-m", "property_tests.seeded_bugs", "--by", harness]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    print(done.stdout, done.stderr)
    count = sum(bug.first == harness for bug in BUGS)
    assert done.returncode == 0
    assert f"{count} of {count} bugs caught" in done.stdout
