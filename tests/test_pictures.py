"""Pictures: a run over time, and the tree of ways that runs have taken; safe, self-contained, light and dark."""

from __future__ import annotations

import contextlib
import io
import re
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import zart_core as zart
from zart_core.cli import app
from zart_core.insight.drawing import STYLE
from zart_core.insight.graph import graph, mermaid, pruned, walk
from zart_core.insight.graph_svg import graph_svg
from zart_core.insight.timeline import Timeline, timeline
from zart_core.insight.timeline_svg import LABELS, PLOT, Scale, duration, timeline_html, timeline_svg
from zart_core.testing import run

HOSTILE = 'a\x1b[31m<script>alert("1")</script>&amp;\u202e]]>-->'
NS = "{http://www.w3.org/2000/svg}"


@zart.step("price-{sku}")
def price(sku: str) -> int:
    return 1


@zart.step("charge", retry=zart.Retry.fixed(2, 10))
def charge() -> str:
    if zart.context().attempt < 2:
        raise OSError("no <answer>")
    return "txn"


def part(sku: str) -> zart.Flow[int]:
    first = yield from price(f"{sku}-a")
    return first + (yield from price(f"{sku}-b"))


@zart.workflow("shop")
def shop(ends: str) -> zart.Flow[str]:
    yield from zart.gather(part("x"), part("y"))
    yield from zart.sleep("rest", "2d")
    txn = yield from charge()
    if ends == "fail":
        raise ValueError("it <failed>")
    if ends == "wait":
        yield from zart.wait_for_event("word", str)
    return txn


def crashed() -> list[zart.Event]:
    """A step that was taken over, handed over, retried, and runs."""
    failure = zart.Failure("error", "OSError", "no answer")
    return [
        zart.Started("c", 0, "shop", b"null", 0.0),
        zart.Issued(0, "step", "s", 0.0, "s", b"[]"),
        zart.Began(0, 0, at=1.0),
        zart.Began(0, 0, at=5.0, takeover=1),
        zart.Noted("handed-over", at=6.0),
        zart.Began(0, 0, at=8.0),
        zart.Retried(0, 0, failure, 20.0, 10.0),
        zart.Resolved(0, zart.Done(b"1"), 25.0),
        zart.Issued(1, "step", "t", 25.0, "t", b"[]"),
        zart.Began(1, 0, at=25.0),
    ]


def spans(shown: Timeline, name: str) -> list[tuple[str, float, float]]:
    row = next(row for row in shown.rows if row.line is not None and row.line.name == name)
    return [(span.kind, span.start - shown.start, span.end - shown.start) for span in row.spans]


# ---------------------------------------------------------------- the timeline as data


def test_every_attempt_gap_and_wait_is_a_span() -> None:
    """Retries begin when they are due; a sleep is a wait."""
    shown = timeline(run(shop, "ok").history, now=0.0)
    day = 86_400.0

    assert spans(shown, "rest") == [("wait", 0.0, 2 * day)]
    assert spans(shown, "charge") == [
        ("failed", 2 * day, 2 * day),
        ("gap", 2 * day, 2 * day + 10),
        ("failed", 2 * day + 10, 2 * day + 10),
        ("gap", 2 * day + 10, 2 * day + 20),
        ("attempt", 2 * day + 20, 2 * day + 20),
    ]
    assert shown.status == "completed"


def test_crashes_and_hand_overs_end_an_attempt() -> None:
    """What was lost with its worker is a span of its own, and a mark for the whole run."""
    shown = timeline(crashed(), now=30.0)

    assert spans(shown, "s") == [
        ("queued", 0.0, 1.0),
        ("lost", 1.0, 5.0),
        ("lost", 5.0, 6.0),
        ("queued", 6.0, 8.0),
        ("failed", 8.0, 10.0),
        ("gap", 10.0, 20.0),
        ("attempt", 20.0, 25.0),
    ]
    assert spans(shown, "t") == [("running", 25.0, 30.0)]
    assert [mark.says for mark in shown.marks] == ["another worker took it over", "handed over by its worker"]
    assert (shown.end, shown.status) == (30.0, "going on")


def test_a_retry_that_is_due_runs() -> None:
    """It begins without a record; until then it is a gap that ends later than the picture."""
    events = crashed()[:7]

    assert spans(timeline(events, now=23.0), "s")[-2:] == [("gap", 10.0, 20.0), ("running", 20.0, 23.0)]
    assert spans(timeline(events, now=15.0), "s")[-1] == ("gap", 10.0, 20.0)


def test_a_wait_for_an_attempt_that_never_came_ends_with_its_command() -> None:
    """Cancelled, or ended with its run, before it was due: what was waited is told, and not what was planned."""
    cancelled = [*crashed()[:7], zart.Resolved(0, zart.Cancellation(), 12.0)]
    ended = [*crashed()[:7], zart.Closed(zart.Status.TERMINATED, 13.0)]

    assert spans(timeline(cancelled, now=30.0), "s")[-1] == ("gap", 10.0, 12.0)
    assert spans(timeline(ended, now=30.0), "s")[-1] == ("gap", 10.0, 13.0)
    assert "cancelled, 12.0 s" in timeline_svg(timeline(cancelled, now=30.0))


def test_with_code_commands_stand_below_their_flow() -> None:
    """Each branch has a head, in the order in which they were started; without code all is flat."""
    events = run(shop, "ok").history
    nested = [(row.label, row.depth) for row in timeline(events, now=0.0, workflow=shop).rows]

    assert nested == [
        ("flow part", 0),
        ("price-x-a", 1),
        ("price-x-b", 1),
        ("flow part", 0),
        ("price-y-a", 1),
        ("price-y-b", 1),
        ("rest", 0),
        ("charge", 0),
    ]
    assert {row.depth for row in timeline(events, now=0.0).rows} == {0}

    @zart.workflow("shop")
    def other(ends: str) -> zart.Flow[None]:
        yield from zart.sleep("else", 1)

    assert len(timeline(events, now=0.0, workflow=other).rows) == 6


# ---------------------------------------------------------------- the drawings


def drawings() -> dict[str, str]:
    histories = [run(shop, ends).history for ends in ("ok", "fail", "wait")]
    tree = graph("shop", histories)
    drawn = {
        f"timeline {n}": timeline_svg(timeline(h, now=h[-1].at + 9, workflow=shop))
        for n, h in enumerate(histories)
    }
    return {**drawn, "crashed": timeline_svg(timeline(crashed(), now=30.0)), "graph": graph_svg(tree)}


@pytest.mark.parametrize("name", ["timeline 0", "timeline 1", "timeline 2", "crashed", "graph"])
def test_a_drawing_stands_alone_and_says_what_it_shows(name: str) -> None:
    """Well-formed, no script, nothing from elsewhere, a title and a description, colours for dark pages."""
    text = drawings()[name]
    root = ET.fromstring(text)

    assert not re.search(r"<script|href|url\(|@import|@font-face|onload|<foreignObject", text)
    assert root.get("role") == "img"
    assert {root.find(f"{NS}title").get("id"), root.find(f"{NS}desc").get("id")} == set(  # type: ignore[union-attr]
        root.get("aria-labelledby", "").split()
    )
    assert root.find(f"{NS}desc").text  # type: ignore[union-attr]
    assert "prefers-color-scheme: dark" in text
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    for element in root.iter():
        assert 0 <= float(element.get("x", 0)) <= width
        assert 0 <= float(element.get("y", 0)) <= height
        assert float(element.get("width", 0)) >= 0


def test_no_outcome_is_told_by_colour_alone() -> None:
    """Every row says in words what became of it."""
    shown = timeline(run(shop, "fail").history, now=0.0)
    texts = [element.text or "" for element in ET.fromstring(timeline_svg(shown)).iter(f"{NS}text")]

    assert sum(text.startswith("done") for text in texts) == 6
    assert "ValueError: it <failed>" in texts
    assert any(text.startswith("failed after") for text in texts)


def test_hostile_names_stay_text() -> None:
    """In SVG, HTML and Mermaid: no markup, no control characters, no syntax of the language."""
    issued = zart.Issued(0, "sleep", HOSTILE, 0.0, HOSTILE)
    failure = zart.Failure("error", HOSTILE, HOSTILE)
    events = [
        zart.Started(HOSTILE, 0, HOSTILE, b"null", 0.0),
        issued,
        zart.Resolved(0, zart.Failed(failure), 1.0),
        zart.Closed(zart.Status.FAILED, 2.0, failure=failure),
    ]
    shown, tree = timeline(events, now=3.0), graph(HOSTILE, [events])
    for text in (timeline_svg(shown), timeline_html(shown), graph_svg(tree)):
        assert "<script" not in text
        assert "\x1b" not in text
        assert "\u202e" not in text
    ET.fromstring(timeline_svg(shown))
    ET.fromstring(graph_svg(tree))
    for line in mermaid(tree).splitlines()[1:-1]:
        label = re.sub(r'^ +n\d+[\[({>]+"|"[\])}]+$', "", line)
        assert not re.search(r'["<>\[\]{}\x1b]', label.replace("<br/>", "").replace("-->", "")), line


def test_a_page_has_the_drawing_and_a_table() -> None:
    """Each command is a row of the table, with its outcome."""
    page = timeline_html(timeline(run(shop, "fail").history, now=0.0, workflow=shop))

    assert page.startswith("<!DOCTYPE html>")
    assert page.count("<tr>") == 1 + 8
    assert "<svg" in page
    assert "padding-left" in page
    assert "<script" not in page


def test_a_long_run_is_drawn_in_linear_size() -> None:
    """A thousand steps are a thousand rows; ten times as many are cut, and said to be."""

    def drawn(count: int) -> str:
        events: list[zart.Event] = [zart.Started("l", 0, "w", b"null", 0.0)]
        for n in range(count):
            events += [
                zart.Issued(n, "step", f"s-{n}", float(n), "s-{n}", b"[]"),
                zart.Began(n, 0, at=float(n)),
                zart.Resolved(n, zart.Done(b"1"), n + 1.0),
            ]
        return timeline_svg(timeline(events, now=float(count)))

    hundred, thousand, many = drawn(100), drawn(1_000), drawn(10_000)
    assert len(ET.fromstring(thousand).findall(f"{NS}g")) == 1_000
    assert len(thousand) < 11 * len(hundred)
    assert "and 7,000 more" in many


def contrast(one: str, other: str) -> float:
    """As WCAG 2 defines it."""

    def light(colour: str) -> float:
        parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
        r, g, b = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    high, low = sorted((light(one), light(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_colours_have_contrast_in_light_and_dark() -> None:
    """Text 4.5, shapes 3, on the page and on the bands."""
    sets = [dict(re.findall(r"--(\w+): (#\w{6})", part)) for part in STYLE.split("@media")]

    assert len(sets) == 2
    for colours in sets:
        for ground in ("page", "band"):
            for text in ("ink", "dim", "bad", "gap"):
                assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
            for shape in ("good", "bad", "gap", "wait", "now"):
                assert contrast(colours[shape], colours[ground]) >= 3, (shape, ground)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 100)), max_size=30),
    st.floats(0.001, 1e7),
)
def test_the_scale_never_goes_back_and_stays_on_the_page(
    parts: list[tuple[float, float]], end: float
) -> None:
    """Whatever is cut short: later is to the right, and all of it is there."""
    busy = [(min(a, end), min(a + length, end)) for a, length in parts]
    scale = Scale(0.0, end, busy)
    times = sorted({0.0, end, *(time for span in busy for time in span), *(end * n / 20 for n in range(21))})

    places = [scale.x(time) for time in times]
    assert all(a <= b + 1e-6 for a, b in pairwise(places))
    assert places[0] == pytest.approx(LABELS)
    assert places[-1] == pytest.approx(LABELS + PLOT)


def test_long_idle_times_are_cut_short_and_named() -> None:
    """Two days of sleep leave room for what happened in milliseconds; the cut says how long it is."""
    events = [
        zart.Started("i", 0, "w", b"null", 0.0),
        zart.Issued(0, "step", "a", 0.0, "a", b"[]"),
        zart.Began(0, 0, at=0.0),
        zart.Resolved(0, zart.Done(b"1"), 1.0),
        zart.Issued(1, "sleep", "nap", 1.0, until=200_000.0),
        zart.Resolved(1, zart.Done(b"null"), 200_000.0),
        zart.Issued(2, "step", "b", 200_000.0, "b", b"[]"),
        zart.Began(2, 0, at=200_000.0),
        zart.Resolved(2, zart.Done(b"1"), 200_001.0),
        zart.Closed(zart.Status.COMPLETED, 200_001.0, b"1"),
    ]
    root = ET.fromstring(timeline_svg(timeline(events, now=0.0)))
    widths = [float(one.get("width", 0)) for one in root.iter(f"{NS}rect") if one.get("class") == "attempt"]

    assert [width for width in widths[:2] if width > PLOT / 4] == widths[:2]
    assert any("in which nothing ran, cut short" in (one.text or "") for one in root.iter(f"{NS}title"))


def test_no_time_stands_twice_on_the_axis() -> None:
    """Steps of milliseconds after a long wait: where a label would say the same again there is none."""
    events: list[zart.Event] = [zart.Started("q", 0, "shop", b"null", 0.0)]
    for seq in range(4):
        at = 21 + seq / 100
        events += [zart.Issued(seq, "step", f"s-{seq}", at, "s", b"[]"), zart.Began(seq, 0, at=at)]
        events.append(zart.Resolved(seq, zart.Done(b"1"), at + 0.01))

    svg = timeline_svg(timeline(events, now=22.0))
    labels = re.findall(r">(\+[^<]*)</text>", svg)
    assert labels and len(set(labels)) == len(labels)


def test_durations_are_short() -> None:
    """In the largest units that say something."""
    given_ = {
        0.0: "0 ms",
        0.25: "250 ms",
        59.9: "59.9 s",
        60: "1 min",
        3_601: "1 h",
        3_660: "1 h 1 min",
        90_000: "1 d 1 h",
    }
    assert {seconds: duration(seconds) for seconds in given_} == given_
    assert duration(3_601, 3) == "1 h 0 min 1 s"


# ---------------------------------------------------------------- the graph


def test_ways_are_counted() -> None:
    """What goes into a node comes out of it; ends are counted by how runs ended."""
    histories = [run(shop, ends).history for ends in ("ok", "ok", "fail", "wait")]
    tree = graph("shop", histories)

    assert tree.runs == 4
    for node, _ in walk(tree):
        if node.kind != "end":
            assert node.runs == sum(one.runs for one in node.below.values())
    ends = {node.label: node.runs for node, _ in walk(tree) if node.kind == "end"}
    assert ends == {"completed": 2, "failed: ValueError": 1, "goes on": 1}
    (first,) = tree.below.values()
    assert (first.label, first.repeats, first.outcomes["done"]) == ("price-{sku}", 4, 16)
    retried = next(node for node, _ in walk(tree) if node.label == "charge")
    assert (retried.retries, retried.outcomes["done"]) == (8, 4)


@zart.workflow("naps")
def naps(orders: list[str]) -> zart.Flow[None]:
    for order in orders:
        yield from zart.sleep(f"after-{order}", 1)
    yield from zart.sleep("cool-down", 1)
    yield from zart.sleep("cool-off", 1)


def test_sleeps_whose_names_hold_data_are_one_node() -> None:
    """What one line names in many ways is one place, again and again; two lines are two, however alike their names."""
    histories = [run(naps, orders).history for orders in (["a", "b"], ["c"], ["a", "d", "e"])]
    tree = graph("naps", histories)

    assert [(node.kind, node.label, node.runs, node.repeats) for node, _ in walk(tree)] == [
        ("workflow", "naps", 3, 1),
        ("sleep", "after-*", 3, 3),
        ("sleep", "cool-down", 3, 1),
        ("sleep", "cool-off", 3, 1),
        ("end", "completed", 3, 1),
    ]


def test_the_least_taken_ways_are_left_out() -> None:
    """As many nodes as asked for, the most taken ones, each with what leads to it."""
    histories = [
        [
            zart.Started(f"{n}", 0, "w", b"null", 0.0),
            zart.Issued(0, "step", f"s{n % 10}", 0.0, f"s{n % 10}"),
            zart.Issued(1, "step", f"t{n}", 0.0, f"t{n}"),
        ]
        for n in range(95)
    ]
    tree = graph("w", histories)
    total = sum(1 for _ in walk(tree))

    left_out = pruned(tree, 11)

    assert total - left_out == sum(1 for _ in walk(tree)) == 11
    assert {node.label for node, depth in walk(tree) if depth == 1} == {f"s{n}" for n in range(10)}
    assert pruned(graph("w", histories)) == 0
    assert f"and {left_out} nodes" in mermaid(tree, left_out)


# ---------------------------------------------------------------- the commands


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files by their ending, stdout without one; wrong endings, workflows and ids are told."""
    url = f"sqlite:{tmp_path / 'store.db'}"
    with contextlib.closing(zart.open_log(url)) as log:
        zart.run_inline(shop_quick, log=log, id="one")

    def zart_(*args: str, code: int = 0) -> str:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            assert app.main([*args, "--store", url]) == code
        return out.getvalue()

    assert zart_("timeline", "one").startswith("<svg")
    assert "flow quick" in zart_("timeline", "one", __name__)
    for ending, begins in ((".svg", "<svg"), (".html", "<!DOCTYPE html>")):
        file = tmp_path / f"one{ending}"
        assert zart_("timeline", "one", "-o", str(file)) == f"{file}\n"
        assert file.read_text().startswith(begins)
    assert zart_("graph", "quick").startswith("flowchart TD\n")
    for ending, begins in ((".svg", "<svg"), (".mmd", "flowchart TD"), (".md", "```mermaid\nflowchart TD")):
        file = tmp_path / f"graph{ending}"
        zart_("graph", "quick", "-o", str(file))
        assert file.read_text().startswith(begins)
    zart_("timeline", "one", "-o", "one.pdf", code=2)
    zart_("timeline", "nobody", code=3)
    zart_("graph", "slow", code=2)
    zart_("graph", "quick", "-o", "x.png", code=2)
    said = capsys.readouterr().err
    assert "'one.pdf' must end in .svg or .html" in said
    assert "there is no execution of workflow 'slow'" in said


def quick() -> zart.Flow[int]:
    return (yield from price("a"))


@zart.workflow("quick")
def shop_quick() -> zart.Flow[Any]:
    return (yield from zart.gather(quick(), quick_too()))


def quick_too() -> zart.Flow[int]:
    return (yield from price("b"))
