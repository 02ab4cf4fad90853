"""Scenario 10: an order and its workflow in one commit, a debit and its record in one; whoever dies, it moves once."""

import contextlib
import json
import os
import random
import sqlite3
import subprocess
import sys

import pytest

import zart_core as zart
from examples.transactions import Payment, make_tables, order, pay

SEED = int(os.environ.get("ZART_SEED", random.randrange(1 << 32)))
DEATHS = 300 if os.environ.get("ZART_DEEP") else 25
LINES_MIN = 180


@pytest.fixture
def path(tmp_path):
    make_tables(path := f"{tmp_path}/shop.db")
    return path


def tables(path):
    """The account, and the state of every order."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        ((cents,),) = db.execute("SELECT cents FROM accounts").fetchall()
        return cents, dict(db.execute("SELECT id, state FROM orders").fetchall())


def test_paid_and_refused(path):
    """What is taken is taken once; what cannot be taken leaves nothing behind."""
    with zart.open(f"sqlite:{path}", [pay]) as engine, contextlib.closing(sqlite3.connect(path)) as db:
        assert order(engine, db, Payment("a", "ada", 70)).result("20s") == "paid, 30 left"
        assert order(engine, db, Payment("b", "ada", 70)).result("20s") == "refused: 40 cents are missing"
    assert tables(path) == (30, {"a": "paid", "b": "refused"})


def test_an_order_that_is_refused_starts_nothing(path):
    """A row that cannot be written takes the execution with it."""
    with zart.open(f"sqlite:{path}", [pay]) as engine, contextlib.closing(sqlite3.connect(path)) as db:
        order(engine, db, Payment("a", "ada", 70)).result("20s")
        with pytest.raises(sqlite3.IntegrityError), db:
            engine.start(pay, Payment("b", "ada", 1), id="b", connection=db)
            db.execute("INSERT INTO orders VALUES ('a', 'new')")
        assert [found.id for found in engine.list().items] == ["a"]
    assert tables(path) == (30, {"a": "paid"})


def test_killed_at_any_line(tmp_path):
    """A process dies at a line of what makes the transactions, another goes on: both or neither, once."""
    print(f"seed {SEED}")
    command = [sys.executable, "-m", "tests.dying_payer", str(tmp_path), str(SEED), str(DEATHS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["wrong"] == [], f"seed {SEED}"
    assert told["lines"] >= LINES_MIN
    assert told["deaths"] >= min(DEATHS, told["lines"]) * 0.8
