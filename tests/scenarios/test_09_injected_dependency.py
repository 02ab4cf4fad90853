"""Scenario 9: an object that steps reach by name."""

import pytest

import zart_core as zart
from examples.injected_dependency import SmallModel, injected_dependency
from tests.scenarios.killing import killed, ledger
from zart_core.testing import explore_crashes, run

QUERY = "durable execution"
ANSWER = "document 4"


def test_available_to_steps():
    """The object itself is what the step gets; it is called once."""
    model = SmallModel("sk-secret-42")
    result = run(injected_dependency, QUERY, resources={"model": model})
    assert (result.value, model.calls) == (ANSWER, 1)


def test_killed_after_the_first_step():
    """The expensive call is not made again."""
    model = SmallModel("sk-secret-42")
    two = killed(injected_dependency, QUERY, before="nearest", resources={"model": model})
    assert (two.first, two.result.value, model.calls) == ({"embed-query": 1}, ANSWER, 1)
    assert two.result.calls == {"embed-query": 1, "nearest": 1}


def test_killed_anywhere():
    """P3: one outcome."""
    report = explore_crashes(injected_dependency, QUERY, resources=lambda: {"model": SmallModel("sk")})
    assert ledger(report) == {"embed-query": (1, 2), "nearest": (1, 2)}
    assert len(report.outcomes) == 1


def test_never_in_the_log(url, tmp_path, open_engine):
    """No byte of it is in a record, nor in a file of the store."""
    model = SmallModel("sk-secret-42")
    with open_engine(injected_dependency, resources={"model": model}) as engine:
        handle = engine.start(injected_dependency, QUERY, id="query")
        assert handle.result(10) == ANSWER
        log = engine.engine.log
        bytes_of_log = b"".join(record.data for record in log.records("query"))
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert QUERY.encode() in bytes_of_log
    assert any(QUERY.encode() in data for data in files) or url == "memory:"
    for trace in (b"sk-secret-42", b"SmallModel", b"model"):
        assert not any(trace in data for data in [bytes_of_log, *files])


def test_a_host_without_it():
    """The error names what the host was opened with."""
    result = run(injected_dependency, QUERY, resources={"modle": 1})
    assert "no resource 'model'; the host was opened with resources: modle" in str(result.error)


def test_not_for_workflows():
    """A workflow has no effects, and so no resources."""

    @zart.workflow("greedy")
    def greedy() -> zart.Flow[None]:
        zart.resource("model")  # zart: ignore[ZT207] refused, as this test says
        yield from zart.sleep("never", 1)

    with pytest.raises(zart.ZartError, match="is for steps"):
        _ = run(greedy, resources={"model": 1}).value
