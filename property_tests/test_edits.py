"""Every edit, at every position of ten workflows, at every event of their histories: the verdict is right (R20, R21).

What is right is found by `edits.expected`, which reads lists of commands beside the events and shares no code with the
interpreter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from edits import Cmd, Group, Misfit, Program, edits_of, expected, places_of, settled, workflow_of

import zart_core as zart
from property_tests.tally import tally
from tests.hosted import hosted
from zart_core.deploys.checking import judge
from zart_core.hosts.ports import open_log
from zart_core.interpreter import CODEC
from zart_core.log import New, Summary
from zart_core.testing import run

GOES_ON = (zart.Status.WAITING, zart.Status.COMPLETED)


def steps(*names: str) -> list[Cmd]:
    return [Cmd("step", name) for name in names]


def seq(*commands: Cmd) -> Group:
    return Group("inline", (commands,))


PROGRAMS: dict[str, Program] = {
    "steps": (seq(*steps("a", "b", "c", "d")),),
    "sleeps": (seq(Cmd("sleep", "s", 5), *steps("a"), Cmd("sleep", "t", 6), *steps("b")),),
    "events": (seq(*steps("a"), Cmd("event", "e"), Cmd("event", "f", 2), *steps("b")),),
    "values": (seq(Cmd("now", "n"), Cmd("capture", "c"), *steps("a"), Cmd("now", "m")),),
    "children": (seq(*steps("a"), Cmd("child", "k"), Cmd("spawn", "l", 2), *steps("b")),),
    "failing": (seq(Cmd("step", "s", 1, "shaky"), Cmd("step", "b", 2, "bad"), *steps("c")),),
    "helper": (seq(*steps("a")), Group("helper", (tuple(steps("b", "c")),)), seq(*steps("d"))),
    "gather": (
        seq(*steps("a")),
        Group("plain", ((Cmd("step", "b"),), (Cmd("sleep", "s"),), (Cmd("event", "e"),))),
        seq(*steps("c")),
    ),
    "flows": (
        Group("flows", (tuple(steps("a", "b", "c")), (Cmd("step", "d"), Cmd("sleep", "s", 3)))),
        seq(*steps("e")),
    ),
    "race": (
        seq(*steps("a")),
        Group("race", ((Cmd("event", "e"),), (Cmd("sleep", "s", 50),))),
        seq(*steps("b")),
    ),
}


def commands(program: Program) -> list[Cmd]:
    return [cmd for group in program for branch in group.branches for cmd in branch]


def history_of(program: Program) -> list[zart.Event]:
    """What it does when everything comes as it should."""
    sendings = [(2.0, cmd.name, None) for cmd in commands(program) if cmd.kind == "event"]
    result = run(workflow_of(program), None, events=sendings, id="x")
    assert result.error is None
    return result.history


def verdict(workflow: Any, events: Sequence[zart.Event], *, strict: bool, whole: bool) -> Any:
    """Diverged, or None where it fits: as `zart check` judges a log, or a piece of one that ends inside a turn."""
    if not whole:
        try:
            zart.replay(workflow, events, strict=strict).close()
        except zart.Diverged as diverged:
            return diverged
        return None
    summary = Summary("x", "w", "", zart.Status.WAITING, 0, len(events), 0, 0.0, 0.0, None, None)
    found = judge(summary, events, zart.Registry(workflow).of, strict, CODEC)
    if found.fits:
        return None
    assert found.kind == "diverges", found
    return found


def position_of(found: Any) -> int:
    return int(found.event if hasattr(found, "event") else found.position)


def site(places: dict[int, tuple[str, int]], number: int | None) -> tuple[str, int] | None:
    return None if number is None else places[number]


def line(found: zart.Site | None) -> tuple[str, int] | None:
    return None if found is None else (found.qualname, found.line)


@pytest.mark.parametrize("strict", [True, False], ids=["strict", "relaxed"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_every_edit_at_every_position_and_event(name: str, strict: bool) -> None:
    """Fits or diverges, at the right event, with the right lines of both sources."""
    program = PROGRAMS[name]
    events, names = history_of(program), {cmd.name: cmd.number for cmd in commands(program)}
    old_places = places_of(program)
    whole = {k: settled(program, events[:k]) for k in range(1, len(events) + 1)}
    counts = {"fits": 0, "diverges": 0}
    for words, edited in edits_of(program):
        workflow, places = workflow_of(edited), places_of(edited)
        for k in range(1, len(events) + 1):
            cut = events[:k]
            wanted = expected(edited, cut, names, strict=strict, whole=whole[k])
            found = verdict(workflow, cut, strict=strict, whole=whole[k])
            where = f"{words}, cut at {k} of {len(events)}"
            assert (found is None) == (wanted is None), f"{where}: {found or wanted}"
            counts["fits" if wanted is None else "diverges"] += 1
            if wanted is None:
                continue
            said = (position_of(found), line(found.recorded_site), line(found.yielded_site))
            right = (wanted.event, site(old_places, wanted.recorded), site(places, wanted.yielded))
            assert said == right, f"{where}: {found}"
        if words == "nothing":
            assert all(
                expected(edited, events[:k], names, strict=True, whole=whole[k]) is None for k in whole
            )
    assert min(counts.values()) > 50, counts
    assert sum(whole.values()) > len(events) / 3
    tally("edits", verdicts=sum(counts.values()), diverging=counts["diverges"])


@pytest.mark.parametrize("name", PROGRAMS)
def test_no_run_is_ended_by_an_edit(name: str) -> None:
    """On a host: what diverges is parked with its log untouched and goes on with the old code; what fits goes on."""
    program = PROGRAMS[name]
    old, events = workflow_of(program), history_of(program)
    names = {cmd.name: cmd.number for cmd in commands(program)}
    cuts = [k for k in range(1, len(events)) if settled(program, events[:k])]
    played = parked = 0
    for n, (words, edited) in enumerate(edits_of(program)):
        workflow = workflow_of(edited)
        for k in cuts[n % 3 :: 3]:
            wanted = expected(edited, events[:k], names, strict=False, whole=True)
            played += 1
            log = open_log("memory:")
            records = CODEC.encode_events(events[:k])
            log.append([New("x", "w", "d", records, events[k - 1].at, zart.Status.WAITING)])
            now = events[k - 1].at
            status = hosted(log, workflow, "x", now)
            assert log.records("x")[:k] == records
            where = f"{words}, cut at {k}"
            assert (status is zart.Status.PARKED) == (wanted is not None), f"{where}: {status}"
            if wanted is None:
                assert status in GOES_ON, f"{where}: {status}"
                continue
            parked += 1
            assert len(log.records("x")) == k, where
            assert hosted(log, old, "x", now) in GOES_ON, where
    assert parked > 10
    tally("edits", hosted=played, parked=parked)


def test_what_is_right_is_not_what_the_interpreter_says() -> None:
    """A control: a reading that knows no order, and one that knows no arguments, are told from the interpreter."""
    program = PROGRAMS["steps"]
    events = history_of(program)
    names = {cmd.name: cmd.number for cmd in commands(program)}
    edits = dict(edits_of(program))

    assert expected(edits["swap a and b"], events, names, strict=True, whole=True) == Misfit(
        1, names["a"], names["b"]
    )
    assert expected(edits["change the argument of d"], events, names, strict=False, whole=True) is None
    changed = expected(edits["change the argument of d"], events, names, strict=True, whole=True)
    assert changed is not None and (changed.recorded, changed.yielded) == (names["d"], names["d"])
    assert expected(edits["delete d"], events, names, strict=True, whole=True) == Misfit(
        changed.event, names["d"], None
    )
