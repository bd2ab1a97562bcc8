# `make` alone lists the targets.  Everything is installed into .venv, everything made goes to .spira.

SHELL := /bin/bash
PYTHON ?= python3.11
SUBJECTS ?= 160
EPOCHS ?= 40
COHORT = .spira/cohort
INSTALLED = .venv/installed-$(shell cat requirements.txt requirements-dev.txt | cksum | cut -d' ' -f1)

.PHONY: help setup demo test test-all check lock clean
.DELETE_ON_ERROR:

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: $(INSTALLED)  ## install everything into .venv

$(INSTALLED):
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not installed: install Python 3.11, or name one by make PYTHON=…"; exit 1; }
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv: two minutes or so"
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-dev.txt
	@rm -f .venv/installed-*; touch $@

demo: setup  ## make a synthetic cohort, run the DAG on it, say what came out
	@docs/demo.sh $(COHORT) $(SUBJECTS) $(EPOCHS)

test: setup  ## the tests, without those that need more than Python
	@. ./env.sh; python -m pytest -m "not s3 and not slow"

test-all: setup  ## every test, as CI runs them
	@. ./env.sh; python -m pytest

check: setup  ## style, types and the rules of the design
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@. ./env.sh; lint-imports

lock: setup  ## resolve requirements*.in into requirements*.txt
	@.venv/bin/python -m pip install --quiet pip-tools==7.6.2
	@for name in requirements requirements-dev; do \
	  .venv/bin/pip-compile --quiet --strip-extras --allow-unsafe --no-emit-index-url \
	    --no-emit-find-links --no-header --output-file=$$name.txt $$name.in && \
	  sed -i -e 's/+cpu$$//' -e "1i # Made by \`make lock\` from $$name.in: change that one." $$name.txt; \
	done

clean:  ## remove what the project made, except .venv
	@rm -rf .spira .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
