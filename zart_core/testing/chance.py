"""Chance in an exploration: what is drawn hangs on the execution, the run and the name for which it is drawn alone.

Rule 1: a draw that is made again, since a crash left nothing of it on record, gives the same: so a run that crashed can
        be compared with one that did not.
"""

from __future__ import annotations

import random
import uuid
from typing import Any

from zart_core.events import Done, Outcome
from zart_core.hosts.inline import Inline
from zart_core.hosts.ports import LOTS, Lots, StepCall
from zart_core.hosts.turns import Run
from zart_core.interpreter import Execution
from zart_core.testing.world import Host, HostFactory


class SteadyRun(Run):
    """A run in which `zart.random`, `zart.uuid`, captures of the module `random`, and jitter are the same again."""

    def lots_of(self, name: str) -> random.Random:
        """What is drawn from, for something of this name."""
        return random.Random(f"{self.id} {self.run} {name}")  # noqa: S311  # for tests, the same each time

    def raised(self, call: StepCall, error: BaseException, now: float, lots: Lots = LOTS) -> None:
        """See Run."""
        super().raised(call, error, now, self.lots_of(f"{call.context.step} {call.context.attempt}"))

    def timed_out(self, call: StepCall, now: float, lots: Lots = LOTS) -> None:
        """See Run."""
        super().timed_out(call, now, self.lots_of(f"{call.context.step} {call.context.attempt}"))

    def _captured(self, execution: Execution, seq: int) -> Outcome:
        lots = self.lots_of(execution.pending[seq].name)
        if execution.command(seq).fn is uuid.uuid4:
            drawn = uuid.UUID(int=lots.getrandbits(128), version=4)
            return Done(self.codec.encode(drawn, uuid.UUID))
        before = random.getstate()
        random.seed(lots.random())
        try:
            return super()._captured(execution, seq)
        finally:
            random.setstate(before)


def steady(make_host: HostFactory) -> HostFactory:
    """Hosts with such runs; one of the tester's own that is no `Inline` draws as it likes."""

    def make(*given: Any, **outside: Any) -> Host:
        host = make_host(*given, **outside)
        if isinstance(host, Inline):
            host.run_type = SteadyRun
        return host

    return make
