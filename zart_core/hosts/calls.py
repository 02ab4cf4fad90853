"""An attempt of a step as it is to be run: arguments, context, and how long it may take (R7)."""

from __future__ import annotations

from zart_core.context import Context
from zart_core.hosts.offers import Offered, is_offered
from zart_core.hosts.ports import StepCall
from zart_core.interpreter import Execution
from zart_core.policies import TimeoutScope
from zart_core.steps import StepPolicy


def policy_of(execution: Execution, seq: int) -> StepPolicy:
    """The policy of the step that a command asks for."""
    policy: StepPolicy = execution.command(seq).function.policy
    return policy


def global_deadline(execution: Execution, policy: StepPolicy, now: float) -> float | None:
    """When a step that begins now must be through, with all its retries; None without a GLOBAL timeout."""
    if policy.timeout_s is None or policy.timeout_scope is not TimeoutScope.GLOBAL:
        return None
    return at_most(now + policy.timeout_s, execution.deadline)


def countdown(policy: StepPolicy, now: float) -> float | None:
    """When an attempt's own time is over that begins now."""
    if policy.timeout_s is None or policy.timeout_scope is not TimeoutScope.PER_ATTEMPT:
        return None
    return float(now + policy.timeout_s)


def step_call(execution: Execution, seq: int, now: float) -> StepCall:
    """The next attempt of a pending step. Raises Diverged when the recorded arguments no longer fit."""
    issued, function, progress = execution.step(seq)
    started = execution.started
    assert started is not None
    policy, attempt = function.policy, progress.attempt
    own = countdown(policy, now)
    id, run, workflow = started.id, started.run, started.workflow
    if is_offered(workflow):
        offered: Offered = execution.codec.decode(started.payload, Offered)
        id, run, workflow = offered.execution_id, offered.run, offered.workflow
    limit = execution.deadline
    if limit is not None and policy.timeout_s is None and execution.is_shielded(seq):
        limit = None  # the run's deadline waits for it
    context = Context(
        id,
        run,
        workflow,
        now,
        issued.name,
        attempt,
        policy.retry.retries_max,
        attempt > 0,
        idempotency_key(id, run, issued.name),
        at_most(at_most(own, progress.deadline), limit),
    )
    return StepCall(seq, function, execution.arguments(seq), context, own, started.id)


def idempotency_key(id: str, run: int, name: str) -> str:
    """What the attempts of one step have in common and no two steps do: a slash in an id ends no part of it."""
    if "/" in id or "%" in id:
        id = id.replace("%", "%25").replace("/", "%2F")
    return f"{id}/{run}/{name}"


def at_most(first: float | None, second: float | None) -> float | None:
    """The earlier of two instants; None is never."""
    if first is None or second is None:
        return first if second is None else second
    return min(first, second)
