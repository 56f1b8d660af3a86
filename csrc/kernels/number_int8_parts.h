// What the numbers of int8 with instructions of their own have in common. Included inside a per-ISA namespace, after number.h.
#pragma once

// Sums of eight filters at a pixel (conv_lanes.h).
template <class V8> struct LanesInt32 {
  using Vector = V8;
  using Sum = __m256i;
  static Sum zero() { return _mm256_setzero_si256(); }
  static Sum add(Sum a, Sum b) { return _mm256_add_epi32(a, b); }
  static void store(float* p, Sum s) { _mm256_store_ps(p, _mm256_castsi256_ps(s)); }
  static Sum load(const float* p) { return _mm256_castps_si256(_mm256_load_ps(p)); }
  static __m256 result(const ConvArgs& a, int filter, Sum s) {
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(s), _mm256_load_ps(a.scale + filter), _mm256_load_ps(a.bias + filter));
  }
};
