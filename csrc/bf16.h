// bfloat16: the upper half of a float.
#pragma once
#include <cstdint>
#include <cstring>

namespace cosparse {

// The nearest one, ties to even; of NaN some NaN, which rounding could carry over into a zero.
inline uint16_t to_bf16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  if (x != x) return (uint16_t)(bits >> 16 | 0x40);
  return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// The same as a float; NaN stays what it is.
inline float round_bf16(float x) {
  const uint32_t bits = (uint32_t)to_bf16(x) << 16;
  float rounded;
  std::memcpy(&rounded, &bits, 4);
  return x == x ? rounded : x;
}

}  // namespace cosparse
