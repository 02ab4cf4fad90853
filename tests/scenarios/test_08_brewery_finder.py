"""Scenario 8: calls over HTTP to a server that fails the first one."""

import http.server
import threading
from datetime import timedelta

import pytest

import zart_core as zart
from examples.brewery_finder import Answering, brewery_finder, lookup_zip
from tests.scenarios.killing import killed, ledger
from zart_core.testing import explore_crashes, run

FOUND = ["Alt (pub)", "Zwickl (micro)"]
CALLS = {"lookup-zip": 2, "find-breweries": 1, "transform": 1}
ASKED = ["/zip/97209", "/zip/97209", "/breweries/portland"]


@pytest.fixture
def server(monkeypatch):
    """A server on this machine; its first answer is a 503."""
    monkeypatch.setattr(Answering, "asked", [])
    with http.server.HTTPServer(("127.0.0.1", 0), Answering) as serving:
        thread = threading.Thread(target=serving.serve_forever, args=(0.01,))
        thread.start()
        yield serving.server_port
        serving.shutdown()
        thread.join()


def test_the_first_call_fails(server):
    """R4: it is made again a second later; the server sees each call that was made."""
    result = run(brewery_finder, (server, "97209"))
    assert (result.value, result.calls, result.elapsed) == (FOUND, CALLS, timedelta(seconds=1))
    assert Answering.asked == ASKED


def test_killed_after_the_lookup(server):
    """The city is not looked up again."""
    two = killed(brewery_finder, (server, "97209"), before="find-breweries")
    assert (two.first, two.result.value, two.result.calls) == ({"lookup-zip": 2}, FOUND, CALLS)
    assert Answering.asked == ASKED


def test_a_server_that_never_answers():
    """R6: four attempts within 1 + 2 + 4 s, well before the deadline of five minutes."""
    result = run(brewery_finder, (1, "97209"), steps={lookup_zip: ConnectionError("refused")})
    assert (result.status, result.elapsed) == (zart.Status.FAILED, timedelta(seconds=7))
    assert result.calls == {"lookup-zip": 4}


def test_the_deadline():
    """R16: a lookup that hangs ends with its own minute, an execution that hangs with its five."""

    async def hangs(port: int, zip: str) -> str:
        import asyncio

        await asyncio.sleep(3600)
        return ""

    result = run(brewery_finder, (1, "97209"), steps={lookup_zip: hangs})
    assert (result.status, result.elapsed) == (zart.Status.FAILED, timedelta(minutes=1))


def test_killed_anywhere(server):
    """P3: one outcome; a server that has failed once answers every call of the runs that follow."""
    run(brewery_finder, (server, "97209"))
    report = explore_crashes(brewery_finder, (server, "97209"))
    assert ledger(report) == dict.fromkeys(CALLS, (1, 2))
    assert len(report.outcomes) == 1


def test_killed_anywhere_while_it_fails(server):
    """The same with a lookup that fails at its first attempt."""
    steps = {lookup_zip: [ConnectionError("503"), "portland"]}
    Answering.asked.append("the first call")
    report = explore_crashes(brewery_finder, (server, "97209"), steps=steps)
    assert ledger(report) == {"lookup-zip": (2, 3), "find-breweries": (1, 2), "transform": (1, 2)}
    assert len(report.outcomes) == 1


def test_on_the_engine(open_engine, server):
    """A real second, on each store."""
    with open_engine(brewery_finder) as engine:
        assert engine.run(brewery_finder, (server, "97209")) == FOUND
    assert Answering.asked == ASKED
