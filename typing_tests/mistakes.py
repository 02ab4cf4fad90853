"""Mistakes that the checkers catch: each line is an error in both, or its comment would be one."""

from __future__ import annotations

import attrs

import zart_core as zart


@attrs.frozen
class Order:
    id: str


@zart.step("count-{sku}")
def count(sku: str) -> int:
    return len(sku)


@zart.workflow("order")
def order_flow(order: Order) -> zart.Flow[str]:
    yield from count(order.id)
    return order.id


@zart.workflow("nothing")
def no_input() -> zart.Flow[None]:
    yield from count("x")


def helper(sku: str) -> zart.Flow[bytes]:
    yield from count(sku)
    return b""


def forgotten_yield_from() -> zart.Flow[None]:
    a: str = yield count("a")  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    b: int = count("b")  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    (yield count("c")) + 1  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue, reportUnusedExpression]
    d: bytes = helper("d")  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    print(count("e") + 1)  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue, reportUnknownArgumentType]
    print(a, b, d)


def wrong_result_type() -> zart.Flow[None]:
    a: str = yield from count("a")  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    b: int = yield from helper("b")  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    c: list[str] = yield from zart.wait([count("c")])  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    d: tuple[int, int] = yield from zart.gather(count("d"), helper("e"))  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    print(a, b, c, d)


def wrong_arguments() -> zart.Flow[None]:
    yield from count(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    yield from count()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    yield from count("a", sku="b")  # type: ignore[misc]  # pyright: ignore[reportCallIssue]
    yield from zart.sleep("a")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    yield from zart.sleep_until("b", "tomorrow")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    yield from zart.wait(count("c"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    yield from zart.race(count("d"))  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    yield from zart.capture("e", lambda x: x)  # type: ignore[arg-type, misc]  # pyright: ignore[reportArgumentType, reportUnknownLambdaType]
    yield from zart.version("f", "2")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]


def truth_of_a_command() -> zart.Flow[str]:
    yield from count("a")
    return "some" if count("b") else "none"  # pyright: ignore[reportGeneralTypeIssues]


def not_a_command() -> zart.Flow[None]:
    yield from ["a"]  # type: ignore[misc]  # pyright: ignore[reportReturnType]
    yield 1  # type: ignore[misc]  # pyright: ignore[reportReturnType]
    yield None  # type: ignore[misc]  # pyright: ignore[reportReturnType]
    yield helper("a")  # type: ignore[misc]  # pyright: ignore[reportReturnType]
    yield from order_flow  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]


def wrong_inputs(engine: zart.Engine) -> zart.Flow[None]:
    engine.run(order_flow, "order-1")  # type: ignore[misc]  # pyright: ignore[reportArgumentType, reportCallIssue]
    engine.run(order_flow)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    engine.run(no_input, Order("1"))  # type: ignore[misc]  # pyright: ignore[reportArgumentType, reportCallIssue]
    engine.start(order_flow, 1)  # type: ignore[misc]  # pyright: ignore[reportArgumentType, reportCallIssue]
    zart.run_inline(order_flow, None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    yield from zart.child(order_flow, "order-1")  # type: ignore[misc]  # pyright: ignore[reportArgumentType, reportCallIssue]
    yield from zart.spawn(order_flow)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    yield from zart.child(helper, "a")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]


async def wrong_inputs_on_the_loop(engine: zart.AsyncEngine) -> None:
    await engine.run(order_flow, "order-1")  # type: ignore[misc]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await engine.run(order_flow)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await engine.run(no_input, Order("1"))  # type: ignore[misc]  # pyright: ignore[reportArgumentType, reportCallIssue]


def missing_next_input() -> zart.Flow[None]:  # pyright does not look closely at what never returns
    yield from order_flow.continue_as_new()  # type: ignore[call-arg]


def wrong_next_input() -> zart.Flow[None]:
    yield from order_flow.continue_as_new("order-1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def wrong_definitions() -> None:
    @zart.workflow("async")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue, reportUntypedFunctionDecorator]
    async def asynchronous(order: Order) -> str:
        return order.id

    @zart.workflow("plain")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue, reportUntypedFunctionDecorator]
    def plain(order: Order) -> str:
        return order.id

    @zart.workflow("two")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue, reportUntypedFunctionDecorator]
    def two(order: Order, more: int) -> zart.Flow[None]:
        yield from count(order.id)

    @zart.step("retry", retry=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    def retried() -> None: ...

    @zart.step("raises", raises=("ValueError",))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    def raising() -> None: ...

    print(asynchronous, plain, two, retried, raising)


def immutable(event: zart.Issued, value: zart.Ok[int]) -> None:
    event.name = "other"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    value.value = 2  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


def race_is_closed() -> zart.Flow[int]:
    won = yield from zart.race(count("a"), helper("b"))
    if won[0] == 0:
        return won[1]
    return won[1]  # type: ignore[return-value]  # pyright: ignore[reportReturnType]
