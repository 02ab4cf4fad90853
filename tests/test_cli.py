"""The `zart` command: every command from outside, as a process; its text, its JSON, its exit codes."""

import contextlib
import importlib.metadata
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import zart_core as zart
from zart_core.cli import app
from zart_core.cli.running import misfit
from zart_core.cli.texts import columns, duration, plain, shortened
from zart_core.hosts.explain import steps_of
from zart_core.hosts.inline import Inline

FLOWS = """
import os, time
import attrs, zart_core as zart

def ran(what):
    with open("ran", "a") as journal:
        journal.write(what + "\\n")

@attrs.frozen
class Order:
    id: str
    cents: int

@zart.step("charge", retry=zart.Retry.fixed(1, 0.05))
def charge(order: Order) -> str:
    ran("charge")
    if zart.context().attempt == 0:
        raise OSError("no answer")
    return f"txn-{order.id}"

@zart.step("ship-{place}")
def ship(place: str) -> int:
    ran(f"ship-{place}")
    return len(place)

@zart.workflow("order")
def order(order: Order) -> zart.Flow[dict[str, int | str]]:
    txn = yield from charge(order)
    place = yield from zart.wait_for_event("ship-to", str)
    return {"txn": txn, "shipped": (yield from ship(place))}

@zart.step("double")
def double(n: int) -> int:
    ran(f"double {n}")
    return 2 * n

@zart.workflow("doubled")
def doubled(n: int) -> zart.Flow[int]:
    return (yield from double(n))

@zart.workflow("counted")
def counted(n: int) -> zart.Flow[str]:
    yield from double(n)
    if n < 2:
        yield from counted.continue_as_new(n + 1)
    return "done"

@zart.step("nap-{n}")
def nap(n: int) -> int:
    ran(f"nap-{n}")
    time.sleep(0.05 if n < 3 else float(os.environ.get("NAP", "0")))
    return n

@zart.workflow("napping")
def napping() -> zart.Flow[int]:
    for n in range(5):
        yield from nap(n)
    return 5

@zart.step("rude")
def rude() -> str:
    raise ValueError("red \\x1b[31m, a bell \\a, a line\\nand \\u202e backwards")

@zart.workflow("insulted")
def insulted() -> zart.Flow[str]:
    return (yield from rude())
"""

DEADLINE_S = 30.0
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
SECONDS = re.compile(r"\b\d+\.\d+ s\b")


class Shell:
    """A folder with workflows in it, and `zart` called there."""

    def __init__(self, folder: Path, store: str) -> None:
        self.folder = folder
        self.url = f"{store}:{folder / 'store'}"
        self.env = {**os.environ, "ZART_STORE": self.url, "COLUMNS": "200"}
        folder.joinpath("flows.py").write_text(FLOWS)

    def command(self, *args):
        return [sys.executable, "-W", "error", "-m", "zart_core.cli", *args]

    def __call__(self, *args, stdin="", **env):
        """Run a command to its end; what it prints on each stream is in the result."""
        return subprocess.run(
            self.command(*args),
            cwd=self.folder,
            env={**self.env, **env},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
        )

    def read(self, *args):
        """Run a command that only reads in this process, which is quicker; gives its JSON."""
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            assert app.main([*args, "--store", self.url, "--json"]) == 0
        return json.loads(out.getvalue())

    def steps(self, id):
        """The steps of an execution, each with its state; none where it is not there yet."""
        if not self.folder.joinpath("store").exists():
            return {}
        with contextlib.closing(zart.open_log(self.url)) as log:
            events = zart.Codec().decode_events(log.records(id))
        return {step.name: step.state for step in steps_of(events)}

    def json(self, *args, **options):
        """Run a command with --json; it must go well."""
        done = self(*args, "--json", **options)
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads(done.stdout)

    @contextlib.contextmanager
    def running(self, *args, **env):
        """A command that goes on beside others."""
        process = subprocess.Popen(
            self.command(*args),
            cwd=self.folder,
            env={**self.env, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            try:
                yield process
            finally:
                process.kill()

    def ran(self):
        """What really ran, in order."""
        journal = self.folder / "ran"
        return journal.read_text().split("\n")[:-1] if journal.exists() else []

    def wait_until_ran(self, what):
        until(lambda: what in self.ran())


def until(true):
    """Wait until something is so."""
    end = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < end, "it has taken too long"
        time.sleep(0.02)


def steady(text):
    """Text without what differs from run to run: times and durations."""
    return SECONDS.sub("S s", MOMENT.sub("T", text))


@pytest.fixture
def shell(tmp_path):
    return Shell(tmp_path, "sqlite")


@pytest.fixture
def called(capsys, tmp_path, monkeypatch):
    """Call the command in this process: for what needs no other one."""
    monkeypatch.setenv("ZART_STORE", f"sqlite:{tmp_path / 'store'}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def call(*args):
        code = app.main(args)
        out, err = capsys.readouterr()
        return code, out, err

    return call


# ---------------------------------------------------------------- run


def test_run_in_a_pipe(shell):
    """In a pipe, `run` prints one line for each thing of note, and the result as JSON on the last."""
    done = shell("run", "flows.py:doubled", "21", "--id", "d")

    assert done.returncode == 0
    assert done.stderr == ""
    assert steady(done.stdout) == (
        "T run 0 of workflow 'doubled' began\nT step 'double' done in S s\nT completed after S s\n42\n"
    )


def test_run_as_json(shell):
    """With --json, stdout is one JSON value; what goes on is on stderr."""
    done = shell("run", "flows:doubled", "21", "--id", "d", "--json")
    result = json.loads(done.stdout)

    assert MOMENT.fullmatch(result.pop("ended_at"))
    assert (done.returncode, result) == (0, {"id": "d", "status": "completed", "result": 42})
    assert "step 'double' done" in done.stderr


def test_run_twice(shell):
    """`run` of an execution that has ended gives its result again, and runs nothing (R15)."""
    assert shell("run", "flows.py:doubled", "21", "--id", "d").returncode == 0
    again = shell("run", "flows.py:doubled", "--id", "d")

    assert (again.returncode, steady(again.stdout)) == (0, "T it had ended before: completed\n42\n")
    assert shell.ran() == ["double 21"]


def test_run_that_fails(shell):
    """An execution that fails is exit code 1 and one line; what data brings is escaped everywhere."""
    done = shell("run", "flows.py:insulted", "--id", "rude")
    others = [shell(*args) for args in (("show", "rude"), ("history", "rude"), ("list",))]

    words = r"ValueError: red \x1b[31m, a bell \x07, a line and \u202e backwards"
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"zart: execution 'rude' is failed: {words}; zart explain rude says more"
    ]
    for text in (done.stdout, done.stderr, *(other.stdout for other in others)):
        assert all(char.isprintable() or char == "\n" for char in text)
    assert [other.returncode for other in others] == [0, 0, 0]
    failed = json.loads(shell("run", "flows.py:insulted", "--id", "rude", "--json").stdout)
    assert failed["failure"]["message"].endswith("red \x1b[31m, a bell \a, a line\nand \u202e backwards")


def test_the_next_command_can_be_copied(called, tmp_path):
    """What says more of a failure is the whole command: with the store where the environment does not have it."""
    tmp_path.joinpath("flows.py").write_text(FLOWS)
    sys.modules.pop("flows", None)
    try:
        _, _, err = called("run", "flows.py:insulted", "--id", "no 1", "--store", "sqlite:other.db")
    finally:
        sys.modules.pop("flows", None)

    assert err.endswith("; zart explain 'no 1' --store sqlite:other.db says more\n")


def test_run_follows_every_run(shell):
    """`run` follows an execution that continues as new; `history --run` shows an earlier run."""
    done = shell("run", "flows.py:counted", "0", "--id", "c")
    lines = [line.split(" ", 1)[1] for line in steady(done.stdout).splitlines()[:-1]]

    assert [line for line in lines if line.startswith("run")] == [
        f"run {n} of workflow 'counted' began" for n in range(3)
    ]
    assert done.stdout.splitlines()[-1] == '"done"'
    assert shell.read("history", "c", "--run", "0")["events"][-1]["status"] == "continued"
    assert shell("history", "c", "--run", "3").returncode == 2


def test_input_from_stdin(shell):
    """`-` reads the input from stdin, and an input that does not fit is told without its value."""
    assert shell("run", "flows.py:doubled", "-", stdin="4").stdout.splitlines()[-1] == "8"
    wrong = shell("run", "flows.py:order", "-", stdin='{"id": "hunter2", "cents": "hunter3"}')

    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == "zart: input.cents: expected int, found str\n"


# ---------------------------------------------------------------- an order's life, in several processes


def test_life_of_an_order(shell):
    """Started, shown, run, sent to from another process, ended: each command says what it should, whole."""
    order = json.dumps({"id": "42", "cents": 1999})
    assert shell.json("start", "flows.py:order", order, "--id", "o") == {"id": "o", "created": True}
    assert shell.json("start", "flows.py:order", order, "--id", "o") == {"id": "o", "created": False}
    assert shell.ran() == []
    listed = shell.read("list")
    assert (listed["items"][0]["status"], listed["next"]) == ("scheduled", None)

    with shell.running("run", "flows.py:order", "--id", "o") as process:
        until(lambda: len(shell.steps("o")) == 2)
        shown = steady(shell("show", "o").stdout)
        assert [line.split() for line in shown.splitlines()] == [
            line.split()
            for line in (
                "execution 'o' of workflow 'order', run 0, is waiting",
                "STEP KIND STATE ATTEMPTS DURATION AT",
                "charge step done 2 S s flows.order, line +2",
                "ship-to[1] event waiting S s flows.order, line +3",
                "waits for event 'ship-to' (ship-to[1]) at flows.order, line +3, since T; "
                "anybody can send it: zart send o ship-to JSON; "
                "it has no deadline, and no such event was ever sent to it",
                "it waits for ever unless somebody acts; zart cancel o would end it",
            )
        ]
        sent = {"id": "o", "event": "ship-to", "accepted": True}
        assert shell.json("send", "o", "ship-to", "-", "--key", "k", stdin='"Bonn"') == {**sent, "new": True}
        out, err = process.communicate(timeout=DEADLINE_S)

    assert (process.returncode, err) == (0, "")
    assert steady(out).replace("T ", "").splitlines() == [
        "attached to run 0: 0 done, 0 running, 0 waiting",
        "step 'charge' failed at attempt 1: OSError: no answer; next attempt at T",
        "step 'charge' done at attempt 2 in S s",
        "waits for event 'ship-to'",
        "event 'ship-to' came",
        "step 'ship-Bonn' done in S s",
        "completed after S s",
        '{"txn": "txn-42", "shipped": 4}',
    ]
    assert shell.ran() == ["charge", "charge", "ship-Bonn"]
    shell.folder.joinpath("flows.py").unlink()
    check_without_code(shell)


def check_without_code(shell):
    """What can be read once the code is gone."""
    shown = shell.json("show", "o")
    assert [(step["name"], step["state"], step["attempts"]) for step in shown["steps"]] == [
        ("charge", "done", 2),
        ("ship-to[1]", "done", 0),
        ("ship-Bonn", "done", 1),
    ]
    assert (shown["status"], shown["input"], shown["result"], shown["unread"]) == (
        "completed",
        {"id": "42", "cents": 1999},
        {"txn": "txn-42", "shipped": 4},
        0,
    )
    history = shell.json("history", "o")
    assert [event["type"] for event in history["events"]] == [
        *("Started", "Issued", "Began", "Retried", "Resolved", "Issued", "Delivered", "Resolved", "Issued"),
        *("Began", "Resolved", "Closed"),
    ]
    delivered = history["events"][6]
    assert MOMENT.fullmatch(delivered.pop("at"))
    assert delivered == {
        "position": 6,
        "event": "ship-to",
        "type": "Delivered",
        "n": 0,
        "payload": "Bonn",
        "key": "k",
        "held": False,
    }
    late = shell("send", "o", "ship-to", '"Ulm"')
    assert (late.returncode, late.stderr) == (
        6,
        "zart: execution 'o' has ended and takes no messages any more\n",
    )
    assert shell.read("cancel", "o") == {"id": "o", "accepted": False, "held": False}
    assert shell.read("verify") == {"ok": True, "executions": 1, "records": 12, "messages": 0}
    assert steady(shell("verify", shell.url).stdout) == "no damage; 1 executions, 12 records, 0 messages\n"


def test_same_key_twice(shell):
    """The same key again is accepted and changes nothing (R14); a payload keeps its type."""
    shell.json("start", "flows.py:order", '{"id": "1", "cents": 1}', "--id", "o")
    sent = {"id": "o", "event": "ship-to", "accepted": True}

    assert shell.json("send", "o", "ship-to", '"Bonn"', "--key", "k") == {**sent, "new": True}
    assert shell.json("send", "o", "ship-to", '"Ulm"', "--key", "k") == {**sent, "new": False}
    done = shell("run", "flows.py:order", "--id", "o", "--json")
    assert json.loads(done.stdout)["result"] == {"txn": "txn-1", "shipped": 4}


def test_cancel_and_terminate(shell):
    """From another process: cancelled unwinds, terminated ends at once; both are exit code 1 for who waits."""
    for verb, ended in (("cancel", "cancelled"), ("terminate", "terminated")):
        order = json.dumps({"id": verb, "cents": 1})
        with shell.running("run", "flows.py:order", order, "--id", verb) as process:
            until(lambda verb=verb: len(shell.steps(verb)) == 2)
            flags = ["--yes"] if verb == "terminate" else []
            asked = shell.json(verb, verb, "--reason", "no \x1b need", *flags)
            _, err = process.communicate(timeout=DEADLINE_S)
        assert asked == {"id": verb, "accepted": True, "held": asked["held"]}
        assert process.returncode == 1
        assert err.startswith(f"zart: execution '{verb}' is {ended}") and err.count("\n") == 1
        assert r"no \x1b need" in err
        assert shell.read("list", "--status", ended)["items"][0]["id"] == verb


# ---------------------------------------------------------------- ends that are no ends


def test_ctrl_c(shell):
    """Ctrl-C ends `run` within a second, says how to go on, and nothing that was done is done again."""
    with shell.running("run", "flows.py:napping", "--id", "n", NAP="30") as process:
        shell.wait_until_ran("nap-3")
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=DEADLINE_S)
        took = time.monotonic() - begun

    assert process.returncode == 130
    assert err == (
        f"zart: interrupted, and nothing is lost; go on with: zart run flows.py:napping --store {shell.url} --id n\n"
    )
    assert took < 2.0, "a second, and another one for a busy machine"
    again = shell("run", "flows.py:napping", "--id", "n")
    assert (again.returncode, again.stdout.splitlines()[-1]) == (0, "5")
    assert shell.ran() == ["nap-0", "nap-1", "nap-2", "nap-3", "nap-3", "nap-4"]


def test_sigterm_and_kill(shell):
    """SIGTERM hands over as Ctrl-C does, with a code of its own; after SIGKILL the same command goes on, too."""
    for number, code in ((signal.SIGTERM, 143), (signal.SIGKILL, -9)):
        with shell.running("run", "flows.py:napping", "--id", "n", NAP="30") as process:
            until(lambda n=shell.ran().count("nap-3"): shell.ran().count("nap-3") > n)
            process.send_signal(number)
            assert process.wait(DEADLINE_S) == code
    again = shell("run", "flows.py:napping", "--id", "n")

    assert again.returncode == 0
    assert shell.ran() == ["nap-0", "nap-1", "nap-2", "nap-3", "nap-3", "nap-3", "nap-4"]
    starts = [(step["attempts"], step["starts"]) for step in shell.read("show", "n")["steps"]]
    assert starts == [(1, 1), (1, 1), (1, 1), (1, 3), (1, 1)]
    assert re.search(r"nap-3 +step +done +1 \(3 starts\)", shell("show", "n").stdout)


def test_nobody_reads(shell):
    """When whoever reads the output goes away the command ends with 141, and the execution can be resumed."""
    with shell.running("run", "flows.py:napping", "--id", "n", NAP="2") as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(DEADLINE_S) == 141
        assert process.stderr.read() == ""

    assert shell("run", "flows.py:napping", "--id", "n").returncode == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only where there is a disk that is always full")
def test_output_to_a_full_disk(shell):
    """It is said as what it is, once, and no bug."""
    with_executions(shell.folder, 1)
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            shell.command("export", "e1"),
            env=shell.env,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=shell.folder,
        )

    assert (done.returncode, done.stderr) == (
        2,
        "zart: the output cannot be written: No space left on device\n",
    )


def test_output_without_all_characters(called, tmp_path, monkeypatch):
    """Text that the output's encoding does not have is escaped, and nothing fails."""
    with contextlib.closing(zart.open_log(f"sqlite:{tmp_path / 'store'}")) as log:
        Inline(log, zart.Registry()).start(waiting, 1, "größe-✓")
    data = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(data, "latin-1"))

    assert app.main(["list"]) == 0
    assert b"gr\xf6\xdfe-\\u2713" in data.getvalue()


def test_parked(shell):
    """Code that does not fit the log is exit code 5 and one line that says what to do; fixed code goes on."""
    with shell.running("run", "flows.py:napping", "--id", "n", NAP="30") as process:
        shell.wait_until_ran("nap-3")
        process.send_signal(signal.SIGINT)
        process.wait(DEADLINE_S)
    source = shell.folder.joinpath("flows.py")
    source.write_text(FLOWS.replace("yield from nap(n)", "yield from nap(n + 1)  # changed"))
    parked = shell("run", "flows.py:napping", "--id", "n")

    assert parked.returncode == 5
    assert parked.stderr.startswith(
        "zart: Diverged: execution 'n' (run 0) of workflow 'napping' diverged at event"
    )
    assert parked.stderr.count("\n") == 1
    assert shell.read("list")["items"][0]["status"] == "parked"
    source.write_text(FLOWS)
    assert shell("run", "flows.py:napping", "--id", "n").stdout.splitlines()[-1] == "5"


def test_file_log_in_use(tmp_path):
    """A file log that another process has open is exit code 4 and one line that names the holder."""
    shell = Shell(tmp_path, "file")
    with shell.running("run", "flows.py:napping", "--id", "n", NAP="30") as process:
        shell.wait_until_ran("nap-3")
        locked = shell("list")
        holder = process.pid
        process.send_signal(signal.SIGINT)
        process.wait(DEADLINE_S)

    assert (locked.returncode, locked.stdout) == (4, "")
    assert f"is open already, in process {holder}" in locked.stderr and locked.stderr.count("\n") == 1
    assert shell.read("show", "n")["steps"][3]["name"] == "nap-3"
    assert shell("run", "flows.py:napping", "--id", "n").returncode == 0


# ---------------------------------------------------------------- where a person watches


def test_live_view(shell):
    """On a terminal `run` draws what goes on, again and again, and leaves the cursor and the last state."""
    screen = on_terminal(shell, "run", "flows.py:napping", "--id", "n", NAP="0.5")

    assert screen.count("\x1b[?25l") == screen.count("\x1b[?25h") == 1
    assert re.search(r"> nap-3  0\.\d\d\d s", screen)
    last = screen.rpartition("  napping  ")[2]
    assert "completed" in last and "5 done, 0 running, 0 waiting" in last
    assert screen.rstrip().endswith("5")


def test_terminate_asks(shell):
    """On a terminal `terminate` asks, and does nothing without a yes; in a pipe it refuses without --yes."""
    shell.json("start", "flows.py:doubled", "1", "--id", "d")
    piped = shell("terminate", "d")
    refused = on_terminal(shell, "terminate", "d", answer="n\n")

    assert (piped.returncode, piped.stderr) == (
        2,
        "zart: terminate ends 'd' without unwinding it; add --yes to do it without being asked\n",
    )
    assert "End 'd' at once, without unwinding it? [y/N]" in refused and "nothing was done" in refused
    assert shell.read("show", "d")["unread"] == 0
    assert "asked to terminate" in on_terminal(shell, "terminate", "d", answer="y\n")
    assert shell.read("show", "d")["unread"] == 1
    assert shell("run", "flows.py:doubled", "--id", "d").returncode == 1
    assert shell.ran() == []


def on_terminal(shell, *args, answer="", **env):
    """What a command draws on a terminal."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(shell.folder)
        os.execve(sys.executable, shell.command(*args), {**shell.env, **env, "TERM": "xterm"})
    drawn = b""
    with contextlib.suppress(OSError):  # the terminal is gone
        while True:
            drawn += os.read(terminal, 65536)
            if answer and b"?" in drawn:
                os.write(terminal, answer.encode())
                answer = ""
    os.waitpid(pid, 0)
    os.close(terminal)
    return drawn.decode()


# ---------------------------------------------------------------- wrong use


@pytest.mark.parametrize(
    ("args", "code", "line"),
    [
        (["show", "nope"], 3, "no execution has the id 'nope'; zart list shows those there are"),
        (["send", "nope", "e"], 3, "no execution has the id 'nope'; zart list shows those there are"),
        (["cancel", "nope"], 3, "no execution has the id 'nope'; zart list shows those there are"),
        (["terminate", "nope", "--yes"], 3, "no execution has the id 'nope'; zart list shows those there are"),
        (["show", "\x1b[31m"], 3, r"no execution has the id '\x1b[31m'; zart list shows those there are"),
        (["send", "e1", "go", '{"password": "hunter2"'], 2, "payload: this is not JSON: Input data was truncated"),
        (["list", "--status", "asleep"], 2, "'asleep' is no status; there are: "),
        (["list", "--store", "sqlite:nix.db"], 4, "there is no store at 'nix.db'; check --store, or make one with "),
        (["list", "--store", "redis:x"], 2, "no installed package offers a store for 'redis:'; known schemes: "),
        (["list", "--store", "postgresql://me:hunter2@h/d"], 2, "the URL of the store holds a password, and "),
        (["db", "status", "--store", "postgresql://h/d?password=hunter2"], 2, "the URL of the store holds a password"),
        (["verify", "postgresql://me:hunter2@h/d"], 2, "the URL of the store holds a password, and everybody on "),
        (["list", "--store", "redis://me@h/d"], 2, "no installed package offers a store for 'redis:'; known schemes: "),
        (["list", "--store", ""], 2, "no store is given; add --store URL, such as sqlite:orders.db, or set ZART_STORE"),
        (["bogus"], 2, "No such command 'bogus'; zart --help says more"),
        (["show"], 2, "Missing argument 'ID'; zart show --help says more"),
        (["list", "--bogus"], 2, "No such option: --bogus; zart list --help says more"),
        (["db", "status", "--bogus"], 2, "No such option: --bogus; zart db status --help says more"),
        (["list", "--limit", "0"], 2, "Invalid value for '--limit': "),
        (["run", "nix.py", "1"], 2, "there is no file 'nix.py'; give a file.py, or the dotted path of a module"),
        (["run", "nix", "1"], 2, "there is no module 'nix'; give a dotted path from here, or a file.py"),
        (["run", "broken.py", "1"], 2, "importing broken.py failed: ZeroDivisionError: division by zero ("),
        (["run", "nested.py", "1"], 2, "importing nested.py failed: KeyError: 'NOT_SET' (FOLDER/nested.py, line 3)"),
        (["run", "unfit.py", "1"], 2, "importing unfit.py failed: write @zart.workflow() with parentheses, or "
                                      "@zart.workflow('a-name') (FOLDER/unfit.py, line 2)"),
        (["run", "syntax.py", "1"], 2, "importing syntax.py failed: SyntaxError: invalid syntax (syntax.py, line 1)\n"),
        (["run", "astray.py", "1"], 2, "importing astray.py failed: No module named 'not_there'; install it, or run "
                                       "zart where it is (FOLDER/astray.py, line 1)"),
        (["run", "empty.txt", "1"], 2, "there is no module 'empty.txt'; give a dotted path from here, or a file.py"),
        (["run", "./empty.txt", "1"], 2, "'empty.txt' is no Python file; its name must end in .py"),
        (["run", ".", "1"], 2, "there is no module '.'; give a dotted path from here, or a file.py"),
        (["run", "", "1"], 2, "there is no module ''; give a dotted path from here, or a file.py"),
        (["run", "empty.py", "1"], 2, "empty.py has no workflow; decorate a generator function with @zart.workflow()"),
        (["run", "two.py", "1"], 2, "two.py has several workflows (one, two); add one of them, as in two.py:one"),
        (["run", "two.py:three", "1"], 2, "two.py has no workflow 'three'; it has: one, two"),
        (["run", "two.py:one"], 2, "workflow 'one' needs an input; give it as JSON, or - to read it from stdin"),
        (["start", "two.py:one", "2", "--id", "e1"], 6, "the id 'e1' is taken by another workflow, or by this one "),
        (["run", "two.py:one", "--id", "e1"], 6, "the id 'e1' belongs to workflow 'waiting', not 'one'"),
        (["history", "e1", "--run", "1"], 2, "execution 'e1' has the runs 0 to 0, not 1"),
        (["start", "two.py:one", "2", "--id", ""], 2, "the id is ''; give a non-empty text of printable characters"),
        (["run", "two.py:one", "2", "--id", ""], 2, "the id is ''; give a non-empty text of printable characters"),
    ],
)  # fmt: skip
def test_one_line(called, args, code, line, tmp_path):
    """Whatever is wrong is one line on stderr that says what to do, and an exit code; stdout stays empty."""
    with_executions(tmp_path, 1)
    modules = {
        "broken.py": "1 / 0\n",
        "nested.py": "import os\n\nos.environ['NOT_SET']\n",
        "unfit.py": "import zart_core as zart\n@zart.workflow\ndef flow(): yield\n",
        "syntax.py": "def f(:\n",
        "astray.py": "import not_there\n",
        "empty.py": "",
        "empty.txt": "",
    }
    for name, source in modules.items():
        tmp_path.joinpath(name).write_text(source)
    two = "import zart_core as zart\n" + "".join(
        f"@zart.workflow('{name}')\ndef {name}(n: int) -> zart.Flow[None]:\n    yield from zart.sleep('s', n)\n"
        for name in ("one", "two")
    )
    tmp_path.joinpath("two.py").write_text(two)
    try:
        found, out, err = called(*args)
    finally:
        for name in (*modules, "two.py"):
            sys.modules.pop(name.removesuffix(".py"), None)

    assert (found, out) == (code, "")
    line = line.replace("FOLDER", str(tmp_path))
    assert err.startswith(f"zart: {line}") and err.count("\n") == 1
    assert "hunter2" not in err


def test_a_password_in_the_environment(called, monkeypatch):
    """A URL with a password may stand where only its owner can read it; no line shows it (docs/rules.md, Security)."""
    monkeypatch.setenv("ZART_STORE", "redis://me:hunter2@h/d")
    code, out, err = called("list")
    assert (code, out) == (2, "")
    assert err.startswith("zart: no installed package offers a store for 'redis:'")
    assert "hunter2" not in err


@pytest.mark.parametrize(
    "args", [("list",), ("show", "e1"), ("verify",), ("check", "flows.py"), ("cancel", "e1")]
)
def test_nothing_is_made_by_who_reads(called, tmp_path, args):
    """In a folder of something else, or for a file without content, there is no store, and none is made there."""
    tmp_path.joinpath("flows.py").write_text(FLOWS)
    tmp_path.joinpath("empty.db").touch()
    sys.modules.pop("flows", None)
    for url, place in (
        ("file:.", "."),
        (f"file://{tmp_path}", f"//{tmp_path}"),
        ("sqlite:empty.db", "empty.db"),
    ):
        said = (
            f"zart: there is no store at '{place}'; check --store, or make one with zart run or zart start\n"
        )
        assert called(*args, "--store", url) == (4, "", said)
    sys.modules.pop("flows", None)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.db", "flows.py"]
    assert tmp_path.joinpath("empty.db").stat().st_size == 0


def test_stdin_that_is_no_text(called, tmp_path, monkeypatch):
    """Bytes that are no text are a wrong use, and not shown."""
    with_executions(tmp_path, 1)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'"hunter2\xff"'), "utf-8"))

    assert called("send", "e1", "go", "-") == (
        2,
        "",
        "zart: stdin is no utf-8 text, from byte 8 on; give JSON\n",
    )


@zart.workflow("waiting")
def waiting(n: int) -> zart.Flow[int]:
    """Waits."""
    return (yield from zart.wait_for_event("go", int)) + n


def test_attaching_with_code_that_does_not_fit():
    """It is said at once: an execution that waits is read back only when it goes on, which may be in a year."""
    log = zart.open_log("memory:")
    host = Inline(log, zart.Registry(waiting))
    host.start(waiting, 1, "e1")
    while host.work():
        pass

    @zart.workflow("waiting")
    def changed(n: int) -> zart.Flow[None]:
        yield from zart.sleep("first", n)

    (note,) = misfit(log, "e1", zart.Registry(changed), "flows.py:waiting", "sqlite:a.db")
    assert note.text == (
        "the code at hand does not fit, and would park it: execution 'e1' (run 0) of workflow 'waiting' "
        "diverged at event 1; zart check flows.py --store sqlite:a.db says more"
    )
    assert misfit(log, "e1", zart.Registry(waiting), "flows.py", "") == []
    assert misfit(log, "none", zart.Registry(waiting), "flows.py", "") == []


def with_executions(folder, count):
    """A store with executions in it that nobody has run."""
    with contextlib.closing(zart.open_log(f"sqlite:{folder / 'store'}")) as log:
        for n in range(count):
            Inline(log, zart.Registry()).start(waiting, n, f"e{n + 1}")


def test_pages_of_a_list(called, tmp_path):
    """`list` gives a page, and where the next one begins."""
    with_executions(tmp_path, 5)
    first = json.loads(called("list", "--limit", "2", "--json")[1])
    rest = json.loads(called("list", "--after", first["next"], "--prefix", "e", "--json")[1])
    code, out, err = called("list", "--limit", "1")

    assert [item["id"] for page in (first, rest) for item in page["items"]] == ["e1", "e2", "e3", "e4", "e5"]
    assert (rest["next"], code, err) == (None, 0, "")
    assert [line.split() for line in MOMENT.sub("T", out).splitlines()] == [
        ["ID", "WORKFLOW", "STATUS", "RUN", "EVENTS", "UPDATED", "REASON"],
        ["e1", "waiting", "scheduled", "0", "1", "T"],
        ["there", "are", "more:", "--after", "'e1'"],
    ]
    assert json.loads(called("list", "--workflow", "none", "--json")[1]) == {"items": [], "next": None}
    assert json.loads(called("list", "--status", "completed", "--json")[1]) == {"items": [], "next": None}


def test_a_list_says_why_something_failed(called, tmp_path):
    """Beside each execution that ended without a result; of one whose end is damaged it says that."""

    @zart.workflow("fails")
    def fails(why: str) -> zart.Flow[None]:
        yield from zart.sleep("s", 0)
        raise ValueError(why)

    with contextlib.closing(zart.open_log(f"sqlite:{tmp_path / 'store'}")) as log:
        host = Inline(log, zart.Registry(fails))
        for why in ("no money", "no time"):
            host.start(fails, why, why[3:])
            host.drive(why[3:])
    listed = called("list", "--status", "failed")[1].splitlines()
    assert [line.split("  ")[-1].strip() for line in listed] == [
        "REASON",
        "ValueError: no money",
        "ValueError: no time",
    ]

    data = (tmp_path / "store").read_bytes()
    place = data.rindex(b'"message":"no time"')
    (tmp_path / "store").write_bytes(data[:place] + b"x" + data[place + 1 :])
    code, out, _ = called("list", "--json")
    assert (code, [item["reason"] for item in json.loads(out)["items"]]) == (
        0,
        ["ValueError: no money", "its last record is damaged; zart verify says more"],
    )


def test_damage(called, tmp_path):
    """`verify` of a damaged store is exit code 4, and says where, what was expected and what was found."""
    with_executions(tmp_path, 3)
    path = tmp_path / "store"
    data = path.read_bytes()
    place = data.rindex(b'"e2"') + 1
    path.write_bytes(data[:place] + b"x" + data[place + 1 :])
    code, out, err = called("verify", "--json")
    found = json.loads(out)

    assert (code, found["ok"]) == (4, False)
    assert set(found["damage"]) == {"message", "where", "expected", "found"}
    assert all(found["damage"].values())
    assert err.count("\n") == 1 and err.endswith("; keep the store as it is and restore a copy\n")
    assert (called("verify")[0], called("verify")[1]) == (4, "")


def test_damage_of_a_file_log(called, tmp_path):
    """The advice stands there once: that of the store, which knows of zart salvage."""
    with contextlib.closing(zart.open_log(f"file:{tmp_path / 'log'}")) as log:
        Inline(log, zart.Registry()).start(waiting, 1, "e1")
    (segment,) = tmp_path.joinpath("log").glob("*.zart")
    data = segment.read_bytes()
    place = data.index(b'"e1"') + 1
    segment.write_bytes(data[:place] + b"x" + data[place + 1 :])
    code, _, err = called("verify", f"file:{tmp_path / 'log'}")

    assert code == 4
    assert err.endswith(
        ". Restore the directory from a copy, or bring out what lies before it with zart salvage\n"
    )


def test_help(called):
    """Without arguments the command explains itself, exit codes included."""
    code, out, _ = called()

    assert code == 0
    for word in (
        "run",
        "start",
        "send",
        "list",
        "show",
        "history",
        "check",
        "cancel",
        "terminate",
        "verify",
        "Exit codes",
    ):
        assert word in out


def test_version(called):
    """Which zart this is, to be told beside a store that is too new for it."""
    assert called("--version") == (0, f"zart {importlib.metadata.version('zart')}\n", "")


def test_without_typer(shell):
    """Where the extra is not installed, one line says how to install it."""
    script = (
        "import sys; sys.modules['typer'] = None; from zart_core.cli import app; sys.exit(app.main(['list']))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=shell.env)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == 'zart: the command line needs typer and rich: pip install "zart[cli]"\n'


# ---------------------------------------------------------------- texts


def test_plain():
    """Control characters, line ends and marks of direction are escaped; other text stays as it is."""
    assert plain("Größe 42 ✓") == "Größe 42 ✓"
    assert plain("a\x1b[2J\nb\x9bc\u202ed\x00") == r"a\x1b[2J\nb\x9bc\u202ed\x00"


def test_duration():
    """Durations are told with as much precision as a person wants."""
    seconds = (-1.0, 0.0124, 3.14, 65, 3 * 3600 + 125)

    assert [duration(s) for s in seconds] == ["0.000 s", "0.012 s", "3.1 s", "1 min 05 s", "3 h 02 min"]


def test_columns():
    """Cells are aligned and escaped; a long text is cut and says so."""
    assert columns([("a", "b", "c"), ("a\nb", "", "long text")]) == ["a     b  c", r"a\nb     long text"]
    assert shortened("x" * 300, 3) == "xxx... (300 characters)"
