"""The laws of the codec: whatever the type, the value and the bytes (R8, R9, F20, F21, F22)."""

from __future__ import annotations

import dataclasses
import enum
import typing
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, NewType, TypedDict, TypeVar
from uuid import UUID

import attrs
import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from zart_core import wire
from zart_core.codec import Codec
from zart_core.errors import DecodeError, EncodeError, FormatTooNew, InvalidUse, LogCorrupt
from zart_core.events import (
    Began,
    Cancellation,
    Closed,
    Delivered,
    Done,
    Failed,
    Failure,
    Interrupted,
    Issued,
    Noted,
    Parent,
    Resolved,
    Retried,
    Site,
    Started,
    Status,
    Taken,
)
from zart_core.log import Record

T = TypeVar("T")
UserId = NewType("UserId", str)


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Mixed(enum.Enum):
    ONE = 1
    TEXT = "text"
    PAIR = (1, 2)


class Rights(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()


@attrs.frozen
class Money:
    amount: Decimal
    currency: str = "EUR"


@attrs.define
class Tree:
    value: int
    children: list[Tree] = attrs.field(factory=list)
    _hidden: Tree | None = None


@attrs.define
class Web:
    links: list[Web] | dict[str, Web] | Nest | None = None


@attrs.define
class Nest:
    inner: dict[int, Web] | Web | Nest | None = None


@dataclasses.dataclass(frozen=True)
class Box(Generic[T]):
    content: T
    spare: list[T] = dataclasses.field(default_factory=list)

    def __hash__(self) -> int:
        return hash(self.content)


@dataclasses.dataclass(frozen=True)
class PriceBox(Box[Money]):
    label: str | int = ""


class Point(NamedTuple):
    x: int
    y: float = 0.0


class Options(TypedDict, total=False):
    speed: int
    mode: typing.Required[Literal["slow", "fast"]]


# ---------------------------------------------------------------- types, each with its values

text = st.text(st.characters(codec="utf-8"), max_size=8)
zones = st.integers(-86_399, 86_399).map(lambda s: timezone(timedelta(seconds=s)))
money = st.builds(Money, st.decimals(allow_nan=False), text)
trees = st.recursive(
    st.builds(Tree, st.integers()),
    lambda inner: st.builds(Tree, st.integers(), st.lists(inner, max_size=3), inner | st.none()),
    max_leaves=5,
)

SCALARS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (str, text),
    (int, st.integers()),
    (bool, st.booleans()),
    (None, st.none()),
    (float, st.floats(allow_nan=False)),
    (bytes, st.binary(max_size=8)),
    (datetime, st.datetimes(timezones=st.none() | zones)),
    (date, st.dates()),
    (time, st.times()),
    (timedelta, st.timedeltas()),
    (Decimal, st.decimals(allow_nan=False)),
    (Fraction, st.fractions()),
    (UUID, st.uuids()),
    (Path, text.map(Path)),
    (Colour, st.sampled_from(Colour)),
    (Level, st.sampled_from(Level)),
    (Mixed, st.sampled_from(Mixed)),
    (Rights, st.sampled_from([Rights(0), Rights.READ, Rights.READ | Rights.WRITE])),
    (UserId, text),
    (Literal[1, "1", True, None], st.sampled_from([1, "1", True, None])),
    (Literal["a", Colour.RED], st.sampled_from(["a", Colour.RED])),
    (Money, money),
    (Point, st.builds(Point, st.integers(), st.floats(allow_nan=False))),
]
webs = st.recursive(
    st.builds(Web),
    lambda inner: st.builds(
        Web,
        st.one_of(
            st.lists(inner, max_size=2),
            st.dictionaries(text, inner, max_size=2),
            st.builds(
                Nest, inner | st.dictionaries(st.integers(), inner, max_size=2) | st.builds(Nest, inner)
            ),
        ),
    ),
    max_leaves=4,
)
RECORDS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (Tree, trees),
    (Web, webs),
    (PriceBox, st.builds(PriceBox, money, st.lists(money, max_size=2), text | st.integers())),
    (
        Options,
        st.fixed_dictionaries({"mode": st.sampled_from(["slow", "fast"])}, optional={"speed": st.integers()}),
    ),
]
Typed = tuple[Any, st.SearchStrategy[Any]]
scalars = st.sampled_from(SCALARS)


def wider(inner: st.SearchStrategy[Typed]) -> st.SearchStrategy[Typed]:
    def union(members: list[Typed]) -> Typed:
        return typing.Union.__getitem__(tuple(t for t, _ in members)), st.one_of([v for _, v in members])

    return st.one_of(
        inner.map(lambda t: (list[t[0]], st.lists(t[1], max_size=3))),
        inner.map(lambda t: (tuple[t[0], ...], st.lists(t[1], max_size=3).map(tuple))),
        inner.map(lambda t: (Box[t[0]], st.builds(Box, t[1], st.lists(t[1], max_size=2)))),
        inner.map(lambda t: (dict[str, t[0]], st.dictionaries(text, t[1], max_size=3))),
        inner.map(lambda t: (typing.Union.__getitem__((t[0], None)), st.none() | t[1])),
        inner.map(lambda t: (typing.Sequence[t[0]], st.lists(t[1], max_size=3))),
        scalars.map(lambda t: (set[t[0]], st.sets(t[1], max_size=3))),
        scalars.map(lambda t: (frozenset[t[0]], st.frozensets(t[1], max_size=3))),
        st.tuples(scalars, inner).map(
            lambda kv: (dict[kv[0][0], kv[1][0]], st.dictionaries(kv[0][1], kv[1][1], max_size=3))
        ),
        st.tuples(inner, inner).map(lambda ab: (tuple[ab[0][0], ab[1][0]], st.tuples(ab[0][1], ab[1][1]))),
        st.lists(inner, min_size=2, max_size=4).map(union),
    )


typed = st.recursive(scalars | st.sampled_from(RECORDS), wider, max_leaves=4)
typed_values = typed.flatmap(lambda t: st.tuples(st.just(t[0]), t[1]))

dynamic_keys = st.one_of(text, st.just("$"), st.integers(), st.sampled_from(Colour), st.uuids(), st.dates())
dynamic_values = st.recursive(
    st.one_of([values for _, values in SCALARS] + [trees]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(dynamic_keys, inner, max_size=3),
        st.frozensets(dynamic_keys, max_size=3),
        st.sets(dynamic_keys, max_size=3),
    ),
    max_leaves=8,
)
CODEC = Codec(types=[Colour, Level, Mixed, Rights, Money, Tree, Point])


def same(a: Any, b: Any) -> bool:
    """Equal, and of the same type at every level that == does not look at."""
    if type(a) is not type(b) or a != b:
        return False
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return all(same(x, y) for x, y in zip(a.items(), b.items(), strict=True))
    return True


@given(typed_values)
def test_typed_round_trip(typed_value: tuple[Any, Any]) -> None:
    """decode(encode(v, T), T) equals v, for a fresh codec as well (R9, P4)."""
    declared, value = typed_value
    data, back = CODEC.through(value, declared)

    assert same(value, back)
    assert data == Codec().encode(value, declared)
    assert CODEC.decode(data, declared) == value


@given(typed_values, typed)
def test_bytes_do_not_depend_on_what_was_met_before(typed_value: tuple[Any, Any], other: Typed) -> None:
    """A type's JSON is the same whichever other types a codec has compiled first (P4)."""
    declared, value = typed_value
    codec = Codec()
    codec.encoder(other[0])

    assert codec.encode(value, declared) == Codec().encode(value, declared)


@given(webs, st.permutations([Web, Nest, list[Web], dict[str, Web], dict[int, Web], list[Nest], Web | Nest]))
def test_bytes_of_types_made_of_themselves(web: Web, order: list[Any]) -> None:
    """The same, for types that contain each other."""
    codec = Codec()
    for declared in order:
        codec.encoder(declared)

    for declared, value in [
        (Web, web),
        (list[Web], [web]),
        (dict[int, Web], {1: web}),
        (Web | Nest, Nest(web)),
    ]:
        assert codec.through(value, declared) == (Codec().encode(value, declared), value)


@given(typed_values, typed)
def test_wrong_type_is_refused_or_comes_back(typed_value: tuple[Any, Any], other: Typed) -> None:
    """A value given where another type is declared is refused, or equals what comes back."""
    value, declared = typed_value[1], other[0]
    try:
        _, back = CODEC.through(value, declared)
    except InvalidUse as error:
        assert error.path.startswith("result")
    else:
        assert back == value


@given(dynamic_values)
def test_dynamic_round_trip(value: Any) -> None:
    """Where no type is declared a value carries its type with it."""
    _, back = CODEC.through(value, Any)

    assert same(value, back)


@given(st.lists(typed_values, max_size=4))
def test_arguments(arguments: list[tuple[Any, Any]]) -> None:
    """A call's arguments come back in order, each by its own type."""
    encode, decode = CODEC.args_codec([t for t, _ in arguments])
    values = [value for _, value in arguments]

    assert decode(encode(values)) == values


@given(
    st.lists(st.sampled_from([str, int, bool, type(None)]), min_size=1, max_size=3),
    st.lists(st.text() | st.integers(-(10**30), 10**30) | st.booleans() | st.none(), max_size=3),
)
def test_plain_arguments(declared: list[Any], values: list[Any]) -> None:
    """Arguments that are JSON as they are: written as each is by itself, or refused when one of them would be."""
    encode, _ = CODEC.args_codec(declared)
    try:
        each = [CODEC.encode(value, cls) for cls, value in zip(declared, values, strict=True)]
    except (EncodeError, ValueError):
        with pytest.raises(EncodeError):
            encode(values)
    else:
        assert encode(values) == b"[" + b",".join(each) + b"]"


# ---------------------------------------------------------------- hostile bytes

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | text
    | st.sampled_from(["nan", "float", "$", "tuple"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(text | st.sampled_from(["$", "v", "value", "children"]), inner, max_size=4)
        | st.builds(
            lambda tag, v: {"$": tag, "v": v},
            st.sampled_from(
                [
                    "float",
                    "tuple",
                    "set",
                    "dict",
                    "decimal",
                    "timedelta",
                    "Money",
                    "os.system",
                    f"{__name__}.Tree",
                ]
            ),
            inner,
        )
    ),
    max_leaves=8,
)
hostile = st.one_of(
    st.binary(max_size=40),
    json_values.map(msgspec.json.encode),
    st.tuples(json_values.map(msgspec.json.encode), st.integers(0, 40), st.binary(max_size=3)).map(
        lambda t: t[0][: t[1]] + t[2] + t[0][t[1] :]
    ),
)


@given(typed, hostile)
@example((Any, st.none()), b"[" * 100_000)
@example((Tree, st.none()), b'{"value":1,"children":[' * 5_000)
@example((list[int], st.none()), b"[" + b"9" * 100_000 + b"]")
@example((float, st.none()), b"1e999999")
@example((Fraction, st.none()), b'"1e999999999"')
@example((Decimal, st.none()), b'"1e999999999999999999999"')
@example((Any, st.none()), b'{"$":"set","v":[[1]]}')
@example((str, st.none()), b'"\x00"')
@example((datetime, st.none()), b'"9999-99-99"')
def test_hostile_bytes(declared: Typed, data: bytes) -> None:
    """Whatever the bytes: a value that goes in and out again, or DecodeError (F22)."""
    try:
        value = CODEC.decode(data, declared[0])
    except DecodeError:
        return
    again = CODEC.decode(CODEC.encode(value, declared[0]), declared[0])
    assert again == value or repr(again) == repr(value)


# ---------------------------------------------------------------- events

seconds = st.floats(0, 4e9)
names = text
payloads = st.one_of(st.binary(max_size=20), st.just(b"\n\n"), st.just(b""))
kinds = st.sampled_from(typing.get_args(Failure.__annotations__["kind"]) or ("answer", "error", "lost"))
failures = st.recursive(
    st.builds(Failure, kinds, names, names, names, st.none() | names, st.integers(0, 9)),
    lambda inner: st.builds(Failure, kinds, names, names, names, st.none() | names, st.integers(0, 9), inner),
    max_leaves=3,
)
numbers = st.integers(0, 2**40)
outcomes = st.one_of(
    st.builds(Done, payloads),
    st.builds(Failed, failures),
    st.builds(Taken, numbers),
    st.builds(Cancellation, names),
)
events = st.one_of(
    st.builds(
        Started,
        names,
        numbers,
        names,
        payloads,
        seconds,
        st.none() | seconds,
        st.none() | st.builds(Parent, names, numbers, numbers),
    ),
    st.builds(
        Issued,
        numbers,
        st.sampled_from(["step", "sleep", "event", "capture", "now", "child", "spawn", "version"]),
        names,
        seconds,
        names,
        payloads,
        st.none() | seconds,
        st.none() | names,
        st.none() | st.builds(Site, names, names, numbers),
    ),
    st.builds(Began, numbers, numbers, st.none() | numbers, st.none() | seconds, at=seconds),
    st.builds(Retried, numbers, numbers, failures, seconds, seconds),
    st.builds(Resolved, numbers, outcomes, seconds, st.booleans()),
    st.builds(Delivered, numbers, names, payloads, seconds, st.none() | names, st.booleans()),
    st.builds(Interrupted, st.sampled_from(["cancel", "deadline"]), seconds, names, st.booleans()),
    st.builds(Closed, st.sampled_from(Status), seconds, payloads, st.none() | failures),
    st.builds(Noted, names, names, names, at=seconds),
)


@given(st.lists(events, max_size=4))
def test_events_round_trip(history: list[Any]) -> None:
    """Every event comes back from its record as it was."""
    records = CODEC.encode_events(history)

    assert CODEC.decode_events(records) == history
    assert [r.at for r in records] == [e.at for e in history]


@given(numbers, numbers, payloads)
def test_short_ways_of_writing(seq: int, attempt: int, payload: bytes) -> None:
    """What nearly all events are written by without a head says what the head would say, byte for byte."""
    began = CODEC.encode_event(Began(seq, attempt, at=1.0))
    done = CODEC.encode_event(Resolved(seq, Done(payload), 1.0))

    assert began == Record("Began", 1.0, msgspec.json.encode(wire.BeganHead(seq, attempt)))
    assert done == Record("Resolved", 1.0, msgspec.json.encode(wire.ResolvedHead(seq)) + b"\n" + payload)


@given(
    events,
    st.integers(0, 60),
    st.binary(max_size=4),
    st.integers(0, 4),
    st.sampled_from(["Issued", "Resolved", "Later", None]),
)
def test_mutated_records(event: Any, where: int, junk: bytes, cut: int, kind: str | None) -> None:
    """Whatever happened to a record: an event, LogCorrupt or FormatTooNew (F21)."""
    record = CODEC.encode_event(event)
    data = record.data[:where] + junk + record.data[where + cut :]
    try:
        read = CODEC.decode_event(Record(kind or record.kind, record.at, data))
    except LogCorrupt as error:
        assert "event 0 of run 0" in str(error)
        assert isinstance(error, FormatTooNew) or kind != "Later"
    else:
        assert CODEC.decode_event(CODEC.encode_event(read)) == read


NEEDED = {
    "Issued": [b'"seq":1', b'"kind":"step"', b'"name":"pay"'],
    "Began": [b'"seq":1', b'"attempt":0'],
    "Resolved": [b'"seq":1'],
}
SITES = [b'"site":["m","f",3]', b'"site":["m","f",4]', b' "site" : ["m","f",5] ']
ALLOWED = {
    "Issued": [b'"of":"pay-{n}"', b'"until":2.5', b'"child":"c"', b'"name":",\\"site\\":"', *SITES, *SITES],
    "Began": [b'"takeover":1', b'"deadline":9.0', b'"attempt":2'],
    "Resolved": [
        b'"held":true',
        b'"taken":7',
        b'"cancelled":""',
        b'"failed":{"kind":"lost","type":"","message":""}',
    ],
}
ODD = [
    b"",
    b'"seq":null',
    b'"kind":"dance"',
    b'"attempt":1.5',
    b'"site":["m","f"]',
    b'"site":null',
    b'"site":["m","f",3]}{"site":["m","f",3]',
    b'"more":{"site":["m","f",3]}',
]
TAILS = [b"}", b"}\n", b"}\n[1]", b"}\n\n", b"} ", b"\n}", b"", b"}}", b"} x"]


@st.composite
def lines(draw: st.DrawFn) -> Record:
    """A record of the kinds that a step leaves; in half of them nothing is wrong, though it may be unusual."""
    kind = draw(st.sampled_from(sorted(NEEDED)))
    members = NEEDED[kind] + draw(st.lists(st.sampled_from(ALLOWED[kind]), max_size=2))
    if not draw(st.booleans()):
        members = draw(st.permutations(members + draw(st.lists(st.sampled_from(ODD), max_size=1))))
    tail = draw(st.sampled_from(TAILS[:3]) | st.sampled_from(TAILS))
    return Record(kind, 1.0, b"{" + b",".join(members) + tail)


def issued(rest: bytes) -> Record:
    return Record("Issued", 1.0, b'{"seq":1,"kind":"step","name":"pay",' + rest)


def resolved(rest: bytes) -> Record:
    return Record("Resolved", 1.0, b'{"seq":1' + rest)


@given(st.lists(lines(), min_size=1, max_size=4))
@example([issued(SITES[0] + b"}"), issued(SITES[1] + b"}"), issued(SITES[0] + b"}\n[1]")])
@example([issued(b'"of":"o","until":2.5,"child":"c",' + SITES[0] + b"}\n")])
@example([issued(SITES[0] + b"," + SITES[1] + b"}"), issued(SITES[1] + b',"of":"o"}')])
@example([issued(SITES[0] + b"}{" + SITES[0] + b"}")])
@example([resolved(b',"taken":7}\n1')])
@example([resolved(b',"cancelled":""}\n1')])
@example([resolved(b',"held":true}\n1'), resolved(b"}")])
@example([Record("Began", 1.0, b'{"seq":1,"attempt":2,"takeover":1,"deadline":9.0}')])
@example([Record("Began", 1.0, b'{"seq":1,"attempt":2}\n')])
def test_the_ordinary_way_reads_what_the_whole_one_does(records: list[Record]) -> None:
    """An Issued, a Began or a Resolved is the event that READERS make of it, or the error that they raise."""
    expected: list[Any] = []
    problem: Exception | None = None
    for record in records:
        try:
            expected.append(wire.READERS[record.kind](record.at, record.data))
        except Exception as error:
            problem = error
            break
    if problem is None:
        assert wire.decode_events(records) == expected
    else:
        with pytest.raises(LogCorrupt, match=f"event {len(expected)} of run 0") as raised:
            wire.decode_events(records)
        assert str(raised.value).endswith(str(problem))
        assert wire.decode_events(records[: len(expected)]) == expected


# ---------------------------------------------------------------- errors


class Declined(Exception):
    limit: Decimal | None
    when: datetime

    def __init__(self, *args: Any, **fields: Any) -> None:
        super().__init__(*args)
        vars(self).update(fields)


@given(
    st.lists(dynamic_values, max_size=3),
    st.fixed_dictionaries(
        {},
        optional={
            "limit": st.none() | st.decimals(allow_nan=False),
            "when": st.datetimes(),
            "x": dynamic_values,
        },
    ),
)
def test_answers(args: list[Any], fields: dict[str, Any]) -> None:
    """A declared error comes back as its own type, with its arguments and fields (R8)."""
    error = Declined(*args, **fields)
    back = CODEC.error_of(CODEC.failure_of(error, (Declined,)), (Declined,), step="s")

    assert type(back) is Declined
    assert (back.args, vars(back)) == (error.args, vars(error))


@given(failures)
def test_any_failure_is_an_error(failure: Failure) -> None:
    """Whatever a log says about an error, it becomes an exception that can be shown, and described again."""
    error = CODEC.error_of(failure, (Declined, ValueError), step="s")

    assert isinstance(str(error), str)
    CODEC.encode_event(Closed(Status.FAILED, 0.0, failure=CODEC.failure_of(error)))
