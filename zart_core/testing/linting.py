"""Tests that the pytest plugin adds: one for each target that `--zart-lint` or `zart_lint =` names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from zart_core.errors import InvalidUse
from zart_core.lint import Report, lint
from zart_core.lint.formats import as_text


class Found(Exception):
    """There are findings."""

    def __init__(self, report: Report) -> None:
        super().__init__(as_text(report))


class LintItem(pytest.Item):
    """The lint of one target as a test."""

    target: str
    """A path or the dotted name of a module."""

    def runtest(self) -> None:
        """Fail when something is found."""
        report = lint([self.target])
        if report.findings:
            raise Found(report)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Show the findings, and no traceback."""
        if isinstance(excinfo.value, Found | InvalidUse):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, None, str]:
        """What the test is called."""
        return self.path, None, f"zart lint {self.target}"


def items_for(session: pytest.Session, targets: Sequence[str]) -> list[pytest.Item]:
    """A test for each target; what is a path below pytest's root directory is taken from there."""
    make: Callable[..., LintItem] = getattr(LintItem, "from_parent")  # noqa: B009  # whose options have no types
    items: list[pytest.Item] = []
    for target in dict.fromkeys(targets):
        place = session.config.rootpath / target
        wanted = str(place) if place.exists() else target
        name = f"zart-lint[{target}]"
        item = make(parent=session, name=name, nodeid=name)
        item.target = wanted
        items.append(item)
    return items
