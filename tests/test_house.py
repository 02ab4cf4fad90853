"""The house: imports point one way, the public surface is what the list says, cited rules exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import zart_core as zart

ROOT = Path(__file__).parent.parent
CORE = sorted((ROOT / "zart_core").rglob("*.py"))
PURE = [path for path in sorted((ROOT / "zart_core").glob("*.py")) if path.name != "__init__.py"]
STORES = sorted((ROOT / "zart_stores").rglob("*.py"))
AT_RUN_TIME = {"attrs", "cattrs", "msgspec", "sortedcontainers", "typing_extensions"}
OF_STORES = {"zart_core.log", "zart_core.events", "zart_core.errors"}
STANDARD = {
    "__future__", "ast", "base64", "bisect", "collections", "collections.abc", "contextvars",
    "dataclasses",
    "datetime", "decimal", "difflib", "dis", "enum", "fractions", "functools", "hashlib", "importlib",
    "inspect", "itertools", "json", "keyword", "logging", "math", "numbers", "operator", "pathlib", "random",
    "re", "string", "sys", "textwrap", "traceback", "types", "typing", "unicodedata", "uuid", "warnings",
    "weakref", "zlib", "zoneinfo",
}  # fmt: skip
"""What a pure core may take from the standard library: nothing that looks outside. `random` and `uuid` stand in
`capture` only, where the host calls them."""


def imports_of(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever; those for the type checker only are left out."""
    tree = ast.parse(path.read_text())
    hidden = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.unparse(branch.test)
        for part in branch.body
        for node in ast.walk(part)
    }
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            module = node.module or ""
            names = [f"{module}.{alias.name}" for alias in node.names]
            known = [name for name in names if (ROOT / (name.replace(".", "/") + ".py")).exists()]
            yield from known or [module]


def test_the_core_never_imports_a_store():
    """A store is found by the scheme of its URL."""
    for path in CORE:
        assert not [name for name in imports_of(path) if name.startswith("zart_stores")], path


def test_stores_import_the_boundary_and_nothing_else_of_the_core():
    """log, events and errors."""
    for path in STORES:
        taken = {name for name in imports_of(path) if name.startswith("zart_core")}
        assert taken <= OF_STORES, path


@pytest.mark.parametrize("path", PURE, ids=lambda path: path.name)
def test_the_pure_core_knows_no_host_and_looks_at_nothing_outside(path):
    """No hosts, testing or cli; no third party beyond the few; no time, threads, sockets or files."""
    for name in imports_of(path):
        top = name.split(".")[0]
        if top == "zart_core":
            assert not name.startswith(("zart_core.hosts", "zart_core.testing", "zart_core.cli")), name
        else:
            assert top in AT_RUN_TIME or name in STANDARD, f"{path.name} imports {name}"


def test_only_commands_that_the_host_evaluates_may_be_random():
    """P4: `random` and `uuid` are imported where captures and identifiers are declared, and called nowhere."""
    for path in PURE:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert not re.match(r"(random(_module)?|secrets|time|os)\.\w+$", called), (
                    f"{path.name}: {called}"
                )
                assert not re.match(r"uuid(_module)?\.uuid\d$", called), f"{path.name}: {called}"
                assert called not in ("open", "input", "eval", "exec", "__import__"), f"{path.name}: {called}"
                assert called not in ("datetime.now", "datetime.utcnow", "datetime.today"), (
                    f"{path.name}: {called}"
                )


def test_only_one_file_touches_a_generator():
    """Section 1: branches.py; `send` and `throw` stand nowhere else in the core."""
    for path in PURE:
        calls = [
            node.func.attr
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        ]
        if path.name != "branches.py":
            assert not {"send", "throw"} & set(calls), path


PUBLIC = [
    "AsyncEngine", "AsyncHandle", "Began", "Branch", "Cancellation", "Cancelled", "Clock", "Closed", "Codec",
    "Command", "Conflict", "Context", "DeadlineExceeded", "DecodeError", "Defect", "Delivered", "Diverged",
    "Done", "DuplicateName", "EncodeError", "Engine", "Err", "Event", "EventLog", "EventRejected",
    "EventTimedOut", "Execution", "ExecutionCancelled", "ExecutionClosed", "ExecutionConflict",
    "ExecutionError", "ExecutionFailed", "ExecutionTerminated", "ExecutionTimedOut", "Failed", "Failure",
    "Flow", "FormatTooNew", "Handle", "Interrupted", "InvalidUse", "Issued", "LogCorrupt", "NotACommand",
    "Noted", "Ok", "Page", "Parked", "Queue", "Registry", "Resolved", "Retried", "Retry", "RetryExhausted", "Site",
    "Started", "Status", "StepCall", "StepError", "StepFailed", "StepFunction", "StepLost", "StepRunner",
    "StepTimedOut", "StepsFailed", "StoreFailed", "StoreLocked", "StoreUnavailable", "Stuck", "Summary",
    "SystemClock", "Taken", "Task", "TimeoutScope", "Unencodable", "UnknownExecution", "UnknownStore",
    "UnknownWorkflow", "Waitable", "Weather", "Workflow", "ZartError", "capture", "child", "context", "gather",
    "heartbeat", "inspect", "logger", "now", "open", "open_log", "outcome", "race", "random", "replay", "resource",
    "run_inline", "schedule", "scope", "serve", "settle", "shield", "sleep", "sleep_until", "spawn", "step", "step_or",
    "step_or_else", "transaction", "uuid", "version", "wait", "wait_any", "wait_for_event", "workflow",
]  # fmt: skip


def test_the_public_surface_is_what_this_list_says():
    """Nobody removes a name by accident; what is new is added here and in the docs."""
    assert sorted(zart.__all__) == sorted(PUBLIC)
    assert [name for name in PUBLIC if not hasattr(zart, name)] == []


RULES = {"R": 24, "L": 13, "P": 6, "F": 27, "I": 21}
CITED = re.compile(r"\b([RLPFI])(\d{1,2})\b(?!\.\d)")


def test_rules_that_are_cited_exist():
    """R1 to R24, L1 to L13, P1 to P6, F1 to F27, I1 to I21: in code, docs and tests."""
    texts = [
        *CORE,
        *STORES,
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "tests").glob("test_*.py"),
    ]
    for path in texts:
        if path == Path(__file__):
            continue
        for letter, number in CITED.findall(path.read_text()):
            assert 1 <= int(number) <= RULES[letter], f"{path.name} cites {letter}{number}"


def test_every_rule_of_the_core_is_cited_by_a_test():
    """R1 to R24 but those of hosts alone, P1 to P6."""
    tests = [*(ROOT / "tests").rglob("test_*.py"), *(ROOT / "property_tests").glob("test_*.py")]
    cited = {f"{letter}{number}" for path in tests for letter, number in CITED.findall(path.read_text())}
    wanted = {f"R{n}" for n in range(1, 25)} | {f"P{n}" for n in range(1, 7)}
    assert wanted - cited == set()
