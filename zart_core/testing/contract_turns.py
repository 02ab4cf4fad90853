"""Checks of a store. Executions are created, and turns are appended to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zart_core.errors import StoreFailed
from zart_core.events import CLOSED, Status
from zart_core.log import EventLog, Mark, Receipt, Record, Summary
from zart_core.testing.contract_base import Contract
from zart_core.testing.contract_report import by_name, cases, checks, raising
from zart_core.testing.contract_writes import (
    ENDED,
    LEASE_S,
    OPEN,
    PAYLOADS,
    claimed,
    expect,
    new,
    post,
    receipts,
    records,
    refused,
    standing,
    state,
    turn,
    write,
)


@checks
class TurnChecks(Contract):
    """Executions are created, and turns are appended to them."""

    # ------------------------------------------------ what it is

    def test_protocol(self, log: EventLog) -> None:
        """L4: a store has everything that EventLog asks for, and its level is known."""
        missing = [name for name in vars(EventLog) if name[0] != "_" and not hasattr(log, name)]
        expect(missing, [])
        expect(log.level in ("power", "process", "none"), True, f"level is {log.level!r}")
        expect(type(log.blocking), bool)
        expect(log.level == "none", not self.durable, "L4: durable and level agree")

    def test_types(self) -> None:
        """L5: what is read is of the types that the protocol names, also when the log is opened again.

        A text is equal to the Status that it names, and a bytearray to bytes; who reads a log needs the real ones.
        """
        log = self.opened()
        write(log, new(), post(payload=b"m"), new("b", owner="w1"))
        for _ in range(2 if self.durable else 1):
            given = log.acquire("w1", "b", lease_s=LEASE_S)
            summaries = [standing(log), *log.list().items, *([] if given is None else [given])]
            expect([type(each.status).__name__ for each in summaries], ["Status"] * 4, "types of statuses")
            expect(
                {type(status).__name__ for status in log.stats()}, {"Status"}, "types of statuses in stats"
            )
            found = log.records("a")[0].data, log.inbox("a")[0].payload
            expect([type(each).__name__ for each in found], ["bytes"] * 2, "types of data and payload")
            log = self.reopened(log) if self.durable else log
        log.close()

    def test_empty(self, log: EventLog) -> None:
        """L5: an empty log has nothing to tell."""
        expect(state(log, "a"), [(None, [], [])])
        expect((log.next_wake(), dict(log.stats()), list(log.list().items)), (None, {}, []))
        expect(claimed(log), [])
        expect(dict(log.verify()), {"executions": 0, "records": 0, "messages": 0})
        expect(log.append([]), [], "L6: an empty batch has no outcomes")

    def test_close_twice(self) -> None:
        """L4: closing twice is closing once; a closed log takes and tells nothing."""
        log = self.opened()
        log.close()
        log.close()
        uses: list[Callable[[], object]] = [
            lambda: log.append([new()]),
            lambda: log.summary("a"),
            lambda: log.records("a"),
            lambda: log.inbox("a"),
            lambda: log.claim("w1", now=1.0, lease_s=1.0, limit=1),
            lambda: log.acquire("w1", "a", lease_s=1.0),
            lambda: log.renew("w1", lease_s=1.0),
            log.next_wake,
            log.list,
            log.stats,
            log.verify,
        ]
        for use in uses:
            with raising(StoreFailed):
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

    @cases("status", list(Status))
    def test_new_again(self, log: EventLog, status: Status) -> None:
        """L9: the same id, workflow and digest give the existing execution, in any state, unchanged."""
        write(log, new(), turn("a", 1, "X", status=status), *([] if status in CLOSED else [post()]))
        before = state(log, "a", "b")
        again = new(records=records("Other", "Others"), at=9.0, wake=5.0, owner="w1", creates=[new("b")])
        expect(write(log, again), Receipt(created=False, number=0, fence=0))
        expect(state(log, "a", "b"), before, "L9: creating again changes nothing")

    @cases("changes", [{"workflow": "v"}, {"digest": "e"}], ids=str)
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

    @cases("position", [-1, 0, 1, 2, 4, 10**20])
    def test_stale_position(self, log: EventLog, position: int) -> None:
        """L2: a turn at another position than the log's end is stale."""
        write(log, new(), turn("a", 1, "X", "Y"))
        before = state(log, "a")
        refused(log, turn("a", position, "Z"), "stale")
        expect(state(log, "a"), before)

    @cases("fence", [-1, 0, 1, 3, 10**20])
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

    @cases("run", [-1, 0, 2])
    def test_stale_run(self, log: EventLog, run: int) -> None:
        """L2: a turn of another run than the current one is stale."""
        write(log, new(), turn("a", 1, "X", opens=records("Started", at=2.0)))
        refused(log, turn("a", 1, "Z", run=run), "stale")
        expect(len(log.records("a")), 1)

    @cases(
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
    @cases("why", ["position", "fence", "message"])
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

    @cases("status", OPEN)
    def test_open_status(self, log: EventLog, status: Status) -> None:
        """L1: a turn sets any open status, and the next turn goes through."""
        write(log, new(), turn("a", 1, "X", status=status))
        expect(standing(log).status, status)
        write(log, turn("a", 2, "Y"))
        expect(dict(log.stats()), {Status.WAITING: 1})

    @cases("status", ENDED)
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

    @cases("start", [0, 1, 2, 3, 4, 100, 10**20])
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

    @cases("data", by_name(PAYLOADS))
    def test_payloads(self, log: EventLog, data: bytes) -> None:
        """L5, L11: bytes come back as they were, up to 1 MiB."""
        write(log, new(records=records("Started", data=data)), post(payload=data))
        write(log, turn("a", 1, records=records("X", at=2.0, data=data)))
        expect([record.data for record in log.records("a")], [data, data])
        expect([message.payload for message in log.inbox("a")], [data])
        log.verify()

    @cases("at", [0.0, -1.0, 1.5, 1e-9, 1_700_000_000.123456, 2**53 + 2.0, 4102444800])
    def test_times(self, log: EventLog, at: float) -> None:
        """L5: times come back as they were, to the last bit."""
        write(log, new(at=at, wake=at, records=records("Started", at=at)), post(at=at))
        found = standing(log)
        expect((found.created_at, found.wake, log.records("a")[0].at, log.inbox("a")[0].at), (at,) * 4)
