"""Versions of a workflow side by side: a run goes on with the one that it began with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
from engines import STORES, until, url_of
from hypothesis import given
from hypothesis import strategies as st

import zart_core as zart
from zart_core.cli import app
from zart_core.hosts.ports import open_log
from zart_core.hosts.relatives import new_execution
from zart_core.insight.forking import execution_of, fork
from zart_core.log import New
from zart_core.testing import check_deploy, export_history, import_history, run
from zart_core.workflows import claim_name, version_claimed


@zart.step("one")
def one() -> int:
    return 1


def numbered(version: int, **options: Any) -> zart.Workflow[int, str]:
    """A version of the workflow, each with steps of its own, that waits for an event."""

    @zart.workflow("order", version=version, **options)
    def order(n: int) -> zart.Flow[str]:
        yield from one().named(f"only-in-{version}")
        yield from zart.wait_for_event("go")
        if n > 0:
            yield from order.continue_as_new(n - 1)
        return f"v{version}"

    return order


V1, V2, V3 = numbered(1), numbered(2), numbered(3)


@pytest.fixture(params=STORES)
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    log = open_log(url_of(request.param, tmp_path))
    yield log
    log.close()


def waiting(engine: Any, workflow: Any, input: int, id: str) -> Any:
    """An execution that waits for its event."""
    handle = engine.start(workflow, input, id=id)
    until(lambda: "event" in str(handle.history()))
    return handle


@contextmanager
def continued(log: Any) -> Iterator[Any]:
    """An engine with versions 1 and 2; execution "a" began with the first, and its second run has all that it needs."""
    with zart.open(log, [V1]) as engine:
        waiting(engine, V1, 1, "a")
    with zart.open(log, [V1, V2]) as engine:
        engine.send("a", "go", None)
        until(lambda: engine.get("a").history()[0].run == 1)
        engine.send("a", "go", None)
        yield engine


def test_a_run_goes_on_with_the_version_it_began_with(log):
    """While it is registered, after a restart too; others take the newest."""
    with zart.open(log, [V1]) as engine:
        waiting(engine, V1, 0, "a")
    with zart.open(log, [V2, V1]) as engine:
        assert engine.engine.registry["order"] is V2
        waiting(engine, V2, 0, "b")
        for id in "ab":
            engine.send(id, "go", None)
        assert (engine.get("a").result(10), engine.get("b").result(10)) == ("v1", "v2")
        assert [event.version for event in (engine.get("a").history()[0], engine.get("b").history()[0])] == [
            1,
            2,
        ]


def test_a_version_that_is_not_registered_parks_its_runs(log):
    """The reason names the version; they go on when it is registered, here or after a restart (R20)."""
    with zart.open(log, [V1]) as engine:
        for id in "ab":
            waiting(engine, V1, 0, id)
    with zart.open(log, [V2, V3]) as engine:
        for id in "ab":
            engine.send(id, "go", None)
        until(lambda: len(engine.list(status="parked").items) == 2)
        assert engine.list(status="parked").items[0].reason == (
            "UnknownWorkflow: version 1 of workflow 'order' is not registered (registered: 2, 3). "
            "Register it beside the others, and its runs go on"
        )
        engine.register(V1)
        assert engine.get("a").result(10) == "v1"
    with zart.open(log, [V1, V2]) as engine:
        assert engine.get("b").result(10) == "v1"


def test_continue_as_new_takes_the_newest(log):
    """The run that follows is a new one."""
    with continued(log) as engine:
        assert engine.get("a").result(10) == "v2"
        assert [engine.get("a").history(run)[0].version for run in (0, 1)] == [1, 2]
        assert log.summary("a").claimed_as == "order (version 2)"


@pytest.mark.parametrize("store", ["memory", "sqlite"])
def test_a_worker_claims_only_the_versions_that_it_has(store, tmp_path):
    """What is due of another version stays where it is, and is not parked, until a worker comes that has it."""
    url = f"memory:{tmp_path}" if store == "memory" else url_of(store, tmp_path)
    log = open_log(url)
    with zart.open(url, [V1]) as first:
        with zart.open(url, [V2]) as second:
            waiting(second, V2, 0, "b")
        first.send("b", "go", None)
        for id in (
            "x",
            "y",
        ):  # whoever is given one of these has asked for what is due, and "b" is so since longer
            log.append([new_execution(zart.Codec(), V1, id, b"0", at=1.0)])
            until(lambda id=id: "event" in str(first.get(id).history()))
        found = log.summary("b")
        assert (found.owner, found.status, found.unread, found.claimed_as) == (
            None,
            "waiting",
            1,
            "order (version 2)",
        )
        with zart.open(url, [V2]) as second:
            assert second.get("b").result(10) == "v2"
        assert log.summary("x").claimed_as is None
    log.close()


def test_the_reason_names_the_version_that_is_missing(log):
    """Also where a worker comes that has another one, and where the name to claim by is somebody else's."""
    with zart.open(log, [V2]) as engine:
        waiting(engine, V2, 0, "b")
    log.append(
        [attrs.evolve(new_execution(zart.Codec(), V1, "x", b"0", at=1.0), claimed_as="order, but ours")]
    )
    with zart.open(log, [V1, V3]) as engine:
        assert [each.reason for each in engine.list(status="parked").items] == [
            "UnknownWorkflow: version 2 of workflow 'order' is not registered (registered: 1, 3). "
            "Register it beside the others, and its runs go on",
            "UnknownWorkflow: workflow 'order, but ours' is not registered",
        ]


def test_copies_are_claimed_by_the_version_of_the_original(log):
    """Forks, and what is taken out of one log and into another, with every run."""
    with continued(log) as engine:
        engine.get("a").result(10)
        waiting(engine, V2, 0, "b")
        history = engine.get("b").history()
    log.append([execution_of(fork(V2, history, id="c"), zart.Codec(), 9e9)])
    other = open_log("memory:")
    for id in "ab":
        import_history(other, export_history(log, id))
    expected = "order (version 2)"
    assert [log.summary("c").claimed_as, *(other.summary(id).claimed_as for id in "ab")] == [expected] * 3


@given(st.text(min_size=1), st.integers(1, 1 << 70), st.text())
def test_a_version_is_read_back_from_its_name(name, version, other):
    """What workers claim runs by says of which version they are, or of none."""
    assert version_claimed(name, claim_name(name, version)) == version
    assert version_claimed(name, f"{name} (version 02)") is None
    assert version_claimed(name, f"{name} (version {'9' * 5000})") is None
    claimed_as = f"{name}{other}"
    assert version_claimed(name, claimed_as) is None or other.startswith(" (version ")


def test_a_child_has_the_version_that_its_parent_names(log):
    """The command holds a workflow, which is of one version; it need not be registered beforehand."""

    @zart.workflow("parent")
    def parent(_: None) -> zart.Flow[list[str]]:
        old = yield from zart.child(V1, 0, id="old")
        new = yield from zart.child(V3, 0, id="new")
        return [old, new]

    with zart.open(log, [parent, V2]) as engine:
        handle = engine.start(parent, None, id="p")
        for id in ("old", "new"):
            until(lambda id=id: engine.list(id_prefix=id).items)
            engine.send(id, "go", None)
        assert handle.result(10) == ["v1", "v3"]


def test_what_an_older_version_wrote_is_version_1(log):
    """A log without the field is of the first version, and the first version leaves it out: nothing changes in it."""
    record = zart.Codec().encode_event(zart.Started("a", 0, "order", b"0", 1.0))
    assert record.data == b'{"id":"a","run":0,"workflow":"order"}\n0'
    log.append([New("a", "order", "d", [record], 1.0)])
    assert zart.Codec().decode_event(record).version == 1
    (verdict,) = check_deploy(log, [V1, V2]).verdicts
    assert (verdict.kind, verdict.version) == ("fits", 1)
    second = zart.Codec().encode_event(zart.Started("a", 0, "order", b"0", 1.0, version=2))
    assert second.data == b'{"id":"a","run":0,"workflow":"order","version":2}\n0'


def test_the_check_knows_versions(log):
    """A deploy that has dropped a version would park its runs."""
    with zart.open(log, [V1, V2]) as engine:
        waiting(engine, V1, 0, "a")
        waiting(engine, V2, 0, "b")

    assert check_deploy(log, [V1, V2, V3]).fits
    (verdict,) = check_deploy(log, [V2, V3]).misfits
    assert (verdict.id, verdict.kind, verdict.version) == ("a", "unregistered", 1)
    assert "version 1 of workflow 'order' is not registered" in verdict.message


def test_results_decode_by_the_version_that_gave_them(log):
    """Two versions may give different types."""

    @zart.workflow("typed")
    def first(_: None) -> zart.Flow[int]:
        return (yield from one())

    @zart.workflow("typed", version=2)
    def second(_: None) -> zart.Flow[list[str]]:
        return [str((yield from one()))]

    with zart.open(log, [first]) as engine:
        assert engine.run(first, None, id="a") == 1
    with zart.open(log, [first, second]) as engine:
        assert engine.run(second, None, id="b") == ["1"]
        assert (engine.get("a").result(10), engine.get("b").result(10)) == (1, ["1"])


def test_the_test_kit_runs_any_version():
    """`run` takes the one it is given."""
    assert run(V3, 0, events=[("1s", "go", None)]).value == "v3"


def test_two_of_one_version_and_numbers_that_are_none():
    """Clear errors at the edge."""
    with pytest.raises(
        zart.InvalidUse, match=r"two workflows are named 'order' version 2: .*give it another version="
    ):
        zart.Registry(V2, numbered(2))
    for wrong in (0, -1, True, "2"):
        with pytest.raises(zart.InvalidUse, match="versions are counted 1, 2, 3"):
            numbered(wrong)  # type: ignore[arg-type]
    missing = pytest.raises(zart.UnknownWorkflow, match="version 2 of workflow 'order' is not registered")
    with zart.open("memory:", [V1]) as engine, missing:
        engine.start(V2, 0)
    assert (repr(V1), repr(V2)) == ("<workflow 'order'>", "<workflow 'order' version 2>")


def test_list_versions(capsys, tmp_path):
    """`zart list --versions`: what still runs on what, so that one knows which versions may go."""
    url = f"sqlite:{tmp_path / 'store'}"
    with zart.open(url, [V1, V2]) as engine:
        waiting(engine, V1, 0, "a")
        waiting(engine, V2, 0, "b")
        waiting(engine, V2, 0, "c")
        done = waiting(engine, V1, 0, "d")
        done.send("go", None)
        done.result(10)

    assert app.main(["list", "--versions", "--store", url]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["WORKFLOW", "VERSION", "UNFINISHED", "OLDEST"]
    assert [line[:3] + line[4:] for line in lines[1:]] == [
        ["order", "1", "1", "1", "waiting"],
        ["order", "2", "2", "2", "waiting"],
    ]
    assert app.main(["list", "--versions", "--store", url, "--json"]) == 0
    items = json.loads(capsys.readouterr().out)["items"]
    assert [(item["workflow"], item["version"], item["counts"]) for item in items] == [
        ("order", 1, {"waiting": 1}),
        ("order", 2, {"waiting": 2}),
    ]


def test_list_versions_takes_no_filters(capsys, tmp_path):
    """Rather than leaving one out in silence."""
    zart.open_log(f"sqlite:{tmp_path / 'store'}").close()
    assert (
        app.main(["list", "--versions", "--status", "waiting", "--store", f"sqlite:{tmp_path / 'store'}"])
        == 2
    )
    assert "leave the other filters out" in capsys.readouterr().err


def test_the_command_line_takes_the_newest_by_name(capsys, tmp_path, monkeypatch):
    """By name the newest, by attribute the very one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flows.py").write_text(
        "import zart_core as zart\n"
        "@zart.step('s')\ndef s() -> int:\n    return 1\n"
        "@zart.workflow('w')\ndef old() -> zart.Flow[str]:\n    yield from s()\n    return 'old'\n"
        "@zart.workflow('w', version=2)\ndef new() -> zart.Flow[str]:\n    yield from s()\n    return 'new'\n"
    )
    said = []
    for target in ("flows.py", "flows.py:w", "flows.py:old"):
        assert app.main(["run", target, "--store", f"sqlite:{tmp_path / 'store'}"]) == 0
        said.append(capsys.readouterr().out.splitlines()[-1])
    assert said == ['"new"', '"new"', '"old"']
