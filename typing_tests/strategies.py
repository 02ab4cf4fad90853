"""What the checkers infer of workflows under Hypothesis."""

from __future__ import annotations

from typing import assert_type

from hypothesis import given
from hypothesis import strategies as st

import zart_core as zart
from typing_tests.hosts import Order, Receipt, order_fulfilment, plain, tick
from zart_core.testing import strategies
from zart_core.testing.strategies import DrawnRun

assert_type(strategies.runs(tick), st.SearchStrategy[DrawnRun[int]])
assert_type(strategies.runs(order_fulfilment), st.SearchStrategy[DrawnRun[Receipt]])
assert_type(strategies.runs(order_fulfilment, Order("1")), st.SearchStrategy[DrawnRun[Receipt]])
assert_type(
    strategies.runs(order_fulfilment, st.builds(Order, st.text())), st.SearchStrategy[DrawnRun[Receipt]]
)
assert_type(
    strategies.runs(tick, steps={plain: st.just([1])}, events={"go": int}), st.SearchStrategy[DrawnRun[int]]
)
assert_type(strategies.values(plain), st.SearchStrategy[list[int]])
assert_type(strategies.histories(tick, cut=True), st.SearchStrategy[list[zart.Event]])


@given(strategies.runs(order_fulfilment))
def test_receipt(run: DrawnRun[Receipt]) -> None:
    assert_type(run.value, Receipt)


strategies.runs(tick, 7)  # type: ignore[misc]  # pyright: ignore[reportCallIssue, reportArgumentType]
strategies.runs(order_fulfilment, "no order")  # type: ignore[misc]  # pyright: ignore[reportCallIssue, reportArgumentType]
strategies.values(tick)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
