"""The page of rules, drawn from their table: `python -m zart_core.lint.page > docs/lint.md`."""

from __future__ import annotations

import sys

from zart_core.lint.rules import ALL, PRELUDE, Rule

INTRODUCTION = """\
# What `zart lint` finds

A workflow is replayed after a crash, and must do the same again: ask for the same things in the same order, with the
same names and arguments. `zart lint` reads the source and finds what would not come out the same twice, and some
mistakes that the type checkers do not see. `zart lint src` looks through a folder; files and dotted names of modules
do as well. It exits with 1 when something is found and with 2 when a target is not there.

- **Nothing of yours is imported or run.** Modules are found below the folders of the files that are given and the
  working directory, then as Python's import system finds them, and are parsed.
- **It follows what a workflow reaches**: the flows that it runs by `yield from` or as branches, the functions and
  methods that it calls, what runs when it makes an object or reads a property, and what `on_failure=` names, in other
  modules of the program too. Steps are where effects belong, and functions for `zart.capture` run once; neither is
  looked into. Installed packages are not followed: a table says which of the standard library's names, and of some
  well-known packages', look outside.
- **What is not certain is not reported**: a method of an object whose class the source does not tell, a name that a
  call works out.

`--select ZT1,ZT305` and `--ignore ZT206` choose rules by the beginnings of their numbers. `--format` is `text` (a line
for each finding, `path:line:column: rule message`), `json`, `github` or `sarif`. A comment silences a finding on its
line, or on the next line when it stands alone; it names the rules, and should say why:
`# zart: ignore[ZT206] for the person at the screen`. Silences that hide nothing are findings, too.

`pytest --zart-lint=src` makes a test of it, as `zart_lint = src` in pytest's configuration does in every run.
`zart_core.lint.lint(["src"])` gives the findings to a program.

The lint reads, and cannot see everything. [Replays under another clock](perturbed.md), hash seed, environment and so on
find what makes a difference in histories that there are.

## The rules

The examples stand behind these lines:

"""


def page() -> str:
    """The whole page."""
    return INTRODUCTION + block(PRELUDE) + "".join(map(section, ALL))


def section(rule: Rule) -> str:
    """One rule: what, why, fix, and both examples."""
    text = f"\n### {rule.id}: {rule.title}\n\n{sentence(rule.why)} {sentence(rule.fix)}\n"
    if not rule.bad:
        return text
    return f"{text}\n{block(rule.bad)}\nBetter:\n\n{block(rule.good)}"


def sentence(text: str) -> str:
    """A text with a capital and a full stop, wrapped by nobody: lines of prose may be long here."""
    return f"{text[0].upper()}{text[1:]}."


def block(code: str) -> str:
    """A block of Python."""
    return f"```python\n{code}```\n"


if __name__ == "__main__":
    sys.stdout.write(page())
