"""Commands: inert records that refuse to be taken for their results (R12)."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime
from typing import Any

import pytest

import zart_core as zart
from zart_core.commands import describe


@zart.step("do-{what}")
def do(what: str) -> Any:
    return what


@zart.workflow("kid")
def kid(n: int) -> zart.Flow[int]:
    yield from do("kid")
    return n


def yielded(command: Any) -> Any:
    """A command that nobody will report as forgotten."""
    command.yielded = True
    return command


@pytest.mark.parametrize(
    "use",
    [
        lambda command: "yes" if command else "no",
        lambda command: not command,
        lambda command: command.__await__(),
        lambda command: command and 1,
    ],
)
def test_a_command_is_not_its_result(use):
    """R12: a truth test or an await says to write `yield from`."""
    with pytest.raises(zart.InvalidUse, match=r"step 'do-x' .*yield from"):
        use(yielded(do("x")))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: zart.sleep("", 1), "the name is ''"),
        (lambda: zart.sleep("n\n", 1), "printable"),
        (lambda: zart.sleep("n", -1), "not negative"),
        (lambda: zart.sleep_until("n", datetime(2020, 1, 1)), "say which zone"),
        (lambda: zart.sleep_until("n", 5), "takes a datetime with a time zone, not int"),
        (lambda: zart.wait_for_event(""), "the event is ''"),
        (lambda: zart.wait_for_event("e", timeout="soon"), "no duration"),
        (lambda: zart.capture("c", 5), "takes a plain function"),
        (lambda: zart.capture("c", coroutine), "takes a plain function"),
        (lambda: zart.child(kid.fn, 1), "takes a function decorated with @zart.workflow"),
        (lambda: zart.spawn(5, 1), "takes a function decorated with @zart.workflow, not a int"),
        (lambda: zart.child(kid, 1, id=""), "the id is ''"),
        (lambda: zart.version("v", 0), "versions are counted 1, 2, 3"),
        (lambda: zart.version("v", True), "versions are counted 1, 2, 3"),
        (lambda: zart.scope("s", 5), "takes a flow: call a generator function"),
        (lambda: zart.shield(kid), "takes a flow"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_where_it_is_written(build, message):
    """InvalidUse that names the fix."""
    with pytest.raises(zart.InvalidUse) as caught:
        build()
    assert message in str(caught.value)


async def coroutine() -> int:
    return 1


def test_commands_describe_themselves_without_their_arguments():
    """Messages never show payloads."""
    commands = {
        "step 'do-x'": do("x"),
        "sleep 'nap'": zart.sleep("nap", 1),
        "sleep 'alarm'": zart.sleep_until("alarm", datetime(2020, 1, 1, tzinfo=UTC)),
        "event wait 'e'": zart.wait_for_event("e"),
        "event wait 'own'": zart.wait_for_event("e", name="own"),
        "capture 'c'": zart.capture("c", int),
        "now 'n'": zart.now("n"),
        "child 'kid'": zart.child(kid, 1),
        "child 'own'": zart.child(kid, 1).named("own"),
        "spawn 'kid'": zart.spawn(kid, 1),
        "spawn 'own'": zart.spawn(kid, 1).named("own"),
        "version 'v'": zart.version("v", 2),
        "wait": zart.wait([]),
        "schedule": zart.schedule(yielded(do("y"))),
    }
    assert [describe(yielded(command)) for command in commands.values()] == list(commands)


def test_a_command_that_nobody_yields_is_reported_once():
    """R12: with a warning outside of workflows; a named one stands for the one it was made of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        do("x").named("other")
        zart.now("n")
    assert [str(warning.message).split(" was")[0] for warning in caught] == ["step 'other'", "now 'n'"]


def test_outcome_step_or_and_step_or_else(play):
    """The first gives Ok or Err, the second swallows every step error, the third minds answers only."""

    class Answer(Exception):
        pass

    @zart.step("answer-{n}", raises=(Answer,))
    def answer(n: int) -> Any:
        return n

    @zart.workflow("w")
    def w():
        seen = []
        for n in range(2):
            match (yield from zart.outcome(answer(n))):
                case zart.Ok(value):
                    seen.append(value)
                case zart.Err(error):
                    seen.append(type(error).__name__)
        for n in range(2, 5):
            seen.append((yield from zart.step_or(answer(n), "default")))
        seen.append((yield from zart.step_or_else(answer(5), lambda error: type(error).__name__)))
        try:
            yield from zart.step_or_else(answer(6), lambda error: "never")
        except zart.StepLost:
            seen.append("raised")
        return seen

    run = play(w).start().done("answer-0", 7).fails("answer-1", Answer())
    run.done("answer-2", 8).fails("answer-3", Answer()).fails("answer-4", kind="lost")
    run.fails("answer-5", Answer()).fails("answer-6", kind="lost")
    assert run.result == [7, "Answer", 8, "default", "default", "Answer", "raised"]


def test_a_cancellation_passes_through_all_three(play):
    """It is no error of the step."""

    @zart.workflow("w")
    def w():
        yield from zart.step_or(do("x"), "default")

    assert play(w).start().cancel().history[-1] == "cancelled: Cancelled: stop"


def test_a_bare_yield_does_the_same_at_run_time(play):
    """`x = yield command` for those who do without types."""

    @zart.workflow("w")
    def w():
        return [(yield do("x")), (yield zart.wait([do("y")])), (yield zart.version("v", 2))]

    assert play(w).start().done("do-x", 1).done("do-y", 2).result == [1, [2], 2]
