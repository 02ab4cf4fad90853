"""The file log: the contract, the format, and what a damaged, full or failing disk does."""

import contextlib
import errno
import itertools
import logging
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from property_tests.lines import interrupted
from zart_core.errors import (
    FormatTooNew,
    InvalidUse,
    LogCorrupt,
    StoreFailed,
    StoreLocked,
    StoreUnavailable,
)
from zart_core.events import Ok, Status
from zart_core.log import EventLog, Mark, New, Post, Record, Rejected, Turn, Unknown
from zart_core.testing.contract import StoreContract, claimed, expect, new, post, refused, turn, write
from zart_core.testing.filesystem import SECTOR, SimulatedFileSystem
from zart_stores.file import bodies, frames, store
from zart_stores.file.fs import RealFileSystem

GOLDEN = pathlib.Path(__file__).parent / "data" / "file-format-1"
FIRST = "/log/segment-00000001.zart"
SECOND = "/log/segment-00000002.zart"


class TestFileContract(StoreContract):
    durable = True
    shared = False

    @pytest.fixture(autouse=True)
    def place(self, tmp_path):
        self.url = f"file:{tmp_path}/log"
        self.now = 1000.0

    def open(self):
        return store.open(self.url, clock=lambda: self.now)

    def advance(self, seconds):
        self.now += seconds


class TestSimulatedDiskContract(StoreContract):
    """The same on a simulated disk, with a segment for every few frames."""

    durable = True
    shared = False

    @pytest.fixture(autouse=True)
    def place(self):
        self.fs = SimulatedFileSystem()
        self.now = 1000.0

    def open(self):
        return store.open("file:/log", fs=self.fs, clock=lambda: self.now, segment_bytes=1000)

    def advance(self, seconds):
        self.now += seconds

    def test_killed(self):
        """Not as in the contract: the disk is part of this process. Its crash states are tested below."""


@pytest.fixture
def fs():
    return SimulatedFileSystem()


def opened(fs, **how):
    return store.open("file:/log", fs=fs, **how)


def again(fs, **how):
    """Open it as the next process would, after the last one was killed."""
    fs.kill()
    return opened(fs, **how)


def kinds(log, id="a", run=None):
    return [record.kind for record in log.records(id, run)]


# ---------------------------------------------------------------- opening


@pytest.mark.parametrize(
    "url", ["file", "file:", "files:x", "file://host/x", "sqlite:x", "", "file:a\0b", "FILE:x"]
)
def test_bad_url(url):
    """Another URL is refused, with one that works."""
    with pytest.raises(InvalidUse, match="write file:DIR"):
        store.open(url)


@pytest.mark.parametrize("durability", ["none", "", "full", "Power"])
def test_bad_durability(durability, tmp_path):
    """Levels are power and process."""
    with pytest.raises(InvalidUse, match="'power' or 'process'"):
        store.open(f"file:{tmp_path}/log", durability=durability)


def test_urls(tmp_path, monkeypatch):
    """Relative and absolute paths name the same log, whatever the working directory becomes."""
    monkeypatch.chdir(tmp_path)
    log = store.open("file:logs")
    monkeypatch.chdir("/")
    write(log, new())
    log.close()
    for url in (f"file:{tmp_path}/logs", f"file://{tmp_path}/logs"):
        log = store.open(url)
        expect(kinds(log), ["Started"])
        log.close()


def test_a_link_that_is_changed_while_the_log_is_open(tmp_path):
    """The log stays where it was opened: no segment of it is begun where the link leads now."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    link = tmp_path / "link"
    link.symlink_to("one")
    log = store.open(f"file:{link}/log", segment_bytes=200)
    write(log, new())
    link.unlink()
    link.symlink_to("two")
    (tmp_path / "two" / "log").mkdir()
    write(log, turn("a", 1, "X"))
    log.close()
    assert list((tmp_path / "two" / "log").iterdir()) == []
    log = store.open(f"file:{tmp_path}/one/log")
    expect(kinds(log), ["Started", "X"])
    log.close()


def test_level(fs):
    """The level is what was asked for; only power syncs."""
    log = opened(fs, durability="process")
    before = len([call for call in fs.trace if call.kind == "sync"])
    write(log, new())
    assert log.level == "process"
    assert len([call for call in fs.trace if call.kind == "sync"]) == before
    log.close()
    log = opened(fs)
    write(log, turn("a", 1, "X"))
    assert (log.level, log.blocking, isinstance(log, EventLog)) == ("power", True, True)


def test_one_write_one_sync(fs):
    """A batch of turns of many executions is one write and one sync (L6)."""
    log = opened(fs)
    write(log, *(new(f"e{n}") for n in range(100)))
    fs.trace.clear()
    write(log, *(turn(f"e{n}", 1, "X", "Y") for n in range(100)))
    assert [call.kind for call in fs.trace] == ["pwrite", "sync"]


def test_no_such_parent(tmp_path):
    """The directory is made, the one above is not."""
    with pytest.raises(InvalidUse, match="The directory above it must be there"):
        store.open(f"file:{tmp_path}/no/log")


def test_not_a_directory(tmp_path):
    """A file is no directory."""
    (tmp_path / "log").write_text("hello")
    with pytest.raises(InvalidUse, match="Not a directory"):
        store.open(f"file:{tmp_path}/log")


def test_permissions(tmp_path):
    """Nobody else can read the log, or list it."""
    log = store.open(f"file:{tmp_path}/log")
    write(log, new())
    files = {path.name: oct(path.stat().st_mode & 0o777) for path in (tmp_path / "log").iterdir()}
    assert files == {"lock": "0o600", "segment-00000001.zart": "0o600"}
    assert oct((tmp_path / "log").stat().st_mode & 0o777) == "0o700"
    log.close()


@pytest.mark.parametrize("name", ["lock", "segment-00000001.zart"])
def test_symbolic_link(tmp_path, name):
    """A link in the place of a file is not followed."""
    store.open(f"file:{tmp_path}/log").close()
    (tmp_path / "log" / name).rename(tmp_path / "elsewhere")
    (tmp_path / "log" / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises((InvalidUse, StoreUnavailable), match="symbolic links"):
        store.open(f"file:{tmp_path}/log")


def test_symbolic_link_for_the_directory(tmp_path):
    """Nor is one that takes the directory's place while it is in use: what is synced would be another directory."""
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        RealFileSystem().sync_directory(f"{tmp_path}/link")


def test_no_room_to_open(fs):
    """A log that cannot be begun for want of room says so, and can be when there is some."""
    fs.capacity = 50
    with pytest.raises(StoreUnavailable, match="no room"):
        opened(fs)
    fs.capacity = None
    write(opened(fs), new())


@pytest.mark.parametrize("kind", ["make_directory", "open"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EMFILE, errno.EIO])
def test_an_opening_that_may_be_tried_again(fs, kind, code):
    """F6: that there is no room for a directory or a lock, or no descriptor, is weather and no wrong use."""

    def fail(call):
        if call.kind == kind:
            raise OSError(code, os.strerror(code))

    fs.on_call = fail
    with pytest.raises(StoreUnavailable, match=os.strerror(code)):
        opened(fs)
    fs.on_call = None
    write(opened(fs), new())


# ---------------------------------------------------------------- one at a time


def test_second_opener(tmp_path):
    """The same process cannot open it twice; the error says where it is open and what else to use (F11)."""
    log = store.open(f"file:{tmp_path}/log")
    with pytest.raises(StoreLocked, match=rf"process {os.getpid()}\b.*sqlite: or postgresql:"):
        store.open(f"file:{tmp_path}/log")
    write(log, new())
    log.close()
    log.close()
    store.open(f"file:{tmp_path}/log").close()


def test_second_opener_when_the_holder_cannot_be_read(fs):
    """That the log is open is known all the same (F8, F11)."""
    log = opened(fs)
    fs.inject("pread", error=errno.EIO)
    with pytest.raises(StoreLocked, match="is open already, in another process"):
        opened(fs)
    write(log, new())


OPENER = """
import sys
from zart_core.errors import StoreLocked
from zart_stores.file import store
try:
    store.open(sys.argv[1])
except StoreLocked as locked:
    print(locked)
"""


def run(code, *args):
    return subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, timeout=60)


def test_second_process(tmp_path):
    """Another process cannot open it at the same time, and can afterwards (F11)."""
    log = store.open(f"file:{tmp_path}/log")
    assert f"is open already, in process {os.getpid()}" in run(OPENER, f"file:{tmp_path}/log").stdout
    log.close()
    ended = run(OPENER, f"file:{tmp_path}/log")
    assert (ended.stdout, ended.stderr) == ("", "")


def test_failed_open_gives_the_lock_back(fs):
    """Who could not open it does not keep it locked."""
    write(opened(fs), new())
    fs.kill()
    fs.inject("pread", error=errno.EIO)
    with pytest.raises(StoreUnavailable):
        opened(fs)
    opened(fs).close()


@pytest.mark.parametrize("call", ["void", "encode_closed"])
def test_interrupted_opening_and_closing_give_the_lock_back(tmp_path, monkeypatch, call):
    """F27: wherever opening or closing is interrupted, the same process can open the log again."""
    url = f"file:{tmp_path}/log"
    log = store.open(url)
    write(log, new())

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(store, call, interrupt)
        with pytest.raises(KeyboardInterrupt):
            log.close()
            store.open(url)
    store.open(url).close()
    log.close()


def held_open(folder):
    """How many descriptors of this process are of files in a folder."""
    files = {(status.st_dev, status.st_ino) for status in map(os.stat, folder.iterdir())}
    count = 0
    for descriptor in range(256):
        with contextlib.suppress(OSError):
            status = os.fstat(descriptor)
            count += (status.st_dev, status.st_ino) in files
    return count


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_fork(tmp_path):
    """A forked child is refused, closing it there leaves nothing open, and takes nothing from the parent (F12)."""
    log = store.open(f"file:{tmp_path}/log")
    write(log, new())
    child = os.fork()
    if child == 0:
        refusals = 0
        for use in (lambda: log.summary("a"), lambda: log.append([new("b")]), lambda: log.wait(0.0)):
            try:
                use()
            except StoreFailed as failed:
                refusals += "before a fork" in str(failed)
        log.close()
        os._exit(refusals + 10 * held_open(tmp_path / "log"))
    assert held_open(tmp_path / "log") > 1
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    with pytest.raises(StoreLocked):
        store.open(f"file:{tmp_path}/log")
    write(log, turn("a", 1, "X"))
    log.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_close_unlocks_in_spite_of_children(tmp_path):
    """A child that lives on with a copy of the descriptors does not keep the log locked."""
    log = store.open(f"file:{tmp_path}/log")
    child = os.fork()
    if child == 0:
        signal.pause()
    try:
        log.close()
        store.open(f"file:{tmp_path}/log").close()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


FORKING = """
import os, signal, sys
from zart_stores.file import store
log = store.open(sys.argv[1])
if os.fork() == 0:
    print(os.getpid(), flush=True)
signal.pause()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_death_unlocks_in_spite_of_children(tmp_path):
    """F1: a log whose process was killed can be opened again, while a child that it had forked lives on."""
    url = f"file:{tmp_path}/log"
    with subprocess.Popen([sys.executable, "-c", FORKING, url], stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        try:
            parent.kill()
            parent.wait()
            store.open(url).close()
        finally:
            os.kill(child, signal.SIGKILL)


def test_claims_are_void(fs):
    """A new opener finds every claim void: what was RUNNING, or given and not answered, is due at once."""
    log = opened(fs)
    write(log, new("running", owner="w1", wake=None), new("given"), new("waiting", wake=99.0), new("paused"))
    write(log, turn("running", 1, "X", fence=1, status=Status.RUNNING))
    write(log, Mark("paused", Status.PAUSED))
    expect(claimed(log), ["given"])
    log = again(fs)
    expect(sorted(claimed(log, "w2")), ["given", "running"])
    expect(claimed(log, "w2", now=100.0), ["waiting"])


def test_workers_of_earlier_sessions_have_no_lease(fs):
    """However many sessions a log has had, a claim looks at the leases of this one's workers alone (Rule 2, L10)."""
    for n in range(3):
        log = opened(fs)
        write(log, new(f"a{n}", owner=f"w{n}"))
        log.close()
    log = opened(fs)
    write(log, new("b", owner="w"))
    assert (set(log._memory._shelf.leases), set(log._memory._shelf.held)) == ({"w"}, {"w"})


def test_fences_grow(fs):
    """Fences go on from the greatest on record, which a clean close brings up to date (I6)."""
    log = opened(fs)
    write(log, new())
    for _ in range(3):
        claimed(log)
        log.release("w1")
    assert log.summary("a").fence == 3
    log.close()
    log = opened(fs)
    claimed(log)
    assert log.summary("a").fence == 4
    write(log, turn("a", 1, "X", fence=4))
    log = again(fs)
    assert log.summary("a").fence == 4
    refused(log, turn("a", 2, "X", fence=3), "stale")
    assert log.acquire("w1", "a", lease_s=9.0).fence == 5


def test_idle_sessions_leave_no_trace(fs):
    """Opening and closing writes nothing once the log is closed."""
    log = opened(fs)
    write(log, new(owner="w1"))
    log.close()
    before = fs.read_file(FIRST)
    for _ in range(3):
        log = opened(fs)
        expect(kinds(log), ["Started"])
        log.close()
    assert fs.read_file(FIRST) == before
    assert sorted(fs.list_directory("/log")) == ["lock", "segment-00000001.zart"]


def test_claim_only_sessions(fs):
    """Sessions that only claim add a footer each; the log can be written to afterwards, and is whole."""
    log = opened(fs)
    write(log, new())
    for _ in range(3):
        claimed(log)
        log.close()
        log = opened(fs)
    claimed(log)
    write(log, turn("a", 1, "X", fence=4))
    log = again(fs)
    assert (kinds(log), log.summary("a").fence, log.verify()["records"]) == (["Started", "X"], 4, 2)


# ---------------------------------------------------------------- the format


def test_less(fs):
    """The log can be read with `less`: a line a frame, fixed widths, text as text."""
    log = opened(fs)
    write(log, new("order-42", records=[Record("Started", 1.5, b'{"sku":"x"}')]))
    write(log, post("order-42", b"\xff\x00", at=2.0))
    log.close()
    lines = fs.read_file(FIRST).decode().splitlines()
    digits = [re.sub(r"[0-9a-f]{16}", "#" * 16, line, count=1) for line in lines]
    assert digits[0].startswith("=zart\t0001\t0000000089\t################\t{")
    assert digits[1].startswith("=frame\t0000000165\t################\t0000000000000000\t0000000000000129\t{")
    assert '"id":"order-42"' in lines[1]
    assert r'"text":"{\"sku\":\"x\"}"' in lines[1]
    assert '"base64":"/wA="' in lines[2]
    assert lines[3].split("\t")[0] == "=close"
    assert len(lines) == 4


def test_sizes_on_disk(fs):
    """A head has 39 bytes and a frame 70 beside their JSON."""
    sealer = frames.Sealer("salt")
    line = sealer.line(b"{}", 0, 0, 0)
    assert len(line) == 72
    found = sealer.read(line, 0, 0)
    assert (found.length, found.body, found.sum) == (72, b"{}", frames.sum_of(line))


WRITES = [
    New("a", "flow", "digest", [Record("Started", 1.0, b"\x80")], 1.0),
    New(
        "b",
        "flow",
        "digest",
        [],
        1.5,
        Status.RUNNING,
        None,
        "w1",
        [New("c", "flow", "d", [Record("Started", 1.0, b"child")], 1.0)],
        [Post("c", "child", "n", b"\xff", 1.0, "k")],
    ),
    Post("a", "event", "ready", b"", 2.0),
    Post("a", "cancel", "", b"text", 2.0, "key"),
    Turn("a", 0, 1, 0, [], 3.0, Status.PARKED),
    Turn(
        "b",
        3,
        7,
        2,
        [Record("X", 3.0, b"x"), Record("Y", 3.0, b"\xc3")],
        3.0,
        Status.CONTINUED,
        12.25,
        4,
        [1, 3],
        [Record("Started", 3.0, b"second")],
        [New("d", "flow", "d", [], 1.0)],
        [Post("a", "terminate", "n", b"", 1.0)],
        True,
    ),
    Mark("a", Status.PAUSED),
    Mark("a", Status.PARKED, "why", "build", 3.0, 2, 5, True),
]


def plainly(value):
    """Records as plain data: what is compared is the values, not whether a tuple came back as a list."""
    return msgspec.json.decode(msgspec.json.encode(value))


@pytest.mark.parametrize("item", WRITES, ids=lambda item: type(item).__name__)
def test_bodies(item):
    """Every write comes back from its frame as it was, byte for byte."""
    assert plainly(bodies.decode(bodies.encode(item))) == plainly(item)


@pytest.mark.parametrize(
    "item",
    [
        post(kind="signal"),
        post(kind=None),
        new("b", status="waiting"),
        new("b", creates=[new("c", status="open")]),
        turn("a", 1, status="done"),
        turn("a", 1, posts=[post(kind="signal")]),
        Mark("a", "parked"),
        turn("a", 1, records=[Record("k" * 1025, 2.0, b"")]),
    ],
    ids=lambda item: type(item).__name__,
)
def test_what_could_not_be_read_back_is_refused(fs, item):
    """F22: a kind or a status that nobody knows would make the whole log one that cannot be read (F21)."""
    log = opened(fs)
    write(log, new())
    with pytest.raises(InvalidUse):
        log.append([item])
    assert kinds(again(fs)) == ["Started"]


def test_records_of():
    """A frame's records are found for the write, the run it opened, and what it created, however deep."""
    body = bodies.encode(WRITES[5])
    assert [record.data for record in bodies.records_of([body], "b", 3)] == [b"x", b"\xc3"]
    assert [record.data for record in bodies.records_of([body], "b", 4)] == [b"second"]
    assert bodies.records_of([body], "d", 0) == bodies.records_of([body], "nobody", 0) == []
    assert [record.data for record in bodies.records_of([bodies.encode(WRITES[1])], "c", 0)] == [b"child"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"write":"new"}',
        b'{"write":"snapshot","at":1}',
        b'{"write":"mark","id":"a","status":"dancing"}',
        b'{"write":"mark","id":"a","status":"parked","later":1}',
        b'{"write":"mark","id":1,"status":"parked"}',
    ],
)
def test_unknown_body(fs, body):
    """What this version does not know is refused with its place, never passed over (F21)."""
    write(opened(fs), new())
    data = fs.read_file(FIRST)
    head, _, _ = frames.read_head(data, FIRST)
    line = frames.Sealer(head.salt).line(body, len(data), 1, len(data))
    fs.write_file(FIRST, data + line)
    with pytest.raises(LogCorrupt, match=r"segment-0000000\d\.zart@\d+: expected a write"):
        again(fs)


@pytest.mark.parametrize(
    "item",
    [
        Turn("a", 0, 7, 0, [], 1.0, Status.WAITING),
        Turn("nobody", 0, 0, 0, [], 1.0, Status.WAITING),
        Post("nobody", "event", "n", b"", 1.0),
        New("a", "other", "digest", [], 1.0),
    ],
    ids=["position", "unknown-turn", "unknown-post", "taken"],
)
def test_misfit(fs, item):
    """A frame that does not follow from those before it is damage, whatever its checksum says."""
    write(opened(fs), new())
    data = fs.read_file(FIRST)
    head, _, _ = frames.read_head(data, FIRST)
    fs.write_file(FIRST, data + frames.Sealer(head.salt).line(bodies.encode(item), len(data), 1, len(data)))
    with pytest.raises(LogCorrupt, match=r"a write that fits what is before it|a fence of at least"):
        again(fs)
    assert sorted(fs.list_directory("/log")) == ["lock", "segment-00000001.zart"], "nothing was changed"


@pytest.mark.parametrize(("sequence", "mark"), [(0, 0), (2, 0), (1, 10_000)])
def test_order(fs, sequence, mark):
    """A frame out of order, or with a mark that cannot be, is damage, also at the end of a log (I2)."""
    write(opened(fs), new())
    data = fs.read_file(FIRST)
    head, _, _ = frames.read_head(data, FIRST)
    body = bodies.encode(turn("a", 1, "X"))
    fs.write_file(FIRST, data + frames.Sealer(head.salt).line(body, len(data), sequence, mark))
    with pytest.raises(LogCorrupt, match="expected frame 1 with a mark up to"):
        again(fs)


def test_fence_goes_back(fs):
    """A turn of an older fence after a newer one is damage (I6)."""
    log = opened(fs)
    write(log, new(owner="w1"))
    data = fs.read_file(FIRST)
    head, _, _ = frames.read_head(data, FIRST)
    body = bodies.encode(turn("a", 1, "X", fence=0))
    fs.write_file(FIRST, data + frames.Sealer(head.salt).line(body, len(data), 1, len(data)))
    with pytest.raises(LogCorrupt, match="a fence of at least 1"):
        again(fs)


def test_newer_format(fs):
    """A newer format is refused with both versions named, whatever else is in the file (F26)."""
    write(opened(fs), new())
    fs.write_file(FIRST, b"=zart\t0002\tsomething else entirely")
    with pytest.raises(
        FormatTooNew, match="has format 2; this version of Zart reads formats up to 1"
    ) as caught:
        again(fs)
    assert (caught.value.where, caught.value.expected, caught.value.found) == (f"{FIRST}@0", "1", "2")
    assert (caught.value.path, caught.value.offset) == (FIRST, 0)


def test_damage_says_which_file_and_offset(fs):
    """Damage carries the path, the offset in the file, what was expected and what was found (F9)."""
    log = opened(fs)
    write(log, new())
    write(log, turn("a", 1, "X"))
    log.close()
    data = fs.read_file(FIRST)
    place = data.rindex(b"=frame\t")
    fs.write_file(FIRST, data[:place] + b"X" + data[place + 1 :])
    with pytest.raises(LogCorrupt) as caught:
        again(fs)
    damage = caught.value
    assert (damage.path, damage.offset, damage.where) == (FIRST, place, f"{FIRST}@{place}")
    assert (damage.expected, damage.found) == ("the beginning of a frame", "69 other bytes")


def test_damage_shows_no_payload(fs):
    """Where a payload stands in place of a frame, the error does not quote it (docs/rules.md, Security)."""
    payload = b'"the number of a card"'
    log = opened(fs)
    write(log, new(records=[Record("Started", 1.5, payload)]))
    log.close()
    data = fs.read_file(FIRST)
    frame = data.index(b"=frame\t")
    for damaged in (data[:frame] + payload + data[frame + len(payload) :], payload + data[len(payload) :]):
        fs.write_file(FIRST, damaged)
        with pytest.raises(LogCorrupt) as caught:
            again(fs)
        assert "number" not in f"{caught.value} {vars(caught.value)}"


def golden(fs):
    """The workload whose log of format 1 is in tests/data."""
    log = opened(fs, segment_bytes=900)
    write(log, new("order-42", records=[Record("Started", 1.5, b'{"sku":"x\\n"}')]))
    write(log, WRITES[1], post("order-42", b"\xff\x00", key="k", at=2.0))
    write(log, turn("order-42", 1, "Issued", "Resolved", seen=1, consumes=[1], at=2.5, wake=99.25))
    claimed(log)
    log.close()
    log = opened(fs, segment_bytes=900)
    write(log, Mark("order-42", Status.PARKED, "why\u2028not", "build"))
    log = again(fs, segment_bytes=900)
    write(
        log, turn("c", 1, fence=1, status=Status.CONTINUED, opens=[Record("Started", 3.0, b"\x00")], at=3.0)
    )
    write(log, post("order-42", "ü".encode(), at=4.0))
    fs.kill()


def content(log):
    """All that a log tells of its executions."""
    return [
        (
            summary,
            [log.records(summary.id, run) for run in range(summary.run + 1)],
            log.inbox(summary.id),
        )
        for summary in log.list().items
    ]


def test_golden(fs, tmp_path):
    """A log of format 1, as it was written once, is read for ever, and says what the same writes say now (F26)."""
    golden(fs)
    shutil.copytree(GOLDEN, tmp_path / "log")
    log = store.open(f"file:{tmp_path}/log")
    expect(content(log), content(again(fs)))
    assert len(content(log)) == 3
    log.close()


def test_rotation(fs):
    """A segment that is large enough is followed by another, which says how far it counts."""
    log = opened(fs, segment_bytes=500)
    write(log, new())
    for n in range(1, 12):
        write(log, turn("a", n, f"E{n}"))
    names = sorted(fs.list_directory("/log"))[1:]
    assert len(names) > 3
    assert max(len(fs.read_file(f"/log/{name}")) for name in names) < 900
    wanted = ["Started", *(f"E{n}" for n in range(1, 12))]
    expect(kinds(log), wanted)
    expect(kinds(again(fs)), wanted)
    log = again(fs)
    expect([record.kind for record in log.records("a", 0, 7)], wanted[7:])
    assert log.verify() == {"executions": 1, "records": 12, "messages": 0}


def test_many_segments(fs):
    """Few files are kept open, however many there are."""
    log = opened(fs, segment_bytes=1)
    write(log, new())
    for n in range(1, 60):
        write(log, turn("a", n, "X"))
    assert len(log.records("a")) == 60
    assert len(fs._open) < 40
    assert len(again(fs).records("a")) == 60
    assert len(fs._open) < 40


def test_reading_together(fs):
    """A history is read in few calls, however many turns it has."""
    log = opened(fs)
    write(log, new(), new("b"))
    for n in range(1, 200):
        write(log, turn("a", n, "X"), turn("b", n, "Y"))
    fs.trace.clear()
    assert len(log.records("a")) == 200
    assert [call.kind for call in fs.trace] == ["pread"]
    assert [record.kind for record in log.records("b", start=198)] == ["Y", "Y"]


# ---------------------------------------------------------------- damage


def small_log(fs, *, close):
    """A log of a few frames; gives its bytes and how much of them was known to be durable."""
    log = opened(fs)
    write(log, new())
    write(log, turn("a", 1, "X"))
    write(log, post("a", b"\xff"))
    if close:
        log.close()
    data = fs.read_file(FIRST)
    mark = int(data.splitlines()[-1].split(b"\t")[4])
    fs.kill()
    return data, mark


@pytest.mark.parametrize("close", [True, False], ids=["closed", "killed"])
def test_every_bit(close):
    """Every single bit that flips below the durable mark is refused; above it, it is never taken for data (F9)."""
    fs = SimulatedFileSystem()
    data, mark = small_log(fs, close=close)
    for bit in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        copy = next(iter(fs.crash_states()))
        copy.write_file(FIRST, bytes(damaged))
        if bit // 8 < mark:
            with pytest.raises(LogCorrupt):
                opened(copy)
            assert copy.read_file(FIRST) == damaged, "nothing is repaired silently"
        else:
            log = opened(copy)
            assert log.recovered is not None
            assert kinds(log) == ["Started", "X"]


def test_every_cut():
    """A log that is cut anywhere is a prefix of what was written, and says what it lost, or is refused (F3, F10)."""
    fs = SimulatedFileSystem()
    data, _ = small_log(fs, close=False)
    ends = list(itertools.accumulate(len(line) for line in data.splitlines(keepends=True)))
    for size in range(len(data) + 1):
        copy = next(iter(fs.crash_states()))
        copy.write_file(FIRST, data[:size])
        if size < ends[0]:
            with pytest.raises(LogCorrupt):
                opened(copy)
            continue
        log = opened(copy)
        whole = sum(end <= size for end in ends) - 1
        assert len(kinds(log)) == min(whole, 2)
        assert len(log.inbox("a")) == max(0, whole - 2)
        assert (log.recovered is None) == (size in ends)
        if log.recovered:
            assert f"the {size - ends[whole]} bytes from offset {ends[whole]} on" in log.recovered
        write(log, new("b"))
        assert sorted(summary.id for summary in again(copy).list().items) == ["a", "b"][whole == 0 :]


def test_torn_tail_is_told(fs, caplog):
    """What is cut is said once, in the log and by the store; nothing is said where nothing is cut (L12)."""
    data, _ = small_log(fs, close=False)
    fs.write_file(FIRST, data[:-5])
    with caplog.at_level(logging.INFO, "zart.store"):
        log = opened(fs)
    assert [record.message for record in caplog.records] == [log.recovered]
    assert re.search(
        r"segment-00000001.zart: the \d+ bytes from offset \d+ on were the torn end", log.recovered
    )
    caplog.clear()
    log = again(fs)
    assert (log.recovered, caplog.records) == (None, [])


def test_first_frames_do_not_come_back(fs):
    """Nor do those of the first write of a segment, of which nothing is kept (I7)."""
    log = opened(fs)
    size = len(fs.read_file(FIRST))
    write(log, new("a"), new("b"))
    data = bytearray(fs.read_file(FIRST))
    data[size + 80] ^= 1
    fs.write_file(FIRST, bytes(data))
    log = again(fs)
    write(log, new("c"))
    assert [summary.id for summary in again(fs).list().items] == ["c"]


def test_cut_frames_do_not_come_back(fs):
    """A frame behind a torn one was cut with it; it does not follow a new one of the same length (I7)."""
    log = opened(fs)
    write(log, new(), new("b"))
    size = len(fs.read_file(FIRST))
    write(log, turn("a", 1, "X"), turn("b", 1, "Y"))
    data = bytearray(fs.read_file(FIRST))
    data[size + 80] ^= 1
    fs.write_file(FIRST, bytes(data))
    log = again(fs)
    assert (kinds(log), kinds(log, "b")) == (["Started"], ["Started"])
    write(log, turn("a", 1, "Z"))
    log = again(fs)
    assert (kinds(log), kinds(log, "b")) == (["Started", "Z"], ["Started"])


@pytest.mark.parametrize("move", ["duplicate", "swap", "other-file"])
def test_misplaced_frames(fs, move):
    """A frame in another place than its own does not verify (F9)."""
    log = opened(fs)
    write(log, new())
    for n in range(1, 4):
        write(log, turn("a", n, "X"))
    fs.kill()
    lines = fs.read_file(FIRST).splitlines(keepends=True)
    if move == "duplicate":
        lines[3] = lines[2]
    elif move == "swap":
        lines[2], lines[3] = lines[3], lines[2]
    else:
        other = SimulatedFileSystem()
        elsewhere = opened(other)
        write(elsewhere, new())
        for n in range(1, 4):
            write(elsewhere, turn("a", n, "X"))
        lines[2] = other.read_file(FIRST).splitlines(keepends=True)[2]
    fs.write_file(FIRST, b"".join(lines))
    with pytest.raises(LogCorrupt) as caught:
        opened(fs)
    offset = sum(map(len, lines[: 3 if move == "duplicate" else 2]))
    assert caught.value.where == f"{FIRST}@{offset}"


def test_imitation(fs):
    """A payload that looks like a frame is a payload, also behind a torn frame."""
    log = opened(fs)
    write(log, new())
    line = fs.read_file(FIRST).splitlines(keepends=True)[1]
    write(log, turn("a", 1, "X", records=[Record("X", 1.0, b"\n" + line + b"\n")]))
    data = fs.read_file(FIRST)
    assert log.records("a")[1].data == b"\n" + line + b"\n"
    fs.write_file(FIRST, data[:-4])
    assert kinds(again(fs)) == ["Started"]


def rotated(fs):
    log = opened(fs, segment_bytes=300)
    write(log, new())
    for n in range(1, 6):
        write(log, turn("a", n, "X"))
    fs.kill()
    return sorted(name for name in fs.list_directory("/log") if name.startswith("segment"))


def test_missing_segment():
    """A segment that is missing in the middle or at the beginning is damage (F10)."""
    fs = SimulatedFileSystem()
    names = rotated(fs)
    for name in names[:-1]:
        copy = next(iter(fs.crash_states()))
        copy.unlink(f"/log/{name}")
        with pytest.raises(LogCorrupt, match=f"{name}@0: expected this segment"):
            opened(copy)


def test_shortened_segment():
    """A segment that another follows must be whole: one that is cut, or cut and longer again, is damage (F10)."""
    fs = SimulatedFileSystem()
    first = f"/log/{rotated(fs)[0]}"
    data = fs.read_file(first)
    for damaged in (data[:-1], data[: len(data) // 2], data[:-100] + bytes(100)):
        copy = next(iter(fs.crash_states()))
        copy.write_file(first, damaged)
        with pytest.raises(LogCorrupt, match=first):
            opened(copy)


def test_exchanged_segments(fs):
    """A segment under another's name is damage."""
    names = rotated(fs)
    one, two = fs.read_file(f"/log/{names[0]}"), fs.read_file(f"/log/{names[1]}")
    fs.write_file(f"/log/{names[0]}", two)
    fs.write_file(f"/log/{names[1]}", one)
    with pytest.raises(LogCorrupt, match="the head of segment 1"):
        opened(fs)


def test_restored_segment(fs):
    """A segment from an older copy does not fit the one that follows."""
    log = opened(fs, segment_bytes=800)
    write(log, new())
    old = fs.read_file(FIRST)
    for n in range(1, 6):
        write(log, turn("a", n, "X"))
    fs.write_file(FIRST, old)
    with pytest.raises(LogCorrupt, match=FIRST):
        again(fs)


def test_foreign_segment(fs):
    """A segment of another log, whole and as long, does not fit the one that follows."""
    names, other = rotated(fs), SimulatedFileSystem()
    rotated(other)
    fs.write_file(FIRST, other.read_file(f"/log/{names[0]}"))
    with pytest.raises(LogCorrupt, match="expected the end at"):
        opened(fs)


def test_rotation_syncs(fs):
    """At level process a loss of power may take the end of the log, but never leaves a hole in it."""
    log = opened(fs, segment_bytes=600, durability="process")
    write(log, new())
    states = []
    fs.on_call = lambda call: states.extend(fs.crash_states(8, ignore=["lock"]))
    for n in range(1, 8):
        write(log, turn("a", n, f"E{n}"))
    found = [kinds(opened(state)) for state in states]
    assert all(names == ["Started", *(f"E{n}" for n in range(1, 8))][: len(names)] for names in found)
    assert len({len(names) for names in found}) > 3


def test_unfinished_segment(fs):
    """A segment that never got its name is removed."""
    write(opened(fs), new())
    fs.open(f"{SECOND}.new", create=True)
    log = again(fs)
    assert kinds(log) == ["Started"]
    assert [name for name in fs.list_directory("/log") if name.endswith(".new")] == []


def test_what_is_not_of_the_log_stays(fs):
    """A directory may hold files of others, whatever their names; the log removes none but its own."""
    opened(fs).close()
    for name in ("config.new", "segment-1.zart.new", "segment-00000002.zart.new.new"):
        fs.open(f"/log/{name}", create=True)
    opened(fs).close()
    assert sorted(name for name in fs.list_directory("/log") if name.endswith(".new")) == [
        "config.new",
        "segment-00000002.zart.new.new",
        "segment-1.zart.new",
    ]


def test_damage_while_open(fs):
    """Damage below the feet of an open log is found by reading and by verify, with place and values (L12)."""
    log = opened(fs)
    write(log, new())
    write(log, turn("a", 1, "X"))
    assert log.verify() == {"executions": 1, "records": 2, "messages": 0}
    data = bytearray(fs.read_file(FIRST))
    data[200] ^= 4
    fs.write_file(FIRST, bytes(data))
    for read in (lambda: log.records("a"), log.verify):
        with pytest.raises(LogCorrupt, match="Nothing was changed") as caught:
            read()
        assert caught.value.where == f"{FIRST}@129"
        assert caught.value.expected.startswith("checksum ")
        assert caught.value.found.startswith("checksum ")


def test_cut_while_open(fs):
    """A file that somebody shortened is damage, not the end of a history."""
    log = opened(fs)
    write(log, new())
    write(log, turn("a", 1, "X"))
    fs.write_file(FIRST, fs.read_file(FIRST)[:-20])
    for read in (lambda: log.records("a"), log.verify):
        with pytest.raises(LogCorrupt):
            read()


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_read_error(fs, nth):
    """A read error is never the end of the log: it is raised with path and offset (F8)."""
    log = opened(fs)
    write(log, new())
    log.close()
    fs.inject("pread", nth, error=errno.EIO)
    try:
        log = opened(fs)
    except StoreUnavailable as error:
        assert re.search(
            r"segment-00000001.zart cannot be read at offset \d+: Input/output error", str(error)
        )
        log = opened(fs)
    assert kinds(log) == ["Started"]
    fs.inject("pread", error=errno.EIO)
    with pytest.raises(StoreUnavailable, match="cannot be read at offset 129: Input/output error"):
        log.records("a")
    assert kinds(log) == ["Started"]


def test_short_and_interrupted_calls(fs):
    """Short reads and writes are gone on with, interruptions are tried again (F7)."""
    log = opened(fs)
    fs.inject("pwrite", short=7)
    fs.inject("pwrite", 2, short=0, error=errno.EINTR)
    fs.inject("pwrite", 3, short=60)
    fs.inject("sync", error=errno.EINTR)
    write(log, new())
    fs.inject("pread", short=3)
    fs.inject("pread", 2, error=errno.EINTR)
    assert kinds(log) == ["Started"]
    for state in fs.crash_states():
        assert kinds(opened(state)) == ["Started"]


# ---------------------------------------------------------------- failing and full disks


def test_failed_sync(fs):
    """After a failed sync the write is Unknown and the store refuses everything until it is opened again (F5)."""
    log = opened(fs)
    write(log, new())
    fs.inject("sync", error=errno.EIO)
    outcomes = log.append([turn("a", 1, "X"), turn("a", 7, "Y")])
    assert isinstance(outcomes[0], Unknown)
    assert outcomes[1].reason.startswith("stale")
    for use in (
        lambda: log.append([turn("a", 1, "X")]),
        lambda: log.records("a"),
        lambda: log.summary("a"),
        lambda: log.claim("w", now=0.0, lease_s=1.0, limit=1),
        lambda: log.wait(0.0),
        log.verify,
    ):
        with pytest.raises(StoreFailed, match=r"cannot be synced: Input/output error.*open it again"):
            use()
    log.close()
    log = opened(fs)
    assert kinds(log) == ["Started", "X"], "it is in the page cache"
    write(log, turn("a", 2, "Z"))
    for state in fs.crash_states():
        assert kinds(opened(state)) == ["Started", "X", "Z"], "and now on disk, in a new segment"
    assert sorted(fs.list_directory("/log"))[-1] == "segment-00000002.zart"


def test_failed_write(fs):
    """A write that fails for another reason than room may be there in part: Unknown, and the store is failed."""
    log = opened(fs)
    write(log, new())
    fs.inject("pwrite", error=errno.EIO, short=30)
    assert isinstance(log.append([turn("a", 1, "X")])[0], Unknown)
    with pytest.raises(StoreFailed):
        log.stats()
    log.close()
    assert kinds(again(fs)) == ["Started"]


@pytest.mark.parametrize("size", range(0, 512, 24))
def test_failed_close(fs, size):
    """Closing does not raise when the disk fails, and a footer that is not on disk does no harm later."""
    log = opened(fs)
    write(log, new(records=[Record("Started", 1.0, b"x" * size)]))
    fs.inject("sync", error=errno.EIO)
    log.close()
    log = opened(fs)
    write(log, turn("a", 1, "X"))
    for state in fs.crash_states():
        assert kinds(opened(state)) == ["Started", "X"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("short", [None, 1, 100, 200])
def test_full(fs, code, short):
    """A full disk rejects the batch and leaves nothing of it; the store works again when there is room (F6)."""
    log = opened(fs)
    write(log, new(), new("b"))
    size = len(fs.read_file(FIRST))
    fs.inject("pwrite", error=code, short=short)
    batch = [turn("a", 1, "X"), turn("b", 1, "Y"), turn("b", 9, "Z")]
    reasons = [outcome.reason.split()[0].rstrip(":") for outcome in log.append(batch)]
    assert reasons == ["full", "full", "stale"]
    assert len(fs.read_file(FIRST)) == size
    assert (kinds(log), kinds(log, "b")) == (["Started"], ["Started"])
    for state in fs.crash_states():
        assert kinds(opened(state)) == ["Started"]
    write(log, *batch[:2])
    for state in fs.crash_states():
        assert kinds(opened(state), "b") == ["Started", "Y"]


def test_rejected_does_not_come_back(fs):
    """What a full disk rejected does not come back where a sector shows what it held before (I9)."""
    log = opened(fs)
    write(log, new(), new("b"), new("c"))
    start = len(fs.read_file(FIRST))
    room = start // SECTOR * SECTOR + 2 * SECTOR - start
    empty = len(bodies.encode(turn("a", 1, records=[Record("X", 1.0, b"")]))) + 70 + len(',"text":""')
    filler = turn("a", 1, records=[Record("X", 1.0, b"x" * (room - empty))])
    fs.inject("pwrite", error=errno.ENOSPC, short=room + SECTOR)
    batch = [filler, turn("b", 1, "Y"), turn("c", 1, records=[Record("Z", 1.0, b"z" * 2000)])]
    assert all(outcome.reason.startswith("full") for outcome in log.append(batch))
    states = []
    fs.on_call = lambda call: states.extend(fs.crash_states(ignore=["lock"]))
    write(log, filler, turn("c", 1, "Q"))
    logs = [opened(state) for state in states]
    assert {(len(kinds(log)), len(kinds(log, "b")), len(kinds(log, "c"))) for log in logs} == {
        (1, 1, 1),
        (2, 1, 1),
        (2, 1, 2),
    }


def test_full_for_long(fs):
    """While there is no room every write is refused, and reading goes on."""
    log = opened(fs)
    write(log, new())
    fs.capacity = sum(len(content) for _, content in fs.image()) + 20
    for _ in range(3):
        refused(log, turn("a", 1, "X"), "full")
        assert kinds(log) == ["Started"]
    fs.capacity = None
    write(log, turn("a", 1, "X"))
    assert kinds(again(fs)) == ["Started", "X"]
    assert [name for name in fs.list_directory("/log") if name.endswith(".new")] == []


def test_file_size_limit(tmp_path):
    """A real limit on the size of files: Rejected, and a segment that is shorter takes the next write (F6)."""
    log = store.open(f"file:{tmp_path}/log")
    write(log, new())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        for n in range(1, 4):
            refused(log, turn("a", n, records=[Record("X", 1.0, b"x" * 5000)]), "full")
            write(log, turn("a", n, records=[Record("X", 1.0, b"x" * 500)]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    log.close()
    log = store.open(f"file:{tmp_path}/log")
    assert [len(record.data) for record in log.records("a")] == [2, 500, 500, 500]
    assert log.verify()["records"] == 4
    log.close()


@pytest.mark.skipif(os.getuid() != 0, reason="mounting needs root; test_file_size_limit does without")
def test_full_disk(tmp_path):
    """F6: on a real disk that is full every append is Rejected or whole, and it works again with room."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no tmpfs can be mounted here; test_file_size_limit does without")
    try:
        ballast = place / "ballast"
        ballast.write_bytes(bytes(300_000))
        log = store.open(f"file:{place}/log")
        write(log, new())
        position, refusals = 1, 0
        while refusals < 5:
            (outcome,) = log.append([turn("a", position, records=[Record("X", 2.0, bytes(9_000))])])
            if isinstance(outcome, Ok):
                position += 1
            else:
                expect((type(outcome), outcome.reason.split(":")[0]), (Rejected, "full"))
                refusals += 1
            assert len(log.records("a")) == position
        assert position > 10
        log.close()  # there may be no room for its footer
        ballast.unlink()
        log = store.open(f"file:{place}/log")
        write(log, turn("a", position, "Y"))
        expect(len(log.records("a")), position + 1)
        log.verify()
        log.close()
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_interrupted_append(fs):
    """An interruption in the middle of an append fails the store; reading back tells (F27)."""
    log = opened(fs)
    write(log, new())

    def interrupt(call):
        if call.kind == "sync":
            fs.on_call = None
            raise KeyboardInterrupt

    fs.on_call = interrupt
    with pytest.raises(KeyboardInterrupt):
        log.append([turn("a", 1, "X")])
    with pytest.raises(StoreFailed, match="interrupted"):
        log.records("a")
    log.close()
    assert kinds(opened(fs)) == ["Started", "X"]


def test_what_cannot_be_written_fails_who_asks_for_it(fs):
    """I8: the caller gets the error; nothing of it is there, and the log goes on for all others."""
    log = opened(fs)
    write(log, new())
    for item in (post("a", None), turn("a", 1, records=[Record("X", 2.0, None)]), new("b", digest=b"d")):
        with pytest.raises((TypeError, AttributeError)):
            log.append([item])
    with pytest.raises(TypeError, match=r"\(1\+0j\) of type complex cannot be written"):
        log.append([turn("a", 1 + 0j, "X")])
    write(log, turn("a", 1, "X"))
    assert kinds(again(fs)) == ["Started", "X"]


class Text(str):
    """A text of a library's own."""


class Number(float):
    """A number of a library's own."""


class Whole(int):
    """A whole number of a library's own."""


def test_texts_and_numbers_of_a_librarys_own(fs):
    """L11: they are kept as what they say."""
    log = opened(fs)
    write(log, new(Text("a"), at=Number(1.0), wake=Number(9.0)), post(Text("a"), key=Text("k")))
    write(log, turn("a", Whole(1), "X"))
    claimed(log)
    log.close()
    log = opened(fs)
    assert (log.summary("a").created_at, log.summary("a").fence) == (1.0, 1)
    assert [(message.name, message.key) for message in log.inbox("a")] == [("ready", "k")]


@pytest.mark.parametrize(
    "do",
    [lambda log: log.stats(), lambda log: claimed(log, "w1"), lambda log: log.append([turn("a", 1, "X")])],
)
def test_an_interruption_anywhere_leaves_the_log_to_other_threads(do):
    """Wherever Ctrl-C strikes in one thread, the lock is free for the others afterwards (F27)."""
    lines = 0
    while True:
        fs = SimulatedFileSystem()
        log = opened(fs)
        write(log, new(wake=0.0))
        lines += 1
        executed = interrupted(lambda log=log: do(log), lines)
        with ThreadPoolExecutor(1) as others:
            free = others.submit(log._gate._lock.acquire, blocking=False).result()
        assert free, f"line {lines} of {executed}"
        if executed < lines:
            break
    assert lines > 5


def test_too_large(monkeypatch, fs):
    """A write that is longer than a frame may be is refused, others of its batch are not."""
    monkeypatch.setattr(store, "FRAME_BYTES_MAX", 2000)
    log = opened(fs)
    write(log, new(), new("b"))
    large = turn("a", 1, records=[Record("X", 1.0, b"x" * 2000)])
    outcomes = log.append([large, turn("b", 1, "X")])
    assert outcomes[0].reason.startswith("too-large")
    assert type(outcomes[1]) is Ok
    write(log, turn("a", 1, "X"))


# ---------------------------------------------------------------- real processes


WRITER = """
import sys
from zart_core.events import Status
from zart_core.log import New, Record, Turn
from zart_stores.file import store
log = store.open(sys.argv[1], segment_bytes=20_000, durability=sys.argv[2])
log.append([New("a", "flow", "d", [Record("Started", 1.0, b"0")], 1.0)])
position = log.summary("a").position
while True:
    records = [Record("X", 1.0, b"%d" % n) for n in range(position, position + 3)]
    outcome = log.append([Turn("a", 0, position, 0, records, 1.0, Status.WAITING)])
    position += 3
    print(position, flush=True)
"""


@pytest.mark.parametrize("durability", ["power", "process"])
def test_killed_writer(tmp_path, durability):
    """A writer is killed again and again: what it was told is kept is there, in order, without a gap (F1)."""
    url = f"file:{tmp_path}/log"
    acknowledged = 1
    for lines in (3, 40, 1):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, url, durability], stdout=subprocess.PIPE, text=True
        ) as writer:
            for _ in range(lines):
                acknowledged = int(writer.stdout.readline())
            writer.kill()
            acknowledged = max([acknowledged, *(int(line) for line in writer.stdout if line.endswith("\n"))])
        log = store.open(url)
        found = [int(record.data) for record in log.records("a")]
        assert found == list(range(len(found)))
        assert acknowledged <= len(found) <= acknowledged + 3
        assert (len(found) - 1) % 3 == 0
        log.close()


def test_threads(tmp_path):
    """Writers in several threads lose nothing and see one another's writes."""
    log = store.open(f"file:{tmp_path}/log", segment_bytes=10_000)
    write(log, *(new(f"e{n}") for n in range(4)))

    def turns(id):
        for n in range(1, 40):
            write(log, turn(id, n, "X"))
            assert len(log.records(id)) == n + 1

    threads = [threading.Thread(target=turns, args=[f"e{n}"]) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    log = store.open(f"file:{tmp_path}/log")
    assert log.verify() == {"executions": 4, "records": 160, "messages": 0}
    log.close()


def test_real_sync_is_called(tmp_path):
    """On a real disk every acknowledged batch was synced, and new names were."""

    calls = []

    class Counting(RealFileSystem):
        def sync(self, fd):
            calls.append("sync")
            super().sync(fd)

        def sync_directory(self, path):
            calls.append(path)
            super().sync_directory(path)

    log = store.open(f"file:{tmp_path}/log", fs=Counting())
    at_open = [f"{tmp_path}/log", str(tmp_path), "sync", f"{tmp_path}/log"]
    assert calls == at_open
    write(log, new())
    write(log, turn("a", 1, "X"), turn("a", 2, "Y"))
    assert calls == [*at_open, "sync", "sync"]
    log.close()


def test_sector_size():
    """The sector of the simulation is the one that the drafts of the format count with."""
    assert SECTOR == 512


def test_checksum_covers():
    """A frame verifies under its own salt and at its own offset alone, and no bit of it may differ (Rule 2)."""
    line = frames.Sealer("salt").line(b'{"a":1}', 300, 7, 100)
    assert isinstance(frames.Sealer("salt").read(line, 0, 300), frames.Frame)
    assert isinstance(frames.Sealer("salt").read(line, 0, 301), frames.Damage)
    assert isinstance(frames.Sealer("tlas").read(line, 0, 300), frames.Damage)
    for bit in range(len(line) * 8):
        other = bytearray(line)
        other[bit // 8] ^= 1 << bit % 8
        assert isinstance(frames.Sealer("salt").read(bytes(other), 0, 300), frames.Damage)


def test_a_body_that_is_nested_too_deep_is_damage():
    """The decoder's recursion does not escape (F22)."""
    with pytest.raises(ValueError, match="nested too deep"):
        bodies.records_of([b'{"x":' + b"[" * 100_000], "a", 0)
    with pytest.raises(ValueError, match="nested too deep"):
        bodies.decode(b'{"x":' + b"[" * 100_000)
