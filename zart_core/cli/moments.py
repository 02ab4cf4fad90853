"""A moment of a run as lines for people and as JSON: the event, the code, the locals and what changed.

Rule 1: what is to be hidden is, in locals and in payloads of events alike; what comes from data is escaped.
"""

from __future__ import annotations

import json
import linecache
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from zart_core.cli.show import event_json
from zart_core.cli.texts import as_json, at, jsonable, plain, shortened
from zart_core.events import Began, Event, Issued, Resolved, Retried
from zart_core.hosts.explain import moment as instant
from zart_core.insight.frames import Frame, Local, OpenBranch, Raised
from zart_core.insight.inspection import Moment
from zart_core.insight.sources import without_own
from zart_core.insight.values import HIDDEN

Line: TypeAlias = tuple[str, str]
"""Escaped text, and its style: one of STYLES."""
STYLES = {
    "": "",
    "head": "bold",
    "here": "bold cyan",
    "new": "green",
    "changed": "yellow",
    "bad": "red",
    "dim": "dim",
}
MARKS = {"same": " ", "new": "+", "changed": "*"}
AROUND = 2
"""Lines of source before and after the current one."""
BRANCHES_MAX = 6
"""Branches that a moment shows in full; `frames` shows all."""
VALUE_CHARS_MAX = 160
ASKS_MAX = 5


class Names:
    """The names of a run's commands by number, and what of the events is to be hidden."""

    def __init__(self, events: Sequence[Event], hide: Collection[str]) -> None:
        self.by_seq = {event.seq: event.name for event in events if isinstance(event, Issued)}
        self.hide = frozenset(hide)
        self.texts: set[str] = set()
        """What errors say that hold what is to be hidden: others repeat it."""
        for event in events if hide else ():
            self.learn(event)

    def learn(self, event: Event) -> None:
        """Take note of what an event's failure says, where that is to be hidden."""
        facts = event_json(event)
        outcome: dict[str, Any] = facts.get("outcome") or {}
        failure = facts.get("failure") or outcome.get("failure")
        for one in failures_in(failure):
            if self.is_hidden(event, facts) or holds_hidden(one["fields"], self.hide):
                self.texts |= {one["message"]} - {""}

    def is_hidden(self, event: Event, facts: dict[str, Any]) -> bool:
        """Whether all that an event holds is to be hidden, by the name of its command or event."""
        return bool({self.of(event), str(facts.get("of", ""))} & self.hide)

    def of(self, event: Event) -> str:
        """The name of the command that an event is about; that of a delivery's event; or empty."""
        match event:
            case Issued(name=name):
                return name
            case Began(seq=seq) | Retried(seq=seq) | Resolved(seq=seq):
                return self.by_seq.get(seq, "")
            case _:
                return str(getattr(event, "event", ""))

    def facts(self, event: Event) -> dict[str, Any]:
        """An event as plain data. What has no name of its own is hidden with the rest: arguments, results."""
        facts = event_json(event)
        if self.hide:
            whole = self.is_hidden(event, facts)
            for place in (facts, facts.get("outcome") or {}):
                if place.get("payload") is not None:
                    named = isinstance(place["payload"], dict) and not whole
                    place["payload"] = without(place["payload"], self.hide) if named else HIDDEN
                if place.get("failure") is not None and (whole or self.tells(place["failure"])):
                    place["failure"] = silenced(place["failure"])
        return facts

    def tells(self, failure: dict[str, Any]) -> bool:
        """Whether a failure, or what caused it, holds what is to be hidden, or repeats what an error says that does."""
        return any(
            holds_hidden(one["fields"], self.hide) or any(text in one["message"] for text in self.texts)
            for one in failures_in(failure)
        )


def without(value: Any, hide: Collection[str]) -> Any:
    """Plain data in which the values of some keys are hidden."""
    match value:
        case dict():
            return {key: HIDDEN if key in hide else without(item, hide) for key, item in pairs(value)}
        case list():
            return [without(item, hide) for item in items(value)]
        case _:
            return value


def silenced(failure: dict[str, Any]) -> dict[str, Any]:
    """A failure as plain data without its texts and fields, nor those of what caused it."""
    cause = None if failure["cause"] is None else silenced(failure["cause"])
    return {**failure, "message": HIDDEN, "traceback": HIDDEN, "fields": HIDDEN, "cause": cause}


def holds_hidden(fields: str | None, hide: Collection[str]) -> bool:
    """Whether the fields of an error, which are JSON in JSON, have one of these names."""
    try:
        data = json.loads(fields or "null")
    except (ValueError, RecursionError):
        return False
    return bool(without(data, hide) != data)


def failures_in(failure: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    """A failure as plain data, and what caused it."""
    while failure is not None:
        yield failure
        failure = failure["cause"]


def pairs(value: Any) -> Iterator[tuple[str, Any]]:
    """The items of a JSON object."""
    yield from value.items()


def items(value: Any) -> Iterator[Any]:
    """The items of a JSON array."""
    yield from value


# ---------------------------------------------------------------- for people


def lines_of(moment: Moment, names: Names, total: int) -> Iterator[Line]:
    """What one sees at a moment."""
    yield from head_of(moment, names, total)
    changed = [branch for branch in moment.branches[1:] if has_changed(branch.frames)]
    others = [branch for branch in moment.branches[1:] if not has_changed(branch.frames)]
    told = [*moment.branches[:1], *(changed + others)[: BRANCHES_MAX - 1]]
    for branch in told:
        yield from branch_lines(branch, alone=len(moment.branches) == 1)
    if len(moment.branches) > len(told):
        yield f"  and {len(moment.branches) - len(told):,} more branches: frames shows them all", "dim"
    for error in moment.raised:
        yield from raised_lines(error)
    for text in moment.lines:
        yield f"  logged: {plain(text)}", "dim"
    if moment.asks and not moment.defect:
        more = f" and {len(moment.asks) - ASKS_MAX:,} more" if len(moment.asks) > ASKS_MAX else ""
        yield f"  asks next for {plain(', '.join(moment.asks[:ASKS_MAX]))}{more}", "dim"
    for line in moment.defect.splitlines():
        yield f"  {plain(line)}", "bad"


def head_of(moment: Moment, names: Names, total: int) -> Iterator[Line]:
    """The event, and how it left the run."""
    count = f"moment {moment.position} of {total}"
    if moment.event is None:
        yield f"{count}: nothing has happened so far", "head"
        return
    refused = ", which the code does not go along with" if moment.defect and moment.position < total else ""
    yield f"{count}, {instant(moment.at)}, {moment.status}", "head"
    yield f"  {event_line(moment.event, names)}{refused}", "bad" if refused else ""
    for traceback in tracebacks_of(moment.event, names):
        yield from text_lines(traceback)


def event_line(event: Event, names: Names) -> str:
    """An event in one line."""
    facts = names.facts(event)
    for field in ("type", "at", "seq", "name"):
        facts.pop(field, None)
    if "outcome" in facts:
        facts.update(facts.pop("outcome"))
    if facts.get("failure"):
        facts["failure"] = f"{facts['failure']['type']}: {facts['failure']['message']}"
    if facts.get("site"):
        site = facts["site"]
        facts["site"] = f"{site['module']}.{site['qualname']}, line +{site['line']}"
    given = {key: value for key, value in facts.items() if value not in (None, False, "")}
    words = "  ".join(f"{key}={said(value)}" for key, value in given.items())
    name = names.of(event)
    return plain(f"{type(event).__name__} {repr(name) + '  ' if name else ''}{words}".rstrip())


def said(value: Any) -> str:
    """A field's value as short text."""
    return shortened(value if isinstance(value, str) else as_json(value), VALUE_CHARS_MAX)


def text_lines(text: str) -> Iterator[Line]:
    """A recorded traceback, without Zart's own frames."""
    for line in without_own(text):
        yield f"    {plain(line)}", "dim"


def tracebacks_of(event: Event, names: Names) -> Iterator[str]:
    """The tracebacks of the failure that an event holds, and of what caused it."""
    if isinstance(event, Resolved | Retried):
        facts = names.facts(event)
        failure = facts.get("failure") or facts.get("outcome", {}).get("failure")
        yield from (one["traceback"] for one in failures_in(failure))


def has_changed(frames: Sequence[Frame]) -> bool:
    """Whether a frame is new or has locals that changed."""
    return any(frame.new or any(local.state != "same" for local in frame.locals) for frame in frames)


def branch_lines(branch: OpenBranch, *, alone: bool = False, whole: bool = False) -> Iterator[Line]:
    """A branch: what it waits for, and its frames."""
    yield f"  {'' if alone else f'flow {plain(branch.name)} '}{plain(branch.state)}", "head"
    if not branch.frames and branch.started_at is not None:
        yield f"    started at {plain(str(branch.started_at))}", "dim"
    for frame in branch.frames:
        yield from frame_lines(frame, around=frame is branch.frames[-1], whole=whole)


def raised_lines(error: Raised, *, whole: bool = False) -> Iterator[Line]:
    """An error, and the frames it came through."""
    yield f"  raised {plain(error.error)}", "bad"
    yield from text_lines(error.traceback)
    for frame in error.frames:
        yield from frame_lines(frame, around=frame is error.frames[-1], whole=whole)


def frame_lines(frame: Frame, *, around: bool, whole: bool = False) -> Iterator[Line]:
    """A frame: where it stands, the source around, its locals."""
    yield f"    {plain(frame.function)}, {plain(place_of(frame))}", "new" if frame.new else ""
    source = linecache.getlines(frame.file)
    reach = AROUND if around else 0
    for number in range(max(1, frame.line - reach), min(len(source), frame.line + reach) + 1):
        here = number == frame.line
        text = plain(source[number - 1].rstrip().expandtabs(4))
        yield f"    {'>' if here else ' '} {number:>5}  {text}", "here" if here else "dim"
    for local in frame.locals:
        yield local_line(local, whole=whole), "" if local.state == "same" else local.state


def local_line(local: Local, *, whole: bool) -> str:
    """A variable, marked when it is new or has changed."""
    limit = len(local.text) if whole else VALUE_CHARS_MAX
    was = f"   (was {shortened(local.before, VALUE_CHARS_MAX)})" if local.state == "changed" else ""
    return f"        {MARKS[local.state]} {local.name} = {shortened(local.text, limit)}{was}"


def place_of(frame: Frame) -> str:
    """File and line, from here where the file is below."""
    path = Path(frame.file)
    here = Path.cwd()
    return f"{path.relative_to(here) if path.is_relative_to(here) else path}:{frame.line}"


# ---------------------------------------------------------------- for programs


def moment_json(moment: Moment, names: Names) -> Mapping[str, Any]:
    """A moment as plain data."""
    return {
        "position": moment.position,
        "at": at(moment.at) if moment.event is not None else None,
        "status": str(moment.status),
        "event": None if moment.event is None else names.facts(moment.event),
        "branches": jsonable(moment.branches),
        "raised": jsonable(moment.raised),
        "pending": [names.facts(issued) for issued in moment.pending],
        "asks": list(moment.asks),
        "lines": list(moment.lines),
        "defect": moment.defect,
    }
