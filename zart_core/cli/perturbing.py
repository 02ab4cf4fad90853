"""`zart perturb`: replay histories in processes with another clock, other chance, another hash seed and so on.

Rule 1: read-only: histories are read from a log or from files, and replayed without a step being run.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import attrs

from zart_core.cli.checking import registry_of
from zart_core.cli.exits import OK, PARKED
from zart_core.cli.reading import events_of, opened, summary_of
from zart_core.cli.texts import as_json, jsonable, plain, say
from zart_core.deploys.histories import read_history
from zart_core.errors import InvalidUse
from zart_core.events import Event
from zart_core.hosts.offers import page_of
from zart_core.log import EventLog, Summary
from zart_core.testing.perturbation import KINDS, PerturbedReport, counted, perturbed_in, summed_up
from zart_core.workflows import Registry

PAGE = 200
EVENTS_MAX = 50_000
"""How many events go to one set of processes, to bound their memory."""
Run: TypeAlias = tuple[tuple[str, int], Sequence[Event]]
"""Execution id and run number, and the events."""


def perturb(
    targets: Sequence[str],
    url: str,
    ids: Sequence[str],
    files: Sequence[str],
    rounds: int,
    kinds: Sequence[str] | None,
    json: bool,
) -> int:
    """Replay what is asked for, and print what does not come out the same."""
    registered = names_of(registry_of(targets))
    places = [place(target) for target in targets]
    report = PerturbedReport(0, 0, rounds, (), ())
    others: Counter[str] = Counter()
    with contextlib.ExitStack() as stack:
        if files:
            found = recorded(files)
        else:
            log = stack.enter_context(opened(url))
            found = stored(log, (summary_of(log, id) for id in ids) if ids else of(registered, log, others))
        for batch in batches(found):
            report = joined(report, perturbed_in(dict(batch), places, rounds=rounds, kinds=kinds or KINDS))
    if others and not report.histories:
        raise InvalidUse(
            f"the store has no execution of {', '.join(sorted(registered))}, but of {', '.join(sorted(others))}; "
            "give the modules that have these"
        )
    show(report, others, json)
    return PARKED if report.differences or report.misfits else OK


def place(target: str) -> dict[str, str]:
    """Where another process finds a module that is given by dotted path or file."""
    is_file = target.endswith(".py") or "/" in target
    file = str(Path(target).resolve()) if is_file else ""
    return {"module": "" if is_file else target, "file": file, "qualname": ""}


def recorded(places: Sequence[str]) -> Iterator[Run]:
    """The events of every run in files that `zart export` wrote, and in all such files of folders."""
    seen: set[str] = set()
    for place in map(Path, places):
        for path in sorted(place.glob("*.json")) if place.is_dir() else [place]:
            history = read_history(path)
            if history.scrubbed:
                raise InvalidUse(f"'{path}' was scrubbed, so its arguments are no longer what the code gives")
            if history.id in seen:
                raise InvalidUse(f"'{path}' holds execution '{history.id}', which another file holds, too")
            seen.add(history.id)
            yield from (((history.id, run), events) for run, events in enumerate(history.runs))


def names_of(registry: Registry) -> frozenset[str]:
    """The names of the workflows, in whatever version."""
    return frozenset(workflow.name for workflow in registry.everything())


def of(registered: frozenset[str], log: EventLog, others: Counter[str]) -> Iterator[Summary]:
    """Every execution of these workflows, in the order of their ids; those of others are counted."""
    for summary in all_of(log):
        if summary.workflow in registered:
            yield summary
        else:
            others[summary.workflow] += 1


def stored(log: EventLog, summaries: Iterable[Summary]) -> Iterator[Run]:
    """The events of every run of these executions."""
    for summary in summaries:
        for run in range(summary.run + 1):
            yield (summary.id, run), events_of(log, summary.id, run)


def all_of(log: EventLog) -> Iterator[Summary]:
    """Every execution, in the order of their ids."""
    after = None
    while True:
        page = page_of(log, limit=PAGE, after=after)
        yield from page.items
        after = page.next
        if after is None:
            return


def batches(runs: Iterable[Run]) -> Iterator[list[Run]]:
    """Histories in lists of a bounded number of events."""
    batch: list[Run] = []
    events = 0
    for each in runs:
        batch.append(each)
        events += len(each[1])
        if events >= EVENTS_MAX:
            yield batch
            batch, events = [], 0
    if batch:
        yield batch


def joined(one: PerturbedReport, other: PerturbedReport) -> PerturbedReport:
    """Two reports as one."""
    return PerturbedReport(
        one.histories + other.histories,
        one.events + other.events,
        one.rounds,
        (*one.differences, *other.differences),
        (*one.misfits, *other.misfits),
    )


def show(report: PerturbedReport, others: Counter[str], json: bool) -> None:
    """Print a report, and how many executions of which other workflows were left out, for people or for programs."""
    if json:
        fields = {
            field.name: jsonable(getattr(report, field.name)) for field in attrs.fields(PerturbedReport)
        }
        say(as_json({**fields, "left_out": dict(others)}))
        return
    for each in (*report.differences, *report.misfits):
        for line in str(each).splitlines():
            say(plain(line))
    say(summed_up(report))
    for workflow, number in sorted(others.items()):
        say(
            plain(
                f"left out, since none of the modules has workflow '{workflow}': {counted(number, 'execution')}"
            )
        )
