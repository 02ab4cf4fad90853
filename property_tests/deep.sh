#!/usr/bin/env bash
# The deep runs: a hundred times what a run of CI tries, every seeded bug against every harness, mutants, and the page of figures.
# Takes hours on two cores. `make deep` calls this; BIN is where Python and pytest are.
set -eu
cd "$(dirname "$0")/.."
BIN=${BIN:-.venv/bin}
export ZART_DEEP=1
"$BIN/python" -m pip install --quiet --editable '.[deep]'
"$BIN/python" -m property_tests.atheris_decoders 600
"$BIN/pytest" -n 2 --dist worksteal property_tests
"$BIN/python" -m property_tests.seeded_bugs
make mutants SAMPLE="${MUTANTS:-1000}"
"$BIN/python" -m property_tests.reliability
