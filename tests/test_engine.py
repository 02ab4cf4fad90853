"""The engine by both its faces: executions side by side, start and attach, events, children, runs that follow runs."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import pytest
from engines import PATIENCE_S, STORES, Ledger, kinds, until, url_of

import zart_core as zart
from zart_core.hosts.ports import open_log
from zart_core.log import ID_CHARS_MAX, PAYLOAD_BYTES_MAX, EventLog
from zart_core.testing.clock import VirtualClock
from zart_core.testing.relay import Relay


@pytest.fixture(params=STORES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return url_of(request.param, tmp_path)


@attrs.frozen
class Order:
    id: str
    cents: int


@zart.step("double-{n}")
def double(n: int) -> int:
    return 2 * n


@zart.step("triple-{n}")
async def triple(n: int) -> int:
    await asyncio.sleep(0)
    return 3 * n


@zart.workflow("sums")
def sums(n: int) -> zart.Flow[int]:
    both = yield from zart.gather(double(n), triple(n))
    return sum(both)


@zart.workflow("listens")
def listens(count: int) -> zart.Flow[list[int]]:
    got: list[int] = []
    for _ in range(count):
        got.append((yield from zart.wait_for_event("number", int)))
    return got


@zart.workflow("says")
def says(order: Order) -> zart.Flow[str]:
    doubled = yield from double(order.cents)
    return f"{order.id}: {doubled}"


# ---------------------------------------------------------------- side by side


def test_executions_run_side_by_side(url: str) -> None:
    """A hundred executions with sync and async steps give a hundred results."""
    with zart.open(url, [sums]) as engine:
        handles = [engine.start(sums, n, id=f"sums-{n}") for n in range(100)]
        assert [handle.result(20) for handle in handles] == [5 * n for n in range(100)]


def test_async_face(url: str) -> None:
    """The asynchronous face gives the same on a loop of one's own."""

    async def main() -> list[int]:
        async with zart.serve(url, [sums]) as engine:
            return await asyncio.gather(*(engine.run(sums, n) for n in range(50)))

    assert asyncio.run(main()) == [5 * n for n in range(50)]


def test_typed_input_and_result(url: str) -> None:
    """Input and result go through the codec by their declared types."""
    with zart.open(url, [says]) as engine:
        assert engine.run(says, Order("a", 21)) == "a: 42"


def test_ids_that_it_makes_sort_in_the_order_of_the_starts() -> None:
    """Those of one millisecond too, and so a list shows them in that order."""
    with zart.open("memory:", [sums], clock=VirtualClock()) as engine:
        ids = [engine.start(sums, n).id for n in range(20)]
        assert ids == sorted(set(ids))
        assert [summary.id for summary in engine.list().items] == ids


def test_many_threads_call_one_engine() -> None:
    """The synchronous face is for any number of threads."""
    found: list[int] = []
    with zart.open("memory:", [sums]) as engine:

        def work(base: int) -> None:
            found.extend(engine.run(sums, base + n) for n in range(20))

        threads = [threading.Thread(target=work, args=(100 * k,)) for k in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(found) == sorted(5 * (100 * k + n) for k in range(5) for n in range(20))


def test_max_concurrent_steps_bounds_what_runs_at_once() -> None:
    """Never more attempts than slots, and all get their turn."""
    lock, running, seen = threading.Lock(), [0], [0]

    @zart.step("busy-{n}")
    def busy(n: int) -> int:
        with lock:
            running[0] += 1
            seen[0] = max(seen[0], running[0])
        threading.Event().wait(0.005)
        with lock:
            running[0] -= 1
        return n

    @zart.workflow("wide")
    def wide(base: int) -> zart.Flow[list[int]]:
        return (yield from zart.wait([busy(base + n) for n in range(20)]))

    with zart.open("memory:", [wide], max_concurrent_steps=3) as engine:
        handles = [engine.start(wide, 100 * k) for k in range(4)]
        assert [h.result(20) for h in handles] == [[100 * k + n for n in range(20)] for k in range(4)]
    assert seen[0] == 3


# ---------------------------------------------------------------- start and attach (R15)


def test_start_is_idempotent_in_any_state(url: str) -> None:
    """Same id, workflow and input give the existing execution, waiting, ended or after a restart (R15)."""
    with zart.open(url, [listens]) as engine:
        first = engine.start(listens, 1, id="a")
        again = engine.start(listens, 1, id="a")
        assert (first.created, again.created) == (True, False)
        engine.send("a", "number", 7)
        assert again.result(5) == [7]
        ended = engine.start(listens, 1, id="a")
        assert (ended.created, ended.result(5)) == (False, [7])
        assert engine.run(listens, 1, id="a") == [7]


def test_another_input_or_workflow_under_the_id_conflicts(url: str) -> None:
    """An id that is taken by something else raises ExecutionConflict (R15)."""
    with zart.open(url, [listens, sums]) as engine:
        engine.start(listens, 1, id="a")
        with pytest.raises(zart.ExecutionConflict):
            engine.start(listens, 2, id="a")
        with pytest.raises(zart.ExecutionConflict):
            engine.start(sums, 1, id="a")
        assert [item.workflow for item in engine.list().items] == ["listens"]


def test_the_same_start_from_many_threads_creates_once() -> None:
    """Of many starts at once, one creates (L9)."""
    with zart.open("memory:", [listens]) as engine:
        created: list[bool] = []
        threads = [
            threading.Thread(target=lambda: created.append(engine.start(listens, 1, id="a").created))
            for _ in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(created) == [False] * 19 + [True]
        engine.send("a", "number", 1)
        assert engine.get("a").result(5) == [1]


def test_delayed_start_waits_for_its_time(url: str) -> None:
    """`at=` postpones the start: scheduled until then, never early."""
    clock = VirtualClock()
    at = datetime.fromtimestamp(clock.now(), UTC) + timedelta(hours=1)
    with zart.open(url, [sums], clock=clock) as engine:
        handle = engine.start(sums, 1, id="later", at=at)
        assert handle.status() is zart.Status.SCHEDULED
        clock.advance(minutes=59)
        assert engine.start(sums, 1, id="later").created is False
        assert handle.status() is zart.Status.SCHEDULED
        clock.advance(minutes=1)
        assert handle.result(5) == 5


def test_an_event_does_not_hasten_a_delayed_start(url: str) -> None:
    """It is kept, also over a restart, and taken once the execution has started (R14)."""
    clock, ledger = VirtualClock(), Ledger()

    @zart.step()
    def charge() -> None:
        ledger("charge")

    @zart.workflow("charges")
    def charges(_: None) -> zart.Flow[int]:
        yield from charge()
        return (yield from zart.wait_for_event("number", int))

    log, begins = open_log(url), clock.now() + 60
    with zart.open(log, [charges], clock=clock) as engine:
        handle = engine.start(charges, None, id="a", at=datetime.fromtimestamp(begins, UTC))
        handle.send("number", 7)
        until(lambda: log.next_wake() == begins)  # it was looked at
        clock.advance(59)
        handle.send("number", 8)
    with zart.open(log, [charges], clock=clock) as engine:
        handle = engine.get("a")
        assert (handle.status(), ledger.entries) == (zart.Status.SCHEDULED, [])
        clock.advance(1)
        assert handle.result(5) == 7
    log.close()


def test_the_first_timers_of_a_delayed_start_count_from_it(url: str) -> None:
    """R13: not from the call that put it off, or they would be over before it begins."""
    clock = VirtualClock()

    @zart.workflow("naps")
    def naps(_: None) -> zart.Flow[float]:
        began = yield from zart.now("began")
        yield from zart.sleep("nap", 30)
        return ((yield from zart.now("woke")) - began).total_seconds()

    with zart.open(url, [naps], clock=clock) as engine:
        handle = engine.start(naps, None, at=datetime.fromtimestamp(clock.now() + 60, UTC))
        clock.advance(60)
        until(lambda: handle.status() is zart.Status.WAITING)
        clock.advance(30)
        assert handle.result(5) == 30.0


def test_a_delayed_start_survives_a_restart_and_is_not_late(tmp_path: Path) -> None:
    """The engine that opens a log knows when the next execution is due."""
    clock = VirtualClock()
    url = url_of("sqlite", tmp_path)
    with zart.open(url, [sums], clock=clock) as engine:
        engine.start(sums, 1, id="later", at=datetime.fromtimestamp(clock.now() + 60, UTC))
    with zart.open(url, [sums], clock=clock) as engine:
        clock.advance(60)
        assert engine.get("later").result(5) == 5


def test_mistakes_at_the_edge_name_the_fix() -> None:
    """Naive times, unknown workflows, hostile ids and the like are refused, and hinder nobody."""
    with zart.open("memory:", [sums, listens]) as engine:
        with pytest.raises(zart.InvalidUse, match="zone"):
            engine.start(sums, 1, at=datetime(2030, 1, 1))
        with pytest.raises(zart.UnknownWorkflow, match="says"):
            engine.start(says, Order("a", 1))
        with pytest.raises(zart.EncodeError):
            engine.start(sums, "one")  # type: ignore[call-overload]
        with pytest.raises(zart.InvalidUse):
            engine.start(sums, 1, id="a\nb")
        with pytest.raises(zart.InvalidUse):
            engine.start(sums, 1, id="a" * 300)
        with pytest.raises(zart.InvalidUse):
            engine.start(listens, 1, id="b") and engine.send("b", "number", 1, key="k\0")
        with pytest.raises(zart.InvalidUse):
            engine.list(status="sleeping")
        assert engine.run(sums, 1) == 5


# ---------------------------------------------------------------- events (R14)


def test_events_are_buffered_in_order(url: str) -> None:
    """What comes before it is waited for is kept, in order (R14)."""
    with zart.open(url, [listens]) as engine:
        handle = engine.start(listens, 50, id="a")
        for n in range(50):
            handle.send("number", n)
        assert handle.result(10) == list(range(50))


def test_a_flood_of_events_is_taken_in_several_turns() -> None:
    """More messages than fit into one turn are all taken, though nothing else happens."""
    log = open_log("memory:")
    with zart.open(log, [listens]) as engine:
        engine.start(listens, 700, id="a")
    with zart.open(log, [listens]) as engine:
        pass
    with zart.open(log, [sums]) as engine:  # nobody here takes them
        for n in range(700):
            engine.send("a", "number", n)
    with zart.open(log, [listens]) as engine:
        assert engine.get("a").result(10) == list(range(700))
    log.close()


def test_a_key_counts_once_for_the_life_of_the_execution(url: str) -> None:
    """The same key again is accepted and has no effect, even after the first was consumed (R14)."""
    with zart.open(url, [listens]) as engine:
        handle = engine.start(listens, 3, id="a")
        handle.send("number", 1, key="one")
        until(lambda: "Delivered" in kinds(handle.history()))
        handle.send("number", 1, key="one")
        handle.send("number", 2, key="two")
        handle.send("number", 2, key="two")
        handle.send("number", 3)
        assert handle.result(10) == [1, 2, 3]


class Text(str):
    """A text of a library's own, as numpy's `str_` or what an XPath gives."""


def test_a_text_of_a_librarys_own_is_a_text(url: str) -> None:
    """F22: as an id, a name or a key it is what it says; it hinders neither its execution nor the store."""
    assert zart.run_inline(sums, 1, id=Text("in-line")) == 5
    with zart.open(url, [listens, sums]) as engine:
        handle = engine.start(listens, 2, id=Text("listener"))
        for n in (1, 1, 2):
            engine.send(Text("listener"), Text("number"), n, key=Text(f"key-{n}"))
        assert handle.result(PATIENCE_S) == [1, 2]
        assert engine.run(sums, 1) == 5


def test_a_users_key_is_never_taken_for_one_of_the_engines_own() -> None:
    """Whatever key a user gives, requests and children keep theirs."""
    with zart.open("memory:", [listens]) as engine:
        handle = engine.start(listens, 4, id="a")
        for key in ("!cancel", "cancel!", "cancel"):
            handle.send("number", 1, key=key)
        assert handle.cancel("enough")
        with pytest.raises(zart.ExecutionCancelled, match="enough"):
            handle.result(5)


def test_delivery_to_the_unknown_and_the_ended_is_an_error(url: str) -> None:
    """Nobody gets what nobody can take (R14)."""
    with zart.open(url, [listens, sums]) as engine:
        with pytest.raises(zart.UnknownExecution):
            engine.send("nobody", "number", 1)
        with pytest.raises(zart.UnknownExecution):
            engine.cancel("nobody")
        with pytest.raises(zart.UnknownExecution):
            engine.get("nobody")
        engine.run(sums, 1, id="done")
        with pytest.raises(zart.ExecutionClosed):
            engine.send("done", "number", 1)
        assert engine.cancel("done") is False
        assert engine.terminate("done") is False


def test_what_was_never_taken_is_counted_in_the_summary(url: str) -> None:
    """Events that no wait took stay visible after the end (R14)."""
    with zart.open(url, [listens]) as engine:
        handle = engine.start(listens, 1, id="a")
        handle.send("other", "x")
        handle.send("other", "y")
        handle.send("number", 1)
        assert handle.result(5) == [1]
        (item,) = engine.list().items
        assert (item.unread, item.status) == (2, zart.Status.COMPLETED)


@attrs.frozen
class Approval:
    by: str


@attrs.frozen
class Refusal:
    by: str
    why: str


def test_an_event_of_one_of_two_classes(url: str) -> None:
    """The sender does not know with which type it is waited for: the one class that it fits is meant."""

    @zart.workflow("decides")
    def decides(_: None) -> zart.Flow[list[str]]:
        decisions = []
        for _ in range(2):
            decision = yield from zart.wait_for_event("decision", Approval | Refusal)
            decisions.append(repr(decision))
        return decisions

    with zart.open(url, [decides]) as engine:
        handle = engine.start(decides, None)
        handle.send("decision", Approval("a"))
        handle.send("decision", Refusal("b", "too dear"))
        assert handle.result(5) == ["Approval(by='a')", "Refusal(by='b', why='too dear')"]


def test_an_event_wait_times_out_at_its_recorded_instant(url: str) -> None:
    """The deadline is fixed when the wait is issued, and a restart does not move it (R13)."""

    @zart.workflow("patient")
    def patient(_: None) -> zart.Flow[str]:
        try:
            return (yield from zart.wait_for_event("word", str, timeout="1h"))
        except zart.EventTimedOut:
            return "late"

    clock = VirtualClock()
    log = open_log(url)
    with zart.open(log, [patient], clock=clock) as engine:
        engine.start(patient, None, id="a")
        clock.advance(minutes=30)
    with zart.open(log, [patient], clock=clock) as engine:
        clock.advance(minutes=29)
        assert engine.get("a").status() is zart.Status.WAITING
        clock.advance(minutes=1)
        assert engine.get("a").result(5) == "late"
    log.close()


def test_an_event_from_a_sync_step_reaches_another_execution() -> None:
    """A sync step may call its own engine; an async step gets a clear error instead of a deadlock."""
    errors: list[str] = []

    @zart.step()
    def tell(id: str) -> None:
        engine.send(id, "number", 5)

    @zart.step()
    async def tell_on_the_loop(id: str) -> None:
        for call in (lambda: engine.send(id, "number", 5), engine.close):
            try:
                call()
            except zart.InvalidUse as error:
                errors.append(str(error))

    @zart.workflow("tells")
    def tells(id: str) -> zart.Flow[None]:
        yield from tell(id)
        yield from tell_on_the_loop(id)

    with zart.open("memory:", [tells, listens]) as engine:
        handle = engine.start(listens, 1, id="a")
        engine.run(tells, "a")
        assert handle.result(5) == [5]
    assert len(errors) == 2
    assert "sync step" in errors[0]


# ---------------------------------------------------------------- children


@zart.workflow("parent")
def parent(n: int) -> zart.Flow[int]:
    values = yield from zart.wait([zart.child(sums, k) for k in range(n)])
    return sum(values)


def test_children_give_their_results(url: str) -> None:
    """A parent waits for its children, which are executions of their own."""
    with zart.open(url, [parent, sums]) as engine:
        assert engine.run(parent, 10, id="p") == 5 * sum(range(10))
        assert len(engine.list(workflow="sums").items) == 10


def test_a_child_may_give_all_that_a_payload_holds(url: str) -> None:
    """The message that tells its parent wraps the result, and is larger by that much (F19)."""

    @zart.workflow("fills")
    def fills(size: int) -> zart.Flow[str]:
        yield from double(1)
        return "x" * (size - 2)

    @zart.workflow("measures")
    def measures(size: int) -> zart.Flow[int]:
        return len((yield from zart.child(fills, size)))

    with zart.open(url, [fills, measures]) as engine:
        assert engine.run(measures, PAYLOAD_BYTES_MAX) == PAYLOAD_BYTES_MAX - 2


def test_a_child_of_an_execution_with_the_longest_id(url: str) -> None:
    """Its id is a digest where one made from its parent's would be longer than an id may be (F22)."""

    @zart.workflow("keeps")
    def keeps(n: int) -> zart.Flow[int]:
        yield from double(n)
        return (yield from zart.child(sums, n))

    with zart.open(url, [keeps, sums]) as engine:
        assert engine.run(keeps, 1, id="p" * ID_CHARS_MAX) == 5
        (child,) = engine.list(workflow="sums").items
    assert child.id == hashlib.sha256(b"p" * ID_CHARS_MAX + b".0.1").hexdigest()


def test_a_failed_child_says_how_it_ended(url: str) -> None:
    """The parent may catch how its child ended (R19)."""

    @zart.workflow("fails")
    def fails(_: None) -> zart.Flow[None]:
        yield from double(1)
        raise ValueError("no luck")

    @zart.workflow("catches")
    def catches(_: None) -> zart.Flow[str]:
        try:
            yield from zart.child(fails, None)
        except zart.ExecutionFailed as error:
            return str(error)
        return "?"

    with zart.open(url, [fails, catches]) as engine:
        assert "no luck" in engine.run(catches, None)


def test_an_id_that_is_taken_is_a_conflict_in_the_parent(url: str) -> None:
    """A child or a spawn whose id is taken by something else raises ExecutionConflict there."""

    @zart.workflow("takes-ids")
    def takes_ids(kind: str) -> zart.Flow[str]:
        try:
            if kind == "child":
                yield from zart.child(sums, 1, id="taken")
            else:
                yield from zart.spawn(sums, 1, id="taken")
        except zart.ExecutionConflict:
            return "taken"
        return "free"

    with zart.open(url, [takes_ids, sums, listens]) as engine:
        engine.start(listens, 1, id="taken")
        assert engine.run(takes_ids, "child") == "taken"
        assert engine.run(takes_ids, "spawn") == "taken"


def test_two_commands_of_one_turn_that_ask_for_one_id(url: str) -> None:
    """L9, R15: the first child has the id, the second is told; two spawns of the same are one execution."""

    @zart.workflow("asks-twice")
    def asks_twice() -> zart.Flow[list[str]]:
        told = yield from zart.settle([zart.child(sums, 1, id="one"), zart.child(sums, 1, id="one")])
        ids = [zart.scope(name, zart.spawn(sums, 1, id="free")) for name in ("a", "b")]
        return [repr(each)[:15] for each in told] + (yield from zart.wait(ids))

    with zart.open(url, [asks_twice, sums]) as engine:
        assert engine.run(asks_twice, id="asking") == ["Ok(value=5)", "Err(error=Execu", "free", "free"]
        assert engine.get("one").result(10) == 5


def test_a_spawned_execution_goes_its_own_way(url: str) -> None:
    """Spawn gives the id at once; cancelling the parent leaves it alone."""

    @zart.workflow("spawns")
    def spawns(_: None) -> zart.Flow[str]:
        id = yield from zart.spawn(listens, 1, id="free")
        yield from zart.wait_for_event("never")
        return id

    with zart.open(url, [spawns, listens]) as engine:
        handle = engine.start(spawns, None, id="s")
        until(lambda: engine.list(id_prefix="free").items)
        handle.cancel()
        with pytest.raises(zart.ExecutionCancelled):
            handle.result(5)
        engine.send("free", "number", 3)
        assert engine.get("free").result(5) == [3]


@zart.workflow("waits-for-child")
def waits_for_child(_: None) -> zart.Flow[list[int]]:
    return (yield from zart.child(listens, 1, id="c"))


def test_cancelling_a_parent_cancels_its_children(url: str) -> None:
    """The child unwinds first, and then its parent (R18)."""
    with zart.open(url, [waits_for_child, listens]) as engine:
        handle = engine.start(waits_for_child, None, id="p")
        until(lambda: engine.list(id_prefix="c").items)
        handle.cancel("stop")
        with pytest.raises(zart.ExecutionCancelled):
            handle.result(5)
        with pytest.raises(zart.ExecutionCancelled):
            engine.get("c").result(5)


def test_a_child_goes_on_after_a_restart_though_only_its_parent_is_registered(url: str) -> None:
    """It is known by the parent's code, not only once the parent has asked for it."""
    log = open_log(url)
    with zart.open(log, [waits_for_child]) as engine:
        engine.start(waits_for_child, None, id="p")
        until(lambda: engine.list(id_prefix="c", status="waiting").items)
    with zart.open(log, [waits_for_child]) as engine:
        assert engine.get("c").status() is zart.Status.WAITING
        engine.send("c", "number", 7)
        assert engine.get("p").result(5) == [7]
    log.close()


def test_terminating_a_parent_ends_its_children(url: str) -> None:
    """What a terminated run waited for is terminated along."""
    with zart.open(url, [waits_for_child, listens]) as engine:
        handle = engine.start(waits_for_child, None, id="p")
        until(lambda: engine.list(id_prefix="c").items)
        assert handle.terminate("stop")
        with pytest.raises(zart.ExecutionTerminated):
            handle.result(5)
        with pytest.raises(zart.ExecutionTerminated):
            engine.get("c").result(5)


def test_who_has_the_id_that_a_child_was_to_have_is_left_alone(url: str) -> None:
    """A parent that leaves its child behind in the very turn in which its id was taken ends nobody else's execution."""

    @zart.workflow("leaves-a-child")
    def leaves_a_child(how: str) -> zart.Flow[str]:
        yield from zart.schedule(zart.child(listens, 1, id="order-42"))
        yield from zart.now("issued")
        if how == "waits":
            yield from zart.wait_for_event("never")
        return how

    with zart.open(url, [listens, leaves_a_child]) as engine:
        stranger = engine.start(listens, 2, id="order-42")
        assert engine.run(leaves_a_child, "ends", id="p") == "ends"
        handle = engine.start(leaves_a_child, "waits", id="q")
        assert handle.terminate()
        with pytest.raises(zart.ExecutionTerminated):
            handle.result(5)
        stranger.send("number", 1)
        stranger.send("number", 2)
        assert stranger.result(5) == [1, 2]
        assert "Interrupted" not in kinds(stranger.history())


# ---------------------------------------------------------------- continue as new


@zart.workflow("rolls")
def rolls(state: tuple[int, list[int]]) -> zart.Flow[list[int]]:
    left, got = state
    number = yield from zart.wait_for_event("number", int)
    if left == 1:
        return [*got, number]
    yield from rolls.continue_as_new((left - 1, [*got, number]))


def test_messages_in_flight_move_to_the_next_run(url: str) -> None:
    """Twenty runs, one message each, all sent at once: none is lost, order is kept (I15)."""
    with zart.open(url, [rolls]) as engine:
        handle = engine.start(rolls, (20, []), id="r")
        for n in range(20):
            handle.send("number", n)
        assert handle.result(20) == list(range(20))
        assert engine.list().items[0].run == 19
        assert kinds(handle.history(0)) == ["Started", "Issued", "Delivered", "Resolved", "Closed"]


def test_the_next_run_goes_on_after_a_restart(url: str) -> None:
    """A run that was opened and not begun is taken up."""
    log = open_log(url)
    for n in range(5):
        with zart.open(log, [rolls]) as engine:
            handle = engine.start(rolls, (5, []), id="r")
            handle.send("number", n, key=str(n))
    with zart.open(log, [rolls]) as engine:
        assert engine.get("r").result(5) == list(range(5))
    log.close()


def test_run_inline_follows_runs_too() -> None:
    """The inline host goes on with the run that continue_as_new opened."""

    @zart.workflow("counts-down")
    def counts_down(n: int) -> zart.Flow[int]:
        yield from double(n)
        if n == 0:
            return 0
        yield from counts_down.continue_as_new(n - 1)

    assert zart.run_inline(counts_down, 5) == 0


# ---------------------------------------------------------------- eviction and revival


@pytest.mark.parametrize("max_live", [1, 2, 3])
def test_evicted_executions_are_revived_by_events_and_timers(url: str, max_live: int) -> None:
    """However few may live, each of many suspended executions gets its events and timers."""

    @zart.workflow("sleeps-and-listens")
    def sleeps_and_listens(n: int) -> zart.Flow[int]:
        yield from zart.sleep("first", "1h")
        got = yield from zart.wait_for_event("number", int)
        doubled = yield from double(got)
        yield from zart.sleep("second", "1h")
        return doubled + n

    clock = VirtualClock()
    with zart.open(url, [sleeps_and_listens], clock=clock, max_live=max_live) as engine:
        handles = [engine.start(sleeps_and_listens, n, id=f"e{n}") for n in range(30)]
        for n, handle in enumerate(handles[:15]):
            handle.send("number", n)
        until(lambda: len(engine.engine.live) <= max_live)
        clock.advance(hours=1)
        for n, handle in enumerate(handles[15:], 15):
            handle.send("number", n)
        until(lambda: all("double" in str(kinds_of(handle)) for handle in handles))
        until(lambda: engine.stats()[zart.Status.WAITING] == 30)
        until(lambda: len(engine.engine.live) <= max_live)
        clock.advance(hours=1)
        assert [handle.result(20) for handle in handles] == [3 * n for n in range(30)]


def kinds_of(handle: zart.Handle[int]) -> list[str]:
    """The names of issued commands whose outcome is there."""
    events = handle.history()
    names = {event.seq: event.name for event in events if isinstance(event, zart.Issued)}
    return [names[event.seq] for event in events if isinstance(event, zart.Resolved)]


# ---------------------------------------------------------------- context, resources, log lines


def test_resources_and_context_in_steps() -> None:
    """Steps reach the host's objects, and know where they run."""
    seen: list[zart.Context] = []

    @zart.step("looks", retry=zart.Retry.fixed(2, 0))
    def looks() -> str:
        seen.append(zart.context())
        if len(seen) < 3:
            raise RuntimeError("again")
        return str(zart.resource("name"))

    @zart.step()
    async def looks_async() -> str:
        assert zart.context().step == "looks-async"
        return str(zart.resource("name"))

    @zart.workflow("looking")
    def looking(_: None) -> zart.Flow[str]:
        first = yield from looks()
        assert zart.context().execution_id == "x"
        second = yield from looks_async()
        return first + second

    with zart.open("memory:", [looking], resources={"name": "n"}) as engine:
        assert engine.run(looking, None, id="x") == "nn"
    assert [(c.execution_id, c.step, c.attempt, c.is_retry, c.max_retries) for c in seen] == [
        ("x", "looks", 0, False, 2),
        ("x", "looks", 1, True, 2),
        ("x", "looks", 2, True, 2),
    ]
    assert len({c.idempotency_key for c in seen}) == 1


def test_log_lines_come_out_once(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """A line of a workflow is written once, however often it is replayed."""

    @zart.workflow("talks")
    def talks(_: None) -> zart.Flow[int]:
        zart.logger.info("began")
        yield from double(1)
        zart.logger.info("doubled")
        number = yield from zart.wait_for_event("number", int)
        zart.logger.info("got %d", number)
        return number

    caplog.set_level("INFO", logger="zart.workflow")
    log = open_log(url)
    with zart.open(log, [talks]) as engine:
        engine.start(talks, None, id="t")
        until(lambda: engine.get("t").status() is zart.Status.WAITING)
    with zart.open(log, [talks]) as engine:
        pass
    with zart.open(log, [talks], max_live=1) as engine:
        engine.send("t", "number", 4)
        assert engine.get("t").result(5) == 4
    log.close()
    assert [r.getMessage() for r in caplog.records if r.name == "zart.workflow"] == [
        "began",
        "doubled",
        "got 4",
    ]


class Raises(logging.Handler):
    """A handler that raises, as those may that send lines elsewhere."""

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        raise ConnectionError("nobody takes the line")


def test_a_log_line_that_cannot_be_written_hinders_nothing(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a handler raises goes to stderr, as logging does it; the steps of that turn begin, and others go on."""

    @zart.workflow("talks")
    def talks(_: None) -> zart.Flow[int]:
        zart.logger.warning("began")
        two = yield from double(1)
        zart.logger.warning("doubled")
        return (yield from double(two).named("again"))

    handler, logger = Raises(), logging.getLogger("zart.workflow")
    logger.addHandler(handler)
    try:
        with zart.open(url, [talks]) as engine:
            handles = [engine.start(talks, id=f"t{n}") for n in range(3)]
            assert [handle.result(PATIENCE_S) for handle in handles] == [4] * 3
    finally:
        logger.removeHandler(handler)
    assert capsys.readouterr().err.count("ConnectionError: nobody takes the line") == 6


# ---------------------------------------------------------------- looking on


def test_list_stats_explain_and_history(url: str) -> None:
    """What stands where, a page at a time, and in words."""
    with zart.open(url, [listens, sums]) as engine:
        for n in range(5):
            engine.start(listens, 1, id=f"l{n}")
        engine.run(sums, 1, id="s")
        page = engine.list(workflow="listens", limit=3)
        rest = engine.list(workflow="listens", limit=3, after=page.next)
        assert [item.id for item in (*page.items, *rest.items)] == [f"l{n}" for n in range(5)]
        until(lambda: engine.stats()[zart.Status.WAITING] == 5)
        assert engine.stats()[zart.Status.COMPLETED] == 1
        assert "number" in engine.get("l0").explain()
        assert kinds(engine.get("l0").history()) == ["Started", "Issued"]


def test_the_engine_after_close_says_so(tmp_path: Path) -> None:
    """Using a closed engine or its handles raises InvalidUse; closing twice is closing once."""
    with zart.open(url_of("sqlite", tmp_path), [listens]) as engine:
        handle = engine.start(listens, 1, id="a")
    engine.close()
    for call in (
        lambda: engine.start(listens, 1),
        lambda: handle.result(1),
        lambda: handle.send("number", 1),
        engine.list,
        engine.stats,
        handle.status,
    ):
        with pytest.raises(zart.InvalidUse, match="closed"):
            call()


def test_result_in_time() -> None:
    """A result that does not come in time raises TimeoutError, and the execution goes on."""
    with zart.open("memory:", [listens]) as engine:
        handle = engine.start(listens, 1)
        with pytest.raises(TimeoutError):
            handle.result(0.05)
        handle.send("number", 1)
        assert handle.result(5) == [1]


def test_a_result_that_is_there_needs_no_time(url: str) -> None:
    """A timeout of 0 looks whether it has ended."""
    with zart.open(url, [listens]) as engine:
        handle = engine.start(listens, 1)
        with pytest.raises(TimeoutError, match="has not ended within 0; it goes on"):
            handle.result(0)
        handle.send("number", 1)
        assert handle.result(PATIENCE_S) == [1]
        assert handle.result(0) == [1]


class Asked(Relay):
    """Counts what is asked of another log, by method."""

    def __init__(self, log: EventLog) -> None:
        super().__init__(log)
        self.calls: Counter[str] = Counter()

    def reach(self, method: str) -> None:
        """See Relay."""
        self.calls[method] += 1


def test_who_runs_a_short_workflow_reads_nothing_back(url: str) -> None:
    """It ends before its result could be asked for; who waits for it waits from before it is created."""

    @zart.step()
    async def at_once(n: int) -> int:
        return n

    @zart.workflow("short")
    def short(n: int) -> zart.Flow[int]:
        return (yield from at_once(n))

    log = Asked(open_log(url))
    with zart.open(log, [short]) as engine:
        engine.run(short, 1)
        before = log.calls.copy()
        assert [engine.run(short, n) for n in range(20)] == list(range(20))
        assert log.calls["records"] == before["records"]
        assert log.calls["summary"] == before["summary"]
    log.close()


def test_who_attaches_to_an_execution_that_has_ended_is_told_how(url: str) -> None:
    """Then the log is asked; nobody tells who comes too late."""
    with zart.open(url, [sums]) as engine:
        assert engine.run(sums, 2, id="a") == 10
        assert engine.run(sums, 2, id="a") == 10
        with pytest.raises(zart.ExecutionConflict):
            engine.run(sums, 3, id="a")
        assert not engine.engine.results.waiters
