"""Queues of steps, and what limits them over all workers that declare it: so many at once, so many in a time.

Rule 1: a limit is places in the log, executions `!slot/QUEUE/N` that never go on by themselves: who holds one, under
        lease and fence (L8), may run one step. A rate is places `!slot/QUEUE/rate/N` that rest after each use.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence

import attrs

from zart_core import log as stored
from zart_core.codec import Codec
from zart_core.errors import InvalidUse, LogCorrupt
from zart_core.events import Started, Status
from zart_core.policies import Duration, seconds
from zart_core.records import record
from zart_core.steps import queue_name

SLOTS = "!slot/"
"""How ids and workflow names of a queue's places begin."""
AFTER_SLOTS = f"{SLOTS}~"
"""An id that follows those of all places."""
DOOR = "door"
RATE = "rate/"
PLACES_MAX = 1000
"""The greatest limit or rate of a queue; each is as many rows that a waiting worker reads."""


@record
class Queue:
    """A queue that a worker serves, with what holds over all workers that declare it. Raises InvalidUse.

    A worker that declares a smaller limit begins no more than that beside what the others run; never do more run than
    the greatest that is declared. A worker that declares none is not held to any.
    """

    name: str = attrs.field(converter=queue_name)
    limit: int | None = None
    """How many attempts of its steps run at once, 1 to 1,000; None for any number."""
    rate: int | None = None
    """How many begin in any time of the length `per`, 1 to 1,000; None for any number."""
    per: Duration = "1s"
    """A timedelta, seconds, or text such as "1m"; by the clocks of the workers."""

    def __attrs_post_init__(self) -> None:
        for what, number in (("limit", self.limit), ("rate", self.rate)):
            whole = isinstance(number, int) and not isinstance(number, bool)
            if number is not None and not (whole and 1 <= number <= PLACES_MAX):
                raise InvalidUse(
                    f"queue '{self.name}' has {what}={number!r}; it is a whole number from 1 to {PLACES_MAX:,}. "
                    "A greater rate is a shorter time: 2,000 a second are rate=20, per='10ms'"
                )
        if seconds(self.per, f"per= of queue '{self.name}'") == 0.0:
            raise InvalidUse(f"queue '{self.name}' has per={self.per!r}; it must be longer than nothing")


@record
class Places:
    """What the log says of a limited queue."""

    slots: dict[int, stored.Summary]
    rate: dict[int, stored.Summary]
    door: stored.Summary | None
    """Where a worker that waits says so."""


def declared(queues: Collection[str | Queue]) -> dict[str, Queue]:
    """Queues by name, of names and `Queue`s. Raises InvalidUse."""
    if isinstance(queues, str | Queue) or not queues:
        raise InvalidUse(f'queues={queues!r}: give the names of queues, such as queues=("default", "gpu")')
    given = [queue if isinstance(queue, Queue) else Queue(queue) for queue in queues]
    found: dict[str, Queue] = {}
    for queue in given:
        if found.setdefault(queue.name, queue) != queue:
            raise InvalidUse(f"queue '{queue.name}' is given twice, with different limits")
    return found


def queues_of(names: Sequence[str], limits: Sequence[str], rates: Sequence[str]) -> list[Queue]:
    """Queues of names and texts such as "gpu=4" and "gpu=10/s", "gpu=5/250ms". Raises InvalidUse."""
    found = {name: Queue(name) for name in names}
    for text in limits:
        name, number = parted(text, found, r"(\d+)", "a limit", "gpu=4")
        found[name] = attrs.evolve(found[name], limit=int(number))
    for text in rates:
        name, rate = parted(text, found, r"(\d+/\S+)", "a rate", "gpu=10/s")
        number, _, per = rate.partition("/")
        found[name] = attrs.evolve(found[name], rate=int(number), per=f"1{per}" if per.isalpha() else per)
    return list(found.values())


def parted(text: str, served: Mapping[str, Queue], form: str, what: str, example: str) -> tuple[str, str]:
    """Name and value of a text. Raises InvalidUse."""
    match = re.fullmatch(rf"([^=]+)={form}", text)
    if match is None:
        raise InvalidUse(f"{text!r} is not {what} of a queue; write {example}")
    if match[1] not in served:
        raise InvalidUse(f"{text!r} is for a queue that this worker does not serve; add --queue {match[1]}")
    return match[1], match[2]


def is_place(workflow: str) -> bool:
    """Whether an execution of this workflow is a place of a limited queue: it never goes on, and ends never."""
    return workflow.startswith(SLOTS)


def is_limited(queue: Queue) -> bool:
    """Whether it has a limit or a rate."""
    return queue.limit is not None or queue.rate is not None


def places_for(codec: Codec, queue: Queue, at: float) -> list[stored.Write]:
    """What a limited queue needs in the log, each made once, whoever asks for it (L9); and what its limits are."""
    workflow = f"{SLOTS}{queue.name}"
    names = [DOOR, *map(str, range(queue.limit or 0)), *(f"{RATE}{n}" for n in range(queue.rate or 0))]
    said = json.dumps([queue.limit, queue.rate, seconds(queue.per)])
    news = [new_place(codec, workflow, f"{workflow}/{name}", at) for name in names]
    return [*news, stored.Mark(f"{workflow}/{DOOR}", Status.PAUSED, said)]


def new_place(codec: Codec, workflow: str, id: str, at: float) -> stored.New:
    """A place: nobody's, and never due."""
    started = codec.encode_event(Started(id, 0, workflow, b"null", at), id)
    return stored.New(id, workflow, workflow, (started,), at, Status.PAUSED, wake=None)


def said_of(name: str, places: Places) -> Queue | None:
    """What was said last of the limits of a queue; None when nothing was. Raises LogCorrupt."""
    if places.door is None or not places.door.reason:
        return None
    try:
        limit, rate, per_s = json.loads(places.door.reason)
        return Queue(name, limit, rate, per_s)
    except (ValueError, TypeError, InvalidUse) as error:
        raise LogCorrupt(
            f"{places.door.id}: what it says of the limits of queue '{name}' cannot be read"
        ) from error


def places_of(log: stored.EventLog, queue: str) -> Places:
    """Read where the places of a queue are: one statement, O(places)."""
    prefix = f"{SLOTS}{queue}/"
    places = Places({}, {}, None)
    for one in log.list(id_prefix=prefix, limit=2 * PLACES_MAX + 1).items:
        name = one.id.removeprefix(prefix)
        number = name.removeprefix(RATE)
        if name == DOOR:
            places = attrs.evolve(places, door=one)
        elif is_place(one.workflow) and number.isdecimal():
            (places.slots if number == name else places.rate)[int(number)] = one
    return places
