# `make help` explains the targets. Nothing here needs more than Python 3.11; the tests also want Node 20.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow test-rabbitmq check format pictures lock bench clean

# A test run starts hundreds of processes: each would compile every module anew.
unexport PYTHONDONTWRITEBYTECODE

# The first Python that is new enough; `make install PYTHON=…` overrides it.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$python"; break; }; done)
BIN := .venv/bin
UV := $(BIN)/uv
INSTALL := $(UV) pip install --quiet --python $(BIN)/python
COMPILE := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-header --no-annotate $(UPGRADE)

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

install: .venv/.development  ## everything for working on Aswhom, into .venv, as the locks say

demo: .venv/.runtime  ## agents at work against sandbox upstreams; needs Python alone
	$(BIN)/aswhom demo $(ARGS)

test: .venv/.development  ## the tests, a quarter of an hour on two slow cores; ARGS go to pytest: make test ARGS='tests/identity -k lease'
	@$(BIN)/python -m tests.servers.npm
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

test-slow: .venv/.development  ## the tests that take minutes: long races, soaks, thousands of schedules
	@$(BIN)/python -m tests.servers.npm
	$(BIN)/python -m pytest -m slow -n 3 --dist worksteal $(ARGS)

test-rabbitmq: .venv/.development  ## the tests that want a RabbitMQ, ten minutes; on Debian: apt-get install rabbitmq-server
	@$(BIN)/python -m tests.servers.rabbitmq
	$(BIN)/python -m pytest -m rabbitmq $(ARGS)

check: .venv/.development  ## format, lint, types, who may import whom, and the installed versions against the lock
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@$(UV) pip install --python $(BIN)/python --dry-run --require-hashes -r requirements/dev.txt 2>&1 \
		| grep -q 'Would make no changes' || { echo 'The environment is not what the lock says: make clean install' >&2; exit 1; }
	@$(UV) pip check --quiet --python $(BIN)/python

format: .venv/.development  ## let ruff rewrite what it can
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

pictures: .venv/.development  ## take the pictures that the documents show anew, from the test that walks over the console
	@$(BIN)/python -m tests.servers.npm
	$(BIN)/python -m pytest -m slow tests/browser/test_console_system.py $(ARGS)
	cp tests/browser/screenshots/console-*.png docs/images/

bench: .venv/.development  ## the measurements, which print figures and judge nothing
	$(BIN)/python -m tests.bench $(ARGS)

lock: $(UV)  ## resolve the dependencies anew; UPGRADE=--upgrade takes newer versions than the locks have
	echo uv | $(COMPILE) - --output-file requirements/uv.txt
	$(COMPILE) pyproject.toml --extra embedded --extra sandbox --group pyproject.toml:build \
		--output-file requirements/base.txt
	$(COMPILE) pyproject.toml --extra postgres --group pyproject.toml:build \
		--constraint requirements/base.txt --output-file requirements/hosts.txt
	$(COMPILE) pyproject.toml --all-extras --group pyproject.toml:build --group pyproject.toml:dev \
		--constraint requirements/base.txt --output-file requirements/dev.txt

clean:  ## remove what the other targets made, but for .aswhom
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis tests/peers/*/node_modules dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(UV): requirements/uv.txt
	@test -n "$(PYTHON)" || { echo 'Aswhom needs Python 3.11 or later, and none was found.' >&2; exit 1; }
	@$(PYTHON) -m venv .venv || { echo 'No virtual environment. On Debian: apt-get install python3-venv' >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@touch $@

.venv/.runtime: $(UV) requirements/base.txt pyproject.toml
	@echo 'Installing Aswhom into .venv …'
	@$(INSTALL) --require-hashes -r requirements/base.txt
	@$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

.venv/.development: $(UV) requirements/dev.txt pyproject.toml
	@echo 'Installing Aswhom and its tools into .venv …'
	@$(INSTALL) --require-hashes -r requirements/dev.txt
	@$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@ .venv/.runtime
