"""Any value as one line of text: bounded, printable, and never raising.

Rule 1: what a value costs to show is bounded by NODES_MAX and TEXT_CHARS_MAX, however large it is.
Rule 2: fields that a class keeps out of its repr stay out; names that are to be hidden are, at every depth: a value
        that shows itself, and may so tell what is to be hidden in it, is not shown at all.
"""

# Values of users are of any type, and pyright takes what `isinstance` makes of Any for unknown.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from enum import Enum
from functools import partial
from itertools import islice, zip_longest
from types import FunctionType, GeneratorType, MappingProxyType, ModuleType
from typing import Any, TypeGuard, cast

import attrs

from zart_core import commands as c

HIDDEN = "(hidden)"
PAYLOAD_CHARS_MAX = 200
CHARS_MAX = 10_000
"""Characters of a value's whole text."""
TEXT_CHARS_MAX = 2_000
"""Characters of one string in it."""
ITEMS_MAX = 100
"""Items of one collection in it."""
TAIL = 3
"""Items at the end of a long collection that are shown all the same, so that appending is seen."""
NODES_MAX = 2_000
"""Values in it, at all depths."""
DEPTH_MAX = 8


def plain(text: str) -> str:
    """Escape what is not printable: control characters, line ends, direction marks (docs/rules.md, Security)."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def shortened(text: str, chars_max: int = PAYLOAD_CHARS_MAX) -> str:
    """Cut a long text, and say so."""
    return text if len(text) <= chars_max else f"{text[:chars_max]}... ({len(text):,} characters)"


def duration(seconds: float) -> str:
    """A duration in seconds as a person reads it: 0.012 s, 3.2 s, 4 min 05 s, 2 h 03 min."""
    if seconds < 1:
        return f"{max(seconds, 0.0):.3f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def shown(value: object, hide: Collection[str] = ()) -> str:
    """A value as a line of printable text.

    Args:
        value: anything; its own `__repr__` is called where it has one, and may fail.
        hide: names of attributes and keys whose values are not shown.
    """
    return shortened(plain(Showing(hide).text(value, 0)), CHARS_MAX)


class Showing:
    """One value that is being shown: how much of it still may be, and what surrounds the part at hand."""

    def __init__(self, hide: Collection[str]) -> None:
        self.hide = hide
        self.left = NODES_MAX
        self.around: set[int] = set()

    def text(self, value: Any, depth: int) -> str:
        """A value, or as much as may be shown of it."""
        self.left -= 1
        if self.left < 0:
            return "..."
        simple = SIMPLE.get(type(value))
        if simple is not None:
            return simple(value)
        if depth > DEPTH_MAX or id(value) in self.around:
            return f"<{type(value).__name__} ...>"
        self.around.add(id(value))
        try:
            return self.compound(value, depth + 1)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001  # whatever the user's own code does
            return f"<{type(value).__name__} whose repr raised {type(error).__name__}>"
        finally:
            self.around.discard(id(value))

    def compound(self, value: Any, depth: int) -> str:
        """A value with parts, or one that shows itself."""
        kind = type(value)
        if kind in BRACKETS:
            return self.items(value, kind, depth)
        if kind is dict:
            return self.pairs(value, depth)
        if isinstance(value, c.Command):
            return f"<{c.describe(value)}>"
        if isinstance(value, GeneratorType):
            return f"<flow {value.__qualname__}>"
        if isinstance(value, Enum):
            return f"{kind.__name__}.{value.name}"
        fields = None if isinstance(value, BaseException) else fields_of(kind)
        if fields is not None:
            given = ((name, getattr(value, name)) for name in fields if hasattr(value, name))
            return f"{kind.__name__}({self.named(given, '=', depth)})"
        if holds_any(value, self.hide):  # it shows itself, and all of it
            return f"<{kind.__name__} {HIDDEN}>"
        if isinstance(value, BaseException):
            return f"{kind.__name__}({self.text(str(value), depth)})"
        return shortened(repr(value), TEXT_CHARS_MAX)

    def items(self, value: Any, kind: type[Any], depth: int) -> str:
        """A list, a tuple, a set: the first ones, and the last ones of many."""
        opening, closing = BRACKETS[kind]
        if not value and kind in (set, frozenset):
            return f"{kind.__name__}()"
        if kind in (set, frozenset):  # in an order that is the same each time
            texts = sorted(self.text(item, depth) for item in few(value, len(value)))
        else:
            texts = [self.text(item, depth) for item in few(value, len(value))]
        if len(value) > ITEMS_MAX:
            ends = [self.text(item, depth) for item in last(value)]
            texts += ["...", *ends]
            return f"{opening}{', '.join(texts)}{closing} ({len(value):,} items)"
        lonely = "," if kind is tuple and len(value) == 1 else ""
        return f"{opening}{', '.join(texts)}{lonely}{closing}"

    def pairs(self, value: dict[Any, Any], depth: int) -> str:
        """A dict: the first ones, and the last ones of many."""
        text = self.named(((key, value[key]) for key in few(value, len(value))), ": ", depth)
        if len(value) <= ITEMS_MAX:
            return f"{{{text}}}"
        ends = self.named(((key, value[key]) for key in last(value)), ": ", depth)
        return f"{{{text}, ..., {ends}}} ({len(value):,} items)"

    def named(self, pairs: Iterable[tuple[Any, Any]], sign: str, depth: int) -> str:
        """Fields or items with a name each, some of which may be hidden."""
        texts: list[str] = []
        for name, value in pairs:
            said = name if sign == "=" else self.text(name, depth)
            hidden = type(name) is str and name in self.hide
            texts.append(f"{said}{sign}{HIDDEN if hidden else self.text(value, depth)}")
        return ", ".join(texts)


def holds_any(value: object, hide: Collection[str]) -> bool:
    """Whether an attribute, a field or a key of these names is in a value, at any depth; also if that is too much."""
    seen: dict[int, object] = {}
    left = [value] if hide else []
    while left:
        one = left.pop()
        if type(one) in SIMPLE or id(one) in seen:
            continue
        seen[id(one)] = one
        parts = list(islice(parts_of(one), NODES_MAX))
        if len(seen) + len(parts) >= NODES_MAX or any(
            type(name) is str and name in hide for name, _ in parts
        ):
            return True
        left += [part for _, part in parts]
    return False


def parts_of(value: Any) -> Iterator[tuple[Any, Any]]:
    """What a value holds, each part with its name, if it has one."""
    if isinstance(value, type | ModuleType | FunctionType | GeneratorType):
        return
    if isinstance(value, dict | MappingProxyType):
        yield from value.items()
    elif isinstance(value, VIEWS):
        yield from value.mapping.items()
    elif isinstance(value, tuple(BRACKETS)):
        yield from zip_longest(getattr(value, "_fields", ()), cast("Iterable[Any]", value))
    elif isinstance(value, partial):
        yield from [("", value.args), *value.keywords.items()]
    if isinstance(value, BaseException):
        yield "", value.args
    yield from getattr(value, "__dict__", {}).items()
    for cls in type(value).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name != "__weakref__" and hasattr(value, name):
                yield name, getattr(value, name)


def few(value: Iterable[Any], count: int) -> list[Any]:
    """All items, or the first of many."""
    if count <= ITEMS_MAX:
        return list(value)
    return [item for item, _ in zip(value, range(ITEMS_MAX - TAIL), strict=False)]


def last(value: Any) -> list[Any]:
    """The last items, of what has an order."""
    return [] if isinstance(value, set | frozenset) else list(value)[-TAIL:]


def text_of(value: str | bytes) -> str:
    """A string, cut where it is long; its end is shown, so that what is appended is seen."""
    if len(value) <= TEXT_CHARS_MAX:
        return repr(value)
    what = "characters" if isinstance(value, str) else "bytes"
    return f"{value[:TEXT_CHARS_MAX]!r}...{value[-TAIL:]!r} ({len(value):,} {what})"


def number_of(value: int) -> str:
    """A whole number; Python refuses to write down a very long one."""
    return str(value) if value.bit_length() < 4_000 else f"<int of {value.bit_length():,} bits>"


SIMPLE: dict[type[Any], Callable[[Any], str]] = {
    type(None): repr,
    bool: repr,
    int: number_of,
    float: repr,
    str: text_of,
    bytes: text_of,
    FunctionType: lambda value: f"<function {value.__qualname__}>",
}
BRACKETS: dict[type[Any], tuple[str, str]] = {
    list: ("[", "]"),
    tuple: ("(", ")"),
    set: ("{", "}"),
    frozenset: ("frozenset({", "})"),
    deque: ("deque([", "])"),
}


VIEWS: tuple[type[Any], ...] = (type({}.keys()), type({}.values()), type({}.items()))


def fields_of(kind: type[Any]) -> list[str] | None:
    """The fields that a generated repr would show; None for a class that has a repr of its own."""
    own: Any = kind.__repr__
    if attrs.has(kind) and is_of_attrs(own):
        return [field.name for field in attrs.fields(kind) if field.repr]
    if dataclasses.is_dataclass(kind) and hasattr(own, "__wrapped__"):
        return [field.name for field in dataclasses.fields(kind) if field.repr]
    return None


def is_of_attrs(function: Any) -> TypeGuard[FunctionType]:
    """Whether attrs has written it."""
    code = getattr(function, "__code__", None)
    return code is not None and code.co_filename.startswith("<attrs generated")
