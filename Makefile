# make demo, make test, make lint: each sets up its own environment; VENV=path reuses one.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.eqzoo-installed

.PHONY: demo test lint clean

demo: $(STAMP)
	$(BIN)/python tools/demo.py $(DEMO)

test: $(STAMP)
	$(BIN)/python -m pytest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

$(STAMP): setup.cfg setup.py pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo 'Installing eqzoo and its dependencies into $(VENV) (torch is large; a few minutes) ...'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $(STAMP)

clean:
	rm -rf .venv work_dirs build dist *.egg-info
