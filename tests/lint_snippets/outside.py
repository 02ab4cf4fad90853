#: bad the clock, by an alias of the module
import time as t

@zart.workflow("w")
def w() -> zart.Flow[float]:
    yield from charge("a")
    return t.monotonic()  # -> ZT101

#: bad the clock, by an alias of the function, kept under another name
from datetime import datetime as dt
current = dt.now

@zart.workflow("w")
def w() -> zart.Flow[str]:
    yield from charge("a")
    return current().isoformat()  # -> ZT101

#: bad today's date, and the local time without an argument
from datetime import date
from time import localtime

@zart.workflow("w")
def w() -> zart.Flow[int]:
    yield from charge(date.today().isoformat())  # -> ZT101
    return localtime().tm_hour  # -> ZT101

#: good the clock by a command, by the context, and arithmetic on times that are given
import time
from datetime import datetime, timedelta, UTC

@zart.workflow("w")
def w(placed: datetime) -> zart.Flow[str]:
    now = yield from zart.now("now")
    yield from charge(str(zart.context().now))
    time.gmtime(0), time.strftime("%Y", time.gmtime(placed.timestamp()))
    late = datetime.fromtimestamp(zart.context().now, UTC) - placed > timedelta(days=1)
    return f"{now} {late}"

#: good what only computes, of modules that else look outside
import secrets
import socket
import httpx
import anthropic

@zart.workflow("w")
def w(host: str, token: str) -> zart.Flow[bool]:
    url = httpx.URL("https://bank.example").copy_with(host=host)
    block = anthropic.types.TextBlock(type="text", text=str(url))
    yield from charge(f"{socket.inet_ntoa(socket.inet_aton(host))}-{block.text}")
    return secrets.compare_digest(token, "t")

#: bad a helper of a helper reads the clock
def stamp() -> str:
    return f"{time.time():.0f}"  # -> ZT101

def reference(order: str) -> str:
    return f"{order}-{stamp()}"

@zart.workflow("w")
def w(order: str) -> zart.Flow[str]:
    return (yield from charge(reference(order)))

#: good the same helper, called by a step
def stamp() -> str:
    return f"{time.time():.0f}"

@zart.step("stamped-{order}")
def stamped(order: str) -> str:
    return f"{order}-{stamp()}"

@zart.workflow("w")
def w(order: str) -> zart.Flow[str]:
    return (yield from stamped(order))

#: bad random numbers, shuffles, secrets and random bytes
import os, secrets
from random import shuffle

@zart.workflow("w")
def w(orders: list[str]) -> zart.Flow[None]:
    shuffle(orders)  # -> ZT102
    yield from charge(secrets.token_hex(8))  # -> ZT102
    yield from charge(os.urandom(8).hex())  # -> ZT102
    yield from charge(str(random.Random().random()))  # -> ZT102

#: good a generator of random numbers with a seed out of the input
@zart.workflow("w")
def w(orders: list[str]) -> zart.Flow[None]:
    dice = random.Random(orders[0])
    dice.shuffle(orders)
    yield from charge(orders[0])

#: bad a random key for sorting
@zart.workflow("w")
def w(orders: list[str]) -> zart.Flow[None]:
    orders = sorted(orders, key=lambda order: random.random())  # -> ZT102
    yield from charge(orders[0])

#: bad a function that looks outside, given to one that calls it
def key(order: str) -> float:
    return time.time()  # -> ZT101

@zart.workflow("w")
def w(orders: list[str]) -> zart.Flow[None]:
    yield from charge(max(orders, key=key))
    yield from charge(str(list(map(uuid.uuid5, orders, map(uuid.uuid4, orders)))))  # -> ZT103

#: bad unique ids, imported by name
from uuid import uuid1, uuid4

@zart.workflow("w")
def w() -> zart.Flow[None]:
    yield from charge(uuid1().hex)  # -> ZT103
    yield from charge(uuid4().hex)  # -> ZT103

#: good ids that are made of names
from uuid import NAMESPACE_URL, uuid5

@zart.workflow("w")
def w(order: str) -> zart.Flow[None]:
    yield from charge(uuid5(NAMESPACE_URL, order).hex)
    drawn = yield from zart.uuid("drawn")
    yield from charge(drawn.hex)

#: bad the environment in each of its forms
import os, sys, platform, socket
from os import environ

@zart.workflow("w")
def w() -> zart.Flow[None]:
    yield from charge(os.getenv("REGION", ""))  # -> ZT104
    yield from charge(environ.get("REGION", ""))  # -> ZT104
    yield from charge(sys.argv[0])  # -> ZT104
    yield from charge(os.getcwd())  # -> ZT104
    yield from charge(platform.node())  # -> ZT104
    yield from charge(socket.gethostname())  # -> ZT104

#: bad a time in the zone of the machine
@zart.workflow("w")
def w(seconds: float) -> zart.Flow[None]:
    yield from charge(str(datetime.datetime.fromtimestamp(seconds)))  # -> ZT104

#: good what is captured once, by name or in a lambda
import os

def region() -> str:
    return os.environ["REGION"]

@zart.workflow("w")
def w() -> zart.Flow[None]:
    yield from charge((yield from zart.capture("region", lambda: os.environ["REGION"])))
    where = yield from zart.capture("where", region)
    began = yield from zart.capture("began", time.time)
    yield from charge(f"{where} {began}")

#: good paths that are put together without looking
import os.path
from pathlib import Path, PurePath

@zart.workflow("w")
def w(folder: str) -> zart.Flow[None]:
    yield from charge(os.path.join(folder, "a"))
    yield from charge(str(Path(folder) / "b"))
    yield from charge(Path(folder).with_suffix(".txt").name)
    yield from charge(PurePath(folder).stem + os.sep)

#: bad files by pathlib, through a variable and a parameter
from pathlib import Path

@zart.workflow("w")
def w(folder: Path) -> zart.Flow[None]:
    place = Path("orders")
    yield from charge(place.read_text())  # -> ZT201
    if (folder).exists():  # -> ZT201
        yield from charge("there")

#: bad folders, temporary files, databases
import os, shutil, sqlite3, tempfile

@zart.workflow("w")
def w() -> zart.Flow[None]:
    for name in os.listdir("."):  # -> ZT201
        yield from charge(name)
    shutil.rmtree("old")  # -> ZT201
    with tempfile.TemporaryDirectory() as place:  # -> ZT201
        yield from charge(place)
    sqlite3.connect(":memory:")  # -> ZT201

#: bad clients of the network that are not installed here
import requests, httpx
from aiohttp import ClientSession

@zart.workflow("w")
def w(url: str) -> zart.Flow[None]:
    yield from charge(requests.get(url).text)  # -> ZT202
    with httpx.Client() as client:  # -> ZT202
        yield from charge("x")
    session = requests.Session()  # -> ZT202
    session.post(url)  # -> ZT202

#: good errors of such clients may be caught and raised
import requests

@zart.workflow("w")
def w(url: str) -> zart.Flow[None]:
    try:
        yield from charge(url)
    except requests.ConnectionError:
        raise requests.HTTPError("no answer")

#: bad processes
import os, subprocess as sp

@zart.workflow("w")
def w() -> zart.Flow[None]:
    sp.check_output(["ls"])  # -> ZT203
    os.system("ls")  # -> ZT203
    yield from charge("x")

#: bad pools, event loops and timers
import asyncio
from concurrent.futures import ThreadPoolExecutor

@zart.workflow("w")
def w() -> zart.Flow[None]:
    with ThreadPoolExecutor() as pool:  # -> ZT204
        yield from charge("x")
    asyncio.run(None)  # -> ZT204

#: bad sleeping, with a name of the function alone
from time import sleep

@zart.workflow("w")
def w() -> zart.Flow[None]:
    yield from charge("x")
    sleep(1)  # -> ZT205

#: good a method that is named like a function that sleeps
class Bed:
    def sleep(self, hours: int) -> int:
        return hours

@zart.workflow("w")
def w() -> zart.Flow[None]:
    yield from charge(str(Bed().sleep(8)))

#: bad loggers of the module and of the class
import logging
logger = logging.getLogger(__name__)

class Orders:
    log: logging.Logger

    def take(self, order: str) -> zart.Flow[None]:
        yield from charge(order)
        self.log.info("taken")  # -> ZT206
        logger.info("taken %s", order)  # -> ZT206
        logging.warning("late")  # -> ZT206

#: good the logger that is made for it
from zart_core import logger as log

@zart.workflow("w")
def w() -> zart.Flow[None]:
    yield from charge("x")
    log.info("charged")
    zart.logger.warning("twice")

#: good a function of the program that is called print
def print(text: str) -> str:
    return text

@zart.workflow("w")
def w() -> zart.Flow[None]:
    yield from charge(print("x"))

#: good a parameter, a local and a field that are called id and hash
import attrs

@attrs.frozen
class Order:
    id: str
    hash: str

@zart.workflow("w")
def w(order: Order, id: str = "") -> zart.Flow[None]:
    hash = order.hash
    yield from charge(order.id)
    yield from charge(f"{id} {hash}")

#: bad the built-in id
@zart.workflow("w")
def w(order: str) -> zart.Flow[None]:
    yield from charge(str(id(order)))  # -> ZT106

#: bad the body of a step, and a resource
@zart.workflow("w")
def w(order: str) -> zart.Flow[None]:
    yield from zart.sleep("s", 1)
    charge.fn(order)  # -> ZT207
    zart.resource("bank")  # -> ZT207

#: good the body of a step, called by a step
@zart.step("twice")
def twice(order: str) -> str:
    return charge.fn(order) + charge.fn(order)

@zart.workflow("w")
def w(order: str) -> zart.Flow[None]:
    yield from twice(order)

#: bad what runs when an object of a class is made
class Order:
    def __init__(self, id: str) -> None:
        self.id = id
        self.at = time.time()  # -> ZT101

@zart.workflow("w")
def w(id: str) -> zart.Flow[None]:
    yield from charge(Order(id).id)

#: bad a method of an object whose class is known
class Prices:
    def of(self, sku: str) -> int:
        return random.randint(1, 9)  # -> ZT102

@zart.workflow("w")
def w(prices: Prices) -> zart.Flow[None]:
    yield from charge(str(prices.of("a")))

#: bad what a workflow does on failure is replayed, too
def give_up(order: str, failure: BaseException) -> str:
    print(failure)  # -> ZT206
    return order

@zart.workflow("w", on_failure=give_up)
def w(order: str) -> zart.Flow[str]:
    return (yield from charge(order))

#: good what only other code does
import threading

def serve() -> None:
    print("serving", time.time())
    threading.Thread(target=time.sleep, args=(1,)).start()

@zart.workflow("w")
def w(order: str) -> zart.Flow[str]:
    return (yield from charge(order))

#: bad fields that are filled by a function when an object is made
import attrs, dataclasses
from uuid import UUID, uuid4

@attrs.frozen
class Order:
    sku: str
    id: UUID = attrs.field(factory=uuid4)
    at: float = attrs.Factory(time.time)

@dataclasses.dataclass
class Draw:
    n: int = dataclasses.field(default_factory=lambda: random.randint(1, 6))

@zart.workflow("w")
def w(sku: str) -> zart.Flow[None]:
    yield from charge(Order(sku).sku)  # -> ZT101 ZT103
    yield from charge(str(Draw()))  # -> ZT102
    yield from charge(str(Order(sku, at=1.0)))  # -> ZT103

#: good the same fields, given
import attrs
from uuid import UUID, uuid4

@attrs.frozen
class Order:
    sku: str
    id: UUID = attrs.field(factory=uuid4)
    tags: list[str] = attrs.field(factory=list)

@zart.workflow("w")
def w(sku: str) -> zart.Flow[None]:
    id = yield from zart.uuid("id")
    yield from charge(Order(sku, id).sku)
    yield from charge(str(Order(sku, id=id)))

#: bad methods of the same object, through self and a base class
class Base:
    def stamp(self) -> str:
        return str(time.time())  # -> ZT101

class Flows(Base):
    def one(self, order: str):
        yield from charge(order + self.stamp())
        print("one")  # -> ZT206

    def all(self, orders: list[str]) -> zart.Flow[None]:
        for order in orders:
            yield from self.one(order)
            yield from self.beat()  # -> ZT305

    def beat(self):
        yield from zart.sleep("beat", 1)

#: good a method that a subclass is to write, and one that it takes from another
class Flows:
    def one(self, order: str):
        """Run one order."""
        raise NotImplementedError

    def other(self, order: str): ...

    def all(self, orders: list[str]) -> zart.Flow[None]:
        for order in orders:
            yield from self.one(order)
            yield from self.other(order)
            yield from self.unknown(order)

#: bad properties that a workflow reads, of itself, of another object and of a base class
from functools import cached_property

class Clock:
    @property
    def now(self) -> float:
        return time.time()  # -> ZT101

    @cached_property
    def draw(self) -> int:
        return random.randint(1, 6)  # -> ZT102

class Flows(Clock):
    clock: Clock

    @property
    def place(self) -> str:
        return os.environ["PLACE"]  # -> ZT104

    def one(self, order: str) -> zart.Flow[None]:
        yield from charge(f"{order}-{self.now}-{self.place}")
        yield from charge(str(Clock().draw))

import os

#: good properties that only compute, that steps and captures read, that are set, and what is no property
class Order:
    at: float = 0.0

    @property
    def late(self) -> bool:
        return self.at > 5

    @property
    def age(self) -> float:
        return time.time() - self.at

    def since(self) -> float:
        return time.time()

    @zart.step("said")
    def said(self) -> str:
        return str(self.age)

@zart.step("old")
def old(order: Order) -> bool:
    return order.age > 5

@zart.workflow("w")
def w(order: Order) -> zart.Flow[None]:
    yield from charge(str(order.late))
    yield from old(order)
    age = yield from zart.capture("age", lambda: order.age)
    yield from charge(f"{age}")
    order.at = 1.0
    same = order.since

#: bad a set whose order decides where a key says the same of several
@zart.workflow("w")
def w(tags: set[str], amounts: frozenset[int]) -> zart.Flow[None]:
    yield from charge(max(tags, key=len))  # -> ZT105
    yield from charge(min(tags, key=lambda tag: tag.lower()))  # -> ZT105
    for tag in sorted(tags, key=str.casefold):  # -> ZT105
        yield from charge(tag)
    yield from charge(str(sorted(list(amounts), key=abs)))  # -> ZT105
    yield from charge(str(sorted((tag for tag in tags), key=lambda tag: -len(tag))))  # -> ZT105
    names = list(tags)  # -> ZT105
    names.sort(key=lambda name: name == "first")
    yield from charge(names[0])

#: good keys that tell all apart, or may, a set that is sorted first, and what is no set
@zart.workflow("w")
def w(tags: set[str], every: list[str]) -> zart.Flow[None]:
    yield from charge(max(tags))
    yield from charge(max(tags, key=lambda tag: (len(tag), tag)))
    yield from charge(max(every, key=len))
    yield from charge(max("a", "b", key=len))
    yield from charge(str(sorted(sorted(tags), key=len)))
    yield from charge(str(sorted(tags, key=lambda tag: tag.split("-")[1])))
    yield from charge(str(len(sorted(tags, key=len))))
    names = list(tags)
    names.sort(key=None)
    yield from charge(names[0])
