"""The perturbed double run: each thing that a workflow may not look at is found and named; what is fine passes."""

from __future__ import annotations

import json
from typing import Any

import pytest

import zart_core as zart
from examples import approval, children, counter, order_fulfilment, saga
from property_tests.shapes import SHAPES
from tests import perturbed_flows as flows
from zart_core.cli import app
from zart_core.errors import InvalidUse
from zart_core.testing import perturbation, perturbed, perturbed_histories, run
from zart_core.testing.perturbation import ITSELF, STATE
from zart_core.testing.replaying import same

pytest_plugins = ["pytester"]

CAUSES = {
    flows.clock: ("clock",),
    flows.today: ("clock",),
    flows.monotonic: ("clock",),
    flows.chance: ("random",),
    flows.secret: ("urandom",),
    flows.ids: ("uuid",),
    flows.region: ("environment",),
    flows.raises: ("environment",),
    flows.folder: ("folder",),
    flows.zone: ("timezone",),
    flows.language: ("locale",),
    flows.sets: ("hash-seed",),
    flows.state: (STATE,),
    flows.address: (ITSELF,),
    flows.both: ("random", "folder"),
}


def histories_of(*workflows: Any, **options: Any) -> dict[tuple[str, int], list[zart.Event]]:
    """What each of them records in memory, children too."""
    found: dict[tuple[str, int], list[zart.Event]] = {}
    for workflow in workflows:
        found.update(run(workflow, strict=False, **options).histories)
    return found


@pytest.fixture(scope="module")
def report():
    """All the controls and two that are fine, in one set of processes."""
    histories = {**histories_of(*CAUSES), **run(flows.good, {"b", "a"}).histories}
    return perturbed_histories(histories, [flows])


def test_every_control_is_found_with_its_cause(report):
    """Each workflow that looks at one thing is reported for that, and for nothing else."""
    assert {each.workflow: each.causes for each in report.differences} == {
        workflow.name: causes for workflow, causes in CAUSES.items()
    }
    assert report.misfits == ()
    assert (report.histories, report.rounds) == (len(CAUSES) + 2, 3)


def test_both_sides_and_the_line(report):
    """The event, what is recorded and what is decided, and where both stand in the source."""
    found = {each.workflow: each for each in report.differences}

    place = "tests.perturbed_flows.chance, line +3"
    chance = found["chance"]
    assert (chance.event, chance.recorded_site, chance.decided_site) == (4, place, place)
    assert chance.recorded.startswith("step 'say-0.")
    assert chance.decided.startswith("step 'say-0.")
    assert found["region"].decided == "step 'say-there' with [\"there\"]"
    assert (found["ids"].event, found["ids"].decided_site) == (1, "")
    assert "ValueError: invalid literal for int()" in found["raises"].decided


def test_the_text_of_a_report(report):
    """One paragraph for each difference and a line that sums up; check() raises it."""
    with pytest.raises(AssertionError) as raised:
        report.check()

    text = str(raised.value)
    assert text == str(report)
    assert (
        "workflow 'sets', execution 'sets' (run 0), event 1, because of hash-seed\n  recorded: step 'say-"
        in text
    )
    assert text.endswith(f"in 3 perturbed processes: {len(CAUSES)} not deterministic, 0 that do not fit")


def test_nothing_is_found_in_the_examples():
    """Whole runs of examples, children and further runs too."""
    shipped = [(1, "shipment-ready", {"tracking": "t"})]
    added = [(n, "add", 1) for n in range(5)]
    played = [
        run(order_fulfilment.order_fulfilment, order_fulfilment.Order("1", "s", 5), events=shipped),
        run(saga.saga, saga.Trip("bob")),
        run(approval.approval, approval.Request("ada", 5)),
        run(children.parent, children.Batch(5), id="batch"),
        run(counter.counter, counter.Count(5, per_run=2), events=added),
    ]
    histories = {key: events for result in played for key, events in result.histories.items()}

    report = perturbed_histories(histories, [order_fulfilment, saga, approval, children, counter], rounds=1)

    assert str(report).splitlines()[:-1] == []
    assert report.histories == 3 + (1 + 5) + 3


def test_nothing_is_found_in_the_shapes():
    """Workflows of every shape, as the other harnesses play them."""
    histories: dict[tuple[str, int], list[zart.Event]] = {}
    for shape in SHAPES:
        result = run(shape.workflow, shape.input, events=shape.events, id=f"shape-{shape.name}", strict=False)
        histories.update(result.histories)

    workflows = {each.name: each for shape in SHAPES for each in (shape.workflow, *shape.others)}
    report = perturbed_histories(histories, workflows.values(), rounds=1)

    assert str(report).splitlines()[:-1] == []
    assert report.histories >= len(SHAPES)


def test_a_history_of_other_code_is_a_misfit():
    """What does not fit whatever is perturbed is not called non-deterministic."""
    history = run(flows.clock, strict=False).history
    told = [history[0], zart.Issued(0, "step", "something-else", history[1].at), *history[2:]]

    report = perturbed_histories(
        {("x", 0): [*told]}, [flows.good, flows.fails, flows.sets, flows.clock], rounds=1
    )

    (found,) = [*report.misfits, *report.differences]
    assert found.recorded == "step 'something-else'"


def test_a_history_of_an_unknown_workflow_is_a_misfit():
    """It says which workflow is missing."""
    started = zart.Started("x", 0, "nobody", b"null", at=0.0)

    report = perturbed_histories({("x", 0): [started]}, [flows.good], rounds=1, kinds=["clock"])

    (found,) = report.misfits
    assert "workflow 'nobody' is not registered" in found.decided


def test_places_are_never_compared():
    """R21: a command that stands elsewhere, and an error that came another way, are the same decisions."""
    here, there = (zart.Issued(0, "step", "a", 1.0, site=zart.Site("m", "f", n)) for n in (1, 2))
    assert same(here, there)
    failed, otherwise = (
        zart.Closed(zart.Status.FAILED, 1.0, failure=zart.Failure("error", "E", message, traceback=trace))
        for message, trace in (("m", "a"), ("m", "b"))
    )
    assert same(failed, otherwise)
    assert not same(here, zart.Issued(0, "step", "b", 1.0))
    assert not same(failed, zart.Closed(zart.Status.FAILED, 1.0, failure=zart.Failure("error", "E", "other")))


def test_a_codec_of_the_testers():
    """Other processes take the codec that is given from where it stands."""
    amount, options = flows.Amount(5), {"codec": flows.amounts, "rounds": 1, "kinds": ["random"]}
    perturbed(flows.pays, amount, **options).check()
    (difference,) = perturbed(flows.overpays, amount, **options).differences
    assert (difference.workflow, difference.causes) == ("overpays", ("random",))

    plain = perturbed_histories(
        {("pays", 0): run(flows.pays, amount, codec=flows.amounts).history}, [flows], rounds=1
    )
    assert "Amount" in plain.misfits[0].decided


# ---------------------------------------------------------------- wrong use


@pytest.mark.parametrize("call", [perturbed, lambda *_, **how: perturbed_histories({}, [flows], **how)])
def test_a_codec_that_no_other_process_can_import(call):
    """The error says where to put it, before anything runs."""
    with pytest.raises(
        InvalidUse, match="the codec has a name in no module that other processes could import; give"
    ):
        call(flows.pays, flows.Amount(5), codec=zart.Codec())


def test_a_workflow_that_no_other_process_can_import():
    """The error says where to put it."""

    @zart.workflow("local")
    def local() -> zart.Flow[None]:
        yield from flows.say("x")

    with pytest.raises(InvalidUse, match="workflow 'local' is defined inside a function"):
        perturbed(local)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kinds": ["weather"]}, "there is no perturbation weather; there are: hash-seed, clock"),
        ({"rounds": 0}, "rounds is 0"),
    ],
)
def test_wrong_options(options, words):
    """Each says what there is."""
    with pytest.raises(InvalidUse, match=words):
        perturbed(flows.fails, **options)


def test_without_the_extra(monkeypatch):
    """It says what to install, before a process is started."""
    monkeypatch.setattr(perturbation, "is_importable", lambda name: name != "time_machine")

    with pytest.raises(InvalidUse, match=r'need time-machine: pip install "zart\[testing\]"'):
        perturbed(flows.fails, rounds=1)


def test_a_process_that_takes_too_long(monkeypatch):
    """It is given up, and the error says why that may be."""
    monkeypatch.setattr(perturbation, "TIMEOUT_S", 0.01)

    with pytest.raises(InvalidUse, match="did not end within"):
        perturbed(flows.fails, rounds=1)


BY_ITSELF = """
import zart_core as zart
from zart_core.testing import perturbation

@zart.step("say")
def say() -> str:
    raise AssertionError("a step runs")

@zart.workflow("says")
def says() -> zart.Flow[str]:
    return (yield from say())

perturbation.Processes = None  # or processes would start processes
perturbation.perturbed(says)
"""


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (BY_ITSELF, 'imports this module; put the call below `if __name__ == "__main__":`, or into a test'),
        ("raise KeyError('x')", "importing .* failed: KeyError"),
        ("import os; os._exit(7)", "ended with exit code 7"),
    ],
)
def test_a_module_that_cannot_be_imported_there(tmp_path, code, words):
    """What it says is passed on."""
    file = tmp_path / "flows_of_mine.py"
    file.write_text(code)
    place = {"module": "", "file": str(file), "qualname": ""}

    with pytest.raises(InvalidUse, match=words):
        perturbation.perturbed_in({}, [place], rounds=1, kinds=["clock"])


# ---------------------------------------------------------------- fixture and command


FLOWS = """
import random
import zart_core as zart

print("a module may print")

@zart.step("say-{x}")
def say(x: str) -> str:
    return x

@zart.workflow("good")
def good(x: str) -> zart.Flow[str]:
    print("so may a workflow, wrongly")
    return (yield from say(x))

@zart.workflow("bad")
def bad(x: str) -> zart.Flow[str]:
    return (yield from say(x + str(random.random())))
"""


def test_the_fixture(pytester: pytest.Pytester):
    """`perturbed` fails its test when there is a difference, also for workflows in the test file itself."""
    pytester.makepyfile(
        FLOWS
        + """
def test_good(perturbed):
    assert perturbed(good, "x", rounds=1, kinds=["clock"]).histories == 1

def test_bad(perturbed):
    perturbed(bad, "x", rounds=1, kinds=["random"])
"""
    )

    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:xdist")

    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*workflow 'bad', execution 'bad' (run 0), event 1, because of random*"])


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A folder with workflows and a store with an execution of each."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flows.py").write_text(FLOWS)
    url = f"sqlite:{tmp_path / 'log.db'}"
    for name in "good", "bad":
        assert app.main(["run", f"flows.py:{name}", '"x"', "--store", url, "--id", name]) == 0
    return url


def test_the_command(store, capsys):
    """All executions of a store, or those that are named; for people and for programs."""
    options = ["--store", store, "--rounds", "1", "--kind", "random"]
    capsys.readouterr()

    assert app.main(["perturb", "flows.py", *options, "--id", "good"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        "1 history of 5 events, replayed in 1 perturbed process: 0 not deterministic, 0 that do not fit"
    )

    assert app.main(["perturb", "flows.py", *options, "--json"]) == 5
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [(each["id"], each["event"], each["causes"]) for each in told["differences"]] == [
        ("bad", 1, ["random"])
    ]
    assert told["histories"] == 2


def test_other_workflows_of_a_store_are_left_out(store, tmp_path, capsys):
    """They are counted, and are no misfit; a module that has none of those that are there is the wrong one."""
    one, other = FLOWS.partition('@zart.workflow("bad")')[0], "import zart_core as zart\n"
    (tmp_path / "only_good.py").write_text(one)
    other += (
        '@zart.workflow("other")\ndef other(x: str) -> zart.Flow[None]:\n    yield from zart.sleep("s", 1)\n'
    )
    (tmp_path / "others.py").write_text(other)
    options = ["--store", store, "--rounds", "1", "--kind", "random"]
    capsys.readouterr()

    assert app.main(["perturb", "only_good.py", *options]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "1 history of 5 events, replayed in 1 perturbed process: 0 not deterministic, 0 that do not fit",
        "left out, since none of the modules has workflow 'bad': 1 execution",
    ]
    assert app.main(["perturb", "only_good.py", *options, "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["left_out"] == {"bad": 1}
    assert app.main(["perturb", "others.py", *options]) == 2
    assert "the store has no execution of other, but of bad, good" in capsys.readouterr().err


def test_exported_histories(store, tmp_path, capsys):
    """Files that `zart export` wrote, by name or by folder; scrubbed ones and two of one execution are refused."""
    folder = tmp_path / "histories"
    assert app.main(["export", "good", "bad", "--store", store, "-o", str(folder)]) == 0
    capsys.readouterr()

    assert (
        app.main(["perturb", "flows.py", "--history", str(folder), "--rounds", "1", "--kind", "random"]) == 5
    )
    assert "workflow 'bad', execution 'bad' (run 0), event 1, because of random" in capsys.readouterr().out

    good = str(folder / "good.json")
    assert app.main(["perturb", "flows.py", "--history", good, "--history", good]) == 2
    assert "holds execution 'good', which another file holds, too" in capsys.readouterr().err

    assert app.main(["export", "good", "--store", store, "-o", str(folder), "--scrub"]) == 0
    assert app.main(["perturb", "flows.py", "--history", good]) == 2
    assert "was scrubbed, so its arguments" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["flows.py", "--id", "nobody"], 3, "no execution has the id 'nobody'"),
        (["nope.py"], 2, "there is no file 'nope.py'"),
        (["flows.py", "--kind", "weather"], 2, "there is no perturbation weather"),
    ],
)
def test_wrong_usage_of_the_command(store, capsys, arguments, code, words):
    """One line, and the exit code of its family."""
    capsys.readouterr()

    assert app.main(["perturb", *arguments, "--store", store]) == code
    assert words in capsys.readouterr().err
