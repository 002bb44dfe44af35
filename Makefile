# Everything a person types. Needs Python 3.11 or newer, make and git; the rest goes into .venv.

VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
CHROMIUM := $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)

.PHONY: help demo test lint check bench clean

help:
	@echo "make demo    train a network that finds its own size, under a minute once installed"
	@echo "make test    run the tests"
	@echo "make lint    style, types and the order of the floors"
	@echo "make check   lint, then test"
	@echo "make bench   run every benchmark at its two-core size"
	@echo "make clean   delete caches and .venv; runs stay"

demo: $(VENV)/.installed
	@$(BIN)/secateur demo

# One thread a worker: two workers share two cores, and sums come out in the same order every time.
test: $(VENV)/.installed-dev
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest --quiet --numprocesses=$(JOBS) \
	    $(if $(CHROMIUM),,-m "not browser") $(PYTEST_ARGS)
	@$(if $(CHROMIUM),true,echo "No Chromium on this machine: the one test that opens a report in a browser was left out.")

lint: $(VENV)/.installed-dev
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

check: lint test

bench: $(VENV)/.installed-dev
	@for script in benchmarks/[a-z]*.py; do \
	    echo "== $$script"; $(BIN)/python "$$script" || exit 1; \
	done

clean:
	rm -rf $(VENV) dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/python:
	@for python in $(PYTHON) python3.11 python3.12 python3.13 python3 none; do \
	    "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; \
	done; \
	if [ "$$python" = none ]; then \
	    echo "secateur needs Python 3.11 or newer, and found none. Name one: make PYTHON=/path/to/python3.11" >&2; \
	    exit 1; \
	fi; \
	"$$python" -m venv $(VENV) || { \
	    rm -rf $(VENV); \
	    echo "$$python could not make a virtual environment. On Debian and Ubuntu, install python3-venv." >&2; \
	    exit 1; \
	}

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing secateur into $(VENV); the first time takes a few minutes, torch is large."
	@$(PIP) install --editable . --constraint constraints.txt
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing secateur and its tools into $(VENV); the first time takes a few minutes."
	@$(PIP) install --editable '.[dev,export,text,vision]' --constraint constraints.txt
	@touch $@ $(VENV)/.installed
