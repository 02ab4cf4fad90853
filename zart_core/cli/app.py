"""Where the `zart` command begins, and where every error ends: as one line on stderr and an exit code.

Rule 1: nothing here needs typer or rich, so that their absence can be told.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Callable, Sequence

from zart_core.cli.exits import (
    INTERRUPTED,
    OUTPUT_GONE,
    USAGE,
    Ended,
    OutputGone,
    code_of,
    reason_of,
    words_of,
)
from zart_core.cli.texts import one_line

MISSING = 'the command line needs typer and rich: pip install "zart[cli]"'


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and give its exit code; `arguments` are those of the process by default."""
    logger = logging.getLogger("zart")
    if not any(isinstance(handler, OneLine) for handler in logger.handlers):
        logger.addHandler(OneLine())
    reconfigure: Callable[..., None] | None = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:  # a terminal or a pipe may not have all characters
        reconfigure(errors="backslashreplace")
    try:
        code = run(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except OutputGone as gone:
        why = str(gone)
    except OSError as error:  # of the last that was to be printed
        why = reason_of(error)
    else:
        return code
    silence_stdout()
    return fail(f"the output cannot be written: {why}", USAGE) if why else OUTPUT_GONE


def run(arguments: Sequence[str]) -> int:
    """Run one command; whatever goes wrong has been said when this returns."""
    try:
        commands = importlib.import_module("zart_core.cli.commands")
    except ModuleNotFoundError as missing:
        if (missing.name or "").split(".")[0] not in ("typer", "rich"):
            raise
        return fail(MISSING, USAGE)
    try:
        return int(commands.invoke(list(arguments)) or 0)
    except Ended as ended:
        return fail(ended.line, ended.code) if ended.line else ended.code
    except (OutputGone, BrokenPipeError):
        raise
    except KeyboardInterrupt:
        return fail("interrupted", INTERRUPTED)
    except Exception as error:
        if os.environ.get("ZART_TRACEBACK"):
            raise
        return fail(words_of(error), code_of(error))


def fail(line: str, code: int) -> int:
    """Say why, in one line, and give the exit code."""
    print(f"zart: {one_line(line)}", file=sys.stderr, flush=True)  # noqa: T201  # this is a command
    return code


def silence_stdout() -> None:
    """Let nothing complain when the process ends, about a reader that has gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class OneLine(logging.Handler):
    """What the engine logs, as escaped lines on stderr, from warnings up."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        """Print one line; what the command says itself at its end is not said twice."""
        if not getattr(record, "told", False):
            print(f"zart: {one_line(record.getMessage())}", file=sys.stderr, flush=True)  # noqa: T201
