# `make` lists the targets. Each one sets up .venv first; nothing is installed again until a file listed below changes.
PYTHON ?= python3
ARGS ?=
PYTEST_ARGS ?=
# Processes that tests are spread over; each computes with one thread.
WORKERS ?= auto

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
INSTALLING := $(VENV)/.installing
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check
# Its metadata demands torch<1.13 and torchvision, so it goes in without its dependencies (setup.cfg lists the real ones).
AUTO_LIRPA := auto_LiRPA==0.3

.DEFAULT_GOAL := help
.PHONY: help run study test test-slow lint format docs bench gpu clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(INSTALLED) ## run certtrain, e.g. make run ARGS="relaxation=deeppoly pgpe.sigma=0.01"
	$(BIN)/python -m certtrain $(ARGS)

study: $(INSTALLED) ## the digits study; called again it goes on
	$(BIN)/python -m certtrain study studies/digits.yaml $(ARGS)

test: lint ## lint, then the fast tests
	$(BIN)/python -m pytest -m "not slow" --numprocesses=$(WORKERS) --dist=worksteal $(PYTEST_ARGS)

test-slow: $(INSTALLED) ## the slow tests
	$(BIN)/python -m pytest -m slow

lint: $(INSTALLED) ## ruff (rules and format) and mypy
	$(BIN)/python -m ruff check
	$(BIN)/python -m ruff format --check
	$(BIN)/python -m mypy

format: $(INSTALLED) ## let ruff repair and format the code
	$(BIN)/python -m ruff check --fix
	$(BIN)/python -m ruff format

docs: $(INSTALLED) ## the documentation as a site, build/site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

bench: $(INSTALLED) ## speed against auto_LiRPA, e.g. make bench ARGS="--data FOLDER"
	$(BIN)/python -m benchmarks $(ARGS)

# Not in .venv, whose torch is the locked one: in the environment of PYTHON, where a CUDA build of torch is installed.
gpu: ## tests and speed on a GPU, with the torch of PYTHON, e.g. make gpu PYTHON=/opt/torch/bin/python
	@$(PYTHON) benchmarks/ready.py
	$(PYTHON) -m pytest tests/device -m gpu $(PYTEST_ARGS)
	$(PYTHON) -m benchmarks --only=gpu --data=none $(ARGS)

clean: ## remove builds and caches; runs and .venv stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# .installing holds the process id of the make that installs. Left behind by a make that is gone, it means that the
# environment is half finished in an unknown way, and it is built anew.
$(INSTALLED): requirements.lock setup.cfg setup.py pyproject.toml
	@if kill -0 "$$(cat $(INSTALLING) 2>/dev/null)" 2>/dev/null; then \
	    echo "another make (process $$(cat $(INSTALLING))) is installing into $(VENV)"; exit 1; fi
	@if [ -e $(INSTALLING) ] || ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	    rm -rf $(VENV) && $(PYTHON) -m venv $(VENV); fi
	@echo $$PPID > $(INSTALLING)
	$(PIP_INSTALL) --requirement requirements.lock
	$(PIP_INSTALL) --no-deps $(AUTO_LIRPA)
	$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@rm $(INSTALLING)
	@touch $@
