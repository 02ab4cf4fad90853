"""The pytest plugin: fixtures that run workflows and crash them.

Rule 1: pytest loads this in every session, so nothing is imported before a fixture is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from zart_core.testing.clock import VirtualClock


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
