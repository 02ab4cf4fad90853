"""The contract for stores: how many checks it has, what it reports, and that it rejects stores with one defect each."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import attrs
import pytest

from tests.broken_stores import stores
from zart_core.errors import InvalidUse
from zart_core.events import Ok
from zart_core.log import Turn
from zart_core.testing import Relay, StoreContract, VirtualClock, check_store
from zart_core.testing.contract import all_checks
from zart_core.testing.contract_report import PROMISES, stated
from zart_core.testing.contract_writes import together
from zart_stores import memory
from zart_stores.sql import sqlite

CLOCK = VirtualClock()


class Hurried(StoreContract):
    """Leases run by a clock that the checks move."""

    place: Path

    def advance(self, seconds):
        CLOCK.advance(seconds)


class OnDisk(Hurried):
    """A store that is one file."""

    def damage(self, payload):
        """Change the payload in the only file there is."""
        (file,) = self.place.iterdir()
        text, sought = file.read_text(), payload.hex()
        assert sought in text
        file.write_text(text.replace(sought, f"00{sought[2:]}"))


def memory_in(place: Path):
    return memory.open(f"memory:{place}", clock=CLOCK.now)


def report_of(store):
    """Hold a relay in front of a memory log to the promises."""
    if issubclass(store, stores.Remembered):

        def fresh(place: Path):
            return store(memory.open("memory:", clock=CLOCK.now), place)

        return check_store(fresh, contract=OnDisk, only=store.only)
    return check_store(lambda place: store(memory_in(place)), durable=False, contract=Hurried)


def test_a_store_with_all_abilities_is_checked_in_more_than_230_ways():
    """Each of L1 to L13 in several, each with a promise that is said in words."""
    found = list(all_checks(StoreContract))
    numbers = [number for name, _, _ in found for number in stated(getattr(StoreContract, name).__doc__)[0]]

    assert len(found) >= 330
    assert len({title for _, title, _ in found}) == len(found)
    assert set(numbers) == set(PROMISES)
    assert min(numbers.count(f"L{n}") for n in range(1, 14)) >= 2


def test_stores_that_keep_their_promises_pass():
    """Both as they are, and behind a relay; what they cannot show is said."""
    report = check_store(memory_in, durable=False, contract=Hurried)
    report.check()

    assert report.kept >= 325
    assert not report.broken
    text = str(report)
    assert (
        "F9           0       -  damaged bytes are refused with LogCorrupt (not shown: needs damage(payload))"
        in text
    )
    assert text.splitlines()[-1] == f"{report.kept} kept, {len(report.results) - report.kept} not shown"


def test_there_are_at_least_25_broken_stores():
    """Each says what is wrong with it, and which promise that breaks."""
    assert len(stores.ALL) >= 25
    assert all(set(stated(each.__doc__)[0]) <= set(PROMISES) for each in stores.ALL)


APART = {"F22"}
"""Also broken by a relay that takes a batch apart: what was before the bad write is written."""
PLAUSIBLE = {
    "AcknowledgesTheRejected": {"F15", "L1", "L2", "L6", "L7", "L8", "L13"},
    "AllOrNothing": APART,
    "ChecksBeforeTheLock": {*APART, "F27"},
    "ClaimsByWorkflow": {"F22", "L9", "L11"},
    "ConsumesNothing": {"L1", "L3", "L6", "L10", "L12", "R14"},
    "CountsTheEnded": {"L1"},
    "CreatesAgain": {"L6"},
    "CutsPayloads": {"F19"},
    "ForgetsKeys": {"L1", "L6", "L11"},
    "GivesToEverybody": {"L9"},
    "GoesOnAfterTheEnd": {"L6"},
    "IdAsPath": APART,
    "IgnoresFence": {*APART, "F15", "L1", "L3"},
    "IgnoresPosition": {*APART, "L1", "L3", "L6"},
    "KeepsWhatIsGivenBack": {"I6", "L2", "L11"},
    "KeepsTheFirstName": {"F22"},
    "LeavesTheRunning": {*APART, "L1"},
    "LosesTheSecond": {*APART, "L2"},
    "MarksNothing": {*APART, "I7", "L5", "L8", "L10", "L11"},
    "MissesExpiredLeases": {"F15", "L1"},
    "NeverSure": {"L5", "L8", "L10", "L11"},
    "NewestFirst": {"L1"},
    "NotAtomic": {"F15", "L3"},
    "OutOfOrder": {"L1", "R14"},
    "PostsApart": {"L3"},
    "RepeatsFences": {"F15", "L1", "L2"},
    "SleepsThrough": {"L2", "L8"},
    "TakesAnyTwin": {"L6"},
    "WaitsForNobody": {"F27", "L6", "L7", "R14"},
    "WakesEarly": {"L6"},
    "WakesLate": {"F13", "L6", "L8"},
}
"""What else shows, for good reason: the defect stands in the way of what these checks do."""


@pytest.mark.parametrize("store", stores.ALL, ids=lambda store: store.__name__)
def test_a_broken_store_is_rejected_for_the_right_reason(store):
    """Every promise that it breaks is found broken, and none beside it but what hangs on it."""
    promises = set(stated(store.__doc__)[0])

    report = report_of(store)

    found = {number for result in report.broken for number in result.promises}
    assert promises <= found, str(report)
    assert found <= promises | PLAUSIBLE.get(store.__name__, set()), str(report)
    for result in report.broken:
        assert any(f"{number} is broken: {PROMISES[number]}" in result.text for number in result.promises)
        assert "\n  wanted: " in result.text
        assert "\n  found:  " in result.text


class RewritesAll(Relay):
    """Writes all it has at each append, as one that keeps a single JSON file does."""

    appends = 0

    def append(self, batch):
        self.appends += 1
        assert self.appends < 3000, "the check does not end"
        for record in self.log.records("a"):
            for part in (record.kind, record.at, record.data) * 5:
                self.written(part)
        return self.log.append(batch)

    def written(self, part):
        return repr(part)


def test_a_store_that_rewrites_all_it_has_is_interrupted_and_passes():
    """Each interruption makes it a few calls longer: the check comes to its end all the same."""
    report = check_store(lambda place: RewritesAll(memory_in(place)), durable=False, only="test_interrupted")
    report.check()

    assert report.kept == 1


class LocksItsThreadsOnly(Relay):
    """Looks where a run ends before it writes, under a lock that other processes do not know."""

    lock = threading.Lock()

    def append(self, batch):
        with self.lock:
            return [self.one(item) for item in batch]

    def one(self, item):
        if (
            isinstance(item, Turn)
            and (found := self.log.summary(item.id))
            and found.position == item.position
        ):
            time.sleep(0.03)
            item = attrs.evolve(item, position=self.log.summary(item.id).position)
        return self.log.append([item])[0]


def test_a_lock_for_threads_is_not_enough():
    """A store that several processes may open is written by several."""
    for store, broken in ((Relay, 0), (LocksItsThreadsOnly, 1)):
        report = check_store(
            lambda place, store=store: store(sqlite.open(f"sqlite:{place}/log")), only="test_processes"
        )
        assert len(report.broken) == broken, str(report)


class GivesAList(Relay):
    """Says which ids were taken in a list, as `Receipt` allows."""

    def append(self, batch):
        return [
            Ok(attrs.evolve(one.value, conflicts=list(one.value.conflicts))) if isinstance(one, Ok) else one
            for one in self.log.append(batch)
        ]


def test_conflicts_are_any_sequence():
    """A store whose receipts hold a list keeps its promises."""
    report = check_store(lambda place: GivesAList(memory_in(place)), durable=False, only="test_new")
    report.check()
    assert report.kept > 10


class HardToClose(Relay):
    """Cannot be closed."""

    def close(self):
        raise ValueError("the file is not open")


class Forgetful(HardToClose):
    """Cannot be closed either, and breaks a promise before."""

    def records(self, id, run=None, start=0):
        return []


@pytest.mark.parametrize(
    ("store", "found"), [(HardToClose, "ValueError: the file is not open"), (Forgetful, "[]")]
)
def test_a_store_that_cannot_be_closed_is_reported_as_any_other(store, found):
    """One check is broken, with what went wrong first; the others are carried out."""
    report = check_store(lambda place: store(memory_in(place)), durable=False, only="test_new")

    assert len(report.results) > 10
    (first,) = (result for result in report.results if result.check == "test_new")
    assert first.verdict == "broken"
    assert found in first.text.splitlines()[-1]


@pytest.mark.parametrize("only", ["reads_back", "damaged", "test_killed"])
def test_what_the_stores_on_disk_are_built_on_keeps_those_promises(only):
    """So that they are rejected for their defect alone."""

    def fresh(place: Path):
        return stores.Remembered(memory.open("memory:", clock=CLOCK.now), place)

    report = check_store(fresh, contract=OnDisk, only=only)
    report.check()
    assert (report.kept, len(report.results)) == (1, 1)


def test_a_failure_says_what_was_done_wanted_and_found():
    """The whole text of one."""
    report = check_store(
        lambda place: stores.MarksNothing(memory_in(place)),
        durable=False,
        contract=Hurried,
        only="test_stats",
    )

    assert report.broken[0].text.splitlines() == [
        "L5 is broken: what is read is a gap-free prefix of what was appended, byte for byte, and never changes",
        "  check:  test_stats(): stats tell how many executions stand where.",
        *report.broken[0].text.splitlines()[2:5],
        "  wanted: {<Status.COMPLETED: 'completed'>: 1, <Status.PARKED: 'parked'>: 1, "
        "<Status.SCHEDULED: 'scheduled'>: 2}",
        "  found:  {<Status.SCHEDULED: 'scheduled'>: 3, <Status.COMPLETED: 'completed'>: 1}",
    ]
    assert report.broken[0].text.splitlines()[2].startswith("  done:   append((New(id='a', workflow='w'")
    with pytest.raises(AssertionError, match="1 broken"):
        report.check()


def test_a_failure_shows_every_write_of_a_batch():
    """Who is to find the one whose outcome is wrong has to see them all."""
    report = check_store(
        lambda place: stores.ConsumesNothing(memory_in(place)), durable=False, only="test_batch_in_order"
    )

    assert report.broken[0].text.count("Turn(id='a', run=0, position=") == 6
    assert report.broken[0].text.count("consumes=[1]") == 2


def test_no_check_is_called_so():
    """A typing mistake in `only` is no clean report."""
    with pytest.raises(InvalidUse, match="no check of the contract has 'test_foo' in its name"):
        check_store(memory_in, only="test_foo")


def test_it_needs_no_pytest():
    """`python -c` on a machine without it."""
    code = (
        "import sys; sys.modules['pytest'] = None\n"
        "from zart_core.testing import check_store\n"
        "from zart_stores import memory\n"
        "print(check_store(lambda place: memory.open(f'memory:{place}'), durable=False, only='test_turn'))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "2 kept"


def test_threads_of_a_check_take_turns_as_often_as_they_can():
    """So that a store without a lock is found out; afterwards all is as it was."""
    before = sys.getswitchinterval()

    assert max(together([sys.getswitchinterval] * 3)) < before / 100
    assert sys.getswitchinterval() == before
