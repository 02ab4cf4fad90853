"""How long Hypothesis looks, as long as wanted with ZART_DEEP=1; and a home for logs."""

from __future__ import annotations

import gc
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("ZART_RUN", f"run-{os.getpid()}-{time.time_ns()}")  # workers inherit it

# Of what these tests make little is garbage with cycles: saves 5 to 8 % of their time.
gc.set_threshold(20_000, 20, 50)

SILENT = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]

settings.register_profile("ci", deadline=None, print_blob=True, suppress_health_check=SILENT)
settings.register_profile("deep", settings.get_profile("ci"), max_examples=5000)
settings.load_profile("deep" if os.environ.get("ZART_DEEP") else "ci")


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory in memory where there is one: what is asked here does not hang on the disk."""
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shm if os.access(shm, os.W_OK) else None) as path:
        yield Path(path)


@pytest.fixture
def buried() -> Iterator[None]:
    """What dead processes have left is collected here, and not when another test runs that knows nothing of it."""
    yield
    gc.collect()
