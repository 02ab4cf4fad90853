"""The frames of a run's generators, as data: functions, lines and locals, of what waits and of what has raised.

Rule 1: frames are read, never kept alive longer than the reading; values become text at once.
"""

# Values of users are of any type, and pyright takes what `isinstance` makes of Any for unknown.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

import linecache
from collections.abc import Collection, Iterator
from types import FrameType, GeneratorType
from typing import Any, Literal, TypeAlias, cast

import attrs

from zart_core.branches import OWN_CODE, Branch, Ending, Node, site_of
from zart_core.errors import Defect, StepFailed, text_of
from zart_core.events import Site
from zart_core.insight.values import HIDDEN, holds_any, shown
from zart_core.interpreter import Execution
from zart_core.records import record
from zart_core.waiting import Wait

FRAMES_MAX = 50
"""Innermost frames of one error that are shown, so that an endless recursion stays readable."""
ERRORS_MAX = 10
"""Errors of one group that are shown."""
WAITS_MAX = 5
"""Things that a branch waits for that are named."""

State: TypeAlias = Literal["same", "new", "changed"]


@record
class Local:
    """One local variable of a frame."""

    name: str
    text: str
    """Its value, as one line of bounded, printable text."""
    state: State = "same"
    """How it compares with the moment one event before."""
    before: str = ""
    """What it was then, where it has changed."""


@record
class Frame:
    """One function of a run and where it stands."""

    function: str
    file: str
    line: int
    source: str
    """The line itself, as the file says it now; empty where there is no file."""
    locals: tuple[Local, ...]
    new: bool = False
    """Whether it was not there one event before."""


@record
class OpenBranch:
    """One generator that is beside the others, with all it delegates to. `frames` begins with the outermost."""

    name: str
    owner: int | None
    """Which of the moment's branches has started it; None for the root."""
    started_at: Site | None
    state: str
    """In words: what it waits for."""
    frames: tuple[Frame, ...]


@record
class Raised:
    """An error that left a flow, and the frames it came through, outermost first."""

    error: str
    frames: tuple[Frame, ...]
    traceback: str = ""
    """Where the step raised that it comes from, as the log has it: several lines."""


Key: TypeAlias = tuple[object, int, object]
"""Which frame it is: branch, depth, and generator; or number of the error, depth and code. Objects, not their ids,
which are given away again."""


@record
class Seen:
    """All frames at a moment, by key."""

    branches: tuple[tuple[OpenBranch, tuple[Key, ...]], ...]
    raised: tuple[tuple[Raised, tuple[Key, ...]], ...]


def look(execution: Execution, hide: Collection[str]) -> Seen:
    """Read every live generator of an execution, and the error that ends it, if any. Costs O(what is live)."""
    live = execution._branches.alive()
    numbers = {branch: number for number, branch in enumerate(live)}
    return Seen(
        branches=tuple(look_at_branch(branch, numbers, hide) for branch in live),
        raised=tuple(found for error in errors_of(execution) for found in look_at_error(error, hide)),
    )


def errors_of(execution: Execution) -> list[BaseException]:
    """What has left the root or made on_failure be called; what of the code's own parks the execution."""
    broken = execution.broken
    own = broken.__cause__ if isinstance(broken, Defect) else broken
    if own is not None and frames_of_error(own):
        return [own]
    root = execution._branches.root
    error = execution._handling or (root.node.error if root is not None and root.node.settled else None)
    return [] if error is None else [error]


def look_at_branch(
    branch: Branch, numbers: dict[Branch, int], hide: Collection[str]
) -> tuple[OpenBranch, tuple[Key, ...]]:
    """A branch and its frames, from the outside in."""
    owner = None if branch.owner is None else numbers.get(branch.owner)
    started_at = None if branch.owner is None else site_of(branch.node.where)
    frames: list[Frame] = []
    keys: list[Key] = []
    for depth, gen in enumerate(chain_of(branch.gen)):
        frame = gen.gi_frame
        if frame is not None:
            frames.append(read(frame, frame.f_lineno, hide))
            keys.append((branch, depth, gen))
    opened = OpenBranch(branch.node.name, owner, started_at, state_of(branch), tuple(frames))
    return opened, tuple(keys)


def chain_of(gen: GeneratorType[Any, Any, Any]) -> Iterator[GeneratorType[Any, Any, Any]]:
    """A generator and the flows that it delegates to, one in the other; Zart's own are left out."""
    inner: Any = gen
    while type(inner) is GeneratorType:
        if inner.gi_code not in OWN_CODE:
            yield inner
        inner = inner.gi_yieldfrom


def live_frames(execution: Execution) -> Iterator[FrameType]:
    """The frame objects of all that is live, and of the error that ends the run or parks it."""
    for branch in execution._branches.alive():
        yield from (gen.gi_frame for gen in chain_of(branch.gen) if gen.gi_frame is not None)
    for error in errors_of(execution):
        yield from (frame for one in errors_in(error) for frame, _ in frames_of_error(one))


def read(frame: FrameType, line: int, hide: Collection[str]) -> Frame:
    """A frame as data."""
    code = frame.f_code
    locals = tuple(
        Local(name, HIDDEN if name in hide else shown(value, hide))
        for name, value in frame.f_locals.items()
        if name.isidentifier()  # what a comprehension goes over is none
    )
    source = linecache.getline(code.co_filename, line, frame.f_globals).strip()
    return Frame(code.co_qualname, code.co_filename, line, source, locals)


def state_of(branch: Branch) -> str:
    """What a branch waits for, in words."""
    wait = branch.wait
    match wait:
        case _ if branch.resume is not None:
            return "goes on"
        case None:
            return "has ended"
        case Node():
            return f"waits for {wait.title}"
        case Wait():
            nodes = cast("list[Node]", wait.nodes)
            open_nodes = list(dict.fromkeys(node for node in nodes if not node.settled))
            named = ", ".join(node.title for node in open_nodes[:WAITS_MAX])
            more = f" and {len(open_nodes) - WAITS_MAX:,} more" if len(open_nodes) > WAITS_MAX else ""
            verb = (
                "unwinds, and waits for" if isinstance(branch.then, Ending) or branch.struck else "waits for"
            )
            some = "the first of " if wait.mode in ("any", "race") else ""
            return f"{verb} {some}{named}{more}"


def look_at_error(error: BaseException, hide: Collection[str]) -> list[tuple[Raised, tuple[Key, ...]]]:
    """The frames that an error came through; those of a group's errors after its own."""
    found: list[tuple[Raised, tuple[Key, ...]]] = []
    for number, one in enumerate(errors_in(error)):
        if number == ERRORS_MAX:
            break
        places = frames_of_error(one)
        frames = tuple(read(frame, line, hide) for frame, line in places)
        keys = tuple((number, depth, frame.f_code) for depth, (frame, _) in enumerate(places))
        found.append((Raised(words_about(one, hide), frames, traceback_of(one)), keys))
    return found


def errors_in(error: BaseException) -> Iterator[BaseException]:
    """An error, and those in it where it is a group."""
    yield error
    if isinstance(error, BaseExceptionGroup):
        for inner in cast("tuple[BaseException, ...]", error.exceptions):
            yield from errors_in(inner)


def words_about(error: BaseException, hide: Collection[str]) -> str:
    """An error in one line, with what it came from."""
    told: list[str] = []
    before = None
    for one in chain_of_causes(error):
        text = HIDDEN if holds_any(one, hide) else text_of(one)
        if before is not None and text in before:
            break
        told.append(f"{type(one).__name__}: {shown(text)[1:-1]}")
        before = text
    return " (from ".join(told) + ")" * (len(told) - 1)


def chain_of_causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and what it came from; each once, as `raise error from error` makes a circle."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__


def traceback_of(error: BaseException) -> str:
    """The recorded traceback of the step that an error comes from; empty when it comes from none."""
    return next((one.traceback for one in chain_of_causes(error) if isinstance(one, StepFailed)), "")


def frames_of_error(error: BaseException) -> list[tuple[FrameType, int]]:
    """The user's frames that an error came through; Zart's own are left out."""
    places: list[tuple[FrameType, int]] = []
    trace = error.__traceback__
    while trace is not None:
        name = str(trace.tb_frame.f_globals.get("__name__", ""))
        if not name.startswith("zart_core."):
            places.append((trace.tb_frame, trace.tb_lineno))
        trace = trace.tb_next
    return places[-FRAMES_MAX:]


# ---------------------------------------------------------------- what has changed


def compared(now: Seen, before: Seen) -> tuple[tuple[OpenBranch, ...], tuple[Raised, ...]]:
    """The branches and errors of a moment, with what is new and what has changed since another."""
    known = by_key(before)
    branches = tuple(
        attrs.evolve(branch, frames=mark_all(branch.frames, keys, known)) for branch, keys in now.branches
    )
    raised = tuple(
        attrs.evolve(error, frames=mark_raised(error.frames, keys, known, before))
        for error, keys in now.raised
    )
    return branches, raised


def by_key(seen: Seen) -> dict[Key, Frame]:
    """All frames of a moment."""
    groups = [(branch.frames, keys) for branch, keys in seen.branches]
    groups += [(error.frames, keys) for error, keys in seen.raised]
    return {key: frame for frames, keys in groups for key, frame in zip(keys, frames, strict=True)}


def mark_all(frames: tuple[Frame, ...], keys: tuple[Key, ...], known: dict[Key, Frame]) -> tuple[Frame, ...]:
    """Frames, each marked by how it compares with the one of the same key."""
    return tuple(marked(frame, known.get(key)) for frame, key in zip(frames, keys, strict=True))


def mark_raised(
    frames: tuple[Frame, ...], keys: tuple[Key, ...], known: dict[Key, Frame], before: Seen
) -> tuple[Frame, ...]:
    """Frames of an error: beside those of it one event before, or of the flows that were live then."""
    if before.raised:
        return mark_all(frames, keys, known)
    live = {(frame.function, frame.file): frame for branch, _ in before.branches for frame in branch.frames}
    return tuple(marked(frame, live.get((frame.function, frame.file))) for frame in frames)


def marked(frame: Frame, before: Frame | None) -> Frame:
    """A frame with its locals marked."""
    if before is None:
        return attrs.evolve(
            frame, new=True, locals=tuple(attrs.evolve(one, state="new") for one in frame.locals)
        )
    known = {local.name: local.text for local in before.locals}
    return attrs.evolve(frame, locals=tuple(beside(one, known) for one in frame.locals))


def beside(local: Local, known: dict[str, str]) -> Local:
    """A local marked by how it compares with those of one event before."""
    before = known.get(local.name)
    if before is None:
        return attrs.evolve(local, state="new")
    return local if before == local.text else attrs.evolve(local, state="changed", before=before)
