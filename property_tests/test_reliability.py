"""docs/reliability.md says what its template says; each fault and invariant is there, and all that shows it exists."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from property_tests import claims
from property_tests.reliability import FIGURES, PAGE, figures, page, static_part
from property_tests.tally import ROOT

EVERYTHING = [*claims.FAULTS, *claims.INVARIANTS, *claims.HARNESSES]


def test_every_fault_and_invariant_is_there() -> None:
    """F1 to F27 and I1 to I21, once each, none without proof."""
    assert [claim.name for claim in claims.FAULTS] == [f"F{n}" for n in range(1, 28)]
    assert [claim.name for claim in claims.INVARIANTS] == [f"I{n}" for n in range(1, 22)]
    assert all(claim.what and claim.proofs for claim in EVERYTHING)


@pytest.mark.parametrize("proof", sorted({proof for claim in EVERYTHING for proof in claim.proofs}))
def test_what_shows_it_exists(proof: str) -> None:
    """A file, and in it the function or class and its method."""
    file, *names = proof.split("::")
    body: list[ast.stmt] = ast.parse((ROOT / file).read_text(encoding="utf-8")).body
    for name in names:
        found = [
            node
            for node in body
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name == name
        ]
        assert len(found) == 1, f"{name} is not in {file}"
        body = found[0].body


def test_the_page_is_up_to_date() -> None:
    """Up to its figures it is what the template gives: `python -m property_tests.reliability` writes it anew."""
    assert PAGE.read_text(encoding="utf-8").partition(FIGURES)[0].rstrip() == static_part().rstrip()


def test_figures_are_those_of_the_newest_run(tmp_path: Path) -> None:
    """Calls of one run are added up, the greatest of what ends in _max is kept, older runs are passed over."""

    def call(at: float, **counts: int) -> str:
        line = {
            "harness": "h",
            "at": at,
            "commit": f"c{at:.0f}",
            "deep": False,
            "seeds": [1, 2],
            "counts": counts,
        }
        return json.dumps(line) + "\n"

    (tmp_path / "old.jsonl").write_text(call(1, states=100))
    (tmp_path / "new.jsonl").write_text(call(5, states=3, writes_max=8) + call(6, states=4, writes_max=5))
    (row,) = figures(tmp_path)
    assert (row.counts, row.seeds, row.commit, row.day) == (
        {"states": 7, "writes_max": 8},
        [1, 2, 1, 2],
        "c6",
        "1970-01-01",
    )
    assert "| h | 7 states, 8 writes max | 1, 2, 1 and 1 more | c6 | 1970-01-01 |" in page(tmp_path)
