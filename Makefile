# `make train` and `make test` install what they need into .venv.
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
# uv, where it is installed, is faster than pip.
UV := $(shell command -v uv)
INSTALL = $(if $(UV),$(UV) pip install --quiet --python $(BIN)/python,$(BIN)/pip install --quiet) --constraint constraints.txt

.venv/train: pyproject.toml constraints.txt
	@echo "installing the packages for training into .venv"
	$(if $(UV),$(UV) venv --quiet --allow-existing --seed --python $(PYTHON) .venv,$(PYTHON) -m venv .venv)
	$(INSTALL) --editable .
	touch $@

.venv/dev: .venv/train
	@echo "installing all optional packages and the test tools into .venv"
	$(INSTALL) --editable '.[dev]'
	touch $@

.PHONY: help install train test coverage test-fast lint audit format docs rename tensorboard clean
help:  ## show this help
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: .venv/dev  ## create .venv and install everything

train: .venv/train  ## train the ConvNet on the digits
	$(BIN)/python train.py fit --config configs/convnet.yaml

test: .venv/dev  ## run all tests
	$(BIN)/python -m pytest -n auto --dist worksteal

coverage: .venv/dev  ## run all tests and measure their coverage, which takes longer
	$(BIN)/python -m pytest -n auto --dist worksteal --cov --cov-report=term

test-fast: .venv/dev  ## run the quick tests, under two minutes
	$(BIN)/python -m pytest -n auto --dist worksteal -m 'not slow'

lint: .venv/dev  ## check style, types, layers and the Dockerfile
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile

audit: .venv/dev  ## check the packages for known vulnerabilities
	$(BIN)/python scripts/audit.py

format: .venv/dev  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/dev  ## build the site of docs/ into site/; a broken link is an error
	$(BIN)/zensical build --strict
	@(printf 'var __index = '; cat site/search.json) > site/search.js  # search index for pages opened from disk

rename: .venv/dev  ## rename the package, without some: make rename NAME=my_birds WITHOUT='serve privacy'
	$(BIN)/python scripts/rename.py '$(NAME)' $(WITHOUT)
	$(BIN)/ruff check --quiet --select I --fix .
	$(BIN)/ruff format --quiet .
	$(if $(UV),$(UV) pip uninstall --quiet --python $(BIN)/python project,$(BIN)/pip uninstall --quiet --yes project)

tensorboard: .venv/train  ## show the curves of all runs
	$(BIN)/python -m tensorboard.main --logdir logs

clean:  ## remove the virtual environment, caches and generated data; runs stay
	rm -rf .venv site .cache .mypy_cache .pytest_cache .ruff_cache .import_linter_cache src/*.egg-info
	rm -rf data/digits data/cifar10 data/index data/packed  # the user's own files in data/ stay
