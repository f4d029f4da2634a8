# Everything a user runs. `make help` lists it. Each target makes the environment when it is missing.
PRESET   ?= quick
LAUNCHER ?= local
PYTHON   ?= python3

ifdef RESULTS
export HYPERSPHERE_RESULTS := $(abspath $(RESULTS))
endif

BIN    := .venv/bin
READY  := .venv/.installed
LAUNCHING = $(if $(filter-out local,$(LAUNCHER)),$(foreach value,$(LAUNCH),--set $(value)))
# Tests of one file stay in one process: they share what is slow to make.
SPREAD := --numprocesses auto --maxprocesses 8 --dist loadfile
CHOICE := --preset $(PRESET) $(if $(PAPER),--paper $(PAPER)) $(if $(ITEM),--item $(ITEM))

.DEFAULT_GOAL := help
.PHONY: help setup reproduce-tables plan status render test test-all test-cluster bench board docs lock lint

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20
	@echo
	@echo 'Options: PRESET=quick|small|paper PAPER=nsl ITEM=table2 LAUNCHER=local|joblib|slurm|ray RESULTS=dir'
	@echo 'Data under HYPERSPHERE_DATA, run folders under HYPERSPHERE_RUNS (see README.md).'

setup: $(READY)  ## the environment alone (.venv)

# The stamp is the file list that was installed: a changed lock installs again.
$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "hypersphere needs Python 3.11 or newer; $(PYTHON) is `$(PYTHON) --version 2>&1`." \
	         "Name one with make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

reproduce-tables: $(READY)  ## all tables and claims of the chosen papers (default: preset quick)
	@$(BIN)/hypersphere run $(CHOICE) --launcher $(LAUNCHER) $(LAUNCHING)

plan: $(READY)  ## what the tables need, what is done, how long it takes
	@$(BIN)/hypersphere plan $(CHOICE)

status: $(READY)  ## done and missing runs per item
	@$(BIN)/hypersphere status $(CHOICE)

render: $(READY)  ## tables, claims and page from the records alone
	@$(BIN)/hypersphere render $(CHOICE)

test: $(READY)  ## the fast suite: no network, no GPU, no account
	$(BIN)/python -m pytest -m "not slow" $(SPREAD)

test-all: test  ## make test, then the slow proofs (kills, whole quick runs)
	$(BIN)/python -m pytest -m slow $(SPREAD)

test-cluster: $(READY)  ## a real SLURM and Ray on this machine (installs them; needs root and Debian)
	@test "`id -u`" = 0 || { echo 'make test-cluster starts a SLURM of its own, which needs root'; exit 1; }
	command -v slurmctld >/dev/null && command -v munged >/dev/null || \
	  { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends slurm-wlm munge; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation -e '.[slurm,ray]'
	$(BIN)/python -m pytest tests/slurm tests/test_launch.py

bench: $(READY)  ## every speed figure as a ratio, side by side, in one run
	$(BIN)/python scripts/bench.py

board: $(READY)  ## bring the boards (README.md, docs/board.md) up to date with the records
	@$(BIN)/hypersphere board

docs: $(READY)  ## the documentation, as pages to open from disk: site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

lint: $(READY)  ## ruff
	$(BIN)/ruff check src scripts tests
	$(BIN)/ruff format --check src scripts tests

lock: pyproject.toml  ## pin and hash the dependencies again (needs uv)
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-header --no-annotate -o requirements.txt
