"""What commands do beside a running process: read the log, and post to it. They take no execution up.

Rule 1: nothing here claims, holds or runs anything; one read or one append, and the store is closed again.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

from zart_core import log as stored
from zart_core.cli.exits import StoreMissing
from zart_core.commands import checked_name
from zart_core.deploys.histories import read_history
from zart_core.errors import ExecutionClosed, InvalidUse, StoreUnavailable, UnknownExecution
from zart_core.events import Event, Ok
from zart_core.hosts.ports import missing, open_log
from zart_core.hosts.relatives import request_key
from zart_core.hosts.requests import own_key
from zart_core.interpreter import CODEC

TRIES_MAX = 8


@contextlib.contextmanager
def opened(url: str, *, new: bool = False) -> Generator[stored.EventLog]:
    """Open a store for one command; only `new` may make one where there is none.

    Raises UnknownStore, StoreMissing, StoreLocked, LogCorrupt, StoreUnavailable.
    """
    if not url:
        raise InvalidUse("no store is given; add --store URL, such as sqlite:orders.db, or set ZART_STORE")
    if not new and (path := missing(url)):
        raise StoreMissing(
            f"there is no store at '{path}'; check --store, or make one with zart run or zart start"
        )
    with contextlib.closing(open_log(url)) as log:
        yield log


def summary_of(log: stored.EventLog, id: str) -> stored.Summary:
    """Give an execution as a list shows it. Raises UnknownExecution."""
    summary = log.summary(id)
    if summary is None:
        raise UnknownExecution(id, f"no execution has the id '{id}'; zart list shows those there are")
    return summary


def run_of(summary: stored.Summary, run: int | None) -> int:
    """Give the number of a run, the current one by default. Raises InvalidUse for one that there is not."""
    return run_number(summary.id, summary.run, run)


def run_number(id: str, last: int, run: int | None) -> int:
    """Give the number of a run, the last one by default. Raises InvalidUse for one that there is not."""
    number = last if run is None else run
    if not 0 <= number <= last:
        raise InvalidUse(f"execution '{id}' has the runs 0 to {last}, not {number}")
    return number


def events_of(log: stored.EventLog, id: str, run: int, start: int = 0) -> list[Event]:
    """Give the events of a run from a position on, without its code."""
    return CODEC.decode_events(log.records(id, run, start), id, run, start)


def recorded(id: str, url: str, run: int | None) -> tuple[str, list[Event]]:
    """Give the id and the events of a run in a store, or in a file that `zart export` wrote; a file comes first.

    Raises UnknownExecution, and InvalidUse for a run that there is not and a file that is no history.
    """
    if is_history_file(id):
        history = read_history(Path(id))
        number = run_number(history.id, len(history.runs) - 1, run)
        return history.id, list(history.runs[number])
    with opened(url) as log:
        summary = summary_of(log, id)
        return id, events_of(log, id, run_of(summary, run))


def is_history_file(place: str) -> bool:
    """Whether it is a file that may hold a history."""
    return place.endswith(".json") and Path(place).is_file()


def send(log: stored.EventLog, id: str, event: str, payload: Any, key: str | None) -> bool:
    """Deliver an event; False when its key was seen before. Raises UnknownExecution and ExecutionClosed."""
    data = CODEC.encode_message(payload, f"the payload of event '{event}'")
    return post(log, stored.Post(id, "event", checked_name(event, "event"), data, time.time(), own_key(key)))


def request(log: stored.EventLog, id: str, kind: stored.MessageKind, reason: str) -> bool:
    """Ask for cancellation or termination, which counts once; False when the execution has ended."""
    try:
        key = request_key(kind, summary_of(log, id).run)
        post(log, stored.Post(id, kind, kind, reason.encode(errors="replace"), time.time(), key))
    except ExecutionClosed:
        return False
    return True


def post(log: stored.EventLog, message: stored.Post) -> bool:
    """Append one message. One without a key is not tried again when it may have been accepted (L3)."""
    why = ""
    for _ in range(TRIES_MAX):
        (outcome,) = log.append([message])
        match outcome:
            case Ok(receipt):
                return receipt.created
            case stored.Rejected(reason) if reason.startswith("unknown"):
                raise UnknownExecution(
                    message.id, f"no execution has the id '{message.id}'; zart list shows those there are"
                )
            case stored.Rejected(reason) if reason.startswith("closed"):
                raise ExecutionClosed(
                    message.id, f"execution '{message.id}' has ended and takes no messages any more"
                )
            case stored.Rejected(reason) if reason.startswith(("too-large", "invalid")):
                raise InvalidUse(f"the message to '{message.id}' was not accepted: {reason}")
            case stored.Unknown(reason) if message.key is None:
                raise StoreUnavailable(
                    f"it is not known whether the message was accepted ({reason}); look with zart show, "
                    "and give it a --key next time: the same key counts once"
                )
            case stored.Rejected(reason) | stored.Unknown(reason):
                why = reason
                time.sleep(0.05)
    raise StoreUnavailable(f"the message to '{message.id}' was not accepted: {why}; try again later")
