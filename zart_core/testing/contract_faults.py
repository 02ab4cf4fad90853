"""Checks of a store. What it does when something goes wrong: disk, clock, openers, forks, interruptions."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

from zart_core.errors import FormatTooNew, LogCorrupt, StoreFailed, StoreLocked, Weather, ZartError
from zart_core.events import Ok, Status
from zart_core.log import EventLog, Rejected, Turn
from zart_core.testing.contract_base import Contract, bare
from zart_core.testing.contract_report import Differs, checks, raising, short
from zart_core.testing.contract_writes import (
    TOGETHER_S,
    claimed,
    expect,
    new,
    post,
    records,
    standing,
    state,
    together,
    turn,
    write,
)

MARKED = b'{"a payload that is looked for": "0123456789abcdef"}'

FORKS = 10
"""How often a child is forked while a thread works: most of them find it in the store."""
TURNS = 10
"""How many turns each of several processes appends."""
CALLS_MAX = 1 << 30
"""More calls of functions than an append makes."""
WITHIN_A_WITH = frozenset({"__enter__", "__exit__", "__del__", "inner", "helper"})


@checks
class FaultChecks(Contract):
    """What it does when something goes wrong."""

    # ------------------------------------------------ disk

    def test_full(self, log: EventLog) -> None:
        """F6: with no room left a turn is Rejected and nothing of it is there; with room it goes through."""
        write(log, new(), post(key="k"))
        before = state(log, "a", "b")
        item = turn(
            "a", 1, records=records("X", at=2.0, data=bytes(100_000)), creates=[new("b")], consumes=[1]
        )
        with self.full(bare(log)):
            (outcome,) = log.append([item])
            if not isinstance(outcome, Rejected):
                raise Differs("Rejected", short(outcome), "a turn for which there is no room")
            expect(state(log, "a", "b"), before, "what can be read while there is no room")
        expect(state(log, "a", "b"), before)
        write(log, item)
        expect(standing(log).position, 2)
        log.verify()

    def test_read_error(self, log: EventLog) -> None:
        """F8: a read error is raised; once it is over everything is there, and nothing was cut off."""
        write(log, new(), turn("a", 1, "X", "Y"))
        with self.unreadable(bare(log)), raising(ZartError):
            log.records("a")
        expect([record.kind for record in log.records("a")], ["Started", "X", "Y"])
        write(log, turn("a", 3, "Z"))

    def test_damaged(self) -> None:
        """F9, L12: a record that was changed where it is stored is LogCorrupt for who reads it, and for verify."""
        log = self.opened()
        write(log, new(), new("b"))
        write(log, turn("a", 1, records=records("X", at=2.0, data=MARKED)), turn("b", 1, "Y"))
        log.close()
        self.damage(MARKED)
        found = False
        try:
            log = self.opened()
        except LogCorrupt:
            return
        try:
            with raising(LogCorrupt):
                log.records("a")
            found = True
            with raising(LogCorrupt):
                log.verify()
        finally:
            if found:
                expect([record.kind for record in log.records("b")], ["Started", "Y"], "I8: its neighbour")
            log.close()

    def test_newer(self) -> None:
        """F26: a store of a newer format is refused, and is not touched."""
        log = self.opened()
        write(log, new())
        log.close()
        self.newer()
        with raising(FormatTooNew):
            self.opened()

    # ------------------------------------------------ openers and forks

    def test_second_opener(self, log: EventLog) -> None:
        """F11: a store that takes one opener refuses a second one at once, and the first goes on."""
        self.needs(not self.shared, "it may be opened several times")
        write(log, new())
        with raising(StoreLocked):
            self.open().close()
        write(log, turn("a", 1, "X"))
        expect(standing(log).position, 2)

    def test_fork(self, log: EventLog) -> None:
        """F12: a child that was forked cannot use the store, and does no harm to its parent's."""
        self.needs(self.durable and hasattr(os, "fork"), "nothing of it is shared with a child")
        write(log, new())
        expect(refusal_in_child(log), "refused", "what a forked child may do")
        write(log, turn("a", 1, "X"))
        expect([record.kind for record in log.records("a")], ["Started", "X"])
        log.verify()

    def test_fork_in_use(self, log: EventLog) -> None:
        """F12: a child that is forked while another thread is in the store is refused as well, and waits for nobody."""
        self.needs(self.durable and hasattr(os, "fork"), "nothing of it is shared with a child")
        write(log, new())
        store, over = bare(log), threading.Event()

        def use() -> None:
            for n in itertools.takewhile(lambda _: not over.is_set(), itertools.count()):
                write(store, new(f"b{n}"))
                store.records("a")

        user = threading.Thread(target=use, daemon=True)
        user.start()
        try:
            for _ in range(FORKS):
                expect(
                    refusal_in_child(store), "refused", "what a forked child may do while its parent works"
                )
        finally:
            over.set()
            user.join(TOGETHER_S)
        log.verify()

    def test_killed(self) -> None:
        """L4: what was acknowledged is there though the process that wrote it has died and closed nothing."""
        self.needs(self.durable and hasattr(os, "fork"), "its records go with its process")

        def write_and_die() -> int:
            store = self.open()
            write(store, new(), new("b"))
            write(store, turn("a", 1, "X", "Y"), post("b", b"m"))
            return 0

        expect(in_child(write_and_die), 0, "how the process ended that wrote (0: all was acknowledged)")
        log = self.opened()
        expect([record.kind for record in log.records("a")], ["Started", "X", "Y"])
        expect([message.payload for message in log.inbox("b")], [b"m"])
        write(log, turn("a", 3, "Z"))
        log.verify()
        log.close()

    def test_processes(self) -> None:
        """L2: of processes that write to the same position of a run one goes through each time, and stands there."""
        self.needs(self.shared and self.durable and hasattr(os, "fork"), "it takes one opener")
        log = self.opened()
        write(log, new())
        log.close()  # nobody forks with a log that is open
        writers = [forked(partial(write_beside_others, self.open, f"{n}")) for n in range(3)]
        expect(
            [end_of(writer) for writer in writers],
            [0, 0, 0],
            "how writers ended (1: a turn stands elsewhere)",
        )
        log = self.opened()
        wanted = sorted(f"{n}.{k}" for n in range(3) for k in range(TURNS))
        expect(sorted(record.kind for record in log.records("a")[1:]), wanted)
        log.verify()
        log.close()

    # ------------------------------------------------ clocks and zombies

    def test_clock_goes_back(self, log: EventLog) -> None:
        """F13: a worker whose clock is behind gets nothing early, and one whose clock went back nothing twice."""
        write(log, new(wake=None), turn("a", 1, "X", wake=50.0))
        expect([claimed(log, now=now) for now in (40.0, 50.0, 10.0, 60.0)], [[], ["a"], [], []])
        write(log, turn("a", 2, "Y", fence=1, wake=80.0))
        expect([claimed(log, now=now) for now in (79.9, 20.0, -1e9, 80.0, 80.0)], [[], [], [], ["a"], []])

    def test_clock_leaps(self, log: EventLog) -> None:
        """F13: a worker whose clock is far ahead takes no lease away from another."""
        write(log, new())
        expect(claimed(log, "w1"), ["a"])
        expect((claimed(log, "w2", now=1e12), standing(log).owner), ([], "w1"))

    def test_zombie_writes_nothing(self, log: EventLog) -> None:
        """F15, L1: of a turn of a worker that lost its lease nothing is written, nor of what goes along with it."""
        write(log, new(), post(key="k"))
        expect(claimed(log, "w1", lease_s=0.2), ["a"])
        self.advance(0.4)
        expect(claimed(log, "w2"), ["a"])
        before = state(log, "a", "b")
        late = turn("a", 1, "Late", fence=1, consumes=[1], creates=[new("b")], status=Status.COMPLETED)
        (outcome,) = log.append([late])
        if not isinstance(outcome, Rejected):
            raise Differs("Rejected('stale ...')", short(outcome), "the turn of a zombie")
        expect(state(log, "a", "b"), before)

    # ------------------------------------------------ interruptions

    def test_interrupted(self) -> None:
        """F27: interrupted at any call in an append, a turn is whole or absent, and after it others can write.

        A store that fails for it may have to be opened again. One that does more in each append, the more it holds, is
        interrupted at some of its calls only.
        """
        log = self.opened()
        write(log, new())
        left = append_interrupted(log, turn("a", 1, "0.0", "0.1", "0.2"), CALLS_MAX)
        each = 2 * (CALLS_MAX - left)
        position, calls, left = standing(log).position, 1, 0
        while not left:
            kinds = [f"{calls}.{n}" for n in range(3)]
            left = append_interrupted(log, turn("a", position, *kinds), calls)
            try:
                log.summary("a")
            except StoreFailed:
                self.needs(self.durable, "it has failed, and cannot be opened again")
                log = self.reopened(log)
            found = [record.kind for record in log.records("a", start=position)]
            expect(found in ([], kinds), True, f"interrupted at call {calls}: a part of the turn, {found}")
            position += len(found)
            expect(standing(log).position, position, f"interrupted at call {calls}")
            together([partial(write, log, turn("a", position, "After"))])
            position += 1
            calls += 1 if calls < each else 1 + calls // 20
        log.verify()
        log.close()


def refusal_in_child(log: EventLog) -> str:
    """What happens when a forked child appends and reads: "refused", or what it was allowed."""
    ended = in_child(lambda: forbidden_uses(log))
    return {0: "refused", 1: "append", 2: "records"}.get(ended, f"it died: {ended}")


def write_beside_others(opener: Callable[[], EventLog], name: str) -> int:
    """Append some turns, each at the end; 1 when one of them does not stand where it was to stand, else 0."""
    store = opener()
    for n in range(TURNS):
        position = -1
        while position < 0 or not isinstance(store.append([turn("a", position, f"{name}.{n}")])[0], Ok):
            position = standing(store).position
        if store.records("a", start=position)[0].kind != f"{name}.{n}":
            return 1
    return 0


def in_child(work: Callable[[], int]) -> int:
    """Do something in a forked child that dies of it; gives how it ended."""
    return end_of(forked(work))


def forked(work: Callable[[], int]) -> int:
    """Fork a child that does something and dies: with the number that this gives, 3 for an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads: the child does very little
        child = os.fork()
    if child == 0:
        ended = 3
        try:
            signal.alarm(int(TOGETHER_S))
            ended = work()
        except BaseException:  # noqa: BLE001  # it goes no further: the child ends
            traceback.print_exc(file=sys.__stderr__)
        finally:
            os._exit(ended)
    return child


def end_of(child: int) -> int:
    """The number that a child has died with, or the negative one of a signal."""
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def forbidden_uses(log: EventLog) -> int:
    """Which use was allowed: 1 for an append, 2 for a read; 0 for none."""
    with contextlib.suppress(StoreFailed, Weather):
        if any(isinstance(outcome, Ok) for outcome in log.append([new("child")])):
            return 1
    with contextlib.suppress(StoreFailed, Weather):
        log.records("a")
        return 2
    return 0


def append_interrupted(log: EventLog, item: Turn, calls: int) -> int:
    """Append, and raise KeyboardInterrupt at the so-manieth call of a function there; gives how many were left.

    Where a function begins a signal's handler may run; not in what a `with` calls, where no code can be safe from it.
    """
    left = calls

    def count(frame: FrameType, event: str, _: object) -> Any:
        nonlocal left
        if left and event == "call" and frame.f_code.co_name not in WITHIN_A_WITH:
            left -= 1
            if left == 0:
                raise KeyboardInterrupt

    before = sys.gettrace()
    sys.settrace(count)
    try:
        log.append([item])
        return left
    except KeyboardInterrupt:
        return 0
    finally:
        sys.settrace(before)
