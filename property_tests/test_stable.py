"""What is not stable is counted, test by test."""

from __future__ import annotations

from pathlib import Path

import pytest

from property_tests.stable import main

FLAKY = """
from pathlib import Path
mark = Path(__file__).with_name("mark")
def test_now_and_then():
    mark.touch() if not mark.exists() else mark.unlink()
    assert mark.exists()
def test_always_well():
    assert mark
"""


def test_a_test_that_fails_every_other_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its name, what it said and how often; the exit code tells as well."""
    (tmp_path / "test_it.py").write_text(FLAKY)
    words = ["2", "-p", "no:cacheprovider", "-c", "/dev/null", str(tmp_path / "test_it.py")]
    assert main(words) == 1
    shown = capsys.readouterr().out.splitlines()
    assert shown[:2] == ["run 1 of 2: 0 failed", "run 2 of 2: 1 failed"]
    assert shown[2].endswith("test_now_and_then")
    assert ">       assert mark.exists()" in shown[3:-2]
    assert shown[-2].startswith("   1 of 2") and shown[-2].endswith("test_now_and_then")
    assert shown[-1] == "1 tests are not stable"
    assert main([*words[:1], *words[1:-1], f"{words[-1]}::test_always_well"]) == 0
