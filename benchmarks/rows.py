"""The rows of the table: what is measured, how it is said, and what it should be."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Literal, TypeAlias

import attrs

from benchmarks import finished, growth, speed, suspended
from benchmarks.measuring import Sample
from benchmarks.stage import Stage

Measure: TypeAlias = Callable[..., Iterable[Sample]]

STORES = {"sqlite": "SQLite", "file": "file", "postgresql": "PostgreSQL", "memory": "memory"}
SAME_ROWS = "commits the same, a turn at a time"
IN_GROUPS = "writes the same, 100 turns in a commit"
GENERATOR = "drives the same generator by `next` and `send`"
MEMORY_TIMES = 74
"""Sequential steps in memory: 10,000 a second on the machine of the first measurement, where the bare loop took
1.35 µs for each step."""


@attrs.frozen
class Row:
    """A ratio. `times`: our seconds over the bare loop's, less is better; `share`: of the bare loop's rate."""

    name: str
    title: str
    unit: str
    ratio: Literal["times", "share"]
    budget: float | None
    """At most so many times, at least this share; None where nothing was promised."""
    measure: Callable[[Stage], Iterable[Sample]]
    bare: str
    """What the bare loop does."""

    def result(self, stage: Stage) -> Result:
        """Measure it."""
        samples = list(self.measure(stage))
        times = self.ratio == "times"
        ours, bare, cpu = (
            statistics.median(getattr(one, field) / one.units for one in samples) * 1e6
            for field in ("ours_s", "bare_s", "cpu_s")
        )
        return Result(
            self.name,
            self.title,
            [one.ours_s / one.bare_s if times else one.bare_s / one.ours_s for one in samples],
            "times the bare loop" if times else "of the bare rate",
            self.budget,
            at_most=times,
            detail=f"{duration(ours)} for each {self.unit}{f' ({duration(cpu)} of CPU)' if cpu else ''}; "
            f"bare {duration(bare)}",
        )


@attrs.frozen
class Figure:
    """A figure that stands by itself: a slope, a size, a time that users wait."""

    name: str
    title: str
    unit: str
    budget: float | None
    measure: Callable[[Stage], Iterable[tuple[float, str]]]
    """Gives the figure of each round, and what to say beside it."""

    def result(self, stage: Stage) -> Result:
        """Measure it."""
        found = list(self.measure(stage))
        return Result(
            self.name, self.title, [value for value, _ in found], self.unit, self.budget, True, found[-1][1]
        )


@attrs.frozen
class Result:
    """What a row came to."""

    name: str
    title: str
    values: Sequence[float]
    """One for each round."""
    unit: str
    budget: float | None
    at_most: bool
    """Whether the budget is an upper bound."""
    detail: str

    @property
    def value(self) -> float:
        """The median."""
        return statistics.median(self.values)

    @property
    def headrooms(self) -> Sequence[float]:
        """For each round, how many times better than the budget; below 1 it is not met. Empty without a budget."""
        if self.budget is None:
            return []
        return [self.budget / value if self.at_most else value / self.budget for value in self.values]

    @property
    def met(self) -> bool | None:
        """Whether the median is within the budget."""
        return statistics.median(self.headrooms) >= 1 if self.headrooms else None


def duration(us: float) -> str:
    """Microseconds as people read them."""
    if us < 100:
        return f"{us:.3g} µs"
    return f"{us:.0f} µs" if us < 1000 else f"{us / 1000:.3g} ms"


def figure(value: float) -> str:
    """A number with three digits that count."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def each(
    name: str,
    title: str,
    unit: str,
    ratio: Literal["times", "share"],
    measure: Measure,
    bare: str,
    budgets: Mapping[str, float | None],
) -> list[Row]:
    """A row for each store that has a budget, or none."""
    return [
        Row(
            f"{name}-{store}",
            f"{title}, {STORES[store]}",
            unit,
            ratio,
            budget,
            partial(measure, name=store),
            bare,
        )
        for store, budget in budgets.items()
    ]


def by_size(n: int) -> Measure:
    """The fan-out of n steps."""
    return partial(speed.fan_out, n=n)


SLOPE = 1.1
GROWTHS: Sequence[tuple[str, str, Callable[..., Iterable[tuple[float, str]]]]] = (
    ("sequential", "sequential steps", growth.sequential),
    ("fan", "fan-out and fan-in", growth.fan_out),
    ("replay", "replay", growth.replay),
)
ROWS: Sequence[Row | Figure] = (
    Row("replay", "replay of decoded events", "step", "times", 5, speed.replay_decoded, GENERATOR),
    *each(
        "replay",
        "replay of 10,000 steps",
        "step",
        "times",
        speed.replay_stored,
        GENERATOR,
        {"sqlite": 10, "file": 10, "postgresql": None},
    ),
    *each(
        "sequential",
        "sequential steps",
        "step",
        "share",
        speed.sequential,
        SAME_ROWS,
        {"sqlite": 0.6, "file": 0.6, "postgresql": 0.7},
    ),
    Row(
        "sequential-memory",
        "sequential steps, memory",
        "step",
        "times",
        MEMORY_TIMES,
        speed.sequential_memory,
        GENERATOR,
    ),
    *each(
        "many",
        "500 workflows of 5 steps at once",
        "step",
        "share",
        speed.many_at_once,
        IN_GROUPS,
        {"sqlite": 0.35, "postgresql": 0.35},
    ),
    *each(
        "fan-1000",
        "fan-out and fan-in of 1,000 steps",
        "step",
        "share",
        by_size(1000),
        IN_GROUPS,
        {"sqlite": 0.35, "postgresql": 0.35},
    ),
    *each(
        "fan-10000",
        "fan-out and fan-in of 10,000 steps",
        "step",
        "share",
        by_size(10_000),
        IN_GROUPS,
        {"sqlite": 0.35, "postgresql": 0.35},
    ),
    *each(
        "start",
        "start to result of a one-step workflow",
        "execution",
        "times",
        speed.start_to_result,
        "makes three commits",
        {"sqlite": 2, "postgresql": 2},
    ),
    *each(
        "event",
        "event delivered to workflow finished",
        "execution",
        "times",
        speed.event_to_finish,
        "makes two commits",
        {"sqlite": 2, "postgresql": 2},
    ),
    Figure(
        "suspended", "suspended executions while alive, SQLite", "bytes each", 4096, suspended.bytes_alive
    ),
    Figure(
        "suspended-beyond",
        "suspended executions beyond max_live, SQLite",
        "bytes each",
        None,
        suspended.bytes_beyond,
    ),
    *(
        Figure(
            f"ready-{store}",
            f"10,000 suspended ready after a kill, {STORES[store]}",
            "s",
            5,
            partial(suspended.ready, name=store),
        )
        for store in ("sqlite", "file")
    ),
    Figure("growth", "growth of a live run, 100 to 10,000 steps", "slope", SLOPE, growth.live),
    *(
        Figure(
            f"growth-{what}-{store}",
            f"growth of {title}, 100 to 10,000, {STORES[store]}",
            "slope",
            SLOPE,
            partial(measure, name=store),
        )
        for what, title, measure in GROWTHS
        for store in ("sqlite", "postgresql")
    ),
    *(
        Figure(
            f"finished-{store}",
            f"claim, list, start among 1,000,000 finished, {STORES[store]}",
            "times as long as among 1,000",
            2,
            partial(finished.growth, name=store),
        )
        for store in ("sqlite", "postgresql")
    ),
)
