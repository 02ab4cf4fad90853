"""docs/debugging.md as a new user would follow it: its module, its three commands, and what it says that they print."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

PAGE = (Path(__file__).parent.parent / "docs" / "debugging.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.M | re.S)
ORDER = '{"id": "7", "items": {"tea": 2, "cup": 4, "pot": 0}, "card": "4242"}'


def zart(folder: Path, *arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "ZART_STORE": "sqlite:orders.db", "COLUMNS": "200"}
    command = [sys.executable, "-m", "zart_core.cli", *arguments]
    return subprocess.run(
        command, cwd=folder, env=env, input=typed, capture_output=True, text=True, timeout=60
    )


def test_three_commands_from_a_failed_run_to_the_line_and_the_values(tmp_path: Path) -> None:
    """Every line that the page shows is printed by the command before it."""
    code = next(text for language, text in BLOCKS if language == "python")
    tmp_path.joinpath("shop.py").write_text(code)
    commands, explained, found = [text for language, text in BLOCKS if language == ""][:3]
    listing, explaining, debugging = [shlex.split(line)[1:] for line in commands.splitlines()]
    assert zart(tmp_path, "run", "shop.py", ORDER, "--id", "order-7").returncode == 1

    listed = zart(tmp_path, *listing)
    assert (listed.returncode, listed.stderr) == (0, "")
    assert listed.stdout.splitlines()[1].split()[:3] == ["order-7", "shop", "failed"]

    told = zart(tmp_path, *explaining)
    assert (told.returncode, told.stderr) == (0, "")
    assert [line for line in explained.splitlines() if line.strip() not in told.stdout] == []

    walked = zart(tmp_path, *debugging, typed="bisect total < 0")
    assert (walked.returncode, walked.stderr) == (0, "")
    assert found in walked.stdout
    assert "total = -1900" in walked.stdout.split("bisect")[0]
    assert "4242" not in walked.stdout
