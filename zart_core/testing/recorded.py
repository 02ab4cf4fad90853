"""Recorded system calls played on a simulated disk: what a loss of power may leave of a real program's files.

Rule 1: at the end the simulated disk shows what the real directory holds, byte for byte, or the record was not
        understood and counts for nothing.
Rule 2: what is memory shared between processes (SQLite's -shm) is not on the disk; a store that writes data through
        shared memory cannot be judged.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from zart_core.testing.filesystem import SimulatedFileSystem
from zart_core.testing.tracing import Called, TracingFailed

SHARED_MEMORY = "-shm"
"""The end of the names of files that are memory only."""


class Player:
    """Plays calls below the directory `root` on `disk`, where it is `/`.

    `marks` is a file by which the program gives signals: `on_mark` is called with each thing that it writes there.
    """

    def __init__(self, root: Path, marks: Path, on_mark: Callable[[bytes], None]) -> None:
        self.disk = SimulatedFileSystem()
        self.names: set[str] = set()
        """Every name that was seen below the root."""
        self._root = str(root)
        self._marks = str(marks)
        self._on_mark = on_mark
        self._positions: dict[tuple[int, int], int] = {}
        """Where a descriptor of a process stands; -1 for one that appends."""

    def play(self, calls: Iterable[Called]) -> Iterator[Called]:
        """Play calls one by one; yields each that changes the disk before it takes effect. Raises TracingFailed."""
        for called in calls:
            for effect in self._effects(called):
                yield called
                effect()

    @property
    def memory(self) -> list[str]:
        """Names of files that are not on the disk."""
        return [name for name in self.names if name.endswith(SHARED_MEMORY)]

    def _effects(self, called: Called) -> list[Callable[[], object]]:
        """What a call does to the disk, if anything."""
        if called.result < 0 and called.name not in ("fsync", "fdatasync"):
            return []
        match called.name:
            case "write" | "pwrite64" | "ftruncate" | "fallocate" | "lseek" | "fsync" | "fdatasync":
                return self._on_descriptor(called)
            case "open" | "openat" | "creat":
                return self._open(called)
            case "mmap":
                self._map(called)
                return []
            case "mkdir" | "mkdirat" | "rename" | "renameat" | "renameat2" | "unlink" | "unlinkat":
                return self._on_names(called)
            case "sync" | "syncfs":
                return []  # syncs more than it need; counted as nothing
            case "truncate" if self._inside(os.fsdecode(called.text(0))) is None:
                return []
            case _ if any(self._root in os.fsdecode(text) for text in texts(called)):
                raise TracingFailed(
                    f"the store calls {called.name}, which is not understood: it cannot be judged"
                )
            case _:
                return []

    def _inside(self, path: str) -> str | None:
        """Give a path on the simulated disk; None for one that is elsewhere."""
        path = os.path.normpath(path)  # text: it may be gone
        if path == self._root:
            return "/"
        if not path.startswith(self._root + "/"):
            return None
        inside = path[len(self._root) :]
        self.names.add(os.path.basename(inside))  # noqa: PTH119
        return inside

    # ---- by descriptor

    def _on_descriptor(self, called: Called) -> list[Callable[[], object]]:
        place = called.place(0)
        if place == self._marks and called.name == "write":
            self._on_mark(called.text(1))
            return []
        path = self._inside(place)
        if path is None or "(deleted)" in called.arguments[0]:
            return []
        match called.name:
            case "lseek":
                self._positions[called.process, called.descriptor(0)] = called.result
                return []
            case "pwrite64":
                return [lambda: self._write(path, called.text(1)[: called.result], called.number(3))]
            case "write":
                return [lambda: self._write_on(called, path)]
            case "ftruncate":
                return [lambda: self._truncate(path, called.number(1))]
            case "fallocate":
                return [lambda: self._allocate(path, called)]
            case _:
                return [lambda: self._sync(path, called.result < 0)]

    def _write(self, path: str, data: bytes, offset: int) -> None:
        fd = self.disk.open(path, write=True)
        self.disk.pwrite(fd, data, offset)
        self.disk.close(fd)

    def _write_on(self, called: Called, path: str) -> None:
        key = called.process, called.descriptor(0)
        position = self._positions.get(key, 0)
        offset = len(self.disk.read_file(path)) if position < 0 else position
        self._write(path, called.text(1)[: called.result], offset)
        if position >= 0:
            self._positions[key] = position + called.result

    def _truncate(self, path: str, size: int) -> None:
        fd = self.disk.open(path, write=True)
        self.disk.truncate(fd, size)
        self.disk.close(fd)

    def _allocate(self, path: str, called: Called) -> None:
        if called.arguments[1] != "0":
            raise TracingFailed(
                f"the store calls fallocate with {called.arguments[1]}, which is not understood"
            )
        end = called.number(2) + called.number(3)
        if end > len(self.disk.read_file(path)):
            self._truncate(path, end)

    def _sync(self, path: str, failed: bool) -> None:
        if self.disk.is_directory(path):
            if not failed:
                self.disk.sync_directory(path)
            return
        if failed:
            self.disk.forget(path)
            return
        fd = self.disk.open(path, write=True)
        self.disk.sync(fd)
        self.disk.close(fd)

    # ---- by name

    def _open(self, called: Called) -> list[Callable[[], object]]:
        path = self._inside(called.path)
        if path is None:
            return []
        flags = (
            called.arguments[1 if called.name == "open" else 2]
            if called.name != "creat"
            else "O_CREAT|O_TRUNC"
        )
        self._positions[called.process, called.result] = -1 if "O_APPEND" in flags else 0
        if "O_TMPFILE" in flags or "O_DIRECTORY" in flags or not ("O_CREAT" in flags or "O_TRUNC" in flags):
            return []
        if not self.disk.exists(path):
            return [lambda: self.disk.close(self.disk.open(path, write=True, create=True))]
        return [lambda: self._truncate(path, 0)] if "O_TRUNC" in flags else []

    def _map(self, called: Called) -> None:
        path = self._inside(called.place(4))
        if path is None or path.endswith(SHARED_MEMORY):
            return
        if "MAP_SHARED" in called.arguments[3] and "PROT_WRITE" in called.arguments[2]:
            raise TracingFailed(
                f"the store writes {path} through shared memory: it cannot be judged (Rule 2)"
            )

    def _on_names(self, called: Called) -> list[Callable[[], object]]:
        paths = [self._inside(path) for path in named(called)]
        if paths == [None] * len(paths):
            return []
        if None in paths or "RENAME_" in called.arguments[-1]:
            raise TracingFailed(
                f"{called.name} over the directory's border is not understood: it cannot be judged"
            )
        inside = [path for path in paths if path is not None]
        if len({os.path.dirname(path) for path in inside}) > 1:  # noqa: PTH120
            raise TracingFailed("the store renames from directory to directory, which is not understood")
        match called.name:
            case "mkdir" | "mkdirat":
                return [lambda: self.disk.make_directory(inside[0])]
            case "rename" | "renameat" | "renameat2":
                return [lambda: self.disk.rename(inside[0], inside[1])]
            case _ if called.name == "unlinkat" and "AT_REMOVEDIR" in called.arguments[2]:
                raise TracingFailed(
                    "the store removes a directory, which is not understood: it cannot be judged"
                )
            case _:
                return [lambda: self.disk.unlink(inside[0])]


def texts(called: Called) -> Iterator[bytes]:
    """Yield every path that a call names."""
    for index, argument in enumerate(called.arguments):
        if argument.startswith('"') and len(argument) < 20_000:
            yield called.text(index)
        elif "<" in argument:
            yield os.fsencode(called.place(index))


def named(called: Called) -> list[str]:
    """Give the whole paths that a call about names has: relative ones are joined to their directory."""
    paths: list[str] = []
    directory = ""
    for index, argument in enumerate(called.arguments):
        if argument.startswith('"'):
            paths.append(os.path.join(directory, os.fsdecode(called.text(index))))  # noqa: PTH118
            directory = ""
        elif "<" in argument:
            directory = called.place(index)
    return paths


def on_disk(directory: Path, memory: Iterable[str]) -> tuple[tuple[str, bytes], ...]:
    """Give a real directory as `SimulatedFileSystem.image` gives a simulated one."""
    found: list[tuple[str, bytes]] = []
    for path in directory.rglob("*"):
        name = f"/{path.relative_to(directory)}"
        if path.is_dir():
            found.append((name + "/", b""))
        elif path.name not in memory:
            found.append((name, path.read_bytes()))
    return tuple(sorted(found))
