"""`zart lint`: formats, exit codes, and that text from source is escaped."""

from __future__ import annotations

import json

import pytest

from zart_core.cli import app
from zart_core.lint import RULES
from zart_core.lint.rules import PRELUDE

BAD = PRELUDE + RULES["ZT101"].bad + RULES["ZT206"].bad
LINES = [(number, text) for number, text in enumerate(BAD.splitlines(), 1)]
CLOCK = next(number for number, text in LINES if "time.time()" in text)
PRINT = next(number for number, text in LINES if "print(" in text)


@pytest.fixture
def linted(tmp_path, monkeypatch, capsys):
    """Runs `zart lint` in a folder with one bad file; gives exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flows.py").write_text(BAD)
    (tmp_path / "fine.py").write_text(PRELUDE)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = app.main(["lint", *arguments])
        return (code, *capsys.readouterr())

    return run


def test_text(linted):
    """A line for each finding, as other linters print them, and one that sums up."""
    code, out, _ = linted("flows.py")

    clock, printing, last = out.splitlines()
    assert code == 1
    assert clock.startswith(
        f"flows.py:{CLOCK}:13: ZT101 `time.time(...)` reads the clock: a replay reads another time"
    )
    assert printing.startswith(f"flows.py:{PRINT}:5: ZT206 `print(...)` prints or logs")
    assert last == "2 findings; 1 file, 2 functions that workflows reach"


def test_nothing_is_found(linted):
    """Exit code 0."""
    assert linted("fine.py") == (0, "no findings; 1 file, 0 functions that workflows reach\n", "")


def test_choosing_rules(linted):
    """Options may come several times, and hold several."""
    assert linted("flows.py", "--ignore", "ZT101,ZT206")[0] == 0
    assert linted("flows.py", "--select", "ZT1", "--select", "ZT3")[1].count("ZT") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nope.py"], "there is no file 'nope.py'"),
        (["flows.py", "--select", "E501"], "there is no rule 'E501'"),
        (["flows.py", "--format", "xml"], "there is no format 'xml'; there are: text, json, github, sarif"),
        ([], "Missing argument"),
    ],
)
def test_wrong_usage(linted, arguments, words):
    """Exit code 2, and one line that says what to do."""
    code, out, err = linted(*arguments)

    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err


def test_json(linted):
    """All there is to know of each finding."""
    code, out, _ = linted("flows.py", "--format", "json")

    told = json.loads(out)
    assert (code, told["files"], told["functions"], told["silenced"]) == (1, 1, 2, 0)
    assert told["findings"][0] == {
        "path": "flows.py",
        "line": CLOCK,
        "column": 13,
        "end_line": CLOCK,
        "rule": "ZT101",
        "title": "reads the clock",
        "what": "`time.time(...)` reads the clock",
        "why": RULES["ZT101"].why,
        "fix": RULES["ZT101"].fix,
        "via": "",
    }


def test_github(linted, tmp_path):
    """Workflow commands, with what is special in them escaped."""
    (tmp_path / "a,b%.py").write_text(BAD)

    _, out, _ = linted("a,b%.py", "--format", "github")

    first = out.splitlines()[0]
    assert first.startswith(
        f"::error file=a%2Cb%25.py,line={CLOCK},endLine={CLOCK},col=13,title=ZT101::`time.time("
    )
    assert linted("fine.py", "--format", "github") == (0, "", "")


def test_sarif(linted):
    """Every rule is described, and each finding has its place."""
    told = json.loads(linted("flows.py", "--format", "sarif")[1])

    (run,) = told["runs"]
    assert told["version"] == "2.1.0"
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == list(RULES)
    assert [result["ruleId"] for result in run["results"]] == ["ZT101", "ZT206"]
    assert run["results"][0]["locations"][0]["physicalLocation"] == {
        "artifactLocation": {"uri": "flows.py"},
        "region": {"startLine": CLOCK, "startColumn": 13, "endLine": CLOCK},
    }


def test_hostile_source_is_escaped(linted, tmp_path):
    """Control characters of names and texts reach no terminal."""
    (tmp_path / "evil.py").write_text(
        PRELUDE + 'def f() -> zart.Flow[None]:\n    yield "\x1b[31m"  # zart: ignore[\x1b]\n'
    )

    _, out, _ = linted("evil.py")

    assert out.replace("\n", "").isprintable()
    assert "ZT304" in out
    assert "ZT902 there is no rule '\\x1b'" in out
