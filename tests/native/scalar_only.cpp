// In place of the vector kernels' libraries, for builds that need not have them.
#include "kernels/table.h"

namespace cosparse {
#define COSPARSE_NONE(isa) \
  namespace isa { extern const KernelRows kernels; const KernelRows kernels = {nullptr, 0}; }
COSPARSE_NONE(avx2)
COSPARSE_NONE(avx512)
COSPARSE_NONE(avx512_vnni)
COSPARSE_NONE(avx512_bf16)
COSPARSE_NONE(amx)
}  // namespace cosparse
