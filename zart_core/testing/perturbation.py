"""The perturbed double run: the same histories replayed in processes that differ in what no workflow may look at.

Rule 1: a history is replayed in a process where clock, chance, hash seed and surroundings are fixed, and in others
where they are fixed at other values; a workflow decides the same in all of them, and what the history says.
Rule 2: where it does not, each perturbation alone says whether it is a cause.
"""

from __future__ import annotations

import base64
import inspect
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

from zart_core.codec import Codec
from zart_core.errors import InvalidUse
from zart_core.events import Event, Started
from zart_core.insight.forking import as_issued
from zart_core.interpreter import CODEC
from zart_core.records import record
from zart_core.testing.runner import Steps
from zart_core.testing.running import run
from zart_core.testing.world import Sending
from zart_core.workflows import Registry, Workflow, WorkflowSource

KINDS = ("hash-seed", "clock", "random", "urandom", "uuid", "environment", "folder", "locale", "timezone")
"""What is perturbed."""
STATE = "state that a replay leaves in its process"
ITSELF = "something else that differs from process to process: memory addresses, process ids, files, threads"
TOGETHER = "several perturbations together, none of them alone"
CHARS_MAX = 300
TIMEOUT_S = 300.0
REPLAYING = "zart_core.testing.perturbing"
"""The program that replays."""
Histories: TypeAlias = Mapping[tuple[str, int], Sequence[Event]]
"""Events by execution id and run."""


@record
class Difference:
    """One history that does not replay the same everywhere."""

    id: str
    run: int
    workflow: str
    event: int
    """The event, counted from 0, at which the code decided otherwise."""
    recorded: str
    decided: str
    recorded_site: str
    """Where the recorded command stands in the source; empty for what is no command."""
    decided_site: str
    causes: tuple[str, ...]
    """Which perturbations make the difference; empty where the history does not fit at all, whatever is perturbed."""

    def __str__(self) -> str:
        why = f"because of {', '.join(self.causes)}" if self.causes else "whatever is perturbed"
        return (
            f"workflow '{self.workflow}', execution '{self.id}' (run {self.run}), event {self.event}, {why}\n"
            f"  recorded: {shortened(self.recorded)}{f'   at {self.recorded_site}' if self.recorded_site else ''}\n"
            f"  decided:  {shortened(self.decided)}{f'   at {self.decided_site}' if self.decided_site else ''}"
        )


@record
class PerturbedReport:
    """What replaying histories in perturbed processes showed."""

    histories: int
    events: int
    rounds: int
    """In how many perturbed processes each was replayed, beside the one that everything is compared with."""
    differences: tuple[Difference, ...]
    """Histories of workflows that are not deterministic."""
    misfits: tuple[Difference, ...]
    """Histories that the code does not fit at all: it changed, or it was not deterministic when they were recorded."""

    def check(self) -> None:
        """Raise AssertionError, with all that was found, unless every history replays the same everywhere."""
        if self.differences or self.misfits:
            raise AssertionError(str(self))

    def __str__(self) -> str:
        found = [*self.differences, *self.misfits]
        return "\n".join([*map(str, found), summed_up(self)])


def summed_up(report: PerturbedReport) -> str:
    """The counts in one line."""
    return (
        f"{counted(report.histories, 'history', 'histories')} of {counted(report.events, 'event')}, "
        f"replayed in {counted(report.rounds, 'perturbed process', 'perturbed processes')}: "
        f"{len(report.differences):,} not deterministic, {len(report.misfits):,} that do not fit"
    )


def counted(number: int, one: str, many: str = "") -> str:
    """A number with its noun."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def shortened(text: str) -> str:
    """A text of limited length."""
    return text if len(text) <= CHARS_MAX else f"{text[:CHARS_MAX]}... ({len(text):,} characters)"


# ---------------------------------------------------------------- what testers call


def perturbed(
    workflow: Workflow[Any, Any],
    input: Any = None,
    *,
    steps: Steps | Callable[[], Steps] | None = None,
    events: Iterable[Sending] = (),
    resources: Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None = None,
    rounds: int = 3,
    kinds: Sequence[str] = KINDS,
    codec: Codec | None = None,
) -> PerturbedReport:
    """Run a workflow in memory, as `run` does, and replay its history, and its children's, in perturbed processes.

    Args:
        workflow: what to run; it must stand at the top of a module or class, so that other processes find it.
        input: its input.
        steps: what stands in for which step, as for `run`.
        events: what comes from outside, as for `run`.
        resources: as for `run`.
        rounds: how many perturbed processes; each has another hash seed, and two texts in a set have the same order
            in half of them.
        kinds: what is perturbed: of "hash-seed", "clock", "random", "urandom", "uuid", "environment", "folder",
            "locale", "timezone". Where something makes a difference, one more process for each says which.
        codec: in place of a plain one; it must have a name at the top of a module, as the workflow.

    A process takes about half a second to start, and imports the module of the workflow: in a script the call stands
    below `if __name__ == "__main__":`. Raises InvalidUse for a workflow or a codec that another process cannot import.
    """
    refuse_within_a_replay()
    place_of(workflow)
    place_of_codec(codec)
    result = run(workflow, input, steps=steps, events=events, resources=resources, strict=False, codec=codec)
    return perturbed_histories(result.histories, [workflow], rounds=rounds, kinds=kinds, codec=codec)


def perturbed_histories(
    histories: Histories,
    workflows: Iterable[WorkflowSource],
    *,
    rounds: int = 3,
    kinds: Sequence[str] = KINDS,
    codec: Codec | None = None,
) -> PerturbedReport:
    """Replay histories in perturbed processes: of a run, of a log, or of a file.

    Args:
        histories: events by execution id and run.
        workflows: the workflows that they are of, or modules; what stands in the same modules is found, too.
        rounds: how many perturbed processes.
        kinds: what is perturbed.
        codec: as for `perturbed`.

    O(events) in each process. Raises InvalidUse for a workflow or a codec that another process cannot import.
    """
    places = [place_of(each) for each in Registry(workflows).everything()]
    return perturbed_in(histories, places, rounds=rounds, kinds=kinds, codec=place_of_codec(codec))


def place_of(workflow: Workflow[Any, Any]) -> dict[str, str]:
    """Where another process finds a workflow. Raises InvalidUse where it cannot."""
    fn = workflow.fn
    if "<locals>" in fn.__qualname__:
        raise InvalidUse(
            f"workflow '{workflow.name}' is defined inside a function, where no other process can import it; "
            "define it at the top of a module"
        )
    file = inspect.getsourcefile(fn) or ""
    name = name_elsewhere(fn.__module__)
    if not name and not file:
        raise InvalidUse(f"workflow '{workflow.name}' stands in no module and no file; write it into one")
    return {"module": name, "file": file, "qualname": fn.__qualname__}


def place_of_codec(codec: Codec | None) -> dict[str, str] | None:
    """Where another process finds a codec; None for a plain one. Raises InvalidUse where it cannot."""
    if codec is None:
        return None
    named = (
        (name_elsewhere(module.__name__), str(getattr(module, "__file__", None) or ""), attribute)
        for module in list(sys.modules.values())
        for attribute, value in list(getattr(module, "__dict__", {}).items())
        if value is codec
    )
    for name, file, attribute in named:
        if name or file:
            return {"module": name, "file": file, "qualname": attribute}
    raise InvalidUse(
        "the codec has a name in no module that other processes could import; give it one at the top of a module"
    )


def name_elsewhere(module: str) -> str:
    """The name by which another process imports a module; empty where it has to go by its file."""
    return module if module != "__main__" and is_importable(module) else ""


def refuse_within_a_replay() -> None:
    """Raise InvalidUse in a process that was started to replay: each would start others, without an end."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if spec is not None and spec.name == REPLAYING:
        raise InvalidUse(
            "perturbed replays begin anew when the process that is to replay imports this module; put the call below "
            '`if __name__ == "__main__":`, or into a test'
        )


def is_importable(name: str) -> bool:
    """Whether a module can be found by its name."""
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False


# ---------------------------------------------------------------- comparing


Told: TypeAlias = Mapping[str, Any]
"""How one history replayed in one process: {} where it fits."""


def perturbed_in(
    histories: Histories,
    places: Sequence[Mapping[str, str]],
    *,
    rounds: int,
    kinds: Sequence[str],
    codec: Mapping[str, str] | None = None,
) -> PerturbedReport:
    """As `perturbed_histories`, with the modules and the codec given as other processes find them."""
    refuse_within_a_replay()
    if unknown := set(kinds) - set(KINDS):
        raise InvalidUse(
            f"there is no perturbation {', '.join(sorted(unknown))}; there are: {', '.join(KINDS)}"
        )
    if rounds < 1:
        raise InvalidUse(f"rounds is {rounds}; one perturbed process is the least")
    if not is_importable("time_machine"):
        raise InvalidUse('perturbed replays need time-machine: pip install "zart[testing]"')
    with Processes(histories, places, codec) as processes:
        base, *others = processes.replay([{}, *(dict.fromkeys(kinds, n) for n in range(1, rounds + 1))])
        odd = [
            (index, next((n for n, other in enumerate(others, 1) if other[0][index] != told), 0))
            for index, told in enumerate(base[0])
            if told or base[1][index] or any(other[0][index] or other[1][index] for other in others)
        ]
        if not odd:
            return PerturbedReport(len(histories), count(histories), rounds, (), ())
        causes = causes_of(processes, base, odd, kinds)
    found = [
        difference(key, histories[key], [base, *others], index, causes[index])
        for index, key in enumerate(histories)
        if index in causes
    ]
    return PerturbedReport(
        len(histories),
        count(histories),
        rounds,
        tuple(each for each in found if each.causes),
        tuple(each for each in found if not each.causes),
    )


def count(histories: Histories) -> int:
    """How many events there are."""
    return sum(len(events) for events in histories.values())


def causes_of(
    processes: Processes, base: Sequence[Sequence[Told]], odd: Sequence[tuple[int, int]], kinds: Sequence[str]
) -> dict[int, tuple[str, ...]]:
    """For each history that is odd, what makes the difference: each perturbation alone, at the value that showed it."""
    values = sorted({n for _, n in odd if n})
    plans = [{}, *({kind: n} for n in values for kind in kinds)]
    again, *alone = processes.replay(plans)
    by_plan = {
        (kind, n): told[0]
        for (kind, n), told in zip(((k, n) for n in values for k in kinds), alone, strict=True)
    }
    causes: dict[int, tuple[str, ...]] = {}
    for index, n in odd:
        told = base[0][index]
        if again[0][index] != told:
            causes[index] = (ITSELF,)
            continue
        found = [kind for kind in kinds if n and by_plan[kind, n][index] != told]
        if base[1][index] != told:
            found.append(STATE)
        causes[index] = tuple(found) if found or not n else (TOGETHER,)
    return causes


def difference(
    key: tuple[str, int], events: Sequence[Event], rounds: Sequence[Any], index: int, causes: tuple[str, ...]
) -> Difference:
    """What to show of a history that is odd: where it differs first, of all the processes."""
    tellings = [told[time][index] for told in rounds for time in (0, 1) if told[time][index]]
    told = min(tellings, key=lambda each: each.get("event", 0))
    first = events[0] if events else None
    return Difference(
        id=key[0],
        run=key[1],
        workflow=first.workflow if isinstance(first, Started) else "?",
        event=told.get("event", 0),
        recorded=told.get("recorded", ""),
        decided=told.get("decided", told.get("error", "")),
        recorded_site=told.get("recorded_site", ""),
        decided_site=told.get("decided_site", ""),
        causes=causes,
    )


class Processes:
    """Processes that replay the same histories, each with its own values for what is perturbed."""

    def __init__(
        self,
        histories: Histories,
        places: Sequence[Mapping[str, str]],
        codec: Mapping[str, str] | None,
    ) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="zart-perturbed-")
        self.task = {
            "sys_path": [path or str(Path.cwd()) for path in sys.path],
            "workflows": list(places),
            "folder": self.folder.name,
            "codec": codec,
            "histories": [
                {
                    "id": id,
                    "run": run,
                    "records": [
                        (each.kind, each.at, base64.b64encode(each.data).decode())
                        for each in CODEC.encode_events(as_issued(events), id, run)
                    ],
                }
                for (id, run), events in histories.items()
            ],
        }

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        self.folder.cleanup()

    def replay(self, plans: Sequence[Mapping[str, int]]) -> list[list[list[Told]]]:
        """For each plan how each history replayed, the first time and again, in a process of its own."""
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            return list(pool.map(self.replay_one, plans))

    def replay_one(self, values: Mapping[str, int]) -> list[list[Told]]:
        """Start a process and read its answer. Raises InvalidUse when it cannot import the workflows."""
        task = json.dumps({**self.task, "values": values})
        environment = {**os.environ, "PYTHONHASHSEED": str(values.get("hash-seed", 0))}
        try:
            done = subprocess.run(  # noqa: S603  # our own program
                [sys.executable, "-m", REPLAYING],
                input=task.encode(),
                env=environment,
                capture_output=True,
                timeout=TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise InvalidUse(
                f"a replay {said(values)} did not end within {TIMEOUT_S:.0f} s; a workflow that waits for the clock "
                "to go on never does, since it stands still there"
            ) from None
        answer = json.loads(done.stdout) if done.stdout and not done.returncode else None
        if answer is None:
            tail = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["nothing was said"]
            raise InvalidUse(f"a replay {said(values)} ended with exit code {done.returncode}: {tail[0]}")
        if "error" in answer:
            raise InvalidUse(f"{answer['error']} (in a process {said(values)})")
        return [answer["first"], answer["again"]]


def said(values: Mapping[str, int]) -> str:
    """What was perturbed, in words."""
    return f"with another {', '.join(values)}" if values else "with nothing perturbed"
