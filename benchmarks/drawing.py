"""The table as a drawing: how far each row is from its budget."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from xml.etree import ElementTree as ET

from benchmarks.rows import Result, figure
from zart_core.insight.drawing import add, svg, text_of, write

LABELS = 370.0
"""Pixels for what is measured."""
PLOT = 460.0
NOTES = 190.0
ROW = 22.0
TOP = 78.0
FOOT = 46.0
STOPS = (0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32)
"""Where the scale may have a line."""
STYLE = """
.met { fill: var(--good); stroke: var(--good); } .missed { fill: none; stroke: var(--bad); stroke-width: 2; }
.spread { stroke: var(--dim); stroke-width: 1.5; } .budget { stroke: var(--ink); stroke-width: 1.5; }
"""


def headroom(results: Sequence[Result]) -> str:
    """A row for each result that has a budget: its median and its spread, in times better than the budget."""
    shown = [result for result in results if result.headrooms]
    values = [value for result in shown for value in result.headrooms] or [1.0]
    low, high = min(0.5, *values), max(2.0, *values)
    first, last = math.log(low) - 0.1, math.log(high) + 0.1
    height = TOP + ROW * len(shown) + FOOT
    root = svg(
        LABELS + PLOT + NOTES,
        height,
        "How far each measurement is from its budget",
        "For each row the median of its rounds and their spread, as times better than the budget; 1 is the budget.",
        STYLE,
    )

    def x(value: float) -> float:
        return LABELS + PLOT * (math.log(value) - first) / (last - first)

    write(root, 14, 26, "How far each measurement is from its budget", LABELS + PLOT, "title")
    write(
        root,
        14,
        46,
        "right of the line is better; median of the rounds, and their spread; logarithmic",
        700,
        "dim",
    )
    bottom = height - FOOT + 4
    for stop in STOPS:
        if low <= stop <= high or stop == 1:
            kind = "budget" if stop == 1 else "grid"
            add(root, "line", x1=x(stop), x2=x(stop), y1=TOP - 8, y2=bottom, class_=kind)
            label = "the budget" if stop == 1 else f"{stop:g} x"
            write(root, x(stop), bottom + 18, label, 90, "head" if stop == 1 else "dim", "middle")
    for index, result in enumerate(shown):
        draw_row(root, x, TOP + ROW * index + ROW / 2, result)
    return text_of(root)


def draw_row(root: ET.Element, x: Callable[[float], float], y: float, result: Result) -> None:
    """A name, a line from the least to the greatest, a point, and the figure."""
    rooms = result.headrooms
    sign = "≤" if result.at_most else "≥"
    says = f"{figure(result.value)} {result.unit}, budget {sign} {figure(result.budget)}"
    write(root, 14, y + 4, result.title, LABELS - 24)
    add(root, "line", x1=x(min(rooms)), x2=x(max(rooms)), y1=y, y2=y, class_="spread")
    middle = x(statistics.median(rooms))
    if result.met:
        add(root, "circle", says, cx=middle, cy=y, r=4.5, class_="met")
    else:  # another shape, not only another colour
        add(root, "path", says, d=f"M{middle - 5:.1f} {y - 5:.1f}l10 10m0 -10l-10 10", class_="missed")
    text = f"{figure(result.value)} (budget {sign} {figure(result.budget)})"
    write(root, LABELS + PLOT + 14, y + 4, text, NOTES - 20, "" if result.met else "badtext")
