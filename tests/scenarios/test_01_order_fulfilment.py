"""Scenario 1: order fulfilment, the flagship."""

from datetime import timedelta

import pytest

import zart_core as zart
from examples.order_fulfilment import CardDeclined, Order, Receipt, charge_card, order_fulfilment
from tests.scenarios.killing import issued, killed, ledger
from zart_core.testing import explore_crashes, run

ORDER = Order("42", "sku-9", 1999)
RECEIPT = Receipt("42", "txn-42", "1Z")
SHIPPED = (120, "shipment-ready", {"tracking": "1Z"})
ONCE = {"validate-address": 1, "charge-card": 1, "reserve-inventory": 1}


def test_it_completes():
    """Every step once; it waits for the shipment that comes after two minutes."""
    result = run(order_fulfilment, ORDER, events=[SHIPPED])
    assert (result.value, result.calls, result.elapsed) == (RECEIPT, ONCE, timedelta(seconds=120))
    assert issued(result.history) == [
        "validate-address",
        "charge-card",
        "reserve-inventory",
        "settle",
        "shipment-ready[1]",
    ]


def test_the_shipment_may_come_early():
    """An event that comes while the workflow settles is kept, and taken at once after exactly 60 s."""
    result = run(order_fulfilment, ORDER, events=[(10, "shipment-ready", {"tracking": "1Z"})])
    assert (result.value, result.elapsed) == (RECEIPT, timedelta(seconds=60))


def test_the_charge_is_retried():
    """R4: the charge is tried again after 2 s and 4 s, and what follows is 6 s later."""
    steps = {charge_card: [ConnectionError("one"), ConnectionError("two"), "txn-42"]}
    result = run(order_fulfilment, ORDER, steps=steps, events=[(1, "shipment-ready", {"tracking": "1Z"})])
    retried = [
        (e.attempt, e.failure.message, e.retry_at - e.at)
        for e in result.history
        if isinstance(e, zart.Retried)
    ]
    assert (result.value, result.elapsed) == (RECEIPT, timedelta(seconds=66))
    assert retried == [(0, "one", 2.0), (1, "two", 4.0)]
    assert result.calls == {**ONCE, "charge-card": 3}


def test_a_declined_card_is_an_answer():
    """R4, R8: a declared error is not retried, and fails the run with its own type and text."""
    result = run(order_fulfilment, Order("43", "sku-9", 100_001))
    assert result.status is zart.Status.FAILED
    assert result.calls == {"validate-address": 1, "charge-card": 1}
    assert result.error.failure.type.endswith("CardDeclined")
    assert result.error.failure.message == "100001 cents is over the limit"
    with pytest.raises(zart.ExecutionFailed):
        _ = result.value
    assert issubclass(CardDeclined, Exception)


def test_the_deadline_is_shorter_than_the_window():
    """R16: the run's 30 minutes win over the event's hour."""
    result = run(order_fulfilment, ORDER)
    assert (result.status, result.elapsed) == (zart.Status.TIMED_OUT, timedelta(minutes=30))
    assert isinstance(result.error, zart.ExecutionTimedOut)


def test_killed_after_the_charge():
    """It goes on with reserve-inventory, and the card is charged once."""
    two = killed(order_fulfilment, ORDER, before="reserve-inventory", events=[SHIPPED])
    assert two.first == {"validate-address": 1, "charge-card": 1}
    assert (two.result.value, two.result.calls) == (RECEIPT, ONCE)
    assert two.result.elapsed == timedelta(seconds=120)


@pytest.mark.parametrize("events", [[SHIPPED], []], ids=["shipped", "timed-out"])
def test_killed_anywhere(events):
    """P3: the same outcome wherever it dies; each step once, or twice when its outcome was lost."""
    report = explore_crashes(order_fulfilment, ORDER, events=events)
    assert ledger(report) == dict.fromkeys(ONCE, (1, 2))
    assert len(report.outcomes) == 1


def test_killed_anywhere_while_it_retries():
    """A crash uses up no retry: each attempt is made once, or twice."""
    steps = {charge_card: [ConnectionError("one"), ConnectionError("two"), "txn-42"]}
    report = explore_crashes(order_fulfilment, ORDER, steps=steps, events=[SHIPPED])
    assert ledger(report) == {"validate-address": (1, 2), "charge-card": (3, 4), "reserve-inventory": (1, 2)}


def test_on_the_engine(open_engine):
    """The same on each store, with real and short waits."""
    with open_engine(order_fulfilment) as engine:
        handle = engine.start(order_fulfilment, Order("42", "sku-9", 1999, settle_s=0.05), id="order-42")
        handle.send("shipment-ready", {"tracking": "1Z"})
        assert handle.result(10) == RECEIPT
        assert handle.status() is zart.Status.COMPLETED
