"""A file system in memory that loses power: what was not synced may be kept, lost, torn, or made rubbish.

Rule 1: data is durable per 512-byte sector, once a `sync` of its file returned; a sector is written whole or
        not at all, and a byte that does not change is not damaged (SQLite calls this power-safe overwrite).
Rule 2: a name is durable once a `sync_directory` of its directory returned, its file synced or not.
Rule 3: a `sync` that fails marks what it should have written as clean and forgets it, as Linux does: a later
        `sync` succeeds without writing it.
Rule 4: everything else may be found in any combination: each un-synced sector in any version it had, sectors
        that are new to the file as zeros, garbage or stale data, the length updated or not, each change of a
        directory there or not.

The twin of `zart_stores.file.fs.RealFileSystem`; the same shape, no import between them.
"""

from __future__ import annotations

import errno
import itertools
import math
import os
import random
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TypeAlias

import attrs

from zart_core.records import record

SECTOR = 512
ZEROS = bytes(SECTOR)
GARBAGE = random.Random(20).randbytes(SECTOR)  # noqa: S311  # rubbish, the same each time


@record
class Call:
    """One call of the file system, as the trace has it."""

    kind: str
    path: str = ""
    offset: int = 0
    size: int = 0


@attrs.define
class Fault:
    """What goes wrong at one call: an errno, a number of bytes that a write takes all the same, or both."""

    error: int | None = None
    short: int | None = None


@attrs.define(eq=False)
class _File:
    """A file: what readers see, what the disk has, and what lies between."""

    content: bytearray = attrs.Factory(bytearray)
    disk: bytes = b""
    versions: dict[int, list[bytes]] = attrs.Factory(dict[int, list[bytes]])
    """What a sector may hold on the disk instead, newest first."""
    sizes: list[int] = attrs.Factory(list[int])
    """Lengths that the disk may have instead."""
    dirty: set[int] = attrs.Factory(set[int])
    """Sectors that the next sync will write."""
    resized: bool = False
    ghosts: dict[int, bytes] = attrs.Factory(dict[int, bytes])
    """What sectors held that were cut off: they may come back where the file grows again."""

    def sector(self, number: int) -> bytes:
        return bytes(self.content[number * SECTOR : (number + 1) * SECTOR]).ljust(SECTOR, b"\0")

    def on_disk(self, number: int) -> bytes:
        return self.disk[number * SECTOR : (number + 1) * SECTOR].ljust(SECTOR, b"\0")


@attrs.define(eq=False)
class _Directory:
    """A directory: entries as seen, entries on disk, and the changes between them."""

    seen: dict[str, _File | _Directory] = attrs.Factory(dict[str, "_File | _Directory"])
    disk: dict[str, _File | _Directory] = attrs.Factory(dict[str, "_File | _Directory"])
    changes: list[dict[str, _File | _Directory | None]] = attrs.Factory(
        list[dict[str, "_File | _Directory | None"]]
    )
    """Each sets (or, with None, removes) names in one step."""


def write(file: _File, data: bytes, offset: int) -> None:
    """Put data into the file as readers see it, and note what the disk may now hold."""
    end = offset + len(data)
    grown = end > len(file.content)
    if offset > len(file.content):
        file.content.extend(bytes(offset - len(file.content)))
    file.content[offset:end] = data
    for number in range(offset // SECTOR, -(-end // SECTOR)):
        file.versions.setdefault(number, []).insert(0, file.sector(number))
        file.dirty.add(number)
    if grown:
        _resize(file)


def _resize(file: _File) -> None:
    file.sizes.insert(0, len(file.content))
    file.resized = True


def cut(file: _File, size: int) -> None:
    """Truncate (or extend with zeros)."""
    for number in range(size // SECTOR, -(-len(file.content) // SECTOR)):
        file.ghosts[number] = file.sector(number)
    file.dirty = {number for number in file.dirty if number * SECTOR < size}
    if size > len(file.content):
        file.content.extend(bytes(size - len(file.content)))
    del file.content[size:]
    if size % SECTOR:
        file.versions.setdefault(size // SECTOR, []).insert(0, file.sector(size // SECTOR))
        file.dirty.add(size // SECTOR)
    _resize(file)


def flush(file: _File) -> None:
    """Sync with success: everything dirty is on the disk, and the length that is needed to read it."""
    reach = min(len(file.content), (max(file.dirty, default=-1) + 1) * SECTOR)
    file.resized = file.resized or reach > len(file.disk)
    count = -(-max(len(file.content), len(file.disk)) // SECTOR)
    sectors = [file.sector(n) if n in file.dirty else file.on_disk(n) for n in range(count)]
    for number in file.dirty:
        file.versions.pop(number, None)
    file.dirty.clear()
    size = len(file.content) if file.resized else len(file.disk)
    file.disk = b"".join(sectors)[:size]
    if file.resized:
        file.sizes.clear()
        file.resized = False
        file.versions = {n: v for n, v in file.versions.items() if n * SECTOR < size}


def drop(file: _File) -> None:
    """Sync with an error: what was dirty is taken for clean and never written (Rule 3)."""
    file.dirty.clear()
    file.resized = False


def sector_choices(file: _File, number: int) -> list[bytes]:
    """List what a sector may hold after power loss: the disk's first, then the newest, then the odd."""
    choices = [file.on_disk(number), *file.versions[number]]
    if number * SECTOR >= len(file.disk):
        stale = file.ghosts.get(number, file.on_disk(max(0, len(file.disk) // SECTOR - 1)))
        choices += [GARBAGE, stale, ZEROS]
    return list(dict.fromkeys(choices))


def size_choices(file: _File) -> list[int]:
    """List the lengths a file may have after power loss: the disk's first, the newest, those between."""
    disk, seen = len(file.disk), len(file.content)
    low, high = min(disk, seen), max(disk, seen)
    between = list(range(-(-low // SECTOR) * SECTOR, high, SECTOR)) if file.sizes else []
    return list(dict.fromkeys([disk, *file.sizes, *between[:8]]))


_Open: TypeAlias = tuple[tuple[int, str, int], Sequence[object]]
"""What may be found one way or another after power loss, and the ways."""


class SimulatedFileSystem:
    """A file system in memory. Knows what a power loss may leave, fails when told to, and keeps a trace.

    Paths are absolute, `/` is there from the beginning. `capacity` limits the sum of all lengths in bytes: a
    write beyond it is short, the next one raises ENOSPC. `on_call` is called before each call takes effect.
    Not for several threads at once.
    """

    sync_call = "simulated"

    def __init__(self, *, capacity: int | None = None) -> None:
        self.capacity = capacity
        self.on_call: Callable[[Call], None] | None = None
        self.trace: list[Call] = []
        self.root = _Directory()
        self._open: dict[int, tuple[_File, str]] = {}
        self._locks: dict[_File, int] = {}
        self._descriptors = itertools.count(3)
        self._counts: dict[str, int] = {}
        self._faults: dict[tuple[str, int], Fault] = {}

    # ---- what a test asks for

    def inject(
        self, kind: str, nth: int = 1, *, error: int | None = None, short: int | None = None, times: int = 1
    ) -> None:
        """Let the nth call of a kind (a method's name) from now on fail with `error`, or take `short` bytes.

        `times` calls in a row fail so. With both, a write takes the bytes and raises all the same. EINTR
        raises InterruptedError; a `sync` that raises EIO forgets what was dirty.
        """
        first = self._counts.get(kind, 0) + nth
        for number in range(first, first + times):
            self._faults[kind, number] = Fault(error, short)

    def kill(self) -> None:
        """End the process (no power loss): descriptors and locks go, everything written can be read."""
        self._open.clear()
        self._locks.clear()

    def read_file(self, path: str) -> bytes:
        """Give a whole file as a reader sees it; not a call."""
        return bytes(self._file(path).content)

    def write_file(self, path: str, data: bytes) -> None:
        """Replace a file's content, durably, behind everybody's back: damage on demand. Not a call."""
        file = self._file(path)
        file.content = bytearray(data)
        file.disk = bytes(data)
        file.versions.clear()
        file.sizes.clear()
        file.dirty.clear()
        file.resized = False

    def exists(self, path: str) -> bool:
        """Tell whether a reader finds something there; not a call."""
        parent, name = self._parent(path)
        return name in parent.seen

    def is_directory(self, path: str) -> bool:
        """Tell whether a directory is there; not a call."""
        return isinstance(self._node(path), _Directory)

    def forget(self, path: str) -> None:
        """Take what is dirty in a file for clean, as a sync that fails does (Rule 3); not a call."""
        drop(self._file(path))

    def crash_states(
        self, limit: int = 256, seed: int = 0, *, ignore: Collection[str] = ()
    ) -> Iterator[SimulatedFileSystem]:
        """Yield file systems that may be found after power is lost now.

        All of them when there are at most `limit`, else `limit` of them: the one that kept nothing, the one
        that kept all, some that lost or kept a single change, and others by `seed`. Each is independent of
        this one, wholly durable, with nothing open; cost is the size of the files for each. Files named in
        `ignore` (a lock, say) do not multiply the states: of them nothing un-synced is kept.
        """
        points = self._choice_points(ignore)
        for chosen in combinations([len(options) for _, options in points], limit, seed):
            yield self._found(points, chosen)

    def crash_state(
        self, lots: random.Random, limit: int = 256, *, ignore: Collection[str] = ()
    ) -> SimulatedFileSystem:
        """One of the file systems that `crash_states` gives, drawn by `lots`; the others are not made."""
        points = self._choice_points(ignore)
        counts = [len(options) for _, options in points]
        return self._found(points, lots.choice(list(combinations(counts, limit, lots.randrange(1 << 30)))))

    def states_count(self, *, ignore: Collection[str] = ()) -> int:
        """How many combinations `crash_states` chooses from; some may look the same."""
        return math.prod(len(options) for _, options in self._choice_points(ignore))

    def image(self) -> tuple[tuple[str, bytes], ...]:
        """All files as readers see them, to tell states apart."""
        return tuple(sorted(_images(self.root, "")))

    # ---- the file system

    def make_directory(self, path: str) -> None:
        """As os.mkdir."""
        self._called(Call("make_directory", path))
        parent, name = self._parent(path)
        if name in parent.seen:
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        self._change(parent, {name: _Directory()})

    def list_directory(self, path: str) -> list[str]:
        """As os.listdir."""
        self._called(Call("list_directory", path))
        return list(self._directory(path).seen)

    def sync_directory(self, path: str) -> None:
        """Make the directory's entries durable (Rule 2); after an error a later call may still do so."""
        self._called(Call("sync_directory", path))
        directory = self._directory(path)
        directory.disk = dict(directory.seen)
        directory.changes.clear()

    def open(self, path: str, *, write: bool = False, create: bool = False) -> int:
        """As os.open."""
        self._called(Call("open", path))
        parent, name = self._parent(path)
        if name not in parent.seen and create:
            self._change(parent, {name: _File()})
        fd = next(self._descriptors)
        self._open[fd] = (self._file(path), path)
        return fd

    def close(self, fd: int) -> None:
        """As os.close; a lock taken through the descriptor is gone."""
        file, path = self._at(fd)
        self._called(Call("close", path))
        del self._open[fd]
        if self._locks.get(file) == fd:
            del self._locks[file]

    def size(self, fd: int) -> int:
        """As os.fstat, the length alone."""
        file, path = self._at(fd)
        self._called(Call("size", path))
        return len(file.content)

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        """As os.pread."""
        file, path = self._at(fd)
        fault = self._called(Call("pread", path, offset, length))
        if fault is not None and fault.short is not None:
            length = min(length, fault.short)
        return bytes(file.content[offset : offset + length])

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        """As os.pwrite."""
        file, path = self._at(fd)
        fault = self._called(Call("pwrite", path, offset, len(data)), held=True)
        taken = len(data) if fault is None or fault.short is None else min(len(data), fault.short)
        if fault is not None and fault.short is None:
            taken = 0
        room = self._room(file, offset)
        if data and room == 0 and taken:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        taken = taken if room is None else min(taken, room)
        if taken:
            write(file, bytes(data[:taken]), offset)
        if fault is not None and fault.error is not None:
            raise OSError(fault.error, os.strerror(fault.error), path)
        return taken

    def sync(self, fd: int) -> None:
        """As os.fdatasync (Rule 1, Rule 3)."""
        file, path = self._at(fd)
        try:
            self._called(Call("sync", path))
        except InterruptedError:
            raise
        except OSError:
            drop(file)
            raise
        flush(file)

    def truncate(self, fd: int, size: int) -> None:
        """As os.ftruncate."""
        file, path = self._at(fd)
        self._called(Call("truncate", path, size))
        cut(file, size)

    def rename(self, source: str, target: str) -> None:
        """As os.rename, within one directory."""
        self._called(Call("rename", source))
        moved = self._node(source)
        parent, name = self._parent(source)
        to = self._parent(target)[1]
        there = parent.seen.get(to, moved)
        code = 0
        if isinstance(there, _Directory):
            code = errno.EISDIR if isinstance(moved, _File) else errno.ENOTEMPTY * bool(there.seen)
        elif isinstance(moved, _Directory):
            code = errno.ENOTDIR
        if code and there is not moved:
            raise OSError(code, os.strerror(code), target)
        self._change(parent, {name: None, to: moved})

    def unlink(self, path: str) -> None:
        """As os.unlink."""
        self._called(Call("unlink", path))
        self._file(path)
        parent, name = self._parent(path)
        self._change(parent, {name: None})

    def lock(self, fd: int) -> bool:
        """As flock, exclusive and without waiting."""
        file, path = self._at(fd)
        self._called(Call("lock", path))
        return self._locks.setdefault(file, fd) == fd

    def unlock(self, fd: int) -> None:
        """Give the lock back; that which another descriptor holds stays."""
        file, path = self._at(fd)
        self._called(Call("unlock", path))
        if self._locks.get(file) == fd:
            del self._locks[file]

    # ---- inside

    def _called(self, call: Call, *, held: bool = False) -> Fault | None:
        """Note a call and find its fault; an error is raised here unless the caller holds it back."""
        if self.on_call is not None:
            self.on_call(call)
        self.trace.append(call)
        count = self._counts[call.kind] = self._counts.get(call.kind, 0) + 1
        fault = self._faults.pop((call.kind, count), None)
        if fault is not None and fault.error is not None and not held:
            raise OSError(fault.error, os.strerror(fault.error), call.path)
        return fault

    def _change(self, directory: _Directory, change: dict[str, _File | _Directory | None]) -> None:
        directory.changes.append(change)
        _apply(directory.seen, change)

    def _node(self, path: str) -> _File | _Directory:
        node: _File | _Directory = self.root
        for name in path.strip("/").split("/"):
            if not name:
                continue
            if not isinstance(node, _Directory):
                raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
            if name not in node.seen:
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            node = node.seen[name]
        return node

    def _directory(self, path: str) -> _Directory:
        node = self._node(path)
        if not isinstance(node, _Directory):
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        return node

    def _file(self, path: str) -> _File:
        node = self._node(path)
        if not isinstance(node, _File):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        return node

    def _parent(self, path: str) -> tuple[_Directory, str]:
        folder, _, name = path.rstrip("/").rpartition("/")
        return self._directory(folder or "/"), name

    def _at(self, fd: int) -> tuple[_File, str]:
        if fd not in self._open:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self._open[fd]

    def _room(self, file: _File, offset: int) -> int | None:
        if self.capacity is None:
            return None
        others = sum(len(content) for _, content in _images(self.root, "")) - len(file.content)
        return max(0, self.capacity - others - offset)

    def _choice_points(self, ignore: Collection[str]) -> list[_Open]:
        """List what is open: (identity, what, number) and the options, of which the first is the disk's."""
        points: list[_Open] = []
        for node in _reachable(self.root, ignore):
            if isinstance(node, _Directory):
                points += [((id(node), "change", n), [False, True]) for n in range(len(node.changes))]
                continue
            if node.sizes:
                points.append(((id(node), "size", 0), size_choices(node)))
            points += [((id(node), "sector", n), sector_choices(node, n)) for n in sorted(node.versions)]
        return [(point, options) for point, options in points if len(options) > 1]

    def _found(self, points: Sequence[_Open], chosen: Sequence[int]) -> SimulatedFileSystem:
        """Build the file system that a choice leaves: the number of an option for each point."""
        picked = {point: options[n] for (point, options), n in zip(points, chosen, strict=True)}
        made: dict[int, _File | _Directory] = {}

        def found(node: _File | _Directory) -> _File | _Directory:
            if id(node) not in made:
                made[id(node)] = found_file(node) if isinstance(node, _File) else found_directory(node)
            return made[id(node)]

        def found_file(file: _File) -> _File:
            if not file.versions and not file.sizes:  # nothing is open: most files, most of the time
                return _File(content=bytearray(file.disk), disk=file.disk)
            sectors = {n: picked.get((id(file), "sector", n), file.on_disk(n)) for n in file.versions}
            size = picked.get((id(file), "size", 0), len(file.disk))
            assert isinstance(size, int)
            content = bytearray(file.disk.ljust(max(size, len(file.disk)), b"\0"))
            for number, data in sectors.items():
                assert isinstance(data, bytes)
                if number * SECTOR < size:
                    content[number * SECTOR : number * SECTOR + SECTOR] = data
            del content[size:]
            return _File(content=content, disk=bytes(content))

        def found_directory(directory: _Directory) -> _Directory:
            entries = dict(directory.disk)
            for n, change in enumerate(directory.changes):
                if picked[id(directory), "change", n]:
                    _apply(entries, change)
            after = {name: found(node) for name, node in entries.items()}
            return _Directory(seen=after, disk=dict(after))

        other = SimulatedFileSystem(capacity=self.capacity)
        root = found(self.root)
        assert isinstance(root, _Directory)
        other.root = root
        return other


def combinations(counts: list[int], limit: int, seed: int) -> Iterator[tuple[int, ...]]:
    """Which option to take at each choice point: all combinations where few, else `limit` different ones."""
    if math.prod(counts) <= limit:
        yield from itertools.product(*(range(count) for count in counts))
        return
    random_ = random.Random(seed)  # noqa: S311  # repeatable, not secret
    none, every = [0] * len(counts), [min(1, count - 1) for count in counts]
    singles = [[*base[:n], 1 - base[n], *base[n + 1 :]] for n in range(len(counts)) for base in (every, none)]
    random_.shuffle(singles)
    sampled = ([random_.randrange(count) for count in counts] for _ in itertools.count())
    chosen: set[tuple[int, ...]] = set()
    for choice in itertools.chain([none, every], singles[: limit // 2], sampled):
        if len(chosen) >= limit:
            return
        if tuple(choice) not in chosen:
            chosen.add(tuple(choice))
            yield tuple(choice)


def _apply(entries: dict[str, _File | _Directory], change: dict[str, _File | _Directory | None]) -> None:
    for name, node in change.items():
        if node is None:
            entries.pop(name, None)
        else:
            entries[name] = node


def _reachable(root: _Directory, ignore: Collection[str]) -> list[_File | _Directory]:
    """Every file and directory that a crash state may show, each once, in a repeatable order."""
    found: dict[int, _File | _Directory] = {}
    queue: list[_File | _Directory] = [root]
    for node in queue:
        if id(node) in found:
            continue
        found[id(node)] = node
        if isinstance(node, _Directory):
            changed = [pair for change in node.changes for pair in change.items()]
            named = [*node.seen.items(), *node.disk.items(), *changed]
            queue += [child for name, child in named if child is not None and name not in ignore]
    return list(found.values())


def _images(directory: _Directory, path: str) -> Iterator[tuple[str, bytes]]:
    for name, node in directory.seen.items():
        if isinstance(node, _Directory):
            yield f"{path}/{name}/", b""
            yield from _images(node, f"{path}/{name}")
        else:
            yield f"{path}/{name}", bytes(node.content)
