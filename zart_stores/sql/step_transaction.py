"""What the transactions of steps have in common on every database: a gate, a limit, and one end.

Rule 1: whoever ends it holds the gate's lock, and so is alone with the connection; it is ended once.
Rule 2: once it is being committed, nobody rolls it back.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence

from zart_core.events import Ok
from zart_core.log import Appended, Rejected, Write
from zart_stores.checks import check
from zart_stores.sql.gate import ENDED, Gate


class StepTransaction(ABC):
    """A `Transaction` of zart_core.log, but for what the database does. Its time runs from when it is made.

    `meanwhile` says what others suffer while it lasts.
    """

    INTERRUPT_S: float
    """How often a statement that is in the way is interrupted again."""

    def __init__(self, gate: Gate, limit_s: float, meanwhile: str = "") -> None:
        self._gate = gate
        self._over = False
        self._committing = False
        why = (
            f"the step used its transaction for longer than {limit_s:g} s{meanwhile}; "
            "make it shorter, or ask for more: zart.transaction(limit=...)"
        )
        self._timer = threading.Timer(limit_s, self.roll_back, (why,))
        self._timer.daemon = True
        self._timer.start()

    def commit(self, batch: Sequence[Write]) -> list[Appended]:
        """See Transaction."""
        self._timer.cancel()
        self._committing = True
        with self._gate.lock:
            self._gate.shut(ENDED)
            if self._over:
                return [Rejected(f"unavailable: it was rolled back: {self._gate.why}")] * len(batch)
            try:
                check(batch)
                return self._commit(batch)
            finally:
                self._end()

    def roll_back(self, why: str) -> None:
        """See Transaction."""
        if self._committing:
            return
        self._timer.cancel()
        self._gate.shut(why)
        while not self._gate.lock.acquire(timeout=self.INTERRUPT_S):
            self._interrupt()
        try:
            self._end()
        finally:
            self._gate.lock.release()

    @abstractmethod
    def _commit(self, batch: Sequence[Write]) -> list[Appended]:
        """Write the batch and commit, or write nothing."""

    @abstractmethod
    def _interrupt(self) -> None:
        """Interrupt the statement that runs, from another thread."""

    @abstractmethod
    def _end(self) -> None:
        """Roll back what was not committed, and give the connection up. Twice is once."""


def refused(outcomes: Sequence[Appended]) -> list[Appended]:
    """The outcomes of a batch of which something was refused, so that nothing of it is written."""
    stale = Rejected("stale: another write of the transaction was refused")
    return [stale if isinstance(outcome, Ok) else outcome for outcome in outcomes]
