"""Zart and its peers at the same work, in turns; `make bench-peers` installs them and calls this."""

from __future__ import annotations

import argparse
import itertools
import json
import socket
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs
import psycopg

from benchmarks.measuring import Sizes
from benchmarks.report import machine
from benchmarks.stage import Stage, staged

PACKAGES = ("dbos", "durabletask", "absurd-sdk")
LIMIT_S = 240
"""How long one measurement may take."""


@attrs.frozen
class Task:
    """One piece of work, and how a figure for it is said."""

    name: str
    title: str
    n: int
    per: str
    """What one unit is."""


TASKS = (
    Task("sequential", "sequential steps", 1000, "step"),
    Task("many", "500 workflows of 5 steps at once", 500, "workflow"),
    Task("fan", "fan-out and fan-in of 1,000 steps", 1000, "step"),
    Task("replay", "restart and replay of 10,000 steps, to the end", 10_000, "step"),
    Task("start", "start to result", 50, "execution"),
    Task("event", "event to finish", 50, "execution"),
    Task("suspended", "10,000 suspended", 10_000, "execution"),
)


@attrs.frozen
class Setting:
    """Where it is measured, and who can be there."""

    title: str
    engines: Sequence[str]
    durable: bool = True


SETTINGS = {
    "postgresql": Setting("PostgreSQL", ("zart", "dbos", "absurd")),
    "sqlite": Setting("SQLite", ("zart", "dbos")),
    "memory": Setting("memory, nothing durable", ("zart", "durabletask"), durable=False),
}


class Peers:
    """Runs measurements, each in a process of its own."""

    def __init__(self, stage: Stage, python: Path) -> None:
        self.stage = stage
        self.python = python
        self.numbers = itertools.count()

    def url(self, setting: str, engine: str) -> str:
        """An empty store of its own."""
        name = f"peer{next(self.numbers)}"
        if setting == "postgresql":
            with psycopg.connect(self.stage.server.dsn, autocommit=True) as db:
                db.execute(f"CREATE DATABASE {name}".encode())
            return self.stage.server.dsn.replace("/postgres?", f"/{name}?")
        if setting == "sqlite":
            return f"{'sqlite:' if engine == 'zart' else 'sqlite:///'}{self.stage.folder / name}.db"
        return "memory:" if engine == "zart" else str(free_port())

    def measure(self, setting: str, engine: str, task: Task) -> dict[str, float]:
        """One measurement. Raises RuntimeError with what went wrong."""
        n = self.stage.sizes.of(task.n, 3)
        url = self.url(setting, engine)
        if task.name == "replay":
            self.call(engine, url, "prepare", n)
        return {"n": n, **self.call(engine, url, task.name, n)}

    def call(self, engine: str, url: str, task: str, n: int) -> dict[str, float]:
        """What `driving` prints."""
        python = sys.executable if engine == "zart" else str(self.python)
        command = [python, "-m", f"benchmarks.peers.on_{engine}", url, task, str(n)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"more than {LIMIT_S} s") from None
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        if done.returncode or not lines:
            raise RuntimeError((done.stderr.strip().splitlines() or ["no answer"])[-1][:160])
        found: dict[str, float] = json.loads(lines[-1])
        return found


def free_port() -> int:
    """A port of this machine that nobody has."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def said(task: Task, found: Sequence[dict[str, float]]) -> str:
    """The median of some rounds, as a rate or as a time."""
    seconds = statistics.median(one["seconds"] / one["n"] for one in found)
    if task.name in ("start", "event"):
        return f"{seconds * 1e3:.3g} ms"
    text = f"{1 / seconds:,.0f} {task.per}s/s"
    if task.name == "suspended":
        text += f", {statistics.median(one['bytes'] for one in found) / 1000:.1f} kB each"
    return text


def compare(peers: Peers, setting: str, task: Task, tell: Callable[[str], None]) -> None:
    """A row of the table: the engines in turns, round after round."""
    where = SETTINGS[setting]
    if task.name == "replay" and not where.durable:
        return tell(f"| {task.title} | {' | '.join('nothing survives' for _ in where.engines)} |")
    found: dict[str, list[dict[str, float]]] = {engine: [] for engine in where.engines}
    failed: dict[str, str] = {}
    for _ in range(peers.stage.sizes.rounds):
        for engine in where.engines:
            if engine not in failed:
                try:
                    found[engine].append(peers.measure(setting, engine, task))
                except RuntimeError as error:
                    failed[engine] = str(error)
    cells = [f"failed: {failed[one]}" if one in failed else said(task, found[one]) for one in where.engines]
    return tell(f"| {task.title} | {' | '.join(cells)} |")


def versions(python: Path) -> str:
    """What is installed there."""
    asked = "import importlib.metadata as m, sys; [print(name, m.version(name)) for name in sys.argv[1:]]"
    done = subprocess.run([python, "-c", asked, *PACKAGES], check=True, capture_output=True, text=True)
    return ", ".join(done.stdout.splitlines())


def main(argv: list[str]) -> None:
    """Print a table for each setting."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("python", type=Path, help="the Python of the environment that has the peers")
    parser.add_argument(
        "tasks", nargs="*", metavar="TASK", help=f"of {', '.join(task.name for task in TASKS)}"
    )
    parser.add_argument("--on", choices=sorted(SETTINGS), action="append", help="a setting; all by default")
    parser.add_argument(
        "--share", type=float, default=1.0, help="share of each size, 0.1 for a look (%(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each row (%(default)s)")
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="write peers.md there")
    asked = parser.parse_intermixed_args(argv)
    tasks = [task for task in TASKS if not asked.tasks or task.name in asked.tasks]
    if unknown := set(asked.tasks) - {task.name for task in TASKS}:
        parser.error(f"no task is named {', '.join(sorted(unknown))}")
    if asked.rounds < 1 or not 0 < asked.share <= 1:
        parser.error("--rounds is 1 or more, --share above 0 and at most 1")
    sizes = Sizes(asked.rounds, asked.share)
    lines: list[str] = []

    def tell(line: str) -> None:
        lines.append(line)
        print(line, flush=True)

    note = f" **Sizes times {sizes.share:g}.**" if sizes.share < 1 else ""
    tell(f"{machine()}; {versions(asked.python)}; median of {sizes.rounds}.{note}")
    with staged(sizes) as stage:
        peers = Peers(stage, asked.python)
        for setting in asked.on or SETTINGS:
            engines = SETTINGS[setting].engines
            tell(f"\n| {SETTINGS[setting].title} | {' | '.join(engines)} |\n|---{'|---' * len(engines)}|")
            for task in tasks:
                compare(peers, setting, task, tell)
    if asked.to is not None:
        asked.to.mkdir(parents=True, exist_ok=True)
        (asked.to / "peers.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
