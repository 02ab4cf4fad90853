"""`zart run` and `zart start`: begin an execution, or attach to it, and see it through.

Rule 1: without an input an execution that exists is attached to by its id alone, so that it can be resumed.
Rule 2: Ctrl-C and SIGTERM hand over what runs and end within a second; nothing is lost.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import shlex
import signal
import sys
import time
from collections.abc import Generator, Sequence
from typing import Any

from zart_core import log as stored
from zart_core.cli.exits import CONFLICT, FAILED, INTERRUPTED, OK, TERMINATED, Ended
from zart_core.cli.finding import find, listed, load
from zart_core.cli.progress import Note, Progress, words_about
from zart_core.cli.reading import opened
from zart_core.cli.show import said_url
from zart_core.cli.texts import as_json, at, jsonable, payload, plain, say
from zart_core.cli.view import View, counted, stream_for, view_on
from zart_core.commands import checked_name
from zart_core.deploys.checking import judged
from zart_core.errors import InvalidUse
from zart_core.events import Closed, Status
from zart_core.hosts import face
from zart_core.hosts.explain import words_of
from zart_core.hosts.inline import Inline
from zart_core.hosts.ports import ON_DISK, new_id
from zart_core.insight.explaining import command
from zart_core.interpreter import CODEC
from zart_core.queues import Queue
from zart_core.workflows import Registry, Workflow

WAITS_MAX = 3
"""How many things that it waits for are named when an execution is attached to."""
LOOK_S = 0.1
"""Time between two looks at the log."""


def run(target: str, text: str | None, url: str, id: str | None, concurrency: int, json: bool) -> int:
    """Run an execution to its end, or attach to it and resume it; gives the exit code."""
    workflow, registry = find(target)
    name = named(id)
    with opened(url, new=True) as log, reporting(name):
        known = not create(log, workflow, text, name)
        view, progress = view_on(stream_for(json)), Progress(log, name)
        stood = [*attached(progress), *misfit(log, name, registry, target, url)] if known else []
        fence = fence_of(log, name)
        with face.open(log, registry, max_concurrent_steps=concurrency) as engine, signals() as received:
            if fence_of(log, name) != fence:
                progress.take_over()
            closed = watch(engine, progress, stood, view, received)
        if closed is None:
            code = TERMINATED if received == [signal.SIGTERM] else INTERRUPTED
            raise Ended(code, f"interrupted, and nothing is lost; go on with: {again(target, url, name)}")
        return report(name, closed, url, json)


def work(modules: Sequence[str], url: str, concurrency: int, lease: str, queues: Sequence[Queue]) -> int:
    """Serve a store's executions of these modules' workflows until a signal comes."""
    registry = Registry(*(load(module) for module in modules))
    if not list(registry):
        raise InvalidUse(
            f"{', '.join(modules)}: no workflow there; give the modules that define or import some. "
            "Steps are found by the workflows that name them"
        )
    with (
        opened(url, new=True) as log,
        signals() as received,
        face.open(log, registry, max_concurrent_steps=concurrency, lease=lease, queues=queues) as engine,
    ):
        sharing = engine.engine.sharing
        steps = sorted({step.id for step in sharing.steps.values() if step.policy.queue in sharing.queues})
        what = listed(registry) if sharing.holds_executions else "no executions"
        own = f", and of queues {', '.join(sorted(sharing.queues))}: {', '.join(steps)}" if steps else ""
        say(f"worker {plain(engine.engine.worker)} serves {what}{plain(own)}")
        while not received:
            time.sleep(LOOK_S)
            if (failed := engine.engine.writer.failed) is not None:
                raise failed
    return OK


def fence_of(log: stored.EventLog, id: str) -> int:
    """Give the fence of an execution: it grows when another worker takes it."""
    summary = log.summary(id)
    return 0 if summary is None else summary.fence


def again(target: str, url: str, id: str) -> str:
    """Give the command that resumes an execution; a URL that may hold a password is left out."""
    store = ["--store", url] if url.partition(":")[0] in ON_DISK else []
    return shlex.join(["zart", "run", target, *store, "--id", id])


def start(target: str, text: str | None, url: str, id: str | None, json: bool) -> int:
    """Record an execution durably, without running it."""
    workflow, _ = find(target)
    name = named(id)
    with opened(url, new=True) as log:
        created = create(log, workflow, text, name)
    say(as_json({"id": name, "created": created}) if json else name)
    return OK


def named(id: str | None) -> str:
    """Give the id that was given, or a new one. Raises InvalidUse, for an empty one too: a variable that is not set."""
    return new_id(time.time()) if id is None else checked_name(id, "id")


def create(log: stored.EventLog, workflow: Workflow[Any, Any], text: str | None, id: str) -> bool:
    """Create it, or find that it is there. Raises InvalidUse, ExecutionConflict, StoreUnavailable."""
    summary = log.summary(id) if text is None else None
    if text is None and summary is None and workflow.takes_input:
        raise InvalidUse(
            f"workflow '{workflow.name}' needs an input; give it as JSON, or - to read it from stdin"
        )
    if summary is not None:
        if summary.workflow != workflow.name:
            raise Ended(
                CONFLICT, f"the id '{id}' belongs to workflow '{summary.workflow}', not '{workflow.name}'"
            )
        return False
    return Inline(log, Registry()).start(workflow, input_of(workflow, text), id)


def input_of(workflow: Workflow[Any, Any], text: str | None) -> Any:
    """Decode the input as the workflow declares it. Raises InvalidUse, which shows no value."""
    given = read_text(text)
    if given is None:
        return None
    if not workflow.takes_input:
        raise InvalidUse(f"workflow '{workflow.name}' takes no input")
    return CODEC.decode(given.encode(errors="surrogateescape"), workflow.input_type, "input")


def read_text(text: str | None) -> str | None:
    """Give an argument; `-` reads stdin, so that a secret need not stand on the command line. Raises InvalidUse."""
    if text != "-":
        return text
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise InvalidUse(
            f"stdin is no {error.encoding} text, from byte {error.start} on; give JSON"
        ) from None


# ---------------------------------------------------------------- watching


def watch(
    engine: face.Engine, progress: Progress, stood: list[Note], view: View, received: list[int]
) -> Closed | None:
    """Show an execution until it has ended, or a signal came (None). Raises the defect that parks it."""
    ended = asyncio.run_coroutine_threadsafe(engine.engine.results.closed(progress.id), engine.loop)
    with view:
        view.show(progress, [*stood, *progress.read()])
        while not received and not ended.done():
            concurrent.futures.wait([ended], timeout=LOOK_S)
            view.show(progress, progress.read())
        view.show(progress, progress.read(), last=True)
    if not ended.done():
        ended.cancel()
        return None
    return ended.result()


def attached(progress: Progress) -> list[Note]:
    """Say where an execution stands that was there before."""
    progress.read()
    now = time.time()
    if progress.closed is not None:
        return [Note(progress.closed.at, f"it had ended before: {progress.closed.status}")]
    waits = [words for line in progress.waiting(now)[:WAITS_MAX] if (words := words_about(line))]
    return [Note(now, "; ".join([f"attached to run {progress.run}: {counted(progress)}", *waits]))]


def misfit(log: stored.EventLog, id: str, registry: Registry, target: str, url: str) -> list[Note]:
    """Say that the code at hand does not fit: an execution that waits is read back only when it goes on."""
    summary = log.summary(id)
    if summary is None or summary.status.closed:
        return []
    with contextlib.redirect_stdout(sys.stderr):  # what the workflow's own code prints
        verdict = judged(log, summary, registry, False, CODEC)
    if verdict is None or verdict.fits:
        return []
    check = command("check", target.rpartition(":")[0] or target, said_url(url))
    why = verdict.message.splitlines()[0]
    return [Note(time.time(), f"the code at hand does not fit, and would park it: {why}; {check} says more")]


@contextlib.contextmanager
def signals() -> Generator[list[int]]:
    """Collect SIGINT and SIGTERM while this is open; a second one interrupts at once."""
    received: list[int] = []

    def receive(number: int, frame: object) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    old = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def reporting(id: str) -> Generator[None]:
    """Keep the engine from saying what this command says: that this execution is parked, and what it left behind."""

    def mark(record: logging.LogRecord) -> bool:
        args = record.args if isinstance(record.args, tuple) else ()
        said = str(record.msg).startswith(("execution '%s' is parked", "execution '%s': "))
        record.told = said and args[:1] == (id,)
        return True

    loggers = [logging.getLogger("zart.engine"), logging.getLogger("zart.workflow")]
    for logger in loggers:
        logger.addFilter(mark)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(mark)


# ---------------------------------------------------------------- the end


def report(id: str, closed: Closed, url: str, json: bool) -> int:
    """Print the result as the last line, as JSON; how it ended otherwise goes to stderr."""
    completed = closed.status is Status.COMPLETED
    if json:
        ending = {"id": id, "status": str(closed.status), "ended_at": at(closed.at)}
        how = {"result": payload(closed.payload)} if completed else {"failure": jsonable(closed.failure)}
        say(as_json({**ending, **how}))
    elif completed:
        say(as_json(payload(closed.payload)))
    if completed:
        return OK
    why = f": {words_of(closed.failure)}" if closed.failure is not None else ""
    look = command("explain", id, said_url(url))
    raise Ended(FAILED, f"execution '{id}' is {closed.status}{why}; {look} says more")
