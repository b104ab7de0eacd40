# One entry for everything, the same on a laptop and in CI. `make help` lists what there is.
#
# Needs make and Python 3.11 or newer; the first target that needs them creates .venv and installs what is missing.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Processes that share the tests; each starts servers of its own.
JOBS ?= 3
# Which interpreter makes .venv: `make PYTHON=/path/to/python3 test`.
PYTHON ?=

SOURCES := protocol cache proxy benchmarks tests

.DEFAULT_GOAL := help
.PHONY: help install demo test check format lint types layering suite bench clean

help:  ## list the targets
	@sed -n 's/^\([a-z][a-z]*\):.*##  *\(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

install: $(STAMP)  ## create .venv and install Rowtap with its tools

demo: $(STAMP)  ## show it: embedded PostgreSQL and Redis, the proxy, a short session
	@$(BIN)/rowtap demo

test: check  ## set everything up, then run every gate and the whole suite against real servers

check: lint types layering suite  ## format, lint, types, layering, tests

format: $(STAMP)  ## rewrite the sources in the one format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix-only --quiet .

lint: $(STAMP)  ## check format and lint
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .

types: $(STAMP)  ## check types
	$(BIN)/mypy

layering: $(STAMP)  ## check who imports whom
	$(BIN)/pytest -q --no-header tests/test_layering.py

suite: $(STAMP)  ## run the tests; ARGS="-k pipeline" chooses, JOBS=0 takes one process
	$(BIN)/pytest -q -n $(JOBS) --reruns 2 -raR $(ARGS)

bench: $(STAMP)  ## measure against a relay that looks at nothing; benchmarks/README.md says how to read it
	$(BIN)/python -m benchmarks

clean:  ## remove .venv and everything generated
	rm -rf $(VENV) build dist *.egg-info .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Made anew when pyproject.toml changes, when it is half made, or when its Python has gone.
$(STAMP): pyproject.toml Makefile
	@set -eu; \
	suits='import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))'; \
	if ! "$(BIN)/python" -c "$$suits" >/dev/null 2>&1; then \
	  found=; \
	  for candidate in $(if $(PYTHON),"$(PYTHON)",python3.13 python3.12 python3.14 python3.11 python3 python); do \
	    if "$$candidate" -c "$$suits" >/dev/null 2>&1; then found=$$candidate; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo "Rowtap needs Python 3.11 or newer with its venv module, and found none$(if $(PYTHON), in $(PYTHON))." >&2; \
	    echo "Install one (Debian, Ubuntu: apt install python3 python3-venv), or say where: make PYTHON=/path/to/python3" >&2; \
	    exit 1; \
	  fi; \
	  echo "creating $(VENV) with $$("$$found" --version)"; \
	  "$$found" -m venv --clear "$(VENV)"; \
	fi; \
	echo "installing Rowtap and its tools into $(VENV)"; \
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check --editable '.[dev]'; \
	touch "$@"
