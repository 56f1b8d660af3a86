#define COSPARSE_ISA_NAMESPACE avx512_bf16
#include "vec_avx2.h"
#include "vec_avx512.h"

#define COSPARSE_NUMBER_HEADER "number_bf16.h"
#define COSPARSE_NUMBER_LANES             \
  template <> struct LanesOf<Bf16<Vec>> { \
    using Type = LanesBf16<Vec8>;         \
  };
#include "isa_body.inc"
