"""What a workflow may yield: commands, imperative and inert.

Rule 1: a command does nothing. The interpreter reads it when it is yielded, and a host carries it out.
Rule 2: `x = yield from command` has the command's exact type; a `Branch` may also be waited for beside others.
"""

from __future__ import annotations

import inspect
import random as random_module
import uuid as uuid_module
import warnings
from collections.abc import Callable, Generator, Iterable
from datetime import datetime, timedelta
from types import GeneratorType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Never, TypeAlias, overload

import attrs
from typing_extensions import TypeForm, TypeIs, TypeVar

from zart_core.context import SCENE, Scene
from zart_core.errors import InvalidUse, ZartError
from zart_core.events import Err, Ok
from zart_core.policies import Duration, seconds
from zart_core.records import record

if TYPE_CHECKING:
    from zart_core.branches import Branches, Node
    from zart_core.steps import StepFunction
    from zart_core.workflows import Workflow

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
F = TypeVar("F")
I = TypeVar("I")  # noqa: E741  # the input
R = TypeVar("R")


NOT_A_RESULT = "{} is a command, not its result; write `result = yield from ...` first"


class Command(Generic[T_co]):
    """Something to yield from a workflow. It does nothing by itself."""

    if TYPE_CHECKING:
        yielded: Scene | bool | None
    else:
        __slots__ = ()

    def __iter__(self) -> Generator[Command[Any], Any, T_co]:
        """Let `x = yield from command` hand the command to the interpreter and give its result."""
        self.yielded = True
        value: T_co = yield self
        return value

    def __bool__(self) -> Never:
        """Refuse: a command is not its result."""
        raise InvalidUse(NOT_A_RESULT.format(describe(self)))

    def __await__(self) -> Generator[Any, Any, T_co]:
        """Refuse: workflows are generators."""
        raise InvalidUse(
            f"{describe(self)} cannot be awaited; a workflow is a plain generator: write `yield from`"
        )

    def __del__(self) -> None:
        """Report a command that was built and never yielded (R12)."""
        if self.yielded is not True:
            report_unused(self, self.yielded)


if not TYPE_CHECKING:  # the checkers find these by themselves

    def refused(self: Command[Any], *_: object) -> Never:
        """Refuse: a command is not its result, and this is what one would do with a result."""
        raise TypeError(NOT_A_RESULT.format(describe(self)))

    def refused_attribute(self: Command[Any], name: str) -> Never:
        """Refuse likewise; only called for attributes that a command does not have."""
        if name in type(self).__slots__:  # not there yet: its `__init__` has raised
            raise AttributeError(name)
        raise AttributeError(f"no {name!r}: {NOT_A_RESULT.format(describe(self))}", name=name, obj=self)

    for operation in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor"):
        setattr(Command, f"__{operation}__", refused)
        setattr(Command, f"__r{operation}__", refused)
    for operation in (
        "lt",
        "le",
        "gt",
        "ge",
        "len",
        "int",
        "float",
        "index",
        "neg",
        "abs",
        "getitem",
        "contains",
    ):
        setattr(Command, f"__{operation}__", refused)
    Command.__getattr__ = refused_attribute


def used() -> Any:
    """The field that remembers whether a command was yielded, until then where it was built; no part of its value.

    The garbage collector may find a command while another workflow runs, or none, so it is not asked for then.
    """
    return attrs.field(factory=SCENE.get, init=False, eq=False, repr=False)


def mark_used(command: Command[Any]) -> None:
    """Take it as yielded: the interpreter has it, or another command stands in its place."""
    command.yielded = True


def report_unused(command: Command[Any], scene: Scene | bool | None) -> None:
    """Note it on the run whose workflow has built it; warn where no workflow has."""
    if isinstance(scene, Scene) and scene.unused is not None:
        text = (
            f"{describe(command)} was built and never yielded; write `yield from` before it, "
            "or build it only where it is needed"
        )
        first = [text]
        if scene.unused:
            scene.unused.append(text)
        else:
            scene.unused = first
    else:
        warnings.warn(
            f"{describe(command)} was built outside a workflow and did nothing, or was never yielded in one; "
            "in a workflow write `yield from`, elsewhere call the plain function: my_step.fn(...)",
            RuntimeWarning,
            stacklevel=2,
        )


class Branch(Generic[T_co]):
    """Something that may run beside others and be waited for."""

    __slots__ = ()


Flow: TypeAlias = Generator[Command[Any], object, T]
"""What a workflow or a part of one returns: a generator of commands with a result of type T."""
Waitable: TypeAlias = Branch[T] | Generator[Command[Any], Any, T]
"""A task, a schedule, a step, an event wait, or a flow."""


# ---------------------------------------------------------------- leaves: the outside has to do something


@record
class Step(Command[T_co], Branch[T_co]):
    """Run a step function once, durably. Built by calling the step."""

    function: StepFunction[..., T_co]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    name: str
    yielded: Scene | bool | None = used()
    kind: ClassVar[Literal["step"]] = "step"

    def named(self, name: str) -> Step[T_co]:
        """The same step under another name: it replaces the name and nothing else (R2)."""
        mark_used(self)
        return Step(self.function, self.args, self.kwargs, checked_name(name))


@record
class Sleep(Command[None], Branch[None]):
    """Wait for a span of time, or until an instant."""

    name: str
    duration_s: float | None
    until: float | None = None
    yielded: Scene | bool | None = used()
    kind: ClassVar[Literal["sleep"]] = "sleep"


@record
class WaitForEvent(Command[T_co], Branch[T_co]):
    """Wait for a message from outside, and take one."""

    event: str
    type: Any
    timeout_s: float | None
    name: str | None
    """None numbers it per event: shipment-ready[1]."""
    yielded: Scene | bool | None = used()
    kind: ClassVar[Literal["event"]] = "event"


@record
class Capture(Command[T_co]):
    """Fix a value at the first run: the host evaluates `fn` once."""

    name: str
    fn: Callable[[], T_co]
    type: Any
    """What the value is encoded as; None for what `fn` is annotated to give, and Any where it says nothing."""
    yielded: Scene | bool | None = used()
    kind: ClassVar[Literal["capture"]] = "capture"


@record
class Now(Command[datetime]):
    """The current time, fixed at the first run."""

    name: str
    yielded: Scene | bool | None = used()
    kind: ClassVar[Literal["now"]] = "now"


@record
class Child(Command[T_co], Branch[T_co]):
    """Start another execution and wait for its result."""

    workflow: Workflow[Any, T_co]
    input: Any
    id: str | None
    name: str | None = None
    yielded: Scene | bool | None = used()
    kind: ClassVar[Literal["child"]] = "child"

    def named(self, name: str) -> Child[T_co]:
        """The same child under another name."""
        mark_used(self)
        return Child(self.workflow, self.input, self.id, checked_name(name))


@record
class Spawn(Command[str]):
    """Start another execution and go on; gives its id."""

    workflow: Workflow[Any, Any]
    input: Any
    id: str | None
    name: str | None = None
    yielded: Scene | bool | None = used()
    kind: ClassVar[Literal["spawn"]] = "spawn"

    def named(self, name: str) -> Spawn:
        """The same under another name."""
        mark_used(self)
        return Spawn(self.workflow, self.input, self.id, checked_name(name))


@record
class Version(Command[T_co]):
    """Which version of the code this run began with, at this place (R23)."""

    name: str
    current: int
    yielded: Scene | bool | None = used()
    kind: ClassVar[Literal["version"]] = "version"


# ---------------------------------------------------------------- structure: branches and waits


class Task(Branch[T_co]):
    """Something that was started and goes on beside its workflow."""

    __slots__ = ("branches", "node")

    def __init__(self, node: Node, branches: Branches) -> None:
        self.node = node
        self.branches = branches
        """Those of its run: no other run may wait for it."""

    def cancel(self) -> CancelTask:
        """A command that cancels it and waits until it has unwound; gives False if it had ended before."""
        return CancelTask(self)

    def __repr__(self) -> str:
        return f"<task {self.node.title}>"


@record
class CancelTask(Command[bool]):
    """Cancel a task and wait until it has unwound."""

    task: Task[Any]
    yielded: Scene | bool | None = used()


@record
class Schedule(Command[Task[T_co]], Branch[T_co]):
    """Start something without waiting for it."""

    target: Waitable[T_co]
    yielded: Scene | bool | None = used()


@record
class Wait(Command[T_co]):
    """Wait for several things; `mode` says for how many and what comes back."""

    mode: Literal["all", "fail_fast", "settle", "gather", "any", "race"]
    targets: tuple[Waitable[Any], ...]
    yielded: Scene | bool | None = used()


@record
class SubFlow(Command[T_co], Branch[T_co]):
    """Run a flow as a branch of its own: shielded from cancellation, or with a prefix on its names."""

    flow: Flow[T_co]
    shielded: bool
    prefix: str
    yielded: Scene | bool | None = used()


@record
class ContinueAsNew(Command[Never]):
    """End this run and begin the next one, with an empty history."""

    workflow: Workflow[Any, Any]
    input: Any
    yielded: Scene | bool | None = used()


def describe(thing: object) -> str:
    """What a yielded object is, for messages: kind and name, never its arguments."""
    noun = type(thing).__name__
    match thing:
        case Step() | Sleep() | Capture() | Now() | Version():
            return f"{thing.kind} '{thing.name}'"
        case WaitForEvent():
            return f"event wait '{thing.name or thing.event}'"
        case _ if starts_another(thing):
            return f"{thing.kind} '{thing.name or thing.workflow.name}'"
        case CancelTask():
            return "task.cancel()"
        case ContinueAsNew():
            return "continue_as_new()"
        case Command():
            return noun.lower()
        case _:
            return f"a {noun}"


def starts_another(thing: object) -> TypeIs[Child[Any] | Spawn]:
    """Whether it is a command that starts another execution."""
    return isinstance(thing, Child | Spawn)


def checked_name(name: object, what: str = "name") -> str:
    """The name as a bare text, if it is a non-empty printable one; raises InvalidUse."""
    if not isinstance(name, str) or not name or not name.isprintable():
        raise InvalidUse(f"the {what} is {name!r}; give a non-empty text of printable characters")
    return bare(name)


def bare(text: str) -> str:
    """The text as nothing but a str: numpy, lxml and markupsafe have texts of their own, which no codec takes."""
    return text if type(text) is str else str.__str__(text)


# ---------------------------------------------------------------- what authors call


def schedule(target: Waitable[T]) -> Schedule[T]:
    """Start a step or a flow without waiting; `task = yield from zart.schedule(...)` gives its task."""
    return Schedule(target)


def wait(targets: Iterable[Waitable[T]], fail_fast: bool = False) -> Wait[list[T]]:
    """Wait for all and give their values in the order given; what was not started is started.

    If any failed it raises StepsFailed once all have ended, and cancels nothing; with `fail_fast` the first failure
    cancels the rest and is raised. Empty gives [].
    """
    items = items_of(targets, "wait")
    return Wait("fail_fast" if fail_fast else "all", items)


def settle(targets: Iterable[Waitable[T]]) -> Wait[list[Ok[T] | Err[BaseException]]]:
    """Wait for all and give an Ok or an Err for each, in the order given; never raises for a failed item."""
    return Wait("settle", items_of(targets, "settle"))


def wait_any(targets: Iterable[Waitable[T]]) -> Wait[tuple[int, Ok[T] | Err[BaseException]]]:
    """Wait for the first to end, and give its index and outcome; the others go on. Raises InvalidUse when empty."""
    items = items_of(targets, "wait_any")
    if not items:
        raise InvalidUse("zart.wait_any([]) would wait for ever; give it at least one thing to wait for")
    return Wait("any", items)


@overload
def gather(a: Waitable[A], /) -> Wait[tuple[A]]: ...
@overload
def gather(a: Waitable[A], b: Waitable[B], /) -> Wait[tuple[A, B]]: ...
@overload
def gather(a: Waitable[A], b: Waitable[B], c: Waitable[C], /) -> Wait[tuple[A, B, C]]: ...
@overload
def gather(a: Waitable[A], b: Waitable[B], c: Waitable[C], d: Waitable[D], /) -> Wait[tuple[A, B, C, D]]: ...
@overload
def gather(
    a: Waitable[A], b: Waitable[B], c: Waitable[C], d: Waitable[D], e: Waitable[E], /
) -> Wait[tuple[A, B, C, D, E]]: ...
@overload
def gather(
    a: Waitable[A], b: Waitable[B], c: Waitable[C], d: Waitable[D], e: Waitable[E], f: Waitable[F], /
) -> Wait[tuple[A, B, C, D, E, F]]: ...
@overload
def gather(*targets: Waitable[T]) -> Wait[tuple[T, ...]]: ...
def gather(*targets: Any) -> Wait[Any]:
    """Wait for all and give a tuple of their values; raises as `wait` does."""
    refuse_list(targets, "gather", "for a list there is zart.wait([...])")
    return Wait("gather", targets)


@overload
def race(a: Waitable[A], b: Waitable[B], /) -> Wait[tuple[Literal[0], A] | tuple[Literal[1], B]]: ...
@overload
def race(
    a: Waitable[A], b: Waitable[B], c: Waitable[C], /
) -> Wait[tuple[Literal[0], A] | tuple[Literal[1], B] | tuple[Literal[2], C]]: ...
@overload
def race(
    a: Waitable[A], b: Waitable[B], c: Waitable[C], d: Waitable[D], /
) -> Wait[tuple[Literal[0], A] | tuple[Literal[1], B] | tuple[Literal[2], C] | tuple[Literal[3], D]]: ...
@overload
def race(a: Waitable[T], b: Waitable[T], /, *more: Waitable[T]) -> Wait[tuple[int, T]]: ...
def race(*targets: Any) -> Wait[Any]:
    """The first to end wins, with a value or an error; the others are cancelled and unwound before it returns."""
    refuse_list(targets, "race", "for a list put a star before it: zart.race(*branches)")
    if len(targets) < 2:
        raise InvalidUse("zart.race takes two things or more; for a single one write `yield from` alone")
    return Wait("race", targets)


def items_of(targets: Iterable[Waitable[T]], verb: str) -> tuple[Waitable[T], ...]:
    """The targets as a tuple; raises InvalidUse for a set, and for a single command or flow in place of a list."""
    if isinstance(targets, Command | Branch) or is_flow(targets):
        raise InvalidUse(
            f"zart.{verb} takes a list of tasks, steps or flows; put it in brackets: zart.{verb}([...])"
        )
    if not isinstance(targets, Iterable):
        raise InvalidUse(f"zart.{verb} takes a list of tasks, steps or flows, not {describe(targets)}")
    if isinstance(targets, set | frozenset):
        raise InvalidUse(
            f"zart.{verb} got a set, whose order a replay does not have again (P4); give it a list"
        )
    return tuple(targets)


def refuse_list(targets: tuple[Any, ...], verb: str, instead: str) -> None:
    """Raise InvalidUse for a single list in place of things one by one."""
    if len(targets) == 1 and isinstance(targets[0], list | tuple):
        raise InvalidUse(f"zart.{verb} takes them one by one: zart.{verb}(a, b); {instead}")


def is_flow(thing: object) -> bool:
    """Whether it is a generator of commands; a generator expression is an iterable like any other."""
    return isinstance(thing, GeneratorType) and thing.gi_code.co_name != "<genexpr>"


def sleep(name: str, duration: Duration) -> Sleep:
    """Wait for a span of time. The wake time is fixed and recorded when it is issued (R13)."""
    return Sleep(checked_name(name), seconds(duration))


def sleep_until(name: str, when: datetime) -> Sleep:
    """Wait until an instant. Raises InvalidUse for a naive datetime."""
    return Sleep(checked_name(name), None, instant(when, "zart.sleep_until"))


def instant(when: object, what: str) -> float:
    """Seconds since the epoch; raises InvalidUse for a naive datetime and for what is none."""
    if not isinstance(when, datetime):
        raise InvalidUse(f"{what} takes a datetime with a time zone, not {type(when).__name__}")
    if when.utcoffset() is None:
        raise InvalidUse(
            f"{what} got a naive datetime, {when.isoformat()}; say which zone: "
            "datetime(..., tzinfo=ZoneInfo('Europe/Berlin')) or datetime.now(timezone.utc)"
        )
    return when.timestamp()


@overload
def wait_for_event(
    event: str, type: TypeForm[T], timeout: Duration | None = None, name: str | None = None
) -> WaitForEvent[T]: ...
@overload
def wait_for_event(
    event: str, type: None = None, timeout: Duration | None = None, name: str | None = None
) -> WaitForEvent[Any]: ...
def wait_for_event(
    event: str, type: Any = None, timeout: Duration | None = None, name: str | None = None
) -> WaitForEvent[Any]:
    """Wait for one delivery of `event` and give its payload, decoded as `type`.

    Of a union it is the one member that the payload fits; where several do, the sender says which by a tag, as
    `{"$": "Approval", "v": {...}}`. Raises EventTimedOut in the workflow when none came in time, and EventRejected when
    the payload does not decode.
    """
    if isinstance(type, str | int | float | timedelta):
        raise InvalidUse(
            f"event '{event}' was given {type!r} as its type; give a class, and a timeout by its name: "
            f"zart.wait_for_event({event!r}, timeout='1h')"
        )
    return WaitForEvent(
        checked_name(event, "event"),
        Any if type is None else type,
        None if timeout is None else seconds(timeout, "timeout"),
        None if name is None else checked_name(name),
    )


def capture(name: str, fn: Callable[[], T], type: Any = None) -> Capture[T]:
    """Fix what `fn()` gives at the first run. The type is `fn`'s annotation unless given."""
    if not callable(fn) or inspect.iscoroutinefunction(fn) or inspect.isgeneratorfunction(fn):
        raise InvalidUse(
            f"zart.capture('{name}', ...) takes a plain function without arguments; use a step for more"
        )
    return Capture(checked_name(name), fn, type)


def now(name: str) -> Now:
    """The current time, with UTC as its zone, fixed at the first run."""
    return Now(checked_name(name))


def uuid(name: str) -> Capture[uuid_module.UUID]:
    """A random UUID, fixed at the first run."""
    return Capture(checked_name(name), uuid_module.uuid4, uuid_module.UUID)


def random(name: str) -> Capture[float]:
    """A random number in [0, 1), fixed at the first run."""
    return Capture(checked_name(name), random_module.random, float)


@overload
def child(workflow: Workflow[None, R], input: None = None, *, id: str | None = None) -> Child[R]: ...
@overload
def child(workflow: Workflow[I, R], input: I, *, id: str | None = None) -> Child[R]: ...
def child(workflow: Any, input: Any = None, *, id: str | None = None) -> Child[Any]:
    """Start another execution and wait for its result; it ends with this one.

    Its id is made from this one's, unless one is given.
    """
    return Child(checked_workflow(workflow, "child"), input, None if id is None else checked_name(id, "id"))


@overload
def spawn(workflow: Workflow[None, Any], input: None = None, *, id: str | None = None) -> Spawn: ...
@overload
def spawn(workflow: Workflow[I, Any], input: I, *, id: str | None = None) -> Spawn: ...
def spawn(workflow: Any, input: Any = None, *, id: str | None = None) -> Spawn:
    """Start another execution that lives on its own, and give its id."""
    return Spawn(checked_workflow(workflow, "spawn"), input, None if id is None else checked_name(id, "id"))


def checked_workflow(workflow: Any, verb: str) -> Any:
    """The workflow; raises InvalidUse for a plain function or a generator."""
    if not hasattr(workflow, "input_type"):
        raise InvalidUse(
            f"zart.{verb} takes a function decorated with @zart.workflow, not {describe(workflow)}"
        )
    return workflow


@overload
def version(name: str, current: Literal[1]) -> Version[Literal[1]]: ...
@overload
def version(name: str, current: Literal[2]) -> Version[Literal[1, 2]]: ...
@overload
def version(name: str, current: Literal[3]) -> Version[Literal[1, 2, 3]]: ...
@overload
def version(name: str, current: Literal[4]) -> Version[Literal[1, 2, 3, 4]]: ...
@overload
def version(name: str, current: int) -> Version[int]: ...
def version(name: str, current: int) -> Version[Any]:
    """Which version of the code this run began with: 1 for runs older than the marker, `current` for new ones (R23)."""
    if isinstance(current, bool) or not isinstance(current, int) or current < 1:
        raise InvalidUse(f"zart.version('{name}', {current!r}): versions are counted 1, 2, 3, ...")
    return Version(checked_name(name), current)


def scope(prefix: str, flow: Command[T] | Flow[T]) -> SubFlow[T]:
    """Run a flow with `prefix/` before every name inside, so that a helper can be used twice. A command is one, too."""
    return SubFlow(checked_flow(flow, "scope"), False, checked_name(prefix, "prefix"))


def shield(flow: Command[T] | Flow[T]) -> SubFlow[T]:
    """Run a flow that cancellation waits for; a command, such as a step, is one, too."""
    return SubFlow(checked_flow(flow, "shield"), True, "")


def checked_flow(flow: Command[T] | Flow[T], verb: str) -> Flow[T]:
    """The flow; raises InvalidUse for anything but a generator (or a command, which is wrapped)."""
    given: object = flow
    if isinstance(given, Command | GeneratorType):
        return as_flow(flow)
    raise InvalidUse(
        f"zart.{verb} takes a flow: call a generator function, as in zart.{verb}(..., helper(x))"
    )


def as_flow(target: Command[T] | Flow[T]) -> Flow[T]:
    """A flow that yields the command, or the flow itself."""
    return iter(target) if isinstance(target, Command) else target


def tried(target: Command[T] | Flow[T], verb: str) -> Flow[T]:
    """What is to be tried, as a flow; raises InvalidUse for anything else, which is no error of a step."""
    given: object = target
    if isinstance(given, Command | Generator):
        return as_flow(target)
    raise InvalidUse(
        f"zart.{verb} takes a step or a flow that was called, as in zart.{verb}(my_step(x)), not {describe(given)}; "
        "for tasks there is zart.settle([...])"
    )


def outcome(target: Command[T] | Flow[T]) -> Flow[Ok[T] | Err[Exception]]:
    """Its result as `Ok(value)` or `Err(error)`, for `match`; a cancellation passes through."""
    flow = tried(target, "outcome")
    try:
        return Ok((yield from flow))
    except Exception as error:  # noqa: BLE001  # the very point: every error of the step, as a value
        return Err(error)


def step_or(target: Command[T] | Flow[T], default: R) -> Flow[T | R]:
    """Its value, or `default` for every step error."""
    flow = tried(target, "step_or")
    try:
        return (yield from flow)
    except Exception:  # noqa: BLE001  # the very point
        return default


def step_or_else(target: Command[T] | Flow[T], fn: Callable[[Exception], R]) -> Flow[T | R]:
    """Its value, or `fn(error)` for a declared business error; any other error is raised."""
    flow = tried(target, "step_or_else")
    try:
        return (yield from flow)
    except ZartError:
        raise
    except Exception as error:  # noqa: BLE001  # whatever `raises=` declares
        return fn(error)
