"""Where a recorded site stands in the source as it is now: file, line and text. Nothing is imported or run for it.

Rule 1: a module's file is looked for where Python would look, by name alone; what is not found is None.
"""

from __future__ import annotations

import dis
import functools
import linecache
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType

from zart_core.events import Site
from zart_core.records import record

FRAME = re.compile(
    r'File "(?P<file>[^"\n]+)", line (?P<line>\d+), in (?P<function>.+)(?:\n +(?P<source>.+))?'
)


NOWHERE = dis.Positions()


@record
class Place:
    """A line of a file."""

    file: str
    line: int
    source: str
    """The line's text, without its indentation."""
    function: str

    def __str__(self) -> str:
        return f"{short(self.file)}:{self.line}"


def place_of(site: Site | None) -> Place | None:
    """The line of a site, should its function still be there and wait at it; it may have moved in its file."""
    if site is None or not all(part.isidentifier() for part in site.module.split(".")):
        return None
    return next((place for file in files_of(site.module) if (place := place_in(file, site))), None)


def files_of(module: str) -> Iterator[str]:
    """Files that may be a module's: the one that is loaded, and those on the path."""
    loaded = getattr(sys.modules.get(module), "__file__", None)
    if isinstance(loaded, str):
        yield loaded
    inner = Path(*module.split("."))
    for folder in dict.fromkeys([str(Path.cwd()), *(entry or "." for entry in sys.path)]):
        for path in (Path(folder) / inner.with_suffix(".py"), Path(folder) / inner / "__init__.py"):
            if path.is_file():
                yield str(path)


def place_in(file: str, site: Site) -> Place | None:
    """The line of a site in a file, if the function is in it."""
    first, yielding = lines_of_functions(file).get(site.qualname, (0, frozenset[int]()))
    line = first + site.line
    if line not in yielding:  # the function has changed since
        return None
    return Place(file, line, linecache.getline(file, line).strip(), site.qualname)


@functools.lru_cache(maxsize=256)
def lines_of_functions(file: str) -> dict[str, tuple[int, frozenset[int]]]:
    """The first line of each function of a file, decorators included, and those that yield; empty for no Python."""
    found: dict[str, tuple[int, frozenset[int]]] = {}
    try:
        code = compile(Path(file).read_bytes(), file, "exec", dont_inherit=True)
    except (OSError, SyntaxError, ValueError):
        return found
    left = [code]
    while left:
        one = left.pop()
        found.setdefault(one.co_qualname, (one.co_firstlineno, yielding_lines(one)))
        left.extend(inner for inner in one.co_consts if isinstance(inner, CodeType))
    return found


def yielding_lines(code: CodeType) -> frozenset[int]:
    """The lines at which a generator may wait."""
    return frozenset(
        line
        for instruction in dis.get_instructions(code)
        if instruction.opname == "YIELD_VALUE" and (line := (instruction.positions or NOWHERE).lineno)
    )


def raised_at(traceback: str) -> Place | None:
    """The innermost line of a recorded traceback that is not Zart's own."""
    for frame in reversed(list(FRAME.finditer(traceback))):
        if not is_own(frame["file"]):
            return Place(
                frame["file"], int(frame["line"]), (frame["source"] or "").strip(), frame["function"]
            )
    return None


def without_own(traceback: str) -> Iterator[str]:
    """The lines of a recorded traceback without those about Zart's own frames."""
    own = False
    for line in traceback.rstrip().splitlines():
        frame = FRAME.match(line.strip())
        if frame is not None or not line.startswith("    "):
            own = frame is not None and is_own(frame["file"])
        if not own:
            yield line


def is_own(file: str) -> bool:
    """Whether a file is Zart's own, here or on another machine."""
    return "zart_core" in Path(file).parts[:-1]


def short(file: str) -> str:
    """A file's path, from here where it is below."""
    path, here = Path(file), Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
