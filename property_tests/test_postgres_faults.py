"""A real engine on a real PostgreSQL: every commit of a workflow goes wrong in turn, the server goes away under work.

No process of ours dies here, so every step runs exactly once, whatever happens to commits and connections (R1, I12).
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest

import zart_core as zart
from property_tests.seeds import fresh, keeping, kept
from property_tests.tally import tally
from tests.postgres import Server, running
from tests.postgres_proxy import Proxy
from zart_core.events import Ok
from zart_core.interpreter import CODEC
from zart_core.log import Appended, EventLog, Record, Rejected, Turn, Write
from zart_core.testing.relay import Relay
from zart_core.testing.replaying import replay_strictly
from zart_stores.sql import postgres
from zart_stores.sql.postgres_memo import Guess

CYCLES = 1000 if os.environ.get("ZART_DEEP") else 25
PER_CYCLE = 4
COMMITS_MIN = 8
"""Start, message, and so many turns that wait for something, cannot come together in fewer."""
RESULT = [6, 2, 4, 6, 7, 8]
LONG = "10m"
"""A lease that does not run out while a server is away."""

LOCK = threading.Lock()
RAN: Counter[tuple[str, str]] = Counter()
"""How often each step of each execution was run."""


def ran() -> None:
    """Enter an effect."""
    with LOCK:
        RAN[zart.context().execution_id, zart.context().step] += 1


@zart.step("add-{n}")
def add(n: int) -> int:
    """A sync step."""
    ran()
    return n + 1


@zart.step("twice-{n}")
async def twice(n: int) -> int:
    """An async step."""
    ran()
    return 2 * n


@zart.workflow("part")
def part(n: int) -> zart.Flow[int]:
    return (yield from add(n))


@zart.workflow("whole")
def whole(n: int) -> zart.Flow[list[int]]:
    first = yield from add(n)
    fan = yield from zart.wait([twice(k) for k in (1, 2, 3)])
    told = yield from zart.wait_for_event("go", int)
    yield from zart.sleep("nap", 0.02)
    last = yield from zart.child(part, told)
    return [first, *fan, told, last]


WORKFLOWS = [whole, part]
STEPS = {"add-5", "twice-1", "twice-2", "twice-3"}
"""What one execution of `whole` runs; its child runs add-7."""


class Truthful(Relay):
    """Remembers what it was told of each turn, to be held against the log (L3, I9)."""

    def __init__(self, log: EventLog) -> None:
        super().__init__(log)
        self.answers: list[tuple[Turn, Appended]] = []

    def append(self, batch: Sequence[Write]) -> list[Appended]:
        """See EventLog."""
        outcomes = super().append(batch)
        self.answers += [
            (item, out) for item, out in zip(batch, outcomes, strict=True) if isinstance(item, Turn)
        ]
        return outcomes

    def lies(self) -> Iterator[str]:
        """Turns that are there although they were refused, or not there although they were acknowledged."""
        for turn, outcome in self.answers:
            there = turn.records and turn.records == self.found(turn)
            others = [
                out for other, out in self.answers if other is not turn and other.records == turn.records
            ]
            if isinstance(outcome, Ok) and turn.records and not there:
                yield f"I9: acknowledged and not there: {turn.id} at {turn.position}"
            if isinstance(outcome, Rejected) and there and not others:
                yield f"I9: rejected ({outcome.reason}) and there: {turn.id} at {turn.position}"

    def found(self, turn: Turn) -> list[Record]:
        """What the log has in the turn's place."""
        return self.log.records(turn.id, turn.run, turn.position)[: len(turn.records)]


def played(
    log: EventLog, id: str, before: Callable[[], None] = lambda: None, patience_s: float = 120
) -> list[str]:
    """Play `whole` in an engine on a log; gives what is wrong afterwards. `before` is called once the engine is up."""
    told = Truthful(log)
    with zart.open(told, WORKFLOWS, lease=LONG) as engine:
        before()
        handle = engine.start(whole, 5, id=id)
        handle.send("go", 7, key="k")
        try:
            result = handle.result(patience_s)
        except TimeoutError as error:  # a message that was acknowledged and lost leaves nothing to go on with
            return [f"I18: {error}", *told.lies()]
    return [*judged(log, id, result), *told.lies()]


def judged(log: EventLog, id: str, result: Any) -> Iterator[str]:
    """The right result, each step once, the log whole, and its histories replay."""
    if result != RESULT:
        yield f"I10: '{id}' gave {result}"
    registry = zart.Registry(WORKFLOWS)
    for summary in log.list(id_prefix=id, limit=9).items:
        history = CODEC.decode_events(log.records(summary.id), summary.id, 0)
        started = history[0]
        assert isinstance(started, zart.Started)
        replay_strictly(registry.of(started), history, CODEC)
        outcomes = Counter(event.seq for event in history if isinstance(event, zart.Resolved))
        if max(outcomes.values()) > 1:
            yield f"I11: two outcomes in '{summary.id}': {outcomes}"
        taken = [event for event in history if isinstance(event, zart.Delivered)]
        if len(taken) != (summary.id == id):
            yield f"I15: '{summary.id}' was given {len(taken)} events"
    with LOCK:
        mine = {step: count for (of, step), count in RAN.items() if of == id}
        childs = [count for (of, step), count in RAN.items() if of.startswith(id) and of != id]
    if mine != dict.fromkeys(STEPS, 1) or childs != [1]:
        yield f"I12: the steps of '{id}' were run {mine}, its child's {childs}"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running() as started:
        yield started


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    directory = Path(tempfile.mkdtemp(prefix="zart-px-", dir="/tmp"))  # a socket's name has a limit
    between = Proxy(directory, server.root, writes_only=True)
    yield between
    between.close()
    shutil.rmtree(directory)


def through(server: Server, proxy: Proxy, schema: str) -> str:
    """The URL of a log behind the proxy."""
    return server.url(schema).replace(str(server.root), str(proxy.directory))


def one_by_one(log: EventLog, proxy: Proxy, fate: str, patience_s: float = 120) -> Iterator[list[str]]:
    """Play again and again while the first commit goes wrong, the second, and so on; gives what is wrong after each.

    Ends when there are no more: how many there are depends on what came together in one commit.
    """
    for index in itertools.count():
        cut = proxy.cut

        def begin(index: int = index) -> None:
            proxy.plan = {proxy.commits + index: fate}

        wrong = played(log, f"{fate}-{index:03}", begin, patience_s)
        proxy.plan = {}
        if proxy.cut == cut:
            assert wrong == []
            return
        yield wrong


@pytest.mark.parametrize("fate", ["drop", "swallow"])
def test_every_commit_of_a_workflow_may_go_wrong(server: Server, proxy: Proxy, fate: str) -> None:
    """Each in turn is dropped, or done and not answered: the right result, no effect lost or doubled (F16, I9)."""
    log = postgres.open(through(server, proxy, f"every_{fate}"))
    try:
        found = list(one_by_one(log, proxy, fate))
        assert found == [[]] * len(found)
        assert proxy.cut == len(found) >= COMMITS_MIN
        log.verify()
    finally:
        log.close()
    tally("commits that go wrong", commits=len(found))


class CredulousPostgresLog(postgres.PostgresLog):
    """Known-bad: of a change that nobody knows of it is said that it went well."""

    def _make_sure(self, guess: Guess, batch: Sequence[Write], outcomes: list[Appended]) -> None:
        if guess.changes.inserts:
            super()._make_sure(guess, batch, outcomes)
        else:
            outcomes.extend(guess.outcomes)


class BlindPostgresLog(postgres.PostgresLog):
    """Known-bad: a commit in doubt is tried again, without looking whether it was done."""

    def _transaction(self, action: Callable[..., Any]) -> None:
        try:
            super()._transaction(action)
        except postgres._Doubtful:
            super()._transaction(action)

    def _make_sure(self, guess: Guess, batch: Sequence[Write], outcomes: list[Appended]) -> None:
        self._ask_and_write(batch, outcomes)


@pytest.mark.parametrize(("defect", "fate"), [(CredulousPostgresLog, "drop"), (BlindPostgresLog, "swallow")])
def test_a_store_that_does_not_know_doubt_is_caught(
    server: Server,
    proxy: Proxy,
    monkeypatch: pytest.MonkeyPatch,
    defect: type[postgres.PostgresLog],
    fate: str,
) -> None:
    """The known-bad controls: at some commit one of the two is found to have lied."""
    monkeypatch.setattr(postgres, "PostgresLog", defect)
    log = postgres.open(through(server, proxy, f"control_{fate}"))
    try:
        found = one_by_one(log, proxy, fate, patience_s=20)
        assert any(any(line.startswith("I9") for line in wrong) for wrong in found)
    finally:
        log.close()


# ---------------------------------------------------------------- the server goes away


def strike(server: Server, fault: str) -> None:
    """The server ends every connection, or crashes and comes back."""
    if fault == "restart":
        server.stop("immediate")
        server.start()
        return
    with psycopg.connect(server.dsn, autocommit=True) as db:
        db.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )


def test_work_goes_on_over_a_server_that_goes_away(server: Server) -> None:
    """So many cycles of ended connections and crashes under a living engine: results are right, each step ran once."""
    drawn = fresh("postgres-cycles", 1)
    for seed in [*kept("postgres-cycles"), *drawn]:
        with keeping("postgres-cycles", seed):
            struck = cycles(server, seed, CYCLES)
        assert struck.total() == CYCLES
        assert min(struck["restart"], struck["terminate"]) >= CYCLES // 4
        tally("server goes away", seeds=[seed], cycles=CYCLES, executions=CYCLES * PER_CYCLE)


def cycles(server: Server, seed: int, count: int) -> Counter[str]:
    """Play them; gives how often what struck. Raises what is wrong."""
    chance = random.Random(seed)
    faults = [("terminate", "restart", "terminate")[n % 3] for n in range(count)]
    chance.shuffle(faults)
    log = postgres.open(server.url(f"cycles_{seed}"), busy_s=60.0)
    told = Truthful(log)
    results: dict[str, Any] = {}
    try:
        with zart.open(told, WORKFLOWS, lease=LONG) as engine:

            def one(id: str) -> None:
                handle = engine.start(whole, 5, id=id)
                handle.send("go", 7, key="k")
                results[id] = handle.result(300)

            for cycle, fault in enumerate(faults):
                ids = [f"c{seed}-{cycle:04}-{n}" for n in range(PER_CYCLE)]
                work = [threading.Thread(target=one, args=(id,)) for id in ids]
                for each in work:
                    each.start()
                time.sleep(chance.uniform(0.0, 0.05))
                strike(server, fault)
                for each in work:
                    each.join()
                wrong = [line for id in ids for line in judged(log, id, results.get(id))]
                assert wrong == [], f"cycle {cycle}, {fault}"
        assert list(told.lies()) == []
        log.verify()
    finally:
        log.close()
    return Counter(faults)
