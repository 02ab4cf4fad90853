"""The writer: group commit on the loop, and what an interruption leaves behind."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from zart_core.hosts.threads import DaemonThreads
from zart_core.hosts.writer import Writer
from zart_core.log import Appended, New, Unknown, Write
from zart_core.testing.relay import Relay
from zart_stores import memory


class Interrupted(Relay):
    """A log whose first append is interrupted, before or after it is made."""

    def __init__(self, after: bool) -> None:
        super().__init__(memory.open("memory:"))
        self.after = after
        self.appends = 0

    def append(self, batch: Sequence[Write]) -> list[Appended]:
        """See EventLog."""
        self.appends += 1
        if self.appends == 1:
            if self.after:
                self.log.append(batch)
            raise KeyboardInterrupt
        return self.log.append(batch)


@pytest.mark.parametrize("after", [False, True])
def test_an_interrupt_in_the_middle_of_an_append_is_unknown_to_its_caller_and_stops_no_other(
    after: bool,
) -> None:
    """F27: the interrupt comes through, the outcome is one of the three, and the writer goes on."""
    log, loop = Interrupted(after), asyncio.new_event_loop()
    outcomes: list[Appended] = []
    try:
        writer = Writer(log, loop, DaemonThreads())
        writer.submit([New("a", "w", "d", (), 0.0)], outcomes.extend)
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(asyncio.sleep(0.01))
        loop.run_until_complete(asyncio.wait_for(writer.write([New("b", "w", "d", (), 0.0)]), 10))
        assert outcomes == [Unknown("interrupted: KeyboardInterrupt")]
        assert (log.summary("a") is not None) == after
        assert log.summary("b") is not None
    finally:
        loop.close()
