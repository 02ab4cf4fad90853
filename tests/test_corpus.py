"""The main job and its demo, on a small folder: killed with SIGKILL, and nothing is lost or done twice."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
DEMO = EXAMPLES / "corpus_demo.py"

sys.path.insert(0, str(EXAMPLES))
import corpus  # noqa: E402  # an example is no package

sys.path.remove(str(EXAMPLES))

import zart_core as zart  # noqa: E402


@pytest.fixture
def folder(tmp_path):
    """Files that take a moment each to analyse, one that does not parse, and some that are left out."""
    place = tmp_path / "library"
    place.joinpath("deep", "site-packages").mkdir(parents=True)
    source = "".join(f"class C{n}:\n    def m(self): return {n}\n" for n in range(800))
    for n in range(40):
        place.joinpath("deep" if n % 2 else "", f"m{n:02}.py").write_text(f"# {n}\n{source}")
    place.joinpath("bad.py").write_bytes(b"\xff\xfe def (\n")
    place.joinpath("deep", "notes.txt").write_text("no source")
    place.joinpath("deep", "site-packages", "other.py").write_text("x = 1\n")
    return place


def demo(*args):
    """Run the demo as `make demo` does."""
    return subprocess.run(
        [sys.executable, DEMO, *map(str, args)], capture_output=True, text=True, timeout=120
    )


def test_demo(folder):
    """Killed twice on the way, the job gives the report of the run that was never killed (scenario 18)."""
    done = demo(folder, "--kills", 2, "--concurrency", 2)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("--- killed -9 with ") == 2
    assert "killed 2 times; the report equals that of a run that was never killed\n" in done.stdout
    assert "    files         41\n" in done.stdout
    assert "    unparseable   ['bad.py']\n" in done.stdout


def test_demo_fails_where_nothing_was_killed(tmp_path):
    """A job that is through before it can be killed proves nothing: the demo says so and fails."""
    tmp_path.joinpath("one.py").write_text("x = 1\n")
    done = demo(tmp_path, "--kills", 20)

    assert done.returncode == 1
    assert "FAILED: the job ended " in done.stdout


def test_report(folder):
    """The report counts every file below the folder, and what in them does not parse."""
    report = zart.run_inline(corpus.corpus, corpus.Corpus(str(folder)))

    assert report == corpus.Report(
        files=41,
        size=sum(path.stat().st_size for path in folder.rglob("*.py") if path.name != "other.py"),
        lines=40 * 1601 + 1,
        definitions=40 * 1600,
        unparseable=["bad.py"],
        largest="deep/m11.py",
        checksum=report.checksum,
    )
