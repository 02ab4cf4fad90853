"""How the interpreter says that code and log disagree: both sides, both places, who must act (R21).

Rule 1: nothing is decided here, and no payload is ever shown.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any

import msgspec

from zart_core.branches import Node, Taking, Want, Withdrawal, site_of
from zart_core.commands import Command, Step
from zart_core.errors import DecodeError, Diverged, LogCorrupt
from zart_core.events import Closed, Delivered, Event, Interrupted, Issued, Resolved, Site, Started, Status
from zart_core.values.forms import type_name

REMEDY = (
    "Nothing is written; the execution is parked, and goes on by itself once code that fits is registered. "
    "Put the recorded command back, or guard what is new with `zart.version(...)`."
)
STRICT_REMEDY = (
    "Only a strict comparison minds this: a host goes on with what is recorded, if that still decodes. Keep it as it "
    "was, guard the change with `zart.version(...)`, or compare without arguments if the recorded ones will do."
)
EARLY = (
    "A fact came before all was decided. A host of your own has to append and apply what decide() gives, until it is "
    "empty, and only then the next fact. In a log that a host of ours wrote, the code has changed:"
)
SHOWN_MAX = 3


def diverged(
    title: str,
    position: int,
    event: Event | None,
    head: Want | None,
    pending: Sequence[Node],
    why: str = "",
    *,
    early: bool = False,
) -> Diverged:
    """The log says `event` (None: it ends), the code wants `head` (None: nothing).

    `why` names what differs where kind and name agree. `early`: it is a fact, and something is wanted before it; that
    is so in a log whose code has changed, and where a host does not ask for all decisions (P6).
    """
    recorded = "nothing more: the log ends here" if event is None else described(event)
    yielded = described_want(head, pending)
    recorded_site = event.site if isinstance(event, Issued) else None
    yielded_site = site_of_want(head)
    remedy = STRICT_REMEDY if why else REMEDY
    early_line = f"  {EARLY}\n" if early else ""
    message = (
        f"{title} diverged at event {position}{': ' + why if why else ''}\n"
        f"  recorded: {recorded}{at_site(recorded_site)}\n"
        f"  yielded:  {yielded}{at_site(yielded_site)}\n"
        f"{early_line}  {remedy}"
    )
    return Diverged(
        message,
        position=position,
        recorded=recorded,
        yielded=yielded,
        recorded_site=recorded_site,
        yielded_site=yielded_site,
        remedy=remedy,
    )


DIFFERING = {
    "of": "the ids",
    "payload": "the arguments",
    "until": "the times",
    "child": "the ids of the executions",
}
"""What a strict comparison compares, in words."""


def differences(names: Sequence[str], recorded: Issued, yielded: Issued, command: Command[Any]) -> str:
    """What differs between two sides of one kind and name: both where that is no payload, else which argument."""
    details: list[str] = []
    for name in names:
        if name == "payload":
            details += arguments_of(recorded, yielded, command)
        elif name == "until":
            details.append(
                f"{lasting(recorded, recorded.at)} recorded, {lasting(yielded, recorded.at)} yielded"
            )
        else:
            details.append(f"'{getattr(recorded, name)}' recorded, '{getattr(yielded, name)}' yielded")
    said = f"{' and '.join(DIFFERING[name] for name in names)} differ"
    return f"{said} ({'; '.join(details)})" if details else said


def arguments_of(recorded: Issued, yielded: Issued, command: Command[Any]) -> list[str]:
    """The names of a step's arguments that differ, where both sides have as many as it takes."""
    names: Sequence[str] = command.function.parameter_names if isinstance(command, Step) else ()
    try:
        old = msgspec.json.decode(recorded.payload, type=list[msgspec.Raw])
        new = msgspec.json.decode(yielded.payload, type=list[msgspec.Raw])
    except (msgspec.DecodeError, ValueError, RecursionError):  # no JSON: a codec of the user's own
        return []
    if not len(old) == len(new) == len(names):
        return []
    return [", ".join(name for name, a, b in zip(names, old, new, strict=True) if a != b)]


def lasting(issued: Issued, since: float) -> str:
    """How long a wait lasts from where it began."""
    return "no time limit" if issued.until is None else str(timedelta(seconds=round(issued.until - since, 3)))


def unreadable(
    title: str, position: int, event: Started | Issued, what: str, declared: Any, error: DecodeError
) -> Diverged:
    """A recorded payload no longer decodes to the declared type."""
    remedy = "keep the old type readable: give new fields a default, or decode to a union of old and new"
    if error.path == "arguments":
        remedy = "leave the parameters of this step as they are; what takes others is a step of another name"
    wanted = declared if isinstance(declared, str) else type_name(declared)
    return Diverged(
        f"{title} diverged at event {position}: {what} no longer decodes to {wanted}: {error}\n  {remedy}",
        position=position,
        recorded=f"{what} as it was: {error}",
        yielded=f"{what} as {wanted}",
        recorded_site=event.site if isinstance(event, Issued) else None,
        remedy=remedy,
        field=error.path,
    )


def too_old(title: str, position: int, event: Issued, number: int, marker: Node) -> Diverged:
    """The run began with a newer version of the code than the one at hand knows (R23)."""
    recorded = f"version '{event.name}' = {number}"
    yielded = f"version '{marker.name}', {marker.command.current} at the most"
    site = site_of(marker.where)
    remedy = (
        "The run was begun by newer code. Nothing is written; the execution is parked, and goes on by itself once code "
        f"that knows version {number} is registered again."
    )
    return Diverged(
        f"{title} diverged at event {position}\n  recorded: {recorded}{at_site(event.site)}\n"
        f"  yielded:  {yielded}{at_site(site)}\n  {remedy}",
        position=position,
        recorded=recorded,
        yielded=yielded,
        recorded_site=event.site,
        yielded_site=site,
        remedy=remedy,
    )


def out_of_place(
    title: str, position: int, event: Event, status: Status, allowed: Collection[type[Any]]
) -> LogCorrupt:
    """An event that cannot follow in this status."""
    return LogCorrupt(
        f"{title}: event {position} is {type(event).__name__}, which cannot follow while the run is {status}",
        where=f"event {position}",
        expected=" or ".join(sorted(kind.__name__ for kind in allowed)) or "nothing more",
        found=type(event).__name__,
    )


def not_pending(title: str, position: int, seq: int, kind: str) -> LogCorrupt:
    """An event about a command that is not pending."""
    return LogCorrupt(
        f"{title}: event {position} is {kind} for command {seq}, which is not pending",
        where=f"event {position}",
        expected="a pending command",
        found=f"command {seq}",
    )


def described(event: Event) -> str:
    """A recorded event."""
    match event:
        case Issued():
            return f"{event.kind} '{event.name}'"
        case Resolved():
            return f"the outcome of command {event.seq} ({type(event.outcome).__name__})"
        case Delivered():
            return f"delivery {event.n} of event '{event.event}'"
        case Interrupted():
            return f"an interruption ({event.by})"
        case Closed():
            return f"the end of the run ({event.status})"
        case _:
            return type(event).__name__


def described_want(head: Want | None, pending: Sequence[Node]) -> str:
    """What the code asks for."""
    match head:
        case None if pending:
            return f"nothing: it waits for {', '.join(node.title for node in pending[:SHOWN_MAX])}"
        case None:
            return "nothing"
        case Node():
            return head.title
        case Withdrawal():
            return f"the cancellation of {head.node.title}"
        case Taking():
            return f"{head.node.title} taking delivery {head.n}"
        case _:
            return f"the end of the run ({head.status})"


def site_of_want(head: Want | None) -> Site | None:
    """Where what the code asks for stands."""
    match head:
        case Node():
            return site_of(head.where)
        case Withdrawal() | Taking():
            return site_of(head.node.where)
        case _:
            return None


def at_site(site: Site | None) -> str:
    """A place in the source as the tail of a line."""
    return f"   at {site}" if site is not None else ""
