# `make demo` and `make test` install everything they need into .venv.
PYTHON ?= python3
TORCH ?= torch==2.13.0
# Number of parallel test processes. Tests start several threads each, so idle threads sleep.
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
NATIVE := $(wildcard csrc/*/*.cpp csrc/*/*/*.cpp csrc/*/*.h csrc/*/*/*.h csrc/*/*.cu)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help build dev demo test test-slow test-scatter sanitize emulate gpu gpu-build gpu-test gpu-check gpu-bench gpu-pack fuzz fuzz-guided kill simulate lint docs benchmark wheel clean

help:
	@echo "make demo       install into $(VENV) and complete the periodic table, in a few minutes"
	@echo "make test       install into $(VENV) and run linters and tests"
	@echo "make test-slow  run the slow tests"
	@echo "make sanitize   test the ops with sanitizers in the native library; needs GCC"
	@echo "make emulate    test the CUDA kernels, emulated on the CPU; needs GCC"
	@echo "make gpu        on a machine with a GPU: build in place, test, check memory, benchmark"
	@echo "make gpu-pack   put wheels and prepared graphs for an offline GPU machine into .gpu"
	@echo "make test-scatter  build torch-scatter (a few minutes) and test the R-GCN reference with it"
	@echo "make fuzz       give INPUTS=20000 inputs of SEED=0 to all readers; check for crashes, hangs"
	@echo "make fuzz-guided  install atheris and fuzz every reader for SECONDS=60 each"
	@echo "make kill       kill every command that writes KILLS=100 times at random; check for losses"
	@echo "make simulate   SEEDS=1000 power cuts and failing calls by seed; check for losses"
	@echo "make build      install into $(VENV), with the native library if there is a compiler"
	@echo "make docs       write docs/cli.md and docs/settings.md from the code"
	@echo "make benchmark  compare native ops with references and peers; needs GRAPH=a prepared FB15K-237"
	@echo "make wheel      build a wheel in dist/, with the native library if there is a compiler"
	@echo "make clean      remove $(VENV) and everything built"

$(VENV)/.torch:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo \
		"make: $(PYTHON) is not Python 3.11 or newer; run for example: make PYTHON=python3.12" >&2; exit 1; }
	@echo "creating $(VENV) and installing $(TORCH) (once; a minute or two)"
	@$(PYTHON) -m venv $(VENV) || { echo \
		"make: cannot create a virtual environment; install the venv module of $(PYTHON)" >&2; exit 1; }
	@$(PIP) install "$(TORCH)" "setuptools>=77" wheel "pybind11>=2.13" ninja numpy || { echo \
		"make: cannot install $(TORCH); see the message of pip above" >&2; exit 1; }
	@touch $@

$(VENV)/.built: $(VENV)/.torch pyproject.toml setup.py $(NATIVE)
	@echo "installing mmkgc and building its native library"
	@$(PIP) install --no-build-isolation -e . || { echo \
		"make: cannot install mmkgc; see the message of pip above" >&2; exit 1; }
	@$(BIN)/mmkgc doctor | grep '^native library'
	@touch $@

$(VENV)/.dev: $(VENV)/.built pyproject.toml
	@echo "installing the test dependencies"
	@$(PIP) install --no-build-isolation -e '.[dev]' || { echo \
		"make: cannot install the test dependencies; see the message of pip above" >&2; exit 1; }
	@touch $@

build: $(VENV)/.built

dev: $(VENV)/.dev

demo: build
	@echo "1/6 prepare the built-in graph, the periodic table"
	@$(BIN)/mmkgc prepare elements --out demo/elements --overwrite
	@echo "2/6 extract vectors of the pictures of 103 of 641 entities"
	@$(BIN)/mmkgc extract image --graph demo/elements --overwrite --encoder colour-grid \
		--input demo/elements/modalities/image.tsv
	@echo "3/6 hide 40 % of the vectors, complete all missing vectors and measure the hidden ones"
	@$(BIN)/mmkgc complete image --graph demo/elements --strategy all --missing-rate 0.4 --overwrite
	@echo "4/6 train and evaluate a frequency baseline and RotatE, both without pictures"
	@$(BIN)/mmkgc train frequency --graph demo/elements --run demo/frequency --overwrite
	@$(BIN)/mmkgc eval demo/frequency
	@$(BIN)/mmkgc train rotate --graph demo/elements --run demo/rotate --overwrite \
		--config recipes/rotate-elements.toml
	@$(BIN)/mmkgc eval demo/rotate
	@echo "5/6 train and evaluate IKRL with random and with completed vectors, three seeds each"
	@rm -rf demo/batch
	@$(BIN)/mmkgc batch recipes/demo.toml --out demo/batch --jobs 2 > demo/batch.txt
	@echo "6/6 gain of completed over random vectors"
	@$(BIN)/mmkgc batch results demo/batch --against random
	@echo "done: all files are in demo/; ranks per triple are in demo/rotate/ranks-test.tsv"

lint: dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

test: lint
	@OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not slow and not cuda"

test-slow: dev
	@$(BIN)/python -m pytest -m slow

test-scatter: dev
	@$(PIP) install --no-build-isolation -e '.[scatter]'
	@$(BIN)/python -c 'import torch_scatter'
	@$(BIN)/python -m pytest tests/ops/test_rgcn_propagate.py tests/nn/test_rgcn.py

# A separate build with sanitizers. PYTHONSAFEPATH makes Python import it instead of the checkout.
# The first report of a sanitizer ends the run; --capture=sys shows it.
SANITIZED := build/sanitize
GXX ?= g++
sanitize: dev
	@echo "building the native library with sanitizers in $(SANITIZED)"
	@rm -rf $(SANITIZED)/lib && mkdir -p $(SANITIZED)
	@CXX=$(GXX) MMKGC_SANITIZE=1 $(BIN)/python setup.py -q build --build-base $(SANITIZED) \
		--build-lib $(SANITIZED)/lib > $(SANITIZED)/log 2>&1; \
		ls $(SANITIZED)/lib/mmkgc_cli/_C.* > /dev/null || { cat $(SANITIZED)/log; exit 1; }
	@MMKGC_SANITIZE=1 PYTHONSAFEPATH=1 PYTHONPATH=$(CURDIR)/$(SANITIZED)/lib \
		ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=halt_on_error=1:abort_on_error=1 \
		LD_PRELOAD="$$($(GXX) -print-file-name=libasan.so) $$($(GXX) -print-file-name=libstdc++.so)" \
		$(BIN)/python -m pytest --capture=sys tests/ops

# A separate build with CUDA kernels instead of CPU kernels; fibers emulate CUDA threads.
EMULATED := build/emulate
emulate: dev
	@echo "building the CUDA kernels for the CPU in $(EMULATED)"
	@rm -rf $(EMULATED)/lib && mkdir -p $(EMULATED)
	@CXX=$(GXX) MMKGC_EMULATE=1 $(BIN)/python setup.py -q build --build-base $(EMULATED) \
		--build-lib $(EMULATED)/lib > $(EMULATED)/log 2>&1; \
		ls $(EMULATED)/lib/mmkgc_cli/_C.* > /dev/null || { cat $(EMULATED)/log; exit 1; }
	@MMKGC_EMULATE=1 PYTHONSAFEPATH=1 PYTHONPATH=$(CURDIR)/$(EMULATED)/lib \
		$(BIN)/python -m pytest tests/ops tests/scoring tests/training

# Uses the system's Python and torch, and the wheels in .gpu; needs no network.
GPU := .gpu
OUT ?= $(GPU)/out
GPU_ENV := MMKGC_GPU=1 PYTHONPATH=$(CURDIR)/$(GPU)/site PYTHONUNBUFFERED=1
ON_GPU := $(GPU_ENV) $(PYTHON)
SANITIZER := $(shell command -v compute-sanitizer)
# Checks only our kernels, and not the API calls by which torch probes the driver.
ONLY_OURS = --report-api-errors no $(shell $(SANITIZER) --help 2>&1 | \
	grep -q -e --kernel-regex && echo --kernel-regex kns=mmkgc)
gpu: gpu-build gpu-test gpu-check gpu-bench

gpu-build:
	@mkdir -p $(OUT) $(GPU)/site
	@ln -sfn $(CURDIR)/scorers $(GPU)/site/mmkgc_scorers  # as an installation does
	@! ls $(GPU)/wheels/*.whl > /dev/null 2>&1 || $(PYTHON) -m pip install -q --no-index --no-deps \
		--no-compile --upgrade --target $(GPU)/site $(GPU)/wheels/*.whl
	@echo "building in place"
	@$(ON_GPU) setup.py -q build_ext --inplace > $(OUT)/build.log 2>&1; \
		ls mmkgc_cli/_C.* > /dev/null || { cat $(OUT)/build.log; exit 1; }

gpu-test:
	@$(ON_GPU) -m pytest -p no:cacheprovider -m cuda tests/ops tests/runs/test_cuda.py tests/training/test_precision.py

gpu-check:
	@test -n "$(SANITIZER)" || echo "make: compute-sanitizer is not on the PATH; memory is NOT checked"
	@for tool in $(if $(SANITIZER),memcheck racecheck synccheck); do \
		$(GPU_ENV) PYTORCH_NO_CUDA_MEMORY_CACHING=1 $(SANITIZER) --tool $$tool $(ONLY_OURS) \
		--error-exitcode 9 --print-limit 5 $(PYTHON) -m pytest -q -p no:cacheprovider -k runs_once \
		tests/ops/test_cuda.py || exit 1; done

gpu-bench:
	@mkdir -p $(OUT)
	@$(ON_GPU) -m benchmarks.gpu --out $(OUT)/gpu.json \
		$(if $(wildcard $(GPU)/graphs/fb15k-237/graph.h5),--graph $(GPU)/graphs/fb15k-237)

# Wheels for Python 3.12, and graphs prepared from DATA (sources are in datasets.toml).
PACKED := pydantic platformdirs pooch tomli-w
DATA ?= ../shared/data
gpu-pack: build
	@rm -rf $(GPU)/wheels && mkdir -p $(GPU)/wheels $(GPU)/graphs
	@$(PIP) download -d $(GPU)/wheels --only-binary=:all: --python-version 3.12 \
		--platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 \
		--platform manylinux2014_x86_64 $(PACKED)
	@$(BIN)/mmkgc prepare fb15k-237 --source $(DATA)/FB15K-237 --out $(GPU)/graphs/fb15k-237 --overwrite
	@$(BIN)/mmkgc prepare mkg-w --source $(DATA)/MKG-W --out $(GPU)/graphs/mkg-w --overwrite
	@$(BIN)/mmkgc prepare elements --out $(GPU)/graphs/elements --overwrite
	@du -sh $(GPU)/wheels $(GPU)/graphs

INPUTS ?= 20000
fuzz: dev
	@$(BIN)/python -m tests.fuzz.run --inputs $(INPUTS) --seed $(SEED) --jobs $(JOBS)

SECONDS ?= 60
FUZZ ?= $(shell $(BIN)/python -c 'from tests.fuzz.targets import TARGETS; print(*TARGETS)')
fuzz-guided: dev
	@$(PIP) install "atheris>=3"
	@for target in $(FUZZ); do echo "fuzzing $$target for $(SECONDS) s"; \
		$(BIN)/python -m tests.fuzz.guided $$target $(SECONDS) || exit 1; done

SEEDS ?= 1000
simulate: dev
	@$(BIN)/python -m tests.simulation.run --seeds $(SEEDS) --start $(SEED) --jobs $(JOBS) \
		$(if $(REPORT),--report $(REPORT))

KILLS ?= 100
SEED ?= 0
REPORT ?=
kill: dev
	@$(BIN)/python -m tests.kill.run --kills $(KILLS) --seed $(SEED) --jobs $(JOBS) \
		$(if $(REPORT),--report $(REPORT))

docs: dev
	@$(BIN)/python -m typer mmkgc_cli.app utils docs --name mmkgc --output docs/cli.md
	@$(BIN)/python -m docs.generate_settings

benchmark: dev
	@test -n "$(GRAPH)" || { echo \
		"make: GRAPH is missing; run for example: make benchmark GRAPH=graphs/fb15k-237" >&2; exit 1; }
	@$(BIN)/python -m benchmarks.ranking --graph "$(GRAPH)"
	@$(BIN)/python -m benchmarks.scoring
	@$(BIN)/python -m benchmarks.negatives --graph "$(GRAPH)"
	@$(BIN)/python -m benchmarks.rgcn --graph "$(GRAPH)"
	@$(BIN)/python -m benchmarks.losses
	@$(BIN)/python -m benchmarks.maco --graph "$(GRAPH)"

wheel: build
	@rm -rf build/lib*  # else deleted modules would be packed
	@$(PIP) wheel --no-build-isolation --no-deps -w dist .

clean:
	rm -rf $(VENV) $(GPU) build dist demo *.egg-info mmkgc_cli/_C.*.so mmkgc_cli/_native_build.json
