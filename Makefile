# make demo  - the main job on simulated particles, in ./demo
# make test  - lint, types, import rules and the tests
# Each makes .venv when it is missing; a second call starts at once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint types completions clean

demo: $(READY)
	$(BIN)/cryobridge demo demo --overwrite

test: lint types $(READY)
	$(BIN)/python -m pytest -n 2

lint: $(READY)
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check .
	$(BIN)/lint-imports --no-cache >/dev/null || $(BIN)/lint-imports --no-cache

types: $(READY)
	$(BIN)/mypy

completions: $(READY)
	_CRYOBRIDGE_COMPLETE=source_bash $(BIN)/cryobridge > completions/cryobridge.bash
	_CRYOBRIDGE_COMPLETE=source_zsh $(BIN)/cryobridge > completions/_cryobridge
	_CRYOBRIDGE_COMPLETE=source_fish $(BIN)/cryobridge > completions/cryobridge.fish

# The marker is written last, so that an interrupted installation is done again.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) demo dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
