"""Change one small thing at a time and see a test notice: `python -m property_tests.mutants [TESTS] [--sample N]`.

TESTS are run once under coverage, and each mutant is shown to those of them that pass through its line, the quickest
first, and then, if none minds, to generic harnesses. What nobody noticed is printed as a diff. The exit code is 1 when
fewer than 90 % were noticed, or when a known mutant was not, or a harmless one was.
"""

from __future__ import annotations

import argparse
import bisect
import functools
import importlib
import itertools
import multiprocessing
import random
import sys
from collections import defaultdict
from collections.abc import Sequence

import attrs

from property_tests.mutants import passing
from property_tests.mutants.equivalent import reason
from property_tests.mutants.operators import Mutant, difference, mutants, mutated
from property_tests.seeded_bugs.__main__ import WARM
from property_tests.seeded_bugs.patching import ROOT, Finder, in_child, played
from property_tests.tally import tally

NOTICED_MIN = 0.9
KNOWN = "zart_core/waiting.py"
NOTICES = "tests/test_waiting.py::test_waiting_for_all_counts_down"
"""What notices the first `not` that is dropped there: the control."""
TESTS_S_MAX = 60.0
"""CPU seconds that the tests for one mutant may have taken together when they ran as the tree is."""
WAITING_S = 300.0
"""Seconds that tests may wait together, beside their CPU time: more than all of them do."""
MORE: tuple[tuple[str, Sequence[str]], ...] = (
    ("zart_stores/memory.py", ("machine memory",)),
    ("zart_stores/file/", ("machine file", "power loss")),
    ("zart_stores/sql/", ("machine sqlite",)),
    ("zart_stores/", ("machine memory", "machine file", "machine sqlite")),
    ("zart_core/", ("laws", "crash points")),
)
"""By the beginning of a file's name, what is played when its tests have noticed nothing."""


@attrs.frozen
class Trial:
    """A mutant, and what it is shown to."""

    mutant: Mutant
    tests: Sequence[str]
    """Names of tests, the quickest first."""
    seconds: float
    """The CPU time that they take as the tree is, under coverage."""
    harnesses: Sequence[str]
    """Names of harnesses of the seeded bugs."""


@attrs.frozen
class Verdict:
    """What came of one mutant."""

    mutant: Mutant
    by: str
    """Which noticed: "tests" or a harness; empty when none did."""
    told: str


def judge(trial: Trial) -> Verdict:
    """Run tests, then harnesses, until one notices."""
    mutant = trial.mutant
    source = (ROOT / mutant.file).read_text(encoding="utf-8")
    works = [("tests", functools.partial(play_tests, trial.tests))] if trial.tests else []
    works += [(name, functools.partial(play_harness, name)) for name in trial.harnesses]
    for name, work in works:
        limits = (int(20 + 3 * trial.seconds), WAITING_S + 10 * trial.seconds) if name == "tests" else ()
        answer, _ = in_child(
            functools.partial(played, work, Finder(mutant.file, mutated(mutant, source))), *limits
        )
        if "failed" in answer:
            raise RuntimeError(
                f"{difference(mutant, source)}\ncannot be tried with {name}:\n{answer['failed']}"
            )
        told = answer.get("died") or answer["noticed"]
        if told:
            return Verdict(mutant, name, told)
    return Verdict(mutant, "", "nothing noticed")


def play_tests(names: Sequence[str]) -> None:
    """Tests by name, in their order; in a child only."""
    from property_tests.seeded_bugs import harnesses

    harnesses.budget(100)
    files = dict.fromkeys(name.partition("::")[0] for name in names)
    harnesses.tests(*files, order=names)


def play_harness(name: str) -> None:
    """A harness of the seeded bugs; in a child only."""
    from property_tests.seeded_bugs.harnesses import HARNESSES

    HARNESSES[name]()


def trial_of(mutant: Mutant, known: passing.Passing) -> Trial:
    """With the tests that pass through its line, as far as they fit into the time."""
    names = known.tests(mutant.file, mutant.line)
    ends = list(itertools.accumulate(known.seconds[name] for name in names))
    count = bisect.bisect_right(ends, TESTS_S_MAX)
    harnesses = next(harnesses for beginning, harnesses in MORE if mutant.file.startswith(beginning))
    return Trial(mutant, names[:count], ends[count - 1] if count else 0.0, harnesses)


def controlled() -> list[str]:
    """What is wrong with the judge: it notices a known mutant, and not one that changes nothing."""
    source = (ROOT / KNOWN).read_text(encoding="utf-8")
    known = next(mutant for mutant in mutants(KNOWN, source) if mutant.kind == "not")
    harmless = attrs.evolve(known, new=source[known.start : known.end])
    verdicts = [judge(Trial(mutant, [NOTICES], 1.0, ())) for mutant in (known, harmless)]
    wrong = [] if verdicts[0].by else [f"not noticed:\n{difference(known, source)}"]
    return wrong + ([f"it changes nothing, and was noticed: {verdicts[1].told}"] if verdicts[1].by else [])


def sampled(all_of_them: Sequence[Mutant], size: int, seed: int) -> list[Mutant]:
    """A sample in which each file has its share."""
    chance = random.Random(seed)
    step = max(1.0, len(all_of_them) / size)
    mixed = sorted(all_of_them, key=lambda mutant: (mutant.file, chance.random()))
    place = chance.random() * step
    chosen = []
    while place < len(mixed):
        chosen.append(mixed[int(place)])
        place += step
    return chosen


def main(words: Sequence[str]) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m property_tests.mutants")
    parser.add_argument(
        "tests", nargs="*", help="files of tests; none: those of the last run, as it saw them"
    )
    parser.add_argument("--sample", type=int, metavar="N", help="about so many mutants; all by default")
    parser.add_argument(
        "--seed", type=int, default=random.SystemRandom().getrandbits(32), help="of the sample"
    )
    parser.add_argument("--only", default="", metavar="FILE", help="files whose names begin so")
    parser.add_argument("--line", type=int, metavar="N", help="of that file")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="processes; 2 by default")
    parser.add_argument("--control", action="store_true", help="only a known mutant and a harmless one")
    chosen = parser.parse_args(words)
    for name in WARM:
        importlib.import_module(name)
    complaints = controlled()
    print("\n".join(complaints) or "a known mutant was noticed, a harmless one was not")
    if complaints or chosen.control:
        return int(bool(complaints))
    known = passing.run(chosen.tests, chosen.jobs) if chosen.tests else passing.kept()
    sources = {file: (ROOT / file).read_text(encoding="utf-8") for file in passing.modules()}
    found = [mutant for file, source in sources.items() for mutant in mutants(file, source)]
    found = [m for m in found if m.file.startswith(chosen.only) and chosen.line in (None, m.line)]
    changes = [mutant for mutant in found if not reason(mutant, sources[mutant.file])]
    sample = sampled(changes, chosen.sample or len(changes), chosen.seed)
    equivalent = len(found) - len(changes)
    print(
        f"{len(sample)} of {len(changes)} mutants, seed {chosen.seed}; {equivalent} more are equivalent",
        flush=True,
    )
    verdicts: list[Verdict] = []
    with multiprocessing.get_context("fork").Pool(chosen.jobs) as pool:
        for verdict in pool.imap_unordered(judge, [trial_of(mutant, known) for mutant in sample]):
            verdicts.append(verdict)
            if not verdict.by:
                print(difference(verdict.mutant, sources[verdict.mutant.file]), flush=True)
    print(table(verdicts))
    noticed = sum(bool(verdict.by) for verdict in verdicts)
    if not chosen.only:
        tally("mutants", seeds=[chosen.seed], mutants=len(verdicts), noticed=noticed)
    return int(noticed < NOTICED_MIN * len(verdicts))


def table(verdicts: Sequence[Verdict]) -> str:
    """How many were noticed of each file's, and in all."""
    by_file: defaultdict[str, list[Verdict]] = defaultdict(list)
    for verdict in sorted(verdicts, key=lambda verdict: verdict.mutant.file):
        by_file[verdict.mutant.file].append(verdict)
    rows = [*by_file.items(), ("all", verdicts)]
    return "\n".join(row(name, members) for name, members in rows)


def row(name: str, verdicts: Sequence[Verdict]) -> str:
    """A line of the table."""
    noticed = [verdict for verdict in verdicts if verdict.by]
    late = sum(verdict.by != "tests" for verdict in noticed)
    share = 100 * len(noticed) / max(1, len(verdicts))
    return (
        f"{name:40} {len(noticed):5} of {len(verdicts):5} noticed, {share:5.1f} %, {late} by harnesses alone"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
