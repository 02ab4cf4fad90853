#: bad a static name in a loop, in a comprehension, and in a `while`
@zart.step("beat")
def beat() -> None: ...

@zart.workflow("w")
def w(orders: list[str]) -> zart.Flow[None]:
    for order in orders:
        yield from beat()  # -> ZT305
    yield from zart.wait([beat() for _ in orders])  # -> ZT305
    while orders:
        orders.pop()
        yield from zart.now("now")  # -> ZT305

#: bad a template whose argument does not vary, or varies with the wrong loop
@zart.workflow("w")
def w(orders: list[str], order: str) -> zart.Flow[None]:
    for each in orders:
        yield from charge(order)  # -> ZT305
    for each in orders:
        for _ in range(3):
            yield from charge(each)  # -> ZT305

#: bad a name by .named() that does not vary
@zart.workflow("w")
def w(orders: list[str]) -> zart.Flow[None]:
    for order in orders:
        yield from charge(order).named("charge")  # -> ZT305
        yield from zart.wait_for_event("paid", str, name="paid")  # -> ZT305

#: good names that vary: templates, formats, counters, scopes
@zart.workflow("w")
def w(orders: list[str]) -> zart.Flow[None]:
    n = 0
    for order in orders:
        n += 1
        yield from charge(order)
        yield from zart.sleep(f"nap-{n}", 1)
        yield from charge("x").named(f"again-{order}")
        yield from zart.scope(f"{order}", helper())
        yield from zart.wait_for_event("paid", str)
        yield from zart.child(child)
        yield from zart.version("since", 2)
    yield from zart.wait([charge(order).named(f"{i}") for i, order in enumerate(orders)])

def helper() -> zart.Flow[None]:
    yield from zart.sleep("inside", 1)

@zart.workflow("child")
def child() -> zart.Flow[None]:
    yield from zart.sleep("nap", 1)

#: good a loop that is left after the command
@zart.workflow("w")
def w(orders: list[str]) -> zart.Flow[str]:
    for order in orders:
        if order.startswith("x"):
            yield from charge("x")
            break
    for order in orders:
        if order:
            return (yield from charge("y"))
    while True:
        yield from zart.sleep("once", 1)
        if orders:
            return "a"
        else:
            raise ValueError

#: good a condition that may hold in one round only: a flag, what is there by then, one value of what the loop binds
@zart.step("login")
def login() -> str: ...

@zart.workflow("w")
def w(orders: list[str]) -> zart.Flow[None]:
    first, token, count = True, None, 0
    for n, order in enumerate(orders):
        if first:
            first = False
            yield from charge("first")
        if token is None and order:
            token = yield from login()
        if count > 0:
            yield from charge(order)
        else:
            yield from charge("none so far")
            count += 1
        if n == 0 and order:
            yield from charge("zero")
        match n:
            case 1:
                yield from charge("one")

#: bad a condition that may well hold again
@zart.workflow("w")
def w(orders: list[str], last: str) -> zart.Flow[None]:
    for n, order in enumerate(orders):
        if order.startswith("x"):
            txn = yield from charge("x")  # -> ZT305
            zart.logger.info(txn)
        if order:
            order = order.strip()
            yield from charge("stripped")  # -> ZT305
        if n != 0:
            yield from charge("later")  # -> ZT305
        else:
            yield from charge(order)
        if last == "x":
            yield from charge("last")  # -> ZT305

#: bad a loop that looks as though it were left
@zart.workflow("w")
def w(orders: list[str]) -> zart.Flow[str]:
    while True:
        try:
            return (yield from charge("x"))  # -> ZT305
        except ValueError:
            zart.logger.info("again")

#: bad a `continue` before the way out
@zart.workflow("w")
def w(orders: list[str]) -> zart.Flow[None]:
    for order in orders:
        txn = yield from charge("x")  # -> ZT305
        if not txn:
            continue
        break

#: good a loop that ends with a hand-over to the next run
@zart.workflow("w")
def w(n: int) -> zart.Flow[None]:
    while True:
        yield from zart.sleep("pause", 60)
        yield from w.continue_as_new(n + 1)

#: bad a flow with a static name, in a loop
def helper(order: str) -> zart.Flow[None]:
    yield from charge(order)
    yield from zart.sleep("settle", 1)

@zart.workflow("w")
def w(orders: list[str]) -> zart.Flow[None]:
    for order in orders:
        yield from helper(order)  # -> ZT305

#: good a flow whose names are made of its parameter
def helper(order: str) -> zart.Flow[None]:
    yield from charge(order)
    yield from zart.sleep(f"settle-{order}", 1)

@zart.workflow("w")
def w(orders: list[str]) -> zart.Flow[None]:
    for order in orders:
        yield from helper(order)
    yield from zart.wait([helper(f"again-{order}") for order in orders])

#: good a name that is worked out, or that the loop changes from inside
class Cart:
    n = 0

    def more(self) -> None:
        self.n += 1

@zart.step("cart-{cart.n}")
def ship(cart: Cart) -> None: ...

@zart.workflow("w")
def w(orders: list[str]) -> zart.Flow[None]:
    cart = Cart()
    names = iter(orders)
    numbers: list[int] = []
    while numbers != [1, 2]:
        cart.more()
        yield from ship(cart)
        yield from charge(next(names))
        yield from charge(str(len(numbers)))
        numbers.append(len(numbers))

#: bad the same name twice in a row
@zart.workflow("w")
def w() -> zart.Flow[None]:
    yield from charge("a")
    yield from charge("a")  # -> ZT305
    yield from zart.sleep("s", 1)
    yield from zart.now("s")  # -> ZT305

#: good the same name in two branches, or after a change of arguments
@zart.workflow("w")
def w(order: str) -> zart.Flow[None]:
    if order:
        yield from charge("a")
    else:
        yield from charge("a")
    yield from charge("b")
    yield from charge("c")
    yield from charge("d").named("b2")
    try:
        yield from charge("e")
    except ValueError:
        yield from charge("f")

#: good a step whose name is made by a function of the program
def durable(name: str):
    return zart.step(f"{name}-{{order}}")

@durable("pay")
def pay(order: str) -> str:
    return str(time.time())

@zart.workflow("w")
def w(orders: list[str]) -> zart.Flow[None]:
    for order in orders:
        yield from pay(order)

#: bad a flow with a name that is made of a constant, in a loop
PREFIX = "every"

def helper() -> zart.Flow[None]:
    yield from zart.sleep(f"{PREFIX}-nap", 1)

@zart.workflow("w")
def w(orders: list[str]) -> zart.Flow[None]:
    for order in orders:
        yield from helper()  # -> ZT305

#: good a flow inside, whose name is made of what the loop around it binds, or that makes commands for later
@zart.workflow("w")
def w(orders: list[str]) -> zart.Flow[None]:
    for order in orders:
        def one() -> zart.Flow[None]:
            yield from charge(order)

        yield from one()
        yield from late(order)

def late(order: str) -> zart.Flow[None]:
    naps = {"x": lambda: zart.sleep("nap", 1)}
    yield from naps.get(order, lambda: charge(order))()
