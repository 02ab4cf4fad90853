"""@workflow and the registry: definitions, types, names."""

from __future__ import annotations

import types
from collections.abc import Generator
from typing import Any

import pytest

import zart_core as zart


@zart.step("do")
def do() -> int:
    return 1


@zart.workflow()
def order_fulfilment(order: str) -> zart.Flow[int]:
    """What it is about."""
    return (yield from do())


def plain(x: int) -> int:
    return x


def keyword_only(*, x: int) -> zart.Flow[int]:
    return (yield from do())


def two_inputs(x: int, y: int) -> zart.Flow[int]:
    return (yield from do())


def any_inputs(*x: int) -> zart.Flow[int]:
    return (yield from do())


async def coroutine(x: int) -> int:
    return x


async def async_generator(x: int) -> Any:
    yield x


def test_a_workflow_knows_its_name_and_types():
    """The name is the function's, with dashes, unless given; the types are read from the annotations."""
    assert (order_fulfilment.name, order_fulfilment.__doc__) == ("order-fulfilment", "What it is about.")
    assert (order_fulfilment.takes_input, order_fulfilment.input_type, order_fulfilment.result_type) == (
        True,
        str,
        int,
    )
    assert repr(order_fulfilment) == "<workflow 'order-fulfilment'>"

    @zart.workflow("named", timeout="5m")
    def bare():
        yield from do()

    assert (bare.name, bare.timeout_s, bare.takes_input, bare.input_type, bare.result_type) == (
        "named", 300.0, False, type(None), Any,
    )  # fmt: skip

    @zart.workflow()
    def spelled(x: int = 3) -> Generator[zart.Command[Any], object, list[str]]:
        yield from do()
        return []

    assert (spelled.input_type, spelled.result_type) == (int, list[str])


def test_calling_a_workflow_gives_the_plain_generator():
    """So it can run inline in another."""
    flow = order_fulfilment("42")
    assert isinstance(flow, Generator)
    flow.close()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            lambda: zart.workflow("w")(coroutine),
            "is an `async def`; a workflow is a plain generator: write `def`",
        ),
        (lambda: zart.workflow("w")(async_generator), "is an `async def`"),
        (lambda: zart.workflow("w")(plain), "is no generator function; it must `yield from` its steps"),
        (lambda: zart.workflow("w")(two_inputs), "takes 2 parameters; give it one input"),
        (lambda: zart.workflow("w")(keyword_only), "must take its one input by position, not as 'x: 'int''"),
        (lambda: zart.workflow("w")(any_inputs), "must take its one input by position"),
        (lambda: zart.workflow(order_fulfilment.fn), "write @zart.workflow() with parentheses"),
        (lambda: zart.workflow("")(order_fulfilment.fn), "give a non-empty text"),
        (lambda: zart.workflow("w", timeout="soon")(order_fulfilment.fn), "timeout of workflow 'w'"),
        (
            lambda: zart.workflow("w", park_on="KeyError")(order_fulfilment.fn),
            "park_on= takes exception classes",
        ),
        (
            lambda: zart.workflow("w", on_failure=coroutine)(order_fulfilment.fn),
            "must be a plain function of (input,",
        ),
        (lambda: zart.workflow("w", on_failure=5)(order_fulfilment.fn), "must be a plain function"),
        (
            lambda: zart.workflow("w", on_failure=async_generator)(order_fulfilment.fn),
            "must be a plain function",
        ),
        (
            lambda: zart.workflow("w", on_failure=lambda failure: None)(order_fulfilment.fn),
            "must be a plain function of (input, failure), or a flow of them",
        ),
    ],
)
def test_what_cannot_be_a_workflow_is_refused_at_the_decorator(wrong, message):
    """R12: InvalidUse that names the fix."""
    with pytest.raises(zart.InvalidUse) as caught:
        wrong()
    assert message in str(caught.value)


def test_a_registry_takes_workflows_modules_registries_and_lists_of_them():
    """Nothing is registered by being imported."""
    module = types.ModuleType("flows")
    module.order_fulfilment = order_fulfilment
    module.do = do
    for sources in (
        [order_fulfilment],
        [module],
        [zart.Registry(order_fulfilment)],
        [[module, order_fulfilment]],
    ):
        registry = zart.Registry(*sources)
        assert (list(registry), len(registry)) == ([order_fulfilment], 1)
        assert "order-fulfilment" in registry
        assert registry["order-fulfilment"] is order_fulfilment


@pytest.mark.parametrize(
    "fn", [lambda *both: None, lambda input, failure, more=1: None, max], ids=["all", "more", "max"]
)
def test_what_takes_input_and_failure_may_be_on_failure(fn):
    """Whatever else it takes, and though it does not say what it takes."""
    assert zart.workflow("w", on_failure=fn)(order_fulfilment.fn).on_failure is fn


def test_two_workflows_of_one_name_are_refused_with_both_places():
    """A name is what a log says."""
    twin = zart.workflow("order-fulfilment")(order_fulfilment.fn)
    with pytest.raises(
        zart.InvalidUse, match=r"two workflows are named 'order-fulfilment': test_workflows\.order_ful"
    ):
        zart.Registry(order_fulfilment, twin)


def test_an_unknown_workflow_is_a_defect_with_the_nearest_name():
    """R20: its runs are parked until it is registered."""
    with pytest.raises(zart.UnknownWorkflow) as caught:
        zart.Registry(order_fulfilment)["order-fulfillment"]
    assert "registered: order-fulfilment" in str(caught.value)
    assert "did you mean 'order-fulfilment'?" in str(caught.value)


def test_a_module_without_workflows_is_named():
    """It was given by mistake, such as a package whose workflows stand in its submodules; one of steps alone may be."""
    module = types.ModuleType("flows")
    module.reserve = order_fulfilment.fn
    with pytest.raises(
        zart.InvalidUse, match="module 'flows' has no workflow; give modules that define or import"
    ):
        zart.Registry([order_fulfilment, module])
    module.do = do
    assert list(zart.Registry([order_fulfilment, module])) == [order_fulfilment]


@pytest.mark.parametrize("wrong", [5, "order", order_fulfilment.fn, do, None])
def test_what_is_no_workflow_cannot_be_registered(wrong):
    """InvalidUse."""
    with pytest.raises(zart.InvalidUse, match="is no workflow"):
        zart.Registry(wrong)
