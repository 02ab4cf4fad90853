"""Scenario 5: a person decides."""

import contextlib
from datetime import timedelta

import pytest

import zart_core as zart
from examples.approval import Decision, Request, approval
from tests.scenarios.killing import killed, ledger
from zart_core.testing import explore_crashes, run

ASKED = Request("ada", 120)
YES, NO = {"approved": True, "by": "grace"}, {"approved": False, "by": "grace"}
BOTH = {"validate-request": 1, "process-approved": 1}


def test_approved():
    """The approval comes after an hour, and then it is paid."""
    result = run(approval, ASKED, events=[("1h", "manager-approval", YES)])
    assert (result.value, result.calls, result.elapsed) == ("120 paid to ada", BOTH, timedelta(hours=1))


def test_rejected():
    """Nothing is paid when it is rejected."""
    result = run(approval, ASKED, events=[("1h", "manager-approval", Decision(False, "grace"))])
    assert (result.value, result.calls) == ("rejected by grace", {"validate-request": 1})


def test_timed_out():
    """R13: exactly two hours, and not paid."""
    result = run(approval, ASKED)
    assert (result.value, result.elapsed) == ("nobody decided in time", timedelta(hours=2))
    assert result.calls == {"validate-request": 1}


def test_an_empty_requester():
    """R8: the step's declared error fails the run."""
    result = run(approval, Request("", 1))
    assert (result.status, result.error.failure.message) == (zart.Status.FAILED, "the requester is empty")


def test_delivered_before_the_wait():
    """R14: what comes before the workflow waits is kept."""
    result = run(approval, ASKED, events=[(0, "manager-approval", YES)])
    assert (result.value, result.elapsed) == ("120 paid to ada", timedelta(0))


def test_delivered_twice_with_one_key():
    """R14: the same key counts once, and the second delivery changes nothing."""
    twice = [(60, "manager-approval", YES, "form-1"), (60, "manager-approval", NO, "form-1")]
    result = run(approval, ASKED, events=twice)
    assert (result.value, result.elapsed) == ("120 paid to ada", timedelta(minutes=1))
    assert sum(isinstance(event, zart.Delivered) for event in result.history) == 1


def test_a_payload_of_another_shape():
    """EventRejected: a delivery that is no Decision is consumed, and raised where the workflow waits."""
    result = run(approval, ASKED, events=[(60, "manager-approval", {"approved": "perhaps"})])
    assert result.status is zart.Status.FAILED
    assert "manager-approval" in str(result.error)


def test_killed_while_it_waits():
    """The window is not restarted: killed after an hour, it times out an hour later."""
    two = killed(approval, ASKED, at=3600)
    assert (two.result.value, two.result.elapsed) == ("nobody decided in time", timedelta(hours=2))
    assert two.result.calls == {"validate-request": 1}


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([("1h", "manager-approval", YES)], {"validate-request": (1, 2), "process-approved": (1, 2)}),
        ([("1h", "manager-approval", NO)], {"validate-request": (1, 2)}),
        ([(0, "manager-approval", YES)], {"validate-request": (1, 2), "process-approved": (1, 2)}),
        ([], {"validate-request": (1, 2)}),
    ],
    ids=["approved", "rejected", "early", "timed-out"],
)
def test_killed_anywhere(events, expected):
    """P3: one outcome wherever it dies, and a sender without an answer sends again."""
    report = explore_crashes(approval, ASKED, events=events)
    assert ledger(report) == expected
    assert len(report.outcomes) == 1


def test_on_the_engine(open_engine):
    """Approved, rejected, timed out and sent twice, on each store."""
    with open_engine(approval) as engine:
        yes, no, late = (engine.start(approval, Request(who, 1, "300ms")) for who in ("ada", "bob", "eve"))
        yes.send("manager-approval", YES, key="form")
        with contextlib.suppress(zart.ExecutionClosed):
            yes.send("manager-approval", NO, key="form")
        no.send("manager-approval", NO)
        assert [handle.result(10) for handle in (yes, no, late)] == [
            "1 paid to ada",
            "rejected by grace",
            "nobody decided in time",
        ]
        with pytest.raises(zart.ExecutionClosed, match="has ended"):
            yes.send("manager-approval", YES)
