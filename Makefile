# `make demo` and `make test` need Python 3.11 or newer and pip, nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
.DEFAULT_GOAL := help

.PHONY: help demo test lint types unit coverage reference base-test clean

help:
	@echo "make demo       create $(VENV), install everything, run the main job: mexit run"
	@echo "make test       create $(VENV), install what tests need, run lint, types and tests"
	@echo "make coverage   the tests once more, with the share of lines and branches that they run"
	@echo "make reference  train the reference bundle with the default settings (tflite_models/reference.mexit)"
	@echo "make clean      remove $(VENV) and everything that tools leave behind"

# The stamp is newer than pyproject.toml only when the installation went through.
$(VENV)/installed: pyproject.toml setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --quiet --editable ".[all,dev]"
	touch $@

# A second environment with the base install alone: no TensorFlow.
$(VENV)-base/installed: pyproject.toml setup.py
	$(PYTHON) -m venv $(VENV)-base
	$(VENV)-base/bin/python -m pip install --quiet --quiet --upgrade pip
	$(VENV)-base/bin/python -m pip install --quiet --quiet --editable .
	touch $@

demo: $(VENV)/installed
	$(BIN)/mexit run

test: lint types unit base-test

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/installed
	$(BIN)/mypy

unit: $(VENV)/installed
	$(BIN)/pytest --numprocesses 2 --dist worksteal

# Apart from `make test`: tracing every line takes up to a third more time.
coverage: $(VENV)/installed
	$(BIN)/pytest --numprocesses 2 --dist worksteal --cov --cov-report=term

base-test: $(VENV)-base/installed
	$(VENV)-base/bin/python examples/device_loop.py

reference: $(VENV)/installed
	$(BIN)/mexit run --out tflite_models/reference.mexit --overwrite

clean:
	rm -rf $(VENV) $(VENV)-base build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
