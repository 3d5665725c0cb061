# Set-up and checks. `make` alone lists what there is. Needs Python 3.11 or newer, git and make.
#
# Set-up happens once, behind each target that needs it, from hashes: requirements.lock into .venv, and
# requirements-bench.lock (this project beside the heavy tools it is measured against) into .venv-bench.
# `clean` never touches experiments/: what lies there may have cost money.

PYTHON ?= python3
VENV := .venv
BENCH := .venv-bench
EXAMPLE := example
# One more than the two cores this is measured on: tests of processes wait. The order of the files is conftest.py's.
PYTEST := $(VENV)/bin/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

# Images often set this; then each of the hundreds of processes of the tests would compile its libraries anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup smoke test test-heavy lint bench lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

smoke: $(VENV)/.ready ## run the bundled example end to end against the embedded emulator; prints the path of its report
	@if [ -e experiments/run_$(EXAMPLE)/run.json ]; \
	then $(VENV)/bin/doit resume rid=$(EXAMPLE); \
	else TRIALMAKE_PROVIDER=emulator $(VENV)/bin/doit rid=$(EXAMPLE) config=examples/experiment.yaml; fi

test: $(VENV)/.ready ## the fast tests
	@$(PYTEST) -m "not heavy"

test-heavy: $(VENV)/.ready ## the tests that take minutes to hours
	@$(PYTEST) -m heavy

lint: $(VENV)/.ready ## ruff and mypy
	@$(VENV)/bin/ruff check --quiet .
	@$(VENV)/bin/ruff format --quiet --check .
	@$(VENV)/bin/mypy

# official_scores.py compares scores, not times, and wants a folder of data: README.md shows how.
bench: $(BENCH)/.ready ## time this project and its peers, print ratios
	@set -e; for script in $(filter-out %/official_scores.py, $(shell grep -l __main__ benchmarks/*.py)); do echo "== $$script"; $(BENCH)/bin/python $$script; done

setup: $(VENV)/.ready ## only the virtual environment

# What is pinned stays pinned where it can; `make lock FLAGS=--upgrade` takes the newest of everything.
# One version for all Pythons (fewest), so that results do not depend on which one a machine has.
COMPILE = $(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest \
	--generate-hashes --custom-compile-command "make lock" $(FLAGS) pyproject.toml --group build
lock: $(VENV)/.ready ## write both lock files anew from pyproject.toml
	@$(VENV)/bin/python -m pip install -qq --disable-pip-version-check uv
	@$(COMPILE) --extra test -o requirements.lock
	@$(COMPILE) --extra bench --constraint requirements.lock -o requirements-bench.lock

clean: ## remove virtual environments and caches; never experiments/
	@rm -rf $(VENV) $(BENCH) dist build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.ready: requirements.lock pyproject.toml
	$(call set-up,$(VENV),requirements.lock)

$(BENCH)/.ready: requirements-bench.lock pyproject.toml
	$(call set-up,$(BENCH),requirements-bench.lock)

# Not compiled on installation: that would double the time, for modules most of which are never imported.
define set-up
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.12 $(or $(MAKECMDGOALS),setup)" >&2; exit 2; }
@echo "setting up $(1) from $(2) (once, about a minute)"
@$(PYTHON) -m venv $(1) || { echo "Debian and Ubuntu: apt install python3-venv, then again" >&2; exit 2; }
@$(1)/bin/python -m pip install -qq --disable-pip-version-check --no-compile --require-hashes -r $(2)
@$(1)/bin/python -m pip install -qq --disable-pip-version-check --no-compile --no-deps --no-build-isolation -e .
@touch $(1)/.ready
endef
