"""The EventLog protocol: what a store promises, and the records that cross the boundary.

A store is dumb: it keeps records, finds who needs attention, and takes no decision of its own. It never looks
into `Record.data` or `Post.payload`. It is synchronous and may be called from several threads; hosts put it on a
thread of its own when `blocking` is True. The promises, each with checks in `zart_core.testing.StoreContract`:

L1  `append` is atomic for each write of the batch: a turn's records, the messages it consumes, its next wake time,
    the run it opens, the executions it creates and the messages it posts, all or nothing.
L2  a turn is conditional on (execution, run, position, fence); a stale one is `Rejected`, under the lock of the write.
L3  each write's outcome is `Ok`, `Rejected` (nothing is written, now or later) or `Unknown` (either; read back).
L4  acknowledged means durable at the store's `level`; a store that cannot get the level it promises refuses to open.
L5  what is read is a gap-free prefix of what was appended, byte for byte, and never changes.
L6  a batch of many executions' writes is one commit, and each write has an outcome of its own: one that is Rejected
    does not hinder the others. Writes of a batch take effect in order.
L7  a message is delivered once, in order per sender, and consumed in the same commit as the turn that uses it.
L8  `claim` gives an execution to one worker at a time, for a lease, with a fence that only grows.
L9  `New` is idempotent by id and tells whether it created.
L10 who is due is found in O(log n), never by a scan; `wait` blocks on a notification where there is one.
L11 ids, names, keys and payloads may be hostile: any printable text, quotes, separators, 1 MiB of bytes.
L12 damage is reported (`LogCorrupt`), never skipped, never repaired silently.
L13 status, reason and build of an execution can be set without an append (`Mark`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Generic, Literal, Protocol, TypeAlias, TypeVar, runtime_checkable

import msgspec

from zart_core.events import Ok, Status
from zart_core.records import record, stored_record

Level: TypeAlias = Literal["power", "process", "none"]
MessageKind: TypeAlias = Literal["event", "child", "cancel", "terminate"]
T_co = TypeVar("T_co", covariant=True)

PAYLOAD_BYTES_MAX = 1 << 20
"""The largest payload of one record or message, in bytes (F19)."""
RECORD_BYTES_MAX = PAYLOAD_BYTES_MAX + (64 << 10)
"""The largest `Record.data`, in bytes: a payload and what its event wraps around it."""
ID_CHARS_MAX = 255
"""The longest execution id, in characters."""
TRANSACTION_S = 5.0
"""How long a step may use its transaction, in seconds, when it does not ask for more or less."""


class Record(msgspec.Struct, frozen=True, gc=False):
    """One event at rest. Its position in a run is counted from 0.

    A struct, not an attrs class: it takes a third of the time to make, and the garbage collector need not look at the
    thousands of them that a run is read in.
    """

    kind: str
    at: float
    data: bytes


@stored_record
class New:
    """Create an execution, with the first records of run 0 (L9).

    The id is free: it is created (`Receipt.created`). The id is taken with the same workflow and digest:
    Ok, and nothing changes. Taken by anything else: Rejected("conflict ...").
    """

    id: str
    workflow: str
    digest: str
    records: Sequence[Record]
    at: float
    status: Status = Status.SCHEDULED
    wake: float | None = 0.0
    """When it is next due by time, in seconds since the epoch; None for never; 0.0 for at once."""
    owner: str | None = None
    """A worker that takes it at once, with fence 1; None leaves it to be claimed. It counts as given when its wake time
    has come at `at`, and is given to its owner in a claim when not. An owner without a lease gets one (L8)."""
    creates: Sequence[New] = ()
    """Executions that are created in the same commit, if this one is."""
    posts: Sequence[Post] = ()
    """Messages that are posted in the same commit, if this one is created. Those to unknown or ended executions are
    dropped."""
    claimed_as: str | None = None
    """The name that workers claim it by; None for the workflow's. Hosts name by it who can run an execution, where the
    workflow does not tell: which version of it is wanted. It is no part of what makes a second start the same."""


@stored_record
class Post:
    """Deliver a message to an execution (L7).

    The payload of a `child` message is a record's data, and may be as large; that of any other is 1 MiB at the most.
    Unknown id: Rejected("unknown ..."); the execution has ended: Rejected("closed ..."). A key that this execution has
    seen before, consumed or not: Ok with `Receipt.created` False, and nothing changes (R14). Otherwise the execution
    becomes due at once, parked or not.
    """

    id: str
    kind: MessageKind
    name: str
    payload: bytes
    at: float
    key: str | None = None


@stored_record
class Turn:
    """One atomic append to a run (L1), conditional on position and fence (L2)."""

    id: str
    run: int
    position: int
    """How many records the run has before this turn."""
    fence: int
    records: Sequence[Record]
    at: float
    status: Status
    """The execution's status after this turn. A closed one makes it final (I7), except that a turn that `opens` a run
    goes on; `RUNNING` says that steps are in flight, so that it is due at once should the worker die, or where nobody
    holds it."""
    wake: float | None = None
    """When it is next due by time; an unconsumed message numbered above `seen` makes it due at once all the same."""
    seen: int = 0
    """The greatest message number that the host had read when it built the turn."""
    consumes: Sequence[int] = ()
    """Numbers of inbox messages that this turn used; they are gone with it. It is stale when one was gone before."""
    opens: Sequence[Record] | None = None
    """The first records of the execution's next run, `run + 1`, at position 0; the inbox stays with the execution.
    A closed `status` beside it is the old run's: the execution is then SCHEDULED."""
    creates: Sequence[New] = ()
    """Executions to create. One whose id is taken is left out and its id listed in `Receipt.conflicts`,
    unless it is the very same (workflow and digest); the turn goes through all the same."""
    posts: Sequence[Post] = ()
    """Messages to others; those to unknown or ended executions are dropped. The turn goes through all the same."""
    releases: bool = False
    """Give the claim back in the same commit (the fence stays as it is). A turn that closes always does."""
    opens_as: str | None = None
    """The name that workers claim the execution by from the run on that it opens (see `New.claimed_as`)."""


@stored_record
class Mark:
    """Set what stands beside the log (L13): no record is written, the position does not move.

    Rejected if the execution is unknown or has ended, or if `fence` is given and is not the current one. Reason and
    build stay as long as the status does: a turn with another status clears them. A closed status is InvalidUse.
    """

    id: str
    status: Status
    reason: str = ""
    build: str = ""
    wake: float | None = None
    seen: int = 0
    fence: int | None = None
    releases: bool = False


Write: TypeAlias = New | Post | Turn | Mark


@stored_record
class Receipt:
    """What an acknowledged write did."""

    created: bool = True
    """False for a `New` that existed, and for a `Post` whose key had been seen."""
    number: int = 0
    """A message's number in its execution's inbox, from 1 and growing, and for a key that had been seen that of the
    message which brought it; for a `New`, the run it now stands at."""
    fence: int = 0
    """For a `New` with an owner: the fence it holds (0 when it did not get it)."""
    conflicts: Sequence[str] = ()
    """Ids in `Turn.creates` that were taken by something else."""


@record
class Rejected:
    """Nothing was written, now or later. The reason begins with one word: stale, unknown, closed, conflict, full,
    too-large, unavailable (locked or out of reach, try later), damaged (reading the execution will say more), invalid
    (what a step wrote in its transaction cannot be committed).
    """

    reason: str


@record
class Unknown:
    """It may be in the log or not: read back."""

    reason: str


Appended: TypeAlias = Ok[Receipt] | Rejected | Unknown


@stored_record
class Message:
    """A message in an execution's inbox."""

    number: int
    kind: MessageKind
    name: str
    payload: bytes
    at: float
    key: str | None = None


@record
class Summary:
    """An execution as a list shows it."""

    id: str
    workflow: str
    digest: str
    status: Status
    run: int
    position: int
    """Number of records in the current run."""
    fence: int
    created_at: float
    updated_at: float
    wake: float | None
    owner: str | None
    reason: str = ""
    """Why it is parked or paused; of one that is `RUNNING`, what its steps say of their progress."""
    build: str = ""
    unread: int = 0
    """Messages in the inbox that no turn has consumed."""
    claimed_as: str | None = None
    """The name that workers claim it by; None for the workflow's."""

    @property
    def claim_name(self) -> str:
        """The name that workers claim it by."""
        return self.workflow if self.claimed_as is None else self.claimed_as


@record
class Salvaged:
    """What was brought out of a damaged store, and what was not."""

    writes: int
    """Whole writes that are in the new store."""
    executions: int
    records: int
    damage: str | None
    """Where the first damage is, what was expected and found; None when the store is whole."""
    lost_bytes: int
    """From the first damage on."""
    lost_writes: Mapping[str, int]
    """Whole writes behind the damage, which were not brought over, by the execution they are for."""


@record
class Page(Generic[T_co]):
    """Part of a list; `next` continues it, as `after=`."""

    items: Sequence[T_co]
    next: str | None


@runtime_checkable
class EventLog(Protocol):
    """Where executions are kept. See the module's text for what each promise means.

    What cannot be read or claimed at the moment raises StoreUnavailable, which hosts take for weather (F6, F8).
    """

    @property
    def level(self) -> Level:
        """What an acknowledged write survives (L4)."""
        ...

    @property
    def blocking(self) -> bool:
        """True when calls may wait for a disk or a network, so that an event loop must not make them."""
        ...

    def append(self, batch: Sequence[Write]) -> list[Appended]:
        """Write a batch in one commit, in order; one outcome for each (L1, L2, L3, L6).

        An error of the store (disk full, lock timeout) becomes Rejected or Unknown for each write it concerns;
        `StoreFailed` is raised only when the store can no longer be used. Raises InvalidUse, before anything of the
        batch is written, for what no store keeps: a time that is not finite, an id that is not 1 to ID_CHARS_MAX
        printable characters, another name (workflow, digest, owner, kind, message, key) that is empty or not
        printable (F22).
        """
        ...

    def summary(self, id: str) -> Summary | None:
        """One execution, or None."""
        ...

    def records(self, id: str, run: int | None = None, start: int = 0) -> list[Record]:
        """The records of a run (the current one by default) from position `start` on; empty when there are none (L5).

        Raises LogCorrupt when what is stored does not verify.
        """
        ...

    def inbox(self, id: str, after: int = 0) -> list[Message]:
        """The messages numbered above `after` that are not consumed yet, in order (L7)."""
        ...

    def claim(
        self, worker: str, *, now: float, lease_s: float, limit: int, workflows: Collection[str] | None = None
    ) -> list[Summary]:
        """Take executions that are due and free; the fence of each has grown (L8, L10).

        Due is one whose wake time has come (wake <= now), or that has messages nobody has looked at (see `Turn.seen`).
        One that this worker holds already is given again, with the same fence, when it is due. Being given makes an
        execution not due until its next `Turn`, `Mark` or `Post`. Parked ones are given too; paused, ended ones never.
        When a holder's lease has run out, or it is known to be dead, what it held is free; what was `RUNNING`, or given
        and not answered by a turn or a mark yet, is due at once. `workflows` limits it to what is claimed by these
        names (see `New.claimed_as`).
        A claim also renews the worker's lease. Leases run by a clock of the store's own, whatever `now` says (F13).
        """
        ...

    def acquire(self, worker: str, id: str, *, lease_s: float) -> Summary | None:
        """Take one execution by id, due or not; None when it is unknown, ended or held by another live worker.

        It is not given by that: a claim of the holder's gives it when it is due.
        """
        ...

    def renew(self, worker: str, *, lease_s: float) -> bool:
        """Extend the worker's lease on all it holds; False, once, when it had run out and something was taken away."""
        ...

    def release(self, worker: str, ids: Collection[str] | None = None) -> None:
        """Give claims back (all by default). What is `RUNNING` is then due at once; other wake times stay."""
        ...

    def next_wake(self) -> float | None:
        """When the next execution is due by time, whoever holds it; 0.0 for at once, None when none will be."""
        ...

    def wait(self, timeout_s: float) -> bool:
        """Block until somebody wrote something that may make an execution due, or the timeout passes (False).

        What was written after the last claim through this object ends it at once; a claim itself is no news.
        """
        ...

    def list(
        self,
        *,
        status: Status | None = None,
        workflow: str | None = None,
        id_prefix: str | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> Page[Summary]:
        """Executions in the order of their ids; a page at a time. One that is damaged is reported and may be left out:
        it keeps nobody from finding the others (I8). Raises InvalidUse for a limit below 1.
        """
        ...

    def stats(self) -> Mapping[Status, int]:
        """How many executions stand where; statuses with none may be left out."""
        ...

    def verify(self) -> Mapping[str, int]:
        """Read everything and check it; how many `executions`, `records` and `messages` there are.

        Raises LogCorrupt at the first damage (L12).
        """
        ...

    def close(self) -> None:
        """Release claims of this store object's workers, owners of new executions too, and everything it holds open.

        Twice is once; every other call then raises StoreFailed. In a child that was forked an open log is refused, too,
        and waits for no lock of the parent's (F12).
        """
        ...


@runtime_checkable
class Shared(Protocol):
    """What a log may offer beside the protocol, when several workers can use it at once."""

    def others(self, worker: str) -> int:
        """How many workers but this one hold a lease now: whether somebody might take what finds no room here."""
        ...


@runtime_checkable
class Examinable(Protocol):
    """What a log may offer beside the protocol: its settings, as they read back now, for `zart doctor`."""

    def settings(self) -> Mapping[str, str | int]:
        """Name each setting that matters for what the log promises, with its value as found."""
        ...


class Transaction(Protocol):
    """A transaction on the log's own database that a step writes in, and that records its outcome. For any thread."""

    @property
    def connection(self) -> Any:
        """What the step works with, the driver's own. It can neither commit nor roll back."""
        ...

    def seal(self) -> None:
        """The step has returned: refuse it the connection from now on. No limit runs any more.

        Raises InvalidUse when nothing can be committed any more: it was rolled back, or ended by the step itself.
        """
        ...

    def commit(self, batch: Sequence[Write]) -> list[Appended]:
        """Commit what the step wrote together with a batch, and end it; one outcome for each write.

        All or nothing: unless every write is Ok nothing is there, neither theirs nor the step's; or it is Unknown.
        """
        ...

    def roll_back(self, why: str) -> None:
        """End it and undo what the step wrote, unless it has ended; who uses the connection yet is told why.

        A statement that is under way is interrupted.
        """
        ...

    def is_weather(self, error: BaseException) -> bool:
        """Whether what a step raised says no more than that its transaction should be tried again (F17)."""
        ...


@runtime_checkable
class Transactional(Protocol):
    """What a log in a database may offer beside the protocol: its writes in one commit with those of a user."""

    def create_within(self, connection: Any, new: New) -> Appended:
        """Create an execution in the transaction that is open on the user's own connection; nobody owns it.

        It is there when they commit, and never if they roll back (L1); who looks for work finds it then (L10). When it
        is not Ok their transaction goes on as if nothing had been asked. Raises InvalidUse for a connection that has no
        transaction to write in, or is one to another database.
        """
        ...

    def begin(self, *, limit_s: float) -> Transaction:
        """Begin a transaction for a step, which is rolled back if it is not sealed after so many seconds.

        Raises InvalidUse for a limit that the log cannot grant, StoreUnavailable.
        """
        ...
