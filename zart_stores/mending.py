"""What an interrupted change has left half done on a shelf is undone before anything else is done there (F27).

Rule 1: before a change the shelf holds an image of what the change may touch, and it lets go of it when the change is
        whole. So whoever finds an image knows that somebody was interrupted, wherever that was.
Rule 2: mending starts from the image and from nothing else; interrupted itself, it is simply done again.
Rule 3: what follows from the rows (indexes, counts) is not kept in the image: it is made anew. O(n), and seldom.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Protocol

import attrs
import msgspec

from zart_core.log import Message, New, Turn, Write
from zart_stores.rows import Row

FIELDS = tuple(field.name for field in attrs.fields(Row))
VALUES = attrgetter(*FIELDS)
NO_MESSAGES: Mapping[int, Message] = {}


class RowImage(msgspec.Struct, frozen=True):
    """A row as it was, and the messages that the change may take away."""

    row: Row
    values: tuple[Any, ...]
    messages: Mapping[int, Message]


class Image(msgspec.Struct, frozen=True):
    """What a change may touch, as it was before."""

    rows: int
    """How many rows there were; those after them are new."""
    touched: Sequence[RowImage]


class Mendable(Protocol):
    """The part of a shelf that an image is made of."""

    rows: list[Row]
    by_id: dict[str, Row]
    inboxes: list[dict[int, Message]]


def image_of(shelf: Mendable, item: Write) -> Image:
    """The image to be held while `item` is carried out. O(1) for what touches one execution."""
    row = shelf.by_id.get(item.id)
    touched: tuple[RowImage, ...] = (
        () if row is None else (row_image(shelf, row, item.consumes if type(item) is Turn else ()),)
    )
    if (type(item) is Turn or type(item) is New) and (item.posts or item.creates):
        touched += tuple(row_image(shelf, other, ()) for other in others_of(shelf, item))
    return Image(len(shelf.rows), touched)


def others_of(shelf: Mendable, item: Turn | New) -> Iterable[Row]:
    """Other executions that it posts messages to."""
    for post in item.posts:
        if post.id != item.id and post.id in shelf.by_id:
            yield shelf.by_id[post.id]
    for new in item.creates:
        yield from others_of(shelf, new)


def row_image(shelf: Mendable, row: Row, numbers: Sequence[int]) -> RowImage:
    """A row as it is now, with those of its messages."""
    if not numbers:
        return RowImage(row, VALUES(row), NO_MESSAGES)
    inbox = shelf.inboxes[row.key]
    return RowImage(row, VALUES(row), {number: inbox[number] for number in numbers if number in inbox})


def restored(image: RowImage, inbox: Mapping[int, Message]) -> dict[int, Message]:
    """Put a row back; gives its inbox as it was."""
    for name, value in zip(FIELDS, image.values, strict=True):
        setattr(image.row, name, value)
    kept = {number: message for number, message in inbox.items() if number <= image.row.posted}
    return dict(sorted({**kept, **image.messages}.items()))
