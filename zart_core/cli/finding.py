"""Find a workflow by MODULE_OR_FILE[:workflow].

Rule 1: the module is imported by its dotted path, or run from its file; the working directory comes first.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import sysconfig
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from zart_core.errors import InvalidUse, ZartError
from zart_core.insight.sources import is_own
from zart_core.workflows import Registry, Workflow, is_workflow, workflows_in

NOT_THEIRS = tuple(sysconfig.get_path(key) for key in ("stdlib", "platstdlib", "purelib", "platlib"))
"""What the files of Python itself and of installed packages begin with."""


def find(target: str) -> tuple[Workflow[Any, Any], Registry]:
    """Give the workflow, and all those of its module, so that children go on too. Raises InvalidUse."""
    place, colon, name = target.rpartition(":") if ":" in target else (target, "", "")
    module = load(place)
    registry = Registry(workflows_in(module))
    return chosen(registry, module, place, name if colon else ""), registry


def chosen(registry: Registry, module: ModuleType, place: str, name: str) -> Workflow[Any, Any]:
    """Give the newest workflow of this name, or that of this attribute; without one the only one of the module."""
    if name:
        if name in registry:
            return registry[name]
        attribute = vars(module).get(name)
        if is_workflow(attribute):
            return attribute
        raise InvalidUse(f"{place} has no workflow '{name}'; it has: {listed(registry)}")
    own = [workflow for workflow in registry if workflow.fn.__module__ == module.__name__]
    candidates = own or list(registry)
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise InvalidUse(f"{place} has no workflow; decorate a generator function with @zart.workflow()")
    raise InvalidUse(
        f"{place} has several workflows ({listed(registry)}); "
        f"add one of them, as in {place}:{candidates[0].name}"
    )


def listed(registry: Registry) -> str:
    """Name what is there."""
    return ", ".join(sorted(workflow.name for workflow in registry)) or "none"


def load(place: str) -> ModuleType:
    """Import a module by its dotted path, or from its file. Raises InvalidUse: what went wrong, and where."""
    nowhere = InvalidUse(f"there is no module '{place}'; give a dotted path from here, or a file.py")
    is_file = place.endswith(".py") or "/" in place
    if is_file:
        check_file(Path(place))
    elif not place or place.startswith("."):
        raise nowhere
    try:
        if is_file:
            return load_file(Path(place))
        sys.path.insert(0, str(Path.cwd()))
        return importlib.import_module(place)
    except ModuleNotFoundError as missing:
        if missing.name is not None and (place == missing.name or place.startswith(f"{missing.name}.")):
            raise nowhere from None
        raise InvalidUse(
            f"importing {place} failed: {missing}; install it, or run zart where it is{line_of(missing)}"
        ) from missing
    except (Exception, SystemExit) as error:
        known = str(error) if isinstance(error, ZartError) else f"{type(error).__name__}: {error}"
        raise InvalidUse(f"importing {place} failed: {known}{line_of(error)}") from error


def check_file(path: Path) -> None:
    """Raise InvalidUse unless it is a file that can be imported."""
    if not path.is_file():
        raise InvalidUse(f"there is no file '{path}'; give a file.py, or the dotted path of a module")
    if importlib.util.spec_from_file_location(path.stem, path) is None:
        raise InvalidUse(f"'{path}' is no Python file; its name must end in .py")


def load_file(path: Path) -> ModuleType:
    """Import a file, as a module named like it; files beside it can be imported, as in a script."""
    known = sys.modules.get(path.stem)
    if known is not None and getattr(known, "__file__", None) == str(path.resolve()):
        return known  # named twice on one command line: its steps are the same ones
    sys.path[:0] = [str(path.resolve().parent), str(Path.cwd())]
    name = f"{path.stem}_" if path.stem in sys.modules else path.stem
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    assert spec is not None and spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def line_of(error: BaseException) -> str:
    """Tell which line of the user's an error came through last; the very last one where none is the user's."""
    if isinstance(error, SyntaxError) and error.filename:
        return ""  # it says so itself
    frames = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    frames = [place for place in frames if not place[0].startswith("<frozen ") and not is_own(place[0])]
    theirs = [place for place in frames if not place[0].startswith(NOT_THEIRS)]
    return "".join(f" ({file}, line {line})" for file, line in (theirs or frames)[-1:])
