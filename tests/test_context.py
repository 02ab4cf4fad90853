"""Where the code runs: zart.context(), zart.resource(), zart.logger."""

from __future__ import annotations

import logging
from typing import Any

import pytest

import zart_core as zart
from zart_core.context import SCENE, Context, Scene


@zart.step("do")
def do() -> Any:
    return 1


def test_a_workflow_knows_its_execution_and_the_time_of_the_last_event(play):
    """No step, no clock; the same in a replay."""
    seen = []

    @zart.workflow("w")
    def w():
        seen.append(zart.context())
        yield from do()
        seen.append(zart.context())

    run = play(w).start().done("do")
    assert seen == [Context("an-id", 0, "w", 0.0), Context("an-id", 0, "w", 1.0)]
    run.replayed().close()
    assert seen[2:] == seen[:2]


def test_a_step_also_knows_its_attempt():
    """As the host sets it."""
    context = Context("an-id", 0, "w", 5.0, "do", 1, 3, True, "an-id/0/do", 65.0)
    token = SCENE.set(Scene(lambda: context, {"db": "a connection"}))
    try:
        assert zart.context() is context
        assert zart.resource("db") == "a connection"
        with pytest.raises(
            zart.InvalidUse, match="no resource 'other'; the host was opened with resources: db"
        ):
            zart.resource("other")
    finally:
        SCENE.reset(token)


def test_outside_there_is_nothing_to_know():
    """InvalidUse that says where it works."""
    with pytest.raises(
        zart.InvalidUse, match="is for workflows and steps; nothing of the kind is running here"
    ):
        zart.context()
    with pytest.raises(zart.InvalidUse, match="is for steps"):
        zart.resource("db")


def test_a_workflow_has_no_resources(play):
    """It has no effects, so it needs none."""

    @zart.workflow("w")
    def w():
        zart.resource("db")
        yield from do()

    run = play(w).start()
    assert "InvalidUse: zart.resource('db') is for steps: a workflow has no effects" in run.history[-1]


def test_the_context_is_gone_when_the_code_has_run(play):
    """Whatever it raises."""

    @zart.workflow("w")
    def w():
        yield from do()
        raise ValueError

    play(w).start().done("do")
    assert SCENE.get() is None


def test_lines_of_a_workflow_wait_for_their_turn_and_are_dropped_in_a_replay(play):
    """They come out once, when what they speak of is durable; level, place and arguments stay."""
    logger = logging.getLogger("zart.workflow")
    logger.setLevel(logging.INFO)

    @zart.workflow("w")
    def w():
        zart.logger.info("one %s", 1)
        zart.logger.debug("too detailed")
        yield from do()
        zart.logger.warning("two")

    try:
        run = play(w).start()
        (line,) = run.execution.take_lines()
        assert (line.getMessage(), line.levelname, line.funcName) == ("one 1", "INFO", "w")
        assert run.execution.take_lines() == []
        run.done("do")
        assert [line.getMessage() for line in run.execution.take_lines()] == ["two"]
    finally:
        logger.setLevel(logging.NOTSET)


def test_a_line_of_a_workflow_says_what_was_so_when_it_was_written(play):
    """With the error and the stack that it asks for; what changes before the turn is durable does not change it."""

    @zart.workflow("w")
    def w():
        items = [1]
        try:
            raise ValueError("broken")
        except ValueError as error:
            zart.logger.exception("it went %s", "wrong")
            zart.logger.error("this", exc_info=error)
            zart.logger.error("these", exc_info=(type(error), error, None))
            zart.logger.warning("here", stack_info=True)
        zart.logger.warning("items %s", items)
        zart.logger.warning(items)
        zart.logger.warning("%d items", items)
        items.append(2)
        told(zart.logger)
        yield from do()

    def told(logger):
        logger.warning("from the caller", stacklevel=2)

    lines = play(w).start().execution.take_lines()
    assert [line.exc_info[1].args for line in lines[:3]] == [("broken",)] * 3
    assert lines[0].args == ("wrong",)
    assert "in w" in lines[3].stack_info and lines[3].exc_info is None
    assert [line.getMessage() for line in lines[3:6]] == ["here", "items [1]", "[1]"]
    # Logging says that this cannot be formatted.
    assert (lines[6].msg, lines[6].args) == ("%d items", ([1, 2],))
    assert [line.funcName for line in lines] == ["w"] * 8


def test_the_logger_is_an_ordinary_one_elsewhere(caplog):
    """In steps and outside of everything."""
    with caplog.at_level(logging.INFO):
        zart.logger.info("as usual")
    assert [(record.message, record.funcName) for record in caplog.records] == [
        ("as usual", "test_the_logger_is_an_ordinary_one_elsewhere")
    ]


def test_what_is_captured_knows_its_execution():
    """As the rest of its workflow does."""

    @zart.workflow("w")
    def w() -> zart.Flow[str]:
        return (yield from zart.capture("c", lambda: zart.context().execution_id))

    assert zart.run_inline(w, id="mine") == "mine"
