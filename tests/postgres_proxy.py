"""Somebody between a log and its server who lets a chosen COMMIT go wrong.

Rule 1: it reads the protocol's messages, so that it knows a COMMIT on its way there and its answer on its way back.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

LATE_S = 0.3
FIELDS = b"SPANIC\0VPANIC\0C58030\0Mcould not fsync file\0\0"
LAST_WORD = b"E" + (4 + len(FIELDS)).to_bytes(4) + FIELDS


class Proxy:
    """Listens on a local socket in a directory; `plan` says what happens to the n-th COMMIT from now, from 0.

    "drop": the connection is cut before the server sees it. "swallow": it is cut when the server has answered; "panic":
    and instead of the answer comes the last word of a server that could not sync its log, and restarts. "late":
    it is cut, and what the client had sent already comes to the server LATE_S after that. "held": once `let_go` is set;
    `delivered` is, when the server is through with it. What writes by one statement is a COMMIT, too.
    Counts in `commits`, with `writes_only` but those of transactions that may write; all statements in `statements`;
    in `rounds` how often a client waited for answers.
    """

    def __init__(self, directory: Path, server: Path, *, writes_only: bool = False) -> None:
        self.writes_only = writes_only
        self.statements: list[bytes] = []
        self.rounds = 0
        self.server = str(server / ".s.PGSQL.5432")
        self.directory = directory
        self.plan: dict[int, str] = {}
        self.commits = 0
        self.cut = 0
        self.let_go = threading.Event()
        self.delivered = threading.Event()
        self.lock = threading.Lock()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(directory / ".s.PGSQL.5432"))
        self.listener.listen(64)
        threading.Thread(target=self.accept, daemon=True).start()

    def close(self) -> None:
        self.listener.close()

    def accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(self.server)
            except OSError:
                client.close()
                continue
            Line(self, client, server).start()

    def fate(self) -> str:
        """What is to happen to the COMMIT that comes by now."""
        with self.lock:
            fate = self.plan.pop(self.commits, "pass")
            self.commits += 1
            if fate != "pass":
                self.cut += 1
            return fate


class Line:
    """One connection, both ways."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self.proxy = proxy
        self.client = client
        self.server = server
        self.queries: dict[bytes, bytes] = {}
        """The text of each prepared statement, by its name."""
        self.began = False
        self.reading = False
        self.swallow = False
        self.panic = False
        self.late = False

    def start(self) -> None:
        for run in (self.there, self.back):
            threading.Thread(target=run, daemon=True).start()

    def there(self) -> None:
        """Messages of the client; the first has no type."""
        try:
            sent = messages(self.client, bare=True)
            for first, kind, message in sent:
                self.proxy.rounds += kind in (b"Q", b"S")
                query = None if first else self.query_of(kind, message)
                if query is not None:
                    self.proxy.statements.append(query)
                    self.reading = (
                        query.endswith(b"READ ONLY") if query.startswith(b"BEGIN") else self.reading
                    )
                if self.commits(query):
                    match self.proxy.fate():
                        case "drop":
                            self.hang_up()
                            return
                        case "swallow":
                            self.swallow = True
                        case "panic":
                            self.swallow = self.panic = True
                        case "late" | "held" as fate:
                            self.deliver_late(message, sent, self.proxy.let_go if fate == "held" else None)
                            return
                self.server.sendall(message)
        except OSError:
            pass
        self.hang_up()

    def back(self) -> None:
        """Messages of the server; the answer to a COMMIT is `C` with its name."""
        try:
            for _, kind, message in messages(self.server, bare=False):
                if self.swallow and kind == b"Z":  # it is through with it
                    if self.panic:
                        self.client.sendall(LAST_WORD)
                    self.hang_up()
                    return
                if not self.late and not self.panic:
                    self.client.sendall(message)
        except OSError:
            pass
        if self.late:
            self.proxy.delivered.set()
        self.hang_up()

    def deliver_late(
        self, message: bytes, sent: Iterator[tuple[bool, bytes, bytes]], when: threading.Event | None = None
    ) -> None:
        """The rest of what was sent together, up to its Sync, and the end of the session."""
        rest = [message]
        for _, kind, each in sent:
            rest.append(each)
            if kind == b"S":
                break
        self.late = True
        self.client.shutdown(socket.SHUT_RDWR)
        if when is None:
            time.sleep(LATE_S)
        else:
            when.wait(60)
        self.server.sendall(b"".join(rest) + b"X\0\0\0\4")

    def commits(self, query: bytes | None) -> bool:
        """Whether what is carried out ends a transaction, or is one by itself; those that only read may not count."""
        if query is None:
            return False
        if query.startswith((b"BEGIN", b"COMMIT", b"ROLLBACK")):
            began, self.began = self.began, query.startswith(b"BEGIN")
            return began and query == b"COMMIT" and not (self.reading and self.proxy.writes_only)
        return not self.began and query.startswith(b"WITH guard AS")

    def query_of(self, kind: bytes, message: bytes) -> bytes | None:
        """The statement that a message has carried out: a query, or one that is bound, prepared before or unnamed."""
        body = message[5:]
        if kind == b"Q":
            return body.partition(b"\0")[0]
        if kind == b"P":
            name, query, *_ = body.split(b"\0")
            self.queries[name] = query
        elif kind == b"B":
            _, name, *_ = body.split(b"\0")
            return self.queries.get(name)
        return None

    def hang_up(self) -> None:
        for end in (self.client, self.server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def messages(source: socket.socket, *, bare: bool) -> Iterator[tuple[bool, bytes, bytes]]:
    """Whole messages: whether it is the first, its type, and all its bytes. Plain connections only, no TLS."""
    buffer = b""
    first = bare
    while True:
        head = 4 if first else 5
        while len(buffer) < head or len(buffer) < (size := size_of(buffer, first)):
            chunk = source.recv(1 << 16)
            if not chunk:
                return
            buffer += chunk
        message, buffer = buffer[:size], buffer[size:]
        yield first, b"" if first else message[:1], message
        first = False


def size_of(buffer: bytes, first: bool) -> int:
    """The length of the message at hand."""
    return int.from_bytes(buffer[:4]) if first else 1 + int.from_bytes(buffer[1:5])
