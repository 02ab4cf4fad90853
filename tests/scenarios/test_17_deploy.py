"""Scenario 17: a v1 history, cut at every point, resumed by v2: a verdict for each cut, no run ever failed by it."""

from __future__ import annotations

from typing import Any

import pytest

import zart_core as zart
from examples.deploy import careless, charge, guarded, reserve, screen, v1
from tests.hosted import hosted
from zart_core.hosts.ports import open_log
from zart_core.log import New
from zart_core.testing import check_upgrade, run

SHIPPED = [("1h", "shipped", "1Z999")]


class Declined(Exception):
    """The card was declined."""


@zart.step("charge", raises=(Declined,))
def declinable(order: str) -> str:
    return f"txn-{order}"


def version(body: Any) -> zart.Workflow[str, str]:
    """A flow as a version of the workflow."""
    return zart.workflow("deploy-order")(body)


def removed(order: str) -> zart.Flow[str]:
    txn = yield from charge(order)
    tracking = yield from zart.wait_for_event("shipped", str)
    return f"{txn} {tracking}"


def renamed(order: str) -> zart.Flow[str]:
    yield from reserve(order)
    txn = yield from charge(order).named("take-money")
    tracking = yield from zart.wait_for_event("shipped", str)
    return f"{txn} {tracking}"


def reordered(order: str) -> zart.Flow[str]:
    txn = yield from charge(order)
    yield from reserve(order)
    tracking = yield from zart.wait_for_event("shipped", str)
    return f"{txn} {tracking}"


def changed(order: str) -> zart.Flow[str]:
    yield from reserve(order)
    txn = yield from charge(f"{order}-v2")
    tracking = yield from zart.wait_for_event("shipped", str)
    return f"{txn} {tracking}"


def shortened(order: str) -> zart.Flow[str]:
    yield from reserve(order)
    return (yield from charge(order))


def cuts(new: Any, **options: Any) -> dict[int, str]:
    """The verdict after each number of events of the run in which all goes well."""
    report = check_upgrade(v1, new, inputs=["42"], events=SHIPPED, **options)
    assert report.complete and report.histories == 4
    return {cut.after: cut.kind for cut in report.cuts if cut.history == "as given"}


# The history: 0 Started, 1 Issued reserve, 2 Began, 3 Resolved, 4 Issued charge, 5 Began, 6 Resolved, 7 Issued
# shipped, 8 Delivered, 9 Resolved (Taken), 10 Closed. A run stands still after 1, 2, 3, 5, 6 and 8 events.
STANDS = (1, 2, 3, 5, 6, 8)


@pytest.mark.parametrize(
    ("new", "kinds"),
    [
        (v1, ["fits"] * 6),
        (guarded, ["fits"] * 6),
        (careless, ["fits"] * 3 + ["diverges"] * 3),
        (version(removed), ["fits"] + ["diverges"] * 5),
        (version(renamed), ["fits"] * 3 + ["diverges"] * 3),
        (version(reordered), ["fits"] + ["diverges"] * 5),
        (version(changed), ["fits"] * 3 + ["diverges"] * 3),
        (version(shortened), ["fits"] * 5 + ["ends early"]),
    ],
    ids=["same", "guarded", "insert", "remove", "rename", "reorder", "argument", "shortened"],
)
def test_a_verdict_for_each_cut(new, kinds):
    """Insert, remove, rename, reorder, change an argument, guard: what fits and what does not, cut by cut."""
    assert cuts(new) == dict(zip(STANDS, kinds, strict=True))


def test_arguments_count_only_strictly():
    """A host goes on with the recorded arguments (R21)."""
    assert set(cuts(version(changed), strict=False).values()) == {"fits"}


@pytest.mark.parametrize(
    "new", [careless, guarded, *map(version, (removed, renamed, reordered, changed, shortened))]
)
def test_no_run_is_ever_failed_by_it(new):
    """On a host: it completes, waits on, or is parked with its log untouched; the old code then ends it well."""
    history = run(v1, "42", events=SHIPPED, id="x").history
    expected = cuts(new, strict=False)
    for after in STANDS:
        log = open_log("memory:")
        records = zart.Codec().encode_events(history[:after])
        log.append([New("x", "deploy-order", "d", records, history[0].at, zart.Status.WAITING)])
        now = history[after - 1].at
        if expected[after] == "fits":
            assert hosted(log, new, "x", now) in (zart.Status.WAITING, zart.Status.COMPLETED)
        else:
            assert hosted(log, new, "x", now) is zart.Status.PARKED
            assert log.records("x") == records
            assert hosted(log, v1, "x", now) is zart.Status.WAITING


def test_what_is_said_of_a_careless_change():
    """The table names each disagreement once, both lines, and the marker that mends it (R23)."""
    report = check_upgrade(v1, careless, inputs=["42"], events=SHIPPED)

    assert report.counts == {"fits": 12, "diverges": 8}
    first = report.misfits[0]
    assert (first.recorded, first.yielded) == ("step 'charge'", "step 'screen'")
    assert (first.recorded_site.qualname, first.yielded_site.qualname) == ("v1", "careless")
    assert first.nearest == "'screen' is taken out here, or guarded with zart.version(...)"
    with pytest.raises(
        AssertionError, match=r"diverges at 8 cuts, the first after event 4 \(step 'charge'\)"
    ):
        report.check()


def test_the_marker_is_judged():
    """R23: what it answered where, and that it is needed; one at the wrong place does not mend the change."""

    @version
    def late(order: str) -> zart.Flow[str]:
        yield from reserve(order)
        yield from screen(order)
        yield from zart.version("screening", 2)
        txn = yield from charge(order)
        return f"{txn} {(yield from zart.wait_for_event('shipped', str))}"

    @version
    def idle(order: str) -> zart.Flow[str]:
        yield from reserve(order)
        yield from zart.version("nothing", 2)
        txn = yield from charge(order)
        return f"{txn} {(yield from zart.wait_for_event('shipped', str))}"

    def marker(new):
        report = check_upgrade(v1, new, inputs=["42"], events=SHIPPED)
        (only,) = report.markers
        return report.fits, only.name, dict(only.answers), only.needed

    assert marker(guarded) == (True, "screening", {1: 8, 2: 9}, True)
    assert marker(idle) == (True, "nothing", {1: 8, 2: 9}, False)
    fits, *_ = marker(late)
    assert not fits


def test_what_goes_wrong_is_explored():
    """Each step fails once with what it declares and what it does not, each event is missing once; what follows is
    played with the new code, so that a change in an error path shows."""

    @version
    def old(order: str) -> zart.Flow[str]:
        try:
            yield from declinable(order)
        except Declined:
            yield from screen(order)
        return order

    @version
    def new(order: str) -> zart.Flow[str]:
        try:
            yield from declinable(order)
        except Declined:
            yield from reserve(order)
        return order

    report = check_upgrade(old, new, inputs=["1", "2"])
    assert {cut.history for cut in report.misfits} == {"'charge' fails with Declined"}
    assert {cut.input for cut in report.misfits} == {"1", "2"}
    assert {(cut.history, cut.then) for cut in report.cuts if cut.then} == {
        ("as given", "completed"),
        ("'charge' fails with Declined", "completed"),
        ("'charge' fails with MadeUp", "failed: MadeUp"),
    }


def test_every_run_of_what_continues_as_new_is_cut():
    """A run may stand in any of them, not only in the last."""

    def resting(name: str) -> zart.Workflow[str, str]:
        @version
        def w(order: str) -> zart.Flow[str]:
            if order == "42":
                yield from zart.sleep(name, "1h")
                yield from w.continue_as_new("43")
            return order

        return w

    report = check_upgrade(resting("rest"), resting("pause"), inputs=["42"])
    assert [(cut.after, cut.kind, cut.then) for cut in report.cuts] == [
        (1, "fits", "completed"),
        (2, "diverges", ""),
        (1, "fits", ""),
    ]
    assert "(run 0)" in report.misfits[0].message


def test_an_error_that_cannot_be_made_up_is_left_out():
    """Whatever its constructor wants, and raises when it is given none of it."""

    class Answered(Exception):
        def __init__(self, answer: Any) -> None:
            super().__init__(answer.status)

    @zart.step("ask", raises=(Answered, Declined))
    def ask(order: str) -> str:
        return order

    @version
    def old(order: str) -> zart.Flow[str]:
        return (yield from ask(order))

    report = check_upgrade(old, old, inputs=["1"])
    assert report.fits
    assert {cut.history for cut in report.cuts} == {
        "as given",
        "'ask' fails with Declined",
        "'ask' fails with MadeUp",
    }


def test_orders_of_arrival_are_explored():
    """What steps side by side led to differs by which of them ends first; new code must fit either way."""

    def racing(follows: str) -> zart.Workflow[str, str]:
        @version
        def w(order: str) -> zart.Flow[str]:
            number, _ = yield from zart.wait_any([reserve(order), charge(order)])
            yield from screen(order).named("first" if number == 0 else follows)
            return order

        return w

    report = check_upgrade(racing("second"), racing("other"), inputs=["42"])
    assert report.misfits
    assert all(cut.history.startswith("arriving as charge, ") for cut in report.misfits)
    assert report.complete
    assert sum(line.startswith("in other orders of arrival ") for line in str(report).splitlines()) == 1
    many = check_upgrade(racing("second"), racing("second"), inputs=["42"], runs_max=1)
    assert not many.complete and "raise runs_max=" in str(many)
    some = check_upgrade(racing("second"), racing("other"), inputs=["42"], runs_max=4)
    assert not some.complete and some.misfits  # those orders that it may look at are looked at


def test_new_code_that_parks_later_does_not_fit():
    """It replays, and then uses a name twice."""

    @version
    def twice(order: str) -> zart.Flow[str]:
        yield from reserve(order)
        yield from charge(order)
        yield from zart.wait_for_event("shipped", str)
        return (yield from charge(order))  # zart: ignore[ZT305] what this test is about

    report = check_upgrade(v1, twice, inputs=["42"], events=SHIPPED)
    assert "parks" in report.counts and "DuplicateName" in str(report)


def test_two_workflows_are_no_versions_of_one():
    """A clear error at the edge."""

    @zart.workflow("other")
    def other(order: str) -> zart.Flow[str]:
        return (yield from reserve(order))

    with pytest.raises(zart.InvalidUse, match="a new version has the name of the old one"):
        check_upgrade(v1, other, inputs=["42"])
