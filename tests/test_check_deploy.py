"""`zart check` and check_deploy: which unfinished executions would the code at hand park? (R20, R21, R23)"""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import attrs
import pytest
from engines import STORES, until, url_of

import zart_core as zart
from zart_core.cli import app
from zart_core.hosts.inline import Inline
from zart_core.hosts.ports import open_log
from zart_core.log import EventLog, New, Turn
from zart_core.testing import Relay, Verdict, check_deploy


@zart.step("pay")
def pay(cents: int) -> Any:
    return {"txn": "t", "cents": cents}


@zart.step("ship")
def ship(to: str) -> str:
    return to


@attrs.frozen
class Paid:
    txn: str
    cents: int


@attrs.frozen
class Later:
    txn: int
    cents: int


def order(
    *,
    name: str = "order",
    cents: int = 5,
    nap: str | None = None,
    extra: str | None = None,
    marker: int | None = None,
    takes: Any = pay,
) -> zart.Workflow[int, Any]:
    """A version of the workflow: it pays, perhaps sleeps or does something more, and waits for an address."""

    @zart.workflow(name)
    def flow(n: int) -> zart.Flow[Any]:
        if marker is not None:
            yield from zart.version("paying", marker)
        yield from takes(cents + n)
        if extra is not None:
            yield from ship("x").named(extra)
        if nap is not None:
            yield from zart.sleep("nap", nap)
        to = yield from zart.wait_for_event("address", str)
        return (yield from ship(to))

    return flow


def begun(log: EventLog, *workflows: zart.Workflow[Any, Any], ids: str = "a") -> EventLog:
    """Executions of these workflows, one for each id, as far as they go by themselves; nobody holds them after."""
    inline = Inline(log, zart.Registry())
    for workflow in workflows:
        for id in ids:
            inline.start(workflow, 0, id if len(workflows) == 1 else f"{workflow.name}-{id}")
    while inline.work():
        pass
    log.release(inline.worker)
    return log


@pytest.fixture(params=STORES)
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    log = open_log(url_of(request.param, tmp_path))
    yield log
    log.close()


def judged(log: EventLog, *workflows: zart.Workflow[Any, Any], **options: Any) -> Verdict:
    """The verdict on the only unfinished execution."""
    (verdict,) = check_deploy(log, workflows, **options).verdicts
    return verdict


# ---------------------------------------------------------------- verdicts


def test_code_that_fits(log):
    """The code that wrote it fits; so does code that differs behind what is recorded. Ended ones are left out."""
    begun(log, order(), ids="abc")
    inline = Inline(log, zart.Registry(order()))
    inline.log.append([zart_post("b", "address", b'"Rome"')])
    while inline.work():
        pass

    report = check_deploy(log, [order()])

    assert [(verdict.id, verdict.kind, verdict.event) for verdict in report.verdicts] == [
        ("a", "fits", None),
        ("c", "fits", None),
    ]
    assert (report.fits, report.counts, str(report)) == (
        True,
        {"fits": 2},
        "2 unfinished executions: 2 fits",
    )
    report.check()


@pytest.mark.parametrize("scheme", ["sqlite", "file"])
def test_a_store_that_is_not_there(tmp_path, scheme):
    """A path that was mistyped is no store in which everything fits, and none is made there."""
    with pytest.raises(zart.InvalidUse, match=r"there is no store at '.*', so nothing was checked"):
        check_deploy(f"{scheme}:{tmp_path / 'typo'}", [])
    assert list(tmp_path.iterdir()) == []


def test_code_that_diverges(log):
    """At the event, with both sides, both places and the nearest change (R21)."""
    verdict = judged(begun(log, order()), order(extra="pack"))

    assert (verdict.kind, verdict.event) == ("diverges", 4)
    assert (verdict.recorded, verdict.yielded) == ("event 'address[1]'", "step 'pack'")
    assert verdict.recorded_site is not None and verdict.yielded_site is not None
    assert verdict.recorded_site.line - verdict.yielded_site.line == 3
    assert verdict.nearest == "'pack' is taken out here, or guarded with zart.version(...)"
    assert verdict.message.startswith("execution 'a' (run 0) of workflow 'order' diverged at event 4\n")


def test_a_workflow_that_is_not_registered(log):
    """It would wait for somebody who has it."""
    begun(log, order(), order(name="other"))
    report = check_deploy(log, [order()])

    assert [(verdict.id, verdict.kind) for verdict in report.misfits] == [("other-a", "unregistered")]
    assert "workflow 'other' is not registered" in report.misfits[0].message
    with pytest.raises(AssertionError, match=r"2 unfinished executions: 1 fits, 1 unregistered\nother-a: "):
        report.check()


def test_a_result_that_no_longer_decodes(log):
    """The field is named."""

    @zart.step("pay")
    def typed(cents: int) -> Paid: ...

    assert judged(begun(log, order()), order(takes=typed)).kind == "fits"

    @zart.step("pay")
    def changed(cents: int) -> Later: ...

    verdict = judged(log, order(takes=changed))
    assert (verdict.kind, verdict.field) == ("unreadable", "value.txn")
    assert "the result of step 'pay' no longer decodes" in verdict.message


def test_an_input_that_no_longer_decodes(log):
    """Of one that has not begun, too."""

    @zart.workflow("order")
    def flow(n: Paid) -> zart.Flow[Any]:
        yield from pay(n.cents)

    Inline(log, zart.Registry()).start(order(), 7, "a")
    assert judged(log, order()).kind == "fits"
    verdict = judged(log, flow)
    assert (verdict.kind, verdict.event, verdict.field) == ("unreadable", 0, "value")
    assert verdict.status is zart.Status.SCHEDULED


def test_arguments_that_the_step_no_longer_takes(log):
    """A step that is still to run is called with the recorded arguments: they must decode, strictly or not."""

    def flow_of(step: Any) -> zart.Workflow[None, Any]:
        @zart.workflow("slow")
        def flow(_: None) -> zart.Flow[Any]:
            yield from step(3)

        return flow

    @zart.step("pay")
    def old(cents: int) -> int: ...

    @zart.step("pay")
    def new(cents: str) -> int: ...

    turn_of(log, flow_of(old), "a")
    assert judged(log, flow_of(old)).kind == "fits"
    verdict = judged(log, flow_of(new), strict=False)
    assert (verdict.kind, verdict.field) == ("unreadable", "cents")
    assert "the arguments of step 'pay' no longer decode" in verdict.message


def test_code_that_is_wrong(log):
    """A name used twice is a defect of the code, and no divergence."""
    verdict = judged(begun(log, order()), order(extra="pay"))

    assert (verdict.kind, verdict.event) == ("defect", None)
    assert verdict.message.startswith("DuplicateName: ")


@pytest.mark.parametrize("at_once", [lambda: zart.version("paying", 2), lambda: zart.now("begun")])
def test_code_that_is_wrong_behind_what_is_answered_at_once(log, at_once):
    """A marker and the time are answered in the turn that a host begins with, which so comes to what follows them."""

    @zart.workflow("order")
    def wrong(n: int) -> zart.Flow[Any]:
        yield from at_once()
        yield from zart.gather(pay(n), pay(n))

    Inline(log, zart.Registry()).start(order(), 0, "a")
    verdict = judged(log, wrong)
    assert (verdict.kind, verdict.message[:15]) == ("defect", "DuplicateName: ")
    assert judged(log, order(marker=2)).fits


def test_a_log_of_a_newer_version(log):
    """F26: it is refused, with both numbers."""
    first = zart.Started("a", 0, "order", b"0", 1.0, semantics=2)
    log.append([New("a", "order", "d", zart.Codec().encode_events([first]), 1.0)])

    verdict = judged(log, order())
    assert verdict.kind == "damaged"
    assert "written with semantics 2; this version knows 1" in verdict.message


def test_strictly_or_as_a_host_does(log):
    """Arguments and durations count by default; a host goes on with the recorded ones (R13, R21)."""
    begun(log, order(nap="1h"))

    argument = judged(log, order(cents=6, nap="1h"))
    assert (argument.kind, argument.event) == ("diverges", 1)
    assert (
        "the arguments differ (cents)" in argument.message
        and "Only a strict comparison minds" in argument.message
    )
    timer = judged(log, order(nap="2h"))
    assert (timer.kind, timer.event) == ("diverges", 4)
    assert "the times differ (1:00:00 recorded, 2:00:00 yielded)" in timer.message
    assert judged(log, order(cents=6, nap="2h"), strict=False).kind == "fits"


def test_ids_of_children(log):
    """One that was made from the parent's id is no argument, so that a copy under another id fits; a given one is."""

    @zart.workflow("kid")
    def kid(_: None) -> zart.Flow[None]:
        yield from zart.wait_for_event("never")

    def parent(id: str | None) -> zart.Workflow[None, None]:
        @zart.workflow("parent")
        def flow(_: None) -> zart.Flow[None]:
            yield from zart.child(kid, None, id=id)

        return flow

    for name, id in (("made", None), ("given", "kid-1")):
        started = zart.Started(name, 0, "parent", b"null", 1.0)
        issued = zart.Issued(0, "child", "kid[1]", 1.0, "kid", b"null", child="kid-1")
        log.append([New(name, "parent", "d", zart.Codec().encode_events([started, issued]), 1.0)])
        verdicts = {v.id: v.kind for v in check_deploy(log, [parent(id), kid]).verdicts}
        assert verdicts[name] == "fits"
    changed = {v.id: v.message for v in check_deploy(log, [parent("kid-2"), kid]).misfits}
    assert "the ids of the executions differ ('kid-1' recorded, 'kid-2' yielded)" in changed["given"]


def test_each_disagreement_is_told_once(log):
    """Of many that part at the same command one is told in full, with the line of the code at hand; others name it."""
    begun(log, order(), ids="abc")
    begun(log, order(name="other"), ids="d")

    report = check_deploy(log, [order(extra="gift")])
    lines = str(report).splitlines()
    assert lines[0] == "4 unfinished executions: 3 diverges, 1 unregistered"
    (full,) = [line for line in lines if line.startswith("a: ")]
    assert full == "a: diverges: execution 'a' (run 0) of workflow 'order' diverged at event 4"
    assert [line for line in lines if line.startswith(("b: ", "c: "))] == [
        "b: diverges at event 4, as a",
        "c: diverges at event 4, as a",
    ]
    place = lines[next(n for n, line in enumerate(lines) if line.startswith("  yielded: ")) + 1]
    found = re.fullmatch(r" {4}\S*test_check_deploy\.py:(\d+): (.*)", place)
    assert found is not None
    assert Path(__file__).read_text().splitlines()[int(found[1]) - 1].strip() == found[2]
    assert any(line.startswith("d: unregistered: workflow 'other' is not registered") for line in lines)


def test_a_marker_that_has_moved_on_fits_strictly_too(log):
    """R23: the recorded number is the answer, whatever the code calls current."""
    begun(log, order(marker=2))

    assert judged(log, order(marker=3)).kind == "fits"
    assert judged(log, order()).kind == "fits"


# ---------------------------------------------------------------- read-only, beside others


class ReadOnly(Relay):
    """A log that refuses everything but the reads that a check needs."""

    def reach(self, method: str) -> None:
        assert method in ("list", "records", "summary", "stats"), method


def test_nothing_is_claimed_or_written(log):
    """Parked or not, waiting or not: the log is as it was."""
    begun(log, order(), ids="ab")
    before = [(log.summary(id), log.records(id)) for id in "ab"]

    assert not check_deploy(ReadOnly(log), [order(extra="pack")]).fits
    assert [(log.summary(id), log.records(id)) for id in "ab"] == before


def test_beside_a_worker(tmp_path):
    """On a store that an engine has open, with executions in flight."""
    url, flow = url_of("sqlite", tmp_path), order()
    with zart.open(url, [flow]) as engine:
        handle = engine.start(flow, 1, id="a")
        until(lambda: "address" in str(handle.history()))
        (verdict,) = check_deploy(url, [order(extra="pack")]).verdicts
        assert verdict.kind == "diverges"
        handle.send("address", "Rome")
        assert handle.result(10) == "Rome"


class Moving(Relay):
    """A log on which something happens between the listing and the reading of an execution."""

    def __init__(self, log: EventLog, happens: Callable[[], None]) -> None:
        super().__init__(log)
        self.happens = happens

    def reach(self, method: str) -> None:
        if method == "records":
            self.happens()
            self.happens = lambda: None


def test_an_execution_that_ends_or_begins_anew_meanwhile():
    """It is judged as it stands when it is read; one that has ended is left out."""

    @zart.workflow("again")
    def again(n: int) -> zart.Flow[int]:
        yield from zart.wait_for_event("go")
        if n == 0:
            yield from again.continue_as_new(1)
        return n

    log = begun(open_log("memory:"), again)

    def go() -> None:
        inline = Inline(log, zart.Registry(again))
        log.append([zart_post("a", "go", b"null")])
        while inline.work():
            pass
        log.release(inline.worker)

    (verdict,) = check_deploy(Moving(log, go), [again]).verdicts
    assert (verdict.run, verdict.kind) == (1, "fits")
    assert check_deploy(Moving(log, go), [again]).verdicts == []


def zart_post(id: str, name: str, payload: bytes) -> Any:
    """A message to an execution."""
    from zart_core.log import Post

    return Post(id, "event", name, payload, 1.0)


def turn_of(log: EventLog, workflow: zart.Workflow[Any, Any], id: str) -> None:
    """An execution whose first step has begun and has no outcome."""
    Inline(log, zart.Registry()).start(workflow, None, id)
    held = log.acquire("w", id, lease_s=30.0)
    assert held is not None
    execution = zart.replay(workflow, zart.Codec().decode_events(log.records(id)))
    events = [*execution.decide(), zart.Began(0, 0, at=execution.now)]
    execution.close()
    records = zart.Codec().encode_events(events)
    log.append([Turn(id, 0, 1, held.fence, records, execution.now, zart.Status.RUNNING, releases=True)])


# ---------------------------------------------------------------- the command

V1 = """
import zart_core as zart

@zart.step("pay")
def pay(cents: int) -> int:
    return cents

@zart.workflow("order")
def order(n: int) -> zart.Flow[str]:
    yield from pay(n)
    return (yield from zart.wait_for_event("address", str))
"""
V2 = V1.replace("    return (yield", "    yield from pay(n).named('tip')\n    return (yield")


@pytest.fixture
def called(capsys, tmp_path, monkeypatch):
    """Call `zart` in this process, on a store with two executions of v1."""
    monkeypatch.setenv("ZART_STORE", f"sqlite:{tmp_path / 'store'}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "v1.py").write_text(V1)
    (tmp_path / "v2.py").write_text(V2)
    namespace: dict[str, Any] = {"__name__": "v1"}
    exec(compile(V1, str(tmp_path / "v1.py"), "exec"), namespace)
    log = begun(open_log(f"sqlite:{tmp_path / 'store'}"), namespace["order"], ids="ab")
    log.close()

    def call(*args: str) -> tuple[int, str, str]:
        code = app.main(args)
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_the_command(called):
    """What fits is counted, what does not is shown with both sides; 0 and 5 are for the pipeline."""
    assert called("check", "v1.py") == (0, "2 unfinished executions: 2 fits\n", "")
    code, out, err = called("check", "v2.py")

    assert (code, err) == (5, "")
    assert out.splitlines()[:5] == [
        "a: diverges: execution 'a' (run 0) of workflow 'order' diverged at event 4",
        "  recorded: event 'address[1]'   at v1.order, line +3",
        "  yielded:  step 'tip'   at v2.order, line +3",
        "    v2.py:11: yield from pay(n).named('tip')",
        "  It fits again if 'tip' is taken out here, or guarded with zart.version(...).",
    ]
    assert out.splitlines()[-1] == "2 unfinished executions: 2 diverges"


def test_the_command_for_programs(called):
    """One JSON object, and JUnit XML with a case for each execution."""
    code, out, _ = called("check", "v2.py", "--json", "--junit", "report.xml")
    found = json.loads(out)
    suite = ElementTree.parse("report.xml").getroot()

    assert (code, found["fits"], found["counts"]) == (5, False, {"diverges": 2})
    first = found["executions"][0]
    assert (first["id"], first["kind"], first["event"]) == ("a", "diverges", 4)
    assert (first["yielded_site"]["qualname"], first["yielded_site"]["line"]) == ("order", 3)
    assert suite.attrib == {"tests": "2", "failures": "2", "errors": "0"}
    assert [(case.get("classname"), case.get("name")) for case in suite.iter("testcase")] == [
        ("order", "a"),
        ("order", "b"),
    ]
    failures = [failure.text or "" for failure in suite.iter("failure")]
    assert len(failures) == 2 and "recorded: event 'address[1]'" in failures[0]
    assert called("check", "v1.py", "--junit", "report.xml")[0] == 0
    assert not list(ElementTree.parse("report.xml").getroot().iter("failure"))


class Terminal(io.StringIO):
    """Where a person watches."""

    def isatty(self) -> bool:
        return True


def test_the_bar_is_for_a_person_who_watches(called, monkeypatch):
    """On a terminal it counts on stderr, and stdout is the report alone; elsewhere there is none."""
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    code, out, _ = called("check", "v1.py")

    assert (code, out) == (0, "2 unfinished executions: 2 fits\n")
    assert "checked" in terminal.getvalue() and "2/2" in terminal.getvalue()


def test_the_command_is_told_nonsense(called, tmp_path):
    """A module without workflows, none at all, a report that cannot be written, a store that is not there."""
    (tmp_path / "none.py").write_text("x = 1\n")

    assert called("check", "none.py")[0::2] == (
        2,
        "zart: none.py has no workflow; give the modules that define or import them\n",
    )
    assert called("check", "missing.py")[0] == 2
    assert called("check")[0] == 2
    assert called("check", "v1.py", "--junit", "no/such/file")[0::2] == (
        2,
        "zart: 'no/such/file' cannot be written: No such file or directory\n",
    )
    assert called("check", "v1.py", "--store", "sqlite:nowhere")[0] == 4
