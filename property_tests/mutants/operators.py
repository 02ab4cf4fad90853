"""What a mutant is, and the mutants of a source text: one small change each, cut out of the text by its syntax tree.

Rule 1: what is no behaviour is left alone: annotations, type variables, decorators, docstrings, texts, assertions, and
the statements of a module or class body that define it. `strict=` of a zip is an assertion, too.

Rule 2: what any test would notice that comes by is left alone, too: the only assignment of a local name.
"""

from __future__ import annotations

import ast
import difflib
import re
from collections import Counter
from collections.abc import Iterator

import attrs

COMPARISONS: dict[type[ast.cmpop], tuple[str, str]] = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: (r"\bis\b", "is not"),
    ast.IsNot: (r"\bis\s+not\b", "is"),
    ast.In: (r"\bin\b", "not in"),
    ast.NotIn: (r"\bnot\s+in\b", "in"),
}
OPPOSITES = (ast.Eq, ast.NotEq, ast.Is, ast.IsNot, ast.In, ast.NotIn)
"""Comparisons whose mutant is their negation, so that a branch that hangs on one need not be swapped as well."""
ARITHMETIC: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: (r"\+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: (r"\*", "+"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "+"),
    ast.Pow: (r"\*\*", "*"),
    ast.LShift: ("<<", ">>"),
    ast.RShift: (">>", "<<"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: (r"\|", "&"),
    ast.BitXor: (r"\^", "&"),
}
REMOVED = (ast.Expr, ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Delete, ast.Raise, ast.Continue, ast.Break)
Function = ast.FunctionDef | ast.AsyncFunctionDef


@attrs.frozen
class Mutant:
    """One change of one file."""

    file: str
    line: int
    """Where it begins, from 1."""
    kind: str
    start: int
    end: int
    """The characters that are replaced."""
    new: str


def mutated(mutant: Mutant, source: str) -> str:
    """The text of the file with the change in it."""
    return source[: mutant.start] + mutant.new + source[mutant.end :]


def difference(mutant: Mutant, source: str) -> str:
    """The change as a unified diff."""
    lines = source.splitlines(keepends=True), mutated(mutant, source).splitlines(keepends=True)
    return "".join(difflib.unified_diff(*lines, mutant.file, f"{mutant.file} ({mutant.kind})", n=2))


def mutants(file: str, source: str) -> list[Mutant]:
    """All of a file's, in the order of its text."""
    found = Finding(file, source)
    found.visit(ast.parse(source))
    return sorted(found.found, key=lambda mutant: (mutant.start, mutant.end, mutant.kind))


class Finding(ast.NodeVisitor):
    """Walks a syntax tree and notes what may be changed."""

    def __init__(self, file: str, source: str) -> None:
        self.file = file
        self.source = source
        self.found: list[Mutant] = []
        self.inside = False
        """Of a function."""
        self._once: frozenset[str] = frozenset()
        """Names that the function assigns in one place."""
        self._starts = [0]
        for line in source.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))
        self._lines = source.splitlines(keepends=True)

    def visit(self, node: ast.AST) -> None:
        """A node and what is in it, but for what is no behaviour."""
        match node:
            case (
                ast.If(test=ast.Name(id="TYPE_CHECKING"))
                | ast.Assert()
                | ast.Assign(value=ast.Call(func=ast.Name(id="cast")))
                | ast.Call(func=ast.Name(id="TypeVar"))
            ):
                return
            case _:
                self.found += self._of(node)
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() if all(map(is_text, node.body)):
                pass  # of a protocol
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                before = self.inside, self._once
                self.inside, self._once = True, assigned_once(node)
                for child in [*node.args.defaults, *node.args.kw_defaults, *node.body]:
                    if child is not None:
                        self.visit(child)
                self.inside, self._once = before
            case ast.ClassDef():
                inside, self.inside = self.inside, False
                for statement in node.body:
                    self.visit(statement)
                self.inside = inside
            case ast.AnnAssign():
                if node.value is not None:
                    self.visit(node.value)
            case ast.Call(func=ast.Name(id="zip")):
                for argument in node.args:
                    self.visit(argument)
            case _:
                self.generic_visit(node)

    def _of(self, node: ast.AST) -> Iterator[Mutant]:
        match node:
            case ast.Compare():
                sides = [node.left, *node.comparators]
                for left, op, right in zip(sides, node.ops, node.comparators, strict=False):
                    yield self._between("comparison", left, right, *COMPARISONS[type(op)])
            case ast.BoolOp():
                old, new = (r"\band\b", "or") if isinstance(node.op, ast.And) else (r"\bor\b", "and")
                for left, right in zip(node.values, node.values[1:], strict=False):
                    yield self._between("boolean", left, right, old, new)
            case ast.BinOp():
                yield self._between("arithmetic", node.left, node.right, *ARITHMETIC[type(node.op)])
            case ast.AugAssign():
                yield self._between("arithmetic", node.target, node.value, *ARITHMETIC[type(node.op)])
            case ast.UnaryOp(op=ast.Not()):
                yield self._span("not", node, node.operand, "")
            case ast.UnaryOp(op=ast.USub()):
                yield self._span("arithmetic", node, node.operand, "")
            case ast.Constant(value=bool()):
                yield self._whole("constant", node, str(not node.value))
            case ast.Constant(value=int() | float()):
                yield self._whole("constant", node, repr(node.value + 1))
            case ast.If() | ast.IfExp() | ast.While():
                if self._worth_swapping(node.test):
                    yield self._whole("swapped branch", node.test, f"not ({self._text(node.test)})")
            case ast.FunctionDef(body=[*body]) | ast.AsyncFunctionDef(body=[*body]):
                code = [statement for statement in body if not is_text(statement)]
                if len(code) > 1:
                    yield self._whole("early return", code[0], "return None")
            case _:
                pass
        if self.inside:
            yield from self._of_statement(node)

    def _of_statement(self, node: ast.AST) -> Iterator[Mutant]:
        match node:
            case ast.Expr(value=ast.Constant()):
                pass
            case ast.AnnAssign(value=None):
                pass
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)) if (
                name in self._once
            ):
                pass
            case ast.Return(value=None):
                yield self._whole("removed statement", node, "pass")
            case ast.Return(value=ast.expr() as value) if not is_false(value):
                yield self._whole("early return", value, "None")
            case _ if isinstance(node, REMOVED):
                if not is_unreachable(node):
                    yield self._whole("removed statement", node, "pass")
            case _:
                pass

    def _worth_swapping(self, test: ast.expr) -> bool:
        match test:
            case ast.Compare(ops=[op]):
                return not isinstance(op, OPPOSITES)
            case ast.UnaryOp(op=ast.Not()) | ast.Constant():
                return False
            case _:
                return True

    def _between(self, kind: str, left: ast.expr, right: ast.expr, old: str, new: str) -> Mutant:
        """The operator that stands between two expressions."""
        start, end = self._end(left), self._start(right)
        found = re.compile(old).search(self.source, start, end)
        assert found is not None, f"{self.file}:{left.lineno}: no {old}"
        return Mutant(self.file, left.lineno, kind, found.start(), found.end(), new)

    def _span(self, kind: str, node: ast.expr, operand: ast.expr, new: str) -> Mutant:
        """The operator before an operand."""
        start = self._start(node)
        word = re.compile(r"not\b\s*|-").match(self.source, start, self._start(operand))
        assert word is not None, f"{self.file}:{node.lineno}: no operator"
        return Mutant(self.file, node.lineno, kind, start, word.end(), new)

    def _whole(self, kind: str, node: ast.expr | ast.stmt, new: str) -> Mutant:
        return Mutant(self.file, node.lineno, kind, self._start(node), self._end(node), new)

    def _text(self, node: ast.expr) -> str:
        return self.source[self._start(node) : self._end(node)]

    def _start(self, node: ast.expr | ast.stmt) -> int:
        return self._place(node.lineno, node.col_offset)

    def _end(self, node: ast.expr | ast.stmt) -> int:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._place(node.end_lineno, node.end_col_offset)

    def _place(self, line: int, column: int) -> int:
        """Columns count bytes in UTF-8."""
        return self._starts[line - 1] + len(self._lines[line - 1].encode()[:column].decode())


def assigned_once(function: Function) -> frozenset[str]:
    """Names that are bound in one place of a function, and are no arguments of it."""
    words = [n for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
    counts = Counter(word.id for word in words)
    counts.update(argument.arg for argument in ast.walk(function.args) if isinstance(argument, ast.arg))
    foreign = {
        n for node in ast.walk(function) if isinstance(node, ast.Global | ast.Nonlocal) for n in node.names
    }
    return frozenset(name for name, count in counts.items() if count == 1) - foreign


def is_text(statement: ast.stmt) -> bool:
    """A docstring, or the three dots of an empty body."""
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def is_false(value: ast.expr) -> bool:
    """None, or what can hardly be told from it."""
    return isinstance(value, ast.Constant) and not value.value


def is_unreachable(node: ast.AST) -> bool:
    """A statement that says that it is never reached."""
    match node:
        case ast.Raise(exc=ast.Call(func=ast.Name(id="AssertionError"))):
            return True
        case ast.Expr(value=ast.Call(func=ast.Name(id="assert_never"))):
            return True
        case _:
            return False
