"""`zart lint`: what in workflows would not come out the same twice, by reading their source.

Rule 1: nothing of the user's is imported or run.
"""

from __future__ import annotations

from collections.abc import Sequence

from zart_core.cli.exits import FAILED, OK
from zart_core.cli.texts import say
from zart_core.errors import InvalidUse
from zart_core.lint import lint as look_through
from zart_core.lint.formats import FORMATS


def lint(targets: Sequence[str], select: Sequence[str], ignore: Sequence[str], format: str) -> int:
    """Print what is found. Raises InvalidUse for what is not there."""
    if format not in FORMATS:
        raise InvalidUse(f"there is no format '{format}'; there are: {', '.join(FORMATS)}")
    report = look_through(targets, select=listed(select), ignore=listed(ignore))
    text = FORMATS[format](report)
    if text:
        say(text)
    return FAILED if report.findings else OK


def listed(given: Sequence[str]) -> list[str]:
    """The ids in options that may hold several each, with commas between them."""
    return [id.strip() for each in given for id in each.split(",") if id.strip()]
