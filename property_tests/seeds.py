"""Seeds that once failed, kept for ever: each harness plays its own first, then fresh ones.

    for seed in [*kept("simulation"), *fresh("simulation", 8000)]:
        with keeping("simulation", seed):
            play(seed)

Rule 1: `seeds.txt` holds a line for each: the harness, the seed, and why it is there. Lines are added, never taken out.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FILE = Path(__file__).with_name("seeds.txt")
LINE = re.compile(r"(?P<harness>[a-z0-9-]+) (?P<seed>\d+)(?: +# .*)?")


def kept(harness: str, file: Path = FILE) -> list[int]:
    """The seeds of a harness, the oldest first; all of ZART_SEED (`1,2,3`) before them, where it is set.

    Raises ValueError for a line that is none.
    """
    asked = [int(seed) for seed in os.environ.get("ZART_SEED", "").split(",") if seed.strip()]
    return list(dict.fromkeys([*asked, *(seed for each, seed in lines(file) if each == harness)]))


def keep(harness: str, seed: int, why: str = "", file: Path = FILE) -> bool:
    """Add a seed to the file, unless it is there; tells whether it was added. One write, so that processes may race."""
    if (harness, seed) in lines(file):
        return False
    line = f"{harness} {seed}" + (f"  # {' '.join(why.split())[:80]}" if why else "")
    if not LINE.fullmatch(line):
        raise ValueError(
            f"no harness and seed: {line!r}; write a harness as lower-case-words, a seed as a number"
        )
    with file.open("a", encoding="utf-8") as text:
        text.write(line + "\n")
    return True


@contextmanager
def keeping(harness: str, seed: int, file: Path = FILE) -> Iterator[None]:
    """Whatever fails inside names the seed, and the seed is kept."""
    try:
        yield
    except Exception as error:
        keep(harness, seed, f"{type(error).__name__}: {error}", file)
        error.add_note(
            f"harness {harness}, seed {seed}; it is kept in {file.name} and played first from now on"
        )
        raise


def fresh(harness: str, count: int) -> range:
    """So many seeds that follow each other from a random one, which is printed; none are wanted twice."""
    first = random.SystemRandom().randrange(1 << 40)
    print(f"{harness}: seeds {first} to {first + count - 1}, after {len(kept(harness))} that are kept")
    return range(first, first + count)


def lines(file: Path) -> list[tuple[str, int]]:
    """All that the file holds. Raises ValueError for a line that is none."""
    found: list[tuple[str, int]] = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines() if file.exists() else [], 1):
        if not line or line.startswith("#"):
            continue
        match = LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"{file.name}:{number}: {line!r} is not `harness seed  # why`")
        found.append((match["harness"], int(match["seed"])))
    return found
