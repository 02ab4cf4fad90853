"""The SQLite log: the contract, and what is its own: durability, damage, several processes, full disks."""

import contextlib
import gc
import os
import random
import resource
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from property_tests.lines import interrupted
from tests.engines import until
from zart_core.errors import (
    FormatTooNew,
    InvalidUse,
    LogCorrupt,
    StoreFailed,
    StoreLocked,
    StoreUnavailable,
)
from zart_core.events import Ok, Status
from zart_core.log import Mark, New, Post, Receipt, Record, Rejected, Turn
from zart_core.testing.contract import (
    LEASE_S,
    StoreContract,
    claimed,
    expect,
    new,
    post,
    records,
    refused,
    standing,
    state,
    turn,
    write,
)
from zart_stores.sql import lock, sqlite, sqlite_file, sqlite_wal
from zart_stores.sql.reading import CLAIM_NAME
from zart_stores.sql.sqlite_file import APPLICATION_ID, FORMAT


class TestSqliteContract(StoreContract):
    @pytest.fixture(autouse=True)
    def place(self, tmp_path):
        self.url = f"sqlite:{tmp_path}/log.db"
        self.now = 1000.0

    def open(self):
        return sqlite.open(self.url, clock=lambda: self.now)

    def advance(self, seconds):
        self.now += seconds

    def damage(self, payload):
        flip(Path(self.url.removeprefix("sqlite:")), payload)

    def newer(self):
        sql(self.url.removeprefix("sqlite:"), "PRAGMA user_version = 99")


def flip(path, payload):
    """Change a bit of a payload in a file."""
    data = path.read_bytes()
    assert payload in data
    path.write_bytes(data.replace(payload, bytes([payload[0] ^ 1]) + payload[1:]))


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "log.db")


@pytest.fixture
def log(path):
    store = sqlite.open(f"sqlite:{path}")
    yield store
    store.close()


def sql(path, *statements):
    """Do something to the database behind the log's back."""
    db = sqlite3.connect(path, isolation_level=None)
    try:
        return [db.execute(statement).fetchall() for statement in statements][-1]
    finally:
        db.close()


# ---------------------------------------------------------------- opening


@pytest.mark.parametrize(
    "url", ["sqlite", "sqlite:", "file:x", "sqlite:///x.db", "sqlite::memory:", "sqlite:a\0b", "sqlite:a\nb"]
)
def test_bad_url(url):
    """A URL that is not sqlite:PATH is refused."""
    with pytest.raises(InvalidUse):
        sqlite.open(url)


@pytest.mark.parametrize("durability", ["none", "", "full"])
def test_bad_durability(path, durability):
    """L4: a level that SQLite does not offer is refused, with those that it does."""
    with pytest.raises(InvalidUse, match=r"'power' .default. and 'process'"):
        sqlite.open(f"sqlite:{path}", durability=durability)
    assert not os.path.exists(path)


@pytest.mark.parametrize(
    "name", ["orders.db", "with space.db", "100%.db", "a?b#c&d.db", "ünï.db", "'quoted'.db"]
)
def test_path(tmp_path, monkeypatch, name):
    """L11: the path is a path and nothing else, relative or not; later changes of directory do not matter."""
    monkeypatch.chdir(tmp_path)
    log = sqlite.open(f"sqlite:{name}")
    monkeypatch.chdir("/")
    write(log, new())
    claimed(log)
    log.close()
    expect(os.listdir(tmp_path), [name])


def test_mode(path, log):
    """The files are for their owner alone."""
    claimed(log)
    names = os.listdir(os.path.dirname(path))
    modes = {stat.S_IMODE(os.stat(os.path.join(os.path.dirname(path), name)).st_mode) for name in names}
    expect((len(names), modes), (4, {0o600}))


@pytest.mark.parametrize("durability, synchronous", [("power", 2), ("process", 1)])
def test_pragmas(path, durability, synchronous):
    """L4: WAL and FULL are set, and NORMAL only for a level that was asked for by name."""
    log = sqlite.open(f"sqlite:{path}", durability=durability)
    write(log, new())
    claimed(log)
    found = {name: db.execute("PRAGMA synchronous").fetchone()[0] for name, db in log._connections.items()}
    expect(found, {"writer": synchronous, "leases": 1, "reader": 1})
    expect(log.level, durability)
    modes = {db.execute("PRAGMA journal_mode").fetchone()[0] for db in log._connections.values()}
    expect(modes, {"wal"})
    log.close()


def test_no_wal(path, monkeypatch):
    """L4: where WAL cannot be had the log refuses to open, with what was read."""
    sqlite.open(f"sqlite:{path}").close()
    sql(path, "PRAGMA journal_mode=DELETE")
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreUnavailable):
        sqlite.open(f"sqlite:{path}", busy_s=0.1)
    blocker.close()
    sqlite.open(f"sqlite:{path}").close()
    expect(sql(path, "PRAGMA journal_mode"), [("wal",)])


def test_no_directory(tmp_path):
    """A missing directory is named."""
    with pytest.raises(InvalidUse, match=r"directory '.*/missing' does not exist"):
        sqlite.open(f"sqlite:{tmp_path}/missing/log.db")


def test_not_a_file(tmp_path):
    """Directories and symbolic links are refused."""
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in (".", "link"):
        with pytest.raises(InvalidUse):
            sqlite.open(f"sqlite:{tmp_path}/{name}")
    expect(os.listdir(tmp_path), ["link"])


def test_a_path_that_the_system_refuses(tmp_path):
    """Such as one below a directory that this user may not look into: weather, with the system's own reason."""
    with pytest.raises(StoreUnavailable, match="cannot be made or looked at: File name too long"):
        sqlite.open(f"sqlite:{tmp_path}/{'n' * 300}")


def test_what_this_user_may_not_write_is_said_to_be_so(tmp_path):
    """SQLite's own words ("unable to open database file") do not say what to do."""
    with pytest.raises(
        StoreUnavailable, match=r"SQLITE_CANTOPEN: .*; this user must be able to write to it, to the f"
    ):
        sqlite_file.connect(str(tmp_path))


def test_not_a_database(path):
    """F26: a file that is no database is refused and left as it is."""
    content = b"Dear diary, " * 1000
    Path(path).write_bytes(content)
    with pytest.raises(LogCorrupt, match="not an SQLite database"):
        sqlite.open(f"sqlite:{path}")
    expect(Path(path).read_bytes(), content)


@pytest.mark.parametrize(
    "statement", ["CREATE TABLE t (x)", "PRAGMA application_id = 7", "PRAGMA user_version = 3"]
)
def test_another_database(path, statement):
    """F26: somebody else's database is refused and left as it is; the message says how tables may share a log's."""
    sql(path, statement)
    before = Path(path).read_bytes()
    with pytest.raises(InvalidUse, match="of its own, and where your tables are to share it"):
        sqlite.open(f"sqlite:{path}")
    expect(Path(path).read_bytes(), before)


def test_newer_format(path):
    """F26: a newer format is refused with both versions named."""
    sqlite.open(f"sqlite:{path}").close()
    sql(path, "PRAGMA user_version = 99")
    with pytest.raises(FormatTooNew, match=f"format 99.*up to {FORMAT}"):
        sqlite.open(f"sqlite:{path}")
    expect(sql(path, "PRAGMA application_id"), [(APPLICATION_ID,)])


def test_newer_format_while_open(path, log):
    """F26: a connection that is opened later looks again."""
    write(log, new())
    sql(path, "PRAGMA user_version = 99")
    log._disconnect()
    with pytest.raises(FormatTooNew):
        log.summary("a")
    refused(log, post(), "damaged")
    sql(path, f"PRAGMA user_version = {FORMAT}")


def test_gone(path, log):
    """A database that was removed is not made anew behind everybody's back."""
    write(log, new())
    log._disconnect()
    os.unlink(path)
    with pytest.raises(StoreUnavailable, match="is gone"):
        log.summary("a")
    refused(log, post(), "unavailable")
    assert not os.path.exists(path)


# ---------------------------------------------------------------- damage


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE records SET data = X'00' WHERE position = 1",
        "UPDATE records SET kind = 'Other' WHERE position = 1",
        "UPDATE records SET at = at + 1 WHERE position = 1",
        "UPDATE records SET crc = crc + 1 WHERE position = 1",
        "UPDATE records SET run = 7 WHERE position = 1",
        "DELETE FROM records WHERE position = 0",
        "DELETE FROM records WHERE position = 1",
        "DELETE FROM records WHERE position = 2",
        "UPDATE records SET position = 9 WHERE position = 2",
        "INSERT INTO records SELECT execution, run, 3, kind, at, data, crc FROM records WHERE position = 2",
        "UPDATE executions SET position = 2",
        "UPDATE executions SET fence = fence + 1",
        "UPDATE executions SET status = 'nonsense'",
        "UPDATE executions SET workflow = 'v'",
        "UPDATE executions SET fence = 'three'",
        "UPDATE executions SET reason = X'00'",
        "UPDATE executions SET digest = CAST(X'FF' AS TEXT)",
        "UPDATE records SET data = 'text' WHERE position = 1",
        "UPDATE records SET at = 'noon' WHERE position = 1",
        "UPDATE records SET kind = X'00' WHERE position = 1",
        "UPDATE records SET kind = CAST(X'FF' AS TEXT) WHERE position = 1",
        "DROP TABLE records",
    ],
)
def test_damaged_record(path, log, statement):
    """L12: a record or row that is not as it was written is reported by reading and by verify."""
    write(log, new(), turn("a", 1, "X", "Y"))
    sql(path, statement)
    for read in (lambda: log.records("a"), log.verify, lambda: log.records("a")):
        with pytest.raises(LogCorrupt) as caught:
            read()
        assert path in caught.value.where and caught.value.expected and caught.value.found


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE messages SET payload = X'00' WHERE number = 2",
        "UPDATE messages SET name = 'other' WHERE number = 2",
        "UPDATE messages SET key = 'other' WHERE number = 2",
        "UPDATE messages SET number = 9 WHERE number = 2",
        "UPDATE messages SET payload = 'text' WHERE number = 2",
        "UPDATE messages SET at = 'noon' WHERE number = 2",
        "DELETE FROM messages WHERE number = 1",
        "DELETE FROM messages WHERE number = 2",
    ],
)
def test_damaged_message(path, log, statement):
    """L12: a message that is missing or not as it was posted is reported."""
    write(log, new(), post(payload=b"1", key="k1"), post(payload=b"2", key="k2"))
    sql(path, statement)
    for read in (lambda: log.inbox("a"), log.verify):
        with pytest.raises(LogCorrupt):
            read()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE executions SET due = 77.0",
        "DELETE FROM message_keys",
        "UPDATE message_keys SET number = 'first' WHERE key = 'gone'",
        "UPDATE message_keys SET number = 3 WHERE key = 'gone'",
        "INSERT INTO message_keys VALUES (99, 'k', 1)",
        "INSERT INTO ended_runs VALUES (99, 0, 1)",
        "DELETE FROM ended_runs",
        "UPDATE ended_runs SET records = records + 1",
        "DELETE FROM executions",
        "DELETE FROM records WHERE run = 0 AND position = 1",
        "INSERT INTO messages VALUES (99, 1, 'event', 'n', 0.0, NULL, X'', 0)",
    ],
)
def test_damage_that_verify_finds(path, log, statement):
    """L12: verify checks what single reads do not look at."""
    write(log, new(), post(key="k"), post(key="gone"))
    write(log, turn("a", 1, "X", consumes=[2], opens=records("Started", at=2.0)))
    log.verify()
    sql(path, statement)
    with pytest.raises(LogCorrupt):
        log.verify()


@pytest.mark.parametrize(
    ("statement", "ask"),
    [
        ("DELETE FROM counters", lambda log: log.wait(0)),
        ("UPDATE counters SET value = 'many'", lambda log: log.claim("w2", now=9.0, lease_s=30.0, limit=5)),
        ("UPDATE executions SET due = 'soon'", lambda log: log.next_wake()),
        ("UPDATE executions SET owner = X'FF'", lambda log: log.next_wake()),
        ("UPDATE executions SET status = 'odd'", lambda log: log.stats()),
        ("UPDATE ended_runs SET records = 'all'", lambda log: log.records("a", 0)),
        ("DELETE FROM ended_runs", lambda log: log.records("a", 0)),
        (
            "UPDATE workers SET lock = '../../etc'",
            lambda log: log.claim("w2", now=9.0, lease_s=30.0, limit=5),
        ),
        ("UPDATE workers SET lock = X'FF'", lambda log: log.claim("w1", now=9.0, lease_s=30.0, limit=5)),
        ("UPDATE workers SET lease = 'long'", lambda log: log.acquire("w2", "a", lease_s=30.0)),
        ("UPDATE workers SET robbed = 'yes'", lambda log: log.renew("w1", lease_s=30.0)),
    ],
)
def test_damage_where_there_is_no_checksum(path, log, statement, ask):
    """L12: what cannot be there is reported as damage, whoever comes across it."""
    write(log, new(), turn("a", 1, "X", wake=5.0, opens=records("Started", at=2.0)))
    expect(claimed(log, "w1"), ["a"])
    ask(log)
    sql(path, statement)
    with pytest.raises(LogCorrupt) as caught:
        ask(log)
    assert path in caught.value.where


def test_a_damaged_key_of_a_message(path, log):
    """L12: the key of an earlier message that leads to no number refuses what comes with it, and nothing else."""
    write(log, new(), post(key="k"))
    sql(path, "UPDATE message_keys SET number = 'first'")
    refused(log, post(key="k"), "damaged")
    write(log, post(key="other"), new("b"))
    refused(log, turn("b", 1, "X", creates=[new("c")], posts=[post(key="k")]), "damaged")
    expect(
        ([each.kind for each in log.records("b")], log.summary("c")), (["Started"], None), "L3: nothing of it"
    )
    write(log, turn("b", 1, "X", posts=[post(key="k2"), post(key="k2")]))
    expect(standing(log).unread, 3)


def test_names_out_of_order(path, log):
    """Steps along an index that is not in order would go round and round: damage."""
    write(log, new(wake=0.0), new("b", workflow="Flow"))
    log.close()
    sql(
        path,
        "PRAGMA writable_schema = ON",
        "UPDATE sqlite_master SET sql = replace(sql, 'owner TEXT', 'owner TEXT COLLATE NOCASE')",
    )
    sql(
        path,
        "UPDATE executions SET owner = 'b' WHERE id = 'a'",
        "UPDATE executions SET owner = 'C' WHERE id = 'b'",
        "REINDEX",
    )
    again = sqlite.open(f"sqlite:{path}")
    with pytest.raises(LogCorrupt, match="not in order"):
        again.next_wake()
    again.close()


def test_times_that_go_back(log):
    """I2: verify reports a time that goes back within a run."""
    write(log, new(), turn("a", 1, records=records("X", at=0.5)))
    with pytest.raises(LogCorrupt, match="time goes back"):
        log.verify()


def test_damage_is_alone(path, log, caplog):
    """I8: damage of one execution hinders no other: not its batch, not a claim."""
    write(log, new(), new("b"), new("c"))
    sql(path, "UPDATE executions SET digest = 'x' WHERE id = 'b'")
    found = log.append([turn("a", 1, "X", wake=0.0), turn("b", 1, "X"), post("c")])
    expect([isinstance(outcome, Ok) for outcome in found], [True, False, True])
    expect(found[1].reason.split(":")[0], "damaged")
    (outcome,) = log.append([turn("a", 2, "Y", posts=[post("c"), post("b")])])
    assert isinstance(outcome, Rejected)
    (outcome,) = log.append([turn("a", 2, "Y", posts=[post("c")], creates=[new("d"), new("b")])])
    assert isinstance(outcome, Rejected)
    expect((standing(log).position, standing(log, "c").unread, log.summary("d")), (2, 1, None))
    expect(claimed(log), ["a", "c"])
    assert "'b'" in caplog.text
    with pytest.raises(LogCorrupt):
        log.summary("b")


@pytest.mark.parametrize(
    "change", ["digest = 'x'", "reason = CAST(X'FF' AS TEXT)", "status = 'odd'", "posted = 'one'"]
)
@pytest.mark.parametrize("many", [1, 10])
def test_a_damaged_row_hinders_no_other(path, log, caplog, change, many):
    """I8: what is written, claimed or listed together with it is there; it alone is left out, and that is said."""
    others = [f"a{n}" for n in range(many)]
    write(log, *[new(id) for id in others], new("b"), new("c"))
    sql(path, f"UPDATE executions SET {change} WHERE id = 'b'")
    found = log.append([*[turn(id, 1, "X", wake=0.0) for id in others], post("b"), post("c")])
    expect([isinstance(outcome, Ok) for outcome in found], [True] * many + [False, True])
    expect([each.id for each in log.list().items], [*others, "c"])
    page = log.list(limit=many + 1)
    expect(([each.id for each in page.items], page.next), (others, "b"))
    expect(([each.id for each in log.list(after=page.next).items], log.list(limit=1).next), (["c"], "a0"))
    expect([each.id for each in log.list(limit=1, after=others[-1]).items], ["c"])
    expect(sorted(claimed(log)), [*others, "c"])
    assert "left out of a list" in caplog.text and "left alone" in caplog.text
    for ask in (lambda: log.summary("b"), log.verify):
        with pytest.raises(LogCorrupt):
            ask()


@contextlib.contextmanager
def unindexed(path, *indexes):
    """What is changed meanwhile does not reach these indexes."""
    named = f"name IN ({', '.join(map(repr, indexes))})"
    saved = sql(path, f"SELECT type, name, tbl_name, rootpage, sql FROM sqlite_master WHERE {named}")
    assert len(saved) == len(indexes)
    sql(path, "PRAGMA writable_schema = ON", f"DELETE FROM sqlite_master WHERE {named}")
    yield
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA writable_schema = ON")
        db.executemany("INSERT INTO sqlite_master VALUES (?, ?, ?, ?, ?)", saved)
        db.commit()


def test_a_damaged_row_that_its_indexes_do_not_fit(path):
    """I8: it cannot be taken out of them; it is passed by each time."""
    log = sqlite.open(f"sqlite:{path}")
    write(log, new(), new("b"), new("c"))
    log.close()
    with unindexed(path, "executions_due", "executions_by_workflow"):
        sql(path, "UPDATE executions SET workflow = 'x' WHERE id = 'b'")
    log = sqlite.open(f"sqlite:{path}")
    with contextlib.closing(log):
        expect(claimed(log, "w1"), ["a", "c"])
        log.release("w1")
        expect(claimed(log, "w2"), ["a", "c"])


def test_a_page_that_ends_with_what_is_no_id(path, log):
    """L12: it cannot be gone on from, and that is damage; a page that passes it by is one."""
    write(log, new(), new("b"), new("c"))
    for id, damaged in (("b", "FF"), ("c", "FFFF")):
        sql(path, f"UPDATE executions SET id = CAST(X'{damaged}' AS TEXT) WHERE id = '{id}'")
    expect([each.id for each in log.list().items], ["a"])
    with pytest.raises(LogCorrupt, match="not in order"):
        log.list(limit=2)


def test_damaged_pages(path):
    """L12: whatever page is overwritten, what is read is as it was or LogCorrupt."""
    log = sqlite.open(f"sqlite:{path}")
    write(log, *[new(f"e{n}", records=records("A", "B", data=bytes(900))) for n in range(40)])
    ids = [f"e{n}" for n in range(40)]
    before = state(log, *ids)
    log.close()
    whole = Path(path).read_bytes()
    noticed = 0
    for page in range(0, len(whole) // 4096, 2):
        with open(path, "wb") as file:
            file.write(
                whole[: page * 4096] + random.Random(page).randbytes(4096) + whole[(page + 1) * 4096 :]
            )
        try:
            log = sqlite.open(f"sqlite:{path}")
        except (LogCorrupt, InvalidUse):
            noticed += 1
            continue
        try:
            log.verify()
            expect(state(log, *ids), before)
        except LogCorrupt:
            noticed += 1
        finally:
            log.close()
    assert noticed > 5


def test_an_index_that_names_what_is_not_there(path):
    """L12: an execution that is due by an index and nowhere else is damage, and nothing is claimed in its place."""
    log = sqlite.open(f"sqlite:{path}")
    write(log, new("a", wake=0.0))
    log.close()
    with unindexed(path, "executions_due"):
        sql(path, "DELETE FROM executions")
    log = sqlite.open(f"sqlite:{path}")
    with contextlib.closing(log), pytest.raises(LogCorrupt, match="it names one that is not there"):
        claimed(log)


def test_damage_that_python_cannot_read(path):
    """L12: SQLite quotes what is damaged, Python decodes what SQLite quotes, and it is damage all the same."""
    sqlite.open(f"sqlite:{path}").close()
    flip_bits = (
        "UPDATE sqlite_master SET name = CAST(x'ff' AS TEXT), sql = 'nonsense' WHERE name = 'counters'"
    )
    sql(path, "PRAGMA writable_schema = ON", flip_bits)
    with pytest.raises(LogCorrupt, match="is damaged"):
        sqlite.open(f"sqlite:{path}")


# ---------------------------------------------------------------- full disks, locks, forks


def test_full(path, log):
    """F6: a full disk is Rejected("full"), nothing is written, and the log works again with room."""
    write(log, new())
    db = log._connection("writer")
    pages = db.execute("PRAGMA page_count").fetchone()[0]
    db.execute(f"PRAGMA max_page_count = {pages + 20}")
    before = state(log, "a", "b")
    big = turn("a", 1, records=records("X", at=2.0, data=bytes(500_000)))
    found = log.append([new("b"), big, turn("a", 9)])
    expect([outcome.reason.split(":")[0] for outcome in found], ["full", "full", "stale"])
    expect(state(log, "a", "b"), before)
    expect(dict(log.verify())["executions"], 1)
    write(log, big)  # its connection is new and has no bound
    expect(standing(log).position, 2)


@pytest.mark.parametrize("bytes_n", [9_000, 5_000_000])
def test_no_file_may_grow(path, log, bytes_n):
    """F6: a limit of file sizes is Rejected("full"), whenever SQLite meets it; the log works again without it."""
    write(log, new())
    before = state(log, "a", "b")
    items = [turn("a", 1, records=records(*["X"] * (bytes_n // 1000), at=2.0, data=bytes(1000))), new("b")]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (Path(f"{path}-wal").stat().st_size, limits[1]))
    try:
        found = log.append([*items, turn("a", 9)])
        length = Path(f"{path}-wal").stat().st_size
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    expect([type(outcome) for outcome in found], [Rejected] * 3)
    expect([outcome.reason.split(":")[0] for outcome in found], ["full", "full", "stale"])
    expect(Path(f"{path}-wal").stat().st_size, length)
    expect(state(log, "a", "b"), before)
    write(log, turn("a", 1, "X"))
    expect(standing(log).position, 2)
    log.verify()


@pytest.mark.skipif(os.getuid() != 0, reason="mounting needs root")
def test_full_disk(tmp_path):
    """F6: on a disk that is full every append is Rejected or whole; it works again when there is room."""
    place = tmp_path / "small"
    place.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True
    ).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        ballast = place / "ballast"
        ballast.write_bytes(bytes(300_000))
        log = sqlite.open(f"sqlite:{place}/log.db")
        write(log, new())
        position, refusals = 1, 0
        while refusals < 5:
            (outcome,) = log.append([turn("a", position, records=records("X", at=2.0, data=bytes(9_000)))])
            if isinstance(outcome, Ok):
                position += 1
            else:
                expect((type(outcome), outcome.reason.split(":")[0]), (Rejected, "full"))
                refusals += 1
        assert position > 10
        ballast.unlink()
        write(log, turn("a", position, "Y"))
        expect(len(log.records("a")), position + 1)
        log.verify()
        log.close()
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


DATA = Path(__file__).parent / "data"


def golden(place):
    """The workload whose database of format 1 is in tests/data."""
    log = sqlite.open(f"sqlite:{place}")
    write(log, New("order-42", "order", "digest", [Record("Started", 1.5, b'{"sku":"x\\n"}')], 1.5))
    write(log, Post("order-42", "event", "paid", b"\xff\x00", 2.0, "k"))
    write(log, Post("order-42", "event", "paid", "ü".encode(), 2.25))
    issued = [Record("Issued", 2.5, b"[]"), Record("Resolved", 2.5, b"\x80" * 5000)]
    write(log, Turn("order-42", 0, 1, 0, issued, 2.5, Status.WAITING, wake=99.25, seen=1, consumes=[1]))
    write(log, Mark("order-42", Status.PARKED, "why", "build"))
    child = New("child", "order", "digest", [Record("Started", 3.0, b"")], 3.0)
    write(log, New("c", "counted", "digest", [Record("Started", 3.0, b"1")], 3.0, creates=[child]))
    opens = [Record("Started", 3.5, b"\x00")]
    write(log, Turn("c", 0, 1, 0, [], 3.5, Status.CONTINUED, opens=opens))
    write(log, Turn("child", 0, 1, 0, [Record("Closed", 4.0, b"{}")], 4.0, Status.COMPLETED))
    log.close()


def content(log):
    """All that a log tells of its executions."""
    return [
        (it, [log.records(it.id, run) for run in range(it.run + 1)], log.inbox(it.id))
        for it in log.list().items
    ]


def golden_2(place):
    """The same, and what came with format 2."""
    golden(place)
    log = sqlite.open(f"sqlite:{place}")
    named = New(
        "named", "order", "digest", [Record("Started", 4.5, b"")], 4.5, wake=1.0, claimed_as="order 2"
    )
    opens = [Record("Started", 4.75, b"")]
    again = New("again", "order", "digest", [Record("Started", 4.5, b"")], 4.5, wake=1.0)
    write(log, named, again)
    write(log, Turn("again", 0, 1, 0, [], 4.75, Status.CONTINUED, opens=opens, opens_as="order 3", wake=1.0))
    log.close()


@pytest.mark.parametrize("number, write_it", [(1, golden), (2, golden_2)])
def test_golden(tmp_path, number, write_it):
    """F26: a database as an earlier format was written once is read and written for ever, and says what it said."""
    write_it(tmp_path / "now.db")
    shutil.copy(DATA / f"sqlite-format-{number}.db", tmp_path / "then.db")
    now, then = sqlite.open(f"sqlite:{tmp_path}/now.db"), sqlite.open(f"sqlite:{tmp_path}/then.db")
    expect(content(then), content(now))
    more = 2 * (number - 1)
    assert len(content(then)) == 3 + more
    for log in (then, now):
        for names in (["order 3"], ["order 2"], ["order"], None):
            claims = log.claim("w", now=100.0, lease_s=30.0, limit=9, workflows=names)
            expect([each.id for each in claims], GIVEN[number, names and names[0]])
        log.close()
    then = sqlite.open(f"sqlite:{tmp_path}/then.db")
    write(then, Turn("c", 1, 1, then.summary("c").fence, [Record("X", 5.0, b"")], 5.0, Status.WAITING))
    expect(dict(then.verify()), {"executions": 3 + more, "records": 8 + 3 * (number - 1), "messages": 1})
    expect(then.settings()["format"], FORMAT)
    then.close()


GIVEN = {
    (1, "order 3"): [],
    (1, "order 2"): [],
    (1, "order"): ["order-42"],
    (1, None): [],
    (2, "order 3"): ["again"],
    (2, "order 2"): ["named"],
    (2, "order"): ["order-42"],
    (2, None): [],
}
"""What a claim of each name gives."""


def test_an_upgrade_that_is_interrupted_is_done_by_who_comes_next(tmp_path, monkeypatch):
    """F25, F26: it is one transaction; until then the database is what it was."""
    place = tmp_path / "log.db"
    shutil.copy(DATA / "sqlite-format-1.db", place)
    for n in range(len(sqlite_file.UPGRADE)):
        monkeypatch.setattr(sqlite_file, "UPGRADE", (*sqlite_file.UPGRADE[:n], "SELECT no_such_function()"))
        with pytest.raises(LogCorrupt, match="no such function"):
            sqlite.open(f"sqlite:{place}")
        expect(sql(place, "PRAGMA user_version"), [(1,)])
        monkeypatch.undo()
    log = sqlite.open(f"sqlite:{place}")
    expect(dict(log.verify()), {"executions": 3, "records": 7, "messages": 1})
    log.close()


def broken(*args, **kwargs):
    raise OSError(5, "Input/output error")


@pytest.mark.parametrize("call", ["fsync", "scandir", "open"])
def test_the_directory_cannot_be_used(path, monkeypatch, call):
    """What the system cannot do beside SQLite is weather, and the next opening goes on where it was (F5)."""
    with monkeypatch.context() as patched:
        patched.setattr(os, call, broken)
        with pytest.raises(StoreUnavailable, match="Input/output error"):
            sqlite.open(f"sqlite:{path}")
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    sqlite.open(f"sqlite:{path}").close()
    # the name of the write-ahead log is made durable, and that of an empty file, whoever made it
    assert len(synced) == (1 if call == "scandir" else 2)


def test_a_lock_file_that_cannot_be_removed(path, log, monkeypatch):
    """It is left as a dead one's, and tidied up by the next who can."""
    assert log.append([New("a", "flow", "d", [Record("Started", 1.0, b"")], 1.0, owner="w")])
    (left,) = Path(path).parent.glob("*-worker-*")
    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", broken)
        log.close()
    assert left.exists()
    sqlite.open(f"sqlite:{path}").close()
    assert not left.exists()


def test_locked(path, log):
    """F17: a writer that is in the way for long makes an append Rejected("unavailable"), never half done."""
    write(log, new())
    log._busy_s = 0.1
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    refused(log, turn("a", 1, "X"), "unavailable")
    with pytest.raises(StoreUnavailable):
        log.claim("w1", now=10.0, lease_s=LEASE_S, limit=1)
    expect(standing(log).position, 1)
    blocker.close()
    write(log, turn("a", 1, "X"))


def test_fork(path, log):
    """F12: a log that is used in a forked child refuses, and the parent's goes on."""
    write(log, new())
    claimed(log)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            appends = (lambda: log.append([post()]), lambda: log.append([]))
            for use in (*appends, lambda: log.summary("a"), lambda: claimed(log)):
                try:
                    use()
                except StoreFailed:
                    continue
                os._exit(2)
            log.close()
            own = sqlite.open(f"sqlite:{path}")
            code = 0 if standing(own).owner == "w1" and claimed(own, "w2") == [] else 3
        finally:
            os._exit(code)
    expect(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0)
    write(log, turn("a", 1, "X", fence=1))
    expect(standing(log).owner, "w1")


@pytest.mark.parametrize("held", ["_writing", "_reading"])
def test_fork_while_a_thread_works(path, log, held):
    """F12: a child that is forked while another thread is in the log is refused at once, and waits for nobody."""
    write(log, new())
    inside, forked = threading.Event(), threading.Event()

    def work():
        with getattr(log, held):
            inside.set()
            forked.wait(30)

    thread = threading.Thread(target=work)
    thread.start()
    assert inside.wait(30)
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
        refusals = 0
        for use in (
            lambda: log.append([post()]),
            lambda: log.summary("a"),
            lambda: claimed(log),
            log.settings,
        ):
            try:
                use()
            except StoreFailed:
                refusals += 1
        os._exit(refusals)
    forked.set()
    thread.join()
    expect(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 4)


def test_one_worker_name_twice(path, log):
    """L8: a worker name that is in use by a living worker cannot be used by another."""
    write(log, new())
    claimed(log, "w1")
    other = sqlite.open(f"sqlite:{path}")
    with pytest.raises(StoreLocked, match="w1"):
        claimed(other, "w1")
    with pytest.raises(StoreLocked, match="w1"):
        other.append([new("b", owner="w1")])
    expect(other.summary("b"), None)
    other.close()
    expect(standing(log).owner, "w1")


def test_a_first_claim_that_fails(path, monkeypatch):
    """L8: of a worker that died, what it held is due to its successor of the same name, whose first claim failed."""
    dead = sqlite.open(f"sqlite:{path}")
    write(dead, new())
    expect(claimed(dead, "w1"), ["a"])
    for held in dead._locks.values():
        held.leave()
    log = sqlite.open(f"sqlite:{path}")
    with monkeypatch.context() as patched:
        patched.setattr(
            sqlite, "due_keys", lambda *_: log._connection("leases").execute("SELECT * FROM nothing")
        )
        with pytest.raises(LogCorrupt):
            claimed(log, "w1")
    expect(list(Path(path).parent.glob("*-worker-*")), [])
    expect((claimed(log, "w1"), standing(log).fence), (["a"], 2))
    log.close()


def test_no_lock_is_left(path):
    """Closing removes the locks of its workers."""
    log = sqlite.open(f"sqlite:{path}")
    write(log, new())
    for worker in ("w1", "w2"):
        claimed(log, worker)
    log.close()
    expect(os.listdir(os.path.dirname(path)), ["log.db"])


def test_due_by_index(path, log):
    """L10: claims and next_wake use the indexes of what is due, and never scan what has ended."""
    write(log, *[new(f"e{n}", wake=None, status=Status.COMPLETED) for n in range(500)], new("a"))
    plans = []
    db = log._connection("leases")
    db.set_trace_callback(lambda statement: plans.append(statement))
    expect(claimed(log), ["a"])
    db.set_trace_callback(None)
    for statement in [plan for plan in plans if plan.lstrip().startswith("SELECT") and "executions" in plan]:
        for *_, detail in sql(path, f"EXPLAIN QUERY PLAN {statement}"):
            assert detail.startswith("SEARCH"), f"{statement}: {detail}"
    for query in (
        f"SELECT due FROM executions WHERE owner IS NULL AND due IS NOT NULL AND {CLAIM_NAME} = 'w' AND due >= 0",
        f"SELECT due FROM executions WHERE owner = 'w' AND {CLAIM_NAME} = 'w' AND due >= 0 ORDER BY due LIMIT 1",
        f"SELECT 1 FROM executions WHERE owner = 'w' AND {CLAIM_NAME} > '' ORDER BY {CLAIM_NAME} LIMIT 1",
        "SELECT owner FROM executions WHERE owner IS NOT NULL AND owner > '' ORDER BY owner LIMIT 1",
    ):
        ((*_, detail),) = sql(path, f"EXPLAIN QUERY PLAN {query}")
        assert detail.startswith("SEARCH executions USING ") and " INDEX executions_" in detail, detail


# ---------------------------------------------------------------- several processes


class Child:
    """A process that has the database open: each line it is sent is run, and its answer is a line."""

    SCRIPT = """
        import sys
        from zart_stores.sql import lock, sqlite
        from zart_core.events import *
        from zart_core.log import *
        from zart_core.testing.contract import *
        log = sqlite.open(sys.argv[1])
        print("ready", flush=True)
        for line in sys.stdin:
            print(repr(eval(line)), flush=True)
        log.close()
    """

    def __init__(self, path):
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(self.SCRIPT), f"sqlite:{path}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        expect(self.process.stdout.readline(), "ready\n")

    def tell(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def answer(self):
        return self.process.stdout.readline().strip()

    def ask(self, line):
        self.tell(line)
        return self.answer()

    def end(self):
        self.process.stdin.close()
        self.process.wait(20)
        self.process.stdout.close()


@pytest.fixture
def child(path):
    process = Child(path)
    yield process
    if process.process.poll() is None:
        process.process.kill()
    process.process.wait(20)
    process.process.stdin.close()
    process.process.stdout.close()


def test_two_processes(path, log, child):
    """L2, L8: what one process writes another sees; claims of one are not another's; a wait notices."""
    write(log, new())
    expect(child.ask("claimed(log, 'other')"), "['a']")
    expect((claimed(log), standing(log).owner), ([], "other"))
    refused(log, turn("a", 1, "X"), "stale")
    expect(child.ask("write(log, turn('a', 1, 'X', fence=1)).created"), "True")
    expect([record.kind for record in log.records("a")], ["Started", "X"])
    child.tell("log.wait(20.0)")
    time.sleep(0.1)
    began = time.monotonic()
    write(log, new("b"))
    expect(child.answer(), "True")
    assert time.monotonic() - began < 5
    expect(child.ask("claimed(log, 'other')"), "['b']")
    child.end()
    expect([standing(log, id).owner for id in "ab"], [None, None])


def test_processes_compete(path, log, child):
    """L2, F17: two processes that write at the same time lose nothing and never share a position."""
    write(log, new(), new("mine"))
    child.tell(
        "[isinstance(log.append([turn('a', 1 + n, 'child')])[0], Ok) or log.append([post('a')])[0] and False"
        " for n in range(100)]"
    )
    mine = []
    for n in range(100):
        (outcome,) = log.append([turn("a", 1 + n, "parent")])
        mine.append(isinstance(outcome, Ok))
        write(log, turn("mine", 1 + n, "X"))
    theirs = eval(child.answer())
    kinds = [record.kind for record in log.records("a")][1:]
    expect((kinds.count("parent"), kinds.count("child")), (sum(mine), sum(theirs)))
    expect(log.verify()["messages"], theirs.count(False))


def test_kill(path, log, child):
    """L8: after kill -9 of its holder an execution is free at once, long before its lease runs out."""
    write(log, new(), new("b"), new("c"))
    child.ask("claimed(log, 'dead', lease_s=3600.0)")
    child.ask("write(log, turn('a', 1, 'X', fence=1, status=Status.RUNNING))")
    child.ask("write(log, turn('b', 1, 'X', fence=1, status=Status.WAITING, wake=500.0))")
    expect(claimed(log), [])
    locks = [str(lock) for lock in Path(path).parent.glob("*-worker-*")]
    os.kill(child.process.pid, signal.SIGKILL)
    child.process.wait(20)
    expect(log.wait(20.0), True, "a worker's death is a reason to look")
    expect(claimed(log), ["a", "c"], "RUNNING, and given without an answer")
    expect((standing(log, "b").owner, standing(log).fence), (None, 2))
    expect([lock for lock in locks if os.path.exists(lock)], [log._locks["w1"].path])
    log.verify()


def test_kill_with_a_child(path, log, child):
    """F12: a child that a worker forked does not keep it alive for others."""
    write(log, new())
    child.ask("claimed(log, 'dead', lease_s=3600.0)")
    sleeper = int(child.ask("__import__('os').fork() or time.sleep(30)"))
    try:
        os.kill(child.process.pid, signal.SIGKILL)
        child.process.wait(20)
        # as soon as the child has begun to run at all, and let go of what it was born with
        expect(until(lambda: claimed(log)), ["a"])
    finally:
        os.kill(sleeper, signal.SIGKILL)


def test_stopped(path, log, child):
    """F15: a process that was stopped past its lease finds its append rejected by the fence."""
    write(log, new())
    expect(child.ask("claimed(log, 'slow', lease_s=0.3)"), "['a']")
    os.kill(child.process.pid, signal.SIGSTOP)
    try:
        time.sleep(0.4)
        expect(claimed(log), ["a"])
        write(log, turn("a", 1, "Mine", fence=2))
    finally:
        os.kill(child.process.pid, signal.SIGCONT)
    answer = child.ask("log.append([turn('a', 1, 'Zombie', fence=1), Mark('a', Status.PARKED, fence=1)])")
    expect(answer.count('Rejected(reason="stale: '), 2, answer)
    expect(child.ask("log.renew('slow', lease_s=9.0)"), "False")
    expect([record.kind for record in log.records("a")], ["Started", "Mine"])


def test_same_name_after_death(path, log, child):
    """L8: a worker that comes back under its name after a crash finds free what it held."""
    write(log, new())
    child.ask("claimed(log, 'w1', lease_s=3600.0)")
    os.kill(child.process.pid, signal.SIGKILL)
    child.process.wait(20)
    expect((claimed(log, "w1"), standing(log).fence), (["a"], 2))
    write(log, Mark("a", Status.WAITING))


def test_open_at_once(tmp_path):
    """Several processes may make the same database at the same time."""
    path = tmp_path / "log.db"
    script = textwrap.dedent("""
        import sys
        from zart_stores.sql import lock, sqlite
        from zart_core.events import *
        from zart_core.log import *
        from zart_core.testing.contract import *
        log = sqlite.open(sys.argv[1])
        write(log, new(sys.argv[2]))
        log.close()
    """)
    command = [sys.executable, "-c", script, f"sqlite:{path}"]
    children = [subprocess.Popen([*command, f"e{n}"]) for n in range(4)]
    expect([child.wait(30) for child in children], [0] * 4)
    log = sqlite.open(f"sqlite:{path}")
    expect([each.id for each in log.list().items], ["e0", "e1", "e2", "e3"])
    log.close()


def test_a_read_that_is_interrupted_leaves_no_snapshot_open(tmp_path):
    """F27: wherever ctrl-c strikes in a read, the next one is answered; it was said to be damage."""
    log = sqlite.open(f"sqlite:{tmp_path}/log.db")
    log.append([new("a")])
    whole = log.records("a")
    lines = interrupted(lambda: log.records("a"), -1)
    assert len(whole) == 1 and lines > 20

    for at in range(1, lines + 1):
        interrupted(lambda: log.records("a"), at)

        assert log.records("a") == whole, f"interrupted at line {at} of {lines}"


def test_a_lock_may_have_descriptor_0(tmp_path):
    """Where a service was started without standard input its first file has that number: it is held, and let go."""
    prefix, kept = f"{tmp_path}/log.db-worker-", os.dup(0)
    os.close(0)
    try:
        held = lock.Lock(prefix)
        status = os.fstat(0)
        assert os.path.samestat(os.stat(held.path), status)
        assert not lock.is_dead(prefix, held.token)
        held.drop()
        assert not os.path.exists(held.path)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(0)
        os.dup2(kept, 0)
        held.drop()
        assert os.path.samestat(os.fstat(0), os.fstat(kept)), "it is another's now"
        assert os.fstat(1)
    finally:
        os.dup2(kept, 0)
        os.close(kept)


def test_a_lock_that_cannot_be_made_says_so_and_nothing_else(tmp_path):
    """What is left of a lock that was never had is put away in silence."""
    with pytest.raises(FileNotFoundError):
        lock.Lock(f"{tmp_path}/nowhere/log.db-worker-")
    gc.collect()


def test_an_interrupted_append_leaves_no_transaction_open_while_its_error_is_kept(tmp_path):
    """F27: the traceback of an interrupt keeps cursors alive, and a connection with a cursor does not close."""
    log = sqlite.open(f"sqlite:{tmp_path}/log.db", busy_s=0.0)
    write(log, new())
    errors, outcomes = [], []

    def append():
        try:
            outcomes.extend(log.append([turn("a", position, "X", consumes=[number], seen=number)]))
        except KeyboardInterrupt as error:
            errors.append(error)

    while not outcomes:
        number = write(log, post()).number
        position = standing(log).position
        interrupted(append, len(errors) + 1)

    assert len(errors) > 100
    assert outcomes == [Ok(Receipt())]
    assert [record.kind for record in log.records("a", start=position)] == ["X"]


@pytest.mark.parametrize(("turns", "size"), [(2500, 10), (40, 1 << 20)])
def test_the_write_ahead_log_is_bounded(path, turns, size):
    """The store makes the checkpoints, by rows and by bytes: SQLite would not tell of a sync that failed in its own."""
    log = sqlite.open(f"sqlite:{path}", durability="process")
    expect(log._connection("writer").execute("PRAGMA wal_autocheckpoint").fetchone(), (0,))
    write(log, new())
    longest = 0
    for position in range(1, turns + 1):
        write(log, turn("a", position, records=[Record("X", 2.0, bytes(size))]))
        longest = max(longest, os.path.getsize(f"{path}-wal"))
    assert 4 << 20 < longest < 12 << 20
    log.close()
    assert not os.path.exists(f"{path}-wal")


def test_large_commits_make_fewer_checkpoints(path, monkeypatch):
    """By what a checkpoint finds the store learns how many rows share a page, within bounds."""
    log, made = sqlite.open(f"sqlite:{path}"), []
    plain = sqlite_wal.checkpoint
    monkeypatch.setattr(sqlite_wal, "checkpoint", lambda db: made.append(plain(db)) or made[-1])
    write(log, *(new(f"e{n}") for n in range(500)))
    for position in range(1, 30):
        write(log, *(turn(f"e{n}", position, "X") for n in range(500)))
    assert 3 <= len(made) <= 5 and made[0] < 700 and log._pace.limit > sqlite_wal.CHANGES_FIRST
    pace = sqlite_wal.Pace()
    pace.changes = pace.limit - 1
    assert not pace.due
    pace.changes += 1
    assert pace.due
    pace.learn(1 << 40)
    expect(pace.limit, sqlite_wal.CHANGES_MIN)
    for _ in range(9):
        pace.learn(-1)
    expect(pace.limit, sqlite_wal.CHANGES_MAX)
    log.close()


def test_leases_alone_make_checkpoints_too(path, log, monkeypatch):
    """A worker that finds nothing to do renews its lease for years."""
    log._pace.limit = 50
    monkeypatch.setattr(sqlite_wal, "CHANGES_MAX", 50)
    for _ in range(300):
        log.renew("w", lease_s=30.0)
    assert os.path.getsize(f"{path}-wal") < 70 * 4096


def test_a_directory_that_cannot_be_synced_later_is_weather(path, monkeypatch):
    """The name of the write-ahead log is made durable with the first connection that appends (F4)."""
    sqlite.open(f"sqlite:{path}").close()

    def fail(directory):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(sqlite_file, "_sync_directory", fail)
    with pytest.raises(StoreUnavailable, match=r"the directory of .* cannot be synced: Input/output error"):
        sqlite_file.open_connection(path, sqlite_file.FULL, 1.0)


def test_a_read_that_is_interrupted_leaves_no_snapshot(log):
    """The next one sees what was written since (F27)."""
    write(log, new("a"))

    def interrupted(db):
        db.execute("SELECT 1 FROM executions").fetchone()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        log._read(interrupted)
    write(log, turn("a", 1, "x"))
    assert len(log.records("a")) == 2


@pytest.mark.parametrize("statement", [1, 2, 3])
def test_a_log_that_another_process_makes_just_now_is_one(tmp_path, monkeypatch, statement):
    """It is looked at as of one moment: at any statement of the look it may come to be."""
    path = f"{tmp_path}/log.db"
    connect = sqlite_file.connect
    traced = []

    def interrupted_connect(path):
        monkeypatch.setattr(sqlite_file, "connect", connect)
        db = connect(path)

        def trace(sql):
            traced.append(sql)
            if len(traced) == statement and not db.in_transaction:
                sqlite.open(f"sqlite:{path}").close()

        db.set_trace_callback(trace)
        return db

    monkeypatch.setattr(sqlite_file, "connect", interrupted_connect)
    log = sqlite.open(f"sqlite:{path}")
    assert log.verify()["executions"] == 0
    log.close()
    assert len(traced) >= statement
