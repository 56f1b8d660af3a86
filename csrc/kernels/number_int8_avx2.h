// int8 by dot products of four columns of bytes (AVX2, whose product of bytes adds two of them in 16 bits). narrow.h orders a row's columns
// so that no such sum is cut off: the products are exact. A row of maps is sixteen numbers 0..255 of two bytes; any four rows can be a step,
// joined pixel by pixel for both vectors of a group at once. Included inside a per-ISA namespace, after number.h.
#include "number_int8_parts.h"

template <class V> struct NarrowRows;

template <class V> struct NarrowInt8 : F32<V> {
  static constexpr Number number = Number::int8;
  static constexpr int columns = 4, floats = kLanes / 2;
  static constexpr bool halves = true, narrow = true;
  using Reg = typename V::Reg;
  using Sum = __m256i;
  using Value = uint32_t;  // first column in the lowest byte

  // Up to 255; below 0 and no number: 0, by the saturation of what follows.
  static __m256i steps(Reg x, float inverse, float zero) {
    return _mm256_cvtps_epi32(_mm256_min_ps(_mm256_set1_ps(255.f), _mm256_fmadd_ps(x, _mm256_set1_ps(inverse), _mm256_set1_ps(zero))));
  }
  static void put(float* to, __m128i words) { _mm_store_si128(reinterpret_cast<__m128i*>(to), words); }
  static void put_row(float* to, __m256i steps) {
    put(to, _mm_packus_epi32(_mm256_castsi256_si128(steps), _mm256_extracti128_si256(steps, 1)));
  }
  static void store_map(const ConvArgs& a, float* to, Reg x, int tap) { put_row(to, steps(x, a.inverse[tap], a.zero[tap])); }
  static void store_nine(const ConvArgs& a, float* to, uint32_t wanted, const Reg (&x)[9]) {
    const float *const inverse = a.inverse, *const zero = a.zero;
    const auto row = [&](int tap) { return steps(x[tap], inverse[tap], zero[tap]); };
    const auto all = [&](auto next) __attribute__((always_inline)) {
#pragma GCC unroll 4
      for (int tap = 0; tap < 8; tap += 2) {
        const __m256i two = _mm256_permute4x64_epi64(_mm256_packus_epi32(row(tap), row(tap + 1)), 0xd8);
        put(to, _mm256_castsi256_si128(two)), to += next(tap) * floats;
        put(to, _mm256_extracti128_si256(two, 1)), to += next(tap + 1) * floats;
      }
      put_row(to, row(8));
    };
    wanted == kAllNine ? all([](int) { return 1; }) : all([wanted](int tap) { return (int)(wanted >> tap & 1); });
  }
  static Sum zero() { return _mm256_setzero_si256(); }
  static Sum load_sum(const float* p) { return _mm256_load_si256(reinterpret_cast<const __m256i*>(p)); }
  static void store_sum(float* p, Sum s) { _mm256_store_si256(reinterpret_cast<__m256i*>(p), s); }
  // Columns and offsets of padded copies count words.
  static const float* at(const float* x, int64_t offset) {
    return reinterpret_cast<const float*>(reinterpret_cast<const uint16_t*>(x) + offset);
  }
  // Both vectors of a group: the first has the pixels 0..3 and 8..11, the second 4..7 and 12..15, and so have their sums.
  static void gather(const float* x, const uint32_t* column, Reg& first, Reg& second) {
    const auto row = [&](int i) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at(x, column[i]))); };
    const __m256i even = _mm256_packus_epi16(row(0), row(2)), odd = _mm256_packus_epi16(row(1), row(3));
    const __m256i low = _mm256_unpacklo_epi8(even, odd), high = _mm256_unpackhi_epi8(even, odd);
    first = _mm256_castsi256_ps(_mm256_unpacklo_epi16(low, high)), second = _mm256_castsi256_ps(_mm256_unpackhi_epi16(low, high));
  }
  static void order(Sum& first, Sum& second) {
    const Sum low = _mm256_permute2x128_si256(first, second, 0x20), high = _mm256_permute2x128_si256(first, second, 0x31);
    first = low, second = high;
  }
  // Two products a lane of 16 bits, and two lanes a sum.
  static __m256i lanes(Value w, Reg x) { return _mm256_maddubs_epi16(_mm256_castps_si256(x), _mm256_set1_epi32((int)w)); }
  static Sum widened(__m256i lanes) { return _mm256_madd_epi16(lanes, _mm256_set1_epi16(1)); }
  static Sum madd(Value w, Reg x, Sum s) { return _mm256_add_epi32(s, widened(lanes(w, x))); }
  // product_rows() of conv.h, of four or eight filters a row.
  template <int R, int T>
  static void rows(const ConvArgs& a, int chunk, int64_t group, int begin, int end, const float* const* x, float* joined) {
    NarrowRows<V>::template rows<R, T>(a, chunk, group, begin, end, x, joined);
  }
  static Reg result(const ConvArgs& a, int filter, Sum s) {
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(s), _mm256_set1_ps(a.scale[filter]), _mm256_set1_ps(a.bias[filter]));
  }
  static void store_value(const Rows<float>& y, float* to, Reg x) { put_row(to, steps(x, y.inverse, y.zero)); }
  static Reg load_value(const Rows<const float>& y, const float* from) {
    const __m256i words = _mm256_cvtepu16_epi32(_mm_load_si128(reinterpret_cast<const __m128i*>(from)));
    return _mm256_mul_ps(_mm256_sub_ps(_mm256_cvtepi32_ps(words), _mm256_set1_ps(y.zero)), _mm256_set1_ps(step_of(y.inverse)));
  }
  static void store_pixel(const Rows<float>& y, float* row, int p, float x) {
    alignas(16) uint16_t words[8];
    put_row(reinterpret_cast<float*>(words), steps(V::set1(x), y.inverse, y.zero));
    std::memcpy(reinterpret_cast<char*>(row) + 2 * p, words, 2);
  }
  static float load_pixel(const Rows<const float>& y, const float* row, int p) {
    uint16_t word;
    std::memcpy(&word, reinterpret_cast<const char*>(row) + 2 * p, 2);
    return ((float)word - y.zero) * step_of(y.inverse);
  }

  using Packed = __m128i;
  using Index = __m128i;  // of bytes
  static Packed nothing() { return _mm_setzero_si128(); }
  static Index index(const int32_t* lane) {
    const __m256i lanes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(lane));
    const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256(lanes, 1));
    return _mm_add_epi16(_mm_mullo_epi16(words, _mm_set1_epi16(0x202)), _mm_set1_epi16(0x100));
  }
  static Packed pick(uint32_t lanes, Index index, const float* from, Packed other) {
    const __m128i bit = _mm_setr_epi16(1, 2, 4, 8, 16, 32, 64, 128);
    const __m128i mask = _mm_cmpeq_epi16(_mm_and_si128(_mm_set1_epi16((short)lanes), bit), bit);
    return _mm_blendv_epi8(other, _mm_shuffle_epi8(_mm_load_si128(reinterpret_cast<const __m128i*>(from)), index), mask);
  }
  static void store_packed(const ConvArgs&, float* to, Packed x) { put(to, x); }
};

struct StepVectors {
  using Number = uint16_t;
  using Reg = __m256i;
  static constexpr int lanes = 16;
  static Reg zero() { return _mm256_setzero_si256(); }
  static Reg load(const Number* p) { return _mm256_loadu_si256(reinterpret_cast<const Reg*>(p)); }
  static void store(Number* p, Reg x) { _mm256_storeu_si256(reinterpret_cast<Reg*>(p), x); }
  static Reg load_some(const Number* p, int n) {
    alignas(32) Number some[lanes] = {};
    std::memcpy(some, p, n * sizeof(Number));
    return load(some);
  }
  static void store_some(Number* p, Reg x, int n) {
    alignas(32) Number all[lanes];
    store(all, x);
    std::memcpy(p, all, n * sizeof(Number));
  }
  static Reg larger(Reg a, Reg b) { return _mm256_max_epu16(a, b); }
  static Reg even(Reg a, Reg b) {
    const Reg low = _mm256_set1_epi32(0xffff);
    return _mm256_permute4x64_epi64(_mm256_packus_epi32(_mm256_and_si256(a, low), _mm256_and_si256(b, low)), 0xd8);
  }
};

template <class V8> struct LanesNarrowInt8 : LanesInt32<V8> {
  static constexpr int columns = 4;
  using Sum = __m256i;
  static Sum madd(const float* w, const float* x, int p, const uint32_t* column, Sum s) {
    uint32_t quad = 0;
    for (int i = 0; i < 4; ++i) quad |= (uint32_t) reinterpret_cast<const uint16_t*>(x)[column[i] + p] << 8 * i;
    const __m256i lanes = _mm256_maddubs_epi16(_mm256_set1_epi32((int)quad), _mm256_castps_si256(_mm256_load_ps(w)));
    return _mm256_add_epi32(s, _mm256_madd_epi16(lanes, _mm256_set1_epi16(1)));
  }
};

#include "narrow_rows.h"
#include "pool_steps.h"
