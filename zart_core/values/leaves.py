"""The forms of what has no parts: JSON's own types, texts such as dates, and enums."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, Flag
from fractions import Fraction
from pathlib import Path
from typing import Any
from uuid import UUID

from zart_core.values.forms import TOKENS, Form, Unfit, expect, mismatch, tagged, type_name, untag


def _plain(cls: type[Any], token: str) -> Form:
    """What is JSON already. A value of a subclass, such as a StrEnum, is written as the plain value."""
    name = cls.__name__

    def write(value: Any) -> Any:
        if type(value) is cls:
            return value
        expect(cls, name, value)
        if type(value) is bool:
            raise mismatch(name, value)
        return str.__str__(value) if cls is str else int(value)

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
        expect((int, float), "float", value)
        if type(value) is bool:
            raise mismatch("float", value)
        value = _exact_float(value)
    return value if math.isfinite(value) else tagged("float", repr(value))


def read_float(data: Any) -> float:
    """The inverse; an int of the same value will do."""
    if type(data) is float:
        return data
    if type(data) is int:
        return _exact_float(data)
    expect(dict, "float", data)
    name, inner = untag(data)
    if name != "float" or inner not in ("nan", "inf", "-inf"):
        raise Unfit(f"expected float, found the tag '{name[:40]}'")
    return float(inner)


def _text(cls: type, show: Callable[[Any], str], parse: Callable[[str], Any]) -> Form:
    """What is written as a string."""
    name = type_name(cls)

    def write(value: Any) -> str:
        if type(value) is not cls and (
            not isinstance(value, cls) or (cls is date and isinstance(value, datetime))
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


def _moment_text(value: datetime | time) -> str:
    offset = value.utcoffset()
    if offset is not None and offset.microseconds:  # fromisoformat takes an offset below a second for UTC
        raise Unfit("found an offset from UTC with fractions of a second", "round it")
    return value.isoformat()


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


def _fraction(text: str) -> Fraction:
    numerator, _, denominator = text.partition("/")  # Fraction("1e999999999") would take for ever
    return Fraction(int(numerator), int(denominator or 1))


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def _from_base64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


LEAVES: Mapping[type, Form] = {
    type(None): _none(),
    bool: _plain(bool, "bool"),
    int: _plain(int, "int"),
    str: _plain(str, "string"),
    float: Form(
        "float",
        write_float,
        read_float,
        frozenset({"float", "object"}),
        frozenset({float}),
        float,
        lambda data: 2 if type(data) in (int, float) else 0,
    ),
    bytes: _text(bytes, _base64, _from_base64),
    bytearray: _text(bytearray, _base64, lambda text: bytearray(_from_base64(text))),
    datetime: _text(datetime, _moment_text, datetime.fromisoformat),
    date: _text(date, date.isoformat, date.fromisoformat),
    time: _text(time, _moment_text, time.fromisoformat),
    timedelta: _text(timedelta, _seconds_text, _seconds),
    Decimal: _text(Decimal, str, Decimal),
    Fraction: _text(Fraction, str, _fraction),
    complex: _text(complex, str, complex),
    UUID: _text(UUID, str, UUID),
    Path: _text(Path, str, Path),
}


def enum_form(cls: type[Enum]) -> Form:
    """By value where the values are all strings or all ints, else by name."""
    kinds: set[type[Any]] = {type(member.value) for member in cls}
    name = type_name(cls)
    by_value = kinds in ({str}, {int}) or issubclass(cls, Flag)
    members: dict[Any, Enum] = {m.value: m for m in cls} if by_value else dict(cls.__members__)
    kind: type[Any] = (kinds.pop() if kinds else int) if by_value else str

    def write(value: Any) -> Any:
        expect(cls, name, value)
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
