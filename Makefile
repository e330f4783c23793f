# `make train` and `make test` are all that a fresh machine needs.
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin

.venv/installed: pyproject.toml constraints.txt
	@echo "installing into .venv, which takes minutes"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

.PHONY: help install train test test-fast lint audit format docs rename tensorboard clean
help:  ## show this help
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: .venv/installed  ## create .venv and install everything

train: .venv/installed  ## train the ConvNet on the digits
	$(BIN)/python train.py fit --config configs/convnet.yaml

test: .venv/installed  ## run all tests
	$(BIN)/python -m pytest -n auto --cov --cov-report=term

test-fast: .venv/installed  ## run the quick tests, under two minutes
	$(BIN)/python -m pytest -n auto -m 'not slow'

lint: .venv/installed  ## check style, types, layers and the Dockerfile
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile

audit: .venv/installed  ## look for known vulnerabilities of the packages
	$(BIN)/python scripts/audit.py

format: .venv/installed  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/installed  ## build the site of docs/ into site/; a broken link is an error
	$(BIN)/zensical build --strict
	@(printf 'var __index = '; cat site/search.json) > site/search.js  # what a page read from the disk searches in

rename: .venv/installed  ## give the package your own name: make rename NAME=my_birds
	$(BIN)/python scripts/rename.py '$(NAME)'
	$(BIN)/ruff check --quiet --select I --fix .
	$(BIN)/ruff format --quiet .
	$(BIN)/pip uninstall --quiet --yes project

tensorboard: .venv/installed  ## look at the curves of all runs
	$(BIN)/python -m tensorboard.main --logdir logs

clean:  ## remove the virtual environment, caches and generated data; runs stay
	rm -rf .venv site .cache .mypy_cache .pytest_cache .ruff_cache .import_linter_cache src/*.egg-info
	rm -rf data/digits data/cifar10 data/index data/packed  # what is not ours stays
