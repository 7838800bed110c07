# make setup   a virtual environment with everything in it
# make demo    three experiments on real images, two processes (one on one GPU), a few minutes; goes on after Ctrl-C
# make test    lint, types and all tests but those under Slurm
# make studies  the miniatures of all experiments, ten minutes or so
# make docs    the documentation as a site, in site/
# make docs-tables  writes the parts of README and docs/ that are generated, and docs/command-line.md
# make wheel   dist/resbench-*.whl, which brings the command resbench
# make faults  100 faults into real sweeps, a quarter of an hour; writes tests/FAULTS.md
# make test-gpu  what this machine's GPU shows, in under ten minutes; writes tests/GPU.md, and fails without a GPU
# make test-oldest  the oldest versions of everything that pyproject.toml allows, in an environment of their own (8 GB)
# make test-slurm  the tests under a real Slurm, which root gets installed first where it is not (Debian, Ubuntu)

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
OLDEST ?= .cache/oldest
DEMO := runs/demo
RUN := $(BIN)/python -m launch run

.PHONY: setup demo test studies docs docs-tables wheel faults test-gpu test-oldest test-slurm lint format clean

setup: $(STAMP)

# Where Python has its own torch (a Jetson's comes from NVIDIA), that one is used and kept at its version.
$(STAMP): pyproject.toml setup.py
	@$(PYTHON) -c 'import sys; sys.exit("error: %s is Python %d.%d; resbench needs 3.10 or newer: make PYTHON=..." \
		% (sys.executable, *sys.version_info[:2])) if sys.version_info < (3, 10) else 0'
	@if [ -L $(VENV) ]; then echo 'error: $(VENV) is a link, and set-up would empty what it leads to' >&2; exit 2; fi
	@if $(PYTHON) -c 'import torch' 2>/dev/null; then \
		$(PYTHON) -m venv --clear --system-site-packages $(VENV); \
		$(BIN)/python -c 'import importlib.metadata as m; [print(f"{d}=={m.version(d)}") for d in \
			{d.metadata["Name"] for d in m.distributions()} & {"torch", "torchvision"}]' > $(VENV)/constraints.txt; \
	else \
		$(PYTHON) -m venv --clear $(VENV); : > $(VENV)/constraints.txt; \
	fi
	$(BIN)/python -m pip install --quiet --constraint $(VENV)/constraints.txt --editable '.[dev]'
	@touch $@

demo: setup
	@$(BIN)/python -m launch demo --out $(DEMO)

# Four test processes, also on two cores, because tests wait for processes of their own more than they compute.
# tests/perf runs last and alone, because it times our code. Files run in the order of tests/conftest.py: sorted by their
# number of tests, which is xdist's way, the files with the longest tests would come last. A waiting OpenMP thread sleeps
# (PASSIVE), because it would otherwise spin on the core that the other worker needs.
test: lint
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -q -n 4 --dist loadfile --no-loadscope-reorder \
		--ignore tests/perf
	$(BIN)/python -m pytest -q tests/perf

# The miniature of every experiment, all arms.
studies: setup
	rm -rf runs/studies
	$(RUN) --preset mini --out runs/studies

# The variable keeps a notice of the theme's makers about its successor out of the output.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

docs-tables: setup
	$(BIN)/python -m tests.docs_tables

wheel: setup
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

faults: setup
	$(BIN)/python -m tests.campaign --faults 100 --seed 0 --out tests/FAULTS.md

# One check after the other, each in a process of its own. `make test` runs them on the stand-in.
test-gpu: setup
	$(BIN)/python -m tests.gpu

test-oldest: $(OLDEST)/.installed
	OMP_WAIT_POLICY=PASSIVE $(OLDEST)/bin/python -m pytest -q -p no:cacheprovider -n 4 \
		--dist loadfile --no-loadscope-reorder $$($(OLDEST)/bin/python -m tests.oldest tests)

# What prints the constraints needs packaging; setuptools comes first, because it builds at its oldest, too.
$(OLDEST)/.installed: pyproject.toml tests/oldest.py
	$(PYTHON) -m venv --clear $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet packaging wheel 'tomli; python_version < "3.11"'
	$(OLDEST)/bin/python -m tests.oldest constraints > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/python -m pip install --quiet --constraint $(OLDEST)/constraints.txt setuptools
	$(OLDEST)/bin/python -m pip install --quiet --constraint $(OLDEST)/constraints.txt --no-build-isolation \
		--editable '.[dev,perf]'
	@touch $@

# As root, or where sudo asks nothing. Without Slurm its tests say that they are skipped, and why.
test-slurm: setup
	@if ! command -v sbatch >/dev/null && command -v apt-get >/dev/null; then \
		if [ "$$(id -u)" = 0 ]; then root=; else root='sudo -n'; fi; \
		$$root apt-get update -qq && $$root env DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes \
			slurm-wlm munge iproute2 || echo 'Slurm could not be installed' >&2; \
	fi
	$(BIN)/python -m pytest -q -rs -m slurm tests/launch/cluster/test_slurm.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(OLDEST) runs site .mypy_cache .pytest_cache .ruff_cache *.egg-info
