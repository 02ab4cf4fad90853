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


EQUIVALENT: tuple[Equivalent, ...] = ()


def reason(mutant: Mutant, source: str) -> str:
    """Why a mutant is no change; empty when it is not known to be none."""
    line = source.splitlines()[mutant.line - 1].strip()
    place = (mutant.file, line, mutant.kind, mutant.new)
    return next((one.why for one in EQUIVALENT if (one.file, one.line, one.kind, one.new) == place), "")
