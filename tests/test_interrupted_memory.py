"""An append to memory that is interrupted anywhere is there as a whole or not at all, and hinders nobody (F27, L1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from property_tests.lines import interrupted
from zart_core.events import Status
from zart_core.log import EventLog, Mark, New, Post, Record, Turn, Write
from zart_stores import memory


def records(*kinds: str) -> list[Record]:
    return [Record(kind, 1.0, kind.encode()) for kind in kinds]


def new(id: str, **options: Any) -> New:
    return New(id, "flow", f"digest of {id}", records("Started"), 1.0, **options)


def turn(id: str, position: int, *kinds: str, run: int = 0, **options: Any) -> Turn:
    return Turn(id, run, position, 1, records(*kinds), 1.0, options.pop("status", Status.WAITING), **options)


SCRIPT: list[Write] = [
    new("other", owner="w"),
    new("a", owner="w", posts=[Post("other", "event", "hello", b"1", 1.0, "k1")], creates=[new("kid")]),
    turn("a", 1, "Issued", "Began", status=Status.RUNNING, wake=5.0),
    Post("a", "event", "go", b"1", 1.0, "k2"),
    Post("a", "event", "go", b"2", 1.0, "k6"),
    Post("a", "cancel", "cancel", b"", 1.0, "k3"),
    turn(
        "a", 3, "Resolved", "Delivered", consumes=[2], seen=3, wake=7.0,
        creates=[new("grandkid", posts=[Post("kid", "event", "deep", b"", 1.0, "k4")])],
        posts=[Post("other", "event", "bye", b"2", 1.0, "k5")],
    ),
    Mark("a", Status.PARKED, "why", "build", wake=9.0, seen=3, fence=1),
    turn("a", 5, "Closed", status=Status.CONTINUED, opens=records("Started", "Issued"), consumes=[1, 3], seen=3),
    turn("a", 2, "Resolved", "Closed", run=1, status=Status.COMPLETED),
    turn("other", 1, "Issued", releases=True, seen=2),
]  # fmt: skip


def played(count: int) -> EventLog:
    """A log after the first writes of the script."""
    log = memory.open("memory:", clock=lambda: 100.0)
    for write in SCRIPT[:count]:
        log.append([write])
    return log


def state(log: EventLog) -> Any:
    """All there is to see."""
    log.verify()
    found = log.list(limit=100).items
    return (
        found,
        [log.records(summary.id, run) for summary in found for run in range(summary.run + 1)],
        [log.inbox(summary.id) for summary in found],
        log.stats(),
        log.next_wake(),
    )


@pytest.mark.parametrize("number", range(len(SCRIPT)))
def test_an_append_that_is_interrupted_is_whole_or_not_there(number):
    """Wherever it strikes: the state before or after, and the same append again goes on from there."""
    before, after = state(played(number)), state(played(number + 1))
    whole = played(number)
    lines = interrupted(lambda: whole.append([SCRIPT[number]]), -1)
    seen = []

    for at in range(1, lines + 1):
        log = played(number)
        interrupted(lambda log=log: log.append([SCRIPT[number]]), at)
        found = state(log)
        assert found in (before, after), f"interrupted at line {at} of {lines}"
        seen.append(found == before)
        log.append([SCRIPT[number]])
        assert state(log) == after

    assert before != after
    assert lines > 20
    assert True in seen


def test_what_was_appended_before_it_stays():
    """An interrupt in a batch undoes the write in hand, and none before it."""
    batch: Sequence[Write] = [new("x"), new("y"), new("z")]
    whole = memory.open("memory:")
    lines = interrupted(lambda: whole.append(batch), -1)
    found = set()

    for at in range(1, lines + 1):
        log = memory.open("memory:")
        interrupted(lambda log=log: log.append(batch), at)
        found.add(tuple(summary.id for summary in log.list().items))

    assert found == {(), ("x",), ("x", "y"), ("x", "y", "z")}


@pytest.mark.parametrize("do", ["claim", "acquire", "release", "close"])
def test_a_claim_that_is_interrupted_loses_nobody(do):
    """Whoever was half taken or half freed is due again once the worker is gone."""

    def call(log: EventLog) -> Any:
        match do:
            case "claim":
                return log.claim("v", now=10.0, lease_s=30.0, limit=10)
            case "acquire":
                return log.acquire("v", "kid", lease_s=30.0)
            case "release":
                return log.release("w")
            case _:
                return log.close()

    whole = played(4)
    lines = interrupted(lambda: call(whole), -1)
    whole = played(4)
    whole.release("w")
    everybody = {summary.id for summary in whole.claim("u", now=10.0, lease_s=30.0, limit=10)}

    for at in range(1, lines + 1):
        shelf = f"memory:interrupted-{do}-{at}"
        log = memory.open(shelf)
        for write in SCRIPT[:4]:
            log.append([write])
        interrupted(lambda log=log: call(log), at)
        log = memory.open(shelf)
        fences = {summary.id: summary.fence for summary in log.list().items}
        log.release("v")
        log.release("w")
        taken = log.claim("u", now=10.0, lease_s=30.0, limit=10)
        assert {summary.id for summary in taken} == everybody, f"interrupted at line {at} of {lines}"
        assert all(summary.fence > fences[summary.id] or fences[summary.id] == 0 for summary in taken)
        log.verify()

    assert len(everybody) >= 2
    assert lines > 8
