"""How `zart run` shows what goes on: a live view where a person watches, plain lines in a pipe.

Rule 1: a view gets `show(progress, notes)` again and again, and shows the last state when it is closed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from zart_core.cli.exits import OutputGone, reason_of
from zart_core.cli.progress import Note, Progress
from zart_core.cli.texts import duration, plain, shortened
from zart_core.hosts.explain import StepLine, moment
from zart_core.hosts.progress import Progress as Said
from zart_core.insight.explaining import words_of_progress

ROWS_MAX = 8
"""Commands that the live view names, of each kind."""
NOTES_MAX = 4
"""Last things of note below them."""
BAR_CHARS = 24
BURST = 5
"""Steps done between two looks that are told one by one; more are told as one line a second."""
SILENT_S = 2.0
"""After so long a running step gets a line of its own in a pipe."""


class View(Protocol):
    """Something that shows progress."""

    def __enter__(self) -> View: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def show(self, progress: Progress, notes: Sequence[Note], *, last: bool = False) -> None:
        """Show where it stands, and what has happened since the last look."""
        ...


def view_on(stream: TextIO) -> View:
    """Give the view that fits the stream."""
    return Drawn(stream) if stream.isatty() else Lines(stream)


class Lines:
    """One line for each thing of note, flushed; bursts of steps are told together."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.routine: list[Note] = []
        self.quiet_until = 0.0
        self.told: set[int] = set()
        self.opened_at = time.time()

    def __enter__(self) -> Lines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def show(self, progress: Progress, notes: Sequence[Note], *, last: bool = False) -> None:
        """Print what is new."""
        now = time.monotonic()
        if any(not note.routine for note in notes) and self.routine:
            self.tell_routine(progress)
        for note in notes:
            if note.routine:
                self.routine.append(note)
            else:
                self.tell_routine(progress)
                self.print(note.at, note.text)
        if self.routine and (last or now >= self.quiet_until):
            self.quiet_until = now + 1.0 if len(self.routine) > BURST else 0.0
            self.tell_routine(progress)
        self.tell_running(progress)

    def tell_routine(self, progress: Progress) -> None:
        """Tell steps that are done one by one, or as one line where there are many."""
        if len(self.routine) > BURST:
            self.print(self.routine[-1].at, f"{len(self.routine)} steps done; {counted(progress)}")
        else:
            for note in self.routine:
                self.print(note.at, note.text)
        self.routine.clear()

    def tell_running(self, progress: Progress) -> None:
        """Tell which step has been running for a while."""
        now = time.time()
        for line in progress.running(now)[:BURST]:
            if line.seq not in self.told and now - max(since(line), self.opened_at) > SILENT_S:
                self.told.add(line.seq)
                self.print(now, f"step '{line.name}' runs, attempt {attempt(line, now)}")

    def print(self, at: float, text: str) -> None:
        """Print one escaped line. Raises OutputGone when nobody reads it."""
        try:
            print(f"{moment(at)} {plain(text)}", file=self.stream, flush=True)  # this is a command
        except OSError as error:
            raise OutputGone(reason_of(error)) from error


class Drawn:
    """A picture that is drawn again and again: counts, what runs, what waits, and the last things of note."""

    def __init__(self, stream: TextIO) -> None:
        self.console = Console(file=stream, highlight=False, markup=False, emoji=False)
        self.live = Live(console=self.console, auto_refresh=False)
        self.notes: list[Note] = []

    def __enter__(self) -> Drawn:
        self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.live.stop()

    def show(self, progress: Progress, notes: Sequence[Note], *, last: bool = False) -> None:
        """Draw where it stands."""
        self.notes = [*self.notes, *(note for note in notes if not note.routine)][-NOTES_MAX:]
        self.live.update(picture(progress, self.notes, time.time()), refresh=True)


def picture(progress: Progress, notes: Sequence[Note], now: float) -> Group:
    """Draw an execution at an instant."""
    running, waiting = progress.running(now), progress.waiting(now)
    end = progress.closed.at if progress.closed is not None else now
    elapsed = duration(end - (progress.started_at or end))
    status = (
        str(progress.closed.status) if progress.closed is not None else "running" if running else "waiting"
    )
    color = {"completed": "green", "running": "cyan", "waiting": "yellow"}.get(status, "red")
    head = Text.assemble(
        (plain(progress.id), "bold"), f"  {plain(progress.workflow)}  ", (status, color), f"  {elapsed}"
    )
    named = [line for line in waiting if line.kind != "step" or line.state != "waiting"]
    rows = [head, Text(f"  {bar(progress)} {counted(progress)}")]
    rows += [
        Text(f"  > {running_words(line, now, progress.said.get(line.seq))}", "cyan")
        for line in running[:ROWS_MAX]
    ]
    rows += [Text(f"  . {waiting_words(line, now)}", "yellow") for line in named[:ROWS_MAX]]
    more = len(running) + len(waiting) - min(len(running), ROWS_MAX) - min(len(named), ROWS_MAX)
    rows += [Text(f"    and {more:,} more", "dim")] if more else []
    rows += [Text(f"  {moment(note.at)[11:19]} {plain(note.text)}", "dim") for note in notes]
    for row in rows:
        row.no_wrap, row.overflow = True, "ellipsis"
    return Group(*rows)


def bar(progress: Progress) -> str:
    """Draw the part of the steps known so far that is through."""
    ended = sum(progress.counts[state] for state in ("done", "failed", "cancelled"))
    known = ended + sum(line.kind == "step" for line in progress.lines.values())
    width = BAR_CHARS * ended // known if known else 0
    return "━" * width + "┄" * (BAR_CHARS - width)


def counted(progress: Progress) -> str:
    """Count steps by what they came to, and what goes on."""
    now, counts = time.time(), progress.counts
    parts = [
        f"{counts['done']:,} done",
        f"{len(progress.running(now)):,} running",
        f"{len(progress.waiting(now)):,} waiting",
    ]
    parts += [f"{counts[key]:,} {key}" for key in ("failed", "cancelled", "retries") if counts[key]]
    return ", ".join(parts)


def running_words(line: StepLine, now: float, said: Said | None) -> str:
    """Say which step runs, since when, and what it said last of its progress."""
    tries = attempt(line, now)
    last = "" if said is None else f"  {words_of_progress(said, now)}"
    return plain(
        f"{line.name}{f' (attempt {tries})' if tries > 1 else ''}  {duration(now - since(line))}{last}"
    )


def waiting_words(line: StepLine, now: float) -> str:
    """Say what a command waits for, and how long still."""
    left = "" if line.until is None else f"  {duration(line.until - now)} left"
    match line.kind:
        case "event":
            what = f"event '{line.event}'"
        case "child":
            what = f"execution '{line.event}'"
        case "step" if line.state == "retrying":
            what = f"{line.name} (attempt {line.attempts + 1}, after {shortened(line.error, 80)})"
        case "step" if line.state == "queued":
            what = f"{line.name} (room in queue '{line.event}')"
        case "step" if line.state == "running":
            what = f"{line.name} (interrupted; to begin again)"
        case _:
            what = line.name
    return plain(f"{what}{left}")


def since(line: StepLine) -> float:
    """Tell when the attempt that runs began: a retry when it was due."""
    return line.until or line.issued_at if line.state == "retrying" else line.began_at or line.issued_at


def attempt(line: StepLine, now: float) -> int:
    """Give the number of the attempt that runs, from 1."""
    return line.attempts + 1 if line.state == "retrying" else max(line.attempts, 1)


def stream_for(json: bool) -> TextIO:
    """Give the stream of the view: stdout, or stderr where stdout is for a program."""
    return sys.stderr if json else sys.stdout
