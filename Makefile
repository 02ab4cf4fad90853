# Needs Python 3.11 or later and make; everything else is installed into .venv by these rules.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
CHECKED := zart_core zart_stores examples typing_tests tests property_tests benchmarks

# Tests under which every branch of interpreter, codec and stores has to be passed, and to which mutants are shown.
COVERED := $(patsubst %,tests/test_%.py,branches codec context contract_transactions divergence file_store inline_host \
	interpreter interrupted_memory memory_store mistakes salvage sqlite_store sqlite_transactions starting_within \
	step_transactions stores_in_trouble values waiting workflows)

.PHONY: demo test lint types tests coverage seeded-bugs mutants deep stable bench bench-peers bench-workers clean

demo: .venv/cli
	$(BIN)/python examples/corpus_demo.py

test: lint types tests

lint: .venv/dev
	$(BIN)/ruff check $(CHECKED)
	$(BIN)/ruff format --check $(CHECKED)

types: .venv/dev
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

tests: .venv/dev .venv/strace.asked
	$(BIN)/pytest -n 3 --dist worksteal tests property_tests

coverage: .venv/dev
	$(BIN)/pytest -n 2 --dist worksteal --cov --cov-report=term:skip-covered $(COVERED)

seeded-bugs: .venv/dev
	$(BIN)/python -m property_tests.seeded_bugs

# SAMPLE=200 tries about so many, SEED=N the same again.
mutants: .venv/dev
	$(BIN)/python -m property_tests.mutants $(COVERED) $(if $(SAMPLE),--sample $(SAMPLE)) $(if $(SEED),--seed $(SEED))

deep: .venv/dev .venv/strace.asked
	BIN=$(BIN) property_tests/deep.sh

stable: .venv/dev .venv/strace.asked
	$(BIN)/python -m property_tests.stable 20

# ROWS="replay sequential" measures those alone, TO=FOLDER writes table and drawing.
bench: .venv/dev
	$(BIN)/python -m benchmarks $(ROWS) $(if $(TO),--to $(TO))

bench-peers: .venv/dev .venv/peers
	$(BIN)/python -m benchmarks.peers .venv/peers/bin/python $(TASKS) $(if $(TO),--to $(TO))

bench-workers: .venv/dev
	$(BIN)/python -m benchmarks.workers

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/strace.asked: property_tests/get_strace.sh | .venv/bin/python
	property_tests/get_strace.sh .venv
	touch $@

.venv/cli: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[cli]'
	touch $@

.venv/dev: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@ .venv/cli

.venv/peers: | .venv/bin/python
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --quiet dbos durabletask absurd-sdk absurdctl 'psycopg[binary]' || (rm -rf $@; false)
