"""A process of its own for the tests of recovery: `python engine_worker.py SCENARIO URL JOURNAL`."""

from __future__ import annotations

import asyncio
import atexit
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import slept

import zart_core as zart

JOURNAL = ""


def note(text: str) -> int:
    """Append a line to the journal; gives how often it stands there now."""
    fd = os.open(JOURNAL, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(fd, f"{text}\n".encode())
    finally:
        os.close(fd)
    return Path(JOURNAL).read_text().splitlines().count(text)


@zart.step("kills-{name}", max_crashes=3)
def kills(name: str) -> None:
    note(f"kills {name}")
    time.sleep(0.05)  # the others are in flight too
    os.kill(os.getpid(), signal.SIGKILL)


@zart.step("kills-late", retry=zart.Retry.fixed(1, 0.01), max_crashes=2)
def kills_at_its_second_attempt() -> None:
    note("kills-late")
    if zart.context().attempt == 0:
        raise RuntimeError("once")
    os.kill(os.getpid(), signal.SIGKILL)


@zart.step("once", at_most_once=True)
def once() -> None:
    note("once")
    os.kill(os.getpid(), signal.SIGKILL)


@zart.step("neighbour-{n}")
def neighbour(n: int) -> int:
    note(f"neighbour {n} {zart.context().idempotency_key}")
    time.sleep(0.3)
    return n


@zart.step("hangs")
def hangs() -> None:
    note("hangs")
    threading.Event().wait()


@zart.step("hangs-async")
async def hangs_async() -> None:
    note("hangs-async")
    await asyncio.sleep(3600)


@zart.step("slow-{n}")
def slow(n: int) -> int:
    note(f"slow {n} {os.getpid()}")
    time.sleep(0.02)
    return n


@zart.workflow("killer")
def killer(name: str) -> zart.Flow[str]:
    try:
        yield from kills(name)
    except zart.StepLost as error:
        return str(error)
    return "?"


@zart.workflow("late-killer")
def late_killer(_: None) -> zart.Flow[str]:
    try:
        yield from kills_at_its_second_attempt()
    except zart.StepLost as error:
        return str(error)
    return "?"


@zart.workflow("careful")
def careful(_: None) -> zart.Flow[str]:
    try:
        yield from once()
    except zart.StepLost as error:
        return str(error)
    return "?"


@zart.workflow("neighbours")
def neighbours(base: int) -> zart.Flow[int]:
    return sum((yield from zart.wait([neighbour(base + n) for n in range(3)])))


@zart.workflow("hanging")
def hanging(_: None) -> zart.Flow[None]:
    yield from zart.wait([hangs(), hangs_async()])


@zart.workflow("many")
def many(base: int) -> zart.Flow[int]:
    total = 0
    for n in range(5):
        total += yield from slow(base + n)
    return total


ALL = [killer, late_killer, careful, neighbours, hanging, many]


def run_until_closed(url: str, starts: list[tuple[Any, Any, str]]) -> None:
    """Start these, and wait for all; print their results."""
    with zart.open(url, ALL) as engine:
        handles = [engine.start(workflow, input, id=id) for workflow, input, id in starts]
        for handle in handles:
            print(handle.id, handle.result(60), flush=True)


def tell_how_long_it_slept() -> None:
    """From the next line on stdin, which is answered, to the very end of the process."""
    slept.watch()
    since: list[float] = []
    atexit.register(lambda: print(slept.now() - since[0], flush=True))  # the first to come is the last to go

    def wait_for_line() -> None:
        sys.stdin.readline()
        since.append(slept.now())
        print("now", flush=True)

    threading.Thread(target=wait_for_line, daemon=True).start()


def main() -> None:
    global JOURNAL
    scenario, url, JOURNAL = sys.argv[1:4]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background a shell has it ignored
    if scenario.startswith("hang"):
        tell_how_long_it_slept()
    match scenario:
        case "killer":
            run_until_closed(url, [(killer, "a", "k")])
        case "killers":
            starts: list[tuple[Any, Any, str]] = [
                (neighbours, 0, "n0"),
                (killer, "a", "ka"),
                (killer, "b", "kb"),
            ]
            run_until_closed(url, [*starts, (neighbours, 10, "n10")])
        case "late":
            run_until_closed(url, [(late_killer, None, "l")])
        case "once":
            run_until_closed(url, [(careful, None, "c")])
        case "hang":
            with zart.open(url, ALL) as engine:
                engine.start(hanging, None, id="h")
                print("ready", flush=True)
                engine.get("h").result()
        case "hang-in-async":

            async def serve() -> None:
                async with zart.serve(url, ALL) as engine:
                    await engine.start(hanging, None, id="h")
                    print("ready", flush=True)
                    await engine.run(hanging, None, id="h")

            asyncio.run(serve())
        case "exit":
            engine = zart.open(url, ALL)
            engine.start(hanging, None, id="h")
            print("ready", flush=True)
        case "serve":
            with zart.open(url, ALL) as engine:
                print("ready", flush=True)
                sys.stdin.readline()
        case "serve-until-killed":
            with zart.open(url, ALL) as engine:
                print("ready", flush=True)
                time.sleep(600)
        case _:
            raise SystemExit(scenario)


if __name__ == "__main__":
    main()
