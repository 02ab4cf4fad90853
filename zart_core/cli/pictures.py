"""`zart timeline` and `zart graph`: pictures of one run over time, and of the ways that many have taken.

Rule 1: read-only; no payload is drawn. A file's ending says what it becomes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from zart_core import log as stored
from zart_core.cli.checking import registry_of, write
from zart_core.cli.debugging import workflow_of
from zart_core.cli.exits import OK
from zart_core.cli.reading import events_of, is_history_file, opened, recorded
from zart_core.cli.texts import plain, say
from zart_core.cli.transferring import files_of
from zart_core.deploys.histories import read_history
from zart_core.errors import InvalidUse
from zart_core.events import Event, Started
from zart_core.insight.graph import GraphNode, graph, mermaid, pruned
from zart_core.insight.graph_svg import graph_svg
from zart_core.insight.timeline import timeline
from zart_core.insight.timeline_svg import timeline_html, timeline_svg

PAGE = 500


def draw_timeline(id: str, modules: Sequence[str], url: str, run: int | None, file: str) -> int:
    """Draw one run over time."""
    if file and not file.endswith((".svg", ".html")):
        raise InvalidUse(f"'{file}' must end in .svg or .html")
    registry = registry_of(modules)
    _, events = recorded(id, url, run)
    if not events or not isinstance(events[0], Started):
        raise InvalidUse("this run has no events so far: there is nothing to draw")
    workflow = workflow_of(registry, events) if modules else None
    shown = timeline(events, now=time.time(), workflow=workflow)
    put(timeline_html(shown) if file.endswith(".html") else timeline_svg(shown), file)
    return OK


def draw_graph(workflow: str, url: str, limit: int, file: str) -> int:
    """Draw the ways that runs of a workflow have taken."""
    if file and not file.endswith((".svg", ".mmd", ".md")):
        raise InvalidUse(f"'{file}' must end in .svg, .mmd or .md")
    tree = tree_of(files_of(Path(workflow))) if is_file(workflow) else tree_in(workflow, url, limit)
    if not tree.runs:
        raise InvalidUse(f"there is no execution of workflow '{workflow}'; zart list shows those there are")
    left_out = pruned(tree)
    if file.endswith(".svg"):
        put(graph_svg(tree, left_out), file)
    elif file.endswith(".md"):
        put(f"```mermaid\n{mermaid(tree, left_out)}```\n", file)
    else:
        put(mermaid(tree, left_out), file)
    return OK


def is_file(place: str) -> bool:
    """Whether it is a file that `zart export` wrote, or a folder of them (with a slash), and no workflow's name."""
    return is_history_file(place) or ("/" in place and Path(place).is_dir())


def tree_of(files: Sequence[Path]) -> GraphNode:
    """The tree of the last run of each history."""
    histories = [read_history(file) for file in files]
    names = dict.fromkeys(history.workflow for history in histories)
    return graph(", ".join(names), [history.runs[-1] for history in histories])


def tree_in(workflow: str, url: str, limit: int) -> GraphNode:
    """The tree of a workflow's runs in a store."""
    with opened(url) as log:
        return graph(workflow, histories_of(log, workflow, limit))


def histories_of(log: stored.EventLog, workflow: str, limit: int) -> Iterator[list[Event]]:
    """The current runs of a workflow's executions, in the order of their ids."""
    after: str | None = None
    left = limit
    while left > 0:
        page = log.list(workflow=workflow, limit=min(PAGE, left), after=after)
        for summary in page.items:
            yield events_of(log, summary.id, summary.run)
        left -= len(page.items)
        after = page.next
        if after is None:
            return


def put(text: str, file: str) -> None:
    """Write a picture to its file, or to stdout."""
    if file:
        write(file, text)
        say(plain(file))
    else:
        say(text.rstrip("\n"))
