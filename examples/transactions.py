"""Transactions: a row and its workflow in one commit, a debit and its record in one, whoever dies in between."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile

import attrs

import zart_core as zart


class TooLittle(Exception):
    """The account holds less."""


@attrs.frozen
class Payment:
    order: str
    account: str
    cents: int


@zart.step("debit", raises=(TooLittle,))
def debit(payment: Payment) -> int:
    """Take the money; committed together with this step's result, so it is taken once."""
    db = zart.transaction(sqlite3.Connection)
    db.execute("UPDATE accounts SET cents = cents - ? WHERE name = ?", (payment.cents, payment.account))
    ((left,),) = db.execute("SELECT cents FROM accounts WHERE name = ?", (payment.account,)).fetchall()
    if left < 0:
        raise TooLittle(f"{-left} cents are missing")  # and nothing was taken
    return int(left)


@zart.step("mark")
def mark(order: str, state: str) -> None:
    db = zart.transaction(sqlite3.Connection)
    db.execute("UPDATE orders SET state = ? WHERE id = ?", (state, order))


@zart.workflow("pay")
def pay(payment: Payment) -> zart.Flow[str]:
    try:
        left = yield from debit(payment)
    except TooLittle as error:
        yield from mark(payment.order, "refused").named("refuse")
        return f"refused: {error}"
    yield from mark(payment.order, "paid")
    return f"paid, {left} left"


def make_tables(path: str) -> None:
    """Tables of our own in the file of the log, which makes it."""
    zart.open_log(f"sqlite:{path}").close()
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE accounts (name TEXT PRIMARY KEY, cents INTEGER NOT NULL)")
        db.execute("CREATE TABLE orders (id TEXT PRIMARY KEY, state TEXT NOT NULL)")
        db.execute("INSERT INTO accounts VALUES ('ada', 100)")


def order(engine: zart.Engine, db: sqlite3.Connection, payment: Payment) -> zart.Handle[str]:
    """Take an order: its row and its workflow are there, or neither."""
    with db:
        db.execute("INSERT INTO orders VALUES (?, 'new')", (payment.order,))
        return engine.start(pay, payment, id=payment.order, connection=db)


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        make_tables(path := f"{place}/shop.db")
        with zart.open(f"sqlite:{path}", [pay]) as engine, contextlib.closing(sqlite3.connect(path)) as db:
            for id in ("order-1", "order-2"):
                print(id, order(engine, db, Payment(id, "ada", cents=70)).result())
            print(db.execute("SELECT id, state FROM orders ORDER BY id").fetchall())


if __name__ == "__main__":
    main()
