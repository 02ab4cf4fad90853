"""@step: names and templates (R2), calls, methods, and what cannot be a step."""

from __future__ import annotations

import functools
import math
import warnings
from datetime import timedelta
from typing import Any

import attrs
import pytest

import zart_core as zart
from zart_core.steps import StepFunction


@attrs.frozen
class Page:
    number: int


def made(step: Any, *args: Any, **kwargs: Any) -> Any:
    """A command that nobody will report as forgotten."""
    command = step(*args, **kwargs)
    command.yielded = True
    return command


def name_of(template: str, *args: Any, **kwargs: Any) -> str:
    """What a template makes of a call of a function of (a, b=2)."""

    @zart.step(template)
    def fn(a: Any, b: Any = 2) -> Any:
        return a

    return made(fn, *args, **kwargs).name


@pytest.mark.parametrize(
    ("template", "args", "kwargs", "name"),
    [
        ("static", (1,), {}, "static"),
        ("x-{a}", (1,), {}, "x-1"),
        ("x-{a}-{b}", (1,), {}, "x-1-2"),
        ("x-{a}-{b}", (1, 3), {}, "x-1-3"),
        ("{b}-{a}", (1, 3), {}, "3-1"),
        ("x-{a}", (), {"a": 5}, "x-5"),
        ("x-{a:03}", (7, 0), {}, "x-007"),
        ("x-{a!r}", ("s", 0), {}, "x-'s'"),
        ("x-{a:>{b}}", (7, 4), {}, "x-   7"),
        ("page-{a.number}", (Page(4),), {}, "page-4"),
        ("x-{a[0]}-{a[k]}", ({0: 1, "k": 2},), {}, "x-1-2"),
        ("{{a}}-{b}", (1, 3), {}, "{a}-3"),
    ],
)
def test_a_template_is_filled_from_the_arguments(template, args, kwargs, name):
    """R2: by position, by name, with defaults, attributes, items and formats."""
    assert name_of(template, *args, **kwargs) == name


class Adder:
    """Something that may be called, and is no function."""

    size: str = "attributes have annotations of their own"

    def __call__(self, a: int, page: Page) -> int:
        return a + page.number


class AsyncAdder(Adder):
    async def __call__(self, a: int, page: Page) -> int:
        return a + page.number


class Wrapped:
    """What a decorator that is a class makes of a function."""

    def __init__(self, fn: Any) -> None:
        functools.update_wrapper(self, fn)

    def __call__(self, *args: Any) -> Any:
        return self.__wrapped__(*args)


def add(a: int, page: Page) -> int:
    return a + page.number


async def add_slowly(a: int, page: Page) -> int:
    return a + page.number


@pytest.mark.parametrize(
    ("fn", "is_async"),
    [
        (Adder(), False),
        (AsyncAdder(), True),
        (Wrapped(add), False),
        (functools.partial(functools.partial(add), 1), False),
        (functools.partial(add_slowly, 1), True),
    ],
    ids=["object", "async-object", "wrapped", "partial", "async-partial"],
)
def test_what_may_be_called_is_a_step_as_a_function_is(fn, is_async):
    """With the types that it declares, which its arguments come back as (R9)."""
    added = zart.step("add-{page.number}")(fn)
    given = (Page(2),) if isinstance(fn, functools.partial) else (1, Page(2))

    @zart.workflow("w")
    def w() -> zart.Flow[int]:
        return (yield from added(*given))

    assert added.is_async is is_async
    assert (added.parameter_types[-1], added.result_type) == (Page, int)
    assert zart.run_inline(w) == 3


def test_a_retry_that_is_built_by_hand_is_looked_at_too():
    """R4: what no attempt could be judged by is mended or refused where the step is declared."""
    assert zart.step(retry=zart.Retry(2, on=[KeyError]))(add).policy.retry.on == (KeyError,)
    spelt: Any = {"initial_s": "2s", "delay_max_s": timedelta(seconds=3)}
    retry = zart.step(retry=zart.Retry(2, factor=2.0, **spelt))(add).policy.retry
    assert [retry.delay_s(k) for k in (1, 2)] == [2.0, 3.0]
    with pytest.raises(zart.InvalidUse, match="give_up_on= takes exception classes"):
        zart.step(retry=zart.Retry(2, give_up_on=("KeyError",)))(add)
    for wrong in (-1.0, math.nan, "soon"):
        with pytest.raises(zart.InvalidUse, match="initial_s"):
            zart.step(retry=zart.Retry(2, initial_s=wrong))(add)
        with pytest.raises(zart.InvalidUse, match="delay_max_s"):
            zart.step(retry=zart.Retry(2, delay_max_s=wrong))(add)


def test_the_name_is_the_functions_unless_given():
    """R2: with dashes for underscores; `.named` replaces it and nothing else."""

    @zart.step()
    def charge_card(order: str) -> str:
        return order

    command = made(charge_card, "42")
    other = command.named("second")
    other.yielded = True
    assert (command.name, other.name) == ("charge-card", "second")
    assert (other.function, other.args, other.kwargs) == (command.function, command.args, command.kwargs)
    with pytest.raises(zart.InvalidUse, match="the name is ''"):
        command.named("")


def test_hostile_arguments_are_escaped_in_a_name():
    """L11, F22: a name stays printable, one line and encodable, whatever the arguments hold."""
    assert name_of("x-{a}", "two\nlines\x00\ud800\x1b[2J") == "x-two\\nlines\\x00\\ud800\\x1b[2J"
    assert name_of("{a}", "Münchën 😀") == "Münchën 😀"
    with pytest.raises(zart.InvalidUse, match="came out empty"):
        name_of("{a}", "")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("x-{nobody}", "names no parameter with {nobody}; the function takes: a"),
        ("x-{}", "names no parameter"),
        ("x-{0}", "names no parameter"),
        ("x-{a", "no valid template"),
        ("{{a}}", "has an escaped brace"),
        ("", "give a non-empty text"),
        ("two\nlines", "printable characters"),
    ],
)
def test_a_template_that_cannot_work_is_refused_at_the_decorator(template, message):
    """R2: InvalidUse, before anything runs."""
    with pytest.raises(zart.InvalidUse) as caught:
        zart.step(template)(lambda a: a)
    assert message in str(caught.value)


def test_a_call_with_wrong_arguments_is_a_type_error_at_the_call():
    """As for any function."""

    @zart.step("s")
    def fn(a: int, *, b: int) -> int:
        return a

    for call in (lambda: fn(), lambda: fn(1), lambda: fn(1, 2), lambda: fn(1, b=2, c=3)):
        with pytest.raises(TypeError):
            call()


def test_arguments_are_bound_and_called_as_python_does():
    """Positions, keywords, defaults, *args and **kwargs come through the log as one value for each parameter."""

    @zart.step("s")
    def fn(a: int, b: int = 2, *rest: int, c: int, d: int = 4, **more: int) -> Any:
        return a, b, rest, c, d, more

    command = made(fn, 1, 7, 8, 9, c=3, e=5)
    values = fn.bound(command)
    assert values == [1, 7, (8, 9), 3, 4, {"e": 5}]
    assert fn.call(values) == (1, 7, (8, 9), 3, 4, {"e": 5})


def test_a_step_may_be_a_method():
    """It is bound as a method is; the instance is no argument."""

    class Till:
        def __init__(self, currency: str) -> None:
            self.currency = currency

        @zart.step("charge-{cents}")
        def charge(self, cents: int) -> str:
            return f"{cents} {self.currency}"

    till = Till("EUR")
    command = made(till.charge, 5)
    assert (command.name, command.function.call([5])) == ("charge-5", "5 EUR")
    assert command.function.origin is Till.charge


def test_the_name_of_a_method_may_speak_of_its_instance():
    """R2: as the template that was accepted at the decorator says; `self` counts as a parameter there."""

    class Till:
        def __init__(self, region: str) -> None:
            self.region = region

        @zart.step("charge-{self.region}-{cents}")
        def charge(self, cents: int, currency: str = "EUR") -> str:
            return f"{cents} {currency} in {self.region}"

    command = made(Till("eu").charge, 5)
    assert command.name == "charge-eu-5"
    assert command.function.call(command.function.bound(command)) == "5 EUR in eu"
    assert made(Till("us").charge, cents=6, currency="USD").name == "charge-us-6"


def test_the_plain_function_stays_at_hand():
    """For unit tests of steps."""

    @zart.step("double")
    def double(n: int) -> int:
        """Twice as much."""
        return 2 * n

    assert (double.fn(4), double.__name__, double.__doc__, repr(double)) == (
        8,
        "double",
        "Twice as much.",
        "<step 'double'>",
    )
    assert (double.parameter_types, double.result_type, double.is_async) == ((int,), int, False)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: zart.step("s")(generator), "a generator function; a step is a plain or async function"),
        (lambda: zart.step("s")(async_generator), "a generator function"),
        (lambda: zart.step("s")(int), "takes a function"),
        (lambda: zart.step("s")(zart.step("t")(plain)), "takes a function"),
        (lambda: zart.step(plain), "write @zart.step() with parentheses"),
        (lambda: zart.step("s", retry=3)(plain), "write zart.Retry.fixed(3, '1s')"),
        (lambda: zart.step("s", timeout=0)(plain), "timeout of step 's' is 0"),
        (lambda: zart.step("s", timeout="soon")(plain), "timeout of step 's' 'soon' is no duration"),
        (lambda: zart.step("s", raises=("ValueError",))(plain), "raises= takes exception classes"),
        (lambda: zart.step("s", max_crashes=0)(plain), "max_crashes of step 's' is 0"),
        (lambda: zart.step("s", max_crashes="3")(plain), "max_crashes of step 's' is '3'; it counts crashes"),
    ],
)
def test_what_cannot_be_a_step_is_refused_at_the_decorator(wrong, message):
    """R12: InvalidUse that names the fix."""
    with pytest.raises(zart.InvalidUse) as caught:
        wrong()
    assert message in str(caught.value)


def plain() -> int:
    return 1


def generator() -> Any:
    yield 1


async def async_generator() -> Any:
    yield 1


def test_policies_are_read_from_the_decorator():
    """R4, R5, R7, R10: all of it comes from the code."""

    @zart.step("s", retry=zart.Retry.fixed(2, "1s"), timeout="5m", timeout_scope=zart.TimeoutScope.PER_ATTEMPT,
               raises=KeyError, at_most_once=True, max_crashes=7, cancel_grace="3s")  # fmt: skip
    async def fn() -> None: ...

    assert isinstance(fn, StepFunction)
    policy = fn.policy
    assert (policy.retry, policy.timeout_s, policy.raises) == (zart.Retry.fixed(2, 1), 300.0, (KeyError,))
    assert (policy.timeout_scope, policy.at_most_once) == (zart.TimeoutScope.PER_ATTEMPT, True)
    assert (policy.max_crashes, policy.cancel_grace_s, fn.is_async) == (7, 3.0, True)


def test_a_step_called_outside_a_workflow_says_that_it_did_nothing():
    """R12: a warning, where no run can report it."""

    @zart.step("lonely")
    def lonely() -> int:
        return 1

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        lonely()
    assert "step 'lonely' was built outside a workflow and did nothing" in str(caught[0].message)


def test_annotations_that_raise():
    """An annotation is code: whatever it raises, the error says whose it is."""

    @zart.step()
    def odd(page: functools.no_such_type) -> functools.no_such_type: ...  # type: ignore[name-defined]

    @zart.workflow()
    def odder(page: functools.no_such_type) -> zart.Flow[None]:  # type: ignore[name-defined]
        yield from odd(page)

    for ask in lambda: odd.parameter_types, lambda: odd.result_type, lambda: odder.input_type:
        with pytest.raises(
            zart.InvalidUse, match=r"the annotations of .*odd.* cannot be resolved \(module 'functools'"
        ):
            ask()
