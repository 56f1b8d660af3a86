#define COSPARSE_ISA_NAMESPACE avx2
#include "vec_avx2.h"

namespace cosparse::avx2 {
using Vec = Vec8;
}  // namespace cosparse::avx2

#define COSPARSE_MORE_NUMBERS "number_int8_avx2.h"
#define COSPARSE_POOLS_STEPS
#define COSPARSE_NUMBER_LANES                  \
  template <> struct LanesOf<NarrowInt8<Vec>> { \
    using Type = LanesNarrowInt8<Vec8>;         \
  };
#include "isa_body.inc"
