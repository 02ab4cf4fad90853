"""A process of its own for each change: forked from a warm parent, it imports the project with one file replaced.

Rule 1: a bug whose old line is not there exactly once is refused, so that none rots in silence.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from property_tests.seeded_bugs.bugs import Bug

ROOT = Path(__file__).resolve().parent.parent.parent
CPU_S_MAX = 40
"""What ends a child that a bug keeps from ending: CPU time, so that a busy machine makes no difference."""
WALL_S_MAX = 1200
"""What ends a child that waits for what will never come."""
MEMORY_BYTES_MAX = 4 << 30


class Stale(Exception):
    """The old line of a bug is not there exactly once."""


def patched(bug: Bug) -> str:
    """The source of the bug's file with its line replaced. Raises Stale."""
    source = (ROOT / bug.file).read_text(encoding="utf-8")
    found = source.count(bug.old)
    if found != 1 or bug.old == bug.new:
        raise Stale(f"bug {bug.number}, {bug.file}: its old text is there {found} times: {bug.old!r}")
    source = source.replace(bug.old, bug.new)
    compile(source, bug.file, "exec")
    return source


class Loader(importlib.machinery.SourceFileLoader):
    """Loads one module from text that is not in its file."""

    def __init__(self, name: str, path: str, text: str) -> None:
        super().__init__(name, path)
        self.text = text

    def get_code(self, fullname: str) -> CodeType:
        """Past the cache of compiled files."""
        return compile(self.text, self.path, "exec", dont_inherit=True)


class Finder(importlib.abc.MetaPathFinder):
    """Finds a module of other text before anybody else finds the one that is there."""

    def __init__(self, file: str, text: str) -> None:
        self.name = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        self.path = str(ROOT / file)
        self.text = text
        self.loaded = False

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The patched module, by its name."""
        if name != self.name:
            return None
        self.loaded = True
        loader = Loader(name, self.path, self.text)
        return importlib.util.spec_from_file_location(name, self.path, loader=loader)


def in_child(
    work: Callable[[], Any], cpu_s: int = CPU_S_MAX, wall_s: float = WALL_S_MAX
) -> tuple[Any, float]:
    """Do work in a forked process; gives what it gives, as JSON does, and the CPU seconds it took.

    A child that is killed, also by its limit of CPU time, gives {"died": "signal N"}. What it started and left behind
    is killed with it.
    """
    reading, writing = os.pipe()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        os.close(reading)
        code = 1
        try:
            quiet(cpu_s)
            answer = json.dumps(work()).encode()
            code = 0
        except BaseException:
            answer = json.dumps({"failed": traceback.format_exc(limit=-6)[-4000:]}).encode()
        with os.fdopen(writing, "wb") as out:
            out.write(answer)
        os._exit(code)
    os.close(writing)
    data = answered(reading, time.monotonic() + wall_s)
    with contextlib.suppress(ProcessLookupError):  # there may be no group yet, or none any more
        os.killpg(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if not data:
        return {"died": f"signal {os.WTERMSIG(status)}"}, spent
    return json.loads(data), spent


def answered(reading: int, until: float) -> bytes:
    """All that comes out of a pipe, which is closed; nothing when it has not ended in time."""
    data = b""
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        while select.select([pipe], [], [], max(0.0, until - time.monotonic()))[0]:
            more = pipe.read(1 << 16)
            if not more:
                return data
            data += more
    return b""


def quiet(cpu_s: int) -> None:
    """Limits for a child, and nothing of it on the screen."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 5))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)


def try_harness(harness: str, bug: Bug | None) -> dict[str, Any]:
    """Play one harness against the tree with a bug in it, or as it is; call it in a child only.

    Gives {"noticed": what it said, or None; "seconds": CPU}.
    """

    def play() -> None:
        from property_tests.seeded_bugs.harnesses import HARNESSES

        HARNESSES[harness]()

    finder = None if bug is None else Finder(bug.file, patched(bug))
    return played(play, finder)


def played(play: Callable[[], None], finder: Finder | None) -> dict[str, Any]:
    """Call `play`, which imports the project with what `finder` finds; gives what `try_harness` gives."""
    loaded = [name for name in sys.modules if name.partition(".")[0] in ("zart_core", "zart_stores")]
    assert not loaded, f"the parent has imported {loaded}"
    if finder is not None:
        sys.meta_path.insert(0, finder)
    began = time.process_time()
    try:
        play()
    except BaseException as error:
        if isinstance(error, ImportError):
            raise  # the harness itself cannot be had
        told = f"{type(error).__name__}: {error}".strip().splitlines()[0][:200]
        return {"noticed": told, "seconds": time.process_time() - began}
    finally:
        assert finder is None or finder.loaded, f"{finder.name} is not used"
    return {"noticed": None, "seconds": time.process_time() - began}
