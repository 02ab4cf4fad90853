"""When does a yield over several things come back, and with what? Pure: no clock, no log, no generator.

Rule 1: a `Wait` counts down; noting that one thing ended costs O(1), whatever the number waited for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, Protocol, TypeAlias

from zart_core.errors import StepsFailed
from zart_core.events import Err, Ok

Mode: TypeAlias = Literal["all", "fail_fast", "settle", "gather", "any", "race", "unwind"]


class Awaited(Protocol):
    """What can be waited for: it has settled or not, with a value or an error."""

    settled: bool
    value: Any
    error: BaseException | None


class Wait:
    """What a branch waits for. `first` is the one that let it go on, where one is enough."""

    __slots__ = ("first", "missing", "mode", "nodes")

    def __init__(self, mode: Mode, nodes: Sequence[Awaited]) -> None:
        self.mode = mode
        self.nodes = nodes
        self.missing = {node for node in nodes if not node.settled}
        self.first: Awaited | None = None

    def begin(self) -> bool:
        """True when there is nothing to wait for."""
        if self.mode in ("any", "race", "fail_fast"):
            for node in self.nodes:
                if node.settled and self.suffices(node):
                    self.first = node
                    return True
        return not self.missing

    def note(self, node: Awaited) -> bool:
        """One thing has ended; True when the branch may go on."""
        if node not in self.missing:
            return False
        self.missing.discard(node)
        if self.suffices(node):
            self.first = node
            return True
        return not self.missing

    def suffices(self, node: Awaited) -> bool:
        """Whether this one alone lets the branch go on."""
        match self.mode:
            case "any" | "race":
                return True
            case "fail_fast":
                return node.error is not None
            case _:
                return False

    def cancels(self) -> bool:
        """Whether what is still missing is cancelled before the branch goes on."""
        return bool(self.missing) and self.mode in ("race", "fail_fast")

    def answer(self) -> tuple[Any, BaseException | None]:
        """What the yield gives back: a value, or an error to raise."""
        match self.mode:
            case "any":
                assert self.first is not None
                return (self.nodes.index(self.first), outcome_of(self.first)), None
            case "race":
                assert self.first is not None
                return (self.nodes.index(self.first), self.first.value), self.first.error
            case "settle":
                return [outcome_of(node) for node in self.nodes], None
            case "fail_fast" if self.first is not None:
                return None, self.first.error
            case _:
                return self.everything()

    def everything(self) -> tuple[Any, BaseException | None]:
        """All values in the order given, or one error that holds all errors."""
        if any(node.error is not None for node in self.nodes):
            return None, failure_of_all([outcome_of(node) for node in self.nodes])
        values = [node.value for node in self.nodes]
        return (tuple(values) if self.mode == "gather" else values), None


def outcome_of(node: Awaited) -> Ok[Any] | Err[BaseException]:
    """What became of it, as a value."""
    return Ok(node.value) if node.error is None else Err(node.error)


def failure_of_all(outcomes: Sequence[Ok[Any] | Err[BaseException]]) -> BaseException:
    """One error for several: StepsFailed with every outcome; a cancellation itself when nothing else failed."""
    errors = [outcome.error for outcome in outcomes if isinstance(outcome, Err)]
    failures = unique(error for error in errors if isinstance(error, Exception))
    if not failures:
        return errors[0]
    return StepsFailed(f"{len(errors)} of {len(outcomes)} failed", failures, outcomes)


def unique(errors: Iterable[Exception]) -> list[Exception]:
    """Each error object once: the same task may have been given twice."""
    return list({id(error): error for error in errors}.values())
