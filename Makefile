# One entry for everything, the same on a laptop and in CI. `make help` lists what there is.
#
# Needs make and Python 3.11 or newer; the first target that needs them creates .venv and installs what is missing.

# Which interpreter: `make test PYTHON=python3.13`, or a path. Without it: the .venv there is, or the first one found.
PYTHON ?=
# The interpreters of `make matrix`; those that this machine lacks are left out.
PYTHONS ?= python3.11 python3.12 python3.13 python3.14
# Processes that share the tests, each with servers of its own: two for each of two cores, as a test waits half its time.
JOBS ?= 4

# Whether an interpreter can make the environment, and which one it is. The "t" of a build without GIL belongs to it.
SUITS := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))
TELL_VERSION := import sys; print("%d.%d%s" % (*sys.version_info[:2], sys.abiflags))
# The version of the PYTHON asked for. Each has an environment of its own, .venv-3.13, so that none is made anew by turns.
VERSION := $(if $(PYTHON),$(or $(shell "$(PYTHON)" -c '$(TELL_VERSION)' 2>/dev/null),unusable))
VENV := .venv$(VERSION:%=-%)
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed$(VERSION:%=-%)

SOURCES := protocol cache proxy benchmarks tests
PYTEST := -m pytest -q -n $(JOBS) -raR

.DEFAULT_GOAL := help
.PHONY: help install demo test check format lint types layering suite coverage matrix bench clean absent

help:  ## list the targets
	@sed -n 's/^\([a-z][a-z]*\):.*##  *\(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

install: $(STAMP)  ## create .venv and install Rowtap with its tools

demo: $(STAMP)  ## show it: embedded PostgreSQL and Redis, the proxy, a short session
	@$(BIN)/rowtap demo

test: check  ## set everything up, then run every gate and the whole suite against real servers

check: lint types layering coverage  ## format, lint, types, layering, tests, and that the tests reach all of the core

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
	$(BIN)/python $(PYTEST) $(ARGS)

coverage: $(STAMP)  ## run the tests and list what of the core they miss, which must be nothing; ARGS, ONLY="cache/*" narrow
	@$(BIN)/coverage erase
	$(BIN)/coverage run $(PYTEST) $(ARGS)
	@$(BIN)/coverage combine --quiet
	$(BIN)/coverage report$(if $(ARGS), --fail-under=0)$(if $(ONLY), --include='$(ONLY)')

matrix:  ## make test with every Python of PYTHONS that this machine has
	@done=; failed=; \
	for python in $(PYTHONS); do \
	  if ! "$$python" -c '$(SUITS)' >/dev/null 2>&1; then echo "$$python: not on this machine, left out"; continue; fi; \
	  echo "$$python: make test"; \
	  if $(MAKE) --no-print-directory test PYTHON="$$python"; then done="$$done $$python"; else failed="$$failed $$python"; fi; \
	done; \
	echo "passed:$${done:- none}; failed:$${failed:- none}"; \
	[ -z "$$failed" ] && [ -n "$$done" ]

bench: $(STAMP)  ## measure against a relay that looks at nothing; benchmarks/README.md says how to read it
	$(BIN)/python -m benchmarks

clean:  ## remove .venv and everything generated
	rm -rf .venv .venv-3.* $(VENV) build dist *.egg-info .coverage .coverage.* htmlcov .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Installed again when pyproject.toml changes; made anew when it is half made, of another version, or its Python has gone.
$(STAMP): pyproject.toml Makefile $(shell [ -x $(BIN)/python ] || echo absent)
	@set -eu; \
	if ! "$(BIN)/python" -c '$(SUITS)' >/dev/null 2>&1 \
	    || [ "$(VERSION)" != "$(if $(VERSION),$$("$(BIN)/python" -c '$(TELL_VERSION)'))" ]; then \
	  found=; \
	  for candidate in $(if $(PYTHON),"$(PYTHON)",python3.13 python3.12 python3.14 python3.11 python3 python); do \
	    if "$$candidate" -c '$(SUITS)' >/dev/null 2>&1; then found=$$candidate; break; fi; \
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
