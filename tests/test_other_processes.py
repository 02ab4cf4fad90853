"""Sync steps in an executor of other processes: what cannot be sent there, what comes back, and what dies there."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import attrs
import pytest
from engines import PATIENCE_S, kinds, until, url_of

import zart_core as zart

Pool = Any


@pytest.fixture
def pool() -> Iterator[Executor]:
    """Two processes."""
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as executor:
        yield executor


@attrs.frozen
class Socket:
    """Can be written down, and not be pickled."""

    port: int

    def __getstate__(self) -> Any:
        raise TypeError("a socket stays where it is")


@zart.step()
def listen(queue: int, socket: Socket) -> int:
    return queue + socket.port


@zart.workflow("listens")
def listens(_: None) -> zart.Flow[int]:
    return (yield from listen(1, Socket(80)))


@zart.step()
def mistaken(what: str) -> int:
    """Raises what pickle raises, too."""
    if what == "pickle":
        pickle.dumps(lambda: 1)
    raise TypeError("no such thing")


@zart.step()
def opens() -> Any:
    """Gives what cannot be sent back."""
    return Socket(80)


def named(command: zart.Step[Any]) -> zart.Workflow[None, str]:
    """A workflow of one step that gives what it comes to."""

    @zart.workflow("one")
    def one(_: None) -> zart.Flow[str]:
        try:
            return str((yield from command))
        except zart.StepFailed as error:
            return f"{error.error_type}: {error.message}"

    return one


# ---------------------------------------------------------------- what cannot be sent (R20)


@pytest.mark.parametrize("at_most_once", [False, True])
def test_a_function_that_cannot_be_sent_parks_its_execution(
    pool: Pool, tmp_path: Path, *, at_most_once: bool
) -> None:
    """It is no answer of the step but a mistake of code: it says what to do, and goes on with code that is right."""

    @zart.step(at_most_once=at_most_once)
    def hidden() -> int:
        return 1

    @zart.workflow("hides")
    def hides(_: None) -> zart.Flow[int]:
        return (yield from hidden())

    url = url_of("sqlite", tmp_path)
    with zart.open(url, [hides], executor=pool) as engine:
        handle = engine.start(hides, id="a")
        with pytest.raises(zart.Defect, match="step 'hidden' cannot be sent to its executor: its function"):
            handle.result(PATIENCE_S)
        until(lambda: handle.status() is zart.Status.PARKED)
        assert kinds(handle.history()) == ["Started", "Issued", "Began", "Noted"]
    with zart.open(url, [hides]) as engine:
        handle = engine.get("a")
        assert handle.result(PATIENCE_S) == 1
        began = [event for event in handle.history() if isinstance(event, zart.Began)]
        assert [event.takeover for event in began] == [None, None]


def test_an_argument_that_cannot_be_sent_parks_its_execution(pool: Pool) -> None:
    """The reason names it."""
    with zart.open("memory:", [listens], executor=pool) as engine:
        handle = engine.start(listens)
        with pytest.raises(zart.Defect, match=r"argument 'socket' .*TypeError: a socket stays where it is"):
            handle.result(PATIENCE_S)


def test_what_cannot_be_sent_hinders_no_other_step_of_its_execution(pool: Pool) -> None:
    """What ran beside it is on record when the execution goes on, in the same engine with other code."""

    @zart.step()
    async def beside() -> int:
        return 1

    def both_of(step: zart.StepFunction[..., int]) -> zart.Workflow[None, Any]:
        @zart.workflow("both")
        def both(_: None) -> zart.Flow[Any]:
            return (yield from zart.gather(step(), beside()))

        return both

    @zart.step("work")
    def hidden() -> int:
        return 2

    @zart.step("work")
    async def mended() -> int:
        return 3

    both = both_of(hidden)
    with zart.open("memory:", [both], executor=pool) as engine:
        handle = engine.start(both)
        until(lambda: handle.status() is zart.Status.PARKED)
        engine.register(both_of(mended))
        assert handle.result(PATIENCE_S) == (3, 1)


@pytest.mark.parametrize(
    ("command", "what"),
    [
        (mistaken("type"), "TypeError: no such thing"),
        (mistaken("pickle"), "lambda"),
        (opens(), "TypeError: a socket stays where it is"),
    ],
)
def test_what_a_step_raises_or_gives_in_another_process_is_its_outcome(
    pool: Pool, command: zart.Step[Any], what: str
) -> None:
    """Its own errors of pickling are answers, and so is a result that cannot be sent back (R9)."""
    one = named(command)
    with zart.open("memory:", [one], executor=pool) as engine:
        assert what in engine.run(one)
