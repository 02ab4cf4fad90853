"""`zart debug`: a run in the terminal, event by event; as commands in a pipe, as JSON, and typed by a person."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import zart_core as zart
from zart_core.cli import app
from zart_core.cli.finding import load

SHOP = """
import attrs, zart_core as zart

@attrs.frozen
class Order:
    id: str
    items: dict[str, int]
    card: str

@zart.step("price-{sku}")
def price(sku: str) -> int:
    return {"tea": 450, "pot": 2400, "cup": -700}[sku]

@zart.step("charge")
def charge(order: str, cents: int) -> str:
    if cents < 0:
        raise RuntimeError("negative \\x1b[31m amount")
    return "txn-1"

def total_of(items: dict[str, int]) -> zart.Flow[int]:
    total = 0
    for sku, count in items.items():
        cents = yield from price(sku)
        total += cents * count
    return total

@zart.workflow("shop")
def shop(order: Order) -> zart.Flow[str]:
    total = yield from total_of(order.items)
    print("said by the workflow")
    return (yield from charge(order.id, total))

class Declined(Exception):
    def __init__(self, card: str, cents: int) -> None:
        super().__init__(f"card {card} declined")
        self.card = card
        self.total = cents

@zart.step("decline", retry=zart.Retry.fixed(1, 0, on=(Declined,)), raises=(Declined,))
def decline() -> None:
    raise Declined("4242", 7)

@zart.workflow("refusing")
def refusing() -> zart.Flow[None]:
    yield from decline()

@zart.workflow("waits")
def waits() -> zart.Flow[str]:
    first, second = yield from zart.gather(
        zart.wait_for_event("left", str), zart.wait_for_event("right", str)
    )
    return first + second
"""


def line_of(text: str) -> int:
    return next(number for number, line in enumerate(SHOP.splitlines(), 1) if text in line)


class Place:
    """A folder with a module and a store in it, and `zart debug` called there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"sqlite:{folder / 'store.db'}"
        self.module = folder / "shop.py"
        self.module.write_text(SHOP)
        self.flows = load(str(self.module))

    def start(self, id: str, **items: int) -> None:
        order = self.flows.Order("7", items, "4242")
        with contextlib.closing(zart.open_log(self.url)) as log, contextlib.suppress(zart.ExecutionFailed):
            zart.run_inline(self.flows.shop, order, log=log, id=id)

    def events(self, id: str) -> list[zart.Event]:
        with contextlib.closing(zart.open_log(self.url)) as log:
            return list(zart.Codec().decode_events(log.records(id), id))

    def __call__(self, *args: str, typed: str = "", code: int = 0) -> str:
        """Run `zart debug` in this process; gives what it prints."""
        out, old = io.StringIO(), sys.stdin
        sys.stdin = io.StringIO(typed)
        try:
            with contextlib.redirect_stdout(out):
                assert app.main(["debug", *args, "--store", self.url]) == code
        finally:
            sys.stdin = old
        return out.getvalue()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    made = Place(tmp_path_factory.mktemp("debug"))
    made.start("good", tea=2, pot=1)
    made.start("bad", tea=2, cup=4, pot=0)
    return made


def moments(text: str) -> list[int]:
    """The moments that were shown, in order."""
    return [int(line.split()[1]) for line in text.splitlines() if line.startswith("moment ")]


def test_the_last_moment_of_a_failed_run_shows_line_values_and_the_steps_own_traceback(place: Place) -> None:
    """What failed, in which line of the workflow and of the step, with which values."""
    text = place("bad", str(place.module), "--at", "last")

    assert moments(text) == [len(place.events("bad"))]
    assert "failed" in text.splitlines()[0]
    assert f">{line_of('return (yield'):>6}      return (yield from charge(order.id, total))" in text
    assert "total = -1900" in text
    assert 'raise RuntimeError("negative \\x1b[31m amount")' in text
    assert "\x1b" not in text


def test_commands_of_a_pipe(place: Place) -> None:
    """next, back, to, first, last, find and bisect go where they say; what changed is marked with what it was."""
    lines = [
        "first",
        "next",
        "n 2",
        "",
        "back 3",
        "to 4",
        "last",
        "find charge",
        "find price-cup",
        "bisect total < 0",
    ]

    text = place("bad", str(place.module), typed="\n".join(lines))

    last = len(place.events("bad"))
    charge = place.events("bad").index(
        next(event for event in place.events("bad") if getattr(event, "name", "") == "charge")
    )
    assert moments(text) == [last, 1, 2, 4, 5, 2, 4, last, charge + 1, 5, 7]
    assert "* total = -1900   (was 900)" in text
    assert "said by the workflow" not in text.splitlines()


def test_frames_locals_where_events_and_help(place: Place) -> None:
    """Lists of what there is at a moment, and of what one may say."""
    text = place(
        "bad", str(place.module), "--hide", "x", typed="to 4\nframes\nlocals\nwhere\nevents\nevents all\nhelp"
    )

    assert "total_of, " in text
    assert f"shop.py:{line_of('cents = yield')}: cents = yield from price(sku)" in text
    assert ">     4  Resolved 'price-tea'" in text
    assert f"{len(place.events('bad')):>7}  Closed" in text
    assert "bisect EXPR" in text


def test_quit_leaves_and_comments_are_passed_over(place: Place) -> None:
    """Nothing after quit is done."""
    assert moments(place("good", str(place.module), typed="# look\nfirst\nquit\nlast")) == [
        len(place.events("good")),
        1,
    ]


@pytest.mark.parametrize(
    ("typed", "why"),
    [
        ("sideways", "there is no command 'sideways'; help lists them"),
        ("f", "there is no command 'f' (first, frames, find?)"),
        ("next soon", "'soon' is no number of events"),
        ("to 99", "'99' is no moment of this run; give 0 to 14, first or last"),
        ("find", "find what?"),
        ("find zebra", "no event is about 'zebra'"),
        ("bisect total >", "is no Python expression"),
        ("bisect total > 10**9", "is true at no moment"),
        ("bisect total / 0", "is true at no moment; last it raised ZeroDivisionError"),
    ],
)
def test_a_wrong_command_in_a_pipe_ends_it(
    place: Place, capsys: pytest.CaptureFixture[str], typed: str, why: str
) -> None:
    """One line that says what is wrong, and exit code 2; the lines after it are not done."""
    text = place("bad", str(place.module), typed=f"{typed}\nfirst", code=2)

    assert moments(text) == [14]
    assert why in capsys.readouterr().err


def test_json_for_scripts(place: Place) -> None:
    """One moment as JSON: event, branches, frames, locals, pending, and nothing else on stdout."""
    found = json.loads(place("bad", str(place.module), "--at", "4", "--json"))

    assert (found["id"], found["workflow"], found["events"], found["position"]) == ("bad", "shop", 14, 4)
    assert found["event"]["type"] == "Resolved"
    assert found["event"]["outcome"] == {"is": "done", "payload": 450}
    frames = found["branches"][0]["frames"]
    assert [frame["function"] for frame in frames] == ["shop", "total_of"]
    assert {"name": "total", "text": "900", "state": "changed", "before": "0"} in frames[1]["locals"]
    assert found["asks"] == ["step 'price-cup'"]
    assert json.loads(place("bad", str(place.module), "--json"))["status"] == "failed"


def test_hidden_names_show_nowhere(place: Place) -> None:
    """Neither in variables nor in events; and what events hold without a name is hidden too."""
    shown = place("bad", str(place.module), typed="first\nevents all\nlocals\nto 4\nlast")
    hidden = place("bad", str(place.module), "--hide", "card", typed="first\nevents all\nlocals\nto 4\nlast")

    assert "4242" in shown
    assert "4242" not in hidden
    assert "card=(hidden)" in hidden
    assert "-1900]" in shown
    assert "-1900]" not in hidden
    assert '"tea": 2' in hidden
    assert "4242" not in place("bad", str(place.module), "--hide", "card", "--json", "--at", "1")


def test_an_error_does_not_tell_what_is_hidden_in_it(place: Place) -> None:
    """Its fields are on record beside its text, which may repeat them; so of what it caused, and of a whole step."""
    with contextlib.closing(zart.open_log(place.url)) as log, contextlib.suppress(zart.ExecutionFailed):
        zart.run_inline(place.flows.refusing, log=log, id="refused")
    for args in (["--json", "--at", "4"], ["--json", "--at", "5"], ["--json"], []):
        typed = "events all\nto 4\nlocals\nlast\nlocals"
        call = ["refused", str(place.module), *args]
        assert "4242" in place(*call, typed=typed)
        assert "4242" not in place(*call, "--hide", "card", typed=typed)
    assert "4242" not in place("refused", str(place.module), "--hide", "decline", "--at", "4", "--json")
    assert "4242" in place("refused", str(place.module), "--hide", "cents", "--at", "4", "--json")


def test_branches_of_a_waiting_run(place: Place) -> None:
    """What runs beside others is shown beside others; the log is only read."""
    with contextlib.closing(zart.open_log(place.url)) as log:
        zart_inline = zart.hosts.inline.Inline(log, zart.Registry())  # type: ignore[attr-defined]
        zart_inline.start(place.flows.waits, None, "waiting")
        zart_inline.work()
        log.release(zart_inline.worker)
    before = place.events("waiting")

    text = place("waiting", str(place.module), typed="frames")

    assert "waits for event 'left[1]', event 'right[1]'" in text
    assert place.events("waiting") == before


def test_an_exported_file_is_as_good_as_a_store(place: Place, tmp_path: Path) -> None:
    """What `zart export` wrote is looked at, rehearsed and drawn without the store."""
    assert app.main(["export", "bad", "-o", str(tmp_path), "--store", place.url]) == 0
    file, folder, gone = str(tmp_path / "bad.json"), f"{tmp_path}/", "sqlite:/nowhere/at-all.db"

    def read(*args: str) -> str:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            assert app.main([*args, "--store", gone]) == 0
        return out.getvalue()

    from_file = read("debug", file, str(place.module), "--at", "5", "--json")
    assert json.loads(from_file) == json.loads(place("bad", str(place.module), "--at", "5", "--json"))
    assert "'bad', run 0, up to event 3 of 14" in read(
        "fork", file, str(place.module), "--dry-run", "--set", "price-tea=1"
    )
    assert read("timeline", file).startswith("<svg")
    assert read("graph", file) == read("graph", folder)
    assert "price-" in read("graph", file)


def test_a_run_that_does_not_fit_its_code(place: Place, tmp_path: Path) -> None:
    """Both sides of the divergence, and the line of the code that wants something else."""
    changed = tmp_path / "changed.py"
    changed.write_text(SHOP.replace("price-{sku}", "cost-{sku}"))

    text = place("bad", str(changed), typed="back\nnext\nnext")

    assert "which the code does not go along with" in text
    assert "recorded: step 'price-tea'" in text
    assert "yielded:  step 'cost-tea'" in text
    assert f">{line_of('cents = yield'):>6}          cents = yield from price(sku)" in text
    assert moments(text) == [1, 1, 1, 1]
    assert json.loads(place("bad", str(changed), "--json"))["status"] == "parked"


def test_what_cannot_be_looked_at_is_said(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No such execution, no such run, no such moment, a module without the workflow."""
    other = tmp_path / "other.py"
    other.write_text(SHOP.replace('"shop"', '"market"'))

    place("nobody", str(place.module), code=3)
    place("bad", str(place.module), "--run", "1", code=2)
    place("bad", str(place.module), "--at", "99", code=2)
    place("bad", str(other), code=2)

    said = capsys.readouterr().err.splitlines()
    assert "no execution has the id 'nobody'" in said[0]
    assert "has the runs 0 to 0, not 1" in said[1]
    assert "'99' is no moment" in said[2]
    assert "the run is of workflow 'shop', and what was given has market, refusing, waits" in said[3]
    assert "its commands stand in module 'shop" in said[3]


def heard(master: int, until: bytes | None) -> bytes:
    """What a terminal shows up to a text, or to its end; waits for 30 s at the most."""
    text = b""
    while until is None or until not in text:
        ready, _, _ = select.select([master], [], [], 30.0)
        assert ready, text
        try:
            part = os.read(master, 4096)
        except OSError:  # what a terminal says when its last user has gone
            break
        if not part:
            break
        text += part
    return text


def test_a_person_at_a_terminal(place: Place) -> None:
    """A prompt, colours, a wrong command that is told and does not end it, and the end by Ctrl-D."""
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "zart_core.cli", "debug", "bad", str(place.module), "--store", place.url]
    env: dict[str, Any] = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=env, close_fds=True)
    os.close(slave)
    text = b""
    try:
        for line in (b"sideways\n", b"to 4\n", b"\x04"):
            text += heard(master, b"(zart) ")
            os.write(master, line)
        text += heard(master, None)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(master)

    assert b"(zart)" in text
    assert b"there is no command 'sideways'" in text
    assert b"total = 900" in text
    assert b"\x1b[33m" in text
