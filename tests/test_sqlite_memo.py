"""Rows that the SQLite log remembers between commits: nobody reads them again, and no other writer is missed."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor

import pytest

from zart_core.events import Ok, Status
from zart_core.log import Rejected
from zart_core.testing.contract import expect, new, post, standing, turn, write
from zart_stores.sql import sqlite, sqlite_memo

COMMIT = (
    "CREATE TRIGGER no BEFORE INSERT ON records WHEN new.kind = 'No' BEGIN SELECT RAISE(ABORT, 'no'); END"
)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "log.db")


@pytest.fixture
def log(path):
    store = sqlite.open(f"sqlite:{path}")
    yield store
    store.close()


def reads(log, *writes):
    """How often an append asks for rows of executions; its writes are all taken."""
    asked = []
    db = log._connection("writer")
    db.set_trace_callback(lambda statement: asked.append(statement))
    outcomes = log.append(writes)
    db.set_trace_callback(None)
    assert all(isinstance(outcome, Ok) for outcome in outcomes), outcomes
    return sum("FROM main.executions WHERE id" in statement for statement in asked)


@pytest.mark.parametrize("count", [1, 20])
def test_what_it_wrote_itself_is_not_read_again(log, count):
    """Turn after turn of executions that nobody else touches: read once, by twos and by scores."""
    ids = [f"e{n}" for n in range(count)]
    write(log, *map(new, ids))
    assert reads(log, *(turn(id, 1, "X") for id in ids)) == 0
    assert reads(log, *(post(id) for id in ids)) == 0
    assert reads(log, *(turn(id, 2, "X") for id in ids)) == 0
    expect(standing(log, ids[0]).position, 3)


@pytest.mark.parametrize("count", [1, sqlite.TOGETHER_MIN - 1, sqlite.TOGETHER_MIN, 20])
def test_rows_of_many_writes_are_read_together(log, path, count):
    """What another log wrote takes one question for all of a batch that is large enough, else one for each."""
    ids = [f"e{n}" for n in range(count)]
    write(log, *map(new, ids))
    other = sqlite.open(f"sqlite:{path}")
    assert reads(other, *(turn(id, 1, "X") for id in ids)) == (1 if count >= sqlite.TOGETHER_MIN else count)
    other.close()


@pytest.mark.parametrize("what", ["own lease", "other log", "other connection"])
def test_who_else_has_written_is_heard(log, path, what):
    """L2: a claim of this log, an append of another one, a statement of anybody: what was known is read again."""
    write(log, new())
    other = sqlite.open(f"sqlite:{path}")
    assert reads(log, turn("a", 1, "X")) == 0
    if what == "own lease":
        assert log.acquire("w1", "a", lease_s=9.0) is not None
        assert isinstance(log.append([turn("a", 2, "X")])[0], Rejected)  # the fence has grown
        write(log, turn("a", 2, "X", fence=1))
    elif what == "other log":
        write(other, turn("a", 2, "Y"))
        assert isinstance(log.append([turn("a", 2, "X")])[0], Rejected)
        expect([record.kind for record in log.records("a")][-1], "Y")
    else:
        number = write(other, post()).number
        assert reads(log, turn("a", 2, "X", consumes=[number], seen=number)) == 1
        expect(log.inbox("a"), [])
    other.close()


@pytest.mark.parametrize("damage", [False, True])
def test_a_batch_that_is_not_committed_leaves_nothing_behind(log, path, damage):
    """Rows that were changed for a commit that failed are forgotten, and those beside a damaged one too."""
    write(log, new(), new("b"))
    write(log, turn("a", 1, "X"))
    db = sqlite3.connect(path)
    db.execute(COMMIT)
    if damage:
        db.execute("UPDATE executions SET position = 7 WHERE id = 'b'")
    db.commit()
    first, second = log.append([turn("a", 2, "No"), turn("b", 1, "X")])
    assert isinstance(first, Rejected)
    assert isinstance(second, Rejected)
    assert reads(log, turn("a", 2, "X")) == 1
    expect(standing(log).position, 3)
    db.close()


def test_a_refused_write_changes_nothing_that_is_remembered(log):
    """L6: what stands beside a refused one is taken, and the refused one's row is as it was."""
    write(log, new(), new("b"))
    outcomes = log.append([turn("a", 5, "X"), turn("b", 1, "X", status=Status.COMPLETED), turn("b", 2, "X")])
    assert [isinstance(outcome, Ok) for outcome in outcomes] == [False, True, False]
    assert reads(log, turn("a", 1, "X")) == 0
    assert isinstance(log.append([turn("b", 2, "X")])[0], Rejected)


def test_what_is_remembered_is_bounded(log, monkeypatch):
    """Not more than ROWS_MAX, whatever passes; what was forgotten is read again."""
    monkeypatch.setattr(sqlite_memo, "ROWS_MAX", 10)
    for n in range(40):
        write(log, new(f"e{n}"))
    assert len(log._memo._rows) <= 10
    assert reads(log, turn("e0", 1, "X")) == 1
    assert reads(log, turn("e0", 2, "X")) == 0


def test_another_connection_of_the_same_number_is_not_believed(log):
    """What was known is the connection's that wrote it: after an error all of them are new."""
    write(log, new())
    log._disconnect()
    assert reads(log, turn("a", 1, "X")) == 1


def test_writers_side_by_side_overwrite_nothing(path):
    """L2, L7: of logs that write to the same executions at once, each turn that is taken stands, and each message."""
    write(sqlite.open(f"sqlite:{path}", durability="process"), new(), new("b"))

    def player(who):
        log = sqlite.open(f"sqlite:{path}", durability="process", busy_s=60.0)
        taken = []
        for n in range(60):
            id, kind = "ab"[n // 7 % 2], f"{who}-{n}"
            outcome, sent = log.append([turn(id, standing(log, id).position, kind), post(id)])
            assert isinstance(sent, Ok), sent
            taken += [(id, kind)] if isinstance(outcome, Ok) else []
        log.close()
        return taken

    with ThreadPoolExecutor(4) as pool:
        taken = [item for items in pool.map(player, "wxyz") for item in items]
    log = sqlite.open(f"sqlite:{path}")
    stands = [(id, record.kind) for id in "ab" for record in log.records(id)[1:]]
    assert sorted(stands) == sorted(taken)
    assert len(taken) >= 60
    expect(sum(len(log.inbox(id)) for id in "ab"), 240)
    expect(log.verify()["executions"], 2)
    log.close()
