# What people type. `make` alone lists it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help demo test lint soak bench kafka clean lock

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "madlog needs Python 3.11 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	@echo "setting up $(VENV) (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(READY) ## the main job on an embedded log, nothing to set up
	@$(BIN)/madlog demo

test: lint ## all that CI does: lint, types, imports, tidy, tests
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m "not soak"

lint: $(READY) ## ruff, mypy strict, import directions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

soak: $(READY) ## the long fault runs
	$(BIN)/python -m pytest -q -m soak --timeout 3600

bench: $(READY) ## measure against the plain loops in tests/bench
	$(BIN)/madlog bench

kafka: $(READY) ## a Kafka broker to try things on, until Ctrl-C; PORT=9192, NODES=3
	@$(BIN)/python -m tests.brokers $(if $(PORT),--port $(PORT)) $(if $(NODES),--nodes $(NODES))

lock: $(READY) ## resolve requirements.lock again, with hashes and no address
	$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-header --quiet --group dev pyproject.toml -o requirements.lock

clean: ## remove what make made
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
