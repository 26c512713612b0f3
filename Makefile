# Two commands do everything on a fresh machine with Python 3.11 or 3.12: `make demo` and `make test`.
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# PyTorch, NumPy: one thread a test process
TEST_ENV := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
# a process more than cores: tests wait for servers and commands a fifth of their time
TEST_PROCESSES := $(shell expr $$(nproc) + 1)
# the longest file first: by its one test xdist would begin it last, and one core would wait for it
LONGEST := tests/test_study.py
TESTS := $(LONGEST) $(filter-out $(LONGEST),$(wildcard tests/*/ tests/test_*.py))
# glibc returns large tensors to the kernel after each use, whose page faults would double the plain loop's time on a CPU
BENCH_ENV := MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=8589934592

BAKE = docker buildx bake -f images/docker-bake.hcl $(if $(filter host,$(BUILD_NETWORK)),--allow network.host) $(if $(PUSH),--push)
LOCK := uv pip compile -q pyproject.toml --generate-hashes --custom-compile-command "make lock"
IMAGE_LOCK := $(LOCK) --no-annotate -c requirements.lock

.DEFAULT_GOAL := help
.PHONY: help venv demo paper-small dashboard test test-gpu lint types unit audit e2e submit-final chart generate chaos bench continue fingerprints lock images test-images format clean

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

venv: $(VENV)/.ready ## set up .venv with everything in the lock, and the command .venv/bin/tailfill

# bytecode now, on all cores: else each of a study's processes compiles torch anew if PYTHONDONTWRITEBYTECODE is set, and two at once do in any case
$(VENV)/.ready: requirements.lock pyproject.toml
	@echo "setting up $(VENV) from requirements.lock (about 6 GB; a minute with a fast network)"
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 13) else f"tailfill needs Python 3.11 or 3.12, {sys.executable} is {sys.version.split()[0]}; use make PYTHON=/path/to/python3.11")'
	@command -v uv >/dev/null || { test -x build/uv/bin/uv || { $(PYTHON) -m venv build/uv && build/uv/bin/python -m pip install -q --disable-pip-version-check uv; }; }
	@export PATH="$$PATH:$(CURDIR)/build/uv/bin" VIRTUAL_ENV=$(CURDIR)/$(VENV); \
	  uv venv -q --clear --python $(PYTHON) $(VENV) && uv pip sync -q --compile-bytecode requirements.lock && uv pip install -q --no-deps -e .
	@touch $@ && echo "$(VENV) is ready"

demo: venv ## run the whole study on this machine: no GPU, no cluster, no download
	@exec $(BIN)/tailfill run studies/demo.yaml

paper-small: venv ## run all 14 rows of the paper in small, in about eight minutes
	@exec $(BIN)/tailfill run studies/paper-small.yaml

dashboard: venv ## show the study that was run last in Optuna's dashboard, until Ctrl-C (PORT=8080)
	@exec $(BIN)/tailfill dashboard --port $(or $(PORT),8080)

test: lint types unit ## run lint, types and every test that needs no cluster, GPU or Docker

lint: venv
	@echo "lint: ruff, import-linter"
	@$(BIN)/ruff format --check -q . && $(BIN)/ruff check -q . && PYTHONPATH=. $(BIN)/lint-imports --no-cache | tail -n 5

types: venv
	@echo "types: mypy, strict"
	@$(BIN)/mypy && $(BIN)/mypy -m helm.generate -m helm.study_reference

unit: venv
	@echo "tests"
	@$(TEST_ENV) $(BIN)/python -m pytest -q -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder -m "not cluster and not gpu and not images" $(TESTS)

test-gpu: venv ## run the tests that compute on a GPU, on this machine's
	@$(BIN)/python -m pytest -q -m gpu tests/shared

audit: venv ## look up known advisories on every locked package (needs the network)
	@$(BIN)/python -m tests.audit requirements.lock images/base/requirements.lock images/slim/requirements.lock images/control/requirements.lock images/control-mlflow/requirements.lock

chart: venv ## lint and render the chart with each Helm on PATH (helm, helm4, or HELM=, HELM4=); part of make test
	@command -v "$${HELM:-helm}" >/dev/null || command -v "$${HELM4:-helm4}" >/dev/null || { \
	  echo "no helm: get Helm 3.19 or later, or 4, from https://helm.sh/docs/intro/install, as helm on PATH, or say HELM=/path/to/helm"; exit 2; }
	@$(TEST_ENV) $(BIN)/python -m pytest -q tests/helm

generate: venv ## write all generated files: the chart's schema, stages and table of values, docs/study-file.md, the bake file, the import contract
	@$(BIN)/python -m helm.generate

e2e: venv ## run a small study on the cluster of KUBECONFIG, through all that a cluster does to Pods (REGISTRY, TAG; E2E=small: the shortest form)
	@$(BIN)/python -m pytest -q -x -m cluster tests/cluster/$(if $(E2E),test_$(E2E).py, --ignore tests/cluster/test_small.py)

submit-final: venv ## train with the best parameters so far, on the cluster (RELEASE=study, NAMESPACE, EXPERIMENT, SEEDS, PARAMS=best or FILE)
	@exec $(BIN)/tailfill submit final --release $(RELEASE) $(if $(NAMESPACE),--namespace $(NAMESPACE)) \
	  $(if $(EXPERIMENT),--experiment $(EXPERIMENT)) $(if $(SEEDS),--seeds $(SEEDS)) $(if $(PARAMS),--params $(PARAMS))

chaos: venv ## test the search while workers, coordinator and database are killed at random (ROUNDS=20)
	@$(TEST_ENV) ROUNDS=$(or $(ROUNDS),20) $(BIN)/python -m pytest -q tests/shared/search/test_chaos.py -k full

bench: venv ## measure what a trial costs beside a plain timm loop; DATA=FashionDataset, BENCH="more options" (benchmarks/README.md)
	@test -n "$(DATA)" || { echo "name the images: make bench DATA=DIR, as studies/deepfashion-lite.yaml has them"; exit 2; }
	@$(BENCH_ENV) $(BIN)/python -m benchmarks.trial studies/deepfashion-lite.yaml --set dataset.root=$(DATA) $(BENCH)

continue: venv ## begin the demo with an earlier commit, kill it, and continue with this one (FROM=e21fc39, OPTIONS="--set ...")
	@$(BIN)/python tests/continue_demo.py $(or $(FROM),e21fc39) $(OPTIONS)

fingerprints: venv ## record that changed stage code gives the same output (else raise the stage's version in shared/config/stages.py first)
	@$(BIN)/python -m shared.artifacts.fingerprint --write

lock: ## resolve pyproject.toml again into requirements.lock and the images' parts of it
	@$(LOCK) --all-extras -o requirements.lock
	@$(IMAGE_LOCK) $(patsubst %,--extra %,prepare weights classifier diffusion search samplers report demo) -o images/base/requirements.lock
	@$(IMAGE_LOCK) $(patsubst %,--extra %,prepare search samplers report) -o images/slim/requirements.lock
	@$(IMAGE_LOCK) $(patsubst %,--extra %,search cluster tensorboard) -o images/control/requirements.lock
	@$(IMAGE_LOCK) $(patsubst %,--extra %,search cluster trackers) -o images/control-mlflow/requirements.lock

images: ## build the images: base, slim, control and one per stage (TAG, REGISTRY, PYTHON_IMAGE and what images/docker-bake.hcl lists; PUSH=1)
	@docker buildx version >/dev/null || { echo "images are built by docker with buildx: https://docs.docker.com/engine/install"; exit 2; }
	@export VERSION="$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)" REVISION="$$(git rev-parse HEAD)"; \
	  for group in bases default; do $(BAKE) $$group || exit; done

test-images: venv ## start every image as a random user with a read-only root (after make images, with the same TAG and REGISTRY)
	@$(BIN)/python -m pytest -q -m images tests/images

include k8s/kind.mk

format: venv ## format the code, and fix what ruff can fix
	@$(BIN)/ruff format -q . && $(BIN)/ruff check -q --fix .

clean: ## remove what make made (not the studies' work/)
	@rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache .hypothesis
