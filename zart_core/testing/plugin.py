"""The pytest plugin: fixtures that run workflows and crash them, the lint and recorded histories as tests.

Rule 1: pytest loads this in every session, so nothing is imported before a fixture or a folder is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from zart_core.testing.clock import VirtualClock


def pytest_addoption(parser: pytest.Parser) -> None:
    """What is looked through as tests: sources by the lint, recorded histories by a replay."""
    group = parser.getgroup("zart")
    group.addoption(
        "--zart-lint",
        action="append",
        default=[],
        metavar="PATH_OR_MODULE",
        help="test that the workflows of a file, folder or module have no findings of zart lint",
    )
    group.addoption(
        "--zart-histories",
        action="append",
        default=[],
        metavar="DIR",
        help="replay every recorded history in this folder against the code at hand, as a test each",
    )
    group.addoption(
        "--zart-workflows",
        action="append",
        default=[],
        metavar="MODULE_OR_FILE",
        help="where the workflows are that histories are replayed against",
    )
    group.addoption(
        "--zart-relaxed",
        action="store_true",
        help="compare kinds and names only: not arguments, durations and results",
    )
    parser.addini(
        "zart_lint", "files, folders and modules for --zart-lint in every run", type="args", default=[]
    )
    parser.addini("zart_histories", "folders for --zart-histories in every run", type="paths", default=[])
    parser.addini("zart_workflows", "modules for --zart-workflows in every run", type="args", default=[])


@pytest.hookimpl(tryfirst=True)  # so that -k and -m choose among these, too
def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Add a test for each target of the lint and each history; those of the settings not if single tests are named."""
    single = any("::" in argument for argument in config.args)
    targets = [*(config.getoption("zart_lint") or ()), *(() if single else config.getini("zart_lint") or ())]
    if targets:
        from zart_core.testing.linting import items_for

        items += items_for(session, targets)
    named: list[str] = config.getoption("zart_histories") or []
    folders = [Path(place) for place in named] or (
        [] if single else list[Path](config.getini("zart_histories"))
    )
    if folders:
        from zart_core.testing.recorded_histories import items_of

        items += items_of(config, session, folders)


@pytest.fixture
def zart_run() -> Callable[..., Any]:
    """`zart_core.testing.run`: run a workflow in memory and in virtual time."""
    from zart_core.testing.running import run

    return run


@pytest.fixture
def crashes() -> Callable[..., Any]:
    """`zart_core.testing.explore_crashes`, which fails the test when there are violations."""
    from zart_core.testing.crashes import explore_crashes

    def explore(*args: Any, **options: Any) -> Any:
        report = explore_crashes(*args, **options)
        report.check()
        return report

    return explore


@pytest.fixture
def perturbed() -> Callable[..., Any]:
    """`zart_core.testing.perturbed`, which fails the test when a workflow is not deterministic."""
    from zart_core.testing.perturbation import perturbed

    def replay(*args: Any, **options: Any) -> Any:
        report = perturbed(*args, **options)
        report.check()
        return report

    return replay


@pytest.fixture
def virtual_clock() -> VirtualClock:
    """A clock that stands still until it is moved."""
    from zart_core.testing.clock import VirtualClock

    return VirtualClock()
