#define COSPARSE_ISA_NAMESPACE avx2
#include "vec_avx2.h"

namespace cosparse::avx2 {
struct Vec : Vec8 {
  static constexpr const char* name = "avx2";
};
}  // namespace cosparse::avx2

#include "isa_body.inc"
