// conv for int8 by tiles of four groups whose maps lie side by side: a map is 64 bytes, the eight filters of a block row are multiplied with two
// groups at a time, and a step's four columns are joined by four interleavings for both, where groups that lie apart take four each.
//
// The bytes of a row: two groups are 32 pixels; of these, pixels 8k .. 8k+7 of the first two groups are the lower half of the row's 16 bytes k,
// those of the other two its upper half. So the low bytes of all rows interleave to the first two groups, the high ones to the others.
// Included inside a per-ISA namespace, after conv.h and number_int8.h.

constexpr int kWideGroups = 4;

template <class V> struct WideInt8 : Int8<V> {
  using Base = Int8<V>;
  using Reg = typename V::Reg;
  using Sum = typename Base::Sum;
  static constexpr int floats = kLanes;
  static constexpr bool in_place = false, wide = true;

  // One group's bytes of a row: two halves, 16 bytes apart.
  static void put(float* to, __m128i bytes) {
    _mm_storel_epi64(reinterpret_cast<__m128i*>(to), bytes);
    _mm_storeh_pd(reinterpret_cast<double*>(to + 4), _mm_castsi128_pd(bytes));
  }
  static void store_map(const ConvArgs& a, float* to, Reg x, int tap) { put(to, Base::steps(x, a.inverse[tap], a.zero[tap])); }
  static void store_nine(const ConvArgs& a, float* to, uint32_t wanted, const Reg (&x)[9]) { put_nine<WideInt8, V>(a, to, wanted, x); }
  static void store_packed(const ConvArgs&, float* to, __m128i x) { put(to, x); }
  template <int T> static void whole_maps(const ConvArgs& a, const Chunk& chunk, const Taps<V, T>& taps, float* maps) {
    WholeBasis<V, WideInt8>::template make<T>(a, chunk, taps, maps);
  }

  // A tiled source.
  static void copy_tiles(const ConvArgs& a, int64_t group, float* maps) {
    const Chunk& chunk = a.chunks[0];
    const float* x[kWideGroups];
    for (int g = 0; g < kWideGroups; ++g) x[g] = a.x.at(0, group + g);
    for (int i = chunk.begin; i < chunk.end; ++i) {
      const int64_t from = (int64_t)a.used[i].channel * a.x.channel;
      const auto row = [&](int g) { return _mm_load_si128(reinterpret_cast<const __m128i*>(x[g] + from)); };
      __m128i* const to = reinterpret_cast<__m128i*>(maps + (int64_t)a.used[i].begin * floats);
      _mm_store_si128(to, _mm_unpacklo_epi64(row(0), row(2))), _mm_store_si128(to + 1, _mm_unpackhi_epi64(row(0), row(2)));
      _mm_store_si128(to + 2, _mm_unpacklo_epi64(row(1), row(3))), _mm_store_si128(to + 3, _mm_unpackhi_epi64(row(1), row(3)));
    }
  }

  // A step's columns of two groups, joined: pixels 8k .. 8k+3 of these 32, and 8k+4 .. 8k+7.
  template <bool high>
  static inline __attribute__((always_inline)) void join(const float* x, const uint32_t* column, __m512i (&joined)[2]) {
    const auto row = [&](int i) { return _mm512_load_si512(x + column[i]); };
    const auto two = [&](int i) { return high ? _mm512_unpackhi_epi8(row(i), row(i + 1)) : _mm512_unpacklo_epi8(row(i), row(i + 1)); };
    const __m512i first = two(0), second = two(2);
    joined[0] = _mm512_unpacklo_epi16(first, second), joined[1] = _mm512_unpackhi_epi16(first, second);
  }
  // The sums of these as those of the two groups.
  static void order(Sum& first, Sum& second) {
    const __m512i low = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    const Sum one = _mm512_permutex2var_epi32(first, low, second);
    second = _mm512_permutex2var_epi32(first, _mm512_add_epi32(low, _mm512_set1_epi32(8)), second), first = one;
  }

  // Block row `row` of chunk `chunk` for the first two groups of a tile or (high) for the others, of which `group` is the first.
  template <bool high>
  static inline __attribute__((always_inline)) void half_row(const ConvArgs& a, int chunk, int row, int64_t group, const float* x) {
    constexpr int R = 8;
    const uint32_t* const bounds = a.bounds + (int64_t)chunk * a.bounds_step;
    const int filter = row * R, filters = a.filters - filter;
    float* y[2];
    const float* residual[2];
    for (int g = 0; g < 2; ++g) {
      y[g] = a.y.at(filter, group + g);
      residual[g] = a.residual.base ? a.residual.at(filter, group + g) : nullptr;
    }
    Sum acc[R][2];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
      for (int g = 0; g < 2; ++g) acc[r][g] = chunk == 0 ? Base::zero() : Base::load_sum(y[g] + (r < filters ? r : 0) * a.y.channel);
    const uint32_t begin = bounds[row], end = bounds[row + a.bounds_step];
    const uint32_t* value = static_cast<const uint32_t*>(a.values) + (int64_t)begin * R;
    const uint32_t *column = a.columns + (int64_t)begin * 4, *const stop = a.columns + (int64_t)end * 4;
    for (; column != stop; column += 4, value += R) {
      if (!high) __builtin_prefetch(value + kAhead * R), __builtin_prefetch(column + kAhead * 4);
      __m512i joined[2];
      join<high>(x, column, joined);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const __m512i w = _mm512_set1_epi32((int)value[r]);
        acc[r][0] = _mm512_dpbusd_epi32(acc[r][0], joined[0], w), acc[r][1] = _mm512_dpbusd_epi32(acc[r][1], joined[1], w);
      }
    }
    const bool last = chunk + 1 == a.chunk_count;
    if (last)
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) order(acc[r][0], acc[r][1]);
    end_sums<V, Base, R, 2>(a, filter, last, acc, y, residual);
  }

  static void tile(const ConvArgs& a, int64_t group, int begin, int end, float* scratch) {
    if (a.source == Source::shifted || a.source == Source::maps) {
      conv_tile<V, Base, 8, 2>(a, group, begin, end, scratch);
      return conv_tile<V, Base, 8, 2>(a, group + 2, begin, end, scratch);
    }
    float* const maps = scratch + taps_floats(a.window.rows * a.window.cols, kWideGroups);
    const auto rows = [&](int chunk, const float* x) {
      for (int row = begin; row < end; ++row) half_row<false>(a, chunk, row, group, x), half_row<true>(a, chunk, row, group + 2, x);
    };
    if (a.source == Source::picked) {
      float* to[kWideGroups];
      for (int g = 0; g < kWideGroups; ++g) to[g] = map_rows<V, WideInt8>(a, maps, g);
      pick_maps<V, WideInt8, kWideGroups>(a, group, a.chunks[0].begin, a.chunks[0].end, scratch, to);
      return rows(0, maps);
    }
    if (a.source == Source::tiled) {
      copy_tiles(a, group, maps);
      return rows(0, maps);
    }
    const Taps<V, kWideGroups> taps(a.window, group * kLanes, scratch, runs_alone<WideInt8>(a));
    for (int k = 0; k < a.chunk_count; ++k) {
      basis_step<V, WideInt8, kWideGroups>(a, a.chunks[k], taps, maps);
      rows(k, maps - (int64_t)a.chunks[k].first_map * floats);
    }
  }
};
