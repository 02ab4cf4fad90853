"""From a declared type to its `Form`: the types a step or an input may be annotated with.

Rule 1: a class decodes only where it is declared, or where it was registered when the codec was made; what a
        process happens to have met before makes no difference (P4).
"""

from __future__ import annotations

import collections.abc as abc
import dataclasses
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar, Union, get_args, get_origin

import attrs
import msgspec
import typing_extensions
from cattrs import BaseConverter
from cattrs.errors import StructureHandlerNotFoundError

from zart_core import forms
from zart_core.errors import InvalidUse
from zart_core.forms import LEAVES, Form, Unfit, full_name, mismatch, tagged, type_name, untag

DEPTH_MAX = 100
"""How deep a value may be nested, in levels of JSON."""
DYNAMIC = (Any, object, inspect.Parameter.empty)
"""Declared types that say nothing: the value carries its type with it, as tags."""

PLAIN = frozenset({str, int, bool, type(None)})
TAGGED_LEAVES: Mapping[str, Form] = {
    cls.__name__.lower(): form for cls, form in LEAVES.items() if cls not in PLAIN and cls is not float
}
ABSTRACT: Mapping[Any, tuple[type, type | None]] = {
    abc.Sequence: (list, tuple),
    abc.Collection: (list, tuple),
    abc.Iterable: (list, tuple),
    abc.MutableSequence: (list, None),
    abc.Set: (set, frozenset),
    abc.MutableSet: (set, None),
    abc.Mapping: (dict, None),
    abc.MutableMapping: (dict, None),
}


@attrs.define
class Field:
    """One field of a class."""

    name: str
    argument: str | None
    """Its name in the constructor; None when it is set afterwards."""
    type: Any
    required: bool


class Shapes:
    """The forms of all types met so far, and the registered classes."""

    def __init__(self, converter: BaseConverter, types: Iterable[Any] = ()) -> None:
        self._converter = converter
        self._forms: dict[Any, Form] = dict(LEAVES)
        self._classes: dict[type, Form] = {}
        self._dynamic = Form("any value", lambda value: self._write(value, 0), self._read)
        for cls in types:
            self.of(cls)
        self._tags: dict[type, str] = {
            **{cls: name for name, form in TAGGED_LEAVES.items() for cls in form.types},
            type(Path()): "path",
            **{cls: full_name(cls) for cls in self._classes},
        }
        self._registered = dict(self._classes)
        self._by_tag: dict[str, Form] = dict(TAGGED_LEAVES)
        for cls, form in self._registered.items():
            self._by_tag[full_name(cls)] = form

    def of(self, declared: Any) -> Form:
        """The form of a type. Raises InvalidUse for one that no value can be decoded to."""
        try:
            form = self._forms.get(declared)
        except TypeError:  # Annotated with something unhashable
            return self._make(declared)
        if form is None:
            form = self._make(declared)
            self._forms[declared] = form
        return form

    def _make(self, declared: Any) -> Form:
        if declared is None:
            return LEAVES[type(None)]
        if any(declared is dynamic for dynamic in DYNAMIC):
            return self._dynamic
        if isinstance(declared, str):
            raise InvalidUse(
                f"the annotation '{declared}' is a string; resolve it with typing.get_type_hints"
            )
        if isinstance(declared, TypeVar):
            return self.of(
                declared.__bound__ or (Union[declared.__constraints__] if declared.__constraints__ else Any)
            )
        aliased = _unaliased(declared)
        if aliased is not declared:
            return self._later(declared, lambda: self.of(aliased))
        supertype = getattr(declared, "__supertype__", None)
        if supertype is not None:
            return self.of(supertype)
        origin, args = get_origin(declared) or declared, get_args(declared)
        if origin in (
            typing.Annotated,
            typing.Final,
            typing_extensions.Required,
            typing_extensions.NotRequired,
        ):
            return self.of(args[0])
        if origin is typing_extensions.ReadOnly:
            return self.of(args[0])
        if origin is Literal:
            inner = self.of(Union[tuple(type(value) for value in args)])
            return forms.literal_form(type_name(declared), args, inner)
        if origin is Union or origin is types.UnionType:
            return self._union(declared, args)
        return (
            self._collection(declared, origin, args)
            or self._class(declared, origin)
            or self._custom(declared)
        )

    def _later(self, declared: Any, make: Callable[[], Form]) -> Form:
        """A form that may contain itself: it stands in the table while it is being made.

        What a union looks at, name, tokens and types, must be there from the start, or the JSON of a union would
        depend on which of two types was met first. So a union never looks at an alias but at what it stands for.
        """
        cls = get_origin(declared) or declared
        kinds = frozenset({dict if typing_extensions.is_typeddict(cls) else cls})
        form = Form(type_name(declared), _unmade, _unmade, frozenset({"object"}), kinds)
        self._forms[declared] = form
        try:
            made = make()
        except BaseException:
            del self._forms[declared]
            raise
        for name in ("write", "read", "tokens", "types", "native"):
            setattr(form, name, getattr(made, name))
        return form

    # ------------------------------------------------------------ standard types

    def _union(self, declared: Any, args: Sequence[Any]) -> Form:
        args = list(_members(args))
        members = [self.of(arg) for arg in args]
        if self._dynamic in members:
            return self._dynamic
        names = [member.name for member in members]
        if len(set(names)) < len(names):  # classes of one name in two modules
            members = [attrs.evolve(m, name=str(arg)) for m, arg in zip(members, args, strict=True)]
        return forms.union_form(type_name(declared), members)

    def _collection(self, declared: Any, origin: Any, args: tuple[Any, ...]) -> Form | None:
        name = type_name(declared)
        if origin in ABSTRACT:
            usual, other = ABSTRACT[origin]
            if other is None:
                return self.of(usual[args] if args else usual)  # type: ignore[index]
            others = (*args, ...) if args and other is tuple else args
            return forms.either_form(
                name,
                self.of(usual[args] if args else usual),  # type: ignore[index]
                self.of(other[others] if args else other),  # type: ignore[index]
            )
        if origin is list:
            return forms.list_form(name, self.of(args[0] if args else Any))
        if origin in (set, frozenset):
            return forms.set_form(name, origin, self.of(args[0] if args else Any))
        if origin is tuple:
            if declared is tuple or (len(args) == 2 and args[1] is ...):
                return forms.tuple_form(name, self.of(args[0] if args else Any))
            return forms.fixed_tuple_form(name, tuple(self.of(arg) for arg in args))
        if origin is dict:
            keys, values = args or (Any, Any)
            if keys is str:
                return forms.dict_form(name, self.of(values))
            return forms.pairs_form(name, self.of(keys), self.of(values))
        return None

    # ------------------------------------------------------------ classes

    def _class(self, declared: Any, origin: Any) -> Form | None:
        if not isinstance(origin, type):
            return None
        if issubclass(origin, Enum):
            form = forms.enum_form(origin)
            self._classes[origin] = form
            return form
        if typing_extensions.is_typeddict(origin):
            return self._later(declared, lambda: self._typed_dict(declared, origin))
        if attrs.has(origin) or dataclasses.is_dataclass(origin) or _is_named_tuple(origin):
            form = self._later(declared, lambda: self._record(declared, origin))
            if declared is origin:
                self._classes[origin] = form
            return form
        if issubclass(origin, Path):
            return LEAVES[Path]
        return None

    def _record(self, declared: Any, cls: type) -> Form:
        """attrs classes, dataclasses and named tuples: an object."""
        name = type_name(declared)
        fields = [(f.name, f.argument, self.of(f.type), f.required) for f in fields_of(declared)]

        def write(value: Any) -> dict[str, Any]:
            if type(value) is not cls:
                raise mismatch(name, value)
            out: dict[str, Any] = {}
            field = ""
            try:
                for field, _, form, _ in fields:
                    out[field] = form.write(getattr(value, field))
            except Unfit as unfit:
                unfit.steps.append(f".{field}")
                raise
            except AttributeError as error:
                raise Unfit(f"the {name} has no value for its field '{field}'") from error
            return out

        def read(data: Any) -> Any:
            if type(data) is not dict:
                raise mismatch(name, data)
            arguments: dict[str, Any] = {}
            later: dict[str, Any] = {}
            field = ""
            try:
                for field, argument, form, required in fields:
                    if field in data:
                        if argument is None:
                            later[field] = form.read(data[field])
                        else:
                            arguments[argument] = form.read(data[field])
                    elif required:
                        raise Unfit(f"the {name} has no value for it")
            except Unfit as unfit:
                unfit.steps.append(f".{field}")
                raise
            try:
                value = cls(**arguments)
            except Exception as error:  # noqa: BLE001  # a validator of the user may raise anything
                raise Unfit(f"{name} cannot be made of these fields: {type_name(type(error))}") from error
            for field, item in later.items():
                object.__setattr__(value, field, item)
            return value

        return Form(name, write, read, frozenset({"object"}), frozenset({cls}))

    def _typed_dict(self, declared: Any, cls: type) -> Form:
        name = type_name(declared)
        fields = {f.name: (self.of(f.type), f.required) for f in fields_of(declared)}

        def convert(value: Any, way: str) -> dict[str, Any]:
            out: dict[str, Any] = {}
            key = ""
            try:
                for key, (form, required) in fields.items():
                    if key in value:
                        out[key] = getattr(form, way)(value[key])
                    elif required:
                        raise Unfit(f"the {name} has no value for it")
            except Unfit as unfit:
                unfit.steps.append(f"[{key!r}]")
                raise
            return out

        def write(value: Any) -> dict[str, Any]:
            if type(value) is not dict:
                raise mismatch(name, value)
            if not value.keys() <= fields.keys():
                raise Unfit(f"found keys that {name} does not declare")
            return convert(value, "write")

        def read(data: Any) -> dict[str, Any]:
            if type(data) is not dict:
                raise mismatch(name, data)
            return convert(data, "read")

        return Form(name, write, read, frozenset({"object"}), frozenset({dict}))

    def _custom(self, declared: Any) -> Form:
        """Any other type: by the hooks that its user registered with the cattrs converter."""
        name = type_name(declared)
        try:
            write_hook = self._converter.get_unstructure_hook(declared)
            read_hook = self._converter.get_structure_hook(declared)
        except StructureHandlerNotFoundError as error:
            raise InvalidUse(
                f"no value of type {name} can be encoded; use an attrs class, a dataclass or a standard type, "
                f"or register hooks for it with the codec's cattrs converter"
            ) from error

        def write(value: Any) -> Any:
            if isinstance(declared, type) and not isinstance(value, declared):
                raise mismatch(name, value)
            try:
                return msgspec.to_builtins(write_hook(value))
            except Exception as error:  # noqa: BLE001  # a hook of the user may raise anything
                raise Unfit(f"this {name} cannot be encoded: {type_name(type(error))}") from error

        def read(data: Any) -> Any:
            try:
                return read_hook(data, declared)
            except Exception as error:  # noqa: BLE001  # a hook of the user may raise anything
                raise Unfit(f"expected {name}: {type_name(type(error))}") from error

        return Form(name, write, read, types=frozenset({declared} if isinstance(declared, type) else ()))

    # ------------------------------------------------------------ positions without a type

    def _write(self, value: Any, depth: int) -> Any:
        """JSON types pass as they are, what is known is tagged, anything else is refused."""
        cls = type(value)
        if cls in PLAIN or (cls is float and math.isfinite(value)):
            return value
        if depth >= DEPTH_MAX:
            raise Unfit(f"nested deeper than {DEPTH_MAX} levels, or contains itself")

        def inner(item: Any) -> Any:
            return self._write(item, depth + 1)

        if cls is list:
            return forms.each(inner, value)
        if cls is dict:
            if "$" not in value and all(type(key) is str for key in value):
                return forms.dict_form("dict", Form("", inner, inner)).write(value)
            return tagged(
                "dict", forms.pairs_form("dict", Form("", inner, inner), Form("", inner, inner)).write(value)
            )
        if cls is tuple:
            return tagged("tuple", forms.each(inner, value))
        if cls in (set, frozenset):
            return tagged(cls.__name__, forms.set_form("set", cls, Form("", inner, inner)).write(value))
        if cls is float:
            return forms.write_float(value)
        tag = self._tags.get(cls)
        if tag is None:
            name = type_name(cls)
            raise Unfit(
                f"found {name}, where no type is declared",
                f"annotate the place with it, or register the class: Codec(types=[{name}])",
            )
        return tagged(tag, self._by_tag[tag].write(value))

    def _read(self, data: Any) -> Any:
        cls = type(data)
        if cls is list:
            return forms.each(self._read, data)
        if cls is not dict:
            return data
        if "$" not in data:
            return forms.dict_form("dict", self._dynamic).read(data)
        tag, inner = untag(data)
        if tag == "float":
            return forms.read_float(data)
        form = self._containers().get(tag) or self._by_tag.get(tag)
        if form is None:
            raise Unfit(f"found the tag '{tag[:80]}', which is not registered: Codec(types=...)")
        return form.read(inner)

    def _containers(self) -> Mapping[str, Form]:
        return {
            "tuple": self.of(tuple),
            "set": self.of(set),
            "frozenset": self.of(frozenset),
            "dict": forms.pairs_form("dict", self._dynamic, self._dynamic),
        }


def _unmade(_: Any) -> Any:
    raise RecursionError("a type that is nothing but itself")


def _is_named_tuple(cls: type) -> bool:
    return issubclass(cls, tuple) and hasattr(cls, "_fields")


def _members(args: Iterable[Any]) -> Iterator[Any]:
    """The members of a union, with the unions in it opened."""
    for arg in args:
        arg = _unaliased(arg)
        if get_origin(arg) is Union or get_origin(arg) is types.UnionType:
            yield from _members(get_args(arg))
        else:
            yield arg


def _unaliased(declared: Any) -> Any:
    """What a type alias stands for; any other type itself."""
    origin = get_origin(declared)
    if isinstance(origin, typing_extensions.TypeAliasType):
        given = dict(zip(origin.__type_params__, get_args(declared), strict=True))
        return _unaliased(_filled(origin.__value__, given))
    if isinstance(declared, typing_extensions.TypeAliasType):
        return _unaliased(declared.__value__)
    return declared


# ---------------------------------------------------------------- fields and their types


def hints_of(cls: type) -> dict[str, Any]:
    """The annotations of a class, resolved. Raises InvalidUse when a name in them cannot be found."""
    try:
        return typing_extensions.get_type_hints(cls, include_extras=True)
    except NameError:
        pass
    except Exception as error:  # noqa: BLE001  # an annotation is code
        raise _unresolved(cls, error) from error
    try:
        return typing_extensions.get_type_hints(cls, localns={cls.__name__: cls}, include_extras=True)
    except Exception as error:  # noqa: BLE001  # an annotation is code
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
        return _filled(hints.get(name, fallback), given)

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
    if _is_named_tuple(cls):
        return [Field(name, name, typed(name), name not in cls._field_defaults) for name in cls._fields]
    return [Field(name, name, typed(name), _required(cls, name, hint)) for name, hint in hints.items()]


def _required(cls: Any, name: str, hint: Any) -> bool:
    """Whether a TypedDict has to have a key; postponed annotations hide it from the class itself."""
    while get_origin(hint) in (typing.Annotated, typing_extensions.ReadOnly):
        hint = get_args(hint)[0]
    if get_origin(hint) is typing_extensions.NotRequired:
        return False
    return get_origin(hint) is typing_extensions.Required or name in cls.__required_keys__


def _type_arguments(declared: Any) -> dict[Any, Any]:
    """What each type variable of a generic class, and of its bases, stands for."""
    cls: Any = get_origin(declared) or declared
    given: dict[Any, Any] = dict(zip(getattr(cls, "__parameters__", ()), get_args(declared), strict=False))
    for base in getattr(cls, "__orig_bases__", ()):
        if get_origin(base) not in (None, Generic, Protocol):
            given.update(_type_arguments(_filled(base, given)))
    return given


def _filled(declared: Any, given: Mapping[Any, Any]) -> Any:
    """A type with its type variables replaced."""
    if isinstance(declared, TypeVar):
        return given.get(declared, declared)
    parameters = getattr(declared, "__parameters__", ())
    if parameters and get_origin(declared) is not None:
        return declared[tuple(given.get(parameter, parameter) for parameter in parameters)]
    return declared
