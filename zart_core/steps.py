"""@step: a plain or async function that becomes a durable step.

Rule 1: the name is the identity (R2): static, a template over the arguments, or given by `.named()`.
Rule 2: calling a step function builds a command and does nothing; `my_step.fn` is the plain function.
"""

from __future__ import annotations

import functools
import inspect
import re
import string
import typing
from collections.abc import Callable, Coroutine
from types import GenericAlias
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, overload

from zart_core.commands import Step, checked_name
from zart_core.errors import InvalidUse
from zart_core.policies import Duration, ErrorTypes, Retry, TimeoutScope, checked, error_types, seconds
from zart_core.records import record

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

QUEUE_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
DEFAULT_QUEUE = "default"
"""The queue of steps that name none."""


@record
class StepPolicy:
    """What a host has to know to run a step; all of it comes from the code, never from the log."""

    retry: Retry
    timeout_s: float | None
    timeout_scope: TimeoutScope
    raises: ErrorTypes
    at_most_once: bool
    max_crashes: int
    cancel_grace_s: float
    queue: str | None = None
    """Which workers may run it: those that serve the queue; None for whoever holds the execution."""


class StepFunction(Generic[P, T_co]):
    """A function decorated with @step. Calling it in a workflow builds the command to yield."""

    def __init__(
        self,
        fn: Callable[..., Any],
        id: str,
        policy: StepPolicy,
        origin: StepFunction[..., Any] | None = None,
        formatter: NameOf | None = None,
    ) -> None:
        functools.update_wrapper(self, fn)
        self.fn = fn
        """The plain function, to call directly in a unit test."""
        self.id = id
        """The step's own id: the name or the template it was declared with."""
        self.policy = policy
        self.origin: StepFunction[..., Any] = origin or self
        """The step as it was decorated; differs from this one for a bound method."""
        self.signature = inspect.signature(fn)
        self.is_async = inspect.iscoroutinefunction(underlying(fn))
        self.parameter_names = tuple(self.signature.parameters)
        self.arity = positional_arity(self.signature)
        self.is_plain = self.arity >= 0
        self.formatter = formatter or compiled_template(id, self.signature)
        self.arguing: tuple[object, tuple[Callable[..., bytes], Callable[[bytes], list[Any]]]] | None = None
        """The codec of its last arguments, and how it writes and reads them."""
        self.decoding: tuple[object, Callable[[bytes], Any]] | None = None
        """The codec that decoded its last result, and how: a dict for it in each run would take 224 bytes."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Step[T_co]:
        """Build the command. Raises TypeError when the arguments do not fit the function."""
        if kwargs or len(args) != self.arity:
            self.refuse_unfit(args, kwargs)
        formatter = self.formatter
        if formatter is None:
            return Step(self, args, kwargs, self.id)
        name = formatter(args, kwargs)
        return Step(self, args, kwargs, name if name.isprintable() and name else printable(name, self.id))

    def refuse_unfit(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raise TypeError for arguments that do not fit."""
        try:
            self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"step '{self.id}' takes {self.signature}: {error}") from None

    def __get__(self, instance: object, owner: type | None = None) -> StepFunction[..., T_co]:
        """Bind a step that was declared in a class, as a method is bound."""
        if instance is None:
            return self
        bound = self.fn.__get__(instance, owner)
        return StepFunction(bound, self.id, self.policy, self.origin, bound_name(self.formatter, instance))

    def __repr__(self) -> str:
        return f"<step '{self.id}'>"

    def __reduce__(self) -> str:
        """Pickle by reference, as a plain function is, for executors that send work to other processes."""
        return self.fn.__qualname__

    @functools.cached_property
    def parameter_types(self) -> tuple[Any, ...]:
        """The declared type of each parameter, in order; Any where there is no annotation. Raises InvalidUse."""
        hints = annotations_of(self.fn)
        return tuple(parameter_type(parameter, hints) for parameter in self.signature.parameters.values())

    @functools.cached_property
    def result_type(self) -> Any:
        """The declared type of the result; Any where there is no annotation. Raises InvalidUse."""
        return annotations_of(self.fn).get("return", Any)

    def bound(self, command: Step[Any]) -> list[Any]:
        """The arguments of a command, one for each parameter in order, defaults filled in."""
        if not command.kwargs and len(command.args) == self.arity:
            return list(command.args)
        bound = self.signature.bind(*command.args, **command.kwargs)
        bound.apply_defaults()
        return list(bound.arguments.values())

    def call(self, values: list[Any], stand_in: Callable[..., Any] | None = None) -> Any:
        """Call the function, or what stands in for it, with one value for each parameter, as `bound` gives them."""
        fn = stand_in or self.fn
        if self.is_plain:
            return fn(*values)
        args, kwargs = self.spread(values)
        return fn(*args, **kwargs)

    def spread(self, values: list[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The positional and the keyword arguments of a call with one value for each parameter: undoes `bound`."""
        if self.is_plain:
            return tuple(values), {}
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for parameter, value in zip(self.signature.parameters.values(), values, strict=True):
            match parameter.kind:
                case inspect.Parameter.VAR_POSITIONAL:
                    args.extend(value)
                case inspect.Parameter.VAR_KEYWORD:
                    kwargs.update(value)
                case inspect.Parameter.KEYWORD_ONLY:
                    kwargs[parameter.name] = value
                case _:
                    args.append(value)
        return tuple(args), kwargs


def positional_arity(signature: inspect.Signature) -> int:
    """How many positional arguments a call must have to be plainly right; -1 when it takes a closer look."""
    kinds = [parameter.kind for parameter in signature.parameters.values()]
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return len(kinds) if all(kind in plain for kind in kinds) else -1


def parameter_type(parameter: inspect.Parameter, hints: dict[str, Any]) -> Any:
    """The declared type of a parameter, with *args as a tuple and **kwargs as a dict."""
    declared = hints.get(parameter.name, Any)
    match parameter.kind:
        case inspect.Parameter.VAR_POSITIONAL:
            return GenericAlias(tuple, (declared, ...))
        case inspect.Parameter.VAR_KEYWORD:
            return GenericAlias(dict, (str, declared))
        case _:
            return declared


def annotations_of(fn: Callable[..., Any]) -> dict[str, Any]:
    """A function's resolved annotations; raises InvalidUse when one cannot be resolved."""
    fn = underlying(fn)
    try:
        return typing.get_type_hints(fn, include_extras=True)
    except Exception as error:  # an annotation is code
        raise InvalidUse(
            f"the annotations of {fn.__qualname__} cannot be resolved ({error}); "
            "import the types it names at module level, not only under TYPE_CHECKING"
        ) from error


def underlying(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The function that is called in the end: of a partial one, or of an object that may be called."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    return fn if inspect.isroutine(fn) or hasattr(fn, "__wrapped__") else type(fn).__call__


# ---------------------------------------------------------------- templates


def printable(name: str, template: str) -> str:
    """A name made of hostile arguments, with escapes in it (L11, F22); raises InvalidUse for an empty one."""
    if not name:
        raise InvalidUse(f"the step name {template!r} came out empty; put some text of its own into it")
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in name)


class NameOf(Protocol):
    """A compiled template: the name for a call's arguments."""

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """Give the name."""
        ...


def compiled_template(template: str, signature: inspect.Signature) -> NameOf | None:
    """The name as a function of the arguments; None when it is static. Raises InvalidUse at the decorator."""
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(template) if field is not None]
    except ValueError as error:
        raise InvalidUse(f"the step name {template!r} is no valid template: {error}") from error
    if not fields:
        if "{" in template or "}" in template:
            raise InvalidUse(
                f"the step name {template!r} has an escaped brace; leave braces out of static names"
            )
        return None
    parameters = list(signature.parameters)
    for field in fields:
        root = field.split(".")[0].split("[")[0]
        if root not in parameters:
            raise InvalidUse(
                f"the step name {template!r} names no parameter with {{{field}}}; "
                f"the function takes: {', '.join(parameters) or 'nothing'}"
            )
    plain = fields == [field for field in fields if field in parameters]
    if plain and positional_arity(signature) >= 0 and "{{" not in template and "}}" not in template:
        return positional_template(template, parameters, signature)
    return bound_template(template, signature)


def positional_template(template: str, parameters: list[str], signature: inspect.Signature) -> NameOf:
    """The quick way for plain fields over plain arguments: one format call."""
    numbered = template
    for index, name in enumerate(parameters):
        for end in "}", ":", "!":
            numbered = numbered.replace("{" + name + end, "{" + str(index) + end)
    form, slow, arity = numbered.format, bound_template(template, signature), len(parameters)

    def name_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        return form(*args) if len(args) == arity else slow(args, kwargs)

    return name_of


def bound_template(template: str, signature: inspect.Signature) -> NameOf:
    """The general way: bind the arguments, then format."""

    def name_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return template.format(**bound.arguments)

    return name_of


def bound_name(formatter: NameOf | None, instance: object) -> NameOf | None:
    """The name of a method's call, whose template may speak of the instance, as in "charge-{self.region}"."""
    return formatter and (lambda args, kwargs: formatter((instance, *args), kwargs))


# ---------------------------------------------------------------- the decorator


class StepDecorator(Protocol):
    """What `@step(...)` applies to a function."""

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, T]], /) -> StepFunction[P, T]: ...
    @overload
    def __call__(self, fn: Callable[P, T], /) -> StepFunction[P, T]: ...


def step(
    name: str | None = None,
    *,
    retry: Retry | None = None,
    timeout: Duration | None = None,
    timeout_scope: TimeoutScope = TimeoutScope.GLOBAL,
    raises: tuple[type[Exception], ...] | list[type[Exception]] | type[Exception] = (),
    at_most_once: bool = False,
    max_crashes: int = 3,
    cancel_grace: Duration = 10.0,
    queue: str | None = None,
) -> StepDecorator:
    """Make a durable step of a plain or async function.

    Args:
        name: its identity in a run: static, or a template over the arguments, such as "reserve-{sku}" or
            "page-{page.number}". By default the function's name with dashes.
        retry: how often and how fast a failed attempt is tried again (R4). Default: never.
        timeout: how long it may take (R7), over all attempts or for each, as `timeout_scope` says.
        timeout_scope: GLOBAL (default) or PER_ATTEMPT.
        raises: errors that are answers: they come back as their own type, and are not retried (R8).
        at_most_once: never run it again when its worker died while it may have been running (R10).
        max_crashes: how often it may bring down its worker before it resolves as StepLost (R5).
        cancel_grace: how long a running attempt gets to end when it is cancelled (R18); an async one also when its
            time is over (PER_ATTEMPT).
        queue: it begins only on workers that serve this queue (`zart.open(..., queues=("default", "gpu"))`,
            `zart worker --queue gpu`). By default on the worker that holds the execution, or on another with room.

    Raises InvalidUse for a definition that cannot work.
    """

    def decorate(fn: Callable[..., Any]) -> StepFunction[..., Any]:
        id = checked_name(
            getattr(fn, "__name__", "step").replace("_", "-") if name is None else name, "step name"
        )
        refuse_wrong_function(fn, id)
        policy = StepPolicy(
            retry=checked_retry(retry, id),
            timeout_s=None if timeout is None else positive(seconds(timeout, f"timeout of step '{id}'"), id),
            timeout_scope=TimeoutScope(timeout_scope),
            raises=error_types(raises, "raises"),
            at_most_once=at_most_once,
            max_crashes=max_crashes,
            cancel_grace_s=seconds(cancel_grace, f"cancel_grace of step '{id}'"),
            queue=None if queue in (None, DEFAULT_QUEUE) else queue_name(queue),
        )
        if isinstance(max_crashes, bool) or not isinstance(max_crashes, int) or max_crashes < 1:
            raise InvalidUse(
                f"max_crashes of step '{id}' is {max_crashes!r}; it counts crashes: 1, 2, 3, ..."
            )
        return StepFunction(fn, id, policy)

    if callable(name):
        raise InvalidUse("write @zart.step() with parentheses, or @zart.step('a-name')")
    return decorate  # type: ignore[return-value]  # the overloads above say more than one signature can


def queue_name(name: object) -> str:
    """The name of a queue; raises InvalidUse. It becomes part of the name under which stores keep its steps."""
    if not isinstance(name, str) or not QUEUE_NAME.fullmatch(name):
        raise InvalidUse(f"queue={name!r}: a queue's name is 1 to 64 letters, digits, '-', '_' and '.'")
    return name


def checked_retry(retry: Retry | None, id: str) -> Retry:
    """The policy; raises InvalidUse for a number or the like."""
    if retry is None:
        return Retry.none()
    if not isinstance(retry, Retry):
        raise InvalidUse(f"retry of step '{id}' is {retry!r}; write zart.Retry.fixed(3, '1s') or the like")
    return checked(retry)


def positive(value: float, id: str) -> float:
    """The value; raises InvalidUse for zero."""
    if value <= 0:
        raise InvalidUse(f"timeout of step '{id}' is 0; give a positive duration, or none")
    return value


def refuse_wrong_function(fn: Callable[..., Any], id: str) -> None:
    """Raise InvalidUse for what cannot be a step."""
    if not callable(fn) or isinstance(fn, type | StepFunction | staticmethod | classmethod):
        raise InvalidUse(
            f"@zart.step('{id}') takes a function; put it below @staticmethod or @classmethod, once"
        )
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise InvalidUse(
            f"step '{id}' is a generator function; a step is a plain or async function. "
            "A generator of commands is a flow: leave @zart.step out and call it with `yield from`"
        )
