"""What an attempt of a step comes to: a value, an error, another attempt."""

from __future__ import annotations

from typing import Any

from zart_core.codec import Codec
from zart_core.errors import InvalidUse
from zart_core.events import Cancellation, Done, Failed, Failure, Outcome, Resolved, Retried
from zart_core.hosts.ports import Lots, StepCall


def returned(codec: Codec, call: StepCall, value: Any, now: float) -> Resolved:
    """An attempt gave a value; one that cannot be written down is a failure (F20), whatever type is declared."""
    try:
        payload, _ = codec.through(value, call.function.result_type)
        outcome: Outcome = Done(payload)
    except InvalidUse as error:  # the value does not fit its type, or no value does
        step = call.context.step or ""
        message = f"the result of step '{step}' cannot be written down: {error}"
        outcome = Failed(Failure("unencodable", step, message))
    return Resolved(call.seq, outcome, now)


def raised(
    codec: Codec, call: StepCall, error: BaseException, now: float, lots: Lots | None
) -> Resolved | Retried:
    """An attempt raised an error: it is retried, or becomes the step's outcome (R4, R6)."""
    policy = call.function.policy
    failure = codec.failure_of(error, policy.raises)
    return failed(call, failure, now, lots if policy.retry.retries(error, policy.raises) else None)


def timed_out(call: StepCall, now: float, lots: Lots | None) -> Resolved | Retried:
    """An attempt took longer than PER_ATTEMPT allows (R5, R7)."""
    failure = Failure("timed_out", call.context.step or "", f"step '{call.context.step}' timed out")
    return failed(call, failure, now, lots if call.function.policy.retry.on_timeout else None)


def cancelled(call: StepCall, now: float, *, ran: bool) -> Resolved:
    """A running attempt was told to end and did, or had not begun yet."""
    return Resolved(call.seq, Cancellation(f"it was cancelled {'while' if ran else 'before'} it ran"), now)


def failed(call: StepCall, failure: Failure, now: float, lots: Lots | None) -> Resolved | Retried:
    """An attempt that failed: with lots to draw the jitter from it is retried as long as the policy allows."""
    retry, attempt = call.function.policy.retry, call.context.attempt
    if lots is None or retry.retries_max == 0:
        return Resolved(call.seq, Failed(failure), now)
    if attempt < retry.retries_max:
        return Retried(call.seq, attempt, failure, now + retry.delay_s(attempt + 1, lots.random()), now)
    count = attempt + 1
    message = f"step '{call.context.step}' failed at all {count} attempts"
    exhausted = Failure("exhausted", failure.type, message, attempts=count, cause=failure)
    return Resolved(call.seq, Failed(exhausted), now)
