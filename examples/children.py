"""A parent with many children: each is an execution of its own, with a log and an id of its own."""

from __future__ import annotations

import sys
import time

import attrs

import zart_core as zart


@attrs.frozen
class Batch:
    size: int


@zart.step("square-{n}")
def square(n: int) -> int:
    return n * n


@zart.workflow("child")
def child(n: int) -> zart.Flow[int]:
    return (yield from square(n))


@zart.workflow("parent")
def parent(batch: Batch) -> zart.Flow[int]:
    squares = yield from zart.wait(zart.child(child, n).named(f"child-{n}") for n in range(batch.size))
    return sum(squares)


def main() -> None:
    size = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    with zart.open("memory:", [parent, child]) as engine:
        began = time.perf_counter()
        total = engine.run(parent, Batch(size), id="parent")
        took = time.perf_counter() - began
        print(f"{size} children: {total}, in {took:.2f} s")
        print(*(f"{summary.id}: {summary.status}" for summary in engine.list(limit=4).items), sep="\n")


if __name__ == "__main__":
    main()
