"""What a file log does with the frames of its journal when it reads them back: each is a write, carried out again."""

from __future__ import annotations

from zart_core.errors import LogCorrupt
from zart_core.events import Ok
from zart_core.log import Mark, Turn
from zart_stores.file.bodies import Closed, decode
from zart_stores.file.frames import Damage, corrupt
from zart_stores.file.index import FrameIndex
from zart_stores.file.journal import Place, Replay, segment_name
from zart_stores.memory import Shelf
from zart_stores.rows import write


def replayer(path: str, shelf: Shelf, index: FrameIndex) -> Replay:
    """Give what is done with each frame of the journal at `path`, in order; LogCorrupt for one that does not fit."""

    def replay(body: bytes, closing: bool, place: Place) -> None:
        try:
            item = decode(body)
        except ValueError as error:
            raise misfit(path, place, "a write that this version knows", str(error)) from error
        if closing is not isinstance(item, Closed):
            raise misfit(path, place, "a footer" if closing else "a write", type(item).__name__)
        index.place = place
        if isinstance(item, Closed):
            for id, fence in item.fences.items():
                restore_fence(path, shelf, place, id, fence)
            return
        if isinstance(item, (Turn, Mark)) and item.fence is not None:
            restore_fence(path, shelf, place, item.id, item.fence)
        done = write(shelf, item)
        if not isinstance(done, Ok):
            raise misfit(path, place, "a write that fits what is before it", str(done))

    return replay


def restore_fence(path: str, shelf: Shelf, place: Place, id: str, fence: int) -> None:
    """Claims are not in the journal; what they did to the fence is seen in the next write (I6)."""
    row = shelf.by_id.get(id)
    if row is None or fence < row.fence:
        found = f"fence {fence}" if row is not None else "an unknown execution"
        raise misfit(path, place, f"a fence of at least {row.fence if row else 0} for {id!r}", found)
    row.fence = fence


def misfit(path: str, place: Place, expected: str, found: str) -> LogCorrupt:
    """Make the error for a frame that is whole and cannot be."""
    return corrupt(f"{path}/{segment_name(place.segment)}", Damage(place.offset, expected, found))
