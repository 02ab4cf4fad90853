"""Time travel: the frames, locals and errors of a run after each of its events."""

from __future__ import annotations

import enum
import random
from collections import OrderedDict, defaultdict, deque
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType, SimpleNamespace
from typing import Any, NamedTuple

import attrs
import msgspec
import pytest

import zart_core as zart
from zart_core.insight.values import CHARS_MAX, shown
from zart_core.interpreter import Execution
from zart_core.testing import Cancel, Terminate, run


@zart.step("charge-{n}")
def charge(n: int) -> int:
    return n


@zart.step("refuse")
def refuse() -> int:
    raise ValueError("no funds")


def part(n: int) -> zart.Flow[list[int]]:
    parts = [n]
    got = yield from charge(n)
    parts.append(got)
    yield from zart.sleep(f"rest-{n}", 60)
    return parts


def within(limit: int, total: int) -> None:
    assert total < limit, f"{total} is not below {limit}"


@zart.workflow("parts")
def parts(limit: int) -> zart.Flow[int]:
    total = 0
    left, right = yield from zart.gather(part(1), part(2))
    total += sum(left) + sum(right)
    total += sum((yield from part(5)))
    within(limit, total)
    return total


def history(workflow: Any, input: Any = None, **options: Any) -> list[zart.Event]:
    return run(workflow, input, **options).history


def locals_of(frame: Any) -> dict[str, str]:
    return {local.name: local.text for local in frame.locals}


def states_of(frame: Any) -> dict[str, str]:
    return {local.name: local.state for local in frame.locals}


def position_of(events: list[zart.Event], seq_of: str) -> int:
    """How many events there are up to the outcome of a command, that included."""
    seq = next(event.seq for event in events if isinstance(event, zart.Issued) and event.name == seq_of)
    return next(
        n for n, event in enumerate(events, 1) if isinstance(event, zart.Resolved) and event.seq == seq
    )


# ---------------------------------------------------------------- what a moment shows


def test_frames_of_nested_flows() -> None:
    """Every frame of the yield-from chain is there, outermost first: function, file, line, source, locals."""
    events = history(parts, 100)

    moment = zart.inspect(parts, events).at(position_of(events, "charge-5"))

    assert [frame.function for frame in moment.frames] == ["parts", "part"]
    assert {frame.file for frame in moment.frames} == {__file__}
    assert moment.frames[0].source == "total += sum((yield from part(5)))"
    assert moment.frames[1].source == 'yield from zart.sleep(f"rest-{n}", 60)'
    first = part.__code__.co_firstlineno
    assert moment.frames[1].line == first + 4
    assert locals_of(moment.frames[1]) == {"n": "5", "parts": "[5, 5]", "got": "5"}
    assert moment.status is zart.Status.RUNNING
    assert moment.asks == ("sleep 'rest-5'",)


def test_every_branch_is_there_with_its_owner_and_what_it_waits_for() -> None:
    """Branches stand beside their owner, oldest first."""
    events = history(parts, 100)

    branches = zart.inspect(parts, events).at(position_of(events, "charge-1")).branches

    assert [(branch.name, branch.owner) for branch in branches] == [("parts", None), ("part", 0), ("part", 0)]
    assert [branch.state for branch in branches] == [
        "waits for flow 'part', flow 'part'",
        "waits for sleep 'rest-1'",
        "waits for step 'charge-2'",
    ]
    assert branches[1].started_at == zart.Site(__name__, "parts", 3)
    assert [locals_of(branch.frames[0])["n"] for branch in branches[1:]] == ["1", "2"]


def test_what_changed_is_said() -> None:
    """Locals are new, changed or the same beside the event before; so is a list that was appended to."""
    events = history(parts, 100)
    moment = zart.inspect(parts, events).at(position_of(events, "charge-1"))

    assert states_of(moment.branches[0].frames[0]) == {"limit": "same", "total": "same"}
    assert states_of(moment.branches[1].frames[0]) == {"n": "same", "parts": "changed", "got": "new"}
    assert states_of(moment.branches[2].frames[0]) == {"n": "same", "parts": "same"}
    assert not any(frame.new for frame in moment.frames)

    entered = zart.inspect(parts, events).at(position_of(events, "rest-2"))

    assert [frame.new for frame in entered.frames] == [False, True]
    assert states_of(entered.frames[1]) == {"n": "new", "parts": "new"}


def test_the_same_flow_again_is_a_new_frame() -> None:
    """A second call of the same function is not the first one with other locals."""

    def once(n: int) -> zart.Flow[int]:
        return (yield from charge(n))

    @zart.workflow("twice")
    def twice() -> zart.Flow[None]:
        yield from once(1)
        yield from once(2)

    events = history(twice)
    moment = zart.inspect(twice, events).at(position_of(events, "charge-1"))

    assert moment.frames[1].new
    assert states_of(moment.frames[1]) == {"n": "new"}


def test_a_failed_run_shows_the_line_and_the_values_that_failed() -> None:
    """The error's own frames, plain functions too, from when it was raised to the end."""
    inspection = zart.inspect(parts, history(parts, 10))

    for k in (len(inspection) - 1, len(inspection)):
        moment = inspection.at(k)
        assert moment.branches == ()
        (raised,) = moment.raised
        assert raised.error.startswith("AssertionError: 16 is not below 10")
        assert [frame.function for frame in raised.frames] == ["parts", "within"]
        assert raised.frames[1].source == 'assert total < limit, f"{total} is not below {limit}"'
        assert locals_of(raised.frames[1]) == {"limit": "10", "total": "16"}
        assert moment.frames == raised.frames
    assert inspection.at(len(inspection) - 2).raised == ()
    assert states_of(inspection.at(len(inspection) - 1).raised[0].frames[0])["total"] == "changed"
    assert set(states_of(inspection.at(len(inspection)).raised[0].frames[0]).values()) == {"same"}
    assert inspection.at(len(inspection)).status is zart.Status.FAILED


def test_errors_of_several_branches_show_the_frames_of_each() -> None:
    """A group's errors come after it, each with the flow it came from."""

    def refused(n: int) -> zart.Flow[int]:
        yield from charge(n)
        raise LookupError(f"nothing for {n}")

    @zart.workflow("group")
    def group() -> zart.Flow[None]:
        yield from zart.gather(refused(1), refused(2))

    events = history(group)
    moment = zart.inspect(group, events).at(len(events))

    assert [raised.error for raised in moment.raised] == [
        "StepsFailed: 2 of 2 failed (2 sub-exceptions)",
        "LookupError: nothing for 1",
        "LookupError: nothing for 2",
    ]
    assert [locals_of(raised.frames[-1])["n"] for raised in moment.raised[1:]] == ["1", "2"]


def test_the_error_that_on_failure_handles_stays_in_view() -> None:
    """While compensation runs, one sees what it is for."""

    def undo(_: None, error: BaseException) -> zart.Flow[str]:
        yield from charge(9)
        return str(error)

    @zart.workflow("undone", on_failure=undo)
    def undone() -> zart.Flow[str]:
        reason = "none"
        yield from refuse()
        return reason

    events = history(undone)
    moment = zart.inspect(undone, events).at(position_of(events, "refuse"))

    assert [frame.function.rpartition(".")[2] for frame in moment.frames] == ["undo", "undone"]
    assert moment.raised[0].error.startswith("StepFailed: step 'refuse' failed: ValueError: no funds")
    assert locals_of(moment.raised[0].frames[0]) == {"reason": "'none'"}


def test_a_waiting_run_shows_what_it_waits_for() -> None:
    """Pending is what the outside has to bring."""

    @zart.workflow("waits")
    def waits() -> zart.Flow[str]:
        return (yield from zart.wait_for_event("word", str))

    events = history(waits)
    moment = zart.inspect(waits, events).at(len(events))

    assert [(issued.kind, issued.of) for issued in moment.pending] == [("event", "word")]
    assert moment.branches[0].state == "waits for event 'word[1]'"
    assert (moment.asks, moment.defect) == ((), "")


@pytest.mark.parametrize("request_", [Cancel(30), Terminate(30)])
def test_a_run_that_was_ended_from_outside(request_: Any) -> None:
    """Cancelled: the compensation's frame, unwinding. Terminated: the code stays where it stood."""

    @zart.workflow("long")
    def long() -> zart.Flow[None]:
        try:
            yield from zart.sleep("long", 60)
        finally:
            yield from charge(1)

    events = history(long, events=[request_])
    inspection = zart.inspect(long, events)

    assert inspection.at(len(events)).status.closed
    states = [branch.state for moment in inspection.moments() for branch in moment.branches]
    assert ("unwinds" in " ".join(states)) == isinstance(request_, Cancel)
    if isinstance(request_, Terminate):
        assert inspection.at(len(events)).frames[0].source == 'yield from zart.sleep("long", 60)'


def test_lines_of_the_workflows_logger_stand_at_their_event() -> None:
    """What the workflow said at this event, and at no other."""

    @zart.workflow("talks")
    def talks() -> zart.Flow[None]:
        got = yield from charge(1)
        zart.logger.warning("got %s", got)
        yield from charge(2)

    inspection = zart.inspect(talks, history(talks))

    said = {moment.position: moment.lines for moment in inspection.moments() if moment.lines}
    assert said == {position_of(list(inspection.events), "charge-1"): ("got 1",)}


# ---------------------------------------------------------------- parked


def test_a_diverged_run_is_shown_up_to_the_divergence() -> None:
    """The frames are those of the code that wants something else; the defect is the two-sided message."""

    @zart.workflow("parts")
    def changed(limit: int) -> zart.Flow[None]:
        rest = limit
        yield from zart.sleep("something-new", rest)

    events = history(parts, 100)
    inspection = zart.inspect(changed, events)
    moment = inspection.at(len(events))

    assert moment.position == 1
    assert moment.event == events[1]
    assert moment.status is zart.Status.PARKED
    assert "diverged at event 1" in moment.defect
    assert "recorded: step 'charge-1'" in moment.defect
    assert "yielded:  sleep 'something-new'" in moment.defect
    assert moment.frames[0].source == 'yield from zart.sleep("something-new", rest)'
    assert locals_of(moment.frames[0]) == {"limit": "100", "rest": "100"}
    assert inspection.at(2) == moment
    assert inspection.at(1).defect == ""
    assert [one.position for one in inspection.moments()] == [0, 1, 1]


def test_a_run_whose_code_wants_more_is_parked_at_its_end() -> None:
    """What the log should hold and does not is a defect of the last moment (P6)."""
    events = history(parts, 100)[:-1]

    @zart.workflow("parts")
    def longer(limit: int) -> zart.Flow[int]:
        total = yield from parts(limit)
        yield from charge(77)
        return total

    assert zart.inspect(parts, history(parts, 100)).at(len(events) + 1).defect == ""
    moment = zart.inspect(longer, events).at(len(events))
    assert moment.asks == ("step 'charge-77'",)
    assert "recorded: nothing more: the log ends here" in moment.defect
    assert moment.position == len(events)
    assert zart.inspect(longer, events).at(len(events) - 1).defect == ""


def test_wrong_code_shows_the_frame_that_is_wrong() -> None:
    """A name used twice, a wrong object, a result that cannot be written down, an exit, park_on: with the frame."""

    def twice() -> zart.Flow[Any]:
        first = yield from charge(1)
        yield from charge(first)

    def thing() -> zart.Flow[Any]:
        first = yield from charge(1)
        yield first  # type: ignore[misc]

    def exits() -> zart.Flow[Any]:
        first = yield from charge(1)
        raise SystemExit(first)

    def missing() -> zart.Flow[Any]:
        first = yield from charge(1)
        return {}[first]

    def result() -> zart.Flow[Any]:
        yield from charge(1)
        return object()

    parked = {twice: "DuplicateName", thing: "NotACommand", exits: "SystemExit", missing: "Parked"}
    for body, defect in {**parked, result: "Unencodable"}.items():
        workflow = zart.workflow("wrong", park_on=KeyError)(body)
        facts = [
            zart.Started("w", 0, "wrong", b"null", 0.0),
            zart.Issued(0, "step", "charge-1", 0.0, "charge-{n}", b'{"n":1}'),
            zart.Began(0, 0, at=0.0),
            zart.Resolved(0, zart.Done(b"1"), 1.0, held=True),
        ]
        moment = zart.inspect(workflow, facts).at(4)
        assert defect in moment.defect
        assert moment.status is zart.Status.PARKED
        if body is not result:
            assert locals_of(moment.frames[0]) == {"first": "1"}, body


def test_an_error_of_the_code_is_shown_and_an_interrupt_is_not_swallowed() -> None:
    """Ctrl-C in a workflow's code reaches whoever looks."""

    @zart.workflow("interrupts")
    def interrupts() -> zart.Flow[None]:
        yield from charge(1)
        raise KeyboardInterrupt

    facts = [
        zart.Started("w", 0, "interrupts", b"null", 0.0),
        zart.Issued(0, "step", "charge-1", 0.0, "charge-{n}", b'{"n":1}'),
        zart.Resolved(0, zart.Done(b"1"), 1.0),
    ]
    with pytest.raises(KeyboardInterrupt):
        zart.inspect(interrupts, facts).at(3)


# ---------------------------------------------------------------- going there


@pytest.mark.parametrize("limit", [10, 100])
def test_a_moment_does_not_depend_on_the_way_to_it(limit: int) -> None:
    """Forward, back, and anywhere at random: each moment is the one that a fresh look gives."""
    events = history(parts, limit)
    fresh = [zart.inspect(parts, events).at(k) for k in range(len(events) + 1)]
    inspection = zart.inspect(parts, events)

    assert list(inspection.moments()) == fresh
    assert [inspection.at(k) for k in reversed(range(len(fresh)))] == fresh[::-1]
    order = random.Random(limit).choices(range(len(fresh)), k=100)
    assert [inspection.at(k) for k in order] == [fresh[k] for k in order]


def test_a_moment_of_a_history_that_does_not_fit_does_not_depend_on_the_way_either() -> None:
    """Before, at and after the divergence."""
    events = history(parts, 100)
    at = position_of(events, "rest-2")
    issued = events[at]
    assert isinstance(issued, zart.Issued)
    broken = [*events[:at], attrs.evolve(issued, name="other"), *events[at + 1 :]]
    fresh = [zart.inspect(parts, broken).at(k) for k in range(len(broken) + 1)]
    inspection = zart.inspect(parts, broken)

    assert [moment.position for moment in fresh[-2:]] == [at, at]
    order = random.Random(1).choices(range(len(fresh)), k=100)
    assert [inspection.at(k) for k in order] == [fresh[k] for k in order]


def test_going_forward_applies_each_event_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step forward costs one event, and so does the next; a jump costs the way there once."""
    events = history(parts, 100)
    applied = []
    apply = Execution.apply
    monkeypatch.setattr(Execution, "apply", lambda self, event: (applied.append(event), apply(self, event)))
    inspection = zart.inspect(parts, events)

    list(inspection.moments())
    assert len(applied) == len(events)
    applied.clear()
    inspection.at(len(events))
    assert applied == []
    inspection.at(3)
    assert len(applied) == 3
    inspection.at(9)
    assert len(applied) == 9


def test_positions_outside_of_the_history_are_refused() -> None:
    """0 to n."""
    inspection = zart.inspect(parts, history(parts, 100))
    for k in (-1, len(inspection) + 1):
        with pytest.raises(zart.InvalidUse, match=f"0 to {len(inspection)}, not {k}"):
            inspection.at(k)


def test_looking_changes_nothing() -> None:
    """The history is what it was, and the execution that is looked into gives the same result."""
    events = history(parts, 100)
    before = list(events)
    list(zart.inspect(parts, events).moments())

    assert events == before
    assert zart.replay(parts, events).result() == run(parts, 100).value


# ---------------------------------------------------------------- values


class Rude:
    def __repr__(self) -> str:
        raise RuntimeError("no")


class Loud:
    def __repr__(self) -> str:
        return "red \x1b[31m\nand \u202e backwards"


class Leaving:
    def __repr__(self) -> str:
        raise SystemExit


@attrs.frozen
class Card:
    number: str
    pin: str = attrs.field(default="1234", repr=False)


@dataclass
class Person:
    name: str
    card: Card
    note: str = field(default="private", repr=False)


class Colour(enum.Enum):
    RED = 1


def test_values_are_shown_as_they_would_be_written() -> None:
    """Simple ones as their repr, records by their fields, what keeps itself out of its repr stays out."""
    for value in (None, True, 3, 1.5, "text", b"bytes", [1, [2]], (1,), (), {"a": [1]}, {}, [], set(), {1}):
        assert shown(value) == repr(value)
    assert shown(deque([1])) == "deque([1])"
    assert shown({"b", "a"}) == "{'a', 'b'}"
    assert shown(Person("Ann", Card("42"))) == "Person(name='Ann', card=Card(number='42'))"
    assert shown(Colour.RED) == "Colour.RED"
    assert shown(ValueError("why")) == "ValueError('why')"
    command = charge(1)
    command.yielded = True  # type: ignore[misc]
    assert shown(command) == "<step 'charge-1'>"


def test_a_value_that_cannot_be_shown_is_named() -> None:
    """Whatever its repr does: nothing is raised, and nothing reaches the terminal that could steer it."""
    assert shown(Rude()) == "<Rude whose repr raised RuntimeError>"
    assert shown([Leaving()]) == "[<Leaving whose repr raised SystemExit>]"
    assert shown(Loud()) == "red \\x1b[31m\\nand \\u202e backwards"
    assert shown("\x1b") == "'\\x1b'"
    assert shown(10**10_000) == "<int of 33,220 bits>"
    loop: list[Any] = []
    loop.append(loop)
    assert shown(loop) == "[<list ...>]"


def test_values_are_bounded() -> None:
    """Large, deep and wide values cost and take little; what is appended to them is seen all the same."""
    wide = list(range(1_000_000))
    assert shown(wide).endswith("999997, 999998, 999999] (1,000,000 items)")
    assert shown(wide) != shown([*wide, 7])
    assert shown(dict.fromkeys(wide)) != shown(dict.fromkeys([*wide, "x"]))
    assert len(shown([[[list(range(100))] * 100] * 100] * 100)) < CHARS_MAX + 50
    text = "x" * 3_000_000
    assert len(shown(text)) < 3_000
    assert shown(text) != shown(text + "y")
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    assert "<list ...>" in shown(deep)
    while deep:  # Python itself frees a deep list recursively
        deep = deep.pop()


@attrs.define
class Refused(Exception):
    card: str


class Told(NamedTuple):
    card: str


class Point(msgspec.Struct):
    card: str


class Showing(list[Any]):
    def __repr__(self) -> str:
        return f"Showing({super().__repr__()})"


@pytest.mark.parametrize(
    "value",
    [
        Told("4242"),
        defaultdict(dict, card="4242"),
        OrderedDict(card="4242"),
        MappingProxyType({"card": "4242"}),
        {"card": "4242"}.items(),
        {"card": "4242"}.values(),
        SimpleNamespace(card="4242"),
        SimpleNamespace(orders=[{"of": Told("4242")}]),
        Showing([Told("4242")]),
        partial(charge, card="4242"),
        Refused("4242"),
        ValueError(Told("4242")),
        Point("4242"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_shows_itself_does_not_tell_what_is_hidden_in_it(value: object) -> None:
    """A repr of a class's own knows nothing of names that are to be hidden."""
    assert "4242" in shown([value])
    assert "4242" not in shown([value], {"card"})
    assert shown([value], {"other"}) == shown([value])


def test_an_error_that_holds_what_is_hidden_says_only_what_it_is() -> None:
    """As a value, and as what has ended the run."""

    @zart.workflow("refusing")
    def refusing() -> zart.Flow[None]:
        yield from charge(1)
        try:
            raise Refused("4242")
        except Refused as error:
            raise LookupError("no other card") from error

    events = history(refusing)
    with zart.inspect(refusing, events, hide=["card"]) as inspection:
        assert (
            inspection.at(len(events)).raised[0].error
            == "LookupError: no other card (from Refused: (hidden))"
        )


def test_an_error_that_came_from_itself_is_shown_once() -> None:
    """`raise error from error` makes a circle of its causes; and an error need not have a text."""

    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    @zart.workflow("circular")
    def circular() -> zart.Flow[None]:
        yield from charge(1)
        first, second = ValueError("first"), Mute()
        second.__cause__ = first
        raise first from second

    events = history(circular)
    with zart.inspect(circular, events) as inspection:
        assert inspection.at(len(events)).raised[0].error == (
            "ValueError: first (from Mute: <its __str__ raised RuntimeError>)"
        )


def test_names_are_hidden_at_every_depth() -> None:
    """Variables, attributes and keys of these names keep their values."""
    assert shown({"card": Person("Ann", Card("42"))}, {"number"}) == (
        "{'card': Person(name='Ann', card=Card(number=(hidden)))}"
    )
    assert shown([{"pin": 1, "x": 2}], {"pin"}) == "[{'pin': (hidden), 'x': 2}]"
    inspection = zart.inspect(parts, history(parts, 10), hide=["limit"])
    shown_locals = [locals_of(frame) for moment in inspection.moments() for frame in moment.frames]
    assert {values["limit"] for values in shown_locals if "limit" in values} == {"(hidden)"}
