# `make demo` and `make test` do their own set-up on a machine with Python 3.11 or later: see .ci/install.

SHELL := bash
BIN := .venv/bin
PYTEST := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest
# More options for pytest, such as ARGS="tests/maths -k gae".
ARGS ?=

.PHONY: help demo check test test-slow test-gpu docs bench clean core-packages dev-packages docs-packages

help:
	@echo "make demo       train a small team of agents on this machine and show it learn"
	@echo "make check      format, lint, types, floors"
	@echo "make test       tests, without those marked slow or gpu"
	@echo "make test-slow  tests marked slow"
	@echo "make test-gpu   tests marked gpu"
	@echo "make docs       build the documentation into site/"
	@echo "make bench      side-by-side with peers"
	@echo "make clean      remove caches and builds; .venv and runs stay"

core-packages:
	@.ci/install core

dev-packages:
	@.ci/install dev

docs-packages:
	@.ci/install docs

demo: core-packages
	@$(BIN)/troupe demo

check: dev-packages
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

test: dev-packages
	$(PYTEST) -n 2 -m "not slow and not gpu" $(ARGS)

test-slow: dev-packages
	$(PYTEST) -n 2 -m "slow and not gpu" $(ARGS)

test-gpu: dev-packages
	$(PYTEST) -m gpu $(ARGS)

docs: docs-packages
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: dev-packages
	$(BIN)/python benchmarks/workflow_rl.py
	$(BIN)/python benchmarks/multi_turn.py

clean:
	rm -rf site dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage htmlcov
	find troupe tests docs -name __pycache__ -type d -prune -exec rm -rf {} +
