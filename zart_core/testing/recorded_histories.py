"""Recorded histories as tests: one for each file of a folder, replayed against the code at hand.

Rule 1: pytest loads this only where a folder of histories is named.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from zart_core.cli.finding import load
from zart_core.deploys.histories import read_history
from zart_core.deploys.replaying import misfits_of
from zart_core.errors import InvalidUse, ZartError
from zart_core.workflows import Registry


class Misfits(Exception):
    """The code at hand does not fit a recorded history."""


class Histories(pytest.Collector):
    """All folders of histories."""

    def __init__(self, *, registry: Registry, folders: Sequence[Path], strict: bool, **options: Any) -> None:
        super().__init__(**options)
        self.registry = registry
        self.folders = folders
        self.strict = strict

    def collect(self) -> Iterator[pytest.Item]:
        """One test for each file, in the order of the names. Raises UsageError for a folder without any."""
        for folder in self.folders:
            files = sorted(folder.glob("*.json"))
            if not files:
                raise pytest.UsageError(
                    f"{folder} holds no .json file; zart export -o and zart corpus write some"
                )
            for file in files:
                yield HistoryItem.from_parent(  # pyright: ignore[reportUnknownMemberType]  # pytest's **kw
                    self,
                    name=f"{folder.name}/{file.name}",
                    file=file,
                    registry=self.registry,
                    strict=self.strict,
                )


class HistoryItem(pytest.Item):
    """One history."""

    def __init__(self, *, file: Path, registry: Registry, strict: bool, **options: Any) -> None:
        super().__init__(**options)  # pyright: ignore[reportUnknownMemberType]  # pytest's **kw
        self.file = file
        self.registry = registry
        self.strict = strict

    def runtest(self) -> None:
        """Replay it. Raises Misfits, and InvalidUse for what is no history."""
        history = read_history(self.file)
        misfits = misfits_of(history, self.registry, strict=self.strict)
        if misfits:
            lines = [misfit.message for misfit in misfits]
            if history.scrubbed:
                lines.append(
                    "it was scrubbed: a course that hangs on what was replaced does not replay (--keep)"
                )
            raise Misfits("\n".join(lines))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """What there is to say, without the frames of the replay."""
        if isinstance(excinfo.value, Misfits | ZartError):
            return str(excinfo.value)
        return super().repr_failure(excinfo)

    def reportinfo(self) -> tuple[Path, None, str]:
        """Where it stands."""
        return self.file, None, f"history {self.name}"


def items_of(config: pytest.Config, session: pytest.Session, folders: Sequence[Path]) -> list[pytest.Item]:
    """The tests of all folders. Raises UsageError: no workflows, a module that cannot be imported."""
    modules: list[str] = config.getoption("zart_workflows") or config.getini("zart_workflows")
    if not modules:
        raise pytest.UsageError("histories are replayed against workflows: add --zart-workflows MODULE")
    registry = Registry()
    try:
        for place in modules:
            registry.add(load(place))
    except InvalidUse as error:
        raise pytest.UsageError(str(error)) from error
    strict = not config.getoption("zart_relaxed")
    parent = Histories.from_parent(  # pyright: ignore[reportUnknownMemberType]  # pytest's **kw
        session, name="histories", nodeid="histories", registry=registry, folders=folders, strict=strict
    )
    return list(parent.collect())
