"""What if: a copy of a run up to an event, with other outcomes, rehearsed in virtual time or made an execution."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import zart_core as zart
from zart_core.cli import app
from zart_core.hosts.inline import Inline
from zart_core.insight.forking import Fork, execution_of, fork, refuse_what_is_rehearsed_only
from zart_core.insight.rehearsing import rehearse
from zart_core.testing import VirtualClock, check_deploy, run

CODEC = zart.Codec()
called: list[str] = []


@zart.step("price-{sku}")
def price(sku: str) -> int:
    called.append(f"price-{sku}")
    return {"tea": 450, "cup": -700}[sku]


@zart.step("charge", retry=zart.Retry.fixed(1, 60))
def charge(cents: int) -> str:
    called.append(f"charge {cents}")
    if cents < 0:
        raise RuntimeError("negative")
    return "txn"


@zart.workflow("shop", timeout="1h")
def shop() -> zart.Flow[str]:
    total = 0
    for sku in ("tea", "cup"):
        total += yield from price(sku)
    txn = yield from charge(total)
    try:
        shipped = yield from zart.wait_for_event("shipped", str, timeout="10m")
    except zart.EventTimedOut:
        shipped = "late"
    return f"{txn} {shipped}"


@zart.step("answer", retry=zart.Retry.fixed(3, 60), timeout="10m")
def answer() -> int:
    raise OSError("no answer")


@zart.workflow("patient")
def patient() -> zart.Flow[int]:
    return (yield from answer())


def resting(nap: int) -> zart.Workflow[Any, int]:
    @zart.workflow("rests")
    def rests() -> zart.Flow[int]:
        nap_ = yield from zart.schedule(zart.sleep("nap", nap))
        paid = yield from price("tea")
        yield from zart.wait([nap_])
        return paid

    return rests


rests, changed_rests = resting(3600), resting(7200)


@zart.workflow("both")
def both() -> zart.Flow[list[int]]:
    yield from zart.capture("fixed", lambda: 7)
    left, right = yield from zart.gather(price("tea"), price("cup"))
    yield from zart.sleep("rest", 60)
    return [left, right]


@zart.workflow("parent")
def parent(id: str | None) -> zart.Flow[str]:
    return (yield from zart.child(shop, None, id=id))


def done(value: Any) -> zart.Done:
    return zart.Done(json.dumps(value).encode())


def forked(history: list[zart.Event], workflow: Any = shop, **options: Any) -> Fork:
    return fork(workflow, history, id="copy", **options)


@pytest.fixture(scope="module")
def failed() -> list[zart.Event]:
    history = run(shop).history
    assert history[-1].status is zart.Status.FAILED  # type: ignore[union-attr]
    return history


def names_of(events: Any) -> list[str]:
    return [event.name for event in events if isinstance(event, zart.Issued)]


# ---------------------------------------------------------------- where a copy is cut


def test_every_cut_of_a_run_is_a_history_that_a_host_goes_on_with() -> None:
    """Wherever it is asked for: what is kept is a whole log, and the copy ends as the original did."""
    for workflow, whole in (
        (shop, run(shop, steps={price: 5}, events=[(1, "shipped", "on time")])),
        (both, run(both)),
    ):
        for at in range(1, len(whole.history) + 1):
            made = forked(whole.history, workflow, at=at)
            assert made.position <= min(at, len(whole.history) - 1)
            execution = zart.replay(workflow, made.events)
            execution.check_answered()
            execution.close()
            ended = rehearse(
                made,
                zart.Registry(workflow),
                steps={price: price.fn if workflow is both else 5, charge: "txn"},
                events=[(0, "shipped", "on time")],
            )
            assert (ended.status, ended.value, ended.error) == (zart.Status.COMPLETED, whole.value, ""), at


def test_a_cut_inside_of_a_turn_falls_back_to_where_it_is_legal(failed: list[zart.Event]) -> None:
    """Between two decisions of one answer no log can end: the copy holds the fact before them."""
    events = run(both).history
    second = events.index(next(event for event in events if getattr(event, "name", "") == "price-cup"))

    made = forked(events, both, at=second)

    assert made.asked == second
    assert made.position == second - 1
    assert getattr(made.events[-1], "held", False)
    assert forked(failed, at=len(failed)).position == len(failed) - 1


def test_what_was_in_flight_begins_anew(failed: list[zart.Event]) -> None:
    """A start whose end is not in the copy is not in it either; what was retried keeps its attempts."""
    first = next(n for n, event in enumerate(failed) if isinstance(event, zart.Began))
    assert not [event for event in forked(failed, at=first + 1).events if isinstance(event, zart.Began)]
    retried = next(n for n, event in enumerate(failed) if isinstance(event, zart.Retried))
    kept = forked(failed, at=retried + 1).events
    assert [event.attempt for event in kept if isinstance(event, zart.Began) and event.seq == 2] == [0]


def test_a_step_that_others_were_offered_begins_anew_too() -> None:
    """The copy's own worker finds out where it may run; nothing names the execution in which the original's does."""
    history = run(shop, steps={price: 5}).history[:3]
    offered = [*history, zart.Noted("offered", at=history[-1].at, who="0", why="!step/0/0/shop")]

    for events in (offered, [*history[:2], zart.Noted("queued", at=history[-1].at, who="0", why="gpu")]):
        made = forked(events)
        assert [type(event) for event in made.events] == [zart.Started, zart.Issued]
        assert rehearse(made, zart.Registry(shop), steps={price: 5, charge: "txn"}).value == "txn late"
    ended = [*offered, zart.Resolved(0, done(450), history[-1].at)]
    assert forked(ended).events[3] == offered[3]


@pytest.mark.parametrize("at", [0, -1, 1000])
def test_a_position_outside_of_the_run_is_refused(failed: list[zart.Event], at: int) -> None:
    """1 to n."""
    with pytest.raises(
        zart.InvalidUse, match=f"a fork keeps 1 to {len(failed)} events of this run, not {at}"
    ):
        forked(failed, at=at)


# ---------------------------------------------------------------- other outcomes


def test_without_a_position_the_copy_ends_before_the_outcome_that_is_replaced(
    failed: list[zart.Event],
) -> None:
    """What followed from the old outcome is not in it, and the code goes on with the new one."""
    made = forked(failed, outcomes={"price-cup": done(50)})

    assert names_of(made.events) == ["price-tea", "price-cup"]
    assert made.replaced == ("price-cup",)
    told = rehearse(made, zart.Registry(shop), steps={charge: lambda cents: f"{cents} charged"})
    assert told.value == "500 charged late"


def test_a_failure_can_be_put_in_the_place_of_an_outcome(failed: list[zart.Event]) -> None:
    """As StepFailed; a wait for an event times out."""
    made = forked(
        failed, outcomes={"price-tea": zart.Failed(zart.Failure("error", "RuntimeError", "no price"))}
    )

    told = rehearse(made, zart.Registry(shop))
    assert told.status is zart.Status.FAILED
    assert "no price" in told.error


def test_a_version_marker_of_the_same_name_is_in_nobodys_way() -> None:
    """Names of markers are their own (R2); one that is a marker's alone has no outcome."""

    @zart.workflow("marked")
    def marked() -> zart.Flow[str]:
        yield from zart.version("charge", 2)
        yield from zart.version("only", 2)
        cents = yield from price("tea")
        txn = yield from charge(cents)
        yield from zart.version("price-tea", 3)
        return txn

    events = run(marked).history
    told = rehearse(
        forked(events, marked, outcomes={"price-tea": done(7), "charge": done("t")}), zart.Registry(marked)
    )
    assert (told.value, told.unused) == ("t", ())
    with pytest.raises(zart.InvalidUse, match="'only' has no outcome of its own"):
        forked(events, marked, outcomes={"only": done(1)})


def test_an_outcome_that_leads_elsewhere_within_what_is_kept_is_refused(failed: list[zart.Event]) -> None:
    """A step must not be called with arguments that followed from another outcome."""
    issued = next(n for n, event in enumerate(failed) if getattr(event, "name", "") == "charge")

    with pytest.raises(
        zart.InvalidUse, match=f"the code goes another way at event {issued}: .*the copy ends before"
    ):
        forked(failed, at=issued + 1, outcomes={"price-cup": done(50)})
    same = forked(failed, at=issued + 1, outcomes={"price-cup": done(-700)})
    assert names_of(same.events) == ["price-tea", "price-cup", "charge"]


def test_an_outcome_of_a_wrong_type_is_refused(failed: list[zart.Event]) -> None:
    """Where it is replaced, and where it is pending."""
    for at in (None, len(failed)):
        with pytest.raises(
            zart.InvalidUse, match="the new outcome does not fit: the result of step 'price-cup'"
        ):
            forked(failed, at=at, outcomes={"price-cup": done("much")})


def test_an_event_can_be_another_one_or_come_at_all() -> None:
    """The payload of a delivery is replaced; a pending wait is given one."""
    good = run(shop, steps={price: 5}, events=[(1, "shipped", "on time")]).history
    for at in (None, len(good)):
        told = rehearse(forked(good, at=at, outcomes={"shipped[1]": done("early")}), zart.Registry(shop))
        assert told.value == "txn early" if at is None else told.value in ("txn early",)
    waiting = good[: next(n for n, event in enumerate(good, 1) if getattr(event, "kind", "") == "event")]
    assert rehearse(forked(waiting, outcomes={"shipped[1]": done("x")}), zart.Registry(shop)).value == "txn x"
    timed_out = zart.Failed(zart.Failure("event_timed_out", "shipped", "no event"))
    assert (
        rehearse(forked(waiting, outcomes={"shipped[1]": timed_out}), zart.Registry(shop)).value == "txn late"
    )


# ---------------------------------------------------------------- rehearsals


def test_a_rehearsal_runs_no_step_and_stops_at_the_first_without_an_outcome(failed: list[zart.Event]) -> None:
    """It says which, and what it followed on the way; given outcomes by name it goes on."""
    called.clear()
    made = forked(failed, at=1)

    told = rehearse(made, zart.Registry(shop))
    assert (told.asks, told.status, called) == (("price-tea",), zart.Status.RUNNING, [])
    assert names_of(told.events) == ["price-tea"]

    named = forked(
        failed, at=1, outcomes={"price-tea": done(1), "price-cup": done(2), "charge": done("t"), "x": done(1)}
    )
    told = rehearse(named, zart.Registry(shop), events=[(5, "shipped", "soon")])
    assert (told.value, told.unused, called) == ("t soon", ("x",), [])
    assert told.events[-1].at - named.events[-1].at == 5


def test_a_rehearsal_says_what_it_waits_for_and_why_it_is_parked() -> None:
    """An event that nobody sends; code that is wrong."""

    @zart.workflow("waits")
    def waits() -> zart.Flow[str]:
        yield from price("tea")
        return (yield from zart.wait_for_event("word", str))

    events = run(waits).history
    told = rehearse(forked(events, waits, at=1), zart.Registry(waits), steps={price: 1})
    assert "waits for event 'word'" in told.error

    @zart.workflow("waits")
    def wrong() -> zart.Flow[str]:
        yield from price("tea")
        yield from price("tea")
        return "never"

    told = rehearse(forked(events, wrong, at=1), zart.Registry(wrong), steps={price: 1})
    assert (told.status, "used twice" in told.error) == (zart.Status.PARKED, True)


# ---------------------------------------------------------------- for real


@pytest.fixture
def inline() -> Iterator[Callable[[float], Inline]]:
    with contextlib.closing(zart.open_log("memory:")) as log:
        yield lambda now: Inline(log, zart.Registry([shop, both, parent, patient]), clock=VirtualClock(now))


def test_a_fork_becomes_an_execution_that_goes_on_for_real(
    failed: list[zart.Event], inline: Callable[[float], Inline]
) -> None:
    """Created once, with a note of where it comes from; timers keep the time they had left; steps run."""
    called.clear()
    made = forked(failed, outcomes={"price-cup": done(50)})
    now = failed[-1].at + 86_400
    host = inline(now)
    first, again = host.create([execution_of(made, CODEC, now), execution_of(made, CODEC, now + 5)])
    assert isinstance(first, zart.Ok)
    assert isinstance(again, zart.Ok)
    assert (first.value.created, again.value.created) == (True, False)
    other = execution_of(forked(failed, outcomes={"price-cup": done(51)}), CODEC, now)
    assert not isinstance(host.create([other])[0], zart.Ok)

    while host.work():
        pass

    assert called == ["charge 500"]
    events = CODEC.decode_events(host.log.records("copy"), "copy")
    assert isinstance(events[0], zart.Started)
    assert events[0].deadline == now + 3600 - (failed[len(made.events) - 2].at - failed[0].at)
    note = next(event for event in events if isinstance(event, zart.Noted))
    assert (note.what, note.who) == ("forked", "shop")
    assert note.why == f"run 0 up to event {made.position}, with another outcome of price-cup"
    host.log.append([zart.log.Post("copy", "event", "shipped", b'"now"', now)])  # type: ignore[attr-defined]
    assert CODEC.decode(host.drive("copy").payload, str) == "txn now"


def test_timers_of_a_copy_keep_the_time_they_had_left(inline: Callable[[float], Inline]) -> None:
    """A wait of ten minutes that was to end in ten minutes still does, a day later."""
    events = run(shop, steps={price: 5}).history
    waits = next(n for n, event in enumerate(events, 1) if getattr(event, "kind", "") == "event")
    now = events[0].at + 86_400
    new = execution_of(forked(events, at=waits), CODEC, now)
    issued = [one for one in CODEC.decode_events(new.records) if isinstance(one, zart.Issued)][-1]
    assert issued.until == now + 600


def test_a_copy_fits_the_code_strictly(inline: Callable[[float], Inline]) -> None:
    """Its timers were put off when it was made, and when it was copied again: that is no change of the code (R21)."""
    events = run(rests, steps={price: 5}).history
    started = next(n for n, event in enumerate(events) if getattr(event, "kind", "") == "step")
    now = events[0].at
    for _ in range(2):
        now += 86_400.123
        with contextlib.closing(zart.open_log("memory:")) as log:
            new = execution_of(forked(events, rests, at=min(len(events), started + 2)), CODEC, now)
            log.append([new])
            check_deploy(log, [rests]).check()
            assert check_deploy(log, [changed_rests]).counts == {"diverges": 1}
        events = CODEC.decode_events(new.records)

    made = forked(events, rests, outcomes={"price-tea": done(7)}, at=len(events))
    assert rehearse(made, zart.Registry(rests)).value == 7


def test_a_timeout_over_all_attempts_keeps_the_time_it_had_left(inline: Callable[[float], Inline]) -> None:
    """A step that waits for its next attempt is not timed out before that (R7)."""
    events = run(patient).history
    retried = next(n for n, event in enumerate(events, 1) if isinstance(event, zart.Retried))
    now = events[0].at + 86_400
    host = inline(now)
    host.create([execution_of(forked(events, patient, at=retried), CODEC, now)])
    while host.work():
        pass

    summary = host.log.summary("copy")
    assert summary is not None
    assert (summary.status, summary.wake) == (zart.Status.WAITING, now + 60)
    began = next(
        event for event in CODEC.decode_events(host.log.records("copy")) if isinstance(event, zart.Began)
    )
    assert began.deadline == now + 600


def test_children_of_a_copy_are_its_own(inline: Callable[[float], Inline]) -> None:
    """One that reports to the original is refused; one with a generated id is another execution."""
    for id, child in ((None, "copy.0.0"), ("fixed", "fixed")):
        events = run(parent, id, steps={price: 5}).history[:2]
        made = forked(events, parent)
        assert [event.child for event in made.events if isinstance(event, zart.Issued)] == [child]
        if id is None:
            refuse_what_is_rehearsed_only(made)
        else:
            with pytest.raises(
                zart.InvalidUse, match="it waits for execution 'fixed', which reports to the original"
            ):
                refuse_what_is_rehearsed_only(made)


def test_a_copy_with_a_long_id_has_children_of_its_own() -> None:
    """The child's id is a digest where that of its parent leaves no room for more."""
    made = fork(parent, run(parent, None, steps={price: 5}).history[:2], id="c" * 255)

    refuse_what_is_rehearsed_only(made)
    assert [len(event.child or "") for event in made.events if isinstance(event, zart.Issued)] == [64]


def test_an_outcome_of_what_is_not_issued_is_for_rehearsals(failed: list[zart.Event]) -> None:
    """There is nothing in the copy that it could be the outcome of."""
    with pytest.raises(zart.InvalidUse, match="'charge': not issued at event 1"):
        refuse_what_is_rehearsed_only(forked(failed, at=1, outcomes={"charge": done("x")}))


# ---------------------------------------------------------------- the command


FLOWS = """
import zart_core as zart

@zart.step("price")
def price(sku: str) -> int:
    return -1

@zart.step("charge")
def charge(cents: int) -> str:
    if cents < 0:
        raise RuntimeError("negative")
    return f"txn-{cents}"

@zart.workflow("tiny")
def tiny() -> zart.Flow[str]:
    cents = yield from price("tea")
    print("said by the workflow")
    return (yield from charge(cents))

FAKES = {charge: "faked"}
def fakes():
    return FAKES
NOTHING = 3
def broken():
    return {}["fake"]
"""


class Place:
    def __init__(self, folder: Path) -> None:
        self.flows = str(folder / "tiny_flows.py")
        Path(self.flows).write_text(FLOWS)
        self.url = f"sqlite:{folder / 'store.db'}"

    def __call__(self, name: str, *args: str, code: int = 0, typed: str = "") -> str:
        out, old = io.StringIO(), sys.stdin
        sys.stdin = io.StringIO(typed)
        try:
            with contextlib.redirect_stdout(out):
                assert app.main([name, *args, "--store", self.url]) == code
        finally:
            sys.stdin = old
        return out.getvalue()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path)
    made("run", made.flows, "--id", "bad", code=1)
    return made


def test_rehearsed_from_the_command_line(place: Place) -> None:
    """Values, fakes by mapping or function, values from stdin; nothing is written."""
    before = place("list", "--json")

    told = place("fork", "bad", place.flows, "--dry-run", "--set", "price=7")
    assert "a copy of 'bad', run 0, up to event 3 of 8, with another outcome of price" in told
    assert "it would call step 'charge' with [7] at" in told
    assert "--set 'charge=JSON'" in told
    for fakes in ("FAKES", "fakes"):
        told = place(
            "fork",
            "bad",
            place.flows,
            "--dry-run",
            "--set",
            "price=-",
            "--steps",
            f"{place.flows}:{fakes}",
            typed="7",
        )
        assert told.endswith('completed: "faked"\n')
    found = json.loads(place("fork", "bad", place.flows, "--dry-run", "--fail", "charge=no money", "--json"))
    assert (found["status"], found["position"], found["asks"]) == ("failed", 6, [])
    assert "no money" in found["error"]
    assert place("list", "--json") == before


def test_forked_from_the_command_line(place: Place) -> None:
    """A new execution that runs for real; the same again is the same; the original is as it was."""
    before = place("history", "bad", "--json")

    told = place("fork", "bad", place.flows, "--set", "price=7", "--id", "good")
    assert told.startswith(
        "good is a copy of 'bad', run 0, up to event 3 of 8, with another outcome of price\n"
    )
    assert "zart run" in told
    again = place("fork", "bad", place.flows, "--set", "price=7", "--id", "good")
    assert (
        "it was there before, and was left as it is: zart explain good" in again and "zart run" not in again
    )
    place("fork", "bad", place.flows, "--set", "price=8", "--id", "good", code=6)
    assert place("run", place.flows, "--id", "good").splitlines()[-1] == '"txn-7"'
    assert place("history", "bad", "--json") == before


def test_what_cannot_be_forked_is_said(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """One line each, exit code 2."""
    for args, why in (
        (["--set", "price"], "--set takes NAME=VALUE, not 'price'"),
        (["--set", "price={"], "--set price"),
        (["--set", "price=1", "--fail", "price=x"], "'price' cannot both be set and fail"),
        (["--at", "99"], "a fork keeps 1 to 8 events"),
        (["--steps", f"{place.flows}:FAKES"], "--steps and --send are for a rehearsal"),
        (["--dry-run", "--steps", "nothing"], "--steps takes MODULE:NAME"),
        (["--dry-run", "--steps", f"{place.flows}:NOTHING"], "is no mapping of steps to fakes"),
        (
            ["--dry-run", "--steps", f"{place.flows}:broken"],
            f"broken failed: KeyError: 'fake' ({place.flows}, line",
        ),
        (["--at", "2", "--set", "charge=1"], "'charge': not issued at event 2"),
    ):
        capsys.readouterr()
        place("fork", "bad", place.flows, *args, code=2)
        assert why in capsys.readouterr().err, args
