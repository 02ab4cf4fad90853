"""The tree of ways as a drawing: from left to right, what comes next to the right of it."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from zart_core.insight.drawing import add, svg, text_of, write
from zart_core.insight.graph import GraphNode, is_bad, walk, words_of
from zart_core.insight.graph import text_of as lines_of

BOX = 210.0
HEIGHT = 40.0
ACROSS = 270.0
DOWN = 54.0
MARGIN = 16.0
TOP = 46.0
STYLE = """
.box { fill: var(--band); stroke: var(--line); stroke-width: 1.2; } .bad { stroke: var(--bad); stroke-width: 2.5;
  stroke-dasharray: 6 3; } .end { fill: var(--page); } .way { fill: none; stroke: var(--wait); }
.count { paint-order: stroke; stroke: var(--page); stroke-width: 3px; }
"""
WAY_MAX = 9.0
"""Pixels of the way that all runs took."""


def graph_svg(root: GraphNode, left_out: int = 0) -> str:
    """The tree as one SVG file, for light and dark pages."""
    places = placed(root)
    width = max(x for x, _ in places.values()) + BOX + MARGIN
    height = max(y for _, y in places.values()) + HEIGHT + MARGIN + 20
    about = "; ".join(" ".join(lines_of(node)) + f", {node.runs} runs" for node, _ in list(walk(root))[:50])
    drawing = svg(width, height, f"Ways that runs of {root.label} have taken", about, STYLE)
    write(drawing, MARGIN, 26, f"{root.label}: the ways its runs took", width, "title")
    for node, _ in walk(root):
        for one in node.below.values():
            draw_way(drawing, places[id(node)], places[id(one)], one, root.runs)
    for node, _ in walk(root):
        draw_node(drawing, places[id(node)], node)
    if left_out:
        write(drawing, MARGIN, height - 10, f"and {left_out:,} nodes less often taken", width, "dim")
    return text_of(drawing)


def placed(root: GraphNode) -> dict[int, tuple[float, float]]:
    """Where each node stands: to the right of what it follows, as high as the first of what follows it. O(n)."""
    places: dict[int, tuple[float, float]] = {}
    row, before = 0, -1
    for node, depth in walk(root):
        row += depth <= before
        places[id(node)] = (MARGIN + depth * ACROSS, TOP + row * DOWN)
        before = depth
    return places


def draw_way(
    drawing: ET.Element, here: tuple[float, float], there: tuple[float, float], node: GraphNode, runs: int
) -> None:
    """A way from one node to another, as broad as the part of all runs that took it."""
    x, y, right, down = here[0] + BOX, here[1] + HEIGHT / 2, there[0], there[1] + HEIGHT / 2
    middle = (x + right) / 2
    broad = max(1.2, WAY_MAX * node.runs / max(runs, 1))
    add(
        drawing,
        "path",
        f"{node.runs} of {runs} runs",
        d=f"M{x:.1f} {y:.1f} C{middle:.1f} {y:.1f} {middle:.1f} {down:.1f} {right:.1f} {down:.1f}",
        class_="way",
        stroke_width=broad,
    )


def draw_node(drawing: ET.Element, place: tuple[float, float], node: GraphNode) -> None:
    """A command, and what became of it."""
    x, y = place
    if node.kind != "workflow":
        write(drawing, x - 6, y + HEIGHT / 2 - 8, f"{node.runs:,}", 50, "dim count", "end")
    name, words = lines_of(node)[0], words_of(node)
    group = add(drawing, "g", f"{name}: {node.runs} runs. {words}")
    kind = ("box bad" if is_bad(node) else "box") + (" end" if node.kind == "end" else "")
    add(group, "rect", x=x, y=y, width=BOX, height=HEIGHT, rx=20 if node.kind == "end" else 5, class_=kind)
    write(
        group,
        x + 12,
        y + (17 if words else 24),
        name,
        BOX - 20,
        "head" if node.kind in ("workflow", "end") else "",
    )
    if words:
        write(group, x + 12, y + 32, words, BOX - 20, "badtext" if is_bad(node) else "dim")
