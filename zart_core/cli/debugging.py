"""`zart debug`: go through a run event by event, forward and back, and look at its code and values.

Rule 1: nothing is claimed, run or written: a history is replayed, beside running workers if need be.
Rule 2: where stdin is no terminal its lines are commands, nothing is asked, and the first wrong one ends it.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from types import CodeType, FrameType
from typing import Any, TypeAlias

from rich.console import Console
from rich.text import Text

from zart_core.cli.checking import registry_of
from zart_core.cli.exits import OK, OutputGone, reason_of
from zart_core.cli.moments import (
    STYLES,
    Line,
    Names,
    branch_lines,
    event_line,
    lines_of,
    moment_json,
    place_of,
    raised_lines,
)
from zart_core.cli.reading import recorded
from zart_core.cli.texts import as_json, plain
from zart_core.errors import InvalidUse, UnknownWorkflow
from zart_core.events import Event, Issued, Started
from zart_core.insight.inspection import Inspection, Moment
from zart_core.workflows import Registry, Workflow

PROMPT = "(zart) "
EVENTS_SHOWN = 10
"""Events before and after the current one that `events` lists."""


def debug(
    id: str,
    modules: Sequence[str],
    url: str,
    run: int | None,
    at: str | None,
    hide: Collection[str],
    json: bool,
) -> int:
    """Show one moment, or let the person go through all of them."""
    registry = registry_of(modules)
    name, events = recorded(id, url, run)
    workflow = workflow_of(registry, events)
    with Inspection(workflow, events, hide=hide) as inspection:
        session = Session(inspection, Names(events, hide))
        if json:
            facts = moment_json(session.look(position(at or "last", len(events))), session.names)
            session.out(
                [(as_json({"id": name, "workflow": workflow.name, "events": len(events), **facts}), "")]
            )
        elif at is not None:
            session.go(position(at, len(events)))
        else:
            session.out(
                [(f"{plain(name)}: {len(events)} events of workflow '{plain(workflow.name)}'", "dim")]
            )
            session.go(len(events))
            session.talk(lines_of_stdin(), stops=not sys.stdin.isatty())
    return OK


def workflow_of(registry: Registry, events: Sequence[Event]) -> Workflow[Any, Any]:
    """The workflow of a history. Raises InvalidUse when it is not among those given."""
    first = events[0] if events else None
    if not isinstance(first, Started):
        raise InvalidUse("this run has no events so far: there is nothing to look at")
    if first.workflow in registry:
        try:
            return registry.of(first)
        except UnknownWorkflow as unknown:
            raise InvalidUse(str(unknown)) from None
    sites = [event.site.module for event in events if isinstance(event, Issued) and event.site is not None]
    where = f"; its commands stand in module '{sites[0]}'" if sites else ""
    known = ", ".join(sorted(workflow.name for workflow in registry)) or "none at all"
    raise InvalidUse(
        f"the run is of workflow '{first.workflow}', and what was given has {known}; "
        f"name the module or file that defines it, as in zart debug ID flows.py{where}"
    )


def position(text: str, last: int) -> int:
    """A position as it is typed: a number of events, first or last. Raises InvalidUse."""
    match text:
        case "first":
            return min(1, last)
        case "last":
            return last
        case _ if text.isdecimal() and int(text) <= last:
            return int(text)
        case _:
            raise InvalidUse(f"'{text}' is no moment of this run; give 0 to {last}, first or last")


def lines_of_stdin() -> Iterator[str]:
    """What is typed, with history and editing where a person types; else the lines of stdin."""
    if not sys.stdin.isatty():
        yield from sys.stdin
        return
    with contextlib.suppress(ImportError):
        importlib.import_module("readline")  # makes `input` remember and edit lines
    while True:
        try:
            yield input(PROMPT)
        except KeyboardInterrupt:
            print()  # noqa: T201  # the line is given up, as in a shell
        except EOFError:
            print()  # noqa: T201
            return


Command: TypeAlias = "Callable[[Session, str], None]"


class Session:
    """Somebody looks at a run, and stands at one of its moments."""

    def __init__(self, inspection: Inspection, names: Names) -> None:
        self.inspection = inspection
        self.names = names
        self.here = 0
        """The moment that is being looked at, as it was asked for."""
        self.ended = False
        self.console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)

    def talk(self, lines: Iterable[str], *, stops: bool) -> None:
        """Do what is typed. Raises InvalidUse at the first wrong command where `stops`; else says so and goes on."""
        for line in lines:
            try:
                self.do(line.strip())
            except InvalidUse as error:
                if stops:
                    raise
                self.out([(plain(str(error)), "bad")])
            if self.ended:
                return

    def do(self, line: str) -> None:
        """Do one command; an empty one is `next`."""
        if line.startswith("#"):
            return
        word, _, rest = line.partition(" ")
        found = [name for name in COMMANDS if name.startswith(word or "next")]
        if word in COMMANDS:
            found = [word]
        if len(found) != 1:
            like = f" ({', '.join(found)}?)" if found else ""
            raise InvalidUse(f"there is no command '{word}'{like}; help lists them")
        COMMANDS[found[0]][0](self, rest.strip())

    def look(self, k: int) -> Moment:
        """A moment; what the workflow's own code prints goes to stderr."""
        with contextlib.redirect_stdout(sys.stderr):
            return self.inspection.at(k)

    def out(self, lines: Iterable[Line]) -> None:
        """Print lines, in colour on a terminal. Raises OutputGone when nobody reads them."""
        try:
            for text, style in lines:
                if self.console.is_terminal:
                    self.console.print(Text(text, STYLES[style]))
                else:
                    print(text)  # noqa: T201  # this is a command
            sys.stdout.flush()
        except OSError as error:
            raise OutputGone(reason_of(error)) from error

    # ------------------------------------------------------------ the commands

    def go(self, k: int) -> None:
        """Go to a moment and show it."""
        moment = self.look(k)
        self.here = min(k, moment.position + (1 if moment.defect else 0), len(self.inspection))
        self.out(lines_of(moment, self.names, len(self.inspection)))

    def next(self, rest: str) -> None:
        """Go n events forward."""
        self.go(min(self.here + count(rest), len(self.inspection)))

    def back(self, rest: str) -> None:
        """Go n events back."""
        self.go(max(self.here - count(rest), 0))

    def to(self, rest: str) -> None:
        """Go to a moment by its number."""
        self.go(position(rest, len(self.inspection)))

    def first(self, rest: str) -> None:
        """Go to the first event."""
        self.go(position("first", len(self.inspection)))

    def last(self, rest: str) -> None:
        """Go to the last event."""
        self.go(len(self.inspection))

    def frames(self, rest: str) -> None:
        """Show all frames of all branches."""
        self.out(self.everything(whole=False))

    def locals(self, rest: str) -> None:
        """Show all frames with the whole values of their variables."""
        self.out(self.everything(whole=True))

    def everything(self, *, whole: bool) -> Iterator[Line]:
        """All branches and errors of the moment."""
        moment = self.look(self.here)
        for branch in moment.branches:
            yield from branch_lines(branch, whole=whole)
        for error in moment.raised:
            yield from raised_lines(error, whole=whole)

    def where(self, rest: str) -> None:
        """Show one line for each frame."""
        moment = self.look(self.here)
        self.out(
            (plain(f"{frame.function}, {place_of(frame)}: {frame.source}"), "") for frame in moment.frames
        )

    def events(self, rest: str) -> None:
        """List the events around this one, or all."""
        events, last = self.inspection.events, len(self.inspection)
        low, high = (1, last) if rest == "all" else (self.here - EVENTS_SHOWN, self.here + EVENTS_SHOWN)
        for number in range(max(1, low), min(last, high) + 1):
            mark = ">" if number == self.here else " "
            style = "here" if number == self.here else ""
            self.out([(f"{mark} {number:>5}  {event_line(events[number - 1], self.names)}", style)])

    def bisect(self, rest: str) -> None:
        """Go to the first moment at which a Python expression over locals is true in any frame."""
        expression = Expression(rest)
        with contextlib.redirect_stdout(sys.stderr):
            found = self.inspection.first(expression.holds)
        if found is None:
            raise InvalidUse(f"'{rest}' is true at no moment{expression.doubt}")
        self.go(found)

    def find(self, rest: str) -> None:
        """Go to the next event about a command or event whose name contains a text."""
        if not rest:
            raise InvalidUse("find what? give a part of a step's or an event's name, as in: find charge")
        events = self.inspection.events
        for number in [*range(self.here + 1, len(events) + 1), *range(1, self.here + 1)]:
            if rest in self.names.of(events[number - 1]):
                self.go(number)
                return
        raise InvalidUse(f"no event is about '{rest}'; events all lists them")

    def help(self, rest: str) -> None:
        """Show this."""
        self.out((f"  {usage:<12}{what}", "") for name, (_, usage, what) in COMMANDS.items() if name)

    def quit(self, rest: str) -> None:
        """Leave."""
        self.ended = True


COMMANDS: dict[str, tuple[Command, str, str]] = {
    "next": (Session.next, "next [N]", "go N events forward, 1 by default; so does an empty line"),
    "back": (Session.back, "back [N]", "go N events back"),
    "to": (Session.to, "to K", "go to the moment after the first K events; first and last will do, too"),
    "first": (Session.first, "first", "go to the first event"),
    "last": (Session.last, "last", "go to the last event"),
    "frames": (Session.frames, "frames", "all frames of all branches: source and locals"),
    "locals": (Session.locals, "locals", "the same with whole values"),
    "where": (Session.where, "where", "one line for each frame"),
    "events": (Session.events, "events [all]", "the events around this one, or all of them"),
    "find": (Session.find, "find NAME", "go to the next event about a step or event of this name"),
    "bisect": (
        Session.bisect,
        "bisect EXPR",
        "go to the first moment at which this Python expression over locals is true: bisect total > 100",
    ),
    "help": (Session.help, "help", "this list; a beginning of a word is enough"),
    "quit": (Session.quit, "quit", "leave; so does the end of the input"),
}


def count(text: str) -> int:
    """How many, 1 by default. Raises InvalidUse."""
    if not text:
        return 1
    if not text.isdecimal():
        raise InvalidUse(f"'{text}' is no number of events")
    return int(text)


class Expression:
    """What a person typed at their own terminal, evaluated over the locals of frames."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.error: Exception | None = None
        try:
            self.code: CodeType = compile(text, "<expression>", "eval")
        except (SyntaxError, ValueError) as error:
            raise InvalidUse(f"'{text}' is no Python expression: {error}; try: bisect total > 100") from None

    def holds(self, frame: FrameType) -> bool:
        """Whether it is true in a frame; not where it names what the frame does not have."""
        try:
            return bool(eval(self.code, frame.f_globals, frame.f_locals))  # noqa: S307  # it is the user's own
        except Exception as error:  # noqa: BLE001  # of the user's expression
            self.error = error
            return False

    @property
    def doubt(self) -> str:
        """What was in the way, if anything."""
        return "" if self.error is None else f"; last it raised {type(self.error).__name__}: {self.error}"
