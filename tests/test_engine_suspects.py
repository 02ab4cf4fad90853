"""Suspects of a crash under the engine: who waits for whom, and what may run beside the one that is watched (R5)."""

from __future__ import annotations

import threading
from typing import Any

import attrs
import pytest
from engines import Ledger, until

import zart_core as zart
from zart_core.hosts.ports import open_log
from zart_core.hosts.relatives import new_execution
from zart_core.hosts.turns import Run
from zart_core.interpreter import CODEC
from zart_core.log import EventLog, Ok
from zart_core.workflows import Registry

DEAD = "dead"
"""The worker that ran everything before, and that is not released yet."""


class Stage:
    """A workflow of steps side by side, each of which lasts until its gate is opened."""

    def __init__(self) -> None:
        self.ledger = ledger = Ledger()
        self.gates = gates = [threading.Event() for _ in range(4)]

        @zart.step("work-{n}")
        def work(n: int) -> int:
            ledger(n)
            gates[n].wait(20)
            return n

        @zart.workflow("w")
        def flow(ns: list[int]) -> zart.Flow[list[int]]:
            return (yield from zart.wait([work(n) for n in ns]))

        self.flow = flow


@pytest.fixture
def stage():
    made = Stage()
    yield made
    for gate in made.gates:
        gate.set()


@pytest.fixture
def log():
    made = open_log("memory:")
    yield made
    made.close()


def turn(log: EventLog, run: Run, slots: int) -> None:
    """One turn of a worker at time 1."""
    run.build(1.0)
    run.begin(slots, 1.0)
    outcomes = log.append(run.compose(1.0))
    assert all(isinstance(outcome, Ok) for outcome in outcomes)
    run.committed(1.0)


def crashed_twice(log: EventLog, flow: zart.Workflow[Any, Any], id: str, ns: list[int], slots: int) -> None:
    """An execution whose worker died with `slots` steps running, and its next one with the first of them on trial."""
    log.append([new_execution(CODEC, flow, id, CODEC.encode(ns, list[int]), 0.0)])
    summary = log.acquire(DEAD, id, lease_s=600.0)
    assert summary is not None
    for takeover in (False, True):
        run = Run(attrs.evolve(summary, position=0), CODEC)
        run.revive(log.records(id, 0), Registry(flow))
        if takeover:
            assert list(run.suspects) == list(range(slots))
            assert run.try_suspect(0, alone=False, now=1.0)
            turn(log, run, 1)
        else:
            turn(log, run, slots)
        run.drop()


def take_up(log: EventLog, engine: zart.Engine) -> None:
    """The dead worker's claims are free, and the engine hears of it."""
    log.release(DEAD)
    engine.engine.loop.call_soon_threadsafe(engine.engine.claims.claiming.set)


def test_a_watched_suspect_gets_the_slot_that_it_waited_for(log: EventLog, stage: Stage) -> None:
    """R5, I18: the only slot was taken when it was put on trial; nobody else gets it then, so it must."""
    crashed_twice(log, stage.flow, "a", [0, 1], slots=2)
    with zart.open(log, [stage.flow], max_concurrent_steps=1) as engine:
        other = engine.start(stage.flow, [2, 3], id="b")
        until(lambda: stage.ledger.entries == [2])
        take_up(log, engine)
        until(lambda: engine.engine.suspects.watched == ("a", 0))
        for gate in stage.gates:
            gate.set()
        assert engine.get("a").result(10) == [0, 1]
        assert other.result(10) == [2, 3]
    assert stage.ledger.entries[:2] == [2, 0]


def test_a_retry_that_may_have_been_running_is_a_second_suspect(log: EventLog) -> None:
    """R5: its start is not on record, so it is not known whose doing the crash was, and nobody is condemned for it."""

    @zart.step("harmless", max_crashes=1)
    def harmless() -> str:
        return "harmless"

    @zart.step("kills-at-its-second-attempt", retry=zart.Retry.fixed(1, 0))
    def kills() -> str:
        return "through"

    @zart.workflow("w")
    def flow(_: None) -> zart.Flow[tuple[str, str]]:
        return (yield from zart.gather(harmless(), kills()))

    log.append([new_execution(CODEC, flow, "a", b"null", 0.0)])
    summary = log.acquire(DEAD, "a", lease_s=600.0)
    assert summary is not None
    run = Run(summary, CODEC)
    run.revive(log.records("a", 0), Registry(flow))
    run.build(1.0)
    run.begin(2, 1.0)
    log.append(run.compose(1.0))
    _, killer = run.committed(1.0).calls
    run.raised(killer, ValueError("once more"), 1.0)
    turn(log, run, 2)
    assert list(run.running) == [0, 1]
    run.drop()

    with zart.open(log, [flow]) as engine:
        take_up(log, engine)
        assert engine.get("a").result(10) == ("harmless", "through")


def test_nothing_of_its_own_execution_begins_beside_a_watched_suspect(log: EventLog, stage: Stage) -> None:
    """R5: what begins beside it may kill the worker too, and the log would say that the suspect did."""
    crashed_twice(log, stage.flow, "a", [0, 1, 2], slots=2)
    with zart.open(log, [stage.flow]) as engine:
        take_up(log, engine)
        until(lambda: stage.ledger.entries)
        history = engine.get("a").history()
        told = [event for event in history if isinstance(event, zart.Noted)]
        assert [(note.what, note.who) for note in told] == [("alone", "0")]
        assert [event.seq for event in history if isinstance(event, zart.Began)] == [0, 1, 0, 0]
        assert stage.ledger.entries == [0]
        for gate in stage.gates:
            gate.set()
        assert engine.get("a").result(10) == [0, 1, 2]
    assert sorted(stage.ledger.entries) == [0, 1, 2]
