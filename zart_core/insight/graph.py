"""The tree of commands that runs of a workflow have taken, with counts and outcomes; as data and as Mermaid.

Rule 1: steps count by their own id, not by the name a call gives them, sleeps by what their names have in common; the
        same command again and again is one node.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from zart_core.events import Closed, Event, Issued
from zart_core.hosts.explain import StepLine, steps_of
from zart_core.insight.patterns import Patterns
from zart_core.insight.values import plain, shortened

LABEL_CHARS_MAX = 60
NODES_MAX = 400
"""Nodes of one drawing; the least taken ways are left out, and said to be."""


class GraphNode:
    """A command at its place in the tree, or the end of runs."""

    def __init__(self, kind: str, label: str) -> None:
        self.kind = kind
        self.label = label
        self.runs = 0
        """How many runs came by."""
        self.outcomes: Counter[str] = Counter()
        self.retries = 0
        """Attempts after the first, in all."""
        self.repeats = 1
        """How often it was taken in a row, at most."""
        self.below: dict[tuple[str, str], GraphNode] = {}

    def child(self, kind: str, label: str) -> GraphNode:
        """The node for what comes after it."""
        return self.below.setdefault((kind, label), GraphNode(kind, label))


def graph(workflow: str, histories: Iterable[Sequence[Event]]) -> GraphNode:
    """The tree of the ways that these runs took. O(n) in all events, which are kept for so long."""
    root, patterns, runs = GraphNode("workflow", workflow), Patterns(), list(histories)
    for events in runs:
        patterns.see(events)
    for events in runs:
        follow_run(root, events, patterns)
    return root


def follow_run(root: GraphNode, events: Sequence[Event], patterns: Patterns) -> None:
    """Put one run into the tree."""
    root.runs += 1
    place, row = root, 1
    subjects = {event.seq: subject_of(event, patterns) for event in events if isinstance(event, Issued)}
    for line in steps_of(events):
        label = subjects[line.seq]
        if (place.kind, place.label) == (line.kind, label) and place is not root:
            row += 1
            place.repeats = max(place.repeats, row)
        else:
            place, row = place.child(line.kind, label), 1
            place.runs += 1
        count(place, line)
    last = events[-1] if events else None
    if isinstance(last, Closed):
        kind = last.failure.type.rpartition(".")[2] if last.failure is not None else ""
        place = place.child("end", f"{last.status}{': ' + kind if kind else ''}")
    else:
        place = place.child("end", "goes on")
    place.runs += 1


def subject_of(issued: Issued, patterns: Patterns) -> str:
    """What a command is about: a step's template, an event's name, a child's workflow; else the pattern of its name."""
    return issued.of or patterns.of(issued.kind, issued.name, issued.site)


def count(node: GraphNode, line: StepLine) -> None:
    """Count what became of a command."""
    node.outcomes[line.state] += 1
    node.retries += max(0, line.attempts - 1)


def words_of(node: GraphNode) -> str:
    """What became of it, in words; empty where all went well at once."""
    told = [f"{number:,} {state}" for state, number in sorted(node.outcomes.items()) if state != "done"]
    told += [f"{node.retries:,} retries"] if node.retries else []
    told += [f"up to {node.repeats:,} in a row"] if node.repeats > 1 else []
    return ", ".join(told)


def pruned(root: GraphNode, nodes_max: int = NODES_MAX) -> int:
    """Leave out the least taken ways of a tree, in place, until few enough nodes are left; gives how many went."""
    total, order = sum(1 for _ in walk(root)), itertools.count()
    kept, open_ways = {id(root)}, [(-one.runs, next(order), one) for one in root.below.values()]
    heapq.heapify(open_ways)
    while open_ways and len(kept) < nodes_max:
        _, _, node = heapq.heappop(open_ways)
        kept.add(id(node))
        for one in node.below.values():
            heapq.heappush(open_ways, (-one.runs, next(order), one))
    for node, _ in walk(root):
        node.below = {key: one for key, one in node.below.items() if id(one) in kept}
    return total - len(kept)


def walk(root: GraphNode) -> Iterator[tuple[GraphNode, int]]:
    """All nodes with their depth, each before those below it."""
    left = [(root, 0)]
    while left:
        node, depth = left.pop()
        yield node, depth
        left.extend((one, depth + 1) for one in reversed(node.below.values()))


# ---------------------------------------------------------------- Mermaid


SHAPES = {
    "workflow": ("([", "])"),
    "step": ("[", "]"),
    "sleep": ("{{", "}}"),
    "event": (">", "]"),
    "end": ("((", "))"),
}
KINDS = {"step": "", "end": "", "workflow": ""}


def mermaid(root: GraphNode, left_out: int = 0) -> str:
    """The tree as a Mermaid flowchart. Labels are escaped: no text of a name is taken for syntax."""
    lines = ["flowchart TD"]
    numbers: dict[int, int] = {}
    for node, _ in walk(root):
        number = numbers.setdefault(id(node), len(numbers))
        opening, closing = SHAPES.get(node.kind, ("(", ")"))
        lines.append(f'    n{number}{opening}"{"<br/>".join(map(escaped, text_of(node)))}"{closing}')
        if is_bad(node):
            lines.append(f"    class n{number} bad")
    for node, _ in walk(root):
        for one in node.below.values():
            lines.append(f"    n{numbers[id(node)]} -->|{one.runs}| n{numbers[id(one)]}")
    if left_out:
        lines.append(f'    more["and {left_out} nodes less often taken"]')
    lines.append("    classDef bad stroke:#c0392b,stroke-width:3px,stroke-dasharray:6 3")
    return "\n".join(lines) + "\n"


def text_of(node: GraphNode) -> list[str]:
    """The lines of a node: what it is, and what became of it."""
    kind = KINDS.get(node.kind, f"{node.kind} ")
    runs = "1 run" if node.runs == 1 else f"{node.runs:,} runs"
    name = f"{node.label} ({runs})" if node.kind == "workflow" else f"{kind}{node.label}"
    words = words_of(node)
    return [shortened(plain(name), LABEL_CHARS_MAX), *([words] if words else [])]


def is_bad(node: GraphNode) -> bool:
    """Whether something failed there."""
    return bool(node.outcomes["failed"]) or (
        node.kind == "end" and node.label.startswith(("failed", "timed_out"))
    )


def escaped(text: str) -> str:
    """Text for a quoted label."""
    return "".join(char if char.isalnum() or char in " .,:;_-/()+" else f"#{ord(char)};" for char in text)
