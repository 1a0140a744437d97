# Every target sets itself up: a fresh machine needs Python 3.11 or newer, make, and a package registry.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SHELL := /bin/bash

# `make demo` options, all optional: DATASET=folder in VOC layout, URL=http://server, and the rest as flags.
DATASET ?=
URL ?=
DEMO_FLAGS ?=

.PHONY: demo test test-all torture fuzz run check format bench migrate lock audit openapi presets screenshots help

help:  ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /	/' | expand -t 12

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)

# Two set-ups in one venv: what the product needs, and what its developers need on top.
$(VENV)/.product: pyproject.toml client/pyproject.toml | $(VENV)/bin/python
	@echo "Installing the product into $(VENV) (PyTorch is large: a minute or more) …"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ./client -e ".[postgres,worker,demo]"
	@touch $@

$(VENV)/.dev: $(VENV)/.product
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	@touch $@

demo: $(VENV)/.product  ## the whole loop on drawn pictures, in minutes; results in ./demo
	@$(BIN)/python -m examples.demo $(if $(DATASET),--dataset "$(DATASET)") $(if $(URL),--url "$(URL)") $(DEMO_FLAGS)

run: $(VENV)/.product migrate  ## server and one worker on SQLite under ./data, until Ctrl-C
	@$(BIN)/python -m examples.run

migrate: $(VENV)/.product  ## bring the database to this version's schema
	@$(BIN)/python -m server migrate

test: $(VENV)/.dev  ## the tests, on SQLite and on Postgres
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not slow and not torture"

test-all: $(VENV)/.dev  ## the long tests too, but not torture
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not torture"

# Alone and in one process: what it measures itself by are moments in seconds. SEED=… repeats one.
SEED ?=
torture: $(VENV)/.dev  ## workers killed, stopped, frozen at many random moments, Postgres crashed: half an hour
	MIAOD_TORTURE_SEED=$(SEED) $(BIN)/python -m pytest -m torture -s

fuzz: $(VENV)/.dev  ## requests made from the OpenAPI document, tens of thousands of them
	$(BIN)/python -m pytest -s -m slow tests/server/test_schema_fuzz.py

check: $(VENV)/.dev  ## format, lint, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	PYTHONPATH=client $(BIN)/lint-imports

format: $(VENV)/.dev  ## put the code into its form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.dev  ## speed and memory, measured and printed
	$(BIN)/python -m benchmarks

openapi: $(VENV)/.product  ## write docs/openapi.json anew
	$(BIN)/python -m server openapi

screenshots: $(VENV)/.dev  ## take the pictures of the pages in docs/screenshots anew
	SCREENSHOTS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup tests/app

presets: $(VENV)/.product  ## write the server's copy of the training presets anew
	$(BIN)/python -m worker.miaod.config

lock: $(VENV)/.dev  ## pin and hash what the images install
	./locks/lock.sh $(BIN)/pip-compile

audit: $(VENV)/.dev  ## look the locked packages up among the known vulnerabilities (asks pypi.org)
	@bad=; for lock in server worker torch sbom; do \
	  $(BIN)/pip-audit --strict --disable-pip --require-hashes --progress-spinner off -r locks/$$lock.txt \
	    || bad="$$bad locks/$$lock.txt"; \
	done; \
	[ -z "$$bad" ] || { echo "A vulnerability is known, or a package could not be looked up, in:$$bad" >&2; exit 1; }
