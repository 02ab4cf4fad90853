"""What every record of the project is made of.

Rule 1: a record is frozen to the type checker, plain and slotted at run time (a really frozen attrs
class costs two to three times as much to build). Never mutate one that you did not just make.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from attrs import frozen as record
else:
    record = functools.partial(attrs.define, unsafe_hash=True, weakref_slot=False)

__all__ = ["record"]
