"""The lint: from the workflows of some files to all that they reach, and what is found there.

Rule 1: a function is checked once, as what it was reached as first: a flow, whose yields count, or a plain helper.
"""

from __future__ import annotations

import ast
import sys
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from zart_core.errors import InvalidUse
from zart_core.lint import effects, order, repeats, yields
from zart_core.lint.code import Code, Found, Spot, read
from zart_core.lint.findings import Finding
from zart_core.lint.meaning import COMMANDS, FLOWS, Class, Function, Meaning, Outside, Thing
from zart_core.lint.project import Project, Unreadable, files_of
from zart_core.lint.rules import RULES
from zart_core.lint.scopes import Module
from zart_core.lint.silences import Silence, silences_of
from zart_core.records import record

RECURSION_MAX = 20_000
CHECKS: tuple[Callable[[Code], Iterator[Found]], ...] = (
    effects.calls_outside,
    effects.reads_outside,
    effects.fresh_fields,
    effects.shared_state,
    effects.mutable_defaults,
    order.order_of_sets,
    yields.asynchronous,
    yields.never_yielded,
    yields.wrong_yields,
    yields.naive_datetimes,
    yields.swallowed,
    yields.left_finally,
    repeats.repeated_names,
)


@record
class Report:
    """What was found."""

    findings: tuple[Finding, ...]
    """By file, line and column."""
    files: int
    """How many files were given."""
    functions: int
    """How many functions workflows reach in them and in what they import."""
    silenced: int
    """How many findings a comment silenced."""


@record
class Reached:
    """A function that a workflow reaches."""

    function: Function
    is_flow: bool
    via: str
    way: frozenset[ast.AST]


def lint(targets: Iterable[str | Path], *, select: Iterable[str] = (), ignore: Iterable[str] = ()) -> Report:
    """Look through the workflows of files, folders and modules, and through all that they reach. Runs none of it.

    Args:
        targets: paths, or dotted names of modules; a folder or a package stands for all files below it.
        select: ids of rules, or their beginnings such as "ZT1", that count; all by default.
        ignore: likewise, those that do not count.

    Raises InvalidUse for a target that is not there and for rules that do not exist. O(size of what is read).
    """
    wanted = rules_wanted(select, ignore)
    walk = Walk()
    with deep_source():
        files = [walk.add(path) for path in files_of(targets)]
        walk.go()
    kept, silenced = silence(walk, [module for module in files if module is not None], wanted)
    findings = tuple(sorted(kept, key=lambda each: (str(each.path), each.line, each.column, each.rule)))
    return Report(findings, len(files), len(walk.seen), silenced)


@contextmanager
def deep_source() -> Generator[None]:
    """Let Python recurse deeper meanwhile: a sum of a thousand texts is a tree a thousand deep."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, RECURSION_MAX))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def rules_wanted(select: Iterable[str], ignore: Iterable[str]) -> frozenset[str]:
    """The ids of the rules that count. Raises InvalidUse for one that does not exist."""
    chosen, dropped = set(ids_of(select)), set(ids_of(ignore))
    return frozenset((chosen or RULES.keys()) - dropped)


def ids_of(prefixes: Iterable[str]) -> Iterator[str]:
    """The rules that begin so. Raises InvalidUse where there is none."""
    for prefix in prefixes:
        found = [id for id in RULES if prefix and id.startswith(prefix)]
        if not found:
            raise InvalidUse(f"there is no rule '{prefix}'; there are: {', '.join(RULES)}")
        yield from found


class Walk:
    """The functions that workflows reach, and what is found in them so far."""

    def __init__(self) -> None:
        self.project = Project()
        self.meaning = Meaning(self.project)
        self.todo: deque[Reached] = deque()
        self.seen: set[ast.AST] = set()
        self.found: dict[tuple[Path, int, int, str], Finding] = {}

    def add(self, path: Path) -> Module | None:
        """Read a file that was given, and take up its workflows and flows; None for one that cannot be read."""
        try:
            module = self.project.read(path)
        except Unreadable as error:
            self.note(Finding(error.path, error.line, error.column, error.line, "ZT900", error.what))
            return None
        module.path = path  # as it was given, not as it was found by another file
        try:
            self.todo.extend(self.roots(module))
        except RecursionError:
            self.note(Finding(path, 1, 1, 1, "ZT900", "the file is nested too deeply"))
            return None
        return module

    def roots(self, module: Module) -> Iterator[Reached]:
        """The workflows and flows of a module, and what it does on failure."""
        if "zart" not in module.source and not self.may_decorate(module):
            return
        for scope in list(module.scopes.values()):
            node = scope.node
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or scope.parent is None:
                continue
            function = Function(node, scope.parent)
            if self.meaning.decorated_as(function) == "workflow" or self.meaning.is_declared_flow(function):
                yield Reached(function, True, "", frozenset())
            for decorator in node.decorator_list:
                yield from self.on_failure(decorator, function)

    def may_decorate(self, module: Module) -> bool:
        """Whether a module that does not name zart may take it from one of the program that does."""
        return any(
            self.project.find(node.module) is not None if node.level == 0 and node.module else node.level > 0
            for node in module.tree.body
            if isinstance(node, ast.ImportFrom)
        )

    def on_failure(self, decorator: ast.expr, function: Function) -> Iterator[Reached]:
        """The function that a workflow names for its failure, which is replayed like the workflow."""
        if not isinstance(decorator, ast.Call):
            return
        for keyword in decorator.keywords:
            if keyword.arg == "on_failure":
                thing = self.meaning.of(keyword.value, function.scope)
                if isinstance(thing, Function):
                    yield Reached(
                        thing, self.is_flow(thing), f"on_failure of `{function.node.name}`", frozenset()
                    )

    def go(self) -> None:
        """Check all that is reached, and what is reached from there."""
        while self.todo:
            reached = self.todo.popleft()
            if reached.function.node in self.seen:
                continue
            self.seen.add(reached.function.node)
            try:
                self.check(reached)
            except RecursionError:
                node, path = reached.function.node, reached.function.module.path
                self.note(finding(path, "ZT900", node, f"`{node.name}` is nested too deeply", reached.via))

    def check(self, reached: Reached) -> None:
        """Check one function, and take up what it reaches."""
        code = read(reached.function, reached.is_flow, self.meaning, reached.way)
        for check in CHECKS:
            for rule, node, what in check(code):
                self.note(finding(code.function.module.path, rule, node, what, reached.via))
        self.todo.extend(self.reached_from(code, reached.via))

    def note(self, finding: Finding) -> None:
        """Keep a finding, one for each place and rule."""
        self.found.setdefault((finding.path, finding.line, finding.column, finding.rule), finding)

    def is_flow(self, function: Function) -> bool:
        """Whether a function is a flow by itself."""
        return self.meaning.sort(function) in ("flow", "workflow")

    def reached_from(self, code: Code, via: str) -> Iterator[Reached]:
        """The functions that a function calls, gives to something that calls them, or reads as properties."""
        here = f"`{code.function.node.name}`, {code.function.module.path.name}:"
        for spot in code.spots:
            if not isinstance(spot.node, ast.Call | ast.Attribute):
                continue
            way = f"reached from {here}{spot.node.lineno}"
            if isinstance(spot.node, ast.Attribute):
                getter = self.meaning.getter(spot.node, spot.scope)
                if getter is not None:
                    yield Reached(getter, False, via or way, code.reached)
                continue
            called = self.meaning.of(spot.node.func, spot.scope)
            for function in self.bodies(called):
                if self.meaning.sort(function) != "step":
                    yield Reached(function, self.runs_as_flow(code, function, spot), via or way, code.reached)
            if isinstance(called, Outside) and effects.calls_its_arguments(called.name):
                for argument in [*spot.node.args, *(keyword.value for keyword in spot.node.keywords)]:
                    if isinstance(argument, ast.Name | ast.Attribute):
                        given = self.meaning.of(argument, spot.scope)
                        if isinstance(given, Function) and self.meaning.sort(given) == "plain":
                            yield Reached(given, False, via or way, code.reached)

    def bodies(self, called: Thing | None) -> Iterator[Function]:
        """The functions that run when a thing is called."""
        match called:
            case Function():
                yield called
            case Class():
                for name in ("__init__", "__post_init__", "__attrs_post_init__"):
                    method = self.meaning.attribute(called, name, 0)
                    if isinstance(method, Function):
                        yield method
            case _:
                pass

    def runs_as_flow(self, code: Code, function: Function, spot: Spot) -> bool:
        """Whether the interpreter sees what a function yields that is called here."""
        if self.is_flow(function):
            return True
        around = spot.parent
        if around is None or self.meaning.sort(function) not in ("generator", "async generator"):
            return False
        if isinstance(around.node, ast.YieldFrom):
            return code.is_flow
        taker = self.meaning.of(around.node.func, around.scope) if isinstance(around.node, ast.Call) else None
        return isinstance(taker, Outside) and taker.name.removeprefix("zart.") in COMMANDS | FLOWS


def finding(path: Path, rule: str, node: ast.AST, what: str, via: str) -> Finding:
    """A finding at a node."""
    line = getattr(node, "lineno", 1)
    column = getattr(node, "col_offset", 0) + 1
    end = getattr(node, "end_lineno", line)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ExceptHandler):
        end = line
    return Finding(path, line, column, end, rule, what, via)


def silence(walk: Walk, given: Collection[Module], wanted: frozenset[str]) -> tuple[list[Finding], int]:
    """What is left after the comments that silence, with what is wrong with those; and how many were silenced."""
    modules = {module.path: module for module in [*walk.project.read_modules(), *given]}
    silences: Mapping[Path, list[Silence]] = {path: silences_of(module) for path, module in modules.items()}
    kept: list[Finding] = []
    used: set[tuple[Path, int, str]] = set()
    count = 0
    for each in walk.found.values():
        over = [one for one in silences.get(each.path, []) if one.covers(each)]
        if over:
            used |= {(each.path, one.line, each.rule) for one in over}
            count += 1
        elif each.rule in wanted:
            kept.append(each)
    for module in given:
        for one in silences[module.path]:
            kept += [each for each in one.mistakes(module.path, used) if each.rule in wanted]
    return kept, count
