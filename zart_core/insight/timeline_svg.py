"""A timeline as a drawing, and as a page that has the same as a table.

Rule 1: idle time is cut short where it would hide everything else, and the cut is marked and named.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from xml.etree import ElementTree as ET

from zart_core.hosts.explain import moment
from zart_core.insight.drawing import add, svg, text_of, write
from zart_core.insight.timeline import Mark, Row, Span, Timeline
from zart_core.insight.values import plain

LABELS = 300.0
"""Pixels for names."""
PLOT = 700.0
NOTES = 270.0
"""Pixels for what is said beside a row."""
ROW = 20.0
TOP = 86.0
MARGIN = 14.0
CUT = 46.0
"""Pixels of an idle span that is cut short."""
CUTS_MAX = 8
REST_MIN_S = 1e-4
"""Seconds that something must have run for idle time to be cut short."""
TICKS = 6
MARKS_MAX = 12
ROWS_MAX = 3_000
STYLE = """
.queued { fill: none; stroke: var(--wait); stroke-dasharray: 1 2; }
.attempt { fill: var(--good); } .failed { fill: none; stroke: var(--bad); stroke-width: 2; }
.lost { fill: none; stroke: var(--bad); stroke-width: 2; stroke-dasharray: 4 3; }
.gap { stroke: var(--gap); stroke-width: 2; stroke-dasharray: 5 3; }
.wait, .pending { fill: var(--band); stroke: var(--wait); stroke-width: 1.5; }
.running { fill: var(--now); } .cross { stroke: var(--bad); stroke-width: 2; }
.mark { stroke: var(--gap); stroke-width: 1.5; } .marktext { fill: var(--gap); }
.cut { stroke: var(--dim); stroke-width: 1.5; fill: none; }
"""
LEGEND: Sequence[tuple[str, str]] = (
    ("queued", "waits for a worker"),
    ("attempt", "attempt that went well"),
    ("failed", "failed"),
    ("lost", "lost with its worker"),
    ("gap", "until its next attempt"),
    ("wait", "waits for time, an event or a child"),
    ("running", "runs now"),
)


class Scale:
    """From times to pixels, with long idle times cut short."""

    def __init__(self, start: float, end: float, busy: Sequence[tuple[float, float]]) -> None:
        self.start, self.end = start, max(end, start + 0.001)
        idle = long_gaps(self.start, self.end, busy)
        self.cuts = idle
        ends, begins = [a for a, _ in idle] + [self.end], [self.start] + [b for _, b in idle]
        shown = sum(a - b for a, b in zip(ends, begins, strict=True))
        pixels = (PLOT - CUT * len(idle)) / shown
        self.times, self.pixels = [self.start], [0.0]
        for a, b in idle:
            self.reach(a, self.pixels[-1] + (a - self.times[-1]) * pixels)
            self.reach(b, self.pixels[-1] + CUT)
        self.reach(self.end, PLOT)

    def reach(self, time: float, pixel: float) -> None:
        """A bend of the scale."""
        self.times.append(time)
        self.pixels.append(pixel)

    def x(self, time: float) -> float:
        """Where an instant lies."""
        n = min(max(bisect_right(self.times, time), 1), len(self.times) - 1)
        a, b = self.times[n - 1], self.times[n]
        part = 0.0 if b == a else min(1.0, max(0.0, (time - a) / (b - a)))
        return LABELS + self.pixels[n - 1] + part * (self.pixels[n] - self.pixels[n - 1])


def long_gaps(start: float, end: float, busy: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Spans in which nothing ran, where they would take most of the drawing: the longest of them."""
    gaps: list[tuple[float, float]] = []
    reached, rest = start, 0.0
    for a, b in [*sorted(busy), (end, end)]:
        if a > reached:
            gaps.append((reached, a))
        rest += max(0.0, b - max(a, reached))
        reached = max(reached, b)
    if rest < REST_MIN_S or rest > 0.4 * (end - start):
        return []
    longest = sorted(gaps, key=lambda gap: gap[0] - gap[1])[:CUTS_MAX]
    pads = [(a, b, min((b - a) * 0.05, rest * 0.05)) for a, b in longest if b - a > rest / 4]
    return sorted((a + pad, b - pad) for a, b, pad in pads)


def timeline_svg(shown: Timeline) -> str:
    """A timeline as one SVG file, for light and dark pages."""
    return text_of(drawn(shown))


def drawn(shown: Timeline) -> ET.Element:
    """The drawing."""
    rows = shown.rows[:ROWS_MAX]
    width = LABELS + PLOT + NOTES + 2 * MARGIN
    height = TOP + ROW * (len(rows) + 1) + 46 + (ROW if len(shown.rows) > len(rows) else 0)
    root = svg(width, height, f"Timeline of execution {shown.id}", described(shown), STYLE)
    write(root, MARGIN, 26, f"{shown.id}: {shown.workflow}, run {shown.run}", width - 330, "title")
    write(
        root,
        width - MARGIN,
        26,
        f"{shown.status} after {duration(shown.end - shown.start)}",
        300,
        "title",
        "end",
    )
    write(root, MARGIN, 46, shown.error, width - 2 * MARGIN, "badtext")
    scale = Scale(
        shown.start, shown.end, [(s.start, s.end) for row in rows for s in row.spans if is_busy(row, s)]
    )
    bottom = TOP + ROW * len(rows)
    for n in range(0, len(rows), 2):
        add(root, "rect", x=0, y=TOP + ROW * n, width=width, height=ROW, class_="band")
    draw_axis(root, scale, bottom)
    draw_marks(root, scale, shown.marks, bottom)
    for n, row in enumerate(rows):
        draw_row(root, scale, row, TOP + ROW * n)
    if len(shown.rows) > len(rows):
        write(root, MARGIN, bottom + ROW, f"and {len(shown.rows) - len(rows):,} more", LABELS, "dim")
        bottom += ROW
    draw_legend(root, bottom + 30)
    return root


def is_busy(row: Row, span: Span) -> bool:
    """Whether something ran."""
    return (
        row.line is not None
        and row.line.kind == "step"
        and span.kind in ("attempt", "failed", "lost", "running")
    )


def described(shown: Timeline) -> str:
    """The drawing in a sentence."""
    lines = [row.line for row in shown.rows if row.line is not None]
    counts = {
        state: sum(line.state == state for line in lines)
        for state in dict.fromkeys(one.state for one in lines)
    }
    told = ", ".join(f"{number} {state}" for state, number in counts.items()) or "none"
    return (
        f"Workflow {shown.workflow}, from {moment(shown.start)} to {moment(shown.end)}: {shown.status}. "
        f"{len(lines)} commands: {told}. {shown.error}"
    )


def draw_axis(root: ET.Element, scale: Scale, bottom: float) -> None:
    """Times below the head, and where idle time is cut short."""
    last, before = -100.0, ""
    for n in range(TICKS + 1):
        x = LABELS + PLOT * n / TICKS
        if any(scale.x(a) - 4 < x < scale.x(b) + 4 for a, b in scale.cuts):
            continue
        time = instant(scale, x)
        add(root, "line", x1=x, x2=x, y1=TOP - 6, y2=bottom, class_="grid")
        beside_cut = any(abs(x - (scale.x(a) + scale.x(b)) / 2) < 50 for a, b in scale.cuts)
        said = f"+{duration(time - scale.start, 3)}"
        if x - last > 70 and not beside_cut and said != before:  # one time, one place
            write(root, x, TOP - 10, said, 110, "dim", "middle")
            last, before = x, said
    for a, b in scale.cuts:
        x, right = scale.x(a), scale.x(b)
        group = add(root, "g", says=f"{duration(b - a)} in which nothing ran, cut short")
        middle = (x + right) / 2
        add(group, "path", d=f"M{middle - 5:.1f} {TOP - 4} l5 -7 l-3 0 l5 -7", class_="cut")
        add(group, "path", d=f"M{middle + 1:.1f} {TOP - 4} l5 -7 l-3 0 l5 -7", class_="cut")
        write(group, middle, TOP - 22, duration(b - a), 90, "dim", "middle")


def instant(scale: Scale, x: float) -> float:
    """The time at a place: the inverse of `Scale.x`."""
    pixel = x - LABELS
    n = min(max(bisect_right(scale.pixels, pixel), 1), len(scale.pixels) - 1)
    a, b = scale.pixels[n - 1], scale.pixels[n]
    part = 0.0 if b == a else (pixel - a) / (b - a)
    return scale.times[n - 1] + part * (scale.times[n] - scale.times[n - 1])


def draw_marks(root: ET.Element, scale: Scale, marks: Sequence[Mark], bottom: float) -> None:
    """Numbered lines through all rows; what they mean stands below the head."""
    told = marks[:MARKS_MAX]
    for n, mark in enumerate(told, 1):
        x = scale.x(mark.at)
        group = add(root, "g", says=f"{moment(mark.at)} {mark.says}")
        add(group, "line", x1=x, x2=x, y1=TOP - 4, y2=bottom, class_="mark")
        write(group, x + 2, bottom + 11, str(n), 20, "marktext")
    if told:
        more = f"; and {len(marks) - len(told)} more" if len(marks) > len(told) else ""
        text = "; ".join(f"{n} {mark.says}" for n, mark in enumerate(told, 1)) + more
        write(root, MARGIN, 62, text, LABELS + PLOT + NOTES, "marktext")


def draw_row(root: ET.Element, scale: Scale, row: Row, y: float) -> None:
    """A command: its name, its spans, and what became of it in words."""
    group = add(root, "g", says=told(row))
    left = MARGIN + 14 * row.depth
    name = row.label if row.line is None or row.line.kind == "step" else f"{row.line.kind} {row.label}"
    write(group, left, y + 14, name, LABELS - left - 10, "head" if row.line is None else "")
    for span in row.spans:
        draw_span(group, scale, span, y)
    if row.line is not None:
        bad = row.line.state in ("failed", "retrying")
        ends = max([scale.x(span.end) for span in row.spans], default=LABELS)
        write(group, LABELS + PLOT + MARGIN, y + 14, outcome(row), NOTES, "badtext" if bad else "dim")
        if not row.spans:
            x = scale.x(row.line.issued_at)
            add(group, "path", d=f"M{x:.1f} {y + 5:.1f} l5 5 l-5 5 l-5 -5 z", class_="attempt")
        elif row.line.state in ("running", "waiting", "queued", "retrying") and row.line.ended_at is None:
            write(group, min(ends + 3, LABELS + PLOT), y + 14, "▸", 10, "dim")


def draw_span(group: ET.Element, scale: Scale, span: Span, y: float) -> None:
    """Part of a row."""
    x, right = scale.x(span.start), scale.x(span.end)
    width = max(right - x, 2.5)
    says = f"{span.says}, {duration(span.end - span.start)}"
    match span.kind:
        case "gap":
            add(group, "line", says, x1=x, x2=max(right, x + 2.5), y1=y + 10, y2=y + 10, class_="gap")
        case "wait" | "pending":
            add(group, "rect", says, x=x, y=y + 7, width=width, height=6, rx=3, class_=span.kind)
        case _:
            add(group, "rect", says, x=x, y=y + 4, width=width, height=12, rx=2, class_=span.kind)
    if span.kind == "failed":
        end = x + width
        add(group, "path", d=f"M{end - 3:.1f} {y + 7:.1f} l6 6 m0 -6 l-6 6", class_="cross")


def draw_legend(root: ET.Element, y: float) -> None:
    """What the shapes mean."""
    x = MARGIN
    for kind, text in LEGEND:
        if kind == "gap":
            add(root, "line", x1=x, x2=x + 22, y1=y - 4, y2=y - 4, class_=kind)
        else:
            tall = kind != "wait"
            add(
                root,
                "rect",
                x=x,
                y=y - (10 if tall else 7),
                width=22,
                height=12 if tall else 6,
                class_=kind,
                rx=2,
            )
        if kind == "failed":
            add(root, "path", d=f"M{x + 19:.1f} {y - 7:.1f} l6 6 m0 -6 l-6 6", class_="cross")
        write(root, x + 30, y, text, 300, "dim")
        x += 52 + 6.6 * len(text)


def outcome(row: Row) -> str:
    """What became of a command, in words."""
    line = row.line
    assert line is not None
    tries = f", {line.attempts} attempts" if line.attempts > 1 else ""
    took = duration(sum(span.end - span.start for span in row.spans)) if row.spans else ""
    error = f": {line.error}" if line.error and line.state in ("failed", "retrying") else ""
    return f"{line.state}{tries}{', ' + took if took else ''}{error}"


def told(row: Row) -> str:
    """A row for who points at it, or has it read out."""
    line = row.line
    if line is None:
        return row.label
    place = f", at {line.site}" if line.site is not None else ""
    return f"{line.kind} {line.name}: {outcome(row)}{place}; since {moment(line.issued_at)}"


def duration(seconds: float, parts: int = 2) -> str:
    """A span of time, short: in its largest units, so many of them."""
    if seconds < 1:
        return f"{max(seconds, 0.0) * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    said: list[str] = []
    left = int(seconds)
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        count, left = divmod(left, size)
        if (count or said) and len(said) < parts:
            said.append(f"{count} {unit}")
    while said[-1].startswith("0 "):
        said.pop()
    return " ".join(said)


# ---------------------------------------------------------------- a page


PAGE_STYLE = """
:root { color-scheme: light dark; } body { font: 14px system-ui, sans-serif; margin: 1.5rem; background: #ffffff;
  color: #1b1f24; } table { border-collapse: collapse; } th, td { text-align: left; padding: .25rem .75rem .25rem 0;
  border-bottom: 1px solid #d0d7de; vertical-align: top; } .drawing { overflow-x: auto; }
.drawing svg { max-width: 100%; min-width: 50rem; height: auto; }
td { overflow-wrap: anywhere; }
@media (prefers-color-scheme: dark) { body { background: #14171c; color: #e6e9ee; } th, td { border-color: #3a414b; } }
"""
COLUMNS = ("Command", "Kind", "Outcome", "Since", "Place")


def timeline_html(shown: Timeline) -> str:
    """A timeline as one HTML page: the drawing, and the same as a table. No script."""
    html = ET.Element("html", {"lang": "en"})
    head, body = ET.SubElement(html, "head"), ET.SubElement(html, "body")
    ET.SubElement(head, "meta", {"charset": "utf-8"})
    ET.SubElement(head, "meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"})
    ET.SubElement(head, "title").text = plain(f"{shown.id}: timeline")
    ET.SubElement(head, "style").text = PAGE_STYLE
    ET.SubElement(body, "h1").text = plain(f"{shown.id}: {shown.workflow}, run {shown.run}")
    ET.SubElement(body, "p").text = plain(described(shown))
    ET.SubElement(body, "div", {"class": "drawing"}).append(drawn(shown))
    ET.SubElement(body, "h2").text = "Commands"
    table = ET.SubElement(body, "table")
    add_cells(ET.SubElement(table, "tr"), "th", COLUMNS)
    for row in shown.rows:
        add_cells(ET.SubElement(table, "tr"), "td", cells_of(row), indent=row.depth)
    return "<!DOCTYPE html>\n" + ET.tostring(html, encoding="unicode", method="html") + "\n"


def add_cells(row: ET.Element, tag: str, cells: Sequence[str], indent: int = 0) -> None:
    """A row of a table; the first cell is indented as deep as its flow."""
    for cell in cells:
        ET.SubElement(row, tag).text = plain(cell)
    if indent:
        row[0].set("style", f"padding-left: {indent * 1.5}em")


def cells_of(row: Row) -> tuple[str, ...]:
    """A row as cells."""
    line = row.line
    if line is None:
        return row.label, "flow", "", "", ""
    return row.label, line.kind, outcome(row), moment(line.issued_at), str(line.site or "")
