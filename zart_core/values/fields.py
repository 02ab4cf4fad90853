"""The fields of a class and their types: postponed annotations resolved, type variables filled in."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any, Generic, Protocol, TypeVar, get_args, get_origin

import attrs
import typing_extensions

from zart_core.errors import InvalidUse
from zart_core.values.forms import full_name


@attrs.define
class Field:
    """One field of a class."""

    name: str
    argument: str | None
    """Its name in the constructor; None when it is set afterwards."""
    type: Any
    required: bool


def is_named_tuple(cls: Any) -> bool:
    """True for a class made by typing.NamedTuple or collections.namedtuple."""
    return "_fields" in dir(cls) and issubclass(cls, tuple)


def hints_of(cls: type) -> dict[str, Any]:
    """The annotations of a class, resolved. Raises InvalidUse when a name in them cannot be found."""
    try:
        return typing_extensions.get_type_hints(cls, include_extras=True)
    except NameError:
        pass
    except Exception as error:  # an annotation is code
        raise _unresolved(cls, error) from error
    try:
        return typing_extensions.get_type_hints(cls, localns={cls.__name__: cls}, include_extras=True)
    except Exception as error:  # an annotation is code
        raise _unresolved(cls, error) from error


def _unresolved(cls: type, error: Exception) -> InvalidUse:
    return InvalidUse(
        f"the annotations of {full_name(cls)} cannot be resolved: {error}; "
        f"define or import what they name at the top level of its module"
    )


def fields_of(declared: Any) -> list[Field]:
    """The fields of an attrs class, dataclass, named tuple or TypedDict, type variables filled in."""
    cls: Any = get_origin(declared) or declared
    hints = hints_of(cls)
    given = _type_arguments(declared)

    def typed(name: str, fallback: Any = Any) -> Any:
        return filled(hints.get(name, fallback), given.get(name, {}))

    if attrs.has(cls):
        return [
            Field(
                a.name,
                a.alias if a.init else None,
                typed(a.name, a.type or Any),
                a.default is attrs.NOTHING and a.init,
            )
            for a in attrs.fields(cls)
        ]
    if dataclasses.is_dataclass(cls):
        missing = dataclasses.MISSING
        return [
            Field(
                f.name,
                f.name if f.init else None,
                typed(f.name),
                f.init and f.default is missing and f.default_factory is missing,
            )
            for f in dataclasses.fields(cls)
        ]
    if is_named_tuple(cls):
        return [Field(name, name, typed(name), name not in cls._field_defaults) for name in cls._fields]
    return [Field(name, name, typed(name), _required(cls, name, hint)) for name, hint in hints.items()]


def _required(cls: Any, name: str, hint: Any) -> bool:
    """Whether a TypedDict has to have a key; postponed annotations hide it from the class itself."""
    while get_origin(hint) in (typing.Annotated, typing_extensions.ReadOnly):
        hint = get_args(hint)[0]
    if get_origin(hint) is typing_extensions.NotRequired:
        return False
    return get_origin(hint) is typing_extensions.Required or name in cls.__required_keys__


def _type_arguments(declared: Any) -> dict[str, Mapping[Any, Any]]:
    """For each annotated name, what the type variables of the class that annotates it stand for.

    One variable may stand for different types in a class and in its base, as in `class Pages(Page[list[T]])`.
    """
    cls: Any = get_origin(declared) or declared
    given = dict(zip(getattr(cls, "__parameters__", ()), get_args(declared), strict=False))
    names: dict[str, Mapping[Any, Any]] = {}
    for base in reversed(cls.__dict__.get("__orig_bases__", cls.__bases__)):
        if isinstance(get_origin(base) or base, type) and get_origin(base) not in (Generic, Protocol):
            names.update(_type_arguments(filled(base, given)))
    for name in typing_extensions.get_annotations(cls, format=typing_extensions.Format.STRING):
        if name not in names or not typing_extensions.is_typeddict(
            cls
        ):  # a TypedDict repeats those of its bases
            names[name] = given
    return names


def filled(declared: Any, given: Mapping[Any, Any]) -> Any:
    """A type with its type variables replaced."""
    if isinstance(declared, TypeVar):
        return given.get(declared, declared)
    parameters = getattr(declared, "__parameters__", ())
    if parameters and get_origin(declared) is not None:
        return declared[tuple(given.get(parameter, parameter) for parameter in parameters)]
    return declared
