# make demo, make test, make lint, make docs: each sets up its own environment; VENV=path reuses one.
# WORKERS is how many processes test at once, of about 2 GB each.
PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
BIN := $(VENV)/bin
STAMP := $(VENV)/.eqzoo-installed

.PHONY: demo test lint docs clean

demo: $(STAMP)
	$(BIN)/python tools/demo.py $(DEMO)

test: $(STAMP)
	@# a thread each: with more, processes wait for one another
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

$(STAMP): setup.cfg setup.py pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo 'Installing eqzoo and its dependencies into $(VENV) (torch is large; a few minutes) ...'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,docs]'
	@touch $(STAMP)

clean:
	rm -rf .venv work_dirs build dist site *.egg-info
