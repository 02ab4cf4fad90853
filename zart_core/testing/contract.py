"""The promises of a log as checks: subclass `StoreContract` for your own store and let pytest collect it.

    class TestMyStore(StoreContract):
        durable = True

        @pytest.fixture(autouse=True)
        def place(self, tmp_path):
            self.url = f"mystore:{tmp_path}/log"

        def open(self):
            return mystore.open(self.url)

Rule 1: each check's docstring states one promise, with its number (`zart_core.log`); its failure shows what
        was wanted beside what was found.
Rule 2: only the protocol is used; no check knows a store.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import pytest

from zart_core.errors import InvalidUse, StoreFailed
from zart_core.events import CLOSED, Ok, Status
from zart_core.log import (
    ID_CHARS_MAX,
    PAYLOAD_BYTES_MAX,
    Appended,
    EventLog,
    Mark,
    Message,
    MessageKind,
    New,
    Post,
    Receipt,
    Record,
    Rejected,
    Summary,
    Turn,
    Write,
)

T = TypeVar("T")

OPEN = [status for status in Status if status not in CLOSED]
ENDED = sorted(CLOSED)

IDS = {
    "one": "x",
    "longest": "l" * ID_CHARS_MAX,
    "longest-wide": "\U0001f984" * ID_CHARS_MAX,
    "quotes": 'it\'s "quoted" `twice`',
    "sql": "'; DROP TABLE executions; --",
    "like": "100%_of[a-z]*?",
    "path": "../../etc/passwd",
    "absolute": "/dev/null",
    "backslash": "..\\..\\con",
    "dot": ".",
    "dots": "..",
    "spaces": "  two  spaces  ",
    "umlaut": "äöü-ß",
    "combining": "a\u0301",
    "cjk": "注文-四十二",
    "format": "{0} %s %d ${HOME} $(id)",
    "json": '{"a": [1, null]}',
    "colon": "a:b#c?d&e=f",
    "number": "00042",
    "bool": "NULL",
    "bidi-letters": "שלום",
}
"""Ids that must work anywhere (L11); names, keys and workers too."""

NO_IDS = {
    "empty": "",
    "too-long": "x" * (ID_CHARS_MAX + 1),
    "nul": "a\0b",
    "newline": "a\nb",
    "escape": "a\x1b[31mb",
    "surrogate": "a\ud800b",
    "override": "a\u202eb",
    "tab": "\t",
}
"""Ids that no store takes (F22)."""

PAYLOADS = {
    "empty": b"",
    "bytes": bytes(range(256)),
    "nul": b"\0",
    "newlines": b"\r\n\n\r",
    "not-utf8": b"\xff\xfe\x80",
    "json": b'{"a": "\\u0000"}',
    "frame": b"\n00000042 deadbeef 0000000000000000\n",
    "largest": b"\x5a" * PAYLOAD_BYTES_MAX,
}
"""Bytes that come back as they were (L5, L11)."""

LEASE_S = 60.0
SHORT_S = 0.2
"""A lease that a check lets run out, in seconds."""


def by_name(cases: dict[str, T]) -> list[Any]:
    """Make parameters that are shown by name."""
    return [pytest.param(value, id=name) for name, value in cases.items()]


def expect(found: T, wanted: T, what: str = "") -> None:
    """Fail readably unless both are equal."""
    if found != wanted:
        raise AssertionError(
            f"{what or 'not as promised'}\n  wanted: {_short(wanted)}\n  found:  {_short(found)}"
        )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 2000 else f"{text[:2000]}... ({len(text):,} characters)"


def records(*kinds: str, at: float = 1.0, data: bytes = b"{}") -> list[Record]:
    """Make records of these kinds."""
    return [Record(kind, at, data) for kind in kinds]


def new(id: str = "a", **changes: Any) -> New:
    """Make a New with one record."""
    fields: dict[str, Any] = {"workflow": "w", "digest": "d", "records": records("Started"), "at": 1.0}
    return New(id, **{**fields, **changes})


def turn(id: str = "a", position: int = 1, *kinds: str, **changes: Any) -> Turn:
    """Make a Turn of run 0 and fence 0 that waits for nothing."""
    fields: dict[str, Any] = {"run": 0, "fence": 0, "at": 2.0, "status": Status.WAITING}
    fields["records"] = records(*kinds, at=2.0)
    return Turn(id, position=position, **{**fields, **changes})


def post(id: str = "a", payload: bytes = b"", *, key: str | None = None, **changes: Any) -> Post:
    """Make an event for an execution."""
    fields: dict[str, Any] = {"kind": "event", "name": "ready", "at": 1.5}
    return Post(id, payload=payload, key=key, **{**fields, **changes})


def receipts(outcomes: Sequence[Appended]) -> list[Receipt]:
    """Give the receipts of writes that all went well."""
    for outcome in outcomes:
        if not isinstance(outcome, Ok):
            raise AssertionError(
                f"the write should be acknowledged\n  wanted: Ok\n  found:  {_short(outcome)}"
            )
    return [outcome.value for outcome in outcomes if isinstance(outcome, Ok)]


def write(log: EventLog, *batch: Write) -> Receipt:
    """Append a batch that goes well; give the last receipt."""
    return receipts(log.append(batch))[-1]


def refused(log: EventLog, item: Write, word: str) -> None:
    """Append one write that must be Rejected with a reason that begins with this word."""
    (outcome,) = log.append([item])
    if not isinstance(outcome, Rejected) or outcome.reason.split()[0].rstrip(":") != word:
        raise AssertionError(
            f"the write should be refused\n  wanted: Rejected('{word} ...')\n  found:  {_short(outcome)}"
        )


def state(log: EventLog, *ids: str) -> list[tuple[Summary | None, list[Record], list[Message]]]:
    """Read all there is about some executions."""
    return [(log.summary(id), log.records(id), log.inbox(id)) for id in ids]


def standing(log: EventLog, id: str = "a") -> Summary:
    """Give the summary of an execution that must be there."""
    found = log.summary(id)
    if found is None:
        raise AssertionError(f"execution {id!a} is missing")
    return found


def claimed(log: EventLog, worker: str = "w1", *, now: float = 10.0, lease_s: float = LEASE_S) -> list[str]:
    """Claim all that is due; give the ids."""
    return [each.id for each in log.claim(worker, now=now, lease_s=lease_s, limit=100)]


def together(actions: Sequence[Callable[[], T]]) -> list[T]:
    """Do them at the same time, each in a thread; give what they gave, or raise what the first raised."""
    results: dict[int, T] = {}
    errors: list[BaseException] = []
    barrier = threading.Barrier(len(actions))

    def do(n: int) -> None:
        try:
            barrier.wait(30)
            results[n] = actions[n]()
        except BaseException as error:  # noqa: BLE001  # it is raised below
            errors.append(error)

    threads = [threading.Thread(target=do, args=(n,)) for n in range(len(actions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if errors:
        raise errors[0]
    return [results[n] for n in range(len(actions))]


class StoreContract:
    """What every EventLog promises. A subclass gives `open`; each check runs on an object of its own."""

    durable = True
    """False for a store whose records go with its process."""
    shared = True
    """False for a store that only one log object may have open at a time."""

    def open(self) -> EventLog:
        """Open the log of this check: empty at first, the same one each time."""
        raise NotImplementedError("give your contract class an open() that opens your store")

    def reopen(self, store: EventLog) -> EventLog:
        """Close a log and open it again."""
        store.close()
        return self.open()

    def advance(self, seconds: float) -> None:
        """Let time pass on the clock that leases use."""
        time.sleep(seconds)

    @pytest.fixture
    def log(self) -> Iterator[EventLog]:
        """Open the log and close it after the check."""
        store = self.open()
        yield store
        store.close()

    # ------------------------------------------------ what it is

    def test_protocol(self, log: EventLog) -> None:
        """A store has everything that EventLog asks for."""
        assert isinstance(log, EventLog)
        expect(log.level in ("power", "process", "none"), True, f"level is {log.level!r}")
        expect(type(log.blocking), bool)
        expect(log.level == "none", not self.durable, "L4: durable and level agree")

    def test_empty(self, log: EventLog) -> None:
        """An empty log has nothing to tell."""
        expect(state(log, "a"), [(None, [], [])])
        expect((log.next_wake(), dict(log.stats()), list(log.list().items)), (None, {}, []))
        expect(claimed(log), [])
        expect(dict(log.verify()), {"executions": 0, "records": 0, "messages": 0})
        expect(log.append([]), [], "L6: an empty batch has no outcomes")

    def test_close_twice(self) -> None:
        """Closing twice is closing once; a closed log takes and tells nothing."""
        log = self.open()
        log.close()
        log.close()
        for use in (lambda: log.append([new()]), lambda: log.summary("a"), lambda: log.next_wake()):
            with pytest.raises(StoreFailed):
                use()

    # ------------------------------------------------ L9: New

    def test_new(self, log: EventLog) -> None:
        """L9: an execution is created with its first records, and is due at once."""
        expect(write(log, new()), Receipt(created=True, number=0, fence=0))
        wanted = Summary("a", "w", "d", Status.SCHEDULED, 0, 1, 0, 1.0, 1.0, 0.0, None)
        expect(state(log, "a"), [(wanted, records("Started"), [])])

    def test_new_without_records(self, log: EventLog) -> None:
        """L9: an execution may begin with no records."""
        write(log, new(records=[]))
        expect((standing(log).position, log.records("a")), (0, []))

    @pytest.mark.parametrize("status", list(Status))
    def test_new_again(self, log: EventLog, status: Status) -> None:
        """L9: the same id, workflow and digest give the existing execution, in any state, unchanged."""
        write(log, new(), turn("a", 1, "X", status=status), *([] if status in CLOSED else [post()]))
        before = state(log, "a", "b")
        again = new(records=records("Other", "Others"), at=9.0, wake=5.0, owner="w1", creates=[new("b")])
        expect(write(log, again), Receipt(created=False, number=0, fence=0))
        expect(state(log, "a", "b"), before, "L9: creating again changes nothing")

    @pytest.mark.parametrize("changes", [{"workflow": "v"}, {"digest": "e"}], ids=str)
    def test_new_conflict(self, log: EventLog, changes: dict[str, str]) -> None:
        """L9: an id that is taken by something else is Rejected("conflict"), and nothing changes."""
        write(log, new())
        before = state(log, "a", "b", "c")
        refused(log, new(**changes, owner="w1", creates=[new("b")], posts=[post("a")]), "conflict")
        expect(state(log, "a", "b", "c"), before)

    def test_new_twice_in_a_batch(self, log: EventLog) -> None:
        """L6, L9: writes take effect in order, so that the second New of a batch finds the first."""
        found = receipts(log.append([new(), new()]))
        expect([receipt.created for receipt in found], [True, False])
        expect(len(log.records("a")), 1)

    def test_new_run_number(self, log: EventLog) -> None:
        """L9: a New that exists tells the run that it now stands at."""
        write(log, new(), turn("a", 1, "X", opens=records("Started", at=2.0)))
        expect(write(log, new()).number, 1)

    def test_new_with_owner(self, log: EventLog) -> None:
        """L8, L9: a new execution may belong to a worker at once, with fence 1; no other gets it."""
        expect(write(log, new(owner="w1")), Receipt(fence=1))
        expect((standing(log).owner, standing(log).fence), ("w1", 1))
        expect(claimed(log, "w2"), [], "L8: it belongs to w1")
        expect(log.acquire("w2", "a", lease_s=LEASE_S), None, "L8: it belongs to w1")
        expect(claimed(log, "w1"), [], "it was given with its creation")
        write(log, turn("a", 1, "X", fence=1, wake=0.0))
        expect(claimed(log, "w1"), ["a"], "due again after the turn")

    def test_new_with_owner_and_wake(self, log: EventLog) -> None:
        """L10: a new execution that belongs to a worker is given to it when its wake time comes."""
        write(log, new(owner="w1", wake=20.0))
        expect((claimed(log, "w1", now=19.9), claimed(log, "w1", now=20.0)), ([], ["a"]))
        expect(standing(log).fence, 1)

    def test_new_with_others(self, log: EventLog) -> None:
        """L1: what a New creates and posts is there with it, nested as deep as it goes."""
        inner = new("c", creates=[new("d")], posts=[post("d", b"to d")])
        receipt = write(log, new("a", creates=[new("b"), inner], posts=[post("b", b"to b"), post("nobody")]))
        expect((receipt.created, list(receipt.conflicts)), (True, []))
        expect([standing(log, id).position for id in "abcd"], [1, 1, 1, 1])
        expect([[m.payload for m in log.inbox(id)] for id in "abcd"], [[], [b"to b"], [], [b"to d"]])

    # ------------------------------------------------ L1, L2, L5: turns

    def test_turn(self, log: EventLog) -> None:
        """L1: a turn's records, status and wake time are there together."""
        write(log, new())
        write(log, turn("a", 1, "Issued", "Began", wake=7.5, at=2.5, status=Status.WAITING))
        wanted = Summary("a", "w", "d", Status.WAITING, 0, 3, 0, 1.0, 2.5, 7.5, None)
        expect(log.summary("a"), wanted)
        expect([record.kind for record in log.records("a")], ["Started", "Issued", "Began"])

    def test_turns_in_a_row(self, log: EventLog) -> None:
        """L5: what is read is what was appended, gap-free and in order."""
        write(log, new())
        wanted = records("Started")
        for n in range(40):
            added = [Record(f"K{n}.{k}", 2.0 + n, f"{n}.{k}".encode()) for k in range(n % 4)]
            write(log, turn("a", len(wanted), records=added))
            wanted += added
        expect(log.records("a"), wanted)
        expect(standing(log).position, len(wanted))

    def test_empty_turn(self, log: EventLog) -> None:
        """L1: a turn without records may set status and wake time."""
        write(log, new(), turn("a", 1, status=Status.PARKED, wake=3.0))
        expect((standing(log).position, standing(log).wake, standing(log).status), (1, 3.0, Status.PARKED))

    @pytest.mark.parametrize("position", [-1, 0, 1, 2, 4, 10**20])
    def test_stale_position(self, log: EventLog, position: int) -> None:
        """L2: a turn at another position than the log's end is stale."""
        write(log, new(), turn("a", 1, "X", "Y"))
        before = state(log, "a")
        refused(log, turn("a", position, "Z"), "stale")
        expect(state(log, "a"), before)

    @pytest.mark.parametrize("fence", [-1, 0, 1, 3, 10**20])
    def test_stale_fence(self, log: EventLog, fence: int) -> None:
        """L2, L8: a turn with another fence than the current one is stale."""
        write(log, new())
        for worker in ("w1", "w2"):
            claimed(log, worker)
            log.release(worker)
        before = state(log, "a")
        expect(standing(log).fence, 2)
        refused(log, turn("a", 1, "Z", fence=fence), "stale")
        expect(state(log, "a"), before)

    @pytest.mark.parametrize("run", [-1, 0, 2])
    def test_stale_run(self, log: EventLog, run: int) -> None:
        """L2: a turn of another run than the current one is stale."""
        write(log, new(), turn("a", 1, "X", opens=records("Started", at=2.0)))
        refused(log, turn("a", 1, "Z", run=run), "stale")
        expect(len(log.records("a")), 1)

    @pytest.mark.parametrize(
        "parts",
        [
            {"records": records("X", at=2.0)},
            {"consumes": [1], "seen": 1},
            {"wake": 99.0},
            {"opens": records("Started", at=2.0)},
            {"creates": [new("b")]},
            {"posts": [post("c", b"more", key="k2")]},
            {"status": Status.COMPLETED},
            {"releases": True},
        ],
        ids=lambda parts: next(iter(parts)),
    )
    @pytest.mark.parametrize("why", ["position", "fence", "message"])
    def test_rejected_leaves_nothing(self, log: EventLog, parts: dict[str, Any], why: str) -> None:
        """L1, L3: of a Rejected turn nothing is written, whatever it holds."""
        write(log, new(owner="w1"), new("c"), post("a", b"first", key="k"))
        before = state(log, "a", "b", "c"), dict(log.stats()), dict(log.verify())
        wrong: dict[str, dict[str, Any]] = {
            "position": {"position": 0},
            "fence": {"fence": 0},
            "message": {"consumes": [*parts.get("consumes", []), 2]},
        }
        fields: dict[str, Any] = {"position": 1, "fence": 1, **parts, **wrong[why]}
        refused(log, turn("a", **fields), "stale")
        expect((state(log, "a", "b", "c"), dict(log.stats()), dict(log.verify())), before)

    def test_unknown(self, log: EventLog) -> None:
        """L3: whatever is for an execution that does not exist is Rejected("unknown")."""
        for item in (turn("b", 0, "X"), post("b"), Mark("b", Status.PARKED)):
            refused(log, item, "unknown")
        expect(log.summary("b"), None)

    @pytest.mark.parametrize("status", OPEN)
    def test_open_status(self, log: EventLog, status: Status) -> None:
        """L1: a turn sets any open status, and the next turn goes through."""
        write(log, new(), turn("a", 1, "X", status=status))
        expect(standing(log).status, status)
        write(log, turn("a", 2, "Y"))
        expect(dict(log.stats()), {Status.WAITING: 1})

    @pytest.mark.parametrize("status", ENDED)
    def test_closed_is_final(self, log: EventLog, status: Status) -> None:
        """I7: nothing follows a turn that closes; it gives the claim back and is never due."""
        write(log, new(owner="w1"), post(key="k"))
        write(log, turn("a", 1, "Closed", fence=1, status=status, wake=0.0, seen=0))
        before = state(log, "a")
        for item in (
            turn("a", 2, "X", fence=1),
            turn("a", 1, "X", fence=1),
            post(),
            post(key="k"),
            Mark("a", Status.PARKED),
        ):
            refused(log, item, "closed")
        expect(state(log, "a"), before)
        found = standing(log)
        expect((found.status, found.owner, found.wake, found.unread), (status, None, None, 1))
        expect([message.number for message in log.inbox("a")], [1], "R14: what was never taken is listed")
        expect((log.next_wake(), claimed(log), claimed(log, "w2")), (None, [], []))
        expect(log.acquire("w2", "a", lease_s=LEASE_S), None)

    @pytest.mark.parametrize("start", [0, 1, 2, 3, 4, 100, 10**20])
    def test_records_from(self, log: EventLog, start: int) -> None:
        """L5: a run can be read from any position on."""
        write(log, new(), turn("a", 1, "X", "Y"))
        expect([record.kind for record in log.records("a", start=start)], ["Started", "X", "Y"][start:])

    def test_reading_does_not_alias(self, log: EventLog) -> None:
        """L5: what was read never changes, and changing a list that was read changes nothing."""
        write(log, new(), post())
        first, inbox = log.records("a"), log.inbox("a")
        write(log, turn("a", 1, "X", consumes=[1]))
        expect(([record.kind for record in first], len(inbox)), (["Started"], 1))
        first.clear()
        log.records("a").clear()
        expect(len(log.records("a")), 2)

    def test_writing_does_not_alias(self, log: EventLog) -> None:
        """L5: changing a list after it was appended changes nothing."""
        given = records("Started")
        write(log, new(records=given))
        given.append(Record("Late", 1.0, b""))
        expect([record.kind for record in log.records("a")], ["Started"])

    @pytest.mark.parametrize("data", by_name(PAYLOADS))
    def test_payloads(self, log: EventLog, data: bytes) -> None:
        """L5, L11: bytes come back as they were, up to 1 MiB."""
        write(log, new(records=records("Started", data=data)), post(payload=data))
        write(log, turn("a", 1, records=records("X", at=2.0, data=data)))
        expect([record.data for record in log.records("a")], [data, data])
        expect([message.payload for message in log.inbox("a")], [data])
        log.verify()

    @pytest.mark.parametrize("at", [0.0, -1.0, 1.5, 1e-9, 1_700_000_000.123456, 2**53 + 2.0, 4102444800])
    def test_times(self, log: EventLog, at: float) -> None:
        """L5: times come back as they were, to the last bit."""
        write(log, new(at=at, wake=at, records=records("Started", at=at)), post(at=at))
        found = standing(log)
        expect((found.created_at, found.wake, log.records("a")[0].at, log.inbox("a")[0].at), (at,) * 4)

    # ------------------------------------------------ F19, F22: limits at the edge

    @pytest.mark.parametrize("part", ["new", "records", "opens", "post", "posts", "creates", "deep"])
    def test_too_large(self, log: EventLog, part: str) -> None:
        """F19: a payload over its limit is Rejected("too-large") before anything is written."""
        write(log, new(), new("c"))
        before = state(log, "a", "b", "c")
        big = [Record("X", 2.0, bytes(PAYLOAD_BYTES_MAX + (64 << 10) + 1))]
        items: dict[str, Write] = {
            "new": new("b", records=big),
            "records": turn("a", 1, records=big),
            "opens": turn("a", 1, "X", opens=big),
            "post": post("a", bytes(PAYLOAD_BYTES_MAX + 1)),
            "posts": turn("a", 1, "X", posts=[post("c", bytes(PAYLOAD_BYTES_MAX + 1))]),
            "creates": turn("a", 1, "X", creates=[new("b", records=big)]),
            "deep": new("b", creates=[new("d", creates=[new("e", records=big)])]),
        }
        refused(log, items[part], "too-large")
        expect(state(log, "a", "b", "c"), before)
        expect((log.summary("d"), log.summary("e")), (None, None))

    @pytest.mark.parametrize("id", by_name(NO_IDS))
    def test_no_id(self, log: EventLog, id: str) -> None:
        """F22: an id that cannot be stored raises InvalidUse before anything of its batch is written."""
        write(log, new())
        before = state(log, "a", "b")
        bad: list[Write] = [
            new(id),
            post(id),
            turn(id),
            Mark(id, Status.PARKED),
            turn("a", 1, creates=[new(id)]),
            turn("a", 1, posts=[post(id)]),
        ]
        for item in bad:
            with pytest.raises(InvalidUse):
                log.append([new("b"), turn("a", 1, "X"), item])
        expect(state(log, "a", "b"), before)

    @pytest.mark.parametrize("id", by_name(NO_IDS))
    def test_reading_no_id(self, log: EventLog, id: str) -> None:
        """F22: there is nothing under an id that cannot be stored; reading it is no error."""
        expect(state(log, id), [(None, [], [])])
        expect(log.acquire("w1", id, lease_s=LEASE_S), None)

    @pytest.mark.parametrize("text", by_name({k: v for k, v in NO_IDS.items() if k != "too-long"}))
    def test_no_name(self, log: EventLog, text: str) -> None:
        """F22: names and keys that cannot be stored raise InvalidUse."""
        write(log, new())
        bad: list[Write] = [
            new("b", workflow=text),
            new("b", owner=text),
            post(name=text),
            post(key=text),
            turn("a", 1, records=[Record(text, 2.0, b"")]),
        ]
        for item in bad:
            with pytest.raises(InvalidUse):
                log.append([item])
        with pytest.raises(InvalidUse):
            claimed(log, text)
        expect((log.summary("b"), standing(log).position, standing(log).unread), (None, 1, 0))

    @pytest.mark.parametrize("time", [float("nan"), float("inf"), float("-inf")])
    def test_no_time(self, log: EventLog, time: float) -> None:
        """F22: a time that is not a finite number raises InvalidUse."""
        bad: list[Write] = [
            new(at=time),
            new(wake=time),
            new(records=records("X", at=time)),
            turn("a", 1, at=time),
            turn("a", 1, wake=time),
            post(at=time),
            Mark("a", Status.PARKED, wake=time),
        ]
        for item in bad:
            with pytest.raises(InvalidUse):
                log.append([item])
        expect(log.summary("a"), None)

    @pytest.mark.parametrize("id", by_name(IDS))
    def test_hostile_id(self, log: EventLog, id: str) -> None:
        """L11: any printable text is an id, and means itself and nothing else."""
        write(log, new("a"), new(id), new("z"))
        write(log, turn(id, 1, "X"), post(id, b"m"))
        expect(state(log, "a", "z")[0][1:], (records("Started"), []))
        expect([record.kind for record in log.records(id)], ["Started", "X"])
        expect([message.payload for message in log.inbox(id)], [b"m"])
        expect(sorted(claimed(log)), sorted(["a", id, "z"]))
        expect([each.id for each in log.list(id_prefix=id).items][:1], [id])
        expect([each.id for each in log.list().items], sorted(["a", id, "z"]))
        log.verify()

    @pytest.mark.parametrize("name", by_name(IDS))
    def test_hostile_name(self, log: EventLog, name: str) -> None:
        """L11: any printable text is a workflow, a message name, a key, a kind and a worker."""
        write(log, new(workflow=name, digest=name, records=records(name)))
        expect(write(log, post(name=name, key=name)), Receipt(number=1))
        expect(write(log, post(name=name, key=name)), Receipt(created=False, number=1))
        expect(log.inbox("a"), [Message(1, "event", name, b"", 1.5, name)])
        expect(log.records("a"), records(name))
        given = log.claim(name, now=10.0, lease_s=LEASE_S, limit=1, workflows=[name])
        expect(
            [(each.id, each.workflow, each.digest, each.owner) for each in given], [("a", name, name, name)]
        )
        expect([each.id for each in log.list(workflow=name).items], ["a"])
        log.release(name)
        expect(standing(log).owner, None)

    # ------------------------------------------------ L1: what goes along with a turn

    @pytest.mark.parametrize("status", [Status.CONTINUED, Status.RUNNING, Status.WAITING])
    def test_opens(self, log: EventLog, status: Status) -> None:
        """L1: a turn opens the next run; the earlier one stays readable, the inbox stays where it is."""
        write(log, new(owner="w1"), post(payload=b"1", key="k"), post(payload=b"2"))
        opened = records("Started", "Issued", at=2.0)
        write(log, turn("a", 1, "Closed", fence=1, status=status, opens=opened, consumes=[1], seen=2))
        found = standing(log)
        expect((found.run, found.position, found.fence, found.owner, found.unread), (1, 2, 1, "w1", 1))
        expect(found.status, Status.SCHEDULED if status in CLOSED else status)
        expect((log.records("a"), log.records("a", run=1)), (opened, opened))
        expect([record.kind for record in log.records("a", run=0)], ["Started", "Closed"])
        expect([record.kind for record in log.records("a", run=0, start=1)], ["Closed"])
        expect([log.records("a", run=run) for run in (-1, 2, 10**20)], [[], [], []])
        expect([message.payload for message in log.inbox("a")], [b"2"])
        expect(write(log, post(key="k")).created, False, "R14: keys last as long as the execution")
        write(log, turn("a", 2, "X", run=1, fence=1))
        refused(log, turn("a", 2, "X", run=0, fence=1), "stale")
        log.verify()

    def test_opens_many(self, log: EventLog) -> None:
        """L5: every earlier run stays as it was."""
        write(log, new())
        for run in range(5):
            opened = [Record(f"Started{run + 1}", 2.0, bytes([run]))]
            write(log, turn("a", 1, *["X"] * run, run=run, status=Status.CONTINUED, opens=opened))
        expect([len(log.records("a", run=run)) for run in range(6)], [1, 2, 3, 4, 5, 1])
        expect([log.records("a", run=run)[0].kind[7:] for run in range(6)], ["", "1", "2", "3", "4", "5"])

    def test_creates(self, log: EventLog) -> None:
        """L1: executions that a turn creates are there with it; an id that is taken is listed."""
        write(log, new(), new("taken", digest="other"), new("same"))
        before = state(log, "taken", "same")
        others = [new("b"), new("taken"), new("same"), new("c", creates=[new("taken"), new("d")])]
        receipt = write(log, turn("a", 1, "X", creates=others))
        expect(list(receipt.conflicts), ["taken", "taken"])
        expect([standing(log, id).position for id in "abcd"], [2, 1, 1, 1])
        expect(state(log, "taken", "same"), before)

    def test_creates_itself(self, log: EventLog) -> None:
        """L9: a turn that creates its own execution changes nothing by it."""
        write(log, new())
        receipt = write(log, turn("a", 1, "X", creates=[new("a"), new("a", digest="e")]))
        expect((list(receipt.conflicts), standing(log).position), (["a"], 2))

    def test_posts(self, log: EventLog) -> None:
        """L1: messages that a turn posts are there with it; those to nobody are dropped."""
        write(log, new(), new("b"), new("ended"), turn("ended", 1, "Closed", status=Status.FAILED))
        write(log, post("b", b"1", key="k"))
        out = [post("nobody"), post("ended"), post("b", b"2"), post("b", b"3", key="k"), post("c", b"4")]
        receipt = write(log, turn("a", 1, "X", creates=[new("c")], posts=[*out, post("a", b"5")]))
        expect(list(receipt.conflicts), [])
        expect([message.payload for message in log.inbox("b")], [b"1", b"2"], "R14: k had been seen")
        expect([message.payload for message in log.inbox("c")], [b"4"], "c was created in this turn")
        expect(
            [message.payload for message in log.inbox("a")], [b"5"], "a turn may post to its own execution"
        )
        expect((log.inbox("ended"), log.summary("nobody")), ([], None))

    def test_posts_when_closing(self, log: EventLog) -> None:
        """L7: a turn that closes may tell others, but not itself any more."""
        write(log, new(), new("parent"))
        done = post("parent", b"done", kind="child")
        write(log, turn("a", 1, "Closed", status=Status.COMPLETED, posts=[done, post("a")]))
        expect([message.payload for message in log.inbox("parent")], [b"done"])
        expect((log.inbox("a"), standing(log).unread), ([], 0))
        expect(log.next_wake(), 0.0)

    # ------------------------------------------------ L6: batches

    def test_batch_of_many(self, log: EventLog) -> None:
        """L6: many executions' writes are one batch, with an outcome each."""
        ids = [f"e{n:03}" for n in range(150)]
        receipts(log.append([new(id) for id in ids]))
        receipts(log.append([turn(id, 1, "X", "Y", wake=float(n)) for n, id in enumerate(ids)]))
        expect([standing(log, id).position for id in ids], [3] * 150)
        expect(claimed(log, now=9.0), ids[:10])

    def test_batch_in_order(self, log: EventLog) -> None:
        """L6: each write of a batch sees what those before it did."""
        found = log.append(
            [
                turn("a", 0, "Early"),
                new(),
                turn("a", 1, "X"),
                post(payload=b"1", key="k"),
                post(payload=b"2", key="k"),
                turn("a", 2, "Y", consumes=[1], seen=1),
                turn("a", 3, "Z", consumes=[1]),
                turn("a", 2, "Z"),
                Mark("a", Status.PARKED, seen=1),
                turn("a", 3, "Closed", status=Status.COMPLETED),
                post(),
                new(),
                new(digest="e"),
            ]
        )
        words = [
            outcome.reason.split()[0].rstrip(":") if isinstance(outcome, Rejected) else "ok"
            for outcome in found
        ]
        wanted = ["unknown", *["ok"] * 5, "stale", "stale", "ok", "ok", "closed", "ok", "conflict"]
        expect(words, wanted, "L6: one that is Rejected does not hinder the others")
        expect([record.kind for record in log.records("a")], ["Started", "X", "Y", "Closed"])
        expect((log.inbox("a"), standing(log).status, standing(log).unread), ([], Status.COMPLETED, 0))
        log.verify()

    def test_batch_of_twins(self, log: EventLog) -> None:
        """L2, L6: of several turns at the same position one goes through."""
        write(log, new())
        found = log.append([turn("a", 1, f"X{n}") for n in range(5)])
        expect([isinstance(outcome, Ok) for outcome in found], [True, False, False, False, False])
        expect([record.kind for record in log.records("a")], ["Started", "X0"])

    def test_threads_apart(self, log: EventLog) -> None:
        """L6: threads that write to executions of their own do not disturb each other."""

        def work(id: str) -> None:
            write(log, new(id))
            for n in range(10):
                write(log, turn(id, 1 + n, f"{id}.{n}"))
                expect(len(log.records(id)), 2 + n)

        ids = [f"t{n}" for n in range(6)]
        together([partial(work, id) for id in ids])
        for id in ids:
            expect(
                [record.kind for record in log.records(id)], ["Started", *(f"{id}.{n}" for n in range(10))]
            )
        log.verify()

    def test_threads_against(self, log: EventLog) -> None:
        """L2: of threads that write at the same position exactly one goes through, each time."""
        write(log, new())
        for round in range(8):
            attempts = [turn("a", 1 + round, f"{round}.{n}") for n in range(4)]
            found = together([partial(log.append, [attempt]) for attempt in attempts])
            winners = [n for n, (outcome,) in enumerate(found) if isinstance(outcome, Ok)]
            expect(len(winners), 1, f"one winner, not {winners}")
            expect(log.records("a")[-1].kind, f"{round}.{winners[0]}")
        expect(standing(log).position, 9)

    def test_threads_create(self, log: EventLog) -> None:
        """L9: of threads that create the same execution exactly one does."""
        found = together([lambda: write(log, new()).created for _ in range(6)])
        expect(sorted(found), [False] * 5 + [True])
        expect(len(log.records("a")), 1)

    def test_threads_post(self, log: EventLog) -> None:
        """L7: messages of threads are numbered without gap, and in order for each sender."""
        write(log, new())

        def send(who: int) -> list[int]:
            return [write(log, post(payload=f"{who}.{n}".encode())).number for n in range(8)]

        numbers = together([partial(send, who) for who in range(4)])
        expect(sorted(itertools.chain(*numbers)), list(range(1, 33)))
        found = [message.payload.decode() for message in log.inbox("a")]
        for who in range(4):
            mine = [text for text in found if text.startswith(f"{who}.")]
            expect(mine, [f"{who}.{n}" for n in range(8)], "L7: in order per sender")

    def test_threads_post_a_key(self, log: EventLog) -> None:
        """R14: of threads that post the same key exactly one delivers."""
        write(log, new())
        found = together([lambda: write(log, post(key="k")) for _ in range(6)])
        expect(sorted((receipt.created, receipt.number) for receipt in found), [(False, 1)] * 5 + [(True, 1)])

    def test_threads_claim(self, log: EventLog) -> None:
        """L8: threads that claim get different executions, and all of them."""
        ids = [f"e{n:02}" for n in range(30)]
        write(log, *[new(id) for id in ids])
        given = together([partial(claimed, log, f"w{n}") for n in range(4)])
        expect(sorted(itertools.chain(*given)), ids)

    # ------------------------------------------------ L7: messages

    @pytest.mark.parametrize("kind", ["event", "child", "cancel", "terminate"])
    def test_post(self, log: EventLog, kind: MessageKind) -> None:
        """L7: a message is there as it was posted, with a number from 1."""
        write(log, new())
        expect(write(log, Post("a", kind, "ready", b"{}", 3.0, key="k")), Receipt(number=1))
        expect(log.inbox("a"), [Message(1, kind, "ready", b"{}", 3.0, "k")])
        expect(standing(log).unread, 1)

    def test_inbox_after(self, log: EventLog) -> None:
        """L7: the inbox can be read from any number on."""
        write(log, new(), *[post(payload=b"%d" % n) for n in range(5)])
        for after in (-1, 0, 1, 4, 5, 10**20):
            expect([m.number for m in log.inbox("a", after)], [n for n in range(1, 6) if n > after])

    def test_consume(self, log: EventLog) -> None:
        """L7: what a turn consumes is gone with it, and cannot be consumed again."""
        write(log, new(), *[post(payload=b"%d" % n) for n in range(5)])
        write(log, turn("a", 1, "X", consumes=[4, 2, 2], seen=5))
        expect([message.number for message in log.inbox("a")], [1, 3, 5])
        expect(standing(log).unread, 3)
        for number in (2, 6, 0, -1, 10**20):
            refused(log, turn("a", 2, "Y", consumes=[1, number], seen=5), "stale")
        write(log, turn("a", 2, "Y", consumes=[1, 3, 5]))
        expect((log.inbox("a"), standing(log).unread), ([], 0))
        expect(write(log, post()).number, 6, "L7: numbers are never used again")

    def test_key_again(self, log: EventLog) -> None:
        """R14: the same key again is accepted without effect, consumed or not; other executions are apart."""
        write(log, new(), new("b"))
        write(log, post(), post(payload=b"first", key="k"))
        before = state(log, "a")
        expect(write(log, post(payload=b"again", key="k")), Receipt(created=False, number=2))
        expect(state(log, "a"), before)
        write(log, turn("a", 1, "X", consumes=[1, 2], seen=2))
        expect(write(log, post(payload=b"late", key="k")), Receipt(created=False, number=2))
        expect((log.inbox("a"), claimed(log)), ([], ["b"]))
        expect(write(log, post("b", key="k")), Receipt(number=1))

    def test_key_makes_nothing_due(self, log: EventLog) -> None:
        """R14: a key that was seen makes nothing due."""
        write(log, new(), post(key="k"), turn("a", 1, seen=1))
        write(log, post(key="k"))
        expect((log.next_wake(), claimed(log)), (None, []))

    # ------------------------------------------------ L10: who is due

    @pytest.mark.parametrize("now, due", [(19.999, []), (20.0, ["a"]), (20.001, ["a"]), (1e18, ["a"])])
    def test_due_by_time(self, log: EventLog, now: float, due: list[str]) -> None:
        """L10: due when its wake time has come, and never before."""
        write(log, new(), turn("a", 1, wake=20.0))
        expect(log.next_wake(), 20.0)
        expect(claimed(log, now=now), due)

    def test_due_in_order(self, log: EventLog) -> None:
        """L10: who has been due the longest is given first."""
        wakes = {"a": 5.0, "b": 1.0, "c": 3.0, "d": 2.0, "e": 99.0}
        write(log, *[new(id, wake=wake) for id, wake in wakes.items()])
        expect([each.id for each in log.claim("w1", now=10.0, lease_s=LEASE_S, limit=2)], ["b", "d"])
        expect((log.next_wake(), claimed(log)), (3.0, ["c", "a"]))
        expect((log.next_wake(), claimed(log)), (99.0, []))

    def test_never_due(self, log: EventLog) -> None:
        """L10: without a wake time only a message makes it due."""
        write(log, new(wake=None))
        expect((log.next_wake(), claimed(log, now=1e18)), (None, []))
        write(log, post())
        expect((log.next_wake(), claimed(log, now=-1e18)), (0.0, []), "0.0 is later than -1e18")
        expect(claimed(log, now=1.0), ["a"])

    @pytest.mark.parametrize("by", ["turn", "mark"])
    def test_seen(self, log: EventLog, by: str) -> None:
        """L10: an unconsumed message above `seen` makes it due at once; one that was seen does not."""
        write(log, new(), post(), post())
        position, fence = 1, 0
        for seen, due in ((0, True), (1, True), (2, False), (1, True)):
            if by == "turn":
                write(log, turn("a", position, "X", fence=fence, wake=50.0, seen=seen))
                position += 1
            else:
                write(log, Mark("a", Status.WAITING, wake=50.0, seen=seen))
            expect((log.next_wake(), claimed(log)), (0.0, ["a"]) if due else (50.0, []), f"seen={seen}")
            fence = standing(log).fence

    def test_seen_and_consumed(self, log: EventLog) -> None:
        """L10: what was consumed makes nothing due, whatever `seen` says."""
        write(log, new(), post(), post(), turn("a", 1, "X", consumes=[1, 2], seen=0))
        expect(log.next_wake(), None)
        write(log, post(), post(), turn("a", 2, "Y", consumes=[4], seen=0))
        expect(log.next_wake(), 0.0, "message 3 was not seen")
        write(log, turn("a", 3, "Z", seen=3))
        expect(log.next_wake(), None)

    def test_message_while_deciding(self, log: EventLog) -> None:
        """L10: a message that came while a turn was built makes it due at once after that turn."""
        write(log, new())
        expect(claimed(log), ["a"])
        write(log, post())
        write(log, turn("a", 1, "X", fence=1, wake=None, seen=0))
        expect((log.next_wake(), claimed(log)), (0.0, ["a"]))

    @pytest.mark.parametrize("status", OPEN)
    def test_due_by_status(self, log: EventLog, status: Status) -> None:
        """L8, R14: every open execution is given when due, parked ones too, paused ones never."""
        write(log, new(), turn("a", 1, status=status, wake=0.0), post())
        paused = status is Status.PAUSED
        expect((log.next_wake(), claimed(log)), (None, []) if paused else (0.0, ["a"]))
        expect(standing(log).unread, 1)

    def test_paused_and_on(self, log: EventLog) -> None:
        """L10: what came while it was paused makes it due when it goes on."""
        write(log, new(), turn("a", 1, status=Status.PAUSED), post())
        write(log, Mark("a", Status.WAITING))
        expect(claimed(log), ["a"])

    @pytest.mark.parametrize("answer", ["turn", "mark", "post"])
    def test_given_once(self, log: EventLog, answer: str) -> None:
        """L8: being given makes an execution not due, until its next turn, mark or message."""
        write(log, new())
        expect((claimed(log), claimed(log), log.next_wake()), (["a"], [], None))
        answers: dict[str, Write] = {
            "turn": turn("a", 1, "X", fence=1, wake=5.0),
            "mark": Mark("a", Status.PARKED, wake=5.0),
            "post": post(),
        }
        write(log, answers[answer])
        expect((claimed(log, "w2"), claimed(log, "w1"), claimed(log, "w1")), ([], ["a"], []))
        expect(standing(log).fence, 1, "L8: given again to its holder with the same fence")

    def test_wait_for_nothing(self, log: EventLog) -> None:
        """L10: waiting ends after its time when nothing was written."""
        claimed(log)
        began = time.monotonic()
        expect(log.wait(0.05), False)
        expect(time.monotonic() - began >= 0.045, True, "L10: wait returned too early")
        expect((log.wait(0.0), log.wait(-1.0)), (False, False))

    @pytest.mark.parametrize(
        "item", [new("b"), post("a"), Mark("a", Status.WAITING, wake=3.0)], ids=lambda i: type(i).__name__
    )
    def test_wait(self, log: EventLog, item: Write) -> None:
        """L10: waiting ends soon after somebody wrote what may make an execution due."""
        write(log, new(wake=None))
        claimed(log)

        def write_later() -> bool:
            time.sleep(0.05)
            write(log, item)
            return True

        expect(together([lambda: log.wait(20.0), write_later]), [True, True])

    def test_wait_misses_nothing(self, log: EventLog) -> None:
        """L10: what was written after the last claim and before the wait ends it at once."""
        write(log, new(wake=None))
        claimed(log)
        write(log, post())
        expect(log.wait(20.0), True)
        expect(claimed(log), ["a"])
        expect(log.wait(0.0), False)

    # ------------------------------------------------ L8: claims, leases, fences

    def test_claim(self, log: EventLog) -> None:
        """L8: a claim tells all about what it gives, and gives it to one worker."""
        write(log, new(), post())
        wanted = Summary("a", "w", "d", Status.SCHEDULED, 0, 1, 1, 1.0, 1.0, 0.0, "w1", unread=1)
        expect(list(log.claim("w1", now=10.0, lease_s=LEASE_S, limit=5)), [wanted])
        expect((standing(log), claimed(log, "w2")), (wanted, []))

    @pytest.mark.parametrize("limit", [0, 1, 3, 5, 10**20])
    def test_claim_limit(self, log: EventLog, limit: int) -> None:
        """L8: a claim gives at most its limit; the rest stays due."""
        ids = [f"e{n}" for n in range(5)]
        write(log, *[new(id) for id in ids])
        given = [each.id for each in log.claim("w1", now=10.0, lease_s=LEASE_S, limit=limit)]
        expect(given, ids[:limit])
        expect(claimed(log, "w2"), ids[limit:])

    @pytest.mark.parametrize(
        "workflows, wanted",
        [
            (["v"], ["v1", "v2"]),
            (["w", "v"], ["v1", "v2", "w1"]),
            (["other"], []),
            ([], []),
            (None, ["v1", "v2", "w1"]),
        ],
        ids=str,
    )
    def test_claim_workflows(self, log: EventLog, workflows: list[str] | None, wanted: list[str]) -> None:
        """L8: a claim can be limited to the workflows that its worker knows."""
        write(log, new("v1", workflow="v"), new("w1", workflow="w"), new("v2", workflow="v"))
        given = log.claim("worker", now=10.0, lease_s=LEASE_S, limit=9, workflows=workflows)
        expect(sorted(each.id for each in given), wanted)

    def test_fence_grows(self, log: EventLog) -> None:
        """L8, I6: the fence grows each time that an execution passes into a worker's hand, and never else."""
        write(log, new())
        fences: list[int] = []
        for n in range(4):
            (given,) = log.claim(f"w{n % 2}", now=10.0, lease_s=LEASE_S, limit=1)
            write(log, turn("a", 1 + n, "X", fence=given.fence, wake=0.0))
            expect(standing(log).fence, given.fence)
            log.release(f"w{n % 2}")
            fences.append(given.fence)
        expect(fences, [1, 2, 3, 4])

    def test_zombie(self, log: EventLog) -> None:
        """L8: a worker whose lease ran out cannot append any more once another has taken over."""
        write(log, new())
        expect(claimed(log, "w1", lease_s=SHORT_S), ["a"])
        expect(claimed(log, "w2"), [], "the lease has not run out")
        self.advance(SHORT_S * 2)
        expect(claimed(log, "w2"), ["a"], "given and not answered: due at once")
        refused(log, turn("a", 1, "Zombie", fence=1), "stale")
        refused(log, Mark("a", Status.PARKED, fence=1), "stale")
        write(log, turn("a", 1, "X", fence=2))
        expect((standing(log).owner, [record.kind for record in log.records("a")]), ("w2", ["Started", "X"]))

    @pytest.mark.parametrize("status", OPEN)
    def test_death(self, log: EventLog, status: Status) -> None:
        """L8: of what a late worker held, RUNNING is due at once; the rest is free, and due as it was."""
        write(log, new())
        claimed(log, "w1", lease_s=SHORT_S)
        write(log, turn("a", 1, "X", fence=1, status=status, wake=500.0))
        self.advance(SHORT_S * 2)
        expect(claimed(log, "w2"), ["a"] if status is Status.RUNNING else [])
        taken = log.acquire("w2", "a", lease_s=LEASE_S)
        expect(taken is not None and (taken.owner, taken.fence), ("w2", 2), "it is free")
        expect(claimed(log, "w2", now=500.0), [] if status in (Status.RUNNING, Status.PAUSED) else ["a"])

    def test_renew(self, log: EventLog) -> None:
        """L8: a lease that is renewed in time does not run out, for all that its worker holds."""
        write(log, new(), new("b"))
        claimed(log, "w1", lease_s=SHORT_S * 2)
        for _ in range(3):
            self.advance(SHORT_S)
            expect(log.renew("w1", lease_s=SHORT_S * 2), True)
        expect(claimed(log, "w2"), [])
        expect(log.renew("w1", lease_s=SHORT_S), True)
        self.advance(SHORT_S * 2)
        expect(claimed(log, "w2"), ["a", "b"])
        expect(log.renew("w1", lease_s=LEASE_S), False, "something was taken away")
        expect(log.renew("w1", lease_s=LEASE_S), True, "and nothing since")
        expect((standing(log).owner, claimed(log, "w1")), ("w2", []))

    def test_claim_renews(self, log: EventLog) -> None:
        """L8: a claim renews the worker's lease, also when it gives nothing."""
        write(log, new())
        for _ in range(4):
            claimed(log, "w1", lease_s=SHORT_S * 2)
            self.advance(SHORT_S)
        expect(claimed(log, "w2"), [])

    def test_renew_of_nothing(self, log: EventLog) -> None:
        """L8: a worker that holds nothing loses nothing."""
        expect(log.renew("w1", lease_s=SHORT_S), True)
        self.advance(SHORT_S * 2)
        claimed(log, "w2")
        expect(log.renew("w1", lease_s=SHORT_S), True)

    def test_late_but_unrivalled(self, log: EventLog) -> None:
        """L8: a lease that ran out without anybody noticing can be renewed; nothing was taken away."""
        write(log, new())
        claimed(log, "w1", lease_s=SHORT_S)
        self.advance(SHORT_S * 2)
        expect(log.renew("w1", lease_s=LEASE_S), True)
        write(log, turn("a", 1, "X", fence=1))
        expect(claimed(log, "w2"), [])

    def test_acquire(self, log: EventLog) -> None:
        """L8: one execution can be taken by id, due or not, with the fence grown."""
        write(log, new(wake=None))
        taken = log.acquire("w1", "a", lease_s=LEASE_S)
        expect(taken, Summary("a", "w", "d", Status.SCHEDULED, 0, 1, 1, 1.0, 1.0, None, "w1"))
        expect(log.acquire("w1", "a", lease_s=LEASE_S), taken, "L8: its holder gets it with the same fence")
        expect(log.acquire("w2", "a", lease_s=LEASE_S), None, "L8: held by another live worker")
        expect(log.acquire("w1", "nobody", lease_s=LEASE_S), None)
        write(log, turn("a", 1, "X", fence=1))

    @pytest.mark.parametrize("status", [*OPEN, *ENDED])
    def test_acquire_by_status(self, log: EventLog, status: Status) -> None:
        """L8: any execution that has not ended can be taken, paused and parked ones too."""
        write(log, new(), turn("a", 1, status=status))
        expect(log.acquire("w1", "a", lease_s=LEASE_S) is not None, status not in CLOSED)

    def test_acquire_after_lease(self, log: EventLog) -> None:
        """L8: what a late worker held can be taken by id."""
        write(log, new())
        expect(log.acquire("w1", "a", lease_s=SHORT_S) is not None, True)
        expect(log.acquire("w2", "a", lease_s=SHORT_S), None)
        self.advance(SHORT_S * 2)
        taken = log.acquire("w2", "a", lease_s=LEASE_S)
        expect(taken is not None and taken.fence, 2)
        refused(log, turn("a", 1, "Zombie", fence=1), "stale")

    def test_acquire_keeps_wake(self, log: EventLog) -> None:
        """L10: what was taken by id is still given to its holder when its time comes."""
        write(log, new(wake=5.0))
        log.acquire("w1", "a", lease_s=LEASE_S)
        expect((claimed(log, "w1", now=4.0), claimed(log, "w1", now=5.0)), ([], ["a"]))

    def test_release(self, log: EventLog) -> None:
        """L8: what is given back is free at once, with fence and wake time as they were."""
        write(log, new(), new("b"), new("c"))
        claimed(log, "w1")
        write(log, turn("a", 1, "X", fence=1, wake=500.0))
        log.release("w1", ["a", "b", "nobody"])
        expect([standing(log, id).owner for id in "abc"], [None, None, "w1"])
        expect((standing(log).wake, standing(log).fence), (500.0, 1))
        log.release("w2")
        log.release("w1", [])
        expect(standing(log, "c").owner, "w1")
        expect(claimed(log, "w2"), ["b"], "b was given and not answered; a is not due before 500")
        log.release("w1")
        expect((standing(log, "c").owner, standing(log, "b").owner), (None, "w2"))
        expect(claimed(log, "w2"), ["c"])

    @pytest.mark.parametrize("how", ["release", "turn", "mark"])
    @pytest.mark.parametrize("status", [Status.RUNNING, Status.WAITING])
    def test_release_running(self, log: EventLog, status: Status, how: str) -> None:
        """L8: what is RUNNING is due at once when it is given back; what waits is due when it was to be."""
        write(log, new())
        claimed(log, "w1")
        write(log, turn("a", 1, "X", fence=1, status=status, wake=500.0))
        if how == "release":
            log.release("w1")
        elif how == "turn":
            write(log, turn("a", 2, "Y", fence=1, status=status, wake=500.0, releases=True))
        else:
            write(log, Mark("a", status, wake=500.0, releases=True))
        expect((standing(log).owner, standing(log).fence), (None, 1))
        expect(claimed(log, "w2"), ["a"] if status is Status.RUNNING else [])

    def test_close_releases(self) -> None:
        """L8: closing a log gives back what its workers hold."""
        log = self.open()
        if not self.durable and not self.shared:
            log.close()
            return
        write(log, new(), new("b", owner="w2"))
        claimed(log, "w1")
        log = self.reopen(log)
        expect([standing(log, id).owner for id in "ab"], [None, None])
        expect(log.acquire("w3", "b", lease_s=LEASE_S) is not None, True)
        expect(claimed(log, "w3")[:1], ["a"])
        log.close()

    # ------------------------------------------------ L13: marks

    def test_mark(self, log: EventLog) -> None:
        """L13: status, reason and build are set without an append; no record is written."""
        write(log, new(), turn("a", 1, "X"))
        write(log, Mark("a", Status.PARKED, reason="diverged", build="b7", wake=9.0))
        found = standing(log)
        expect((found.status, found.reason, found.build, found.wake), (Status.PARKED, "diverged", "b7", 9.0))
        expect((found.position, found.updated_at, len(log.records("a"))), (2, 2.0, 2))
        write(log, turn("a", 2, "Y"))

    def test_mark_keeps_facts_coming(self, log: EventLog) -> None:
        """L13: the reason stays while turns keep the status, and goes with it."""
        write(log, new(), Mark("a", Status.PARKED, reason="diverged", build="b7"))
        write(log, turn("a", 1, "Fact", status=Status.PARKED))
        expect((standing(log).reason, standing(log).build), ("diverged", "b7"))
        write(log, turn("a", 2, "X", status=Status.WAITING))
        expect((standing(log).reason, standing(log).build), ("", ""))

    def test_mark_fence(self, log: EventLog) -> None:
        """L13: a mark with a fence holds only with the current one; one without holds always."""
        write(log, new(owner="w1"))
        refused(log, Mark("a", Status.PARKED, fence=0), "stale")
        refused(log, Mark("a", Status.PARKED, fence=2), "stale")
        write(log, Mark("a", Status.PARKED, fence=1))
        write(log, Mark("a", Status.PAUSED))
        expect((standing(log).status, standing(log).owner), (Status.PAUSED, "w1"))

    @pytest.mark.parametrize("status", ENDED)
    def test_mark_cannot_end(self, log: EventLog, status: Status) -> None:
        """I7: only a turn ends an execution."""
        write(log, new())
        with pytest.raises(InvalidUse):
            log.append([Mark("a", status)])
        expect(standing(log).status, Status.SCHEDULED)

    @pytest.mark.parametrize(
        "reason", by_name({**IDS, "lines": "one\n\ttwo\r\n", "escape": "\x1b[31mred", "long": "r" * 20000})
    )
    def test_mark_reason(self, log: EventLog, reason: str) -> None:
        """L11, L13: a reason is any text."""
        write(log, new(), Mark("a", Status.PARKED, reason=reason, build=reason))
        expect((standing(log).reason, standing(log).build), (reason, reason))

    @pytest.mark.parametrize("reason", ["a\0b", "a\ud800b"], ids=ascii)
    def test_mark_reason_is_never_refused(self, log: EventLog, reason: str) -> None:
        """L13: an unstorable character of a reason is replaced: parking must not fail for it."""
        write(log, new(), Mark("a", Status.PARKED, reason=reason))
        expect((standing(log).reason[0], standing(log).reason[-1]), ("a", "b"))

    # ------------------------------------------------ lists

    @pytest.mark.parametrize("limit", [1, 2, 3, 7, 8, 100])
    def test_list_pages(self, log: EventLog, limit: int) -> None:
        """A list goes through all executions in the order of their ids, a page at a time."""
        ids = ["B", "a", "b", "b1", "b\u00e9", "c", "\u6ce8", "\U0001f984"]
        write(log, *[new(id) for id in reversed(ids)])
        found: list[str] = []
        after: str | None = None
        for _ in range(len(ids) + 1):
            page = log.list(limit=limit, after=after)
            expect(len(page.items) <= limit, True)
            found += [each.id for each in page.items]
            after = page.next
            if after is None:
                break
        expect(found, sorted(ids))
        with pytest.raises(InvalidUse):
            log.list(limit=0)

    def test_list_is_whole(self, log: EventLog) -> None:
        """A list shows each execution as `summary` does."""
        write(log, new(), new("b", owner="w1"), post("b"), Mark("a", Status.PARKED, reason="why"))
        expect(list(log.list().items), [standing(log), standing(log, "b")])

    @pytest.mark.parametrize(
        "prefix", ["", "a", "a%", "a_", "a\U0010ffff", "\U0010ffff", "b", "zz", "a\ud7ff"]
    )
    def test_list_prefix(self, log: EventLog, prefix: str) -> None:
        """L11: a prefix means itself, whatever characters it has."""
        ids = ["a", "a%", "a%1", "a_", "ab", "a\U0001f984", "b", "b\ud7a3", "c"]
        write(log, *[new(id) for id in ids])
        wanted = sorted(id for id in ids if id.startswith(prefix))
        expect([each.id for each in log.list(id_prefix=prefix).items], wanted)
        for after in ("", "a%", "a\U0001f984", "b", "zzz"):
            found = [each.id for each in log.list(id_prefix=prefix, after=after).items]
            expect(found, [id for id in wanted if id > after], f"after {after!a}")

    def test_list_filters(self, log: EventLog) -> None:
        """A list can be limited to a status and a workflow, and both, and goes on by pages."""
        for n in range(12):
            id = f"e{n:02}"
            write(log, new(id, workflow=f"w{n % 2}"))
            if n % 3 == 0:
                write(log, turn(id, 1, "X", status=Status.COMPLETED))
        done = [f"e{n:02}" for n in range(0, 12, 3)]
        expect([each.id for each in log.list(status=Status.COMPLETED).items], done)
        expect([each.id for each in log.list(workflow="w1").items], [f"e{n:02}" for n in range(1, 12, 2)])
        both = log.list(status=Status.COMPLETED, workflow="w1", limit=1)
        expect(([each.id for each in both.items], both.next), (["e03"], "e03"))
        rest = log.list(status=Status.COMPLETED, workflow="w1", limit=1, after=both.next)
        expect(([each.id for each in rest.items], rest.next), (["e09"], None))
        expect(list(log.list(status=Status.FAILED).items), [])

    def test_stats(self, log: EventLog) -> None:
        """Stats tell how many executions stand where."""
        write(log, new(), new("b"), new("c"), new("d"))
        write(log, turn("a", 1, status=Status.COMPLETED), Mark("b", Status.PARKED))
        found = {status: n for status, n in log.stats().items() if n}
        expect(found, {Status.COMPLETED: 1, Status.PARKED: 1, Status.SCHEDULED: 2})

    def test_verify(self, log: EventLog) -> None:
        """L12: verify reads everything and counts it."""
        write(log, new(), new("b"), post(), post(), post("b", key="k"))
        write(log, turn("a", 1, "X", "Y", consumes=[1], opens=records("Started", at=2.0)))
        found = log.verify()
        expect((found["executions"], found["records"], found["messages"]), (2, 5, 2))

    # ------------------------------------------------ L4: closed and opened again

    def test_reopen(self) -> None:
        """L4, L5: everything that was acknowledged is there when the log is opened again."""
        log = self.open()
        if not self.durable:
            log.close()
            return
        write(log, new(), new("b"), new("c", workflow="v", wake=77.0), new("end"))
        write(log, post("b", b"1", key="k1"), post("b", b"2"), post("a", b"x" * 100_000))
        (given, *_) = log.claim("w1", now=10.0, lease_s=LEASE_S, limit=1)
        write(log, turn("a", 1, "X", fence=given.fence, at=3.0, opens=records("Started", at=3.0), seen=1))
        write(log, turn("b", 1, "Y", consumes=[1], seen=2), Mark("b", Status.PARKED, "why", "b1", seen=2))
        write(log, turn("end", 1, "Closed", status=Status.TIMED_OUT))
        log.release("w1")
        ids = ("a", "b", "c", "end")

        def everything() -> list[object]:
            return [
                state(log, *ids),
                log.records("a", run=0),
                dict(log.stats()),
                dict(log.verify()),
                log.next_wake(),
                [each.id for each in log.list().items],
            ]

        before = everything()
        for _ in range(2):
            log = self.reopen(log)
            expect(everything(), before)
        expect(write(log, post("b", key="k1")), Receipt(created=False, number=1))
        expect(write(log, post("b")).number, 3)
        refused(log, turn("a", 1, "Z"), "stale")
        refused(log, post("end"), "closed")
        expect(write(log, new()), Receipt(created=False, number=1))
        taken = log.acquire("w2", "a", lease_s=LEASE_S)
        expect(taken is not None and taken.fence, 2, "I6: fences never go back")
        write(log, turn("a", 1, "Z", run=1, fence=2, at=4.0))
        log.close()

    def test_two_at_once(self) -> None:
        """L2, L8: two log objects on the same log see each other's writes, and fence each other off."""
        if not self.shared:
            return
        one, two = self.open(), self.open()
        write(one, new())
        expect(state(two, "a"), state(one, "a"))
        expect((claimed(two, "w2"), claimed(one, "w1")), (["a"], []))
        refused(one, turn("a", 1, "X"), "stale")
        write(two, turn("a", 1, "X", fence=1))
        expect(one.records("a"), two.records("a"))
        claimed(one, "w1")

        def write_later() -> bool:
            time.sleep(0.05)
            write(two, post())
            return True

        expect(together([lambda: one.wait(20.0), write_later]), [True, True])
        two.close()
        expect(claimed(one, "w1"), ["a"], "closing gave it back")
        expect(standing(one).fence, 2)
        one.close()
