"""What stands between a step and its connection: open while the step runs, then shut for good.

Rule 1: one thread at a time is inside; so whoever shuts it and then waits for the lock is alone with the connection.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator

from zart_core.errors import InvalidUse


class Gate:
    """Lets a step use its connection, until it is `shut` with a reason."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.why = ""
        """Why nobody passes any more."""

    def shut(self, why: str) -> None:
        """Let nobody pass from now on; who is inside stays there. The first reason stays."""
        self.why = self.why or why

    def refuse_if_shut(self) -> None:
        """Raise InvalidUse when it is shut."""
        if self.why:
            raise InvalidUse(f"this connection cannot be used any more: {self.why}")

    @contextlib.contextmanager
    def passing(self) -> Generator[None]:
        """Use the connection. Raises InvalidUse when it is shut, before or meanwhile."""
        with self.lock:
            self.refuse_if_shut()
            try:
                yield
            except Exception as error:
                if self.why and not isinstance(error, InvalidUse):
                    raise InvalidUse(f"a statement was interrupted: {self.why}") from error
                raise


ENDED = "its step has ended; connections are not kept from one step to another"
LOG_CLOSED = "its log was closed"
HOST_ENDS = (
    "zart.transaction() ends with its step: return to commit, raise to roll back; "
    "for a part that may fail use a savepoint"
)
