"""What an execution waits for: where, since when, until when, who can end it, and whether anybody will."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest

import zart_core as zart
from zart_core import log as stored
from zart_core.cli import app, reading
from zart_core.hosts.explain import moment
from zart_core.hosts.inline import Inline
from zart_core.insight.explaining import Explanation, circumstances, explanation, lines_of
from zart_core.insight.sources import place_of, raised_at, without_own
from zart_core.testing import VirtualClock

START = 1_767_225_600.0
HERE = Path(__file__)


@zart.step("fails", retry=zart.Retry.fixed(3, 600))
def fails() -> int:
    raise OSError("no answer")


@zart.step("breaks")
def breaks(n: int) -> int:
    raise LookupError(f"nothing for {n}")


@zart.workflow("listens")
def listens(timeout: float | None) -> zart.Flow[str]:
    return (yield from zart.wait_for_event("word", str, timeout=timeout))


@zart.workflow("listens-twice")
def listens_twice() -> zart.Flow[str]:
    yield from zart.wait_for_event("word", str)
    return (yield from zart.wait_for_event("word", str))


@zart.workflow("listens-on")
def listens_on(n: int) -> zart.Flow[None]:
    yield from zart.race(zart.wait_for_event("word"), zart.wait_for_event("stop"))
    yield from listens_on.continue_as_new(n + 1)


@zart.workflow("tidies", timeout=3600)
def tidies() -> zart.Flow[None]:
    try:
        yield from zart.sleep("nap", 7200)
    finally:
        yield from zart.wait_for_event("word")


@zart.workflow("naps")
def naps() -> zart.Flow[None]:
    yield from zart.sleep("nap", 3600)


@zart.workflow("tries")
def tries() -> zart.Flow[int]:
    return (yield from fails())


@zart.workflow("broken")
def broken() -> zart.Flow[int]:
    return (yield from breaks(7))


@zart.workflow("parent", timeout=7200)
def parent() -> zart.Flow[str]:
    return (yield from zart.child(listens, None, id="the-child"))


@zart.workflow("refused")
def refused() -> zart.Flow[None]:
    yield from zart.sleep("one", 0)
    raise ValueError(f"wrong {1 + 1}")


class World:
    """A memory log, a host in virtual time, and explanations of what is in the log."""

    def __init__(self) -> None:
        self.log = zart.open_log("memory:")
        self.clock = VirtualClock(START)
        self.host = Inline(self.log, zart.Registry(__import__(__name__)), clock=self.clock)

    def start(self, workflow: Any, input: Any = None, id: str = "x") -> World:
        self.host.start(workflow, input, id)
        while self.host.work():
            pass
        return self

    def leave(self) -> World:
        """The worker goes, as one does that is stopped."""
        self.log.release(self.host.worker)
        return self

    def told(self, id: str = "x", **options: Any) -> Explanation:
        summary = self.log.summary(id)
        assert summary is not None
        given = circumstances(self.log, zart.Codec(), summary)
        return explanation(given, **{"now": self.clock.now(), **options})

    def send(self, name: str, id: str = "x") -> World:
        self.log.append([stored.Post(id, "event", name, b'"hi"', self.clock.now())])
        return self


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.log.close()


# ---------------------------------------------------------------- waits


def test_a_wait_for_an_event(world: World) -> None:
    """The event, its line, since and until when, and the command line that ends it."""
    told = world.start(listens, 600.0).leave().told(store="sqlite:a b.db", sources=True)

    (wait,) = told.waits
    assert (wait.kind, wait.name, wait.since, wait.until) == ("event", "word[1]", START, START + 600)
    assert wait.what == (
        f"waits for event 'word' (word[1]) at {__name__}.listens, line +2, "
        f"since {moment(START)}, until {moment(START + 600)}"
    )
    assert wait.ends == (
        "anybody can send it: zart send x word JSON --store 'sqlite:a b.db'; "
        "else the workflow gets EventTimedOut then"
    )
    assert wait.place is not None
    assert wait.place.file == str(HERE)
    assert wait.place.source == 'return (yield from zart.wait_for_event("word", str, timeout=timeout))'
    assert (wait.hopeless, told.hopeless) == ("", False)


def test_an_event_that_nobody_sent_and_no_deadline_ends_is_a_hopeless_wait(world: World) -> None:
    """It is said, and what would end it; sent once, or with a deadline of the run, it is none."""
    told = world.start(listens, None).leave().told()

    assert told.hopeless
    assert told.waits[0].hopeless == "it has no deadline, and no such event was ever sent to it"
    assert told.notes == ("it waits for ever unless somebody acts; zart cancel x would end it",)
    assert next(iter(lines_of(told))) == "execution 'x' of workflow 'listens', run 0, is waiting"

    sent = world.send("word").told()
    assert not sent.hopeless
    assert sent.waits[0].ends == "one is in its inbox, sent but not taken so far: a worker takes it"


def test_an_event_that_was_sent_before_may_come_again(world: World) -> None:
    """The second wait for the same event is not without hope."""
    world.start(listens_twice).send("word")
    while world.host.work():
        pass
    told = world.leave().told()

    assert told.waits[0].name == "word[2]"
    assert not told.hopeless


def test_an_event_that_earlier_runs_were_sent_may_come_again(world: World) -> None:
    """A workflow that waits once in each of its runs is not without hope in the next one; one never sent is."""
    world.start(listens_on, 0)
    for _ in range(2):
        world.send("word")
        while world.host.work():
            pass
    told = world.leave().told()

    assert (told.run, [wait.name for wait in told.waits]) == (2, ["word[1]", "stop[1]"])
    assert [wait.hopeless != "" for wait in told.waits] == [False, True]
    assert not told.hopeless


def test_an_event_of_a_similar_name_is_pointed_out(world: World) -> None:
    """The usual mistake: it was sent, under another name."""
    told = world.start(listens, None).leave().send("words").told()

    assert "('words' was sent: was 'word' meant?)" in told.waits[0].ends
    assert "1 message is in its inbox, not taken so far: 1 'words'" in told.notes


@pytest.mark.parametrize("kind", ["cancel", "terminate"])
def test_what_was_asked_of_it_is_said(world: World, kind: Any) -> None:
    """Who looks while nobody runs it sees that its end was asked for already."""
    world.start(listens, None).leave().send("words")
    assert reading.request(world.log, "x", kind, "no need")

    assert (
        f"2 messages are in its inbox, not taken so far: a request to {kind}, 1 'words'" in world.told().notes
    )


def test_a_sleep_ends_by_itself(world: World) -> None:
    """Unless nobody takes it up when its time has come."""
    world.start(naps).leave()

    assert world.told().waits[0].ends == "time ends it"
    assert not world.told().hopeless
    late = world.told(now=START + 3700)
    assert late.notes[0].startswith(
        f"it has been due since {moment(START + 3600)} and no worker has taken it up"
    )
    assert late.hopeless
    assert not world.told(now=START + 3601).hopeless


@pytest.mark.parametrize("by", ["cancel", "deadline"])
def test_no_deadline_ends_what_unwinds(world: World, by: str) -> None:
    """R16: compensation runs without it, so a wait in it that nobody ends is one without hope."""
    world.start(tidies)
    assert world.told().notes == (f"its deadline is {moment(START + 3600)}",)
    if by == "cancel":
        assert reading.request(world.log, "x", "cancel", "no need")
    else:
        world.clock.advance(3600)
    while world.host.work():
        pass

    told = world.leave().told()
    assert told.hopeless
    assert told.waits[0].hopeless == "it has no deadline, and no such event was ever sent to it"
    assert told.notes[0] == (
        f"its cancellation was asked for at {moment(START)}: no need; no deadline ends it any more"
        if by == "cancel"
        else f"its deadline passed at {moment(START + 3600)}, and no other ends it"
    )


def test_a_start_that_was_put_off_is_still_to_come(world: World) -> None:
    """It waits for its time, and for a worker only once that has come."""
    payload = b"600.0"
    started = zart.Started("x", 0, "listens", payload, START + 3600)
    world.log.append(
        [
            stored.New(
                "x",
                "listens",
                zart.Codec().digest("listens", payload),
                zart.Codec().encode_events([started], "x"),
                START,
                zart.Status.SCHEDULED,
                wake=START + 3600,
            )
        ]
    )

    assert world.told().notes == (f"its start was put off: it begins at {moment(START + 3600)}",)
    assert not world.told().hopeless
    late = world.told(now=START + 3700).notes
    assert late[0].startswith(f"it has been due since {moment(START + 3600)}")
    assert late[1] == "it waits for a worker that has registered 'listens'"


def test_a_step_that_is_retried(world: World) -> None:
    """How often it failed, with what, and when it is tried again."""
    (wait,) = world.start(tries).told().waits

    assert wait.what == (
        f"step 'fails' at {__name__}.tries, line +2 failed once, last with builtins.OSError: no answer"
    ) or wait.what.endswith("failed once, last with OSError: no answer")
    assert wait.ends == f"next attempt at {moment(START + 600)}"
    due = f"its next attempt was due at {moment(START + 600)}, and "
    assert world.told(now=START + 600).waits[0].ends == f"{due}its outcome ends it"
    assert world.leave().told(now=START + 601).waits[0].ends == f"{due}a worker makes it"


def test_a_child_is_followed(world: World) -> None:
    """How the other one stands, what to ask next, and that a parked one holds this one up."""
    world.start(parent).leave()
    (wait,) = world.told().waits

    assert wait.what.startswith("waits for execution 'the-child' (listens[1])")
    assert wait.ends == "that one is waiting, and its end ends it: zart explain the-child"
    assert f"its deadline is {moment(START + 7200)}" in world.told().notes
    world.log.append([stored.Mark("the-child", zart.Status.PARKED, "Diverged: it diverged\nmore", wake=None)])
    assert world.told().waits[0].hopeless == "that one is parked: Diverged: it diverged"
    assert world.told().hopeless


def test_a_parked_execution_waits_for_code(world: World) -> None:
    """Its reason in whole, its build, and what to do."""
    world.start(listens, 600.0).leave()
    world.log.append(
        [stored.Mark("x", zart.Status.PARKED, "Diverged: it diverged\n  both sides", build="b7")]
    )
    told = world.told()

    assert told.hopeless
    assert told.head.endswith("is parked: Diverged: it diverged")
    assert told.reason == ("  both sides",)
    assert told.notes[0].startswith("nothing but code that fits lets it go on")
    assert "It was parked by build b7." in told.notes[0]


def test_no_line_is_shown_of_code_that_does_not_fit(world: World) -> None:
    """The source at hand has other lines by now; the place on record is said all the same."""
    world.start(listens, 600.0).leave().send("word")
    assert world.told(sources=True).waits[0].place is not None
    world.log.append([stored.Mark("x", zart.Status.PARKED, "Diverged: it diverged")])

    (wait,) = world.told(sources=True).waits
    assert wait.place is None and wait.site is not None
    assert "it is taken once the code fits" in wait.ends


def test_a_paused_execution_waits_for_a_person(world: World) -> None:
    """No worker takes it up, nor what is sent to it; a copy goes on."""
    world.start(listens, 600.0).leave().send("word")
    world.log.append([stored.Mark("x", zart.Status.PAUSED, "by ann")])

    told = world.told()
    assert told.hopeless
    assert told.waits[0].ends.startswith(
        "one is in its inbox, sent but not taken so far: it is taken when it"
    )
    assert told.notes[0] == (
        "it is paused, and no worker takes it up, nor any message to it; zart fork x MODULE makes a copy that goes on"
    )


def test_a_workflow_that_nobody_has(world: World) -> None:
    """Due, and nobody takes it up; and an engine says of itself that it does not have it."""
    world.host.start(naps, None, "x")

    assert not world.told().hopeless
    assert world.told(now=START + 5).hopeless
    alone = world.told(registered={"other"})
    assert alone.notes[0] == (
        "this process has not registered workflow 'naps'; another one has to take it up"
    )
    assert alone.hopeless
    assert not world.told(registered={"naps"}).hopeless


def test_a_step_whose_worker_is_gone(world: World) -> None:
    """Began, not resolved, held by nobody: it is begun again."""
    world.host.start(tries, None, "x")
    summary = world.log.summary("x")
    assert summary is not None
    codec = zart.Codec()
    events = [
        zart.Issued(0, "step", "fails", START, "fails", b"[]"),
        zart.Began(0, 0, at=START, deadline=START + 60),
    ]
    turn = stored.Turn(
        "x", 0, 1, summary.fence, codec.encode_events(events, "x", 0, 1), START, zart.Status.RUNNING
    )
    held = world.log.acquire("w", "x", lease_s=60)
    assert held is not None
    world.log.append([stored.Turn(**{**{name: getattr(turn, name) for name in TURN}, "fence": held.fence})])

    assert world.told().waits[0].ends == "its outcome ends it"
    assert world.told().waits[0].until == START + 60
    world.log.release("w")
    assert "the worker that ran it is gone" in world.told().waits[0].ends


def test_a_worker_that_has_died_unseen(world: World) -> None:
    """Its name still stands there, and no worker holds a lease: said by who is no worker itself."""
    world.start(naps)
    summary = world.log.summary("x")
    assert summary is not None and summary.owner is not None
    given = circumstances(world.log, zart.Codec(), summary)

    later, gone = START + 1e6, "its worker is gone, and none holds a lease in this store"
    assert not any(gone in note for note in explanation(given, now=later).notes)  # memory cannot say
    for workers, registered, alone in ((0, None, True), (1, None, False), (0, {"naps"}, False)):
        told = explanation(attrs.evolve(given, workers=workers), now=later, registered=registered)
        assert any(gone in note for note in told.notes) is alone
        assert told.hopeless is alone


def test_workers_are_counted_where_the_log_can_say(tmp_path: Path) -> None:
    """SQLite keeps leases, and those that have run out are not counted."""
    with closing(zart.open_log(f"sqlite:{tmp_path / 'x.db'}")) as log:
        host = Inline(log, zart.Registry(naps))
        host.start(naps, None, "x")
        host.work()
        log.release(host.worker)
        log.renew(host.worker, lease_s=0.0)
        summary = log.acquire("w", "x", lease_s=600)
        assert summary is not None
        assert circumstances(log, zart.Codec(), summary).workers == 1
        log.renew("w", lease_s=0.0)
        assert circumstances(log, zart.Codec(), summary).workers == 0


TURN = ("id", "run", "position", "fence", "records", "at", "status")


# ---------------------------------------------------------------- ends


def test_a_failed_execution_says_what_failed_and_where(world: World) -> None:
    """The command, its line, and the line of the step that raised."""
    told = world.start(broken).told(sources=True)

    assert told.head.endswith("LookupError: nothing for 7")
    assert told.reason[0].startswith(f"the last that failed was step 'breaks' at {__name__}.broken, line +2:")
    assert told.reason[1].endswith("return (yield from breaks(7))")
    assert told.reason[2].endswith('in breaks: raise LookupError(f"nothing for {n}")')
    assert (told.waits, told.hopeless) == ((), False)


def test_an_error_of_the_workflow_itself_says_where_it_was_raised(world: World) -> None:
    """No command failed: the line of the code."""
    world.start(refused)
    world.clock.advance(1)
    while world.host.work():
        pass

    (line,) = world.told().reason
    assert line.endswith('in refused: raise ValueError(f"wrong {1 + 1}")')


def test_who_was_cancelled_without_a_reason_is_cancelled_and_no_more(world: World) -> None:
    """No colon with nothing behind it."""
    world.start(listens, None)
    assert reading.request(world.log, "x", "cancel", "")
    while world.host.work():
        pass

    assert world.told().head.endswith(f"is cancelled since {moment(START)}: Cancelled")


def test_an_execution_that_went_well_has_nothing_to_explain(world: World) -> None:
    """Ended is ended."""
    told = world.start(listens, None).send("word")
    while told.host.work():
        pass

    assert list(lines_of(told.told())) == [
        f"execution 'x' of workflow 'listens', run 0, is completed since {moment(START)}"
    ]


@zart.workflow("careless")
def careless() -> zart.Flow[None]:
    def fails() -> zart.Flow[None]:
        yield from zart.sleep("nap", 0)
        raise KeyError("seat 7")

    yield from zart.schedule(fails())
    yield from zart.wait_for_event("word")


def test_what_nobody_heard_of_is_said_at_the_end(world: World) -> None:
    """R14, R24: what was accepted and never taken, and the error of a branch that nobody waited for."""
    told = world.start(careless, None).leave()
    while told.host.work():
        pass
    told.send("words").send("word")
    while told.host.work():
        pass

    assert list(lines_of(told.told()))[1:] == [
        "  at its end it was noted: flow 'fails': KeyError: 'seat 7'",
        "  1 message is in its inbox, not taken and never will be: 1 'words'",
    ]


# ---------------------------------------------------------------- sources


def test_a_site_is_found_in_the_source_as_it_is_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By module, function and relative line, wherever the function has moved to; never by importing it."""
    text = "1 / 0\n\n\ndef flow():\n    yield 1\n"
    tmp_path.joinpath("some_flows.py").write_text(text)
    tmp_path.joinpath("no_python.py").write_text("def (")
    monkeypatch.chdir(tmp_path)

    place = place_of(zart.Site("some_flows", "flow", 1))
    assert place is not None
    assert (str(place), place.source) == ("some_flows.py:5", "yield 1")
    assert "some_flows" not in sys.modules
    assert place_of(zart.Site("some_flows", "flow", 0)) is None  # nothing waits there
    for module, qualname in (("some_flows", "gone"), ("no_python", "f"), ("no_module_of_this_name", "f")):
        assert place_of(zart.Site(module, qualname, 1)) is None
    for hostile in ("../some_flows", "/etc/passwd", "", "a b", "..some_flows"):
        assert place_of(zart.Site(hostile, "flow", 1)) is None


def test_the_innermost_line_of_a_traceback_is_the_users() -> None:
    """Zart's own frames are passed over; text that is no traceback says nothing."""
    text = (
        f'Traceback (most recent call last):\n  File "/app/steps.py", line 3, in charge\n    pay()\n'
        f'  File "{Path(zart.__file__).parent}/steps.py", line 9, in call\n    fn()\nValueError: no\n'
    )
    place = raised_at(text)
    assert place is not None
    assert (place.file, place.line, place.function, place.source) == ("/app/steps.py", 3, "charge", "pay()")
    assert raised_at("no traceback") is None
    assert list(without_own(text)) == [*text.splitlines()[:3], "ValueError: no"]
    assert list(without_own("just words\n  indented")) == ["just words", "  indented"]


# ---------------------------------------------------------------- faces


def test_handle_explains_with_the_line(tmp_path: Path) -> None:
    """`handle.explain()`, beside the engine that runs it."""
    with zart.open("memory:", [listens]) as engine:
        handle = engine.start(listens, None, id="h")
        assert "waits for event 'word'" in handle.explain()
        assert f"{HERE.name}:" in handle.explain()
        handle.send("word", "hi")
        assert handle.result(30) == "hi"
        assert handle.explain().startswith("execution 'h' of workflow 'listens', run 0, is completed")


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`zart explain`: words and JSON, with the store in its command lines; an unknown id is exit code 3."""
    monkeypatch.delenv("ZART_STORE", raising=False)
    url = f"sqlite:{tmp_path / 'store.db'}"
    with contextlib.closing(zart.open_log(url)) as log:
        host = Inline(log, zart.Registry(__import__(__name__)))
        host.start(listens, None, "it's")
        host.work()
        log.release(host.worker)

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert app.main(["explain", "it's", "--store", url]) == 0
        assert app.main(["explain", "it's", "--store", url, "--json"]) == 0
        assert app.main(["explain", "nobody", "--store", url]) == 3

    text, _, rest = out.getvalue().partition("{")
    assert f"""zart send 'it'"'"'s' word JSON --store {url}""" in text
    assert "it waits for ever unless somebody acts" in text
    found = json.loads("{" + rest)
    assert (found["id"], found["hopeless"], found["status"]) == ("it's", True, "waiting")
    assert found["waits"][0]["place"]["source"].startswith("return (yield from zart.wait_for_event")


def test_who_sleeps_for_ever_is_explained_too():
    """The last instant that a datetime can name is one that it cannot read back."""

    @zart.workflow("for-ever")
    def for_ever() -> zart.Flow[None]:
        yield from zart.sleep_until("the-end", datetime.max.replace(tzinfo=UTC))

    with zart.open("memory:", [for_ever]) as engine:
        told = engine.start(for_ever, id="x").explain()

    assert "sleeps (the-end) at " in told
    assert "until 253402300800 s after 1970; time ends it" in told
