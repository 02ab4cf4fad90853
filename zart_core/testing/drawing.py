"""Values of declared types, and errors of declared classes, as Hypothesis strategies.

Rule 1: only what the codec can write down is drawn, and as it comes back (R9): what a workflow would see.
Rule 2: a type that cannot be drawn is an error before anything is drawn, and says how to register it.
"""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
from hypothesis.errors import HypothesisException
from typing_extensions import TypeIs

from zart_core.codec import Codec
from zart_core.errors import DecodeError, EncodeError, InvalidUse

REGISTER = "register its type: hypothesis.strategies.register_type_strategy(TheType, strategy)"


def is_strategy(value: object) -> TypeIs[st.SearchStrategy[Any]]:
    """Whether it is a strategy of Hypothesis."""
    return isinstance(value, st.SearchStrategy)


def values_of(declared: Any, what: str, codec: Codec) -> st.SearchStrategy[Any]:
    """Values of a declared type, as they come back from the log. Raises InvalidUse for one that cannot be drawn.

    `what` is named in the error: "step 'reserve' returns", for example.
    """
    if declared is Any or declared is object:
        raise InvalidUse(f"{what} no declared type, so that no value can be drawn; annotate it")
    absent = object()

    def come_back(value: Any) -> Any:
        try:
            return codec.through(value, declared)[1]
        except (EncodeError, DecodeError):
            return absent

    drawn = drawable(type(None) if declared is None else declared, what)
    return drawn.map(come_back).filter(lambda value: value is not absent)


def errors_of(declared: type[Exception], what: str) -> st.SearchStrategy[Exception]:
    """Errors of a class: with a message where it takes any arguments, else by the types of its own `__init__`."""
    if declared.__init__ is Exception.__init__ and declared.__new__ is Exception.__new__:
        return st.builds(declared, st.text(max_size=8))
    return drawable(declared, what)


def drawable(declared: Any, what: str) -> st.SearchStrategy[Any]:
    """What Hypothesis draws for a type. Raises InvalidUse when it is nothing."""
    try:
        strategy: st.SearchStrategy[Any] = st.from_type(declared)
        strategy.validate()
        empty = strategy.is_empty
    except (HypothesisException, TypeError, NameError) as error:
        raise InvalidUse(
            f"{what} {shown(declared)}, and no value of it can be drawn: {error}; {REGISTER}"
        ) from error
    if empty:
        raise InvalidUse(f"{what} {shown(declared)}, which has no value; {REGISTER}")
    return strategy


def shown(declared: Any) -> str:
    """A type as it is written."""
    return declared.__name__ if isinstance(declared, type) else str(declared)
