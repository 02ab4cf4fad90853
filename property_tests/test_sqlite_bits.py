"""Bits of an SQLite log flip: reading or `verify` reports it, or nothing that the log shows has changed (F9, L12).

Every bit of a record's and of a message's bytes is flipped, and bits at random all over the file, which has parts that
nobody reads: what is not reported there must not matter. Whatever is asked of the log, damage is told in our words.
"""

import contextlib
import os
import random
import shutil
import sqlite3

import pytest
from seeds import fresh, keeping, kept

from zart_core.errors import InvalidUse, LogCorrupt, StoreUnavailable
from zart_core.events import Ok, Status
from zart_core.log import New, Post, Record, Turn
from zart_core.testing import probe
from zart_stores.sql import sqlite

DEEP = bool(os.environ.get("ZART_DEEP"))
RANDOM_FLIPS = 4000 if DEEP else 250
SCHEMA_FLIPS = 30_000 if DEEP else 150
PAGE_BITS = 4096 * 8
RECORD, MESSAGE = b"this-is-a-record", b"this-is-a-message"

TOLD = (LogCorrupt, InvalidUse, StoreUnavailable)
QUESTIONS = (
    lambda log: log.stats(),
    lambda log: log.next_wake(),
    lambda log: log.wait(0),
    lambda log: log.records("b", 0),
    lambda log: log.claim("next", now=9.5, lease_s=60.0, limit=1),
    lambda log: log.renew("next", lease_s=60.0),
    lambda log: log.release("next"),
)
"""None of them changes what the log shows."""


@pytest.fixture
def whole(tmp_path):
    """The bytes of a closed log with some executions, and what it shows."""
    url = f"sqlite:{tmp_path}/whole.db"
    with contextlib.closing(sqlite.open(url)) as log:
        first = Turn("a", 0, 1, 0, [Record("X", 2.0, RECORD)], 2.0, Status.WAITING, wake=9.0)
        batch = [
            New("a", "flow", "digest", [Record("Started", 1.0, b"{}")], 1.0),
            first,
            Post("a", "event", "ready", MESSAGE, 3.0, key="k"),
            New("b", "flow", "other", [Record("Started", 1.0, b"x" * 6000)], 1.0),
            Turn("b", 0, 1, 0, [], 2.0, Status.CONTINUED, opens=[Record("Started", 2.0, b"again")]),
        ]
        assert all(isinstance(outcome, Ok) for outcome in log.append(batch))
        assert [each.id for each in log.claim("dies", now=9.5, lease_s=60.0, limit=1)] == ["a"]
        shown = probe.picture(log)
        with contextlib.closing(sqlite3.connect(tmp_path / "whole.db")) as db:
            assert db.execute("PRAGMA wal_checkpoint").fetchone()[0] == 0
        shutil.copy(tmp_path / "whole.db", tmp_path / "left.db")
    return (tmp_path / "left.db").read_bytes(), shown


def verdict(tmp_path, data):
    """What is found of these bytes: the kind of error that reports them, or what the log shows."""
    path = tmp_path / "flipped.db"
    for leftover in tmp_path.glob("flipped.db*"):
        leftover.unlink()
    path.write_bytes(data)
    path.chmod(0o600)
    try:
        with contextlib.closing(sqlite.open(f"sqlite:{path}")) as log:
            for question in QUESTIONS:
                with contextlib.suppress(*TOLD):
                    question(log)
            log.verify()
            return probe.picture(log)
    except TOLD as error:
        return type(error)


def flipped(data, bit):
    damaged = bytearray(data)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


@pytest.mark.parametrize("payload", [RECORD, MESSAGE])
def test_every_bit_of_a_payload(tmp_path, whole, payload):
    """Each is reported as damage, by a single read too."""
    data, shown = whole
    assert verdict(tmp_path, data) == shown and data.count(payload) == 1
    start = data.index(payload) * 8
    for bit in range(start, start + len(payload) * 8):
        assert verdict(tmp_path, flipped(data, bit)) is LogCorrupt, bit
    with contextlib.closing(sqlite.open(f"sqlite:{tmp_path}/flipped.db")) as log, pytest.raises(LogCorrupt):
        log.records("a") if payload == RECORD else log.inbox("a")


def test_bits_anywhere(tmp_path, whole):
    """None is silently accepted: it is reported, or the log shows what it showed."""
    data, shown = whole
    for seed in [*kept("sqlite-bits"), *fresh("sqlite-bits", 1)]:
        chance, reported = random.Random(seed), 0
        with keeping("sqlite-bits", seed):
            for _ in range(RANDOM_FLIPS):
                bit = chance.randrange(len(data) * 8)
                found = verdict(tmp_path, flipped(data, bit))
                assert isinstance(found, type) or found == shown, f"bit {bit} changed what is shown"
                reported += isinstance(found, type)
        assert reported >= RANDOM_FLIPS // 20


def test_bits_of_the_schema(tmp_path, whole):
    """SQLite quotes what it cannot read, and Python cannot read what SQLite quotes: it is damage all the same."""
    data, shown = whole
    start = data.index(b"executions_held") * 8
    assert start < PAGE_BITS
    upper = [start + 8 * byte for byte in range(len("executions_held"))]
    found = [verdict(tmp_path, flipped(data, bit + 7)) for bit in upper]
    assert found == [LogCorrupt] * len(found)
    chance = random.Random(*fresh("sqlite-bits", 1))
    for _ in range(SCHEMA_FLIPS):
        found = verdict(tmp_path, flipped(data, bit := chance.randrange(PAGE_BITS)))
        assert isinstance(found, type) or found == shown, f"bit {bit} changed what is shown"
