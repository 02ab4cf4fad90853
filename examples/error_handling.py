"""Errors as answers, errors as values, retries that run out, and what to do when a run fails."""

import attrs

import zart_core as zart


class InsufficientFunds(Exception):
    def __init__(self, balance: int, needed: int) -> None:
        super().__init__(f"{balance} of {needed}")
        self.balance, self.needed = balance, needed


@attrs.frozen
class Purchase:
    sku: str
    cents: int


@zart.step("reserve-inventory")
def reserve_inventory(sku: str) -> str:
    if not sku:
        raise LookupError("no such article")
    return f"reserved-{sku}"


@zart.step("check-balance", raises=(InsufficientFunds,))
def check_balance(needed: int) -> int:
    if needed > 10_000:
        raise InsufficientFunds(10_000, needed)
    return 10_000 - needed


@zart.step("charge-card", retry=zart.Retry.fixed(2, "1s"))
def charge_card(cents: int) -> str:
    if cents == 666:
        raise ConnectionError("the bank does not answer")
    return f"charged {cents}"


@zart.step("refund")
def refund(sku: str) -> str:
    return f"refunded {sku}"


def explain(purchase: Purchase, failure: Exception) -> str:
    tried = failure.attempts if isinstance(failure, zart.RetryExhausted) else 0
    return f"no luck in {tried} attempts" if tried else f"failed: {failure}"


def refund_it(purchase: Purchase, failure: Exception) -> zart.Flow[str]:
    return f"{yield from refund(purchase.sku)}; {explain(purchase, failure)}"


def buy(purchase: Purchase) -> zart.Flow[str]:
    yield from reserve_inventory(purchase.sku)
    match (yield from zart.outcome(check_balance(purchase.cents))):
        case zart.Err(InsufficientFunds(balance=balance, needed=needed)):
            return f"{needed - balance} cents are missing"
        case zart.Err(error):
            raise error
        case zart.Ok(left):
            return f"{yield from charge_card(purchase.cents)}, {left} left"


purchase_mapped = zart.workflow("purchase-mapped", on_failure=explain)(buy)
purchase_refunded = zart.workflow("purchase-refunded", on_failure=refund_it)(buy)


def main() -> None:
    orders = Purchase("sku-1", 1999), Purchase("sku-2", 20_000), Purchase("sku-3", 666), Purchase("", 1)
    with zart.open("memory:", [purchase_mapped, purchase_refunded]) as engine:
        handles = [engine.start(buy_it, o) for o in orders for buy_it in (purchase_mapped, purchase_refunded)]
        print(*(handle.result() for handle in handles), sep="\n")


if __name__ == "__main__":
    main()
