// int8 by dot products of four columns of bytes (AVX2, whose product of bytes adds two of them in 16 bits). narrow.h orders a row's columns
// so that no such sum is cut off: the products are exact. A row of maps is sixteen numbers 0..255 of two bytes; any four rows can be a step:
// they are joined pixel by pixel, for both vectors of a group at once, where the first half of a block row's filters needs them, and kept for
// the second. Two multiplications and an addition make 32 products; in double steps two steps share the second multiplication. Included inside
// a per-ISA namespace, after number.h.
#include "number_int8_parts.h"

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
  // product_rows() of conv.h, of four or eight filters a row: four at a time. The first half of a row leaves what it joins in `joined`,
  // [steps][2] vectors, to the second.
  template <int R, int T>
  static void rows(const ConvArgs& a, int chunk, int64_t group, int begin, int end, const float* const* x, float* joined) {
    const int64_t of_chunk = (int64_t)chunk * a.bounds_step, y_channel = a.y.channel;
    const int64_t residual_channel = a.residual.base ? a.residual.channel : 0;
    const uint32_t *const from = a.bounds + of_chunk, *const to = from + a.bounds_step, *const doubles = a.doubles + of_chunk;
    const Value* const values = static_cast<const Value*>(a.values);
    const uint32_t* const columns_of = a.columns;
    const bool first = chunk == 0, last = chunk + 1 == a.chunk_count;
    const bool far = (int64_t)a.chunks[chunk].maps * floats * T > kNearFloats;
    const int filters = a.filters;
    for (int row = begin; row < end; ++row) {
      const Value* const value = values + (int64_t)from[row] * R;
      const uint32_t *const column = columns_of + (int64_t)from[row] * columns, *const stop = columns_of + (int64_t)to[row] * columns;
      for (int g = 0; g < T; ++g) {
        const float* const maps = x[2 * g];
        float* y = a.y.at(row * R, group + g);
        const float* residual = a.residual.base ? a.residual.at(row * R, group + g) : nullptr;
#pragma GCC unroll 2
        for (int part = 0; part < R; part += 4) {
          const int filter = row * R + part;
          if (filter >= filters) break;
          Sum sums[4][2];
#pragma GCC unroll 4
          for (int r = 0; r < 4; ++r) sums[r][0] = sums[r][1] = zero();
          if (!first) take_sums(a, filter, y, sums);
          if (part > 0)
            steps<R, Maps::joined>(sums, value + part, column, stop, doubles[row], maps, joined);
          else if (far)
            steps<R, Maps::far>(sums, value, column, stop, doubles[row], maps, joined);
          else
            steps<R, Maps::near>(sums, value, column, stop, doubles[row], maps, joined);
          if (!last || !finish(a, filter, sums, y, residual)) {
            Sum waiting[4][2];  // a copy, so that the sums themselves stay in registers
#pragma GCC unroll 4
            for (int r = 0; r < 4; ++r) waiting[r][0] = sums[r][0], waiting[r][1] = sums[r][1];
            put_sums(a, filter, last, waiting, y, residual);
          }
          y += 4 * y_channel, residual += 4 * residual_channel;
        }
      }
    }
  }
  static float* second(const Rows<float>& y, float* at) { return at + (y.tiled ? floats / 2 : V::lanes); }
  // Sums that waited in y, and such that wait there or do not become values by finish().
  static inline __attribute__((always_inline)) void take_sums(const ConvArgs& a, int filter, float* y, Sum (&sums)[4][2]) {
    const int64_t channel = a.y.channel;
    const float* const other = second(a.y, y);
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) {
      const int64_t at = (filter + r < a.filters ? r : 0) * channel;
      sums[r][0] = load_sum(y + at), sums[r][1] = load_sum(other + at);
    }
  }
  static __attribute__((noinline)) void put_sums(const ConvArgs& a, int filter, bool last, Sum (&sums)[4][2], float* y,
                                                 const float* residual) {
    if (last)
      for (auto& of_filter : sums) order(of_filter[0], of_filter[1]);
    float* const places[2] = {y, second(a.y, y)};
    const float* const residuals[2] = {residual, residual ? residual + (a.residual.tiled ? floats / 2 : V::lanes) : nullptr};
    end_sums<V, NarrowInt8, 4, 2>(a, filter, last, sums, places, residuals);
  }
  enum class Maps : int { near, far, joined };
  struct alignas(32) Ones {
    int16_t lane[16];
  };
  static constexpr Ones kOnes = {{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}};
  template <int R, Maps kMaps> static inline __attribute__((always_inline)) void steps(Sum (&sums)[4][2], const Value* value,
                                                                                       const uint32_t* column, const uint32_t* stop,
                                                                                       uint32_t doubles, const float* x, float* joined) {
    constexpr bool kStores = R > 4;
    __m256i* place = reinterpret_cast<__m256i*>(joined);
    // The maps of a step, from these columns.
    const auto join = [&](const uint32_t* from, Reg(&maps)[2]) __attribute__((always_inline)) {
      if constexpr (kMaps == Maps::joined) {
        maps[0] = _mm256_castsi256_ps(_mm256_load_si256(place)), maps[1] = _mm256_castsi256_ps(_mm256_load_si256(place + 1));
      } else {
        gather(x, from, maps[0], maps[1]);
        if (kStores) _mm256_store_si256(place, _mm256_castps_si256(maps[0])), _mm256_store_si256(place + 1, _mm256_castps_si256(maps[1]));
      }
      place += 2;
    };
    // widened() and an addition. One after the other, or what is joined and multiplied would not fit the registers, in which a vector of ones
    // has no place either.
    const auto add = [](Sum& sum, __m256i lanes) __attribute__((always_inline)) {
      asm volatile("vpmaddwd %2, %1, %1\n\tvpaddd %1, %0, %0" : "+x"(sum), "+x"(lanes) : "m"(kOnes));
    };
    uint32_t here[8];  // columns of a double step: each is read once, to ask for its map a step ahead
    if (kMaps == Maps::far)
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) here[i] = column[i];
    for (const uint32_t* end = column + 8 * doubles; column != end; column += 2 * columns, value += 2 * R) {
      Reg maps[2][2];
      join(kMaps == Maps::far ? here : column, maps[0]), join(kMaps == Maps::far ? here + columns : column + columns, maps[1]);
      if (kMaps == Maps::far) {
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) here[i] = column[kMapsAhead + i], __builtin_prefetch(at(x, here[i]));
      } else {
        __builtin_prefetch(value + kAhead * R);
        if (kMaps == Maps::near) __builtin_prefetch(column + kAhead * columns);
      }
#pragma GCC unroll 4
      for (int r = 0; r < 4; ++r) {
        const Value w = value[r], next = value[R + r];
        add(sums[r][0], _mm256_add_epi16(lanes(w, maps[0][0]), lanes(next, maps[1][0])));
        add(sums[r][1], _mm256_add_epi16(lanes(w, maps[0][1]), lanes(next, maps[1][1])));
      }
    }
    for (; column != stop; column += columns, value += R) {
      if (kMaps == Maps::far) {
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) __builtin_prefetch(at(x, column[kMapsAhead + i]));
      }
      Reg maps[2];
      join(column, maps);
#pragma GCC unroll 4
      for (int r = 0; r < 4; ++r) add(sums[r][0], lanes(value[r], maps[0])), add(sums[r][1], lanes(value[r], maps[1]));
    }
  }
  static Reg result(const ConvArgs& a, int filter, Sum s) {
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(s), _mm256_set1_ps(a.scale[filter]), _mm256_set1_ps(a.bias[filter]));
  }
  // conv.h's finish_rows for sums as gather() left them, which is the order that a tile's row is packed in. False, and nothing done, for what
  // few layers have: a residual in planes or to planes, another activation.
  static inline __attribute__((always_inline)) bool finish(const ConvArgs& a, int filter, const Sum (&sums)[4][2], float* y,
                                                           const float* residual) {
    if (!a.y.tiled) {
      if (residual || a.act > Act::relu) return false;
      finish_planes(a, filter, sums, y);
      return true;
    }
    if ((residual && (!a.residual.tiled || a.act == Act::clip)) || a.act > Act::clip) return false;
    if (residual)
      finish_tile<true, false>(a, filter, sums, y, residual);
    else if (a.act == Act::clip)
      finish_tile<false, true>(a, filter, sums, y, residual);
    else
      finish_tile<false, false>(a, filter, sums, y, residual);
    return true;
  }
  static inline __attribute__((always_inline)) void finish_planes(const ConvArgs& a, int filter, const Sum (&sums)[4][2], float* to) {
    const Reg floor = V::set1(a.act == Act::none ? -__builtin_inff() : 0.f);
    const float *const scale = a.scale + filter, *const bias = a.bias + filter;
    const int64_t channel = a.y.channel;
    const int filters = a.filters - filter;
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) {
      if (r >= filters) break;
      Sum first = sums[r][0], second = sums[r][1];
      order(first, second);
      const auto value = [&](Sum sum) __attribute__((always_inline)) {
        return V::max(floor, V::fma(_mm256_cvtepi32_ps(sum), V::set1(scale[r]), V::set1(bias[r])));  // this order keeps NaN
      };
      V::store(to + r * channel, value(first)), V::store(to + r * channel + V::lanes, value(second));
    }
  }
  template <bool kResidual, bool kClips>
  static inline __attribute__((always_inline)) void finish_tile(const ConvArgs& a, int filter, const Sum (&sums)[4][2], float* to,
                                                                const float* from) {
    const Reg floor = V::set1(kClips ? a.alpha : a.act == Act::none ? -__builtin_inff() : 0.f), ceiling = V::set1(a.beta);
    const Reg inverse = V::set1(a.y.inverse), zero = V::set1(a.y.zero);
    const Reg step = V::set1(kResidual ? step_of(a.residual.inverse) : 0.f), zero_there = V::set1(a.residual.zero);
    const float *const scale = a.scale + filter, *const bias = a.bias + filter;
    const int64_t channel = a.y.channel, channel_there = a.residual.channel;
    const int filters = a.filters - filter;  // the last block row may be partial
    const __m256i none = _mm256_setzero_si256();
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) {
      if (r >= filters) break;
      const auto value = [&](Sum sum, __m256i words) __attribute__((always_inline)) {
        Reg x = V::fma(_mm256_cvtepi32_ps(sum), V::set1(scale[r]), V::set1(bias[r]));
        if (kResidual) x = V::add(x, V::mul(V::sub(_mm256_cvtepi32_ps(words), zero_there), step));
        x = V::max(floor, x);  // this order keeps NaN
        if (kClips) x = V::min(ceiling, x);
        return _mm256_cvtps_epi32(V::min(V::set1(255.f), V::fma(x, inverse, zero)));
      };
      const __m256i there = kResidual ? _mm256_load_si256(reinterpret_cast<const __m256i*>(from + r * channel_there)) : none;
      const __m256i first = value(sums[r][0], _mm256_unpacklo_epi16(there, none));
      const __m256i second = value(sums[r][1], _mm256_unpackhi_epi16(there, none));
      _mm256_store_si256(reinterpret_cast<__m256i*>(to + r * channel), _mm256_packus_epi32(first, second));
    }
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
