"""`zart doctor`: what a store promises on this machine, whether it can keep it, and why not.

Rule 1: nothing of the store is changed, beyond what opening it changes; there need not be a store yet.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from zart_core.cli.doctor_machine import Finding, clock, examine
from zart_core.cli.exits import OK, STORE
from zart_core.cli.texts import as_json, columns, say
from zart_core.errors import InvalidUse, LogCorrupt, StoreFailed, Weather, ZartError
from zart_core.hosts.ports import missing, opener_of
from zart_core.log import EventLog, Examinable, Level
from zart_core.records import record
from zart_core.testing.power import PowerLossReport, check_power_loss
from zart_core.testing.probe import ProbeFailed
from zart_core.testing.tracing import TracingFailed

CONTROL_STATES = 200
SURVIVES: dict[Level, str] = {
    "power": "what is acknowledged survives a loss of power",
    "process": "what is acknowledged survives the death of its process, and not a loss of power",
    "none": "nothing survives the process",
}


@attrs.define
class Examination:
    """All that was found."""

    store: str
    directory: Path | None
    level: Level | None = None
    settings: Mapping[str, str | int] = attrs.Factory(dict[str, str | int])
    findings: list[Finding] = attrs.Factory(list[Finding])
    power_loss: PowerLossReport | None = None

    @property
    def holds(self) -> bool:
        """True when nothing is bad, and all that was asked for has been looked at."""
        return all(finding.state not in ("bad", "unchecked") for finding in self.findings)


@record
class Site:
    """Where a store is, or would be; behind symbolic links."""

    scheme: str
    path: Path | None
    """None for a store that is in no file."""
    directory: Path | None


def doctor(url: str, directory: Path | None, power_loss: bool, states: int, json: bool) -> int:
    """Examine a store and its machine; print what was found, and give the exit code."""
    site = site_of(url, directory)
    shown = f"{site.scheme}:..." if "//" in url and site.path is None else url  # it may hold a password
    found = Examination(shown, site.directory)
    found.findings += look_at_store(found, url, site)
    if site.directory is not None:
        found.findings += look_at_machine(site.directory)
    found.findings.append(clock(site.path))
    if power_loss:
        found.findings.append(lose_power(found, site, states, json))
    say(as_json(plainly(found))) if json else show(found)
    return OK if found.holds else STORE


def site_of(url: str, directory: Path | None) -> Site:
    """Find out where a store is. Raises InvalidUse for a directory that is not there, UnknownStore."""
    if not url:
        raise InvalidUse("no store is given; name one, such as sqlite:orders.db, or set ZART_STORE")
    opener_of(url)
    scheme, _, rest = url.partition(":")
    rest = rest.removeprefix("//") if scheme == "file" and rest.startswith("///") else rest
    path = Path(os.path.realpath(rest)) if rest and not rest.startswith("//") else None
    if path is not None and not path.parent.is_dir():
        if directory is None and scheme in ("file", "sqlite"):
            raise InvalidUse(f"there is no directory '{path.parent}'; make it first")
        path = None
    if directory is None and path is not None:
        directory = path if path.is_dir() and path.is_mount() else path.parent
    if directory is not None and not directory.is_dir():
        raise InvalidUse(f"there is no directory '{directory}'; --directory names one that is there")
    return Site(scheme, path, directory)


def look_at_store(found: Examination, url: str, site: Site) -> Iterator[Finding]:
    """Open the store, or one like it where there is none yet, and ask it for its level and settings."""
    with contextlib.ExitStack() as stack:
        there = site.path is None or (site.path.exists() and not missing(f"{site.scheme}:{site.path}"))
        if not there:
            scratch = stack.enter_context(
                tempfile.TemporaryDirectory(prefix="zart-doctor-", dir=site.directory)
            )
            url = f"{site.scheme}:{scratch}/log"
        try:
            log = stack.enter_context(contextlib.closing(opener_of(url)(url, "power")))
        except (Weather, StoreFailed, LogCorrupt) as error:
            yield Finding("store", "bad", f"it does not open: {error}")
            return
        yield Finding("store", "good", "it opens" if there else "there is none yet; one like it opens here")
        found.level = log.level
        if isinstance(log, Examinable):
            found.settings = log.settings()
        yield level_of(log)


def level_of(log: EventLog) -> Finding:
    """Judge what an acknowledgement survives."""
    found = f"{log.level}: {SURVIVES[log.level]}"
    if log.level == "power":
        return Finding("level", "good", found)
    return Finding("level", "doubtful", found, "open it with durability='power'" if log.level == "process" else
                   "use file: or sqlite: for what matters")  # fmt: skip


def look_at_machine(directory: Path) -> list[Finding]:
    """Try what the disk of a directory is good for. Raises InvalidUse when nothing can be written there."""
    try:
        with tempfile.TemporaryDirectory(prefix="zart-doctor-", dir=directory) as scratch:
            return list(examine(directory, Path(scratch)))
    except OSError as error:
        raise InvalidUse(
            f"nothing can be written to '{directory}': {error.strerror}; --directory names another"
        ) from error


def lose_power(found: Examination, site: Site, states: int, json: bool) -> Finding:
    """Record the store's system calls in its directory, and lose power at each; then once more without syncs."""
    name = "power loss"
    if site.directory is None:
        return Finding(name, "unchecked", "the store is in no directory", "name one with --directory")
    if found.level == "none":
        return Finding(name, "unchecked", "the store promises nothing")

    def told(report: PowerLossReport) -> None:
        if not json:
            say(f"... {report.states:,} of {states:,} states tried, {report.lost:,} lost")

    try:
        report = check_power_loss(site.scheme, site.directory, states=states, progress=told)
        found.power_loss = report
        control = without_syncs(site.scheme, site.directory)
    except (TracingFailed, ProbeFailed, OSError) as failed:
        return Finding(name, "unchecked", str(failed))
    figures = f"{report.states:,} states tried, {report.lost:,} lost; {control}"
    if report.lost:
        return Finding(
            name, "bad", f"{figures}; the first: {report.losses[0].what}", "do not trust it with what matters"
        )
    return Finding(name, "good", figures)


def without_syncs(scheme: str, directory: Path) -> str:
    """Do the same to the store at level process, which has to lose, else the check could not see a loss."""
    try:
        report = check_power_loss(scheme, directory, states=CONTROL_STATES, sessions=1, durability="process")
    except ZartError as none:
        return f"a control without syncs could not be had ({none})"
    if not report.lost:
        raise TracingFailed("without syncs nothing was lost either, so the check sees nothing here")
    return f"without syncs {report.lost:,} of {report.states:,} are"


def verdict_of(found: Examination) -> str:
    """Say in one line what it comes to."""
    bad = [finding.name for finding in found.findings if finding.state == "bad"]
    doubtful = [it.name for it in found.findings if it.state == "doubtful" and it.name != "level"]
    if bad:
        return f"the store cannot keep its promise here: {', '.join(bad)}"
    unchecked = [finding.name for finding in found.findings if finding.state == "unchecked"]
    if unchecked:
        return f"it is not known what the store keeps here; not checked: {', '.join(unchecked)}"
    assert found.level is not None
    promise = SURVIVES[found.level]
    return f"{promise}, with a doubt: {', '.join(doubtful)}" if doubtful else promise


def plainly(found: Examination) -> dict[str, Any]:
    """Give everything as plain data."""
    return {
        "store": found.store,
        "directory": None if found.directory is None else str(found.directory),
        "ok": found.holds,
        "verdict": verdict_of(found),
        "level": found.level,
        "settings": dict(found.settings),
        "findings": [attrs.asdict(finding) for finding in found.findings],
        "power_loss": None if found.power_loss is None else attrs.asdict(found.power_loss),
    }


def show(found: Examination) -> None:
    """Print what was found, a line each."""
    for line in columns(rows_of(found.findings)):
        say(line)
    if found.settings:
        say("settings: " + ", ".join(f"{name} {value}" for name, value in found.settings.items()))
    say(f"verdict: {verdict_of(found)}")


def rows_of(findings: Sequence[Finding]) -> Iterator[Sequence[str]]:
    """Give state, name, and what was found with the advice."""
    for finding in findings:
        advice = f" -> {finding.advice}" if finding.advice else ""
        yield finding.state, finding.name, finding.found + advice
