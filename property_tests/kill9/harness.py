"""The harness: start a worker, ask it for things, kill it, look at the log, again and again.

Rule 1: it changes nothing of the log, so that it is always the next worker who recovers.
Rule 2: what was acknowledged is what came through the worker's pipe before it died.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

import attrs

import zart_core as zart
from property_tests.kill9 import shapes
from property_tests.kill9.homes import Home
from property_tests.warm import Child, Nursery
from zart_core.hosts.ports import opener_of
from zart_core.hosts.turns import Run
from zart_core.interpreter import CODEC
from zart_core.log import Message, Record, Summary

WORKER = "property_tests.kill9.worker"
WAIT_S = 120.0
STARTS_PER_ROUND = 3


class Violation(AssertionError):
    """Something that must always be so is not."""


@attrs.define
class Snapshot:
    """All that a log holds."""

    summaries: dict[str, Summary]
    records: dict[tuple[str, int], list[Record]]
    events: dict[tuple[str, int], list[zart.Event]]
    inboxes: dict[str, list[Message]]


@attrs.define
class Figures:
    """What the rounds came to."""

    rounds: int = 0
    kills: int = 0
    at_calls: int = 0
    """Kills at a chosen system call."""
    acknowledged: int = 0
    executions: int = 0
    events: int = 0
    begun: int = 0
    """Steps that were begun, all told."""
    repeated: int = 0
    """Begun in vain: in flight at a kill."""
    taken_over: int = 0
    """Executions that a dead worker still held in the log at one look, and another has had by the next."""
    left: int = 0
    """Those that nobody had taken from the dead by the next look: its lease lasted."""
    checks: int = 0

    def __str__(self) -> str:
        return ", ".join(f"{field}={getattr(self, field)}" for field in self.__slots__ if field[0] != "_")


class Campaign:
    """Rounds on one log."""

    def __init__(
        self, nursery: Nursery, home: Home, directory: Path, seed: int, *, lazy: bool = False
    ) -> None:
        self.nursery = nursery
        self.home = home
        self.opener = opener_of(home.url)
        self.seed = seed
        self.lazy = lazy
        self.chance = random.Random(seed)
        self.journal = directory / "journal"
        self.journal.touch()
        self.figures = Figures()
        self.started: dict[str, tuple[str, int]] = {}
        """Executions that were asked for: shape and number."""
        self.acknowledged: list[dict[str, Any]] = []
        self.open_requests: list[dict[str, Any]] = []
        """Requests without an acknowledgement, in order: they are made again."""
        self.asked = 0
        self.before = Snapshot({}, {}, {}, {})
        self.life = 0
        self.results: dict[str, Any] = {}

    # ------------------------------------------------------------ one life

    def round(self) -> None:
        """A life with a violent end, and a look at what it leaves."""
        self.life += 1
        self.ask_for_more()
        at_call = not os.environ.get("ZART_NO_STRACE") and self.chance.random() < 0.25
        worker = self.spawn(at_call)
        early = self.chance.random() < 0.1
        try:
            if early:
                time.sleep(self.chance.uniform(0.0, 0.08))
            else:
                self.until_ready(worker)
                self.hand_in(worker)
                if at_call:
                    self.figures.at_calls += worker.silent.wait(0.5)
                else:
                    time.sleep(self.chance.uniform(0.0, 0.3))
        finally:
            worker.kill()
        if worker.status != -signal.SIGKILL:
            raise Violation(f"the worker ended by itself: {worker.errors()}")
        self.figures.kills += 1
        self.after(worker)

    def last_life(self) -> None:
        """A life in peace: everything must end as it should (I10)."""
        self.life += 1
        worker = self.spawn(False)
        try:
            self.until_ready(worker)
            self.hand_in(worker)
            self.request(op="finish", ids=sorted(self.started))
            self.hand_in(worker)
            worker.hang_up()
        finally:
            worker.kill()
        self.after(worker)
        for id, (shape, n) in self.started.items():
            found, expected = worker.results.get(id, "nothing"), shapes.EXPECTED[shape](n)
            if found != expected:
                raise Violation(f"I10: {id} gave {found!r}, not {expected!r}; {worker.errors()[-2000:]}")
        if self.open_requests:
            raise Violation(f"not acknowledged: {self.open_requests}")

    def spawn(self, at_call: bool) -> Worker:
        """A worker in a process group of its own, killed at a system call if asked for."""
        arguments = [self.home.url, *(["lazy"] if self.lazy else [])]
        environment = {"KILL9_JOURNAL": str(self.journal), "KILL9_LIFE": str(self.life)}
        child = self.nursery.fork(arguments, {**environment, **self.home.life(self.chance)})
        if at_call:
            call = self.chance.choice(self.home.calls)
            when = self.chance.randrange(1, 15)
            child.trace("-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={when}")
        child.begin()
        return Worker(child)

    def until_ready(self, worker: Worker) -> None:
        """Wait until it has opened its log, or has died of a system call."""
        if not worker.ready.wait(WAIT_S) or (not worker.is_ready and worker.end() >= 0):
            raise Violation(f"it does not begin: {worker.errors()}")

    # ------------------------------------------------------------ what is asked for

    def request(self, **request: Any) -> None:
        """Something that has to be acknowledged."""
        self.asked += 1
        self.open_requests.append({**request, "number_of": self.asked, "again": False})

    def ask_for_more(self) -> None:
        """New executions of all shapes, and what they wait for."""
        for _ in range(STARTS_PER_ROUND):
            shape = self.chance.choice(list(shapes.EXPECTED))
            n = 100 * len(self.started)
            id = f"{shape}-{len(self.started):04}"
            self.started[id] = (shape, n)
            self.request(op="start", shape=shape, n=n, id=id)
            if shape in ("listens", "rolls"):
                for k in range(shapes.EVENTS):
                    self.request(op="send", id=id, number=n + k, key=f"key-{n + k}")
            elif shape == "cancelled":
                self.request(op="cancel", id=id)

    def hand_in(self, worker: Worker) -> None:
        """Ask the worker for everything that is not acknowledged."""
        with contextlib.suppress(BrokenPipeError):
            for request in self.open_requests:
                worker.child.stdin.write(json.dumps(request) + "\n")
                worker.child.stdin.flush()

    # ------------------------------------------------------------ what must be so

    def after(self, worker: Worker) -> None:
        """Settle what was acknowledged, and check."""
        self.figures.rounds += 1
        self.acknowledged += [r for r in self.open_requests if r["number_of"] in worker.acks]
        self.open_requests = [
            {**r, "again": True} for r in self.open_requests if r["number_of"] not in worker.acks
        ]
        now = self.look()
        self.check(now)
        self.before = now
        self.figures.acknowledged = len(self.acknowledged)
        self.figures.executions = len(now.summaries)
        self.figures.events = sum(map(len, now.records.values()))

    def look(self) -> Snapshot:
        """Read everything out of the log, twice: recovery changes nothing (I5).

        Where opening recovers nothing, the second time only what is not as it was read in the round before.
        """
        with self.home.looked_at() as url:
            if not url:
                return Snapshot({}, {}, {}, {})
            first = self.read(url)
            recovers = self.home.recovers
            same = {id for id in first.summaries if not recovers and self.is_as_before(first, id)}
            second = self.read(url, but=same)
        records = {place: records for place, records in first.records.items() if place[0] not in same}
        inboxes = {id: inbox for id, inbox in first.inboxes.items() if id not in same}
        if records != second.records or inboxes != second.inboxes:
            raise Violation("I5: opened twice, the log reads differently")
        first.events = {place: self.decoded(place, records) for place, records in first.records.items()}
        return first

    def is_as_before(self, now: Snapshot, id: str) -> bool:
        """Whether an execution reads as it did in the round before."""
        runs = range(now.summaries[id].run + 1)
        before = self.before
        return before.inboxes.get(id) == now.inboxes[id] and all(
            before.records.get((id, run)) == now.records[id, run] for run in runs
        )

    def decoded(self, place: tuple[str, int], records: list[Record]) -> list[zart.Event]:
        """The events of a run, those of the round before where nothing was added. Raises Violation (I2)."""
        if self.before.records.get(place) == records:
            return self.before.events[place]
        try:
            return list(CODEC.decode_events(records, *place))
        except zart.Defect as defect:
            raise Violation(f"I2: {defect}") from defect

    def read(self, url: str, but: Collection[str] = ()) -> Snapshot:
        """All that a log holds, not decoded; a part of it when some executions are left out, else it is verified too.

        Raises Violation for a hole or a turn in parts (I2, I3).
        """
        log = self.opener(url, "power")
        try:
            if not but:
                log.verify()
            found = Snapshot({}, {}, {}, {})
            after = None
            while True:
                page = log.list(limit=500, after=after)
                found.summaries.update({item.id: item for item in page.items if item.id not in but})
                after = page.next
                if after is None:
                    break
            for id, summary in found.summaries.items():
                found.inboxes[id] = log.inbox(id)
                for run in range(summary.run + 1):
                    found.records[id, run] = log.records(id, run)
            return found
        except zart.Defect as defect:
            raise Violation(f"I2: {defect}") from defect
        finally:
            log.close()

    def check(self, now: Snapshot) -> None:
        """Every invariant, after every round."""
        self.check_prefix(now)
        self.check_acknowledged(now)
        for (id, run), events in now.events.items():
            if not self.looked_at(now, id, run):
                self.check_run(now, id, run, events)
        self.check_steps(now)
        for id, summary in self.before.summaries.items():
            if summary.owner is not None:
                self.figures.taken_over += now.summaries[id].fence > summary.fence
                self.figures.left += now.summaries[id].fence == summary.fence
        self.figures.checks += len(now.events)

    def looked_at(self, now: Snapshot, id: str, run: int) -> bool:
        """Whether a run stands as it stood when it was checked before."""
        before = self.before.records.get((id, run))
        return before == now.records[id, run] and self.before.summaries[id].status == now.summaries[id].status

    def check_prefix(self, now: Snapshot) -> None:
        """What was readable never changes (I4)."""
        for place, records in self.before.records.items():
            if now.records.get(place, [])[: len(records)] != records:
                raise Violation(f"I4: {place} has changed or lost records")

    def check_acknowledged(self, now: Snapshot) -> None:
        """Every acknowledgement that was seen is in the log (I1)."""
        for request in self.acknowledged:
            id = request.get("id")
            if request["op"] != "finish" and id not in now.summaries:
                raise Violation(f"I1: the start of {id} was acknowledged, and it is not there")
            match request["op"]:
                case "send":
                    key = request["key"]
                    kept = any(message.key == key for message in now.inboxes[id])
                    taken = any(
                        isinstance(event, zart.Delivered) and event.key == key
                        for run in range(now.summaries[id].run + 1)
                        for event in now.events[id, run]
                    )
                    if not (kept or taken):
                        raise Violation(f"I1: {key} for {id} was acknowledged, and it is not there")
                case "cancel":
                    kept = any(message.kind == "cancel" for message in now.inboxes[id])
                    seen = any(isinstance(event, zart.Interrupted) for event in now.events[id, 0])
                    if not (kept or seen):
                        raise Violation(f"I1: the cancellation of {id} was acknowledged, and it is not there")
                case _:
                    pass

    def check_run(self, now: Snapshot, id: str, run: int, events: list[zart.Event]) -> None:
        """Times (I2), whole turns (I3), nothing after the end (I7), one outcome for each (I11), events once (I15)."""
        times = [event.at for event in events]
        if times != sorted(times):
            raise Violation(f"I2: times of {id}/{run} go back")
        outcomes = Counter(event.seq for event in events if isinstance(event, zart.Resolved))
        if outcomes and max(outcomes.values()) > 1:
            raise Violation(f"I11: a command of {id}/{run} has two outcomes")
        ends = [position for position, event in enumerate(events) if isinstance(event, zart.Closed)]
        if ends not in ([], [len(events) - 1]):
            raise Violation(f"I7: {id}/{run} goes on after its end")
        if now.summaries[id].status is zart.Status.PARKED:
            raise Violation(f"{id} is parked: {now.summaries[id].reason}")
        takers = Counter(
            event.outcome.n
            for event in events
            if isinstance(event, zart.Resolved) and isinstance(event.outcome, zart.Taken)
        )
        if takers and max(takers.values()) > 1:
            raise Violation(f"I15: a delivery of {id}/{run} was taken twice")
        keys = [event.key for event in events if isinstance(event, zart.Delivered) and event.key]
        if len(keys) != len(set(keys)):
            raise Violation(f"I15: a key was delivered twice to {id}/{run}")
        taken_up = Run(attrs.evolve(now.summaries[id], run=run), CODEC)
        taken_up.revive(now.records[id, run], zart.Registry(shapes.ALL))
        if taken_up.defect is not None:
            raise Violation(f"I3: {id}/{run} does not replay: {taken_up.defect}")
        taken_up.drop()

    def entries(self) -> list[dict[str, Any]]:
        """The lines of the journal. A kill can cut the last one at the end of a page: its step got no further."""
        data = self.journal.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        os.truncate(self.journal, len(whole))  # the next life begins a line of its own
        return [json.loads(line) for line in whole.splitlines()]

    def check_steps(self, now: Snapshot) -> None:
        """Effects: one at least for each outcome, more only for what was in flight at a kill (I12, I13)."""
        lines = self.entries()
        mine = [line for line in lines if line["life"] == self.life]
        seqs = {
            (id, run, event.name): event.seq
            for (id, run), events in now.events.items()
            for event in events
            if isinstance(event, zart.Issued)
        }
        begun = Counter((line["id"], line["run"], line["step"]) for line in mine if line["phase"] == "begin")
        for place, times in begun.items():
            if place not in seqs:
                raise Violation(f"I13: step {place} has run, and the log does not know that it was asked for")
            id, run, _ = place
            old = len(self.before.events.get((id, run), []))
            recorded = sum(
                isinstance(event, zart.Resolved | zart.Retried) and event.seq == seqs[place]
                for event in now.events[id, run][old:]
            )
            if times > recorded + 1:
                raise Violation(
                    f"I12: step {place} was begun {times} times in one life with {recorded} outcomes"
                )
            self.figures.begun += times
            self.figures.repeated += max(0, times - recorded)
        ended = {
            (line["id"], line["run"], line["step"], json.dumps(line["value"]))
            for line in lines
            if line["phase"] == "end"
        }
        keys: dict[tuple[str, int, str], set[str]] = {}
        for line in lines:
            keys.setdefault((line["id"], line["run"], line["step"]), set()).add(line["key"])
        if any(len(found) > 1 for found in keys.values()):
            raise Violation("a step was given two idempotency keys")
        for (id, run), events in now.events.items():
            names = {
                event.seq: event.name
                for event in events
                if isinstance(event, zart.Issued) and event.kind == "step"
            }
            for event in events:
                if (
                    isinstance(event, zart.Resolved)
                    and event.seq in names
                    and isinstance(event.outcome, zart.Done)
                ):
                    value = json.dumps(json.loads(event.outcome.payload))
                    if (id, run, names[event.seq], value) not in ended:
                        raise Violation(
                            f"I12: {names[event.seq]} of {id}/{run} has an outcome that it never gave"
                        )


class Worker:
    """A worker process, and what came through its pipe."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.ready = threading.Event()
        self.silent = threading.Event()
        """Its pipe is closed: it is dead, or about to be."""
        self.is_ready = False
        self.status = 0
        self.acks: set[int] = set()
        self.results: dict[str, Any] = {}
        self.said: list[str] = []
        self.readers = [threading.Thread(target=self.read), threading.Thread(target=self.read_errors)]
        for reader in self.readers:
            reader.start()

    def read(self) -> None:
        """Take in what it says, until it is dead; a line that was cut off says nothing."""
        for line in self.child.stdout:
            if not line.endswith("\n"):
                break
            said = json.loads(line)
            if "ack" in said:
                self.acks.add(said["ack"])
            elif "id" in said:
                self.results[said["id"]] = said["result"]
            else:
                self.is_ready = True
                self.ready.set()
        self.silent.set()
        self.ready.set()

    def read_errors(self) -> None:
        """Keep what it complains about."""
        self.said += self.child.stderr

    def errors(self) -> str:
        """What it complained about."""
        return "".join(self.said)

    def hang_up(self) -> None:
        """Let it end by itself."""
        self.child.stdin.close()
        self.end()

    def end(self) -> int:
        """Wait for its end; gives its exit code."""
        self.status = self.child.wait()
        for reader in self.readers:
            reader.join()
        return self.status

    def kill(self) -> None:
        """Kill -9 the whole group, and take in the rest."""
        self.child.kill()
        self.end()


def campaign(home: Home, directory: Path, rounds: int, seed: int, *, lazy: bool = False) -> Figures:
    """So many rounds, and a last one in peace; the directory is for the journal. Raises Violation with the seed."""
    with contextlib.closing(home), Nursery(WORKER) as nursery:
        play = Campaign(nursery, home, directory, seed, lazy=lazy)
        try:
            for _ in range(rounds):
                play.round()
            play.last_life()
        except Violation as violation:
            raise Violation(f"{violation} (store {home.name}, seed {seed}, life {play.life})") from violation
    return play.figures
