"""What a history is made of, as attrs sees it and as the garbage collector does."""

from __future__ import annotations

import copy
import gc
import pickle
import typing
from typing import Any

import attrs
import pytest

from tests.test_golden import all_events
from zart_core.events import (
    EVENT_TYPES,
    Began,
    Cancellation,
    Done,
    Event,
    Failed,
    Failure,
    Issued,
    Noted,
    Outcome,
    Resolved,
)

STORED = [*EVENT_TYPES.values(), *typing.get_args(Outcome)]


def stored() -> list[Any]:
    """Events of every kind and outcomes of every kind, with every field in use somewhere."""
    events: list[Event] = all_events()
    return [*events, *(event.outcome for event in events if isinstance(event, Resolved))]


def test_all_kinds_are_there() -> None:
    """Each class of which a history is made has an object among those that are looked at."""
    assert {type(each) for each in stored()} == set(STORED)


def test_attrs_takes_them_apart_and_puts_them_together() -> None:
    """`attrs.fields`, `asdict` and `evolve` work on them, as on any attrs class: users' code does that."""
    for each in stored():
        names = [field.name for field in attrs.fields(type(each))]
        values = attrs.asdict(each, recurse=False)
        assert list(values) == names == [*type(each).__annotations__]
        assert values == {name: getattr(each, name) for name in names}
        by_name = {field.name for field in attrs.fields(type(each)) if field.kw_only}
        ordered = [value for name, value in values.items() if name not in by_name]
        assert (
            type(each)(**values) == type(each)(*ordered, **{name: values[name] for name in by_name}) == each
        )
        assert by_name == ({"at"} if isinstance(each, Began | Noted) else set())
        for name, value in values.items():
            changed = attrs.evolve(each, **{name: "another"})
            assert getattr(changed, name) == "another" != value
            assert changed != each
            assert attrs.evolve(changed, **{name: value}) == each


def test_they_equal_what_says_the_same_and_nothing_else() -> None:
    """Equal are two of one class with equal fields, which then have one hash; a copy and a pickle are such."""
    for each in stored():
        for twin in (
            attrs.evolve(each),
            copy.copy(each),
            copy.deepcopy(each),
            pickle.loads(pickle.dumps(each)),
        ):
            assert type(twin) is type(each)
            assert twin == each
            assert hash(twin) == hash(each)
            assert repr(twin) == repr(each)
    assert Failed(Failure("error", "E", "m")) != Done(b"1") != Done(b"2")
    assert Done(b"") != Cancellation(b"")  # type: ignore[arg-type]  # equal fields, and another class


@pytest.mark.parametrize("cls", STORED, ids=lambda cls: cls.__name__)
def test_defaults_are_those_that_the_class_says(cls: type[Any]) -> None:
    """Fields without a default must be given; the others are what the class, and attrs, say."""
    fields = attrs.fields(cls)
    needed = {field.name: "x" for field in fields if field.default is attrs.NOTHING}
    made = cls(**needed)
    assert attrs.asdict(made) == needed | {
        field.name: field.default for field in fields if field.name not in needed
    }
    for name in needed:
        with pytest.raises(TypeError, match=name):
            cls(**{other: value for other, value in needed.items() if other != name})


def test_a_match_takes_their_fields_in_order() -> None:
    """`case Issued(seq, kind, name)` works, as it does with any attrs class."""
    match Issued(7, "step", "pay", 1.0):
        case Issued(seq, kind, name, at):
            assert (seq, kind, name, at) == (7, "step", "pay", 1.0)


def test_none_can_be_changed() -> None:
    """They are frozen at run time too: who got a history cannot change it under somebody else."""
    for each in stored():
        for name in attrs.asdict(each, recurse=False):
            with pytest.raises(AttributeError):
                setattr(each, name, "another")


def test_the_garbage_collector_need_not_look_at_them() -> None:
    """A history of 10,000 steps is 40,000 objects, which it would go over again and again."""
    assert not any(gc.is_tracked(each) for each in stored())


def test_began_and_noted_are_made_as_the_design_lists_their_fields():
    """Section 2: Began(seq, attempt, takeover, deadline), Noted(what, who, why); the time comes by its name."""
    began, noted = Began(3, 1, 2, 9.0, at=4.0), Noted("paused", "me", "because", at=4.0)
    assert (began.takeover, began.deadline, began.at) == (2, 9.0, 4.0)
    assert (noted.who, noted.why, noted.at) == ("me", "because", 4.0)
    assert attrs.evolve(began, at=5.0) == Began(3, 1, at=5.0, takeover=2, deadline=9.0)
    for make in (lambda: Began(3, 1), lambda: Noted("paused", "me", "because", 4.0)):
        with pytest.raises(TypeError):
            make()
