#define COSPARSE_ISA_NAMESPACE amx
#include "vec_avx2.h"
#include "vec_avx512.h"

#define COSPARSE_NUMBER_HEADER "conv_amx.h"
#define COSPARSE_CONV_TILE conv_amx
#include "isa_body.inc"
