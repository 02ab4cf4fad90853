"""So many rounds of chaos, from a seed: `python -m property_tests.chaos 50 [SEED]`. Prints each round, and the sum."""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from property_tests.chaos.harness import Figures, Round, add
from property_tests.seeds import keeping
from property_tests.tally import tally
from tests.postgres import running


def main(words: Sequence[str]) -> int:
    """See the module. Raises Violation."""
    rounds = int(words[0]) if words else 50
    first = int(words[1]) if len(words) > 1 else random.SystemRandom().randrange(1 << 40)
    total = Figures()
    with running() as server:
        for seed in range(first, first + rounds):
            with tempfile.TemporaryDirectory() as place, keeping("chaos", seed):
                figures = Round(server, Path(place), seed).play()
            print(f"seed {seed}: {figures}", flush=True)
            total = add(total, figures)
    print(f"all: {total}")
    tally("chaos", seeds=range(first, first + rounds), **total.counts())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
