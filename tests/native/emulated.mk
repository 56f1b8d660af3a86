# The engine's tests with all its instruction sets, whatever the machine has (AVX2 is asked for): make -f tests/native/emulated.mk [ARGS=...]
# The kernels for AVX-512 and AMX are compiled against emulated/immintrin.h and emulated/tiles_amx.h, the rest comes from setup.py's archives.
# The environment's own extension stays as it is: the tests find the package in a folder of links to the sources and to this one.
PYTHON ?= .venv/bin/python
ARGS ?=
OUT := build/emulated
ARCHIVES := build/archives
PACKAGE := $(OUT)/path/cosparse
EMULATED := tests/native/emulated
SETS := avx512 avx512_vnni avx512_bf16 amx
EXTENSION := $(OUT)/_C$(shell $(PYTHON) -c 'import sysconfig; print(sysconfig.get_config_var("EXT_SUFFIX"))')
COMMON := -std=c++17 -O1 -fPIC -fvisibility=hidden -ffp-contract=off -Icsrc
AVX2 := -mavx2 -mfma -Wno-psabi -w -I$(EMULATED) -DCOSPARSE_TILES_HEADER='"$(CURDIR)/$(EMULATED)/tiles_amx.h"'
BINDINGS := $(patsubst csrc/python/%.cpp,$(OUT)/python/%.o,$(wildcard csrc/python/*.cpp))
TESTS := $(wildcard tests/test_engine_*.py) tests/test_kernel_table.py

run: $(PACKAGE)
	COSPARSE_CACHE=$(OUT)/cache PYTHONSAFEPATH=1 PYTHONPATH=$(CURDIR)/$(OUT)/path:$(CURDIR) \
	  $(PYTHON) -m pytest -n auto --maxprocesses=8 --dist loadfile $(ARGS) $(TESTS)

$(PACKAGE): $(EXTENSION)
	@rm -rf $@ && mkdir -p $@
	@ln -s $(filter-out %.so %__pycache__,$(wildcard $(CURDIR)/cosparse/*)) $(addprefix $(CURDIR)/,engine kernels compress bench $(EXTENSION)) $@/

# isa.o instead of the archive's: it says that every set is there.
$(EXTENSION): $(OUT)/isa.o $(SETS:%=$(OUT)/kernels/isa_%.o) $(BINDINGS) $(wildcard $(ARCHIVES)/*.a)
	$(CXX) -shared -s $(filter %.o,$^) -L$(ARCHIVES) -lcosparse_core -lcosparse_scalar -lcosparse_avx2 -pthread -o $@

$(OUT)/isa.o: csrc/isa.cpp
	@mkdir -p $(@D)
	$(CXX) $(COMMON) -DCOSPARSE_EVERY_SET -MMD -c $< -o $@
$(OUT)/kernels/%.o: csrc/kernels/%.cpp
	@mkdir -p $(@D)
	$(CXX) $(COMMON) $(AVX2) -MMD -c $< -o $@
$(OUT)/python/%.o: csrc/python/%.cpp
	@mkdir -p $(@D)
	$(CXX) $(COMMON) $(shell $(PYTHON) -m pybind11 --includes) -MMD -c $< -o $@

-include $(wildcard $(OUT)/*.d $(OUT)/*/*.d)
.PHONY: run
