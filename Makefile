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
# They spend their time waiting, so there may be more processes than cores; those of one file share ports.
UNIT_TESTS = $(BIN)/python -m pytest --numprocesses 4 --dist loadfile tests/unit
# They look for free ports of the host, where nobody else may start a head meanwhile.
HOST_TESTS := tests/unit/test_local.py

.DEFAULT_GOAL := help
.PHONY: help setup setup-ray249 setup-google setup-browser setup-postgres test test-unit test-without-ray test-ray chaos lint format types demo up down bench lock screenshots clean

help:
	@echo 'make demo [CONF=...]  three local Ray clusters, Airflow and one run of the Dag, from set-up to take-down'
	@echo 'make up, make down    the same, kept running for a look at the UI, and taken down again'
	@echo 'make test             set-up and all tests but the longest faults; make test-unit: those that start neither Ray nor Airflow'
	@echo 'make chaos            all of the fault suite, and nothing else; it writes docs/reliability.md'
	@echo 'make lint, types      ruff and mypy; make format: rewrite what ruff can'
	@echo 'make bench            benchmarks against other providers and the plain patterns'
	@echo 'make screenshots      pictures of the UI for docs/; installs Chromium'
	@echo 'make setup            the virtual environment $(VENV); PYTHON=python3.12 chooses the interpreter'
	@echo 'make lock             new lock files; UPGRADE=--upgrade to newest versions'
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
	$(PYTHON) -m venv $(1)
endef

.PHONY: supported
supported:
	@case ' $(LOCKED:%=py%) ' in *' $(PY) '*) ;; *) \
	  echo '$(PYTHON) is $(or $(PY),missing); Python 3.11, 3.12 or 3.13 is needed: make PYTHON=python3.12 ...' >&2; \
	  exit 1;; esac

locks/$(PY).txt locks/ray249-$(PY).txt locks/google-$(PY).txt: | supported

# What starts neither heads nor an Airflow with workers spends its time waiting, beside what does.
test: setup setup-ray249 setup-postgres setup-browser
	$(MAKE) --jobs 2 --output-sync=target test-without-ray test-ray
	$(BIN)/python -m pytest --ignore tests/unit --ignore tests/browser --ignore tests/contract --ignore tests/ray

test-without-ray:
	$(UNIT_TESTS) --ignore $(HOST_TESTS)
	$(BIN)/python -m pytest tests/browser

test-ray:
	$(BIN)/python -m pytest $(HOST_TESTS) tests/contract tests/ray

chaos: setup setup-ray249 setup-postgres
	$(BIN)/python -m pytest tests/e2e -k faults --chaos --reliability-table docs/reliability.md

test-unit: setup
	$(UNIT_TESTS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: setup
	$(BIN)/mypy

demo: setup
	$(BIN)/python -m dev.demo run --conf "$$DEMO_CONF"

up: setup
	$(BIN)/python -m dev.demo up

down: setup
	$(BIN)/python -m dev.demo down

bench: setup setup-google setup-postgres
	$(BIN)/python -m benchmarks

screenshots: setup setup-browser
	$(BIN)/python -m dev.screenshots
	$(BIN)/python -m dev.page_pictures

# The end-to-end tests' Airflow has its database there.
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
	rm -rf $(VENV) $(RAY249) $(GOOGLE) out dist .mypy_cache .pytest_cache .ruff_cache
