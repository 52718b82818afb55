# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-$(shell cksum < pyproject.toml | cut -d' ' -f1)

.PHONY: help demo test install lint type benchmark clean

help:
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile

demo: install ## install, then export, prove and measure the paper's six networks on this machine
	$(BIN)/finet-deploy bench --suite table4 --device host --preset demo

test: install lint type ## install, lint, type-check, run all tests
	# Two processes of one thread each: two of two threads spin against each other on a small machine.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

install: $(STAMP) ## the virtual environment with every extra

# The stamp carries pyproject's checksum: a changed dependency installs again, an unchanged one costs nothing.
$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[all,dev]'
	rm -f $(VENV)/.installed-*
	touch $@

lint: install ## ruff: lint and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: install ## mypy
	$(BIN)/mypy

benchmark: install ## what the measuring harness itself costs
	$(BIN)/python tests/benchmarks/harness_overhead.py

clean: ## remove what can be made again
	rm -rf $(VENV) bundles runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
