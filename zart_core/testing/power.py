"""Does a store keep what it acknowledged when power is lost? Its own system calls are recorded, and power lost at each.

    report = check_power_loss("sqlite", Path("/var/lib/orders"), states=1000)

Rule 1: a state is a pair: a moment (between two calls that change the disk) and a choice of what survived of what was
        not synced by then. States whose files are the same, byte for byte, are opened once, and judged at each moment.
Rule 2: what is found has to be a prefix of what was asked for, write by write, that holds all that was acknowledged
        (I1 to I4); opened again it reads the same (I5); and it takes another write.
"""

from __future__ import annotations

import contextlib
import logging
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import attrs

from zart_core.errors import ZartError
from zart_core.events import Ok
from zart_core.hosts.ports import opener_of
from zart_core.log import EventLog, New, Record
from zart_core.records import record
from zart_core.testing import probe, tracing
from zart_core.testing.filesystem import SimulatedFileSystem
from zart_core.testing.recorded import Player, on_disk

WORKER = (sys.executable, "-m", "zart_core.testing.probe")
WRITE_ON_EVERY = 8
"""One state in so many is written to, after it was read."""
LOSSES_SHOWN = 20
PER_MOMENT_MIN, PER_MOMENT_MAX = 6, 64
"""States at one moment; where more would come than are wanted, moments are chosen by chance."""


@record
class Loss:
    """A state in which the store broke its promise."""

    seed: int
    call: int
    """The how-many-th call that changes the disk would have come next."""
    before: str
    """That call."""
    what: str


@attrs.define
class PowerLossReport:
    """What a check came to."""

    states: int = 0
    opened: int = 0
    """States whose files differ, which were opened with the real code."""
    moments: int = 0
    acknowledged: int = 0
    """Writes that were acknowledged, over all recordings."""
    calls: dict[str, int] = attrs.Factory(dict[str, int])
    """Calls that changed the disk, or synced it, by name."""
    calls_failed: int = 0
    """Syncs that failed, on purpose."""
    lost: int = 0
    """States in which the promise was broken."""
    losses: list[Loss] = attrs.Factory(list[Loss])
    """The first of them, one for each moment."""

    def __str__(self) -> str:
        text = (
            f"{self.states:,} states ({self.opened:,} different) at {self.moments:,} moments, "
            f"{self.acknowledged:,} acknowledged writes: {self.lost:,} lost"
        )
        return "\n".join(
            [text, *(f"seed {it.seed}, before call {it.call} ({it.before}): {it.what}" for it in self.losses)]
        )


def place_of(scheme: str, directory: Path) -> str:
    """Give the URL of a store in a directory."""
    return f"{scheme}:{directory}/log"


def check_power_loss(
    scheme: str,
    directory: Path,
    *,
    states: int,
    seed: int = 1,
    sessions: int = 3,
    durability: str = "power",
    worker: Sequence[str] = WORKER,
    scratch: Path | None = None,
    inject: Sequence[str] = (),
    progress: Callable[[PowerLossReport], None] = lambda report: None,
) -> PowerLossReport:
    """Record workloads below `directory` until at least `states` states were tried.

    `scheme` names the store, `directory` is where it is recorded: on the file system that matters; a directory is made
    in it for each recording and removed. `worker` is the program that carries a recording out (see `probe`). States are
    rebuilt and opened below `scratch`, by default memory where the machine has some to write to. `inject` lets calls
    fail, in strace's words: `fdatasync:error=EIO:when=3`; data whose sync failed is never written. Some 200 states a
    second. Raises TracingFailed when calls cannot be recorded, ProbeFailed when the store refuses to work.
    """
    report = PowerLossReport()
    opener = opener_of(place_of(scheme, directory))
    with quiet(), tempfile.TemporaryDirectory(prefix="zart-power-loss-", dir=scratch or memory()) as rebuilt:
        while report.states < states:
            with tempfile.TemporaryDirectory(prefix="zart-power-loss-", dir=directory) as place:
                check = Check(scheme, Path(place).resolve(), Path(rebuilt), seed, opener, report)
                check.record([*worker], sessions, durability, inject)
                check.run(states - report.states)
            progress(report)
            seed += 1
    return report


@contextlib.contextmanager
def quiet() -> Generator[None]:
    """Keep the stores from telling of each torn end, thousands of times."""
    loggers = [logger for name in ("zart", "zart.store") if not (logger := logging.getLogger(name)).disabled]
    for logger in loggers:
        logger.disabled = True
    try:
        yield
    finally:
        for logger in loggers:
            logger.disabled = False


def memory() -> Path | None:
    """Give a directory in memory, where there is one."""
    found = Path("/dev/shm")  # noqa: S108  # a directory of our own is made in it
    return found if found.is_dir() and shutil.disk_usage(found).free > 1 << 28 else None


@attrs.define
class Check:
    """One recording, and the states that may be found of it."""

    scheme: str
    place: Path
    rebuilt: Path
    seed: int
    opener: Callable[[str, str], EventLog]
    report: PowerLossReport
    calls: list[tracing.Called] = attrs.Factory(list[tracing.Called])
    pictures: list[probe.Picture] = attrs.Factory(list[probe.Picture])
    asked: int = 0
    acknowledged: int = 0
    found: dict[int, probe.Picture | str] = attrs.Factory(dict[int, probe.Picture | str])
    """What was read of each different image, by its hash; text for what went wrong."""

    @property
    def marks(self) -> Path:
        """Where the program tells what it asked for and what was acknowledged."""
        return self.place / "marks"

    @property
    def root(self) -> Path:
        """Where the store is."""
        return self.place / "store"

    def record(self, worker: list[str], sessions: int, durability: str, inject: Sequence[str]) -> None:
        """Run the workload under strace."""
        self.root.mkdir()
        trace = self.place / "trace"
        command = [*worker, place_of(self.scheme, self.root), str(self.seed), str(sessions), str(self.marks)]
        done = tracing.run([*command, durability], trace, *(f"--inject={each}" for each in inject))
        if done.returncode:
            raise probe.ProbeFailed(f"the workload failed: {done.stderr.strip()[-500:]}")
        self.calls = tracing.read(trace)
        trace.unlink()
        self.pictures = probe.pictures(probe.script(self.seed, sessions))

    def run(self, states: int) -> None:
        """Lose power at each moment; so often at each that it comes to `states` where that is possible."""
        dry = Player(self.root, self.marks, self.hear)
        moments = sum(1 for _ in dry.play(self.calls))
        self.compare(dry)
        self.report.acknowledged += self.acknowledged
        self.asked = self.acknowledged = 0
        limit = min(PER_MOMENT_MAX, max(PER_MOMENT_MIN, -(-states // moments)))
        chance = random.Random(self.seed)  # noqa: S311  # repeatable, not secret
        player = Player(self.root, self.marks, self.hear)
        for number, called in enumerate(player.play(self.calls)):
            self.report.calls[called.name] = self.report.calls.get(called.name, 0) + 1
            self.report.calls_failed += called.result < 0
            if chance.random() * moments * limit > states * 1.1:
                continue
            self.report.moments += 1
            for state in player.disk.crash_states(limit, seed=number, ignore=player.memory):
                self.judge(state, number, called.name)

    def compare(self, player: Player) -> None:
        """Hold the simulated disk beside the real directory (Rule 1 of `recorded`)."""
        memory = player.memory
        played = tuple((path, data) for path, data in player.disk.image() if Path(path).name not in memory)
        real = on_disk(self.root, memory)
        if played != real:
            different = sorted({path for path, _ in set(played) ^ set(real)})
            raise tracing.TracingFailed(
                f"the calls that were recorded do not give the files that are there: {', '.join(different)}; "
                "the store writes in a way that is not understood, and cannot be judged"
            )
        if len(self.pictures) != self.acknowledged + 1:
            raise tracing.TracingFailed(
                f"{self.acknowledged} acknowledgements of {len(self.pictures) - 1} recorded"
            )

    def hear(self, said: bytes) -> None:
        """Take in what the program tells."""
        what, count = said.split()
        if what == b"asked":
            self.asked = int(count)
        else:
            self.acknowledged = int(count)

    def judge(self, state: SimulatedFileSystem, call: int, before: str) -> None:
        """Look at one state."""
        self.report.states += 1
        image = state.image()
        key = hash(image)
        if key not in self.found:
            self.report.opened += 1
            self.found[key] = self.look(image, key % WRITE_ON_EVERY == 0)
        found = self.found[key]
        if isinstance(found, str):
            self.lose(call, before, found)
        elif found not in self.pictures[self.acknowledged : self.asked + 1]:
            if found in self.pictures:
                what = f"{self.pictures.index(found)} writes are there"
            else:
                what = "what is there was never asked for"
            self.lose(call, before, f"{self.acknowledged} writes were acknowledged, {what}")

    def lose(self, call: int, before: str, what: str) -> None:
        """Note a broken promise."""
        self.report.lost += 1
        losses = self.report.losses
        known = losses and (losses[-1].seed, losses[-1].call) == (self.seed, call)
        if len(losses) < LOSSES_SHOWN and not known:
            losses.append(Loss(self.seed, call, before, what))

    def look(self, image: Sequence[tuple[str, bytes]], write_on: bool) -> probe.Picture | str:
        """Rebuild a state, open it with the real code, twice, and perhaps write to it."""
        directory = self.rebuilt / "state"
        directory.mkdir()
        try:
            rebuild(directory, image)
            url = place_of(self.scheme, directory)
            first = self.read(url)
            second = self.read(url)
            if first != second:
                return "opened twice it reads differently"
            return (write_to(self.opener, url, first) if write_on else "") or first
        except ZartError as error:
            return f"{type(error).__name__}: {error}".replace(str(directory), "")
        finally:
            shutil.rmtree(directory)

    def read(self, url: str) -> probe.Picture:
        """Open, verify, read and close."""
        log = self.opener(url, "power")
        try:
            log.verify()
            return probe.picture(log)
        finally:
            log.close()


def rebuild(directory: Path, image: Sequence[tuple[str, bytes]]) -> None:
    """Write an image into an empty directory."""
    for path, data in image:
        place = directory / path.strip("/")
        if path.endswith("/"):
            place.mkdir(exist_ok=True)
        else:
            place.write_bytes(data)


def write_to(opener: Callable[[str, str], EventLog], url: str, before: probe.Picture) -> str:
    """Add an execution to what was recovered; gives what went wrong, or nothing."""
    records = [Record("Probed", probe.AT, b"on")]
    added = ("zzz", "scheduled", ((*records,),), ())
    log = opener(url, "power")
    try:
        (outcome,) = log.append([New("zzz", "probe", "digest", records, probe.AT)])
    finally:
        log.close()
    if not isinstance(outcome, Ok):
        return f"it takes no writes: {outcome}"
    log = opener(url, "power")
    try:
        return "" if probe.picture(log) == (*before, added) else "a write after it changed something else"
    finally:
        log.close()
