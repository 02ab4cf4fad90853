"""How executions end: cancelled with grace, shielded, swallowed, terminated; and what a parent takes along (R18)."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from engines import PATIENCE_S, STORES, Ledger, kinds, until, url_of

import zart_core as zart
from zart_core.hosts.ports import open_log
from zart_core.testing.clock import VirtualClock


@pytest.fixture(params=STORES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return url_of(request.param, tmp_path)


def test_cancel_throws_where_it_waits_and_compensation_is_durable(url: str) -> None:
    """try/finally runs, compensation is recorded, and the result raises with the reason (R18)."""
    ledger = Ledger()

    @zart.step("undo-{n}")
    def undo(n: int) -> int:
        return ledger(n)

    @zart.workflow("saga")
    def saga(_: None) -> zart.Flow[None]:
        try:
            yield from zart.wait_for_event("never")
        finally:
            for n in (3, 2, 1):
                yield from undo(n)

    with zart.open(url, [saga]) as engine:
        handle = engine.start(saga, None)
        assert handle.cancel("too late") is True
        with pytest.raises(zart.ExecutionCancelled, match="too late"):
            handle.result(5)
        assert handle.cancel() is False
    assert ledger.entries == [3, 2, 1]


def undone(work: Any, ledger: Ledger) -> zart.Workflow[None, None]:
    """A workflow that undoes a step, however that ends."""

    @zart.step()
    def undo() -> None:
        ledger("undo")

    @zart.workflow("saga")
    def saga() -> zart.Flow[None]:
        try:
            yield from work()
        finally:
            yield from undo()

    return saga


def test_a_running_async_step_is_told_to_end_and_compensation_waits_for_it() -> None:
    """Compensation must not overtake what it undoes (R18)."""
    ledger = Ledger()
    began = threading.Event()

    @zart.step()
    async def work() -> None:
        began.set()
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)
            ledger("work has ended")

    saga = undone(work, ledger)
    with zart.open("memory:", [saga]) as engine:
        handle = engine.start(saga, None)
        began.wait(5)
        handle.cancel()
        with pytest.raises(zart.ExecutionCancelled):
            handle.result(5)
    assert ledger.entries == ["work has ended", "undo"]


def test_a_sync_step_gets_its_grace_and_no_more() -> None:
    """A running sync step cannot be told; when its grace is over it is abandoned (R11, R18)."""
    clock = VirtualClock()
    began, release = threading.Event(), threading.Event()
    ledger = Ledger()

    @zart.step(cancel_grace="30s")
    def work() -> None:
        began.set()
        release.wait(20)

    saga = undone(work, ledger)
    with zart.open("memory:", [saga], clock=clock) as engine:
        handle = engine.start(saga, None)
        began.wait(5)
        handle.cancel()
        until(lambda: "Interrupted" in kinds(handle.history()))
        clock.advance(29)
        assert ledger.entries == []
        clock.advance(1)
        with pytest.raises(zart.ExecutionCancelled):
            handle.result(5)
        assert ledger.entries == ["undo"]
        release.set()


def test_a_step_that_ends_in_its_grace_keeps_its_outcome() -> None:
    """What it did is on record; Cancelled is thrown all the same."""
    began, release = threading.Event(), threading.Event()

    @zart.step()
    def work() -> str:
        began.set()
        release.wait(20)
        return "done"

    @zart.workflow("saga")
    def saga(_: None) -> zart.Flow[str]:
        return (yield from work())

    with zart.open("memory:", [saga]) as engine:
        handle = engine.start(saga, None)
        began.wait(5)
        handle.cancel()
        until(lambda: "Interrupted" in kinds(handle.history()))
        release.set()
        with pytest.raises(zart.ExecutionCancelled):
            handle.result(5)
        (resolved,) = [event for event in handle.history() if isinstance(event, zart.Resolved)]
    assert resolved.outcome == zart.Done(b'"done"')


def test_a_failed_attempt_is_not_retried_once_cancelled() -> None:
    """A retry that is waiting is withdrawn at once (R18)."""
    clock, ledger = VirtualClock(), Ledger()

    @zart.step(retry=zart.Retry.fixed(5, "1h"))
    def work() -> None:
        ledger("work")
        raise RuntimeError("again")

    @zart.workflow("saga")
    def saga(_: None) -> zart.Flow[None]:
        yield from work()

    with zart.open("memory:", [saga], clock=clock) as engine:
        handle = engine.start(saga, None)
        until(lambda: "Retried" in kinds(handle.history()))
        handle.cancel()
        with pytest.raises(zart.ExecutionCancelled):
            handle.result(5)
    assert ledger.entries == ["work"]


def test_a_shield_is_waited_for_and_its_value_delivered(url: str) -> None:
    """Cancelled is thrown at the next command after the shield (R18)."""
    ledger = Ledger()

    @zart.step("part-{n}")
    def part(n: int) -> int:
        ledger(n)
        return n

    def both() -> zart.Flow[int]:
        yield from zart.wait_for_event("go")
        return (yield from part(1)) + (yield from part(2))

    @zart.workflow("shielded")
    def shielded(_: None) -> zart.Flow[None]:
        value = yield from zart.shield(both())
        ledger(("value", value))
        yield from part(3)

    with zart.open(url, [shielded]) as engine:
        handle = engine.start(shielded, None)
        handle.cancel()
        until(lambda: "Interrupted" in kinds(handle.history()))
        handle.send("go", None)
        with pytest.raises(zart.ExecutionCancelled):
            handle.result(5)
    assert [entry for entry in ledger.entries if entry != ("value", 3)] == [1, 2]
    assert ("value", 3) in ledger.entries


def test_a_workflow_that_swallows_cancellation_goes_on(url: str) -> None:
    """It may complete, and a second request changes nothing (R18)."""

    @zart.workflow("stubborn")
    def stubborn(_: None) -> zart.Flow[str]:
        with contextlib.suppress(zart.Cancelled):
            yield from zart.wait_for_event("a")
        return (yield from zart.wait_for_event("b", str))

    with zart.open(url, [stubborn]) as engine:
        handle = engine.start(stubborn, None)
        assert handle.cancel("once")
        until(lambda: "Interrupted" in kinds(handle.history()))
        assert handle.cancel("twice")
        handle.send("b", "completed")
        assert handle.result(5) == "completed"
        assert kinds(handle.history()).count("Interrupted") == 1


def test_each_run_can_be_cancelled(url: str) -> None:
    """One that swallows it and continues as new has not used up what its next run may be asked (R18)."""

    @zart.workflow("goes-on")
    def goes_on(n: int) -> zart.Flow[None]:
        try:
            yield from zart.wait_for_event("never")
        except zart.Cancelled:
            if n:
                raise
        yield from goes_on.continue_as_new(n + 1)

    with zart.open(url, [goes_on]) as engine:
        handle = engine.start(goes_on, 0)
        assert handle.cancel("once")
        until(lambda: "Issued" in kinds(handle.history(run=1)))
        assert handle.cancel("twice")
        with pytest.raises(zart.ExecutionCancelled):
            handle.result(PATIENCE_S)


def test_cancel_before_it_has_begun() -> None:
    """A scheduled execution that is cancelled begins, and is interrupted at its first wait."""
    from datetime import datetime

    clock = VirtualClock()

    @zart.workflow("later")
    def later(_: None) -> zart.Flow[None]:
        yield from zart.wait_for_event("never")

    with zart.open("memory:", [later], clock=clock) as engine:
        at = datetime.fromtimestamp(clock.now() + 60, UTC)
        handle = engine.start(later, None, at=at)
        assert handle.cancel()
        clock.advance(60)
        with pytest.raises(zart.ExecutionCancelled):
            handle.result(5)


def test_terminate_ends_at_once_without_code(url: str) -> None:
    """No compensation, no further turn; what runs is let go (R18)."""
    ledger = Ledger()
    began = threading.Event()

    @zart.step()
    async def work() -> None:
        began.set()
        await asyncio.sleep(60)

    saga = undone(work, ledger)
    with zart.open(url, [saga]) as engine:
        handle = engine.start(saga, None)
        began.wait(5)
        assert handle.terminate("enough")
        with pytest.raises(zart.ExecutionTerminated, match="enough"):
            handle.result(5)
        assert handle.status() is zart.Status.TERMINATED
        until(lambda: engine.engine.attempts.slots == 64)
    assert ledger.entries == []


def test_terminate_reaches_a_parked_execution(url: str) -> None:
    """Terminating needs no code (R18)."""

    @zart.step("old")
    def step() -> None: ...

    @zart.workflow("changes")
    def before(_: None) -> zart.Flow[None]:
        yield from step()
        yield from zart.wait_for_event("never")

    @zart.workflow("changes")
    def after(_: None) -> zart.Flow[None]:
        yield from step().named("new")

    log, clock = open_log(url), VirtualClock()
    with zart.open(log, [before], clock=clock) as engine:
        handle = engine.start(before, None, id="p")
        until(lambda: "event" in str(handle.history()))
    with zart.open(log, [after], clock=clock) as engine:
        engine.send("p", "poke", 1)
        until(lambda: engine.get("p").status() is zart.Status.PARKED)
        clock.jump(hours=-1)  # times on record do not go back with it (I2)
        engine.terminate("p", "gone")
        with pytest.raises(zart.ExecutionTerminated):
            engine.get("p").result(5)
        times = [event.at for event in engine.get("p").history()]
        assert times == sorted(times)
    log.verify()
    log.close()


def test_terminating_a_parked_parent_ends_its_children(url: str) -> None:
    """Its log says for whom it waited; its code is not needed."""

    @zart.workflow("waits")
    def waits(_: None) -> zart.Flow[None]:
        yield from zart.wait_for_event("never")

    @zart.workflow("parent")
    def before(_: None) -> zart.Flow[None]:
        yield from zart.child(waits, None, id="c")

    @zart.workflow("parent")
    def after(_: None) -> zart.Flow[None]:
        yield from zart.sleep("instead", 1)

    log = open_log(url)
    with zart.open(log, [before, waits]) as engine:
        engine.start(before, None, id="p")
        until(lambda: engine.list(id_prefix="c").items)
    with zart.open(log, [after, waits]) as engine:
        engine.send("p", "poke", 1)
        until(lambda: engine.get("p").status() is zart.Status.PARKED)
        engine.terminate("p", "gone")
        with pytest.raises(zart.ExecutionTerminated):
            engine.get("c").result(5)
    log.close()


def test_leftovers_are_cancelled_before_the_result_counts(url: str) -> None:
    """What a run started and did not wait for is unwound first, newest first (R24)."""
    ledger = Ledger()

    @zart.step("undo-{name}")
    def undo(name: str) -> None:
        ledger(name)

    def branch(name: str) -> zart.Flow[None]:
        try:
            yield from zart.wait_for_event("never")
        finally:
            yield from undo(name)

    @zart.workflow("leaves")
    def leaves(_: None) -> zart.Flow[str]:
        yield from zart.schedule(branch("first"))
        yield from zart.schedule(branch("second"))
        yield from zart.sleep("a-moment", 0.01)
        return "result"

    with zart.open(url, [leaves]) as engine:
        assert engine.run(leaves, None) == "result"
    assert sorted(ledger.entries) == ["first", "second"]


def test_a_cancelled_race_loser_ends_before_the_race_returns() -> None:
    """Only race cancels; the loser's running step is told to end (R18)."""
    ledger = Ledger()

    @zart.step()
    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ledger("slow has ended")

    @zart.step()
    async def quick() -> str:
        await asyncio.sleep(0.02)
        return "quick"

    @zart.workflow("races")
    def races(_: None) -> zart.Flow[tuple[int, str | None]]:
        winner = yield from zart.race(slow(), quick())
        ledger("race is over")
        return winner

    with zart.open("memory:", [races]) as engine:
        assert engine.run(races, None) == (1, "quick")
    assert ledger.entries == ["slow has ended", "race is over"]
