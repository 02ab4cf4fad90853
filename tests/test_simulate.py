"""Whole worlds from one seed: determinism, faults, what is caught, and how it is told."""

from __future__ import annotations

import asyncio
import concurrent.futures
import datetime as dt
import itertools
import json
import os
import random
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import zart_core as zart
from zart_core.codec import Codec
from zart_core.hosts.engine import AsyncEngine
from zart_core.hosts.ports import open_log
from zart_core.testing import Faults, Reopened, run, simulate


@zart.step("fetch-{n}", retry=zart.Retry.fixed(3, 1.0))
async def fetch(n: int) -> int:
    await asyncio.sleep(0.5)
    if zart.context().attempt < n:
        raise RuntimeError("not yet")
    return n + 1


@zart.step("store-{n}")
def keep(n: int) -> int:
    return 2 * n


@zart.workflow("pipeline")
def pipeline(n: int) -> zart.Flow[int]:
    first, second = yield from zart.gather(fetch(n), keep(n))
    answer = yield from zart.wait_for_event("answer", int)
    return first + second + answer


@zart.workflow("patient")
def patient() -> zart.Flow[str]:
    yield from zart.sleep("a month", timedelta(days=30))
    yield from zart.race(zart.sleep("a day", timedelta(days=1)), zart.wait_for_event("never"))
    return "done"


@zart.step("charge", at_most_once=True)
def charge() -> str:
    return "paid"


@zart.workflow("order")
def order() -> zart.Flow[str]:
    return (yield from zart.step_or(charge(), "lost"))


@zart.workflow("counted")
def counted(amount: Decimal) -> zart.Flow[Decimal]:
    yield from zart.sleep_until("march", datetime(2026, 3, 2, tzinfo=UTC))
    return amount


@zart.step(
    "hurried",
    timeout=0.2,
    timeout_scope=zart.TimeoutScope.PER_ATTEMPT,
    retry=zart.Retry.fixed(1, 0.01, on_timeout=True),
)
def hurried() -> int:
    return zart.context().attempt


@zart.workflow("one-step")
def one_step(hurry: bool) -> zart.Flow[int]:
    return (yield from hurried() if hurry else keep(1))


EVENTS = ((2.0, "answer", 5),)


def world(seed: int, **options: Any) -> Any:
    """The pipeline in a world of three workers."""
    return simulate(pipeline, 1, seed=seed, workers=3, events=EVENTS, **options)


# ---------------------------------------------------------------- the same seed, the same world


def test_the_same_seed_is_the_same_world_and_another_is_another():
    """Rule 2: traces are equal line by line."""
    first, again, other = world(3), world(3), world(4)
    assert (first.trace, first.digest) == (again.trace, again.digest)
    assert other.digest != first.digest


def test_the_world_does_not_hang_on_the_hash_seed():
    """Rule 2: another process, with other hashes of strings and other addresses, sees the same."""
    code = "from tests.test_simulate import world; print([world(seed).digest for seed in range(12)])"
    here = str([world(seed).digest for seed in range(12)])
    for hashes in "1", "2":
        env = {**os.environ, "PYTHONHASHSEED": hashes}
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == here


# ---------------------------------------------------------------- what a world is


@zart.workflow("tossed")
def tossed() -> zart.Flow[str]:
    lot = yield from zart.random("lot")
    token = yield from zart.uuid("token")
    yield from keep(1 if lot < 0.5 else 2)
    return f"{lot} {token}"


def test_what_a_workflow_draws_comes_from_the_seed_too():
    """Rule 2: the world may hang on it; what the process draws besides goes on as it was."""
    before = random.getstate()

    first, again, other = (simulate(tossed, seed=seed, faults=Faults.none()) for seed in (1, 1, 2))

    assert (first.outcomes, first.digest) == (again.outcomes, again.digest)
    assert first.outcomes != other.outcomes
    assert random.getstate() == before


def test_without_faults_it_ends_as_in_run():
    """One world, no faults: the value is that of the plain runner, and every step ran once."""
    plain = run(pipeline, 1, events=EVENTS)
    report = world(0, faults=Faults.none())
    report.check()
    assert report.outcomes == {"pipeline": f"completed: {plain.value}"}
    assert report.struck == ()
    assert report.calls == {"fetch-1": 2, "store-1": 1}
    assert timedelta(seconds=2) <= report.elapsed < timedelta(seconds=30)


def test_faults_strike_and_nothing_shows():
    """A hundred worlds and more, each with faults of its own: the outcome is the same in each."""
    kinds: set[str] = set()
    for seed in range(120):
        report = world(seed, outcomes=["completed: 9"])
        report.check()
        kinds |= {kind for _, kind in report.struck}
    assert len(kinds) >= 14


@pytest.mark.parametrize(("hurry", "result"), [(False, 2), (True, 1)])
def test_only_a_function_that_was_called_has_run(hurry: bool, result: int):
    """An attempt whose executor lets it go, or whose time is over before there is a thread, was none."""

    class Crowded(AsyncEngine):
        """Its first sync attempt finds no thread."""

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            submit, left = self.attempts.executor.submit, [concurrent.futures.Future[Any]()]

            def crowded(*given: Any) -> concurrent.futures.Future[Any]:
                if not left:
                    return submit(*given)
                future = left.pop()
                if not hurry:
                    future.cancel()
                return future

            self.attempts.executor.submit = crowded  # type: ignore[method-assign,assignment]

    report = simulate(one_step, hurry, seed=1, faults=Faults.none(), engine=Crowded)

    report.check()
    assert report.outcomes == {"one-step": f"completed: {result}"}
    assert list(report.calls.values()) == [1]


def test_a_step_that_may_run_once_runs_at_most_once_whatever_happens():
    """R10, in worlds where workers die in steps, stand still, and wait for the store."""
    faults = Faults(step_death=0.4, pause=0.1, slow=0.1, death=0.05)
    ends = set()
    for seed in range(100):
        report = simulate(order, seed=seed, workers=2, faults=faults)
        report.check()
        assert report.calls.get("charge", 0) <= 1
        ends |= set(report.outcomes.values())
    assert ends == {'completed: "paid"', 'completed: "lost"'}


def test_code_that_fits_no_history_parks_and_the_right_code_goes_on():
    """R20: nothing is lost or done twice by a bad deploy, wherever it strikes; without one nothing is parked."""
    found: Counter[str] = Counter()
    for seed in range(60):
        report = world(seed, faults=Faults(bad_deploy=0.4, kill=0.05), outcomes=["completed: 9"])
        report.check()
        found.update(report.situations)
    assert found["parked and resumed"] >= 5
    assert "parked and resumed" not in world(1, faults=Faults(redeploy=0.4)).situations


def test_long_waits_take_no_time():
    """A month and a day pass while nothing happens."""
    report = simulate(patient, seed=5, workers=2, faults=Faults.none())
    report.check()
    assert timedelta(days=31) <= report.elapsed < timedelta(days=31, minutes=10)
    assert len(report.trace) < 100


def test_several_executions_at_once():
    """`copies=`: each has its own id, events and outcome."""
    report = world(1, copies=3)
    report.check()
    assert report.outcomes == {f"pipeline-{n}": "completed: 9" for n in (1, 2, 3)}


@zart.workflow("hands-on")
def hands_on() -> zart.Flow[int]:
    return (yield from zart.child(handed))


@zart.workflow("handed")
def handed() -> zart.Flow[int]:
    return (yield from keep(7))


def test_a_child_that_the_code_names_is_known():
    """By every engine, so that nobody has to tell; its history is judged like any other."""
    report = simulate(hands_on, seed=2, workers=2, outcomes=["completed: 14"])

    report.check()
    assert len(report.histories) == 2


def test_fakes_resources_and_children():
    """steps=, resources= and children= are as in `run`."""

    @zart.step("ask")
    def ask() -> str:
        return str(zart.resource("phone"))

    @zart.workflow("child")
    def child(n: int) -> zart.Flow[str]:
        return f"{(yield from ask())} {(yield from keep(n))}"

    @zart.workflow("parent")
    def parent() -> zart.Flow[str]:
        return (yield from zart.child(child, 1))

    report = simulate(
        parent,
        seed=2,
        workers=2,
        steps=lambda: {keep: [7]},
        resources={"phone": "555"},
        children=[child],
        outcomes=['completed: "555 7"'],
    )
    report.check()


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_a_store_of_ones_own(kind: str, tmp_path: Path) -> None:
    """store=: a log, or the place of one, that is told of every death; nothing is lost there either."""
    count = itertools.count()

    def store() -> Any:
        if kind == "memory":
            return open_log("memory:")
        url = f"sqlite:{tmp_path}/{next(count)}.db"
        return Reopened(lambda: open_log(url))

    faults = Faults(death=0.05, kill=0.05, lost_answer=0.05, step_death=0.2)
    for seed in range(6):
        report = simulate(
            order, seed=seed, workers=2, faults=faults, store=store, outcomes=['completed: "paid"']
        )
        report.check()


def test_one_fault_can_be_asked_for_again():
    """`only=` with the places of a report repeats them."""
    seed = next(seed for seed in range(100) if len(world(seed).struck) >= 2)
    whole = world(seed)
    assert world(seed, only=[place for place, _ in whole.struck]).digest == whole.digest
    assert world(seed, only=[whole.struck[0][0]]).struck == (whole.struck[0],)
    assert world(seed, only=[]).struck == ()


@pytest.mark.parametrize(
    "options",
    [
        {"seed": "a"},
        {"seed": 1.0},
        {"seed": True},
        {"workers": 0},
        {"workers": 6},
        {"copies": 0},
        {"faults": Faults(death=-0.1)},
        {"faults": Faults(death=0.6, pause=0.6)},
        {"faults": Faults(most=-1)},
        {"faults": Faults(pause=float("nan"))},
        {"faults": Faults(death=0.1, span_s=float("nan"))},
    ],
)
def test_numbers_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    """InvalidUse at the edge."""
    with pytest.raises(zart.InvalidUse):
        simulate(order, **{"seed": 1, **options})


@pytest.mark.parametrize(
    "error", [asyncio.CancelledError, GeneratorExit, SystemExit], ids=lambda e: e.__name__
)
def test_a_step_raises_what_is_no_exception(error: type[BaseException]) -> None:
    """An error of the step, sync or async, as with real threads and loops."""

    @zart.step("sync")
    def sync() -> None:
        raise error

    @zart.step("asynchronous")
    async def asynchronous() -> None:
        raise error

    @zart.workflow("raising")
    def raising() -> zart.Flow[list[str]]:
        ended = yield from zart.settle([sync(), asynchronous()])
        return [str(each.error) for each in ended if isinstance(each, zart.Err)]

    report = simulate(raising, seed=1, faults=Faults.none())
    report.check()

    why = f"failed: RuntimeError: the step raised {error.__name__}"
    told = [f"step '{step}' {why}" for step in ("sync", "asynchronous")]
    assert report.outcomes == {"raising": f"completed: {json.dumps(told, separators=(',', ':'))}"}


# ---------------------------------------------------------------- what is caught


def test_what_never_ends_is_said_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worlds that are tried to make it smaller take no more callbacks, all in all, than one may."""
    monkeypatch.setattr("zart_core.testing.simulation.world.ROUNDS_MAX", 3000)
    monkeypatch.setattr("zart_core.testing.simulation.simulate.ROUNDS_MAX", 3000)
    worlds = itertools.count()

    @zart.workflow("endless")
    def endless() -> zart.Flow[None]:
        yield from zart.sleep("nap", "1h")
        yield from endless.continue_as_new(None)

    def resources() -> dict[str, int]:
        return {"number": next(worlds)}

    report = simulate(endless, seed=1, faults=Faults(pause=0.1), resources=resources)

    (violation,) = report.violations
    assert violation.rule == "I18"
    assert (
        "callbacks were run; what goes on for ever by intention has to be ended: events=[Terminate"
        in violation.what
    )
    assert next(worlds) == 3  # as it was drawn, one that was to be smaller, and that once more


def test_what_goes_wrong_only_once_is_told():
    """A cache in the process hides the wrong from every later world: the one that showed it is what is told."""
    cache: dict[str, int] = {}

    @zart.workflow("cached")
    def cached() -> zart.Flow[int]:
        if not cache:
            cache["first"] = yield from keep(1)
        return cache["first"] + (yield from keep(2))

    report = simulate(cached, seed=0, faults=Faults.none())

    assert [wrong.rule for wrong in report.violations] == ["I16"]
    assert list(report.calls) == ["store-1", "store-2"]
    with pytest.raises(AssertionError, match="does not replay"):
        report.check()


def test_the_line_that_repeats_a_world_says_all_that_it_hangs_on():
    """When it begins, its id and values of any kind; what only the tester has stands there by its name."""
    name, child, when = "a-1", order, datetime(2026, 3, 1, 12, tzinfo=UTC)
    report = simulate(
        counted,
        Decimal("2.5"),
        seed=5,
        start=when,
        id=name,
        children=[child],
        codec=(codec := Codec()),
        outcomes=[],
        faults=Faults(pause=0.1),
    )

    assert report.code == (
        "simulate(counted, Decimal('2.5'), seed=5, faults=Faults(pause=0.1), "
        "start=datetime.datetime(2026, 3, 1, 12, 0, tzinfo=datetime.timezone.utc), id='a-1', "
        "children=children, codec=codec, outcomes=[], only=[]).check()"
    )
    known = {"simulate": simulate, "counted": counted, "Faults": Faults, "Decimal": Decimal, "datetime": dt}
    with pytest.raises(AssertionError, match=f"digest {report.digest}"):
        eval(report.code, {**known, "children": [child], "codec": codec})


def test_a_violation_is_shrunk_and_the_report_repeats_it():
    """An outcome that may not be is found; the smallest world is told, with the line that repeats it."""
    report = world(11, outcomes=["completed: 10"])
    assert [wrong.rule for wrong in report.violations] == ["I10"]
    assert (report.struck, report.workers) == ((), 1)
    with pytest.raises(
        AssertionError, match=r"simulate\(pipeline, 1, seed=11, events=.*only=\[\]\)\.check\(\)"
    ):
        report.check()


def test_a_smaller_world_breaks_no_rule_that_the_first_did_not():
    """A message that is waited for is not taken out: then the world would not end, for another reason."""
    numbers = itertools.count()

    @zart.workflow("impure")
    def impure() -> zart.Flow[int]:
        yield from zart.wait_for_event("go", int)
        return (yield from keep(next(numbers)))

    report = simulate(impure, seed=3, events=[(0.1, "go", 1)], faults=Faults(pause=0.1))

    assert {wrong.rule for wrong in report.violations} == {"I16"}
    assert "events=[(0.1, 'go', 1)]" in report.code
