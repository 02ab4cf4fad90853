"""Would a new version of a workflow take over every run of the old one, wherever it stands?

Rule 1: it needs no production history: the old code is explored, each history is cut wherever a run may stand, and the
        new code goes on from there.
Rule 2: a cut fits when the new code replays it and then goes on without being parked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import attrs

from zart_core.codec import Codec
from zart_core.deploys.checking import judge
from zart_core.deploys.exploring import ARRIVING, Course, Explored, Setting, explore, go_on
from zart_core.errors import Defect, InvalidUse
from zart_core.events import Closed, Event, Issued, Site, Started, Status
from zart_core.hosts.turns import MISBEHAVIOUR
from zart_core.interpreter import CODEC, Execution, replay
from zart_core.log import New, Summary
from zart_core.records import record
from zart_core.testing.runner import Steps
from zart_core.testing.world import Ending, Sending, place_of
from zart_core.wording import described
from zart_core.workflows import Workflow

CutKind: TypeAlias = Literal[
    "fits",
    "diverges",  # the new code asks for something else than is recorded
    "ends early",  # the new code is through while the history goes on
    "unreadable",  # a recorded payload no longer decodes
    "parks",  # the new code is wrong here, or is parked later on
]
RUNS_MAX = 200
SHOWN_MAX = 12


@record
class Cut:
    """A run of the old code, stopped after an event, and what the new code makes of it."""

    history: str
    """Which of the explored histories: what went wrong in it."""
    input: Any
    after: int
    """How many events there were."""
    last: str
    """The last of them, in words."""
    kind: CutKind
    then: str = ""
    """How it ended when the new code went on: a status, with the error that failed it; empty where it did not."""
    message: str = ""
    recorded: str = ""
    yielded: str = ""
    recorded_site: Site | None = None
    yielded_site: Site | None = None
    nearest: str = ""
    markers: Mapping[str, int] = attrs.field(factory=dict[str, int])
    """What each version marker of the new code answered on the way, by name."""


@record
class Marker:
    """What a version marker of the new code did over all cuts."""

    name: str
    answers: Mapping[int, int]
    """At how many cuts it gave which answer."""
    needed: bool | None
    """Whether a cut would no longer fit had every run got the new answer; None where no run got it to compare."""


@record
class UpgradeReport:
    """What the new code makes of every place where a run of the old code may stand."""

    old: str
    new: str
    cuts: Sequence[Cut]
    markers: Sequence[Marker]
    histories: int
    """How many different ones the old code was found to have."""
    complete: bool
    """False when `runs_max` cut the search short, or there are more orders of arrival than that."""

    @property
    def fits(self) -> bool:
        """Whether every run would go on."""
        return all(cut.kind == "fits" for cut in self.cuts)

    @property
    def counts(self) -> Mapping[CutKind, int]:
        """How many cuts of each kind."""
        return Counter(cut.kind for cut in self.cuts)

    @property
    def misfits(self) -> Sequence[Cut]:
        """The cuts at which a run would be parked."""
        return [cut for cut in self.cuts if cut.kind != "fits"]

    def check(self) -> None:
        """Raise AssertionError, with the table, unless every cut fits."""
        if not self.fits:
            raise AssertionError(str(self))

    def __str__(self) -> str:
        return "\n".join(table_of(self))


def check_upgrade(
    old: Workflow[Any, Any],
    new: Workflow[Any, Any],
    *,
    inputs: Sequence[Any] = (None,),
    steps: Steps | Callable[[], Steps] | None = None,
    events: Sequence[Sending] = (),
    resources: Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None = None,
    strict: bool = True,
    codec: Codec | None = None,
    runs_max: int = RUNS_MAX,
) -> UpgradeReport:
    """Explore the old code, cut each history wherever a run may stand, and go on with the new code from there.

    Args:
        old: the version that runs.
        new: the one that is to take over; it has the same name.
        inputs: what it is started with, one after the other.
        steps: as for `run`. Beside what they say, each step fails once with each error that it declares and with one
            that it does not.
        events: as for `run`. Each event is left out once, too.
        resources: as for `run`.
        strict: arguments and durations must be those on record (R21).
        codec: in place of a plain one.
        runs_max: how many runs of the old code at the most, and in how many orders things may arrive in each input's.

    Costs O(n^2) in the events of each history. Raises InvalidUse for two names, and the defect of old code that parks.
    """
    if old.name != new.name:
        raise InvalidUse(
            f"'{old.name}' and '{new.name}' are two workflows; a new version has the name of the old one"
        )
    setting = Setting(steps, tuple(events), resources, codec or CODEC)
    explored, cut_short = explore(old, tuple(inputs), setting, runs_max)
    upgrade = Upgrade(old, new, setting, strict)
    cuts = [cut for one in explored for cut in upgrade.cuts_of(one)]
    return UpgradeReport(
        old.name, new.name, cuts, upgrade.markers(cuts), histories=len(explored), complete=not cut_short
    )


class Upgrade:
    """Two versions of a workflow, and the histories of the old one cut for the new one."""

    def __init__(
        self, old: Workflow[Any, Any], new: Workflow[Any, Any], setting: Setting, strict: bool
    ) -> None:
        self.old = old
        self.new = new
        self.setting = setting
        self.strict = strict
        self.recorded: dict[str, int] = {}
        """What new runs have on record for each marker."""
        self.fitting: list[tuple[Sequence[Event], Mapping[str, int]]] = []
        """Prefixes that fit, with the answers of the markers that are not in them."""

    def cuts_of(self, explored: Explored) -> Iterator[Cut]:
        """Every place of one history where a run may stand."""
        history, course = explored.history, explored.course
        for after in places(self.old, history, self.setting.codec):
            prefix = history[:after]
            found = Cut(course.what, course.input, after, described(prefix[-1]), "fits")
            verdict = judge(summary_of(prefix), prefix, self.new_one, self.strict, self.setting.codec)
            if verdict.fits:
                yield self.gone_on(found, course, prefix) if explored.run == 0 else found
                continue
            kinds: dict[str, CutKind] = {"diverges": "diverges", "unreadable": "unreadable"}
            ends = verdict.yielded.startswith("the end of the run")
            yield attrs.evolve(
                found,
                kind="ends early" if ends else kinds.get(verdict.kind, "parks"),
                message=verdict.message,
                recorded=verdict.recorded,
                yielded=verdict.yielded,
                recorded_site=verdict.recorded_site,
                yielded_site=verdict.yielded_site,
                nearest=verdict.nearest,
            )

    def new_one(self, _: Started) -> Workflow[Any, Any]:
        """The new code, whatever version a run began with."""
        return self.new

    def gone_on(self, cut: Cut, course: Course, prefix: Sequence[Event]) -> Cut:
        """The new code goes on from a prefix that it fits."""
        first = prefix[0]
        assert isinstance(first, Started)
        codec = self.setting.codec
        log = place_of(None).open()
        # A host takes the version that is on record.
        renumbered = attrs.evolve(first, version=self.new.version)
        records = codec.encode_events([renumbered, *prefix[1:]], first.id)
        digest = codec.digest(first.workflow, first.payload)
        log.append([New(first.id, first.workflow, digest, records, first.at, Status.WAITING)])
        ending, history = go_on(self.new, course, self.setting, log, prefix)
        if isinstance(ending.error, Defect):
            return attrs.evolve(cut, kind="parks", message=f"{type(ending.error).__name__}: {ending.error}")
        answers = answers_of(self.new, history, codec)
        recorded = markers_in(prefix)
        self.recorded |= {name: answers[name] for name in markers_in(history) - recorded}
        self.fitting.append((prefix, {name: n for name, n in answers.items() if name not in recorded}))
        return attrs.evolve(cut, then=words_of(ending), markers=answers)

    def markers(self, cuts: Sequence[Cut]) -> list[Marker]:
        """What each marker of the new code did, and whether it is needed."""
        names = dict.fromkeys(name for cut in cuts for name in cut.markers)
        return [
            Marker(
                name, Counter(cut.markers[name] for cut in cuts if name in cut.markers), self.is_needed(name)
            )
            for name in names
        ]

    def is_needed(self, name: str) -> bool | None:
        """Whether some prefix that was answered 1 would diverge with the answer that new runs get."""
        current = self.recorded.get(name)
        if current is None:
            return None
        old = [prefix for prefix, answers in self.fitting if answers.get(name, current) != current]
        return any(not self.fits_with(prefix, name, current) for prefix in old)

    def fits_with(self, prefix: Sequence[Event], name: str, number: int) -> bool:
        """Whether the new code fits a prefix when a marker is made to give this answer."""
        execution = Execution(self.new, codec=self.setting.codec, strict=self.strict)
        execution.suppose_version(name, number)
        try:
            for event in prefix:
                execution.apply(event)
            execution.check_answered()
        except MISBEHAVIOUR:
            return False
        finally:
            execution.close()
        return True


def places(workflow: Workflow[Any, Any], history: Sequence[Event], codec: Codec) -> list[int]:
    """After how many events a run may stand still: every fact has its answer, and nothing is to be captured."""
    found: list[int] = []
    execution = Execution(workflow, codec=codec)
    try:
        for n, event in enumerate(history, 1):
            execution.apply(event)
            captures = any(issued.kind == "capture" for issued in execution.pending.values())
            if isinstance(event, Closed):
                break
            if n == 1 or not (execution.decide() or captures):
                found.append(n)
    finally:
        execution.close()
    return found


def answers_of(workflow: Workflow[Any, Any], history: Sequence[Event], codec: Codec) -> dict[str, int]:
    """The answers of all version markers in a history."""
    execution = replay(workflow, history, codec=codec)
    try:
        return dict(execution.versions)
    finally:
        execution.close()


def markers_in(events: Sequence[Event]) -> set[str]:
    """The names of the version markers that are on record."""
    return {event.name for event in events if isinstance(event, Issued) and event.kind == "version"}


def summary_of(prefix: Sequence[Event]) -> Summary:
    """What a list would show of it."""
    first = prefix[0]
    assert isinstance(first, Started)
    return Summary(
        first.id,
        first.workflow,
        "",
        Status.WAITING,
        first.run,
        len(prefix),
        0,
        first.at,
        first.at,
        None,
        None,
    )


def words_of(ending: Ending) -> str:
    """How an execution ended, without its values."""
    failure = None if ending.closed is None else ending.closed.failure
    return str(ending.status) if failure is None else f"{ending.status}: {failure.type.rsplit('.', 1)[-1]}"


# ---------------------------------------------------------------- the table


def table_of(report: UpgradeReport) -> list[str]:
    """The report for people: counts for each history, what does not fit and why, and the markers."""
    kinds: list[CutKind] = ["fits", "diverges", "ends early", "unreadable", "parks"]
    shown = [kind for kind in kinds if kind == "fits" or report.counts.get(kind)]
    rows = [("history", "cuts", *shown)]
    courses = dict.fromkeys(map(course_of, report.cuts))
    several = len({input for _, input in courses}) > 1
    for history, input in courses:
        own = [cut for cut in report.cuts if course_of(cut) == (history, input)]
        counts = Counter(cut.kind for cut in own)
        title = f"{history}, input {n_of(courses, input)}" if several else history
        rows.append((title, str(len(own)), *(str(counts[kind]) for kind in shown)))
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    if not report.complete:
        lines.append(
            "the search was cut short: raise runs_max=, or give a smaller input for all orders of arrival"
        )
    return lines + list(lines_of_misfits(report)) + [line_of(marker) for marker in report.markers]


def course_of(cut: Cut) -> tuple[str, str]:
    """The row of a cut: its history and input; those in which only the order of arrival is another are one."""
    in_order = cut.history.startswith(ARRIVING)
    return "in other orders of arrival" if in_order else cut.history, repr(cut.input)


def n_of(courses: Mapping[tuple[str, str], None], input: str) -> int:
    """The number of an input, from 1: values are not shown."""
    return list(dict.fromkeys(given for _, given in courses)).index(input) + 1


def lines_of_misfits(report: UpgradeReport) -> Iterator[str]:
    """Each disagreement once, with how many cuts have it."""
    groups: dict[tuple[object, ...], list[Cut]] = {}
    for cut in report.misfits:
        groups.setdefault(
            (cut.kind, cut.recorded, cut.yielded, cut.recorded_site, cut.yielded_site), []
        ).append(cut)
    for same in list(groups.values())[:SHOWN_MAX]:
        first = same[0]
        times = "1 cut" if len(same) == 1 else f"{len(same)} cuts"
        yield f"{first.kind} at {times}, the first after event {first.after - 1} ({first.last}) of '{first.history}':"
        yield from (f"  {line}" for line in first.message.splitlines()[:4])
    if len(groups) > SHOWN_MAX:
        yield f"and {len(groups) - SHOWN_MAX} more disagreements"


def line_of(marker: Marker) -> str:
    """What a marker did, in words."""
    answers = ", ".join(f"{number} at {marker.answers[number]} cuts" for number in sorted(marker.answers))
    needed = {True: "; it is needed", False: "; as much fits without it", None: ""}[marker.needed]
    return f"marker '{marker.name}' answers {answers}{needed}"
