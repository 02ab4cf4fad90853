"""Rounds of chaos: workers of `zart worker` on one server, faults drawn from a seed, then peace, and the checks.

Rule 1: a round is so many beats; each beat asks for more work and strikes once, so that faults meet work on a slow
        machine too. Nothing here is judged by the clock of the wall.
Rule 2: what a worker holds when it dies or stands still is taken up after its lease, which is short here.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
import psycopg

from property_tests.chaos import audit, checks, flows
from property_tests.kill9 import shapes
from tests.postgres import Server
from zart_core.cli import reading
from zart_core.cli.exits import STORE
from zart_core.errors import StoreUnavailable
from zart_core.hosts.inline import Inline
from zart_core.interpreter import CODEC
from zart_core.log import EventLog, Post
from zart_core.workflows import Registry
from zart_stores.sql import postgres

ROOT = Path(__file__).parents[2]
WORKERS = 3
LEASE_S = 2.0
PAUSE_S = 1.5 * LEASE_S
"""How long a worker is stopped: until long after its lease."""
EXECUTIONS = 200
FAULTS = ("kill", "kill", "pause", "pause", "restart", "terminate", "terminate", "kill", "pause", "restart")
"""What strikes in a round, in an order of the seed's own: one for each beat."""
PATIENCE_S = 300.0
"""How long peace may last before everything has ended: a machine may be slow, and a round that hangs is found."""
TURNS_PER_BEAT = 15
READ_BACK = re.compile(r"execution '([^']+)' is read back")


class Violation(AssertionError):
    """Something that must always be so is not."""


@attrs.define
class Figures:
    """What the rounds came to."""

    rounds: int = 0
    executions: int = 0
    kills: int = 0
    pauses: int = 0
    restarts: int = 0
    terminations: int = 0
    stillborn: int = 0
    """Workers that found no server when they were started, and said so."""
    turns: int = 0
    """Appends to executions that were there, by the audit."""
    takeovers: int = 0
    """Executions that passed from one process to another."""
    begun: int = 0
    repeated: int = 0
    """Steps that were begun more than once, all processes together."""

    def counts(self) -> dict[str, int]:
        """All of them, by name."""
        return attrs.asdict(self)

    def __str__(self) -> str:
        return ", ".join(f"{name}={count}" for name, count in self.counts().items())


class Process:
    """A `zart worker` process; what it says on stderr goes to a file."""

    def __init__(self, module: Sequence[str], url: str, life: int, directory: Path) -> None:
        self.life = life
        self.app = f"life-{life}"
        self.said = directory / f"{self.app}.err"
        self.serves = directory / f"{self.app}.out"
        environment = {
            **os.environ,
            "KILL9_JOURNAL": str(directory / "journal"),
            "KILL9_LIFE": str(life),
            "PYTHONPATH": str(ROOT),
        }
        with self.said.open("w") as said, self.serves.open("w") as serves:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", *module, "worker", "property_tests.chaos.flows"),
                    *("--store", f"{url}&application_name={self.app}", "--lease", f"{LEASE_S}s"),
                ],
                cwd=ROOT, env=environment, stdout=serves, stderr=said,
            )  # fmt: skip
        self.paused_until: float | None = None

    def pause(self) -> None:
        """Stop it in its tracks, past its lease."""
        self.process.send_signal(signal.SIGSTOP)
        self.paused_until = time.monotonic() + PAUSE_S

    def go_on(self) -> None:
        """Let it run again, as if nothing had been."""
        self.process.send_signal(signal.SIGCONT)
        self.paused_until = None

    def kill(self) -> None:
        """Kill -9; stopped or not."""
        self.process.kill()
        self.process.wait()

    def has_served(self) -> bool:
        """Whether it has got so far as to open its log and take up work."""
        return "serves" in self.serves.read_text()

    def errors(self) -> str:
        """What it said."""
        return self.said.read_text()


class Round:
    """One round, in a schema of its own."""

    def __init__(
        self, server: Server, directory: Path, seed: int, *,
        executions: int = EXECUTIONS, faults: Sequence[str] = FAULTS, module: Sequence[str] = ("zart_core.cli",),
    ) -> None:  # fmt: skip
        self.server = server
        self.directory = directory
        self.chance = random.Random(seed)
        self.executions = executions
        self.faults = self.chance.sample(faults, len(faults))
        self.module = module
        self.schema = f"chaos_{seed}"
        self.url = server.url(self.schema)
        self.log: EventLog = postgres.open(f"{self.url}&application_name=client", busy_s=20.0)
        with self.database() as db:
            audit.install(db, self.schema)
        (directory / "journal").touch()
        self.lives: list[Process] = []
        self.workers: list[Process] = []
        self.started: dict[str, tuple[str, int]] = {}
        self.sent: list[Post] = []
        self.turns = 0
        """How many there were when the last fault struck."""
        self.unsent: list[tuple[str, int]] = []
        """Events that are still to be sent: id and number."""
        self.figures = Figures(rounds=1)

    @contextlib.contextmanager
    def database(self) -> Iterator[psycopg.Connection]:
        """A connection beside everything else."""
        with psycopg.connect(self.server.dsn, autocommit=True) as db:
            yield db

    def play(self) -> Figures:
        """Play it, and check. Raises Violation."""
        try:
            for _ in range(WORKERS):
                self.begin_worker()
            for beat, fault in enumerate(self.faults):
                self.ask_for_more((beat + 1) * self.executions // len(self.faults))
                self.tend()
                self.until_at_work()
                self.strike(fault)
                time.sleep(self.chance.uniform(0.0, 0.4))
            self.make_peace()
            self.check()
        finally:
            for process in self.lives:
                process.kill()
            self.log.close()
            with self.database() as db:
                db.execute(f"DROP SCHEMA {self.schema} CASCADE")
        return self.figures

    # ------------------------------------------------ workers

    def begin_worker(self) -> None:
        """One more worker, in a life of its own."""
        worker = Process(self.module, self.url, len(self.lives), self.directory)
        self.lives.append(worker)
        self.workers.append(worker)

    def tend(self) -> None:
        """Wake who has slept long enough, and put new workers in the place of the dead."""
        for worker in self.workers:
            if worker.paused_until is not None and time.monotonic() >= worker.paused_until:
                worker.go_on()
        self.workers = [worker for worker in self.workers if self.lives_on(worker)]
        while len(self.workers) < WORKERS:
            self.begin_worker()

    def lives_on(self, worker: Process) -> bool:
        """Whether it lives; one that ends by itself is a violation, unless it found no server when it was started."""
        code = worker.process.poll()
        if code == STORE and not worker.has_served():
            self.figures.stillborn += 1
        elif code not in (None, -signal.SIGKILL):
            raise Violation(f"{worker.app} ended by itself with {code}: {worker.errors()[-2000:]}")
        return code is None

    def until_at_work(self) -> None:
        """Wait until turns have been written since the last fault, or nothing is left to be done."""
        query = f"SELECT count(*) FROM {self.schema}.audit WHERE fence_before >= 0 AND place <> place_before"
        end = time.monotonic() + PATIENCE_S
        with self.database() as db:
            while (turns := self.counted(db, query)) < self.turns + TURNS_PER_BEAT and self.unfinished():
                if time.monotonic() > end:
                    raise Violation(f"nobody works: {[worker.errors()[-800:] for worker in self.workers]}")
                self.tend()
                time.sleep(0.05)
        self.turns = turns

    def until_all_serve(self) -> None:
        """Wait until every worker has taken up work: on a slow machine one could be done before the next has begun."""
        end = time.monotonic() + PATIENCE_S
        while len(self.at_work()) < WORKERS:
            if time.monotonic() > end:
                raise Violation(f"nobody serves: {[worker.errors()[-800:] for worker in self.workers]}")
            self.tend()
            time.sleep(0.05)

    def counted(self, db: psycopg.Connection, query: str) -> int:
        """What a query counts."""
        ((count,),) = db.execute(query).fetchall()
        return int(count)

    def unfinished(self) -> int:
        """How many executions have not ended."""
        return sum(count for status, count in self.log.stats().items() if not status.closed)

    # ------------------------------------------------ faults

    def strike(self, fault: str) -> None:
        """One fault, on whoever it meets."""
        match fault:
            case "kill":
                self.chance.choice(self.at_work() or self.workers).kill()
                self.figures.kills += 1
            case "pause":
                self.chance.choice(self.at_work() or self.workers).pause()
                self.figures.pauses += 1
            case "restart":
                self.server.stop("immediate")
                time.sleep(self.chance.uniform(0.0, 0.3))
                self.server.start()
                self.figures.restarts += 1
            case "terminate":
                met = self.chance.sample(self.workers, self.chance.randint(1, WORKERS))
                ended = self.terminate([worker.app for worker in met])
                self.figures.terminations += ended or self.terminate([worker.app for worker in self.workers])
            case "calm":
                self.until_all_serve()
            case other:
                raise ValueError(other)

    def terminate(self, apps: Sequence[str]) -> int:
        """End the connections of these processes; gives how many there were."""
        query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = ANY(%s)"
        with self.database() as db:
            return len(db.execute(query, (list(apps),)).fetchall())

    def at_work(self) -> list[Process]:
        """Workers that serve and are not stopped."""
        return [worker for worker in self.workers if worker.paused_until is None and worker.has_served()]

    def make_peace(self) -> None:
        """The faults stop: everything ends (I18), and workers that are told to leave do so in good order."""
        self.tend()
        end = time.monotonic() + PATIENCE_S
        while self.unfinished():
            self.tend()
            if time.monotonic() > end:
                left = [item for item in self.log.list(limit=9999).items if not item.status.closed]
                said = "\n".join(f"{worker.app}: {worker.errors()[-800:]}" for worker in self.workers)
                raise Violation(f"I18: {len(left)} executions do not end, such as {left[:3]}\n{said}")
            time.sleep(0.1)
        for worker in self.workers:
            if worker.paused_until is not None:
                worker.go_on()
            worker.process.terminate()
        for worker in self.workers:
            code = worker.process.wait(PATIENCE_S)
            if code not in (0, -signal.SIGTERM):  # by the signal itself while it is still starting
                raise Violation(f"{worker.app} was told to end and gave {code}: {worker.errors()[-2000:]}")

    # ------------------------------------------------ work

    def ask_for_more(self, total: int) -> None:
        """Start executions up to so many, and send what is due to them; every answer is waited for."""
        client = Inline(self.log, Registry())
        by_name = {workflow.name: workflow for workflow in flows.ALL}
        while len(self.started) < total:
            shape = self.chance.choice(list(flows.EXPECTED))
            n = 100 * len(self.started)
            id = f"{shape}-{len(self.started):04}"
            self.insist(
                lambda shape=shape, n=n, id=id: client.start(by_name[shape], shapes.input_of(shape, n), id)
            )
            self.started[id] = (shape, n)
            if shape in ("listens", "rolls"):
                self.unsent += [(id, n + k) for k in range(shapes.EVENTS)]
            elif shape == "cancelled":
                self.insist(lambda id=id: reading.request(self.log, id, "cancel", "enough"))
        last = total >= self.executions
        while self.unsent and (last or self.chance.random() < 0.9):
            self.send(*self.unsent.pop(0))

    def send(self, id: str, number: int) -> None:
        """Send one event, with a key, until it is acknowledged."""
        key = f"key-{id}-{number}"
        self.insist(lambda: reading.send(self.log, id, "number", number, key))
        data = CODEC.encode_message(number, "number")
        self.sent.append(Post(id, "event", "number", data, time.time(), key))

    def insist(self, call: object) -> None:
        """Ask until it is answered: each of these calls may be made again."""
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                call()  # type: ignore[operator]
                return
            except StoreUnavailable:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)

    # ------------------------------------------------ the end

    def check(self) -> None:
        """Everything that must be so. Raises Violation with all that is not."""
        summaries, histories, inboxes = checks.read(self.log)
        with self.database() as db:
            changes = audit.changes(db, self.schema)
        journal = [json.loads(line) for line in (self.directory / "journal").read_text().splitlines()]
        read_back = Counter((id, life.app) for life in self.lives for id in READ_BACK.findall(life.errors()))
        seen = checks.Seen(
            summaries, histories, inboxes, changes, journal, self.started, self.sent, read_back
        )
        wrong = list(checks.violations(seen))
        if wrong:
            raise Violation("\n".join([f"{len(wrong)} things are wrong:", *wrong[:20]]))
        self.count(seen)

    def count(self, seen: checks.Seen) -> None:
        """What the round came to."""
        figures = self.figures
        figures.executions = len(seen.summaries)
        figures.turns = sum(change.is_turn for change in seen.changes)
        hands: dict[str, set[str]] = {}
        for change in seen.changes:
            if change.is_given:
                hands.setdefault(change.id, set()).add(change.app)
        figures.takeovers = sum(len(apps) - 1 for apps in hands.values())
        begins = Counter(
            (line["id"], line["run"], line["step"], line["attempt"])
            for line in seen.journal
            if line["phase"] == "begin"
        )
        figures.begun = begins.total()
        figures.repeated = sum(count > 1 for count in begins.values())


def add(one: Figures, other: Figures) -> Figures:
    """Both together."""
    return Figures(**{name: count + other.counts()[name] for name, count in one.counts().items()})
