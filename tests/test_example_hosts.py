"""Three custom hosts: what they left behind at any moment is enough to go on."""

from __future__ import annotations

import contextlib

import pytest

import zart_core as zart
from examples.hosts.jsonl_host import append, doubled_sum, invoke, read
from examples.hosts.list_host import digest, run_on_list
from examples.hosts.queue_host import Consumer, payment
from zart_core.testing import VirtualClock

GIST = "the gist is page 0, page 1, page 2"


def test_the_list_host_resumes_at_every_cut():
    """P1: whatever part of the list is left, the result is the same, and so are the names of all commands."""
    log: list[zart.Event] = []
    now = hurrying_clock()
    assert run_on_list(digest, log, now) == GIST
    names = [event.name for event in log if isinstance(event, zart.Issued)]
    for cut in range(len(log) + 1):
        part = log[:cut]
        assert run_on_list(digest, part, now) == GIST
        assert [event.name for event in part if isinstance(event, zart.Issued)] == names


def hurrying_clock():
    """A clock on which every sleep is over at once."""
    clock = VirtualClock()

    def now() -> float:
        clock.advance(seconds=10)
        return clock.now()

    return now


def test_the_list_host_reports_errors():
    """R8: what a step raises comes into the workflow as StepFailed."""

    @zart.step("broken")
    def broken() -> int:
        raise LookupError("no luck")

    @zart.workflow("careful")
    def careful() -> zart.Flow[str]:
        try:
            yield from broken()
        except zart.StepFailed as failed:
            return failed.message
        return "no error"

    assert run_on_list(careful, []) == "no luck"


def test_the_queue_host_works_for_many(url):
    """Messages of several executions, in any order; each is finished by its own."""
    log = zart.open_log(url)
    consumer = Consumer(payment, log, VirtualClock())
    for id in ("a", "b"):
        assert consumer.consume(id, "start", f'"{id}"'.encode()).closed is None
    results = [consumer.consume(id, "refund-wanted", b'"late"').result() for id in ("b", "a")]
    assert results == ["b refunded: late", "a refunded: late"]
    assert {summary.id: summary.status for summary in log.list().items} == {
        "a": zart.Status.COMPLETED,
        "b": zart.Status.COMPLETED,
    }
    log.close()


def test_the_engine_goes_on_where_the_queue_host_stood(url):
    """A log belongs to no host: what one has begun, another one ends."""
    if url == "memory:":
        url = "memory:from-queue-to-engine"
    with zart.open(url, payment):
        log = zart.open_log(url) if url.startswith("memory") else None
    log = log or zart.open_log(url)
    Consumer(payment, log, zart.SystemClock()).consume("a", "start", b'"a"')
    log.close()
    with zart.open(url, payment) as engine:
        handle = engine.get("a")
        handle.send("refund-wanted", "too big")
        assert handle.result(10) == "a refunded: too big"
        assert handle.history()[0].at < handle.history()[-1].at
        assert not engine.start(payment, "a", id="a").created  # R15: by the digest that the consumer gave it


def test_each_step_of_the_queue_host_has_a_key_of_its_own(url):
    """As `Context` says: the same for every attempt, and that of no other step."""

    @zart.step("key-{what}")
    def key(what: str) -> str:
        return zart.context().idempotency_key

    @zart.workflow("keys")
    def keys(order: str) -> zart.Flow[str]:
        return f"{yield from key('a')} {yield from key('b')}"

    with contextlib.closing(zart.open_log(url)) as log:
        assert (
            Consumer(keys, log, VirtualClock()).consume("x", "start", b'""').result() == "x/0/key-a x/0/key-b"
        )


def test_the_queue_host_is_refused_by_an_ended_execution(url):
    """L8: what has ended is given to nobody."""
    log = zart.open_log(url)
    consumer = Consumer(payment, log, VirtualClock())
    consumer.consume("a", "start", b'"a"')
    consumer.consume("a", "refund-wanted", b'"late"')
    with pytest.raises(AssertionError, match="has ended"):
        consumer.consume("a", "refund-wanted", b'"again"')
    log.close()


def test_the_jsonl_host_resumes_at_every_line(tmp_path):
    """P1: a file that was cut after any line is gone on from, with the messages that are not in it."""
    clock, path = VirtualClock(), tmp_path / "sum-1.jsonl"
    for event, value in (("start", 3), ("add", 1), ("add", 10), ("add", 10)):
        result = invoke(doubled_sum, path, event, value, clock)
    assert result == 42
    events = read(path)
    for cut in range(1, len(events)):
        part = tmp_path / f"sum-1-{cut}" / "sum-1.jsonl"
        part.parent.mkdir()
        append(part, events[:cut])
        taken = sum(isinstance(event, zart.Delivered) for event in events[:cut])
        done = None
        for value in [1, 10, 10][taken:]:
            done = invoke(doubled_sum, part, "add", value, clock)
        if taken < 3:
            assert done == 42


@pytest.fixture(params=["memory", "sqlite", "file"])
def url(request, tmp_path):
    """The URL of a fresh log, of each kind."""
    urls = {"memory": "memory:", "sqlite": f"sqlite:{tmp_path}/log.db", "file": f"file:{tmp_path}/log"}
    return urls[request.param]
