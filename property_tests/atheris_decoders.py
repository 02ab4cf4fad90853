"""Coverage-guided bytes for the decoders: `python -m property_tests.atheris_decoders SECONDS [NAME ...]`.

Needs atheris (extra `deep`). An exception that a decoder does not document ends the process of that decoder, with the
bytes that raised it; then the exit code is 1. Each decoder has a process of its own, and SECONDS of time. First comes a
control: a decoder whose documented errors count as undocumented has to be told.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from property_tests.tally import ROOT, tally

BYTES_MAX = 4096
CHILD = """
import contextlib, sys
import atheris
with atheris.instrument_imports(include=["zart_core.codec", "zart_core.wire", "zart_core.values", "zart_core.events",
                                         "zart_stores.file.bodies"]):
    from property_tests.decoders import DECODERS
decode, _, errors = DECODERS[sys.argv.pop(1)]
if sys.argv.pop(1) == "control":
    errors = ()

def one(data: bytes) -> None:
    with contextlib.suppress(*errors):
        decode(data)

atheris.Setup(sys.argv, one)
atheris.Fuzz()
"""


def fuzz(name: str, seconds: int, folder: Path, *, control: bool = False) -> tuple[int, str]:
    """One decoder, from the bytes that it is known to take; how many inputs it saw, and what went wrong ("")."""
    from property_tests.decoders import DECODERS

    corpus = folder / "corpus"
    corpus.mkdir()
    for n, data in enumerate(DECODERS[name][1]):
        (corpus / str(n)).write_bytes(data)
    limits = [f"-max_total_time={seconds}", f"-max_len={BYTES_MAX}", "-print_final_stats=1"]
    words = [
        sys.executable,
        "-c",
        CHILD,
        name,
        "control" if control else "",
        *limits,
        f"-artifact_prefix={folder}/",
        str(corpus),
    ]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, errors="replace")
    tried = 0
    for line in done.stderr.splitlines():
        if line.startswith("stat::number_of_executed_units:"):
            tried = int(line.split()[-1])
    if done.returncode == 0:
        return tried, "" if tried else f"nothing was tried: {done.stderr[-500:]}"
    found = [path.read_bytes() for path in folder.iterdir() if path.is_file()]
    return tried, f"{found!r:.300}\n{done.stdout[-1500:]}{done.stderr[-500:]}"


def main(words: Sequence[str]) -> int:
    """See the module."""
    from property_tests.decoders import DECODERS

    seconds, names = int(words[0]), list(words[1:]) or list(DECODERS)
    with tempfile.TemporaryDirectory() as folder:
        if not fuzz(names[0], seconds, Path(folder), control=True)[1]:
            print("the control was not noticed")
            return 1
    wrong = 0
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            tried, what = fuzz(name, seconds, Path(folder))
        print(f"{name}: {tried} inputs, {what or 'nothing undocumented'}", flush=True)
        if what:
            wrong += 1
        else:
            tally("decoders under atheris", inputs=tried)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
