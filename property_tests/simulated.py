"""One simulated world for each seed, over all shapes; and engines and stores with a bug that worlds must find."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs

from property_tests.shapes import BY_NAME, SHAPES, Shape
from zart_core.events import Done, Event, Issued, Ok, Resolved
from zart_core.hosts.engine import AsyncEngine
from zart_core.log import Appended, EventLog, Receipt, Turn, Write
from zart_core.testing import Faults, SimulationReport, simulate
from zart_core.testing.relay import Relay
from zart_core.testing.simulation.simulate import Shelf

ALONE = frozenset({"spawns", "park-on"})
"""Shapes that start an execution with an id of its own: two of them at once share it."""
SLOW = frozenset({"timeout-per-attempt"})
"""Shapes that end otherwise when an attempt is slow."""

KILLERS = Faults(step_death=0.5, kill=0.02, death=0.03, most=8)
ZOMBIES = Faults(pause=0.2, lost_answer=0.03, most=7)
HANDS = Faults(slow_step=0.4, hand_over=0.1, jump=0.06, redeploy=0.03, most=7)
MESSAGES = Faults(duplicate=0.6, late=0.4, slow=0.1, death=0.03, most=6)
CANARIES = Faults(bad_deploy=0.4, kill=0.05, hand_over=0.05, lost_answer=0.03, most=6)

WEATHERS: tuple[Faults | None, ...] = (None, None, None, KILLERS, ZOMBIES, HANDS, MESSAGES, CANARIES)
"""None: rates of the seed's own. The others make it likely that what is rare comes together."""

FOCUS: tuple[tuple[str, Faults | None], ...] = (
    ("at-most-once", KILLERS),
    ("at-most-once", ZOMBIES),
    ("at-most-once", KILLERS),
    ("at-most-once", KILLERS),
    ("max-crashes", KILLERS),
    ("retries", KILLERS),
    ("fan-out", KILLERS),
    ("nested", KILLERS),
    ("sequence", ZOMBIES),
    ("event-after", ZOMBIES),
    ("saga", ZOMBIES),
    ("sequence", ZOMBIES),
    ("saga", ZOMBIES),
    ("fan-out", ZOMBIES),
    ("nested", ZOMBIES),
    ("children", ZOMBIES),
    ("retries", HANDS),
    ("cancelled", HANDS),
    ("shielded", HANDS),
    ("shield-kept", HANDS),
    ("event-timeout", None),
    ("event-timeout", None),
    ("timeout-global", None),
    ("timeout-global", None),
    ("keys", MESSAGES),
    ("event-before", MESSAGES),
    ("cancel-swallowed", MESSAGES),
    ("terminated", MESSAGES),
    ("race-flows", ZOMBIES),
    ("continued", MESSAGES),
    ("continued", ZOMBIES),
    ("children", CANARIES),
    ("cancelled", CANARIES),
)
"""Shapes and weathers that belong together, for three in five seeds."""


def play(seed: int, **options: Any) -> SimulationReport:
    """The world of a seed: a shape, one to five workers, one or two executions, and weather."""
    lots = random.Random(f"plan {seed}")
    shape, weather = lots.choice(SHAPES), lots.choice(WEATHERS)
    if lots.random() < 0.6:
        name, weather = lots.choice(FOCUS)
        shape = BY_NAME[name]
    workers, copies = lots.choice((1, 2, 2, 3, 3, 4, 5)), lots.choice((1, 1, 1, 2))
    plan: dict[str, Any] = {
        "workers": workers,
        "copies": 1 if shape.name in ALONE else copies,
        "events": shape.events,
        "children": shape.others,
        "outcomes": outcomes_of(shape),
        "faults": weather,
    }
    return simulate(shape.workflow, shape.input, seed=seed, **(plan | options))


def outcomes_of(shape: Shape) -> frozenset[str] | None:
    """How it may end, where that does not hang on what comes first."""
    return None if shape.timed or shape.name in SLOW else shape.outcomes


def out_of_order(history: Sequence[Event]) -> Iterator[str]:
    """I17: what `book` has done in a run is undone the newest first."""
    issued: dict[int, str] = {}
    booked: list[str] = []
    undone: list[str] = []
    for event in history:
        match event:
            case Issued(seq=seq, name=name):
                issued[seq] = name
                what = name.removeprefix("undo-")
                if what != name and what in booked:
                    undone.append(what)
            case Resolved(seq=seq, outcome=Done()) if issued[seq].startswith("book-"):
                booked.append(issued[seq].removeprefix("book-"))
            case _:
                pass
    if undone != [what for what in reversed(booked) if what in undone]:
        yield f"booked were {booked}, and undone {undone}"


# ---------------------------------------------------------------- with a bug


class Hasty(AsyncEngine):
    """Carries out a turn when it is handed to the writer, not when it is durable."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        put = self.writer.put

        def hasty(writes: Sequence[Write], written: Callable[[list[Appended]], None]) -> None:
            if all(isinstance(write, Turn) for write in writes):
                put(writes, lambda outcomes: None)
                self.loop.call_soon(written, [Ok(Receipt()) for _ in writes])
            else:
                put(writes, written)

        self.writer.put = hasty  # type: ignore[method-assign]


class Early(AsyncEngine):
    """Lets timers fire a little before their time."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        build = self.pump.build_turn

        def early(live: Any) -> Any:
            live.run._timers[:] = [(when - 0.02, *rest) for when, *rest in live.run._timers]
            return build(live)

        self.pump.build_turn = early  # type: ignore[method-assign]


class Deaf(AsyncEngine):
    """Does not look for what a claim gave whose answer was lost."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)

        async def nothing() -> list[Any]:
            self.claims.in_doubt = False
            return []

        self.claims.take_given = nothing  # type: ignore[method-assign]


class Stubborn(AsyncEngine):
    """Does not try again what was parked, whatever code is registered."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)

        async def nothing() -> None: ...

        self.claims.retry_parked = nothing  # type: ignore[method-assign]


class Careless(AsyncEngine):
    """Starts attempts although its lease may have run out."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.claims.is_leased = lambda: True  # type: ignore[method-assign]


class Unfenced(Relay):
    """A store that takes the turns of anybody."""

    def append(self, batch: Sequence[Write]) -> list[Appended]:
        """See EventLog."""
        return self.log.append([self.unfenced(write) for write in batch])

    def unfenced(self, write: Write) -> Write:
        """The turn with the fence that it should have had."""
        summary = self.log.summary(write.id) if isinstance(write, Turn) else None
        return attrs.evolve(write, fence=summary.fence) if summary is not None else write


class Lossy(Relay):
    """A store that acknowledges a turn without keeping it, once."""

    def __init__(self, log: EventLog) -> None:
        super().__init__(log)
        self.turns = 0

    def append(self, batch: Sequence[Write]) -> list[Appended]:
        """See EventLog."""
        self.turns += isinstance(batch[0], Turn)
        if isinstance(batch[0], Turn) and self.turns == 2:
            return [Ok(Receipt()) for _ in batch]
        return self.log.append(batch)


class BrokenShelf(Shelf):
    """A shelf whose logs are broken in one way."""

    def __init__(self, broken: Callable[[EventLog], Relay]) -> None:
        super().__init__()
        self.broken = broken

    def open(self) -> EventLog:
        """See Place."""
        return self.broken(super().open())

    def crash(self, log: Any) -> None:
        """See Place."""
        log.log.close()

    def close(self, log: Any) -> None:
        """See Place."""
        super().close(log.log)


CONTROLS: dict[str, tuple[dict[str, Any], frozenset[str]]] = {
    "acts before its turn is durable": (
        {"engine": Hasty, "faults": Faults(lost_request=0.1, death=0.1, slow=0.05)},
        frozenset({"I13"}),
    ),
    "lets timers fire early": ({"engine": Early, "faults": Faults.none()}, frozenset({"I14"})),
    "loses a wake-up: it does not look for what it was given": (
        {"engine": Deaf, "faults": Faults(lost_answer=0.2)},
        frozenset({"I18"}),
    ),
    "leaves parked what the code fits again": (
        {"engine": Stubborn, "faults": Faults(bad_deploy=0.4)},
        frozenset({"R20"}),
    ),
    "works on without a lease": (
        {"engine": Careless, "faults": Faults(pause=0.3)},
        frozenset({"F24"}),
    ),
    "a store without a fence": (
        {"store": lambda: BrokenShelf(Unfenced), "faults": Faults(pause=0.15)},
        frozenset({"I6"}),
    ),
    "a store that loses what it acknowledged": (
        {"store": lambda: BrokenShelf(Lossy), "faults": Faults.none()},
        frozenset({"I1"}),
    ),
}
"""What is broken: how to simulate it, and the rules of which one must be found to be broken."""
