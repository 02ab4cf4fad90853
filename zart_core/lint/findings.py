"""A finding: one place in the source, and the rule that it breaks."""

from __future__ import annotations

from pathlib import Path

from zart_core.lint.rules import RULES
from zart_core.records import record


@record
class Finding:
    """One place in the source, and the rule that it breaks."""

    path: Path
    line: int
    """Counted from 1."""
    column: int
    """Counted from 1, in characters."""
    end_line: int
    rule: str
    """The rule's id, such as ZT101."""
    what: str
    """What stands there and what is wrong with it."""
    via: str = ""
    """How a workflow gets there; empty in a workflow itself."""

    @property
    def why(self) -> str:
        """What goes wrong."""
        return RULES[self.rule].why

    @property
    def fix(self) -> str:
        """What to write instead."""
        return RULES[self.rule].fix

    @property
    def message(self) -> str:
        """All of it in one line: what, why, fix, and how a workflow gets there."""
        return f"{self.what}: {self.why}; {self.fix}{f' [{self.via}]' if self.via else ''}"
