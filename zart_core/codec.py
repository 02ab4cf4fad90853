"""Values, arguments and exceptions as bytes, and back (R8, R9).

Rule 1: what a workflow sees is decode(encode(value)), on the first run too; `through` is both at once (R9).
Rule 2: nothing is imported or evaluated because bytes say so: they decode to what is declared or registered.
Rule 3: whatever the value, encode raises EncodeError only; whatever the bytes, decode raises DecodeError only
        (F20, F22).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import GenericAlias
from typing import Any, TypeAlias, TypeVar, cast

import msgspec
from cattrs.preconf.msgspec import MsgspecJsonConverter, make_converter

from zart_core import failures, wire
from zart_core.errors import DecodeError, EncodeError
from zart_core.events import Event, Failure
from zart_core.log import PAYLOAD_BYTES_MAX, Record
from zart_core.values.forms import Form, Unfit, expect, type_name
from zart_core.values.leaves import LEAVES
from zart_core.values.shapes import DEPTH_MAX, Shapes
from zart_core.wire import Seal

K = TypeVar("K")
T = TypeVar("T")
Encode: TypeAlias = Callable[[Any], bytes]
Decode: TypeAlias = Callable[[bytes], Any]
ArgsEncode: TypeAlias = Callable[[Sequence[Any]], bytes]
ArgsDecode: TypeAlias = Callable[[bytes], list[Any]]

PLAIN: Mapping[Form, type] = {LEAVES[cls]: cls for cls in (str, int, bool, type(None))}
"""Forms whose values are JSON as they are, when they are of this very class."""
TOO_DEEP = f"nested deeper than {DEPTH_MAX} levels, or it contains itself"

_dump = msgspec.json.Encoder().encode
_load: Callable[[bytes], Any] = msgspec.json.Decoder().decode


class Codec:
    """Encodes by declared type. Safe to use from several threads; types are compiled once.

    `errors` come back as their own type from every step; `types` may stand where none is declared; hooks for
    what is no standard type, attrs class or dataclass are registered with its `converter`.
    """

    def __init__(
        self,
        *,
        errors: Iterable[type[Exception]] = (),
        types: Iterable[type] = (),
        seal: Seal | None = None,
        converter: MsgspecJsonConverter | None = None,
    ) -> None:
        self.converter = converter or make_converter()
        self.errors = tuple(errors)
        self.seal = seal
        self.shapes = Shapes(self.converter, types)
        self._encoders: dict[Any, Encode] = {}
        self._decoders: dict[Any, Decode] = {}
        self._ways: dict[Any, tuple[Encode, Decode]] = {}
        self._arguments: dict[Any, tuple[ArgsEncode, ArgsDecode]] = {}

    def encode(self, value: Any, type: Any, what: str = "result") -> bytes:
        """A value as compact JSON; `what` is the root of the path in an error.

        Raises EncodeError, which names the place, what was found there and what to do; InvalidUse for a type
        that no value can be decoded to.
        """
        return self.encoder(type, what)(value)

    def decode(self, data: bytes, type: Any, what: str = "value") -> Any:
        """The value of JSON bytes, in time linear in them. Raises DecodeError, which names the place."""
        return self.decoder(type, what)(data)

    def through(self, value: Any, type: Any, what: str = "result") -> tuple[bytes, Any]:
        """The value's bytes, and the value as a replay will see it (R9). Raises EncodeError."""
        encode, decode = _once(self._ways, (type, what), self._way)
        data = encode(value)
        try:
            return data, decode(data)
        except DecodeError as error:
            raise EncodeError(f"it does not come back from its JSON: {error}", path=error.path) from error

    def encode_message(self, value: Any, what: str = "payload") -> bytes:
        """A value whose reader declares its type, which is not known here: as its own class writes it.

        Raises EncodeError. Reading it without a type gives plain JSON: a Decimal is text then.
        """
        return _encoder(self.shapes.own, what)(value)

    def encoder(self, type: Any, what: str = "result") -> Encode:
        """`encode` for one type, compiled once."""
        return _once(self._encoders, (type, what), self._encoder)

    def _encoder(self, key: tuple[Any, str]) -> Encode:
        return _encoder(self.shapes.of(key[0]), key[1])

    def decoder(self, type: Any, what: str = "value") -> Decode:
        """`decode` for one type, compiled once."""
        return _once(self._decoders, (type, what), self._decoder)

    def _decoder(self, key: tuple[Any, str]) -> Decode:
        form, what = self.shapes.of(key[0]), key[1]
        decode = _decoder(form, what)
        if form is not self.shapes.dynamic:
            return decode

        def decode_plain(data: bytes) -> Any:
            try:
                return decode(data) if b'"$"' in data else _load(data)  # most values hold no tag at all
            except (msgspec.DecodeError, ValueError, RecursionError):
                return decode(data)

        return decode_plain

    def _way(self, key: tuple[Any, str]) -> tuple[Encode, Decode]:
        return self.encoder(*key), self.decoder(*key)

    def args_codec(self, types: Sequence[Any], names: Sequence[str] = ()) -> tuple[ArgsEncode, ArgsDecode]:
        """Encode and decode a call's bound arguments, in the order of its parameters, as one JSON array.

        Annotate *args as tuple[T, ...] and **kwargs as dict[str, T]. `names` begin the path in an error.
        """
        return _once(self._arguments, (tuple(types), tuple(names)), self._args_codec)

    def _args_codec(self, key: tuple[tuple[Any, ...], tuple[str, ...]]) -> tuple[ArgsEncode, ArgsDecode]:
        return _args_codec([self.shapes.of(t) for t in key[0]], key[1])

    def encode_args(self, types: Sequence[Any], values: Sequence[Any], names: Sequence[str] = ()) -> bytes:
        """The bytes of a call's bound arguments. Raises EncodeError."""
        return self.args_codec(types, names)[0](values)

    def decode_args(self, data: bytes, types: Sequence[Any], names: Sequence[str] = ()) -> list[Any]:
        """The arguments of a call. Raises DecodeError."""
        return self.args_codec(types, names)[1](data)

    def digest(self, workflow: str, payload: bytes) -> str:
        """By what a start with the same id is compared (R15)."""
        return hashlib.blake2b(
            workflow.encode("utf-8", "surrogatepass") + b"\0" + payload, digest_size=16
        ).hexdigest()

    def failure_of(self, error: BaseException, declared: Sequence[type[Exception]] = ()) -> Failure:
        """An exception as data (R8): `answer` with its fields if its type is declared or registered."""
        return failures.failure_of(error, (*declared, *self.errors), self.shapes)

    def error_of(
        self, failure: Failure, declared: Sequence[type[Exception]] = (), *, step: str
    ) -> BaseException:
        """The exception that a failure stands for (R8). `step` is the step, the event or the child's id."""
        return failures.error_of(failure, (*declared, *self.errors), self.shapes, step)

    def encode_event(self, event: Event, id: str = "", run: int = 0, position: int = 0) -> Record:
        """The record of an event at a position of a run; the place matters only when the codec seals."""
        (record,) = wire.encode_events([event])
        return wire.sealed(record, self.seal, id, run, position) if self.seal else record

    def encode_events(
        self, events: Sequence[Event], id: str = "", run: int = 0, start: int = 0
    ) -> list[Record]:
        """The records of a turn whose first event stands at position `start`."""
        if self.seal is None:
            return wire.encode_events(events)
        return [self.encode_event(event, id, run, start + n) for n, event in enumerate(events)]

    def decode_event(self, record: Record, id: str = "", run: int = 0, position: int = 0) -> Event:
        """The event of a record. Raises LogCorrupt or FormatTooNew, which name the place (F21, F26)."""
        return self.decode_events([record], id, run, position)[0]

    def decode_events(
        self, records: Sequence[Record], id: str = "", run: int = 0, start: int = 0
    ) -> list[Event]:
        """The events of records, the first of which stands at `start`. Raises LogCorrupt or FormatTooNew."""
        if self.seal:
            records = [wire.opened(r, self.seal, id, run, start + n) for n, r in enumerate(records)]
        return wire.decode_events(records, id, run, start)


def _once(table: dict[Any, T], key: K, make: Callable[[K], T]) -> T:
    try:
        made = table.get(key)
    except TypeError:  # a type with something in it that is not hashable
        return make(key)
    if made is None:
        made = table[key] = make(key)
    return made


# ---------------------------------------------------------------- plain JSON data and bytes


def _encoder(form: Form, what: str) -> Encode:
    def encode(value: Any) -> bytes:
        try:
            plain = form.write(value)
            data = _bytes(plain)
        except Unfit as unfit:
            raise _encode_error(unfit, what) from unfit.__cause__
        except RecursionError:
            raise _encode_error(Unfit(TOO_DEEP, "flatten it"), what) from None
        except Exception as error:  # a property or a hook of the user may raise anything
            raise _encode_error(Unfit(f"{type_name(type(error))} while it was read"), what) from error
        if len(data) > DEPTH_MAX and data.count(b"[") + data.count(b"{") > DEPTH_MAX and _too_deep(plain):
            raise _encode_error(Unfit(TOO_DEEP, "flatten it"), what)
        if len(data) > PAYLOAD_BYTES_MAX:
            size = Unfit(
                f"{len(data):,} bytes of JSON, where {PAYLOAD_BYTES_MAX:,} are the limit", "pass a reference"
            )
            raise _encode_error(size, what)
        return data

    cls = PLAIN.get(form)
    if cls is None:
        return encode

    def encode_plain(value: Any) -> bytes:
        return _plain_bytes(value, type(value) is cls) or encode(value)

    return encode_plain


def _plain_bytes(plain: Any, is_plain: bool) -> bytes:
    """What is JSON already, as JSON, in one go; nothing when it takes a closer look."""
    try:
        data = _dump(plain) if is_plain else b""
    except ValueError:
        return b""
    return data if len(data) <= PAYLOAD_BYTES_MAX else b""


def _bytes(plain: Any) -> bytes:
    """Plain data as JSON. Raises Unfit where the data holds what JSON cannot."""
    try:
        return _dump(plain)
    except ValueError:
        raise _undumpable(plain) from None


def _encode_error(unfit: Unfit, what: str) -> EncodeError:
    path = failures.clean(unfit.path(what).lstrip(".")) or "arguments"  # keys are the user's own text
    remedy = unfit.remedy or "give a value of the declared type, or declare the type it has"
    return EncodeError(f"{path}: {unfit.message}; {remedy}", path=path)


def _too_deep(plain: Any) -> bool:
    level, depth = [plain], 0
    while level and depth <= DEPTH_MAX:
        level = [child for node in level for _, child in _children(node) if child.__class__ in (list, dict)]
        depth += 1
    return bool(level)


def _children(node: Any) -> Iterable[tuple[Any, Any]]:
    """The items of a list or a dict of plain JSON data, each with its index or key."""
    if node.__class__ is list:
        return cast("Iterable[tuple[Any, Any]]", enumerate(node))
    return node.items() if node.__class__ is dict else ()


def _undumpable(plain: Any) -> Unfit:
    """Where in plain data the text or the number is that JSON cannot hold."""
    for key, child in _children(plain):
        step = f".{key}" if key.__class__ is str else f"[{key}]"
        for part in key, child:
            try:
                _dump(part)
            except ValueError:
                unfit = _undumpable(part)
                unfit.steps.append(step)
                return unfit
    if type(plain) is int:
        return Unfit("found an int of thousands of digits", "pass it as bytes")
    return Unfit("found text with a lone surrogate", "pass it as bytes, or clean it first")


def _decoder(form: Form, what: str) -> Decode:
    root = what or "arguments"  # the path of one begins with its name

    def decode(data: bytes) -> Any:
        try:
            return form.read(_load(data))
        except Unfit as unfit:
            path = unfit.path(what).lstrip(".") or root
            raise DecodeError(f"{path}: {unfit.message}", path=path) from unfit.__cause__
        except RecursionError:
            raise DecodeError(f"{root}: {TOO_DEEP}", path=root) from None
        except (msgspec.DecodeError, ValueError) as error:
            raise DecodeError(f"{root}: this is not JSON: {error}", path=root) from None
        except Exception as error:  # a hook of the user may raise anything
            raise DecodeError(f"{root}: {type_name(type(error))} while it was read", path=root) from error

    if form.native is None:
        return decode
    try:
        native: Decode = msgspec.json.Decoder(form.native).decode
    except (NotImplementedError, ValueError):  # a literal of more than 64 bits, or with a lone surrogate
        return decode

    def decode_fast(data: bytes) -> Any:
        try:
            return native(data)
        except (msgspec.DecodeError, ValueError, TypeError, RecursionError):
            return decode(data)  # there is a nan after all; or it finds out where the error is

    return decode_fast


def _args_codec(forms: Sequence[Form], names: Sequence[str]) -> tuple[ArgsEncode, ArgsDecode]:
    steps = [f".{name}" for name in names] or [f".argument {n + 1}" for n in range(len(forms))]

    def convert(values: Any, way: str) -> list[Any]:
        expect((list, tuple), "a sequence of arguments", values)
        if len(values) != len(forms):
            raise Unfit(f"expected {len(forms)} arguments, found {len(values)}")
        out: list[Any] = []
        try:
            for form, value in zip(forms, values, strict=True):
                out.append(getattr(form, way)(value))
        except Unfit as unfit:
            unfit.steps.append(steps[len(out)])
            raise
        return out

    natives = tuple(form.native for form in forms)
    form = Form(
        "arguments",
        lambda values: convert(values, "write"),
        lambda data: convert(data, "read"),
        native=None if None in natives else GenericAlias(tuple, natives),
    )
    encode, decode = _encoder(form, ""), _decoder(form, "")
    classes = tuple(PLAIN.get(form) for form in forms)
    if None in classes:
        return encode, lambda data: list(decode(data))

    def encode_plain(values: Sequence[Any]) -> bytes:
        return _plain_bytes(values, tuple(map(type, values)) == classes) or encode(values)

    return encode_plain, lambda data: list(decode(data))
