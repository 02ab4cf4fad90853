"""How long a worker's claims last is the embedder's to say, and what an engine asks of its log follows from it."""

import threading
import time
from datetime import timedelta

import pytest

import zart_core as zart
from tests.engines import until
from zart_core.hosts.claims import LEASE_S
from zart_core.hosts.ports import open_log
from zart_core.log import Post
from zart_core.testing.relay import Relay


class Leases(Relay):
    """Remembers which leases it was asked for, by call; renewing fails while `deaf` is set."""

    def __init__(self, log):
        super().__init__(log)
        self.asked = {"claim": set(), "acquire": set(), "renew": set()}
        self.deaf = False

    def claim(self, worker, *, now, lease_s, limit, workflows=None):
        self.asked["claim"].add(lease_s)
        return super().claim(worker, now=now, lease_s=lease_s, limit=limit, workflows=workflows)

    def acquire(self, worker, id, *, lease_s):
        self.asked["acquire"].add(lease_s)
        return super().acquire(worker, id, lease_s=lease_s)

    def renew(self, worker, *, lease_s):
        self.asked["renew"].add(lease_s)
        return super().renew(worker, lease_s=lease_s)

    def reach(self, method):
        if self.deaf and method in ("claim", "acquire", "renew"):
            raise zart.StoreUnavailable(f"{method}: nobody answers")


@zart.step("once")
def once() -> int:
    return 1


@zart.workflow("waits")
def waits(_: None) -> zart.Flow[int]:
    yield from zart.wait_for_event("go")
    return (yield from once())


@pytest.fixture
def log():
    store = open_log("memory:")
    yield Leases(store)
    store.close()


@pytest.mark.parametrize("lease", ["0.999s", 0, timedelta(milliseconds=10)])
def test_a_lease_that_is_too_short_is_refused(lease):
    """At the edge, with what was given and what is the least; nothing is opened."""
    with pytest.raises(zart.InvalidUse, match=r"lease is .*; it must be 1 s or longer"):
        zart.open("memory:", [waits], lease=lease)
    with pytest.raises(zart.InvalidUse, match="lease 'soon' is no duration"):
        zart.open("memory:", [waits], lease="soon")


@pytest.mark.parametrize(("lease", "seconds"), [("1500ms", 1.5), (timedelta(minutes=2), 120.0)])
def test_every_claim_is_for_the_lease_that_was_asked_for(log, lease, seconds):
    """Claims, claims by id and renewals; of the default nothing is left."""
    with zart.open(log, [waits], lease=lease, max_live=1) as engine:
        handles = [engine.start(waits, None, id=f"e{n}") for n in range(3)]
        for handle in handles:
            handle.send("go", None)
        assert [handle.result(30) for handle in handles] == [1, 1, 1]
        if seconds < 2:
            until(lambda: log.asked["renew"])
    assert log.asked["claim"] == {seconds}
    assert set.union(*log.asked.values()) == {seconds}


def test_without_a_word_it_is_half_a_minute(log):
    """The default stays what it was."""
    with zart.open(log, [waits]):
        pass
    assert log.asked["claim"] == {LEASE_S} == {30.0}


def test_nothing_is_begun_once_a_short_lease_has_run_out(log):
    """The log is silent for longer than the lease: a step issued meanwhile waits until it is heard again (F24)."""
    began, out = [], threading.Event()

    @zart.step("marks")
    def marks() -> float:
        began.append(out.is_set())
        return time.monotonic()

    @zart.workflow("marked")
    def marked(_: None) -> zart.Flow[float]:
        yield from zart.wait_for_event("go")
        return (yield from marks())

    with zart.open(log, [marked], lease=1.0) as engine:
        handle = engine.start(marked, None, id="m")
        log.deaf = True
        claims = engine.engine.claims
        until(lambda: not claims.is_leased())
        handle.send("go", None)
        until(lambda: engine.engine.attempts.lapses)
        assert not began
        out.set()
        log.deaf = False
        handle.result(30)
    assert began == [True]


def test_nothing_begins_of_what_was_claimed_before_the_lease_ran_out(tmp_path):
    """Two are claimed, and the lease runs out while the first is read: the other is acquired again first (F24)."""
    begun = []

    @zart.step("tells")
    def tells(id: str) -> None:
        begun.append((id, store.summary(id).owner))

    @zart.workflow("telling")
    def telling(id: str) -> zart.Flow[None]:
        yield from zart.wait_for_event("go")
        yield from tells(id)

    class Robbed(Leases):
        """What it gave to a worker is nobody's before the first of it was read."""

        robbing = False
        reading, robbed = threading.Event(), threading.Event()

        def claim(self, worker, **options):
            return [] if self.robbed.is_set() else super().claim(worker, **options)

        def renew(self, worker, *, lease_s):
            renewed = super().renew(worker, lease_s=lease_s)
            if not self.reading.is_set() or self.robbed.is_set():
                return renewed
            self.log.release(worker)
            self.robbed.set()
            return False

        def records(self, id, *where):
            if self.robbing:
                self.reading.set()
                self.robbed.wait(20)
            return super().records(id, *where)

    store = open_log(f"sqlite:{tmp_path}/log.db")
    log = Robbed(store)
    with zart.open(log, [telling]) as engine:
        for id in "ab":
            engine.start(telling, id, id=id)
    with zart.open(log, [telling], lease=1.0) as engine:
        log.robbing = True
        store.append([Post(id, "event", "go", b"null", 0.0) for id in "ab"])
        for id in "ab":
            engine.get(id).result(30)
    assert sorted(id for id, _ in begun) == ["a", "b"]
    assert None not in {owner for _, owner in begun}
    store.close()
