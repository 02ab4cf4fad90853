"""Write golden histories of workflows that have none: `.venv/bin/python -m tests.golden.make`.

Rule 1: what is there is never written again; the stores are written once for each number of semantics.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import zart_core as zart
from tests.golden import workflows as w
from tests.hosted import hosted
from zart_core.deploys.histories import History, file_name, history_of, text_of, write_history
from zart_core.deploys.transfers import export_history, import_history
from zart_core.events import SEMANTICS
from zart_core.hosts.inline import Inline
from zart_core.hosts.ports import DirectRunner
from zart_core.log import EventLog
from zart_core.testing import Cancel, Terminate, VirtualClock, run

ROOT = Path(__file__).parent.parent.parent
GOLDEN = ROOT / "tests" / "data" / "golden" / str(SEMANTICS)
SMALL, LARGE = w.Parcel("p-1", 400), w.Parcel("p-2", 4000)

PLAYED: list[tuple[str, zart.Workflow[Any, Any], Any, list[Any]]] = [
    ("types", w.types, SMALL, []),
    ("errors", w.errors, LARGE, []),
    ("time", w.time, None, []),
    ("events", w.events, None, [(1, "note", "a"), (2, "note", "b", "key"), (3, "note", "no number")]),
    ("branches", w.branches, None, []),
    ("family", w.family, None, []),
    ("laps", w.laps, 2, [(1, "lap", 1), (1, "lap", 2), (1, "lap", 3, "third")]),
    ("versions", w.versions, None, []),
    ("flow-on-failure", w.flow_on_failure, LARGE, []),
    ("value-on-failure", w.value_on_failure, LARGE, []),
    ("fails", w.fails, None, []),
    ("cancelled", w.cancelled, None, [Cancel("10m", "enough")]),
    ("late", w.late, None, []),
    ("terminated", w.waits, None, [Terminate("1m", "for good")]),
    ("waits", w.waits, None, []),
]


def main() -> None:
    """Play everything, each in a store of its own, and keep what is not there yet."""
    GOLDEN.mkdir(parents=True, exist_ok=True)
    histories: list[History] = []
    with tempfile.TemporaryDirectory() as folder:
        for n, (id, workflow, input, events) in enumerate(PLAYED):
            url = f"sqlite:{folder}/{n}.db"
            run(workflow, input, events=events, store=lambda url=url: zart.open_log(url), id=id, strict=False)
            histories += all_of(url)
        url = f"sqlite:{folder}/others.db"
        log = zart.open_log(url)
        for play in (held, taken_over, handed_over):
            play(log)
        log.close()
        histories += all_of(url)
    histories.append(by_hand())
    keep([cleaned(history) for history in histories])


def all_of(url: str) -> list[History]:
    """Every execution of a store."""
    log = zart.open_log(url)
    histories = [export_history(log, summary.id) for summary in log.list(limit=1000).items]
    log.close()
    return histories


def cleaned(history: History) -> History:
    """Without the folders of this machine."""
    text = text_of(history)
    for folder in (ROOT, Path(sys.base_prefix)):
        text = text.replace(f"{folder}/", "")
    return history_of(text)


def keep(histories: list[History]) -> None:
    """Write what has no file yet, and the stores where they are not there."""
    for history in histories:
        if not (GOLDEN / file_name(history.id)).exists():
            write_history(history, GOLDEN)
    for name, url in (("sqlite", f"sqlite:{GOLDEN}/sqlite/golden.db"), ("file", f"file:{GOLDEN}/file")):
        if not (GOLDEN / name).exists():
            (GOLDEN / "sqlite").mkdir(exist_ok=True)
            store = zart.open_log(url)
            for history in histories:
                import_history(store, history)
            store.close()


def held(log: EventLog) -> None:
    """A run whose deadline passes while it is parked, and an outcome that comes in meanwhile."""

    @zart.workflow("golden-late", timeout="1h")
    def broken(_: None) -> zart.Flow[str]:
        yield from w.once(2)
        return "never"

    Inline(log, zart.Registry(), clock=VirtualClock(0.0)).start(w.late, None, "held")
    for workflow, now in ((w.late, 1.0), (broken, 2.0), (broken, 4000.0), (w.late, 5000.0)):
        hosted(log, workflow, "held", now)


def by_hand() -> History:
    """Facts that were recorded while a run was parked, and a note: what a host writes rarely."""
    execution, events = zart.Execution(w.held), list[zart.Event]()
    facts = [
        zart.Started("by-hand", 0, "golden-held", b"null", 1.0),
        zart.Began(0, 0, at=2.0),
        zart.Noted("alone", at=2.5, who="0", why="nothing runs beside 'once-1'"),
        zart.Delivered(0, "note", b'"kept"', 3.0, "key", held=True),
        zart.Resolved(0, zart.Done(b"1"), 4.0, held=True),
    ]
    for fact in facts:
        decided: list[zart.Event] = [fact]
        while decided:
            for event in decided:
                execution.apply(event)
                events.append(event)
            decided = execution.decide()
    return History("by-hand", "golden-held", execution.status, "", [events])


def taken_over(log: EventLog) -> None:
    """Workers that die in a step, in its first attempt and in its second; another one starts it again."""

    class Death(BaseException):
        """The process is gone."""

    class Deadly(DirectRunner):
        def run(self, call: Any, scene: Any) -> Any:
            if call.context.attempt == attempt:
                raise Death
            return super().run(call, scene)

    for id, workflow, input, attempt in (
        ("taken-over", w.types, SMALL, 0),
        ("taken-over-retry", w.retried, None, 1),
    ):
        clock = VirtualClock(0.0)
        inline = Inline(log, zart.Registry(), clock=clock, runner=Deadly(), rest=lambda _: clock.advance(1))
        inline.start(workflow, input, id)
        try:
            inline.drive(id)
        except Death:
            log.release(inline.worker)
        hosted(log, workflow, id, 10.0)


def handed_over(log: EventLog) -> None:
    """Engines that close while a step runs: one that may run again, and one that may run at most once."""
    for id, workflow, input, step in (("handed-over", w.types, SMALL, w.weigh), ("lost", w.kid, 9, w.once)):
        begun, done, original = threading.Event(), threading.Event(), step.fn

        def blocking(_: Any, begun: Any = begun, done: Any = done) -> int:
            begun.set()
            done.wait(5)
            return 1

        step.fn = blocking
        with zart.open(log, [workflow]) as engine:
            engine.start(workflow, input, id=id)
            begun.wait(10)
        step.fn = original
        done.set()
        with zart.open(log, [workflow]) as engine, contextlib.suppress(zart.ExecutionFailed):
            engine.get(id).result(10)


if __name__ == "__main__":
    main()
