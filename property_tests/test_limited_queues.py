"""200 simulated worlds in each run in which a queue has limits over all workers: never more run, and all ends.

Engines that are held to no limit, or that keep what they have got, must be found out, each time.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import attrs
import pytest

from property_tests.limited import play
from property_tests.seeds import fresh, keeping, kept
from property_tests.tally import tally
from zart_core.hosts.limits import Held, Limits
from zart_core.hosts.live import Live

SEEDS = 10_000 if os.environ.get("ZART_DEEP") else 200
CHUNKS = 2
TWICE = 50
CONTROLS_MAX = 60
"""Worlds in which a bug has to show at the latest."""
SITUATIONS = ("noted: queued", "noted: offered", "taken over", "full")
"""Each in one of ten worlds at least; `full` is a world in which as many ran at once as may."""


def checked(seed: int, *, twice: bool = False) -> Counter[str]:
    """One world in which nothing may be wrong; gives the situations that it reached."""
    with keeping("limited", seed):
        report, turnstile = play(seed)
        report.check()
        if twice:
            again, _ = play(seed)
            assert (again.digest, again.trace) == (report.digest, report.trace)
        reached = Counter(dict.fromkeys(report.situations, 1))
        reached["full"] = int(turnstile.most == turnstile.queue.limit)
        return reached


def test_worlds_in_which_something_was_wrong_once() -> None:
    """Seeds that were found before come first; what they found is mended."""
    for seed in kept("limited"):
        checked(seed, twice=True)


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_worlds(chunk: int) -> None:
    """Never more run at once, or begin in a time, than may, while leases hold; once faults stop everything ends."""
    reached: Counter[str] = Counter()
    seeds = fresh("limited", SEEDS // CHUNKS)
    for n, seed in enumerate(seeds):
        reached += checked(seed, twice=n % TWICE == 0)
    assert {name for name in SITUATIONS if not reached[name]} == set()
    tally("limited queues", seeds=[seeds[0]], worlds=len(seeds))


def is_held_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that begins whatever is ready."""
    monkeypatch.setattr(Limits, "admit", lambda *arguments: True)


def lets_no_token_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that gives a token back as it was."""
    writes = Limits.writes

    def rested(limits: Limits, live: Live) -> list[Any]:
        return [attrs.evolve(mark, wake=None) for mark in writes(limits, live)]

    monkeypatch.setattr(Limits, "writes", rested)


def keeps_its_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that never gives a slot back, and has no use for it."""
    monkeypatch.setattr(Limits, "sort_out", lambda limits: None)
    monkeypatch.setattr(Limits, "end", lambda limits, use: None)


def takes_one_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that hands a slot to the next attempt while the last one holds it."""
    taken = Limits.taken

    def twice(limits: Limits, place: Any) -> Held:
        held = taken(limits, place)
        place.append(held)
        return held

    monkeypatch.setattr(Limits, "taken", twice)


@pytest.mark.parametrize(
    ("bug", "rules"),
    [
        (is_held_to_nothing, {"limit", "rate"}),
        (lets_no_token_rest, {"rate"}),
        (keeps_its_slots, {"I18"}),
        (takes_one_too_many, {"limit", "rate"}),
    ],
)
def test_a_bug_is_found(bug: Any, rules: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The known-bad controls: a world in which the rule is broken turns up within a few dozen."""
    bug(monkeypatch)
    for seed in fresh("limited", CONTROLS_MAX):
        report, _ = play(seed)
        if rules & {wrong.rule for wrong in report.violations}:
            return
    pytest.fail(f"an engine that {bug.__name__} went through {CONTROLS_MAX} worlds")
