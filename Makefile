# make demo | test | lint | bench: each makes .venv by itself; PYTHON=python3.12 chooses the interpreter.
PYTHON ?= python3
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test lint bench clean

# The demo begins anew each time: it is made to be looked at, not to be kept.
demo: $(INSTALLED)
	rm -rf demo
	$(BIN)/loadmaster demo demo -j $(JOBS)

test: lint
	tests/services/astromatic-up
	tests/services/xfs-up
	PYTHON=$(PYTHON) tests/services/peer-up
	eval "$$(PYTHON=$(PYTHON) tests/services/s3-up)"; trap 'exit 130' INT TERM; trap tests/services/s3-down EXIT; \
	  $(BIN)/pytest -n 2 --dist loadscope

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(INSTALLED)
	$(BIN)/python benchmarks/plan.py --quanta 100000
	$(BIN)/python benchmarks/jobs.py

clean:
	rm -rf demo demo-real $(VENV)

# Installed again whenever the dependencies may have changed.
$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Loadmaster needs Python 3.11 or newer; $(PYTHON) is not. Say: make $(MAKECMDGOALS) PYTHON=python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[science,dev]'
	touch $@
