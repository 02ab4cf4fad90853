"""A log that goes wrong when it is told to: refused appends, lost answers, a store that cannot be reached.

Rule 1: what it says is true (L3): after Rejected nothing is written, after Unknown it may be either.
Rule 2: the same script, or the same seed, does the same each time.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeAlias

from zart_core.errors import InvalidUse, StoreFailed, StoreUnavailable
from zart_core.log import Appended, EventLog, Rejected, Unknown, Write
from zart_core.testing.relay import Relay

Fault: TypeAlias = Literal["rejected", "written", "unwritten", "unavailable", "failed"]
"""rejected: the append is refused, as by a full disk. written, unwritten: its outcome is Unknown.
unavailable, failed: the call raises StoreUnavailable or StoreFailed, and does nothing."""
Script: TypeAlias = Mapping[int, Fault] | Callable[[str, int], Fault | None]
"""The fault of the n-th append, from 0; or a function of a method's name and the number of the call."""

OF_APPENDS = frozenset({"rejected", "written", "unwritten"})
EVERYWHERE = frozenset({"unavailable", "failed"})


class FaultyStore(Relay):
    """An EventLog in front of another one, which goes wrong by script.

    `faults={3: "written"}` writes the fourth append and answers Unknown; `faults=seeded(7, rejected=0.1)`
    draws lots. Raises InvalidUse for an unknown fault.
    """

    def __init__(self, log: EventLog, faults: Script | None = None) -> None:
        super().__init__(log)
        self.injected: list[tuple[str, int, Fault]] = []
        """What went wrong so far: method, its number, and the fault."""
        self._faults: Script = faults or {}
        self._counts: Counter[str] = Counter()
        self._fault: Fault | None = None

    def stop(self) -> None:
        """Let nothing go wrong from now on (I18)."""
        self._faults = {}

    def reach(self, method: str) -> None:
        """Count the call; raise what it has to raise."""
        number = self._counts[method]
        self._counts[method] += 1
        self._fault = fault = self._chosen(method, number)
        if fault is None:
            return
        self.injected.append((method, number, fault))
        if fault == "unavailable":
            raise StoreUnavailable(f"a fault was asked for: {method} number {number}")
        if fault == "failed":
            raise StoreFailed(f"a fault was asked for: {method} number {number}")

    def append(self, batch: Sequence[Write]) -> list[Appended]:
        """See EventLog, and Fault. An empty batch does not count."""
        if not batch:
            return self.log.append(batch)
        self.reach("append")
        match self._fault:
            case "rejected":
                return [Rejected("full: a fault was asked for") for _ in batch]
            case "unwritten":
                return [Unknown("a fault was asked for") for _ in batch]
            case "written":
                self.log.append(batch)
                return [Unknown("a fault was asked for") for _ in batch]
            case _:
                return self.log.append(batch)

    def _chosen(self, method: str, number: int) -> Fault | None:
        if callable(self._faults):
            fault = self._faults(method, number)
        else:
            fault = self._faults.get(number) if method == "append" else None
        known = OF_APPENDS | EVERYWHERE if method == "append" else EVERYWHERE
        if fault is not None and fault not in known:
            raise InvalidUse(f"a fault of {method} is one of {', '.join(sorted(known))}, not {fault!r}")
        return fault


def seeded(
    seed: int,
    *,
    rejected: float = 0.0,
    written: float = 0.0,
    unwritten: float = 0.0,
    unavailable: float = 0.0,
) -> Callable[[str, int], Fault | None]:
    """Draw lots: each probability is that of one fault, for each append; `unavailable` is for every call.

    Raises InvalidUse for probabilities that are none.
    """
    chances: dict[Fault, float] = {"rejected": rejected, "written": written, "unwritten": unwritten}
    if not (min(*chances.values(), unavailable) >= 0 and sum(chances.values()) + unavailable <= 1):  # nor NaN
        raise InvalidUse(
            f"probabilities lie between 0 and 1, their sum too: {chances}, unavailable={unavailable}"
        )
    lots = random.Random(seed)  # noqa: S311  # for tests, the same each time

    def draw(method: str, _: int) -> Fault | None:
        left = lots.random() - unavailable
        if left < 0:
            return "unavailable"
        if method == "append":
            for fault, chance in chances.items():
                left -= chance
                if left < 0:
                    return fault
        return None

    return draw
