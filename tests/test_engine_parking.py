"""Defects park an execution, which goes on by itself when fixed code is there (R20, R21, F23)."""

from __future__ import annotations

import contextlib
import gc
import math
import sqlite3
import sys
import threading
import traceback
import weakref
from pathlib import Path
from typing import Any

import pytest
from engines import PATIENCE_S, STORES, Ledger, kinds, until, url_of

import zart_core as zart
from zart_core import log as stored
from zart_core.cli import reading
from zart_core.hosts import claims, turns
from zart_core.hosts.ports import open_log
from zart_core.testing.clock import VirtualClock
from zart_core.testing.faulty import Fault, FaultyStore


@pytest.fixture(params=STORES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return url_of(request.param, tmp_path)


@zart.step("one")
def one() -> int:
    return 1


@zart.step("two")
def two() -> int:
    return 2


@zart.workflow("fine")
def fine(_: None) -> zart.Flow[int]:
    return (yield from one())


def changing(*names: str, wait: bool = True) -> Any:
    """A version of the workflow: its steps by name, and then it waits for an event."""

    @zart.workflow("changing")
    def flow(_: None) -> zart.Flow[int]:
        total = 0
        for name in names:
            total += yield from one().named(name)
        if wait:
            total += yield from zart.wait_for_event("number", int)
        return total

    return flow


# ---------------------------------------------------------------- unregistered


def test_an_unregistered_workflow_is_parked_and_visible(url: str) -> None:
    """Visible with its reason; others go on; it resumes when it is registered, here or after a restart (R20)."""
    log = open_log(url)
    flow = changing("a")
    with zart.open(log, [flow]) as engine:
        for id in ("p", "q"):
            engine.start(flow, None, id=id)
            until(lambda id=id: "event" in str(engine.get(id).history()))
    with zart.open(log, [fine]) as engine:
        (p, _q) = engine.list(status="parked").items
        assert "UnknownWorkflow" in p.reason
        assert engine.run(fine, None) == 1
        engine.send("p", "number", 4)  # it accepts facts while it is parked
        engine.register(flow)
        assert engine.get("p").result(5) == 5
    with zart.open(log, [flow]) as engine:
        engine.send("q", "number", 5)
        assert engine.get("q").result(5) == 6
    log.verify()
    log.close()


def test_what_nobody_has_registered_is_terminated_all_the_same(url: str, monkeypatch: Any) -> None:
    """R18: it needs no code; also where the request came by the command line, or while no worker ran."""
    monkeypatch.setattr(claims, "PARKED_S", 0.0)
    monkeypatch.setattr(claims, "SAFETY_S", 0.05)
    log, flow = open_log(url), changing("a")
    with zart.open(log, [flow]) as engine:
        for id in ("p", "q", "r"):
            engine.start(flow, None, id=id)
            until(lambda id=id: "event" in str(engine.get(id).history()))
    with zart.open(log, [fine]) as engine:
        assert reading.request(log, "q", "terminate", "enough")
        assert engine.get("p").terminate("no code")
        for id, why in (("p", "no code"), ("q", "enough")):
            with pytest.raises(zart.ExecutionTerminated, match=why):
                engine.get(id).result(PATIENCE_S)
        assert engine.get("r").status() == "parked"
        assert engine.get("p").terminate() is False
    log.verify()
    log.close()


def test_what_is_parked_for_want_of_code_that_another_worker_has_is_not_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R20, I8: one that opens the log with other code parks what nobody holds; it is taken up when it is due."""
    monkeypatch.setattr(claims, "PARKED_S", math.inf)  # nobody looks at what is parked, from time to time

    @zart.workflow("naps")
    def naps(_: None) -> zart.Flow[int]:
        yield from zart.sleep("nap", "1h")
        return 1

    @zart.workflow("waits")
    def waits(_: None) -> zart.Flow[int]:
        return (yield from zart.wait_for_event("number", int))

    def free(engine: zart.Engine) -> set[str]:
        return {each.id for each in engine.list().items if each.owner is None}

    url, clock = url_of("sqlite", tmp_path), VirtualClock()
    with zart.open(url, [naps, waits], clock=clock, max_live=1) as theirs:
        nap, wait, _ = theirs.start(naps, id="n"), theirs.start(waits, id="w"), theirs.start(waits, id="last")
        until(lambda: free(theirs) == {"n", "w"})
        with zart.open(url, [fine]) as ours:
            assert {each.id for each in ours.list(status="parked").items} == {"n", "w"}
        wait.send("number", 2)
        assert wait.result(PATIENCE_S) == 2
        clock.advance(3600)
        assert nap.result(PATIENCE_S) == 1


@pytest.mark.parametrize("fault", ["rejected", "unwritten", "written"])
def test_what_could_not_be_parked_for_want_of_code_is_left_to_who_has_it(
    tmp_path: Path, fault: Fault
) -> None:
    """I8, L3: a worker keeps nothing that it does not know, whatever the weather was when it was opened."""
    url, flow = url_of("sqlite", tmp_path), changing()
    with zart.open(url, [flow]) as engine:
        engine.start(flow, None, id="a")
    log = FaultyStore(open_log(url), {0: fault})
    with zart.open(log, [fine]), zart.open(url, [flow]) as engine:
        assert log.injected == [("append", 0, fault)]
        engine.send("a", "number", 7)
        assert engine.get("a").result(PATIENCE_S) == 7
    log.close()


# ---------------------------------------------------------------- diverged


def parked_by_changed_code(log: Any, clock: Any = None) -> Any:
    """An execution whose code was changed under it."""
    old = changing("a", "b")
    with zart.open(log, [old], clock=clock) as engine:
        engine.start(old, None, id="p")
        until(lambda: "event" in str(engine.get("p").history()))
    return old


def test_diverged_shows_both_sides_and_writes_nothing(url: str) -> None:
    """result() raises it, the log is untouched, other executions go on (R20, R21)."""
    log = open_log(url)
    parked_by_changed_code(log)
    before = log.records("p")
    with zart.open(log, [changing("a", "c"), fine], build="build-7") as engine:
        handle = engine.get("p")
        handle.send("other", 1)
        with pytest.raises(zart.Diverged) as caught:
            handle.result(5)
        assert (caught.value.recorded, caught.value.yielded) == ("step 'b'", "step 'c'")
        until(lambda: handle.status() is zart.Status.PARKED)
        with pytest.raises(zart.Diverged):
            handle.result(5)
        assert engine.run(fine, None) == 1
        (item,) = engine.list(status="parked").items
        assert item.build == "build-7" and "Diverged" in item.reason
    assert log.records("p") == before
    log.close()


def test_the_error_of_a_parked_execution_keeps_nothing_of_who_was_told() -> None:
    """Whoever asks gets it with a traceback of their own; it grew with each, and so did what it held in memory."""

    @zart.workflow("w")
    def wrong(_: None) -> zart.Flow[None]:
        yield "no command"  # type: ignore[misc]

    def told(handle: zart.Handle[None]) -> int:
        with pytest.raises(zart.NotACommand) as caught:
            handle.result(PATIENCE_S)
        return len(list(traceback.walk_tb(caught.value.__traceback__)))

    with zart.open("memory:", [wrong]) as engine:
        handle = engine.start(wrong)
        told(handle)
        assert told(handle) == told(handle)


def test_it_goes_on_by_itself_with_fixed_code(url: str) -> None:
    """By register(), and by a restart; messages that came in meanwhile are not lost."""
    log = open_log(url)
    old = parked_by_changed_code(log)
    with zart.open(log, [changing("a", "c")]) as engine:
        engine.send("p", "number", 5)
        until(lambda: engine.get("p").status() is zart.Status.PARKED)
        engine.register(changing("a", "d"))  # no better
        until(lambda: engine.get("p").status() is zart.Status.PARKED)
        engine.register(old)
        assert engine.get("p").result(5) == 7
    log.close()


def test_it_goes_on_after_a_restart(url: str) -> None:
    """A parked execution is tried again by the next engine, without being asked."""
    log = open_log(url)
    old = parked_by_changed_code(log)
    with zart.open(log, [changing("a", "c")]) as engine:
        engine.send("p", "number", 5)
        until(lambda: engine.get("p").status() is zart.Status.PARKED)
    with zart.open(log, [old]) as engine:
        assert engine.get("p").result(5) == 7
    log.close()


@pytest.mark.parametrize("restart", [False, True])
def test_what_goes_on_and_only_waits_is_not_listed_as_parked(url: str, *, restart: bool) -> None:
    """The code fits again and there is nothing to append: lists say at once that it waits."""
    log = open_log(url)
    old = parked_by_changed_code(log)
    with zart.open(log, [changing("a", "c")]) as engine:
        engine.send("p", "nobody-waits-for-it", 1)  # makes it due
        until(lambda: engine.get("p").status() is zart.Status.PARKED)
        if not restart:
            engine.register(old)
            until(lambda: engine.get("p").status() is zart.Status.WAITING)
    with zart.open(log, [old]) as engine:
        until(lambda: engine.get("p").status() is zart.Status.WAITING)
        summary = log.summary("p")
        assert summary is not None
        assert not summary.reason
        engine.send("p", "number", 5)
        assert engine.get("p").result(5) == 7
    log.close()


def test_cancel_while_parked_takes_effect_when_the_code_fits(url: str) -> None:
    """The request is kept."""
    log = open_log(url)
    old = parked_by_changed_code(log)
    with zart.open(log, [changing("a", "c")]) as engine:
        assert engine.cancel("p", "enough")
        until(lambda: engine.get("p").status() is zart.Status.PARKED)
        engine.register(old)
        with pytest.raises(zart.ExecutionCancelled, match="enough"):
            engine.get("p").result(5)
    log.close()


def test_the_deadline_of_a_parked_run_is_recorded_and_takes_effect_later(url: str) -> None:
    """It is in the log before the code fits again (R16)."""
    clock = VirtualClock()
    log = open_log(url)

    def limited(name: str) -> Any:
        @zart.workflow("limited", timeout="1h")
        def flow(_: None) -> zart.Flow[None]:
            yield from one().named(name)
            yield from zart.wait_for_event("never")

        return flow

    old = limited("a")
    with zart.open(log, [old], clock=clock) as engine:
        engine.start(old, None, id="p")
        until(lambda: "event" in str(engine.get("p").history()))
    with zart.open(log, [limited("b")], clock=clock) as engine:
        engine.send("p", "poke", 1)
        until(lambda: engine.get("p").status() is zart.Status.PARKED)
        clock.advance(hours=1)
        until(lambda: "Interrupted" in kinds(engine.get("p").history()))
        clock.advance(hours=1)
        engine.register(old)
        with pytest.raises(zart.ExecutionTimedOut):
            engine.get("p").result(5)
        assert kinds(engine.get("p").history()).count("Interrupted") == 1
    log.verify()
    log.close()


def test_a_step_that_runs_while_its_execution_is_parked_keeps_its_outcome(url: str) -> None:
    """Its outcome is accepted as a fact; with fixed code it is there, and the step has run once."""
    ledger, gate = Ledger(), threading.Event()

    @zart.step("slow")
    def slow() -> int:
        ledger("slow")
        gate.wait(20)
        return 10

    def version(broken: bool) -> Any:
        @zart.workflow("two-branches")
        def flow(_: None) -> zart.Flow[int]:
            task = yield from zart.schedule(slow())
            number = yield from zart.wait_for_event("number", int)
            if broken:
                yield from one().named("slow")
            (value,) = yield from zart.wait([task])
            return value + number

        return flow

    log = open_log(url)
    broken, clock = version(True), VirtualClock()
    with zart.open(log, [broken], clock=clock) as engine:
        handle = engine.start(broken, None, id="p")
        handle.send("number", 1)
        with pytest.raises(zart.DuplicateName):
            handle.result(5)
        clock.jump(hours=-1)  # times on record do not go back with it (I2)
        gate.set()
        until(lambda: "Resolved" in kinds(handle.history()))
        until(lambda: "p" not in engine.engine.live)
        engine.register(version(False))
        assert handle.result(5) == 11
        outcomes = [event for event in handle.history() if isinstance(event, zart.Resolved)]
        assert [outcome.held for outcome in outcomes] == [True, False]
        assert all(event.at >= clock.now() + 3600 for event in handle.history())
    assert ledger.entries == ["slow"]
    log.verify()
    log.close()


# ---------------------------------------------------------------- the code is wrong


def wrong_twice() -> zart.Flow[Any]:
    yield from one()
    yield from one()


def wrong_thing() -> zart.Flow[Any]:
    yield from one()
    yield 3  # type: ignore[misc]


def wrong_none() -> zart.Flow[Any]:
    yield from one()
    yield  # type: ignore[misc]


def wrong_argument() -> zart.Flow[Any]:
    yield from one()
    yield from takes(object())  # type: ignore[arg-type]


def wrong_result() -> zart.Flow[Any]:
    yield from one()
    return object()


def wrong_exit() -> zart.Flow[Any]:
    yield from one()
    sys.exit(3)


@zart.step("takes")
def takes(n: int) -> int:
    return n


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (wrong_twice, zart.DuplicateName),
        (wrong_thing, zart.NotACommand),
        (wrong_none, zart.NotACommand),
        (wrong_argument, zart.Unencodable),
        (wrong_result, zart.Unencodable),
        (wrong_exit, zart.Defect),
    ],
)
def test_wrong_code_parks_and_goes_on_when_it_is_mended(body: Any, error: type[Exception]) -> None:
    """A defect is never written and never ends a run; the fix resumes it; others go on (R20)."""

    @zart.workflow("w")
    def wrong(_: None) -> zart.Flow[Any]:
        return (yield from body())

    @zart.workflow("w")
    def mended(_: None) -> zart.Flow[int]:
        return (yield from one()) + (yield from two())

    with zart.open("memory:", [wrong, fine]) as engine:
        handle = engine.start(wrong, None, id="p")
        with pytest.raises(error):
            handle.result(5)
        until(lambda: handle.status() is zart.Status.PARKED)
        assert engine.run(fine, None) == 1
        assert not {"Closed"} & set(kinds(handle.history()))
        engine.register(mended)
        assert engine.get("p").result(5) == 3


def test_wrong_from_the_first_line() -> None:
    """A workflow whose very first command is wrong is created, and parked."""

    @zart.workflow("w")
    def wrong(_: None) -> zart.Flow[int]:
        yield "text"  # type: ignore[misc]
        return 1

    with zart.open("memory:", [wrong]) as engine:
        with pytest.raises(zart.NotACommand):
            engine.run(wrong, None, id="p")
        assert engine.get("p").status() is zart.Status.PARKED


def test_nothing_of_a_parked_run_is_kept_but_why() -> None:
    """R20: neither what it had at hand nor its history; why it is parked still says in which line."""

    class Large:
        pass

    kept: list[weakref.ref[Large]] = []

    @zart.workflow("holds", park_on=(KeyError,))
    def holds(_: None) -> zart.Flow[int]:
        large = Large()
        kept.append(weakref.ref(large))
        yield from one()
        raise KeyError("gone")

    with zart.open("memory:", [holds]) as engine:
        handle = engine.start(holds, id="h")
        until(lambda: handle.status() is zart.Status.PARKED and not engine.engine.live)
        gc.collect()
        assert [ref() for ref in kept] == [None]
        with pytest.raises(zart.Parked) as caught:
            handle.result(PATIENCE_S)
    assert 'raise KeyError("gone")' in "".join(traceback.format_exception(caught.value))


def test_park_on(url: str) -> None:
    """Errors named in park_on park instead of failing (R19)."""
    ready = []

    @zart.workflow("careful", park_on=(KeyError,))
    def careful(_: None) -> zart.Flow[int]:
        yield from one()
        if not ready:
            raise KeyError("not yet")
        return 1

    with zart.open(url, [careful]) as engine:
        with pytest.raises(zart.Parked):
            engine.run(careful, None, id="p")
        ready.append(1)
        engine.register(careful)
        assert engine.get("p").result(5) == 1


class Dumb(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class DumbExit(Dumb, SystemExit):
    pass


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (Dumb, zart.Parked, "is parked by park_on: Dumb: <its"),
        (DumbExit, zart.Defect, "go on: DumbExit: <its"),
    ],
)
def test_an_error_without_a_text_parks_as_any_other(error: Any, kind: Any, text: str) -> None:
    """The reason names the error, whatever its own methods do (R19, R20)."""

    @zart.workflow("dumb", park_on=(Dumb,))
    def dumb(_: None) -> zart.Flow[None]:
        yield from one()
        raise error

    with zart.open("memory:", [dumb]) as engine:
        with pytest.raises(kind, match=text):
            engine.start(dumb, None, id="d").result(5)
        assert text in engine.list(status="parked").items[0].reason


def test_too_many_events_park_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A history that grows beyond the limit is parked; nothing is lost (F19)."""
    monkeypatch.setattr(turns, "EVENTS_MAX", 100)

    @zart.workflow("long")
    def long(_: None) -> zart.Flow[int]:
        for n in range(60):
            yield from one().named(f"step-{n}")
        return 60

    @zart.workflow("endless")
    def endless(_: None) -> zart.Flow[int]:
        n = 0
        while True:
            yield from zart.now(f"now-{n}")
            n += 1

    with zart.open("memory:", [long, endless]) as engine:
        with pytest.raises(turns.TooManyEvents, match="continue_as_new"):
            engine.run(long, None, id="p")
        with pytest.raises(turns.TooManyEvents, match="continue_as_new"):
            engine.run(endless, None)
        monkeypatch.setattr(turns, "EVENTS_MAX", 1000)
        engine.register(long)
        assert engine.get("p").result(5) == 60


def test_code_that_is_registered_while_the_mark_is_being_written_counts() -> None:
    """There is no moment at which fixed code is overlooked."""
    from engines import Sky

    entered, gate = threading.Event(), threading.Event()

    class Slow(Sky):
        blocking = True  # type: ignore[assignment]

        def append(self, batch: Any) -> Any:
            if any(getattr(write, "status", None) is zart.Status.PARKED for write in batch):
                entered.set()
                gate.wait(10)
            return super().append(batch)

    @zart.workflow("w")
    def wrong(_: None) -> zart.Flow[int]:
        yield from one()
        yield "text"  # type: ignore[misc]
        return 0

    @zart.workflow("w")
    def mended(_: None) -> zart.Flow[int]:
        return (yield from one())

    log = Slow(open_log("memory:"))
    with zart.open(log, [wrong]) as engine:
        engine.engine.writer.alone = lambda: False  # no commit on the loop: the loop is to register meanwhile
        handle = engine.start(wrong, None, id="p")
        assert entered.wait(5)
        registering = threading.Thread(target=engine.register, args=(mended,))
        registering.start()
        until(lambda: engine.engine.code == 1)
        gate.set()
        registering.join()
        assert handle.result(5) == 1
    log.close()


def two_that_wait(flow: Any, tmp_path: Path) -> str:
    """The URL of an SQLite log, the file log.db, in which executions p and q wait for an event."""
    url = url_of("sqlite", tmp_path)
    with zart.open(url, [flow]) as engine:
        for id in ("p", "q"):
            engine.start(flow, None, id=id)
            until(lambda id=id: "event" in str(engine.get(id).history()))
    return url


def behind_its_back(tmp_path: Path, statement: str) -> None:
    """Damage what stands in it."""
    with contextlib.closing(sqlite3.connect(tmp_path / "log.db")) as db, db:
        db.execute(statement)


def test_a_damaged_record_parks_one_execution_alone(tmp_path: Path) -> None:
    """Damage is reported as LogCorrupt for the one it concerns; the others go on (F21, I8, L12)."""
    flow = changing("a")
    url = two_that_wait(flow, tmp_path)
    behind_its_back(tmp_path, "UPDATE records SET data = X'7B7D' WHERE execution = 1 AND position = 1")
    with zart.open(url, [flow]) as engine:
        broken, whole = ("p", "q") if damaged(engine, "p") else ("q", "p")
        engine.send(broken, "number", 1)
        with pytest.raises(zart.LogCorrupt):
            engine.get(broken).result(5)
        engine.send(whole, "number", 1)
        assert engine.get(whole).result(5) == 2
        until(lambda: engine.get(broken).status() is zart.Status.PARKED)


@pytest.mark.parametrize("status", ["waiting", "parked"])
def test_a_damaged_execution_hinders_no_other(tmp_path: Path, status: str) -> None:
    """An engine opens over a log with one execution whose row is damaged, and takes up the others (I8, L12)."""
    flow = changing("a")
    url = two_that_wait(flow, tmp_path)
    log = open_log(url)
    log.append([stored.Mark(id, zart.Status(status)) for id in ("p", "q")])
    log.close()
    behind_its_back(tmp_path, "UPDATE executions SET digest = 'another' WHERE id = 'p'")
    with zart.open(url, [flow]) as engine:
        until(lambda: engine.get("q").status() is zart.Status.WAITING)
        engine.send("q", "number", 1)
        assert engine.get("q").result(5) == 2
        with pytest.raises(zart.LogCorrupt):
            engine.get("p").status()


def damaged(engine: zart.Engine, id: str) -> bool:
    """Whether its history cannot be read."""
    try:
        engine.get(id).history()
    except zart.LogCorrupt:
        return True
    return False
