# Every command of the project. Each is enough by itself: it makes the virtual
# environment, builds what changed and nothing else, then does its work.

PYTHON ?= python3
VENV   ?= .venv

ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif
PY := $(abspath $(BIN))/python

# A directory changes when a file comes or goes, so both are watched.
RUST := Cargo.toml Cargo.lock $(shell find src -type d -o -name '*.rs')
DEPS  := $(VENV)/.deps-installed
BUILT := $(VENV)/.extension-built

# Sources of Python that are formatted and linted; those also held to strict types.
TYPED := python/polars_redis tests/typing_usage.py tests/smoke.py tests/support examples
CARGO := cargo
MATURIN := VIRTUAL_ENV="$(abspath $(VENV))" $(BIN)/maturin
export PYO3_PYTHON := $(PY)

.DEFAULT_GOAL := help
.PHONY: help build demo test test-rust test-python bench bench-rust bench-python check \
        format format-check lint types docs docs-serve wheel sdist lock clean

help: ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{printf "%-22s %s\n", $$1, $$2}'

# -- environment and build ----------------------------------------------------

$(DEPS): requirements-dev.lock
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 10) else "Python 3.10 or newer is needed; name one with: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-dev.lock
	@touch $@

$(BUILT): $(DEPS) $(RUST) pyproject.toml
	$(MATURIN) develop --release --locked
	@touch $@

build: $(BUILT) ## make .venv and build the extension into it

demo: $(BUILT) ## fill a stream on an embedded Redis, read it, show it
	$(PY) examples/demo.py

# -- tests --------------------------------------------------------------------

test: test-rust test-python ## run every test, Rust and Python

# Rust tests that need a server start their own from this binary.
test-rust: $(DEPS) ## run the Rust tests
	POLARS_REDIS_SERVER="$$($(PY) examples/embedded_redis.py --binary)" $(CARGO) test --locked

# Most tests wait for servers, so two files at a time take half as long. A server that others
# started is one for all: its database is emptied, so that no two may use it.
PYTEST_JOBS ?= $(if $(REDIS_URL),0,2)

test-python: $(BUILT) ## run the Python tests
	$(PY) -m pytest --numprocesses $(PYTEST_JOBS) --dist loadfile $(PYTEST_ARGS)

# -- benchmarks ---------------------------------------------------------------

bench: bench-rust bench-python ## run every benchmark

bench-rust: $(DEPS) ## the decoder alone, and end to end from Rust
	POLARS_REDIS_SERVER="$$($(PY) examples/embedded_redis.py --binary)" $(CARGO) bench --locked

bench-python: $(BUILT) ## beside redis-py and the bare socket
	PYTHONPATH=examples $(PY) benches/compare.py $(BENCH_ARGS)
	PYTHONPATH=examples $(PY) benches/consume.py $(BENCH_ARGS)
	PYTHONPATH=examples $(PY) benches/scan.py $(BENCH_ARGS)
	PYTHONPATH=examples $(PY) benches/pubsub.py $(BENCH_ARGS)
	PYTHONPATH=examples $(PY) benches/write.py $(BENCH_ARGS)
	PYTHONPATH=examples:tests $(PY) benches/failover.py $(BENCH_ARGS)
	PYTHONPATH=examples:tests $(PY) benches/streams.py $(BENCH_ARGS)
	PYTHONPATH=examples $(PY) benches/tls.py $(BENCH_ARGS)

# -- checks -------------------------------------------------------------------

check: format-check lint types docs ## all the checks that are not tests

format: $(DEPS) ## format Rust and Python
	$(CARGO) fmt
	$(BIN)/ruff format
	$(BIN)/ruff check --fix-only

format-check: $(DEPS) ## fail where the format differs
	$(CARGO) fmt --check
	$(BIN)/ruff format --check

lint: $(DEPS) ## clippy (with and without the Python half), ruff
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) clippy --locked --all-targets --features python -- -D warnings
	$(BIN)/ruff check

types: $(DEPS) ## mypy, strict
	$(BIN)/mypy $(TYPED)

docs: $(DEPS) ## build the documentation, warnings are errors
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet -f docs/mkdocs.yml

docs-serve: $(DEPS) ## show the documentation while it is written
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve -f docs/mkdocs.yml

# -- packages -----------------------------------------------------------------

wheel: $(DEPS) ## build a wheel for this machine into dist/
	$(MATURIN) build --release --locked --out dist

sdist: $(DEPS) ## build the source distribution into dist/
	$(MATURIN) sdist --out dist

lock: ## pin the development tools anew (requirements-dev.lock)
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet uv
	$(VENV)-lock/bin/uv pip compile --quiet --universal --upgrade --python-version 3.10 \
	    --no-build --no-emit-index-url --no-header --no-annotate \
	    --group tools pyproject.toml --output-file $(VENV)-lock/pins
	printf '%s\n' '# Development tools, pinned for CPython 3.10 and newer on every platform.' \
	    '# Made from pyproject.toml by: make lock' \
	    '# Used by:                      pip install -r requirements-dev.lock' \
	    | cat - $(VENV)-lock/pins > requirements-dev.lock

clean: ## remove what was built, and the virtual environment
	rm -rf $(VENV) $(VENV)-lock dist site target python/polars_redis/_core*.so python/polars_redis/_core*.pyd \
	    .pytest_cache .mypy_cache .ruff_cache .hypothesis
