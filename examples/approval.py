"""A person in the loop: the workflow waits for hours, and costs nothing while it does."""

from __future__ import annotations

import contextlib

import attrs

import zart_core as zart


class InvalidRequest(Exception):
    """The request cannot be decided."""


@attrs.frozen
class Request:
    requester: str
    amount: int
    patience: str = "2h"


@attrs.frozen
class Decision:
    approved: bool
    by: str


@zart.step("validate-request", raises=(InvalidRequest,))
def validate_request(request: Request) -> str:
    if not request.requester:
        raise InvalidRequest("the requester is empty")
    return request.requester


@zart.step("process-approved")
def process_approved(requester: str, amount: int) -> str:
    return f"{amount} paid to {requester}"


@zart.workflow("approval")
def approval(request: Request) -> zart.Flow[str]:
    requester = yield from validate_request(request)
    try:
        decision = yield from zart.wait_for_event("manager-approval", Decision, timeout=request.patience)
    except zart.EventTimedOut:
        return "nobody decided in time"
    if not decision.approved:
        return f"rejected by {decision.by}"
    return (yield from process_approved(requester, request.amount))


def main() -> None:
    with zart.open("memory:", [approval]) as engine:
        approved = engine.start(approval, Request("ada", 120))
        rejected = engine.start(approval, Request("bob", 999_999))
        ignored = engine.start(approval, Request("eve", 5, patience="200ms"))
        print(approved.explain())
        approved.send("manager-approval", {"approved": True, "by": "grace"}, key="form-1")
        with contextlib.suppress(zart.ExecutionClosed):  # the same key again: no effect, or too late
            approved.send("manager-approval", {"approved": False, "by": "grace"}, key="form-1")
        rejected.send("manager-approval", {"approved": False, "by": "grace"})
        for handle in (approved, rejected, ignored):
            print("->", handle.result())
        try:
            engine.run(approval, Request("", 1), id="nobody's")
        except zart.ExecutionFailed as failed:
            print("->", failed)


if __name__ == "__main__":
    main()
