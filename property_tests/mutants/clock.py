"""A plugin of pytest that writes down the CPU time of each test: `-p property_tests.mutants.clock`, ZART_CLOCK=FILE.

Rule 1: CPU time, so that a busy machine makes no difference; that of processes which a test started and saw end, too.
"""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

SECONDS: dict[str, float] = {}


def spent() -> float:
    """CPU seconds of this process and of those that it has waited for."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Set-up and tear-down count as well."""
    before = spent()
    try:
        return (yield)
    finally:
        SECONDS[item.nodeid] = spent() - before


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A process of xdist has ended: take over what it wrote down. One that died has given nothing."""
    SECONDS.update(getattr(node, "workeroutput", {}).get("seconds", {}))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Handed on, or written to the file by the process that has all of them."""
    output = getattr(session.config, "workeroutput", None)
    if output is None:
        Path(os.environ["ZART_CLOCK"]).write_text(json.dumps(SECONDS))
    else:
        output["seconds"] = SECONDS
