"""What a contract knows of the store that it checks: how to open it, and what it is able to do."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any, cast
from unittest import SkipTest

from zart_core.events import Ok
from zart_core.log import EventLog, Rejected
from zart_core.testing.contract_report import short


class Contract:
    """How a store is opened, what it can do, and what a test can do to it. Override what your store has."""

    durable = True
    """False for a store whose records go with its process."""
    shared = True
    """False for a store that only one log object may have open at a time."""
    done: list[str]
    """What the check has done so far, in words."""

    def open(self) -> EventLog:
        """Open the log of this check: empty at first, the same one each time."""
        raise NotImplementedError("give your contract class an open() that opens your store")

    def reopen(self, store: EventLog) -> EventLog:
        """Close a log and open it again."""
        store.close()
        return self.open()

    def advance(self, seconds: float) -> None:
        """Let time pass on the clock that leases use."""
        time.sleep(seconds)

    # ------------------------------------------------ faults, for stores that can be brought into them

    def damage(self, payload: bytes) -> None:
        """Change a byte of a payload where it is stored; no log is open (F9, L12)."""
        raise SkipTest("needs damage(payload)")

    def full(self, store: EventLog) -> contextlib.AbstractContextManager[object]:
        """Have no room for what is written, as long as the context lasts (F6)."""
        raise SkipTest("needs full(store)")

    def unreadable(self, store: EventLog) -> contextlib.AbstractContextManager[object]:
        """Have every read of records fail as a broken disk does, as long as the context lasts (F8)."""
        raise SkipTest("needs unreadable(store)")

    def newer(self) -> None:
        """Mark the store as one of a newer format; no log is open (F26)."""
        raise SkipTest("needs newer()")

    # ------------------------------------------------ for the checks

    def opened(self) -> EventLog:
        """The log, which remembers what is done with it."""
        return cast("EventLog", Told(self.open(), self.done))

    def reopened(self, log: EventLog) -> EventLog:
        """The log, closed and opened again."""
        self.done.append("closed, and opened again")
        return cast("EventLog", Told(self.reopen(bare(log)), self.done))

    def needs(self, able: bool, what: str) -> None:
        """Leave the check out when the store is not able to do this."""
        if not able:
            raise SkipTest(what)

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """Give pytest the cases of each check."""
        for axis in reversed(getattr(metafunc.function, "contract_cases", [])):
            names = list(axis[0][1])
            values = [tuple(given[name] for name in names) for _, given in axis]
            metafunc.parametrize(names, values, ids=[name for name, _ in axis])


class Told:
    """A log that writes down what is called and what came of it."""

    def __init__(self, log: EventLog, done: list[str]) -> None:
        self.log = log
        self._done = done

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.log, name)
        return self._told(name, value) if callable(value) else value

    def _told(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            given = [shown(arg) for arg in args] + [f"{k}={short(v, 60)}" for k, v in options.items()]
            self._done.append(f"{name}({', '.join(given)})")
            try:
                result = method(*args, **options)
            except Exception as error:
                self._done[-1] += f" raised {type(error).__name__}"
                raise
            if name == "append":
                outcomes = ["Ok" if isinstance(each, Ok) else outcome_text(each) for each in result]
                self._done[-1] += f" gave {', '.join(outcomes)}"
            return result

        return call


def shown(given: object) -> str:
    """What a call is given, in short; of a batch as much of each write, for each has an outcome of its own."""
    whole = short(given, 300)
    items = cast("Sequence[object]", given) if isinstance(given, list | tuple) else ()
    if not 1 < len(items) < 20:
        return whole
    each = ", ".join(short(item, 4000 // max(14, len(items))) for item in items)
    return f"[{each}]" if isinstance(given, list) else f"({each})"


def outcome_text(outcome: object) -> str:
    """An outcome that is not Ok, in short."""
    return f"Rejected({outcome.reason!r})" if isinstance(outcome, Rejected) else short(outcome, 80)


def bare(log: EventLog) -> EventLog:
    """The store's own object."""
    return log.log if isinstance(log, Told) else log
