# The everyday commands of this repository. `make` alone lists them.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Tests share the machine's cores; each worker starts its own Postgres where there is one.
WORKERS ?= logical
ARGS ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv demo test test-long lint types format lock bench clean

help: ## Show this list
	@printf 'Usage: make <target>\n\n'
	@awk -F ':.*## ' '/^[a-z][a-z%-]*:.*## / { sub("%", "<name>", $$1); printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(STAMP) ## Set up .venv with the pinned dependencies

$(STAMP): requirements.lock pyproject.toml scripts/create_venv.sh
	@sh scripts/create_venv.sh $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
	@echo "$(VENV) is ready."

demo: venv ## Run the main job: two years of bike rentals through one loop
	$(BIN)/trimtab demo $(ARGS)

test: venv ## Run the tests (ARGS="tests/store -x" for some of them)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

test-long: venv ## Run all tests, also those that take minutes
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "" --timeout 1800 $(ARGS)

lint: venv ## Check style, imports and the floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: venv ## Check the types, strictly
	$(BIN)/mypy

format: venv ## Put the code into shape
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

lock: venv ## Pin the newest versions that the bounds allow (PACKAGE=name for one)
	sh scripts/lock.sh $(VENV) $(PACKAGE)

bench: venv ## Run all benchmarks
	$(BIN)/python -m benchmarks $(ARGS)

bench-%: venv ## Run one benchmark
	$(BIN)/python -m benchmarks $* $(ARGS)

clean: ## Remove what the other targets made
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis trimtab-demo
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
