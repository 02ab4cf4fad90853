"""Checks of a store. What goes along with a turn, batches, and messages."""

from __future__ import annotations

import itertools
from functools import partial

from zart_core.events import CLOSED, Ok, Status
from zart_core.log import EventLog, Mark, Message, MessageKind, Post, Receipt, Record, Rejected
from zart_core.testing.contract_base import Contract
from zart_core.testing.contract_report import cases, checks
from zart_core.testing.contract_writes import (
    claimed,
    expect,
    new,
    post,
    receipts,
    records,
    refused,
    standing,
    state,
    together,
    turn,
    write,
)


@checks
class MessageChecks(Contract):
    """What goes along with a turn, batches, and messages."""

    # ------------------------------------------------ L1: what goes along with a turn

    @cases("status", [Status.CONTINUED, Status.RUNNING, Status.WAITING])
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

    @cases("digest", ["d", "e"])
    def test_creates_what_comes_twice(self, log: EventLog, digest: str) -> None:
        """L5, L9: of an id that comes twice in a turn the first is created; what is not takes nothing along."""
        write(log, new())
        twice = [new("b", creates=[new("d", records=records("In b"))]), new("d", records=records("After b"))]
        unborn = new("b", digest=digest, creates=[new("c", records=records("In none"))], posts=[post("b")])
        others = [*twice, unborn, new("c", records=records("Its own"))]
        receipt = write(log, turn("a", 1, "X", creates=others))
        expect(list(receipt.conflicts), [] if digest == "d" else ["b"])
        wanted = {"b": ["Started"], "c": ["Its own"], "d": ["In b"]}
        expect({id: [record.kind for record in log.records(id)] for id in wanted}, wanted)
        expect(log.inbox("b"), [])
        log.verify()

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

    @cases("kind", ["event", "child", "cancel", "terminate"])
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
