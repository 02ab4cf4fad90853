"""Names that vary with the data, as one: those of commands that have no template of their own, such as sleeps.

Rule 1: two names are one pattern when one line of the source gave both, and they agree up to the first mark or digit:
        `after-42` and `after-43` are `after-*`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypeAlias

from zart_core.events import Event, Issued, Site

NAMED_BY_CALL = frozenset({"sleep", "capture", "now"})
"""Kinds of commands whose name is all there is; steps, events and children have an id, markers a name that stands."""
BEGINNING = re.compile(r"[^\W\d_]*[\W_]?")
Group: TypeAlias = tuple[str, Site | None, str]


class Patterns:
    """Which names were seen at which lines. Memory by lines, not by names."""

    def __init__(self) -> None:
        self.first: dict[Group, str] = {}
        self.varying: set[Group] = set()

    def see(self, events: Iterable[Event]) -> None:
        """Take note of the names in a history."""
        for event in events:
            if isinstance(event, Issued) and event.kind in NAMED_BY_CALL:
                group = group_of(event.kind, event.name, event.site)
                if self.first.setdefault(group, event.name) != event.name:
                    self.varying.add(group)

    def of(self, kind: str, name: str, site: Site | None) -> str:
        """The name itself, or its pattern where names vary at its line."""
        group = group_of(kind, name, site)
        return f"{group[2]}*" if group in self.varying else name


def group_of(kind: str, name: str, site: Site | None) -> Group:
    """What names that may be one pattern have in common."""
    beginning = BEGINNING.match(name)
    return kind, site, beginning[0] if beginning is not None and site is not None else name
