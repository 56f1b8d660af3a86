#define COSPARSE_ISA_NAMESPACE avx512
#include "vec_avx2.h"
#include "vec_avx512.h"

#include "isa_body.inc"
