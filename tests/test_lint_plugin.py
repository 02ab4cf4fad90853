"""The lint as tests: `pytest --zart-lint=...` and `zart_lint = ...`."""

from __future__ import annotations

import pytest

from zart_core.lint import RULES
from zart_core.lint.rules import PRELUDE

pytest_plugins = ["pytester"]

BAD = PRELUDE + RULES["ZT101"].bad


@pytest.fixture
def run(pytester: pytest.Pytester):
    """Runs pytest in a folder with a test and a bad workflow in `app/flows.py`."""
    pytester.mkpydir("app").joinpath("flows.py").write_text(BAD)
    pytester.makepyfile(test_it="def test_fine(): ...")

    def run(*arguments: str) -> pytest.RunResult:
        return pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:xdist", *arguments)

    return run


def test_nothing_is_linted_without_being_asked(run):
    """The plugin is there, and adds no test."""
    run().assert_outcomes(passed=1)


def test_the_option_adds_a_test_for_each_target(run):
    """The one with findings fails, and shows them without a traceback."""
    result = run("--zart-lint=app", "--zart-lint=test_it.py", "--zart-lint=app")

    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*flows.py:*:13: ZT101 `time.time(...)` reads the clock*"])
    result.stdout.no_fnmatch_line("*Traceback*")


def test_a_target_that_is_not_there_fails(run):
    """With what to do."""
    result = run("--zart-lint=nope.py")

    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["there is no file 'nope.py'; give a file, a folder, *"])


def test_the_configuration_adds_them_too(run, pytester):
    """In every run but those of single tests; -k chooses among them."""
    pytester.makeini("[pytest]\nzart_lint = app\n")

    run().assert_outcomes(passed=1, failed=1)
    run("-k", "fine").assert_outcomes(passed=1, deselected=1)
    run("-k", "lint").assert_outcomes(failed=1, deselected=1)
    run("test_it.py::test_fine").assert_outcomes(passed=1)
