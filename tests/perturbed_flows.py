"""Workflows that look at what they may not, one for each perturbation, and some that do not: for test_perturbed.py."""

from __future__ import annotations

import datetime
import locale
import os
import random
import secrets
import time
import uuid

import zart_core as zart

IMPORTED = time.monotonic()
counted: list[int] = []


@zart.step("say-{x}")
def say(x: str) -> str:
    return x


@zart.workflow("clock")
def clock():
    yield from say(str(datetime.datetime.now(datetime.UTC).year))


@zart.workflow("today")
def today():
    yield from say(datetime.date.today().isoformat())


@zart.workflow("monotonic")
def monotonic():
    yield from say(str(IMPORTED))


@zart.workflow("chance")
def chance():
    yield from say("first")
    yield from say(str(random.random()))


@zart.workflow("secret")
def secret():
    yield from zart.sleep(secrets.token_hex(2), 1)


@zart.workflow("ids")
def ids():
    return str(uuid.uuid4())
    yield


@zart.workflow("region")
def region():
    if os.environ.get("ZART_REGION_OF_NOBODY"):
        yield from say("there")
    yield from say("here")


@zart.workflow("folder")
def folder():
    yield from say(os.getcwd())


@zart.workflow("zone")
def zone():
    yield from say(str(datetime.datetime.fromtimestamp(0).hour))


@zart.workflow("language")
def language():
    yield from say(locale.setlocale(locale.LC_ALL))


@zart.workflow("sets")
def sets():
    for x in {"a", "b", "c", "d", "e", "f"}:
        yield from say(x)


@zart.workflow("state")
def state():
    counted.append(1)
    yield from say(str(len(counted)))


@zart.workflow("address")
def address():
    yield from say(str(id(object())))


@zart.workflow("both")
def both():
    yield from say(f"{random.random()} {os.getcwd()}")


@zart.workflow("raises")
def raises():
    yield from say("a")
    raise ValueError(int(os.environ.get("ZART_LIMIT_OF_NOBODY", "3")))


@zart.workflow("good")
def good(tags: set[str]):
    at = yield from zart.now("at")
    drawn = yield from zart.random("drawn")
    yield from zart.wait([say(tag) for tag in sorted(tags)])
    yield from say(f"{at} {drawn} {(yield from zart.uuid('id'))}")
    try:
        yield from zart.child(fails)
    except zart.ZartError:
        return tags


@zart.workflow("fails")
def fails():
    yield from say("x")
    raise ValueError("on purpose")


class Amount:
    """No plain codec knows it."""

    def __init__(self, cents: int) -> None:
        self.cents = cents


amounts = zart.Codec()
amounts.converter.register_unstructure_hook(Amount, lambda amount: amount.cents)
amounts.converter.register_structure_hook(Amount, lambda data, _: Amount(int(data)))


@zart.workflow("pays")
def pays(amount: Amount) -> zart.Flow[Amount]:
    yield from say(str(amount.cents))
    return amount


@zart.workflow("overpays")
def overpays(amount: Amount) -> zart.Flow[Amount]:
    yield from say(str(amount.cents + random.random()))
    return amount
