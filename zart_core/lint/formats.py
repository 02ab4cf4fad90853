"""A report as text, JSON, workflow commands of GitHub, or SARIF 2.1.0.

Rule 1: text that comes from source is escaped before it reaches a terminal or a log.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from zart_core.lint.findings import Finding
from zart_core.lint.rules import RULES
from zart_core.lint.running import Report

SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def printable(text: str) -> str:
    """A text with everything escaped that is not printable."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def as_text(report: Report) -> str:
    """One line for each finding, `path:line:column: rule message`, and one that sums up."""
    lines = [f"{place(each)}: {each.rule} {printable(each.message)}" for each in report.findings]
    return "\n".join([*lines, summed_up(report)])


def summed_up(report: Report) -> str:
    """How much was found, in how much."""
    found = len(report.findings)
    silenced = f", {report.silenced} silenced" if report.silenced else ""
    return (
        f"{found or 'no'} finding{'' if found == 1 else 's'}{silenced}; "
        f"{report.files:,} file{'' if report.files == 1 else 's'}, "
        f"{report.functions:,} function{'' if report.functions == 1 else 's'} that workflows reach"
    )


def place(finding: Finding) -> str:
    """Where it is."""
    return f"{printable(str(finding.path))}:{finding.line}:{finding.column}"


def as_json(report: Report) -> str:
    """All of it as one JSON object."""
    findings = [
        {
            "path": str(each.path),
            "line": each.line,
            "column": each.column,
            "end_line": each.end_line,
            "rule": each.rule,
            "title": RULES[each.rule].title,
            "what": each.what,
            "why": each.why,
            "fix": each.fix,
            "via": each.via,
        }
        for each in report.findings
    ]
    counts = {"files": report.files, "functions": report.functions, "silenced": report.silenced}
    return json.dumps({"findings": findings, **counts})


def as_github(report: Report) -> str:
    """Workflow commands, which a pipeline of GitHub shows beside the lines of a change."""
    return "\n".join(
        f"::error file={property_of(str(each.path))},line={each.line},endLine={each.end_line},col={each.column},"
        f"title={each.rule}::{data_of(each.message)}"
        for each in report.findings
    )


def data_of(text: str) -> str:
    """A text as the data of a workflow command."""
    return printable(text).replace("%", "%25")


def property_of(text: str) -> str:
    """A text as a property of a workflow command."""
    return data_of(text).replace(":", "%3A").replace(",", "%2C")


def as_sarif(report: Report) -> str:
    """SARIF 2.1.0, which code hosts and editors read."""
    rules = [
        {
            "id": rule.id,
            "shortDescription": {"text": f"A workflow {rule.title}"},
            "fullDescription": {"text": f"{rule.why}; {rule.fix}"},
        }
        for rule in RULES.values()
    ]
    results = [
        {
            "ruleId": each.rule,
            "level": "error",
            "message": {"text": each.message},
            "locations": [{"physicalLocation": location_of(each)}],
        }
        for each in report.findings
    ]
    driver = {"name": "zart lint", "rules": rules}
    return json.dumps(
        {
            "$schema": SARIF_SCHEMA,
            "version": "2.1.0",
            "runs": [{"tool": {"driver": driver}, "results": results}],
        }
    )


def location_of(finding: Finding) -> dict[str, Any]:
    """Where a finding is, for SARIF: relative to the working directory where it is below that."""
    path = finding.path
    uri = path.as_posix() if not path.is_absolute() else path.as_uri()
    region = {"startLine": finding.line, "startColumn": finding.column, "endLine": finding.end_line}
    return {"artifactLocation": {"uri": uri}, "region": region}


FORMATS: Mapping[str, Callable[[Report], str]] = {
    "text": as_text,
    "json": as_json,
    "github": as_github,
    "sarif": as_sarif,
}
