# `make` alone lists the targets.  Everything is installed into .venv, everything made goes to .spira.

SHELL := /bin/bash
PYTHON ?= python3.11
# A process a core; what shares a fixture stays in one (tests/conftest.py).
IN_PARALLEL := --numprocesses auto --maxprocesses 4
# Only the tests that a change since a commit can touch:  make test SINCE=origin/main
SINCE ?=
PYTEST := python -m pytest -q $(IN_PARALLEL) $(if $(SINCE),--since=$(SINCE))
# The pip that Python 3.11 brings looks at every wheel many times: 280 s of CPU instead of 60.
PIP := pip==26.3
INSTALLED := .venv/installed-$(shell cat requirements.txt requirements-dev.txt | cksum | cut -d' ' -f1)

.PHONY: help setup demo up unit test test-rest test-nightly test-all check bench document lock clean \
  images production-up production-down doctor backup restore

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18

setup: $(INSTALLED)  ## install everything into .venv

$(INSTALLED):
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not installed: install Python 3.11, or name one: make PYTHON=/path/to/python3.11"; exit 1; }
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv; this takes a few minutes"
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check $(PIP)
	@.venv/bin/python -m pip install --quiet --no-compile -r requirements.txt -r requirements-dev.txt
	@# On all cores, and also where Python may not write what it compiles; torch/testing has a file for Python 3.12.
	@.venv/bin/python -m compileall -q -j 0 -x /torch/testing/ .venv/lib
	@rm -f .venv/installed-*; touch $@

demo: setup  ## make a synthetic cohort, run the DAG on it, say what came out
	@scripts/demo.sh

up: setup  ## the pages of Airflow, MLflow, governance, collection and labels; Ctrl-C stops them
	@. ./env.sh; exec python scripts/up.py $(ARGUMENTS)

unit: setup  ## the tests that need Python alone: minutes
	@. ./env.sh; $(PYTEST) tests/unit

test: setup  ## the tests that need only Python; those that need a Docker engine if there is one
	@. ./env.sh; $(PYTEST) -m "not slow"

test-rest: setup  ## the tests that need the production images, a browser or more time
	@. ./env.sh; $(PYTEST) -m "slow and not nightly"

test-nightly: setup  ## more faults of the platform in containers, minutes each; not in CI
	@. ./env.sh; $(PYTEST) -m nightly

test-all: test test-rest test-nightly  ## every test

check: setup  ## style, types, and the rules of the design
	@.venv/bin/ruff check --quiet .
	@.venv/bin/ruff format --check --quiet .
	@.venv/bin/mypy
	@. ./env.sh; lint-imports
	@. ./env.sh; python -m spira_tasks.experiments.declaration

bench: setup  ## measure what is to be reached:  make bench ROWS="materialize epoch"
	@. ./env.sh; python -m benchmarks.bench $(ROWS) $(ARGUMENTS)

document: setup  ## write again what the docs say of the expectations, and the dashboard
	@. ./env.sh; set -e; python -m spira_tasks expectations list --json >.spira/catalogue.json; \
	mv .spira/catalogue.json expectations/words/catalogue.json; \
	python -m spira_tasks expectations document >docs/expectations.md; \
	python -m spira_tasks expectations document --language pt >docs/expectations.pt.md; \
	python -m spira_tasks.reports.tripod >docs/tripod_ai.md; \
	python scripts/dashboard.py >docker/monitoring/dashboard.json

lock: setup  ## resolve the *.in files into *.txt: the laptop, the images, the tools
	@.venv/bin/python -m pip install --quiet pip-tools==7.6.2
	@compile() { .venv/bin/pip-compile --quiet --strip-extras --allow-unsafe --no-emit-index-url \
	    --no-emit-find-links --no-header --output-file=$$1.txt $$1.in $${@:2} && \
	  sed -i -e 's/+cpu$$//' -e "1i # Made by \`make lock\` from $$1.in: change that one." $$1.txt; }; \
	compile requirements && compile docker/tasks --constraint requirements.txt && \
	compile docker/airflow && compile requirements-dev

images:  ## build the two images of production
	@scripts/images.sh

production-up:  ## start the whole platform in containers
	@scripts/production.sh up

production-down:  ## stop it; data and secrets stay
	@scripts/production.sh down

doctor:  ## what is wrong with the platform in containers, and what to do
	@$(PYTHON) scripts/doctor

backup:  ## copy databases and store:  make backup TO=/backup/2026-11-21
	@test -n "$(TO)" || { echo "say where to:  make backup TO=/backup/$$(date +%F)"; exit 2; }
	@$(PYTHON) scripts/backup.py $(ARGUMENTS) "$(TO)"

restore:  ## put a backup back:  make restore FROM=/backup/2026-11-21
	@test -n "$(FROM)" || { echo "say where from:  make restore FROM=/backup/2026-11-21"; exit 2; }
	@$(PYTHON) scripts/restore.py $(ARGUMENTS) "$(FROM)"

clean:  ## remove what the project made, except .venv
	@rm -rf .spira .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
