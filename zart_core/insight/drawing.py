"""What the drawings share: SVG elements, colours for light and dark, text that is safe and fits.

Rule 1: a drawing stands alone: no script, no font, no link. Colours never say anything that no text or shape says.
Rule 2: elements are built by ElementTree, which escapes; control characters are escaped before that (`plain`).
"""

from __future__ import annotations

from xml.etree import ElementTree as ET

from zart_core.insight.values import plain

STYLE = """
svg { --page: #ffffff; --ink: #1b1f24; --dim: #57606a; --line: #d0d7de; --good: #1f6feb; --bad: #c62828;
  --gap: #9a5b00; --wait: #7d8590; --now: #6f42c1; --band: #f6f8fa; background: var(--page);
  font: 12px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
@media (prefers-color-scheme: dark) {
  svg { --page: #14171c; --ink: #e6e9ee; --dim: #a3acb8; --line: #3a414b; --good: #6cb0ff; --bad: #ff8078;
    --gap: #f0b450; --wait: #8f98a3; --now: #c3a6ff; --band: #1b2027; } }
text { fill: var(--ink); } .dim { fill: var(--dim); } .badtext { fill: var(--bad); } .title { font-size: 15px;
  font-weight: 600; } .page { fill: var(--page); } .band { fill: var(--band); } .grid { stroke: var(--line); }
.head { font-weight: 600; }
"""
"""Both sets of colours have a contrast of at least 4.5 between text and page, and 3 between shapes and page."""
CHAR_WIDTH = 6.6
"""Pixels of an average character at 12 px; text that is wider is cut, and whole in its title."""


def svg(width: float, height: float, title: str, about: str, style: str = "") -> ET.Element:
    """An empty drawing with a title and a description for those who do not see it."""
    root = ET.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "width": number(width),
            "height": number(height),
            "viewBox": f"0 0 {number(width)} {number(height)}",
            "role": "img",
            "aria-labelledby": "title about",
        },
    )
    ET.SubElement(root, "title", {"id": "title"}).text = plain(title)
    ET.SubElement(root, "desc", {"id": "about"}).text = plain(about)
    ET.SubElement(root, "style").text = STYLE + style
    add(root, "rect", x=0, y=0, width=width, height=height, class_="page")
    return root


def add(parent: ET.Element, tag: str, says: str = "", **attributes: float | str) -> ET.Element:
    """An element with attributes; `says` is what a pointer and a reader are told about it."""
    given = {
        name.rstrip("_").replace("_", "-"): value if isinstance(value, str) else number(value)
        for name, value in attributes.items()
    }
    element = ET.SubElement(parent, tag, given)
    if says:
        ET.SubElement(element, "title").text = plain(says)
    return element


def write(
    parent: ET.Element, x: float, y: float, text: str, width: float, class_: str = "", anchor: str = ""
) -> None:
    """A line of text, cut to a width in pixels."""
    element = add(parent, "text", x=x, y=y)
    element.text = fitted(plain(text), width)
    if class_:
        element.set("class", class_)
    if anchor:
        element.set("text-anchor", anchor)


def fitted(text: str, width: float) -> str:
    """As much of a text as fits into so many pixels."""
    chars = max(1, int(width / CHAR_WIDTH))
    return text if len(text) <= chars else text[: chars - 1] + "…"


def number(value: float) -> str:
    """A coordinate, short."""
    return f"{value:.1f}".removesuffix(".0")


def text_of(root: ET.Element) -> str:
    """The drawing as a file."""
    return ET.tostring(root, encoding="unicode") + "\n"
