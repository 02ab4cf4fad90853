"""FaultyStore: it goes wrong as it is told, tells the truth about it, and hosts get over it."""

from __future__ import annotations

from typing import Any

import pytest

import zart_core as zart
from zart_core.events import Ok
from zart_core.log import EventLog, New, Post, Receipt, Record, Rejected, Unknown
from zart_core.testing import FaultyStore, StoreContract, run, seeded
from zart_stores import memory


def new(id: str) -> New:
    return New(id, "w", "digest", [Record("Started", 0.0, b"{}")], 0.0)


def faulty(faults: Any = None) -> FaultyStore:
    return FaultyStore(memory.open("memory:"), faults)


class TestRelaying(StoreContract):
    """Without faults it keeps every promise of the log behind it."""

    durable = False

    @pytest.fixture(autouse=True)
    def place(self, request: Any) -> None:
        self.url = f"memory:{request.node.nodeid}"
        self.now = 1000.0

    def open(self) -> EventLog:
        return FaultyStore(memory.open(self.url, clock=lambda: self.now))

    def advance(self, seconds: float) -> None:
        self.now += seconds


def test_outcomes_are_true():
    """Refused is not there, Unknown may be there or not, as the script says (L3)."""
    log = faulty({0: "rejected", 1: "unwritten", 2: "written"})

    outcomes = [log.append([new(id)])[0] for id in ("a", "b", "c", "d")]

    assert outcomes == [
        Rejected("full: a fault was asked for"),
        Unknown("a fault was asked for"),
        Unknown("a fault was asked for"),
        Ok(Receipt()),
    ]
    assert [summary.id for summary in log.list().items] == ["c", "d"]
    assert log.injected == [("append", 0, "rejected"), ("append", 1, "unwritten"), ("append", 2, "written")]


def test_each_write_of_a_batch_has_an_outcome():
    """A fault concerns the whole commit."""
    log = faulty({0: "unwritten"})

    assert log.append([new("a"), new("b")]) == [Unknown("a fault was asked for")] * 2


def test_an_empty_batch_is_no_append():
    """What writes nothing is not counted, and cannot go wrong."""
    log = faulty({0: "rejected"})

    assert log.append([]) == []
    assert log.append([new("a")]) == [Rejected("full: a fault was asked for")]


def test_any_method_can_be_unavailable():
    """A function chooses by the method and how often it was called."""
    log = faulty(lambda method, n: "unavailable" if (method, n) == ("inbox", 1) else None)

    assert log.inbox("a") == []
    with pytest.raises(zart.StoreUnavailable, match="inbox number 1"):
        log.inbox("a")
    assert log.inbox("a") == []


def test_a_failed_store_raises():
    """StoreFailed says that the store is to be opened again."""
    with pytest.raises(zart.StoreFailed, match="append number 0"):
        faulty({0: "failed"}).append([new("a")])


def test_an_unknown_fault_is_refused():
    """A misspelt fault does not pass as none, nor one that a method cannot have."""
    with pytest.raises(zart.InvalidUse, match="not 'reject'"):
        faulty({0: "reject"}).append([new("a")])
    with pytest.raises(zart.InvalidUse, match="a fault of summary is one of failed, unavailable"):
        faulty(lambda method, n: "rejected").summary("a")


def test_stop_ends_it():
    """Once faults stop, nothing goes wrong any more (I18)."""
    log = faulty(lambda method, n: "unavailable")
    with pytest.raises(zart.StoreUnavailable):
        log.stats()

    log.stop()

    assert log.stats() == {}


def test_a_seed_is_a_script():
    """The same seed draws the same lots, another one others, in about the proportions asked for."""

    def drawn(seed: int) -> list[Any]:
        draw = seeded(seed, rejected=0.1, written=0.2, unwritten=0.05, unavailable=0.05)
        return [draw("append", n) for n in range(2000)]

    assert drawn(7) == drawn(7) != drawn(8)
    counts = {
        fault: drawn(7).count(fault) for fault in ("rejected", "written", "unwritten", "unavailable", None)
    }
    assert 140 < counts["rejected"] < 260
    assert 320 < counts["written"] < 480
    assert 60 < counts["unwritten"] < 140
    assert 60 < counts["unavailable"] < 140
    assert {seeded(1, rejected=1.0)("summary", n) for n in range(50)} == {None}


@pytest.mark.parametrize(
    "chances",
    [
        {"rejected": 1.5},
        {"written": -0.1},
        {"rejected": 0.6, "written": 0.6},
        {"rejected": float("nan")},
        {"unavailable": float("nan")},
    ],
)
def test_chances_are_probabilities(chances):
    """Each lies between 0 and 1, and so does their sum."""
    with pytest.raises(zart.InvalidUse, match="probabilities"):
        seeded(1, **chances)


# ---------------------------------------------------------------- hosts get over it


@zart.step("pay", at_most_once=True)
def pay() -> int:
    return 1


@zart.step("check-{n}", retry=zart.Retry.fixed(1, "1s"))
def check(n: int) -> int:
    return n


@zart.workflow("helper")
def helper(n: int) -> zart.Flow[int]:
    yield from zart.sleep("nap", n)
    return (yield from check(n))


@zart.workflow("all-of-it")
def all_of_it() -> zart.Flow[list[int]]:
    paid = yield from pay()
    branches = yield from zart.wait([check(1), check(2), zart.child(helper, 3), zart.child(helper, 4)])
    event = yield from zart.wait_for_event("go", int)
    return [paid, *branches, event]


STEPS = {check: lambda n: n * 10}
EVENTS = [("1h", "go", 5, "key")]
APPENDS = 40
"""More than the workflow takes."""


@pytest.mark.parametrize("fault", ["rejected", "written", "unwritten"])
def test_a_host_gets_over_any_single_fault(fault):
    """Whichever append goes wrong, the outcome is the same and no step runs twice: the worker has not died."""
    plain = run(all_of_it, steps=STEPS, events=EVENTS)
    assert plain.value == [1, 10, 20, 30, 40, 5]
    seen = 0
    for number in range(APPENDS):
        stores: list[FaultyStore] = []

        def store(script: Any = {number: fault}) -> FaultyStore:  # bound here, for this round
            stores.append(faulty(script))
            return stores[-1]

        result = run(all_of_it, steps=STEPS, events=EVENTS, store=store)

        assert (number, result.value, result.calls) == (number, plain.value, plain.calls)
        seen += len(stores[0].injected)
    assert seen >= 15


@pytest.mark.parametrize("seed", range(25))
def test_a_host_gets_over_a_bad_store(seed):
    """With a quarter of all appends going wrong, the outcome is the same and no step runs twice."""
    plain = run(all_of_it, steps=STEPS, events=EVENTS)

    result = run(
        all_of_it,
        steps=STEPS,
        events=EVENTS,
        store=lambda: faulty(seeded(seed, rejected=0.1, written=0.1, unwritten=0.05)),
    )

    assert (result.value, result.calls) == (plain.value, plain.calls)


def test_a_store_that_cannot_be_reached_surfaces():
    """What a host cannot get over comes to its user as weather."""
    with pytest.raises(zart.StoreUnavailable):
        run(all_of_it, store=lambda: faulty(lambda method, n: "unavailable" if method == "claim" else None))


def test_a_refused_post_is_sent_again():
    """A sender whose event is refused tries again a second later."""
    calls: list[Post] = []

    class Refusing(FaultyStore):
        def append(self, batch: Any) -> Any:
            posts = [write for write in batch if isinstance(write, Post)]
            calls.extend(posts)
            return [Rejected("full: try later")] if posts and len(calls) < 3 else super().append(batch)

    result = run(all_of_it, steps=STEPS, events=EVENTS, store=lambda: Refusing(memory.open("memory:")))

    assert len(calls) == 3
    assert result.elapsed.total_seconds() == 3602.0
