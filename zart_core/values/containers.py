"""The forms of what has parts: lists, tuples, sets, dicts, and unions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from types import GenericAlias
from typing import Any, Literal, Union

import msgspec

from zart_core.values.forms import (
    EVERY_TOKEN,
    TOKENS,
    Form,
    Unfit,
    expect,
    mismatch,
    tagged,
    type_name,
    untag,
)


def each(convert: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """Convert the items; an Unfit learns the index of the item."""
    out: list[Any] = []
    try:
        for item in items:
            out.append(convert(item))
    except Unfit as unfit:
        unfit.steps.append(f"[{len(out)}]")
        raise
    return out


def refuse_not_finite(data: Any) -> None:
    """Raise Unfit for a nan or an infinity in what a hook wrote: msgspec would write null in its place."""
    if data.__class__ is float:
        if not math.isfinite(data):
            raise Unfit("found nan or infinity, for which JSON has no number", "have it written as text")
    elif data.__class__ is dict:
        for key, item in data.items():
            try:
                refuse_not_finite(item)
            except Unfit as unfit:
                unfit.steps.append(f".{key}" if isinstance(key, str) else _step(key))
                raise
    elif data.__class__ in (list, tuple):
        each(refuse_not_finite, data)


def sequence_form(name: str, cls: type, items: Form) -> Form:
    """list[T], tuple[T, ...], deque[T]: an array."""

    def write(value: Any) -> Any:
        expect(cls, name, value)
        return each(items.write, value)

    def read(data: Any) -> Any:
        expect(list, name, data)
        values = each(items.read, data)
        return values if cls is list else cls(values)

    arguments = (items.native, ...) if cls is tuple else (items.native,)
    native = GenericAlias(cls, arguments) if items.native and cls in (list, tuple) else None
    return Form(name, write, read, frozenset({"array"}), frozenset({cls}), native)


def fixed_tuple_form(name: str, items: tuple[Form, ...]) -> Form:
    """tuple[A, B, C]: an array of that length."""

    def check(values: Any, cls: type) -> Any:
        expect(cls, name, values)
        if len(values) != len(items):
            raise Unfit(f"expected {name}, found {len(values)} items")
        return zip(items, values, strict=True)

    def write(value: Any) -> Any:
        return each(lambda pair: pair[0].write(pair[1]), check(value, tuple))

    def read(data: Any) -> Any:
        return tuple(each(lambda pair: pair[0].read(pair[1]), check(data, list)))

    natives = tuple(item.native for item in items)
    native = None if None in natives else GenericAlias(tuple, natives)
    return Form(name, write, read, frozenset({"array"}), frozenset({tuple}), native)


def set_form(name: str, cls: type, items: Form) -> Form:
    """set[T] or frozenset[T]: an array, sorted by its JSON, since hashing differs between processes (P4)."""

    def write(value: Any) -> Any:
        expect(cls, name, value)
        data = each(items.write, value)
        try:
            return sorted(data, key=msgspec.json.encode)
        except ValueError:
            return data  # it holds text that JSON cannot; that is found out when it becomes bytes

    def read(data: Any) -> Any:
        expect(list, name, data)
        try:
            return cls(each(items.read, data))
        except TypeError as error:
            raise Unfit(f"expected {name}, found items that cannot be in a set") from error

    native = None if items.native is None else GenericAlias(cls, (items.native,))
    return Form(name, write, read, frozenset({"array"}), frozenset({cls}), native)


def _step(key: Any) -> str:
    text = repr(key) if isinstance(key, (str, int)) else f"a key of type {type_name(type(key))}"
    return f"[{text if len(text) <= 40 else text[:37] + '...'}]"


def dict_form(name: str, keys: Form, values: Form) -> Form:
    """dict[K, T] with keys that are written as strings: an object."""

    def write(value: Any) -> Any:
        expect(dict, name, value)
        return _items(value, keys.write, values.write)

    def read(data: Any) -> Any:
        expect(dict, name, data)
        try:
            return _items(data, keys.read, values.read)
        except TypeError as error:
            raise Unfit(f"expected {name}, found a key that no dict can have") from error

    native = GenericAlias(dict, (str, values.native)) if keys.native is str and values.native else None
    return Form(name, write, read, frozenset({"object"}), frozenset({dict}), native)


def _items(items: Any, key: Callable[[Any], Any], value: Callable[[Any], Any]) -> dict[Any, Any]:
    out: dict[Any, Any] = {}
    k: Any = None
    try:
        for k, item in items.items():
            out[key(k)] = value(item)
    except Unfit as unfit:
        unfit.steps.append(_step(k))
        raise
    return out


def pairs_form(name: str, keys: Form, values: Form) -> Form:
    """dict[K, T] with other keys: an array of pairs."""

    def write(value: Any) -> Any:
        expect(dict, name, value)
        return each(lambda pair: [keys.write(pair[0]), values.write(pair[1])], value.items())

    def read_pair(data: Any) -> tuple[Any, Any]:
        expect(list, "a pair of key and value", data)
        if len(data) != 2:
            raise Unfit(f"expected a pair of key and value, found {len(data)} items")
        return keys.read(data[0]), values.read(data[1])

    def read(data: Any) -> Any:
        if data == {}:  # a message's: an empty dict does not tell what its keys would be
            return {}
        expect(list, name, data)
        try:
            return dict(each(read_pair, data))
        except TypeError as error:
            raise Unfit(f"expected {name}, found a key that no dict can have") from error

    return Form(name, write, read, frozenset({"array"}), frozenset({dict}))


def either_form(name: str, usual: Form, other: Form) -> Form:
    """An abstract collection: the usual one as it is, the other (a tuple in a Sequence) with a tag."""
    (kind,) = other.types

    def write(value: Any) -> Any:
        if isinstance(value, kind):
            return tagged(kind.__name__, other.write(value))
        return usual.write(value)

    def read(data: Any) -> Any:
        if data.__class__ is not dict:
            return usual.read(data)
        tag, inner = untag(data)
        if tag != kind.__name__:
            raise Unfit(f"expected {name}, found the tag '{tag[:40]}'")
        return other.read(inner)

    tokens, kinds = usual.tokens | {"object"}, usual.types | other.types
    return Form(name, write, read, tokens, kinds, fit=lambda data: 2 if data.__class__ is list else 0)


# ---------------------------------------------------------------- unions


def union_form(name: str, members: Mapping[str, Form]) -> Form:
    """A | B | C, each with the tag it has where it needs one.

    Members that JSON tells apart are written as they are, the others tagged. A tag is an object, so that
    beside tagged members no member may be a bare object. The order of the members means nothing, since typing
    may reorder them: `list[A | B]` is the same object as `list[B | A]`.
    """
    order = sorted(members.items(), key=lambda member: member[0])
    crowded = {token for token in EVERY_TOKEN if sum(token in form.tokens for _, form in order) > 1}
    if crowded:
        crowded.add("object")
    tags = {tag: form for tag, form in order if form.tokens & crowded}
    bare = {token: form for tag, form in order if tag not in tags for token in form.tokens}
    if "int" not in bare and "float" in bare:
        bare["int"] = bare["float"]

    def write_as(tag: str, form: Form, value: Any) -> Any:
        data = form.write(value)
        return tagged(tag, data) if tag in tags else data

    def write(value: Any) -> Any:
        fitting = [member for member in order if type(value) in member[1].types] or order
        if len(fitting) == 1:
            return write_as(*fitting[0], value)
        for tag, form in fitting:
            try:
                return write_as(tag, form, value)
            except Unfit:
                continue
        raise mismatch(name, value)

    def read(data: Any) -> Any:
        if tags and data.__class__ is dict and "$" in data:
            tag, inner = untag(data)
            if tag not in tags:
                raise Unfit(f"expected {name}, found the tag '{tag[:40]}'")
            return tags[tag].read(inner)
        form = bare.get(TOKENS[type(data)])
        if form is None and tags:
            form = meant(name, tags, data)
        if form is None:
            raise mismatch(name, data)
        return form.read(data)

    natives = tuple(form.native for form in members.values())
    native = None if tags or None in natives else Union[natives]  # noqa: UP007  # a tuple
    tokens = frozenset[str]().union(*(form.tokens for form in members.values()))
    kinds = frozenset[type]().union(*(form.types for form in members.values()))
    return Form(name, write, read, tokens | {"object"} if tags else tokens, kinds, native)


def meant(name: str, tags: Mapping[str, Form], data: Any) -> Form | None:
    """The one member that data without a tag can be meant as, if there is one. Raises Unfit when there are several."""
    fits = {tag: fit(form, data) for tag, form in tags.items()}
    most = max(fits.values())
    best = [tag for tag in fits if most and fits[tag] == most]
    if len(best) > 1:
        raise Unfit(
            f"expected {name}, found what may be any of {', '.join(best)}; "
            f'say which by a tag, as {{"$": "{best[0]}", "v": value}}'
        )
    return tags[best[0]] if best else None


def fit(form: Form, data: Any) -> int:
    """How well data fits a form, as `Form.fit` says it; what has parts is not gone into, as it may be deep."""
    if form.fit is not None:
        return form.fit(data)
    if data.__class__ in (list, dict):
        return 2 if TOKENS[type(data)] in form.tokens else 0
    try:
        return 2 if form.write(form.read(data)) == data else 1
    except Unfit:
        return 0


def literal_form(name: str, values: tuple[Any, ...], inner: Form) -> Form:
    """Literal[...]: like the union of the values' types, and one of these values."""
    allowed: set[Any] = {(type(value), value) for value in values}

    def check(value: Any) -> Any:
        try:
            fits = (type(value), value) in allowed
        except TypeError:
            fits = False
        if not fits:
            raise Unfit(f"expected {name}, found another {type_name(type(value))}")
        return value

    native = Literal[values] if {type(v) for v in values} <= {str, int, type(None)} else None
    return Form(
        name,
        lambda v: inner.write(check(v)),
        lambda d: check(inner.read(d)),
        inner.tokens,
        inner.types,
        native,
    )
