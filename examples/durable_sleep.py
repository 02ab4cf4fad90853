"""A sleep that outlives its process: its wake time is on record, and so are the two stamps around it."""

from __future__ import annotations

import tempfile
from datetime import datetime

import attrs

import zart_core as zart


@attrs.frozen
class Nap:
    started_at: datetime
    resumed_at: datetime

    @property
    def duration_s(self) -> float:
        """How long it really took."""
        return (self.resumed_at - self.started_at).total_seconds()


@zart.workflow("durable-sleep")
def durable_sleep(seconds: float) -> zart.Flow[Nap]:
    started_at = yield from zart.now("started-at")
    yield from zart.sleep("nap", seconds)
    resumed_at = yield from zart.now("resumed-at")
    return Nap(started_at, resumed_at)


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        url = f"sqlite:{place}/naps.db"
        with zart.open(url, durable_sleep) as engine:
            handle = engine.start(durable_sleep, 1.0, id="nap")
            print(handle.explain())
        print("the process ends while the workflow sleeps; another one takes it up:")
        with zart.open(url, durable_sleep) as engine:
            nap = engine.run(durable_sleep, 1.0, id="nap")
            print(f"slept {nap.duration_s:.3f} s, from {nap.started_at:%H:%M:%S.%f} on")


if __name__ == "__main__":
    main()
