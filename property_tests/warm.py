"""Processes that begin warm: forked from one that has imported everything, each with pipes of its own.

    with Nursery("property_tests.kill9.worker") as nursery:
        child = nursery.fork(["sqlite:/tmp/x.db"], {"LIFE": "3"})
        child.begin()

`python -m property_tests.warm SOCKET_FD MODULE` is the warm parent: it has one thread, one child at a time, and calls
MODULE.main(arguments) in it. A child does nothing before `begin`, so that strace can be attached to it.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from zart_core.testing.tracing import strace

ROOT = Path(__file__).parent.parent
MESSAGE_BYTES_MAX = 1 << 16
TRACER_WAIT_S = 60.0


class Nursery:
    """The warm parent, seen from the harness."""

    def __init__(self, module: str) -> None:
        self._line, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with far:
            os.set_inheritable(far.fileno(), True)
            self._parent = subprocess.Popen(
                [sys.executable, "-m", "property_tests.warm", str(far.fileno()), module],
                pass_fds=[far.fileno()],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
            )
        self._child: Child | None = None

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, *exc: object) -> None:
        self._bury()
        self._line.close()
        self._parent.wait()

    def fork(self, arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Child:
        """A new child, after the last one has ended."""
        self._bury()
        ends = [os.pipe() for _ in range(3)]
        (child_in, give), (take, child_out), (take_errors, child_err) = ends
        message = json.dumps({"arguments": list(arguments), "environment": dict(environment or {})})
        socket.send_fds(self._line, [message.encode()], [child_in, child_out, child_err])
        for fd in (child_in, child_out, child_err):
            os.close(fd)
        streams = (os.fdopen(give, "w"), os.fdopen(take), os.fdopen(take_errors))
        self._child = Child(self._hear()["pid"], streams, self._hear)
        return self._child

    def _bury(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.close()

    def _hear(self) -> dict[str, Any]:
        said = self._line.recv(MESSAGE_BYTES_MAX)
        if not said:
            raise RuntimeError("the warm parent is gone")
        return json.loads(said)


class Child:
    """A forked process. `stdin`, `stdout` and `stderr` are text streams of it."""

    def __init__(
        self, pid: int, streams: tuple[IO[str], IO[str], IO[str]], hear: Callable[[], dict[str, Any]]
    ) -> None:
        self.pid = pid
        self.stdin, self.stdout, self.stderr = streams
        self._hear = hear
        self._tracer: subprocess.Popen[str] | None = None
        self.status: int | None = None
        """The exit code, negative for a signal; None while nobody has waited."""

    def trace(self, *options: str, output: str = os.devnull) -> None:
        """Attach strace, before `begin`."""
        self._tracer = subprocess.Popen(
            [strace(), "-f", "-o", output, *options, "-p", str(self.pid)], stderr=subprocess.PIPE, text=True
        )
        assert self._tracer.stderr is not None
        line = self._tracer.stderr.readline()
        if "attached" not in line:
            raise RuntimeError(f"strace does not attach: {line or 'it ended'}")

    def begin(self) -> None:
        """Let it go."""
        self.stdin.write("\n")
        self.stdin.flush()

    def wait(self) -> int:
        """Wait for its end; its exit code."""
        if self.status is None:
            self.status = self._hear()["status"]
            if self._tracer is not None:
                self._tracer.communicate(timeout=TRACER_WAIT_S)
        return self.status

    def kill(self) -> int:
        """Kill -9 it with all its group, if it lives; its exit code."""
        if self.status is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        return self.wait()

    def close(self) -> None:
        """Let go of its pipes; nobody must be reading them."""
        for stream in (self.stdin, self.stdout, self.stderr):
            with contextlib.suppress(BrokenPipeError):
                stream.close()


def main() -> None:
    """Fork children as asked, until the harness hangs up."""
    line = socket.socket(fileno=int(sys.argv[1]))
    work = importlib.import_module(sys.argv[2]).main
    while True:
        message, fds, _, _ = socket.recv_fds(line, MESSAGE_BYTES_MAX, 3)
        if not message:
            return
        born, birth = os.pipe()
        pid = os.fork()
        if pid == 0:
            line.close()
            os.close(born)
            live(work, json.loads(message), fds, birth)
        for fd in (*fds, birth):
            os.close(fd)
        os.read(born, 1)  # its group is there, so that the whole of it can be killed
        os.close(born)
        line.send(json.dumps({"pid": pid}).encode())
        _, status = os.waitpid(pid, 0)
        line.send(json.dumps({"status": os.waitstatus_to_exitcode(status)}).encode())


def live(work: Callable[[list[str]], int | None], order: dict[str, Any], fds: list[int], birth: int) -> None:
    """The life of a child, from birth to exit; `birth` is closed once it leads a group of its own."""
    code = 1
    try:
        os.setsid()
        os.close(birth)
        for number, fd in enumerate(fds):
            os.dup2(fd, number)
            os.close(fd)
        os.environ.update(order["environment"])
        os.read(0, 1)
        sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
        code = work(order["arguments"]) or 0
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
