PYTHON ?= python3
CONF ?= {}
# Dag conf reaches the demonstration through the environment: no shell ever parses it.
export DEMO_CONF := $(value CONF)
unexport CONF

PY := $(shell $(PYTHON) -c 'import sys; print("py%d%d" % sys.version_info[:2])')
VENV := .venv
RAY249 := .venv-ray249
SETUP := $(VENV)/.setup-$(PY)
SETUP_RAY249 := $(RAY249)/.setup-$(PY)
GOOGLE := .venv-google
SETUP_GOOGLE := $(GOOGLE)/.setup-$(PY)
BIN := $(VENV)/bin
LOCKED := 311 312 313
PYTEST := $(BIN)/python -m pytest
# Most unit tests spend their time waiting, so there are more processes than cores.
PROCESSES := 6

.DEFAULT_GOAL := help
.PHONY: help setup setup-ray249 setup-google setup-browser setup-postgres test test-unit test-rest test-all chaos check lint format types imports demo up status down bench lock screenshots clean

help:
	@echo 'make demo [CONF=...]  run the demo from start to finish: three Ray clusters, Airflow, one Dag run, teardown'
	@echo 'make up, make down    start the demo and leave it running, so that you can explore the UI; stop it'
	@echo 'make status           say where the demo runs and how to log in'
	@echo
	@echo 'make test             unit tests with coverage, contract tests, and one end-to-end run of each kind (minutes)'
	@echo 'make test-unit        only the tests that start neither Ray nor Airflow'
	@echo 'make test-all         make test and make test-rest'
	@echo 'make test-rest        what make test leaves out: quicker fault tests, the browser, Ray 2.49, the processing job'
	@echo 'make chaos            the complete fault suite; rewrites docs/reliability.md'
	@echo
	@echo 'make check            all static checks: lint, types and imports'
	@echo 'make lint             ruff, which checks style and formatting'
	@echo 'make types            mypy in strict mode'
	@echo 'make imports          import-linter, which checks that the layers import downward only and have no cycles'
	@echo 'make format           fix and reformat what ruff can'
	@echo
	@echo 'make bench            benchmark the provider against other providers and plain patterns'
	@echo 'make screenshots      retake the screenshots in docs/'
	@echo
	@echo 'make setup            create the virtual environment $(VENV); choose the interpreter with PYTHON=python3.12'
	@echo 'make lock             regenerate the lock files; upgrade all versions with UPGRADE=--upgrade'
	@echo 'make clean            remove virtual environments, caches and results'

setup: $(SETUP)

setup-ray249: $(SETUP_RAY249)

setup-google: $(SETUP_GOOGLE)

$(SETUP): locks/$(PY).txt pyproject.toml | supported
	$(call virtual_environment,$(VENV))
	$(BIN)/python -m pip install --quiet --require-hashes --no-deps -r $<
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

$(SETUP_RAY249): locks/ray249-$(PY).txt | supported
	$(call virtual_environment,$(RAY249))
	$(RAY249)/bin/python -m pip install --quiet --require-hashes --no-deps -r $<
	@touch $@

$(SETUP_GOOGLE): locks/google-$(PY).txt | supported
	$(call virtual_environment,$(GOOGLE))
	$(GOOGLE)/bin/python -m pip install --quiet --require-hashes --no-deps -r $<
	@touch $@

# An environment of another Python version is replaced; one of the same version is kept.
define virtual_environment
	@if ls -d $(1)/.setup-* >/dev/null 2>&1 && [ ! -e $(1)/.setup-$(PY) ]; then rm -rf $(1); fi
	@echo 'Creating $(1) from $<: several minutes, most of them downloading'
	@$(PYTHON) -m venv $(1)
endef

.PHONY: supported
supported:
	@case ' $(LOCKED:%=py%) ' in *' $(PY) '*) ;; *) \
	  echo '$(PYTHON) is $(or $(PY),missing); Python 3.11, 3.12 or 3.13 is needed: make PYTHON=python3.12 ...' >&2; \
	  exit 1;; esac

locks/$(PY).txt locks/ray249-$(PY).txt locks/google-$(PY).txt: | supported

test: setup setup-postgres
	$(PYTEST) --numprocesses $(PROCESSES) -m 'not full' --cov --cov-report= tests/unit tests/contract
	$(PYTEST) -m 'not full' tests/e2e
	$(BIN)/python -m dev.coverage_floor

test-rest: setup setup-ray249 setup-postgres setup-browser
	$(PYTEST) --numprocesses 2 -m full tests/unit tests/contract tests/ray tests/browser
	$(PYTEST) -m full tests/e2e

test-all: test test-rest

test-unit: setup
	$(PYTEST) --numprocesses $(PROCESSES) tests/unit

chaos: setup setup-ray249 setup-postgres
	$(PYTEST) tests/e2e -k faults --chaos --reliability-table docs/reliability.md

check: lint types imports

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

imports: setup
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: setup
	$(BIN)/mypy

demo: setup
	$(BIN)/python -m dev.demo run --conf "$$DEMO_CONF"

up: setup
	$(BIN)/python -m dev.demo up

status: setup
	@$(BIN)/python -m dev.demo status

down: setup
	$(BIN)/python -m dev.demo down

bench: setup setup-google setup-postgres
	$(BIN)/python -m benchmarks

screenshots: setup setup-browser
	$(BIN)/python -m dev.screenshots
	$(BIN)/python -m dev.page_pictures

# The database of the end-to-end tests' Airflow.
setup-postgres:
	@{ command -v pg_lsclusters || command -v initdb; } >/dev/null || { apt-get update -q && apt-get install -q -y --no-install-recommends postgresql; }

setup-browser:
	@command -v chromium >/dev/null || { apt-get update -q && apt-get install -q -y --no-install-recommends chromium; }

COMPILE = $$uv/bin/uv pip compile --quiet --no-emit-index-url --generate-hashes --no-header --no-annotate $(UPGRADE)

lock:
	uv=$$(mktemp -d) && trap 'rm -rf "$$uv"' EXIT && $(PYTHON) -m venv $$uv && $$uv/bin/pip install --quiet uv && \
	for minor in 11 12 13; do \
	  $(COMPILE) --python-version 3.$$minor --group dev --extra local --extra plot -c locks/tested.in \
	    pyproject.toml -o locks/py3$$minor.txt && \
	  $(COMPILE) --python-version 3.$$minor --exclude-newer 2025-10-15 locks/ray249.in \
	    -o locks/ray249-py3$$minor.txt && \
	  $(COMPILE) --python-version 3.$$minor -c locks/tested.in locks/google.in \
	    -o locks/google-py3$$minor.txt || exit 1; \
	done

clean:
	rm -rf $(VENV) $(RAY249) $(GOOGLE) out dist .coverage .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
