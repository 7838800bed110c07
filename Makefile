# make setup   a virtual environment with everything in it
# make demo    all three experiments on real images, two processes, a few minutes
# make test    lint, types and all tests

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO := runs/demo
# The largest demo model is untrained, which needs no download: its times and memory are real, its accuracy is chance.
RANDOM152 := --weights none --data digits --image-size 32 --limit-train 512 --limit-eval 128 --epochs 1 \
	--micro-batch 16 --processes 2 --precision bf16 --no-checkpoint --out $(DEMO)

.PHONY: setup demo test lint format readme perf clean

setup: $(STAMP)

# Where Python has its own torch (a Jetson's comes from NVIDIA), that one is used and kept at its version.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("error: %s is Python %d.%d; resbench needs 3.10 or newer: make PYTHON=..." \
		% (sys.executable, *sys.version_info[:2])) if sys.version_info < (3, 10) else 0'
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
	rm -rf $(DEMO)
	$(BIN)/python -m launch run resnet20_accumulation --arm 16x8,64x2,128x1 --data digits --epochs 12 \
		--processes 2 --precision bf16 --out $(DEMO) --quiet
	$(BIN)/python -m launch run resnet152_frozen $(RANDOM152) --quiet
	$(BIN)/python -m launch run resnet152_noskip $(RANDOM152)

test: lint
	$(BIN)/python -m pytest -q

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) runs .mypy_cache .pytest_cache .ruff_cache *.egg-info
