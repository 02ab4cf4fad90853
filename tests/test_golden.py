"""Golden histories: what this and every earlier version wrote replays for ever; all that can be written is there.

A folder for each number of the engine's semantics. `tests/golden/make.py` writes what is missing, and nothing anew.
"""

from __future__ import annotations

import ast
import inspect
import shutil
from pathlib import Path
from typing import Any, get_args

import attrs
import pytest

import zart_core as zart
from tests.golden import workflows
from zart_core import commands
from zart_core.deploys.histories import History, read_history
from zart_core.deploys.replaying import misfits_of
from zart_core.events import CLOSED, EVENT_TYPES, SEMANTICS, CommandKind, FailureKind, Outcome
from zart_core.testing import check_deploy

GOLDEN = Path(__file__).parent / "data" / "golden"
FILES = sorted(GOLDEN.glob("*/*.json"))
REGISTRY = zart.Registry(workflows)


def histories(folder: Path) -> list[History]:
    return [read_history(path) for path in sorted(folder.glob("*.json"))]


def all_events() -> list[zart.Event]:
    """Every event of the semantics at hand."""
    return [event for history in histories(GOLDEN / str(SEMANTICS)) for run in history.runs for event in run]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_it_replays(path: Path) -> None:
    """Strictly: the code of then decides what it decided, with the same arguments, times and result (P4)."""
    history = read_history(path)
    assert misfits_of(history, REGISTRY) == []
    for run in history.runs:
        assert isinstance(run[0], zart.Started)
        for cut in range(1, len(run)):
            zart.replay(REGISTRY.of(run[0]), run[:cut]).close()  # P1


@pytest.mark.parametrize("store", ["file", "sqlite"])
@pytest.mark.parametrize("folder", sorted(GOLDEN.iterdir()), ids=lambda folder: folder.name)
def test_a_store_of_it_is_read(folder: Path, store: str, tmp_path: Path) -> None:
    """F26: the file log and the SQLite database of then open, verify, and hold the very records of the histories."""
    shutil.copytree(folder / store, tmp_path / store)
    log = zart.open_log(
        f"file:{tmp_path / store}" if store == "file" else f"sqlite:{tmp_path / store / 'golden.db'}"
    )
    log.verify()
    for history in histories(folder):
        summary = log.summary(history.id)
        assert summary is not None and summary.workflow == history.workflow
        for run, events in enumerate(history.runs):
            assert log.records(history.id, run) == zart.Codec().encode_events(events)
    assert check_deploy(log, REGISTRY).fits
    log.close()


# ---------------------------------------------------------------- nothing is missing


def test_the_semantics_at_hand_have_golden_histories() -> None:
    """Who raises the number writes histories for it."""
    assert (GOLDEN / str(SEMANTICS)).is_dir()
    assert len(histories(GOLDEN / str(SEMANTICS))) >= 20


def test_every_workflow_has_one() -> None:
    """Those in tests/golden/workflows.py."""
    played = {history.workflow for history in histories(GOLDEN / str(SEMANTICS))}
    assert {workflow.name for workflow in REGISTRY} == played


def test_every_kind_has_one() -> None:
    """Events, commands, outcomes, failures, endings."""
    events = all_events()
    issued = [event for event in events if isinstance(event, zart.Issued)]
    outcomes = [event.outcome for event in events if isinstance(event, zart.Resolved)]
    closed = [event for event in events if isinstance(event, zart.Closed)]
    failures = [outcome.failure for outcome in outcomes if isinstance(outcome, zart.Failed)]
    failures += [event.failure for event in [*events] if isinstance(event, zart.Retried)]
    failures += [event.failure for event in closed if event.failure is not None]
    causes = [failure.cause for failure in failures if failure.cause is not None]

    assert {type(event).__name__ for event in events} == set(EVENT_TYPES)
    assert {event.kind for event in issued} == set(get_args(CommandKind))
    assert {type(outcome) for outcome in outcomes} == set(get_args(Outcome))
    assert {failure.kind for failure in [*failures, *causes]} == set(get_args(FailureKind))
    assert {event.status for event in closed} == CLOSED


@pytest.mark.parametrize("kind", sorted(EVENT_TYPES))
def test_every_field_has_one(kind: str) -> None:
    """Each field of each event has another value than its default somewhere, so that a reader that loses it is seen."""
    events = [event for event in all_events() if type(event).__name__ == kind]
    for field in attrs.fields(EVENT_TYPES[kind]):
        if (kind, field.name) == ("Started", "semantics"):
            continue
        values = [getattr(event, field.name) for event in events]
        assert any(value not in (field.default, 0, b"null") for value in values), f"{kind}.{field.name}"


def authors_functions() -> set[str]:
    """What authors call to get a command or a flow."""
    found = {
        name
        for name, value in vars(commands).items()
        if name in zart.__all__ and inspect.isfunction(value) and value.__module__ == commands.__name__
    }
    return found | {"continue_as_new", "cancel", "named"}


@pytest.mark.parametrize("name", sorted(authors_functions()))
def test_every_command_has_one(name: str) -> None:
    """Each function of `zart_core.commands` that authors call stands in a workflow that has a golden history."""
    tree = ast.parse(inspect.getsource(workflows))
    used: dict[str, set[str]] = {
        node.name: {inner.func.attr for inner in ast.walk(node) if is_method(inner)}
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
    }
    attributes = {workflow.fn.__name__: workflow.name for workflow in REGISTRY}
    played = {history.workflow for history in histories(GOLDEN / str(SEMANTICS))}
    users = {
        attributes[function] for function, names in used.items() if name in names and function in attributes
    }
    helpers = {function for function, names in used.items() if name in names and function not in attributes}
    assert users & played or helpers, (
        f"no golden history has zart.{name}: add a workflow and run tests.golden.make"
    )


def is_method(node: Any) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)


# ---------------------------------------------------------------- newer than this


@pytest.mark.parametrize("store", ["memory", "sqlite", "file"])
def test_a_log_of_newer_semantics_is_parked_with_both_numbers(store: str, tmp_path: Path) -> None:
    """F21, F26: by a host, which leaves it as it is; others go on."""
    url = {"memory": "memory:", "sqlite": f"sqlite:{tmp_path}/log.db", "file": f"file:{tmp_path}/log"}[store]
    log = zart.open_log(url)
    newer = zart.Started("newer", 0, "golden-kid", b"1", 1.0, semantics=SEMANTICS + 1)
    records = zart.Codec().encode_events([newer])
    from zart_core.log import New

    log.append([New("newer", "golden-kid", "d", records, 1.0)])
    with zart.open(log, [workflows.kid]) as engine:
        assert engine.run(workflows.kid, 2) == 2
        with pytest.raises(zart.FormatTooNew):
            engine.get("newer").result(10)
        (summary,) = engine.list(status="parked").items
    assert f"written with semantics {SEMANTICS + 1}; this version knows {SEMANTICS}" in summary.reason
    assert log.records("newer") == records
    log.close()
