"""What tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from played import Run

import zart_core as zart


@pytest.fixture
def play() -> Iterator[Callable[..., Run]]:
    """Play a run of a workflow by hand; its branches are closed in the end."""
    runs: list[Run] = []

    def begin(workflow: zart.Workflow[Any, Any], **options: Any) -> Run:
        runs.append(Run(workflow, **options))
        return runs[-1]

    yield begin
    for run in runs:
        run.close()
