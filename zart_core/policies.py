"""Policies: how often a step is tried, how long things may take.

Rule 1: durations are seconds inside; users give a `timedelta`, a number of seconds, or text such as "30s".
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import timedelta
from enum import Enum
from typing import TypeAlias, cast

import attrs

from zart_core.errors import InvalidUse
from zart_core.records import record

Duration: TypeAlias = timedelta | float | str

LONGEST_S = 1e12
"""Some thirty thousand years: what is longer is a mistake."""
LONGEST_DELAY_S = 1e9
"""Some thirty years: a delay that doubles grows no further."""
UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def seconds(duration: Duration, what: str = "duration") -> float:
    """A duration in seconds: a timedelta, a number of seconds, or "250ms", "30s", "5m", "2h", "3d", "1h30m".

    Raises InvalidUse for anything else, for negative durations and for ones that are not finite.
    """
    match duration:
        case timedelta():
            value = duration.total_seconds()
        case bool():
            raise InvalidUse(f"{what} is {duration!r}; give a timedelta, seconds, or text such as '30s'")
        case int() | float():
            value = float(duration) if abs(duration) < LONGEST_S else math.inf
        case str():
            value = text_seconds(duration, what)
        case _:
            raise InvalidUse(f"{what} is {duration!r}; give a timedelta, seconds, or text such as '30s'")
    if not 0 <= value < LONGEST_S:
        raise InvalidUse(f"{what} is {duration!r}; it must be finite and not negative")
    return value


def text_seconds(text: str, what: str) -> float:
    """Seconds of a text such as "1h30m"; raises InvalidUse."""
    compact = text.replace(" ", "")
    parts = DURATION.findall(compact)
    if not parts or "".join(number + unit for number, unit in parts) != compact:
        raise InvalidUse(f"{what} {text!r} is no duration; write '250ms', '30s', '5m', '2h', '3d' or '1h30m'")
    return sum(float(number) * UNITS_S[unit] for number, unit in parts)


class TimeoutScope(Enum):
    """What a step's timeout covers (R7)."""

    GLOBAL = "global"
    """From the start of the first attempt, all retries and waits between them included, across restarts."""
    PER_ATTEMPT = "per_attempt"
    """A fresh countdown for each attempt."""


ErrorTypes: TypeAlias = tuple[type[Exception], ...]


@record
class Retry:
    """How often and how fast a failed step is tried again (R4). Use `none`, `fixed` or `exponential`."""

    retries_max: int = 0
    """Attempts after the first one."""
    initial_s: float = 0.0
    factor: float = 1.0
    delay_max_s: float = math.inf
    jitter: float = 0.0
    """A share of the delay, from 0 to 1, by which it is shortened at random."""
    on: ErrorTypes = ()
    """Errors that are retried although `raises=` declares them; when given, only these are retried."""
    give_up_on: ErrorTypes = ()
    """Errors that are not retried."""
    on_timeout: bool = False
    """Whether a PER_ATTEMPT timeout is a failed attempt."""

    @staticmethod
    def none() -> Retry:
        """One attempt and no retry."""
        return Retry()

    @staticmethod
    def fixed(
        retries: int,
        delay: Duration,
        *,
        jitter: float = 0.0,
        on: ErrorTypes = (),
        give_up_on: ErrorTypes = (),
        on_timeout: bool = False,
    ) -> Retry:
        """`retries` retries after the first attempt, `delay` apart. Raises InvalidUse."""
        return checked(
            Retry(retries, seconds(delay, "delay"), 1.0, math.inf, jitter, on, give_up_on, on_timeout)
        )

    @staticmethod
    def exponential(
        retries: int,
        initial: Duration,
        *,
        factor: float = 2.0,
        max_delay: Duration | None = None,
        jitter: float = 0.0,
        on: ErrorTypes = (),
        give_up_on: ErrorTypes = (),
        on_timeout: bool = False,
    ) -> Retry:
        """Retry k waits min(max_delay, initial * factor**(k-1)): 1 s, 2 s, 4 s. Raises InvalidUse."""
        cap = math.inf if max_delay is None else seconds(max_delay, "max_delay")
        return checked(
            Retry(retries, seconds(initial, "initial"), factor, cap, jitter, on, give_up_on, on_timeout)
        )

    def delay_s(self, retry: int, random: float = 0.0) -> float:
        """Seconds before retry number `retry` (1 is the first), LONGEST_DELAY_S at the most.

        `random` in [0, 1) is what jitter draws on.
        """
        try:
            full = self.initial_s * self.factor ** (retry - 1) if self.initial_s else 0.0
        except OverflowError:
            full = math.inf
        return min(self.delay_max_s, full, LONGEST_DELAY_S) * (1.0 - self.jitter * random)

    def retries(self, error: BaseException, declared: ErrorTypes) -> bool:
        """Whether the policy tries again after `error`, attempts left aside (R4)."""
        if isinstance(error, self.give_up_on):
            return False
        if self.on:
            return isinstance(error, self.on)
        return not isinstance(error, declared)


def checked(retry: Retry) -> Retry:
    """The same policy, or InvalidUse that says what is wrong with it."""
    if isinstance(retry.retries_max, bool) or not isinstance(retry.retries_max, int) or retry.retries_max < 0:
        raise InvalidUse(
            f"retries is {retry.retries_max!r}; it counts retries after the first attempt: 0, 1, 2, ..."
        )
    if not 0.0 <= retry.jitter <= 1.0:
        raise InvalidUse(f"jitter is {retry.jitter!r}; it is a share of the delay, from 0 to 1")
    if not (math.isfinite(retry.factor) and retry.factor > 0):
        raise InvalidUse(f"factor is {retry.factor!r}; it must be a positive number")
    cap = retry.delay_max_s
    return attrs.evolve(
        retry,
        initial_s=seconds(retry.initial_s, "initial_s"),
        delay_max_s=cap if cap == math.inf else seconds(cap, "delay_max_s"),
        on=error_types(retry.on, "on"),
        give_up_on=error_types(retry.give_up_on, "give_up_on"),
    )


def error_types(given: object, what: str) -> ErrorTypes:
    """A tuple of exception classes out of one or several; raises InvalidUse."""
    items = cast("Iterable[object]", given) if isinstance(given, tuple | list | set) else (given,)
    return tuple(error_type(item, what) for item in items)


def error_type(item: object, what: str) -> type[Exception]:
    """The item, if it is an exception class; raises InvalidUse."""
    if isinstance(item, type) and issubclass(item, Exception):
        return item
    raise InvalidUse(f"{what}= takes exception classes such as (ValueError,); {item!r} is none")
