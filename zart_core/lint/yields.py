"""Checks of commands: built and not yielded, yielded wrongly, endings that swallow (ZT301 to ZT304, ZT306, ZT4xx)."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

from zart_core.lint.code import Code, Found, Spot, shown, title
from zart_core.lint.meaning import FLOWS, Class, Function, Outside, OutsideObject, own_nodes
from zart_core.lint.outside import is_given, opaque, words
from zart_core.lint.scopes import Scope

OF_A_COMMAND = frozenset(
    {"named", "name", "kind", "args", "kwargs", "function", "yielded", "cancel", "close"}
)
"""Attributes that a command, a task or a generator does have."""
CONVERTING = words(
    "str int float bool bytes len list tuple dict set frozenset sum min max sorted repr format range round abs any all "
    "enumerate zip iter next"
)
PLAIN_TYPES = frozenset(
    f"builtins.{name}" for name in words("int str float bool bytes list tuple dict set frozenset complex")
)
VALUES: Mapping[type[ast.expr], str] = {
    ast.Constant: "a constant",
    ast.JoinedStr: "a text",
    ast.List: "a list",
    ast.Tuple: "a tuple",
    ast.Set: "a set",
    ast.Dict: "a dictionary",
    ast.ListComp: "a list",
    ast.SetComp: "a set",
    ast.DictComp: "a dictionary",
}


def never_yielded(code: Code) -> Iterator[Found]:
    """ZT302: a command that stands alone, is assigned and not used, or is used as though it were its result."""
    loaded: set[str] | None = None
    for spot in code.spots:
        match spot.node:
            case ast.Expr(value=ast.Call() as call):
                kind = code.meaning.kind(call, spot.scope)
                if kind in ("command", "flow"):
                    yield "ZT302", call, f"{title(call)} is built and not yielded"
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=ast.Call() as call)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.Call() as call)
            ):
                loaded = names_loaded(code) if loaded is None else loaded
                if name not in loaded and code.meaning.kind(call, spot.scope) in ("command", "flow"):
                    yield "ZT302", call, f"{title(call)} is kept in `{name}` and never yielded"
            case ast.Call() | ast.Name(ctx=ast.Load()) as value:
                how = used_as_result(code, spot)
                if how and code.meaning.kind(value, spot.scope) == "command":
                    yield "ZT302", value, f"{title(value)} is a command, and {how}"
                elif spot.field in ("elt", "elts") and isinstance(value, ast.Call):
                    loaded = names_loaded(code) if loaded is None else loaded
                    where = in_vain(spot, loaded)
                    if where and code.meaning.kind(value, spot.scope) in ("command", "flow"):
                        yield "ZT302", value, f"{title(value)} {where}"
            case _:
                pass


def in_vain(spot: Spot, loaded: set[str]) -> str:
    """What becomes of an element of a list or tuple that nothing reads; empty where something may."""
    group = spot.parent
    statement = group.parent if group is not None else None
    if group is None or statement is None or not isinstance(group.node, ast.ListComp | ast.List | ast.Tuple):
        return ""
    match statement.node:
        case ast.Expr():
            return "is built and not yielded"
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)) if (
            name not in loaded
        ):
            return f"is kept in `{name}` and never yielded"
        case _:
            return ""


def names_loaded(code: Code) -> set[str]:
    """All names that the function reads, in functions inside it too."""
    return {
        node.id
        for node in ast.walk(code.function.node)
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Store)
    }


def used_as_result(code: Code, spot: Spot) -> str:
    """How an expression is used as only a result can be; empty where it is not."""
    if spot.parent is None:
        return ""
    match spot.parent.node, spot.field:
        case (ast.BinOp() | ast.UnaryOp(), _) | (ast.BoolOp(), _):
            return "is calculated with"
        case (ast.Compare(ops=ops), _) if not all(isinstance(op, ast.Is | ast.IsNot) for op in ops):
            return "is compared"
        case (ast.If() | ast.While() | ast.IfExp() | ast.Assert(), "test"):
            return "is asked whether it is true"
        case (ast.FormattedValue(), _):
            return "is put into a text"
        case (ast.Subscript(), "value"):
            return "is indexed"
        case (ast.Attribute(attr=attr), "value") if attr not in OF_A_COMMAND:
            return f"is asked for `.{attr}`"
        case (ast.For(), "iter") | (ast.comprehension(), "iter"):
            return "is iterated"
        case (ast.Call() as call, "args"):
            return given_to(code, call, spot.parent.scope)
        case (ast.Return(), "value") if code.is_workflow:
            return "is returned as the result"
        case _:
            return ""


def given_to(code: Code, call: ast.Call, scope: Scope) -> str:
    """How a call uses a command that it is given; empty where that may be meant."""
    match code.meaning.of(call.func, scope):
        case Outside(name) if name.removeprefix("builtins.") in CONVERTING and name.startswith("builtins."):
            return f"is given to {title(call)}"
        case Function() as function if code.meaning.sort(function) == "step":
            return f"is given to the step {title(call)}"
        case _:
            return ""


def wrong_yields(code: Code) -> Iterator[Found]:
    """ZT303 and ZT304: `yield` where `yield from` is meant, and what is neither command nor flow."""
    if not code.is_flow:
        return
    for spot in code.spots:
        match spot.node:
            case ast.Yield(value=value):
                yield from wrong_yield(code, spot, spot.node, value)
            case ast.YieldFrom(value=value):
                what = no_command(code, value, spot.scope)
                if what and not is_empty(value):
                    yield "ZT304", value, f"`yield from` over {what}"
            case _:
                pass


def is_own(code: Code, spot: Spot, value: ast.expr) -> bool:
    """Whether it is a flow of Zart's own, for which a plain `yield` does, as for a command."""
    thing = code.meaning.of(value.func, spot.scope) if isinstance(value, ast.Call) else None
    return isinstance(thing, Outside) and thing.name.removeprefix("zart.") in FLOWS


def wrong_yield(code: Code, spot: Spot, node: ast.Yield, value: ast.expr | None) -> Iterator[Found]:
    """What is wrong with a plain `yield`."""
    kind = None if value is None else code.meaning.kind(value, spot.scope)
    if value is not None and kind == "flow" and is_own(code, spot, value):
        kind = "command"
    if value is not None and kind == "flow":
        yield "ZT303", node, f"{shown(node)} gives the flow itself"
    elif value is not None and kind == "command":
        if spot.parent is None or not isinstance(spot.parent.node, ast.Expr):
            yield "ZT303", node, f"{shown(node)} is used for its result"
    elif (what := "nothing" if value is None else no_command(code, value, spot.scope)) and not never_runs(
        code, spot
    ):
        yield "ZT304", node, f"`yield` of {what}"


def no_command(code: Code, value: ast.expr, scope: Scope) -> str:
    """What an expression gives, where that is certainly no command and no flow; empty otherwise."""
    if (said := VALUES.get(type(value))) is not None:
        return said
    if isinstance(value, ast.Name | ast.Attribute):
        function = code.meaning.of(value, scope)
        if isinstance(function, Function) and code.meaning.sort(function) in ("step", "workflow", "flow"):
            return f"{shown(value)}, which is not called"
    if isinstance(value, ast.Call):
        function = code.meaning.of(value.func, scope)
        if isinstance(function, Function) and gives_a_value(code, function):
            return f"the value of {title(value)}"
        if isinstance(function, Class):
            return f"an object of `{function.node.name}`" if not function.node.bases else ""
    return ""


def gives_a_value(code: Code, function: Function) -> bool:
    """Whether a plain function certainly gives a plain value."""
    if code.meaning.sort(function) != "plain":
        return False
    if function.node.returns is not None:
        thing = code.meaning.of_type(function.node.returns, function.scope, 0)
        return isinstance(thing, OutsideObject) and thing.type in PLAIN_TYPES
    return (
        not function.node.decorator_list
        and not is_abstract(function)
        and not any(
            isinstance(node, ast.Return) and node.value is not None for node in own_nodes(function.node)
        )
    )


def is_abstract(function: Function) -> bool:
    """Whether a function's body is empty, or only raises: another stands in its place when it runs."""
    return all(
        isinstance(statement, ast.Pass | ast.Raise)
        or (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
        for statement in function.node.body
    )


def is_empty(value: ast.expr) -> bool:
    """Whether it is `()` or `[]`, which makes a generator of a function and yields nothing."""
    return isinstance(value, ast.Tuple | ast.List) and not value.elts


def never_runs(code: Code, spot: Spot) -> bool:
    """Whether a statement stands behind a `return` or below `if False`: it only makes the function a generator."""
    for around in [spot, *spot.around()]:
        if not isinstance(around.node, ast.stmt):
            continue
        if (
            isinstance(around.node, ast.If)
            and isinstance(around.node.test, ast.Constant)
            and not around.node.test.value
        ):
            return True
        holder: ast.AST = code.function.node if around.parent is None else around.parent.node
        suite: list[ast.stmt] = getattr(holder, around.field, [])
        before = suite[: suite.index(around.node)] if isinstance(suite, list) and around.node in suite else []
        if any(isinstance(each, ast.Return | ast.Raise) for each in before):
            return True
    return False


def naive_datetimes(code: Code) -> Iterator[Found]:
    """ZT306: sleep_until with a datetime that certainly has no zone."""
    for spot in code.spots:
        if isinstance(spot.node, ast.Call) and code.meaning.of(spot.node.func, spot.scope) == Outside(
            "zart.sleep_until"
        ):
            given = [*spot.node.args[1:2], *(key.value for key in spot.node.keywords if key.arg == "when")]
            for when in given:
                if is_naive(code, when, spot.scope):
                    yield "ZT306", when, f"{shown(when)} has no time zone"


def is_naive(code: Code, node: ast.expr, scope: Scope) -> bool:
    """Whether an expression certainly gives a datetime without a zone."""
    if isinstance(node, ast.Name):
        value = code.meaning.assigned(node, scope)
        return value is not None and is_naive(code, value[0], value[1])
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
        return is_naive(code, node.left, scope)
    if not isinstance(node, ast.Call) or opaque(node):
        return False
    thing = code.meaning.of(node.func, scope)
    match thing:
        case Outside("datetime.datetime"):
            return not is_given(node, 7, "tzinfo")
        case Outside("datetime.datetime.utcnow" | "datetime.datetime.today"):
            return True
        case Outside("datetime.datetime.now"):
            return not is_given(node, 0, "tz")
        case Outside("datetime.datetime.fromisoformat"):
            return any(isinstance(each, ast.Constant) and has_no_zone(each.value) for each in node.args)
        case _:
            return False


def has_no_zone(text: object) -> bool:
    """Whether a text in ISO format says no zone."""
    return (
        isinstance(text, str) and not text.endswith(("Z", "z")) and "+" not in text and text.count("-") <= 2
    )


def swallowed(code: Code) -> Iterator[Found]:
    """ZT401: a handler of everything around a yield, without `raise` in it."""
    for spot in code.spots:
        if isinstance(spot.node, ast.Try | ast.TryStar) and has_yield(spot.node.body):
            passed_on: set[str] = set()
            for handler in spot.node.handlers:
                caught = caught_by(code, handler, spot.scope)
                if has_raise(handler):
                    passed_on |= caught
                elif caught & {"builtins.BaseException", "builtins.GeneratorExit", "everything"} and not (
                    {"zart.Cancelled", "builtins.GeneratorExit"} <= passed_on
                    or "builtins.BaseException" in passed_on
                ):
                    said = (
                        "a bare `except`" if handler.type is None else f"`except {ast.unparse(handler.type)}`"
                    )
                    yield "ZT401", handler, f"{said} around a yield has no `raise`"
        elif isinstance(spot.node, ast.With) and has_yield(spot.node.body):
            for item in spot.node.items:
                if suppresses_all(code, item.context_expr, spot.scope):
                    yield "ZT401", item.context_expr, f"{shown(item.context_expr)} stands around a yield"


def suppresses_all(code: Code, node: ast.expr, scope: Scope) -> bool:
    """Whether it is `contextlib.suppress(BaseException)`."""
    return (
        isinstance(node, ast.Call)
        and code.meaning.of(node.func, scope) == Outside("contextlib.suppress")
        and any(code.meaning.of(each, scope) == Outside("builtins.BaseException") for each in node.args)
    )


def caught_by(code: Code, handler: ast.ExceptHandler, scope: Scope) -> set[str]:
    """The full names of what a handler catches."""
    if handler.type is None:
        return {"everything"}
    types = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    things = [code.meaning.of(each, scope) for each in types]
    return {thing.name for thing in things if isinstance(thing, Outside)}


def has_yield(suite: list[ast.stmt]) -> bool:
    """Whether statements yield something."""
    return any(
        isinstance(node, ast.Yield | ast.YieldFrom) for statement in suite for node in ast.walk(statement)
    )


def has_raise(handler: ast.ExceptHandler) -> bool:
    """Whether a handler raises."""
    return any(isinstance(node, ast.Raise) for statement in handler.body for node in ast.walk(statement))


def left_finally(code: Code) -> Iterator[Found]:
    """ZT402: `return`, `break` or `continue` that leaves a `finally`."""
    for spot in code.spots:
        if isinstance(spot.node, ast.Return | ast.Break | ast.Continue) and leaves_finally(spot):
            yield "ZT402", spot.node, f"`{type(spot.node).__name__.lower()}` leaves a `finally`"


def leaves_finally(spot: Spot) -> bool:
    """Whether a jump goes out of a `finally` around a yield."""
    inner: Spot = spot
    for around in spot.around():
        if (
            isinstance(around.node, ast.For | ast.While)
            and inner.field == "body"
            and not isinstance(spot.node, ast.Return)
        ):
            return False
        if isinstance(around.node, ast.Try | ast.TryStar) and inner.field == "finalbody":
            return has_yield(around.node.body)
        inner = around
    return False


def asynchronous(code: Code) -> Iterator[Found]:
    """ZT301: the function itself is an `async def`."""
    if isinstance(code.function.node, ast.AsyncFunctionDef):
        yield "ZT301", code.function.node, f"`{code.function.node.name}` is an `async def`"
