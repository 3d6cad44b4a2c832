# make demo    - the main job on simulated particles, in ./demo
# make test    - lint, types, import rules and the tests
# make fuzz    - changed files for every reader, INPUTS of them each; then KILLS of commands and ERRORS of the system in
#                them; writes its figures into docs/reliability.md
# make interop - our files through RECOVAR, cryoDRGN, RELION and packages for methods themselves (ONLY=python, ONLY=relion,
#                ONLY=adaptors: a part of them); installs RELION where apt and the rights for it are there; writes
#                docs/interop.md
# make cluster - jobs of a real SLURM, on two nodes that it starts here for as long as it runs; installs SLURM where apt
#                and the rights for it are there; writes its part of docs/interop.md
# make docs    - the documentation as a web site, in docs/_build/html; its examples are made by real runs
# make bench   - every benchmark; writes docs/performance.md (QUICK=1: small sizes; ONLY='stacks gpu': only what is of these)
# Each makes .venv when it is missing; a second call starts at once. RECOVAR needs Python 3.11 or later.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
INPUTS ?= 10000
KILLS ?= 1000
ERRORS ?= 800
PROGRAMS := .interop/venv
PACKAGES := .interop/adaptors

.PHONY: demo test fuzz interop cluster docs bench lint types completions clean

demo: $(READY)
	$(BIN)/cryobridge demo demo --overwrite

# More workers than a small machine has cores: many tests wait for other programs. What is compiled is kept, also where
# Python is not to: each command that a test starts would compile it once more.
test: lint types $(READY)
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

interop: $(READY) $(if $(filter relion,$(ONLY)),,$(PROGRAMS)/.ready) \
		$(if $(filter relion python,$(ONLY)),,$(PACKAGES)/.ready)
	$(if $(filter python,$(ONLY)),,$(BIN)/python -m interop.install relion)
	$(BIN)/python -m interop --programs $(PROGRAMS)/bin --packages $(PACKAGES)/bin --work .interop/run --report docs/interop.md $(addprefix --only ,$(ONLY))

cluster: $(READY)
	$(BIN)/python -m interop.install slurm
	$(BIN)/python -m interop --only slurm --work .interop/slurm --report docs/interop.md

# Guided by coverage where atheris has a wheel for this Python, by chance elsewhere.
fuzz: $(READY)
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check 'atheris>=3'
	PYTHONPATH=tests nice -n 19 $(BIN)/python -m fuzz --write --inputs $(INPUTS)
	PYTHONPATH=tests nice -n 19 $(BIN)/python -m fuzz.processes --write --kills $(KILLS) --errors $(ERRORS)

docs: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	$(BIN)/python docs/make_examples.py --check
	$(BIN)/sphinx-build --quiet -W --keep-going -b html docs docs/_build/html

bench: $(READY)
	$(BIN)/python benchmarks/run_all.py $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY))

lint: $(READY)
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check .
	$(BIN)/lint-imports --no-cache >/dev/null || $(BIN)/lint-imports --no-cache

types: $(READY)
	$(BIN)/mypy

completions: $(READY)
	$(BIN)/python completions/generate.py

# The marker is written last, so that an interrupted installation is done again.
$(READY): pyproject.toml constraints.txt
	@echo 'Installing into $(VENV): torch is large, which can take minutes the first time.'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

$(PROGRAMS)/.ready: $(addprefix interop/,requirements.txt cryodrgn.txt constraints.txt)
	$(PYTHON) -m venv $(PROGRAMS)
	$(PROGRAMS)/bin/python -m pip install --quiet --disable-pip-version-check \
		-c interop/constraints.txt -r interop/requirements.txt
	$(PROGRAMS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r interop/cryodrgn.txt
	@touch $@

$(PACKAGES)/.ready: pyproject.toml $(addprefix interop/,adaptors.txt adaptors_constraints.txt)
	$(PYTHON) -m venv $(PACKAGES)
	$(PACKAGES)/bin/python -m pip install --quiet --disable-pip-version-check \
		-c interop/adaptors_constraints.txt -r interop/adaptors.txt -e .
	@touch $@

clean:
	rm -rf $(VENV) .interop dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
