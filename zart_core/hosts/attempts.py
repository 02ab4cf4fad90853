"""Attempts of steps: who may begin one, how it runs, and how it ends.

Rule 1: a slot is taken in the turn that begins an attempt, and given back when the attempt has ended or is given up.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import copy
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from multiprocessing.reduction import ForkingPickler
from typing import TYPE_CHECKING, Any

from zart_core.context import SCENE, Context, Scene
from zart_core.empties import put
from zart_core.errors import Cancelled, Defect, text_of
from zart_core.hosts.live import NO_THREAD_S, Attempt, Live
from zart_core.hosts.ports import Part, StepCall
from zart_core.hosts.transactions import Lent, is_void
from zart_core.hosts.turns import Run

if TYPE_CHECKING:
    from zart_core.hosts.engine import AsyncEngine

FAIR_S = 0.5
"""How long an execution may wait in line for a slot while others go on from step to step."""
CLOSE_GRACE_S = 0.4
"""How long running attempts get to end when the engine closes."""
EXECUTORS = (concurrent.futures.ThreadPoolExecutor, concurrent.futures.ProcessPoolExecutor)
"""Those that never begin what they say was cancelled."""
OWN = "raised_by_step"
"""What stands in a BrokenExecutor that a step raised itself, which is an answer: it goes with it between processes."""
LOGGER = logging.getLogger("zart.engine")


class Attempts:
    """Runs attempts for an engine: async ones on its loop, sync ones in an executor (R11)."""

    def __init__(self, engine: AsyncEngine, executor: concurrent.futures.Executor | None, slots: int) -> None:
        self.engine = engine
        self.executor = executor or engine.threads.executor("zart-step")
        self.owns_executor = executor is None
        self.slots = self.slots_max = slots
        self.hungry: deque[Live] = deque()
        self.running = 0
        """How many attempts run."""
        self.lapses = 0
        """How often attempts were stopped, or not started, because the lease may have run out."""
        self.mending = False
        """Whether it is looked at whether an executor that broke works again."""
        self.breaks = 0
        """How many attempts it broke with, wanted or not: of several it is not known whose doing it was."""
        self.sure = False
        """Whether the engine has outlived that, and so is not being stopped with all of its processes."""
        self.leases = 0
        """How often it was noticed that the lease may have run out: what was asked before that may be another's."""

    async def end_all(self) -> None:
        """Give running attempts a moment to end: async ones are cancelled, outcomes that come in still count.

        What an executor has not begun yet never begins.
        """
        attempts = [attempt for live in self.engine.live.values() for attempt in live.calls.values()]
        for attempt in attempts:
            attempt.told = True
            if attempt.task is not None:
                attempt.task.cancel()
        ends: list[asyncio.Future[Any]] = [attempt.task for attempt in attempts if attempt.task is not None]
        futures = [
            attempt.future
            for attempt in attempts
            if attempt.future is not None and not attempt.future.cancel()
        ]
        wrapped = [asyncio.wrap_future(future, loop=self.engine.loop) for future in futures]
        for future in wrapped:  # what it raises is reported by its own callback
            future.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        ends += wrapped
        if ends:
            await asyncio.wait(ends, timeout=CLOSE_GRACE_S)
            await asyncio.sleep(0)

    def unbegun(self, live: Live) -> list[int]:
        """What is on record as begun, and surely never will be here: as `end_all` has left it."""
        return [seq for seq in live.run.running if self.is_unbegun(live.calls.get(seq))]

    def is_unbegun(self, attempt: Attempt | None) -> bool:
        """Whether its function was not called and never will be: it found no thread, or was cancelled before.

        A task that had begun would have taken note of that.
        """
        if attempt is None:
            return True
        run = attempt.task or attempt.future
        return run is None or (run.cancelled() and (attempt.task is not None or self.is_near))

    @property
    def is_near(self) -> bool:
        """Whether the executor never begins what it has cancelled, which one of other machines may have begun."""
        return self.owns_executor or isinstance(self.executor, EXECUTORS)

    def feed(self) -> None:
        """There are slots again: everything in line may ask for one."""
        hungry, self.hungry = self.hungry, deque()
        for live in hungry:
            live.hungry = False
            self.engine.pump.kick(live)

    def begin(self, run: Run, now: float, overflow: int = 0) -> None:
        """Begin in the turn of a run what may begin now; while a suspect is watched, that is it and nothing else.

        Up to `overflow` steps that find no slot here are offered to others.
        """
        market = self.engine.sharing
        limits = self.engine.limits
        limiter = limits if limits.lines or market.has_foreign else None
        watched = self.engine.suspects.watched
        if self.engine.opening or (watched is not None and watched[0] != run.id):
            run.begin(0, now, market=market, limiter=limiter)
        else:
            only = None if watched is None else watched[1]
            self.slots -= run.begin(self.slots, now, only, market, overflow, limiter)

    def give_slots(self, count: int) -> None:
        """Attempts that were to begin do not."""
        if count:
            self.slots += count
            self.feed()

    def start(self, live: Live, call: StepCall) -> None:
        """Run one attempt."""
        attempt = Attempt(call)
        live.calls = put(live.calls, call.seq, attempt)
        self.running += 1
        part = self.engine.cast(call)
        if part.is_async:
            attempt.task = self.engine.loop.create_task(self.run_async(live, attempt, part))
        else:
            self.run_sync(live, attempt, part)

    def hold_back(self, live: Live, calls: Sequence[StepCall]) -> None:
        """The lease may have run out: what was to begin does not, until it is known whose the execution is (F24)."""
        for call in calls:
            live.run.running.pop(call.seq, None)
        self.engine.limits.settle(live)
        self.give_slots(len(calls))
        self.lapses += 1
        live.lapsed = True

    def lapse(self) -> None:
        """The lease may run out, or has: stop what runs, and read back whatever is under way (F24).

        An attempt that may run once only is lost if it has begun, others run again. What is idle is read back when it
        is due: the log may have made it nobody's, and takes its turn all the same.
        """
        self.leases += 1
        for live in list(self.engine.live.values()):
            live.lapsed = True
            attempts = list(live.calls.values())
            for attempt in attempts:
                if attempt.broke:  # it does not run, and is a suspect all the same
                    continue
                self.abandon(live, attempt.call.seq)
                if not self.is_unbegun(attempt):
                    live.run.lose(attempt.call, self.engine.clock.now())
                self.lapses += 1
            if attempts:
                self.engine.recovery.start(live, "the lease may have run out")
        self.engine.limits.stirred.set()

    async def run_async(self, live: Live, attempt: Attempt, part: Part) -> None:
        """An attempt of an async step, on the loop."""
        call = attempt.call
        heartbeat = partial(self.engine.heartbeats.beat, live, attempt)
        SCENE.set(Scene(lambda: call.context, self.engine.resources, heartbeat=heartbeat))
        limit: asyncio.Timeout | None = None
        try:
            if (
                call.attempt_until is None
            ):  # as a rule: a limit without an end takes as long as the rest of this
                value = await part.call(call.values)
            else:
                async with (limit := self.limited(live, attempt)):
                    value = await part.call(call.values)
        except (asyncio.CancelledError, Cancelled) as error:
            self.stopped(live, attempt, error)
        except TimeoutError as error:
            if limit is not None and limit.expired():
                self.finished(live, attempt, lambda now: live.run.timed_out(call, now, self.engine.lots))
            else:
                self.raised(live, attempt, error)
        except BaseException as error:  # noqa: BLE001  # the attempt's outcome, whatever it is
            self.raised(live, attempt, error)
        else:
            self.gave(live, attempt, value)

    def limited(self, live: Live, attempt: Attempt) -> asyncio.Timeout:
        """The countdown of an async attempt, which cancels it; one that does not end then is abandoned (R7)."""
        left, grace = self.left(attempt.call), attempt.call.function.policy.cancel_grace_s
        if left is not None:
            attempt.timer = self.engine.loop.call_later(left + grace, self.overdue, live, attempt)
        return asyncio.timeout(left)

    def run_sync(self, live: Live, attempt: Attempt, part: Part) -> None:
        """An attempt of a sync step, in the executor; one that takes too long is abandoned (R11)."""
        call = attempt.call
        here = self.owns_executor or isinstance(self.executor, concurrent.futures.ThreadPoolExecutor)
        attempt.lent = Lent(self.engine.log) if here else None
        try:
            if here:
                attempt.future = self.executor.submit(
                    call_with_context,
                    part,
                    call.values,
                    call.context,
                    self.engine.resources,
                    attempt.lent,
                    partial(self.engine.heartbeats.beat, live, attempt),
                )
            else:
                attempt.future = self.executor.submit(call_elsewhere, part, call.values, call.context)
        except Exception as error:  # noqa: BLE001  # the executor does not take it
            if isinstance(error, RuntimeError | OSError | MemoryError):  # BrokenExecutor too: it may pass
                self.put_off(live, attempt, part, error)
            else:
                why = f"{type(error).__name__}: {text_of(error)}"
                self.engine.loop.call_soon(self.unsent, live, attempt, why)
            return
        attempt.future.add_done_callback(lambda future: self.back_on_loop(live, attempt, future))
        left = self.left(call)
        if left is not None:
            attempt.timer = self.engine.loop.call_later(left, self.overdue, live, attempt)

    def put_off(self, live: Live, attempt: Attempt, part: Part, why: Exception) -> None:
        """No thread is to be had: a limit of the machine, or an executor that was shut down or broke."""
        LOGGER.warning("step '%s' finds no thread, and waits for one: %s", attempt.call.context.step, why)
        attempt.timer = self.engine.loop.call_later(NO_THREAD_S, self.try_again, live, attempt, part)

    def try_again(self, live: Live, attempt: Attempt, part: Part) -> None:
        """There may be a thread now."""
        if self.engine.closing or live.calls.get(attempt.call.seq) is not attempt:
            return
        if self.left(attempt.call) == 0.0:
            self.overdue(live, attempt)
        else:
            self.run_sync(live, attempt, part)

    def back_on_loop(self, live: Live, attempt: Attempt, future: concurrent.futures.Future[Any]) -> None:
        """A sync attempt has ended, in its thread; after the loop's end nobody wants to know."""
        with contextlib.suppress(RuntimeError):
            self.engine.loop.call_soon_threadsafe(self.returned, live, attempt, future)

    def returned(self, live: Live, attempt: Attempt, future: concurrent.futures.Future[Any]) -> None:
        """A sync attempt has ended."""
        error = None if future.cancelled() else future.exception()
        if isinstance(error, Sent):  # its executor has it run in this process
            error = error.error
        if isinstance(error, concurrent.futures.BrokenExecutor) and OWN not in vars(error):
            self.broke(live, attempt, error)
            return
        if attempt.timer is not None:
            attempt.timer.cancel()
        if future.cancelled():
            self.cancelled(live, attempt)
            return
        if is_void(attempt):
            self.engine.transactions.forgo(live, attempt)
        elif isinstance(error, Cancelled):
            self.stopped(live, attempt, error)
        elif error is not None:
            if self.engine.transactions.is_to_be_repeated(live, attempt):
                self.engine.transactions.repeat(live, attempt, error)
            elif isinstance(self.executor, concurrent.futures.ProcessPoolExecutor) and (
                why := unpicklable(self.engine.cast(attempt.call), attempt.call)
            ):
                self.unsent(live, attempt, why)
            else:
                self.raised(live, attempt, error)
        elif attempt.lent is not None and attempt.lent.transaction is not None:
            self.engine.transactions.returned(live, attempt, future.result())
        else:
            self.gave(live, attempt, future.result())

    def cancelled(self, live: Live, attempt: Attempt) -> None:
        """A sync attempt was cancelled before it had begun: here, or by its executor, as when that is shut down."""
        if attempt.told:
            return
        why = RuntimeError("its executor cancelled it before it had begun")
        if attempt.call.function.policy.at_most_once:  # an executor of many machines may have begun it (R10)
            self.raised(live, attempt, why)
        else:
            self.put_off(live, attempt, self.engine.cast(attempt.call), why)

    def broke(self, live: Live, attempt: Attempt, why: Exception) -> None:
        """The executor broke while an attempt ran there, or stood in line: a crash, which is no outcome (R5).

        It stays begun, and its time goes on. What breaks while the engine closes is handed over like all that runs.
        """
        call = attempt.call
        self.breaks += 1
        if not self.mending:
            self.mending = True
            self.engine.loop.call_later(NO_THREAD_S, self.probe)
        if live.calls.get(call.seq) is not attempt:
            return
        if isinstance(self.executor, concurrent.futures.ThreadPoolExecutor):  # breaks before it begins any
            if attempt.timer is not None:
                attempt.timer.cancel()
            attempt.future = None
            self.put_off(live, attempt, self.engine.cast(call), why)
        elif call.function.policy.at_most_once:
            died = "its process died while it may have been running"
            self.finished(live, attempt, lambda now: live.run.lose(call, now, died))
        elif self.engine.closing:
            return
        elif attempt.told:
            self.finished(live, attempt, lambda now: live.run.cancelled(call, now))
        else:
            step = call.context.step
            LOGGER.warning("step '%s' waits: its executor broke while it ran there: %s", step, why)
            attempt.broke = True

    def probe(self) -> None:
        """See whether an executor that broke runs something again: what it broke with is not begun before."""
        self.mending = self.sure = bool(self.broken()) and not self.engine.closing
        if not self.mending:
            self.breaks = 0
            return
        try:
            future = self.executor.submit(int)
        except Exception as error:  # noqa: BLE001  # whatever a broken one says
            LOGGER.warning("steps wait for an executor that broke: %s", error)
            self.engine.loop.call_later(NO_THREAD_S, self.probe)
            return

        def back(future: concurrent.futures.Future[int]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is gone, and who wanted to know with it
                self.engine.loop.call_soon_threadsafe(self.probed, future)

        future.add_done_callback(back)

    def probed(self, future: concurrent.futures.Future[int]) -> None:
        """It works again, or does not: all that it broke with are suspects, which begin one at a time."""
        if future.cancelled() or future.exception() is not None:
            self.engine.loop.call_later(NO_THREAD_S, self.probe)
            return
        if self.engine.closing:
            return
        broken, alone = self.broken(), self.breaks == 1
        self.mending = self.sure = False
        self.breaks = 0
        for live, attempt in broken:
            self.put_away(live, attempt)
        self.engine.suspects.take_broken(broken, alone=alone)
        for live, _ in broken:
            self.engine.limits.settle(live)
            self.engine.pump.kick(live)

    def broken(self) -> list[tuple[Live, Attempt]]:
        """What waits because its executor broke."""
        lives = self.engine.live.values()
        return [(live, attempt) for live in lives for attempt in live.calls.values() if attempt.broke]

    def is_crash(self, attempt: Attempt) -> bool:
        """Whether the engine that closes leaves it as a suspect: else it is given back like all that runs.

        A single one is none when others broke with it that are on record by now: it would be taken for the culprit.
        """
        return attempt.broke and self.sure and (self.breaks == 1 or len(self.broken()) > 1)

    def put_away(self, live: Live, attempt: Attempt) -> None:
        """An attempt is over here."""
        del live.calls[attempt.call.seq]
        if attempt.timer is not None:
            attempt.timer.cancel()
        self.running -= 1
        self.free_slot()

    def overdue(self, live: Live, attempt: Attempt) -> None:
        """An attempt's own countdown is over, and it does not end. What its executor has not begun never begins."""
        attempt.told = True
        if attempt.future is not None:
            attempt.future.cancel()
        self.engine.transactions.end(attempt)
        self.engine.limits.give_up(live, attempt, attempt.future or attempt.task)
        self.finished(live, attempt, lambda now: live.run.timed_out(attempt.call, now, self.engine.lots))

    def left(self, call: StepCall) -> float | None:
        """Seconds until the attempt's own countdown is over; other deadlines are the turn's business."""
        limit = call.attempt_until
        return None if limit is None else max(0.0, limit - self.engine.clock.now())

    def stopped(self, live: Live, attempt: Attempt, error: BaseException) -> None:
        """An attempt let pass what tells it to end: if nothing did, that is an error like any other."""
        if not attempt.told:
            self.raised(live, attempt, error)
        elif not self.engine.closing:
            self.finished(live, attempt, lambda now: live.run.cancelled(attempt.call, now))

    def raised(self, live: Live, attempt: Attempt, error: BaseException) -> None:
        """The attempt raised an error."""
        if not isinstance(error, Exception):
            told = RuntimeError(f"the step raised {type(error).__name__}")
            told.__cause__ = error  # its text and its traceback are kept with it
            error = told
        self.finished(live, attempt, lambda now: live.run.raised(attempt.call, error, now, self.engine.lots))

    def unsent(self, live: Live, attempt: Attempt, why: str) -> None:
        """It cannot be handed to the executor, so its function was not called: that is a mistake of code (R20)."""
        if attempt.told and not self.engine.closing:
            self.finished(live, attempt, lambda now: live.run.cancelled(attempt.call, now, ran=False))
            return
        defect = Defect(f"step '{attempt.call.context.step}' cannot be sent to its executor: {why}")
        self.finished(live, attempt, lambda _: live.run.unsent(attempt.call.seq, defect))

    def gave(self, live: Live, attempt: Attempt, value: Any) -> None:
        """The attempt gave a value: the most frequent end by far."""
        if self.over(live, attempt, lambda now: live.run.returned(attempt.call, value, now)):
            self.engine.pump.go_on(live)

    def finished(self, live: Live, attempt: Attempt, report: Callable[[float], None]) -> None:
        """An attempt has ended."""
        if self.over(live, attempt, report):
            self.engine.pump.kick(live)

    def over(self, live: Live, attempt: Attempt, report: Callable[[float], None]) -> bool:
        """Report how an attempt has ended, unless nobody wants to know any more; gives whether somebody does."""
        seq = attempt.call.seq
        if live.calls.get(seq) is not attempt:
            return False
        self.put_away(live, attempt)
        now = self.engine.clock.now()
        try:
            report(now)
        except Exception as error:  # else its execution would wait for ever
            LOGGER.exception("step '%s': what it came to cannot be told", attempt.call.context.step)
            told = RuntimeError(f"what it came to cannot be told: {type(error).__name__}")
            live.run.raised(attempt.call, told, now, self.engine.lots)
        if self.engine.limits.uses:
            self.engine.limits.give_up(live, attempt, attempt.future)
        if self.engine.suspects.on_trial is not None:
            self.engine.suspects.acquit(live.run.id, seq)
        return True

    def free_slot(self) -> None:
        """A slot is free: for whose turn it is, as a rule for who freed it, so that a step costs one turn.

        Who has been in line for longer than FAIR_S goes first.
        """
        self.slots += 1
        if self.engine.limits.lines:
            self.engine.limits.slot_freed()
        if self.engine.claims.left and not self.hungry:
            self.engine.claims.left = False
            self.engine.claims.claiming.set()
        if self.hungry:
            if self.engine.loop.time() - self.hungry[0].hungry_since > FAIR_S:
                self.call_in()
            self.engine.pump.soon()

    def line_up(self, live: Live) -> None:
        """It has attempts to begin and there was no slot: it gets in line, once."""
        if not live.hungry:
            live.hungry = True
            live.hungry_since = self.engine.loop.time()
            self.hungry.append(live)
            self.engine.sharing.starving()

    def call_in_all(self) -> None:
        """Whoever is in line may build a turn, as far as there are slots; while a suspect is watched, it alone may."""
        if self.engine.opening or not self.hungry or self.slots <= 0:
            return
        watched = self.engine.suspects.watched
        if watched is None:
            for _ in range(min(self.slots, len(self.hungry))):
                self.call_in()
        elif (live := self.engine.live.get(watched[0])) is not None and watched[1] in live.run.ready:
            self.engine.pump.kick(live)

    def call_in(self) -> None:
        """The next in line that still wants a slot may build a turn, and who is before it, once that is written."""
        while self.hungry:
            live = self.hungry.popleft()
            live.hungry = False
            if self.engine.live.get(live.run.id) is live and live.run.ready:
                self.engine.pump.kick(live)
                if not live.writing:
                    return

    def offer(self) -> None:
        """Who was called in may have no use for its slot any more: have the pump look for others in line."""
        if self.hungry and self.slots > 0:
            self.engine.pump.soon()

    def tell_to_end(self, live: Live, seq: int) -> None:
        """A running attempt is to end; its outcome still counts (R18). One that waits for a thread never begins."""
        attempt = live.calls.get(seq)
        if attempt is None or attempt.told:
            return
        attempt.told = True
        if attempt.task is not None:
            attempt.task.cancel()
        elif attempt.future is not None and self.is_near:
            attempt.future.cancel()
        if attempt.broke or self.is_unbegun(attempt):
            ran = attempt.broke
            self.finished(live, attempt, lambda now: live.run.cancelled(attempt.call, now, ran=ran))

    def abandon(self, live: Live, seq: int) -> None:
        """Nobody wants its outcome any more: an async attempt is cancelled, a sync one left alone (R11)."""
        attempt = live.calls.pop(seq, None)
        live.run.running.pop(seq, None)
        if attempt is not None:
            attempt.told = True
            self.running -= 1
            if attempt.task is not None:
                attempt.task.cancel()
            if attempt.future is not None:
                attempt.future.cancel()
                self.engine.transactions.end(attempt)
            if attempt.timer is not None:
                attempt.timer.cancel()
            self.engine.limits.give_up(live, attempt, attempt.future or attempt.task)
            self.free_slot()
            self.engine.suspects.acquit(live.run.id, seq)


def call_with_context(
    part: Part,
    values: list[Any],
    context: Context,
    resources: Mapping[str, Any],
    lent: Lent | None = None,
    heartbeat: Callable[[Any], None] | None = None,
) -> Any:
    """Call a sync step with its context around it; everything here can be pickled for an executor that does so."""
    transaction = None if lent is None else lent.ask
    token = SCENE.set(Scene(lambda: context, resources, transaction=transaction, heartbeat=heartbeat))
    try:
        value = part.call(values)
        if lent is not None:
            lent.seal()
        return value
    except BaseException as error:
        if lent is not None:
            lent.fail(error)
        if isinstance(error, concurrent.futures.BrokenExecutor):
            vars(error)[OWN] = True
        raise
    finally:
        SCENE.reset(token)


def call_elsewhere(part: Part, values: list[Any], context: Context) -> Any:
    """Call a sync step in another process; an error that could not be made again in this one goes as `Sent`.

    A pool of processes breaks over such an error, as over the death of one of them.
    """
    try:
        return call_with_context(part, values, context, {})
    except Exception as error:
        if cannot_be_made_again(error):
            raise Sent(error) from error
        raise


def cannot_be_made_again(error: Exception) -> bool:
    """Whether its constructor does not take its `args`, with which pickle calls it, and copy likewise."""
    try:
        copy.copy(error)
    except Exception:  # noqa: BLE001  # whatever the constructor may raise
        return True
    return False


class Sent(Exception):
    """An error on its way between processes: what arrives is the error itself."""

    def __init__(self, error: Exception) -> None:
        super().__init__(text_of(error))
        self.error = error

    def __reduce__(self) -> Any:
        """See made_again."""
        return made_again, (type(self.error), self.error.args, vars(self.error))


def made_again(kind: type[Exception], args: tuple[Any, ...], fields: dict[str, Any]) -> Exception:
    """An error with its fields, without a call of its constructor."""
    error = kind.__new__(kind, *args)
    vars(error).update(fields)
    return error


def unpicklable(part: Part, call: StepCall) -> str:
    """What of a call a pool of processes cannot pickle, so that it was never made; empty for nothing."""
    sent = [("its function", part, "declare the step at the top of a module that can be imported")]
    for name, value in zip(call.function.parameter_names, call.values, strict=True):
        sent.append((f"its argument '{name}'", value, "hand plain values over"))
    for what, it, advice in sent:
        try:
            ForkingPickler.dumps(it)
        except Exception as error:  # noqa: BLE001  # whatever its class may raise
            return f"{what} cannot be pickled ({type(error).__name__}: {text_of(error)}); {advice}"
    return ""
