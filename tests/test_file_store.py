"""The file log: the contract, the format, and what a damaged, full or failing disk does."""

import pytest

from zart_core.testing.contract import StoreContract
from zart_core.testing.filesystem import SimulatedFileSystem
from zart_stores.file import store


class TestFileContract(StoreContract):
    durable = True
    shared = False

    @pytest.fixture(autouse=True)
    def place(self, tmp_path):
        self.url = f"file:{tmp_path}/log"
        self.now = 1000.0

    def open(self):
        return store.open(self.url, clock=lambda: self.now)

    def advance(self, seconds):
        self.now += seconds


class TestSimulatedDiskContract(StoreContract):
    durable = True
    shared = False

    @pytest.fixture(autouse=True)
    def place(self):
        self.fs = SimulatedFileSystem()
        self.now = 1000.0

    def open(self):
        return store.open("file:/log", fs=self.fs, clock=lambda: self.now, segment_bytes=4096)

    def advance(self, seconds):
        self.now += seconds
