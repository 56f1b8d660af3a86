// The table of CPU kernels: every kernel that exists, by instruction set, best first. The instruction-set files expand their own list;
// nothing else defines a kernel, so none can exist that selection, tests and benchmarks do not see.
#pragma once
#include <vector>

#include "kernel.h"

// X(r, t): conv, r filters x t vectors; t = 0: r filters side by side (few pixels)
#define COSPARSE_CONV_avx512(X) X(8, 3) X(8, 2) X(8, 1) X(8, 0) X(4, 4) X(4, 2) X(4, 1) X(2, 4) X(2, 1) X(1, 4) X(1, 1)
#define COSPARSE_CONV_avx2(X) X(8, 1) X(8, 0) X(4, 2) X(4, 1) X(2, 4) X(2, 1) X(1, 4) X(1, 1)
#define COSPARSE_CONV_scalar(X) X(8, 1) X(8, 0) X(4, 1) X(2, 1) X(1, 1)

namespace cosparse {

namespace scalar { std::vector<KernelRow> kernels(); }
#if defined(__x86_64__)
namespace avx2 { std::vector<KernelRow> kernels(); }
namespace avx512 { std::vector<KernelRow> kernels(); }
#endif

// All rows of this build, avx512 first, scalar last.
const std::vector<KernelRow>& kernel_table();
// The conv row for blocks of r filters and at most t vectors a tile: the widest that fits. Pure; throws Error(Fault::usage) where there is
// none.
const KernelRow& conv_kernel(Isa isa, int r, int t);
const KernelRow& window_kernel(Isa isa);
const KernelRow& pool_kernel(Isa isa);
const KernelRow& upsample_kernel(Isa isa);
const SpanKernels& span_kernels(Isa isa);

}  // namespace cosparse
