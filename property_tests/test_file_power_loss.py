"""Power is lost at every call that the file log makes: what it acknowledged is there, nothing was made up.

A seeded world writes to a file log on a simulated disk. Before each call of the file system the disk states
that a power loss may leave are opened with the real store and compared with a plain model:

I1  acknowledged is a prefix of recovered is a prefix of attempted, byte for byte.
I2, I3  positions without gap, turns whole or absent: pictures are compared whole, write by write.
I4  what was once readable never changes: what an open showed survives the next loss of power.
I5  recovery is idempotent, also when it crashes itself.
I9  Ok is in, Rejected is out, Unknown is decided by reading.

A state is a pair: a moment (between two calls, of the workload or of a recovery) and the files that are found then;
choices of survivors that leave the same files at the same moment count once. Files that were found before are not
opened again, but what they showed is judged anew at each moment.

ZART_POWER_LOSS_STATES gives the number of states: 200,000 by default, 10 million in the deep run.
"""

import copy
import errno
import logging
import os
import random

import attrs
import pytest
from seeds import fresh, keeping, kept
from tally import tally

from zart_core.errors import StoreFailed, StoreUnavailable
from zart_core.events import Ok, Status
from zart_core.log import Mark, New, Post, Record, Rejected, Turn, Unknown
from zart_core.testing.filesystem import SimulatedFileSystem
from zart_stores.file import store

DEEP = bool(os.environ.get("ZART_DEEP"))
STATES = int(os.environ.get("ZART_POWER_LOSS_STATES", "10000000" if DEEP else "200000"))
WORKLOADS_MAX = 100
READING = frozenset({"pread", "size", "list_directory", "lock", "unlock", "close"})
"""Calls that change nothing on the disk."""


@attrs.define
class Execution:
    """What the model knows of an execution."""

    status: Status
    runs: list[list[Record]]
    inbox: dict[int, tuple[str, bytes]] = attrs.Factory(dict)
    keys: set[str] = attrs.Factory(set)
    posted: int = 0


class Model:
    """A direct reading of what accepted writes mean."""

    def __init__(self):
        self.executions: dict[str, Execution] = {}

    def apply(self, item):
        if isinstance(item, New):
            self.executions[item.id] = Execution(item.status, [list(item.records)])
        there = self.executions[item.id]
        if isinstance(item, Turn):
            there.runs[-1] += item.records
            there.status = item.status
            for number in item.consumes:
                del there.inbox[number]
            if item.opens is not None:
                there.runs.append(list(item.opens))
                there.status = Status.SCHEDULED
            for new in item.creates:
                if new.id not in self.executions:
                    self.apply(new)
            for post in item.posts:
                if post.id in self.executions and not self.executions[post.id].status.closed:
                    self.apply(post)
        if isinstance(item, Post) and item.key not in there.keys:
            there.posted += 1
            there.inbox[there.posted] = (item.name, item.payload)
            if item.key is not None:
                there.keys.add(item.key)
        if isinstance(item, Mark):
            there.status = item.status

    def picture(self):
        return {
            id: (str(there.status), tuple(map(tuple, there.runs)), tuple(there.inbox.items()))
            for id, there in sorted(self.executions.items())
        }


def seen(log):
    """The same picture, taken through the store's own methods."""
    return {
        summary.id: (
            str(summary.status),
            tuple(tuple(log.records(summary.id, run)) for run in range(summary.run + 1)),
            tuple((message.number, (message.name, message.payload)) for message in log.inbox(summary.id)),
        )
        for summary in log.list(limit=1000).items
    }


@pytest.fixture(autouse=True)
def quiet():
    """Ten thousand warnings about torn ends would be kept otherwise."""
    logger = logging.getLogger("zart.store")
    logger.disabled = True
    yield
    logger.disabled = False


class Caught(AssertionError):
    """The store broke a promise."""


class World:
    """One seed: a disk, a store, a model, and what may be found."""

    def __init__(self, seed, *, fs=None, durability="power", per_call=64):
        self.seed = seed
        self.random = random.Random(seed)
        self.fs = SimulatedFileSystem() if fs is None else fs
        self.durability = durability
        self.per_call = per_call
        self.model = Model()
        self.pictures = [{}]
        """What may be found: the first is what was acknowledged, the others add an attempted write each."""
        self.found = {}
        """What the store shows of the files that were found, by their hash."""
        self.states = 0
        self.calls = 0
        self.met = set()
        self.limits = self.random.random() < 0.3
        self.fs.on_call = self.lose_power
        self.log = self.open()

    def open(self, fs=None):
        return store.open(
            "file:/log",
            fs=fs or self.fs,
            durability=self.durability,
            segment_bytes=self.random.choice([1500, 5000]),
        )

    # ---- losing power

    def lose_power(self, call):
        """Judge every disk state that a loss of power may leave now."""
        self.calls += 1
        self.met.add(call.kind)
        for state, image in self.states_of(self.fs, self.per_call):
            if image not in self.found:
                state.capacity = None
                self.found[image] = self.look(state)
            self.expect(self.found[image], self.pictures, "after a loss of power")

    def states_of(self, fs, limit):
        """Give disk states, each with its hash; where the last call changed nothing it is still the same moment."""
        if fs.trace and fs.trace[-1].kind in READING:
            return
        here = set()
        for state in fs.crash_states(limit, seed=self.calls, ignore=["lock"]):
            image = hash(state.image())
            if image not in here:
                here.add(image)
                self.states += 1
                yield state, image

    def shown(self, state, image):
        """What the store shows of a state."""
        if image not in self.found:
            self.found[image] = self.picture_of(state)
        return self.found[image]

    def look(self, state):
        """Give what the store finds there, when it finds that again after a loss of power during or after recovery."""
        inner = []
        if len(self.found) % 4 == 0:
            state.on_call = lambda call: inner.extend(self.states_of(state, 4))
        picture = self.picture_of(state)
        state.on_call = None
        for again, image in inner:
            self.expect(self.shown(again, image), self.pictures, "after another while it recovered")
        for again, image in self.states_of(state, 4):
            self.expect(self.shown(again, image), [picture], "after another when it had recovered")
        if inner:
            self.write_on(state)
        return picture

    def picture_of(self, fs):
        fs.kill()
        try:
            log = self.open(fs)
            picture = seen(log)
            log.verify()
        except Exception as error:
            raise Caught(f"seed {self.seed}, call {self.calls}: {type(error).__name__}: {error}") from error
        return picture

    def write_on(self, fs):
        """What is recovered takes writes, and keeps them."""
        fs.kill()
        log = self.open(fs)
        before = seen(log)
        outcome = log.append([New("zz", "flow", "digest", [Record("Started", 1.0, b"on")], 1.0)])
        assert type(outcome[0]) is Ok, outcome
        after = before | {"zz": ("scheduled", ((Record("Started", 1.0, b"on"),),), ())}
        for again, image in self.states_of(fs, 4):
            self.expect(self.shown(again, image), [after], "after a loss behind the first write after it")

    def expect(self, picture, allowed, when):
        if picture not in allowed:
            raise Caught(
                f"seed {self.seed}, call {self.calls} {when}:\nfound {picture}\nacknowledged {allowed[0]}"
                f"\nattempted {allowed[-1]}"
            )

    # ---- the workload

    def run(self, batches):
        for _ in range(batches):
            self.trouble()
            batch, refused = self.batch()
            self.append(batch, refused)
            if self.random.random() < 0.12:
                self.reopen(clean=self.random.random() < 0.5)
        self.reopen(clean=True)

    def trouble(self):
        """Something for the disk to do wrong."""
        chance = self.random.random()
        if chance < 0.05:
            self.fs.inject("sync", self.random.randint(1, 2), error=errno.EIO)
        elif chance < 0.10:
            self.fs.inject("pwrite", short=self.random.randint(0, 400) or None, error=errno.EINTR)
        elif chance < 0.15:
            self.fs.inject("pwrite", short=self.random.randint(1, 600))
        elif chance < 0.17:
            self.fs.inject("sync_directory", error=errno.EIO)
        elif self.limits:
            used = sum(len(content) for _, content in self.fs.image())
            self.fs.capacity = self.random.choice([None, used + self.random.randint(0, 1500)])

    def append(self, batch, refused):
        model = copy.deepcopy(self.model)
        for item in batch:
            if id(item) not in refused:
                model.apply(item)
                self.pictures.append(model.picture())
        outcomes = self.log.append(batch)
        kinds = {type(outcome) for outcome in outcomes}
        if Unknown in kinds:
            self.met.add("unknown")
            self.reopen(clean=False)
            return
        for item, outcome in zip(batch, outcomes, strict=True):
            if id(item) in refused:
                assert isinstance(outcome, Rejected), (self.seed, outcome)
            elif isinstance(outcome, Ok):
                self.model.apply(item)
            else:
                assert outcome.reason.startswith("full"), (self.seed, outcome)
                self.met.add("full")
        self.pictures = [self.model.picture()]

    def reopen(self, *, clean):
        """Close or die, open again, and find out; what is shown now must stay (I4)."""
        self.fs.capacity = None
        if clean:
            self.log.close()
        self.fs.kill()
        for _ in range(5):
            try:
                self.log = self.open()
                break
            except (StoreFailed, StoreUnavailable):
                self.fs.kill()
        picture = seen(self.log)
        self.expect(picture, self.pictures, "after opening again")
        self.pictures = [picture]
        self.model = model_of(self.log)

    def batch(self):
        """Some writes that fit the model, and which of them are to be refused."""
        model = copy.deepcopy(self.model)
        batch, refused, touched = [], set(), set()
        for _ in range(self.random.choice([1, 1, 1, 2, 4])):
            item = self.item(model)
            ids = {item.id, *(new.id for new in getattr(item, "creates", ()))}
            if self.limits and ids & touched:
                continue
            touched |= ids
            if isinstance(item, Turn) and self.random.random() < 0.1:
                item = attrs.evolve(item, position=item.position + 1)
                refused.add(id(item))
            else:
                model.apply(item)
            batch.append(item)
        return batch, refused

    def item(self, model):
        open_ = [id for id, there in model.executions.items() if not there.status.closed]
        chance = self.random.random()
        if not open_ or (chance < 0.2 and len(model.executions) < 6):
            return New(f"e{len(model.executions)}", "flow", "digest", self.records(), 1.0)
        id = self.random.choice(open_)
        there = model.executions[id]
        if chance < 0.3:
            key = self.random.choice([None, f"k{there.posted}"])
            return Post(
                id, "event", "ready", self.random.randbytes(self.random.choice([0, 5, 700])), 2.0, key
            )
        if chance < 0.4:
            return Mark(id, self.random.choice([Status.PARKED, Status.PAUSED, Status.WAITING]), "because")
        status = self.random.choice([Status.WAITING, Status.RUNNING, Status.WAITING, Status.COMPLETED])
        records, consumes = self.records(), list(there.inbox)[: self.random.randint(0, 2)]
        opens, creates, posts = None, [], []
        if self.random.random() < 0.1:
            status, opens = Status.CONTINUED, self.records()
        if self.random.random() < 0.1 and len(model.executions) < 6:
            child = f"e{len(model.executions)}"
            creates = [New(child, "flow", "digest", self.records(), 3.0)]
            posts = [Post(child, "event", "go", b"\xff\x00", 3.0, "once")]
        return Turn(
            id,
            len(there.runs) - 1,
            len(there.runs[-1]),
            0,
            records,
            3.0,
            status,
            consumes=consumes,
            opens=opens,
            creates=creates,
            posts=posts,
        )

    def records(self):
        sizes = [self.random.choice([0, 20, 150, 150, 600, 1500]) for _ in range(self.random.randint(1, 3))]
        return [Record("Event", 3.0, self.random.choice([b"\x80", b"a"]) * size) for size in sizes]


def model_of(log):
    """A model that stands where the log stands."""
    model = Model()
    for summary in log.list(limit=1000).items:
        there = Execution(summary.status, [log.records(summary.id, run) for run in range(summary.run + 1)])
        messages = log.inbox(summary.id)
        there.inbox = {message.number: (message.name, message.payload) for message in messages}
        there.posted = log._shelf.by_id[summary.id].posted  # keys are made of it
        there.keys = {key for _, key in log._shelf.keys if _ == log._shelf.by_id[summary.id].key}
        model.executions[summary.id] = there
    return model


@pytest.mark.parametrize("half", ["first", "second"])
def test_power_loss(half):
    """Whatever a loss of power leaves, what was acknowledged is found, and nothing that was not attempted."""
    states = opened = played = 0
    met, wanted = set(), {"sync", "sync_directory", "rename", "truncate", "unknown", "full"}
    old = kept("file-power-loss") if half == "first" else []
    for seed in [*old, *fresh("file-power-loss", STATES)]:
        enough = states >= STATES // 2 and played >= len(old)
        if enough and (wanted <= met or played >= WORKLOADS_MAX):  # one in five or so finds its disk full
            break
        with keeping("file-power-loss", seed):
            world = World(seed)
            world.run(10)
        states, opened, played = states + world.states, opened + len(world.found), played + 1
        met |= world.met
    assert states >= STATES // 2 and opened >= states // 20
    assert wanted <= met
    print(f"{states:,} disk states, {opened:,} of them different, of {played} seeds")
    tally("simulated file system", states=states, different=opened, workloads=played)


class NoSync(SimulatedFileSystem):
    """A disk whose sync does nothing."""

    def sync(self, fd):
        pass


class NoDirectorySync(SimulatedFileSystem):
    """A disk whose directories are never synced."""

    def sync_directory(self, path):
        pass


class SyncAgain(SimulatedFileSystem):
    """A store that tries a failed sync again, and takes the second answer for the truth."""

    def sync(self, fd):
        try:
            super().sync(fd)
        except OSError:
            super().sync(fd)


@pytest.mark.parametrize("fs", [NoSync, NoDirectorySync, SyncAgain])
def test_bad_disk(fs):
    """The harness notices a disk that lies."""
    with pytest.raises(Caught):
        for seed in range(60):
            World(seed, fs=fs(), per_call=8).run(14)


def test_bad_level():
    """The harness notices a store that acknowledges before it syncs."""
    with pytest.raises(Caught):
        for seed in range(10):
            World(seed, durability="process", per_call=8).run(14)
