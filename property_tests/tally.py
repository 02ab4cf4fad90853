"""What harnesses have counted: lines of JSON beside the tree, from which docs/reliability.md takes its figures.

One file per test run and one line per call; calls of one harness in one run are added up, over processes, too.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".pytest_cache" / "zart-tally"


def tally(harness: str, *, seeds: Iterable[int] = (), **counts: int) -> None:
    """Put what a harness has counted on record; call it when its assertions have passed.

    Args:
        harness: the name of the row, for instance "crash points".
        seeds: those that the run drew, if it draws any.
        counts: what was counted, by name; a name that ends in `_max` keeps the greatest value, others are summed.
    """
    line = {
        "harness": harness,
        "at": time.time(),
        "commit": commit(),
        "deep": bool(os.environ.get("ZART_DEEP")),
        "seeds": list(seeds),
        "counts": counts,
    }
    folder = Path(os.environ.get("ZART_TALLY", FOLDER))
    folder.mkdir(parents=True, exist_ok=True)
    data = (json.dumps(line) + "\n").encode()
    descriptor = os.open(folder / f"{run_id()}.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, data)  # one write: lines of other processes cannot come in between
    finally:
        os.close(descriptor)


def run_id() -> str:
    """One test run, the same in all of its processes: `conftest.py` names it."""
    return os.environ.get("ZART_RUN") or f"alone-{os.getpid()}-{started()}"


@functools.cache
def started() -> int:
    """When this process first counted, so that a process id that comes again is no older run."""
    return time.time_ns()


@functools.cache
def commit() -> str:
    """The commit that is measured, with a + if the tree was changed since; "?" outside of a checkout."""
    try:
        head = git("rev-parse", "--short=10", "HEAD")
        return head + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "?"


def git(*words: str) -> str:
    """What git says about this checkout."""
    done = subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout.strip()
