"""A host for a function that is called once per message: it reads its events from a JSON-lines file and leaves.

Nothing lives between two invocations but the file: an execution is a pure function of it.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import zart_core as zart
from zart_core.codec import Codec
from zart_core.log import Record

CODEC = Codec()


def invoke(
    workflow: zart.Workflow[int, int], path: Path, event: str, value: int, clock: zart.Clock
) -> int | None:
    """Take one message: the first one is the input, each other one an event. Gives the result, once there is one."""
    past = read(path)
    execution = zart.replay(workflow, past)
    payload, now = CODEC.encode(value, int), clock.now()
    if past:
        append(path, happen(execution))  # what a turn that was cut off has left to decide
        turn = happen(execution, zart.Delivered(execution.next_delivery, event, payload, now))
    else:
        turn = happen(execution, zart.Started(path.stem, 0, workflow.name, payload, now))
    append(path, turn)
    while execution.pending and (seq := next_step(execution)) is not None:
        function = execution.command(seq).function
        value = function.call(CODEC.decode_args(execution.pending[seq].payload, function.parameter_types))
        done = zart.Done(CODEC.encode(value, function.result_type))
        append(path, happen(execution, zart.Resolved(seq, done, clock.now())))
    return None if execution.closed is None else int(execution.result())


def happen(execution: zart.Execution, *facts: zart.Event) -> list[zart.Event]:
    """Apply a fact and all it leads to: one turn."""
    events = list(facts)
    for fact in facts:
        execution.apply(fact)
    while decisions := execution.decide():
        for decision in decisions:
            execution.apply(decision)
        events += decisions
    return events


def next_step(execution: zart.Execution) -> int | None:
    return next((seq for seq, issued in execution.pending.items() if issued.kind == "step"), None)


def read(path: Path) -> list[zart.Event]:
    lines = path.read_text().splitlines() if path.exists() else []
    rows = [json.loads(line) for line in lines]
    return CODEC.decode_events(
        [Record(row["kind"], row["at"], row["data"].encode()) for row in rows], path.stem
    )


def append(path: Path, turn: list[zart.Event]) -> None:
    """Write a turn, and have it on the disk before anything follows from it."""
    records = [CODEC.encode_event(event, path.stem) for event in turn]
    rows = [{"kind": record.kind, "at": record.at, "data": record.data.decode()} for record in records]
    with path.open("a") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows))
        file.flush()
        os.fsync(file.fileno())


@zart.step("double-{n}")
def double(n: int) -> int:
    return 2 * n


@zart.workflow("sum")
def doubled_sum(count: int) -> zart.Flow[int]:
    total = 0
    for n in range(count):
        total += yield from double((yield from zart.wait_for_event("add", int))).named(f"double-{n}")
    return total


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "sum-1.jsonl"
        for event, value in (("start", 3), ("add", 1), ("add", 10), ("add", 10)):
            result = invoke(doubled_sum, path, event, value, zart.SystemClock())
            print(f"an invocation with {event} {value}: {len(read(path))} events, result {result}")


if __name__ == "__main__":
    main()
