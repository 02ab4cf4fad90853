"""What every record of the project is made of.

Rule 1: a record is frozen to the type checker, plain and slotted at run time (a really frozen attrs
class costs two to three times as much to build). Never mutate one that you did not just make.
Rule 2: what a history is made of, thousands of objects at a time, is a `stored_record`: an attrs class to everybody
who asks attrs, and a msgspec struct to the interpreter. What each attempt of a step takes is a `brief_record`: the
same, for what may hold anything.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import attrs
import msgspec

if TYPE_CHECKING:
    from attrs import frozen as brief_record
    from attrs import frozen as record
    from attrs import frozen as stored_record
else:
    record = functools.partial(attrs.define, unsafe_hash=True, weakref_slot=False)

    def stored_record(cls: type) -> type:
        """Make a class whose objects take a third of the time to build, and nothing of the garbage collector's.

        attrs says what the fields are, and goes by them in `attrs.evolve`, `attrs.asdict` and all others; the struct
        is frozen at run time too, which costs nothing here. Its objects may be part of no circle of references: for
        what cannot be changed, holds plain data only, and has plain defaults.
        """
        return struct_of(cls, gc=False)

    def brief_record(cls: type) -> type:
        """Make a class as `stored_record` does, whose objects the garbage collector sees."""
        return struct_of(cls, gc=True)

    def struct_of(cls: type, *, gc: bool) -> type:
        """Make a frozen struct of a class's annotations, which attrs knows."""
        fields, base = attrs.fields(attrs.define(cls)), msgspec.Struct
        by_name = [field.name for field in fields if field.kw_only]
        left_out = ("__dict__", "__weakref__", *by_name)
        body = {name: value for name, value in vars(cls).items() if name not in left_out}
        if by_name:  # msgspec has that for all fields of a class only, so they get one of their own
            types = dict(cls.__annotations__)
            first = {
                "__annotations__": {name: types.pop(name) for name in by_name},
                "__module__": cls.__module__,
            }
            base = type(base)(cls.__name__, (base,), first, frozen=True, gc=gc, kw_only=True)
            body["__annotations__"] = types
        made = type(base)(cls.__name__, (base,), body, frozen=True, gc=gc)
        made.__annotations__ = dict(cls.__annotations__)
        made.__attrs_attrs__ = fields
        return made


__all__ = ["brief_record", "record", "stored_record"]
