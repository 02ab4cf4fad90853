"""What the scenarios share: real stores for the real engine."""

from __future__ import annotations

import pytest

import zart_core as zart


@pytest.fixture(params=["memory", "sqlite", "file"])
def url(request, tmp_path):
    """The URL of a fresh log, of each kind."""
    return {"memory": "memory:", "sqlite": f"sqlite:{tmp_path}/log.db", "file": f"file:{tmp_path}/log"}[
        request.param
    ]


@pytest.fixture
def open_engine(url):
    """Opens an engine on the log of `url`."""

    def opener(*workflows, **options):
        return zart.open(url, workflows, **options)

    return opener
