"""What stores do where the machine beneath them, or somebody who changed their files, does what it should not."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from zart_core.errors import InvalidUse, LogCorrupt, StoreFailed, StoreUnavailable
from zart_core.events import Ok, Status
from zart_core.log import Record, Rejected, Turn, Unknown
from zart_core.testing.contract import claimed, new, post, records, turn, write
from zart_core.testing.filesystem import SimulatedFileSystem
from zart_stores import memory
from zart_stores.file import bodies, frames, store
from zart_stores.file.fs import RealFileSystem
from zart_stores.file.journal import PROVISIONAL, segment_name
from zart_stores.sql import lock, sqlite, sqlite_file, sqlite_wal

FIRST = "/log/segment-00000001.zart"
SECOND = "/log/segment-00000002.zart"


@pytest.fixture
def fs():
    return SimulatedFileSystem()


def opened(fs, **how):
    return store.open("file:/log", fs=fs, **how)


def kinds(log):
    return [record.kind for record in log.records("a")]


def on_next(fs, kind, error):
    """Let the next call of a kind raise what is no OSError."""

    def interrupt(call):
        if call.kind == kind:
            fs.on_call = None
            raise error

    fs.on_call = interrupt


# ---------------------------------------------------------------- the edge, and memory


def test_what_is_no_write():
    """A batch holds writes; anything else is named."""
    log = memory.open("memory:")
    with pytest.raises(InvalidUse, match="a batch holds New, Post, Turn and Mark, not dict"):
        log.append([{}])
    assert log.stats() == {}


def test_memory_that_somebody_changed():
    """Records are the objects they are: verify tells when they were changed behind the log's back (L12)."""
    log = memory.open("memory:")
    write(log, new(), turn("a", 1, "X"))
    msgspec.structs.force_setattr(log.records("a")[1], "at", -1.0)
    with pytest.raises(LogCorrupt, match="time goes back at record 1"):
        log.verify()
    log = memory.open("memory:")
    write(log, new(), post("a"))
    log._shelf.inboxes[0].clear()
    with pytest.raises(LogCorrupt, match="the row and its records disagree") as caught:
        log.verify()
    assert (caught.value.expected, caught.value.found) == (
        "run 0, 1 records, 1 messages",
        "1 records, 0 messages",
    )


def test_a_sibling_is_closed_by_itself():
    """Two logs on one shelf see the same; each is closed alone."""
    log = memory.open("memory:")
    other = log.sibling()
    write(other, new())
    other.close()
    assert log.summary("a") is not None
    with pytest.raises(StoreFailed):
        other.summary("a")


# ---------------------------------------------------------------- the file log


def test_settings_say_what_each_append_calls(fs, tmp_path):
    """Read back from what appends use: at level process nothing is synced."""
    assert opened(fs).settings() == {"sync": fs.sync_call, "segments": 1, "format": frames.FORMAT}
    real = store.open(f"file:{tmp_path}/log", durability="process")
    assert real.settings()["sync"] == "none"
    real.close()


def test_a_platform_without_pread(monkeypatch):
    """A platform that lacks what the log needs says so at once."""
    monkeypatch.delattr(os, "pread")
    with pytest.raises(OSError, match="no pread and flock") as caught:
        RealFileSystem()
    assert caught.value.errno == errno.ENOSYS


def test_the_call_that_reaches_the_disk_itself():
    """Where there is F_FULLFSYNC, that is what sync calls: fsync alone leaves data in the disk's cache there."""
    calls: list[tuple[int, int]] = []
    fs = RealFileSystem()
    fs._full = 51
    fs._fcntl = SimpleNamespace(fcntl=lambda fd, how: calls.append((fd, how)))
    fs.sync(7)
    assert calls == [(7, 51)]


def test_a_segment_that_never_got_its_name_is_removed(tmp_path):
    """F25: what was begun and not named is of no use to anybody."""
    store.open(f"file:{tmp_path}/log").close()
    left = tmp_path / "log" / f"{segment_name(2)}{PROVISIONAL}"
    left.write_bytes(b"half a")
    store.open(f"file:{tmp_path}/log").close()
    assert not left.exists()


def test_a_directory_that_cannot_be_locked(fs, monkeypatch):
    """F11: without a lock that holds, the log is not opened."""

    def refuse(fd):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fs, "lock", refuse)
    with pytest.raises(InvalidUse, match=r"cannot be locked: .* A file log needs a disk of this machine"):
        opened(fs)


def test_a_head_whose_fields_are_not_those_of_a_head():
    """Its checksum is right, so that somebody wrote it: damage all the same (F21)."""
    body = b'{"segment":"one"}'
    version, length = b"=zart\t%04d\t" % frames.FORMAT, b"%010d\t" % len(body)
    line = b"%b%b%b\t%b\n" % (version, length, frames._head_sum(version, length, body), body)
    with pytest.raises(LogCorrupt, match="expected the fields of a head"):
        frames.read_head(line, "it")


def test_a_segment_that_begins_elsewhere(fs):
    """I2: the next segment's head names the frame it begins with; another one is a hole or a repeat."""
    log = opened(fs, segment_bytes=400)
    write(log, new())
    for position in range(1, 6):
        write(log, turn("a", position, "X"))
    log.close()
    head, length, _ = frames.read_head(fs.read_file(SECOND), SECOND)
    forged = frames.head_line(msgspec.structs.replace(head, base=head.base + 1))
    assert len(forged) == length
    fs.write_file(SECOND, forged + fs.read_file(SECOND)[length:])
    with pytest.raises(
        LogCorrupt, match=f"expected frame {head.base} to come first, found frame {head.base + 1}"
    ):
        opened(fs)


def test_a_write_in_the_place_of_a_footer(fs):
    """A frame is marked as what it is; a write that says it is a footer is damage."""
    write(opened(fs), new())
    fs.kill()
    data = fs.read_file(FIRST)
    head, _, _ = frames.read_head(data, FIRST)
    body = bodies.encode(turn("a", 1, "X"))
    fs.write_file(FIRST, data + frames.Sealer(head.salt).line(body, len(data), 1, len(data), closing=True))
    with pytest.raises(LogCorrupt, match="expected a footer, found Turn"):
        opened(fs)


def test_records_are_those_of_the_run_that_is_asked_for():
    """A frame may hold records of several executions, and of a run and its next one."""
    child = new("b", records=[Record("Begun", 1.0, b"")])
    item = Turn("a", 2, 0, 0, [Record("X", 1.0, b"")], 1.0, Status.RUNNING, creates=[child])
    body = bodies.encode(item)
    assert [record.kind for record in bodies.records_of([body], "a", 2)] == ["X"]
    assert [record.kind for record in bodies.records_of([body], "b", 0)] == ["Begun"]
    assert bodies.records_of([body], "a", 5) == bodies.records_of([body], "b", 1) == []


def test_memory_and_disk_disagree(fs):
    """verify reads as a second reader would, and compares."""
    log = opened(fs)
    write(log, new())
    log._index.records += 1
    with pytest.raises(LogCorrupt, match="what is in memory and what is on disk disagree"):
        log.verify()


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        *((kind, code) for kind in ("open", "truncate", "rename") for code in (errno.ENOSPC, errno.EIO)),
        *(("open", code) for code in (errno.EMFILE, errno.ENFILE, errno.ENOMEM)),
    ],
)
def test_a_new_segment_that_cannot_be_begun(fs, kind, code):
    """F6: without room, or a descriptor, the append is Rejected and the log goes on; else the log has failed (I9)."""
    log = opened(fs, segment_bytes=200)
    write(log, new())
    fs.inject(kind, error=code)
    (outcome,) = log.append([turn("a", 1, "X")])
    if code != errno.EIO:
        assert isinstance(outcome, Rejected) and outcome.reason.startswith("full")
        write(log, turn("a", 1, "Y"))
        assert kinds(log) == ["Started", "Y"]
    else:
        assert isinstance(outcome, Unknown)
        with pytest.raises(StoreFailed):
            log.stats()
        log.close()
        assert kinds(opened(fs)) == ["Started"]


def test_a_directory_that_cannot_be_synced(fs):
    """F4: nothing is acknowledged in a file whose name may be lost."""
    log = opened(fs, segment_bytes=200)
    write(log, new())
    fs.inject("sync_directory", error=errno.EIO)
    (outcome,) = log.append([turn("a", 1, "X")])
    assert isinstance(outcome, Unknown) and "the directory cannot be synced" in outcome.reason
    log.close()
    assert kinds(opened(fs)) == ["Started"]


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE])
@pytest.mark.parametrize("ready", ["begun", "closed", "spoiled"])
def test_no_descriptor_for_the_directory(fs, ready, code):
    """F4, F6: while the name of a new segment cannot be synced for want of a descriptor, appends are Rejected."""
    write(opened(fs, segment_bytes=200), new())
    if ready != "begun":
        fs.kill()
        opened(fs).close()  # with a footer, which goes along
    fs.kill()
    log, states, files = opened(fs, segment_bytes=200), [], set()
    if ready == "spoiled":
        fs.inject("pwrite", 2, error=errno.ENOSPC)  # the head of a new one fits
        assert words(log.append([turn("a", 1, "X")])) == ["full"]
    fs.on_call = lambda call: states.extend(fs.crash_states(8, ignore=["lock"]))
    for _ in range(4):
        fs.inject("sync_directory", error=code)
        (outcome,) = log.append([turn("a", 1, "X")])
        assert isinstance(outcome, Rejected) and outcome.reason == f"full: /log: {os.strerror(code)}"
        assert kinds(log) == ["Started"] and log.verify()["records"] == 1
        files.add(len(fs.list_directory("/log")))
    assert len(files) == 1
    write(log, turn("a", 1, "Y"))
    fs.on_call = None
    assert {tuple(kinds(opened(state))) for state in states} == {("Started",), ("Started", "Y")}
    for state in fs.crash_states(100, ignore=["lock"]):
        assert kinds(opened(state)) == ["Started", "Y"]
    log.close()
    assert kinds(opened(fs)) == ["Started", "Y"]


def test_closing_without_a_descriptor_for_the_directory(fs):
    """F4: a log whose last segment has no name for certain is closed without a footer in it."""
    log = opened(fs, segment_bytes=200)
    write(log, new())
    fs.inject("sync_directory", error=errno.EMFILE)
    assert words(log.append([turn("a", 1, "X")])) == ["full"]
    size = len(fs.read_file(SECOND))
    log.close()
    assert len(fs.read_file(SECOND)) == size
    for state in fs.crash_states(100, ignore=["lock"]):
        write(opened(state), turn("a", 1, "Y"))


def test_no_descriptor_for_the_directory_of_a_log_that_is_opened(fs):
    """F6: at the opening it is weather, and tried again it opens."""
    fs.inject("sync_directory", 3, error=errno.EMFILE)
    with pytest.raises(StoreUnavailable, match="Too many open files"):
        opened(fs)
    write(opened(fs), new())
    assert kinds(opened(next(iter(fs.crash_states(1))))) == ["Started"]


def batch_of_endings():
    """An end and what comes too late for it; an execution and what would take its id; a turn that is stale anyway."""
    ended = turn("a", 1, records=records("X", at=2.0, data=bytes(500_000)), status=Status.COMPLETED)
    return [ended, post("a"), new("b"), new("b", workflow="other"), turn("c", 7, "X")]


def words(outcomes):
    return [
        it.reason.split()[0].rstrip(":") if isinstance(it, Rejected) else type(it).__name__ for it in outcomes
    ]


def test_what_is_refused_for_the_sake_of_what_may_be_lost(fs):
    """R14, R15: nobody is told that an execution has ended, or is another's, by a write that may not be in the log."""
    log = opened(fs)
    write(log, new(), new("c"))
    fs.inject("sync", error=errno.EIO)
    assert words(log.append(batch_of_endings())) == ["Unknown"] * 4 + ["stale"]
    log.close()
    left = opened(next(iter(fs.crash_states(1))))
    write(left, post("a"), new("b", workflow="other"))


@pytest.mark.parametrize("kind", ["pwrite", "rename", "sync_directory"])
def test_an_interruption_at_any_call_of_an_append(fs, kind):
    """F27: the log says that it can no longer be used; opened again it holds the turn whole or not at all."""
    log = opened(fs, segment_bytes=200 if kind != "pwrite" else 1 << 20)
    write(log, new())
    on_next(fs, kind, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        log.append([turn("a", 1, "X")])
    with pytest.raises(StoreFailed):
        log.stats()
    log.close()
    assert kinds(opened(fs)) in (["Started"], ["Started", "X"])


def test_a_write_that_cannot_be_taken_back(fs):
    """F6: what did not fit and cannot be cut off may be there: Unknown, and the log has failed."""
    log = opened(fs)
    write(log, new())
    fs.inject("pwrite", error=errno.ENOSPC, short=30)
    fs.inject("truncate", error=errno.EIO)
    (outcome,) = log.append([turn("a", 1, "X")])
    assert isinstance(outcome, Unknown) and "cannot be cut" in outcome.reason
    log.close()
    fs.kill()
    assert kinds(opened(fs)) == ["Started"]


@pytest.mark.parametrize("before", [[], [new()]])
def test_writes_that_do_not_fit_leave_nothing_behind(fs, before):
    """F6: each is tried in a segment of its own, and no empty one is added however often that is."""
    log = opened(fs)
    log.append(before)
    log.close()  # with a footer, which goes along
    log = opened(fs)
    states = []
    fs.on_call = lambda call: states.extend(fs.crash_states(8, ignore=["lock"]))
    for n in range(9):
        fs.inject("pwrite", 1 if n == 0 else 2, short=100, error=errno.ENOSPC)  # the head of a new one fits
        (outcome,) = log.append([new("b", records=[Record("Started", 1.0, b"x" * 1000)])])
        assert isinstance(outcome, Rejected) and outcome.reason.startswith("full")
    fs.on_call = None
    assert len(fs.list_directory("/log")) <= 4
    write(log, new("c"))
    found = [opened(state) for state in states]
    assert {tuple(summary.id for summary in log.list().items) for log in found} == {
        tuple(it.id for it in before)
    }
    for state in fs.crash_states(100, ignore=["lock"]):
        assert [summary.id for summary in opened(state).list().items] == [*(it.id for it in before), "c"]
    assert log.verify()["executions"] == len(before) + 1


@pytest.mark.parametrize("durability", ["power", "process"])
def test_a_disk_that_takes_nothing(fs, durability):
    """F7: a write that takes no byte, again and again, is a full disk and no endless loop."""
    log = opened(fs, durability=durability)
    write(log, new())
    fs.inject("pwrite", short=0)
    (outcome,) = log.append([turn("a", 1, "X")])
    assert isinstance(outcome, Rejected) and outcome.reason.startswith("full")
    write(log, turn("a", 1, "Y"))
    log.close()
    assert kinds(opened(fs)) == ["Started", "Y"]


def test_what_was_cut_off_does_not_come_back(fs):
    """F5, F6, L3: a cut that could not be synced may never reach the disk; what was found after it counts for good."""
    write(opened(fs), new(), new("b"))
    fs.kill()
    log = opened(fs)  # in a segment of its own, that holds what was read back
    fs.inject("pwrite", 1, short=400)  # the first message, and a part of the second
    fs.inject("pwrite", 2, error=errno.ENOSPC)
    fs.inject("sync", 1, error=errno.EIO)
    outcomes = log.append([post("a", b"old"), post("b", b"x" * 600)])
    assert {type(outcome) for outcome in outcomes} == {Unknown}
    fs.kill()
    log = opened(fs)
    assert log.inbox("a") == []

    def lose_power(call):
        for left in fs.crash_states(100) if call.kind in ("pwrite", "sync") else ():
            found.append(opened(left).inbox("a"))

    found = []
    fs.on_call = lose_power
    write(log, turn("a", 1, "X"))
    fs.on_call = None
    assert found and not any(found)


# ---------------------------------------------------------------- SQLite


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "log.db")


class Ill:
    """A connection that fails at statements that begin with certain words, before or after they are carried out."""

    def __init__(self, db: sqlite3.Connection, words: str, code: int, *, after: bool = False) -> None:
        self.db, self.words, self.code, self.after = db, words, code, after
        self.error: BaseException = sqlite3.OperationalError("it was asked to")
        self.error.sqlite_errorcode = code  # type: ignore[attr-defined]
        self.error.sqlite_errorname = f"code {code}"  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.db, name)

    def execute(self, statement: str, *values: Any) -> Any:
        return self.told(self.db.execute, statement, *values)

    def executemany(self, statement: str, *values: Any) -> Any:
        return self.told(self.db.executemany, statement, *values)

    def told(self, call: Any, statement: str, *values: Any) -> Any:
        if not statement.strip().startswith(self.words):
            return call(statement, *values)
        if self.after:
            call(statement, *values)
        raise self.error


def ill(log, name, words, code=sqlite3.SQLITE_IOERR, **how):
    """Make one of a log's connections ill."""
    log._connections[name] = found = Ill(log._connection(name), words, code, **how)
    return found


@pytest.mark.parametrize("after", [False, True])
def test_a_commit_that_fails_is_unknown(path, after):
    """I9, F16: it may be in the log or not; reading back tells, on a new connection."""
    log = sqlite.open(f"sqlite:{path}")
    write(log, new())
    ill(log, "writer", "COMMIT", after=after)
    (outcome,) = log.append([turn("a", 1, "X")])
    assert isinstance(outcome, Unknown) and "the commit failed" in outcome.reason
    assert kinds(log) == ["Started", "X"][: 1 + after]
    write(log, turn("a", 1 + after, "Y"))
    log.close()


@pytest.mark.parametrize(
    ("code", "word"), [(sqlite3.SQLITE_IOERR, "unavailable"), (sqlite3.SQLITE_CORRUPT, "damaged")]
)
@pytest.mark.parametrize("words", ["UPDATE main.executions", "BEGIN IMMEDIATE"])
def test_an_error_before_the_commit_rejects(path, code, word, words):
    """I9: nothing is written, now or later; what the batch refused by itself stays refused for its own reason."""
    log = sqlite.open(f"sqlite:{path}")
    write(log, new())
    ill(log, "writer", words, code)
    outcomes = log.append([turn("a", 7, "W"), turn("a", 1, "X")])
    assert outcomes[1].reason.startswith(word)
    assert outcomes[0].reason.startswith("stale" if words.startswith("UPDATE") else word)
    assert kinds(log) == ["Started"]
    write(log, turn("a", 1, "Y"))
    log.close()


@pytest.mark.parametrize("code", [sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT])
def test_a_damaged_row_that_cannot_be_set_aside(path, code):
    """I8: where only its indexes are damaged too, the others are claimed all the same; other trouble is weather."""
    log = sqlite.open(f"sqlite:{path}")
    write(log, new("a"), new("b"))
    log._connection("writer").execute("UPDATE executions SET digest = 'x' WHERE id = 'a'")
    ill(log, "leases", "UPDATE executions SET due = NULL", code)
    if code == sqlite3.SQLITE_CORRUPT:
        assert claimed(log) == ["b"]
    else:
        with pytest.raises(StoreUnavailable):
            claimed(log)
    assert claimed(log) == ([] if code == sqlite3.SQLITE_CORRUPT else ["b"])
    log.close()


@pytest.mark.parametrize("limit", [1, 1000])
def test_a_commit_that_fails_with_a_checkpoint_due(path, limit):
    """There is no connection any more that could make it: it is made after the next commit."""
    log = sqlite.open(f"sqlite:{path}")
    write(log, new())
    log._pace.limit = limit
    log._pace.changes = 10
    ill(log, "writer", "COMMIT")
    (outcome,) = log.append([turn("a", 1, "X")])
    assert isinstance(outcome, Unknown) and log._pace.due == (limit == 1)
    write(log, turn("a", 1, "Y"))
    assert not log._pace.due
    log.close()


def test_what_is_refused_for_the_sake_of_what_is_not_committed(path):
    """F6, R14, R15: nobody is told that an execution has ended, or is another's, by a write that found no room."""
    log = sqlite.open(f"sqlite:{path}")
    write(log, new(), new("c"))
    db = log._connection("writer")
    db.execute(f"PRAGMA max_page_count = {db.execute('PRAGMA page_count').fetchone()[0] + 20}")
    assert words(log.append(batch_of_endings())) == ["full"] * 4 + ["stale"]
    write(log, post("a"), new("b", workflow="other"))
    log.close()


def test_an_interruption_of_an_append(path):
    """F27: nothing of it is there, and the log goes on."""
    log = sqlite.open(f"sqlite:{path}")
    write(log, new())
    ill(log, "writer", "UPDATE main.executions").error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        log.append([turn("a", 1, "X")])
    assert kinds(log) == ["Started"]
    write(log, turn("a", 1, "Y"))
    log.close()


@pytest.mark.parametrize(
    ("code", "rewritten"),
    [(sqlite3.SQLITE_IOERR, True), (sqlite3.SQLITE_FULL, False), (sqlite3.SQLITE_BUSY, False)],
)
@pytest.mark.parametrize("name", ["writer", "leases"])
def test_a_checkpoint_that_fails_takes_nothing_back(path, monkeypatch, caplog, name, code, rewritten):
    """F5: what was committed stays acknowledged; after a failed sync the write-ahead log is written again."""
    log = sqlite.open(f"sqlite:{path}")
    write(log, new(wake=0.0))
    rewrite, calls = sqlite_wal._rewrite, []
    monkeypatch.setattr(sqlite_wal, "_rewrite", lambda db, path: calls.append(1) or rewrite(db, path))
    log._pace.limit = 1
    sick = ill(log, name, "PRAGMA wal_checkpoint", code)
    if name == "writer":
        write(log, turn("a", 1, "X"))
    else:
        assert claimed(log, "w2") == ["a"]
    assert calls == [1] * rewritten and log._connections.get(name) is not sick
    assert "a checkpoint failed" in caplog.text
    assert log._pace.limit >= sqlite_wal.CHANGES_MIN and not log._pace.due, "tried again later"
    write(log, turn("a", 1 + (name == "writer"), "Y", fence=log.summary("a").fence))
    log.close()
    assert calls == [1] * rewritten


def test_a_closing_whose_checkpoint_fails(path, monkeypatch):
    """F5: the store makes the last checkpoint itself: a closing that SQLite alone does tells of no failed sync."""
    log = sqlite.open(f"sqlite:{path}")
    write(log, new())
    calls = []
    monkeypatch.setattr(sqlite_wal, "_rewrite", lambda db, path: calls.append(1))
    ill(log, "writer", "PRAGMA wal_checkpoint")
    log.close()
    assert calls == [1]
    assert sqlite.open(f"sqlite:{path}").summary("a") is not None


def test_an_opening_whose_checkpoint_fails(path, monkeypatch):
    """F5: what a dead process left in the write-ahead log is written again when it cannot be synced."""
    log = sqlite.open(f"sqlite:{path}")
    write(log, new())
    calls = []

    def fail(db):
        raise Ill(None, "", sqlite3.SQLITE_IOERR).error  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(sqlite_wal, "_rewrite", lambda db, path: calls.append(1))
        patch.setattr(sqlite_file, "checkpoint", fail)
        with pytest.raises(StoreUnavailable, match="code 10"):
            sqlite.open(f"sqlite:{path}")
    assert calls == [1]
    log.close()


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("words", ["BEGIN IMMEDIATE", "COMMIT"])
def test_a_claim_that_fails_is_weather(path, words, after):
    """F17: it is not known whether it was committed; asked again, it gives what is due (L8)."""
    log = sqlite.open(f"sqlite:{path}")
    write(log, new(wake=0.0))
    claimed(log, "w2")
    log.release("w2")
    write(log, post("a"))
    ill(log, "leases", words, after=after)
    with pytest.raises(StoreUnavailable):
        log.claim("w2", now=10.0, lease_s=30.0, limit=5)
    assert claimed(log, "w2") == ["a"]
    log.close()


def test_locks_that_cannot_be_made_or_asked(path, monkeypatch):
    """A directory that lets nobody make files in it is weather, with its name."""
    log = sqlite.open(f"sqlite:{path}")
    write(log, new())

    def refuse(*_: object) -> bool:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as patch:
        patch.setattr(lock, "Lock", refuse)
        with pytest.raises(StoreUnavailable, match=r"the workers' locks beside .* cannot be used"):
            claimed(log, "w1")
    other = sqlite.open(f"sqlite:{path}")
    claimed(other, "w2")
    monkeypatch.setattr(sqlite, "PROBE_S", 0.0)
    monkeypatch.setattr(lock, "is_dead", refuse)
    log.wait(0)
    with pytest.raises(StoreUnavailable, match="the workers' locks beside"):
        log.wait(5.0)
    monkeypatch.undo()
    other.close()
    log.close()


def test_waiting_looks_for_the_dead_and_goes_on(path, monkeypatch):
    """L10: whoever waits asks from time to time whether somebody has died; nobody has."""
    asked: list[int] = []
    log = sqlite.open(f"sqlite:{path}")
    claimed(log, "w1")
    log.wait(0)
    known = log._is_somebody_dead
    monkeypatch.setattr(sqlite, "PROBE_S", 0.0)
    monkeypatch.setattr(log, "_is_somebody_dead", lambda db: asked.append(1) or known(db))
    assert log.wait(0.2) is False
    assert asked
    log.close()


def test_a_lock_is_taken_by_a_new_name_when_its_file_is_tidied_away(tmp_path, monkeypatch):
    """Somebody who removes what nobody holds may be faster than the lock: it is made anew."""
    really, lost = lock._is_there, []

    def tidied(path, fd):
        if not lost:
            lost.append(path)
            Path(path).unlink()
        return really(path, fd)

    monkeypatch.setattr(lock, "_is_there", tidied)
    held = lock.Lock(f"{tmp_path}/l-")
    assert held.path != lost[0] and Path(held.path).exists()
    assert not lock.is_dead(f"{tmp_path}/l-", held.token)
    held.drop()
    held.drop()
    assert not Path(held.path).exists()
    assert lock.is_dead(f"{tmp_path}/l-", held.token)
    with pytest.raises(ValueError, match="is no name of a lock"):
        lock.place(f"{tmp_path}/l-", "../../etc/passwd")


def test_the_lock_of_a_dead_worker_that_is_known_stays_until_it_is_buried(path):
    """What it held is voided in the transaction that removes its row; the lock goes only then."""
    log = sqlite.open(f"sqlite:{path}")
    write(log, new(wake=0.0))
    assert claimed(log, "w1") == ["a"]
    (dead,) = [each.path for each in log._locks.values()]
    for each in log._locks.values():
        each.leave()
    other = sqlite.open(f"sqlite:{path}")
    assert Path(dead).exists()
    assert claimed(other, "w2") == ["a"]
    assert not Path(dead).exists()
    other.close()
    log.close()


def test_a_damaged_row_in_a_large_batch_hinders_nobody(path):
    """I8: rows that are read together are judged one by one."""
    log = sqlite.open(f"sqlite:{path}")
    ids = [f"id-{n}" for n in range(sqlite.TOGETHER_MIN + 1)]
    write(log, *(new(id) for id in ids))
    with sqlite3.connect(path) as db:
        db.execute("UPDATE executions SET run = run + 1 WHERE id = 'id-3'")
    outcomes = log.append([turn(id, 1, "X") for id in ids])
    assert [type(outcome) for outcome in outcomes] == [Ok] * 3 + [Rejected] + [Ok] * (len(ids) - 4)
    assert outcomes[3].reason.startswith("damaged")
    db.close()
    log.close()


def test_a_lost_length_of_an_earlier_run(path):
    """L12: where it is not known how long a run was, it cannot be said to be whole."""
    log = sqlite.open(f"sqlite:{path}")
    write(log, new(), turn("a", 1, "X", status=Status.CONTINUED, opens=[Record("Again", 2.0, b"")]))
    assert len(log.records("a", 0)) == 2
    with sqlite3.connect(path) as db:
        db.execute("DELETE FROM ended_runs")
    db.close()
    with pytest.raises(LogCorrupt, match="run 0: missing"):
        log.records("a", 0)
    assert log.records("a", 7) == []
    log.close()


def test_names_that_no_workflow_can_have_are_nobodys(path):
    """L11: what cannot be stored is not looked for either."""
    log = sqlite.open(f"sqlite:{path}")
    write(log, new(wake=0.0))
    given = log.claim("w1", now=10.0, lease_s=30.0, limit=5, workflows=["a\nb", new().workflow])
    assert [each.id for each in given] == ["a"]
    log.close()


def test_an_inbox_that_ends_elsewhere(path):
    """L12: verify compares where an inbox ends with what its row says."""
    log = sqlite.open(f"sqlite:{path}")
    write(log, new(), post("a"), post("a"), post("a"))
    row = log._read(lambda db: log._row(db, "a"))
    log.close()
    log = sqlite.open(f"sqlite:{path}")
    unit = sqlite.Batch(sqlite.SqliteSource(db := log._connection("writer"), path), path)
    db.execute("BEGIN IMMEDIATE")
    found = unit.find("a")
    assert found is not None and found.top == row.top == 3
    found.top = 2
    unit.changed(found)
    sqlite.write_changes(db, unit.changes())
    db.execute("COMMIT")
    with pytest.raises(LogCorrupt, match="it ends elsewhere"):
        log.verify()
    log.close()


def test_settings_are_read_back(path, tmp_path, monkeypatch):
    """L4: a database that does not take the settings asked for is refused, whatever the reason."""
    log = sqlite.open(f"sqlite:{path}")
    settings = log.settings()
    assert (settings["journal_mode"], settings["synchronous"]) == ("wal", "FULL")
    log.close()
    with pytest.raises(StoreUnavailable):
        sqlite_file.connect(str(tmp_path))
    one = sqlite_file._one
    with monkeypatch.context() as patch:
        patch.setattr(
            sqlite_file, "_one", lambda db, query: 0 if query == "PRAGMA synchronous" else one(db, query)
        )
        with pytest.raises(StoreUnavailable, match="cannot be had as durable as asked"):
            sqlite_file.open_connection(path, 2, 1.0)
    with monkeypatch.context() as patch:

        def fail(*_: object) -> None:
            raise Ill(None, "", sqlite3.SQLITE_IOERR).error  # type: ignore[arg-type]

        patch.setattr(sqlite_file, "_check_format", fail)
        with pytest.raises(StoreUnavailable, match="code 10"):
            sqlite_file.open_connection(path, 2, 1.0)
    with pytest.raises(StoreUnavailable, match="cannot have journal_mode=WAL, it reads 'memory'"):
        sqlite_file._set_wal(sqlite3.connect(":memory:"), ":memory:", 1.0)


@pytest.mark.parametrize("statement", ["NONSENSE", "ROLLBACK"])
def test_tables_are_made_in_one_transaction(path, monkeypatch, statement):
    """F26: tables that cannot all be made are not there at all."""
    monkeypatch.setattr(sqlite_file, "SCHEMA", ("CREATE TABLE a (x)", statement))
    with pytest.raises(LogCorrupt, match=r"NONSENSE|no transaction"):
        sqlite.open(f"sqlite:{path}")
    db = sqlite3.connect(path)
    assert db.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    db.close()


def test_a_directory_that_cannot_be_read(fs):
    """F8: weather with the path; the next try opens it."""
    opened(fs).close()
    fs.inject("list_directory", error=errno.EIO)
    with pytest.raises(StoreUnavailable, match="the log /log cannot be opened"):
        opened(fs)
    opened(fs).close()
