"""Exit codes, and an error as one line.

Rule 1: each family of errors has a code of its own, because each has somebody else who must act.
"""

from __future__ import annotations

from collections.abc import Callable

from zart_core.errors import (
    Defect,
    ExecutionClosed,
    ExecutionConflict,
    FormatTooNew,
    InvalidUse,
    LogCorrupt,
    UnknownExecution,
    Weather,
    ZartError,
)

OK = 0
FAILED = 1
"""The execution ended without a result: failed, cancelled, timed out or terminated."""
USAGE = 2
"""The command was not understood: an option, a module, an input, a URL."""
UNKNOWN = 3
"""No execution has this id."""
STORE = 4
"""The store is missing, locked, full, unreachable or damaged."""
PARKED = 5
"""The execution is parked: code and log disagree, or the code is wrong."""
CONFLICT = 6
"""The id is taken by something else, or the execution has ended and takes no messages."""
INTERNAL = 70
"""Something that should not happen; ZART_TRACEBACK=1 shows where."""
INTERRUPTED = 130
"""Ctrl-C; nothing is lost. 143 in the same way for SIGTERM."""
TERMINATED = 143
OUTPUT_GONE = 141
"""Whoever read the output has gone."""

EXIT_CODES = (
    "Exit codes: 0 it went well; 1 the execution failed, or was cancelled, terminated or timed out; "
    "2 wrong usage; 3 no such execution; 4 the store is missing, locked, unreachable or damaged; "
    "5 the execution is parked: code and log disagree; 6 the id is taken, or the execution has ended; "
    "70 a bug; 130 Ctrl-C and 143 SIGTERM (nothing is lost)."
)


class Ended(Exception):
    """The command is over, with this exit code and perhaps one last line on stderr."""

    def __init__(self, code: int, line: str = "") -> None:
        super().__init__(line)
        self.code = code
        self.line = line


class OutputGone(Exception):
    """What is printed goes nowhere any more; the text says why, and is empty where it is only that nobody reads it."""


def reason_of(error: OSError) -> str:
    """Say why something cannot be printed; empty where only the reader has gone."""
    return "" if isinstance(error, BrokenPipeError) else error.strerror or str(error)


class StoreMissing(Weather):
    """There is nothing where the store should be."""


def usage_of(error: Exception) -> str:
    """Say what typer has to say about a command line; empty when the error is not typer's."""
    message: Callable[[], str] | None = getattr(error, "format_message", None)
    return "" if message is None else message().rstrip(".")


def command_of(error: Exception) -> str:
    """Give the command that typer speaks of, as it is typed."""
    path: str | None = getattr(getattr(error, "ctx", None), "command_path", None)
    return path or "zart"


def code_of(error: Exception) -> int:
    """Give the exit code of an error."""
    match error:
        case UnknownExecution():
            return UNKNOWN
        case ExecutionConflict() | ExecutionClosed():
            return CONFLICT
        case Weather() | LogCorrupt():
            return STORE
        case Defect():
            return PARKED
        case InvalidUse():
            return USAGE
        case ZartError():
            return FAILED
        case _:
            return USAGE if usage_of(error) else INTERNAL


def words_of(error: Exception) -> str:
    """Say what went wrong and what to do."""
    match error:
        case FormatTooNew():
            return f"{error}; use a version of zart that is as new as what wrote it, and leave it as it is"
        case LogCorrupt() if "from a copy" in str(error):  # the store says what to do
            return str(error)
        case LogCorrupt():
            return f"{error}; keep the store as it is and restore a copy"
        case Defect():
            return f"{type(error).__name__}: {error}"
        case ZartError():
            return str(error)
        case _ if usage := usage_of(error):
            return f"{usage}; {command_of(error)} --help says more"
        case _:
            text = f"{type(error).__name__}: {error}"
            return f"internal error, {text}; ZART_TRACEBACK=1 shows where, please report it"
