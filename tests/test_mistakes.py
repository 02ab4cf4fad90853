"""A user's mistakes: each gets an error that names the fix, through the doors that users go through."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any, Never, NoReturn
from uuid import UUID

import attrs
import pytest

import zart_core as zart


@attrs.frozen
class Order:
    id: str
    cents: int


@attrs.frozen
class Bag:
    things: list[int]


@zart.step("count-{sku}")
def count(sku: str) -> int:
    return len(sku)


@zart.step("pack")
def pack() -> Bag:
    return Bag([1, "two"])


@zart.step()
def refuse(returns: bool) -> Never:
    if not returns:
        raise ValueError("never")


@zart.step()
def decline(returns: bool) -> NoReturn:
    if not returns:
        raise ValueError("never")


@zart.workflow("orders")
def orders(order: Order) -> zart.Flow[str]:
    yield from count(order.id)
    return order.id


def helper() -> zart.Flow[int]:
    return (yield from count("h"))


@pytest.fixture(params=["inline", "engine"])
def raised(request):
    """Runs a workflow in one of the hosts, and gives what the user is told, of a failure what failed."""

    def inline(workflow, *input):
        zart.run_inline(workflow, *input)

    def engine(workflow, *input):
        with zart.open("memory:", [workflow]) as opened:
            opened.start(workflow, *input, id="x").result(10)

    def run(workflow, *input):
        with pytest.raises(zart.ZartError) as caught:
            {"inline": inline, "engine": engine}[request.param](workflow, *input)
        error = caught.value
        failed = error.failure if isinstance(error, zart.ExecutionFailed) else None
        return type(error).__name__, str(error) if failed is None else failed.message

    with warnings.catch_warnings():
        # What was never yielded is told in the history, or here.
        warnings.simplefilter("ignore", RuntimeWarning)
        yield run
        gc.collect()


# ---------------------------------------------------------------- yielding the wrong thing


NOT_A_RESULT = "step 'count-a' is a command, not its result; write `result = yield from ...` first"


@zart.workflow("sum")
def forgotten_in_a_sum() -> zart.Flow[int]:
    n = count("a")
    yield from count("b")
    return n + 1


@zart.workflow("sum-right")
def forgotten_on_the_right() -> zart.Flow[int]:
    yield from count("b")
    return 1 + count("a")


@zart.workflow("if")
def forgotten_in_an_if() -> zart.Flow[int]:
    if count("a"):
        yield from count("b")
    return 1


@zart.workflow("index")
def forgotten_before_an_index() -> zart.Flow[int]:
    yield from count("b")
    return count("a")[0]


@pytest.mark.parametrize(
    "workflow",
    [forgotten_in_a_sum, forgotten_on_the_right, forgotten_in_an_if, forgotten_before_an_index],
    ids=lambda workflow: workflow.name,
)
def test_forgotten_yield_from(raised, workflow):
    """R12: whatever one does with a result, a command refuses, and says what is missing."""
    assert raised(workflow) == ("ExecutionFailed", NOT_A_RESULT)


def test_forgotten_yield_from_before_an_attribute(raised):
    """R12: a command does not have its result's attributes."""

    @zart.workflow("attribute")
    def attribute() -> zart.Flow[list[int]]:
        bag = pack()
        yield from count("b")
        return bag.things

    expected = "no 'things': step 'pack' is a command, not its result; write `result = yield from ...` first"
    assert raised(attribute) == ("ExecutionFailed", expected)


def test_forgotten_yield_from_before_what_is_given_back_or_on(raised):
    """R12: where a value is written down, the error names what is missing."""

    @zart.workflow("gives-back")
    def gives_back(flow: bool) -> zart.Flow[int]:
        yield from count("a")
        return helper() if flow else count("b")

    @zart.workflow("gives-on")
    def gives_on() -> zart.Flow[Any]:
        task = yield from zart.schedule(count("a"))
        return [task]

    missing = "write `yield from` before it, and give what that gives"
    assert raised(gives_back, False)[1].endswith(f"result: expected int, found Step; {missing}")
    assert raised(gives_back, True)[1].endswith(f"result: expected int, found generator; {missing}")
    assert "[0]: found Task, where no type is declared; wait for it with `yield from" in raised(gives_on)[1]


@pytest.mark.filterwarnings("ignore:coroutine")
def test_a_step_that_gives_what_is_no_value_yet(raised):
    """R12: a coroutine that was not awaited, an expression that gives values one by one."""

    async def ask() -> int:
        return 1

    @zart.step("asks")
    def asks() -> int:
        return ask()

    @zart.step("lists")
    def lists() -> list[int]:
        return (n for n in range(3))

    @zart.workflow("gives")
    def gives(awaits: bool) -> zart.Flow[Any]:
        return (yield from asks() if awaits else lists())

    assert raised(gives, True)[1].endswith("found coroutine; write `await` before it, in an `async def` step")
    assert raised(gives, False)[1].endswith("expected list[int], found generator; make a list of it")


def test_a_call_that_is_dropped(caplog):
    """R12: a command that was built and never yielded stands in the history when the run ends, and is warned of."""

    @zart.workflow("dropped")
    def dropped() -> zart.Flow[int]:
        count("a")
        yield from count("b")
        return 1

    with zart.open("memory:", [dropped]) as engine:
        handle = engine.start(dropped)
        assert handle.result(10) == 1
        notes = [event.why for event in handle.history() if isinstance(event, zart.Noted)]
    assert notes == [
        "step 'count-a' was built and never yielded; write `yield from` before it, "
        "or build it only where it is needed"
    ]
    (warned,) = [record for record in caplog.records if record.name == "zart.workflow"]
    assert (warned.levelname, warned.getMessage()) == ("WARNING", f"execution '{handle.id}': {notes[0]}")


def test_a_command_without_a_name_that_is_dropped():
    """R12: it is called by what the author has written."""

    @zart.workflow("dropped")
    def dropped(n: int) -> zart.Flow[int]:
        task = yield from zart.schedule(count("a"))
        task.cancel()
        dropped.continue_as_new(n + 1)
        yield from zart.wait([task])
        return n

    with zart.open("memory:", [dropped]) as engine:
        handle = engine.start(dropped, 1)
        assert handle.result(10) == 1
        notes = [event.why for event in handle.history() if isinstance(event, zart.Noted)]
    assert [note.partition(" was built")[0] for note in notes] == ["task.cancel()", "continue_as_new()"]


def test_an_error_that_nobody_waited_for(caplog):
    """R24: it fails nothing; it is warned of, once."""

    @zart.step("break")
    def break_() -> int:
        raise OSError("nobody asks")

    @zart.workflow("hasty")
    def hasty() -> zart.Flow[int]:
        yield from zart.schedule(break_())
        yield from zart.sleep("while", "50ms")
        return 1

    assert zart.run_inline(hasty, id="x") == 1
    assert caplog.messages == [
        "execution 'x': step 'break': StepFailed: step 'break' failed: OSError: nobody asks"
    ]


def test_a_dropped_call_that_the_collector_finds_later():
    """R12: it belongs to the run that has built it: no other run is told, and nobody is warned."""

    @zart.workflow("keeps")
    def keeps() -> zart.Flow[int]:
        undo: list[object] = [count("kept")]
        undo.append(undo)  # a cycle, as a frame and the error that came through it are one
        raise ValueError("in vain")
        yield from count("b")

    @zart.workflow("collects")
    def collects() -> zart.Flow[int]:
        gc.collect()
        return (yield from count("b"))

    gc.collect()
    gc.disable()
    try:
        with warnings.catch_warnings(), zart.open("memory:", [keeps, collects]) as engine:
            warnings.simplefilter("error")
            with pytest.raises(zart.ExecutionFailed):
                engine.run(keeps)
            handle = engine.start(collects)
            handle.result(10)
            assert [event for event in handle.history() if isinstance(event, zart.Noted)] == []
            with pytest.raises(zart.ExecutionFailed):
                engine.run(keeps)
            gc.collect()
    finally:
        gc.enable()


def yields(thing):
    """A workflow that yields something."""

    @zart.workflow("yields")
    def yielding() -> zart.Flow[int]:
        yield thing() if callable(thing) and not isinstance(thing, zart.StepFunction) else thing
        return 1

    return yielding


@pytest.mark.parametrize(
    ("thing", "expected"),
    [
        (
            None,
            "the workflow yielded None: a bare `yield` gives nothing to do; write `yield from some_step(...)`",
        ),
        ("text", "the workflow yielded a str, which is no command"),
        (helper, "the workflow yielded the flow helper(); write `yield from helper(...)`"),
        (count, "<step 'count-{sku}'> was yielded without being called; write `yield from name(...)`"),
        ((1, 2), "the workflow yielded a tuple, which is no command; `yield from` takes a step"),
    ],
    ids=["none", "text", "flow", "step-function", "tuple"],
)
def test_not_a_command(raised, thing, expected):
    """R12, R20: the execution is parked, and the error says where and what to write."""
    kind, message = raised(yields(thing))
    assert kind == "NotACommand"
    assert message.startswith(expected)
    assert "yielding, line +2)" in message


def test_yield_from_over_a_list(raised):
    """R12: for several there is `wait`."""

    @zart.workflow("list")
    def over_a_list() -> zart.Flow[int]:
        yield from [1, 2]
        return 1

    kind, message = raised(over_a_list)
    assert kind == "NotACommand"
    assert "takes one command or flow; for several write `yield from zart.wait([...])`" in message


def test_wait_without_brackets(raised):
    """A single step in place of a list."""

    @zart.workflow("wait")
    def single() -> zart.Flow[list[int]]:
        return (yield from zart.wait(count("a")))

    expected = "zart.wait takes a list of tasks, steps or flows; put it in brackets: zart.wait([...])"
    assert raised(single) == ("ExecutionFailed", expected)


@pytest.mark.parametrize(
    ("mistaken", "expected"),
    [
        (
            lambda: zart.wait(count("a"), count("b")),
            "zart.wait takes a list of tasks, steps or flows; put it in brackets: zart.wait([...])",
        ),
        (lambda: zart.wait(None), "zart.wait takes a list of tasks, steps or flows, not a NoneType"),
        (
            lambda: zart.gather([count("a"), count("b")]),
            "zart.gather takes them one by one: zart.gather(a, b); for a list there is zart.wait([...])",
        ),
        (
            lambda: zart.race([count("a"), count("b")]),
            "zart.race takes them one by one: zart.race(a, b); "
            "for a list put a star before it: zart.race(*branches)",
        ),
        (
            lambda: zart.wait_for_event("go", "1h"),
            "event 'go' was given '1h' as its type; give a class, and a timeout by its name: "
            "zart.wait_for_event('go', timeout='1h')",
        ),
        (
            lambda: count("a", "b"),
            "step 'count-{sku}' takes (sku: 'str') -> 'int': too many positional arguments",
        ),
        (
            lambda: count(),
            "step 'count-{sku}' takes (sku: 'str') -> 'int': missing a required argument: 'sku'",
        ),
    ],
    ids=["two", "none", "gather-list", "race-list", "timeout-as-type", "too-many", "too-few"],
)
def test_wrong_call(raised, mistaken, expected):
    """What is said names what was called, and how it is called."""

    @zart.workflow("mistaken")
    def mistaken_call() -> zart.Flow[None]:
        yield from mistaken()

    assert raised(mistaken_call) == ("ExecutionFailed", expected)


@pytest.mark.parametrize("verb", ["outcome", "step_or", "step_or_else"])
def test_a_step_that_was_not_called_is_no_step_error(raised, verb):
    """R12: a mistake in the call is never taken for an error of the step, and hidden behind a default."""
    more = {"outcome": [], "step_or": [5], "step_or_else": [len]}[verb]

    @zart.workflow("uncalled")
    def uncalled() -> zart.Flow[None]:
        yield from getattr(zart, verb)(count, *more)

    assert raised(uncalled) == (
        "ExecutionFailed",
        f"zart.{verb} takes a step or a flow that was called, as in zart.{verb}(my_step(x)), not a StepFunction; "
        "for tasks there is zart.settle([...])",
    )


def test_duplicate_name(raised):
    """R3: both places, and a name for the second."""

    @zart.workflow("twice")
    def twice() -> zart.Flow[int]:
        yield from count("a")
        return (yield from count("a"))

    kind, message = raised(twice)
    assert kind == "DuplicateName"
    assert message.startswith("the name 'count-a' is used twice in this run: first at ")
    assert "twice, line +2, again at " in message
    assert "twice, line +3." in message
    assert "give the second one a name of its own, such as .named('count-a-2')" in message


def test_naive_datetime(raised):
    """A datetime without a zone is no instant."""

    @zart.workflow("naive")
    def naive() -> zart.Flow[None]:
        yield from zart.sleep_until("x", datetime(2030, 1, 1))

    kind, message = raised(naive)
    assert kind == "ExecutionFailed"
    assert message == (
        "zart.sleep_until got a naive datetime, 2030-01-01T00:00:00; say which zone: "
        "datetime(..., tzinfo=ZoneInfo('Europe/Berlin')) or datetime.now(timezone.utc)"
    )


def test_naive_start():
    """The same for a start that is put off."""
    with (
        zart.open("memory:", [orders]) as engine,
        pytest.raises(zart.InvalidUse, match="at= got a naive datetime"),
    ):
        engine.start(orders, Order("a", 1), at=datetime(2030, 1, 1))


# ---------------------------------------------------------------- failures


@zart.step("look-up")
def look_up() -> int:
    return {"a": 1}["b"]


@zart.workflow("looks")
def looks() -> zart.Flow[int]:
    return (yield from look_up())


@zart.workflow("looks-itself")
def looks_itself() -> zart.Flow[int]:
    yield from count("a")
    return {"a": 1}["b"]


@zart.workflow("lets-look")
def lets_look() -> zart.Flow[int]:
    return (yield from zart.child(looks, id="kid"))


@pytest.mark.parametrize(
    ("workflow", "expected"),
    [
        (looks, ["execution 'x' ended as failed: step 'look-up' failed: KeyError: 'b'"]),
        (looks_itself, ["execution 'x' ended as failed: KeyError: 'b'", "KeyError: 'b'"]),
        (
            lets_look,
            [
                "execution 'x' ended as failed: execution 'kid' ended as failed: "
                "step 'look-up' failed: KeyError: 'b'",
                "execution 'kid' ended as failed: step 'look-up' failed: KeyError: 'b'",
            ],
        ),
    ],
    ids=["step", "workflow", "child"],
)
def test_a_failure_says_what_failed_and_where(workflow, expected):
    """R19: the execution, the step if it was one, type and text of the error, and the traceback that is on record."""
    with (
        zart.open("memory:", [looks, looks_itself, lets_look]) as engine,
        pytest.raises(zart.ExecutionFailed) as caught,
    ):
        engine.run(workflow, id="x")
    cause = caught.value.__cause__
    assert cause is not None
    texts = [str(caught.value), str(cause), str(cause.__cause__)]
    assert texts[: len(expected)] == expected
    (note,) = cause.__notes__
    assert note.endswith("KeyError: 'b'")
    assert 'return {"a": 1}["b"]' in note


# ---------------------------------------------------------------- values


def test_unencodable_result_of_a_step(raised):
    """R9: a failure of that step, which names step and field; not a crash loop."""

    @zart.workflow("packing")
    def packing() -> zart.Flow[Bag]:
        return (yield from pack())

    kind, message = raised(packing)
    assert kind == "ExecutionFailed"
    assert (
        "the result of step 'pack' cannot be written down: result.things[1]: expected int, found str"
        in message
    )
    assert message.endswith("give a value of the declared type, or declare the type it has")


def test_a_key_that_is_no_text_in_the_result_of_a_step(raised):
    """R9: so come names of files that are not UTF-8; a failure of that step, which can itself be written down."""

    @zart.step("list-files")
    def list_files() -> dict[str, int]:
        return {"report.txt": 1, "caf\udce9.txt": 2}

    @zart.workflow("listing")
    def listing() -> zart.Flow[None]:
        yield from list_files()

    kind, message = raised(listing)
    assert kind == "ExecutionFailed"
    assert (
        "written down: result.caf\\udce9.txt: found text with a lone surrogate; pass it as bytes" in message
    )


def test_a_result_type_that_no_value_can_be_written_down_as(raised):
    """R20: a defect that is found before the step runs: afterwards its effect is there, and its outcome is not."""
    ran = []

    @zart.step("open-door")
    def open_door() -> threading.Thread:
        return ran.append("opened")

    @zart.workflow("doors")
    def doors() -> zart.Flow[None]:
        yield from open_door()

    kind, message = raised(doors)
    assert kind == "Defect"
    assert (
        "of workflow 'doors': step 'open-door' cannot run: no value of type Thread can be encoded" in message
    )
    assert not ran


@pytest.mark.parametrize("step", [refuse, decline], ids=["Never", "NoReturn"])
def test_a_step_that_only_raises_may_say_so(raised, step):
    """No value of such a type can be written down, and none has to be; one that comes back is a failure (R9)."""

    @zart.workflow("refusing")
    def refusing(returns: bool) -> zart.Flow[None]:
        yield from step(returns)

    assert raised(refusing, False) == ("ExecutionFailed", "never")
    kind, message = raised(refusing, True)
    assert kind == "ExecutionFailed"
    assert f"the result of step '{step.id}' cannot be written down: no value of type" in message


def test_unencodable_result_of_a_workflow(raised):
    """R20: a defect, because the code is wrong; the run is parked."""

    @zart.workflow("wrong-result")
    def wrong_result() -> zart.Flow[int]:
        yield from count("a")
        return "text"

    kind, message = raised(wrong_result)
    assert kind == "Unencodable"
    assert message.endswith(
        "of workflow 'wrong-result': its result cannot be written down: result: expected int, found str; "
        "give a value of the declared type, or declare the type it has"
    )


def test_unencodable_argument(raised):
    """R20: the step, its place, the parameter, and what was found."""

    @zart.workflow("wrong-argument")
    def wrong_argument() -> zart.Flow[int]:
        return (yield from count(12))

    kind, message = raised(wrong_argument)
    assert kind == "Unencodable"
    assert "step 'count-12' at " in message
    assert "wrong_argument, line +2 cannot be written down: sku: expected str, found int" in message


def test_wrong_input_of_another(raised):
    """R20: for a child, and for the next run, it is the input that is named."""

    @zart.workflow("parent")
    def parent() -> zart.Flow[str]:
        return (yield from zart.child(orders, "order-1"))

    @zart.workflow("again")
    def again(order: Order | None) -> zart.Flow[None]:
        yield from count("a")
        yield from again.continue_as_new("order-1")

    found = "cannot be written down: input: expected Order, found str"
    assert f"child 'orders[1]' at {__name__}." in raised(parent)[1]
    assert found in raised(parent)[1]
    assert (
        "of workflow 'again': the input of its next run cannot be written down: input: "
        in raised(again, None)[1]
    )


@pytest.mark.parametrize(
    ("input", "place"),
    [
        ("order-1", "'orders': expected Order, found str"),
        (Order("a", "b"), "'orders'.cents: expected int, found str"),
    ],
    ids=["type", "field"],
)
def test_wrong_input(raised, input, place):
    """Refused before anything is created, with the place and what was found there."""
    remedy = "give a value of the declared type, or declare the type it has"
    assert raised(orders, input) == ("EncodeError", f"the input of workflow {place}; {remedy}")


# ---------------------------------------------------------------- definitions


def test_async_workflow():
    """Only steps may be async."""
    expected = "workflow 'a' is an `async def`; a workflow is a plain generator: write `def` and `yield from`"
    with pytest.raises(zart.InvalidUse, match=expected):

        @zart.workflow("a")
        async def with_yield(order: Order):
            yield count("a").named("never")

    with pytest.raises(zart.InvalidUse, match=expected):

        @zart.workflow("a")
        async def without_yield(order: Order) -> str:
            return order.id


def test_workflow_that_is_no_generator():
    """A function without any yield."""
    with pytest.raises(
        zart.InvalidUse, match="'plain' is no generator function; it must `yield from` its steps"
    ):

        @zart.workflow("plain")
        def plain(order: Order) -> str:
            return order.id


def test_step_that_is_a_generator():
    """A flow is no step."""
    with pytest.raises(zart.InvalidUse, match=r"leave @zart\.step out and call it with `yield from`"):
        zart.step("flow")(helper)


@pytest.mark.parametrize("decorator", [zart.step, zart.workflow])
def test_decorator_without_parentheses(decorator):
    """The parentheses are missing."""
    name = decorator.__name__
    with pytest.raises(zart.InvalidUse) as caught:
        decorator(helper)
    assert str(caught.value) == f"write @zart.{name}() with parentheses, or @zart.{name}('a-name')"


def test_template_that_names_no_parameter():
    """R2: the template, the parameter that is none, and those that there are."""
    with pytest.raises(zart.InvalidUse) as caught:

        @zart.step("reserve-{sku}")
        def reserve(article: str, count: int) -> int:
            return 1

    expected = (
        "the step name 'reserve-{sku}' names no parameter with {sku}; the function takes: article, count"
    )
    assert str(caught.value) == expected


def test_step_called_outside_a_workflow():
    """R12: a warning that says what to call in its place; the plain function does its work."""
    with pytest.warns(RuntimeWarning) as caught:
        count("a")
        gc.collect()
    assert str(caught[0].message) == (
        "step 'count-a' was built outside a workflow and did nothing, or was never yielded in one; "
        "in a workflow write `yield from`, elsewhere call the plain function: my_step.fn(...)"
    )
    assert count.fn("abc") == 3


# ---------------------------------------------------------------- hosts


@pytest.mark.parametrize("url", [Path("orders.db"), None], ids=["path", "none"])
def test_what_is_no_url(url):
    """A path is not taken for an open log."""
    with pytest.raises(zart.UnknownStore) as caught:
        zart.open(url, [orders])
    assert str(caught.value) == (
        f"{url!r} is no store URL; write memory:, file:DIR, sqlite:PATH or the like, as text"
    )


@pytest.mark.parametrize("executor", [4, ThreadPoolExecutor], ids=["number", "class"])
def test_what_is_no_executor(executor):
    """It is refused when the engine is opened: each sync step failed, and its execution with it."""
    with pytest.raises(zart.InvalidUse) as caught:
        zart.open("memory:", [orders], executor=executor)
    assert str(caught.value) == (
        f"executor= takes a concurrent.futures.Executor that is ready for use, not {executor!r}"
    )


@pytest.mark.parametrize("resources", [["ab"], 3], ids=["list", "number"])
def test_resources_without_names(resources):
    """A host refuses them: two letters in a list were taken for a name and its object."""
    expected = f"resources= maps names to objects, as in {{'bank': bank}}, not {resources!r}"
    with pytest.raises(zart.InvalidUse) as caught:
        zart.open("memory:", [orders], resources=resources)
    assert str(caught.value) == expected
    with pytest.raises(zart.InvalidUse) as caught:
        zart.run_inline(orders, Order("1", 1), resources=resources)
    assert str(caught.value) == expected


def test_a_url_for_the_log_of_run_inline():
    """It takes a log that is open, and says how to open one."""
    with pytest.raises(zart.InvalidUse) as caught:
        zart.run_inline(orders, Order("1", 1), log="sqlite:orders.db")
    assert str(caught.value) == (
        "log='sqlite:orders.db' is no open log; write log=zart.open_log('sqlite:PATH') or the like"
    )


def test_a_scheme_that_was_meant_otherwise():
    """postgres: is what others call it."""
    with pytest.raises(
        zart.UnknownStore, match=r"for 'postgres:'; did you mean 'postgresql:'[?] Known schemes: "
    ):
        zart.open("postgres://u@h/db", [orders])


def test_a_list_asks_by_name():
    """Not by the workflow itself."""
    with zart.open("memory:", [orders]) as engine, pytest.raises(zart.InvalidUse) as caught:
        engine.list(workflow=orders)
    assert str(caught.value) == "workflow= is the name of one: 'orders', not <workflow 'orders'>"


@pytest.mark.parametrize("given", [UUID(int=7), 7, b"o-7"])
def test_an_id_that_is_no_text(given):
    """It would reach the store, whose answer is no word about it, and hinder what is written beside it."""
    with zart.open("memory:", [orders]) as engine:
        engine.start(orders, Order("7", 1), id="o-7")
        for ask in engine.get, engine.cancel, engine.terminate, lambda id: engine.send(id, "paid", 1):
            with pytest.raises(zart.InvalidUse, match=r"the id is .*7.*, of type \w+; give it as text"):
                ask(given)
        with pytest.raises(zart.InvalidUse, match=r"the key is .*7.*; give it as text"):
            engine.send("o-7", "paid", 1, key=given)
        with pytest.raises(zart.InvalidUse, match=r"the reason is .*7.*; give it as text"):
            engine.cancel("o-7", given)


def test_unregistered_workflow():
    """What is registered, what was meant, and where to put it."""

    @zart.workflow("order")
    def order(_: Order) -> zart.Flow[None]:
        yield from count("a")

    with zart.open("memory:", [orders]) as engine, pytest.raises(zart.UnknownWorkflow) as caught:
        engine.start(order, Order("a", 1))
    assert str(caught.value) == (
        "workflow 'order' is not registered (registered: orders); did you mean 'orders'? "
        "Pass it to zart.open(url, [...]), and its runs go on"
    )


def test_an_engine_that_is_awaited_on_another_loop():
    """As in a handler that has a loop of its own: it would wait for what nobody tells it."""

    async def elsewhere(engine):
        calls = [
            engine.run(orders, Order("a", 1)),
            engine.start(orders, Order("a", 1)),
            engine.send("a", "n", 1),
            engine.cancel("a"),
            engine.get("a"),
            engine.list(),
            engine.stats(),
            engine.history("a"),
            engine.register(orders),
            engine.close(),
        ]
        return [str(error) for error in await asyncio.gather(*calls, return_exceptions=True)]

    async def here():
        async with zart.serve("memory:", [orders]) as engine:
            said = await asyncio.to_thread(lambda: asyncio.run(elsewhere(engine)))
            assert await engine.run(orders, Order("a", 1)) == "a"
            return said

    said = asyncio.run(here())
    assert len(said) == 10
    assert all("this engine runs on another event loop: await it on the loop where it" in one for one in said)


def test_an_engine_that_nobody_opened():
    """`zart.serve` without `async with` says how it is written, whatever is tried with it."""

    async def used(call):
        with pytest.raises(zart.InvalidUse, match=r"write `async with zart.serve\(...\) as engine:`"):
            await call(zart.serve("memory:", [orders]))

    async def opened_wrongly(engine):
        with engine:
            raise AssertionError("nothing was opened")

    async def awaited(engine):
        await engine

    async def tried():
        for name in vars(zart.AsyncEngine):
            if not name.startswith("_"):
                await used(lambda engine, name=name: getattr(engine, name)())
        await used(opened_wrongly)
        await used(awaited)
        with pytest.raises(AttributeError, match="no attribute 'begun'"):
            _ = zart.serve("memory:", [orders]).begun
        async with zart.serve("memory:", [orders]) as engine:
            assert await engine.run(orders, Order("a", 1)) == "a"

    asyncio.run(tried())


def test_a_log_of_an_unregistered_workflow(tmp_path):
    """R20: its executions are parked with the reason, the others go on, and they go on by themselves later."""

    @zart.workflow("waits")
    def waits() -> zart.Flow[str]:
        return (yield from zart.wait_for_event("go", str))

    url = f"sqlite:{tmp_path}/log.db"
    with zart.open(url, [waits]) as engine:
        engine.start(waits, id="w")
    with zart.open(url, [orders]) as engine:
        assert engine.run(orders, Order("a", 1)) == "a"
        summary = engine.list(id_prefix="w").items[0]
        assert (str(summary.status), summary.reason) == (
            "parked",
            "UnknownWorkflow: workflow 'waits' is not registered",
        )
    with zart.open(url, [orders, waits]) as engine:
        engine.send("w", "go", "on")
        assert engine.get("w").result(10) == "on"


@pytest.mark.parametrize("given", [orders.fn, "orders", 1, None])
def test_what_is_no_workflow(given):
    """A plain function, a name."""
    with pytest.raises(
        zart.InvalidUse, match=r"is no workflow; give functions decorated with @zart\.workflow, modules"
    ):
        zart.open("memory:", given if isinstance(given, str) else [given])


def test_a_module_without_workflows(tmp_path):
    """Nothing would ever run, and nothing would say so; nothing is opened."""
    with pytest.raises(
        zart.InvalidUse, match="module 'attrs' has no workflow; give modules that define or import"
    ):
        zart.open(f"sqlite:{tmp_path}/log.db", [attrs])
    assert list(tmp_path.iterdir()) == []


def test_unknown_scheme():
    """The schemes that there are, and how one is added."""
    with pytest.raises(zart.UnknownStore) as caught:
        zart.open("redis:x", [orders])
    message = str(caught.value)
    assert message.startswith("no installed package offers a store for 'redis:'; known schemes: ")
    assert {"file", "memory", "sqlite"} <= set(message.split("known schemes: ")[1].split(".")[0].split(", "))
    assert message.endswith("A package adds one through the entry point group 'zart.stores'")


@pytest.mark.parametrize("url", ["memory", "orders.db", ""])
def test_no_url(url):
    """A path or a name alone is no URL."""
    with pytest.raises(zart.UnknownStore) as caught:
        zart.open(url, [orders])
    assert str(caught.value) == f"{url!r} is no store URL; write memory:, file:DIR, sqlite:PATH or the like"


# ---------------------------------------------------------------- logs


@pytest.fixture(params=["file", "sqlite"])
def place(request, tmp_path):
    """A log with one execution in it: its URL, and the file that holds it."""
    url = f"{request.param}:{tmp_path}/log"
    with zart.open(url, [orders]) as engine:
        assert engine.run(orders, Order("a-recognisable-id", 1)) == "a-recognisable-id"
    path = tmp_path / "log"
    return url, next(path.glob("*.zart")) if path.is_dir() else path


def test_second_opener_of_a_file_log(tmp_path):
    """F11: who has it, and what to do."""
    url = f"file:{tmp_path}/log"
    with zart.open(url, [orders]), pytest.raises(zart.StoreLocked) as caught:
        zart.open(url, [orders])
    assert f"the log {tmp_path}/log is open already, in process " in str(caught.value)
    assert "close it there, or use sqlite: or postgresql: for several" in str(caught.value)


def test_damaged_log(place):
    """L12: damage is told with its place, whether it is met when the log is opened or when it is read."""
    url, path = place
    data = bytearray(path.read_bytes())
    at = data.find(b"a-recognisable-id")
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(zart.LogCorrupt) as caught, zart.open(url, [orders]) as engine:
        engine.engine.log.verify()
    assert not isinstance(caught.value, zart.FormatTooNew)
    assert (
        path.name in caught.value.where
        or path.name in str(caught.value)
        or "a-recognisable" in str(caught.value)
    )


def test_newer_format(place):
    """F26: both versions, and that a newer Zart reads it; the log is untouched."""
    url, path = place
    if url.startswith("sqlite"):
        with sqlite3.connect(path) as db:
            db.execute("PRAGMA user_version = 99")
        db.close()
    else:
        path.write_bytes(path.read_bytes().replace(b"=zart\t0001", b"=zart\t0099", 1))
    before = path.read_bytes()
    with pytest.raises(
        zart.FormatTooNew, match=r"has format 99; this (version of Zart|zart) reads formats up to [12]:"
    ):
        zart.open(url, [orders])
    assert path.read_bytes() == before
