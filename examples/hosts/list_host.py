"""A host in twenty lines: the log is a list, steps are called where they are issued, and nobody else writes.

It knows the core only: events go in by `apply`, decisions come out of `decide`, `pending` says what to carry out.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import zart_core as zart
from zart_core.codec import Codec

CODEC = Codec()


def run_on_list(
    workflow: zart.Workflow[None, str], log: list[zart.Event], now: Callable[[], float] = time.time
) -> str:
    """Run a workflow of steps and sleeps to its end; `log` may hold what was done before."""
    if not log:
        log.append(zart.Started("one", 0, workflow.name, b"null", now()))
    execution = zart.replay(workflow, log)
    while execution.closed is None:
        for event in execution.decide() or [
            carried_out(execution, *next(iter(execution.pending.items())), now)
        ]:
            execution.apply(event)
            log.append(event)
    return str(execution.result())


def carried_out(
    execution: zart.Execution, seq: int, issued: zart.Issued, now: Callable[[], float]
) -> zart.Event:
    """Carry out one command, here and now."""
    if issued.until is not None:
        time.sleep(max(0.0, issued.until - now()))
        return zart.Resolved(seq, zart.Done(b"null"), now())
    function = execution.command(seq).function
    try:
        value = function.call(CODEC.decode_args(issued.payload, function.parameter_types))
        return zart.Resolved(seq, zart.Done(CODEC.encode(value, function.result_type)), now())
    except Exception as error:  # noqa: BLE001  # the outcome of the step, whatever it is
        return zart.Resolved(seq, zart.Failed(CODEC.failure_of(error, function.policy.raises)), now())


@zart.step("read-{page}")
def read(page: int) -> str:
    return f"page {page}"


@zart.workflow("digest")
def digest() -> zart.Flow[str]:
    pages: list[str] = []
    for page in range(3):
        pages.append((yield from read(page)))
        yield from zart.sleep(f"think-{page}", 0.05)
    return f"the gist is {', '.join(pages)}"


def main() -> None:
    log: list[zart.Event] = []
    print(run_on_list(digest, log))
    half = log[: len(log) // 2]
    print(f"{len(log)} events; from the first {len(half)} of them:", run_on_list(digest, half))


if __name__ == "__main__":
    main()
