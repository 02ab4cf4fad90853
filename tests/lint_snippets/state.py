#: bad a counter of the module, by global
count = 0

@zart.workflow("w")
def w() -> zart.Flow[int]:
    global count
    count += 1  # -> ZT107
    yield from charge("x")
    return count

#: bad a cache that a helper fills
cache: dict[str, int] = {}

def price(sku: str) -> int:
    if sku not in cache:  # -> ZT107
        cache[sku] = len(sku)
    return cache[sku]

@zart.workflow("w")
def w() -> zart.Flow[int]:
    yield from charge(str(price("a")))
    return 1

#: bad a list that a step fills and the workflow reads
done = []

@zart.step("note-{x}")
def note(x: str) -> None:
    done.append(x)

@zart.workflow("w")
def w() -> zart.Flow[int]:
    yield from note("x")
    return len(done)  # -> ZT107

#: bad a counter that goes on
import itertools
numbers = itertools.count()

@zart.workflow("w")
def w() -> zart.Flow[int]:
    yield from charge(str(next(numbers)))  # -> ZT107
    return 1

#: bad a setting of the module that somebody may switch
fast = False

def go_fast() -> None:
    global fast
    fast = True

@zart.workflow("w")
def w() -> zart.Flow[None]:
    if fast:  # -> ZT107
        yield from charge("x")
    yield from charge("y")

#: good tables that are filled while the module is imported
PRICES = {"a": 1}
PRICES["b"] = 2
HANDLERS = {}

def handler(fn):
    HANDLERS[fn.__name__] = fn
    return fn

def register(name: str) -> None:
    HANDLERS[name] = str

register("plain")

@handler
def shout(text: str) -> str:
    return text.upper()

@zart.workflow("w")
def w() -> zart.Flow[int]:
    yield from charge(HANDLERS["shout"]("x"))
    return PRICES["a"]

#: good variables of the workflow that a function inside it changes
@zart.workflow("w")
def w(orders: list[str]) -> zart.Flow[int]:
    done: list[str] = []
    count = 0

    def one(order: str) -> zart.Flow[None]:
        nonlocal count
        done.append((yield from charge(order)))
        count += 1

    for order in orders:
        yield from one(order)
    return count + len(done)

#: good a local that is called like something of the module that changes
done: list[str] = []

def note(x: str) -> None:
    done.append(x)

@zart.workflow("w")
def w() -> zart.Flow[list[str]]:
    done = ["mine"]
    yield from charge("x")
    return done

#: bad a list of the function around the workflow
def make():
    seen = []

    @zart.workflow("w")
    def w() -> zart.Flow[None]:
        seen.append("x")  # -> ZT107
        yield from charge("x")

    return w

#: bad a dictionary and a call as defaults
def helper(a: str, b: dict[str, int] = {}, *, c: list[str] = list()) -> zart.Flow[None]:  # -> ZT108 ZT108
    yield from charge(a)

#: good defaults that cannot change
def helper(a: str, b: tuple[str, ...] = (), c: frozenset[str] = frozenset(), d: None = None) -> zart.Flow[None]:
    yield from charge(a)

#: bad a set of texts that is written out
@zart.workflow("w")
def w() -> zart.Flow[None]:
    for sku in {"a", "b"}:  # -> ZT105
        yield from charge(sku)

#: bad a set by its annotation, of a parameter and of a field
import attrs

@attrs.frozen
class Order:
    tags: set[str]
    notes: "frozenset[str] | None" = None

@zart.workflow("w")
def w(order: Order, skus: frozenset[str]) -> zart.Flow[None]:
    yield from zart.wait([charge(tag) for tag in order.tags])  # -> ZT105
    yield from charge(list(skus)[0])  # -> ZT105
    yield from charge(",".join(order.notes))  # -> ZT105

#: bad sets that are worked out
@zart.workflow("w")
def w(a: dict[str, int], b: dict[str, int]) -> zart.Flow[None]:
    both = set(a) & set(b)
    first, *rest = both  # -> ZT105
    yield from charge(f"{both}")  # -> ZT105
    for key in a.keys() - b.keys():  # -> ZT105
        yield from charge(key)
    yield from charge(both.pop())  # -> ZT105

#: bad a dictionary that is made of a set has its order
@zart.workflow("w")
def w(orders: list[str]) -> zart.Flow[None]:
    known = {order: 1 for order in set(orders)}
    for order in known:  # -> ZT105
        yield from charge(order)
    for order, n in dict.fromkeys(set(orders), 0).items():  # -> ZT105
        yield from charge(f"{order}-{n}")

#: good sets whose order does not matter
@zart.workflow("w")
def w(orders: list[str]) -> zart.Flow[None]:
    known = set(orders)
    known |= {"x"}
    if "a" in known and len(known) > 2 and all(order for order in known):
        yield from charge("a")
    total = sum(len(order) for order in known)
    others = {order.upper() for order in known} | frozenset(order for order in known)
    for order in sorted(known - {"y"}):
        yield from charge(order)
    yield from charge(f"{total} {len(others)} {max(known)} {sorted(list(known))}")

#: good dictionaries and lists have an order
@zart.workflow("w")
def w(orders: dict[str, int]) -> zart.Flow[None]:
    for order in orders:
        yield from charge(order)
    for order in dict.fromkeys(["a", "b"]):
        yield from charge(order)
    for order in orders.keys():
        yield from charge(f"again-{order}")

#: good a name that is sometimes a set and then a list
@zart.workflow("w")
def w(orders: list[str]) -> zart.Flow[None]:
    wanted = {"a", "b"}
    wanted = sorted(wanted)
    for order in wanted:
        yield from charge(order)

#: good a module and a class whose functions are named like those that change a list
import os

class Orders:
    @classmethod
    def add(cls, order: str) -> str:
        return order

def clean(path: str) -> None:
    os.remove(path)
    Orders.add(path)

@zart.workflow("w")
def w(order: str) -> zart.Flow[None]:
    yield from charge(os.path.join("a", Orders.add(order)))

#: good a set that is made a list and sorted, or gone through for what has no order
@zart.workflow("w")
def w(orders: set[str], banned: set[str]) -> zart.Flow[int]:
    listed = list(orders)
    listed.sort()
    for order in listed:
        yield from charge(order)
    count, seen = 0, set()
    for order in orders:
        if order in banned:
            return 0
        count += 1
        seen.add(order)
    return count

#: bad a set that is gone through with a command, or for a list
@zart.workflow("w")
def w(orders: set[str]) -> zart.Flow[list[str]]:
    seen, found = set(), []
    for order in orders:  # -> ZT105
        seen.add((yield from charge(order)))
    for order in orders:  # -> ZT105
        found.append(order)
    return found

#: good the only item of a set, and a sum of lengths
@zart.workflow("w")
def w(orders: set[str]) -> zart.Flow[int]:
    (only,) = orders
    [same] = orders
    size = 0
    for order in orders:
        size += len(order)
    yield from charge(only + same)
    return size

#: bad the first of several items of a set
@zart.workflow("w")
def w(orders: set[str]) -> zart.Flow[None]:
    first, second = orders  # -> ZT105
    (*all_of_them,) = orders  # -> ZT105
    yield from charge(first)

#: good a table that other modules fill by a decorator of this one
HANDLERS = {}

def handler(fn):
    HANDLERS[fn.__name__] = fn
    return fn

@zart.workflow("w")
def w(name: str) -> zart.Flow[None]:
    yield from charge(HANDLERS[name]())

#: bad a set that a step gives, and one that a flow gives
def both(order: str) -> zart.Flow[set[str]]:
    return (yield from tags_of(order)) | {"x"}

@zart.workflow("w")
def w() -> zart.Flow[None]:
    tags = yield from tags_of("a")
    for tag in tags:  # -> ZT105
        yield from charge(tag)
    for tag in (yield from both("b")):  # -> ZT105
        yield from charge(tag)
