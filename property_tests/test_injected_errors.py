"""Each system call of the real stores fails once, at every n-th of its kind: F5 to F8 hold, nothing is lost.

Errors are injected with strace. Where it cannot run these tests fail; ZART_NO_STRACE=1 passes them over, aloud. In each
run of CI at most SAMPLE places are tried of each kind, with the deep run all of them.
"""

import contextlib
import json
import os
import random
from collections import Counter

import pytest
from injected import OPENERS, digest
from seeds import fresh, keeping, kept
from tally import tally
from warm import Nursery

from zart_core.testing import probe

DEEP = bool(os.environ.get("ZART_DEEP"))
SAMPLE = 10_000 if DEEP else 9
ERRORS = {
    "fdatasync": ["EIO", "EINTR"],
    "fsync": ["EIO"],
    "pwrite64": ["EIO", "ENOSPC", "EINTR"],
    "pread64": ["EIO"],
    "openat": ["EIO", "EMFILE"],
    "ftruncate": ["EIO"],
    "rename": ["EIO", "ENOSPC"],
    "mkdir": ["ENOSPC"],
    "unlink": ["EIO"],
    "flock": ["ENOLCK"],
}

pytestmark = pytest.mark.skipif(
    bool(os.environ.get("ZART_NO_STRACE")),
    reason="ZART_NO_STRACE is set: errors of system calls are NOT injected",
)


def places(count, chance):
    """At which calls: the first, the last, and some between."""
    numbers = range(1, count + 1)
    if count <= SAMPLE:
        return list(numbers)
    return sorted({1, count, *chance.sample(numbers, SAMPLE - 2)})


def lived(nursery, url, seed, call, trace, *options):
    """Run the workload; gives what it printed, and the lines that strace wrote."""
    child = nursery.fork([url, str(seed), call])
    child.trace(*options, output=str(trace))
    child.begin()
    said, errors = child.stdout.read(), child.stderr.read()
    assert child.kill() in (0, 1), errors
    assert said, errors
    return json.loads(said), trace.read_text()


@pytest.mark.parametrize("scheme", ["file", "sqlite"])
def test_one_call_fails(scheme, tmp_path):
    """Outcomes are those that were promised, and another process finds what was acknowledged, and nothing else."""
    tried, seen = 0, Counter()
    with Nursery("property_tests.injected") as nursery:
        for seed in [*kept("injected-errors"), *fresh("injected-errors", 1)]:
            with keeping("injected-errors", seed):
                each, counted = one_seed(nursery, scheme, seed, tmp_path)
                tried, seen = tried + each, seen + counted
    print(f"{scheme}: {tried} errors, {dict(seen)}")
    assert tried >= 60
    assert seen["unknown"] >= 2 and seen["weather"] >= 2
    tally("injected errors", errors=tried, unknown=seen["unknown"], rejected=seen["rejected"])


def test_control(tmp_path):
    """A store that takes a failed write for a good one is caught."""
    with Nursery("property_tests.injected") as nursery:
        inject = ("-e", "trace=pwrite64", "-e", "inject=pwrite64:error=EIO:when=6")
        said, lines = lived(nursery, f"file:{tmp_path}/log", 1, "lying", tmp_path / "trace", *inject)
    assert "INJECTED" in lines
    assert "violation" in said


def one_seed(nursery, scheme, seed, tmp_path):
    chance, tried, seen, trace = random.Random(seed), 0, Counter(), tmp_path / f"trace-{seed}"
    clean = tmp_path / f"clean-{seed}"
    clean.mkdir()
    names = ",".join(ERRORS)
    said, lines = lived(nursery, f"{scheme}:{clean}/log", seed, "none", trace, "-e", f"trace={names}")
    assert said["seen"].keys() == {"ok"}, said
    counts = Counter(line.split("(")[0].split()[-1] for line in lines.splitlines() if "(" in line)
    for call, errors in ERRORS.items():
        for error in errors:
            for n in places(counts[call], chance):
                place = tmp_path / f"{seed}-{call}-{error}-{n}"
                place.mkdir()
                url = f"{scheme}:{place}/log"
                inject = ("-e", f"trace={call}", "-e", f"inject={call}:error={error}:when={n}")
                said, lines = lived(nursery, url, seed, call, trace, *inject)
                assert "INJECTED" in lines, (call, n)
                where = f"{scheme}, seed {seed}, {error} at the {n}. {call}"
                assert "violation" not in said, f"{where}: {said['violation']}"
                with contextlib.closing(OPENERS[scheme](url, "power")) as log:
                    log.verify()
                    assert digest(probe.picture(log)) == said["picture"], where
                tried += 1
                seen.update(said["seen"])
    return tried, seen
