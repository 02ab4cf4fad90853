#: bad the decorator under another name
from zart_core import workflow as wf, Flow

@wf("w")
def w() -> Flow[None]:
    yield from charge(str(time.time()))  # -> ZT101

#: bad the decorator by its own module, and kept in a variable
from functools import partial
from zart_core.workflows import workflow
durable = partial(workflow, timeout="1h")

@durable("w")
def w():
    yield from charge(str(time.time()))  # -> ZT101

#: bad the decorator by a star
from zart_core import *

@workflow("w")
def w():
    yield from charge(str(time.time()))  # -> ZT101

#: bad a decorator of the program that makes a workflow
def flow_of(name: str):
    """With our defaults."""
    return zart.workflow(name, timeout="1h")

@flow_of("w")
def w():
    yield from charge(str(time.time()))  # -> ZT101

#: bad a workflow in a class, in a function, and a flow that nobody calls
class Flows:
    @staticmethod
    @zart.workflow("w")
    def w():
        yield from charge(str(time.time()))  # -> ZT101

def make():
    @zart.workflow("v")
    def v():
        yield from charge(str(time.time()))  # -> ZT101
    return v

def lonely(order: str) -> "zart.Flow[None]":
    yield from charge(str(time.time()))  # -> ZT101

#: bad a flow without an annotation, that a workflow runs as a branch
def branch():
    yield from charge(str(time.time()))  # -> ZT101

@zart.workflow("w")
def w():
    yield from zart.gather(branch(), charge("x"))

#: bad a method of the class around it
class Orders:
    def stamp(self) -> str:
        return str(time.time())  # -> ZT101

    def take(self) -> zart.Flow[None]:
        yield from charge(Orders().stamp())

#: good generators and functions that are no workflows
def pages():
    while True:
        yield time.time()

def clock() -> float:
    return time.time()

class Stream:
    def __iter__(self):
        yield random.random()

#: good a decorator that is called workflow and is another's
from prefect import workflow

@workflow("w")
def w():
    print(time.time())
    yield 1

#: good what is for type checkers only
from typing import TYPE_CHECKING

@zart.workflow("w")
def w() -> zart.Flow[None]:
    if TYPE_CHECKING:
        print(time.time())
    yield from charge("x")

#: good a finding that is silenced, on its line and on the line before
@zart.workflow("w")
def w() -> zart.Flow[None]:
    yield from charge(str(time.time()))  # zart: ignore[ZT101] a record of the replay itself
    # zart: ignore[ZT102, ZT206] for a demonstration
    print(random.random())

#: bad silences: of another rule, of none, of one that does not exist
@zart.workflow("w")
def w() -> zart.Flow[None]:
    yield from charge(str(time.time()))  # zart: ignore[ZT102]  # -> ZT101 ZT901
    yield from charge("y")  # zart: ignore  # -> ZT902
    yield from charge("z")  # zart: ignore[E501]  # -> ZT902

#: good a recursion, of functions and of flows
def depth(n: int) -> int:
    return 0 if n == 0 else depth(n - 1)

def down(n: int) -> zart.Flow[None]:
    if n:
        yield from charge(f"{n}")
        yield from down(n - 1)

@zart.workflow("w")
def w() -> zart.Flow[None]:
    yield from down(depth(3))
