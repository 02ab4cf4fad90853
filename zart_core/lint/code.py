"""The code of one function that a workflow reaches: its nodes in order, each with its scope and what it stands in."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import TypeAlias, cast

import attrs

from zart_core.lint.meaning import Function, Meaning, Outside
from zart_core.lint.scopes import Comprehension, Scope
from zart_core.records import record

Found: TypeAlias = tuple[str, ast.AST, str]
"""A rule's id, the node, and what is wrong with it."""


@attrs.define(eq=False)
class Spot:
    """A node where it stands."""

    node: ast.AST
    scope: Scope
    parent: Spot | None
    field: str
    """Which field of the parent's node it stands in."""

    def around(self) -> Iterator[Spot]:
        """What it stands in, from the inside out."""
        spot = self.parent
        while spot is not None:
            yield spot
            spot = spot.parent


@record
class Code:
    """The code of one function that a workflow reaches."""

    function: Function
    is_flow: bool
    """Whether its yields go to the interpreter."""
    is_workflow: bool
    spots: tuple[Spot, ...]
    meaning: Meaning
    reached: frozenset[ast.AST]
    """The functions on the way here, and this one: what they keep is the run's own."""

    @property
    def scope(self) -> Scope:
        """The function's own scope."""
        return self.function.module.scopes[self.function.node]


def read(function: Function, is_flow: bool, meaning: Meaning, way: frozenset[ast.AST]) -> Code:
    """The code of a function, without that of functions and classes inside it. O(its size)."""
    spots: list[Spot] = []
    scope = function.module.scopes[function.node]
    for statement in function.node.body:
        gather(Spot(statement, scope, None, "body"), meaning, spots)
    is_workflow = meaning.sort(function) == "workflow"
    return Code(function, is_flow, is_workflow, tuple(spots), meaning, way | {function.node})


def gather(spot: Spot, meaning: Meaning, into: list[Spot]) -> None:
    """Add a node and those inside it that run when it runs."""
    node = spot.node
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return
    into.append(spot)
    scopes = spot.scope.module.scopes
    inner = scopes.get(node, spot.scope) if isinstance(node, ast.Lambda | Comprehension) else spot.scope
    for field, part in parts_of(node, spot.scope, meaning):
        gather(Spot(part, inner, spot, field), meaning, into)


def parts_of(node: ast.AST, scope: Scope, meaning: Meaning) -> Iterator[tuple[str, ast.AST]]:
    """The nodes directly inside a node that run when it runs, each with its field."""
    if isinstance(node, ast.If) and is_type_checking(node.test):
        left_out = {"body"}
    else:
        left_out = {"args"} if isinstance(node, ast.Lambda) else {"annotation"}
    captured = isinstance(node, ast.Call) and meaning.of(node.func, scope) == Outside("zart.capture")
    for field in node._fields:
        value: object = getattr(node, field, None)
        for part in listed(value) if field not in left_out else ():
            by_host = captured and isinstance(part, ast.Lambda)  # which calls it once
            if isinstance(part, ast.AST) and not isinstance(part, ast.expr_context) and not by_host:
                yield field, part


def listed(value: object) -> Sequence[object]:
    """A field's value as several."""
    return cast("list[object]", value) if isinstance(value, list) else [value]


def is_type_checking(test: ast.expr) -> bool:
    """Whether it is a condition for type checkers only."""
    name = test.attr if isinstance(test, ast.Attribute) else test.id if isinstance(test, ast.Name) else ""
    return name == "TYPE_CHECKING"


def shown(node: ast.AST, chars_max: int = 40) -> str:
    """A piece of source for a message, shortened."""
    text = " ".join(ast.unparse(node).split())
    text = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
    return f"`{text}`" if len(text) <= chars_max else f"`{text[: chars_max - 3]}...`"


def title(call: ast.AST) -> str:
    """What a call is called: its function's name and brackets."""
    return (
        f"`{ast.unparse(call.func)}(...)`" if isinstance(call, ast.Call) and named(call.func) else shown(call)
    )


def named(node: ast.expr) -> bool:
    """Whether it is a name with dots."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return isinstance(node, ast.Name)
