"""`zart check`: which unfinished executions would the code at hand park?

Rule 1: stdout is for the report; the bar goes to stderr, and only where a person watches.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import attrs
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from zart_core.cli.exits import OK, PARKED
from zart_core.cli.finding import load
from zart_core.cli.junit import junit_of
from zart_core.cli.reading import opened
from zart_core.cli.texts import as_json, jsonable, plain, say
from zart_core.deploys.checking import DeployReport, Verdict, lines_of, verdicts_on, words_of
from zart_core.deploys.private import private
from zart_core.errors import InvalidUse
from zart_core.workflows import Registry, workflows_in


def check(modules: Sequence[str], url: str, *, relaxed: bool, junit: str, json: bool) -> int:
    """Judge every unfinished execution, and print what would be parked, with the reason."""
    registry = registry_of(modules)
    with opened(url) as log:
        total = sum(n for status, n in log.stats().items() if not status.closed)
        with bar("checked", total) as passed:
            report = DeployReport(list(verdicts_on(log, registry, strict=not relaxed, passed=passed)))
    if junit:
        write(junit, junit_of(report.verdicts))
    if json:
        executions = [verdict_json(verdict) for verdict in report.verdicts]
        say(as_json({"fits": report.fits, "counts": report.counts, "executions": executions}))
    else:
        for line in lines_of(report.misfits):
            say(plain(line))
        say(words_of(report.counts))
    return OK if report.fits else PARKED


def registry_of(modules: Sequence[str]) -> Registry:
    """The workflows of several modules. Raises InvalidUse, also for a module that has none."""
    registry = Registry()
    for place in modules:
        found = workflows_in(load(place))
        if not found:
            raise InvalidUse(f"{place} has no workflow; give the modules that define or import them")
        registry.add(found)
    return registry


def verdict_json(verdict: Verdict) -> dict[str, Any]:
    """One verdict as plain data."""
    return {name: jsonable(getattr(verdict, name)) for name in FIELDS}


FIELDS = [field.name for field in attrs.fields(Verdict)]


def write(file: str, text: str) -> None:
    """Write a report or a picture, with mode 0600 where it is new. Raises InvalidUse when that cannot be."""
    try:
        with open(file, "w", encoding="utf-8", opener=private) as report:
            report.write(text)
    except OSError as error:
        raise InvalidUse(f"'{file}' cannot be written: {error.strerror}") from error


@contextmanager
def bar(what: str, total: int) -> Generator[Callable[[], None]]:
    """A progress bar on stderr where that is a terminal; gives what to call for each one that is through."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield lambda: progress.advance(task)
