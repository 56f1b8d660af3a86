#define COSPARSE_ISA_NAMESPACE scalar
#include "vec_scalar.h"

#include "isa_body.inc"
