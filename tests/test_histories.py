"""Recorded histories: out of a store, into another one, as tests, and a small set that covers all."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections import Counter
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import attrs
import pytest
from engines import STORES, until, url_of
from hypothesis import given, settings
from hypothesis import strategies as st

import zart_core as zart
from zart_core.cli import app
from zart_core.deploys.corpus import corpus_of, cover
from zart_core.deploys.histories import History, file_name, history_of, read_history, text_of, write_history
from zart_core.deploys.replaying import misfits_of
from zart_core.deploys.scrubbing import scrubbed
from zart_core.deploys.scrubbing import text as scrub_text
from zart_core.deploys.transfers import RECORDS_PER_TURN, export_history, import_history
from zart_core.hosts.ports import open_log
from zart_core.log import Message, New
from zart_core.testing import VirtualClock, check_deploy

pytest_plugins = ["pytester"]

KEY = UUID("6b1f6b1e-2f5f-4b0e-9b57-0d1c2b3a4f5e")
ODD = 'ünïcode \u202e "quotes" \x7f \\ 🎈'


@attrs.frozen
class Order:
    id: str
    cents: int
    due: date = date(2026, 11, 22)
    at: datetime = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
    share: Decimal = Decimal("0.1937465028")
    key: UUID = KEY
    gift: bool = True
    note: str | None = None
    lines: tuple[str, ...] = ("a", "bc")
    weight: float = 1e-7


class Declined(Exception):
    """The card was declined."""


@zart.step("charge", raises=(Declined,))
def charge(order: Order) -> Order:
    if order.cents < 0:
        raise Declined(f"{order.id} is too poor")
    return order


@zart.step("fetch", retry=zart.Retry.fixed(1, 0.0))
def fetch() -> bytes:
    if zart.context().attempt == 0:
        raise OSError("secret-token is wrong")
    return b"\x00\xff"


@zart.workflow("order")
def order(order: Order) -> zart.Flow[str]:
    try:
        yield from charge(order)
    except Declined:
        return "declined"
    yield from fetch()
    where = yield from zart.wait_for_event("address", str)
    return where


@zart.workflow("laps")
def laps(n: int) -> zart.Flow[int]:
    yield from zart.wait_for_event("go", int)
    if n:
        yield from laps.continue_as_new(n - 1)
    return n


@pytest.fixture(params=STORES)
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    log = open_log(url_of(request.param, tmp_path))
    yield log
    log.close()


def filled(log: Any) -> None:
    """Executions that ended in several ways, and one that waits with messages that nobody has taken."""
    with zart.open(log, [order, laps]) as engine:
        engine.start(order, Order(ODD, 5), id="done/1")
        engine.send("done/1", "address", ODD, key="k1")
        engine.get("done/1").result(10)
        engine.run(order, Order("x", -1), id="declined")
        engine.start(laps, 2, id="laps")
        for n in range(3):
            engine.send("laps", "go", n, key=f"go-{n}")
        engine.get("laps").result(10)
        engine.start(order, Order("y", 5), id="waiting")
        until(lambda: "address" in str(engine.get("waiting").history()))
        engine.send("waiting", "unheard", {"of": ODD}, key="k2")


IDS = ("done/1", "declined", "laps", "waiting")

# ---------------------------------------------------------------- files


def test_a_history_survives_its_file(log):
    """All runs, all events, the inbox: byte for byte what the log holds."""
    filled(log)
    for id in IDS:
        history = export_history(log, id)
        text = text_of(history)
        assert history_of(text) == history
        for run, events in enumerate(history_of(text).runs):
            assert zart.Codec().encode_events(events) == log.records(id, run)
        assert all(character.isprintable() or character == "\n" for character in text)
        json.loads(text)
    assert [len(export_history(log, "laps").runs), len(export_history(log, "waiting").inbox)] == [3, 1]


def test_a_file_is_readable(log):
    """One event a line, with its kind, its fields and its payload as JSON."""
    filled(log)
    lines = text_of(export_history(log, "declined")).splitlines()
    assert lines[:4] == ["{", '  "zart_history": 1,', '  "id": "declined",', '  "workflow": "order",']
    assert lines[9].strip().startswith('{"event": "Started", "at": ')
    assert '"payload": {"id": "x", "cents": -1, "due": "2026-11-22"' in lines[9]


ODD_PAYLOADS = [
    b"",
    b"1.0",
    b"1e16",
    b"12345678901234567890123",
    b'{"a":1,"a":2}',
    b" 1",
    b"\xff",
    b'"\xc3\xa4"',
    b"nan",
]


@pytest.mark.parametrize("data", ODD_PAYLOADS)
def test_odd_payloads_survive(data):
    """What is no JSON of our own writing is kept as text or base64."""
    first = zart.Started("a", 0, "w", data, 1.5)
    history = History("a", "w", zart.Status.WAITING, "", [[first]], [Message(1, "event", "e", data, 2.0)])
    assert history_of(text_of(history)) == history


@settings(max_examples=60)
@given(st.text(), st.floats(0, 1e12), st.binary(max_size=20))
def test_any_names_times_and_payloads_survive(name: str, at: float, data: bytes) -> None:
    """Whatever the edge lets in, and more."""
    id = name.encode(errors="ignore").decode() or "a"
    history = History(id, id, zart.Status.WAITING, id, [[zart.Started(id, 0, id, data, at)]])
    assert history_of(text_of(history)) == history


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is no history that zart export wrote"),
        ("[]", "is no history that zart export wrote"),
        ('{"zart_history": "1"}', "is no history that zart export wrote"),
        ('{"zart_history": 1}', "missing required field `id`"),
        (
            '{"zart_history": 1, "id": "a", "workflow": "w", "status": "done", "runs": []}',
            "Invalid enum value",
        ),
        ('{"zart_history": 1, "id": "a", "workflow": "w", "status": "waiting", "runs": []}', "holds no run"),
        (
            '{"zart_history": 1, "id": "a", "workflow": "w", "status": "waiting", "runs": [[]]}',
            "run 0 does not begin",
        ),
        (
            '{"zart_history": 1, "x": 1, "id": "a", "workflow": "w", "status": "waiting", "runs": []}',
            "unknown field",
        ),
    ],
)
def test_what_is_no_history_is_refused(text, says):
    """A clear error that names the file (F22)."""
    with pytest.raises(zart.InvalidUse, match=says):
        history_of(text)


def test_a_damaged_and_a_newer_file(log):
    """Both are refused, the newer one with both numbers (F26)."""
    filled(log)
    text = text_of(export_history(log, "declined"))
    with pytest.raises(zart.FormatTooNew, match="has format 2; this version knows 1"):
        history_of(text.replace('"zart_history": 1', '"zart_history": 2'))
    with pytest.raises(zart.FormatTooNew, match="written with semantics 9; this version knows 1"):
        history_of(text.replace('"workflow": "order"}', '"workflow": "order", "semantics": 9}'))
    with pytest.raises(zart.FormatTooNew, match="knows no 'Vanished'"):
        history_of(text.replace('"Closed"', '"Vanished"'))
    with pytest.raises(zart.InvalidUse, match="cannot be read"):
        history_of(text.replace('"seq": 0', '"seq": "0"'))
    with pytest.raises(zart.InvalidUse, match="does not begin with its Started"):
        history_of(text.replace('"id": "declined",', '"id": "other",', 1))


def test_file_names_are_no_paths(tmp_path):
    """L11: ids may be hostile, and long."""
    names = {file_name(id) for id in ("../../etc/passwd", "a/b", "a b", "..", "x" * 255, "x" * 254, "ä\n")}
    assert len(names) == 7
    assert all(Path(name).name == name and len(name) < 200 for name in names)


# ---------------------------------------------------------------- in and out


@pytest.mark.parametrize("target", STORES)
def test_a_copy_in_another_store(tmp_path, target):
    """Ended ones are ended, unfinished ones paused; all records, runs and messages are there, keys stay known (R14)."""
    source = open_log("memory:")
    filled(source)
    log = open_log(url_of(target, tmp_path))
    for id in IDS:
        import_history(log, history_of(text_of(export_history(source, id))))
    for id in IDS:
        there, here = source.summary(id), log.summary(id)
        assert here is not None and there is not None
        assert here.digest == there.digest
        assert here.status is (zart.Status.PAUSED if id == "waiting" else there.status)
        for run in range(there.run + 1):
            assert log.records(id, run) == source.records(id, run)
    assert [message.payload for message in log.inbox("waiting")] == [
        m.payload for m in source.inbox("waiting")
    ]
    log.verify()
    with zart.open(log, [order, laps]) as engine:
        assert engine.get("done/1").result(5) == ODD
        assert engine.start(order, Order("x", -1), id="declined").created is False
        assert engine.get("waiting").status() is zart.Status.PAUSED
    assert check_deploy(log, [order, laps]).fits
    log.close()


def test_a_copy_that_goes_on(log):
    """An unfinished one goes on where it stood when it is told to; what it had taken by key is not taken again."""
    source = open_log("memory:")
    with zart.open(source, [laps]) as engine:
        engine.start(laps, 1, id="a")
        engine.send("a", "go", 0, key="first")
        until(lambda: engine.get("a").history()[0].run == 1)
    assert import_history(log, export_history(source, "a"), go_on=True) is zart.Status.WAITING
    with zart.open(log, [laps]) as engine:
        engine.send("a", "go", 0, key="first")
        engine.send("a", "go", 1, key="second")
        assert engine.get("a").result(10) == 0
        taken = [
            event.key
            for run in (0, 1)
            for event in engine.get("a").history(run)
            if isinstance(event, zart.Delivered)
        ]
        assert taken == ["first", "second"]


@pytest.mark.parametrize("parked", [False, True])
def test_a_start_that_was_put_off_stays_so(log, parked):
    """It begins at its time in the other store too, and not for what is sent; what it is shown as is the same."""
    clock, source = VirtualClock(), open_log("memory:")
    at = datetime.fromtimestamp(clock.now() + 60, UTC)
    with zart.open(source, [laps], clock=clock) as engine:
        engine.start(laps, 0, id="a", at=at)
        engine.send("a", "go", 0)
    if parked:
        zart.open(source, [order], clock=clock).close()
    history = history_of(text_of(export_history(source, "a")))
    assert history.status is (zart.Status.PARKED if parked else zart.Status.SCHEDULED)

    assert import_history(log, history, go_on=True) is zart.Status.SCHEDULED

    summary = log.summary("a")
    assert summary is not None and (summary.status, summary.wake) == (zart.Status.SCHEDULED, at.timestamp())
    with zart.open(log, [laps], clock=clock) as engine:
        clock.advance(59)
        engine.send("a", "go", 1)
        until(lambda: log.next_wake() == at.timestamp())  # it was looked at
        assert engine.get("a").status() is zart.Status.SCHEDULED
        clock.advance(1)
        assert engine.get("a").result(10) == 0
        assert engine.get("a").history()[1].at == at.timestamp()


def test_an_id_that_is_there_is_refused(log):
    """And left as it is."""
    filled(log)
    before = log.records("waiting")
    with pytest.raises(
        zart.ExecutionConflict, match="has an execution 'waiting' already; it was left as it is"
    ):
        import_history(log, export_history(log, "waiting"))
    assert log.records("waiting") == before
    with pytest.raises(zart.UnknownExecution, match="no execution has the id 'nobody'"):
        export_history(log, "nobody")


def test_a_long_history(log):
    """In several turns."""
    first = zart.Started("a", 0, "w", b"null", 1.0)
    notes = [zart.Noted("x", at=2.0 + n) for n in range(2 * RECORDS_PER_TURN + 7)]
    history = History("a", "w", zart.Status.WAITING, "", [[first, *notes]])
    import_history(log, history)
    assert export_history(log, "a").runs == history.runs


# ---------------------------------------------------------------- without the data


def test_scrubbed(log):
    """No word of the data is left; types, ids, names and the shape stay, and it still decodes and replays."""
    filled(log)
    histories = [scrubbed(export_history(log, id)) for id in IDS]
    text = "".join(map(text_of, histories))
    for secret in (ODD, "secret-token", "too poor", "2026-11-22", "0.1937465028", "6b1f6b1e", "unheard of"):
        assert secret not in text
    assert '"scrubbed": true' in text and "charge" in text
    assert [
        misfits_of(history, zart.Registry(order, laps)) for history in histories if history.id != "laps"
    ] == [[], [], []]
    kept = scrubbed(export_history(log, "declined"), keep=["cents"])
    assert '"cents": -1' in text_of(kept) and '"id": "x"' in text_of(kept)
    with pytest.raises(zart.InvalidUse, match="cannot go on with data that was replaced"):
        import_history(open_log("memory:"), scrubbed(export_history(log, "waiting")), go_on=True)


@pytest.mark.parametrize("text", ["ที่นี่", "हिन्दी", "🎈🔥", "e\u0301", "«†»"])
def test_nothing_of_any_script_is_left(text):
    """Marks above and below letters, and signs that are no letters, tell as much as letters do."""
    assert scrub_text(f"{text}, at 7!") == f"{'x' * len(text)}, xx x!"


# ---------------------------------------------------------------- replayed


def test_finished_histories_are_compared_to_their_results(log):
    """Each run of them, strictly: other results are found too."""

    @zart.workflow("order")
    def shouting(order: Order) -> zart.Flow[str]:
        try:
            yield from charge(order)
        except Declined:
            return "DECLINED"
        yield from fetch()
        return (yield from zart.wait_for_event("address", str))

    filled(log)
    registry, histories = zart.Registry(shouting, laps), {id: export_history(log, id) for id in IDS}
    assert all(not misfits_of(history, zart.Registry(order, laps)) for history in histories.values())
    assert [id for id in IDS if misfits_of(histories[id], registry)] == ["declined"]
    assert [id for id in IDS if misfits_of(histories[id], registry, strict=False)] == []
    assert (
        "comes to another result than the one recorded at event 4"
        in misfits_of(histories["declined"], registry)[0].message
    )


def test_a_marker_that_is_younger_than_a_finished_history_changes_nothing_of_it():
    """R23: it is 1 there, also behind the last command, so what it guards is no part of the result."""

    @zart.workflow("charging")
    def before() -> zart.Flow[int]:
        charged = yield from charge(Order("x", 5))
        return charged.cents

    def after(answer: int) -> zart.Workflow[None, int]:
        @zart.workflow("charging")
        def charging() -> zart.Flow[int]:
            charged = yield from charge(Order("x", 5))
            if (yield from zart.version("fetching", 2)) == 2:
                yield from fetch()
            part = zart.scope("more", zart.version("giving", 3))
            return charged.cents if (yield from part) == answer else 0

        return charging

    log = open_log("memory:")
    zart.run_inline(before, log=log, id="x")
    history = export_history(log, "x")
    assert misfits_of(history, zart.Registry(after(1))) == []
    (misfit,) = misfits_of(history, zart.Registry(after(3)))
    assert "comes to another result than the one recorded at event 4" in misfit.message


FLOWS = """
import zart_core as zart

@zart.step("one")
def one() -> int:
    return 1

@zart.workflow("flow")
def flow(n: int) -> zart.Flow[int]:
    for k in range(n):
        yield from one().named(f"one-{k}")
    return n
"""


@pytest.fixture
def folder(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Workflows, a store with three executions of them, and a folder of their histories."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # what changes within a second is compiled anew
    pytester.makepyfile(flows=FLOWS)
    namespace: dict[str, Any] = {"__name__": "flows"}
    exec(FLOWS, namespace)
    log = open_log("memory:")
    with zart.open(log, [namespace["flow"]]) as engine:
        for n in range(3):
            engine.run(namespace["flow"], n, id=f"n-{n}")
    for n in range(3):
        write_history(export_history(log, f"n-{n}"), pytester.path / "histories")
    return pytester


def outcomes(pytester: pytest.Pytester, *args: str) -> Any:
    """Run pytest on it; modules are imported anew each time."""
    return pytester.runpytest_inprocess("-p", "no:cacheprovider", *args)


def test_pytest_replays_a_folder(folder):
    """One test for each file, by option; the message is the divergence and no traceback."""
    options = ("--zart-histories", "histories", "--zart-workflows", "flows")
    folder.makepyfile(test_other="def test_other(): pass")
    outcomes(folder, *options).assert_outcomes(passed=4)
    folder.makepyfile(flows=FLOWS.replace('f"one-{k}"', 'f"two-{k}"'))
    result = outcomes(folder, *options, "-v")
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines(["*histories/n-0.json PASSED*", "*histories/n-1.json FAILED*"])
    result.stdout.fnmatch_lines(["*recorded: step 'one-0'*", "*yielded:  step 'two-0'*"])
    assert "Traceback" not in result.stdout.str()
    outcomes(folder, *options, "-k", "n-0").assert_outcomes(passed=1, deselected=3)


def test_pytest_replays_what_its_settings_name(folder):
    """By ini settings, relative to them."""
    folder.makeini("[pytest]\nzart_histories = histories\nzart_workflows = flows\n")
    outcomes(folder).assert_outcomes(passed=3)
    folder.makepyfile(flows=FLOWS.replace("return n", "return n + 1"))
    outcomes(folder).assert_outcomes(failed=3)
    outcomes(folder, "--zart-relaxed").assert_outcomes(passed=3)


def test_pytest_is_told_nonsense(folder):
    """No workflows, no histories, no such module, a file that is none."""
    assert "add --zart-workflows MODULE" in outcomes(folder, "--zart-histories", "histories").stderr.str()
    options = ("--zart-workflows", "flows", "--zart-histories")
    assert "holds no .json file" in outcomes(folder, *options, "nowhere").stderr.str()
    missing = outcomes(folder, "--zart-workflows", "missing", "--zart-histories", "histories")
    assert "there is no module 'missing'" in missing.stderr.str()
    (folder.path / "histories" / "broken.json").write_text("{")
    broken = outcomes(folder, *options, "histories")
    broken.assert_outcomes(passed=3, failed=1)
    broken.stdout.fnmatch_lines(["*broken.json' is no history that zart export wrote*"])


# ---------------------------------------------------------------- a small set that covers all


def test_the_corpus_covers_everything_seen(log):
    """Every yield point with every outcome, in few executions, and it says what it covers."""
    filled(log)
    with zart.open(log, [order, laps]) as engine:
        for n in range(5):
            engine.run(order, Order("x", -1), id=f"again-{n}")
    found = corpus_of(log)

    assert {choice.id for choice in found.choices} == {"done/1", "again-0", "laps", "waiting"}
    assert (found.executions, list(found.unreadable)) == (9, [])
    seen = Counter(point.name for point, _ in found.features)
    assert (seen["charge"], seen["fetch"], seen["address"]) == (2, 2, 2)
    outcome = {outcome for point, outcome in found.features if point.name == "address"}
    assert outcome == {"taken", "pending"}
    assert ("end", "continued") in {(point.kind, outcome) for point, outcome in found.features}


def test_names_that_hold_data_are_no_reason_for_more_files(log):
    """One line that names a sleep after each order is one yield point, and one execution covers it."""

    @zart.workflow("naps")
    def naps(order: str) -> zart.Flow[None]:
        yield from zart.sleep(f"after-{order}", "1ms")
        yield from zart.sleep("settle", "1ms")

    with zart.open(log, [naps]) as engine:
        for order in ("one", "two", "three"):
            engine.run(naps, order, id=f"naps-{order}")
    found = corpus_of(log)

    assert found.executions == 3
    (choice,) = found.choices
    assert {(point.kind, point.name) for point, _ in choice.adds} == {
        ("sleep", "after-*"),
        ("sleep", "settle"),
        ("end", "naps"),
    }


def test_what_is_there_for_the_workers_sake_is_in_no_corpus(log):
    """An offered step is an execution, too, and none that code at hand could be replayed against."""
    filled(log)
    started = zart.Started("!step/0/0/done/1", 0, "!step/gpu/charge", b"{}", 1.0)
    log.append([New(started.id, started.workflow, "d", zart.Codec().encode_events([started]), 1.0)])
    found = corpus_of(log)

    assert found.executions == 4
    assert {choice.id for choice in found.choices} == {"done/1", "declined", "laps", "waiting"}


@given(st.lists(st.frozensets(st.integers(0, 12), max_size=6), min_size=1, max_size=20))
def test_a_cover_covers_and_each_choice_adds(sets: list[frozenset[int]]) -> None:
    """Whatever the sets: all is covered, and nothing is chosen in vain."""
    looks: Any = {features: (len(features), f"{n:02}") for n, features in enumerate(sets)}
    choices = cover(looks)
    everything = frozenset[Any]().union(*sets)
    assert frozenset[Any]().union(*(choice.adds for choice in choices)) == everything
    assert sum(len(choice.adds) for choice in choices) == len(everything)
    assert all(choice.adds for choice in choices)


# ---------------------------------------------------------------- the commands


@pytest.fixture
def called(capsys, tmp_path, monkeypatch):
    """Call `zart` in this process, on a store with several executions."""
    monkeypatch.setenv("ZART_STORE", f"sqlite:{tmp_path / 'store'}")
    monkeypatch.chdir(tmp_path)
    source = open_log(f"sqlite:{tmp_path / 'store'}")
    filled(source)
    source.close()

    def call(*args: str) -> tuple[int, str, str]:
        code = app.main(args)
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_export_and_import(called, tmp_path):
    """To stdout, to a folder, and into another store."""
    code, out, err = called("export", "declined")
    assert (code, err, history_of(out).id) == (0, "", "declined")
    assert called("export", "declined", "laps")[0::2] == (
        2,
        "zart: only one execution goes to stdout; give -o DIR for a file each\n",
    )
    assert called("export", *IDS, "-o", "out")[:2] == (
        0,
        "out/done%2F1.json\nout/declined.json\nout/laps.json\nout/waiting.json\n",
    )
    other = ("--store", "sqlite:other")
    code, out, err = called("import", "out", *other)
    assert (code, err) == (0, "")
    assert "waiting: paused, 9 events" in out.splitlines()
    code, _, err = called("import", "out/laps.json", *other)
    assert (code, err) == (6, "zart: the store has an execution 'laps' already; it was left as it is\n")
    assert called("export", "nobody")[0] == 3
    assert called("import", "missing.json", *other)[0] == 2
    assert called("import", "out/laps.json", "--store", "sqlite:third", "--json")[1] == (
        '{"items": [{"id": "laps", "status": "completed", "events": 15}]}\n'
    )


def test_a_newer_file_asks_for_a_newer_version(called, tmp_path):
    """It is whole, so nothing has to be restored; nothing is imported of it (F26)."""
    text = called("export", "declined")[1]
    (tmp_path / "newer.json").write_text(text.replace('"zart_history": 1', '"zart_history": 2'))
    code, out, err = called("import", "newer.json", "--store", "sqlite:fresh")
    assert (code, out) == (4, "")
    assert err == (
        "zart: 'newer.json' has format 2; this version knows 1; "
        "use a version of zart that is as new as what wrote it, and leave it as it is\n"
    )
    assert not (tmp_path / "fresh").exists()


def test_what_holds_payloads_is_the_owners_alone(called, tmp_path):
    """Histories and reports have mode 0600, a folder that is made for them 0700; nothing is written through a link."""

    def mode(name):
        return stat.S_IMODE((tmp_path / name).stat().st_mode)

    before = os.umask(0)
    try:
        called("export", "laps", "-o", "out")
        called("timeline", "laps", "-o", "laps.svg")
        assert [mode(name) for name in ("out", "out/laps.json", "laps.svg")] == [0o700, 0o600, 0o600]
        (tmp_path / "out" / "laps.json").chmod(0o644)
        (tmp_path / "laps.svg").chmod(0o644)  # a name that the user chose, and a mode
        called("export", "laps", "-o", "out")
        called("timeline", "laps", "-o", "laps.svg")
        assert [mode(name) for name in ("out/laps.json", "laps.svg")] == [0o600, 0o644]
    finally:
        os.umask(before)
    (tmp_path / "out" / "laps.json").unlink()
    (tmp_path / "out" / "laps.json").symlink_to(tmp_path / "elsewhere")
    code, _, err = called("export", "laps", "-o", "out")
    assert code == 2 and "cannot be written" in err and not (tmp_path / "elsewhere").exists()


def test_export_without_the_data(called):
    """--scrub and --keep."""
    code, out, _ = called("export", "declined", "--scrub", "--keep", "cents")
    assert code == 0 and "too poor" not in out and history_of(out).scrubbed and '"cents": -1' in out
    assert called("export", "declined", "--keep", "cents")[0] == 2


def test_corpus(called):
    """It writes files, and says what each covers."""
    code, out, err = called("corpus", "-o", "corpus")
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert lines[-1] == "4 of 4 executions cover all 4 yield points and 10 outcomes seen"
    assert any("charge" in line and "failed: answer" in line for line in lines)
    assert sorted(path.name for path in Path("corpus").iterdir()) == [
        "declined.json",
        "done%2F1.json",
        "laps.json",
        "waiting.json",
    ]
    found = json.loads(called("corpus", "-o", "corpus", "--json")[1])
    assert sum(len(item["adds"]) for item in found["items"]) == 10
    assert all(read_history(Path(item["file"])).id == item["id"] for item in found["items"])


def test_nothing_of_it_is_loaded_in_every_session():
    """The plugin imports none of this before it is asked for."""
    script = (
        "import sys, zart_core.testing.plugin; "
        "print([name for name in sys.modules if 'deploys' in name or 'recorded_histories' in name])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
