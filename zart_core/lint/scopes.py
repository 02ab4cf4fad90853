"""The scopes of one module: what each name is bound to, and what is changed from another function.

Rule 1: one pass over a module, and each node is looked at once.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

import attrs

from zart_core.lint.outside import words
from zart_core.records import record

FunctionNode: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
Comprehension: TypeAlias = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp

CHANGING = words(
    "add append appendleft clear discard extend extendleft insert pop popitem popleft remove reverse rotate setdefault "
    "sort subtract update difference_update intersection_update symmetric_difference_update put put_nowait"
)
"""Methods that change what they are called on."""


@record
class Imported:
    """A name that an import statement binds."""

    module: str
    attribute: str | None
    """None for the module itself."""
    anchor: Path | None = None
    """The folder that a relative import starts from."""


@record
class Defined:
    """A name that `def` or `class` binds."""

    node: FunctionNode | ast.ClassDef


@record
class Assigned:
    """A name that an assignment binds: as a whole, with what is known of it."""

    value: ast.expr | None
    annotation: ast.expr | None = None
    scope: Scope | None = None
    """Where the value is evaluated, where that is not where the name is bound."""


@record
class Unclear:
    """A name that is bound to something that the source does not tell: a loop's target, an unpacked value."""


Binding: TypeAlias = Imported | Defined | Assigned | Unclear


@attrs.define(eq=False)
class Scope:
    """What names mean in a module, class, function, lambda or comprehension."""

    module: Module
    node: ast.AST
    parent: Scope | None
    bindings: dict[str, list[Binding]] = attrs.field(factory=dict[str, list[Binding]])
    elsewhere: dict[str, Scope] = attrs.field(factory=dict[str, "Scope"])
    """Names that `global` and `nonlocal` send to another scope."""
    changed_by: dict[str, list[Scope]] = attrs.field(factory=dict[str, list["Scope"]])
    """Names of this scope that functions inside it change, and which."""

    def home(self, name: str) -> Scope | None:
        """The scope that binds a name; None where it is built in, or comes from nowhere."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.elsewhere:
                return scope.elsewhere[name]
            if name in scope.bindings and (scope is self or not isinstance(scope.node, ast.ClassDef)):
                return scope
            scope = scope.parent
        return None

    def function(self) -> Scope:
        """The function around a lambda or comprehension; the scope itself otherwise."""
        scope = self
        while isinstance(scope.node, ast.Lambda | Comprehension) and scope.parent is not None:
            scope = scope.parent
        return scope


class Module:
    """A file that was read."""

    def __init__(self, path: Path, source: str, tree: ast.Module) -> None:
        self.path = path
        self.source = source
        self.tree = tree

    @functools.cached_property
    def scopes(self) -> dict[ast.AST, Scope]:
        """The scope of each node that has one, made when it is first asked for."""
        scopes: dict[ast.AST, Scope] = {}
        Builder(self, scopes).build()
        return scopes

    @property
    def top(self) -> Scope:
        """The scope of the module itself."""
        return self.scopes[self.tree]


BINDING = (
    ast.stmt,
    ast.Call,
    ast.NamedExpr,
    ast.withitem,
    ast.ExceptHandler,
    ast.MatchAs,
    ast.MatchStar,
    ast.MatchMapping,
)
"""What may bind a name, or change what one is bound to."""
LEAVES = (ast.Name, ast.Constant, ast.expr_context, ast.operator, ast.cmpop)
"""What has nothing inside."""


class Builder:
    """Makes the scopes of a module."""

    def __init__(self, module: Module, scopes: dict[ast.AST, Scope]) -> None:
        self.module = module
        self.scopes = scopes
        self.changes: list[tuple[str, Scope]] = []
        """Names that are changed, and where."""
        self.methods: list[tuple[str, Scope]] = []
        """Names on which a method is called that changes most containers, and where."""

    def build(self) -> None:
        """Fill the scopes. O(size of the module)."""
        self.top = top = self.enter(self.module.tree, None)
        for statement in self.module.tree.body:
            self.visit(statement, top)
        for name, scope in self.changes:
            self.note_change(name, scope, scope.home(name))
        for name, scope in self.methods:
            home = scope.home(name)
            if home is not None and not all(map(is_no_object, home.bindings[name])):
                self.note_change(name, scope, home)

    def note_change(self, name: str, scope: Scope, home: Scope | None) -> None:
        """Note that a function changes a name that is not its own."""
        if home is not None and home is not scope.function():
            home.changed_by.setdefault(name, []).append(scope.function())

    def enter(self, node: ast.AST, parent: Scope | None) -> Scope:
        """A new scope."""
        scope = self.scopes[node] = Scope(self.module, node, parent)
        return scope

    def visit(self, node: ast.AST, scope: Scope) -> None:
        """Bind what a node binds, and go into it."""
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                self.bind(scope, node.name, Defined(node))
                self.visit_all([*node.decorator_list, *defaults_of(node.args)], scope)
                inner = self.enter(node, scope)
                self.bind_parameters(node.args, inner)
                self.bind_self(node, inner)
                self.visit_all(node.body, inner)
            case ast.ClassDef():
                self.bind(scope, node.name, Defined(node))
                self.visit_all([*node.decorator_list, *node.bases], scope)
                self.visit_all(node.body, self.enter(node, scope))
            case ast.Lambda():
                self.visit_all(defaults_of(node.args), scope)
                inner = self.enter(node, scope)
                self.bind_parameters(node.args, inner)
                self.visit(node.body, inner)
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                self.visit_comprehension(node, scope)
            case _:
                if isinstance(node, BINDING):
                    self.bind_statement(node, scope)
                self.visit_all(ast.iter_child_nodes(node), scope)

    def visit_all(self, nodes: Iterable[ast.AST], scope: Scope) -> None:
        """Visit several nodes in a scope."""
        for node in nodes:
            if not isinstance(node, LEAVES):
                self.visit(node, scope)

    def visit_comprehension(self, node: Comprehension, scope: Scope) -> None:
        """The targets of a comprehension are its own; its first iterable is evaluated outside."""
        inner = self.enter(node, scope)
        for index, part in enumerate(node.generators):
            self.visit(part.iter, inner if index else scope)
            self.bind_target(inner, part.target, None)
            self.visit_all(part.ifs, inner)
        self.visit_all([node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt], inner)

    def bind_statement(self, node: ast.AST, scope: Scope) -> None:
        """Bind what a statement or expression binds, and note what it changes in place."""
        match node:
            case ast.Import():
                for alias in node.names:
                    name = alias.asname or alias.name.split(".")[0]
                    self.bind(scope, name, Imported(alias.name if alias.asname else name, None))
            case ast.ImportFrom():
                anchor = anchor_of(self.module, node.level)
                for alias in node.names:
                    self.bind(
                        scope, alias.asname or alias.name, Imported(node.module or "", alias.name, anchor)
                    )
            case ast.Assign():
                for target in node.targets:
                    self.bind_target(scope, target, node.value)
            case ast.AnnAssign(target=ast.Name(id=name)):
                self.bind(scope, name, Assigned(node.value, node.annotation))
            case ast.AugAssign(target=ast.Name(id=name)):
                self.bind(scope, name, Unclear())
                self.changes.append((name, scope))
            case ast.AugAssign(target=target):
                self.bind_target(scope, target, None)
            case ast.NamedExpr():
                self.bind(scope.function(), node.target.id, Assigned(node.value, scope=scope))
            case ast.For() | ast.AsyncFor():
                self.bind_target(scope, node.target, None)
            case ast.withitem(optional_vars=ast.expr() as target):
                self.bind_target(scope, target, None)
            case ast.ExceptHandler(name=str(name)) | ast.MatchStar(name=str(name)):
                self.bind(scope, name, Unclear())
            case ast.MatchAs(name=str(name)) | ast.MatchMapping(rest=str(name)):
                self.bind(scope, name, Unclear())
            case ast.Delete():
                for target in node.targets:
                    self.bind_target(scope, target, None)
            case ast.Global():
                for name in node.names:
                    scope.elsewhere[name] = self.top
            case ast.Nonlocal():
                for name in node.names:
                    home = scope.parent.home(name) if scope.parent else None
                    scope.elsewhere[name] = home or self.top
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=method)) if method in CHANGING:
                self.methods.append((name, scope))
            case ast.Call(func=ast.Name(id="next"), args=[ast.Name(id=name), *_]):
                self.changes.append((name, scope))
            case _:
                pass

    def bind(self, scope: Scope, name: str, binding: Binding) -> None:
        """Bind a name, in another scope where `global` or `nonlocal` says so."""
        if name in scope.elsewhere:
            home = scope.elsewhere[name]
            self.changes.append((name, scope))
            home.bindings.setdefault(name, []).append(Unclear())
        else:
            scope.bindings.setdefault(name, []).append(binding)

    def bind_target(self, scope: Scope, target: ast.expr, value: ast.expr | None) -> None:
        """Bind the names of an assignment's target; what is stored inside something changes that."""
        match target:
            case ast.Name(id=name):
                self.bind(scope, name, Unclear() if value is None else Assigned(value))
            case ast.Tuple(elts=parts) | ast.List(elts=parts):
                values = (
                    value.elts if isinstance(value, ast.Tuple) and len(value.elts) == len(parts) else None
                )
                for index, part in enumerate(parts):
                    self.bind_target(scope, part, values[index] if values else None)
            case ast.Starred(value=part):
                self.bind_target(scope, part, None)
            case ast.Attribute() | ast.Subscript():
                root = root_of(target)
                if root is not None:
                    self.changes.append((root.id, scope))
            case _:
                pass

    def bind_self(self, function: FunctionNode, scope: Scope) -> None:
        """Give the first parameter of a method its type, where it has none."""
        around = scope.parent
        taken = [*function.args.posonlyargs, *function.args.args]
        if around is None or not isinstance(around.node, ast.ClassDef) or not taken:
            return
        is_static = any(
            isinstance(each, ast.Name) and each.id == "staticmethod" for each in function.decorator_list
        )
        if not is_static and taken[0].annotation is None:
            own = ast.Name(around.node.name, ast.Load())
            scope.bindings[taken[0].arg] = [Assigned(None, own, around.parent)]

    def bind_parameters(self, arguments: ast.arguments, scope: Scope) -> None:
        """Bind the parameters of a function."""
        for parameter in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]:
            self.bind(scope, parameter.arg, Assigned(None, parameter.annotation, scope.parent))
        for several in arguments.vararg, arguments.kwarg:
            if several is not None:
                self.bind(scope, several.arg, Unclear())


def is_no_object(binding: Binding) -> bool:
    """Whether a name is bound to a module, class or function: `os.remove(...)` does not change `os`."""
    return isinstance(binding, Defined) or (isinstance(binding, Imported) and binding.attribute is None)


def defaults_of(arguments: ast.arguments) -> list[ast.expr]:
    """The defaults of parameters."""
    return [*arguments.defaults, *(default for default in arguments.kw_defaults if default is not None)]


def root_of(target: ast.expr) -> ast.Name | None:
    """The name at the left of `a.b[c].d`."""
    while isinstance(target, ast.Attribute | ast.Subscript):
        target = target.value
    return target if isinstance(target, ast.Name) else None


def anchor_of(module: Module, level: int) -> Path | None:
    """The folder that a relative import starts from; None for an absolute one."""
    if level == 0:
        return None
    folder = module.path.parent
    for _ in range(level - 1):
        folder = folder.parent
    return folder
