"""Checks of a store. Limits, and hostile texts."""

from __future__ import annotations

from zart_core.errors import InvalidUse
from zart_core.events import Status
from zart_core.log import (
    PAYLOAD_BYTES_MAX,
    RECORD_BYTES_MAX,
    EventLog,
    Mark,
    Message,
    Receipt,
    Record,
    Write,
)
from zart_core.testing.contract_base import Contract
from zart_core.testing.contract_report import by_name, cases, checks, raising
from zart_core.testing.contract_writes import (
    IDS,
    LEASE_S,
    NO_IDS,
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


@checks
class EdgeChecks(Contract):
    """Limits, and hostile texts."""

    # ------------------------------------------------ F19, F22: limits at the edge

    @cases("part", ["new", "records", "opens", "post", "posts", "creates", "deep"])
    def test_too_large(self, log: EventLog, part: str) -> None:
        """F19: a payload over its limit is Rejected("too-large") before anything is written."""
        write(log, new(), new("c"))
        before = state(log, "a", "b", "c")
        big = [Record("X", 2.0, bytes(RECORD_BYTES_MAX + 1))]
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

    @cases("part", ["new", "records", "opens", "creates", "post", "child"])
    def test_largest(self, log: EventLog, part: str) -> None:
        """L11: what is as large as it may be is kept: a record and a child's end hold an event around a payload."""
        write(log, new(), new("c"))
        largest = PAYLOAD_BYTES_MAX if part == "post" else RECORD_BYTES_MAX
        data = bytes(largest)
        big = [Record("X", 2.0, data)]
        items: dict[str, Write] = {
            "new": new("b", records=big),
            "records": turn("a", 1, records=big),
            "opens": turn("a", 1, opens=big),
            "creates": turn("a", 1, creates=[new("b", records=big)]),
            "post": turn("a", 1, posts=[post("c", data)]),
            "child": turn("a", 1, posts=[post("c", data, kind="child")]),
        }
        write(log, items[part])
        kept = [record.data for id in "ab" for record in log.records(id)]
        kept += [message.payload for message in log.inbox("c")]
        expect(data in kept, True, f"{largest:,} bytes that come back as they were")

    @cases("id", by_name(NO_IDS))
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
            with raising(InvalidUse):
                log.append([new("b"), turn("a", 1, "X"), item])
        expect(state(log, "a", "b"), before)

    @cases("id", by_name(NO_IDS))
    def test_reading_no_id(self, log: EventLog, id: str) -> None:
        """F22: there is nothing under an id that cannot be stored; reading it is no error."""
        expect(state(log, id), [(None, [], [])])
        expect(log.acquire("w1", id, lease_s=LEASE_S), None)

    @cases("text", by_name({k: v for k, v in NO_IDS.items() if k != "too-long"}))
    def test_no_name(self, log: EventLog, text: str) -> None:
        """F22: names and keys that cannot be stored raise InvalidUse."""
        write(log, new())
        bad: list[Write] = [
            new("b", workflow=text),
            new("b", digest=text),
            new("b", owner=text),
            new("b", claimed_as=text),
            turn("a", 1, "X", opens=records("Started"), opens_as=text),
            post(name=text),
            post(key=text),
            turn("a", 1, records=[Record(text, 2.0, b"")]),
        ]
        for item in bad:
            with raising(InvalidUse):
                log.append([item])
        with raising(InvalidUse):
            claimed(log, text)
        expect((log.summary("b"), standing(log).position, standing(log).unread), (None, 1, 0))

    def test_no_run_to_name(self, log: EventLog) -> None:
        """F22: a turn that names a run to be claimed by and opens none raises InvalidUse."""
        write(log, new())
        with raising(InvalidUse):
            log.append([turn("a", 1, "X", opens_as="w 2")])
        expect((standing(log).position, standing(log).claimed_as), (1, None))

    @cases("time", [float("nan"), float("inf"), float("-inf")])
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
            with raising(InvalidUse):
                log.append([item])
        expect(log.summary("a"), None)

    @cases("id", by_name(IDS))
    def test_hostile_id(self, log: EventLog, id: str) -> None:
        """L11: any printable text is an id, and means itself and nothing else."""
        write(log, new("a"), new(id), new("z"))
        write(log, turn(id, 1, "X"), post(id, b"m"))
        expect((standing(log, id).id, standing(log, id).unread), (id, 1))
        expect(state(log, "a", "z")[0][1:], (records("Started"), []))
        expect([record.kind for record in log.records(id)], ["Started", "X"])
        expect([message.payload for message in log.inbox(id)], [b"m"])
        expect(sorted(claimed(log)), sorted(["a", id, "z"]))
        expect([each.id for each in log.list(id_prefix=id).items][:1], [id])
        expect([each.id for each in log.list().items], sorted(["a", id, "z"]))
        log.verify()

    @cases("name", by_name(IDS))
    def test_hostile_name(self, log: EventLog, name: str) -> None:
        """L11: any printable text is a workflow, a name to claim by, a message name, a key, a kind and a worker."""
        write(log, new(workflow=name, digest=name, records=records(name), claimed_as=f"{name} 2"))
        expect(write(log, post(name=name, key=name)), Receipt(number=1))
        expect(write(log, post(name=name, key=name)), Receipt(created=False, number=1))
        expect(log.inbox("a"), [Message(1, "event", name, b"", 1.5, name)])
        expect(log.records("a"), records(name))
        expect(log.claim(name, now=10.0, lease_s=LEASE_S, limit=1, workflows=[name]), [])
        given = log.claim(name, now=10.0, lease_s=LEASE_S, limit=1, workflows=[f"{name} 2"])
        expect(
            [(each.id, each.workflow, each.digest, each.owner) for each in given], [("a", name, name, name)]
        )
        expect([each.id for each in log.list(workflow=name).items], ["a"])
        log.release(name)
        expect(standing(log).owner, None)
