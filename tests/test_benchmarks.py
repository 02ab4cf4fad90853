"""What is measured is what the table says: each row runs, each bare loop does the same work. No time is asserted."""

import asyncio
import math
import xml.etree.ElementTree as ET

import attrs
import pytest

import zart_core as zart
from benchmarks import report, workers
from benchmarks.__main__ import arguments, main
from benchmarks.drawing import headroom
from benchmarks.measuring import Sizes
from benchmarks.peers import driving, on_zart
from benchmarks.peers.__main__ import TASKS, said
from benchmarks.rows import ROWS, Figure, Result
from benchmarks.stage import staged
from benchmarks.workloads import WORKFLOWS, fan, sequence

TINY = Sizes(rounds=1, share=0.002)


@pytest.fixture(scope="module")
def stage():
    with staged(TINY) as ready:
        yield ready


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_row_is_measured(row, stage):
    """Each row gives a figure for each round, and a line of the table."""
    result = row.result(stage)

    assert len(result.values) == 1
    assert all(map(math.isfinite, result.values))
    # A small run need not take more memory than a smaller one.
    assert result.values[0] > 0 or isinstance(row, Figure)
    assert report.line(result).count("|") == report.HEAD.splitlines()[0].count("|")


@pytest.mark.parametrize("group", [1, 100])
@pytest.mark.parametrize("name", ["sqlite", "file", "postgresql"])
def test_a_bare_loop_writes_the_same(name, group, stage):
    """What a bare loop writes is what a run has written: as many turns, the same bytes in each."""
    place = stage.place(name)
    url, again = place.fresh(), place.fresh()
    with zart.open(url, WORKFLOWS) as engine:
        engine.run(sequence, 3, id="one")
        engine.run(fan, 5, id="two")
    turns = place.written(url)

    assert place.commits(again, turns, group) > 0
    assert contents(place.written(again)) == contents(turns)
    assert len(turns) == 2 + 3 + 5 or name == "file"  # a turn to begin with, and one for each step


def contents(turns):
    """The bytes of turns, whichever table they are for."""
    return [turn if isinstance(turn, bytes) else (list(turn.records), turn.ended) for turn in turns]


def test_an_open_engine_reads_what_a_bare_loop_wrote(stage):
    """The rows of the bare loop are whole: a store verifies them, and a list shows the executions as ended."""
    place = stage.place("sqlite")
    url, again = place.fresh(), place.fresh()
    with zart.open(url, WORKFLOWS) as engine:
        engine.run(sequence, 3, id="one")
        wanted = engine.get("one").history()
    place.commits(again, place.written(url))

    with zart.open(again, WORKFLOWS) as engine:
        assert engine.get("one").history() == wanted


def made(values, budget, at_most):
    return Result("x", "what", values, "times", budget, at_most, "")


@pytest.mark.parametrize(
    ("values", "budget", "at_most", "met"),
    [
        ([1.0, 9.0, 2.0], 2.0, True, True),
        ([1.0, 2.1, 2.2], 2.0, True, False),
        ([0.7, 0.1, 0.6], 0.6, False, True),
        ([0.59, 0.9, 0.1], 0.6, False, False),
        ([5.0], None, True, None),
    ],
)
def test_a_budget_is_met_by_the_median(values, budget, at_most, met):
    """The median decides: at most an upper bound, at least a lower one."""
    result = made(values, budget, at_most)

    assert result.met is met
    assert {True: "yes", False: "**no**", None: ""}[met] == report.line(result).split("|")[6].strip()


def test_the_verdict_names_what_is_missed():
    """Under the table stands how many budgets are met, and which are not."""
    verdict = report.verdict([made([1.0], 2.0, True), made([3.0], 2.0, True), made([3.0], None, True)])

    assert verdict.strip() == "1 of 2 budgets met; not met: x"


def test_the_drawing_shows_each_row_that_has_a_budget():
    """One shape for each: a point where the budget is met, a cross where it is not."""
    root = ET.fromstring(headroom([made([1.0], 2.0, True), made([3.0], 2.0, True), made([3.0], None, True)]))
    shapes = [element.get("class") for element in root.iter() if element.get("class") in ("met", "missed")]

    assert shapes == ["met", "missed"]


def test_rows_are_chosen_by_name_or_beginning(capsys):
    """A whole name is that row, a beginning every row that has it; what is neither is refused with the names."""
    names = lambda *argv: [row.name for row in arguments([*argv]).chosen]

    assert names("replay") == ["replay"]
    assert names("many-") == ["many-sqlite", "many-postgresql"]
    assert names() == [row.name for row in ROWS]
    with pytest.raises(SystemExit):
        arguments(["speed"])
    assert "there are: replay, " in capsys.readouterr().err


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_the_work_of_peers_runs_on_zart(task, tmp_path):
    """Every piece of work that engines are compared by comes to its end, and its time is told."""
    url = f"sqlite:{tmp_path}/log.db"

    async def done():
        driving.WAITING.clear()
        if task.name == "replay":
            async with on_zart.opened(url) as engine:
                await driving.prepare(engine, 3)
            async with on_zart.opened(url) as engine:
                return await driving.replay(engine)
        async with on_zart.opened(url) as engine:
            return await driving.TASKS[task.name](engine, 3)

    found = asyncio.run(done())

    assert found["seconds"] > 0
    assert math.isfinite(found.get("bytes", 0))
    assert said(task, [{"n": 3, **found}])


def test_the_load_of_workers_is_measured(stage):
    """Two worker processes do all there is, and what it took is told."""
    load = attrs.evolve(workers.LOADS[0], executions=workers.GROUP)
    outcome = workers.measure(stage, load, 2)

    assert outcome.steps_s > 0
    assert outcome.own > 0
    assert outcome.wal > 0
    assert outcome.stored > 0
    assert workers.line(outcome).count("|") == workers.HEAD.splitlines()[0].count("|")


@pytest.mark.parametrize(
    ("slots", "syncing", "idle", "ours", "limit"),
    [
        (0.9, 0.9, 0.5, 1.0, "the workers' slots"),
        (0.2, 0.8, 0.05, 1.9, "the disk: 80% of the time in syncs"),
        (0.2, 0.1, 0.05, 1.9, "CPU"),
        (0.2, 0.1, 0.05, 0.5, "CPU, 1.5 of 2 cores of it used by others"),
        (0.2, 0.1, 0.6, 0.5, "waiting: the disk, or each other"),
    ],
)
def test_the_limit_is_what_was_used_up(slots, syncing, idle, ours, limit):
    """Slots first, then the disk, then CPU, whoever used it, else somebody waited."""
    assert workers.limit_of(slots, syncing, idle, ours, cores=2) == limit


def test_the_table_and_the_drawing_are_written(tmp_path, capsys):
    """`--to` leaves the table that was printed, and the drawing, in a folder that need not be there."""
    main(["replay", "--rounds", "1", "--quick", "--to", str(tmp_path / "new")])

    table = (tmp_path / "new" / "budgets.md").read_text()
    assert table == capsys.readouterr().out
    assert "| replay | replay of decoded events |" in table
    assert ET.fromstring((tmp_path / "new" / "budgets.svg").read_text()).tag.endswith("svg")
