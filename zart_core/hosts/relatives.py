"""What an execution has to do with others: its creation, its next run, its children, and its parent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from zart_core import log as stored
from zart_core.codec import Codec
from zart_core.events import (
    SEMANTICS,
    Closed,
    Delivered,
    Done,
    Failed,
    Failure,
    Outcome,
    Parent,
    Resolved,
    Started,
    Status,
)
from zart_core.interpreter import Execution
from zart_core.workflows import Workflow, claim_name

OWN_KEY = "!"
"""How keys of messages begin that are not the user's; a user's key that begins so is given another one."""


def new_execution(
    codec: Codec,
    workflow: Workflow[Any, Any],
    id: str,
    payload: bytes,
    at: float,
    *,
    parent: Parent | None = None,
    timeout_s: float | None = None,
    wake: float | None = None,
) -> stored.New:
    """An execution to create: its first record is `Started`; its digest is what makes a second start the same (R15).

    With `wake` it starts then: that is the time of `Started`, from which its first timers count.
    """
    limit = workflow.timeout_s if timeout_s is None else timeout_s
    begins = max(at, wake or 0.0)
    deadline = None if limit is None else begins + limit
    started = Started(id, 0, workflow.name, payload, begins, deadline, parent, version=workflow.version)
    return stored.New(
        id=id,
        workflow=workflow.name,
        digest=digest_of(codec, started),
        records=(codec.encode_event(started, id, 0, 0),),
        at=at,
        status=Status.SCHEDULED,
        wake=wake or 0.0,
        claimed_as=claim_name(workflow.name, workflow.version),
    )


def digest_of(codec: Codec, started: Started) -> str:
    """What makes a second start the same: workflow and input, and for a child the command of its parent (R15)."""
    payload, parent = started.payload, started.parent
    asked = payload if parent is None else payload + f"\n{parent.id}\n{parent.run}\n{parent.seq}".encode()
    return codec.digest(started.workflow, asked)


def next_run(
    codec: Codec, execution: Execution, closed: Closed, workflow: Workflow[Any, Any]
) -> list[stored.Record]:
    """The first records of the next run: the new input, and deliveries that no wait has taken (R14).

    `workflow` is the version that it begins with.
    """
    started = execution.started
    assert started is not None
    again = attrs.evolve(
        started,
        run=started.run + 1,
        payload=closed.payload,
        at=closed.at,
        deadline=None if workflow.timeout_s is None else closed.at + workflow.timeout_s,
        semantics=SEMANTICS,
        version=workflow.version,
    )
    moved = [
        Delivered(n, name, payload, closed.at, held=True)
        for n, (name, payload) in enumerate(execution.untaken())
    ]
    return list(codec.encode_events([again, *moved], started.id, again.run, 0))


def report(codec: Codec, parent: Parent, closed: Closed) -> stored.Post:
    """The message that tells a parent how its child ended."""
    outcome: Outcome
    if closed.status is Status.COMPLETED:
        outcome = Done(closed.payload)
    else:
        message = closed.failure.message if closed.failure is not None else ""
        outcome = Failed(Failure("child", str(closed.status), message, cause=closed.failure))
    told = codec.encode_event(Resolved(parent.seq, outcome, closed.at), parent.id, parent.run)
    key = f"{OWN_KEY}child:{parent.run}:{parent.seq}"
    return stored.Post(parent.id, "child", str(parent.run), told.data, closed.at, key)


def request_key(kind: stored.MessageKind, run: int) -> str:
    """What makes a request count once: cancellation once for each run, of which each is interrupted once (R18)."""
    return f"{OWN_KEY}{kind}@{run}" if kind == "cancel" else f"{OWN_KEY}{kind}"


def cancel_child(child: str, parent: Parent, now: float) -> stored.Post:
    """The message that asks a child to cancel."""
    key = parents_key("cancel", parent)
    return stored.Post(child, "cancel", "cancel", b"its parent cancelled it", now, key)


def end_children(children: Mapping[int, str], id: str, run: int, closed: Closed) -> Sequence[stored.Post]:
    """Nobody waits for them any more: a run that was terminated takes its children along."""
    return [
        stored.Post(
            child,
            "terminate",
            "terminate",
            b"its parent was terminated",
            closed.at,
            parents_key("terminate", Parent(id, run, seq)),
        )
        for seq, child in children.items()
    ]


def parents_key(kind: stored.MessageKind, parent: Parent) -> str:
    """The key of what a parent asks of its child: it names the command that the child is there for."""
    return f"{OWN_KEY}{kind}:{parent.run}:{parent.seq}:{parent.id}"


def is_strangers(message: stored.Message, parent: Parent | None) -> bool:
    """Whether a request to end is for another's child, whose parent cannot know yet that the id was taken."""
    key, asked = message.key or "", f"{OWN_KEY}{message.kind}:"
    return key.startswith(asked) and (parent is None or key != parents_key(message.kind, parent))
