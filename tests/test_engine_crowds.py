"""Many executions at once, more than an engine keeps alive or can read at a time: what each takes does not grow."""

import asyncio
import threading
import time
from pathlib import Path

import pytest

import zart_core as zart
from zart_core.codec import Codec
from zart_core.events import Ok
from zart_core.hosts.claims import EVICTION_LOOKS, Claims
from zart_core.hosts.engine import READS_MAX
from zart_core.hosts.ports import open_log
from zart_core.hosts.relatives import new_execution
from zart_core.testing.relay import Relay

CODEC = Codec()


@zart.step("work-{n}")
async def work(n: int) -> int:
    return n


@zart.workflow("waits")
def waits(n: int) -> zart.Flow[int]:
    yield from work(n)
    return (yield from zart.wait_for_event("go", int))


class Slow(Relay):
    """Counts how many summaries are asked for at a time; each waits until it may go."""

    def __init__(self, log):
        super().__init__(log)
        self.may_go = threading.Event()
        self.lock = threading.Lock()
        self.now = self.most = 0

    def summary(self, id):
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        self.may_go.wait(20)
        with self.lock:
            self.now -= 1
        return super().summary(id)


@pytest.fixture
def log(tmp_path: Path):
    with_slow = Slow(open_log(f"sqlite:{tmp_path}/log.db"))
    yield with_slow
    with_slow.may_go.set()
    with_slow.close()


def test_letting_go_takes_no_longer_where_many_are_busy(monkeypatch):
    """Hundreds that were started at once are too many and busy: a look for an idle one does not pass by all of them."""
    looks = calls = 0
    is_idle, shrink = Claims.is_idle, Claims.shrink

    def looked(self, live):
        nonlocal looks
        looks += 1
        return is_idle(self, live)

    def called(self, but=None):
        nonlocal calls
        calls += 1
        shrink(self, but)

    monkeypatch.setattr(Claims, "is_idle", looked)
    monkeypatch.setattr(Claims, "shrink", called)

    async def run():
        async with zart.serve("memory:", [waits], max_live=10) as engine:
            handles = await asyncio.gather(*(engine.start(waits, n, id=f"e{n}") for n in range(400)))
            while (await engine.stats())[zart.Status.WAITING] < 400:
                await asyncio.sleep(0.01)
            assert len(engine.live) <= 10, "all but these were let go"
            for handle in handles:
                await handle.send("go", 1)
            assert [await handle.result() for handle in handles] == [1] * 400

    asyncio.run(run())
    assert calls > 400
    assert looks <= calls * EVICTION_LOOKS


def test_reads_at_once_have_a_bound(log):
    """However many ask, the log is read by so many threads at a time and no more: others wait in line."""

    async def run():
        async with zart.serve(log, [waits]) as engine:
            await engine.start(waits, 1, id="e")
            asking = [asyncio.create_task(engine.get("e")) for _ in range(5 * READS_MAX)]
            while log.now < READS_MAX:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.05)
            log.may_go.set()
            assert {(await each).id for each in asking} == {"e"}

    asyncio.run(run())
    assert log.most == READS_MAX


def test_the_lease_does_not_wait_in_line(log):
    """F24: where all reads that may be under way hang, the lease is renewed all the same, and the log written."""

    async def run():
        async with zart.serve(log, [waits]) as engine:
            handle = await engine.start(waits, 1, id="e")
            asking = [asyncio.create_task(engine.get("e")) for _ in range(2 * READS_MAX)]
            while log.now < READS_MAX:
                await asyncio.sleep(0.001)
            before = engine.claims.leased_until
            await asyncio.wait_for(engine.claims.renew(), 10)
            assert engine.claims.leased_until > before
            await asyncio.wait_for(handle.send("go", 7), 10)
            assert not any(each.done() for each in asking)
            log.may_go.set()
            await asyncio.gather(*asking)
            assert await handle.result() == 7

    asyncio.run(run())


class Asked(Relay):
    """Counts how often it is asked for an execution."""

    def __init__(self, log):
        super().__init__(log)
        self.asked = 0

    def summary(self, id):
        self.asked += 1
        return super().summary(id)


@pytest.mark.parametrize(("count", "least", "most"), [(4, 32, 64), (2000, 4000, 6400)])
def test_all_who_wait_for_others_ask_so_often_and_no_oftener(count, least, most):
    """A few look for executions in other hands four times a second each, many 400 times a second in all.

    A look is two questions; all look once when they begin.
    """
    log = Asked(open_log("memory:"))
    writes = [new_execution(CODEC, waits, f"e{n}", b"1", 0.0, wake=2e9) for n in range(count)]
    assert all(isinstance(outcome, Ok) for outcome in log.log.append(writes))

    async def run():
        async with zart.serve(log, [waits]) as engine:
            handles = [await engine.get(f"e{n}") for n in range(count)]
            log.asked = 0
            waiting = [asyncio.create_task(handle.result()) for handle in handles]
            await asyncio.sleep(1.5)
            for each in waiting:
                each.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            assert engine.results.asking == 0

    asyncio.run(run())
    assert least <= log.asked <= most


def test_a_lapse_of_many_reads_them_back_in_line(tmp_path):
    """F24: hundreds whose steps were stopped by a lapse are read back, and no thread is made for each."""
    threads = 0

    @zart.step("slow")
    async def slow() -> int:
        await asyncio.sleep(1)
        return 1

    @zart.workflow("flow")
    def flow(_: None) -> zart.Flow[int]:
        return (yield from slow())

    async def run():
        nonlocal threads
        async with zart.serve(f"sqlite:{tmp_path}/log.db", [flow], max_concurrent_steps=300) as engine:
            handles = await asyncio.gather(*(engine.start(flow, id=f"e{n}") for n in range(300)))
            assert engine.attempts.running > 200
            engine.attempts.lapse()
            end = time.monotonic() + 30
            while any(live.lapsed for live in engine.live.values()) and time.monotonic() < end:
                threads = max(threads, threading.active_count())
                await asyncio.sleep(0.001)
            assert [await handle.result() for handle in handles] == [1] * 300

    asyncio.run(run())
    assert threads <= READS_MAX + 20
