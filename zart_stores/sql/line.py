"""A line in front of a lock that is polled: first come, first served, within one process.

Who has entered may be let out by any thread.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

LOOK_S = 0.05
"""How often who waits asks whether that is of any use."""


class Line:
    """Lets one in at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[threading.Event] = deque()
        self.taken = False
        """Whether somebody has entered and not left."""

    def enter(self, timeout_s: float, hopeless: Callable[[], bool] = lambda: False) -> bool:
        """Wait for one's turn, and keep it until `leave`; False when it did not come in time, or cannot come."""
        with self._lock:
            if not self.taken:
                self.taken = True
                return True
            turn = threading.Event()
            self._waiting.append(turn)
        end = time.monotonic() + timeout_s
        try:
            while (left_s := end - time.monotonic()) > 0 and not hopeless():
                if turn.wait(min(left_s, LOOK_S)):
                    return True
        except BaseException:  # F27
            if self._give_up(turn):
                self.leave()
            raise
        return self._give_up(turn)

    def let_pass(self, timeout_s: float, hopeless: Callable[[], bool]) -> None:
        """Wait until those who came before have had their turn, or that is of no use; whoever comes later waits."""
        if self.taken and self.enter(timeout_s, hopeless):
            self.leave()

    def leave(self) -> None:
        """Give the turn to the next."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self.taken = False

    def _give_up(self, turn: threading.Event) -> bool:
        """Leave the line without a turn; True when it has come at this very moment."""
        with self._lock:
            if turn.is_set():
                return True
            self._waiting.remove(turn)
            return False
