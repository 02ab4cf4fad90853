"""Order fulfilment: a retried charge, a pause, a message from the warehouse, a deadline over all of it."""

from __future__ import annotations

import tempfile
from datetime import timedelta

import attrs

import zart_core as zart


@attrs.frozen
class Order:
    id: str
    sku: str
    cents: int
    settle_s: float = 60.0


@attrs.frozen
class Shipment:
    tracking: str


@attrs.frozen
class Receipt:
    order: str
    txn: str
    tracking: str


class CardDeclined(Exception):
    """The bank said no: an answer, so it is not retried."""


@zart.step("validate-address")
def validate_address(order_id: str) -> bool:
    return order_id != ""


@zart.step("charge-card", retry=zart.Retry.exponential(3, timedelta(seconds=2)), raises=(CardDeclined,))
async def charge_card(order_id: str, cents: int) -> str:
    if cents > 100_000:
        raise CardDeclined(f"{cents} cents is over the limit")
    return f"txn-{order_id}"


@zart.step("reserve-inventory")
def reserve_inventory(sku: str) -> int:
    return len(sku)


@zart.workflow("order-fulfilment", timeout=timedelta(minutes=30))
def order_fulfilment(order: Order) -> zart.Flow[Receipt]:
    yield from validate_address(order.id)
    txn = yield from charge_card(order.id, order.cents)
    yield from reserve_inventory(order.sku)
    yield from zart.sleep("settle", order.settle_s)
    shipment = yield from zart.wait_for_event("shipment-ready", Shipment, timeout=timedelta(hours=1))
    return Receipt(order.id, txn, shipment.tracking)


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as place,
        zart.open(f"sqlite:{place}/orders.db", [order_fulfilment]) as engine,
    ):
        order = Order("42", "sku-9", 1999, settle_s=0.2)
        handle = engine.start(order_fulfilment, order, id="order-42")
        handle.send("shipment-ready", {"tracking": "1Z999"}, key="warehouse-7")
        print("receipt:", handle.result())
        again = engine.start(order_fulfilment, order, id="order-42")
        print("the same order again:", "charged twice" if again.created else "already done")


if __name__ == "__main__":
    main()
