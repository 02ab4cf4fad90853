"""Somebody between clients and a server who lends a connection for one transaction, as PgBouncer does by transactions.

Rule 1: each transaction gets another connection than the one before: nothing left on a connection is found again.
Rule 2: what the server says while nobody has the connection, such as a notification, is thrown away.
Rule 3: a connection with a parameter that no pooler can keep for a client is refused.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections import deque
from pathlib import Path

from tests.postgres_proxy import size_of

CONNECTIONS = 4
CANCEL = 80877102
KEPT = {b"user", b"database", b"client_encoding", b"application_name", b"DateStyle", b"TimeZone"}
"""Startup parameters that such a pooler knows how to keep."""


class Gone(Exception):
    """One end has hung up."""


class End:
    """One end of a connection, read by whole messages."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self.buffer = b""

    def read(self, *, bare: bool = False) -> list[bytes]:
        """The messages that are there after one more look; the first one of a client is bare: it has no type."""
        chunk = self.channel.recv(1 << 16)
        if not chunk:
            raise Gone
        self.buffer += chunk
        found = []
        while len(self.buffer) >= 5 and len(self.buffer) >= (size := size_of(self.buffer, bare)):
            found.append(self.buffer[:size])
            self.buffer = self.buffer[size:]
        return found

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.channel.shutdown(socket.SHUT_RDWR)
        self.channel.close()


class Pooler:
    """Listens on a local socket in a directory. `transactions` counts what was lent, `dropped` what nobody heard."""

    def __init__(self, directory: Path, server: Path) -> None:
        self.server = str(server / ".s.PGSQL.5432")
        self.transactions = 0
        self.dropped = 0
        self.free: deque[End] = deque()
        self.changed = threading.Condition()
        self.made = 0
        self.greeting: list[bytes] = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(directory / ".s.PGSQL.5432"))
        self.listener.listen(64)
        threading.Thread(target=self.accept, daemon=True).start()

    def close(self) -> None:
        """Hang up on the server; clients notice when they ask for something."""
        self.listener.close()
        with self.changed:
            for connection in self.free:
                connection.close()
            self.free.clear()

    def accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=Client(self, End(client)).serve, daemon=True).start()

    def connect(self, startup: bytes) -> End:
        """A new connection to the server, which has said that it is ready."""
        channel = socket.socket(socket.AF_UNIX)
        channel.connect(self.server)
        channel.sendall(startup)
        server, greeting = End(channel), []
        while not greeting or greeting[-1][:1] != b"Z":
            greeting += server.read()
        self.greeting = self.greeting or greeting
        return server

    def lend(self, startup: bytes) -> End:
        """The connection that has been free for longest; a new one while there are few."""
        with self.changed:
            self.transactions += 1
            if self.made < CONNECTIONS:
                self.made += 1
                return self.connect(startup)
            self.changed.wait_for(lambda: self.free)
            lent = self.free.popleft()
        while select.select([lent.channel], [], [], 0)[0]:
            self.dropped += len(lent.read())
        return lent

    def take_back(self, connection: End) -> None:
        with self.changed:
            self.free.append(connection)
            self.changed.notify()

    def lose(self, connection: End) -> None:
        """It was left in the middle of a transaction, or the server hung up."""
        connection.close()
        with self.changed:
            self.made -= 1


class Client:
    """One client, and the connection that it has for a transaction."""

    def __init__(self, pooler: Pooler, client: End) -> None:
        self.pooler = pooler
        self.client = client
        self.startup = b""
        self.lent: End | None = None
        self.open = False
        """Whether messages went to the server that no Sync has ended yet."""
        self.owed = 0
        """How often the server has still to say that it is ready."""

    def serve(self) -> None:
        try:
            if self.greet():
                while True:
                    self.pass_on()
        except (Gone, OSError):
            pass
        self.client.close()
        if self.lent is not None:
            self.pooler.lose(self.lent)

    def greet(self) -> bool:
        """Let a client in, with what the server said to somebody else; False for one that is refused."""
        while not (found := self.client.read(bare=True)):
            pass
        (self.startup,) = found
        if int.from_bytes(self.startup[4:8]) == CANCEL:
            return False
        names = set(self.startup[8:].split(b"\0")[::2]) - {b""}
        if names - KEPT:
            text = b"SFATAL\0C08P01\0Munsupported startup parameter: " + b", ".join(names - KEPT) + b"\0\0"
            self.client.channel.sendall(b"E" + (4 + len(text)).to_bytes(4) + text)
            return False
        if not self.pooler.greeting:
            self.pooler.take_back(self.pooler.lend(self.startup))
        self.client.channel.sendall(b"".join(self.pooler.greeting))
        return True

    def pass_on(self) -> None:
        """Whatever comes next, from either side."""
        ends = [self.client] if self.lent is None else [self.client, self.lent]
        ready, _, _ = select.select([end.channel for end in ends], [], [])
        if self.client.channel in ready:
            for message in self.client.read():
                self.there(message)
        elif self.lent is not None:
            for message in self.lent.read():
                self.back(self.lent, message)

    def there(self, message: bytes) -> None:
        """A message of the client."""
        kind = message[:1]
        if kind == b"X":
            raise Gone
        if self.lent is None:
            self.lent = self.pooler.lend(self.startup)
        self.open = kind not in (b"Q", b"S")
        self.owed += not self.open
        self.lent.channel.sendall(message)

    def back(self, lent: End, message: bytes) -> None:
        """A message of the server; when it is ready and in no transaction, the connection is another's."""
        self.client.channel.sendall(message)
        if message[:1] == b"Z":
            self.owed -= 1
            if message[5:6] == b"I" and not self.owed and not self.open:
                self.lent = None
                self.pooler.take_back(lent)
