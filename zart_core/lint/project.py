"""The files of a program: found by path or by module name, read, and never run.

Rule 1: a module is looked for below the folders of the files at hand and the working directory, and then by the finders
of the import system, one part of its name after the other, which imports none of them.
Rule 2: the standard library and what is installed are not followed; `outside.py` says what is known of them.
"""

from __future__ import annotations

import ast
import os
import sys
import sysconfig
import tokenize
import warnings
from collections.abc import Iterable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path

from zart_core.errors import InvalidUse
from zart_core.lint.scopes import Module

SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages", "build", "dist"})
"""Folders that are passed over below a folder that is given; those that begin with a dot, too."""
OURS = frozenset({"zart", "zart_core", "zart_stores"})
INSTALLED = tuple(
    {
        str(Path(place).resolve())
        for key in ("stdlib", "platstdlib", "purelib", "platlib")
        if (place := sysconfig.get_path(key))
    }
)


class Unreadable(Exception):
    """A file that cannot be read or parsed, and where."""

    def __init__(self, path: Path, what: str, line: int = 1, column: int = 1) -> None:
        super().__init__(what)
        self.path, self.what, self.line, self.column = path, what, line, column


class Project:
    """The modules that were read so far, by file and by name."""

    def __init__(self) -> None:
        self.roots: list[Path] = [Path.cwd()]
        self.files: dict[Path, Module | None] = {}
        """By resolved path; None for one that cannot be read."""
        self.names: dict[str, Path | None] = {}

    def read(self, path: Path) -> Module:
        """Read a file, once. Raises Unreadable."""
        key = path.resolve()
        known = self.files.get(key)
        if known is not None:
            return known
        self.files[key] = None
        root = root_of_package(key)
        if root not in self.roots:
            self.roots.append(root)
        source, tree = parse(path)
        module = self.files[key] = Module(path, source, tree)
        return module

    def read_modules(self) -> list[Module]:
        """Give all modules that were read."""
        return [module for module in self.files.values() if module is not None]

    def find(self, name: str) -> Module | None:
        """Give a module of the program by its dotted name; None for what is installed, missing or unreadable."""
        if name.split(".")[0] in OURS:
            return None
        if name not in self.names:
            self.names[name] = self.place_of(name)
        path = self.names[name]
        return None if path is None else self.read_or_none(path)

    def find_beside(self, folder: Path, name: str) -> Module | None:
        """Give a module by its name relative to a folder."""
        path = file_in(folder, name)
        return None if path is None else self.read_or_none(path)

    def read_or_none(self, path: Path) -> Module | None:
        """Give a module; None for one that cannot be read, which is said where it is linted itself."""
        try:
            known = self.files.get(path.resolve(), path)
            return self.read(from_here(path)) if isinstance(known, Path) else known
        except Unreadable:
            return None

    def place_of(self, name: str) -> Path | None:
        """Find the file of a module of the program; None for what is installed or missing."""
        if name.split(".")[0] in sys.stdlib_module_names:
            return None
        for root in self.roots:
            if (path := file_in(root, name)) is not None:
                return path
        path = found_by_import_system(name)
        return None if path is None or str(path.resolve()).startswith(INSTALLED) else path


def from_here(path: Path) -> Path:
    """Give a path relative to the working directory where it is below that."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def root_of_package(path: Path) -> Path:
    """Give the folder that the outermost package of a file stands in."""
    folder = path.parent
    while (folder / "__init__.py").exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def file_in(folder: Path, name: str) -> Path | None:
    """Find the file of a module below a folder."""
    place = folder.joinpath(*[part for part in name.split(".") if part])
    for path in (place.with_name(f"{place.name}.py") if name else place, place / "__init__.py"):
        if path.is_file():
            return path
    return None


def found_by_import_system(name: str) -> Path | None:
    """Find a module's file as an import would, part by part, without importing the packages on the way."""
    search: Iterable[str] | None = None
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        spec = spec_of(".".join(parts[:end]), search)
        if spec is None:
            return None
        if end == len(parts):
            return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
        search = spec.submodule_search_locations
        if search is None:
            return None
    return None


def spec_of(name: str, search: Iterable[str] | None) -> ModuleSpec | None:
    """Ask the finders of the import system, one after the other."""
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        try:
            spec: ModuleSpec | None = find(name, None if search is None else list(search)) if find else None
        except KeyError:  # a folder without __init__.py, below a package that is not imported
            spec = ModuleSpec(name, None, is_package=True)
            folders = [Path(place) / name.rpartition(".")[2] for place in search or ()]
            spec.submodule_search_locations = [str(folder) for folder in folders if folder.is_dir()]
        if spec is not None:
            return spec
    return None


def parse(path: Path) -> tuple[str, ast.Module]:
    """Read and parse a file. Raises Unreadable: what is wrong, and where."""
    try:
        with tokenize.open(path) as file:
            source = file.read()
    except OSError as error:
        raise Unreadable(path, f"the file cannot be read ({error.strerror})") from None
    except (SyntaxError, UnicodeDecodeError) as error:
        raise Unreadable(path, f"the file is no text in its encoding ({error})") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # those about literals are the compiler's to say
            return source, ast.parse(source)
    except SyntaxError as error:
        raise Unreadable(
            path, f"the file does not parse ({error.msg})", error.lineno or 1, error.offset or 1
        ) from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise Unreadable(path, f"the file does not parse ({error})") from None


def files_of(targets: Iterable[str | Path]) -> Iterator[Path]:
    """Give the files of paths, folders and module names, each once. Raises InvalidUse for what is not there."""
    seen: set[Path] = set()
    for target in targets:
        for path in files_of_one(target):
            if (key := path.resolve()) not in seen:
                seen.add(key)
                yield path


def files_of_one(target: str | Path) -> list[Path]:
    """Give the files of one path, folder or module name. Raises InvalidUse for what is not there."""
    path = Path(target)
    if not str(target).strip():
        raise InvalidUse("there is no file ''; give a file, a folder, or the dotted name of a module")
    if path.is_dir():
        return sorted(below(path))
    if path.is_file():
        return [path]
    text = str(target)
    if text.endswith(".py") or "/" in text or isinstance(target, Path):
        raise InvalidUse(f"there is no file '{text}'; give a file, a folder, or the dotted name of a module")
    found = file_in(Path.cwd(), text) or (found_by_import_system(text) if text.isprintable() else None)
    if found is None:
        raise InvalidUse(
            f"there is no module '{text}'; give a file, a folder, or a dotted name that can be imported here"
        )
    return sorted(below(found.parent)) if found.name == "__init__.py" else [found]


def refuse(error: OSError) -> None:
    """Raise InvalidUse for a folder that cannot be read."""
    raise InvalidUse(
        f"the folder '{error.filename}' cannot be read ({error.strerror}); give what can be"
    ) from error


def below(folder: Path) -> Iterator[Path]:
    """Give the Python files below a folder."""
    for place, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if name not in SKIPPED and not name.startswith(".")]
        yield from (Path(place, name) for name in files if name.endswith(".py"))
