"""Scenario 7: errors as answers, as values, run out of retries, and handled when a run fails."""

from datetime import timedelta

import pytest

import zart_core as zart
from examples.error_handling import (
    InsufficientFunds,
    Purchase,
    charge_card,
    check_balance,
    purchase_mapped,
    purchase_refunded,
)
from tests.scenarios.killing import ledger
from zart_core.testing import explore_crashes, run

FINE = {"reserve-inventory": 1, "check-balance": 1, "charge-card": 1}


def test_ok():
    """All steps once."""
    result = run(purchase_mapped, Purchase("sku", 1999))
    assert (result.value, result.calls) == ("charged 1999, 8001 left", FINE)


def test_insufficient():
    """R8: the answer comes back as its own type with its fields, and the card is not charged."""
    result = run(purchase_mapped, Purchase("sku", 20_000))
    assert (result.value, result.calls) == (
        "10000 cents are missing",
        {"reserve-inventory": 1, "check-balance": 1},
    )


@pytest.mark.parametrize(
    ("purchase", "calls", "expected"),
    [
        (purchase_mapped, {}, "no luck in 3 attempts"),
        (purchase_refunded, {"refund": 1}, "refunded sku; no luck in 3 attempts"),
    ],
    ids=["function", "flow"],
)
def test_the_charge_fails_three_times(purchase, calls, expected):
    """R6, R17: fixed(2, 1 s) makes three attempts in 2 s; on_failure maps what comes, or refunds."""
    result = run(purchase, Purchase("sku", 666))
    assert (result.status, result.value) == (zart.Status.COMPLETED, expected)
    assert result.elapsed == timedelta(seconds=2)
    assert result.calls == {**FINE, "charge-card": 3, **calls}


@pytest.mark.parametrize(
    ("purchase", "expected"),
    [
        (purchase_mapped, "failed: step 'reserve-inventory' failed: LookupError: no such article"),
        (
            purchase_refunded,
            "refunded ; failed: step 'reserve-inventory' failed: LookupError: no such article",
        ),
    ],
    ids=["function", "flow"],
)
def test_another_kind_of_failure(purchase, expected):
    """R8, R17: on_failure is given StepFailed, with the type and text of what was raised."""
    assert run(purchase, Purchase("", 1)).value == expected


def test_step_or_else_is_for_business_errors():
    """Its function is not called for RetryExhausted, which is raised; it is for a declared error."""
    called: list[str] = []

    def otherwise(error: Exception) -> int:
        called.append(str(error))  # zart: ignore[ZT107] seen by the test alone
        return -1

    @zart.workflow("or-else")
    def or_else(cents: int) -> zart.Flow[int | str]:
        left = yield from zart.step_or_else(check_balance(cents), otherwise)
        paid = yield from zart.step_or_else(charge_card(cents), otherwise)
        return f"{left}, {paid}"

    failed = run(or_else, 666, strict=False)
    assert (failed.status, called) == (zart.Status.FAILED, [])
    assert "step 'charge-card' failed at all 3 attempts" in str(failed.error)
    assert run(or_else, 20_000, strict=False).value == "-1, charged 20000"
    assert called == ["10000 of 20000"]


def test_step_or_swallows_every_step_error():
    """`step_or` gives its default for business errors and exhausted retries alike."""

    @zart.workflow("or")
    def or_default(cents: int) -> zart.Flow[tuple[int, str]]:
        return (yield from zart.step_or(check_balance(cents), 0)), (
            yield from zart.step_or(charge_card(666), "none")
        )

    assert run(or_default, 20_000).value == (0, "none")


def test_the_error_keeps_its_fields():
    """R8: first time and on replay alike."""

    @zart.workflow("fields")
    def fields() -> zart.Flow[tuple[int, int]]:
        try:
            yield from check_balance(20_000)
        except InsufficientFunds as error:
            return error.balance, error.needed
        return 0, 0

    result = run(fields)
    assert result.value == (10_000, 20_000)
    assert zart.replay(fields, result.history).result() == (10_000, 20_000)


@pytest.mark.parametrize(
    ("purchase", "input", "expected"),
    [
        (purchase_mapped, Purchase("sku", 1999), dict.fromkeys(FINE, (1, 2))),
        (purchase_mapped, Purchase("sku", 20_000), {"reserve-inventory": (1, 2), "check-balance": (1, 2)}),
        (purchase_mapped, Purchase("sku", 666), {**dict.fromkeys(FINE, (1, 2)), "charge-card": (3, 4)}),
        (
            purchase_refunded,
            Purchase("sku", 666),
            {**dict.fromkeys(FINE, (1, 2)), "charge-card": (3, 4), "refund": (1, 2)},
        ),
        (purchase_refunded, Purchase("", 1), {"reserve-inventory": (1, 2), "refund": (1, 2)}),
    ],
    ids=["ok", "insufficient", "exhausted", "refunded", "nothing"],
)
def test_killed_anywhere(purchase, input, expected):
    """P3: one outcome for each branch, on_failure included."""
    report = explore_crashes(purchase, input)
    assert ledger(report) == expected
    assert len(report.outcomes) == 1


def test_on_the_engine(open_engine):
    """Each branch that takes no real time, on each store."""
    with open_engine(purchase_mapped, purchase_refunded) as engine:
        assert engine.run(purchase_mapped, Purchase("sku", 1999)) == "charged 1999, 8001 left"
        assert engine.run(purchase_mapped, Purchase("sku", 20_000)) == "10000 cents are missing"
        assert engine.run(purchase_refunded, Purchase("", 1)).startswith("refunded ; failed")
