"""The worker, forked by `property_tests.warm`: URL [lazy]. Requests and answers are lines of JSON."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg

import zart_core as zart
from property_tests.kill9 import shapes
from zart_core.hosts.ports import open_log
from zart_core.log import EventLog
from zart_stores.file.fs import RealFileSystem
from zart_stores.file.store import open as open_file_log
from zart_stores.sql import postgres


class LazyFileSystem(RealFileSystem):
    """The known-bad one: it says that something is written, and writes it a little later."""

    def __init__(self) -> None:
        super().__init__()
        self.late: list[tuple[int, bytes, int]] = []
        self.lock_late = threading.RLock()
        threading.Thread(target=self.catch_up, daemon=True).start()

    def catch_up(self) -> None:
        while True:
            time.sleep(0.1)
            self.flush()

    def flush(self) -> None:
        with self.lock_late:
            for fd, data, offset in self.late:
                super().pwrite(fd, data, offset)
            self.late.clear()

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        with self.lock_late:
            self.late.append((fd, bytes(data), offset))
        return len(data)

    def sync(self, fd: int) -> None: ...

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        self.flush()
        return super().pread(fd, length, offset)

    def size(self, fd: int) -> int:
        self.flush()
        return super().size(fd)

    def truncate(self, fd: int, size: int) -> None:
        self.flush()
        super().truncate(fd, size)

    def close(self, fd: int) -> None:
        self.flush()
        super().close(fd)

    def rename(self, source: str, target: str) -> None:
        self.flush()
        super().rename(source, target)


class LazyPostgresLog(postgres.PostgresLog):
    """The known-bad one of a server: all of its transactions are one, which it commits from time to time."""

    def __init__(self, *arguments: Any) -> None:
        self.late: psycopg.Connection | None = None
        self.lock_late = threading.RLock()
        super().__init__(*arguments)
        self._quick = False
        threading.Thread(target=self.catch_up, daemon=True).start()

    def catch_up(self) -> None:
        while True:
            time.sleep(0.1)
            with self.lock_late:
                db, self.late = self.late, None
                if db is not None:
                    db.execute(b"COMMIT")
                    self._pool.putconn(db)

    def joined(self) -> psycopg.Connection:
        if self.late is None:
            self.late = self._pool.getconn()
            self.late.execute(self._begin, prepare=False)
        return self.late

    def _transaction(self, action: Callable[[psycopg.Connection], Callable[[], None] | None]) -> None:
        with self.lock_late:
            rest = action(self.joined())
            if rest is not None:
                rest()

    def _read(self, action: Callable[[psycopg.Connection], Any], *, single: bool = False) -> Any:
        with self.lock_late:
            return action(self.joined())


def answer(**parts: Any) -> None:
    """One line to the harness, in one write."""
    sys.stdout.write(json.dumps(parts) + "\n")
    sys.stdout.flush()


def carry_out(engine: zart.Engine, request: dict[str, Any]) -> None:
    """Do what is asked, and acknowledge it once it is durable."""
    match request["op"]:
        case "start":
            workflow = engine.engine.registry[request["shape"]]
            engine.start(workflow, shapes.input_of(request["shape"], request["n"]), id=request["id"])
        case "send":
            try:
                engine.send(request["id"], "number", request["number"], key=request["key"])
            except zart.ExecutionClosed:  # an earlier life accepted it, and it has ended since
                assert request["again"]
        case "cancel":
            engine.cancel(request["id"], "enough")
        case "finish":
            for id in request["ids"]:
                answer(id=id, result=result_of(engine, id))
        case other:
            raise ValueError(other)
    answer(ack=request["number_of"])


def result_of(engine: zart.Engine, id: str) -> Any:
    """How it ended, as JSON."""
    try:
        return engine.get(id).result(120)
    except zart.ExecutionCancelled as error:
        return f"cancelled: {'enough' if 'enough' in str(error) else error}"


def opened(url: str, lazy: bool) -> EventLog:
    """The log, or the known-bad one. The clock of a server's leases is as far ahead as the harness says."""
    if url.startswith("postgresql:"):
        if lazy:
            postgres.PostgresLog = LazyPostgresLog  # type: ignore[misc]  # that is what it is for
        ahead_s = float(os.environ["KILL9_LEASES_AHEAD_S"])
        return postgres.open(url, clock=lambda: time.time() + ahead_s)
    return open_file_log(url, fs=LazyFileSystem()) if lazy else open_log(url)


def main(arguments: list[str]) -> None:
    """Serve until the harness hangs up, or kills."""
    url, lazy = arguments[0], "lazy" in arguments[1:]
    with contextlib.closing(opened(url, lazy)) as log, zart.open(log, shapes.ALL) as engine:
        answer(ready=True)
        for line in sys.stdin:
            carry_out(engine, json.loads(line))
