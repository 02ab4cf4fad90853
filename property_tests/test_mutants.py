"""The tool that changes one small thing at a time: its changes, its sample, its list of equivalents, its control."""

from __future__ import annotations

import ast
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
