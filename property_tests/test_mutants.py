"""The tool that changes one small thing at a time: its changes, its sample, its list of equivalents, its control."""

from __future__ import annotations

import ast
import json
import os
import random
import subprocess
import sys
import textwrap

from property_tests.mutants import passing
from property_tests.mutants.__main__ import sampled
from property_tests.mutants.equivalent import EQUIVALENT, reason
from property_tests.mutants.operators import Mutant, difference, mutants, mutated
from property_tests.tally import ROOT

SNIPPET = textwrap.dedent(
    '''
    """Text: 1 + 1."""
    from typing import TYPE_CHECKING
    if TYPE_CHECKING:
        import this
    SIZE: int | None = 3
    T_co = TypeVar("T_co", covariant=True)

    def protocol(size: int = 1) -> int:
        """No more."""

    def begin(self) -> None:
        self.size = 1
        """Of it."""

    @decorated(size=1)
    def f(a: int, b: bool = False) -> int | None:
        """é < 1."""
        once = a
        if (a) < 2 and not b:
            a += 1
        elif a is None:
            raise ValueError("é")
        assert a == 1
        return g("é", a - 1)
    '''
)


CLOCKED = textwrap.dedent(
    """
    import subprocess, sys, time

    BUSY = "import time\\nwhile time.process_time() < 0.2: pass"

    def test_busy():
        end = time.process_time() + 0.2
        while time.process_time() < end:
            pass

    def test_child():
        subprocess.run([sys.executable, "-c", BUSY], check=True)

    def test_idle():
        pass
    """
)


def changes(source: str) -> list[str]:
    """Each mutant of a text as its kind and the changed line."""
    found = []
    for mutant in mutants("f.py", source):
        diff = difference(mutant, source).splitlines()[3:]
        found.append(
            f"{mutant.kind}: {' / '.join(line[1:].strip() for line in diff if line.startswith('+'))}"
        )
    return found


def test_each_kind_of_change():
    """Those of a snippet, in its order, and nothing in what is no behaviour."""
    assert changes(SNIPPET) == [
        "constant: SIZE: int | None = 4",
        "removed statement: pass",
        "constant: self.size = 2",
        "constant: def f(a: int, b: bool = True) -> int | None:",
        "early return: return None",
        "swapped branch: if not ((a) < 2 and not b):",
        "comparison: if (a) <= 2 and not b:",
        "constant: if (a) < 3 and not b:",
        "boolean: if (a) < 2 or not b:",
        "not: if (a) < 2 and b:",
        "removed statement: pass",
        "arithmetic: a -= 1",
        "constant: a += 2",
        "comparison: elif a is not None:",
        "removed statement: pass",
        "early return: return None",
        'arithmetic: return g("é", a + 1)',
        'constant: return g("é", a - 2)',
    ]


def test_every_module_gives_mutants_that_compile():
    """Modules are found by their pattern, the interpreter and every store but PostgreSQL's among them."""
    files = passing.modules()
    stores = ("memory.py", "file/journal.py", "sql/sqlite.py")
    assert {"zart_core/interpreter.py", *(f"zart_stores/{name}" for name in stores)} <= set(files)
    for file in files:
        source = (ROOT / file).read_text(encoding="utf-8")
        found = mutants(file, source)
        for mutant in random.Random(file).sample(found, min(2, len(found))):
            changed = mutated(mutant, source)
            ast.parse(changed)
            assert changed != source


def test_each_equivalent_is_a_mutant_still():
    """A line that has gone is taken off the list; each has its reason."""
    for one in EQUIVALENT:
        source = (ROOT / one.file).read_text(encoding="utf-8")
        assert one.why
        assert any(
            (mutant.kind, mutant.new) == (one.kind, one.new)
            and source.splitlines()[mutant.line - 1].strip() == one.line
            for mutant in mutants(one.file, source)
        ), one
    unknown = Mutant("zart_core/waiting.py", 1, "constant", 0, 1, "nothing")
    assert not reason(unknown, "x\n")


def test_tests_of_a_line():
    """The quickest first; a line that is passed at import, seen by coverage or not, is of all that pass the file."""
    lines = {"f.py": {1: [""], 3: ["slow", "quick", "unmeasured"], 5: ["other"]}, "g.py": {3: ["elsewhere"]}}
    known = passing.Passing({"slow": 2.0, "quick": 1.0, "other": 1.5, "elsewhere": 0.0}, lines)
    assert known.tests("f.py", 3) == ["quick", "slow"]
    assert known.tests("f.py", 5) == ["other"]
    assert known.tests("f.py", 1) == known.tests("f.py", 2) == ["quick", "other", "slow"]
    assert known.tests("h.py", 1) == []


def test_the_clock_counts_cpu_time(tmp_path):
    """Of each test by its name, with what it starts, in one process or several."""
    (tmp_path / "test_it.py").write_text(CLOCKED)
    for processes in ("0", "2"):
        clock = tmp_path / f"clock-{processes}.json"
        words = ["-q", "-p", "property_tests.mutants.clock", "-n", processes, "--rootdir", str(tmp_path)]
        subprocess.run(
            [sys.executable, "-m", "pytest", *words, "test_it.py"],
            cwd=tmp_path,
            check=True,
            env={**os.environ, "ZART_CLOCK": str(clock), "PYTHONPATH": str(ROOT)},
        )
        seconds = json.loads(clock.read_text())
        assert set(seconds) == {"test_it.py::test_busy", "test_it.py::test_child", "test_it.py::test_idle"}
        assert seconds["test_it.py::test_busy"] >= 0.2
        assert seconds["test_it.py::test_child"] >= 0.2


def test_a_sample_is_of_its_seed_and_of_each_file():
    """The same again for the same seed; every file has its share."""
    many = [Mutant(f"{n % 4}.py", n, "not", 0, 0, "") for n in range(400)]
    sample = sampled(many, 40, 7)
    assert sample == sampled(many, 40, 7) != sampled(many, 40, 8)
    assert [sum(mutant.file == f"{n}.py" for mutant in sample) for n in range(4)] == [10, 10, 10, 10]
    assert sorted(sampled(many, 400, 1), key=lambda mutant: mutant.line) == many


def test_the_judge_notices_what_is_known_and_nothing_else():
    """In processes of its own."""
    command = [sys.executable, "-m", "property_tests.mutants", "--control"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "a known mutant was noticed, a harmless one was not\n"), (
        done.stderr
    )
