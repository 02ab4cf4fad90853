"""Every block of README and docs runs, and the drawing is the table."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from sybil import Document, Example
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

from zart_core.interpreter import TRANSITIONS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def make_target_exists(example: Example) -> None:
    """Each line of a bash block is a make target of this project, or a `zart` command that has help."""
    for line in example.parsed.splitlines():
        words = line.split("#")[0].split()
        assert words[0] == "make", line
        subprocess.run(
            ["make", "--dry-run", "--directory", str(ROOT), *words[1:]], check=True, capture_output=True
        )


PARSERS = [PythonCodeBlockParser(), CodeBlockParser("bash", make_target_exists)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_of_a_page_run(page: Path) -> None:
    """The blocks of a page run in order, in one namespace a page."""
    document = Document.parse(str(page), *PARSERS)

    for example in document.examples():
        example.evaluate()


def test_every_block_has_a_language_that_is_run_or_drawn() -> None:
    """A block that nobody runs would rot: only python, bash, mermaid and plain drawings stand in the pages."""
    languages = {
        language
        for page in PAGES
        for language in re.findall(r"^```(\w*)\n(?:.|\n)*?^```$", page.read_text(), re.M)
    }

    assert languages <= {"python", "bash", "mermaid", ""}


def test_the_drawing_is_the_table() -> None:
    """The state diagram in the page of architecture is drawn from TRANSITIONS."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    drawing = re.search(r"```mermaid\n(.*?)```", page, re.S)

    assert drawing is not None
    assert drawing[1] == drawn()


def drawn() -> str:
    lines = ["stateDiagram-v2", "    [*] --> scheduled", "    scheduled --> running: Started"]
    running = TRANSITIONS[next(status for status in TRANSITIONS if status.value == "running")]
    stays = sorted(kind.__name__ for kind, after in running.items() if after is not None)
    lines.append(f"    running --> running: {', '.join(stays)}")
    ends = sorted(status.value for status, kinds in TRANSITIONS.items() if not kinds)
    lines += [f"    running --> {end}: Closed" for end in ends]
    return "\n".join(lines) + "\n"
