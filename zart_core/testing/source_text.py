"""A value as Python source text, and the imports without which the text means nothing.

Rule 1: records are written field by field, members of an enum by their names; anything else is taken at its repr.
Rule 2: the modules that the reprs of dates and times spell out (`datetime.date(...)`) are imported as wholes.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import attrs

Imports = set[tuple[str, str]]
"""Module and name; without a name the module itself."""


SPELT_OUT = ("datetime", "zoneinfo")
"""Modules by whose names dates, times and zones begin in a repr."""


def source_of(value: Any) -> tuple[str, Imports]:
    """The text that makes an equal value, and what it needs. O(size of the value)."""
    needed: Imports = set()
    return written(value, needed), needed


def written(value: Any, needed: Imports) -> str:
    """The text; what it needs is added to `needed`."""
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
    if attrs.has(kind) or dataclasses.is_dataclass(kind):
        fields = [f"{name}={written(item, needed)}" for name, item in arguments_of(value)]
        return f"{named(kind, needed)}({', '.join(fields)})"
    text = repr(value)
    spelt_out = {module for module in SPELT_OUT if kind.__module__ == "datetime" and f"{module}." in text}
    needed.update((module, "") for module in spelt_out)
    if not spelt_out:
        named(kind, needed)
    return text


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
    else:
        for each in dataclasses.fields(value):
            if each.init:
                yield each.name, getattr(value, each.name)


def named(kind: type | Callable[..., Any], needed: Imports) -> str:
    """A class or function by the name that it has in its module; one that is local to a function cannot be imported."""
    if kind.__module__ not in ("builtins", "__main__") and "<" not in kind.__qualname__:
        needed.add((kind.__module__, kind.__qualname__.partition(".")[0]))
    return kind.__qualname__.rpartition("<locals>.")[2]
