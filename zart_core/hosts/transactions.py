"""Transactions in which users and the log write together.

Rule 1: an outcome whose step wrote in a transaction is committed by that transaction, or it is not kept.
Rule 2: a turn holds one such outcome at most; for the others it is as if they still ran.
Rule 3: whatever else ends an attempt rolls its transaction back.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs

from zart_core import log as stored
from zart_core.errors import InvalidUse, StoreFailed, StoreUnavailable, Weather
from zart_core.events import Done, Ok, Resolved
from zart_core.hosts.inline import conflict
from zart_core.hosts.live import NO_THREAD_S, UNWANTED, Attempt, Live

if TYPE_CHECKING:
    from zart_core.hosts.engine import AsyncEngine

ROLLED_BACK = "its transaction came to nothing, and with it what it wrote there"
"""Why a step that may run once only is lost."""
TRIES_MAX = 8
"""How often an attempt is made again in a row because of the weather of its transaction."""
LOGGER = logging.getLogger("zart.engine")


def transactional(log: stored.EventLog) -> stored.Transactional:
    """The log as one that shares its transactions. Raises InvalidUse when it has none."""
    if not isinstance(log, stored.Transactional):
        raise InvalidUse(
            f"the store ({type(log).__name__}) has no transactions to share; "
            "keep the log in SQLite or PostgreSQL, in the database of the tables that are to go with it"
        )
    return log


def create_within(log: stored.EventLog, connection: Any, new: stored.New) -> bool:
    """Create an execution in the transaction that is open on a connection; False when this very one is there (R15).

    Raises ExecutionConflict, InvalidUse, StoreUnavailable; the transaction can go on then, unless it says otherwise.
    """
    match transactional(log).create_within(connection, new):
        case Ok(receipt):
            return receipt.created
        case stored.Rejected(reason) if reason.startswith("conflict"):
            raise conflict(new.id)
        case stored.Rejected(reason) if reason.startswith(("too-large", "invalid")):
            raise InvalidUse(f"execution '{new.id}' cannot be created: {reason}")
        case stored.Rejected(reason) | stored.Unknown(reason):
            raise StoreUnavailable(f"execution '{new.id}' was not created: {reason}")


class Lent:
    """What one attempt of a step may ask a transaction of. For any thread."""

    __slots__ = ("asked", "cloud", "lock", "log", "over", "transaction", "weather")

    def __init__(self, log: stored.EventLog) -> None:
        self.log = log
        self.lock = threading.Lock()
        self.transaction: stored.Transaction | None = None
        self.asked = False
        self.over = ""
        """Why none is to be had any more."""
        self.cloud: Weather | None = None
        """What went wrong when it was begun or sealed, if it was the weather."""
        self.weather = False
        """Whether the attempt ended for no other reason than that its transaction should be tried again."""

    def ask(self, limit_s: float) -> Any:
        """Give the connection, with a transaction begun. In the step's thread. Raises InvalidUse, StoreUnavailable."""
        self.asked = True
        with self.lock:
            if self.over:
                raise InvalidUse(f"there is no transaction to be had: {self.over}")
            if self.transaction is None:
                with self.noting_weather():
                    self.transaction = transactional(self.log).begin(limit_s=limit_s)
            return self.transaction.connection

    def seal(self) -> None:
        """The step has returned. Raises InvalidUse when what it wrote cannot be committed any more."""
        if not self.asked:
            return
        with self.lock:
            if self.over:
                raise InvalidUse(f"what the step wrote was rolled back: {self.over}")
            if self.transaction is not None:  # else it could not begin, and the step went on
                with self.noting_weather():
                    self.transaction.seal()

    @contextlib.contextmanager
    def noting_weather(self) -> Generator[None]:
        """Know the store's own weather again when it comes out of the step."""
        try:
            yield
        except Weather as weather:
            self.cloud = weather
            raise

    def fail(self, error: BaseException) -> None:
        """The step raised this: roll back."""
        if not self.asked:
            return
        with self.lock:
            began = self.transaction
            self.weather = error is self.cloud or (began is not None and began.is_weather(error))
        self.end("its step raised an error")

    def end(self, why: str) -> None:
        """Roll back what is not committed; no other is begun. May block. Twice is once."""
        with self.lock:
            self.over = self.over or why
            transaction, self.transaction = self.transaction, None
        if transaction is not None:
            transaction.roll_back(why)

    def commit(self, writes: Sequence[stored.Write]) -> list[stored.Appended]:
        """Commit a turn together with what the step wrote. May block."""
        with self.lock:
            transaction, self.transaction = self.transaction, None
        if transaction is None:
            return [stored.Rejected(f"unavailable: {self.over}") for _ in writes]
        return transaction.commit(writes)


@attrs.define
class Pending:
    """An attempt that has returned, and whose transaction the next turn of its execution commits."""

    live: Live
    attempt: Attempt
    committing: bool = False


class Transactions:
    """The transactions of an engine's steps, from the return of the step to the commit of its turn."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.pending: dict[str, Pending] = {}
        """At most one for each execution."""
        self.queues: dict[str, deque[tuple[Live, Attempt, Any]]] = {}
        """Attempts of the same execution that have returned meanwhile, and what they returned."""
        self.tries: dict[str, Counter[tuple[int, int]]] = {}
        """How often in a row attempts were made again because of their transactions: by execution, then run and seq."""

    def returned(self, live: Live, attempt: Attempt, value: Any) -> None:
        """An attempt with a transaction has returned: its outcome goes into the next turn, which it commits."""
        id = live.run.id
        if live.calls.get(attempt.call.seq) is not attempt or is_void(attempt):
            self.end(attempt)
            self.forgo(live, attempt)
            if id not in self.pending:
                self.next(id)
        elif id in self.pending:
            self.queues.setdefault(id, deque()).append((live, attempt, value))
        else:
            self.pending[id] = Pending(live, attempt)
            self.engine.attempts.finished(
                live, attempt, lambda now: live.run.returned(attempt.call, value, now)
            )

    def is_to_be_repeated(self, live: Live, attempt: Attempt) -> bool:
        """Whether an attempt that raised did so because of its transaction's weather, and has tries left."""
        if attempt.lent is None or not attempt.lent.weather or self.again(live, attempt) > TRIES_MAX:
            self.done(live, attempt)
            return False
        return True

    def again(self, live: Live, attempt: Attempt) -> int:
        """It is to be made again: how often in a row."""
        tries = self.tries.setdefault(live.run.id, Counter())
        key = (live.run.run, attempt.call.seq)
        tries[key] += 1
        return tries[key]

    def done(self, live: Live, attempt: Attempt) -> None:
        """It need not be made again."""
        tries = self.tries.get(live.run.id)
        if tries is not None:
            tries.pop((live.run.run, attempt.call.seq), None)
            if not tries:
                del self.tries[live.run.id]

    def forgo(self, live: Live, attempt: Attempt) -> None:
        """Its transaction was rolled back from outside: it has neither given a value nor failed (Rule 3).

        An engine that closes gives it back with what still runs. Else the turn that ends it is being written, and where
        that comes to nothing it is made again.
        """
        if self.engine.closing:
            return
        if attempt.call.seq in live.run.ends:
            self.engine.attempts.finished(
                live, attempt, lambda now: live.run.lose(attempt.call, now, ROLLED_BACK)
            )
        else:
            self.repeat(live, attempt, StoreUnavailable(UNWANTED))

    def repeat(self, live: Live, attempt: Attempt, error: BaseException) -> None:
        """Run it again, once its execution is read back: nothing of this attempt has happened."""
        if live.calls.get(attempt.call.seq) is attempt:
            self.engine.attempts.finished(
                live, attempt, lambda now: live.run.lose(attempt.call, now, ROLLED_BACK)
            )
            live.lapsed = True  # so that it is read back after a turn that may be under way
            self.engine.recovery.start(live, f"the transaction of a step: {type(error).__name__}")

    def end(self, attempt: Attempt) -> None:
        """Roll back what an attempt may have written, away from the loop; it can ask for nothing any more."""
        lent = attempt.lent
        if lent is None:
            return
        lent.over = lent.over or UNWANTED
        if lent.asked:
            try:
                self.engine.readers.submit(lent.end, UNWANTED)
            except RuntimeError as error:
                self.later(error, self.end, attempt)

    def commit(self, live: Live, writes: Sequence[stored.Write]) -> bool:
        """Hand a turn to the transaction that is to commit it; False when the turn does not hold its outcome."""
        pending = self.pending[live.run.id]
        if pending.live is not live or not records_result(live, pending.attempt):
            self.give_up(live.run.id)
            return False
        pending.committing = True
        self.hand_over(pending, writes)
        return True

    def hand_over(self, pending: Pending, writes: Sequence[stored.Write]) -> None:
        """Have a thread commit a turn, as soon as there is one."""
        lent = pending.attempt.lent
        assert lent is not None
        try:
            future = self.engine.readers.submit(lent.commit, writes)
        except RuntimeError as error:
            self.later(error, self.hand_over, pending, writes)
            return

        def back(future: concurrent.futures.Future[list[stored.Appended]]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is gone, and who wanted to know with it
                self.engine.loop.call_soon_threadsafe(self.committed, pending, future, len(writes))

        future.add_done_callback(back)

    def later(self, why: RuntimeError, work: Callable[..., None], *arguments: Any) -> None:
        """The machine has no more threads: try again. Once the engine has closed, its log ends what is left."""
        if not self.engine.closed.is_set():
            LOGGER.warning("a step's transaction waits for a thread: %s", why)
            self.engine.loop.call_later(NO_THREAD_S, work, *arguments)

    def is_committing(self, id: str) -> bool:
        """Whether a turn of an execution is being committed past the line of the writer."""
        pending = self.pending.get(id)
        return pending is not None and pending.committing

    def committed(
        self, pending: Pending, future: concurrent.futures.Future[list[stored.Appended]], count: int
    ) -> None:
        """The outcome of a turn and its transaction: where it is not Ok, the step's is not kept (Rule 1)."""
        live, call = pending.live, pending.attempt.call
        outcomes = self.outcomes_of(future, count)
        self.pending.pop(live.run.id, None)
        is_there = all(isinstance(outcome, Ok) for outcome in outcomes)
        if is_there:
            self.done(live, pending.attempt)
        else:  # what does not pass would otherwise be tried at once each time: the turn that begins it again passes
            live.tries = self.again(live, pending.attempt)
        self.engine.pump.written(live, outcomes)
        self.engine.heartbeats.overtake(live)
        if not is_there:
            live.run.unearn(call.seq)
            live.run.lose(call, self.engine.clock.now(), ROLLED_BACK)
        self.next(live.run.id)

    def outcomes_of(
        self, future: concurrent.futures.Future[list[stored.Appended]], count: int
    ) -> list[stored.Appended]:
        """What became of each write."""
        error = future.exception()
        if error is None:
            return future.result()
        if isinstance(error, InvalidUse):
            return [stored.Rejected(f"invalid: {error}")] * count
        if isinstance(error, StoreFailed):
            self.engine.writer.failed = error
        return [stored.Unknown(f"{type(error).__name__}: {error}")] * count

    def give_up(self, id: str) -> None:
        """Nothing records the outcome that is pending: roll back, and let the next one come."""
        pending = self.pending.get(id)
        if pending is not None and not pending.committing:
            del self.pending[id]
            pending.live.run.unearn(pending.attempt.call.seq)
            self.end(pending.attempt)
            self.next(id)

    def take_back(self, live: Live) -> None:
        """The turn that was to record the outcome cannot be built: roll back, and make the attempt again (Rule 1)."""
        pending = self.pending.get(live.run.id)
        if pending is not None and not pending.committing:
            live.tries = self.again(live, pending.attempt)  # the turn that begins it again passes
            self.give_up(live.run.id)
            live.run.lose(pending.attempt.call, self.engine.clock.now(), ROLLED_BACK)

    def next(self, id: str) -> None:
        """Take the next one of an execution that has returned."""
        queue = self.queues.pop(id, None)
        if queue:
            first = queue.popleft()
            if queue:
                self.queues[id] = queue
            self.engine.loop.call_soon(self.returned, *first)

    async def end_running(self) -> None:
        """Roll back what attempts have written that are still running, before the engine writes its last.

        Who has not asked for a transaction gets none from now on: nobody would commit it, nor end it in time.
        """
        for live in list(self.engine.live.values()):
            for attempt in list(live.calls.values()):
                lent = attempt.lent
                if lent is not None:
                    lent.over = lent.over or UNWANTED
                if lent is not None and lent.asked:
                    await self.engine.off_loop(partial(lent.end, UNWANTED), waits=False)

    async def end_pending(self) -> None:
        """Roll back what has returned and no turn commits any more: the engine closes, and its log may stay open."""
        for id, pending in list(self.pending.items()):
            lent = pending.attempt.lent
            if not pending.committing and lent is not None:
                del self.pending[id]
                pending.live.run.unearn(pending.attempt.call.seq)
                await self.engine.off_loop(partial(lent.end, UNWANTED), waits=False)


def is_void(attempt: Attempt) -> bool:
    """Whether its transaction was rolled back from outside: what the attempt came to is of no account."""
    lent = attempt.lent
    return lent is not None and lent.asked and lent.over == UNWANTED


def records_result(live: Live, attempt: Attempt) -> bool:
    """Whether the turn that is being built records the value that an attempt has returned."""
    seq = attempt.call.seq
    return any(
        isinstance(event, Resolved) and event.seq == seq and isinstance(event.outcome, Done)
        for event in live.run.events
    )
