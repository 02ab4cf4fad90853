"""Exceptions as data, and back (R8).

Rule 1: an error that is declared or registered comes back as its own type with its fields, and its constructor is
        not called; any other becomes `StepFailed`.
Rule 2: to describe an error never fails, whatever the error's own methods do.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from zart_core import errors
from zart_core.errors import InvalidUse
from zart_core.events import Failure, Status
from zart_core.forms import Unfit, full_name
from zart_core.log import PAYLOAD_BYTES_MAX
from zart_core.shapes import Shapes, hints_of

TEXT_CHARS_MAX = 8192
"""How much of a message, and of a traceback, is kept."""

Classes = Sequence[type[Exception]]

ENDINGS: dict[str, type[errors.ExecutionError]] = {
    Status.FAILED.value: errors.ExecutionFailed,
    Status.CANCELLED.value: errors.ExecutionCancelled,
    Status.TERMINATED.value: errors.ExecutionTerminated,
    Status.TIMED_OUT.value: errors.ExecutionTimedOut,
}


# ---------------------------------------------------------------- an error as a failure


def failure_of(error: BaseException, declared: Classes, shapes: Shapes) -> Failure:
    """Describe an error. One that Zart raised itself becomes the kind that `error_of` makes it from."""
    name, message = full_name(type(error)), message_of(error)
    match error:
        case _ if isinstance(error, tuple(declared)):
            fields = fields_text(error, shapes)
            kind = "error" if fields is None else "answer"
            return Failure(kind, name, message, traceback_text(error), fields)
        case errors.DeadlineExceeded():
            return Failure("deadline", name, clean(error.reason))
        case errors.Cancelled():
            return Failure("cancelled", name, clean(error.reason))
        case errors.EncodeError():
            return Failure("unencodable", name, message)
        case errors.StepFailed():
            where = _where(error.step)
            return Failure(
                "error", clean(error.error_type), clean(error.message), clean(error.traceback), where
            )
        case errors.RetryExhausted():
            cause = failure_of(error.last_error, declared, shapes)
            return Failure("exhausted", name, message, "", _where(error.step), error.attempts, cause)
        case errors.StepTimedOut():
            return Failure("timed_out", name, message, "", _where(error.step))
        case errors.StepLost():
            return Failure("lost", name, message, "", _where(error.step))
        case errors.EventTimedOut():
            return Failure("event_timed_out", name, message, "", _where(error.event))
        case errors.ExecutionConflict():
            return Failure("conflict", name, message, "", _where(error.id))
        case errors.ExecutionError():
            for status, ending in ENDINGS.items():
                if type(error) is ending:
                    return Failure("child", status, message, "", _where(error.id), cause=error.failure)
        case _:
            pass
    return Failure("error", name, message, traceback_text(error))


def message_of(error: BaseException) -> str:
    """The error's text, whatever its __str__ does."""
    try:
        return clean(str(error))
    except Exception as trouble:  # noqa: BLE001  # the method of a stranger
        return f"<its __str__ raised {type(trouble).__name__}>"


def traceback_text(error: BaseException) -> str:
    """The end of the formatted traceback, without locals."""
    try:
        return clean("".join(traceback.format_exception(error)), keep_end=True)
    except Exception as trouble:  # noqa: BLE001  # the method of a stranger
        return f"<it cannot be formatted: {type(trouble).__name__}>"


def clean(text: str, *, keep_end: bool = False) -> str:
    """Text that any log can hold: no lone surrogates, and not too long."""
    if len(text) > TEXT_CHARS_MAX:
        text = "..." + text[-TEXT_CHARS_MAX:] if keep_end else text[:TEXT_CHARS_MAX] + "..."
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def fields_text(error: BaseException, shapes: Shapes) -> str | None:
    """The arguments and attributes of an error as JSON; None when something in them cannot be encoded.

    An argument that is also an attribute is written once, by the attribute's type.
    """
    try:
        attributes = dict(_attributes(error))
        hints = hints_of(type(error))
        names = {id(value): name for name, value in attributes.items()}
        args = [_argument(arg, names, shapes) for arg in _args(error)]
        fields = {name: shapes.of(hints.get(name, Any)).write(value) for name, value in attributes.items()}
        text = msgspec.json.encode({"args": args, "fields": fields})
    except (Unfit, InvalidUse, ValueError, TypeError, RecursionError):
        return None
    return text.decode() if len(text) <= PAYLOAD_BYTES_MAX else None


def _attributes(error: BaseException) -> Iterator[tuple[str, Any]]:
    yield from vars(error).items()
    for cls in type(error).__mro__:
        if cls.__module__ != "builtins":
            slots = cls.__dict__.get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else slots:
                if not name.startswith("__") and hasattr(error, name):
                    yield name, getattr(error, name)


def _args(error: BaseException) -> tuple[Any, ...]:
    if isinstance(error, OSError):  # its file name is in no other place
        reduced = OSError.__reduce__(error)
        return tuple(reduced[1]) if isinstance(reduced, tuple) else error.args
    return error.args


def _argument(arg: Any, names: dict[int, str], shapes: Shapes) -> list[Any]:
    name = names.get(id(arg))
    return ["value", shapes.of(Any).write(arg)] if name is None else ["field", name]


def _where(name: str) -> str:
    return msgspec.json.encode({"of": clean(name)}).decode()


# ---------------------------------------------------------------- a failure as an error


def error_of(failure: Failure, declared: Classes, shapes: Shapes, step: str) -> BaseException:
    """The exception that a failure stands for. Never raises because of what the failure says."""
    step = _of(failure) or step
    match failure.kind:
        case "answer":
            return restored(failure, declared, shapes) or _step_failed(failure, step)
        case "exhausted":
            last = failure.cause or Failure("error", "Exception", failure.message)
            return errors.RetryExhausted(step, failure.attempts, error_of(last, declared, shapes, step))
        case "timed_out":
            return errors.StepTimedOut(step, failure.message)
        case "lost":
            return errors.StepLost(step, failure.message)
        case "event_timed_out":
            return errors.EventTimedOut(step, failure.message)
        case "cancelled":
            return errors.Cancelled(failure.message)
        case "deadline":
            return errors.DeadlineExceeded(failure.message)
        case "conflict":
            return errors.ExecutionConflict(step, failure.message, failure)
        case "child":
            cause = failure.cause and error_of(failure.cause, declared, shapes, step)
            ending = ENDINGS.get(failure.type, errors.ExecutionFailed)
            return ending(step, failure.message, failure.cause, cause)
        case _:
            return _step_failed(failure, step)


def _step_failed(failure: Failure, step: str) -> errors.StepFailed:
    return errors.StepFailed(step, failure.type, failure.message, failure.traceback)


def _of(failure: Failure) -> str:
    """The step, event or execution that the failure itself names."""
    if failure.kind == "answer" or failure.fields is None:
        return ""
    try:
        return msgspec.json.decode(failure.fields, type=dict[str, str]).get("of", "")
    except (msgspec.DecodeError, RecursionError, ValueError):
        return ""


def restored(failure: Failure, declared: Classes, shapes: Shapes) -> Exception | None:
    """The error as its own type; None when the type is not declared any more, or its fields do not fit it."""
    cls = class_of(failure.type, declared)
    if cls is None or failure.fields is None:
        return None
    try:
        hints = hints_of(cls)
        data = msgspec.json.decode(failure.fields, type=dict[str, Any])
        fields = {name: shapes.of(hints.get(name, Any)).read(value) for name, value in data["fields"].items()}
        args = [fields[arg] if how == "field" else shapes.of(Any).read(arg) for how, arg in data["args"]]
        error = cls.__new__(cls, *args)
        builtin = next(base for base in cls.__mro__ if base.__module__ == "builtins")
        builtin.__init__(error, *args)
        for name, value in fields.items():
            object.__setattr__(error, name, value)
    except Exception:  # noqa: BLE001  # a log may say anything
        return None
    return error


def class_of(name: str, declared: Classes) -> type[Exception] | None:
    """The class of this name among the declared ones and their subclasses; nothing is imported."""
    seen: set[type] = set()
    queue = list(declared)
    while queue:
        cls = queue.pop(0)
        if full_name(cls) == name:
            return cls
        if cls not in seen:
            seen.add(cls)
            queue.extend(cls.__subclasses__())
    return None
