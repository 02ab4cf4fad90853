"""What an expression stands for: something outside, a function, a class, an object, a command, a flow.

Rule 1: where the source does not say, the answer is None, and nothing is found there.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator
from typing import Literal, TypeAlias

import zart_core
from zart_core.lint.outside import RETURNS, words
from zart_core.lint.project import OURS, Project
from zart_core.lint.scopes import Assigned, Binding, Defined, FunctionNode, Imported, Module, Scope, Unclear
from zart_core.records import record

DEPTH_MAX = 24
"""How many names an answer may lead through; more is a circle."""
INTERNAL = frozenset({"commands", "steps", "workflows", "context", "policies", "events", "errors"})
COMMANDS = words(
    "sleep sleep_until wait_for_event capture now uuid random child spawn version schedule wait settle wait_any gather "
    "race scope shield"
)
FLOWS = frozenset({"outcome", "step_or", "step_or_else"})
SETS = words(
    "builtins.set builtins.frozenset typing.Set typing.FrozenSet typing.AbstractSet typing.MutableSet "
    "collections.abc.Set collections.abc.MutableSet"
)
PROPERTIES = words("builtins.property functools.cached_property")
SET_METHODS = frozenset({"union", "intersection", "difference", "symmetric_difference", "copy"})


@record
class Outside:
    """Something that is not of the program, by its full name: `time.time`, `builtins.open`, `zart.sleep`."""

    name: str


@record
class OutsideObject:
    """An object of a class that is not of the program."""

    type: str


@record
class Function:
    """A function of the program."""

    node: FunctionNode
    scope: Scope
    """Where it is defined."""

    @property
    def module(self) -> Module:
        """The module it stands in."""
        return self.scope.module


@record
class Class:
    """A class of the program."""

    node: ast.ClassDef
    scope: Scope


@record
class Object:
    """An object of a class of the program."""

    cls: Class


@record
class ModuleOf:
    """A module of the program."""

    module: Module


Thing: TypeAlias = Outside | OutsideObject | Function | Class | Object | ModuleOf
Kind: TypeAlias = Literal["command", "flow", "task"]
Sort: TypeAlias = Literal["step", "workflow", "flow", "generator", "async", "async generator", "plain"]


class Meaning:
    """Answers about the expressions of a program."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.sorts: dict[FunctionNode, Sort] = {}
        self.kinds: dict[FunctionNode, Kind | None] = {}

    # ------------------------------------------------------------ things

    def of(self, node: ast.expr, scope: Scope, depth: int = 0) -> Thing | None:
        """What an expression stands for."""
        if depth > DEPTH_MAX:
            return None
        match node:
            case ast.Name():
                return self.of_name(node.id, scope, depth + 1)
            case ast.Attribute():
                base = self.of(node.value, scope, depth + 1)
                return None if base is None else self.attribute(base, node.attr, depth + 1)
            case ast.Call():
                return self.of_call(node, scope, depth + 1)
            case ast.NamedExpr() | ast.Await():
                return self.of(node.value, scope, depth + 1)
            case ast.YieldFrom():
                return self.of_result(node.value, scope, depth + 1)
            case _:
                return None

    def of_name(self, name: str, scope: Scope, depth: int) -> Thing | None:
        """What a name stands for."""
        home = scope.home(name)
        if home is None:
            starred = self.by_star(scope.module, name, depth)
            return starred or (Outside(f"builtins.{name}") if hasattr(builtins, name) else None)
        return self.of_bindings(home.bindings[name], home, depth)

    def of_bindings(self, bindings: list[Binding], home: Scope, depth: int) -> Thing | None:
        """What a name stands for that is bound so: all must agree, but for imports and overloads."""
        for kind in Defined, Imported:
            same = [binding for binding in bindings if isinstance(binding, kind)]
            if same and len(same) == len(bindings):
                return self.of_binding(same[-1], home, depth)
        declared = [each for each in bindings if isinstance(each, Assigned) and each.annotation is not None]
        if declared:
            return self.of_binding(declared[0], home, depth)
        return self.of_binding(bindings[0], home, depth) if len(bindings) == 1 else None

    def of_binding(self, binding: Binding, home: Scope, depth: int) -> Thing | None:
        """What one binding gives."""
        match binding:
            case Defined(ast.ClassDef() as node):
                return Class(node, home)
            case Defined(ast.FunctionDef() | ast.AsyncFunctionDef() as node):
                return Function(node, home)
            case Imported():
                return self.of_import(binding, depth)
            case Assigned(value, annotation, scope):
                typed = None if annotation is None else self.of_type(annotation, scope or home, depth + 1)
                return typed or (None if value is None else self.of(value, scope or home, depth + 1))
            case _:
                return None

    def of_import(self, imported: Imported, depth: int) -> Thing | None:
        """What an import gives."""
        if imported.anchor is not None:
            module = self.project.find_beside(imported.anchor, imported.module)
            dotted = f"?.{imported.module}"
        else:
            module = self.project.find(imported.module)
            dotted = imported.module
        if imported.attribute is None:
            return Outside(canonical(dotted)) if module is None else ModuleOf(module)
        if module is not None and (found := self.attribute(ModuleOf(module), imported.attribute, depth + 1)):
            return found
        if imported.anchor is not None:
            name = f"{imported.module}.{imported.attribute}" if imported.module else imported.attribute
            inner = self.project.find_beside(imported.anchor, name)
        else:
            inner = self.project.find(f"{imported.module}.{imported.attribute}")
        if inner is not None:
            return ModuleOf(inner)
        return Outside(canonical(f"{dotted}.{imported.attribute}")) if module is None else None

    def attribute(self, base: Thing, name: str, depth: int) -> Thing | None:
        """What an attribute of a thing stands for."""
        match base:
            case Outside(dotted):
                inner = self.project.find(f"{dotted}.{name}")
                return Outside(canonical(f"{dotted}.{name}")) if inner is None else ModuleOf(inner)
            case OutsideObject(dotted):
                return Outside(f"{dotted}.{name}")
            case ModuleOf(module):
                return self.of_member(module, name, depth)
            case Class() | Object():
                return self.of_class_member(base if isinstance(base, Class) else base.cls, name, depth)
            case _:
                return None

    def of_member(self, module: Module, name: str, depth: int) -> Thing | None:
        """What a module of the program has under a name."""
        if name in module.top.bindings:
            return self.of_bindings(module.top.bindings[name], module.top, depth)
        if (starred := self.by_star(module, name, depth)) is not None:
            return starred
        inner = (
            self.project.find_beside(module.path.parent, name) if module.path.name == "__init__.py" else None
        )
        return None if inner is None else ModuleOf(inner)

    def by_star(self, module: Module, name: str, depth: int) -> Thing | None:
        """What `from ... import *` brings to a module under a name."""
        for binding in module.top.bindings.get("*", []):
            if not isinstance(binding, Imported) or depth > DEPTH_MAX:
                continue
            found = self.of_import(Imported(binding.module, name, binding.anchor), depth + 1)
            if isinstance(found, Outside) and found.name != f"zart.{name}":
                continue  # it cannot be told whether it is there
            if found is not None and (not isinstance(found, Outside) or name in zart_core.__all__):
                return found
        return None

    def of_class_member(self, cls: Class, name: str, depth: int) -> Thing | None:
        """What a class or its bases have under a name."""
        if depth > DEPTH_MAX:
            return None
        inner = cls.scope.module.scopes[cls.node]
        if name in inner.bindings:
            return self.of_bindings(inner.bindings[name], inner, depth)
        for base in cls.node.bases:
            thing = self.of(base, cls.scope, depth + 1)
            if isinstance(thing, Class) and (found := self.of_class_member(thing, name, depth + 1)):
                return found
        return None

    def of_call(self, call: ast.Call, scope: Scope, depth: int) -> Thing | None:
        """What a call gives."""
        function = self.of(call.func, scope, depth)
        match function:
            case Class():
                return Object(function)
            case Outside("functools.partial") if call.args:
                return self.of(call.args[0], scope, depth)
            case Outside(name) if name in RETURNS:
                return OutsideObject(RETURNS[name])
            case Outside(name) if name in SETS or name.rpartition(".")[2][:1].isupper():
                return OutsideObject(name)
            case Outside(name) if name.rpartition(".")[2] in SET_METHODS and name.rpartition(".")[0] in SETS:
                return OutsideObject("builtins.set")
            case Function(node, home) if self.sort(function) == "plain" and node.returns is not None:
                return self.of_type(node.returns, home, depth)
            case _:
                return None

    def of_result(self, node: ast.expr, scope: Scope, depth: int) -> Thing | None:
        """What `yield from` over a call gives: by the declared result of the step or flow."""
        while (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "named"
        ):
            node = node.func.value
        function = self.of(node.func, scope, depth) if isinstance(node, ast.Call) else None
        if not isinstance(function, Function) or function.node.returns is None:
            return None
        declared: ast.expr = function.node.returns
        if self.sort(function) != "step":
            match unquoted(declared):
                case ast.Subscript(slice=ast.Tuple(elts=[_, _, inner])) | ast.Subscript(slice=inner):
                    declared = inner
                case _:
                    return None
        return self.of_type(declared, function.scope, depth)

    def of_type(self, annotation: ast.expr, scope: Scope, depth: int) -> Thing | None:
        """An object of an annotated type; None for unions of several."""
        match unquoted(annotation):
            case ast.BinOp(left=left, op=ast.BitOr(), right=ast.Constant(value=None)):
                return self.of_type(left, scope, depth)
            case ast.Subscript(value=value, slice=inner):
                container = self.of(value, scope, depth)
                if isinstance(container, Outside) and container.name in (
                    "typing.Annotated",
                    "typing.Optional",
                ):
                    return self.of_type(
                        inner.elts[0] if isinstance(inner, ast.Tuple) else inner, scope, depth
                    )
                return an_object(container)
            case ast.Name() | ast.Attribute() as name:
                return an_object(self.of(name, scope, depth))
            case _:
                return None

    def origin(self, binding: Binding) -> tuple[Scope, str] | None:
        """The scope and name in another module of the program that an import leads to."""
        if not isinstance(binding, Imported) or binding.attribute is None:
            return None
        if binding.anchor is not None:
            module = self.project.find_beside(binding.anchor, binding.module)
        else:
            module = self.project.find(binding.module)
        return None if module is None else (module.top, binding.attribute)

    def assigned(self, name: ast.Name, scope: Scope) -> tuple[ast.expr, Scope] | None:
        """What a name was assigned, where that is one expression, and the scope of it."""
        home = scope.home(name.id)
        match home.bindings[name.id] if home is not None else []:
            case [Assigned(value=ast.expr() as value, scope=where)] if home is not None:
                return value, where or home
            case _:
                return None

    # ------------------------------------------------------------ sorts of functions

    def sort(self, function: Function) -> Sort:
        """What sort of function it is: by its decorators, by what it is declared to give, by its yields."""
        known = self.sorts.get(function.node)
        if known is None:
            self.sorts[function.node] = "plain"  # for one that leads to itself
            known = self.sorts[function.node] = self.sort_of(function)
        return known

    def sort_of(self, function: Function) -> Sort:
        """As `sort`, worked out."""
        decorated = self.decorated_as(function)
        if decorated is not None:
            return decorated
        yields = any(isinstance(node, ast.Yield | ast.YieldFrom) for node in own_nodes(function.node))
        if isinstance(function.node, ast.AsyncFunctionDef):
            return "async generator" if yields else "async"
        if not yields:
            return "plain"
        return "flow" if self.is_declared_flow(function) or self.yields_commands(function) else "generator"

    def decorated_as(self, function: Function) -> Literal["step", "workflow"] | None:
        """Whether its decorators make a step or a workflow of it."""
        for decorator in function.node.decorator_list:
            match self.decorated_by(decorator, function.scope):
                case "zart.step":
                    return "step"
                case "zart.workflow":
                    return "workflow"
                case _:
                    pass
        return None

    def decorated_by(self, decorator: ast.expr, scope: Scope, depth: int = 0) -> str:
        """The full name of a decorator, looked for in functions that make one."""
        called = decorator.func if isinstance(decorator, ast.Call) else decorator
        thing = self.of(called, scope)
        match thing:
            case Outside(name):
                return name
            case Function(node) if isinstance(decorator, ast.Call) and depth < 3:
                inner = thing.module.scopes[node]
                for part in own_nodes(node):
                    if isinstance(part, ast.Return) and isinstance(part.value, ast.Call):
                        return self.decorated_by(part.value, inner, depth + 1)
                return ""
            case _:
                return ""

    def getter(self, node: ast.Attribute, scope: Scope) -> Function | None:
        """The function that runs where an attribute of an object is read, if that is a property."""
        base = self.of(node.value, scope) if isinstance(node.ctx, ast.Load) else None
        function = self.attribute(base, node.attr, 0) if isinstance(base, Object) else None
        if not isinstance(function, Function):
            return None
        decorators = [self.of(each, function.scope) for each in function.node.decorator_list]
        is_property = any(isinstance(each, Outside) and each.name in PROPERTIES for each in decorators)
        return function if is_property else None

    def is_declared_flow(self, function: Function) -> bool:
        """Whether it is annotated `Flow[...]`, or as a generator of commands."""
        match unquoted(function.node.returns):
            case ast.Subscript(value=value, slice=inner):
                container = self.of(value, function.scope)
                if container == Outside("zart.Flow"):
                    return True
                first = inner.elts[0] if isinstance(inner, ast.Tuple) and inner.elts else inner
                head = first.value if isinstance(first, ast.Subscript) else first
                return isinstance(container, Outside) and self.of(head, function.scope) == Outside(
                    "zart.Command"
                )
            case ast.expr() as bare:
                return self.of(bare, function.scope) == Outside("zart.Flow")
            case _:
                return False

    def yields_commands(self, function: Function) -> bool:
        """Whether it yields a command or a flow, as far as can be told."""
        inner = function.module.scopes[function.node]
        return any(
            isinstance(node, ast.Yield | ast.YieldFrom)
            and node.value is not None
            and self.kind(node.value, inner) in ("command", "flow")
            for node in own_nodes(function.node)
        )

    # ------------------------------------------------------------ commands, flows, tasks

    def kind(self, node: ast.expr, scope: Scope, depth: int = 0) -> Kind | None:
        """Whether an expression gives a command, a flow or a task; None where that is not certain."""
        if depth > DEPTH_MAX:
            return None
        match node:
            case ast.Call():
                return self.kind_of_call(node, scope, depth + 1)
            case ast.Name():
                value = self.assigned(node, scope)
                return None if value is None else self.kind(*value, depth + 1)
            case ast.NamedExpr():
                return self.kind(node.value, scope, depth + 1)
            case ast.IfExp():
                first = self.kind(node.body, scope, depth + 1)
                return first if first == self.kind(node.orelse, scope, depth + 1) else None
            case ast.YieldFrom(value=ast.Call() as call) | ast.Yield(value=ast.Call() as call):
                return "task" if self.of(call.func, scope) == Outside("zart.schedule") else None
            case _:
                return None

    def kind_of_call(self, call: ast.Call, scope: Scope, depth: int) -> Kind | None:
        """What a call gives."""
        if isinstance(call.func, ast.Attribute):
            method, base = call.func.attr, call.func.value
            if method == "named" and self.kind(base, scope, depth) == "command":
                return "command"
            if method == "cancel" and self.kind(base, scope, depth) == "task":
                return "command"
            owner = self.of(base, scope) if method in ("continue_as_new", "fn") else None
            if isinstance(owner, Function) and self.sort(owner) == "workflow":
                return "command" if method == "continue_as_new" else "flow"
        function = self.of(call.func, scope)
        match function:
            case Outside(name) if name.startswith("zart."):
                short = name.removeprefix("zart.")
                return "command" if short in COMMANDS else "flow" if short in FLOWS else None
            case Function():
                return self.kind_of_function(function, depth)
            case _:
                return None

    def kind_of_function(self, function: Function, depth: int) -> Kind | None:
        """What calling a function of the program gives."""
        match self.sort(function):
            case "step":
                return "command"
            case "workflow" | "flow":
                return "flow"
            case "plain":
                return self.kind_of_returns(function, depth)
            case _:
                return None

    def kind_of_returns(self, function: Function, depth: int) -> Kind | None:
        """What a plain function returns, if that is the same everywhere."""
        if function.node not in self.kinds:
            self.kinds[function.node] = None  # for one that calls itself
            inner = function.module.scopes[function.node]
            returned: set[Kind | None] = {
                self.kind(node.value, inner, depth + 1) if node.value is not None else None
                for node in own_nodes(function.node)
                if isinstance(node, ast.Return)
            }
            self.kinds[function.node] = returned.pop() if len(returned) == 1 else None
        return self.kinds[function.node]

    # ------------------------------------------------------------ sets

    def is_unordered(self, node: ast.expr, scope: Scope, depth: int = 0) -> bool:
        """Whether an expression certainly gives a set, or a mapping in the order of one."""
        if depth > DEPTH_MAX:
            return False
        match node:
            case ast.Set() | ast.SetComp():
                return True
            case ast.DictComp():
                inner = scope.module.scopes.get(node, scope)
                return any(self.is_unordered(part.iter, inner, depth + 1) for part in node.generators)
            case ast.BinOp(op=ast.BitAnd() | ast.BitOr() | ast.BitXor() | ast.Sub()):
                sides = node.left, node.right
                return any(
                    self.is_unordered(side, scope, depth + 1) or is_keys(side) for side in sides
                ) and not any(isinstance(side, ast.Constant) for side in sides)
            case ast.IfExp():
                return any(self.is_unordered(side, scope, depth + 1) for side in (node.body, node.orelse))
            case ast.NamedExpr():
                return self.is_unordered(node.value, scope, depth + 1)
            case ast.Name():
                return self.is_unordered_name(node, scope, depth + 1)
            case ast.Call(func=ast.Attribute(attr="keys" | "values" | "items" | "copy", value=base), args=[]):
                return self.is_unordered(base, scope, depth + 1)
            case ast.Call(func=ast.Attribute(attr="fromkeys"), args=[keys, *_]):
                return self.is_unordered(keys, scope, depth + 1)
            case ast.Call(func=ast.Attribute(attr=method, value=base)) if method in SET_METHODS:
                return self.is_unordered(base, scope, depth + 1)
            case _:
                return self.is_a_set(self.of(node, scope))

    def is_unordered_name(self, name: ast.Name, scope: Scope, depth: int) -> bool:
        """As `is_unordered`, for a name: by its annotation, or by all that is assigned to it."""
        home = scope.home(name.id)
        if home is None:
            return False
        if self.is_a_set(self.of(name, scope)):
            return True
        bindings = home.bindings[name.id]
        values = [(each.value, each.scope or home) for each in bindings if isinstance(each, Assigned)]
        others = [each for each in bindings if not isinstance(each, Assigned | Unclear)]
        return (
            bool(values)
            and not others
            and all(value is not None and self.is_unordered(value, where, depth) for value, where in values)
        )

    def is_a_set(self, thing: Thing | None) -> bool:
        """Whether it is an object of a set's type."""
        return isinstance(thing, OutsideObject) and thing.type in SETS


def is_keys(node: ast.expr) -> bool:
    """Whether it is `something.keys()`, which becomes a set when it is combined."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "keys"


def an_object(thing: Thing | None) -> Thing | None:
    """An object of a class."""
    match thing:
        case Outside(name):
            return OutsideObject(name)
        case Class():
            return Object(thing)
        case _:
            return None


def canonical(name: str) -> str:
    """A full name, with `zart.` before everything that is ours."""
    parts = name.split(".")
    if parts[0] in OURS and parts[0] != "zart_stores":
        rest = parts[2:] if len(parts) > 2 and parts[1] in INTERNAL else parts[1:]
        return ".".join(["zart", *rest])
    return name


def unquoted(annotation: ast.expr | None) -> ast.expr | None:
    """An annotation, parsed where it is written as a text."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        try:
            return ast.parse(annotation.value, mode="eval").body
        except (SyntaxError, ValueError):
            return None
    return annotation


def own_nodes(function: FunctionNode) -> Iterator[ast.AST]:
    """The nodes of a function's body, without those of functions, classes and lambdas inside."""
    todo: list[ast.AST] = list(function.body)
    while todo:
        node = todo.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            todo.extend(ast.iter_child_nodes(node))
