# The same few targets for people and for CI. Each makes .venv when it is missing or outdated.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: dev demo test check bench clean

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ml_platform needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]' -c constraints.txt
	@touch $@

dev: $(INSTALLED)  ## S3, MLflow, Dagster and the model server, until Ctrl-C
	$(BIN)/ml-platform dev

demo: $(INSTALLED)  ## the main job, end to end: [INPUT=<folder of daily files> FROM=YYYY-MM-DD TO=YYYY-MM-DD]
	$(BIN)/ml-platform demo $(if $(INPUT),--input $(INPUT)) $(if $(FROM),--from $(FROM)) $(if $(TO),--to $(TO))

test: $(INSTALLED) check  ## house rules, then every test
	$(BIN)/pytest

check: $(INSTALLED)  ## lint, types, import contracts, definitions load
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/dagster definitions validate -w workspace.yaml

bench: $(INSTALLED)  ## every benchmark, written to docs/benchmarks.md
	$(BIN)/python -m benchmarks --write

clean:  ## everything that the local stack has stored
	rm -rf .ml_platform
