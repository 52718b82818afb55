# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP = $(BIN)/python -m pip install --quiet --no-compile
STAMP := $(VENV)/.installed-$(shell cksum < pyproject.toml | cut -d' ' -f1)

RUNNERS := finet_deploy/runner/data
PARALLEL := -n 4 --dist loadfile --no-loadscope-reorder

.PHONY: help demo test test-thorough install lint type docs benchmark wheel apk clean

help:
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile

demo: install ## install, then export and evaluate the trained checkpoint, prove and measure the paper's six networks
	test -f bundles/digits-shipped/manifest.json || $(BIN)/finet-deploy export models/finet_small_se_digits.safetensors --fuse -o bundles/digits-shipped
	$(BIN)/finet-deploy evaluate bundles/digits-shipped --against models/finet_small_se_digits.safetensors
	$(BIN)/finet-deploy bench --suite table4 --device host --preset demo

test: install lint type ## install, lint, type-check, run all tests but the thorough ones
	# One thread each: two of two threads spin against each other on a small machine. More processes than its cores: the
	# tests of the phone wait, for polls and timeouts. In the order of the folders: the files with the longest tests are
	# not those with the most, and must not come last.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL) -m "not thorough" --durations=40

test-thorough: install lint type ## the same with the thorough tests: each network at its own size, ...
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL) --durations=40

install: $(STAMP) ## the virtual environment with every extra

# pip leaves compiling to what imports a module first. Where nothing may write that down, each process compiles all of
# torch for itself, six seconds a time.
unexport PYTHONDONTWRITEBYTECODE

# The stamp carries pyproject's checksum: a changed dependency installs again, an unchanged one costs nothing. Of 270 MB
# of Python in the dependencies little is ever imported: what is, is compiled then.
$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(PIP) --editable '.[all,dev]'
	rm -f $(VENV)/.installed-*
	touch $@

lint: install ## ruff: lint and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: install ## mypy
	$(BIN)/mypy

docs: install ## site/: the documentation, which fetches nothing; `python -m docs.make` makes its tables and pictures
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

benchmark: install ## what the measuring harness, and training with FBN and MimicNorm, cost
	$(BIN)/python tests/benchmarks/harness_overhead.py
	$(BIN)/python tests/benchmarks/training_cost.py
	$(BIN)/python tests/benchmarks/mimic_memory.py

# The cache keeps the runners by their sources' hash, so only changed ones are compiled. Same sources, same bytes: the
# times in the wheel are constant, or SOURCE_DATE_EPOCH.
wheel: install ## dist/*.whl with the native runners inside: needs Debian's g++, g++-aarch64-linux-gnu, nlohmann-json3-dev
	rm -rf $(RUNNERS) dist/finet_deploy-*.whl
	$(BIN)/finet-deploy runner build --target x86_64 -o $(RUNNERS)/x86_64
	$(BIN)/finet-deploy runner build --target aarch64 -o $(RUNNERS)/aarch64
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@ls -l dist

apk: install ## dist/finet-bench.apk with a debug key, and as a package: needs what `finet-deploy app build` names
	$(BIN)/finet-deploy app build -o dist/finet-bench.apk
	rm -f dist/finet_deploy_app-*.whl
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist ./android_app/package

clean: ## remove what can be made again
	rm -rf $(VENV) $(RUNNERS) dist site bundles runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
