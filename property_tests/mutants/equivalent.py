"""Mutants that change nothing that anybody could notice, each with its reason. One whose line is gone is refused."""

from __future__ import annotations

import attrs

from property_tests.mutants.operators import Mutant


@attrs.frozen
class Equivalent:
    """A change that is none."""

    file: str
    line: str
    """The line on which it begins, without its indentation."""
    kind: str
    new: str
    """What stands there instead."""
    why: str


EQUIVALENT = (
    Equivalent(
        "zart_stores/checks.py",
        "check_times(mark.id, 0.0, mark.wake)",
        "constant",
        "1.0",
        "a mark has no time of its own: it is any number that is finite",
    ),
    Equivalent(
        "zart_stores/file/salvage.py",
        "READ_BYTES = 1 << 16",
        "constant",
        "2",
        "more is read at once",
    ),
    Equivalent(
        "zart_stores/file/index.py",
        "self.place = Place(0, 0, 0)",
        "constant",
        "1",
        "the place of a frame is set before anything of it is added",
    ),
)


def reason(mutant: Mutant, source: str) -> str:
    """Why a mutant is no change; empty when it is not known to be none."""
    line = source.splitlines()[mutant.line - 1].strip()
    place = (mutant.file, line, mutant.kind, mutant.new)
    return next((one.why for one in EQUIVALENT if (one.file, one.line, one.kind, one.new) == place), "")
