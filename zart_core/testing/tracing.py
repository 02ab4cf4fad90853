"""What a program asks of the operating system, recorded with strace: the calls that change files, or make them durable.

Rule 1: a call that changes a file below the watched directory and is not understood is an error, never passed over.
Rule 2: a write counts from its return, a sync from its beginning: what another thread wrote meanwhile may be missing
        from it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from zart_core.errors import ZartError
from zart_core.records import record

NAMES = (
    "open", "openat", "openat2", "creat", "mkdir", "mkdirat", "rename", "renameat", "renameat2", "unlink",
    "unlinkat", "rmdir", "link", "linkat", "symlink", "symlinkat", "truncate",
)  # fmt: skip
"""Calls that change names."""
DATA = (
    "write", "pwrite64", "writev", "pwritev", "pwritev2", "lseek", "ftruncate", "fallocate", "sendfile",
    "copy_file_range", "splice", "mmap", "io_uring_setup",
)  # fmt: skip
"""Calls that change, or may come to change, what is in a file."""
SYNCS = ("fsync", "fdatasync", "sync", "syncfs")
STRING_BYTES_MAX = 1 << 24
INSTALL = (
    "strace is needed to record system calls and is not here: install it (Debian, Ubuntu: apt-get install strace; "
    "Fedora: dnf install strace), or name it in ZART_STRACE"
)

LINE = re.compile(r"(\d+) +(?:<\.\.\. )?(\w+)(?:\(| resumed>)(.*)")
RETURN = re.compile(r"(.*)\) += (-?\d+|0x[0-9a-f]+|\?)(?:<([^>]*)>)?(?: ([A-Z]+\w*) .*)?(?: \(INJECTED\))?")
PLACE = re.compile(r"(?:AT_FDCWD|-?\d+)<([^>]*)>")


class TracingFailed(ZartError):
    """System calls cannot be recorded here, or were not understood; the message says why and what to do."""


@record
class Called:
    """One system call, with its strings decoded."""

    process: int
    name: str
    arguments: Sequence[str]
    """As strace writes them, strings in hexadecimal."""
    result: int
    """-1 for an error."""
    error: str
    """The name of the errno, or empty."""
    path: str = ""
    """What a new descriptor stands for."""

    def text(self, index: int) -> bytes:
        """Give a string argument."""
        return unhex(self.arguments[index])

    def number(self, index: int) -> int:
        """Give a number argument."""
        return int(self.arguments[index], 0)

    def place(self, index: int) -> str:
        """Give the path behind a descriptor argument, empty when it has none."""
        found = PLACE.match(self.arguments[index])
        return "" if found is None else os.fsdecode(unhex(found[1]))

    def descriptor(self, index: int) -> int:
        """Give a descriptor argument."""
        return int(self.arguments[index].partition("<")[0])


def strace() -> str:
    """Give the path of strace, which may stand beside the interpreter. Raises TracingFailed when there is none."""
    named = os.environ.get("ZART_STRACE", "")
    found = shutil.which(named or "strace") or shutil.which("strace", path=Path(sys.executable).parent)
    if found is None:
        raise TracingFailed(f"{named} (ZART_STRACE) is no program" if named else INSTALL)
    return found


def command(output: Path, *options: str) -> list[str]:
    """Give the beginning of a command line that records what follows it; `options` are more of strace's."""
    calls = ",".join(f"?{name}" for name in (*NAMES, *DATA, *SYNCS))
    return [
        strace(), "-f", "-qq", "-y", "-xx", "-s", str(STRING_BYTES_MAX), "-e", "signal=none",
        "-e", f"trace={calls}", *options, "-o", str(output),
    ]  # fmt: skip


def run(
    program: Sequence[str], output: Path, *options: str, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program under strace to its end and leave the record in `output`. Raises TracingFailed."""
    done = subprocess.run(  # noqa: S603  # our own worker
        [*command(output, *options), *program],
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if not output.exists() or output.stat().st_size == 0:
        raise TracingFailed(
            f"strace recorded nothing: {done.stderr.strip()[-300:] or 'it said nothing'}. Is tracing forbidden here "
            "(a container without SYS_PTRACE, kernel.yama.ptrace_scope)?"
        )
    return done


def read(output: Path) -> list[Called]:
    """Give the calls in the order in which they count (Rule 2). Raises TracingFailed for a line that is odd."""
    begun: dict[tuple[int, str], tuple[int, str]] = {}
    calls: list[tuple[int, Called]] = []
    with output.open(encoding="ascii") as lines:
        for number, line in enumerate(lines, 1):
            found = LINE.match(line)
            if found is None:
                if " +++ " in line or " --- " in line:
                    continue
                raise TracingFailed(f"{output}, line {number}: {line[:200]!r} was not understood")
            process, name, rest = int(found[1]), found[2], found[3]
            if rest.endswith("<unfinished ...>"):
                begun[process, name] = number, rest.removesuffix("<unfinished ...>").rstrip(" ")
                continue
            first, start = begun.pop((process, name), (number, ""))
            called = _called(process, name, start + rest, f"{output}, line {number}")
            calls.append((first if name in SYNCS else number, called))
    return [called for _, called in sorted(calls, key=lambda each: each[0])]


def _called(process: int, name: str, rest: str, where: str) -> Called:
    found = RETURN.fullmatch(rest)
    if found is None:
        raise TracingFailed(f"{where}: {name}({rest[:200]!r} was not understood")
    arguments = found[1].split(", ") if found[1] else []
    result = -1 if found[2] == "?" else int(found[2], 0)
    path = "" if found[3] is None else os.fsdecode(unhex(found[3]))
    return Called(process, name, arguments, result, found[4] or ("" if found[2] != "?" else "?"), path)


def unhex(text: str) -> bytes:
    """Decode a string as strace -xx writes it, with its quotes or without."""
    text = text.strip('"')
    if not text.startswith("\\x") and text:
        return text.encode()
    if text.endswith("..."):
        raise TracingFailed("a string was cut short by strace")
    return bytes.fromhex(text.replace("\\x", ""))
