"""Checks of a store: what it does in transactions that it shares with users, where it offers any (`Transactional`).

Rule 1: users' connections are asked for `execute`, `commit`, `rollback` and `close`, with plain SQL and nothing else.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator
from typing import Any

from zart_core.errors import InvalidUse
from zart_core.events import Ok
from zart_core.log import Appended, EventLog, Rejected, Transaction, Transactional
from zart_core.testing.contract_base import Contract, bare
from zart_core.testing.contract_report import Differs, checks, raising, short
from zart_core.testing.contract_writes import claimed, expect, new, records, standing, turn, write

PATIENCE_S = 20.0
LIMIT_S = 5.0
INSERT = "INSERT INTO contract_rows VALUES ('mine')"


@checks
class TransactionChecks(Contract):
    """What it does in transactions that it shares with users."""

    def connect(self) -> Any:
        """A user's own connection to the log's database, where transactions begin by themselves."""
        self.needs(False, "needs connect()")

    # ------------------------------------------------ starting

    def test_created_within(self, log: EventLog) -> None:
        """L1: what is created in a user's transaction is there with its commit, not before, nobody's, and due."""
        with self.user(log) as db:
            db.execute(INSERT)
            created = self.transactional(log).create_within(db, new("a"))
            expect((isinstance(created, Ok) and created.value.created), True, "a creation in a transaction")
            expect(log.summary("a"), None, "before the commit")
            db.commit()
            expect(standing(log).position, 1)
            expect(self.rows(), 1, "rows of the user after the commit")
            expect(claimed(log), ["a"], "what is due after the commit")

    def test_not_created_within(self, log: EventLog) -> None:
        """L1: what is created in a transaction that is rolled back is nowhere, and its id is free."""
        with self.user(log) as db:
            db.execute(INSERT)
            self.transactional(log).create_within(db, new("a"))
            db.rollback()
            expect((log.summary("a"), self.rows()), (None, 0), "after the rollback")
            write(log, new("a"))

    def test_created_within_again(self, log: EventLog) -> None:
        """L9: in a transaction too, the same again changes nothing, another is refused, and the transaction goes on."""
        write(log, new("a"))
        with self.user(log) as db:
            db.execute(INSERT)
            again = self.transactional(log).create_within(db, new("a"))
            other = self.transactional(log).create_within(db, new("a", workflow="another"))
            db.commit()
            expect(isinstance(again, Ok) and not again.value.created, True, "the same again")
            expect(reason(other), "conflict", "another with the same id")
            expect((self.rows(), standing(log).position), (1, 1))

    # ------------------------------------------------ steps

    def test_step_committed(self, log: EventLog) -> None:
        """L1: what a step wrote and the turn that records it are there together, and not before."""
        with self.begun(log) as transaction:
            transaction.connection.execute(INSERT)
            transaction.seal()
            expect(self.rows(), 0, "rows of the step before its commit")
            expect([type(each) for each in transaction.commit([self.turn(log)])], [Ok])
            expect((self.rows(), standing(log).position), (1, 2))

    def test_step_rolled_back(self, log: EventLog) -> None:
        """L1: what a step wrote in a transaction that was rolled back is nowhere, and it commits nothing any more."""
        with self.begun(log) as transaction:
            transaction.connection.execute(INSERT)
            transaction.roll_back("enough")
            transaction.roll_back("twice is once")
            expect(reason(transaction.commit([self.turn(log)])[0]), "unavailable")
            expect((self.rows(), standing(log).position), (0, 1))

    def test_step_of_a_stale_worker(self, log: EventLog) -> None:
        """L2: a turn of an old fence is refused in a transaction too, and what its step wrote is rolled back (F15)."""
        with self.begun(log) as transaction:
            transaction.connection.execute(INSERT)
            transaction.seal()
            stale = turn("a", 1, records=records("X", at=2.0), fence=standing(log).fence - 1)
            expect(reason(transaction.commit([stale])[0]), "stale")
            expect((self.rows(), standing(log).position), (0, 1))

    def test_step_with_a_part_that_is_refused(self, log: EventLog) -> None:
        """L1: where one write of the batch is refused nothing of it is there, and no outcome is Ok."""
        with self.begun(log) as transaction:
            transaction.connection.execute(INSERT)
            transaction.seal()
            stale = turn("b", 0, records=records("X", at=2.0), fence=1)
            outcomes = transaction.commit([self.turn(log), stale])
            expect([type(each) for each in outcomes], [Rejected, Rejected])
            expect((self.rows(), standing(log).position), (0, 1))

    def test_step_that_is_over(self, log: EventLog) -> None:
        """L1: the connection of a step neither commits nor rolls back, and is refused when the step has ended."""
        with self.begun(log) as transaction:
            db = transaction.connection
            with raising(InvalidUse):
                db.commit()
            with raising(InvalidUse):
                db.rollback()
            db.execute(INSERT)
            transaction.seal()
            with raising(InvalidUse):
                db.execute(INSERT)
            transaction.commit([self.turn(log)])
            with raising(InvalidUse):
                db.execute(INSERT)
            expect(self.rows(), 1)

    def test_step_over_its_limit(self, log: EventLog) -> None:
        """L1: a transaction over its limit is rolled back by itself: the step is told, and others can write."""
        with self.begun(log, limit_s=0.05) as transaction:
            transaction.connection.execute(INSERT)
            end = time.monotonic() + PATIENCE_S
            with contextlib.suppress(InvalidUse):
                while time.monotonic() < end:
                    transaction.connection.execute("SELECT 1")
                raise Differs("InvalidUse", "a connection that goes on", "a transaction over its limit")
            write(log, self.turn(log))
            with raising(InvalidUse):
                transaction.seal()
            expect((self.rows(), standing(log).position), (0, 2))

    # ------------------------------------------------ for the checks

    def transactional(self, log: EventLog) -> Transactional:
        """The store as one that shares its transactions; else the check is left out."""
        store = bare(log)
        self.needs(isinstance(store, Transactional), "it shares no transactions")
        assert isinstance(store, Transactional)
        return store

    @contextlib.contextmanager
    def user(self, log: EventLog) -> Generator[Any]:
        """A user's connection, with an empty table of theirs beside the log's."""
        self.transactional(log)
        with contextlib.closing(self.connect()) as db:
            db.execute("DROP TABLE IF EXISTS contract_rows")
            db.execute("CREATE TABLE contract_rows (name VARCHAR(20))")
            db.commit()
            yield db
            db.rollback()

    @contextlib.contextmanager
    def begun(self, log: EventLog, limit_s: float = LIMIT_S) -> Generator[Transaction]:
        """A transaction for a step of execution a, which is claimed; b is not."""
        with self.user(log):
            write(log, new("a"))
            claimed(log)
            write(log, new("b"))
            transaction = self.transactional(log).begin(limit_s=limit_s)
            try:
                yield transaction
            finally:
                transaction.roll_back("the check is over")

    def rows(self) -> int:
        """How many rows of the user's others can see."""
        with contextlib.closing(self.connect()) as db:
            ((count,),) = db.execute("SELECT count(*) FROM contract_rows").fetchall()
            return int(count)

    def turn(self, log: EventLog) -> Any:
        """The next turn of a."""
        found = standing(log)
        return turn("a", found.position, records=records("X", at=2.0), fence=found.fence)


def reason(outcome: Appended) -> str:
    """The word that says why something was refused."""
    if not isinstance(outcome, Rejected):
        raise Differs("Rejected", short(outcome))
    return outcome.reason.partition(":")[0].partition(" ")[0]
