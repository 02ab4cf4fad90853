"""Columns of rows as PostgreSQL's own binary arrays: a fraction of the time that the driver takes for lists.

Rule 1: a column has one type, which its statement names, too; None is NULL.
Rule 2: equal values are packed once where a column has no others, as many have in a batch of turns. So no column may
        hold both zeros: a log keeps no negative one.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from operator import add
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
    PACK: ClassVar[Callable[[Sequence[Any]], Iterator[bytes]]]
    """Gives elements that are not NULL, one by one."""


def _fixed(code: str) -> Callable[[Sequence[Any]], Iterator[bytes]]:
    """Elements that all have the same size."""
    item = struct.Struct(f"!i{code}")
    size = item.size - 4
    return lambda values: map(item.pack, repeat(size), values)


def _bytes(values: Sequence[bytes]) -> Iterator[bytes]:
    return map(add, map(_LENGTH, map(len, values)), values)


def _text(values: Sequence[str]) -> Iterator[bytes]:
    return _bytes([value.encode() for value in values])


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
    """Make a column of this type. O(n)."""
    of = COLUMNS[kind]
    count = len(values)
    some = None in values
    head = _HEAD.pack(1, some, of.ELEMENT, count, 1)
    if count > 1 and values.count(values[0]) == count:
        return of(head + (_NULL if some else next(of.PACK(values[:1]))) * count)
    if not some:
        return of(head + b"".join(of.PACK(values)))
    packed = of.PACK([value for value in values if value is not None])
    return of(head + b"".join([_NULL if value is None else next(packed) for value in values]))


def register(adapters: AdaptersMap) -> None:
    """Let a connection, or a cursor, send columns."""
    for kind, dumper in _DUMPERS.items():
        adapters.register_dumper(kind, dumper)
