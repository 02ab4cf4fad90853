"""Durations, and how often and how fast a failed step is tried again (R4, R5)."""

from __future__ import annotations

import contextlib
import math
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

import zart_core as zart
from zart_core.policies import seconds


class Business(Exception):
    """An answer."""


class Flaky(Exception):
    """Worth another try."""


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (timedelta(minutes=1, milliseconds=5), 60.005),
        (0, 0.0),
        (2, 2.0),
        (0.5, 0.5),
        ("250ms", 0.25),
        ("30s", 30.0),
        ("1.5m", 90.0),
        ("2h", 7200.0),
        ("3d", 259200.0),
        ("1h30m", 5400.0),
        ("1h 30m 5s", 5405.0),
    ],
)
def test_durations_are_timedeltas_seconds_or_text(given, expected):
    """Inside they are seconds."""
    assert seconds(given) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    "given",
    [-1, -0.001, timedelta(seconds=-1), math.inf, math.nan, True, None, "", "30", "s", "30 sec", "-5s", "1h-30m", [1],
     10**400, -(10**400), "9" * 400 + "d", b"30s"],
)  # fmt: skip
def test_anything_else_is_refused_with_what_it_was(given):
    """InvalidUse, whatever is given."""
    with pytest.raises(zart.InvalidUse, match="the delay"):
        seconds(given, "the delay")


@given(st.one_of(st.text(), st.floats(), st.integers(), st.timedeltas()))
def test_a_duration_is_finite_and_not_negative_or_refused(given):
    """Whatever people write."""
    with contextlib.suppress(zart.InvalidUse):
        assert 0 <= seconds(given) < math.inf


def test_delays_are_fixed_or_double():
    """R4: retry k waits min(max_delay, initial * factor**(k-1)): 1, 2, 4."""
    assert [zart.Retry.exponential(3, 1).delay_s(k) for k in (1, 2, 3)] == [1.0, 2.0, 4.0]
    assert [zart.Retry.exponential(9, "1s", factor=3, max_delay="5s").delay_s(k) for k in (1, 2, 3)] == [
        1.0,
        3.0,
        5.0,
    ]
    assert [zart.Retry.fixed(3, "2s").delay_s(k) for k in (1, 2, 3)] == [2.0, 2.0, 2.0]
    assert (zart.Retry.none().retries_max, zart.Retry.fixed(3, 0).retries_max) == (0, 3)


def test_delays_stay_finite_however_many_retries():
    """R4: without a max_delay too; and a backoff from zero stays zero."""
    endless = zart.Retry.exponential(5000, 1)
    assert [endless.delay_s(k) for k in (30, 31, 100, 1000, 5000)] == [2.0**29, 1e9, 1e9, 1e9, 1e9]
    assert zart.Retry.exponential(5000, 0).delay_s(5000) == 0.0
    assert zart.Retry.exponential(5000, 1, max_delay="1h").delay_s(5000) == 3600.0


def test_jitter_is_off_unless_asked_for_and_only_shortens():
    """R4: it takes up to its share from the delay."""
    assert zart.Retry.fixed(1, 10).delay_s(1, 0.999) == 10.0
    assert [zart.Retry.fixed(1, 10, jitter=0.5).delay_s(1, random) for random in (0.0, 0.5, 1.0)] == [
        10.0,
        7.5,
        5.0,
    ]


def test_declared_errors_are_answers():
    """R4: not retried unless named in on=; give_up_on= names others that are not."""
    declared = (Business,)
    assert [zart.Retry.fixed(1, 1).retries(error, declared) for error in (Flaky(), Business())] == [
        True,
        False,
    ]
    on = zart.Retry.fixed(1, 1, on=(Business,))
    assert [on.retries(error, declared) for error in (Flaky(), Business())] == [False, True]
    give_up = zart.Retry.fixed(1, 1, give_up_on=Flaky)
    assert [give_up.retries(error, ()) for error in (Flaky(), ValueError())] == [False, True]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: zart.Retry.fixed(-1, 1),
        lambda: zart.Retry.fixed(True, 1),
        lambda: zart.Retry.fixed(1.5, 1),
        lambda: zart.Retry.fixed(1, -1),
        lambda: zart.Retry.fixed(1, 1, jitter=2),
        lambda: zart.Retry.exponential(1, 1, factor=0),
        lambda: zart.Retry.exponential(1, 1, factor=math.nan),
        lambda: zart.Retry.fixed(1, 1, on=("ValueError",)),
        lambda: zart.Retry.fixed(1, 1, give_up_on=BaseException),
    ],
)
def test_policies_that_cannot_work_are_refused(wrong):
    """InvalidUse, where they are written."""
    with pytest.raises(zart.InvalidUse):
        wrong()
