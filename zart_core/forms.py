"""How a value of a declared type looks as JSON, and back: one `Form` per type.

Rule 1: read(write(value)) equals value, or write raises an `Unfit` that names the place (R9, F20).
Rule 2: strict in both directions; nothing is coerced, except that a float position takes an int of the same value.
Rule 3: an object with the key "$" is a tag, {"$": name, "v": value}; a name decodes only to what was declared or
        registered, never to something that is looked for elsewhere (F22).
Rule 4: the same value has the same JSON on every host: sets are sorted, nothing depends on hashing (P4).
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, Flag
from fractions import Fraction
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeAlias, Union, get_args, get_origin
from uuid import UUID

import attrs
import msgspec

Token: TypeAlias = Literal["null", "bool", "int", "float", "string", "array", "object"]
TOKENS: Mapping[type, Token] = {
    type(None): "null",
    bool: "bool",
    int: "int",
    float: "float",
    str: "string",
    list: "array",
    dict: "object",
}
EVERY_TOKEN: frozenset[Token] = frozenset(TOKENS.values())


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
    tokens: frozenset[Token] = EVERY_TOKEN
    types: frozenset[type] = frozenset()
    """The exact classes of its values, by which a union chooses."""
    native: Any = None
    """The type by which msgspec alone reads all that this form writes, nan and infinity apart; None if there is none."""


def type_name(declared: Any) -> str:
    """A type as a person would write it: `int`, `Order`, `list[Order]`. Unions are sorted: typing may reorder them."""
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
    """A value is not of the expected type. Only its type is named: the value may be secret (RELIABILITY 5)."""
    return Unfit(f"expected {expected}, found {type_name(type(value))}")


def tagged(name: str, data: Any) -> dict[str, Any]:
    """JSON data that says by name what it is."""
    return {"$": name, "v": data}


def untag(data: Any) -> tuple[str, Any]:
    """The name and the data of a tag. Raises Unfit when it is not one."""
    if type(data) is not dict or len(data) != 2 or "v" not in data or type(data.get("$")) is not str:
        raise Unfit('expected a tag, {"$": name, "v": value}')
    return data["$"], data["v"]


# ---------------------------------------------------------------- leaves


def _plain(cls: type, token: Token) -> Form:
    """What is JSON already. A value of a subclass, such as a StrEnum, is written as the plain value."""
    name, text = cls.__name__, cls is str

    def write(value: Any) -> Any:
        if type(value) is cls:
            return value
        if isinstance(value, cls) and not isinstance(value, bool):
            return str.__str__(value) if text else int.__int__(value)
        raise mismatch(name, value)

    def read(data: Any) -> Any:
        if type(data) is not cls:
            raise mismatch(name, data)
        return data

    return Form(name, write, read, frozenset({token}), frozenset({cls}), cls)


def _none() -> Form:
    def same(value: Any) -> None:
        if value is not None:
            raise mismatch("None", value)

    return Form("None", same, same, frozenset({"null"}), frozenset({type(None)}), type(None))


def _exact_float(value: Any) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if number != value and value == value:
        raise Unfit("expected float, found an int that no float is equal to")
    return number


def write_float(value: Any) -> Any:
    """JSON has no nan and no infinity: these are tagged."""
    if type(value) is not float:
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise mismatch("float", value)
        value = _exact_float(value)
    return value if math.isfinite(value) else tagged("float", repr(value))


def read_float(data: Any) -> float:
    """The inverse; an int of the same value will do."""
    if type(data) is float:
        return data
    if type(data) is int:
        return _exact_float(data)
    if type(data) is dict and untag(data) in (("float", "nan"), ("float", "inf"), ("float", "-inf")):
        return float(data["v"])
    raise mismatch("float", data)


def _text(cls: type, show: Callable[[Any], str], parse: Callable[[str], Any]) -> Form:
    """What is written as a string."""
    name = type_name(cls)

    def write(value: Any) -> str:
        if type(value) is not cls and (
            not isinstance(value, cls) or (cls is date and type(value) is datetime)
        ):
            raise mismatch(name, value)
        return show(value)

    def read(data: Any) -> Any:
        if type(data) is not str:
            raise mismatch(name, data)
        try:
            return parse(data)
        except (ValueError, ArithmeticError) as error:
            raise Unfit(f"expected {name}, found text that is none") from error

    return Form(name, write, read, frozenset({"string"}), frozenset({cls}))


def _seconds_text(value: timedelta) -> str:
    micros = value // timedelta(microseconds=1)
    seconds, rest = divmod(abs(micros), 1_000_000)
    return f"{'-' if micros < 0 else ''}{seconds}{f'.{rest:06}' if rest else ''}s"


_SECONDS = re.compile(r"(-?)([0-9]{1,15})(?:\.([0-9]{6}))?s")


def _seconds(text: str) -> timedelta:
    match = _SECONDS.fullmatch(text)
    if match is None:
        raise ValueError("not a number of seconds")
    sign, seconds, micros = match.groups()
    size = int(seconds) * 1_000_000 + int(micros or 0)
    return timedelta(microseconds=-size if sign else size)


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def _from_base64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


LEAVES: Mapping[type, Form] = {
    type(None): _none(),
    bool: _plain(bool, "bool"),
    int: _plain(int, "int"),
    str: _plain(str, "string"),
    float: Form("float", write_float, read_float, frozenset({"float", "object"}), frozenset({float}), float),
    bytes: _text(bytes, _base64, _from_base64),
    bytearray: _text(bytearray, _base64, lambda text: bytearray(_from_base64(text))),
    datetime: _text(datetime, datetime.isoformat, datetime.fromisoformat),
    date: _text(date, date.isoformat, date.fromisoformat),
    time: _text(time, time.isoformat, time.fromisoformat),
    timedelta: _text(timedelta, _seconds_text, _seconds),
    Decimal: _text(Decimal, str, Decimal),
    Fraction: _text(Fraction, str, Fraction),
    complex: _text(complex, str, complex),
    UUID: _text(UUID, str, UUID),
    Path: _text(Path, str, Path),
}


def enum_form(cls: type[Enum]) -> Form:
    """By value where the values are all strings or all ints, else by name."""
    kinds = {type(member.value) for member in cls}
    name = type_name(cls)
    by_value = kinds in ({str}, {int}) or issubclass(cls, Flag)
    members = {m.value: m for m in cls} if by_value else dict(cls.__members__)
    kind = kinds.pop() if by_value and kinds else str

    def write(value: Any) -> Any:
        if not isinstance(value, cls):
            raise mismatch(name, value)
        return value.value if by_value else value.name

    def read(data: Any) -> Any:
        if type(data) is not kind:
            raise mismatch(name, data)
        member = members.get(data)
        if member is None and issubclass(cls, Flag):
            try:
                member = cls(data)
            except ValueError:
                member = None
        if member is None:
            raise Unfit(f"expected one of the {len(members)} values of {name}, found another")
        return member

    return Form(name, write, read, frozenset({TOKENS[kind]}), frozenset({cls}))


# ---------------------------------------------------------------- containers


def each(convert: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """Convert the items; an Unfit learns the index of the item."""
    out: list[Any] = []
    try:
        for item in items:
            out.append(convert(item))
    except Unfit as unfit:
        unfit.steps.append(f"[{len(out)}]")
        raise
    return out


def list_form(name: str, items: Form) -> Form:
    """list[T]: an array."""

    def write(value: Any) -> Any:
        if not isinstance(value, list):
            raise mismatch(name, value)
        return each(items.write, value)

    def read(data: Any) -> Any:
        if type(data) is not list:
            raise mismatch(name, data)
        return each(items.read, data)

    native = None if items.native is None else list[items.native]  # type: ignore[name-defined]  # built at run time
    return Form(name, write, read, frozenset({"array"}), frozenset({list}), native)


def tuple_form(name: str, items: Form) -> Form:
    """tuple[T, ...]: an array."""

    def write(value: Any) -> Any:
        if not isinstance(value, tuple):
            raise mismatch(name, value)
        return each(items.write, value)

    def read(data: Any) -> Any:
        if type(data) is not list:
            raise mismatch(name, data)
        return tuple(each(items.read, data))

    native = None if items.native is None else tuple[items.native, ...]  # type: ignore[name-defined]  # at run time
    return Form(name, write, read, frozenset({"array"}), frozenset({tuple}), native)


def fixed_tuple_form(name: str, items: tuple[Form, ...]) -> Form:
    """tuple[A, B, C]: an array of that length."""
    size = len(items)

    def convert(values: Any, ways: Iterable[Callable[[Any], Any]]) -> list[Any]:
        if len(values) != size:
            raise Unfit(f"expected {name}, found {len(values)} items")
        pairs = zip(ways, values, strict=True)
        return each(lambda pair: pair[0](pair[1]), pairs)

    def write(value: Any) -> Any:
        if not isinstance(value, tuple):
            raise mismatch(name, value)
        return convert(value, [item.write for item in items])

    def read(data: Any) -> Any:
        if type(data) is not list:
            raise mismatch(name, data)
        return tuple(convert(data, [item.read for item in items]))

    natives = tuple(item.native for item in items)
    native = None if None in natives else tuple[natives]  # type: ignore[valid-type]  # built at run time
    return Form(name, write, read, frozenset({"array"}), frozenset({tuple}), native)


def set_form(name: str, cls: type, items: Form) -> Form:
    """set[T] or frozenset[T]: an array, sorted by its JSON, so that its bytes do not depend on hashing (P4)."""

    def write(value: Any) -> Any:
        if not isinstance(value, cls):
            raise mismatch(name, value)
        return sorted(each(items.write, value), key=msgspec.json.encode)

    def read(data: Any) -> Any:
        if type(data) is not list:
            raise mismatch(name, data)
        try:
            return cls(each(items.read, data))
        except TypeError as error:
            raise Unfit(f"expected {name}, found items that cannot be in a set") from error

    native = None if items.native is None else cls[items.native]  # type: ignore[index]  # built at run time
    return Form(name, write, read, frozenset({"array"}), frozenset({cls}), native)


def _step(key: Any) -> str:
    text = repr(key) if isinstance(key, (str, int)) else f"a key of type {type_name(type(key))}"
    return f"[{text if len(text) <= 40 else text[:37] + '...'}]"


def dict_form(name: str, values: Form) -> Form:
    """dict[str, T]: an object."""

    def write(value: Any) -> Any:
        if not isinstance(value, dict):
            raise mismatch(name, value)
        out: dict[str, Any] = {}
        for key, item in value.items():
            try:
                out[key if type(key) is str else LEAVES[str].write(key)] = values.write(item)
            except Unfit as unfit:
                unfit.steps.append(_step(key))
                raise
        return out

    def read(data: Any) -> Any:
        if type(data) is not dict:
            raise mismatch(name, data)
        out: dict[str, Any] = {}
        for key, item in data.items():
            try:
                out[key] = values.read(item)
            except Unfit as unfit:
                unfit.steps.append(_step(key))
                raise
        return out

    native = None if values.native is None else dict[str, values.native]  # type: ignore[name-defined]  # at run time
    return Form(name, write, read, frozenset({"object"}), frozenset({dict}), native)


def pairs_form(name: str, keys: Form, values: Form) -> Form:
    """dict[K, T] with keys that are no strings: an array of pairs."""

    def write(value: Any) -> Any:
        if not isinstance(value, dict):
            raise mismatch(name, value)
        out: list[Any] = []
        for key, item in value.items():
            try:
                out.append([keys.write(key), values.write(item)])
            except Unfit as unfit:
                unfit.steps.append(_step(key))
                raise
        return out

    def read_pair(data: Any) -> tuple[Any, Any]:
        if type(data) is not list or len(data) != 2:
            raise Unfit("expected a pair of key and value")
        return keys.read(data[0]), values.read(data[1])

    def read(data: Any) -> Any:
        if type(data) is not list:
            raise mismatch(name, data)
        try:
            return dict(each(read_pair, data))
        except TypeError as error:
            raise Unfit(f"expected {name}, found a key that no dict can have") from error

    return Form(name, write, read, frozenset({"array"}), frozenset({dict}))


def either_form(name: str, usual: Form, other: Form) -> Form:
    """An abstract collection: written as the usual one, tagged when it is the other (a tuple in a Sequence)."""
    (kind,) = other.types

    def write(value: Any) -> Any:
        if isinstance(value, kind):
            return tagged(kind.__name__, other.write(value))
        return usual.write(value)

    def read(data: Any) -> Any:
        if type(data) is not dict:
            return usual.read(data)
        tag, inner = untag(data)
        if tag != kind.__name__:
            raise Unfit(f"expected {name}, found the tag '{tag[:40]}'")
        return other.read(inner)

    return Form(name, write, read, usual.tokens | {"object"}, usual.types | other.types)


# ---------------------------------------------------------------- unions


def union_form(name: str, members: list[Form]) -> Form:
    """A | B | C. Members that JSON tells apart are written as they are, the others with a tag.

    A tag is an object, so that beside tagged members no member may be a bare object.
    """
    crowded = {t for t in EVERY_TOKEN if sum(t in member.tokens for member in members) > 1}
    if crowded:
        crowded.add("object")
    tags = {member.name: member for member in members if member.tokens & crowded}
    bare = {token: member for member in members if member.name not in tags for token in member.tokens}
    if "int" not in bare and "float" in bare:
        bare["int"] = bare["float"]

    def write_as(member: Form, value: Any) -> Any:
        data = member.write(value)
        return tagged(member.name, data) if member.name in tags else data

    def write(value: Any) -> Any:
        cls = type(value)
        fitting = [member for member in members if cls in member.types] or members
        if len(fitting) == 1:
            return write_as(fitting[0], value)
        for member in fitting:
            try:
                return write_as(member, value)
            except Unfit:
                continue
        raise mismatch(name, value)

    def read(data: Any) -> Any:
        if tags and type(data) is dict:
            tag, inner = untag(data)
            if tag not in tags:
                raise Unfit(f"expected {name}, found the tag '{tag[:40]}'")
            return tags[tag].read(inner)
        member = bare.get(TOKENS[type(data)])
        if member is None:
            raise mismatch(name, data)
        return member.read(data)

    natives = tuple(member.native for member in members)
    native = None if tags or None in natives else Union[natives]
    tokens: frozenset[Token] = frozenset[Token]().union(*(member.tokens for member in members))
    kinds: frozenset[type] = frozenset[type]().union(*(member.types for member in members))
    return Form(name, write, read, tokens | {"object"} if tags else tokens, kinds, native)


def literal_form(name: str, values: tuple[Any, ...], inner: Form) -> Form:
    """Literal[...]: like the union of the values' types, and one of these values."""
    allowed = {(type(value), value) for value in values}

    def check(value: Any) -> Any:
        try:
            fits = (type(value), value) in allowed
        except TypeError:
            fits = False
        if not fits:
            raise Unfit(f"expected {name}, found another {type_name(type(value))}")
        return value

    native = Literal[values] if {type(v) for v in values} <= {str, int, type(None)} else None
    return Form(
        name,
        lambda v: inner.write(check(v)),
        lambda d: check(inner.read(d)),
        inner.tokens,
        inner.types,
        native,
    )
