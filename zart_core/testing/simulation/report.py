"""What came of a simulated world, as a record and as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from zart_core.events import Event
from zart_core.records import record
from zart_core.testing.report import Violation, cut, plural, shortened
from zart_core.testing.simulation.faults import Fault
from zart_core.testing.witness import Key

LINES_SHOWN = 40


@record
class SimulationReport:
    """What came of one seed. Of a world in which something went wrong, the smallest that was found."""

    workflow: str
    seed: int
    workers: int
    outcomes: Mapping[str, str]
    """How each execution ended, by id: "completed: 42", "failed: ValueError: ..."; those that began it only."""
    violations: Sequence[Violation]
    struck: Sequence[tuple[int, Fault]]
    """What went wrong: the place, for `only=`, and the kind."""
    calls: Mapping[str, int]
    """How often each step took effect, by the name it has in the log."""
    situations: Mapping[str, int]
    """What happened that is rare, by name, and how often."""
    histories: Mapping[Key, Sequence[Event]]
    """The events of all there is, by execution id and run."""
    elapsed: timedelta
    """Virtual time from the beginning of the world to its end."""
    digest: str
    """Over the trace: the same for the same world."""
    trace: Sequence[str]
    """What happened, line by line."""
    code: str
    """A line that repeats it."""

    def check(self) -> None:
        """Raise AssertionError with the whole report when there are violations."""
        if self.violations:
            raise AssertionError(str(self))

    def __str__(self) -> str:
        kinds = ", ".join(f"{kind} at {place}" for place, kind in self.struck) or "nothing"
        lines = [
            f"workflow '{self.workflow}', seed {self.seed}, {plural(self.workers, 'worker')}: "
            f"{plural(len(self.violations), 'violation')}, {self.elapsed} of virtual time, digest {self.digest}",
            f"went wrong: {kinds}",
            *(f"'{id}' {shortened(outcome)}" for id, outcome in self.outcomes.items()),
        ]
        if self.violations:
            lines += ["", "violations", *(f"  {wrong.rule}: {cut(wrong.what)}" for wrong in self.violations)]
            lines += ["", "repeat it", f"  {cut(self.code)}", "", "the last of what happened"]
            lines += [f"  {line}" for line in self.trace[-LINES_SHOWN:]]
        return "\n".join(lines)
