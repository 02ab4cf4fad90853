"""Steps that any worker may take: queues, overflow to other workers, and what becomes of offers."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ParamSpec

import pytest

import zart_core as zart
from zart_core import log as stored
from zart_core.events import Began, Closed, Issued, Noted, Resolved, Started, Status
from zart_core.hosts import sharing
from zart_core.hosts.offers import known_steps, offered_id, page_of
from zart_core.hosts.ports import open_log
from zart_core.testing.relay import Relay
from zart_core.workflows import Registry

PATIENCE_S = 60.0
P = ParamSpec("P")


def on_a_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a test on an event loop of its own."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), 2 * PATIENCE_S))

    return run


class NoPaper(Exception):
    """An answer of a step."""


RAN: list[tuple[str, zart.Context]] = []


@zart.step("render-{n}", queue="gpu")
def render(n: int, *, scale: int = 2) -> int:
    RAN.append((threading.current_thread().name, zart.context()))
    return n * scale


@zart.step("print-{n}", queue="gpu", raises=(NoPaper,))
async def print_(n: int) -> None:
    raise NoPaper(str(n))


@zart.step("endless", queue="gpu", cancel_grace="30s")
async def endless() -> None:
    await asyncio.Event().wait()


@zart.workflow("rendered")
def rendered(n: int) -> zart.Flow[int]:
    return (yield from render(n, scale=3))


@zart.workflow("printed")
def printed() -> zart.Flow[str]:
    try:
        yield from print_(7)
    except NoPaper as error:
        return f"no paper for {error}"
    return "printed"


def print_instead(n: int, _: BaseException) -> zart.Flow[int]:
    return (yield from render(n, scale=5))


@zart.workflow("falls-back", on_failure=print_instead)
def falls_back(n: int) -> zart.Flow[int]:
    yield from zart.now("begun")
    raise ValueError("out of order")


@zart.workflow("ends")
def ends() -> zart.Flow[str]:
    try:
        yield from endless()
    except zart.Cancelled:
        return "unwound"
    return "ended"


@zart.workflow("raced")
def raced() -> zart.Flow[int]:
    winner, _ = yield from zart.race(zart.wait_for_event("go"), render(1))
    return winner


FLOWS = [rendered, printed, ends, raced]


@asynccontextmanager
async def engines(
    log: str, *queues: tuple[str, ...], **options: Any
) -> AsyncIterator[list[zart.AsyncEngine]]:
    """An engine for each tuple of queues, on one log."""
    first, *rest = queues
    async with zart.serve(log, FLOWS, queues=first, **options) as engine:
        if not rest:
            yield [engine]
        else:
            async with engines(log, *rest, **options) as others:
                yield [engine, *others]


async def history(engine: zart.AsyncEngine, id: str) -> list[Any]:
    """The events of an execution, without times and sites."""
    return [type(event).__name__ for event in await engine.history(id)]


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a log that several engines can use."""
    return f"memory:{tmp_path}" if request.param == "memory" else f"sqlite:{tmp_path}/log.db"


@on_a_loop
async def test_a_step_of_a_queue_runs_on_a_worker_that_serves_it(url: str) -> None:
    """It is offered in the turn that asks for it, and its outcome comes back as that of any step (L1, L7, R1)."""
    RAN.clear()
    async with engines(url, ("default",), ("gpu",)) as (here, there):
        handle = await here.start(rendered, 5, id="r")
        assert await asyncio.wait_for(handle.result(), PATIENCE_S) == 15
        assert there.attempts.slots == there.attempts.slots_max
        own = await here.history("!step/0/0/r")

    ((_, context),) = RAN
    assert (context.execution_id, context.workflow, context.step) == ("r", "rendered", "render-5")
    assert context.idempotency_key == "r/0/render-5"
    assert [type(event) for event in own] == [Started, Issued, Began, Resolved, Closed]


@on_a_loop
async def test_its_turn_holds_the_offer(url: str) -> None:
    """The offer is there as soon as the execution waits for it, and nothing else runs meanwhile."""
    async with engines(url, ("default",)) as (here,):
        await here.start(rendered, 5, id="r")
        found = [type(event) for event in await here.history("r")]
        offer = await here.summary("!step/0/0/r")
        explained = await here.explain("r")

    assert found == [Started, Issued, Began, Noted]
    assert (offer.status, offer.workflow) == (Status.SCHEDULED, "!step/gpu/render-{n}")
    assert "a worker that serves queue 'gpu' and has the step registered takes it" in explained


@on_a_loop
async def test_a_declared_error_comes_back_as_its_own_type(url: str) -> None:
    """R8 holds wherever the step ran."""
    async with engines(url, ("default",), ("gpu",)) as (here, _):
        handle = await here.start(printed, id="p")
        assert await asyncio.wait_for(handle.result(), PATIENCE_S) == "no paper for 7"


@on_a_loop
async def test_a_worker_that_serves_the_queue_runs_it_itself(url: str) -> None:
    """Local first: one commit, and nothing is offered."""
    async with engines(url, ("default", "gpu")) as (here,):
        handle = await here.start(rendered, 5, id="r")
        assert await asyncio.wait_for(handle.result(), PATIENCE_S) == 15
        found = [type(event) for event in await here.history("r")]

    assert found == [Started, Issued, Began, Resolved, Closed]


@on_a_loop
async def test_a_worker_without_the_default_queue_holds_no_executions(url: str) -> None:
    """What is started there others go on with."""
    async with engines(url, ("gpu",)) as (there,):
        handle = await there.start(rendered, 5, id="r")
        assert (await there.summary("r")).owner is None
        async with engines(url, ("default",)) as (here,):
            assert await asyncio.wait_for(handle.result(), PATIENCE_S) == 15
            assert "r" not in there.live
            assert here.live == {}


@on_a_loop
async def test_cancelling_reaches_a_step_that_runs_elsewhere(url: str) -> None:
    """It is told to end where it runs, well before its grace is over, and compensation comes after it (R18)."""
    async with engines(url, ("default",), ("gpu",)) as (here, there):
        handle = await here.start(ends, id="e")
        while not there.attempts.running:
            await asyncio.sleep(0.01)
        await handle.cancel("enough")
        assert await asyncio.wait_for(handle.result(), 25.0) == "unwound"
        assert there.attempts.running == 0
        assert (await here.summary("!step/0/0/e")).status is Status.CANCELLED


@on_a_loop
async def test_an_offer_that_nobody_took_is_withdrawn(url: str) -> None:
    """A loser that never ran never will."""
    RAN.clear()
    async with engines(url, ("default",)) as (here,):
        handle = await here.start(raced, id="r")
        await here.send("r", "go", None)
        assert await asyncio.wait_for(handle.result(), 8.0) == 0
        async with engines(url, ("gpu",)) as (there,):
            while (await there.summary("!step/1/0/r")).status is not Status.CANCELLED:
                await asyncio.sleep(0.01)
    assert RAN == []


@on_a_loop
async def test_a_finished_run_takes_its_offers_along(url: str) -> None:
    """Terminated with what it waits for."""
    async with engines(url, ("default",)) as (here,):
        await here.start(ends, id="e")
        await here.terminate("e", "enough")
        async with engines(url, ("gpu",)) as (there,):
            while (await there.summary("!step/0/0/e")).status is not Status.TERMINATED:
                await asyncio.sleep(0.01)


@zart.workflow("ends")
def ends_otherwise() -> zart.Flow[str]:
    yield from zart.now("the end")
    yield from endless()
    return "ended"


@on_a_loop
async def test_a_parked_run_that_is_terminated_takes_its_offers_along(url: str) -> None:
    """What nobody took is ended here, as that of any run; it was there for ever where nobody serves its queue."""
    async with engines(url, ("default",)) as (here,):
        await here.start(ends, id="e")
    async with zart.serve(url, [ends_otherwise]) as here:
        await here.terminate("e", "enough")
        while (await here.summary("!step/0/0/e")).status is not Status.TERMINATED:
            await asyncio.sleep(0.01)
        assert (await here.summary("e")).status is Status.TERMINATED


class LosesAnAnswer(Relay):
    """The first execution that is asked for by id is given, and the answer is lost."""

    lost = ""

    def acquire(self, worker: str, id: str, *, lease_s: float) -> stored.Summary | None:
        given = super().acquire(worker, id, lease_s=lease_s)
        if given is not None and not self.lost:
            self.lost = id
            raise zart.StoreUnavailable("nobody answers")
        return given


@on_a_loop
async def test_an_offer_whose_recall_was_not_answered_ends(url: str) -> None:
    """The log gave it, and gives nothing twice: it is looked for."""
    store = open_log(url)
    log = LosesAnAnswer(store)
    async with zart.serve(log, FLOWS) as here:
        await here.start(ends, id="e")
        await here.terminate("e", "enough")
        while (await here.summary("!step/0/0/e")).status is not Status.TERMINATED:
            await asyncio.sleep(0.01)
    store.close()
    assert log.lost == "!step/0/0/e"


@on_a_loop
async def test_the_offer_outlives_both_workers(url: str) -> None:
    """An owner that comes back knows what it waits for, and does not run it itself (F1)."""
    log = open_log(url)
    async with engines(url, ("default",)) as (here,):
        await here.start(rendered, 5, id="r")
    async with engines(url, ("default",)) as (here,):
        assert (await here.summary("!step/0/0/r")).status is Status.SCHEDULED
    async with engines(url, ("gpu",)):
        while True:
            summary = log.summary("!step/0/0/r")
            if summary is not None and summary.status.closed:
                break
            await asyncio.sleep(0.01)
    async with engines(url, ("default",)) as (here,):
        handle = await here.get("r")
        assert await asyncio.wait_for(handle.result(), PATIENCE_S) == 15
        found = [type(event) for event in await here.history("r")]
    log.close()
    assert found.count(Resolved) == 1


@on_a_loop
async def test_offered_steps_are_not_listed_unless_they_are_asked_for(url: str) -> None:
    """`list` shows what people started."""
    async with engines(url, ("default",)) as (here,):
        for n in range(5):
            await here.start(rendered, n, id=f"r{n}")
        first = await here.list(limit=2)
        second = await here.list(limit=2, after=first.next)
        last = await here.list(limit=2, after=second.next)
        steps = await here.list(id_prefix="!step/")
    assert [[one.id for one in page.items] for page in (first, second, last)] == [
        ["r0", "r1"],
        ["r2", "r3"],
        ["r4"],
    ]
    assert last.next is None
    assert [one.id for one in steps.items] == [f"!step/0/0/r{n}" for n in range(5)]


# ---------------------------------------------------------------- overflow

STARTED = threading.Semaphore(0)
GO = threading.Event()


@zart.step("held-{n}")
def held(n: int) -> int:
    STARTED.release()
    GO.wait(PATIENCE_S)
    return n


@zart.workflow("fan")
def fan(n: int) -> zart.Flow[list[int]]:
    return (yield from zart.wait([held(i) for i in range(n)]))


async def taken(count: int) -> None:
    """Wait until so many steps have started."""
    for _ in range(count):
        assert await asyncio.to_thread(STARTED.acquire, True, PATIENCE_S)


@on_a_loop
async def test_steps_that_find_no_slot_overflow_to_others(url: str) -> None:
    """Local first; the rest runs wherever there is room, all at once."""
    global STARTED  # a fresh one for each test
    STARTED = threading.Semaphore(0)
    GO.clear()
    async with (
        zart.serve(url, [fan], max_concurrent_steps=2) as here,
        zart.serve(url, [fan], max_concurrent_steps=2) as there,
    ):
        handle = await here.start(fan, 4, id="f")
        await taken(4)
        assert (here.attempts.running, there.attempts.running) == (2, 2)
        GO.set()
        assert await asyncio.wait_for(handle.result(), PATIENCE_S) == [0, 1, 2, 3]
        offered = [event.who for event in await here.history("f") if isinstance(event, Noted)]
    assert offered == ["2", "3"]


@zart.step("held-there-{n}", queue="gpu")
def held_there(n: int) -> int:
    STARTED.release()
    GO.wait(PATIENCE_S)
    return n


@zart.workflow("fan-there")
def fan_there(n: int) -> zart.Flow[list[int]]:
    return (yield from zart.wait([held_there(i) for i in range(n)]))


@pytest.mark.parametrize("flow", [fan, fan_there])
@on_a_loop
async def test_what_nobody_takes_comes_back_into_its_own_line(
    flow: zart.Workflow[int, list[int]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever queue it names, if it could run here; else it waited until this worker had nothing else to do."""
    global STARTED  # a fresh one for each test
    monkeypatch.setattr(sharing, "TAKE_BACK_S", 0.3)
    STARTED = threading.Semaphore(0)
    GO.clear()
    async with (
        zart.serve(f"memory:{tmp_path}", [flow], queues=("default", "gpu"), max_concurrent_steps=1) as here,
        zart.serve(f"memory:{tmp_path}", [flow], queues=("cpu",)),
    ):
        handle = await here.start(flow, 2, id="f")
        await taken(1)
        while not [one for one in (await here.list(id_prefix="!step/")).items if one.owner == here.worker]:
            await asyncio.sleep(0.01)
        GO.set()
        assert await asyncio.wait_for(handle.result(), PATIENCE_S) == [0, 1]


class Scratched(Relay):
    """A log in which the first offered step is damaged."""

    def summary(self, id: str) -> stored.Summary | None:
        """See EventLog."""
        if id == "!step/1/0/f":
            raise zart.LogCorrupt("its row is damaged")
        return super().summary(id)


@on_a_loop
async def test_an_offer_that_is_damaged_keeps_no_other_from_coming_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """I8: nothing was taken back any more, and nothing offered; and it is said (L12)."""
    monkeypatch.setattr(sharing, "TAKE_BACK_S", 0.3)
    GO.clear()
    url = f"memory:{tmp_path}"
    log = Scratched(open_log(url))
    async with (
        zart.serve(log, [fan], max_concurrent_steps=1) as here,
        zart.serve(url, [fan], queues=("cpu",)),
    ):
        await here.start(fan, 3, id="f")
        while not [one for one in (await here.list(id_prefix="!step/2/")).items if one.owner == here.worker]:
            await asyncio.sleep(0.01)
        GO.set()
    log.close()
    assert "an offered step cannot be taken back: its row is damaged" in caplog.text


@on_a_loop
async def test_a_single_process_offers_nothing(url: str) -> None:
    """Without other workers everything stays in line."""
    GO.set()
    async with zart.serve(url, [fan], max_concurrent_steps=1) as here:
        here.sharing.look()
        handle = await here.start(fan, 6, id="f")
        assert await asyncio.wait_for(handle.result(), PATIENCE_S) == [0, 1, 2, 3, 4, 5]
        found = [event for event in await here.history("f") if isinstance(event, Noted)]
    assert found == []


# ---------------------------------------------------------------- what is known by its name


class Press:
    """Steps may be methods."""

    @zart.step("stamp", queue="gpu")
    def stamp(self) -> int:
        return 1


PRESS = Press()


@zart.workflow("stamped")
def stamped() -> zart.Flow[int]:
    return (yield from PRESS.stamp())


class Lazy:
    """Stands for an object that is made when it is first looked at, which is not now."""

    @property
    def __class__(self) -> type:  # type: ignore[override]  # as such objects have it
        raise RuntimeError("working outside of a request")


request: Any = Lazy()


@zart.workflow("asks")
def asks(order: Any) -> zart.Flow[str]:
    """Names an attribute as the module names what is made lazily."""
    yield from held(1)
    return str(order.request)


def test_what_a_module_holds_beside_steps_is_not_touched() -> None:
    """An object that is made when it is looked at stays as it is; the engine opens."""
    assert len(known_steps(Registry(asks))) == 1


def test_known_steps_are_those_that_code_names() -> None:
    """Of workflows, and of the flows they call; those of a bound method are no one's by name."""
    assert sorted(known_steps(Registry(FLOWS))) == [
        "!step/gpu/endless",
        "!step/gpu/print-{n}",
        "!step/gpu/render-{n}",
    ]
    assert known_steps(Registry(stamped)) == {}
    assert list(known_steps(Registry(falls_back))) == ["!step/gpu/render-{n}"]


@zart.step("render-{n}", queue="big")
def render_bigger(n: int, *, scale: int = 2) -> int:
    return n * scale


@zart.workflow("rendered")
def rendered_bigger(n: int) -> zart.Flow[int]:
    return (yield from render_bigger(n, scale=3))


@on_a_loop
async def test_an_offer_keeps_the_queue_that_it_was_offered_to(url: str) -> None:
    """Code that names another queue by now waits for it all the same, and takes it for nobody else's."""
    async with engines(url, ("default",)) as (here,):
        await here.start(rendered, 5, id="r")
    async with zart.serve(url, [rendered_bigger]) as here:
        await here.send("r", "wakes it up", None)
        while (found := await here.summary("r")).owner is None and not found.status.closed:
            await asyncio.sleep(0.01)
        async with engines(url, ("gpu",)):
            handle = await here.get("r")
            assert await asyncio.wait_for(handle.result(), PATIENCE_S) == 15


@on_a_loop
async def test_a_step_that_others_cannot_find_parks_its_run(url: str) -> None:
    """The message says what to do (R20)."""
    async with zart.serve(url, [stamped]) as here:
        handle = await here.start(stamped, id="s")
        with pytest.raises(zart.Defect, match="queue 'gpu', which this worker does not serve"):
            await asyncio.wait_for(handle.result(), PATIENCE_S)


def test_the_id_of_an_offer_is_never_too_long() -> None:
    """Ids of 255 characters may have steps, too."""
    assert offered_id("x", 3, 2) == "!step/2/3/x"
    longest = offered_id("x" * 255, 3, 2)
    assert len(longest) < 255
    assert longest != offered_id("x" * 255, 3, 1)


@pytest.mark.parametrize("queue", ["", "a b", "x" * 65, "a/b", 3])
def test_a_queue_has_a_plain_name(queue: Any) -> None:
    """What is wrong with it is said at the decorator, and when a log is opened."""
    with pytest.raises(zart.InvalidUse, match="a queue's name is"):
        zart.step("x", queue=queue)(lambda: None)
    with pytest.raises(zart.InvalidUse, match="a queue's name is"):
        zart.open("memory:", [rendered], queues=[queue])


def test_queues_are_several() -> None:
    """A text is no list of names."""
    with pytest.raises(zart.InvalidUse, match="give the names of queues"):
        zart.open("memory:", [rendered], queues="gpu")


def test_without_steps_a_page_is_what_the_log_gives() -> None:
    """Nothing is left out, nothing added."""
    log = open_log("memory:")
    log.append([stored.New(id, "w", "d", [], 0.0) for id in ("!", "!step/~~", "a")])
    assert [one.id for one in page_of(log, limit=2).items] == ["!", "!step/~~"]
