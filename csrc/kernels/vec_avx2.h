// AVX2 + FMA: eight floats. Included by isa_avx2.cpp and, for eight filters side by side, by isa_avx512.cpp; each compiles its own copy.
#pragma once
#include <immintrin.h>

#include <cstdint>

namespace cosparse {
namespace COSPARSE_ISA_NAMESPACE {

// Lanes first..first+n-1 of eight to p. Not a member, which the linker would see.
static inline void store_run(float* p, int first, int n, __m256 a) {
  alignas(32) float lane[8];
  _mm256_store_ps(lane, a);
  const float* const from = lane + first;
  if (n >= 4)
    _mm_storeu_ps(p, _mm_loadu_ps(from)), _mm_storeu_ps(p + n - 4, _mm_loadu_ps(from + n - 4));
  else if (n >= 2)
    _mm_storeu_si64(p, _mm_loadu_si64(from)), _mm_storeu_si64(p + n - 2, _mm_loadu_si64(from + n - 2));
  else
    *p = *from;
}

struct Vec8 {
  static constexpr int lanes = 8;
  static constexpr int registers = 16;
  static constexpr bool steps = true;  // whether steps_avx2.h has the product's loop
  static constexpr bool masks = true;
  using Reg = __m256;
  using Mask = __m256i;   // all ones in the lanes to touch
  using Index = __m256i;  // a lane number for each lane

  static Mask mask(uint32_t bits) {
    const __m256i lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    return _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32((int)bits), lane), lane);
  }
  static Reg zero() { return _mm256_setzero_ps(); }
  static Reg set1(float x) { return _mm256_set1_ps(x); }
  static Reg load(const float* p) { return _mm256_load_ps(p); }
  static Reg loadu(const float* p) { return _mm256_loadu_ps(p); }
  static Reg mask_load(Mask m, const float* p) { return _mm256_maskload_ps(p, m); }
  static Reg mask_load(Mask m, const float* p, Reg other) {
    return _mm256_blendv_ps(other, _mm256_maskload_ps(p, m), _mm256_castsi256_ps(m));
  }
  static void store(float* p, Reg a) { _mm256_store_ps(p, a); }
  static void storeu(float* p, Reg a) { _mm256_storeu_ps(p, a); }
  // The lanes of m must be neighbours. Without the instruction for it, which takes 20 cycles on AMD: whole vectors are stored as such, the
  // rest in two pieces that may overlap.
  __attribute__((always_inline)) static void mask_store(float* p, Mask m, Reg a) {  // else the linker would see it
    const uint32_t bits = (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(m));
    if (__builtin_expect(bits == 0xff, 1)) return _mm256_storeu_ps(p, a);
    if (!bits) return;
    const int first = __builtin_ctz(bits);
    store_run(p + first, first, __builtin_popcount(bits), a);
  }
  static Reg add(Reg a, Reg b) { return _mm256_add_ps(a, b); }
  static Reg sub(Reg a, Reg b) { return _mm256_sub_ps(a, b); }
  static Reg mul(Reg a, Reg b) { return _mm256_mul_ps(a, b); }
  static Reg div(Reg a, Reg b) { return _mm256_div_ps(a, b); }
  static Reg fma(Reg a, Reg b, Reg c) { return _mm256_fmadd_ps(a, b, c); }
  static Reg fnma(Reg a, Reg b, Reg c) { return _mm256_fnmadd_ps(a, b, c); }
  static Reg max(Reg a, Reg b) { return _mm256_max_ps(a, b); }
  static Reg min(Reg a, Reg b) { return _mm256_min_ps(a, b); }
  static Reg larger(Reg a, Reg b) { return _mm256_blendv_ps(max(a, b), a, _mm256_cmp_ps(a, a, _CMP_UNORD_Q)); }
  static Reg sqrt(Reg a) { return _mm256_sqrt_ps(a); }
  static Reg round(Reg a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  // a 2^n for whole n, 2^n normal.
  static Reg scale(Reg a, Reg n) {
    return mul(a, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23)));
  }
  // 1 / a for a in [1, 2^127].
  static Reg reciprocal(Reg a) { return _mm256_div_ps(_mm256_set1_ps(1), a); }
  // a = mantissa * 2^exponent for normal a > 0, the mantissa in [1, 2).
  static Reg mantissa(Reg a) {
    const __m256i bits = _mm256_and_si256(_mm256_castps_si256(a), _mm256_set1_epi32(0x007fffff));
    return _mm256_castsi256_ps(_mm256_or_si256(bits, _mm256_set1_epi32(0x3f800000)));
  }
  static Reg exponent(Reg a) {
    return _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_srli_epi32(_mm256_castps_si256(a), 23), _mm256_set1_epi32(127)));
  }
  static Reg select_positive(Reg a, Reg yes, Reg no) { return _mm256_blendv_ps(no, yes, _mm256_cmp_ps(a, zero(), _CMP_GT_OQ)); }
  // To the nearest bfloat16, ties to even, infinity and NaN as they are. p is the power of two below |a|: 1.5 * 2^16 p has its last bit where
  // bfloat16 has the last of a, so adding it rounds a, and taking it away again is exact. Above 2^80 that could overflow: what is larger
  // keeps more bits than bfloat16 has, and so do denormals.
  static Reg round_bf16(Reg a) {
    const Reg power = _mm256_and_ps(a, _mm256_castsi256_ps(_mm256_set1_epi32(0x7f800000))), p = min(power, set1(0x1p80f));
    return fnma(p, set1(0x1.8p16f), fma(p, set1(0x1.8p16f), a));
  }
  // a[0], a[2], .. b[0], b[2], ..
  static Reg even(Reg a, Reg b) {
    const __m256 mixed = _mm256_shuffle_ps(a, b, 0x88);  // a0 a2 b0 b2, a4 a6 b4 b6
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(mixed), 0xd8));
  }
  // a[1], a[3], .. b[1], b[3], ..
  static Reg odd(Reg a, Reg b) {
    const __m256 mixed = _mm256_shuffle_ps(a, b, 0xdd);  // a1 a3 b1 b3, a5 a7 b5 b7
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(mixed), 0xd8));
  }
  // Lane l: lane[l] of a and b one after the other.
  static Reg of_two(Reg a, Reg b, const int* lane) {
    const __m256i lanes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(lane));
    const __m256 second = _mm256_castsi256_ps(_mm256_slli_epi32(lanes, 28));  // the sign of lanes 8..15
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(a, lanes), _mm256_permutevar8x32_ps(b, lanes), second);
  }
  // Lane l: a[lane[l] - first], which must be a lane of a where the result is used.
  static Reg pick(Reg a, const int* lane, int first) {
    const __m256i lanes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(lane));
    return _mm256_permutevar8x32_ps(a, _mm256_sub_epi32(lanes, _mm256_set1_epi32(first)));
  }
  static Index index(const int32_t* lane) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(lane)); }
  // a[lane[l]] in the lanes of m, else other.
  static Reg mask_pick(Mask m, Index lane, Reg a, Reg other) {
    return _mm256_blendv_ps(other, _mm256_permutevar8x32_ps(a, lane), _mm256_castsi256_ps(m));
  }
  static float sum(Reg a) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
  }
};

}  // namespace COSPARSE_ISA_NAMESPACE
}  // namespace cosparse
