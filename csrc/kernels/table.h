// The table of CPU kernels: every kernel that exists, by instruction set, best first. The instruction-set files expand their own list;
// nothing else defines a kernel, so none can exist that selection, tests and benchmarks do not see.
#pragma once
#include <vector>

#include "kernel.h"

// X(number, r, t): conv, r filters x t groups of kLanes pixels; t = 0: r filters side by side (few pixels). RoundedF32 and StepsF32 are bf16
// and int8 without instructions of their own: f32 kernels of rounded numbers.
#define COSPARSE_CONV_amx(X) X(TileBf16, 8, 3) X(TileBf16, 8, 2) X(TileBf16, 8, 1) X(TileInt8, 8, 3) X(TileInt8, 8, 2) X(TileInt8, 8, 1)
#define COSPARSE_CONV_avx512_bf16(X) \
  X(Bf16, 8, 3) X(Bf16, 8, 2) X(Bf16, 8, 1) X(Bf16, 8, 0) X(Bf16, 4, 2) X(Bf16, 4, 1) X(Bf16, 2, 1) X(Bf16, 1, 1)
#define COSPARSE_CONV_avx512_vnni(X) \
  X(Int8, 8, 4) X(Int8, 8, 3) X(Int8, 8, 2) X(Int8, 8, 1) X(Int8, 8, 0) X(Int8, 4, 2) X(Int8, 4, 1) X(Int8, 2, 1) X(Int8, 1, 1)
#define COSPARSE_CONV_avx512(X)                                                                                                     \
  X(F32, 8, 3)                                                                                                                      \
  X(F32, 8, 2) X(F32, 8, 1) X(F32, 8, 0) X(F32, 4, 4) X(F32, 4, 2) X(F32, 4, 1) X(F32, 2, 4) X(F32, 2, 1) X(F32, 1, 4) X(F32, 1, 1) \
      X(RoundedF32, 8, 3) X(RoundedF32, 8, 2) COSPARSE_EMULATED(X)
#define COSPARSE_CONV_avx2(X) \
  X(F32, 8, 3) X(F32, 8, 2) X(F32, 8, 1) X(F32, 8, 0) X(F32, 4, 1) X(F32, 2, 2) X(F32, 2, 1) X(F32, 1, 2) X(F32, 1, 1) \
  X(RoundedF32, 8, 3) X(RoundedF32, 8, 2) COSPARSE_ROUNDED(X) COSPARSE_OBSERVED(X) \
  X(NarrowInt8, 8, 3) X(NarrowInt8, 8, 2) X(NarrowInt8, 8, 1) X(NarrowInt8, 8, 0) X(NarrowInt8, 4, 1) X(NarrowInt8, 2, 1) \
  X(NarrowInt8, 1, 1)
#define COSPARSE_CONV_scalar(X) X(F32, 8, 1) X(F32, 8, 0) X(F32, 4, 1) X(F32, 2, 1) X(F32, 1, 1) COSPARSE_EMULATED(X)
// X(number): the basis step before the product
#define COSPARSE_MAPS_amx(X)  // those of the sets below
#define COSPARSE_MAPS_avx512_bf16(X) X(Bf16)
#define COSPARSE_MAPS_avx512_vnni(X) X(Int8)
#define COSPARSE_MAPS_avx512(X) X(F32) X(RoundedF32) X(StepsF32) X(Observe)
#define COSPARSE_MAPS_avx2(X) X(F32) X(RoundedF32) X(NarrowInt8) X(Observe)
#define COSPARSE_MAPS_scalar(X) X(F32) X(RoundedF32) X(StepsF32) X(Observe)
#define COSPARSE_EMULATED(X) COSPARSE_ROUNDED(X) COSPARSE_STEPS(X) COSPARSE_OBSERVED(X)
#define COSPARSE_ROUNDED(X) X(RoundedF32, 8, 1) X(RoundedF32, 8, 0) X(RoundedF32, 4, 1) X(RoundedF32, 2, 1) X(RoundedF32, 1, 1)
#define COSPARSE_STEPS(X) X(StepsF32, 8, 1) X(StepsF32, 8, 0) X(StepsF32, 4, 1) X(StepsF32, 2, 1) X(StepsF32, 1, 1)
#define COSPARSE_OBSERVED(X) X(Observe, 8, 1) X(Observe, 4, 1) X(Observe, 2, 1) X(Observe, 1, 1)

namespace cosparse {

// The rows of one instruction set: constants, so that asking for them executes nothing that was compiled for a set that the machine may lack.
struct KernelRows {
  const KernelRow* rows;
  size_t count;
};

namespace scalar {
extern const KernelRows kernels;
}
#if defined(__x86_64__)
namespace avx2 {
extern const KernelRows kernels;
}
namespace avx512 {
extern const KernelRows kernels;
}
namespace avx512_vnni {
extern const KernelRows kernels;
}
namespace avx512_bf16 {
extern const KernelRows kernels;
}
namespace amx {
extern const KernelRows kernels;
}
#endif

// All rows of this build, best instruction set first, scalar last.
const std::vector<KernelRow>& kernel_table();
// The conv rows for this number and blocks of r filters on the best instruction set up to `isa` that has any; widest first. Throws
// Error(Fault::usage) where there are none.
std::vector<const KernelRow*> conv_kernels(Isa isa, Number number, int r);
// The basis step before the product, on the instruction set of conv_kernels().
MapsKernel maps_kernel(Isa isa, Number number);
const char* name_of(Number);  // float32, bfloat16, int8

const KernelRow& depthwise_kernel(Isa isa);
const KernelRow& pool_kernel(Isa isa);
// Of steps in rows of so many floats of memory; nullptr where no set up to `isa` has such.
const KernelRow* pool_steps_kernel(Isa isa, int floats);
const KernelRow& upsample_kernel(Isa isa);
const SpanKernels& span_kernels(Isa isa);
const KernelRow& winograd_kernel(Isa isa);

}  // namespace cosparse
