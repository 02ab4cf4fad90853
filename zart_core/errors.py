"""Errors, in three families: who must act?

Outcomes go into the log and are raised in the workflow: the author acts, with try/except.
Defects never go into the log; the execution is parked: a developer fixes and deploys, and it goes on (R20).
Weather is retried by the host within limits: nobody acts, then an operator.

Rule 1: an error carries its data; the message says what was recorded, what was found and what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zart_core.events import Err, Failure, Ok, Site


class ZartError(Exception):
    """Base of every error that Zart itself raises, `Cancelled` apart."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Say how pickle and copy make it again: its constructor takes other things than `args`."""
        return made_again, (type(self), self.args), vars(self)


def made_again(cls: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    """An error as it was, its attributes apart."""
    error = cls.__new__(cls, *args)
    error.args = args
    return error


def text_of(error: BaseException) -> str:
    """The error's text, whatever its __str__ does."""
    try:
        return str(error)
    except Exception as trouble:  # noqa: BLE001  # the method of a stranger
        return f"<its __str__ raised {type(trouble).__name__}>"


# ---------------------------------------------------------------- outcomes


class StepError(ZartError):
    """A step ended without a value; `step` is its name."""

    def __init__(self, message: str, *, step: str) -> None:
        super().__init__(message)
        self.step = step


class StepFailed(StepError):
    """The step raised something that it does not declare in `raises=` (R8)."""

    def __init__(self, step: str, error_type: str, message: str, traceback: str = "") -> None:
        super().__init__(f"step '{step}' failed: {error_type}: {message}", step=step)
        self.error_type = error_type
        self.message = message
        self.traceback = traceback


class RetryExhausted(StepError):
    """The step failed at every attempt; `__cause__` is the last error too (R6)."""

    def __init__(self, step: str, attempts: int, last_error: BaseException) -> None:
        super().__init__(
            f"step '{step}' failed at all {attempts} attempts; the last error was "
            f"{type(last_error).__name__}: {text_of(last_error)}",
            step=step,
        )
        self.attempts = attempts
        self.last_error = last_error
        self.__cause__ = last_error


class StepTimedOut(StepError):
    """The step's timeout passed (R7). Never retried, unless the policy says `on_timeout=True`."""

    def __init__(self, step: str, message: str = "") -> None:
        super().__init__(message or f"step '{step}' timed out", step=step)


class StepLost(StepError):
    """It is unknown whether the step did its work: its worker died while it may have been running (R5, R10)."""

    def __init__(self, step: str, message: str = "") -> None:
        super().__init__(message or f"step '{step}' was lost with its worker", step=step)


class EventTimedOut(ZartError):
    """No delivery came before the wait's deadline."""

    def __init__(self, event: str, message: str = "") -> None:
        super().__init__(message or f"no event '{event}' came before the deadline")
        self.event = event


class EventRejected(ZartError):
    """A delivery was taken whose payload does not decode to the declared type; it is consumed."""

    def __init__(self, event: str, message: str) -> None:
        super().__init__(f"the payload of event '{event}' was rejected: {message}")
        self.event = event


class StepsFailed(ExceptionGroup[Exception], ZartError):
    """Some of the things that were waited for failed; `outcomes` has every one, in the order given."""

    outcomes: Sequence[Ok[Any] | Err[BaseException]]

    def __new__(
        cls, message: str, errors: Sequence[Exception], outcomes: Sequence[Ok[Any] | Err[BaseException]] = ()
    ) -> StepsFailed:
        """Build the group; ExceptionGroup takes its arguments in __new__."""
        group = super().__new__(cls, message, errors)
        group.outcomes = tuple(outcomes)
        return group

    def __init__(
        self, message: str, errors: Sequence[Exception], outcomes: Sequence[Ok[Any] | Err[BaseException]] = ()
    ) -> None:
        super().__init__(message, errors)

    def derive(self, excs: Sequence[Exception]) -> StepsFailed:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]  # narrower than the generic
        """Keep the outcomes when `except*` or `split` takes a part."""
        return StepsFailed(self.message, excs, self.outcomes)


class Cancelled(BaseException):
    """Thrown at the point where the workflow waits, once, when somebody cancels (R18)."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason


class DeadlineExceeded(Cancelled):
    """Thrown like a cancellation when the run's deadline passes (R16)."""


# ---------------------------------------------------------------- how an execution ended


class ExecutionError(ZartError):
    """An execution ended without a result; `id` names it, `failure` is the recorded one, `__cause__` its error."""

    def __init__(
        self, id: str, message: str, failure: Failure | None = None, cause: BaseException | None = None
    ) -> None:
        super().__init__(message)
        self.id = id
        self.failure = failure
        self.__cause__ = cause


class ExecutionFailed(ExecutionError):
    """An exception left the workflow (R19)."""


class ExecutionCancelled(ExecutionError):
    """It was cancelled and unwound."""


class ExecutionTerminated(ExecutionError):
    """It was terminated: ended at once, without its code."""


class ExecutionTimedOut(ExecutionError):
    """Its deadline passed (R16)."""


class ExecutionConflict(ExecutionError):
    """The id is taken by another workflow, or by the same one with another input (R15)."""


class UnknownExecution(ExecutionError):
    """No execution has this id."""


class ExecutionClosed(ExecutionError):
    """The execution has ended and takes nothing any more (R14)."""


# ---------------------------------------------------------------- defects


class Defect(ZartError):
    """Code and log disagree, or the code is wrong. Never written into the log; the execution is parked (R20)."""


class Diverged(Defect):
    """The workflow asked for something else than its log holds (R21)."""

    def __init__(
        self,
        message: str,
        *,
        position: int,
        recorded: str,
        yielded: str,
        recorded_site: Site | None = None,
        yielded_site: Site | None = None,
        remedy: str = "",
        nearest: str = "",
        field: str = "",
    ) -> None:
        super().__init__(message)
        self.position = position
        self.recorded = recorded
        self.yielded = yielded
        self.recorded_site = recorded_site
        self.yielded_site = yielded_site
        self.remedy = remedy
        self.nearest = nearest
        """The smallest change after which code and log fit again, where one was found."""
        self.field = field
        """Where a recorded payload no longer decodes, as a path into it; empty where commands disagree."""

    def reworded(self, message: str, *, remedy: str, nearest: str = "") -> Diverged:
        """Tell the same disagreement in other words."""
        return Diverged(
            message,
            position=self.position,
            recorded=self.recorded,
            yielded=self.yielded,
            recorded_site=self.recorded_site,
            yielded_site=self.yielded_site,
            remedy=remedy,
            nearest=nearest,
            field=self.field,
        )


class LogCorrupt(Defect):
    """What is stored does not verify (L12)."""

    def __init__(
        self,
        message: str,
        *,
        where: str = "",
        expected: str = "",
        found: str = "",
        path: str = "",
        offset: int | None = None,
    ) -> None:
        super().__init__(message)
        self.where = where
        self.expected = expected
        self.found = found
        self.path = path
        """The damaged file, of a store that knows it."""
        self.offset = offset
        """Where in that file, in bytes, of a store that knows it (F9)."""


class FormatTooNew(LogCorrupt):
    """The store or a record was written by a newer version (F26)."""


class DuplicateName(Defect):
    """A name was used twice in a run (R3)."""


class NotACommand(Defect):
    """The workflow yielded something that is not a command (R12)."""


class Unencodable(Defect):
    """An argument of a command, or the workflow's result, cannot be written down."""


class Parked(Defect):
    """The workflow asked to be parked for this error, by `park_on=` (R19)."""


class UnknownWorkflow(Defect):
    """No workflow of this name is registered."""


# ---------------------------------------------------------------- weather


class Weather(ZartError):
    """Something outside went wrong for a while; nothing is lost."""


class Conflict(Weather):
    """Somebody else wrote to the execution first."""


class StoreUnavailable(Weather):
    """The store cannot be reached, or is full, at the moment."""


class StoreLocked(Weather):
    """Another process has the store open (F11)."""


class StoreFailed(Weather):
    """The store can no longer be used by this process: close it and open it again (F5)."""


# ---------------------------------------------------------------- at the edge


class InvalidUse(ZartError, ValueError):
    """An argument or a definition is wrong; nothing happened."""


class UnknownStore(InvalidUse):
    """No installed package offers a store for this URL."""


class EncodeError(InvalidUse):
    """A value cannot be encoded; `path` names the offending field."""

    def __init__(self, message: str, *, path: str = "") -> None:
        super().__init__(message)
        self.path = path


class DecodeError(InvalidUse):
    """Bytes do not decode to the declared type; `path` names the offending field."""

    def __init__(self, message: str, *, path: str = "") -> None:
        super().__init__(message)
        self.path = path
