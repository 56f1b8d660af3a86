// AVX-512 (F, VL, DQ, BW, VBMI), its VNNI and BF16, as functions of AVX2 and plain C++: the kernels' sources compile against this in place
// of the compiler's header and run on machines that have none of it (make emulated). Only what they use is here, after the pseudocode of
// Intel's Intrinsics Guide. What the processor would trap on ends the program here too: places that are not aligned.
//
// The estimate of 1 / a differs from a processor's: here it has an error of 2^-15, the limit there being 2^-14.
#pragma once
#include_next <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace emulated {

template <class To, class From> inline To as(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

// The lanes of a register of type V as numbers T.
template <class T, class V> struct Lanes {
  static constexpr int n = sizeof(V) / sizeof(T);
  T lane[n];
  operator V() const { return as<V>(*this); }
};
template <class T, class V> inline Lanes<T, V> lanes(V a) { return as<Lanes<T, V>>(a); }
template <class T, class V, class F> inline V made(const F& f) {
  Lanes<T, V> y;
  for (int l = 0; l < y.n; ++l) y.lane[l] = f(l);
  return y;
}

template <class Half, class V> struct Halves {
  Half low, high;
};
inline Halves<__m256, __m512> halves(__m512 a) { return as<Halves<__m256, __m512>>(a); }
inline Halves<__m256i, __m512i> halves(__m512i a) { return as<Halves<__m256i, __m512i>>(a); }
inline __m512 join(__m256 low, __m256 high) { return as<__m512>(Halves<__m256, __m512>{low, high}); }
inline __m512i join(__m256i low, __m256i high) { return as<__m512i>(Halves<__m256i, __m512i>{low, high}); }

template <int bytes> inline void expect_aligned(const void* p) {
  if (reinterpret_cast<uintptr_t>(p) % bytes) __builtin_trap();
}
template <class V> inline V load(const void* p) {
  V a;
  std::memcpy(&a, p, sizeof a);
  return a;
}
template <class V> inline void store(void* p, V a) { std::memcpy(p, &a, sizeof a); }
template <class V> inline V load_aligned(const void* p) { return expect_aligned<sizeof(V)>(p), load<V>(p); }
template <class V> inline void store_aligned(void* p, V a) { expect_aligned<sizeof(V)>(p), store(p, a); }

// Operations that AVX2 has for half of the register, on each 128 bits alike.
#define EMULATED_2(V, name) \
  inline V name(V a, V b) { return join(_mm256_##name(halves(a).low, halves(b).low), _mm256_##name(halves(a).high, halves(b).high)); }
#define EMULATED_3(name)                                                        \
  inline __m512 name(__m512 a, __m512 b, __m512 c) {                            \
    return join(_mm256_##name(halves(a).low, halves(b).low, halves(c).low),     \
                _mm256_##name(halves(a).high, halves(b).high, halves(c).high)); \
  }
EMULATED_2(__m512, add_ps)
EMULATED_2(__m512, sub_ps)
EMULATED_2(__m512, mul_ps)
EMULATED_2(__m512, div_ps)
EMULATED_2(__m512, min_ps)
EMULATED_2(__m512, max_ps)
EMULATED_2(__m512, and_ps)
EMULATED_3(fmadd_ps)
EMULATED_3(fnmadd_ps)
EMULATED_2(__m512i, add_epi32)
EMULATED_2(__m512i, sub_epi32)
EMULATED_2(__m512i, packs_epi32)
EMULATED_2(__m512i, packus_epi32)
EMULATED_2(__m512i, packus_epi16)
EMULATED_2(__m512i, unpacklo_epi16)
EMULATED_2(__m512i, unpackhi_epi16)
EMULATED_2(__m512i, unpacklo_epi8)
EMULATED_2(__m512i, unpackhi_epi8)
EMULATED_2(__m512i, add_epi16)
EMULATED_2(__m512i, sub_epi16)
EMULATED_2(__m512i, mulhrs_epi16)
EMULATED_2(__m512i, max_epu8)
EMULATED_2(__m512i, shuffle_epi8)
#undef EMULATED_2
#undef EMULATED_3
inline __m512 sqrt_ps(__m512 a) { return join(_mm256_sqrt_ps(halves(a).low), _mm256_sqrt_ps(halves(a).high)); }
inline __m512i slli_epi32(__m512i a, int n) { return join(_mm256_slli_epi32(halves(a).low, n), _mm256_slli_epi32(halves(a).high, n)); }
inline __m512 cvtepi32_ps(__m512i a) { return join(_mm256_cvtepi32_ps(halves(a).low), _mm256_cvtepi32_ps(halves(a).high)); }
inline __m512i cvtps_epi32(__m512 a) { return join(_mm256_cvtps_epi32(halves(a).low), _mm256_cvtps_epi32(halves(a).high)); }
template <int how> inline __m512 roundscale_ps(__m512 a) {
  static_assert(how < 16, "without a scale");
  return join(_mm256_round_ps(halves(a).low, how), _mm256_round_ps(halves(a).high, how));
}
template <int how> inline __mmask16 cmp_ps_mask(__m512 a, __m512 b) {
  const auto half = [](__m256 x, __m256 y) { return _mm256_movemask_ps(_mm256_cmp_ps(x, y, how)); };
  return (__mmask16)(half(halves(a).low, halves(b).low) | half(halves(a).high, halves(b).high) << 8);
}

inline __m512 set1_ps(float a) { return join(_mm256_set1_ps(a), _mm256_set1_ps(a)); }
inline __m512i set1_epi32(int a) { return join(_mm256_set1_epi32(a), _mm256_set1_epi32(a)); }
inline __m512i set4_epi32(int d, int c, int b, int a) {
  const __m256i half = _mm256_setr_epi32(a, b, c, d, a, b, c, d);
  return join(half, half);
}
template <class... Int> inline __m512i setr_epi32(Int... a) {
  static_assert(sizeof...(a) == 16);
  return Lanes<int, __m512i>{{a...}};
}
template <class... Int> inline __m512i setr_epi64(Int... a) {
  static_assert(sizeof...(a) == 8);
  return Lanes<int64_t, __m512i>{{a...}};
}

// Where bit l of k is set, the lane of b, else that of a.
template <class T, class V> inline V choose(uint64_t k, V a, V b) {
  return made<T, V>([&, x = lanes<T>(a), y = lanes<T>(b)](int l) { return k >> l & 1 ? y.lane[l] : x.lane[l]; });
}
inline __m512 mask_loadu_ps(__m512 other, __mmask16 k, const float* p) {
  return made<float, __m512>([&, x = lanes<float>(other)](int l) { return k >> l & 1 ? p[l] : x.lane[l]; });
}
inline void mask_storeu_ps(float* p, __mmask16 k, __m512 a) {
  const auto x = lanes<float>(a);
  for (int l = 0; l < 16; ++l)
    if (k >> l & 1) p[l] = x.lane[l];
}

// Lane l: a[index[l]], the index taken modulo the lanes.
template <class T, class V> inline V permuted(V index, V a) {
  return made<T, V>([&, i = lanes<T>(index), x = lanes<T>(a)](int l) { return x.lane[i.lane[l] & (x.n - 1)]; });
}
inline __m512 permutexvar_ps(__m512i index, __m512 a) { return as<__m512>(permuted<uint32_t>(index, as<__m512i>(a))); }
inline __m512 permutex2var_ps(__m512 a, __m512i index, __m512 b) {
  return made<float, __m512>([&, i = lanes<uint32_t>(index), x = lanes<float>(a), y = lanes<float>(b)](int l) {
    return (i.lane[l] & 16 ? y : x).lane[i.lane[l] & 15];
  });
}
inline __m512i shuffle_i32x4(__m512i a, __m512i b, int how) {
  const auto x = lanes<__m128i>(a), y = lanes<__m128i>(b);
  return Lanes<__m128i, __m512i>{{x.lane[how & 3], x.lane[how >> 2 & 3], y.lane[how >> 4 & 3], y.lane[how >> 6 & 3]}};
}
inline __m128i extracti32x4_epi32(__m512i a, int at) { return lanes<__m128i>(a).lane[at]; }
inline __m512i inserti64x4(__m512i a, __m256i b, int at) { return at ? join(halves(a).low, b) : join(b, halves(a).high); }
inline __m512i permutex2var_epi32(__m512i a, __m512i index, __m512i b) {
  return as<__m512i>(permutex2var_ps(as<__m512>(a), index, as<__m512>(b)));
}
template <class V> inline V mask_loadu_epi8(V other, uint64_t k, const void* p) {
  return made<uint8_t, V>([&, x = lanes<uint8_t>(other)](int l) { return k >> l & 1 ? static_cast<const uint8_t*>(p)[l] : x.lane[l]; });
}
inline void mask_storeu_epi8(void* p, __mmask64 k, __m512i a) {
  const auto x = lanes<uint8_t>(a);
  for (int l = 0; l < 64; ++l)
    if (k >> l & 1) static_cast<uint8_t*>(p)[l] = x.lane[l];
}
inline __m512i mask_broadcast_i32x4(__m512i other, __mmask16 k, __m128i a) {
  return choose<uint32_t>(k, other, (__m512i)Lanes<__m128i, __m512i>{{a, a, a, a}});
}
inline __m512i castsi128_si512(__m128i a) { return join(_mm256_inserti128_si256(_mm256_setzero_si256(), a, 0), _mm256_setzero_si256()); }

template <class To, class From, class V, class W> inline V converted(W a) {
  return made<To, V>([x = lanes<From>(a)](int l) { return (To)x.lane[l]; });
}
inline __m128i cvtusepi32_epi8(__m512i a) {
  return made<uint8_t, __m128i>([x = lanes<uint32_t>(a)](int l) { return (uint8_t)std::min(x.lane[l], 255u); });
}

inline __m512 scalef_ps(__m512 a, __m512 b) {
  return made<float, __m512>([x = lanes<float>(a), y = lanes<float>(b)](int l) {
    const float n = std::floor(y.lane[l]);
    return n != n ? n : std::ldexp(x.lane[l], (int)std::clamp(n, -1000.f, 1000.f));
  });
}
inline __m512 rcp14_ps(__m512 a) {
  return made<float, __m512>([x = lanes<float>(a)](int l) { return 1 / x.lane[l] * (1 + 0x1p-15f); });
}
// The mantissa in [1, 2), with the sign; 1 of zero and infinity.
inline __m512 getmant_ps(__m512 a) {
  return made<float, __m512>([x = lanes<float>(a)](int l) {
    const float value = x.lane[l];
    if (value != value) return value;
    return value == 0 || std::isinf(value) ? std::copysign(1.f, value) : std::ldexp(value, -std::ilogb(value));
  });
}
inline __m512 getexp_ps(__m512 a) {
  return made<float, __m512>([x = lanes<float>(a)](int l) { return std::logb(x.lane[l]); });
}
inline float reduce_add_ps(__m512 a) {
  const __m256 two = _mm256_add_ps(halves(a).low, halves(a).high);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(two), _mm256_extractf128_ps(two, 1));
  const auto x = lanes<float>(four);
  return (x.lane[0] + x.lane[2]) + (x.lane[1] + x.lane[3]);
}

// u[4 i ..] of unsigned bytes times s[4 i ..] of signed ones.
template <class V> inline V dpbusd(V sum, V u, V s) {
  return made<uint32_t, V>([&, a = lanes<uint32_t>(sum), x = lanes<uint8_t>(u), y = lanes<int8_t>(s)](int l) {
    uint32_t all = a.lane[l];
    for (int i = 4 * l; i < 4 * l + 4; ++i) all += (uint32_t)(x.lane[i] * y.lane[i]);
    return all;
  });
}

// bfloat16: denormals count as zero, on their way in and out.
inline float no_denormal(float x) { return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.f, x) : x; }
inline float of_bf16(uint16_t x) { return no_denormal(as<float>((uint32_t)x << 16)); }
inline uint16_t to_bf16(float x) {
  const uint32_t bits = as<uint32_t>(no_denormal(x));
  if (x != x) return (uint16_t)(bits >> 16 | 0x40);
  return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
inline float sum_of_pair(float sum, uint16_t even_a, uint16_t odd_a, uint16_t even_b, uint16_t odd_b) {
  sum = no_denormal(std::fma(of_bf16(odd_a), of_bf16(odd_b), no_denormal(sum)));
  return no_denormal(std::fma(of_bf16(even_a), of_bf16(even_b), sum));
}
template <class V, class B> inline V dpbf16(V sum, B a, B b) {
  return made<float, V>([&, s = lanes<float>(sum), x = lanes<uint16_t>(a), y = lanes<uint16_t>(b)](int l) {
    return sum_of_pair(s.lane[l], x.lane[2 * l], x.lane[2 * l + 1], y.lane[2 * l], y.lane[2 * l + 1]);
  });
}
inline __m256bh cvtneps_pbh(__m512 a) {
  return made<uint16_t, __m256bh>([x = lanes<float>(a)](int l) { return to_bf16(x.lane[l]); });
}
inline __m512bh cvtne2ps_pbh(__m512 high, __m512 low) {
  return as<__m512bh>(Halves<__m256bh, __m512>{cvtneps_pbh(low), cvtneps_pbh(high)});
}

}  // namespace emulated

#define _mm512_add_ps emulated::add_ps
#define _mm512_sub_ps emulated::sub_ps
#define _mm512_mul_ps emulated::mul_ps
#define _mm512_div_ps emulated::div_ps
#define _mm512_min_ps emulated::min_ps
#define _mm512_max_ps emulated::max_ps
#define _mm512_and_ps emulated::and_ps
#define _mm512_sqrt_ps emulated::sqrt_ps
#define _mm512_fmadd_ps emulated::fmadd_ps
#define _mm512_fnmadd_ps emulated::fnmadd_ps
#define _mm512_add_epi32 emulated::add_epi32
#define _mm512_sub_epi32 emulated::sub_epi32
#define _mm512_packs_epi32 emulated::packs_epi32
#define _mm512_packus_epi32 emulated::packus_epi32
#define _mm512_packus_epi16 emulated::packus_epi16
#define _mm512_unpacklo_epi16 emulated::unpacklo_epi16
#define _mm512_unpackhi_epi16 emulated::unpackhi_epi16
#define _mm512_unpacklo_epi8 emulated::unpacklo_epi8
#define _mm512_unpackhi_epi8 emulated::unpackhi_epi8
#define _mm512_add_epi16 emulated::add_epi16
#define _mm512_sub_epi16 emulated::sub_epi16
#define _mm512_mulhrs_epi16 emulated::mulhrs_epi16
#define _mm512_max_epu8 emulated::max_epu8
#define _mm512_shuffle_epi8 emulated::shuffle_epi8
#define _mm512_cvtepi32_ps emulated::cvtepi32_ps
#define _mm512_cvtps_epi32 emulated::cvtps_epi32
#define _mm512_set1_ps emulated::set1_ps
#define _mm512_set1_epi32 emulated::set1_epi32
#define _mm512_set4_epi32 emulated::set4_epi32
#define _mm512_setr_epi32 emulated::setr_epi32
#define _mm512_setr_epi64 emulated::setr_epi64
#define _mm512_mask_loadu_ps emulated::mask_loadu_ps
#define _mm512_mask_storeu_ps emulated::mask_storeu_ps
#define _mm512_permutexvar_ps emulated::permutexvar_ps
#define _mm512_permutexvar_epi32 emulated::permuted<uint32_t>
#define _mm512_permutexvar_epi16 emulated::permuted<uint16_t>
#define _mm512_permutexvar_epi64 emulated::permuted<uint64_t>
#define _mm512_permutexvar_epi8 emulated::permuted<uint8_t>
#define _mm512_permutex2var_ps emulated::permutex2var_ps
#define _mm512_permutex2var_epi32 emulated::permutex2var_epi32
#define _mm512_mask_storeu_epi8 emulated::mask_storeu_epi8
#define _mm512_mask_broadcast_i32x4 emulated::mask_broadcast_i32x4
#define _mm512_castsi128_si512 emulated::castsi128_si512
#define _mm512_cvtusepi32_epi8 emulated::cvtusepi32_epi8
#define _mm512_cvtepi32_epi8 emulated::converted<uint8_t, uint32_t, __m128i>
#define _mm512_cvtepi32_epi16 emulated::converted<uint16_t, uint32_t, __m256i>
#define _mm512_cvtepu8_epi32 emulated::converted<uint32_t, uint8_t, __m512i>
#define _mm512_cvtepu8_epi16 emulated::converted<uint16_t, uint8_t, __m512i>
#define _mm512_cvtepi16_epi8 emulated::converted<uint8_t, uint16_t, __m256i>
#define _mm512_cvtepu16_epi32 emulated::converted<uint32_t, uint16_t, __m512i>
#define _mm512_scalef_ps emulated::scalef_ps
#define _mm512_rcp14_ps emulated::rcp14_ps
#define _mm512_reduce_add_ps emulated::reduce_add_ps
#define _mm512_getexp_ps emulated::getexp_ps
#define _mm512_dpbusd_epi32 emulated::dpbusd<__m512i>
#define _mm256_dpbusd_epi32 emulated::dpbusd<__m256i>
#define _mm512_dpbf16_ps emulated::dpbf16<__m512>
#define _mm256_dpbf16_ps emulated::dpbf16<__m256>
#define _mm512_cvtneps_pbh emulated::cvtneps_pbh
#define _mm512_cvtne2ps_pbh emulated::cvtne2ps_pbh

#define _mm512_setzero_ps() emulated::set1_ps(0)
#define _mm512_setzero_si512() emulated::set1_epi32(0)
#define _mm512_castps_si512(a) emulated::as<__m512i>(a)
#define _mm512_castsi512_ps(a) emulated::as<__m512>(a)
#define _mm512_castsi512_si128(a) emulated::extracti32x4_epi32(a, 0)
#define _mm512_castsi512_si256(a) emulated::halves(a).low
#define _mm512_castsi256_si512(a) emulated::join(a, _mm256_setzero_si256())
#define _mm512_load_ps(p) emulated::load_aligned<__m512>(p)
#define _mm512_load_si512(p) emulated::load_aligned<__m512i>(p)
#define _mm512_loadu_ps(p) emulated::load<__m512>(p)
#define _mm512_loadu_si512(p) emulated::load<__m512i>(p)
#define _mm512_store_ps(p, a) emulated::store_aligned<__m512>(p, a)
#define _mm512_store_si512(p, a) emulated::store_aligned<__m512i>(p, a)
#define _mm512_storeu_ps(p, a) emulated::store<__m512>(p, a)
#define _mm512_storeu_si512(p, a) emulated::store<__m512i>(p, a)
#define _mm512_maskz_loadu_epi8(k, p) emulated::mask_loadu_epi8(_mm512_setzero_si512(), k, p)
#define _mm512_maskz_loadu_ps(k, p) emulated::mask_loadu_ps(emulated::set1_ps(0), k, p)
#define _mm512_mask_mov_ps(a, k, b) emulated::choose<float, __m512>(k, a, b)
#define _mm512_mask_blend_ps(k, a, b) emulated::choose<float, __m512>(k, a, b)
#define _mm512_mask_permutexvar_ps(other, k, index, a) emulated::choose<float, __m512>(k, other, emulated::permutexvar_ps(index, a))
#undef _mm512_slli_epi32
#define _mm512_slli_epi32(a, n) emulated::slli_epi32(a, n)
#undef _mm512_roundscale_ps
#define _mm512_roundscale_ps(a, how) emulated::roundscale_ps<(how)>(a)
#undef _mm512_cmp_ps_mask
#define _mm512_cmp_ps_mask(a, b, how) emulated::cmp_ps_mask<(how)>(a, b)
#undef _mm512_getmant_ps
#define _mm512_getmant_ps(a, interval, sign) emulated::getmant_ps(a)
#undef _mm512_shuffle_i32x4
#define _mm512_shuffle_i32x4(a, b, how) emulated::shuffle_i32x4(a, b, how)
#undef _mm512_extracti32x4_epi32
#define _mm512_extracti32x4_epi32(a, at) emulated::extracti32x4_epi32(a, at)
#undef _mm512_extracti64x4_epi64
#define _mm512_extracti64x4_epi64(a, at) ((at) ? emulated::halves(a).high : emulated::halves(a).low)
#undef _mm512_inserti64x4
#define _mm512_inserti64x4(a, b, at) emulated::inserti64x4(a, b, at)

// On shorter registers, under a mask.
#define _mm256_mask_permutexvar_epi16(other, k, index, a) \
  emulated::choose<uint16_t, __m256i>(k, other, emulated::permuted<uint16_t>(index, a))
#define _mm256_mask_loadu_epi8(other, k, p) emulated::mask_loadu_epi8(other, k, p)
#define _mm256_maskz_loadu_epi8(k, p) emulated::mask_loadu_epi8(_mm256_setzero_si256(), k, p)
#define _mm_maskz_loadu_epi8(k, p) emulated::mask_loadu_epi8(_mm_setzero_si128(), k, p)
#define _mm_mask_shuffle_epi8(other, k, a, index) emulated::choose<uint8_t, __m128i>(k, other, _mm_shuffle_epi8(a, index))
