"""Values, arguments and exceptions as bytes, and back (R8, R9).

Rule 1: what a workflow sees is decode(encode(value)), on the first run too; `through` is both at once (R9).
Rule 2: nothing is imported, evaluated or called because bytes say so: they decode to what is declared or registered.
Rule 3: encode raises EncodeError only, decode raises DecodeError only, whatever the value or the bytes (F20, F22).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from cattrs.preconf.msgspec import MsgspecJsonConverter, make_converter

from zart_core import failures, wire
from zart_core.errors import DecodeError, EncodeError
from zart_core.events import Event, Failure
from zart_core.forms import Form, Unfit, type_name
from zart_core.log import PAYLOAD_BYTES_MAX, Record
from zart_core.shapes import DEPTH_MAX, Shapes
from zart_core.wire import Seal

Encode = Callable[[Any], bytes]
Decode = Callable[[bytes], Any]

_dump = msgspec.json.Encoder().encode
_load: Callable[[bytes], Any] = msgspec.json.Decoder().decode


class Codec:
    """Encodes by declared type. Safe to use from several threads; types are compiled once.

    `errors` come back as their own type from every step; `types` may stand where no type is declared; hooks for
    types that are neither standard nor attrs or dataclasses are registered with `converter`, before their first use.
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
        self._arguments: dict[Any, tuple[Encode, Decode]] = {}

    def encode(self, value: Any, type: Any, what: str = "result") -> bytes:
        """A value as compact JSON. `what` is the root of the path in an error.

        Raises EncodeError, which names the field, what was found and what to do; InvalidUse for a type that no
        value can have.
        """
        return _encoder(self.shapes.of(type), what)(value)

    def decode(self, data: bytes, type: Any) -> Any:
        """The value of JSON bytes. Raises DecodeError, which names the field; linear in the bytes."""
        return self.decoder(type)(data)

    def encoder(self, type: Any) -> Encode:
        """`encode` for one type, compiled once."""
        return _cached(self._encoders, type, lambda: _encoder(self.shapes.of(type), "result"))

    def decoder(self, type: Any) -> Decode:
        """`decode` for one type, compiled once."""
        return _cached(self._decoders, type, lambda: _decoder(self.shapes.of(type)))

    def through(self, value: Any, type: Any) -> tuple[bytes, Any]:
        """The value's bytes, and the value as a replay will see it (R9). Raises EncodeError when either fails."""
        data = self.encoder(type)(value)
        try:
            return data, self.decoder(type)(data)
        except DecodeError as error:
            raise EncodeError(
                f"the value does not come back from its JSON: {error}", path=error.path
            ) from error

    def args_codec(self, types: Sequence[Any], names: Sequence[str] = ()) -> tuple[Encode, Decode]:
        """Encode and decode a call's bound arguments, in the order of the parameters, as one JSON array.

        Decoding gives a list. Annotate *args as tuple[T, ...] and **kwargs as dict[str, T]. `names` are for errors.
        """
        return _cached(self._arguments, (tuple(types), tuple(names)), lambda: self._args_codec(types, names))

    def _args_codec(self, types: Sequence[Any], names: Sequence[str]) -> tuple[Encode, Decode]:
        form = _arguments_form(
            [self.shapes.of(t) for t in types], names or [f"[{n}]" for n in range(len(types))]
        )
        return _encoder(form, ""), _decoder(form)

    def encode_args(self, types: Sequence[Any], values: Sequence[Any], names: Sequence[str] = ()) -> bytes:
        """The bytes of a call's bound arguments. Raises EncodeError; its path begins with the parameter's name."""
        return self.args_codec(types, names)[0](values)

    def decode_args(self, data: bytes, types: Sequence[Any], names: Sequence[str] = ()) -> list[Any]:
        """The arguments of a call. Raises DecodeError."""
        values: list[Any] = self.args_codec(types, names)[1](data)
        return values

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
        """The exception that a failure stands for (R8). `step` names the step, the event, or the child's id."""
        return failures.error_of(failure, (*declared, *self.errors), self.shapes, step)

    def encode_event(self, event: Event, id: str = "", run: int = 0, position: int = 0) -> Record:
        """The record of an event at a position of a run; the place matters only when the codec seals."""
        record = wire.encode_event(event)
        return wire.sealed(record, self.seal, id, run, position) if self.seal else record

    def encode_events(
        self, events: Sequence[Event], id: str = "", run: int = 0, start: int = 0
    ) -> list[Record]:
        """The records of a turn whose first event stands at position `start`."""
        return [self.encode_event(event, id, run, start + n) for n, event in enumerate(events)]

    def decode_event(self, record: Record, id: str = "", run: int = 0, position: int = 0) -> Event:
        """The event of a record. Raises LogCorrupt or FormatTooNew, which name the place (F21, F26)."""
        return self.decode_events([record], id, run, position)[0]

    def decode_events(
        self, records: Sequence[Record], id: str = "", run: int = 0, start: int = 0
    ) -> list[Event]:
        """The events of records, the first of which stands at position `start`. Raises LogCorrupt or FormatTooNew."""
        if self.seal:
            records = [wire.opened(r, self.seal, id, run, start + n) for n, r in enumerate(records)]
        return wire.decode_events(records, id, run, start)


def _cached(table: dict[Any, Any], key: Any, make: Callable[[], Any]) -> Any:
    try:
        found = table.get(key)
    except TypeError:  # a type with something unhashable in it
        return make()
    if found is None:
        found = table[key] = make()
    return found


# ---------------------------------------------------------------- plain JSON data and bytes


def _encoder(form: Form, what: str) -> Encode:
    def encode(value: Any) -> bytes:
        try:
            plain = form.write(value)
            data = _dump(plain)
            if data.count(b"[") + data.count(b"{") > DEPTH_MAX:
                _check_depth(plain)
        except Unfit as unfit:
            raise _encode_error(unfit, what) from unfit.__cause__
        except RecursionError:
            deep = Unfit(f"nested deeper than {DEPTH_MAX} levels, or contains itself")
            raise _encode_error(deep, what) from None
        except ValueError:  # a lone surrogate, or an int of thousands of digits
            raise _encode_error(_undumpable(plain), what) from None
        if len(data) > PAYLOAD_BYTES_MAX:
            raise EncodeError(
                f"{what or 'the arguments'}: {len(data):,} bytes of JSON, and {PAYLOAD_BYTES_MAX:,} are the limit; "
                f"store it elsewhere and pass a reference",
                path=what,
            )
        return data

    return encode


def _encode_error(unfit: Unfit, what: str) -> EncodeError:
    path = unfit.path(what).lstrip(".")
    remedy = unfit.remedy or "give a value of the declared type, or declare the type that it has"
    return EncodeError(f"{path}: {unfit.message}; {remedy}", path=path)


def _check_depth(plain: Any) -> None:
    level, depth = [plain], 0
    while level:
        if depth > DEPTH_MAX:
            raise Unfit(f"nested deeper than {DEPTH_MAX} levels", "flatten it")
        depth += 1
        level = [
            child
            for node in level
            if type(node) is list or type(node) is dict
            for child in (node.values() if type(node) is dict else node)
        ]


def _undumpable(plain: Any) -> Unfit:
    """Where in plain data the text or the number is that JSON cannot hold."""
    try:
        if type(plain) is list:
            for n, item in enumerate(plain):
                _dump_or_raise(item, f"[{n}]")
        elif type(plain) is dict:
            for key, item in plain.items():
                _dump(key)
                _dump_or_raise(item, f".{key}")
    except Unfit as unfit:
        return unfit
    except ValueError:
        return Unfit("a key has a lone surrogate, which is no text", "clean it first")
    if type(plain) is int:
        return Unfit("found an int of more than 4,300 digits", "pass it as bytes")
    return Unfit("found text with a lone surrogate", "pass it as bytes, or clean it first")


def _dump_or_raise(item: Any, step: str) -> None:
    try:
        _dump(item)
    except ValueError:
        unfit = _undumpable(item)
        unfit.steps.append(step)
        raise unfit from None


def _decoder(form: Form) -> Decode:
    def decode(data: bytes) -> Any:
        try:
            return form.read(_load(data))
        except Unfit as unfit:
            path = unfit.path("value").lstrip(".")
            raise DecodeError(f"{path}: {unfit.message}", path=path) from unfit.__cause__
        except RecursionError:
            raise DecodeError(f"nested deeper than {DEPTH_MAX} levels") from None
        except (msgspec.DecodeError, ValueError) as error:
            raise DecodeError(f"this is not JSON: {error}") from None

    if form.native is None:
        return decode
    native: Decode = msgspec.json.Decoder(form.native).decode

    def decode_fast(data: bytes) -> Any:
        try:
            return native(data)
        except (msgspec.DecodeError, ValueError, RecursionError):
            return decode(data)  # a nan after all; or it finds out where the error is

    return decode_fast


def _arguments_form(forms: Sequence[Form], names: Sequence[str]) -> Form:
    parts = [
        (form, f".{name}" if name.isidentifier() else name) for form, name in zip(forms, names, strict=True)
    ]

    def convert(values: Any, way: str) -> list[Any]:
        if not isinstance(values, (list, tuple)) or len(values) != len(parts):
            size = len(values) if isinstance(values, (list, tuple)) else type_name(type(values))
            raise Unfit(f"expected {len(parts)} arguments, found {size}")
        out: list[Any] = []
        try:
            for (form, _), value in zip(parts, values, strict=True):
                out.append(getattr(form, way)(value))
        except Unfit as unfit:
            unfit.steps.append(parts[len(out)][1])
            raise
        return out

    natives = tuple(form.native for form in forms)
    return Form("arguments", lambda values: convert(values, "write"), lambda data: convert(data, "read"))
