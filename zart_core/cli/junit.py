"""A deploy report as JUnit XML, which pipelines show.

Rule 1: text that comes from data is escaped before it becomes XML, which cannot hold control characters.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

from zart_core.cli.texts import plain
from zart_core.deploys.checking import Verdict


def junit_of(verdicts: Sequence[Verdict]) -> str:
    """One test case for each execution, in a class named like its workflow; a misfit is a failure of its kind."""
    failures = sum(not verdict.fits for verdict in verdicts)
    counts = {"tests": str(len(verdicts)), "failures": str(failures), "errors": "0"}
    suites = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(suites, "testsuite", {"name": "zart check", **counts})
    for verdict in verdicts:
        case = ElementTree.SubElement(
            suite, "testcase", {"classname": plain(verdict.workflow), "name": plain(verdict.id)}
        )
        if not verdict.fits:
            lines = verdict.message.splitlines()
            failure = ElementTree.SubElement(
                case, "failure", {"type": verdict.kind, "message": plain(lines[0] if lines else verdict.kind)}
            )
            failure.text = "\n".join(map(plain, lines))
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(suites, encoding="unicode")}\n'
