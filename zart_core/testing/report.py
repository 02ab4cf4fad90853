"""What a crash exploration found out, as a record and as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from zart_core.records import record
from zart_core.steps import StepFunction
from zart_core.testing.witness import Played, Schedule

OUTCOME_CHARS_MAX = 90
VIOLATIONS_SHOWN_MAX = 20
LINE_CHARS_MAX = 4000
"""What is longer in a line of a report is cut: inputs and results may be a MiB long. Records have the whole of it."""


@record
class Violation:
    """A rule that did not hold in one run."""

    rule: str
    """Its number: I1 to I18, or R; "ensure" for what the tester promises, "points" for those never reached."""
    what: str
    """What is wrong, in words."""
    schedule: Schedule
    """Where the host died."""
    code: str
    """A test that repeats it; `steps=steps` and its like stand for what was given by that name."""

    def __str__(self) -> str:
        """What is wrong, and the test without its imports."""
        lines = [
            line for line in self.code.splitlines() if line and not line.startswith(("from ", "import "))
        ]
        return "\n    ".join(map(cut, [f"{self.rule}: {self.what}", *lines]))


@record
class CrashReport:
    """What came of crashing a workflow at every point."""

    workflow: str
    depth: int
    """The greatest number of crashes in one run."""
    runs: Sequence[Played]
    """Every run; the first is the crash-free one."""
    violations: Sequence[Violation]
    notes: Sequence[str]
    """What to know about the exploration itself."""

    @property
    def outcomes(self) -> frozenset[str]:
        """How the runs ended: "completed: 42", "failed: ValueError: ..."; the raw ones are in `runs`."""
        return frozenset(played.outcome for played in self.runs)

    def executions_of(self, step: str | StepFunction[..., Any]) -> tuple[int, int]:
        """How often a step was called in a run, retries included: (least, most).

        A step function with a template stands for all its names, each by itself; (0, 0): never called.
        """
        if isinstance(step, str):
            names = {step}
        else:
            called = (call for played in self.runs for call in played.calls)
            names = {call.name for call in called if call.function is step.origin}
        counts = [played.counts[name] for played in self.runs for name in names]
        return (min(counts), max(counts)) if counts else (0, 0)

    @property
    def repeated(self) -> frozenset[str]:
        """Names of steps that did the same attempt twice in some run: their effects must be idempotent."""
        return frozenset(name for played in self.runs for name in repeated_in(played))

    def check(self) -> None:
        """Raise AssertionError with the whole report when there are violations."""
        if self.violations:
            raise AssertionError(str(self))

    def __str__(self) -> str:
        crashed = sum(bool(played.deaths) for played in self.runs)
        lines = [
            f"workflow '{self.workflow}': {plural(len(self.runs), 'run')}, {crashed} with crashes "
            f"(depth {self.depth}), {plural(len(self.outcomes), 'outcome')}, "
            f"{plural(len(self.violations), 'violation')}",
            *(f"note: {note}" for note in self.notes),
            "",
            *self._steps(),
            "",
            *self._outcomes(),
        ]
        return "\n".join([*lines, *listed(self.violations)])

    def _steps(self) -> list[str]:
        names = list(dict.fromkeys(call.name for played in self.runs for call in played.calls))
        width = max([4, *map(len, names)])
        repeated = self.repeated
        rows = [f"{'step':{width}}  least  most  "]
        for name in names:
            least, most = self.executions_of(name)
            told = "repeated: must be idempotent" if name in repeated else ""
            rows.append(f"{name:{width}}  {least:5}  {most:4}  {told}")
        return [row.rstrip() for row in rows]

    def _outcomes(self) -> list[str]:
        counts = Counter(played.outcome for played in self.runs)
        return [
            "runs  outcome",
            *(f"{count:4}  {shortened(outcome)}" for outcome, count in counts.most_common()),
        ]


def listed(violations: Sequence[Violation]) -> list[str]:
    """The lines of a report on what is wrong; none when nothing is."""
    if not violations:
        return []
    shown = [f"  {violation}" for violation in violations[:VIOLATIONS_SHOWN_MAX]]
    left = len(violations) - len(shown)
    return ["", "violations", *shown, *([f"  and {left} more"] if left else [])]


def repeated_in(played: Played) -> list[str]:
    """Find the steps that did the same attempt twice."""
    counts = Counter((call.id, call.run, call.name, call.attempt) for call in played.calls)
    return [name for (_, _, name, _), count in counts.items() if count > 1]


def cut(text: str) -> str:
    """Leave out what is too long for a report."""
    return (
        text
        if len(text) <= LINE_CHARS_MAX
        else f"{text[:LINE_CHARS_MAX]}... ({len(text):,} characters in all)"
    )


def shortened(text: str) -> str:
    """Cut the text to what fits in a table."""
    line = " ".join(text.split())
    return line if len(line) <= OUTCOME_CHARS_MAX else f"{line[: OUTCOME_CHARS_MAX - 3]}..."


def plural(count: int, noun: str, nouns: str = "") -> str:
    """Count things, in English."""
    return f"{count:,} {noun if count == 1 else nouns or f'{noun}s'}"
