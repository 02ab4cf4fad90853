"""Values, arguments, exceptions and events as bytes, and back."""

from __future__ import annotations

import dataclasses
import enum
import sys
import threading
from collections import OrderedDict, defaultdict, deque
from collections.abc import Mapping, Sequence, Set
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, NotRequired, TypedDict, TypeVar
from uuid import UUID

import attrs
import pytest
from typing_extensions import TypeAliasType

from zart_core import errors, wire
from zart_core.codec import Codec
from zart_core.errors import DecodeError, EncodeError, FormatTooNew, InvalidUse, LogCorrupt, StoreUnavailable
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
from zart_core.failures import FIELDS_BYTES_MAX, NOT_KEPT, TEXT_CHARS_MAX, clean
from zart_core.log import PAYLOAD_BYTES_MAX, Record

T = TypeVar("T")


@attrs.frozen
class Line:
    sku: str
    price: Decimal


@attrs.frozen
class Order:
    id: str
    items: list[Line] = attrs.field(factory=list)
    note: str | None = None


@dataclasses.dataclass
class Card:
    number: str


@dataclasses.dataclass
class Cash:
    notes: int


@attrs.define
class Node:
    name: str
    next: Node | None = None


@attrs.frozen
class Holder(Generic[T]):
    content: T


class Speed(enum.StrEnum):
    SLOW = "slow"


class Options(TypedDict):
    mode: str
    limit: NotRequired[int]


class Point(NamedTuple):
    x: int
    y: int = 0


Strings = TypeAliasType("Strings", list[str] | str)
CODEC = Codec()


@pytest.mark.parametrize(
    ("declared", "value", "written"),
    [
        (int, 2**70, "1180591620717411303424"),
        (float, 3.0, "3.0"),
        (float, float("inf"), '{"$":"float","v":"inf"}'),
        (
            Order,
            Order("42", [Line("a", Decimal("1.50"))]),
            '{"id":"42","items":[{"sku":"a","price":"1.50"}],"note":null}',
        ),
        (Holder[Line], Holder(Line("a", Decimal(1))), '{"content":{"sku":"a","price":"1"}}'),
        (Options, {"limit": 3, "mode": "x"}, '{"limit":3,"mode":"x"}'),
        (Point, Point(1, 2), '{"x":1,"y":2}'),
        (Card | None, Card("1"), '{"number":"1"}'),
        (Card | Cash, Cash(3), '{"$":"Cash","v":{"notes":3}}'),
        (int | str, "1", '"1"'),
        (Decimal | str, Decimal("1.0"), '{"$":"Decimal","v":"1.0"}'),
        (bytes, b"\x00\xff", '"AP8="'),
        (
            datetime,
            datetime(2024, 1, 2, 3, tzinfo=timezone(timedelta(hours=2))),
            '"2024-01-02T03:00:00+02:00"',
        ),
        (timedelta, timedelta(days=-1, microseconds=1), '"-86399.999999s"'),
        (tuple[int, str], (1, "a"), '[1,"a"]'),
        (frozenset[str], frozenset("bca"), '["a","b","c"]'),
        (dict[int, str], {1: "a"}, '[[1,"a"]]'),
        (dict[date, int], {date(2024, 1, 2): 1}, '{"2024-01-02":1}'),
        (dict, {"a": 1}, '{"a":1}'),
        (dict, {"a": (1,)}, '{"a":{"$":"tuple","v":[1]}}'),
        (dict, {1: 2}, '{"$":"dict","v":[[1,2]]}'),
        (Sequence[int], [1], "[1]"),
        (Sequence[int], (1,), '{"$":"tuple","v":[1]}'),
        (Set[int], frozenset({1}), '{"$":"frozenset","v":[1]}'),
        (Mapping[str, int], {"a": 1}, '{"a":1}'),
        (Literal["a", 1], 1, "1"),
        (Annotated[int, []], 1, "1"),
        (Strings | None, ["a"], '["a"]'),
        (Any, {"$": 1}, '{"$":"dict","v":[["$",1]]}'),
        (object, [Decimal(1), b"a"], '[{"$":"decimal","v":"1"},{"$":"bytes","v":"YQ=="}]'),
        (deque[int], deque([1, 2]), "[1,2]"),
    ],
)
def test_written(declared, value, written):
    """What is in a log can be read by a person, and comes back."""
    assert CODEC.through(value, declared) == (written.encode(), value)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the type statement is new in 3.12")
def test_type_that_is_made_of_itself():
    """A recursive type alias is as good as a class that contains itself."""
    space: dict[str, Any] = {}
    exec("type Json = dict[str, Json] | list[Json] | str | int | None", space)

    assert CODEC.through({"a": [1, None]}, space["Json"]) == (b'{"a":[1,null]}', {"a": [1, None]})
    assert CODEC.through({"a": [1, None]}, space["Json"] | bool)[1] == {"a": [1, None]}


def test_nan_comes_back():
    """JSON has no nan; it is tagged, in a float and in a list of them."""
    data, back = CODEC.through([1.0, float("nan")], list[float])

    assert data == b'[1.0,{"$":"float","v":"nan"}]'
    assert str(back) == "[1.0, nan]"


def test_plain_values_of_subclasses():
    """A StrEnum or a defaultdict may stand where its base is declared; the workflow sees the base."""
    assert CODEC.through(Speed.SLOW, str) == (b'"slow"', "slow")
    assert type(CODEC.through(Speed.SLOW, str)[1]) is str
    assert type(CODEC.through(defaultdict(int, a=1), dict[str, int])[1]) is dict
    assert type(CODEC.through(OrderedDict(a=1), OrderedDict[str, int])[1]) is OrderedDict


@pytest.mark.parametrize(
    ("declared", "value", "message"),
    [
        (int, "abc", "result: expected int, found str"),
        (int, True, "result: expected int, found bool"),
        (int, 1.5, "result: expected int, found float"),
        (bool, 1, "result: expected bool, found int"),
        (str, 1, "result: expected str, found int"),
        (float, 2**53 + 1, "result: expected float, found an int that no float is equal to"),
        (date, datetime(2024, 1, 1), "result: expected date, found datetime"),
        (
            Order,
            Order("1", [Line("a", Decimal(1)), Line("b", 2.0)]),
            "result.items[1].price: expected Decimal, found float",
        ),
        (Order, Line("a", Decimal(1)), "result: expected Order, found Line"),
        (dict[str, list[int]], {"a b": [1, "2"]}, "result['a b'][1]: expected int, found str"),
        (Card | Cash, Line("a", Decimal(1)), "result: expected Card | Cash, found Line"),
        (Card | Cash, Card(1), "result.number: expected str, found int"),
        (Options, {"mode": 1}, "result['mode']: expected str, found int"),
        (Options, {}, "result['mode']: the Options has no value for it"),
        (Options, {"mode": "a", "x": 1}, "result: found keys that Options does not declare"),
        (tuple[int, str], (1,), "result: expected tuple[int, str], found 1 items"),
        (Literal["a"], "b", "result: expected Literal['a'], found another str"),
        (str, "\ud800", "result: found text with a lone surrogate"),
        (list[str], ["a", "\ud800"], "result[1]: found text with a lone surrogate"),
        (dict[str, int], {"a": 1, "b\udcff": 2}, "result.b\\udcff: found text with a lone surrogate"),
        (dict[str, int], {"\ud800": 1}, "result"),
        (list[int], [10**5000], "result[0]: found an int of thousands of digits"),
        (Any, [{"a": threading.Lock()}], "result[0]['a']: found lock, where no type is declared"),
        (object, Card("1"), "register the class: Codec(types=[Card])"),
        (list[Any], [Speed.SLOW], "result[0]: found Speed, where no type is declared"),
    ],
)
def test_refused(declared, value, message):
    """What does not fit its declared type is refused with the place, the type found, and what to do (F20)."""
    with pytest.raises(EncodeError) as caught:
        CODEC.encode(value, declared)

    assert message in str(caught.value)
    assert caught.value.path and str(caught.value).startswith(caught.value.path + ":")


def test_refused_never_shows_the_value():
    """The value may be a password: only its type is named."""
    with pytest.raises(EncodeError) as caught:
        CODEC.encode("hunter2", int)
    with pytest.raises(DecodeError) as caught_too:
        CODEC.decode(b'["hunter2"]', list[int])

    assert "hunter2" not in str(caught.value) + str(caught_too.value)


def test_circles_and_depth():
    """What contains itself, or is nested deeper than 100 levels, is refused."""
    circle: list[Any] = []
    circle.append(circle)
    chain = Node("end")
    for n in range(110):
        chain = Node(str(n), chain)
    loop = Node("loop")
    loop.next = loop
    for value, declared in [(circle, Any), (chain, Node), (loop, Node)]:
        with pytest.raises(EncodeError, match="nested deeper than 100 levels"):
            CODEC.encode(value, declared)
    wide = [[n] for n in range(1000)]
    assert CODEC.through(wide, Any)[1] == wide


def test_payload_limit():
    """More than 1 MiB is refused with both sizes (F19)."""
    with pytest.raises(EncodeError, match=r"result: 1,048,577 bytes of JSON, where 1,048,576 are the limit"):
        CODEC.encode("a" * (PAYLOAD_BYTES_MAX - 1), str)


@pytest.mark.parametrize(
    ("declared", "data", "path"),
    [
        (int, b"1.0", "value"),
        (int, b'"1"', "value"),
        (bool, b"1", "value"),
        (list[int], b"[1,true]", "value[1]"),
        (Order, b'{"id":"1","items":[{"sku":"a"}]}', "value.items[0].price"),
        (Order, b'{"id":"1","items":[{"sku":"a","price":"x"}]}', "value.items[0].price"),
        (Card | Cash, b'{"number":1}', "value.number"),
        (Card | Cash, b'{"number":"1","notes":1}', "value"),
        (Card | Cash, b'["1"]', "value"),
        (Card | Cash, b'{"$":"os.system","v":{}}', "value"),
        (Any, b'{"$":"os.system","v":"ls"}', "value"),
        (Any, b'{"$":"test_codec.Card","v":{"number":"1"}}', "value"),
        (Any, b"[" * 100_000, "value"),
        (Node, b'{"name":"a","next":' * 50_000, "value"),
        (str, b"", "value"),
        (str, b'"a" 1', "value"),
        (str, b"\xff", "value"),
        (bytes, b'"Y*Q=="', "value"),
    ],
)
def test_undecodable(declared, data, path):
    """Bytes that do not fit give DecodeError with the place, and nothing else (F22)."""
    with pytest.raises(DecodeError) as caught:
        CODEC.decode(data, declared)

    assert caught.value.path == path


def test_fields_that_came_and_went():
    """A new field with a default, and one that is gone, do not make an old log unreadable."""
    assert CODEC.decode(b'{"id":"1","colour":"red"}', Order) == Order("1")


def test_registered_types():
    """A registered class, and those in its fields, may stand where no type is declared; others may not."""
    codec = Codec(types=[Order])
    value = {"order": Order("1", [Line("a", Decimal(1))]), "line": Line("b", Decimal(2))}

    assert codec.through(value, Any)[1] == value
    codec.encode(Card("1"), Card)
    with pytest.raises(EncodeError):
        codec.encode(Card("1"), Any)


def test_messages():
    """Who sends an event does not know the type it is waited for with: the value's class decides."""
    order = Order("1", [Line("a", Decimal("1.5"))])

    assert CODEC.decode(CODEC.encode_message(order), Order) == order
    assert (
        CODEC.decode(CODEC.encode_message({"id": "1", "items": [{"sku": "a", "price": "1.5"}]}), Order)
        == order
    )
    assert CODEC.decode(CODEC.encode_message({UUID(int=1): (Speed.SLOW, {3, 1})}), dict[UUID, list[Any]]) == {
        UUID(int=1): ["slow", [1, 3]]
    }
    assert CODEC.decode(CODEC.encode_message({1: date(2024, 1, 2)}), dict[int, date]) == {1: date(2024, 1, 2)}
    assert CODEC.decode(CODEC.encode_message([{1: {}}, {}]), list[dict[int, dict[int, str]]]) == [{1: {}}, {}]
    with pytest.raises(EncodeError, match=r"^payload\['a'\]: found lock, of which no value can be encoded"):
        CODEC.encode_message({"a": threading.Lock()})


@attrs.frozen
class Approval:
    by: str


@attrs.frozen
class Refusal:
    by: str
    why: str = ""


@attrs.frozen
class Deferral:
    by: str
    until: date | None = None


class Note(TypedDict):
    text: str
    size: NotRequired[int]


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        (Card | Cash, Cash(3)),
        (Card | Cash | Order | None, Order("1")),
        (Approval | Refusal, Approval("a")),
        (Approval | Refusal, Refusal("a")),
        (Card | Note, {"text": "a"}),
        (Card | Note, {"text": "a", "size": 1}),
        (float | Card, 1.5),
        (float | Card, Card("1")),
        (Sequence[int] | Card, Card("1")),
        (Sequence[int] | Card, [1]),
        (Decimal | bytes, Decimal("1.5")),
        (date | datetime, date(2024, 1, 2)),
        (date | datetime, datetime(2024, 1, 2)),
        (list[int] | Card | Cash, [1]),
        (dict[str, int] | float, {"a": 1}),
    ],
)
def test_a_union_takes_what_can_be_meant_as_one_member_alone(declared, value):
    """So it is written where there is no union: by a message, and before there was a second type (R21)."""
    assert CODEC.decode(CODEC.encode_message(value), declared) == value
    assert CODEC.decode(CODEC.encode(value, type(value)), declared) == value
    assert CODEC.through(value, declared)[1] == value


@pytest.mark.parametrize(
    ("declared", "data", "found"),
    [
        (
            Refusal | Deferral,
            b'{"by":"a"}',
            "found what may be any of Deferral, Refusal; say which by a tag, ",
        ),
        (dict[str, str] | Approval, b'{"by":"a"}', "found what may be any of Approval, dict[str, str]; "),
        (list[int] | tuple[int, ...], b"[1]", "found what may be any of list[int], tuple[int, ...]; "),
        (date | str, b'"2024-01-02"', 'say which by a tag, as {"$": "date", "v": value}'),
        (Refusal | Deferral, b'{"why":"a"}', "found dict"),
        (date | UUID, b'"a"', "found str"),
    ],
)
def test_a_union_does_not_guess(declared, data, found):
    """What may be meant as several members, or as none, is refused: one would be taken for the other (F20)."""
    with pytest.raises(DecodeError) as caught:
        CODEC.decode(data, declared)
    assert found in str(caught.value)


def test_user_types_through_cattrs():
    """Hooks of the user's own types are registered with the codec's cattrs converter."""

    class Temperature:
        def __init__(self, kelvin: int) -> None:
            self.kelvin = kelvin

    codec = Codec()
    codec.converter.register_unstructure_hook(Temperature, lambda t: t.kelvin)
    codec.converter.register_structure_hook(Temperature, lambda data, _: Temperature(int(data)))

    data, back = codec.through([Temperature(5)], list[Temperature])
    assert (data, back[0].kelvin) == (b"[5]", 5)
    with pytest.raises(DecodeError, match="expected Temperature: ValueError"):
        codec.decode(b'["x"]', list[Temperature])


@pytest.mark.parametrize("declared", [threading.Thread, "Order", list["Order"]])
def test_types_that_cannot_be(declared):
    """A type that no value can be decoded to is a wrong definition."""
    with pytest.raises(InvalidUse):
        CODEC.encode(1, declared)


def test_annotations_that_cannot_be_resolved():
    """A postponed annotation of something local is an error that names the class and the fix."""

    @attrs.define
    class Inner:
        x: int

    @attrs.define
    class Outer:
        inner: Inner
        again: Outer | None = None

    with pytest.raises(InvalidUse, match="Outer cannot be resolved: name 'Inner' is not defined"):
        CODEC.encode(Outer(Inner(1)), Outer)


def test_a_class_that_cannot_be_made_again():
    """A value that encodes and does not decode is refused on the first run already (R9)."""

    @dataclasses.dataclass
    class Picky:
        n: int

        def __post_init__(self) -> None:
            if self.n == 13:
                raise ValueError("unlucky")

    picky = Picky(1)
    picky.n = 13
    with pytest.raises(EncodeError, match="does not come back from its JSON: result: Picky cannot be made"):
        CODEC.through(picky, Picky)


def test_fields_outside_the_constructor():
    """Fields with init=False are part of the value."""

    @attrs.define
    class Counter:
        name: str
        count: int = attrs.field(init=False, default=0)
        _total: int = 0

    counter = Counter("a", total=5)
    counter.count = 7

    assert CODEC.through(counter, Counter) == (b'{"name":"a","count":7,"_total":5}', counter)


def test_arguments():
    """A call's arguments are one array; an error begins with the parameter's name."""
    encode, decode = CODEC.args_codec((str, tuple[int, ...], dict[str, Decimal]), ("sku", "sizes", "prices"))

    assert decode(encode(["a", (1, 2), {"x": Decimal(1)}])) == ["a", (1, 2), {"x": Decimal(1)}]
    assert CODEC.args_codec((), ())[0]([]) == b"[]"
    with pytest.raises(EncodeError, match=r"^sizes\[1\]: expected int, found str"):
        encode(["a", (1, "2"), {}])
    with pytest.raises(DecodeError, match=r"^prices\['x'\]: expected Decimal"):
        decode(b'["a",[],{"x":1}]')
    with pytest.raises(DecodeError, match=r"^arguments: expected 3 arguments, found 1"):
        decode(b'["a"]')


def test_many_threads_first_meet_a_type():
    """A type that contains itself may be compiled by many threads at once."""
    codec, results = Codec(), []
    barrier = threading.Barrier(8)

    def work() -> None:
        barrier.wait()
        results.append(codec.encode(Node("a", Node("b")), Node))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert results == [b'{"name":"a","next":{"name":"b","next":null}}'] * 8


def test_digest():
    """The digest tells workflow and input apart (R15)."""
    digest = CODEC.digest("order", b"1")

    assert digest == Codec().digest("order", b"1")
    assert (
        len({digest, CODEC.digest("order", b"2"), CODEC.digest("orde", b"r1"), CODEC.digest("o", b"1")}) == 4
    )


# ---------------------------------------------------------------- exceptions


class InsufficientFunds(Exception):
    balance: Decimal

    def __init__(self, balance: Decimal, needed: Decimal) -> None:
        super().__init__(f"{balance} is less than {needed}")
        self.balance = balance
        self.missing = needed - balance


class OverLimit(InsufficientFunds):
    pass


@attrs.frozen
class Declined(Exception):
    order: Order
    code: int = 0


class Gone(FileNotFoundError):
    pass


def there_and_back(error, *declared, codec=CODEC):
    return codec.error_of(codec.failure_of(error, declared), declared, step="charge")


def test_answer_with_fields():
    """A declared error comes back as its own type with its fields; its constructor is not called (R8)."""
    back = there_and_back(InsufficientFunds(Decimal(1), Decimal(3)), InsufficientFunds)

    assert type(back) is InsufficientFunds
    assert (str(back), back.balance, back.missing) == ("1 is less than 3", Decimal(1), Decimal(2))


def test_answer_of_attrs():
    """An attrs exception comes back equal; its arguments are its fields, by their types."""
    error = Declined(Order("1"), 3)
    back = there_and_back(error, Declined)

    assert (type(back), back.order, back.code, back.args) == (Declined, error.order, 3, error.args)


def test_answer_of_a_subclass_and_of_the_system():
    """A subclass of a declared error is itself; what the system's errors keep aside comes back too."""
    assert type(there_and_back(OverLimit(Decimal(1), Decimal(3)), InsufficientFunds)) is OverLimit
    back = there_and_back(Gone(2, "no such file", "a.txt"), OSError)
    assert (type(back), back.errno, back.filename, str(back)) == (
        Gone,
        2,
        "a.txt",
        "[Errno 2] no such file: 'a.txt'",
    )
    strange = UnicodeEncodeError("ascii", "naïve", 2, 3, "out of range")
    back = there_and_back(strange, ValueError)
    assert (type(back), back.object, str(back)) == (UnicodeEncodeError, "naïve", str(strange))


def test_answer_that_is_not_declared_any_more():
    """Nothing is imported because a log says so: an undeclared answer is StepFailed."""
    failure = CODEC.failure_of(OverLimit(Decimal(1), Decimal(3)), (InsufficientFunds,))

    assert isinstance(CODEC.error_of(failure, (), step="s"), errors.StepFailed)
    assert isinstance(
        CODEC.error_of(attrs.evolve(failure, type="os.system"), (OSError,), step="s"), errors.StepFailed
    )
    assert type(Codec(errors=[OverLimit]).error_of(failure, (), step="s")) is OverLimit
    moved = attrs.evolve(failure, type="old_module.OverLimit")
    assert type(CODEC.error_of(moved, (OverLimit,), step="s")) is OverLimit


def test_answer_with_fields_that_cannot_be_kept():
    """A declared error that holds a lock is StepFailed, with its message."""
    error = InsufficientFunds(Decimal(1), Decimal(3))
    error.lock = threading.Lock()
    back = there_and_back(error, InsufficientFunds)

    assert (type(back), back.error_type, back.message) == (
        errors.StepFailed,
        f"{__name__}.InsufficientFunds",
        "1 is less than 3",
    )
    assert back.__notes__ == [NOT_KEPT]
    assert not hasattr(there_and_back(KeyError("a"), InsufficientFunds), "__notes__")


def test_any_other_error():
    """An undeclared error is StepFailed with type, message and traceback (R8)."""
    try:
        raise KeyError("sku")
    except KeyError as error:
        failure = CODEC.failure_of(error, (InsufficientFunds,))
    back = CODEC.error_of(failure, (), step="charge")

    assert (failure.kind, failure.type, failure.message, failure.fields) == (
        "error",
        "KeyError",
        "'sku'",
        None,
    )
    assert str(back) == "step 'charge' failed: KeyError: 'sku'"
    assert 'raise KeyError("sku")' in back.traceback


def test_answer_with_fields_that_are_too_large():
    """Every record of an error fits into a log: what takes more room than there is comes as StepFailed (F19)."""
    control = "\x01" * TEXT_CHARS_MAX
    # A quote takes four bytes: one escape in its JSON, one more in the record.
    room = FIELDS_BYTES_MAX // 4 - 100

    class Refused(Exception):
        body = ""

    def failure_with(quotes: int) -> Failure:
        error = Refused(control)
        error.body = '"' * quotes
        return CODEC.failure_of(error, (Refused,))

    for quotes, kind in ((room - 13 * TEXT_CHARS_MAX // 4, "answer"), (room, "error")):
        failure = failure_with(quotes)
        assert failure.kind == kind
        exhausted = Failure("exhausted", failure.type, control, attempts=2, cause=failure)
        record = CODEC.encode_event(Resolved(0, Failed(exhausted), 1.0))
        assert (PAYLOAD_BYTES_MAX // 2 < len(record.data) < PAYLOAD_BYTES_MAX) is (kind == "answer")


def test_errors_that_resist():
    """An error whose own methods fail, or whose text no log can hold, is described all the same."""

    class Bad(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    long = CODEC.failure_of(ValueError("a" * 100_000 + "\ud800"))

    assert CODEC.failure_of(Bad()).message == "<its __str__ raised RuntimeError>"
    assert len(long.message) < 10_000 and len(long.traceback) < 10_000
    CODEC.encode_event(Closed(Status.FAILED, 1.0, failure=CODEC.failure_of(ValueError("\ud800"))))


class Unmade(errors.StepLost):
    def __init__(self) -> None:
        Exception.__init__(self, "unmade")


@pytest.mark.parametrize(
    "error",
    [
        errors.StepFailed("s", KeyError, KeyError("k")),
        errors.StepTimedOut(None),
        errors.EventTimedOut(7),
        errors.Cancelled(KeyError("k")),
        errors.RetryExhausted("s", None, KeyError("k")),
        errors.ExecutionConflict(None, "taken"),
        Unmade(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_of_zart_that_somebody_has_made_of_something_else(error: BaseException):
    """They are errors like any other: described, and written down (rule 2)."""
    failure = CODEC.failure_of(error)
    assert (failure.kind, failure.message) == ("error", str(error))
    assert type(CODEC.error_of(failure, step="s")) is errors.StepFailed
    record = CODEC.encode_event(Closed(Status.FAILED, 1.0, failure=failure))
    assert CODEC.decode_event(record) == Closed(Status.FAILED, 1.0, failure=failure)


def test_an_ending_of_an_execution_without_a_failure_of_its_own():
    """What stands in its place and is none is left out of the log."""
    failure = CODEC.failure_of(errors.ExecutionFailed("a", "it failed", "because"))
    assert failure == Failure("child", "failed", "it failed", fields='{"of":"a"}')


def test_the_last_error_of_a_retry_may_resist():
    """An answer whose `__str__` raises comes back as what it is after the last attempt, too."""

    class Bad(Exception):
        def __str__(self) -> str:
            return self.args[0]

    exhausted = Failure("exhausted", "Bad", "m", attempts=2, cause=CODEC.failure_of(Bad(7), (Bad,)))
    back = CODEC.error_of(exhausted, (Bad,), step="s")
    assert type(back) is errors.RetryExhausted and type(back.last_error) is Bad
    assert str(back).endswith("the last error was Bad: <its __str__ raised TypeError>")


def test_errors_whose_notes_raise():
    """A traceback that cannot be formatted says so, and the failure is recorded all the same."""

    class Bad(Exception):
        @property
        def __notes__(self) -> list[str]:
            raise RuntimeError("no")

    assert CODEC.failure_of(Bad("a")).traceback == "<it cannot be formatted: RuntimeError>"


def test_text_is_cut_beyond_its_limit_only():
    """What is not too long is kept as it is; of a traceback the end is kept."""
    whole = "a" * TEXT_CHARS_MAX
    assert clean(whole) == clean(whole, keep_end=True) == whole
    assert clean(whole + "b") == whole + "..."
    assert clean("b" + whole, keep_end=True) == "..." + whole


def test_fields_that_a_log_makes_up():
    """A log may say anything: no special attribute is set, and what does not fit becomes StepFailed (F22)."""
    name = f"{__name__}.InsufficientFunds"
    sound = CODEC.failure_of(InsufficientFunds(Decimal(1), Decimal(3)), (InsufficientFunds,))
    assert sound.fields is not None
    forged = attrs.evolve(sound, fields=sound.fields.replace('"fields":{', '"fields":{"__class__":"x",'))
    assert type(CODEC.error_of(forged, (InsufficientFunds,), step="s")) is InsufficientFunds
    for fields in ("", "[" * 100_000, '{"args":[],"fields":{"balance":[]}}', "5"):
        failure = Failure("answer", name, "m", fields=fields)
        assert type(CODEC.error_of(failure, (InsufficientFunds,), step="s")) is errors.StepFailed
    for fields in ("[", "[" * 100_000, "5"):
        assert str(CODEC.error_of(Failure("lost", "StepLost", "", fields=fields), step="s")) == str(
            errors.StepLost("s")
        )


def test_a_declared_family_is_searched_once():
    """Two declared classes with a common subclass: it comes back as itself."""

    class First(Exception): ...

    class Second(Exception): ...

    class Both(First, Second): ...

    class Stranger(Exception): ...

    failure = CODEC.failure_of(Both("x"), (First, Second))
    assert type(CODEC.error_of(failure, (First, Second), step="s")) is Both
    other = CODEC.failure_of(Stranger("x"), (Stranger,))
    assert type(CODEC.error_of(other, (First, Second), step="s")) is errors.StepFailed


@pytest.mark.parametrize(
    "error",
    [
        errors.StepFailed("charge", "KeyError", "'a'", "trace"),
        errors.StepTimedOut("charge", "too slow"),
        errors.StepLost("charge"),
        errors.RetryExhausted("charge", 3, errors.StepFailed("charge", "KeyError", "'a'")),
        errors.EventTimedOut("shipment"),
        errors.EventRejected("shipment", "value: expected int, found str"),
        errors.Cancelled("by hand"),
        errors.DeadlineExceeded("late"),
        errors.ExecutionFailed("order-1", "it failed", Failure("error", "KeyError", "'a'")),
        errors.ExecutionCancelled("order-1", "it was cancelled"),
        errors.ExecutionTimedOut("order-1", "it was late"),
        errors.ExecutionTerminated("order-1", "it was ended"),
        errors.ExecutionConflict("order-1", "taken"),
    ],
)
def test_outcomes_are_their_own_kind(error):
    """An outcome that leaves a workflow comes back as the same outcome, whatever the step it is asked for."""
    back = CODEC.error_of(CODEC.failure_of(error), step="another")

    assert (type(back), str(back), back.args) == (type(error), str(error), error.args)
    kept = {k: v for k, v in vars(error).items() if k not in ("failure", "last_error", "traceback")}
    assert kept.items() <= vars(back).items()


def test_a_rejection_whose_event_is_not_on_record():
    """Earlier versions wrote nothing but its type and its text: it comes as any other error."""
    known = CODEC.failure_of(errors.EventRejected("shipment", "no int"))
    for fields in (None, '{"of":"another"}'):
        back = CODEC.error_of(attrs.evolve(known, fields=fields), step="order-1")
        assert isinstance(back, errors.StepFailed)
        assert (back.error_type, back.message) == (known.type, known.message)


def test_child_that_failed():
    """A child's ending comes with its cause (R19)."""
    cause = CODEC.failure_of(InsufficientFunds(Decimal(1), Decimal(3)), (InsufficientFunds,))
    error = CODEC.error_of(Failure("child", "failed", "", cause=cause), (InsufficientFunds,), step="child-7")

    assert (type(error), error.id, error.failure) == (errors.ExecutionFailed, "child-7", cause)
    assert type(error.__cause__) is InsufficientFunds
    assert str(error) == "execution 'child-7' ended as failed: 1 is less than 3"


def test_unencodable():
    """A result that cannot be encoded fails its step with the place (R9)."""
    with pytest.raises(EncodeError) as caught:
        CODEC.encode([1, "2"], list[int])
    failure = CODEC.failure_of(caught.value)

    assert failure.kind == "unencodable"
    assert "result[1]: expected int, found str" in str(CODEC.error_of(failure, step="charge"))


# ---------------------------------------------------------------- events


FAILURE = Failure("exhausted", "RetryExhausted", "m", "t", None, 3, Failure("error", "KeyError", "k"))
GOLDEN = [
    (
        Started("order-1", 0, "order", b'{"id":"1"}', 1.5, 9.5, Parent("p", 0, 3)),
        b'{"id":"order-1","run":0,"workflow":"order","deadline":9.5,"parent":["p",0,3]}\n{"id":"1"}',
    ),
    (
        Issued(0, "step", "reserve-x", 1.5, "reserve-{sku}", b'["x"]', site=Site("mod", "qual", 4)),
        b'{"seq":0,"kind":"step","name":"reserve-x","of":"reserve-{sku}","site":["mod","qual",4]}\n["x"]',
    ),
    (Issued(1, "sleep", "settle", 1.5, until=61.5), b'{"seq":1,"kind":"sleep","name":"settle","until":61.5}'),
    (Began(0, 1, at=1.5, takeover=1, deadline=3.5), b'{"seq":0,"attempt":1,"takeover":1,"deadline":3.5}'),
    (
        Retried(0, 0, Failure("error", "KeyError", "k"), 2.5, 1.5),
        b'{"seq":0,"attempt":0,"failure":{"kind":"error","type":"KeyError","message":"k"},"retry_at":2.5}',
    ),
    (Resolved(0, Done(b'"a\nb"'), 1.5), b'{"seq":0}\n"a\nb"'),
    (Resolved(0, Done(b""), 1.5, held=True), b'{"seq":0,"held":true}\n'),
    (
        Resolved(0, Failed(FAILURE), 1.5),
        b'{"seq":0,"failed":{"kind":"exhausted","type":"RetryExhausted","message":"m","traceback":"t",'
        b'"attempts":3,"cause":{"kind":"error","type":"KeyError","message":"k"}}}',
    ),
    (Resolved(0, Taken(2), 1.5), b'{"seq":0,"taken":2}'),
    (Resolved(0, Cancellation(), 1.5), b'{"seq":0,"cancelled":""}'),
    (Delivered(2, "paid", b"", 1.5, "k", True), b'{"n":2,"event":"paid","key":"k","held":true}\n'),
    (Interrupted("cancel", 1.5, "why"), b'{"by":"cancel","reason":"why"}'),
    (Closed(Status.COMPLETED, 1.5, b"1"), b'{"status":"completed"}\n1'),
    (Noted("paused", at=1.5, who="me", why="because"), b'{"what":"paused","who":"me","why":"because"}'),
]


@pytest.mark.parametrize(("event", "data"), GOLDEN)
def test_records(event, data):
    """Each event is a line of JSON, and its payload as it is; these bytes are what released logs hold."""
    assert CODEC.encode_event(event) == Record(type(event).__name__, 1.5, data)
    assert CODEC.decode_event(Record(type(event).__name__, 1.5, data)) == event
    assert wire.READERS[type(event).__name__](1.5, data) == event


@pytest.mark.parametrize(
    ("record", "family", "message"),
    [
        (
            Record("Later", 1.0, b"{}"),
            FormatTooNew,
            "event 7 of run 2 of 'a' cannot be read: this version knows no 'Later'",
        ),
        (Record("Began", 1.0, b'{"seq":0,"attempt":0,"mood":1}'), FormatTooNew, "unknown field `mood`"),
        (Record("Issued", 1.0, b'{"seq":0,"kind":"dream","name":"a"}'), FormatTooNew, "dream"),
        (
            Record("Issued", 1.0, b'{"seq":0,"kind":"dream","name":"a","site":["m","q",4]}'),
            FormatTooNew,
            "dream",
        ),
        (
            Record("Started", 1.0, b'{"id":"a","run":0,"workflow":"w","semantics":9}\n'),
            FormatTooNew,
            "semantics 9",
        ),
        (Record("Began", 1.0, b'{"seq":0}'), LogCorrupt, "missing required field `attempt`"),
        (Record("Began", 1.0, b'{"seq":"0","attempt":0}'), LogCorrupt, "Expected `int`, got `str`"),
        (Record("Began", 1.0, b'{"seq":0,"attempt":0}\n'), LogCorrupt, "a payload where there is none"),
        (Record("Noted", 1.0, b'{"what":"x"}\n'), LogCorrupt, "a payload where there is none"),
        (Record("Started", 1.0, b'{"id":"a","run":0,"workflow":"w"}'), LogCorrupt, "the payload is missing"),
        (Record("Resolved", 1.0, b'{"seq":0}'), LogCorrupt, "0 outcomes"),
        (Record("Resolved", 1.0, b'{"seq":0,"taken":1}\n1'), LogCorrupt, "2 outcomes"),
        (Record("Began", 1, b'{"seq":0,"attempt":0}'), LogCorrupt, "its time is not a float"),
        (
            Record("Closed", 1.0, b'{"status":"failed","failure":{"kind":"error","cause":' + b"[" * 99_999),
            LogCorrupt,
            "",
        ),
        (Record("Began", 1.0, None), LogCorrupt, ""),
    ],
)
def test_records_that_cannot_be_read(record, family, message):
    """A malformed record is LogCorrupt with its place, one of a newer version FormatTooNew (F21, F26)."""
    with pytest.raises(LogCorrupt) as caught:
        CODEC.decode_events([Record("Noted", 1.0, b'{"what":"x"}'), record], "a", 2, 6)

    assert type(caught.value) is family
    assert caught.value.where == "event 7 of run 2 of 'a'"
    assert message in str(caught.value)


def test_names_that_are_no_text():
    """A lone surrogate in a name is refused, not written."""
    with pytest.raises(EncodeError, match="Noted holds text with a lone surrogate"):
        CODEC.encode_event(Noted("\ud800", at=1.0))


class Rot:
    """A seal for tests: it hides nothing, and binds data to its place."""

    def seal(self, data: bytes, associated: bytes) -> bytes:
        return associated + b"|" + data[::-1]

    def open(self, data: bytes, associated: bytes) -> bytes:
        place, _, hidden = data.partition(b"|")
        if place != associated:
            raise ValueError("another place")
        return hidden[::-1]


def test_seal():
    """With a seal, records cannot be read, and not be moved to another place (docs/rules.md, Security)."""
    codec = Codec(seal=Rot())
    events = [event for event, _ in GOLDEN]
    records = codec.encode_events(events, "order-1", 0, 5)

    assert codec.decode_events(records, "order-1", 0, 5) == events
    assert b"reserve" not in b"".join(r.data for r in records)
    with pytest.raises(LogCorrupt, match="the seal of event 6 of run 0 of 'order-1' is broken"):
        codec.decode_events(records[:1] + records[:1], "order-1", 0, 5)


def test_a_seal_whose_key_is_away():
    """That may pass, and says nothing of the record."""

    class Away(Rot):
        def open(self, data: bytes, associated: bytes) -> bytes:
            raise TimeoutError("the vault does not answer")

    (record,) = Codec(seal=Rot()).encode_events([Noted("x", at=1.0)], "a", 0, 5)
    with pytest.raises(
        StoreUnavailable,
        match="the seal of event 5 of run 0 of 'a' cannot be opened: TimeoutError: the vault does not answer",
    ):
        Codec(seal=Away()).decode_events([record], "a", 0, 5)


def test_a_seal_without_a_place():
    """What is told of no place is sealed for the first one of all, by each of the four functions."""
    codec = Codec(seal=Rot())
    for event, _ in GOLDEN:
        record = codec.encode_event(event, "", 0, 0)
        assert codec.encode_event(event) == record == codec.encode_events([event])[0]
        assert codec.decode_event(record) == event == codec.decode_events([record])[0]


def test_ids_survive():
    """UUIDs and hostile strings come back from any place."""
    hostile = "a\x00b\n'\";--../\u202e"

    assert CODEC.through({hostile: UUID(int=1)}, dict[str, UUID])[1] == {hostile: UUID(int=1)}
    assert CODEC.through({hostile: UUID(int=1)}, Any)[1] == {hostile: UUID(int=1)}


def test_arguments_come_back():
    """What `encode_args` writes `decode_args` reads, by the types of the parameters."""
    types, values = (int, list[Decimal], str), (7, [Decimal("1.50")], "ä")
    assert CODEC.decode_args(CODEC.encode_args(types, values), types) == list(values)
    assert CODEC.decode_args(CODEC.encode_args((str, int), ("a", 1)), (str, int)) == ["a", 1]
