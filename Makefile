# The same few targets for people and for CI. Each makes .venv when it is missing or outdated.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# Tests share what they start within a file, and long files begin first (ml_platform_tests/selection.py).
PYTEST := $(BIN)/pytest --numprocesses auto --dist loadfile --no-loadscope-reorder
EDITED = $(filter %.py,$(shell git diff --name-only --diff-filter=d HEAD) $(shell git ls-files --others --exclude-standard))
ROOM = $(if $(ONLY),$(or $(wildcard ml_platform_tests/$(ONLY) ml_platform_tests/test_$(ONLY)*.py),$(error there are no tests of $(ONLY): a room is a folder of ml_platform_tests)))

# Of the images: what builds them, what they are based on, and their names.
ENGINE ?= docker
BASE_IMAGE ?= python:3.11-slim-bookworm
REPOSITORY ?= localhost/ml-platform
TAG ?= latest
TORCH_CPU_INDEX ?=
BUILD_OPTIONS ?=
# Of the scenarios on a cluster: how many times longer than usual things may take, and where the pods' logs are kept.
PATIENCE ?= 1
LOGS ?= test-cluster
# Only `local` stores in pods of its own; others may name the image `training` in their model files.
IMAGES = dagster serving $(if $(filter-out local,$(OVERLAY)),training,backing)

.PHONY: help dev demo quick test test-images test-cluster chaos check bench bench-handbook rehearse clean images deploy

help:  ## this list
	@sed -nE 's/^([a-z%-]+):[^#]*## /\1|/p' Makefile | awk -F'|' '{printf "  make %-16s %s\n", $$1, $$2}'

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ml_platform needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]' -c constraints.txt
	@touch $@

dev: $(INSTALLED)  ## S3, MLflow, Dagster and the model server, until Ctrl-C
	$(BIN)/ml-platform dev

demo: $(INSTALLED)  ## the main job, end to end: [DAYS=60 or INPUT=<folder of daily files> FROM=YYYY-MM-DD TO=YYYY-MM-DD]
	$(BIN)/ml-platform demo $(if $(DAYS),--days $(DAYS)) $(if $(INPUT),--input $(INPUT)) $(if $(FROM),--from $(FROM)) $(if $(TO),--to $(TO))

quick: $(INSTALLED)  ## within two minutes: lint, types of what differs from the last commit, and all tests that start no process
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(if $(EDITED),$(BIN)/pyright $(EDITED))
	$(PYTEST) --quick

# Without ONLY and CHANGED the house rules are checked too.
test: $(INSTALLED) $(if $(ONLY)$(CHANGED),,check)  ## house rules, then every test: [ONLY=<a room, or the command line's: cli>] [CHANGED=1, or a commit to differ from]
	$(PYTEST) $(if $(CHANGED),--changed=$(CHANGED:1=HEAD)) $(ROOM)

test-cluster: $(INSTALLED)  ## the scenarios of ml_platform_tests/cluster on the cluster of the present kubeconfig: [REPOSITORY=... TAG=... NEXT_TAG=... PATIENCE=3 LOGS=<folder>]
	REPOSITORY=$(REPOSITORY) TAG=$(TAG) NEXT_TAG=$(NEXT_TAG) ML_PLATFORM_TEST_PATIENCE=$(PATIENCE) ML_PLATFORM_TEST_LOGS=$(LOGS) $(BIN)/python -m ml_platform_tests.cluster

test-images: $(INSTALLED)  ## minutes: environments as the images have them, made anew, and what the images are for done in them
	ML_PLATFORM_TEST_IMAGES=1 TORCH_CPU_INDEX=$(TORCH_CPU_INDEX) $(BIN)/pytest --show-capture=all -rA ml_platform_tests/images

chaos: $(INSTALLED)  ## faults injected into a running stack, written to docs/reliability.md: [ONLY=<words of a fault>]
	$(BIN)/python -m ml_platform_tests.chaos $(ONLY)

check: $(INSTALLED)  ## lint, types, import contracts, definitions load
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/dagster definitions validate -w workspace.yaml

bench: $(INSTALLED)  ## every benchmark, written to docs/benchmarks.md
	$(BIN)/python -m benchmarks --write

bench-handbook: $(INSTALLED)  ## how well models find the handbook's fraud: INPUT=<folder of its daily files> [FOLDS=1]
	$(BIN)/python -m benchmarks.handbook $(INPUT) $(if $(FOLDS),--folds)

rehearse: $(INSTALLED)  ## the jobs of a workflow as a runner would, each in a clean clone: WORKFLOW=check|deliver|train [JOB=...]
	$(BIN)/python .ci/rehearse $(WORKFLOW) $(JOB)

clean:  ## everything that the local stack has stored
	rm -rf .ml_platform

images: $(IMAGES:%=image-%)  ## that an overlay needs: [OVERLAY=local ENGINE=docker|podman BASE_IMAGE=... REPOSITORY=... TAG=... TORCH_CPU_INDEX=... BUILD_OPTIONS=...]

image-%:  ## dagster, training, serving or backing
	$(ENGINE) build --file k8s/images/Dockerfile --target $* --tag $(REPOSITORY)/$*:$(TAG) \
	  --build-arg BASE_IMAGE=$(BASE_IMAGE) --build-arg TAG=$(TAG) --build-arg TORCH_CPU_INDEX=$(TORCH_CPU_INDEX) $(BUILD_OPTIONS) .

push-%:  ## with REGISTRY_TOKEN and USER_NAME, to log in before
	$(if $(USER_NAME),@echo "$$REGISTRY_TOKEN" | $(ENGINE) login --username $(USER_NAME) --password-stdin $(firstword $(subst /, ,$(REPOSITORY))))
	$(ENGINE) push $(REPOSITORY)/$*:$(TAG)

sign-%:  ## by cosign, once it is pushed: the image, and SBOM=<a CycloneDX file> as what is in it
	digest=$$($(ENGINE) image inspect --format '{{index .RepoDigests 0}}' $(REPOSITORY)/$*:$(TAG)) && \
	  cosign sign --yes "$$digest" && cosign attest --yes --type cyclonedx --predicate $(SBOM) "$$digest"

deploy:  ## onto the cluster of the present kubeconfig: OVERLAY=local|dev|prod [REPOSITORY=... TAG=...]
	k8s/deploy $(OVERLAY) $(REPOSITORY) $(TAG)
