"""A workflow of one step, for tests of what a step does in a transaction."""

import zart_core as zart


def flow_of(function, **policy):
    """A workflow of one step, which may fail."""
    step = zart.step("the-step", **policy)(function)

    @zart.workflow("one-step")
    def one_step() -> zart.Flow[str]:
        found = yield from zart.outcome(step())
        return str(found.value) if isinstance(found, zart.Ok) else str(found.error)

    return one_step


def run(bank, function, **policy):
    with zart.open(bank.url, [flow := flow_of(function, **policy)]) as engine:
        return engine.run(flow)
