# Each target does all its own set-up: a Python >= 3.11 with venv and a C++ compiler suffice. `make help` lists the targets.
VENV ?= .venv
# The first Python that is new enough and can make environments and extensions; PYTHON=... chooses another.
PYTHON ?= $(firstword $(foreach name,python3 python3.12 python3.11 python3.13,$(shell $(name) -c $(CAPABLE) >/dev/null 2>&1 && echo $(name))))
CAPABLE := 'import os, sys, sysconfig, venv, ensurepip; \
	sys.exit(sys.version_info < (3, 11) or not os.path.exists(sysconfig.get_path("include") + "/Python.h"))'
# An index that has PyTorch's CPU wheels (pytorch.org, "Start locally", names it). Without it pip takes what its own configuration finds;
# from the default index on Linux that is the build with CUDA, which works and is a large download.
TORCH_INDEX ?=
ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check --no-input
INSTALL := $(PIP) install --quiet --constraint constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
CSRC := $(shell find csrc -name '*.cpp' -o -name '*.h' -o -name '*.inc')
READY := $(VENV)/ready
NATIVE := $(MAKE) --no-print-directory -j$(shell getconf _NPROCESSORS_ONLN) -f tests/native/native.mk
# libFuzzer comes with clang; without one tests/native/fuzz_main.cpp drives the same entry points.
FUZZ_CXX ?= $(firstword $(foreach name,clang++ clang++-19 clang++-17 clang++-16 clang++-14,$(shell command -v $(name))) $(CXX))
SECONDS ?= 60

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test lint cuda bench micro sanitize tsan suite emulated fuzz clean distclean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20
	@echo 'Settings: PYTHON, VENV, TORCH_INDEX (index with CPU builds of torch), ARGS (more arguments for demo, bench, fuzz and the tests), SECONDS (of fuzz).'

setup: $(READY) ## the environment in .venv, with cosparse installed in place

demo: $(READY) ## trains, compresses, exports, runs and times a small network; no download of data
	$(BIN)/cosparse demo $(ARGS)

# Files go out by name: xdist would begin with those of many tests, and a long file of few would come last, beside an idle core.
# Bytecode is kept whatever the environment says: each worker, and each program that a test starts, would compile everything anew.
test: lint ## lint, then all tests
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n auto --maxprocesses=8 --dist loadfile --no-loadscope-reorder $(ARGS)

# mypy does not follow the folder mapping of an editable install: a tree of links shows it the package as it is imported.
# The links are new each time, which confuses its cache, so it gets none.
lint: $(READY) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@rm -rf build/types && mkdir -p build/types/cosparse
	@ln -s $(addprefix $(CURDIR)/,$(filter-out %__pycache__,$(wildcard cosparse/*)) engine kernels compress bench) build/types/cosparse/
	MYPYPATH=build/types $(BIN)/mypy --cache-dir=/dev/null

cuda: $(READY) ## the CUDA kernels, for GPUs (needs nvcc; without them the Triton kernels serve alone)
	$(BIN)/python -m cosparse.kernels.gpu.build

bench: $(READY) ## ResNet-56 at 60 % fewer operations against torch and ONNX Runtime, one image at a time
	@mkdir -p out
	$(BIN)/cosparse export zoo:resnet56 --impose-flops 0.6 --out out/resnet56.cosparse
	$(BIN)/cosparse bench out/resnet56.cosparse --against onnxruntime,torch $(ARGS)

micro: $(READY) ## every convolution kernel on single layers (pytest-benchmark)
	$(BIN)/python -m pytest bench/micro/kernels.py --benchmark-max-time=0.1 $(ARGS)

# Programs of the runtime's sources, without Python in the process (tests/native).
sanitize: $(READY) ## reader, engines and failing allocations under AddressSanitizer and UndefinedBehaviorSanitizer
	$(NATIVE) KIND=address PROGRAMS='reader engine allocation' all
	@rm -rf build/malformed build/samples build/cache
	$(BIN)/python tests/malformed.py build/malformed
	$(BIN)/python tests/samples.py build/samples
	build/native/address/reader build/malformed/*.cosparse
	build/native/address/reader --mutate 20000 1 build/malformed/valid.cosparse
	build/native/address/reader --mutate 20000 1 build/malformed/valid-transforms.cosparse
	build/native/address/reader --length build
	COSPARSE_CACHE=build/cache build/native/address/engine build/samples/*.cosparse
	COSPARSE_CACHE=build/cache/allocation build/native/address/allocation build/samples/small.cosparse

tsan: $(READY) ## engines called from many threads under ThreadSanitizer
	$(NATIVE) KIND=thread PROGRAMS=engine all
	@rm -rf build/samples build/cache
	$(BIN)/python tests/samples.py build/samples
	COSPARSE_CACHE=build/cache build/native/thread/engine build/samples/*.cosparse

suite: $(READY) ## the Python tests on an extension under sanitizers; SANITIZE=thread for another than address,undefined
	@$(MAKE) --no-print-directory -f tests/native/suite.mk PYTHON=$(BIN)/python run

emulated: $(READY) ## the engine's tests with the kernels for AVX-512 and AMX emulated, whatever the machine has
	@$(MAKE) --no-print-directory -j$(shell getconf _NPROCESSORS_ONLN) -f tests/native/emulated.mk PYTHON=$(BIN)/python run

fuzz: $(READY) ## the reader, then plans of what it reads, then plans and kernels, on mutated inputs for SECONDS each
	$(NATIVE) KIND=fuzz CXX=$(FUZZ_CXX) PROGRAMS='fuzz_loader fuzz_plan fuzz_net' all
	$(BIN)/python tests/fuzz_seeds.py build/seeds/loader
	@mkdir -p build/corpus/loader build/corpus/plan build/corpus/net
	for name in loader plan; do \
	  build/native/fuzz-$(notdir $(FUZZ_CXX))/fuzz_$$name -max_total_time=$(SECONDS) -max_len=4000 -dict=tests/native/json.dict -artifact_prefix=build/corpus/crash- $(ARGS) \
	    build/corpus/$$name build/seeds/loader tests/native/corpus/loader || exit 1; done
	build/native/fuzz-$(notdir $(FUZZ_CXX))/fuzz_net -max_total_time=$(SECONDS) -max_len=300 -artifact_prefix=build/corpus/crash- $(ARGS) build/corpus/net tests/native/corpus/net

# A recompiled extension costs a minute, a new environment several: only what changed is made again.
$(READY): pyproject.toml setup.py constraints.txt $(CSRC) | $(BIN)/python
	@command -v $(CXX) >/dev/null || { echo 'cosparse needs a C++17 compiler: install g++ or clang++, or name yours with CXX=...' >&2; exit 1; }
	$(if $(filter-out csrc/%,$?),$(INSTALL) setuptools wheel pybind11)
	$(if $(filter-out csrc/%,$?),$(INSTALL) --no-build-isolation --editable '.[dev]',$(BIN)/python setup.py --quiet build_ext --inplace)
	@touch $@

$(BIN)/python:
	@test -n '$(PYTHON)' || { echo 'cosparse needs Python 3.11 or newer with its venv module and headers' \
	  '(Debian, Ubuntu: apt install python3-venv python3-dev); PYTHON=... names one that is not on the path.' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

clean: ## removes what was built and written, but not the environment
	rm -rf build dist out $(READY) cosparse/*.so *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +

distclean: clean ## removes the environment too
	rm -rf $(VENV)
