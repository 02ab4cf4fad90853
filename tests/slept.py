"""How long a process has waited, but for a processor: what a promise of seconds is about, however busy the machine.

Time in which one of its threads computed, or queued for a processor, is not waited for anything (Linux tells both of
each thread; elsewhere neither is taken off). What a thread had when it ended is kept, so that nothing is forgotten.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path

_ended: list[float] = []
_run = threading.Thread.run


def _run_and_tell(self: threading.Thread) -> None:
    try:
        _run(self)
    finally:
        _ended.append(_busy("/proc/thread-self/schedstat"))


def watch() -> None:
    """Keep what threads had when they ended, from now on."""
    threading.Thread.run = _run_and_tell  # type: ignore[method-assign]


def _busy(file: str) -> float:
    """Seconds that a thread computed or queued."""
    with contextlib.suppress(OSError):  # no Linux, or the thread has just ended
        running, queueing, _ = Path(file).read_text().split()
        return (int(running) + int(queueing)) / 1e9
    return 0.0


def now() -> float:
    """Seconds waited so far; only differences mean anything. Call `watch` before."""
    tasks = f"/proc/{os.getpid()}/task"
    threads = os.listdir(tasks) if os.path.isdir(tasks) else []
    busy = sum(_busy(f"{tasks}/{thread}/schedstat") for thread in threads)
    return time.monotonic() - busy - sum(_ended)
