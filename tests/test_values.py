"""The forms of values, type by type: what each writes, what it reads, and what it refuses, both ways (R9, F20, F22)."""

from __future__ import annotations

import dataclasses
import enum
import math
import threading
from collections import Counter, OrderedDict, defaultdict
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Mapping,
    MutableSequence,
    MutableSet,
    Sequence,
    Set,
)
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import (
    Annotated,
    Any,
    Final,
    Generic,
    Literal,
    Never,
    NewType,
    NotRequired,
    Required,
    TypedDict,
    TypeVar,
    Union,
    get_origin,
)
from uuid import UUID

import attrs
import cattrs
import msgspec
import pytest
from typing_extensions import ReadOnly, TypeAliasType, Unpack

from zart_core.codec import Codec
from zart_core.errors import DecodeError, EncodeError, InvalidUse
from zart_core.values.forms import Unfit
from zart_core.values.shapes import Shapes

T = TypeVar("T")
Small = TypeVar("Small", bound=int)
Either = TypeVar("Either", int, str)
UserId = NewType("UserId", int)
Pair = TypeAliasType("Pair", tuple[T, T], type_params=(T,))
Names = TypeAliasType("Names", list[str])
CODEC = Codec()


class Perm(enum.Flag):
    READ = 1
    WRITE = 2


class Level(enum.Enum):
    LOW = 1
    HIGH = 9


class Mixed(enum.Enum):
    TEXT = "a"
    NUMBER = 1


class Folder(type(Path())):  # type: ignore[misc]
    """A path of one's own."""


class Chosen(TypedDict):
    always: Annotated[Required[int], "note"]
    at_times: Annotated[NotRequired[int], "note"]
    fixed: ReadOnly[NotRequired[str]]


@attrs.frozen
class Base(Generic[T]):
    content: T


@attrs.frozen
class Derived(Base[list[T]]):
    more: T


@attrs.frozen
class Numbered(Derived[int], Generic[T]):
    extra: T


class Page(TypedDict, Generic[T]):
    first: T


class Pages(Page[list[T]]):
    rest: T


@attrs.define
class Slotted:
    name: str
    late: int = attrs.field(init=False)


class Prickly:
    """Its hash may raise anything."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Prickly) and other.n == self.n

    def __hash__(self) -> int:
        if self.n == 13:
            raise ZeroDivisionError
        return self.n


def with_hooks(cls: type[Any], write: Callable[[Any], Any], read: Callable[[Any, Any], Any]) -> Codec:
    """A codec that knows a user's type."""
    codec = Codec()
    codec.converter.register_unstructure_hook(cls, write)
    codec.converter.register_structure_hook(cls, read)
    return codec


@pytest.mark.parametrize(
    ("declared", "value", "written"),
    [
        (float, 3, "3.0"),
        (float, -math.inf, '{"$":"float","v":"-inf"}'),
        (bool, True, "true"),
        (bytearray, bytearray(b"a"), '"YQ=="'),
        (time, time(1, 2, 3), '"01:02:03"'),
        (timedelta, timedelta(0), '"0s"'),
        (timedelta, timedelta(seconds=90), '"90s"'),
        (timedelta, timedelta(seconds=1, microseconds=5), '"1.000005s"'),
        (Fraction, Fraction(1, 3), '"1/3"'),
        (Fraction, Fraction(4), '"4"'),
        (complex, 1 + 2j, '"(1+2j)"'),
        (Path, Path("a/b"), '"a/b"'),
        (UUID, UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        (Level, Level.HIGH, "9"),
        (Mixed, Mixed.NUMBER, '"NUMBER"'),
        (Perm, Perm.READ | Perm.WRITE, "3"),
        (Perm, Perm(0), "0"),
        (dict[tuple[int, int], str], {(1, 2): "a"}, '[[[1,2],"a"]]'),
        (dict[UserId, str], {7: "a"}, '[[7,"a"]]'),
        (UserId, 5, "5"),
        (Small, 5, "5"),
        (Either, "a", '"a"'),
        (T, [1, (2,)], '[1,{"$":"tuple","v":[2]}]'),
        (Pair[int], (1, 2), "[1,2]"),
        (Names, ["a"], '["a"]'),
        (Annotated[int, "unit"], 3, "3"),
        (Final[int], 3, "3"),
        (Derived[int], Derived([1], 2), '{"content":[1],"more":2}'),
        (Numbered[str], Numbered([1], 2, "x"), '{"content":[1],"more":2,"extra":"x"}'),
        (Pages[int], {"first": [1], "rest": 2}, '{"first":[1],"rest":2}'),
        (Chosen, {"always": 1, "at_times": 2, "fixed": "x"}, '{"always":1,"at_times":2,"fixed":"x"}'),
        (Chosen, {"always": 1}, '{"always":1}'),
        (Any | None, (1,), '{"$":"tuple","v":[1]}'),
        (tuple, (1, "a"), '[1,"a"]'),
        (Sequence, (1,), '{"$":"tuple","v":[1]}'),
        (Collection[int], [1], "[1]"),
        (Iterable[int], (1, 2), '{"$":"tuple","v":[1,2]}'),
        (MutableSequence[int], [1], "[1]"),
        (MutableSet[int], {2, 1}, "[1,2]"),
        (Set[int], {1}, "[1]"),
        (Mapping[int, str], {1: "a"}, '[[1,"a"]]'),
        (Any, {1, 2}, '{"$":"set","v":[1,2]}'),
        (Any, frozenset({1}), '{"$":"frozenset","v":[1]}'),
        (Any, [math.inf, 1.5], '[{"$":"float","v":"inf"},1.5]'),
        (Any, Path("a"), '{"$":"path","v":"a"}'),
        (Any, {(1,): 2}, '{"$":"dict","v":[[{"$":"tuple","v":[1]},2]]}'),
        (int | float, 2.5, "2.5"),
        (float | str, 2, "2.0"),
        (Union[int, Union[str, None]], None, "null"),  # noqa: UP007
        (Names | dict[str, int], {"a": 1}, '{"a":1}'),
        (set[int] | list[str], ["a"], '{"$":"list[str]","v":["a"]}'),
        (set[int] | list[str], [], '{"$":"list[str]","v":[]}'),
        (list[int] | list[str], ["a"], '{"$":"list[str]","v":["a"]}'),
        (Literal[Level.LOW, "x"], Level.LOW, '1'),
        (None, None, "null"),
    ],
)  # fmt: skip
def test_written_and_read(declared, value, written):
    """The bytes are those that logs hold, and the same value of the same type comes back."""
    data, back = CODEC.through(value, declared)
    assert (data.decode(), back) == (written, value)
    assert type(back) is (float if declared in (float, float | str) else type(value))


class Moment(datetime):
    """As libraries for times have one."""


def test_a_moment_of_another_class_keeps_its_time():
    """It is a date to Python, and would lose its time where a date is declared."""
    assert CODEC.through(Moment(2024, 1, 2, 3), date | datetime)[1] == datetime(2024, 1, 2, 3)


@pytest.mark.parametrize(
    ("declared", "value", "message"),
    [
        (None, 1, "result: expected None, found int"),
        (float, "1", "result: expected float, found str"),
        (float, True, "result: expected float, found bool"),
        (float, 10**400, "result: expected float, found an int that no float is equal to"),
        (time, time(1, tzinfo=timezone(timedelta(microseconds=5))), "with fractions of a second; round it"),
        (date, datetime(2024, 1, 2), "result: expected date, found datetime"),
        (date, Moment(2024, 1, 2), "result: expected date, found Moment"),
        (list[int], (1,), "result: expected list[int], found tuple"),
        (set[int], [1], "result: expected set[int], found list"),
        (set[str], {"\ud800"}, "found text with a lone surrogate"),
        (dict[str, int], [], "result: expected dict[str, int], found list"),
        (dict, [], "result: expected dict, found list"),
        (dict[str, int], {"a" * 50: "x"}, f"result['{'a' * 36}...]: expected int, found str"),
        (dict[tuple[int], int], {("a",): 1}, "result[0][0]: expected int, found str"),
        (dict[str, int], {None: 1}, "result[a key of type None]: expected str, found None"),
        (Literal["a"], [], "result: expected Literal['a'], found another list"),
        (int | str, 1.5, "result: expected int | str, found float"),
        (list[int] | list[str], [1.5], "result: expected list[int] | list[str], found list"),
        (Level, 9, "result: expected Level, found int"),
        (Slotted, Slotted("a"), "result: the Slotted has no value for its field 'late'"),
        (Chosen, [], "result: expected Chosen, found list"),
        (Any, SimpleNamespace(), "result: found SimpleNamespace, where no type is declared"),
    ],
)
def test_refused(declared, value, message):
    """What does not fit is refused with its place, both types, and no value."""
    with pytest.raises(EncodeError) as caught:
        CODEC.encode(value, declared)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("declared", "data", "message"),
    [
        (None, b"0", "expected None, found int"),
        (float, b'"1"', "expected float, found str"),
        (float, b'{"$":"float","v":"1.5"}', "expected float, found the tag 'float'"),
        (float, b'{"$":"double","v":"nan"}', "expected float, found the tag 'double'"),
        (tuple[float, Decimal], b'[9007199254740993,"1"]', "value[0]: expected float, found an int that no"),
        (date, b"1", "expected date, found int"),
        (date, b'"1st of May"', "expected date, found text that is none"),
        (timedelta, b'"1e9s"', "expected timedelta, found text that is none"),
        (Fraction, b'"1/0"', "expected Fraction, found text that is none"),
        (Level, b'"9"', "expected Level, found str"),
        (Level, b"3", "expected one of the 2 values of Level, found another"),
        (Perm, b"8", "expected one of the 2 values of Perm, found another"),
        (tuple[int, str], b"[1]", "expected tuple[int, str], found 1 items"),
        (tuple[int, ...], b"{}", "expected tuple[int, ...], found dict"),
        (set[int], b"{}", "expected set[int], found dict"),
        (set[list[int]], b"[[1]]", "expected set[list[int]], found items that cannot be in a set"),
        (dict[int, int], b'{"1":1}', "expected dict[int, int], found dict"),
        (dict[int, int], b"[[1]]", "value[0]: expected a pair of key and value, found 1 items"),
        (dict[int, int], b"[1]", "value[0]: expected a pair of key and value, found int"),
        (dict[list[int], int], b"[[[1],2]]", "found a key that no dict can have"),
        (dict[str, Decimal], b"[]", "expected dict[str, Decimal], found list"),
        (dict, b"[1]", "expected dict, found list"),
        (Sequence[Decimal], b'{"$":"list","v":[]}', "found the tag 'list'"),
        (Sequence[Decimal], b'{"$":"tuple"}', 'expected a tag, {"$": name, "v": value}'),
        (Base[int] | Derived[int], b'{"$":"Other","v":{}}', "found the tag 'Other'"),
        (int | None | Decimal, b"[1]", "expected Decimal | int | None, found list"),
        (Literal["a"], b'"b"', "expected Literal['a'], found another str"),
        (Any, b'{"$":1,"v":2}', 'expected a tag, {"$": name, "v": value}'),
        (Any, b'{"$":"tuple","v":[],"w":0}', 'expected a tag, {"$": name, "v": value}'),
        (Base[Decimal], b"[]", "expected Base[Decimal], found list"),
        (Chosen, b'{"at_times":1}', "value['always']: the Chosen has no value for it"),
        (Chosen, b'{"always":"x"}', "value['always']: expected int, found str"),
    ],
)  # fmt: skip
def test_undecodable(declared, data, message):
    """JSON of another shape is a DecodeError with its place, for every form."""
    with pytest.raises(DecodeError) as caught:
        CODEC.decode(data, declared)
    assert message in str(caught.value)


def test_keys_of_other_code_are_passed_over():
    """A key that a TypedDict no longer declares does not make an old log unreadable."""
    assert CODEC.decode(b'{"always":1,"gone":2}', Chosen) == {"always": 1}


def test_text_keys_of_any_type_of_text():
    """A dict whose keys are written as strings is an object; two of them that read alike are one key."""
    assert CODEC.through({Decimal("1.0"): 1}, dict[Decimal, int]) == (b'{"1.0":1}', {Decimal("1.0"): 1})
    assert CODEC.decode(b'{"1":1,"1.0":2}', dict[Decimal, int]) == {Decimal(1): 2}


def test_a_key_that_cannot_be_one():
    """A user's type may read a string as something that no dict can have as a key."""
    codec = with_hooks(SimpleNamespace, lambda value: value.name, lambda data, _: SimpleNamespace(name=data))
    form = codec.shapes.of(SimpleNamespace)
    form.tokens = frozenset({"string"})
    with pytest.raises(DecodeError, match="found a key that no dict can have"):
        codec.decode(b'{"a":1}', dict[SimpleNamespace, int])


def test_hooks_that_raise():
    """A hook of the user may raise anything: it is a refusal with the type's name, both ways."""
    codec = with_hooks(Prickly, lambda value: 1 // value.n, lambda data, _: Prickly(data))
    with pytest.raises(EncodeError, match="result: this Prickly cannot be encoded: ZeroDivisionError"):
        codec.encode(Prickly(0), Prickly)
    with pytest.raises(EncodeError, match="result: expected Prickly, found int"):
        codec.encode(1, Prickly)
    with pytest.raises(DecodeError, match="value: ZeroDivisionError while it was read"):
        codec.decode(b"[13]", set[Prickly])
    assert codec.decode(b"[12]", set[Prickly]) == {Prickly(12)}


def test_hooks_of_what_is_no_class():
    """A declared type that is no class, such as a callable's, is as good as its hooks."""
    reads = Callable[[], int]
    codec = Codec()
    codec.converter.register_unstructure_hook_func(lambda cls: cls is reads, lambda value: value())
    codec.converter.register_structure_hook_func(lambda cls: cls is reads, lambda data, _: lambda: data)
    data, back = codec.through(lambda: 5, reads)
    assert (data, back()) == (b"5", 5)
    with pytest.raises(InvalidUse, match="no value of type"):
        CODEC.encode(len, threading.Thread)
    with pytest.raises(InvalidUse, match="no value of type Never can be encoded"):
        CODEC.encode(len, Never)


class Reading(msgspec.Struct):
    value: float | None
    more: dict[str, list[float | None]] = {}


@pytest.mark.parametrize(
    ("value", "declared", "place"),
    [
        (Reading(math.nan), Reading, "result.value"),
        (Reading(1.0, {"a": [None, math.inf]}), list[Reading], "result[0].more.a[1]"),
        (OrderedDict(a=-math.inf), OrderedDict[str, float | None], "result.a"),
    ],
)
def test_hooks_that_write_what_json_does_not_have(value, declared, place):
    """A nan would become null, and come back as None where the type has that."""
    given = [value] if declared == list[Reading] else value
    with pytest.raises(EncodeError) as caught:
        CODEC.encode(given, declared)
    assert str(caught.value).startswith(f"{place}: found nan or infinity, for which JSON has no number; ")
    assert CODEC.through(Reading(None, {"a": [1.5]}), Reading)[1] == Reading(None, {"a": [1.5]})


@pytest.mark.parametrize(
    ("value", "declared"),
    [
        (OrderedDict(a=1.7), OrderedDict[str, int]),
        (OrderedDict(a="7"), OrderedDict[str, int]),
        (OrderedDict(a=Decimal("1.10")), OrderedDict),
        (OrderedDict({1: "a"}), OrderedDict),
        (defaultdict(list, a=[1.5]), defaultdict[str, list[int]]),
        (Counter(a=1.5), Counter[str]),
    ],
)
def test_collections_that_hooks_change(value, declared):
    """The hooks that cattrs has for a mapping make what is declared of whatever is in it: that is refused."""
    with pytest.raises(EncodeError, match=r"result: this .* would come back with other items in it"):
        CODEC.encode(value, declared)


@pytest.mark.parametrize(
    ("value", "declared"),
    [
        (OrderedDict(b=1, a=2**70), OrderedDict[str, int]),
        (OrderedDict({2: [date(2020, 1, 1)]}), OrderedDict[int, list[date]]),
        (defaultdict(int, a=1), defaultdict[str, int]),
        (Counter("abba"), Counter[str]),
    ],
)
def test_collections_that_cattrs_knows(value, declared):
    """They come back as they are, and of their own class."""
    back = CODEC.through(value, declared)[1]
    assert (back, type(back)) == (value, type(value))


@pytest.mark.parametrize("cls", [OrderedDict, lambda items: defaultdict(Decimal, items), Counter])
def test_messages_of_collections(cls):
    """Who sends one knows its value alone: it is written as a dict is."""
    assert CODEC.encode_message(cls({"a": Decimal("1.10")})) == b'{"a":"1.10"}'
    assert CODEC.encode_message(cls({1: 2})) == b"[[1,2]]"


@pytest.mark.parametrize("literal", [2**70, -(2**63) - 1])
def test_literals_that_msgspec_does_not_take(literal):
    """A number of any size may be one of a literal's."""
    for declared in (Literal[literal], list[Literal[literal, "a"]], tuple[int, Literal[literal]]):
        value = {list: [literal, "a"], tuple: (1, literal)}.get(get_origin(declared), literal)
        assert CODEC.through(value, declared)[1] == value
        with pytest.raises(DecodeError):
            CODEC.decode(b"1", declared)


@pytest.mark.parametrize(
    "declared",
    [tuple[int, *tuple[str, ...]], tuple[int, Unpack[tuple[str, ...]]]],  # noqa: UP044  # both ways
)
def test_a_tuple_with_an_unpacked_part(declared):
    """It is refused before a step runs whose result it would be; no value fitted it."""
    with pytest.raises(InvalidUse, match="can be encoded: a part of it has no fixed length"):
        CODEC.decoder(declared)


def test_a_property_that_raises():
    """Reading a field is the user's code, and may raise anything."""

    @dataclasses.dataclass
    class Lazy:
        n: int

        def __getattribute__(self, name: str) -> Any:
            if name == "n":
                raise ZeroDivisionError
            return super().__getattribute__(name)

    with pytest.raises(EncodeError, match="result: ZeroDivisionError while it was read"):
        CODEC.encode(Lazy(1), Lazy)


def test_classes_of_one_name_are_told_apart():
    """A union of classes of one name, from two modules, tags them by their full names."""
    there = attrs.make_class("Slotted", {"content": attrs.field(type=int)})
    there.__module__ = "elsewhere"
    declared = Slotted | there
    data, back = CODEC.through(there(1), declared)
    assert (data, back) == (b'{"$":"elsewhere.Slotted","v":{"content":1}}', there(1))
    here = Slotted("a")
    here.late = 2
    data, back = CODEC.through(here, declared)
    assert (data, back) == (b'{"$":"test_values.Slotted","v":{"name":"a","late":2}}', here)


def test_paths_of_ones_own():
    """A path of a subclass is written like any path."""
    assert CODEC.encode(Folder("a"), Folder) == b'"a"'
    with pytest.raises(InvalidUse):
        CODEC.encode(PurePosixPath("a"), PurePosixPath)


def test_depth_without_a_type():
    """Where no type is declared, what contains itself is found out on the way."""
    circle: dict[str, Any] = {}
    circle["a"] = circle
    with pytest.raises(EncodeError, match="nested deeper than 100 levels, or contains itself; flatten it"):
        CODEC.encode(circle, Any)


def test_a_class_in_itself_is_met_while_its_form_is_made():
    """Types that contain each other are made all at once, whichever is met first."""
    for first, second in ((Tree, Leaves), (Leaves, Tree)):
        codec = Codec()
        for declared in (first, second):
            value = Tree({1: [Tree({}, None)]}, (Tree({}, None),))
            assert codec.through(value, Tree)[1] == value
            assert codec.shapes.of(declared) is codec.shapes.of(declared)


@attrs.frozen
class Tree:
    by_number: dict[int, list[Tree]]
    rest: Sequence[Tree] | None


Leaves = dict[int, list[Tree]]


def test_annotations_that_raise():
    """An annotation is code: whatever it raises, the error names the class."""

    class Odd:
        __annotations__ = {"x": "1 / 0"}

    odd = dataclasses.dataclass(Odd)
    with pytest.raises(InvalidUse, match=r"the annotations of .*Odd cannot be resolved: division by zero"):
        CODEC.encode(odd(1), odd)


def test_a_form_that_only_writes():
    """Messages are written by the value's own class; who reads declares a type."""
    shapes = Shapes(cattrs.Converter())
    assert shapes.own.write((1, [2])) == [1, [2]]
    with pytest.raises(RecursionError):
        shapes.own.read([1])


def test_the_path_to_a_place_is_not_endless():
    """A place deep inside is told by its beginning and its end."""
    unfit = Unfit("no")
    unfit.steps = [f"[{n}]" for n in range(100)]
    path = unfit.path("result")
    assert path.startswith("result[99][98]") and path.endswith("[1][0]") and len(path) == 200
    unfit.steps = ["x" * 194]
    assert unfit.path("result") == "result" + "x" * 194
