// int8 by dot products of four columns (AVX512-VNNI). A row of maps is sixteen unsigned bytes; any four rows can be a step: a transposition
// joins them. Included inside a per-ISA namespace, after number.h.
#include "number_int8_parts.h"

template <class V, class N> struct WholeBasis;
template <class V> struct WideInt8;
template <class V> struct InWideRows;

template <class V> struct Int8 : F32<V> {
  static constexpr Number number = Number::int8;
  static constexpr bool whole = true, joins = true;
  using OutOfWideRows = InWideRows<V>;
  static constexpr int columns = 4, floats = kLanes / 4, together = 4;
  using Reg = typename V::Reg;
  using Sum = __m512i;
  using Value = uint32_t;  // first column in the lowest byte

  // No number: 0.
  static __m128i steps(Reg x, float inverse, float zero) {
    const Reg steps = _mm512_fmadd_ps(x, _mm512_set1_ps(inverse), _mm512_set1_ps(zero));
    return _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(_mm512_min_ps(_mm512_set1_ps(255.f), _mm512_max_ps(steps, _mm512_setzero_ps()))));
  }
  // The same for four rows at once, up to 255 so that none is too large for 32 bits; no number: 0, by the saturation of four_rows().
  static __m512i whole_steps(Reg x, float inverse, float zero) {
    return _mm512_cvtps_epi32(_mm512_min_ps(_mm512_set1_ps(255.f), _mm512_fmadd_ps(x, _mm512_set1_ps(inverse), _mm512_set1_ps(zero))));
  }
  static __m512i four_rows(__m512i a, __m512i b, __m512i c, __m512i d) {
    const __m512i bytes = _mm512_packus_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
    return _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), bytes);
  }
  static void store_nine(const ConvArgs& a, float* to, uint32_t wanted, const Reg (&x)[9]) { put_rows<floats>(a, to, wanted, x); }
  template <int pitch> static inline void put_rows(const ConvArgs& a, float* to, uint32_t wanted, const Reg (&x)[9]) {
    const auto row = [&](int tap) { return whole_steps(x[tap], a.inverse[tap], a.zero[tap]); };
    const __m512i low = four_rows(row(0), row(1), row(2), row(3)), high = four_rows(row(4), row(5), row(6), row(7));
    if (pitch == floats && wanted == kAllNine) {
      _mm512_storeu_si512(to, low);
      _mm512_storeu_si512(to + 4 * floats, high);
      return store_map(a, to + 8 * floats, x[8], 8);
    }
    const auto put = [&](__m128i bytes, int tap) {
      _mm_store_si128(reinterpret_cast<__m128i*>(to), bytes), to += (wanted >> tap & 1) * pitch;
    };
    put(_mm512_castsi512_si128(low), 0), put(_mm512_extracti32x4_epi32(low, 1), 1);
    put(_mm512_extracti32x4_epi32(low, 2), 2), put(_mm512_extracti32x4_epi32(low, 3), 3);
    put(_mm512_castsi512_si128(high), 4), put(_mm512_extracti32x4_epi32(high, 1), 5);
    put(_mm512_extracti32x4_epi32(high, 2), 6), put(_mm512_extracti32x4_epi32(high, 3), 7);
    store_map(a, to, x[8], 8);
  }
  static void store_map(const ConvArgs& a, float* to, Reg x, int tap) {
    _mm_store_si128(reinterpret_cast<__m128i*>(to), steps(x, a.inverse[tap], a.zero[tap]));
  }
  template <int T> static void whole_maps(const ConvArgs& a, const Chunk& chunk, const Taps<V, T>& taps, float* maps) {
    WholeBasis<V, Int8>::template make<T>(a, chunk, taps, maps);
  }
  // conv_tile() of four groups.
  static void wide_tile(const ConvArgs& a, int64_t group, int begin, int end, float* scratch) {
    WideInt8<V>::tile(a, group, begin, end, scratch);
  }
  static Sum zero() { return _mm512_setzero_si512(); }
  static Sum load_sum(const float* p) { return _mm512_load_si512(p); }
  static void store_sum(float* p, Sum s) { _mm512_store_si512(p, s); }
  // Columns count bytes.
  static const float* at(const float* x, int64_t offset) {
    return reinterpret_cast<const float*>(reinterpret_cast<const char*>(x) + offset);
  }
  static Reg gather(const float* x, const uint32_t* column) {
    return join([&](int i) { return at(x, column[i]); });
  }
  // The rows that row_at(0..3) points to.
  template <class RowAt> static inline __attribute__((always_inline)) Reg join(RowAt row_at) {
    const auto row = [&](int i) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(row_at(i))); };
    const auto two = [&](int i) {
      return _mm512_castsi512_ps(_mm512_mask_broadcast_i32x4(_mm512_castsi128_si512(row(i)), 0x00f0, row(i + 1)));
    };
    // Four pixels of each row to a quarter, then byte by byte.
    const __m512i lanes = _mm512_setr_epi32(0, 4, 16, 20, 1, 5, 17, 21, 2, 6, 18, 22, 3, 7, 19, 23);
    const __m512i quarters = _mm512_castps_si512(_mm512_permutex2var_ps(two(0), lanes, two(2)));
    return _mm512_castsi512_ps(_mm512_shuffle_epi8(quarters, _mm512_set4_epi32(0x0f0b0703, 0x0e0a0602, 0x0d090501, 0x0c080400)));
  }
  static Sum madd(Value w, Reg x, Sum s) { return _mm512_dpbusd_epi32(s, _mm512_castps_si512(x), _mm512_set1_epi32((int)w)); }
  static Reg result(const ConvArgs& a, int filter, Sum s) {
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(s), _mm512_set1_ps(a.scale[filter]), _mm512_set1_ps(a.bias[filter]));
  }
  static void store_value(const Rows<float>& y, float* to, Reg x) {
    _mm_store_si128(reinterpret_cast<__m128i*>(to), steps(x, y.inverse, y.zero));
  }
  static void store_values(const Rows<float>& y, float* to, Reg a, Reg b, Reg c, Reg d) {
    const auto row = [&](Reg x) { return whole_steps(x, y.inverse, y.zero); };
    put_four(to, y.channel, four_rows(row(a), row(b), row(c), row(d)));
  }
  // Four rows, of a tile one behind the other, else of a plane each; no more than `filters`.
  static inline __attribute__((always_inline)) void put_four(float* to, int64_t channel, __m512i rows, int filters = 4) {
    if (channel == floats && filters >= 4) return _mm512_storeu_si512(to, rows);
    const auto put = [&](int i, __m128i row) {
      if (i < filters) _mm_store_si128(reinterpret_cast<__m128i*>(to + i * channel), row);
    };
    put(0, _mm512_castsi512_si128(rows)), put(1, _mm512_extracti32x4_epi32(rows, 1));
    put(2, _mm512_extracti32x4_epi32(rows, 2)), put(3, _mm512_extracti32x4_epi32(rows, 3));
  }
  static bool ends_in_steps(const ConvArgs& a) { return StepFactors::serve(a); }
  // finish_rows() of conv.h where ends_in_steps().
  template <bool kResidual, int S, int Q>
  static inline __attribute__((always_inline)) void finish_tile(const ConvArgs& a, int filter, const Sum (&acc)[S][Q], float* const* y,
                                                                const float* const* residual) {
    alignas(32) float scale[S], bias[S];
    const StepFactors factors(a);
    for (int r = 0; r < S; r += 4) factors.of_four(a, filter + r, scale + r, bias + r);
    const Rows<float> to = a.y;
    const int64_t channel_there = a.residual.channel;
    const int filters = a.filters - filter;  // the last block row may be partial
#pragma GCC unroll 8
    for (int r = 0; r < S; r += 4)
#pragma GCC unroll 8
      for (int q = 0; q < Q; ++q) {
        const auto row = [&](int i) __attribute__((always_inline)) {
          Reg offset = _mm512_set1_ps(bias[r + i]);
          if (kResidual && r + i < filters) {
            const float* from = residual[q] + (r + i) * channel_there;
            const __m512i there = _mm512_cvtepu8_epi32(_mm_load_si128(reinterpret_cast<const __m128i*>(from)));
            offset = _mm512_fmadd_ps(_mm512_cvtepi32_ps(there), _mm512_set1_ps(factors.added), offset);
          }
          return _mm512_cvtps_epi32(_mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[r + i][q]), _mm512_set1_ps(scale[r + i]), offset));
        };
        put_four(y[q] + r * to.channel, to.channel, four_rows(row(0), row(1), row(2), row(3)), filters - r);
      }
  }
  static Reg load_value(const Rows<const float>& y, const float* from) {
    const __m512i bytes = _mm512_cvtepu8_epi32(_mm_load_si128(reinterpret_cast<const __m128i*>(from)));
    return _mm512_mul_ps(_mm512_sub_ps(_mm512_cvtepi32_ps(bytes), _mm512_set1_ps(y.zero)), _mm512_set1_ps(step_of(y.inverse)));
  }
  static void store_pixel(const Rows<float>& y, float* row, int p, float x) {
    reinterpret_cast<uint8_t*>(row)[p] = (uint8_t)_mm_cvtsi128_si32(steps(_mm512_set1_ps(x), y.inverse, y.zero));
  }
  static float load_pixel(const Rows<const float>& y, const float* row, int p) {
    return ((float)reinterpret_cast<const uint8_t*>(row)[p] - y.zero) * step_of(y.inverse);
  }

  using Packed = __m128i;
  using Index = __m128i;
  static Packed nothing() { return _mm_setzero_si128(); }
  static Index index(const int32_t* lane) { return _mm512_cvtepi32_epi8(_mm512_loadu_si512(lane)); }
  static Packed pick(uint32_t lanes, Index index, const float* from, Packed other) {
    return _mm_mask_shuffle_epi8(other, (__mmask16)lanes, _mm_load_si128(reinterpret_cast<const __m128i*>(from)), index);
  }
  static void store_packed(const ConvArgs&, float* to, Packed x) { _mm_store_si128(reinterpret_cast<__m128i*>(to), x); }
};

// Out of rows of four groups (Rows::row_bits), where a column is a float, not a byte.
template <class V> struct InWideRows : Int8<V> {
  static constexpr bool ends_apart = true;
  static typename V::Reg gather(const float* x, const uint32_t* column) {
    return Int8<V>::join([&](int i) { return x + column[i]; });
  }
};

struct StepVectors {
  using Number = uint8_t;
  using Reg = __m512i;
  static constexpr int lanes = 64;
  static Reg zero() { return _mm512_setzero_si512(); }
  static Reg load(const Number* p) { return _mm512_loadu_si512(p); }
  static void store(Number* p, Reg x) { _mm512_storeu_si512(p, x); }
  static Reg load_some(const Number* p, int n) { return _mm512_maskz_loadu_epi8(~0ull >> (lanes - n), p); }
  static void store_some(Number* p, Reg x, int n) { _mm512_mask_storeu_epi8(p, ~0ull >> (lanes - n), x); }
  static Reg larger(Reg a, Reg b) { return _mm512_max_epu8(a, b); }
  static Reg even(Reg a, Reg b) {
    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi16_epi8(a)), _mm512_cvtepi16_epi8(b), 1);
  }
};

template <class V8> struct LanesInt8 : LanesInt32<V8> {
  static constexpr int columns = 4;
  using Sum = __m256i;
  static Sum madd(const float* w, const float* x, int p, const uint32_t* column, Sum s) {
    uint32_t quad = 0;
    for (int i = 0; i < 4; ++i) quad |= (uint32_t) reinterpret_cast<const uint8_t*>(x)[column[i] + p] << 8 * i;
    return _mm256_dpbusd_epi32(s, _mm256_set1_epi32((int)quad), _mm256_castps_si256(_mm256_load_ps(w)));
  }
};

#include "basis_whole.h"
#include "conv_wide.h"
#include "pool_steps.h"
