"""Death at a line: a run is traced, and where a chosen line is about to be executed its process is gone.

Rule 1: what the disk holds is fixed at that very line; whatever runs while the exception unwinds changes nothing of it.
Rule 2: only the log outlives a death. One in memory is what the interrupted call has left (F27).
Rule 3: only what is ours is traced: interpreter, hosts and stores, not the workflow, its steps and the test kit.
"""

from __future__ import annotations

import dis
import linecache
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Protocol

import zart_core
import zart_stores
from property_tests.shapes import Shape
from zart_core.codec import Codec
from zart_core.hosts.inline import Inline
from zart_core.interpreter import CODEC
from zart_core.log import EventLog
from zart_core.records import record
from zart_core.testing import Point, SimulatedCrash
from zart_core.testing.clock import START, VirtualClock
from zart_core.testing.crashes import played_in
from zart_core.testing.runner import Loops
from zart_core.testing.witness import CrashingLog, CrashingRunner, Fate, Played, Witness
from zart_core.testing.world import HostFactory, Scenario, World
from zart_core.workflows import Registry

CORE = Path(zart_core.__file__).parent
STORES = Path(zart_stores.__file__).parent
ENTERING = frozenset({"LOAD_FAST", "LOAD_GLOBAL", "LOAD_DEREF", "LOAD_NAME", "PUSH_NULL"})
"""How the code of a `with` line begins when its block is entered; it is left by other instructions."""


class Gone(SimulatedCrash, KeyboardInterrupt):
    """The process is gone: like an interrupt, nobody takes it for something that a workflow or a step did."""


@record
class Line:
    """A line of a function, the n-th time that it is about to be executed in one life, from 1."""

    code: CodeType
    number: int
    nth: int = 1

    def __str__(self) -> str:
        return (
            f"{Path(self.code.co_filename).name}:{self.number} (in {self.code.co_qualname}, time {self.nth})"
        )


def is_no_place_to_die(frame: FrameType) -> bool:
    """Whether the interpreter lets no interrupt strike here, so that an error raised here would break its promises.

    The line of a `try:` does nothing and belongs to no block, not even to a `with` around it; to die there is to die at
    the next line. And where a `with` block is just about to be left, its lock is given back first.
    """
    if dis.opname[frame.f_code.co_code[frame.f_lasti]] == "NOP":
        return True
    if not linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip().startswith("with "):
        return False
    return dis.opname[frame.f_code.co_code[frame.f_lasti]] not in ENTERING


class MortalPlace(Protocol):
    """A place that can hold on to what is on its disk at this very moment."""

    @property
    def wrong(self) -> Sequence[str]:
        """What deaths have left that they must not, in words."""
        ...

    def open(self) -> EventLog: ...

    def freeze(self) -> None: ...

    def crash(self, log: EventLog | None) -> None: ...

    def close(self, log: EventLog) -> None: ...


class Tracer:
    """Watches the lines of some files; kills at the next of `targets`, one for each life."""

    def __init__(
        self, files: frozenset[str], targets: list[Line], freeze: Callable[[], None], *, watch: bool = True
    ) -> None:
        self.files = files
        self.targets = targets
        self.freeze = freeze
        self.watch = watch
        """Whether lives without a target are watched, which takes as long again."""
        self.counts: dict[tuple[CodeType, int], int] = {}
        """How often each line was executed in lives without a target."""
        self.died_at = ""
        self.deaths = 0
        self.left = 0

    @contextmanager
    def life(self) -> Iterator[None]:
        """Watch from here on, up to a death."""
        target = self.targets[0] if self.targets else None
        if target is None and not self.watch:
            yield
            return
        before = sys.gettrace()
        if target is not None:
            self.left = target.nth
        sys.settrace(self.count_calls if target is None else self.hunt(target))
        try:
            yield
        finally:
            sys.settrace(before)

    def count_calls(self, frame: FrameType, event: str, arg: Any) -> Any:
        """Trace the functions of the files."""
        return self.count_line if frame.f_code.co_filename in self.files else None

    def count_line(self, frame: FrameType, event: str, arg: Any) -> Any:
        """Note a line."""
        if event == "line" and not is_no_place_to_die(frame):
            key = (frame.f_code, frame.f_lineno)
            self.counts[key] = self.counts.get(key, 0) + 1
        return self.count_line

    def hunt(self, target: Line) -> Any:
        """Trace one function only, and die at the line."""

        def line(frame: FrameType, event: str, arg: Any) -> Any:
            if event == "line" and frame.f_lineno == target.number and not is_no_place_to_die(frame):
                self.left -= 1
                if self.left == 0:
                    sys.settrace(None)
                    self.targets.pop(0)
                    self.died_at = str(target)
                    self.deaths += 1
                    self.freeze()
                    raise Gone(self.died_at)
            return line

        return lambda frame, event, arg: line if frame.f_code is target.code else None


class TracedPlace:
    """A place whose opening may die too; who opens it next finds what was left."""

    def __init__(self, place: MortalPlace, tracer: Tracer) -> None:
        self.place = place
        self.tracer = tracer

    def open(self) -> EventLog:
        while True:
            try:
                with self.tracer.life():
                    return self.place.open()
            except Gone:
                self.place.crash(None)

    def crash(self, log: EventLog) -> None:
        self.place.crash(log)

    def close(self, log: EventLog) -> None:
        self.place.close(log)


def played(
    shape: Shape,
    place: MortalPlace,
    files: frozenset[str],
    targets: list[Line],
    *,
    loops: Loops,
    registry: Registry,
    watch: bool = True,
    make_host: HostFactory = Inline,
    codec: Codec = CODEC,
) -> tuple[Played, Tracer]:
    """Play a shape, and die at these lines, one after the other; if asked, the lives after the last one are watched."""
    fate, witness = Fate(()), Witness()
    tracer = Tracer(files, targets, place.freeze, watch=watch)
    scenario = Scenario(shape.workflow, shape.input, None, shape.events, None, START, None)
    clock = VirtualClock(START)
    world = World(
        scenario,
        TracedPlace(place, tracer),
        clock=clock,
        make_host=make_host,
        codec=codec,
        registry=registry,
        loops=loops,
        keyed=True,
        wrap_log=lambda log: CrashingLog(log, None, clock, fate, witness),
        wrap_runner=lambda runner: CrashingRunner(runner, lambda: world.log, clock, fate, witness),
    )
    try:
        while True:
            try:
                with tracer.life():
                    ending = world.live()
                return played_in(world, ending, fate, witness, ()), tracer
            except Gone:
                fate.now, fate.doing = Point("after", tracer.deaths - 1), tracer.died_at
                world.bury()
                witness.note_death(fate, world.log, world.executions())
                fate.reborn()
    finally:
        world.close()


def interrupted(do: Callable[[], object], at: int) -> int:
    """Call it, and interrupt it at the n-th line of a store that it executes; gives how many it has executed."""
    count = 0

    def line(frame: Any, event: str, arg: Any) -> Any:
        nonlocal count
        if event == "line" and not is_no_place_to_die(frame):
            count += 1
            if count == at:
                sys.settrace(None)
                raise KeyboardInterrupt
        return line

    before = sys.gettrace()
    sys.settrace(lambda frame, event, arg: line if frame.f_code.co_filename.startswith(str(STORES)) else None)
    try:
        do()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    return count
