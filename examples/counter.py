"""A counter that lives for ever: it begins a new run with an empty history every so many events."""

from __future__ import annotations

import sys
import time

import attrs

import zart_core as zart


@attrs.frozen
class Count:
    until: int
    per_run: int = 1000
    total: int = 0


@zart.workflow("counter")
def counter(count: Count) -> zart.Flow[int]:
    total = count.total
    for _ in range(count.per_run):
        total += yield from zart.wait_for_event("add", int)
        if total >= count.until:
            return total
    yield from counter.continue_as_new(attrs.evolve(count, total=total))


def main() -> None:
    until = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    with zart.open("memory:", [counter]) as engine:
        began = time.perf_counter()
        handle = engine.start(counter, Count(until, per_run=max(1, until // 10)), id="counter")
        for _ in range(until):
            handle.send("add", 1)
        total = handle.result()
        took = time.perf_counter() - began
        print(f"{total} events counted in {took:.2f} s, {until / took:.0f} a second")
        print(f"{len(handle.history())} events in the history of the last run")


if __name__ == "__main__":
    main()
