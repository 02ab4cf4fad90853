"""The check of orders that differ from process to process: those of sets (ZT105)."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from zart_core.lint.code import Code, Found, Spot, shown
from zart_core.lint.meaning import Outside
from zart_core.lint.outside import words
from zart_core.lint.scopes import Scope

TAKES_IN_ORDER = words("list tuple enumerate iter next zip map filter reversed str repr format")
ANY_ORDER = words(
    "builtins.sorted builtins.set builtins.frozenset builtins.sum builtins.any builtins.all "
    "builtins.len builtins.min builtins.max collections.Counter"
)
"""What gives the same for every order of what it is given, unless a key says the same of several."""
PICKS = words("builtins.sorted builtins.min builtins.max")
"""What takes the first of several of which its key says the same."""
SAME_OF_SEVERAL = words(
    "builtins.len builtins.abs builtins.bool builtins.type builtins.str.lower builtins.str.upper builtins.str.casefold"
)
"""Keys that certainly say the same of several values."""
WAITS = frozenset({"zart.wait", "zart.settle", "zart.wait_any", "zart.gather"})


def order_of_sets(code: Code) -> Iterator[Found]:
    """ZT105: going through a set in an order that matters."""
    for spot in code.spots:
        for taken in taken_in_order(code, spot):
            if code.meaning.is_unordered(taken, spot.scope):
                yield "ZT105", taken, f"{shown(taken)} has no order"
        for taken in picked_from(code, spot):
            if code.meaning.is_unordered(taken, spot.scope):
                yield "ZT105", taken, f"{shown(taken)} has no order, which decides where the key is the same"


def picked_from(code: Code, spot: Spot) -> list[ast.expr]:
    """What a call picks from or sorts by a key that says the same of several."""
    call = spot.node
    if not isinstance(call, ast.Call) or len(call.args) != 1 or not may_tie(code, spot):
        return []
    picks = full_name(code, call.func, spot.scope) in PICKS
    return call.args if picks and not is_given_to_any_order(code, spot) else []


def may_tie(code: Code, spot: Spot) -> bool:
    """Whether a call has a `key=` that certainly says the same of several values; where that is not known, no."""
    for keyword in spot.node.keywords if isinstance(spot.node, ast.Call) else ():
        if keyword.arg == "key":
            return is_coarse(code, keyword.value, spot.scope)
    return False


def is_coarse(code: Code, key: ast.expr, scope: Scope) -> bool:
    """Whether a key is one of those in SAME_OF_SEVERAL, or a lambda that gives what one of them does, or a truth."""
    match key:
        case ast.Lambda(body=ast.Compare() | ast.UnaryOp(op=ast.Not())):
            return True
        case ast.Lambda(body=ast.Call() as call) | ast.Lambda(body=ast.UnaryOp(operand=ast.Call() as call)):
            method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
            inner = scope.module.scopes.get(key, scope)
            return f"builtins.str.{method}" in SAME_OF_SEVERAL or is_coarse(code, call.func, inner)
        case _:
            return full_name(code, key, scope) in SAME_OF_SEVERAL


def taken_in_order(code: Code, spot: Spot) -> list[ast.expr]:
    """What a node goes through, where the order matters."""
    match spot.node:
        case ast.For(iter=taken, body=body):
            return [] if all(map(is_order_free, body)) else [taken]
        case ast.ListComp(generators=parts) | ast.GeneratorExp(generators=parts):
            return [] if is_given_to_any_order(code, spot) else [part.iter for part in parts]
        case ast.Call(func=function, args=arguments):
            return in_order_by_call(code, spot, function, arguments)
        case ast.Starred(value=taken, ctx=ast.Load()):
            return [] if spot.parent is not None and isinstance(spot.parent.node, ast.Set) else [taken]
        case ast.Assign(targets=[ast.Tuple(elts=parts) | ast.List(elts=parts)], value=taken):
            return [] if is_only_one(parts) else [taken]
        case ast.AugAssign(op=ast.Add(), value=taken) | ast.FormattedValue(value=taken):
            return [taken]
        case _:
            return []


def is_only_one(targets: list[ast.expr]) -> bool:
    """Whether `(only,) = several` takes the one item that there is, and raises where there are more."""
    return len(targets) == 1 and not isinstance(targets[0], ast.Starred)


def in_order_by_call(code: Code, spot: Spot, function: ast.expr, arguments: list[ast.expr]) -> list[ast.expr]:
    """What a call goes through, where the order matters."""
    if isinstance(function, ast.Attribute):
        if function.attr == "pop" and not arguments and not_a_mapping(function.value):
            return [function.value]
        if (
            function.attr in ("join", "extend")
            and len(arguments) == 1
            and not is_given_to_any_order(code, spot)
        ):
            return arguments
    name = full_name(code, function, spot.scope)
    if name == "builtins.list" and is_sorted_later(code, spot):
        return []
    short = name.removeprefix("builtins.")
    if (
        (name.startswith("builtins.") and short in TAKES_IN_ORDER)
        or name.startswith("itertools.")
        or name in WAITS
    ):
        return [] if is_given_to_any_order(code, spot) else arguments
    return arguments[1:2] if name == "functools.reduce" else []


def is_order_free(statement: ast.stmt) -> bool:
    """Whether a statement in a loop certainly does the same in every order: it adds to a set, counts, or leaves."""
    match statement:
        case ast.Pass() | ast.Continue() | ast.Return(value=ast.Constant()):
            return True
        case ast.AugAssign(op=ast.Add() | ast.Sub(), value=ast.Constant(value=int())):
            return True
        case ast.AugAssign(
            op=ast.Add() | ast.Sub(), value=ast.Call(func=ast.Name(id="len"), args=[ast.Name()])
        ):
            return True
        case ast.Expr(value=ast.Call(func=ast.Attribute(attr="add" | "discard"), args=[argument])):
            return not any(isinstance(node, ast.Yield | ast.YieldFrom) for node in ast.walk(argument))
        case ast.If(test=test, body=body, orelse=orelse):
            plain = not any(isinstance(node, ast.Call | ast.Yield | ast.YieldFrom) for node in ast.walk(test))
            return plain and all(map(is_order_free, [*body, *orelse]))
        case _:
            return False


def is_sorted_later(code: Code, spot: Spot) -> bool:
    """Whether it is `name = list(...)`, and the function says `name.sort(...)`."""
    match spot.parent:
        case Spot(node=ast.Assign(targets=[ast.Name(id=name)])):
            return any(
                isinstance(other.node, ast.Attribute)
                and other.node.attr == "sort"
                and isinstance(other.node.value, ast.Name)
                and other.node.value.id == name
                and not (other.parent is not None and may_tie(code, other.parent))
                for other in code.spots
            )
        case _:
            return False


def not_a_mapping(node: ast.expr) -> bool:
    """Whether it is no dictionary that is written out."""
    return not isinstance(node, ast.DictComp)


def is_given_to_any_order(code: Code, spot: Spot) -> bool:
    """Whether the result is given to something for which every order is the same."""
    around = spot.parent
    return (
        around is not None
        and isinstance(around.node, ast.Call)
        and spot.field == "args"
        and full_name(code, around.node.func, around.scope) in ANY_ORDER
        and not may_tie(code, around)
    )


def full_name(code: Code, function: ast.expr, scope: Scope) -> str:
    """The full name of something outside; empty for anything else."""
    thing = code.meaning.of(function, scope)
    return thing.name if isinstance(thing, Outside) else ""
