"""Steps on a Dask cluster: the engine hands them to distributed's own executor, two worker processes share them.

Any `concurrent.futures.Executor` will do for `executor=`. The cluster runs functions; log and workflow stay at home.
Needs `pip install distributed`.
"""

import os
from collections.abc import Generator
from concurrent.futures import Executor
from contextlib import contextmanager
from datetime import timedelta
from logging import ERROR
from typing import Any

import attrs
import distributed

import zart_core as zart

dask: Any = distributed  # it has no types of its own


@attrs.frozen
class Counted:
    """How many primes there are in a range, and which process counted them."""

    primes: int
    pid: int


@zart.step("count-from-{start}", retry=zart.Retry.fixed(3, timedelta(seconds=1)))
def count(start: int, length: int) -> Counted:
    """Runs in a process of the cluster; `zart.context()` works there, resources stay at home."""
    assert zart.context().step == f"count-from-{start}"
    primes = sum(
        n > 1 and all(n % k for k in range(2, int(n**0.5) + 1)) for n in range(start, start + length)
    )
    return Counted(primes, os.getpid())


@zart.workflow("primes")
def primes(below: int) -> zart.Flow[list[Counted]]:
    length = below // 8
    return (yield from zart.wait([count(start, length) for start in range(0, below, length)]))


@contextmanager
def cluster() -> Generator[Executor]:
    """Two processes on this machine; `Client("tcp://scheduler:8786")` reaches a cluster that runs already."""
    with (
        dask.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=ERROR
        ) as workers,
        dask.Client(workers) as client,
        client.get_executor() as executor,
    ):
        yield executor


if __name__ == "__main__":
    with cluster() as executor, zart.open("memory:", [primes], executor=executor) as engine:
        parts = engine.run(primes, 80_000)
    print(sum(part.primes for part in parts), "primes below 80000")
    print("counted elsewhere:", os.getpid() not in {part.pid for part in parts})
