"""How a value of a declared type looks as JSON, and back: one `Form` per type.

Rule 1: read(write(value)) equals value, or write raises an `Unfit` that names the place (R9, F20).
Rule 2: strict in both directions; nothing is coerced, except that a float position takes an int of the same
        value.
Rule 3: an object with the key "$" is a tag, {"$": name, "v": value}; a name decodes only to what was declared
        or registered, never to something that is looked for elsewhere (F22). A union takes a value without its tag
        as well where one member alone can be meant: so it was written before there was a second one, and so does who
        sends a message, and knows its value alone.
Rule 4: the same value has the same JSON on every host: sets are sorted, nothing depends on hashing (P4).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import CoroutineType, GeneratorType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import attrs

from zart_core.commands import Command, Task, is_flow

TOKENS: Mapping[type[Any], str] = {
    type(None): "null",
    bool: "bool",
    int: "int",
    float: "float",
    str: "string",
    list: "array",
    dict: "object",
}
EVERY_TOKEN: frozenset[str] = frozenset(TOKENS.values())


class Unfit(Exception):
    """A form refuses a value or its JSON. The path grows from the inside out, on the way up."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.steps: list[str] = []

    def path(self, root: str) -> str:
        """The path from the root to the offending place, such as result.items[3].price."""
        path = root + "".join(reversed(self.steps))
        return path if len(path) <= 200 else f"{path[:100]} ... {path[-95:]}"


@attrs.define(eq=False)
class Form:
    """One type: how it is written, how it is read, and what JSON it may look like."""

    name: str
    """The type as a person would write it; also its tag in a union."""
    write: Callable[[Any], Any]
    """From a value to plain JSON data. Raises Unfit."""
    read: Callable[[Any], Any]
    """From plain JSON data to a value. Raises Unfit."""
    tokens: frozenset[str] = EVERY_TOKEN
    types: frozenset[type] = frozenset()
    """The exact classes of its values, by which a union chooses."""
    native: Any = None
    """The type by which msgspec alone reads what this form writes, nan and infinity apart; or None."""
    fit: Callable[[Any], int] | None = None
    """How well JSON data fits, at a look from outside: 0 not at all, 1 it can be read, 2 so would it be written."""


def type_name(declared: Any) -> str:
    """A type as a person would write it, as `list[Order]`; unions sorted, since typing reorders them."""
    origin, args = get_origin(declared), get_args(declared)
    if origin is Union or origin is UnionType:
        return " | ".join(sorted(map(type_name, args), key=lambda name: (name == "None", name)))
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, args))}]"
    if args and isinstance(origin, type):
        return f"{type_name(origin)}[{', '.join(map(type_name, args))}]"
    if declared is None or declared is type(None):
        return "None"
    if declared is ...:
        return "..."
    name = getattr(declared, "__qualname__", None) or getattr(declared, "__name__", None) or str(declared)
    return str(name).rpartition("<locals>.")[2]


def full_name(cls: type) -> str:
    """The name by which a log knows a class: module.QualName; builtins without their module."""
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def mismatch(expected: str, value: Any) -> Unfit:
    """A value is not of the expected type. Only its type is told: the value may be secret (docs/rules.md, Security)."""
    return Unfit(f"expected {expected}, found {type_name(type(value))}", forgotten(value))


def forgotten(value: Any) -> str:
    """What is missing where something stands that has no value yet; empty for anything else."""
    flows = is_flow(value)
    match value:
        case GeneratorType() if not flows:
            return "make a list of it"
        case Command() | GeneratorType():
            return "write `yield from` before it, and give what that gives"
        case Task():
            return "wait for it with `yield from zart.wait([task])`, and give what that gives"
        case CoroutineType():
            return "write `await` before it, in an `async def` step"
        case _:
            return ""


def expect(cls: type | tuple[type, ...], name: str, value: Any) -> None:
    """Raise Unfit unless the value is of the class."""
    if not isinstance(value, cls):
        raise mismatch(name, value)


def tagged(name: str, data: Any) -> dict[str, Any]:
    """JSON data that says by name what it is."""
    return {"$": name, "v": data}


def untag(data: dict[str, Any]) -> tuple[str, Any]:
    """The name and the data of a tag. Raises Unfit when it is not one."""
    try:
        name, inner = data["$"], data["v"]
    except KeyError:
        name, inner = None, None
    if type(name) is not str or len(data) != 2:
        raise Unfit('expected a tag, {"$": name, "v": value}')
    return name, inner
