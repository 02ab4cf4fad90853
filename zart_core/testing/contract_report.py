"""What a store promises, in sentences; checks that name the promise they hold it to; and the report of them all.

Rule 1: a check's docstring begins with the numbers of the promises it shows; its failure says which was broken,
        what was done, what was wanted and what was found.
Rule 2: nothing here needs pytest: a check is a method, its cases are data, what it cannot do raises SkipTest.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Literal, TypeAlias, TypeVar
from unittest import SkipTest

from zart_core.records import record

T = TypeVar("T")

PROMISES = {
    "L1": "an append is atomic: all of a turn or nothing, with all that goes along with it",
    "L2": "a turn is conditional on run, position and fence, checked under the lock of the write",
    "L3": "an outcome is true: Ok is in, Rejected is out, now and later, Unknown may be either",
    "L4": "what was acknowledged is durable at the level that the store names",
    "L5": "what is read is a gap-free prefix of what was appended, byte for byte, and never changes",
    "L6": "a batch is one commit, its writes take effect in order, and each has an outcome of its own",
    "L7": "a message is delivered once, in order per sender, and consumed with the turn that uses it",
    "L8": "one worker at a time holds an execution, for a lease, with a fence that only grows",
    "L9": "an execution is created once, and it is told whether",
    "L10": "who is due is found when it is due, not earlier and not later, and waiting ends when there is news",
    "L11": "ids, names and payloads are data, whatever characters they have",
    "L12": "damage is reported, never skipped and never repaired silently",
    "L13": "status, reason and build are set without an append",
    "R14": "a key that was seen is accepted again without effect, for the life of the execution",
    "I6": "fences never decrease",
    "I7": "nothing follows the end of an execution",
    "F6": "a full disk is Rejected with nothing left behind, and the store works again when there is room",
    "F8": "a read error is raised, and is never the end of a log",
    "F9": "damaged bytes are refused with LogCorrupt",
    "F11": "a store that takes one opener refuses a second one at once",
    "F12": "a forked child cannot use its parent's store",
    "F13": "no jump of the clock makes anything due early, or twice",
    "F15": "a worker that lost its lease can write no more",
    "F19": "what is too large is refused by name before anything is written",
    "F22": "what cannot be stored is refused at the edge, before anything is written",
    "F26": "a store of a newer format is refused",
    "F27": "an append that is interrupted leaves the store consistent and usable",
}
"""Each promise in one sentence; the L stand in `zart_core.log`, the others in docs/rules.md."""

STATED = re.compile(r"((?:[LRIF]\d+(?:, )?)+): (.+)", re.S)

Case: TypeAlias = tuple[str, dict[str, Any]]
"""A name, and the arguments of a check."""
Verdict: TypeAlias = Literal["kept", "broken", "not shown"]


class Differs(AssertionError):
    """What was found is not what was wanted."""

    def __init__(self, wanted: str, found: str, what: str = "") -> None:
        super().__init__(f"{what or 'not as promised'}\n  wanted: {wanted}\n  found:  {found}")
        self.wanted = wanted
        self.found = found
        self.what = what


class PromiseBroken(AssertionError):
    """A store does not do what it promises; the text says which promise, and how that was seen."""

    def __init__(self, check: str, statement: str, done: Sequence[str], error: BaseException) -> None:
        self.promises, self.statement = stated(statement)
        wanted, found, what = "that no error is raised", f"{type(error).__name__}: {error}", ""
        if isinstance(error, Differs):
            wanted, found, what = error.wanted, error.found, error.what
        lines = [f"{number} is broken: {PROMISES[number]}" for number in self.promises]
        lines.append(f"  check:  {check}: {self.statement}")
        lines += [f"  done:   {text}" if n == 0 else f"          {text}" for n, text in enumerate(done)]
        lines += [f"  seen:   {what}"] if what else []
        lines += [f"  wanted: {wanted}", f"  found:  {found}"]
        super().__init__("\n".join(lines))


def stated(docstring: str) -> tuple[tuple[str, ...], str]:
    """The promises that a check's docstring names, and what it says of them."""
    match = STATED.match(" ".join(docstring.split()))
    assert match is not None, f"a check must begin with its promises: {docstring!r}"
    return tuple(match[1].split(", ")), match[2]


# ---------------------------------------------------------------- cases


@record
class Named:
    """A value of a case with a name to show it by."""

    name: str
    value: Any


def by_name(values: dict[str, Any]) -> list[Named]:
    """Make cases that are shown by name."""
    return [Named(name, value) for name, value in values.items()]


def cases(
    names: str, values: Iterable[Any], ids: Callable[[Any], str] = str
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Check with each of these values; for several names each value is a tuple of them."""
    found: list[Case] = []
    parts = names.split(", ")
    for value in values:
        name, given = (value.name, value.value) if isinstance(value, Named) else (ids(value), value)
        found.append((name, dict(zip(parts, given if len(parts) > 1 else (given,), strict=True))))

    def add(check: Callable[..., Any]) -> Callable[..., Any]:
        axes_of(check).append(found)
        return check

    return add


def axes_of(check: Any) -> list[list[Case]]:
    """The cases of a check, a list for each of its decorators."""
    axes: list[list[Case]] | None = getattr(check, "contract_cases", None)
    if axes is None:
        axes = check.contract_cases = []
    return axes


def cases_of(check: Any) -> Iterator[Case]:
    """Every combination of a check's cases; a single one without arguments when it has none."""
    for combination in itertools.product(*axes_of(check)):
        arguments = {name: value for _, given in combination for name, value in given.items()}
        yield "-".join(name for name, _ in combination), arguments


@contextmanager
def raising(wanted: type[BaseException]) -> Generator[None]:
    """Fail unless this error is raised inside."""
    try:
        yield
    except wanted:
        return
    raise Differs(f"that {wanted.__name__} is raised", "no error")


# ---------------------------------------------------------------- checks


def checks(cls: type[T]) -> type[T]:
    """Make every method named test_ a check: it opens and closes its log, and its failure says what was broken."""
    for name, method in list(vars(cls).items()):
        if name.startswith("test_"):
            setattr(cls, name, checked(method))
    return cls


def checked(method: Callable[..., None]) -> Callable[..., None]:
    """One check. It takes its cases, and no log."""
    signature = inspect.signature(method)
    takes_log = "log" in signature.parameters
    parameters = [each for each in signature.parameters.values() if each.name != "log"]

    @functools.wraps(method)
    def check(self: Any, **case: Any) -> None:
        done: list[str] = []
        self.done = done
        try:
            if takes_log:
                with_log(self.opened(), lambda log: method(self, log, **case), done)
            else:
                method(self, **case)
        except SkipTest:
            raise
        except Exception as error:
            shown = ", ".join(f"{name}={short(value, 60)}" for name, value in case.items())
            title = f"{method.__name__}({shown})"
            raise PromiseBroken(title, method.__doc__ or "", done[-8:], error) from error

    vars(check)["__signature__"] = signature.replace(parameters=parameters)  # what pytest asks inspect for
    return check


def with_log(log: Any, check: Callable[[Any], None], done: list[str]) -> None:
    """Check a log, and close it; what went wrong first is raised, in the check or when it is closed.

    `done` holds what was called up to then.
    """
    try:
        check(log)
    except BaseException:
        before = len(done)
        with suppress(Exception):
            log.close()
        del done[before:]
        raise
    log.close()


def short(value: object, chars_max: int = 2000) -> str:
    """A value on one line, cut where it is long."""
    text = repr(value)
    return text if len(text) <= chars_max else f"{text[:chars_max]}... ({len(text):,} characters)"


# ---------------------------------------------------------------- the report


@record
class CheckResult:
    """How one check came out."""

    check: str
    """Its name, with its case in brackets."""
    promises: tuple[str, ...]
    verdict: Verdict
    text: str = ""
    """How it was broken, or what it would need to be shown."""


@record
class ContractReport:
    """How a store stands to its promises; its text is a table of them, and each failure."""

    results: Sequence[CheckResult]

    @property
    def broken(self) -> list[CheckResult]:
        """The checks that failed."""
        return [result for result in self.results if result.verdict == "broken"]

    @property
    def kept(self) -> int:
        """How many checks went well."""
        return sum(result.verdict == "kept" for result in self.results)

    def check(self) -> None:
        """Raise AssertionError with the whole report when a promise is broken."""
        if self.broken:
            raise AssertionError(str(self))

    def __str__(self) -> str:
        return "\n".join([*table_of(self.results), *(f"\n{result.text}" for result in self.broken)])


def table_of(results: Sequence[CheckResult]) -> Iterator[str]:
    """A line for each promise: checks kept and broken, and what could not be shown."""
    yield f"{'promise':<8} {'kept':>5} {'broken':>7}  "
    for number, sentence in PROMISES.items():
        about = [result for result in results if number in result.promises]
        kept, broken = (sum(result.verdict == verdict for result in about) for verdict in ("kept", "broken"))
        skipped = "; ".join(dict.fromkeys(each.text for each in about if each.verdict == "not shown"))
        note = f" (not shown: {skipped})" if skipped and not kept + broken else ""
        yield f"{number:<8} {kept:>5} {broken or '-':>7}  {sentence}{note}"
    totals = {v: sum(result.verdict == v for result in results) for v in ("kept", "broken", "not shown")}
    yield ", ".join(f"{count} {verdict}" for verdict, count in totals.items() if count)
