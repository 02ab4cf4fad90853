"""Checks of a store. Marks, lists, and logs that are opened again."""

from __future__ import annotations

import time

from zart_core.errors import InvalidUse
from zart_core.events import Status
from zart_core.log import EventLog, Mark, Receipt
from zart_core.testing.contract_base import Contract
from zart_core.testing.contract_report import by_name, cases, checks, raising
from zart_core.testing.contract_writes import (
    ENDED,
    IDS,
    LEASE_S,
    claimed,
    expect,
    new,
    post,
    records,
    refused,
    standing,
    state,
    together,
    turn,
    write,
)


@checks
class ViewChecks(Contract):
    """Marks, lists, and logs that are opened again."""

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

    @cases("status", ENDED)
    def test_mark_cannot_end(self, log: EventLog, status: Status) -> None:
        """I7: only a turn ends an execution."""
        write(log, new())
        with raising(InvalidUse):
            log.append([Mark("a", status)])
        expect(standing(log).status, Status.SCHEDULED)

    @cases(
        "reason", by_name({**IDS, "lines": "one\n\ttwo\r\n", "escape": "\x1b[31mred", "long": "r" * 20000})
    )
    def test_mark_reason(self, log: EventLog, reason: str) -> None:
        """L11, L13: a reason is any text."""
        write(log, new(), Mark("a", Status.PARKED, reason=reason, build=reason))
        expect((standing(log).reason, standing(log).build), (reason, reason))

    @cases("reason", ["a\0b", "a\ud800b"], ids=ascii)
    def test_mark_reason_is_never_refused(self, log: EventLog, reason: str) -> None:
        """L13: an unstorable character of a reason is replaced: parking must not fail for it."""
        write(log, new(), Mark("a", Status.PARKED, reason=reason))
        expect((standing(log).reason[0], standing(log).reason[-1]), ("a", "b"))

    # ------------------------------------------------ lists

    @cases("limit", [1, 2, 3, 7, 8, 100])
    def test_list_pages(self, log: EventLog, limit: int) -> None:
        """L5: a list goes through all executions in the order of their ids, a page at a time."""
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
        with raising(InvalidUse):
            log.list(limit=0)

    def test_list_is_whole(self, log: EventLog) -> None:
        """L5: a list shows each execution as `summary` does."""
        write(log, new(), new("b", owner="w1"), post("b"), Mark("a", Status.PARKED, reason="why"))
        expect(list(log.list().items), [standing(log), standing(log, "b")])

    @cases("prefix", ["", "a", "a%", "a_", "a\U0010ffff", "\U0010ffff", "b", "zz", "a\ud7ff", "a~", "\u05ea"])
    def test_list_prefix(self, log: EventLog, prefix: str) -> None:
        """L11: a prefix means itself, whatever characters it has, and whatever comes after them in Unicode."""
        ids = ["a", "a%", "a%1", "a_", "ab", "a~", "a~1", "a\U0001f984", "b", "b\ud7a3", "c", "\u05ea1"]
        write(log, *[new(id) for id in ids])
        wanted = sorted(id for id in ids if id.startswith(prefix))
        expect([each.id for each in log.list(id_prefix=prefix).items], wanted)
        for after in ("", "a%", "a\U0001f984", "b", "zzz"):
            found = [each.id for each in log.list(id_prefix=prefix, after=after).items]
            expect(found, [id for id in wanted if id > after], f"after {after!a}")

    def test_list_filters(self, log: EventLog) -> None:
        """L5: a list can be limited to a status and a workflow, and both, and goes on by pages."""
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
        """L5: stats tell how many executions stand where."""
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

    def test_reads_back(self) -> None:
        """L4, L5: records that were acknowledged are there, byte for byte, when the log is opened again."""
        self.needs(self.durable, "it is not durable")
        log = self.opened()
        write(log, new(), turn("a", 1, "X", "Y"))
        for _ in range(2):
            log = self.reopened(log)
            expect(log.records("a"), [*records("Started"), *records("X", "Y", at=2.0)])
        log.close()

    def test_reopen(self) -> None:
        """L4, L5: everything that was acknowledged is there when the log is opened again."""
        self.needs(self.durable, "it is not durable")
        log = self.opened()
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
            log = self.reopened(log)
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
        self.needs(self.shared, "it takes one opener")
        one, two = self.opened(), self.opened()
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
