"""`zart.heartbeat(progress)`: what a running step says is shown, costs next to nothing, and tells it when to end."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import zart_core as zart
from tests import engines
from tests.engines import Sky, kinds, sky, url_of
from tests.postgres import running
from zart_core import log as stored
from zart_core.events import Began, Done, Event, Issued, Resolved, Retried, Started, Status
from zart_core.hosts import heartbeats
from zart_core.hosts.ports import open_log
from zart_core.hosts.progress import PROGRESS_BYTES_MAX, TEXT_BYTES_MAX, Progress, progress_of, text_of
from zart_core.log import Mark

NEVER_S = 100_000.0
until = functools.partial(engines.until, patience_s=60.0)


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    """A real PostgreSQL."""
    with running() as started:
        yield started


@pytest.fixture(params=["memory", "sqlite", "file", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a store of each kind."""
    if request.param != "postgres":
        return url_of(request.param, tmp_path)
    return str(request.getfixturevalue("server").url(f"beats{abs(hash(tmp_path))}"))


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """What steps say is written down as soon as may be."""
    monkeypatch.setattr(heartbeats, "INTERVAL_S", 0.0)


class Talk:
    """A step that says what it is told to, and notes what it hears."""

    def __init__(self, **policy: Any) -> None:
        self.sayings: list[Any] = []
        self.began = threading.Event()
        self.done = threading.Event()
        self.heard: list[BaseException] = []
        self.attempts: list[int] = []

        @zart.step("talk", **{"cancel_grace": NEVER_S, **policy})
        def talk() -> str:
            self.attempts.append(zart.context().attempt)
            self.began.set()
            try:
                while not self.done.is_set():
                    for saying in self.sayings:
                        zart.heartbeat(saying)
                    self.done.wait(0.005)
            except BaseException as heard:
                self.heard.append(heard)
                raise
            return "talked"

        self.step = talk

        @zart.workflow("talks")
        def talks() -> zart.Flow[str]:
            try:
                return (yield from talk())
            except zart.Cancelled:
                return "unwound"

        self.flow = talks


# ---------------------------------------------------------------- what is shown


def test_what_a_running_step_says_is_shown_and_is_no_history(url: str, often: None) -> None:
    """Step, progress, how long ago; what was said last counts; nothing of it is left when the step has ended."""
    talk = Talk()
    talk.sayings = ["first", {"done": 41, "of": 100}, {"done": 42, "of": 100}]
    with zart.open(url, [talk.flow]) as engine:
        handle = engine.start(talk.flow, id="t")
        told = until(lambda: '"done":42' in (text := handle.explain()) and text)
        assert "step 'talk' at" in told
        assert ' s ago it said {"done":42,"of":100}; its outcome ends it' in told
        assert "execution 't' of workflow 'talks', run 0, is running\n" in told
        talk.done.set()
        assert handle.result() == "talked"
        assert kinds(handle.history()) == ["Started", "Issued", "Began", "Resolved", "Closed"]
        assert "said" not in handle.explain()


def test_an_async_step_says_it_too(url: str) -> None:
    """On the loop; and in a thread that it asks for."""
    done = threading.Event()

    @zart.step("talk")
    async def talk() -> None:
        zart.heartbeat("on the loop")
        await asyncio.to_thread(zart.heartbeat, "in a thread")
        while not done.is_set():
            await asyncio.sleep(0.005)

    @zart.workflow("talks")
    def talks() -> zart.Flow[None]:
        yield from talk()

    with zart.open(url, [talks]) as engine:
        handle = engine.start(talks, id="t")
        until(lambda: '"in a thread"' in handle.explain() or '"on the loop"' in handle.explain())
        done.set()
        handle.result()


def test_what_was_said_last_is_written_in_the_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A burst is not lost behind its first word."""
    monkeypatch.setattr(heartbeats, "INTERVAL_S", 0.05)
    done = threading.Event()

    @zart.step("talk")
    def talk() -> None:
        for n in range(100):
            zart.heartbeat(n)
        done.wait()

    @zart.workflow("talks")
    def talks() -> zart.Flow[None]:
        yield from talk()

    with zart.open(url_of("sqlite", tmp_path), [talks]) as engine:
        handle = engine.start(talks, id="t")
        until(lambda: "it said 99;" in handle.explain())
        done.set()
        handle.result()


@pytest.mark.parametrize("store", ["memory", "sqlite"])
def test_a_thousand_words_are_one_write(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often steps speak, they write no more than once in a while; all of them in one commit."""
    monkeypatch.setattr(heartbeats, "INTERVAL_S", NEVER_S)
    log = sky(store, tmp_path)

    @zart.step("talk-{n}")
    def talk(n: int) -> int:
        for word in range(1000):
            zart.heartbeat(word)
        until(lambda: marks_in(log))
        return n

    @zart.workflow("talks")
    def talks() -> zart.Flow[list[int]]:
        return (yield from zart.wait([talk(1), talk(2)]))

    with zart.open(log, [talks]) as engine:
        for n in range(3):
            assert engine.run(talks, id=f"t{n}") == [1, 2]
    log.close()
    assert marks_in(log) == [1]


def marks_in(log: Sky) -> list[int]:
    """How many marks there were in each append that had any."""
    counts = [sum(isinstance(write, Mark) for write in batch) for batch in list(log.batches)]
    return [count for count in counts if count]


def test_executions_speak_in_one_commit(tmp_path: Path) -> None:
    """What the steps of all executions say goes into one append."""
    talk = Talk()
    talk.sayings = ["here"]
    log = sky("sqlite", tmp_path)
    with zart.open(log, [talk.flow]) as engine:
        inner = engine.engine
        inner.heartbeats.wrote_at = inner.loop.time() + NEVER_S  # nothing is written until this test says so
        handles = [engine.start(talk.flow, id=f"t{n}") for n in range(5)]
        until(lambda: len(inner.heartbeats.heard) == 5)
        inner.loop.call_soon_threadsafe(inner.heartbeats.write)
        until(lambda: all('said "here"' in handle.explain() for handle in handles))
        talk.done.set()
        for handle in handles:
            handle.result()
    log.close()
    assert marks_in(log) == [5]


def test_a_retry_speaks_for_itself(url: str, often: None) -> None:
    """The start of a retry is not on record: its words are shown all the same, those of the attempt before are not."""
    first, second = threading.Event(), threading.Event()

    @zart.step("talk", retry=zart.Retry.fixed(1, 0.05))
    def talk() -> str:
        attempt = zart.context().attempt
        if attempt == 0:
            zart.heartbeat("word 0")
            first.wait()
            raise OSError("no")
        second.wait(0.05)
        zart.heartbeat("word 1")
        second.wait()
        return "talked"

    @zart.workflow("talks")
    def talks() -> zart.Flow[str]:
        return (yield from talk())

    with zart.open(url, [talks]) as engine:
        handle = engine.start(talks, id="t")
        until(lambda: "word 0" in handle.explain())
        first.set()
        until(lambda: "word 0" not in handle.explain())
        told = until(lambda: "word 1" in (text := handle.explain()) and text)
        assert "word 0" not in told
        second.set()
        assert handle.result() == "talked"


def test_the_words_of_a_step_that_another_worker_took(tmp_path: Path, often: None) -> None:
    """An offered step is an execution of its own; its words are shown where it belongs, and there."""
    talk = Talk(queue="gpu")
    TAKEN[:] = [talk]
    url = f"sqlite:{tmp_path}/log.db"
    with zart.open(url, [taken]) as here, zart.open(url, [taken], queues=["gpu"]) as there:
        talk.sayings = ["far away"]
        handle = here.start(taken, id="t")
        told = until(lambda: "far away" in (text := handle.explain()) and text)
        assert "step 'taken' at" in told
        assert "ago it said \"far away\"; a worker of queue 'gpu' has taken it" in told
        assert 'ago it said "far away"' in there.get("!step/0/0/t").explain()
        handle.cancel("enough")
        assert handle.result() == "unwound"
        assert [type(one) for one in talk.heard] == [zart.Cancelled]


TAKEN: list[Talk] = []


@zart.step("taken", queue="gpu", cancel_grace=NEVER_S)
def taken_step() -> str:
    return str(TAKEN[0].step.fn())


@zart.workflow("taken")
def taken() -> zart.Flow[str]:
    try:
        return (yield from taken_step())
    except zart.Cancelled:
        return "unwound"


# ---------------------------------------------------------------- how a step hears that it is to end


def test_a_step_hears_that_its_execution_is_cancelled(url: str) -> None:
    """A sync step ends by itself, long before its grace is over, and that is no failure (R18)."""
    talk = Talk()
    talk.sayings = [None]
    with zart.open(url, [talk.flow]) as engine:
        handle = engine.start(talk.flow, id="t")
        assert talk.began.wait(60)
        assert handle.cancel("enough")
        assert handle.result() == "unwound"
        (resolved,) = [event for event in handle.history() if isinstance(event, Resolved)]
    assert [type(one) for one in talk.heard] == [zart.Cancelled]
    assert "nobody waits for its step any more" in str(talk.heard[0])
    assert type(resolved.outcome).__name__ == "Cancellation"


def test_the_loser_of_a_race_hears_it() -> None:
    """Race returns when the loser has ended."""
    talk = Talk()
    talk.sayings = [1]

    @zart.workflow("races")
    def races() -> zart.Flow[int]:
        winner, _ = yield from zart.race(talk.step(), zart.wait_for_event("go"))
        return winner

    with zart.open("memory:", [races]) as engine:
        handle = engine.start(races, id="t")
        assert talk.began.wait(60)
        handle.send("go", None)
        assert handle.result() == 1
    assert [type(one) for one in talk.heard] == [zart.Cancelled]


@pytest.mark.parametrize("scope", list(zart.TimeoutScope))
def test_a_step_that_takes_too_long_hears_it(scope: zart.TimeoutScope) -> None:
    """It is abandoned, as ever (R11); now it can know."""
    talk = Talk(timeout=0.05, timeout_scope=scope)
    talk.sayings = [1]

    @zart.workflow("times-out")
    def times_out() -> zart.Flow[str]:
        try:
            return (yield from talk.step())
        except zart.StepTimedOut:
            return "timed out"

    with zart.open("memory:", [times_out]) as engine:
        assert engine.run(times_out) == "timed out"
        until(lambda: talk.heard)
    assert [type(one) for one in talk.heard] == [zart.Cancelled]


def test_the_step_of_a_run_that_is_terminated_or_out_of_time_hears_it() -> None:
    """Whatever ends the run."""
    ended, late = Talk(), Talk()
    ended.sayings = late.sayings = [1]

    @zart.workflow("late", timeout=0.05)
    def lates() -> zart.Flow[str]:
        return (yield from late.step())

    with zart.open("memory:", [ended.flow, lates]) as engine:
        handle = engine.start(ended.flow, id="t")
        assert ended.began.wait(60)
        handle.terminate("enough")
        with pytest.raises(zart.ExecutionTerminated):
            handle.result()
        with pytest.raises(zart.ExecutionTimedOut):
            engine.run(lates)
        until(lambda: ended.heard and late.heard)
    assert [type(one) for one in (*ended.heard, *late.heard)] == [zart.Cancelled] * 2


def test_a_step_hears_that_its_worker_stops_and_is_handed_over(tmp_path: Path) -> None:
    """No crash is held against it, and the next worker begins it again (R5)."""
    talk = Talk(max_crashes=1)
    talk.sayings = [1]
    url = url_of("sqlite", tmp_path)
    with zart.open(url, [talk.flow]) as engine:
        engine.start(talk.flow, id="t")
        assert talk.began.wait(60)
    until(lambda: talk.heard)
    talk.done.set()
    with zart.open(url, [talk.flow]) as engine:
        assert engine.get("t").result() == "talked"
    assert talk.attempts == [0, 0]
    assert [type(one) for one in talk.heard] == [zart.Cancelled]


def test_a_step_hears_that_its_execution_is_in_other_hands(url: str, often: None) -> None:
    """Its worker finds out when it writes down what the step says (F15), which may write nothing else for hours."""
    talk = Talk()
    talk.sayings = [1]
    log = open_log(url)
    with zart.open(log, [talk.flow]) as engine:
        engine.start(talk.flow, id="t")
        assert talk.began.wait(60)
        log.release(engine.engine.worker, ["t"])
        assert until(lambda: log.acquire("another", "t", lease_s=60.0)).owner == "another"
        until(lambda: talk.heard)
    assert [type(one) for one in talk.heard] == [zart.Cancelled]
    log.close()


def test_an_async_step_that_went_on_hears_it_again() -> None:
    """It has seen asyncio's own error at its await; a heartbeat tells it again, each time."""
    heard: list[type[BaseException]] = []
    began = threading.Event()

    @zart.step("talk", cancel_grace=NEVER_S)
    async def talk() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            heard.append(type(error))
        for _ in range(2):
            try:
                zart.heartbeat()
            except zart.Cancelled as error:
                heard.append(type(error))
        zart.heartbeat()

    @zart.workflow("talks")
    def talks() -> zart.Flow[str]:
        try:
            yield from talk()
        except zart.Cancelled:
            return "unwound"
        return "talked"

    with zart.open("memory:", [talks]) as engine:
        handle = engine.start(talks, id="t")
        assert began.wait(60)
        handle.cancel()
        assert handle.result() == "unwound"
        (resolved,) = [event for event in handle.history() if isinstance(event, Resolved)]
    assert type(resolved.outcome).__name__ == "Cancellation"
    assert heard == [asyncio.CancelledError, zart.Cancelled, zart.Cancelled]


def test_a_step_that_cancels_itself_has_failed() -> None:
    """Nobody told it to end: what it raised is an error like any other."""

    @zart.step("gives-up")
    def gives_up() -> None:
        raise zart.Cancelled("by itself")

    @zart.workflow("w")
    def w() -> zart.Flow[str]:
        found = yield from zart.outcome(gives_up())
        return str(found.error) if isinstance(found, zart.Err) else "?"

    with zart.open("memory:", [w]) as engine:
        assert "the step raised Cancelled" in engine.run(w)


# ---------------------------------------------------------------- what is refused


def failure_of(function: Callable[[], Any], **options: Any) -> str:
    """What a step fails with."""
    step = zart.step("talk")(function)

    @zart.workflow("w")
    def w() -> zart.Flow[str]:
        found = yield from zart.outcome(step())
        return str(found.error) if isinstance(found, zart.Err) else "no failure"

    with zart.open("memory:", [w], **options) as engine:
        return engine.run(w)


def test_only_steps_have_a_heartbeat() -> None:
    """Outside of them it says so."""
    with pytest.raises(
        zart.InvalidUse, match=r"for steps; call it inside a function decorated with @zart\.step"
    ):
        zart.heartbeat(1)

    @zart.workflow("w")
    def w() -> zart.Flow[None]:
        zart.heartbeat(1)
        yield from zart.sleep("nap", 1)

    with zart.open("memory:", [w]) as engine, pytest.raises(zart.ExecutionFailed, match="is for steps"):
        engine.run(w)


def test_progress_is_a_short_json_value() -> None:
    """What is no JSON, and what is too long, fails the step with a name, a size and a limit."""
    assert "the progress of step 'talk'" in failure_of(lambda: zart.heartbeat(object()))
    assert failure_of(lambda: zart.heartbeat("x" * (PROGRESS_BYTES_MAX - 2))) == "no failure"
    told = failure_of(lambda: zart.heartbeat("x" * (PROGRESS_BYTES_MAX - 1)))
    assert "the progress of step 'talk' has 4,097 bytes as JSON, at most 4,096 are kept" in told


class Elsewhere(concurrent.futures.Executor):
    """An executor that might run its calls in another process."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[Any]:
        """Run it here."""
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # the future's
            future.set_exception(error)
        return future


def test_executors_in_other_processes_carry_no_heartbeat() -> None:
    """A step would never hear that it is to end, so it is told at once; threads of one's own are fine."""
    assert "nobody hears zart.heartbeat() here" in failure_of(lambda: zart.heartbeat(1), executor=Elsewhere())
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert failure_of(lambda: zart.heartbeat(1), executor=pool) == "no failure"


# ---------------------------------------------------------------- no harm is done


@pytest.mark.parametrize("weather", ["lost", "written", "full", "unavailable"])
@pytest.mark.parametrize("store", ["memory", "sqlite"])
def test_words_that_cannot_be_written_do_no_harm(
    store: str, weather: str, tmp_path: Path, often: None, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is read back, and they are said again."""
    talk = Talk()
    talk.sayings = ["still here"]
    log: Sky = sky(store, tmp_path)
    log.match = lambda write: isinstance(write, Mark)
    log.forecast = [weather] * 3
    with caplog.at_level(logging.WARNING), zart.open(log, [talk.flow]) as engine:
        handle = engine.start(talk.flow, id="t")
        until(lambda: not log.forecast and "still here" in handle.explain())
        talk.done.set()
        assert handle.result() == "talked"
    log.close()
    assert "is read back" not in caplog.text
    assert "what the steps of 't' say cannot be written" in caplog.text


def test_words_that_cannot_be_written_are_said_again_by_the_engine(tmp_path: Path, often: None) -> None:
    """Also when the step says nothing more."""
    done = threading.Event()

    @zart.step("talk")
    def talk() -> None:
        zart.heartbeat("once")
        done.wait()

    @zart.workflow("talks")
    def talks() -> zart.Flow[None]:
        yield from talk()

    log = sky("sqlite", tmp_path)
    log.match = lambda write: isinstance(write, Mark)
    log.forecast = ["lost", "full"]
    with zart.open(log, [talks]) as engine:
        handle = engine.start(talks, id="t")
        until(lambda: 'it said "once"' in handle.explain())
        done.set()
        handle.result()
    log.close()


def test_words_wait_while_their_execution_is_read_back(tmp_path: Path) -> None:
    """What a host holds of it then is nothing that may stand beside the log: it would never be due again (L10)."""
    talk = Talk()
    talk.sayings = ["here"]
    log = sky("sqlite", tmp_path)
    with zart.open(log, [talk.flow]) as engine:
        inner = engine.engine
        inner.heartbeats.wrote_at = inner.loop.time() + NEVER_S  # nothing is written until this test says so
        handle = engine.start(talk.flow, id="t")
        until(lambda: inner.heartbeats.heard)

        def read_back() -> None:
            inner.pump.written(inner.live["t"], [stored.Unknown("the connection was lost")])
            inner.heartbeats.write()
            inner.heartbeats.close()

        inner.loop.call_soon_threadsafe(read_back)
        until(lambda: inner.heartbeats.timer is None and inner.live["t"].run.execution is not None)
        assert marks_in(log) == []
        assert len(inner.heartbeats.heard) == 1
        inner.loop.call_soon_threadsafe(inner.heartbeats.write)
        until(lambda: 'said "here"' in handle.explain())
        talk.done.set()
        assert handle.result() == "talked"
    log.close()


@pytest.mark.parametrize("first", ["turn", "words"])
def test_a_turn_that_overtakes_words_is_not_undone(
    first: str, tmp_path: Path, often: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step's transaction commits its turn past the line; words that are in line then do not bring the status back.

    Whichever outcome the engine hears of first.
    """
    slept = threading.Event()

    @zart.step("pay")
    def pay() -> None:
        # It holds the write lock that the words need.
        zart.transaction(limit="10s").execute("CREATE TABLE t (n)")
        zart.heartbeat("paying")
        until(lambda: engine.engine.heartbeats.marking)

    @zart.workflow("pays")
    def pays() -> zart.Flow[None]:
        yield from pay()
        slept.set()
        yield from zart.sleep("nap", 1000)

    log = open_log(url_of("sqlite", tmp_path))
    with zart.open(log, [pays]) as engine:
        inner = engine.engine
        part: Any = inner.heartbeats if first == "turn" else inner.transactions
        name = "written" if first == "turn" else "committed"
        outcome = getattr(part, name)

        def later(*args: Any) -> None:
            other = inner.transactions.pending if first == "turn" else inner.heartbeats.marking
            if other:
                inner.loop.call_later(0.01, later, *args)
            else:
                outcome(*args)

        monkeypatch.setattr(part, name, later)
        handle = engine.start(pays, id="t")
        assert slept.wait(60)
        until(
            lambda: (
                not inner.heartbeats.marking
                and not inner.heartbeats.overtaken
                and not inner.transactions.pending
            )
        )
        summary = until(lambda: (found := log.summary("t")) and found.status is Status.WAITING and found)
        assert summary.wake == pytest.approx(time.time() + 1000, abs=500)
        assert summary.reason == ""
        handle.terminate()
    log.close()


def test_transactions_after_words_do_not_wait_for_them(
    tmp_path: Path, often: None, caplog: pytest.LogCaptureFixture
) -> None:
    """The words of a step may wait for the lock that its transaction holds, never the other way round."""

    @zart.step("pay-{n}")
    def pay(n: int) -> None:
        zart.heartbeat(n)
        zart.transaction().execute("CREATE TABLE IF NOT EXISTS t (n)")
        zart.heartbeat(-n)

    @zart.workflow("pays")
    def pays() -> zart.Flow[int]:
        for n in range(10):
            yield from pay(n)
        return 10

    with caplog.at_level(logging.WARNING), zart.open(url_of("sqlite", tmp_path), [pays]) as engine:
        assert engine.run(pays, id="t") == 10
    assert "is read back" not in caplog.text


# ---------------------------------------------------------------- what is believed


def past(*events: Event) -> list[Event]:
    """A run whose step 0 was issued."""
    return [Started("t", 0, "w", b"", at=0.0), Issued(0, "step", "talk", at=0.0, payload=b"[]"), *events]


def call_of(attempt: int, began: float) -> Any:
    """An attempt of step 0."""
    context = zart.Context("t", 0, "w", began, "talk", attempt)
    return zart.StepCall(0, zart.step("talk")(lambda: None), [], context)


def summary_of(reason: str, run: int = 0) -> stored.Summary:
    """An execution with a reason."""
    return stored.Summary("t", "w", "", Status.RUNNING, run, 3, 1, 0.0, 0.0, None, "a", reason)


CODEC = zart.Codec()
SAID = summary_of(text_of(CODEC, "t", 0, [(call_of(0, 2.0), 5.0, b"7")]))
BEGAN = Began(0, 0, at=2.0)


@pytest.mark.parametrize(
    ("events", "run", "believed"),
    [
        ((BEGAN,), 0, True),
        ((BEGAN,), 1, False),
        ((), 0, False),
        ((BEGAN, Resolved(0, Done(b"1"), 9.0)), 0, False),
        ((BEGAN, Began(0, 0, at=2.5, takeover=1)), 0, False),  # another worker began it again
        ((BEGAN, Retried(0, 0, zart.Failure("error", "E", ""), 6.0, 6.0)), 0, False),
    ],
)
def test_only_attempts_that_run_by_the_log_are_believed(
    events: tuple[Event, ...], run: int, believed: bool
) -> None:
    """The text beside the log may be of an attempt, a worker or a run before."""
    found = progress_of(summary_of(SAID.reason, run), past(*events), CODEC)
    assert found == ({0: Progress(0, 5.0, "7")} if believed else {})


def test_times_of_heartbeats_do_not_precede_their_attempt() -> None:
    """Clocks may go back (F13)."""
    said = summary_of(text_of(CODEC, "t", 0, [(call_of(0, 2.0), 1.0, b"7")]))
    assert progress_of(said, past(BEGAN), CODEC) == {0: Progress(0, 2.0, "7")}


@given(st.text() | st.text().map(lambda text: '{"heartbeats":' + text) | st.text().map(SAID.reason.__add__))
def test_any_other_reason_is_no_progress(reason: str) -> None:
    """Whatever stands there: it is read, and is not believed."""
    assert progress_of(summary_of(reason), past(BEGAN), CODEC) in ({}, {0: Progress(0, 5.0, "7")})


def test_deep_reasons_are_no_progress() -> None:
    """Nesting without end is no crash (F22)."""
    deep = '{"heartbeats":[{"run":0,"seq":0,"attempt":0,"began":2.0,"at":5.0,"progress":' + "[" * 100_000
    assert progress_of(summary_of(deep), past(BEGAN), CODEC) == {}


def test_many_steps_that_say_much_have_one_limit() -> None:
    """What was said last goes first."""
    word = b'"' + b"x" * (PROGRESS_BYTES_MAX - 2) + b'"'
    said = [(call_of(n, 2.0), float(n), word) for n in range(1000)]
    text = text_of(CODEC, "t", 0, said)
    assert len(text) < TEXT_BYTES_MAX * 1.1
    assert '"attempt":999,' in text


class Rot13:
    """A seal that is bound to its place, and hides nothing from those who know it."""

    def seal(self, data: bytes, associated: bytes) -> bytes:
        """See Seal."""
        return bytes(byte ^ 0x55 for byte in data + b"|" + associated)

    def open(self, data: bytes, associated: bytes) -> bytes:
        """See Seal."""
        plain, bound = bytes(byte ^ 0x55 for byte in data).split(b"|", 1)
        if bound != associated:
            raise ValueError("of another place")
        return plain


def test_what_a_codec_seals_stays_sealed(tmp_path: Path, often: None) -> None:
    """Progress too: it may be a payload."""
    talk = Talk()
    talk.sayings = ["a secret"]
    codec = zart.Codec(seal=Rot13())
    log = sky("memory", tmp_path)
    with zart.open(log, [talk.flow], codec=codec) as engine:
        handle = engine.start(talk.flow, id="t")
        until(lambda: 'said "a secret"' in handle.explain())
        talk.done.set()
        handle.result()
    log.close()
    marks = [write for batch in log.batches for write in batch if isinstance(write, Mark)]
    assert marks
    assert not any("secret" in mark.reason for mark in marks)
    sealed = summary_of(marks[0].reason)
    began = float(marks[0].reason.split('"began":')[1].split(",")[0])
    assert progress_of(sealed, past(Began(0, 0, at=began)), codec) != {}
    moved = summary_of(marks[0].reason.replace('"seq":0', '"seq":1'))
    assert progress_of(moved, past(Began(1, 0, at=began)), codec) == {}
    assert '"a secret"' not in str(progress_of(sealed, past(Began(0, 0, at=began)), CODEC))
