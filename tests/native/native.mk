# Programs without Python that link the runtime's sources: make -f tests/native/native.mk KIND=... PROGRAM...
#   KIND=address   AddressSanitizer and UndefinedBehaviorSanitizer
#   KIND=thread    ThreadSanitizer
#   KIND=fuzz      the first with feedback for fuzzing: libFuzzer where CXX is a clang++ that has it, else tests/native/fuzz_main.cpp
#   KIND=plain     no sanitizer
# EMULATED=1 compiles the kernels for AVX-512 and AMX against emulated/, so that they run, and sanitizers look into them, on any machine
# with AVX2. The kernels take most of the time to compile. VECTORS=0 leaves out the vector ones; ARCHIVES=FOLDER is for a quick build: it links those
# of setup.py, which no sanitizer looks into, and leaves out what debuggers want beyond line numbers and the UNCHECKED of the checks, which
# cost the most and whose finds mostly end in AddressSanitizer's. OPTIMISE=-O0 compiles the rest in half the time.
KIND ?= address
VECTORS ?= 1
EMULATED ?=
ARCHIVES ?=
OPTIMISE ?= -O1
OUT := build/native/$(KIND)$(if $(filter fuzz,$(KIND)),-$(notdir $(CXX)))$(if $(ARCHIVES),-quick)$(if $(EMULATED),-emulated)
ENGINE := $(if $(filter fuzz,$(KIND)),$(shell printf 'extern "C" int LLVMFuzzerTestOneInput(const char*, unsigned long){return 0;}' | \
	$(CXX) -fsanitize=fuzzer -x c++ - -o /dev/null 2>/dev/null && echo libfuzzer))

UNCHECKED := -fno-sanitize=null,alignment,vptr,object-size
FLAGS_address := -fsanitize=address,undefined -fno-sanitize-recover=undefined $(if $(ARCHIVES),$(UNCHECKED))
FLAGS_thread := -fsanitize=thread
FLAGS_fuzz := $(FLAGS_address) $(if $(ENGINE),-fsanitize=fuzzer-no-link,-fsanitize-coverage=trace-pc)
LINK_address := $(FLAGS_address)
LINK_thread := $(FLAGS_thread)
LINK_fuzz := $(FLAGS_address)
# As setup.py has them; tests/test_fuzz.py compares.
COMMON := -std=c++17 -ffp-contract=off -Wall -Wextra $(if $(ARCHIVES),-g1,-g) $(OPTIMISE) -fno-omit-frame-pointer -Icsrc -pthread
ISA_avx2 := -mavx2 -mfma
ifdef EMULATED
AVX512 := $(ISA_avx2) -Wno-psabi -Itests/native/emulated -DCOSPARSE_TILES_HEADER='"$(CURDIR)/tests/native/emulated/tiles_amx.h"'
ISA_avx512 := $(AVX512)
ISA_avx512_vnni := $(AVX512)
ISA_avx512_bf16 := $(AVX512)
ISA_amx := $(AVX512)
$(OUT)/isa.o: COMMON += -DCOSPARSE_EVERY_SET
else
AVX512 := -mavx512f -mavx512vl -mavx512dq -mavx512bw -mfma
ISA_avx512 := $(AVX512)
ISA_avx512_vnni := $(AVX512) -mavx512vnni
ISA_avx512_bf16 := $(AVX512) -mavx512bf16
ISA_amx := $(AVX512) -mavx512vnni -mavx512bf16 -mavx512vbmi -mamx-tile -mamx-bf16 -mamx-int8
endif

SOURCES := $(sort $(wildcard csrc/*.cpp))
# A quick build compiles them as two: most of the time goes into headers and templates, which each source would compile anew.
# So names in their anonymous namespaces must differ.
CORE := $(if $(ARCHIVES),$(OUT)/half_0.o $(OUT)/half_1.o,$(SOURCES:csrc/%.cpp=$(OUT)/%.o))
VECTOR_SETS := $(if $(filter 1,$(VECTORS)),$(if $(filter x86_64,$(shell uname -m)),avx2 avx512 avx512_vnni avx512_bf16 amx))
COMPILED := $(OUT)/kernels/isa_scalar.o $(if $(VECTOR_SETS),$(VECTOR_SETS:%=$(OUT)/kernels/isa_%.o),$(OUT)/tests/scalar_only.o)
KERNELS := $(if $(ARCHIVES),$(filter-out %_core.a %_capi.a,$(wildcard $(ARCHIVES)/libcosparse_*.a)),$(COMPILED))
FEEDBACK := $(if $(filter fuzz,$(KIND)),$(if $(ENGINE),,$(OUT)/fuzz_feedback.o))
DRIVER := $(FEEDBACK) $(if $(FEEDBACK),$(OUT)/fuzz_main.o)

all: $(PROGRAMS:%=$(OUT)/%)
# The reader's objects alone are in its programs: an archive gives what is asked for.
$(OUT)/core.a: $(CORE)
	@rm -f $@ && ar rcs $@ $^
$(OUT)/reader: $(OUT)/tests/reader_main.o $(FEEDBACK)
$(OUT)/engine: $(OUT)/tests/engine_main.o $(KERNELS) $(FEEDBACK)
$(OUT)/allocation: $(OUT)/tests/allocation_main.o $(KERNELS) $(FEEDBACK)
$(OUT)/allocation: LINK_$(KIND) += -Wl,--wrap=aligned_alloc,--wrap=mmap
FUZZERS := $(patsubst %,$(OUT)/fuzz_%,loader plan net)
$(if $(ENGINE),$(FUZZERS): LINK_fuzz += -fsanitize=fuzzer)
$(OUT)/fuzz_loader: $(OUT)/tests/fuzz_loader.o $(OUT)/tests/artifact_mutator.o $(if $(ARCHIVES),$(KERNELS)) $(DRIVER)
$(OUT)/fuzz_plan: $(OUT)/tests/fuzz_plan.o $(OUT)/tests/artifact_mutator.o $(KERNELS) $(DRIVER)
$(OUT)/fuzz_net: $(OUT)/tests/fuzz_net.o $(OUT)/tests/net_builder.o $(KERNELS) $(DRIVER)
$(OUT)/reader $(OUT)/engine $(OUT)/allocation $(FUZZERS): $(OUT)/core.a
	$(CXX) $(LINK_$(KIND)) $(filter %.o,$^) $(OUT)/core.a $(filter-out $(OUT)/core.a,$(filter %.a,$^)) -pthread -o $@

$(OUT)/fuzz_main.o $(OUT)/fuzz_feedback.o: $(OUT)/%.o: tests/native/%.cpp
	@mkdir -p $(@D)
	$(CXX) -std=c++17 -O2 -c $< -o $@
$(OUT)/tests/%.o: tests/native/%.cpp
	@mkdir -p $(@D)
	$(CXX) $(COMMON) $(FLAGS_$(KIND)) -MMD -c $< -o $@
$(OUT)/kernels/isa_%.o: csrc/kernels/isa_%.cpp
	@mkdir -p $(@D)
	$(CXX) $(COMMON) $(FLAGS_$(KIND)) $(ISA_$*) -w -MMD -c $< -o $@
# Static patterns: the lists of headers, half_0.d, would match others and be made anew.
$(OUT)/half_0.cpp $(OUT)/half_1.cpp: $(OUT)/half_%.cpp: $(SOURCES)
	@mkdir -p $(@D)
	@printf '%s\n' $(SOURCES) | awk 'NR % 2 == $* { print "#include \"../../../" $$0 "\"" }' > $@
$(OUT)/half_0.o $(OUT)/half_1.o: $(OUT)/half_%.o: $(OUT)/half_%.cpp
	$(CXX) $(COMMON) $(FLAGS_$(KIND)) -MMD -c $< -o $@
$(OUT)/%.o: csrc/%.cpp
	@mkdir -p $(@D)
	$(CXX) $(COMMON) $(FLAGS_$(KIND)) -MMD -c $< -o $@

-include $(wildcard $(OUT)/*.d $(OUT)/*/*.d)
.PHONY: all
