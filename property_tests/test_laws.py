"""The laws P1 to P6 over random programs and random orders of what happens outside.

Each test counts what it has tried; `LEAST` says how much that has to be.
"""

from __future__ import annotations

import itertools
import math
import os
import pickle
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from outside import Chaos, Played, Timely, outcome_of, play
from programs import Body, Grower, Journal, programs, read_program, workflow_of
from seeds import fresh, keeping, kept

import zart_core as zart
from property_tests.tally import tally
from zart_core.branches import Closing

DEEP = bool(os.environ.get("ZART_DEEP"))
TRIED: Counter[str] = Counter()


def examples(count: int) -> Any:
    """So many examples in CI, and a hundred times as many in the deep run."""
    return settings(max_examples=count * 100 if DEEP else count)


LEAST = {
    "test_replay_of_a_prefix_and_the_rest_is_replay_of_all": {"programs": 300, "cuts": 1500},
    "test_a_crash_at_any_turn_changes_nothing": {"crash schedules": 400, "crashes": 600},
    "test_another_process_with_another_hash_seed_decides_the_same": {"replayed elsewhere": 20},
    "test_what_a_workflow_saw_is_what_a_direct_reading_gives": {"read directly": 300},
    "test_a_fact_while_something_is_wanted_diverges": {"facts too early": 20},
    "test_history_that_is_left_over_or_missing_diverges": {"renamed": 25},
    "test_every_log_is_in_order": {"logs in order": 300},
    "test_facts_that_were_held_take_effect_in_their_order": {"held": 30},
    "test_larger_programs_replay_and_survive_crashes": {"larger programs": 150, "cuts": 300, "held": 50},
    "test_larger_programs_give_what_a_direct_reading_gives": {"larger ones read directly": 600},
}
"""What each test has to try at the least."""


@pytest.fixture(autouse=True)
def tried(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that has passed has tried enough, and says how much it has tried."""
    before, failed = Counter(TRIED), request.session.testsfailed
    yield
    if request.session.testsfailed == failed:
        found = TRIED - before
        few = {
            what: found[what]
            for what, least in LEAST.get(request.node.name, {}).items()
            if found[what] < least
        }
        assert few == {}
        tally("laws", **{what.replace(" ", "_"): count for what, count in sorted(found.items())})


def look(execution: zart.Execution) -> Any:
    """All that can be seen of an execution, asked for twice (P2)."""
    seen, again = glance(execution), glance(execution)
    assert seen == again, "decide() or a question changed something (P2)"
    return seen


def glance(execution: zart.Execution) -> Any:
    """All that can be seen of an execution."""
    return (
        execution.decide(),
        dict(execution.pending),
        dict(execution.cancelling),
        {seq: execution.progress(seq) for seq in execution.pending},
        execution.status,
        execution.deadline,
        execution.untaken(),
        execution.position,
        execution.now,
        (execution.next_seq, execution.next_delivery, execution.ignored),
        [execution.listens(name) for name in ("e0", "e1")],
    )


interruptions = st.dictionaries(
    st.integers(0, 15), st.sampled_from(["cancel", "cancel", "deadline", "terminate", "note"]), max_size=2
)
chaos = st.builds(Chaos, st.lists(st.integers(0, 30), min_size=1, max_size=24), interruptions)


def closed(played: Played) -> Played:
    """Close it, so that no generator is left to the garbage collector."""
    played.execution.close()
    return played


# ---------------------------------------------------------------- P1, P2


@examples(400)
@given(programs(), chaos)
def test_replay_of_a_prefix_and_the_rest_is_replay_of_all(body: Body, outside: Chaos) -> None:
    """P1, P2: at every cut of every log a replay shows what the live execution showed, and goes on alike."""
    played = closed(play(workflow_of(body), outside, look=look))
    TRIED["programs"] += 1
    TRIED["events"] += len(played.log)
    event(f"closed as {played.execution.status}")
    assert_go_on_alike(body, played, range(1, len(played.log) + 1))


def assert_go_on_alike(body: Body, played: Played, cuts: Iterable[int]) -> None:
    """P1, P2: a replay up to each cut shows what the run showed there, and with the rest what it showed in the end."""
    for cut in cuts:
        execution = zart.replay(workflow_of(body), played.log[:cut])
        assert look(execution) == played.looks[cut - 1]
        for fact in played.log[cut:]:
            execution.apply(fact)
        assert look(execution) == played.looks[-1]
        execution.close()
        TRIED["cuts"] += 1


# ---------------------------------------------------------------- P3


@examples(250)
@given(programs(), chaos, st.integers(0, 12))
def test_a_crash_at_any_turn_changes_nothing(body: Body, outside: Chaos, where: int) -> None:
    """P3: forget all but the log before one turn, or before each, and go on: the same log."""
    calm = closed(play(workflow_of(body), outside))
    for crashes in (lambda turn: True, lambda turn: turn == where % len(calm.turns)):
        crashed = play(workflow_of(body), outside, crashes=crashes, again=lambda: workflow_of(body))
        assert closed(crashed).log == calm.log
        assert crashed.turns == calm.turns
        TRIED["crash schedules"] += 1
        TRIED["crashes"] += len(calm.turns)


# ---------------------------------------------------------------- P4

STRIDE = 5
BATCH: list[tuple[Body, list[zart.Event], list[Any]]] = []
CHILD = """
import pickle, sys, builtins, random, socket, time
sys.path.insert(0, "property_tests")
import zart_core as zart
from programs import workflow_of
from test_laws import STRIDE, glance

def forbidden(*args, **kwargs):
    raise AssertionError("a replay looked outside (I16)")

batch = pickle.load(open(sys.argv[1], "rb"))
for body, log, _ in batch:
    zart.replay(workflow_of(body), log).close()
kept = [(module, name, getattr(module, name)) for module, names in (
    (time, ["time", "monotonic", "time_ns", "sleep", "perf_counter"]),
    (random, ["random", "randint", "getrandbits"]),
    (socket, ["socket", "create_connection"]), (builtins, ["open"])) for name in names]
looks = []
for body, log, _ in batch:
    workflow, seen = workflow_of(body), []
    for module, name, _ in kept:
        setattr(module, name, forbidden)
    executions = [zart.replay(workflow, log[:cut]) for cut in range(1, len(log) + 1, STRIDE)]
    for module, name, function in kept:
        setattr(module, name, function)
    looks.append([glance(execution) for execution in executions])
    for execution in executions:
        execution.close()
pickle.dump(looks, open(sys.argv[2], "wb"))
"""


@examples(250)
@given(programs(), chaos)
def collect(body: Body, outside: Chaos) -> None:
    """Gather programs, their logs, and what a replay shows at every cut."""
    log = closed(play(workflow_of(body), outside)).log
    if len(log) > 8:
        BATCH.append((body, log, []))


def test_another_process_with_another_hash_seed_decides_the_same(tmp_path: Path) -> None:
    """P4, I16: the same decisions elsewhere, with time, random, sockets and files out of reach."""
    collect()
    for body, log, looks in BATCH:
        executions = [zart.replay(workflow_of(body), log[:cut]) for cut in range(1, len(log) + 1, STRIDE)]
        looks.extend(glance(execution) for execution in executions)
        for execution in executions:
            execution.close()
    source, target = tmp_path / "batch", tmp_path / "looks"
    source.write_bytes(pickle.dumps(BATCH))
    environment = {**os.environ, "PYTHONHASHSEED": "4242"}
    subprocess.run([sys.executable, "-c", CHILD, source, target], check=True, env=environment)
    assert pickle.loads(target.read_bytes()) == [looks for _, _, looks in BATCH]
    TRIED["replayed elsewhere"] += len(BATCH)


# ---------------------------------------------------------------- P5


@examples(400)
@given(programs(timed=True), st.one_of(st.just(math.inf), st.integers(0, 120)))
def test_what_a_workflow_saw_is_what_a_direct_reading_gives(body: Body, stop: float) -> None:
    """P5: result, status and time of the end equal those of reading the program without a log."""
    assert_agrees_with_a_reading(body, stop + 1 / 3)


def assert_agrees_with_a_reading(body: Body, cut: float) -> None:
    """The direct reading and the run agree."""
    value, error, end = read_program(body, cut)
    played = closed(play(workflow_of(body), Timely(body, cut)))
    closing = played.log[-1]
    assert isinstance(closing, zart.Closed)
    was_cancelled = isinstance(error, zart.Cancelled) and any(
        isinstance(e, zart.Interrupted) for e in played.log
    )
    expected = "completed" if error is None else "cancelled" if was_cancelled else "failed"
    assert (str(closing.status), closing.at) == (expected, end)
    if error is None:
        assert played.execution.result() == value
    else:
        assert closing.failure is not None
        assert closing.failure.type.rsplit(".", 1)[-1] in (type(error).__name__, "type", "Broken", "failed")
    TRIED["read directly"] += 1


# ---------------------------------------------------------------- P6


@examples(150)
@given(programs(), chaos, st.data())
def test_a_fact_while_something_is_wanted_diverges(body: Body, outside: Chaos, data: st.DataObject) -> None:
    """P6: within a turn no fact may come, and a log that stops within a turn is not a complete one."""
    played = closed(play(workflow_of(body), outside))
    ends = {*played.turns}
    inside = [cut for cut in range(2, len(played.log)) if cut not in ends]
    if not inside:
        return
    cut = data.draw(st.sampled_from(inside))
    execution = zart.replay(workflow_of(body), played.log[:cut])
    wanted = execution.decide()
    if not wanted or (isinstance(wanted[0], zart.Issued) and wanted[0].kind == "version"):
        execution.close()
        return  # the host owes a capture, or a marker is at the head, which any event may pass
    if isinstance(played.log[cut - 1], zart.Issued):
        with pytest.raises(zart.Diverged):
            execution.check_answered()
    with pytest.raises(zart.Diverged):
        execution.apply(zart.Interrupted("cancel", execution.now, "too early"))
    execution.close()
    TRIED["facts too early"] += 1


@examples(150)
@given(programs(), chaos, st.data())
def test_history_that_is_left_over_or_missing_diverges(
    body: Body, outside: Chaos, data: st.DataObject
) -> None:
    """P6, R21: a log with a command of another name or kind is Diverged, at its very place."""
    played = closed(play(workflow_of(body), outside))
    issued = [
        n for n, fact in enumerate(played.log) if isinstance(fact, zart.Issued) and fact.kind != "version"
    ]
    if not issued:
        return
    place = data.draw(st.sampled_from(issued))
    log = list(played.log)
    if data.draw(st.booleans()):
        log[place] = attrs.evolve(log[place], name="another-name")
    else:
        log[place] = attrs.evolve(log[place], kind="sleep" if log[place].kind != "sleep" else "step")
    with pytest.raises(zart.Diverged) as caught:
        zart.replay(workflow_of(body), log)
    assert caught.value.position == place
    TRIED["renamed"] += 1


# ---------------------------------------------------------------- invariants of logs


@examples(400)
@given(programs(), chaos)
def test_every_log_is_in_order(body: Body, outside: Chaos) -> None:
    """I2, I11, R2, R24: numbers without a gap, names once, one outcome each, one end, nothing open."""
    journal = Journal()
    assert_in_order(body, closed(play(workflow_of(body, journal), outside)), journal)


def assert_in_order(body: Body, played: Played, journal: Journal) -> None:
    """What holds for the log of every run that has ended."""
    log = played.log
    issued = [fact for fact in log if isinstance(fact, zart.Issued)]
    resolved = [fact.seq for fact in log if isinstance(fact, zart.Resolved)]
    assert [fact.seq for fact in issued] == list(range(len(issued)))
    names = [(fact.kind == "version", fact.name) for fact in issued]
    assert len(names) == len(set(names))
    assert len(resolved) == len(set(resolved))
    assert [type(fact) for fact in log].count(zart.Closed) == 1
    assert isinstance(log[-1], zart.Closed)
    assert all(earlier.at <= later.at for earlier, later in itertools.pairwise(log))
    taken = [
        fact.outcome.n
        for fact in log
        if isinstance(fact, zart.Resolved) and isinstance(fact.outcome, zart.Taken)
    ]
    assert len(taken) == len(set(taken))
    left = assert_taken_in_order(body, log)
    if log[-1].status is not zart.Status.TERMINATED:
        assert left == len(played.execution.untaken()), "a delivery is lost (I15)"
    assert played.execution.decide() == []
    if log[-1].status is not zart.Status.TERMINATED:
        waiting = {fact.seq for fact in issued if fact.kind not in ("now", "version")}
        assert waiting == set(resolved), "something that was issued is left open (R24)"
        assert not any(isinstance(want, Closing) for want in played.execution._wanted)
    assert all(len(strikes) <= 1 for strikes in journal.strikes.values()), "cancelled twice (R18)"
    TRIED["logs in order"] += 1


def assert_taken_in_order(body: Body, log: list[zart.Event]) -> int:
    """R14, I15: the oldest wait takes the oldest delivery, and at once; gives how many deliveries are left over.

    A wait that has been told to end takes nothing, and those behind it do not wait for it.
    """
    events = {fact.seq: fact.of for fact in log if isinstance(fact, zart.Issued) and fact.kind == "event"}
    waiting: dict[str, list[int]] = {event: [] for event in events.values()}
    buffers: dict[str, list[int]] = {}
    with closing(zart.Execution(workflow_of(body))) as execution:
        for fact in log:
            if not execution.decide():
                for event, line in waiting.items():
                    assert not line or not buffers.get(event), f"{line} wait for {event}, and it is there"
            match fact:
                case zart.Issued(kind="event"):
                    waiting[fact.of].append(fact.seq)
                case zart.Delivered():
                    buffers.setdefault(fact.event, []).append(fact.n)
                case zart.Resolved() if fact.seq in events:
                    line = waiting[events[fact.seq]]
                    if isinstance(fact.outcome, zart.Taken):
                        oldest = buffers[events[fact.seq]].pop(0)
                        assert fact.outcome.n == oldest, f"wait {fact.seq} took a delivery before {oldest}"
                        first = next(seq for seq in line if not execution._nodes[seq].dropping)
                        assert fact.seq == first, f"wait {fact.seq} took what wait {first} was next for"
                    line.remove(fact.seq)
                case _:
                    pass
            execution.apply(fact)
    return sum(map(len, buffers.values()))


@examples(150)
@given(programs(), chaos, st.randoms(use_true_random=False))
def test_facts_that_were_held_take_effect_in_their_order(
    body: Body, outside: Chaos, rng: random.Random
) -> None:
    """R20: facts appended without answers, while parked, lead where they would have led one by one."""
    assert_held_facts_count(body, closed(play(workflow_of(body), outside)), rng)


def assert_held_facts_count(body: Body, played: Played, rng: random.Random) -> None:
    """Park a run at the end of a turn, hold facts in any order, and go on; beside the same facts one by one."""
    cut = rng.choice(played.turns[:-1] or played.turns)
    strikes = rng.random() < 0.3  # drawn while nothing is open: an example may end at any draw
    parked = zart.replay(workflow_of(body), played.log[:cut])
    n, at = parked.next_delivery, parked.now + 1
    held: list[Any] = [
        zart.Resolved(seq, outcome_of(issued), at, held=True)
        for seq, issued in parked.pending.items()
        if issued.kind in ("step", "sleep", "child")
    ]
    held += [zart.Delivered(n, name, b"3", at, held=True) for name in ("e0", "e1")]
    held += [zart.Interrupted("cancel", at, "stop", held=True)] if strikes else []
    parked.close()
    if parked.status.closed:
        return
    rng.shuffle(held)
    numbers = itertools.count(n)
    held = [
        attrs.evolve(fact, n=next(numbers)) if isinstance(fact, zart.Delivered) else fact for fact in held
    ]
    together = resumed(body, played.log[:cut], [held])
    one_by_one = resumed(body, played.log[:cut], [[attrs.evolve(fact, held=False)] for fact in held])
    assert standing(together) == standing(one_by_one)
    replayed = zart.replay(workflow_of(body), together.log)
    assert glance(replayed) == glance(together.execution)
    for execution in (replayed, together.execution, one_by_one.execution):
        execution.close()
    TRIED["held"] += 1


def resumed(body: Body, log: list[zart.Event], turns: list[list[zart.Event]]) -> Played:
    """Go on after a log with these facts, some of them many to a turn."""
    played = Played(zart.replay(workflow_of(body), log), list(log))
    for facts in turns:
        for fact in facts:
            if not fact.held and isinstance(fact, zart.Resolved) and fact.seq not in played.execution.pending:
                continue
            if not played.execution.status.closed:
                played.add(fact)
        played.answer()
    return played


def standing(played: Played) -> Any:
    """How far a run has come: what is open, what came of the rest, what is left of messages, and how it ended."""
    execution, log = played.execution, played.log
    names = {fact.seq: fact.name for fact in log if isinstance(fact, zart.Issued)}
    ended = {names[fact.seq]: fact.outcome for fact in log if isinstance(fact, zart.Resolved)}
    end = [(fact.status, fact.payload) for fact in log if isinstance(fact, zart.Closed)]
    waiting = sorted(issued.name for issued in execution.pending.values())
    return sorted(names.values()), ended, end, waiting, execution.untaken(), execution.status


# ---------------------------------------------------------------- larger programs, by seed


def seeds(harness: str, count: int) -> list[int]:
    """Those that once failed, some that are always the same, and new ones."""
    return [*kept(harness), *range(count // 3), *fresh(harness, (count - count // 3) * (50 if DEEP else 1))]


def grown(seed: int, *, timed: bool) -> tuple[random.Random, Body]:
    """A larger program, and what is left of its randomness."""
    rng = random.Random(seed)
    return rng, Grower(rng, timed).body(rng.randint(3, 9), 3)


def test_larger_programs_replay_and_survive_crashes() -> None:
    """P1, P2, P3 and the order of logs, for programs of hundreds of events, cut and crashed at a few places each."""
    for seed in seeds("larger-programs", 150):
        with keeping("larger-programs", seed):
            assert_laws_hold(seed)


def assert_laws_hold(seed: int) -> None:
    """For the program of this seed, cut and crashed at a few places."""
    rng, body = grown(seed, timed=False)
    kinds = ["cancel", "deadline", "note"]
    interruptions = {rng.randrange(60): rng.choice(kinds) for _ in range(rng.randrange(3))}
    outside = Chaos([rng.randrange(31) for _ in range(50)], interruptions, deliveries_max=12)
    journal = Journal()
    played = closed(play(workflow_of(body, journal), outside, look=glance))
    assert_in_order(body, played, journal)
    assert_go_on_alike(body, played, sorted({rng.randint(1, len(played.log)) for _ in range(4)}))
    crashed = play(
        workflow_of(body),
        outside,
        crashes=lambda turn: turn % 3 == 0,
        again=lambda: workflow_of(body),
    )
    assert closed(crashed).log == played.log
    assert_held_facts_count(body, played, rng)
    assert_nothing_slips_in(body, played, rng)
    TRIED["larger programs"] += 1
    TRIED["events of larger ones"] += len(played.log)
    TRIED["crashes"] += len(played.turns) // 3


def assert_nothing_slips_in(body: Body, played: Played, rng: random.Random) -> None:
    """P6: a fact within a turn, while a command is wanted, diverges."""
    ends = {*played.turns}
    inside = [cut for cut in range(2, len(played.log)) if cut not in ends]
    for cut in rng.sample(inside, min(3, len(inside))):
        execution = zart.replay(workflow_of(body), played.log[:cut])
        wanted = execution.decide()
        if wanted and not (isinstance(wanted[0], zart.Issued) and wanted[0].kind == "version"):
            with pytest.raises(zart.Diverged):
                execution.apply(rng.choice(early_facts(execution, played.log[cut - 1])))
            TRIED["facts too early"] += 1
        execution.close()


def early_facts(execution: zart.Execution, last: zart.Event) -> list[zart.Event]:
    """What may happen just now, and comes too early; an attempt may begin or fail before the fact has been answered."""
    now = execution.now
    facts: list[zart.Event] = [zart.Interrupted("cancel", now, "too early")]
    if isinstance(last, zart.Issued):
        steps = [seq for seq, issued in execution.pending.items() if issued.kind == "step"]
        facts += [zart.Began(seq, 0, at=now) for seq in steps]
        facts += [zart.Retried(seq, 0, zart.Failure("error", "E", "m"), now, now) for seq in steps]
    return facts


def test_larger_programs_give_what_a_direct_reading_gives() -> None:
    """P5: as above."""
    for seed in seeds("direct-reading", 600):
        with keeping("direct-reading", seed):
            assert_reads_directly(seed)


def assert_reads_directly(seed: int) -> None:
    """For the program of this seed, perhaps cut off by a cancellation."""
    rng, body = grown(seed, timed=True)
    assert_agrees_with_a_reading(body, rng.choice([math.inf, rng.randint(0, 300) + 1 / 3]))
    TRIED["larger ones read directly"] += 1
