"""`zart.heartbeat` where no engine is: the inline host, the test kit, the command line."""

from __future__ import annotations

import contextlib
import io
import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import zart_core as zart
from tests.engines import until
from zart_core.cli import app
from zart_core.cli.progress import Progress
from zart_core.cli.view import picture
from zart_core.deploys.transfers import export_history
from zart_core.hosts.inline import Inline
from zart_core.hosts.progress import INTERVAL_S, heartbeats_of
from zart_core.interpreter import CODEC
from zart_core.log import Appended, EventLog, Mark, Write
from zart_core.testing import VirtualClock, explore_crashes, run
from zart_core.testing.relay import Relay

HEARD: list[str] = []


class Noting(Relay):
    """A log that notes renewals, and what steps say."""

    def __init__(self, log: EventLog) -> None:
        super().__init__(log)
        self.renewals = 0
        self.said: list[str] = []

    def renew(self, worker: str, *, lease_s: float) -> bool:
        """See EventLog."""
        self.renewals += 1
        return self.log.renew(worker, lease_s=lease_s)

    def append(self, batch: Sequence[Write]) -> list[Appended]:
        """See EventLog."""
        outcomes = self.log.append(batch)
        for write in batch:
            if isinstance(write, Mark) and (summary := self.log.summary(write.id)) is not None:
                self.said += [bytes(one.progress).decode() for one in heartbeats_of(summary)]
        return outcomes


@zart.step("talk")
def talk(words: int) -> int:
    for word in range(words):
        zart.heartbeat(word)
        zart.resource("clock").advance(INTERVAL_S / 2)
    return words


@zart.step("talk-async")
async def talk_async(words: int) -> int:
    return int(talk.fn(words))


@zart.workflow("talks")
def talks(words: int) -> zart.Flow[int]:
    return (yield from talk(words)) + (yield from talk_async(words))


@zart.step("endless", timeout=10)
def endless() -> None:
    while True:
        try:
            zart.heartbeat()
        except zart.Cancelled as error:
            HEARD.append(str(error))
            raise
        zart.resource("clock").advance(1)


@zart.workflow("out-of-time")
def out_of_time() -> zart.Flow[str]:
    try:
        yield from endless()
    except zart.StepTimedOut:
        return "timed out"
    return "ended"


@zart.step("robbed")
def robbed() -> None:
    log: EventLog = zart.resource("log")
    log.release(zart.resource("worker")(), ["r"])
    assert log.acquire("another", "r", lease_s=1000.0) is not None
    try:
        zart.heartbeat()
    except zart.Cancelled as error:
        HEARD.append(str(error))
        zart.heartbeat()


@zart.workflow("robbery")
def robbery() -> zart.Flow[None]:
    yield from robbed()


@pytest.fixture
def log() -> Noting:
    """A log in memory."""
    HEARD.clear()
    return Noting(zart.open_log("memory:"))


def test_in_virtual_time(log: Noting) -> None:
    """Written every few seconds of the host's own clock, and each time the lease is renewed."""
    clock = VirtualClock()
    host = Inline(log, zart.Registry(talks), clock=clock, resources={"clock": clock})
    host.start(talks, 6, "t")
    assert host.drive("t").payload == b"12"
    assert log.said == ["0", "2", "4"] * 2
    assert log.renewals == 6
    assert [type(event).__name__ for event in CODEC.decode_events(log.records("t"))] == [
        *("Started", "Issued", "Began", "Resolved", "Issued", "Began", "Resolved", "Closed")
    ]


def test_a_step_hears_that_its_time_is_up(log: Noting) -> None:
    """A sync step of the inline host is not interrupted: it ends when it asks."""
    clock = VirtualClock()
    host = Inline(log, zart.Registry(out_of_time), clock=clock, resources={"clock": clock})
    host.start(out_of_time, None, "t")
    assert host.drive("t").payload == b'"timed out"'
    assert HEARD == ["step 'endless' is to end: its deadline has passed"]


def test_a_step_hears_that_another_worker_has_its_execution(log: Noting) -> None:
    """Each time it asks; the host lets go of it, and what the step came to is not written."""

    def rest(_: float | None) -> None:
        raise zart.Stuck("it is in other hands")

    host = Inline(
        log,
        zart.Registry(robbery),
        clock=VirtualClock(),
        resources={"log": log, "worker": lambda: host.worker},
        rest=rest,
    )
    host.start(robbery, None, "r")
    with pytest.raises(zart.Stuck):
        host.drive("r")
    assert HEARD == ["step 'robbed' is to end: another worker has its execution now"]
    assert [type(event).__name__ for event in CODEC.decode_events(log.records("r"))] == [
        *("Started", "Issued", "Began")
    ]


def test_the_weather_of_the_log_is_not_the_steps(log: Noting, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it says is lost, and nothing else."""

    def renew(worker: str, *, lease_s: float) -> bool:
        raise zart.StoreUnavailable("not now")

    monkeypatch.setattr(log, "renew", renew)
    clock = VirtualClock()
    host = Inline(log, zart.Registry(talks), clock=clock, resources={"clock": clock})
    host.start(talks, 6, "t")
    assert host.drive("t").payload == b"12"
    assert log.said == []


def test_in_the_test_kit() -> None:
    """A step that speaks is tested as any other, and crashed at its words, too."""
    clock = VirtualClock()
    assert run(talks, 6, resources={"clock": clock}, clock=clock).value == 12
    report = explore_crashes(talks, 2, resources=lambda: {"clock": VirtualClock()})
    report.check()
    assert report.executions_of("talk") == (1, 2)


def zart_json(*arguments: str) -> Any:
    """What a command prints as JSON."""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert app.main([*arguments, "--json"]) == 0
    return json.loads(said.getvalue())


def zart_text(*arguments: str) -> str:
    """What a command prints."""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert app.main(list(arguments)) == 0
    return said.getvalue()


def drawing_of(url: str, id: str) -> str:
    """What the live view of `zart run` draws."""
    with contextlib.closing(zart.open_log(url)) as log:
        progress = Progress(log, id)
        progress.read()
        return "\n".join(str(row) for row in picture(progress, [], time.time()).renderables)


def test_on_the_command_line(tmp_path: Path) -> None:
    """`show`, `explain`, `list` and the live view, as text that is escaped and cut, and as JSON."""
    done = threading.Event()

    @zart.step("talk")
    def speak(word: str) -> None:
        zart.heartbeat({"word": word})
        done.wait()

    @zart.workflow("speaks")
    def speaks(word: str) -> zart.Flow[None]:
        yield from speak(word)

    url = f"sqlite:{tmp_path}/log.db"
    word = "red \x1b[31m \u202e" + "x" * 1000
    with zart.open(url, [speaks]) as engine:
        handle = engine.start(speaks, word, id="t")
        until(lambda: "said" in handle.explain())
        drawn = drawing_of(url, "t")
        shown, explained = zart_text("show", "t", "--store", url), zart_text("explain", "t", "--store", url)
        listed = zart_text("list", "--store", url)
        (step,) = zart_json("show", "t", "--store", url)["steps"]
        (wait,) = zart_json("explain", "t", "--store", url)["waits"]
        reasons = [item["reason"] for item in zart_json("list", "--store", url)["items"]]
        done.set()
        handle.result()
        drawn_then = drawing_of(url, "t")
        (ended,) = zart_json("show", "t", "--store", url)["steps"]

    assert "said" not in drawn_then
    for text in (shown, explained, drawn):
        assert ' s ago it said {"word":"red \\u001b[31m \\u202exxx' in text
        assert "characters)" in text
        assert "\x1b" not in text
    assert "said" not in listed
    assert "heartbeats" not in listed
    assert reasons == [""]
    assert step["progress"] == wait["progress"]
    assert (step["progress"]["attempt"], step["progress"]["value"]) == (0, {"word": word})
    assert step["progress"]["at"] >= step["began_at"]
    assert ended["progress"] is None


def test_an_export_says_nothing_of_it(tmp_path: Path) -> None:
    """It is no history, and what is scrubbed from one must not stand beside it."""
    done = threading.Event()

    @zart.step("talk")
    def speak() -> None:
        zart.heartbeat("a secret")
        done.wait()

    @zart.workflow("speaks")
    def speaks() -> zart.Flow[None]:
        yield from speak()

    log = zart.open_log(f"sqlite:{tmp_path}/log.db")
    with zart.open(log, [speaks]) as engine:
        handle = engine.start(speaks, id="t")
        until(lambda: "a secret" in handle.explain())
        assert export_history(log, "t").reason == ""
        done.set()
        handle.result()
    log.close()
