"""`zart fork`: what if a step had ended otherwise? A rehearsal in virtual time, or a new execution.

Rule 1: a rehearsal writes nothing and runs no step; a fork writes one new execution and touches no other.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeGuard

from zart_core import log as stored
from zart_core.cli.checking import registry_of
from zart_core.cli.debugging import workflow_of
from zart_core.cli.exits import OK
from zart_core.cli.finding import line_of, load
from zart_core.cli.moments import Names, event_line
from zart_core.cli.reading import opened, recorded
from zart_core.cli.running import again, named, read_text
from zart_core.cli.show import said_url
from zart_core.cli.texts import as_json, payload, plain, say
from zart_core.errors import ExecutionConflict, InvalidUse
from zart_core.events import Closed, Done, Event, Failed, Issued, Ok, Outcome
from zart_core.hosts.explain import moment
from zart_core.hosts.inline import Inline
from zart_core.insight.explaining import command
from zart_core.insight.forking import Fork, execution_of, failure_like, refuse_what_is_rehearsed_only
from zart_core.insight.forking import fork as forked
from zart_core.insight.rehearsing import Rehearsal, rehearse
from zart_core.interpreter import CODEC
from zart_core.records import record
from zart_core.steps import StepFunction
from zart_core.workflows import Registry


@record
class Wish:
    """What is to be otherwise, as it was typed."""

    at: int | None
    sets: Sequence[str]
    fails: Sequence[str]
    steps: str
    sends: Sequence[str]


def fork(
    id: str,
    modules: Sequence[str],
    url: str,
    run: int | None,
    wish: Wish,
    name: str | None,
    *,
    dry_run: bool,
    json: bool,
) -> int:
    """Fork a run, for real or in rehearsal; gives the exit code."""
    if not dry_run and (wish.steps or wish.sends):
        raise InvalidUse(
            "--steps and --send are for a rehearsal; add --dry-run, or send events to the fork itself"
        )
    registry = registry_of(modules)
    _, events = recorded(id, url, run)
    with contextlib.redirect_stdout(sys.stderr):  # what the workflow's own code prints
        made = forked(
            workflow_of(registry, events),
            events,
            id=named(name),
            at=wish.at,
            outcomes=outcomes_of(wish, events),
        )
    if not dry_run:
        with opened(url) as log:
            created = create(log, made)
        return report_fork(made, created, modules[0], url, len(events), json)
    fakes, sent = steps_of(wish.steps), list(sendings(wish.sends))
    with contextlib.redirect_stdout(sys.stderr):
        told = rehearse(made, registry, steps=fakes, events=sent)
    return report_rehearsal(made, told, len(events), json)


def create(log: stored.EventLog, made: Fork) -> bool:
    """Write the copy; False when this very one was there. Raises ExecutionConflict when its id is taken."""
    refuse_what_is_rehearsed_only(made)
    (outcome,) = Inline(log, Registry()).create([execution_of(made, CODEC, time.time())])
    if not isinstance(outcome, Ok):
        raise ExecutionConflict(made.id, f"the id '{made.id}' is taken by something else; give another --id")
    return outcome.value.created


# ---------------------------------------------------------------- what was typed


def outcomes_of(wish: Wish, events: Sequence[Event]) -> dict[str, Outcome]:
    """The outcomes that are to be others, by the name of their command. Raises InvalidUse."""
    outcomes: dict[str, Outcome] = {}
    for name, text in split(wish.sets, "--set"):
        outcomes[name] = Done(json_of(text, f"--set {name}"))
    issued = {event.name: event for event in events if isinstance(event, Issued) and event.kind != "version"}
    for name, text in split(wish.fails, "--fail"):
        if name in outcomes:
            raise InvalidUse(f"'{name}' cannot both be set and fail")
        outcomes[name] = Failed(failure_like(issued.get(name), name, text))
    return outcomes


def split(texts: Sequence[str], option: str) -> Iterator[tuple[str, str]]:
    """NAME=VALUE, as pairs. Raises InvalidUse."""
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InvalidUse(f"{option} takes NAME=VALUE, not '{text}'")
        yield name, value


def json_of(text: str, what: str) -> bytes:
    """A value as it is recorded. Raises InvalidUse, which shows no value."""
    data = (read_text(text) or "").encode(errors="surrogateescape")
    return CODEC.encode(CODEC.decode(data, object, what), object, what)


def sendings(texts: Sequence[str]) -> Iterator[tuple[int, str, bytes]]:
    """Events that come at once."""
    for name, text in split(texts, "--send"):
        yield 0, name, json_of(text, f"--send {name}")


def steps_of(target: str) -> Mapping[StepFunction[..., Any], Any]:
    """A mapping of steps to fakes, or what a function without parameters gives as one. Raises InvalidUse."""
    if not target:
        return {}
    place, colon, name = target.rpartition(":")
    if not colon:
        raise InvalidUse(f"--steps takes MODULE:NAME, not '{target}'")
    found: Any = getattr(load(place), name, None)
    try:
        mapping: Any = found() if callable(found) else found
    except Exception as error:
        raise InvalidUse(
            f"calling {target} failed: {type(error).__name__}: {error}{line_of(error)}"
        ) from error
    if not is_steps(mapping):
        raise InvalidUse(
            f"{target} is no mapping of steps to fakes, such as {{charge: 'txn-1'}}, and gives none"
        )
    return mapping


def is_steps(mapping: Any) -> TypeGuard[Mapping[StepFunction[..., Any], Any]]:
    """Whether it maps steps to anything."""
    return isinstance(mapping, Mapping) and all(isinstance(key, StepFunction) for key in keys_of(mapping))


def keys_of(mapping: Any) -> Iterator[object]:
    """The keys of a mapping of anything."""
    yield from mapping


# ---------------------------------------------------------------- what is said


def cut_words(made: Fork, total: int) -> str:
    """Where the copy was cut."""
    asked = ""
    if made.asked != made.position:
        why = (
            "is the run's end"
            if made.asked == total and made.position == total - 1
            else "is inside of a turn"
        )
        asked = f" ({made.asked} were asked for; event {made.position + 1} {why})"
    replaced = f", with another outcome of {', '.join(made.replaced)}" if made.replaced else ""
    return plain(f"'{made.of}', run {made.run}, up to event {made.position} of {total}{asked}{replaced}")


def report_fork(made: Fork, created: bool, module: str, url: str, total: int, json: bool) -> int:
    """Say that the copy is there, and how it goes on."""
    facts = {"id": made.id, "created": created, "of": made.of, "run": made.run, "position": made.position}
    if json:
        say(as_json({**facts, "asked": made.asked, "replaced": list(made.replaced)}))
        return OK
    say(f"{plain(made.id)} is a copy of {cut_words(made, total)}")
    if created:
        say(plain(f"it goes on when a worker takes it up: {again(module, url, made.id)}"))
    else:
        say(
            plain(
                f"it was there before, and was left as it is: {command('explain', made.id, said_url(url))} says how"
            )
        )
    return OK


def report_rehearsal(made: Fork, told: Rehearsal, total: int, json: bool) -> int:
    """Say what would follow."""
    names = Names([*made.events, *told.events], ())
    closed = next((event for event in told.events if isinstance(event, Closed)), None)
    result = payload(closed.payload) if closed is not None and closed.payload else None
    asks = [ask for name in told.asks for ask in asked(name, [*made.events, *told.events])]
    if json:
        facts = {"of": made.of, "run": made.run, "position": made.position, "asked": made.asked}
        events = [names.facts(event) for event in told.events]
        ends = {
            "status": str(told.status),
            "result": result,
            "error": told.error,
            "unused": list(told.unused),
        }
        say(as_json({**facts, "events": events, **ends, "asks": asks}))
        return OK
    say(f"a copy of {cut_words(made, total)} would go on so, in virtual time:")
    for event in told.events:
        say(f"  {moment(event.at)}  {event_line(event, names)}")
    for ask in asks:
        call = f"step '{ask['name']}' with {as_json(ask['arguments'])} at {ask['at']}"
        say(plain(f"it would call {call}; nothing runs here:"))
        say(plain(f"  give its outcome with --set '{ask['name']}=JSON', or fakes with --steps MODULE:NAME"))
    if not asks:
        say(plain(f"{told.status}: {told.error}" if told.error else f"{told.status}: {as_json(result)}"))
    for name in told.unused:
        say(plain(f"nothing asked for the outcome of '{name}'"))
    return OK


def asked(name: str, events: Sequence[Event]) -> Iterator[dict[str, Any]]:
    """A step that is asked for: its name, arguments and place."""
    for event in events:
        if isinstance(event, Issued) and event.kind == "step" and event.name == name:
            yield {"name": name, "arguments": payload(event.payload), "at": str(event.site)}
