"""The table of rules: what is found, why it matters, what to write instead, and both as code.

`docs/lint.md` is drawn from this table, and each `bad` and `good` is linted by a test.
"""

from __future__ import annotations

from zart_core.records import record

PRELUDE = """\
import datetime
import random
import time
import uuid

import zart_core as zart


@zart.step("charge-{order}")
def charge(order: str) -> str:
    return f"txn-{order}"


@zart.step("tags-of-{order}")
def tags_of(order: str) -> set[str]:
    return {order}
"""
"""What stands before each example."""


@record
class Rule:
    """One thing that is found."""

    id: str
    title: str
    why: str
    fix: str
    bad: str
    good: str


def rule(id: str, title: str, why: str, fix: str, bad: str, good: str) -> Rule:
    """A rule; its examples without the first line break."""
    return Rule(id, title, why, fix, bad.lstrip("\n"), good.lstrip("\n"))


ALL = [
    rule(
        "ZT101",
        "reads the clock",
        "a replay reads another time than the first run did",
        'write `yield from zart.now("a-name")`, or use zart.context().now, the time of the last event',
        """
@zart.workflow("deadline")
def deadline(order: str) -> zart.Flow[float]:
    began = time.time()
    yield from charge(order)
    return began
""",
        """
@zart.workflow("deadline")
def deadline(order: str) -> zart.Flow[datetime.datetime]:
    began = yield from zart.now("began")
    yield from charge(order)
    return began
""",
    ),
    rule(
        "ZT102",
        "draws a random number",
        "a replay draws another one",
        'write `yield from zart.random("a-name")`, or draw in a step; '
        "random.Random(seed) with a seed out of the input is fine",
        """
@zart.workflow("sample")
def sample(orders: list[str]) -> zart.Flow[str]:
    return (yield from charge(random.choice(orders)))
""",
        """
@zart.workflow("sample")
def sample(orders: list[str]) -> zart.Flow[str]:
    drawn = yield from zart.random("which")
    return (yield from charge(orders[int(drawn * len(orders))]))
""",
    ),
    rule(
        "ZT103",
        "makes a unique id",
        "a replay makes another one",
        'write `yield from zart.uuid("a-name")`; uuid3 and uuid5 of names are fine',
        """
@zart.workflow("reference")
def reference() -> zart.Flow[str]:
    return (yield from charge(str(uuid.uuid4())))
""",
        """
@zart.workflow("reference")
def reference() -> zart.Flow[str]:
    order = yield from zart.uuid("order")
    return (yield from charge(str(order)))
""",
    ),
    rule(
        "ZT104",
        "reads its environment",
        "the process that replays may have another environment, folder, host, zone or command line",
        'put it into the input, read it in a step, or write `yield from zart.capture("a-name", fn)`',
        """
@zart.workflow("region")
def region() -> zart.Flow[str]:
    import os

    return (yield from charge(os.environ["REGION"]))
""",
        """
@zart.workflow("region")
def region(where: str) -> zart.Flow[str]:
    return (yield from charge(where))
""",
    ),
    rule(
        "ZT105",
        "goes through a set in its order",
        "the order of a set of texts changes from process to process",
        "write sorted(...) around it",
        """
@zart.workflow("every-tag")
def every_tag(order: str) -> zart.Flow[None]:
    for tag in (yield from tags_of(order)):
        yield from charge(tag)
""",
        """
@zart.workflow("every-tag")
def every_tag(order: str) -> zart.Flow[None]:
    for tag in sorted((yield from tags_of(order))):
        yield from charge(tag)
""",
    ),
    rule(
        "ZT106",
        "uses id() or hash()",
        "both change from process to process",
        "use a field that says which it is, or hashlib for a checksum",
        """
@zart.workflow("shard")
def shard(order: str) -> zart.Flow[str]:
    return (yield from charge(f"shard-{hash(order) % 8}"))
""",
        """
@zart.workflow("shard")
def shard(order: str) -> zart.Flow[str]:
    import hashlib

    digest = hashlib.sha256(order.encode()).digest()
    return (yield from charge(f"shard-{digest[0] % 8}"))
""",
    ),
    rule(
        "ZT107",
        "uses state that outlives the run",
        "other runs and replays of this one have changed it meanwhile",
        "keep it in a variable of the workflow, in the input, or behind a step",
        """
charged: list[str] = []


@zart.workflow("count")
def count(order: str) -> zart.Flow[int]:
    yield from charge(order)
    charged.append(order)
    return len(charged)
""",
        """
PRICES = {"book": 10}  # a table that nobody changes is fine


@zart.workflow("count")
def count(order: str) -> zart.Flow[int]:
    charged: list[str] = []
    yield from charge(order)
    charged.append(order)
    return len(charged) * PRICES["book"]
""",
    ),
    rule(
        "ZT108",
        "has a mutable default argument",
        "all calls in a process share it, so it holds what earlier runs and replays left there",
        "write None as the default and make a new one inside",
        """
def charge_all(orders: list[str], done: list[str] = []) -> zart.Flow[list[str]]:
    for order in orders:
        done.append((yield from charge(order)))
    return done
""",
        """
def charge_all(orders: list[str], done: list[str] | None = None) -> zart.Flow[list[str]]:
    done = list(done or [])
    for order in orders:
        done.append((yield from charge(order)))
    return done
""",
    ),
    rule(
        "ZT201",
        "touches files",
        "this is done again at each replay, and may find something else there",
        "do it in a step",
        """
@zart.workflow("import")
def import_orders(path: str) -> zart.Flow[None]:
    with open(path) as file:
        for order in file:
            yield from charge(order.strip())
""",
        """
@zart.step("read-orders")
def read_orders(path: str) -> list[str]:
    with open(path) as file:
        return [order.strip() for order in file]


@zart.workflow("import")
def import_orders(path: str) -> zart.Flow[None]:
    for order in (yield from read_orders(path)):
        yield from charge(order)
""",
    ),
    rule(
        "ZT202",
        "talks to the network",
        "this is done again at each replay, and may be answered otherwise",
        "do it in a step",
        """
@zart.workflow("fetch")
def fetch(url: str) -> zart.Flow[str]:
    import urllib.request

    with urllib.request.urlopen(url) as answer:
        return (yield from charge(answer.read().decode()))
""",
        """
@zart.step("download")
def download(url: str) -> str:
    import urllib.request

    with urllib.request.urlopen(url) as answer:
        return answer.read().decode()


@zart.workflow("fetch")
def fetch(url: str) -> zart.Flow[str]:
    return (yield from charge((yield from download(url))))
""",
    ),
    rule(
        "ZT203",
        "starts a process",
        "it is started again at each replay",
        "do it in a step",
        """
@zart.workflow("convert")
def convert(order: str) -> zart.Flow[str]:
    import subprocess

    subprocess.run(["convert", order], check=True)
    return (yield from charge(order))
""",
        """
@zart.step("convert-{order}")
def run_converter(order: str) -> None:
    import subprocess

    subprocess.run(["convert", order], check=True)


@zart.workflow("convert")
def convert(order: str) -> zart.Flow[str]:
    yield from run_converter(order)
    return (yield from charge(order))
""",
    ),
    rule(
        "ZT204",
        "uses threads or an event loop",
        "what runs beside a workflow is in no log, so nothing brings it back in the same order",
        "write zart.schedule, zart.wait, zart.gather or zart.race over steps and flows",
        """
@zart.workflow("both")
def both(order: str) -> zart.Flow[None]:
    import threading

    threading.Thread(target=charge.fn, args=(order,)).start()
    yield from charge(order)
""",
        """
@zart.workflow("both")
def both(order: str) -> zart.Flow[None]:
    yield from zart.gather(charge(order).named("first"), charge(order).named("second"))
""",
    ),
    rule(
        "ZT205",
        "sleeps in its thread",
        "it blocks the host, is slept again at each replay, and does not survive a restart",
        'write `yield from zart.sleep("a-name", "30s")`',
        """
@zart.workflow("settle")
def settle(order: str) -> zart.Flow[str]:
    time.sleep(30)
    return (yield from charge(order))
""",
        """
@zart.workflow("settle")
def settle(order: str) -> zart.Flow[str]:
    yield from zart.sleep("settle", "30s")
    return (yield from charge(order))
""",
    ),
    rule(
        "ZT206",
        "prints or logs",
        "each replay says it again",
        "use zart.logger, which is silent about lines that a replay passes again",
        """
@zart.workflow("tell")
def tell(order: str) -> zart.Flow[None]:
    txn = yield from charge(order)
    print("charged", txn)
""",
        """
@zart.workflow("tell")
def tell(order: str) -> zart.Flow[None]:
    txn = yield from charge(order)
    zart.logger.info("charged %s", txn)
""",
    ),
    rule(
        "ZT207",
        "has an effect outside a step",
        "its outcome is in no log, so it happens again at each replay",
        "call the step itself and write `yield from` before it; resources are for steps",
        """
@zart.workflow("direct")
def direct(order: str) -> zart.Flow[str]:
    yield from zart.sleep("settle", "1s")
    return charge.fn(order)
""",
        """
@zart.workflow("direct")
def direct(order: str) -> zart.Flow[str]:
    yield from zart.sleep("settle", "1s")
    return (yield from charge(order))
""",
    ),
    rule(
        "ZT301",
        "is an `async def`",
        "a workflow and its flows are plain generators; nothing awaits them",
        "write `def` and `yield from`; only steps may be async",
        """
async def refund(order: str):
    yield charge(order)


@zart.workflow("refunds")
def refunds(order: str) -> zart.Flow[None]:
    yield from refund(order)
""",
        """
def refund(order: str) -> zart.Flow[str]:
    return (yield from charge(order))


@zart.workflow("refunds")
def refunds(order: str) -> zart.Flow[None]:
    yield from refund(order)
""",
    ),
    rule(
        "ZT302",
        "is built and not yielded",
        "a command does nothing by itself, and is not its result",
        "write `yield from` before it",
        """
@zart.workflow("forgotten")
def forgotten(order: str) -> zart.Flow[None]:
    charge(order)
    yield from zart.sleep("settle", "1s")
""",
        """
@zart.workflow("forgotten")
def forgotten(order: str) -> zart.Flow[None]:
    yield from charge(order)
    yield from zart.sleep("settle", "1s")
""",
    ),
    rule(
        "ZT303",
        "is a `yield` where `yield from` is meant",
        "a plain `yield` gives an untyped object, and cannot run a flow",
        "write `yield from`",
        """
@zart.workflow("untyped")
def untyped(order: str) -> zart.Flow[object]:
    txn = yield charge(order)
    return txn
""",
        """
@zart.workflow("untyped")
def untyped(order: str) -> zart.Flow[str]:
    txn = yield from charge(order)
    return txn
""",
    ),
    rule(
        "ZT304",
        "yields what is no command",
        "a workflow may yield commands and flows only",
        "call the step or flow; write zart.wait([...]) around several",
        """
@zart.workflow("several")
def several(orders: list[str]) -> zart.Flow[None]:
    yield from [charge(order) for order in orders]
""",
        """
@zart.workflow("several")
def several(orders: list[str]) -> zart.Flow[None]:
    yield from zart.wait([charge(order) for order in orders])
""",
    ),
    rule(
        "ZT305",
        "has a name that can come twice",
        "the name is a command's identity, and a run has each name once: the second is DuplicateName",
        'put what varies into the name: a template such as "charge-{order}", .named(f"...") or zart.scope',
        """
@zart.workflow("poll")
def poll(orders: list[str]) -> zart.Flow[None]:
    for order in orders:
        yield from charge(order)
        yield from zart.sleep("between", "1s")
""",
        """
@zart.workflow("poll")
def poll(orders: list[str]) -> zart.Flow[None]:
    for order in orders:
        yield from charge(order)
        yield from zart.sleep(f"after-{order}", "1s")
""",
    ),
    rule(
        "ZT306",
        "sleeps until a naive datetime",
        "it does not say which zone, so it is another instant on another machine, and is refused",
        "give it a zone: datetime(..., tzinfo=ZoneInfo(...)) or datetime.UTC",
        """
@zart.workflow("new-year")
def new_year() -> zart.Flow[None]:
    yield from zart.sleep_until("midnight", datetime.datetime(2027, 1, 1))
""",
        """
@zart.workflow("new-year")
def new_year() -> zart.Flow[None]:
    yield from zart.sleep_until("midnight", datetime.datetime(2027, 1, 1, tzinfo=datetime.UTC))
""",
    ),
    rule(
        "ZT401",
        "swallows cancellation",
        "zart.Cancelled and GeneratorExit are BaseExceptions that end the run; caught here, it goes on",
        "write `except Exception`, or end the handler with `raise`",
        """
@zart.workflow("stubborn")
def stubborn(order: str) -> zart.Flow[None]:
    try:
        yield from charge(order)
    except BaseException:
        zart.logger.warning("not charged")
""",
        """
@zart.workflow("stubborn")
def stubborn(order: str) -> zart.Flow[None]:
    try:
        yield from charge(order)
    except Exception:
        zart.logger.warning("not charged")
""",
    ),
    rule(
        "ZT402",
        "leaves a `finally` early",
        "`return`, `break` or `continue` there drops the exception on its way, cancellation too",
        "let the `finally` run to its end",
        """
@zart.workflow("early")
def early(order: str) -> zart.Flow[str]:
    txn = "none"
    try:
        txn = yield from charge(order)
    finally:
        return txn
""",
        """
@zart.workflow("early")
def early(order: str) -> zart.Flow[str]:
    txn = "none"
    try:
        txn = yield from charge(order)
    finally:
        zart.logger.info("charged or not: %s", txn)
    return txn
""",
    ),
    rule(
        "ZT900",
        "cannot be read",
        "what does not parse is not checked",
        "mend the file",
        "",
        "",
    ),
    rule(
        "ZT901",
        "is a silence without use",
        "it hides nothing now, and would hide what comes later",
        "take the comment out",
        """
@zart.workflow("quiet")
def quiet(order: str) -> zart.Flow[str]:
    return (yield from charge(order))  # zart: ignore[ZT101] no clock here any more
""",
        """
@zart.workflow("quiet")
def quiet(order: str) -> zart.Flow[str]:
    print("starting")  # zart: ignore[ZT206] a line for each replay is wanted here
    return (yield from charge(order))
""",
    ),
    rule(
        "ZT902",
        "is a silence that names no rule",
        "it silences nothing",
        "name what it is for, as in `# zart: ignore[ZT101] why`",
        """
@zart.workflow("vague")
def vague(order: str) -> zart.Flow[str]:
    return (yield from charge(order))  # zart: ignore
""",
        """
@zart.workflow("vague")
def vague(order: str) -> zart.Flow[str]:
    print(order)  # zart: ignore[ZT206] read by a person at the terminal
    return (yield from charge(order))
""",
    ),
]
RULES = {each.id: each for each in ALL}
"""The rules by id, in the order of their numbers."""
