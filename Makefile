# Everything runs from .venv, which the first target that needs it makes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := $(VENV)/.run
DEV := $(VENV)/.dev
BENCH := $(VENV)/.bench

.PHONY: demo test fuzz lint format bench chaos clean

demo: $(RUN)  ## run the shipped digits grid and show its robustness table
	$(BIN)/robustsweep run digits --output outputs/demo
	$(BIN)/robustsweep table outputs/demo

# Three processes for two cores: one has tests that start Ray, and waits for it most of the time. They start hundreds,
# each of which would compile all modules again where Python may not keep them.
test: $(DEV)  ## run every test
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

fuzz: $(DEV)  ## 2,000 crafted and damaged files of each kind
	FUZZ_EXAMPLES=2000 $(BIN)/python -m pytest --numprocesses 2 --dist worksteal tests/test_fuzz.py tests/test_locked.py

lint: $(DEV)  ## formatting, linting, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(DEV)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(BENCH)  ## the benchmarks, one after another; each prints what it measured
	$(BIN)/python -m benchmarks

chaos: $(DEV)  ## sweeps under fire, some half an hour of them; writes docs/reliability.md
	$(BIN)/python -m benchmarks.chaos --write docs/reliability.md

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "robustsweep needs Python 3.11 or newer; name one with PYTHON=")'
	$(PYTHON) -m venv $(VENV)

$(RUN): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(BENCH): $(DEV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	touch $@

$(DEV): $(RUN)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
