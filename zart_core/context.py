"""Where the running code is: what `zart.context()`, `zart.resource()`, `zart.heartbeat()` and `zart.logger` look at.

Rule 1: hosts set it around a step and around what is captured, the interpreter around a workflow; nobody else does.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, TypeVar, cast, overload

import msgspec

from zart_core.errors import InvalidUse
from zart_core.log import TRANSACTION_S
from zart_core.policies import Duration, seconds
from zart_core.records import stored_record

C = TypeVar("C")


@stored_record
class Context:
    """Where the calling code runs. The fields from `step` on are set in a step only."""

    execution_id: str
    run: int
    workflow: str
    now: float
    """Seconds since the epoch: in a workflow the time of the last event, in a step the start of the attempt."""
    step: str | None = None
    attempt: int = 0
    """0 for the first attempt."""
    max_retries: int = 0
    is_retry: bool = False
    idempotency_key: str = ""
    """The same for every attempt and after every crash; differs from that of every other step."""
    deadline: float | None = None
    """When the step must be through, in seconds since the epoch."""


class Scene(msgspec.Struct):
    """What surrounds the running code. In a workflow it collects what the code says, until the host lets it out.

    Each list is made before it is looked whether there is one: the garbage collector may run then, and what it puts
    away has something to say as well.
    """

    context: Callable[[], Context]
    resources: Mapping[str, Any]
    lines: list[logging.LogRecord] | None = None
    """Log records of the workflow; the host emits them once their turn is durable, and drops those of a replay."""
    unused: list[str] | None = None
    """Commands that were built and never yielded (R12)."""
    transaction: Callable[[float], Any] | None = None
    """Gives the connection of the step's transaction, with a limit in seconds; None where there is none."""
    heartbeat: Callable[[Any], None] | None = None
    """Takes what the step says of its progress, and raises Cancelled when it is to end; None where nobody hears it."""


UNCHANGING = frozenset({str, int, float, bool, type(None)})
"""Types of what a line may speak of that stays as it is until the line comes out."""

SCENE: ContextVar[Scene | None] = ContextVar("zart_scene", default=None)


def context() -> Context:
    """Where the calling code runs: the execution, and in a step also step, attempt, idempotency key and deadline.

    Raises InvalidUse outside of workflows and steps.
    """
    scene = SCENE.get()
    if scene is None:
        raise InvalidUse("zart.context() is for workflows and steps; nothing of the kind is running here")
    return scene.context()


def resource(name: str) -> Any:
    """The object that the host was given as `resources={name: ...}`; for steps.

    Raises InvalidUse outside of steps and for a name that the host does not have.
    """
    scene = SCENE.get()
    if scene is None or scene.lines is not None:
        raise InvalidUse(
            f"zart.resource({name!r}) is for steps: a workflow has no effects, so it needs no resources; "
            "use it inside a function decorated with @zart.step"
        )
    try:
        return scene.resources[name]
    except KeyError:
        known = ", ".join(sorted(scene.resources)) or "none"
        raise InvalidUse(f"no resource {name!r}; the host was opened with resources: {known}") from None


@overload
def transaction(*, limit: Duration = TRANSACTION_S) -> Any: ...
@overload
def transaction(kind: type[C], *, limit: Duration = TRANSACTION_S) -> C: ...
def transaction(kind: type[Any] = object, *, limit: Duration = TRANSACTION_S) -> Any:
    """The connection whose transaction also records the outcome of this step; for sync steps of an engine.

    It begins with the first call, and is committed together with the step's result: what the step writes with it
    happens exactly once. It is rolled back when the step raises, times out, or its worker dies.

    Args:
        kind: the class that it is, for the type checker: `sqlite3.Connection`, or `psycopg.Connection`.
        limit: how long the step may use it, 5 s by default; then it is rolled back. SQLite lets nobody else write
            meanwhile, and grants 10 s at the most.

    Raises InvalidUse where there is no transaction to be had: outside of steps, in async steps, in another host or
    process than the engine's, and with a store that has none; StoreUnavailable, after which the step is run again if it
    lets it pass.
    """
    scene = SCENE.get()
    if scene is None or scene.lines is not None:
        raise InvalidUse(
            "zart.transaction() is for steps; call it inside a function decorated with @zart.step"
        )
    if scene.transaction is None:
        raise InvalidUse(
            "zart.transaction() is for sync steps (`def`) that an engine (zart.open, zart.serve) runs in a thread; "
            "this is an async step, or one that another host, a test or another process runs"
        )
    connection = scene.transaction(seconds(limit, "limit"))
    if not isinstance(connection, kind):
        raise InvalidUse(
            f"the transaction's connection is a {type(connection).__name__}, not a {kind.__name__}: "
            "ask for the kind that goes with the store's URL"
        )
    return connection


def checked_resources(given: Any) -> dict[str, Any]:
    """The objects that a host was given for its steps, by name. Raises InvalidUse for what is no mapping."""
    if given is not None and not isinstance(cast("object", given), Mapping):
        raise InvalidUse(f"resources= maps names to objects, as in {{'bank': bank}}, not {given!r}")
    return dict(given or {})


def heartbeat(progress: Any = None) -> None:
    """Say how far a long step is, and hear whether anybody still waits for it.

    `zart show` and `zart explain` show what a running step said last. It is written every few seconds at the most, so
    it may be called as often as you like: a call costs as much as its progress takes to become JSON. It is no part of
    the history, and is gone when the attempt has ended.

    Args:
        progress: a JSON value of 4 KiB at the most, or what the codec makes one of; what was said last counts.

    Raises Cancelled once the step is to end: it lost a race, was cancelled or timed out, its worker lost the execution
    or is about to stop. Let it pass: a sync step has no other way to hear of it. Raises InvalidUse where nobody hears
    it: outside of steps, and where another process runs them; EncodeError for a progress that is no JSON or too long.
    """
    scene = SCENE.get()
    if scene is None or scene.lines is not None:
        raise InvalidUse("zart.heartbeat() is for steps; call it inside a function decorated with @zart.step")
    if scene.heartbeat is None:
        raise InvalidUse(
            "nobody hears zart.heartbeat() here: it is for steps that an engine (zart.open, zart.serve), "
            "zart.run_inline or a test runs in its own process"
        )
    scene.heartbeat(progress)


class WorkflowLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger whose lines from a workflow come out once, when what they speak of is durable."""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log as `logging.Logger.log` does; inside a workflow the line waits for its turn to be durable."""
        scene = SCENE.get()
        if scene is None or scene.lines is None:
            options: dict[str, Any] = {"stacklevel": 2, **kwargs}
            super().log(level, msg, *args, **options)
        elif self.isEnabledFor(level):
            line = self.line(level, msg, args, **kwargs)
            first = [line]
            if scene.lines:
                scene.lines.append(line)
            else:
                scene.lines = first

    def line(
        self,
        level: int,
        msg: object,
        args: tuple[object, ...],
        *,
        exc_info: Any = None,
        extra: Mapping[str, object] | None = None,
        stack_info: bool = False,
        stacklevel: int = 1,
    ) -> logging.LogRecord:
        """What `logging.Logger` makes of it; its text is made now where the workflow might change what it speaks of."""
        error: Any = exc_info or None
        if isinstance(exc_info, BaseException):
            error = type(exc_info), exc_info, exc_info.__traceback__
        elif exc_info and not isinstance(exc_info, tuple):
            error = sys.exc_info()
        file, number, function, stack = self.logger.findCaller(stack_info, stacklevel + 2)
        line = self.logger.makeRecord(
            self.logger.name, level, file, number, msg, args, error, function, extra, stack
        )
        if all(type(part) in UNCHANGING for part in (msg, *args)):
            return line
        try:
            line.msg, line.args = line.getMessage(), None
        except Exception:  # noqa: BLE001  # who handles the line says what is wrong with it
            return line
        return line


logger = WorkflowLogger(logging.getLogger("zart.workflow"), {})
"""For workflow code: silent about lines that a replay passes again."""
