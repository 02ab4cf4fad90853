"""Plant each bug and play the generic harnesses until one notices: `python -m property_tests.seeded_bugs [N ...]`.

With --by NAME only the bugs that this harness is known to notice are planted, and only it is played, also against the
tree as it is: every run of CI does so for every harness. The exit code is 1 when something was not noticed, or when a
harness complains about the tree as it is.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterator, Sequence

import attrs

from property_tests.seeded_bugs.bugs import BUGS, Bug
from property_tests.seeded_bugs.patching import in_child, patched, try_harness
from property_tests.tally import tally

HARNESSES = (
    "laws",
    "machine memory",
    "machine file",
    "machine sqlite",
    "power loss",
    "crash points",
    "weather",
    "simulation",
    "contract memory",
    "contract file",
    "contract sqlite",
    "bit flips",
)
"""In the order in which they are tried, the cheapest first."""
WARM = (
    "hypothesis",
    "hypothesis.stateful",
    "asyncio",
    "pytest",
    "attrs",
    "cattrs.preconf.msgspec",
    "msgspec",
    "sqlite3",
    "psycopg",
    "psycopg_pool",
)
"""What children need not import again."""


@attrs.frozen
class Verdict:
    """What came of one bug."""

    bug: Bug
    harness: str
    """Which noticed; empty when none did."""
    told: str
    seconds: float


def judge(bug: Bug, harnesses: Sequence[str]) -> Verdict:
    """Play harnesses until one notices."""
    seconds = 0.0
    for harness in harnesses:
        answer, spent = in_child(lambda harness=harness: try_harness(harness, bug))
        seconds += spent
        if "failed" in answer:
            raise RuntimeError(f"bug {bug.number} cannot be tried with {harness}:\n{answer['failed']}")
        told = answer.get("died") or answer["noticed"]
        if told:
            return Verdict(bug, harness, told, seconds)
    return Verdict(bug, "", "nothing noticed", seconds)


def healthy(harnesses: Sequence[str]) -> Iterator[str]:
    """Play harnesses against the tree as it is; gives what any of them has to complain about."""
    for harness in harnesses:
        answer, spent = in_child(lambda harness=harness: try_harness(harness, None))
        told = answer.get("died") or answer.get("failed") or answer["noticed"]
        print(
            f"{'':4} {'':9} {'(no bug)':60} {harness:16} {spent:5.1f} s  {told or 'quiet, as it should be'}",
            flush=True,
        )
        if told:
            yield f"{harness} complains about the tree as it is: {told}"


def order_for(bug: Bug, harnesses: Sequence[str]) -> list[str]:
    """The harnesses to play for a bug: the one that is known to notice comes first."""
    return sorted(harnesses, key=lambda harness: harness != bug.first)


def main(words: Sequence[str]) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m property_tests.seeded_bugs")
    parser.add_argument("numbers", nargs="*", type=int, help="the bugs to plant; all by default")
    parser.add_argument(
        "--by", choices=HARNESSES, help="play only this harness, for the bugs that it notices"
    )
    chosen = parser.parse_args(words)
    for bug in BUGS:
        patched(bug)
    for name in WARM:
        importlib.import_module(name)
    harnesses = [chosen.by] if chosen.by else HARNESSES
    bugs = [
        bug
        for bug in BUGS
        if (not chosen.numbers or bug.number in chosen.numbers) and (not chosen.by or bug.first == chosen.by)
    ]
    complaints = [] if chosen.numbers else list(healthy(harnesses))
    verdicts = [shown(judge(bug, order_for(bug, harnesses))) for bug in bugs]
    caught = sum(bool(verdict.harness) for verdict in verdicts)
    print(f"{caught} of {len(verdicts)} bugs caught, {sum(v.seconds for v in verdicts):.0f} CPU seconds")
    for complaint in complaints:
        print(complaint)
    if not chosen.numbers:
        tally("seeded bugs", bugs=len(verdicts), caught=caught)
    return int(caught < len(verdicts) or bool(complaints))


def shown(verdict: Verdict) -> Verdict:
    """Print a line of the table."""
    bug = verdict.bug
    left = f"{bug.number:4} {bug.breaks:9} {bug.what[:60]:60} {verdict.harness or '---':16}"
    print(f"{left} {verdict.seconds:5.1f} s  {verdict.told[:100]}", flush=True)
    return verdict


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
