"""Workflows as lists of commands: written out as source, edited mechanically, and read directly beside a log.

Rule 1: `expected` knows lists and events only: no generator, no interpreter. It is what the interpreter is judged by.
Rule 2: every command has a number of its own, which is written as a comment behind its line and so finds it again.
"""

from __future__ import annotations

import itertools
import re
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypeAlias

import attrs

import zart_core as zart
from zart_core.records import record

Kind: TypeAlias = Literal["step", "sleep", "event", "now", "capture", "child", "spawn"]
Mode: TypeAlias = Literal["inline", "helper", "plain", "flows", "race"]
Place: TypeAlias = tuple[int, int, int]
"""Group, branch, position."""

PRELUDE = """
import zart_core as zart

@zart.step("do")
def do(x: int) -> int:
    return x

@zart.step("shaky", retry=zart.Retry.fixed(1, 0.0))
def shaky(x: int) -> int:
    if zart.context().attempt == 0:
        raise ValueError(x)
    return x

@zart.step("bad")
def bad(x: int) -> int:
    raise ValueError(x)

@zart.workflow("kid")
def kid(x: int) -> zart.Flow[int]:
    return (yield from do(x))
"""


@record
class Cmd:
    """One command: what it is, its name, and its argument, a whole number."""

    kind: Kind
    name: str
    arg: int = 1
    step: str = "do"
    number: int = attrs.field(factory=itertools.count(1).__next__)


@record
class Group:
    """Branches that go on beside each other, and what follows only when all have ended (in a race: the first)."""

    mode: Mode
    branches: tuple[tuple[Cmd, ...], ...]


Program: TypeAlias = tuple[Group, ...]


# ---------------------------------------------------------------- source


def text_of(cmd: Cmd) -> str:
    """The command as an expression."""
    match cmd.kind:
        case "step":
            return f"{cmd.step}({cmd.arg}).named({cmd.name!r})"
        case "sleep":
            return f"zart.sleep({cmd.name!r}, {cmd.arg})"
        case "event":
            return f"zart.wait_for_event({cmd.name!r}, timeout={cmd.arg * 1000}, name={cmd.name!r})"
        case "now":
            return f"zart.now({cmd.name!r})"
        case "capture":
            return f"zart.capture({cmd.name!r}, int)"
        case "child" | "spawn":
            return f"zart.{cmd.kind}(kid, {cmd.arg}).named({cmd.name!r})"


def line_of(cmd: Cmd) -> str:
    """The command as a line of a flow."""
    text = text_of(cmd)
    return f"    yield from {f'zart.step_or({text}, 0)' if cmd.step == 'bad' else text}  # {cmd.number}"


def source_of(program: Program) -> str:
    """The program as a module, with the workflow in the end."""
    flows: list[str] = []
    body: list[str] = []
    for g, group in enumerate(program):
        if group.mode == "inline":
            body += [line_of(cmd) for cmd in group.branches[0]]
            continue
        if group.mode == "plain":
            commands = [cmd for (cmd,) in group.branches]
            numbers = " ".join(str(cmd.number) for cmd in commands)
            body.append(f"    yield from zart.gather({', '.join(map(text_of, commands))})  # {numbers}")
            continue
        names = [f"flow_{g}_{b}" for b in range(len(group.branches))]
        for name, branch in zip(names, group.branches, strict=True):
            flows += [f"def {name}():", *(map(line_of, branch)), "    yield from zart.wait([])", ""]
        calls = ", ".join(f"{name}()" for name in names)
        verb = {"helper": calls, "flows": f"zart.gather({calls})", "race": f"zart.race({calls})"}[group.mode]
        body.append(f"    yield from {verb}")
    head = ['@zart.workflow("w")', "def w(_: None):"]
    return "\n".join([PRELUDE, *flows, *head, *body, "    yield from zart.wait([])", ""])


def workflow_of(program: Program) -> zart.Workflow[Any, Any]:
    """The program as code at hand."""
    namespace: dict[str, Any] = {"__name__": "edited"}
    exec(compile(source_of(program), "edited.py", "exec"), namespace)
    return namespace["w"]


def places_of(program: Program) -> dict[int, tuple[str, int]]:
    """Where each command stands: the flow, and the lines below its first."""
    lines = source_of(program).splitlines()
    found: dict[int, tuple[str, int]] = {}
    flow, first = "", 0
    for n, line in enumerate(lines):
        if header := re.match(r"def (\w+)", line):
            flow = header[1]
            first = n - 1 if lines[n - 1].startswith("@") else n
        if numbers := re.search(r"# ([\d ]+)$", line):
            for number in numbers[1].split():
                found[int(number)] = (flow, n - first)
    return found


# ---------------------------------------------------------------- edits


def edits_of(program: Program) -> Iterator[tuple[str, Program]]:
    """Every edit of every kind at every position, in words and as a new program."""
    for g, group in enumerate(program):
        for b, branch in enumerate(group.branches):
            for p in range(len(branch) + 1):
                at = (g, b, p)
                if group.mode != "plain":
                    yield f"insert a step at {at}", inserted(program, at, Cmd("step", "new"))
                    yield f"add a sleep at {at}", inserted(program, at, Cmd("sleep", "new"))
                    yield f"add an event wait at {at}", inserted(program, at, Cmd("event", "new"))
            for p, cmd in enumerate(branch):
                at = (g, b, p)
                yield f"rename {cmd.name}", replaced(program, at, attrs.evolve(cmd, name="other"))
                kind: Kind = "sleep" if cmd.kind == "step" else "step"
                yield (
                    f"make {cmd.name} a {kind}",
                    replaced(program, at, attrs.evolve(cmd, kind=kind, step="do")),
                )
                if cmd.kind not in ("now", "capture"):
                    what = "timer" if cmd.kind in ("sleep", "event") else "argument"
                    yield (
                        f"change the {what} of {cmd.name}",
                        replaced(program, at, attrs.evolve(cmd, arg=cmd.arg + 1)),
                    )
                if group.mode != "plain":
                    yield f"delete {cmd.name}", with_branch(program, at, (*branch[:p], *branch[p + 1 :]))
                    if p + 1 < len(branch):
                        swapped = (*branch[:p], branch[p + 1], cmd, *branch[p + 2 :])
                        yield f"swap {cmd.name} and {branch[p + 1].name}", with_branch(program, at, swapped)
        if group.mode == "plain":
            yield from edits_of_plain(program, g, group)
    yield "nothing", program


def edits_of_plain(program: Program, g: int, group: Group) -> Iterator[tuple[str, Program]]:
    """Edits of a gather of commands, whose branches have one command each."""
    for n in range(len(group.branches) + 1):
        head, tail = group.branches[:n], group.branches[n:]
        for cmd in (Cmd("step", "new"), Cmd("sleep", "new"), Cmd("event", "new")):
            yield f"insert a {cmd.kind} at {g, n}", with_group(program, g, (*head, (cmd,), *tail))
        if tail and len(group.branches) > 1:
            yield f"delete {tail[0][0].name}", with_group(program, g, (*head, *tail[1:]))
        if len(tail) > 1:
            yield (
                f"swap {tail[0][0].name} and {tail[1][0].name}",
                with_group(program, g, (*head, tail[1], tail[0], *tail[2:])),
            )


def inserted(program: Program, at: Place, cmd: Cmd) -> Program:
    branch = program[at[0]].branches[at[1]]
    return with_branch(program, at, (*branch[: at[2]], cmd, *branch[at[2] :]))


def replaced(program: Program, at: Place, cmd: Cmd) -> Program:
    branch = program[at[0]].branches[at[1]]
    return with_branch(program, at, (*branch[: at[2]], cmd, *branch[at[2] + 1 :]))


def with_branch(program: Program, at: Place, branch: tuple[Cmd, ...]) -> Program:
    branches = program[at[0]].branches
    return with_group(program, at[0], (*branches[: at[1]], branch, *branches[at[1] + 1 :]))


def with_group(program: Program, g: int, branches: tuple[tuple[Cmd, ...], ...]) -> Program:
    return (*program[:g], attrs.evolve(program[g], branches=branches), *program[g + 1 :])


# ---------------------------------------------------------------- what must be said of a log


@record
class Misfit:
    """Where log and program part: the event's number, and the commands on both sides where there are any."""

    event: int
    recorded: int | None
    yielded: int | None


@record
class Want:
    """What the program asks for next: a command, that a delivery is taken or a wait withdrawn, or the end."""

    what: Literal["issue", "take", "withdraw", "end"]
    cmd: Cmd | None = None
    seq: int = -1


class Reading:
    """A program read beside a log."""

    def __init__(self, program: Program, strict: bool) -> None:
        self.program = program
        self.strict = strict
        self.wanted: deque[Want] = deque()
        self.group = -1
        self.left: list[list[Cmd]] = []
        self.pending: dict[int, tuple[int, Cmd]] = {}
        """By seq: branch and command."""
        self.losers: set[int] = set()

    def next_group(self) -> None:
        """The groups before have ended."""
        while not self.pending and not self.wanted:
            self.group += 1
            if self.group == len(self.program):
                self.wanted.append(Want("end"))
                return
            branches = self.program[self.group].branches
            self.left = [list(branch) for branch in branches]
            racing = self.program[self.group].mode == "race"
            if racing and not all(branches):
                continue  # a branch without commands wins at once
            for b in range(len(branches)):
                self.advance(b)

    def advance(self, b: int) -> None:
        """A branch goes on to its next command."""
        if self.left[b]:
            self.wanted.append(Want("issue", self.left[b].pop(0), b))
        elif self.program[self.group].mode == "race":
            self.wanted = deque(want for want in self.wanted if want.what == "end")
            for seq, (_, cmd) in self.pending.items():
                self.wanted.append(Want("withdraw", cmd, seq))

    def ended(self, seq: int) -> None:
        """A command has its outcome."""
        b, _ = self.pending.pop(seq)
        self.advance(b)
        self.next_group()

    def differs(self, event: zart.Issued, cmd: Cmd) -> bool:
        """Whether a recorded command is another one."""
        if (event.kind, event.name) != (cmd.kind, cmd.name):
            return True
        if not self.strict:
            return False
        match cmd.kind:
            case "step":
                return event.payload != f"[{cmd.arg}]".encode()
            case "child" | "spawn":
                return event.payload != str(cmd.arg).encode()
            case "sleep":
                return event.until != event.at + cmd.arg
            case "event":
                return event.until != event.at + 1000 * cmd.arg
            case _:
                return False

    def takes(self, event: zart.Event) -> bool:
        """Whether the event is what the program asks for, or asks for nothing and it is a fact."""
        head = self.wanted[0] if self.wanted else None
        match event:
            case zart.Started():
                self.next_group()
                return True
            case zart.Noted():
                return True
            case zart.Issued():
                if head is None or head.what != "issue" or head.cmd is None or self.differs(event, head.cmd):
                    return False
                self.wanted.popleft()
                self.pending[event.seq] = (head.seq, head.cmd)
                if event.kind == "now":
                    self.ended(event.seq)
                return True
            case zart.Resolved(outcome=zart.Taken()):
                return self.decided(head, "take", event.seq)
            case zart.Resolved(outcome=zart.Cancellation()):
                return self.decided(head, "withdraw", event.seq)
            case zart.Closed():
                return head is not None and head.what == "end"
            case _ if head is not None:
                return False
            case zart.Resolved():
                self.ended(event.seq)
                return True
            case zart.Delivered():
                seq, (_, cmd) = next(item for item in self.pending.items() if item[1][1].name == event.event)
                self.wanted.append(Want("take", cmd, seq))
                return True
            case _:
                return True

    def decided(self, head: Want | None, what: str, seq: int) -> bool:
        """A decision about a pending command, if it is the one that is asked for."""
        if head is None or (head.what, head.seq) != (what, seq):
            return False
        self.wanted.popleft()
        if what == "take":
            self.ended(seq)
        else:
            del self.pending[seq]
            self.next_group()
        return True


def expected(
    program: Program, events: Sequence[zart.Event], names: dict[str, int], *, strict: bool, whole: bool
) -> Misfit | None:
    """Where the program and a log part; None where they fit. `names` are the numbers of recorded commands.

    `whole` says that the log ends where a turn did, so that nothing may be left to ask for.
    """
    reading = Reading(program, strict)
    for n, event in enumerate(events):
        if not reading.takes(event):
            recorded = names[event.name] if isinstance(event, zart.Issued) else None
            return Misfit(n, recorded, number_of(reading))
    if whole and reading.wanted and not isinstance(events[-1], zart.Closed | zart.Started):
        return Misfit(len(events), None, number_of(reading))
    return None


def number_of(reading: Reading) -> int | None:
    """The command that the program asks for."""
    head = reading.wanted[0] if reading.wanted else None
    return head.cmd.number if head is not None and head.cmd is not None else None


def settled(program: Program, events: Sequence[zart.Event]) -> bool:
    """Whether a log of this very program could end here: every fact has its answer."""
    reading = Reading(program, strict=True)
    assert all(reading.takes(event) for event in events)
    return not reading.wanted or isinstance(events[-1], zart.Closed | zart.Started)
