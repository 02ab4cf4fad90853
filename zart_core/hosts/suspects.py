"""Suspects of a crash: what was running when its worker died, started again one at a time (R5)."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING

from zart_core.hosts.live import Attempt, Live

if TYPE_CHECKING:
    from zart_core.hosts.engine import AsyncEngine


class Suspects:
    """Puts suspects on trial."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.quarantine: deque[tuple[Live, int]] = deque()
        """Suspects that wait for their turn."""
        self.on_trial: tuple[str, int] | None = None
        self.alone = False
        """Whether the suspect on trial has been on trial before: then nothing else begins."""

    @property
    def watched(self) -> tuple[str, int] | None:
        """The step of an execution beside which nothing may begin, while there is one."""
        return self.on_trial if self.alone else None

    def take(self, taken: list[Live], *, alone: bool = True) -> None:
        """Put what was running when its worker died on trial, one at a time.

        A single one starts at once, and the crash is held against it. Of several, those come first that had been on
        trial before; while such a one runs, nothing else begins, so that its guilt shows the next time. A retry that
        was due may have been running too: then a single one is as one of several, as it is when not `alone`.
        """
        # Others are read back, and come again.
        here = [live for live in taken if live.run.execution is not None]
        suspects = [(live, seq) for live in here for seq in live.run.suspects]
        suspects = [item for item in suspects if item not in self.quarantine]
        now = self.engine.clock.now()
        alone = alone and len(suspects) == 1 and all(live.run.unrecorded > now for live in here)
        if alone and not self.quarantine and self.on_trial is None:
            live, seq = suspects[0]
            live.run.try_suspect(seq, alone=True, now=now)
            self.engine.pump.kick(live)
            return
        again = {item for item in suspects if item[0].run.was_on_trial(item[1])}
        self.quarantine.extend(sorted(suspects, key=lambda item: item not in again))
        self.next()

    def take_broken(self, broken: list[tuple[Live, Attempt]], *, alone: bool) -> None:
        """Put what was running when its executor broke on trial, as after the death of a worker.

        `alone` says that nothing else ran there, not even what needs no trial.
        """
        watched = self.watched
        for live, attempt in broken:
            here = (live.run.id, attempt.call.seq)
            live.run.suspect(attempt.call, guilty=watched == here)
            if self.on_trial == here:
                self.on_trial = None
        self.take([live for live, _ in broken], alone=alone)
        if self.alone and self.on_trial is None:
            self.alone = False
            self.engine.attempts.feed()

    def next(self) -> None:
        """Start the next suspect, when no other is on trial."""
        while self.on_trial is None and self.quarantine:
            live, seq = self.quarantine.popleft()
            if live.run.execution is None:  # it is being read back, and comes again
                continue
            if self.engine.live.get(live.run.id) is live and seq in live.run.suspects:
                again = live.run.was_on_trial(seq)
                watched = again and not any(other.run.running for other in self.engine.live.values())
                if live.run.try_suspect(seq, alone=False, watched=watched, now=self.engine.clock.now()):
                    self.on_trial = (live.run.id, seq)
                    self.alone = again
                self.engine.pump.kick(live)

    def acquit(self, id: str, seq: int) -> None:
        """A suspect has come to its end without harm: the next one, and all others that had to wait."""
        if self.on_trial == (id, seq):
            self.on_trial = None
            self.next()
            if self.alone and self.on_trial is None:
                self.alone = False
                self.engine.attempts.feed()

    def stand_aside(self, waiting: Mapping[str, Live]) -> None:
        """What is on trial and finds no room in its queue lets other suspects come first, unless it is watched."""
        if self.on_trial is None or self.alone or not self.quarantine:
            return
        id, seq = self.on_trial
        live = waiting.get(id)
        if live is not None and live.run.put_back(seq):
            self.quarantine.append((live, seq))
            self.acquit(id, seq)

    def end_trial(self, live: Live) -> None:
        """Acquit what was on trial in this execution, if it neither runs nor is about to."""
        on_trial = self.on_trial
        if on_trial is not None and on_trial[0] == live.run.id:
            here = self.engine.live.get(live.run.id) is live
            seq = on_trial[1]
            if not here or not (seq in live.calls or live.run.is_to_begin(seq)):
                self.acquit(live.run.id, seq)
