"""The pytest plugin: fixtures that run workflows and crash them, and the lint as tests.

Rule 1: pytest loads this in every session, so nothing is imported before a fixture is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from zart_core.testing.clock import VirtualClock


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--zart-lint` and `zart_lint`: what the lint looks through as tests."""
    parser.getgroup("zart").addoption(
        "--zart-lint",
        action="append",
        default=[],
        metavar="PATH_OR_MODULE",
        help="test that the workflows of a file, folder or module have no findings of zart lint",
    )
    parser.addini(
        "zart_lint", "files, folders and modules for --zart-lint in every run", type="args", default=[]
    )


@pytest.hookimpl(tryfirst=True)  # so that -k and -m choose among these, too
def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Add a test for each target of the lint; those of the configuration not where single tests are asked for."""
    single = any("::" in argument for argument in config.args)
    targets = [*(config.getoption("zart_lint") or ()), *(() if single else config.getini("zart_lint") or ())]
    if targets:
        from zart_core.testing.linting import items_for

        items += items_for(session, targets)


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
