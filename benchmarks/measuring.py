"""What a measurement gives, and how large it is."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import attrs

ROUND_MIN_S = 0.5
"""What is over sooner is done again in the same round: a tenth of a second is fast or slow by chance."""


@attrs.frozen
class Sample:
    """One round: the thing itself, and the bare loop right beside it."""

    ours_s: float
    bare_s: float
    units: int
    """How many steps, commits or executions each side did."""
    cpu_s: float = 0.0
    """CPU time of this process, all its threads, in `ours_s`; it depends less on who else is on the machine."""


@attrs.frozen
class Sizes:
    """How much is measured: rounds, and the share of each row's own size."""

    rounds: int = 5
    share: float = 1.0

    def of(self, n: int, least: int = 1) -> int:
        """The size to use in place of n."""
        return max(least, round(n * self.share))


@attrs.define
class Watch:
    """What a timed block took, in seconds."""

    wall_s: float = 0.0
    cpu_s: float = 0.0


@contextmanager
def timing() -> Iterator[Watch]:
    """Time a block, after a collection of what was before it."""
    gc.collect()
    watch = Watch()
    wall, cpu = time.perf_counter(), time.process_time()
    yield watch
    watch.wall_s, watch.cpu_s = time.perf_counter() - wall, time.process_time() - cpu


def timed(call: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def cpu_timed(call: Callable[[], object]) -> float:
    """Seconds of CPU time that a call takes, in all threads of this process."""
    start = time.process_time()
    call()
    return time.process_time() - start


def beside(
    sizes: Sizes, units: int, ours: Callable[[], Watch], bare: Callable[[], float]
) -> Iterable[Sample]:
    """Rounds of both, the bare loop after the thing itself; in turns within a round as long as both are short."""
    for _ in range(sizes.rounds):
        ours_s = bare_s = cpu_s = 0.0
        times = 0
        while ours_s < sizes.share * ROUND_MIN_S:
            watch = ours()
            ours_s, cpu_s, bare_s = ours_s + watch.wall_s, cpu_s + watch.cpu_s, bare_s + bare()
            times += 1
        yield Sample(ours_s, bare_s, units * times, cpu_s)
