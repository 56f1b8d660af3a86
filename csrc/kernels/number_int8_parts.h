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

// The end of a block row whose sums become steps by one multiplication and addition each, and what is added to them by another:
// step = round(sum * scale[filter] + number of the residual * added + bias[filter]), up to 255, from 0.
struct StepFactors {
  // From rows of numbers to such, behind an activation whose end at 0 is that of the steps, where none is too large for 32 bits.
  static bool serve(const ConvArgs& a) {
    return a.bounded && a.y.tiled && (!a.residual.base || a.residual.tiled) &&
           (a.act == Act::none || (a.act == Act::relu && a.y.zero == 0));
  }
  float inverse, added, zero;
  explicit StepFactors(const ConvArgs& a)
      : inverse(a.y.inverse),
        added(a.residual.base ? step_of(a.residual.inverse) * inverse : 0.f),
        zero(a.residual.base ? a.y.zero - a.residual.zero * added : a.y.zero) {}
  void of_four(const ConvArgs& a, int filter, float* scale, float* bias) const {
    const __m128 factor = _mm_set1_ps(inverse);
    _mm_store_ps(scale, _mm_mul_ps(_mm_loadu_ps(a.scale + filter), factor));
    _mm_store_ps(bias, _mm_fmadd_ps(_mm_loadu_ps(a.bias + filter), factor, _mm_set1_ps(zero)));
  }
};
