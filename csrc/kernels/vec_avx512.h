// AVX-512 (F, VL, DQ, BW): sixteen floats.
#pragma once
#include <immintrin.h>

#include <cstdint>

namespace cosparse {
namespace COSPARSE_ISA_NAMESPACE {

struct Vec {
  static constexpr int lanes = 16;
  static constexpr int registers = 32;
  static constexpr bool steps = false;  // whether steps_avx2.h has the product's loop
  static constexpr bool masks = true;
  using Reg = __m512;
  using Mask = __mmask16;
  using Index = __m512i;  // a lane number for each lane

  static Mask mask(uint32_t bits) { return (__mmask16)bits; }
  static Reg zero() { return _mm512_setzero_ps(); }
  static Reg set1(float x) { return _mm512_set1_ps(x); }
  static Reg load(const float* p) { return _mm512_load_ps(p); }
  static Reg loadu(const float* p) { return _mm512_loadu_ps(p); }
  static Reg mask_load(Mask m, const float* p) { return _mm512_maskz_loadu_ps(m, p); }
  static Reg mask_load(Mask m, const float* p, Reg other) { return _mm512_mask_loadu_ps(other, m, p); }
  static void store(float* p, Reg a) { _mm512_store_ps(p, a); }
  static void storeu(float* p, Reg a) { _mm512_storeu_ps(p, a); }
  static void mask_store(float* p, Mask m, Reg a) { _mm512_mask_storeu_ps(p, m, a); }
  static Reg add(Reg a, Reg b) { return _mm512_add_ps(a, b); }
  static Reg sub(Reg a, Reg b) { return _mm512_sub_ps(a, b); }
  static Reg mul(Reg a, Reg b) { return _mm512_mul_ps(a, b); }
  static Reg div(Reg a, Reg b) { return _mm512_div_ps(a, b); }
  static Reg fma(Reg a, Reg b, Reg c) { return _mm512_fmadd_ps(a, b, c); }
  static Reg fnma(Reg a, Reg b, Reg c) { return _mm512_fnmadd_ps(a, b, c); }
  static Reg max(Reg a, Reg b) { return _mm512_max_ps(a, b); }
  static Reg min(Reg a, Reg b) { return _mm512_min_ps(a, b); }
  static Reg larger(Reg a, Reg b) { return _mm512_mask_mov_ps(max(a, b), _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), a); }
  static Reg sqrt(Reg a) { return _mm512_sqrt_ps(a); }
  static Reg round(Reg a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  // a 2^n for whole n.
  static Reg scale(Reg a, Reg n) { return _mm512_scalef_ps(a, n); }
  // 1 / a for a in [1, 2^127]: an estimate of 14 bits and a step of Newton's; a division takes 16 cycles.
  static Reg reciprocal(Reg a) {
    const Reg y = _mm512_rcp14_ps(a);
    return fma(y, fnma(a, y, _mm512_set1_ps(1)), y);
  }
  // a = mantissa * 2^exponent for normal a > 0, the mantissa in [1, 2).
  static Reg mantissa(Reg a) { return _mm512_getmant_ps(a, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_src); }
  static Reg exponent(Reg a) { return _mm512_getexp_ps(a); }
  static Reg select_positive(Reg a, Reg yes, Reg no) { return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, zero(), _CMP_GT_OQ), no, yes); }
  // As in vec_avx2.h.
  static Reg round_bf16(Reg a) {
    const Reg power = _mm512_and_ps(a, _mm512_castsi512_ps(_mm512_set1_epi32(0x7f800000))), p = min(power, set1(0x1p80f));
    return fnma(p, set1(0x1.8p16f), fma(p, set1(0x1.8p16f), a));
  }
  // a[0], a[2], .. b[0], b[2], ..
  static Reg even(Reg a, Reg b) {
    const __m512i lanes = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    return _mm512_permutex2var_ps(a, lanes, b);
  }
  // a[1], a[3], .. b[1], b[3], ..
  static Reg odd(Reg a, Reg b) {
    const __m512i lanes = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    return _mm512_permutex2var_ps(a, lanes, b);
  }
  // Lane l: lane[l] of a and b one after the other.
  static Reg of_two(Reg a, Reg b, const int* lane) { return _mm512_permutex2var_ps(a, _mm512_loadu_si512(lane), b); }
  // Lane l: a[lane[l] - first], which must be a lane of a where the result is used.
  static Reg pick(Reg a, const int* lane, int first) {
    return _mm512_permutexvar_ps(_mm512_sub_epi32(_mm512_loadu_si512(lane), _mm512_set1_epi32(first)), a);
  }
  static Index index(const int32_t* lane) { return _mm512_loadu_si512(lane); }
  // a[lane[l]] in the lanes of m, else other.
  static Reg mask_pick(Mask m, Index lane, Reg a, Reg other) { return _mm512_mask_permutexvar_ps(other, m, lane, a); }
  static float sum(Reg a) { return _mm512_reduce_add_ps(a); }
  // a is computed here and not later.
#ifdef __AVX512F__
  static void keep(Reg& a) { asm("" : "+v"(a)); }
#else  // emulated
  static void keep(Reg&) {}
#endif
};

}  // namespace COSPARSE_ISA_NAMESPACE
}  // namespace cosparse
