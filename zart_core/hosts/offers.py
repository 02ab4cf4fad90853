"""Steps that any worker may take: each is put into the log as an execution of its own, which its step is all of.

Rule 1: so what a store promises of executions holds for offered steps: the offer is in the commit of the turn that asks
        for the step (L1), one worker has it at a time, under a lease, with a fence that only grows (L8), and what it
        came to is posted to its execution in the commit that ends it (L7).
Rule 2: it is named after its place (`!step/SEQ/RUN/ID`), so that it can be made sure of again, and is made once (L9).
Rule 3: crashes, retries and timeouts are counted in its own log, as those of any step are (R4, R5, R7, R10).
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import CodeType, FunctionType, ModuleType
from typing import Any

from typing_extensions import TypeIs

from zart_core import log as stored
from zart_core.codec import Codec
from zart_core.commands import Flow, Step
from zart_core.errors import DecodeError, Defect, EncodeError
from zart_core.events import (
    Cancellation,
    Closed,
    Failed,
    Failure,
    Issued,
    Outcome,
    Parent,
    Resolved,
    Status,
)
from zart_core.hosts.relatives import OWN_KEY, new_execution
from zart_core.interpreter import Execution
from zart_core.log import ID_CHARS_MAX
from zart_core.queues import AFTER_SLOTS, SLOTS, is_place
from zart_core.records import record
from zart_core.steps import DEFAULT_QUEUE, StepFunction
from zart_core.workflows import Registry, Workflow, is_workflow

STEPS = "!step/"
"""How ids and workflow names of offered steps begin."""
AFTER_STEPS = f"{STEPS}~"
"""An id that follows those of all offered steps."""
NAME_CHARS_MAX = 1024
"""The longest name of a workflow that a store keeps, in characters."""


@record
class Offered:
    """The input of an offered step: where its outcome belongs, and how it is called."""

    execution_id: str
    run: int
    workflow: str
    name: str
    """The step's name in its run; it keeps its idempotency key."""
    arguments: str
    """JSON, as the command holds them."""


def is_offered(workflow: str) -> bool:
    """Whether an execution of this workflow is an offered step."""
    return workflow.startswith(STEPS)


def is_own(workflow: str) -> bool:
    """Whether executions of this workflow are there for the workers' sake: offered steps, and slots of queues."""
    return is_offered(workflow) or is_place(workflow)


def queue_of(workflow: str) -> str:
    """The queue that an offered step of this kind is for."""
    return workflow.removeprefix(STEPS).partition("/")[0]


def page_of(
    log: stored.EventLog,
    *,
    status: Status | None = None,
    workflow: str | None = None,
    id_prefix: str | None = None,
    limit: int = 100,
    after: str | None = None,
) -> stored.Page[stored.Summary]:
    """A page of executions; offered steps, and slots of queues, only when they are asked for, by prefix or workflow."""
    asked = (id_prefix or "").startswith((STEPS, SLOTS)) or is_own(workflow or "")
    items: list[stored.Summary] = []
    while True:
        page = log.list(status=status, workflow=workflow, id_prefix=id_prefix, limit=limit, after=after)
        items += [summary for summary in page.items if asked or not is_own(summary.workflow)]
        if len(items) >= limit:
            more = len(items) > limit or page.next is not None
            return stored.Page(items[:limit], items[limit - 1].id if more else None)
        if page.next is None:
            return stored.Page(items, None)
        last = page.items[-1].workflow
        passed = AFTER_STEPS if is_offered(last) else AFTER_SLOTS if is_place(last) else ""
        after = max(page.next, passed)


def stats_of(log: stored.EventLog) -> Mapping[Status, int]:
    """How many executions stand where, offered steps among them, and no slots of queues; every status is there."""
    counted = log.stats()
    found = {status: counted.get(status, 0) for status in Status}
    after = None
    while found[Status.PAUSED]:
        page = log.list(id_prefix=SLOTS, limit=1000, after=after)
        for summary in page.items:
            found[summary.status] -= is_place(summary.workflow)
        if page.next is None:
            break
        after = page.next
    return found


def offered_id(id: str, run: int, seq: int) -> str:
    """The execution of a step that is offered; a digest where the id is too long to stand in it."""
    name = f"{STEPS}{seq}/{run}/{id}"
    return name if len(name) <= ID_CHARS_MAX else f"{STEPS}{hashlib.sha256(name.encode()).hexdigest()}"


def kind_of(function: StepFunction[..., Any]) -> str:
    """The workflow name under which a step is offered: its queue, and its own id."""
    return f"{STEPS}{function.policy.queue or DEFAULT_QUEUE}/{function.id}"


def offer(codec: Codec, execution: Execution, issued: Issued, function: StepFunction[..., Any]) -> stored.New:
    """The execution to create for a step; the same command always asks for the same one. Raises Defect."""
    started = execution.started
    assert started is not None
    offered = Offered(started.id, started.run, started.workflow, issued.name, issued.payload.decode())
    try:
        payload = codec.encode(offered, Offered, "as JSON within JSON")
    except EncodeError as error:
        raise Defect(
            f"the arguments of step '{issued.name}' are too large to be handed to another worker: {error}"
        ) from error
    return new_execution(
        codec,
        play(codec, function),
        offered_id(started.id, started.run, issued.seq),
        payload,
        issued.at,
        parent=Parent(started.id, started.run, issued.seq),
    )


def play(codec: Codec, function: StepFunction[..., Any]) -> Workflow[Offered, None]:
    """The workflow that an offered step is: the step, and nothing else."""

    def run(offered: Offered) -> Flow[None]:
        try:
            values = codec.decode_args(
                offered.arguments.encode(), function.parameter_types, function.parameter_names
            )
        except DecodeError as error:
            raise Defect(f"the recorded arguments of step '{offered.name}' do not fit it: {error}") from error
        args, kwargs = function.spread(values)
        yield Step(function, args, kwargs, offered.name)

    return Workflow(run, kind_of(function))


def report(codec: Codec, parent: Parent, closed: Closed, outcome: Outcome | None) -> stored.Post:
    """The message that tells an execution what its offered step came to."""
    if outcome is None:
        why = closed.failure.message if closed.failure is not None else "it was ended"
        outcome = Failed(Failure("lost", "", f"its own execution ended as {closed.status}: {why}"))
    told = codec.encode_event(Resolved(parent.seq, outcome, closed.at), parent.id, parent.run)
    key = f"{OWN_KEY}child:{parent.run}:{parent.seq}"
    return stored.Post(parent.id, "child", str(parent.run), told.data, closed.at, key)


def accepted(execution: Execution, fact: Resolved) -> Resolved:
    """What an offered step came to, as its execution takes it: one that others cancelled is lost."""
    if not isinstance(fact.outcome, Cancellation) or fact.seq in execution.cancelling:
        return fact
    name = execution.pending[fact.seq].name
    why = f"step '{name}' was cancelled where it ran: {fact.outcome.reason}"
    return Resolved(fact.seq, Failed(Failure("lost", name, why)), fact.at)


# ---------------------------------------------------------------- which steps a worker knows


def known_steps(registry: Registry) -> dict[str, StepFunction[..., Any]]:
    """The steps that a registry's workflows name, by `kind_of`. Those that two of them share are left out."""
    found: dict[str, StepFunction[..., Any] | None] = {}
    for function in steps_of(registry.everything()):
        name = kind_of(function)
        if len(name) <= NAME_CHARS_MAX:
            found[name] = function if found.get(name, function) is function else None
    return {name: function for name, function in found.items() if function is not None}


def with_offers(registry: Registry, codec: Codec) -> Registry:
    """The workflows of a registry, and those behind the steps that they may offer."""
    return Registry(registry, [play(codec, function) for function in known_steps(registry).values()])


def steps_of(workflows: Iterable[Workflow[Any, Any]]) -> Iterator[StepFunction[..., Any]]:
    """The steps that the code of workflows names; see `parts_of`."""
    return (part for part in parts_of(workflows) if is_step(part) and part.origin is part)


def workflows_of(workflows: Iterable[Workflow[Any, Any]]) -> list[Workflow[Any, Any]]:
    """The workflows that the code of workflows names, such as children; see `parts_of`."""
    return [part for part in parts_of(workflows) if is_workflow(part)]


def parts_of(workflows: Iterable[Workflow[Any, Any]]) -> Iterator[object]:
    """The steps and workflows that code names, and that of the flows and workflows which it names, each once."""
    seen: set[int] = set()
    left: list[Callable[..., Any]] = [fn for workflow in workflows for fn in code_of(workflow)]
    while left:
        fn = inspect.unwrap(left.pop())
        if id(fn) in seen or not inspect.isfunction(fn):
            continue
        seen.add(id(fn))
        for value in named_in(fn):
            if not is_a(value, StepFunction, Workflow, FunctionType):
                continue
            if is_step(value) or is_workflow(value):
                if id(value) not in seen:
                    seen.add(id(value))
                    yield value
                    left += code_of(value) if is_workflow(value) else ()
            elif inspect.isgeneratorfunction(value):
                left.append(value)


def code_of(workflow: Workflow[Any, Any]) -> list[Callable[..., Any]]:
    """The functions that a workflow is made of."""
    return [workflow.fn] if workflow.on_failure is None else [workflow.fn, workflow.on_failure]


def is_a(value: object, *kinds: type) -> bool:
    """Whether its own class is one of these: `isinstance` asks the object too, and a lazy one may raise."""
    return issubclass(type(value), kinds)


def is_step(value: object) -> TypeIs[StepFunction[..., Any]]:
    """Whether it is a function decorated with @step."""
    return isinstance(value, StepFunction)


def named_in(fn: Any) -> Iterator[Any]:
    """What the names in a function's code stand for: globals, what it closes over, parts of modules and classes."""
    names = set(names_in(fn.__code__))
    for cell in fn.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # it is not bound yet
            continue
    for name in sorted(names):
        value = fn.__globals__.get(name)
        yield value
        if is_a(value, ModuleType, type):
            yield from (vars(value)[each] for each in sorted(names) if each in vars(value))


def names_in(code: CodeType) -> Iterator[str]:
    """The names in code, and in the code inside it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from names_in(constant)
