"""A value as Python source text, and the imports without which the text means nothing.

Rule 1: records and containers are written part by part, members of an enum by their names; anything else is taken at
        its repr, where that is source text which needs no more than its own class.
Rule 2: the modules that the reprs of dates and times spell out (`datetime.date(...)`) are imported as wholes.
"""

from __future__ import annotations

import ast
import builtins
import dataclasses
import enum
import math
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import attrs

from zart_core.values.fields import is_named_tuple

Imports = set[tuple[str, str]]
"""Module and name; without a name the module itself."""


SPELT_OUT = ("datetime", "zoneinfo")
"""Modules by whose names dates, times and zones begin in a repr."""


SAFE = (str, bytes, int, bool, float, type(None))
"""Classes whose reprs are source text, whatever the value, infinities aside."""


class Unwritable(Exception):
    """The repr of a value is no source text, or needs more than its own class."""


def source_of(value: Any) -> tuple[str, Imports]:
    """The text that makes an equal value, and what it needs. Raises Unwritable. O(size of the value)."""
    needed: Imports = set()
    return written(value, needed), needed


def written(value: Any, needed: Imports) -> str:
    """The text; what it needs is added to `needed`. Raises Unwritable."""
    kind = cast("type[object]", type(value))
    if isinstance(value, enum.Enum):
        return written_member(value, needed)
    if kind is float and not math.isfinite(value):
        return f"float('{value}')"
    if kind in (list, tuple, set, frozenset):
        return written_items(kind, [written(item, needed) for item in value])
    if kind is dict:
        pairs = cast("Mapping[Any, Any]", value).items()
        return f"{{{', '.join(f'{written(key, needed)}: {written(item, needed)}' for key, item in pairs)}}}"
    if kind is deque:
        return f"{named(kind, needed)}({written(list(value), needed)})"
    if kind in (OrderedDict, Counter):
        return f"{named(kind, needed)}({written(dict(value), needed)})"
    if kind is defaultdict:  # its factory may be anything, and makes none of what is in it
        return f"{named(kind, needed)}(None, {written(dict(value), needed)})"
    if attrs.has(kind) or dataclasses.is_dataclass(kind) or is_named_tuple(kind):
        fields = [f"{name}={written(item, needed)}" for name, item in arguments_of(value)]
        return f"{named(kind, needed)}({', '.join(fields)})"
    text = repr(value)
    if kind in SAFE:
        return text
    known = {module for module in SPELT_OUT if kind.__module__ == "datetime" and f"{module}." in text}
    needed.update((module, "") for module in known)
    if not known:
        known.add(named(kind, needed).partition(".")[0])
    if not names_in(text) <= {*known, *dir(builtins)}:
        raise Unwritable(text)
    return text


def names_in(text: str) -> set[str]:
    """What an expression looks up by name. Raises Unwritable for what is no expression."""
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise Unwritable(text) from None
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def written_items(kind: type, items: Sequence[str]) -> str:
    """A list, tuple, set or frozenset."""
    inner = ", ".join(items)
    if kind is list:
        return f"[{inner}]"
    if kind is tuple:
        return f"({inner},)" if len(items) == 1 else f"({inner})"
    return (f"{{{inner}}}" if inner else "set()") if kind is set else f"frozenset([{inner}])"


def written_member(member: enum.Enum, needed: Imports) -> str:
    """A member by its name; flags without a name of their own by their number."""
    kind = named(type(member), needed)
    own = type(member).__members__.get(member.name or "")
    return f"{kind}.{member.name}" if own is member else f"{kind}({written(member.value, needed)})"


def arguments_of(value: Any) -> Iterator[tuple[str, Any]]:
    """What the class of a record is called with."""
    kind = cast("type[object]", type(value))
    if attrs.has(kind):
        for field in attrs.fields(kind):
            if field.init:
                yield field.alias, getattr(value, field.name)
    elif dataclasses.is_dataclass(kind):
        for each in dataclasses.fields(kind):
            if each.init:
                yield each.name, getattr(value, each.name)
    else:
        yield from zip(value._fields, value, strict=True)


def named(kind: type | Callable[..., Any], needed: Imports) -> str:
    """A class or function by the name that it has in its module; one that is local to a function cannot be imported."""
    if kind.__module__ not in ("builtins", "__main__") and "<" not in kind.__qualname__:
        needed.add((kind.__module__, kind.__qualname__.partition(".")[0]))
    return kind.__qualname__.rpartition("<locals>.")[2]
