"""Columns of rows as PostgreSQL's own binary arrays: a fraction of the time that the driver takes for lists.

Rule 1: a column has one type, which its statement names, too; None is NULL.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from psycopg.adapt import AdaptersMap, Dumper
from psycopg.pq import Format

_HEAD = struct.Struct("!iiIii")
"""Dimensions, whether there are NULLs, the type of the elements, how many they are, the number of the first."""
_LENGTH = struct.Struct("!i").pack
_NULL = _LENGTH(-1)


class Column(bytes):
    """A column as the server reads it; each type has a class of its own, by which the driver tells it the type."""

    ELEMENT: ClassVar[int]
    """The server's number of the elements' type; the dumper has that of the array."""
    PACK: ClassVar[Callable[[Any], bytes]]
    """Gives an element that is not NULL."""


def _fixed(code: str) -> Callable[[Any], bytes]:
    """An element that always has the same size."""
    item = struct.Struct(f"!i{code}")
    size = item.size - 4
    return lambda value: item.pack(size, value)


def _bytes(value: bytes) -> bytes:
    return _LENGTH(len(value)) + value


def _text(value: str) -> bytes:
    return _bytes(value.encode())


class _AsItIs(Dumper):
    format = Format.BINARY

    def dump(self, obj: Any) -> bytes:
        """See Dumper."""
        return bytes(obj)


COLUMNS: dict[str, type[Column]] = {}
"""By the name of the elements' type."""
_DUMPERS: dict[type[Column], type[Dumper]] = {}
for _name, _element, _array, _pack in (
    ("int8", 20, 1016, _fixed("q")),
    ("float8", 701, 1022, _fixed("d")),
    ("bool", 16, 1000, _fixed("?")),
    ("text", 25, 1009, _text),
    ("bytea", 17, 1001, _bytes),
):
    _column = type(f"Column_{_name}", (Column,), {"ELEMENT": _element, "PACK": staticmethod(_pack)})
    COLUMNS[_name] = _column
    _DUMPERS[_column] = type(f"Dumper_{_name}", (_AsItIs,), {"oid": _array})


def column(kind: str, values: Sequence[Any]) -> Column:
    """Make a column of this type."""
    of = COLUMNS[kind]
    pack, some = of.PACK, None in values
    head = _HEAD.pack(1, some, of.ELEMENT, len(values), 1)
    if some:
        return of(head + b"".join([_NULL if value is None else pack(value) for value in values]))
    return of(head + b"".join(map(pack, values)))


def register(adapters: AdaptersMap) -> None:
    """Let a connection, or a cursor, send columns."""
    for kind, dumper in _DUMPERS.items():
        adapters.register_dumper(kind, dumper)
