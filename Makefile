# Everything is set up in .venv; delete that folder to start afresh.
PYTHON ?= python3
BIN := .venv/bin
# Pinned exactly. torch is installed first and by itself, so that nothing else can pull in another build of it.
PIP := $(BIN)/pip install --disable-pip-version-check -c constraints.txt

.PHONY: demo test test-all check format lint types docs tiny-base clean

demo: .venv/run
	$(BIN)/aha run recipes/tiny-r1.yaml

test: .venv/dev
	$(BIN)/python -m pytest

test-all: .venv/dev
	$(BIN)/python -m pytest -m "slow or not slow"

check: lint types docs test

format: .venv/dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: .venv/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: .venv/dev
	$(BIN)/mypy

docs: .venv/dev
	$(BIN)/python docs/generate.py --check

tiny-base: .venv/run
	$(BIN)/aha run recipes/tiny-base.yaml

clean:
	rm -rf .venv .mypy_cache .ruff_cache build *.egg-info

.venv/run: constraints.txt pyproject.toml
	@echo "Setting up .venv: a minute or two with a CPU build of torch (0.3 GB to fetch, 1.3 GB on disk)."
	@echo "Where pip chooses a CUDA build of torch instead, count on several GB; README, 'Install', says how to choose."
	@date +%s > .setup-started
	$(PYTHON) -c 'import sys; sys.exit("aha needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(PIP) torch
	$(PIP) -e .
	@echo "Set up in $$(( $$(date +%s) - $$(cat .setup-started) )) seconds; .venv holds $$(du -sm .venv | cut -f1) MB."
	@rm .setup-started && touch $@

.venv/dev: .venv/run
	$(PIP) -e '.[dev]'
	@touch $@
