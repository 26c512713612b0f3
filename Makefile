# Two commands do everything on a fresh machine with Python 3.11: `make demo` and `make test`.
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# PyTorch, NumPy: one thread a test process, as many processes as cores
TEST_ENV := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
# the longest file first: by its one test xdist would begin it last, and one core would wait for it
LONGEST := tests/test_study.py
TESTS := $(LONGEST) $(filter-out $(LONGEST),$(wildcard tests/*/ tests/test_*.py))
# glibc returns large tensors to the kernel after each use, whose page faults would double the plain loop's time on a CPU
BENCH_ENV := MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=8589934592

.DEFAULT_GOAL := help
.PHONY: help venv demo dashboard test lint types unit chaos bench fingerprints lock format clean

help: ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

venv: $(VENV)/.ready ## .venv with everything in the lock, and the command .venv/bin/tailfill

$(VENV)/.ready: requirements.lock pyproject.toml
	@echo "setting up $(VENV) from requirements.lock (about 6 GB; a minute with a fast network)"
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 13) else f"tailfill needs Python 3.11 or 3.12, {sys.executable} is {sys.version.split()[0]}; use make PYTHON=/path/to/python3.11")'
	@command -v uv >/dev/null || { test -x build/uv/bin/uv || { $(PYTHON) -m venv build/uv && build/uv/bin/python -m pip install -q --disable-pip-version-check uv; }; }
	@export PATH="$$PATH:$(CURDIR)/build/uv/bin" VIRTUAL_ENV=$(CURDIR)/$(VENV); \
	  uv venv -q --clear --python $(PYTHON) $(VENV) && uv pip sync -q requirements.lock && uv pip install -q --no-deps -e .
	@touch $@ && echo "$(VENV) is ready"

demo: venv ## the whole study on this machine: no GPU, no cluster, no download
	@exec $(BIN)/tailfill run studies/demo.yaml

dashboard: venv ## Optuna's dashboard on the study that was run last, until Ctrl-C (PORT=8080)
	@exec $(BIN)/tailfill dashboard --port $(or $(PORT),8080)

test: lint types unit ## lint, types and every test that needs no cluster

lint: venv
	@echo "lint: ruff, import-linter"
	@$(BIN)/ruff format --check -q . && $(BIN)/ruff check -q . && PYTHONPATH=. $(BIN)/lint-imports --no-cache | tail -n 5

types: venv
	@echo "types: mypy, strict"
	@$(BIN)/mypy

unit: venv
	@echo "tests"
	@$(TEST_ENV) $(BIN)/python -m pytest -q -n auto --dist loadfile --no-loadscope-reorder -m "not cluster and not gpu" $(TESTS)

chaos: venv ## the search under fire: workers, coordinator and database killed at random (ROUNDS=20)
	@$(TEST_ENV) ROUNDS=$(or $(ROUNDS),20) $(BIN)/python -m pytest -q tests/shared/search/test_chaos.py -k full

bench: venv ## what a trial costs beside a plain timm loop; DATA=FashionDataset, BENCH="more options" (benchmarks/README.md)
	@test -n "$(DATA)" || { echo "name the images: make bench DATA=DIR, as studies/deepfashion-lite.yaml has them"; exit 2; }
	@$(BENCH_ENV) $(BIN)/python -m benchmarks.trial studies/deepfashion-lite.yaml --set dataset.root=$(DATA) $(BENCH)

fingerprints: venv ## say that changed stage code gives the same output (else raise the stage's VERSION first)
	@$(BIN)/python -m shared.artifacts.fingerprint --write

lock: ## resolve pyproject.toml anew into requirements.lock
	@uv pip compile -q pyproject.toml --all-extras -o requirements.lock

format: venv ## format and mend what ruff can mend
	@$(BIN)/ruff format -q . && $(BIN)/ruff check -q --fix .

clean: ## remove what make made (not the studies' work/)
	@rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache .hypothesis
