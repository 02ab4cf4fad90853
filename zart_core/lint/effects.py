"""Checks of what looks outside or outlives the run: clock, chance, environment, effects, state (ZT1xx, ZT2xx)."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from zart_core.lint.code import Code, Found, Spot, shown, title
from zart_core.lint.meaning import Class, Function, ModuleOf, Outside, own_nodes
from zart_core.lint.outside import READS, opaque, rule_of, rule_of_call, words
from zart_core.lint.scopes import FunctionNode, Scope, defaults_of

SAYS = {
    "ZT101": "reads the clock",
    "ZT102": "draws a random number",
    "ZT103": "makes a unique id",
    "ZT104": "reads the environment",
    "ZT106": "changes from process to process",
    "ZT201": "touches files",
    "ZT202": "talks to the network",
    "ZT203": "starts a process",
    "ZT204": "uses threads or an event loop",
    "ZT205": "sleeps in its thread",
    "ZT206": "prints or logs",
    "ZT207": "is an effect",
}
CALLING = frozenset(
    {"map", "filter", "sorted", "min", "max", "sum", "next", "iter", "any", "all", "list", "tuple"}
)
"""Built-in functions that call what they are given."""
FACTORIES = words(
    "attrs.field attr.field attr.ib attrs.Factory attr.Factory dataclasses.field pydantic.Field msgspec.field"
)
"""What says in a class how a field is filled."""
MAKERS = frozenset({"list", "dict", "set", "bytearray"})


def calls_outside(code: Code) -> Iterator[Found]:
    """ZT101 to ZT104, ZT106, ZT201 to ZT207: a call, or a function given to one that calls it."""
    for spot in code.spots:
        if not isinstance(spot.node, ast.Call):
            continue
        call = spot.node
        thing = code.meaning.of(call.func, spot.scope)
        if isinstance(thing, Outside):
            rule = rule_of_call(thing.name, call)
            if rule is not None:
                yield rule, call, f"{title(call)} {SAYS[rule]}"
            elif calls_its_arguments(thing.name):
                yield from given_functions(code, spot, call)
        elif is_step_body(code, spot, call):
            yield "ZT207", call, f"{title(call)} runs the body of a step"


def given_functions(code: Code, spot: Spot, call: ast.Call) -> Iterator[Found]:
    """Functions that look outside, given to something that calls them."""
    for argument in [*call.args, *(keyword.value for keyword in call.keywords)]:
        thing = (
            code.meaning.of(argument, spot.scope) if isinstance(argument, ast.Name | ast.Attribute) else None
        )
        rule = rule_of(thing.name) if isinstance(thing, Outside) else None
        if rule is not None:
            yield rule, argument, f"{shown(argument)}, called by {title(call)}, {SAYS[rule]}"


def calls_its_arguments(name: str) -> bool:
    """Whether a function of the standard library calls functions that it is given."""
    top, _, rest = name.partition(".")
    return (
        (top == "builtins" and rest in CALLING)
        or top in ("functools", "itertools")
        or name == "zart.step_or_else"
    )


def is_step_body(code: Code, spot: Spot, call: ast.Call) -> bool:
    """Whether it is `my_step.fn(...)`."""
    match call.func:
        case ast.Attribute(value=base, attr="fn" | "call"):
            function = code.meaning.of(base, spot.scope)
            return isinstance(function, Function) and code.meaning.sort(function) == "step"
        case _:
            return False


def reads_outside(code: Code) -> Iterator[Found]:
    """ZT104: the environment and the command line, read as values."""
    for spot in code.spots:
        if isinstance(spot.node, ast.Attribute | ast.Name):
            thing = code.meaning.of(spot.node, spot.scope)
            if isinstance(thing, Outside) and thing.name in READS:
                yield READS[thing.name], spot.node, f"{shown(spot.node)} is not the run's own"


def shared_state(code: Code) -> Iterator[Found]:
    """ZT107: a name of the module, or of a function around the workflow, that functions change."""
    told: set[str] = set()
    for spot in code.spots:
        if not isinstance(spot.node, ast.Name) or spot.node.id in told:
            continue
        name = spot.node.id
        home = spot.scope.home(name)
        if home is None or home.function().node in code.reached or isinstance(home.node, ast.ClassDef):
            continue
        if isinstance(code.meaning.of(spot.node, spot.scope), ModuleOf):
            continue
        changers = [scope for scope in changed_by(code, home, name) if not at_import_only(scope)]
        if changers and not is_own_generator(home):
            told.add(name)
            who = ", ".join(sorted({f"`{name_of(scope)}`" for scope in changers}))
            yield "ZT107", spot.node, f"`{name}` is kept outside the run and changed by {who}"


def fresh_fields(code: Code) -> Iterator[Found]:
    """ZT101 to ZT104: an object is made whose class fills a field by a function that looks outside."""
    for spot in code.spots:
        call = spot.node
        made = code.meaning.of(call.func, spot.scope) if isinstance(call, ast.Call) else None
        if not isinstance(call, ast.Call) or not isinstance(made, Class) or opaque(call):
            continue
        for name, factory, before in factories_of(code, made):
            is_filled = any(keyword.arg == name for keyword in call.keywords) or len(call.args) > before
            rule = None if is_filled else rule_of_factory(code, factory, made.scope)
            if rule is not None:
                yield rule, call, f"{title(call)} fills `{name}` by {shown(factory)}, which {SAYS[rule]}"


def factories_of(code: Code, cls: Class) -> Iterator[tuple[str, ast.expr, int]]:
    """The fields of a class that a function fills: name, function, and how many fields stand before it."""
    before = 0
    for statement in cls.node.body:
        match statement:
            case ast.AnnAssign(target=ast.Name(id=name), value=value):
                for call in [value] if isinstance(value, ast.Call) else []:
                    thing = code.meaning.of(call.func, cls.scope)
                    if isinstance(thing, Outside) and thing.name in FACTORIES:
                        given = [*call.args[:1]] if thing.name.endswith("Factory") else []
                        given += [
                            key.value for key in call.keywords if key.arg in ("factory", "default_factory")
                        ]
                        yield from ((name, factory, before) for factory in given)
                before += 1
            case _:
                pass


def rule_of_factory(code: Code, factory: ast.expr, scope: Scope) -> str | None:
    """The rule that filling a field breaks."""
    if isinstance(factory, ast.Lambda):
        if not isinstance(factory.body, ast.Call):
            return None
        thing = code.meaning.of(factory.body.func, scope)
        return rule_of_call(thing.name, factory.body) if isinstance(thing, Outside) else None
    thing = code.meaning.of(factory, scope)
    return rule_of(thing.name) if isinstance(thing, Outside) else None


def changed_by(code: Code, home: Scope, name: str) -> list[Scope]:
    """The functions that change a name, where it is defined and where it is imported to."""
    changers = list(home.changed_by.get(name, []))
    for binding in home.bindings.get(name, []):
        origin = code.meaning.origin(binding)
        if origin is not None:
            changers += origin[0].changed_by.get(origin[1], [])
    return [scope for scope in changers if scope is not home]


def is_own_generator(home: Scope) -> bool:
    """Whether a scope is that of a generator: a flow around this one, whose variables are the run's own."""
    node = home.function().node
    return isinstance(node, ast.FunctionDef) and any(
        isinstance(part, ast.Yield | ast.YieldFrom) for part in own_nodes(node)
    )


def at_import_only(scope: Scope) -> bool:
    """Whether a function changes things while modules are imported: a decorator, or something called at the top."""
    nodes: list[FunctionNode] = []
    around: Scope | None = scope
    while around is not None:
        if isinstance(around.node, ast.FunctionDef | ast.AsyncFunctionDef):
            nodes.append(around.node)
        around = around.parent
    return bool(nodes) and (
        any(map(is_decorator, nodes)) or nodes[-1].name in called_at_import(scope.module.tree)
    )


def is_decorator(function: FunctionNode) -> bool:
    """Whether a function gives back what it was given."""
    taken = {parameter.arg for parameter in [*function.args.posonlyargs, *function.args.args]}
    return any(
        isinstance(node, ast.Return) and isinstance(node.value, ast.Name) and node.value.id in taken
        for node in own_nodes(function)
    )


def called_at_import(tree: ast.Module) -> set[str]:
    """The names that a module calls while it is imported, decorators included."""
    names: set[str] = set()
    for statement in tree.body:
        parts: list[ast.AST] = [statement]
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            parts = list(statement.decorator_list)
            names.update(part.id for part in parts if isinstance(part, ast.Name))
        elif isinstance(statement, ast.If) and "__main__" in ast.unparse(statement.test):
            continue
        for part in parts:
            for node in ast.walk(part):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                    names.add(node.func.id)
    return names


def name_of(scope: Scope) -> str:
    """What the function of a scope is called."""
    node = scope.node
    return (
        node.name if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) else "a lambda"
    )


def mutable_defaults(code: Code) -> Iterator[Found]:
    """ZT108: a list, dictionary or set as the default of a parameter."""
    for default in defaults_of(code.function.node.args):
        match default:
            case ast.List() | ast.Dict() | ast.Set() | ast.ListComp() | ast.DictComp() | ast.SetComp():
                yield (
                    "ZT108",
                    default,
                    f"{shown(default)} is the default of a parameter of `{code.function.node.name}`",
                )
            case ast.Call(func=ast.Name(id=maker)) if maker in MAKERS:
                yield (
                    "ZT108",
                    default,
                    f"{shown(default)} is the default of a parameter of `{code.function.node.name}`",
                )
            case _:
                pass
