"""Kill the main job three times with SIGKILL, start it again each time, and see what is lost or done twice.

    python examples/corpus_demo.py [FOLDER] [--kills N] [--concurrency N]

Beside it the same job runs once without being killed; both must give the same report. Exits with 1 if they do
not, or if a file was analysed again that was not in flight at a kill.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import zart_core as zart

ID = "corpus"
WORKFLOW = Path(__file__).with_name("corpus.py")


class Failure(Exception):
    """Something that was promised does not hold."""


class Job:
    """The job in a folder of its own: its store, its journal, and the process that runs it at the moment."""

    def __init__(self, place: Path, asked: argparse.Namespace) -> None:
        place.mkdir()
        self.url = f"sqlite:{place / 'log.db'}"
        self.journal = place / "journal"
        target = [str(WORKFLOW), json.dumps({"folder": str(Path(asked.folder).resolve())})]
        options = ["--store", self.url, "--id", ID, "--concurrency", str(asked.concurrency)]
        self.command = [sys.executable, "-m", "zart_core.cli", "run", *target, *options]
        self.log = zart.open_log(self.url)
        self.events: list[zart.Event] = []
        self.born = 0
        """How many events there were before the process of the moment began."""

    def start(self, stdout: int | None = None) -> subprocess.Popen[bytes]:
        """Begin the job, or go on with it: the same command."""
        self.born = len(self.events)
        environment = {**os.environ, "CORPUS_JOURNAL": str(self.journal)}
        return subprocess.Popen(self.command, env=environment, stdout=stdout)

    def mend_journal(self) -> None:
        """Take out the line that a kill cut, as it may at the end of a page: that file was not analysed."""
        os.truncate(self.journal, self.journal.read_bytes().rfind(b"\n") + 1)

    def look(self) -> None:
        """Read what is new in the log, from outside, as any process may."""
        start = len(self.events)
        self.events += zart.Codec().decode_events(self.log.records(ID, 0, start), ID, 0, start)

    def files(self, kind: type[zart.Issued | zart.Began | zart.Resolved], since: int = 0) -> set[str]:
        """Files whose analysis was issued, begun or resolved since that event."""
        seqs = {event.seq for event in self.events[since:] if isinstance(event, kind)}
        issued = [event for event in self.events if isinstance(event, zart.Issued) and event.seq in seqs]
        return {event.name.removeprefix("analyse ") for event in issued if event.name.startswith("analyse ")}

    def is_at(self, share: float) -> bool:
        """Whether the process has done something, and this share of the files is analysed."""
        known, done = self.files(zart.Issued), self.files(zart.Resolved)
        return len(self.events) > self.born and 0 < share * len(known) <= len(done)

    def report(self) -> dict[str, Any]:
        """What the job came to."""
        self.look()
        match self.events[-1:]:
            case [zart.Closed(status=zart.Status.COMPLETED, payload=payload)]:
                report: dict[str, Any] = json.loads(payload)
                return report
            case _:
                raise Failure("the job did not complete")


def kill_at(job: Job, share: float) -> set[str]:
    """Run the job until this share of the files is analysed, kill it, and give the files in flight."""
    process = job.start()
    try:
        while not job.is_at(share):
            if process.poll() is not None:
                raise Failure(f"the job ended with {process.returncode} before it was killed")
            time.sleep(0.05)
            job.look()
    finally:
        process.kill()
    process.wait()
    job.mend_journal()
    job.look()
    if process.returncode != -signal.SIGKILL or isinstance(job.events[-1], zart.Closed):
        raise Failure("the job ended before it was killed")
    in_flight = job.files(zart.Began, job.born) - job.files(zart.Resolved)
    done = len(job.files(zart.Resolved))
    say(f"\n--- killed -9 with {done:,} files analysed and {len(in_flight)} in flight\n")
    return in_flight


def check(job: Job, in_flight: list[set[str]], concurrency: int) -> None:
    """Compare what really ran, by the journal, with what was allowed to."""
    ran = Counter(job.journal.read_text().splitlines())
    may = Counter(path for paths in in_flight for path in paths)
    twice = sorted(path for path, times in ran.items() if times > 1)
    say(f"analysed twice: {len(twice)} of {len(ran):,} files; {sum(may.values())} were in flight at a kill")
    say("".join(f"    {path}\n" for path in twice))
    if wrong := [path for path in ran if ran[path] > 1 + may[path]]:
        raise Failure(f"analysed again without being in flight at a kill: {', '.join(wrong)}")
    if missed := job.files(zart.Issued) - ran.keys():
        raise Failure(f"never analysed: {', '.join(sorted(missed))}")
    if any(len(paths) > concurrency for paths in in_flight):
        raise Failure(f"more than {concurrency} files were in flight at a kill")


def demonstrate(place: Path, asked: argparse.Namespace, stack: contextlib.ExitStack) -> None:
    """Run both jobs, kill one of them on the way, and compare. Raises Failure."""
    unharmed, harmed = Job(place / "unharmed", asked), Job(place / "harmed", asked)
    reference = stack.enter_context(unharmed.start(stdout=subprocess.DEVNULL))
    stack.callback(reference.kill)
    in_flight = [kill_at(harmed, (n + 1) / (asked.kills + 1)) for n in range(asked.kills)]
    if harmed.start().wait() != 0:
        raise Failure("the job did not complete after the last kill")
    say("\nwaiting for the run that is not killed ...")
    reference.wait()
    check(harmed, in_flight, asked.concurrency)
    say("the report:")
    for name, value in harmed.report().items():
        say(f"    {name:<14}{value}")
    if harmed.report() != unharmed.report():
        raise Failure(f"the report of the run that was never killed is another: {unharmed.report()}")
    say(f"\nkilled {len(in_flight)} times; the report equals that of a run that was never killed")


def say(line: str) -> None:
    """Print a line at once; a killed live view may have left the cursor hidden."""
    print(("\x1b[?25h" if sys.stdout.isatty() else "") + line, flush=True)


def main() -> int:
    """Run the demo; gives 0 when everything holds."""
    parser = argparse.ArgumentParser(description="Kill the main job on the way, and see whether it matters.")
    parser.add_argument("folder", nargs="?", default=sysconfig.get_path("stdlib"))
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--concurrency", type=int, default=8)
    asked, begun = parser.parse_args(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="zart-demo-") as folder, contextlib.ExitStack() as stack:
        try:
            demonstrate(Path(folder), asked, stack)
        except Failure as failure:
            say(f"FAILED: {failure}")
            return 1
    say(f"demo done in {time.monotonic() - begun:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
