"""A line in front of a lock that is polled: first come, first served, within one process.

Who has entered may be let out by any thread.
"""

from __future__ import annotations

import threading
from collections import deque


class Line:
    """Lets one in at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[threading.Event] = deque()
        self._taken = False

    def enter(self, timeout_s: float) -> bool:
        """Wait for one's turn, and keep it until `leave`; False when it did not come in time."""
        with self._lock:
            if not self._taken:
                self._taken = True
                return True
            turn = threading.Event()
            self._waiting.append(turn)
        try:
            if turn.wait(timeout_s):
                return True
        except BaseException:  # F27
            if self._give_up(turn):
                self.leave()
            raise
        return self._give_up(turn)

    def let_pass(self, timeout_s: float) -> None:
        """Wait until those who came before have had their turn, or the time is over; whoever comes later waits."""
        if self._taken and self.enter(timeout_s):
            self.leave()

    def leave(self) -> None:
        """Give the turn to the next."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._taken = False

    def _give_up(self, turn: threading.Event) -> bool:
        """Leave the line without a turn; True when it has come at this very moment."""
        with self._lock:
            if turn.is_set():
                return True
            self._waiting.remove(turn)
            return False
