"""Shared empties: nothing gets into them, and the code adds only where the result takes their place."""

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

from zart_core.empties import NO_ENTRIES, NO_ITEMS, added, put
from zart_core.hosts.turns import Run

HERE = Path(__file__).parents[1] / "zart_core"
ADDS = {"append", "extend", "insert", "setdefault", "update", "heappush"}


@pytest.mark.parametrize(
    "add",
    [
        lambda: NO_ENTRIES.__setitem__("a", 1),
        lambda: NO_ENTRIES.setdefault("a", 1),
        lambda: NO_ENTRIES.update(a=1),
        lambda: NO_ENTRIES.__ior__({"a": 1}),
    ],
)
def test_nothing_is_added_to_a_shared_empty_dict(add):
    """Whatever adds to a dict raises, and leaves it empty."""
    with pytest.raises(TypeError, match="shared"):
        add()
    assert NO_ENTRIES == {}


def test_a_shared_empty_dict_is_read_as_any_other():
    """To look, to pop with a default and to clear do what they do to an empty dict."""
    assert (NO_ENTRIES.get(1), NO_ENTRIES.pop(1, 2), 1 in NO_ENTRIES, list(NO_ENTRIES)) == (
        None,
        2,
        False,
        [],
    )
    NO_ENTRIES.clear()
    assert not NO_ENTRIES and NO_ITEMS == ()


def test_put_and_added_make_what_is_not_there():
    """The first entry makes a container, the next ones go into it."""
    entries = put(NO_ENTRIES, "a", 1)
    assert put(entries, "b", 2) is entries == {"a": 1, "b": 2}
    items = added(NO_ITEMS, 1)
    assert added(items, 2) is items == [1, 2]


def adding(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Attributes that are added to in place, and the lines."""
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=targets):
                for target in targets:
                    match target:
                        case ast.Subscript(value=ast.Attribute(attr=name)):
                            yield name, node.lineno
            case ast.AugAssign(
                target=ast.Attribute(attr=name) | ast.Subscript(value=ast.Attribute(attr=name))
            ):
                yield name, node.lineno
            case ast.Call(func=ast.Attribute(attr=verb, value=ast.Attribute(attr=name))) if verb in ADDS:
                yield name, node.lineno
            case ast.Call(func=ast.Attribute(attr="heappush"), args=[ast.Attribute(attr=name), *_]):
                yield name, node.lineno
            case _:
                pass


def shared(tree: ast.AST) -> set[str]:
    """Attributes that may hold a shared empty."""
    names: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.AnnAssign(target=ast.Attribute(attr=name), value=ast.Name(id="NO_ENTRIES" | "NO_ITEMS")):
                names.add(name)
            case _:
                pass
    return names


def own_in_a_turn() -> set[str]:
    """What `Run._open` makes a run's own while a turn is built."""
    tree = ast.parse(inspect.getsource(Run._open).replace("\n    ", "\n").strip())
    assigned = [node.targets[0] for node in ast.walk(tree) if isinstance(node, ast.Assign)]
    return {target.attr for target in assigned if isinstance(target, ast.Attribute)}


@pytest.mark.parametrize(
    "owner, others",
    [
        ("interpreter.py", ["hosts/turns.py", "insight/frames.py"]),
        ("branches.py", ["interpreter.py", "insight/frames.py"]),
        (
            "hosts/turns.py",
            ["testing/fuzzing.py"]
            + [str(path.relative_to(HERE)) for path in sorted((HERE / "hosts").glob("*.py"))],
        ),
        ("hosts/live.py", ["hosts/attempts.py", "hosts/pump.py", "hosts/transactions.py"]),
    ],
)
def test_what_may_be_shared_is_added_to_by_put_and_added_alone(owner, others):
    """No line adds in place to an attribute that may hold a shared empty: rare lines would fail when they are run."""
    names = shared(ast.parse((HERE / owner).read_text())) - own_in_a_turn()
    assert names
    found = [
        f"{file}:{line} {name}"
        for file in {owner, *others}
        for name, line in adding(ast.parse((HERE / file).read_text()))
        if name in names
    ]
    assert found == []
