"""Each store beside a plain model: whatever is written, in whatever order, both tell the same.

Every step compares all that can be read. Steps come from seeds; a seed that fails is cut down to the steps it needs.
"""

from __future__ import annotations

import math
import os
from collections import Counter

import pytest
from seeds import fresh, keep, kept
from store_player import KINDS_OF_STORE, RULES, fewest, steps_played
from tally import tally

from tests.broken_stores import stores

STEPS_EACH = 500
STEPS = 1_000_000 if os.environ.get("ZART_DEEP") else 60_000
"""In all, over the stores."""


def steps_of(store: str) -> int:
    """A store's share of the steps."""
    weights = {name: kind.share for name, kind in KINDS_OF_STORE.items()}
    return math.ceil(STEPS * weights[store] / sum(weights.values()) / STEPS_EACH) * STEPS_EACH


CONTROLS = [
    stores.AcknowledgesTheRejected,
    stores.ConsumesNothing,
    stores.CreatesAgain,
    stores.ForgetsKeys,
    stores.IgnoresFence,
    stores.LosesTheSecond,
    stores.MissesExpiredLeases,
    stores.WakesLate,
]


@pytest.mark.parametrize("store", sorted(KINDS_OF_STORE))
def test_store_beside_model(store):
    """L1-L13: the store and the model tell the same after every step, closed, crashed and opened twice included."""
    harness = f"store-machine-{store}"
    done: Counter[str] = Counter()
    drawn = fresh(harness, steps_of(store) // STEPS_EACH)
    for seed in [*kept(harness), *drawn]:
        try:
            done += steps_played(store, seed, STEPS_EACH)
        except Exception as error:
            keep(harness, seed, f"{type(error).__name__}: {error}")
            needed = fewest(store, seed, STEPS_EACH)
            error.add_note(f"seed {seed}; it is enough to do: steps_played({store!r}, {seed}, {needed})")
            raise

    print(f"{store}: {done.total():,} steps: {dict(done)}")
    assert done.total() >= steps_of(store)
    assert min(done[rule] for rule in RULES) >= steps_of(store) // (100 if steps_of(store) > 5000 else 250)
    tally("store machines", seeds=drawn, steps=done.total())


@pytest.mark.parametrize("defect", CONTROLS, ids=lambda each: each.__name__)
def test_a_store_with_a_defect_is_caught(defect):
    """The same steps, and a relay with one defect in between: within a few seeds the model sees it."""
    for seed in range(5):
        try:
            steps_played("memory", seed, 200, wrap=defect)
        except AssertionError:
            return
    pytest.fail(f"{defect.__name__} was not caught")


def test_a_failing_seed_is_cut_down():
    """To steps of which none can be left out."""
    needed = fewest("memory", 1, 60, wrap=stores.IgnoresFence)

    assert 2 <= len(needed) <= 12
    with pytest.raises(AssertionError):
        steps_played("memory", 1, needed, wrap=stores.IgnoresFence)
    for left_out in needed:
        steps_played("memory", 1, [n for n in needed if n != left_out], wrap=stores.IgnoresFence)
