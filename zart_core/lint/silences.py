"""Comments that silence a finding: `# zart: ignore[ZT101] why`, on one of its lines or alone on the line before."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Collection, Iterator
from pathlib import Path

from zart_core.lint.findings import Finding
from zart_core.lint.rules import RULES
from zart_core.lint.scopes import Module
from zart_core.records import record

COMMENT = re.compile(r"#\s*zart:\s*ignore\b(\[(?P<rules>[^\]]*)\])?")


@record
class Silence:
    """One comment."""

    line: int
    column: int
    rules: tuple[str, ...]
    """As they are written."""
    over: int
    """The line that it is for: its own, or the next one with code."""

    def covers(self, finding: Finding) -> bool:
        """Whether it silences a finding."""
        return finding.rule in self.rules and finding.line <= self.over <= finding.end_line

    def mistakes(self, path: Path, used: Collection[tuple[Path, int, str]]) -> Iterator[Finding]:
        """What is wrong with it: it names no rule, or one that does not exist, or hides nothing."""
        here = path, self.line, self.column, self.line
        if not self.rules:
            yield Finding(*here, "ZT902", "the comment names no rule")
        for rule in self.rules:
            if rule not in RULES:
                yield Finding(*here, "ZT902", f"there is no rule {rule!r}")
            elif (path, self.line, rule) not in used:
                yield Finding(*here, "ZT901", f"there is no {rule} here")


def silences_of(module: Module) -> list[Silence]:
    """The comments of a module. O(size), and next to nothing for a module without any."""
    if not COMMENT.search(module.source):
        return []
    found: list[Silence] = []
    lines = module.source.split("\n")  # as the tokenizer counts: a form feed ends no line
    for token in tokenize.generate_tokens(io.StringIO(module.source).readline):
        match = COMMENT.match(token.string) if token.type == tokenize.COMMENT else None
        if match is None:
            continue
        line, column = token.start
        alone = not lines[line - 1][:column].strip()
        rules = tuple(part.strip() for part in (match["rules"] or "").split(",") if part.strip())
        found.append(Silence(line, column + 1, rules, next_code(lines, line) if alone else line))
    return found


def next_code(lines: list[str], line: int) -> int:
    """The number of the next line that is neither empty nor a comment."""
    for number in range(line + 1, len(lines) + 1):
        text = lines[number - 1].strip()
        if text and not text.startswith("#"):
            return number
    return line
