"""The inline host, where things go wrong: what `tests/test_faulty_store.py` does not already show."""

from __future__ import annotations

import asyncio
import contextvars

import pytest

import zart_core as zart
from zart_core.context import Scene
from zart_core.hosts.inline import OTHERS_S, Inline
from zart_core.hosts.ports import StepCall, open_log
from zart_core.hosts.relatives import new_execution
from zart_core.interpreter import CODEC
from zart_core.log import Message, Post
from zart_core.testing import FaultyStore, ScriptedRunner, VirtualClock
from zart_core.testing.relay import Relay
from zart_stores import memory


@zart.workflow("grandchild")
def grandchild() -> zart.Flow[int]:
    return (yield from zart.wait_for_event("go", int))


@zart.workflow("child")
def child() -> zart.Flow[int]:
    return (yield from zart.child(grandchild, id="grandchild"))


@zart.workflow("parent")
def parent() -> zart.Flow[int]:
    return (yield from zart.child(child, id="child"))


@pytest.fixture
def log():
    """A log of one's own."""
    return memory.open("memory:")


@pytest.fixture
def host(log):
    """Makes hosts that know the parent only, and give up when nothing is due."""
    hosts: list[Inline] = []

    def rest(_: float | None) -> None:
        raise zart.Stuck("nothing is due")

    def make() -> Inline:
        hosts.append(Inline(log, zart.Registry(parent), clock=VirtualClock(), rest=rest))
        return hosts[-1]

    yield make
    for made in hosts:
        for run in made.runs.values():
            run.drop()


def test_children_go_on_under_another_host(log, host):
    """A host that takes up a parent knows its children, and theirs, though only they are due."""
    first = host()
    first.start(parent, None, "parent")
    with pytest.raises(zart.Stuck):
        first.drive("parent")
    log.release(first.worker)
    log.append([Post("grandchild", "event", "go", b"5", 0.0)])

    closed = host().drive("parent")

    assert (closed.status, closed.payload) == (zart.Status.COMPLETED, b"5")


def test_a_child_whose_workflow_is_called_otherwise_by_now_is_still_there(log):
    """R21: kind and name agree, so the run goes on with what is on record; nobody has taken the child's id."""

    def rest(_: float | None) -> None:
        raise zart.Stuck("nothing is due")

    def driven(kid: zart.Workflow[None, int], event: Post | None) -> zart.Closed:
        @zart.workflow("waits-for-both")
        def both() -> zart.Flow[tuple[int, str]]:
            part = zart.child(kid, id="kid").named("kid[1]")
            return (yield from zart.gather(part, zart.wait_for_event("word", str)))

        host = Inline(log, zart.Registry(both, grandchild), clock=VirtualClock(), rest=rest)
        if event is None:
            host.start(both, None, "both")
        else:
            log.append([event])
        try:
            return host.drive("both")
        finally:
            log.release(host.worker)
            for run in host.runs.values():
                run.drop()

    renamed = zart.workflow("renamed")(grandchild.fn)
    for event in None, Post("both", "event", "word", b'"w"', 0.0):
        with pytest.raises(zart.Stuck):
            driven(grandchild if event is None else renamed, event)

    assert driven(renamed, Post("kid", "event", "go", b"5", 0.0)).payload == b'[5,"w"]'


def test_an_empty_id_is_refused():
    """A variable that is not set makes no new execution each time (L9)."""
    with pytest.raises(zart.InvalidUse, match="the id is ''; give a non-empty text"):
        zart.run_inline(grandchild, id="")


@pytest.mark.parametrize("fault", ["rejected", "written", "unwritten"])
def test_a_start_is_tried_again(log, fault):
    """An execution is created once, whatever becomes of the first append."""
    host = Inline(FaultyStore(log, {0: fault}), zart.Registry(parent), clock=VirtualClock())

    host.start(parent, None, "parent")

    assert [summary.id for summary in log.list().items] == ["parent"]
    with pytest.raises(zart.ExecutionConflict):
        host.start(child, None, "parent")


def test_a_start_gives_up(log):
    """A store that refuses for ever is weather."""
    host = Inline(FaultyStore(log, lambda method, n: "rejected"), zart.Registry(parent), clock=VirtualClock())

    with pytest.raises(zart.StoreUnavailable, match="full"):
        host.start(parent, None, "parent")


@pytest.mark.parametrize("error", [asyncio.CancelledError, zart.Cancelled])
@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_step_that_raises_a_cancellation_by_itself_has_failed(kind, error):
    """R8: as in an engine. Whoever had called run_inline was cancelled in its place, and each restart ran it again."""

    @zart.step("async")
    async def asynchronous() -> None:
        raise error

    @zart.step("sync")
    def synchronous() -> None:
        raise error

    @zart.workflow("cancelled-by-itself")
    def cancelled_by_itself() -> zart.Flow[str]:
        try:
            yield from asynchronous() if kind == "async" else synchronous()
        except zart.StepFailed as failed:
            return failed.message
        return ""

    assert zart.run_inline(cancelled_by_itself) == f"the step raised {error.__name__}"


class Died(BaseException):
    """The process is gone."""


@zart.step("harmless")
def harmless() -> str:
    return "harmless"


@zart.step("kills", max_crashes=2)
def kills() -> str:
    return "kills"


@zart.workflow("beside-a-killer")
def beside_a_killer() -> zart.Flow[tuple[str, str]]:
    return (yield from zart.gather(harmless(), zart.step_or(kills(), "lost")))


def test_a_killer_among_several_suspects_is_lost_in_the_end(log):
    """R5, F18: here a suspect runs alone, so a crash is its doing though others have not been tried yet."""
    started: list[str] = []

    class Runner:
        def run(self, call: StepCall, scene: Scene) -> str:
            started.append(call.context.step or "")
            if call.context.step == "kills" or len(started) == 1:
                raise Died
            return "harmless"

    class Wide(Inline):
        slots = 2

    host: Inline = Wide(log, zart.Registry(beside_a_killer), clock=VirtualClock(), runner=Runner())
    host.start(beside_a_killer, None, "a")
    closed = None
    while closed is None and len(started) < 10:
        try:
            closed = host.drive("a")
        except Died:
            log.release(host.worker)
            host = Inline(log, zart.Registry(beside_a_killer), clock=VirtualClock(), runner=Runner())

    assert started == ["harmless", "kills", "kills", "harmless"]
    assert closed is not None
    assert closed.payload == b'["harmless","lost"]'


def test_an_event_does_not_hasten_a_delayed_start(log):
    """What is taken up before its time is left as it is, and its events are kept."""
    clock = VirtualClock()
    begins = clock.now() + 60
    log.append([
        new_execution(CODEC, grandchild, "a", b"null", clock.now(), wake=begins),
        Post("a", "event", "go", b"5", clock.now()),
    ])  # fmt: skip
    rests: list[float | None] = []

    def rest(until: float | None) -> None:
        rests.append(until)
        clock.advance(60)

    closed = Inline(log, zart.Registry(grandchild), clock=clock, rest=rest).drive("a")

    assert (closed.payload, closed.at, rests) == (b"5", begins, [begins])


ASKER = contextvars.ContextVar("asker", default="nobody")


@zart.step("ask")
async def ask() -> str:
    await asyncio.sleep(0)
    return f"{ASKER.get()} asks for {zart.context().execution_id}"


@zart.workflow("asking")
def asking() -> zart.Flow[str]:
    return (yield from ask())


def test_async_steps_where_a_loop_runs_already(log):
    """R1: in a notebook a loop runs already; that is no outcome of a step, to be put on record for ever."""

    async def notebook() -> str:
        ASKER.set("ann")
        return zart.run_inline(asking, log=log, id="asked")

    assert asyncio.run(notebook()) == "ann asks for asked"


@pytest.mark.parametrize("raises", [False, True])
def test_a_sync_step_that_took_longer_than_its_attempt_may_has_timed_out(log, raises):
    """R7, R11: what it comes to after that is dropped, as under the engine."""
    clock, waited = VirtualClock(), []

    @zart.step("slow", timeout=5, timeout_scope=zart.TimeoutScope.PER_ATTEMPT, retry=zart.Retry.fixed(1, 0))
    def slow() -> str:
        waited.append(clock.now())
        clock.advance(6)
        if raises:
            raise ValueError("too late")
        return "too late"

    @zart.workflow("w")
    def w() -> zart.Flow[str]:
        try:
            return (yield from slow())
        except zart.StepTimedOut:
            return "timed out"

    host = Inline(log, zart.Registry(w), clock=clock)
    host.start(w, None, "a")
    assert (host.drive("a").payload, len(waited)) == (b'"timed out"', 1)


@pytest.mark.parametrize("fails", [False, True])
def test_a_cancellation_is_heard_once_the_step_is_over_that_ran_meanwhile(log, fails):
    """What comes after that step never begins, though nothing is claimed in between; a failed read costs nothing."""
    ran: list[int] = []

    class Unread(Relay):
        def inbox(self, id: str, after: int = 0) -> list[Message]:
            if fails and ran == [1]:
                raise zart.StoreUnavailable("the connection is gone")
            return super().inbox(id, after)

    @zart.step("pay-{n}")
    def pay(n: int) -> None:
        ran.append(n)
        if n == 1:
            log.append([Post("a", "cancel", "cancel", b"", 1.0, "cancel!")])

    @zart.workflow("w")
    def w() -> zart.Flow[None]:
        for n in (1, 2, 3):
            yield from pay(n)

    host = Inline(Unread(log), zart.Registry(w), clock=VirtualClock())
    host.start(w, None, "a")
    assert (host.drive("a").status, ran) == (zart.Status.CANCELLED, [1, 2] if fails else [1])


def test_a_step_within_a_shield_outlives_the_deadline_of_its_run(log):
    """R16, R18: the deadline waits for the shield, whose value is delivered; the step has no time of its own."""
    clock, seen = VirtualClock(), []

    @zart.step("long")
    async def long() -> str:
        seen.append(zart.context().deadline)
        await asyncio.sleep(20)
        zart.heartbeat("nearly there")
        return "done"

    @zart.workflow("shielded", timeout="10s")
    def shielded() -> zart.Flow[None]:
        seen.append((yield from zart.shield(long())))
        try:
            yield from zart.sleep("more", "1h")
        except zart.DeadlineExceeded:
            seen.append("struck")
            raise

    runner = ScriptedRunner(clock=clock)
    host = Inline(log, zart.Registry(), clock=clock, runner=runner, rest=clock.pass_until)
    host.start(shielded, None, "x")

    assert host.drive("x").status is zart.Status.TIMED_OUT
    assert seen == [None, "done", "struck"]
    assert clock.now() == VirtualClock().now() + 20
    runner.close()


def test_what_others_have_to_do_is_not_asked_for_without_a_pause(log):
    """An execution that is due, and of a workflow that this host does not know, keeps no processor busy."""
    waits: list[float] = []

    class Waiting(Relay):
        def wait(self, timeout_s: float) -> bool:
            waits.append(timeout_s)
            if len(waits) == 3:
                self.log.append([Post("a", "event", "go", b"5", 0.0)])
            return False

    clock = VirtualClock()
    log.append([new_execution(CODEC, child, "others", b"null", clock.now())])
    host = Inline(Waiting(log), zart.Registry(grandchild), clock=clock)
    host.start(grandchild, None, "a")

    assert host.drive("a").payload == b"5"
    assert waits == [OTHERS_S] * 3


def test_the_defect_of_a_child_is_told():
    """It is why the parent waits, and nobody else can mend it."""

    @zart.workflow("twice")
    def twice() -> zart.Flow[None]:
        yield from zart.now("a")
        yield from zart.now("a")

    @zart.workflow("w")
    def w() -> zart.Flow[None]:
        yield from zart.child(twice)

    with pytest.raises(zart.DuplicateName):
        zart.run_inline(w)


@zart.step()
def doubled(n: int) -> int:
    """A step that does something."""
    return n * 2


@zart.workflow()
def doubling(n: int) -> zart.Flow[int]:
    return (yield from doubled(n))


@zart.step()
def doubled_elsewhere(n: int) -> int:
    """A step that runs another workflow on the log that it runs on itself."""
    return zart.run_inline(doubling, n, log=zart.resource("log"))


@zart.workflow()
def nested(n: int) -> zart.Flow[int]:
    return (yield from doubled_elsewhere(n))


@pytest.mark.parametrize("url", ["memory:", "sqlite:{}/log.db"])
def test_runs_one_after_the_other_are_one_worker_to_their_log(url, tmp_path):
    """A store keeps a lease for each worker that it has met, and SQLite a file open: thousands of runs need one."""
    log = open_log(url.format(tmp_path))

    assert [zart.run_inline(doubling, n, log=log) for n in range(5)] == [0, 2, 4, 6, 8]
    assert log.others("me") == 1
    with pytest.raises(zart.ExecutionConflict):
        zart.run_inline(nested, 1, log=log, id=log.list(limit=1).items[0].id)
    assert log.others("me") == 1
    log.close()


def test_runs_at_the_same_time_are_workers_of_their_own(log):
    """Otherwise the inner one would give back what the outer one holds."""
    for _ in range(2):
        assert zart.run_inline(nested, 2, log=log, resources={"log": log}) == 4
    assert log.others("me") == 2


def test_a_log_that_cannot_be_a_key_is_run_on_all_the_same(log):
    """A store of somebody's may compare by what it holds."""

    class Compared(Relay):
        __hash__ = None  # type: ignore[assignment]

    for n in range(2):
        assert zart.run_inline(doubling, n, log=Compared(log)) == 2 * n
