# `make demo` and `make test` are all there is to remember: each makes its own environment first.

PYTHON := $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
PIP_ARGS ?=
PYTEST_ARGS ?=
FLOOR_TORCH ?= 2.13.0
FLOORS := .venv-floors
BIN := $(VENV)/bin

# An environment is remade when what it was made from has other contents: times change with every checkout.
key = $(shell cat $(1) pyproject.toml | cksum | cut -d' ' -f1)
READY := $(VENV)/ready-$(call key,requirements-dev.txt)
READY_FLOORS := $(FLOORS)/ready-$(call key,requirements-floors.txt)-$(FLOOR_TORCH)

FRAMEWORKS := .venv-frameworks
READY_FRAMEWORKS := $(FRAMEWORKS)/ready-$(call key,requirements-dev.txt)

# Two test processes share the cores; torch on all of them in each would only make them wait for each other.
export OMP_NUM_THREADS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test test-all test-floors test-frameworks lint docs bench clean
.DEFAULT_GOAL := help

help:
	@echo "make demo             the examples: red with their bug, green with the fix, the messages shown"
	@echo "make test             ruff, mypy --strict, the whole suite"
	@echo "make test-all         the same and what is slow"
	@echo "make test-floors      the suite with the lowest versions that pyproject.toml admits"
	@echo "make test-frameworks  Lightning, transformers and accelerate, in an environment that has them"
	@echo "make docs             write the output blocks of the documents again, from real runs"
	@echo "make bench            the benchmarks, into benchmarks/README.md where they belong"
	@echo "make clean            remove the environments"

demo: $(READY)
	@$(BIN)/python examples/demo.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -n 2 -m "not slow" $(PYTEST_ARGS)

test-all: lint
	$(BIN)/python -m pytest -n 2 $(PYTEST_ARGS)

test-floors: $(READY_FLOORS)
	$(FLOORS)/bin/python -m pytest -n 2 -m "not slow" $(PYTEST_ARGS)

test-frameworks: $(READY_FRAMEWORKS)
	$(FRAMEWORKS)/bin/python -m pytest tests/frameworks $(PYTEST_ARGS)

docs: $(READY)
	$(BIN)/python tests/test_docs.py

bench: $(READY)
	@for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

clean:
	rm -rf $(VENV) $(FLOORS) $(FRAMEWORKS) .mypy_cache .ruff_cache .pytest_cache

$(READY): | has-python
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q $(PIP_ARGS) -r requirements-dev.txt
	$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
	@rm -f $(VENV)/ready-*
	@touch $@

$(READY_FLOORS): | has-python
	$(PYTHON) -m venv --clear $(FLOORS)
	$(FLOORS)/bin/python -m pip install -q $(PIP_ARGS) -r requirements-floors.txt "torch==$(FLOOR_TORCH)"
	$(FLOORS)/bin/python -m pip install -q --no-deps --no-build-isolation -e .
	@touch $@

$(READY_FRAMEWORKS): | has-python
	$(PYTHON) -m venv --clear $(FRAMEWORKS)
	$(FRAMEWORKS)/bin/python -m pip install -q $(PIP_ARGS) -e '.[dev-frameworks]' $$(grep '^torch==' requirements-dev.txt)
	@touch $@

.PHONY: has-python
has-python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed and was not found on the PATH"; exit 1; }
