"""Random workflow programs: a small tree, the workflow that follows it, and a direct reading of it.

A command's name is its place in the tree, so that names are unique in any order of branches. What a step does
stands in its arguments, so that whoever plays the outside finds it in the log.
"""

from __future__ import annotations

import functools
import math
import uuid
import zlib
from collections.abc import Callable, Generator, Iterator
from datetime import datetime
from random import Random
from typing import Any, TypeAlias

import attrs
from hypothesis import strategies as st

import zart_core as zart

# ---------------------------------------------------------------- the tree


@attrs.frozen
class Act:
    """A step: `failures` attempts fail, the last one ends as `ends`; each takes `takes` seconds."""

    ends: str
    failures: int = 0
    takes: float = 1


@attrs.frozen
class Nap:
    """A sleep."""

    takes: float = 1


@attrs.frozen
class Await:
    """An event wait; without `event` one of its own, which comes so long after the run or the wait began."""

    event: str | None
    timeout: float | None
    comes: float = 0
    after_wait: bool = False


@attrs.frozen
class Call:
    """A child."""

    ends: str
    takes: float = 1


@attrs.frozen
class Flow:
    """A sub-generator."""

    body: tuple[Any, ...]


@attrs.frozen
class Scoped:
    """A flow whose names have a prefix."""

    flow: Flow


@attrs.frozen
class Shielded:
    """A flow that cancellation waits for."""

    flow: Flow


Target: TypeAlias = Act | Nap | Await | Call | Flow | Scoped | Shielded


@attrs.frozen
class Do:
    """Yield from it."""

    target: Target


@attrs.frozen
class Fix:
    """Fix a value: now, uuid, random, capture, version, spawn; `late` after a nap."""

    what: str
    late: bool = False


@attrs.frozen
class Start:
    """Schedule it."""

    target: Target


@attrs.frozen
class Join:
    """Wait for new targets and for tasks of this flow, by index."""

    mode: str
    targets: tuple[Target, ...]
    tasks: tuple[int, ...]


@attrs.frozen
class Stop:
    """Cancel a task of this flow."""

    task: int


@attrs.frozen
class Try:
    """Catch what `catches` says, and do something in the end."""

    body: tuple[Any, ...]
    catches: str
    rescue: tuple[Any, ...]
    final: tuple[Any, ...]


@attrs.frozen
class Fork:
    """Go one way or the other, by what was seen so far."""

    even: tuple[Any, ...]
    odd: tuple[Any, ...]


@attrs.frozen
class Leave:
    """Return, raise or continue as new."""

    how: str


Body: TypeAlias = tuple[Any, ...]


class Declared(Exception):
    """What the steps declare."""


class Broken(Exception):
    """What they do not."""


# ---------------------------------------------------------------- the workflow that follows a tree


@zart.step("act", raises=(Declared,), retry=zart.Retry.fixed(3, 5), cancel_grace=10)
def act(ends: str, failures: int, takes: float) -> int:
    """Is never called: the outside is played by the tests."""
    raise NotImplementedError


@zart.workflow("kid")
def kid(plan: list[Any]) -> zart.Flow[int]:
    """The child's declaration; it is never run."""
    yield from act("ok", 0, 1)
    return 0


def value_of(name: str) -> int:
    """What a command gives, by its name alone."""
    return zlib.crc32(name.encode()) % 1000


def parity(seen: list[Any]) -> int:
    """Which way to go."""
    return zlib.crc32(repr(seen).encode()) % 2


def jitter(place: str) -> float:
    """Less than a second, different for each place, exact in binary."""
    return (zlib.crc32(place.encode()) & 0xFFFFFF | 1) / 0x1000000


def takes_of(target: Any, place: str) -> float:
    """How long an attempt, a nap or a child takes: no two things end at the same instant by chance."""
    return float(target.takes) + jitter(place)


def timeout_of(target: Await, place: str) -> float | None:
    """How long an event is waited for."""
    return None if target.timeout is None else target.timeout + jitter(f"timeout {place}")


def arrival_of(target: Await, place: str, start: float) -> float:
    """When an event of its own comes; `start` is when the wait began."""
    return (start if target.after_wait else 0.0) + target.comes + jitter(f"arrival {place}")


def event_of(where: str) -> str:
    """The event of an `Await` that has one of its own."""
    return f"event-{where}"


@attrs.define(eq=False)
class Journal:
    """What flows noticed of cancellation: identities of strikes by flow. Not part of any log."""

    strikes: dict[str, list[BaseException]] = attrs.Factory(dict)
    left: list[BaseException] = attrs.Factory(list)
    ended: list[tuple[str, str]] = attrs.Factory(list)
    tasks: list[Any] = attrs.Factory(list)

    def notice(self, flow: str, error: BaseException) -> None:
        """A Cancelled was seen in a flow: a strike, if it did not come out of another flow or command."""
        seen = self.strikes.setdefault(flow, [])
        others = [*self.left, *(task.node.error for task in self.tasks)]
        mine = error.args[0] in STRIKES and not any(error is other for other in others)
        if mine and not any(error is other for other in seen):
            seen.append(error)


STRIKES = ("stop", "late", "nobody waited for it any more")


@attrs.define(eq=False)
class Frame:
    """The local variables of one flow."""

    flow: str
    root: bool
    journal: Journal
    seen: list[Any] = attrs.Factory(list)
    tasks: list[Any] = attrs.Factory(list)


def workflow_of(body: Body, journal: Journal | None = None, **options: Any) -> zart.Workflow[int, Any]:
    """A workflow that follows the tree; the result is what it saw."""
    notes = Journal() if journal is None else journal

    @zart.workflow("random", **options)
    def random(input: int) -> zart.Flow[Any]:
        frame = Frame("root", True, notes)
        yield from watched(body, "r", frame)
        return frame.seen

    random_workflow: Any = random
    return random_workflow


def watched(body: Body, where: str, frame: Frame) -> Generator[Any, Any, bool]:
    """Follow a body and note how it ended."""
    try:
        left = yield from follow(body, where, frame)
    except GeneratorExit:
        raise
    except BaseException as error:
        if isinstance(error, zart.Cancelled):
            frame.journal.notice(frame.flow, error)
            frame.journal.left.append(error)
        frame.journal.ended.append((frame.flow, type(error).__name__))
        raise
    frame.journal.ended.append((frame.flow, "ok"))
    return left


def flow_of(flow: Flow, where: str, frame: Frame) -> Generator[Any, Any, Any]:
    """A flow as a branch of its own."""
    inner = Frame(where, False, frame.journal)
    yield from watched(flow.body, where, inner)
    return inner.seen


def command_of(target: Target, where: str, frame: Frame) -> Any:
    """What is yielded for a target."""
    match target:
        case Act():
            return act(target.ends, target.failures, takes_of(target, where)).named(where)
        case Nap():
            return zart.sleep(where, takes_of(target, where))
        case Await():
            return zart.wait_for_event(target.event or event_of(where), int, timeout_of(target, where))
        case Call():
            return zart.child(kid, [target.ends, takes_of(target, where)]).named(where)
        case Flow():
            return flow_of(target, where, frame)
        case Scoped():
            return zart.scope(f"p{where}", flow_of(target.flow, where, frame))
        case Shielded():
            return zart.shield(flow_of(target.flow, where, frame))


def fixed(what: str, where: str) -> Any:
    """What is yielded to fix a value."""
    match what:
        case "now":
            return zart.now(where)
        case "uuid":
            return zart.uuid(where)
        case "random":
            return zart.random(where)
        case "capture":
            return zart.capture(where, int, int)
        case "version":
            return zart.version(where, 3)
        case "shared-version":
            return zart.version("shared", 2)
        case _:
            return zart.spawn(kid, ["ok", 1], id=f"id-{where}").named(where)


def shown(value: Any) -> Any:
    """A value as JSON data."""
    match value:
        case zart.Ok(inner):
            return ["ok", shown(inner)]
        case zart.Err(error):
            return ["err", type(error).__name__]
        case list() | tuple():
            return [shown(item) for item in value]
        case bool() | int() | float() | str() | None:
            return value
        case datetime():
            return "now"
        case _:
            return str(value)


WHATS = ["now", "uuid", "random", "capture", "version", "shared-version", "shared-version", "spawn"]
CATCHES: dict[str, type[BaseException] | tuple[type[BaseException], ...]] = {
    "errors": Exception,
    "cancelled": zart.Cancelled,
    "all": (Exception, zart.Cancelled),
    "nothing": (),
}
JOINS: dict[str, Callable[[list[Any]], Any]] = {
    "all": zart.wait,
    "fail_fast": lambda targets: zart.wait(targets, fail_fast=True),
    "settle": zart.settle,
    "gather": lambda targets: zart.gather(*targets),
    "any": zart.wait_any,
    "race": lambda targets: zart.race(*targets),
}


def follow(body: Body, where: str, frame: Frame) -> Generator[Any, Any, bool]:
    """Follow statements; True when the flow is to be left."""
    for index, statement in enumerate(body):
        place = f"{where}.{index}"
        match statement:
            case Do(target):
                if isinstance(target, Await) and target.event is None:
                    yield from command_of(Nap(1), f"{place}n", frame)
                frame.seen.append(shown((yield from command_of(target, place, frame))))
            case Fix(what, late):
                if late:
                    yield from command_of(Nap(1), f"{place}n", frame)
                frame.seen.append(shown((yield from fixed(what, place))))
            case Start(target):
                task = yield from zart.schedule(command_of(target, place, frame))
                frame.tasks.append(task)
                frame.journal.tasks.append(task)
            case Join():
                joined = [
                    command_of(target, f"{place}.{n}", frame) for n, target in enumerate(statement.targets)
                ]
                joined += picked(frame.tasks, statement.tasks)
                if len(joined) >= (2 if statement.mode == "race" else 1):
                    frame.seen.append(shown((yield from JOINS[statement.mode](joined))))
                else:
                    frame.seen.append(shown((yield from zart.settle(joined))))
            case Stop(task) if frame.tasks:
                frame.seen.append(shown((yield frame.tasks[task % len(frame.tasks)].cancel())))
            case Stop():
                pass
            case Try():
                try:
                    if (yield from follow(statement.body, f"{place}b", frame)):
                        return True
                except CATCHES[statement.catches] as error:
                    if isinstance(error, zart.Cancelled):
                        frame.journal.notice(frame.flow, error)
                    frame.seen.append(f"!{type(error).__name__}")
                    if (yield from follow(statement.rescue, f"{place}r", frame)):
                        return True
                finally:
                    yield from follow(statement.final, f"{place}f", frame)
            case Fork():
                way, suffix = (statement.odd, "o") if parity(frame.seen) else (statement.even, "e")
                if (yield from follow(way, f"{place}{suffix}", frame)):
                    return True
            case Leave("return"):
                return True
            case Leave("raise"):
                raise Broken("as the program says")
            case Leave() if frame.root:
                again: Any = workflow_of(())
                yield from again.continue_as_new(1)
            case Leave():
                return True
    return False


def picked(tasks: list[Any], indexes: tuple[int, ...]) -> list[Any]:
    """Tasks by index, each once."""
    return list(dict.fromkeys(tasks[index % len(tasks)] for index in indexes)) if tasks else []


def walk(body: Body, where: str = "r") -> Iterator[tuple[str, Any]]:
    """Every target of a tree with its place."""
    for index, statement in enumerate(body):
        place = f"{where}.{index}"
        match statement:
            case Do(target) | Start(target):
                yield from walk_target(target, place)
            case Join():
                for n, target in enumerate(statement.targets):
                    yield from walk_target(target, f"{place}.{n}")
            case Try():
                for part, suffix in (statement.body, "b"), (statement.rescue, "r"), (statement.final, "f"):
                    yield from walk(part, f"{place}{suffix}")
            case Fork():
                yield from walk(statement.even, f"{place}e")
                yield from walk(statement.odd, f"{place}o")


def walk_target(target: Target, place: str) -> Iterator[tuple[str, Any]]:
    """A target and what is in it."""
    yield place, target
    match target:
        case Flow(body) | Scoped(Flow(body)) | Shielded(Flow(body)):
            yield from walk(body, place)


# ---------------------------------------------------------------- drawing trees


def targets(depth: int, *, timed: bool, alone: bool = False) -> st.SearchStrategy[Any]:
    """Things that may run beside others."""
    ends = st.sampled_from(["ok"] * 9 + ["declared", "broken", "lost"])
    takes = st.integers(1, 40)
    leaves = [
        st.builds(Act, ends, st.sampled_from([0, 0, 0, 1, 3]), takes),
        st.builds(Nap, takes),
        st.builds(Call, st.sampled_from(["ok"] * 5 + ["failed"]), takes),
    ]
    if timed:
        comes = st.integers(0, 80) if alone else takes
        leaves.append(st.builds(Await, st.none(), st.one_of(st.none(), takes), comes, st.just(not alone)))
    else:
        leaves.append(st.builds(Await, st.sampled_from(["e0", "e1"]), st.one_of(st.none(), takes)))
    if depth == 0:
        return st.one_of(leaves)
    flows = bodies(depth - 1, timed=timed).map(lambda body: Flow((Do(Nap(3)), *body) if timed else body))
    return st.one_of(*leaves, flows, flows, st.builds(Scoped, flows), st.builds(Shielded, flows))


@functools.cache
def statements(depth: int, *, timed: bool) -> st.SearchStrategy[Any]:
    """One statement."""
    beside = targets(depth, timed=timed)
    tasks = st.lists(st.integers(0, 3), max_size=2).map(tuple)
    couples = st.lists(beside, min_size=2, max_size=3).map(tuple)
    leaves = [
        st.builds(Do, targets(depth, timed=timed, alone=True)),
        st.builds(Do, targets(depth, timed=timed, alone=True)),
        st.builds(Start, beside),
        st.builds(Join, st.sampled_from(sorted(JOINS)), st.lists(beside, max_size=3).map(tuple), tasks),
        st.builds(Fix, st.sampled_from(WHATS), st.just(timed)),
        st.builds(Stop, st.integers(0, 3)),
        *[st.builds(Start, beside), st.builds(Join, st.sampled_from(sorted(JOINS)), couples, tasks)],
        st.builds(Leave, st.sampled_from(["return", "raise"] if timed else ["return", "raise", "continue"])),
    ]
    if depth == 0:
        return st.one_of(leaves)
    inner = bodies(depth - 1, timed=timed)
    tries = st.builds(Try, inner, st.sampled_from(sorted(CATCHES)), inner, inner)
    return st.one_of(*leaves, tries, st.builds(Fork, inner, inner), tries)


@functools.cache
def bodies(depth: int = 3, *, timed: bool = False) -> st.SearchStrategy[Body]:
    """The body of a flow. In timed ones every instant at which something ends is unlike any other."""
    return st.lists(statements(depth, timed=timed), max_size=4).map(tuple)


def programs(*, timed: bool = False) -> st.SearchStrategy[Body]:
    """A whole program, seldom a short one."""
    some = statements(3, timed=timed)
    return st.one_of(st.lists(some, min_size=3, max_size=7), st.lists(some, max_size=2)).map(tuple)


# ---------------------------------------------------------------- a direct reading, without a log


GRACE = 10.0
CHILD_GRACE = 0.5
RETRY_DELAY = 5.0
ERRORS: dict[str, Exception] = {
    "declared": Declared("read"),
    "broken": zart.StepFailed("step", "type", "read"),
    "lost": zart.StepLost("step"),
    "failed": zart.ExecutionFailed("id", "read"),
}


@attrs.define(eq=False)
class Strand:
    """One branch as it is read: where it stands in time, and when it is struck."""

    now: float
    cut: float
    prefix: str
    items: list[Item] = attrs.Factory(list)

    def check(self) -> None:
        """At a command: a strike that a shield held back."""
        if self.cut <= self.now:
            self.strike([])

    def strike(self, ends: list[float]) -> None:
        """All of its own unwinds, then it is struck, once."""
        cut, self.cut = self.cut, math.inf
        for item in self.items:
            item.stop(cut)
        self.now = max([self.now, cut, *ends, *(item.end for item in self.items)])
        raise zart.Cancelled("read")


@attrs.define(eq=False)
class Item:
    """Something that runs beside a strand: read again when it turns out that it is cut short."""

    read: Callable[[float], tuple[Any, BaseException | None, float]]
    shielded: bool
    cut: float = math.inf
    value: Any = None
    error: BaseException | None = None
    end: float = 0

    def __attrs_post_init__(self) -> None:
        self.value, self.error, self.end = self.read(math.inf)

    def stop(self, cut: float) -> None:
        """It is told to end, the first time only."""
        if not self.shielded and self.cut == math.inf and self.end > cut:
            self.cut = cut
            self.value, self.error, self.end = self.read(cut)

    def outcome(self) -> Any:
        """As it is shown."""
        return ["ok", self.value] if self.error is None else ["err", type(self.error).__name__]


def read_program(body: Body, cut: float = math.inf) -> tuple[Any, BaseException | None, float]:
    """What the program gives, and when it ends, told to end at `cut`."""
    return read_flow(body, "r", 0.0, cut, "")


def read_flow(
    body: Body, where: str, start: float, cut: float, prefix: str
) -> tuple[Any, BaseException | None, float]:
    strand, seen = Strand(start, cut, prefix), []
    error: BaseException | None = None
    try:
        read(body, where, strand, seen, [])
    except BaseException as raised:
        error = raised
    for item in strand.items:
        item.stop(strand.now)
    end = max([strand.now, *(item.end for item in strand.items)])
    return (seen if error is None else None), error, end


def item_of(target: Target, place: str, strand: Strand) -> Item:
    """Something that begins now."""
    start, prefix = strand.now, strand.prefix

    def read(cut: float) -> tuple[Any, BaseException | None, float]:
        if cut <= start:  # forgotten before it was issued
            return None, zart.Cancelled("read"), start
        match target:
            case Flow(body) | Shielded(Flow(body)):
                return read_flow(body, place, start, cut, prefix)
            case Scoped(Flow(body)):
                return read_flow(body, place, start, cut, f"{prefix}p{place}/")
            case _:
                return read_leaf(target, place, start, cut, prefix)

    return Item(read, isinstance(target, Shielded))


def read_leaf(target: Any, place: str, start: float, cut: float, prefix: str) -> tuple[Any, Any, float]:
    """The outcome of a leaf and when it comes."""
    value = value_of(prefix + place)
    cancelled = zart.Cancelled("read")
    match target:
        case Nap():
            end = start + takes_of(target, place)
            return (None, None, end) if end <= cut else (None, cancelled, cut)
        case Await():
            return read_await(target, place, start, cut)
        case Call():
            end = start + takes_of(target, place)
            if cut + CHILD_GRACE < end:
                return None, cancelled, cut + CHILD_GRACE
            return (value, None, end) if target.ends == "ok" else (None, ERRORS[target.ends], end)
        case _:
            return read_act(target, place, start, cut, value)


def read_await(target: Await, place: str, start: float, cut: float) -> tuple[Any, Any, float]:
    comes, late = arrival_of(target, place, start), start + (timeout_of(target, place) or math.inf)
    end = max(start, comes)
    if min(end, late) > cut:
        return None, zart.Cancelled("read"), cut
    return (value_of(event_of(place)), None, end) if end <= late else (None, zart.EventTimedOut("e"), late)


def read_act(target: Act, place: str, start: float, cut: float, value: int) -> tuple[Any, Any, float]:
    takes = takes_of(target, place)
    for attempt in range(target.failures + 1):
        end = start + takes
        if cut < start:
            return None, zart.Cancelled("read"), cut
        if cut + GRACE < end:
            return None, zart.Cancelled("read"), cut + GRACE
        if cut < end and attempt < target.failures:
            return None, ERRORS["broken"], end
        if attempt < target.failures:
            start = end + RETRY_DELAY
    if target.ends == "ok":
        return value, None, end
    return None, ERRORS[target.ends], end


def read(body: Body, where: str, strand: Strand, seen: list[Any], tasks: list[Item]) -> bool:
    """Read statements; True when the flow is to be left."""
    for index, statement in enumerate(body):
        place = f"{where}.{index}"
        match statement:
            case Do(Flow(inner)):  # inline: the same branch, with variables of its own
                nested: list[Any] = []
                read(inner, place, strand, nested, [])
                seen.append(nested)
            case Do(target):
                if isinstance(target, Await):
                    strand.check()
                    read_do(Nap(1), f"{place}n", strand)
                strand.check()
                seen.append(read_do(target, place, strand))
            case Fix(what):
                strand.check()
                read_do(Nap(1), f"{place}n", strand)
                strand.check()
                seen.append(read_fix(what, place, strand))
            case Start(target):
                strand.check()
                item = item_of(target, place, strand)
                strand.items.append(item)
                tasks.append(item)
            case Join():
                strand.check()
                items = [
                    item_of(target, f"{place}.{n}", strand) for n, target in enumerate(statement.targets)
                ]
                strand.items.extend(items)
                seen.append(read_join(statement.mode, [*items, *picked(tasks, statement.tasks)], strand))
            case Stop(task) if tasks:
                strand.check()
                seen.append(read_stop(tasks[task % len(tasks)], strand))
            case Stop():
                pass
            case Try():
                try:
                    if read(statement.body, f"{place}b", strand, seen, tasks):
                        return True
                except CATCHES[statement.catches] as error:
                    seen.append(f"!{type(error).__name__}")
                    if read(statement.rescue, f"{place}r", strand, seen, tasks):
                        return True
                finally:
                    read(statement.final, f"{place}f", strand, seen, tasks)
            case Fork():
                way, suffix = (statement.odd, "o") if parity(seen) else (statement.even, "e")
                if read(way, f"{place}{suffix}", strand, seen, tasks):
                    return True
            case Leave("raise"):
                raise Broken("as the program says")
            case Leave():
                return True
    return False


def read_do(target: Target, place: str, strand: Strand) -> Any:
    item = item_of(target, place, strand)
    if strand.cut < item.end:
        if not item.shielded:
            item.stop(strand.cut)
            strand.strike([item.end])
        for other in strand.items:
            other.stop(strand.cut)
    strand.now = item.end
    if item.error is not None:
        raise item.error
    return item.value


def read_fix(what: str, place: str, strand: Strand) -> Any:
    name = strand.prefix + place
    match what:
        case "now":
            return "now"
        case "version":
            return 3
        case "shared-version":
            return 2
        case "spawn":
            return f"id-{place}"
        case "uuid":
            return str(uuid.UUID(int=value_of(name)))
        case "random":
            return value_of(name) / 1000
        case _:
            return value_of(name)


def read_stop(item: Item, strand: Strand) -> Any:
    if item.end <= strand.now:
        return False
    item.stop(strand.now)
    if strand.cut < item.end:
        strand.strike([item.end])
    strand.now = item.end
    return True


def read_join(mode: str, items: list[Item], strand: Strand) -> Any:
    """Wait as the mode says; the first by time, and by the order given among those that have ended before."""
    start = strand.now
    if len(items) < (2 if mode == "race" else 1):
        mode = "settle"
    if not items:
        return []
    order = sorted(items, key=lambda item: max(item.end, start))
    failed = [item for item in order if item.error is not None]
    if mode in ("any", "race") or (mode == "fail_fast" and failed):
        first = failed[0] if mode == "fail_fast" else order[0]
        settled = max(first.end, start)
    else:
        first, settled = None, max(max(item.end for item in items), start)
    if strand.cut < settled:
        strand.strike([])
    if first is not None and mode != "any":
        for item in items:
            if item is not first:
                item.stop(settled)
        settled = (
            max([settled, *(item.end for item in items)])
            if any(item.end > settled for item in items)
            else settled
        )
        if strand.cut < settled:
            strand.strike([item.end for item in items])
    strand.now = settled
    return answer_of(mode, items, first)


def answer_of(mode: str, items: list[Item], first: Item | None) -> Any:
    if mode == "any":
        assert first is not None
        return [items.index(first), first.outcome()]
    if mode == "race":
        assert first is not None
        if first.error is not None:
            raise first.error
        return [items.index(first), first.value]
    if mode == "settle":
        return [item.outcome() for item in items]
    if mode == "fail_fast" and first is not None:
        assert first.error is not None
        raise first.error
    errors = [item.error for item in items if item.error is not None]
    failures = [error for error in errors if isinstance(error, Exception)]
    if failures:
        raise zart.StepsFailed("read", failures)
    if errors:
        raise errors[0]
    return [item.value for item in items]


# ---------------------------------------------------------------- larger trees, by seed


@attrs.define
class Grower:
    """Trees of any size from a seed: what Hypothesis seldom draws."""

    rng: Random
    timed: bool

    def body(self, size: int, depth: int) -> Body:
        """So many statements."""
        return tuple(self.statement(depth) for _ in range(size))

    def inner(self, depth: int) -> Body:
        """A few statements."""
        return self.body(self.rng.choice([0, 1, 1, 2, 3]), depth - 1)

    def statement(self, depth: int) -> Any:
        """One statement."""
        rng = self.rng
        kinds = ["do"] * 5 + ["start"] * 4 + ["join"] * 4 + ["fix"] * 2 + ["stop"] + ["try"] * 4 + ["fork"]
        match rng.choice(kinds if depth else kinds[:16]):
            case "do":
                return Do(self.target(depth, alone=True))
            case "start":
                return Start(self.target(depth))
            case "join":
                beside = tuple(self.target(depth) for _ in range(rng.randrange(4)))
                return Join(rng.choice(sorted(JOINS)), beside, tuple(rng.sample(range(6), rng.randrange(3))))
            case "fix":
                return Fix(rng.choice(WHATS), self.timed)
            case "stop":
                return Stop(rng.randrange(4))
            case "try":
                catches = rng.choice(["errors", "errors", "all", "cancelled", "nothing"])
                return Try(self.inner(depth), catches, self.inner(depth), self.inner(depth))
            case _:
                return Fork(
                    self.inner(depth), (Leave("return"),) if rng.random() < 0.2 else self.inner(depth)
                )

    def target(self, depth: int, *, alone: bool = False) -> Target:
        """Something to yield from, to start or to join."""
        rng, takes = self.rng, self.rng.randint(1, 40)
        match rng.randrange(8 if depth else 5):
            case 0 | 1:
                ends = rng.choice(["ok"] * 9 + ["declared", "broken", "lost"])
                return Act(ends, rng.choice([0, 0, 0, 0, 1, 3]), takes)
            case 2:
                return Nap(takes)
            case 3:
                return Call(rng.choice(["ok"] * 5 + ["failed"]), takes)
            case 4 if self.timed:
                timeout = rng.choice([None, rng.randint(1, 40)])
                return Await(None, timeout, rng.randint(0, 200) if alone else takes, not alone)
            case 4:
                return Await(rng.choice(["e0", "e1"]), rng.choice([None, takes]))
            case kind:
                body = self.body(rng.randint(1, 3), depth - 1)
                flow = Flow((Do(Nap(3)), *body) if self.timed else body)
                return flow if kind == 5 else Scoped(flow) if kind == 6 else Shielded(flow)
