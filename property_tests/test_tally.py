"""What harnesses count comes back as it was written, run by run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from property_tests.tally import ROOT, tally


def test_each_call_is_a_line_of_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes of one run write into one file; a call keeps its harness, seeds and counts."""
    monkeypatch.setenv("ZART_TALLY", str(tmp_path))
    monkeypatch.setenv("ZART_RUN", "one")
    tally("crash points", seeds=[7], states=3, writes_max=8)
    code = "from property_tests.tally import tally; tally('crash points', states=4)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    monkeypatch.setenv("ZART_RUN", "two")
    tally("simulation", seeds=range(3), seeds_played=3)

    lines = [json.loads(line) for line in (tmp_path / "one.jsonl").read_text().splitlines()]
    assert [(line["harness"], line["seeds"], line["counts"]) for line in lines] == [
        ("crash points", [7], {"states": 3, "writes_max": 8}),
        ("crash points", [], {"states": 4}),
    ]
    [other] = [json.loads(line) for line in (tmp_path / "two.jsonl").read_text().splitlines()]
    assert (other["harness"], other["counts"]) == ("simulation", {"seeds_played": 3})
