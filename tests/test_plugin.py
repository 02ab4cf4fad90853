"""The pytest plugin: what it offers, and that it costs next to nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest_plugins = ["pytester"]

WORKFLOWS = """
import itertools
import zart_core as zart
from zart_core.testing import RunResult, VirtualClock

@zart.step("one")
def one() -> int:
    return 1

@zart.workflow("plain")
def plain() -> zart.Flow[int]:
    yield from zart.sleep("nap", "1d")
    return (yield from one())
"""


def test_the_fixtures(pytester: pytest.Pytester):
    """zart_run, crashes and virtual_clock are there without an import or a conftest."""
    pytester.makepyfile(
        WORKFLOWS
        + """
def test_run(zart_run):
    assert zart_run(plain, steps={one: 7}).value == 7

def test_crashes(crashes):
    report = crashes(plain)
    assert len(report.runs) > 5

def test_clock(virtual_clock):
    virtual_clock.advance(days=1)
    assert virtual_clock.now() == VirtualClock().now() + 86400.0

def test_clock_again(virtual_clock):
    assert virtual_clock.now() == VirtualClock().now()
"""
    )

    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")

    result.assert_outcomes(passed=4)


def test_crashes_fails_the_test(pytester: pytest.Pytester):
    """The fixture `crashes` fails its test when there are violations, and shows the report."""
    pytester.makepyfile(
        WORKFLOWS
        + """
def test_crashes(crashes):
    crashes(plain, steps=lambda: {one: lambda calls=itertools.count(): next(calls)})
"""
    )

    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*workflow 'plain': * runs, * with crashes (depth 1), 2 outcomes, 2 violations*",
            "*one * 1 * 2  repeated: must be idempotent*",
            "*I10: the outcome is 'completed: 1', and without a crash 'completed: 0'*",
            "*explore_crashes(plain, steps=steps, points=[[]Point('effect', 0)[]]).check()*",
        ]
    )


def test_the_fixtures_are_listed(pytester: pytest.Pytester):
    """`pytest --fixtures` shows each with its first sentence."""
    result = pytester.runpytest_inprocess("--fixtures", "-p", "no:cacheprovider")

    result.stdout.fnmatch_lines(["zart_run -- *", "*run a workflow in memory and in virtual time.*"])
    result.stdout.fnmatch_lines(["crashes -- *", "*fails the test when there are violations.*"])
    result.stdout.fnmatch_lines(["virtual_clock -- *", "*stands still until it is moved.*"])


def test_nothing_of_the_kit_is_imported_before_it_is_asked_for():
    """Loading the plugin loads no module of the test kit, nor Hypothesis."""
    code = (
        "import sys, zart_core.testing.plugin as plugin\n"
        "kit = {name for name in sys.modules if name.startswith('zart_core.testing.')}\n"
        "assert kit == {'zart_core.testing.plugin'}, kit\n"
        "assert 'hypothesis' not in sys.modules\n"
    )

    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_is_there():
    """zart_core.testing gives each of its names when it is asked for, and no other."""
    import zart_core.testing

    for name in zart_core.testing.__all__:
        assert getattr(zart_core.testing, name) is not None
    assert dir(zart_core.testing) == zart_core.testing.__all__
    with pytest.raises(AttributeError, match="no attribute 'simulate_all'"):
        zart_core.testing.simulate_all
