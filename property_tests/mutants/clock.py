"""A plugin of pytest that writes down how long each test took: `-p property_tests.mutants.clock`, ZART_CLOCK=FILE."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest

SECONDS: Counter[str] = Counter()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Set-up and tear-down count as well."""
    SECONDS[report.nodeid] += report.duration  # type: ignore[assignment]  # typeshed: a Counter's values are int


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Once, by the process that heard of all of them."""
    if not hasattr(session.config, "workerinput"):
        Path(os.environ["ZART_CLOCK"]).write_text(json.dumps(SECONDS))
