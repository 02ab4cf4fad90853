"""The check of names that can come twice in a run (ZT305).

Rule 1: a name varies with a loop if anything in it is bound or changed in the loop, or is worked out by a call; a name
that might vary is never reported.
"""

from __future__ import annotations

import ast
import string
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from zart_core.lint.code import Code, Found, Spot, gather, title
from zart_core.lint.meaning import Function, Meaning, Outside
from zart_core.lint.outside import argument, opaque
from zart_core.lint.scopes import Assigned, Comprehension, Defined, Imported, Scope, root_of
from zart_core.records import record

NAMED_FIRST = frozenset({"sleep", "sleep_until", "capture", "now", "uuid", "random"})
Loop: TypeAlias = ast.For | ast.While | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
PURE_CALLS = frozenset({"builtins.str", "builtins.int", "builtins.repr", "builtins.len"})


@record
class Naming:
    """What the name of a command is made of: expressions, all where the command stands."""

    label: str
    parts: tuple[ast.expr, ...]


def repeated_names(code: Code) -> Iterator[Found]:
    """ZT305: a command in a loop whose name does not vary with it, or twice in a row."""
    if not code.is_flow:
        return
    names = Names(code.meaning)
    for spot in code.spots:
        if isinstance(spot.node, ast.Call) and not is_renamed(spot, code.meaning):
            naming = names.of(spot.node, spot.scope)
            for loop in loops_around(spot) if naming is not None else ():
                if (
                    naming is not None
                    and not varies(code, spot, naming.parts, loop)
                    and comes_again(code, spot, loop)
                    and not may_be_once(spot, loop)
                ):
                    yield (
                        "ZT305",
                        spot.node,
                        f"{naming.label} in a loop, by a name that does not vary with it",
                    )
                    break
    yield from twice_in_a_row(code, names)


def is_renamed(spot: Spot, meaning: Meaning) -> bool:
    """Whether `.named(...)` is called on it, or `zart.scope` puts something before its names."""
    match spot.parent:
        case Spot(node=ast.Attribute(attr="named")):
            return True
        case Spot(node=ast.Call(func=function), scope=scope):
            return meaning.of(function, scope) == Outside("zart.scope")
        case _:
            return False


class Names:
    """What the names of commands and flows are made of."""

    def __init__(self, meaning: Meaning) -> None:
        self.meaning = meaning
        self.flows: dict[ast.AST, frozenset[str] | None] = {}
        """Of each flow, the parameters that vary every name in it; None where it has no name that is certain."""

    def of(self, call: ast.Call, scope: Scope) -> Naming | None:
        """What the name is made of that a call gives, or the least varying one of a flow; None where unknown."""
        if isinstance(call.func, ast.Attribute) and call.func.attr == "named":
            if self.meaning.kind(call, scope) == "command" and call.args:
                return Naming(f"{title(call)} gives a name", (call.args[0],))
            return None
        thing = self.meaning.of(call.func, scope)
        match thing:
            case Outside("zart.wait_for_event"):
                name = argument(call, 3, "name")
                return None if name is None else Naming(f"{title(call)} waits", (name,))
            case Outside(dotted) if dotted.startswith("zart.") and dotted[5:] in NAMED_FIRST:
                name = argument(call, 0, "name")
                return None if name is None or opaque(call) else Naming(f"{title(call)} stands", (name,))
            case Outside("zart.scope"):
                return self.of_scope(call, scope)
            case Function():
                return self.of_function(thing, call)
            case _:
                return None

    def of_scope(self, call: ast.Call, scope: Scope) -> Naming | None:
        """A scope: its prefix and the names inside."""
        prefix, flow = argument(call, 0, "prefix"), argument(call, 1, "flow")
        inner = self.of(flow, scope) if isinstance(flow, ast.Call) else None
        return (
            None
            if prefix is None or inner is None
            else Naming(f"{title(call)} stands", (prefix, *inner.parts))
        )

    def of_function(self, function: Function, call: ast.Call) -> Naming | None:
        """A step or a flow: the arguments that its names are made of."""
        match self.meaning.sort(function):
            case "step":
                varied_by = self.of_step(function)
            case "flow" | "workflow":
                varied_by = self.of_flow(function)
            case _:
                return None
        if varied_by is None or opaque(call):
            return None
        parts: list[ast.expr] = []
        for name in sorted(varied_by):
            given = argument_for(function, call, name)
            if given == "unknown":
                return None
            if isinstance(given, ast.expr):
                parts.append(given)
        return Naming(f"{title(call)} stands", tuple(parts))

    def of_step(self, function: Function) -> frozenset[str] | None:
        """The parameters in the template of a step's name; None where it is not written out."""
        for decorator in function.node.decorator_list:
            if self.meaning.decorated_by(decorator, function.scope) != "zart.step":
                continue
            if not isinstance(decorator, ast.Call) or opaque(decorator):
                return None
            if self.meaning.of(decorator.func, function.scope) != Outside("zart.step"):
                return None  # made by a function of the program, which may make the name, too
            name = argument(decorator, 0, "name")
            return frozenset() if name is None else fields_of(name)
        return None

    def of_flow(self, function: Function) -> frozenset[str] | None:
        """The parameters that vary the least varying name in a flow."""
        if function.node not in self.flows:
            self.flows[function.node] = None  # for one that leads to itself
            self.flows[function.node] = self.least_varied(function)
        return self.flows[function.node]

    def least_varied(self, function: Function) -> frozenset[str] | None:
        """As `of_flow`, worked out: a name outside loops, made of constants and parameters alone."""
        scope = function.module.scopes[function.node]
        spots: list[Spot] = []
        for statement in function.node.body:
            gather(Spot(statement, scope, None, "body"), self.meaning, spots)
        best: frozenset[str] | None = None
        for spot in spots:
            if not isinstance(spot.node, ast.Call) or is_renamed(spot, self.meaning) or is_in_lambda(spot):
                continue
            naming = self.of(spot.node, spot.scope)
            if naming is None:
                continue
            taken = parameters_in(naming.parts, scope)
            if taken is not None and (best is None or len(taken) < len(best)):
                best = taken
        return best


def is_in_lambda(spot: Spot) -> bool:
    """Whether a call stands in a lambda, which may never run."""
    return any(isinstance(around.node, ast.Lambda) for around in spot.around())


def fields_of(name: ast.expr) -> frozenset[str] | None:
    """The parameters that a template names; None where it is not written out."""
    if not isinstance(name, ast.Constant) or not isinstance(name.value, str):
        return None
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(name.value) if field is not None]
    except ValueError:
        return None
    return frozenset(field.split(".")[0].split("[")[0] for field in fields)


def argument_for(function: Function, call: ast.Call, name: str) -> ast.expr | str | None:
    """What a call gives for a parameter; None for its default, "unknown" where it cannot be told."""
    arguments = function.node.args
    names = [parameter.arg for parameter in [*arguments.posonlyargs, *arguments.args]]
    if isinstance(function.scope.node, ast.ClassDef) and names and isinstance(call.func, ast.Attribute):
        if name == names[0]:
            return "unknown"
        names = names[1:]
    if name in names:
        return argument(call, names.index(name), name)
    if name in [parameter.arg for parameter in arguments.kwonlyargs]:
        return argument(call, len(call.args), name)
    return "unknown"


def parameters_in(parts: Sequence[ast.expr], scope: Scope) -> frozenset[str] | None:
    """The parameters that expressions are made of; None if there is anything else in them that may vary."""
    taken: set[str] = set()
    for part in parts:
        for node in ast.walk(part):
            match node:
                case ast.Name(id=name):
                    home = scope.home(name)
                    if home is scope:
                        if not is_parameter(scope, name):
                            return None
                        taken.add(name)
                    elif home is not None and not is_constant(home, name):
                        return None
                case (
                    ast.Constant()
                    | ast.JoinedStr()
                    | ast.FormattedValue()
                    | ast.Attribute()
                    | ast.expr_context()
                ):
                    pass
                case _:
                    return None
    return frozenset(taken)


def is_parameter(scope: Scope, name: str) -> bool:
    """Whether a name is a parameter that nothing else is bound to."""
    match scope.bindings.get(name):
        case [Assigned(value=None)]:
            return True
        case _:
            return False


def is_constant(home: Scope, name: str) -> bool:
    """Whether a name around the function is bound once and never changed."""
    bindings = home.bindings.get(name, [])
    return (
        len(bindings) == 1
        and isinstance(bindings[0], Assigned | Imported | Defined)
        and not home.changed_by.get(name)
    )


# ---------------------------------------------------------------- loops


def loops_around(spot: Spot) -> Iterator[Loop]:
    """The loops that a spot is run in again and again, from the inside out."""
    inner = spot
    for around in spot.around():
        node = around.node
        if isinstance(node, ast.Lambda):
            return
        match node:
            case ast.For():
                again = inner.field == "body"
            case ast.While():
                again = inner.field in ("body", "test")
            case _:
                again = inner.field != "generators"
        if again and isinstance(node, Loop):
            yield node
        inner = around


def varies(code: Code, spot: Spot, parts: Sequence[ast.expr], loop: Loop) -> bool:
    """Whether expressions may differ from one round of a loop to the next."""
    bound, touched = bound_in(loop)
    return not all(is_same(code, part, spot.scope, bound, touched) for part in parts)


def bound_in(loop: Loop) -> tuple[set[str], set[str]]:
    """The names that a loop binds, and those whose insides it may change."""
    bound: set[str] = set()
    touched: set[str] = set()
    for node in ast.walk(loop):
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                bound.add(name)
            case (
                ast.ExceptHandler(name=str(name))
                | ast.MatchAs(name=str(name))
                | ast.MatchStar(name=str(name))
            ):
                bound.add(name)
            case ast.MatchMapping(rest=str(name)):
                bound.add(name)
            case ast.Attribute(ctx=ast.Store()) | ast.Subscript(ctx=ast.Store() | ast.Del()):
                root = root_of(node)
                touched |= {root.id} if root is not None else set()
            case ast.Call(func=ast.Attribute() as method):
                root = root_of(method)
                touched |= {root.id} if root is not None else set()
            case _:
                pass
    return bound, touched


def is_same(code: Code, node: ast.expr, scope: Scope, bound: set[str], touched: set[str]) -> bool:
    """Whether an expression certainly gives the same in every round of a loop."""
    match node:
        case ast.Constant():
            return True
        case ast.Name(id=name):
            home = scope.home(name)
            changed = home is not None and bool(home.changed_by.get(name))
            return name not in bound and name not in touched and not changed
        case ast.Attribute(value=value):
            root = root_of(node)
            inside = root is not None and root.id not in touched
            return inside and is_same(code, value, scope, bound, touched)
        case ast.JoinedStr(values=parts):
            return all(is_same(code, part, scope, bound, touched) for part in parts)
        case ast.FormattedValue(value=value):
            return is_same(code, value, scope, bound, touched)
        case ast.BinOp(left=left, right=right):
            return is_same(code, left, scope, bound, touched) and is_same(code, right, scope, bound, touched)
        case ast.Call(func=function, args=arguments, keywords=[]):
            thing = code.meaning.of(function, scope)
            return (isinstance(thing, Outside) and thing.name in PURE_CALLS) and all(
                is_same(code, each, scope, bound, touched) for each in arguments
            )
        case _:
            return False


# ---------------------------------------------------------------- does the loop go round after it?


def comes_again(code: Code, spot: Spot, loop: Loop) -> bool:
    """Whether a loop can go round again after a spot in it: no `return`, `raise` or `break` stands in the way."""
    if isinstance(loop, Comprehension):
        return True
    leaving = ""
    for around in [spot, *spot.around()]:
        node = around.node
        if node is loop:
            break
        if isinstance(node, ast.For | ast.While) and leaving == "break":
            leaving = ""
        if not isinstance(node, ast.stmt):
            continue
        holder = code.function.node if around.parent is None else around.parent.node
        suite: list[ast.stmt] = getattr(holder, around.field)
        leaving = leaving or leaves_after(code, suite, node)
        if isinstance(holder, ast.Try | ast.TryStar) and around.field == "body":
            handled = [leaves(code, handler.body) for handler in holder.handlers]
            leaving = leaving if all(handled) else ""
    return not leaving


def may_be_once(spot: Spot, loop: Loop) -> bool:
    """Whether a spot in a loop stands below a condition that may hold in one round only.

    It is about a name that is assigned there, such as a flag, or it picks one value of what the loop binds.
    """
    bound, _ = bound_in(loop)
    inner = spot
    for around in spot.around():
        match around.node:
            case node if node is loop:
                return False
            case ast.If(test=test) if inner.field in ("body", "orelse"):
                suite: list[ast.stmt] = getattr(around.node, inner.field)
                if is_turned(test, suite, loop) or (inner.field == "body" and picks_one(test, bound)):
                    return True
            case ast.match_case(pattern=ast.MatchValue()) if around.parent is not None:
                subject = around.parent.node
                if isinstance(subject, ast.Match) and is_bound(subject.subject, bound):
                    return True
            case _:
                pass
        inner = around
    return False


def is_turned(test: ast.expr, suite: Sequence[ast.stmt], loop: Loop) -> bool:
    """Whether statements assign a name that a condition is about, and that no round gives another value anyway."""
    asked = {node.id for node in ast.walk(test) if isinstance(node, ast.Name)}
    given = ast.walk(loop.target) if isinstance(loop, ast.For) else ()
    asked -= {node.id for node in given if isinstance(node, ast.Name)}
    assigned = {
        target.id
        for statement in suite
        if isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign)
        for target in (statement.targets if isinstance(statement, ast.Assign) else [statement.target])
        if isinstance(target, ast.Name)
    }
    return bool(asked & assigned)


def picks_one(test: ast.expr, bound: set[str]) -> bool:
    """Whether a condition asks for one value of what a loop binds."""
    match test:
        case ast.Compare(left=left, ops=[ast.Eq() | ast.Is()], comparators=[ast.Constant()]):
            return is_bound(left, bound)
        case ast.BoolOp(op=ast.And(), values=parts):
            return any(picks_one(part, bound) for part in parts)
        case _:
            return False


def is_bound(node: ast.expr, bound: set[str]) -> bool:
    """Whether an expression is a name that a loop binds."""
    return isinstance(node, ast.Name) and node.id in bound


def leaves_after(code: Code, suite: Sequence[ast.stmt], statement: ast.stmt) -> str:
    """How the loop is left by a statement of a suite or by one that follows it; empty where it may not be."""
    if isinstance(statement, ast.Return | ast.Raise):
        return "return"
    for following in suite[suite.index(statement) + 1 :]:
        if has_continue(following):
            return ""
        if how := leaves(code, [following]):
            return how
    return "return" if is_hand_over(code, statement) else ""


def leaves(code: Code, suite: Sequence[ast.stmt]) -> str:
    """How a suite leaves the loop around it: "return" or "break"; empty where it may not."""
    for statement in suite:
        match statement:
            case ast.Return() | ast.Raise():
                return "return"
            case ast.Break():
                return "break"
            case ast.If(body=body, orelse=orelse):
                ways = leaves(code, body), leaves(code, orelse)
                if all(ways):
                    return "break" if "break" in ways else "return"
            case ast.With(body=body):
                if how := leaves(code, body):
                    return how
            case ast.Match(cases=cases) if any(is_irrefutable(case) for case in cases):
                ways_of_cases = [leaves(code, case.body) for case in cases]
                if all(ways_of_cases):
                    return "break" if "break" in ways_of_cases else "return"
            case _ if is_hand_over(code, statement):
                return "return"
            case _:
                pass
        if has_continue(statement):
            return ""
    return ""


def is_irrefutable(case: ast.match_case) -> bool:
    """Whether a case takes anything."""
    return case.guard is None and isinstance(case.pattern, ast.MatchAs) and case.pattern.pattern is None


def has_continue(statement: ast.stmt) -> bool:
    """Whether a statement may go on with the next round."""
    return any(isinstance(node, ast.Continue) for node in ast.walk(statement))


def is_hand_over(code: Code, statement: ast.stmt) -> bool:
    """Whether a statement is `yield from my_workflow.continue_as_new(...)`, which never comes back."""
    match statement:
        case ast.Expr(value=ast.YieldFrom(value=ast.Call(func=ast.Attribute(attr="continue_as_new")))):
            return True
        case _:
            return False


# ---------------------------------------------------------------- twice in a row


def twice_in_a_row(code: Code, names: Names) -> Iterator[Found]:
    """ZT305: the same step with the same arguments, or the same static name, twice in one suite of statements."""
    suites: dict[int, dict[str, ast.expr]] = {}
    for spot in code.spots:
        node = spot.node
        if not isinstance(node, ast.Expr | ast.Assign | ast.AnnAssign | ast.Return) or node.value is None:
            continue
        value = node.value
        if not isinstance(value, ast.YieldFrom) or not isinstance(value.value, ast.Call):
            continue
        key = fixed_name(code, names, value.value, spot.scope)
        if not key:
            continue
        holder = code.function.node if spot.parent is None else spot.parent.node
        suite = suites.setdefault(id(getattr(holder, spot.field)), {})
        if key in suite:
            first = suite[key]
            yield (
                "ZT305",
                value.value,
                f"{title(value.value)} comes by the same name as on line {first.lineno}",
            )
        else:
            suite[key] = value.value


def fixed_name(code: Code, names: Names, call: ast.Call, scope: Scope) -> str:
    """Something that is the same for commands that certainly have one name; empty where it is not certain."""
    naming = names.of(call, scope)
    if naming is None or not all(isinstance(part, ast.Constant) for part in naming.parts):
        return ""
    if isinstance(call.func, ast.Attribute) and call.func.attr == "named":
        return f"={ast.unparse(naming.parts[0])}"
    function = code.meaning.of(call.func, scope)
    if isinstance(function, Function):
        return f"{id(function.node)}:{', '.join(map(ast.unparse, naming.parts))}"
    return f"={ast.unparse(naming.parts[0])}"
