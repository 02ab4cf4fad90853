#: bad built and not yielded: a step, a sleep, a flow, a hand-over
def helper() -> zart.Flow[None]:
    yield from charge("h")

@zart.workflow("w")
def w() -> zart.Flow[None]:
    charge("a")  # -> ZT302
    zart.sleep("s", 1)  # -> ZT302
    helper()  # -> ZT302
    zart.wait([charge("b")])  # -> ZT302
    w.continue_as_new()  # -> ZT302
    yield from charge("c")

#: bad kept and never used
@zart.workflow("w")
def w() -> zart.Flow[None]:
    txn = charge("a")  # -> ZT302
    typed: str = charge("d")  # -> ZT302
    several: list[object] = [charge("e")]  # -> ZT302
    used: object = charge("f")
    yield from zart.wait([used])
    yield from charge("b").named("c")

#: bad a list of them that nothing reads
@zart.workflow("w")
def w(ids: list[str]) -> zart.Flow[None]:
    every = [charge(id) for id in ids]  # -> ZT302
    two = (charge("a"), charge("b"))  # -> ZT302 ZT302
    [charge(id) for id in ids]  # -> ZT302
    yield from zart.sleep("s", 1)

#: good lists of them that something reads
@zart.workflow("w")
def w(ids: list[str]) -> zart.Flow[None]:
    every = [charge(id) for id in ids]
    yield from zart.wait(every)
    undo = [charge("a"), charge("b")]
    while undo:
        yield from undo.pop()
    kept = {"c": [charge("c")]}
    yield from kept["c"][0]

#: bad used as though it were its result
@zart.workflow("w")
def w() -> zart.Flow[str]:
    if charge("a"):  # -> ZT302
        yield from charge("b")
    text = charge("c")
    yield from charge(text.upper())  # -> ZT302
    yield from charge(charge("d"))  # -> ZT302
    n = len(charge("e"))  # -> ZT302
    yield from charge(f"{charge('f')}")  # -> ZT302
    return charge("g")  # -> ZT302

#: bad a task that is not cancelled after all
@zart.workflow("w")
def w() -> zart.Flow[None]:
    task = yield from zart.schedule(charge("a"))
    task.cancel()  # -> ZT302
    yield from zart.sleep("s", 1)

#: good commands that are kept, put together and yielded later
def both(a: str, b: str) -> list[object]:
    return [charge(a), charge(b)]

def one(a: str):
    return charge(a).named(f"one-{a}")

@zart.workflow("w")
def w(orders: list[str]) -> zart.Flow[None]:
    first = charge("a")
    jobs = [charge(order) for order in orders]
    jobs.append(charge("z").named("last"))
    yield from first
    yield from zart.wait(jobs)
    yield from one("b")
    task = yield from zart.schedule(charge("c"))
    yield from task.cancel()
    yield from zart.gather(charge("d"), zart.sleep("s", 1))
    yield from zart.wait(both("e", "f"))
    if first is not None:
        yield from zart.outcome(charge("g"))

#: good a plain `yield` whose value nobody wants
@zart.workflow("w")
def w() -> zart.Flow[None]:
    yield charge("a")
    yield zart.sleep("s", 1)
    yield zart.outcome(charge("b"))

#: bad a plain `yield` of a command, for its value, and of a flow
def helper() -> zart.Flow[str]:
    return (yield from charge("h"))

@zart.workflow("w")
def w() -> zart.Flow[None]:
    txn = yield charge("a")  # -> ZT303
    for tag in (yield tags_of("a")):  # -> ZT303
        pass
    won = yield zart.step_or(charge("b"), "")  # -> ZT303
    yield helper()  # -> ZT303

#: bad what is no command
@zart.workflow("w")
def w() -> zart.Flow[None]:
    yield  # -> ZT304
    yield "charge"  # -> ZT304
    yield [charge("a")]  # -> ZT304
    yield from charge  # -> ZT304
    yield from {"a": charge("b")}  # -> ZT304

#: bad `yield from` over the value of a plain function
def price(sku: str) -> int:
    return len(sku)

def nothing(sku: str):
    sku.upper()

@zart.workflow("w")
def w() -> zart.Flow[None]:
    yield from price("a")  # -> ZT304
    yield from nothing("a")  # -> ZT304

#: good flows that yield nothing at all, each in its way
def never() -> zart.Flow[int]:
    return 1
    yield

def empty() -> zart.Flow[int]:
    yield from ()
    return 2

def guarded() -> zart.Flow[int]:
    if False:
        yield
    return 3

@zart.workflow("w")
def w() -> zart.Flow[None]:
    yield from charge(f"{(yield from never())} {(yield from empty())} {(yield from guarded())}")

#: good a generator of plain values, which is iterated and not run
def pages(orders: list[str]):
    for n in range(0, len(orders), 10):
        yield [n, n + 10]

@zart.workflow("w")
def w(orders: list[str]) -> zart.Flow[None]:
    for page in pages(orders):
        yield from charge(str(page[0]))

#: bad the same generator, run as a flow
def pages(orders: list[str]):
    for n in range(0, len(orders), 10):
        yield [n]  # -> ZT304

@zart.workflow("w")
def w(orders: list[str]) -> zart.Flow[None]:
    yield from pages(orders)

#: bad an `async def` as a workflow, and one that is run as a flow without a yield
@zart.workflow("w")
async def w():  # -> ZT301
    yield charge("a")

async def helper() -> int:  # -> ZT301
    return 1

@zart.workflow("v")
def v() -> zart.Flow[None]:
    yield from charge("a")
    yield from helper()

#: good steps may be async
@zart.step("fetch-{url}")
async def fetch(url: str) -> str:
    return url

async def main() -> None:
    print(await fetch.fn("x"))

@zart.workflow("w")
def w() -> zart.Flow[None]:
    yield from fetch("x")

#: bad naive datetimes: now, parsed, put together, calculated
from datetime import datetime, timedelta

@zart.workflow("w")
def w() -> zart.Flow[None]:
    yield from zart.sleep_until("a", datetime(2030, 1, 1, 12))  # -> ZT306
    yield from zart.sleep_until("b", datetime.fromisoformat("2030-01-01T12:00"))  # -> ZT306
    when = datetime(2030, 1, 1) + timedelta(days=1)
    yield from zart.sleep_until("c", when)  # -> ZT306

#: good datetimes with a zone, and such that may have one
from datetime import datetime, timedelta, UTC
from zoneinfo import ZoneInfo

@zart.workflow("w")
def w(when: datetime) -> zart.Flow[None]:
    yield from zart.sleep_until("a", datetime(2030, 1, 1, tzinfo=UTC))
    yield from zart.sleep_until("b", datetime(2030, 1, 1, 0, 0, 0, 0, ZoneInfo("Europe/Berlin")))
    yield from zart.sleep_until("c", datetime.fromisoformat("2030-01-01T12:00Z"))
    yield from zart.sleep_until("d", when + timedelta(hours=1))
    yield from zart.sleep_until("e", (yield from zart.now("now")) + timedelta(hours=1))

#: bad handlers that catch everything
@zart.workflow("w")
def w() -> zart.Flow[None]:
    try:
        yield from charge("a")
    except:  # -> ZT401
        pass
    try:
        yield from charge("b")
    except (ValueError, BaseException) as error:  # -> ZT401
        zart.logger.info("%s", error)

#: bad suppressing everything
from contextlib import suppress

@zart.workflow("w")
def w() -> zart.Flow[None]:
    with suppress(BaseException):  # -> ZT401
        yield from charge("a")

#: good handlers that pass on, that catch less, or that have nothing to wait for
from contextlib import suppress

@zart.workflow("w")
def w() -> zart.Flow[None]:
    try:
        yield from charge("a")
    except BaseException:
        yield from charge("undo")
        raise
    try:
        yield from charge("b")
    except (zart.Cancelled, GeneratorExit):
        raise
    except BaseException as error:
        zart.logger.info("%s", error)
    try:
        n = int("x")
    except BaseException:
        n = 0
    with suppress(ValueError):
        yield from charge(f"c-{n}")
    try:
        yield from charge("d")
    except zart.Cancelled:
        yield from charge("e")

#: bad a loop that a `finally` goes on with
@zart.workflow("w")
def w(orders: list[str]) -> zart.Flow[None]:
    for order in orders:
        try:
            yield from charge(order)
        finally:
            continue  # -> ZT402

#: good loops and returns inside a `finally` that stay there
@zart.workflow("w")
def w(orders: list[str]) -> zart.Flow[None]:
    try:
        yield from charge("a")
    finally:
        for order in orders:
            if order:
                yield from charge(order)
                continue
            break

#: bad a plain function that gives a command, called for nothing
def one(a: str):
    return charge(a).named(f"one-{a}")

@zart.workflow("w")
def w() -> zart.Flow[None]:
    one("a")  # -> ZT302
    yield from one("b")
