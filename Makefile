# Two commands do their own set-up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
OUTPUT ?= runs/demo

.PHONY: setup demo test check docs clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup  ## train a small SimVPv2 on the sample, score it, draw the maps
	$(RUN) pipelines/weatherbench_t2m.py --output $(OUTPUT)

test: setup  ## the tests (not those marked slow)
	$(RUN) -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

check: setup  ## lint, format, types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

docs: setup  ## the documentation, in docs/_build/html; any warning is an error
	$(RUN) -m sphinx -W --keep-going -q -b html docs docs/_build/html

clean:
	rm -rf $(VENV) runs build dist docs/_build docs/notebooks .pytest_cache .mypy_cache .ruff_cache .hypothesis
