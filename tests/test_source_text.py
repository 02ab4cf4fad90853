"""Values as source text: evaluated with the imports that it asks for, the text gives an equal value."""

import enum
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zart_core.testing.source_text import Imports, Unwritable, source_of


class Color(enum.Enum):
    RED = "red"
    GREEN = 2


class Access(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()


class Text(str): ...


class Pair(NamedTuple):
    left: Any
    right: Any


class Foreign:
    """A class whose repr is what it is told."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


@dataclass
class Line:
    sku: str
    price: Decimal
    color: Color = Color.RED
    cached: int = field(default=0, init=False, compare=False)


@attrs.frozen
class Cart:
    class Owner(enum.IntEnum):
        ME = 1

    lines: tuple[Line, ...]
    owner: Owner
    _secret: str = attrs.field(repr=False)
    count: int = attrs.field(init=False, default=0)


def evaluated(text: str, needed: Imports) -> Any:
    """The value, in a namespace of its own."""
    names: dict[str, Any] = {}
    for module, name in needed:
        exec(f"from {module} import {name}" if name else f"import {module}", names)
    return eval(text, names)


plain = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.fractions()
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.datetimes(timezones=st.none() | st.just(UTC) | st.just(ZoneInfo("UTC")))
    | st.sampled_from([*Color, *Access, *Cart.Owner, Access.READ | Access.WRITE, Access(0)])
)
hashable = plain | st.tuples(plain) | st.frozensets(plain, max_size=3)
values = st.recursive(
    hashable,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(hashable, inner, max_size=3)
        | st.sets(hashable, max_size=3)
        | st.lists(inner, max_size=3).map(deque)
        | st.dictionaries(hashable, inner, max_size=3).map(OrderedDict)
        | st.dictionaries(hashable, st.integers(), max_size=3).map(Counter)
        | st.builds(Pair, inner, inner)
        | st.builds(Line, inner, inner, inner)
        | st.builds(Cart, inner, inner, inner)
    ),
    max_leaves=8,
)


@given(values)
def test_the_text_gives_an_equal_value(value):
    """For whatever stands in whatever."""
    again = evaluated(*source_of(value))

    assert (type(again), again) == (type(value), value)


@pytest.mark.parametrize(
    ("value", "text", "needed"),
    [
        (float("-inf"), "float('-inf')", set()),
        ((), "()", set()),
        ((1,), "(1,)", set()),
        (set(), "set()", set()),
        (Color.RED, "Color.RED", {(__name__, "Color")}),
        (Cart.Owner.ME, "Cart.Owner.ME", {(__name__, "Cart")}),
        (Decimal("1.50"), "Decimal('1.50')", {("decimal", "Decimal")}),
        (Fraction(1, 2), "Fraction(1, 2)", {("fractions", "Fraction")}),
        (UUID(int=1), "UUID('00000000-0000-0000-0000-000000000001')", {("uuid", "UUID")}),
        (date(2026, 1, 2), "datetime.date(2026, 1, 2)", {("datetime", "")}),
        (time(tzinfo=ZoneInfo("UTC")), None, {("datetime", ""), ("zoneinfo", "")}),
        (timedelta(1), "datetime.timedelta(days=1)", {("datetime", "")}),
        (datetime(2026, 1, 2), "datetime.datetime(2026, 1, 2, 0, 0)", {("datetime", "")}),
        ("datetime.", "'datetime.'", set()),
        (Path("a"), "PosixPath('a')", {("pathlib", "PosixPath")}),
        (Pair(1, Color.RED), "Pair(left=1, right=Color.RED)", {(__name__, "Pair"), (__name__, "Color")}),
        (deque([Color.RED]), "deque([Color.RED])", {("collections", "deque"), (__name__, "Color")}),
        (Foreign("Foreign('x', [set()])"), "Foreign('x', [set()])", {(__name__, "Foreign")}),
    ],
)
def test_the_text_is_what_one_would_write(value: Any, text: str | None, needed: Imports):
    """Short, and with no import too many."""
    found, imports = source_of(value)

    assert imports == needed
    assert text is None or found == text


def test_what_makes_the_items_of_a_defaultdict_is_left_out():
    """It may be a lambda."""
    assert source_of(defaultdict(lambda: 1, {2: Color.RED}))[0] == "defaultdict(None, {2: Color.RED})"


@pytest.mark.parametrize(
    "text", ["<Foreign at 0x7f>", "Foreign(<Color.RED: 'red'>)", "Foreign(Decimal('1'))", "(nan+0j)"]
)
def test_a_repr_that_makes_no_value_is_refused(text: str):
    """It is no source text, or needs what only its own class can tell."""
    value = complex("nan") if text == "(nan+0j)" else Foreign(text)

    with pytest.raises(Unwritable):
        source_of([value])


def test_a_local_class_is_named_without_an_import():
    """It cannot be imported; the tester has it at hand."""

    @attrs.frozen
    class Here:
        options: Mapping[str, Any]

    assert source_of(Here({"a": {1}})) == ("Here(options={'a': {1}})", set())
