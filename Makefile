# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-$(shell cksum < pyproject.toml | cut -d' ' -f1)

.PHONY: help demo test install lint type benchmark clean

help:
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile

demo: install ## install, then export and evaluate the trained checkpoint, prove and measure the paper's six networks
	test -f bundles/digits-shipped/manifest.json || $(BIN)/finet-deploy export models/finet_small_se_digits.safetensors --fuse -o bundles/digits-shipped
	$(BIN)/finet-deploy evaluate bundles/digits-shipped --against models/finet_small_se_digits.safetensors
	$(BIN)/finet-deploy bench --suite table4 --device host --preset demo

test: install lint type ## install, lint, type-check, run all tests
	# Two processes of one thread each: two of two threads spin against each other on a small machine.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --durations=15

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

benchmark: install ## what the measuring harness, and training with FBN and MimicNorm, cost
	$(BIN)/python tests/benchmarks/harness_overhead.py
	$(BIN)/python tests/benchmarks/training_cost.py
	$(BIN)/python tests/benchmarks/mimic_memory.py

clean: ## remove what can be made again
	rm -rf $(VENV) bundles runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
