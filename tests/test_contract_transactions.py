"""The contract's checks of shared transactions: SQLite and PostgreSQL keep them, stores with a defect do not."""

import sqlite3

import psycopg
import pytest

from tests.postgres import running
from zart_core.testing import check_store
from zart_core.testing.contract import StoreContract
from zart_core.testing.relay import Relay
from zart_stores.sql import postgres, sqlite

ONLY = ("created_within", "step_")


@pytest.fixture(scope="module")
def server():
    with running() as started:
        yield started


class OnSqlite(StoreContract):
    """With connections of a user's."""

    def connect(self):
        return sqlite3.connect(self.place / "log.db", timeout=20)


def report_of(relay=None):
    def opened(place):
        log = sqlite.open(f"sqlite:{place}/log.db")
        return log if relay is None else relay(log)

    return [check_store(opened, contract=OnSqlite, only=only) for only in ONLY]


def test_sqlite_keeps_them():
    """Every check is made, and kept."""
    for report in report_of():
        report.check()
        assert all(result.verdict == "kept" for result in report.results), str(report)


def test_postgres_keeps_them(server):
    """The same, on a server."""

    class OnPostgres(StoreContract):
        def connect(self):
            return psycopg.connect(server.dsn, options="-c search_path=public")

    def opened(place):
        return postgres.open(server.url("c" + "".join(c for c in place.name.lower() if c.isalnum())))

    for only in ONLY:
        report = check_store(opened, contract=OnPostgres, only=only)
        report.check()
        assert all(result.verdict == "kept" for result in report.results), str(report)


class Shares(Relay):
    """Passes on what is shared."""

    def create_within(self, connection, new):
        return self.log.create_within(connection, new)

    def begin(self, *, limit_s):
        return self.log.begin(limit_s=limit_s)


class CommitsAtOnce(Shares):
    """Commits the user's transaction with the creation."""

    def create_within(self, connection, new):
        outcome = self.log.create_within(connection, new)
        connection.commit()
        return outcome


class Around:
    """A transaction, as it is."""

    def __init__(self, real):
        self.real = real
        self.connection = real.connection

    def seal(self):
        self.real.seal()

    def commit(self, batch):
        return self.real.commit(batch)

    def roll_back(self, why):
        self.real.roll_back(why)

    def is_weather(self, error):
        return self.real.is_weather(error)


class KeepsTheRefused(Shares):
    """Commits what the step wrote although its turn is refused."""

    def begin(self, *, limit_s):
        class Keeping(Around):
            def commit(self, batch):
                self.connection._set_guard(on=False)
                sqlite3.Cursor(self.connection).execute("COMMIT")
                sqlite3.Cursor(self.connection).execute("BEGIN IMMEDIATE")
                return self.real.commit(batch)

        return Keeping(self.log.begin(limit_s=limit_s))


class AppendsApart(Shares):
    """Appends the turn in a commit of its own, after what the step wrote was rolled back."""

    def begin(self, *, limit_s):
        log = self.log

        class Apart(Around):
            def commit(self, batch):
                self.real.roll_back("its turn goes apart")
                return log.append(batch)

        return Apart(self.log.begin(limit_s=limit_s))


class NeverEnds(Shares):
    """Grants every transaction all the time there is, and forgets to shut it."""

    def begin(self, *, limit_s):
        class Open(Around):
            def seal(self):
                pass

        return Open(self.log.begin(limit_s=9.0))


@pytest.mark.parametrize(
    ("store", "broken"),
    [
        (CommitsAtOnce, {"test_created_within", "test_not_created_within"}),
        (KeepsTheRefused, {"test_step_of_a_stale_worker", "test_step_with_a_part_that_is_refused"}),
        (
            AppendsApart,
            {"test_step_committed", "test_step_rolled_back", "test_step_with_a_part_that_is_refused"},
        ),
        (NeverEnds, {"test_step_that_is_over"}),
    ],
)
def test_a_broken_store_is_rejected(store, broken):
    """Each is found by the checks that its defect breaks."""
    found = {result.check for report in report_of(store) for result in report.broken}
    assert broken <= found
