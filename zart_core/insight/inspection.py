"""Time travel: what the code of a run was doing after each of its events.

Rule 1: a moment is a pure function of workflow, history and position; how one got there does not matter.
Rule 2: generators cannot be copied: going forward is one `apply`, going back is a replay from the start.
Rule 3: the log is only read. Plain code of the workflow does run, as in every replay: it has no effects.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from types import FrameType
from typing import Any

from zart_core.codec import Codec
from zart_core.divergence import with_nearest
from zart_core.errors import Defect, Diverged, InvalidUse, text_of
from zart_core.events import Event, Issued, Status
from zart_core.hosts.turns import MISBEHAVIOUR
from zart_core.insight.frames import Frame, OpenBranch, Raised, Seen, compared, live_frames, look
from zart_core.interpreter import Execution
from zart_core.records import record
from zart_core.wording import described_want
from zart_core.workflows import Workflow

NOTHING_SEEN = Seen((), ())


@record
class Moment:
    """What a run looked like after the first `position` events of its history."""

    position: int
    """How many events the code went along with."""
    event: Event | None
    """The last of them, or the one that the code did not go along with; None at the very beginning."""
    status: Status
    at: float
    """Seconds since the epoch, as the events say."""
    branches: tuple[OpenBranch, ...]
    """What is live, oldest first; the first one is the root."""
    raised: tuple[Raised, ...]
    """The error that has left the run, or parks it, with the frames it came through; after it those of its group."""
    frames: tuple[Frame, ...]
    """All frames of the branches, each outermost first, and then those of what was raised."""
    pending: tuple[Issued, ...]
    """What the outside has to bring: issued and not resolved."""
    asks: tuple[str, ...]
    """What the code asks for that the history does not hold at this point: the next decisions."""
    lines: tuple[str, ...]
    """What the workflow said through `zart.logger` at this event."""
    defect: str
    """Why the code cannot go on with this history: both sides of a divergence, for one. Empty if it can."""


class Inspection:
    """A history under a magnifying glass. Get one from `zart.inspect`."""

    def __init__(
        self,
        workflow: Workflow[Any, Any],
        events: Sequence[Event],
        *,
        codec: Codec | None = None,
        hide: Collection[str] = (),
    ) -> None:
        self.workflow = workflow
        self.events = list(events)
        self.codec = codec
        self.hide = frozenset(hide)
        self._execution = self._fresh()
        self._seen = NOTHING_SEEN
        self._lines: tuple[str, ...] = ()
        self._defect: Defect | None = None
        self._moment: Moment | None = None

    def __len__(self) -> int:
        """How many events there are; the last moment is `at(len(inspection))`."""
        return len(self.events)

    def at(self, k: int) -> Moment:
        """The moment after the first `k` events, 0 to len(inspection).

        Costs O(k) from anywhere, and O(1) events from the moment before. A position that the code does not reach gives
        the moment where it parts from the history, with `defect`. Raises InvalidUse outside of the history.
        """
        if not 0 <= k <= len(self.events):
            raise InvalidUse(f"there are the moments 0 to {len(self.events)}, not {k}")
        if self._moment is None or not self._is_at(k):
            self._moment = self._go_to(k)
        return self._moment

    def moments(self, start: int = 0, stop: int | None = None) -> Iterator[Moment]:
        """The moments `start` to `stop`, both included; to the last by default. Each costs one event more.

        Ends early where the code parts from the history.
        """
        last = len(self.events) if stop is None else stop
        for k in range(start, last + 1):
            yield self.at(k)
            if self._unfit:
                return

    def first(self, holds: Callable[[FrameType], bool]) -> int | None:
        """The first moment at which `holds` is true of any frame; None when it never is.

        `holds` is called with each frame object of each moment: `lambda frame: frame.f_locals.get("total", 0) > 10`.
        Costs O(n) events, whatever the outcome, and a call for each frame at each of them.
        """
        self._rewind()
        while True:
            if any(holds(frame) for frame in live_frames(self._execution)):
                return self._execution.position + (1 if self._unfit else 0)
            if self._defect is not None or self._execution.position == len(self.events):
                return None
            self._step()

    def close(self) -> None:
        """Put the workflow's code away. Twice is once."""
        self._execution.close()

    def __enter__(self) -> Inspection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        """Let no generator be left to the garbage collector, which complains where one yields while it is closed."""
        self.close()

    # ------------------------------------------------------------ going there

    @property
    def _unfit(self) -> bool:
        """Whether the code did not go along with an event."""
        return self._defect is not None and self._execution.position < len(self.events)

    def _is_at(self, k: int) -> bool:
        position = self._execution.position
        return k > position if self._unfit else k == position

    def _fresh(self) -> Execution:
        return Execution(self.workflow, codec=self.codec)

    def _go_to(self, k: int) -> Moment:
        """Apply up to the moment before, look, go one further, and look again."""
        if self._execution.position >= k or self._defect is not None:
            self._rewind()
        before = self._seen if self._moment is not None and self._execution.position == k - 1 else None
        while self._execution.position < k - 1:
            self._step()
            if self._defect is not None:  # the moment is that of the first event that does not fit
                return self._go_to(self._execution.position + 1)
        if before is None:
            before = look(self._execution, self.hide)
        if self._execution.position < k:
            self._step()
        if self._execution.position == len(self.events) and self._defect is None:
            self._check_end()
        self._seen = look(self._execution, self.hide)
        return self._look(before)

    def _rewind(self) -> None:
        self._execution.close()
        self._execution = self._fresh()
        self._seen, self._lines, self._defect, self._moment = NOTHING_SEEN, (), None, None

    def _step(self) -> None:
        """Apply one event; a defect is kept, and nothing goes on after it."""
        execution = self._execution
        try:
            execution.apply(self.events[execution.position])
        except MISBEHAVIOUR as error:
            self._defect = self._explained(error)
        self._lines = tuple(line.getMessage() for line in execution.take_lines())

    def _check_end(self) -> None:
        """At the end of the history: what the code wants more, or cannot write down."""
        try:
            self._execution.check_answered()
            self._execution.decide()
        except MISBEHAVIOUR as error:
            self._defect = self._explained(error)

    def _explained(self, error: BaseException) -> Defect:
        if isinstance(error, Diverged):
            return with_nearest(error, self.workflow, self.events, self._execution, self.codec)
        if isinstance(error, Defect):
            return error
        return Defect(f"the workflow raised {type(error).__name__}: {text_of(error)}")

    def _look(self, before: Seen) -> Moment:
        execution, defect = self._execution, self._defect
        branches, raised = compared(self._seen, before)
        shown = execution.position if self._unfit else execution.position - 1
        frames = [frame for branch in branches for frame in branch.frames]
        frames += [frame for error in raised for frame in error.frames]
        return Moment(
            position=execution.position,
            event=self.events[shown] if shown >= 0 else None,
            status=Status.PARKED if defect is not None else execution.status,
            at=execution.now,
            branches=branches,
            raised=raised,
            frames=tuple(frames),
            pending=tuple(execution.pending.values()),
            asks=asked(execution),
            lines=self._lines,
            defect="" if defect is None else f"{type(defect).__name__}: {defect}",
        )


def asked(execution: Execution) -> tuple[str, ...]:
    """What the code asks for that no event answers so far."""
    return tuple(described_want(want, ()) for want in execution._wanted if not want.settled)


def inspect(
    workflow: Workflow[Any, Any],
    history: Sequence[Event],
    *,
    codec: Codec | None = None,
    hide: Collection[str] = (),
) -> Inspection:
    """Look into a run at any of its events: `zart.inspect(order, handle.history()).at(7).frames`.

    Works for runs that have ended, wait, or are parked: for these up to where code and history part.

    Args:
        workflow: the code.
        history: the events of one run, as `handle.history()` gives them.
        codec: how the values were written; a plain one by default.
        hide: names of variables, attributes and keys whose values are not to be shown.

    Raises nothing for a history that does not fit: the moment says so in `defect`.
    """
    return Inspection(workflow, history, codec=codec, hide=hide)
