# `make help` lists the targets; CI (.ci/run) runs lint and test. A target first installs what it needs into .venv, from constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
TORCH := $(shell grep -o "^torch==[^ ]*" constraints.txt)
export OMP_NUM_THREADS := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Tests start hundreds of processes, each of which would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: sweep claim help test test-faults test-stack test-gpu test-pages pictures docs lint bench clean

sweep: .venv/installed  ## install, record the default dataset if it is missing, run search_spaces/quickstart.py and show the results
	@$(BIN)/winnow run quickstart

claim: .venv/installed  ## half an hour on one core: does 95 % sparsity keep the score? yes on medium data, no on expert data (README.md)
	@$(BIN)/winnow run claim --max-concurrent 1 && $(BIN)/winnow report claim

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/\1|\2/p' Makefile | awk -F '|' '{ printf "  %-12s %s\n", $$1, $$2 }'

test: .venv/installed-dev .venv-peer/installed  ## the whole test suite, on two cores; sets up everything it needs
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-faults: .venv/installed-dev  ## all fault tests (half an hour): kills real Ray and MLflow servers; rewrites tests/faults/survived.md
	FAULT_TABLE=tests/faults/survived.md $(BIN)/python -m pytest tests/faults -m "" -n 2 --dist loadfile --no-loadscope-reorder --durations=20

test-stack: .venv/installed-dev  ## the services of docker/compose.yaml as plain processes, and a sweep on them by `ray job submit`; needs PostgreSQL
	$(BIN)/python -m tests.docker.stack

test-gpu: .venv/installed-dev  ## the tests that need a GPU; fails without one, where `make test` skips them
	@$(BIN)/python -c "import torch; torch.cuda.is_available() or exit('no GPU that the installed torch can use')"
	$(BIN)/python -m pytest tests/trainables/test_gpu.py

test-pages: .venv/installed-dev  ## the report's page in a browser, light and dark, at desktop and phone width; needs Chromium (Debian: chromium)
	$(BIN)/python -m pytest tests/service/results/report -m browser

pictures: .venv/installed-dev  ## docs/pictures.md: the report on the first study, photographed; adopts benchmarks/study.zip; needs Chromium
	$(BIN)/python -m tests.service.results.report.browser.pictures

docs: .venv/installed-dev  ## check the documents: links, commands, file names; `make test` does this too
	$(BIN)/python -m tests.documents

lint: .venv/installed-dev  ## formatting, style, types, direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

bench: .venv/installed-dev .venv-peer/installed  ## measure every claim about speed beside its peer (benchmarks/README.md)
	$(BIN)/python -m trainables.datasets.collect record winnow/halfcheetah/expert-v0
	$(BIN)/python -m benchmarks.speed.updates
	$(BIN)/python -m benchmarks.speed.update_profile --to benchmarks/speed/update_profile.json
	$(BIN)/python -m benchmarks.speed.break_even
	$(BIN)/python -m benchmarks.speed.structures
	$(BIN)/python -m benchmarks.speed.moving
	$(BIN)/python -m benchmarks.speed.evaluation
	$(BIN)/python -m benchmarks.speed.inference

# d3rlpy pins another version of gymnasium, so it gets a separate environment; stable-baselines3 is for an example.
.venv-peer/installed: Makefile constraints.txt
	@$(PYTHON) -m venv .venv-peer
	@.venv-peer/bin/pip install --quiet $(TORCH)
	@.venv-peer/bin/pip install --quiet $(TORCH) d3rlpy==2.8.1 stable-baselines3==2.9.2
	@touch $@

# OfflineRLLib, whose XQL is the only one that can be installed; what it pins besides (an older gym) it does not need here.
.venv-peer/installed-xql: .venv-peer/installed
	@.venv-peer/bin/pip install --quiet --no-deps offlinerllib==0.1.5 UtilsRL==0.6.11
	@touch $@

# torch comes first, at its exact version: whatever else asks for torch then keeps the installed one.
.venv/installed: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv (a few minutes)"
	@$(BIN)/pip install --quiet --constraint constraints.txt torch
	@$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	@touch $@

.venv/installed-dev: .venv/installed
	@$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:  ## remove .venv; sweeps in storage/ and datasets stay
	rm -rf .venv
