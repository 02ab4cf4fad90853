"""@workflow and the registry: the code that runs are replayed against.

Rule 1: nothing is registered by being imported; a host is given its workflows.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Generator, Iterable, Iterator
from difflib import get_close_matches
from types import ModuleType
from typing import (
    Any,
    Generic,
    Never,
    Protocol,
    TypeAlias,
    TypeGuard,
    TypeVar,
    get_args,
    get_origin,
    overload,
)

from typing_extensions import TypeIs

from zart_core.commands import Command, ContinueAsNew, Flow, checked_name
from zart_core.errors import InvalidUse, UnknownWorkflow
from zart_core.events import Started
from zart_core.policies import Duration, ErrorTypes, error_types, seconds
from zart_core.steps import StepFunction, annotations_of

I = TypeVar("I")  # noqa: E741  # the input
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")


class Workflow(Generic[I, R_co]):
    """A function decorated with @workflow. Give it to a host; call it to get the plain generator."""

    def __init__(
        self,
        fn: Callable[..., Flow[R_co]],
        name: str,
        *,
        version: int = 1,
        timeout_s: float | None = None,
        on_failure: Callable[[Any, BaseException], Any] | None = None,
        park_on: ErrorTypes = (),
    ) -> None:
        functools.update_wrapper(self, fn)
        self.fn = fn
        """The generator function itself."""
        self.name = name
        self.version = version
        """Which version of the workflow of this name; a run goes on with the one that it began with."""
        self.timeout_s = timeout_s
        """Seconds from a run's start to its deadline (R16); None for none."""
        self.on_failure = on_failure
        self.park_on = park_on
        self.takes_input = bool(inspect.signature(fn).parameters)

    def __call__(self, *input: I) -> Flow[R_co]:
        """The plain generator, as `fn` gives it."""
        return self.fn(*input)

    def __repr__(self) -> str:
        return f"<workflow {titled(self.name, self.version)}>"

    @functools.cached_property
    def input_type(self) -> Any:
        """The declared type of the input; None without one, Any without an annotation. Raises InvalidUse."""
        if not self.takes_input:
            return type(None)
        first = next(iter(inspect.signature(self.fn).parameters))
        return annotations_of(self.fn).get(first, Any)

    @functools.cached_property
    def result_type(self) -> Any:
        """The declared type of the result, out of Flow[...] or Generator[...]; Any without one. Raises InvalidUse."""
        declared = annotations_of(self.fn).get("return", Any)
        arguments = get_args(declared)
        if isinstance(get_origin(declared), type) and len(arguments) == 3:
            return arguments[2]
        return Any

    @overload
    def continue_as_new(self: Workflow[None, Any], input: None = None) -> Never: ...
    @overload
    def continue_as_new(self, input: I) -> Never: ...
    def continue_as_new(self, input: Any = None) -> Any:
        """End this run and begin the next: `yield from my_workflow.continue_as_new(input)`, in the root branch only.

        The new run has an empty history and the same id; undelivered events move along, in the same commit. It begins
        with the newest version that is registered, which so must take this input.
        """
        return ContinueAsNew(self, input)


class WorkflowDecorator(Protocol):
    """What `@workflow(...)` applies to a generator function."""

    @overload
    def __call__(self, fn: Callable[[I], Generator[Command[Any], object, R]], /) -> Workflow[I, R]: ...
    @overload
    def __call__(self, fn: Callable[[], Generator[Command[Any], object, R]], /) -> Workflow[None, R]: ...


def workflow(
    name: str | None = None,
    *,
    version: int = 1,
    timeout: Duration | None = None,
    on_failure: Callable[[Any, Any], Any] | None = None,
    park_on: tuple[type[Exception], ...] | type[Exception] = (),
) -> WorkflowDecorator:
    """Make a workflow of a generator function with one input, or none.

    Args:
        name: its identity in the log. By default the function's name with dashes.
        version: which version of the workflow of this name, from 1. Several may be registered side by side: a run goes
            on with the one that it began with.
        timeout: from a run's start to its deadline, enforced while it waits (R16).
        on_failure: a function of (input, failure), or a flow of them: what it returns completes the run (R17). A
            function may also give one command, such as a step, whose result does.
        park_on: errors that park the run instead of failing it (R19).

    Raises InvalidUse for a definition that cannot work.
    """

    def decorate(fn: Callable[..., Any]) -> Workflow[Any, Any]:
        id = checked_name(
            getattr(fn, "__name__", "workflow").replace("_", "-") if name is None else name, "workflow name"
        )
        refuse_wrong_function(fn, id)
        if isinstance(version, bool) or not isinstance(version, int) or version < 1:
            raise InvalidUse(f"version={version!r} of workflow '{id}': versions are counted 1, 2, 3, ...")
        if on_failure is not None and not takes_input_and_failure(on_failure):
            raise InvalidUse(
                f"on_failure of workflow '{id}' must be a plain function of (input, failure), or a flow of them"
            )
        return Workflow(
            fn,
            id,
            version=version,
            timeout_s=None if timeout is None else seconds(timeout, f"timeout of workflow '{id}'"),
            on_failure=on_failure,
            park_on=error_types(park_on, "park_on"),
        )

    if callable(name):
        raise InvalidUse("write @zart.workflow() with parentheses, or @zart.workflow('a-name')")
    return decorate


def refuse_wrong_function(fn: Callable[..., Any], id: str) -> None:
    """Raise InvalidUse for what cannot be a workflow."""
    if inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn):
        raise InvalidUse(
            f"workflow '{id}' is an `async def`; a workflow is a plain generator: write `def` and `yield from`. "
            "Only steps may be async"
        )
    if not inspect.isgeneratorfunction(fn):
        raise InvalidUse(
            f"workflow '{id}' is no generator function; it must `yield from` its steps. One without any step is none"
        )
    parameters = list(inspect.signature(fn).parameters.values())
    if parameters and parameters[0].kind not in (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    ):
        raise InvalidUse(f"workflow '{id}' must take its one input by position, not as '{parameters[0]}'")
    if any(parameter.default is parameter.empty for parameter in parameters[1:]):
        raise InvalidUse(
            f"workflow '{id}' takes {len(parameters)} parameters; give it one input, such as an attrs class"
        )


def takes_input_and_failure(on_failure: Any) -> bool:
    """Whether it can be called when a run has failed: found out then, nothing would be compensated."""
    if (
        not callable(on_failure)
        or inspect.iscoroutinefunction(on_failure)
        or inspect.isasyncgenfunction(on_failure)
    ):
        return False
    try:
        inspect.signature(on_failure).bind(None, None)
    except TypeError:
        return False
    except ValueError:  # written in C, and says nothing about what it takes
        return True
    return True


def is_workflow(value: object) -> TypeIs[Workflow[Any, Any]]:
    """Whether it is a function decorated with @workflow."""
    return isinstance(value, Workflow)


def workflows_in(module: ModuleType) -> list[Workflow[Any, Any]]:
    """The workflows that a module defines or imports; not those of its submodules."""
    return [value for value in vars(module).values() if is_workflow(value)]


def is_several(source: object) -> TypeGuard[Iterable[WorkflowSource]]:
    """Whether it can be gone through, and is no text."""
    return isinstance(source, Iterable) and not isinstance(source, str | bytes)


WorkflowSource: TypeAlias = "Workflow[Any, Any] | ModuleType | Registry"


def titled(name: str, version: int) -> str:
    """A workflow's name for people; the first version needs no number."""
    return f"'{name}'" if version == 1 else f"'{name}' version {version}"


def claim_name(name: str, version: int) -> str | None:
    """The name that workers claim runs of a version by; None, which is the workflow's own, for the first (0300)."""
    return None if version == 1 else f"{name} (version {version})"


def version_claimed(name: str, claimed_as: str | None) -> int | None:
    """The version that runs which are claimed by such a name are of; None where it tells of none."""
    if claimed_as is None:
        return 1
    digits = claimed_as.removeprefix(f"{name} (version ").removesuffix(")")
    if not digits.isdecimal() or len(digits) > DIGITS_MAX or claim_name(name, int(digits)) != claimed_as:
        return None
    return int(digits)


DIGITS_MAX = 100
"""The longest number of a version that is told from a name."""


class Registry:
    """The workflows that a host knows, by name and version. Its items are the newest of each name."""

    def __init__(self, *sources: WorkflowSource | Iterable[WorkflowSource]) -> None:
        self.by_name: dict[str, Workflow[Any, Any]] = {}
        """The newest version of each."""
        self.versions: dict[str, dict[int, Workflow[Any, Any]]] = {}
        """Every version of each, by number."""
        self.claim_names: set[str] = set()
        """What runs of all of them are claimed by."""
        for source in sources:
            self.add(source)

    def add(self, source: WorkflowSource | Iterable[WorkflowSource]) -> None:
        """Register a workflow, all workflows of a module, another registry, or several of these.

        Raises InvalidUse when two workflows have one name and version, for a module that has neither workflows nor
        steps, or for anything else.
        """
        match source:
            case Workflow():
                self.add_one(source)
            case Registry():
                self.add(source.everything())
            case ModuleType():
                found = workflows_in(source)
                if not found and not any(isinstance(value, StepFunction) for value in vars(source).values()):
                    raise InvalidUse(
                        f"module '{source.__name__}' has no workflow; give modules that define or import functions "
                        "decorated with @zart.workflow"
                    )
                self.add(found)
            case _ if is_several(source):
                for item in source:
                    self.add(item)
            case _:
                raise InvalidUse(
                    f"{source!r} is no workflow; give functions decorated with @zart.workflow, "
                    "modules or a Registry"
                )

    def add_one(self, workflow: Workflow[Any, Any]) -> None:
        """Register a workflow. Raises InvalidUse when another has its name and version."""
        known = self.versions.get(workflow.name, {}).get(workflow.version, workflow)
        if known is not workflow:
            raise InvalidUse(
                f"two workflows are named {titled(workflow.name, workflow.version)}: "
                f"{known.fn.__module__}.{known.fn.__qualname__} and "
                f"{workflow.fn.__module__}.{workflow.fn.__qualname__}; rename one, or give it another version="
            )
        self.replace(workflow)

    def replace(self, workflow: Workflow[Any, Any]) -> None:
        """Register a workflow in place of the one of its name and version, if there is one."""
        versions = self.versions.setdefault(workflow.name, {})
        versions[workflow.version] = workflow
        self.claim_names.add(claim_name(workflow.name, workflow.version) or workflow.name)
        self.by_name[workflow.name] = versions[max(versions)]

    def learn(self, workflow: Workflow[Any, Any]) -> None:
        """Register a workflow, unless its name and version are taken."""
        if workflow.version not in self.versions.get(workflow.name, {}):
            self.replace(workflow)

    def everything(self) -> list[Workflow[Any, Any]]:
        """Every version of every workflow."""
        return [workflow for versions in self.versions.values() for workflow in versions.values()]

    def version(self, name: str, number: int) -> Workflow[Any, Any]:
        """One version of the workflow of this name; raises UnknownWorkflow."""
        newest = self[name]
        try:
            return self.versions[name][number]
        except KeyError:
            known = ", ".join(map(str, sorted(self.versions[name])))
            raise UnknownWorkflow(
                f"version {number} of workflow '{newest.name}' is not registered (registered: {known}). "
                "Register it beside the others, and its runs go on"
            ) from None

    def of(self, started: Started) -> Workflow[Any, Any]:
        """The workflow that a run began with; raises UnknownWorkflow."""
        return self.version(started.workflow, started.version)

    def __getitem__(self, name: str) -> Workflow[Any, Any]:
        """The newest workflow of this name; raises UnknownWorkflow."""
        try:
            return self.by_name[name]
        except KeyError:
            near = get_close_matches(name, self.by_name, 1)
            hint = f"; did you mean '{near[0]}'? " if near else ". "
            known = ", ".join(sorted(self.by_name)) or "none"
            raise UnknownWorkflow(
                f"workflow '{name}' is not registered (registered: {known}){hint}"
                "Pass it to zart.open(url, [...]), and its runs go on"
            ) from None

    def __contains__(self, name: object) -> bool:
        return name in self.by_name

    def __iter__(self) -> Iterator[Workflow[Any, Any]]:
        return iter(self.by_name.values())

    def __len__(self) -> int:
        return len(self.by_name)
