# `make help` lists the targets. Variables: PYTHON and TORCH_INDEX (see requirements/install.sh).
BIN := .venv/bin
export PYTHON TORCH_INDEX

.DEFAULT_GOAL := help
.PHONY: help install train test lint docs bench clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\): .*## \(.*\)/  make \1	\2/p' Makefile | expand -t 18

install:  ## make .venv from the lock file; does nothing when that is done already
	@requirements/install.sh

train: install  ## train the tiny policy as recipes/tiny.toml says
	$(BIN)/palestra train recipes/tiny.toml

test: lint  ## everything that must pass: lint, types, tests
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: install  ## style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m mypy

docs: install  ## build the documentation into build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: install  ## list the benchmarks
	@ls bench/*.py 2>/dev/null || echo "there are no benchmarks yet"

clean:  ## remove .venv and caches; runs/ stays
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
	find . -name __pycache__ -prune -exec rm -rf {} +
