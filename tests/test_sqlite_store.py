"""The SQLite log: the contract, and what is its own: durability, damage, several processes, full disks."""

import pytest

from zart_core.testing.contract import StoreContract
from zart_stores.sql import sqlite


class TestSqliteContract(StoreContract):
    @pytest.fixture(autouse=True)
    def place(self, tmp_path):
        self.url = f"sqlite:{tmp_path}/log.db"
        self.now = 1000.0

    def open(self):
        return sqlite.open(self.url, clock=lambda: self.now)

    def advance(self, seconds):
        self.now += seconds
