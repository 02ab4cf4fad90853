"""Exceptions as data, and back (R8).

Rule 1: an error that is declared or registered comes back as its own type with its fields, without a call of
        its constructor; any other becomes `StepFailed`.
Rule 2: to describe an error never fails, whatever the error's own methods do.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import msgspec

from zart_core import errors
from zart_core.events import Failure, FailureKind, Status
from zart_core.log import PAYLOAD_BYTES_MAX
from zart_core.values.fields import hints_of
from zart_core.values.forms import full_name
from zart_core.values.shapes import Shapes

TEXT_CHARS_MAX = 8192
"""How much of a message, and of a traceback, is kept."""
FIELDS_BYTES_MAX = PAYLOAD_BYTES_MAX - (128 << 10)
"""How large an error's fields may be as text in a record: message and traceback stand beside them."""
NOT_KEPT = (
    "This error is declared in raises=, but its record lacks what it held: it was not declared then, or what it "
    "held could not be written down; annotate its attributes with their types, or keep plain values in it."
)

Classes = Sequence[type[Exception]]

ENDINGS: dict[str, type[errors.ExecutionError]] = {
    Status.FAILED.value: errors.ExecutionFailed,
    Status.CANCELLED.value: errors.ExecutionCancelled,
    Status.TERMINATED.value: errors.ExecutionTerminated,
    Status.TIMED_OUT.value: errors.ExecutionTimedOut,
}
REJECTED = full_name(errors.EventRejected)
STATUSES: dict[type[BaseException], str] = {ending: status for status, ending in ENDINGS.items()}


class Fields(msgspec.Struct):
    """What an `answer` keeps of its error; an argument is ["field", name] or ["value", its JSON]."""

    args: list[tuple[Literal["field", "value"], Any]]
    fields: dict[str, Any]


# ---------------------------------------------------------------- an error as a failure


def failure_of(error: BaseException, declared: Classes, shapes: Shapes) -> Failure:
    """Describe an error. One that Zart raised becomes what `error_of` makes the same error from."""
    name, message = clean(full_name(type(error))), message_of(error)
    if isinstance(error, tuple(declared)):
        fields = fields_text(error, shapes)
        answer: FailureKind = "error" if fields is None else "answer"
        return Failure(answer, name, message, traceback_text(error), fields)
    try:
        own = failure_of_own(error, name, message, declared, shapes)
    except Exception:  # noqa: BLE001  # somebody has made one of Zart's own of what it does not take
        own = None
    if own is not None:
        return own
    kind: FailureKind = "unencodable" if isinstance(error, errors.EncodeError) else "error"
    return Failure(kind, name, message, traceback_text(error))


def failure_of_own(
    error: BaseException, name: str, message: str, declared: Classes, shapes: Shapes
) -> Failure | None:
    """Describe an error of Zart's; None for any other. Raises anything when it was made of something else."""
    match error:
        case errors.Cancelled():
            kind: FailureKind = "deadline" if isinstance(error, errors.DeadlineExceeded) else "cancelled"
            return Failure(kind, name, clean(error.reason))
        case errors.StepFailed():
            trace, where = clean(error.traceback, keep_end=True), _where(error.step)
            return Failure("error", clean(error.error_type), clean(error.message), trace, where)
        case errors.RetryExhausted():
            cause = failure_of(error.last_error, declared, shapes)
            return Failure("exhausted", name, message, "", _where(error.step), int(error.attempts), cause)
        case errors.StepTimedOut():
            return Failure("timed_out", name, message, "", _where(error.step))
        case errors.StepLost():
            return Failure("lost", name, message, "", _where(error.step))
        case errors.EventTimedOut():
            return Failure("event_timed_out", name, message, "", _where(error.event))
        case errors.EventRejected() if name == REJECTED:  # earlier versions read it as any other error
            return Failure("error", name, message, traceback_text(error), _where(error.event))
        case errors.ExecutionConflict():
            return Failure("conflict", name, message, "", _where(error.id))
        case errors.ExecutionError() if type(error) in STATUSES:
            known = error.failure if isinstance(error.failure, Failure) else None
            return Failure("child", STATUSES[type(error)], message, "", _where(error.id), cause=known)
        case _:
            return None


def message_of(error: BaseException) -> str:
    """The error's text, as any log can hold it."""
    return clean(errors.text_of(error))


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
    """The arguments and attributes of an error as JSON; None when something in them cannot be encoded, or is too large.

    An argument that is also an attribute is written once, by the attribute's type.
    """
    try:
        attributes = dict(_attributes(error))
        hints = hints_of(type(error))
        names = {id(value): name for name, value in attributes.items()}
        args = [_argument(arg, names, shapes) for arg in _args(error)]
        fields = {name: shapes.of(hints.get(name, Any)).write(value) for name, value in attributes.items()}
        text = msgspec.json.encode(Fields(args, fields)).decode()
        size = len(msgspec.json.encode(text))  # its quotes are escaped in a record
    except Exception:  # noqa: BLE001  # an error may hold anything
        return None
    return text if size <= FIELDS_BYTES_MAX else None


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


def _argument(arg: Any, names: dict[int, str], shapes: Shapes) -> tuple[Literal["field", "value"], Any]:
    name = names.get(id(arg))
    return ("value", shapes.of(Any).write(arg)) if name is None else ("field", name)


def _where(name: str) -> str:
    return msgspec.json.encode({"of": clean(name)}).decode()


# ---------------------------------------------------------------- a failure as an error


def error_of(failure: Failure, declared: Classes, shapes: Shapes, step: str) -> BaseException:
    """The exception that a failure stands for. Never raises because of what the failure says."""
    of, message = _of(failure) or step, failure.message
    cause = error_of(failure.cause, declared, shapes, of) if failure.cause else None
    match failure.kind:
        case "answer":
            return restored(failure, declared, shapes) or _step_failed(failure, of)
        case "error" if failure.type == REJECTED and (rejection := _rejection(failure)) is not None:
            return rejection
        case "error" | "unencodable":
            failed = _step_failed(failure, of)
            if class_of(failure.type, declared) is not None:
                failed.add_note(NOT_KEPT)
            return failed
        case "exhausted":
            return errors.RetryExhausted(of, failure.attempts, cause or _step_failed(failure, of))
        case "timed_out":
            return errors.StepTimedOut(of, message)
        case "lost":
            return errors.StepLost(of, message)
        case "event_timed_out":
            return errors.EventTimedOut(of, message)
        case "child":
            return _ended(failure, of, cause)
        case "conflict":
            return errors.ExecutionConflict(of, message, failure)
        case "cancelled":
            return errors.Cancelled(message)
        case _:
            return errors.DeadlineExceeded(message)


def _ended(failure: Failure, id: str, cause: BaseException | None) -> errors.ExecutionError:
    """How an execution ended. What its own code raised is told without the word step; hosts repeat the cause's text."""
    if failure.cause is not None and isinstance(cause, errors.StepFailed) and not _of(failure.cause):
        cause.args = (f"{failure.cause.type}: {failure.cause.message}",)
    text = "" if cause is None else errors.text_of(cause)
    why = f": {text}" if text else ""
    own = failure.message if failure.cause is None or failure.message != failure.cause.message else ""
    message = own or f"execution '{id}' ended as {failure.type}{why}"
    return ENDINGS.get(failure.type, errors.ExecutionFailed)(id, message, failure.cause, cause)


def _rejection(failure: Failure) -> errors.EventRejected | None:
    """An EventRejected as it was; None where the record does not name its event."""
    event, message = _of(failure), failure.message
    start = str(errors.EventRejected(event, ""))
    return errors.EventRejected(event, message[len(start) :]) if message.startswith(start) else None


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
    """The error as its own type; None when that is not declared any more, or the fields do not fit it.

    No code of the class runs: the built-in exception that it descends from makes the object.
    """
    cls = class_of(failure.type, declared)
    if cls is None or failure.fields is None:
        return None
    builtin: Any = next(base for base in cls.__mro__ if base.__module__ == "builtins")
    try:
        hints = hints_of(cls)
        data = msgspec.json.decode(failure.fields, type=Fields)
        fields = {name: shapes.of(hints.get(name, Any)).read(item) for name, item in data.fields.items()}
        args = [fields[arg] if how == "field" else shapes.of(Any).read(arg) for how, arg in data.args]
        error: Exception = builtin.__new__(cls, *args)
        builtin.__init__(error, *args)
        for name, item in fields.items():
            if name == "__notes__" or not name.startswith("__"):
                object.__setattr__(error, name, item)
    except Exception:  # noqa: BLE001  # a log may say anything
        return None
    return error


def class_of(name: str, declared: Classes) -> type[Exception] | None:
    """The class of this name among the declared ones and their subclasses; nothing is imported.

    A declared class that has moved to another module is found by its qualified name, if only one has it.
    """
    seen: set[type[Exception]] = set()
    queue = list(declared)
    for cls in queue:
        if full_name(cls) == name:
            return cls
        if cls not in seen:
            seen.add(cls)
            queue.extend(cls.__subclasses__())
    moved = {cls for cls in declared if f".{name}".endswith(f".{cls.__qualname__}")}
    return moved.pop() if len(moved) == 1 else None
