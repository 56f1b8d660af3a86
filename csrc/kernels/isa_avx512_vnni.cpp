#define COSPARSE_ISA_NAMESPACE avx512_vnni
#include "vec_avx2.h"
#include "vec_avx512.h"

#define COSPARSE_NUMBER_HEADER "number_int8.h"
#define COSPARSE_POOLS_STEPS
#define COSPARSE_NUMBER_LANES             \
  template <> struct LanesOf<Int8<Vec>> { \
    using Type = LanesInt8<Vec8>;         \
  };
#include "isa_body.inc"
