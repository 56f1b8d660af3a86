// conv for int8 by tiles of four groups whose maps lie side by side: a map is 64 bytes, the eight filters of a block row are multiplied with the
// low halves of its 16 bytes k = 0..3 at a time, then with the high ones, and a step's four columns are joined by four interleavings for 32
// pixels, where groups that lie apart take four each.
//
// The bytes of a row:
//   in memory   pixel after pixel (Rows::row_bits): the low halves are pixels 16k .. 16k+7
//   as packed   in the scratch, as packing leaves two groups and two more: the low halves are pixels 8k .. 8k+7, the high ones 32 + the same,
//               so that a half's sums are those of two whole groups
// Included inside a per-ISA namespace, after conv.h and number_int8.h.

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

  // A tiled source, as packed.
  static void copy_tiles(const ConvArgs& a, int64_t group, float* maps) {
    const Chunk& chunk = a.chunks[0];
    if (whole_rows(a.x, group)) {
      const float* const x = a.x.at(0, group);
      for (int i = chunk.begin; i < chunk.end; ++i)
        _mm512_store_si512(maps + (int64_t)a.used[i].begin * floats,
                           _mm512_permutexvar_epi64(packed(), _mm512_loadu_si512(x + (int64_t)a.used[i].channel * a.x.channel)));
      return;
    }
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

  // From a row in memory to one as packed. Back: itself.
  static __m512i packed() { return _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7); }
  static __m512i unpacked() { return _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7); }
  // Whether the tile's numbers of a channel are 64 bytes, pixel after pixel: a row of four groups, or of a plane. Rows are aligned: tiles of four
  // come first in a plan, so that they start with them.
  template <class F> static bool whole_rows(const Rows<F>& rows, int64_t group) {
    return rows.tiled && rows.at(0, group + kWideGroups - 1) - rows.at(0, group) == (kWideGroups - 1) * Base::floats;
  }

  // A step's columns of a half, joined: its pixels 0 .. 3 of each 8, and the others.
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

  // Adds the steps begin..end-1 of eight filters to sums that wait, or to none. Out of line and by way of memory: beside what becomes of them the
  // sums would not all stay in registers.
  template <bool high> static __attribute__((noinline)) void add_half(const ConvArgs& a, uint32_t begin, uint32_t end, const float* x,
                                                                      bool wait, Sum (&sums)[8][2]) {
    constexpr int R = 8;
    Sum acc[R][2];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) acc[r][0] = wait ? sums[r][0] : Base::zero(), acc[r][1] = wait ? sums[r][1] : Base::zero();
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
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) sums[r][0] = acc[r][0], sums[r][1] = acc[r][1];
  }

  // Block rows begin..end-1 of a tile whose sums become whole rows of steps at once, as StepFactors says. x: its maps; kPacked: as packed.
  static bool ends_in_rows(const ConvArgs& a, int64_t group) {
    return a.chunk_count == 1 && Base::ends_in_steps(a) && whole_rows(a.y, group) && (!a.residual.base || whole_rows(a.residual, group));
  }
  template <bool kPacked, bool kResidual> static void rows_in_steps(const ConvArgs& a, int64_t group, int begin, int end, const float* x) {
    constexpr int R = 8;
    const StepFactors factors(a);
    const uint32_t *const from = a.bounds, *const to = from + a.bounds_step;
    const int64_t channel = a.y.channel, channel_there = kResidual ? a.residual.channel : 0;
    float* y = a.y.at(0, group) + begin * R * channel;
    const float* there = kResidual ? a.residual.at(0, group) + begin * R * channel_there : nullptr;
    alignas(64) Sum sums[2][R][2];
    alignas(32) float scale[R], bias[R];
    for (int row = begin; row < end; ++row, y += R * channel, there += R * channel_there) {
      add_half<false>(a, from[row], to[row], x, false, sums[0]);
      add_half<true>(a, from[row], to[row], x, false, sums[1]);
      const int filter = row * R, filters = a.filters - filter < R ? a.filters - filter : R;  // the last block row may be partial
      for (int r = 0; r < R; r += 4) factors.of_four(a, filter + r, scale + r, bias + r);
      for (int r = 0; r < filters; ++r) {
        const __m512i row_there = kResidual ? _mm512_loadu_si512(there + r * channel_there) : __m512i{};
        const auto words = [&](bool high) __attribute__((always_inline)) {  // of a half, before they are cut off at 0 and 255
          Reg first = _mm512_set1_ps(bias[r]), second = first;
          if (kResidual) {
            const __m512i none = _mm512_setzero_si512(), those = half_of<kPacked>(row_there, high);
            const Reg factor = _mm512_set1_ps(factors.added);
            first = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_unpacklo_epi16(those, none)), factor, first);
            second = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_unpackhi_epi16(those, none)), factor, second);
          }
          const auto step = [&](Sum sum, Reg offset) __attribute__((always_inline)) {
            return _mm512_cvtps_epi32(_mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_set1_ps(scale[r]), offset));
          };
          return _mm512_packs_epi32(step(sums[high][r][0], first), step(sums[high][r][1], second));
        };
        const __m512i bytes = _mm512_packus_epi16(words(false), words(true));
        _mm512_storeu_si512(y + r * channel, kPacked ? _mm512_permutexvar_epi64(unpacked(), bytes) : bytes);
      }
    }
  }
  // Words of a row in memory, in the order of a half's sums; kPacked: those of maps as packed.
  template <bool kPacked> static inline __attribute__((always_inline)) __m512i half_of(__m512i row, bool high) {
    if (kPacked) return _mm512_cvtepu8_epi16(high ? _mm512_extracti64x4_epi64(row, 1) : _mm512_castsi512_si256(row));
    const __m512i none = _mm512_setzero_si512();
    return high ? _mm512_unpackhi_epi8(row, none) : _mm512_unpacklo_epi8(row, none);
  }

  // Block row `row` of chunk `chunk` for the first two groups of a tile or (high) for the others, of which `group` is the first.
  template <bool high> static void half_row(const ConvArgs& a, int chunk, int row, int64_t group, const float* x) {
    constexpr int R = 8;
    const uint32_t* const bounds = a.bounds + (int64_t)chunk * a.bounds_step;
    const int filter = row * R, filters = a.filters - filter < R ? a.filters - filter : R;
    float* y[2];
    const float* residual[2];
    for (int g = 0; g < 2; ++g) {
      y[g] = a.y.at(filter, group + g);
      residual[g] = a.residual.base ? a.residual.at(filter, group + g) : nullptr;
    }
    alignas(64) Sum sums[R][2] = {};
    for (int r = 0; chunk > 0 && r < filters; ++r)
      for (int g = 0; g < 2; ++g) sums[r][g] = Base::load_sum(y[g] + r * a.y.channel);
    add_half<high>(a, bounds[row], bounds[row + a.bounds_step], x, chunk > 0, sums);
    if (chunk + 1 == a.chunk_count) {
      for (int r = 0; r < R; ++r) order(sums[r][0], sums[r][1]);
      return end_sums_apart<V, Base, R, 2>(a, filter, sums, y, residual);
    }
    for (int r = 0; r < filters; ++r)
      for (int g = 0; g < 2; ++g) Base::store_sum(y[g] + r * a.y.channel, sums[r][g]);
  }

  template <bool kPacked> static void steps(const ConvArgs& a, int64_t group, int begin, int end, const float* x) {
    a.residual.base ? rows_in_steps<kPacked, true>(a, group, begin, end, x) : rows_in_steps<kPacked, false>(a, group, begin, end, x);
  }

  static void tile(const ConvArgs& a, int64_t group, int begin, int end, float* scratch) {
    if (a.source == Source::shifted || a.source == Source::maps) {
      conv_tile<V, Base, 8, 2>(a, group, begin, end, scratch);
      return conv_tile<V, Base, 8, 2>(a, group + 2, begin, end, scratch);
    }
    float* const maps = scratch + taps_floats(a.window.rows * a.window.cols, kWideGroups);
    const bool at_once = ends_in_rows(a, group);
    if (a.source == Source::tiled && a.x.row_bits == kWideBits && at_once && whole_rows(a.x, group))
      return steps<false>(a, group, begin, end, a.x.at(0, group));
    const auto rows = [&](int chunk, const float* x) {
      if (at_once) return steps<true>(a, group, begin, end, x);
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
    const Taps<V, kWideGroups> taps(a.window, group * kLanes, scratch, runs_alone<V, WideInt8>(a));
    for (int k = 0; k < a.chunk_count; ++k) {
      basis_step<V, WideInt8, kWideGroups>(a, a.chunks[k], taps, maps);
      rows(k, maps - (int64_t)a.chunks[k].first_map * floats);
    }
  }
};
