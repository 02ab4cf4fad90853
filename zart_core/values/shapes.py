"""From a declared type to its `Form`: the types a step or an input may be annotated with.

Rule 1: a class decodes only where it is declared, or where it was registered when the codec was made; what a
        process happens to have met before makes no difference (P4).
"""

from __future__ import annotations

import collections.abc as abc
import dataclasses
import inspect
import threading
import types
import typing
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from types import GenericAlias
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin

import attrs
import msgspec
import typing_extensions
from cattrs import BaseConverter
from cattrs.errors import StructureHandlerNotFoundError

from zart_core.errors import InvalidUse
from zart_core.values import containers
from zart_core.values.containers import each
from zart_core.values.fields import fields_of, filled, is_named_tuple
from zart_core.values.forms import (
    Form,
    Unfit,
    expect,
    forgotten,
    full_name,
    mismatch,
    tagged,
    type_name,
    untag,
)
from zart_core.values.leaves import LEAVES, enum_form, read_float, write_float

DEPTH_MAX = 100
"""How deep a value may be nested, in levels of JSON."""
DYNAMIC = (Any, object, inspect.Parameter.empty)
"""Declared types that say nothing: the value carries its type with it, as tags."""

PLAIN = frozenset({str, int, bool, type(None)})
TAGGED_LEAVES: Mapping[str, Form] = {
    cls.__name__.lower(): form for cls, form in LEAVES.items() if cls not in PLAIN and cls is not float
}
ARRAYS = (list, tuple, deque, set, frozenset)
DICTS = (dict, OrderedDict, defaultdict, Counter)
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


class Shapes:
    """The forms of all types met so far, and the registered classes."""

    def __init__(self, converter: BaseConverter, types: Iterable[Any] = ()) -> None:
        self._converter = converter
        self._making: dict[Any, Form] = {}
        self._lock = threading.RLock()
        self.dynamic = Form("any value", lambda value: self._write(value, 0), self._read)
        self.own = Form("any value", self._write_own, _unmade)
        self._forms: dict[Any, Form] = {
            **LEAVES,
            **dict.fromkeys(DYNAMIC, self.dynamic),
            None: LEAVES[type(None)],
        }
        for cls in types:
            self.of(cls)
        registered = {
            cls: form
            for cls, form in self._forms.items()
            if cls in form.types and cls not in LEAVES and cls.__module__ != "builtins"
        }
        self._tags: dict[type, str] = {
            **{cls: name for name, form in TAGGED_LEAVES.items() for cls in form.types},
            type(Path()): "path",
            **{cls: full_name(cls) for cls in registered},
        }
        self._tagged: dict[str, Form] = {
            **TAGGED_LEAVES,
            "tuple": self.of(tuple),
            "set": self.of(set),
            "frozenset": self.of(frozenset),
            "dict": containers.pairs_form("dict", self.dynamic, self.dynamic),
            **{full_name(cls): form for cls, form in registered.items()},
        }

    def of(self, declared: Any) -> Form:
        """The form of a type. Raises InvalidUse for one that no value can be decoded to."""
        try:
            form = self._forms.get(declared)
        except TypeError:  # Annotated with something unhashable
            return self._make(declared)
        return form or self._made(declared)

    def _made(self, declared: Any) -> Form:
        """Make a form and those it is made of, which become visible to other threads all at once."""
        with self._lock:
            form = self._making.get(declared)
            if form is not None:
                return form
            outermost = not self._making
            itself = self._making[declared] = self._itself(declared)
            try:
                form = self._make(declared)
                for part in attrs.fields(Form):
                    setattr(itself, part.name, getattr(form, part.name))
                self._making[declared] = form
                if outermost:
                    self._forms.update(self._making)
            finally:
                if outermost:
                    self._making = {}
            return form

    def _itself(self, declared: Any) -> Form:
        """What stands for a type inside of itself while its form is being made.

        A union looks at its tokens and types, so these are right from the start, or the union's JSON would
        depend on which of two types was met first. Aliases have none; a union looks through them.
        """
        usual, other = ABSTRACT.get(
            get_origin(declared) or declared, (get_origin(declared) or declared, None)
        )
        array = not self._by_text(get_args(declared)) if usual is dict else usual in ARRAYS
        tokens = {"array" if array else "object", *(("object",) if other else ())}
        types = {dict if typing_extensions.is_typeddict(usual) else usual, *((other,) if other else ())}
        return Form(type_name(declared), _unmade, _unmade, frozenset(tokens), frozenset(types))

    def _make(self, declared: Any) -> Form:
        if isinstance(declared, str):
            raise InvalidUse(
                f"the annotation '{declared}' is a string; resolve it with typing.get_type_hints"
            )
        if isinstance(declared, TypeVar):
            return self.of(declared.__bound__ or _one_of(declared.__constraints__ or (Any,)))
        aliased = _unaliased(declared)
        if aliased is not declared:
            return self.of(aliased)
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
            inner = self.of(_one_of(tuple(map(type, args))))
            return containers.literal_form(type_name(declared), args, inner)
        if origin is Union or origin is types.UnionType:
            return self._union(declared, args)
        return (
            self._collection(declared, origin, args)
            or self._class(declared, origin)
            or self._custom(declared)
        )

    # ------------------------------------------------------------ standard types

    def _union(self, declared: Any, args: Sequence[Any]) -> Form:
        args = list(_members(args))
        members = [self.of(arg) for arg in args]
        if self.dynamic in members:
            return self.dynamic
        tags = [member.name for member in members]
        if len(set(tags)) < len(tags):  # classes of one name in two modules
            tags = [full_name(arg) if isinstance(arg, type) else str(arg) for arg in args]
        return containers.union_form(type_name(declared), dict(zip(tags, members, strict=True)))

    def _collection(self, declared: Any, origin: Any, args: tuple[Any, ...]) -> Form | None:
        name = type_name(declared)
        if origin in ABSTRACT:
            usual, other = ABSTRACT[origin]
            form = self.of(GenericAlias(usual, args) if args else usual)
            if other is None:
                return form
            others = (*args, ...) if other is tuple else args
            return containers.either_form(name, form, self.of(GenericAlias(other, others) if args else other))
        if origin is list or origin is deque:
            return containers.sequence_form(name, origin, self.of(args[0] if args else Any))
        if origin in (set, frozenset):
            return containers.set_form(name, origin, self.of(args[0] if args else Any))
        if origin is tuple:
            if declared is tuple or (len(args) == 2 and args[1] is ...):
                return containers.sequence_form(name, tuple, self.of(args[0] if args else Any))
            if any(map(is_unpacked, args)):
                raise InvalidUse(f"no value of type {name} can be encoded: a part of it has no fixed length")
            return containers.fixed_tuple_form(name, tuple(self.of(arg) for arg in args))
        if origin is dict:
            keys, values = (self.of(arg) for arg in args or (Any, Any))
            if keys is self.dynamic:
                return self._any_dict(name)
            return (containers.dict_form if self._by_text(args) else containers.pairs_form)(
                name, keys, values
            )
        return None

    def _by_text(self, args: tuple[Any, ...]) -> bool:
        """Whether a dict with these arguments is an object: its keys are strings, or of no declared type."""
        keys = self.of(args[0] if args else Any)
        return keys is self.dynamic or keys.tokens == LEAVES[str].tokens

    def _any_dict(self, name: str) -> Form:
        """A dict with keys of no declared type: an object where they are all strings, else tagged."""

        def only_dicts(value: Any) -> Any:
            expect(dict, name, value)
            return value

        return Form(
            name,
            lambda value: self._write(only_dicts(value), 0),
            lambda data: only_dicts(self._read(data)),
            frozenset({"object"}),
            frozenset({dict}),
        )

    # ------------------------------------------------------------ classes

    def _class(self, declared: Any, origin: Any) -> Form | None:
        if not isinstance(origin, type):
            return None
        origin = cast("type[Any]", origin)
        if issubclass(origin, Enum):
            return enum_form(origin)
        if typing_extensions.is_typeddict(origin):
            return self._typed_dict(declared, origin)
        if attrs.has(origin) or dataclasses.is_dataclass(origin) or is_named_tuple(origin):
            return self._record(declared, origin)
        if issubclass(origin, Path):
            return LEAVES[Path]
        return None

    def _record(self, declared: Any, cls: Any) -> Form:
        """Attrs classes, dataclasses and named tuples: an object."""
        name = type_name(declared)
        fields = [(f.name, f.argument, self.of(f.type), f.required) for f in fields_of(declared)]
        fit = _by_keys({f[0]: f[3] for f in fields})

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
            expect(dict, name, data)
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
            except Exception as error:  # a validator of the user may raise anything
                raise Unfit(f"{name} cannot be made of these fields: {type_name(type(error))}") from error
            for field, item in later.items():
                object.__setattr__(value, field, item)
            return value

        return Form(name, write, read, frozenset({"object"}), frozenset({cls}), fit=fit)

    def _typed_dict(self, declared: Any, cls: type) -> Form:
        name = type_name(declared)
        fields = {f.name: (self.of(f.type), f.required) for f in fields_of(declared)}
        fit = _by_keys({key: required for key, (_, required) in fields.items()})

        def convert(value: Any, way: str) -> dict[str, Any]:
            out: dict[str, Any] = {}
            key = ""
            try:
                for key, item in value.items():
                    if key in fields:
                        out[key] = getattr(fields[key][0], way)(item)
                for key, (_, required) in fields.items():
                    if required and key not in out:
                        raise Unfit(f"the {name} has no value for it")
            except Unfit as unfit:
                unfit.steps.append(f"[{key!r}]")
                raise
            return out

        def write(value: Any) -> dict[str, Any]:
            expect(dict, name, value)
            if not value.keys() <= fields.keys():
                raise Unfit(f"found keys that {name} does not declare")
            return convert(value, "write")

        def read(data: Any) -> dict[str, Any]:
            expect(dict, name, data)
            return convert(data, "read")

        return Form(name, write, read, frozenset({"object"}), frozenset({dict}), fit=fit)

    def _custom(self, declared: Any) -> Form:
        """Any other type: by the hooks that its user registered with the cattrs converter."""
        name = type_name(declared)
        try:
            write_hook = self._converter.get_unstructure_hook(declared)
            read_hook = self._converter.get_structure_hook(declared)
        except StructureHandlerNotFoundError as error:
            raise InvalidUse(
                f"no value of type {name} can be encoded; use an attrs class, a dataclass or a standard type "
                f"or register hooks for it with the codec's cattrs converter"
            ) from error

        def write(value: Any) -> Any:
            if isinstance(declared, type) and not isinstance(value, declared):
                raise mismatch(name, value)
            try:
                data = msgspec.to_builtins(write_hook(value))
            except Exception as error:  # a hook of the user may raise anything
                raise Unfit(f"this {name} cannot be encoded: {type_name(type(error))}") from error
            containers.refuse_not_finite(data)
            if isinstance(value, abc.Mapping) and read(msgspec.to_builtins(data, str_keys=True)) != value:
                raise Unfit(
                    f"this {name} would come back with other items in it",
                    "declare the type that they have, or use a dict",
                )
            return data

        def read(data: Any) -> Any:
            try:
                return read_hook(data, declared)
            except Exception as error:  # a hook of the user may raise anything
                raise Unfit(f"expected {name}: {type_name(type(error))}") from error

        return Form(name, write, read, types=frozenset({declared} if isinstance(declared, type) else ()))

    # ------------------------------------------------------------ positions without a type

    def _write(self, value: Any, depth: int) -> Any:
        """JSON types pass as they are, what is known is tagged, anything else is refused."""
        cls = cast("Any", type(value))
        if cls in PLAIN:
            return value
        if cls is float:
            return write_float(value)
        if depth >= DEPTH_MAX:
            raise Unfit(f"nested deeper than {DEPTH_MAX} levels, or contains itself", "flatten it")
        inner = Form("any value", lambda item: self._write(item, depth + 1), _unmade)
        if cls is list:
            return each(inner.write, value)
        if cls is dict:
            if "$" not in value and all(type(key) is str for key in value):
                return containers.dict_form("dict", LEAVES[str], inner).write(value)
            return tagged("dict", containers.pairs_form("dict", inner, inner).write(value))
        if cls is tuple:
            return tagged("tuple", each(inner.write, value))
        if cls is set or cls is frozenset:
            return tagged(cls.__name__, containers.set_form(cls.__name__, cls, inner).write(value))
        tag = self._tags.get(cls)
        if tag is None:
            name = type_name(cls)
            raise Unfit(
                f"found {name}, where no type is declared",
                forgotten(value)
                or f"annotate the place with its type, or register the class: Codec(types=[{name}])",
            )
        return tagged(tag, self._tagged[tag].write(value))

    def _write_own(self, value: Any) -> Any:
        """As the value's own class writes it, without a tag: for a reader that declares the type."""
        cls = cast("Any", type(value))
        if cls in (list, tuple, deque):
            return each(self._write_own, value)
        if cls is set or cls is frozenset:
            return containers.set_form(cls.__name__, cls, self.own).write(value)
        if cls in DICTS:
            by_text = all(self._by_text((cast("Any", type(key)),)) for key in value)
            return (containers.dict_form if by_text else containers.pairs_form)(
                "dict", self.own, self.own
            ).write(value)
        try:
            return self.of(cls).write(value)
        except InvalidUse as error:
            raise Unfit(
                f"found {type_name(cls)}, of which no value can be encoded", "use another type"
            ) from error

    def _read(self, data: Any) -> Any:
        cls = cast("Any", type(data))
        if cls is list:
            return each(self._read, data)
        if cls is not dict:
            return data
        if "$" not in data:
            return containers.dict_form("dict", LEAVES[str], self.dynamic).read(data)
        tag, inner = untag(data)
        if tag == "float":
            return read_float(data)
        form = self._tagged.get(tag)
        if form is None:
            raise Unfit(f"found the tag '{tag[:80]}', which is not registered: Codec(types=...)")
        return form.read(inner)


def _by_keys(required: Mapping[str, bool]) -> Callable[[Any], int]:
    """How well an object fits by its keys: those that have to be there are, and none that is not known."""
    needed = {key for key, is_needed in required.items() if is_needed}

    def fit(data: Any) -> int:
        if data.__class__ is not dict or not needed <= data.keys() <= required.keys():
            return 0
        return 2 if len(data) == len(required) else 1

    return fit


def _unmade(_: Any) -> Any:
    raise RecursionError("a type that is nothing but itself")


def is_unpacked(arg: Any) -> bool:
    """Whether it stands for any number of items, as `*tuple[int, ...]` does."""
    return getattr(arg, "__unpacked__", False) is True or get_origin(arg) is typing_extensions.Unpack


def _one_of(types: tuple[Any, ...]) -> Any:
    return Union[types]  # noqa: UP007  # a tuple


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
        return _unaliased(filled(origin.__value__, given))
    if isinstance(declared, typing_extensions.TypeAliasType):
        return _unaliased(declared.__value__)
    return declared
