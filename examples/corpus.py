"""The main job: a workflow over every Python file of a folder, the standard library by default.

    zart run examples/corpus.py '{}' --store sqlite:corpus.db --id corpus

Kill it at any moment and run the same line again: it goes on where it stood and repeats nothing that is done.
"""

from __future__ import annotations

import ast
import hashlib
import os
import sysconfig
import threading
import warnings
from pathlib import Path

import attrs

import zart_core as zart

warnings.filterwarnings("ignore", module="<unknown>")  # of the files that are parsed

LEFT_OUT = {"site-packages", "dist-packages", "__pycache__"}
DEFINITIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
STATEMENTS = ast.stmt | ast.excepthandler | ast.match_case
PARSING = threading.Lock()
"""The parser of CPython 3.11 counts the depth of all threads together, and now and then is wrong (SystemError)."""
JOURNAL = "CORPUS_JOURNAL"
"""Names a file to which every execution of a step adds a line: what really ran, whatever the log says."""


@attrs.frozen
class Corpus:
    folder: str = sysconfig.get_path("stdlib")


@attrs.frozen
class Analysis:
    path: str
    size: int
    lines: int
    definitions: int | None
    """Functions and classes; None where the file does not parse (there are some, as test data)."""
    checksum: str


@attrs.frozen
class Report:
    files: int
    size: int
    lines: int
    definitions: int
    unparseable: list[str]
    largest: str
    checksum: str


@zart.step("list-files")
def list_files(folder: str) -> list[str]:
    """Every source file below the folder, in order."""
    found: list[str] = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in LEFT_OUT]
        found += [os.path.relpath(Path(place, name), folder) for name in files if name.endswith(".py")]
    return sorted(found)


@zart.step("analyse {path}")
def analyse(folder: str, path: str) -> Analysis:
    """Size, lines, definitions and checksum of one file."""
    note_down(path)
    source = Path(folder, path).read_bytes()
    checksum = hashlib.sha256(source).hexdigest()
    return Analysis(path, len(source), source.count(b"\n"), definitions_in(source), checksum)


@zart.step("reduce")
def reduce(analyses: list[Analysis]) -> Report:
    """All of them in one."""
    return Report(
        files=len(analyses),
        size=sum(each.size for each in analyses),
        lines=sum(each.lines for each in analyses),
        definitions=sum(each.definitions or 0 for each in analyses),
        unparseable=[each.path for each in analyses if each.definitions is None],
        largest=max(analyses, key=lambda each: each.size).path if analyses else "",
        checksum=hashlib.sha256("".join(each.checksum for each in analyses).encode()).hexdigest(),
    )


@zart.workflow("corpus")
def corpus(order: Corpus) -> zart.Flow[Report]:
    """List, analyse each file, reduce, report."""
    paths = yield from list_files(order.folder)
    analyses = yield from zart.wait([analyse(order.folder, path) for path in paths])
    return (yield from reduce(analyses))


def definitions_in(source: bytes) -> int | None:
    """How many functions and classes there are; None where it is no Python of this version."""
    try:
        with PARSING:
            todo: list[ast.AST] = [ast.parse(source)]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    count = 0
    while todo:  # as ast.walk, without looking into expressions: they define nothing, and are most of a file
        inner = [node for node in ast.iter_child_nodes(todo.pop()) if isinstance(node, STATEMENTS)]
        count += sum(isinstance(node, DEFINITIONS) for node in inner)
        todo += inner
    return count


def note_down(path: str) -> None:
    """Add a line to the journal, if there is one, in one write: a kill can tear it at the end of a page only."""
    if journal := os.environ.get(JOURNAL):
        file = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(file, f"{path}\n".encode())
        os.close(file)
