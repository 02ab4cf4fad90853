"""Checks of a store. Who is due, and who holds what."""

from __future__ import annotations

import time

from zart_core.errors import StoreFailed
from zart_core.events import CLOSED, Status
from zart_core.log import EventLog, Mark, Receipt, Shared, Summary, Write
from zart_core.testing.contract_base import Contract
from zart_core.testing.contract_report import cases, checks, raising
from zart_core.testing.contract_writes import (
    ENDED,
    LEASE_S,
    OPEN,
    SHORT_S,
    claimed,
    expect,
    new,
    post,
    records,
    refused,
    standing,
    together,
    turn,
    write,
)


def claimed_by(log: EventLog, *names: str) -> list[tuple[str, str | None]]:
    """Claim what is due by these names; give the ids, and the name of each where it is not the workflow's."""
    given = log.claim("w1", now=10.0, lease_s=LEASE_S, limit=9, workflows=names)
    return [(each.id, each.claimed_as) for each in given]


@checks
class ClaimChecks(Contract):
    """Who is due, and who holds what."""

    # ------------------------------------------------ L10: who is due

    @cases("now, due", [(19.999, []), (20.0, ["a"]), (20.001, ["a"]), (1e18, ["a"])])
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

    @cases("by", ["turn", "mark"])
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

    @cases("status", OPEN)
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

    @cases("answer", ["turn", "mark", "post"])
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

    @cases("item", [new("b"), post("a"), Mark("a", Status.WAITING, wake=3.0)], ids=lambda i: type(i).__name__)
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

    @cases("limit", [0, 1, 3, 5, 10**20])
    def test_claim_limit(self, log: EventLog, limit: int) -> None:
        """L8: a claim gives at most its limit; the rest stays due."""
        ids = [f"e{n}" for n in range(5)]
        write(log, *[new(id) for id in ids])
        given = [each.id for each in log.claim("w1", now=10.0, lease_s=LEASE_S, limit=limit)]
        expect(given, ids[:limit])
        expect(claimed(log, "w2"), ids[limit:])

    @cases(
        "workflows, wanted",
        [
            (["v"], ["v1", "v2"]),
            (["w", "v"], ["v1", "v2", "w1"]),
            (["v", "w", "v"], ["v1", "v2", "w1"]),
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

    @cases("by", ["new", "creates", "opens"])
    def test_claimed_as(self, log: EventLog, by: str) -> None:
        """L8: an execution is claimed by the name it was given for that, whatever workflow it is of."""
        if by == "new":
            write(log, new(claimed_as="w 2"))
        elif by == "creates":
            write(log, new("parent", workflow="p", creates=[new(claimed_as="w 2")]))
        else:
            write(log, new(), turn("a", 1, "X", opens=records("Started", at=2.0), opens_as="w 2", wake=0.0))
        expect((standing(log).workflow, standing(log).claimed_as), ("w", "w 2"))
        expect([each.id for each in log.list(workflow="w").items], ["a"])
        for rewritten in (False, True):  # nothing but a turn that opens a run changes the name
            if rewritten:
                now = standing(log)
                again = turn("a", now.position, "Y", run=now.run, fence=now.fence, wake=0.0, consumes=[1])
                write(log, post(), again)
                write(log, Mark("a", Status.PARKED, wake=0.0))
            expect(claimed_by(log, "w", "w 1", "w 2 "), [])
            expect(claimed_by(log, "w", "w 2"), [("a", "w 2")])
            log.release("w1")
            write(log, Mark("a", Status.WAITING, wake=0.0))

    def test_claimed_as_reopened(self) -> None:
        """L8: the name that an execution is claimed by is kept."""
        self.needs(self.durable, "it is not durable")
        log = self.opened()
        write(log, new(claimed_as="w 2"), new("b"), new("c", claimed_as="w 2"))
        write(log, turn("c", 1, "X", opens=records("Started", at=2.0), opens_as="w 3", wake=0.0))
        log = self.reopened(log)
        expect([standing(log, id).claimed_as for id in "abc"], ["w 2", None, "w 3"])
        for name, id, claimed_as in (("w 3", "c", "w 3"), ("w 2", "a", "w 2"), ("w", "b", None)):
            expect(claimed_by(log, name), [(id, claimed_as)])
        log.close()

    def test_claimed_as_before(self, log: EventLog) -> None:
        """L8: a run that opens without a name is claimed by the workflow's, also by whoever holds it."""
        write(log, new(claimed_as="w 2"))
        expect(claimed_by(log, "w 2"), [("a", "w 2")])
        write(log, turn("a", 1, "X", fence=1, opens=records("Started", at=2.0), wake=0.0))
        expect(claimed_by(log, "w 2"), [])
        expect(claimed_by(log, "w"), [("a", None)])

    def test_claimed_as_is_not_asked_for(self, log: EventLog) -> None:
        """L9: a second start that would be claimed by another name is the same; the name stays."""
        write(log, new(claimed_as="w 2"))
        expect(write(log, new()), Receipt(created=False))
        expect(write(log, new(claimed_as="w 3")), Receipt(created=False))
        expect(claimed_by(log, "w", "w 2"), [("a", "w 2")])

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

    @cases("status", OPEN)
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

    def test_death_of_an_owner(self, log: EventLog) -> None:
        """L8: what was created for a worker is free when its lease has run out, and due at once if it was at first."""
        log.renew("w1", lease_s=SHORT_S)
        write(log, new(owner="w1"), new("b", owner="w1", wake=500.0))
        expect(claimed(log, "w2"), [], "the lease has not run out")
        self.advance(SHORT_S * 2)
        expect((claimed(log, "w2"), claimed(log, "w2", now=500.0)), (["a"], ["b"]))
        expect([standing(log, id).fence for id in "ab"], [2, 2])
        refused(log, turn("a", 1, "Zombie", fence=1), "stale")

    def test_owner_without_a_lease(self, log: EventLog) -> None:
        """L8: a worker that owns a new execution has a lease, though it has asked for none."""
        self.needs(type(self).advance is not Contract.advance, "needs advance(seconds)")
        write(log, new(owner="w1"))
        expect(claimed(log, "w2"), [], "L8: it belongs to w1")
        self.advance(3600.0)
        expect(claimed(log, "w2"), ["a"], "nobody has heard of w1 for an hour")

    @cases("how", ["turn", "mark", "new"])
    def test_running_and_nobodys(self, log: EventLog, how: str) -> None:
        """L10: what is RUNNING and in nobody's hand is due at once, until when it was to wait or not."""
        write(log, new())
        claimed(log, "w1")
        write(log, turn("a", 1, "X", fence=1, releases=True))
        expect(claimed(log, "w2"), [])
        writes: dict[str, Write] = {
            "turn": turn("a", 2, "Y", fence=1, status=Status.RUNNING, wake=500.0),
            "mark": Mark("a", Status.RUNNING),
            "new": new("b", status=Status.RUNNING, wake=None),
        }
        write(log, writes[how])
        expect(claimed(log, "w2"), ["b" if how == "new" else "a"])

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

    def test_others(self, log: EventLog) -> None:
        """L8: where a log says how many other workers there are, it counts those whose lease has not run out."""
        if not isinstance(log, Shared):
            return
        write(log, new())
        expect(log.others("w1"), 0)
        claimed(log, "w1")
        log.renew("w2", lease_s=SHORT_S)
        expect([log.others(worker) for worker in ("w1", "w2", "w3")], [1, 1, 2])
        self.advance(SHORT_S * 2)
        expect([log.others(worker) for worker in ("w1", "w2", "w3")], [0, 1, 1])
        log.close()
        with raising(StoreFailed):
            log.others("w1")

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

    @cases("status", [*OPEN, *ENDED])
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

    @cases("how", ["release", "turn", "mark"])
    @cases("status", [Status.RUNNING, Status.WAITING])
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
        self.needs(self.durable or self.shared, "it goes with its only opener")
        log = self.opened()
        write(log, new(), new("b", owner="w2"))
        claimed(log, "w1")
        log = self.reopened(log)
        expect([standing(log, id).owner for id in "ab"], [None, None])
        expect(log.acquire("w3", "b", lease_s=LEASE_S) is not None, True)
        expect(claimed(log, "w3")[:1], ["a"])
        log.close()
