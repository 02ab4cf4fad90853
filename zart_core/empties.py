"""Empties that many share: what thousands of waiting runs hold in place of empty containers of their own.

Rule 1: to read, to clear and to pop with a default is as with any empty container; to add to one raises.
Rule 2: what may be a shared one is added to by `put` and `added` alone, whose result takes its place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class NoEntries(dict[Any, Any]):
    """A dict that stays empty. An empty one of its own takes each run 64 bytes, and there are many."""

    __slots__ = ()

    if not TYPE_CHECKING:  # the checkers take it for any other dict

        def _refuse(self, *_: object, **__: object) -> None:
            """Refuse to be added to: everybody would see it."""
            raise TypeError("this dict is shared and stays empty: add with `put`, and keep what it gives")

        __setitem__ = setdefault = update = __ior__ = _refuse


NO_ENTRIES: Final = NoEntries()
NO_ITEMS: Any = ()
"""In place of an empty list."""


def put(entries: dict[K, V], key: K, value: V) -> dict[K, V]:
    """The dict with one more entry: itself, or a new one if it was empty."""
    if not entries:
        return {key: value}
    entries[key] = value
    return entries


def added(items: list[V], item: V) -> list[V]:
    """The list with one more item at its end: itself, or a new one if it was empty."""
    if not items:
        return [item]
    items.append(item)
    return items
