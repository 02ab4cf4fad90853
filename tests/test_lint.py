"""The lint: every rule by examples, what it follows, silences, and no false alarm on all the workflows here."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from zart_core.errors import InvalidUse
from zart_core.lint import RULES, Finding, Rule, lint
from zart_core.lint.page import page
from zart_core.lint.rules import PRELUDE

ROOT = Path(__file__).parent.parent
SNIPPETS = sorted((Path(__file__).parent / "lint_snippets").glob("*.py"))
SECTION = re.compile(r"^#: (bad|good) (.*)\n", re.M)
EXPECTED = re.compile(r"# -> (ZT[\dZT ]*)")


def snippets() -> list[tuple[str, str]]:
    """What each file holds, by title; it says itself at which lines what is to be found."""
    found = []
    for path in SNIPPETS:
        _, *parts = SECTION.split(path.read_text())
        for kind, title, code in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
            assert (kind == "bad") == bool(EXPECTED.search(code)), title
            found.append((f"{path.stem}: {title}", code))
    return found


ALL = snippets()


def found_in(tmp_path: Path, code: str, name: str = "flows.py") -> list[Finding]:
    """What is found in a piece of code."""
    path = tmp_path / name
    path.write_text(code)
    return list(lint([path]).findings)


def rules_by_line(findings: list[Finding]) -> list[tuple[int, str]]:
    """Lines and rules."""
    return sorted((finding.line, finding.rule) for finding in findings)


@pytest.mark.parametrize("code", [code for _, code in ALL], ids=[title for title, _ in ALL])
def test_snippets(tmp_path, code):
    """Exactly what the comments in a snippet say is found, at those lines, and nothing else."""
    code = PRELUDE + code

    expected = [
        (number, rule)
        for number, line in enumerate(code.splitlines(), 1)
        for match in EXPECTED.finditer(line)
        for rule in match[1].split()
    ]
    assert rules_by_line(found_in(tmp_path, code)) == sorted(expected)


def test_there_are_enough_snippets():
    """Forty of each, beside those in the table of rules."""
    kinds = [bool(EXPECTED.search(code)) for _, code in ALL]
    assert kinds.count(True) >= 40
    assert kinds.count(False) >= 40


@pytest.mark.parametrize("rule", [rule for rule in RULES.values() if rule.bad], ids=lambda rule: rule.id)
def test_the_examples_of_a_rule(tmp_path, rule: Rule):
    """The bad one breaks this rule alone, once or more; the good one breaks none."""
    assert {finding.rule for finding in found_in(tmp_path, PRELUDE + rule.bad)} == {rule.id}
    assert found_in(tmp_path, PRELUDE + rule.good) == []


def test_every_rule_stands_in_a_snippet():
    """Each rule has a bad snippet of its own beside the table, but for files that cannot be read."""
    expected = {rule for _, code in ALL for match in EXPECTED.finditer(code) for rule in match[1].split()}
    assert expected >= RULES.keys() - {"ZT900"}


# ---------------------------------------------------------------- no false alarm


def test_nothing_is_found_in_the_examples_and_scenarios():
    """Whatever is found there is silenced by a comment that says why."""
    report = lint([ROOT / "examples", ROOT / "tests" / "scenarios", ROOT / "property_tests" / "shapes.py"])

    assert [finding.message for finding in report.findings] == []
    assert report.functions > 70  # they are looked at


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda path: path.name
)
def test_nothing_is_found_in_the_blocks_of_a_page(tmp_path, page):
    """Each block of README and docs by itself; the bad examples of the page of rules are tested with the table."""
    if page.name == "lint.md":
        return
    for number, block in enumerate(re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.M | re.S)):
        assert found_in(tmp_path, block, f"block_{number}.py") == []


def test_what_is_wrong_on_purpose_is_found():
    """Control for the tests above: the users' mistakes that other tests make are seen in their files."""
    found = lint([ROOT / "tests" / "test_mistakes.py"]).findings

    assert {"ZT301", "ZT302", "ZT304", "ZT305", "ZT306"} <= {finding.rule for finding in found}


# ---------------------------------------------------------------- what it follows


FLOWS = """
from zart_core import workflow
from .steps import charge
from . import helpers as h
from .more import *

@workflow("w")
def w():
    yield from charge(h.stamp())
    yield from h.again()
    yield from starred()
"""
HELPERS = """
import time
from app.steps import charge

def stamp():
    return str(time.time())

def again():
    yield from charge("again")
    time.sleep(1)
"""


def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **modules: str) -> Path:
    """A package `app` in the working directory; importing any of it fails."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "app"
    folder.mkdir()
    for name, text in {"__init__": "", **modules}.items():
        (folder / f"{name}.py").write_text(text + '\nraise SystemExit("imported")\n')
    return folder


STEPS = "import zart_core as zart\n\n@zart.step('charge')\ndef charge(x):\n    print(x)\n"
MORE = (
    "import random\nfrom .steps import charge\ndef starred():\n    yield from charge(str(random.random()))\n"
)


@pytest.mark.parametrize("target", ["app", "app.flows", "app/flows.py"])
def test_other_modules_are_followed_and_none_is_imported(tmp_path, monkeypatch, target):
    """Relative, absolute and starred imports lead to helpers and flows; found where they stand, with the way there."""
    package(tmp_path, monkeypatch, flows=FLOWS, helpers=HELPERS, steps=STEPS, more=MORE)

    found = lint([target]).findings

    assert [(finding.path.name, finding.line, finding.rule) for finding in found] == [
        ("helpers.py", 6, "ZT101"),
        ("helpers.py", 10, "ZT205"),
        ("more.py", 4, "ZT102"),
    ]
    assert str(found[0].path) == "app/helpers.py"  # as one would give it
    assert found[0].via == "reached from `w`, flows.py:9"


def test_a_name_that_is_imported_on_keeps_its_meaning(tmp_path, monkeypatch):
    """A module that passes on zart and its decorators under names of its own."""
    base = "import zart_core\nfrom zart_core import workflow as durable\nz = zart_core\n"
    flows = "from app.base import durable, z\n@durable('w')\ndef w():\n    z.sleep('s', 1)\n    yield z.now('n')\n"
    package(tmp_path, monkeypatch, base=base, flows=flows)

    assert rules_by_line(list(lint(["app/flows.py"]).findings)) == [(4, "ZT302")]


def test_state_of_another_module(tmp_path, monkeypatch):
    """A list that another module changes, imported by name."""
    base = "seen = []\ndef note(x):\n    seen.append(x)\n"
    flows = (
        "import zart_core as zart\nfrom app.base import seen\n"
        "def f() -> zart.Flow[int]:\n    yield zart.now('n')\n    return len(seen)\n"
    )
    package(tmp_path, monkeypatch, base=base, flows=flows)

    assert rules_by_line(list(lint(["app/flows.py"]).findings)) == [(5, "ZT107")]


# ---------------------------------------------------------------- what cannot be read, and choosing rules


BAD = PRELUDE + RULES["ZT101"].bad + RULES["ZT206"].bad


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        (b"def f(:\n", 1, "does not parse"),
        (b"x = 1\n  y = 2\n", 2, "does not parse"),
        (b"# \xff\n", 1, "no text in its encoding"),
        (b"x = 1\0\n", 1, "does not parse"),
        (b"# coding: nonsense\n", 1, "no text in its encoding"),
    ],
    ids=["syntax", "indentation", "bytes", "nul", "encoding"],
)
def test_a_file_that_cannot_be_read(tmp_path, content, line, words):
    """It is a finding with a place; the other files are looked through all the same."""
    (tmp_path / "broken.py").write_bytes(content)
    (tmp_path / "whole.py").write_text(BAD)

    first, *rest = lint([tmp_path]).findings

    assert (first.path.name, first.rule, first.line) == ("broken.py", "ZT900", line)
    assert words in first.what
    assert [finding.rule for finding in rest] == ["ZT101", "ZT206"]


def test_a_helper_that_cannot_be_read_is_passed_over(tmp_path):
    """It is not among the targets, so it is not reported; what imports it is looked through."""
    (tmp_path / "broken.py").write_text("def (")

    assert [finding.rule for finding in found_in(tmp_path, "import broken\n" + BAD)] == ["ZT101", "ZT206"]


@pytest.mark.parametrize("terms", [900, 100_000])
def test_a_deep_expression(tmp_path, terms):
    """A long sum is a deep tree: it is looked through, or said to be too deep; the other files are, too."""
    text = (
        PRELUDE
        + f"def f() -> zart.Flow[int]:\n    yield from charge({' + '.join(['str(1)'] * terms)})\n    print(1)\n"
    )
    (tmp_path / "deep.py").write_text(text)
    (tmp_path / "whole.py").write_text(BAD)

    first, *rest = lint([tmp_path]).findings

    assert (first.path.name, first.rule) == ("deep.py", "ZT206" if terms < 1000 else "ZT900")
    assert [finding.rule for finding in rest] == ["ZT101", "ZT206"]


def test_a_folder_that_cannot_be_read(tmp_path, monkeypatch):
    """It is not passed over in silence."""
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def refusing(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(InvalidUse, match=r"closed' cannot be read \(Permission denied\)"):
        lint([tmp_path])


@pytest.mark.parametrize("target", ["nope.py", "no/such", "no_such_module", "os.path.nope", "\n", ""])
def test_a_target_that_is_not_there(target):
    """The error says what to give."""
    with pytest.raises(InvalidUse, match=r"there is no (file|module)"):
        lint([target])


def test_rules_are_chosen_by_their_beginnings(tmp_path):
    """select and ignore, and an error for a rule that does not exist."""
    (tmp_path / "flows.py").write_text(BAD)

    def rules(**options):
        return [finding.rule for finding in lint([tmp_path], **options).findings]

    assert rules(select=["ZT1"]) == ["ZT101"]
    assert rules(ignore=["ZT101"]) == ["ZT206"]
    assert rules(select=["ZT"], ignore=["ZT1", "ZT2"]) == []
    with pytest.raises(InvalidUse, match="there is no rule 'X1'; there are: ZT101, ZT102"):
        lint([tmp_path], select=["X1"])


def test_a_form_feed_ends_no_line(tmp_path):
    """As in sources that were written for printers: a comment silences the next line of code all the same."""
    code = f"{PRELUDE}\n\f\n@zart.workflow('w')\ndef w() -> zart.Flow[None]:\n    yield from charge('a\u2028b')\n"
    tell = "\n    # zart: ignore[ZT206] for a demonstration\n    print('said')\n    zart.logger.info('and logged')\n"

    assert found_in(tmp_path, code + tell) == []


def test_a_silence_of_a_rule_that_is_not_chosen_is_no_mistake_there(tmp_path):
    """It hides what it is for, chosen or not."""
    code = BAD.replace("began = time.time()", "began = time.time()  # zart: ignore[ZT101] on purpose")
    (tmp_path / "flows.py").write_text(code)

    report = lint([tmp_path], select=["ZT206", "ZT9"])

    assert ([finding.rule for finding in report.findings], report.silenced) == (["ZT206"], 1)


def test_the_work_is_linear_in_the_source(tmp_path):
    """Eight times the workflows cost at most nine times the calls of functions."""
    body = PRELUDE + "".join(rule.bad for rule in RULES.values() if rule.id not in ("ZT900", "ZT301"))

    def calls(copies: int) -> int:
        folder = tmp_path / str(copies)
        folder.mkdir()
        for number in range(copies):
            (folder / f"flows_{number}.py").write_text(body)
        counted = 0

        def count(frame, event, arg):
            nonlocal counted
            counted += event == "call"

        sys.setprofile(count)
        try:
            lint([folder])
        finally:
            sys.setprofile(None)
        return counted

    assert calls(16) <= 9 * calls(2)


def test_the_page_is_the_table():
    """docs/lint.md is drawn from the table: `python -m zart_core.lint.page > docs/lint.md`."""
    assert (ROOT / "docs" / "lint.md").read_text() == page()


def test_a_folder_without_init_below_a_package_that_is_not_imported(tmp_path, monkeypatch):
    """Python cannot say where such a module is before the package is imported; it is found all the same."""
    inner = tmp_path / "installed" / "a_package" / "inner"
    inner.mkdir(parents=True)
    (inner.parent / "__init__.py").touch()
    (inner / "stamps.py").write_text("import time\n\ndef stamp() -> float:\n    return time.time()\n")
    monkeypatch.syspath_prepend(tmp_path / "installed")
    code = (
        PRELUDE
        + """
from a_package.inner.stamps import stamp
from a_package.missing.stamps import other

@zart.workflow("w")
def w() -> zart.Flow[float]:
    yield from charge(other())
    return stamp()
"""
    )
    (tmp_path / "mine").mkdir()
    (finding,) = found_in(tmp_path / "mine", code)
    assert (finding.path.name, finding.line, finding.rule) == ("stamps.py", 4, "ZT101")
