# The Python tests on an extension that was compiled with sanitizers: make -f tests/native/suite.mk [SANITIZE=thread] [ARGS=...]
# The environment's own extension stays as it is: the tests find the package in a folder of links to the sources and to this one.
SANITIZE ?= address,undefined
PYTHON ?= .venv/bin/python
ARGS ?=
comma := ,
OUT := build/sanitized-$(subst $(comma),-,$(SANITIZE))
PACKAGE := $(OUT)/path/cosparse
EXTENSION = $(CURDIR)/$(OUT)/lib/cosparse/_C$(shell $(PYTHON) -c 'import sysconfig; print(sysconfig.get_config_var("EXT_SUFFIX"))')
RUNTIME = $(foreach name,$(if $(filter thread,$(SANITIZE)),tsan,asan ubsan) stdc++,$(shell $(CXX) -print-file-name=lib$(name).so))

# Python itself leaks by design; a refused allocation is a MemoryError that tests ask for. Of thread's reports those of other libraries, which
# are not compiled for it, are left out.
export ASAN_OPTIONS := detect_leaks=0:abort_on_error=1:allocator_may_return_null=1:quarantine_size_mb=16
export UBSAN_OPTIONS := print_stacktrace=1:halt_on_error=1
export TSAN_OPTIONS := halt_on_error=1:abort_on_error=1:ignore_noninstrumented_modules=1:report_signal_unsafe=0:die_after_fork=0

# Not here: what has no part of the extension in it (GPU kernels, methods), what compiles or runs programs of its own (make sanitize, make fuzz),
# browsers and OpenVINO, which end beside a preloaded sanitizer; forks while other threads allocate, in which GCC 12's AddressSanitizer
# waits for a lock of its own; and tests of short times and resident memory, of which a sanitizer takes its share.
LEFT_OUT := --ignore-glob='tests/test_gpu_*' --ignore-glob='tests/test_compress_*' --ignore-glob='tests/test_prune_*' \
  $(foreach name,cli_gpu cli_train reliability_fork fuzz c_library c_programs instruction_sets ray recipes bench_html serve_page demo,--ignore=tests/test_$(name).py) \
  --deselect=tests/test_engine_threads.py::test_calls_wait_for_memory \
  --deselect=tests/test_engine_load.py::test_the_weights_lie_in_memory_once \
  --deselect=tests/test_memory_limit.py::test_values_beyond_the_limit_are_refused_at_load \
  --deselect=tests/test_memory_limit.py::test_a_form_far_larger_than_the_cheapest_is_not_measured \
  --deselect=tests/test_engine_load.py::test_measuring_holds_a_few_layers_in_another_form \
  --deselect=tests/test_serve_batcher.py::test_a_short_call_that_finds_the_engine_idle_runs_on_the_loop \
  --deselect=tests/test_serve_batcher.py::test_each_size_of_inputs_has_a_pace_of_its_own \
  --deselect=tests/test_cli.py::test_bench_writes_what_it_shows \
  --deselect=tests/test_bench_harness.py::test_a_short_dtype_is_checked_against_float32

# ThreadSanitizer ends where a process with threads forks and goes on, which subprocess and data loaders do: it gets the tests of threads.
TESTS := $(if $(filter thread,$(SANITIZE)),$(wildcard tests/test_engine_*.py tests/test_artifact_*.py) \
  $(foreach name,reliability_gil serve_batcher serve_models serve_http serve_grpc serve_limits serve_statistics,tests/test_$(name).py))

run: $(PACKAGE)
	LD_PRELOAD='$(RUNTIME)' PYTHONSAFEPATH=1 PYTHONPATH=$(CURDIR)/$(OUT)/path:$(CURDIR) \
	  $(PYTHON) -m pytest -n auto --maxprocesses=8 --dist loadfile -k 'not openvino' $(LEFT_OUT) $(ARGS) $(TESTS)

$(PACKAGE): extension
	@rm -rf $@ && mkdir -p $@
	@ln -s $(filter-out %.so %__pycache__,$(wildcard $(CURDIR)/cosparse/*)) $(addprefix $(CURDIR)/,engine kernels compress bench) $(EXTENSION) $@/

extension:
	COSPARSE_SANITIZE=$(SANITIZE) $(PYTHON) setup.py --quiet build_ext --build-lib $(OUT)/lib --build-temp $(OUT)/objects

.PHONY: run extension
