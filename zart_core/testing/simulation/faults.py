"""What may go wrong in a simulated world, how often, and when it does.

Rule 1: every fault has its place: the call of the store, the attempt or the delivery, counted over the whole world,
        at which it strikes. So a fault can be left out, and a run be repeated with some of its faults only.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from typing import Literal, TypeAlias

from zart_core.errors import InvalidUse
from zart_core.records import record

OfCall: TypeAlias = Literal[
    "death",
    "kill",
    "lost_answer",
    "lost_request",
    "unavailable",
    "failed",
    "full",
    "slow",
    "pause",
    "jump",
    "hand_over",
    "redeploy",
    "bad_deploy",
]
OfStep: TypeAlias = Literal["step_death", "slow_step"]
OfSend: TypeAlias = Literal["duplicate", "late"]
Fault: TypeAlias = Literal[OfCall, OfStep, OfSend]


@record
class Faults:
    """How likely each fault is, from 0 to 1, at each opportunity; and when they stop (I18).

    Opportunities of the first group are calls of the store, of the second attempts, of the third deliveries.
    """

    death: float = 0.0
    """The worker's process dies, just before or just after the call."""
    kill: float = 0.0
    """The worker's process dies a few callbacks of its event loop later: at any await."""
    lost_answer: float = 0.0
    """The append is made, and its outcome is Unknown; a read raises StoreUnavailable."""
    lost_request: float = 0.0
    """The append is not made, and its outcome is Unknown; a read raises StoreUnavailable."""
    unavailable: float = 0.0
    """The store cannot be reached: the call raises StoreUnavailable."""
    failed: float = 0.0
    """The store fails for this worker, whose process is then started anew (F5)."""
    full: float = 0.0
    """For a while every append is refused, as by a full disk (F6)."""
    slow: float = 0.0
    """The call takes up to a minute: longer than a lease (F24)."""
    pause: float = 0.0
    """The worker's process stands still for up to a minute, and goes on as if nothing had been (F15)."""
    jump: float = 0.0
    """The worker's clock jumps by up to twenty seconds, forward or back (F13)."""
    hand_over: float = 0.0
    """The worker closes in order, and is started anew."""
    redeploy: float = 0.0
    """The workflows are registered anew while everything runs."""
    bad_deploy: float = 0.0
    """Code that fits no history is registered, and a while later the right code anew: executions are parked (R20)."""
    step_death: float = 0.0
    """The worker's process dies in an attempt, before or after its effect."""
    slow_step: float = 0.0
    """The attempt takes up to a minute."""
    duplicate: float = 0.0
    """A message is delivered twice, by two workers at once (F14)."""
    late: float = 0.0
    """A message is under way for a while."""
    most: int = 12
    """How many faults there are at the most."""
    span_s: float = 90.0
    """After how many virtual seconds there are none any more."""

    @staticmethod
    def none() -> Faults:
        """Nothing goes wrong."""
        return Faults(most=0)

    @staticmethod
    def drawn(seed: int) -> Faults:
        """Rates of the seed's own: about half of the kinds are left out, others are rare or frequent."""
        lots = random.Random(f"rates of {seed}")  # noqa: S311  # for tests, the same each time
        rates: dict[str, float] = {
            kind: 0.15 * lots.random() ** 3 if lots.random() < 0.5 else 0.0 for kind in OF_CALL
        }
        for kind in (*OF_STEP, *OF_SEND):
            rates[kind] = 0.4 * lots.random() ** 2 if lots.random() < 0.4 else 0.0
        return Faults(**rates, most=1 + int(8 * lots.random() ** 2))


OF_CALL: tuple[Fault, ...] = (
    "death",
    "kill",
    "lost_answer",
    "lost_request",
    "unavailable",
    "failed",
    "full",
    "slow",
    "pause",
    "jump",
    "hand_over",
    "redeploy",
    "bad_deploy",
)
OF_STEP: tuple[Fault, ...] = ("step_death", "slow_step")
OF_SEND: tuple[Fault, ...] = ("duplicate", "late")
KINDS: tuple[Fault, ...] = (*OF_CALL, *OF_STEP, *OF_SEND)


class Fate:
    """Decides what goes wrong. Raises InvalidUse for rates that are none."""

    def __init__(self, faults: Faults, seed: int, only: Collection[int] | None = None) -> None:
        check(faults)
        self.faults = faults
        self.only = only
        """Places of faults that strike; None for all that are drawn."""
        self.lots = random.Random(f"faults of {seed}")  # noqa: S311  # for tests, the same each time
        self.struck: list[tuple[int, Fault]] = []
        """What went wrong so far: place and kind."""
        self.stopped = False
        self.places = 0
        self._tables: dict[tuple[Fault, ...], list[tuple[Fault, float]]] = {
            group: [(kind, rate) for kind in group if (rate := getattr(faults, kind)) > 0.0]
            for group in (OF_CALL, OF_STEP, OF_SEND)
        }

    def strike(self, group: tuple[Fault, ...], now: float) -> Fault | None:
        """What goes wrong at the next place, if anything does."""
        place = self.places
        self.places += 1
        if self.stopped:
            return None
        if len(self.struck) >= self.faults.most or now > self.faults.span_s:
            self.stopped = True
            return None
        left = self.lots.random()
        for kind, rate in self._tables[group]:
            left -= rate
            if left < 0:
                if self.only is not None and place not in self.only:
                    return None
                self.struck.append((place, kind))
                return kind
        return None


def check(faults: Faults) -> None:
    """Raise InvalidUse for rates that are none."""
    for group in (OF_CALL, OF_STEP, OF_SEND):
        rates = {kind: getattr(faults, kind) for kind in group}
        if not (min(rates.values()) >= 0 and sum(rates.values()) <= 1):  # so that NaN is refused
            told = ", ".join(f"{kind}={rate}" for kind, rate in rates.items() if rate)
            raise InvalidUse(f"rates of faults lie between 0 and 1, their sum too, not {told}")
    if not (faults.most >= 0 and faults.span_s >= 0):
        raise InvalidUse(f"most= and span_s= are 0 or more, not {faults.most} and {faults.span_s}")
