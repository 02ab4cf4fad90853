"""The memory log: the contract, and what is its own."""

import itertools
import math
import os
import signal
import time
import weakref

import pytest

from zart_core.errors import InvalidUse, StoreFailed
from zart_core.events import Status
from zart_core.log import New, Record, Turn
from zart_core.testing.contract import StoreContract, claimed, expect, new, post, state, turn, write
from zart_stores import memory

names = itertools.count()


class TestMemoryContract(StoreContract):
    durable = False

    @pytest.fixture(autouse=True)
    def place(self):
        self.url = f"memory:contract-{next(names)}"
        self.now = 1000.0

    def open(self):
        return memory.open(self.url, clock=lambda: self.now)

    def advance(self, seconds):
        self.now += seconds


@pytest.mark.parametrize("url", ["memory", "", "file:x", "Memory:", ":"])
def test_bad_url(url):
    """Another URL is refused, with one that works."""
    with pytest.raises(InvalidUse, match="write memory: or memory:NAME"):
        memory.open(url)


@pytest.mark.parametrize("durability", ["power", "process", "", "None"])
def test_bad_durability(durability):
    """L4: a level that memory cannot give is refused."""
    with pytest.raises(InvalidUse, match="durability='none'"):
        memory.open("memory:", durability=durability)


def test_private_and_named():
    """`memory:` is a log of its own; `memory:NAME` is shared and outlives its objects."""
    name = f"memory:named-{next(names)}"
    one, two, named = memory.open("memory:"), memory.open("memory:"), memory.open(name)
    write(one, new())
    write(named, new(), turn("a", 1, "X"), post())
    expect(two.summary("a"), None)
    before = state(named, "a")
    named.close()
    named = memory.open(name)
    expect(state(named, "a"), before)
    for log in (one, two, named):
        log.close()


def test_records_are_kept_as_they_are():
    """Records are not copied: what is read is the object that was appended."""
    log = memory.open("memory:")
    record = Record("Started", 1.0, b"x")
    write(log, New("a", "w", "d", [record], 1.0))
    assert log.records("a")[0] is record
    log.close()


def test_a_worker_declared_dead():
    """`release` of another's worker frees what a crashed one held, for the next to take."""
    name = f"memory:named-{next(names)}"
    crashed = memory.open(name)
    write(crashed, new())
    claimed(crashed, "w1")
    write(crashed, turn("a", 1, "X", fence=1, status=Status.RUNNING))
    after = memory.open(name)
    expect(claimed(after, "w2"), [])
    after.release("w1")
    expect(claimed(after, "w2"), ["a"])
    after.close()


def test_a_lease_that_ends_now_has_ended():
    """Who counts the workers and who takes over from them agree on the moment (L8)."""
    now = [1000.0]
    log = memory.open("memory:", clock=lambda: now[0])
    write(log, new())
    expect(claimed(log, "w1", lease_s=5.0), ["a"])
    now[0] = math.nextafter(1005.0, 0.0)
    expect((log.others("w2"), claimed(log, "w2")), (1, []))
    now[0] = 1005.0
    expect((log.others("w2"), claimed(log, "w2")), (0, ["a"]))
    log.close()


def test_a_closed_log_has_no_workers():
    """What one log of a name leased is nobody's when it is closed, and the others know (L8)."""
    name = f"memory:named-{next(names)}"
    one, other = memory.open(name), memory.open(name)
    write(one, new())
    claimed(one, "w1")
    assert other.others("w2") == 1
    one.close()
    assert other.others("w2") == 0
    expect(claimed(other, "w2"), ["a"])
    other.close()


def test_due_does_not_scan():
    """L10: claims among many finished executions cost as little as among few."""
    log = memory.open("memory:")
    for n in range(20_000):
        log.append(
            [Turn(f"e{n}", 0, 0, 0, [], 1.0, Status.COMPLETED)] if n % 2 else [new(f"e{n + 1}", wake=None)]
        )
    write(log, new("a"))
    shelf = log._shelf
    expect(sum(len(queue) for queues in shelf.queues.values() for queue in queues.values()), 1)
    began = time.perf_counter()
    expect(claimed(log), ["a"])
    assert time.perf_counter() - began < 1.0
    log.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_fork():
    """A forked child is refused, whoever had the lock, and finds no named log; the parent's goes on (F12)."""
    name = f"memory:forked-{next(names)}"
    log = memory.open(name)
    write(log, new())
    with log._shelf.lock:  # as a thread may have it that the child has not
        child = os.fork()
    if child == 0:
        signal.alarm(10)
        refusals = 0
        uses = (
            lambda: log.summary("a"),
            lambda: log.append([new("b")]),
            lambda: claimed(log),
            lambda: log.wait(0.0),
        )
        for use in uses:
            try:
                use()
            except StoreFailed as failed:
                refusals += "before a fork" in str(failed)
        log.close()
        own = memory.open(name)
        os._exit(refusals if own.summary("a") is None else 9)
    expect(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 4)
    write(log, turn("a", 1, "X"))
    expect(memory.open(name).summary("b"), None)
    log.close()


def test_what_a_child_finds(monkeypatch):
    """As it is after a fork, seen from within: what is open is closed, and no name leads to what the parent has."""
    log, other = memory.open(f"memory:seen-{next(names)}"), memory.open("memory:")
    write(log, new())
    monkeypatch.setattr(memory, "_logs", weakref.WeakSet([log, other]))
    monkeypatch.setattr(memory, "_named", {"seen": log._shelf})
    memory._disown_all()
    assert not memory._named
    for each in (log, other):
        with pytest.raises(StoreFailed, match="before a fork"):
            each.summary("a")
        each.close()
