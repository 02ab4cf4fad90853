"""The lint: every rule by examples, what it follows, silences, and no false alarm on all the workflows here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from zart_core.errors import InvalidUse
from zart_core.lint import RULES, Finding, Rule, lint
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
