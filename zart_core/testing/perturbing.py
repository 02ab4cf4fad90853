"""The process in which histories are replayed with clock, chance and surroundings fixed; started by `perturbation`.

Rule 1: everything that is perturbed has a fixed value here; a perturbation fixes it at another one.
Rule 2: what modules may keep when they are imported (clock, chance) is fixed before the user's are; the rest
(environment, folder, locale, time zone) after that, so that the same modules are imported whatever is perturbed.
Rule 3: chance begins anew for each history, so that what one replay drew makes no difference to the next.
"""

from __future__ import annotations

import base64
import contextlib
import json
import locale
import os
import random
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import reduce
from typing import Any, TypeAlias

import time_machine

from zart_core.cli.finding import load
from zart_core.codec import Codec
from zart_core.errors import Defect, Diverged, InvalidUse
from zart_core.events import Closed, Event, Issued, Started
from zart_core.interpreter import CODEC, Execution
from zart_core.log import Record
from zart_core.testing.replaying import compare_decisions
from zart_core.workflows import Registry, is_workflow, workflows_in

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
STEP = timedelta(days=397, hours=7, minutes=13, seconds=11, milliseconds=370)
MONOTONIC_S = 40_000.0
LOCALES = ("C", "C.UTF-8", "en_US.UTF-8", "de_DE.UTF-8", "tr_TR.UTF-8", "POSIX")
ZONES = ("UTC0", "AAA-5:45", "BBB9:30", "CCC-13")
Reset: TypeAlias = Callable[[], None]
"""Lets chance begin anew."""
CLOCKS = ("monotonic", "perf_counter", "process_time", "thread_time")


# ---------------------------------------------------------------- before the user's modules are imported


def fix_clock(n: int) -> Reset:
    """Wall clock and monotonic clocks: they stand still, so that everything reads the same."""
    time_machine.travel(EPOCH + n * STEP, tick=False).start()
    for clock in CLOCKS:
        seconds = MONOTONIC_S + n * 86_461.7
        setattr(time, clock, lambda seconds=seconds: seconds)
        setattr(time, f"{clock}_ns", lambda seconds=seconds: int(seconds * 1e9))
    return lambda: None


def fix_random(n: int) -> Reset:
    """The module `random`, and generators without a seed of their own."""
    seed = random.Random.seed

    def seeded(self: random.Random, a: Any = None, version: int = 2) -> None:
        seed(self, f"random {n}" if a is None else a, version)

    random.Random.seed = seeded  # type: ignore[method-assign]
    random.seed = random._inst.seed
    return lambda: random.seed(f"random {n}")


def fix_urandom(n: int) -> Reset:
    """`os.urandom`, and with it `secrets` and `random.SystemRandom`."""
    chance = random.Random(f"urandom {n}")  # noqa: S311  # fixed on purpose
    os.urandom = chance.randbytes
    random._urandom = chance.randbytes  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    return lambda: chance.seed(f"urandom {n}")


def fix_uuid(n: int) -> Reset:
    """Unique ids: uuid1, uuid4 and what else this Python has."""
    chance = random.Random(f"uuid {n}")  # noqa: S311  # fixed on purpose

    def drawn(*_: object, **__: object) -> uuid.UUID:
        return uuid.UUID(bytes=chance.randbytes(16), version=4)

    for name in "uuid1", "uuid4", "uuid6", "uuid7", "uuid8":
        if hasattr(uuid, name):
            setattr(uuid, name, drawn)
    uuid.getnode = lambda: 0x020000000000 + n
    return lambda: chance.seed(f"uuid {n}")


# ---------------------------------------------------------------- after they are imported


class Strange(os._Environ[str]):
    """An environment in which every variable is set, and to something else."""

    n: int

    def __getitem__(self, key: str) -> str:
        try:
            return f"{super().__getitem__(key)}~{self.n}"
        except KeyError:
            return f"perturbed~{self.n}"


def fix_environment(n: int) -> None:
    """Environment variables and the command line."""
    sys.argv[1:] = [f"perturbed~{n}"]
    if n:
        os.environ.__class__ = Strange
        os.environ.n = n  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


def fix_locale(n: int) -> None:
    """The locale, as far as this machine has several."""
    there: list[str] = []
    for name in LOCALES:
        with contextlib.suppress(locale.Error):
            locale.setlocale(locale.LC_ALL, name)
            there.append(name)
    locale.setlocale(locale.LC_ALL, there[n % len(there)] if n < 2 else there[-1])


def fix_timezone(n: int) -> None:
    """The local time zone."""
    if hasattr(time, "tzset"):
        os.putenv("TZ", ZONES[n % len(ZONES)])
        os.environ["TZ"] = ZONES[n % len(ZONES)]
        time.tzset()


EARLY: Mapping[str, Callable[[int], Reset]] = {
    "clock": fix_clock,
    "random": fix_random,
    "urandom": fix_urandom,
    "uuid": fix_uuid,
}
LATE: Mapping[str, Callable[[int], None]] = {
    "locale": fix_locale,
    "timezone": fix_timezone,
    "environment": fix_environment,  # last: nothing else is to see it
}


# ---------------------------------------------------------------- replaying


def registry_of(places: Sequence[Mapping[str, str]]) -> Registry:
    """The workflows of the modules and names that were sent. Raises InvalidUse for what cannot be imported."""
    registry = Registry()
    for place in places:
        module = load_one_of(place["module"], place["file"])
        if place["qualname"] and is_workflow(found := named(module, place["qualname"])):
            registry.learn(found)
        for workflow in Registry(workflows_in(module)).everything():
            registry.learn(workflow)
    return registry


def codec_of(place: Mapping[str, str] | None) -> Codec:
    """The codec that was sent, or a plain one. Raises InvalidUse for what cannot be imported."""
    return CODEC if place is None else named(load_one_of(place["module"], place["file"]), place["qualname"])


def named(module: Any, qualname: str) -> Any:
    """What has this name in a module."""
    return reduce(getattr, qualname.split("."), module)


def load_one_of(name: str, file: str) -> Any:
    """A module by its name, or else from its file."""
    if not name:
        return load(file)
    try:
        return load(name)
    except InvalidUse:
        if not file:
            raise
        return load(file)


def replayed(
    registry: Registry, events: Sequence[Event], codec: Codec, resets: Sequence[Reset]
) -> dict[str, Any]:
    """How a history replays: where the code decides otherwise than it says, and what; or why it cannot be replayed."""
    for reset in resets:
        reset()
    try:
        first = events[0] if events else None
        if not isinstance(first, Started):
            return {"error": "it does not begin with Started"}
        execution = Execution(registry.of(first), codec=codec, strict=True)
    except Exception as error:  # noqa: BLE001  # told as it is
        return {"error": f"{type(error).__name__}: {error}"}
    try:
        if compare_decisions(execution, events):
            execution.check_answered()
    except Diverged as diverged:
        return differing(execution, diverged)
    except Defect as defect:
        return {"error": f"{type(defect).__name__}: {defect}", "event": execution.position}
    except Exception as error:  # noqa: BLE001  # what the workflow's code raises where it may not
        return {"error": f"{type(error).__name__}: {error}", "event": execution.position}
    finally:
        execution.close()
    return {}


def differing(execution: Execution, diverged: Diverged) -> dict[str, Any]:
    """Both sides of a difference, as plain data that is the same wherever it is the same."""
    decided = [] if execution.broken is not None else execution.decide()[:1]
    yielded = diverged.yielded
    match decided:
        case [Closed(failure=failure)] if failure is not None:
            yielded = f"{yielded}: {failure.type}: {failure.message}"
        case [Issued() as issued]:
            yielded = f"{yielded}{'' if ', ' in yielded else told(issued)}"
        case _:
            pass
    site = diverged.yielded_site or (decided[0].site if decided and isinstance(decided[0], Issued) else None)
    return {
        "event": diverged.position,
        "recorded": diverged.recorded,
        "decided": yielded,
        "recorded_site": str(diverged.recorded_site or ""),
        "decided_site": str(site or ""),
    }


def told(issued: Issued) -> str:
    """The arguments of a command, shortened."""
    text = issued.payload.decode(errors="replace")
    return f" with {text[:200]}" if text not in ("", "null", "[]") else ""


def main() -> None:
    """Read what to do from stdin, and answer on stdout, which nothing else gets to write to."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    task = json.load(sys.stdin)
    sys.path[:] = task["sys_path"]
    values: Mapping[str, int] = task["values"]
    resets = [fix(values.get(kind, 0)) for kind, fix in EARLY.items()]
    try:
        registry = registry_of(task["workflows"])
        codec = codec_of(task["codec"])
    except InvalidUse as error:
        json.dump({"error": str(error)}, answers)
        answers.close()
        return
    histories = [
        CODEC.decode_events(
            [Record(kind, at, base64.b64decode(data)) for kind, at, data in history["records"]],
            history["id"],
            history["run"],
        )
        for history in task["histories"]
    ]
    if "folder" in values:
        os.chdir(task["folder"])
    for kind, fix in LATE.items():
        fix(values.get(kind, 0))
    first, again = ([replayed(registry, events, codec, resets) for events in histories] for _ in range(2))
    json.dump({"first": first, "again": again}, answers)
    answers.close()


if __name__ == "__main__":
    main()
