"""A host that consumes a queue: every message is one claim, one replay, and one append for each thing that happens.

It is written against `Execution`, `EventLog`, `Clock` and `StepRunner`; any store and any runner will do.
"""

from __future__ import annotations

import queue

import zart_core as zart
from zart_core import log as stored
from zart_core.codec import Codec
from zart_core.context import Context, Scene
from zart_core.hosts.ports import DirectRunner

CODEC = Codec()


class Consumer:
    """Works on one kind of workflow. A step that fails has failed: this host does not retry."""

    def __init__(self, workflow: zart.Workflow[str, str], log: zart.EventLog, clock: zart.Clock) -> None:
        self.workflow, self.log, self.clock = workflow, log, clock
        self.runner: zart.StepRunner = DirectRunner()

    def consume(self, id: str, what: str, payload: bytes) -> zart.Execution:
        """Take one message: "start" with an input, or the name of an event with its payload."""
        now = self.clock.now()
        if what == "start":
            started = CODEC.encode_event(zart.Started(id, 0, self.workflow.name, payload, now), id)
            name = self.workflow.name
            self.log.append([stored.New(id, name, CODEC.digest(name, payload), [started], now)])
        held = self.log.acquire("consumer", id, lease_s=30)
        assert held is not None, f"{id} is unknown, has ended, or is in other hands"
        execution = zart.replay(self.workflow, CODEC.decode_events(self.log.records(id), id))
        self.turn(execution, held, [])
        if what != "start":
            self.turn(execution, held, [zart.Delivered(execution.next_delivery, what, payload, now)])
        while steps := [seq for seq, issued in execution.pending.items() if issued.kind == "step"]:
            self.turn(execution, held, [self.outcome(execution, steps[0])])
        self.log.release("consumer", [id])
        return execution

    def turn(self, execution: zart.Execution, held: stored.Summary, events: list[zart.Event]) -> None:
        """Apply a fact and all it leads to, and append it at once."""
        position = execution.position
        for event in events:
            execution.apply(event)
        while decisions := execution.decide():
            for decision in decisions:
                execution.apply(decision)
            events += decisions
        records, now = CODEC.encode_events(events, held.id, held.run, position), self.clock.now()
        status = execution.status if execution.closed is not None else zart.Status.WAITING
        (outcome,) = self.log.append(
            [stored.Turn(held.id, held.run, position, held.fence, records, now, status)]
        )
        assert isinstance(outcome, zart.Ok), outcome

    def outcome(self, execution: zart.Execution, seq: int) -> zart.Resolved:
        """Run a step, and say how it ended."""
        issued, function = execution.pending[seq], execution.command(seq).function
        assert execution.started is not None
        id, name, now = execution.started.id, self.workflow.name, self.clock.now()
        context = Context(id, 0, name, now, issued.name, idempotency_key=f"{id}/0/{issued.name}")
        values = CODEC.decode_args(issued.payload, function.parameter_types)
        try:
            value = self.runner.run(zart.StepCall(seq, function, values, context), Scene(lambda: context, {}))
            ended: zart.Done | zart.Failed = zart.Done(CODEC.encode(value, function.result_type))
        except Exception as error:  # noqa: BLE001  # the outcome of the step, whatever it is
            ended = zart.Failed(CODEC.failure_of(error, function.policy.raises))
        return zart.Resolved(seq, ended, self.clock.now())


@zart.step("book-{what}")
def book(what: str, order: str) -> str:
    return f"{order} {what}"


@zart.workflow("payment")
def payment(order: str) -> zart.Flow[str]:
    yield from book("paid", order)
    why = yield from zart.wait_for_event("refund-wanted", str)
    return f"{yield from book('refunded', order)}: {why}"


def main() -> None:
    messages: queue.Queue[tuple[str, str, bytes]] = queue.Queue()
    messages.put(("order-1", "start", b'"order-1"'))
    messages.put(("order-1", "refund-wanted", b'"too small"'))
    consumer = Consumer(payment, zart.open_log("memory:"), zart.SystemClock())
    while not messages.empty():
        execution = consumer.consume(*messages.get())
        print(execution.result() if execution.closed else "paid, and the customer may want it back")


if __name__ == "__main__":
    main()
